/* runtime/sample.c - one token from a row of logits. Start with sample_token. */
#include "runtime/sample.h"

#include <math.h>

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

/* Likelier, or of equals the lower. */
static bool comes_first(const struct candidate *a, const struct candidate *b)
{
    return a->weight != b->weight ? a->weight > b->weight : a->token < b->token;
}

/* In a heap whose first comes first, but for the one at `i`. */
static void sink(struct candidate *c, size_t count, size_t i)
{
    for (;;) {
        size_t first = i;
        for (size_t child = 2 * i + 1; child <= 2 * i + 2 && child < count; child++)
            first = comes_first(&c[child], &c[first]) ? child : first;
        if (first == i)
            return;
        struct candidate moved = c[i];
        c[i] = c[first];
        c[first] = moved;
        i = first;
    }
}

/* Of *count candidates with logits the first ones in order, at most `most`, until they weigh `enough` together: where they are, with their weights, and in *count
 * how many. A vocabulary is long and those are few: it is not sorted. */
static struct candidate *take_first(struct candidate *c, size_t *count, size_t most, double enough, double top,
                                    double temperature)
{
    size_t left = *count, taken = 0;
    double sum = 0;
    for (size_t i = left / 2; i-- > 0;)
        sink(c, left, i);
    for (; left > 0 && taken < most && sum < enough; taken++) {
        struct candidate next = c[0];
        c[0] = c[--left];
        sink(c, left, 0);
        next.weight = exp((next.weight - top) / temperature);
        sum += next.weight;
        c[left] = next;
    }
    for (size_t i = 0; i < taken / 2; i++) {
        struct candidate moved = c[left + i];
        c[left + i] = c[left + taken - 1 - i];
        c[left + taken - 1 - i] = moved;
    }
    *count = taken;
    return c + left;
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
    bool some = s->top_k > 0 && (uint64_t)s->top_k < count;
    bool nuclear = s->top_p > 0 && s->top_p < 1;
    double total = 0;
    if (some) {
        c = take_first(c, &count, (size_t)s->top_k, (double)INFINITY, most, s->temperature);
        return draw(c, nuclear ? nucleus(c, count, s->top_p) : count, uniform);
    }
    for (size_t i = 0; i < count && nuclear; i++)
        total += exp((c[i].weight - most) / s->temperature);
    if (nuclear)
        c = take_first(c, &count, count, s->top_p * total, most, s->temperature);
    for (size_t i = 0; i < count && !nuclear; i++)
        c[i].weight = exp((c[i].weight - most) / s->temperature);
    return draw(c, count, uniform);
}
