/* runtime/sample.h - one token from a row of logits: the definition of a draw, and the CPU's way to it.
 *
 * Greedy takes the largest, of equals the lowest id. A draw takes the largest of logit / temperature + noise, of equals the lowest id, where each token's noise is its own number
 * from the Gumbel distribution: so a token comes with its probability in softmax(logits / temperature) (Gumbel 1954; Maddison, Tarlow and Minka,
 * "A* Sampling", 2014), and where logits lie in parts the largest of the parts' largest is the draw. top_k and top_p leave out tokens below a logit: top_k all below
 * the top_k-th largest; top_p, of what top_k leaves, all below the largest logit from which on probabilities reach top_p together. Equals stay together.
 *
 * Noise is a function of (seed, row, step, token) alone: of 64 bits of Philox4x32-10 (Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1, 2,
 * 3", 2011) it is -ln(-ln(u)). Probabilities are added as integers. Logarithm, exponential and all else are written out in additions, multiplications and divisions of IEEE 754
 * doubles, so that whoever takes the same steps (codegen/draw_cuda.c) has the same bits, in whatever order and in however many parts.
 *
 * Section: sample.c
 */
#ifndef TPC_RUNTIME_SAMPLE_H
#define TPC_RUNTIME_SAMPLE_H

#include "ir/tensor.h"

struct sampling {
    double temperature; /* 0: greedy, and the others do not matter */
    int64_t top_k;      /* 0: all; 1: greedy */
    double top_p;       /* in (0, 1]; 0 is taken as 1 */
    uint64_t seed;
};

static inline bool sample_is_greedy(const struct sampling *s)
{
    return s->temperature == 0 || s->top_k == 1;
}
/* What logits are multiplied with. */
double sample_factor(const struct sampling *s);
/* The likeliest of so many tokens weighs 2 to its power: all together do not overflow 64 bits. */
int sample_scale(size_t count);

/* Philox4x32-10: four words for a counter of four and a key of two. */
void sample_philox(const uint32_t counter[4], const uint32_t key[2], uint32_t out[4]);
/* A token's noise in the `step`-th draw of a row. */
double sample_noise(uint64_t seed, uint64_t row, uint64_t step, uint64_t token);
/* Of logits[first .. first + count); count >= 1. -1: one of them is not a number, or all are -infinity. */
int64_t sample_token(const struct sampling *s, const struct tensor *logits, size_t first, size_t count, uint64_t row,
                     uint64_t step);

#endif
