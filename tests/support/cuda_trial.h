/* tests/support/cuda_trial.h - Programs to be run on the model of CUDA against the reference interpreter: gathered first, compiled all at once, then
 * run at several sizes of their symbols b, s, p, n. CASE=TEXT keeps those whose names hold TEXT: the others are NULL.
 *
 * Section: cuda_trial.c
 */
#ifndef TPC_TESTS_SUPPORT_CUDA_TRIAL_H
#define TPC_TESTS_SUPPORT_CUDA_TRIAL_H

#include "tests/support/execute_cuda.h"

enum { TRIAL_SIZES = 8 };

/* A Program, and the values of its symbols to run it with. */
struct cuda_trial {
    const char *name;
    struct program *program;
    struct cuda_set *set;
    double tolerance[DT_COUNT]; /* relative to the largest element; 0: exact */
    bool wild;                  /* inputs with NaN, infinities, extreme integers */
    uint32_t sizes;
    int64_t size[TRIAL_SIZES][4]; /* of symbols b, s, p, n */
};

struct cuda_trials {
    struct cuda_trial *at;
    uint32_t count, capacity;
};

extern struct arena *trial_arena; /* made by trial_start */
extern struct cuda_trials *trials;
extern struct diag trial_diag; /* collects in trial_lines */
extern char trial_lines[4000];

void trial_start(void);
/* A Program as it is; a Graph, fused; a text; a text with $ for a type. */
struct cuda_trial *trial_program(const char *name, struct program *p);
struct cuda_trial *trial_graph(const char *name, struct graph *g);
struct cuda_trial *trial_text(const char *name, const char *text, size_t length);
struct cuda_trial *trial_typed(const char *name, const char *form, dtype t);
/* The last one again, with its Graph simplified. */
struct cuda_trial *trial_simplified(struct cuda_trial *t);
void trial_size(struct cuda_trial *t, int64_t b, int64_t s, int64_t p, int64_t n);
void trial_compile(void);
struct tensor *trial_inputs(const struct cuda_trial *t, const int64_t *size);
/* The fault cell; outputs are from malloc. */
int64_t trial_execute(const struct cuda_trial *t, const int64_t *of, uint32_t processors, const struct tensor *inputs,
                      struct tensor *outputs);
/* A test: runs all trials at all sizes; what differs fails it. */
void trial_programs(void **state);
/* The group's teardown: 0. */
int trial_end(void **state);

#endif
