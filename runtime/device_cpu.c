/* runtime/device_cpu.c - the CPU as a device: host memory, compiled kernels over a pool of workers, library GEMM. Nothing is queued.
 *
 * Invariant: how a kernel's points are shared out depends on their number and the pool's size only, and no two points write one element, so results do not
 * depend on timing.
 */
#include "runtime/device.h"

#include "codegen/codegen.h"

#include <sys/mman.h>

enum { SHARE_FROM = 64 << 10 }; /* scalar operations that are worth waking the workers */
enum { LARGE = 4 << 20 };       /* bytes from which memory is mapped, in huge pages where the system has them */

struct cpu {
    struct device base;
    const struct kernel_set *kernels;
    struct workers *workers;
};

static struct cpu *cpu_of(struct device *d)
{
    return (struct cpu *)d;
}

/* ---- memory --------------------------------------------------------------------------------------------------------- */

/* Small blocks are allocated with room for alignment; the pointer that was allocated stands before the block. */
static void *alloc_bytes(struct device *d, size_t bytes)
{
    (void)d;
    if (bytes >= LARGE) {
        void *at = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (at == MAP_FAILED)
            return NULL;
#if defined(MADV_HUGEPAGE)
        (void)madvise(at, bytes, MADV_HUGEPAGE);
#endif
        return at;
    }
    char *base = base_alloc(bytes + 128);
    if (!base)
        return NULL;
    char *at = base + 64 + (64 - (uintptr_t)base % 64) % 64;
    memcpy(at - sizeof(void *), &base, sizeof base);
    return at;
}

static void release_bytes(struct device *d, void *at, size_t bytes)
{
    (void)d;
    if (!at)
        return;
    if (bytes >= LARGE) {
        munmap(at, bytes);
        return;
    }
    void *base;
    memcpy(&base, (char *)at - sizeof(void *), sizeof base);
    base_free(base);
}

static status copy_bytes(struct device *d, void *to, const void *from, size_t bytes, struct failure *f)
{
    (void)d;
    (void)f;
    if (bytes && to != from)
        memmove(to, from, bytes);
    return TPC_OK;
}

/* ---- steps ---------------------------------------------------------------------------------------------------------- */

struct share {
    const struct kernel_set *kernels;
    const struct kernel_job *job;
    void *const *buffers;
    int64_t *fault; /* kernels set it atomically */
};

static void run_share(void *context, uint32_t part, uint32_t parts)
{
    const struct share *s = context;
    int64_t begin, end;
    part_range(s->job->extent, 1, part, parts, &begin, &end);
    if (begin < end)
        kernel_run(s->kernels, s->job->kernel, s->buffers, s->job->of, begin, end, s->fault);
}

static status run_kernel(struct device *d, const struct kernel_job *job, void *const *buffers, struct failure *f)
{
    struct cpu *c = cpu_of(d);
    int64_t fault = 0;
    struct share share = {.kernels = c->kernels, .job = job, .buffers = buffers, .fault = &fault};
    if (workers_count(c->workers) > 1 && job->extent > 1 && job->work >= SHARE_FROM)
        workers_run(c->workers, run_share, &share);
    else
        run_share(&share, 0, 1);
    if (fault == 0)
        return TPC_OK;
    f->node = kernel_fault_node(c->kernels, job->kernel, fault);
    return fault == KERNEL_NO_MEMORY ? fail(f, TPC_NOMEM, "out of memory in a kernel")
                                     : fail(f, TPC_DATA, "an index is out of range");
}

static status run_dot(struct device *d, const struct dot_view *view, dtype type, const void *lhs, const void *rhs,
                      void *out, struct failure *f)
{
    status s = gemm_dot(view, type, lhs, rhs, out, cpu_of(d)->workers);
    return s == TPC_OK ? s : fail(f, s, "out of memory in a matrix product");
}

static status run_builtin(struct device *d, struct builtin_call *call, struct failure *f)
{
    (void)d;
    status s = builtin_run(call);
    if (s == TPC_DATA)
        return fail(f, s, "index %lld is out of range: it must be in [0, %lld)", (long long)call->fault_index,
                    (long long)call->fault_limit);
    return s == TPC_OK ? s
                       : fail(f, s, s == TPC_NOMEM ? "out of memory" : "the plan's shapes do not fit together here");
}

static status finish(struct device *d, struct failure *f)
{
    (void)d;
    (void)f;
    return TPC_OK;
}

static void close_device(struct device *d)
{
    if (!d)
        return;
    workers_free(cpu_of(d)->workers);
    base_free(d);
}

static const struct device_ops ops = {
    .name = "cpu",
    .alignment = 64,
    .alloc = alloc_bytes,
    .release = release_bytes,
    .reads_host = true,
    .upload = copy_bytes,
    .download = copy_bytes,
    .copy = copy_bytes,
    .kernel = run_kernel,
    .dot = run_dot,
    .builtin = run_builtin,
    .finish = finish,
    .close = close_device,
};

struct device *device_cpu_new(const struct kernel_set *kernels, uint32_t threads)
{
    struct cpu *c = base_alloc(sizeof *c);
    if (!c)
        return NULL;
    *c = (struct cpu){.base.ops = &ops, .kernels = kernels, .workers = workers_new(threads)};
    if (!c->workers) {
        base_free(c);
        return NULL;
    }
    return &c->base;
}
