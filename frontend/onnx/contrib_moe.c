/* frontend/onnx/contrib_moe.c - MoE and QMoE: a mixture of experts, evaluated densely.
 *
 * Every expert sees every token; what the router did not choose has weight 0. The second product contracts experts and their inner axis at
 * once, so experts can be cut as well as their insides, with one sum at the end.
 */
#include "frontend/onnx/contrib.h"

#include <math.h>

struct linear { /* one projection of all experts: inputs of weight, scales, zero points, bias; [experts, out, in] */
    uint32_t weight, scale, zero, bias;
};
#define NOTHING UINT32_MAX
enum { MIXTURE_PLAIN, MIXTURE_QUANTIZED }; /* the row's argument */

static bool has(const struct call *c, uint32_t input)
{
    return input != NOTHING && call_has(c, input);
}

/* ---- weights ------------------------------------------------------------------------------------------------ */

/* Scales [experts, out] or [experts, out, blocks] and the like as [experts, out, blocks, 1] */
static value over_blocks(struct call *c, value v)
{
    if (call_rank(c, v) == 2)
        v = build_unsqueeze(c, v, 2);
    if (call_rank(c, v) != 3)
        call_fail(c, "its scales have %u axes", call_rank(c, v));
    return build_unsqueeze(c, v, 3);
}

static value dequantized(struct call *c, const struct linear *l, int64_t bits, dtype type)
{
    dtype work = contrib_work(type);
    value packed = call_use(c, l->weight), scale = over_blocks(c, call_use_as(c, l->scale, work));
    if (call_rank(c, packed) != 3)
        call_fail(c, "its weights have %u axes, need 3", call_rank(c, packed));
    value w = contrib_unpack(c, packed, bits);
    dim own[3], blocks = call_shape(c, scale)[2];
    dims_copy(own, call_shape(c, w), 3);
    dim block = dim_exact_div(c->t, own[2], blocks);
    if (!dim_valid(block))
        call_fail(c, "its blocks do not divide its weights");
    w = graph_cast(c->g, build_reshape(c, w, 4, (dim[]){own[0], own[1], blocks, block}), work);
    if (!has(c, l->zero)) {
        w = build_with(c, OP_SUB, w, (double)(1 << (bits - 1)));
    } else {
        value zero = call_use(c, l->zero);
        zero = over_blocks(c, contrib_unpack_some(c, zero, bits, call_rank(c, zero) == 2 ? own[1] : blocks));
        w = build_both(c, OP_SUB, w, graph_cast(c->g, zero, work));
    }
    w = graph_cast(c->g, build_both(c, OP_MUL, w, scale), type);
    return build_reshape(c, w, 3, own);
}

static value weight_of(struct call *c, const struct linear *l, const char *bits_name, dtype type)
{
    if (has(c, l->scale))
        return dequantized(c, l, contrib_bits(c, bits_name, attribute_int(c, "expert_weight_bits", 4)), type);
    value w = call_use(c, l->weight);
    if (call_rank(c, w) != 3 || call_type(c, w) != type)
        call_fail(c, "its experts' weights are not [experts, out, in] of the input's type");
    return w;
}

/* x [tokens, in] -> [tokens, experts, out] */
static value project(struct call *c, value x, const struct linear *l, const char *bits_name)
{
    value w = weight_of(c, l, bits_name, call_type(c, x));
    call_agree(c, call_shape(c, x)[1], call_shape(c, w)[2], "inner dimensions");
    value y = graph_dot(c->g, x, w, 0, 1);
    return has(c, l->bias) ? build_both(c, OP_ADD, y, call_use(c, l->bias)) : y;
}

/* ---- activations -------------------------------------------------------------------------------------------- */

/* gate * sigmoid(alpha * gate) * (linear + beta), both kept within the limit */
static value swiglu(struct call *c, value gate, value linear)
{
    double alpha = attribute_real(c, "activation_alpha", 1), beta = attribute_real(c, "activation_beta", 0);
    double limit = attribute_real(c, "swiglu_limit", INFINITY);
    if (isfinite(limit)) {
        gate = build_with(c, OP_MIN, gate, limit);
        linear = build_with(c, OP_MAX, build_with(c, OP_MIN, linear, limit), -limit);
    }
    value inner = alpha == 1 ? gate : build_with(c, OP_MUL, gate, alpha);
    gate = build_both(c, OP_MUL, gate, contrib_sigmoid(c, inner));
    return build_both(c, OP_MUL, gate, beta == 0 ? linear : build_with(c, OP_ADD, linear, beta));
}

/* gate and linear out of one projection: [.., inner, 2] or [.., 2, inner] on the last axis */
static value swiglu_fused(struct call *c, value h, bool interleaved)
{
    dim own[MAX_RANK], two = call_const(c, 2);
    uint32_t rank = call_rank(c, h);
    dims_copy(own, call_shape(c, h), rank);
    dim inner = dim_exact_div(c->t, own[rank - 1], two);
    if (!dim_valid(inner))
        call_fail(c, "an odd number of rows holds no two projections");
    own[rank - 1] = interleaved ? inner : two;
    own[rank] = interleaved ? two : inner;
    uint32_t axis = interleaved ? rank : rank - 1;
    value pair = build_reshape(c, h, rank + 1, own), part[2];
    for (uint32_t i = 0; i < 2; i++)
        part[i] = build_squeeze(c, build_slice_axis(c, pair, axis, call_const(c, i), call_const(c, 1)), axis);
    return swiglu(c, part[0], part[1]);
}

static value activated(struct call *c, value h, value third)
{
    const char *name = attribute_text(c, "activation_type", "relu");
    int64_t fusion = attribute_int(c, "swiglu_fusion", 0);
    if (strcmp(name, "swiglu") == 0) {
        if (fusion == 0 && !third)
            call_unsupported(c, "swiglu without a third projection");
        return fusion ? swiglu_fused(c, h, fusion == 1) : swiglu(c, h, third);
    }
    if (strcmp(name, "relu") == 0)
        h = build_with(c, OP_MAX, h, 0);
    else if (strcmp(name, "gelu") == 0)
        h = contrib_gelu_tanh(c, h);
    else if (strcmp(name, "silu") == 0)
        h = graph_binary(c->g, OP_MUL, h, contrib_sigmoid(c, h));
    else if (strcmp(name, "identity") != 0)
        call_unsupported(c, "activation '%s'", name);
    return third ? build_both(c, OP_MUL, h, third) : h;
}

/* ---- routing ------------------------------------------------------------------------------------------------ */

/* [tokens, experts]: true for the k highest of each row */
static value chosen(struct call *c, value scores, int64_t k)
{
    dim shape[3] = {call_shape(c, scores)[0], call_const(c, k), call_shape(c, scores)[1]};
    int32_t axis = 1;
    value best = build_unsqueeze(c, graph_topk(c->g, scores, 1, call_const(c, k), false), 2);
    value same = graph_binary(c->g, OP_EQ, graph_iota(c->g, DT_I64, 3, shape, 2), build_expand(c, best, 3, shape));
    return graph_reduce(c->g, OP_REDUCE_MAX, same, 1, &axis);
}

/* The weight of each expert for each token: softmax over all, or (normalised) over the chosen ones; 0 for the others. Quantised experts are
 * weighted by the latter whatever the attribute says, as ONNX Runtime does. */
static value routing(struct call *c, dtype type, uint32_t given)
{
    int64_t k = attribute_int(c, "k", 1), experts = 0;
    bool asked = attribute_int(c, "normalize_routing_weights", 0) != 0,
         normalized = asked || c->argument == MIXTURE_QUANTIZED;
    value scores = call_use(c, 1);
    int32_t last = 1;
    if (call_rank(c, scores) != 2 || !dim_is_const(c->t, call_shape(c, scores)[1], &experts) || k < 1 || k > experts)
        call_fail(c, "chooses %lld of %lld experts", (long long)k, (long long)experts);
    if (attribute_int(c, "use_sparse_mixer", 0))
        call_unsupported(c, "use_sparse_mixer");
    scores = graph_cast(c->g, scores, contrib_work(call_type(c, scores)));
    value pick = chosen(c, scores, k), none = build_real(c, call_type(c, scores), 0);
    if (!has(c, given)) {
        if (normalized)
            scores = build_both(c, OP_ADD, scores, contrib_keep(c, pick, call_type(c, scores)));
        value p = build_softmax(c, scores, 1, 1, false);
        return graph_cast(c->g, normalized ? p : build_choose(c, pick, p, none), type);
    }
    value p = build_choose(c, pick, call_use_as(c, given, call_type(c, scores)), none);
    if (asked)
        p = build_both(c, OP_DIV, p, build_reduce(c, OP_REDUCE_SUM, p, 1, &last, true));
    return graph_cast(c->g, p, type);
}

/* ---- the operators ------------------------------------------------------------------------------------------ */

/* sum over e of p[t, e] * (W2[e] h[t, e] + b2[e]) */
static value combine(struct call *c, value h, value p, const struct linear *l)
{
    static const int32_t out_first[] = {1, 0, 2}, swap[] = {1, 0};
    value w = weight_of(c, l, "fc2_expert_weight_bits", call_type(c, h));
    for (uint32_t k = 0; k < 2; k++)
        call_agree(c, call_shape(c, h)[k + 1], call_shape(c, w)[k ? 2 : 0], "experts' extents");
    h = build_both(c, OP_MUL, h, build_unsqueeze(c, p, 2));
    value y = graph_dot(c->g, h, graph_transpose(c->g, w, out_first), 0, 2);
    if (has(c, l->bias) && call_in(c, l->bias)->rank != 2)
        call_fail(c, "its bias has %u axes, needs 2", call_in(c, l->bias)->rank);
    if (has(c, l->bias))
        y = graph_binary(c->g, OP_ADD, y, graph_dot(c->g, p, graph_transpose(c->g, call_use(c, l->bias), swap), 0, 1));
    return y;
}

static void mixture(struct call *c, const struct linear fc[3], uint32_t router_weights)
{
    value x = call_use(c, 0);
    dim own[MAX_RANK], tokens = call_const(c, 1);
    uint32_t rank = call_rank(c, x);
    if (rank != 2 && rank != 3)
        call_fail(c, "needs two or three axes, has %u", rank);
    dims_copy(own, call_shape(c, x), rank);
    for (uint32_t k = 0; k + 1 < rank; k++)
        tokens = dim_mul(c->t, tokens, own[k]);
    if (call_in(c, 1)->rank != 2)
        call_fail(c, "its router has %u axes, needs 2", call_in(c, 1)->rank);
    call_agree(c, tokens, call_in(c, 1)->shape[0], "tokens and rows of the router");
    tokens = dim_resolve(c->t, tokens);
    x = build_reshape(c, x, 2, (dim[]){tokens, own[rank - 1]});
    value p = routing(c, call_type(c, x), router_weights);
    value h = project(c, x, &fc[0], "fc1_expert_weight_bits");
    value third = has(c, fc[2].weight) ? project(c, x, &fc[2], "fc3_expert_weight_bits") : 0;
    value y = combine(c, activated(c, h, third), p, &fc[1]);
    for (uint32_t k = 0; k < rank; k++)
        own[k] = dim_resolve(c->t, own[k]);
    call_set(c, 0, build_reshape(c, y, rank, own));
}

void lower_contrib_moe(struct call *c)
{
    static const struct linear fc[3] = {{2, NOTHING, NOTHING, 3}, {4, NOTHING, NOTHING, 5}, {6, NOTHING, NOTHING, 7}};
    mixture(c, fc, NOTHING);
}

void lower_contrib_qmoe(struct call *c)
{
    static const struct linear fc[3] = {{2, 3, 11, 4}, {5, 6, 12, 7}, {8, 9, 13, 10}};
    if (strcmp(attribute_text(c, "quant_type", "int"), "int") != 0)
        call_unsupported(c, "weights of type '%s'", attribute_text(c, "quant_type", "int"));
    if (attribute_int(c, "weights_prepacked", 0) > 0)
        call_unsupported(c, "prepacked weights");
    if (!call_has(c, 3) || !call_has(c, 6))
        call_fail(c, "has no scales");
    mixture(c, fc, 14);
}
