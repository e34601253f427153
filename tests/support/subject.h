/* tests/support/subject.h - a split Program and the unsplit graph that it stands for: do they give the same numbers, and is what is wrong in one place
 * caught?
 *
 * Section: subject.c
 */
#ifndef TPC_TESTS_SUPPORT_SUBJECT_H
#define TPC_TESTS_SUPPORT_SUBJECT_H

#include "ir/interpret.h"
#include "passes/passes.h"
#include "tests/support/mutate.h"

struct counts {
    unsigned mutants, caught, equivalent, missed;
};

struct subject {
    const char *name;
    uint32_t ranks;
    struct arena *arena;
    const struct graph *graph;
    struct graph *program;
    struct solution *solution;
    struct weights *weights;
    const struct tensor *inputs; /* whole */
    const struct tensor *wanted; /* outputs of the unsplit graph */
    int64_t *of;                 /* its symbols, and room for those of a rank */
    struct counts *by_kind;      /* per mutation */
    struct diag *diag;
};

/* Are all outputs of `program` (s->program or a mutant) those of the unsplit graph, on every rank? */
bool subject_same_numbers(const struct subject *s, const struct graph *program);
/* Tries every kind of mutation at up to `sites` places each; adds to s->by_kind. A change that the rules of ops.def or the verifier refuse does not count. What
 * check lets pass is run: other numbers than the original's mean that check has proven what is wrong. */
void subject_mutate(struct subject *s, uint32_t sites);

#endif
