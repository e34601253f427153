/* runtime/workers.c - a pool of threads that share out one piece of work after the other.
 *
 * Invariant: between two calls of workers_run all helpers wait for `start`; a call raises it once and waits until `left` is 0.
 */
#include "runtime/sync.h"

#include <pthread.h>

struct scratch {
    void *base; /* as allocated */
    void *at;   /* aligned */
    size_t size;
};

struct helper {
    struct workers *pool;
    pthread_t thread;
    uint32_t part;
};

struct workers {
    uint32_t count;          /* owner included */
    struct helper *helper;   /* count - 1 */
    struct scratch *scratch; /* count */
    void (*work)(void *context, uint32_t part, uint32_t parts);
    void *context;
    bool quit;
    struct signal start, done;
    _Atomic uint32_t left;
};

static void *help(void *argument)
{
    struct helper *h = argument;
    struct workers *w = h->pool;
    uint32_t seen = 0;
    for (;;) {
        signal_wait(&w->start, seen, NULL);
        seen++;
        if (w->quit)
            return NULL;
        w->work(w->context, h->part, w->count);
        if (atomic_fetch_sub(&w->left, 1) == 1)
            signal_raise(&w->done);
    }
}

struct workers *workers_new(uint32_t threads)
{
    if (threads == 0)
        threads = 1;
    struct workers *w = base_alloc(sizeof *w);
    struct helper *helper = base_alloc(threads * sizeof *helper);
    struct scratch *scratch = base_alloc(threads * sizeof *scratch);
    if (!w || !helper || !scratch) {
        base_free(w);
        base_free(helper);
        base_free(scratch);
        return NULL;
    }
    w->helper = helper;
    w->scratch = scratch;
    w->count = threads;
    uint32_t made = 0;
    while (made + 1 < threads) {
        helper[made] = (struct helper){.pool = w, .part = made + 1};
        if (pthread_create(&helper[made].thread, NULL, help, &helper[made]) != 0)
            break;
        made++;
    }
    w->count = made + 1; /* the helpers read it after the first raise only */
    sync_busy_threads((int32_t)w->count);
    return w;
}

void workers_free(struct workers *w)
{
    if (!w)
        return;
    w->quit = true;
    signal_raise(&w->start);
    for (uint32_t i = 0; i + 1 < w->count; i++)
        pthread_join(w->helper[i].thread, NULL);
    sync_busy_threads(-(int32_t)w->count);
    for (uint32_t i = 0; i < w->count; i++)
        base_free(w->scratch[i].base);
    base_free(w->scratch);
    base_free(w->helper);
    base_free(w);
}

uint32_t workers_count(const struct workers *w)
{
    return w->count;
}

void workers_run(struct workers *w, void (*work)(void *context, uint32_t part, uint32_t parts), void *context)
{
    if (w->count == 1) {
        work(context, 0, 1);
        return;
    }
    w->work = work;
    w->context = context;
    atomic_store_explicit(&w->left, w->count - 1, memory_order_relaxed);
    uint32_t seen = signal_value(&w->done);
    signal_raise(&w->start);
    work(context, 0, w->count);
    signal_wait(&w->done, seen, NULL);
}

void *workers_scratch(struct workers *w, uint32_t part, size_t bytes)
{
    struct scratch *s = &w->scratch[part];
    if (s->size >= bytes)
        return s->at;
    size_t size = 0;
    if (!size_add(bytes, bytes / 4 + 4096, &size))
        return NULL;
    base_free(s->base);
    *s = (struct scratch){.base = base_alloc(size)};
    if (!s->base)
        return NULL;
    size_t skip = (64 - (uintptr_t)s->base % 64) % 64;
    s->at = (char *)s->base + skip;
    s->size = size - skip;
    return s->at;
}
