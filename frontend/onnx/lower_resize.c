/* frontend/onnx/lower_resize.c - Resize and Upsample of axes of constant extent: each axis is a product with a constant matrix [out, in] that
 * holds the weights of the interpolation, whatever its mode. A whole-number nearest upscale of a symbolic axis is a broadcast.
 */
#include "frontend/onnx/lower.h"

#include <math.h>
#include <stdlib.h>

enum mode { NEAREST, LINEAR, CUBIC };
struct resize {
    enum mode mode;
    const char *coordinate, *nearest;
    bool antialias, exclude_outside;
    double cubic_a, extrapolation;
};
struct axis_plan {
    int64_t in, out;
    double scale, from, to; /* from, to: roi */
};
enum { MOST_TAPS = 512 };

/* ---- weights of one output element -------------------------------------------------------------------------- */

static double cubic_weight(double x, double a)
{
    x = fabs(x);
    if (x <= 1)
        return ((a + 2) * x - (a + 3)) * x * x + 1;
    return x < 2 ? ((a * x - 5 * a) * x + 8 * a) * x - 4 * a : 0;
}

/* Weights of the neighbours of a point at `ratio` in (0, 1] past the one on its left. Returns how many. */
static int tap_weights(const struct resize *r, double ratio, double scale, double *w)
{
    if (r->mode == NEAREST) {
        bool left = ratio == 1                                   ? false
                    : strcmp(r->nearest, "round_prefer_floor") == 0 ? ratio <= 0.5
                    : strcmp(r->nearest, "round_prefer_ceil") == 0  ? ratio < 0.5
                                                                    : strcmp(r->nearest, "floor") == 0;
        w[0] = left;
        w[1] = !left;
        return 2;
    }
    double squeeze = r->antialias && scale < 1 ? scale : 1, reach = r->mode == LINEAR ? 1 : 2, sum = 0;
    int start = (int)floor(-reach / squeeze) + 1, count = 2 - 2 * start;
    if (count > MOST_TAPS)
        return 0;
    for (int i = 0; i < count; i++) {
        double x = squeeze * (start + i - ratio);
        w[i] = r->mode == CUBIC ? cubic_weight(x, r->cubic_a) : fabs(x) < 1 ? 1 - fabs(x) : 0;
        sum += w[i];
    }
    for (int i = 0; i < count; i++)
        w[i] /= sum;
    return count;
}

/* Where output element i lies in the input. */
static double source_of(const struct resize *r, const struct axis_plan *p, int64_t i)
{
    double x = (double)i, in = (double)p->in, out = p->scale * in;
    const char *c = r->coordinate;
    if (strcmp(c, "align_corners") == 0)
        return out == 1 ? 0 : x * (in - 1) / (out - 1);
    if (strcmp(c, "asymmetric") == 0)
        return x / p->scale;
    if (strcmp(c, "tf_crop_and_resize") == 0) {
        double span = (p->to - p->from) * (in - 1);
        return (out == 1 ? span / 2 : x * span / (out - 1)) + p->from * (in - 1);
    }
    if (strcmp(c, "pytorch_half_pixel") == 0 && out == 1)
        return -0.5;
    double shift = strcmp(c, "half_pixel_symmetric") == 0 ? in / 2 * (1 - (double)p->out / out) : 0;
    return shift + (x + 0.5) / p->scale - 0.5;
}

/* Row i of the matrix. false: the element lies outside (and takes the extrapolation value). */
static bool fill_row(struct call *c, const struct resize *r, const struct axis_plan *p, int64_t i, double *row)
{
    double w[MOST_TAPS], x = source_of(r, p, i), sum = 0;
    if (strcmp(r->coordinate, "tf_crop_and_resize") == 0 && (x < 0 || x > (double)(p->in - 1)))
        return false;
    double left = floor(x), ratio = x == left ? 1 : x - left;
    int count = tap_weights(r, ratio, p->scale, w);
    if (count == 0)
        call_unsupported(c, "shrinking by more than %d", MOST_TAPS / 4);
    int64_t first = (int64_t)left - count / 2 + (x == left ? 0 : 1);
    for (int k = 0; k < count; k++) {
        int64_t at = first + k;
        bool outside = at < 0 || at >= p->in;
        if (outside && r->exclude_outside)
            continue;
        at = at < 0 ? 0 : at >= p->in ? p->in - 1 : at;
        row[at] += w[k];
        sum += w[k];
    }
    for (int64_t k = 0; r->exclude_outside && sum != 0 && k < p->in; k++)
        row[k] /= sum;
    return true;
}

/* ---- one axis ----------------------------------------------------------------------------------------------- */

static value resize_axis(struct call *c, value x, uint32_t axis, const struct resize *r, const struct axis_plan *p)
{
    int64_t shape[2] = {p->out, p->in};
    size_t cells = 0;
    dtype type = call_type(c, x);
    if (p->in <= 0 || p->out <= 0 || !size_mul((size_t)p->in, (size_t)p->out, &cells) || cells > 1 << 24)
        call_unsupported(c, "an axis of %lld resized to %lld", (long long)p->in, (long long)p->out);
    double *row = NEW_ARRAY(c->im->scratch, double, p->in);
    uint8_t *inside = NEW_ARRAY(c->im->scratch, uint8_t, p->out);
    uint8_t *matrix = arena_array(c->im->scratch, cells, dtype_size(type));
    bool all_inside = true;
    for (int64_t i = 0; i < p->out; i++) {
        memset(row, 0, (size_t)p->in * sizeof *row);
        inside[i] = fill_row(c, r, p, i, row);
        all_inside = all_inside && inside[i];
        for (int64_t k = 0; k < p->in; k++)
            dtype_store_f64(type, matrix, (size_t)(i * p->in + k), row[k]);
    }
    uint32_t last = call_rank(c, x) - 1;
    value weights = graph_constant(c->g, type, 2, shape, matrix);
    value y = graph_dot(c->g, build_move_axis(c, x, axis, last), weights, 0, 1);
    if (!all_inside) {
        value keep = graph_constant(c->g, DT_BOOL, 1, shape, inside);
        y = build_choose(c, keep, y, build_real(c, type, r->extrapolation));
    }
    return build_move_axis(c, y, last, axis);
}

/* [.., n, ..] -> [.., n, k, ..] -> [.., n*k, ..] */
static value repeat_axis(struct call *c, value x, uint32_t axis, int64_t times)
{
    dim wide[MAX_RANK], shape[MAX_RANK];
    int32_t axes[MAX_RANK];
    uint32_t rank = call_rank(c, x);
    if (rank + 1 > MAX_RANK)
        call_unsupported(c, "%u axes", rank);
    dims_copy(shape, call_shape(c, x), rank);
    shape[axis] = dim_mul(c->t, shape[axis], call_const(c, times));
    x = build_unsqueeze(c, x, axis + 1);
    dims_copy(wide, call_shape(c, x), rank + 1);
    wide[axis + 1] = call_const(c, times);
    for (uint32_t k = 0; k <= rank; k++)
        axes[k] = (int32_t)k;
    return build_reshape(c, graph_broadcast(c->g, x, rank + 1, wide, axes), rank, shape);
}

static bool repeats(const struct resize *r, double scale)
{
    bool plain = strcmp(r->coordinate, "align_corners") != 0 && strcmp(r->coordinate, "tf_crop_and_resize") != 0;
    bool half = strncmp(r->nearest, "round", 5) == 0 && strcmp(r->coordinate, "asymmetric") != 0;
    bool floors = strcmp(r->nearest, "floor") == 0 && strcmp(r->coordinate, "asymmetric") == 0;
    return r->mode == NEAREST && plain && (half || floors) && floor(scale) == scale && scale >= 1 && scale <= 1e6;
}

/* ---- the operators ------------------------------------------------------------------------------------------ */

static struct resize read_resize(struct call *c, bool old)
{
    const char *mode = attribute_text(c, "mode", "nearest");
    struct resize r = {.mode = strcmp(mode, "nearest") == 0 ? NEAREST : strcmp(mode, "cubic") == 0 ? CUBIC : LINEAR};
    r.coordinate = old ? "asymmetric" : attribute_text(c, "coordinate_transformation_mode", "half_pixel");
    r.nearest = old ? "floor" : attribute_text(c, "nearest_mode", "round_prefer_floor");
    r.antialias = attribute_int(c, "antialias", 0) != 0;
    r.exclude_outside = attribute_int(c, "exclude_outside", 0) != 0;
    r.cubic_a = attribute_real(c, "cubic_coeff_a", -0.75);
    r.extrapolation = attribute_real(c, "extrapolation_value", 0);
    if (strcmp(mode, "nearest") != 0 && strcmp(mode, "linear") != 0 && strcmp(mode, "cubic") != 0)
        call_unsupported(c, "mode '%s'", mode);
    return r;
}

/* Scales from sizes, with the aspect ratio kept where the policy says so. */
static void plan_sizes(struct call *c, uint32_t count, const uint32_t *axes, const int64_t *size, struct axis_plan *plan)
{
    const char *policy = attribute_text(c, "keep_aspect_ratio_policy", "stretch");
    bool larger = strcmp(policy, "not_larger") == 0, smaller = strcmp(policy, "not_smaller") == 0;
    double common = larger ? INFINITY : 0;
    for (uint32_t i = 0; i < count; i++) {
        double scale = (double)size[i] / (double)plan[axes[i]].in;
        plan[axes[i]].scale = scale;
        plan[axes[i]].out = size[i];
        common = larger ? fmin(common, scale) : fmax(common, scale);
    }
    for (uint32_t i = 0; (larger || smaller) && i < count; i++) {
        plan[axes[i]].scale = common;
        plan[axes[i]].out = (int64_t)floor(common * (double)plan[axes[i]].in + 0.5);
    }
}

static void resize_all(struct call *c, const struct resize *r, struct axis_plan *plan)
{
    value x = call_use(c, 0);
    dtype type = call_type(c, x), work = dtype_is_float(type) ? type : DT_F32;
    x = graph_cast(c->g, x, work);
    bool crop = strcmp(r->coordinate, "tf_crop_and_resize") == 0;
    for (uint32_t k = 0; k < call_rank(c, x); k++) {
        if (plan[k].scale == 1 && plan[k].out == plan[k].in && !crop)
            continue;
        if (repeats(r, plan[k].scale))
            x = repeat_axis(c, x, k, (int64_t)plan[k].scale);
        else if (plan[k].in < 0)
            call_unsupported(c, "a symbolic axis");
        else
            x = resize_axis(c, x, k, r, &plan[k]);
    }
    call_set(c, 0, graph_cast(c->g, x, type));
}

/* inputs: X, roi, scales, sizes since 11; X, scales at 10 and in Upsample (argument 1; scales are an attribute at 7) */
void lower_resize(struct call *c)
{
    bool old = c->argument == 1 || c->version < 11;
    struct resize r = read_resize(c, old);
    uint32_t rank = call_in(c, 0)->rank, count = 0, axes[MAX_RANK], given = 0, rois = 0;
    struct axis_plan plan[MAX_RANK];
    const int64_t *listed = attribute_ints(c, "axes", &count), *size = NULL;
    const double *scale = NULL, *roi = NULL;
    count = listed ? count : rank;
    if (count > rank)
        call_fail(c, "has %u axes for a value of %u", count, rank);
    for (uint32_t k = 0; k < count; k++)
        axes[k] = listed ? call_axis(c, listed[k], rank) : k;
    for (uint32_t k = 0; k < rank; k++) {
        plan[k] = (struct axis_plan){.in = -1, .out = -1, .scale = 1, .from = 0, .to = 1};
        if (dim_is_const(c->t, call_in(c, 0)->shape[k], &plan[k].in))
            plan[k].out = plan[k].in;
    }
    uint32_t scales_input = old ? 1 : 2;
    const float *attribute_scales = attribute_reals(c, "scales", &given);
    if (!old && call_has(c, 3))
        size = call_ints(c, 3, &given);
    else if (!attribute_scales && !call_reals(c, scales_input, &scale, &given))
        call_unsupported(c, "scales that depend on the numbers of an input");
    if (given != count)
        call_fail(c, "has %u scales or sizes for %u axes", given, count);
    bool crop = strcmp(r.coordinate, "tf_crop_and_resize") == 0;
    if (crop && (!call_has(c, 1) || !call_reals(c, 1, &roi, &rois) || rois != 2 * count))
        call_unsupported(c, "a region that depends on the numbers of an input");
    if (crop)
        for (uint32_t i = 0; i < count; i++) {
            plan[axes[i]].from = roi[i];
            plan[axes[i]].to = roi[i + count];
        }
    for (uint32_t i = 0; i < count && !size; i++) {
        struct axis_plan *p = &plan[axes[i]];
        p->scale = attribute_scales ? (double)attribute_scales[i] : scale[i];
        if (!(p->scale > 0 && p->scale < 1e9))
            call_fail(c, "a scale of %g", p->scale);
        p->out = p->in < 0 ? -1 : (int64_t)floor((double)p->in * p->scale);
    }
    for (uint32_t i = 0; size && i < count; i++)
        if (plan[axes[i]].in <= 0 || size[i] <= 0)
            call_unsupported(c, "sizes for symbolic or empty axes");
    if (size)
        plan_sizes(c, count, axes, size, plan);
    resize_all(c, &r, plan);
}
