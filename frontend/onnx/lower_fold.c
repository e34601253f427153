/* frontend/onnx/lower_fold.c - elements put back where windows took them from: Col2Im, MaxUnpool; and small sums and products over elements:
 * CumProd, Det, TfIdfVectorizer.
 */
#include "frontend/onnx/compose.h"

#include <math.h>

/* ---- Col2Im ------------------------------------------------------------------------------------------------- */

struct fold {
    uint32_t n;
    int64_t image[MAX_RANK], block[MAX_RANK], stride[MAX_RANK], dilation[MAX_RANK], before[MAX_RANK], after[MAX_RANK];
    int64_t padded[MAX_RANK], windows[MAX_RANK];
    int64_t elements, taps, places; /* products of padded, block, windows */
};

static void read_numbers(struct call *c, const char *name, uint32_t wanted, int64_t fallback, int64_t *out)
{
    uint32_t count = 0;
    const int64_t *x = attribute_ints(c, name, &count);
    if (x && count != wanted)
        call_fail(c, "%s has %u numbers, %u are expected", name, count, wanted);
    for (uint32_t k = 0; k < wanted; k++) {
        out[k] = x ? x[k] : fallback;
        if (out[k] < 0 || out[k] > INT32_MAX)
            call_fail(c, "%s has %lld", name, (long long)out[k]);
    }
}

static int64_t grow(struct call *c, int64_t total, int64_t by)
{
    if (by < 1 || by > COMPOSE_TABLE || total * by > COMPOSE_TABLE)
        call_unsupported(c, "an image or windows of more than %d elements", COMPOSE_TABLE);
    return total * by;
}

static void read_fold(struct call *c, struct fold *f)
{
    uint32_t blocks = 0;
    int64_t pads[2 * MAX_RANK];
    const int64_t *image = call_ints(c, 1, &f->n), *block = call_ints(c, 2, &blocks);
    if (f->n < 1 || f->n > MAX_RANK - 2 || blocks != f->n)
        call_fail(c, "an image of %u axes and a block of %u", f->n, blocks);
    read_numbers(c, "strides", f->n, 1, f->stride);
    read_numbers(c, "dilations", f->n, 1, f->dilation);
    read_numbers(c, "pads", 2 * f->n, 0, pads);
    f->elements = f->taps = f->places = 1;
    for (uint32_t k = 0; k < f->n; k++) {
        f->image[k] = image[k];
        f->block[k] = block[k];
        f->before[k] = pads[k];
        f->after[k] = pads[k + f->n];
        f->taps = grow(c, f->taps, block[k]);
        f->elements = grow(c, f->elements, image[k] > COMPOSE_TABLE ? image[k] : image[k] + f->before[k] + f->after[k]);
        f->padded[k] = image[k] + f->before[k] + f->after[k];
        int64_t span = f->padded[k] - f->dilation[k] * (block[k] - 1) - 1;
        if (f->stride[k] < 1 || span < 0 || image[k] < 0)
            call_fail(c, "a block does not fit into axis %u", k);
        f->windows[k] = span / f->stride[k] + 1;
        f->places = grow(c, f->places, f->windows[k]);
    }
}

/* The padded image's flat place of each (tap, window). */
static value fold_places(struct call *c, const struct fold *f)
{
    int64_t count = grow(c, f->taps, f->places), *place = compose_integer_room(c, count);
    for (int64_t i = 0; i < count; i++) {
        int64_t tap = i / f->places, window = i % f->places, step = 1, at = 0;
        for (uint32_t k = f->n; k-- > 0;) {
            int64_t along = window % f->windows[k] * f->stride[k] + tap % f->block[k] * f->dilation[k];
            window /= f->windows[k];
            tap /= f->block[k];
            at += along * step;
            step *= f->padded[k];
        }
        place[i] = at;
    }
    return compose_integers(c, 1, &count, place);
}

/* [n, c * taps, windows] -> [n, c, image..]: overlapping elements add up. */
void lower_col2im(struct call *c)
{
    struct fold f = {.n = 0};
    value x = call_use(c, 0);
    read_fold(c, &f);
    if (call_rank(c, x) != 3)
        call_fail(c, "needs three axes, has %u", call_rank(c, x));
    dim batch = call_shape(c, x)[0], channels = dim_exact_div(c->t, call_shape(c, x)[1], call_const(c, f.taps)),
        shape[MAX_RANK];
    if (!dim_valid(channels))
        call_fail(c, "blocks of %lld elements do not divide its channels", (long long)f.taps);
    call_agree(c, call_shape(c, x)[2], call_const(c, f.places), "numbers of windows");
    x = build_reshape(c, x, 3, (dim[]){batch, channels, call_const(c, f.taps * f.places)});
    dim flat[3] = {call_const(c, f.elements), batch, channels};
    value image = build_full(c, call_type(c, x), 0, 3, flat);
    image = graph_scatter(c->g, image, fold_places(c, &f), build_move_axis(c, x, 2, 0), 0, 0, SCATTER_ADD);
    image = build_move_axis(c, image, 0, 2);
    shape[0] = batch;
    shape[1] = channels;
    for (uint32_t k = 0; k < f.n; k++)
        shape[2 + k] = call_const(c, f.padded[k]);
    image = build_reshape(c, image, f.n + 2, shape);
    for (uint32_t k = 0; k < f.n; k++)
        image = compose_part(c, image, 2 + k, f.before[k], f.image[k]);
    call_set(c, 0, image);
}

/* ---- MaxUnpool ---------------------------------------------------------------------------------------------- */

/* Zeros with x at the flat indices that MaxPool gave; a larger output_shape adds zeros behind. */
void lower_maxunpool(struct call *c)
{
    value x = call_use(c, 0), index = call_use_as(c, 1, DT_I64);
    uint32_t rank = call_rank(c, x), n = rank - 2, count = 0;
    int64_t kernel[MAX_RANK], stride[MAX_RANK], pads[2 * MAX_RANK];
    dim shape[MAX_RANK], before[MAX_RANK];
    if (rank < 3 || call_rank(c, index) != rank)
        call_fail(c, "needs values and indices of the same number of axes, three or more");
    read_numbers(c, "kernel_shape", n, 1, kernel);
    read_numbers(c, "strides", n, 1, stride);
    read_numbers(c, "pads", 2 * n, 0, pads);
    dims_copy(shape, call_shape(c, x), rank);
    for (uint32_t k = 0; k < n; k++) {
        dim spread = dim_mul(c->t, dim_sub(c->t, shape[2 + k], call_const(c, 1)), call_const(c, stride[k]));
        shape[2 + k] = dim_add(c->t, spread, call_const(c, kernel[k] - pads[k] - pads[k + n]));
    }
    dim total = call_product(c, shape, 0, rank), given = call_product(c, call_shape(c, x), 0, rank);
    value zeros = build_full(c, call_type(c, x), 0, 1, &total);
    x = build_reshape(c, x, 1, &given);
    index = build_reshape(c, index, 1, &given);
    value y = build_reshape(c, graph_scatter(c->g, zeros, index, x, 0, 0, SCATTER_SET), rank, shape);
    if (call_has(c, 2)) {
        const dim *wanted = call_dims(c, 2, &count);
        if (count != rank)
            call_fail(c, "output_shape has %u numbers for %u axes", count, rank);
        for (uint32_t k = 0; k < rank; k++)
            before[k] = call_const(c, 0);
        y = dims_same(wanted, shape, rank) ? y : graph_pad(c->g, y, build_real(c, call_type(c, y), 0), before, wanted);
    }
    call_set(c, 0, y);
}

/* ---- CumProd ------------------------------------------------------------------------------------------------ */

/* x moved by `by` places along the axis, ones in front */
static value shifted(struct call *c, value x, uint32_t axis, int64_t by)
{
    uint32_t rank = call_rank(c, x);
    dim before[MAX_RANK], shape[MAX_RANK];
    dims_copy(shape, call_shape(c, x), rank);
    for (uint32_t k = 0; k < rank; k++)
        before[k] = call_const(c, k == axis ? by : 0);
    value kept = build_slice_axis(c, x, axis, call_const(c, 0), dim_sub(c->t, shape[axis], call_const(c, by)));
    return graph_pad(c->g, kept, build_real(c, call_type(c, x), 1), before, shape);
}

/* By doubling: after the step of 2^i each element is the product of 2^(i+1) neighbours. */
void lower_cumprod(struct call *c)
{
    value x = call_use(c, 0);
    uint32_t axis = call_axis(c, call_int(c, 1), call_rank(c, x));
    int64_t n = compose_extent(c, call_shape(c, x)[axis], "axis of a running product");
    if (n > INT32_MAX)
        call_unsupported(c, "an axis of %lld elements", (long long)n);
    const int32_t along = (int32_t)axis;
    bool reverse = attribute_int(c, "reverse", 0) != 0;
    if (reverse)
        x = graph_reverse(c->g, x, 1, &along);
    if (attribute_int(c, "exclusive", 0) && n > 0)
        x = shifted(c, x, axis, 1);
    for (int64_t step = 1; step < n; step *= 2)
        x = graph_binary(c->g, OP_MUL, x, shifted(c, x, axis, step));
    call_set(c, 0, reverse ? graph_reverse(c->g, x, 1, &along) : x);
}

/* ---- Det ---------------------------------------------------------------------------------------------------- */

/* Elimination with the largest pivot of each column. [batch, n, n] -> [batch] */
static value determinant(struct call *c, value a, uint32_t n)
{
    dtype type = call_type(c, a);
    dim batch = call_shape(c, a)[0];
    value det = build_full(c, type, 1, 1, &batch), one = build_real(c, type, 1), zero = build_real(c, type, 0);
    for (uint32_t left = n; left > 0; left--) {
        value column = compose_at(c, a, 2, 0);
        value at = graph_topk(c->g, graph_unary(c->g, OP_ABS, column), 1, call_const(c, 1), false); /* [batch, 1] */
        value row = graph_gather(c->g, a, at, 1, 1); /* [batch, 1, left] */
        value pivot = compose_at(c, compose_at(c, row, 2, 0), 1, 0);
        value swapped = build_both(c, OP_EQ, build_squeeze(c, at, 1), build_real(c, DT_I64, 0));
        det = build_both(c, OP_MUL, det, build_choose(c, swapped, pivot, graph_unary(c->g, OP_NEG, pivot)));
        if (left == 1)
            break;
        dim plane[2] = {batch, call_const(c, left - 1)};
        value place = build_with(c, OP_ADD, graph_iota(c->g, DT_I64, 2, plane, 1), 1);
        value chosen =
            build_unsqueeze(c, build_both(c, OP_EQ, place, at), 2); /* the first row takes the pivot's place */
        value rest = build_choose(c, chosen, compose_part(c, a, 1, 0, 1), compose_part(c, a, 1, 1, left - 1));
        value safe = build_choose(c, build_both(c, OP_EQ, pivot, zero), one, pivot);
        value factor =
            build_both(c, OP_DIV, compose_part(c, rest, 2, 0, 1), build_unsqueeze(c, build_unsqueeze(c, safe, 1), 2));
        rest = build_both(c, OP_SUB, rest, build_both(c, OP_MUL, factor, row));
        a = compose_part(c, rest, 2, 1, left - 1);
    }
    return det;
}

void lower_det(struct call *c)
{
    value x = call_use(c, 0);
    uint32_t rank = call_rank(c, x);
    dim shape[MAX_RANK];
    if (rank < 2)
        call_fail(c, "needs two axes or more");
    uint32_t n = compose_steps(
        c, call_agree(c, call_shape(c, x)[rank - 2], call_shape(c, x)[rank - 1], "rows and columns"), "matrix");
    dims_copy(shape, call_shape(c, x), rank - 2);
    dim flat[3] = {call_product(c, shape, 0, rank - 2), call_const(c, n), call_const(c, n)};
    dtype type = call_type(c, x);
    value det = determinant(c, graph_cast(c->g, build_reshape(c, x, 3, flat), compose_work(type)), n);
    call_set(c, 0, graph_cast(c->g, build_reshape(c, det, rank - 2, shape), type));
}

/* ---- TfIdfVectorizer ---------------------------------------------------------------------------------------- */

struct grams {                  /* those of one size */
    int64_t size, count, first; /* first: number of the first one among all */
    const int64_t *items;
};

/* How often each gram occurs in x [.., n]: [.., count] as f32. skips: up to that many items between two of a gram */
static value count_grams(struct call *c, value x, const struct grams *g, int64_t skips)
{
    const int64_t shape[] = {g->count, g->size};
    uint32_t last = call_rank(c, x) - 1;
    int64_t n = compose_extent(c, call_shape(c, x)[last], "sequence");
    const int32_t item_axis = (int32_t)last + 2, place_axis = (int32_t)last;
    value pool = graph_cast(c->g, compose_integers(c, 2, shape, g->items), call_type(c, x)), sum = 0;
    for (int64_t skip = 0; skip <= (g->size == 1 ? 0 : skips); skip++) {
        if ((g->size - 1) * (skip + 1) + 1 > n)
            break;
        value windows = graph_window(c->g, x, last, (int32_t)g->size, 1, (int32_t)(skip + 1)); /* [.., places, size] */
        value same = build_both(c, OP_EQ, build_unsqueeze(c, windows, last + 1), pool); /* [.., places, count, size] */
        value found = graph_cast(c->g, graph_reduce(c->g, OP_REDUCE_MIN, same, 1, &item_axis), DT_F32);
        value times = graph_reduce(c->g, OP_REDUCE_SUM, found, 1, &place_axis);
        sum = sum ? build_both(c, OP_ADD, sum, times) : times;
    }
    return sum;
}

/* [columns, grams]: a gram's weight where it counts into a column */
static value gram_columns(struct call *c, const struct grams *g, const Onnx__AttributeProto *index, int64_t columns)
{
    const Onnx__AttributeProto *weights = attribute(c, "weights");
    bool weighed = strcmp(attribute_text(c, "mode", "TF"), "TF") != 0 && weights && weights->n_floats > 0;
    if (weighed && weights->n_floats < (size_t)(g->first + g->count))
        call_fail(c, "%zu weights for %lld grams", weights->n_floats, (long long)(g->first + g->count));
    const int64_t shape[] = {columns, g->count};
    double *table = compose_room(c, grow(c, columns, g->count));
    memset(table, 0, (size_t)(columns * g->count) * sizeof *table);
    for (int64_t i = 0; i < g->count; i++)
        table[index->ints[g->first + i] * g->count + i] = weighed ? (double)weights->floats[g->first + i] : 1;
    return compose_table(c, DT_F32, 2, shape, table);
}

static int64_t count_columns(struct call *c, const Onnx__AttributeProto *index)
{
    int64_t most = -1;
    for (size_t i = 0; i < index->n_ints; i++) {
        if (index->ints[i] < 0 || index->ints[i] > COMPOSE_TABLE)
            call_fail(c, "ngram_indexes has %lld", (long long)index->ints[i]);
        most = index->ints[i] > most ? index->ints[i] : most;
    }
    return most + 1;
}

/* Frequencies of all grams whose size is wanted: [.., columns] */
static value frequencies(struct call *c, value x, int64_t columns)
{
    const Onnx__AttributeProto *pool = attribute(c, "pool_int64s"), *starts = attribute(c, "ngram_counts");
    const Onnx__AttributeProto *index = attribute(c, "ngram_indexes");
    int64_t least = attribute_int(c, "min_gram_length", 1), most = attribute_int(c, "max_gram_length", 1);
    int64_t skips = attribute_int(c, "max_skip_count", 0), first = 0;
    dim shape[MAX_RANK];
    if (skips < 0 || skips > COMPOSE_STEPS)
        call_unsupported(c, "a max_skip_count of %lld", (long long)skips);
    dims_copy(shape, call_shape(c, x), call_rank(c, x));
    shape[call_rank(c, x) - 1] = call_const(c, columns);
    value sum = build_full(c, DT_F32, 0, call_rank(c, x), shape);
    for (size_t i = 0; i < starts->n_ints; i++) {
        int64_t from = starts->ints[i], to = i + 1 < starts->n_ints ? starts->ints[i + 1] : (int64_t)pool->n_ints;
        if (from < 0 || to < from || to > (int64_t)pool->n_ints)
            call_fail(c, "ngram_counts does not ascend within the pool");
        struct grams g = {.size = (int64_t)i + 1, .items = pool->ints + from};
        g.count = (to - from) / g.size;
        g.first = first;
        first += g.count;
        if (first > (int64_t)index->n_ints)
            call_fail(c, "ngram_indexes has %zu numbers for %lld grams", index->n_ints, (long long)first);
        value counts = g.count > 0 && g.size >= least && g.size <= most ? count_grams(c, x, &g, skips) : 0;
        if (counts && strcmp(attribute_text(c, "mode", "TF"), "IDF") == 0) /* whether, not how often */
            counts = compose_clamp(c, counts, 0, 1);
        if (counts)
            sum = build_both(c, OP_ADD, sum, graph_dot(c->g, counts, gram_columns(c, &g, index, columns), 0, 1));
    }
    return sum;
}

void lower_tfidf(struct call *c)
{
    const Onnx__AttributeProto *index = attribute(c, "ngram_indexes");
    const char *mode = attribute_text(c, "mode", "TF");
    value x = call_use(c, 0);
    if (attribute(c, "pool_strings") || !attribute(c, "pool_int64s"))
        call_unsupported(c, "strings");
    if (!index || !attribute(c, "ngram_counts") || call_rank(c, x) < 1 || call_rank(c, x) > 2)
        call_fail(c, "needs ngram_indexes, ngram_counts, and one axis or two");
    int64_t columns = count_columns(c, index);
    if (strcmp(mode, "TF") != 0 && strcmp(mode, "IDF") != 0 && strcmp(mode, "TFIDF") != 0)
        call_fail(c, "mode is '%s'", mode);
    call_set(c, 0, frequencies(c, x, columns));
}
