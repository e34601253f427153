/* codegen/cuda.h - a Program's steps as CUDA: sources, how they are compiled, and for given shapes what is launched.
 *
 * Three moments. cuda_new prints a translation unit for every function that the Program may need (no GPU, no library needed). cuda_compile has
 * them compiled by NVRTC for one architecture, through the private cache. cuda_step says, for the symbol values of a run, what a step is on
 * the GPU: launches of functions, products for the GEMM library, a copy, a collective, or nothing because another step does its work.
 *
 * Invariant: a set is read-only once it is compiled and serves all ranks and threads. Nothing here calls the driver: whoever runs steps
 * loads the images, owns memory and streams, and does as struct cuda_launch says. Generated text holds nothing of the model but numbers.
 *
 * What a runtime owes:
 *   - every buffer starts at a multiple of CUDA_ALIGN bytes (16-byte loads are proven from that);
 *   - the launches of a step, and the steps, take effect in order (one stream);
 *   - one workspace of at least the largest cuda_step.workspace serves all steps of a stream, since they follow each other;
 *   - one int64 fault cell per rank, 0 before the first step. See "faults".
 *   - a launch whose words are { BUFFER, NUMBER, FAULT } becomes uint64_t words[3] = { address, number, address of the cell } and
 *     cuLaunchKernelEx with that grid, block and shared_bytes, and parameters (void *[]){words}. It may overlap its predecessor in the stream
 *     (CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION), from compute capability 9.0 on: see prelude_cuda.c.
 *
 * Without a GPU the same text runs on the CPU: tests/support/cuda_model.h (what a fake driver's cuLaunchKernelEx calls, and a fake NVRTC
 * compiles with).
 *
 * Sections: cuda.c (the set), launch_cuda.c (shapes -> launches), join_cuda.c (several kernels in one launch), epilogue_cuda.c (biases
 * and sums within products), form_cuda.c, function_cuda.c, dialect_cuda.c, prelude_cuda.c (Kernel -> text),
 * dot_cuda.c, builtin_cuda.c, best_cuda.c, draw_cuda.c, fill_cuda.c (the other functions), nvrtc.c (text -> cubin), library.c (where CUDA's libraries are)
 */
#ifndef TPC_CODEGEN_CUDA_H
#define TPC_CODEGEN_CUDA_H

#include "codegen/codegen.h"

enum { CUDA_ALIGN = 256 };

/* ---- libraries: library.c ---- */

/* dlopen of the first that is there: for each name ("libnvrtc.so.13", newest first) in the folders of $TPC_CUDA_PATH (a list with ':'; when it is set,
 * nothing else is looked at), $CUDA_HOME, $CUDA_PATH (lib64, lib, targets/.../lib of these), the loader's own search, /usr/local/cuda, and the
 * wheels of a Python environment ($VIRTUAL_ENV and $CONDA_PREFIX: site-packages/nvidia/.../lib). `names` ends with NULL. path: where it was found. NULL: nowhere. */
void *cuda_library(struct arena *arena, const char *const *names, const char **path);

/* ---- the set ---- */

/* One `extern "C" __global__` entry in a translation unit of its own. All its parameters are one struct of 8-byte members, passed by value: so
 * kernelParams is { &words } with uint64_t words[launch.word_count]. */
struct cuda_function {
    const char *name;   /* of the entry: tpc_ and what it is, tpc_k_HASH for a Kernel */
    const char *source; /* no #include is needed; see docs/kernels.md */
    size_t length;
    value node;           /* some program node that it serves (reports) */
    uint32_t max_threads; /* per block, as in its launch bounds */
    /* after cuda_compile: */
    const void *image; /* the cubin: cuModuleLoadData, cuModuleGetFunction(name) */
    size_t image_bytes;
    uint32_t registers;    /* per thread */
    uint32_t shared_bytes; /* static, per block */
    uint32_t stack_bytes;  /* per thread, what mathematical functions take for large arguments included */
    uint32_t spill_bytes;  /* of registers, stored or loaded; 0 is what tests ask for */
};

struct cuda_options {
    const char *cache; /* as in codegen_options */
    uint32_t jobs;     /* compilations at once; 0: one per processor */
    uint32_t compute;  /* 80, 90, 100, ..: 10*major + minor of the device */
};

struct cuda_counts {
    uint32_t functions, compiled, cached;
    double seconds;    /* spent in cuda_compile */
    const char *nvrtc; /* "NVRTC 13.0", its path behind a space; NULL before */
};

struct cuda_set;

/* Prints. The set lives in `arena` and refers to p. */
status cuda_new(struct arena *arena, const struct program *p, struct diag *diag, struct cuda_set **out);
/* From now on steps that are one attention are taken together, and neighbouring kernels are one launch (docs/kernels.md). `p` is the set's Program: buffers that they read live longer, scores and
 * probabilities need no memory (`live` of neither has a meaning then), so it comes before program_place. Without this call every step stays on its own. */
void cuda_join_steps(struct cuda_set *set, struct program *p);
/* Compiles what the cache lacks. TPC_UNSUPPORTED: no NVRTC (it says where it looked), or one that does not know the architecture. TPC_INTERNAL: a
 * function does not compile; its log, name and origin are printed. */
status cuda_compile(struct cuda_set *set, const struct cuda_options *options, struct diag *diag);
uint32_t cuda_function_count(const struct cuda_set *set);
const struct cuda_function *cuda_function_at(const struct cuda_set *set, uint32_t function);
struct cuda_counts cuda_counts(const struct cuda_set *set);
/* Sources into DIR (made when missing), NAME.cu each. */
status cuda_emit(const struct program *p, const char *dir, struct diag *diag);

/* ---- steps ---- */

typedef enum cuda_word_kind {
    CUDA_BUFFER,    /* address of program buffer `buffer`, plus `number` bytes */
    CUDA_NUMBER,    /* `number` */
    CUDA_WORKSPACE, /* address of the workspace plus `number` bytes */
    CUDA_FAULT,     /* address of the fault cell */
    CUDA_ADDRESS    /* an address that whoever asked for the launch fills in (cuda_copy_rows, cuda_combine) */
} cuda_word_kind;

struct cuda_word {
    cuda_word_kind kind;
    uint32_t buffer;
    int64_t number;
};

struct cuda_launch {
    uint32_t function;
    uint32_t grid[3], block[3]; /* all > 0 */
    uint32_t shared_bytes; /* dynamic; above 48 KiB the runtime sets CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES */
    uint32_t word_count;
    const struct cuda_word *word;
};

/* out[m][n] (batch times) = sum over k of lhs[m][k] * rhs[n][k]. One of the two strides of each operand is 1 (or its extent is). All in elements. */
struct cuda_product {
    dtype type;         /* f16, bf16 (accumulated in f32), f32, f64 */
    uint32_t buffer[3]; /* of the Program: lhs, rhs, out */
    /* Rounded once, with these: what lies as out does in buffer `added`; the n elements of buffer `bias`, to every row (batch is 1, and not in f64). */
    bool adds, biased;
    uint32_t added, bias;
    int64_t batch, m, n, k;
    int64_t offset[3], batch_stride[3]; /* lhs, rhs, out */
    int64_t stride[3][2];               /* lhs: m, k; rhs: n, k; out: m, n */
};

typedef enum cuda_way {
    CUDA_NOTHING,   /* there is nothing to do for these shapes, or another step does it */
    CUDA_LAUNCH,    /* launches, in order */
    CUDA_PRODUCT,   /* products for the GEMM library, in any order */
    CUDA_COPY,      /* bytes from argument 0 to argument 1 */
    CUDA_COLLECTIVE /* the communicator's */
} cuda_way;

struct cuda_step {
    cuda_way way;
    uint32_t count;
    const struct cuda_launch *launch;   /* [count] */
    const struct cuda_product *product; /* [count] */
    uint64_t workspace;                 /* bytes */
};

/* What step number `step` is for the symbol values of a rank (of[symbol], as graph_bind_rank fills it). Everything is allocated in `arena`; may be called
 * from several threads with arenas of their own. `processors`: multiprocessors of the device (for the choice of grids; any number is right).
 * TPC_DATA: an extent overflows, or it does not fit a grid. Prints nothing. */
status cuda_step(const struct cuda_set *set, uint32_t step, const int64_t *of, uint32_t processors, struct arena *arena,
                 struct cuda_step *out);
/* The kernel steps that run in the place of this one, when they were joined or moved: their number. 0: it runs in its own. */
uint32_t cuda_steps_at(const struct cuda_set *set, uint32_t step, const uint32_t **steps);
/* A temporary that no launch touches, since fused functions keep it in registers: needs no memory. */
bool cuda_buffer_unused(const struct cuda_set *set, uint32_t buffer);

/* ---- faults ----
 *
 * A kernel that meets an index out of range lowers the fault cell to cuda_fault(step, instruction) where that is below what it holds or that is 0, and
 * goes on with a harmless value: so the earliest step's fault stays, whatever runs after. The runtime reads the cell when it waits anyway. */
static inline int64_t cuda_fault(uint32_t step, uint32_t instruction)
{
    return ((int64_t)step + 1) * (1 << 20) + (int64_t)instruction;
}
static inline uint32_t cuda_fault_step(int64_t fault)
{
    return (uint32_t)(fault / (1 << 20) - 1);
}
/* The program node whose index was out of range. */
value cuda_fault_node(const struct cuda_set *set, int64_t fault);

/* ---- helpers for collectives: functions of every set whose mesh has several ranks ---- */

/* rows times `bytes` bytes from one pitch to another (what an uneven all_gather along an inner axis packs and unpacks): word[0] is the address of `to`, word[1]
 * of `from`, to be filled in. rows == 0 or bytes == 0: false, nothing to launch. */
bool cuda_copy_rows(const struct cuda_set *set, int64_t rows, int64_t bytes, int64_t to_pitch, int64_t from_pitch,
                    struct arena *arena, struct cuda_launch *out);
/* to[i] = part 0 [i] (reduction) part 1 [i] ...: parts lie `pitch` elements apart; for types and reductions that the communicator lacks. word[0]: to, word[1]:
 * parts; they may be the same. false: nothing to launch. `reduction`: REDUCTION_* of ir/op.h */
bool cuda_combine(const struct cuda_set *set, dtype type, int32_t reduction, int64_t parts, int64_t elements,
                  int64_t pitch, struct arena *arena, struct cuda_launch *out);

/* ---- the largest of lines: a function of every set whose Program has an output that may be logits ---- */

/* Lines of a dense tensor, its last axis: numbers first, first + step, ... */
struct cuda_lines {
    int64_t count, first, step, extent;
    int64_t base; /* added to where the largest is: of a line that is cut, the place of this part */
    uint64_t
        next; /* 0, or an address on the device: where the largest are, as `count` integers of next_bytes (4 or 8) bytes */
    int64_t next_bytes;
    int64_t row; /* of draws: the first line's number */
};
/* Per line two words: the order of its largest element, as cuda_best_value reads it, and where it is (the first of equals). word[0]: from, word[1]: to.
 * false: there is nothing to launch, or no such function. */
bool cuda_best(const struct cuda_set *set, dtype type, const struct cuda_lines *lines, struct arena *arena,
               struct cuda_launch *out);
/* Of words that lie so for `parts` parts and, in each, lines->count lines: the line's, and lines->next. word[0]: from, word[1]: to. */
bool cuda_merge(const struct cuda_set *set, const struct cuda_lines *lines, int64_t parts, struct arena *arena,
                struct cuda_launch *out);
/* Orders compare as the numbers do, but that NaN is above them all. */
double cuda_best_value(uint64_t order, dtype type);

/* ---- draws from lines (runtime/sample.h): functions of the same sets ---- */

enum { CUDA_DRAW_ROUNDS = 12, CUDA_DRAW_EACH = 4096 }; /* rounds, at most; elements of a line that a block looks at */

struct cuda_draw {
    double factor, share; /* of logits; top_p, or 0 */
    int64_t top_k;        /* 0: all */
    int scale;            /* the likeliest weighs 2 to its power */
    uint64_t seed, step;
    int64_t rows;   /* of all launches together */
    int64_t extent; /* of a whole line */
    int64_t blocks; /* per line, of each part of it: for the longest part */
};

/* A round of a cut: elements by `digit` bits of their order below bit `shift`. */
struct cuda_round {
    int shift, digit;
    bool weighs;      /* top_p */
    bool first, last; /* of its cut */
    uint64_t bins,
        words; /* where the sums are, and how many: to be added up over all parts of the lines, before the next launch */
    int64_t state;
};

/* Memory of a draw, in words of 8 bytes. At 0 are the largest of each row as cuda_best gives them, over all parts, where a round weighs. */
struct cuda_draw_plan {
    uint32_t rounds;
    struct cuda_round round[CUDA_DRAW_ROUNDS];
    uint64_t own, own_words; /* what comes of it: for each block and row what cuda_merge takes; orders are a f64's */
    uint64_t cleared, words; /* 0 before the first launch; in all */
};
void cuda_draw_plan(dtype type, const struct cuda_draw *d, struct cuda_draw_plan *out);
/* In this order, for all lines each. word[0]: the memory. */
bool cuda_draw_clear(const struct cuda_set *set, const struct cuda_draw_plan *p, struct arena *arena,
                     struct cuda_launch *out);
/* word[0]: from, word[1]: the memory. false: there is nothing to launch (the part is empty), or no such function. */
bool cuda_draw_tally(const struct cuda_set *set, dtype type, const struct cuda_lines *lines, const struct cuda_draw *d,
                     const struct cuda_draw_plan *p, uint32_t round, struct arena *arena, struct cuda_launch *out);
bool cuda_draw_tokens(const struct cuda_set *set, dtype type, const struct cuda_lines *lines, const struct cuda_draw *d,
                      const struct cuda_draw_plan *p, struct arena *arena, struct cuda_launch *out);

#endif
