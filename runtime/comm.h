/* runtime/comm.h - how ranks exchange data: one vtable, and the ranks-as-threads implementation of it.
 *
 * Contract of every slot but `close` and `abort`: all ranks of the group call it with the same arguments (buffers aside) and in the same
 * order; it may block until they do, and only for that. It returns true when this rank's `out` is complete and its `in` may be
 * overwritten; false when the run was aborted (then buffers must stay until every rank has left). Reductions go in the order of the
 * group's parts, 0 first, whatever the size: the bits are the same on every rank and in every run. f16 and bf16 are reduced in f32 and rounded
 * once; integers wrap; on bool a sum or maximum is `or`, a product or minimum `and`; a NaN makes a maximum or minimum NaN.
 *
 * A group is given by `subaxes`, a mask of the mesh's sub-axes (ir/graph.h): the ranks that differ from this one only there. A rank's part in it is
 * mesh_part_of.
 *
 * Sections: comm_threads.c; reduce.c (the sums)
 */
#ifndef TPC_RUNTIME_COMM_H
#define TPC_RUNTIME_COMM_H

#include "ir/graph.h"

/* A buffer seen as [outer, extent, inner] elements with the middle axis cut: part p owns [offset[p], offset[p + 1]); extent = offset[parts]. */
struct comm_cut {
    int64_t outer, inner;
    const int64_t *offset;
};

/* A buffer seen as [before, first, between, second, after] with two axes that are cut at different times. */
struct comm_exchange {
    int64_t before, between, after;
    bool gather_first;             /* axis `first` is gathered and `second` cut; else the other way round */
    const int64_t *first, *second; /* cuts, parts + 1 of each */
};

struct comm {
    const struct comm_ops *ops;
    uint32_t rank, ranks;
    bool out_of_memory; /* why this rank's call was false: it could not make what a group needs */
    char why[192];      /* the same, of its own: "" when it was not this rank */
};

struct comm_ops {
    const char *name;
    bool (*barrier)(struct comm *c, uint32_t subaxes);
    /* out may be in. */
    bool (*all_reduce)(struct comm *c, uint32_t subaxes, enum reduction reduction, dtype type, const void *in,
                       void *out, int64_t elements);
    /* in: [outer, own, inner]; out: [outer, extent, inner]. size: bytes per element. */
    bool (*all_gather)(struct comm *c, uint32_t subaxes, size_t size, const struct comm_cut *cut, const void *in,
                       void *out);
    /* in: [outer, extent, inner]; out: [outer, own, inner]. */
    bool (*reduce_scatter)(struct comm *c, uint32_t subaxes, enum reduction reduction, dtype type,
                           const struct comm_cut *cut, const void *in, void *out);
    /* Gathers one axis and keeps this rank's part of the other. */
    bool (*all_to_all)(struct comm *c, uint32_t subaxes, size_t size, const struct comm_exchange *x, const void *in,
                       void *out);
    /* What the rank of part `from` has in `in`. out may be in. */
    bool (*broadcast)(struct comm *c, uint32_t subaxes, uint32_t from, size_t bytes, const void *in, void *out);
    /* Any thread, any time: every rank that waits, or will, gets false. */
    void (*abort)(struct comm *c);
};

/* ---- comm_threads.c --------------------------------------------------------------------------------------------- */

struct comm_world;
/* The mesh is copied. NULL: out of memory. */
struct comm_world *comm_threads_new(const struct mesh *mesh);
void comm_threads_free(struct comm_world *w); /* no rank is in it; NULL is allowed */
struct comm *comm_threads_rank(struct comm_world *w, uint32_t rank);
bool comm_threads_aborted(const struct comm_world *w);
/* After an abort, when no rank is in it: usable again. */
void comm_threads_reset(struct comm_world *w);

/* ---- reduce.c --------------------------------------------------------------------------------------------------- */

/* to[0..count) = from[0][first..) op from[1][first..) op ... in that order. `to` may be one of the sources at `first`. */
void reduce_sources(enum reduction reduction, dtype type, const void *const *from, uint32_t sources, int64_t first,
                    int64_t count, void *to);

#endif
