/* frontend/onnx/lower_resize.c - Resize and Upsample: one axis after another, each a gather of a few taps and their weighted sum.
 *
 * Taps and weights of an axis are tables made here, from its extents. A nearest axis that grows by a whole number repeats its elements, and needs
 * no extents: pictures of symbolic size pass. Start reading at lower_resize.
 */
#include "frontend/onnx/compose.h"

#include <math.h>

enum resize_mode { NEAREST, LINEAR, CUBIC };
enum transform { HALF_PIXEL, SYMMETRIC, PYTORCH, ALIGN_CORNERS, ASYMMETRIC, CROP };
enum nearest_mode { PREFER_FLOOR, PREFER_CEIL, FLOOR, CEIL, SIMPLE };

struct resize {
    enum resize_mode mode;
    enum transform transform;
    enum nearest_mode nearest;
    bool antialias, exclude_outside;
    double cubic, extrapolation;
};
struct resized_axis {
    int64_t in, out;
    double scale, start, end; /* start and end: of the region, for CROP */
};

/* Which of the names an attribute's text is; fails on none. */
static int which(struct call *c, const char *name, const char *text, int count, const char *const *names)
{
    for (int i = 0; i < count; i++)
        if (strcmp(text, names[i]) == 0)
            return i;
    call_fail(c, "%s is '%s'", name, text);
}

static void read_modes(struct call *c, struct resize *r)
{
    static const char *const modes[] = {"nearest", "linear", "cubic", "bilinear"};
    static const char *const transforms[] = {"half_pixel",          "half_pixel_symmetric", "pytorch_half_pixel",
                                             "align_corners",       "asymmetric",           "tf_crop_and_resize",
                                             "tf_half_pixel_for_nn"};
    static const char *const nearest[] = {"round_prefer_floor", "round_prefer_ceil", "floor", "ceil"};
    bool old = c->version < 11 || strcmp(c->proto->op_type, "Upsample") == 0;
    int mode = which(c, "mode", attribute_text(c, "mode", "nearest"), 4, modes);
    int transform = which(c, "coordinate_transformation_mode",
                          attribute_text(c, "coordinate_transformation_mode", "half_pixel"), 7, transforms);
    if (transform == 6)
        call_unsupported(c, "tf_half_pixel_for_nn");
    r->mode = mode == 3 ? LINEAR : (enum resize_mode)mode;
    r->transform = old ? ASYMMETRIC : (enum transform)transform;
    r->nearest = (enum nearest_mode)which(c, "nearest_mode", attribute_text(c, "nearest_mode", "round_prefer_floor"), 4,
                                          nearest);
    r->nearest = old ? SIMPLE : r->nearest;
    r->antialias = attribute_int(c, "antialias", 0) != 0 && r->mode != NEAREST;
    r->exclude_outside = attribute_int(c, "exclude_outside", 0) != 0;
    r->cubic = attribute_real(c, "cubic_coeff_a", -0.75);
    r->extrapolation = attribute_real(c, "extrapolation_value", 0);
}

/* ---- coordinates -------------------------------------------------------------------------------------------- */

/* Where output place o lies in the input. `width` is the exact output extent, which need not be whole. */
static double place_of(const struct resize *r, const struct resized_axis *a, int64_t o)
{
    double width = a->scale * (double)a->in, x = (double)o, last = (double)(a->in - 1);
    switch (r->transform) {
    case ALIGN_CORNERS:
        return width == 1 ? 0 : x * last / (width - 1);
    case ASYMMETRIC:
        return x / a->scale;
    case CROP:
        if (a->out == 1)
            return 0.5 * (a->start + a->end) * last;
        return a->start * last + x * (a->end - a->start) * last / (width - 1);
    case PYTORCH:
        return a->out == 1 ? 0 : (x + 0.5) / a->scale - 0.5;
    case SYMMETRIC:
        return (double)a->in / 2 * (1 - (double)a->out / width) + (x + 0.5) / a->scale - 0.5;
    case HALF_PIXEL:
        break;
    }
    return (x + 0.5) / a->scale - 0.5;
}

static double nearest_of(const struct resize *r, const struct resized_axis *a, double x)
{
    switch (r->nearest) {
    case PREFER_FLOOR:
        return ceil(x - 0.5);
    case PREFER_CEIL:
        return floor(x + 0.5);
    case FLOOR:
        return floor(x);
    case CEIL:
        return ceil(x);
    case SIMPLE: /* operator set 10 and before */
        break;
    }
    return a->scale < 1 ? ceil(x) : trunc(x);
}

/* The filter at distance x: a triangle, or Keys' cubic. */
static double filter(const struct resize *r, double x)
{
    double a = r->cubic;
    x = fabs(x);
    if (r->mode == LINEAR)
        return x < 1 ? 1 - x : 0;
    if (x <= 1)
        return ((a + 2) * x - (a + 3)) * x * x + 1;
    return x < 2 ? ((a * x - 5 * a) * x + 8 * a) * x - 4 * a : 0;
}

static int64_t clamp_place(double i, int64_t extent)
{
    return !(i > 0) ? 0 : i > (double)(extent - 1) ? extent - 1 : (int64_t)i;
}

/* ---- one axis ----------------------------------------------------------------------------------------------- */

struct taps {
    int64_t count, first; /* per output place; the first one's offset from the element left of it */
    double stretch;       /* of the filter, against aliasing */
    int64_t *index;       /* [out, count] */
    double *weight;       /* [out, count] */
    double *outside;      /* [out]: 1 where the extrapolation value stands */
    bool any_outside;
};

static void fill_taps(const struct resize *r, const struct resized_axis *a, int64_t o, struct taps *t)
{
    double x = place_of(r, a, o), base = ceil(x) - 1, ratio = x - base, sum = 0;
    int64_t *index = t->index + o * t->count;
    double *weight = t->weight + o * t->count;
    bool outside = r->transform == CROP && (x < 0 || x > (double)(a->in - 1));
    t->outside[o] = outside ? 1 : 0;
    t->any_outside = t->any_outside || outside;
    if (r->mode == NEAREST) {
        index[0] = clamp_place(nearest_of(r, a, x), a->in);
        return;
    }
    for (int64_t k = 0; k < t->count; k++) {
        double at = base + (double)(t->first + k);
        index[k] = clamp_place(at, a->in);
        weight[k] = filter(r, ((double)(t->first + k) - ratio) * t->stretch);
        if (r->exclude_outside && (at < 0 || at > (double)(a->in - 1)))
            weight[k] = 0;
        sum += weight[k];
    }
    for (int64_t k = 0; k < t->count && sum != 0; k++)
        weight[k] /= sum;
}

static void make_taps(struct call *c, const struct resize *r, const struct resized_axis *a, struct taps *t)
{
    double support = r->mode == CUBIC ? 2 : 1;
    t->stretch = r->antialias && a->scale < 1 ? a->scale : 1;
    double first = floor(-support / t->stretch) + 1;
    if (!(first > -COMPOSE_TABLE) || a->out > COMPOSE_TABLE)
        call_unsupported(c, "a resize from %lld to %lld elements", (long long)a->in, (long long)a->out);
    t->first = r->mode == NEAREST ? 0 : (int64_t)first;
    t->count = r->mode == NEAREST ? 1 : 2 - 2 * t->first;
    t->index = compose_integer_room(c, a->out * t->count);
    t->weight = compose_room(c, a->out * t->count);
    t->outside = compose_room(c, a->out);
    for (int64_t o = 0; o < a->out; o++)
        fill_taps(r, a, o, t);
}

/* [.., in, ..] -> gather -> [.., out, taps, ..] -> weighted sum -> [.., out, ..] */
static value resize_axis(struct call *c, value x, uint32_t axis, const struct resize *r, const struct resized_axis *a)
{
    struct taps t = {.count = 0};
    int32_t along = (int32_t)axis + 1;
    dtype type = call_type(c, x);
    if (a->in < 1 && a->out > 0)
        call_fail(c, "axis %u is empty and cannot be resized to %lld", axis, (long long)a->out);
    make_taps(c, r, a, &t);
    if (r->mode == NEAREST) {
        x = graph_gather(c->g, x, compose_integers(c, 1, &a->out, t.index), axis, 0);
    } else {
        const int64_t shape[] = {a->out, t.count};
        uint32_t rank = call_rank(c, x) + 1;
        dim weights[MAX_RANK];
        if (rank > MAX_RANK)
            call_unsupported(c, "%u axes", rank - 1);
        x = graph_gather(c->g, x, compose_integers(c, 2, shape, t.index), axis, 0);
        for (uint32_t k = 0; k < rank - axis; k++)
            weights[k] = call_const(c, k < 2 ? shape[k] : 1);
        value weight = build_reshape(c, compose_table(c, type, 2, shape, t.weight), rank - axis, weights);
        x = graph_reduce(c->g, OP_REDUCE_SUM, build_both(c, OP_MUL, x, weight), 1, &along);
    }
    if (!t.any_outside)
        return x;
    value outside = compose_along(c, compose_table(c, DT_BOOL, 1, &a->out, t.outside), axis, call_rank(c, x));
    return build_choose(c, outside, build_real(c, type, r->extrapolation), x);
}

/* Does nearest of a whole factor repeat each element that often, wherever the axis ends? */
static bool repeats(const struct resize *r, int64_t factor)
{
    if (r->mode != NEAREST || r->transform == ALIGN_CORNERS || r->transform == CROP || factor > 1000)
        return false;
    struct resized_axis a = {.in = 1000, .out = 1000 * factor, .scale = (double)factor};
    for (int64_t o = 0; o < 1000 * factor; o += o == factor ? 500 * factor : o == 501 * factor ? 498 * factor : 1)
        if (clamp_place(nearest_of(r, &a, place_of(r, &a, o)), a.in) != o / factor)
            return false;
    return true;
}

static value repeat_axis(struct call *c, value x, uint32_t axis, int64_t factor)
{
    uint32_t rank = call_rank(c, x);
    dim shape[MAX_RANK], merged[MAX_RANK];
    int32_t axes[MAX_RANK];
    if (rank + 1 > MAX_RANK)
        call_unsupported(c, "%u axes", rank);
    dims_copy(merged, call_shape(c, x), rank);
    merged[axis] = dim_mul(c->t, merged[axis], call_const(c, factor));
    for (uint32_t k = 0; k <= rank; k++)
        shape[k] = k == axis + 1 ? call_const(c, factor) : call_shape(c, x)[k <= axis ? k : k - 1];
    for (uint32_t k = 0; k < rank; k++)
        axes[k] = (int32_t)(k <= axis ? k : k + 1);
    x = graph_broadcast(c->g, x, rank + 1, shape, axes);
    return build_reshape(c, x, rank, merged);
}

/* ---- the operators ------------------------------------------------------------------------------------------ */

struct request { /* per entry of axes */
    uint32_t count;
    uint32_t axis[MAX_RANK];
    double scale[MAX_RANK], start[MAX_RANK], end[MAX_RANK];
    dim size[MAX_RANK]; /* DIM_NONE: by scale */
};

static void read_axes(struct call *c, uint32_t rank, struct request *q)
{
    uint32_t count = 0;
    const int64_t *axes = attribute_ints(c, "axes", &count);
    q->count = axes ? count : rank;
    if (q->count > rank)
        call_fail(c, "axes names %u axes of %u", count, rank);
    for (uint32_t i = 0; i < q->count; i++) {
        q->axis[i] = axes ? call_axis(c, axes[i], rank) : i;
        q->start[i] = 0;
        q->end[i] = 1;
        q->size[i] = DIM_NONE;
    }
}

static void read_scales(struct call *c, uint32_t input, struct request *q)
{
    uint32_t count = 0;
    const double *x = NULL;
    const float *given = input == UINT32_MAX ? attribute_reals(c, "scales", &count) : NULL;
    if (input != UINT32_MAX && !call_reals(c, input, &x, &count))
        call_unsupported(c, "scales that are not constant");
    if (count != q->count)
        call_fail(c, "%u scales for %u axes", count, q->count);
    for (uint32_t i = 0; i < count; i++) {
        q->scale[i] = x ? x[i] : (double)given[i];
        if (!(q->scale[i] > 0) || q->scale[i] > 1e9)
            call_fail(c, "scale %g of axis %u", q->scale[i], q->axis[i]);
    }
}

static int64_t whole(struct call *c, double x)
{
    if (!(x < COMPOSE_TABLE))
        call_unsupported(c, "an axis of %g elements", x);
    return (int64_t)floor(x);
}

/* keep_aspect_ratio_policy: one scale for all, the least or the greatest that the sizes ask for */
static void keep_aspect(struct call *c, const char *policy, const dim *shape, struct request *q)
{
    bool larger = strcmp(policy, "not_smaller") == 0;
    double scale = 0;
    if (!larger && strcmp(policy, "not_larger") != 0)
        call_fail(c, "keep_aspect_ratio_policy is '%s'", policy);
    for (uint32_t i = 0; i < q->count; i++) {
        double in = (double)compose_extent(c, shape[q->axis[i]], "extent");
        double s = (double)compose_extent(c, q->size[i], "size") / in;
        scale = i == 0 || (larger ? s > scale : s < scale) ? s : scale;
    }
    if (!(scale > 0) || scale > 1e9)
        call_fail(c, "the sizes ask for a scale of %g", scale);
    for (uint32_t i = 0; i < q->count; i++) {
        double in = (double)compose_extent(c, shape[q->axis[i]], "extent");
        q->size[i] = call_const(c, whole(c, scale * in + 0.5));
        q->scale[i] = scale;
    }
}

static void read_sizes(struct call *c, uint32_t input, const dim *shape, struct request *q)
{
    uint32_t count = 0;
    const dim *size = call_dims(c, input, &count);
    const char *policy = attribute_text(c, "keep_aspect_ratio_policy", "stretch");
    if (count != q->count)
        call_fail(c, "%u sizes for %u axes", count, q->count);
    for (uint32_t i = 0; i < count; i++) {
        int64_t in = 0, out = 0;
        q->size[i] = size[i];
        if (dim_is_const(c->t, shape[q->axis[i]], &in) && dim_is_const(c->t, size[i], &out))
            q->scale[i] = in > 0 ? (double)out / (double)in : 1;
    }
    if (strcmp(policy, "stretch") != 0)
        keep_aspect(c, policy, shape, q);
}

static void read_region(struct call *c, struct request *q)
{
    uint32_t count = 0;
    const double *x = NULL;
    if (!call_has(c, 1) || !call_reals(c, 1, &x, &count))
        call_unsupported(c, "a region that is not constant");
    if (count != 2 * q->count)
        call_fail(c, "roi has %u numbers for %u axes", count, q->count);
    for (uint32_t i = 0; i < q->count; i++) {
        q->start[i] = x[i];
        q->end[i] = x[q->count + i];
    }
}

/* How often a nearest axis repeats its elements: 0 when it does not. */
static int64_t whole_factor(struct call *c, const struct resize *r, dim in, dim size, double scale)
{
    int64_t factor = 0, out = 0;
    if (dim_valid(size)) {
        dim quotient = dim_is_const(c->t, size, &out) && out == 0 ? DIM_NONE : dim_exact_div(c->t, size, in);
        if (!dim_valid(quotient) || !dim_is_const(c->t, quotient, &factor))
            return 0;
    } else if (scale == floor(scale) && scale <= 1000) {
        factor = (int64_t)scale;
    }
    return factor >= 1 && (factor == 1 ? r->transform != CROP : repeats(r, factor)) ? factor : 0;
}

static value resize_one(struct call *c, value x, const struct resize *r, const struct request *q, uint32_t i)
{
    uint32_t axis = q->axis[i];
    dim in = call_shape(c, x)[axis];
    struct resized_axis a = {.start = q->start[i], .end = q->end[i], .scale = q->scale[i]};
    bool crops = r->transform == CROP && (a.start != 0 || a.end != 1);
    if (!crops &&
        (dim_valid(q->size[i]) ? q->size[i] == in && (a.scale == 1 || !dim_is_const(c->t, in, NULL)) : a.scale == 1))
        return x;
    int64_t factor = whole_factor(c, r, in, q->size[i], q->scale[i]);
    if (factor > 0)
        return factor == 1 ? x : repeat_axis(c, x, axis, factor);
    a.in = compose_extent(c, in, "extent of a resized axis");
    a.out = dim_valid(q->size[i]) ? compose_extent(c, q->size[i], "size") : whole(c, a.scale * (double)a.in);
    if (a.out < 0)
        call_fail(c, "a size of %lld", (long long)a.out);
    return resize_axis(c, x, axis, r, &a);
}

static void resize_all(struct call *c, const struct resize *r, const struct request *q)
{
    value x = call_use(c, 0);
    dtype type = call_type(c, x), work = r->mode == NEAREST || type == DT_F64 ? type : DT_F32;
    x = graph_cast(c->g, x, work);
    for (uint32_t i = 0; i < q->count; i++)
        x = resize_one(c, x, r, q, i);
    call_set(c, 0, work == type || dtype_is_float(type) ? graph_cast(c->g, x, type) : compose_quantize(c, x, type));
}

static bool given(struct call *c, uint32_t input) /* an empty tensor stands for none */
{
    return call_has(c, input) && !(call_in(c, input)->rank == 1 && dim_is(c->t, call_in(c, input)->shape[0], 0));
}

void lower_resize(struct call *c)
{
    const struct datum *d = call_in(c, 0);
    struct resize r;
    struct request q = {.count = 0};
    read_modes(c, &r);
    read_axes(c, d->rank, &q);
    uint32_t scales = c->version < 11 ? 1 : 2;
    if (r.transform == CROP)
        read_region(c, &q);
    if (given(c, scales))
        read_scales(c, scales, &q);
    else if (given(c, 3))
        read_sizes(c, 3, d->shape, &q);
    else
        call_fail(c, "has neither scales nor sizes");
    resize_all(c, &r, &q);
}

/* Operator sets 7 (scales as attribute) and 9 (as input). */
void lower_upsample(struct call *c)
{
    struct resize r;
    struct request q = {.count = 0};
    read_modes(c, &r);
    read_axes(c, call_in(c, 0)->rank, &q);
    read_scales(c, c->version < 9 ? UINT32_MAX : 1, &q);
    resize_all(c, &r, &q);
}
