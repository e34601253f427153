/* frontend/annotate.h - a model's device annotations as constraints of the solver.
 *
 * Section: annotate.c
 */
#ifndef TPC_FRONTEND_ANNOTATE_H
#define TPC_FRONTEND_ANNOTATE_H

#include "frontend/onnx/annotation.h"
#include "solver/solver.h"

/* Adds to the pins of `options`. TPC_DATA with one line where an annotation does not fit the value that it is for. */
status annotation_pins(struct arena *arena, struct graph *g, struct solve_options *options,
                       const struct annotations *annotations, struct diag *diag);

#endif
