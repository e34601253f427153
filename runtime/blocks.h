/* runtime/blocks.h - the blocks of an all_to_all (runtime/comm.h): what part p gives to part q.
 *
 * Of every `before` and `between` it is one block of the two axes. In p's buffer the gathered axis has p's extent and the other is whole; in q's buffer it
 * is the other way round; packed, a block lies dense in the order [before, first, between, second, after].
 *
 * Section: blocks.c
 */
#ifndef TPC_RUNTIME_BLOCKS_H
#define TPC_RUNTIME_BLOCKS_H

#include "runtime/comm.h"

/* Runs of `bytes` at offsets, as nested loops: for b < count[0], i < count[1], k < count[2]: start + b*stride[0] + i*stride[1] + k*stride[2]; in bytes. */
struct block_side {
    size_t start, stride[3];
};
struct block {
    size_t count[3], bytes;
    struct block_side from, to, packed;
};

/* size: bytes per element. */
void block_of(const struct comm_exchange *x, uint32_t parts, uint32_t p, uint32_t q, size_t size, struct block *out);
size_t block_bytes(const struct comm_exchange *x, uint32_t parts, uint32_t p, uint32_t q, size_t size);
void block_copy(const struct comm_exchange *x, uint32_t parts, uint32_t p, uint32_t q, size_t size, const void *from,
                void *to);
void block_pack(const struct comm_exchange *x, uint32_t parts, uint32_t p, uint32_t q, size_t size, const void *from,
                void *packed);
void block_unpack(const struct comm_exchange *x, uint32_t parts, uint32_t p, uint32_t q, size_t size,
                  const void *packed, void *to);

#endif
