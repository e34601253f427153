/* frontend/onnx/lower_loss.c - losses over classes: SoftmaxCrossEntropyLoss, NegativeLogLikelihoodLoss.
 *
 * Both are one term per row, set to 0 where the label is ignore_index, times the class's weight, and reduced. The mean is over the weights.
 */
#include "frontend/onnx/lower.h"

struct labels {
    value label;   /* [n, d..], no label out of range where it is ignored */
    value ignored; /* bool, 0: none */
    value weight;  /* per row, 0: all 1 */
};

static struct labels read_labels(struct call *c, uint32_t input, uint32_t weights, dtype type)
{
    struct labels l = {.label = call_use(c, input)};
    const Onnx__AttributeProto *ignore = attribute(c, "ignore_index");
    if (ignore) {
        value index = graph_scalar_i64(c->g, call_type(c, l.label), ignore->i);
        l.ignored = build_both(c, OP_EQ, l.label, index);
        l.label = build_choose(c, l.ignored, graph_scalar_i64(c->g, call_type(c, l.label), 0), l.label);
    }
    if (call_has(c, weights))
        l.weight = graph_gather(c->g, call_use_as(c, weights, type), l.label, 0, 0);
    else if (l.ignored)
        l.weight = build_full(c, type, 1, call_rank(c, l.label), call_shape(c, l.label));
    if (l.ignored)
        l.weight = build_choose(c, l.ignored, build_real(c, type, 0), l.weight);
    return l;
}

static value all_axes(struct call *c, op o, value v, bool mean)
{
    int32_t axes[MAX_RANK];
    uint32_t rank = call_rank(c, v);
    for (uint32_t k = 0; k < rank; k++)
        axes[k] = (int32_t)k;
    return mean ? build_mean(c, v, rank, axes, false) : build_reduce(c, o, v, rank, axes, false);
}

static value reduce_loss(struct call *c, value loss, const struct labels *l)
{
    const char *reduction = attribute_text(c, "reduction", "mean");
    dtype type = call_type(c, loss);
    if (l->ignored) /* whatever stands there, NaN too */
        loss = build_choose(c, l->ignored, build_real(c, type, 0), loss);
    if (call_has(c, 2))
        loss = graph_binary(c->g, OP_MUL, loss, l->weight);
    if (strcmp(reduction, "none") == 0)
        return loss;
    if (strcmp(reduction, "sum") == 0)
        return all_axes(c, OP_REDUCE_SUM, loss, false);
    if (strcmp(reduction, "mean") != 0)
        call_fail(c, "unknown reduction '%s'", reduction);
    if (!l->weight)
        return all_axes(c, OP_REDUCE_SUM, loss, true);
    value sum = all_axes(c, OP_REDUCE_SUM, loss, false), weights = all_axes(c, OP_REDUCE_SUM, l->weight, false);
    return graph_binary(c->g, OP_DIV, sum, weights);
}

/* Scores [n, classes, d..] with the classes last, and labels [n, d..] of the same extents. */
static value classes_last(struct call *c)
{
    uint32_t rank = call_in(c, 0)->rank;
    if (rank < 2 || call_in(c, 1)->rank != rank - 1)
        call_fail(c, "scores have %u axes and labels %u", rank, call_in(c, 1)->rank);
    for (uint32_t k = 0; k + 1 < rank; k++)
        call_agree(c, call_in(c, 0)->shape[k ? k + 1 : 0], call_in(c, 1)->shape[k], "extents of scores and labels");
    return build_move_axis(c, call_use(c, 0), 1, rank - 1);
}

void lower_crossentropy(struct call *c)
{
    value rows = classes_last(c);
    dtype type = call_type(c, rows);
    struct labels l = read_labels(c, 1, 2, type);
    call_set(c, 0, reduce_loss(c, graph_cross_entropy(c->g, rows, l.label), &l));
    if (call_wants(c, 1))
        call_set(c, 1, build_softmax(c, call_use(c, 0), 1, 1, true));
}

void lower_nll(struct call *c)
{
    value rows = classes_last(c);
    uint32_t last = call_rank(c, rows) - 1;
    struct labels l = read_labels(c, 1, 2, call_type(c, rows));
    value index = build_unsqueeze(c, l.label, last);
    value chosen = build_squeeze(c, graph_gather(c->g, rows, index, last, last), last);
    call_set(c, 0, reduce_loss(c, graph_unary(c->g, OP_NEG, chosen), &l));
}
