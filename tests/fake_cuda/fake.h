/* tests/fake_cuda/fake.h - CUDA's driver, NVRTC, cuBLASLt and NCCL for machines without a GPU: shared libraries of the same names (TPC_CUDA_PATH finds them) that
 * compute in host memory.
 *
 * A stream is a thread with a queue, so that what is queued happens later; kernels run on the model of CUDA (tests/cuda_model); ranks of one process meet
 * inside of a collective as they would on the wire. The fakes are strict: copies must stay inside of live memory, host memory must be pinned and,
 * outside of captures, hold what it held when a copy from it was queued, an image must be one of the fake NVRTC's.
 *
 * Environment: TPC_FAKE_GPUS (2), TPC_FAKE_MEMORY (bytes of each, 4 GiB), TPC_FAKE_DRIVER (13000), TPC_FAKE_COMPUTE (90), TPC_FAKE_FAIL ("cuMemAlloc_v2:3" or
 * "*:57": that call fails), TPC_FAKE_LOG (a file: a line per call), TPC_FAKE_OBJECTS (a folder where compiled kernels are kept),
 * TPC_FAKE_SLOW (milliseconds that each copy from host memory waits), TPC_FAKE_IDLE (kernels and products take so many microseconds, asleep, and do nothing: what is
 * left is the host's time).
 *
 * Section: driver.c, kernels.c, graphs.c and events.c (libcuda.so.1; the others use what it exports), nvrtc.c, blas.c, nccl.c
 */
#ifndef TPC_TESTS_FAKE_CUDA_FAKE_H
#define TPC_TESTS_FAKE_CUDA_FAKE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define FAKE_API __attribute__((visibility("default")))

/* Notes a call; true: it shall fail. */
FAKE_API bool fake_call(const char *name);
/* For tests: the n-th call from now fails (0: none does); calls since the start; objects that nobody has released. */
FAKE_API void fake_fail_after(uint64_t n);
FAKE_API void fake_fail_of(const char *name, uint64_t n); /* the n-th call of that name; 0: none */
FAKE_API uint64_t fake_calls(void);
FAKE_API int64_t fake_live(void);
FAKE_API void fake_own(int64_t more); /* objects made, or released (< 0) */

typedef void fake_work(void *argument);
/* Queues work with a copy of its argument; while the stream is captured it is noted instead. false: no such stream. */
FAKE_API bool fake_enqueue(void *stream, fake_work *work, const void *argument, size_t bytes);
/* Of a work: it went wrong, and so does all that follows on its stream. */
FAKE_API void fake_break(void *stream, const char *why);
/* Is [at, at + bytes) inside of live device memory? */
FAKE_API bool fake_is_device(const void *at, size_t bytes);

enum { FAKE_BLOCKS = 4096, ILLEGAL_ADDRESS = 700, LAUNCH_FAILED = 719, INVALID = 1 };
/* 90: compute capability 9.0. */
int fake_compute(void);
/* TPC_FAKE_IDLE is set, and the time it says over: the work is done. */
FAKE_API bool fake_idles(void);
struct model_buffer;
/* Live memory of the GPU whose work this is; at most FAKE_BLOCKS. */
uint32_t fake_ranges(struct model_buffer *to);

/* ---- between the driver's files ---- */
struct fake_graph; /* a cu_graph: works in their order */
struct fake_graph *fake_graph_new(void);
void fake_graph_free(struct fake_graph *graph); /* NULL is allowed */
void fake_graph_add(struct fake_graph *g, fake_work *work, const void *argument, size_t bytes);
/* The next node that is added may start early. */
void fake_graph_overlap(void);
/* An array of its newest node's handle; none in an empty one. */
const void *fake_graph_last(const struct fake_graph *g, size_t *count);
struct cu_kernel_node;
/* The launch that `work` is with `argument` gets these parameters. false: it is no launch, or of another function, or no launch may be so. */
bool fake_launch_set(fake_work *work, void *argument, const struct cu_kernel_node *kernel);

/* At the begin of a function of the driver: it fails with `code` when it shall. */
#define CALL(code)                                                                                                     \
    if (fake_call(__func__))                                                                                           \
    return code

#define FAKE_IMAGE "tpc fake cubin\n" /* name and source behind it, each with a 0 */

#endif
