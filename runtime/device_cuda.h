/* runtime/device_cuda.h - a GPU as a device, and the products that it has cuBLASLt do.
 *
 * Everything of a rank goes through one stream. Memory comes from the driver in a few large pieces (the engine's stores); what goes between host and GPU
 * passes through a few pinned pieces in turn. A CUDA error other than want of memory is for ever: the device refuses all that comes behind it.
 *
 * Sections: device_cuda.c, steps_cuda.c, products_cuda.c, graphs_cuda.c
 */
#ifndef TPC_RUNTIME_DEVICE_CUDA_H
#define TPC_RUNTIME_DEVICE_CUDA_H

#include "codegen/cuda.h"
#include "runtime/cuda_api.h"
#include "runtime/device.h"

/* ---- device_cuda.c ---- */

struct gpu_info {
    uint32_t ordinal, compute; /* compute: 90 is 9.0 */
    char name[96];
};
/* TPC_UNSUPPORTED: no driver, no such GPU, no cuBLASLt; TPC_NOMEM. */
status device_cuda_new(uint32_t ordinal, struct failure *f, struct device **out);
struct gpu_info device_cuda_info(const struct device *d);
/* Before the first step; must outlive the device. */
status device_cuda_use(struct device *d, const struct cuda_set *set, struct failure *f);

/* For communicators that queue behind the steps. */
cu_stream device_cuda_stream(struct device *d);
/* Makes the GPU the calling thread's. */
status device_cuda_enter(struct device *d, struct failure *f);
/* A helper's launch (cuda_copy_rows, cuda_combine) with word[0], word[1] as given. */
status device_cuda_launch(struct device *d, const struct cuda_launch *launch, const void *first, const void *second,
                          struct failure *f);
/* Loads what a helper's launch needs: not while recording. */
status device_cuda_ready(struct device *d, const struct cuda_launch *launch, struct failure *f);
const struct cuda_set *device_cuda_set(const struct device *d);
/* Of the whole process: calls of interest for statistics and tests. */
struct cuda_totals {
    uint64_t launches, products, copies, modules;
    struct graph_counts {
        uint64_t made, launched;
        uint64_t overlaps;        /* edges of those made over which the later kernel may start early */
        uint64_t updates, nodes;  /* recordings that were set for another run; nodes that differed */
        uint64_t kernels, others; /* of ours, and what else, in all that were launched */
    } graphs;
};
struct cuda_totals device_cuda_totals(const struct device *d);

/* ---- products_cuda.c ---- */

struct products;     /* of one GPU: for each product, what cuBLASLt has chosen, once */
struct product_plan; /* of one product; lives as long */

/* NULL: out of memory, or it does not start. */
struct products *products_new(const struct cuda_driver *driver, const struct cuda_blas *api);
void products_free(struct products *p); /* NULL is allowed */
/* Operands are at multiples of CUDA_ALIGN plus the product's offsets. */
status products_plan(struct products *p, const struct cuda_product *product, const struct product_plan **out,
                     struct failure *f);
enum { PRODUCTS_WORKSPACE = 32 << 20 };
/* How many of `list` are one batched product, since they are alike and what they take and make lies at equal distances, upwards. address: per buffer. */
uint32_t products_batch(const struct cuda_product *list, uint32_t count, void *const *address,
                        struct cuda_product *out);
/* Queues it. operand: lhs, rhs, out, what is added, the bias (those or NULL); without offsets. */
status products_run(struct products *p, const struct product_plan *plan, void *const operand[5], void *workspace,
                    cu_stream stream, struct failure *f);

/* ---- graphs_cuda.c ---- */

struct graphs; /* of one GPU: the runs that it has recorded, and the trace of the one in hand */

struct graphs *graphs_new(const struct cuda_driver *api); /* NULL: out of memory */
void graphs_free(struct graphs *g);                       /* NULL is allowed */
void graphs_forget(struct graphs *g, bool kinds);         /* all recordings; kinds: all is new again */
/* Is there a recording that is set for just this run? `key`: of its shapes and addresses; `memory`: counts up when memory is taken or given back. */
bool graphs_fit(struct graphs *g, uint64_t key, uint64_t memory);
/* From here to graphs_traced the next two note what they are given and return true; else they return false, and it is to be done. Notes are never made of
 * what a recording repeats by itself. */
void graphs_trace(struct graphs *g);
bool graphs_note_kernel(struct graphs *g, cu_function function, const struct cu_launch *how, const uint64_t *word,
                        uint32_t count);
/* What is no kernel of ours, with all that it depends on. */
bool graphs_note(struct graphs *g, const uint64_t *word, uint32_t count);
/* ahead: the run does not follow now, so it is none of a kind that went before. */
enum traced_run graphs_traced(struct graphs *g, uint64_t key, uint64_t memory, bool ahead);
/* The run that was traced, captured: from graphs_record on its kernels and notes come again, and graphs_captured after each kernel. Then the graph that came of
 * it (NULL: none), which the recording owns from now on. */
void graphs_record(struct graphs *g);
bool graphs_recording(const struct graphs *g);
cu_result graphs_captured(struct graphs *g, cu_stream stream);
cu_result graphs_recorded(struct graphs *g, uint64_t key, uint64_t memory, cu_graph graph);
/* Launches what graphs_fit or graphs_traced found, or was recorded last. */
cu_result graphs_replay(struct graphs *g, cu_stream stream);
struct graph_counts graphs_counts(const struct graphs *g);

#endif
