/* passes/simplify_rules.c - the rewrite rules, as one table: {op, rule, name}.
 *
 * A rule sees a node that is about to be emitted (its operands are simplified already) and answers with a value that equals it, or 0. Floats:
 * only what is exact for every input, NaN and infinities included (x + 0 may lose the sign of a zero).
 */
#include "passes/simplify.h"

typedef value rule(struct simplifier *s, const struct node *n);

static const struct node *operand(const struct simplifier *s, const struct node *n, uint32_t i)
{
    return graph_node(s->out, n->operand[i]);
}

static bool same_shape(const struct node *a, const struct node *b)
{
    return a->rank == b->rank && (a->rank == 0 || memcmp(a->shape, b->shape, a->rank * sizeof *a->shape) == 0);
}

static value emit_one(struct simplifier *s, op o, const struct node *shaped, value v, const struct attribute *a)
{
    struct node n = {.op = o,
                     .dtype = shaped->dtype,
                     .rank = shaped->rank,
                     .shape = shaped->shape,
                     .operand_count = 1,
                     .operand = &v};
    if (a != NULL) {
        n.attribute = *a;
    }
    return emit(s, &n);
}

/* ---- layout chains ---- */

static value rule_same_shape(struct simplifier *s, const struct node *n)
{ /* reshape, broadcast to what it is */
    return same_shape(operand(s, n, 0), n) ? n->operand[0] : 0;
}

static value rule_reshape_of_reshape(struct simplifier *s, const struct node *n)
{
    const struct node *a = operand(s, n, 0);
    return a->op == OP_RESHAPE ? emit_one(s, OP_RESHAPE, n, a->operand[0], NULL) : 0;
}

static value rule_transpose(struct simplifier *s, const struct node *n)
{
    const struct node *a = operand(s, n, 0);
    int32_t list[MAX_RANK];
    bool identity = true, inner = a->op == OP_TRANSPOSE;
    for (uint32_t i = 0; i < a->rank; i++) {
        list[i] = inner ? a->attribute.list[n->attribute.list[i]] : n->attribute.list[i];
        identity = identity && list[i] == (int32_t)i;
    }
    value from = inner ? a->operand[0] : n->operand[0];
    if (identity) {
        return from;
    }
    struct attribute t = {.list = list, .list_count = a->rank};
    return inner ? emit_one(s, OP_TRANSPOSE, n, from, &t) : 0;
}

/* reshape that only adds or drops axes of extent 1: which axis of the result each axis of the operand is; false where it is more. */
static bool only_ones(const struct simplifier *s, const struct node *from, const struct node *to, int32_t *axis_of)
{
    uint32_t j = 0;
    for (uint32_t i = 0; i < from->rank; i++) {
        while (j < to->rank && to->shape[j] != from->shape[i] && dim_is(s->out->dims, to->shape[j], 1)) {
            j++;
        }
        if (j == to->rank || to->shape[j] != from->shape[i]) {
            return false;
        }
        axis_of[i] = (int32_t)j++;
    }
    for (; j < to->rank; j++) {
        if (!dim_is(s->out->dims, to->shape[j], 1)) {
            return false;
        }
    }
    return true;
}

static value rule_broadcast_of_layout(struct simplifier *s, const struct node *n)
{
    const struct node *a = operand(s, n, 0);
    int32_t map[MAX_RANK], list[MAX_RANK];
    if (a->op == OP_BROADCAST) {
        for (uint32_t i = 0; i < a->attribute.list_count; i++) {
            map[i] = a->attribute.list[i];
        }
    } else if (a->op != OP_RESHAPE || !only_ones(s, operand(s, a, 0), a, map)) {
        return 0;
    }
    const struct node *from = operand(s, a, 0);
    for (uint32_t i = 0; i < from->rank; i++) {
        list[i] = n->attribute.list[map[i]];
    }
    struct attribute b = {.list = list, .list_count = from->rank};
    return emit_one(s, OP_BROADCAST, n, a->operand[0], &b);
}

static value rule_slice_all(struct simplifier *s, const struct node *n)
{
    if (!same_shape(operand(s, n, 0), n)) {
        return 0;
    }
    for (uint32_t i = 0; i < n->rank; i++) {
        if (!dim_is(s->out->dims, n->attribute.dims[i], 0) || n->attribute.list[i] != 1) {
            return 0;
        }
    }
    return n->operand[0];
}

static value rule_slice_of_slice(struct simplifier *s, const struct node *n)
{
    const struct node *a = operand(s, n, 0);
    if (a->op != OP_SLICE) {
        return 0;
    }
    dim start[MAX_RANK];
    for (uint32_t i = 0; i < n->rank; i++) {
        if (a->attribute.list[i] != 1) {
            return 0;
        }
        start[i] = dim_add(s->out->dims, a->attribute.dims[i], n->attribute.dims[i]);
    }
    struct attribute c = n->attribute;
    c.dims = start;
    return emit_one(s, OP_SLICE, n, a->operand[0], &c);
}

/* Every s-th element of an axis of n*s: one of the s behind n. What is interleaved so (gate and up of each feature) lies on an axis of its own then. */
static value rule_slice_interleaved(struct simplifier *s, const struct node *n)
{
    struct dims *t = s->out->dims;
    const struct node *a = operand(s, n, 0);
    uint32_t axis = n->rank;
    int64_t extent, size, start;
    for (uint32_t i = 0; i < n->rank; i++) {
        axis = axis == n->rank && n->attribute.list[i] != 1 ? i : axis;
    }
    if (axis == n->rank || n->rank + 1 > MAX_RANK || !dim_is_const(t, a->shape[axis], &extent) ||
        !dim_is_const(t, n->shape[axis], &size) || !dim_is_const(t, n->attribute.dims[axis], &start) ||
        start >= n->attribute.list[axis] || size * n->attribute.list[axis] != extent) {
        return 0;
    }
    dim shape[MAX_RANK], first[MAX_RANK];
    int32_t step[MAX_RANK];
    for (uint32_t i = 0, k = 0; i < n->rank; i++, k++) {
        shape[k] = a->shape[i];
        first[k] = n->attribute.dims[i];
        step[k] = n->attribute.list[i];
        if (i == axis) {
            shape[k] = n->shape[axis];
            first[k] = dim_const(t, 0);
            step[k++] = 1;
            shape[k] = dim_const(t, n->attribute.list[axis]);
            first[k] = n->attribute.dims[axis];
            step[k] = 1;
        }
    }
    struct node split = {.dtype = n->dtype, .rank = n->rank + 1, .shape = shape}, part = split;
    value v = emit_one(s, OP_RESHAPE, &split, n->operand[0], NULL);
    dim taken[MAX_RANK];
    for (uint32_t i = 0; i < part.rank; i++) {
        taken[i] = i < axis        ? n->shape[i]
                   : i == axis     ? n->shape[axis]
                   : i == axis + 1 ? dim_const(t, 1)
                                   : n->shape[i - 1];
    }
    part.shape = taken;
    struct attribute c = {.list = step, .list_count = part.rank, .dims = first, .dims_count = part.rank};
    return emit_one(s, OP_RESHAPE, n, emit_one(s, OP_SLICE, &part, v, &c), NULL);
}

static value rule_concat_of_one(struct simplifier *s, const struct node *n)
{
    (void)s;
    return n->operand_count == 1 ? n->operand[0] : 0;
}

static value rule_reduce_of_ones(struct simplifier *s, const struct node *n)
{
    const struct node *a = operand(s, n, 0);
    dim shape[MAX_RANK];
    uint32_t rank = 0, l = 0;
    for (uint32_t i = 0; i < a->rank; i++) {
        if (l < n->attribute.list_count && n->attribute.list[l] == (int32_t)i) {
            if (!dim_is(s->out->dims, a->shape[i], 1)) {
                return 0;
            }
            l++;
        } else {
            shape[rank++] = a->shape[i];
        }
    }
    struct node r = {.dtype = a->dtype, .rank = rank, .shape = shape};
    return emit_one(s, OP_RESHAPE, &r, n->operand[0], NULL);
}

/* ---- pointwise ---- */

/* f(broadcast(a), broadcast(b)) = broadcast(f(a, b)) where they are spread alike: computes fewer elements. */
static value hoist_broadcast(struct simplifier *s, const struct node *n)
{
    const struct node *first = operand(s, n, 0);
    if (first->op != OP_BROADCAST) {
        return 0;
    }
    const struct node *from = operand(s, first, 0);
    value inner[3];
    for (uint32_t i = 0; i < n->operand_count; i++) {
        const struct node *b = operand(s, n, i);
        if (b->op != OP_BROADCAST || !same_shape(operand(s, b, 0), from) ||
            (from->rank > 0 &&
             memcmp(b->attribute.list, first->attribute.list, from->rank * sizeof *b->attribute.list) != 0)) {
            return 0;
        }
        inner[i] = b->operand[0];
    }
    struct node f = *n;
    f.rank = from->rank;
    f.shape = from->shape;
    f.operand = inner;
    struct attribute spread = first->attribute;
    return emit_one(s, OP_BROADCAST, n, emit(s, &f), &spread);
}

/* f(reshape(x)) = reshape(f(x)) where the reshape only adds or drops axes of extent 1: what follows sees through it. */
static value hoist_ones(struct simplifier *s, const struct node *n)
{
    const struct node *a = n->operand_count == 1 ? operand(s, n, 0) : NULL;
    int32_t map[MAX_RANK];
    if (a == NULL || a->op != OP_RESHAPE ||
        !(only_ones(s, operand(s, a, 0), a, map) || only_ones(s, a, operand(s, a, 0), map))) {
        return 0;
    }
    const struct node *from = operand(s, a, 0);
    value inner = a->operand[0];
    struct node f = *n;
    f.rank = from->rank;
    f.shape = from->shape;
    f.operand = &inner;
    return emit_one(s, OP_RESHAPE, n, emit(s, &f), NULL);
}

/* The one value that all elements of v have, as a constant node; NULL when that is not so. */
static const struct node *splat(const struct simplifier *s, value v)
{
    const struct node *n = graph_node(s->out, v);
    if (n->op == OP_BROADCAST) {
        n = operand(s, n, 0);
    }
    if (n->op != OP_CONSTANT || n->attribute.data_size < dtype_size(n->dtype)) {
        return NULL;
    }
    size_t size = dtype_size(n->dtype), count = n->attribute.data_size / size;
    for (size_t i = 1; i < count; i++) {
        if (memcmp(n->attribute.data, (const char *)n->attribute.data + i * size, size) != 0) {
            return NULL;
        }
    }
    return n;
}

static bool is_splat_of(const struct simplifier *s, value v, double x)
{
    const struct node *c = splat(s, v);
    return c != NULL && dtype_load_f64(c->dtype, c->attribute.data, 0) == x;
}

static value rule_add_zero(struct simplifier *s, const struct node *n)
{
    return is_splat_of(s, n->operand[1], 0)                      ? n->operand[0]
           : n->op == OP_ADD && is_splat_of(s, n->operand[0], 0) ? n->operand[1]
                                                                 : 0;
}

static value rule_mul_one(struct simplifier *s, const struct node *n)
{
    return is_splat_of(s, n->operand[1], 1)                      ? n->operand[0]
           : n->op == OP_MUL && is_splat_of(s, n->operand[0], 1) ? n->operand[1]
                                                                 : 0;
}

static value rule_pow(struct simplifier *s, const struct node *n)
{
    value x = n->operand[0];
    if (!dtype_is_float(n->dtype)) {
        return 0;
    }
    struct node f = *n;
    f.operand = (value[]){x, x};
    if (is_splat_of(s, n->operand[1], 1)) {
        return x;
    }
    if (is_splat_of(s, n->operand[1], 2)) {
        f.op = OP_MUL;
        return emit(s, &f);
    }
    if (is_splat_of(s, n->operand[1], 3)) {
        f.op = OP_MUL;
        f.operand = (value[]){emit(s, &f), x};
        return emit(s, &f);
    }
    f.operand_count = 1;
    if (is_splat_of(s, n->operand[1], -1)) {
        f.op = OP_RECIP;
        return emit(s, &f);
    }
    return 0;
}

static value rule_double_inverse(struct simplifier *s, const struct node *n)
{ /* neg, not */
    const struct node *a = operand(s, n, 0);
    return a->op == n->op ? a->operand[0] : 0;
}

static value rule_and_or(struct simplifier *s, const struct node *n)
{
    if (n->dtype != DT_BOOL) {
        return 0;
    }
    for (uint32_t i = 0; i < 2; i++) {
        const struct node *c = splat(s, n->operand[i]);
        if (c != NULL) {
            bool is = *(const uint8_t *)c->attribute.data != 0;
            return is == (n->op == OP_AND) ? n->operand[1 - i] : n->operand[i];
        }
    }
    return n->operand[0] == n->operand[1] ? n->operand[0] : 0;
}

static value rule_select(struct simplifier *s, const struct node *n)
{
    const struct node *c = splat(s, n->operand[0]);
    if (c != NULL) {
        return n->operand[*(const uint8_t *)c->attribute.data != 0 ? 1 : 2];
    }
    return n->operand[1] == n->operand[2] ? n->operand[1] : 0;
}

static value rule_cast(struct simplifier *s, const struct node *n)
{
    const struct node *a = operand(s, n, 0);
    if (a->dtype == n->dtype) {
        return n->operand[0];
    }
    if (a->op == OP_CAST && operand(s, a, 0)->dtype == DT_BOOL &&
        (dtype_is_int(a->dtype) || dtype_is_float(a->dtype))) {
        return emit_one(s, OP_CAST, n, a->operand[0], NULL); /* 0 and 1 are exact in every type */
    }
    return 0;
}

static const struct {
    op op;
    rule *apply;
    const char *name;
} rules[] = {
    {OP_RESHAPE, rule_same_shape, "reshape to its own shape"},
    {OP_RESHAPE, rule_reshape_of_reshape, "reshape of reshape"},
    {OP_TRANSPOSE, rule_transpose, "transpose of transpose"},
    {OP_BROADCAST, rule_same_shape, "broadcast to its own shape"},
    {OP_BROADCAST, rule_broadcast_of_layout, "broadcast of broadcast or of inserted ones"},
    {OP_SLICE, rule_slice_all, "slice of everything"},
    {OP_SLICE, rule_slice_of_slice, "slice of slice"},
    {OP_SLICE, rule_slice_interleaved, "slice of every s-th of n*s"},
    {OP_SLICE, rule_slice_of_softmax, "the scores' part of a softmax with one more element"},
    {OP_CONCAT, rule_concat_of_one, "concat of one"},
    {OP_REDUCE_SUM, rule_reduce_of_ones, "sum over extent 1"},
    {OP_REDUCE_PROD, rule_reduce_of_ones, "product over extent 1"},
    {OP_REDUCE_MAX, rule_reduce_of_ones, "max over extent 1"},
    {OP_REDUCE_MIN, rule_reduce_of_ones, "min over extent 1"},
    {OP_ADD, rule_add_zero, "x + 0"},
    {OP_SUB, rule_add_zero, "x - 0"},
    {OP_MUL, rule_mul_one, "x * 1"},
    {OP_DIV, rule_mul_one, "x / 1"},
    {OP_POW, rule_pow, "small powers"},
    {OP_NEG, rule_double_inverse, "negated twice"},
    {OP_NOT, rule_double_inverse, "inverted twice"},
    {OP_AND, rule_and_or, "and with a constant or itself"},
    {OP_OR, rule_and_or, "or with a constant or itself"},
    {OP_SELECT, rule_select, "select decided or of equals"},
    {OP_CAST, rule_cast, "cast to its own type, of a bool"},
    {OP_GATHER, rule_log_softmax_gather, "log-softmax at labels"},
};

value simplify_by_rule(struct simplifier *s, const struct node *n)
{
    for (size_t i = 0; i < sizeof rules / sizeof rules[0]; i++) {
        if (rules[i].op == n->op) {
            value v = rules[i].apply(s, n);
            if (v != 0) {
                return v;
            }
        }
    }
    if (op_info(n->op)->class != CLASS_POINTWISE || n->op == OP_COUNT_ONCE) {
        return 0;
    }
    value v = hoist_broadcast(s, n);
    return v != 0 ? v : hoist_ones(s, n);
}
