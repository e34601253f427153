/* frontend/onnx/lower_region.c - pools over regions of a picture: RoiAlign and MaxRoiPool.
 *
 * A region's samples lie on a grid: rows [regions, bins * samples], columns alike. Bilinear taps of both axes make flat indices into
 * [batch * height * width, channels]; one gather reads them all, and the taps of a bin are summed or the greatest taken.
 */
#include "frontend/onnx/compose.h"

#include <math.h>

struct grid_axis { /* one axis of all regions */
    value index;   /* [regions, bins, samples, 2] as i64 */
    value weight;  /* [regions, bins, samples, 2] */
    value used;    /* [regions, 1, samples, 1] bool, or 0: all samples */
    value count;   /* [regions] how many samples */
};
struct regions {
    int64_t samples; /* per bin and axis; the most, where it differs */
    bool adaptive;
    bool half_pixel;
    double scale;
    value rois; /* [regions, 4] */
};

static value column(struct call *c, const struct regions *r, int64_t i)
{
    value v = build_with(c, OP_MUL, compose_at(c, r->rois, 1, i), r->scale);
    return r->half_pixel ? build_with(c, OP_SUB, v, 0.5) : v;
}

/* The bilinear taps of places [regions, bins, samples] on an axis of that extent; outside of it they weigh nothing. */
static void make_taps(struct call *c, value place, dim extent, struct grid_axis *out)
{
    dtype type = call_type(c, place);
    value size = compose_dim(c, type, extent), last = build_with(c, OP_SUB, size, 1), one = build_real(c, type, 1);
    value outside =
        build_both(c, OP_OR, build_both(c, OP_LT, place, build_real(c, type, -1)), build_both(c, OP_LT, size, place));
    value x = build_both(c, OP_MIN, build_with(c, OP_MAX, place, 0), last), low = graph_unary(c->g, OP_FLOOR, x);
    value high = build_both(c, OP_MIN, build_with(c, OP_ADD, low, 1), last), rest = build_both(c, OP_SUB, x, low);
    value index[2] = {low, high}, weight[2] = {build_both(c, OP_SUB, one, rest), rest};
    for (int i = 0; i < 2; i++) {
        index[i] = graph_cast(c->g, index[i], DT_I64);
        weight[i] = build_choose(c, outside, build_real(c, type, 0), weight[i]);
    }
    out->index = compose_stack(c, 2, index, 3);
    out->weight = compose_stack(c, 2, weight, 3);
}

/* first: the column of rois with the axis's start; two on is its end */
static struct grid_axis make_axis(struct call *c, const struct regions *r, int64_t first, int64_t bins, dim extent)
{
    struct grid_axis a = {.used = 0};
    value start = column(c, r, first), length = build_both(c, OP_SUB, column(c, r, first + 2), start);
    dtype type = call_type(c, start);
    if (!r->half_pixel)
        length = build_with(c, OP_MAX, length, 1);
    value bin = build_with(c, OP_DIV, length, (double)bins);
    dim regions = call_shape(c, start)[0], samples = call_const(c, r->samples);
    a.count = r->adaptive ? graph_unary(c->g, OP_CEIL, bin) : build_full(c, type, (double)r->samples, 1, &regions);
    dim space[3] = {regions, call_const(c, bins), samples};
    value bin_place = compose_place(c, type, 3, space, 1), sample_place = compose_place(c, type, 3, space, 2);
    value wide_bin = compose_along(c, bin, 0, 3), wide_count = compose_along(c, a.count, 0, 3);
    value step = build_both(c, OP_DIV, wide_bin, wide_count);
    value inner = build_both(c, OP_MUL, build_with(c, OP_ADD, sample_place, 0.5), step);
    value place = build_both(
        c, OP_ADD, build_both(c, OP_ADD, compose_along(c, start, 0, 3), build_both(c, OP_MUL, bin_place, wide_bin)),
        inner);
    make_taps(c, place, extent, &a);
    if (r->adaptive) {
        value used = build_both(c, OP_LT, sample_place, wide_count); /* [regions, 1, samples] */
        a.used = build_unsqueeze(c, used, 3);
    }
    return a;
}

/* v [regions, bins, samples, 2] among the axes [regions, rows, samples, 2, columns, samples, 2] */
static value as_rows(struct call *c, value v)
{
    dim s[7];
    for (uint32_t k = 0; k < 7; k++)
        s[k] = k < 4 ? call_shape(c, v)[k] : call_const(c, 1);
    return build_reshape(c, v, 7, s);
}

static value as_columns(struct call *c, value v)
{
    dim s[7];
    for (uint32_t k = 0; k < 7; k++)
        s[k] = k == 0 ? call_shape(c, v)[0] : k < 4 ? call_const(c, 1) : call_shape(c, v)[k - 3];
    return build_reshape(c, v, 7, s);
}

static void read_samples(struct call *c, struct regions *r, int64_t height, int64_t width)
{
    const double *x = NULL;
    uint32_t count = 0;
    int64_t most = 1;
    r->samples = attribute_int(c, "sampling_ratio", 0);
    if (r->samples > 0) {
        if (r->samples > COMPOSE_STEPS)
            call_unsupported(c, "a sampling_ratio of %lld", (long long)r->samples);
        return;
    }
    r->adaptive = true;
    if (!call_reals(c, 1, &x, &count))
        call_unsupported(
            c, "sampling_ratio 0 with regions that are not constant: how many samples it takes depends on them");
    for (uint32_t i = 0; i + 3 < count; i += 4) {
        double wide = ceil(fmax((x[i + 2] - x[i]) * r->scale, r->half_pixel ? 0 : 1) / (double)width);
        double high = ceil(fmax((x[i + 3] - x[i + 1]) * r->scale, r->half_pixel ? 0 : 1) / (double)height);
        if (!(wide <= COMPOSE_STEPS) || !(high <= COMPOSE_STEPS))
            call_unsupported(c, "a region of more than %d samples in a bin", COMPOSE_STEPS);
        most = wide > (double)most ? (int64_t)wide : most;
        most = high > (double)most ? (int64_t)high : most;
    }
    r->samples = most;
}

/* All taps of all bins: [regions, rows, samples, 2, columns, samples, 2, channels] */
static value read_taps(struct call *c, value x, value batch, const struct grid_axis *rows,
                       const struct grid_axis *columns)
{
    const dim *own = call_shape(c, x);
    dim flat[2] = {dim_mul(c->t, own[0], dim_mul(c->t, own[2], own[3])), own[1]};
    value height = compose_dim(c, DT_I64, own[2]), width = compose_dim(c, DT_I64, own[3]);
    value first = build_both(c, OP_MUL, compose_along(c, batch, 0, 7), build_both(c, OP_MUL, height, width));
    value index =
        build_both(c, OP_ADD, build_both(c, OP_MUL, as_rows(c, rows->index), width), as_columns(c, columns->index));
    index = build_both(c, OP_ADD, index, first);
    value pixels = build_reshape(c, build_move_axis(c, x, 1, 3), 2, flat);
    value weight = build_both(c, OP_MUL, as_rows(c, rows->weight), as_columns(c, columns->weight));
    return build_both(c, OP_MUL, graph_gather(c->g, pixels, index, 0, 0), build_unsqueeze(c, weight, 7));
}

void lower_roialign(struct call *c)
{
    dtype type = call_in(c, 0)->dtype, work = compose_work(type);
    value x = call_use_as(c, 0, work), batch = call_use_as(c, 2, DT_I64);
    const char *mode = attribute_text(c, "mode", "avg"),
               *transform = attribute_text(c, "coordinate_transformation_mode", "half_pixel");
    int64_t height = attribute_int(c, "output_height", 1), width = attribute_int(c, "output_width", 1);
    struct regions r = {.scale = attribute_real(c, "spatial_scale", 1)};
    r.half_pixel = c->version >= 16 && strcmp(transform, "output_half_pixel") != 0;
    r.rois = call_use_as(c, 1, work);
    bool greatest = strcmp(mode, "max") == 0;
    if (call_rank(c, x) != 4 || call_rank(c, r.rois) != 2 || call_rank(c, batch) != 1 ||
        !dim_is(c->t, call_shape(c, r.rois)[1], 4))
        call_fail(c, "needs a picture of four axes, regions [n, 4] and a batch index for each");
    if (height < 1 || width < 1 || height > COMPOSE_TABLE || width > COMPOSE_TABLE ||
        (!greatest && strcmp(mode, "avg") != 0))
        call_fail(c, "mode '%s' to %lld x %lld", mode, (long long)height, (long long)width);
    call_agree(c, call_shape(c, r.rois)[0], call_shape(c, batch)[0], "regions and batch indices");
    read_samples(c, &r, height, width);
    struct grid_axis rows = make_axis(c, &r, 1, height, call_shape(c, x)[2]);
    struct grid_axis columns = make_axis(c, &r, 0, width, call_shape(c, x)[3]);
    value taps = read_taps(c, x, batch, &rows, &columns);
    if (r.adaptive) {
        value used = build_both(c, OP_AND, as_rows(c, rows.used), as_columns(c, columns.used));
        value none = build_real(c, work, greatest ? -(double)INFINITY : 0);
        taps = build_choose(c, build_unsqueeze(c, used, 7), taps, none);
    }
    const int32_t inner[] = {2, 3, 5, 6};
    value y = graph_reduce(c->g, greatest ? OP_REDUCE_MAX : OP_REDUCE_SUM, taps, 4,
                           inner); /* [regions, rows, columns, channels] */
    if (!greatest) {
        value count = build_with(c, OP_MAX, build_both(c, OP_MUL, rows.count, columns.count), 1);
        y = build_both(c, OP_DIV, y, compose_along(c, count, 0, 4));
    }
    call_set(c, 0, graph_cast(c->g, build_move_axis(c, y, 3, 1), type));
}

/* ---- MaxRoiPool --------------------------------------------------------------------------------------------- */

/* To the nearest whole number, halves up (regions lie at places that are not negative). */
static value nearest(struct call *c, value x)
{
    return graph_unary(c->g, OP_FLOOR, build_with(c, OP_ADD, x, 0.5));
}

/* Which places of an axis each bin holds: [regions, bins, extent]. first: the column of the start, two on that of the end */
static value bin_members(struct call *c, value rois, int64_t first, int64_t bins, dim extent, double scale)
{
    dtype type = call_type(c, rois);
    value start = nearest(c, build_with(c, OP_MUL, compose_at(c, rois, 1, first), scale));
    value end = nearest(c, build_with(c, OP_MUL, compose_at(c, rois, 1, first + 2), scale));
    value length = build_with(c, OP_MAX, build_with(c, OP_ADD, build_both(c, OP_SUB, end, start), 1), 1);
    value bin = compose_along(c, build_with(c, OP_DIV, length, (double)bins), 0, 3);
    dim space[3] = {call_shape(c, rois)[0], call_const(c, bins), extent};
    value place = compose_place(c, type, 3, space, 2), which = compose_place(c, type, 3, space, 1);
    start = compose_along(c, start, 0, 3);
    value low = build_both(c, OP_ADD, graph_unary(c->g, OP_FLOOR, build_both(c, OP_MUL, which, bin)), start);
    value next = build_with(c, OP_ADD, which, 1);
    value high = build_both(c, OP_ADD, graph_unary(c->g, OP_CEIL, build_both(c, OP_MUL, next, bin)), start);
    return build_both(c, OP_AND, build_both(c, OP_LE, low, place), build_both(c, OP_LT, place, high));
}

/* rois [n, 5]: batch index, x1, y1, x2, y2. The greatest element of each bin, 0 where it holds none. */
void lower_maxroipool(struct call *c)
{
    dtype type = call_in(c, 0)->dtype, work = compose_work(type);
    value x = call_use_as(c, 0, work), rois = call_use_as(c, 1, work);
    uint32_t count = 0;
    const int64_t *bins = attribute_ints(c, "pooled_shape", &count);
    double scale = attribute_real(c, "spatial_scale", 1);
    if (!bins || count != 2 || bins[0] < 1 || bins[1] < 1 || bins[0] > COMPOSE_TABLE || bins[1] > COMPOSE_TABLE)
        call_fail(c, "pooled_shape is not two extents");
    if (call_rank(c, x) != 4 || call_rank(c, rois) != 2 || !dim_is(c->t, call_shape(c, rois)[1], 5))
        call_fail(c, "needs a picture of four axes and regions [n, 5]");
    value batch = graph_cast(c->g, compose_at(c, rois, 1, 0), DT_I64);
    value rows = bin_members(c, rois, 2, bins[0], call_shape(c, x)[2], scale);    /* [n, h bins, height] */
    value columns = bin_members(c, rois, 1, bins[1], call_shape(c, x)[3], scale); /* [n, w bins, width] */
    value lowest = build_real(c, work, -(double)INFINITY);
    const int32_t last = 4;
    value y = build_unsqueeze(c, graph_gather(c->g, x, batch, 0, 0), 3); /* [n, c, height, 1, width] */
    columns = build_unsqueeze(c, build_unsqueeze(c, columns, 1), 1);
    y = graph_reduce(c->g, OP_REDUCE_MAX, build_choose(c, columns, y, lowest), 1, &last); /* [n, c, height, w bins] */
    y = build_unsqueeze(c, build_move_axis(c, y, 3, 2), 2);    /* [n, c, 1, w bins, height] */
    rows = build_unsqueeze(c, build_unsqueeze(c, rows, 2), 1); /* [n, 1, h bins, 1, height] */
    y = graph_reduce(c->g, OP_REDUCE_MAX, build_choose(c, rows, y, lowest), 1, &last);
    y = build_choose(c, build_both(c, OP_EQ, y, lowest), build_real(c, work, 0), y);
    call_set(c, 0, graph_cast(c->g, y, type));
}
