/* frontend/state_from.h - a plan whose states lie as those of another one, so that one takes over where the other has ended and nothing passes between ranks.
 *
 * Invariant: a plan that was compiled so hands over, and takes, every state that both have in one placement; else there is no plan.
 *
 * Section: state_from.c
 */
#ifndef TPC_FRONTEND_STATE_FROM_H
#define TPC_FRONTEND_STATE_FROM_H

#include "runtime/plan.h"
#include "solver/solver.h"

struct state_source {
    const char *path;
    const struct plan *plan;
};

/* Reads the plan. TPC_USAGE where it is not for the mesh of `options`. */
status state_source_open(struct arena *arena, const char *path, const struct solve_options *options, struct diag *diag,
                         struct state_source *out);
/* What the other plan's states demand of this graph's, as more pins of `options`; and its outputs that the other one takes as they lie. `from` NULL:
 * nothing. TPC_USAGE: no state meets another, or they are not of one type. */
status state_pins(struct arena *arena, struct graph *g, struct solve_options *options, const struct state_source *from,
                  struct diag *diag);
/* TPC_USAGE where the same number of parts is not the same parts. */
status state_agree(struct arena *arena, struct graph *g, const struct solution *solution,
                   const struct state_source *from, struct diag *diag);

#endif
