/* ir/op_infer.h - the shape and type rules of ops.def, for the builder (graph_build.c), the parser and the verifier.
 *
 * Section: op_infer.c
 */
#ifndef TPC_IR_OP_INFER_H
#define TPC_IR_OP_INFER_H

#include "ir/graph.h"

struct inference {
    struct graph *graph;
    const struct node *node; /* operands exist; attributes set; dtype, rank and shape where the row's are GIVEN */
    /* the result */
    dtype dtype;
    uint32_t rank;
    dim shape[MAX_RANK];
    char why[256]; /* when false: what is wrong, in words, without the op's name */
};

/* Derives dtype and shape, and checks operands and attributes on the way. A derived extent may be DIM_NONE (overflow). */
bool op_infer(struct inference *i);
/* Do two extents agree, now or by what was assumed? */
bool extent_same(struct graph *g, dim a, dim b);

#endif
