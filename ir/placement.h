/* ir/placement.h - how a value lies on the mesh, and what the solver hands to the passes.
 *
 * An axis is a list of segments (concatenated pieces, as q|k|v), each an ordered product of factors, outermost first (heads x head_dim).
 * A factor is whole or cut by a partition. The product of all extents of a segment's factors is the segment's extent; segments add up to the
 * axis. A rank's local axis is the same list with each cut factor replaced by its local size: local segments are concatenated in
 * the same order.
 *
 * A value may be partial over sub-axes: the true value is the sum (max, min) over the ranks that differ only in those coordinates. On sub-axes that
 * neither cut it nor make it partial, it is replicated.
 *
 * Section: placement.c
 */
#ifndef TPC_IR_PLACEMENT_H
#define TPC_IR_PLACEMENT_H

#include "ir/graph.h"

struct factor {
    dim extent;
    uint32_t partition; /* graph->partitions, 0: whole */
};
struct segment {
    uint32_t count;
    const struct factor *factor; /* outermost first; count 0 never occurs */
};
struct axis_layout {
    uint32_t count; /* segments, >= 1 */
    const struct segment *segment;
};
struct placement {
    uint32_t rank;
    const struct axis_layout *axis;
    int32_t partial;          /* REDUCTION_*, 0: not partial */
    uint32_t partial_subaxes; /* mask */
};

/* All axes one whole factor. */
const struct placement *placement_whole(struct arena *arena, uint32_t rank, const dim *shape);
bool placement_is_whole(const struct placement *p); /* nothing cut, not partial */
bool placement_equal(const struct placement *a,
                     const struct placement *b); /* same local data; both canonical (the solver's are) */
/* The same parts on the same ranks, said in two graphs of equal meshes; both canonical, whole of sum; NULL is whole. Extents that are no numbers are taken for equal. */
bool placement_alike(const struct graph *g, const struct placement *p, const struct graph *h,
                     const struct placement *q);
bool axis_is_whole(const struct axis_layout *a);
bool axis_equal(const struct axis_layout *a, const struct axis_layout *b); /* layouts of one axis, both canonical */
/* Every axis canonical; a partial without sub-axes is dropped. */
const struct placement *placement_normalise(struct graph *g, const struct placement *p, struct arena *arena);
/* The canonical form of a layout: merges neighbouring whole factors, drops extent-1 ones, and merges neighbouring segments that differ only in
 * their leading whole factor: a x R | b x R becomes (a+b) x R (R begins with a cut factor, or is empty). */
struct axis_layout axis_normalise(struct graph *g, const struct axis_layout *a, struct arena *arena);
uint32_t placement_subaxes(const struct graph *g, const struct placement *p); /* mask of all that cut it */
uint32_t axis_subaxes(const struct graph *g, const struct axis_layout *a);
dim segment_extent(struct graph *g, const struct segment *s);
dim segment_local_extent(struct graph *g, const struct segment *s);
dim axis_extent(struct graph *g, const struct axis_layout *a);       /* whole */
dim axis_local_extent(struct graph *g, const struct axis_layout *a); /* this rank's, in partition symbols */
/* Which indices of the whole axis rank r holds, in local order. Constant extents only (params): asserts otherwise. */
struct intervals axis_intervals(const struct graph *g, const struct axis_layout *a, uint32_t r, struct arena *arena);
/* As text: "[b, s, 3*64]{axis 2: 12/s:1 x 64} partial(sum: tp)" - for dump, explain and tests. */
void placement_print(const struct graph *g, const struct placement *p, struct text *out);
/* For people: "[batch, 12/4 x 64]", each factor with the number of its parts; with the axes that cut it, "12/4:tp", where the mesh has several; and
 * "partial(sum)" behind it. */
void placement_tell(const struct graph *g, const struct placement *p, struct text *out);
/* "tp" for all sub-axes of that name, "tp.0, tp.2" for some. */
void mesh_print_subaxes(const struct mesh *m, uint32_t subaxes, struct text *out);

/* ---- the solution: solver's output, parallelize's input, dump's matter ---- */

struct class_info { /* a decided or decidable class of factors */
    dim extent;
    int64_t unit;
    uint32_t partition; /* 0: left whole */
    uint32_t member_count;
    const value *member; /* values that hold it */
};

struct row_info {     /* a batch or a sequence, as the mesh cuts it */
    const char *kind; /* "batch", "sequence" */
    dim extent;
    uint32_t subaxes; /* mask: the most that any region cuts it over */
};

typedef enum layer_style {
    STYLE_REPLICATED,
    STYLE_COLUMN,
    STYLE_ROW,
    STYLE_VOCABULARY,
    STYLE_FEATURE,
    STYLE_CROSS_ENTROPY
} layer_style;
const char *layer_style_name(layer_style s); /* "replicated", "column", ... */

/* In how many parts a switch point has: the weight's batch axes (experts); the features it contracts, or the vocabulary; the features it makes; its
 * input's features as they arrive; its result's features as they leave, after its own conversion. */
struct layer_parts {
    uint32_t batch, in, out, arrives, leaves;
};

/* A style that a layer could have had. Bytes (per rank), seconds and collectives are those of the best plan in which it has that style (without pins), less the
 * plan's own; they are 0 where `priced` is false. */
struct alternative {
    layer_style style;
    bool possible, priced;
    const char *why; /* impossible: what is in the way, and the first op that wants it so */
    double bytes, seconds;
    int32_t collectives;
};

struct layer { /* one switch point */
    value node;
    layer_style style;
    uint32_t param;                    /* graph->params, UINT32_MAX: none */
    int32_t axis;                      /* of the param as stored, that is cut; -1 */
    uint32_t kind;                     /* equal for layers that stand at the same place of equal blocks; 0: a loss */
    const struct placement *placement; /* in which its weight is taken; NULL: no weight */
    uint32_t from, to;                 /* regions that its input comes from and its result goes to, from 1; 0: none */
    const char *reason;                /* one line for people */
    uint32_t alternative_count;
    const struct alternative *alternative;
    struct layer_parts parts;   /* as decided */
    bool packed_in, packed_out; /* concatenated pieces */
};

struct solution {
    const struct mesh *mesh;
    /* per node of the Graph: how its result is produced (before any conversion) */
    const struct placement **result;
    /* per node and operand position: the placement in which that use wants it; operand[v][i] */
    const struct placement ***operand;
    /* per graph output: the placement in which the program hands it out (whole; states may stay cut) */
    const struct placement **output;
    uint32_t class_count;
    const struct class_info *classes;
    uint32_t layer_count;
    const struct layer *layers;  /* in node order */
    uint32_t region_count;       /* pieces of the graph between layers */
    const uint32_t *region_kind; /* per region, from 1 ([0] is unused): equal for equal ones */
    uint32_t switches;           /* conversions that communicate */
    double bytes_per_rank;       /* weights + states, maximum over ranks */
    double time;                 /* seconds by the cost model at nominal dims */
    uint32_t nominal_count;
    const int64_t *nominal[2]; /* those dims: per symbol of the graph its value at prefill and at decode */
    uint32_t row_count;
    const struct row_info *rows; /* one per kind and extent */
    const char *note;            /* NULL, or what was not split and why */
};

#endif
