/* runtime/processes.h - ranks as processes: how they come together, how they watch over each other, how they end.
 *
 * Coming together: rank 0 listens, every other rank says who it is (protocol, version of tpc, hash of plan and options, number of ranks) and is
 * told where the others are; then each pair has a connection of its own for data. What does not agree ends all and names the odd one.
 *
 * Watching: every other rank keeps its connection to rank 0, over which both say several times per timeout that they live. A rank whose connection
 * closes without a farewell has died; one that says nothing for the timeout is silent. Either ends all. One line is printed over all ranks: by rank 0,
 * or by the lowest rank that is left where rank 0 itself is lost.
 *
 * Ending: no process outlives the verdict by more than GRACE seconds, whatever it is doing.
 *
 * Invariant: peers are not trusted with memory: every length that comes from one is checked against what is due, none is allocated by.
 *
 * Sections: rendezvous.c (join), watch.c (watching, ending), comm_processes.c (the collectives)
 */
#ifndef TPC_RUNTIME_PROCESSES_H
#define TPC_RUNTIME_PROCESSES_H

#include "runtime/comm.h"
#include "runtime/launch.h"

struct processes;

struct processes_options {
    struct launch launch;
    double timeout;         /* seconds */
    uint64_t plan, options; /* hashes of what all ranks must have alike: the plan, and the command's options */
    const char *version;    /* of tpc */
};

/* TPC_RANKS when they cannot come together within the timeout; the line is printed, or rank 0 prints it and nothing is here. */
status processes_join(const struct processes_options *o, struct diag *diag, struct processes **out);
/* The farewell. `code` is what this rank would exit with and `line` (NULL: none) its diagnostic, not yet printed. Returns what to exit with. The line that
 * goes to stderr is printed here, by one rank of all. */
status processes_leave(struct processes *p, status code, const char *line);

uint32_t processes_rank(const struct processes *p);
/* The lowest rank on the same host; how many there are on it (NULL is allowed). */
uint32_t processes_first_here(const struct processes *p, uint32_t *count);
/* True when all is over because of another rank, or of a connection. */
bool processes_ended(const struct processes *p);

/* Collectives of this rank over the mesh, for buffers in host memory. One per world; freed with it. NULL: out of memory. */
struct comm *comm_processes_new(struct processes *p, const struct mesh *mesh);

#endif
