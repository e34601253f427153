/* frontend/onnx/contrib_attention.c - com.microsoft's Attention and MultiHeadAttention, as the products and sums that exporters write.
 *
 * Both add their masks to the scores: a finite number (mask_filter_value) where a key is padding, -inf where it comes later than the
 * query (unidirectional). GroupQueryAttention: contrib_group.c.
 */
#include "frontend/onnx/contrib.h"

struct heads {
    value q, k, v; /* [batch, heads, sequence, size] */
};

/* ---- masks -------------------------------------------------------------------------------------------------- */

/* mask_filter_value where false, as a bias */
static value filtered(struct call *c, value keep, dtype type)
{
    double filter = attribute_real(c, "mask_filter_value", -10000);
    return build_choose(c, keep, build_real(c, type, 0), build_real(c, type, filter));
}

/* [batch]: keys from this number on are padding. [2 * batch]: then also those before the numbers of the second half. */
static value length_bias(struct call *c, value mask, dim batch, dim keys, dtype type)
{
    dim one = call_const(c, 1), given = call_shape(c, mask)[0];
    dim column[4] = {batch, one, one, one};
    value place = graph_cast(c->g, graph_iota(c->g, DT_I64, 1, &keys, 0), call_type(c, mask));
    bool both = given == dim_add(c->t, batch, batch);
    if (!both)
        batch = column[0] = call_agree(c, given, batch, "extents of the mask and the batch");
    value end = build_reshape(c, build_slice_axis(c, mask, 0, call_const(c, 0), batch), 4, column);
    value keep = build_both(c, OP_LT, place, end);
    if (both) {
        value start = build_reshape(c, build_slice_axis(c, mask, 0, batch, batch), 4, column);
        keep = build_both(c, OP_AND, keep, build_both(c, OP_LE, start, place));
    }
    return filtered(c, keep, type);
}

/* A mask of 0 and 1, or of lengths, as a bias over [batch, heads, queries, keys] */
static value mask_bias(struct call *c, uint32_t input, dim batch, dim keys, dtype type)
{
    if (!call_has(c, input))
        return 0;
    value mask = call_use(c, input);
    uint32_t rank = call_rank(c, mask);
    if (rank == 1)
        return length_bias(c, mask, batch, keys, type);
    if (rank != 2 && rank != 3)
        call_unsupported(c, "a mask of %u axes", rank);
    call_agree(c, call_shape(c, mask)[rank - 1], keys, "extents of the mask and the keys");
    mask = call_use(c, input);
    value keep = build_both(c, OP_LT, build_real(c, call_type(c, mask), 0), mask);
    keep = build_unsqueeze(c, keep, 1);
    return filtered(c, rank == 2 ? build_unsqueeze(c, keep, 1) : keep, type);
}

/* Query i sees keys up to i, counted from the first key that is not past. */
static value causal_bias(struct call *c, dim queries, dim keys, dim past, dtype type)
{
    dim plane[2] = {queries, keys};
    if (!attribute_int(c, "unidirectional", 0) || dim_is(c->t, queries, 1))
        return 0;
    value row = graph_iota(c->g, DT_I64, 2, plane, 0), column = graph_iota(c->g, DT_I64, 2, plane, 1);
    row = build_both(c, OP_ADD, row, graph_dim(c->g, past));
    return contrib_keep(c, build_both(c, OP_LE, column, row), type);
}

/* ---- products ----------------------------------------------------------------------------------------------- */

static value attend(struct call *c, const struct heads *h, uint32_t mask, uint32_t bias_input, dim past,
                    value *scores_out)
{
    dtype type = call_type(c, h->q), work = contrib_work(type);
    dim batch = call_shape(c, h->q)[0], queries = call_shape(c, h->q)[2], keys = call_shape(c, h->k)[2];
    value q = build_with(c, OP_MUL, h->q, contrib_scale(c, h->q));
    call_agree(c, call_shape(c, h->q)[3], call_shape(c, h->k)[3], "head sizes of queries and keys");
    value scores = graph_cast(c->g, graph_dot(c->g, q, h->k, 2, 1), work);
    value bias = mask_bias(c, mask, batch, keys, work);
    bias = contrib_plus(c, bias, causal_bias(c, queries, keys, past, work));
    if (call_has(c, bias_input))
        bias = contrib_plus(c, bias, call_use_as(c, bias_input, work));
    if (bias)
        scores = build_both(c, OP_ADD, scores, bias);
    *scores_out = scores;
    value probability = graph_cast(c->g, contrib_softmax(c, scores, 0), type);
    return contrib_merge_heads(c, build_matmul(c, probability, h->v));
}

/* ---- Attention ---------------------------------------------------------------------------------------------- */

/* past [2, batch, heads, past, size] with k and v behind it; present is set, k and v become its halves. */
static dim extend_both(struct call *c, uint32_t input, struct heads *h)
{
    value part[2] = {build_unsqueeze(c, h->k, 0), 0};
    dim past = call_const(c, 0), zero = past, one = call_const(c, 1);
    if (!call_has(c, input) && !call_wants(c, 1))
        return past;
    part[1] = build_unsqueeze(c, h->v, 0);
    value present = graph_concat(c->g, 2, part, 0);
    if (call_has(c, input)) {
        part[1] = present;
        part[0] = call_use(c, input);
        if (call_rank(c, part[0]) != 5)
            call_fail(c, "its past has %u axes, needs 5", call_rank(c, part[0]));
        for (uint32_t k = 1; k < 5; k++)
            if (k != 3)
                call_agree(c, call_shape(c, part[0])[k], call_shape(c, present)[k], "extents of past and new entries");
        past = call_shape(c, part[0])[3];
        present = graph_concat(c->g, 2, part, 3);
    }
    call_set(c, 1, present);
    h->k = build_squeeze(c, build_slice_axis(c, present, 0, zero, one), 0);
    h->v = build_squeeze(c, build_slice_axis(c, present, 0, one, one), 0);
    return past;
}

/* input * weights + bias = q | k | v */
static struct heads project(struct call *c)
{
    int64_t heads = attribute_int(c, "num_heads", 0);
    uint32_t count = 0;
    const int64_t *sizes = attribute_ints(c, "qkv_hidden_sizes", &count);
    value x = call_use(c, 0), w = call_use(c, 1), part[3];
    if (call_rank(c, x) != 3 || call_rank(c, w) != 2)
        call_fail(c, "its input has %u axes and its weights %u", call_rank(c, x), call_rank(c, w));
    value all = build_matmul(c, x, w);
    if (call_has(c, 2))
        all = build_both(c, OP_ADD, all, call_use(c, 2));
    dim third = dim_exact_div(c->t, call_shape(c, all)[2], call_const(c, 3)), at = call_const(c, 0);
    if ((sizes && count != 3) || (!sizes && !dim_valid(third)))
        call_fail(c, "its weights do not hold three projections");
    for (uint32_t i = 0; i < 3; i++) {
        dim size = sizes ? call_const(c, sizes[i] < 0 ? 0 : sizes[i]) : third;
        part[i] = contrib_split_heads(c, build_slice_axis(c, all, 2, at, size), heads);
        at = dim_add(c->t, at, size);
    }
    return (struct heads){part[0], part[1], part[2]};
}

void lower_contrib_attention(struct call *c)
{
    value scores = 0;
    if (attribute_int(c, "do_rotary", 0))
        call_unsupported(c, "do_rotary");
    if (attribute_int(c, "past_present_share_buffer", 0) || call_has(c, 6))
        call_unsupported(c, "a buffer that past and present share");
    struct heads h = project(c);
    dim past = extend_both(c, 4, &h);
    call_set(c, 0, attend(c, &h, 3, 5, past, &scores));
}

/* ---- MultiHeadAttention ------------------------------------------------------------------------------------- */

/* Part i of the bias [q | k | v], whose sizes are those of the three */
static value biased(struct call *c, value x, dim at)
{
    if (!call_has(c, 3))
        return x;
    if (call_in(c, 3)->rank != 1)
        call_fail(c, "its bias has %u axes, needs 1", call_in(c, 3)->rank);
    return build_both(c, OP_ADD, x, build_slice_axis(c, call_use(c, 3), 0, at, call_shape(c, x)[2]));
}

/* x [batch, sequence, heads, n, size]: piece i as [batch, sequence, heads * size] */
static value unpacked(struct call *c, value x, int64_t n, int64_t i)
{
    if (!dim_is(c->t, call_shape(c, x)[3], n))
        call_fail(c, "packed heads need %lld pieces each", (long long)n);
    x = build_squeeze(c, build_slice_axis(c, x, 3, call_const(c, i), call_const(c, 1)), 3);
    const dim *s = call_shape(c, x);
    return build_reshape(c, x, 3, (dim[]){s[0], s[1], dim_mul(c->t, s[2], s[3])});
}

static struct heads read_heads(struct call *c)
{
    int64_t heads = attribute_int(c, "num_heads", 0);
    value q = call_use(c, 0), k = call_has(c, 1) ? call_use(c, 1) : 0, v = call_has(c, 2) ? call_use(c, 2) : 0;
    uint32_t rank_q = call_rank(c, q), rank_k = k ? call_rank(c, k) : 0;
    if (rank_q == 5) { /* q, k and v of each head together */
        k = unpacked(c, q, 3, 1);
        v = unpacked(c, q, 3, 2);
        q = unpacked(c, q, 3, 0);
    } else if (rank_k == 5) {
        v = unpacked(c, k, 2, 1);
        k = unpacked(c, k, 2, 0);
    } else if (rank_q != 3 || !k || !v || rank_k != call_rank(c, v) || (rank_k != 3 && rank_k != 4)) {
        call_fail(c, "queries, keys and values are neither packed nor of three axes each");
    }
    if (call_rank(c, q) != 3)
        call_fail(c, "its queries have %u axes, need 3", call_rank(c, q));
    dim hidden = call_shape(c, q)[2];
    q = contrib_split_heads(c, biased(c, q, call_const(c, 0)), heads);
    if (rank_k == 4) /* of another sequence, with their biases, by heads */
        return (struct heads){q, k, v};
    dim at = dim_add(c->t, hidden, call_shape(c, k)[2]);
    k = contrib_split_heads(c, biased(c, k, hidden), heads);
    v = contrib_split_heads(c, biased(c, v, at), heads);
    return (struct heads){q, k, v};
}

static value append(struct call *c, uint32_t input, value x)
{
    value part[2] = {call_use(c, input), x};
    if (call_rank(c, part[0]) != 4)
        call_fail(c, "its past has %u axes, needs 4", call_rank(c, part[0]));
    for (uint32_t k = 0; k < 4; k++)
        if (k != 2)
            call_agree(c, call_shape(c, part[0])[k], call_shape(c, x)[k], "extents of past and new entries");
    return graph_concat(c->g, 2, part, 2);
}

void lower_contrib_multihead(struct call *c)
{
    struct heads h = read_heads(c);
    dim past = call_const(c, 0);
    value scores = 0;
    if (call_has(c, 8) || call_has(c, 9))
        call_unsupported(c, "a buffer that past and present share");
    if (call_has(c, 6) != call_has(c, 7))
        call_fail(c, "has one of past_key and past_value only");
    if (call_has(c, 6)) {
        h.k = append(c, 6, h.k);
        past = call_in(c, 6)->shape[2];
        h.v = append(c, 7, h.v);
    }
    call_set(c, 1, h.k);
    call_set(c, 2, h.v);
    value y = attend(c, &h, 4, 5, past, &scores);
    call_set(c, 0, y);
    call_set(c, 3, graph_cast(c->g, scores, call_type(c, y)));
}
