/* tests/gpu_measure.c - what a GPU can do at most, for scripts/gpu-check to compare with; and weights for its plans.
 *
 *   gpu_measure rates [GPU]            one JSON object: copy bandwidth (bytes read + written per second), rates of cuBLASLt's products
 *   gpu_measure weights FILE BYTES TYPE   a file of small numbers of a type, but for zeros at both ends (whose fingerprint a plan knows)
 *
 * On the fake GPU sizes are tiny: the figures then mean nothing.
 */
#include "runtime/device_cuda.h"

#include <stdlib.h>
#include <time.h>

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

/* ---- rates ------------------------------------------------------------------------------------------------------------- */

/* Bytes per second, read and written, of the best of a few rounds; < 0: it fails. */
static double copy_rate(struct device *d, size_t bytes, struct failure *f)
{
    void *from = d->ops->alloc(d, bytes), *to = d->ops->alloc(d, bytes);
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

/* Operations per second of out[m][n] = lhs[m][k] . rhs[n][k]. */
static double product_rate(struct device *d, dtype type, int64_t size, struct failure *f)
{
    const char *missing;
    struct products *p = products_new(cuda_driver(&missing), cuda_blas(&missing));
    struct cuda_product q = {
        .type = type, .batch = 1, .m = size, .n = size, .k = size, .stride = {{size, 1}, {size, 1}, {size, 1}}};
    size_t bytes = (size_t)(size * size) * dtype_size(type);
    void *at[3], *workspace = d->ops->alloc(d, PRODUCTS_WORKSPACE);
    const struct product_plan *plan = NULL;
    for (int i = 0; i < 3; i++)
        at[i] = d->ops->alloc(d, bytes);
    double best = 0;
    status s = p && workspace && at[0] && at[1] && at[2] ? TPC_OK : fail(f, TPC_NOMEM, "out of memory on the GPU");
    s = s == TPC_OK ? products_plan(p, &q, &plan, f) : s;
    for (int round = 0; round < 6 && s == TPC_OK; round++) {
        double start = now();
        for (int i = 0; i < 4 && s == TPC_OK; i++)
            s = products_run(p, plan, at, workspace, device_cuda_stream(d), f);
        s = s == TPC_OK ? d->ops->finish(d, f) : s;
        double rate = 4 * 2 * (double)size * (double)size * (double)size / (now() - start);
        best = round > 0 && rate > best ? rate : best;
    }
    for (int i = 0; i < 3; i++)
        d->ops->release(d, at[i], bytes);
    d->ops->release(d, workspace, PRODUCTS_WORKSPACE);
    products_free(p);
    return s == TPC_OK ? best : -1;
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
    double f32 = bf16 < 0 ? -1 : product_rate(d, DT_F32, fake ? 32 : 8192, &f);
    d->ops->close(d);
    if (f32 < 0)
        return complain(&f);
    printf("{\"gpu\": \"%s\", \"compute\": %u, \"fake\": %s, \"copy_bytes_per_s\": %.4g, \"bf16_flops_per_s\": %.4g, "
           "\"f32_flops_per_s\": %.4g}\n",
           info.name, (unsigned)info.compute, fake ? "true" : "false", copy, bf16, f32);
    return 0;
}

/* ---- weights ------------------------------------------------------------------------------------------------------------ */

static int weights(const char *path, uint64_t bytes, dtype type)
{
    enum { EDGE = 65536, PIECE = 1 << 20 };
    static unsigned char piece[PIECE];
    FILE *file = fopen(path, "wb");
    uint64_t state = 88172645463325252u;
    bool good = file != NULL;
    size_t size = dtype_size(type);
    for (uint64_t at = 0; at < bytes && good; at += PIECE) {
        size_t n = bytes - at < PIECE ? (size_t)(bytes - at) : PIECE;
        memset(piece, 0, sizeof piece);
        for (size_t i = 0; i + size <= n; i += size) {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            if (at + i >= EDGE && at + i + size + EDGE <= bytes)
                dtype_store_f64(type, piece, i / size, ((double)(state >> 40) / 16777216.0 - 0.5) * 0.04);
        }
        good = fwrite(piece, 1, n, file) == n;
    }
    good = file && fclose(file) == 0 && good;
    if (!good)
        fprintf(stderr, "gpu_measure: cannot write %s\n", path);
    return good ? 0 : TPC_IO;
}

int main(int argc, char **argv)
{
    if (argc >= 2 && strcmp(argv[1], "rates") == 0)
        return rates(argc > 2 ? (uint32_t)strtoul(argv[2], NULL, 10) : 0);
    if (argc == 5 && strcmp(argv[1], "weights") == 0) {
        dtype type = dtype_from_name(argv[4], strlen(argv[4]));
        if (type == DT_F32 || type == DT_BF16 || type == DT_F16)
            return weights(argv[2], strtoull(argv[3], NULL, 10), type);
    }
    fprintf(stderr, "usage: gpu_measure rates [GPU] | weights FILE BYTES f32|f16|bf16\n");
    return TPC_USAGE;
}
