/* solver/evaluate.c - what a solution costs, computed from its placements alone: conversions where result and use differ, ops, weights, states.
 *
 * The search adds the same things up region by region; tests compare the two. Start with solution_cost.
 */
#include "solver/internal.h"

static void add_target(struct solver *s, target_list *list, const struct placement *p)
{
    for (uint32_t i = 0; i < list->count; i++)
        if (placement_equal(list->at[i], p))
            return;
    *PUSH(s->temporary, list) = p;
}

/* The distinct placements in which v is wanted. */
static target_list targets_of(struct solver *s, const struct solution *out, value v)
{
    target_list list = {0};
    for (uint32_t i = s->uses.first[v]; i < s->uses.first[v + 1]; i++) {
        value w = s->uses.use[i];
        for (uint32_t k = 0; s->live[w] && k < graph_node(s->g, w)->operand_count; k++)
            if (graph_node(s->g, w)->operand[k] == v)
                add_target(s, &list, out->operand[w][k]);
    }
    return list;
}

static bool is_leaf(const struct node *n)
{
    return n->op == OP_PARAM || n->op == OP_CONSTANT || n->op == OP_IOTA || n->op == OP_DIM;
}

static bool is_past(const struct solver *s, value v)
{
    for (uint32_t i = 0; i < s->g->states.count; i++)
        if (s->g->inputs.at[s->g->states.at[i].input].value == v)
            return true;
    return false;
}

/* Bytes of a param, by the targets of all nodes that read it. */
static double param_share(struct solver *s, const target_list *targets, dtype type)
{
    double sum = 0;
    for (uint32_t i = 0; i < targets->count; i++) {
        struct placement plain = *targets->at[i];
        plain.partial = 0;
        sum += placement_elements(s, s->g, &plain, 0) * (double)dtype_size(type);
    }
    return sum;
}

struct tally {
    double weights, states;
};

static struct tally weigh(struct solver *s, const struct solution *out)
{
    struct tally t = {0, 0};
    target_list *of = (target_list *)arena_array(s->temporary, s->g->params.count + 1, sizeof *of);
    for (value v = 1; v < s->node_count; v++) {
        const struct node *n = graph_node(s->g, v);
        if (!s->live[v])
            continue;
        if (n->op == OP_PARAM) {
            target_list here = targets_of(s, out, v);
            for (uint32_t i = 0; i < here.count; i++)
                add_target(s, &of[n->attribute.index], here.at[i]);
        }
        if (n->op == OP_INPUT && is_past(s, v)) {
            t.states += placement_elements(s, s->g, out->result[v], 1) * (double)dtype_size(n->dtype);
        }
    }
    for (uint32_t i = 0; i < s->g->params.count; i++) {
        const struct param *p = &s->g->params.at[i];
        double whole = (double)dtype_size(p->dtype), bytes = param_share(s, &of[i], p->dtype);
        for (uint32_t k = 0; k < p->rank; k++)
            whole *= (double)p->shape[k];
        t.weights += bytes > whole ? whole : bytes; /* the union of slices is never more than the whole */
    }
    return t;
}

double solution_bytes(struct solver *s, const struct solution *out)
{
    struct tally t = weigh(s, out);
    return t.weights + t.states;
}

struct solve_cost solution_cost(struct graph *g, const struct solution *out, const struct solve_options *options,
                                struct arena *arena)
{
    struct solver s;
    struct cost c = cost_zero();
    solver_start(&s, g, options, arena_new_in(arena));
    s.scratch->partitions.at = g->partitions.at; /* the solution's, for stored_bytes */
    s.scratch->partitions.count = s.scratch->partitions.capacity = g->partitions.count;
    c.bytes = (int64_t)weigh(&s, out).states;
    for (uint32_t i = 0; i < s.units.count; i++) { /* the objective takes the uses of a weight for alike */
        const struct unit *u = &s.units.at[i];
        if (u->kind != UNIT_EDGE)
            c.bytes +=
                stored_bytes(&s, graph_node(g, u->node)->operand[1 - u->slot], out->operand[u->node][1 - u->slot]);
    }
    for (value v = 1; v < s.node_count; v++) {
        const struct node *n = graph_node(g, v);
        struct arena_mark mark = arena_mark(s.temporary);
        if (!s.live[v])
            continue;
        if (s.role[v] != ROLE_PRELUDE)
            c = cost_add(c, op_cost(&s, g, v, (const struct placement *const *)out->operand[v], out->result[v]));
        target_list targets = {0};
        if (!is_leaf(n))
            targets = targets_of(&s, out, v);
        for (uint32_t i = 0; i < g->outputs.count; i++)
            if (g->outputs.at[i].value == v && !is_leaf(n))
                add_target(&s, &targets, out->output[i]);
        if (targets.count)
            c = cost_add(c, conversions_cost(&s, g, v, out->result[v], targets.count, targets.at));
        arena_rewind(s.temporary, mark);
    }
    return (struct solve_cost){c.bytes, c.time, c.switches};
}
