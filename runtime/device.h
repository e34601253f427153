/* runtime/device.h - where a rank computes: one vtable, and the CPU's.
 *
 * Contract: a device belongs to one rank and is called from that rank's thread only. Steps take effect in the order in which they were
 * given; they may be queued, `finish` waits for all of them. A step that fails fills the failure and returns its status, at the
 * latest from `finish`. Nothing here prints.
 *
 * Sections: device_cpu.c
 */
#ifndef TPC_RUNTIME_DEVICE_H
#define TPC_RUNTIME_DEVICE_H

#include "runtime/builtin.h"
#include "runtime/gemm.h"

struct kernel_set; /* codegen/codegen.h */

/* What a kernel needs beside its buffers, in numbers: computed once per shape. */
struct kernel_job {
    uint32_t kernel;
    int64_t extent;    /* kernel_extent: what can be shared out */
    int64_t work;      /* kernel_work: operations in all */
    const int64_t *of; /* values of all symbols */
};

struct failure {
    status code;
    value node; /* of the program, where the device knows better than the step; 0: it does not */
    char text[256];
};

struct device {
    const struct device_ops *ops;
};

struct device_ops {
    const char *name;
    /* Memory of the device, aligned to 64, contents zero. NULL: none left. bytes 0 gives a valid pointer. */
    void *(*alloc)(struct device *d, size_t bytes);
    void (*release)(struct device *d, void *at, size_t bytes);
    /* True when kernels can read host memory where it lies (mapped weights, the caller's inputs). */
    bool reads_host;
    /* From and to host memory; blocks until `host` may be reused. */
    status (*upload)(struct device *d, void *to, const void *host, size_t bytes, struct failure *f);
    status (*download)(struct device *d, void *host, const void *from, size_t bytes, struct failure *f);
    /* Steps. */
    status (*copy)(struct device *d, void *to, const void *from, size_t bytes, struct failure *f);
    status (*kernel)(struct device *d, const struct kernel_job *job, void *const *buffers, struct failure *f);
    status (*dot)(struct device *d, const struct dot_view *view, dtype type, const void *lhs, const void *rhs,
                  void *out, struct failure *f);
    status (*builtin)(struct device *d, struct builtin_call *call, struct failure *f);
    status (*finish)(struct device *d, struct failure *f);
    void (*close)(struct device *d); /* NULL is allowed */
};

status fail(struct failure *f, status code, const char *format, ...) TPC_PRINTF(3, 4);

/* NULL: out of memory. `kernels` must outlive it. */
struct device *device_cpu_new(const struct kernel_set *kernels, uint32_t threads);

#endif
