/* frontend/onnx/lower_layout.c - the same elements in another order or shape: Reshape, Transpose, Expand, Tile, Concat, Split.
 *
 * Each moves known elements where there are any (call_set_moved), and builds otherwise. What changes nothing vanishes.
 */
#include "frontend/onnx/lower.h"

/* ---- Reshape and its kin ------------------------------------------------------------------------------------ */

struct reshape_context {
    struct call *c;
    uint32_t rank, own_rank;
    int64_t extent[MAX_RANK], own_extent[MAX_RANK];
    uint32_t from[MAX_RANK]; /* result axis of each own axis that is not 1, by position */
    bool linear;
};

static bool linear_map(const struct reshape_context *r, const dim *index, dim *source)
{
    int64_t flat = 0, i = 0;
    for (uint32_t k = 0; k < r->rank; k++) {
        if (!dim_is_const(r->c->t, index[k], &i))
            return false;
        flat = flat * r->extent[k] + i;
    }
    for (uint32_t k = r->own_rank; k-- > 0;) {
        source[k] = dim_const(r->c->t, flat % r->own_extent[k]);
        flat /= r->own_extent[k];
    }
    return true;
}

static bool reshape_map(void *context, const dim *index, dim *source)
{
    const struct reshape_context *r = context;
    if (r->linear)
        return linear_map(r, index, source);
    for (uint32_t k = 0; k < r->own_rank; k++)
        source[k] = r->from[k] == UINT32_MAX ? dim_const(r->c->t, 0) : index[r->from[k]];
    return true;
}

/* Elements are followed where all axes are enumerated, or where only axes of extent 1 come and go. */
static bool reshape_known(struct call *c, uint32_t rank, const dim *shape)
{
    const struct datum *d = call_in(c, 0);
    struct reshape_context r = {.c = c, .rank = rank, .own_rank = d->rank, .linear = true};
    uint32_t next = 0;
    for (uint32_t k = 0; k < rank; k++)
        r.linear = r.linear && axis_enumerated(&c->im->s, shape[k], &r.extent[k]) && r.extent[k] > 0;
    for (uint32_t k = 0; k < d->rank; k++)
        r.linear = r.linear && axis_enumerated(&c->im->s, d->shape[k], &r.own_extent[k]) && r.own_extent[k] > 0;
    for (uint32_t k = 0; k < d->rank && !r.linear; k++) {
        r.from[k] = UINT32_MAX;
        if (dim_is(c->t, d->shape[k], 1))
            continue;
        while (next < rank && dim_is(c->t, shape[next], 1))
            next++;
        if (next == rank || shape[next] != d->shape[k])
            return false;
        r.from[k] = next++;
    }
    return call_set_moved(c, 0, 0, rank, shape, reshape_map, &r);
}

static void set_reshaped(struct call *c, uint32_t rank, const dim *shape)
{
    const struct datum *d = call_in(c, 0);
    if (d->rank == rank && dims_same(d->shape, shape, rank))
        call_set_alias(c, 0, 0);
    else if (!d->content || !reshape_known(c, rank, shape))
        call_set(c, 0, build_reshape(c, call_use(c, 0), rank, shape));
}

/* Exporters let two symbols meet in a reshape ([s10, 100, 64] to [s86, -1, 4, 16]): axes at the same place that differ are then taken
 * to be equal. */
static void agree_leading(struct call *c, uint32_t rank, dim *shape)
{
    uint32_t own = call_in(c, 0)->rank;
    for (uint32_t k = 0; k < rank && k < own; k++) {
        dim is = call_in(c, 0)->shape[k];
        if (!dim_valid(shape[k]) || is == shape[k])
            continue;
        if (dim_is_const(c->t, is, NULL) || dim_is_const(c->t, shape[k], NULL))
            return;
        shape[k] = call_agree(c, shape[k], is, "extents before and after");
        return;
    }
}

static dim infer_extent(struct call *c, dim total, uint32_t rank, const dim *shape)
{
    dim rest = call_const(c, 1);
    for (uint32_t k = 0; k < rank; k++)
        rest = dim_valid(shape[k]) ? dim_mul(c->t, rest, shape[k]) : rest;
    if (dim_is(c->t, rest, 0))
        return call_const(c, 0);
    return dim_exact_div(c->t, total, rest);
}

static dim input_elements(struct call *c)
{
    return call_product(c, call_in(c, 0)->shape, 0, call_in(c, 0)->rank);
}

/* shape[inferred] is DIM_NONE and becomes what is left. */
static void infer_axis(struct call *c, uint32_t rank, dim *shape, uint32_t inferred)
{
    dim extent = infer_extent(c, input_elements(c), rank, shape);
    if (!dim_valid(extent)) {
        agree_leading(c, rank, shape);
        for (uint32_t k = 0; k < rank; k++)
            shape[k] = k == inferred ? DIM_NONE : dim_resolve(c->t, shape[k]);
        extent = infer_extent(c, input_elements(c), rank, shape);
    }
    if (!dim_valid(extent)) {
        dim rest = call_const(c, 1), total = input_elements(c);
        for (uint32_t k = 0; k < rank; k++)
            rest = k == inferred ? rest : dim_mul(c->t, rest, shape[k]);
        extent = dim_div(c->t, total, rest);
        if (!dim_valid(extent) || (dim_is_const(c->t, total, NULL) && dim_is_const(c->t, rest, NULL)))
            call_fail(c, "%s elements do not divide into groups of %s", dim_text(c->t, total, c->im->scratch),
                      dim_text(c->t, rest, c->im->scratch));
        call_agree(c, dim_mul(c->t, extent, rest), total, "numbers of elements");
        for (uint32_t k = 0; k < rank; k++)
            shape[k] = dim_resolve(c->t, shape[k]);
        extent = dim_resolve(c->t, extent);
    }
    shape[inferred] = extent;
}

void lower_reshape(struct call *c)
{
    uint32_t count = 0, inferred = UINT32_MAX;
    const dim *target = call_dims(c, 1, &count);
    bool keep_zero = attribute_int(c, "allowzero", 0) != 0;
    dim shape[MAX_RANK];
    if (count > MAX_RANK)
        call_unsupported(c, "%u axes (limit is %d)", count, MAX_RANK);
    for (uint32_t k = 0; k < count; k++) {
        shape[k] = target[k];
        if (dim_is(c->t, target[k], 0) && !keep_zero) {
            if (k >= call_in(c, 0)->rank)
                call_fail(c, "its shape copies axis %u of a value of %u axes", k, call_in(c, 0)->rank);
            shape[k] = call_in(c, 0)->shape[k];
        } else if (dim_is(c->t, target[k], -1)) {
            if (inferred != UINT32_MAX)
                call_fail(c, "its shape has two unknown axes");
            inferred = k;
            shape[k] = DIM_NONE;
        } else if (dim_upper(c->t, target[k]) < 0) {
            call_fail(c, "its shape has a negative extent");
        }
    }
    if (inferred != UINT32_MAX) {
        infer_axis(c, count, shape, inferred);
    } else if (call_product(c, shape, 0, count) != input_elements(c)) {
        agree_leading(c, count, shape);
        for (uint32_t k = 0; k < count; k++)
            shape[k] = dim_resolve(c->t, shape[k]);
        call_agree(c, call_product(c, shape, 0, count), input_elements(c), "numbers of elements");
        for (uint32_t k = 0; k < count; k++)
            shape[k] = dim_resolve(c->t, shape[k]);
    }
    set_reshaped(c, count, shape);
}

void lower_flatten(struct call *c)
{
    const struct datum *d = call_in(c, 0);
    int64_t axis = attribute_int(c, "axis", 1);
    if (axis < -(int64_t)d->rank || axis > d->rank)
        call_fail(c, "axis %lld is outside a value of %u axes", (long long)axis, d->rank);
    uint32_t cut = (uint32_t)(axis < 0 ? axis + d->rank : axis);
    dim shape[2] = {call_product(c, d->shape, 0, cut), call_product(c, d->shape, cut, d->rank)};
    set_reshaped(c, 2, shape);
}

/* Axes as an attribute before 13, as an input from then on. NULL: not given. */
static const int64_t *axes_either(struct call *c, uint32_t input, uint32_t *count)
{
    return call_has(c, input) ? call_ints(c, input, count) : attribute_ints(c, "axes", count);
}

void lower_squeeze(struct call *c)
{
    uint32_t count = 0, rank = 0;
    const int64_t *axes = axes_either(c, 1, &count);
    const struct datum *d = call_in(c, 0);
    bool drop[MAX_RANK] = {false};
    dim shape[MAX_RANK];
    for (uint32_t i = 0; axes && i < count; i++) {
        uint32_t axis = call_axis(c, axes[i], d->rank);
        if (!dim_is(c->t, d->shape[axis], 1))
            call_agree(c, d->shape[axis], call_const(c, 1), "the extent that is removed, and 1,");
        drop[axis] = true;
    }
    for (uint32_t k = 0; k < d->rank; k++)
        if (axes ? !drop[k] : !dim_is(c->t, d->shape[k], 1))
            shape[rank++] = d->shape[k];
    set_reshaped(c, rank, shape);
}

void lower_unsqueeze(struct call *c)
{
    uint32_t count = 0, next = 0;
    const int64_t *axes = axes_either(c, 1, &count);
    const struct datum *d = call_in(c, 0);
    bool added[MAX_RANK] = {false};
    dim shape[MAX_RANK];
    if (!axes || d->rank + count > MAX_RANK)
        call_fail(c, "its axes are missing or too many");
    for (uint32_t i = 0; i < count; i++) {
        uint32_t axis = call_axis(c, axes[i], d->rank + count);
        if (added[axis])
            call_fail(c, "axis %u is added twice", axis);
        added[axis] = true;
    }
    for (uint32_t k = 0; k < d->rank + count; k++)
        shape[k] = added[k] ? call_const(c, 1) : d->shape[next++];
    set_reshaped(c, d->rank + count, shape);
}

/* ---- Transpose ---------------------------------------------------------------------------------------------- */

struct transpose_context {
    uint32_t rank;
    int32_t permutation[MAX_RANK];
};
static bool transpose_map(void *context, const dim *index, dim *source)
{
    const struct transpose_context *t = context;
    for (uint32_t k = 0; k < t->rank; k++)
        source[t->permutation[k]] = index[k];
    return true;
}

void lower_transpose(struct call *c)
{
    const struct datum *d = call_in(c, 0);
    struct transpose_context t = {.rank = d->rank};
    uint32_t count = 0;
    const int64_t *given = attribute_ints(c, "perm", &count);
    bool seen[MAX_RANK] = {false}, identity = true;
    dim shape[MAX_RANK];
    if (given && count != d->rank)
        call_fail(c, "perm has %u axes, the value has %u", count, d->rank);
    for (uint32_t k = 0; k < d->rank; k++) {
        uint32_t axis = given ? call_axis(c, given[k], d->rank) : d->rank - 1 - k;
        if (seen[axis])
            call_fail(c, "perm names axis %u twice", axis);
        seen[axis] = true;
        t.permutation[k] = (int32_t)axis;
        shape[k] = d->shape[axis];
        identity = identity && axis == k;
    }
    if (identity)
        call_set_alias(c, 0, 0);
    else if (!call_set_moved(c, 0, 0, d->rank, shape, transpose_map, &t))
        call_set(c, 0, graph_transpose(c->g, call_use(c, 0), t.permutation));
}

/* ---- Expand, Tile ------------------------------------------------------------------------------------------- */

struct expand_context {
    struct call *c;
    const struct datum *d;
    uint32_t rank;
};
static bool expand_map(void *context, const dim *index, dim *source)
{
    const struct expand_context *e = context;
    for (uint32_t k = 0; k < e->d->rank; k++)
        source[k] = dim_is(e->c->t, e->d->shape[k], 1) ? dim_const(e->c->t, 0) : index[e->rank - e->d->rank + k];
    return true;
}

void lower_expand(struct call *c)
{
    uint32_t count = 0;
    const dim *target = call_dims(c, 1, &count);
    const struct datum *d = call_in(c, 0);
    dim shape[MAX_RANK];
    if (count > MAX_RANK)
        call_unsupported(c, "%u axes (limit is %d)", count, MAX_RANK);
    dims_copy(shape, d->shape, d->rank);
    uint32_t rank = call_broadcast(c, d->rank, shape, count, target);
    struct expand_context e = {c, d, rank};
    if (rank == d->rank && dims_same(shape, d->shape, rank))
        call_set_alias(c, 0, 0);
    else if (!call_set_moved(c, 0, 0, rank, shape, expand_map, &e))
        call_set(c, 0, build_expand(c, call_use(c, 0), rank, shape));
}

/* [.., n, ..] -> [.., 1, n, ..] -> [.., r, n, ..] -> [.., r*n, ..] on each axis that repeats */
void lower_tile(struct call *c)
{
    uint32_t count = 0, wide = 0;
    const dim *repeats = call_dims(c, 1, &count);
    const struct datum *d = call_in(c, 0);
    dim shape[MAX_RANK], with_ones[MAX_RANK], spread[MAX_RANK];
    bool simple = true, nothing = true;
    if (count != d->rank)
        call_fail(c, "has %u repeats for %u axes", count, d->rank);
    for (uint32_t k = 0; k < count; k++) {
        bool once = dim_is(c->t, repeats[k], 1), one = dim_is(c->t, d->shape[k], 1);
        shape[k] = dim_mul(c->t, d->shape[k], repeats[k]);
        simple = simple && (once || one);
        nothing = nothing && once;
        if (wide + 2 > MAX_RANK)
            call_unsupported(c, "too many axes repeat");
        if (!once) {
            with_ones[wide] = call_const(c, 1);
            spread[wide++] = repeats[k];
        }
        if (once || !one) {
            with_ones[wide] = d->shape[k];
            spread[wide++] = d->shape[k];
        }
    }
    struct expand_context e = {c, d, d->rank};
    if (nothing) {
        call_set_alias(c, 0, 0);
        return;
    }
    if (simple && call_set_moved(c, 0, 0, d->rank, shape, expand_map, &e))
        return;
    value v = build_reshape(c, call_use(c, 0), wide, with_ones);
    v = graph_broadcast_to(c->g, v, wide, spread);
    call_set(c, 0, build_reshape(c, v, d->rank, shape));
}

/* ---- Concat, Split ------------------------------------------------------------------------------------------ */

struct concat_context {
    struct call *c;
    uint32_t axis, rank;
};
static const struct formula *concat_element(void *context, const dim *index)
{
    const struct concat_context *k = context;
    struct symbolic *s = &k->c->im->s;
    dim at[MAX_RANK];
    int64_t i = 0, extent = 0;
    dims_copy(at, index, k->rank);
    if (!dim_is_const(s->dims, index[k->axis], &i))
        return NULL;
    for (uint32_t p = 0; p < k->c->in_count; p++) {
        const struct datum *d = call_in(k->c, p);
        if (!d->content || !axis_enumerated(s, d->shape[k->axis], &extent))
            return NULL;
        if (i < extent) {
            at[k->axis] = dim_const(s->dims, i);
            return content_at(s, d->content, d->rank, d->shape, at);
        }
        i -= extent;
    }
    return NULL;
}

void lower_concat(struct call *c)
{
    int64_t given = attribute_int(c, "axis", INT64_MIN);
    if (given == INT64_MIN)
        call_fail(c, "the attribute 'axis' is missing");
    uint32_t rank = call_in(c, 0)->rank, axis = call_axis(c, given, rank);
    dim shape[MAX_RANK], sum = call_const(c, 0);
    for (uint32_t i = 1; i < c->in_count; i++) {
        if (call_in(c, i)->rank != rank || call_in(c, i)->dtype != call_in(c, 0)->dtype)
            call_fail(c, "operands 0 and %u differ in type or number of axes", i);
        for (uint32_t k = 0; k < rank; k++)
            if (k != axis)
                call_agree(c, call_in(c, 0)->shape[k], call_in(c, i)->shape[k], "extents of operands");
    }
    dims_copy(shape, call_in(c, 0)->shape, rank);
    for (uint32_t i = 0; i < c->in_count; i++)
        sum = dim_add(c->t, sum, call_in(c, i)->shape[axis]);
    shape[axis] = sum;
    struct concat_context context = {c, axis, rank};
    const struct content *content =
        c->in_count > 1 ? content_make(&c->im->s, rank, shape, concat_element, &context) : NULL;
    if (c->in_count == 1) {
        call_set_alias(c, 0, 0);
        return;
    }
    if (content) {
        call_set_content(c, 0, call_in(c, 0)->dtype, rank, shape, content);
        return;
    }
    value *part = NEW_ARRAY(c->im->scratch, value, c->in_count);
    for (uint32_t i = 0; i < c->in_count; i++)
        part[i] = call_use(c, i);
    call_set(c, 0, graph_concat(c->g, c->in_count, part, axis));
}

struct split_context {
    struct call *c;
    uint32_t rank, axis;
    dim offset;
};
static bool split_map(void *context, const dim *index, dim *source)
{
    const struct split_context *s = context;
    dims_copy(source, index, s->rank);
    source[s->axis] = dim_add(s->c->t, index[s->axis], s->offset);
    return true;
}

/* Equal parts; since 18 the last may be short. */
static dim *equal_parts(struct call *c, dim extent, uint32_t parts)
{
    dim *size = NEW_ARRAY(c->im->scratch, dim, parts), even = dim_exact_div(c->t, extent, call_const(c, parts));
    int64_t n = 0;
    bool constant = dim_is_const(c->t, extent, &n);
    if (!dim_valid(even) && !constant) {
        even = dim_div(c->t, extent, call_const(c, parts));
        call_agree(c, dim_mul(c->t, even, call_const(c, parts)), extent, "the parts together and the whole");
        even = dim_resolve(c->t, even);
    }
    int64_t each = constant ? (n + parts - 1) / parts : 0;
    for (uint32_t i = 0; i < parts; i++) {
        int64_t left = n - (int64_t)i * each;
        size[i] = dim_valid(even) ? even : call_const(c, left < 0 ? 0 : left < each ? left : each);
    }
    return size;
}

void lower_split(struct call *c)
{
    uint32_t rank = call_in(c, 0)->rank, axis = call_axis(c, attribute_int(c, "axis", 0), rank), count = c->out_count;
    const dim *size = NULL;
    if (call_has(c, 1)) {
        size = call_dims(c, 1, &count);
    } else if (attribute(c, "split")) {
        const int64_t *given = attribute_ints(c, "split", &count);
        dim *copy = NEW_ARRAY(c->im->scratch, dim, count);
        for (uint32_t i = 0; i < count; i++)
            copy[i] = call_const(c, given[i]);
        size = copy;
    } else {
        size = equal_parts(c, call_in(c, 0)->shape[axis], count);
    }
    if (count != c->out_count)
        call_fail(c, "has %u sizes for %u outputs", count, c->out_count);
    dim offset = call_const(c, 0), shape[MAX_RANK], sum = call_const(c, 0);
    for (uint32_t i = 0; i < count; i++)
        sum = dim_add(c->t, sum, size[i]);
    call_agree(c, sum, call_in(c, 0)->shape[axis], "the parts together and the whole");
    dims_copy(shape, call_in(c, 0)->shape, rank);
    for (uint32_t i = 0; i < count; i++) {
        dim part = dim_resolve(c->t, size[i]);
        struct split_context s = {c, rank, axis, offset};
        shape[axis] = part;
        if (call_wants(c, i) && !call_set_moved(c, i, 0, rank, shape, split_map, &s))
            call_set(c, i, build_slice_axis(c, call_use(c, 0), axis, offset, part));
        offset = dim_add(c->t, offset, part);
    }
}

/* ---- blocks ------------------------------------------------------------------------------------------------- */

void lower_depthtospace(struct call *c)
{
    value x = call_use(c, 0);
    int64_t block = attribute_int(c, "blocksize", 1);
    bool crd = strcmp(attribute_text(c, "mode", "DCR"), "CRD") == 0;
    if (call_rank(c, x) != 4 || block < 1)
        call_fail(c, "needs four axes and a positive blocksize");
    dim b = call_const(c, block), n = call_shape(c, x)[0], h = call_shape(c, x)[2], w = call_shape(c, x)[3];
    dim depth = dim_exact_div(c->t, call_shape(c, x)[1], dim_mul(c->t, b, b));
    if (!dim_valid(depth))
        call_fail(c, "blocksize %lld does not divide the channels", (long long)block);
    const int32_t dcr_order[] = {0, 3, 4, 1, 5, 2}, crd_order[] = {0, 1, 4, 2, 5, 3};
    value v = crd ? build_reshape(c, x, 6, (dim[]){n, depth, b, b, h, w})
                  : build_reshape(c, x, 6, (dim[]){n, b, b, depth, h, w});
    v = graph_transpose(c->g, v, crd ? crd_order : dcr_order);
    call_set(c, 0, build_reshape(c, v, 4, (dim[]){n, depth, dim_mul(c->t, h, b), dim_mul(c->t, w, b)}));
}

void lower_spacetodepth(struct call *c)
{
    value x = call_use(c, 0);
    int64_t block = attribute_int(c, "blocksize", 1);
    const char *mode = attribute_text(c, "mode", "DCR");
    bool blocks_first = strcmp(mode, "DCR") == 0;
    if (call_rank(c, x) != 4 || block < 1)
        call_fail(c, "needs four axes and a positive blocksize");
    if (!blocks_first && strcmp(mode, "CRD") != 0)
        call_fail(c, "mode is '%s', neither DCR nor CRD", mode);
    dim b = call_const(c, block), n = call_shape(c, x)[0], channels = call_shape(c, x)[1];
    dim h = dim_exact_div(c->t, call_shape(c, x)[2], b), w = dim_exact_div(c->t, call_shape(c, x)[3], b);
    if (!dim_valid(h) || !dim_valid(w))
        call_fail(c, "blocksize %lld does not divide the picture", (long long)block);
    static const int32_t orders[2][6] = {{0, 1, 3, 5, 2, 4}, {0, 3, 5, 1, 2, 4}};
    value v = graph_transpose(c->g, build_reshape(c, x, 6, (dim[]){n, channels, h, b, w, b}), orders[blocks_first]);
    call_set(c, 0, build_reshape(c, v, 4, (dim[]){n, dim_mul(c->t, channels, dim_mul(c->t, b, b)), h, w}));
}
