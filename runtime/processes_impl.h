/* runtime/processes_impl.h - what rendezvous.c, watch.c and comm_processes.c share.
 *
 * Invariant: `peer[].data` belongs to the thread that computes, `peer[].control` to the watcher, from processes_join on. The verdict is written once,
 * under the lock; `ended` is set behind it.
 */
#ifndef TPC_RUNTIME_PROCESSES_IMPL_H
#define TPC_RUNTIME_PROCESSES_IMPL_H

#include "runtime/net.h"
#include "runtime/processes.h"

#include <pthread.h>
#include <stdatomic.h>

enum { PROTOCOL = 1, HOST_NAME = 64, VERSION_NAME = 24, VERDICT_LINE = 512 };
enum { FRAME = 16 }; /* control message: kind, code or the collective's number, its kind, length of the text behind */
#define GRACE 2.0    /* seconds from the verdict to the end of the process */

struct peer {
    int data, control; /* -1: none. Rank 0 has a control connection to each, the others one to rank 0 */
    struct net_address address;
    char host[HOST_NAME];
    /* the watcher's */
    double heard;      /* when it last said anything */
    atomic_bool left;  /* it has taken its farewell; others look too, before they tell it something */
    uint32_t sequence; /* of the last collective that it spoke of */
    uint32_t what;     /* enum collective */
    unsigned char frame[FRAME + VERDICT_LINE];
    size_t got;
};

/* What a rank was doing last, for the line about its end. */
enum collective { NO_COLLECTIVE, BARRIER, ALL_REDUCE, ALL_GATHER, REDUCE_SCATTER, ALL_TO_ALL, BROADCAST, COLLECTIVES };
extern const char *const collective_names[COLLECTIVES];

struct processes {
    uint32_t rank, ranks;
    double timeout;
    struct peer *peer; /* ranks */
    struct comm *comm;
    int wake[2];  /* a pipe: readable for ever once all is over */
    int nudge[2]; /* a pipe: wakes the watcher */
    pthread_t watcher;
    bool watched; /* the thread runs */
    atomic_bool ended, leaving;
    pthread_mutex_t lock; /* of what follows */
    status verdict;
    bool speaker; /* this rank prints the line */
    bool said;    /* it has */
    char line[VERDICT_LINE];
    _Atomic uint32_t sequence, what;
};

/* watch.c: the first verdict holds. `speaker`: this rank prints it. */
void processes_judge(struct processes *p, status code, bool speaker, const char *line);
/* This rank cannot go on: the verdict is rank 0's; where none comes, it is this. */
void processes_fail(struct processes *p, status code, const char *line);
status processes_watch(struct processes *p); /* starts the watcher; TPC_INTERNAL when there are no threads */
void processes_free(struct processes *p);
void comm_processes_free(struct comm *c);

#endif
