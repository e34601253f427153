/* runtime/engine_shape.c - numbers from shapes: sizes and offsets of buffers, views of dots, cuts of collectives, for the symbol values of one run.
 *
 * Invariant: a plan is a function of the symbols' values; the last few are kept, so that a repeated shape costs a comparison. Start with
 * shape_plan_find.
 */
#include "runtime/engine_impl.h"

#include "codegen/codegen.h"

/* Where a plan is being made. */
struct maker {
    struct rank *rank;
    struct shape_plan *plan;
    const struct graph *graph;
    const int64_t *of;
    struct dot_view **dot;
    struct kernel_job **kernel;
    struct exchange **exchange;
    struct builtin_call **builtin;
};

static status too_large(struct maker *m, value node, const char *what)
{
    m->rank->failed_at = node;
    return fail(&m->rank->failure, TPC_DATA, "%s overflows for these shapes", what);
}

bool shape_of_value(const struct graph *g, value v, const int64_t *of, struct tensor *t)
{
    const struct node *n = graph_node(g, v);
    int64_t shape[MAX_RANK];
    for (uint32_t a = 0; a < n->rank; a++)
        if (!dim_eval(g->dims, n->shape[a], of, &shape[a]))
            return false;
    return tensor_shape(t, n->dtype, n->rank, shape);
}

/* ---- steps ---------------------------------------------------------------------------------------------------------- */

static status make_kernel(struct maker *m, uint32_t index, const struct step *step)
{
    struct engine *e = m->rank->engine;
    struct kernel_job *job = NEW(m->plan->arena, struct kernel_job);
    *job = (struct kernel_job){.kernel = step->kernel, .of = m->of};
    job->extent = kernel_extent(e->kernels, step->kernel, m->of);
    job->work = kernel_work(e->kernels, step->kernel, m->of);
    if (job->extent < 0)
        return too_large(m, step->node, "an extent");
    m->kernel[index] = job;
    return TPC_OK;
}

static status make_dot(struct maker *m, uint32_t index, const struct step *step)
{
    const struct program *p = m->rank->engine->program;
    struct dot_view *view = NEW(m->plan->arena, struct dot_view);
    if (!dot_view_of(step->dot, m->graph->dims, m->of, view))
        return too_large(m, step->node, "an extent");
    uint64_t elements[3];
    for (uint32_t i = 0; i < 3; i++)
        elements[i] = m->plan->bytes[step->arg[i]] / dtype_size(p->buffers.at[step->arg[i]].type);
    if (!dot_view_fits(view, elements)) {
        m->rank->failed_at = step->node;
        return fail(&m->rank->failure, TPC_DATA, "the plan reads past the end of a buffer here");
    }
    dot_view_merge(view);
    m->dot[index] = view;
    return TPC_OK;
}

static bool make_offsets(struct maker *m, uint32_t partition, const int64_t **out)
{
    uint32_t parts = m->graph->partitions.at[partition].parts;
    int64_t *offset = NEW_ARRAY(m->plan->arena, int64_t, parts + 1);
    for (uint32_t i = 0; i < parts; i++)
        if (!partition_range(m->graph, partition, i, m->of, &offset[i], &offset[i + 1]))
            return false;
    *out = offset;
    return true;
}

static int64_t product(const struct tensor *t, uint32_t from, uint32_t to)
{
    int64_t n = 1;
    for (uint32_t a = from; a < to; a++)
        n *= t->shape[a];
    return n;
}

/* Number of elements by the view, for a check against the tensor's. */
static bool view_counts(int64_t outer, int64_t extent, int64_t inner, size_t count)
{
    int64_t n = 0;
    return outer >= 0 && inner >= 0 && i64_mul(outer, extent, &n) && i64_mul(n, inner, &n) && (uint64_t)n == count;
}

/* One cut axis: all_gather and reduce_scatter. whole: the larger tensor. */
static bool make_cut(struct maker *m, const struct node *n, const struct tensor *whole, struct exchange *x)
{
    uint32_t axis = (uint32_t)n->attribute.axis, parts = m->graph->partitions.at[n->attribute.partition].parts;
    int64_t outer = 0, inner = 0;
    if (!make_offsets(m, n->attribute.partition, &x->cut.offset) ||
        !dim_eval(m->graph->dims, n->attribute.dims[0], m->of, &outer) ||
        !dim_eval(m->graph->dims, n->attribute.dims[1], m->of, &inner))
        return false;
    x->subaxes = m->graph->partitions.at[n->attribute.partition].subaxes;
    x->shape = hash_bytes(x->cut.offset, (parts + 1) * sizeof *x->cut.offset, 0);
    x->cut.outer = outer * product(whole, 0, axis);
    x->cut.inner = inner * product(whole, axis + 1, whole->rank);
    x->shape = hash_bytes(&x->cut, offsetof(struct comm_cut, offset), x->shape);
    return view_counts(x->cut.outer, x->cut.offset[parts], x->cut.inner, whole->count);
}

/* Two cut axes: all_to_all gathers `axis` and cuts list[0]. */
static bool make_both(struct maker *m, const struct node *n, const struct tensor *in, struct exchange *x)
{
    uint32_t gathered = (uint32_t)n->attribute.axis, cut = (uint32_t)n->attribute.list[0];
    uint32_t other = (uint32_t)n->attribute.list[1];
    int64_t d[4]; /* outer, inner of the gathered axis; outer, inner of the cut one */
    const int64_t *gather_offset = NULL, *cut_offset = NULL;
    if (gathered == cut || other == 0 || other >= m->graph->partitions.count)
        return false;
    for (uint32_t i = 0; i < 4; i++)
        if (!dim_eval(m->graph->dims, n->attribute.dims[i], m->of, &d[i]))
            return false;
    if (!make_offsets(m, n->attribute.partition, &gather_offset) || !make_offsets(m, other, &cut_offset))
        return false;
    bool first = gathered < cut;
    uint32_t low = first ? gathered : cut, high = first ? cut : gathered;
    const int64_t *low_around = first ? d : d + 2, *high_around = first ? d + 2 : d;
    x->subaxes = m->graph->partitions.at[n->attribute.partition].subaxes;
    x->both = (struct comm_exchange){
        .before = product(in, 0, low) * low_around[0],
        .between = low_around[1] * product(in, low + 1, high) * high_around[0],
        .after = high_around[1] * product(in, high + 1, in->rank),
        .gather_first = first,
        .first = first ? gather_offset : cut_offset,
        .second = first ? cut_offset : gather_offset,
    };
    const int64_t around[] = {x->both.before, x->both.between, x->both.after, first};
    x->shape = hash_bytes(around, sizeof around, 0);
    x->shape = hash_bytes(
        gather_offset, (m->graph->partitions.at[n->attribute.partition].parts + 1) * sizeof *gather_offset, x->shape);
    x->shape = hash_bytes(cut_offset, (m->graph->partitions.at[other].parts + 1) * sizeof *cut_offset, x->shape);
    return true;
}

static status make_exchange(struct maker *m, uint32_t index, const struct step *step)
{
    const struct node *n = graph_node(m->graph, step->node);
    struct exchange *x = NEW(m->plan->arena, struct exchange);
    struct tensor in, out;
    if (op_info(n->op)->class != CLASS_COLLECTIVE || n->operand_count != 1 || step->arg_count != 2)
        return fail(&m->rank->failure, TPC_DATA, "the plan's step %u is no collective", (unsigned)index);
    if (!shape_of_value(m->graph, n->operand[0], m->of, &in) || !shape_of_value(m->graph, step->node, m->of, &out))
        return too_large(m, step->node, "a shape");
    bool good = true;
    x->subaxes = n->attribute.index;
    if (n->op == OP_ALL_GATHER)
        good = make_cut(m, n, &out, x);
    else if (n->op == OP_REDUCE_SCATTER)
        good = make_cut(m, n, &in, x);
    else if (n->op == OP_ALL_TO_ALL)
        good = make_both(m, n, &in, x);
    good =
        good && tensor_bytes(&in) <= m->plan->bytes[step->arg[0]] && tensor_bytes(&out) <= m->plan->bytes[step->arg[1]];
    if (!good)
        return too_large(m, step->node, "a collective's view");
    x->elements = (int64_t)in.count;
    x->bytes = tensor_bytes(in.count > out.count ? &in : &out);
    m->exchange[index] = x;
    return TPC_OK;
}

static status make_builtin(struct maker *m, uint32_t index, const struct step *step)
{
    struct builtin_call *c = NEW(m->plan->arena, struct builtin_call);
    c->node = graph_node(m->graph, step->node);
    if (c->node->operand_count > 3 || step->arg_count != c->node->operand_count + 1)
        return fail(&m->rank->failure, TPC_DATA, "the plan's step %u has the wrong number of buffers", (unsigned)index);
    for (uint32_t i = 0; i < step->arg_count; i++) {
        bool last = i == c->node->operand_count;
        struct tensor *t = last ? &c->result : &c->operand[i];
        if (!shape_of_value(m->graph, last ? step->node : c->node->operand[i], m->of, t))
            return too_large(m, step->node, "a shape");
        if (tensor_bytes(t) > m->plan->bytes[step->arg[i]])
            return fail(&m->rank->failure, TPC_DATA, "the plan's step %u does not fit its buffers", (unsigned)index);
    }
    if (c->node->attribute.dims_count && !dim_eval(m->graph->dims, c->node->attribute.dims[0], m->of, &c->base))
        return too_large(m, step->node, "an offset");
    m->builtin[index] = c;
    return TPC_OK;
}

/* For a device that takes steps its own way. */
static status prepare(struct maker *m, uint32_t index, const struct step *step)
{
    struct rank *r = m->rank;
    status s = r->device->ops->prepare(r->device, index, m->of, m->plan->arena, &m->plan->prepared[index], &r->failure);
    if (s != TPC_OK)
        r->failed_at = step->node;
    return s;
}

/* What no device changes: that it is sound, and its numbers. */
static status check_step(struct maker *m, uint32_t index, const struct step *step)
{
    switch (step->kind) {
    case STEP_KERNEL:
        return m->plan->prepared ? TPC_OK : make_kernel(m, index, step);
    case STEP_DOT:
        return make_dot(m, index, step);
    case STEP_COLLECTIVE:
        return make_exchange(m, index, step);
    case STEP_BUILTIN:
        return make_builtin(m, index, step);
    case STEP_COPY:
        if (m->plan->bytes[step->arg[0]] != m->plan->bytes[step->arg[1]])
            return too_large(m, step->node, "a copy");
        return TPC_OK;
    }
    return fail(&m->rank->failure, TPC_DATA, "the plan's step %u is of no known kind", (unsigned)index);
}

static status make_step(struct maker *m, uint32_t index)
{
    const struct program *p = m->rank->engine->program;
    const struct step *step = &p->steps.at[index];
    if (!program_step_fits(p, index, m->of)) /* a plan is data from outside */
        return fail(&m->rank->failure, TPC_DATA, "the plan's step %u reaches outside of its buffers for these shapes",
                    (unsigned)index);
    status s = check_step(m, index, step);
    return s == TPC_OK && m->plan->prepared && step->kind != STEP_COLLECTIVE ? prepare(m, index, step) : s;
}

/* ---- the plan ------------------------------------------------------------------------------------------------------- */

/* At load no shapes are known, and extents may be nonsense (sequence - 1 is -1): only what steps of that phase touch counts. Their temporaries lie one
 * behind the other. */
static status place_for_load(struct maker *m)
{
    const struct program *p = m->rank->engine->program;
    struct shape_plan *plan = m->plan;
    bool *used = NEW_ARRAY(plan->arena, bool, p->buffers.count + 1);
    uint64_t unit = m->rank->device->ops->alignment;
    for (uint32_t i = 0; i < p->steps.count; i++)
        for (uint32_t k = 0; k < p->steps.at[i].arg_count && p->steps.at[i].phase == PHASE_LOAD; k++)
            used[p->steps.at[i].arg[k]] = true;
    for (uint32_t b = 0; b < p->buffers.count; b++) {
        buffer_kind kind = p->buffers.at[b].kind;
        bool loaded = used[b] || kind == BUFFER_WEIGHT || kind == BUFFER_CONSTANT || kind == BUFFER_KEPT;
        plan->offset[b] = UINT64_MAX;
        if (loaded && (!buffer_bytes(p, b, plan->of, &plan->bytes[b]) || plan->bytes[b] > SIZE_MAX / 4))
            return too_large(m, p->buffers.at[b].node, "a buffer");
        if (!loaded || kind != BUFFER_TEMP)
            continue;
        plan->offset[b] = plan->arena_bytes;
        plan->arena_bytes += (plan->bytes[b] + unit - 1) / unit * unit;
    }
    return TPC_OK;
}

/* Where another plan's temporaries take as many units of the device's alignment each, they lie as there: a cache that grows seldom changes that. */
static bool place_as_before(struct maker *m)
{
    const struct program *p = m->rank->engine->program;
    struct shape_plan *plan = m->plan;
    const struct shape_plan *before = m->rank->now;
    uint64_t unit = m->rank->device->ops->alignment;
    if (!before || before == plan || before->age == 0)
        return false;
    for (uint32_t b = 0; b < p->buffers.count; b++)
        if (p->buffers.at[b].kind == BUFFER_TEMP &&
            (plan->bytes[b] + unit - 1) / unit != (before->bytes[b] + unit - 1) / unit)
            return false;
    memcpy(plan->offset, before->offset, p->buffers.count * sizeof *plan->offset);
    plan->arena_bytes = before->arena_bytes;
    return true;
}

static status place_for_run(struct maker *m)
{
    const struct program *p = m->rank->engine->program;
    struct shape_plan *plan = m->plan;
    for (uint32_t b = 0; b < p->buffers.count; b++)
        if (!buffer_bytes(p, b, plan->of, &plan->bytes[b]) || plan->bytes[b] > SIZE_MAX / 4)
            return too_large(m, p->buffers.at[b].node, "a buffer");
    if (place_as_before(m))
        return TPC_OK;
    return program_place_aligned(p, plan->of, m->rank->device->ops->alignment, m->rank->scratch, plan->offset,
                                 &plan->arena_bytes)
               ? TPC_OK
               : too_large(m, 0, "the memory for intermediate values");
}

static status make_plan(struct rank *r, struct shape_plan *plan)
{
    struct engine *e = r->engine;
    uint32_t buffers = e->program->buffers.count, steps = e->program->steps.count;
    enum step_phase phase = e->command == COMMAND_LOAD ? PHASE_LOAD : PHASE_RUN;
    struct maker m = {.rank = r, .plan = plan, .graph = e->graph, .of = plan->of};
    plan->arena_bytes = 0;
    plan->bytes = NEW_ARRAY(plan->arena, uint64_t, buffers + 1);
    plan->offset = NEW_ARRAY(plan->arena, uint64_t, buffers + 1);
    plan->prepared = r->device->ops->prepare ? NEW_ARRAY(plan->arena, const void *, steps + 1) : NULL;
    plan->dot = m.dot = NEW_ARRAY(plan->arena, struct dot_view *, steps + 1);
    plan->kernel = m.kernel = NEW_ARRAY(plan->arena, struct kernel_job *, steps + 1);
    plan->exchange = m.exchange = NEW_ARRAY(plan->arena, struct exchange *, steps + 1);
    plan->builtin = m.builtin = NEW_ARRAY(plan->arena, struct builtin_call *, steps + 1);
    status s = phase == PHASE_LOAD ? place_for_load(&m) : place_for_run(&m);
    for (uint32_t i = 0; i < steps && s == TPC_OK; i++)
        if (e->program->steps.at[i].phase == phase)
            s = make_step(&m, i);
    return s;
}

static struct shape_plan *oldest(struct rank *r)
{
    struct shape_plan *found = &r->plan[0];
    for (uint32_t i = 1; i < SHAPE_PLANS; i++)
        if (r->plan[i].age < found->age)
            found = &r->plan[i];
    return found;
}

/* At load a partition of, say, sequence - 1 must not fail: any extent will do. */
static bool bind_any(struct rank *r, int64_t *of)
{
    const struct graph *g = r->engine->graph;
    bool bound = graph_bind_rank(g, r->index, of);
    for (int64_t any = 1; !bound && any < 100000; any *= 8) {
        for (uint32_t s = 0; s < dims_symbol_count(g->dims); s++)
            of[s] = any;
        bound = graph_bind_rank(g, r->index, of);
    }
    return bound;
}

/* The next plan is about as large as the last one: in one piece it needs no memory of the system's. */
static void empty_arena(struct shape_plan *plan)
{
    size_t held = arena_bytes(plan->arena);
    arena_rewind(plan->arena, plan->mark);
    if (held > plan->held) {
        (void)arena_alloc(plan->arena, held + held / 4);
        arena_rewind(plan->arena, plan->mark);
        plan->held = arena_bytes(plan->arena);
    }
}

status shape_plan_find(struct rank *r, const int64_t *symbols, struct shape_plan **out)
{
    struct engine *e = r->engine;
    uint32_t count = dims_symbol_count(e->graph->dims);
    int64_t *of = NEW_ARRAY(r->scratch, int64_t, count + 1);
    memcpy(of, symbols, count * sizeof *of);
    bool load = e->command == COMMAND_LOAD;
    if (!(load ? bind_any(r, of) : graph_bind_rank(e->graph, r->index, of)))
        return fail(&r->failure, TPC_DATA, "a partition overflows for these shapes");
    r->clock++;
    for (uint32_t i = 0; i < SHAPE_PLANS && !load; i++)
        if (r->plan[i].age && memcmp(r->plan[i].of, of, count * sizeof *of) == 0) {
            *out = &r->plan[i];
            r->plan[i].age = r->clock;
            return TPC_OK;
        }
    struct shape_plan *plan = oldest(r);
    plan->age = 0;
    empty_arena(plan);
    plan->of = arena_copy(plan->arena, of, (count + 1) * sizeof *of);
    status s = make_plan(r, plan);
    if (s != TPC_OK)
        return s;
    plan->age = load ? 0 : r->clock; /* what was made for loading serves nothing else */
    *out = plan;
    if (r == e->rank && !load)
        e->stats.shape_plans++;
    return TPC_OK;
}
