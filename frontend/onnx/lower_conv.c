/* frontend/onnx/lower_conv.c - windows over pictures: convolutions as unfold and dot, pools as unfold and reduce.
 *
 * Unfold: [n, c, x..] -> [n, c, o1, k1, o2, k2..], one `window` per spatial axis. A convolution contracts (c, k1, k2..) of that with the
 * same of the weight.
 */
#include "frontend/onnx/compose.h"

#include <math.h>

struct windows {
    uint32_t n; /* spatial axes */
    int64_t kernel[MAX_RANK], stride[MAX_RANK], dilation[MAX_RANK];
    dim before[MAX_RANK], after[MAX_RANK];
    dim out[MAX_RANK];
};

static void read_list(struct call *c, const char *name, uint32_t n, int64_t *out)
{
    uint32_t count = 0;
    const int64_t *given = attribute_ints(c, name, &count);
    if (given && count != n)
        call_fail(c, "%s has %u numbers for %u spatial axes", name, count, n);
    for (uint32_t k = 0; k < n; k++) {
        out[k] = given ? given[k] : 1;
        if (out[k] < 1 || out[k] > INT32_MAX)
            call_fail(c, "%s has %lld", name, (long long)out[k]);
    }
}

/* How much SAME pads an axis: enough for ceil(extent / stride) windows. */
static void pad_same(struct call *c, struct windows *w, uint32_t k, dim extent, bool lower)
{
    struct dims *t = c->t;
    dim stride = call_const(c, w->stride[k]), reach = call_const(c, w->dilation[k] * (w->kernel[k] - 1) + 1);
    dim out = dim_ceildiv(t, extent, stride);
    dim need = dim_add(t, dim_mul(t, dim_sub(t, out, call_const(c, 1)), stride), dim_sub(t, reach, extent));
    need = dim_max(t, call_const(c, 0), need);
    dim half = dim_div(t, need, call_const(c, 2)), rest = dim_sub(t, need, half);
    w->before[k] = lower ? rest : half;
    w->after[k] = lower ? half : rest;
}

/* ceil_mode: one more window where part of it lies inside, by padding further at the end. */
static void pad_ceil(struct call *c, struct windows *w, uint32_t k, dim extent)
{
    int64_t s = 0, b = 0, a = 0, reach = w->dilation[k] * (w->kernel[k] - 1) + 1, stride = w->stride[k];
    if (!dim_is_const(c->t, extent, &s) || !dim_is_const(c->t, w->before[k], &b) ||
        !dim_is_const(c->t, w->after[k], &a))
        call_unsupported(c, "ceil_mode over a symbolic extent");
    int64_t span = s + b + a - reach, windows = (span < 0 ? 0 : (span + stride - 1) / stride) + 1;
    if ((windows - 1) * stride >= s + b)
        windows--;
    int64_t extra = (windows - 1) * stride + reach - (s + b + a);
    w->after[k] = call_const(c, extra > 0 ? a + extra : a);
}

static void read_windows(struct call *c, const dim *spatial, struct windows *w)
{
    const char *automatic = attribute_text(c, "auto_pad", "NOTSET");
    uint32_t count = 0;
    const int64_t *pads = attribute_ints(c, "pads", &count);
    read_list(c, "strides", w->n, w->stride);
    read_list(c, "dilations", w->n, w->dilation);
    bool same = strncmp(automatic, "SAME_", 5) == 0, explicit_pads = strcmp(automatic, "NOTSET") == 0 || !*automatic;
    if (explicit_pads && pads && count != 2 * w->n)
        call_fail(c, "pads has %u numbers for %u spatial axes", count, w->n);
    for (uint32_t k = 0; k < w->n; k++) {
        int64_t b = explicit_pads && pads ? pads[k] : 0, a = explicit_pads && pads ? pads[k + w->n] : 0;
        if (b < 0 || a < 0)
            call_unsupported(c, "negative pads");
        w->before[k] = call_const(c, b);
        w->after[k] = call_const(c, a);
        if (same)
            pad_same(c, w, k, spatial[k], strcmp(automatic, "SAME_LOWER") == 0);
        if (attribute_int(c, "ceil_mode", 0))
            pad_ceil(c, w, k, spatial[k]);
    }
}

static value pad_spatial(struct call *c, value x, const struct windows *w, double fill)
{
    uint32_t rank = call_rank(c, x), first = rank - w->n;
    dim before[MAX_RANK], shape[MAX_RANK];
    bool nothing = true;
    for (uint32_t k = 0; k < rank; k++) {
        before[k] = k < first ? call_const(c, 0) : w->before[k - first];
        shape[k] = call_shape(c, x)[k];
        if (k >= first)
            shape[k] = dim_add(c->t, shape[k], dim_add(c->t, w->before[k - first], w->after[k - first]));
        nothing = nothing && shape[k] == call_shape(c, x)[k];
    }
    return nothing ? x : graph_pad(c->g, x, build_real(c, call_type(c, x), fill), before, shape);
}

/* The last n axes unfold: [.., x1, x2..] -> [.., o1, k1, o2, k2..] */
static value unfold(struct call *c, value x, const struct windows *w)
{
    uint32_t first = call_rank(c, x) - w->n;
    if (call_rank(c, x) + w->n > MAX_RANK)
        call_unsupported(c, "%u spatial axes", w->n);
    for (uint32_t k = 0; k < w->n; k++) {
        dim reach = call_const(c, w->dilation[k] * (w->kernel[k] - 1) + 1);
        if (!dim_valid(call_shape(c, x)[first + 2 * k]) ||
            dim_upper(c->t, dim_sub(c->t, call_shape(c, x)[first + 2 * k], reach)) < 0)
            call_fail(c, "the window does not fit into spatial axis %u", k);
        x = graph_window(c->g, x, first + 2 * k, (int32_t)w->kernel[k], (int32_t)w->stride[k], (int32_t)w->dilation[k]);
    }
    return x;
}

/* [groups, n, o.., c/groups, k..] . [groups, m/groups, c/groups, k..], without the groups where there is one. */
static value convolve(struct call *c, value x, value weight, const struct windows *w, int64_t groups)
{
    uint32_t n = w->n;
    int32_t permutation[MAX_RANK];
    dim shape[MAX_RANK];
    if (groups > 1) { /* [n, g, c/g, o1, k1, ..] */
        shape[0] = call_shape(c, x)[0];
        shape[1] = call_const(c, groups);
        shape[2] = call_shape(c, weight)[1];
        dims_copy(shape + 3, call_shape(c, x) + 2, n);
        x = build_reshape(c, x, n + 3, shape);
        shape[0] = call_const(c, groups);
        shape[1] = dim_exact_div(c->t, call_shape(c, weight)[0], call_const(c, groups));
        if (!dim_valid(shape[1]))
            call_fail(c, "%lld groups do not divide the output channels", (long long)groups);
        dims_copy(shape + 2, call_shape(c, weight) + 1, (n + 1));
        weight = build_reshape(c, weight, n + 3, shape);
    }
    uint32_t g = groups > 1, at = 0;
    x = unfold(c, x, w); /* [n, (g), c, o1, k1, o2, k2..] */
    if (g)
        permutation[at++] = 1;
    permutation[at++] = 0;
    for (uint32_t k = 0; k < n; k++)
        permutation[at++] = (int32_t)(2 + g + 2 * k);
    permutation[at++] = (int32_t)(1 + g);
    for (uint32_t k = 0; k < n; k++)
        permutation[at++] = (int32_t)(3 + g + 2 * k);
    x = graph_transpose(c->g, x, permutation);
    value y = graph_dot(c->g, x, weight, g, n + 1); /* [(g), n, o.., m] */
    if (!g)
        return build_move_axis(c, y, n + 1, 1);
    at = 0;
    permutation[at++] = 1;
    permutation[at++] = 0;
    permutation[at++] = (int32_t)(n + 2);
    for (uint32_t k = 0; k < n; k++)
        permutation[at++] = (int32_t)(2 + k);
    y = graph_transpose(c->g, y, permutation); /* [n, g, m/g, o..] */
    dims_copy(shape, call_shape(c, y), (n + 3));
    shape[1] = dim_mul(c->t, shape[1], shape[2]);
    memmove(shape + 2, shape + 3, n * sizeof *shape);
    return build_reshape(c, y, n + 2, shape);
}

static value add_bias(struct call *c, value y, uint32_t input, uint32_t n)
{
    dim shape[MAX_RANK];
    if (!call_has(c, input))
        return y;
    value bias = call_use(c, input);
    if (call_rank(c, bias) != 1)
        call_fail(c, "its bias has %u axes", call_rank(c, bias));
    shape[0] = call_shape(c, bias)[0];
    for (uint32_t k = 0; k < n; k++)
        shape[k + 1] = call_const(c, 1);
    return build_both(c, OP_ADD, y, build_reshape(c, bias, n + 1, shape));
}

static void check_picture(struct call *c, value x, value weight, int64_t groups)
{
    uint32_t rank = call_rank(c, x);
    if (rank < 3 || call_rank(c, weight) != rank || groups < 1)
        call_fail(c, "needs a picture and a weight of the same number of axes, three or more");
    if (2 * rank > MAX_RANK)
        call_unsupported(c, "%u spatial axes", rank - 2);
}

value compose_convolution(struct call *c, value x, value weight)
{
    int64_t groups = attribute_int(c, "group", 1);
    check_picture(c, x, weight, groups);
    struct windows w = {.n = call_rank(c, x) - 2};
    for (uint32_t k = 0; k < w.n; k++)
        if (!dim_is_const(c->t, call_shape(c, weight)[2 + k], &w.kernel[k]) || w.kernel[k] < 1 ||
            w.kernel[k] > INT32_MAX)
            call_unsupported(c, "a kernel of symbolic extent");
    call_agree(c, dim_mul(c->t, call_shape(c, weight)[1], call_const(c, groups)), call_shape(c, x)[1],
               "channels of weight and picture");
    read_windows(c, call_shape(c, x) + 2, &w);
    return convolve(c, pad_spatial(c, x, &w, 0), weight, &w, groups);
}

void lower_conv(struct call *c)
{
    value y = compose_convolution(c, call_use(c, 0), call_use(c, 1));
    call_set(c, 0, add_bias(c, y, 2, call_rank(c, y) - 2));
}

/* ---- transposed convolution --------------------------------------------------------------------------------- */

/* Zeros between the elements of an axis: [.., n, ..] -> [.., n, stride, ..] -> [.., (n - 1) * stride + 1, ..] */
static value spread_axis(struct call *c, value x, uint32_t axis, int64_t stride)
{
    uint32_t rank = call_rank(c, x);
    dim before[MAX_RANK], shape[MAX_RANK], extent = call_shape(c, x)[axis];
    if (stride == 1)
        return x;
    x = build_unsqueeze(c, x, axis + 1);
    dims_copy(shape, call_shape(c, x), (rank + 1));
    for (uint32_t k = 0; k <= rank; k++)
        before[k] = call_const(c, 0);
    shape[axis + 1] = call_const(c, stride);
    x = graph_pad(c->g, x, build_real(c, call_type(c, x), 0), before, shape);
    memmove(shape + axis + 1, shape + axis + 2, (rank - axis - 1) * sizeof *shape);
    shape[axis] = dim_mul(c->t, extent, call_const(c, stride));
    x = build_reshape(c, x, rank, shape);
    dim full = dim_sub(c->t, shape[axis], call_const(c, stride - 1));
    return build_slice_axis(c, x, axis, call_const(c, 0), full);
}

/* pads of a transposed convolution, from output_shape where that is given; crop: what pads wider than the kernel cut off the picture */
static void read_transposed(struct call *c, const dim *spatial, struct windows *w, int64_t *extra, int64_t (*crop)[2])
{
    uint32_t count = 0, n = w->n;
    const int64_t *shape = attribute_ints(c, "output_shape", &count), *more = NULL, *pads = NULL;
    const char *automatic = attribute_text(c, "auto_pad", "NOTSET");
    bool same = strncmp(automatic, "SAME_", 5) == 0, upper = strcmp(automatic, "SAME_UPPER") == 0;
    bool explicit_pads = strcmp(automatic, "NOTSET") == 0 || !*automatic;
    if (shape && count != n)
        call_fail(c, "output_shape has %u numbers for %u spatial axes", count, n);
    more = attribute_ints(c, "output_padding", &count);
    if (more && count != n)
        call_fail(c, "output_padding has %u numbers for %u spatial axes", count, n);
    pads = attribute_ints(c, "pads", &count);
    if (pads && count != 2 * n)
        call_fail(c, "pads has %u numbers for %u spatial axes", count, n);
    for (uint32_t k = 0; k < n; k++) {
        int64_t in = 0, reach = w->dilation[k] * (w->kernel[k] - 1) + 1, before = pads && explicit_pads ? pads[k] : 0;
        int64_t after = pads && explicit_pads ? pads[k + n] : 0;
        extra[k] = more ? more[k] : 0;
        if (reach > INT32_MAX || extra[k] > INT32_MAX || extra[k] < 0 ||
            (shape && (shape[k] < 0 || shape[k] > INT32_MAX)))
            call_unsupported(c, "a kernel that reaches over %lld, or output_padding of %lld", (long long)reach,
                             (long long)extra[k]);
        if (shape || same) {
            if (!dim_is_const(c->t, spatial[k], &in) || in > INT32_MAX)
                call_unsupported(c, "an output shape for a symbolic extent");
            int64_t wanted = shape ? shape[k] : in * w->stride[k];
            int64_t total = w->stride[k] * (in - 1) + extra[k] + reach - wanted;
            extra[k] -= shape && total < 0 ? total : 0; /* what an output_shape has more comes behind */
            total = total < 0 ? 0 : total;
            before = upper ? total / 2 : total - total / 2;
            after = total - before;
        }
        if (before < 0 || after < 0 || extra[k] < 0 || before > INT32_MAX || after > INT32_MAX || extra[k] > INT32_MAX)
            call_unsupported(c, "pads of %lld and %lld, or output_padding of %lld", (long long)before, (long long)after,
                             (long long)extra[k]);
        int64_t pad[2] = {reach - 1 - before, reach - 1 - after + extra[k]};
        for (int side = 0; side < 2; side++) {
            crop[k][side] = pad[side] < 0 ? -pad[side] : 0;
            pad[side] += crop[k][side];
        }
        w->before[k] = call_const(c, pad[0]);
        w->after[k] = call_const(c, pad[1]);
    }
}

/* A convolution of the spread picture with the kernel reversed and its channels exchanged. */
void lower_convtranspose(struct call *c)
{
    value x = call_use(c, 0), weight = call_use(c, 1);
    uint32_t rank = call_rank(c, x), n = rank - 2;
    int64_t groups = attribute_int(c, "group", 1), extra[MAX_RANK], crop[MAX_RANK][2];
    struct windows w = {.n = n};
    int32_t axes[MAX_RANK];
    dim shape[MAX_RANK];
    check_picture(c, x, weight, groups);
    for (uint32_t k = 0; k < n; k++) {
        axes[k] = (int32_t)(2 + k);
        if (!dim_is_const(c->t, call_shape(c, weight)[2 + k], &w.kernel[k]) || w.kernel[k] < 1 ||
            w.kernel[k] > INT32_MAX)
            call_unsupported(c, "a kernel of symbolic extent");
    }
    read_list(c, "strides", n, w.stride);
    read_list(c, "dilations", n, w.dilation);
    read_transposed(c, call_shape(c, x) + 2, &w, extra, crop);
    for (uint32_t k = 0; k < n; k++) {
        x = spread_axis(c, x, 2 + k, w.stride[k]);
        dim kept = dim_sub(c->t, call_shape(c, x)[2 + k], call_const(c, crop[k][0] + crop[k][1]));
        if (dim_upper(c->t, kept) < 0)
            call_fail(c, "pads leave nothing of spatial axis %u", k);
        x = build_slice_axis(c, x, 2 + k, call_const(c, crop[k][0]), kept);
        w.stride[k] = 1;
    }
    weight = graph_reverse(c->g, weight, n, axes); /* [c, m/g, k..] -> [m, c/g, k..] */
    dims_copy(shape, call_shape(c, weight), rank);
    dim each = dim_exact_div(c->t, shape[0], call_const(c, groups)), out = shape[1];
    if (!dim_valid(each))
        call_fail(c, "%lld groups do not divide the channels", (long long)groups);
    memmove(shape + 3, shape + 2, n * sizeof *shape);
    shape[0] = call_const(c, groups);
    shape[1] = each;
    shape[2] = out;
    weight = build_move_axis(c, build_reshape(c, weight, rank + 1, shape), 2, 1);
    shape[0] = dim_mul(c->t, out, call_const(c, groups));
    shape[1] = each;
    memmove(shape + 2, shape + 3, n * sizeof *shape);
    weight = build_reshape(c, weight, rank, shape);
    value y = convolve(c, pad_spatial(c, x, &w, 0), weight, &w, groups);
    call_set(c, 0, add_bias(c, y, 2, n));
}

/* ---- pools -------------------------------------------------------------------------------------------------- */

static uint32_t kernel_axes(uint32_t rank, uint32_t n, int32_t *axes)
{
    for (uint32_t k = 0; k < n; k++)
        axes[k] = (int32_t)(rank - n + 2 * k + 1);
    return n;
}

static void read_pool(struct call *c, value x, struct windows *w)
{
    uint32_t rank = call_rank(c, x);
    if (rank < 3)
        call_fail(c, "needs three axes or more");
    if (2 * rank > MAX_RANK)
        call_unsupported(c, "%u spatial axes", rank - 2);
    w->n = rank - 2;
    read_list(c, "kernel_shape", w->n, w->kernel);
    read_windows(c, call_shape(c, x) + 2, w);
}

static value pool(struct call *c, value x, const struct windows *w, op o, double fill)
{
    int32_t axes[MAX_RANK];
    uint32_t rank = call_rank(c, x), count = kernel_axes(rank, w->n, axes);
    return graph_reduce(c->g, o, unfold(c, pad_spatial(c, x, w, fill), w), count, axes);
}

/* Windows of v's last n axes, flat: [first.., o1, k1, ..] -> [first.., o.., k1 * k2..] */
static value flat_windows(struct call *c, value v, const struct windows *w)
{
    int32_t order[MAX_RANK];
    dim shape[MAX_RANK];
    uint32_t first = call_rank(c, v) - 2 * w->n;
    for (uint32_t k = 0; k < first; k++)
        order[k] = (int32_t)k;
    for (uint32_t k = 0; k < w->n; k++) {
        order[first + k] = (int32_t)(first + 2 * k);
        order[first + w->n + k] = (int32_t)(first + 2 * k + 1);
    }
    v = graph_transpose(c->g, v, order);
    dims_copy(shape, call_shape(c, v), first + w->n);
    shape[first + w->n] = call_product(c, call_shape(c, v), first + w->n, first + 2 * w->n);
    return build_reshape(c, v, first + w->n + 1, shape);
}

/* The place of each window's first maximum in the whole of x, flat, rows or columns first. */
static value maxima_indices(struct call *c, value x, const struct windows *w, double lowest)
{
    uint32_t n = w->n, rank = n + 2;
    const dim *own = call_shape(c, x);
    bool columns = attribute_int(c, "storage_order", 0) != 0;
    dim step = call_const(c, 1), spatial = call_product(c, own, 2, rank);
    value place = build_full(c, DT_I64, 0, n, own + 2), all[2];
    for (uint32_t i = 0; i < n; i++) {
        uint32_t k = columns ? i : n - 1 - i;
        value along = build_both(c, OP_MUL, compose_place(c, DT_I64, n, own + 2, k), compose_dim(c, DT_I64, step));
        place = build_both(c, OP_ADD, place, along);
        step = dim_mul(c->t, step, own[2 + k]);
    }
    value values = flat_windows(c, unfold(c, pad_spatial(c, x, w, lowest), w), w);
    place = flat_windows(c, unfold(c, pad_spatial(c, place, w, 0), w), w);
    place = build_expand(c, place, rank + 1, call_shape(c, values));
    value top = graph_topk(c->g, values, rank, call_const(c, 1), false);
    value index = compose_at(c, graph_gather(c->g, place, top, rank, rank), rank, 0);
    for (uint32_t k = 0; k < 2; k++) {
        dim size = k == 0 ? dim_mul(c->t, own[1], spatial) : spatial;
        all[k] = build_both(c, OP_MUL, compose_place(c, DT_I64, rank, call_shape(c, index), k),
                            compose_dim(c, DT_I64, size));
    }
    return build_both(c, OP_ADD, index, build_both(c, OP_ADD, all[0], all[1]));
}

void lower_maxpool(struct call *c)
{
    value x = call_use(c, 0);
    struct windows w = {.n = 0};
    read_pool(c, x, &w);
    dtype type = call_type(c, x);
    double lowest = type == DT_U8 ? 0 : type == DT_I8 ? -128 : -(double)INFINITY;
    call_set(c, 0, pool(c, x, &w, OP_REDUCE_MAX, lowest));
    if (call_wants(c, 1))
        call_set(c, 1, maxima_indices(c, x, &w, lowest));
}

/* The windows' sums, divided by how many elements they hold (with the pads, where count_include_pad says so; what ceil_mode adds behind
 * explicit pads does not count). */
void lower_averagepool(struct call *c)
{
    value x = call_use(c, 0);
    struct windows w = {.n = 0};
    read_pool(c, x, &w);
    value sum = pool(c, x, &w, OP_REDUCE_SUM, 0);
    uint32_t n = w.n, count = 0;
    dim shape[MAX_RANK];
    const int64_t *pads = attribute_ints(c, "pads", &count);
    const char *automatic = attribute_text(c, "auto_pad", "NOTSET");
    bool include = attribute_int(c, "count_include_pad", 0) != 0, same = strncmp(automatic, "SAME_", 5) == 0;
    bool given = pads && count == 2 * n && (strcmp(automatic, "NOTSET") == 0 || !*automatic);
    struct windows rest = w;
    for (uint32_t k = 0; k < n; k++) {
        shape[k] = call_shape(c, x)[2 + k];
        if (!include)
            continue;
        dim both = dim_add(c->t, w.before[k], w.after[k]),
            own = same ? both : call_const(c, given ? pads[k] + pads[k + n] : 0);
        shape[k] = dim_add(c->t, shape[k], own);
        rest.before[k] = call_const(c, 0);
        rest.after[k] = dim_sub(c->t, both, own);
    }
    value ones = build_full(c, call_type(c, x), 1, n, shape);
    call_set(c, 0, build_both(c, OP_DIV, sum, pool(c, ones, &rest, OP_REDUCE_SUM, 0)));
}

void lower_lppool(struct call *c)
{
    value x = call_use(c, 0);
    struct windows w = {.n = 0};
    double p = (double)attribute_int(c, "p", 2);
    dtype type = call_type(c, x);
    read_pool(c, x, &w);
    value powers = build_with(c, OP_POW, graph_unary(c->g, OP_ABS, x), p);
    value sum = pool(c, powers, &w, OP_REDUCE_SUM, 0);
    call_set(c, 0, build_both(c, OP_POW, sum, build_real(c, type, 1 / p)));
}

/* argument: 0 average, 1 maximum, 2 Lp */
void lower_globalpool(struct call *c)
{
    value x = call_use(c, 0);
    uint32_t rank = call_rank(c, x);
    int32_t axes[MAX_RANK];
    double p = (double)attribute_int(c, "p", 2);
    for (uint32_t k = 2; k < rank; k++)
        axes[k - 2] = (int32_t)k;
    if (rank < 3)
        call_fail(c, "needs three axes or more");
    if (c->argument == 0) {
        call_set(c, 0, build_mean(c, x, rank - 2, axes, true));
    } else if (c->argument == 1) {
        call_set(c, 0, build_reduce(c, OP_REDUCE_MAX, x, rank - 2, axes, true));
    } else {
        value powers = build_with(c, OP_POW, graph_unary(c->g, OP_ABS, x), p);
        value sum = build_reduce(c, OP_REDUCE_SUM, powers, rank - 2, axes, true);
        call_set(c, 0, build_both(c, OP_POW, sum, build_real(c, call_type(c, x), 1 / p)));
    }
}
