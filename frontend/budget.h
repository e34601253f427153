/* frontend/budget.h - plans that must fit: a number of ranks chosen, a budget of memory kept. docs/solver.md, Memory, argues for what is tried.
 *
 * Section: budget.c
 */
#ifndef TPC_FRONTEND_BUDGET_H
#define TPC_FRONTEND_BUDGET_H

#include "frontend/compile.h"

struct budget {
    uint64_t
        memory; /* bytes per rank that weights, states and activations may take at the nominal extents; 0: no limit */
    bool
        choose_ranks; /* --tp auto: the fewest ranks that fit, or the fastest with OBJECTIVE_LATENCY; options->ranks is ignored */
    uint32_t most; /* ranks that may be tried, >= 1 */
};

/* compile_model, as often as the budget needs. TPC_UNSUPPORTED with one line that says what is least and what fits, when nothing does. What
 * was tried for --tp auto is a note of `diag`. */
status compile_within(struct arena *arena, const char *path, const struct compile_options *options,
                      const struct budget *budget, struct diag *diag, struct compiled *out);

#endif
