/* frontend/onnx/lower_sample.c - pictures read at places that are computed: GridSample, AffineGrid, DeformConv.
 *
 * sample() is the heart: per axis the places become taps (indices and weights), the taps of all axes become flat indices, one gather
 * reads them, one weighted sum joins them.
 */
#include "frontend/onnx/compose.h"

#include <math.h>

enum sample_mode { SAMPLE_NEAREST, SAMPLE_LINEAR, SAMPLE_CUBIC };
enum sample_padding { PADDING_ZEROS, PADDING_BORDER, PADDING_REFLECTION };
struct sampling {
    enum sample_mode mode;
    enum sample_padding padding;
    bool corners; /* the border is at the centre of the outer elements, else at their edge */
};
struct taps {
    value index;  /* [batch, places, taps] as i64, inside the axis */
    value weight; /* [batch, places, taps] */
};

/* ---- one axis ----------------------------------------------------------------------------------------------- */

static value scalar(struct call *c, value like, double x)
{
    return build_real(c, call_type(c, like), x);
}

/* x mirrored at low and high as often as it takes: t = |x - low| in periods of the range, every other one backwards */
static value reflect(struct call *c, value x, value low, value high)
{
    value range = build_both(c, OP_SUB, high, low);
    range = build_with(c, OP_MAX, range, 1e-6); /* an axis of one element; what comes out is clamped */
    value t = graph_unary(c->g, OP_ABS, build_both(c, OP_SUB, x, low));
    value turns = graph_unary(c->g, OP_FLOOR, build_both(c, OP_DIV, t, range));
    value rest = build_both(c, OP_SUB, t, build_both(c, OP_MUL, turns, range));
    value half = graph_unary(c->g, OP_FLOOR, build_with(c, OP_MUL, turns, 0.5));
    value even = build_both(c, OP_EQ, build_with(c, OP_MUL, half, 2), turns);
    return build_choose(c, even, build_both(c, OP_ADD, low, rest), build_both(c, OP_SUB, high, rest));
}

static value clamp_between(struct call *c, value x, value low, value high)
{
    return build_both(c, OP_MIN, build_both(c, OP_MAX, x, low), high);
}

/* Keys' cubic at distance d. */
static value cubic_weight(struct call *c, value d)
{
    const double a = -0.75;
    d = graph_unary(c->g, OP_ABS, d);
    value near = build_with(c, OP_ADD, build_with(c, OP_MUL, d, a + 2), -(a + 3));
    near = build_with(c, OP_ADD, build_both(c, OP_MUL, build_both(c, OP_MUL, near, d), d), 1);
    value far = build_with(c, OP_ADD, build_with(c, OP_MUL, d, a), -5 * a);
    far = build_with(c, OP_ADD, build_both(c, OP_MUL, far, d), 8 * a);
    far = build_with(c, OP_ADD, build_both(c, OP_MUL, far, d), -4 * a);
    return build_choose(c, build_both(c, OP_LE, d, scalar(c, d, 1)), near, far);
}

/* Places x [batch, places], in elements, of an axis of that extent. */
static struct taps taps_of(struct call *c, const struct sampling *s, value x, dim extent)
{
    dtype type = call_type(c, x);
    value size = compose_dim(c, type, extent), last = build_with(c, OP_SUB, size, 1), zero = scalar(c, x, 0);
    value low = scalar(c, x, s->corners ? 0 : -0.5), high = s->corners ? last : build_with(c, OP_SUB, size, 0.5);
    if (s->mode == SAMPLE_NEAREST)
        x = graph_unary(c->g, OP_ROUND, x);
    value outside = build_both(c, OP_OR, build_both(c, OP_LT, x, low), build_both(c, OP_LT, high, x));
    if (s->padding == PADDING_BORDER && s->mode != SAMPLE_CUBIC) /* of a cubic only the taps are moved inside */
        x = build_choose(c, outside, clamp_between(c, x, zero, last), x);
    else if (s->padding == PADDING_REFLECTION)
        x = build_choose(c, outside, reflect(c, x, low, high), x);
    static const double offsets[] = {-1, 0, 1, 2};
    const int64_t count = s->mode == SAMPLE_NEAREST ? 1 : s->mode == SAMPLE_LINEAR ? 2 : 4;
    value offset = compose_table(c, type, 1, &count, s->mode == SAMPLE_CUBIC ? offsets : offsets + 1);
    x = build_unsqueeze(c, x, 2);
    value base = s->mode == SAMPLE_NEAREST ? x : graph_unary(c->g, OP_FLOOR, x);
    value place = build_both(c, OP_ADD, base, offset); /* [batch, places, taps] */
    value distance = build_both(c, OP_SUB, place, x), weight;
    if (s->mode == SAMPLE_CUBIC)
        weight = cubic_weight(c, distance);
    else if (s->mode == SAMPLE_LINEAR)
        weight = build_both(c, OP_SUB, scalar(c, x, 1), graph_unary(c->g, OP_ABS, distance));
    else
        weight = build_full(c, type, 1, call_rank(c, place), call_shape(c, place));
    if (s->padding == PADDING_ZEROS) {
        value inside = build_both(c, OP_AND, build_both(c, OP_LE, zero, place), build_both(c, OP_LE, place, last));
        weight = build_choose(c, inside, weight, zero);
    } else if (s->padding == PADDING_REFLECTION) {
        place = reflect(c, place, low, high);
    }
    value index = graph_cast(c->g, clamp_between(c, place, zero, last), DT_I64);
    return (struct taps){index, weight};
}

/* ---- all axes ----------------------------------------------------------------------------------------------- */

/* v [batch, places, taps] with its taps as axis 2 + k of n tap axes */
static value spread_taps(struct call *c, value v, uint32_t k, uint32_t n)
{
    dim shape[MAX_RANK];
    dims_copy(shape, call_shape(c, v), 2);
    for (uint32_t i = 0; i < n; i++)
        shape[2 + i] = i == k ? call_shape(c, v)[2] : call_const(c, 1);
    return build_reshape(c, v, n + 2, shape);
}

/* x [batch, channels, d1..dn], place[k] [batch, places] -> [batch, channels, places] */
static value sample(struct call *c, const struct sampling *s, value x, const value *place)
{
    uint32_t n = call_rank(c, x) - 2;
    dim own[MAX_RANK], shape[MAX_RANK];
    value index = 0, weight = 0;
    dims_copy(own, call_shape(c, x), n + 2);
    for (uint32_t k = 0; k < n; k++) {
        struct taps t = taps_of(c, s, place[k], own[2 + k]);
        value i = spread_taps(c, t.index, k, n), w = spread_taps(c, t.weight, k, n);
        value stepped = index ? build_both(c, OP_MUL, index, compose_dim(c, DT_I64, own[2 + k])) : 0;
        index = index ? build_both(c, OP_ADD, stepped, i) : i;
        weight = weight ? build_both(c, OP_MUL, weight, w) : w;
    }
    dims_copy(shape, call_shape(c, index), 2);
    shape[2] = call_product(c, call_shape(c, index), 2, n + 2);
    index = build_reshape(c, index, 3, shape); /* [batch, places, taps] */
    weight = build_reshape(c, weight, 3, shape);
    dim flat[3] = {own[0], own[1], call_product(c, own, 2, n + 2)};
    value rows = build_move_axis(c, build_reshape(c, x, 3, flat), 2, 1); /* [batch, elements, channels] */
    value read = graph_gather(c->g, rows, index, 1, 1);                  /* [batch, places, taps, channels] */
    const int32_t tap_axis = 2;
    value sum =
        graph_reduce(c->g, OP_REDUCE_SUM, build_both(c, OP_MUL, read, build_unsqueeze(c, weight, 3)), 1, &tap_axis);
    return build_move_axis(c, sum, 2, 1);
}

/* ---- GridSample --------------------------------------------------------------------------------------------- */

static struct sampling read_sampling(struct call *c)
{
    const char *mode = attribute_text(c, "mode", "linear"), *padding = attribute_text(c, "padding_mode", "zeros");
    struct sampling s = {.corners = attribute_int(c, "align_corners", 0) != 0};
    bool linear = strcmp(mode, "linear") == 0 || strcmp(mode, "bilinear") == 0;
    bool cubic = strcmp(mode, "cubic") == 0 || strcmp(mode, "bicubic") == 0;
    bool border = strcmp(padding, "border") == 0, reflection = strcmp(padding, "reflection") == 0;
    if (!linear && !cubic && strcmp(mode, "nearest") != 0)
        call_fail(c, "mode is '%s'", mode);
    if (!border && !reflection && strcmp(padding, "zeros") != 0)
        call_fail(c, "padding_mode is '%s'", padding);
    s.mode = cubic ? SAMPLE_CUBIC : linear ? SAMPLE_LINEAR : SAMPLE_NEAREST;
    s.padding = border ? PADDING_BORDER : reflection ? PADDING_REFLECTION : PADDING_ZEROS;
    return s;
}

/* X [n, c, d1..dk], grid [n, o1..ok, k] with places in [-1, 1], last axis first -> [n, c, o1..ok] */
void lower_gridsample(struct call *c)
{
    value x = call_use(c, 0), grid = call_use(c, 1), place[MAX_RANK];
    uint32_t rank = call_rank(c, x), n = rank - 2;
    dim shape[MAX_RANK], out[MAX_RANK];
    struct sampling s = read_sampling(c);
    dtype type = call_type(c, x), work = type == DT_F64 ? DT_F64 : DT_F32;
    if (rank < 3 || call_rank(c, grid) != rank)
        call_fail(c, "needs a picture and a grid of the same number of axes, three or more");
    call_agree(c, call_shape(c, grid)[rank - 1], call_const(c, n), "the grid's last extent and the spatial axes");
    call_agree(c, call_shape(c, grid)[0], call_shape(c, x)[0], "batches of picture and grid");
    dims_copy(out, call_shape(c, x), 2);
    dims_copy(out + 2, call_shape(c, grid) + 1, n);
    shape[0] = call_shape(c, grid)[0];
    shape[1] = call_product(c, call_shape(c, grid), 1, rank - 1);
    shape[2] = call_const(c, n);
    grid = graph_cast(c->g, build_reshape(c, grid, 3, shape), work);
    for (uint32_t k = 0; k < n; k++) {
        value at = build_with(c, OP_ADD, compose_at(c, grid, 2, n - 1 - k), 1);
        value size = compose_dim(c, work, call_shape(c, x)[2 + k]);
        if (s.corners)
            place[k] = build_both(c, OP_MUL, build_with(c, OP_MUL, at, 0.5), build_with(c, OP_SUB, size, 1));
        else
            place[k] = build_with(c, OP_MUL, build_with(c, OP_SUB, build_both(c, OP_MUL, at, size), 1), 0.5);
    }
    value y = sample(c, &s, graph_cast(c->g, x, work), place);
    call_set(c, 0, graph_cast(c->g, build_reshape(c, y, rank, out), type));
}

/* ---- AffineGrid --------------------------------------------------------------------------------------------- */

/* theta [n, k, k + 1], size [n, c, d1..dk] -> [n, d1..dk, k]: theta applied to each place (x, y.., 1) in [-1, 1] */
void lower_affinegrid(struct call *c)
{
    uint32_t count = 0, n;
    const dim *size = call_dims(c, 1, &count);
    value theta = call_use(c, 0);
    bool corners = attribute_int(c, "align_corners", 0) != 0;
    int64_t extent[3] = {1, 1, 1}, places = 1;
    n = count - 2;
    if ((count != 4 && count != 5) || call_rank(c, theta) != 3)
        call_fail(c, "needs a size of four or five numbers, has %u", count);
    for (uint32_t k = 0; k < n; k++) {
        extent[k] = compose_extent(c, size[2 + k], "size");
        if (extent[k] < 1 || extent[k] > COMPOSE_TABLE || places * extent[k] > COMPOSE_TABLE)
            call_unsupported(c, "a grid of %lld places along an axis", (long long)extent[k]);
        places *= extent[k];
    }
    const int64_t shape[] = {places, n + 1};
    double *table = compose_room(c, places * (n + 1)), *at = table;
    for (int64_t i = 0; i < places; i++) {
        int64_t rest = i;
        for (uint32_t k = n; k-- > 0; rest /= extent[k]) {
            double place = (double)(rest % extent[k]), last = (double)(extent[k] - 1);
            double aligned = extent[k] > 1 ? -1 + 2 * place / last : -1;
            at[n - 1 - k] = corners ? aligned : -1 + (2 * place + 1) / (double)extent[k];
        }
        at[n] = 1;
        at += n + 1;
    }
    call_agree(c, call_shape(c, theta)[1], call_const(c, n), "rows of theta and spatial axes");
    call_agree(c, call_shape(c, theta)[2], call_const(c, n + 1), "columns of theta and spatial axes");
    value grid =
        graph_dot(c->g, theta, compose_table(c, call_type(c, theta), 2, shape, table), 0, 1); /* [n, k, places] */
    dim out[MAX_RANK];
    out[0] = call_shape(c, theta)[0];
    dims_copy(out + 1, size + 2, n);
    out[n + 1] = call_const(c, n);
    call_set(c, 0, build_reshape(c, build_swap_last(c, grid), n + 2, out));
}

/* ---- DeformConv --------------------------------------------------------------------------------------------- */

struct deformed {
    uint32_t n; /* spatial axes */
    int64_t groups, offset_groups;
    int64_t kernel[MAX_RANK], stride[MAX_RANK], dilation[MAX_RANK], before[MAX_RANK];
    int64_t taps;              /* of the kernel */
    dim out[MAX_RANK], places; /* spatial extents of the result, their product */
};

static void read_list(struct call *c, const char *name, uint32_t n, uint32_t wanted, int64_t fallback, int64_t *out)
{
    uint32_t count = 0;
    const int64_t *x = attribute_ints(c, name, &count);
    if (x && count != wanted)
        call_fail(c, "%s has %u numbers for %u spatial axes", name, count, n);
    for (uint32_t k = 0; k < n; k++) {
        out[k] = x ? x[k] : fallback;
        if (out[k] < -INT32_MAX || out[k] > INT32_MAX)
            call_fail(c, "%s has %lld", name, (long long)out[k]);
    }
}

static struct deformed read_deformed(struct call *c, value x, value weight, value offset)
{
    struct deformed d = {.n = call_rank(c, x) - 2, .taps = 1};
    if (call_rank(c, x) < 3 || call_rank(c, weight) != d.n + 2 || call_rank(c, offset) != d.n + 2 ||
        2 * d.n + 3 > MAX_RANK)
        call_fail(c, "needs a picture, a weight and offsets of the same number of axes");
    d.groups = attribute_int(c, "group", 1);
    d.offset_groups = attribute_int(c, "offset_group", 1);
    read_list(c, "strides", d.n, d.n, 1, d.stride);
    read_list(c, "dilations", d.n, d.n, 1, d.dilation);
    read_list(c, "pads", d.n, 2 * d.n, 0, d.before);
    for (uint32_t k = 0; k < d.n; k++) {
        d.kernel[k] = compose_extent(c, call_shape(c, weight)[2 + k], "kernel");
        if (d.kernel[k] < 1 || d.kernel[k] > 10000 || d.taps * d.kernel[k] > 10000)
            call_unsupported(c, "a kernel of %lld", (long long)d.kernel[k]);
        d.taps *= d.kernel[k];
        d.out[k] = call_shape(c, offset)[2 + k];
    }
    d.places = call_product(c, d.out, 0, d.n);
    if (d.groups < 1 || d.offset_groups < 1 || d.groups > 1 << 20 || d.offset_groups > 1 << 20)
        call_fail(c, "%lld groups, %lld offset groups", (long long)d.groups, (long long)d.offset_groups);
    return d;
}

/* Where tap t of the kernel lies along axis k before its offset: [taps, out1..outn], broadcast along the rest. */
static value rest_place(struct call *c, const struct deformed *d, uint32_t k, dtype type)
{
    double *tap = compose_room(c, d->taps);
    for (int64_t t = 0; t < d->taps; t++) {
        int64_t rest = t;
        for (uint32_t j = d->n; --j > k;)
            rest /= d->kernel[j];
        tap[t] = (double)(rest % d->kernel[k] * d->dilation[k] - d->before[k]);
    }
    value taps = compose_along(c, compose_table(c, type, 1, &d->taps, tap), 0, d->n + 1);
    value step = build_with(c, OP_MUL, compose_place(c, type, d->n, d->out, k), (double)d->stride[k]);
    return build_both(c, OP_ADD, taps, step);
}

/* The picture under each tap: [n * offset groups, channels / offset groups, taps * places]. offset: [n, og * taps * axes, out..] */
static value read_deformed_taps(struct call *c, const struct deformed *d, value x, value offset)
{
    struct sampling s = {SAMPLE_LINEAR, PADDING_ZEROS, true};
    uint32_t n = d->n;
    dim batch = dim_mul(c->t, call_shape(c, x)[0], call_const(c, d->offset_groups)), shape[MAX_RANK], wide[MAX_RANK];
    value place[MAX_RANK];
    dim each = dim_exact_div(c->t, call_shape(c, x)[1], call_const(c, d->offset_groups));
    if (!dim_valid(each))
        call_fail(c, "%lld offset groups do not divide the channels", (long long)d->offset_groups);
    call_agree(c, call_shape(c, offset)[1], call_const(c, d->offset_groups * d->taps * n), "channels of the offsets");
    wide[0] = batch;
    wide[1] = call_const(c, d->taps);
    wide[2] = call_const(c, n);
    dims_copy(wide + 3, d->out, n);
    offset = build_reshape(c, offset, n + 3, wide);
    for (uint32_t k = 0; k < n; k++) {
        value at = build_both(c, OP_ADD, compose_at(c, offset, 2, k), rest_place(c, d, k, call_type(c, offset)));
        dim flat[2] = {batch, dim_mul(c->t, call_const(c, d->taps), d->places)};
        place[k] = build_reshape(c, at, 2, flat);
    }
    shape[0] = batch;
    shape[1] = each;
    dims_copy(shape + 2, call_shape(c, x) + 2, n);
    return sample(c, &s, build_reshape(c, x, n + 2, shape), place);
}

/* A convolution whose taps are displaced by offsets [n, og * taps * axes, out..] and weighed by a mask [n, og * taps, out..]. */
void lower_deformconv(struct call *c)
{
    dtype type = call_in(c, 0)->dtype, work = compose_work(type);
    value x = call_use_as(c, 0, work), weight = call_use_as(c, 1, work), offset = call_use_as(c, 2, work);
    struct deformed d = read_deformed(c, x, weight, offset);
    dim batch = call_shape(c, x)[0], channels = call_shape(c, x)[1], filters = call_shape(c, weight)[0];
    dim taps = call_const(c, d.taps), groups = call_const(c, d.groups), og = call_const(c, d.offset_groups);
    dim inner = dim_exact_div(c->t, channels, groups), outer = dim_exact_div(c->t, filters, groups);
    if (!dim_valid(inner) || !dim_valid(outer))
        call_fail(c, "%lld groups do not divide the channels", (long long)d.groups);
    call_agree(c, call_shape(c, weight)[1], inner, "channels of weight and picture");
    call_agree(c, call_shape(c, offset)[0], batch, "batches of picture and offsets");
    value v = read_deformed_taps(c, &d, x, offset);
    dim each = dim_exact_div(c->t, channels, og);
    v = build_reshape(c, v, 5, (dim[]){batch, og, each, taps, d.places});
    if (call_has(c, 4)) {
        value mask = build_reshape(c, call_use_as(c, 4, work), 5, (dim[]){batch, og, call_const(c, 1), taps, d.places});
        v = build_both(c, OP_MUL, v, mask);
    }
    v = build_reshape(c, v, 5, (dim[]){batch, groups, inner, taps, d.places});
    const int32_t order[] = {1, 0, 4, 2, 3}, back[] = {1, 0, 3, 2};
    v = graph_transpose(c->g, v, order); /* [g, n, places, c/g, taps] */
    weight = build_reshape(c, weight, 4, (dim[]){groups, outer, inner, taps});
    value y = graph_transpose(c->g, graph_dot(c->g, v, weight, 1, 2), back); /* [n, g, m/g, places] */
    dim shape[MAX_RANK];
    shape[0] = batch;
    shape[1] = filters;
    dims_copy(shape + 2, d.out, d.n);
    y = build_reshape(c, y, d.n + 2, shape);
    if (call_has(c, 3))
        y = build_both(c, OP_ADD, y, compose_along(c, call_use_as(c, 3, work), 1, d.n + 2));
    call_set(c, 0, graph_cast(c->g, y, type));
}
