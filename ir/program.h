/* ir/program.h - a scheduled Program: the per-rank Graph, and the steps, kernels and buffers that execute it.
 *
 * Invariant: steps run in order on every rank; all ranks run the same steps (what differs is the value of partition symbols and which weights
 * they hold), so collectives match by construction. A buffer is written before it is read. Steps of PHASE_LOAD depend on params
 * and constants alone: they run once.
 *
 * Sections: program.c (verify), program_place.c, program_bounds.c, program_text.c (exact text form, also the plan file's program section)
 */
#ifndef TPC_IR_PROGRAM_H
#define TPC_IR_PROGRAM_H

#include "ir/kernel.h"

typedef enum buffer_kind {
    BUFFER_TEMP,   /* in the arena; live from its first to its last step */
    BUFFER_KEPT,   /* computed at load, kept */
    BUFFER_INPUT,  /* index: graph->inputs */
    BUFFER_OUTPUT, /* index: graph->outputs; this rank's part when the output stays cut (states) */
    BUFFER_WEIGHT, /* index: graph->shards when `sharded`, else graph->params; mapped, or copied when its slices are not contiguous */
    BUFFER_CONSTANT, /* node: the constant */
    BUFFER_STATE     /* index: graph->states; holds the past before a run and the present behind it: see below */
} buffer_kind;

/* The memory of a state that is written in place: row-major, shaped as past and present but with a capacity (symbol k:N) along the state's axis,
 * which the runtime binds to at least both extents. Entries [0, past) hold the past; the steps write what is new, up to the present's extent. The
 * state's input and output have no other buffer. */
struct buffer {
    buffer_kind kind;
    dtype type;
    dim elements; /* of this rank */
    uint32_t index;
    bool sharded;         /* BUFFER_WEIGHT: index is a shard's */
    uint32_t capacity;    /* BUFFER_STATE: number of its capacity */
    value node;           /* the program node it holds, 0 for scratch */
    uint32_t first, last; /* steps; set by schedule */
};

typedef enum step_kind {
    STEP_KERNEL,     /* kernel over args */
    STEP_DOT,        /* GEMM with strides, see struct dot */
    STEP_COLLECTIVE, /* node: the collective; args: in, out (may be the same buffer where that is legal: all_reduce) */
    STEP_BUILTIN,    /* node: a cumsum, topk or scatter; args: operands as dense row-major buffers, then the result */
    STEP_COPY        /* args: in, out: same size (aliases that could not be avoided) */
} step_kind;
enum step_phase { PHASE_LOAD, PHASE_RUN };

/* out[b.., m.., n..] = sum over k.. of lhs[b.., m.., k..] * rhs[b.., n.., k..]; every operand is a strided view of its buffer.
 * Axes: batch axes first, then m, n, k. Strides are in elements; 0 where the operand lacks the axis. A runtime merges what it can and
 * gives the rest to a library GEMM. f16 and bf16 accumulate in f32. */
struct dot {
    uint32_t batch, m, n, k; /* numbers of axes; total <= MAX_RANK */
    const dim *extent;       /* batch + m + n + k */
    dim offset[3];           /* lhs, rhs, out: elements from the buffer's start */
    const dim *stride[3];
};

struct step {
    step_kind kind;
    enum step_phase phase;
    value node; /* program node that it realises (the last of a fused kernel): names the step in errors and profiles */
    uint32_t kernel;       /* STEP_KERNEL: program->kernels */
    const struct dot *dot; /* STEP_DOT */
    uint32_t arg_count;
    const uint32_t *arg; /* buffers, in the kernel's order; dot: lhs, rhs, out */
};

struct program {
    struct graph *graph; /* mesh.ranks >= 1 */
    LIST(struct kernel) kernels;
    LIST(struct buffer) buffers;
    LIST(struct step) steps;
};

/* Offsets of all BUFFER_TEMP in one arena for given symbol values (first fit by size over live ranges, 64-byte aligned, deterministic).
 * offset[b] in bytes; UINT64_MAX for other kinds and for what no step uses. false: overflow. */
bool program_place(const struct program *p, const int64_t *of, struct arena *scratch, uint64_t *offset,
                   uint64_t *arena_bytes);
/* The same at multiples of `align`, a power of 2. */
bool program_place_aligned(const struct program *p, const int64_t *of, uint64_t align, struct arena *scratch,
                           uint64_t *offset, uint64_t *arena_bytes);
/* Does the step stay inside its buffers for these symbol values? Asked before a Program that came from a file runs; exact but for accesses under predicates
 * that compare more than one coordinate, which are let pass. */
bool program_step_fits(const struct program *p, uint32_t step, const int64_t *of);
bool buffer_bytes(const struct program *p, uint32_t buffer, const int64_t *of, uint64_t *bytes);
status program_verify(const struct program *p, struct diag *diag);
void program_print(const struct program *p, struct text *out);
status program_parse(struct arena *arena, const char *name, const char *text, size_t length, struct diag *diag,
                     struct program **out);

#endif
