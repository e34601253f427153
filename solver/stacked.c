/* solver/stacked.c - weights that have an axis beside their inputs and outputs (experts), and where a router's values meet it.
 *
 * A class on such an axis is *stacked*. What a router computes over it (softmax, top-k, a scatter of the chosen weights) needs it whole, and would
 * tie it to being whole everywhere. But between the router's values and what the stacked weights made stands nothing that communicates: a rank that
 * has all of the former takes its own part of them. So the edges between the two are switch points, where only the stacked side may be cut.
 *
 * Invariant: an edge is only set apart where a stacked class would be blocked otherwise: other graphs keep their regions. Start with stacked_apart.
 */
#include "solver/internal.h"

struct stacked {
    struct solver *s;
    tree class;
    bool *inside; /* per value: made from stacked weights, along the class */
};

static bool holds(const struct stacked *k, const tree *axes, uint32_t rank)
{
    struct solver *s = k->s;
    struct arena_mark mark = arena_mark(s->temporary);
    bool found = false;
    for (uint32_t i = 0; i < rank && !found; i++) {
        tree_list leaves = {0};
        tree_leaves(s, axes[i], s->temporary, &leaves);
        for (uint32_t x = 0; x < leaves.count && !found; x++)
            found = leaves.at[x] == k->class;
    }
    arena_rewind(s->temporary, mark);
    return found;
}

void stacked_leaves(const struct solver *s, const struct unit *u, struct arena *arena, tree_list *out)
{
    const struct node *n = graph_node(s->g, u->node);
    if (u->kind != UNIT_LINEAR)
        return;
    uint32_t nb = (uint32_t)n->attribute.nbatch, nk = (uint32_t)n->attribute.ncontract;
    uint32_t rows = graph_node(s->g, u->source)->rank - nb - nk, columns = n->rank - nb - rows;
    uint32_t first = nb + (u->slot == 0 ? rows : 0);
    for (uint32_t i = 0; i < nb; i++)
        tree_leaves(s, s->axes[u->node][i], arena, out);
    for (uint32_t i = first; columns > 1 && i < first + columns - 1; i++) /* the last is its output */
        tree_leaves(s, s->axes[u->node][i], arena, out);
}

static bool is_spread(op o)
{
    return o == OP_BROADCAST || o == OP_RESHAPE || o == OP_TRANSPOSE || o == OP_CAST;
}

/* All that is made of v is inside, and v only moves what it is made of: the border may lie above it. */
static bool only_for_inside(const struct stacked *k, value v)
{
    const struct solver *s = k->s;
    if (!is_spread(graph_node(s->g, v)->op) || s->is_output[v])
        return false;
    for (uint32_t i = s->uses.first[v]; i < s->uses.first[v + 1]; i++)
        if (s->live[s->uses.use[i]] && !(k->inside[s->uses.use[i]] && s->role[s->uses.use[i]] == ROLE_OP))
            return false;
    return true;
}

/* Also what takes something from inside and no longer holds the class (a sum over it). */
static bool touches_inside(const struct stacked *k, value v)
{
    const struct node *n = graph_node(k->s->g, v);
    bool found = k->inside[v];
    for (uint32_t i = 0; i < n->operand_count && !found; i++)
        found = is_internal(k->s, v, i) && k->inside[n->operand[i]];
    return found;
}

static void find_inside(struct stacked *k, const struct region *r, const bool *made_here)
{
    struct solver *s = k->s;
    for (uint32_t i = 0; i < r->value_count; i++) {
        value v = r->values[i];
        k->inside[v] = made_here[v] || (s->role[v] == ROLE_OP && touches_inside(k, v) &&
                                        holds(k, s->axes[v], graph_node(s->g, v)->rank));
    }
    for (uint32_t i = r->value_count; i-- > 0;) {
        value v = r->values[i];
        if (!k->inside[v] && s->role[v] == ROLE_OP && only_for_inside(k, v))
            k->inside[v] = holds(k, s->axes[v], graph_node(s->g, v)->rank);
    }
}

/* Sets apart the edges that lead into the class from elsewhere; true when there are any. */
static bool part_class(struct stacked *k, uint32_t region, const bool *made_here)
{
    struct solver *s = k->s;
    const struct region *r = &s->regions.at[region];
    bool found = false;
    find_inside(k, r, made_here);
    for (uint32_t i = 0; i < r->value_count; i++) {
        value v = r->values[i];
        const struct node *n = graph_node(s->g, v);
        if (s->role[v] != ROLE_OP || !touches_inside(k, v))
            continue;
        for (uint32_t x = 0; x < n->operand_count && x < 32; x++)
            if (is_internal(s, v, x) && !k->inside[n->operand[x]] &&
                holds(k, s->axes[n->operand[x]], graph_node(s->g, n->operand[x])->rank)) {
                s->apart[v] |= 1u << x;
                found = true;
            }
    }
    for (uint32_t i = 0; i < r->value_count; i++)
        k->inside[r->values[i]] = false;
    return found;
}

/* The units whose weights are stacked along the class, as their results. */
static void mark_made(struct solver *s, tree class, bool *made_here, bool mark)
{
    for (uint32_t i = 0; i < s->units.count; i++) {
        struct arena_mark keep = arena_mark(s->temporary);
        tree_list leaves = {0};
        stacked_leaves(s, &s->units.at[i], s->temporary, &leaves);
        for (uint32_t x = 0; x < leaves.count; x++)
            if (leaves.at[x] == class)
                made_here[s->units.at[i].node] = mark;
        arena_rewind(s->temporary, keep);
    }
}

bool stacked_apart(struct solver *s)
{
    struct stacked k = {.s = s, .inside = NEW_ARRAY(s->arena, bool, s->node_count)};
    bool *made_here = NEW_ARRAY(s->arena, bool, s->node_count), found = false;
    tree_list done = {0};
    for (uint32_t i = 0; i < s->units.count; i++) {
        tree_list leaves = {0};
        stacked_leaves(s, &s->units.at[i], s->arena, &leaves);
        for (uint32_t x = 0; x < leaves.count; x++) {
            bool known = s->trees.at[leaves.at[x]].block == BLOCK_NONE;
            for (uint32_t d = 0; d < done.count && !known; d++)
                known = done.at[d] == leaves.at[x];
            if (known)
                continue;
            *PUSH(s->arena, &done) = k.class = leaves.at[x];
            mark_made(s, k.class, made_here, true);
            found |= part_class(&k, s->units.at[i].to, made_here);
            mark_made(s, k.class, made_here, false);
        }
    }
    return found;
}

void stacked_routers(struct solver *s)
{
    for (uint32_t i = 0; i < s->units.count; i++) {
        const struct unit *u = &s->units.at[i];
        if (u->kind == UNIT_EDGE && u->slot < 32 && (s->apart[u->node] >> u->slot & 1))
            s->regions.at[u->from].routes = true;
    }
}
