/* frontend/onnx/lower_pointwise.c - element by element: arithmetic, comparisons, logic, casts.
 *
 * Where all operands' elements are known (shapes, masks, positions) the result is known too and nothing is built.
 */
#include "frontend/onnx/compose.h"

#include <math.h>

/* ---- known elements ----------------------------------------------------------------------------------------- */

struct known_context {
    struct call *c;
    op o;
    dtype type; /* of the operands */
    uint32_t rank, count;
    const struct datum *in[3];
};

static const struct formula *operand_at(const struct known_context *k, uint32_t i, const dim *index)
{
    const struct datum *d = k->in[i];
    dim own[MAX_RANK];
    for (uint32_t a = 0; a < d->rank; a++)
        own[a] = dim_is(k->c->t, d->shape[a], 1) ? dim_const(k->c->t, 0) : index[k->rank - d->rank + a];
    return content_at(&k->c->im->s, d->content, d->rank, d->shape, own);
}

static const struct formula *known_element(void *context, const dim *index)
{
    const struct known_context *k = context;
    struct symbolic *s = &k->c->im->s;
    const struct formula *a = operand_at(k, 0, index);
    if (k->count == 1)
        return k->o == OP_CAST ? formula_cast(s, k->in[0]->dtype, k->type, a) : formula_unary(s, k->o, k->type, a);
    const struct formula *b = operand_at(k, 1, index);
    if (k->count == 3)
        return formula_select(s, a, b, operand_at(k, 2, index));
    return formula_binary(s, k->o, k->type, a, b);
}

/* Sets output 0 by formulas of the inputs order[0..count) where all are known. */
static bool set_known_by(struct call *c, content_element element, op o, dtype result, uint32_t count,
                         const uint32_t *order)
{
    struct known_context k = {.c = c, .o = o, .count = count};
    dim shape[MAX_RANK];
    for (uint32_t i = 0; i < count; i++) {
        k.in[i] = call_in(c, order[i]);
        if (!k.in[i]->content || dtype_is_stored(k.in[i]->dtype) || dtype_is_stored(result))
            return false;
        k.rank = call_broadcast(c, k.rank, shape, k.in[i]->rank, k.in[i]->shape);
    }
    k.type = o == OP_CAST ? result : k.in[count - 1]->dtype;
    const struct content *content = content_make(&c->im->s, k.rank, shape, element, &k);
    if (content)
        call_set_content(c, 0, result, k.rank, shape, content);
    return content != NULL;
}

static bool set_known(struct call *c, op o, dtype result, uint32_t count, const uint32_t *order)
{
    return set_known_by(c, known_element, o, result, count, order);
}

static const uint32_t in_order[] = {0, 1, 2}, swapped[] = {1, 0};

static void require_equal_types(struct call *c, uint32_t a, uint32_t b)
{
    if (call_in(c, a)->dtype != call_in(c, b)->dtype)
        call_fail(c, "operand types differ: %s and %s", dtype_name(call_in(c, a)->dtype),
                  dtype_name(call_in(c, b)->dtype));
}

/* ---- arithmetic --------------------------------------------------------------------------------------------- */

/* Input 0; in f32 where nothing is computed in its own type. */
static value use_computable(struct call *c)
{
    value x = call_use(c, 0);
    return dtype_is_stored(call_type(c, x)) && dtype_is_float(call_type(c, x)) ? graph_cast(c->g, x, DT_F32) : x;
}

void lower_unary(struct call *c)
{
    op o = (op)c->argument;
    dtype type = call_in(c, 0)->dtype;
    if (!set_known(c, o, o == OP_ISNAN ? DT_BOOL : type, 1, in_order))
        call_set(c, 0, graph_unary(c->g, o, use_computable(c)));
}

/* Rounding is nothing to integers. */
void lower_rounding(struct call *c)
{
    if (dtype_is_float(call_in(c, 0)->dtype))
        lower_unary(c);
    else
        call_set_alias(c, 0, 0);
}

/* Is input i one decided truth everywhere? */
static bool decided(struct call *c, uint32_t i, bool *out)
{
    const struct content *content = call_in(c, i)->content;
    int64_t first = 0, x = 0;
    if (!content || content->count == 0 || !formula_integer(&c->im->s, content->at[0], &first))
        return false;
    for (uint32_t k = 1; k < content->count; k++)
        if (!formula_integer(&c->im->s, content->at[k], &x) || (x != 0) != (first != 0))
            return false;
    *out = first != 0;
    return true;
}

/* Output 0 is input i where the broadcast of all inputs has that input's shape. */
static bool set_same(struct call *c, uint32_t i)
{
    dim shape[MAX_RANK];
    uint32_t rank = 0;
    for (uint32_t k = 0; k < c->in_count; k++)
        rank = call_broadcast(c, rank, shape, call_in(c, k)->rank, call_in(c, k)->shape);
    if (rank != call_in(c, i)->rank || !dims_same(shape, call_in(c, i)->shape, rank))
        return false;
    call_set_alias(c, 0, i);
    return true;
}

/* Is output 0 read by softmaxes alone, in the main graph? */
static bool feeds_softmax(const struct call *c)
{
    const Onnx__GraphProto *g = c->im->model->graph;
    const char *name = c->proto->output[0];
    bool found = false;
    for (size_t i = 0; i < g->n_output; i++)
        if (g->output[i]->name && strcmp(g->output[i]->name, name) == 0)
            return false;
    for (size_t i = 0; i < g->n_node; i++)
        for (size_t k = 0; k < g->node[i]->n_input; k++) {
            if (strcmp(g->node[i]->input[k], name) != 0)
                continue;
            if (!g->node[i]->op_type || strcmp(g->node[i]->op_type, "Softmax") != 0)
                return false;
            found = true;
        }
    return found && c->index >= 0 && !*c->frame->prefix;
}

/* Some exporters add a truth to scores, which ONNX has not: in front of a softmax it says which scores to keep. */
static bool add_mask(struct call *c)
{
    uint32_t mask = call_in(c, 1)->dtype == DT_BOOL, scores = 1 - mask;
    dtype type = call_in(c, scores)->dtype;
    if (call_in(c, mask)->dtype != DT_BOOL || !dtype_is_float(type) || !feeds_softmax(c))
        return false;
    value x = call_use(c, scores);
    call_set(c, 0, build_choose(c, call_use(c, mask), x, graph_scalar_f64(c->g, type, -(double)INFINITY)));
    return true;
}

void lower_binary(struct call *c)
{
    op o = (op)c->argument;
    double one = 0;
    bool truth = false;
    if (o == OP_ADD && add_mask(c))
        return;
    require_equal_types(c, 0, 1);
    if (set_known(c, o, call_in(c, 0)->dtype, 2, in_order))
        return;
    for (uint32_t i = 0; i < 2 && (o == OP_AND || o == OP_OR) && call_in(c, 0)->dtype == DT_BOOL; i++)
        if (decided(c, i, &truth) && truth == (o == OP_AND) && set_same(c, 1 - i))
            return;
    if (o == OP_DIV && dtype_is_float(call_in(c, 0)->dtype) && call_in(c, 0)->rank <= call_in(c, 1)->rank &&
        call_real(c, 0, &one) && one == 1)
        call_set(c, 0, graph_unary(c->g, OP_RECIP, call_use(c, 1)));
    else
        call_set(c, 0, build_both(c, o, call_use(c, 0), call_use(c, 1)));
}

void lower_compare(struct call *c)
{
    op o = (op)c->argument;
    require_equal_types(c, 0, 1);
    if (!set_known(c, o, DT_BOOL, 2, in_order))
        call_set(c, 0, build_both(c, o, call_use(c, 0), call_use(c, 1)));
}

/* Greater and GreaterOrEqual: less with the operands exchanged. */
void lower_compare_swapped(struct call *c)
{
    op o = (op)c->argument;
    require_equal_types(c, 0, 1);
    if (!set_known(c, o, DT_BOOL, 2, swapped))
        call_set(c, 0, build_both(c, o, call_use(c, 1), call_use(c, 0)));
}

void lower_where(struct call *c)
{
    bool truth = false;
    require_equal_types(c, 1, 2);
    if (decided(c, 0, &truth) && set_same(c, truth ? 1 : 2))
        return;
    if (!set_known(c, OP_SELECT, call_in(c, 1)->dtype, 3, in_order))
        call_set(c, 0, build_choose(c, call_use(c, 0), call_use(c, 1), call_use(c, 2)));
}

/* Max, Min, Sum, Mean of any number of operands. */
void lower_variadic(struct call *c)
{
    op o = (op)c->argument;
    if (c->in_count == 1) {
        call_set_alias(c, 0, 0);
        return;
    }
    if (c->in_count == 2) {
        require_equal_types(c, 0, 1);
        if (set_known(c, o, call_in(c, 0)->dtype, 2, in_order))
            return;
    }
    value v = call_use(c, 0);
    for (uint32_t i = 1; i < c->in_count; i++)
        v = build_both(c, o, v, call_use(c, i));
    call_set(c, 0, v);
}

void lower_mean(struct call *c)
{
    value v = call_use(c, 0);
    for (uint32_t i = 1; i < c->in_count; i++)
        v = build_both(c, OP_ADD, v, call_use(c, i));
    call_set(c, 0, build_with(c, OP_DIV, v, c->in_count));
}

/* x to a small whole power as a product, else NONE (0). */
static value power_by_product(struct call *c, value x, double exponent)
{
    if (exponent == 1)
        return x;
    if (exponent == 2)
        return graph_binary(c->g, OP_MUL, x, x);
    if (exponent == 3)
        return graph_binary(c->g, OP_MUL, graph_binary(c->g, OP_MUL, x, x), x);
    if (!dtype_is_float(call_type(c, x)))
        return 0;
    if (exponent == 0.5)
        return graph_unary(c->g, OP_SQRT, x);
    return exponent == -1 ? graph_unary(c->g, OP_RECIP, x) : 0;
}

void lower_pow(struct call *c)
{
    double exponent = 0;
    dtype type = call_in(c, 0)->dtype, other = call_in(c, 1)->dtype;
    if ((type == other || !dtype_is_float(other)) && set_known(c, OP_POW, type, 2, in_order)) {
        c->im->data.at[c->out[0]]->dtype = type;
        return;
    }
    value x = call_use(c, 0);
    bool scalar = call_in(c, 1)->rank <= call_in(c, 0)->rank && call_real(c, 1, &exponent);
    value product = scalar ? power_by_product(c, x, exponent) : 0;
    if (product) {
        call_set(c, 0, product);
        return;
    }
    dtype work = dtype_is_float(other) && !dtype_is_float(type) ? other : type;
    value power = build_both(c, OP_POW, graph_cast(c->g, x, work), call_use_as(c, 1, work));
    call_set(c, 0, graph_cast(c->g, power, type));
}

/* The remainder with the divisor's sign, for divisors that are not negative: -n mod 4 is what n lacks to a multiple of 4. */
static const struct formula *floored_element(void *context, const dim *index)
{
    const struct known_context *k = context;
    struct symbolic *s = &k->c->im->s;
    struct dims *t = s->dims;
    const struct formula *x = operand_at(k, 0, index), *y = operand_at(k, 1, index);
    if (!x || !y || x->op != FORMULA_DIM || y->op != FORMULA_DIM || dim_lower(t, y->d) < 0)
        return NULL;
    dim a = x->d, b = y->d, minus = dim_sub(t, dim_const(t, 0), a);
    if (dim_lower(t, a) >= 0)
        return formula_dim(s, dim_mod(t, a, b));
    if (dim_lower(t, b) < 1)
        return NULL;
    if (dim_lower(t, minus) >= 0)
        return formula_dim(s, dim_add(t, dim_mul(t, dim_ceildiv(t, minus, b), b), a));
    return formula_dim(s, dim_mod(t, dim_add(t, dim_mod(t, a, b), b), b));
}

/* fmod 1: C's remainder. fmod 0: the sign of the divisor. */
void lower_mod(struct call *c)
{
    dtype type = call_in(c, 0)->dtype;
    require_equal_types(c, 0, 1);
    bool plain = attribute_int(c, "fmod", 0) != 0 || !dtype_is_signed(type);
    if (set_known_by(c, plain ? known_element : floored_element, OP_MOD, type, 2, in_order))
        return;
    value a = call_use(c, 0), b = call_use(c, 1);
    value r = build_both(c, OP_MOD, a, b);
    if (plain) {
        call_set(c, 0, r);
        return;
    }
    b = build_expand(c, b, call_rank(c, r), call_shape(c, r));
    value zero = build_full(c, type, 0, call_rank(c, r), call_shape(c, r));
    value opposite = graph_binary(c->g, OP_XOR, graph_binary(c->g, OP_LT, r, zero), graph_binary(c->g, OP_LT, b, zero));
    value nonzero = graph_unary(c->g, OP_NOT, graph_binary(c->g, OP_EQ, r, zero));
    value wrong = graph_binary(c->g, OP_AND, opposite, nonzero);
    call_set(c, 0, graph_select(c->g, wrong, graph_binary(c->g, OP_ADD, r, b), r));
}

void lower_bitshift(struct call *c)
{
    const char *direction = attribute_text(c, "direction", "");
    if (strcmp(direction, "LEFT") != 0 && strcmp(direction, "RIGHT") != 0)
        call_fail(c, "direction is '%s', neither LEFT nor RIGHT", direction);
    call_set(c, 0, build_both(c, *direction == 'L' ? OP_SHL : OP_SHR, call_use(c, 0), call_use(c, 1)));
}

void lower_isinf(struct call *c)
{
    struct attribute a = {.mode = 0};
    value x = use_computable(c);
    a.mode |= attribute_int(c, "detect_positive", 1) ? 1 : 0;
    a.mode |= attribute_int(c, "detect_negative", 1) ? 2 : 0;
    call_set(c, 0, graph_add(c->g, OP_ISINF, DT_NONE, 0, NULL, 1, &x, &a));
}

/* ---- types -------------------------------------------------------------------------------------------------- */

static void cast_to(struct call *c, dtype to)
{
    if (call_in(c, 0)->dtype == to)
        call_set_alias(c, 0, 0);
    else if (dtype_is_stored(to))
        call_set(c, 0,
                 few_from(c, call_use(c, 0), to, attribute_int(c, "saturate", 1) != 0,
                          attribute_text(c, "round_mode", "up")));
    else if (!set_known(c, OP_CAST, to, 1, in_order))
        call_set(c, 0, graph_cast(c->g, call_use(c, 0), to));
}

void lower_cast(struct call *c)
{
    int64_t onnx = attribute_int(c, "to", 0);
    dtype to = dtype_from_onnx(onnx);
    if (to == DT_NONE)
        call_unsupported(c, "element type %lld (%s)", (long long)onnx, dtype_missing_name(onnx));
    cast_to(c, to);
}

void lower_castlike(struct call *c)
{
    cast_to(c, call_in(c, 1)->dtype);
}

void lower_clip(struct call *c)
{
    value x = call_use(c, 0);
    dtype type = call_type(c, x);
    const Onnx__AttributeProto *low = attribute(c, "min"), *high = attribute(c, "max");
    if (c->version >= 11) {
        value v = call_has(c, 1) ? build_both(c, OP_MAX, x, call_use(c, 1)) : x;
        v = call_has(c, 2) ? build_both(c, OP_MIN, v, call_use(c, 2)) : v;
        if (v == x)
            call_set_alias(c, 0, 0);
        else
            call_set(c, 0, v);
        return;
    }
    if (low)
        x = build_both(c, OP_MAX, x, build_real(c, type, (double)low->f));
    if (high)
        x = build_both(c, OP_MIN, x, build_real(c, type, (double)high->f));
    if (low || high)
        call_set(c, 0, x);
    else
        call_set_alias(c, 0, 0);
}
