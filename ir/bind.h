/* ir/bind.h - from the inputs that a run is given to the values of all symbols.
 *
 * Section: bind.c
 */
#ifndef TPC_IR_BIND_H
#define TPC_IR_BIND_H

#include "ir/tensor.h"

/* Fills of[0 .. dims_symbol_count(g->dims)) for input symbols. inputs[i] belongs to g->inputs.at[i]; only dtype, rank and shape are looked at.
 * First the axes that are a plain symbol bind it, then axes with one symbol left unknown in them are solved for it where it occurs linearly, then
 * what guards have made equal to others follows. Then every axis must have the extent that its expression has, every symbol must be within its
 * bounds, and every guard must hold. Reports all that is wrong with the inputs, one line each, and returns TPC_DATA.
 *
 * In a Program an input of a split state has this rank's extents; `rank` says whose. Partition symbols of that rank are bound too. In a Graph
 * `rank` is ignored. */
status bind_symbols(const struct graph *g, uint32_t rank, const struct tensor *inputs, struct arena *arena,
                    struct diag *diag, int64_t *of);
/* The same values for another rank of a Program: copies input symbols from `of`, then binds the rank's own. TPC_DATA on overflow. */
status bind_rank(const struct graph *g, uint32_t rank, const int64_t *of, struct diag *diag, int64_t *to);

#endif
