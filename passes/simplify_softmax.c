/* passes/simplify_softmax.c - a softmax over scores and one more element of each row, of which only what belongs to the scores is read.
 *
 *     p = softmax(concat(x, sink));  slice(p) of x's part      (either order; along any axis)
 *
 * is, without the longer rows, exp(x - top) / (sum(exp(x - top)) + exp(sink - top)) with top = max(max(x), sink). Exporters write attention sinks so, and often take
 * the maximum away once more before the softmax does: the second maximum is 0.
 *
 * Every value between the concat and the slice has two parts, one for each of the concat's operands: a pointwise operation's are those of its operands, and
 * a reduction along the axis is put together from its operand's. Start at rule_slice_of_softmax.
 */
#include "passes/simplify.h"

enum { MOST_PARTS = 200 }; /* asked for, for one slice */

struct cut {
    struct simplifier *s;
    uint32_t axis, asked;
    value whole; /* the concat */
};

static const struct node *node_of(const struct simplifier *s, value v)
{
    return graph_node(s->out, v);
}

static value part_of(struct cut *c, value v, uint32_t which);

/* Does a broadcast spread its operand along the axis? Its other axes are in their order then. */
static bool spreads(const struct cut *c, const struct node *n)
{
    if (n->op != OP_BROADCAST) {
        return false;
    }
    for (uint32_t i = 0; i < n->attribute.list_count; i++) {
        if (n->attribute.list[i] == (int32_t)c->axis) {
            return false;
        }
    }
    return true;
}

static bool reduces(const struct cut *c, const struct node *n, op o)
{
    return n->op == o && n->attribute.list_count == 1 && n->attribute.list[0] == (int32_t)c->axis;
}

/* x of x - max(x) along the axis; 0: it is something else. */
static value without_maximum(const struct cut *c, value v)
{
    const struct node *n = node_of(c->s, v);
    const struct node *b = n->op == OP_SUB ? node_of(c->s, n->operand[1]) : n;
    if (n->op != OP_SUB || !spreads(c, b)) {
        return 0;
    }
    const struct node *top = node_of(c->s, b->operand[0]);
    return reduces(c, top, OP_REDUCE_MAX) && top->operand[0] == n->operand[0] ? n->operand[0] : 0;
}

/* v, or x where v is x - max(x) and x, or what it is cast from, has had its maximum taken away before: then that of x is 0, or x has NaN in every sum of it. */
static value once(const struct cut *c, value v)
{
    value x = without_maximum(c, v), from = x;
    while (x && node_of(c->s, from)->op == OP_CAST) {
        from = node_of(c->s, from)->operand[0];
    }
    return x && without_maximum(c, from) ? x : v;
}

/* A value that lacks the axis, as the softmax spreads it: with its reductions put together from parts. 0: a part cannot be had. */
static value row_of(struct cut *c, value v)
{
    const struct node *n = node_of(c->s, v);
    bool sum = reduces(c, n, OP_REDUCE_SUM);
    if (!sum && !reduces(c, n, OP_REDUCE_MAX)) {
        if (n->op != OP_RECIP && n->op != OP_CAST) {
            return v;
        }
        struct node again = *n;
        again.operand = (value[]){row_of(c, n->operand[0])};
        return again.operand[0] ? emit(c->s, &again) : 0;
    }
    value parts[2] = {0};
    for (uint32_t i = 0; i < 2; i++) {
        struct node r = *n;
        value part = part_of(c, n->operand[0], i);
        r.operand = &part;
        parts[i] = part ? emit(c->s, &r) : 0;
    }
    struct node both = {.op = sum ? OP_ADD : OP_MAX,
                        .dtype = n->dtype,
                        .rank = n->rank,
                        .shape = n->shape,
                        .operand_count = 2,
                        .operand = parts};
    return parts[0] && parts[1] ? emit(c->s, &both) : 0;
}

static value part_of(struct cut *c, value v, uint32_t which)
{
    struct simplifier *s = c->s;
    const struct node *n = node_of(s, v);
    dim shape[MAX_RANK];
    value operand[3];
    if (c->asked++ > MOST_PARTS) {
        return 0;
    }
    if (n->op == OP_CONCAT) {
        return v == c->whole ? n->operand[which] : 0;
    }
    struct node part = *n;
    part.operand = operand;
    if (spreads(c, n)) {
        operand[0] = row_of(c, n->operand[0]);
    } else if (op_info(n->op)->class != CLASS_POINTWISE || n->op == OP_COUNT_ONCE || n->operand_count > 3) {
        return 0;
    } else if (n->op == OP_EXP) {
        operand[0] = part_of(c, once(c, n->operand[0]), which);
    } else {
        for (uint32_t i = 0; i < n->operand_count; i++) {
            operand[i] = part_of(c, n->operand[i], which);
        }
    }
    for (uint32_t i = 0; i < part.operand_count; i++) {
        if (!operand[i]) {
            return 0;
        }
    }
    for (uint32_t i = 0; i < n->rank; i++) {
        shape[i] = n->shape[i];
    }
    shape[c->axis] = node_of(s, node_of(s, c->whole)->operand[which])->shape[c->axis];
    part.shape = shape;
    return emit(s, &part);
}

/* Is v, but for casts, e / sum(e) with e = exp(..)? */
static bool is_softmax(const struct cut *c, value v)
{
    const struct node *n = node_of(c->s, v);
    while (n->op == OP_CAST) {
        n = node_of(c->s, n->operand[0]);
    }
    for (uint32_t i = 0; i < 2 && (n->op == OP_MUL || (n->op == OP_DIV && i == 0)); i++) {
        const struct node *b = node_of(c->s, n->operand[1 - i]);
        if (!spreads(c, b)) {
            continue;
        }
        const struct node *sum = node_of(c->s, b->operand[0]);
        sum = n->op == OP_MUL && sum->op == OP_RECIP ? node_of(c->s, sum->operand[0]) : sum;
        if (reduces(c, sum, OP_REDUCE_SUM) && sum->operand[0] == n->operand[i]) {
            return node_of(c->s, n->operand[i])->op == OP_EXP;
        }
    }
    return false;
}

/* The only axis of which a slice takes not all; the rank: there is none, or there are several. */
static uint32_t sliced_axis(const struct simplifier *s, const struct node *n)
{
    const struct node *from = node_of(s, n->operand[0]);
    uint32_t axis = n->rank, count = 0;
    for (uint32_t i = 0; i < n->rank; i++) {
        if (n->shape[i] != from->shape[i]) {
            axis = i;
            count++;
        }
    }
    return count == 1 && n->attribute.list[axis] == 1 ? axis : n->rank;
}

/* The concat of two along the axis that v is computed from, each element from its own; 0: none. */
static value find_whole(const struct cut *c, value v)
{
    for (int i = 0; i < MOST_PARTS; i++) {
        const struct node *n = node_of(c->s, v);
        if (n->op == OP_CONCAT && n->attribute.axis == (int32_t)c->axis && n->operand_count == 2) {
            return v;
        }
        if (op_info(n->op)->class != CLASS_POINTWISE) {
            return 0;
        }
        v = n->operand[n->operand_count > 1 && spreads(c, node_of(c->s, n->operand[0]))];
    }
    return 0;
}

value rule_slice_of_softmax(struct simplifier *s, const struct node *n)
{
    struct cut c = {.s = s, .axis = sliced_axis(s, n)};
    if (c.axis == n->rank || !is_softmax(&c, n->operand[0])) {
        return 0;
    }
    c.whole = find_whole(&c, n->operand[0]);
    for (uint32_t i = 0; i < 2 && c.whole; i++) {
        const struct node *whole = node_of(s, c.whole), *kept = node_of(s, whole->operand[i]);
        const struct node *other = node_of(s, whole->operand[1 - i]);
        dim before = i == 0 ? dim_const(s->out->dims, 0) : other->shape[c.axis];
        if (dim_is(s->out->dims, other->shape[c.axis], 1) && kept->shape[c.axis] == n->shape[c.axis] &&
            n->attribute.dims[c.axis] == before) {
            return part_of(&c, n->operand[0], i);
        }
    }
    return 0;
}
