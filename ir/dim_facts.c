/* ir/dim_facts.c - what is known of dims: bounds, provable order, rewriting by assumptions, substitution, evaluation.
 *
 * Invariant of assumptions: the `equal` of a symbol or atom never uses a symbol or atom that itself has one, so that resolving needs one
 * pass. Recursions here are bounded by DIM_DEPTH_LIMIT and DIM_SIZE_LIMIT.
 */
#include "ir/dim_table.h"

#include <assert.h>

/* ---- intervals: INT64_MIN and INT64_MAX stand for the infinities ---- */

static bool infinite(int64_t a)
{
    return a == INT64_MIN || a == INT64_MAX;
}

static int64_t extended_mul(int64_t a, int64_t b)
{
    int64_t product;
    if (a == 0 || b == 0)
        return 0;
    if (!infinite(a) && !infinite(b) && i64_mul(a, b, &product))
        return product;
    return (a < 0) == (b < 0) ? INT64_MAX : INT64_MIN;
}

/* When both infinities meet, the `worst` one wins (INT64_MIN for lower bounds). */
static int64_t extended_add(int64_t a, int64_t b, int64_t worst)
{
    int64_t sum;
    if (a == worst || b == worst)
        return worst;
    if (infinite(a) || infinite(b))
        return infinite(a) ? a : b;
    if (i64_add(a, b, &sum))
        return sum;
    return a < 0 ? INT64_MIN : INT64_MAX;
}

static int64_t lesser(int64_t a, int64_t b)
{
    return a < b ? a : b;
}
static int64_t greater(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

static void bounds_sum(const struct dims *t, const struct dim_node *n, int64_t *lower, int64_t *upper)
{
    *lower = *upper = n->value;
    for (uint32_t i = 0; i < n->count; i++) {
        const struct dim_entry *e = dim_entry(t, n->arg[i]);
        int64_t c = n->coefficient[i];
        *lower = extended_add(*lower, extended_mul(c, c > 0 ? e->lower : e->upper), INT64_MIN);
        *upper = extended_add(*upper, extended_mul(c, c > 0 ? e->upper : e->lower), INT64_MAX);
    }
}

static void bounds_product(const struct dims *t, const struct dim_node *n, int64_t *lower, int64_t *upper)
{
    *lower = *upper = 1;
    for (uint32_t i = 0; i < n->count; i++) {
        const struct dim_entry *e = dim_entry(t, n->arg[i]);
        int64_t ll = extended_mul(*lower, e->lower), lu = extended_mul(*lower, e->upper);
        int64_t ul = extended_mul(*upper, e->lower), uu = extended_mul(*upper, e->upper);
        *lower = lesser(lesser(ll, lu), lesser(ul, uu));
        *upper = greater(greater(ll, lu), greater(ul, uu));
    }
}

/* An extreme of a/b over b in [lb, ub], 1 <= lb: by the nearest b for large magnitudes, the farthest for small ones. */
static int64_t extended_div(int64_t a, int64_t b, bool up)
{
    if (infinite(a))
        return a;
    if (infinite(b))
        return up && a > 0 ? 1 : 0;
    return a / b + (up && a % b > 0);
}

static void bounds_divide(enum dim_op o, const struct dim_entry *a, const struct dim_entry *b, int64_t *lower,
                          int64_t *upper)
{
    *lower = INT64_MIN;
    *upper = INT64_MAX;
    int64_t lb = greater(b->lower, 1); /* a divisor of 0 has no value at all */
    if (b->lower < 0 || b->upper < 1) {
        if (o == DIM_MOD && a->lower >= 0) {
            *lower = 0;
            *upper = a->upper;
        }
        return;
    }
    if (o == DIM_MOD) {
        int64_t most = b->upper == INT64_MAX ? INT64_MAX : b->upper - 1;
        *lower = a->lower >= 0 ? 0 : greater(a->lower, most == INT64_MAX ? INT64_MIN : -most);
        *upper = a->upper <= 0 ? 0 : lesser(a->upper, most);
        return;
    }
    bool up = o == DIM_CEILDIV;
    *lower = extended_div(a->lower, a->lower < 0 ? lb : b->upper, up);
    *upper = extended_div(a->upper, a->upper < 0 ? b->upper : lb, up);
}

void dim_bounds(const struct dims *t, const struct dim_node *n, int64_t *lower, int64_t *upper)
{
    switch (n->op) {
    case DIM_CONST:
        *lower = *upper = n->value;
        return;
    case DIM_SYMBOL:
        *lower = t->symbols.at[n->symbol].lower;
        *upper = t->symbols.at[n->symbol].upper;
        return;
    case DIM_SUM:
        bounds_sum(t, n, lower, upper);
        return;
    case DIM_PRODUCT:
        bounds_product(t, n, lower, upper);
        return;
    case DIM_DIV:
    case DIM_CEILDIV:
    case DIM_MOD:
        bounds_divide(n->op, dim_entry(t, n->arg[0]), dim_entry(t, n->arg[1]), lower, upper);
        return;
    case DIM_MAX:
    case DIM_MIN: {
        const struct dim_entry *a = dim_entry(t, n->arg[0]), *b = dim_entry(t, n->arg[1]);
        *lower = n->op == DIM_MAX ? greater(a->lower, b->lower) : lesser(a->lower, b->lower);
        *upper = n->op == DIM_MAX ? greater(a->upper, b->upper) : lesser(a->upper, b->upper);
        return;
    }
    }
    assert(false && "unknown dim op");
}

int64_t dim_lower(const struct dims *t, dim d)
{
    return d ? dim_entry(t, d)->lower : INT64_MIN;
}
int64_t dim_upper(const struct dims *t, dim d)
{
    return d ? dim_entry(t, d)->upper : INT64_MAX;
}

static void set_bounds(struct dims *t, uint32_t symbol, int64_t lower, int64_t upper)
{
    struct symbol *s = &t->symbols.at[symbol];
    if (lower == s->lower && upper == s->upper)
        return;
    s->lower = lower;
    s->upper = upper;
    for (dim d = t->of_symbol.at[symbol]; d < t->entries.count; d++) { /* arguments have smaller numbers */
        struct dim_entry *e = &t->entries.at[d];
        dim_bounds(t, &e->node, &e->lower, &e->upper);
    }
    memset(t->memo, 0, sizeof t->memo);
}

void dims_bound_symbol(struct dims *t, uint32_t symbol, int64_t lower, int64_t upper)
{
    const struct symbol *s = &t->symbols.at[symbol];
    set_bounds(t, symbol, greater(lower, s->lower), lesser(upper, s->upper));
}

void dims_widen_symbol(struct dims *t, uint32_t symbol, int64_t lower, int64_t upper)
{
    const struct symbol *s = &t->symbols.at[symbol];
    set_bounds(t, symbol, lesser(lower, s->lower), greater(upper, s->upper));
}

static bool ge_at(struct dims *t, dim a, dim b, int depth)
{
    if (a == b)
        return true;
    if (dim_lower(t, a) >= dim_upper(t, b) && !infinite(dim_upper(t, b)))
        return true;
    dim difference = dim_sub(t, a, b);
    if (difference && dim_lower(t, difference) >= 0)
        return true;
    if (depth == 0)
        return false;
    struct dim_node x = dim_get(t, a), y = dim_get(t, b);
    if (x.op == DIM_MIN)
        return ge_at(t, x.arg[0], b, depth - 1) && ge_at(t, x.arg[1], b, depth - 1);
    if (y.op == DIM_MAX)
        return ge_at(t, a, y.arg[0], depth - 1) && ge_at(t, a, y.arg[1], depth - 1);
    if (x.op == DIM_MAX && (ge_at(t, x.arg[0], b, depth - 1) || ge_at(t, x.arg[1], b, depth - 1)))
        return true;
    return y.op == DIM_MIN && (ge_at(t, a, y.arg[0], depth - 1) || ge_at(t, a, y.arg[1], depth - 1));
}

bool dim_provably_ge(struct dims *t, dim a, dim b)
{
    return a && b && ge_at(t, a, b, 4);
}

bool dim_uses_kind(const struct dims *t, dim d, symbol_kind kind)
{
    return d != DIM_NONE && (dim_entry(t, d)->kinds >> kind & 1);
}

/* Does `part` (a symbol or any other dim) occur in d as a node of the tree? */
static bool contains(const struct dims *t, dim d, dim part)
{
    if (d == part)
        return true;
    if (d < part) /* arguments have smaller numbers */
        return false;
    const struct dim_node *n = dim_node_at(t, d);
    for (uint32_t i = 0; i < n->count; i++)
        if (contains(t, n->arg[i], part))
            return true;
    return false;
}

bool dim_uses_symbol(const struct dims *t, dim d, uint32_t symbol)
{
    return d != DIM_NONE && contains(t, d, t->of_symbol.at[symbol]);
}

/* ---- substitution ---- */

static dim rebuild_pair(struct dims *t, enum dim_op o, dim a, dim b)
{
    switch (o) {
    case DIM_DIV:
        return dim_div(t, a, b);
    case DIM_CEILDIV:
        return dim_ceildiv(t, a, b);
    case DIM_MOD:
        return dim_mod(t, a, b);
    case DIM_MAX:
        return dim_max(t, a, b);
    case DIM_MIN:
        return dim_min(t, a, b);
    case DIM_CONST:
    case DIM_SYMBOL:
    case DIM_SUM:
    case DIM_PRODUCT:
        break;
    }
    assert(false && "not a pair");
    return DIM_NONE;
}

struct rewrite {
    dim (*symbol)(void *context, uint32_t symbol);
    void *context;
    bool resolve; /* by `equal`, with the cache */
};

static dim rewrite(struct dims *t, dim d, const struct rewrite *r);

static dim rewrite_node(struct dims *t, dim d, const struct rewrite *r)
{
    struct dim_node n = *dim_node_at(t, d);
    if (n.op == DIM_CONST)
        return d;
    if (n.op == DIM_SYMBOL) {
        dim replaced = r->resolve ? t->symbols.at[n.symbol].equal : r->symbol(r->context, n.symbol);
        return replaced ? replaced : d;
    }
    if (n.op == DIM_SUM || n.op == DIM_PRODUCT) {
        dim result = n.op == DIM_SUM ? dim_const(t, n.value) : t->one;
        bool changed = false;
        for (uint32_t i = 0; i < n.count; i++) {
            dim a = rewrite(t, n.arg[i], r);
            changed |= a != n.arg[i];
            if (n.op == DIM_SUM)
                result = dim_add(t, result, dim_mul(t, dim_const(t, n.coefficient[i]), a));
            else
                result = dim_mul(t, result, a);
        }
        return changed ? result : d;
    }
    dim a = rewrite(t, n.arg[0], r), b = rewrite(t, n.arg[1], r);
    dim result = a == n.arg[0] && b == n.arg[1] ? d : rebuild_pair(t, n.op, a, b);
    if (r->resolve && result && dim_entry(t, result)->equal)
        result = dim_entry(t, result)->equal;
    return result;
}

static dim rewrite(struct dims *t, dim d, const struct rewrite *r)
{
    if (!r->resolve)
        return rewrite_node(t, d, r);
    if (dim_entry(t, d)->resolved_epoch == t->epoch)
        return dim_entry(t, d)->resolved;
    dim result = rewrite_node(t, d, r);
    struct dim_entry *e = &t->entries.at[d];
    e->resolved = result;
    e->resolved_epoch = t->epoch;
    return result;
}

dim dim_resolve(struct dims *t, dim d)
{
    if (d == DIM_NONE || t->epoch == 0)
        return d;
    return rewrite(t, d, &(struct rewrite){.resolve = true});
}

dim dim_substitute(struct dims *t, dim d, dim (*replace)(void *context, uint32_t symbol), void *context)
{
    if (d == DIM_NONE)
        return d;
    return rewrite(t, d, &(struct rewrite){.symbol = replace, .context = context});
}

/* ---- assumptions ---- */

/* Writes the rule left -> right and brings the older rules up to date. */
static void add_rule(struct dims *t, dim left, dim right)
{
    const struct dim_node *n = dim_node_at(t, left);
    if (n->op == DIM_SYMBOL)
        t->symbols.at[n->symbol].equal = right;
    else
        t->entries.at[left].equal = right;
    t->epoch++;
    *PUSH(t->arena, &t->rules) = left;
    for (uint32_t i = 0; i + 1 < t->rules.count; i++) {
        dim l = t->rules.at[i];
        n = dim_node_at(t, l);
        dim old = n->op == DIM_SYMBOL ? t->symbols.at[n->symbol].equal : t->entries.at[l].equal;
        dim now = dim_resolve(t, old);
        if (n->op == DIM_SYMBOL)
            t->symbols.at[n->symbol].equal = now;
        else
            t->entries.at[l].equal = now;
    }
    t->epoch++;
}

/* What term i of `difference` == 0 must equal: the rest divided by its coefficient, negated. DIM_NONE when that is not linear and exact. */
static dim solve_for(struct dims *t, dim difference, dim atom, int64_t coefficient)
{
    dim rest = dim_sub(t, difference, dim_mul(t, dim_const(t, coefficient), atom));
    if (!rest || contains(t, rest, atom))
        return DIM_NONE;
    rest = dim_exact_div(t, rest, dim_const(t, coefficient));
    return dim_sub(t, t->zero, rest);
}

struct solution {
    dim atom, value;
    int rank; /* higher is better */
};

/* Symbols before compounds, a side that is the bare symbol before others, then one whose value is provably in range; the younger at last. */
static struct solution best_solution(struct dims *t, dim a, dim b, dim difference)
{
    struct solution best = {0};
    struct terms x;
    terms_of(t, difference, &x);
    for (uint32_t i = 0; i < x.count; i++) {
        dim atom = x.arg[i];
        const struct dim_node *n = dim_node_at(t, atom);
        bool symbol = n->op == DIM_SYMBOL;
        if (!dim_is_atom(t, atom) || (symbol && t->symbols.at[n->symbol].kind != SYMBOL_INPUT))
            continue;
        dim value = solve_for(t, difference, atom, x.coefficient[i]);
        if (!value)
            continue;
        bool in_range = dim_lower(t, value) >= dim_lower(t, atom);
        int rank = 1 + (symbol ? 4 : 0) + (atom == a || atom == b ? 2 : 0) + (in_range ? 1 : 0);
        bool younger = symbol && best.rank == rank && n->symbol > dim_node_at(t, best.atom)->symbol;
        if (rank > best.rank || younger)
            best = (struct solution){atom, value, rank};
    }
    return best;
}

enum settled { NEVER, SAME, STUCK, SOLVED };

/* Coefficients with a common divisor that the constant lacks: no integers make it 0. */
static bool indivisible(const struct dims *t, dim difference)
{
    struct terms x;
    terms_of(t, difference, &x);
    int64_t g = 0;
    for (uint32_t i = 0; i < x.count; i++) {
        int64_t a = x.coefficient[i];
        if (a == INT64_MIN)
            return false;
        for (a = a < 0 ? -a : a; a;) {
            int64_t r = g % a;
            g = a;
            a = r;
        }
    }
    return g > 1 && x.value % g != 0;
}

static enum settled settle(struct dims *t, dim a, dim b)
{
    a = dim_resolve(t, a);
    b = dim_resolve(t, b);
    if (!a || !b)
        return STUCK;
    if (a == b)
        return SAME;
    dim difference = dim_sub(t, a, b);
    if (!difference)
        return STUCK;
    if (dim_lower(t, difference) > 0 || dim_upper(t, difference) < 0 || indivisible(t, difference))
        return NEVER;
    struct solution s = best_solution(t, a, b, difference);
    if (!s.rank)
        return STUCK;
    if (dim_upper(t, s.value) < dim_lower(t, s.atom) || dim_lower(t, s.value) > dim_upper(t, s.atom))
        return NEVER;
    const struct dim_node *n = dim_node_at(t, s.value);
    if (n->op == DIM_SYMBOL)
        dims_bound_symbol(t, n->symbol, dim_lower(t, s.atom), dim_upper(t, s.atom));
    add_rule(t, s.atom, s.value);
    return SOLVED;
}

bool dim_assume_equal(struct dims *t, dim a, dim b)
{
    if (!a || !b)
        return false;
    uint32_t fresh = t->pending.count;
    *PUSH(t->arena, &t->pending) = (struct dim_pair){a, b};
    bool again = true;
    while (again) { /* each turn makes a rule, which takes one more symbol or atom out of use */
        again = false;
        for (uint32_t i = t->pending.count; i-- > 0;) {
            enum settled s = settle(t, t->pending.at[i].a, t->pending.at[i].b);
            if (s == NEVER) {
                t->pending.count = fresh < t->pending.count ? fresh : t->pending.count;
                return false;
            }
            again |= s == SOLVED;
            if (s == SAME || s == SOLVED) {
                memmove(&t->pending.at[i], &t->pending.at[i + 1], (t->pending.count - i - 1) * sizeof t->pending.at[0]);
                t->pending.count--;
            }
        }
    }
    return true;
}

/* ---- evaluation ---- */

static bool eval_pair(enum dim_op o, int64_t a, int64_t b, int64_t *out)
{
    if (o == DIM_MAX || o == DIM_MIN) {
        *out = o == DIM_MAX ? greater(a, b) : lesser(a, b);
        return true;
    }
    if (b == 0 || (a == INT64_MIN && b == -1))
        return false;
    int64_t r = a % b;
    *out = o == DIM_MOD ? r : a / b + (o == DIM_CEILDIV && r != 0 && (r < 0) == (b < 0));
    return true;
}

bool dim_eval(const struct dims *t, dim d, const int64_t *of, int64_t *out)
{
    if (d == DIM_NONE)
        return false;
    const struct dim_node *n = dim_node_at(t, d);
    if (n->op == DIM_SYMBOL) {
        *out = of[n->symbol];
        return true;
    }
    int64_t result = n->op == DIM_PRODUCT ? 1 : n->value, x, y;
    if (n->op == DIM_CONST || n->op == DIM_SUM || n->op == DIM_PRODUCT) {
        for (uint32_t i = 0; i < n->count; i++) {
            if (!dim_eval(t, n->arg[i], of, &x))
                return false;
            if (n->op == DIM_PRODUCT ? !i64_mul(result, x, &result)
                                     : !i64_mul(n->coefficient[i], x, &x) || !i64_add(result, x, &result))
                return false;
        }
        *out = result;
        return true;
    }
    return dim_eval(t, n->arg[0], of, &x) && dim_eval(t, n->arg[1], of, &y) && eval_pair(n->op, x, y, out);
}
