/* runtime/device_cuda_impl.h - what the files of a GPU as a device share; private to them.
 *
 * Invariant: every call of the driver goes through cuda_check, which remembers an error that is for ever, and is made after cuda_enter.
 */
#ifndef TPC_RUNTIME_DEVICE_CUDA_IMPL_H
#define TPC_RUNTIME_DEVICE_CUDA_IMPL_H

#include "runtime/device_cuda.h"

enum { PIECES = 4, PIECE_BYTES = 8 << 20 };

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
    int64_t *fault_read; /* pinned: of finish, of two marks */
    cu_event marked[2];
    uint64_t *shown;      /* pinned: kernels write to it; two slots */
    uint64_t shown_bytes; /* of one */
    cu_pointer fault, workspace, product_workspace;
    uint64_t workspace_bytes;
    struct products *products;
    struct graphs *graphs;
    const struct cuda_set *set;
    struct loaded_function *function; /* per function of the set */
    uint64_t generation;
    bool broken;
    bool overlap;      /* in graphs a kernel may begin before its predecessor has ended: */
    bool after_kernel; /* which is a kernel of ours, what was queued last */
    char why[200];
    struct cuda_totals totals;
};

static inline struct cuda *cuda_of(const struct device *d)
{
    return (struct cuda *)(uintptr_t)d;
}

static inline void *host_view(cu_pointer p)
{
    return (void *)(uintptr_t)p;
}

static inline cu_pointer device_view(const void *p)
{
    return (cu_pointer)(uintptr_t)p;
}

/* ---- device_cuda.c ---- */
status cuda_check(struct cuda *c, cu_result r, const char *what, struct failure *f);
/* Before any other call: the context is the thread's, and the GPU still good. */
status cuda_enter(struct cuda *c, struct failure *f);
status cuda_copy_bytes(struct device *d, void *to, const void *from, size_t bytes, struct failure *f);

/* ---- steps_cuda.c: slots of struct device_ops ---- */
status cuda_prepare_step(struct device *d, uint32_t index, const int64_t *of, struct arena *arena, const void **out,
                         struct failure *f);
void cuda_warm(struct device *d);
status cuda_run_step(struct device *d, const struct step *step, const void *prepared, void *const *address,
                     const uint64_t *bytes, struct failure *f);
status cuda_helper(struct device *d, const struct cuda_launch *l, const void *first, const void *second,
                   struct failure *f);
status cuda_shown(struct device *d, uint64_t bytes, uint32_t slot, void **to, struct failure *f);
bool cuda_fits(struct device *d, uint64_t key);
void cuda_trace(struct device *d);
bool cuda_note(struct device *d, const uint64_t *word, uint32_t count);
enum traced_run cuda_traced(struct device *d, uint64_t key, bool ahead);
status cuda_record(struct device *d, struct failure *f);
status cuda_recorded(struct device *d, uint64_t key, struct failure *f);
status cuda_replay(struct device *d, struct failure *f);
void cuda_forget(struct device *d, bool kinds);

#endif
