/* frontend/onnx/lower_norm.c - normalisations, spelled as exporters spell them: mean, difference, mean of squares, root, quotient. */
#include "frontend/onnx/compose.h"

static uint32_t axes_from(uint32_t first, uint32_t rank, int32_t *axes)
{
    for (uint32_t k = first; k < rank; k++)
        axes[k - first] = (int32_t)k;
    return rank - first;
}

/* sqrt(mean of squares + epsilon) over the axes, kept as 1 */
static value root_mean_square(struct call *c, value x, uint32_t count, const int32_t *axes, double epsilon)
{
    value squares = graph_binary(c->g, OP_MUL, x, x);
    value mean = build_mean(c, squares, count, axes, true);
    return graph_unary(c->g, OP_SQRT, build_with(c, OP_ADD, mean, epsilon));
}

/* The type to compute in: stash_type, if it is wider. */
static dtype work_type(struct call *c, dtype type)
{
    dtype stash = dtype_from_onnx(attribute_int(c, "stash_type", 1));
    return dtype_is_float(stash) && dtype_size(stash) > dtype_size(type) ? stash : type;
}

void lower_layernorm(struct call *c)
{
    value x = call_use(c, 0);
    uint32_t rank = call_rank(c, x), first = call_axis(c, attribute_int(c, "axis", -1), rank);
    int32_t axes[MAX_RANK];
    uint32_t count = axes_from(first, rank, axes);
    dtype type = call_type(c, x), work = work_type(c, type);
    value wide = graph_cast(c->g, x, work);
    value mean = build_mean(c, wide, count, axes, true);
    value difference = build_both(c, OP_SUB, wide, mean);
    value root = root_mean_square(c, difference, count, axes, attribute_real(c, "epsilon", 1e-5));
    value y = graph_cast(c->g, build_both(c, OP_DIV, difference, root), type);
    y = build_both(c, OP_MUL, y, call_use(c, 1));
    if (call_has(c, 2))
        y = build_both(c, OP_ADD, y, call_use(c, 2));
    call_set(c, 0, y);
    if (call_wants(c, 1))
        call_set(c, 1, mean);
    if (call_wants(c, 2))
        call_set(c, 2, graph_unary(c->g, OP_RECIP, root));
}

void lower_rmsnorm(struct call *c)
{
    value x = call_use(c, 0);
    uint32_t rank = call_rank(c, x), first = call_axis(c, attribute_int(c, "axis", -1), rank);
    int32_t axes[MAX_RANK];
    uint32_t count = axes_from(first, rank, axes);
    dtype type = call_type(c, x), work = work_type(c, type);
    value wide = graph_cast(c->g, x, work);
    value root = root_mean_square(c, wide, count, axes, attribute_real(c, "epsilon", 1e-5));
    value y = build_both(c, OP_MUL, wide, graph_unary(c->g, OP_RECIP, root));
    call_set(c, 0, build_both(c, OP_MUL, graph_cast(c->g, y, type), call_use(c, 1)));
}

/* A value per channel, as [channels, 1, 1..] for x = [batch, channels, spatial..]. */
static value per_channel(struct call *c, value v, uint32_t rank)
{
    dim shape[MAX_RANK];
    if (call_rank(c, v) != 1)
        call_fail(c, "a value per channel has %u axes", call_rank(c, v));
    for (uint32_t k = 0; k + 1 < rank; k++)
        shape[k] = k == 0 ? call_shape(c, v)[0] : call_const(c, 1);
    return build_reshape(c, v, rank > 1 ? rank - 1 : 1, shape);
}

void lower_batchnorm(struct call *c)
{
    value x = call_use(c, 0);
    uint32_t rank = call_rank(c, x);
    dtype type = call_type(c, x);
    if (rank < 2)
        call_fail(c, "needs two axes or more");
    if (attribute_int(c, "training_mode", 0)) {
        compose_batch_training(c);
        return;
    }
    value scale = per_channel(c, call_use_as(c, 1, type), rank), bias = per_channel(c, call_use_as(c, 2, type), rank);
    value mean = per_channel(c, call_use(c, 3), rank), variance = per_channel(c, call_use(c, 4), rank);
    value difference = build_both(c, OP_SUB, x, graph_cast(c->g, mean, type));
    value root = graph_unary(c->g, OP_SQRT, build_with(c, OP_ADD, variance, attribute_real(c, "epsilon", 1e-5)));
    value y = build_both(c, OP_DIV, difference, graph_cast(c->g, root, type));
    call_set(c, 0, build_both(c, OP_ADD, build_both(c, OP_MUL, y, scale), bias));
}

static value normalize(struct call *c, value x, uint32_t count, const int32_t *axes, double epsilon)
{
    value difference = build_both(c, OP_SUB, x, build_mean(c, x, count, axes, true));
    return build_both(c, OP_DIV, difference, root_mean_square(c, difference, count, axes, epsilon));
}

void lower_instancenorm(struct call *c)
{
    value x = call_use(c, 0);
    uint32_t rank = call_rank(c, x);
    int32_t axes[MAX_RANK];
    if (rank < 3)
        call_fail(c, "needs three axes or more");
    value y = normalize(c, x, axes_from(2, rank, axes), axes, attribute_real(c, "epsilon", 1e-5));
    y = build_both(c, OP_MUL, y, per_channel(c, call_use(c, 1), rank));
    call_set(c, 0, build_both(c, OP_ADD, y, per_channel(c, call_use(c, 2), rank)));
}

/* [n, c, ..] -> [n, groups, c/groups, ..]; scale and bias per group (18) or per channel (21). */
void lower_groupnorm(struct call *c)
{
    value x = call_use(c, 0);
    uint32_t rank = call_rank(c, x);
    int64_t groups = attribute_int(c, "num_groups", 1);
    int32_t axes[MAX_RANK];
    dim shape[MAX_RANK], own[MAX_RANK];
    if (rank < 2 || rank + 1 > MAX_RANK || groups < 1)
        call_fail(c, "needs two axes or more and a positive num_groups");
    dims_copy(own, call_shape(c, x), rank);
    dim each = dim_exact_div(c->t, own[1], call_const(c, groups));
    if (!dim_valid(each))
        call_fail(c, "%lld groups do not divide the channels", (long long)groups);
    shape[0] = own[0];
    shape[1] = call_const(c, groups);
    shape[2] = each;
    dims_copy(shape + 3, own + 2, (rank - 2));
    dtype type = call_type(c, x), work = work_type(c, type);
    value grouped = graph_cast(c->g, build_reshape(c, x, rank + 1, shape), work);
    value y = normalize(c, grouped, axes_from(2, rank + 1, axes), axes, attribute_real(c, "epsilon", 1e-5));
    y = graph_cast(c->g, y, type);
    bool by_group = c->version < 21;
    y = by_group ? y : build_reshape(c, y, rank, own);
    y = build_both(c, OP_MUL, y, per_channel(c, call_use(c, 1), call_rank(c, y)));
    y = build_both(c, OP_ADD, y, per_channel(c, call_use(c, 2), call_rank(c, y)));
    call_set(c, 0, build_reshape(c, y, rank, own));
}

void lower_lpnorm(struct call *c)
{
    value x = call_use(c, 0);
    int32_t axis = (int32_t)call_axis(c, attribute_int(c, "axis", -1), call_rank(c, x));
    bool first = attribute_int(c, "p", 2) == 1;
    value powers = first ? graph_unary(c->g, OP_ABS, x) : graph_binary(c->g, OP_MUL, x, x);
    value norm = build_reduce(c, OP_REDUCE_SUM, powers, 1, &axis, true);
    norm = first ? norm : graph_unary(c->g, OP_SQRT, norm);
    value zero = build_full(c, call_type(c, x), 0, call_rank(c, norm), call_shape(c, norm));
    value empty = graph_binary(c->g, OP_EQ, norm, zero); /* 0 / 0 is 0 here */
    value quotient = build_both(c, OP_DIV, x, norm);
    call_set(c, 0, build_choose(c, empty, build_real(c, call_type(c, x), 0), quotient));
}

void lower_mvn(struct call *c)
{
    value x = call_use(c, 0);
    uint32_t rank = call_rank(c, x), count = 0;
    const int64_t *given = attribute_ints(c, "axes", &count);
    static const int64_t standard[] = {0, 2, 3};
    int32_t axes[MAX_RANK];
    if (!given) {
        given = standard;
        count = 3;
    }
    if (count > rank)
        call_fail(c, "has %u axes for a value of %u", count, rank);
    for (uint32_t i = 0; i < count; i++)
        axes[i] = (int32_t)call_axis(c, given[i], rank);
    value difference = build_both(c, OP_SUB, x, build_mean(c, x, count, axes, true));
    value deviation = root_mean_square(c, difference, count, axes, 0);
    call_set(c, 0, build_both(c, OP_DIV, difference, build_with(c, OP_ADD, deviation, 1e-9)));
}

/* x / (bias + alpha / size * sum of squares of `size` neighbouring channels)^beta */
void lower_lrn(struct call *c)
{
    value x = call_use(c, 0);
    uint32_t rank = call_rank(c, x);
    int64_t size = attribute_int(c, "size", 1);
    dim before[MAX_RANK], shape[MAX_RANK];
    int32_t window_axis = 2;
    if (rank < 2 || size < 1 || size > 100000)
        call_fail(c, "needs two axes or more and a positive size");
    for (uint32_t k = 0; k < rank; k++) {
        before[k] = call_const(c, k == 1 ? (size - 1) / 2 : 0);
        shape[k] = k == 1 ? dim_add(c->t, call_shape(c, x)[k], call_const(c, size - 1)) : call_shape(c, x)[k];
    }
    value squares = graph_binary(c->g, OP_MUL, x, x);
    value padded = graph_pad(c->g, squares, build_real(c, call_type(c, x), 0), before, shape);
    value windows = graph_window(c->g, padded, 1, (int32_t)size, 1, 1);
    value sum = graph_reduce(c->g, OP_REDUCE_SUM, windows, 1, &window_axis);
    value scale = build_with(c, OP_MUL, sum, attribute_real(c, "alpha", 1e-4) / (double)size);
    value base = build_with(c, OP_ADD, scale, attribute_real(c, "bias", 1));
    value power = build_both(c, OP_POW, base, build_real(c, call_type(c, x), attribute_real(c, "beta", 0.75)));
    call_set(c, 0, build_both(c, OP_DIV, x, power));
}
