/* frontend/inputs.c - what may stand in an integer input, read off the graph: an input that ends up as an index must stay below the extent
 * that it indexes. Used to make inputs up (--random-inputs, verify); never to check a user's (a gather does that when it runs). */
#include "frontend/compile.h"

/* Ops through which an index stays the same number, or is only wrapped from negative. */
static bool keeps_index(op o)
{
    switch ((int)o) {
    case OP_CAST:
    case OP_RESHAPE:
    case OP_TRANSPOSE:
    case OP_BROADCAST:
    case OP_SLICE:
    case OP_CONCAT:
    case OP_SELECT:
    case OP_ADD:
    case OP_MAX:
    case OP_MIN:
        return true;
    default:
        return false;
    }
}

/* The whole extent that node n indexes: in a Program a gather along a cut axis takes indices of the whole and sorts out its own. */
static dim indexed_extent(const struct graph *g, const struct node *n, uint32_t axis)
{
    const struct attribute *a = &n->attribute;
    struct dim_node base = a->dims_count == 0 ? (struct dim_node){.op = DIM_CONST} : dim_get(g->dims, a->dims[0]);
    if (base.op == DIM_SYMBOL && dims_symbol(g->dims, base.symbol)->kind == SYMBOL_PART_OFFSET) {
        return g->partitions.at[dims_symbol(g->dims, base.symbol)->index].extent;
    }
    return graph_node(g, n->operand[0])->shape[axis];
}

bool input_index_limit(const struct graph *g, uint32_t input, const int64_t *of, int64_t *limit)
{
    struct arena *scratch = arena_new();
    if (scratch == NULL) {
        guard_out_of_memory(0);
    }
    bool *from = NEW_ARRAY(scratch, bool, g->nodes.count), found = false;
    from[g->inputs.at[input].value] = true;
    for (value v = 1; v < g->nodes.count; v++) {
        const struct node *n = graph_node(g, v);
        bool index = (n->op == OP_GATHER || n->op == OP_SCATTER) && from[n->operand[1]],
             label = n->op == OP_CROSS_ENTROPY && from[n->operand[1]];
        if (index || label) {
            const struct node *table = graph_node(g, n->operand[0]);
            int64_t extent;
            if (dim_eval(g->dims, indexed_extent(g, n, index ? (uint32_t)n->attribute.axis : table->rank - 1), of,
                         &extent) &&
                (!found || extent < *limit)) {
                *limit = extent;
                found = true;
            }
        }
        for (uint32_t i = 0; keeps_index(n->op) && i < n->operand_count; i++) {
            from[v] = from[v] || from[n->operand[i]];
        }
    }
    arena_free(scratch);
    return found;
}
