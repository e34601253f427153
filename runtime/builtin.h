/* runtime/builtin.h - the operations that no kernel expresses: cumsum, topk, scatter, on dense row-major buffers in host memory.
 *
 * Section: builtin.c
 */
#ifndef TPC_RUNTIME_BUILTIN_H
#define TPC_RUNTIME_BUILTIN_H

#include "ir/tensor.h"

struct builtin_call {
    const struct node *node;
    struct tensor operand[3], result; /* shapes of this rank; data set */
    int64_t base;                     /* scatter: what is subtracted from an index (dims[0]) */
    int64_t fault_index, fault_limit; /* out: the index that was out of range, and what it had to be below */
};

/* TPC_DATA: an index out of range; TPC_NOMEM; TPC_INTERNAL: not a builtin, or shapes that do not fit. Prints nothing. */
status builtin_run(struct builtin_call *c);

#endif
