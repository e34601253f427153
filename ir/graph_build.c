/* ir/graph_build.c - adding nodes to a Graph. All builders end in graph_add, which derives shape and type by the row's rules (op_infer.c).
 *
 * A call that the rules refuse is a bug of the caller, which has looked at the operands: the process ends, with the rule's words (or
 * g->refuse leaves). */
#include "ir/graph.h"
#include "ir/op_infer.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

TPC_NORETURN static void refuse(const struct inference *i)
{
    struct graph *g = i->graph;
    if (g->refuse)
        g->refuse(g->refuse_context, arena_printf(g->arena, "%s: %s", op_info(i->node->op)->text, i->why));
    fprintf(stderr, "%s: internal error: %s: %s\n", origin_text(g, g->origin, g->arena), op_info(i->node->op)->text,
            i->why);
    abort();
}

static const void *keep(struct graph *g, const void *list, size_t size)
{
    return size ? arena_copy(g->arena, list, size) : NULL;
}

/* Lists become the graph's own; shape and dims are resolved. */
static value append(struct graph *g, const struct node *n, const struct inference *i)
{
    struct node kept = *n;
    dim *shape = i->rank ? arena_copy(g->arena, i->shape, i->rank * sizeof *i->shape) : NULL;
    for (uint32_t k = 0; k < i->rank; k++)
        shape[k] = dim_resolve(g->dims, shape[k]);
    dim *dims = (dim *)keep(g, n->attribute.dims, n->attribute.dims_count * sizeof *dims);
    for (uint32_t k = 0; k < n->attribute.dims_count; k++)
        dims[k] = dim_resolve(g->dims, dims[k]);
    kept.dtype = i->dtype;
    kept.rank = i->rank;
    kept.shape = shape;
    kept.operand = keep(g, n->operand, n->operand_count * sizeof *n->operand);
    kept.attribute.dims = dims;
    kept.attribute.list = keep(g, n->attribute.list, n->attribute.list_count * sizeof *n->attribute.list);
    kept.origin = g->origin;
    *PUSH(g->arena, &g->nodes) = kept;
    return g->nodes.count - 1;
}

value graph_add(struct graph *g, op o, dtype type, uint32_t rank, const dim *shape, uint32_t operands,
                const value *operand, const struct attribute *attribute)
{
    struct node n = {
        .op = o, .dtype = type, .rank = rank, .shape = shape, .operand_count = operands, .operand = operand};
    struct inference i = {.graph = g, .node = &n};
    if (attribute)
        n.attribute = *attribute;
    for (uint32_t k = 0; k < operands; k++)
        if (operand[k] == 0 || operand[k] >= g->nodes.count) {
            snprintf(i.why, sizeof i.why, "operand %u is no value", (unsigned)k);
            refuse(&i);
        }
    if (!op_infer(&i))
        refuse(&i);
    return append(g, &n, &i);
}

/* ---- leaves ---- */

value graph_input(struct graph *g, const char *name, dtype type, uint32_t rank, const dim *shape)
{
    struct attribute a = {.index = g->inputs.count};
    value v = graph_add(g, OP_INPUT, type, rank, shape, 0, NULL, &a);
    *PUSH(g->arena, &g->inputs) = (struct graph_input){name, v};
    return v;
}

void graph_output(struct graph *g, const char *name, value v)
{
    assert(v > 0 && v < g->nodes.count);
    *PUSH(g->arena, &g->outputs) = (struct graph_output){name, v};
}

static void const_shape(struct graph *g, uint32_t rank, const int64_t *extent, dim *shape)
{
    assert(rank <= MAX_RANK);
    for (uint32_t k = 0; k < rank; k++)
        shape[k] = dim_const(g->dims, extent[k]);
}

value graph_param(struct graph *g, uint32_t param)
{
    const struct param *p = &g->params.at[param];
    struct attribute a = {.index = param};
    dim shape[MAX_RANK];
    const_shape(g, p->rank, p->shape, shape);
    return graph_add(g, OP_PARAM, p->dtype, p->rank, shape, 0, NULL, &a);
}

value graph_constant(struct graph *g, dtype type, uint32_t rank, const int64_t *extent, const void *data)
{
    dim shape[MAX_RANK];
    size_t size = dtype_size(type);
    const_shape(g, rank, extent, shape);
    for (uint32_t k = 0; k < rank; k++)
        if (extent[k] < 0 || !size_mul(size, (size_t)extent[k], &size))
            guard_out_of_memory(SIZE_MAX);
    struct attribute a = {.data = keep(g, data, size), .data_size = size};
    return graph_add(g, OP_CONSTANT, type, rank, shape, 0, NULL, &a);
}

value graph_scalar_f64(struct graph *g, dtype type, double x)
{
    uint64_t element = 0;
    dtype_store_f64(type, &element, 0, x);
    return graph_constant(g, type, 0, NULL, &element);
}

value graph_scalar_i64(struct graph *g, dtype type, int64_t x)
{
    uint64_t element = 0;
    dtype_store_i64(type, &element, 0, x);
    return graph_constant(g, type, 0, NULL, &element);
}

value graph_dim(struct graph *g, dim d)
{
    struct attribute a = {.dims = &d, .dims_count = 1};
    return graph_add(g, OP_DIM, DT_I64, 0, NULL, 0, NULL, &a);
}

value graph_iota(struct graph *g, dtype type, uint32_t rank, const dim *shape, uint32_t axis)
{
    struct attribute a = {.axis = (int32_t)axis};
    assert(axis < rank);
    return graph_add(g, OP_IOTA, type, rank, shape, 0, NULL, &a);
}

/* ---- pointwise ---- */

value graph_unary(struct graph *g, op o, value a)
{
    return graph_add(g, o, DT_NONE, 0, NULL, 1, &a, NULL);
}

value graph_binary(struct graph *g, op o, value a, value b)
{
    const value operand[] = {a, b};
    return graph_add(g, o, DT_NONE, 0, NULL, 2, operand, NULL);
}

value graph_select(struct graph *g, value condition, value a, value b)
{
    const value operand[] = {condition, a, b};
    return graph_add(g, OP_SELECT, DT_NONE, 0, NULL, 3, operand, NULL);
}

value graph_cast(struct graph *g, value a, dtype to)
{
    return graph_node(g, a)->dtype == to ? a : graph_add(g, OP_CAST, to, 0, NULL, 1, &a, NULL);
}

value graph_bitcast(struct graph *g, value a, dtype to)
{
    return graph_add(g, OP_BITCAST, to, 0, NULL, 1, &a, NULL);
}

/* ---- reductions, dot, gather, scatter ---- */

value graph_reduce(struct graph *g, op o, value a, uint32_t count, const int32_t *axes)
{
    int32_t sorted[MAX_RANK];
    assert(count <= MAX_RANK);
    if (count == 0)
        return a;
    for (uint32_t i = 0; i < count; i++) {
        uint32_t at = i;
        for (; at > 0 && sorted[at - 1] > axes[i]; at--)
            sorted[at] = sorted[at - 1];
        sorted[at] = axes[i];
    }
    struct attribute attribute = {.list = sorted, .list_count = count};
    return graph_add(g, o, DT_NONE, 0, NULL, 1, &a, &attribute);
}

value graph_dot(struct graph *g, value lhs, value rhs, uint32_t nbatch, uint32_t ncontract)
{
    const value operand[] = {lhs, rhs};
    struct attribute a = {.nbatch = (int32_t)nbatch, .ncontract = (int32_t)ncontract};
    return graph_add(g, OP_DOT, DT_NONE, 0, NULL, 2, operand, &a);
}

value graph_gather(struct graph *g, value operand, value indices, uint32_t axis, uint32_t nbatch)
{
    const value both[] = {operand, indices};
    struct attribute a = {.axis = (int32_t)axis, .nbatch = (int32_t)nbatch};
    return graph_add(g, OP_GATHER, DT_NONE, 0, NULL, 2, both, &a);
}

value graph_scatter(struct graph *g, value operand, value indices, value updates, uint32_t axis, uint32_t nbatch,
                    int32_t mode)
{
    const value all[] = {operand, indices, updates};
    struct attribute a = {.axis = (int32_t)axis, .nbatch = (int32_t)nbatch, .mode = mode};
    return graph_add(g, OP_SCATTER, DT_NONE, 0, NULL, 3, all, &a);
}

/* ---- layout ---- */

static bool shape_is(struct graph *g, value a, uint32_t rank, const dim *shape)
{
    const struct node *n = graph_node(g, a);
    if (n->rank != rank)
        return false;
    for (uint32_t k = 0; k < rank; k++)
        if (!extent_same(g, n->shape[k], shape[k]))
            return false;
    return true;
}

value graph_reshape(struct graph *g, value a, uint32_t rank, const dim *shape)
{
    return shape_is(g, a, rank, shape) ? a : graph_add(g, OP_RESHAPE, DT_NONE, rank, shape, 1, &a, NULL);
}

value graph_transpose(struct graph *g, value a, const int32_t *permutation)
{
    uint32_t rank = graph_node(g, a)->rank, fixed = 0;
    while (fixed < rank && permutation[fixed] == (int32_t)fixed)
        fixed++;
    struct attribute attribute = {.list = permutation, .list_count = rank};
    return fixed == rank ? a : graph_add(g, OP_TRANSPOSE, DT_NONE, 0, NULL, 1, &a, &attribute);
}

value graph_broadcast(struct graph *g, value a, uint32_t rank, const dim *shape, const int32_t *axes)
{
    struct attribute attribute = {.list = axes, .list_count = graph_node(g, a)->rank};
    return shape_is(g, a, rank, shape) ? a : graph_add(g, OP_BROADCAST, DT_NONE, rank, shape, 1, &a, &attribute);
}

value graph_broadcast_to(struct graph *g, value a, uint32_t rank, const dim *shape)
{
    uint32_t have = graph_node(g, a)->rank;
    int32_t axes[MAX_RANK];
    assert(have <= rank && rank <= MAX_RANK);
    for (uint32_t k = 0; k < have; k++)
        axes[k] = (int32_t)(rank - have + k);
    return graph_broadcast(g, a, rank, shape, axes);
}

value graph_slice(struct graph *g, value a, const dim *start, const dim *size, const int32_t *step)
{
    uint32_t rank = graph_node(g, a)->rank, whole = 0;
    int32_t ones[MAX_RANK];
    for (uint32_t k = 0; k < rank; k++)
        ones[k] = 1;
    step = step ? step : ones;
    while (whole < rank && dim_is(g->dims, start[whole], 0) && step[whole] == 1 &&
           extent_same(g, size[whole], graph_node(g, a)->shape[whole]))
        whole++;
    struct attribute attribute = {.dims = start, .dims_count = rank, .list = step, .list_count = rank};
    return whole == rank ? a : graph_add(g, OP_SLICE, DT_NONE, rank, size, 1, &a, &attribute);
}

value graph_slice_axis(struct graph *g, value a, uint32_t axis, dim start, dim size)
{
    const struct node *n = graph_node(g, a);
    dim starts[MAX_RANK], sizes[MAX_RANK];
    assert(axis < n->rank);
    for (uint32_t k = 0; k < n->rank; k++) {
        starts[k] = k == axis ? start : dim_const(g->dims, 0);
        sizes[k] = k == axis ? size : n->shape[k];
    }
    return graph_slice(g, a, starts, sizes, NULL);
}

value graph_concat(struct graph *g, uint32_t count, const value *part, uint32_t axis)
{
    struct attribute a = {.axis = (int32_t)axis};
    return count == 1 ? part[0] : graph_add(g, OP_CONCAT, DT_NONE, 0, NULL, count, part, &a);
}

value graph_pad(struct graph *g, value a, value scalar, const dim *before, const dim *shape)
{
    const value operand[] = {a, scalar};
    uint32_t rank = graph_node(g, a)->rank;
    struct attribute attribute = {.dims = before, .dims_count = rank};
    return graph_add(g, OP_PAD, DT_NONE, rank, shape, 2, operand, &attribute);
}

value graph_reverse(struct graph *g, value a, uint32_t count, const int32_t *axes)
{
    struct attribute attribute = {.list = axes, .list_count = count};
    return graph_add(g, OP_REVERSE, DT_NONE, 0, NULL, 1, &a, &attribute);
}

value graph_window(struct graph *g, value a, uint32_t axis, int32_t k, int32_t stride, int32_t dilation)
{
    const int32_t list[] = {k, stride, dilation};
    struct attribute attribute = {.axis = (int32_t)axis, .list = list, .list_count = 3};
    return graph_add(g, OP_WINDOW, DT_NONE, 0, NULL, 1, &a, &attribute);
}

/* ---- along an axis; composites ---- */

value graph_cumsum(struct graph *g, value a, uint32_t axis, bool exclusive, bool reverse)
{
    struct attribute attribute = {.axis = (int32_t)axis, .mode = (exclusive ? 1 : 0) | (reverse ? 2 : 0)};
    return graph_add(g, OP_CUMSUM, DT_NONE, 0, NULL, 1, &a, &attribute);
}

value graph_topk(struct graph *g, value a, uint32_t axis, dim k, bool smallest)
{
    const struct node *n = graph_node(g, a);
    struct attribute attribute = {.axis = (int32_t)axis, .mode = smallest};
    dim shape[MAX_RANK];
    assert(axis < n->rank);
    memcpy(shape, n->shape, n->rank * sizeof *shape);
    shape[axis] = k;
    return graph_add(g, OP_TOPK, DT_NONE, n->rank, shape, 1, &a, &attribute);
}

value graph_cross_entropy(struct graph *g, value logits, value labels)
{
    return graph_binary(g, OP_CROSS_ENTROPY, logits, labels);
}
