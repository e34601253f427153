/* codegen/codegen.h - kernels of a Program as code that a processor runs: printed as C, compiled by the system's compiler into a private cache,
 * loaded; or interpreted where there is no compiler.
 *
 * Invariant: a kernel set is read-only once it is loaded and serves all ranks and all threads of the process at once. Whatever way a
 * kernel is executed, it is called the same. Generated text holds nothing of the model but numbers.
 *
 * Sections: kernels.c (the set), nest.c (loops, sweeps, what is kept of a row), print_kernel.c (Kernel -> text), dialect_c.c, function_c.c
 * and prelude_c.c (how C spells it), compile_c.c and cache.c (text -> shared object), kernel_interpret.c and interpret_map.c
 */
#ifndef TPC_CODEGEN_CODEGEN_H
#define TPC_CODEGEN_CODEGEN_H

#include "ir/program.h"

/* A kernel over the part [begin, end) of its parallel extent (kernel_extent).
 *   buffers  one pointer per kernel buffer, at its first element. A written buffer overlaps no other one of the call
 *   symbols  values of the symbols that kernel_symbols gives, in that order
 *   fault    is lowered to 1 + the number of the instruction whose index was out of range (the lowest one wins over a higher one; 0 is none), or set
 *            to KERNEL_NO_MEMORY. Concurrent calls may share it */
typedef void kernel_function(void *const *buffers, const int64_t *symbols, int64_t begin, int64_t end, int64_t *fault);
#define KERNEL_NO_MEMORY INT64_MAX

struct codegen_options {
    const char *cache;    /* directory, made when missing; NULL: $XDG_CACHE_HOME/tpc, else $HOME/.cache/tpc */
    const char *compiler; /* a command; NULL: $CC, else the first of cc, gcc and clang in $PATH */
    bool no_compiler;     /* interpret, without a word */
    uint32_t jobs;        /* compilers at work at once; 0: one per processor */
};

struct kernel_counts {
    uint32_t compiled, cached, interpreted; /* kernels */
    uint32_t compilers;                     /* times that a compiler was started */
    double seconds;                         /* spent in kernels_load */
    const char *compiler;                   /* its path; NULL: none */
    const char *cache;                      /* directory in use; NULL: none */
};

struct kernel_set;

/* The compiler that kernels_load would take, by its path; NULL: there is none. It is tried: *why says what is wrong with it, NULL nothing. */
const char *kernels_compiler(struct arena *arena, const char **why);

/* Code for every kernel of p. `options` may be NULL. The set lives in `arena`, whose end unloads the code, and refers to p. A kernel that does not
 * compile is TPC_INTERNAL, with its hash and the compiler's first lines; a compiler that compiles nothing TPC_UNSUPPORTED; no room TPC_IO; no compiler is one warning
 * per process. */
status kernels_load(struct arena *arena, const struct program *p, const struct codegen_options *options,
                    struct diag *diag, struct kernel_set **out);
struct kernel_counts kernels_counts(const struct kernel_set *set);

/* What [begin, end) counts, for the symbol values of a rank (of[symbol], as graph_bind_rank fills it): points, rows or elements, whatever the kernel
 * can be cut into. 0: there is nothing to do; -1: it overflows. */
int64_t kernel_extent(const struct kernel_set *set, uint32_t kernel, const int64_t *of);
/* About how many scalar operations the whole kernel takes: what a runtime needs to know to decide on the number of threads (some 1e9 per second
 * and core when memory bound, up to 1e10 otherwise). Saturates. */
int64_t kernel_work(const struct kernel_set *set, uint32_t kernel, const int64_t *of);
/* Runs [begin, end) of it. `fault` as above; the program node behind a fault is kernel_fault_node. */
void kernel_run(const struct kernel_set *set, uint32_t kernel, void *const *buffers, const int64_t *of, int64_t begin,
                int64_t end, int64_t *fault);
value kernel_fault_node(const struct kernel_set *set, uint32_t kernel, int64_t fault); /* 0 when it is not known */

/* The printed source of every kernel of p into DIR (made when missing), a file for each: tpc_k_HASH.c. */
status kernels_emit(const struct program *p, const char *dir, struct diag *diag);

#endif
