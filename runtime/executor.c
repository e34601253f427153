/* runtime/executor.c - one rank's way through the steps of a Program.
 *
 * Invariant: every rank takes the same steps in the same order; a rank that cannot go on says so to the others through the communicator and leaves, and
 * the others leave at their next collective.
 */
#include "runtime/engine_impl.h"

#include <time.h>

double seconds_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

status fail(struct failure *f, status code, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(f->text, sizeof f->text, format, args);
    va_end(args);
    f->code = code;
    return code;
}

void store_free(struct rank *r, struct store *s)
{
    if (s->at)
        r->device->ops->release(r->device, s->at, s->capacity);
    *s = (struct store){0};
}

status store_reserve(struct rank *r, struct store *s, uint64_t bytes)
{
    if (s->at && s->capacity >= bytes)
        return TPC_OK;
    uint64_t capacity = s->capacity ? bytes + bytes / 2 : bytes; /* what has grown once will grow again */
    store_free(r, s);
    s->at = r->device->ops->alloc(r->device, capacity);
    if (!s->at && capacity > bytes) {
        capacity = bytes;
        s->at = r->device->ops->alloc(r->device, capacity);
    }
    if (!s->at)
        return fail(&r->failure, TPC_NOMEM, "out of memory: %llu more bytes were wanted", (unsigned long long)bytes);
    s->capacity = capacity;
    return TPC_OK;
}

static bool exchange(struct rank *r, const struct node *n, const struct exchange *x, const void *in, void *out)
{
    const struct comm_ops *ops = r->comm->ops;
    enum reduction reduction = (enum reduction)n->attribute.mode;
    size_t size = dtype_size(n->dtype);
    switch ((int)n->op) {
    case OP_ALL_REDUCE:
        return ops->all_reduce(r->comm, x->subaxes, reduction, n->dtype, in, out, x->elements);
    case OP_ALL_GATHER:
        return ops->all_gather(r->comm, x->subaxes, size, &x->cut, in, out);
    case OP_REDUCE_SCATTER:
        return ops->reduce_scatter(r->comm, x->subaxes, reduction, n->dtype, &x->cut, in, out);
    case OP_ALL_TO_ALL:
        return ops->all_to_all(r->comm, x->subaxes, size, &x->both, in, out);
    default:
        return ops->broadcast(r->comm, x->subaxes, (uint32_t)n->attribute.mode, (size_t)x->elements * size, in, out);
    }
}

static status run_collective(struct rank *r, const struct step *step, const struct exchange *x)
{
    struct engine *e = r->engine;
    status s = r->device->ops->finish(r->device, &r->failure);
    if (s != TPC_OK)
        return s;
    if (r == e->rank) {
        e->stats.collectives++;
        e->stats.collective_bytes += x->bytes;
    }
    if (exchange(r, graph_node(e->graph, step->node), x, r->address[step->arg[0]], r->address[step->arg[1]]))
        return TPC_OK;
    if (r->comm->out_of_memory)
        return fail(&r->failure, TPC_NOMEM, "out of memory in a collective");
    r->stopped = true;
    return TPC_INTERNAL;
}

static status run_step(struct rank *r, uint32_t index)
{
    const struct step *step = &r->engine->program->steps.at[index];
    const struct device_ops *ops = r->device->ops;
    const struct shape_plan *plan = r->now;
    void *stack[32], **buffers = stack;
    if (step->kind == STEP_COLLECTIVE)
        return run_collective(r, step, plan->exchange[index]);
    if (step->arg_count > sizeof stack / sizeof *stack)
        buffers = NEW_ARRAY(r->scratch, void *, step->arg_count);
    for (uint32_t i = 0; i < step->arg_count; i++)
        buffers[i] = r->address[step->arg[i]];
    if (step->kind == STEP_KERNEL)
        return ops->kernel(r->device, plan->kernel[index], buffers, &r->failure);
    if (step->kind == STEP_COPY)
        return ops->copy(r->device, buffers[1], buffers[0], plan->bytes[step->arg[1]], &r->failure);
    if (step->kind == STEP_DOT)
        return ops->dot(r->device, plan->dot[index], r->engine->program->buffers.at[step->arg[2]].type, buffers[0],
                        buffers[1], buffers[2], &r->failure);
    struct builtin_call *call = plan->builtin[index];
    for (uint32_t i = 0; i + 1 < step->arg_count; i++)
        call->operand[i].data = buffers[i];
    call->result.data = buffers[step->arg_count - 1];
    return ops->builtin(r->device, call, &r->failure);
}

static void note_time(struct rank *r, uint32_t index, double seconds)
{
    struct engine_stats *stats = &r->engine->stats;
    r->step_seconds[index] += seconds;
    if (r != r->engine->rank)
        return;
    step_kind kind = r->engine->program->steps.at[index].kind;
    if (kind == STEP_DOT)
        stats->dot_seconds += seconds;
    else if (kind == STEP_COLLECTIVE)
        stats->collective_seconds += seconds;
    else if (kind == STEP_BUILTIN)
        stats->builtin_seconds += seconds;
    else
        stats->kernel_seconds += seconds;
}

/* A kernel that several steps share knows the node behind a fault in the first of them only. */
static value failing_node(const struct rank *r, uint32_t index)
{
    const struct program *p = r->engine->program;
    const struct step *step = &p->steps.at[index];
    for (uint32_t i = 0; i < index && step->kind == STEP_KERNEL; i++)
        if (p->steps.at[i].kind == STEP_KERNEL && p->steps.at[i].kernel == step->kernel)
            return step->node;
    return r->failure.node ? r->failure.node : step->node;
}

status execute(struct rank *r, enum step_phase phase)
{
    const struct program *p = r->engine->program;
    status s = store_reserve(r, &r->temporaries, r->now->arena_bytes);
    *(phase == PHASE_LOAD ? &r->stats.loading : &r->stats.arena) = r->temporaries.capacity;
    for (uint32_t b = 0; b < p->buffers.count && s == TPC_OK; b++)
        if (r->now->offset[b] != UINT64_MAX)
            r->address[b] = (char *)r->temporaries.at + r->now->offset[b];
    for (uint32_t i = 0; i < p->steps.count && s == TPC_OK; i++) {
        if (p->steps.at[i].phase != phase)
            continue;
        double start = r->step_seconds ? seconds_now() : 0;
        s = run_step(r, i);
        if (r->step_seconds)
            note_time(r, i, seconds_now() - start);
        if (s != TPC_OK)
            r->failed_at = failing_node(r, i);
    }
    s = s == TPC_OK ? r->device->ops->finish(r->device, &r->failure) : s;
    if (phase == PHASE_LOAD) /* runs have temporaries of their own size */
        store_free(r, &r->temporaries);
    return s;
}
