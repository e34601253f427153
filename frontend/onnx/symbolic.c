/* frontend/onnx/symbolic.c - formulas and contents: the arithmetic of shapes, masks and positions at compile time.
 *
 * Start reading at formula_binary, then content_make and content_at.
 */
#include "frontend/onnx/symbolic.h"

#include <math.h>

/* ---- leaves ------------------------------------------------------------------------------------------------- */

static const struct formula *formula_new(struct symbolic *s, struct formula f)
{
    return arena_copy(s->arena, &f, sizeof f);
}

const struct formula *formula_dim(struct symbolic *s, dim d)
{
    return dim_valid(d) ? formula_new(s, (struct formula){.op = FORMULA_DIM, .d = dim_resolve(s->dims, d)}) : NULL;
}

const struct formula *formula_int(struct symbolic *s, int64_t x)
{
    return formula_dim(s, dim_const(s->dims, x));
}

const struct formula *formula_real(struct symbolic *s, double x)
{
    bool integer = isfinite(x) && fabs(x) < 9007199254740992.0 && floor(x) == x && !(x == 0 && signbit(x));
    if (integer)
        return formula_int(s, (int64_t)x);
    return formula_new(s, (struct formula){.op = FORMULA_REAL, .real = x});
}

bool formula_integer(const struct symbolic *s, const struct formula *f, int64_t *x)
{
    return f && f->op == FORMULA_DIM && dim_is_const(s->dims, f->d, x);
}

bool formula_constant(const struct symbolic *s, const struct formula *f, double *x)
{
    int64_t i = 0;
    if (f && f->op == FORMULA_REAL) {
        *x = f->real;
        return true;
    }
    if (!formula_integer(s, f, &i))
        return false;
    *x = (double)i;
    return true;
}

bool formula_equal(const struct formula *a, const struct formula *b)
{
    if (a == b)
        return true;
    if (!a || !b || a->op != b->op || a->d != b->d)
        return false;
    if (memcmp(&a->real, &b->real, sizeof a->real) != 0)
        return false;
    return formula_equal(a->arg[0], b->arg[0]) && formula_equal(a->arg[1], b->arg[1]) &&
           formula_equal(a->arg[2], b->arg[2]);
}

/* Depth of formulas is bounded: And, Or, Not and Select of exporters' masks are a few levels deep; beyond this, nothing is known. */
enum { FORMULA_DEPTH = 24 };
static int depth_of(const struct formula *f)
{
    int deepest = 0;
    if (f->op == FORMULA_DIM || f->op == FORMULA_REAL)
        return 0;
    for (int i = 0; i < 3; i++) {
        int d = f->arg[i] ? 1 + depth_of(f->arg[i]) : 0;
        deepest = d > deepest ? d : deepest;
    }
    return deepest;
}

static const struct formula *compound(struct symbolic *s, enum formula_op o, const struct formula *a,
                                      const struct formula *b, const struct formula *c)
{
    const struct formula *f = formula_new(s, (struct formula){.op = o, .arg = {a, b, c}});
    return depth_of(f) > FORMULA_DEPTH ? NULL : f;
}

static bool is_condition(const struct formula *f)
{
    return f->op >= FORMULA_LT && f->op <= FORMULA_OR;
}

/* ---- comparisons and truth ---------------------------------------------------------------------------------- */

static const struct formula *truth(struct symbolic *s, bool b)
{
    return formula_int(s, b ? 1 : 0);
}

static const struct formula *compare_dims(struct symbolic *s, enum formula_op o, const struct formula *a,
                                          const struct formula *b)
{
    struct dims *t = s->dims;
    dim after_a = dim_add(t, a->d, dim_const(t, 1)), after_b = dim_add(t, b->d, dim_const(t, 1));
    bool ge = dim_provably_ge(t, a->d, b->d), le = dim_provably_ge(t, b->d, a->d);
    bool gt = dim_valid(after_b) && dim_provably_ge(t, a->d, after_b);
    bool lt = dim_valid(after_a) && dim_provably_ge(t, b->d, after_a);
    if (o == FORMULA_EQ && (a->d == b->d || lt || gt))
        return truth(s, a->d == b->d);
    if (o == FORMULA_LT && (lt || ge))
        return truth(s, lt);
    if (o == FORMULA_LE && (le || gt))
        return truth(s, le);
    return compound(s, o, a, b, NULL);
}

static const struct formula *compare(struct symbolic *s, enum formula_op o, const struct formula *a,
                                     const struct formula *b)
{
    double x = 0, y = 0;
    int64_t one = 0;
    if (a->op == FORMULA_DIM && b->op == FORMULA_DIM)
        return compare_dims(s, o, a, b);
    if (formula_constant(s, a, &x) && formula_constant(s, b, &y))
        return truth(s, o == FORMULA_EQ ? x == y : o == FORMULA_LT ? x < y : x <= y);
    if (o != FORMULA_EQ)
        return NULL;
    if (is_condition(a) && formula_integer(s, b, &one))
        return one == 1 ? a : formula_unary(s, OP_NOT, DT_BOOL, a);
    if (is_condition(b) && formula_integer(s, a, &one))
        return one == 1 ? b : formula_unary(s, OP_NOT, DT_BOOL, b);
    return NULL;
}

static const struct formula *logic(struct symbolic *s, bool conjunction, const struct formula *a,
                                   const struct formula *b)
{
    int64_t x = 0, y = 0;
    bool a_known = formula_integer(s, a, &x), b_known = formula_integer(s, b, &y);
    if (a_known)
        return (x != 0) == conjunction ? b : a;
    if (b_known)
        return (y != 0) == conjunction ? a : b;
    if (formula_equal(a, b))
        return a;
    return compound(s, conjunction ? FORMULA_AND : FORMULA_OR, a, b, NULL);
}

static const struct formula *negate(struct symbolic *s, const struct formula *a)
{
    int64_t x = 0;
    if (formula_integer(s, a, &x))
        return truth(s, x == 0);
    switch (a->op) {
    case FORMULA_NOT:
        return a->arg[0];
    case FORMULA_LT:
        return compare(s, FORMULA_LE, a->arg[1], a->arg[0]);
    case FORMULA_LE:
        return compare(s, FORMULA_LT, a->arg[1], a->arg[0]);
    case FORMULA_EQ:
    case FORMULA_AND:
    case FORMULA_OR:
        return compound(s, FORMULA_NOT, a, NULL, NULL);
    case FORMULA_DIM:
    case FORMULA_REAL:
    case FORMULA_SELECT:
        break;
    }
    return NULL;
}

const struct formula *formula_select(struct symbolic *s, const struct formula *c, const struct formula *a,
                                     const struct formula *b)
{
    int64_t x = 0;
    if (!c || !a || !b)
        return NULL;
    if (formula_integer(s, c, &x))
        return x != 0 ? a : b;
    if (formula_equal(a, b))
        return a;
    return is_condition(c) ? compound(s, FORMULA_SELECT, c, a, b) : NULL;
}

/* ---- arithmetic --------------------------------------------------------------------------------------------- */

/* The constant x as an element of `type`. */
static const struct formula *rounded(struct symbolic *s, dtype type, double x)
{
    uint64_t element = 0;
    if (!dtype_is_float(type))
        return formula_real(s, x);
    dtype_store_f64(type, &element, 0, x);
    return formula_real(s, dtype_load_f64(type, &element, 0));
}

/* An integer as an element of `type`: constants wrap; an expression is taken not to, in the types that sizes have, and is unknown in others. */
static const struct formula *wrapped(struct symbolic *s, dtype type, const struct formula *f)
{
    uint64_t element = 0;
    int64_t x = 0;
    if (!f || f->op != FORMULA_DIM || type == DT_I64 || type == DT_BOOL || !dtype_is_int(type))
        return f;
    if (!dim_is_const(s->dims, f->d, &x))
        return type == DT_I32 ? f : NULL;
    dtype_store_i64(type, &element, 0, x);
    return formula_int(s, dtype_load_i64(type, &element, 0));
}

static dim dim_abs(struct dims *t, dim d)
{
    return dim_max(t, d, dim_sub(t, dim_const(t, 0), d));
}

static const struct formula *unary_dim(struct symbolic *s, op o, dtype type, dim d)
{
    struct dims *t = s->dims;
    if (o == OP_NEG)
        return formula_dim(s, dim_sub(t, dim_const(t, 0), d));
    if (o == OP_ABS)
        return formula_dim(s, dim_abs(t, d));
    if ((o == OP_FLOOR || o == OP_CEIL || o == OP_ROUND) && dtype_is_float(type))
        return formula_dim(s, d);
    return NULL;
}

static bool unary_real(op o, double x, double *y)
{
#define F(ID, expression)                                                                                              \
    if (o == OP_##ID)                                                                                                  \
    return *y = (expression), true
    F(NEG, -x);
    F(ABS, fabs(x));
    F(EXP, exp(x));
    F(LOG, log(x));
    F(SQRT, sqrt(x));
    F(RECIP, 1 / x);
    F(SIN, sin(x));
    F(COS, cos(x));
    F(FLOOR, floor(x));
    F(CEIL, ceil(x));
    F(ROUND, nearbyint(x));
    F(TANH, tanh(x));
#undef F
    return false;
}

const struct formula *formula_unary(struct symbolic *s, op o, dtype type, const struct formula *a)
{
    double x = 0, y = 0;
    if (!a)
        return NULL;
    if (o == OP_NOT)
        return type == DT_BOOL ? negate(s, a) : NULL;
    if (a->op == FORMULA_SELECT) /* a choice of constants stays one: -select(c, 0, 1) */
        return formula_select(s, a->arg[0], formula_unary(s, o, type, a->arg[1]), formula_unary(s, o, type, a->arg[2]));
    if (a->op == FORMULA_DIM && (!dtype_is_float(type) || !formula_constant(s, a, &x) || o == OP_ABS))
        return wrapped(s, type, unary_dim(s, o, type, a->d));
    if (dtype_is_float(type) && formula_constant(s, a, &x) && unary_real(o, x, &y))
        return rounded(s, type, y);
    return NULL;
}

static const struct formula *arithmetic_dims(struct symbolic *s, op o, dtype type, dim a, dim b)
{
    struct dims *t = s->dims;
    bool real = dtype_is_float(type);
    if (o == OP_ADD)
        return formula_dim(s, dim_add(t, a, b));
    if (o == OP_SUB)
        return formula_dim(s, dim_sub(t, a, b));
    if (o == OP_MUL)
        return formula_dim(s, dim_mul(t, a, b));
    if (o == OP_MAX)
        return formula_dim(s, dim_max(t, a, b));
    if (o == OP_MIN)
        return formula_dim(s, dim_min(t, a, b));
    if (o == OP_DIV)
        return formula_dim(s, real ? dim_exact_div(t, a, b) : dim_div(t, a, b));
    if (o == OP_MOD && !real)
        return formula_dim(s, dim_mod(t, a, b));
    return NULL;
}

static bool arithmetic_real(op o, double x, double y, double *z)
{
#define F(ID, expression)                                                                                              \
    if (o == OP_##ID)                                                                                                  \
    return *z = (expression), true
    F(ADD, x + y);
    F(SUB, x - y);
    F(MUL, x * y);
    F(DIV, x / y);
    F(POW, pow(x, y));
    F(MOD, fmod(x, y));
    F(MAX, isnan(x) || x > y ? x : y);
    F(MIN, isnan(x) || x < y ? x : y);
#undef F
    return false;
}

static const struct formula *arithmetic(struct symbolic *s, op o, dtype type, const struct formula *a,
                                        const struct formula *b)
{
    double x = 0, y = 0, z = 0;
    int64_t exponent = 0;
    bool constant = formula_constant(s, a, &x) && formula_constant(s, b, &y);
    if (constant && dtype_is_float(type))
        return arithmetic_real(o, x, y, &z) ? rounded(s, type, z) : NULL;
    if (a->op != FORMULA_DIM || b->op != FORMULA_DIM)
        return NULL;
    if (o == OP_POW && formula_integer(s, b, &exponent) && exponent >= 0 && exponent <= 64) {
        dim product = dim_const(s->dims, 1);
        for (int64_t i = 0; i < exponent; i++)
            product = dim_mul(s->dims, product, a->d);
        return wrapped(s, type, formula_dim(s, product));
    }
    return wrapped(s, type, arithmetic_dims(s, o, type, a->d, b->d));
}

const struct formula *formula_binary(struct symbolic *s, op o, dtype type, const struct formula *a,
                                     const struct formula *b)
{
    if (!a || !b)
        return NULL;
    if (o == OP_LT || o == OP_LE || o == OP_EQ)
        return compare(s, o == OP_LT ? FORMULA_LT : o == OP_LE ? FORMULA_LE : FORMULA_EQ, a, b);
    if (o == OP_AND || o == OP_OR)
        return type == DT_BOOL ? logic(s, o == OP_AND, a, b) : NULL;
    if (a->op == FORMULA_SELECT && b->op != FORMULA_SELECT) /* arithmetic on a mask of constants */
        return formula_select(s, a->arg[0], formula_binary(s, o, type, a->arg[1], b),
                              formula_binary(s, o, type, a->arg[2], b));
    if (b->op == FORMULA_SELECT && a->op != FORMULA_SELECT)
        return formula_select(s, b->arg[0], formula_binary(s, o, type, a, b->arg[1]),
                              formula_binary(s, o, type, a, b->arg[2]));
    return arithmetic(s, o, type, a, b);
}

/* A real that is cast to a narrow type saturates there; that is left to the cast itself. */
static const struct formula *small_only(struct symbolic *s, dtype to, const struct formula *f)
{
    const struct formula *w = wrapped(s, to, f);
    return w && formula_equal(w, f) ? f : NULL;
}

const struct formula *formula_cast(struct symbolic *s, dtype from, dtype to, const struct formula *f)
{
    double x = 0;
    if (!f || from == to)
        return f;
    if (f->op == FORMULA_SELECT)
        return formula_select(s, f->arg[0], formula_cast(s, from, to, f->arg[1]), formula_cast(s, from, to, f->arg[2]));
    if (to == DT_BOOL) {
        if (f->op == FORMULA_DIM)
            return formula_unary(s, OP_NOT, DT_BOOL, compare(s, FORMULA_EQ, f, formula_int(s, 0)));
        return f->op == FORMULA_REAL ? truth(s, f->real != 0) : NULL;
    }
    if (is_condition(f))
        return formula_select(s, f, formula_int(s, 1), formula_int(s, 0));
    if (f->op == FORMULA_REAL && !dtype_is_float(to))
        return isfinite(f->real) && fabs(f->real) < 2e9 ? small_only(s, to, formula_real(s, trunc(f->real) + 0.0))
                                                        : NULL;
    if (formula_constant(s, f, &x) && dtype_is_float(to))
        return rounded(s, to, x);
    if (f->op != FORMULA_DIM)
        return NULL;
    return dtype_is_float(from) ? small_only(s, to, f) : wrapped(s, to, f);
}

/* ---- substitution ------------------------------------------------------------------------------------------- */

struct at_context {
    const struct dims *dims;
    uint32_t rank;
    const dim *index;
};

static dim replace_coordinate(void *context, uint32_t symbol)
{
    const struct at_context *c = context;
    const struct symbol *s = dims_symbol(c->dims, symbol);
    return s->kind == SYMBOL_COORDINATE && s->index < c->rank ? c->index[s->index] : DIM_NONE;
}

/* Builds f again with its integer leaves changed: coordinates replaced (index not NULL) or only resolved. */
static const struct formula *rebuild(struct symbolic *s, const struct formula *f, uint32_t rank, const dim *index)
{
    const struct formula *a[3] = {NULL, NULL, NULL};
    if (f->op == FORMULA_REAL)
        return f;
    if (f->op == FORMULA_DIM) {
        struct at_context context = {s->dims, rank, index};
        if (!index)
            return formula_dim(s, f->d);
        return dim_uses_kind(s->dims, f->d, SYMBOL_COORDINATE)
                   ? formula_dim(s, dim_substitute(s->dims, f->d, replace_coordinate, &context))
                   : f;
    }
    for (int i = 0; i < 3 && f->arg[i]; i++)
        if (!(a[i] = rebuild(s, f->arg[i], rank, index)))
            return NULL;
    switch (f->op) {
    case FORMULA_LT:
    case FORMULA_LE:
    case FORMULA_EQ:
        return compare(s, f->op, a[0], a[1]);
    case FORMULA_AND:
    case FORMULA_OR:
        return logic(s, f->op == FORMULA_AND, a[0], a[1]);
    case FORMULA_NOT:
        return negate(s, a[0]);
    case FORMULA_SELECT:
        return formula_select(s, a[0], a[1], a[2]);
    case FORMULA_DIM:
    case FORMULA_REAL:
        break;
    }
    return NULL;
}

const struct formula *formula_at(struct symbolic *s, const struct formula *f, uint32_t rank, const dim *index)
{
    return f ? rebuild(s, f, rank, index) : NULL;
}

bool dim_affine(struct dims *t, dim e, uint32_t rank, dim *base, dim *coefficient)
{
    dim index[MAX_RANK], sum;
    struct at_context context = {t, rank, index};
    for (uint32_t k = 0; k < rank; k++)
        index[k] = dim_const(t, 0);
    *base = sum = dim_substitute(t, e, replace_coordinate, &context);
    if (!dim_valid(*base) || dim_uses_kind(t, *base, SYMBOL_COORDINATE))
        return false;
    for (uint32_t k = 0; k < rank; k++) {
        index[k] = dim_const(t, 1);
        coefficient[k] = dim_sub(t, dim_substitute(t, e, replace_coordinate, &context), *base);
        index[k] = dim_const(t, 0);
        if (!dim_valid(coefficient[k]))
            return false;
        sum = dim_add(t, sum, dim_mul(t, coefficient[k], dim_coordinate(t, k)));
    }
    return sum == e;
}

/* ---- contents ----------------------------------------------------------------------------------------------- */

bool axis_enumerated(const struct symbolic *s, dim extent, int64_t *out)
{
    int64_t n = 0;
    if (!dim_is_const(s->dims, extent, &n) || n > CONTENT_EXTENT)
        return false;
    *out = n;
    return true;
}

const struct content *content_make(struct symbolic *s, uint32_t rank, const dim *shape, content_element element,
                                   void *context)
{
    int64_t extent[MAX_RANK] = {0}, at[MAX_RANK] = {0}, count = 1;
    dim index[MAX_RANK];
    for (uint32_t k = 0; k < rank; k++) {
        if (!axis_enumerated(s, shape[k], &extent[k]))
            extent[k] = 1, at[k] = -1;
        count *= extent[k];
        if (count > CONTENT_COUNT)
            return NULL;
        index[k] = at[k] < 0 ? dim_coordinate(s->dims, k) : dim_const(s->dims, 0);
    }
    struct content *c = NEW(s->arena, struct content);
    c->count = (uint32_t)count;
    c->at = NEW_ARRAY(s->arena, const struct formula *, count);
    for (uint32_t i = 0; i < c->count; i++) {
        if (!(c->at[i] = element(context, index)))
            return NULL;
        for (uint32_t k = rank; k-- > 0;) {
            if (at[k] < 0)
                continue;
            at[k] = at[k] + 1 == extent[k] ? 0 : at[k] + 1;
            index[k] = dim_const(s->dims, at[k]);
            if (at[k] != 0)
                break;
        }
    }
    return c;
}

const struct formula *content_at(struct symbolic *s, const struct content *c, uint32_t rank, const dim *shape,
                                 const dim *index)
{
    int64_t offset = 0, extent = 0, i = 0;
    bool substitute = false;
    for (uint32_t k = 0; k < rank; k++) {
        if (!axis_enumerated(s, shape[k], &extent)) {
            substitute = substitute || index[k] != dim_coordinate(s->dims, k);
            continue;
        }
        if (!dim_is_const(s->dims, index[k], &i) || i < 0 || i >= extent)
            return NULL;
        offset = offset * extent + i;
    }
    const struct formula *f = c->at[offset];
    return substitute ? formula_at(s, f, rank, index) : f;
}

struct uniform_context {
    const struct formula *f;
};
static const struct formula *uniform_element(void *context, const dim *index)
{
    (void)index;
    return ((const struct uniform_context *)context)->f;
}

const struct content *content_uniform(struct symbolic *s, uint32_t rank, const dim *shape, const struct formula *f)
{
    struct uniform_context context = {f};
    return content_make(s, rank, shape, uniform_element, &context);
}

const struct content *content_resolve(struct symbolic *s, const struct content *c)
{
    struct content *r = NEW(s->arena, struct content);
    r->count = c->count;
    r->at = NEW_ARRAY(s->arena, const struct formula *, c->count);
    for (uint32_t i = 0; i < c->count; i++)
        if (!(r->at[i] = rebuild(s, c->at[i], 0, NULL)))
            return NULL;
    return r;
}
