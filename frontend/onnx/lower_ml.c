/* frontend/onnx/lower_ml.c - of the domain ai.onnx.ml what is plain arithmetic on tensors: features picked, thresholds, tables of numbers. */
#include "frontend/onnx/compose.h"

/* The last axis at the indices of input 1, which are one list whatever their shape. */
void lower_ml_features(struct call *c)
{
    value x = call_use(c, 0), index = call_use_as(c, 1, DT_I64);
    uint32_t rank = call_rank(c, x);
    if (rank == 0)
        call_fail(c, "a scalar has no features");
    dim count = call_product(c, call_shape(c, index), 0, call_rank(c, index));
    if (rank == 1) /* one row */
        x = build_unsqueeze(c, x, 0);
    call_set(c, 0, graph_gather(c->g, x, build_reshape(c, index, 1, &count), call_rank(c, x) - 1, 0));
}

void lower_ml_binarizer(struct call *c)
{
    value x = call_use(c, 0);
    dtype type = call_type(c, x);
    value above = build_both(c, OP_LT, build_real(c, type, attribute_real(c, "threshold", 0)), x);
    call_set(c, 0, graph_cast(c->g, above, type));
}

/* The attribute PREFIX_int64s or PREFIX_floats as a constant of one axis; 0: neither is there. */
static value label_list(struct call *c, const char *prefix)
{
    uint32_t count = 0;
    const int64_t *integers = attribute_ints(c, arena_printf(c->im->scratch, "%s_int64s", prefix), &count);
    int64_t extent = count;
    if (integers)
        return graph_constant(c->g, DT_I64, 1, &extent, integers);
    const float *reals = attribute_reals(c, arena_printf(c->im->scratch, "%s_floats", prefix), &count);
    extent = count;
    return reals ? graph_constant(c->g, DT_F32, 1, &extent, reals) : 0;
}

/* values[k] where x is keys[k], else the default: by the place of the key in a table that begins with the default. */
void lower_ml_labels(struct call *c)
{
    value x = call_use(c, 0), keys = label_list(c, "keys"), values = label_list(c, "values");
    uint32_t rank = call_rank(c, x);
    if (!keys || !values)
        call_unsupported(c, "labels that are strings or tensors: strings are not numbers");
    if (call_type(c, keys) != call_type(c, x) || rank == MAX_RANK || call_shape(c, keys)[0] != call_shape(c, values)[0])
        call_fail(c, "keys, values and input do not match");
    bool real = call_type(c, values) == DT_F32;
    value other = real ? build_real(c, DT_F32, attribute_real(c, "default_float", -0.0))
                       : graph_scalar_i64(c->g, DT_I64, attribute_int(c, "default_int64", -1));
    value table[2] = {build_unsqueeze(c, other, 0), values};
    value same = build_both(c, OP_EQ, build_unsqueeze(c, x, rank), keys);
    if (c->version >= 4 && dtype_is_float(call_type(c, x))) { /* NaN is a key like any other */
        value neither = graph_unary(c->g, OP_ISNAN, build_unsqueeze(c, x, rank));
        same = build_both(c, OP_OR, same, build_both(c, OP_AND, neither, graph_unary(c->g, OP_ISNAN, keys)));
    }
    dim count = call_shape(c, keys)[0];
    value place = build_with(c, OP_ADD, graph_iota(c->g, DT_I64, 1, &count, 0), 1);
    int32_t last = (int32_t)rank;
    place = build_both(c, OP_MUL, graph_cast(c->g, same, DT_I64), place);
    value at = build_reduce(c, OP_REDUCE_MAX, place, 1, &last, false);
    at = build_with(c, OP_MAX, at, 0); /* without keys */
    call_set(c, 0, graph_gather(c->g, graph_concat(c->g, 2, table, 0), at, 0, 0));
}
