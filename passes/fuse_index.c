/* passes/fuse_index.c - index expressions over the coordinates of one iteration space.
 *
 * The dim table knows of a coordinate only that it is >= 0, since all kernels share c0, c1, ...; what is known of it here (it is below
 * its extent) comes from the space. That is what takes the div and mod of a reshape away: (a*n + b)/n is a when 0 <= b < n. What remains of
 * the form c/n or c%n is taken away by splitting c into two coordinates, so that loops stay affine.
 */
#include "passes/fuse.h"

/* ---- the space ---- */

dim space_add_hidden(struct space *s, dim extent)
{
    if (s->count == SPACE_AXES)
        return DIM_NONE;
    s->extent[s->count] = extent;
    s->kind[s->count] = UINT8_MAX;
    return dim_coordinate(s->dims, s->count++);
}

static void insert_order(struct space *s, uint32_t at, uint32_t coordinate)
{
    for (uint32_t i = s->order_count++; i > at; i--)
        s->order[i] = s->order[i - 1];
    s->order[at] = (uint8_t)coordinate;
}

dim space_add(struct space *s, dim extent, uint8_t kind)
{
    dim c = space_add_hidden(s, extent);
    if (c == DIM_NONE)
        return c;
    uint32_t at = s->order_count;
    while (at > 0 && s->kind[s->order[at - 1]] > kind)
        at--;
    s->kind[s->count - 1] = kind;
    insert_order(s, at, s->count - 1);
    return c;
}

dim space_size(const struct space *s, uint32_t from, uint32_t to)
{
    dim size = dim_const(s->dims, 1);
    for (uint32_t i = from; i < to; i++)
        size = dim_mul(s->dims, size, s->extent[s->order[i]]);
    return size;
}

dim space_row_major(const struct space *s, uint32_t from, uint32_t to)
{
    dim sum = dim_const(s->dims, 0);
    for (uint32_t i = from; i < to; i++) {
        sum = dim_mul(s->dims, sum, s->extent[s->order[i]]);
        sum = dim_add(s->dims, sum, dim_coordinate(s->dims, s->order[i]));
    }
    return sum;
}

dim index_row_major(const struct space *s, uint32_t rank, const dim *shape, const dim *index)
{
    dim sum = dim_const(s->dims, 0);
    for (uint32_t i = 0; i < rank; i++)
        sum = dim_add(s->dims, dim_mul(s->dims, sum, shape[i]), index[i]);
    return sum;
}

/* ---- bounds ---- */

static bool coordinate_of(const struct dims *t, dim d, uint32_t *coordinate)
{
    struct dim_node n = dim_get(t, d);
    if (n.op != DIM_SYMBOL || dims_symbol(t, n.symbol)->kind != SYMBOL_COORDINATE)
        return false;
    *coordinate = dims_symbol(t, n.symbol)->index;
    return true;
}

static dim bound(const struct space *s, dim d, bool upper);

static dim bound_sum(const struct space *s, const struct dim_node *n, bool upper)
{
    dim sum = dim_const(s->dims, n->value);
    for (uint32_t i = 0; i < n->count; i++) {
        dim b = bound(s, n->arg[i], n->coefficient[i] > 0 ? upper : !upper);
        sum = dim_add(s->dims, sum, dim_mul(s->dims, dim_const(s->dims, n->coefficient[i]), b));
    }
    return sum;
}

static dim bound_product(const struct space *s, const struct dim_node *n, bool upper)
{
    dim product = dim_const(s->dims, 1);
    for (uint32_t i = 0; i < n->count; i++) {
        if (dim_lower(s->dims, n->arg[i]) < 0)
            return DIM_NONE;
        product = dim_mul(s->dims, product, bound(s, n->arg[i], upper));
    }
    return product;
}

/* An expression without coordinates that d never exceeds (falls below); DIM_NONE when none was found. */
static dim bound(const struct space *s, dim d, bool upper)
{
    struct dims *t = s->dims;
    if (!dim_uses_kind(t, d, SYMBOL_COORDINATE))
        return d;
    struct dim_node n = dim_get(t, d);
    uint32_t c;
    switch (n.op) {
    case DIM_SYMBOL:
        if (!coordinate_of(t, d, &c) || c >= s->count)
            return DIM_NONE;
        return upper ? dim_sub(t, s->extent[c], dim_const(t, 1)) : dim_const(t, 0);
    case DIM_SUM:
        return bound_sum(s, &n, upper);
    case DIM_PRODUCT:
        return bound_product(s, &n, upper);
    case DIM_DIV:
    case DIM_MOD:
        if (dim_lower(t, n.arg[0]) < 0 || dim_uses_kind(t, n.arg[1], SYMBOL_COORDINATE))
            return DIM_NONE;
        if (!upper)
            return dim_const(t, 0);
        return n.op == DIM_MOD ? dim_sub(t, n.arg[1], dim_const(t, 1)) : dim_div(t, bound(s, n.arg[0], true), n.arg[1]);
    case DIM_CONST:
    case DIM_CEILDIV:
    case DIM_MAX:
    case DIM_MIN:
        return DIM_NONE;
    }
    return DIM_NONE;
}

bool index_nonnegative(const struct space *s, dim d)
{
    return dim_lower(s->dims, d) >= 0 || dim_lower(s->dims, bound(s, d, false)) >= 0;
}

bool index_below(const struct space *s, dim d, dim limit)
{
    dim most = bound(s, d, true);
    return most != DIM_NONE && dim_provably_ge(s->dims, limit, dim_add(s->dims, most, dim_const(s->dims, 1)));
}

bool index_uses(const struct space *s, dim d, uint32_t coordinate)
{
    if (!dim_uses_kind(s->dims, d, SYMBOL_COORDINATE))
        return false;
    dim c = dim_coordinate(s->dims, coordinate);
    return dim_uses_symbol(s->dims, d, dim_get(s->dims, c).symbol);
}

/* ---- div and mod ---- */

/* a == b * quotient + rest, term by term. */
static void split_terms(struct dims *t, dim a, dim b, dim *quotient, dim *rest)
{
    struct dim_node n = dim_get(t, a);
    *quotient = *rest = dim_const(t, 0);
    if (n.op != DIM_SUM) {
        dim q = dim_exact_div(t, a, b);
        *(q ? quotient : rest) = q ? q : a;
        return;
    }
    for (uint32_t i = 0; i <= n.count; i++) {
        dim term = i == n.count ? dim_const(t, n.value) : dim_mul(t, dim_const(t, n.coefficient[i]), n.arg[i]);
        dim q = dim_exact_div(t, term, b);
        if (q)
            *quotient = dim_add(t, *quotient, q);
        else
            *rest = dim_add(t, *rest, term);
    }
}

static bool is_remainder(const struct space *s, dim d, dim b)
{
    return index_nonnegative(s, d) && index_below(s, d, b);
}

static dim divide(const struct space *s, dim a, dim b, bool remainder)
{
    struct dims *t = s->dims;
    if (a == DIM_NONE || b == DIM_NONE)
        return DIM_NONE;
    if (dim_is(t, b, 0)) /* nothing is there to be indexed */
        return dim_const(t, 0);
    dim quotient, rest;
    split_terms(t, a, b, &quotient, &rest);
    if (dim_is(t, rest, 0) || is_remainder(s, rest, b))
        return remainder ? rest : quotient;
    if (is_remainder(s, dim_add(t, rest, b), b)) /* n*b - 1 - c, from a reversed axis */
        return remainder ? dim_add(t, rest, b) : dim_sub(t, quotient, dim_const(t, 1));
    if (!index_nonnegative(s, rest))
        return remainder ? dim_mod(t, a, b) : dim_div(t, a, b);
    return remainder ? dim_mod(t, rest, b) : dim_add(t, quotient, dim_div(t, rest, b));
}

dim index_div(const struct space *s, dim a, dim b)
{
    return divide(s, a, b, false);
}
dim index_mod(const struct space *s, dim a, dim b)
{
    return divide(s, a, b, true);
}

/* Only div and mod with coordinates can become simpler. */
static bool has_division(const struct dims *t, dim d)
{
    if (!dim_uses_kind(t, d, SYMBOL_COORDINATE))
        return false;
    struct dim_node n = dim_get(t, d);
    if (n.op == DIM_DIV || n.op == DIM_MOD)
        return true;
    for (uint32_t i = 0; i < n.count; i++)
        if (has_division(t, n.arg[i]))
            return true;
    return false;
}

dim index_simplify(const struct space *s, dim d)
{
    struct dims *t = s->dims;
    if (d == DIM_NONE || !has_division(t, d))
        return d;
    struct dim_node n = dim_get(t, d);
    if (n.op == DIM_DIV)
        return index_div(s, index_simplify(s, n.arg[0]), n.arg[1]);
    if (n.op == DIM_MOD)
        return index_mod(s, index_simplify(s, n.arg[0]), n.arg[1]);
    if (n.op != DIM_SUM && n.op != DIM_PRODUCT)
        return d;
    dim result = dim_const(t, n.op == DIM_SUM ? n.value : 1);
    for (uint32_t i = 0; i < n.count; i++) {
        dim a = index_simplify(s, n.arg[i]);
        result = n.op == DIM_PRODUCT ? dim_mul(t, result, a)
                                     : dim_add(t, result, dim_mul(t, dim_const(t, n.coefficient[i]), a));
    }
    return result;
}

/* ---- linear parts ---- */

struct replacement {
    struct dims *dims;
    const dim *by; /* per coordinate, DIM_NONE: stays */
    uint32_t count;
};

static dim replace_coordinate(void *context, uint32_t symbol)
{
    const struct replacement *r = context;
    const struct symbol *s = dims_symbol(r->dims, symbol);
    return s->kind == SYMBOL_COORDINATE && s->index < r->count ? r->by[s->index] : DIM_NONE;
}

static dim substitute(struct dims *t, dim d, const dim *by, uint32_t count)
{
    if (!dim_uses_kind(t, d, SYMBOL_COORDINATE))
        return d;
    struct replacement r = {t, by, count};
    return dim_substitute(t, d, replace_coordinate, &r);
}

static dim with_coordinate(const struct space *s, dim d, uint32_t coordinate, dim by)
{
    dim all[SPACE_AXES] = {DIM_NONE};
    all[coordinate] = by;
    return substitute(s->dims, d, all, SPACE_AXES);
}

bool index_linear(const struct space *s, dim d, uint32_t coordinate, dim *coefficient, dim *rest)
{
    struct dims *t = s->dims;
    if (d == DIM_NONE)
        return false;
    if (!index_uses(s, d, coordinate)) {
        *coefficient = dim_const(t, 0);
        *rest = d;
        return true;
    }
    *rest = with_coordinate(s, d, coordinate, dim_const(t, 0));
    *coefficient = dim_sub(t, with_coordinate(s, d, coordinate, dim_const(t, 1)), *rest);
    if (*coefficient == DIM_NONE || index_uses(s, *coefficient, coordinate) || index_uses(s, *rest, coordinate))
        return false;
    return dim_add(t, *rest, dim_mul(t, *coefficient, dim_coordinate(t, coordinate))) == d;
}

/* ---- splitting ---- */

/* Of an axis that is worth having. */
static bool is_extent(const struct dims *t, dim d)
{
    return d != DIM_NONE && dim_lower(t, d) >= 0 && !dim_is(t, d, 1);
}

/* Finds c/n or c%n (or of a multiple of c) in d where n divides c's extent; *low: the extent of c's low part. */
static bool find_divided(const struct space *s, dim d, uint32_t *coordinate, dim *low)
{
    struct dims *t = s->dims;
    if (d == DIM_NONE || !has_division(t, d))
        return false;
    struct dim_node n = dim_get(t, d);
    for (uint32_t i = 0; i < n.count; i++)
        if (find_divided(s, n.arg[i], coordinate, low))
            return true;
    if (n.op != DIM_DIV && n.op != DIM_MOD)
        return false;
    for (uint32_t i = 0; i < s->order_count; i++) {
        dim coefficient, rest;
        *coordinate = s->order[i];
        if (!index_uses(s, n.arg[0], *coordinate) || !index_linear(s, n.arg[0], *coordinate, &coefficient, &rest))
            continue;
        if (dim_upper(t, coefficient) < 0)
            coefficient = dim_sub(t, dim_const(t, 0), coefficient);
        *low = dim_exact_div(t, n.arg[1], coefficient);
        dim high = *low ? dim_exact_div(t, s->extent[*coordinate], *low) : DIM_NONE;
        if (is_extent(t, high) && is_extent(t, *low))
            return true;
    }
    return false;
}

bool space_split(struct space *s, uint32_t count, dim *expression)
{
    uint32_t c = 0;
    dim low = DIM_NONE;
    bool found = false;
    for (uint32_t i = 0; i < count && !found; i++)
        found = find_divided(s, expression[i], &c, &low);
    if (!found || s->count == SPACE_AXES)
        return false;
    uint32_t at = 0;
    while (s->order[at] != c)
        at++;
    uint32_t fresh = s->count++;
    s->kind[fresh] = s->kind[c];
    s->extent[fresh] = low;
    s->extent[c] = dim_exact_div(s->dims, s->extent[c], low);
    insert_order(s, at + 1, fresh);
    dim whole = dim_add(s->dims, dim_mul(s->dims, dim_coordinate(s->dims, c), low), dim_coordinate(s->dims, fresh));
    for (uint32_t i = 0; i < count; i++)
        if (expression[i] != DIM_NONE)
            expression[i] = index_simplify(s, with_coordinate(s, expression[i], c, whole));
    return true;
}

void space_split_all(struct space *s, uint32_t count, dim *expression)
{
    while (space_split(s, count, expression)) {
    }
}

/* ---- merging ---- */

static void drop_axis(struct space *s, uint32_t at)
{
    s->order_count--;
    for (uint32_t i = at; i < s->order_count; i++)
        s->order[i] = s->order[i + 1];
}

/* Does every expression step through a as through whole rounds of b? Writes what they become. */
static bool runs_as_one(const struct space *s, uint32_t a, uint32_t b, uint32_t count, const dim *expression,
                        dim *merged)
{
    for (uint32_t i = 0; i < count; i++) {
        dim of_a, of_b, rest;
        merged[i] = expression[i];
        if (expression[i] == DIM_NONE || (!index_uses(s, expression[i], a) && !index_uses(s, expression[i], b)))
            continue;
        if (!index_linear(s, expression[i], a, &of_a, &merged[i]) || !index_linear(s, merged[i], b, &of_b, &rest) ||
            of_a != dim_mul(s->dims, of_b, s->extent[b]))
            return false;
    }
    return true;
}

void space_merge(struct space *s, uint32_t count, dim *expression, struct arena *arena)
{
    dim zero = dim_const(s->dims, 0), *merged = NEW_ARRAY(arena, dim, count + 1);
    for (uint32_t at = s->order_count; at-- > 0;) {
        uint32_t c = s->order[at];
        if (!dim_is(s->dims, s->extent[c], 1))
            continue;
        drop_axis(s, at);
        for (uint32_t i = 0; i < count; i++)
            if (expression[i] != DIM_NONE)
                expression[i] = index_simplify(s, with_coordinate(s, expression[i], c, zero));
    }
    for (uint32_t at = s->order_count; at-- > 1;) {
        uint32_t a = s->order[at - 1], b = s->order[at];
        if (s->kind[a] != s->kind[b] || !runs_as_one(s, a, b, count, expression, merged))
            continue;
        s->extent[b] = dim_mul(s->dims, s->extent[a], s->extent[b]);
        memcpy(expression, merged, count * sizeof *expression);
        drop_axis(s, at - 1);
    }
}

void space_renumber(struct space *s, uint32_t count, dim *expression)
{
    struct space now = {.dims = s->dims, .count = s->order_count, .order_count = s->order_count};
    dim by[SPACE_AXES] = {DIM_NONE};
    for (uint32_t i = 0; i < s->order_count; i++) {
        now.extent[i] = s->extent[s->order[i]];
        now.kind[i] = s->kind[s->order[i]];
        now.order[i] = (uint8_t)i;
        by[s->order[i]] = dim_coordinate(s->dims, i);
    }
    for (uint32_t i = 0; i < count; i++)
        if (expression[i] != DIM_NONE)
            expression[i] = substitute(s->dims, expression[i], by, SPACE_AXES);
    *s = now;
}
