/* runtime/doctor.c - see doctor.h. Looks, and tries the C compiler in a folder of its own; changes nothing. */
#include "runtime/doctor.h"

#include "codegen/codegen.h"
#include "codegen/cuda.h"
#include "runtime/cuda_api.h"
#include "runtime/gemm.h"

#include <dlfcn.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static void report_compiler(struct arena *arena, struct text *out)
{
    const char *wish = getenv("CC"), *why, *found = kernels_compiler(arena, &why);
    if (found)
        text_printf(out, "C compiler       %s%s%s\n", found, why ? ", which does not work: " : "", why ? why : "");
    else
        text_printf(out, "C compiler       none%s%s%s: kernels are interpreted, which is slow\n",
                    wish && *wish ? " (CC is '" : "", wish ? wish : "", wish && *wish ? "')" : "");
}

static void report_cache(struct arena *arena, struct text *out)
{
    const char *base = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    const char *cache = base && *base == '/' ? arena_printf(arena, "%s/tpc", base)
                        : home && *home      ? arena_printf(arena, "%s/.cache/tpc", home)
                                             : NULL;
    struct stat st;
    bool there = cache && stat(cache, &st) == 0;
    text_printf(out, "kernel cache     %s%s\n", cache ? cache : "none: neither XDG_CACHE_HOME nor HOME is set",
                !cache                     ? ""
                : !there                   ? " (not there yet)"
                : access(cache, W_OK) == 0 ? ""
                                           : " (cannot be written)");
}

/* ---- CUDA ------------------------------------------------------------------------------------------------------------ */

static void report_gpu(const struct cuda_driver *d, int ordinal, struct text *out)
{
    char name[128] = "?", why[160];
    cu_device device = 0;
    cu_context context = NULL;
    int major = 0, minor = 0;
    size_t free_bytes = 0, total = 0;
    cu_result r = d->device_get(&device, ordinal);
    if (r == CU_OK)
        r = d->device_name(name, sizeof name, device);
    if (r == CU_OK)
        r = d->device_attribute(&major, CU_DEVICE_MAJOR, device);
    if (r == CU_OK)
        r = d->device_attribute(&minor, CU_DEVICE_MINOR, device);
    if (r == CU_OK && (r = d->context_retain(&context, device)) == CU_OK) {
        r = d->context_set(context);
        if (r == CU_OK)
            r = d->memory_info(&free_bytes, &total);
        (void)d->context_set(NULL);
        (void)d->context_release(device);
    }
    if (r == CU_OK)
        text_printf(out, "GPU %-12d %s, compute %d.%d, %.1f of %.1f GB free\n", ordinal, name, major, minor,
                    1e-9 * (double)free_bytes, 1e-9 * (double)total);
    else
        text_printf(out, "GPU %-12d %s: cannot be used: %s\n", ordinal, name, cuda_error(d, r, why, sizeof why));
}

static void report_nvrtc(struct arena *arena, struct text *out)
{
    static const char *const names[] = {"libnvrtc.so.13", "libnvrtc.so.12", NULL};
    const char *path = NULL;
    int major = 0, minor = 0, (*version)(int *, int *) = NULL;
    void *library = cuda_library(arena, names, &path), *symbol = library ? dlsym(library, "nvrtcVersion") : NULL;
    memcpy(&version, &symbol, sizeof version);
    if (version && version(&major, &minor) == 0)
        text_printf(out, "NVRTC            %d.%d from %s\n", major, minor, path);
    else
        text_printf(out, "NVRTC            none: %s is not found\n", names[0]);
}

static void report_cuda(struct arena *arena, struct text *out)
{
    const char *missing = NULL;
    int gpus = 0;
    const struct cuda_driver *d = cuda_driver(&missing);
    if (d && d->device_count(&gpus) == CU_OK)
        text_printf(out, "CUDA driver      for CUDA %d.%d, from %s; %d GPUs\n", d->version / 1000,
                    d->version % 1000 / 10, d->path, gpus);
    else
        text_printf(out, "CUDA driver      none: %s\n", d ? "it does not count its GPUs" : missing);
    for (int i = 0; i < gpus; i++)
        report_gpu(d, i, out);
    report_nvrtc(arena, out);
    const struct cuda_blas *b = cuda_blas(&missing);
    if (b)
        text_printf(out, "cuBLASLt         %zu.%zu.%zu from %s\n", b->version / 10000, b->version % 10000 / 100,
                    b->version % 100, b->path);
    else
        text_printf(out, "cuBLASLt         none: %s\n", missing);
    const struct cuda_nccl *n = cuda_nccl(&missing);
    if (n)
        text_printf(out, "NCCL             %d.%d.%d from %s\n", n->version / 10000, n->version % 10000 / 100,
                    n->version % 100, n->path);
    else
        text_printf(out, "NCCL             none: %s\n", missing);
}

void doctor_print(struct arena *arena, struct text *out)
{
    const struct gemm_info *gemm = gemm_info();
    text_printf(out, "cores            %u\n", (unsigned)sync_cores());
    text_printf(out, "matrix products  %s%s%s\n", gemm->name, *gemm->path ? " from " : "", gemm->path);
    text_printf(out, "own kernels      %s\n", gemm->instruction);
    report_compiler(arena, out);
    report_cache(arena, out);
    report_cuda(arena, out);
    if (*gemm->warning)
        text_printf(out, "warning: %s\n", gemm->warning);
}
