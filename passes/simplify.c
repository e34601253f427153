/* passes/simplify.c - the same outputs from fewer, canonical nodes.
 *
 * Requires: a verified Graph. Keeps: outputs, inputs (all, in order), states, names of the values that survive, origins. Breaks: nothing.
 *
 * The old graph is walked forward and every node is emitted anew. emit() first asks the rules of that op (simplify_rules.c); a rule
 * answers with an existing value, with something built through emit() again, or with 0: leave alone. Then an equal node that was
 * emitted before is reused, and only then is one added. What is emitted is thus simplified already, and there is no second round.
 *
 * Why it ends: each rule lowers (elements computed, steps of slices, nodes on the longest chain of layout ops, index of the op in ops.def), compared in that order.
 */
#include "passes/simplify.h"

static bool find_same(struct simplifier *s, const struct node *n, value *found, uint32_t **slot)
{
    struct text key = {.arena = s->scratch};
    uint64_t h = node_hash(n);
    text_putn(&key, (const char *)&h, sizeof h);
    text_putn(&key, (const char *)n->operand, n->operand_count * sizeof *n->operand);
    bool added = false;
    *slot = map_put(&s->seen, key.at, key.length, &added);
    for (value v = added ? 0 : **slot; v != 0; v = s->next_same.at[v]) {
        const struct node *o = graph_node(s->out, v);
        if (node_same(o, n) && o->operand_count == n->operand_count &&
            (n->operand_count == 0 || memcmp(o->operand, n->operand, n->operand_count * sizeof *n->operand) == 0)) {
            *found = v;
            return true;
        }
    }
    return false;
}

value emit(struct simplifier *s, const struct node *n)
{
    value v = simplify_by_rule(s, n);
    if (v != 0) {
        return v;
    }
    uint32_t *slot = NULL;
    if (n->op != OP_INPUT && find_same(s, n, &v, &slot)) {
        return v;
    }
    v = graph_add(s->out, n->op, n->dtype, n->rank, n->shape, n->operand_count, n->operand, &n->attribute);
    while (s->next_same.count <= v) {
        *PUSH(s->scratch, &s->next_same) = 0;
    }
    if (slot != NULL) {
        s->next_same.at[v] = *slot;
        *slot = v;
    }
    return v;
}

struct graph *graph_remake(struct arena *arena, const struct graph *g, remake *instead, void *context)
{
    struct graph *out = graph_derive(g);
    out->params.capacity = out->params.count; /* growing copies: g keeps its own */
    const bool *live = graph_live(g, arena);
    struct remaking r = {g, out, NEW_ARRAY(arena, value, g->nodes.count), context};
    for (value v = 1; v < g->nodes.count; v++) {
        if (!live[v]) {
            continue;
        }
        struct node n = *graph_node(g, v);
        graph_set_origin(out, n.origin);
        if (n.op == OP_INPUT) {
            r.new_of[v] = graph_input(out, g->inputs.at[n.attribute.index].name, n.dtype, n.rank, n.shape);
        } else {
            value *operand = NEW_ARRAY(arena, value, n.operand_count);
            for (uint32_t i = 0; i < n.operand_count; i++) {
                operand[i] = r.new_of[n.operand[i]];
            }
            n.operand = operand;
            value made = instead(&r, v, &n);
            r.new_of[v] = made != 0
                              ? made
                              : graph_add(out, n.op, n.dtype, n.rank, n.shape, n.operand_count, operand, &n.attribute);
        }
        if (n.name != NULL && out->nodes.at[r.new_of[v]].name == NULL) {
            out->nodes.at[r.new_of[v]].name = n.name;
        }
    }
    for (uint32_t i = 0; i < g->outputs.count; i++) {
        graph_output(out, g->outputs.at[i].name, r.new_of[g->outputs.at[i].value]);
    }
    out->states = g->states;
    out->states.capacity = out->states.count;
    return out;
}

static value emit_instead(struct remaking *r, value v, const struct node *n)
{
    struct simplifier *s = r->context;
    (void)v;
    s->out = r->out;
    return emit(s, n);
}

/* One walk: g's live nodes emitted into a new graph. */
static struct graph *rebuild(struct arena *arena, const struct graph *g)
{
    struct simplifier s = {.in = g, .scratch = arena, .seen = {.arena = arena}};
    return graph_remake(arena, g, emit_instead, &s);
}

status simplify(struct arena *arena, const struct graph *g, struct diag *diag, struct graph **out)
{
    (void)diag;
    struct graph *now =
        rebuild(arena, rebuild(arena, g)); /* the second walk drops what the first has left without a reader */
    struct graph *stacked = stack_terms(arena, now);
    struct graph *contracted = contract_sums(arena, stacked);
    struct graph *scaled = move_scales(arena, contracted);
    *out = scaled == now ? now : rebuild(arena, rebuild(arena, scaled));
    return TPC_OK;
}
