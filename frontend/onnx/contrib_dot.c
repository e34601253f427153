/* frontend/onnx/contrib_dot.c - com.microsoft's products that carry more: transposes, a factor, an activation, dynamic quantisation. */
#include "frontend/onnx/contrib.h"

/* Moves the first axis to the place before the last, then swaps the last two, each where asked. */
static value turned(struct call *c, value x, bool batch, bool swap)
{
    uint32_t rank = call_rank(c, x);
    if (rank < 2)
        return x;
    x = batch ? build_move_axis(c, x, 0, rank - 2) : x;
    return swap ? build_swap_last(c, x) : x;
}

static value fused_product(struct call *c)
{
    bool swap_a = attribute_int(c, "transA", 0) != 0, swap_b = attribute_int(c, "transB", 0) != 0;
    value a = turned(c, call_use(c, 0), attribute_int(c, "transBatchA", 0) != 0, swap_a);
    value b = turned(c, call_use(c, 1), attribute_int(c, "transBatchB", 0) != 0, swap_b);
    double alpha = attribute_real(c, "alpha", 1);
    value y = build_matmul(c, a, b);
    return alpha == 1 ? y : build_with(c, OP_MUL, y, alpha);
}

void lower_contrib_fusedmatmul(struct call *c)
{
    call_set(c, 0, contrib_activate(c, fused_product(c)));
}

/* The result of a plain lowering that ran before */
static value result_so_far(struct call *c)
{
    if (!call_wants(c, 0))
        call_fail(c, "has no output");
    return datum_use(c->im, c->out[0]);
}

void lower_contrib_fusedgemm(struct call *c)
{
    lower_gemm(c);
    call_set(c, 0, contrib_activate(c, result_so_far(c)));
}

/* Conv, plus input 3, activated */
void lower_contrib_fusedconv(struct call *c)
{
    lower_conv(c);
    value y = result_so_far(c);
    if (call_has(c, 3))
        y = build_both(c, OP_ADD, y, call_use(c, 3));
    call_set(c, 0, contrib_activate(c, y));
}

/* ---- integers under reals ----------------------------------------------------------------------------------- */

/* One number, or one per column: as it stands for [.., columns] */
static value per_column(struct call *c, value v)
{
    return call_rank(c, v) == 1 && dim_is(c->t, call_shape(c, v)[0], 1) ? build_reshape(c, v, 0, NULL) : v;
}

/* x - zero as i32 */
static value centred(struct call *c, value x, value zero)
{
    x = graph_cast(c->g, x, DT_I32);
    return zero ? build_both(c, OP_SUB, x, graph_cast(c->g, zero, DT_I32)) : x;
}

static value finished(struct call *c, value product, value scale, uint32_t bias)
{
    dtype type = call_type(c, scale);
    value y = build_both(c, OP_MUL, graph_cast(c->g, product, type), scale);
    return call_has(c, bias) ? build_both(c, OP_ADD, y, call_use(c, bias)) : y;
}

/* a as u8 over its own range, which holds 0: the numbers, their scale and zero point */
static value quantized(struct call *c, value a, value *scale, value *zero)
{
    uint32_t rank = call_rank(c, a);
    int32_t axes[MAX_RANK];
    dtype type = call_type(c, a);
    for (uint32_t k = 0; k < rank; k++)
        axes[k] = (int32_t)k;
    value low = build_with(c, OP_MIN, build_reduce(c, OP_REDUCE_MIN, a, rank, axes, false), 0);
    value high = build_with(c, OP_MAX, build_reduce(c, OP_REDUCE_MAX, a, rank, axes, false), 0);
    value step = build_with(c, OP_DIV, graph_binary(c->g, OP_SUB, high, low), 255);
    value flat = build_both(c, OP_EQ, step, build_real(c, type, 0));
    *scale = graph_select(c->g, flat, build_real(c, type, 1), step);
    value point = graph_unary(c->g, OP_ROUND, graph_binary(c->g, OP_DIV, graph_unary(c->g, OP_NEG, low), *scale));
    *zero = build_with(c, OP_MIN, build_with(c, OP_MAX, point, 0), 255);
    value x = graph_unary(c->g, OP_ROUND, build_both(c, OP_DIV, a, *scale));
    x = build_both(c, OP_ADD, x, *zero);
    return build_with(c, OP_MIN, build_with(c, OP_MAX, x, 0), 255);
}

/* a, b, b_scale, b_zero_point, bias */
void lower_contrib_dynamicquantizematmul(struct call *c)
{
    value scale = 0, zero = 0, zero_b = call_has(c, 3) ? per_column(c, call_use(c, 3)) : 0;
    value a = quantized(c, call_use(c, 0), &scale, &zero);
    value product = build_matmul(c, centred(c, a, zero), centred(c, call_use(c, 1), zero_b));
    scale = build_both(c, OP_MUL, scale, per_column(c, call_use(c, 2)));
    call_set(c, 0, finished(c, product, scale, 4));
}

/* a, b, a_scale, b_scale, a_zero_point, b_zero_point, bias */
void lower_contrib_matmulintegertofloat(struct call *c)
{
    value zero_a = call_has(c, 4) ? per_column(c, call_use(c, 4)) : 0,
          zero_b = call_has(c, 5) ? per_column(c, call_use(c, 5)) : 0;
    value scale_a = per_column(c, call_use(c, 2)), scale_b = per_column(c, call_use(c, 3));
    if (call_rank(c, scale_a) || (zero_a && call_rank(c, zero_a)))
        call_unsupported(c, "scales per column of the first operand");
    value product = build_matmul(c, centred(c, call_use(c, 0), zero_a), centred(c, call_use(c, 1), zero_b));
    call_set(c, 0, finished(c, product, build_both(c, OP_MUL, scale_a, scale_b), 6));
}
