/* runtime/measure.c - see measure.h. All ranks do the same at the same time, in the order of `measure_rank`, and start each part together; what
 * rank 0 sees is reported. Start with measure_machine.
 */
#include "runtime/measure.h"
#include "runtime/comm.h"
#include "runtime/gemm.h"

#include <pthread.h>
#include <time.h>
#include <unistd.h>

enum { MOST_RANKS = 8, SIDE = 384, COPIED = 32 << 20, REDUCED = 4 << 20, SMALL = 64 };
static const double LEAST_SECONDS = 0.1;

struct bench {
    struct comm *comm;
    pthread_t thread;
    struct workers *workers;
    char *a, *b, *out; /* COPIED bytes each */
    struct measured result;
    bool complete;
};

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static bool start_together(struct bench *b)
{
    return b->comm->ops->barrier(b->comm, 1);
}

/* Ends all ranks: they would wait for this one. */
static double give_up(struct bench *b)
{
    b->comm->ops->abort(b->comm);
    return 0;
}

/* Seconds per call. Every rank decides by its own clock: `work` must not talk to others. */
static double seconds_of(struct bench *b, bool (*work)(struct bench *b, dtype type), dtype type)
{
    uint32_t calls = 0;
    if (!work(b, type) || !start_together(b)) /* the first call fills caches and finds libraries */
        return give_up(b);
    double begin = now(), end;
    do {
        if (!work(b, type))
            return give_up(b);
        calls++;
        end = now();
    } while (end - begin < LEAST_SECONDS);
    return (end - begin) / calls;
}

static bool product(struct bench *b, dtype type)
{
    struct dot_view v = {.m = 1, .n = 1, .k = 1, .extent = {SIDE, SIDE, SIDE}};
    v.stride[0][0] = SIDE, v.stride[0][2] = 1;
    v.stride[1][1] = SIDE, v.stride[1][2] = 1;
    v.stride[2][0] = SIDE, v.stride[2][1] = 1;
    return gemm_dot(&v, type, b->a, b->b, b->out, b->workers) == TPC_OK;
}

static bool copy(struct bench *b, dtype type)
{
    (void)type;
    memcpy(b->out, b->a, COPIED);
    b->a[0]++; /* or copies could be left out */
    return true;
}

/* Seconds of one all-reduce. Collectives are counted: all ranks must do the same. */
static double seconds_of_reduce(struct bench *b, int64_t elements, uint32_t calls)
{
    double begin = 0;
    for (uint32_t i = 0; i <= calls; i++) {
        if (!b->comm->ops->all_reduce(b->comm, 1, REDUCTION_SUM, DT_F32, b->b, b->out, elements))
            return give_up(b);
        begin = i ? begin : now();
    }
    return (now() - begin) / calls;
}

static void *measure_rank(void *argument)
{
    static const dtype types[] = {DT_F64, DT_F32, DT_F16, DT_BF16, DT_I8, DT_I32};
    struct bench *b = argument;
    struct measured *m = &b->result;
    double flops = 2.0 * SIDE * SIDE * SIDE, n = b->comm->ranks;
    b->complete = true;
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        double seconds = seconds_of(b, product, types[i]);
        m->flops[types[i]] = seconds > 0 ? flops / seconds : 0;
        b->complete = b->complete && seconds > 0;
    }
    double copying = seconds_of(b, copy, DT_NONE);
    m->link_latency = seconds_of_reduce(b, SMALL, 2000);
    double reducing = seconds_of_reduce(b, REDUCED, 20) - m->link_latency;
    b->complete = b->complete && copying > 0 && m->link_latency > 0 && reducing > 0;
    m->memory_bandwidth = 2.0 * COPIED / copying;
    m->link_bandwidth = 2 * (n - 1) / n * REDUCED * (double)dtype_size(DT_F32) / reducing;
    return NULL;
}

static bool prepare(struct bench *b, struct comm *comm)
{
    b->comm = comm;
    b->workers = workers_new(1);
    b->a = base_alloc(COPIED);
    b->b = base_alloc(COPIED);
    b->out = base_alloc(COPIED);
    if (!b->workers || !b->a || !b->b || !b->out)
        return false;
    memset(b->a, 0x3c, COPIED); /* ordinary numbers in every type */
    memset(b->b, 0x3c, COPIED);
    memset(b->out, 0, COPIED);
    return true;
}

static status run_ranks(struct bench *bench, uint32_t ranks, struct comm_world *world, struct diag *diag)
{
    uint32_t started = 1;
    bool complete = true;
    for (uint32_t r = 0; r < ranks; r++)
        if (!prepare(&bench[r], comm_threads_rank(world, r)))
            return diag_error(diag, TPC_NOMEM, NULL, "no memory to measure with: %u ranks want %d MiB each",
                              (unsigned)ranks, 3 * COPIED >> 20);
    sync_busy_threads((int32_t)ranks);
    while (started < ranks && pthread_create(&bench[started].thread, NULL, measure_rank, &bench[started]) == 0)
        started++;
    if (started < ranks)
        bench[0].comm->ops->abort(bench[0].comm);
    else
        measure_rank(&bench[0]);
    for (uint32_t r = 1; r < started; r++)
        pthread_join(bench[r].thread, NULL);
    sync_busy_threads(-(int32_t)ranks);
    for (uint32_t r = 0; r < ranks; r++)
        complete = complete && bench[r].complete;
    return complete ? TPC_OK : diag_error(diag, TPC_IO, NULL, "cannot measure: no thread or no memory to be had");
}

status measure_machine(struct measured *out, struct diag *diag)
{
    struct bench bench[MOST_RANKS] = {0};
    uint32_t cores = sync_cores(), ranks = cores < 2 ? 2 : cores > MOST_RANKS ? MOST_RANKS : cores;
    struct mesh mesh = {.ranks = ranks, .count = 1, .size = {ranks}, .axis = {"tp"}};
    struct comm_world *world = comm_threads_new(&mesh);
    if (!world)
        return diag_error(diag, TPC_NOMEM, NULL, "no memory to measure with");
    status s = run_ranks(bench, ranks, world, diag);
    comm_threads_free(world);
    for (uint32_t r = 0; r < ranks; r++) {
        workers_free(bench[r].workers);
        base_free(bench[r].a);
        base_free(bench[r].b);
        base_free(bench[r].out);
    }
    *out = bench[0].result;
    out->ranks = ranks;
    long pages = sysconf(_SC_PHYS_PAGES), page = sysconf(_SC_PAGE_SIZE);
    out->memory = pages > 0 && page > 0 ? (uint64_t)pages * (uint64_t)page / ranks : 0;
    return s;
}
