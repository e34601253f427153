/* runtime/sync.c - signals: spin a little, offering the core to others meanwhile, then sleep on a futex.
 *
 * Invariant: a sleeper announces itself before it looks at the value for the last time, and a raise changes the value before it looks
 * for sleepers; both sequentially consistent, so that one of the two sees the other. Sleeps are bounded (100 ms), so that a stop flag,
 * which nobody signals, is seen.
 */
#include "runtime/sync.h"

#include <sched.h>
#include <time.h>
#include <unistd.h>

#if defined(__linux__)
#include <linux/futex.h>
#include <sys/syscall.h>
#endif

static _Atomic int32_t busy_threads;

uint32_t sync_cores(void)
{
    static _Atomic uint32_t known;
    uint32_t cores = atomic_load_explicit(&known, memory_order_relaxed);
    if (cores)
        return cores;
#if defined(__linux__)
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) == 0)
        cores = (uint32_t)CPU_COUNT(&set);
#endif
    if (cores == 0) {
        long online = sysconf(_SC_NPROCESSORS_ONLN);
        cores = online > 0 ? (uint32_t)online : 1;
    }
    atomic_store_explicit(&known, cores, memory_order_relaxed);
    return cores;
}

void sync_busy_threads(int32_t count)
{
    atomic_fetch_add(&busy_threads, count);
}

static void relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static void sleep_on(struct signal *s, uint32_t seen)
{
    struct timespec limit = {.tv_nsec = 100 * 1000 * 1000};
#if defined(__linux__)
    syscall(SYS_futex, (uint32_t *)&s->value, FUTEX_WAIT_PRIVATE, seen, &limit, NULL, 0);
#else
    limit.tv_nsec = signal_value(s) == seen ? 50 * 1000 : 0;
    nanosleep(&limit, NULL);
#endif
}

static bool stopped(const atomic_bool *stop)
{
    return stop && atomic_load_explicit(stop, memory_order_acquire);
}

void signal_raise(struct signal *s)
{
    atomic_fetch_add(&s->value, 1);
#if defined(__linux__)
    if (atomic_load(&s->sleepers))
        syscall(SYS_futex, (uint32_t *)&s->value, FUTEX_WAKE_PRIVATE, INT32_MAX, NULL, NULL, 0);
#endif
}

void signal_wait(struct signal *s, uint32_t seen, const atomic_bool *stop)
{
    bool crowded = atomic_load_explicit(&busy_threads, memory_order_relaxed) > (int32_t)sync_cores();
    for (uint32_t round = 0; round < (crowded ? 8u : 128u); round++) {
        for (uint32_t i = 0; i < (crowded ? 4u : 32u); i++) {
            if (signal_value(s) != seen || stopped(stop))
                return;
            relax();
        }
        sched_yield(); /* cheap where nobody waits for this core, and the right thing where somebody does */
    }
    atomic_fetch_add(&s->sleepers, 1);
    while (atomic_load(&s->value) == seen && !stopped(stop))
        sleep_on(s, seen);
    atomic_fetch_sub(&s->sleepers, 1);
}
