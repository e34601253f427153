/* frontend/onnx/lower_activation.c - activation functions, each as the arithmetic that defines it. */
#include "frontend/onnx/lower.h"

static value unary(struct call *c, op o, value v)
{
    return graph_unary(c->g, o, v);
}

static value binary(struct call *c, op o, value a, value b)
{
    return graph_binary(c->g, o, a, b);
}

/* 1 / (1 + exp(-x)) */
static value sigmoid(struct call *c, value x)
{
    value e = unary(c, OP_EXP, unary(c, OP_NEG, x));
    return unary(c, OP_RECIP, build_with(c, OP_ADD, e, 1));
}

/* log(1 + exp(x)) without overflow: max(x, 0) + log1p(exp(-|x|)) */
static value softplus(struct call *c, value x)
{
    value e = unary(c, OP_EXP, unary(c, OP_NEG, unary(c, OP_ABS, x)));
    return binary(c, OP_ADD, build_with(c, OP_MAX, x, 0), unary(c, OP_LOG1P, e));
}

/* positive where x > 0 (orequal: >=), else negative */
static value by_sign(struct call *c, value x, value positive, value negative)
{
    value zero = build_full(c, call_type(c, x), 0, call_rank(c, x), call_shape(c, x));
    return graph_select(c->g, binary(c, OP_LT, zero, x), positive, negative);
}

void lower_sigmoid(struct call *c)
{
    call_set(c, 0, sigmoid(c, call_use(c, 0)));
}

static const struct formula *relu_element(void *context, const dim *index)
{
    struct call *c = context;
    struct symbolic *s = &c->im->s;
    const struct datum *d = call_in(c, 0);
    return formula_binary(s, OP_MAX, d->dtype, content_at(s, d->content, d->rank, d->shape, index), formula_int(s, 0));
}

/* Extents are clamped by it too (the trip count of a Range that is written out). */
void lower_relu(struct call *c)
{
    const struct datum *d = call_in(c, 0);
    const struct content *known = d->content ? content_make(&c->im->s, d->rank, d->shape, relu_element, c) : NULL;
    if (known)
        call_set_content(c, 0, d->dtype, d->rank, d->shape, known);
    else
        call_set(c, 0, build_with(c, OP_MAX, call_use(c, 0), 0));
}

void lower_leakyrelu(struct call *c)
{
    value x = call_use(c, 0);
    call_set(c, 0, by_sign(c, x, x, build_with(c, OP_MUL, x, attribute_real(c, "alpha", 0.01))));
}

void lower_prelu(struct call *c)
{
    value x = call_use(c, 0);
    value scaled = build_both(c, OP_MUL, x, call_use(c, 1));
    call_set(c, 0, by_sign(c, x, x, scaled));
}

void lower_elu(struct call *c)
{
    value x = call_use(c, 0);
    value below = build_with(c, OP_MUL, unary(c, OP_EXPM1, x), attribute_real(c, "alpha", 1));
    call_set(c, 0, by_sign(c, x, x, below));
}

void lower_selu(struct call *c)
{
    value x = call_use(c, 0);
    double alpha = attribute_real(c, "alpha", 1.67326319217681884765625);
    double gamma = attribute_real(c, "gamma", 1.05070102214813232421875);
    value below = build_with(c, OP_MUL, unary(c, OP_EXPM1, x), alpha);
    call_set(c, 0, build_with(c, OP_MUL, by_sign(c, x, x, below), gamma));
}

void lower_celu(struct call *c)
{
    value x = call_use(c, 0);
    double alpha = attribute_real(c, "alpha", 1);
    value below = build_with(c, OP_MUL, unary(c, OP_EXPM1, build_with(c, OP_DIV, x, alpha)), alpha);
    call_set(c, 0, by_sign(c, x, x, below));
}

void lower_softplus(struct call *c)
{
    call_set(c, 0, softplus(c, call_use(c, 0)));
}

void lower_softsign(struct call *c)
{
    value x = call_use(c, 0);
    call_set(c, 0, binary(c, OP_DIV, x, build_with(c, OP_ADD, unary(c, OP_ABS, x), 1)));
}

void lower_mish(struct call *c)
{
    value x = call_use(c, 0);
    call_set(c, 0, binary(c, OP_MUL, x, unary(c, OP_TANH, softplus(c, x))));
}

static value hard_sigmoid(struct call *c, value x, double alpha, double beta)
{
    value line = build_with(c, OP_ADD, build_with(c, OP_MUL, x, alpha), beta);
    return build_with(c, OP_MIN, build_with(c, OP_MAX, line, 0), 1);
}

void lower_hardsigmoid(struct call *c)
{
    double alpha = attribute_real(c, "alpha", 0.2), beta = attribute_real(c, "beta", 0.5);
    call_set(c, 0, hard_sigmoid(c, call_use(c, 0), alpha, beta));
}

void lower_hardswish(struct call *c)
{
    value x = call_use(c, 0);
    call_set(c, 0, binary(c, OP_MUL, x, hard_sigmoid(c, x, 1.0 / 6, 0.5)));
}

/* 0.5 x (1 + erf(x / sqrt 2)), as exporters write it; or the tanh form */
void lower_gelu(struct call *c)
{
    value x = call_use(c, 0);
    const char *form = attribute_text(c, "approximate", "none");
    value t;
    if (strcmp(form, "tanh") == 0) {
        value cube = binary(c, OP_MUL, binary(c, OP_MUL, x, x), x);
        value inner = binary(c, OP_ADD, x, build_with(c, OP_MUL, cube, 0.044715));
        t = unary(c, OP_TANH, build_with(c, OP_MUL, inner, 0.79788456080286535588));
    } else {
        t = unary(c, OP_ERF, build_with(c, OP_DIV, x, 1.41421356237309504880));
    }
    value product = binary(c, OP_MUL, x, build_with(c, OP_ADD, t, 1));
    call_set(c, 0, build_with(c, OP_MUL, product, 0.5));
}

void lower_swish(struct call *c)
{
    value x = call_use(c, 0);
    double alpha = attribute_real(c, "alpha", 1);
    value inner = alpha == 1 ? x : build_with(c, OP_MUL, x, alpha);
    call_set(c, 0, binary(c, OP_MUL, x, sigmoid(c, inner)));
}

void lower_thresholdedrelu(struct call *c)
{
    value x = call_use(c, 0);
    uint32_t rank = call_rank(c, x);
    value zero = build_full(c, call_type(c, x), 0, rank, call_shape(c, x));
    value edge = build_full(c, call_type(c, x), attribute_real(c, "alpha", 1), rank, call_shape(c, x));
    call_set(c, 0, graph_select(c->g, binary(c, OP_LT, edge, x), x, zero));
}

/* x < -lambd: x + bias; x > lambd: x - bias; else 0 */
void lower_shrink(struct call *c)
{
    value x = call_use(c, 0);
    uint32_t rank = call_rank(c, x);
    dtype type = call_type(c, x);
    double lambd = attribute_real(c, "lambd", 0.5), bias = attribute_real(c, "bias", 0);
    value zero = build_full(c, type, 0, rank, call_shape(c, x));
    value low = build_full(c, type, -lambd, rank, call_shape(c, x));
    value high = build_full(c, type, lambd, rank, call_shape(c, x));
    value above = graph_select(c->g, binary(c, OP_LT, high, x), build_with(c, OP_SUB, x, bias), zero);
    call_set(c, 0, graph_select(c->g, binary(c, OP_LT, x, low), build_with(c, OP_ADD, x, bias), above));
}

/* ---- along an axis ------------------------------------------------------------------------------------------ */

/* Since 13 over one axis; before, over all axes from `axis` on. argument: 1 takes the logarithm. */
void lower_softmax(struct call *c)
{
    value x = call_use(c, 0);
    uint32_t rank = call_rank(c, x);
    if (rank == 0) {
        call_set(c, 0, build_full(c, call_type(c, x), c->argument ? 0 : 1, 0, NULL));
        return;
    }
    uint32_t axis = call_axis(c, attribute_int(c, "axis", c->version >= 13 ? -1 : 1), rank);
    call_set(c, 0, build_softmax(c, x, axis, c->version >= 13 ? 1 : rank - axis, c->argument != 0));
}

/* 1 at the first maximum, else 0. Before 13 over all axes from `axis` on. */
void lower_hardmax(struct call *c)
{
    value x = call_use(c, 0);
    uint32_t rank = call_rank(c, x);
    uint32_t axis = call_axis(c, attribute_int(c, "axis", c->version >= 13 ? -1 : 1), rank);
    dim flat[MAX_RANK], shape[MAX_RANK];
    uint32_t flat_rank = c->version >= 13 ? rank : axis + 1;
    dims_copy(shape, call_shape(c, x), rank);
    dims_copy(flat, shape, rank);
    if (c->version < 13)
        flat[axis] = call_product(c, shape, axis, rank);
    value v = graph_reshape(c->g, x, flat_rank, flat);
    value first = graph_topk(c->g, v, axis, call_const(c, 1), false);
    value index = graph_iota(c->g, DT_I64, flat_rank, flat, axis);
    value chosen = graph_binary(c->g, OP_EQ, index, build_expand(c, first, flat_rank, flat));
    call_set(c, 0, graph_reshape(c->g, graph_cast(c->g, chosen, call_type(c, x)), rank, shape));
}
