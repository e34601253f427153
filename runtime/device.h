/* runtime/device.h - where a rank computes: one vtable, and the CPU's.
 *
 * Contract: a device belongs to one rank and is called by one thread at a time: that rank's, or the engine's while no rank works. Steps take effect in
 * the order in which they were given; they may be queued, `finish` waits for all of them. A step that fails fills the failure and returns its
 * status, at the latest from `finish`. Nothing here prints.
 *
 * A device takes steps in one of two ways. The CPU takes them as kernels, dots and builtins. A device with `prepare` makes of each step what it likes, once per
 * shape (what it made lives with the shapes), and is then given `step`; it may also record a whole run of steps and do one of the same kind at once (replay).
 *
 * Sections: device_cpu.c; device_cuda.h has the GPU's
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
    /* Asked while `finish` waits: true ends the wait, with TPC_RANKS. NULL: nobody to ask. */
    bool (*interrupted)(void *context);
    void *context;
};

struct step;        /* ir/program.h */
struct cuda_launch; /* codegen/cuda.h */

/* What is known of a run that was traced. */
enum traced_run {
    TRACED_NEW,   /* it is the first of its kind */
    TRACED_AGAIN, /* another of the kind went before: worth a recording */
    TRACED_FITS   /* a recording is ready for it */
};

/* Makes bytes [offset, offset + bytes) of what is to be uploaded. */
typedef void device_fill(void *context, uint64_t offset, void *host, size_t bytes);

struct device_ops {
    const char *name;
    /* Of every buffer that a step is given, a power of 2. */
    size_t alignment;
    /* Memory of the device, so aligned, contents zero. NULL: none left. bytes 0 gives a valid pointer. */
    void *(*alloc)(struct device *d, size_t bytes);
    void (*release)(struct device *d, void *at, size_t bytes);
    /* True when kernels can read host memory where it lies (mapped weights, the caller's inputs). */
    bool reads_host;
    /* From and to host memory; blocks until `host` may be reused. */
    status (*upload)(struct device *d, void *to, const void *host, size_t bytes, struct failure *f);
    status (*download)(struct device *d, void *host, const void *from, size_t bytes, struct failure *f);
    /* The same, but what is uploaded is made piece by piece, in order. NULL where kernels read host memory. */
    status (*stream)(struct device *d, void *to, uint64_t bytes, device_fill *fill, void *context, struct failure *f);
    /* Bytes that can still be had. NULL: as many as the system gives. */
    status (*free_bytes)(struct device *d, uint64_t *bytes, struct failure *f);
    /* Steps. */
    status (*copy)(struct device *d, void *to, const void *from, size_t bytes, struct failure *f);
    status (*kernel)(struct device *d, const struct kernel_job *job, void *const *buffers, struct failure *f);
    status (*dot)(struct device *d, const struct dot_view *view, dtype type, const void *lhs, const void *rhs,
                  void *out, struct failure *f);
    status (*builtin)(struct device *d, struct builtin_call *call, struct failure *f);
    status (*finish)(struct device *d, struct failure *f);
    /* Loads what steps will need, beside a thread that streams weights; what fails is left to the steps. NULL: nothing to do. */
    void (*warm)(struct device *d);
    /* The other way; NULL on the CPU. `of`: values of all symbols. *out goes to `step`, with `address` of every buffer and `bytes` of every buffer. */
    status (*prepare)(struct device *d, uint32_t index, const int64_t *of, struct arena *arena, const void **out,
                      struct failure *f);
    status (*step)(struct device *d, const struct step *step, const void *prepared, void *const *address,
                   const uint64_t *bytes, struct failure *f);
    /* Launches of helpers' functions (codegen/cuda.h), which are queued and noted as steps are; first and second: what their words 0 and 1 stand for. Memory that they may write and the
     * host reads when it has finished: shown has it made, of so many bytes for each slot, words is where it is then. All NULL on devices that read host memory. */
    status (*helper)(struct device *d, const struct cuda_launch *l, const void *first, const void *second,
                     struct failure *f);
    status (*shown)(struct device *d, uint64_t bytes, uint32_t slot, void **to, struct failure *f);
    const uint64_t *(*words)(const struct device *d, uint32_t slot); /* slot: 0 or 1, of runs in turn */
    /* A run may begin before the last one's results are looked at. mark: what is queued so far is of `slot`; reach waits for it alone and says what finish would.
     * After a failure nothing is queued. NULL: only finish waits. */
    status (*mark)(struct device *d, uint32_t slot, struct failure *f);
    status (*reach)(struct device *d, uint32_t slot, struct failure *f);
    /* Runs that come again, as one launch each. NULL on devices that have no such thing. `key` stands for a run's shapes and addresses. */
    /* Is a recording of just this run ready? Then replay launches it. */
    bool (*fits)(struct device *d, uint64_t key);
    /* From trace to traced, steps are noted, not done. `note` says what stands for something that is not the device's (collectives in its queue): true when it
     * is noted, false when it is to be done. */
    void (*trace)(struct device *d);
    bool (*note)(struct device *d, const uint64_t *word, uint32_t count);
    enum traced_run (*traced)(struct device *d, uint64_t key, bool ahead); /* ahead: the run does not follow now */
    /* From record to recorded, the steps that were traced just now are captured. */
    status (*record)(struct device *d, struct failure *f);
    status (*recorded)(struct device *d, uint64_t key, struct failure *f);
    status (*replay)(struct device *d, struct failure *f);
    void (*forget)(struct device *d, bool kinds); /* all recordings; kinds: and what kinds of runs there were */
    void (*close)(struct device *d);              /* NULL is allowed */
};

status fail(struct failure *f, status code, const char *format, ...) TPC_PRINTF(3, 4);

/* NULL: out of memory. `kernels` must outlive it. */
struct device *device_cpu_new(const struct kernel_set *kernels, uint32_t threads);

#endif
