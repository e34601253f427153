/* solver/passage.h - how the leaves of an operand become those of a result; private to rows.c and passage.c. */
#ifndef TPC_SOLVER_PASSAGE_H
#define TPC_SOLVER_PASSAGE_H

#include "solver/internal.h"

/* Leaves of all axes of a value in order; axis i has [first[i], first[i + 1]). */
struct leaves {
    tree_list list;
    uint32_t first[MAX_RANK + 1];
};

enum { MOST_LEAVES = 64, NEEDS_WHOLE = -1, TAKES_ANY = -2 };

/* One operand of an op: which leaf of the result each of its leaves becomes, or NEEDS_WHOLE, or TAKES_ANY (summed over: any part will do). */
struct passage {
    struct solver *s;
    const struct node *node;
    struct leaves in, out;
    int16_t to[MOST_LEAVES];
};

struct leaves leaves_of(struct solver *s, const tree *axes, uint32_t rank);
/* Fills p for operand `operand` of op v, which is an op of a region. In the temporary arena. */
void passage_of(struct solver *s, value v, uint32_t operand, struct passage *p);
/* Whether an op's list of axes has that axis. */
bool axis_listed(const struct node *n, uint32_t axis);

#endif
