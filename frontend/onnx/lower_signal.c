/* frontend/onnx/lower_signal.c - DFT, STFT and MelWeightMatrix: products with tables of sines and cosines of constant length.
 *
 * A signal is [.., n, .., 1 or 2], real or (real, imaginary). A transform contracts (n, part) with a table [bins, part, n, part].
 */
#include "frontend/onnx/compose.h"

#include <math.h>

static const double TURN = 6.283185307179586476925;

struct transform {
    int64_t length;        /* of the full transform */
    int64_t in, out;       /* elements read, elements made */
    int64_t parts, result; /* 1 real, 2 complex: of the input, of the output */
    bool inverse, onesided;
};

/* The factor of input (n, p) in output (k, q). */
static double factor_of(const struct transform *t, int64_t k, int64_t q, int64_t n, int64_t p)
{
    double angle = TURN * (double)((k * n) % t->length) / (double)t->length;
    double sine = t->inverse ? -sin(angle) : sin(angle);
    double x = q == p ? cos(angle) : q == 0 ? sine : -sine; /* (a + bi)(cos - i sin) */
    if (!t->inverse)
        return x;
    bool doubled = t->onesided && n > 0 && 2 * n != t->length; /* stands for its mirror image too */
    return (doubled ? 2 * x : x) / (double)t->length;
}

/* x [.., n at axis, .., parts] -> [.., out at axis, .., result] */
static value apply_transform(struct call *c, value x, uint32_t axis, const struct transform *t)
{
    const int64_t shape[] = {t->out, t->result, t->in, t->parts};
    uint32_t last = call_rank(c, x) - 1;
    dtype type = call_type(c, x), work = DT_F64; /* exact zeros stay near zero */
    if (t->out > COMPOSE_TABLE || t->in > COMPOSE_TABLE)
        call_unsupported(c, "a transform of %lld elements", (long long)t->length);
    double *table = compose_room(c, t->out * t->result * t->in * t->parts), *at = table;
    for (int64_t k = 0; k < t->out; k++)
        for (int64_t q = 0; q < t->result; q++)
            for (int64_t n = 0; n < t->in; n++)
                for (int64_t p = 0; p < t->parts; p++)
                    *at++ = factor_of(t, k, q, n, p);
    x = graph_cast(c->g, build_slice_axis(c, x, axis, call_const(c, 0), call_const(c, t->in)), work);
    x = build_move_axis(c, x, axis, last - 1);
    value y = graph_dot(c->g, x, compose_table(c, work, 4, shape, table), 0, 2);
    return graph_cast(c->g, build_move_axis(c, y, last - 1, axis), type);
}

static struct transform plan_transform(struct call *c, value x, uint32_t axis, int64_t length, bool inverse,
                                       bool onesided)
{
    uint32_t rank = call_rank(c, x);
    struct transform t = {.inverse = inverse, .onesided = onesided};
    int64_t extent = compose_extent(c, call_shape(c, x)[axis], "length of a transform");
    if (extent > INT32_MAX)
        call_unsupported(c, "a transform of %lld elements", (long long)extent);
    t.parts = compose_extent(c, call_shape(c, x)[rank - 1], "number of parts");
    t.length = length >= 0 ? length : inverse && onesided ? 2 * (extent - 1) : extent;
    if ((t.parts != 1 && t.parts != 2) || t.length < 1 || t.length > INT32_MAX)
        call_fail(c, "a transform of %lld elements of %lld parts", (long long)t.length, (long long)t.parts);
    int64_t bins = t.length / 2 + 1, read = inverse && onesided ? bins : t.length;
    t.in = extent < read ? extent : read;
    t.out = onesided && !inverse ? bins : t.length;
    t.result = inverse && onesided ? 1 : 2;
    return t;
}

/* The axis is an attribute at 17 and an input since 20. */
void lower_dft(struct call *c)
{
    value x = call_use(c, 0);
    uint32_t rank = call_rank(c, x);
    int64_t axis = c->version < 20 ? attribute_int(c, "axis", 1) : call_has(c, 2) ? call_int(c, 2) : -2;
    int64_t length = call_has(c, 1) ? call_int(c, 1) : -1;
    uint32_t along = call_axis(c, axis, rank);
    if (rank < 2 || along == rank - 1)
        call_fail(c, "the last axis holds the parts of complex numbers and is not transformed");
    if (call_has(c, 1) && length < 1)
        call_fail(c, "dft_length is %lld", (long long)length);
    struct transform t =
        plan_transform(c, x, along, length, attribute_int(c, "inverse", 0) != 0, attribute_int(c, "onesided", 0) != 0);
    call_set(c, 0, apply_transform(c, x, along, &t));
}

/* signal [batch, length, parts], frame_step, window, frame_length -> [batch, frames, bins, 2] */
void lower_stft(struct call *c)
{
    value x = call_use(c, 0), window = call_has(c, 2) ? call_use(c, 2) : 0;
    int64_t step = call_int(c, 1), size = 0;
    if (call_rank(c, x) == 2)
        x = build_unsqueeze(c, x, 2);
    if (call_rank(c, x) != 3 || step < 1 || step > INT32_MAX)
        call_fail(c, "needs [batch, length, parts] and a positive step");
    if (window && call_rank(c, window) != 1)
        call_fail(c, "its window has %u axes", call_rank(c, window));
    if (call_has(c, 3))
        size = call_int(c, 3);
    else
        size = compose_extent(c, window ? call_shape(c, window)[0] : call_shape(c, x)[1], "length of a frame");
    dim length = call_shape(c, x)[1];
    if (size < 1 || size > INT32_MAX || dim_upper(c->t, dim_sub(c->t, length, call_const(c, size))) < 0)
        call_fail(c, "a frame of %lld elements does not fit", (long long)size);
    value frames = graph_window(c->g, x, 1, (int32_t)size, (int32_t)step, 1); /* [batch, frames, size, parts] */
    if (window) {
        call_agree(c, call_shape(c, window)[0], call_const(c, size), "lengths of window and frame");
        frames = build_both(c, OP_MUL, frames, compose_along(c, graph_cast(c->g, window, call_type(c, x)), 2, 4));
    }
    bool onesided = attribute_int(c, "onesided", 1) != 0;
    struct transform t = plan_transform(c, frames, 2, size, false, onesided);
    call_set(c, 0, apply_transform(c, frames, 2, &t));
}

/* ---- MelWeightMatrix ---------------------------------------------------------------------------------------- */

static double constant_input(struct call *c, uint32_t input)
{
    double x = 0;
    if (!call_real(c, input, &x))
        call_unsupported(c, "input %u must be a constant number", input);
    return x;
}

/* One filter: a triangle over the bins from left over centre to right. table is [bins, filters]. */
static void fill_triangle(double *table, int64_t bins, int64_t filters, int64_t i, const int64_t *edge)
{
    int64_t left = edge[i], centre = edge[i + 1], right = edge[i + 2];
    if (left == centre && centre >= 0 && centre < bins)
        table[centre * filters + i] = 1;
    for (int64_t j = left; left < centre && j <= centre; j++)
        if (j >= 0 && j < bins)
            table[j * filters + i] = (double)(j - left) / (double)(centre - left);
    for (int64_t j = centre; j < right; j++)
        if (j >= 0 && j < bins)
            table[j * filters + i] = (double)(right - j) / (double)(right - centre);
}

void lower_melweight(struct call *c)
{
    int64_t filters = call_int(c, 0), length = call_int(c, 1), onnx = attribute_int(c, "output_datatype", 1);
    double rate = constant_input(c, 2), low = constant_input(c, 3), high = constant_input(c, 4);
    dtype type = dtype_from_onnx(onnx);
    if (type == DT_NONE)
        call_unsupported(c, "element type %lld", (long long)onnx);
    if (filters < 0 || length < 0 || filters > COMPOSE_TABLE || length > COMPOSE_TABLE || !(rate > 0))
        call_fail(c, "%lld filters over a transform of %lld", (long long)filters, (long long)length);
    int64_t bins = length / 2 + 1, shape[] = {bins, filters}, *edge = compose_integer_room(c, filters + 2);
    double from = 2595 * log10(1 + low / 700), to = 2595 * log10(1 + high / 700);
    double step = (to - from) / (double)(filters + 2), *table = compose_room(c, bins * filters);
    memset(table, 0, (size_t)(bins * filters) * sizeof *table);
    for (int64_t i = 0; i < filters + 2; i++) {
        double hertz = 700 * (pow(10, ((double)i * step + from) / 2595) - 1);
        double place = floor((double)(length + 1) * hertz / rate);
        edge[i] = place > -1e9 && place < 1e9 ? (int64_t)place : -1;
    }
    for (int64_t i = 0; i < filters; i++)
        if (edge[i] >= 0 && edge[i + 2] <= COMPOSE_TABLE)
            fill_triangle(table, bins, filters, i, edge);
    call_set(c, 0, compose_table(c, type, 2, shape, table));
}
