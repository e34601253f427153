/* tests/support/blocks.h - graphs of any length, for measuring how work grows: weights are references to a file that is never opened. */
#ifndef TPC_TESTS_SUPPORT_BLOCKS_H
#define TPC_TESTS_SUPPORT_BLOCKS_H

#include "ir/graph.h"

/* Equal layers (root-mean-square norms, attention with 8 heads, gated MLP) on one trunk, between an embedding and a head; no positions. */
struct graph *block_decoder(struct arena *arena, uint32_t layers);

enum block_chain { CHAIN_POINTWISE, CHAIN_PRELUDE, CHAIN_RESIDUAL, CHAIN_LINEARS, BLOCK_CHAINS };
extern const char *const block_chain_names[BLOCK_CHAINS];
struct graph *block_chain(struct arena *arena, enum block_chain kind, uint32_t nodes);

#endif
