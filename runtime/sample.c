/* runtime/sample.c - one token from a row of logits. Start with sample_token. */
#include "runtime/sample.h"

#include <math.h>
#include <stdlib.h>

/* A bijection of 64 bits with full avalanche (the finaliser of splitmix64, Steele, Lea and Flood 2014). */
static uint64_t mix(uint64_t x)
{
    x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
    return x ^ (x >> 31);
}

double sample_uniform(uint64_t seed, uint64_t row, uint64_t step)
{
    const uint64_t golden = UINT64_C(0x9e3779b97f4a7c15);
    uint64_t x = mix(mix(mix(seed + golden) + row + golden) + step + golden);
    return (double)(x >> 11) * 0x1p-53;
}

struct candidate {
    double weight; /* a logit, then a probability up to a factor */
    int64_t token;
};

static int by_weight(const void *a, const void *b)
{
    const struct candidate *x = a, *y = b;
    if (x->weight != y->weight)
        return x->weight < y->weight ? 1 : -1;
    return (x->token > y->token) - (x->token < y->token);
}

/* How many of the sorted candidates reach `share` of their sum together. */
static size_t nucleus(const struct candidate *c, size_t count, double share)
{
    double total = 0, sum = 0;
    for (size_t i = 0; i < count; i++)
        total += c[i].weight;
    for (size_t i = 0; i < count; i++)
        if ((sum += c[i].weight) >= share * total)
            return i + 1;
    return count;
}

static int64_t draw(const struct candidate *c, size_t count, double uniform)
{
    double total = 0, sum = 0;
    for (size_t i = 0; i < count; i++)
        total += c[i].weight;
    for (size_t i = 0; i < count; i++)
        if ((sum += c[i].weight) > uniform * total)
            return c[i].token;
    return c[0].token; /* rounding has left nothing: the likeliest */
}

int64_t sample_token(const struct sampling *s, const struct tensor *logits, size_t first, size_t count, double uniform,
                     struct arena *scratch)
{
    int64_t best = -1;
    double most = -(double)INFINITY;
    for (size_t i = 0; i < count; i++) {
        double x = dtype_load_f64(logits->dtype, logits->data, first + i);
        if (isnan(x))
            return -1;
        if (x > most) {
            most = x;
            best = (int64_t)i;
        }
    }
    if (best < 0 || s->temperature == 0 || isinf(most)) /* an infinite logit leaves no choice */
        return best;
    struct candidate *c = NEW_ARRAY(scratch, struct candidate, count);
    for (size_t i = 0; i < count; i++)
        c[i] = (struct candidate){dtype_load_f64(logits->dtype, logits->data, first + i), (int64_t)i};
    bool narrow = (s->top_k > 0 && (uint64_t)s->top_k < count) || (s->top_p > 0 && s->top_p < 1);
    if (narrow)
        qsort(c, count, sizeof *c, by_weight);
    if (s->top_k > 0 && (uint64_t)s->top_k < count)
        count = (size_t)s->top_k;
    for (size_t i = 0; i < count; i++)
        c[i].weight = exp((c[i].weight - most) / s->temperature);
    if (s->top_p > 0 && s->top_p < 1)
        count = nucleus(c, count, s->top_p);
    return draw(c, count, uniform);
}
