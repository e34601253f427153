/* passes/simplify_loss.c - finds a cross entropy that an exporter has written out.
 *
 *     d = x - max(x);  log_softmax = d - log(sum(exp(d)));  gather(log_softmax, labels) along the last axis, row by row
 *
 * is -cross_entropy(x, labels). With it the full log-softmax is never made, and a vocabulary that is split stays split.
 */
#include "passes/simplify.h"

static const struct node *node_of(const struct simplifier *s, value v)
{
    return graph_node(s->out, v);
}

/* broadcast(r) or broadcast(reshape(r)) of a value r that lacks x's last axis, spread over it: gives r, or 0. */
static value spread_over_last(const struct simplifier *s, value v, const struct node *x)
{
    const struct node *b = node_of(s, v);
    if (b->op != OP_BROADCAST || b->rank != x->rank) {
        return 0;
    }
    const struct node *r = node_of(s, b->operand[0]);
    if (r->rank + 1 != x->rank) {
        return 0;
    }
    for (uint32_t i = 0; i < r->rank; i++) {
        if (b->attribute.list[i] != (int32_t)i) {
            return 0;
        }
    }
    return b->operand[0];
}

static value operand_if(const struct simplifier *s, value v, op o)
{
    const struct node *n = node_of(s, v);
    return v != 0 && n->op == o ? n->operand[0] : 0;
}

static bool reduces_last(const struct node *n, op o, const struct node *x)
{
    return n->op == o && n->attribute.list_count == 1 && n->attribute.list[0] == (int32_t)x->rank - 1;
}

/* The logits x of which v is the log-softmax over the last axis, or 0. */
static value log_softmax_of(const struct simplifier *s, value v)
{
    const struct node *n = node_of(s, v);
    if (n->op != OP_SUB || n->rank == 0) {
        return 0;
    }
    value d = n->operand[0];
    value log_sum = spread_over_last(s, n->operand[1], n);
    value sum = log_sum == 0 ? 0 : operand_if(s, log_sum, OP_LOG);
    if (sum == 0 || !reduces_last(node_of(s, sum), OP_REDUCE_SUM, n) ||
        operand_if(s, node_of(s, sum)->operand[0], OP_EXP) != d) {
        return 0;
    }
    const struct node *shifted = node_of(s, d);
    value top = shifted->op == OP_SUB ? spread_over_last(s, shifted->operand[1], n) : 0;
    if (top == 0 || !reduces_last(node_of(s, top), OP_REDUCE_MAX, n) ||
        node_of(s, top)->operand[0] != shifted->operand[0]) {
        return 0;
    }
    return shifted->operand[0];
}

value rule_log_softmax_gather(struct simplifier *s, const struct node *n)
{
    const struct node *table = node_of(s, n->operand[0]), *labels = node_of(s, n->operand[1]);
    if (n->attribute.mode != GATHER_CHECK || table->rank == 0 || n->attribute.axis != (int32_t)table->rank - 1 ||
        n->attribute.nbatch != n->attribute.axis) {
        return 0;
    }
    uint32_t rows = table->rank - 1;
    bool one = labels->rank == rows + 1 && dim_is(s->out->dims, labels->shape[rows], 1);
    value x = labels->rank == rows || one ? log_softmax_of(s, n->operand[0]) : 0;
    if (x == 0) {
        return 0;
    }
    struct node flat = {.op = OP_RESHAPE,
                        .dtype = labels->dtype,
                        .rank = rows,
                        .shape = labels->shape,
                        .operand_count = 1,
                        .operand = &n->operand[1]};
    value ids = one ? emit(s, &flat) : n->operand[1];
    struct node loss = {.op = OP_CROSS_ENTROPY, .operand_count = 2, .operand = (value[]){x, ids}};
    value l = emit(s, &loss);
    struct node negative = {.op = OP_NEG, .operand_count = 1, .operand = &l};
    value r = emit(s, &negative);
    if (!one) {
        return r;
    }
    struct node shaped = {.op = OP_RESHAPE,
                          .dtype = table->dtype,
                          .rank = rows + 1,
                          .shape = node_of(s, n->operand[1])->shape,
                          .operand_count = 1,
                          .operand = &r};
    return emit(s, &shaped);
}
