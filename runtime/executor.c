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

status host_reserve(struct rank *r, struct store *s, uint64_t bytes)
{
    if (s->at && s->capacity >= bytes)
        return TPC_OK;
    base_free(s->at);
    s->capacity = bytes + bytes / 4 + 64;
    s->at = base_alloc(s->capacity);
    return s->at
               ? TPC_OK
               : fail(&r->failure, TPC_NOMEM, "out of memory: %llu more bytes were wanted", (unsigned long long)bytes);
}

static bool exchange(struct comm *comm, const struct node *n, const struct exchange *x, const void *in, void *out)
{
    const struct comm_ops *ops = comm->ops;
    enum reduction reduction = (enum reduction)n->attribute.mode;
    size_t size = dtype_size(n->dtype);
    switch ((int)n->op) {
    case OP_ALL_REDUCE:
        return ops->all_reduce(comm, x->subaxes, reduction, n->dtype, in, out, x->elements);
    case OP_ALL_GATHER:
        return ops->all_gather(comm, x->subaxes, size, &x->cut, in, out);
    case OP_REDUCE_SCATTER:
        return ops->reduce_scatter(comm, x->subaxes, reduction, n->dtype, &x->cut, in, out);
    case OP_ALL_TO_ALL:
        return ops->all_to_all(comm, x->subaxes, size, &x->both, in, out);
    default:
        return ops->broadcast(comm, x->subaxes, (uint32_t)n->attribute.mode, (size_t)x->elements * size, in, out);
    }
}

/* Through host memory, where kernels do not read it. */
static status stage(struct rank *r, const struct node *n, const struct exchange *x, const uint64_t bytes[2],
                    void *const buffer[2])
{
    const struct device_ops *ops = r->device->ops;
    status s = host_reserve(r, &r->staged[0], bytes[0]);
    if (s == TPC_OK)
        s = host_reserve(r, &r->staged[1], bytes[1]);
    if (s == TPC_OK)
        s = ops->download(r->device, r->staged[0].at, buffer[0], bytes[0], &r->failure);
    if (s != TPC_OK)
        return s;
    if (!exchange(r->comm, n, x, r->staged[0].at, r->staged[1].at))
        return TPC_RANKS;
    return ops->upload(r->device, buffer[1], r->staged[1].at, bytes[1], &r->failure);
}

status comm_failed(struct rank *r, const struct comm *comm)
{
    if (comm->out_of_memory)
        return fail(&r->failure, TPC_NOMEM, "out of memory in a collective");
    if (*comm->why)
        return fail(&r->failure, TPC_RANKS, "%s", comm->why);
    r->stopped = true;
    return TPC_RANKS;
}

/* What a collective in the device's queue is, in numbers: those of its node, its shapes, its buffers. true: it is noted, not to be done. */
static bool note_collective(struct rank *r, const struct step *step, const struct exchange *x, void *const buffer[2],
                            const uint64_t bytes[2])
{
    const uint64_t what[] = {step->node,
                             x->subaxes,
                             (uint64_t)x->elements,
                             (uint64_t)(uintptr_t)buffer[0],
                             (uint64_t)(uintptr_t)buffer[1],
                             bytes[0],
                             bytes[1],
                             x->shape};
    const struct device_ops *ops = r->device->ops;
    return ops->note && ops->note(r->device, what, sizeof what / sizeof *what);
}

static status run_collective(struct rank *r, const struct course *c, const struct step *step, const struct exchange *x)
{
    struct engine *e = r->engine;
    const struct node *n = graph_node(e->graph, step->node);
    void *const buffer[2] = {c->address[step->arg[0]], c->address[step->arg[1]]};
    const uint64_t bytes[2] = {c->plan->bytes[step->arg[0]], c->plan->bytes[step->arg[1]]};
    if (r->queued && note_collective(r, step, x, buffer, bytes))
        return TPC_OK;
    if (r->queued)
        return exchange(r->queued, n, x, buffer[0], buffer[1]) ? TPC_OK : comm_failed(r, r->queued);
    status s = r->device->ops->finish(r->device, &r->failure);
    if (s != TPC_OK)
        return s;
    if (!r->device->ops->reads_host)
        s = stage(r, n, x, bytes, buffer);
    else
        s = exchange(r->comm, n, x, buffer[0], buffer[1]) ? TPC_OK : TPC_RANKS;
    return s == TPC_RANKS ? comm_failed(r, r->comm) : s;
}

static status run_step(struct rank *r, const struct course *c, uint32_t index)
{
    const struct step *step = &r->engine->program->steps.at[index];
    const struct device_ops *ops = r->device->ops;
    const struct shape_plan *plan = c->plan;
    void *stack[32], **buffers = stack;
    if (step->kind == STEP_COLLECTIVE)
        return run_collective(r, c, step, plan->exchange[index]);
    if (plan->prepared)
        return ops->step(r->device, step, plan->prepared[index], c->address, plan->bytes, &r->failure);
    if (step->arg_count > sizeof stack / sizeof *stack)
        buffers = NEW_ARRAY(r->scratch, void *, step->arg_count);
    for (uint32_t i = 0; i < step->arg_count; i++)
        buffers[i] = c->address[step->arg[i]];
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

/* ---- a run ------------------------------------------------------------------------------------------------------------ */

static status run_steps(struct rank *r, const struct course *c, enum step_phase phase)
{
    const struct program *p = r->engine->program;
    bool timed = r->step_seconds != NULL;
    status s = TPC_OK;
    for (uint32_t i = 0; i < p->steps.count && s == TPC_OK; i++) {
        if (p->steps.at[i].phase != phase || (phase == PHASE_RUN && best_instead_of(r, c->plan, i)))
            continue;
        double start = timed ? seconds_now() : 0;
        s = run_step(r, c, i);
        if (timed && s == TPC_OK && c->plan->prepared) /* it was only queued */
            s = r->device->ops->finish(r->device, &r->failure);
        if (timed)
            note_time(r, i, seconds_now() - start);
        if (s != TPC_OK)
            r->failed_at = failing_node(r, i);
    }
    if (s == TPC_OK && phase == PHASE_RUN)
        s = run_best(r, c);
    return s;
}

static enum traced_run trace_run(struct rank *r, const struct course *c, bool ahead)
{
    const struct device_ops *ops = r->device->ops;
    if (ops->fits(r->device, c->key))
        return TRACED_FITS;
    ops->trace(r->device);
    status s = run_steps(r, c, PHASE_RUN);
    enum traced_run known = ops->traced(r->device, c->key, ahead);
    return s == TPC_OK ? known : TRACED_NEW;
}

static status record_run(struct rank *r, const struct course *c)
{
    const struct device_ops *ops = r->device->ops;
    status s = ops->record(r->device, &r->failure);
    if (s != TPC_OK)
        return s;
    status steps = run_steps(r, c, PHASE_RUN);
    struct failure first = r->failure;
    s = ops->recorded(r->device, c->key, &r->failure); /* in any case: the queue must be as before */
    if (steps == TPC_OK)
        return s;
    ops->forget(r->device, false);
    r->failure = first;
    return steps;
}

/* As one launch, where a run of this kind went before: of a recording that is set for it, or made now. The first of its kind goes step by step. */
static status run_traced(struct rank *r, const struct course *c)
{
    enum traced_run known = trace_run(r, c, false);
    if (known == TRACED_NEW)
        return run_steps(r, c, PHASE_RUN);
    status s = known == TRACED_AGAIN ? record_run(r, c) : TPC_OK;
    return s == TPC_OK ? r->device->ops->replay(r->device, &r->failure) : s;
}

/* Everything is queued: no collective of these steps waits in host memory. */
static bool can_record(const struct rank *r)
{
    return r->device->ops->record && !r->step_seconds && (r->queued || r->engine->ranks == 1);
}

void make_ready(struct rank *r, const struct course *c)
{
    if (can_record(r))
        (void)trace_run(r, c, true);
}

static void count_collectives(struct rank *r)
{
    const struct program *p = r->engine->program;
    for (uint32_t i = 0; i < p->steps.count && r == r->engine->rank; i++)
        if (r->now->exchange[i] && !best_instead_of(r, r->now, i)) {
            r->engine->stats.collectives++;
            r->engine->stats.collective_bytes += r->now->exchange[i]->bytes;
        }
}

status execute(struct rank *r, const struct course *c, enum step_phase phase)
{
    struct engine *e = r->engine;
    const struct device_ops *ops = r->device->ops;
    bool run = phase == PHASE_RUN, early = run && e->early; /* then it is queued and marked already */
    bool marked = run && e->expected.given && e->expected.begin && ops->mark && can_record(r);
    status s = early ? TPC_OK : run && can_record(r) ? run_traced(r, c) : run_steps(r, c, phase);
    if (s == TPC_OK && marked && !early)
        s = ops->mark(r->device, c->slot, &r->failure);
    if (s != TPC_OK)
        return s;
    count_collectives(r);
    if (run)
        expect_next(r);
    if (marked || early) {
        s = begin_next(r);
        if (s == TPC_OK)
            s = ops->reach(r->device, c->slot, &r->failure);
    } else {
        s = ops->finish(r->device, &r->failure);
    }
    if (s != TPC_OK)
        r->failed_at = r->failure.node;
    if (s == TPC_RANKS && r->queued && *r->queued->why)
        return comm_failed(r, r->queued);
    r->stopped = r->stopped || s == TPC_RANKS;
    return s;
}
