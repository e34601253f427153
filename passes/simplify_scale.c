/* passes/simplify_scale.c - a constant factor of a product of two activations stands on the operand where it costs least.
 *
 *   dot(q * a, transpose(k * b))  =  dot(q * (a b), transpose(k))
 *
 * Exporters scale queries and keys by a root of the scale each, to keep f16 in range; but keys are a cache, which a factor behind it makes a copy of in every
 * step. So factors of both operands become one, computed in double and rounded once, on the operand that holds no state, else on the one that provably
 * has fewer elements, else on the left one. A factor that is there already stays. It is left alone where several read what is scaled, and where the one factor
 * is not safe in the type. Values differ by roundings alone. Start at scale_instead; walk() finds the factors of one operand.
 */
#include "passes/simplify.h"

#include <math.h>

enum { MOST_STEPS = 32 }; /* views and factors above an operand */

struct scales {
    struct uses uses;
    const bool *live;
    bool *is_output, *is_state, *varies; /* per value; varies: depends on an input */
};

/* An operand of a dot: views and factors, the dot's operand first, down to the value `source`. */
struct side {
    value chain[MOST_STEPS], source;
    uint32_t count;
    bool scaled, state;
    double factor;
    dim elements; /* of the source */
};

static bool used_once(const struct scales *k, value v)
{
    uint32_t count = 0;
    for (uint32_t i = k->uses.first[v]; i < k->uses.first[v + 1]; i++)
        count += k->live[k->uses.use[i]];
    return count == 1 && !k->is_output[v];
}

static bool is_view(op o)
{
    return o == OP_TRANSPOSE || o == OP_RESHAPE || o == OP_BROADCAST;
}

/* Is every element of v one and the same finite constant, not 0? */
static bool is_uniform(const struct graph *g, value v, double *number)
{
    const struct node *n = graph_node(g, v);
    while (is_view(n->op))
        n = graph_node(g, n->operand[0]);
    if (n->op != OP_CONSTANT || !dtype_is_float(n->dtype) || n->attribute.data_size != dtype_size(n->dtype))
        return false;
    *number = dtype_load_f64(n->dtype, n->attribute.data, 0);
    return *number != 0 && isfinite(*number);
}

/* v = rest * factor; 0: it is not. */
static value without_factor(const struct graph *g, value v, double *factor)
{
    const struct node *n = graph_node(g, v);
    if (n->op != OP_MUL && n->op != OP_DIV)
        return 0;
    if (is_uniform(g, n->operand[1], factor)) {
        *factor = n->op == OP_DIV ? 1 / *factor : *factor;
        return n->operand[0];
    }
    return n->op == OP_MUL && is_uniform(g, n->operand[0], factor) ? n->operand[1] : 0;
}

/* Is v a part of a state's memory, moved at most? */
static bool holds_state(const struct scales *k, const struct graph *g, value v)
{
    for (uint32_t i = 0; i < MOST_STEPS; i++) {
        const struct node *n = graph_node(g, v);
        if (k->is_state[v])
            return true;
        if (op_info(n->op)->class != CLASS_LAYOUT || n->operand_count == 0)
            return false;
        v = n->operand[0];
    }
    return false;
}

static struct side walk(const struct scales *k, const struct graph *g, value v)
{
    struct side s = {.factor = 1};
    while (s.count < MOST_STEPS && used_once(k, v)) {
        double factor;
        value rest = without_factor(g, v, &factor);
        if (rest == 0 && !is_view(graph_node(g, v)->op))
            break;
        s.chain[s.count++] = v;
        s.scaled |= rest != 0;
        s.factor *= rest != 0 ? factor : 1;
        v = rest != 0 ? rest : graph_node(g, v)->operand[0];
    }
    s.source = v;
    s.state = holds_state(k, g, v);
    s.elements = graph_elements(g, v);
    return s;
}

/* Is a factor on a provably dearer than on b? */
static bool is_dearer(const struct graph *g, const struct side *a, const struct side *b)
{
    if (a->state != b->state)
        return a->state;
    return a->elements != b->elements && dim_provably_ge(g->dims, a->elements, b->elements);
}

/* f16 has so little room that what is scaled twice as much could overflow, or lose its digits. */
static bool is_safe(dtype t, double factor)
{
    double least = t == DT_F64 ? 0x1p-1022 : t == DT_F16 ? 0x1p-8 : 0x1p-126, rounded;
    uint64_t element = 0;
    dtype_store_f64(t, &element, 0, factor);
    rounded = fabs(dtype_load_f64(t, &element, 0));
    return isfinite(rounded) && rounded >= least && (t != DT_F16 || rounded <= 1);
}

/* The operand again, without its factors; its source times `factor`. */
static value again(const struct remaking *r, const struct side *s, double factor)
{
    struct graph *g = r->out;
    value v = r->new_of[s->source];
    const struct node *n = graph_node(g, v);
    if (factor != 1) {
        value c = graph_broadcast(g, graph_scalar_f64(g, n->dtype, factor), n->rank, n->shape, NULL);
        v = graph_binary(g, OP_MUL, v, c);
    }
    for (uint32_t i = s->count; i-- > 0;) {
        const struct node *m = graph_node(r->in, s->chain[i]);
        if (is_view(m->op)) {
            graph_set_origin(g, m->origin);
            v = graph_add(g, m->op, m->dtype, m->rank, m->shape, 1, &v, &m->attribute);
        }
    }
    return v;
}

/* Is v a product whose factors move? They become one on side[*to]. */
static bool moves(const struct scales *k, const struct graph *g, value v, struct side *side, uint32_t *to)
{
    const struct node *n = graph_node(g, v);
    if (n->op != OP_DOT || !dtype_is_float(n->dtype) || !k->varies[n->operand[0]] || !k->varies[n->operand[1]])
        return false;
    for (uint32_t i = 0; i < 2; i++)
        side[i] = walk(k, g, n->operand[i]);
    *to = is_dearer(g, &side[0], &side[1]) ? 1 : 0;
    if (!side[0].scaled || !side[1].scaled) {
        uint32_t from = side[0].scaled ? 0 : 1;
        *to = 1 - from;
        if (!side[from].scaled || !is_dearer(g, &side[from], &side[*to]))
            return false;
    }
    return is_safe(n->dtype, side[0].factor * side[1].factor);
}

static value scale_instead(struct remaking *r, value v, const struct node *n)
{
    struct side side[2];
    uint32_t to;
    value operand[2];
    if (!moves(r->context, r->in, v, side, &to))
        return 0;
    for (uint32_t i = 0; i < 2; i++)
        operand[i] = again(r, &side[i], i == to ? side[0].factor * side[1].factor : 1);
    graph_set_origin(r->out, n->origin);
    return graph_add(r->out, OP_DOT, n->dtype, n->rank, n->shape, 2, operand, &n->attribute);
}

struct graph *move_scales(struct arena *arena, struct graph *g)
{
    struct scales k = {.uses = graph_uses(g, arena), .live = graph_live(g, arena)};
    struct side side[2];
    uint32_t to;
    k.is_output = NEW_ARRAY(arena, bool, g->nodes.count);
    k.is_state = NEW_ARRAY(arena, bool, g->nodes.count);
    k.varies = NEW_ARRAY(arena, bool, g->nodes.count);
    for (uint32_t i = 0; i < g->outputs.count; i++)
        k.is_output[g->outputs.at[i].value] = true;
    for (uint32_t i = 0; i < g->states.count; i++) {
        k.is_state[g->inputs.at[g->states.at[i].input].value] = true;
        k.is_state[g->outputs.at[g->states.at[i].output].value] = true;
    }
    for (value v = 1; v < g->nodes.count; v++) {
        const struct node *n = graph_node(g, v);
        k.varies[v] = n->op == OP_INPUT;
        for (uint32_t i = 0; i < n->operand_count; i++)
            k.varies[v] |= k.varies[n->operand[i]];
    }
    for (value v = 1; v < g->nodes.count; v++)
        if (moves(&k, g, v, side, &to))
            return graph_remake(arena, g, scale_instead, &k);
    return g;
}
