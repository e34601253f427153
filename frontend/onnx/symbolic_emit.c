/* frontend/onnx/symbolic_emit.c - a content as core operations: constants, iota, dims, and arithmetic on them.
 *
 * Needed only where a value's numbers are used (a mask that is added, positions that are multiplied); a shape never comes here.
 * Formulas that differ along an enumerated axis become one expression where they are affine in its index (then the axis gets an
 * iota as if it were symbolic), a constant where they are constants, and a concatenation otherwise. Start reading at content_emit.
 */
#include "frontend/onnx/symbolic.h"

struct emitter {
    struct symbolic *s;
    struct graph *g;
    dtype type; /* of the result, and of the values that a select chooses from */
    uint32_t rank;
    const dim *shape;
    int64_t extent[MAX_RANK]; /* of enumerated axes; 1 for the others */
    bool enumerated[MAX_RANK];
};

static value spread(const struct emitter *e, value scalar)
{
    return graph_broadcast_to(e->g, scalar, e->rank, e->shape);
}

/* ---- one formula over all coordinates ----------------------------------------------------------------------- */

static value emit_dim(const struct emitter *e, dim d);

static value emit_plain_dim(const struct emitter *e, dim d)
{
    int64_t x = 0;
    if (dim_is_const(e->s->dims, d, &x))
        return spread(e, graph_scalar_i64(e->g, DT_I64, x));
    return spread(e, graph_dim(e->g, d));
}

static value emit_sum(const struct emitter *e, dim d)
{
    struct dims *t = e->s->dims;
    struct dim_node n = dim_get(t, d);
    value sum = 0;
    dim rest = d;
    for (uint32_t i = 0; i < n.count; i++) {
        if (!dim_uses_kind(t, n.arg[i], SYMBOL_COORDINATE))
            continue;
        value term = emit_dim(e, n.arg[i]);
        if (n.coefficient[i] != 1)
            term = graph_binary(e->g, OP_MUL, term, emit_plain_dim(e, dim_const(t, n.coefficient[i])));
        rest = dim_sub(t, rest, dim_mul(t, dim_const(t, n.coefficient[i]), n.arg[i]));
        sum = sum ? graph_binary(e->g, OP_ADD, sum, term) : term;
        n = dim_get(t, d); /* the table may have moved */
    }
    if (dim_is(t, rest, 0))
        return sum;
    return graph_binary(e->g, OP_ADD, sum, emit_plain_dim(e, rest));
}

static value emit_product(const struct emitter *e, dim d)
{
    struct dims *t = e->s->dims;
    struct dim_node n = dim_get(t, d);
    dim plain = dim_const(t, 1);
    value product = 0;
    for (uint32_t i = 0; i < n.count; i++, n = dim_get(t, d)) {
        if (!dim_uses_kind(t, n.arg[i], SYMBOL_COORDINATE)) {
            plain = dim_mul(t, plain, n.arg[i]);
            continue;
        }
        value factor = emit_dim(e, n.arg[i]);
        product = product ? graph_binary(e->g, OP_MUL, product, factor) : factor;
    }
    return dim_is(t, plain, 1) ? product : graph_binary(e->g, OP_MUL, product, emit_plain_dim(e, plain));
}

static value emit_ceildiv(const struct emitter *e, value a, value b)
{
    value one = emit_plain_dim(e, dim_const(e->s->dims, 1));
    value up = graph_binary(e->g, OP_SUB, graph_binary(e->g, OP_ADD, a, b), one);
    return graph_binary(e->g, OP_DIV, up, b);
}

/* d, which may use coordinates, as i64 over the whole shape. */
static value emit_dim(const struct emitter *e, dim d)
{
    struct dims *t = e->s->dims;
    if (!dim_uses_kind(t, d, SYMBOL_COORDINATE))
        return emit_plain_dim(e, d);
    struct dim_node n = dim_get(t, d);
    switch (n.op) {
    case DIM_SYMBOL:
        return graph_iota(e->g, DT_I64, e->rank, e->shape, dims_symbol(t, n.symbol)->index);
    case DIM_SUM:
        return emit_sum(e, d);
    case DIM_PRODUCT:
        return emit_product(e, d);
    case DIM_CEILDIV:
    case DIM_DIV:
    case DIM_MOD:
    case DIM_MAX:
    case DIM_MIN: {
        dim right = n.arg[1];
        value a = emit_dim(e, n.arg[0]), b = emit_dim(e, right);
        if (n.op == DIM_CEILDIV)
            return emit_ceildiv(e, a, b);
        op o = n.op == DIM_DIV ? OP_DIV : n.op == DIM_MOD ? OP_MOD : n.op == DIM_MAX ? OP_MAX : OP_MIN;
        return graph_binary(e->g, o, a, b);
    }
    case DIM_CONST:
        break;
    }
    return emit_plain_dim(e, d);
}

static value emit_leaf(const struct emitter *e, const struct formula *f, dtype type)
{
    int64_t x = 0;
    if (f->op == FORMULA_REAL)
        return spread(e, graph_scalar_f64(e->g, type, f->real));
    if (!dim_is_const(e->s->dims, f->d, &x))
        return graph_cast(e->g, emit_dim(e, f->d), type);
    if (dtype_is_float(type))
        return spread(e, graph_scalar_f64(e->g, type, (double)x));
    return spread(e, graph_scalar_i64(e->g, type, x));
}

/* ---- many formulas ------------------------------------------------------------------------------------------ */

static value emit_all(const struct emitter *e, const struct formula *const *at, uint32_t count, dtype type);

static bool all_equal(const struct formula *const *at, uint32_t count)
{
    for (uint32_t i = 1; i < count; i++)
        if (!formula_equal(at[0], at[i]))
            return false;
    return true;
}

static bool same_kind(const struct formula *const *at, uint32_t count)
{
    for (uint32_t i = 1; i < count; i++)
        if (at[i]->op != at[0]->op)
            return false;
    return at[0]->op != FORMULA_DIM && at[0]->op != FORMULA_REAL;
}

static bool all_constant(const struct emitter *e, const struct formula *const *at, uint32_t count)
{
    double x = 0;
    for (uint32_t i = 0; i < count; i++)
        if (!formula_constant(e->s, at[i], &x))
            return false;
    return true;
}

/* Where all are integers and affine in the enumerated indices: the one expression. */
static bool find_affine(const struct emitter *e, const struct formula *const *at, uint32_t count, dim *out)
{
    struct dims *t = e->s->dims;
    dim step[MAX_RANK];
    uint32_t stride = 1;
    *out = at[0]->d;
    for (uint32_t i = 0; i < count; i++)
        if (at[i]->op != FORMULA_DIM)
            return false;
    for (uint32_t k = e->rank; k-- > 0;) {
        if (!e->enumerated[k] || e->extent[k] < 2)
            continue;
        step[k] = dim_sub(t, at[stride]->d, at[0]->d);
        *out = dim_add(t, *out, dim_mul(t, step[k], dim_coordinate(t, k)));
        stride *= (uint32_t)e->extent[k];
    }
    for (uint32_t i = 0; i < count; i++) {
        dim expected = at[0]->d;
        uint32_t rest = i;
        for (uint32_t k = e->rank; k-- > 0;) {
            if (!e->enumerated[k] || e->extent[k] < 2)
                continue;
            int64_t index = rest % (uint32_t)e->extent[k];
            rest /= (uint32_t)e->extent[k];
            expected = dim_add(t, expected, dim_mul(t, step[k], dim_const(t, index)));
        }
        if (expected != at[i]->d)
            return false;
    }
    return dim_valid(*out);
}

static value emit_constants(const struct emitter *e, const struct formula *const *at, uint32_t count, dtype type)
{
    size_t size = dtype_size(type);
    uint8_t *data = arena_array(e->s->arena, count ? count : 1, size);
    int64_t extent[MAX_RANK] = {0};
    int32_t axes[MAX_RANK];
    for (uint32_t i = 0; i < count; i++) {
        double x = 0;
        int64_t n = 0;
        formula_constant(e->s, at[i], &x);
        if (formula_integer(e->s, at[i], &n) && !dtype_is_float(type))
            dtype_store_i64(type, data, i, n);
        else
            dtype_store_f64(type, data, i, x);
    }
    for (uint32_t k = 0; k < e->rank; k++) {
        extent[k] = e->extent[k];
        axes[k] = (int32_t)k;
    }
    value v = graph_constant(e->g, type, e->rank, extent, data);
    for (uint32_t k = 0; k < e->rank; k++)
        if (!e->enumerated[k])
            return graph_broadcast(e->g, v, e->rank, e->shape, axes);
    return v;
}

/* Formulas of one operation each: their arguments in parallel, then the operation once. */
static value emit_parallel(const struct emitter *e, const struct formula *const *at, uint32_t count, dtype type)
{
    value arg[3] = {0, 0, 0};
    enum formula_op o = at[0]->op;
    const struct formula **part = NEW_ARRAY(e->s->arena, const struct formula *, count);
    for (uint32_t a = 0; a < 3 && at[0]->arg[a]; a++) {
        for (uint32_t i = 0; i < count; i++)
            part[i] = at[i]->arg[a];
        bool compares = o == FORMULA_LT || o == FORMULA_LE || o == FORMULA_EQ;
        bool chosen = o == FORMULA_SELECT && a > 0;
        arg[a] = emit_all(e, part, count, compares ? DT_I64 : chosen ? type : DT_BOOL);
    }
    switch (o) {
    case FORMULA_LT:
        return graph_binary(e->g, OP_LT, arg[0], arg[1]);
    case FORMULA_LE:
        return graph_binary(e->g, OP_LE, arg[0], arg[1]);
    case FORMULA_EQ:
        return graph_binary(e->g, OP_EQ, arg[0], arg[1]);
    case FORMULA_AND:
        return graph_binary(e->g, OP_AND, arg[0], arg[1]);
    case FORMULA_OR:
        return graph_binary(e->g, OP_OR, arg[0], arg[1]);
    case FORMULA_NOT:
        return graph_unary(e->g, OP_NOT, arg[0]);
    case FORMULA_SELECT:
        return graph_select(e->g, arg[0], arg[1], arg[2]);
    case FORMULA_DIM:
    case FORMULA_REAL:
        break;
    }
    return 0;
}

/* Cuts along the first enumerated axis, and concatenates. */
static value emit_pieces(const struct emitter *e, const struct formula *const *at, uint32_t count, dtype type)
{
    struct emitter piece = *e;
    dim shape[MAX_RANK];
    uint32_t axis = 0;
    while (!(e->enumerated[axis] && e->extent[axis] > 1))
        axis++;
    uint32_t pieces = (uint32_t)e->extent[axis];
    value *part = NEW_ARRAY(e->s->arena, value, pieces);
    for (uint32_t k = 0; k < e->rank; k++)
        shape[k] = k == axis ? dim_const(e->s->dims, 1) : e->shape[k];
    piece.shape = shape;
    piece.extent[axis] = 1;
    for (uint32_t i = 0; i < pieces; i++)
        part[i] = emit_all(&piece, at + (size_t)i * (count / pieces), count / pieces, type);
    return graph_concat(e->g, pieces, part, axis);
}

static value emit_all(const struct emitter *e, const struct formula *const *at, uint32_t count, dtype type)
{
    dim affine = DIM_NONE;
    bool leaf = count == 0 || at[0]->op == FORMULA_DIM || at[0]->op == FORMULA_REAL;
    if (count > 0 && leaf && all_equal(at, count))
        return emit_leaf(e, at[0], type);
    if (count == 0 || all_constant(e, at, count))
        return emit_constants(e, at, count, type);
    if (same_kind(at, count)) {
        value v = emit_parallel(e, at, count, type);
        return type == DT_BOOL || at[0]->op == FORMULA_SELECT ? v : graph_cast(e->g, v, type);
    }
    if (find_affine(e, at, count, &affine))
        return graph_cast(e->g, emit_dim(e, affine), type);
    return emit_pieces(e, at, count, type);
}

value content_emit(struct symbolic *s, struct graph *g, dtype type, uint32_t rank, const dim *shape,
                   const struct content *c)
{
    struct emitter e = {.s = s, .g = g, .type = type, .rank = rank, .shape = shape};
    for (uint32_t k = 0; k < rank; k++) {
        e.enumerated[k] = axis_enumerated(s, shape[k], &e.extent[k]);
        if (!e.enumerated[k])
            e.extent[k] = 1;
    }
    return emit_all(&e, c->at, c->count, type);
}
