/* frontend/onnx/contrib_group.c - com.microsoft's GroupQueryAttention: grouped heads, rotation, and a cache, in one operator.
 *
 * Row b of the batch holds seqlens_k[b] + 1 tokens once the new ones are in: they take the places from past_b = seqlens_k[b] + 1 - sequence on
 * (a first prompt may be padded at the right, then that is 0), and query i of the row sees the keys up to place past_b + i. The cache
 * that goes out is as long as total_sequence_length, or as the cache that came in where that is longer: so one graph serves caches that grow and
 * buffers that past and present share. What lies behind a row's last token is not specified.
 */
#include "frontend/onnx/contrib.h"

struct group {
    value q, k, v;       /* [batch, heads, sequence, size]; k, v with key-value heads, at last the whole cache's */
    value past, last;    /* [batch]: tokens before the new ones, the last token's place */
    dim batch, sequence; /* of the new tokens */
    dim keys;            /* how long the cache is */
    dim total;           /* as total_sequence_length says */
    dtype work;
};

static void refuse_other_forms(struct call *c)
{
    if (attribute_int(c, "sliding_window_cache", 0))
        call_unsupported(c, "a cache as short as its window");
    if (strcmp(attribute_text(c, "k_quant_type", "NONE"), "NONE") != 0 ||
        strcmp(attribute_text(c, "v_quant_type", "NONE"), "NONE") != 0)
        call_unsupported(c, "a quantised cache");
    if (call_has(c, 12) || call_has(c, 13))
        call_unsupported(c, "a quantised cache");
    if (call_has(c, 3) != call_has(c, 4))
        call_fail(c, "has one of past_key and past_value only");
}

/* [batch, sequence, (heads + 2 kv) * size] where keys and values are not given */
static void read_packed(struct call *c, struct group *g, int64_t heads, int64_t kv)
{
    value x = call_use(c, 0), part[3];
    int64_t count[3] = {heads, kv, kv};
    dim size =
        call_rank(c, x) == 3 ? dim_exact_div(c->t, call_shape(c, x)[2], call_const(c, heads + 2 * kv)) : DIM_NONE;
    dim at = call_const(c, 0);
    if (!dim_valid(size))
        call_fail(c, "%lld + 2 * %lld heads do not divide the hidden size", (long long)heads, (long long)kv);
    for (uint32_t i = 0; i < 3; i++) {
        dim extent = dim_mul(c->t, size, call_const(c, count[i]));
        part[i] = contrib_split_heads(c, build_slice_axis(c, x, 2, at, extent), count[i]);
        at = dim_add(c->t, at, extent);
    }
    g->q = part[0];
    g->k = part[1];
    g->v = part[2];
}

static void read_heads(struct call *c, struct group *g)
{
    int64_t heads = attribute_int(c, "num_heads", 0), kv = attribute_int(c, "kv_num_heads", 0);
    if (heads < 1 || kv < 1 || heads % kv || heads > INT32_MAX)
        call_fail(c, "%lld heads for queries and %lld for keys", (long long)heads, (long long)kv);
    if (call_has(c, 1) != call_has(c, 2))
        call_fail(c, "has one of key and value only");
    if (call_has(c, 1)) {
        g->q = contrib_split_heads(c, call_use(c, 0), heads);
        g->k = contrib_split_heads(c, call_use(c, 1), kv);
        g->v = contrib_split_heads(c, call_use(c, 2), kv);
        call_agree(c, call_shape(c, g->q)[2], call_shape(c, g->k)[2], "numbers of queries and keys");
        call_agree(c, call_shape(c, g->k)[2], call_shape(c, g->v)[2], "numbers of keys and values");
    } else {
        read_packed(c, g, heads, kv);
    }
    g->batch = call_shape(c, g->q)[0];
    g->sequence = call_shape(c, g->q)[2];
}

/* Each head's q and k by their root mean square, where weights for that are given */
static void normalize_heads(struct call *c, struct group *g)
{
    double epsilon = attribute_real(c, "qk_norm_epsilon", 1e-6);
    value *of[2] = {&g->q, &g->k};
    if (call_has(c, 14) != call_has(c, 15))
        call_fail(c, "has one of q_norm_weight and k_norm_weight only");
    for (uint32_t i = 0; i < 2 && call_has(c, 14); i++) {
        struct normed n = contrib_normalize(c, *of[i], 3, epsilon, false);
        *of[i] = build_both(c, OP_MUL, n.y, call_use(c, 14 + i));
    }
}

static void count_past(struct call *c, struct group *g)
{
    uint32_t count = 0;
    value lengths = call_use_as(c, 5, DT_I64);
    if (call_rank(c, lengths) == 2 && dim_is(c->t, call_shape(c, lengths)[1], 1))
        lengths = build_squeeze(c, lengths, 1);
    if (call_rank(c, lengths) != 1)
        call_fail(c, "seqlens_k has %u axes, needs 1", call_rank(c, lengths));
    g->batch = call_agree(c, call_shape(c, lengths)[0], g->batch, "extents of seqlens_k and the batch");
    value before = build_with(c, OP_ADD, lengths, 1);
    before = build_both(c, OP_SUB, before, graph_dim(c->g, g->sequence));
    g->past = build_with(c, OP_MAX, before, 0);
    g->last = build_with(c, OP_MAX, lengths, 0);
    const dim *total = call_dims(c, 6, &count);
    if (count != 1)
        call_fail(c, "total_sequence_length has %u numbers", count);
    g->total = total[0];
}

/* past + 0, 1, .. as [batch, sequence] */
static value places(struct call *c, const struct group *g)
{
    dim shape[2] = {g->batch, g->sequence};
    return build_both(c, OP_ADD, graph_iota(c->g, DT_I64, 2, shape, 1), build_unsqueeze(c, g->past, 1));
}

static void rotate_heads(struct call *c, struct group *g)
{
    bool interleaved = attribute_int(c, "rotary_interleaved", 0) != 0;
    value positions = places(c, g);
    dim rows = g->total; /* only the first rows of a cache of angles are asked for, unless positions are given */
    if (!attribute_int(c, "do_rotary", 0))
        return;
    if (call_has(c, 9)) {
        if (call_in(c, 9)->rank != 2)
            call_fail(c, "position_ids has %u axes, needs 2", call_in(c, 9)->rank);
        positions = build_expand(c, call_use_as(c, 9, DT_I64), 2, (dim[]){g->batch, g->sequence});
        rows = DIM_NONE;
    }
    value cosine = contrib_rotary_table(c, 7, positions, rows), sine = contrib_rotary_table(c, 8, positions, rows);
    g->q = contrib_rotate(c, g->q, cosine, sine, interleaved);
    g->k = contrib_rotate(c, g->k, cosine, sine, interleaved);
}

/* The importer finds a state where an output is its input with something written in; here the input is made longer before, so it is said. */
static void note_state(struct call *c, value cache, uint32_t output)
{
    const Onnx__GraphProto *graph = c->im->model->graph;
    const struct node *n = graph_node(c->g, cache);
    if (n->op != OP_INPUT || !call_wants(c, output) || *c->frame->prefix)
        return;
    for (uint32_t i = 0; i < c->g->states.count; i++)
        if (c->g->states.at[i].input == n->attribute.index)
            return;
    for (size_t i = 0; i < graph->n_output; i++) {
        if (graph->output[i]->name && strcmp(graph->output[i]->name, c->proto->output[output]) == 0) {
            *PUSH(c->g->arena, &c->g->states) =
                (struct state){.input = n->attribute.index, .output = (uint32_t)i, .axis = 2, .appended = false};
            return;
        }
    }
}

/* The cache with x written to the rows' places; x itself where nothing came in. */
static value write_cache(struct call *c, struct group *g, uint32_t input, uint32_t output, value x)
{
    dim zero = call_const(c, 0), before[4] = {zero, zero, zero, zero}, shape[4];
    if (!call_has(c, input)) {
        g->keys = call_shape(c, x)[2];
        return x;
    }
    value cache = call_use(c, input);
    if (call_rank(c, cache) != 4 || call_type(c, cache) != call_type(c, x))
        call_fail(c, "its cache is no value of four axes like its keys");
    for (uint32_t k = 0; k < 4; k++)
        if (k != 2)
            call_agree(c, call_shape(c, cache)[k], call_shape(c, x)[k], "extents of past and new entries");
    dims_copy(shape, call_shape(c, cache), 4);
    g->total = dim_resolve(c->t, g->total);
    g->keys = shape[2] = dim_max(c->t, g->total, shape[2]);
    if (shape[2] != call_shape(c, cache)[2]) {
        note_state(c, cache, output);
        cache = graph_pad(c->g, cache, build_real(c, call_type(c, x), 0), before, shape);
    }
    return graph_scatter(c->g, cache, places(c, g), x, 2, 1, SCATTER_SET);
}

/* Which keys a query sees: [batch, 1, sequence, keys] */
static value seen(struct call *c, const struct group *g)
{
    int64_t window = attribute_int(c, "local_window_size", -1);
    dim one = call_const(c, 1), plane[2] = {g->sequence, g->keys}, row_shape[4] = {g->batch, one, one, one};
    value column = graph_iota(c->g, DT_I64, 2, plane, 1);
    value past = build_reshape(c, g->past, 4, row_shape), last = build_reshape(c, g->last, 4, row_shape);
    if (!attribute_int(c, "causal", 1))
        return build_both(c, OP_LE, column, last);
    value row = build_both(c, OP_ADD, graph_iota(c->g, DT_I64, 2, plane, 0), past);
    row = build_both(c, OP_MIN, row, last); /* padding sees what the row's last token does */
    value keep = build_both(c, OP_LE, column, row);
    if (window > 0) {
        value first = build_with(c, OP_SUB, row, (double)window);
        keep = build_both(c, OP_AND, keep, build_both(c, OP_LT, first, column));
    }
    return keep;
}

/* attention_bias has a column per token, the cache may be longer. */
static value given_bias(struct call *c, const struct group *g)
{
    if (!call_has(c, 10))
        return 0;
    value bias = call_use_as(c, 10, g->work);
    uint32_t rank = call_rank(c, bias);
    dim zero = call_const(c, 0), before[4] = {zero, zero, zero, zero}, shape[4];
    if (rank != 4)
        call_fail(c, "attention_bias has %u axes, needs 4", rank);
    dims_copy(shape, call_shape(c, bias), 4);
    if (shape[3] == g->keys || !dim_provably_ge(c->t, g->keys, shape[3]))
        return bias;
    shape[3] = g->keys;
    return graph_pad(c->g, bias, build_real(c, g->work, 0), before, shape);
}

/* One more score per head whose probability is dropped */
static value sink_of(struct call *c, const struct group *g)
{
    if (call_has(c, 11))
        return build_reshape(c, call_use_as(c, 11, g->work), 4,
                             (dim[]){call_const(c, 1), call_shape(c, g->q)[1], call_const(c, 1), call_const(c, 1)});
    return attribute_int(c, "smooth_softmax", 0) > 0 ? build_real(c, g->work, 0) : 0;
}

/* Output 3: the scores (0 where a key is not seen) or the probabilities, of the tokens that there are */
static void show(struct call *c, const struct group *g, value keep, value scores, value probability)
{
    int64_t stage = attribute_int(c, "qk_output", 0);
    if (!call_wants(c, 3))
        return;
    if (stage != 1 && stage != 2)
        call_fail(c, "has an output for scores, and qk_output is %lld", (long long)stage);
    value zero = build_real(c, g->work, 0), y = stage == 1 ? build_choose(c, keep, scores, zero) : probability;
    if (dim_resolve(c->t, g->total) != g->keys)
        y = build_slice_axis(c, y, 3, call_const(c, 0), dim_resolve(c->t, g->total));
    call_set(c, 3, graph_cast(c->g, y, call_type(c, g->q)));
}

void lower_contrib_groupquery(struct call *c)
{
    struct group g = {0};
    refuse_other_forms(c);
    read_heads(c, &g);
    normalize_heads(c, &g);
    count_past(c, &g);
    rotate_heads(c, &g);
    dtype type = call_type(c, g.q);
    g.work = contrib_work(type);
    g.k = write_cache(c, &g, 3, 1, g.k);
    g.v = write_cache(c, &g, 4, 2, g.v);
    call_set(c, 1, g.k);
    call_set(c, 2, g.v);
    dim heads = call_shape(c, g.q)[1];
    double cap = attribute_real(c, "softcap", 0);
    value q = build_with(c, OP_MUL, g.q, contrib_scale(c, g.q)), keep = seen(c, &g);
    value scores = graph_cast(c->g, graph_dot(c->g, q, contrib_repeat_heads(c, g.k, heads), 2, 1), g.work);
    if (cap > 0)
        scores = build_with(c, OP_MUL, graph_unary(c->g, OP_TANH, build_with(c, OP_DIV, scores, cap)), cap);
    scores = contrib_plus(c, scores, given_bias(c, &g));
    value masked = build_both(c, OP_ADD, scores, contrib_keep(c, keep, g.work));
    value probability = contrib_softmax(c, masked, sink_of(c, &g));
    show(c, &g, keep, scores, probability);
    probability = graph_cast(c->g, probability, type);
    value y = build_matmul(c, probability, contrib_repeat_heads(c, g.v, heads));
    call_set(c, 0, contrib_merge_heads(c, y));
}
