/* tpc.h - the public header of libtpc: the only one that is installed.
 *
 * Invariant: includes nothing of tpc's own, compiles as C11 and as C++, and what it does not mark TPC_API is not exported.
 */
#ifndef TPC_H
#define TPC_H

#define TPC_VERSION_MAJOR 0
#define TPC_VERSION_MINOR 1
#define TPC_VERSION_PATCH 0
#define TPC_VERSION "0.1.0"

#if defined(__GNUC__)
#define TPC_API __attribute__((visibility("default")))
#else
#define TPC_API
#endif

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Running a plan from a program. Ownership: what tpc_open gives is released by tpc_close and by nothing else; names live as long
 * as it; the data of an output until the next tpc_run or tpc_close; what is bound is read during tpc_run and tpc_generate only and stays the
 * caller's. Threads: a model belongs to one thread at a time (it starts its own for the other ranks); different models are
 * independent. Nothing here prints or ends the process. Every function that can fail returns 0 or a code as `tpc` exits with, and then
 * tpc_error has one line. See examples/embed.c. */

typedef struct tpc_model tpc_model;

enum {
    TPC_RESULT_OK = 0,
    TPC_RESULT_USAGE = 64, /* a call that makes no sense: no such input, an output before any run */
    TPC_RESULT_DATA = 65,  /* a damaged plan, changed weights, a tensor that does not fit */
    TPC_RESULT_NO_FILE = 66,
    TPC_RESULT_UNSUPPORTED = 69,
    TPC_RESULT_INTERNAL = 70,
    TPC_RESULT_NO_MEMORY = 71,
    TPC_RESULT_IO = 74,
    TPC_RESULT_RANKS = 75 /* GPUs' communicators do not come together, or break */
};

typedef enum tpc_type {
    TPC_TYPE_BOOL = 1,
    TPC_TYPE_I8,
    TPC_TYPE_I16,
    TPC_TYPE_I32,
    TPC_TYPE_I64,
    TPC_TYPE_U8,
    TPC_TYPE_U16,
    TPC_TYPE_U32,
    TPC_TYPE_U64,
    TPC_TYPE_F16,
    TPC_TYPE_BF16,
    TPC_TYPE_F32,
    TPC_TYPE_F64,
    TPC_TYPE_F8E4M3FN, /* these only move and are converted; each takes a byte, integers with their sign */
    TPC_TYPE_F8E4M3FNUZ,
    TPC_TYPE_F8E5M2,
    TPC_TYPE_F8E5M2FNUZ,
    TPC_TYPE_F8E8M0,
    TPC_TYPE_F4E2M1,
    TPC_TYPE_U4,
    TPC_TYPE_I4,
    TPC_TYPE_U2,
    TPC_TYPE_I2
} tpc_type;

enum { TPC_MAX_RANK = 16 };

typedef struct tpc_tensor { /* dense, row-major */
    tpc_type type;
    uint32_t rank;
    int64_t shape[TPC_MAX_RANK]; /* of an input or output before a run: -1 where it is dynamic */
    void *data;                  /* aligned for its type */
} tpc_tensor;

TPC_API const char *tpc_version(void);
/* The last failure on this thread, as one line; "" when there was none. */
TPC_API const char *tpc_error(void);

/* Loads a plan and its weights; ranks are on CPUs. threads: per rank; 0 shares the cores out among the ranks. */
TPC_API int tpc_open(const char *plan, uint32_t threads, tpc_model **out);

typedef enum tpc_device { TPC_DEVICE_CPU, TPC_DEVICE_CUDA } tpc_device;

typedef struct tpc_options { /* all zero is tpc_open's */
    uint32_t threads;
    tpc_device device;
    const uint32_t *gpus; /* [gpu_count] TPC_DEVICE_CUDA: the GPU of each rank; NULL: rank i has GPU i */
    size_t gpu_count;
    bool host_collectives; /* through host memory, without NCCL: then ranks may share a GPU */
} tpc_options;

/* As tpc_open, where the options say. TPC_RESULT_UNSUPPORTED: no driver, no such GPU, a library is missing (docs/gpu.md). What is bound and what
 * outputs give is host memory all the same; states stay on the GPU. */
TPC_API int tpc_open_on(const char *plan, const tpc_options *options, tpc_model **out);
TPC_API void tpc_close(tpc_model *model); /* NULL is allowed */
TPC_API uint32_t tpc_ranks(const tpc_model *model);

TPC_API size_t tpc_input_count(const tpc_model *model);
TPC_API size_t tpc_output_count(const tpc_model *model);
TPC_API const char *tpc_input_name(const tpc_model *model, size_t input); /* NULL: no such input */
TPC_API const char *tpc_output_name(const tpc_model *model, size_t output);
/* Type and shape as the plan has them; data is NULL. */
TPC_API int tpc_input_type(const tpc_model *model, size_t input, tpc_tensor *out);
TPC_API int tpc_output_type(const tpc_model *model, size_t output, tpc_tensor *out);

/* What the next runs take as this input: whole, on every plan. Type and rank are checked here, extents by tpc_run. */
TPC_API int tpc_bind(tpc_model *model, size_t input, const tpc_tensor *tensor);
/* The input is one end of a state (a key-value cache): take what the last run left at the other end, where it is, without a copy. Until
 * tpc_bind for the same input. */
TPC_API int tpc_bind_state(tpc_model *model, size_t input);
/* Room for `entries` in states that grow and are written in place (docs/generation.md): fixed from the next run on, which fails where that is too little
 * (TPC_RESULT_USAGE); 0, at first: as much as is needed, doubled when it grows. A change forgets what tpc_bind_state keeps. */
TPC_API int tpc_context(tpc_model *model, int64_t entries);
/* Runs with what is bound. Every input must be. */
TPC_API int tpc_run(tpc_model *model);
/* Output of the last run, whole. */
TPC_API int tpc_output(tpc_model *model, size_t output, tpc_tensor *out);

/* ---- generation: `tpc run --generate` for a program; docs/generation.md says which models it takes and how inputs are filled ---- */

typedef struct tpc_generation {   /* all zero but prompts and counts is greedy */
    const int64_t *const *prompt; /* [rows] token ids of each row, */
    const size_t *prompt_length;  /* [rows] and how many: at least 1 */
    size_t rows;                  /* at least 1; rows of unequal length are padded inside */
    size_t count;                 /* tokens to write per row, at most */
    const int64_t *stop;          /* token ids that end a row; they are handed out too */
    size_t stop_count;
    double temperature; /* 0: the likeliest token, of equals the lowest id */
    int64_t top_k;      /* draw among so many, and equals of the last; 0: all, 1: the likeliest */
    double top_p;       /* draw among the fewest that reach this probability; 0 or 1: all */
    uint64_t seed;      /* a draw is a function of logits, seed, row and step (docs/generation.md, "Draws") */
    int64_t context;    /* as tpc_context, for this and what comes after */
    /* Called after each step on the caller's thread with one token per row, -1 for a row that had ended before. 0 ends all. It may not call into
     * the model. NULL is allowed. */
    bool (*step)(void *user, size_t rows, const int64_t *token);
    void *user;
} tpc_generation;

/* Everything in `what` is read during the call only. Bindings are left alone; what tpc_bind_state keeps is overwritten. */
TPC_API int tpc_generate(tpc_model *model, const tpc_generation *what);
/* How generation fills an input where that does not show: "tokens", "mask", "positions", "past_length", "total_length", or "given" (with what tpc_bind
 * has bound). */
TPC_API int tpc_bind_role(tpc_model *model, size_t input, const char *role);

#ifdef __cplusplus
}
#endif

#endif
