/* ir/weights.h - the bytes of params: weight files mapped read-only, and a rank's part of one copied out.
 *
 * Invariant: a file is mapped at its first use, and only when it is the one that was compiled (size and fingerprint). What is given out lives as
 * long as the arena and may be unaligned. Not for several threads at once: let one ask for all params, then share the pointers.
 *
 * Section: weights.c
 */
#ifndef TPC_IR_WEIGHTS_H
#define TPC_IR_WEIGHTS_H

#include "ir/graph.h"

struct weights;

/* `folder`: where the paths of g->files start (the model's folder); NULL or "" is the current one. Opens nothing yet. */
struct weights *weights_new(struct arena *arena, const struct graph *g, const char *folder);
/* The bytes of a whole param that is not stacked. TPC_NOINPUT, TPC_DATA or TPC_IO with a line that names the file when it is missing, changed, or too short. */
status weights_param(struct weights *w, uint32_t param, struct diag *diag, const void **bytes);
/* Same for params that need no file: NULL for others. */
const void *param_own_bytes(const struct graph *g, uint32_t param);
/* The bytes of any param: of each of its parts, where it is stacked, else one run. `w` NULL: as param_own_bytes, NULL where a run is not at hand. */
status weights_runs(struct weights *w, const struct graph *g, uint32_t param, struct arena *arena, struct diag *diag,
                    const void *const **runs);
/* Copies all of a param. */
void param_copy(const struct graph *g, uint32_t param, const void *const *runs, void *to);

/* Extents of what rank r holds of a shard (number of indices per axis); false when the shard's intervals do not lie in its param. */
bool shard_shape(const struct graph *g, uint32_t shard, uint32_t r, int64_t *shape);
/* Is what rank r holds one run of bytes, of a param that is not stacked? Then where it begins in the param; nothing need be copied. */
bool shard_contiguous(const struct graph *g, uint32_t shard, uint32_t r, uint64_t *offset, uint64_t *length);
/* Copies rank r's part from the bytes of the whole param (weights_runs), row-major, run by run. `to` is as large as shard_shape says. */
void shard_copy(const struct graph *g, uint32_t shard, uint32_t r, const void *const *runs, void *to);
/* Only bytes [offset, offset + bytes) of that part. */
void shard_copy_range(const struct graph *g, uint32_t shard, uint32_t r, const void *const *runs, uint64_t offset,
                      uint64_t bytes, void *to);

#endif
