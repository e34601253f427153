/* runtime/engine_device.c - the ranks' devices: opened, given their kernels and, on GPUs, their communicators.
 *
 * Invariant: of several processes on one host the first fills the caches of kernels, the others find them there.
 */
#include "codegen/codegen.h"
#include "runtime/comm_nccl.h"
#include "runtime/device_cuda.h"
#include "runtime/engine_impl.h"
#include "runtime/processes.h"

/* ---- devices ------------------------------------------------------------------------------------------------------------ */

static uint32_t gpu_of(const struct engine *e, uint32_t local)
{
    return e->options.gpus ? e->options.gpus[local] : e->alone ? e->options.local_rank : local;
}

static status open_gpus(struct engine *e, struct diag *diag)
{
    for (uint32_t i = 0; i < e->local; i++) {
        struct failure f = {.code = TPC_OK};
        status s = device_cuda_new(gpu_of(e, i), &f, &e->device[i]);
        if (s != TPC_OK && e->ranks > 1)
            return diag_error(diag, s, NULL, "rank %u: %s", (unsigned)(e->alone ? e->alone->rank : i), f.text);
        if (s != TPC_OK)
            return diag_error(diag, s, NULL, "%s", f.text);
    }
    struct gpu_info first = device_cuda_info(e->device[0]);
    for (uint32_t i = 1; i < e->local; i++) {
        struct gpu_info other = device_cuda_info(e->device[i]);
        if (other.compute != first.compute)
            return diag_error(diag, TPC_UNSUPPORTED, NULL, "GPU %u (%s) and GPU %u (%s) are of different kinds",
                              (unsigned)first.ordinal, first.name, (unsigned)other.ordinal, other.name);
    }
    return TPC_OK;
}

static status load_cuda(struct engine *e, struct diag *diag)
{
    struct cuda_options o = {.compute = device_cuda_info(e->device[0]).compute};
    /* a Program of its own: what is taken together changes how long its buffers live */
    struct program *p = arena_copy(e->arena, e->program, sizeof *p);
    p->buffers.at = arena_copy(e->arena, p->buffers.at, p->buffers.count * sizeof *p->buffers.at);
    p->buffers.capacity = p->buffers.count;
    e->program = p;
    status s = cuda_new(e->arena, p, diag, &e->cuda);
    if (s == TPC_OK) {
        cuda_join_steps(e->cuda, p);
        s = cuda_compile(e->cuda, &o, diag);
    }
    for (uint32_t i = 0; i < e->local && s == TPC_OK; i++) {
        struct failure f = {.code = TPC_OK};
        s = device_cuda_use(e->device[i], e->cuda, &f);
        if (s != TPC_OK)
            return diag_error(diag, s, NULL, "%s", f.text);
    }
    if (s != TPC_OK)
        return s;
    struct cuda_counts counts = cuda_counts(e->cuda);
    e->stats.kernels = counts.functions;
    e->stats.compiled = counts.compiled;
    return TPC_OK;
}

static status load_host(struct engine *e, struct diag *diag)
{
    status s = kernels_load(e->arena, e->program, NULL, diag, &e->kernels);
    if (s != TPC_OK)
        return s;
    struct kernel_counts counts = kernels_counts(e->kernels);
    e->stats.kernels = e->program->kernels.count;
    e->stats.compiled = counts.compiled;
    e->stats.interpreted = counts.interpreted > 0;
    for (uint32_t i = 0; i < e->local; i++)
        if (!(e->device[i] = device_cpu_new(e->kernels, e->options.threads)))
            guard_out_of_memory(0);
    return TPC_OK;
}

status open_devices(struct engine *e, struct diag *diag)
{
    const struct processes *p = e->options.processes;
    bool gpus = e->options.kind == ENGINE_CUDA, first = !p || processes_first_here(p, NULL) == processes_rank(p);
    uint32_t all = (1u << e->graph->mesh.count) - 1;
    e->device = NEW_ARRAY(e->arena, struct device *, e->local);
    status s = gpus ? open_gpus(e, diag) : TPC_OK;
    if (s != TPC_OK)
        return s;
    if (!first && !e->alone->ops->barrier(e->alone, all))
        return TPC_RANKS;
    double start = seconds_now();
    s = gpus ? load_cuda(e, diag) : load_host(e, diag);
    e->stats.kernel_compile_seconds = seconds_now() - start;
    if (s == TPC_OK && p && first && !e->alone->ops->barrier(e->alone, all))
        return TPC_RANKS;
    return s;
}

void close_devices(struct engine *e)
{
    for (uint32_t i = 0; e->device && i < e->local; i++)
        if (e->device[i])
            e->device[i]->ops->close(e->device[i]);
}

/* ---- communicators in the queue ------------------------------------------------------------------------------------------ */

bool run_is_over(void *rank)
{
    const struct rank *r = rank;
    const struct engine *e = r->engine;
    bool over = e->world ? comm_threads_aborted(e->world) : processes_ended(e->options.processes);
    if (r->queued && (over || comm_nccl_broken(r->queued)))
        comm_nccl_give_up(r->queued);
    return over || (r->queued && *r->queued->why);
}

/* Masks of sub-axes over which the program's collectives go, without the whole. */
static uint32_t masks_of(const struct rank *r, uint32_t *masks, uint32_t room)
{
    const struct graph *g = r->engine->graph;
    const struct program *p = r->engine->program;
    uint32_t all = (1u << g->mesh.count) - 1, count = 0;
    for (uint32_t i = 0; i < p->steps.count; i++) {
        const struct node *n = graph_node(g, p->steps.at[i].node);
        if (p->steps.at[i].kind != STEP_COLLECTIVE)
            continue;
        bool by_part = n->op == OP_ALL_GATHER || n->op == OP_REDUCE_SCATTER || n->op == OP_ALL_TO_ALL;
        uint32_t mask = by_part ? g->partitions.at[n->attribute.partition].subaxes : n->attribute.index;
        bool known = mask == all || mask == 0;
        for (uint32_t k = 0; k < count; k++)
            known = known || masks[k] == mask;
        if (!known && count < room)
            masks[count++] = mask;
    }
    return count;
}

status open_queued(struct rank *r)
{
    struct engine *e = r->engine;
    uint32_t masks[MAX_SUBAXES * 2];
    r->device->interrupted = e->ranks > 1 ? run_is_over : NULL;
    r->device->context = r;
    if (e->options.kind != ENGINE_CUDA || e->ranks == 1 || e->options.host_collectives)
        return TPC_OK;
    if (r->queued && !comm_nccl_dead(r->queued))
        return TPC_OK;
    if (r->queued)
        r->device->ops->forget(r->device, true); /* recordings speak of the old one */
    comm_nccl_free(r->queued);
    struct nccl_options o = {.mesh = &e->graph->mesh,
                             .device = r->device,
                             .host = r->comm,
                             .masks = masks,
                             .mask_count = masks_of(r, masks, sizeof masks / sizeof *masks),
                             .timeout = e->options.timeout > 0 ? e->options.timeout : 120,
                             .over = run_is_over,
                             .context = r};
    r->queued = NULL;
    status s = comm_nccl_new(&o, &r->failure, &r->queued);
    r->stopped = s == TPC_RANKS && !*r->failure.text;
    return s;
}

void give_up_queued(struct engine *e)
{
    bool dead = false;
    for (uint32_t i = 0; i < e->local; i++)
        dead = dead || (e->rank[i].queued && comm_nccl_dead(e->rank[i].queued));
    for (uint32_t i = 0; i < e->local && dead; i++)
        if (e->rank[i].queued)
            comm_nccl_give_up(e->rank[i].queued);
}

/* ---- memory ---------------------------------------------------------------------------------------------------------------- */

/* Bytes of all weights, by whether a rank holds a part or the whole. */
static void weigh(const struct rank *r, double *cut, double *whole)
{
    const struct program *p = r->engine->program;
    *cut = *whole = 0;
    for (uint32_t b = 0; b < p->buffers.count; b++)
        if (p->buffers.at[b].kind == BUFFER_WEIGHT || p->buffers.at[b].kind == BUFFER_KEPT)
            *(p->buffers.at[b].sharded ? cut : whole) += (double)r->now->bytes[b];
    *cut *= r->engine->ranks;
}

status check_memory(struct rank *r, uint64_t wanted)
{
    const struct engine *e = r->engine;
    uint64_t there = 0, needed = wanted + e->options.activations;
    if (!r->device->ops->free_bytes)
        return TPC_OK;
    status s = r->device->ops->free_bytes(r->device, &there, &r->failure);
    if (s != TPC_OK || needed <= there)
        return s;
    double cut, whole;
    char hint[96] = "no number of ranks makes it fit";
    weigh(r, &cut, &whole);
    for (uint32_t ranks = e->ranks + 1; ranks <= 64; ranks++)
        if (whole + cut / ranks + (double)e->options.activations <= (double)there) {
            snprintf(hint, sizeof hint, "over %u ranks (--tp %u) it would fit", (unsigned)ranks, (unsigned)ranks);
            break;
        }
    return fail(&r->failure, TPC_NOMEM,
                "the GPU has %.2f GB free, but %.2f GB are needed (weights %.2f, intermediate values %.2f): %s",
                1e-9 * (double)there, 1e-9 * (double)needed, 1e-9 * (double)wanted,
                1e-9 * (double)e->options.activations, hint);
}
