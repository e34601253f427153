/* tests/fake_cuda/driver.c - the fake libcuda.so.1: memory with bounds, streams as threads. Kernels are in kernels.c, graphs in graphs.c. */
#include "runtime/cuda_api.h"
#include "tests/cuda_model/device.h"
#include "tests/fake_cuda/fake.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { MOST_GPUS = 16, RELEASED = 64 };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static uint64_t setting(const char *name, uint64_t otherwise)
{
    const char *text = getenv(name);
    return text && *text ? strtoull(text, NULL, 10) : otherwise;
}

/* ---- calls ---------------------------------------------------------------------------------------------------------------- */

static _Atomic uint64_t calls, fail_at;
static _Atomic int64_t live;

/* TPC_FAKE_FAIL=NAME:N */
static bool fails_by_name(const char *name)
{
    static _Atomic uint64_t seen;
    const char *wish = getenv("TPC_FAKE_FAIL"), *colon = wish ? strrchr(wish, ':') : NULL;
    if (!colon)
        return false;
    size_t length = (size_t)(colon - wish);
    bool same = (length == 1 && *wish == '*') || (strlen(name) == length && memcmp(wish, name, length) == 0);
    return same && atomic_fetch_add(&seen, 1) + 1 == strtoull(colon + 1, NULL, 10);
}

/* fake_fail_of */
static char failing[64];
static _Atomic uint64_t until_it_fails;

static bool fails_of(const char *name)
{
    if (atomic_load(&until_it_fails) == 0 || strcmp(name, failing) != 0)
        return false;
    uint64_t left = atomic_fetch_sub(&until_it_fails, 1);
    if (left == 0) /* another thread had the last one */
        atomic_fetch_add(&until_it_fails, 1);
    return left == 1;
}

bool fake_call(const char *name)
{
    const char *path = getenv("TPC_FAKE_LOG");
    uint64_t number = atomic_fetch_add(&calls, 1) + 1;
    if (path && *path) {
        pthread_mutex_lock(&lock);
        FILE *f = fopen(path, "ae");
        if (f) {
            (void)fprintf(f, "%s\n", name);
            (void)fclose(f);
        }
        pthread_mutex_unlock(&lock);
    }
    return number == atomic_load(&fail_at) || fails_by_name(name) || fails_of(name);
}

void fake_fail_of(const char *name, uint64_t n)
{
    atomic_store(&until_it_fails, 0);
    snprintf(failing, sizeof failing, "%s", name);
    atomic_store(&until_it_fails, n);
}

void fake_fail_after(uint64_t n)
{
    atomic_store(&fail_at, n ? atomic_load(&calls) + n : 0);
}

uint64_t fake_calls(void)
{
    return atomic_load(&calls);
}

int64_t fake_live(void)
{
    return atomic_load(&live);
}

void fake_own(int64_t more)
{
    atomic_fetch_add(&live, more);
}

/* ---- memory ---------------------------------------------------------------------------------------------------------------- */

static struct block {
    char *at;
    size_t bytes;
    int gpu; /* -1: pinned host memory */
} block[FAKE_BLOCKS];
static uint32_t blocks;
static uint64_t used[MOST_GPUS];
static char
    *released[RELEASED]; /* of GPUs, last: kept, so that new memory is elsewhere, which depended on time otherwise */
static uint32_t releases;
static _Thread_local int current = -1;

static cu_result add_block(void **at, size_t bytes, int gpu)
{
    cu_result r = CU_OUT_OF_MEMORY;
    pthread_mutex_lock(&lock);
    bool fits = gpu < 0 || used[gpu] + bytes <= setting("TPC_FAKE_MEMORY", UINT64_C(4) << 30);
    char *memory = fits && blocks < FAKE_BLOCKS && bytes ? aligned_alloc(512, (bytes + 511) / 512 * 512) : NULL;
    if (memory) {
        memset(memory, 0xab, bytes < 1 << 20 ? bytes : 1 << 20); /* who relies on zeros sees it */
        block[blocks++] = (struct block){memory, bytes, gpu};
        if (gpu >= 0)
            used[gpu] += bytes;
        *at = memory;
        fake_own(1);
        r = CU_OK;
    }
    pthread_mutex_unlock(&lock);
    return r;
}

static cu_result drop_block(const void *at, bool host)
{
    cu_result r = INVALID;
    pthread_mutex_lock(&lock);
    for (uint32_t i = 0; i < blocks && r != CU_OK; i++)
        if (block[i].at == at && (block[i].gpu < 0) == host) {
            char *gone = block[i].at;
            if (!host) {
                char **last = &released[releases++ % RELEASED];
                used[block[i].gpu] -= block[i].bytes;
                gone = *last;
                *last = block[i].at;
            }
            free(gone);
            block[i] = block[--blocks];
            fake_own(-1);
            r = CU_OK;
        }
    pthread_mutex_unlock(&lock);
    return r;
}

static bool inside(const void *at, size_t bytes, bool host)
{
    bool found = bytes == 0;
    pthread_mutex_lock(&lock);
    for (uint32_t i = 0; i < blocks && !found; i++)
        found = (block[i].gpu < 0) == host && (const char *)at >= block[i].at && bytes <= block[i].bytes &&
                (size_t)((const char *)at - block[i].at) <= block[i].bytes - bytes;
    pthread_mutex_unlock(&lock);
    return found;
}

bool fake_is_device(const void *at, size_t bytes)
{
    return inside(at, bytes, false);
}

uint32_t fake_ranges(struct model_buffer *to)
{
    uint32_t count = 0;
    pthread_mutex_lock(&lock);
    for (uint32_t i = 0; i < blocks; i++)
        if (block[i].gpu == current || block[i].gpu < 0) /* kernels reach pinned memory */
            to[count++] = (struct model_buffer){block[i].at, block[i].bytes, true};
    pthread_mutex_unlock(&lock);
    return count;
}

FAKE_API cu_result cuMemAlloc_v2(cu_pointer *at, size_t bytes)
{
    CALL(CU_OUT_OF_MEMORY);
    void *memory = NULL;
    cu_result r = current < 0 ? INVALID : add_block(&memory, bytes, current);
    *at = (cu_pointer)(uintptr_t)memory;
    return r;
}

FAKE_API cu_result cuMemFree_v2(cu_pointer at)
{
    bool fails = fake_call(__func__); /* as every release: it releases all the same */
    cu_result r = drop_block((void *)(uintptr_t)at, false);
    return fails ? ILLEGAL_ADDRESS : r;
}

FAKE_API cu_result cuMemHostAlloc(void **at, size_t bytes, unsigned flags)
{
    CALL(CU_OUT_OF_MEMORY);
    (void)flags;
    return add_block(at, bytes, -1);
}

FAKE_API cu_result cuMemFreeHost(void *at)
{
    bool fails = fake_call(__func__);
    cu_result r = drop_block(at, true);
    return fails ? ILLEGAL_ADDRESS : r;
}

FAKE_API cu_result cuMemGetInfo_v2(size_t *free_bytes, size_t *total)
{
    CALL(ILLEGAL_ADDRESS);
    *total = setting("TPC_FAKE_MEMORY", UINT64_C(4) << 30);
    *free_bytes = *total - (current < 0 ? 0 : used[current]);
    return CU_OK;
}

bool fake_idles(void)
{
    static _Atomic int64_t known = -2;
    int64_t time = atomic_load(&known);
    if (time == -2)
        atomic_store(&known, time = (int64_t)setting("TPC_FAKE_IDLE", UINT64_MAX));
    if (time > 0)
        nanosleep(&(struct timespec){.tv_sec = time / 1000000, .tv_nsec = time % 1000000 * 1000}, NULL);
    return time >= 0;
}

/* ---- streams and graphs -------------------------------------------------------------------------------------------------------- */

struct item {
    struct item *next;
    fake_work *work;
    _Alignas(16) char argument[];
};

struct stream {
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    struct item *first, **last;
    bool busy, quit;
    cu_result broken;
    struct fake_graph *captured; /* NULL: not */
    int gpu;
};

static _Thread_local struct stream *running; /* of a work */

static void *run_stream(void *argument)
{
    struct stream *s = argument;
    running = s;
    current = s->gpu;
    pthread_mutex_lock(&s->lock);
    for (;;) {
        while (!s->first && !s->quit)
            pthread_cond_wait(&s->changed, &s->lock);
        if (!s->first)
            break;
        struct item *i = s->first;
        s->first = i->next;
        if (!s->first)
            s->last = &s->first;
        s->busy = true;
        bool good = s->broken == CU_OK;
        pthread_mutex_unlock(&s->lock);
        if (good)
            i->work(i->argument);
        free(i);
        pthread_mutex_lock(&s->lock);
        s->busy = false;
        pthread_cond_broadcast(&s->changed);
    }
    pthread_mutex_unlock(&s->lock);
    return NULL;
}

bool fake_enqueue(void *stream, fake_work *work, const void *argument, size_t bytes)
{
    struct stream *s = stream;
    if (!s)
        return false;
    if (s->captured) {
        fake_graph_add(s->captured, work, argument, bytes);
        return true;
    }
    struct item *i = malloc(sizeof *i + bytes);
    *i = (struct item){NULL, work};
    memcpy(i->argument, argument, bytes);
    pthread_mutex_lock(&s->lock);
    *s->last = i;
    s->last = &i->next;
    pthread_cond_broadcast(&s->changed);
    pthread_mutex_unlock(&s->lock);
    return true;
}

void fake_break(void *stream, const char *why)
{
    struct stream *s = stream ? stream : running;
    (void)fprintf(stderr, "fake CUDA: %s\n", why);
    pthread_mutex_lock(&s->lock);
    s->broken = LAUNCH_FAILED;
    pthread_mutex_unlock(&s->lock);
}

FAKE_API cu_result cuStreamCreate(cu_stream *out, unsigned flags)
{
    CALL(CU_OUT_OF_MEMORY);
    struct stream *s = calloc(1, sizeof *s);
    (void)flags;
    s->last = &s->first;
    s->gpu = current;
    pthread_mutex_init(&s->lock, NULL);
    pthread_cond_init(&s->changed, NULL);
    if (pthread_create(&s->thread, NULL, run_stream, s) != 0)
        return CU_OUT_OF_MEMORY;
    fake_own(1);
    *out = (cu_stream)s;
    return CU_OK;
}

FAKE_API cu_result cuStreamQuery(cu_stream stream)
{
    struct stream *s = (struct stream *)stream; /* not a call that is counted: how often it is made depends on time */
    pthread_mutex_lock(&s->lock);
    cu_result r = s->first || s->busy ? CU_NOT_READY : s->broken;
    pthread_mutex_unlock(&s->lock);
    return r;
}

static cu_result drain(struct stream *s)
{
    pthread_mutex_lock(&s->lock);
    while (s->first || s->busy)
        pthread_cond_wait(&s->changed, &s->lock);
    cu_result r = s->broken;
    pthread_mutex_unlock(&s->lock);
    return r;
}

FAKE_API cu_result cuStreamSynchronize(cu_stream stream)
{
    CALL(LAUNCH_FAILED);
    return ((struct stream *)stream)->captured ? INVALID : drain((struct stream *)stream);
}

FAKE_API cu_result cuStreamDestroy_v2(cu_stream stream)
{
    struct stream *s = (struct stream *)stream;
    bool fails = fake_call(__func__);
    pthread_mutex_lock(&s->lock);
    s->quit = true;
    pthread_cond_broadcast(&s->changed);
    pthread_mutex_unlock(&s->lock);
    pthread_join(s->thread, NULL);
    free(s);
    fake_own(-1);
    return fails ? ILLEGAL_ADDRESS : CU_OK;
}

FAKE_API cu_result cuStreamBeginCapture_v2(cu_stream stream, int mode)
{
    struct stream *s = (struct stream *)stream;
    CALL(INVALID);
    (void)mode;
    s->captured = fake_graph_new();
    return CU_OK;
}

FAKE_API cu_result cuStreamGetCaptureInfo_v3(cu_stream stream, int *state, uint64_t *id, cu_graph *graph,
                                             const cu_graph_node **node, const void **edge, size_t *nodes)
{
    struct stream *s = (struct stream *)stream;
    CALL(INVALID);
    *state = s->captured != NULL; /* CU_STREAM_CAPTURE_STATUS_ACTIVE */
    *id = 1;
    *graph = (cu_graph)s->captured;
    *edge = NULL;
    *nodes = 0;
    *node = NULL;
    if (s->captured)
        *node = (const cu_graph_node *)fake_graph_last(s->captured, nodes);
    return CU_OK;
}

FAKE_API cu_result cuStreamEndCapture(cu_stream stream, cu_graph *graph)
{
    struct stream *s = (struct stream *)stream;
    struct fake_graph *g = s->captured;
    s->captured = NULL;
    *graph = NULL;
    if (fake_call(__func__) || !g) {
        fake_graph_free(g);
        return INVALID;
    }
    *graph = (cu_graph)g;
    return CU_OK;
}

/* ---- copies ---------------------------------------------------------------------------------------------------------------------- */

struct copying {
    void *to;
    const void *from;
    size_t bytes;
    int fill;                      /* -1: copy */
    bool host_to, host_from, kept; /* kept: what is copied must be what was there when it was queued */
    uint64_t sum;
};

static uint64_t sum_of(const void *at, size_t bytes)
{
    const unsigned char *from = at;
    uint64_t sum = bytes, word;
    for (size_t i = 0; i + sizeof word <= bytes; i += sizeof word) {
        memcpy(&word, from + i, sizeof word);
        sum = (sum ^ word) * UINT64_C(0x9e3779b97f4a7c15);
        sum ^= sum >> 32;
    }
    for (size_t i = bytes / sizeof word * sizeof word; i < bytes; i++)
        sum = (sum ^ from[i]) * UINT64_C(0x9e3779b97f4a7c15);
    return sum;
}

static void run_copy(void *argument)
{
    const struct copying *c = argument;
    if (!inside(c->to, c->bytes, c->host_to) || (c->fill < 0 && !inside(c->from, c->bytes, c->host_from))) {
        fake_break(NULL, "a copy reaches outside of its memory, or host memory is not pinned");
        return;
    }
    if (c->kept) {
        nanosleep(&(struct timespec){.tv_nsec = 1000 * 1000 * (long)(setting("TPC_FAKE_SLOW", 0) % 1000)}, NULL);
        if (sum_of(c->from, c->bytes) != c->sum) {
            fake_break(NULL, "host memory changed before it was copied to the GPU");
            return;
        }
    }
    if (c->fill >= 0)
        memset(c->to, c->fill, c->bytes);
    else if (c->bytes)
        memmove(c->to, c->from, c->bytes);
}

static cu_result queue_copy(cu_stream stream, struct copying c)
{
    return fake_enqueue(stream, run_copy, &c, sizeof c) ? CU_OK : INVALID;
}

static void *view(cu_pointer p)
{
    return (void *)(uintptr_t)p;
}

FAKE_API cu_result cuMemcpyHtoDAsync_v2(cu_pointer to, const void *from, size_t bytes, cu_stream stream)
{
    CALL(ILLEGAL_ADDRESS);
    struct copying c = {.to = view(to), .from = from, .bytes = bytes, .fill = -1, .host_from = true};
    c.kept = stream && !((struct stream *)stream)->captured;
    if (c.kept && inside(from, bytes, true))
        c.sum = sum_of(from, bytes);
    return queue_copy(stream, c);
}

FAKE_API cu_result cuMemcpyDtoHAsync_v2(void *to, cu_pointer from, size_t bytes, cu_stream stream)
{
    CALL(ILLEGAL_ADDRESS);
    return queue_copy(
        stream, (struct copying){
                    .to = to, .from = view(from), .bytes = bytes, .fill = -1, .host_to = true, .host_from = false});
}

FAKE_API cu_result cuMemcpyDtoDAsync_v2(cu_pointer to, cu_pointer from, size_t bytes, cu_stream stream)
{
    CALL(ILLEGAL_ADDRESS);
    return queue_copy(
        stream,
        (struct copying){
            .to = view(to), .from = view(from), .bytes = bytes, .fill = -1, .host_to = false, .host_from = false});
}

FAKE_API cu_result cuMemsetD8Async(cu_pointer to, unsigned char byte, size_t bytes, cu_stream stream)
{
    CALL(ILLEGAL_ADDRESS);
    return queue_copy(
        stream, (struct copying){
                    .to = view(to), .from = NULL, .bytes = bytes, .fill = byte, .host_to = false, .host_from = false});
}

/* ---- devices ---------------------------------------------------------------------------------------------------------------------- */

FAKE_API cu_result cuInit(unsigned flags)
{
    CALL(CU_NO_DEVICE);
    (void)flags;
    return setting("TPC_FAKE_GPUS", 2) ? CU_OK : CU_NO_DEVICE;
}

FAKE_API cu_result cuDriverGetVersion(int *version)
{
    CALL(INVALID);
    *version = (int)setting("TPC_FAKE_DRIVER", 13000);
    return CU_OK;
}

FAKE_API cu_result cuDeviceGetCount(int *count)
{
    CALL(INVALID);
    *count = (int)setting("TPC_FAKE_GPUS", 2);
    return CU_OK;
}

FAKE_API cu_result cuDeviceGet(cu_device *device, int ordinal)
{
    CALL(INVALID);
    *device = ordinal;
    return ordinal >= 0 && ordinal < (int)setting("TPC_FAKE_GPUS", 2) && ordinal < MOST_GPUS ? CU_OK : INVALID;
}

FAKE_API cu_result cuDeviceGetName(char *name, int length, cu_device device)
{
    CALL(INVALID);
    (void)device;
    (void)snprintf(name, (size_t)length, "fake GPU (computes on the CPU)");
    return CU_OK;
}

int fake_compute(void)
{
    return (int)setting("TPC_FAKE_COMPUTE", 90);
}

FAKE_API cu_result cuDeviceGetAttribute(int *value, int attribute, cu_device device)
{
    CALL(INVALID);
    (void)device;
    int compute = fake_compute();
    *value = attribute == CU_DEVICE_PROCESSORS ? 4
             : attribute == CU_DEVICE_MAJOR    ? compute / 10
             : attribute == CU_DEVICE_MINOR    ? compute % 10
                                               : -1;
    return *value < 0 ? INVALID : CU_OK;
}

FAKE_API cu_result cuDevicePrimaryCtxRetain(cu_context *context, cu_device device)
{
    CALL(CU_OUT_OF_MEMORY);
    *context = (cu_context)(uintptr_t)(device + 1);
    fake_own(1);
    return CU_OK;
}

FAKE_API cu_result cuDevicePrimaryCtxRelease_v2(cu_device device)
{
    (void)device;
    fake_own(-1);
    return fake_call(__func__) ? INVALID : CU_OK;
}

FAKE_API cu_result cuCtxSetCurrent(cu_context context)
{
    CALL(INVALID);
    current = (int)(uintptr_t)context - 1;
    return CU_OK;
}

FAKE_API cu_result cuGetErrorName(cu_result error, const char **name)
{
    static const struct {
        cu_result error;
        const char *name;
    } names[] = {{INVALID, "CUDA_ERROR_INVALID_VALUE"},
                 {CU_OUT_OF_MEMORY, "CUDA_ERROR_OUT_OF_MEMORY"},
                 {CU_NO_DEVICE, "CUDA_ERROR_NO_DEVICE"},
                 {200, "CUDA_ERROR_INVALID_IMAGE"},
                 {500, "CUDA_ERROR_NOT_FOUND"},
                 {ILLEGAL_ADDRESS, "CUDA_ERROR_ILLEGAL_ADDRESS"},
                 {LAUNCH_FAILED, "CUDA_ERROR_LAUNCH_FAILED"}};
    *name = "CUDA_ERROR_UNKNOWN";
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        *name = names[i].error == error ? names[i].name : *name;
    return CU_OK;
}

FAKE_API cu_result cuGetErrorString(cu_result error, const char **text)
{
    (void)error;
    *text = "from the fake driver";
    return CU_OK;
}
