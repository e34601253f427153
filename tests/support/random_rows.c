/* tests/support/random_rows.c - one row of ops.def on a value, of any kind, with what it needs beside it; the result is a float of the same number of axes.
 *
 * Each kind is a function in `kinds`; x is [rows.., k]. Start with random_row.
 */
#include "tests/support/random_graph.h"

#include <math.h>

/* Lists and kinds have lengths without a common factor but for those of few: all pairs have their turn. */
static const op float_rows[] = {OP_ABS,  OP_EXP,   OP_LOG,   OP_LOG1P, OP_EXPM1, OP_SQRT, OP_RECIP,
                                OP_SIN,  OP_COS,   OP_TAN,   OP_ASIN,  OP_ACOS,  OP_ATAN, OP_SINH,
                                OP_COSH, OP_ASINH, OP_ACOSH, OP_ATANH, OP_ERF},
                tame_rows[] = {OP_ABS, OP_ATAN, OP_ERF, OP_TANH}, /* that make no small difference large */
    exact_rows[] = {OP_SIGN, OP_FLOOR, OP_CEIL, OP_ROUND},
                bit_rows[] = {OP_AND, OP_OR, OP_XOR, OP_SHL, OP_SHR, OP_MOD, OP_DIV},
                compare_rows[] = {OP_EQ, OP_LT, OP_LE},
                reduce_rows[] = {OP_REDUCE_SUM, OP_REDUCE_PROD, OP_REDUCE_MAX, OP_REDUCE_MIN};
#define NEXT(r, list) ((list)[(r)->turn % (sizeof(list) / sizeof *(list))])

static const struct node *at(const struct random_graph *r, value v)
{
    return graph_node(r->g, v);
}

/* A number in x's shape and type. */
static value like(struct random_graph *r, value x, double number)
{
    value scalar = dtype_is_float(at(r, x)->dtype) ? graph_scalar_f64(r->g, at(r, x)->dtype, number)
                                                   : graph_scalar_i64(r->g, at(r, x)->dtype, (int64_t)number);
    return graph_broadcast_to(r->g, scalar, at(r, x)->rank, at(r, x)->shape);
}

/* What lacks x's last axis, in x's shape. */
static value spread(struct random_graph *r, value v, value x)
{
    int32_t keep[MAX_RANK];
    for (int32_t k = 0; k < (int32_t)at(r, v)->rank; k++)
        keep[k] = k;
    return graph_broadcast(r->g, v, at(r, x)->rank, at(r, x)->shape, keep);
}

static value indices(struct random_graph *r, int64_t count, int64_t below)
{
    int64_t *at_index = NEW_ARRAY(r->arena, int64_t, count);
    for (int64_t i = 0; i < count; i++)
        at_index[i] = (i * 3 + 1) % below;
    return graph_constant(r->g, DT_I64, 1, &count, at_index);
}

static value one_operand(struct random_graph *r, value x, bool exact, int64_t k)
{
    (void)k;
    r->bound = HUGE_VAL;
    if (exact && random_pick(r, 4) == 0) {
        r->bound = 1;
        return graph_unary(r->g, NEXT(r, exact_rows), x);
    }
    return graph_unary(r->g, exact ? NEXT(r, float_rows) : NEXT(r, tame_rows), x);
}

static value numbers_of_bits(struct random_graph *r, value x, bool exact, int64_t k)
{
    (void)k;
    if (!exact)
        return 0;
    value whole = graph_cast(r->g, x, DT_I32), other = like(r, whole, 1 + random_pick(r, 3));
    r->bound = HUGE_VAL;
    if (random_pick(r, 5) == 0) {
        value bits = graph_add(r->g, OP_BITCAST, DT_I32, 0, NULL, 1, &x, NULL);
        return graph_add(r->g, OP_BITCAST, DT_F32, 0, NULL, 1, &bits, NULL);
    }
    value y =
        random_pick(r, 6) ? graph_binary(r->g, NEXT(r, bit_rows), whole, other) : graph_unary(r->g, OP_NOT, whole);
    return graph_cast(r->g, y, DT_F32);
}

static value chosen(struct random_graph *r, value x, bool exact, int64_t k)
{
    (void)k;
    value y = like(r, x, random_pick(r, 3)), what = 0;
    uint32_t kind = random_pick(r, exact ? 4 : 2);
    if (kind < 2) {
        value v = graph_unary(r->g, random_pick(r, 2) ? OP_NEG : OP_EXP, x);
        struct attribute both = {.mode = 3};
        what = kind ? graph_unary(r->g, OP_ISNAN, v) : graph_add(r->g, OP_ISINF, DT_BOOL, 0, NULL, 1, &v, &both);
    } else {
        what = graph_binary(r->g, NEXT(r, compare_rows), x, y);
    }
    r->bound = 1e9;
    return random_pick(r, 2) ? graph_select(r->g, what, x, y) : graph_cast(r->g, what, DT_F32);
}

static value two_operands(struct random_graph *r, value x, bool exact, int64_t k)
{
    static const op rows[] = {OP_SUB, OP_MAX, OP_MIN, OP_POW, OP_DIV};
    (void)exact;
    (void)k;
    r->bound = HUGE_VAL;
    return graph_binary(r->g, NEXT(r, rows), x, like(r, x, 2));
}

static value reduced(struct random_graph *r, value x, bool exact, int64_t k)
{
    const int32_t last = (int32_t)at(r, x)->rank - 1;
    (void)exact;
    (void)k;
    r->bound = HUGE_VAL;
    return spread(r, graph_reduce(r->g, NEXT(r, reduce_rows), x, 1, &last), x);
}

static value gathered(struct random_graph *r, value x, bool exact, int64_t k)
{
    uint32_t last = at(r, x)->rank - 1;
    (void)exact;
    value at_index = indices(r, 2, k);
    if (random_pick(r, 2))
        return graph_gather(r->g, x, at_index, last, 0);
    r->bound *= 2;
    return graph_scatter(r->g, x, at_index, graph_gather(r->g, x, at_index, last, 0), last, 0,
                         random_pick(r, 2) ? SCATTER_SET : SCATTER_ADD);
}

static value moved(struct random_graph *r, value x, bool exact, int64_t k)
{
    struct graph *g = r->g;
    uint32_t rank = at(r, x)->rank, last = rank - 1;
    dim before[MAX_RANK], shape[MAX_RANK];
    int32_t axis = (int32_t)last, turn[MAX_RANK];
    (void)exact;
    for (uint32_t i = 0; i < rank; i++) {
        before[i] = dim_const(g->dims, i == last);
        shape[i] = i == last ? dim_const(g->dims, k + 2) : at(r, x)->shape[i];
        turn[i] = (int32_t)(rank - 1 - i);
    }
    switch (random_pick(r, 4)) {
    case 0:
        return graph_pad(g, x, graph_scalar_f64(g, DT_F32, 1), before, shape);
    case 1:
        return graph_reverse(g, x, 1, &axis);
    case 2:
        return graph_window(g, x, last, 2, 1, 1);
    default:
        return graph_transpose(g, graph_unary(g, OP_NEG, graph_transpose(g, x, turn)), turn);
    }
}

static value along(struct random_graph *r, value x, bool exact, int64_t k)
{
    uint32_t last = at(r, x)->rank - 1;
    r->bound *= (double)k;
    if (!exact || random_pick(r, 2))
        return graph_cumsum(r->g, x, last, random_pick(r, 2), random_pick(r, 2));
    r->bound = (double)k;
    return graph_cast(r->g, graph_topk(r->g, x, last, dim_const(r->g->dims, 2), random_pick(r, 2)), DT_F32);
}

static value positions(struct random_graph *r, value x, bool exact, int64_t k)
{
    struct graph *g = r->g;
    const struct node *n = at(r, x);
    (void)exact;
    (void)k;
    r->bound = HUGE_VAL;
    if (random_pick(r, 2))
        return graph_binary(g, OP_ADD, x, graph_iota(g, DT_F32, n->rank, n->shape, random_pick(r, n->rank)));
    value rows = graph_cast(g, graph_dim(g, n->shape[0]), DT_F32);
    return graph_binary(g, OP_MUL, x, graph_broadcast_to(g, rows, n->rank, n->shape));
}

static value by_rows(struct random_graph *r, value x, bool exact, int64_t k)
{
    struct graph *g = r->g;
    (void)k;
    r->bound = HUGE_VAL;
    if (!exact || random_pick(r, 2)) /* a loss of infinite logits has no meaning */
        return spread(r, graph_dot(g, x, x, r->rows, 1), x);
    value labels = graph_input(g, "labels", DT_I64, r->rows, at(r, x)->shape);
    return spread(r, graph_cross_entropy(g, x, labels), x);
}

value random_row(struct random_graph *r, uint32_t i)
{
    static value (*const kinds[])(struct random_graph * r, value x, bool exact, int64_t k) = {
        one_operand,     one_operand, one_operand,  one_operand, one_operand, numbers_of_bits,
        numbers_of_bits, chosen,      two_operands, reduced,     reduced,     gathered,
        moved,           moved,       along,        positions,   by_rows};
    int64_t k = random_last_extent(r, r->made[i]);
    r->bound = r->most[i];
    return k < 2 ? 0 : NEXT(r, kinds)(r, r->made[i], random_is_exact(r, i), k);
}
