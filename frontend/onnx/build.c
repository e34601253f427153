/* frontend/onnx/build.c - core operations with numpy's broadcasting, and the composites that several families share.
 *
 * A composite here is the same sequence of core operations that exporters write out (softmax: max, sub, exp, sum, div), so that a
 * model gives one graph whether it names the composite or spells it.
 */
#include "frontend/onnx/import.h"

const dim *call_shape(struct call *c, value v)
{
    return graph_node(c->g, v)->shape;
}

uint32_t call_rank(struct call *c, value v)
{
    return graph_node(c->g, v)->rank;
}

dtype call_type(struct call *c, value v)
{
    return graph_node(c->g, v)->dtype;
}

/* ---- broadcasting ------------------------------------------------------------------------------------------- */

/* v with extents that a guard holds equal to `shape`'s but could not rewrite, renamed to them: a slice that keeps everything. */
static value rename_extents(struct call *c, value v, uint32_t rank, const dim *shape)
{
    uint32_t own = call_rank(c, v);
    dim size[MAX_RANK], start[MAX_RANK];
    bool differ = false;
    for (uint32_t k = 0; k < own; k++) {
        dim is = call_shape(c, v)[k], wanted = shape[rank - own + k];
        start[k] = call_const(c, 0);
        size[k] = dim_is(c->t, is, 1) ? is : wanted;
        differ = differ || size[k] != is;
    }
    return differ ? graph_slice(c->g, v, start, size, NULL) : v;
}

value build_expand(struct call *c, value v, uint32_t rank, const dim *shape)
{
    return graph_broadcast_to(c->g, rename_extents(c, v, rank, shape), rank, shape);
}

value build_both(struct call *c, op o, value a, value b)
{
    dim shape[MAX_RANK];
    uint32_t rank = call_rank(c, a);
    if (call_type(c, a) != call_type(c, b))
        call_fail(c, "operand types differ: %s and %s", dtype_name(call_type(c, a)), dtype_name(call_type(c, b)));
    dims_copy(shape, call_shape(c, a), rank);
    rank = call_broadcast(c, rank, shape, call_rank(c, b), call_shape(c, b));
    a = build_expand(c, a, rank, shape);
    b = build_expand(c, b, rank, shape);
    return graph_binary(c->g, o, a, b);
}

value build_choose(struct call *c, value condition, value a, value b)
{
    dim shape[MAX_RANK];
    uint32_t rank = call_rank(c, condition);
    if (call_type(c, a) != call_type(c, b))
        call_fail(c, "operand types differ: %s and %s", dtype_name(call_type(c, a)), dtype_name(call_type(c, b)));
    dims_copy(shape, call_shape(c, condition), rank);
    rank = call_broadcast(c, rank, shape, call_rank(c, a), call_shape(c, a));
    rank = call_broadcast(c, rank, shape, call_rank(c, b), call_shape(c, b));
    condition = build_expand(c, condition, rank, shape);
    a = build_expand(c, a, rank, shape);
    b = build_expand(c, b, rank, shape);
    return graph_select(c->g, condition, a, b);
}

value build_real(struct call *c, dtype type, double x)
{
    if (dtype_is_float(type))
        return graph_scalar_f64(c->g, type, x);
    int64_t whole = x > -9e18 && x < 9e18 ? (int64_t)x : x > 0 ? INT64_MAX : x < 0 ? INT64_MIN : 0;
    return graph_scalar_i64(c->g, type, whole);
}

value build_with(struct call *c, op o, value a, double x)
{
    return build_both(c, o, a, build_real(c, call_type(c, a), x));
}

value build_full(struct call *c, dtype type, double x, uint32_t rank, const dim *shape)
{
    return graph_broadcast_to(c->g, build_real(c, type, x), rank, shape);
}

/* ---- reductions --------------------------------------------------------------------------------------------- */

value build_reduce(struct call *c, op o, value v, uint32_t count, const int32_t *axes, bool keep)
{
    dim shape[MAX_RANK];
    uint32_t rank = call_rank(c, v);
    dims_copy(shape, call_shape(c, v), rank);
    if (count == 0)
        return v;
    value r = graph_reduce(c->g, o, v, count, axes);
    for (uint32_t i = 0; i < count; i++)
        shape[axes[i]] = call_const(c, 1);
    return keep ? graph_reshape(c->g, r, rank, shape) : r;
}

value build_mean(struct call *c, value v, uint32_t count, const int32_t *axes, bool keep)
{
    dim n = call_const(c, 1);
    int64_t constant = 0;
    dtype type = call_type(c, v);
    for (uint32_t i = 0; i < count; i++)
        n = dim_mul(c->t, n, call_shape(c, v)[axes[i]]);
    value sum = build_reduce(c, OP_REDUCE_SUM, v, count, axes, keep);
    value number = dim_is_const(c->t, n, &constant) ? build_real(c, type, (double)constant)
                                                    : graph_cast(c->g, graph_dim(c->g, n), type);
    return build_both(c, OP_DIV, sum, number);
}

value build_softmax(struct call *c, value x, uint32_t first, uint32_t count, bool logarithm)
{
    int32_t axes[MAX_RANK];
    for (uint32_t i = 0; i < count; i++)
        axes[i] = (int32_t)(first + i);
    value shifted = build_both(c, OP_SUB, x, build_reduce(c, OP_REDUCE_MAX, x, count, axes, true));
    value e = graph_unary(c->g, OP_EXP, shifted);
    value sum = build_reduce(c, OP_REDUCE_SUM, e, count, axes, true);
    if (logarithm)
        return build_both(c, OP_SUB, shifted, graph_unary(c->g, OP_LOG, sum));
    return build_both(c, OP_DIV, e, sum);
}

/* ---- layout ------------------------------------------------------------------------------------------------- */

/* A reshape of a reshape is one from where the first began: exporters merge axes and split them again. */
value build_reshape(struct call *c, value v, uint32_t rank, const dim *shape)
{
    while (graph_node(c->g, v)->op == OP_RESHAPE)
        v = graph_node(c->g, v)->operand[0];
    return graph_reshape(c->g, v, rank, shape);
}

/* Files may give an operand fewer axes than its operator needs. */
static void require_axis(struct call *c, value v, uint32_t axis)
{
    if (axis >= call_rank(c, v))
        call_fail(c, "an operand has %u axes, more are needed", call_rank(c, v));
}

value build_unsqueeze(struct call *c, value v, uint32_t axis)
{
    dim shape[MAX_RANK];
    uint32_t rank = call_rank(c, v);
    if (axis > rank || rank == MAX_RANK)
        call_fail(c, "an operand has %u axes", rank);
    for (uint32_t k = 0; k <= rank; k++)
        shape[k] = k == axis ? call_const(c, 1) : call_shape(c, v)[k < axis ? k : k - 1];
    return build_reshape(c, v, rank + 1, shape);
}

value build_squeeze(struct call *c, value v, uint32_t axis)
{
    dim shape[MAX_RANK];
    uint32_t rank = call_rank(c, v);
    require_axis(c, v, axis);
    for (uint32_t k = 0; k + 1 < rank; k++)
        shape[k] = call_shape(c, v)[k < axis ? k : k + 1];
    return build_reshape(c, v, rank - 1, shape);
}

value build_move_axis(struct call *c, value v, uint32_t from, uint32_t to)
{
    int32_t permutation[MAX_RANK];
    uint32_t rank = call_rank(c, v), source = 0;
    require_axis(c, v, from);
    require_axis(c, v, to);
    for (uint32_t k = 0; k < rank; k++) {
        if (k == to) {
            permutation[k] = (int32_t)from;
            continue;
        }
        source += source == from;
        permutation[k] = (int32_t)source++;
    }
    return graph_transpose(c->g, v, permutation);
}

value build_swap_last(struct call *c, value v)
{
    uint32_t rank = call_rank(c, v);
    require_axis(c, v, 1);
    return build_move_axis(c, v, rank - 1, rank - 2);
}

value build_slice_axis(struct call *c, value v, uint32_t axis, dim start, dim size)
{
    require_axis(c, v, axis);
    if (size == call_shape(c, v)[axis] && dim_is(c->t, start, 0))
        return v;
    return graph_slice_axis(c->g, v, axis, start, size);
}

/* ---- products ----------------------------------------------------------------------------------------------- */

/* Drops leading axes of extent 1 down to `rank` axes; false when one is not 1. */
static bool drop_leading(struct call *c, value *v, uint32_t rank)
{
    uint32_t own = call_rank(c, *v);
    for (uint32_t k = 0; k + rank < own; k++)
        if (!dim_is(c->t, call_shape(c, *v)[k], 1))
            return false;
    *v = graph_reshape(c->g, *v, rank, call_shape(c, *v) + (own - rank));
    return true;
}

/* Both with the same batch axes: all but the last two. */
static uint32_t align_batch(struct call *c, value *a, value *b)
{
    dim batch[MAX_RANK], shape[MAX_RANK];
    uint32_t ra = call_rank(c, *a) - 2, rb = call_rank(c, *b) - 2;
    dims_copy(batch, call_shape(c, *a), ra);
    uint32_t rank = call_broadcast(c, ra, batch, rb, call_shape(c, *b));
    dims_copy(shape, batch, rank);
    dims_copy(shape + rank, call_shape(c, *a) + ra, 2);
    *a = build_expand(c, *a, rank + 2, shape);
    dims_copy(shape + rank, call_shape(c, *b) + rb, 2);
    *b = build_expand(c, *b, rank + 2, shape);
    return rank;
}

value build_matmul(struct call *c, value a, value b)
{
    uint32_t ra = call_rank(c, a), rb = call_rank(c, b);
    if (ra == 0 || rb == 0)
        call_fail(c, "a scalar has no matrix product");
    call_agree(c, call_shape(c, a)[ra - 1], call_shape(c, b)[rb == 1 ? 0 : rb - 2], "inner dimensions");
    if (rb == 1)
        return graph_dot(c->g, a, b, 0, 1);
    value rows = build_swap_last(c, b); /* [batch.., n, k] */
    if (ra == 1)
        return graph_dot(c->g, rows, a, 0, 1);
    if (drop_leading(c, &rows, 2)) {
        dim shape[MAX_RANK];
        for (uint32_t k = 0; k < rb; k++)
            shape[k] = k + ra < rb ? call_const(c, 1) : call_shape(c, a)[k + ra - rb];
        return graph_dot(c->g, rb > ra ? graph_reshape(c->g, a, rb, shape) : a, rows, 0, 1);
    }
    uint32_t batch = align_batch(c, &a, &rows);
    return graph_dot(c->g, a, rows, batch, 1);
}
