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
        if (n->op == OP_PARAM)
            put(&b, s->readers[n->attribute.index]);
        for (uint32_t i = 0; i < n->operand_count; i++)
            put(&b, s->cone[n->operand[i]]);
        s->cone[v] = intern(m, &b);
        arena_rewind(s->temporary, mark);
    }
}

/* What a region's solution depends on in value number i of it; other values by how far before or behind they are. */
static void put_value(struct bytes *b, struct solver *s, const struct region *r, uint32_t i)
{
    value v = r->values[i];
    const struct node *n = graph_node(s->g, v);
    put_node(b, n);
    put(b, (uint64_t)s->role[v] << 32 | s->handed_out[v]);
    put(b, s->joint_parent[v] ? position(r->values, r->value_count, s->joint_parent[v]) - i : 0);
    for (uint32_t k = 0; k < n->rank; k++)
        put_tree(b, s, s->axes[v][k], 0);
    put(b, s->whole[v]);
    for (uint32_t k = 0; s->slot[v] && k < n->operand_count; k++) {
        value u = n->operand[k];
        put(b, s->whole_at[v] ? s->whole_at[v][k] : 0);
        put(b, is_internal(s, v, k) ? i - position(r->values, r->value_count, u) : 1ull << 40 | s->cone[u]);
        for (uint32_t x = 0; !is_internal(s, v, k) && x < graph_node(s->g, u)->rank; x++)
            put_tree(b, s, s->slot[v][k][x], 0);
    }
}

static void put_region(struct bytes *b, struct solver *s, const struct region *r, struct map *values)
{
    put(b, r->value_count);
    for (uint32_t i = 0; i < r->value_count; i++) {
        struct arena_mark mark = arena_mark(s->temporary);
        struct bytes one = {.arena = s->temporary};
        put_value(&one, s, r, i);
        put(b, intern(values, &one));
        arena_rewind(s->temporary, mark);
    }
    for (uint32_t i = 0; i < r->class_count; i++) {
        put(b, (uint64_t)r->conflict[i] << 32 | s->trees.at[r->classes[i]].extent);
        put(b, r->allowed[i]);
    }
    for (uint32_t i = 0; i < r->shared_count; i++)
        put(b, position(r->values, r->value_count, r->shared[i]));
}

static void put_view(struct bytes *b, const struct solver *s, const struct view *view)
{
    put(b, view->whole);
    for (uint32_t i = 0; i < view->rank; i++)
        put_tree(b, s, view->axes[i], 0);
}

/* A value and what it is computed from, then the op that takes its sum on: joint.c looks at no more, when no other sum joins. */
static void find_chains(struct solver *s)
{
    struct map chains = {.arena = s->arena};
    for (value v = s->node_count; v-- > 1;) {
        const struct node *n = graph_node(s->g, v);
        if (!s->region_of[v] || !s->live[v])
            continue;
        struct arena_mark mark = arena_mark(s->temporary);
        struct bytes b = {.arena = s->temporary};
        struct view view = value_view(s, v);
        put_node(&b, n);
        put_view(&b, s, &view);
        for (uint32_t i = 0; s->slot[v] && i < n->operand_count; i++) {
            struct view slot = slot_view(s, v, i);
            put_view(&b, s, &slot);
        }
        put(&b, s->joint_parent[v] ? s->chain[s->joint_parent[v]] : 0);
        s->chain[v] = intern(&chains, &b);
        arena_rewind(s->temporary, mark);
    }
}

void find_signatures(struct solver *s)
{
    struct arena *strings = arena_new_in(s->arena);
    struct map cones = {.arena = s->arena}, regions = {.arena = s->arena}, values = {.arena = strings};
    find_cones(s, &cones);
    find_chains(s);
    for (uint32_t r = 1; r < s->regions.count; r++) {
        struct bytes b = {.arena = strings};
        put_region(&b, s, &s->regions.at[r], &values);
        s->regions.at[r].signature = intern(&regions, &b);
    }
    arena_free(strings);
}

/* One end of a unit: a region of the component, or what is decided there, or in the region that is about to be decided how the value follows from that. */
static void put_end(struct bytes *b, struct solver *s, const struct component *c, uint32_t hub, uint32_t region,
                    value v, const struct view *view)
{
    uint32_t at = region ? position(c->region, c->region_count, region) : 0;
    if (!region) {
        put(b, 0);
    } else if (region == hub) {
        put(b, 2);
        put_view(b, s, view);
    } else if (at == UINT32_MAX) {
        put(b, 1);
        put_placement(b, view_placement(s, s->scratch, view, OVER_ALL, s->temporary));
    } else {
        put(b, 3 + at);
        put(b, position(s->regions.at[region].values, s->regions.at[region].value_count, v));
    }
}

/* Is the value gathered once for all who take it? In the hub: by which bit of its decision. */
static uint32_t gathered_by(const struct solver *s, uint32_t hub, value v)
{
    const struct region *r = &s->regions.at[hub];
    if (!hub || s->region_of[v] != hub)
        return s->gathered[v];
    for (uint32_t i = 0; i < r->shared_count; i++)
        if (r->shared[i] == v)
            return 3 + i;
    return position(r->shards, r->shard_count, v) == UINT32_MAX ? 0 : 2;
}

struct bytes describe(struct solver *s, const struct component *c, const uint32_t *orbit, uint32_t hub)
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
        put(&b, (uint64_t)gathered_by(s, hub, u->node) << 32 | gathered_by(s, hub, u->source));
        put(&b,
            (uint64_t)s->handed_out[u->node] << 2 | (uint64_t)unit_may_cut_alone(s, u) << 1 | s->handed_out[u->source]);
        struct view source = u->from ? value_view(s, u->source) : (struct view){0};
        struct view target = u->kind == UNIT_EDGE ? slot_view(s, u->node, u->slot) : value_view(s, u->node);
        put_end(&b, s, c, hub, u->from, u->source, &source);
        put_end(&b, s, c, hub, u->to, u->node, &target);
        put(&b, hub && u->to == hub ? s->chain[u->node] : 0);
    }
    return b;
}
