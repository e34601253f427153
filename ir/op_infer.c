/* ir/op_infer.c - what shape and type each row of ops.def gives, and what it asks of its operands and attributes.
 *
 * One function per shape rule, shape_NAME; the table at the end joins them to the rows, so that a row without its rule does not compile.
 * An extent is refused only where it is provably wrong: what depends on symbols is left to the run.
 */
#include "ir/op_infer.h"

#include <assert.h>

TPC_PRINTF(2, 3) static bool wrong(struct inference *i, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(i->why, sizeof i->why, format, args);
    va_end(args);
    return false;
}

bool extent_same(struct graph *g, dim a, dim b)
{
    return a == b || dim_resolve(g->dims, a) == dim_resolve(g->dims, b);
}

static const struct node *operand(const struct inference *i, uint32_t k)
{
    return graph_node(i->graph, i->node->operand[k]);
}

static void take_shape(struct inference *i, uint32_t rank, const dim *shape)
{
    i->rank = rank;
    if (rank)
        memcpy(i->shape, shape, rank * sizeof *shape);
}

/* Do a and b agree? Else says that they differ, and how: "axis 2 differs: 4096 and 11008". */
static bool extents_agree(struct inference *i, dim a, dim b, const char *what, uint32_t axis)
{
    if (extent_same(i->graph, a, b))
        return true;
    char text[2][80];
    struct arena *scratch = arena_new_in(i->graph->arena);
    snprintf(text[0], sizeof text[0], "%s", dim_text(i->graph->dims, a, scratch));
    snprintf(text[1], sizeof text[1], "%s", dim_text(i->graph->dims, b, scratch));
    arena_free(scratch);
    return wrong(i, "%s %u differs: %s and %s", what, (unsigned)axis, text[0], text[1]);
}

static bool shapes_agree(struct inference *i, const struct node *a, const struct node *b)
{
    if (a->rank != b->rank)
        return wrong(i, "operands of rank %u and %u", (unsigned)a->rank, (unsigned)b->rank);
    for (uint32_t k = 0; k < a->rank; k++)
        if (!extents_agree(i, a->shape[k], b->shape[k], "axis", k))
            return false;
    return true;
}

static bool axis_in(struct inference *i, int64_t axis, uint32_t rank)
{
    return (axis >= 0 && axis < (int64_t)rank) || wrong(i, "axis %lld of rank %u", (long long)axis, (unsigned)rank);
}

static bool provably_negative(struct inference *i, dim d)
{
    return dim_valid(d) && dim_upper(i->graph->dims, d) < 0;
}

/* ---- leaves and pointwise ---- */

static bool shape_GIVEN(struct inference *i)
{
    take_shape(i, i->node->rank, i->node->shape);
    return true;
}

static bool shape_SCALAR(struct inference *i)
{
    const struct attribute *a = &i->node->attribute;
    i->rank = 0;
    return (a->dims_count == 1 && dim_valid(a->dims[0])) || wrong(i, "takes one dim");
}

static bool shape_SAME(struct inference *i)
{
    const struct node *first = operand(i, 0);
    for (uint32_t k = 1; k < i->node->operand_count; k++)
        if (!shapes_agree(i, first, operand(i, k)))
            return false;
    take_shape(i, first->rank, first->shape);
    return true;
}

/* ---- reductions, dot, gather and scatter ---- */

/* Strictly ascending axes of `rank`. */
static bool ascending_axes(struct inference *i, uint32_t rank)
{
    const struct attribute *a = &i->node->attribute;
    for (uint32_t k = 0; k < a->list_count; k++)
        if (!axis_in(i, a->list[k], rank) || (k && a->list[k] <= a->list[k - 1]))
            return wrong(i, "axes are not ascending within rank %u", (unsigned)rank);
    return true;
}

static bool shape_REDUCE(struct inference *i)
{
    const struct node *a = operand(i, 0);
    if (!ascending_axes(i, a->rank))
        return false;
    i->rank = 0;
    for (uint32_t k = 0, next = 0; k < a->rank; k++) {
        bool reduced = next < i->node->attribute.list_count && i->node->attribute.list[next] == (int32_t)k;
        next += reduced;
        if (!reduced)
            i->shape[i->rank++] = a->shape[k];
    }
    return true;
}

static bool shape_DOT(struct inference *i)
{
    const struct node *l = operand(i, 0), *r = operand(i, 1);
    int64_t nbatch = i->node->attribute.nbatch, ncontract = i->node->attribute.ncontract;
    if (nbatch < 0 || ncontract < 0 || nbatch + ncontract > l->rank || nbatch + ncontract > r->rank)
        return wrong(i, "%lld batch and %lld contracting axes of ranks %u and %u", (long long)nbatch,
                     (long long)ncontract, (unsigned)l->rank, (unsigned)r->rank);
    uint32_t b = (uint32_t)nbatch, c = (uint32_t)ncontract, m = l->rank - b - c, n = r->rank - b - c;
    if (b + m + n > MAX_RANK)
        return wrong(i, "result of rank %u (limit is %d)", (unsigned)(b + m + n), MAX_RANK);
    for (uint32_t k = 0; k < b; k++)
        if (!extents_agree(i, l->shape[k], r->shape[k], "batch axis", k))
            return false;
    for (uint32_t k = 0; k < c; k++)
        if (!extents_agree(i, l->shape[b + m + k], r->shape[b + n + k], "contracting axis", k))
            return false;
    take_shape(i, b + m, l->shape);
    memcpy(i->shape + b + m, r->shape + b, n * sizeof *i->shape);
    i->rank += n;
    return true;
}

static bool shape_GATHER(struct inference *i)
{
    const struct node *a = operand(i, 0), *x = operand(i, 1);
    const struct attribute *attribute = &i->node->attribute;
    int64_t nbatch = attribute->nbatch;
    if (!dtype_is_int(x->dtype))
        return wrong(i, "indices of type %s", dtype_name(x->dtype));
    if (!axis_in(i, attribute->axis, a->rank))
        return false;
    if (nbatch < 0 || nbatch > attribute->axis || nbatch > x->rank)
        return wrong(i, "%lld batch axes before axis %d", (long long)nbatch, attribute->axis);
    if (attribute->dims_count > 2)
        return wrong(i, "takes at most two dims");
    uint32_t b = (uint32_t)nbatch, axis = (uint32_t)attribute->axis;
    for (uint32_t k = 0; k < b; k++)
        if (!extents_agree(i, a->shape[k], x->shape[k], "batch axis", k))
            return false;
    if (a->rank - 1 + x->rank - b > MAX_RANK)
        return wrong(i, "result of rank %u (limit is %d)", (unsigned)(a->rank - 1 + x->rank - b), MAX_RANK);
    take_shape(i, axis, a->shape);
    for (uint32_t k = b; k < x->rank; k++)
        i->shape[i->rank++] = x->shape[k];
    for (uint32_t k = axis + 1; k < a->rank; k++)
        i->shape[i->rank++] = a->shape[k];
    return true;
}

static bool shape_SCATTER(struct inference *i)
{
    const struct node *a = operand(i, 0), *updates = operand(i, 2);
    if (!shape_GATHER(i))
        return false;
    if (updates->dtype != a->dtype)
        return wrong(i, "updates of type %s into %s", dtype_name(updates->dtype), dtype_name(a->dtype));
    struct node wanted = {.rank = i->rank, .shape = i->shape};
    if (!shapes_agree(i, &wanted, updates))
        return false;
    take_shape(i, a->rank, a->shape);
    return true;
}

/* ---- layout ---- */

static bool shape_RESHAPE(struct inference *i)
{
    struct dims *t = i->graph->dims;
    const struct node *a = operand(i, 0), *n = i->node;
    dim from = dim_product(t, a->shape, a->rank), to = dim_product(t, n->shape, n->rank);
    if (!dim_valid(from) || !dim_valid(to))
        return wrong(i, "too many elements");
    return extents_agree(i, from, to, "product of all axes from", 0) && shape_GIVEN(i);
}

static bool shape_TRANSPOSE(struct inference *i)
{
    const struct node *a = operand(i, 0);
    const struct attribute *attribute = &i->node->attribute;
    uint32_t seen = 0;
    if (attribute->list_count != a->rank)
        return wrong(i, "permutation of %u axes for rank %u", (unsigned)attribute->list_count, (unsigned)a->rank);
    i->rank = a->rank;
    for (uint32_t k = 0; k < a->rank; k++) {
        int32_t axis = attribute->list[k];
        if (!axis_in(i, axis, a->rank))
            return false;
        if (seen >> axis & 1)
            return wrong(i, "axis %d twice", axis);
        seen |= 1u << axis;
        i->shape[k] = a->shape[axis];
    }
    return true;
}

static bool shape_BROADCAST(struct inference *i)
{
    const struct node *a = operand(i, 0), *n = i->node;
    if (n->attribute.list_count != a->rank)
        return wrong(i, "%u axes for rank %u", (unsigned)n->attribute.list_count, (unsigned)a->rank);
    if (!ascending_axes(i, n->rank))
        return false;
    for (uint32_t k = 0; k < a->rank; k++)
        if (!dim_is(i->graph->dims, a->shape[k], 1) &&
            !extents_agree(i, a->shape[k], n->shape[n->attribute.list[k]], "axis", k))
            return false;
    return shape_GIVEN(i);
}

static bool shape_SLICE(struct inference *i)
{
    struct dims *t = i->graph->dims;
    const struct node *a = operand(i, 0), *n = i->node;
    const struct attribute *at = &n->attribute;
    if (n->rank != a->rank || at->dims_count != a->rank || at->list_count != a->rank)
        return wrong(i, "needs start, size and step for each of %u axes", (unsigned)a->rank);
    for (uint32_t k = 0; k < a->rank; k++) {
        if (at->list[k] < 1)
            return wrong(i, "step %d", at->list[k]);
        if (!dim_valid(at->dims[k]) || provably_negative(i, at->dims[k]))
            return wrong(i, "start of axis %u is negative or too large", (unsigned)k);
        dim steps = dim_mul(t, dim_sub(t, n->shape[k], dim_const(t, 1)), dim_const(t, at->list[k]));
        dim last = dim_resolve(t, dim_add(t, at->dims[k], steps));
        if (dim_lower(t, n->shape[k]) > 0 && dim_provably_ge(t, last, dim_resolve(t, a->shape[k])))
            return wrong(i, "axis %u ends behind its operand", (unsigned)k);
    }
    return shape_GIVEN(i);
}

static bool shape_CONCAT(struct inference *i)
{
    const struct node *first = operand(i, 0);
    if (!axis_in(i, i->node->attribute.axis, first->rank))
        return false;
    uint32_t axis = (uint32_t)i->node->attribute.axis;
    take_shape(i, first->rank, first->shape);
    for (uint32_t k = 1; k < i->node->operand_count; k++) {
        const struct node *n = operand(i, k);
        if (n->rank != first->rank)
            return wrong(i, "operands of rank %u and %u", (unsigned)first->rank, (unsigned)n->rank);
        for (uint32_t d = 0; d < n->rank; d++)
            if (d != axis && !extents_agree(i, first->shape[d], n->shape[d], "axis", d))
                return false;
        i->shape[axis] = dim_add(i->graph->dims, i->shape[axis], n->shape[axis]);
    }
    return true;
}

static bool shape_PAD(struct inference *i)
{
    struct dims *t = i->graph->dims;
    const struct node *a = operand(i, 0), *fill = operand(i, 1), *n = i->node;
    if (fill->rank != 0 || fill->dtype != a->dtype)
        return wrong(i, "fills %s with a value of type %s and rank %u", dtype_name(a->dtype), dtype_name(fill->dtype),
                     (unsigned)fill->rank);
    if (n->rank != a->rank || n->attribute.dims_count != a->rank)
        return wrong(i, "needs a number for each of %u axes", (unsigned)a->rank);
    for (uint32_t k = 0; k < a->rank; k++) {
        dim before = n->attribute.dims[k];
        dim after = dim_sub(t, n->shape[k], dim_add(t, before, a->shape[k]));
        if (!dim_valid(before) || provably_negative(i, before) || provably_negative(i, after))
            return wrong(i, "axis %u is padded by less than nothing", (unsigned)k);
    }
    return shape_GIVEN(i);
}

static bool shape_WINDOW(struct inference *i)
{
    struct dims *t = i->graph->dims;
    const struct node *a = operand(i, 0);
    const struct attribute *at = &i->node->attribute;
    if (!axis_in(i, at->axis, a->rank))
        return false;
    if (at->list_count != 3 || at->list[0] < 1 || at->list[1] < 1 || at->list[2] < 1)
        return wrong(i, "needs size, stride and dilation, all at least 1");
    if (a->rank == MAX_RANK)
        return wrong(i, "result of rank %d (limit is %d)", MAX_RANK + 1, MAX_RANK);
    uint32_t axis = (uint32_t)at->axis;
    int64_t span = ((int64_t)at->list[0] - 1) * at->list[2] + 1; /* elements under one window */
    dim places = dim_div(t, dim_add(t, a->shape[axis], dim_const(t, at->list[1] - span)), dim_const(t, at->list[1]));
    take_shape(i, axis, a->shape);
    i->shape[axis] = dim_max(t, dim_const(t, 0), places);
    i->shape[axis + 1] = dim_const(t, at->list[0]);
    for (uint32_t k = axis + 1; k < a->rank; k++)
        i->shape[k + 1] = a->shape[k];
    i->rank = a->rank + 1;
    return true;
}

/* ---- along an axis; composites ---- */

static bool shape_TOPK(struct inference *i)
{
    const struct node *a = operand(i, 0), *n = i->node;
    if (!axis_in(i, n->attribute.axis, a->rank))
        return false;
    if (n->rank != a->rank)
        return wrong(i, "shape of rank %u for rank %u", (unsigned)n->rank, (unsigned)a->rank);
    take_shape(i, a->rank, a->shape);
    i->shape[n->attribute.axis] = n->shape[n->attribute.axis];
    return true;
}

static bool shape_CROSS_ENTROPY(struct inference *i)
{
    const struct node *logits = operand(i, 0), *labels = operand(i, 1);
    if (!dtype_is_int(labels->dtype) || logits->rank == 0)
        return wrong(i, "logits of rank %u, labels of type %s", (unsigned)logits->rank, dtype_name(labels->dtype));
    struct node rows = {.rank = logits->rank - 1, .shape = logits->shape};
    if (!shapes_agree(i, &rows, labels))
        return false;
    take_shape(i, rows.rank, rows.shape);
    return true;
}

/* ---- collectives ---- */

/* Replaces outer * `from` * inner on `axis` by outer * `to` * inner. */
static bool exchange(struct inference *i, int64_t axis, const dim *around, dim from, dim to)
{
    struct dims *t = i->graph->dims;
    if (!axis_in(i, axis, i->rank))
        return false;
    dim both = dim_mul(t, around[0], around[1]);
    if (!extents_agree(i, i->shape[axis], dim_mul(t, both, from), "axis", (uint32_t)axis))
        return false;
    i->shape[axis] = dim_mul(t, both, to);
    return true;
}

static bool known_partition(struct inference *i, int64_t partition)
{
    return (partition > 0 && partition < (int64_t)i->graph->partitions.count) ||
           wrong(i, "partition %lld of %u", (long long)partition, (unsigned)i->graph->partitions.count);
}

/* On the result so far: drop what is not owned, or gather it. */
static bool cut(struct inference *i, int64_t axis, const dim *around, int64_t partition, bool gather)
{
    if (!known_partition(i, partition))
        return false;
    uint32_t p = (uint32_t)partition;
    dim whole = i->graph->partitions.at[p].extent, mine = partition_size(i->graph, p);
    return exchange(i, axis, around, gather ? mine : whole, gather ? whole : mine);
}

static bool cut_operand(struct inference *i, bool gather)
{
    const struct attribute *a = &i->node->attribute;
    take_shape(i, operand(i, 0)->rank, operand(i, 0)->shape);
    return a->dims_count == 2 ? cut(i, a->axis, a->dims, a->partition, gather)
                              : wrong(i, "needs outer and inner extent");
}

static bool shape_RESTRICT(struct inference *i)
{
    return cut_operand(i, false);
}
static bool shape_ALL_GATHER(struct inference *i)
{
    return cut_operand(i, true);
}
static bool shape_ALL_TO_ALL(struct inference *i)
{
    const struct attribute *a = &i->node->attribute;
    take_shape(i, operand(i, 0)->rank, operand(i, 0)->shape);
    if (a->dims_count != 4 || a->list_count != 2)
        return wrong(i, "needs outer and inner extents of both axes, the other axis and its partition");
    return cut(i, a->axis, a->dims, a->partition, true) && cut(i, a->list[0], a->dims + 2, a->list[1], false);
}

/* ---- types ---- */

enum type_rule { TYPE_NONE, TYPE_SAME, TYPE_BOOL, TYPE_GIVEN, TYPE_SECOND, TYPE_I64 };
enum {
    IN_BOOL = 1,
    IN_INT = 2,
    IN_FLOAT = 4,
    IN_NUMBER = IN_INT | IN_FLOAT,
    IN_BITS = IN_BOOL | IN_INT,
    IN_ANY = 7,
    IN_STORED = 8
};

/* Which types operand 0 may have. */
static int accepted(op o)
{
    switch ((int)o) {
    case OP_EXP:
    case OP_LOG:
    case OP_LOG1P:
    case OP_EXPM1:
    case OP_SQRT:
    case OP_RECIP:
    case OP_SIN:
    case OP_COS:
    case OP_TAN:
    case OP_ASIN:
    case OP_ACOS:
    case OP_ATAN:
    case OP_SINH:
    case OP_COSH:
    case OP_ASINH:
    case OP_ACOSH:
    case OP_ATANH:
    case OP_ERF:
    case OP_TANH:
    case OP_FLOOR:
    case OP_CEIL:
    case OP_ROUND:
    case OP_ISNAN:
    case OP_ISINF:
    case OP_CROSS_ENTROPY:
        return IN_FLOAT;
    case OP_NEG:
    case OP_ABS:
    case OP_SIGN:
    case OP_ADD:
    case OP_SUB:
    case OP_MUL:
    case OP_DIV:
    case OP_POW:
    case OP_MOD:
    case OP_REDUCE_SUM:
    case OP_REDUCE_PROD:
    case OP_DOT:
    case OP_CUMSUM:
    case OP_IOTA:
        return IN_NUMBER;
    case OP_NOT:
    case OP_AND:
    case OP_OR:
    case OP_XOR:
        return IN_BITS;
    case OP_SHL:
    case OP_SHR:
        return IN_INT;
    case OP_SELECT:
        return IN_BOOL;
    default:
        return IN_ANY;
    }
}

/* Types of few bits are kept, moved and converted; nothing is computed in them. */
static bool accepts_stored(const struct node *n)
{
    const struct op_info *row = op_info(n->op);
    return row->class == CLASS_LAYOUT || row->class == CLASS_COLLECTIVE || row->class == CLASS_LEAF ||
           n->op == OP_GATHER || n->op == OP_SELECT || n->op == OP_CAST || n->op == OP_BITCAST ||
           n->op == OP_COUNT_ONCE || (n->op == OP_SCATTER && (n->attribute.mode & 7) == SCATTER_SET);
}

static bool types_agree(struct inference *i, uint32_t from)
{
    for (uint32_t k = from + 1; k < i->node->operand_count; k++)
        if (operand(i, k)->dtype != operand(i, from)->dtype)
            return wrong(i, "operands of types %s and %s", dtype_name(operand(i, from)->dtype),
                         dtype_name(operand(i, k)->dtype));
    return true;
}

static bool infer_type(struct inference *i, enum type_rule rule)
{
    const struct node *n = i->node;
    dtype first = n->operand_count ? operand(i, 0)->dtype : n->dtype;
    int class = first == DT_BOOL ? IN_BOOL : dtype_is_int(first) ? IN_INT : IN_FLOAT;
    bool taken = dtype_is_stored(first) ? accepts_stored(n) : (accepted(n->op) & class) != 0;
    if (n->op != OP_DIM && !taken)
        return wrong(i, "is not defined for %s", dtype_name(first));
    /* gather, scatter, pad and cross entropy have operands of several types, which their shape rules check */
    op_class row = op_info(n->op)->class;
    bool uniform = row == CLASS_POINTWISE || row == CLASS_DOT || n->op == OP_CONCAT;
    switch (rule) {
    case TYPE_SAME:
    case TYPE_BOOL:
        i->dtype = rule == TYPE_BOOL ? DT_BOOL : first;
        return !uniform || types_agree(i, 0);
    case TYPE_SECOND:
        i->dtype = operand(i, 1)->dtype;
        return types_agree(i, 1);
    case TYPE_GIVEN:
        i->dtype = n->dtype;
        if (i->dtype <= DT_NONE || i->dtype >= DT_COUNT)
            return wrong(i, "has no type");
        return n->op != OP_BITCAST || dtype_bits(i->dtype) == dtype_bits(first) ||
               wrong(i, "from %s to %s, which have not as many bits", dtype_name(first), dtype_name(i->dtype));
    case TYPE_I64:
        i->dtype = DT_I64;
        return true;
    case TYPE_NONE:
        break;
    }
    return wrong(i, "has no type rule");
}

static const struct {
    bool (*shape)(struct inference *i);
    enum type_rule type;
} rules[OP_COUNT] = {
#define OP(id, text, arity, attributes, shape, type, rule, linear, class) [OP_##id] = {shape_##shape, TYPE_##type},
#include "ir/ops.def"
#undef OP
};

bool op_infer(struct inference *i)
{
    const struct node *n = i->node;
    i->why[0] = '\0';
    if (n->op <= OP_NONE || n->op >= OP_COUNT)
        return wrong(i, "is no operation");
    int arity = op_info(n->op)->arity;
    if (arity == OP_ANY ? n->operand_count == 0 : n->operand_count != (uint32_t)arity)
        return wrong(i, "has %u operands", (unsigned)n->operand_count);
    if (n->rank > MAX_RANK)
        return wrong(i, "of rank %u (limit is %d)", (unsigned)n->rank, MAX_RANK);
    return infer_type(i, rules[n->op].type) && rules[n->op].shape(i);
}
