/* runtime/sample.h - one token from a row of logits.
 *
 * Greedy takes the largest, of equals the lowest id. Otherwise: logits / temperature, the top_k largest (of equals the lower ids), of those the
 * fewest most likely ones whose probabilities reach top_p together (at least one), and one of them in proportion.
 *
 * Section: sample.c
 */
#ifndef TPC_RUNTIME_SAMPLE_H
#define TPC_RUNTIME_SAMPLE_H

#include "ir/tensor.h"

struct sampling {
    double temperature; /* 0: greedy, and the others do not matter */
    int64_t top_k;      /* 0: all */
    double top_p;       /* in (0, 1]; 0 is taken as 1 */
    uint64_t seed;
};

/* Uniform in [0, 1): the `step`-th draw of a row. The same three numbers give the same draw everywhere. */
double sample_uniform(uint64_t seed, uint64_t row, uint64_t step);
/* Of logits[first .. first + count); count >= 1. -1: one of them is not a number, or all are -infinity. */
int64_t sample_token(const struct sampling *s, const struct tensor *logits, size_t first, size_t count, double uniform,
                     struct arena *scratch);

#endif
