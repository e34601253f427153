/* runtime/comm_threads.c - ranks as threads of one process: collectives through shared memory.
 *
 * Invariant: ranks of a group meet at barriers. What is small goes through a staging area, of which each group has two, used in turn:
 * one barrier per collective, since nobody can come to write an area again before all have passed the barrier behind their
 * last reading of it. What is large is read where it lies: pointers are posted before a first barrier, and a second one lets the
 * owners go on. An all-reduce that is large is cut: each rank sums one slice of all buffers and writes it to all results.
 */
#include "runtime/blocks.h"
#include "runtime/sync.h"

#include <assert.h>
#include <pthread.h>

enum { STAGE_BYTES = 32 << 10, SLICE_UNIT = 64, BLOCK_ELEMENTS = 4096, MAX_MASKS = 64 };

struct post {
    const void *in;
    void *out;
    char padding[64 - 2 * sizeof(void *)]; /* a cache line each: owners write them at the same time */
};

struct group {
    struct group *next;
    uint32_t subaxes, index, count;
    struct post *post;   /* count */
    const void **source; /* count * count: row r is scratch of part r */
    char *stage;         /* [2][count][STAGE_BYTES] */
    _Atomic uint32_t arrived;
    struct signal turn;
};

/* A rank's own note of one of its groups. */
struct membership {
    struct group *group;
    uint32_t subaxes, part, staged; /* staged: how many collectives went through the stage */
};

struct thread_comm {
    struct comm base;
    struct comm_world *world;
    struct membership member[MAX_MASKS];
    uint32_t members;
};

struct comm_world {
    struct mesh mesh;
    atomic_bool stop;
    pthread_mutex_t lock; /* of groups */
    struct group *groups;
    struct thread_comm *rank;
};

/* ---- groups ----------------------------------------------------------------------------------------------------- */

static void free_group(struct group *g)
{
    if (!g)
        return;
    base_free(g->post);
    base_free(g->source);
    base_free(g->stage);
    base_free(g);
}

static struct group *new_group(uint32_t subaxes, uint32_t index, uint32_t count)
{
    struct group *g = base_alloc(sizeof *g);
    if (!g)
        return NULL;
    *g = (struct group){.subaxes = subaxes, .index = index, .count = count};
    g->post = base_alloc(count * sizeof *g->post);
    g->source = base_alloc((size_t)count * count * sizeof *g->source);
    g->stage = base_alloc((size_t)2 * count * STAGE_BYTES);
    if (g->post && g->source && g->stage)
        return g;
    free_group(g);
    return NULL;
}

static struct group *find_group(struct comm_world *w, uint32_t subaxes, uint32_t index)
{
    pthread_mutex_lock(&w->lock);
    struct group *g = w->groups;
    while (g && (g->subaxes != subaxes || g->index != index))
        g = g->next;
    if (!g) {
        g = new_group(subaxes, index, mesh_parts(&w->mesh, subaxes));
        if (g) {
            g->next = w->groups;
            w->groups = g;
        }
    }
    pthread_mutex_unlock(&w->lock);
    return g;
}

/* NULL: out of memory (the run is aborted). */
static struct membership *join(struct comm *c, uint32_t subaxes)
{
    struct thread_comm *t = (struct thread_comm *)c;
    for (uint32_t i = 0; i < t->members; i++)
        if (t->member[i].subaxes == subaxes)
            return &t->member[i];
    uint32_t others = ((1u << t->world->mesh.count) - 1) & ~subaxes;
    struct group *g = NULL;
    if (t->members < MAX_MASKS)
        g = find_group(t->world, subaxes, mesh_part_of(&t->world->mesh, others, c->rank));
    if (!g) {
        c->out_of_memory = true;
        c->ops->abort(c);
        return NULL;
    }
    t->member[t->members] = (struct membership){g, subaxes, mesh_part_of(&t->world->mesh, subaxes, c->rank), 0};
    return &t->member[t->members++];
}

static bool stopped(const struct comm *c)
{
    return atomic_load_explicit(&((const struct thread_comm *)c)->world->stop, memory_order_acquire);
}

/* All of the group come here; what each wrote before, all see after. */
static bool meet(struct comm *c, struct group *g)
{
    uint32_t turn = signal_value(&g->turn);
    if (atomic_fetch_add(&g->arrived, 1) + 1 == g->count) {
        atomic_store(&g->arrived, 0);
        signal_raise(&g->turn);
    } else {
        signal_wait(&g->turn, turn, &((struct thread_comm *)c)->world->stop);
    }
    return !stopped(c);
}

/* This rank's place for the next small message; *all: the places of parts 0, 1, ... follow each other from there. */
static char *next_stage(struct membership *m, char **all)
{
    *all = m->group->stage + (size_t)(m->staged++ & 1) * m->group->count * STAGE_BYTES;
    return *all + (size_t)m->part * STAGE_BYTES;
}

static void copy(void *to, const void *from, size_t bytes)
{
    if (to != from && bytes)
        memcpy(to, from, bytes);
}

/* Posts this rank's buffers, waits for the others', and returns the inputs by part; NULL when stopped. */
static const void *const *exchange_pointers(struct comm *c, struct membership *m, const void *in, void *out)
{
    struct group *g = m->group;
    g->post[m->part] = (struct post){.in = in, .out = out};
    if (!meet(c, g))
        return NULL;
    const void **source = g->source + (size_t)m->part * g->count;
    for (uint32_t p = 0; p < g->count; p++)
        source[p] = g->post[p].in;
    return source;
}

/* Stages `bytes` of in, waits, and returns the staged inputs by part; NULL when stopped. */
static const void *const *exchange_stages(struct comm *c, struct membership *m, const void *in, size_t bytes)
{
    struct group *g = m->group;
    char *all;
    copy(next_stage(m, &all), in, bytes);
    const void **source = g->source + (size_t)m->part * g->count;
    for (uint32_t p = 0; p < g->count; p++)
        source[p] = all + (size_t)p * STAGE_BYTES;
    return meet(c, g) ? source : NULL;
}

/* ---- the collectives ---------------------------------------------------------------------------------------------- */

static bool barrier(struct comm *c, uint32_t subaxes)
{
    struct membership *m = join(c, subaxes);
    return m && meet(c, m->group);
}

static bool all_reduce(struct comm *c, uint32_t subaxes, enum reduction reduction, dtype type, const void *in,
                       void *out, int64_t elements)
{
    struct membership *m = join(c, subaxes);
    if (!m)
        return false;
    struct group *g = m->group;
    size_t size = dtype_size(type), bytes = (size_t)elements * size;
    const void *const *from;
    if (bytes <= STAGE_BYTES) {
        from = exchange_stages(c, m, in, bytes);
        if (from)
            reduce_sources(reduction, type, from, g->count, 0, elements, out);
        return from != NULL;
    }
    from = exchange_pointers(c, m, in, out);
    if (!from)
        return false;
    int64_t begin, end;
    part_range(elements, SLICE_UNIT, m->part, g->count, &begin, &end);
    double block[BLOCK_ELEMENTS];
    for (int64_t at = begin; at < end; at += BLOCK_ELEMENTS) {
        int64_t n = end - at < BLOCK_ELEMENTS ? end - at : BLOCK_ELEMENTS;
        reduce_sources(reduction, type, from, g->count, at, n, block);
        for (uint32_t p = 0; p < g->count; p++)
            memcpy((char *)g->post[p].out + (size_t)at * size, block, (size_t)n * size);
    }
    return meet(c, g);
}

static int64_t own(const int64_t *offset, uint32_t part)
{
    return offset[part + 1] - offset[part];
}

static size_t largest_part(const struct comm_cut *cut, uint32_t parts, size_t size)
{
    int64_t most = 0;
    for (uint32_t p = 0; p < parts; p++)
        if (own(cut->offset, p) > most)
            most = own(cut->offset, p);
    return (size_t)(cut->outer * most * cut->inner) * size;
}

static bool all_gather(struct comm *c, uint32_t subaxes, size_t size, const struct comm_cut *cut, const void *in,
                       void *out)
{
    struct membership *m = join(c, subaxes);
    if (!m)
        return false;
    uint32_t parts = m->group->count;
    bool staged = largest_part(cut, parts, size) <= STAGE_BYTES;
    size_t mine = (size_t)(cut->outer * own(cut->offset, m->part) * cut->inner) * size;
    const void *const *from = staged ? exchange_stages(c, m, in, mine) : exchange_pointers(c, m, in, out);
    if (!from)
        return false;
    size_t line = (size_t)(cut->offset[parts] * cut->inner) * size;
    for (uint32_t p = 0; p < parts; p++) {
        size_t bytes = (size_t)(own(cut->offset, p) * cut->inner) * size;
        char *to = (char *)out + (size_t)(cut->offset[p] * cut->inner) * size;
        for (size_t o = 0; o < (size_t)cut->outer && bytes; o++)
            memcpy(to + o * line, (const char *)from[p] + o * bytes, bytes);
    }
    return staged || meet(c, m->group);
}

static bool reduce_scatter(struct comm *c, uint32_t subaxes, enum reduction reduction, dtype type,
                           const struct comm_cut *cut, const void *in, void *out)
{
    struct membership *m = join(c, subaxes);
    if (!m)
        return false;
    uint32_t parts = m->group->count;
    int64_t line = cut->offset[parts] * cut->inner, run = own(cut->offset, m->part) * cut->inner;
    size_t size = dtype_size(type), bytes = (size_t)(cut->outer * line) * size;
    bool staged = bytes <= STAGE_BYTES;
    const void *const *from = staged ? exchange_stages(c, m, in, bytes) : exchange_pointers(c, m, in, out);
    if (!from)
        return false;
    for (int64_t o = 0; o < cut->outer; o++)
        reduce_sources(reduction, type, from, parts, o * line + cut->offset[m->part] * cut->inner, run,
                       (char *)out + (size_t)(o * run) * size);
    return staged || meet(c, m->group);
}

static bool all_to_all(struct comm *c, uint32_t subaxes, size_t size, const struct comm_exchange *x, const void *in,
                       void *out)
{
    struct membership *m = join(c, subaxes);
    if (!m)
        return false;
    const void *const *from = exchange_pointers(c, m, in, out);
    if (!from)
        return false;
    for (uint32_t p = 0; p < m->group->count; p++)
        block_copy(x, m->group->count, p, m->part, size, from[p], out);
    return meet(c, m->group);
}

static bool broadcast(struct comm *c, uint32_t subaxes, uint32_t root, size_t bytes, const void *in, void *out)
{
    struct membership *m = join(c, subaxes);
    if (!m)
        return false;
    assert(root < m->group->count);
    if (bytes <= STAGE_BYTES) {
        const void *const *staged = exchange_stages(c, m, in, m->part == root ? bytes : 0);
        if (staged)
            copy(out, staged[root], bytes);
        return staged != NULL;
    }
    const void *const *from = exchange_pointers(c, m, in, out);
    if (!from)
        return false;
    copy(out, from[root], bytes);
    return meet(c, m->group);
}

static void abort_run(struct comm *c)
{
    struct comm_world *w = ((struct thread_comm *)c)->world;
    atomic_store(&w->stop, true);
    pthread_mutex_lock(&w->lock);
    for (struct group *g = w->groups; g; g = g->next)
        signal_raise(&g->turn);
    pthread_mutex_unlock(&w->lock);
}

static const struct comm_ops ops = {
    .name = "threads",
    .barrier = barrier,
    .all_reduce = all_reduce,
    .all_gather = all_gather,
    .reduce_scatter = reduce_scatter,
    .all_to_all = all_to_all,
    .broadcast = broadcast,
    .abort = abort_run,
};

/* ---- the world ---------------------------------------------------------------------------------------------------- */

struct comm_world *comm_threads_new(const struct mesh *mesh)
{
    struct comm_world *w = base_alloc(sizeof *w);
    struct thread_comm *rank = base_alloc(mesh->ranks * sizeof *rank);
    if (!w || !rank) {
        base_free(w);
        base_free(rank);
        return NULL;
    }
    w->mesh = *mesh;
    w->rank = rank;
    pthread_mutex_init(&w->lock, NULL);
    for (uint32_t r = 0; r < mesh->ranks; r++)
        rank[r] = (struct thread_comm){.base = {.ops = &ops, .rank = r, .ranks = mesh->ranks}, .world = w};
    return w;
}

void comm_threads_free(struct comm_world *w)
{
    if (!w)
        return;
    for (struct group *g = w->groups, *next; g; g = next) {
        next = g->next;
        free_group(g);
    }
    pthread_mutex_destroy(&w->lock);
    base_free(w->rank);
    base_free(w);
}

struct comm *comm_threads_rank(struct comm_world *w, uint32_t rank)
{
    return &w->rank[rank].base;
}

bool comm_threads_aborted(const struct comm_world *w)
{
    return atomic_load(&w->stop);
}

void comm_threads_reset(struct comm_world *w)
{
    for (struct group *g = w->groups; g; g = g->next)
        atomic_store(&g->arrived, 0);
    for (uint32_t r = 0; r < w->mesh.ranks; r++) {
        w->rank[r].base.out_of_memory = false;
        for (uint32_t i = 0; i < w->rank[r].members; i++)
            w->rank[r].member[i].staged = 0;
    }
    atomic_store(&w->stop, false);
}
