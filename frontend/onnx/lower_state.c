/* frontend/onnx/lower_state.c - operators that carry a state along the sequence: LinearAttention and CausalConvWithState; and FlexAttention.
 *
 * LinearAttention's recurrence S = decay * S + k (x) v has a closed form where nothing is subtracted from v: scores under a triangular
 * matrix of decays, for any length. The delta rules, and decays per element, are unrolled token by token.
 */
#include "frontend/onnx/compose.h"

#include <math.h>

/* ---- LinearAttention ---------------------------------------------------------------------------------------- */

struct recurrence {
    value q, k, v;     /* [batch, groups, repeats, tokens, size] of q; [batch, groups, tokens, size] of k and v */
    value decay, beta; /* [batch, groups, tokens, size or 1], or 0 */
    value state;       /* [batch, groups, key size, value size] */
    bool delta;
    double scale;
    dim batch, tokens, groups, repeats, key, size; /* size: of a value */
};

/* [batch, tokens, heads * size] -> [batch, heads, tokens, size] */
static value unpack(struct call *c, value x, dim heads, const char *what)
{
    const dim *s = call_shape(c, x);
    const int32_t order[] = {0, 2, 1, 3};
    dim size = call_rank(c, x) == 3 ? dim_exact_div(c->t, s[2], heads) : DIM_NONE;
    if (!dim_valid(size))
        call_fail(c, "its %s is not [batch, tokens, heads * size]", what);
    x = build_reshape(c, x, 4, (dim[]){s[0], s[1], heads, size});
    return graph_transpose(c->g, x, order);
}

static value unpack_work(struct call *c, uint32_t input, dim heads, const char *what)
{
    return unpack(c, graph_cast(c->g, call_use(c, input), compose_work(call_in(c, input)->dtype)), heads, what);
}

static void read_rule(struct call *c, bool *gated, bool *delta)
{
    const char *rule = attribute_text(c, "update_rule", "gated_delta");
    *gated = strcmp(rule, "gated") == 0 || strcmp(rule, "gated_delta") == 0;
    *delta = strcmp(rule, "delta") == 0 || strcmp(rule, "gated_delta") == 0;
    if (!*gated && !*delta && strcmp(rule, "linear") != 0)
        call_fail(c, "update_rule is '%s'", rule);
    if (*gated != call_has(c, 4) || *delta != call_has(c, 5))
        call_fail(c, "update_rule '%s' %s decay and %s beta", rule, *gated ? "needs" : "forbids",
                  *delta ? "needs" : "forbids");
}

static struct recurrence read_recurrence(struct call *c)
{
    struct recurrence r = {.delta = false};
    int64_t heads = attribute_int(c, "q_num_heads", 0), groups = attribute_int(c, "kv_num_heads", 0), size = 0;
    bool gated = false;
    read_rule(c, &gated, &r.delta);
    if (heads < 1 || groups < 1 || heads % groups != 0)
        call_fail(c, "%lld key-value heads do not divide %lld query heads", (long long)groups, (long long)heads);
    r.groups = call_const(c, groups);
    r.repeats = call_const(c, heads / groups);
    r.q = unpack_work(c, 0, call_const(c, heads), "query");
    r.k = unpack_work(c, 1, r.groups, "key");
    r.v = unpack_work(c, 2, r.groups, "value");
    r.batch = call_agree(c, call_shape(c, r.q)[0], call_shape(c, r.k)[0], "batches of queries and keys");
    r.tokens = call_agree(c, call_shape(c, r.q)[2], call_shape(c, r.k)[2], "lengths of queries and keys");
    r.key = call_agree(c, call_shape(c, r.q)[3], call_shape(c, r.k)[3], "sizes of queries and keys");
    call_agree(c, call_shape(c, r.k)[2], call_shape(c, r.v)[2], "lengths of keys and values");
    r.size = call_shape(c, r.v)[3];
    r.q = build_reshape(c, r.q, 5, (dim[]){r.batch, r.groups, r.repeats, r.tokens, r.key});
    if (gated)
        r.decay = unpack_work(c, 4, r.groups, "decay");
    if (r.delta) {
        bool shared = call_in(c, 5)->rank == 3 && dim_is(c->t, call_in(c, 5)->shape[2], 1);
        r.beta = unpack_work(c, 5, shared ? call_const(c, 1) : r.groups, "beta");
    }
    dim *const all[] = {&r.batch, &r.groups, &r.key, &r.size};
    for (uint32_t k = 0; k < 4 && call_has(c, 3); k++) {
        if (call_in(c, 3)->rank != 4)
            call_fail(c, "its past state has %u axes, four are expected", call_in(c, 3)->rank);
        call_agree(c, call_in(c, 3)->shape[k], *all[k], "the past state and what it is for");
    }
    r.tokens = dim_resolve(c->t, r.tokens);
    for (uint32_t k = 0; k < 4; k++)
        *all[k] = dim_resolve(c->t, *all[k]);
    dim state[4] = {r.batch, r.groups, r.key, r.size};
    dtype work = call_type(c, r.k);
    r.state = call_has(c, 3) ? call_use_as(c, 3, work) : build_full(c, work, 0, 4, state);
    r.scale = attribute_real(c, "scale", 0);
    if (r.scale == 0 && dim_is_const(c->t, r.key, &size) && size > 0)
        r.scale = 1 / sqrt((double)size);
    else if (r.scale == 0)
        call_unsupported(c, "a symbolic key size");
    return r;
}

/* q [batch, groups, repeats, (tokens,) key] . state [batch, groups, key, size], contracted over key */
static value read_state(struct call *c, value q, value state)
{
    return graph_dot(c->g, q, build_swap_last(c, state), 2, 1);
}

/* One token: place t of an axis 2, which leaves. */
static value token(struct call *c, value x, uint32_t t)
{
    return compose_at(c, x, 2, t);
}

static value unrolled(struct call *c, struct recurrence *r)
{
    uint32_t steps = compose_steps(c, r->tokens, "sequence of a recurrence");
    value *out = NEW_ARRAY(c->im->scratch, value, steps + 1);
    const int32_t key_axis = 2;
    if (steps == 0)
        call_unsupported(c, "an empty sequence");
    for (uint32_t t = 0; t < steps; t++) {
        value k = build_unsqueeze(c, token(c, r->k, t), 3), v = token(c, r->v, t); /* [b, g, key, 1], [b, g, size] */
        if (r->decay) {
            value g = build_unsqueeze(c, graph_unary(c->g, OP_EXP, token(c, r->decay, t)), 3);
            r->state = build_both(c, OP_MUL, r->state, g);
        }
        if (r->delta) {
            value known = graph_reduce(c->g, OP_REDUCE_SUM, build_both(c, OP_MUL, r->state, k), 1, &key_axis);
            v = build_both(c, OP_MUL, build_both(c, OP_SUB, v, known), token(c, r->beta, t));
        }
        r->state = build_both(c, OP_ADD, r->state, build_both(c, OP_MUL, k, build_unsqueeze(c, v, 2)));
        out[t] = read_state(c, compose_at(c, r->q, 3, t), r->state);
    }
    return compose_stack(c, steps, out, 3);
}

/* exp(G[t] - G[s]) for s <= t, else 0, where G sums the decays: [batch, groups, tokens, tokens]; 0 without decay. */
static value decay_between(struct call *c, value sums, dim tokens)
{
    dim plane[2] = {tokens, tokens};
    value row = compose_place(c, DT_I64, 2, plane, 0), column = compose_place(c, DT_I64, 2, plane, 1);
    value seen = build_both(c, OP_LE, column, row);
    value difference = build_both(c, OP_SUB, sums, build_swap_last(c, sums));
    value lowest = build_real(c, call_type(c, sums), -(double)INFINITY);
    return graph_unary(c->g, OP_EXP, build_choose(c, seen, difference, lowest));
}

/* out[t] = q[t] exp(G[t]) S + sum over s <= t of exp(G[t] - G[s]) (q[t] . k[s]) v[s], G being 0 where nothing decays. */
static value in_parallel(struct call *c, struct recurrence *r)
{
    dtype type = call_type(c, r->k);
    dim flat[4] = {r->batch, r->groups, r->tokens, call_const(c, 1)};
    value sums = r->decay ? graph_cumsum(c->g, r->decay, 2, false, false) : build_full(c, type, 0, 4, flat);
    value scores = graph_dot(c->g, r->q, r->k, 2, 1); /* [b, g, repeats, t, s] */
    value decays = build_unsqueeze(c, decay_between(c, sums, r->tokens), 2);
    scores = build_both(c, OP_MUL, scores, decays);
    value new_part = graph_dot(c->g, scores, build_swap_last(c, r->v), 2, 1);
    value grown = build_unsqueeze(c, graph_unary(c->g, OP_EXP, sums), 2);
    value out = build_both(c, OP_ADD, new_part, build_both(c, OP_MUL, read_state(c, r->q, r->state), grown));
    const int32_t token_axis = 2;
    value total = r->decay ? build_reduce(c, OP_REDUCE_SUM, r->decay, 1, &token_axis, true) : 0; /* [b, g, 1, 1] */
    value keys = r->k;
    if (r->decay) {
        value rest = build_both(c, OP_SUB, total, sums);
        keys = build_both(c, OP_MUL, keys, graph_unary(c->g, OP_EXP, rest));
        r->state = build_both(c, OP_MUL, r->state, graph_unary(c->g, OP_EXP, total));
    }
    value written = graph_dot(c->g, build_swap_last(c, keys), build_swap_last(c, r->v), 2, 1); /* [b, g, key, size] */
    r->state = build_both(c, OP_ADD, r->state, written);
    return out;
}

void lower_linearattention(struct call *c)
{
    struct recurrence r = read_recurrence(c);
    bool closed = !r.delta && (!r.decay || dim_is(c->t, call_shape(c, r.decay)[3], 1));
    value y = closed ? in_parallel(c, &r) : unrolled(c, &r); /* [b, g, repeats, t, size] */
    const int32_t order[] = {0, 3, 1, 2, 4};
    dim heads = dim_mul(c->t, r.groups, r.repeats);
    y = graph_transpose(c->g, build_with(c, OP_MUL, y, r.scale), order);
    y = build_reshape(c, y, 3, (dim[]){r.batch, r.tokens, dim_mul(c->t, heads, r.size)});
    call_set(c, 0, graph_cast(c->g, y, call_in(c, 0)->dtype));
    call_set(c, 1, graph_cast(c->g, r.state, call_in(c, call_has(c, 3) ? 3 : 0)->dtype));
}

/* ---- CausalConvWithState ------------------------------------------------------------------------------------ */

/* Each channel by its own kernel, over the past's last k - 1 elements and the new ones. */
void lower_causalconv(struct call *c)
{
    value x = call_use(c, 0), weight = call_use(c, 1), part[2];
    const char *activation = attribute_text(c, "activation", "none");
    bool swish = strcmp(activation, "silu") == 0 || strcmp(activation, "swish") == 0;
    if (!swish && strcmp(activation, "none") != 0)
        call_fail(c, "activation is '%s'", activation);
    if (call_rank(c, x) != 3 || call_rank(c, weight) != 3)
        call_fail(c, "needs [batch, channels, length] and [channels, 1, k]");
    dim batch = call_shape(c, x)[0], channels = call_shape(c, x)[1], length = call_shape(c, x)[2];
    int64_t k = compose_extent(c, call_shape(c, weight)[2], "kernel");
    dtype type = call_type(c, x), work = compose_work(type);
    if (k < 1 || k > INT32_MAX)
        call_fail(c, "a kernel of %lld elements", (long long)k);
    dim past[3] = {batch, channels, call_const(c, k - 1)};
    part[0] = call_has(c, 3) ? call_use(c, 3) : build_full(c, type, 0, 3, past);
    part[1] = x;
    value padded = k == 1 ? x : graph_concat(c->g, 2, part, 2);
    value windows = graph_cast(c->g, graph_window(c->g, padded, 2, (int32_t)k, 1, 1), work); /* [b, c, length, k] */
    value kernel =
        build_reshape(c, graph_cast(c->g, weight, work), 3, (dim[]){channels, call_const(c, 1), call_const(c, k)});
    const int32_t last = 3;
    value y = graph_reduce(c->g, OP_REDUCE_SUM, build_both(c, OP_MUL, windows, kernel), 1, &last);
    if (call_has(c, 2))
        y = build_both(c, OP_ADD, y, compose_along(c, call_use_as(c, 2, work), 1, 3));
    y = graph_cast(c->g, y, type); /* the convolution's result is rounded before its activation */
    if (swish) {
        value wide = graph_cast(c->g, y, work);
        y = graph_cast(c->g, graph_binary(c->g, OP_MUL, wide, compose_sigmoid(c, wide)), type);
    }
    call_set(c, 0, y);
    call_set(c, 1, build_slice_axis(c, padded, 2, length, call_const(c, k - 1)));
}

/* ---- FlexAttention ------------------------------------------------------------------------------------------ */

/* A graph attribute of one input and one output, where there is one. */
static value modify(struct call *c, const char *name, value x)
{
    if (!attribute(c, name))
        return x;
    struct body b = body_open(c, name, 1, 1);
    uint32_t in = body_value(c, x), out = 0;
    body_run(c, &b, &in, &out);
    value y = graph_cast(c->g, datum_use(c->im, out), call_type(c, x));
    graph_set_origin(c->g, c->origin);
    return y;
}

/* softmax(score_mod(scale * q k')) under prob_mod, times v; each key-value head serves several query heads */
void lower_flexattention(struct call *c)
{
    value q = call_use(c, 0), k = call_use(c, 1), v = call_use(c, 2);
    int64_t size = 0, precision = attribute_int(c, "softmax_precision", 0);
    dtype type = call_type(c, q), work = precision ? dtype_from_onnx(precision) : compose_work(type);
    if (call_rank(c, q) != 4 || call_rank(c, k) != 4 || call_rank(c, v) != 4)
        call_fail(c, "needs four axes");
    if (!dtype_is_float(work))
        call_unsupported(c, "softmax_precision %lld", (long long)precision);
    const dim *s = call_shape(c, q);
    dim heads = s[1], groups = call_shape(c, k)[1], repeats = dim_exact_div(c->t, heads, groups), own[4];
    memcpy(own, s, sizeof own);
    if (!dim_valid(repeats))
        call_fail(c, "its key-value heads do not divide its query heads");
    double scale = attribute_real(c, "scale", 0);
    if (!attribute(c, "scale")) {
        size = compose_extent(c, own[3], "head size");
        scale = size > 0 ? 1 / sqrt((double)size) : 1;
    }
    q = build_with(c, OP_MUL, q, sqrt(scale));
    k = build_with(c, OP_MUL, k, sqrt(scale));
    q = build_reshape(c, q, 5, (dim[]){own[0], groups, repeats, own[2], own[3]});
    value scores = graph_cast(c->g, graph_dot(c->g, q, k, 2, 1), work); /* [b, groups, repeats, l, s] */
    dim keys = call_shape(c, k)[2];
    scores = build_reshape(c, scores, 4, (dim[]){own[0], heads, own[2], keys});
    value probability = build_softmax(c, modify(c, "score_mod", scores), 3, 1, false);
    probability = modify(c, "prob_mod", probability);
    probability = build_reshape(c, probability, 5, (dim[]){own[0], groups, repeats, own[2], keys});
    value wide = graph_cast(c->g, v, work);
    value y = graph_dot(c->g, probability, build_swap_last(c, wide), 2, 1);
    y = build_reshape(c, y, 4, (dim[]){own[0], heads, own[2], call_shape(c, v)[3]});
    call_set(c, 0, graph_cast(c->g, y, call_type(c, v)));
}
