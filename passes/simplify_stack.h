/* passes/simplify_stack.h - what the two halves of stacking share: simplify_stack.c finds lanes that are alike, simplify_lanes.c makes them one. */
#ifndef TPC_PASSES_SIMPLIFY_STACK_H
#define TPC_PASSES_SIMPLIFY_STACK_H

#include "passes/simplify.h"

struct entry {
    value at;
    bool inside;
};
struct lane {
    value term;
    uint32_t count;
    struct entry *entry; /* [0] is the term, then breadth first */
};
struct group {
    uint32_t count, capacity;
    struct lane *lane;
};
struct sum { /* a tree of additions */
    value root;
    uint32_t term_count;
    value *term;
    uint32_t *group; /* per term: 1 + its group when that is stacked */
};

struct stack {
    struct arena *arena;
    const struct graph *g;
    struct uses uses;
    const bool *live;
    bool *is_output, *varies;
    uint32_t *inside, stamp; /* per value: stamp of the cone that it is in */
    uint32_t *number;        /* per value: 1 + its entry in the cone being walked */
    LIST(struct sum) sums;
    LIST(struct group) groups;
    uint32_t *sum_of; /* per value: 1 + the sum that it is the root of */
    bool *stacked;    /* per param: part of a stacked one */
};

static inline const struct node *node_of(const struct stack *k, value v)
{
    return graph_node(k->g, v);
}

/* The sum of a group's lanes, in the new graph; 0 when an op of theirs cannot have an axis more. */
value stacked_sum(struct stack *k, struct remaking *r, const struct group *group);

#endif
