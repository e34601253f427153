/* frontend/onnx/lower_slice.c - parts and surroundings: Slice, Pad, Trilu.
 *
 * ONNX clamps the bounds of a slice. Where it cannot be proved that a bound lies inside, a constant one is clamped by an expression,
 * and a symbolic one (and the constant 1: the last token, the shifted labels) is taken to be inside, by a guard.
 */
#include "frontend/onnx/lower.h"

/* ---- bounds ------------------------------------------------------------------------------------------------- */

/* Takes a >= b from now on: provable, or a guard. */
static void assume_ge(struct call *c, dim a, dim b)
{
    struct dims *t = c->t;
    if (!dim_provably_ge(t, a, b))
        call_agree(c, dim_min(t, dim_sub(t, a, b), call_const(c, 0)), call_const(c, 0),
                   "bounds of a slice and what they cut");
}

/* A bound counted from the start, inside [0, extent]. */
static dim clamp(struct call *c, dim x, dim extent)
{
    struct dims *t = c->t;
    int64_t n = 0, e = 0;
    dim zero = call_const(c, 0);
    if (!dim_valid(x))
        call_fail(c, "a bound is too large");
    bool constant = dim_is_const(t, x, &n), known = dim_is_const(t, extent, &e);
    if (constant && known) {
        n = n < -e ? -e : n > e ? e : n;
        return call_const(c, n < 0 ? n + e : n);
    }
    if (constant && (n > INT32_MAX - 8 || n < -INT32_MAX + 8)) /* "to the end", "from the start" */
        return n > 0 ? extent : zero;
    if (constant && n < 0) {
        if (n == -1)
            assume_ge(c, extent, call_const(c, 1));
        dim from_end = dim_add(t, dim_resolve(t, extent), x);
        return n == -1 ? from_end : dim_max(t, zero, from_end);
    }
    if (!constant && dim_upper(t, x) <= 0) /* x[-sequence:] */
        x = dim_add(t, extent, x);
    if (constant && n > 1)
        return dim_min(t, x, extent);
    if (dim_lower(t, x) < 0)
        assume_ge(c, x, zero);
    assume_ge(c, dim_resolve(t, extent), dim_resolve(t, x));
    return dim_resolve(t, x);
}

struct cut {
    dim start, size;
    int64_t step;
    bool reverse; /* the axis is reversed first; start counts in the reversed axis */
};

static struct cut cut_forward(struct call *c, dim start, dim end, dim extent, int64_t step)
{
    struct dims *t = c->t;
    struct cut cut = {.step = step};
    bool constant = dim_is_const(t, start, NULL) && dim_is_const(t, end, NULL);
    cut.start = clamp(c, start, extent);
    end = clamp(c, end, dim_resolve(t, extent));
    cut.start = dim_resolve(t, cut.start);
    dim span = dim_sub(t, end, cut.start), zero = call_const(c, 0);
    bool guarded = span == dim_sub(t, dim_resolve(t, extent), call_const(c, 1)); /* [1:] and [:-1], see clamp */
    if (!dim_provably_ge(t, span, zero) && !guarded) {
        if (constant)
            span = dim_max(t, zero, span);
        else
            assume_ge(c, end, cut.start);
    }
    span = dim_resolve(t, span);
    cut.start = dim_resolve(t, cut.start);
    cut.size = step == 1 ? span : dim_ceildiv(t, span, call_const(c, step));
    return cut;
}

/* step < 0: in the reversed axis, element i is the old extent - 1 - i. */
static struct cut cut_backward(struct call *c, dim start, dim end, dim extent, int64_t step)
{
    int64_t s = 0, e = 0, n = 0;
    struct cut cut = {.start = call_const(c, 0), .step = -step, .reverse = true};
    bool constant = dim_is_const(c->t, start, &s) && dim_is_const(c->t, end, &e);
    if (constant && dim_is_const(c->t, extent, &n)) {
        s = s < 0 ? s + n : s;
        e = e < -n ? -1 : e < 0 ? e + n : e;
        s = n == 0   ? -1
            : s < 0  ? 0
            : s >= n ? n - 1
                     : s; /* as ONNX says, and not as numpy does: never before the first element */
        e = e >= n ? n - 1 : e;
        int64_t span = s > e ? s - e : 0;
        cut.start = call_const(c, span ? n - 1 - s : 0);
        cut.size = call_const(c, (span + cut.step - 1) / cut.step);
        return cut;
    }
    if (!constant || (s != -1 && s < INT32_MAX - 8) || e > -INT32_MAX + 8)
        call_unsupported(c, "a backward slice of part of a symbolic axis");
    cut.size = cut.step == 1 ? extent : dim_ceildiv(c->t, extent, call_const(c, cut.step));
    return cut;
}

/* ---- Slice -------------------------------------------------------------------------------------------------- */

struct slice_context {
    struct call *c;
    uint32_t rank;
    dim extent[MAX_RANK];
    struct cut cut[MAX_RANK];
};
static bool slice_map(void *context, const dim *index, dim *source)
{
    const struct slice_context *s = context;
    struct dims *t = s->c->t;
    for (uint32_t k = 0; k < s->rank; k++) {
        dim i = dim_add(t, s->cut[k].start, dim_mul(t, index[k], dim_const(t, s->cut[k].step)));
        source[k] = s->cut[k].reverse ? dim_sub(t, dim_sub(t, s->extent[k], dim_const(t, 1)), i) : i;
    }
    return true;
}

static value build_cuts(struct call *c, value v, const struct slice_context *s)
{
    int32_t reversed[MAX_RANK], step[MAX_RANK];
    uint32_t count = 0;
    dim start[MAX_RANK], size[MAX_RANK];
    for (uint32_t k = 0; k < s->rank; k++) {
        if (s->cut[k].reverse)
            reversed[count++] = (int32_t)k;
        start[k] = s->cut[k].start;
        size[k] = s->cut[k].size;
        if (s->cut[k].step > INT32_MAX)
            call_unsupported(c, "a step of %lld", (long long)s->cut[k].step);
        step[k] = (int32_t)s->cut[k].step;
    }
    if (count)
        v = graph_reverse(c->g, v, count, reversed);
    return graph_slice(c->g, v, start, size, step);
}

static void set_slice(struct call *c, const struct slice_context *s)
{
    const struct datum *d = call_in(c, 0);
    dim shape[MAX_RANK];
    bool nothing = true;
    for (uint32_t k = 0; k < s->rank; k++) {
        shape[k] = s->cut[k].size;
        nothing = nothing && !s->cut[k].reverse && s->cut[k].step == 1 && shape[k] == d->shape[k];
    }
    if (nothing)
        call_set_alias(c, 0, 0);
    else if (!call_set_moved(c, 0, 0, s->rank, shape, slice_map, (void *)(uintptr_t)s))
        call_set(c, 0, build_cuts(c, call_use(c, 0), s));
}

/* A list by input (since 10) or attribute (before). */
static const dim *bounds(struct call *c, uint32_t input, const char *name, uint32_t *count)
{
    if (c->version >= 10)
        return call_has(c, input) ? call_dims(c, input, count) : NULL;
    const int64_t *given = attribute_ints(c, name, count);
    dim *out = given ? NEW_ARRAY(c->im->scratch, dim, *count) : NULL;
    for (uint32_t i = 0; given && i < *count; i++)
        out[i] = call_const(c, given[i]);
    return out;
}

void lower_slice(struct call *c)
{
    uint32_t count = 0, ends = 0, axes_count = 0, steps = 0, rank = call_in(c, 0)->rank;
    const dim *start = bounds(c, 1, "starts", &count), *end = bounds(c, 2, "ends", &ends);
    const dim *axes = bounds(c, 3, "axes", &axes_count), *by = bounds(c, 4, "steps", &steps);
    struct slice_context s = {.c = c, .rank = rank};
    if (!start || !end || ends != count || (axes && axes_count != count) || (by && steps != count) || count > rank)
        call_fail(c, "its starts, ends, axes and steps do not fit a value of %u axes", rank);
    for (uint32_t k = 0; k < rank; k++)
        s.cut[k] = (struct cut){call_const(c, 0), DIM_NONE, 1, false};
    for (uint32_t i = 0; i < count; i++) {
        int64_t axis = i, step = 1;
        if ((axes && !dim_is_const(c->t, axes[i], &axis)) || (by && !dim_is_const(c->t, by[i], &step)))
            call_unsupported(c, "axes or steps that are not constant");
        uint32_t k = call_axis(c, axis, rank);
        if (step == 0 || step == INT64_MIN)
            call_fail(c, "a step of 0");
        dim extent = call_in(c, 0)->shape[k], from = dim_resolve(c->t, start[i]), to = dim_resolve(c->t, end[i]);
        s.cut[k] = step > 0 ? cut_forward(c, from, to, extent, step) : cut_backward(c, from, to, extent, step);
    }
    for (uint32_t k = 0; k < rank; k++) { /* a guard may have changed what was cut before it */
        s.extent[k] = call_in(c, 0)->shape[k];
        s.cut[k].start = dim_resolve(c->t, s.cut[k].start);
        s.cut[k].size = dim_valid(s.cut[k].size) ? dim_resolve(c->t, s.cut[k].size) : s.extent[k];
    }
    set_slice(c, &s);
}

/* ---- Trilu -------------------------------------------------------------------------------------------------- */

struct triangle_context {
    struct call *c;
    const struct datum *d; /* NULL: the mask itself */
    dim offset;
    uint32_t rank;
    bool upper;
};
static const struct formula *triangle_element(void *context, const dim *index)
{
    const struct triangle_context *x = context;
    struct symbolic *s = &x->c->im->s;
    uint32_t first = x->rank - 2;
    const struct formula *row = formula_dim(s, dim_add(s->dims, index[first], x->offset));
    const struct formula *column = formula_dim(s, index[first + 1]);
    const struct formula *keep =
        x->upper ? formula_binary(s, OP_LE, DT_I64, row, column) : formula_binary(s, OP_LE, DT_I64, column, row);
    if (!x->d)
        return keep;
    const struct formula *f = content_at(s, x->d->content, x->rank, x->d->shape, index);
    if (x->d->dtype == DT_BOOL)
        return formula_binary(s, OP_AND, DT_BOOL, keep, f);
    return formula_select(s, keep, f, formula_int(s, 0));
}

void lower_trilu(struct call *c)
{
    const struct datum *d = call_in(c, 0);
    struct triangle_context x = {.c = c, .d = d, .offset = call_const(c, 0), .rank = d->rank};
    x.upper = attribute_int(c, "upper", 1) != 0;
    if (d->rank < 2)
        call_fail(c, "needs two axes");
    if (call_has(c, 1))
        x.offset = call_dim(c, 1);
    const struct content *content =
        d->content ? content_make(&c->im->s, d->rank, d->shape, triangle_element, &x) : NULL;
    if (content) {
        call_set_content(c, 0, d->dtype, d->rank, d->shape, content);
        return;
    }
    value v = call_use(c, 0);
    dim plane[2] = {d->shape[d->rank - 2], d->shape[d->rank - 1]};
    x.d = NULL;
    x.rank = 2;
    content = content_make(&c->im->s, 2, plane, triangle_element, &x);
    if (!content)
        call_unsupported(c, "a triangle of this shape");
    value keep = content_emit(&c->im->s, c->g, DT_BOOL, 2, plane, content);
    call_set(c, 0, build_choose(c, keep, v, build_real(c, call_type(c, v), 0)));
}

/* ---- Pad ---------------------------------------------------------------------------------------------------- */

static value pad_constant(struct call *c, value v, value scalar, const dim *before, const dim *after)
{
    dim shape[MAX_RANK];
    uint32_t rank = call_rank(c, v);
    for (uint32_t k = 0; k < rank; k++)
        shape[k] = dim_add(c->t, call_shape(c, v)[k], dim_add(c->t, before[k], after[k]));
    return graph_pad(c->g, v, scalar, before, shape);
}

/* The elements from `start` on, `count` of them, along one axis; backward for a mirror. */
static value piece(struct call *c, value v, uint32_t axis, dim start, int64_t count, bool backward)
{
    int32_t reversed = (int32_t)axis;
    value part = graph_slice_axis(c->g, v, axis, start, call_const(c, count));
    return backward ? graph_reverse(c->g, part, 1, &reversed) : part;
}

static value repeat_edge(struct call *c, value v, uint32_t axis, dim at, int64_t count)
{
    dim shape[MAX_RANK];
    int32_t axes[MAX_RANK];
    value edge = graph_slice_axis(c->g, v, axis, at, call_const(c, 1));
    for (uint32_t k = 0; k < call_rank(c, v); k++) {
        shape[k] = k == axis ? call_const(c, count) : call_shape(c, v)[k];
        axes[k] = (int32_t)k;
    }
    return graph_broadcast(c->g, edge, call_rank(c, v), shape, axes);
}

/* One axis grown by copies of its own elements. mode: 'e' edge, 'r' reflect (without the edge itself), 'w' wrap */
static value pad_copy(struct call *c, value v, uint32_t axis, int64_t before, int64_t after, char mode)
{
    value part[3];
    uint32_t count = 0;
    dim extent = call_shape(c, v)[axis], zero = call_const(c, 0), last = dim_sub(c->t, extent, call_const(c, 1));
    int64_t n = 0, limit = mode == 'r' ? 1 : 0;
    if (dim_is_const(c->t, extent, &n) && mode != 'e' && (before > n - limit || after > n - limit))
        call_unsupported(c, "padding by more than the axis holds");
    if (before > 0)
        part[count++] = mode == 'e'   ? repeat_edge(c, v, axis, zero, before)
                        : mode == 'r' ? piece(c, v, axis, call_const(c, 1), before, true)
                                      : piece(c, v, axis, dim_sub(c->t, extent, call_const(c, before)), before, false);
    part[count++] = v;
    if (after > 0)
        part[count++] = mode == 'e'   ? repeat_edge(c, v, axis, last, after)
                        : mode == 'r' ? piece(c, v, axis, dim_sub(c->t, last, call_const(c, after)), after, true)
                                      : piece(c, v, axis, zero, after, false);
    return count > 1 ? graph_concat(c->g, count, part, axis) : v;
}

/* Negative pads cut; what remains of the pads is >= 0. */
static value cut_negative(struct call *c, value v, dim *before, dim *after)
{
    for (uint32_t k = 0; k < call_rank(c, v); k++) {
        dim zero = call_const(c, 0), start = zero, size = call_shape(c, v)[k];
        if (dim_upper(c->t, before[k]) < 0) {
            start = dim_sub(c->t, zero, before[k]);
            size = dim_add(c->t, size, before[k]);
            before[k] = zero;
        }
        if (dim_upper(c->t, after[k]) < 0) {
            size = dim_add(c->t, size, after[k]);
            after[k] = zero;
        }
        v = build_slice_axis(c, v, k, start, size);
    }
    return v;
}

static void read_pads(struct call *c, uint32_t rank, dim *before, dim *after)
{
    uint32_t count = 0, axes_count = rank;
    const int64_t *axes = c->version >= 18 && call_has(c, 3) ? call_ints(c, 3, &axes_count) : NULL;
    const int64_t *old = c->version < 11 ? attribute_ints(c, "pads", &count) : NULL;
    const dim *given = c->version >= 11 ? call_dims(c, 1, &count) : NULL;
    if ((!old && !given) || count != 2 * axes_count)
        call_fail(c, "has %u pads for %u axes", count, axes_count);
    for (uint32_t k = 0; k < rank; k++)
        before[k] = after[k] = call_const(c, 0);
    for (uint32_t i = 0; i < axes_count; i++) {
        uint32_t k = axes ? call_axis(c, axes[i], rank) : i;
        before[k] = old ? call_const(c, old[i]) : given[i];
        after[k] = old ? call_const(c, old[i + axes_count]) : given[i + axes_count];
    }
}

void lower_pad(struct call *c)
{
    value v = call_use(c, 0);
    uint32_t rank = call_rank(c, v);
    dim before[MAX_RANK], after[MAX_RANK];
    const char *mode = attribute_text(c, "mode", "constant");
    read_pads(c, rank, before, after);
    v = cut_negative(c, v, before, after);
    if (strcmp(mode, "constant") == 0) {
        value fill = c->version >= 11 && call_has(c, 2)
                         ? graph_reshape(c->g, call_use_as(c, 2, call_type(c, v)), 0, NULL)
                         : build_real(c, call_type(c, v), attribute_real(c, "value", 0));
        call_set(c, 0, pad_constant(c, v, fill, before, after));
        return;
    }
    if (strcmp(mode, "edge") != 0 && strcmp(mode, "reflect") != 0 && strcmp(mode, "wrap") != 0)
        call_fail(c, "unknown mode '%s'", mode);
    for (uint32_t k = 0; k < rank; k++) {
        int64_t b = 0, a = 0;
        if (!dim_is_const(c->t, before[k], &b) || !dim_is_const(c->t, after[k], &a))
            call_unsupported(c, "mode '%s' with pads that are not constant", mode);
        v = pad_copy(c, v, k, b, a, *mode);
    }
    call_set(c, 0, v);
}
