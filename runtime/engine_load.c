/* runtime/engine_load.c - a rank's weights: read where they lie in the mapped file when they lie there in one aligned run, else copied.
 *
 * Invariant: a rank touches the bytes of its own slices only. The engine's thread finds where each param begins (find_weights), which maps files
 * but reads no weights; ranks then work side by side (load_weights).
 */
#include "runtime/engine_impl.h"

#include <sys/mman.h>
#include <unistd.h>

static uint32_t param_of(const struct engine *e, const struct buffer *buffer)
{
    return buffer->sharded ? e->graph->shards.at[buffer->index].param : buffer->index;
}

/* What a rank holds of one weight. */
struct slice {
    const char *mapped; /* NULL: to be copied */
    uint64_t bytes;
};

static status slice_of(struct rank *r, const struct buffer *buffer, struct slice *out)
{
    const struct graph *g = r->engine->graph;
    uint32_t param = param_of(r->engine, buffer);
    bool stacked = g->params.at[param].part_count != 0;
    const char *whole = stacked ? NULL : r->engine->param[param][0];
    uint64_t offset = 0;
    *out = (struct slice){whole, g->params.at[param].length};
    if (buffer->sharded) {
        int64_t shape[MAX_RANK];
        struct tensor t;
        if (!shard_shape(g, buffer->index, r->index, shape) ||
            !tensor_shape(&t, g->params.at[param].dtype, g->params.at[param].rank, shape))
            return fail(&r->failure, TPC_DATA, "weight '%.100s': the plan's slices do not lie in it",
                        g->params.at[param].name);
        out->bytes = tensor_bytes(&t);
        uint64_t length = out->bytes;
        out->mapped = shard_contiguous(g, buffer->index, r->index, &offset, &length) ? whole + offset : NULL;
    }
    if (out->mapped && (uintptr_t)out->mapped % dtype_size(buffer->type) != 0)
        out->mapped = NULL;
    if (!r->device->ops->reads_host)
        out->mapped = NULL;
    return TPC_OK;
}

/* Brings the pages of a mapped slice in now, in one call, so that the first run does not fault page by page. Only a hint. */
static void populate(const char *at, uint64_t bytes)
{
#if defined(MADV_POPULATE_READ)
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), first = (uintptr_t)at / page * page;
    (void)madvise((void *)first, (uintptr_t)at + bytes - first, MADV_POPULATE_READ);
#else
    (void)at;
    (void)bytes;
#endif
}

struct slicing {
    const struct graph *graph;
    uint32_t shard; /* UINT32_MAX: the whole param */
    uint32_t rank;
    const void *const *runs;
    const char *whole; /* of a param that is taken whole */
    struct workers *fillers;
    /* the piece that they fill */
    uint64_t offset;
    char *host;
    size_t bytes;
};

static void fill_part(void *context, uint32_t part, uint32_t parts)
{
    enum { PAGE = 4096 };
    const struct slicing *x = context;
    int64_t begin, end;
    part_range((int64_t)x->bytes, PAGE, part, parts, &begin, &end);
    uint64_t offset = x->offset + (uint64_t)begin, bytes = (uint64_t)(end - begin);
    if (x->shard == UINT32_MAX)
        memcpy(x->host + begin, x->whole + offset, (size_t)bytes);
    else
        shard_copy_range(x->graph, x->shard, x->rank, x->runs, offset, bytes, x->host + begin);
}

/* A piece of a slice on its way to a device: one thread reads mapped pages more slowly than a device takes them. */
static void fill_slice(void *context, uint64_t offset, void *host, size_t bytes)
{
    enum { WORTH_SHARING = 128 << 10 };
    struct slicing *x = context;
    x->offset = offset;
    x->host = host;
    x->bytes = bytes;
    if (x->fillers && bytes >= WORTH_SHARING)
        workers_run(x->fillers, fill_part, x);
    else
        fill_part(x, 0, 1);
}

static status copy_slice(struct rank *r, const struct buffer *buffer, void *to, uint64_t bytes)
{
    const struct graph *g = r->engine->graph;
    uint32_t param = param_of(r->engine, buffer);
    const void *const *runs = r->engine->param[param];
    if (!r->device->ops->reads_host) {
        bool stacked = !buffer->sharded && g->params.at[param].part_count;
        struct slicing x = {
            g, buffer->sharded ? buffer->index : UINT32_MAX, r->index, runs, runs[0], .fillers = r->fillers};
        if (stacked) { /* what no rank holds a part of */
            void *host = arena_alloc(r->scratch, bytes);
            param_copy(g, param, runs, host);
            x.whole = host;
        }
        return r->device->ops->stream(r->device, to, bytes, fill_slice, &x, &r->failure);
    }
    if (buffer->sharded)
        shard_copy(g, buffer->index, r->index, runs, to);
    else
        param_copy(g, param, runs, to);
    return TPC_OK;
}

/* A slice of param was copied. When it was the last of them all and nobody reads the param where it is mapped, its pages need not stay: so that
 * while ranks load, no weight is in memory twice for long. */
static void note_copied(struct engine *e, uint32_t param)
{
    const struct param *p = &e->graph->params.at[param];
    if (atomic_fetch_sub(&e->copies[param], 1) != 1 || e->stays[param])
        return;
    uint32_t count = p->part_count ? p->part_count : 1;
    for (uint32_t i = 0; i < count; i++) {
        if (e->graph->params.at[p->part_count ? p->part[i] : param].file == NO_FILE)
            continue;
        uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), at = (uintptr_t)e->param[param][i];
        uintptr_t first = (at + page - 1) / page * page, last = (at + p->length / count) / page * page;
        if (first < last)
            (void)madvise((void *)first, last - first, MADV_DONTNEED);
    }
}

static uint64_t aligned(const struct rank *r, uint64_t bytes)
{
    uint64_t unit = r->device->ops->alignment;
    return (bytes + unit - 1) / unit * unit;
}

/* Of what is computed at load and kept. */
static uint64_t kept_bytes(const struct rank *r)
{
    const struct program *p = r->engine->program;
    uint64_t bytes = 0;
    for (uint32_t b = 0; b < p->buffers.count; b++)
        if (p->buffers.at[b].kind == BUFFER_KEPT)
            bytes += aligned(r, r->now->bytes[b]);
    return bytes;
}

static status place_weights(struct rank *r)
{
    const struct program *p = r->engine->program;
    struct slice *slice = NEW_ARRAY(r->scratch, struct slice, p->buffers.count + 1);
    uint64_t copied = 0, at = 0;
    for (uint32_t b = 0; b < p->buffers.count; b++) {
        const struct buffer *buffer = &p->buffers.at[b];
        if (buffer->kind != BUFFER_WEIGHT)
            continue;
        status s = slice_of(r, buffer, &slice[b]);
        if (s != TPC_OK)
            return s;
        if (slice[b].bytes != r->now->bytes[b])
            return fail(&r->failure, TPC_DATA, "a weight's slice has %llu bytes where the plan expects %llu",
                        (unsigned long long)slice[b].bytes, (unsigned long long)r->now->bytes[b]);
        copied += slice[b].mapped ? 0 : aligned(r, slice[b].bytes);
    }
    status s = check_memory(r, copied + kept_bytes(r));
    if (s == TPC_OK)
        s = store_reserve(r, &r->weights, copied);
    for (uint32_t b = 0; b < p->buffers.count && s == TPC_OK; b++) {
        if (p->buffers.at[b].kind != BUFFER_WEIGHT)
            continue;
        if (slice[b].mapped) {
            memcpy(&r->address[b], &slice[b].mapped, sizeof(void *)); /* never written to: program_verify */
            populate(slice[b].mapped, slice[b].bytes);
            r->stats.weight_mapped += slice[b].bytes;
            continue;
        }
        r->address[b] = (char *)r->weights.at + at;
        s = copy_slice(r, &p->buffers.at[b], r->address[b], slice[b].bytes);
        note_copied(r->engine, param_of(r->engine, &p->buffers.at[b]));
        at += aligned(r, slice[b].bytes);
        r->stats.weight_copied += slice[b].bytes;
    }
    return s;
}

/* *at: the first free byte of r->constants. */
static status place_constant(struct rank *r, uint32_t b, uint64_t *at)
{
    const struct node *n = graph_node(r->engine->graph, r->engine->program->buffers.at[b].node);
    if (n->op != OP_CONSTANT || n->attribute.data_size != r->now->bytes[b])
        return fail(&r->failure, TPC_DATA, "buffer %u is no constant of its size", (unsigned)b);
    if (r->device->ops->reads_host) {
        memcpy(&r->address[b], &n->attribute.data, sizeof(void *));
        return TPC_OK;
    }
    r->address[b] = (char *)r->constants.at + *at;
    *at += aligned(r, n->attribute.data_size);
    return r->device->ops->upload(r->device, r->address[b], n->attribute.data, n->attribute.data_size, &r->failure);
}

static status place_constants(struct rank *r)
{
    const struct program *p = r->engine->program;
    uint64_t bytes = 0, at = 0;
    for (uint32_t b = 0; b < p->buffers.count && !r->device->ops->reads_host; b++)
        if (p->buffers.at[b].kind == BUFFER_CONSTANT)
            bytes += aligned(r, r->now->bytes[b]);
    status s = bytes ? store_reserve(r, &r->constants, bytes) : TPC_OK;
    for (uint32_t b = 0; b < p->buffers.count && s == TPC_OK; b++)
        if (p->buffers.at[b].kind == BUFFER_CONSTANT)
            s = place_constant(r, b, &at);
    return s;
}

status load_weights(struct rank *r)
{
    const struct program *p = r->engine->program;
    enum { MOST_FILLERS = 8 };
    double start = seconds_now();
    uint32_t threads = r->engine->options.threads;
    if (!r->device->ops->reads_host) /* without them it goes slowly */
        r->fillers = workers_new(threads < MOST_FILLERS ? threads : MOST_FILLERS);
    status s = place_weights(r);
    workers_free(r->fillers);
    r->fillers = NULL;
    uint64_t kept = kept_bytes(r), at = 0;
    if (s == TPC_OK)
        s = place_constants(r);
    if (s == TPC_OK && !r->device->ops->reads_host) {
        s = r->device->ops->finish(r->device, &r->failure);
        r->upload_seconds = seconds_now() - start;
    }
    if (s == TPC_OK)
        s = store_reserve(r, &r->kept, kept);
    for (uint32_t b = 0; b < p->buffers.count && s == TPC_OK; b++)
        if (p->buffers.at[b].kind == BUFFER_KEPT) {
            r->address[b] = (char *)r->kept.at + at;
            at += aligned(r, r->now->bytes[b]);
        }
    r->stats.kept = kept;
    return s;
}

/* On the engine's thread, when ranks have devices: where each param's bytes are, and how many slices will be copied from it. */
status find_weights(struct engine *e, const char *folder, struct diag *diag)
{
    const struct program *p = e->program;
    e->weights = weights_new(e->arena, e->graph, folder);
    e->param = NEW_ARRAY(e->arena, const void *const *, e->graph->params.count + 1);
    e->copies = NEW_ARRAY(e->arena, _Atomic uint32_t, e->graph->params.count + 1);
    e->stays = NEW_ARRAY(e->arena, bool, e->graph->params.count + 1);
    for (uint32_t b = 0; b < p->buffers.count; b++) {
        const struct buffer *buffer = &p->buffers.at[b];
        if (buffer->kind != BUFFER_WEIGHT)
            continue;
        uint32_t param = param_of(e, buffer);
        status s =
            e->param[param] ? TPC_OK : weights_runs(e->weights, e->graph, param, e->arena, diag, &e->param[param]);
        if (s != TPC_OK)
            return s;
        for (uint32_t r = 0; r < e->local; r++) {
            struct slice slice;
            if (slice_of(&e->rank[r], buffer, &slice) != TPC_OK)
                return diag_error(diag, TPC_DATA, NULL, "%s", e->rank[r].failure.text);
            e->stays[param] = e->stays[param] || slice.mapped;
            e->copies[param] += !slice.mapped;
        }
    }
    return TPC_OK;
}
