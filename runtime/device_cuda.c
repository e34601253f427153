/* runtime/device_cuda.c - a GPU as a device: one stream, kernels from a cuda_set, products from cuBLASLt, whole runs as CUDA graphs.
 *
 * Invariant: what is queued takes effect in the order of the stream; the fault cell is read whenever the stream is waited for. Every call of the driver goes
 * through `check`, which remembers an error that is for ever. Start with prepare_step and run_step.
 */
#include "runtime/device_cuda.h"

#include <sched.h>
#include <stdlib.h>
#include <time.h>

enum { PIECES = 4, PIECE_BYTES = 8 << 20, MOST_WORDS = 512, SHARED_FREE = 48 << 10 };

struct piece { /* pinned memory on its way */
    void *at;
    cu_event done;
    bool used;
};

struct loaded_function {
    cu_module module;
    cu_function function;
    uint32_t shared_bytes; /* dynamic, as allowed so far */
};

struct cuda {
    struct device base;
    const struct cuda_driver *api;
    struct gpu_info info;
    cu_device device;
    cu_context context;
    cu_stream stream;
    int processors;
    struct piece piece[PIECES];
    uint32_t next_piece;
    int64_t *fault_read; /* pinned */
    cu_pointer fault, workspace, product_workspace;
    uint64_t workspace_bytes;
    struct products *products;
    const struct cuda_set *set;
    struct loaded_function *function; /* per function of the set */
    uint64_t generation;
    bool broken, recording;
    bool overlap; /* a launch may begin before its predecessor has ended */
    char why[200];
    struct cuda_totals totals;
};

/* A step, made ready. */
struct prepared {
    struct cuda_step step;
    const struct product_plan **product;
};

static struct cuda *cuda_of(const struct device *d)
{
    return (struct cuda *)(uintptr_t)d;
}

static void *host_view(cu_pointer p)
{
    return (void *)(uintptr_t)p;
}

static cu_pointer device_view(const void *p)
{
    return (cu_pointer)(uintptr_t)p;
}

/* ---- errors ------------------------------------------------------------------------------------------------------------ */

static status check(struct cuda *c, cu_result r, const char *what, struct failure *f)
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
static status enter(struct cuda *c, struct failure *f)
{
    if (c->broken)
        return fail(f, TPC_INTERNAL, "%s", c->why);
    return check(c, c->api->context_set(c->context), "taking its context", f);
}

/* ---- memory ------------------------------------------------------------------------------------------------------------ */

static void *alloc_bytes(struct device *d, size_t bytes)
{
    struct cuda *c = cuda_of(d);
    struct failure f = {.code = TPC_OK};
    cu_pointer at = 0;
    size_t room = bytes ? bytes : 1;
    if (enter(c, &f) != TPC_OK || c->api->alloc(&at, room) != CU_OK)
        return NULL;
    c->generation++;
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
    status s = enter(c, f);
    if (s == TPC_OK)
        s = check(c, c->api->memory_info(&free_now, &total), "asking for its memory", f);
    *bytes = free_now;
    return s;
}

/* A pinned piece that nothing reads any more. */
static status take_piece(struct cuda *c, struct piece **out, struct failure *f)
{
    struct piece *p = &c->piece[c->next_piece];
    c->next_piece = (c->next_piece + 1) % PIECES;
    status s = p->used ? check(c, c->api->event_wait(p->done), "waiting for a copy", f) : TPC_OK;
    p->used = false;
    *out = p;
    return s;
}

static status stream_up(struct device *d, void *to, uint64_t bytes, device_fill *fill, void *context, struct failure *f)
{
    struct cuda *c = cuda_of(d);
    status s = enter(c, f);
    for (uint64_t at = 0; at < bytes && s == TPC_OK;) {
        struct piece *p;
        size_t n = bytes - at < PIECE_BYTES ? (size_t)(bytes - at) : PIECE_BYTES;
        s = take_piece(c, &p, f);
        if (s != TPC_OK)
            break;
        fill(context, at, p->at, n);
        s = check(c, c->api->upload(device_view(to) + at, p->at, n, c->stream), "copying to it", f);
        if (s == TPC_OK)
            s = check(c, c->api->event_record(p->done, c->stream), "copying to it", f);
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
    status s = enter(c, f);
    for (size_t at = 0; at < bytes && s == TPC_OK;) {
        struct piece *p;
        size_t n = bytes - at < PIECE_BYTES ? bytes - at : PIECE_BYTES;
        s = take_piece(c, &p, f);
        if (s == TPC_OK)
            s = check(c, c->api->download(p->at, device_view(from) + at, n, c->stream), "copying from it", f);
        if (s == TPC_OK)
            s = wait_stream(c, f);
        if (s == TPC_OK)
            memcpy((char *)host + at, p->at, n);
        at += n;
    }
    return s;
}

static status copy_bytes(struct device *d, void *to, const void *from, size_t bytes, struct failure *f)
{
    struct cuda *c = cuda_of(d);
    if (bytes == 0 || to == from)
        return TPC_OK;
    c->totals.copies++;
    return check(c, c->api->copy(device_view(to), device_view(from), bytes, c->stream), "copying in it", f);
}

/* ---- waiting ------------------------------------------------------------------------------------------------------------ */

/* For the stream, or until somebody interrupts. */
static status wait_stream(struct cuda *c, struct failure *f)
{
    if (!c->base.interrupted)
        return check(c, c->api->stream_wait(c->stream), "what it was given to do", f);
    for (uint32_t round = 0;; round++) {
        cu_result r = c->api->stream_query(c->stream);
        if (r != CU_NOT_READY)
            return check(c, r, "what it was given to do", f);
        if (round % 64 == 63 && c->base.interrupted(c->base.context))
            return fail(f, TPC_RANKS, "another rank ended");
        if (round < 2000)
            sched_yield();
        else
            nanosleep(&(struct timespec){.tv_nsec = 20 * 1000}, NULL);
    }
}

static status finish(struct device *d, struct failure *f)
{
    struct cuda *c = cuda_of(d);
    status s = enter(c, f);
    if (s == TPC_OK)
        s = check(c, c->api->download(c->fault_read, c->fault, sizeof *c->fault_read, c->stream), "copying from it", f);
    if (s == TPC_OK)
        s = wait_stream(c, f);
    if (s != TPC_OK || *c->fault_read == 0)
        return s;
    f->node = c->set ? cuda_fault_node(c->set, *c->fault_read) : 0;
    *c->fault_read = 0;
    s = check(c, c->api->fill(c->fault, 0, sizeof *c->fault_read, c->stream), "filling its memory", f);
    return s == TPC_OK ? fail(f, TPC_DATA, "an index is out of range") : s;
}

/* ---- steps -------------------------------------------------------------------------------------------------------------- */

/* The function's code is on the GPU and may use so much shared memory. */
static status load_function(struct cuda *c, uint32_t number, uint32_t shared_bytes, struct failure *f)
{
    struct loaded_function *l = &c->function[number];
    const struct cuda_function *x = cuda_function_at(c->set, number);
    status s = TPC_OK;
    if (!l->module) {
        s = check(c, c->api->module_load(&l->module, x->image), "loading a kernel", f);
        if (s == TPC_OK)
            s = check(c, c->api->module_function(&l->function, l->module, x->name), "finding a kernel", f);
        c->totals.modules += s == TPC_OK;
    }
    if (s == TPC_OK && shared_bytes > SHARED_FREE && shared_bytes > l->shared_bytes) {
        s = check(c, c->api->function_set(l->function, CU_FUNCTION_SHARED_BYTES, (int)shared_bytes),
                  "giving a kernel its shared memory", f);
        l->shared_bytes = shared_bytes;
    }
    return s;
}

static status reserve_workspace(struct cuda *c, uint64_t bytes, struct failure *f)
{
    if (bytes <= c->workspace_bytes)
        return TPC_OK;
    status s = check(c, c->api->stream_wait(c->stream), "what it was given to do", f);
    if (s == TPC_OK && c->workspace)
        s = check(c, c->api->free(c->workspace), "freeing memory", f);
    c->workspace = 0;
    c->workspace_bytes = 0;
    c->generation++;
    if (s == TPC_OK)
        s = check(c, c->api->alloc(&c->workspace, bytes), "its kernels' workspace", f);
    c->workspace_bytes = s == TPC_OK ? bytes : 0;
    return s;
}

static status prepare_step(struct device *d, uint32_t index, const int64_t *of, struct arena *arena, const void **out,
                           struct failure *f)
{
    struct cuda *c = cuda_of(d);
    struct prepared *p = NEW(arena, struct prepared);
    status s = enter(c, f);
    if (s != TPC_OK)
        return s;
    s = cuda_step(c->set, index, of, (uint32_t)c->processors, arena, &p->step);
    if (s != TPC_OK)
        return fail(f, s, "its extents are too large for a GPU");
    s = reserve_workspace(c, p->step.workspace, f);
    for (uint32_t i = 0; i < p->step.count && p->step.way == CUDA_LAUNCH && s == TPC_OK; i++)
        s = load_function(c, p->step.launch[i].function, p->step.launch[i].shared_bytes, f);
    if (p->step.way == CUDA_PRODUCT)
        p->product = NEW_ARRAY(arena, const struct product_plan *, p->step.count);
    for (uint32_t i = 0; i < p->step.count && p->step.way == CUDA_PRODUCT && s == TPC_OK; i++)
        s = products_plan(c->products, &p->step.product[i], &p->product[i], f);
    *out = p;
    return s;
}

/* first and second: what the CUDA_ADDRESS words 0 and 1 stand for. */
static status launch(struct cuda *c, const struct cuda_launch *l, void *const *address, const void *first,
                     const void *second, struct failure *f)
{
    uint64_t words[MOST_WORDS];
    if (l->word_count > MOST_WORDS)
        return fail(f, TPC_UNSUPPORTED, "a kernel has more than %d arguments", (int)MOST_WORDS);
    for (uint32_t i = 0; i < l->word_count; i++) {
        const struct cuda_word *w = &l->word[i];
        switch (w->kind) {
        case CUDA_BUFFER:
            words[i] = device_view(address[w->buffer]) + (uint64_t)w->number;
            break;
        case CUDA_NUMBER:
            words[i] = (uint64_t)w->number;
            break;
        case CUDA_WORKSPACE:
            words[i] = c->workspace + (uint64_t)w->number;
            break;
        case CUDA_FAULT:
            words[i] = c->fault;
            break;
        case CUDA_ADDRESS:
            words[i] = device_view(i == 0 ? first : second);
            break;
        }
    }
    struct cu_launch_attribute overlapped = {.attribute = CU_LAUNCH_OVERLAPPED, .value.number = 1};
    struct cu_launch how = {.shared_bytes = l->shared_bytes, .stream = c->stream, .attribute = &overlapped};
    memcpy(how.grid, l->grid, sizeof how.grid);
    memcpy(how.block, l->block, sizeof how.block);
    how.attributes = c->overlap ? 1 : 0;
    c->totals.launches++;
    return check(c, c->api->launch(&how, c->function[l->function].function, (void *[]){words}, NULL),
                 "launching a kernel", f);
}

static status run_step(struct device *d, const struct step *step, const void *prepared, void *const *address,
                       const uint64_t *bytes, struct failure *f)
{
    struct cuda *c = cuda_of(d);
    const struct prepared *p = prepared;
    status s = TPC_OK;
    if (p->step.way == CUDA_COPY)
        return copy_bytes(d, address[step->arg[1]], address[step->arg[0]], bytes[step->arg[1]], f);
    for (uint32_t i = 0; i < p->step.count && p->step.way == CUDA_LAUNCH && s == TPC_OK; i++)
        s = launch(c, &p->step.launch[i], address, NULL, NULL, f);
    for (uint32_t i = 0; i < p->step.count && p->step.way == CUDA_PRODUCT && s == TPC_OK; i++) {
        void *const operand[3] = {address[step->arg[0]], address[step->arg[1]], address[step->arg[2]]};
        c->totals.products++;
        s = products_run(c->products, p->product[i], operand, host_view(c->product_workspace), c->stream, f);
    }
    return s;
}

/* ---- recordings ---------------------------------------------------------------------------------------------------------- */

static status record(struct device *d, struct failure *f)
{
    struct cuda *c = cuda_of(d);
    status s = enter(c, f);
    if (s == TPC_OK)
        s = check(c, c->api->capture_begin(c->stream, CU_CAPTURE_THREAD), "recording", f);
    c->recording = s == TPC_OK;
    return s;
}

static status recorded(struct device *d, void **recording, struct failure *f)
{
    struct cuda *c = cuda_of(d);
    cu_graph graph = NULL;
    cu_graph_exec made = NULL;
    *recording = NULL;
    status s = check(c, c->api->capture_end(c->stream, &graph), "recording", f);
    c->recording = false;
    if (s == TPC_OK)
        s = check(c, c->api->graph_instantiate(&made, graph, 0), "making a graph", f);
    if (graph)
        (void)c->api->graph_destroy(graph);
    c->totals.graphs += s == TPC_OK;
    *recording = s == TPC_OK ? made : NULL;
    return s;
}

static status replay(struct device *d, void *recording, struct failure *f)
{
    struct cuda *c = cuda_of(d);
    status s = enter(c, f);
    c->totals.graph_launches++;
    return s == TPC_OK ? check(c, c->api->graph_launch(recording, c->stream), "launching a graph", f) : s;
}

static void forget(struct device *d, void *recording)
{
    struct cuda *c = cuda_of(d);
    if (!recording)
        return;
    (void)c->api->context_set(c->context);
    (void)c->api->graph_exec_destroy(recording);
}

static uint64_t generation(const struct device *d)
{
    return cuda_of(d)->generation;
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
    .copy = copy_bytes,
    .finish = finish,
    .prepare = prepare_step,
    .step = run_step,
    .record = record,
    .recorded = recorded,
    .replay = replay,
    .forget = forget,
    .generation = generation,
    .close = close_device,
};

static status open_context(struct cuda *c, struct failure *f)
{
    const struct cuda_driver *api = c->api;
    int count = 0, major = 0, minor = 0;
    status s = check(c, api->device_count(&count), "counting GPUs", f);
    if (s == TPC_OK && c->info.ordinal >= (uint32_t)count)
        return fail(f, TPC_UNSUPPORTED, "there is no GPU %u: the driver has %d", (unsigned)c->info.ordinal, count);
    if (s == TPC_OK)
        s = check(c, api->device_get(&c->device, (int)c->info.ordinal), "opening it", f);
    if (s == TPC_OK)
        s = check(c, api->device_name(c->info.name, sizeof c->info.name, c->device), "asking for its name", f);
    if (s == TPC_OK)
        s = check(c, api->device_attribute(&major, CU_DEVICE_MAJOR, c->device), "asking what it is", f);
    if (s == TPC_OK)
        s = check(c, api->device_attribute(&minor, CU_DEVICE_MINOR, c->device), "asking what it is", f);
    if (s == TPC_OK)
        s = check(c, api->device_attribute(&c->processors, CU_DEVICE_PROCESSORS, c->device), "asking what it is", f);
    c->info.compute = (uint32_t)(10 * major + minor);
    if (s == TPC_OK && c->info.compute < 80)
        return fail(f, TPC_UNSUPPORTED, "GPU %u (%s) has compute capability %d.%d, but 8.0 is needed",
                    (unsigned)c->info.ordinal, c->info.name, major, minor);
    const char *wish = getenv("TPC_CUDA_OVERLAP");
    c->overlap = c->info.compute >= 90 && api->version >= CU_OVERLAP_DRIVER && !(wish && strcmp(wish, "0") == 0);
    if (s == TPC_OK)
        s = check(c, api->context_retain(&c->context, c->device), "making its context", f);
    if (s != TPC_OK)
        c->context = NULL;
    return s == TPC_OK ? enter(c, f) : s;
}

static status open_memory(struct cuda *c, struct failure *f)
{
    const struct cuda_driver *api = c->api;
    void *cell = NULL;
    status s = check(c, api->stream_create(&c->stream, CU_STREAM_PRIVATE), "making a stream", f);
    for (int i = 0; i < PIECES && s == TPC_OK; i++) {
        s = check(c, api->host_alloc(&c->piece[i].at, PIECE_BYTES, 0), "pinned memory", f);
        if (s == TPC_OK)
            s = check(c, api->event_create(&c->piece[i].done, CU_EVENT_UNTIMED), "making an event", f);
    }
    if (s == TPC_OK)
        s = check(c, api->host_alloc(&cell, sizeof *c->fault_read, 0), "pinned memory", f);
    c->fault_read = cell;
    if (s == TPC_OK)
        s = check(c, api->alloc(&c->fault, sizeof *c->fault_read), "its cell for faults", f);
    if (s == TPC_OK)
        s = check(c, api->fill(c->fault, 0, sizeof *c->fault_read, c->stream), "filling its memory", f);
    if (s == TPC_OK)
        s = check(c, api->alloc(&c->product_workspace, PRODUCTS_WORKSPACE), "cuBLASLt's workspace", f);
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
    return enter(cuda_of(d), f);
}

status device_cuda_ready(struct device *d, const struct cuda_launch *l, struct failure *f)
{
    status s = enter(cuda_of(d), f);
    return s == TPC_OK ? load_function(cuda_of(d), l->function, l->shared_bytes, f) : s;
}

status device_cuda_launch(struct device *d, const struct cuda_launch *l, const void *first, const void *second,
                          struct failure *f)
{
    return launch(cuda_of(d), l, NULL, first, second, f);
}

const struct cuda_set *device_cuda_set(const struct device *d)
{
    return cuda_of(d)->set;
}

struct cuda_totals device_cuda_totals(const struct device *d)
{
    return cuda_of(d)->totals;
}
