/* tests/support/mutate.h - Programs that are wrong in one place: each kind of mutation changes one node (or table) of a copy.
 *
 * Section: mutate.c
 */
#ifndef TPC_TESTS_SUPPORT_MUTATE_H
#define TPC_TESTS_SUPPORT_MUTATE_H

#include "ir/graph.h"

struct mutation {
    const char *name;
    /* Changes *m at node v in the variant-th way; false: there is no such way. *m is a copy whose nodes and tables may be written; lists are shared
     * with the original and must be replaced. */
    bool (*apply)(struct graph *m, value v, uint32_t variant);
    uint32_t variants;
    bool silent; /* no number tells: a table is wrong that only later stages, or other inputs, would feel */
};
extern const struct mutation mutations[];
extern const uint32_t mutation_count;

/* A copy of p in `arena` with own nodes and tables; dims are shared. */
struct graph *program_copy(const struct graph *p, struct arena *arena);
/* Derives all types and shapes anew after a mutation; false where the rules of ops.def refuse it, so that nobody could have built it. */
bool program_derive(struct graph *m);

#endif
