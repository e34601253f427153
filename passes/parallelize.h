/* passes/parallelize.h - shared by the two files of the rewrite; private to passes/. */
#ifndef TPC_PASSES_PARALLELIZE_H
#define TPC_PASSES_PARALLELIZE_H

#include "passes/passes.h"

struct rewrite {
    struct arena *arena;
    const struct graph *graph; /* the whole one */
    struct graph *program;     /* what is being built */
    const struct solution *solution;
    struct diag *diag;
    value *local;      /* per value of graph: the program's value in its result placement */
    struct map steps;  /* conversion steps made so far, by hash and operand */
    bool *completed;   /* per value of graph: a sum that several placements want completed: one all_reduce for all */
    struct made *made; /* per value of graph: conversions so far, newest first */
    struct sliced **sliced;              /* per param: its shards so far */
    struct map ways;                     /* layouts of an axis -> 1 + index into held */
    LIST(const struct intervals *) held; /* what each rank holds of it */
};

/* Program value v, which lies as `from`, as it lies in `to`. The same global shape; `from` and `to` differ by what a collective, restrict
 * or count_once can change. v itself when they are the same. */
value convert(struct rewrite *w, value v, const struct placement *from, const struct placement *to);

#endif
