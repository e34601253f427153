/* tests/support/execute_gpu.h - the same Programs on a real GPU, through the runtime's own device: what the model of CUDA promises, a device keeps or not.
 *
 * With TPC_TEST_GPU=1 in the environment execute_cuda comes here. Each buffer is an allocation of exactly its size, so that compute-sanitizer
 * sees accesses out of bounds. Needs what tpc needs on a GPU; what is missing fails the test.
 *
 * Section: execute_gpu.c
 */
#ifndef TPC_TESTS_SUPPORT_EXECUTE_GPU_H
#define TPC_TESTS_SUPPORT_EXECUTE_GPU_H

#include "codegen/cuda.h"
#include "ir/tensor.h"

bool gpu_wanted(void);
/* NVRTC compiles all functions of the sets for the GPU. */
void gpu_compile(struct cuda_set *const *sets, uint32_t count);
/* As execute_cuda, but for what it returns: 0, or 1 where the GPU met an index out of range. */
int64_t execute_gpu(const char *name, const struct cuda_set *set, const struct program *p, const int64_t *of,
                    const struct tensor *inputs, struct tensor *outputs, struct arena *arena);

#endif
