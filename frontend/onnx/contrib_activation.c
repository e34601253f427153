/* frontend/onnx/contrib_activation.c - com.microsoft's Gelu family, and the activations that its fused operators name. */
#include "frontend/onnx/contrib.h"

#include <math.h>

value contrib_sigmoid(struct call *c, value x)
{
    value e = graph_unary(c->g, OP_EXP, graph_unary(c->g, OP_NEG, x));
    return graph_unary(c->g, OP_RECIP, build_with(c, OP_ADD, e, 1));
}

value contrib_gelu(struct call *c, value x)
{
    value erf = graph_unary(c->g, OP_ERF, build_with(c, OP_DIV, x, 1.4142135623730951));
    return build_with(c, OP_MUL, graph_binary(c->g, OP_MUL, x, build_with(c, OP_ADD, erf, 1)), 0.5);
}

value contrib_gelu_tanh(struct call *c, value x)
{
    value cube = graph_binary(c->g, OP_MUL, graph_binary(c->g, OP_MUL, x, x), x);
    value inner = graph_binary(c->g, OP_ADD, x, build_with(c, OP_MUL, cube, 0.044715));
    value t = graph_unary(c->g, OP_TANH, build_with(c, OP_MUL, inner, 0.7978845608028654));
    return graph_binary(c->g, OP_MUL, build_with(c, OP_MUL, x, 0.5), build_with(c, OP_ADD, t, 1));
}

/* ---- the family --------------------------------------------------------------------------------------------- */

void lower_contrib_gelu(struct call *c)
{
    call_set(c, 0, contrib_gelu(c, call_use(c, 0)));
}

void lower_contrib_biasgelu(struct call *c)
{
    call_set(c, 0, contrib_gelu(c, build_both(c, OP_ADD, call_use(c, 0), call_use(c, 1))));
}

void lower_contrib_fastgelu(struct call *c)
{
    value x = call_use(c, 0);
    if (call_has(c, 1))
        x = build_both(c, OP_ADD, x, call_use(c, 1));
    call_set(c, 0, contrib_gelu_tanh(c, x));
}

void lower_contrib_quickgelu(struct call *c)
{
    value x = call_use(c, 0);
    double alpha = attribute_real(c, "alpha", 1.702);
    value inner = alpha == 1 ? x : build_with(c, OP_MUL, x, alpha);
    call_set(c, 0, graph_binary(c->g, OP_MUL, x, contrib_sigmoid(c, inner)));
}

/* x + bias = left | right; left * gelu(right) */
void lower_contrib_biassplitgelu(struct call *c)
{
    value x = build_both(c, OP_ADD, call_use(c, 0), call_use(c, 1));
    uint32_t rank = call_rank(c, x);
    dim half = rank ? dim_exact_div(c->t, call_shape(c, x)[rank - 1], call_const(c, 2)) : DIM_NONE;
    if (!dim_valid(half))
        call_fail(c, "needs a last axis of even extent");
    value left = build_slice_axis(c, x, rank - 1, call_const(c, 0), half);
    value right = build_slice_axis(c, x, rank - 1, half, half);
    call_set(c, 0, graph_binary(c->g, OP_MUL, left, contrib_gelu(c, right)));
}

void lower_contrib_biasadd(struct call *c)
{
    value x = build_both(c, OP_ADD, call_use(c, 0), call_use(c, 1));
    call_set(c, 0, c->in_count > 2 ? build_both(c, OP_ADD, x, call_use(c, 2)) : x);
}

/* ---- by name ------------------------------------------------------------------------------------------------ */

value contrib_activate(struct call *c, value x)
{
    const char *name = attribute_text(c, "activation", "");
    double alpha = attribute_real(c, "activation_alpha", NAN), beta = attribute_real(c, "activation_beta", NAN);
    if (!*name || strcmp(name, "Identity") == 0)
        return x;
    if (strcmp(name, "Relu") == 0)
        return build_with(c, OP_MAX, x, 0);
    if (strcmp(name, "Tanh") == 0)
        return graph_unary(c->g, OP_TANH, x);
    if (strcmp(name, "Sigmoid") == 0)
        return contrib_sigmoid(c, x);
    if (strcmp(name, "Gelu") == 0)
        return contrib_gelu(c, x);
    if (strcmp(name, "LeakyRelu") == 0) {
        value below = build_with(c, OP_MUL, x, isnan(alpha) ? attribute_real(c, "leaky_relu_alpha", 0.01) : alpha);
        value zero = build_full(c, call_type(c, x), 0, call_rank(c, x), call_shape(c, x));
        return graph_select(c->g, graph_binary(c->g, OP_LT, zero, x), x, below);
    }
    if (strcmp(name, "HardSigmoid") == 0) {
        value line = build_with(c, OP_MUL, x, isnan(alpha) ? 0.2 : alpha);
        line = build_with(c, OP_ADD, line, isnan(beta) ? 0.5 : beta);
        return build_with(c, OP_MIN, build_with(c, OP_MAX, line, 0), 1);
    }
    call_unsupported(c, "activation '%s'", name);
}
