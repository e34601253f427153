/* runtime/layout.h - a tensor that is cut over ranks: which of its elements a rank holds, and copying them out of the whole and back.
 *
 * Section: layout.c
 */
#ifndef TPC_RUNTIME_LAYOUT_H
#define TPC_RUNTIME_LAYOUT_H

#include "ir/placement.h"

struct layout {
    uint32_t rank; /* number of axes */
    int64_t whole[MAX_RANK], local[MAX_RANK];
    struct intervals held[MAX_RANK]; /* of each axis, in local order */
};

/* Of rank r, whose symbols are `of`. false: overflow, or the partitions do not fit their extents. In the arena. */
bool layout_of(const struct graph *g, const struct placement *p, uint32_t r, const int64_t *of, struct arena *arena,
               struct layout *out);
/* Only the whole extents. */
bool layout_whole(const struct graph *g, const struct placement *p, const int64_t *of, int64_t *shape);
/* size: bytes per element. */
void layout_cut(const struct layout *l, size_t size, const void *whole, void *local);
void layout_join(const struct layout *l, size_t size, const void *local, void *whole);

#endif
