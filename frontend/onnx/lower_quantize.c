/* frontend/onnx/lower_quantize.c - integers that stand for reals: QuantizeLinear and its kin, as the arithmetic that defines them. */
#include "frontend/onnx/compose.h"

/* A scale or zero point as x's shape wants it: one number, one per index of an axis, or one per block along it. */
static value spread_over(struct call *c, value v, value x, uint32_t axis, int64_t block)
{
    uint32_t rank = call_rank(c, x);
    dim shape[MAX_RANK], wide[MAX_RANK];
    int32_t axes[MAX_RANK];
    if (call_rank(c, v) == 0)
        return v;
    if (call_rank(c, v) == 1 && block == 0) {
        if (dim_is(c->t, call_shape(c, v)[0], 1))
            return build_reshape(c, v, 0, NULL);
        for (uint32_t k = 0; k < rank; k++)
            shape[k] = k == axis ? call_shape(c, v)[0] : call_const(c, 1);
        return build_reshape(c, v, rank, shape);
    }
    if (call_rank(c, v) != rank || block <= 0 || rank + 1 > MAX_RANK)
        call_fail(c, "its scale has %u axes for a value of %u", call_rank(c, v), rank);
    v = build_unsqueeze(c, v, axis + 1);
    dims_copy(wide, call_shape(c, v), rank + 1);
    wide[axis + 1] = call_const(c, block);
    for (uint32_t k = 0; k <= rank; k++)
        axes[k] = (int32_t)k;
    v = graph_broadcast(c->g, v, rank + 1, wide, axes);
    dims_copy(shape, call_shape(c, x), rank);
    shape[axis] = dim_mul(c->t, wide[axis], call_const(c, block));
    v = build_reshape(c, v, rank, shape);
    return build_slice_axis(c, v, axis, call_const(c, 0), call_shape(c, x)[axis]); /* the last block may be short */
}

static void limits(dtype t, double *low, double *high)
{
    double span = (double)(UINT64_C(1) << dtype_bits(t)); /* of 32 bits at most */
    *low = dtype_is_signed(t) ? -span / 2 : 0;
    *high = dtype_is_signed(t) ? span / 2 - 1 : span - 1;
}

/* round(x / scale) + zero, kept inside the type */
static value quantize(struct call *c, value x, value scale, value zero, dtype to)
{
    double low = 0, high = 0;
    limits(to, &low, &high);
    value y = build_both(c, OP_DIV, x, scale);
    dtype wide = call_type(c, y) == DT_F16 || call_type(c, y) == DT_BF16 ? DT_F32 : call_type(c, y);
    y = graph_unary(c->g, OP_ROUND, graph_cast(c->g, y, wide)); /* the type's limits are not all halves */
    if (zero)
        y = build_both(c, OP_ADD, y, graph_cast(c->g, zero, call_type(c, y)));
    y = build_with(c, OP_MIN, build_with(c, OP_MAX, y, low), high);
    return graph_cast(c->g, y, to);
}

/* The same to floats of few bits: x / scale + zero, rounded by the conversion. */
static value quantize_few(struct call *c, value x, value scale, value zero, dtype to)
{
    value y = build_both(c, OP_DIV, x, scale);
    if (zero)
        y = build_both(c, OP_ADD, y, graph_cast(c->g, zero, call_type(c, y)));
    return few_from(c, y, to, attribute_int(c, "saturate", 1) != 0, "nearest");
}

static uint32_t quantized_axis(struct call *c, uint32_t rank)
{
    int64_t axis = attribute_int(c, "axis", 1);
    return rank <= 1 ? 0 : call_axis(c, axis, rank);
}

void lower_quantize(struct call *c)
{
    value x = call_use(c, 0), scale = call_use(c, 1);
    uint32_t axis = quantized_axis(c, call_rank(c, x));
    int64_t block = attribute_int(c, "block_size", 0), onnx = attribute_int(c, "output_dtype", 0);
    dtype to = call_has(c, 2) ? call_in(c, 2)->dtype : onnx ? dtype_from_onnx(onnx) : DT_U8;
    if (!dtype_is_int(to) && !(dtype_is_stored(to) && to != DT_F8E8M0))
        call_unsupported(c, "quantisation to element type %lld", (long long)onnx);
    int64_t precision = attribute_int(c, "precision", 0); /* of the quotient; else the scale's */
    dtype work = precision ? dtype_from_onnx(precision) : call_type(c, scale);
    if (!dtype_is_float(work))
        call_unsupported(c, "a precision of element type %lld", (long long)precision);
    scale = spread_over(c, graph_cast(c->g, scale, work), x, axis, block);
    value zero = call_has(c, 2) ? spread_over(c, call_use(c, 2), x, axis, block) : 0;
    x = graph_cast(c->g, x, work);
    call_set(c, 0, dtype_is_float(to) ? quantize_few(c, x, scale, zero, to) : quantize(c, x, scale, zero, to));
}

/* (x - zero) * scale */
static value dequantize(struct call *c, value x, value scale, value zero)
{
    dtype type = call_type(c, scale), work = type == DT_F16 || type == DT_BF16 ? DT_F32 : type;
    value v = graph_cast(c->g, x, work);
    if (zero)
        v = build_both(c, OP_SUB, v, graph_cast(c->g, zero, work));
    return graph_cast(c->g, build_both(c, OP_MUL, v, graph_cast(c->g, scale, work)), type);
}

void lower_dequantize(struct call *c)
{
    value x = call_use(c, 0);
    uint32_t axis = quantized_axis(c, call_rank(c, x));
    int64_t block = attribute_int(c, "block_size", 0), onnx = attribute_int(c, "output_dtype", 0);
    value scale = spread_over(c, call_use(c, 1), x, axis, block);
    value zero = call_has(c, 2) ? spread_over(c, call_use(c, 2), x, axis, block) : 0;
    value y = dequantize(c, x, scale, zero);
    call_set(c, 0, onnx ? graph_cast(c->g, y, dtype_from_onnx(onnx)) : y);
}

/* To u8 over the value's own range, which always holds 0. */
void lower_dynamicquantize(struct call *c)
{
    value x = call_use(c, 0);
    int32_t axes[MAX_RANK];
    uint32_t rank = call_rank(c, x);
    dtype type = call_type(c, x);
    for (uint32_t k = 0; k < rank; k++)
        axes[k] = (int32_t)k;
    value low = build_with(c, OP_MIN, build_reduce(c, OP_REDUCE_MIN, x, rank, axes, false), 0);
    value high = build_with(c, OP_MAX, build_reduce(c, OP_REDUCE_MAX, x, rank, axes, false), 0);
    value scale = build_with(c, OP_DIV, graph_binary(c->g, OP_SUB, high, low), 255);
    value flat = build_both(c, OP_EQ, scale, build_real(c, type, 0));
    value safe = graph_select(c->g, flat, build_real(c, type, 1), scale);
    value point = graph_unary(c->g, OP_ROUND, graph_binary(c->g, OP_DIV, graph_unary(c->g, OP_NEG, low), safe));
    value zero = graph_cast(c->g, build_with(c, OP_MIN, build_with(c, OP_MAX, point, 0), 255), DT_U8);
    call_set(c, 0, quantize(c, x, safe, zero, DT_U8));
    call_set(c, 1, safe);
    call_set(c, 2, zero);
}

/* a, a_scale, a_zero, b, b_scale, b_zero, y_scale, y_zero; numbers per row of a stand along its second last axis */
void lower_qlinearmatmul(struct call *c)
{
    value part[2];
    for (uint32_t i = 0; i < 2; i++) {
        value x = call_use(c, 3 * i);
        uint32_t rank = call_rank(c, x), axis = rank >= 2 && i == 0 ? rank - 2 : rank - 1;
        value scale = spread_over(c, call_use_as(c, 3 * i + 1, DT_F32), x, axis, 0);
        part[i] = dequantize(c, x, scale, spread_over(c, call_use(c, 3 * i + 2), x, axis, 0));
    }
    value y = build_matmul(c, part[0], part[1]);
    uint32_t axis = call_rank(c, y) >= 2 ? call_rank(c, y) - 2 : 0;
    value scale = spread_over(c, call_use_as(c, 6, DT_F32), y, axis, 0);
    call_set(c, 0, quantize(c, y, scale, spread_over(c, call_use(c, 7), y, axis, 0), call_in(c, 7)->dtype));
}
