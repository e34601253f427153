/* ir/interpret.h - the reference interpreter: executes a Graph, or a Program on all its ranks at once. Slow and obvious; the truth in tests
 * and in `tpc verify`.
 *
 * Floats are computed in double and rounded to the node's dtype once per node (a reduction or dot: once per element of the result); integers
 * are computed in 64 bits and wrap. A Program runs node by node, every rank with its own tensors; a collective reads the tensors of all ranks of its group, in
 * the order of their parts.
 *
 * It trusts nothing: a Graph whose nodes do not fit together (verify would refuse it) ends with TPC_INTERNAL at the node, input that a model cannot
 * take with TPC_DATA, too little memory with TPC_NOMEM.
 *
 * Sections: interpret.c (driver), interpret_pointwise.c, interpret_layout.c, interpret_reduce.c (reduce, dot, cumsum, topk, cross entropy),
 * interpret_index.c (gather, scatter), interpret_collective.c
 */
#ifndef TPC_IR_INTERPRET_H
#define TPC_IR_INTERPRET_H

#include "ir/bind.h"
#include "ir/tensor.h"
#include "ir/weights.h"

struct interpret_options {
    struct weights *weights; /* NULL: only params with bytes of their own can be loaded */
    bool keep_all;           /* keep every value, for a comparison node by node; else values end after their last use */
    bool cut_outputs;        /* outputs need not be whole (and equal) on every rank */
    uint64_t memory_limit;   /* bytes of values alive at once over all ranks; 0: none */
};

struct interpretation {
    uint32_t ranks; /* 1 for a Graph */
    int64_t **of;   /* of[r]: symbol values of rank r */
    struct tensor **
        value; /* value[r][v]; data NULL where it was not kept. Constants, params of a Graph and inputs are not copied */
    struct tensor *output; /* output[r * g->outputs.count + i] */
    uint64_t peak;         /* bytes of values alive at once */
};

/* inputs[r * g->inputs.count + i]: as g->inputs.at[i] wants them on rank r, so the whole tensor on every rank but for split states (placement_cut
 * makes those). `options` may be NULL. What `out` points to lives in `arena`. */
status interpret(const struct graph *g, const struct interpret_options *options, const struct tensor *inputs,
                 struct arena *arena, struct diag *diag, struct interpretation *out);
/* For a Program whose inputs are all whole: the same tensors on each rank. */
status interpret_same(const struct graph *g, const struct interpret_options *options, const struct tensor *inputs,
                      struct arena *arena, struct diag *diag, struct interpretation *out);

#endif
