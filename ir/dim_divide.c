/* ir/dim_divide.c - division, remainder, max and min of dims.
 *
 * Each operation first takes off what makes no difference to the value (common factors, whole multiples of the divisor, dominated
 * operands), so that equal values reach the table as equal atoms; what is left becomes an atom. A rewrite that would
 * only hold for operands of a certain sign is taken where the bounds prove that sign.
 */
#include "ir/dim_table.h"

/* ---- exact division of polynomials ---- */

static bool leading_term(const struct dims *t, dim d, dim *monomial, int64_t *coefficient)
{
    struct terms x;
    terms_of(t, d, &x);
    if (x.count == 0 && x.value == 0)
        return false;
    *monomial = x.count ? x.arg[0] : t->one;
    *coefficient = x.count ? x.coefficient[0] : x.value;
    return true;
}

static bool divides(int64_t divisor, int64_t value)
{
    return divisor == -1 ? value != INT64_MIN : divisor != 0 && value % divisor == 0;
}

/* Every term of a by one monomial times a constant. */
static dim divide_terms(struct dims *t, dim a, int64_t coefficient, dim monomial)
{
    struct terms x;
    terms_of(t, a, &x);
    struct poly p = {0};
    for (uint32_t i = 0; i <= x.count; i++) {
        int64_t c = i < x.count ? x.coefficient[i] : x.value;
        dim m = i < x.count ? x.arg[i] : t->one, quotient;
        if (c == 0)
            continue;
        if (!divides(coefficient, c) || !monomial_div(t, m, monomial, &quotient) ||
            !poly_append(t, &p, c / coefficient, quotient))
            return DIM_NONE;
    }
    return poly_dim(t, &p);
}

static dim long_division(struct dims *t, dim a, dim b)
{
    dim quotient = t->zero, rest = a, lead_b, lead;
    int64_t cb, c;
    if (!leading_term(t, b, &lead_b, &cb))
        return DIM_NONE;
    for (int step = 0; step < DIM_TERM_LIMIT && leading_term(t, rest, &lead, &c); step++) {
        dim m;
        if (!divides(cb, c) || !monomial_div(t, lead, lead_b, &m))
            return DIM_NONE;
        m = dim_mul(t, dim_const(t, c / cb), m);
        quotient = dim_add(t, quotient, m);
        rest = dim_sub(t, rest, dim_mul(t, m, b));
        if (!rest || !quotient)
            return DIM_NONE;
    }
    return rest == t->zero ? quotient : DIM_NONE;
}

dim dim_exact_div(struct dims *t, dim a, dim b)
{
    if (!a || !b || b == t->zero)
        return DIM_NONE;
    if (b == t->one || a == t->zero)
        return a;
    if (a == b)
        return t->one;
    bool hit;
    dim result = dim_memo_at(t, MEMO_EXACT, a, b, &hit)->result;
    if (hit)
        return result;
    struct terms y;
    terms_of(t, b, &y);
    if (y.count == 0)
        result = divide_terms(t, a, y.value, t->one);
    else if (y.count == 1 && y.value == 0)
        result = divide_terms(t, a, y.coefficient[0], y.arg[0]);
    else
        result = long_division(t, a, b);
    *dim_memo_at(t, MEMO_EXACT, a, b, &hit) = (struct dim_memo){MEMO_EXACT + 1, a, b, result};
    return result;
}

/* ---- common factors ---- */

static uint64_t magnitude(int64_t v)
{
    return v < 0 ? 0 - (uint64_t)v : (uint64_t)v;
}

/* The greatest constant and the greatest monomial that divide all terms of a and b. */
static dim common_factor(struct dims *t, dim a, dim b)
{
    const dim both[2] = {a, b};
    uint64_t content = 0;
    dim atom[DIM_DEGREE_LIMIT];
    uint32_t atoms = UINT32_MAX;
    for (int k = 0; k < 2; k++) {
        struct terms x;
        terms_of(t, both[k], &x);
        content = u64_gcd(content, magnitude(x.value));
        if (x.value)
            atoms = 0;
        for (uint32_t i = 0; i < x.count; i++) {
            content = u64_gcd(content, magnitude(x.coefficient[i]));
            uint32_t n, kept = 0;
            const dim *m = monomial_atoms(t, &x.arg[i], &n);
            if (atoms == UINT32_MAX) {
                memcpy(atom, m, n * sizeof *m);
                atoms = n;
                continue;
            }
            for (uint32_t p = 0, q = 0; p < atoms; p++) { /* intersect two sorted multisets; the order is that of m */
                uint32_t r = q;
                while (r < n && m[r] != atom[p])
                    r++;
                if (r < n) {
                    atom[kept++] = atom[p];
                    q = r + 1;
                }
            }
            atoms = kept;
        }
    }
    dim factor = content > 1 && content <= INT64_MAX ? dim_const(t, (int64_t)content) : t->one;
    for (uint32_t i = 0; i < atoms && atoms != UINT32_MAX; i++)
        factor = dim_mul(t, factor, atom[i]);
    return factor;
}

/* a = b * quotient + rest for a constant b > 0, where rest has coefficients in [0, b). */
static bool split_multiple(struct dims *t, dim a, int64_t b, dim *quotient, dim *rest)
{
    struct terms x;
    terms_of(t, a, &x);
    struct poly q = {0}, r = {0};
    for (uint32_t i = 0; i <= x.count; i++) {
        int64_t c = i < x.count ? x.coefficient[i] : x.value;
        int64_t low = c % b < 0 ? c % b + b : c % b;
        dim m = i < x.count ? x.arg[i] : t->one;
        int64_t whole = c / b - (c % b < 0);
        if (!poly_append(t, &q, whole, m) || !poly_append(t, &r, low, m))
            return false;
    }
    *quotient = poly_dim(t, &q);
    *rest = poly_dim(t, &r);
    return *quotient && *rest && *quotient != t->zero;
}

/* ---- div, ceildiv, mod ---- */

static bool negative_lead(const struct dims *t, dim d)
{
    dim monomial;
    int64_t c;
    return leading_term(t, d, &monomial, &c) && c < 0;
}
static dim negate(struct dims *t, dim d)
{
    return dim_sub(t, t->zero, d);
}

/* Where quotient and remainder of two constants are defined and fit. */
static bool fold_divide(enum dim_op o, int64_t a, int64_t b, int64_t *out)
{
    if (b == 0 || (b == -1 && a == INT64_MIN))
        return false;
    int64_t q = a / b, r = a % b;
    *out = o == DIM_DIV ? q : o == DIM_MOD ? r : q + (r != 0 && (r < 0) == (b < 0));
    return true;
}

/* The remainder by a constant b > 2 of what is not negative, in a simpler form: of a sum with remainders by b, that of the sum without; of b - 1 times m, what m lacks to a multiple of b, as padding to
 * whole blocks is written (b - m mod b) mod b. DIM_NONE: there is none. */
static dim simpler_remainder(struct dims *t, dim a, int64_t b)
{
    struct terms x;
    terms_of(t, a, &x);
    dim whole = t->zero, by = dim_const(t, b);
    for (uint32_t i = 0; i < x.count; i++) {
        const struct dim_node *n = dim_node_at(t, x.arg[i]);
        bool again = n->op == DIM_MOD && n->arg[1] == by && x.coefficient[i] > 0 && dim_lower(t, n->arg[0]) >= 0;
        whole = dim_add(t, whole, dim_mul(t, dim_const(t, x.coefficient[i]), again ? n->arg[0] : x.arg[i]));
    }
    whole = dim_add(t, whole, dim_const(t, x.value));
    if (whole != a)
        return dim_lower(t, whole) >= 0 ? dim_mod(t, whole, by) : DIM_NONE;
    if (x.count == 1 && x.value == 0 && x.coefficient[0] == b - 1 && dim_lower(t, x.arg[0]) >= 0)
        return dim_sub(t, dim_mul(t, by, dim_ceildiv(t, x.arg[0], by)), x.arg[0]);
    return DIM_NONE;
}

/* What is left to divide has no common factor; the divisor is neither 0 nor 1. */
static dim divide_rest(struct dims *t, enum dim_op o, dim a, dim b)
{
    int64_t va, vb;
    bool constant = dim_is_const(t, b, &vb);
    if (constant && dim_is_const(t, a, &va))
        return fold_divide(o, va, vb, &va) ? dim_const(t, va) : DIM_NONE;
    if (o != DIM_CEILDIV && negative_lead(t, b))
        return o == DIM_DIV ? negate(t, dim_div(t, a, negate(t, b))) : dim_mod(t, a, negate(t, b));
    if (o != DIM_CEILDIV && negative_lead(t, a) && dim_lower(t, a) < 0)
        return negate(t, o == DIM_DIV ? dim_div(t, negate(t, a), b) : dim_mod(t, negate(t, a), b));
    dim q, r;
    if (constant && vb > 0 && split_multiple(t, a, vb, &q, &r)) {
        if (o == DIM_CEILDIV)
            return dim_add(t, q, dim_ceildiv(t, r, b));
        if (dim_lower(t, a) >= 0 && dim_lower(t, r) >= 0)
            return o == DIM_MOD ? dim_mod(t, r, b) : dim_add(t, q, dim_div(t, r, b));
    }
    if (o == DIM_MOD && constant && vb > 2 && dim_lower(t, a) >= 0 && (r = simpler_remainder(t, a, vb)) != DIM_NONE)
        return r;
    if (o != DIM_CEILDIV && dim_lower(t, a) >= 0 && dim_provably_ge(t, b, dim_add(t, a, t->one)))
        return o == DIM_DIV ? t->zero : a;
    if (o == DIM_CEILDIV && dim_lower(t, a) > 0 && dim_provably_ge(t, b, a))
        return t->one;
    struct dim_node n = *dim_node_at(t, a);
    if (o == DIM_DIV && n.op == DIM_DIV && constant && dim_is_const(t, n.arg[1], &va) && i64_mul(va, vb, &va))
        return dim_div(t, n.arg[0], dim_const(t, va));
    return dim_intern_pair(t, o, a, b);
}

static dim divide(struct dims *t, enum dim_op o, dim a, dim b)
{
    if (!a || !b || b == t->zero)
        return DIM_NONE;
    bool hit;
    dim result = dim_memo_at(t, o, a, b, &hit)->result;
    if (hit)
        return result;
    result = dim_exact_div(t, a, b);
    if (result) {
        result = o == DIM_MOD ? t->zero : result;
    } else {
        dim common = common_factor(t, a, b);
        if (common != t->one && common != DIM_NONE) {
            dim x = dim_exact_div(t, a, common), y = dim_exact_div(t, b, common);
            result = divide_rest(t, o, x, y);
            result = o == DIM_MOD ? dim_mul(t, result, common) : result;
        } else {
            result = divide_rest(t, o, a, b);
        }
    }
    *dim_memo_at(t, o, a, b, &hit) = (struct dim_memo){(uint32_t)o + 1, a, b, result};
    return result;
}

dim dim_div(struct dims *t, dim a, dim b)
{
    return divide(t, DIM_DIV, a, b);
}
dim dim_ceildiv(struct dims *t, dim a, dim b)
{
    return divide(t, DIM_CEILDIV, a, b);
}
dim dim_mod(struct dims *t, dim a, dim b)
{
    return divide(t, DIM_MOD, a, b);
}

/* ---- max and min: a sorted list of operands, none of which another one dominates ---- */

enum { EXTREME_LIMIT = 16 };

static uint32_t collect(const struct dims *t, enum dim_op o, dim d, dim *list, uint32_t count)
{
    const struct dim_node *n;
    while ((n = dim_node_at(t, d))->op == o && count < EXTREME_LIMIT) { /* nested ones are a left spine */
        list[count++] = n->arg[1];
        d = n->arg[0];
    }
    if (count < EXTREME_LIMIT)
        list[count++] = d;
    else
        count = EXTREME_LIMIT + 1;
    return count;
}

static bool dominates(struct dims *t, enum dim_op o, dim winner, dim loser)
{
    return o == DIM_MAX ? dim_provably_ge(t, winner, loser) : dim_provably_ge(t, loser, winner);
}

/* Of operands that are provably equal the first in structural order stays. */
static bool superfluous(struct dims *t, enum dim_op o, const dim *list, uint32_t count, uint32_t i)
{
    for (uint32_t j = 0; j < count; j++) {
        if (i == j || !dominates(t, o, list[j], list[i]))
            continue;
        int order = dim_compare(t, list[j], list[i]);
        if (order < 0 || (order == 0 && j < i) || !dominates(t, o, list[i], list[j]))
            return true;
    }
    return false;
}

static dim extreme(struct dims *t, enum dim_op o, dim a, dim b)
{
    if (!a || !b)
        return DIM_NONE;
    bool hit;
    dim result = dim_memo_at(t, o, a, b, &hit)->result;
    if (hit)
        return result;
    dim list[2 * EXTREME_LIMIT + 2], kept[2 * EXTREME_LIMIT + 2];
    uint32_t count = collect(t, o, a, list, 0), n = 0;
    if (count <= EXTREME_LIMIT)
        count = collect(t, o, b, list, count);
    if (count > EXTREME_LIMIT)
        return DIM_NONE;
    for (uint32_t i = 0; i < count; i++) {
        if (superfluous(t, o, list, count, i))
            continue;
        uint32_t at = n++;
        for (; at > 0 && dim_compare(t, kept[at - 1], list[i]) > 0; at--)
            kept[at] = kept[at - 1];
        kept[at] = list[i];
    }
    result = kept[0];
    for (uint32_t i = 1; i < n; i++)
        result = dim_intern_pair(t, o, result, kept[i]);
    *dim_memo_at(t, o, a, b, &hit) = (struct dim_memo){(uint32_t)o + 1, a, b, result};
    return result;
}

dim dim_max(struct dims *t, dim a, dim b)
{
    return extreme(t, DIM_MAX, a, b);
}
dim dim_min(struct dims *t, dim a, dim b)
{
    return extreme(t, DIM_MIN, a, b);
}
