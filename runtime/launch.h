/* runtime/launch.h - was this process started as one rank of several? What torchrun, mpirun, srun or plain environment variables say.
 *
 * Section: launch.c (one row per launcher)
 */
#ifndef TPC_RUNTIME_LAUNCH_H
#define TPC_RUNTIME_LAUNCH_H

#include "ir/base.h"

struct launch {
    uint32_t rank, ranks;
    uint32_t local_rank; /* on this host: which of its devices is this process's */
    char address[256];   /* of rank 0: a host name or an address */
    uint16_t port;       /* that rank 0 listens on */
    const char *launcher;
};

/* *found is false (and nothing else set) where no launcher speaks, or one of a single process. TPC_USAGE where what it says cannot be. */
status launch_read(struct launch *out, bool *found, struct diag *diag);

#endif
