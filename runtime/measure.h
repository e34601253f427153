/* runtime/measure.h - how fast this machine is, as seen by one of its ranks while the others are as busy: for `tpc doctor --machine`.
 *
 * Section: measure.c
 */
#ifndef TPC_RUNTIME_MEASURE_H
#define TPC_RUNTIME_MEASURE_H

#include "ir/dtype.h"

struct measured {
    uint32_t ranks;          /* that were busy: one per core, at most 8, at least 2 */
    uint64_t memory;         /* bytes of the machine, shared out */
    double flops[DT_COUNT];  /* per second, of a square product; 0: not measured */
    double memory_bandwidth; /* bytes read and written per second by a copy */
    double link_latency;     /* seconds of an all-reduce of a few bytes */
    double
        link_bandwidth; /* bytes per second and rank: 2 (n-1)/n of a large all-reduce's buffer over its time less the latency */
};

/* Takes about two seconds. TPC_NOMEM, TPC_IO when there is no memory for it, or no thread to be had; with one line. */
status measure_machine(struct measured *out, struct diag *diag);

#endif
