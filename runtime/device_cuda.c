/* runtime/device_cuda.c - a GPU as a device: one stream; its memory, what goes in and out of it, waiting. Steps are in steps_cuda.c.
 *
 * Invariant: what is queued takes effect in the order of the stream; the fault cell is read whenever the stream is waited for. Start with `ops`.
 */
#include "runtime/device_cuda_impl.h"

#include <sched.h>
#include <stdlib.h>
#include <time.h>

/* ---- errors ------------------------------------------------------------------------------------------------------------ */

status cuda_check(struct cuda *c, cu_result r, const char *what, struct failure *f)
{
    char text[120];
    if (r == CU_OK)
        return TPC_OK;
    if (r == CU_OUT_OF_MEMORY)
        return fail(f, TPC_NOMEM, "out of memory on GPU %u: %s", (unsigned)c->info.ordinal, what);
    if (!c->broken)
        snprintf(c->why, sizeof c->why, "GPU %u: %.60s fails: %s", (unsigned)c->info.ordinal, what,
                 cuda_error(c->api, r, text, sizeof text));
    c->broken = true;
    return fail(f, TPC_INTERNAL, "%s", c->why);
}

/* Before any other call: the context is the thread's, and the GPU still good. */
status cuda_enter(struct cuda *c, struct failure *f)
{
    if (c->broken)
        return fail(f, TPC_INTERNAL, "%s", c->why);
    return cuda_check(c, c->api->context_set(c->context), "taking its context", f);
}

/* ---- memory ------------------------------------------------------------------------------------------------------------ */

static void *alloc_bytes(struct device *d, size_t bytes)
{
    struct cuda *c = cuda_of(d);
    struct failure f = {.code = TPC_OK};
    cu_pointer at = 0;
    size_t room = bytes ? bytes : 1;
    if (cuda_enter(c, &f) != TPC_OK || c->api->alloc(&at, room) != CU_OK)
        return NULL;
    c->generation++;
    c->after_kernel = false;
    if (c->api->fill(at, 0, room, c->stream) == CU_OK)
        return host_view(at);
    (void)c->api->free(at);
    return NULL;
}

static void release_bytes(struct device *d, void *at, size_t bytes)
{
    struct cuda *c = cuda_of(d);
    (void)bytes;
    if (!at)
        return;
    (void)c->api->context_set(c->context);
    (void)c->api->stream_wait(c->stream); /* what is queued may use it */
    (void)c->api->free(device_view(at));
    c->generation++;
}

static status free_bytes(struct device *d, uint64_t *bytes, struct failure *f)
{
    struct cuda *c = cuda_of(d);
    size_t free_now = 0, total = 0;
    status s = cuda_enter(c, f);
    if (s == TPC_OK)
        s = cuda_check(c, c->api->memory_info(&free_now, &total), "asking for its memory", f);
    *bytes = free_now;
    return s;
}

/* A pinned piece that nothing reads any more. */
static status take_piece(struct cuda *c, struct piece **out, struct failure *f)
{
    struct piece *p = &c->piece[c->next_piece];
    c->next_piece = (c->next_piece + 1) % PIECES;
    status s = p->used ? cuda_check(c, c->api->event_wait(p->done), "waiting for a copy", f) : TPC_OK;
    p->used = false;
    *out = p;
    return s;
}

static status stream_up(struct device *d, void *to, uint64_t bytes, device_fill *fill, void *context, struct failure *f)
{
    struct cuda *c = cuda_of(d);
    status s = cuda_enter(c, f);
    for (uint64_t at = 0; at < bytes && s == TPC_OK;) {
        struct piece *p;
        size_t n = bytes - at < PIECE_BYTES ? (size_t)(bytes - at) : PIECE_BYTES;
        s = take_piece(c, &p, f);
        if (s != TPC_OK)
            break;
        fill(context, at, p->at, n);
        c->after_kernel = false;
        s = cuda_check(c, c->api->upload(device_view(to) + at, p->at, n, c->stream), "copying to it", f);
        if (s == TPC_OK)
            s = cuda_check(c, c->api->event_record(p->done, c->stream), "copying to it", f);
        p->used = s == TPC_OK;
        at += n;
    }
    return s;
}

static void fill_from_host(void *context, uint64_t offset, void *host, size_t bytes)
{
    memcpy(host, (const char *)context + offset, bytes);
}

static status upload(struct device *d, void *to, const void *host, size_t bytes, struct failure *f)
{
    return stream_up(d, to, bytes, fill_from_host, (void *)(uintptr_t)host, f);
}

static status wait_stream(struct cuda *c, struct failure *f);

static status download(struct device *d, void *host, const void *from, size_t bytes, struct failure *f)
{
    struct cuda *c = cuda_of(d);
    status s = cuda_enter(c, f);
    for (size_t at = 0; at < bytes && s == TPC_OK;) {
        struct piece *p;
        size_t n = bytes - at < PIECE_BYTES ? bytes - at : PIECE_BYTES;
        s = take_piece(c, &p, f);
        c->after_kernel = false;
        if (s == TPC_OK)
            s = cuda_check(c, c->api->download(p->at, device_view(from) + at, n, c->stream), "copying from it", f);
        if (s == TPC_OK)
            s = wait_stream(c, f);
        if (s == TPC_OK)
            memcpy((char *)host + at, p->at, n);
        at += n;
    }
    return s;
}

status cuda_copy_bytes(struct device *d, void *to, const void *from, size_t bytes, struct failure *f)
{
    struct cuda *c = cuda_of(d);
    if (bytes == 0 || to == from)
        return TPC_OK;
    c->totals.copies++;
    c->after_kernel = false;
    return cuda_check(c, c->api->copy(device_view(to), device_view(from), bytes, c->stream), "copying in it", f);
}

/* ---- waiting ------------------------------------------------------------------------------------------------------------ */

/* For an event, or (NULL) all of the stream; or until somebody interrupts. */
static status wait_for(struct cuda *c, cu_event event, struct failure *f)
{
    const struct cuda_driver *api = c->api;
    if (!c->base.interrupted)
        return cuda_check(c, event ? api->event_wait(event) : api->stream_wait(c->stream), "what it was given to do",
                          f);
    for (uint32_t round = 0;; round++) {
        cu_result r = event ? api->event_query(event) : api->stream_query(c->stream);
        if (r != CU_NOT_READY)
            return cuda_check(c, r, "what it was given to do", f);
        if (round % 64 == 63 && c->base.interrupted(c->base.context))
            return fail(f, TPC_RANKS, "another rank ended");
        if (round < 2000)
            sched_yield();
        else
            nanosleep(&(struct timespec){.tv_nsec = 20 * 1000}, NULL);
    }
}

static status wait_stream(struct cuda *c, struct failure *f)
{
    return wait_for(c, NULL, f);
}

/* The cell for faults comes to fault_read[at] behind what is queued. */
static status bring_fault(struct cuda *c, uint32_t at, struct failure *f)
{
    status s = cuda_enter(c, f);
    c->after_kernel = false;
    return s == TPC_OK ? cuda_check(c, c->api->download(c->fault_read + at, c->fault, sizeof *c->fault_read, c->stream),
                                    "copying from it", f)
                       : s;
}

/* What fault_read[at] says; then the cell is cleared. */
static status tell_fault(struct cuda *c, uint32_t at, struct failure *f)
{
    int64_t fault = c->fault_read[at];
    if (fault == 0)
        return TPC_OK;
    f->node = c->set ? cuda_fault_node(c->set, fault) : 0;
    c->fault_read[at] = 0;
    status s = wait_stream(c, f); /* a run behind this one */
    if (s == TPC_OK || s == TPC_RANKS)
        s = cuda_check(c, c->api->fill(c->fault, 0, sizeof *c->fault_read, c->stream), "filling its memory", f);
    return s == TPC_OK ? fail(f, TPC_DATA, "an index is out of range") : s;
}

static status finish(struct device *d, struct failure *f)
{
    struct cuda *c = cuda_of(d);
    status s = bring_fault(c, 0, f);
    if (s == TPC_OK)
        s = wait_stream(c, f);
    if (s == TPC_RANKS) /* what this run still finds is not the next one's */
        (void)c->api->fill(c->fault, 0, sizeof *c->fault_read, c->stream);
    return s == TPC_OK ? tell_fault(c, 0, f) : s;
}

static status mark(struct device *d, uint32_t slot, struct failure *f)
{
    struct cuda *c = cuda_of(d);
    status s = bring_fault(c, 1 + slot, f);
    return s == TPC_OK ? cuda_check(c, c->api->event_record(c->marked[slot], c->stream), "marking a run", f) : s;
}

static status reach(struct device *d, uint32_t slot, struct failure *f)
{
    struct cuda *c = cuda_of(d);
    status s = cuda_enter(c, f);
    if (s == TPC_OK)
        s = wait_for(c, c->marked[slot], f);
    return s == TPC_OK ? tell_fault(c, 1 + slot, f) : s;
}

/* ---- opening and closing --------------------------------------------------------------------------------------------------- */

static void close_device(struct device *d)
{
    if (!d)
        return;
    struct cuda *c = cuda_of(d);
    const struct cuda_driver *api = c->api;
    if (c->context) {
        (void)api->context_set(c->context);
        if (c->stream)
            (void)api->stream_wait(c->stream);
        graphs_free(c->graphs);
        products_free(c->products);
        for (uint32_t i = 0; c->function && i < cuda_function_count(c->set); i++)
            if (c->function[i].module)
                (void)api->module_unload(c->function[i].module);
        for (int i = 0; i < PIECES; i++) {
            if (c->piece[i].done)
                (void)api->event_destroy(c->piece[i].done);
            if (c->piece[i].at)
                (void)api->host_free(c->piece[i].at);
        }
        if (c->fault_read)
            (void)api->host_free(c->fault_read);
        for (int i = 0; i < 2; i++)
            if (c->marked[i])
                (void)api->event_destroy(c->marked[i]);
        if (c->shown)
            (void)api->host_free(c->shown);
        const cu_pointer memory[] = {c->fault, c->workspace, c->product_workspace};
        for (size_t i = 0; i < sizeof memory / sizeof *memory; i++)
            if (memory[i])
                (void)api->free(memory[i]);
        if (c->stream)
            (void)api->stream_destroy(c->stream);
        (void)api->context_set(NULL);
        (void)api->context_release(c->device);
    }
    base_free(c->function);
    base_free(c);
}

static const uint64_t *words(const struct device *d, uint32_t slot)
{
    return cuda_of(d)->shown + slot * (cuda_of(d)->shown_bytes / sizeof(uint64_t));
}

static const struct device_ops ops = {
    .name = "cuda",
    .alignment = CUDA_ALIGN,
    .alloc = alloc_bytes,
    .release = release_bytes,
    .reads_host = false,
    .upload = upload,
    .download = download,
    .stream = stream_up,
    .free_bytes = free_bytes,
    .copy = cuda_copy_bytes,
    .finish = finish,
    .prepare = cuda_prepare_step,
    .warm = cuda_warm,
    .step = cuda_run_step,
    .helper = cuda_helper,
    .shown = cuda_shown,
    .words = words,
    .mark = mark,
    .reach = reach,
    .fits = cuda_fits,
    .trace = cuda_trace,
    .note = cuda_note,
    .traced = cuda_traced,
    .record = cuda_record,
    .recorded = cuda_recorded,
    .replay = cuda_replay,
    .forget = cuda_forget,
    .close = close_device,
};

static status open_context(struct cuda *c, struct failure *f)
{
    const struct cuda_driver *api = c->api;
    int count = 0, major = 0, minor = 0;
    status s = cuda_check(c, api->device_count(&count), "counting GPUs", f);
    if (s == TPC_OK && c->info.ordinal >= (uint32_t)count)
        return fail(f, TPC_UNSUPPORTED, "there is no GPU %u: the driver has %d", (unsigned)c->info.ordinal, count);
    if (s == TPC_OK)
        s = cuda_check(c, api->device_get(&c->device, (int)c->info.ordinal), "opening it", f);
    if (s == TPC_OK)
        s = cuda_check(c, api->device_name(c->info.name, sizeof c->info.name, c->device), "asking for its name", f);
    if (s == TPC_OK)
        s = cuda_check(c, api->device_attribute(&major, CU_DEVICE_MAJOR, c->device), "asking what it is", f);
    if (s == TPC_OK)
        s = cuda_check(c, api->device_attribute(&minor, CU_DEVICE_MINOR, c->device), "asking what it is", f);
    if (s == TPC_OK)
        s = cuda_check(c, api->device_attribute(&c->processors, CU_DEVICE_PROCESSORS, c->device), "asking what it is",
                       f);
    c->info.compute = (uint32_t)(10 * major + minor);
    if (s == TPC_OK && c->info.compute < 80)
        return fail(f, TPC_UNSUPPORTED, "GPU %u (%s) has compute capability %d.%d, but 8.0 is needed",
                    (unsigned)c->info.ordinal, c->info.name, major, minor);
    const char *wish = getenv("TPC_CUDA_OVERLAP");
    c->overlap = c->info.compute >= 90 && api->version >= CU_OVERLAP_DRIVER && wish && strcmp(wish, "1") == 0;
    if (s == TPC_OK)
        s = cuda_check(c, api->context_retain(&c->context, c->device), "making its context", f);
    if (s != TPC_OK)
        c->context = NULL;
    return s == TPC_OK ? cuda_enter(c, f) : s;
}

static status open_memory(struct cuda *c, struct failure *f)
{
    const struct cuda_driver *api = c->api;
    void *cell = NULL;
    status s = cuda_check(c, api->stream_create(&c->stream, CU_STREAM_PRIVATE), "making a stream", f);
    for (int i = 0; i < PIECES && s == TPC_OK; i++) {
        s = cuda_check(c, api->host_alloc(&c->piece[i].at, PIECE_BYTES, 0), "pinned memory", f);
        if (s == TPC_OK)
            s = cuda_check(c, api->event_create(&c->piece[i].done, CU_EVENT_UNTIMED), "making an event", f);
    }
    if (s == TPC_OK)
        s = cuda_check(c, api->host_alloc(&cell, 3 * sizeof *c->fault_read, 0), "pinned memory", f);
    c->fault_read = cell;
    for (int i = 0; i < 2 && s == TPC_OK; i++)
        s = cuda_check(c, api->event_create(&c->marked[i], CU_EVENT_UNTIMED), "making an event", f);
    if (s == TPC_OK)
        s = cuda_check(c, api->alloc(&c->fault, sizeof *c->fault_read), "its cell for faults", f);
    if (s == TPC_OK)
        s = cuda_check(c, api->fill(c->fault, 0, sizeof *c->fault_read, c->stream), "filling its memory", f);
    if (s == TPC_OK)
        s = cuda_check(c, api->alloc(&c->product_workspace, PRODUCTS_WORKSPACE), "cuBLASLt's workspace", f);
    return s;
}

status device_cuda_new(uint32_t ordinal, struct failure *f, struct device **out)
{
    const char *missing = NULL;
    const struct cuda_driver *driver = cuda_driver(&missing);
    const struct cuda_blas *blas = driver ? cuda_blas(&missing) : NULL;
    *out = NULL;
    if (!driver || !blas)
        return fail(f, TPC_UNSUPPORTED, "%s", missing);
    struct cuda *c = base_alloc(sizeof *c);
    if (!c)
        return fail(f, TPC_NOMEM, "out of memory");
    *c = (struct cuda){.base = {.ops = &ops}, .api = driver, .info = {.ordinal = ordinal}};
    status s = open_context(c, f);
    if (s == TPC_OK)
        s = open_memory(c, f);
    if (s == TPC_OK && !(c->products = products_new(driver, blas)))
        s = fail(f, TPC_INTERNAL, "GPU %u: cuBLASLt does not start", (unsigned)ordinal);
    if (s == TPC_OK && !(c->graphs = graphs_new(driver)))
        s = fail(f, TPC_NOMEM, "out of memory");
    if (s != TPC_OK) {
        close_device(&c->base);
        return s;
    }
    *out = &c->base;
    return TPC_OK;
}

status device_cuda_use(struct device *d, const struct cuda_set *set, struct failure *f)
{
    struct cuda *c = cuda_of(d);
    c->set = set;
    c->function = base_alloc((cuda_function_count(set) + 1) * sizeof *c->function);
    return c->function ? TPC_OK : fail(f, TPC_NOMEM, "out of memory");
}

/* ---- for communicators ---------------------------------------------------------------------------------------------------- */

struct gpu_info device_cuda_info(const struct device *d)
{
    return cuda_of(d)->info;
}

cu_stream device_cuda_stream(struct device *d)
{
    return cuda_of(d)->stream;
}

status device_cuda_enter(struct device *d, struct failure *f)
{
    return cuda_enter(cuda_of(d), f);
}

const struct cuda_set *device_cuda_set(const struct device *d)
{
    return cuda_of(d)->set;
}

struct cuda_totals device_cuda_totals(const struct device *d)
{
    struct cuda_totals t = cuda_of(d)->totals;
    t.graphs = graphs_counts(cuda_of(d)->graphs);
    return t;
}
