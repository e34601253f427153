/* runtime/comm_nccl.h - collectives between GPUs, in the queue behind the steps of their device, by NCCL.
 *
 * Contract, beside comm.h's: buffers are device memory; a call returns when it is queued (true), so results are there after the device's `finish`. Sums have NCCL's
 * order, not comm.h's: the same bits in every run on the same GPUs, but not those of CPU ranks. Communicators do not block: what goes wrong later is seen
 * by comm_nccl_broken, which whoever waits asks.
 *
 * Section: comm_nccl.c
 */
#ifndef TPC_RUNTIME_COMM_NCCL_H
#define TPC_RUNTIME_COMM_NCCL_H

#include "runtime/comm.h"
#include "runtime/device.h"

struct nccl_options {
    const struct mesh *mesh;
    struct device *device; /* a GPU; its cuda_set has the helpers for collectives */
    struct comm *host;     /* over which ranks tell each other NCCL's id */
    const uint32_t *
        masks; /* of sub-axes, beside the whole, over which collectives will go; the same on all ranks, in the same order */
    uint32_t mask_count;
    double timeout;              /* seconds to come together */
    bool (*over)(void *context); /* asked while waiting: the run has ended */
    void *context;
};

/* All ranks at once, each on its own thread. TPC_UNSUPPORTED: no NCCL; TPC_RANKS: they do not come together (without a text: another
 * rank has ended). */
status comm_nccl_new(const struct nccl_options *o, struct failure *f, struct comm **out);
/* Has NCCL met an error since (comm->why says which)? Any time, on the thread that owns the rank. */
bool comm_nccl_broken(struct comm *c);
/* Ends what is queued, on every GPU that does the same; within seconds. It cannot be used any more. */
void comm_nccl_give_up(struct comm *c);
bool comm_nccl_dead(const struct comm *c);
void comm_nccl_free(struct comm *c); /* NULL is allowed */

#endif
