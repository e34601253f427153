/* frontend/onnx/lower_more.c - small operators of no family: EyeLike, SwiGLU, ReverseSequence, CenterCropPad, TensorScatter, signal windows. */
#include "frontend/onnx/lower.h"

#include <math.h>

void lower_eyelike(struct call *c)
{
    const struct datum *d = call_in(c, 0);
    int64_t onnx = attribute_int(c, "dtype", 0), k = attribute_int(c, "k", 0);
    dtype type = onnx ? dtype_from_onnx(onnx) : d->dtype;
    if (d->rank != 2 || type == DT_NONE)
        call_unsupported(c, "%u axes or element type %lld", d->rank, (long long)onnx);
    value row = graph_iota(c->g, DT_I64, 2, d->shape, 0), column = graph_iota(c->g, DT_I64, 2, d->shape, 1);
    value on = build_both(c, OP_EQ, build_with(c, OP_ADD, row, (double)k), column);
    call_set(c, 0, graph_cast(c->g, on, type));
}

/* swish(a) * b */
void lower_swiglu(struct call *c)
{
    value a = call_use(c, 0);
    double alpha = attribute_real(c, "alpha", 1);
    value inner = alpha == 1 ? a : build_with(c, OP_MUL, a, alpha);
    value e = graph_unary(c->g, OP_EXP, graph_unary(c->g, OP_NEG, inner));
    value gate = graph_unary(c->g, OP_RECIP, build_with(c, OP_ADD, e, 1));
    call_set(c, 0, build_both(c, OP_MUL, graph_binary(c->g, OP_MUL, a, gate), call_use(c, 1)));
}

/* Element t of a row of length n comes from n - 1 - t where t < n. */
void lower_reversesequence(struct call *c)
{
    value x = call_use(c, 0);
    uint32_t rank = call_rank(c, x);
    uint32_t time = call_axis(c, attribute_int(c, "time_axis", 0), rank);
    uint32_t batch = call_axis(c, attribute_int(c, "batch_axis", 1), rank);
    if (rank < 2 || time > 1 || batch > 1 || time == batch)
        call_fail(c, "its time and batch axes must be the first two");
    if (time == 0)
        x = build_move_axis(c, x, 1, 0);
    dim plane[2] = {call_shape(c, x)[0], call_shape(c, x)[1]};
    value place = graph_iota(c->g, DT_I64, 2, plane, 1);
    value length = build_unsqueeze(c, call_use_as(c, 1, DT_I64), 1);
    value mirrored = build_both(c, OP_SUB, build_with(c, OP_SUB, length, 1), place);
    value source = build_choose(c, build_both(c, OP_LT, place, length), mirrored, place);
    value y = graph_gather(c->g, x, source, 1, 1);
    call_set(c, 0, time == 0 ? build_move_axis(c, y, 1, 0) : y);
}

/* Cut or padded with zeros around the middle, axis by axis. */
void lower_centercroppad(struct call *c)
{
    value x = call_use(c, 0);
    uint32_t rank = call_rank(c, x), count = 0, listed = 0;
    const int64_t *target = call_ints(c, 1, &count), *axes = attribute_ints(c, "axes", &listed);
    if (count != (axes ? listed : rank))
        call_fail(c, "has %u extents for %u axes", count, axes ? listed : rank);
    for (uint32_t i = 0; i < count; i++) {
        uint32_t axis = axes ? call_axis(c, axes[i], rank) : i;
        int64_t is = 0;
        dim before[MAX_RANK], shape[MAX_RANK];
        if (!dim_is_const(c->t, call_shape(c, x)[axis], &is) || target[i] < 0)
            call_unsupported(c, "a symbolic axis");
        if (target[i] <= is) {
            x = build_slice_axis(c, x, axis, call_const(c, (is - target[i]) / 2), call_const(c, target[i]));
            continue;
        }
        for (uint32_t k = 0; k < rank; k++) {
            before[k] = call_const(c, k == axis ? (target[i] - is) / 2 : 0);
            shape[k] = k == axis ? call_const(c, target[i]) : call_shape(c, x)[k];
        }
        x = graph_pad(c->g, x, build_real(c, call_type(c, x), 0), before, shape);
    }
    call_set(c, 0, x);
}

/* Writes `update` into the cache at each row's write index, along `axis`; circular wraps around its end. */
void lower_tensorscatter(struct call *c)
{
    value cache = call_use(c, 0), update = call_use(c, 1);
    uint32_t rank = call_rank(c, cache), axis = call_axis(c, attribute_int(c, "axis", -2), rank);
    bool circular = strcmp(attribute_text(c, "mode", "linear"), "circular") == 0;
    if (axis == 0 || call_rank(c, update) != rank)
        call_fail(c, "the axis that is written must come after the batch");
    call_agree(c, call_shape(c, cache)[0], call_shape(c, update)[0], "batches of cache and update");
    dim plane[2] = {call_shape(c, update)[0], call_shape(c, update)[axis]};
    value index = graph_iota(c->g, DT_I64, 2, plane, 1);
    if (call_has(c, 2))
        index = build_both(c, OP_ADD, index, build_unsqueeze(c, call_use_as(c, 2, DT_I64), 1));
    if (circular)
        index = build_both(c, OP_MOD, index, graph_dim(c->g, call_shape(c, cache)[axis]));
    value rows = build_move_axis(c, cache, axis, 1), new_rows = build_move_axis(c, update, axis, 1);
    value y = graph_scatter(c->g, rows, index, new_rows, 1, 1, SCATTER_SET);
    call_set(c, 0, build_move_axis(c, y, 1, axis));
}

/* a0 - a1 cos(2 pi n / N) + a2 cos(4 pi n / N). argument: 0 Hann, 1 Hamming, 2 Blackman */
void lower_window(struct call *c)
{
    static const double coefficient[3][3] = {{0.5, 0.5, 0}, {25.0 / 46, 1 - 25.0 / 46, 0}, {0.42, 0.5, 0.08}};
    const double *a = coefficient[c->argument];
    int64_t size = call_int(c, 0), onnx = attribute_int(c, "output_datatype", 1);
    dtype type = dtype_from_onnx(onnx);
    if (size < 0 || size > 1 << 20 || type == DT_NONE)
        call_unsupported(c, "a window of %lld or of element type %lld", (long long)size, (long long)onnx);
    double period = attribute_int(c, "periodic", 1) ? (double)size : (double)(size - 1);
    uint8_t *data = arena_array(c->im->scratch, (size_t)size + 1, dtype_size(type));
    for (int64_t n = 0; n < size; n++) {
        double angle = period > 0 ? 6.283185307179586 * (double)n / period : 0;
        dtype_store_f64(type, data, (size_t)n, a[0] - a[1] * cos(angle) + a[2] * cos(2 * angle));
    }
    call_set(c, 0, graph_constant(c->g, type, 1, &size, data));
}
