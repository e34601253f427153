/* solver/search.h - what the files of the search share: search.c (components, hubs, profiles), decisions.c, describe.c. */
#ifndef TPC_SOLVER_SEARCH_H
#define TPC_SOLVER_SEARCH_H

#include "solver/internal.h"

/* Undecided regions and units that hang together. */
struct component {
    uint32_t region_count, unit_count;
    uint32_t *region, *unit; /* ascending */
};

/* Index of x in an ascending list; UINT32_MAX when absent. */
uint32_t position(const uint32_t *list, uint32_t count, uint32_t x);

/* ---- decisions.c: what a region may decide, best first ---- */
typedef LIST(const uint32_t *) mask_list;
mask_list region_decisions(struct solver *s, uint32_t region, const uint32_t *orbit);

/* ---- describe.c: components as bytes ---- */
struct bytes {
    struct arena *arena;
    uint8_t *at;
    size_t count, capacity;
};
void bytes_put(struct bytes *b, uint64_t x);
/* Numbers regions such that isomorphic ones are equal. */
void find_signatures(struct solver *s);
/* All that the component's solution depends on; with a hub (a region number, 0: none) but for what that region will decide: parts that are equal
 * so are equal under every decision of it. */
struct bytes describe(struct solver *s, const struct component *c, const uint32_t *orbit, uint32_t hub);

/* ---- pins.c ---- */
void pins_describe(struct bytes *b, const struct solver *s, const struct component *c);

#endif
