/* frontend/onnx/lower_reduce.c - reductions, positions of extrema, running sums.
 *
 * ReduceX differ in what is done before and after one core reduction; reduce_kind says it.
 */
#include "frontend/onnx/lower.h"

/* The axes of a ReduceX: an attribute before `input_since`, an input from then on. false: there are none, and that means "do nothing". */
static bool reduce_axes(struct call *c, uint32_t rank, uint32_t *count, int32_t *axes)
{
    const int64_t *given = NULL;
    if (call_has(c, 1))
        given = call_ints(c, 1, count);
    else
        given = attribute_ints(c, "axes", count);
    if (!given || *count == 0) {
        if (attribute_int(c, "noop_with_empty_axes", 0))
            return false;
        *count = rank;
        for (uint32_t k = 0; k < rank; k++)
            axes[k] = (int32_t)k;
        return true;
    }
    bool seen[MAX_RANK] = {false};
    uint32_t n = 0;
    for (uint32_t i = 0; i < *count; i++)
        seen[call_axis(c, given[i], rank)] = true;
    for (uint32_t k = 0; k < rank; k++)
        if (seen[k])
            axes[n++] = (int32_t)k;
    *count = n;
    return true;
}

/* ---- known elements: the product of a shape ----------------------------------------------------------------- */

struct fold_context {
    struct call *c;
    op o;
    const struct datum *d;
};
static const struct formula *fold_element(void *context, const dim *index)
{
    const struct fold_context *f = context;
    struct symbolic *s = &f->c->im->s;
    dim at[1];
    (void)index;
    const struct formula *all = NULL;
    for (uint32_t i = 0; i < f->d->content->count; i++) {
        at[0] = dim_const(s->dims, i);
        const struct formula *x = content_at(s, f->d->content, 1, f->d->shape, at);
        all = i == 0 ? x : formula_binary(s, f->o, f->d->dtype, all, x);
    }
    return all;
}

static bool fold_known(struct call *c, enum reduce_kind kind, bool keep)
{
    struct fold_context f = {.c = c, .d = call_in(c, 0)};
    int64_t extent = 0;
    dim one = call_const(c, 1);
    if (!f.d->content || f.d->rank != 1 || !axis_enumerated(&c->im->s, f.d->shape[0], &extent) || extent == 0)
        return false;
    if (kind != REDUCE_KIND_SUM && kind != REDUCE_KIND_PROD && kind != REDUCE_KIND_MAX && kind != REDUCE_KIND_MIN)
        return false;
    f.o = kind == REDUCE_KIND_SUM    ? OP_ADD
          : kind == REDUCE_KIND_PROD ? OP_MUL
          : kind == REDUCE_KIND_MAX  ? OP_MAX
                                     : OP_MIN;
    const struct content *content = content_make(&c->im->s, keep, &one, fold_element, &f);
    if (content)
        call_set_content(c, 0, f.d->dtype, keep, &one, content);
    return content != NULL;
}

/* ---- ReduceX ------------------------------------------------------------------------------------------------ */

/* log(sum(exp(x))) with the maximum taken out; where that is infinite, nothing is taken out. */
static value log_sum_exp(struct call *c, value x, uint32_t count, const int32_t *axes, bool keep)
{
    struct attribute any = {.mode = 3};
    value top = build_reduce(c, OP_REDUCE_MAX, x, count, axes, true);
    value infinite = graph_add(c->g, OP_ISINF, DT_NONE, 0, NULL, 1, &top, &any);
    top = build_choose(c, infinite, build_real(c, call_type(c, x), 0), top);
    value e = graph_unary(c->g, OP_EXP, build_both(c, OP_SUB, x, top));
    value sum = graph_unary(c->g, OP_LOG, build_reduce(c, OP_REDUCE_SUM, e, count, axes, true));
    value all = graph_binary(c->g, OP_ADD, sum, top);
    if (keep)
        return all;
    value shaped = graph_reduce(c->g, OP_REDUCE_MAX, all, count, axes); /* over extents of 1 */
    return shaped;
}

static value reduce_kind(struct call *c, enum reduce_kind kind, value x, uint32_t count, const int32_t *axes, bool keep)
{
    struct graph *g = c->g;
    switch (kind) {
    case REDUCE_KIND_SUM:
        return build_reduce(c, OP_REDUCE_SUM, x, count, axes, keep);
    case REDUCE_KIND_MEAN:
        return build_mean(c, x, count, axes, keep);
    case REDUCE_KIND_MAX:
        return build_reduce(c, OP_REDUCE_MAX, x, count, axes, keep);
    case REDUCE_KIND_MIN:
        return build_reduce(c, OP_REDUCE_MIN, x, count, axes, keep);
    case REDUCE_KIND_PROD:
        return build_reduce(c, OP_REDUCE_PROD, x, count, axes, keep);
    case REDUCE_KIND_L1:
        return build_reduce(c, OP_REDUCE_SUM, graph_unary(g, OP_ABS, x), count, axes, keep);
    case REDUCE_KIND_L2:
        return graph_unary(g, OP_SQRT,
                           build_reduce(c, OP_REDUCE_SUM, graph_binary(g, OP_MUL, x, x), count, axes, keep));
    case REDUCE_KIND_SUM_SQUARE:
        return build_reduce(c, OP_REDUCE_SUM, graph_binary(g, OP_MUL, x, x), count, axes, keep);
    case REDUCE_KIND_LOG_SUM:
        return graph_unary(g, OP_LOG, build_reduce(c, OP_REDUCE_SUM, x, count, axes, keep));
    case REDUCE_KIND_LOG_SUM_EXP:
        return log_sum_exp(c, x, count, axes, keep);
    }
    return x;
}

/* With no axes to reduce, only what is done to each element remains. */
static void reduce_nothing(struct call *c, enum reduce_kind kind)
{
    value x = call_use(c, 0);
    if (kind == REDUCE_KIND_L1 || kind == REDUCE_KIND_L2)
        call_set(c, 0, graph_unary(c->g, OP_ABS, x));
    else if (kind == REDUCE_KIND_SUM_SQUARE)
        call_set(c, 0, graph_binary(c->g, OP_MUL, x, x));
    else if (kind == REDUCE_KIND_LOG_SUM)
        call_set(c, 0, graph_unary(c->g, OP_LOG, x));
    else
        call_set_alias(c, 0, 0);
}

void lower_reduce(struct call *c)
{
    enum reduce_kind kind = (enum reduce_kind)c->argument;
    uint32_t count = 0, rank = call_in(c, 0)->rank;
    int32_t axes[MAX_RANK];
    bool keep = attribute_int(c, "keepdims", 1) != 0;
    if (!reduce_axes(c, rank, &count, axes) || rank == 0) {
        reduce_nothing(c, kind);
        return;
    }
    if (rank == 1 && fold_known(c, kind, keep))
        return;
    value x = call_use(c, 0);
    dtype type = call_type(c, x);
    bool real_inside = !dtype_is_float(type) &&
                       (kind == REDUCE_KIND_L2 || kind == REDUCE_KIND_LOG_SUM || kind == REDUCE_KIND_LOG_SUM_EXP);
    if (real_inside)
        x = graph_cast(c->g, x, DT_F64);
    call_set(c, 0, graph_cast(c->g, reduce_kind(c, kind, x, count, axes, keep), type));
}

/* ---- extrema ------------------------------------------------------------------------------------------------ */

/* argument: 1 for the smallest */
void lower_argmax(struct call *c)
{
    value x = call_use(c, 0);
    uint32_t rank = call_rank(c, x), axis = call_axis(c, attribute_int(c, "axis", 0), rank);
    bool last = attribute_int(c, "select_last_index", 0) != 0;
    int32_t reversed = (int32_t)axis;
    if (last)
        x = graph_reverse(c->g, x, 1, &reversed);
    dim n = call_shape(c, x)[axis];
    value index = graph_topk(c->g, x, axis, call_const(c, 1), c->argument != 0);
    if (last) {
        value top = graph_dim(c->g, dim_sub(c->t, n, call_const(c, 1)));
        index = build_both(c, OP_SUB, top, index);
    }
    call_set(c, 0, attribute_int(c, "keepdims", 1) ? index : build_squeeze(c, index, axis));
}

void lower_topk(struct call *c)
{
    value x = call_use(c, 0);
    uint32_t rank = call_rank(c, x), axis = call_axis(c, attribute_int(c, "axis", -1), rank);
    dim k = c->version >= 10 ? call_dim(c, 1) : call_const(c, attribute_int(c, "k", 1));
    value index = graph_topk(c->g, x, axis, k, attribute_int(c, "largest", 1) == 0);
    value rows = build_move_axis(c, x, axis, rank - 1), chosen = build_move_axis(c, index, axis, rank - 1);
    value values = graph_gather(c->g, rows, chosen, rank - 1, rank - 1);
    call_set(c, 0, build_move_axis(c, values, rank - 1, axis));
    call_set(c, 1, index);
}

/* ---- along an axis ------------------------------------------------------------------------------------------ */

void lower_cumsum(struct call *c)
{
    value x = call_use(c, 0);
    uint32_t axis = call_axis(c, call_int(c, 1), call_rank(c, x));
    bool exclusive = attribute_int(c, "exclusive", 0) != 0, reverse = attribute_int(c, "reverse", 0) != 0;
    call_set(c, 0, graph_cumsum(c->g, x, axis, exclusive, reverse));
}
