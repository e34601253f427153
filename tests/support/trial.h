/* tests/support/trial.h - random graphs of one row, with random legal placements (docs/placements.md) of its operands and result.
 *
 * Section: trial.c
 */
#ifndef TPC_TESTS_SUPPORT_TRIAL_H
#define TPC_TESTS_SUPPORT_TRIAL_H

#include "ir/placement.h"

enum { MOST_VALUES = 32 };

struct trial {
    struct arena *arena;
    struct graph *g;
    struct mesh mesh;
    uint64_t random;
    dim n, m; /* symbolic extents, of equal value where they are run */
    struct placement result[MOST_VALUES], wanted[MOST_VALUES][4];
    bool placed[MOST_VALUES];
};

/* A number below `below`. */
uint32_t trial_any(struct trial *t, uint32_t below);

struct trial_row {
    const char *name;
    value (*make)(struct trial *t); /* adds the row and its operands to t->g, and places them */
};
extern const struct trial_row trial_rows[];
extern const uint32_t trial_row_count;

/* Behind v comes a value of the same shape in a placement of its own, which is handed out whole; sometimes v too. */
void trial_hand_out(struct trial *t, value v);
/* All placements, canonical. */
struct solution *trial_solution(struct trial *t);

#endif
