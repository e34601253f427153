/* frontend/predict.h - what a plan will hold in memory on a rank, before it runs.
 *
 * Section: predict.c
 */
#ifndef TPC_FRONTEND_PREDICT_H
#define TPC_FRONTEND_PREDICT_H

#include "frontend/compile.h"

struct rank_memory {        /* bytes, as engine_rank_stats counts them */
    uint64_t weights, kept; /* slices of the files; computed at load */
    uint64_t loading;       /* temporaries while loading; given back then */
    uint64_t activations;   /* the arena of a run */
    uint64_t states;        /* written in place, with room for the nominal present */
    uint64_t outputs;       /* states twice: the last value is read while the next is written */
};

/* What the rank stores of one weight (index: graph->shards when sharded, else graph->params). */
uint64_t predict_weight(const struct graph *g, uint32_t index, bool sharded, uint32_t rank);
/* Of every rank, at the extents symbols[0..count) of the model's symbols. false: overflow. */
bool predict_memory(struct arena *arena, const struct program *p, const int64_t *symbols, uint32_t count,
                    struct rank_memory *out);
uint64_t rank_memory_total(const struct rank_memory *m);
/* Of every rank the larger of prefill and decode at the nominal extents. */
bool predict_peak(struct arena *arena, const struct compiled *c, struct rank_memory *out);

#endif
