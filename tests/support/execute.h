/* tests/support/execute.h - a tiny executor for Programs of one rank: a dot is loops, each temporary has memory of its own of exactly its size (so that the
 * sanitizer sees an interpreted kernel that reaches too far), or its place in the arena that program_place plans.
 */
#ifndef TPC_TESTS_SUPPORT_EXECUTE_H
#define TPC_TESTS_SUPPORT_EXECUTE_H

#include "codegen/codegen.h"
#include "ir/tensor.h"

/* `of`: values of the symbols. outputs[i].data is from malloc. Returns a kernel's fault, 0 when all went well. */
int64_t execute_alone(const char *name, const struct program *p, const struct kernel_set *kernels, const int64_t *of,
                      const struct tensor *inputs, struct tensor *outputs, bool placed, struct arena *arena);

#endif
