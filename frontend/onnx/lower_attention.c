/* frontend/onnx/lower_attention.c - Attention and RotaryEmbedding of opset 23 and later, as the products and sums that older exports write. */
#include "frontend/onnx/lower.h"

#include <math.h>

/* ---- RotaryEmbedding ---------------------------------------------------------------------------------------- */

/* cos or sin as [batch, sequence, rotary/2], from a cache by positions where they are given */
static value rotary_table(struct call *c, uint32_t input, dim half)
{
    value table = call_use(c, input);
    if (call_has(c, 3)) {
        value positions = call_use(c, 3);
        table = graph_gather(c->g, table, positions, 0, 0);
    }
    if (call_rank(c, table) < 2)
        call_fail(c, "a table of cosines or sines has %u axes", call_rank(c, table));
    return build_slice_axis(c, table, call_rank(c, table) - 1, call_const(c, 0), half);
}

/* x1 and x2: the two halves of the rotated part, or its even and odd elements. */
static value rotary_part(struct call *c, value x, dim rotary, dim half, bool interleaved, int64_t which)
{
    uint32_t rank = call_rank(c, x);
    dim start[MAX_RANK], size[MAX_RANK];
    int32_t step[MAX_RANK];
    for (uint32_t k = 0; k < rank; k++) {
        start[k] = call_const(c, 0);
        size[k] = call_shape(c, x)[k];
        step[k] = 1;
    }
    if (!interleaved)
        return build_slice_axis(c, x, rank - 1, which ? half : call_const(c, 0), half);
    (void)rotary;
    start[rank - 1] = call_const(c, which);
    size[rank - 1] = half;
    step[rank - 1] = 2;
    return graph_slice(c->g, x, start, size, step);
}

static value rotate(struct call *c, value x, value cosine, value sine, dim rotary, bool interleaved)
{
    uint32_t last = call_rank(c, x) - 1;
    dim half = dim_exact_div(c->t, rotary, call_const(c, 2)), extent = call_shape(c, x)[last];
    value x1 = rotary_part(c, x, rotary, half, interleaved, 0), x2 = rotary_part(c, x, rotary, half, interleaved, 1);
    value part[2];
    part[0] = build_both(c, OP_SUB, build_both(c, OP_MUL, x1, cosine), build_both(c, OP_MUL, x2, sine));
    part[1] = build_both(c, OP_ADD, build_both(c, OP_MUL, x1, sine), build_both(c, OP_MUL, x2, cosine));
    value y = 0;
    if (interleaved) {
        dim shape[MAX_RANK];
        part[0] = build_unsqueeze(c, part[0], last + 1);
        part[1] = build_unsqueeze(c, part[1], last + 1);
        y = graph_concat(c->g, 2, part, last + 1);
        dims_copy(shape, call_shape(c, y), (last + 1));
        shape[last] = rotary;
        y = build_reshape(c, y, last + 1, shape);
    } else {
        y = graph_concat(c->g, 2, part, last);
    }
    if (rotary == extent)
        return y;
    part[0] = y;
    part[1] = build_slice_axis(c, x, last, rotary, dim_sub(c->t, extent, rotary));
    return graph_concat(c->g, 2, part, last);
}

void lower_rotary(struct call *c)
{
    value x = call_use(c, 0);
    uint32_t rank = call_rank(c, x);
    int64_t heads = attribute_int(c, "num_heads", 0), partial = attribute_int(c, "rotary_embedding_dim", 0);
    dim own[MAX_RANK];
    dims_copy(own, call_shape(c, x), rank);
    if (rank == 3) { /* [batch, sequence, heads * size] */
        dim size = heads > 0 ? dim_exact_div(c->t, own[2], call_const(c, heads)) : DIM_NONE;
        if (!dim_valid(size))
            call_fail(c, "num_heads %lld does not divide the hidden size", (long long)heads);
        x = build_reshape(c, x, 4, (dim[]){own[0], own[1], call_const(c, heads), size});
    } else if (rank != 4) {
        call_fail(c, "needs three or four axes");
    }
    uint32_t heads_axis = rank == 3 ? 2 : 1;
    dim rotary = partial ? call_const(c, partial) : call_shape(c, x)[3];
    dim half = dim_exact_div(c->t, rotary, call_const(c, 2));
    if (!dim_valid(half))
        call_fail(c, "an odd number of elements cannot be rotated in pairs");
    value cosine = build_unsqueeze(c, rotary_table(c, 1, half), heads_axis);
    value sine = build_unsqueeze(c, rotary_table(c, 2, half), heads_axis);
    value y = rotate(c, x, cosine, sine, rotary, attribute_int(c, "interleaved", 0) != 0);
    call_set(c, 0, build_reshape(c, y, rank, own));
}

/* ---- Attention ---------------------------------------------------------------------------------------------- */

/* [batch, sequence, heads * size] -> [batch, heads, sequence, size]; four axes stay as they are */
static value split_heads(struct call *c, value x, const char *attribute)
{
    if (call_rank(c, x) == 4)
        return x;
    int64_t heads = attribute_int(c, attribute, 0);
    const dim *shape = call_shape(c, x);
    dim size = call_rank(c, x) == 3 && heads > 0 ? dim_exact_div(c->t, shape[2], call_const(c, heads)) : DIM_NONE;
    const int32_t order[] = {0, 2, 1, 3};
    if (!dim_valid(size))
        call_fail(c, "%s %lld does not divide the hidden size", attribute, (long long)heads);
    x = build_reshape(c, x, 4, (dim[]){shape[0], shape[1], call_const(c, heads), size});
    return graph_transpose(c->g, x, order);
}

static value append(struct call *c, uint32_t past, value x)
{
    value part[2];
    if (!call_has(c, past))
        return x;
    part[0] = call_use(c, past);
    part[1] = x;
    if (call_rank(c, part[0]) != 4)
        call_fail(c, "its past has %u axes, not four", call_rank(c, part[0]));
    for (uint32_t k = 0; k < 4; k++)
        if (k != 2)
            call_agree(c, call_shape(c, part[0])[k], call_shape(c, x)[k], "extents of past and new entries");
    return graph_concat(c->g, 2, part, 2);
}

/* Each key-value head once per query head that it serves: [b, h, t, d] -> [b, h, r, t, d] -> [b, h*r, t, d] */
static value repeat_heads(struct call *c, value x, dim heads)
{
    dim shape[5], own[4];
    int32_t axes[] = {0, 1, 2, 3, 4};
    memcpy(own, call_shape(c, x), sizeof own);
    if (own[1] == heads)
        return x;
    dim repeat = dim_exact_div(c->t, heads, own[1]);
    if (!dim_valid(repeat))
        call_fail(c, "its key-value heads do not divide its query heads");
    x = build_unsqueeze(c, x, 2);
    memcpy(shape, call_shape(c, x), sizeof shape);
    shape[2] = repeat;
    x = graph_broadcast(c->g, x, 5, shape, axes);
    own[1] = heads;
    return build_reshape(c, x, 4, own);
}

/* 0 where keep, -inf elsewhere */
static value bias_where(struct call *c, value keep, dtype type)
{
    return build_choose(c, keep, build_real(c, type, 0), graph_scalar_f64(c->g, type, -(double)INFINITY));
}

/* The given mask as a bias [.., q or 1, kv], padded with -inf where it is shorter than the keys. */
static value given_bias(struct call *c, dtype type, dim keys)
{
    value mask = call_use(c, 3);
    mask = call_type(c, mask) == DT_BOOL ? bias_where(c, mask, type) : graph_cast(c->g, mask, type);
    uint32_t rank = call_rank(c, mask), last = rank - 1;
    int64_t is = 0, wanted = 0;
    if (rank == 0 || call_shape(c, mask)[last] == keys || dim_is(c->t, call_shape(c, mask)[last], 1))
        return mask;
    if (dim_is_const(c->t, call_shape(c, mask)[last], &is) && dim_is_const(c->t, keys, &wanted) && is < wanted) {
        dim before[MAX_RANK], shape[MAX_RANK];
        for (uint32_t k = 0; k < rank; k++) {
            before[k] = call_const(c, 0);
            shape[k] = k == last ? keys : call_shape(c, mask)[k];
        }
        return graph_pad(c->g, mask, graph_scalar_f64(c->g, type, -(double)INFINITY), before, shape);
    }
    call_agree(c, call_shape(c, mask)[last], keys, "extents of the mask and the keys");
    return mask;
}

static value plus(struct call *c, value a, value b)
{
    return a && b ? build_both(c, OP_ADD, a, b) : a ? a : b;
}

/* [batch] -> [batch, 1, 1, 1] */
static value per_row(struct call *c, value v)
{
    dim one = call_const(c, 1);
    if (call_rank(c, v) != 1)
        call_fail(c, "the numbers of valid keys have %u axes", call_rank(c, v));
    return build_reshape(c, v, 4, (dim[]){call_shape(c, v)[0], one, one, one});
}

/* Places of queries among the keys: moved by the past's length, or by a row's valid keys less the queries. */
static value key_offset(struct call *c, value row, dim queries)
{
    if (call_has(c, 4))
        return build_both(c, OP_ADD, row, graph_dim(c->g, call_in(c, 4)->shape[2]));
    if (!call_has(c, 6))
        return row;
    value offset = build_both(c, OP_SUB, call_use_as(c, 6, DT_I64), graph_dim(c->g, queries));
    return build_both(c, OP_ADD, row, per_row(c, offset));
}

/* Query i sees key j <= i + offset. */
static value causal_bias(struct call *c, dtype type, dim queries, dim keys)
{
    dim plane[2] = {queries, keys};
    value row = graph_iota(c->g, DT_I64, 2, plane, 0), column = graph_iota(c->g, DT_I64, 2, plane, 1);
    return bias_where(c, build_both(c, OP_LE, column, key_offset(c, row, queries)), type);
}

/* Query i, at place p = i + offset, sees keys from p - left_window_size to p + right_window_size; -1 leaves a side open. */
static value window_bias(struct call *c, dtype type, dim queries, dim keys)
{
    dim plane[2] = {queries, keys};
    int64_t left = attribute_int(c, "left_window_size", -1), right = attribute_int(c, "right_window_size", -1);
    value place = key_offset(c, graph_iota(c->g, DT_I64, 2, plane, 0), queries), bias = 0;
    value column = graph_iota(c->g, DT_I64, 2, plane, 1);
    if (left < -1 || right < -1)
        call_fail(c, "a window of %lld and %lld", (long long)left, (long long)right);
    if (left >= 0)
        bias = bias_where(c, build_both(c, OP_LE, build_with(c, OP_SUB, place, (double)left), column), type);
    if (right >= 0)
        bias = plus(c, bias,
                    bias_where(c, build_both(c, OP_LE, column, build_with(c, OP_ADD, place, (double)right)), type));
    return bias;
}

/* Keys beyond a row's valid ones. */
static value padding_bias(struct call *c, dtype type, dim keys)
{
    value valid = call_use_as(c, 6, DT_I64);
    value place = graph_iota(c->g, DT_I64, 1, &keys, 0);
    return bias_where(c, build_both(c, OP_LT, place, per_row(c, valid)), type);
}

/* Rows that see nothing have probability 0 everywhere. */
static value without_empty_rows(struct call *c, value probability, value bias)
{
    int32_t last = (int32_t)call_rank(c, bias) - 1;
    value top = build_reduce(c, OP_REDUCE_MAX, bias, 1, &last, true);
    value lowest = graph_scalar_f64(c->g, call_type(c, bias), -(double)INFINITY);
    value empty = build_both(c, OP_EQ, top, lowest);
    return build_choose(c, empty, build_real(c, call_type(c, probability), 0), probability);
}

struct heads {
    value q, k, v; /* [batch, heads, sequence, size] */
};

static struct heads read_heads(struct call *c)
{
    struct heads h;
    h.q = split_heads(c, call_use(c, 0), "q_num_heads");
    h.k = split_heads(c, call_use(c, 1), "kv_num_heads");
    h.v = split_heads(c, call_use(c, 2), "kv_num_heads");
    call_agree(c, call_shape(c, h.q)[0], call_shape(c, h.k)[0], "batches of queries and keys");
    call_agree(c, call_shape(c, h.k)[2], call_shape(c, h.v)[2], "numbers of keys and values");
    h.k = append(c, 4, h.k);
    h.v = append(c, 5, h.v);
    call_set(c, 1, h.k);
    call_set(c, 2, h.v);
    return h;
}

/* Scores after scale, softcap and bias; output 3 shows one of the stages. */
static value scores_of(struct call *c, const struct heads *h, value *bias, bool *masked, dtype work)
{
    double cap = attribute_real(c, "softcap", 0), scale = 0;
    int64_t size = 0, stage = attribute_int(c, "qk_matmul_output_mode", 0);
    dtype type = call_type(c, h->q);
    if (attribute(c, "scale"))
        scale = attribute_real(c, "scale", 1);
    else if (dim_is_const(c->t, call_shape(c, h->q)[3], &size) && size > 0)
        scale = 1 / sqrt((double)size);
    else
        call_unsupported(c, "a symbolic head size");
    dim heads = call_shape(c, h->q)[1], queries = call_shape(c, h->q)[2], keys = call_shape(c, h->k)[2];
    value q = build_with(c, OP_MUL, h->q, sqrt(scale));
    value k = build_with(c, OP_MUL, repeat_heads(c, h->k, heads), sqrt(scale));
    value scores = graph_dot(c->g, q, k, 2, 1);
    if (stage == 0)
        call_set(c, 3, scores);
    scores = graph_cast(c->g, scores, work);
    if (cap != 0) {
        value t = graph_unary(c->g, OP_TANH, build_with(c, OP_DIV, scores, cap));
        scores = build_with(c, OP_MUL, t, cap);
    }
    if (stage == 1)
        call_set(c, 3, graph_cast(c->g, scores, type));
    bool window = attribute_int(c, "left_window_size", -1) != -1 || attribute_int(c, "right_window_size", -1) != -1;
    *masked = call_has(c, 3) || call_has(c, 6) || window;
    *bias = call_has(c, 3) ? given_bias(c, work, keys) : 0;
    *bias = plus(c, *bias, attribute_int(c, "is_causal", 0) ? causal_bias(c, work, queries, keys) : 0);
    *bias = plus(c, *bias, window ? window_bias(c, work, queries, keys) : 0);
    *bias = plus(c, *bias, call_has(c, 6) ? padding_bias(c, work, keys) : 0);
    scores = *bias ? build_both(c, OP_ADD, scores, *bias) : scores;
    if (stage == 2)
        call_set(c, 3, graph_cast(c->g, scores, type));
    return scores;
}

void lower_attention(struct call *c)
{
    struct heads h = read_heads(c);
    value bias = 0;
    bool masked = false;
    dtype type = call_type(c, h.q), work = type == DT_F16 || type == DT_BF16 ? DT_F32 : type;
    value scores = scores_of(c, &h, &bias, &masked, work);
    int64_t precision = attribute_int(c, "softmax_precision", 0);
    dtype exact = precision ? dtype_from_onnx(precision) : work;
    if (!dtype_is_float(exact))
        call_unsupported(c, "softmax_precision %lld", (long long)precision);
    value probability = build_softmax(c, graph_cast(c->g, scores, exact), 3, 1, false);
    if (masked)
        probability = without_empty_rows(c, probability, bias);
    probability = graph_cast(c->g, probability, type);
    if (attribute_int(c, "qk_matmul_output_mode", 0) == 3)
        call_set(c, 3, probability);
    value v = repeat_heads(c, h.v, call_shape(c, h.q)[1]);
    value y = build_matmul(c, probability, v);
    if (call_in(c, 0)->rank == 3) {
        const int32_t order[] = {0, 2, 1, 3};
        y = graph_transpose(c->g, y, order);
        const dim *s = call_shape(c, y);
        y = build_reshape(c, y, 3, (dim[]){s[0], s[1], dim_mul(c->t, s[2], s[3])});
    }
    call_set(c, 0, y);
}
