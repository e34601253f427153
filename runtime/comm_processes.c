/* runtime/comm_processes.c - collectives of ranks that are processes: every pair of a group exchanges what it owes each other, at once, over their
 * own connection. Start with exchange; each collective is one or two of them.
 *
 * Invariant: what comes over a connection is announced by a header (collective, group, length) and must be what is due here and now; anything else
 * ends the run. Sums are made where they are needed, in the order of parts (reduce.c), so their bits are those of ranks that are threads.
 */
#include "runtime/blocks.h"
#include "runtime/plan.h"
#include "runtime/processes_impl.h"
#include "runtime/sync.h"

#include <errno.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

enum { HEADER = 24, SMALL_BYTES = 32 << 10, SLICE_UNIT = 64 };

/* One direction of an exchange with one peer: header, then body. */
struct stream {
    unsigned char header[HEADER];
    char *body;
    size_t bytes, done; /* done counts the header too */
};

struct member { /* of the group of one collective */
    uint32_t rank;
    struct stream out, in;
};

struct scratch {
    char *at;
    size_t bytes;
};

enum { SCRATCHES = 2 };
struct process_comm {
    struct comm base;
    struct processes *world;
    struct mesh mesh;
    struct member *member; /* ranks */
    struct pollfd *polled; /* ranks + 1 */
    const void **source;   /* ranks */
    int64_t *offset;       /* ranks + 1 */
    uint32_t count, part;  /* of the collective that runs */
    struct scratch scratch[SCRATCHES];
};

static struct process_comm *own_of(struct comm *c)
{
    return (struct process_comm *)c;
}

static bool give_up(struct process_comm *c, uint32_t r, bool lost)
{
    char line[VERDICT_LINE];
    struct processes *p = c->world;
    const char *how = lost ? "lost the connection to" : "is not at the same collective as";
    for (double until = net_now() + GRACE / 2; lost && !atomic_load(&p->ended) && net_now() < until;)
        (void)poll(&(struct pollfd){.fd = p->wake[0], .events = POLLIN}, 1, 20); /* the watcher may know better */
    snprintf(line, sizeof line, "tpc: error: rank %u on %s %s rank %u on %s; last collective: number %u, %s",
             (unsigned)p->rank, p->peer[p->rank].host, how, (unsigned)r, p->peer[r].host,
             (unsigned)atomic_load(&p->sequence), collective_names[atomic_load(&p->what)]);
    processes_fail(p, TPC_RANKS, line);
    return false;
}

/* ---- the exchange ------------------------------------------------------------------------------------------------------ */

static bool done(const struct stream *s)
{
    return s->done == HEADER + s->bytes;
}

/* false: the connection is lost. */
static bool push(int fd, struct stream *s)
{
    while (!done(s)) {
        struct iovec part[2] = {{s->header + s->done, s->done < HEADER ? HEADER - s->done : 0}, {s->body, s->bytes}};
        if (s->done >= HEADER)
            part[1] = (struct iovec){s->body + (s->done - HEADER), s->bytes - (s->done - HEADER)};
        bool head = s->done < HEADER;
        struct msghdr m = {.msg_iov = head ? part : part + 1, .msg_iovlen = head && s->bytes ? 2 : 1};
        ssize_t n = sendmsg(fd, &m, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return errno == EAGAIN;
        s->done += (size_t)n;
    }
    return true;
}

enum pulled { PULLED, LOST, STRANGE };

static enum pulled pull(int fd, struct stream *s)
{
    unsigned char header[HEADER];
    while (!done(s)) {
        ssize_t n;
        if (s->done < HEADER) { /* the header is compared as it comes */
            n = recv(fd, header, HEADER - s->done, MSG_DONTWAIT);
            if (n > 0 && memcmp(header, s->header + s->done, (size_t)n) != 0)
                return STRANGE;
        } else {
            n = recv(fd, s->body + (s->done - HEADER), s->bytes - (s->done - HEADER), MSG_DONTWAIT);
        }
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return errno == EAGAIN ? PULLED : LOST;
        if (n == 0)
            return LOST;
        s->done += (size_t)n;
    }
    return PULLED;
}

static bool move(struct process_comm *c, struct member *m, bool *moved)
{
    int fd = c->world->peer[m->rank].data;
    size_t before = m->in.done + m->out.done;
    if (!push(fd, &m->out))
        return give_up(c, m->rank, true);
    enum pulled got = pull(fd, &m->in);
    if (got != PULLED)
        return give_up(c, m->rank, got == LOST);
    *moved = *moved || m->in.done + m->out.done != before;
    return true;
}

/* Waits until some connection can move, or all is over. */
static void wait_some(struct process_comm *c)
{
    uint32_t count = 0;
    c->polled[count++] = (struct pollfd){.fd = c->world->wake[0], .events = POLLIN};
    for (uint32_t i = 0; i < c->count; i++) {
        const struct member *m = &c->member[i];
        short events = (short)((done(&m->in) ? 0 : POLLIN) | (done(&m->out) ? 0 : POLLOUT));
        if (i != c->part && events)
            c->polled[count++] = (struct pollfd){.fd = c->world->peer[m->rank].data, .events = events};
    }
    (void)poll(c->polled, count, 1000);
}

/* Sends member[i].out.body and fills member[i].in.body, for all others of the group. */
static bool exchange(struct process_comm *c, uint32_t subaxes)
{
    struct processes *p = c->world;
    for (uint32_t i = 0; i < c->count; i++) {
        struct stream *both[2] = {&c->member[i].out, &c->member[i].in};
        for (int k = 0; k < 2; k++) {
            put_little(both[k]->header, atomic_load(&p->what), 4);
            put_little(both[k]->header + 4, subaxes, 4);
            put_little(both[k]->header + 8, both[k]->bytes, 8);
            put_little(both[k]->header + 16, 0, 8);
            both[k]->done = 0;
        }
    }
    for (uint32_t idle = 0;;) {
        bool all = true, moved = false;
        for (uint32_t i = 0; i < c->count; i++) {
            struct member *m = &c->member[i];
            if (i == c->part || (done(&m->in) && done(&m->out)))
                continue;
            if (atomic_load(&p->ended) || !move(c, m, &moved))
                return false;
            all = all && done(&m->in) && done(&m->out);
        }
        if (all)
            return !atomic_load(&p->ended);
        idle = moved ? 0 : idle + 1;
        if (idle > 0)
            wait_some(c);
    }
}

/* ---- a collective's group and memory ------------------------------------------------------------------------------------ */

/* Who takes part; bodies are empty. */
static void begin(struct process_comm *c, uint32_t subaxes, enum collective what)
{
    uint32_t others = ((1u << c->mesh.count) - 1) & ~subaxes, own = mesh_part_of(&c->mesh, others, c->base.rank);
    atomic_store(&c->world->what, what);
    atomic_fetch_add(&c->world->sequence, 1);
    c->count = mesh_parts(&c->mesh, subaxes);
    c->part = mesh_part_of(&c->mesh, subaxes, c->base.rank);
    for (uint32_t r = 0; r < c->base.ranks; r++)
        if (mesh_part_of(&c->mesh, others, r) == own)
            c->member[mesh_part_of(&c->mesh, subaxes, r)] = (struct member){.rank = r};
}

static void send_to(struct process_comm *c, uint32_t part, const void *from, size_t bytes)
{
    memcpy(&c->member[part].out.body, &from, sizeof from); /* never written to */
    c->member[part].out.bytes = bytes;
}

static void take_from(struct process_comm *c, uint32_t part, void *to, size_t bytes)
{
    c->member[part].in.body = to;
    c->member[part].in.bytes = bytes;
}

/* Memory that is kept from call to call. NULL: there is none (the rank fails with out_of_memory). */
static char *reserve(struct process_comm *c, uint32_t which, size_t bytes)
{
    struct scratch *s = &c->scratch[which];
    if (s->at && s->bytes >= bytes)
        return s->at;
    base_free(s->at);
    s->bytes = bytes + bytes / 4 + 64;
    s->at = base_alloc(s->bytes);
    c->base.out_of_memory = c->base.out_of_memory || !s->at;
    return s->at;
}

static void copy(void *to, const void *from, size_t bytes)
{
    if (to != from && bytes)
        memcpy(to, from, bytes);
}

static size_t extent(const int64_t *offset, uint32_t part)
{
    return (size_t)(offset[part + 1] - offset[part]);
}

/* ---- the collectives ------------------------------------------------------------------------------------------------------ */

static bool barrier(struct comm *base, uint32_t subaxes)
{
    struct process_comm *c = own_of(base);
    begin(c, subaxes, BARRIER);
    return exchange(c, subaxes);
}

/* Small: everybody gets everything and adds it up. */
static bool reduce_everywhere(struct process_comm *c, uint32_t subaxes, enum reduction reduction, dtype type,
                              const void *in, void *out, int64_t elements)
{
    size_t bytes = (size_t)elements * dtype_size(type);
    char *room = reserve(c, 0, bytes * c->count);
    if (!room)
        return false;
    for (uint32_t i = 0; i < c->count; i++) {
        c->source[i] = room + i * bytes;
        send_to(c, i, in, bytes);
        take_from(c, i, room + i * bytes, bytes);
    }
    c->source[c->part] = in;
    if (!exchange(c, subaxes))
        return false;
    reduce_sources(reduction, type, c->source, c->count, 0, elements, out);
    return true;
}

/* Large: each adds up one slice, then they are handed round. */
static bool reduce_slices(struct process_comm *c, uint32_t subaxes, enum reduction reduction, dtype type,
                          const void *in, void *out, int64_t elements)
{
    size_t size = dtype_size(type);
    c->offset[0] = 0;
    for (uint32_t i = 0; i < c->count; i++) {
        int64_t first;
        part_range(elements, SLICE_UNIT, i, c->count, &first, &c->offset[i + 1]);
    }
    size_t mine = extent(c->offset, c->part) * size;
    char *room = reserve(c, 0, mine * c->count);
    if (!room)
        return false;
    for (uint32_t i = 0; i < c->count; i++) {
        c->source[i] = i == c->part ? (const char *)in + (size_t)c->offset[i] * size : room + i * mine;
        send_to(c, i, (const char *)in + (size_t)c->offset[i] * size, extent(c->offset, i) * size);
        take_from(c, i, room + i * mine, mine);
    }
    if (!exchange(c, subaxes))
        return false;
    char *sum = (char *)out + (size_t)c->offset[c->part] * size;
    reduce_sources(reduction, type, c->source, c->count, 0, (int64_t)extent(c->offset, c->part), sum);
    for (uint32_t i = 0; i < c->count; i++) {
        send_to(c, i, sum, mine);
        take_from(c, i, (char *)out + (size_t)c->offset[i] * size, extent(c->offset, i) * size);
    }
    return exchange(c, subaxes);
}

static bool all_reduce(struct comm *base, uint32_t subaxes, enum reduction reduction, dtype type, const void *in,
                       void *out, int64_t elements)
{
    struct process_comm *c = own_of(base);
    begin(c, subaxes, ALL_REDUCE);
    bool small = (size_t)elements * dtype_size(type) <= SMALL_BYTES;
    return (small ? reduce_everywhere : reduce_slices)(c, subaxes, reduction, type, in, out, elements);
}

static bool all_gather(struct comm *base, uint32_t subaxes, size_t size, const struct comm_cut *cut, const void *in,
                       void *out)
{
    struct process_comm *c = own_of(base);
    begin(c, subaxes, ALL_GATHER);
    size_t unit = (size_t)cut->inner * size, outer = (size_t)cut->outer, line = (size_t)cut->offset[c->count] * unit;
    bool direct = outer <= 1; /* parts lie in the result as they come */
    char *room = direct ? out : reserve(c, 0, outer * line);
    if (!room)
        return false;
    for (uint32_t i = 0; i < c->count; i++) {
        send_to(c, i, in, outer * extent(cut->offset, c->part) * unit);
        take_from(c, i, room + outer * (size_t)cut->offset[i] * unit, outer * extent(cut->offset, i) * unit);
    }
    if (!exchange(c, subaxes))
        return false;
    for (uint32_t i = 0; i < c->count; i++) {
        size_t bytes = extent(cut->offset, i) * unit;
        const char *from = i == c->part ? in : c->member[i].in.body;
        for (size_t o = 0; o < outer && bytes; o++)
            copy((char *)out + o * line + (size_t)cut->offset[i] * unit, from + o * bytes, bytes);
    }
    return true;
}

static bool reduce_scatter(struct comm *base, uint32_t subaxes, enum reduction reduction, dtype type,
                           const struct comm_cut *cut, const void *in, void *out)
{
    struct process_comm *c = own_of(base);
    begin(c, subaxes, REDUCE_SCATTER);
    size_t unit = (size_t)cut->inner * dtype_size(type), outer = (size_t)cut->outer;
    size_t line = (size_t)cut->offset[c->count] * unit, mine = outer * extent(cut->offset, c->part) * unit;
    char *packed = reserve(c, 0, outer * line), *room = reserve(c, 1, mine * c->count);
    if (!packed || !room)
        return false;
    for (uint32_t i = 0; i < c->count; i++) {
        char *to = packed + outer * (size_t)cut->offset[i] * unit;
        size_t bytes = extent(cut->offset, i) * unit;
        for (size_t o = 0; o < outer && bytes; o++)
            memcpy(to + o * bytes, (const char *)in + o * line + (size_t)cut->offset[i] * unit, bytes);
        send_to(c, i, to, outer * bytes);
        take_from(c, i, room + i * mine, mine);
        c->source[i] = i == c->part ? to : room + i * mine;
    }
    if (!exchange(c, subaxes))
        return false;
    reduce_sources(reduction, type, c->source, c->count, 0, (int64_t)(mine / dtype_size(type)), out);
    return true;
}

static bool all_to_all(struct comm *base, uint32_t subaxes, size_t size, const struct comm_exchange *x, const void *in,
                       void *out)
{
    struct process_comm *c = own_of(base);
    begin(c, subaxes, ALL_TO_ALL);
    size_t out_bytes = 0, in_bytes = 0;
    for (uint32_t i = 0; i < c->count; i++) {
        c->member[i].out.bytes = block_bytes(x, c->count, c->part, i, size);
        c->member[i].in.bytes = block_bytes(x, c->count, i, c->part, size);
        out_bytes += c->member[i].out.bytes;
        in_bytes += c->member[i].in.bytes;
    }
    char *packed = reserve(c, 0, out_bytes), *room = reserve(c, 1, in_bytes);
    if (!packed || !room)
        return false;
    for (uint32_t i = 0; i < c->count; i++) {
        block_pack(x, c->count, c->part, i, size, in, packed);
        send_to(c, i, packed, c->member[i].out.bytes);
        take_from(c, i, room, c->member[i].in.bytes);
        packed += c->member[i].out.bytes;
        room += c->member[i].in.bytes;
    }
    if (!exchange(c, subaxes))
        return false;
    for (uint32_t i = 0; i < c->count; i++)
        block_unpack(x, c->count, i, c->part, size, i == c->part ? c->member[i].out.body : c->member[i].in.body, out);
    return true;
}

static bool broadcast(struct comm *base, uint32_t subaxes, uint32_t root, size_t bytes, const void *in, void *out)
{
    struct process_comm *c = own_of(base);
    begin(c, subaxes, BROADCAST);
    for (uint32_t i = 0; i < c->count; i++) {
        if (c->part == root)
            send_to(c, i, in, bytes);
        else if (i == root)
            take_from(c, i, out, bytes);
    }
    if (!exchange(c, subaxes))
        return false;
    if (c->part == root)
        copy(out, in, bytes);
    return true;
}

/* This rank fails: it will say so when it leaves (processes_leave). */
static void abort_run(struct comm *base)
{
    (void)base;
}

static const struct comm_ops ops = {
    .name = "processes",
    .barrier = barrier,
    .all_reduce = all_reduce,
    .all_gather = all_gather,
    .reduce_scatter = reduce_scatter,
    .all_to_all = all_to_all,
    .broadcast = broadcast,
    .abort = abort_run,
};

struct comm *comm_processes_new(struct processes *p, const struct mesh *mesh)
{
    struct process_comm *c = base_alloc(sizeof *c);
    if (!c)
        return NULL;
    *c = (struct process_comm){.base = {.ops = &ops, .rank = p->rank, .ranks = p->ranks}, .world = p, .mesh = *mesh};
    c->member = base_alloc(p->ranks * sizeof *c->member);
    c->polled = base_alloc((p->ranks + 1) * sizeof *c->polled);
    c->source = base_alloc(p->ranks * sizeof *c->source);
    c->offset = base_alloc((p->ranks + 1) * sizeof *c->offset);
    p->comm = &c->base;
    if (c->member && c->polled && c->source && c->offset)
        return &c->base;
    comm_processes_free(&c->base);
    p->comm = NULL;
    return NULL;
}

void comm_processes_free(struct comm *base)
{
    if (!base)
        return;
    struct process_comm *c = own_of(base);
    for (uint32_t i = 0; i < SCRATCHES; i++)
        base_free(c->scratch[i].at);
    base_free(c->member);
    base_free(c->polled);
    base_free(c->source);
    base_free(c->offset);
    base_free(c);
}
