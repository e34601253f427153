/* tests/gpu_measure.c - what a GPU can do at most, for scripts/gpu-check to compare with; and weights for its models.
 *
 *   gpu_measure rates [GPU]               one JSON object: copy bandwidth (bytes read + written per second), rates of cuBLASLt's large products
 *   gpu_measure plan PLAN SYMBOL=N...     one JSON object: what a run of rank 0 has to read and to multiply for these extents
 *   gpu_measure products PLAN SYMBOL=N... the same, and how long cuBLASLt takes for the products with weights
 *   gpu_measure weights FILE BYTES TYPE   a file of small numbers of a type
 *
 * Operands are random numbers: products of zeros are faster than any others. On the fake GPU sizes are tiny: the figures then mean nothing.
 */
#include "ir/bind.h"
#include "runtime/device_cuda.h"
#include "runtime/plan.h"
#include "runtime/sync.h"

#include <fcntl.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int complain(const struct failure *f)
{
    fprintf(stderr, "gpu_measure: %s\n", f->text);
    return (int)f->code;
}

/* ---- random numbers --------------------------------------------------------------------------------------------------- */

enum { BLOCK = 16 << 20 };

/* `bytes` of numbers of a type in [-most, most). */
static void make_random(void *to, size_t bytes, dtype type, double most)
{
    uint64_t state = 88172645463325252u;
    for (size_t i = 0; i < bytes / dtype_size(type); i++) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        dtype_store_f64(type, to, i, ((double)(state >> 40) / 8388608.0 - 1) * most);
    }
}

/* Memory of the GPU with numbers in [-1, 1); NULL: it fails. */
static void *random_memory(struct device *d, size_t bytes, dtype type, struct failure *f)
{
    size_t piece = bytes < BLOCK ? bytes : BLOCK;
    void *block = malloc(piece + 1);
    char *at = block ? d->ops->alloc(d, bytes) : NULL;
    status s = at ? TPC_OK : fail(f, TPC_NOMEM, "out of memory");
    if (at)
        make_random(block, piece, type, 1);
    for (size_t done = 0; done < bytes && s == TPC_OK; done += piece)
        s = d->ops->upload(d, at + done, block, bytes - done < piece ? bytes - done : piece, f);
    free(block);
    return s == TPC_OK ? at : NULL;
}

/* ---- rates ------------------------------------------------------------------------------------------------------------- */

/* Bytes per second, read and written, of the best of a few rounds; < 0: it fails. */
static double copy_rate(struct device *d, size_t bytes, struct failure *f)
{
    void *from = random_memory(d, bytes, DT_F32, f), *to = from ? d->ops->alloc(d, bytes) : NULL;
    double best = from && to ? 0 : -1;
    status s = best < 0 ? fail(f, TPC_NOMEM, "out of memory on the GPU") : d->ops->finish(d, f);
    for (int round = 0; round < 5 && s == TPC_OK; round++) {
        double start = now();
        for (int i = 0; i < 8 && s == TPC_OK; i++)
            s = d->ops->copy(d, to, from, bytes, f);
        s = s == TPC_OK ? d->ops->finish(d, f) : s;
        double rate = 8 * 2 * (double)bytes / (now() - start);
        best = rate > best ? rate : best;
    }
    d->ops->release(d, from, bytes);
    d->ops->release(d, to, bytes);
    return s == TPC_OK ? best : -1;
}

/* A stage for products: operands lie in one pool of random numbers, a product's second at another place each time, so that it is not in a cache. */
struct stage {
    struct device *d;
    struct products *products;
    char *pool, *out, *workspace;
    size_t pool_bytes, out_bytes;
};

static status stage_open(struct stage *t, struct device *d, dtype type, size_t pool, size_t out, struct failure *f)
{
    const char *missing;
    *t = (struct stage){.d = d, .pool_bytes = pool, .out_bytes = out};
    t->products = products_new(cuda_driver(&missing), cuda_blas(&missing));
    t->pool = t->products ? random_memory(d, pool, type, f) : NULL;
    t->out = t->pool ? d->ops->alloc(d, out) : NULL;
    t->workspace = t->out ? d->ops->alloc(d, PRODUCTS_WORKSPACE) : NULL;
    return t->workspace ? TPC_OK : fail(f, TPC_NOMEM, "out of memory on the GPU");
}

static void stage_close(struct stage *t)
{
    t->d->ops->release(t->d, t->pool, t->pool_bytes);
    t->d->ops->release(t->d, t->out, t->out_bytes);
    t->d->ops->release(t->d, t->workspace, PRODUCTS_WORKSPACE);
    products_free(t->products);
}

/* Seconds of each of `count` products, the best of `rounds`. */
static status time_product(struct stage *t, const struct cuda_product *q, int rounds, int count, double *best,
                           struct failure *f)
{
    const struct product_plan *plan = NULL;
    size_t size = dtype_size(q->type), rhs = (size_t)(q->n * q->k) * size, at = (size_t)(q->m * q->k) * size;
    status s = products_plan(t->products, q, &plan, f);
    *best = 1e300;
    for (int round = 0; round < rounds && s == TPC_OK; round++) {
        s = t->d->ops->finish(t->d, f);
        double start = now();
        for (int i = 0; i < count && s == TPC_OK; i++) {
            at = (at + CUDA_ALIGN - 1) / CUDA_ALIGN * CUDA_ALIGN;
            at = at + rhs > t->pool_bytes ? 0 : at;
            s = products_run(t->products, plan,
                             (void *[]){t->pool, t->pool + at, t->out, NULL, q->biased ? t->pool : NULL}, t->workspace,
                             device_cuda_stream(t->d), f);
            at += rhs;
        }
        s = s == TPC_OK ? t->d->ops->finish(t->d, f) : s;
        double each = (now() - start) / count;
        *best = each < *best ? each : *best;
    }
    return s;
}

/* Operations per second of out[m][n] = lhs[m][k] . rhs[n][k]. */
static double product_rate(struct device *d, dtype type, int64_t size, struct failure *f)
{
    struct cuda_product q = {
        .type = type, .batch = 1, .m = size, .n = size, .k = size, .stride = {{size, 1}, {size, 1}, {size, 1}}};
    size_t bytes = (size_t)(size * size) * dtype_size(type);
    struct stage t;
    double each = 1;
    status s = stage_open(&t, d, type, 2 * bytes, bytes, f);
    s = s == TPC_OK ? time_product(&t, &q, 1, 1, &each, f) : s; /* it loads its kernel */
    s = s == TPC_OK ? time_product(&t, &q, 4, 4, &each, f) : s;
    stage_close(&t);
    return s == TPC_OK ? 2 * (double)size * (double)size * (double)size / each : -1;
}

static int rates(uint32_t gpu)
{
    struct failure f = {.code = TPC_OK};
    struct device *d = NULL;
    if (device_cuda_new(gpu, &f, &d) != TPC_OK)
        return complain(&f);
    struct gpu_info info = device_cuda_info(d);
    bool fake = strstr(info.name, "fake") != NULL;
    double copy = copy_rate(d, fake ? 1 << 16 : 1u << 29, &f);
    double bf16 = copy < 0 ? -1 : product_rate(d, DT_BF16, fake ? 32 : 8192, &f);
    double f16 = bf16 < 0 ? -1 : product_rate(d, DT_F16, fake ? 32 : 8192, &f);
    double f32 = f16 < 0 ? -1 : product_rate(d, DT_F32, fake ? 32 : 4096, &f);
    d->ops->close(d);
    if (f32 < 0)
        return complain(&f);
    printf("{\"gpu\": \"%s\", \"compute\": %u, \"fake\": %s, \"copy_bytes_per_s\": %.4g, \"bf16_flops_per_s\": %.4g, "
           "\"f16_flops_per_s\": %.4g, \"f32_flops_per_s\": %.4g}\n",
           info.name, (unsigned)info.compute, fake ? "true" : "false", copy, bf16, f16, f32);
    return 0;
}

/* ---- what a plan has to do ---------------------------------------------------------------------------------------------- */

enum { MOST_SHAPES = 64 };

struct shape { /* of products with a weight: one, or several alike */
    struct cuda_product product;
    uint32_t count;
    double seconds; /* each */
};

struct work {
    uint64_t weight_bytes, state_bytes; /* that a run must read at least once */
    double flops, attention_flops;      /* of products with a weight, and of the others */
    struct shape shape[MOST_SHAPES];
    uint32_t shapes, skipped; /* skipped: products that are not one matrix by one */
};

/* SYMBOL=N... into values of all symbols on rank 0. false: said on stderr. */
static bool read_sizes(const struct graph *g, int count, char **size, int64_t *of)
{
    uint32_t symbols = dims_symbol_count(g->dims);
    for (int i = 0; i < count; i++) {
        const char *equals = strrchr(size[i], '=');
        bool known = false;
        for (uint32_t s = 0; s < symbols && equals; s++) {
            const struct symbol *y = dims_symbol(g->dims, s);
            if (y->kind != SYMBOL_INPUT || strlen(y->name) != (size_t)(equals - size[i]) ||
                strncmp(y->name, size[i], strlen(y->name)) != 0)
                continue;
            of[s] = strtoll(equals + 1, NULL, 10);
            known = true;
        }
        if (!known)
            return fprintf(stderr, "gpu_measure: '%s' is no extent of this plan\n", size[i]), false;
    }
    for (uint32_t s = 0; s < symbols; s++) {
        const struct symbol *y = dims_symbol(g->dims, s);
        if (y->equal != DIM_NONE)
            (void)dim_eval(g->dims, dim_resolve(g->dims, y->equal), of, &of[s]);
    }
    return graph_bind_rank(g, 0, of) || (fprintf(stderr, "gpu_measure: an extent overflows\n"), false);
}

/* The product of `count` extents from `*at` on, which moves behind them; *stride: of the last one that is not 1, 0 where all are. */
static int64_t take_axes(const struct dims *dims, const struct dot *dot, int operand, const int64_t *of, uint32_t *at,
                         uint32_t count, int64_t *stride)
{
    int64_t all = 1, extent = 0;
    *stride = 0;
    for (uint32_t i = 0; i < count; i++, ++*at) {
        if (!dim_eval(dims, dot->extent[*at], of, &extent) || !i64_mul(all, extent, &all))
            return 0;
        if (extent != 1)
            (void)dim_eval(dims, dot->stride[operand][*at], of, stride);
    }
    return all;
}

/* The product of a weight: lhs and out are taken as dense, the weight as it lies. */
static struct cuda_product product_of(const struct dims *dims, const struct dot *dot, int weight, dtype type,
                                      const int64_t *of)
{
    uint32_t at = 0;
    int64_t ignored, stride_m, stride_n, stride_k;
    struct cuda_product q;
    memset(&q, 0, sizeof q); /* compared byte by byte */
    q.type = type;
    q.batch = take_axes(dims, dot, weight, of, &at, dot->batch, &ignored);
    q.m = take_axes(dims, dot, weight, of, &at, dot->m, &stride_m);
    q.n = take_axes(dims, dot, weight, of, &at, dot->n, &stride_n);
    q.k = take_axes(dims, dot, weight, of, &at, dot->k, &stride_k);
    if (weight == 0) { /* the other way round: out' = rhs . lhs' */
        int64_t m = q.m;
        q.m = q.n;
        q.n = m;
    }
    bool by_k = stride_k == 1;
    int64_t stride[3][2] = {{q.k, 1}, {by_k ? q.k : 1, by_k ? 1 : q.n}, {q.n, 1}};
    memcpy(q.stride, stride, sizeof stride);
    return q;
}

static void add_shape(struct work *w, const struct cuda_product *q)
{
    uint32_t i = 0;
    while (i < w->shapes && memcmp(&w->shape[i].product, q, sizeof *q) != 0)
        i++;
    bool gemm = q->type == DT_F32 || q->type == DT_F16 || q->type == DT_BF16;
    if (!gemm || q->batch != 1 || q->m * q->n * q->k == 0 || i == MOST_SHAPES) {
        w->skipped++;
        return;
    }
    if (i == w->shapes)
        w->shape[w->shapes++] = (struct shape){.product = *q};
    w->shape[i].count++;
}

static void add_dot(struct work *w, const struct program *p, const struct step *step, const int64_t *of, bool *seen)
{
    int weight = -1;
    uint64_t bytes = 0;
    for (int i = 0; i < 2; i++) {
        buffer_kind kind = p->buffers.at[step->arg[i]].kind;
        if (kind == BUFFER_WEIGHT || kind == BUFFER_KEPT || kind == BUFFER_CONSTANT)
            weight = i;
    }
    dtype type = p->buffers.at[step->arg[weight < 0 ? 0 : weight]].type;
    struct cuda_product q = product_of(p->graph->dims, step->dot, weight < 0 ? 1 : weight, type, of);
    double flops = 2 * (double)q.batch * (double)q.m * (double)q.n * (double)q.k;
    if (weight < 0) {
        w->attention_flops += flops;
        return;
    }
    w->flops += flops;
    add_shape(w, &q);
    if (!seen[step->arg[weight]] && buffer_bytes(p, step->arg[weight], of, &bytes))
        w->weight_bytes += bytes;
    seen[step->arg[weight]] = true;
}

static void add_states(struct work *w, const struct graph *g, const int64_t *of)
{
    for (uint32_t i = 0; i < g->states.count; i++) {
        const struct node *n = graph_node(g, g->outputs.at[g->states.at[i].output].value);
        uint64_t bytes = dtype_size(n->dtype);
        for (uint32_t a = 0; a < n->rank; a++) {
            int64_t extent = 0;
            (void)dim_eval(g->dims, n->shape[a], of, &extent);
            bytes *= (uint64_t)extent;
        }
        w->state_bytes += bytes;
    }
}

/* Seconds of each shape, as much of a GPU's time as tells; returns those of all products. */
static status time_shapes(struct work *w, double *all, struct failure *f)
{
    struct device *d = NULL;
    struct stage t;
    size_t out = 0, pool = 0;
    dtype type = w->shapes ? w->shape[0].product.type : DT_F32;
    status s = device_cuda_new(0, f, &d);
    if (s != TPC_OK)
        return s;
    bool fake = strstr(device_cuda_info(d).name, "fake") != NULL;
    for (uint32_t i = 0; i < w->shapes; i++) {
        const struct cuda_product *q = &w->shape[i].product;
        size_t size = dtype_size(q->type), mn = (size_t)(q->m * q->n) * size,
               operands = (size_t)((q->m + q->n) * q->k) * size;
        out = mn > out ? mn : out;
        pool = operands > pool ? operands : pool;
    }
    pool += fake ? 0 : (size_t)1 << 28; /* more than caches hold */
    s = stage_open(&t, d, type, pool, out, f);
    for (uint32_t i = 0; i < w->shapes && s == TPC_OK; i++) {
        struct shape *x = &w->shape[i];
        s = time_product(&t, &x->product, 2, fake ? 1 : 4, &x->seconds, f);
        int count = (int)(0.01 / x->seconds) + 1;
        if (s == TPC_OK && !fake)
            s = time_product(&t, &x->product, 3, count < 1000 ? count : 1000, &x->seconds, f);
        *all += x->count * x->seconds;
    }
    stage_close(&t);
    d->ops->close(d);
    return s;
}

static void print_work(const struct work *w, bool timed, double all)
{
    printf("{\"weight_bytes\": %llu, \"state_bytes\": %llu, \"flops\": %.6g, \"attention_flops\": %.6g",
           (unsigned long long)w->weight_bytes, (unsigned long long)w->state_bytes, w->flops, w->attention_flops);
    if (timed)
        printf(", \"products_s\": %.6g, \"untimed\": %u", all, (unsigned)w->skipped);
    printf(", \"products\": [");
    for (uint32_t i = 0; i < w->shapes; i++) {
        const struct shape *x = &w->shape[i];
        printf("%s{\"count\": %u, \"m\": %lld, \"n\": %lld, \"k\": %lld, \"type\": \"%s\"", i ? ", " : "",
               (unsigned)x->count, (long long)x->product.m, (long long)x->product.n, (long long)x->product.k,
               dtype_name(x->product.type));
        printf(timed ? ", \"s\": %.4g}" : "}", x->seconds);
    }
    printf("]}\n");
}

static int plan_work(const char *path, int count, char **size, bool timed)
{
    static struct work w;
    struct arena *arena = arena_new();
    struct diag diag = {0};
    struct plan *plan = NULL;
    status s = arena ? plan_read(arena, path, &diag, &plan) : TPC_NOMEM;
    if (s != TPC_OK)
        return (int)s;
    const struct program *p = plan->program;
    int64_t *of = NEW_ARRAY(arena, int64_t, dims_symbol_count(p->graph->dims) + 1);
    bool *seen = NEW_ARRAY(arena, bool, p->buffers.count + 1);
    double all = 0;
    struct failure f = {.code = TPC_OK};
    if (!read_sizes(p->graph, count, size, of))
        return TPC_USAGE;
    for (uint32_t i = 0; i < p->steps.count; i++)
        if (p->steps.at[i].kind == STEP_DOT && p->steps.at[i].phase == PHASE_RUN)
            add_dot(&w, p, &p->steps.at[i], of, seen);
    add_states(&w, p->graph, of);
    s = timed ? time_shapes(&w, &all, &f) : TPC_OK;
    if (s == TPC_OK)
        print_work(&w, timed, all);
    arena_free(arena);
    return s == TPC_OK ? 0 : complain(&f);
}

/* ---- weights ------------------------------------------------------------------------------------------------------------ */

struct writing {
    int file;
    uint64_t bytes;
    unsigned char *block; /* two times BLOCK */
    _Atomic bool failed;
};

/* Every parts-th block of the file: one block of numbers again and again, from another place of it each time. */
static void write_part(void *context, uint32_t part, uint32_t parts)
{
    enum { SHIFT = 4096 * 33 };
    struct writing *w = context;
    for (uint64_t i = part; i * BLOCK < w->bytes && !w->failed; i += parts) {
        uint64_t at = i * BLOCK, left = w->bytes - at;
        size_t n = left < BLOCK ? (size_t)left : BLOCK;
        if (pwrite(w->file, w->block + i * SHIFT % BLOCK, n, (off_t)at) != (ssize_t)n)
            w->failed = true;
    }
}

static int weights(const char *path, uint64_t bytes, dtype type)
{
    struct writing w = {
        .file = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0666), .bytes = bytes, .block = malloc(2 * (size_t)BLOCK)};
    struct workers *workers = workers_new(8);
    bool good = w.file >= 0 && w.block && workers;
    if (good) {
        make_random(w.block, 2 * (size_t)BLOCK, type, 0.02);
        workers_run(workers, write_part, &w);
    }
    workers_free(workers);
    good = w.file >= 0 && close(w.file) == 0 && good && !w.failed;
    free(w.block);
    if (!good)
        fprintf(stderr, "gpu_measure: cannot write %s\n", path);
    return good ? 0 : TPC_IO;
}

int main(int argc, char **argv)
{
    if (argc >= 2 && strcmp(argv[1], "rates") == 0)
        return rates(argc > 2 ? (uint32_t)strtoul(argv[2], NULL, 10) : 0);
    if (argc >= 3 && (strcmp(argv[1], "plan") == 0 || strcmp(argv[1], "products") == 0))
        return plan_work(argv[2], argc - 3, argv + 3, argv[1][1] == 'r');
    if (argc == 5 && strcmp(argv[1], "weights") == 0) {
        dtype type = dtype_from_name(argv[4], strlen(argv[4]));
        if (type == DT_F32 || type == DT_BF16 || type == DT_F16)
            return weights(argv[2], strtoull(argv[3], NULL, 10), type);
    }
    fprintf(stderr,
            "usage: gpu_measure rates [GPU] | plan PLAN SYMBOL=N... | products PLAN SYMBOL=N... | weights FILE BYTES "
            "f32|f16|bf16\n");
    return TPC_USAGE;
}
