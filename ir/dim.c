/* ir/dim.c - the dim table: symbols, interning, and arithmetic on polynomials over atoms.
 *
 * Invariant: every entry is in normal form (dim.h), and bounded in depth and size (dim_table.h), so that others may recurse.
 * Start at dim_add and dim_mul; division and max/min are in dim_divide.c, facts and rewriting in dim_facts.c.
 */
#include "ir/dim_table.h"

#include <assert.h>

static uint64_t mix(uint64_t h, uint64_t x)
{
    h = (h ^ x) * UINT64_C(0x9E3779B97F4A7C15);
    return h ^ (h >> 29);
}

/* ---- the table ---- */

struct dims *dims_new(struct arena *arena)
{
    struct dims *t = NEW(arena, struct dims);
    t->arena = arena;
    t->names.arena = arena;
    t->slot_count = 256;
    t->slot = NEW_ARRAY(arena, uint32_t, t->slot_count);
    (void)PUSH(arena, &t->entries);
    t->zero = dim_const(t, 0);
    t->one = dim_const(t, 1);
    return t;
}

uint32_t dims_count(const struct dims *t)
{
    return t->entries.count;
}
uint32_t dims_symbol_count(const struct dims *t)
{
    return t->symbols.count;
}
const struct symbol *dims_symbol(const struct dims *t, uint32_t symbol)
{
    assert(symbol < t->symbols.count);
    return &t->symbols.at[symbol];
}
struct dim_node dim_get(const struct dims *t, dim d)
{
    assert(d != DIM_NONE && d < t->entries.count);
    return t->entries.at[d].node;
}

static uint64_t node_digest(const struct dim_node *n)
{
    uint64_t h = mix((uint64_t)n->op + 1, n->count);
    h = mix(h, (uint64_t)n->value);
    h = mix(h, n->symbol);
    for (uint32_t i = 0; i < n->count; i++) {
        h = mix(h, n->arg[i]);
        if (n->coefficient)
            h = mix(h, (uint64_t)n->coefficient[i]);
    }
    return h;
}

static bool node_equal(const struct dim_node *a, const struct dim_node *b)
{
    return a->op == b->op && a->count == b->count && a->value == b->value && a->symbol == b->symbol &&
           (a->count == 0 || memcmp(a->arg, b->arg, a->count * sizeof *a->arg) == 0) &&
           (!a->coefficient || memcmp(a->coefficient, b->coefficient, a->count * sizeof *a->coefficient) == 0);
}

static void grow_slots(struct dims *t)
{
    uint32_t count = t->slot_count * 2;
    uint32_t *slot = NEW_ARRAY(t->arena, uint32_t, count);
    for (uint32_t d = 1; d < t->entries.count; d++) {
        uint32_t i = (uint32_t)t->entries.at[d].hash & (count - 1);
        while (slot[i])
            i = (i + 1) & (count - 1);
        slot[i] = d;
    }
    t->slot = slot;
    t->slot_count = count;
}

/* Size, depth and kinds from the arguments. false: past a limit. */
static bool measure(const struct dims *t, struct dim_entry *e)
{
    const struct dim_node *n = &e->node;
    uint32_t size = 1, depth = 0, kinds = n->op == DIM_SYMBOL ? 1u << t->symbols.at[n->symbol].kind : 0;
    for (uint32_t i = 0; i < n->count; i++) {
        const struct dim_entry *a = dim_entry(t, n->arg[i]);
        size += a->size;
        depth = a->depth > depth ? a->depth : depth;
        kinds |= a->kinds;
    }
    if (size > DIM_SIZE_LIMIT || depth + 1 > DIM_DEPTH_LIMIT)
        return false;
    e->size = size;
    e->depth = (uint8_t)(depth + 1);
    e->kinds = (uint8_t)kinds;
    return true;
}

dim dim_intern(struct dims *t, const struct dim_node *n)
{
    uint64_t hash = node_digest(n);
    uint32_t i = (uint32_t)hash & (t->slot_count - 1);
    for (; t->slot[i]; i = (i + 1) & (t->slot_count - 1)) {
        const struct dim_entry *e = dim_entry(t, t->slot[i]);
        if (e->hash == hash && node_equal(&e->node, n))
            return t->slot[i];
    }
    struct dim_entry fresh = {.node = *n, .hash = hash};
    if (!measure(t, &fresh))
        return DIM_NONE;
    dim_bounds(t, n, &fresh.lower, &fresh.upper);
    if (n->count) {
        fresh.node.arg = arena_copy(t->arena, n->arg, n->count * sizeof *n->arg);
        if (n->coefficient)
            fresh.node.coefficient = arena_copy(t->arena, n->coefficient, n->count * sizeof *n->coefficient);
    }
    dim d = t->entries.count;
    *PUSH(t->arena, &t->entries) = fresh;
    t->slot[i] = d;
    if (t->entries.count * 2 > t->slot_count)
        grow_slots(t);
    return d;
}

dim dim_intern_pair(struct dims *t, enum dim_op o, dim a, dim b)
{
    if (!a || !b)
        return DIM_NONE;
    const dim arg[2] = {a, b};
    dim d = dim_intern(t, &(struct dim_node){.op = o, .count = 2, .arg = arg});
    return d && dim_entry(t, d)->lower == dim_entry(t, d)->upper ? dim_const(t, dim_entry(t, d)->lower) : d;
}

struct dim_memo *dim_memo_at(struct dims *t, uint32_t operation, dim a, dim b, bool *hit)
{
    uint64_t h = mix(mix(operation, a), b);
    struct dim_memo *m = &t->memo[h & (DIM_MEMO - 1)];
    *hit = m->op == operation + 1 && m->a == a && m->b == b;
    if (!*hit)
        *m = (struct dim_memo){0};
    return m;
}

static dim remember(struct dims *t, uint32_t operation, dim a, dim b, dim result)
{
    bool hit;
    struct dim_memo *m = dim_memo_at(t, operation, a, b, &hit);
    *m = (struct dim_memo){operation + 1, a, b, result};
    return result;
}

/* ---- constants and symbols ---- */

dim dim_const(struct dims *t, int64_t value)
{
    return dim_intern(t, &(struct dim_node){.op = DIM_CONST, .value = value});
}

static dim add_symbol(struct dims *t, const char *name, symbol_kind kind, uint32_t index)
{
    struct arena *arena = t->arena;
    size_t length = strlen(name);
    char *key = arena_printf(arena, "%c%s", '0' + (int)kind, name); /* kinds do not share names */
    bool added;
    uint32_t *slot = map_put(&t->names, key, length + 1, &added);
    if (!added)
        return t->of_symbol.at[*slot];
    uint32_t number = t->symbols.count;
    *slot = number;
    *PUSH(arena, &t->symbols) = (struct symbol){key + 1, kind, index, 0, INT64_MAX, DIM_NONE};
    dim d = dim_intern(t, &(struct dim_node){.op = DIM_SYMBOL, .symbol = number});
    *PUSH(arena, &t->of_symbol) = d;
    return d;
}

static dim add_indexed(struct dims *t, const char *prefix, symbol_kind kind, uint32_t index)
{
    char name[32];
    snprintf(name, sizeof name, "%s%u", prefix, (unsigned)index);
    return add_symbol(t, name, kind, index);
}

dim dim_symbol(struct dims *t, const char *name)
{
    return add_symbol(t, name, SYMBOL_INPUT, 0);
}
dim dim_coordinate(struct dims *t, uint32_t axis)
{
    return add_indexed(t, "c", SYMBOL_COORDINATE, axis);
}
dim dim_part_size(struct dims *t, uint32_t partition)
{
    return add_indexed(t, "s:", SYMBOL_PART_SIZE, partition);
}
dim dim_part_offset(struct dims *t, uint32_t partition)
{
    return add_indexed(t, "o:", SYMBOL_PART_OFFSET, partition);
}
dim dim_rank(struct dims *t)
{
    return add_symbol(t, "rank", SYMBOL_RANK, 0);
}
dim dim_capacity(struct dims *t, uint32_t number)
{
    return add_indexed(t, "k:", SYMBOL_CAPACITY, number);
}
dim dim_of_symbol(struct dims *t, uint32_t symbol)
{
    assert(symbol < t->of_symbol.count);
    return t->of_symbol.at[symbol];
}

bool dim_is_const(const struct dims *t, dim d, int64_t *value)
{
    if (d == DIM_NONE || dim_node_at(t, d)->op != DIM_CONST)
        return false;
    if (value)
        *value = dim_node_at(t, d)->value;
    return true;
}
bool dim_is(const struct dims *t, dim d, int64_t value)
{
    int64_t v;
    return dim_is_const(t, d, &v) && v == value;
}

/* ---- views and order ---- */

void terms_of(const struct dims *t, dim d, struct terms *out)
{
    const struct dim_node *n = dim_node_at(t, d);
    *out = (struct terms){.value = n->op == DIM_CONST || n->op == DIM_SUM ? n->value : 0, .self = d, .unit = 1};
    if (n->op == DIM_SUM) {
        out->count = n->count;
        out->arg = n->arg;
        out->coefficient = n->coefficient;
    } else if (n->op != DIM_CONST) {
        out->count = 1;
        out->arg = &out->self;
        out->coefficient = &out->unit;
    }
}

const dim *monomial_atoms(const struct dims *t, const dim *monomial, uint32_t *count)
{
    const struct dim_node *n = dim_node_at(t, *monomial);
    *count = n->op == DIM_PRODUCT ? n->count : n->op == DIM_CONST ? 0 : 1;
    return n->op == DIM_PRODUCT ? n->arg : monomial;
}

static int order_u32(uint32_t a, uint32_t b)
{
    return (a > b) - (a < b);
}

static int atom_compare(const struct dims *t, dim a, dim b)
{
    if (a == b)
        return 0;
    const struct dim_node *x = dim_node_at(t, a), *y = dim_node_at(t, b);
    if (x->op != y->op)
        return x->op < y->op ? -1 : 1;
    if (x->op == DIM_SYMBOL)
        return order_u32(x->symbol, y->symbol);
    int order = dim_compare(t, x->arg[0], y->arg[0]);
    return order ? order : dim_compare(t, x->arg[1], y->arg[1]);
}

int monomial_compare(const struct dims *t, dim a, dim b)
{
    if (a == b)
        return 0;
    uint32_t na, nb;
    const dim *x = monomial_atoms(t, &a, &na), *y = monomial_atoms(t, &b, &nb);
    if (na != nb)
        return na > nb ? -1 : 1;
    for (uint32_t i = 0; i < na; i++) {
        int order = atom_compare(t, x[i], y[i]);
        if (order)
            return order;
    }
    return 0;
}

int dim_compare(const struct dims *t, dim a, dim b)
{
    if (a == b)
        return 0;
    struct terms x, y;
    terms_of(t, a, &x);
    terms_of(t, b, &y);
    for (uint32_t i = 0; i < x.count && i < y.count; i++) {
        int order = monomial_compare(t, x.arg[i], y.arg[i]);
        if (order)
            return order;
        if (x.coefficient[i] != y.coefficient[i])
            return x.coefficient[i] < y.coefficient[i] ? -1 : 1;
    }
    if (x.count != y.count)
        return x.count > y.count ? -1 : 1;
    return (x.value > y.value) - (x.value < y.value);
}

/* ---- monomials and polynomials ---- */

static dim intern_product(struct dims *t, const dim *atom, uint32_t count)
{
    if (count == 0)
        return t->one;
    if (count == 1)
        return atom[0];
    return dim_intern(t, &(struct dim_node){.op = DIM_PRODUCT, .count = count, .arg = atom});
}

dim monomial_mul(struct dims *t, dim a, dim b)
{
    uint32_t na, nb, n = 0, i = 0, j = 0;
    const dim *x = monomial_atoms(t, &a, &na), *y = monomial_atoms(t, &b, &nb);
    dim atom[DIM_DEGREE_LIMIT];
    if (na + nb > DIM_DEGREE_LIMIT)
        return DIM_NONE;
    while (i < na || j < nb) {
        bool left = j == nb || (i < na && atom_compare(t, x[i], y[j]) <= 0);
        atom[n++] = left ? x[i++] : y[j++];
    }
    return intern_product(t, atom, n);
}

bool monomial_div(struct dims *t, dim a, dim b, dim *out)
{
    uint32_t na, nb, n = 0, j = 0;
    const dim *x = monomial_atoms(t, &a, &na), *y = monomial_atoms(t, &b, &nb);
    dim atom[DIM_DEGREE_LIMIT];
    for (uint32_t i = 0; i < na; i++) {
        if (j < nb && x[i] == y[j])
            j++;
        else
            atom[n++] = x[i];
    }
    if (j < nb)
        return false;
    *out = intern_product(t, atom, n);
    return dim_valid(*out);
}

bool poly_append(const struct dims *t, struct poly *p, int64_t coefficient, dim monomial)
{
    if (coefficient == 0)
        return true;
    if (monomial == DIM_NONE)
        return false;
    if (dim_node_at(t, monomial)->op == DIM_CONST) {
        int64_t product;
        return i64_mul(coefficient, dim_node_at(t, monomial)->value, &product) && i64_add(p->value, product, &p->value);
    }
    if (p->count == DIM_TERM_LIMIT)
        return false;
    p->arg[p->count] = monomial;
    p->coefficient[p->count++] = coefficient;
    return true;
}

dim poly_dim(struct dims *t, const struct poly *p)
{
    if (p->count == 0)
        return dim_const(t, p->value);
    if (p->count == 1 && p->coefficient[0] == 1 && p->value == 0)
        return p->arg[0];
    return dim_intern(
        t, &(struct dim_node){
               .op = DIM_SUM, .count = p->count, .value = p->value, .arg = p->arg, .coefficient = p->coefficient});
}

/* a + factor * b, as merged terms. */
static dim combine(struct dims *t, dim a, int64_t factor, dim b)
{
    struct terms x, y;
    terms_of(t, a, &x);
    terms_of(t, b, &y);
    struct poly p;
    p.count = 0;
    if (!i64_mul(factor, y.value, &p.value) || !i64_add(x.value, p.value, &p.value))
        return DIM_NONE;
    for (uint32_t i = 0, j = 0; i < x.count || j < y.count;) {
        int order = i == x.count ? 1 : j == y.count ? -1 : monomial_compare(t, x.arg[i], y.arg[j]);
        int64_t c = 0;
        if (order >= 0 && !i64_mul(factor, y.coefficient[j], &c))
            return DIM_NONE;
        if (order <= 0 && !i64_add(x.coefficient[i], c, &c))
            return DIM_NONE;
        if (!poly_append(t, &p, c, order <= 0 ? x.arg[i] : y.arg[j]))
            return DIM_NONE;
        i += order <= 0;
        j += order >= 0;
    }
    return poly_dim(t, &p);
}

dim dim_add(struct dims *t, dim a, dim b)
{
    if (!a || !b)
        return DIM_NONE;
    if (a == t->zero || b == t->zero)
        return a == t->zero ? b : a;
    bool hit;
    struct dim_memo *m = dim_memo_at(t, MEMO_ADD, a, b, &hit);
    return hit ? m->result : remember(t, MEMO_ADD, a, b, combine(t, a, 1, b));
}

dim dim_sub(struct dims *t, dim a, dim b)
{
    if (!a || !b)
        return DIM_NONE;
    if (a == b)
        return t->zero;
    return b == t->zero ? a : combine(t, a, -1, b);
}

/* a * coefficient * monomial: one row of a product; stays sorted. */
static dim multiply_row(struct dims *t, dim a, int64_t coefficient, dim monomial)
{
    struct terms x;
    terms_of(t, a, &x);
    struct poly p = {0};
    int64_t c;
    for (uint32_t i = 0; i < x.count; i++)
        if (!i64_mul(x.coefficient[i], coefficient, &c) || !poly_append(t, &p, c, monomial_mul(t, x.arg[i], monomial)))
            return DIM_NONE;
    if (!i64_mul(x.value, coefficient, &c) || !poly_append(t, &p, c, monomial))
        return DIM_NONE;
    return poly_dim(t, &p);
}

static dim multiply(struct dims *t, dim a, dim b)
{
    struct terms y;
    terms_of(t, b, &y);
    dim sum = y.value ? multiply_row(t, a, y.value, t->one) : t->zero;
    for (uint32_t j = 0; j < y.count; j++)
        sum = dim_add(t, sum, multiply_row(t, a, y.coefficient[j], y.arg[j]));
    return sum;
}

dim dim_mul(struct dims *t, dim a, dim b)
{
    if (!a || !b)
        return DIM_NONE;
    if (a == t->zero || b == t->zero)
        return t->zero;
    if (a == t->one || b == t->one)
        return a == t->one ? b : a;
    bool hit;
    struct dim_memo *m = dim_memo_at(t, MEMO_MUL, a, b, &hit);
    return hit ? m->result : remember(t, MEMO_MUL, a, b, multiply(t, a, b));
}

dim dim_product(struct dims *t, const dim *d, uint32_t count)
{
    dim product = t->one;
    for (uint32_t i = 0; i < count; i++)
        product = dim_mul(t, product, d[i]);
    return product;
}
