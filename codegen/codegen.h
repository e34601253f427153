/* codegen/codegen.h - from kernels to something that runs.
 *
 * A kernel's work is cut into units [0, kernel_units): any partition of that range, in any order and by any number of threads, gives the
 * same bits. A kernel set belongs to nobody's thread: kernel_call may be used by several at once.
 *
 * Sections: print_kernel.c (a kernel as source text through a dialect), dialect_c.c, prelude_c.c (host C), compile_c.c (cc, cache, dlopen),
 * kernel_interpret.c (without a compiler), kernel_set.c
 */
#ifndef TPC_CODEGEN_CODEGEN_H
#define TPC_CODEGEN_CODEGEN_H

#include "ir/program.h"

/* ---- sets of kernels: kernel_set.c ---------------------------------------------------------------------------- */

struct kernel_set;

struct kernel_options {
    bool interpret;      /* do not look for a compiler */
    const char *compiler; /* NULL: $CC, else cc */
    const char *cache;   /* NULL: $XDG_CACHE_HOME/tpc, else ~/.cache/tpc */
};

struct kernel_set_info {
    bool compiled;           /* else interpreted */
    bool from_cache;         /* nothing had to be compiled */
    uint32_t count;
    char compiler[256];      /* its identity, "" when interpreted */
    char path[4096];         /* of the shared object */
};

/* Makes p's kernels callable: from the cache, by the compiler, or (saying so once per process, as a note) by interpretation. A kernel that does not compile is
 * our bug: TPC_INTERNAL with the compiler's first lines. `options` may be NULL. The set is released with the arena. p must outlive it. */
status kernels_load(const struct program *p, const struct kernel_options *options, struct arena *arena, struct diag *diag, struct kernel_set **out);
const struct kernel_set_info *kernels_info(const struct kernel_set *set);

/* The symbols that a kernel takes: values of these go, in this order, into `symbols` of kernel_call. */
uint32_t kernel_call_symbols(const struct kernel_set *set, uint32_t kernel, const uint32_t **symbols);
/* Units of work for these symbol values, 0 when there is nothing to do; < 0 on overflow. Each unit is worth about *weight elementary operations. */
int64_t kernel_units(const struct kernel_set *set, uint32_t kernel, const int64_t *symbols, int64_t *weight);

enum { KERNEL_NO_MEMORY = -1 };
/* Runs units [begin, end). buffers[i]: start of argument i. *fault is left alone, or set: 1 + number of the instruction whose dynamic index was out of
 * range, or KERNEL_NO_MEMORY. Several threads may share one *fault. */
void kernel_call(const struct kernel_set *set, uint32_t kernel, void *const *buffers, const int64_t *symbols, int64_t begin, int64_t end, int64_t *fault);

/* ---- source text: print_kernel.c ------------------------------------------------------------------------------ */

/* The source of all kernels, as it is compiled, one text per translation unit; for --emit. */
void kernels_source(const struct program *p, struct arena *arena, uint32_t *count, struct text **units);

#endif
