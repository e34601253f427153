/* frontend/onnx/lower_index.c - elements chosen by indices: Gather and Scatter with their kin, OneHot.
 *
 * Indices that are known to walk a grid (iota along an axis, a constant, an offset) need no gather: the result is a slice, transposed and
 * broadcast (take_grid). A scatter over the whole grid is its updates. All else becomes gather and scatter with indices made
 * non-negative. Start reading at lower_gather and lower_gathernd.
 */
#include "frontend/onnx/lower.h"

/* ---- indices as values -------------------------------------------------------------------------------------- */

/* index, or index + extent where it is negative */
static value wrap(struct call *c, value index, dim extent)
{
    dtype type = call_type(c, index);
    int64_t n = 0;
    if (!dtype_is_signed(type))
        return index;
    value zero = build_full(c, type, 0, call_rank(c, index), call_shape(c, index));
    value size = dim_is_const(c->t, extent, &n) ? graph_scalar_i64(c->g, type, n)
                                                : graph_cast(c->g, graph_dim(c->g, extent), type);
    value wrapped = build_both(c, OP_ADD, index, size);
    return graph_select(c->g, graph_binary(c->g, OP_LT, index, zero), wrapped, index);
}

static bool known_non_negative(struct call *c, const struct content *content)
{
    for (uint32_t i = 0; i < content->count; i++)
        if (content->at[i]->op != FORMULA_DIM || dim_lower(c->t, content->at[i]->d) < 0)
            return false;
    return true;
}

struct wrap_context {
    struct call *c;
    const struct datum *d;
    dim extent;
};
static const struct formula *wrap_element(void *context, const dim *index)
{
    const struct wrap_context *w = context;
    struct symbolic *s = &w->c->im->s;
    const struct formula *f = content_at(s, w->d->content, w->d->rank, w->d->shape, index);
    if (!f || f->op != FORMULA_DIM)
        return NULL;
    if (dim_upper(s->dims, f->d) < 0)
        return formula_dim(s, dim_add(s->dims, f->d, w->extent));
    return dim_lower(s->dims, f->d) < 0 ? NULL : f;
}

/* Input i as indices into an axis of that extent, none negative. */
static value use_indices(struct call *c, uint32_t i, dim extent)
{
    const struct datum *d = call_in(c, i);
    struct wrap_context w = {c, d, extent};
    if (!dtype_is_int(d->dtype))
        call_fail(c, "indices are %s, integers are expected", dtype_name(d->dtype));
    if (d->content && known_non_negative(c, d->content))
        return call_use(c, i);
    const struct content *content = d->content ? content_make(&c->im->s, d->rank, d->shape, wrap_element, &w) : NULL;
    if (content)
        return content_emit(&c->im->s, c->g, d->dtype, d->rank, d->shape, content);
    return wrap(c, call_use(c, i), extent);
}

/* ---- grids -------------------------------------------------------------------------------------------------- */

struct grid {
    uint32_t axis, count; /* the axes of the operand that are indexed */
    uint32_t rank;        /* of the index space */
    dim shape[MAX_RANK];  /* of the index space */
    dim index[MAX_RANK];  /* per indexed axis, over the coordinates of the index space */
};
struct walk { /* one indexed axis: a fixed place, or along a coordinate */
    dim start, size;
    uint32_t coordinate; /* UINT32_MAX: fixed */
};

/* Is e fixed or one coordinate plus an offset, inside an axis of that extent? */
static bool find_walk(struct call *c, const struct grid *g, dim e, dim extent, struct walk *out)
{
    struct dims *t = c->t;
    dim base = DIM_NONE, coefficient[MAX_RANK];
    *out = (struct walk){.size = call_const(c, 1), .coordinate = UINT32_MAX};
    if (!dim_valid(e) || !dim_affine(t, e, g->rank, &base, coefficient))
        return false;
    for (uint32_t k = 0; k < g->rank; k++) {
        if (dim_is(t, coefficient[k], 0))
            continue;
        if (!dim_is(t, coefficient[k], 1) || out->coordinate != UINT32_MAX)
            return false;
        out->coordinate = k;
        out->size = g->shape[k];
    }
    if (dim_upper(t, base) < 0 && out->coordinate == UINT32_MAX)
        base = dim_add(t, base, extent);
    out->start = base;
    if (dim_lower(t, base) < 0)
        return false;
    if (dim_provably_ge(t, extent, dim_add(t, base, out->size)))
        return true;
    /* two symbols that walk the same axis: equal, by a guard */
    bool symbols = !dim_is_const(t, extent, NULL) && !dim_is_const(t, out->size, NULL);
    if (!dim_is(t, base, 0) || out->coordinate == UINT32_MAX || !symbols)
        return false;
    call_agree(c, extent, out->size, "the extent of an index grid and of what it indexes");
    return true;
}

/* x with its walked axes cut, as [outer.., index space.., inner..]; 0 when the indices are no grid. */
static value take_grid(struct call *c, value x, struct grid *g)
{
    struct walk walk[MAX_RANK];
    uint32_t own = call_rank(c, x), kept = 0, rank = own - g->count + g->rank;
    uint32_t axis_of[MAX_RANK]; /* per coordinate: the indexed axis that walks along it, or UINT32_MAX */
    int32_t permutation[MAX_RANK], place[MAX_RANK];
    dim shape[MAX_RANK], cut[MAX_RANK];
    if (rank > MAX_RANK)
        return 0;
    for (uint32_t k = 0; k < g->rank; k++)
        axis_of[k] = UINT32_MAX;
    for (uint32_t j = 0; j < g->count; j++) {
        if (!find_walk(c, g, g->index[j], call_shape(c, x)[g->axis + j], &walk[j]))
            return 0;
        if (walk[j].coordinate == UINT32_MAX)
            continue;
        if (axis_of[walk[j].coordinate] != UINT32_MAX)
            return 0;
        axis_of[walk[j].coordinate] = j;
    }
    for (uint32_t k = 0; k < g->rank; k++)
        g->shape[k] = dim_resolve(c->t, g->shape[k]);
    for (uint32_t j = 0; j < g->count; j++)
        x = build_slice_axis(c, x, g->axis + j, dim_resolve(c->t, walk[j].start), dim_resolve(c->t, walk[j].size));
    for (uint32_t k = 0; k < own; k++) { /* drop the fixed axes */
        bool indexed = k >= g->axis && k < g->axis + g->count;
        if (!indexed || walk[k - g->axis].coordinate != UINT32_MAX)
            cut[kept++] = call_shape(c, x)[k];
    }
    x = build_reshape(c, x, kept, cut);
    uint32_t walked = kept - (own - g->count), to = 0;
    for (uint32_t k = 0; k < g->axis; k++)
        permutation[to] = (int32_t)k, shape[k] = cut[k], place[to++] = (int32_t)k;
    for (uint32_t k = 0; k < g->rank; k++) {
        shape[g->axis + k] = g->shape[k];
        if (axis_of[k] == UINT32_MAX)
            continue;
        uint32_t before = 0;
        for (uint32_t j = 0; j < axis_of[k]; j++)
            before += walk[j].coordinate != UINT32_MAX;
        permutation[to] = (int32_t)(g->axis + before);
        place[to++] = (int32_t)(g->axis + k);
    }
    for (uint32_t k = g->axis + walked; k < kept; k++) {
        uint32_t at = k - walked + g->rank;
        shape[at] = cut[k];
        permutation[to] = (int32_t)k;
        place[to++] = (int32_t)at;
    }
    x = graph_transpose(c->g, x, permutation);
    if (kept == rank && dims_same(call_shape(c, x), shape, rank))
        return x;
    return graph_broadcast(c->g, x, rank, shape, place);
}

/* Enumerated indices 0, 1, 2.. of one axis are a coordinate too. The formula of all elements of an index, or DIM_NONE. */
static dim one_index(struct call *c, const struct datum *d, uint32_t rank, dim last)
{
    struct dims *t = c->t;
    dim at[MAX_RANK], e = DIM_NONE, step[MAX_RANK];
    struct symbolic *s = &c->im->s;
    for (uint32_t k = 0; k < d->rank; k++) {
        int64_t extent = 0;
        bool enumerated = axis_enumerated(s, d->shape[k], &extent);
        if (enumerated && extent == 0)
            return DIM_NONE;
        at[k] = enumerated ? call_const(c, 0) : dim_coordinate(t, k);
    }
    if (d->rank > rank)
        at[rank] = last;
    const struct formula *f = content_at(s, d->content, d->rank, d->shape, at);
    if (!f || f->op != FORMULA_DIM)
        return DIM_NONE;
    e = f->d;
    for (uint32_t k = 0; k < rank; k++) {
        int64_t extent = 0;
        if (!axis_enumerated(s, d->shape[k], &extent) || extent < 2)
            continue;
        for (int64_t i = 1; i < extent; i++) {
            at[k] = call_const(c, i);
            const struct formula *next = content_at(s, d->content, d->rank, d->shape, at);
            if (!next || next->op != FORMULA_DIM)
                return DIM_NONE;
            dim difference = dim_sub(t, next->d, f->d);
            if (i == 1)
                step[k] = difference;
            if (difference != dim_mul(t, step[k], call_const(c, i)))
                return DIM_NONE;
        }
        at[k] = call_const(c, 0);
        e = dim_add(t, e, dim_mul(t, step[k], dim_coordinate(t, k)));
    }
    return e;
}

/* A grid whose formula e fits only the first elements along each axis is none: compares all of them. */
static bool index_is(struct call *c, const struct datum *d, uint32_t rank, dim last, dim e)
{
    struct symbolic *s = &c->im->s;
    int64_t extent[MAX_RANK] = {0}, at[MAX_RANK] = {0};
    dim index[MAX_RANK];
    uint32_t total = 1;
    for (uint32_t k = 0; k < rank; k++) {
        if (!axis_enumerated(s, d->shape[k], &extent[k]))
            extent[k] = 0;
        total *= extent[k] ? (uint32_t)extent[k] : 1;
    }
    for (uint32_t n = 0; n < total; n++) {
        for (uint32_t k = 0; k < rank; k++)
            index[k] = extent[k] ? call_const(c, at[k]) : dim_coordinate(c->t, k);
        if (d->rank > rank)
            index[rank] = last;
        const struct formula *is = content_at(s, d->content, d->rank, d->shape, index);
        const struct formula *fits = formula_at(s, formula_dim(s, e), rank, index);
        if (!is || !fits || !formula_equal(is, fits))
            return false;
        for (uint32_t k = rank; k-- > 0;) {
            if (!extent[k])
                continue;
            at[k] = at[k] + 1 == extent[k] ? 0 : at[k] + 1;
            if (at[k] != 0)
                break;
        }
    }
    return true;
}

static dim grid_index(struct call *c, const struct datum *d, uint32_t rank, dim last)
{
    dim e = one_index(c, d, rank, last);
    return dim_valid(e) && index_is(c, d, rank, last, e) ? e : DIM_NONE;
}

/* ---- Gather ------------------------------------------------------------------------------------------------- */

struct gather_context {
    struct call *c;
    const struct datum *data, *indices;
    uint32_t axis;
};
static const struct formula *gather_element(void *context, const dim *index)
{
    const struct gather_context *x = context;
    struct symbolic *s = &x->c->im->s;
    dim at[MAX_RANK];
    uint32_t q = x->indices->rank;
    const struct formula *f = content_at(s, x->indices->content, q, x->indices->shape, index + x->axis);
    if (!f || f->op != FORMULA_DIM)
        return NULL;
    dims_copy(at, index, x->axis);
    at[x->axis] = dim_upper(s->dims, f->d) < 0 ? dim_add(s->dims, f->d, x->data->shape[x->axis]) : f->d;
    for (uint32_t k = x->axis + 1; k < x->data->rank; k++)
        at[k] = index[k - 1 + q];
    return content_at(s, x->data->content, x->data->rank, x->data->shape, at);
}

/* Gather(Flatten(x), iota_k + extent * iota_b): the indices count through the axes of what was flattened. */
static value take_flat(struct call *c, value x, const struct grid *g)
{
    struct dims *t = c->t;
    const struct node *n = graph_node(c->g, x);
    dim base = DIM_NONE, coefficient[MAX_RANK], stride = call_const(c, 1), shape[2 * MAX_RANK];
    struct grid inner = *g;
    uint32_t ones = n->rank - 1, found = 0, walked = 0;
    for (uint32_t k = 1; k < n->rank; k++)
        if (!dim_is(t, n->shape[k], 1))
            return 0;
    if (n->op != OP_RESHAPE || !dim_affine(t, g->index[0], g->rank, &base, coefficient) || !dim_is(t, base, 0))
        return 0;
    value source = n->operand[0];
    inner.count = call_rank(c, source);
    if (inner.count < 2 || g->rank + ones > MAX_RANK)
        return 0;
    for (uint32_t k = 0; k < g->rank; k++)
        walked += !dim_is(t, coefficient[k], 0);
    for (uint32_t j = inner.count; j-- > 0;) {
        inner.index[j] = call_const(c, 0);
        for (uint32_t k = 0; k < g->rank; k++)
            if (coefficient[k] == stride) {
                inner.index[j] = dim_add(t, inner.index[j], dim_coordinate(t, k));
                found++;
            }
        stride = dim_mul(t, stride, call_shape(c, source)[j]);
    }
    value v = found == walked ? take_grid(c, source, &inner) : 0;
    for (uint32_t k = 0; v && k < g->rank + ones; k++)
        shape[k] = k < g->rank ? call_shape(c, v)[k] : call_const(c, 1);
    return v && ones ? build_reshape(c, v, g->rank + ones, shape) : v;
}

static value gather_by_grid(struct call *c, uint32_t axis)
{
    const struct datum *d = call_in(c, 1);
    struct grid g = {.axis = axis, .count = 1, .rank = d->rank};
    if (!d->content)
        return 0;
    dims_copy(g.shape, d->shape, d->rank);
    g.index[0] = grid_index(c, d, d->rank, DIM_NONE);
    if (!dim_valid(g.index[0]))
        return 0;
    value x = call_use(c, 0);
    value flat = axis == 0 ? take_flat(c, x, &g) : 0;
    return flat ? flat : take_grid(c, x, &g);
}

void lower_gather(struct call *c)
{
    const struct datum *data = call_in(c, 0), *indices = call_in(c, 1);
    uint32_t axis = call_axis(c, attribute_int(c, "axis", 0), data->rank), rank = data->rank - 1 + indices->rank;
    dim shape[2 * MAX_RANK];
    if (rank > MAX_RANK)
        call_unsupported(c, "%u axes (limit is %d)", rank, MAX_RANK);
    dims_copy(shape, data->shape, axis);
    dims_copy(shape + axis, indices->shape, indices->rank);
    dims_copy(shape + axis + indices->rank, data->shape + axis + 1, (data->rank - axis - 1));
    struct gather_context x = {c, data, indices, axis};
    const struct content *content =
        data->content && indices->content ? content_make(&c->im->s, rank, shape, gather_element, &x) : NULL;
    if (content) {
        call_set_content(c, 0, data->dtype, rank, shape, content);
        return;
    }
    value v = gather_by_grid(c, axis), packed = 0;
    if (!v && axis + 1 < data->rank && (packed = call_use_packed(c, 0)) != 0) /* what is taken is unpacked, not all */
        v = stored_unpack(c->g, graph_gather(c->g, packed, use_indices(c, 1, data->shape[axis]), axis, 0), data->dtype);
    if (!v)
        v = graph_gather(c->g, call_use(c, 0), use_indices(c, 1, call_in(c, 0)->shape[axis]), axis, 0);
    call_set(c, 0, v);
}

/* All axes but `axis` cut to the extents of the indices, and `axis` moved to the end. */
static value rows_of(struct call *c, value x, uint32_t axis, const dim *indices)
{
    for (uint32_t k = 0; k < call_rank(c, x); k++)
        if (k != axis)
            x = build_slice_axis(c, x, k, call_const(c, 0), indices[k]);
    return build_move_axis(c, x, axis, call_rank(c, x) - 1);
}

static void agree_other_axes(struct call *c, uint32_t axis)
{
    for (uint32_t k = 0; k < call_in(c, 0)->rank; k++) {
        dim a = call_in(c, 0)->shape[k], b = call_in(c, 1)->shape[k];
        bool symbols = !dim_is_const(c->t, a, NULL) || !dim_is_const(c->t, b, NULL);
        if (k != axis && a != b && symbols)
            call_agree(c, a, b, "extents of data and indices");
    }
}

void lower_gatherelements(struct call *c)
{
    uint32_t rank = call_in(c, 0)->rank, axis = call_axis(c, attribute_int(c, "axis", 0), rank);
    if (call_in(c, 1)->rank != rank)
        call_fail(c, "data and indices have %u and %u axes", rank, call_in(c, 1)->rank);
    agree_other_axes(c, axis);
    value x = call_use(c, 0), index = use_indices(c, 1, call_in(c, 0)->shape[axis]);
    x = rows_of(c, x, axis, call_shape(c, index));
    index = build_move_axis(c, index, axis, rank - 1);
    call_set(c, 0, build_move_axis(c, graph_gather(c->g, x, index, rank - 1, rank - 1), rank - 1, axis));
}

/* ---- GatherND, ScatterND ------------------------------------------------------------------------------------ */

/* How many axes an index tuple has: the last extent of the indices. */
static uint32_t tuple_size(struct call *c, uint32_t batch)
{
    const struct datum *data = call_in(c, 0), *indices = call_in(c, 1);
    int64_t q = 0;
    if (indices->rank == 0 || !dim_is_const(c->t, indices->shape[indices->rank - 1], &q))
        call_unsupported(c, "index tuples of symbolic length");
    if (q < 1 || q > (int64_t)data->rank - batch)
        call_fail(c, "index tuples of %lld for data of %u axes", (long long)q, data->rank);
    return (uint32_t)q;
}

static bool tuple_grid(struct call *c, uint32_t q, struct grid *g)
{
    const struct datum *d = call_in(c, 1);
    *g = (struct grid){.axis = 0, .count = q, .rank = d->rank - 1};
    if (!d->content)
        return false;
    dims_copy(g->shape, d->shape, g->rank);
    for (uint32_t j = 0; j < q; j++)
        if (!dim_valid(g->index[j] = grid_index(c, d, g->rank, call_const(c, j))))
            return false;
    return true;
}

struct tuple_context {
    struct call *c;
    const struct datum *data, *indices;
    uint32_t q;
};
static const struct formula *tuple_element(void *context, const dim *index)
{
    const struct tuple_context *x = context;
    struct symbolic *s = &x->c->im->s;
    dim at[MAX_RANK], own[MAX_RANK];
    uint32_t n = x->indices->rank - 1;
    dims_copy(own, index, n);
    for (uint32_t j = 0; j < x->q; j++) {
        own[n] = dim_const(s->dims, j);
        const struct formula *f = content_at(s, x->indices->content, n + 1, x->indices->shape, own);
        if (!f || f->op != FORMULA_DIM)
            return NULL;
        at[j] = dim_upper(s->dims, f->d) < 0 ? dim_add(s->dims, f->d, x->data->shape[j]) : f->d;
    }
    for (uint32_t k = x->q; k < x->data->rank; k++)
        at[k] = index[n + k - x->q];
    return content_at(s, x->data->content, x->data->rank, x->data->shape, at);
}

/* The indexed axes as one: index tuples become numbers. */
static value linear_index(struct call *c, uint32_t q, const dim *extent)
{
    value all = call_use(c, 1), sum = 0;
    uint32_t last = call_rank(c, all) - 1;
    for (uint32_t j = 0; j < q; j++) {
        value index = all;
        index = build_squeeze(c, build_slice_axis(c, index, last, call_const(c, j), call_const(c, 1)), last);
        index = graph_cast(c->g, wrap(c, index, extent[j]), DT_I64);
        dim stride = call_product(c, extent, j + 1, q);
        if (!dim_is(c->t, stride, 1))
            index = build_both(c, OP_MUL, index, graph_dim(c->g, stride));
        sum = sum ? graph_binary(c->g, OP_ADD, sum, index) : index;
    }
    return sum;
}

static value merge_axes(struct call *c, value x, uint32_t first, uint32_t count)
{
    dim shape[MAX_RANK];
    uint32_t rank = call_rank(c, x);
    dims_copy(shape, call_shape(c, x), first);
    shape[first] = call_product(c, call_shape(c, x), first, first + count);
    dims_copy(shape + first + 1, call_shape(c, x) + first + count, (rank - first - count));
    return build_reshape(c, x, rank - count + 1, shape);
}

void lower_gathernd(struct call *c)
{
    const struct datum *data = call_in(c, 0), *indices = call_in(c, 1);
    int64_t batch_dims = attribute_int(c, "batch_dims", 0);
    if (batch_dims < 0 || batch_dims >= indices->rank || batch_dims >= data->rank)
        call_fail(c, "batch_dims is %lld", (long long)batch_dims);
    uint32_t batch = (uint32_t)batch_dims, q = tuple_size(c, batch);
    struct grid g;
    dim shape[2 * MAX_RANK];
    uint32_t n = indices->rank - 1, rank = n + data->rank - q - batch;
    dims_copy(shape, indices->shape, n);
    dims_copy(shape + n, data->shape + batch + q, (data->rank - q - batch));
    struct tuple_context x = {c, data, indices, q};
    const struct content *content = batch == 0 && rank <= MAX_RANK && data->content && indices->content
                                        ? content_make(&c->im->s, rank, shape, tuple_element, &x)
                                        : NULL;
    if (content) {
        call_set_content(c, 0, data->dtype, rank, shape, content);
        return;
    }
    value v = batch == 0 && tuple_grid(c, q, &g) ? take_grid(c, call_use(c, 0), &g) : 0;
    if (!v) {
        for (uint32_t k = 0; k < batch; k++)
            call_agree(c, call_in(c, 0)->shape[k], call_in(c, 1)->shape[k], "batch extents");
        value source = call_use(c, 0);
        value index = linear_index(c, q, call_shape(c, source) + batch);
        v = graph_gather(c->g, merge_axes(c, source, batch, q), index, batch, batch);
    }
    call_set(c, 0, v);
}

static int32_t scatter_mode(struct call *c)
{
    const char *reduction = attribute_text(c, "reduction", "none");
    static const struct {
        const char *name;
        int32_t mode;
    } modes[] = {
        {"none", SCATTER_SET}, {"add", SCATTER_ADD}, {"mul", SCATTER_MUL}, {"max", SCATTER_MAX}, {"min", SCATTER_MIN}};
    for (size_t i = 0; i < sizeof modes / sizeof *modes; i++)
        if (strcmp(modes[i].name, reduction) == 0)
            return modes[i].mode;
    call_fail(c, "unknown reduction '%s'", reduction);
}

/* Do the indices walk the whole operand in order? Then the result is the updates. */
static bool covers_all(struct call *c, uint32_t q)
{
    struct grid g;
    if (call_in(c, 1)->rank != q + 1 || !tuple_grid(c, q, &g))
        return false;
    for (uint32_t j = 0; j < q; j++)
        if (g.index[j] != dim_coordinate(c->t, j) && !dim_is(c->t, g.shape[j], 1))
            return false;
    for (uint32_t j = 0; j < q; j++) {
        dim extent = call_in(c, 0)->shape[j], is = call_in(c, 1)->shape[j];
        bool constants = dim_is_const(c->t, extent, NULL) || dim_is_const(c->t, is, NULL);
        if (extent != is && constants)
            return false;
        if (extent != is)
            call_agree(c, extent, is, "the extent of an index grid and of what it indexes");
    }
    return true;
}

void lower_scatternd(struct call *c)
{
    int32_t mode = scatter_mode(c);
    uint32_t q = tuple_size(c, 0), n = call_in(c, 1)->rank - 1;
    if (call_in(c, 2)->rank != n + call_in(c, 0)->rank - q)
        call_fail(c, "updates have %u axes", call_in(c, 2)->rank);
    for (uint32_t k = 0; k < call_in(c, 2)->rank; k++)
        call_agree(c, k < n ? call_in(c, 1)->shape[k] : call_in(c, 0)->shape[k - n + q], call_in(c, 2)->shape[k],
                   "extents of updates and what they replace");
    if (mode == SCATTER_SET && covers_all(c, q)) {
        call_set_alias(c, 0, 2);
        return;
    }
    value x = call_use(c, 0), index = linear_index(c, q, call_shape(c, x)), updates = call_use(c, 2);
    value y = graph_scatter(c->g, merge_axes(c, x, 0, q), index, updates, 0, 0, mode);
    call_set(c, 0, build_reshape(c, y, call_rank(c, x), call_shape(c, x)));
}

/* ---- ScatterElements ---------------------------------------------------------------------------------------- */

/* Where indices are smaller than the data along other axes, too: all axes as one. */
static value scatter_flat(struct call *c, value x, value index, value updates, uint32_t axis, int32_t mode)
{
    uint32_t rank = call_rank(c, x);
    value sum = 0;
    const dim *shape = call_shape(c, x);
    for (uint32_t k = 0; k < rank; k++) {
        value i = k == axis ? graph_cast(c->g, index, DT_I64) : graph_iota(c->g, DT_I64, rank, call_shape(c, index), k);
        dim stride = call_product(c, shape, k + 1, rank);
        if (!dim_is(c->t, stride, 1))
            i = build_both(c, OP_MUL, i, graph_dim(c->g, stride));
        sum = sum ? graph_binary(c->g, OP_ADD, sum, i) : i;
    }
    dim total = call_product(c, shape, 0, rank), count = call_product(c, call_shape(c, index), 0, rank);
    value y = graph_scatter(c->g, build_reshape(c, x, 1, &total), build_reshape(c, sum, 1, &count),
                            build_reshape(c, updates, 1, &count), 0, 0, mode);
    return build_reshape(c, y, rank, shape);
}

void lower_scatterelements(struct call *c)
{
    int32_t mode = scatter_mode(c);
    uint32_t rank = call_in(c, 0)->rank, axis = call_axis(c, attribute_int(c, "axis", 0), rank);
    bool same = true;
    if (call_in(c, 1)->rank != rank || call_in(c, 2)->rank != rank)
        call_fail(c, "data, indices and updates differ in their number of axes");
    agree_other_axes(c, axis);
    for (uint32_t k = 0; k < rank; k++) {
        call_agree(c, call_in(c, 1)->shape[k], call_in(c, 2)->shape[k], "extents of indices and updates");
        same = same && (k == axis || call_in(c, 0)->shape[k] == call_in(c, 1)->shape[k]);
    }
    value x = call_use(c, 0), index = use_indices(c, 1, call_in(c, 0)->shape[axis]), updates = call_use(c, 2);
    if (!same) {
        call_set(c, 0, scatter_flat(c, x, index, updates, axis, mode));
        return;
    }
    value y = graph_scatter(c->g, build_move_axis(c, x, axis, rank - 1), build_move_axis(c, index, axis, rank - 1),
                            build_move_axis(c, updates, axis, rank - 1), rank - 1, rank - 1, mode);
    call_set(c, 0, build_move_axis(c, y, rank - 1, axis));
}

/* ---- OneHot ------------------------------------------------------------------------------------------------- */

void lower_onehot(struct call *c)
{
    dim depth = call_dim(c, 1);
    value index = wrap(c, call_use_as(c, 0, DT_I64), depth), values = call_use(c, 2);
    uint32_t rank = call_rank(c, index), axis = call_axis(c, attribute_int(c, "axis", -1), rank + 1);
    dim shape[MAX_RANK];
    if (rank + 1 > MAX_RANK)
        call_unsupported(c, "%u axes (limit is %d)", rank + 1, MAX_RANK);
    for (uint32_t k = 0; k <= rank; k++)
        shape[k] = k == axis ? depth : call_shape(c, index)[k < axis ? k : k - 1];
    value place = graph_iota(c->g, DT_I64, rank + 1, shape, axis);
    value chosen = graph_binary(c->g, OP_EQ, place, build_expand(c, build_unsqueeze(c, index, axis), rank + 1, shape));
    value off = graph_reshape(c->g, build_slice_axis(c, values, 0, call_const(c, 0), call_const(c, 1)), 0, NULL);
    value on = graph_reshape(c->g, build_slice_axis(c, values, 0, call_const(c, 1), call_const(c, 1)), 0, NULL);
    call_set(c, 0, build_choose(c, chosen, on, off));
}
