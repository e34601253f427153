/* passes/simplify_stack.c - terms of a sum that are computed alike, each from weights of its own, become one batched computation.
 *
 * A loop over experts that was unrolled when it was exported is a sum whose terms (lanes) differ in their weights, in constants, and in which slice of a
 * shared value (the router's) they take. Stacked, the lanes are an axis like any other, which the solver may cut. The weights of the lanes become one
 * stacked param: no byte moves, each rank reads the parts that it owns.
 *
 * A term's *cone* is what is computed for it alone: nodes whose every use lies in the cone. Two cones are alike when a walk from their ends meets equal nodes,
 * and the same values at the border. Invariant: entry i of every lane of a group plays the same part. Start with stack_terms.
 */
#include "passes/simplify_stack.h"

enum { MOST_CONE = 512 };

/* ---- sums ---- */

/* The one live use; 0 when there are none or several. */
static value sole_user(const struct stack *k, value v)
{
    value found = 0;
    for (uint32_t i = k->uses.first[v]; i < k->uses.first[v + 1]; i++) {
        if (k->live[k->uses.use[i]]) {
            if (found) {
                return 0;
            }
            found = k->uses.use[i];
        }
    }
    return k->is_output[v] ? 0 : found;
}

/* An addition that only another one takes. */
static bool is_inner(const struct stack *k, value v)
{
    value user = node_of(k, v)->op == OP_ADD ? sole_user(k, v) : 0;
    return user != 0 && node_of(k, user)->op == OP_ADD;
}

static void add_sum(struct stack *k, value root)
{
    LIST(value) open = {0}, terms = {0};
    *PUSH(k->arena, &open) = root;
    while (open.count) {
        const struct node *n = node_of(k, open.at[--open.count]);
        for (uint32_t i = 2; i-- > 0;) {
            if (is_inner(k, n->operand[i])) {
                *PUSH(k->arena, &open) = n->operand[i];
            } else {
                *PUSH(k->arena, &terms) = n->operand[i];
            }
        }
    }
    if (terms.count < 2) {
        return;
    }
    for (uint32_t i = 0; i < terms.count / 2;
         i++) { /* as they were written: the walk went from the last to the first */
        value last = terms.at[terms.count - 1 - i];
        terms.at[terms.count - 1 - i] = terms.at[i];
        terms.at[i] = last;
    }
    struct sum *s = PUSH(k->arena, &k->sums);
    *s = (struct sum){root, terms.count, terms.at, NEW_ARRAY(k->arena, uint32_t, terms.count)};
    k->sum_of[root] = k->sums.count;
}

/* ---- cones ---- */

/* A heap, the largest value first. */
typedef LIST(value) heap;

static void heap_add(struct arena *arena, heap *h, value v)
{
    *PUSH(arena, h) = v;
    for (uint32_t i = h->count - 1; i > 0 && h->at[(i - 1) / 2] < h->at[i]; i = (i - 1) / 2) {
        value up = h->at[(i - 1) / 2];
        h->at[(i - 1) / 2] = h->at[i];
        h->at[i] = up;
    }
}

static value heap_take(heap *h)
{
    value top = h->at[0];
    h->at[0] = h->at[--h->count];
    for (uint32_t i = 0, next; (next = 2 * i + 1) < h->count; i = next) {
        next += next + 1 < h->count && h->at[next + 1] > h->at[next];
        if (h->at[i] >= h->at[next]) {
            break;
        }
        value down = h->at[next];
        h->at[next] = h->at[i];
        h->at[i] = down;
    }
    return top;
}

static bool only_inside(const struct stack *k, value v)
{
    for (uint32_t i = k->uses.first[v]; i < k->uses.first[v + 1]; i++) {
        if (k->live[k->uses.use[i]] && k->inside[k->uses.use[i]] != k->stamp) {
            return false;
        }
    }
    return !k->is_output[v];
}

/* Marks what is computed for the term alone; false when it is too large. */
static bool mark_cone(struct stack *k, value term)
{
    heap open = {0};
    uint32_t taken = 0;
    k->stamp++;
    k->inside[term] = k->stamp;
    heap_add(k->arena, &open, term);
    while (open.count) {
        value v = heap_take(&open); /* its users have been decided */
        if (++taken > MOST_CONE) {
            return false;
        }
        for (uint32_t i = 0; i < node_of(k, v)->operand_count; i++) {
            value u = node_of(k, v)->operand[i];
            if (k->inside[u] != k->stamp && node_of(k, u)->op != OP_INPUT && only_inside(k, u)) {
                k->inside[u] = k->stamp;
                heap_add(k->arena, &open, u);
            }
        }
    }
    return true;
}

static void walk_cone(struct stack *k, struct lane *lane)
{
    LIST(struct entry) list = {0};
    *PUSH(k->arena, &list) = (struct entry){lane->term, true};
    k->number[lane->term] = 1;
    for (uint32_t i = 0; i < list.count; i++) {
        const struct node *n = node_of(k, list.at[i].at);
        for (uint32_t x = 0; list.at[i].inside && x < n->operand_count; x++) {
            value u = n->operand[x];
            if (k->number[u] == 0) {
                *PUSH(k->arena, &list) = (struct entry){u, k->inside[u] == k->stamp};
                k->number[u] = list.count;
            }
        }
    }
    lane->count = list.count;
    lane->entry = list.at;
}

static void put(struct text *t, uint64_t x)
{
    text_putn(t, (const char *)&x, sizeof x);
}

/* What two lanes must have in common. Weights, constants, and where a slice begins may differ. */
static void put_entry(struct stack *k, const struct entry *e, struct text *t)
{
    const struct node *n = node_of(k, e->at);
    const struct attribute *a = &n->attribute;
    put(t, e->inside ? 0 : 1 + (uint64_t)e->at);
    if (!e->inside) {
        return;
    }
    put(t, (uint64_t)n->op << 32 | (uint64_t)n->dtype << 16 | n->rank);
    put(t, (uint64_t)(uint32_t)a->axis << 32 | (uint32_t)a->mode);
    put(t, (uint64_t)(uint32_t)a->nbatch << 32 | (uint32_t)a->ncontract);
    put(t, (uint64_t)a->list_count << 32 | a->dims_count);
    for (uint32_t i = 0; i < n->rank; i++) {
        put(t, n->shape[i]);
    }
    for (uint32_t i = 0; i < a->list_count; i++) {
        put(t, (uint32_t)a->list[i]);
    }
    for (uint32_t i = 0; i < a->dims_count && n->op != OP_SLICE; i++) {
        put(t, a->dims[i]);
    }
    for (uint32_t i = 0; i < n->operand_count; i++) {
        put(t, k->number[n->operand[i]]);
    }
}

/* A cone worth stacking: with a product with a weight of its own. */
static bool has_own_weight(const struct stack *k, const struct lane *lane)
{
    bool weight = false, product = false;
    for (uint32_t i = 0; i < lane->count; i++) {
        const struct node *n = node_of(k, lane->entry[i].at);
        weight = weight || (lane->entry[i].inside && n->op == OP_PARAM);
        product = product || (lane->entry[i].inside && n->op == OP_DOT && n->attribute.ncontract > 0 &&
                              k->varies[n->operand[0]] != k->varies[n->operand[1]]);
    }
    return weight && product;
}

/* How many terms begin with each op. */
static void count_ops(const struct stack *k, const struct sum *s, uint32_t counts[OP_COUNT])
{
    memset(counts, 0, OP_COUNT * sizeof *counts);
    for (uint32_t i = 0; i < s->term_count; i++) {
        counts[node_of(k, s->term[i])->op]++;
    }
}

static void add_lane(struct stack *k, struct group *g, struct lane lane)
{
    if (g->count == g->capacity) {
        struct lane *more = NEW_ARRAY(k->arena, struct lane, g->capacity ? 2 * g->capacity : 4);
        if (g->count) {
            memcpy(more, g->lane, g->count * sizeof *more);
        }
        g->lane = more;
        g->capacity = g->capacity ? 2 * g->capacity : 4;
    }
    g->lane[g->count++] = lane;
}

/* The lane of a term and what it must have in common with others; false when it is none. Takes no memory then. */
static bool lane_of(struct stack *k, value term, struct lane *lane, struct text *key)
{
    struct arena_mark mark = arena_mark(k->arena);
    *lane = (struct lane){.term = term};
    bool found = sole_user(k, term) != 0 && mark_cone(k, term);
    if (found) {
        walk_cone(k, lane);
        found = has_own_weight(k, lane);
        for (uint32_t e = 0; e < lane->count && found; e++) {
            put_entry(k, &lane->entry[e], key);
        }
        for (uint32_t e = 0; e < lane->count; e++) {
            k->number[lane->entry[e].at] = 0;
        }
    }
    if (!found) {
        arena_rewind(k->arena, mark);
    }
    return found;
}

/* Sorts the terms of a sum into groups of lanes alike. */
static void find_groups(struct stack *k, uint32_t sum)
{
    struct sum *s = &k->sums.at[sum];
    struct map known = {.arena = k->arena};
    uint32_t counts[OP_COUNT];
    count_ops(k, s, counts);
    for (uint32_t i = 0; i < s->term_count; i++) {
        op o = node_of(k, s->term[i])->op;
        struct lane lane;
        struct text key = {.arena = k->arena};
        bool added;
        if (counts[o] < 2 || op_info(o)->class == CLASS_LEAF || !lane_of(k, s->term[i], &lane, &key)) {
            continue;
        }
        uint32_t *slot = map_put(&known, key.at, key.length, &added);
        if (added) {
            (void)PUSH(k->arena, &k->groups);
            *slot = k->groups.count - 1;
        }
        add_lane(k, &k->groups.at[*slot], lane);
        s->group[i] = *slot + 1;
    }
    for (uint32_t i = 0; i < s->term_count; i++) {
        if (s->group[i] && k->groups.at[s->group[i] - 1].count < 2) {
            s->group[i] = 0;
        }
    }
}

static value stack_instead(struct remaking *r, value v, const struct node *n)
{
    struct stack *k = r->context;
    (void)n;
    if (k->sum_of[v] == 0) {
        return 0;
    }
    const struct sum *s = &k->sums.at[k->sum_of[v] - 1];
    value *of_group = NEW_ARRAY(k->arena, value, k->groups.count + 1), total = 0;
    bool *tried = NEW_ARRAY(k->arena, bool, k->groups.count + 1), any = false;
    for (uint32_t i = 0; i < s->term_count; i++) {
        uint32_t group = s->group[i];
        value term = r->new_of[s->term[i]];
        if (group != 0 && !tried[group]) {
            tried[group] = true;
            of_group[group] = term = stacked_sum(k, r, &k->groups.at[group - 1]);
            any = any || term != 0;
        } else if (group != 0 && of_group[group] != 0) {
            continue;
        }
        term = term == 0 ? r->new_of[s->term[i]] : term;
        total = total == 0 ? term : graph_binary(r->out, OP_ADD, total, term);
    }
    return any ? total : 0;
}

struct graph *stack_terms(struct arena *arena, struct graph *g)
{
    uint32_t count = g->nodes.count;
    struct arena *scratch = arena_new_in(arena);
    struct stack k = {.arena = scratch, .g = g, .uses = graph_uses(g, scratch), .live = graph_live(g, scratch)};
    bool any = false;
    k.is_output = NEW_ARRAY(scratch, bool, count);
    k.varies = NEW_ARRAY(scratch, bool, count);
    k.inside = NEW_ARRAY(scratch, uint32_t, count);
    k.number = NEW_ARRAY(scratch, uint32_t, count);
    k.sum_of = NEW_ARRAY(scratch, uint32_t, count);
    k.stacked = NEW_ARRAY(scratch, bool, g->params.count + 1);
    for (uint32_t i = 0; i < g->outputs.count; i++) {
        k.is_output[g->outputs.at[i].value] = true;
    }
    for (value v = 1; v < count; v++) {
        const struct node *n = graph_node(g, v);
        k.varies[v] = n->op == OP_INPUT;
        for (uint32_t i = 0; i < n->operand_count; i++) {
            k.varies[v] = k.varies[v] || k.varies[n->operand[i]];
        }
        if (k.live[v] && n->op == OP_ADD && dtype_is_float(n->dtype) && !is_inner(&k, v)) {
            add_sum(&k, v);
        }
    }
    for (uint32_t i = 0; i < k.sums.count; i++) {
        find_groups(&k, i);
        for (uint32_t t = 0; t < k.sums.at[i].term_count; t++) {
            any = any || k.sums.at[i].group[t] != 0;
        }
    }
    struct graph *out = any ? graph_remake(arena, g, stack_instead, &k) : g;
    arena_free(scratch);
    return out;
}
