/* ir/kernel.h - a kernel as data: what fuse builds and a codegen Dialect prints.
 *
 * A kernel runs an iteration space: `outer` axes (independent points; coordinates c0 .. c[outer-1]) and, for each point, a row of `inner`
 * axes (coordinates c[outer] ..; none for pointwise kernels). Its body is a list of scalar instructions in SSA form, operands before
 * use. An instruction has a level: 0 depends on outer coordinates only, 1 on inner ones too. A reduction takes a level-1 operand over the
 * whole row and gives a level-0 value; what depends on it runs in a later sweep of the row (a dialect recomputes or keeps level-1 values).
 *
 * Invariants: all index expressions are `dim`s over coordinates and symbols of the program's table; every load and store whose predicate
 * holds is inside its buffer; no two points write one element; nothing of the model but numbers is in a kernel. Kernels with equal
 * contents are one kernel (repeated layers share it): `kernel_hash` and `kernel_same`.
 *
 * Section: kernel.c (build, hash, verify, text)
 */
#ifndef TPC_IR_KERNEL_H
#define TPC_IR_KERNEL_H

#include "ir/graph.h"

enum { KERNEL_AXES = 32 }; /* at most, outer and inner each */

typedef enum instruction_kind {
    INST_CONST, /* the scalar `number` (floats) or `integer` (ints, bool) */
    INST_INDEX, /* `index` as an i64 */
    INST_LOAD,  /* buffer[index + dynamic * dynamic_stride] */
    INST_MAP,   /* a pointwise row of ops.def on arg[0..2] */
    INST_REDUCE, /* REDUCE_SUM, _PROD, _MAX, _MIN of arg[0] (any level) over the row; the op's identity for an empty row */
    INST_STORE /* buffer[index + dynamic * dynamic_stride] = arg[0], where the predicate holds; level 0: once per point */
} instruction_kind;

struct instruction {
    instruction_kind kind;
    op op; /* MAP, REDUCE */
    dtype
        type; /* of the result, as in the Graph. Arithmetic on f16 and bf16 is done in f32 and rounded where the Graph's value is stored */
    int32_t level;      /* 0 outer, 1 inner */
    int32_t mode;       /* MAP: the op's mode */
    int32_t arg[3];     /* instruction numbers, -1: none */
    uint32_t buffer;    /* LOAD, STORE: kernel-local number */
    dim index;          /* LOAD, STORE: in elements; INDEX: the value */
    int32_t dynamic;    /* LOAD, STORE: instruction giving an integer d, or -1 */
    dim dynamic_stride; /* elements per step of d */
    dim dynamic_limit;  /* 0 <= d < limit must hold, else: */
    bool
        dynamic_zero; /*   true: a load gives 0, a store is dropped; false: the run fails with "index out of range" naming the node */
    dim dynamic_base; /*     with dynamic_whole (else DIM_NONE): the run fails still unless 0 <= d + base < whole */
    dim dynamic_whole;
    int32_t
        predicate;   /* LOAD, STORE: a bool instruction, or -1; a load gives 0 where it is false and touches nothing */
    double number;   /* CONST */
    int64_t integer; /* CONST */
    value node;      /* program node that it stands for (reports; not part of equality) */
};

struct kernel_buffer {
    dtype type;
    bool written;
};

struct kernel {
    uint32_t outer, inner;
    const dim *extent; /* outer + inner of them */
    uint32_t buffer_count;
    const struct kernel_buffer *buffer;
    uint32_t instruction_count;
    const struct instruction *instruction;
};

/* By content, stable over processes (hashes text of dims, not their numbers). Leaves nothing in `scratch`. */
uint64_t kernel_hash(const struct kernel *k, const struct dims *t, struct arena *scratch);
bool kernel_same(const struct kernel *a, const struct kernel *b);
/* Symbols that the kernel's expressions use (not coordinates), ascending: its run-time arguments. */
uint32_t kernel_symbols(const struct kernel *k, const struct dims *t, struct arena *arena, const uint32_t **symbols);
status kernel_verify(const struct kernel *k, const struct dims *t, struct diag *diag);
void kernel_print(const struct kernel *k, const struct dims *t, struct text *out);

#endif
