/* frontend/onnx/contrib_norm.c - com.microsoft's normalisations: with a residual before them, without a mean, behind embeddings. */
#include "frontend/onnx/contrib.h"

struct normed contrib_normalize(struct call *c, value x, uint32_t first, double epsilon, bool centred)
{
    struct normed n = {0};
    uint32_t rank = call_rank(c, x), count = 0;
    int32_t axes[MAX_RANK];
    dtype type = call_type(c, x);
    for (uint32_t k = first; k < rank; k++)
        axes[count++] = (int32_t)k;
    if (count == 0)
        call_fail(c, "needs an axis to normalise over");
    value wide = graph_cast(c->g, x, contrib_work(type));
    if (centred) {
        n.mean = build_mean(c, wide, count, axes, true);
        wide = build_both(c, OP_SUB, wide, n.mean);
    }
    value squares = build_mean(c, graph_binary(c->g, OP_MUL, wide, wide), count, axes, true);
    value root = graph_unary(c->g, OP_SQRT, build_with(c, OP_ADD, squares, epsilon));
    n.inverse = graph_unary(c->g, OP_RECIP, root);
    n.y = graph_cast(c->g, build_both(c, OP_MUL, wide, n.inverse), type);
    return n;
}

static value scaled(struct call *c, value y, value scale)
{
    return build_both(c, OP_MUL, graph_cast(c->g, y, call_type(c, scale)), scale);
}

/* SimplifiedLayerNormalization: x / sqrt(mean of squares + epsilon) * scale, over the axes from `axis` on */
void lower_contrib_simplifiednorm(struct call *c)
{
    value x = call_use(c, 0);
    uint32_t first = call_axis(c, attribute_int(c, "axis", -1), call_rank(c, x));
    struct normed n = contrib_normalize(c, x, first, attribute_real(c, "epsilon", 1e-5), false);
    call_set(c, 0, scaled(c, n.y, call_use(c, 1)));
    call_set(c, 1, n.inverse);
}

/* input + skip (+ bias), normalised. Argument: 0 LayerNormalization (gamma, beta, bias), 1 the simplified one (gamma, bias). Skip may lack
 * the batch or have a batch of one. */
void lower_contrib_skipnorm(struct call *c)
{
    bool centred = c->argument == 0;
    uint32_t bias = centred ? 4 : 3;
    value x = call_use(c, 0);
    dim shape[MAX_RANK];
    uint32_t rank = call_rank(c, x);
    dims_copy(shape, call_shape(c, x), rank);
    value sum = build_both(c, OP_ADD, x, call_use(c, 1));
    if (call_has(c, bias))
        sum = build_both(c, OP_ADD, sum, call_use(c, bias));
    if (call_rank(c, sum) != rank || rank == 0)
        call_fail(c, "its skip has more axes than its input");
    struct normed n = contrib_normalize(c, sum, rank - 1, attribute_real(c, "epsilon", 1e-12), centred);
    value y = scaled(c, n.y, call_use(c, 2));
    if (centred && call_has(c, 3))
        y = build_both(c, OP_ADD, y, call_use(c, 3));
    call_set(c, 0, y);
    if (centred)
        call_set(c, 1, n.mean);
    call_set(c, 2, n.inverse);
    call_set(c, 3, sum);
}

/* Rows of a table, along its first axis; negative indices count from the end nowhere in this operator. */
static value rows_of(struct call *c, uint32_t table, value index)
{
    return graph_gather(c->g, call_use(c, table), index, 0, 0);
}

/* word[ids] + position[positions] (+ segment[segments]), normalised. mask_index counts the ones of each row of the mask. */
void lower_contrib_embednorm(struct call *c)
{
    value ids = call_use(c, 0);
    if (call_rank(c, ids) != 2 || call_in(c, 2)->rank != 2 || call_in(c, 3)->rank != 2)
        call_fail(c, "needs ids and tables of two axes");
    dim batch = call_shape(c, ids)[0], sequence = call_shape(c, ids)[1];
    value sum = rows_of(c, 2, ids);
    value position = call_has(c, 8) ? rows_of(c, 3, call_use(c, 8))
                                    : build_slice_axis(c, call_use(c, 3), 0, call_const(c, 0), sequence);
    sum = build_both(c, OP_ADD, sum, position);
    if (call_has(c, 1) && call_has(c, 4))
        sum = build_both(c, OP_ADD, sum, rows_of(c, 4, call_use(c, 1)));
    struct normed n = contrib_normalize(c, sum, 2, attribute_real(c, "epsilon", 1e-12), true);
    call_set(c, 0, build_both(c, OP_ADD, scaled(c, n.y, call_use(c, 5)), call_use(c, 6)));
    call_set(c, 2, sum);
    if (!call_wants(c, 1))
        return;
    value index = build_full(c, DT_I32, 0, 1, &batch);
    if (call_has(c, 7)) {
        int32_t axis = 1;
        value one = build_both(c, OP_EQ, call_use_as(c, 7, DT_I32), build_real(c, DT_I32, 1));
        index = build_reduce(c, OP_REDUCE_SUM, graph_cast(c->g, one, DT_I32), 1, &axis, false);
    }
    call_set(c, 1, index);
}
