/* runtime/device_cuda.h - a GPU as a device, and the products that it has cuBLASLt do.
 *
 * Everything of a rank goes through one stream. Memory comes from the driver in a few large pieces (the engine's stores); what goes between host and GPU
 * passes through a few pinned pieces in turn. A CUDA error other than want of memory is for ever: the device refuses all that comes behind it.
 *
 * Sections: device_cuda.c, products_cuda.c
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
    uint64_t launches, products, copies, graphs, graph_launches, modules;
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
/* Queues it. operand: lhs, rhs, out, without offsets. */
status products_run(struct products *p, const struct product_plan *plan, void *const operand[3], void *workspace,
                    cu_stream stream, struct failure *f);

#endif
