/* solver/solver.h - from a simplified Graph to placements: which weights are cut how, and what every value is then.
 *
 * solve() reads the graph's structure alone. It adds partitions to `g` (and the mesh's sub-axes, with mesh.ranks left 0: a Graph is not a
 * Program yet), nothing else. The legal placements per op are in docs/placements.md, the search in docs/solver.md.
 *
 * Sections: solver.c (the order of things), classify.c, factors.c, rules.c, layout.c, pull_back.c, cost.c, units.c, decisions.c, describe.c, joint.c, search.c,
 * finish.c, evaluate.c, explain.c
 */
#ifndef TPC_SOLVER_SOLVER_H
#define TPC_SOLVER_SOLVER_H

#include "ir/placement.h"

struct nominal {
    const char *symbol;
    int64_t value;
};

/* What the ranks along an axis of the mesh divide among them: weights (heads, features, vocabulary), the batch, the sequence, experts. */
enum axis_role { AXIS_TENSOR, AXIS_DATA, AXIS_CONTEXT, AXIS_EXPERT, AXIS_ROLE_COUNT };
struct mesh_axis {
    const char *name; /* as the user wrote it; outlives the plan */
    uint32_t size;    /* >= 1 */
    enum axis_role role;
};
enum { MAX_MESH_AXES = 8 };
/* Whether what stands between the split layers (norms, residuals) lies on sequence shards over the tensor axis. */
enum sequence_parallel { SEQUENCE_WHOLE, SEQUENCE_SPLIT, SEQUENCE_BY_COST };

struct solve_options {
    uint32_t ranks;               /* the product of the axes */
    uint32_t axis_count;          /* 0: one tensor axis "tp" of `ranks` */
    const struct mesh_axis *axis; /* outermost first: ranks that differ in the last one are neighbours */
    enum sequence_parallel sequence;
    uint32_t
        nominal_count; /* extents assumed for the model's symbols in cost; others are 512 at prefill and 1 at decode */
    const struct nominal *nominal;
    uint32_t class_unit; /* cuts fall on multiples of this within a class; 0 is 1 */
};

/* TPC_OK with a solution (that leaves all whole, with a note, where nothing can be cut); TPC_USAGE when the number of ranks is out of range. */
status solve(struct graph *g, const struct solve_options *options, struct arena *arena, struct diag *diag,
             struct solution **out);

/* What a solution costs, computed from its placements alone (not as the search does): for tests, reports, comparisons. */
struct solve_cost {
    int64_t bytes;    /* weights and states of one rank as the objective counts them */
    int64_t time;     /* picoseconds at nominal dims: prefill + decode */
    int64_t switches; /* collectives */
};
struct solve_cost solution_cost(struct graph *g, const struct solution *s, const struct solve_options *options,
                                struct arena *arena);

#endif
