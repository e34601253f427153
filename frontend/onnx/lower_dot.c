/* frontend/onnx/lower_dot.c - products: MatMul, Gemm, Einsum, integer products. All become `dot`, operands transposed so that the contraction
 * comes last in both. */
#include "frontend/onnx/lower.h"

void lower_matmul(struct call *c)
{
    value a = call_use(c, 0), b = call_use(c, 1);
    if (call_type(c, a) != call_type(c, b))
        call_fail(c, "operand types differ: %s and %s", dtype_name(call_type(c, a)), dtype_name(call_type(c, b)));
    call_set(c, 0, build_matmul(c, a, b));
}

/* alpha * A' * B' + beta * C */
void lower_gemm(struct call *c)
{
    value a = call_use(c, 0), b = call_use(c, 1);
    double alpha = attribute_real(c, "alpha", 1), beta = attribute_real(c, "beta", 1);
    if (call_rank(c, a) != 2 || call_rank(c, b) != 2)
        call_fail(c, "needs matrices, has %u and %u axes", call_rank(c, a), call_rank(c, b));
    if (attribute_int(c, "transA", 0))
        a = build_swap_last(c, a);
    if (!attribute_int(c, "transB", 0))
        b = build_swap_last(c, b);
    call_agree(c, call_shape(c, a)[1], call_shape(c, b)[1], "inner dimensions");
    value y = graph_dot(c->g, a, b, 0, 1);
    if (alpha != 1)
        y = build_with(c, OP_MUL, y, alpha);
    if (call_has(c, 2)) {
        value bias = call_use(c, 2);
        if (beta != 1)
            bias = build_with(c, OP_MUL, bias, beta);
        y = build_both(c, OP_ADD, y, bias);
    }
    call_set(c, 0, y);
}

/* x minus its zero point, as i32; a zero point per row or column stands along `axis`. */
static value centred(struct call *c, uint32_t input, uint32_t zero_input, int axis_from_end)
{
    value x = call_use_as(c, input, DT_I32);
    if (!call_has(c, zero_input))
        return x;
    value zero = call_use_as(c, zero_input, DT_I32);
    if (call_rank(c, zero) == 1 && axis_from_end == 2)
        zero = build_unsqueeze(c, zero, 1);
    return build_both(c, OP_SUB, x, zero);
}

void lower_matmulinteger(struct call *c)
{
    value a = centred(c, 0, 2, 2), b = centred(c, 1, 3, 1);
    call_set(c, 0, build_matmul(c, a, b));
}

/* ---- Einsum ------------------------------------------------------------------------------------------------- */

/* A value whose axes have letters; the ellipsis has the letters 128 + distance from its end. */
struct term {
    value v;
    uint32_t rank;
    uint8_t letter[MAX_RANK];
};
enum { ELLIPSIS = 128 };

static bool holds(const struct term *t, uint8_t letter)
{
    return memchr(t->letter, letter, t->rank) != NULL;
}

static uint32_t place_of(const struct term *t, uint8_t letter)
{
    const uint8_t *at = memchr(t->letter, letter, t->rank);
    return (uint32_t)(at - t->letter);
}

/* Reads letters up to `end`; an ellipsis takes what `rank` leaves over (rank 0: `wide` axes). */
static void read_letters(struct call *c, const char *text, const char *end, uint32_t rank, uint32_t wide,
                         struct term *t)
{
    uint32_t letters = 0;
    for (const char *p = text; p < end; p++)
        letters += *p != ' ' && *p != '.';
    if (rank)
        wide = rank >= letters ? rank - letters : 0;
    for (const char *p = text; p < end; p++) {
        if (*p == ' ')
            continue;
        if (t->rank + wide > MAX_RANK)
            call_fail(c, "its equation has too many axes");
        if (*p == '.' && end - p >= 3 && p[1] == '.' && p[2] == '.') {
            for (uint32_t i = 0; i < wide; i++)
                t->letter[t->rank++] = (uint8_t)(ELLIPSIS + wide - 1 - i);
            p += 2;
        } else if ((*p >= 'a' && *p <= 'z') || (*p >= 'A' && *p <= 'Z')) {
            if (t->rank == MAX_RANK)
                call_fail(c, "its equation has too many axes");
            t->letter[t->rank++] = (uint8_t)*p;
        } else {
            call_fail(c, "its equation has '%c'", *p);
        }
    }
}

/* Takes the diagonal where a letter stands twice: a select of equal indices, and a sum over the second. */
static void take_diagonals(struct call *c, struct term *t)
{
    for (uint32_t k = 1; k < t->rank; k++) {
        uint32_t first = place_of(t, t->letter[k]);
        if (first == k)
            continue;
        const dim *shape = call_shape(c, t->v);
        call_agree(c, shape[first], shape[k], "extents of one letter");
        shape = call_shape(c, t->v);
        value row = graph_iota(c->g, DT_I64, t->rank, shape, first),
              column = graph_iota(c->g, DT_I64, t->rank, shape, k);
        value zero = build_full(c, call_type(c, t->v), 0, t->rank, shape);
        value on = graph_select(c->g, graph_binary(c->g, OP_EQ, row, column), t->v, zero);
        int32_t axis = (int32_t)k;
        t->v = graph_reduce(c->g, OP_REDUCE_SUM, on, 1, &axis);
        memmove(t->letter + k, t->letter + k + 1, t->rank - k - 1);
        t->rank--;
        k--;
    }
}

static void transpose_term(struct call *c, struct term *t, const uint8_t *order)
{
    int32_t permutation[MAX_RANK];
    for (uint32_t k = 0; k < t->rank; k++)
        permutation[k] = (int32_t)place_of(t, order[k]);
    t->v = graph_transpose(c->g, t->v, permutation);
    memcpy(t->letter, order, t->rank);
}

/* Sums away the letters that `kept` does not have. */
static void sum_others(struct call *c, struct term *t, const struct term *a, const struct term *b)
{
    int32_t axes[MAX_RANK];
    uint32_t count = 0, rank = 0;
    for (uint32_t k = 0; k < t->rank; k++)
        if (!holds(a, t->letter[k]) && !(b && holds(b, t->letter[k])))
            axes[count++] = (int32_t)k;
    if (count == 0)
        return;
    t->v = graph_reduce(c->g, OP_REDUCE_SUM, t->v, count, axes);
    for (uint32_t k = 0, n = 0; k < t->rank; k++) {
        if (n < count && (uint32_t)axes[n] == k)
            n++;
        else
            t->letter[rank++] = t->letter[k];
    }
    t->rank = rank;
}

/* Letters in the order batch, own, contracted. */
static void order_letters(const struct term *t, const struct term *other, const struct term *kept, uint8_t *order,
                          uint32_t *batch, uint32_t *contracted)
{
    uint32_t n = 0;
    *batch = *contracted = 0;
    for (int turn = 0; turn < 3; turn++)
        for (uint32_t k = 0; k < t->rank; k++) {
            uint8_t x = t->letter[k];
            int group = !holds(other, x) ? 1 : holds(kept, x) ? 0 : 2;
            if (group != turn)
                continue;
            order[n++] = x;
            *batch += group == 0;
            *contracted += group == 2;
        }
}

/* Broadcasts extents of 1 of shared letters (ellipses may) and takes the rest to be equal. */
static void agree_letters(struct call *c, struct term *a, struct term *b)
{
    dim sa[MAX_RANK], sb[MAX_RANK];
    int32_t axes[MAX_RANK];
    dims_copy(sa, call_shape(c, a->v), a->rank);
    dims_copy(sb, call_shape(c, b->v), b->rank);
    for (uint32_t k = 0; k < a->rank; k++) {
        if (!holds(b, a->letter[k]))
            continue;
        uint32_t other = place_of(b, a->letter[k]);
        if (dim_is(c->t, sa[k], 1))
            sa[k] = sb[other];
        else if (dim_is(c->t, sb[other], 1))
            sb[other] = sa[k];
        else
            sa[k] = sb[other] = call_agree(c, sa[k], sb[other], "extents of one letter");
    }
    for (uint32_t k = 0; k < MAX_RANK; k++)
        axes[k] = (int32_t)k;
    if (!dims_same(sa, call_shape(c, a->v), a->rank))
        a->v = graph_broadcast(c->g, a->v, a->rank, sa, axes);
    if (!dims_same(sb, call_shape(c, b->v), b->rank))
        b->v = graph_broadcast(c->g, b->v, b->rank, sb, axes);
}

/* a and b into one term that keeps the letters of `kept`. */
static void contract(struct call *c, struct term *a, struct term *b, const struct term *kept)
{
    uint8_t order_a[MAX_RANK], order_b[MAX_RANK], batch_order[MAX_RANK];
    uint32_t batch = 0, contracted = 0;
    struct term both = *kept;
    sum_others(c, a, kept, b);
    sum_others(c, b, kept, a);
    agree_letters(c, a, b);
    order_letters(a, b, kept, order_a, &batch, &contracted);
    memcpy(batch_order, order_a, batch);
    order_letters(b, a, kept, order_b, &batch, &contracted);
    memcpy(order_b, batch_order, batch); /* in a's order, here and below */
    memcpy(order_b + b->rank - contracted, order_a + a->rank - contracted, contracted);
    if (a->rank + b->rank - batch - 2 * contracted > MAX_RANK)
        call_unsupported(c, "a product of more than %d axes", MAX_RANK);
    transpose_term(c, a, order_a);
    transpose_term(c, b, order_b);
    both.v = contracted ? graph_dot(c->g, a->v, b->v, batch, contracted) : 0;
    both.rank = a->rank + b->rank - batch - 2 * contracted;
    memcpy(both.letter, order_a, a->rank - contracted);
    memcpy(both.letter + a->rank - contracted, order_b + batch, b->rank - batch - contracted);
    if (!contracted) { /* an outer product: contract over a new axis of one */
        value x = build_unsqueeze(c, a->v, a->rank), y = build_unsqueeze(c, b->v, b->rank);
        both.v = graph_dot(c->g, x, y, batch, 1);
    }
    *a = both;
}

/* Without "->": the letters that occur once, in alphabetic order, after the ellipsis. */
static void implied_output(const struct term *terms, uint32_t count, uint32_t wide, struct term *out)
{
    for (uint32_t i = 0; i < wide; i++)
        out->letter[out->rank++] = (uint8_t)(ELLIPSIS + wide - 1 - i);
    for (uint8_t x = 'A'; x <= 'z'; x++) {
        uint32_t times = 0;
        for (uint32_t i = 0; i < count; i++)
            for (uint32_t k = 0; k < terms[i].rank; k++)
                times += terms[i].letter[k] == x;
        if (times == 1 && out->rank < MAX_RANK)
            out->letter[out->rank++] = x;
    }
}

void lower_einsum(struct call *c)
{
    const char *p = attribute_text(c, "equation", ""), *arrow = strstr(p, "->");
    const char *inputs_end = arrow ? arrow : p + strlen(p);
    struct term *terms = NEW_ARRAY(c->im->scratch, struct term, c->in_count + 1), out = {.v = 0};
    uint32_t wide = 0;
    for (uint32_t i = 0; i < c->in_count; i++) {
        const char *end = memchr(p, ',', (size_t)(inputs_end - p));
        struct term *t = &terms[i];
        end = end ? end : inputs_end;
        t->v = call_use(c, i);
        read_letters(c, p, end, call_rank(c, t->v), 0, t);
        if (t->rank != call_rank(c, t->v))
            call_fail(c, "its equation names %u axes of operand %u, which has %u", t->rank, i, call_rank(c, t->v));
        for (uint32_t k = 0; k < t->rank; k++)
            if (t->letter[k] >= ELLIPSIS && t->letter[k] - ELLIPSIS + 1u > wide)
                wide = t->letter[k] - ELLIPSIS + 1u;
        p = end < inputs_end ? end + 1 : end;
    }
    if (arrow)
        read_letters(c, arrow + 2, arrow + strlen(arrow), 0, wide, &out);
    else
        implied_output(terms, c->in_count, wide, &out);
    for (uint32_t i = 0; i < c->in_count; i++)
        take_diagonals(c, &terms[i]);
    for (uint32_t i = 1; i < c->in_count; i++) {
        struct term kept = out;
        for (uint32_t later = i + 1; later < c->in_count; later++)
            for (uint32_t k = 0; k < terms[later].rank; k++)
                if (!holds(&kept, terms[later].letter[k]) && kept.rank < MAX_RANK)
                    kept.letter[kept.rank++] = terms[later].letter[k];
        contract(c, &terms[0], &terms[i], &kept);
    }
    sum_others(c, &terms[0], &out, NULL);
    if (terms[0].rank != out.rank)
        call_fail(c, "its equation's result names axes that no operand has");
    for (uint32_t k = 0; k < out.rank; k++)
        if (!holds(&terms[0], out.letter[k]))
            call_fail(c, "its equation's result names axes that no operand has");
    transpose_term(c, &terms[0], out.letter);
    call_set(c, 0, terms[0].v);
}
