/* tests/support/random_graph.h - small random graphs over all rows of ops.def that can stand in a model: an activation goes through linears, heads, slices, sums
 * and other rows, as a search would meet them.
 *
 * Weights and inputs are small whole numbers. Where an op would tell apart numbers that differ in their last bits only (a comparison, a rounding), its
 * operand is exact: sums in another order give the same.
 *
 * Sections: random_graph.c, random_rows.c (a row of any kind)
 */
#ifndef TPC_TESTS_SUPPORT_RANDOM_GRAPH_H
#define TPC_TESTS_SUPPORT_RANDOM_GRAPH_H

#include "ir/tensor.h"

enum { RANDOM_VALUES = 64 };

struct random_graph {
    struct arena *arena;
    struct graph *g;
    uint32_t seed;
    uint32_t turn;  /* which of many like rows comes next: counted up from graph to graph, all have their turn */
    uint32_t rows;  /* leading axes that lie on no weight: rows, or batch and sequence */
    bool every_row; /* not only those that a search has most to decide about */
    bool experts;   /* begins with a mixture of experts, which is handed out */
    uint32_t ops;   /* most nodes that are no leaves, 0: any number */
    value made[RANDOM_VALUES];
    double most
        [RANDOM_VALUES]; /* all elements are whole numbers of at most this magnitude; infinite: they may be anything */
    uint32_t count;
    double bound; /* of the value that is being made */
};

/* r->arena, seed, rows, every_row and ops are set; makes r->g with about `steps` steps. */
void random_graph(struct random_graph *r, uint32_t steps);
/* One per input, for extents of symbols of[]. */
const struct tensor *random_graph_inputs(struct random_graph *r, const int64_t *of);

/* ---- between the files ---- */
uint32_t random_pick(struct random_graph *r, uint32_t n);
int64_t random_last_extent(const struct random_graph *r, value v);
/* A row of any kind on x = made[i], which has r->rows + 1 axes, made into that shape of axes again; 0: not on this. */
value random_row(struct random_graph *r, uint32_t i);
bool random_is_exact(const struct random_graph *r, uint32_t i);

#endif
