/* passes/fuse_prepare.c - what fuse knows of each value before it decides: what it would cost to compute again, and whether it is known at load. */
#include "passes/fuse.h"

static bool is_expensive(op o)
{
    switch ((int)o) {
    case OP_EXP:
    case OP_LOG:
    case OP_LOG1P:
    case OP_EXPM1:
    case OP_SIN:
    case OP_COS:
    case OP_TAN:
    case OP_ASIN:
    case OP_ACOS:
    case OP_ATAN:
    case OP_SINH:
    case OP_COSH:
    case OP_ASINH:
    case OP_ACOSH:
    case OP_ATANH:
    case OP_ERF:
    case OP_TANH:
    case OP_POW:
        return true;
    default:
        return false;
    }
}

/* As its readers will see it: what several read and is not cheap will lie in a buffer. */
static struct estimate seen(const struct plan *p, value v)
{
    struct estimate e = p->estimate[v];
    bool shared = p->uses.first[v + 1] - p->uses.first[v] > 1 && (e.heavy || e.loads > 1);
    return shared ? (struct estimate){.loads = 1} : e;
}

static struct estimate estimate(const struct plan *p, value v)
{
    const struct node *n = graph_node(p->graph, v);
    op_class class = op_info(n->op)->class;
    struct estimate e = {.heavy = is_expensive(n->op) || class == CLASS_REDUCE};
    if (n->op == OP_DIM || n->op == OP_IOTA ||
        (n->op == OP_CONSTANT && dim_is(p->graph->dims, graph_elements(p->graph, v), 1)))
        return e;
    class = class == CLASS_DOT && plan_is_product(p, v) ? CLASS_POINTWISE : class;
    if (class != CLASS_POINTWISE && class != CLASS_LAYOUT && class != CLASS_REDUCE && class != CLASS_GATHER)
        return (struct estimate){.loads = 1};
    bool map = view_is_map(p->graph, v);
    uint32_t operations = map ? 0 : 1, loads = class == CLASS_GATHER;
    for (uint32_t i = class == CLASS_GATHER; i < n->operand_count; i++) {
        struct estimate a = seen(p, n->operand[i]);
        bool outer = n->op == OP_DOT && graph_elements(p->graph, n->operand[i]) != graph_elements(p->graph, v);
        operations += a.operations;
        loads += outer ? 0 : a.loads; /* a product of a column and a row spreads both */
        e.heavy |= a.heavy;
    }
    bool spread = n->op == OP_BROADCAST && !view_is_alias(p->graph, v);
    e.operations = (uint16_t)(operations < 1000 ? operations : 1000);
    e.loads = (uint16_t)(spread ? 0 : loads < 1000 ? loads : 1000);
    return e;
}

/* Whether an extent is known only with the inputs' shapes: by itself, or because a part of such an extent occurs in it. */
static bool needs_shapes(const struct graph *g, dim d)
{
    if (dim_uses_kind(g->dims, d, SYMBOL_INPUT))
        return true;
    if (!dim_uses_kind(g->dims, d, SYMBOL_PART_SIZE) && !dim_uses_kind(g->dims, d, SYMBOL_PART_OFFSET))
        return false;
    for (uint32_t s = 0; s < dims_symbol_count(g->dims); s++) {
        const struct symbol *x = dims_symbol(g->dims, s);
        bool part = x->kind == SYMBOL_PART_SIZE || x->kind == SYMBOL_PART_OFFSET;
        if (part && x->index < g->partitions.count && g->partitions.at[x->index].offset == NULL &&
            dim_uses_symbol(g->dims, d, s))
            return true;
    }
    return false;
}

static bool known_at_load(const struct plan *p, value v)
{
    const struct node *n = graph_node(p->graph, v);
    if (n->op == OP_INPUT || op_info(n->op)->class == CLASS_COLLECTIVE)
        return false;
    for (uint32_t i = 0; i < n->operand_count; i++)
        if (!p->is_static[n->operand[i]])
            return false;
    for (uint32_t i = 0; i < n->rank; i++)
        if (needs_shapes(p->graph, n->shape[i]))
            return false;
    for (uint32_t i = 0; i < n->attribute.dims_count; i++)
        if (needs_shapes(p->graph, n->attribute.dims[i]))
            return false;
    return true;
}

void plan_prepare(struct plan *p)
{
    struct graph *g = p->graph;
    bool *handed_out = NEW_ARRAY(p->arena, bool, g->nodes.count);
    for (uint32_t i = 0; i < g->outputs.count; i++)
        handed_out[g->outputs.at[i].value] = handed_out[view_root(g, g->outputs.at[i].value)] = true;
    for (value v = 1; v < g->nodes.count; v++) {
        bool leaf = op_info(graph_node(g, v)->op)->class == CLASS_LEAF;
        p->estimate[v] = estimate(p, v);
        p->is_static[v] = (leaf || !handed_out[v]) && known_at_load(p, v);
    }
}
