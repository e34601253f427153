/* solver/solver.h - from a simplified Graph to placements: which weights are cut how, and what every value is then.
 *
 * solve() reads the graph's structure alone. It adds partitions to `g` (and the mesh's sub-axes, with mesh.ranks left 0: a Graph is not a
 * Program yet), nothing else. The legal placements per op are in docs/placements.md, the search in docs/solver.md.
 *
 * Sections: solver.c (the order of things), machine.c, nominal.c, classify.c, factors.c, rules.c, stacked.c, layout.c, pull_back.c, cost.c, units.c, decisions.c,
 * describe.c, joint.c, search.c, pins.c, conflict.c, finish.c, evaluate.c, explain.c
 */
#ifndef TPC_SOLVER_SOLVER_H
#define TPC_SOLVER_SOLVER_H

#include "solver/pins.h"

/* ---- machine.c: what devices and their links can do (docs/machine.md) ---- */

enum { MACHINE_LEVELS = 4 };
struct machine_link { /* serves collectives among ranks that all lie in one block of `ranks` consecutive ones */
    uint32_t ranks;
    double latency;   /* seconds per collective */
    double bandwidth; /* bytes per second that one rank sends */
};
struct machine {
    const char *name;
    uint32_t devices;                          /* ranks that it has room for; 0: unknown */
    double flops[DT_COUNT];                    /* per device and second, by the type of a product's operands */
    double memory_bandwidth;                   /* bytes per second */
    uint64_t memory;                           /* bytes per device; 0: unknown */
    uint32_t level_count;                      /* >= 1 */
    struct machine_link level[MACHINE_LEVELS]; /* ascending by ranks; what is wider than the last uses the last */
};
const struct machine *machine_default(void);             /* of the order of a data-centre accelerator, with no limits */
const struct machine *machine_builtin(const char *name); /* NULL when there is none */
const char *machine_names(struct arena *arena);          /* of the built-in ones: "a100x8, cpu, ..." */

/* ---- nominal.c: extents that costs and reports assume ---- */

enum nominal_phase { NOMINAL_PREFILL, NOMINAL_DECODE, NOMINAL_PHASES };
struct nominal {
    const char *symbol;
    int64_t value[NOMINAL_PHASES];
};

enum objective {
    OBJECTIVE_BYTES,  /* weights and states of a rank, then time */
    OBJECTIVE_LATENCY /* time, then weights and states */
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

/* How much was done, for tests and measurements. */
struct solve_stats {
    uint64_t
        components; /* distinct ones solved: regions and units that hang together, under a decision of what is around them */
    uint64_t decisions; /* of regions, tried in them */
    uint64_t options;   /* of units, tried */
    uint64_t rows;      /* solutions kept: the best of a component for each way in which its sums may leave it */
};

struct solve_options {
    uint32_t ranks;               /* the product of the axes */
    uint32_t axis_count;          /* 0: one tensor axis "tp" of `ranks` */
    const struct mesh_axis *axis; /* outermost first: ranks that differ in the last one are neighbours */
    enum sequence_parallel sequence;
    uint32_t nominal_count; /* what is not named: a batch is 1, other symbols are 512 at prefill and 1 at decode */
    const struct nominal *nominal;
    uint32_t class_unit;           /* cuts fall on multiples of this within a class; 0 is 1 */
    const struct machine *machine; /* NULL: machine_default */
    enum objective objective;
    struct solve_stats *stats; /* NULL, or filled */
    int64_t
        byte_price; /* with OBJECTIVE_LATENCY: picoseconds that a KiB of weights and states is worth (solver.md, Memory) */
    bool even;      /* only cuts into equal parts */
    bool prices;    /* tell what each layer's alternatives would cost: a search for each */
    uint32_t pin_count;
    const struct pin *pin;      /* solver/pins.h */
    const bool *taken;          /* per output: another plan takes it as it lies, so it may stay cut; NULL: none is */
    bool sequence_where_pinned; /* with SEQUENCE_BY_COST: only regions with a PIN_SEQUENCE lie on shards */
};

/* Per symbol of g->dims its value at a phase. TPC_USAGE when options name a symbol that the model lacks, or a value outside of its bounds. */
status nominal_dims(const struct graph *g, const struct solve_options *options, struct arena *arena, struct diag *diag,
                    int64_t *of[NOMINAL_PHASES]);

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
