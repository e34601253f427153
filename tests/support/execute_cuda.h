/* tests/support/execute_cuda.h - Programs of one rank through codegen/cuda.h, on the model of CUDA: every launch as a driver would get it, products as loops.
 *
 * Section: execute_cuda.c
 */
#ifndef TPC_TESTS_SUPPORT_EXECUTE_CUDA_H
#define TPC_TESTS_SUPPORT_EXECUTE_CUDA_H

#include "codegen/cuda.h"
#include "ir/tensor.h"
#include "tests/support/cuda_model.h"

/* The functions of all sets, each once, as one object. Fails the test when it does not compile. */
struct cuda_model *compile_sets(struct cuda_set *const *sets, uint32_t count, struct arena *arena);

/* Every buffer has memory of exactly its size at a multiple of CUDA_ALIGN. `of`: values of the symbols; processors: as in cuda_step. outputs[i].data is from
 * malloc. Returns the fault cell; what the model finds wrong fails the test. With TPC_TEST_GPU=1: on a GPU (execute_gpu.h; model: NULL). */
int64_t execute_cuda(const char *name, const struct cuda_set *set, const struct program *p,
                     const struct cuda_model *model, const int64_t *of, uint32_t processors,
                     const struct tensor *inputs, struct tensor *outputs, struct arena *arena);

/* Shapes output `buffer` of a Program, with memory from malloc for its bytes. */
void *new_output(const struct program *p, uint32_t buffer, const int64_t *of, uint64_t bytes, struct tensor *outputs);
/* What a buffer holds before anything runs; NULL: nothing. */
const void *first_contents(const struct program *p, uint32_t buffer, const struct tensor *inputs);

#endif
