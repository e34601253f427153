/* frontend/onnx/lower_qconv.c - convolutions of integers that stand for reals, exact in i32: ConvInteger and QLinearConv. */
#include "frontend/onnx/compose.h"

/* v, one number or one per channel, along axis `axis` of `rank` axes */
static value per_channel(struct call *c, value v, uint32_t axis, uint32_t rank)
{
    if (call_rank(c, v) == 0)
        return v;
    if (call_rank(c, v) != 1)
        call_fail(c, "a scale or zero point has %u axes", call_rank(c, v));
    return dim_is(c->t, call_shape(c, v)[0], 1) ? build_reshape(c, v, 0, NULL) : compose_along(c, v, axis, rank);
}

/* Input `i` less its zero point, as i32. */
static value centred(struct call *c, uint32_t i, uint32_t zero)
{
    value v = call_use_as(c, i, DT_I32);
    if (!call_has(c, zero))
        return v;
    return build_both(c, OP_SUB, v, per_channel(c, call_use_as(c, zero, DT_I32), 0, call_rank(c, v)));
}

void lower_convinteger(struct call *c)
{
    call_set(c, 0, compose_convolution(c, centred(c, 0, 2), centred(c, 1, 3)));
}

/* x, x_scale, x_zero, w, w_scale, w_zero, y_scale, y_zero, bias: scales and zero points of w may be per channel */
void lower_qlinearconv(struct call *c)
{
    value y = compose_convolution(c, centred(c, 0, 2), centred(c, 3, 5));
    uint32_t rank = call_rank(c, y);
    if (call_has(c, 8))
        y = build_both(c, OP_ADD, y, compose_along(c, call_use_as(c, 8, DT_I32), 1, rank));
    value scale = build_both(c, OP_MUL, per_channel(c, call_use_as(c, 1, DT_F32), 1, rank),
                             per_channel(c, call_use_as(c, 4, DT_F32), 1, rank));
    scale = build_both(c, OP_DIV, scale, per_channel(c, call_use_as(c, 6, DT_F32), 1, rank));
    y = graph_unary(c->g, OP_ROUND, build_both(c, OP_MUL, graph_cast(c->g, y, DT_F32), scale));
    dtype type = call_in(c, call_has(c, 7) ? 7 : 0)->dtype;
    if (call_has(c, 7))
        y = build_both(c, OP_ADD, y, per_channel(c, call_use_as(c, 7, DT_F32), 1, rank));
    call_set(c, 0, graph_cast(c->g, y, type)); /* a cast saturates */
}
