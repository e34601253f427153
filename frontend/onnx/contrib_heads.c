/* frontend/onnx/contrib_heads.c - what com.microsoft's attentions share: heads, rotation, softmax; and RotaryEmbedding itself. */
#include "frontend/onnx/contrib.h"

#include <math.h>

static const int32_t swap_middle[] = {0, 2, 1, 3};

value contrib_split_heads(struct call *c, value x, int64_t heads)
{
    const dim *s = call_shape(c, x);
    dim size = call_rank(c, x) == 3 && heads > 0 ? dim_exact_div(c->t, s[2], call_const(c, heads)) : DIM_NONE;
    if (!dim_valid(size))
        call_fail(c, "%lld heads do not divide a hidden size", (long long)heads);
    x = build_reshape(c, x, 4, (dim[]){s[0], s[1], call_const(c, heads), size});
    return graph_transpose(c->g, x, swap_middle);
}

value contrib_merge_heads(struct call *c, value x)
{
    x = graph_transpose(c->g, x, swap_middle);
    const dim *s = call_shape(c, x);
    return build_reshape(c, x, 3, (dim[]){s[0], s[1], dim_mul(c->t, s[2], s[3])});
}

/* [b, h, t, d] -> [b, h, r, t, d] -> [b, h*r, t, d] */
value contrib_repeat_heads(struct call *c, value x, dim heads)
{
    static const int32_t axes[] = {0, 1, 3, 4};
    dim own[4];
    dims_copy(own, call_shape(c, x), 4);
    if (own[1] == heads)
        return x;
    dim repeat = dim_exact_div(c->t, heads, own[1]);
    if (!dim_valid(repeat))
        call_fail(c, "its key-value heads do not divide its query heads");
    x = graph_broadcast(c->g, x, 5, (dim[]){own[0], own[1], repeat, own[2], own[3]}, axes);
    own[1] = heads;
    return build_reshape(c, x, 4, own);
}

double contrib_scale(struct call *c, value q)
{
    double given = attribute_real(c, "scale", 0);
    int64_t size = 0;
    if (given != 0)
        return given;
    if (!dim_is_const(c->t, call_shape(c, q)[3], &size) || size < 1)
        call_unsupported(c, "a symbolic head size");
    return 1 / sqrt((double)size);
}

value contrib_keep(struct call *c, value keep, dtype type)
{
    return build_choose(c, keep, build_real(c, type, 0), graph_scalar_f64(c->g, type, -(double)INFINITY));
}

value contrib_plus(struct call *c, value a, value b)
{
    return a && b ? build_both(c, OP_ADD, a, b) : a ? a : b;
}

dtype contrib_work(dtype type)
{
    return type == DT_F16 || type == DT_BF16 ? DT_F32 : type;
}

value contrib_softmax(struct call *c, value scores, value sink)
{
    int32_t last = (int32_t)call_rank(c, scores) - 1;
    if (!sink)
        return build_softmax(c, scores, (uint32_t)last, 1, false);
    value top = build_both(c, OP_MAX, build_reduce(c, OP_REDUCE_MAX, scores, 1, &last, true), sink);
    value e = graph_unary(c->g, OP_EXP, build_both(c, OP_SUB, scores, top));
    value sum = build_reduce(c, OP_REDUCE_SUM, e, 1, &last, true);
    value rest = graph_unary(c->g, OP_EXP, build_both(c, OP_SUB, sink, top));
    return build_both(c, OP_DIV, e, build_both(c, OP_ADD, sum, rest));
}

/* ---- rotation ----------------------------------------------------------------------------------------------- */

value contrib_rotary_table(struct call *c, uint32_t input, value positions, dim rows)
{
    value cache = call_use(c, input);
    if (call_rank(c, cache) != 2)
        call_fail(c, "a cache of angles has %u axes, needs 2", call_rank(c, cache));
    if (dim_valid(rows))
        cache = build_slice_axis(c, cache, 0, call_const(c, 0), rows);
    return build_unsqueeze(c, graph_gather(c->g, cache, positions, 0, 0), 1);
}

/* Elements which, which + step, .. of the last axis, `size` of them */
static value every(struct call *c, value x, dim which, dim size, int32_t step)
{
    dim start[MAX_RANK], shape[MAX_RANK];
    int32_t steps[MAX_RANK];
    uint32_t rank = call_rank(c, x);
    for (uint32_t k = 0; k < rank; k++) {
        bool last = k + 1 == rank;
        start[k] = last ? which : call_const(c, 0);
        shape[k] = last ? size : call_shape(c, x)[k];
        steps[k] = last ? step : 1;
    }
    return graph_slice(c->g, x, start, shape, steps);
}

value contrib_rotate(struct call *c, value x, value cosine, value sine, bool interleaved)
{
    uint32_t last = call_rank(c, x) - 1;
    dim half = call_shape(c, cosine)[call_rank(c, cosine) - 1], rotary = dim_add(c->t, half, half),
        extent = call_shape(c, x)[last];
    dim one = call_const(c, 1), zero = call_const(c, 0);
    dtype type = call_type(c, x);
    if (!dim_provably_ge(c->t, extent, rotary))
        call_fail(c, "rotates more elements than a head has");
    cosine = graph_cast(c->g, cosine, type);
    sine = graph_cast(c->g, sine, type);
    value x1 = every(c, x, zero, half, interleaved ? 2 : 1),
          x2 = every(c, x, interleaved ? one : half, half, interleaved ? 2 : 1);
    value part[3];
    part[0] = build_both(c, OP_SUB, build_both(c, OP_MUL, x1, cosine), build_both(c, OP_MUL, x2, sine));
    part[1] = build_both(c, OP_ADD, build_both(c, OP_MUL, x1, sine), build_both(c, OP_MUL, x2, cosine));
    if (interleaved) {
        dim shape[MAX_RANK];
        part[0] = build_unsqueeze(c, part[0], last + 1);
        part[1] = build_unsqueeze(c, part[1], last + 1);
        value both = graph_concat(c->g, 2, part, last + 1);
        dims_copy(shape, call_shape(c, both), last + 1);
        shape[last] = rotary;
        part[0] = graph_reshape(c->g, both, last + 1, shape);
    }
    uint32_t count = interleaved ? 1 : 2;
    if (rotary != extent)
        part[count++] = build_slice_axis(c, x, last, rotary, dim_sub(c->t, extent, rotary));
    return graph_concat(c->g, count, part, last);
}

/* Positions as [batch, sequence]: given so, or one number that the sequence counts on from. */
static value read_positions(struct call *c, dim batch, dim sequence)
{
    value given = call_use_as(c, 1, DT_I64);
    dim shape[2] = {batch, sequence};
    if (call_rank(c, given) == 2)
        return build_expand(c, given, 2, shape);
    value start = build_reshape(c, given, 0, NULL);
    return build_both(c, OP_ADD, graph_iota(c->g, DT_I64, 2, shape, 1), start);
}

/* input [batch, sequence, hidden] or [batch, heads, sequence, size]; cos and sin [longest, rotated / 2] */
void lower_contrib_rotary(struct call *c)
{
    value x = call_use(c, 0);
    uint32_t rank = call_rank(c, x);
    int64_t heads = attribute_int(c, "num_heads", 0), partial = attribute_int(c, "rotary_embedding_dim", 0), half = 0;
    dim own[4];
    if (rank != 3 && rank != 4)
        call_fail(c, "needs three or four axes, has %u", rank);
    if (attribute_int(c, "is_packed_batching", 0))
        call_unsupported(c, "packed batches");
    dims_copy(own, call_shape(c, x), rank);
    if (rank == 3) {
        const struct datum *cache = call_in(c, 2);
        if (heads == 0 && cache->rank == 2 && dim_is_const(c->t, cache->shape[1], &half) &&
            half > 0) { /* heads are rotated whole */
            dim count = dim_exact_div(c->t, own[2], call_const(c, 2 * half));
            if (partial || !dim_valid(count) || !dim_is_const(c->t, count, &heads))
                call_fail(c, "num_heads is missing");
        }
        dim size = heads > 0 ? dim_exact_div(c->t, own[2], call_const(c, heads)) : DIM_NONE;
        if (!dim_valid(size))
            call_fail(c, "%lld heads do not divide the hidden size", (long long)heads);
        x = build_reshape(c, x, 4, (dim[]){own[0], own[1], call_const(c, heads), size});
    }
    value positions = read_positions(c, own[0], own[rank == 3 ? 1 : 2]);
    value table[2];
    for (uint32_t i = 0; i < 2; i++) {
        table[i] = contrib_rotary_table(c, 2 + i, positions, DIM_NONE);
        if (rank == 3) /* [batch, 1, sequence, half] -> [batch, sequence, 1, half] */
            table[i] = graph_transpose(c->g, table[i], swap_middle);
    }
    value y = contrib_rotate(c, x, table[0], table[1], attribute_int(c, "interleaved", 0) != 0);
    double scale = attribute_real(c, "scale", 1);
    y = scale == 1 ? y : build_with(c, OP_MUL, y, scale);
    call_set(c, 0, build_reshape(c, y, rank, own));
}
