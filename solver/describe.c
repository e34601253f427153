/* solver/describe.c - components as byte strings: equal strings have equal solutions.
 *
 * Invariant: everything that region_decisions, unit_enumerate, the costs and the rules look at is in the string, in terms of positions within the component
 * and its regions. What is forgotten here makes unequal components share a solution; the brute-force test finds that. Start with describe.
 */
#include "solver/search.h"

static void put(struct bytes *b, uint64_t x)
{
    if (b->count + 8 > b->capacity) {
        size_t capacity = b->capacity ? b->capacity * 2 : 512;
        uint8_t *at = NEW_ARRAY(b->arena, uint8_t, capacity);
        if (b->count)
            memcpy(at, b->at, b->count);
        b->at = at;
        b->capacity = capacity;
    }
    for (int i = 0; i < 8; i++)
        b->at[b->count++] = (uint8_t)(x >> (8 * i));
}

void bytes_put(struct bytes *b, uint64_t x)
{
    put(b, x);
}

static void put_node(struct bytes *b, const struct node *n)
{
    const struct attribute *a = &n->attribute;
    put(b, (uint64_t)n->op << 32 | (uint64_t)n->dtype << 16 | n->rank);
    put(b, (uint64_t)(uint32_t)a->axis << 32 | (uint32_t)a->mode);
    put(b, (uint64_t)(uint32_t)a->nbatch << 32 | (uint32_t)a->ncontract);
    put(b, (uint64_t)a->list_count << 32 | a->dims_count);
    for (uint32_t i = 0; i < n->rank; i++)
        put(b, n->shape[i]);
    for (uint32_t i = 0; i < a->list_count; i++)
        put(b, (uint32_t)a->list[i]);
    for (uint32_t i = 0; i < a->dims_count; i++)
        put(b, a->dims[i]);
}

static void put_placement(struct bytes *b, const struct placement *p)
{
    put(b, (uint64_t)p->partial << 32 | p->partial_subaxes);
    for (uint32_t i = 0; i < p->rank; i++) {
        put(b, p->axis[i].count);
        for (uint32_t k = 0; k < p->axis[i].count; k++) {
            put(b, p->axis[i].segment[k].count);
            for (uint32_t f = 0; f < p->axis[i].segment[k].count; f++)
                put(b,
                    (uint64_t)p->axis[i].segment[k].factor[f].extent << 32 | p->axis[i].segment[k].factor[f].partition);
        }
    }
}

static void put_tree(struct bytes *b, const struct solver *s, tree t, unsigned depth)
{
    const struct tree_node *n = &s->trees.at[tree_find(s, t)];
    put(b, (uint64_t)n->kind << 60 | (uint64_t)n->row << 56 | (uint64_t)n->ordinal << 32 | n->extent);
    put(b, n->count);
    for (uint32_t i = 0; i < n->count && depth < 60; i++)
        put_tree(b, s, n->child[i], depth + 1);
}

/* Interns a byte string: equal strings get equal numbers. */
static uint32_t intern(struct map *m, const struct bytes *b)
{
    bool added;
    uint32_t *slot = map_put(m, b->at, b->count, &added);
    if (added)
        *slot = m->count;
    return *slot;
}

static void find_cones(struct solver *s, struct map *m)
{
    for (value v = 1; v < s->node_count; v++) {
        const struct node *n = graph_node(s->g, v);
        if (s->role[v] != ROLE_PRELUDE || !s->live[v])
            continue;
        struct arena_mark mark = arena_mark(s->temporary);
        struct bytes b = {.arena = s->temporary};
        put_node(&b, n);
        for (uint32_t i = 0; i < n->operand_count; i++)
            put(&b, s->cone[n->operand[i]]);
        s->cone[v] = intern(m, &b);
        arena_rewind(s->temporary, mark);
    }
}

static void put_region(struct bytes *b, struct solver *s, const struct region *r)
{
    put(b, r->value_count);
    for (uint32_t i = 0; i < r->value_count; i++) {
        value v = r->values[i];
        const struct node *n = graph_node(s->g, v);
        put_node(b, n);
        put(b, (uint64_t)s->role[v] << 32 | s->handed_out[v]);
        put(b, s->joint_parent[v] ? position(r->values, r->value_count, s->joint_parent[v]) : UINT32_MAX);
        for (uint32_t k = 0; k < n->rank; k++)
            put_tree(b, s, s->axes[v][k], 0);
        put(b, s->whole[v]);
        for (uint32_t k = 0; s->slot[v] && k < n->operand_count; k++) {
            value u = n->operand[k];
            put(b, s->whole_at[v] ? s->whole_at[v][k] : 0);
            put(b, is_internal(s, v, k) ? position(r->values, r->value_count, u) : 1ull << 40 | s->cone[u]);
            for (uint32_t x = 0; !is_internal(s, v, k) && x < graph_node(s->g, u)->rank; x++)
                put_tree(b, s, s->slot[v][k][x], 0);
        }
    }
    for (uint32_t i = 0; i < r->class_count; i++) {
        put(b, (uint64_t)r->conflict[i] << 32 | s->trees.at[r->classes[i]].extent);
        put(b, r->allowed[i]);
    }
    for (uint32_t i = 0; i < r->shared_count; i++)
        put(b, position(r->values, r->value_count, r->shared[i]));
}

void find_signatures(struct solver *s)
{
    struct map cones = {.arena = s->arena}, regions = {.arena = s->arena};
    find_cones(s, &cones);
    for (uint32_t r = 1; r < s->regions.count; r++) {
        struct bytes b = {.arena = s->temporary};
        put_region(&b, s, &s->regions.at[r]);
        s->regions.at[r].signature = intern(&regions, &b);
    }
}

/* One end of a unit: a region of the component, or what is decided there. */
static void put_end(struct bytes *b, struct solver *s, const struct component *c, uint32_t region, value v,
                    const struct placement *p)
{
    if (!region) {
        put(b, 0);
        return;
    }
    uint32_t at = position(c->region, c->region_count, region);
    if (at == UINT32_MAX) {
        put(b, 1);
        put_placement(b, p);
        return;
    }
    put(b, 2 + at);
    put(b, position(s->regions.at[region].values, s->regions.at[region].value_count, v));
}

struct bytes describe(struct solver *s, const struct component *c, const uint32_t *orbit)
{
    struct bytes b = {.arena = s->temporary};
    put(&b, (uint64_t)c->region_count << 32 | c->unit_count);
    for (uint32_t i = 0; i < s->mesh->count; i++) {
        uint32_t first = i;
        for (uint32_t k = i; k-- > 0;)
            first = orbit[k] == orbit[i] ? k : first;
        put(&b, first);
    }
    pins_describe(&b, s, c);
    for (uint32_t i = 0; i < c->region_count; i++)
        put(&b, s->regions.at[c->region[i]].signature);
    for (uint32_t i = 0; i < c->unit_count; i++) {
        const struct unit *u = &s->units.at[c->unit[i]];
        const struct node *n = graph_node(s->g, u->node);
        put(&b, (uint64_t)u->kind << 32 | u->slot);
        if (u->kind != UNIT_EDGE) {
            put_node(&b, n);
            put(&b, s->cone[n->operand[1 - u->slot]]);
        }
        put_node(&b, graph_node(s->g, u->source));
        put(&b, (uint64_t)s->gathered[u->node] << 4 | (uint64_t)s->handed_out[u->node] << 3 |
                    (uint64_t)unit_may_cut_alone(s, u) << 2 | (uint64_t)s->gathered[u->source] << 1 |
                    s->handed_out[u->source]);
        put_end(&b, s, c, u->from, u->source, u->from ? value_placement(s, u->source, s->temporary) : NULL);
        put_end(&b, s, c, u->to, u->node,
                u->kind == UNIT_EDGE ? slot_placement(s, u->node, u->slot, s->temporary)
                                     : value_placement(s, u->node, s->temporary));
    }
    return b;
}
