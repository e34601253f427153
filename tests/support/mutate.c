/* tests/support/mutate.c - the ways in which a rewrite might be wrong. */
#include "tests/support/mutate_impl.h"

#include "ir/op_infer.h"

/* ---- copies ---- */

#define OWN(arena, list)                                                                                               \
    ((list).at = arena_copy((arena), (list).at, (list).count * sizeof *(list).at), (list).capacity = (list).count)

struct graph *program_copy(const struct graph *p, struct arena *arena)
{
    struct graph *m = NEW(arena, struct graph);
    *m = *p;
    m->arena = arena;
    OWN(m->arena, m->nodes);
    OWN(m->arena, m->outputs);
    OWN(m->arena, m->inputs);
    OWN(m->arena, m->source);
    OWN(m->arena, m->partitions);
    OWN(m->arena, m->shards);
    OWN(m->arena, m->params);
    OWN(m->arena, m->guards);
    OWN(m->arena, m->states);
    return m;
}

bool program_derive(struct graph *m)
{
    for (value v = 1; v < m->nodes.count; v++) {
        struct node *n = &m->nodes.at[v];
        struct inference i = {.graph = m, .node = n};
        for (uint32_t k = 0; k < n->operand_count; k++)
            if (n->operand[k] == 0 || n->operand[k] >= v)
                return false;
        if (!op_infer(&i))
            return false;
        for (uint32_t k = 0; k < i.rank; k++)
            if (!dim_valid(i.shape[k]))
                return false;
        n->dtype = i.dtype;
        n->rank = i.rank;
        dim *shape = arena_copy(m->arena, i.shape, i.rank * sizeof *shape);
        for (uint32_t k = 0; k < i.rank; k++)
            shape[k] = dim_resolve(m->dims, shape[k]);
        n->shape = shape;
    }
    return true;
}

struct node *mutant_node(struct graph *m, value v)
{
    return &m->nodes.at[v];
}

void mutant_set_operand(struct graph *m, value v, uint32_t i, value to)
{
    struct node *n = mutant_node(m, v);
    value *operand = arena_copy(m->arena, n->operand, n->operand_count * sizeof *operand);
    operand[i] = to;
    n->operand = operand;
}

int32_t *mutant_own_list(struct graph *m, value v)
{
    struct attribute *a = &mutant_node(m, v)->attribute;
    int32_t *list = arena_copy(m->arena, a->list, a->list_count * sizeof *list);
    a->list = list;
    return list;
}

dim *mutant_own_dims(struct graph *m, value v)
{
    struct attribute *a = &mutant_node(m, v)->attribute;
    dim *dims = arena_copy(m->arena, a->dims, a->dims_count * sizeof *dims);
    a->dims = dims;
    return dims;
}

/* Uses of `from` behind `after`, and outputs, become uses of `to`. */
static void redirect(struct graph *m, value from, value to, value after)
{
    for (value v = after + 1; v < m->nodes.count; v++)
        for (uint32_t i = 0; i < mutant_node(m, v)->operand_count; i++)
            if (mutant_node(m, v)->operand[i] == from && v != to)
                mutant_set_operand(m, v, i, to);
    for (uint32_t i = 0; i < m->outputs.count; i++)
        if (m->outputs.at[i].value == from)
            m->outputs.at[i].value = to;
}

/* Makes room for a node at v; what stood there and behind moves up by one. */
static struct node *insert(struct graph *m, value v)
{
    (void)PUSH(m->arena, &m->nodes);
    (void)PUSH(m->arena, &m->source);
    memmove(&m->nodes.at[v + 1], &m->nodes.at[v], (m->nodes.count - 1 - v) * sizeof *m->nodes.at);
    memmove(&m->source.at[v + 1], &m->source.at[v], (m->source.count - 1 - v) * sizeof *m->source.at);
    for (value u = v + 1; u < m->nodes.count; u++)
        for (uint32_t i = 0; i < mutant_node(m, u)->operand_count; i++)
            if (mutant_node(m, u)->operand[i] >= v)
                mutant_set_operand(m, u, i, mutant_node(m, u)->operand[i] + 1);
    for (uint32_t i = 0; i < m->outputs.count; i++)
        m->outputs.at[i].value += m->outputs.at[i].value >= v;
    for (uint32_t i = 0; i < m->inputs.count; i++)
        m->inputs.at[i].value += m->inputs.at[i].value >= v;
    *mutant_node(m, v) = (struct node){.origin = mutant_node(m, v - 1)->origin};
    m->source.at[v] = 0;
    return mutant_node(m, v);
}

/* Inserts a node with the one operand v right behind it, and has all users of v use that. */
static value insert_behind(struct graph *m, value v, op o, const struct attribute *a)
{
    struct node *n = insert(m, v + 1);
    const struct node *x = mutant_node(m, v);
    n->op = o;
    n->dtype = x->dtype;
    n->rank = x->rank;
    n->shape = x->shape;
    n->operand_count = 1;
    n->operand = arena_copy(m->arena, &v, sizeof v);
    n->attribute = *a;
    redirect(m, v, v + 1, v + 1);
    return v + 1;
}

static bool communicates(op o)
{
    return o == OP_ALL_REDUCE || o == OP_ALL_GATHER || o == OP_REDUCE_SCATTER || o == OP_RESTRICT || o == OP_COUNT_ONCE;
}

static bool cuts(op o)
{
    return o == OP_ALL_GATHER || o == OP_REDUCE_SCATTER || o == OP_RESTRICT;
}

value mutant_alike(const struct graph *m, value v, value than, uint32_t variant)
{
    const struct node *x = graph_node(m, than);
    for (value u = v; u-- > 1;) {
        const struct node *n = graph_node(m, u);
        if (u != than && n->dtype == x->dtype && n->rank == x->rank &&
            (x->rank == 0 || memcmp(n->shape, x->shape, x->rank * sizeof *x->shape) == 0) && variant-- == 0)
            return u;
    }
    return 0;
}

/* ---- collectives ---- */

static bool drop(struct graph *m, value v, uint32_t variant)
{
    (void)variant;
    if (!communicates(mutant_node(m, v)->op))
        return false;
    redirect(m, v, mutant_node(m, v)->operand[0], v);
    return true;
}

static bool twice(struct graph *m, value v, uint32_t variant)
{
    (void)variant;
    struct attribute a = mutant_node(m, v)->attribute;
    return communicates(mutant_node(m, v)->op) && insert_behind(m, v, mutant_node(m, v)->op, &a) != 0;
}

static bool other_reduction(struct graph *m, value v, uint32_t variant)
{
    op o = mutant_node(m, v)->op;
    if ((o != OP_ALL_REDUCE && o != OP_REDUCE_SCATTER) || (int32_t)variant + 1 == mutant_node(m, v)->attribute.mode)
        return false;
    mutant_node(m, v)->attribute.mode = (int32_t)variant + 1;
    return true;
}

static bool other_group(struct graph *m, value v, uint32_t variant)
{
    op o = mutant_node(m, v)->op;
    uint32_t mask = variant + 1;
    if ((o != OP_ALL_REDUCE && o != OP_COUNT_ONCE) || mask >> m->mesh.count ||
        mask == mutant_node(m, v)->attribute.index)
        return false;
    mutant_node(m, v)->attribute.index = mask;
    return true;
}

static bool other_partition(struct graph *m, value v, uint32_t variant)
{
    struct attribute *a = &mutant_node(m, v)->attribute;
    if (!cuts(mutant_node(m, v)->op))
        return false;
    for (uint32_t p = 1; p < m->partitions.count; p++)
        if (p != a->partition && m->partitions.at[p].extent == m->partitions.at[a->partition].extent &&
            variant-- == 0) {
            a->partition = p;
            return true;
        }
    return false;
}

/* The same parts, handed to the ranks in another order: parts of the same size swap. */
static bool cut_around(struct graph *m, value v, uint32_t variant)
{
    if (!cuts(mutant_node(m, v)->op) || mutant_node(m, v)->attribute.dims_count != 2)
        return false;
    dim *d = mutant_own_dims(m, v), outer = d[0];
    if (variant == 0) {
        d[0] = d[1];
        d[1] = outer;
    } else {
        uint32_t rank = graph_node(m, mutant_node(m, v)->operand[0])->rank;
        if (rank < 2)
            return false;
        mutant_node(m, v)->attribute.axis = (mutant_node(m, v)->attribute.axis + (int32_t)variant) % (int32_t)rank;
        return variant % rank != 0;
    }
    return d[0] != d[1];
}

static bool exchange_collective(struct graph *m, value v, uint32_t variant)
{
    static const op to[] = {OP_COUNT_ONCE, OP_RESTRICT, OP_ALL_REDUCE};
    op o = mutant_node(m, v)->op;
    static const op from[] = {OP_ALL_REDUCE, OP_REDUCE_SCATTER, OP_COUNT_ONCE};
    if (o != from[variant])
        return false;
    mutant_node(m, v)->op = to[variant];
    mutant_node(m, v)->attribute.mode = to[variant] == OP_ALL_REDUCE ? REDUCTION_SUM : 0;
    return true;
}

static bool once_too_often(struct graph *m, value v, uint32_t variant)
{
    op o = mutant_node(m, v)->op;
    if (!dtype_is_float(mutant_node(m, v)->dtype) || o == OP_PARAM)
        return false;
    struct attribute a = {.index = 1, .mode = variant ? REDUCTION_SUM : 0};
    return insert_behind(m, v, variant ? OP_ALL_REDUCE : OP_COUNT_ONCE, &a) != 0;
}

/* u = op(.., all_reduce(x), ..) becomes all_reduce(op(.., x, ..)), for the variant-th user. */
static bool reduce_later(struct graph *m, value v, uint32_t variant)
{
    op o = mutant_node(m, v)->op;
    if (o != OP_ALL_REDUCE && o != OP_COUNT_ONCE)
        return false;
    struct attribute a = mutant_node(m, v)->attribute;
    value x = mutant_node(m, v)->operand[0];
    for (value u = v + 1; u < m->nodes.count; u++)
        for (uint32_t i = 0; i < mutant_node(m, u)->operand_count; i++)
            if (mutant_node(m, u)->operand[i] == v && variant-- == 0) {
                mutant_set_operand(m, u, i, x);
                value kept = m->source.at[u];
                value r = insert_behind(m, u, o, &a);
                m->source.at[u] = kept;
                return r != 0;
            }
    return false;
}

/* all_reduce(op(x, ..)) becomes op(all_reduce(x), ..). */
static bool reduce_sooner(struct graph *m, value v, uint32_t variant)
{
    struct node *n = mutant_node(m, v);
    if (n->op != OP_ALL_REDUCE || variant >= mutant_node(m, n->operand[0])->operand_count)
        return false;
    value f = n->operand[0];
    struct attribute a = n->attribute;
    redirect(m, v, f, v);
    value x = mutant_node(m, f)->operand[variant];
    struct node *r = insert(m, f); /* f moves to f + 1 */
    r->op = OP_ALL_REDUCE;
    r->dtype = mutant_node(m, x)->dtype;
    r->rank = mutant_node(m, x)->rank;
    r->shape = mutant_node(m, x)->shape;
    r->operand_count = 1;
    r->operand = arena_copy(m->arena, &x, sizeof x);
    r->attribute = a;
    mutant_set_operand(m, f + 1, variant, f);
    return true;
}

/* ---- pieces ---- */

static bool other_start(struct graph *m, value v, uint32_t variant)
{
    if (mutant_node(m, v)->op != OP_SLICE)
        return false;
    uint32_t axis = variant / 3 % 4;
    if (axis >= mutant_node(m, v)->rank)
        return false;
    dim *d = mutant_own_dims(m, v), before = d[axis];
    dim one = dim_const(m->dims, 1);
    d[axis] = variant % 3 == 0   ? dim_add(m->dims, before, one)
              : variant % 3 == 1 ? dim_sub(m->dims, before, one)
                                 : dim_const(m->dims, 0);
    return d[axis] != before && dim_valid(d[axis]) && dim_lower(m->dims, d[axis]) >= 0;
}

static bool other_walk(struct graph *m, value v, uint32_t variant)
{
    struct node *n = mutant_node(m, v);
    if (n->op != OP_GATHER && n->op != OP_SCATTER)
        return false;
    dim base = variant == 1 ? dim_const(m->dims, 0) : variant == 2 ? dim_const(m->dims, 1) : DIM_NONE;
    if (variant == 0) {
        n->attribute.mode ^= n->op == OP_GATHER ? (int32_t)GATHER_ZERO : (int32_t)SCATTER_DROP;
    } else if (variant >= 3) {
        if (variant - 2 >= m->partitions.count)
            return false;
        base = partition_offset(m, variant - 2);
    }
    if (variant > 0) {
        if (n->attribute.dims_count && n->attribute.dims[0] == base)
            return false;
        n->attribute.dims = arena_copy(m->arena, &base, sizeof base);
        n->attribute.dims_count = 1;
        n->attribute.mode |= n->op == OP_GATHER ? (int32_t)GATHER_ZERO : (int32_t)SCATTER_DROP;
    }
    return true;
}

/* Only some of an axis goes into what combines all of it. */
static bool cut_short(struct graph *m, value v, uint32_t variant)
{
    op o = mutant_node(m, v)->op;
    bool combines = op_info(o)->class == CLASS_REDUCE || o == OP_GATHER || o == OP_SLICE || o == OP_CROSS_ENTROPY;
    if (!combines)
        return false;
    value x = mutant_node(m, v)->operand[0];
    const struct node *from = mutant_node(m, x);
    uint32_t axis = op_info(o)->class == CLASS_REDUCE ? (uint32_t)mutant_node(m, v)->attribute.list[0]
                    : o == OP_GATHER                  ? (uint32_t)mutant_node(m, v)->attribute.axis
                                                      : variant / 2;
    int64_t extent;
    if (axis >= from->rank || !dim_is_const(m->dims, from->shape[axis], &extent) || extent < 2)
        return false;
    dim *shape = arena_copy(m->arena, from->shape, from->rank * sizeof *shape),
        *start = NEW_ARRAY(m->arena, dim, from->rank);
    int32_t *step = NEW_ARRAY(m->arena, int32_t, from->rank);
    for (uint32_t k = 0; k < from->rank; k++) {
        start[k] = dim_const(m->dims, k == axis && variant % 2 ? 1 : 0);
        step[k] = 1;
    }
    shape[axis] = dim_const(m->dims, extent - 1);
    struct node s = {.op = OP_SLICE, .dtype = from->dtype, .rank = from->rank, .shape = shape, .operand_count = 1};
    s.operand = arena_copy(m->arena, &x, sizeof x);
    s.attribute = (struct attribute){.dims = start, .dims_count = from->rank, .list = step, .list_count = from->rank};
    s.origin = mutant_node(m, v)->origin;
    *insert(m, v) = s;
    mutant_set_operand(m, v + 1, 0, v);
    return true;
}

/* The contracted axis of both operands loses its last (or first) element. */
static bool contract_less(struct graph *m, value v, uint32_t variant)
{
    if (mutant_node(m, v)->op != OP_DOT || mutant_node(m, v)->attribute.ncontract != 1)
        return false;
    for (uint32_t side = 0; side < 2; side++) {
        value dot = v + side, x = mutant_node(m, dot)->operand[side];
        const struct node *from = mutant_node(m, x);
        int64_t extent;
        uint32_t axis = from->rank - 1;
        if (!dim_is_const(m->dims, from->shape[axis], &extent) || extent < 2)
            return false;
        dim *shape = arena_copy(m->arena, from->shape, from->rank * sizeof *shape),
            *start = NEW_ARRAY(m->arena, dim, from->rank);
        int32_t *step = NEW_ARRAY(m->arena, int32_t, from->rank);
        for (uint32_t k = 0; k < from->rank; k++) {
            start[k] = dim_const(m->dims, k == axis && variant ? 1 : 0);
            step[k] = 1;
        }
        shape[axis] = dim_const(m->dims, extent - 1);
        struct node s = {.op = OP_SLICE,
                         .dtype = from->dtype,
                         .rank = from->rank,
                         .shape = shape,
                         .operand_count = 1,
                         .origin = mutant_node(m, dot)->origin};
        s.operand = arena_copy(m->arena, &x, sizeof x);
        s.attribute =
            (struct attribute){.dims = start, .dims_count = from->rank, .list = step, .list_count = from->rank};
        *insert(m, dot) = s;
        mutant_set_operand(m, dot + 1, side, dot);
    }
    return true;
}

const struct mutation mutations[] = {
    {"drop a collective", drop, 1, false},
    {"double a collective", twice, 1, false},
    {"another reduction", other_reduction, 4, false},
    {"another group", other_group, 7, false},
    {"another partition", other_partition, 3, false},
    {"cut another way around", cut_around, 3, false},
    {"one collective for another", exchange_collective, 3, false},
    {"a collective where none belongs", once_too_often, 2, false},
    {"reduce later", reduce_later, 3, false},
    {"reduce sooner", reduce_sooner, 3, false},
    {"another start of a slice", other_start, 12, false},
    {"another base of an index", other_walk, 6, false},
    {"part of an axis for the whole", cut_short, 6, false},
    {"contract less", contract_less, 2, false},
    {"swap operands", mutate_swap_operands, 3, false},
    {"another operand", mutate_other_operand, 6, false},
    {"other axes", mutate_other_list, 4, false},
    {"another operation", mutate_other_op, 2, false},
    {"another number", mutate_other_number, 2, false},
    {"another weight", mutate_other_param, 3, false},
    {"another shard", mutate_other_shard, 8, false},
    {"other cuts", mutate_other_cuts, 6, false},
    {"another output", mutate_other_output, 4, false},
    {"another table", mutate_other_table, 10, true},
};
const uint32_t mutation_count = sizeof mutations / sizeof *mutations;
