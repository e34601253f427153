/* runtime/comm_nccl.c - see comm_nccl.h. One communicator for all ranks, one more for each mask of sub-axes; start with the collectives below.
 *
 * NCCL cuts evenly and knows eight types. Uneven parts go as broadcasts or reductions of one group; parts that are not one run of memory are packed by
 * the kernels that codegen offers for it; types and reductions that it lacks are gathered and combined by such a kernel.
 */
#include "runtime/comm_nccl.h"
#include "runtime/blocks.h"
#include "runtime/device_cuda.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <time.h>

enum { MOST_GROUPS = 2 * MAX_SUBAXES + 1, CHUNK = 256 };
#define ABORT_SECONDS 5.0

struct nccl_group {
    uint32_t subaxes, parts, part;
    nccl_comm comm;
};

struct nccl_rank {
    struct comm base;
    const struct cuda_nccl *api;
    struct mesh mesh;
    struct device *device;
    cu_stream stream;
    struct arena *arena; /* for the arguments of launches */
    struct nccl_group group[MOST_GROUPS];
    uint32_t groups;
    char *scratch; /* on the GPU */
    uint64_t scratch_bytes;
    bool dead;
    bool (*over)(void *context);
    void *context;
};

static struct nccl_rank *own_of(const struct comm *c)
{
    return (struct nccl_rank *)(uintptr_t)c;
}

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* ---- what NCCL says ------------------------------------------------------------------------------------------------------ */

static bool complain(struct nccl_rank *c, int result, nccl_comm comm, const char *what)
{
    const char *last = comm ? c->api->last_error(comm) : NULL;
    if (!*c->base.why)
        snprintf(c->base.why, sizeof c->base.why, "NCCL: %.40s: %.50s%s%.80s", what, c->api->error_text(result),
                 last && *last ? ": " : "", last ? last : "");
    return false;
}

/* What a call has begun is under way: communicators that do not block may still be at it. */
static bool settled(struct nccl_rank *c, int result, nccl_comm comm, const char *what, double deadline)
{
    for (uint32_t round = 0; result == NCCL_IN_PROGRESS; round++) {
        int state = NCCL_OK;
        result = c->api->state(comm, &state);
        result = result == NCCL_OK ? state : result;
        if (result != NCCL_IN_PROGRESS)
            break;
        if (round % 16 == 15 && c->over && c->over(c->context))
            return false;
        if (deadline > 0 && now() > deadline) {
            snprintf(c->base.why, sizeof c->base.why, "NCCL: %.40s takes too long", what);
            return false;
        }
        if (round < 1000)
            sched_yield();
        else
            nanosleep(&(struct timespec){.tv_nsec = 100 * 1000}, NULL);
    }
    return result == NCCL_OK || complain(c, result, comm, what);
}

bool comm_nccl_broken(struct comm *base)
{
    struct nccl_rank *c = own_of(base);
    for (uint32_t i = 0; i < c->groups && !c->dead; i++) {
        int state = NCCL_OK, result = c->group[i].comm ? c->api->state(c->group[i].comm, &state) : NCCL_OK;
        result = result == NCCL_OK ? state : result;
        if (result != NCCL_OK && result != NCCL_IN_PROGRESS)
            (void)complain(c, result, c->group[i].comm, "a collective");
    }
    return *base->why != 0;
}

/* ---- ending -------------------------------------------------------------------------------------------------------------- */

struct ending { /* on its own thread, since it may never return: then this is left behind */
    const struct cuda_nccl *api;
    nccl_comm comm[MOST_GROUPS];
    uint32_t count;
    atomic_int state; /* 1: done; 2: nobody waits any more */
};

static void *abort_all(void *argument)
{
    struct ending *e = argument;
    int expected = 0;
    for (uint32_t i = e->count; i-- > 0;)
        (void)e->api->abort(e->comm[i]);
    if (!atomic_compare_exchange_strong(&e->state, &expected, 1))
        base_free(e);
    return NULL;
}

static void end_groups(struct nccl_rank *c)
{
    pthread_t thread;
    int expected = 0;
    struct ending *e = base_alloc(sizeof *e);
    if (c->dead || !e) {
        base_free(e);
        return;
    }
    c->dead = true;
    e->api = c->api;
    for (uint32_t i = 0; i < c->groups; i++)
        if (c->group[i].comm)
            e->comm[e->count++] = c->group[i].comm;
    if (e->count == 0 || pthread_create(&thread, NULL, abort_all, e) != 0) {
        base_free(e);
        return;
    }
    (void)pthread_detach(thread);
    for (double until = now() + ABORT_SECONDS; atomic_load(&e->state) == 0 && now() < until;)
        nanosleep(&(struct timespec){.tv_nsec = 200 * 1000}, NULL);
    if (!atomic_compare_exchange_strong(&e->state, &expected, 2))
        base_free(e);
}

void comm_nccl_give_up(struct comm *base)
{
    end_groups(own_of(base));
}

bool comm_nccl_dead(const struct comm *base)
{
    return own_of(base)->dead;
}

void comm_nccl_free(struct comm *base)
{
    if (!base)
        return;
    struct nccl_rank *c = own_of(base);
    end_groups(c);
    c->device->ops->release(c->device, c->scratch, c->scratch_bytes);
    arena_free(c->arena);
    base_free(c);
}

/* ---- groups and memory ------------------------------------------------------------------------------------------------------ */

/* NULL: there is none (a plan that names a mask nowhere else), or all is over. */
static struct nccl_group *find_group(struct nccl_rank *c, uint32_t subaxes)
{
    for (uint32_t i = 0; i < c->groups && !c->dead; i++)
        if (c->group[i].subaxes == subaxes)
            return &c->group[i];
    if (!*c->base.why)
        snprintf(c->base.why, sizeof c->base.why, c->dead ? "NCCL was given up" : "no communicator for these sub-axes");
    return NULL;
}

static bool reserve(struct nccl_rank *c, uint64_t bytes)
{
    if (c->scratch && c->scratch_bytes >= bytes)
        return true;
    c->device->ops->release(c->device, c->scratch, c->scratch_bytes);
    c->scratch_bytes = bytes + bytes / 4;
    c->device->ops->forget(c->device, false); /* they go through the old one */
    c->scratch = c->device->ops->alloc(c->device, c->scratch_bytes);
    c->base.out_of_memory = c->base.out_of_memory || !c->scratch;
    return c->scratch != NULL;
}

static uint64_t rounded(uint64_t bytes)
{
    return (bytes + CHUNK - 1) / CHUNK * CHUNK;
}

static bool launched(struct nccl_rank *c, bool needed, const struct cuda_launch *l, void *to, const void *from)
{
    struct failure f = {.code = TPC_OK};
    if (!needed)
        return true;
    if (device_cuda_ready(c->device, l, &f) == TPC_OK && device_cuda_launch(c->device, l, to, from, &f) == TPC_OK)
        return true;
    snprintf(c->base.why, sizeof c->base.why, "%.180s", f.text);
    return false;
}

/* rows times bytes, from one pitch to another. */
static bool copy_rows(struct nccl_rank *c, void *to, const void *from, uint64_t rows, uint64_t bytes, uint64_t to_pitch,
                      uint64_t from_pitch)
{
    struct cuda_launch l;
    struct arena_mark mark = arena_mark(c->arena);
    bool needed = cuda_copy_rows(device_cuda_set(c->device), (int64_t)rows, (int64_t)bytes, (int64_t)to_pitch,
                                 (int64_t)from_pitch, c->arena, &l);
    bool good = launched(c, needed, &l, to, from);
    arena_rewind(c->arena, mark);
    return good;
}

/* to = the reduction of parts that lie `pitch` elements apart. */
static bool combine(struct nccl_rank *c, dtype type, enum reduction reduction, uint32_t parts, int64_t elements,
                    int64_t pitch, void *to, const void *from)
{
    struct cuda_launch l;
    struct arena_mark mark = arena_mark(c->arena);
    bool needed =
        cuda_combine(device_cuda_set(c->device), type, (int32_t)reduction, parts, elements, pitch, c->arena, &l);
    bool good = launched(c, needed, &l, to, from);
    arena_rewind(c->arena, mark);
    return good;
}

/* NCCL's type and operation. false: it has none. A bool's sum or maximum is `or`, its product or minimum `and`. */
static bool nccl_reduction(dtype type, enum reduction reduction, int *as, int *operation)
{
    static const int types[DT_COUNT] = {
        [DT_I8] = NCCL_I8 + 1,   [DT_I32] = NCCL_I32 + 1, [DT_I64] = NCCL_I64 + 1, [DT_U8] = NCCL_U8 + 1,
        [DT_U32] = NCCL_U32 + 1, [DT_U64] = NCCL_U64 + 1, [DT_F16] = NCCL_F16 + 1, [DT_BF16] = NCCL_BF16 + 1,
        [DT_F32] = NCCL_F32 + 1, [DT_F64] = NCCL_F64 + 1, [DT_BOOL] = NCCL_U8 + 1};
    bool sum = reduction == REDUCTION_SUM, product = reduction == REDUCTION_PROD;
    *as = types[type] - 1;
    if (type == DT_BOOL)
        *operation = sum || reduction == REDUCTION_MAX ? NCCL_MAXIMUM : NCCL_MINIMUM;
    else
        *operation = sum ? NCCL_SUM : product ? NCCL_PRODUCT : reduction == REDUCTION_MAX ? NCCL_MAXIMUM : NCCL_MINIMUM;
    return types[type] != 0;
}

static uint64_t own(const int64_t *offset, uint32_t part)
{
    return (uint64_t)(offset[part + 1] - offset[part]);
}

static bool even(const int64_t *offset, uint32_t parts)
{
    for (uint32_t p = 1; p < parts; p++)
        if (own(offset, p) != own(offset, 0))
            return false;
    return true;
}

/* ---- the collectives ---------------------------------------------------------------------------------------------------------- */

static bool barrier(struct comm *base, uint32_t subaxes)
{
    return find_group(own_of(base), subaxes) != NULL; /* the queue keeps the order */
}

/* Parts of `bytes` each behind each other, from everybody. */
static bool gather_even(struct nccl_rank *c, struct nccl_group *g, const void *in, void *out, uint64_t bytes)
{
    return bytes == 0 ||
           settled(c, c->api->all_gather(in, out, bytes, NCCL_U8, g->comm, c->stream), g->comm, "all_gather", 0);
}

static bool all_reduce(struct comm *base, uint32_t subaxes, enum reduction reduction, dtype type, const void *in,
                       void *out, int64_t elements)
{
    struct nccl_rank *c = own_of(base);
    struct nccl_group *g = find_group(c, subaxes);
    int as, operation;
    if (!g || elements == 0)
        return g != NULL;
    if (nccl_reduction(type, reduction, &as, &operation))
        return settled(c, c->api->all_reduce(in, out, (size_t)elements, as, operation, g->comm, c->stream), g->comm,
                       "all_reduce", 0);
    uint64_t bytes = (uint64_t)elements * dtype_size(type);
    return reserve(c, g->parts * bytes) && gather_even(c, g, in, c->scratch, bytes) &&
           combine(c, type, reduction, g->parts, elements, elements, out, c->scratch);
}

/* Part p's bytes to all, at to + scale * offset[p]. */
static bool gather_parts(struct nccl_rank *c, struct nccl_group *g, const int64_t *offset, uint64_t scale,
                         const void *in, char *to)
{
    if (even(offset, g->parts))
        return gather_even(c, g, in, to, own(offset, 0) * scale);
    int result = c->api->group_start();
    for (uint32_t p = 0; p < g->parts && result == NCCL_OK; p++) {
        char *at = to + (uint64_t)offset[p] * scale;
        if (own(offset, p))
            result = c->api->broadcast(p == g->part ? in : at, at, own(offset, p) * scale, NCCL_U8, (int)p, g->comm,
                                       c->stream);
        result = result == NCCL_IN_PROGRESS ? NCCL_OK : result;
    }
    int end = c->api->group_end();
    return settled(c, result == NCCL_OK ? end : result, g->comm, "all_gather", 0);
}

static bool all_gather(struct comm *base, uint32_t subaxes, size_t size, const struct comm_cut *cut, const void *in,
                       void *out)
{
    struct nccl_rank *c = own_of(base);
    struct nccl_group *g = find_group(c, subaxes);
    if (!g)
        return false;
    uint64_t unit = (uint64_t)cut->inner * size, outer = (uint64_t)cut->outer;
    uint64_t line = (uint64_t)cut->offset[g->parts] * unit;
    if (outer == 0 || line == 0)
        return true;
    if (outer == 1)
        return gather_parts(c, g, cut->offset, unit, in, out);
    bool good = reserve(c, outer * line) && gather_parts(c, g, cut->offset, outer * unit, in, c->scratch);
    for (uint32_t p = 0; p < g->parts && good; p++)
        good = copy_rows(c, (char *)out + (uint64_t)cut->offset[p] * unit,
                         c->scratch + outer * (uint64_t)cut->offset[p] * unit, outer, own(cut->offset, p) * unit, line,
                         own(cut->offset, p) * unit);
    return good;
}

/* Part p of everybody's `from`, which begins at offset[p] * scale elements, reduced on rank p. */
static bool reduce_parts(struct nccl_rank *c, struct nccl_group *g, const int64_t *offset, uint64_t scale, size_t size,
                         int type, int operation, const char *from, void *out)
{
    if (even(offset, g->parts))
        return settled(c,
                       c->api->reduce_scatter(from, out, own(offset, 0) * scale, type, operation, g->comm, c->stream),
                       g->comm, "reduce_scatter", 0);
    int result = c->api->group_start();
    for (uint32_t p = 0; p < g->parts && result == NCCL_OK; p++) {
        if (own(offset, p))
            result = c->api->reduce(from + (uint64_t)offset[p] * scale * size, p == g->part ? out : NULL,
                                    own(offset, p) * scale, type, operation, (int)p, g->comm, c->stream);
        result = result == NCCL_IN_PROGRESS ? NCCL_OK : result;
    }
    int end = c->api->group_end();
    return settled(c, result == NCCL_OK ? end : result, g->comm, "reduce_scatter", 0);
}

/* Bytes [at[p], at[p] + length[p]) of from go to p; what p sends is at to_at[p], to_length[p]. All but the own. */
static bool send_all(struct nccl_rank *c, struct nccl_group *g, const char *from, const uint64_t *at,
                     const uint64_t *length, char *to, const uint64_t *to_at, const uint64_t *to_length)
{
    int result = c->api->group_start();
    for (uint32_t p = 0; p < g->parts && result == NCCL_OK; p++) {
        if (p == g->part)
            continue;
        if (length[p])
            result = c->api->send(from + at[p], length[p], NCCL_U8, (int)p, g->comm, c->stream);
        result = result == NCCL_IN_PROGRESS ? NCCL_OK : result;
        if (to_length[p] && result == NCCL_OK)
            result = c->api->receive(to + to_at[p], to_length[p], NCCL_U8, (int)p, g->comm, c->stream);
        result = result == NCCL_IN_PROGRESS ? NCCL_OK : result;
    }
    int end = c->api->group_end();
    return settled(c, result == NCCL_OK ? end : result, g->comm, "send", 0);
}

/* A type that NCCL does not add: everybody's part goes to its owner, who combines. packed: by parts, each `outer` lines. */
static bool reduce_by_hand(struct nccl_rank *c, struct nccl_group *g, const struct comm_cut *cut, dtype type,
                           enum reduction reduction, const char *packed, char *room, void *out)
{
    uint64_t scale = (uint64_t)cut->outer * (uint64_t)cut->inner * dtype_size(type);
    uint64_t at[MAX_RANKS / 64], length[MAX_RANKS / 64], to_at[MAX_RANKS / 64], to_length[MAX_RANKS / 64];
    uint64_t mine = own(cut->offset, g->part) * scale;
    if (g->parts > sizeof at / sizeof *at) {
        snprintf(c->base.why, sizeof c->base.why, "too many ranks for a reduction of this type");
        return false;
    }
    for (uint32_t p = 0; p < g->parts; p++) {
        at[p] = (uint64_t)cut->offset[p] * scale;
        length[p] = own(cut->offset, p) * scale;
        to_at[p] = p * mine;
        to_length[p] = mine;
    }
    return send_all(c, g, packed, at, length, room, to_at, to_length) &&
           copy_rows(c, room + to_at[g->part], packed + at[g->part], 1, mine, mine, mine) &&
           combine(c, type, reduction, g->parts, (int64_t)(mine / dtype_size(type)), (int64_t)(mine / dtype_size(type)),
                   out, room);
}

static bool reduce_scatter(struct comm *base, uint32_t subaxes, enum reduction reduction, dtype type,
                           const struct comm_cut *cut, const void *in, void *out)
{
    struct nccl_rank *c = own_of(base);
    struct nccl_group *g = find_group(c, subaxes);
    int as, operation;
    if (!g)
        return false;
    size_t size = dtype_size(type);
    uint64_t unit = (uint64_t)cut->inner * size, outer = (uint64_t)cut->outer;
    uint64_t line = (uint64_t)cut->offset[g->parts] * unit, mine = outer * own(cut->offset, g->part) * unit;
    bool direct = nccl_reduction(type, reduction, &as, &operation);
    if (outer == 0 || line == 0)
        return true;
    const char *from = in;
    if (!reserve(c, rounded(outer > 1 ? outer * line : 0) + (direct ? 0 : g->parts * mine)))
        return false;
    bool good = true;
    for (uint32_t p = 0; p < g->parts && outer > 1 && good; p++)
        good = copy_rows(c, c->scratch + outer * (uint64_t)cut->offset[p] * unit,
                         (const char *)in + (uint64_t)cut->offset[p] * unit, outer, own(cut->offset, p) * unit,
                         own(cut->offset, p) * unit, line);
    if (outer > 1)
        from = c->scratch;
    if (!good)
        return false;
    return direct ? reduce_parts(c, g, cut->offset, outer * (uint64_t)cut->inner, size, as, operation, from, out)
                  : reduce_by_hand(c, g, cut, type, reduction, from, c->scratch + rounded(outer > 1 ? outer * line : 0),
                                   out);
}

/* One block of an all_to_all between two sides: as few copies of rows as its levels allow. */
static bool copy_block(struct nccl_rank *c, const struct block *b, const struct block_side *f,
                       const struct block_side *t, const char *from, char *to)
{
    uint64_t count[4], fs[4], ts[4], run = b->bytes;
    uint32_t levels = 0;
    if (b->count[0] * b->count[1] * b->count[2] * b->bytes == 0)
        return true;
    for (uint32_t i = 0; i < 3; i++) {
        uint32_t last = levels - 1;
        if (b->count[i] == 1)
            continue;
        if (levels && fs[last] == b->count[i] * f->stride[i] && ts[last] == b->count[i] * t->stride[i]) {
            count[last] *= b->count[i];
            fs[last] = f->stride[i];
            ts[last] = t->stride[i];
            continue;
        }
        count[levels] = b->count[i];
        fs[levels] = f->stride[i];
        ts[levels++] = t->stride[i];
    }
    if (levels && fs[levels - 1] == run && ts[levels - 1] == run)
        run *= count[--levels];
    while (levels < 3) { /* outer levels of one */
        memmove(count + 1, count, levels * sizeof *count);
        memmove(fs + 1, fs, levels * sizeof *fs);
        memmove(ts + 1, ts, levels * sizeof *ts);
        count[0] = 1;
        fs[0] = ts[0] = 0;
        levels++;
    }
    bool good = true;
    for (uint64_t i = 0; i < count[0] && good; i++)
        for (uint64_t j = 0; j < count[1] && good; j++)
            good = copy_rows(c, to + t->start + i * ts[0] + j * ts[1], from + f->start + i * fs[0] + j * fs[1],
                             count[2], run, count[2] == 1 ? run : ts[2], count[2] == 1 ? run : fs[2]);
    return good;
}

static bool all_to_all(struct comm *base, uint32_t subaxes, size_t size, const struct comm_exchange *x, const void *in,
                       void *out)
{
    struct nccl_rank *c = own_of(base);
    struct nccl_group *g = find_group(c, subaxes);
    uint64_t at[MAX_RANKS / 64], length[MAX_RANKS / 64], to_at[MAX_RANKS / 64], to_length[MAX_RANKS / 64];
    uint64_t sent = 0, got = 0;
    if (!g || g->parts > sizeof at / sizeof *at) {
        if (!*c->base.why)
            snprintf(c->base.why, sizeof c->base.why, "too many ranks for an all_to_all");
        return false;
    }
    for (uint32_t p = 0; p < g->parts; p++) {
        length[p] = block_bytes(x, g->parts, g->part, p, size);
        to_length[p] = block_bytes(x, g->parts, p, g->part, size);
        at[p] = sent;
        sent += rounded(length[p]);
        to_at[p] = got;
        got += rounded(to_length[p]);
    }
    bool good = reserve(c, sent + got);
    struct block b;
    for (uint32_t p = 0; p < g->parts && good; p++) {
        block_of(x, g->parts, g->part, p, size, &b);
        good = copy_block(c, &b, &b.from, &b.packed, in, c->scratch + at[p]);
    }
    good = good && send_all(c, g, c->scratch, at, length, c->scratch + sent, to_at, to_length);
    for (uint32_t p = 0; p < g->parts && good; p++) {
        block_of(x, g->parts, p, g->part, size, &b);
        good =
            copy_block(c, &b, &b.packed, &b.to, p == g->part ? c->scratch + at[p] : c->scratch + sent + to_at[p], out);
    }
    return good;
}

static bool broadcast(struct comm *base, uint32_t subaxes, uint32_t root, size_t bytes, const void *in, void *out)
{
    struct nccl_rank *c = own_of(base);
    struct nccl_group *g = find_group(c, subaxes);
    if (!g || bytes == 0)
        return g != NULL;
    return settled(c, c->api->broadcast(g->part == root ? in : out, out, bytes, NCCL_U8, (int)root, g->comm, c->stream),
                   g->comm, "broadcast", 0);
}

static const struct comm_ops ops = {
    .name = "nccl",
    .barrier = barrier,
    .all_reduce = all_reduce,
    .all_gather = all_gather,
    .reduce_scatter = reduce_scatter,
    .all_to_all = all_to_all,
    .broadcast = broadcast,
    .abort = comm_nccl_give_up,
};

/* ---- coming together ------------------------------------------------------------------------------------------------------------ */

static bool open_groups(struct nccl_rank *c, const struct nccl_options *o)
{
    const struct mesh *m = o->mesh;
    uint32_t all = (1u << m->count) - 1;
    double deadline = now() + o->timeout;
    struct nccl_id id;
    memset(&id, 0, sizeof id);
    if (c->base.rank == 0) {
        int r = c->api->get_id(&id);
        if (r != NCCL_OK)
            (void)complain(c, r, NULL, "making an id");
    }
    if (!o->host->ops->broadcast(o->host, all, 0, sizeof id, &id, &id) || *c->base.why)
        return false;
    struct nccl_config config = {.size = sizeof config,
                                 .magic = NCCL_CONFIG_MAGIC,
                                 .version = NCCL_CONFIG_VERSION,
                                 .blocking = 0,
                                 .cga_cluster_size = NCCL_UNDEFINED,
                                 .least_ctas = NCCL_UNDEFINED,
                                 .most_ctas = NCCL_UNDEFINED,
                                 .split_share = NCCL_UNDEFINED};
    struct nccl_group *whole = &c->group[c->groups++];
    *whole = (struct nccl_group){.subaxes = all, .parts = m->ranks, .part = c->base.rank};
    int r = c->api->open(&whole->comm, (int)m->ranks, id, (int)c->base.rank, &config);
    if (!settled(c, r, whole->comm, "coming together", deadline))
        return false;
    for (uint32_t i = 0; i < o->mask_count && c->groups < MOST_GROUPS; i++) {
        uint32_t mask = o->masks[i], others = all & ~mask;
        struct nccl_group *g = &c->group[c->groups++];
        *g = (struct nccl_group){mask, mesh_parts(m, mask), mesh_part_of(m, mask, c->base.rank), NULL};
        r = c->api->split(whole->comm, (int)mesh_part_of(m, others, c->base.rank), (int)g->part, &g->comm, &config);
        /* whatever it returns, the communicator is only there when the whole one is done with it */
        if (!settled(c, r == NCCL_OK ? NCCL_IN_PROGRESS : r, whole->comm, "making groups", deadline) ||
            !settled(c, g->comm ? NCCL_IN_PROGRESS : NCCL_INVALID_ARGUMENT, g->comm, "making groups", deadline))
            return false;
    }
    return true;
}

status comm_nccl_new(const struct nccl_options *o, struct failure *f, struct comm **out)
{
    const char *missing = NULL;
    const struct cuda_nccl *api = cuda_nccl(&missing);
    *out = NULL;
    if (!api)
        return fail(f, TPC_UNSUPPORTED, "%s: ranks on several GPUs need it (or --collectives host)", missing);
    status s = device_cuda_enter(o->device, f);
    struct nccl_rank *c = base_alloc(sizeof *c);
    if (s != TPC_OK || !c || !(c->arena = arena_new())) {
        base_free(c);
        return s != TPC_OK ? s : fail(f, TPC_NOMEM, "out of memory");
    }
    c->base = (struct comm){.ops = &ops, .rank = o->host->rank, .ranks = o->host->ranks};
    c->api = api;
    c->mesh = *o->mesh;
    c->device = o->device;
    c->stream = device_cuda_stream(o->device);
    c->over = o->over;
    c->context = o->context;
    if (open_groups(c, o)) {
        *out = &c->base;
        return TPC_OK;
    }
    s = fail(f, TPC_RANKS, "%s", c->base.why);
    comm_nccl_free(&c->base);
    return s;
}
