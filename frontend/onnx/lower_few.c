/* frontend/onnx/lower_few.c - element types of few bits (8-bit floats and less, integers below 8 bits): conversions to them, BitCast.
 *
 * Nothing is computed in these types. What ONNX lets a conversion choose (saturation, rounding) is arithmetic on a wider type before it.
 */
#include "frontend/onnx/compose.h"

/* A power of two per number, by the bits of f32: its exponent, one more as `mode` rounds. */
static value to_scale(struct call *c, value v, bool saturate, const char *mode)
{
    struct graph *g = c->g;
    bool up = strcmp(mode, "up") == 0, nearest = strcmp(mode, "nearest") == 0;
    if (!up && !nearest && strcmp(mode, "down") != 0)
        call_fail(c, "round_mode is '%s', none of up, down and nearest", mode);
    value bits = graph_bitcast(g, graph_cast(g, v, DT_F32), DT_I32);
    value exponent = build_with(c, OP_AND, build_with(c, OP_SHR, bits, 23), 255);
    value fraction = build_with(c, OP_AND, bits, 0x7fffff);
    value whole = build_both(c, OP_LT, build_real(c, DT_I32, 0), exponent);
    /* a denormal number is less than 2^-126: its bits up to 0x400000 are those below 2^-127, which exponent 0 stands for */
    value least = graph_select(g, whole, build_full(c, DT_I32, up ? 0 : 0x3fffff, call_rank(c, v), call_shape(c, v)),
                               build_full(c, DT_I32, up ? 0x400000 : 0x5fffff, call_rank(c, v), call_shape(c, v)));
    value more = graph_cast(g, graph_binary(g, OP_LT, least, fraction), DT_I32);
    value code = up || nearest ? build_both(c, OP_ADD, exponent, more) : exponent;
    value limit = build_real(c, DT_I32, saturate ? 254 : 255);
    code = build_both(c, OP_MIN, code, limit);
    if (!saturate) {
        value below =
            build_both(c, OP_LT, bits, build_real(c, DT_I32, 0x400000)); /* 0 and less, and what is below 2^-127 */
        code = build_choose(c, below, build_real(c, DT_I32, 255), code);
    }
    value bad = graph_unary(g, OP_ISNAN, graph_cast(g, v, DT_F32));
    code = build_choose(c, bad, build_real(c, DT_I32, 255), code);
    return graph_bitcast(g, graph_cast(g, code, DT_U8), DT_F8E8M0);
}

value few_from(struct call *c, value v, dtype to, bool saturate, const char *mode)
{
    dtype from = call_type(c, v);
    if (from == to)
        return v;
    if (dtype_is_int(to)) /* what is outside of the type loses its high bits */
        return graph_cast(c->g, dtype_is_float(from) ? graph_cast(c->g, v, DT_I32) : v, to);
    bool wide = from == DT_F64 || from == DT_I32 || from == DT_I64 || from == DT_U32 || from == DT_U64;
    if (!dtype_is_float(from) || dtype_is_stored(from))
        v = graph_cast(c->g, v, wide ? DT_F64 : DT_F32);
    if (to == DT_F8E8M0)
        return to_scale(c, v, saturate, mode);
    if (saturate && to != DT_F4E2M1) /* which has nothing beyond its largest number */
        v = compose_clamp(c, v, -narrow_largest(to), narrow_largest(to));
    return graph_cast(c->g, v, to);
}

void lower_bitcast(struct call *c)
{
    int64_t onnx = attribute_int(c, "to", 0);
    dtype from = call_in(c, 0)->dtype, to = dtype_from_onnx(onnx);
    if (to == DT_NONE)
        call_unsupported(c, "element type %lld", (long long)onnx);
    if (dtype_bits(from) != dtype_bits(to))
        call_fail(c, "%s and %s differ in size", dtype_name(from), dtype_name(to));
    if (from == to)
        call_set_alias(c, 0, 0);
    else
        call_set(c, 0, graph_bitcast(c->g, call_use(c, 0), to));
}
