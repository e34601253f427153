/* passes/fuse_plan.c - what becomes a buffer, and which step writes it.
 *
 * A walk from the last value to the first: when a value comes up, all its readers are known as accesses. It is inlined where it has one reader (or is
 * cheap), and where a reduction among it fits the rows of its reader; else it gets a buffer. Groups and what they read form an acyclic
 * graph at all times. Start at plan_value.
 */
#include "passes/fuse.h"

enum {
    CHEAP_OPERATIONS = 3, /* that several readers may repeat */
    CHEAP_SCALAR = 16
};

/* ---- accesses ---- */

static bool same_index(const dim *a, const dim *b, uint32_t rank)
{
    return memcmp(a, b, rank * sizeof *a) == 0;
}

void plan_access(struct plan *p, uint32_t group, value v, const dim *index, bool dense)
{
    uint32_t rank = graph_node(p->graph, v)->rank, key[MAX_RANK + 3] = {group, v, dense};
    if (!dense && rank != 0)
        memcpy(key + 3, index, rank * sizeof *index);
    bool added;
    (void)map_put(&p->seen, key, (3 + (dense ? 0 : rank)) * sizeof *key, &added);
    if (!added)
        return;
    uint32_t number = p->pool.count;
    struct access *fresh = PUSH(p->arena, &p->pool);
    *fresh = (struct access){.group = group, .dense = dense, .next = p->accesses[v]};
    if (!dense)
        fresh->index = arena_copy(p->arena, index, rank * sizeof *index);
    p->accesses[v] = number;
}

static bool any_dense(const struct plan *p, value v)
{
    for (uint32_t i = p->accesses[v]; i != 0; i = p->pool.at[i].next)
        if (p->pool.at[i].dense)
            return true;
    return false;
}

struct group *plan_add_group(struct plan *p, enum group_kind kind, value root, uint32_t *number)
{
    struct group *g = NEW(p->arena, struct group);
    g->kind = kind;
    g->root = root;
    g->part = -1;
    g->is_static = p->is_static[root];
    g->space.dims = p->graph->dims;
    *number = p->groups.count;
    *PUSH(p->arena, &p->groups) = g;
    return g;
}

/* ---- what reads a buffer ---- */

/* From now on v lies in a buffer written by groups [first, first + count); each access of it, but those of group `host`, is a load. */
void plan_set_producer(struct plan *p, value v, uint32_t first, uint32_t count, uint32_t host)
{
    p->materialised[v] = true;
    p->producer[v] = first + 1;
    p->producers[v] = count;
    for (uint32_t i = p->accesses[v]; i != 0; i = p->pool.at[i].next)
        if (p->pool.at[i].group != host)
            *PUSH(p->arena, &plan_group(p, p->pool.at[i].group)->reads) = v;
}

/* ---- inlining: the operands get accesses ---- */

static void inline_gather(struct plan *p, uint32_t group, value v, const dim *index)
{
    const struct node *n = graph_node(p->graph, v);
    dim where[MAX_RANK], linear, stride;
    plan_gather_where(p, v, index, where);
    plan_access(p, group, n->operand[1], where, false);
    struct space probe = plan_group(p, group)->space;
    p->base[v] = plan_gather_view(p, &probe, v, index, 0, &linear, &stride);
    plan_access(p, group, p->base[v], NULL, true);
}

static void inline_reduce(struct plan *p, uint32_t group, value v, const dim *index)
{
    const struct node *n = graph_node(p->graph, v);
    const struct group *g = plan_group(p, group);
    dim at[MAX_RANK];
    plan_reduced_index(g, n, graph_node(p->graph, n->operand[0])->rank, index, at);
    plan_access(p, group, n->operand[0], at, false);
}

void plan_reduced_index(const struct group *g, const struct node *n, uint32_t rank, const dim *index, dim *out)
{
    uint32_t kept = 0, reduced = 0;
    for (uint32_t i = 0; i < rank; i++) {
        bool gone = reduced < n->attribute.list_count && n->attribute.list[reduced] == (int32_t)i;
        out[i] = gone ? g->row[reduced] : index[kept];
        reduced += gone;
        kept += !gone;
    }
}

static void inline_concat(struct plan *p, uint32_t group, value v, const dim *index)
{
    const struct node *n = graph_node(p->graph, v);
    struct dims *t = p->graph->dims;
    dim at[MAX_RANK];
    memcpy(at, index, n->rank * sizeof *index);
    for (uint32_t i = 0; i < n->operand_count; i++) {
        plan_access(p, group, n->operand[i], at, false);
        dim extent = graph_node(p->graph, n->operand[i])->shape[n->attribute.axis];
        at[n->attribute.axis] = dim_sub(t, at[n->attribute.axis], extent);
    }
}

static void inline_pad(struct plan *p, uint32_t group, value v, const dim *index)
{
    const struct node *n = graph_node(p->graph, v);
    dim at[MAX_RANK];
    for (uint32_t i = 0; i < n->rank; i++)
        at[i] = dim_sub(p->graph->dims, index[i], n->attribute.dims[i]);
    plan_access(p, group, n->operand[0], at, false);
    plan_access(p, group, n->operand[1], at, false);
}

/* The group computes v at `index`. */
static void inline_value(struct plan *p, uint32_t group, value v, const dim *index)
{
    const struct node *n = graph_node(p->graph, v);
    struct group *g = plan_group(p, group);
    dim at[MAX_RANK];
    g->size++;
    if (n->op == OP_GATHER) {
        inline_gather(p, group, v, index);
    } else if (op_info(n->op)->class == CLASS_REDUCE) {
        inline_reduce(p, group, v, index);
    } else if (n->op == OP_CONCAT && !view_is_map(p->graph, v)) {
        inline_concat(p, group, v, index);
    } else if (n->op == OP_PAD) {
        inline_pad(p, group, v, index);
    } else if (n->op == OP_DOT) {
        for (int i = 0; i < 2; i++) {
            plan_dot_where(p, v, index, i, at);
            plan_access(p, group, n->operand[i], at, false);
        }
    } else if (view_is_map(p->graph, v)) {
        view_map(p->graph, &g->space, v, index, at);
        plan_access(p, group, n->operand[0], at, false);
    } else {
        for (uint32_t i = 0; i < n->operand_count; i++)
            plan_access(p, group, n->operand[i], index, false);
    }
}

static void inline_all(struct plan *p, value v)
{
    for (uint32_t i = p->accesses[v]; i != 0; i = p->pool.at[i].next) /* the pool may move meanwhile */
        inline_value(p, p->pool.at[i].group, v, p->pool.at[i].index);
}

/* ---- rows ---- */

static bool is_one(const struct plan *p, dim d)
{
    return dim_is(p->graph->dims, d, 1);
}

static bool uses_all_outer(const struct group *g, const dim *index, uint32_t rank)
{
    for (uint32_t i = 0; i < g->space.order_count; i++) {
        uint32_t c = g->space.order[i];
        bool used = dim_is(g->space.dims, g->space.extent[c], 1) || g->space.kind[c] != AXIS_OUTER;
        for (uint32_t k = 0; k < rank && !used; k++)
            used = index_uses(&g->space, index[k], c);
        if (!used)
            return false;
    }
    return true;
}

static bool uses_row(const struct group *g, const dim *index, uint32_t rank)
{
    for (uint32_t i = 0; i < g->space.order_count; i++)
        for (uint32_t k = 0; k < rank && g->space.kind[g->space.order[i]] == AXIS_INNER; k++)
            if (index_uses(&g->space, index[k], g->space.order[i]))
                return true;
    return false;
}

/* Coordinates of the group that `index` does not use, as the row of a reduction over `extent`: in order, of equal extents. */
static bool take_row(struct plan *p, struct group *g, uint32_t count, const dim *extent, const dim *index,
                     uint32_t rank)
{
    uint32_t found = 0, list[SPACE_AXES], n = 0;
    struct space *s = &g->space;
    for (uint32_t i = 0; i < s->order_count; i++) {
        bool used = is_one(p, s->extent[s->order[i]]);
        for (uint32_t k = 0; k < rank && !used; k++)
            used = index_uses(s, index[k], s->order[i]);
        if (!used)
            list[n++] = s->order[i];
    }
    for (uint32_t i = 0; i < count; i++) {
        g->row[i] = dim_const(s->dims, 0);
        g->row_extent[i] = extent[i];
        if (n == 0 || is_one(p, extent[i]))
            continue;
        if (found == n || s->extent[list[found]] != extent[i])
            return false;
        g->row[i] = dim_coordinate(s->dims, list[found++]);
    }
    if (found != n)
        return false;
    g->row_count = count;
    for (uint32_t i = 0; i < count && n == 0; i++) /* all are used: the row is new */
        if ((g->row[i] = space_add(s, extent[i], AXIS_INNER)) == DIM_NONE)
            return false;
    plan_make_inner(s, list, n);
    return true;
}

void plan_make_inner(struct space *s, const uint32_t *coordinates, uint32_t count)
{
    uint8_t order[SPACE_AXES];
    uint32_t n = 0;
    for (uint32_t i = 0; i < count; i++)
        s->kind[coordinates[i]] = AXIS_INNER;
    for (uint8_t kind = AXIS_OUTER; kind <= AXIS_INNER; kind++)
        for (uint32_t i = 0; i < s->order_count; i++)
            if (s->kind[s->order[i]] == kind)
                order[n++] = s->order[i];
    memcpy(s->order, order, n);
}

static uint32_t reduced_extents(const struct plan *p, const struct node *n, dim *extent)
{
    for (uint32_t i = 0; i < n->attribute.list_count; i++)
        extent[i] = graph_node(p->graph, n->operand[0])->shape[n->attribute.list[i]];
    return n->attribute.list_count;
}

/* Can the group compute the reduction v at `index` once per point? Then its row is that of v. */
static bool row_fits(struct plan *p, struct group *g, value v, const dim *index)
{
    const struct node *n = graph_node(p->graph, v);
    dim extent[MAX_RANK];
    uint32_t count = reduced_extents(p, n, extent);
    if (g->row_count == 0) {
        struct group before = *g;
        if (take_row(p, g, count, extent, index, n->rank))
            return true;
        *g = before;
        return false;
    }
    return count == g->row_count && same_index(extent, g->row_extent, count) && uses_all_outer(g, index, n->rank) &&
           !uses_row(g, index, n->rank);
}

/* ---- groups of kernels ---- */

static void start_kernel(struct plan *p, value v, int32_t part, uint32_t *number)
{
    const struct node *n = graph_node(p->graph, v);
    struct group *g = plan_add_group(p, GROUP_KERNEL, v, number);
    const struct node *shape = part < 0 ? n : graph_node(p->graph, n->operand[part]);
    dim *index = NEW_ARRAY(p->arena, dim, n->rank);
    g->part = part;
    for (uint32_t i = 0; i < n->rank; i++)
        index[i] = is_one(p, shape->shape[i]) ? dim_const(p->graph->dims, 0)
                                              : space_add(&g->space, shape->shape[i], AXIS_OUTER);
    g->index = index;
}

static void materialise_concat(struct plan *p, value v)
{
    const struct node *n = graph_node(p->graph, v);
    uint32_t first = p->groups.count, number, there = p->state[v] != 0; /* the past lies where it is */
    for (uint32_t i = there; i < n->operand_count; i++)
        start_kernel(p, v, (int32_t)i, &number);
    plan_set_producer(p, v, first, n->operand_count - there, UINT32_MAX);
    for (uint32_t i = there; i < n->operand_count; i++)
        plan_access(p, first + i - there, n->operand[i], plan_group(p, first + i - there)->index, false);
}

static void materialise(struct plan *p, value v, bool hosting)
{
    const struct node *n = graph_node(p->graph, v);
    const struct access *host = hosting ? plan_host(p, v) : NULL;
    if (host != NULL) {
        plan_set_producer(p, v, host->group, 1, host->group);
        *PUSH(p->arena, &plan_group(p, host->group)->hosted) = v;
        inline_value(p, host->group, v, host->index);
        return;
    }
    if (n->op == OP_CONCAT && n->operand_count > 1 && !view_is_map(p->graph, v)) {
        materialise_concat(p, v);
        return;
    }
    if (p->state[v] != 0) {
        plan_extension(p, v);
        return;
    }
    uint32_t number;
    start_kernel(p, v, -1, &number);
    plan_set_producer(p, v, number, 1, UINT32_MAX);
    struct group *g = plan_group(p, number);
    if (op_info(n->op)->class == CLASS_REDUCE) {
        dim extent[MAX_RANK];
        (void)take_row(p, g, reduced_extents(p, n, extent), extent, g->index, n->rank);
    }
    inline_value(p, number, v, g->index);
}

/* ---- decisions ---- */

/* Would inlining repeat the computation, because v lacks an axis around one that it has? */
static bool repeats(const struct plan *p, const struct access *a, uint32_t rank)
{
    const struct space *s = &plan_group(p, a->group)->space;
    bool inside = false;
    for (uint32_t i = s->order_count; i-- > 0;) {
        bool used = false;
        for (uint32_t k = 0; k < rank && !used; k++)
            used = index_uses(s, a->index[k], s->order[i]);
        if (inside && !used && !is_one(p, s->extent[s->order[i]]))
            return true;
        inside |= used;
    }
    return false;
}

static bool is_tiny(const struct plan *p, value v)
{
    return is_one(p, graph_elements(p->graph, v));
}

/* A value known at load that run-time steps read: is keeping it worth its memory? */
static bool worth_keeping(const struct plan *p, value v)
{
    const struct estimate *e = &p->estimate[v];
    bool read_at_run = false;
    for (uint32_t i = p->accesses[v]; i != 0; i = p->pool.at[i].next)
        read_at_run |= !plan_group(p, p->pool.at[i].group)->is_static;
    int64_t elements;
    if (!p->is_static[v] || !read_at_run || is_tiny(p, v) || (!e->heavy && e->operations <= CHEAP_OPERATIONS))
        return false;
    return dim_is_const(p->graph->dims, graph_elements(p->graph, v), &elements) && elements <= 1 << 16;
}

static bool inline_pointwise(struct plan *p, value v)
{
    const struct estimate *e = &p->estimate[v];
    const struct access *first = &p->pool.at[p->accesses[v]];
    uint32_t rank = graph_node(p->graph, v)->rank, count = 0;
    for (uint32_t i = p->accesses[v]; i != 0; i = p->pool.at[i].next, count++)
        if (p->pool.at[i].dense || plan_group(p, p->pool.at[i].group)->size >= GROUP_SIZE_LIMIT)
            return false;
    if (worth_keeping(p, v))
        return false;
    if (is_tiny(p, v) && !e->heavy && e->operations <= CHEAP_SCALAR && e->loads <= 2)
        return true;
    bool cheap = !e->heavy && e->operations <= CHEAP_OPERATIONS && e->loads <= 1;
    return cheap || (count == 1 && !repeats(p, first, rank)) || (e->loads == 0 && !e->heavy && e->operations <= 8);
}

static void plan_pointwise(struct plan *p, value v)
{
    if (p->output[v] == 0 && inline_pointwise(p, v))
        inline_all(p, v);
    else
        materialise(p, v, true);
}

static bool inline_reduction(struct plan *p, value v)
{
    const struct access *a = &p->pool.at[p->accesses[v]];
    if (p->accesses[v] == 0 || a->next != 0 || a->dense || p->output[v] != 0 || worth_keeping(p, v))
        return false;
    struct group *g = plan_group(p, a->group);
    return g->is_static == p->is_static[v] && g->size < GROUP_SIZE_LIMIT && row_fits(p, g, v, a->index);
}

static void plan_reduce(struct plan *p, value v)
{
    if (inline_reduction(p, v))
        inline_all(p, v);
    else
        materialise(p, v, false);
}

/* The dot that may write its result in v's layout: v transposes what only it reads. */
value plan_dot_behind(const struct plan *p, value v)
{
    value from = v;
    for (;;) {
        const struct node *n = graph_node(p->graph, from);
        if (n->op != OP_TRANSPOSE && n->op != OP_RESHAPE)
            return n->op == OP_DOT && !plan_is_product(p, from) ? from : 0;
        from = n->operand[0];
        if (p->uses.first[from + 1] - p->uses.first[from] != 1 || p->output[from] != 0)
            return 0;
    }
}

static void plan_layout(struct plan *p, value v)
{
    const struct node *n = graph_node(p->graph, v);
    bool dense = any_dense(p, v) || p->output[v] != 0, crowded = false;
    uint32_t count = 0;
    for (uint32_t i = p->accesses[v]; i != 0; i = p->pool.at[i].next, count++)
        crowded |= plan_group(p, p->pool.at[i].group)->size >= GROUP_SIZE_LIMIT;
    bool choose = (n->op == OP_CONCAT || n->op == OP_PAD) && !view_is_map(p->graph, v);
    if (dense && plan_is_alias(p, v) && p->output[v] == 0) { /* the buffer is the operand's */
        for (uint32_t i = p->accesses[v]; i != 0; i = p->pool.at[i].next)
            if (p->pool.at[i].dense)
                plan_access(p, p->pool.at[i].group, n->operand[0], NULL, true);
            else
                inline_value(p, p->pool.at[i].group, v, p->pool.at[i].index);
        return;
    }
    if (!dense && !crowded && (!choose || (count == 1 && n->operand_count <= 4))) {
        inline_all(p, v);
        return;
    }
    value dot = dense && n->op == OP_TRANSPOSE ? plan_dot_behind(p, v) : 0;
    if (dot == 0 || !plan_dot(p, dot, v))
        materialise(p, v, false);
}

static void plan_copy(struct plan *p, value v, uint32_t output)
{
    uint32_t number;
    struct group *g = plan_add_group(p, GROUP_COPY, v, &number);
    g->output = output;
    g->is_static = false;
    plan_access(p, number, v, NULL, true);
}

static void plan_step(struct plan *p, value v)
{
    const struct node *n = graph_node(p->graph, v);
    uint32_t number;
    (void)plan_add_group(p, GROUP_STEP, v, &number);
    plan_set_producer(p, v, number, 1, UINT32_MAX);
    for (uint32_t i = 0; i < n->operand_count; i++)
        plan_access(p, number, n->operand[i], NULL, true);
}

static void plan_leaf(struct plan *p, value v)
{
    if (graph_node(p->graph, v)->op == OP_DIM || graph_node(p->graph, v)->op == OP_IOTA) {
        if (any_dense(p, v) || p->output[v] != 0)
            materialise(p, v, false);
        return;
    }
    p->materialised[v] = true;
}

/* An output that shares its buffer with a leaf or another output is a copy; else the value behind its aliases takes the output's buffer. */
static void plan_output(struct plan *p, value v)
{
    value from = plan_root(p, v);
    const struct node *n = graph_node(p->graph, from);
    bool leaf = op_info(n->op)->class == CLASS_LEAF && n->op != OP_DIM;
    if (p->output[v] == 0 || (from == v && !leaf))
        return;
    if (!leaf && p->output[from] == 0) {
        p->output[from] = p->output[v];
        p->output[v] = 0;
        return;
    }
    plan_copy(p, v, p->output[v] - 1);
    p->output[v] = 0;
}

static void plan_value(struct plan *p, value v)
{
    const struct node *n = graph_node(p->graph, v);
    plan_output(p, v);
    if ((p->accesses[v] == 0 && p->output[v] == 0) || p->producer[v] != 0 || p->written_as[v] != 0)
        return;
    switch (op_info(n->op)->class) {
    case CLASS_LEAF:
        plan_leaf(p, v);
        return;
    case CLASS_POINTWISE:
    case CLASS_GATHER:
        plan_pointwise(p, v);
        return;
    case CLASS_REDUCE:
        plan_reduce(p, v);
        return;
    case CLASS_LAYOUT:
        if (n->op == OP_IOTA)
            plan_leaf(p, v);
        else
            plan_layout(p, v);
        return;
    case CLASS_DOT:
        if (plan_is_product(p, v))
            plan_pointwise(p, v);
        else
            (void)plan_dot(p, v, v);
        return;
    case CLASS_SCATTER:
        if (p->state[v] != 0)
            plan_scatter(p, v);
        else
            plan_step(p, v);
        return;
    case CLASS_SCAN:
    case CLASS_SORT:
    case CLASS_COMPOSITE:
    case CLASS_COLLECTIVE:
        plan_step(p, v);
        return;
    }
}

status fuse_plan(struct plan *p)
{
    struct graph *g = p->graph;
    uint32_t count = g->nodes.count;
    p->uses = graph_uses(g, p->arena);
    p->estimate = NEW_ARRAY(p->arena, struct estimate, count);
    p->is_static = NEW_ARRAY(p->arena, bool, count);
    p->accesses = NEW_ARRAY(p->arena, uint32_t, count);
    p->materialised = NEW_ARRAY(p->arena, bool, count);
    p->producer = NEW_ARRAY(p->arena, uint32_t, count);
    p->producers = NEW_ARRAY(p->arena, uint32_t, count);
    p->written_as = NEW_ARRAY(p->arena, value, count);
    p->scale = NEW_ARRAY(p->arena, double, count);
    p->base = NEW_ARRAY(p->arena, value, count);
    p->output = NEW_ARRAY(p->arena, uint32_t, count);
    p->seen.arena = p->arena;
    (void)PUSH(p->arena, &p->pool);
    plan_prepare(p);
    plan_states(p);
    for (uint32_t i = 0; i < g->outputs.count; i++) {
        value v = g->outputs.at[i].value;
        if (p->output[v] == 0)
            p->output[v] = i + 1;
        else
            plan_copy(p, v, i);
    }
    for (value v = count; v-- > 1;)
        plan_value(p, v);
    return TPC_OK;
}
