/* runtime/steps_cuda.c - steps on a GPU: kernels from a cuda_set, products by cuBLASLt, copies; whole runs as graphs (graphs_cuda.c).
 *
 * Invariant: everything that a step queues is noted when it is traced, with all that it depends on. Start with cuda_prepare_step and cuda_run_step.
 */
#include "runtime/device_cuda_impl.h"

enum { MOST_WORDS = 512, SHARED_FREE = 48 << 10 };

/* A step, made ready. */
struct prepared {
    struct cuda_step step;
    const struct product_plan **product;
};

/* The function's code is on the GPU and may use so much shared memory. */
static status load_function(struct cuda *c, uint32_t number, uint32_t shared_bytes, struct failure *f)
{
    struct loaded_function *l = &c->function[number];
    const struct cuda_function *x = cuda_function_at(c->set, number);
    status s = TPC_OK;
    if (!l->module) {
        s = cuda_check(c, c->api->module_load(&l->module, x->image), "loading a kernel", f);
        if (s == TPC_OK)
            s = cuda_check(c, c->api->module_function(&l->function, l->module, x->name), "finding a kernel", f);
        c->totals.modules += s == TPC_OK;
    }
    if (s == TPC_OK && shared_bytes > SHARED_FREE && shared_bytes > l->shared_bytes) {
        s = cuda_check(c, c->api->function_set(l->function, CU_FUNCTION_SHARED_BYTES, (int)shared_bytes),
                       "giving a kernel its shared memory", f);
        l->shared_bytes = shared_bytes;
    }
    return s;
}

void cuda_warm(struct device *d)
{
    struct cuda *c = cuda_of(d);
    struct failure f = {.code = TPC_OK};
    const struct product_plan *plan;
    const struct cuda_product some = {
        .type = DT_BF16, .batch = 1, .m = 256, .n = 256, .k = 256, .stride = {{256, 1}, {256, 1}, {256, 1}}};
    if (c->api->context_set(c->context) != CU_OK)
        return;
    for (uint32_t i = 0; i < cuda_function_count(c->set); i++) {
        struct loaded_function l = {0};
        const struct cuda_function *x = cuda_function_at(c->set, i);
        if (c->function[i].module || c->api->module_load(&l.module, x->image) != CU_OK)
            continue;
        if (c->api->module_function(&l.function, l.module, x->name) == CU_OK)
            c->function[i] = l;
        else
            (void)c->api->module_unload(l.module);
    }
    (void)products_plan(c->products, &some, &plan, &f); /* cuBLASLt takes its tables in when it is first asked */
}

static status reserve_workspace(struct cuda *c, uint64_t bytes, struct failure *f)
{
    if (bytes <= c->workspace_bytes)
        return TPC_OK;
    status s = cuda_check(c, c->api->stream_wait(c->stream), "what it was given to do", f);
    if (s == TPC_OK && c->workspace)
        s = cuda_check(c, c->api->free(c->workspace), "freeing memory", f);
    c->workspace = 0;
    c->workspace_bytes = 0;
    c->generation++;
    if (s == TPC_OK)
        s = cuda_check(c, c->api->alloc(&c->workspace, bytes), "its kernels' workspace", f);
    c->workspace_bytes = s == TPC_OK ? bytes : 0;
    return s;
}

status cuda_prepare_step(struct device *d, uint32_t index, const int64_t *of, struct arena *arena, const void **out,
                         struct failure *f)
{
    struct cuda *c = cuda_of(d);
    struct prepared *p = NEW(arena, struct prepared);
    status s = cuda_enter(c, f);
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

/* first and second: what the CUDA_ADDRESS words 0 and 1 stand for; without `address` it is a helper's launch, within something that is noted as a whole. */
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
    how.attributes = c->overlap && c->after_kernel && graphs_recording(c->graphs) ? 1 : 0;
    cu_function function = c->function[l->function].function;
    if (address && graphs_note_kernel(c->graphs, function, &how, words, l->word_count))
        return TPC_OK;
    c->totals.launches++;
    c->after_kernel = true;
    status s = cuda_check(c, c->api->launch(&how, function, (void *[]){words}, NULL), "launching a kernel", f);
    if (s == TPC_OK && address)
        s = cuda_check(c, graphs_captured(c->graphs, c->stream), "recording", f);
    return s;
}

static uint64_t number_of(const void *p)
{
    return (uint64_t)(uintptr_t)p;
}

static status multiply(struct cuda *c, const struct product_plan *plan, void *const operand[5], struct failure *f)
{
    const uint64_t what[] = {CUDA_PRODUCT,          number_of(plan),       number_of(operand[0]), number_of(operand[1]),
                             number_of(operand[2]), number_of(operand[3]), number_of(operand[4])};
    if (graphs_note(c->graphs, what, sizeof what / sizeof *what))
        return TPC_OK;
    c->totals.products++;
    c->after_kernel = false;
    return products_run(c->products, plan, operand, host_view(c->product_workspace), c->stream, f);
}

static status run_products(struct cuda *c, const struct prepared *p, void *const *address, struct failure *f)
{
    status s = TPC_OK;
    for (uint32_t i = 0, taken = 1; i < p->step.count && s == TPC_OK; i += taken) {
        const struct cuda_product *x = &p->step.product[i];
        void *const operand[5] = {address[x->buffer[0]], address[x->buffer[1]], address[x->buffer[2]],
                                  x->adds ? address[x->added] : NULL, x->biased ? address[x->bias] : NULL};
        const struct product_plan *plan = p->product[i];
        struct cuda_product batch;
        struct failure unused = {0};
        taken = products_batch(x, p->step.count - i, address, &batch);
        if (taken > 1 && products_plan(c->products, &batch, &plan, &unused) != TPC_OK) { /* then one by one */
            plan = p->product[i];
            taken = 1;
        }
        s = multiply(c, plan, operand, f);
    }
    return s;
}

static status copy_step(struct cuda *c, void *to, const void *from, uint64_t bytes, struct failure *f)
{
    const uint64_t what[] = {CUDA_COPY, number_of(to), number_of(from), bytes};
    return graphs_note(c->graphs, what, sizeof what / sizeof *what) ? TPC_OK
                                                                    : cuda_copy_bytes(&c->base, to, from, bytes, f);
}

status cuda_run_step(struct device *d, const struct step *step, const void *prepared, void *const *address,
                     const uint64_t *bytes, struct failure *f)
{
    struct cuda *c = cuda_of(d);
    const struct prepared *p = prepared;
    status s = TPC_OK;
    if (p->step.way == CUDA_COPY)
        return copy_step(c, address[step->arg[1]], address[step->arg[0]], bytes[step->arg[1]], f);
    for (uint32_t i = 0; i < p->step.count && p->step.way == CUDA_LAUNCH && s == TPC_OK; i++)
        s = launch(c, &p->step.launch[i], address, NULL, NULL, f);
    return p->step.way == CUDA_PRODUCT ? run_products(c, p, address, f) : s;
}

/* ---- helpers ---------------------------------------------------------------------------------------------------------------- */

status cuda_helper(struct device *d, const struct cuda_launch *l, const void *first, const void *second,
                   struct failure *f)
{
    status s = load_function(cuda_of(d), l->function, l->shared_bytes, f);
    return s == TPC_OK ? launch(cuda_of(d), l, (void *const[]){NULL}, first, second, f) : s;
}

static status reserve_shown(struct cuda *c, uint64_t bytes, struct failure *f)
{
    void *at = NULL;
    if (bytes <= c->shown_bytes)
        return TPC_OK;
    status s = cuda_check(c, c->api->stream_wait(c->stream), "what it was given to do", f);
    if (s != TPC_OK)
        return s;
    if (c->shown)
        s = cuda_check(c, c->api->host_free(c->shown), "freeing memory", f);
    c->shown = NULL;
    c->shown_bytes = 0;
    c->generation++;
    if (s == TPC_OK)
        s = cuda_check(c, c->api->host_alloc(&at, 2 * bytes, 0), "pinned memory", f);
    if (s != TPC_OK)
        return s;
    memset(at, 0, 2 * bytes);
    c->shown = at;
    c->shown_bytes = bytes;
    return TPC_OK;
}

status cuda_shown(struct device *d, uint64_t bytes, uint32_t slot, void **to, struct failure *f)
{
    struct cuda *c = cuda_of(d);
    status s = reserve_shown(c, bytes, f);
    *to = s == TPC_OK ? (char *)c->shown + slot * c->shown_bytes : NULL;
    return s;
}

/* ---- runs that come again: graphs_cuda.c ---------------------------------------------------------------------------------- */

bool cuda_fits(struct device *d, uint64_t key)
{
    return graphs_fit(cuda_of(d)->graphs, key, cuda_of(d)->generation);
}

void cuda_trace(struct device *d)
{
    graphs_trace(cuda_of(d)->graphs);
}

bool cuda_note(struct device *d, const uint64_t *word, uint32_t count)
{
    cuda_of(d)->after_kernel = false;
    return graphs_note(cuda_of(d)->graphs, word, count);
}

enum traced_run cuda_traced(struct device *d, uint64_t key, bool ahead)
{
    return graphs_traced(cuda_of(d)->graphs, key, cuda_of(d)->generation, ahead);
}

status cuda_record(struct device *d, struct failure *f)
{
    struct cuda *c = cuda_of(d);
    graphs_record(c->graphs);
    c->after_kernel = false;
    status s = cuda_enter(c, f);
    if (s == TPC_OK)
        s = cuda_check(c, c->api->capture_begin(c->stream, CU_CAPTURE_THREAD), "recording", f);
    if (s != TPC_OK)
        (void)graphs_recorded(c->graphs, 0, 0, NULL);
    return s;
}

status cuda_recorded(struct device *d, uint64_t key, struct failure *f)
{
    struct cuda *c = cuda_of(d);
    cu_graph graph = NULL;
    status s = cuda_check(c, c->api->capture_end(c->stream, &graph), "recording", f);
    cu_result made = graphs_recorded(c->graphs, key, c->generation, s == TPC_OK ? graph : NULL);
    return s == TPC_OK ? cuda_check(c, made, "making a graph", f) : s;
}

status cuda_replay(struct device *d, struct failure *f)
{
    struct cuda *c = cuda_of(d);
    status s = cuda_enter(c, f);
    c->after_kernel = false;
    return s == TPC_OK ? cuda_check(c, graphs_replay(c->graphs, c->stream), "launching a graph", f) : s;
}

void cuda_forget(struct device *d, bool kinds)
{
    struct cuda *c = cuda_of(d);
    (void)c->api->context_set(c->context);
    graphs_forget(c->graphs, kinds);
}

/* ---- for communicators ---------------------------------------------------------------------------------------------------- */

status device_cuda_ready(struct device *d, const struct cuda_launch *l, struct failure *f)
{
    status s = cuda_enter(cuda_of(d), f);
    return s == TPC_OK ? load_function(cuda_of(d), l->function, l->shared_bytes, f) : s;
}

status device_cuda_launch(struct device *d, const struct cuda_launch *l, const void *first, const void *second,
                          struct failure *f)
{
    return launch(cuda_of(d), l, NULL, first, second, f);
}
