/* passes/fuse_state.c - past -> present pairs that lie in one memory: what is new is written into it, what was there stays.
 *
 * The memory has room for more entries along the state's axis than there are: a capacity, a symbol that the runtime binds. It holds the past before a run and
 * the present behind it; every value in it is a view whose rows are a capacity apart, so it is never a dense buffer (plan_is_alias). What may
 * be: present = concat(past, new..), or scatter(past, ..), or scatter of past made longer by a pad. Appended entries lie behind the past, so others may
 * read the past at any time; a scatter overwrites it, so nobody else may. Start at plan_states.
 */
#include "passes/fuse.h"

/* ---- which states ---- */

static uint32_t use_count(const struct plan *p, value v)
{
    return p->uses.first[v + 1] - p->uses.first[v];
}

static uint32_t output_count(const struct plan *p, value v)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < p->graph->outputs.count; i++)
        count += p->graph->outputs.at[i].value == v;
    return count;
}

/* The same extent on every rank, known from the inputs' shapes. */
static bool plain_extent(const struct plan *p, dim d)
{
    const struct dims *t = p->graph->dims;
    return !dim_uses_kind(t, d, SYMBOL_PART_SIZE) && !dim_uses_kind(t, d, SYMBOL_PART_OFFSET) &&
           !dim_uses_kind(t, d, SYMBOL_RANK);
}

static bool same_but_axis(const struct node *a, const struct node *b, uint32_t axis)
{
    for (uint32_t i = 0; i < a->rank; i++)
        if (i != axis && a->shape[i] != b->shape[i])
            return false;
    return a->rank == b->rank && a->dtype == b->dtype;
}

/* Steps of the runtime take dense buffers; `but` is the scatter that writes v itself. */
static bool wanted_dense(const struct plan *p, value v, value but)
{
    for (uint32_t i = p->uses.first[v]; i < p->uses.first[v + 1]; i++) {
        op_class class = op_info(graph_node(p->graph, p->uses.use[i])->op)->class;
        bool step = class == CLASS_SCATTER || class == CLASS_SCAN || class == CLASS_SORT || class == CLASS_COMPOSITE ||
                    class == CLASS_COLLECTIVE;
        if (step && p->uses.use[i] != but)
            return true;
    }
    return false;
}

/* w is past with more entries behind it, along the axis alone. */
static bool is_extension(const struct plan *p, value w, value past, uint32_t axis)
{
    const struct node *n = graph_node(p->graph, w);
    if (n->op != OP_PAD || n->operand[0] != past || use_count(p, w) != 1 || output_count(p, w) != 0)
        return false;
    for (uint32_t i = 0; i < n->rank; i++)
        if (!dim_is(p->graph->dims, n->attribute.dims[i], 0))
            return false;
    return same_but_axis(n, graph_node(p->graph, past), axis);
}

/* Is the state written in place? *between: a pad's value between past and present, 0: none. */
static bool in_place(const struct plan *p, const struct state *s, value past, value present, value *between)
{
    const struct node *n = graph_node(p->graph, present), *before = graph_node(p->graph, past);
    bool concat = n->op == OP_CONCAT && n->operand_count > 1 && !view_is_map(p->graph, present),
         scatter = n->op == OP_SCATTER;
    *between = 0;
    if ((!concat && !scatter) || (uint32_t)n->attribute.axis != s->axis || !same_but_axis(n, before, s->axis) ||
        output_count(p, past) != 0 || output_count(p, present) != 1 || !plain_extent(p, n->shape[s->axis]) ||
        !plain_extent(p, before->shape[s->axis]))
        return false;
    if (wanted_dense(p, present, 0) || wanted_dense(p, past, present))
        return false;
    if (concat)
        return n->operand[0] == past;
    if (n->attribute.mode != SCATTER_SET || use_count(p, past) != 1)
        return false;
    if (n->operand[0] == past)
        return n->operand[1] != past && n->operand[2] != past;
    *between = n->operand[0];
    return is_extension(p, n->operand[0], past, s->axis);
}

/* ---- their memory ---- */

/* States of one past and present extent have one capacity, so that repeated layers share kernels. */
static uint32_t capacity_of(const struct plan *p, uint32_t state, dim before, dim after)
{
    uint32_t next = 0;
    for (uint32_t i = 0; i < state; i++) {
        const struct state_memory *m = &p->memory[i];
        if (m->past == 0)
            continue;
        if (m->before == before && m->after == after)
            return m->capacity;
        next = m->capacity + 1 > next ? m->capacity + 1 : next;
    }
    return next;
}

static void place_state(struct plan *p, uint32_t number)
{
    const struct graph *g = p->graph;
    const struct state *s = &g->states.at[number];
    value past = g->inputs.at[s->input].value, present = g->outputs.at[s->output].value, between;
    if (p->state[past] || p->state[present] || !in_place(p, s, past, present, &between))
        return;
    const struct node *n = graph_node(g, present);
    struct state_memory *m = &p->memory[number];
    dim *shape = arena_copy(p->arena, n->shape, n->rank * sizeof *shape);
    m->before = graph_node(g, past)->shape[s->axis];
    m->after = n->shape[s->axis];
    m->capacity = capacity_of(p, number, m->before, m->after);
    m->past = past;
    shape[s->axis] = dim_capacity(g->dims, m->capacity);
    m->shape = shape;
    p->state[past] = p->state[present] = number + 1;
    if (between)
        p->state[between] = number + 1;
}

void plan_states(struct plan *p)
{
    p->state = NEW_ARRAY(p->arena, uint32_t, p->graph->nodes.count);
    p->memory = NEW_ARRAY(p->arena, struct state_memory, p->graph->states.count + 1);
    for (uint32_t i = 0; i < p->graph->states.count; i++)
        place_state(p, i);
}

const dim *plan_shape(const struct plan *p, value v)
{
    return p->state[v] ? p->memory[p->state[v] - 1].shape : graph_node(p->graph, v)->shape;
}

bool plan_is_alias(const struct plan *p, value v)
{
    return view_is_alias(p->graph, v) && !p->state[graph_node(p->graph, v)->operand[0]];
}

value plan_root(const struct plan *p, value v)
{
    while (plan_is_alias(p, v))
        v = graph_node(p->graph, v)->operand[0];
    return v;
}

/* ---- the groups that write it ---- */

static dim *group_index(struct plan *p, struct group *g, uint32_t rank, const dim *extent)
{
    dim *index = NEW_ARRAY(p->arena, dim, rank);
    for (uint32_t i = 0; i < rank; i++)
        index[i] = dim_is(p->graph->dims, extent[i], 1) ? dim_const(p->graph->dims, 0)
                                                        : space_add(&g->space, extent[i], AXIS_OUTER);
    return index;
}

void plan_extension(struct plan *p, value v)
{
    const struct node *n = graph_node(p->graph, v);
    const struct state_memory *m = &p->memory[p->state[v] - 1];
    uint32_t number, axis = p->graph->states.at[p->state[v] - 1].axis;
    struct group *g = plan_add_group(p, GROUP_KERNEL, v, &number);
    dim extent[MAX_RANK];
    memcpy(extent, n->shape, n->rank * sizeof *extent);
    extent[axis] = dim_sub(p->graph->dims, m->after, m->before);
    dim *index = group_index(p, g, n->rank, extent);
    index[axis] = dim_add(p->graph->dims, index[axis], m->before);
    g->index = index;
    plan_set_producer(p, v, number, 1, UINT32_MAX);
    plan_access(p, number, n->operand[1], index, false);
}

void plan_scatter(struct plan *p, value v)
{
    const struct node *n = graph_node(p->graph, v), *updates = graph_node(p->graph, n->operand[2]);
    uint32_t number;
    struct group *g = plan_add_group(p, GROUP_KERNEL, v, &number);
    dim where[MAX_RANK];
    g->index = group_index(p, g, updates->rank, updates->shape);
    plan_set_producer(p, v, number, 1, UINT32_MAX);
    plan_gather_where(p, v, g->index, where);
    plan_access(p, number, n->operand[2], g->index, false);
    plan_access(p, number, n->operand[1], where, false);
    if (graph_node(p->graph, n->operand[0])->op == OP_PAD) /* is written first */
        plan_access(p, number, n->operand[0], NULL, true);
}

void plan_scatter_view(const struct plan *p, const struct space *s, value v, const dim *index, dim *linear, dim *stride)
{
    const struct node *n = graph_node(p->graph, v);
    uint32_t axis = (uint32_t)n->attribute.axis;
    uint32_t picked = graph_node(p->graph, n->operand[1])->rank - (uint32_t)n->attribute.nbatch;
    const dim *shape = plan_shape(p, v);
    dim at[MAX_RANK];
    for (uint32_t i = 0; i < n->rank; i++)
        at[i] = i < axis ? index[i] : i == axis ? dim_const(s->dims, 0) : index[i - 1 + picked];
    *linear = index_row_major(s, n->rank, shape, at);
    *stride = dim_product(s->dims, shape + axis + 1, n->rank - axis - 1);
}
