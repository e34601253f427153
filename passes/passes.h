/* passes/passes.h - what happens to a Graph between import and plan, in order. Each pass says above itself what it requires, keeps and breaks.
 *
 *   simplify -> (solver) -> parallelize -> check -> fuse -> schedule
 *
 * Sections: simplify*.c, parallelize*.c, check*.c, fuse*.c, schedule.c
 */
#ifndef TPC_PASSES_PASSES_H
#define TPC_PASSES_PASSES_H

#include "ir/placement.h"
#include "ir/program.h"

/* Same outputs, fewer and canonical nodes: constants folded (small ones), common subexpressions merged, dead nodes dropped (inputs stay),
 * layout chains merged, log-softmax + gather of labels made cross_entropy, experts that were written one by one stacked, their weighted sum
 * contracted, constant factors of a product of two activations moved to the cheaper one. In place of `*g` a new Graph, with further (stacked) params. */
status simplify(struct arena *arena, const struct graph *g, struct diag *diag, struct graph **out);

/* The SPMD Program that all ranks share: local extents, shards, collectives; program->source maps to g's values. */
status parallelize(struct arena *arena, const struct graph *g, const struct solution *solution, struct diag *diag,
                   struct graph **out);

/* Proves that `program` computes `g`'s outputs in the placements that `solution->output` claims; input placements: solution->result of inputs. Shares no code
 * with solver and parallelize. TPC_INTERNAL with what and where otherwise. */
status check(struct arena *arena, const struct graph *g, const struct graph *program, const struct solution *claims,
             struct diag *diag);

/* Kernels, dots and collectives as steps over buffers; equal kernels are one. */
status fuse(struct arena *arena, struct graph *program, struct diag *diag, struct program **out);

/* Orders steps (keeps fuse's order where nothing is gained), sets phases and live ranges, lets temporaries alias where legal. */
status schedule(struct program *p, struct diag *diag);

#endif
