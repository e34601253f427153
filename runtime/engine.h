/* runtime/engine.h - a Program that is loaded and ready: its ranks, their weights and memory; runs on any input shapes.
 *
 * Invariant: an engine belongs to one thread at a time. Between runs no rank works. After a run that failed an engine may be run again, but kept
 * states are gone. Where ranks are processes, all of them call engine_run and engine_output alike and in the same order; a failed run is the end, and the
 * rank that has not failed itself gets TPC_RANKS without a diagnostic (processes_leave says why).
 *
 * Sections: engine.c (open, run), engine_next.c (symbols, addresses, the run that comes next), engine_output.c (outputs, statistics), engine_best.c (the largest of an output's lines), engine_load.c (weights), engine_state.c (states in place), engine_shape.c (everything that follows from the inputs' shapes), executor.c (a rank's
 * steps)
 */
#ifndef TPC_RUNTIME_ENGINE_H
#define TPC_RUNTIME_ENGINE_H

#include "ir/tensor.h"
#include "runtime/plan.h"

struct processes; /* runtime/processes.h */
struct sampling;  /* runtime/sample.h */

typedef enum engine_kind { ENGINE_CPU, ENGINE_CUDA } engine_kind;

struct engine_options {
    engine_kind kind;
    const uint32_t *
        gpus; /* ENGINE_CUDA: the GPU of each rank of this process; NULL: rank i has GPU i (a process: its local rank's) */
    uint32_t local_rank;
    bool
        host_collectives; /* ENGINE_CUDA: through host memory, without NCCL: ranks may share a GPU, sums have the CPU's bits */
    double timeout; /* ENGINE_CUDA: seconds that NCCL may take to come together; 0: 120 */
    uint64_t
        activations; /* bytes that the plan expects of intermediate values: memory is checked for them before loading */
    uint32_t threads; /* per rank; 0: cores / ranks of this host, at least 1 */
    bool profile;     /* time every step; GPUs are waited for after each */
    struct processes
        *processes; /* this process is one rank; NULL: it is all of them, as threads. Must outlive the engine */
};

struct engine_rank_stats {
    uint64_t weight_mapped, weight_copied,
        kept;                /* bytes: read where they lie in the file; copied out; computed at load */
    uint64_t loading;        /* temporaries while loading, given back then */
    uint64_t arena, outputs; /* bytes held for temporaries and outputs of runs so far */
    uint64_t states;         /* bytes held for states that are written in place */
    uint64_t state_moved;    /* bytes of all runs, copied because a state's memory grew; */
    uint64_t state_given;    /* taken from given pasts; */
    uint64_t state_taken;    /* from another engine's rank (engine_take) */
};

struct engine_stats {
    uint32_t ranks, threads, kernels, compiled; /* compiled: kernels that were not in the cache */
    bool interpreted;                           /* there was no compiler for the kernels */
    double load_seconds, kernel_compile_seconds;
    /* ENGINE_CUDA, of rank 0 since open */
    uint64_t launches, products, graphs, graph_launches;
    uint64_t graph_updates, graph_nodes; /* graphs set for a run with other arguments; nodes that differed, in all */
    uint64_t graph_kernels;              /* of ours, in all graphs that were launched */
    uint64_t early,
        dropped; /* runs that began before the last one's results were looked at; such ones that were not wanted */
    uint64_t graph_overlaps; /* edges of graphs made over which a kernel may start early */
    uint64_t graph_others;   /* products, copies, collectives in them */
    uint64_t uploaded;       /* bytes of weights of all ranks of this process */
    double upload_seconds;
    const struct engine_rank_stats *rank;
    /* of all runs since open, as rank 0 saw them; most seconds only with options.profile */
    uint64_t runs, collectives, collective_bytes, shape_plans;
    double kernel_seconds, dot_seconds, builtin_seconds, collective_seconds, shape_seconds, run_seconds;
};

struct engine;

/* The program, links and their arena must outlive the engine. `folder`: that weight files' paths start from. Diagnostics name the rank. `options` may be
 * NULL. */
status engine_open(const struct program *program, const struct links *links, const char *folder,
                   const struct engine_options *options, struct diag *diag, struct engine **out);
void engine_close(struct engine *e); /* NULL is allowed */

/* inputs[i] belongs to graph->inputs.at[i] and is whole; its data is read during the call only. Where keep[i] (keep may be NULL) the input is the one
 * end of a state whose other end the last run computed: it is taken from there, without a copy, and inputs[i] is ignored.
 * TPC_DATA when shapes do not fit the model. */
status engine_run(struct engine *e, const struct tensor *inputs, const bool *keep, struct diag *diag);

/* Before a run: input `input`, a state's past that is written in place, is what `from`'s last run left as `output`. Each rank takes its own part, where it lies: nothing
 * passes between ranks, and inputs[input] of that run says type and shape alone. false: the two do not lie alike, and nothing is noted. `from` does nothing meanwhile. */
bool engine_take(struct engine *e, uint32_t input, struct engine *from, uint32_t output);

/* What differs from run to run of what engine_want_best asks for. */
struct engine_lines {
    uint64_t step; /* of draws */
    const int64_t *
        place; /* [rows] which of an entry's lines; NULL: the last of each. engine_best knows of none where one is not there */
};

/* Before a run: what the one behind it will be given, as engine_run is given it; of inputs[i] only type and shape are looked at (those of kept ones follow
 * from the run). A device that computes by itself makes ready for it meanwhile. If something else comes, that is only slower.
 * begin: all elements are known but those of the input that engine_want_best names, so it may begin while the host has not yet looked at what this run found.
 * Outputs of this run that are no states cannot be had then. lines: of it, as engine_want_best. */
void engine_expect(struct engine *e, const struct tensor *inputs, const bool *keep, bool begin,
                   const struct engine_lines *lines);

/* Room of states that are written in place and grow: `entries` from the next run on, which then fails (TPC_USAGE) where that is too little; 0 (at first):
 * as much as is needed, doubled when it grows. A change makes the engine forget what can be kept. */
void engine_context(struct engine *e, int64_t entries);

/* Output `index` of the last run, whole. Its data lives in the engine until the next run (an output that is cut is put together first). */
status engine_output(struct engine *e, uint32_t index, struct diag *diag, struct tensor *out);
/* Its type and shape alone. false: there was no run. */
bool engine_output_shape(const struct engine *e, uint32_t index, struct tensor *out);

/* From the next run on, beside the outputs: the largest element of a line (along the last axis) of each of the first `rows` entries along the first axis of an output; or (draw:
 * neither NULL nor greedy) what sample_token gives for that line, the entry as row, and lines->step. Where they are is also what the next run gets in `input` if it may begin early
 * (UINT32_MAX: nothing is known of that). rows 0: of none, as at first. For devices that do not read host memory; where ranks have parts of the lines the output itself
 * may then not be there. lines: of the next run; NULL is all zero. */
void engine_want_best(struct engine *e, uint32_t output, int64_t rows, uint32_t input, const struct sampling *draw,
                      const struct engine_lines *lines);
/* Where in its line the last run's largest of that row, or its draw, is; of equals the first; -1: there is NaN, or all are -infinity. false: it is not known, so that
 * engine_output has to be looked at. */
bool engine_best(const struct engine *e, int64_t row, int64_t *place);

/* This process has rank 0, which shows and writes results. */
bool engine_leads(const struct engine *e);

const struct engine_stats *engine_stats(const struct engine *e);
/* What the collective of a step exchanged on rank 0 in the last run, as collective_bytes counts it; 0 for other steps. */
uint64_t engine_step_bytes(const struct engine *e, uint32_t step);
/* Times and memory as text; with options.profile also the steps that took longest on rank 0, one line each. */
void engine_profile(const struct engine *e, uint32_t lines, struct text *out);

#endif
