/* runtime/sync.h - waiting: a signal that threads raise and wait for, and the pool of worker threads of one rank.
 *
 * Invariant: whatever happened before signal_raise is visible to whoever has seen the raise. A waiter spins for a few
 * microseconds and then sleeps in the kernel, at once when more threads want to run than there are cores; so ranks may
 * outnumber the cores.
 *
 * Sections: sync.c (signals), workers.c (pools)
 */
#ifndef TPC_RUNTIME_SYNC_H
#define TPC_RUNTIME_SYNC_H

#include "ir/base.h"

#include <stdatomic.h>

/* ---- signals: sync.c ---------------------------------------------------------------------------------------- */

/* A counter that moves forward. Zeroed is ready for use. */
struct signal {
    _Atomic uint32_t value;
    _Atomic uint32_t sleepers;
};

static inline uint32_t signal_value(struct signal *s)
{
    return atomic_load_explicit(&s->value, memory_order_acquire);
}
void signal_raise(struct signal *s);
/* Returns when the value is not `seen` any more, or when *stop is true (stop may be NULL). */
void signal_wait(struct signal *s, uint32_t seen, const atomic_bool *stop);

/* Says that `count` more threads (or fewer) will be busy at once: waiting adapts. */
void sync_busy_threads(int32_t count);
uint32_t sync_cores(void); /* that this process may run on */

/* ---- workers: workers.c ------------------------------------------------------------------------------------- */

/* A pool that belongs to one thread: its owner works too, as part 0. */
struct workers;

/* `threads` counts the owner; fewer are made when the system gives no more. NULL: out of memory. */
struct workers *workers_new(uint32_t threads);
void workers_free(struct workers *w); /* NULL is allowed */
uint32_t workers_count(const struct workers *w);
/* Calls work(context, part, parts) for each part < parts = workers_count, part 0 on the caller, and returns when all have returned.
 * The split depends on nothing but the count: same input, same bits. */
void workers_run(struct workers *w, void (*work)(void *context, uint32_t part, uint32_t parts), void *context);
/* Memory of one part, kept from call to call, aligned to 64, contents undefined. To be called in `work` with its own part, or outside of
 * workers_run. NULL: out of memory. Grows: a later call invalidates an earlier result. */
void *workers_scratch(struct workers *w, uint32_t part, size_t bytes);

/* [begin, end) of part: n cut into parts, on multiples of unit. */
static inline void part_range(int64_t n, int64_t unit, uint32_t part, uint32_t parts, int64_t *begin, int64_t *end)
{
    int64_t units = (n + unit - 1) / unit, each = units / parts, rest = units % parts;
    int64_t b = (each * part + (part < rest ? part : rest)) * unit;
    int64_t e = b + (each + (part < rest)) * unit;
    *begin = b < n ? b : n;
    *end = e < n ? e : n;
}

#endif
