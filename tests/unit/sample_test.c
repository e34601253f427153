/* tests/unit/sample_test.c - tokens from logits: greedy, the cuts of top-k and top-p, frequencies, reproducible draws, logits that are no numbers; Philox and the noise.
 * All draws have fixed seeds: what passes once passes always.
 */
#include "runtime/sample.h"

#include <math.h>
#include <setjmp.h>
#include <stdlib.h>

#include <cmocka.h>

enum { WORDS = 6, DRAWS = 12000 };

static struct tensor row(const float *at, int64_t count)
{
    return (struct tensor){
        .dtype = DT_F32, .rank = 1, .shape = {count}, .count = (size_t)count, .data = (void *)(uintptr_t)at};
}

static int64_t greedy(const float *at, int64_t count)
{
    struct sampling s = {0}, one = {.temperature = 3, .top_k = 1, .seed = 5};
    struct tensor t = row(at, count);
    int64_t token = sample_token(&s, &t, 0, (size_t)count, 0, 0);
    assert_int_equal(token, sample_token(&one, &t, 0, (size_t)count, 0, 0));
    return token;
}

static void the_likeliest(void **state)
{
    (void)state;
    assert_int_equal(greedy((const float[]){-3, 2, 2, -1}, 4), 1); /* the lower of equals */
    assert_int_equal(greedy((const float[]){-5}, 1), 0);
    assert_int_equal(greedy((const float[]){-INFINITY, -INFINITY, -9}, 3), 2);
    assert_int_equal(greedy((const float[]){-INFINITY, INFINITY, 9}, 3), 1);
    assert_int_equal(greedy((const float[]){-INFINITY, -INFINITY}, 2), -1);
    assert_int_equal(greedy((const float[]){1, NAN, 3}, 3), -1);
}

/* ---- numbers ----------------------------------------------------------------------------------------------------------------- */

/* Known answers of the authors' library (Random123, kat_vectors). */
static void philox(void **state)
{
    (void)state;
    static const struct {
        uint32_t counter[4], key[2], out[4];
    } known[] = {
        {{0, 0, 0, 0}, {0, 0}, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
        {{0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff},
         {0xffffffff, 0xffffffff},
         {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
        {{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
         {0xa4093822, 0x299f31d0},
         {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
    };
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        uint32_t out[4];
        sample_philox(known[i].counter, known[i].key, out);
        assert_memory_equal(out, known[i].out, sizeof out);
    }
}

/* It is the Gumbel distribution, by its bins of equal probability, and the numbers of neighbours have nothing to do with each other. */
static void noise(void **state)
{
    (void)state;
    enum { MANY = 24000, BINS = 50 };
    int count[BINS] = {0}, above = 0;
    double product[4] = {0}, mean = 0.5772156649015329, square = 0, chi = 0;
    for (uint64_t i = 0; i < MANY; i++) {
        double g = sample_noise(9, i % 3, i % 7, i);
        count[(int)(exp(-exp(-g)) * BINS)]++;
        above += g > 9;
        square += (g - mean) * (g - mean);
        product[0] += (g - mean) * (sample_noise(9, i % 3, i % 7, i + 1) - mean);
        product[1] += (g - mean) * (sample_noise(9, i % 3, i % 7 + 1, i) - mean);
        product[2] += (g - mean) * (sample_noise(9, i % 3 + 1, i % 7, i) - mean);
        product[3] += (g - mean) * (sample_noise(10, i % 3, i % 7, i) - mean);
    }
    for (int b = 0; b < BINS; b++)
        chi += (count[b] - (double)MANY / BINS) * (count[b] - (double)MANY / BINS) * BINS / MANY;
    assert_true(chi < 85.4);                                      /* 49 degrees of freedom: once in a thousand */
    assert_true(fabs(above - MANY * 1.234e-4) < 12);              /* 1 - exp(-exp(-9)) */
    assert_true(fabs(square / MANY - 1.6449340668482264) < 0.06); /* pi^2 / 6 */
    for (int i = 0; i < 4; i++)
        assert_true(fabs(product[i] / MANY) < 0.03);
}

/* ---- frequencies -------------------------------------------------------------------------------------------------------------- */

/* Draws and compares with the probabilities: each within five standard deviations, and together (chi-square, five degrees of freedom at most, once in ten
 * thousand). */
static void expect(const struct sampling *s, const float *logits, const double *probability)
{
    struct tensor t = row(logits, WORDS);
    int count[WORDS] = {0};
    double chi = 0;
    for (uint64_t i = 0; i < DRAWS; i++) {
        int64_t token = sample_token(s, &t, 0, WORDS, i % 7, i / 7);
        assert_in_range(token, 0, WORDS - 1);
        count[token]++;
    }
    for (int k = 0; k < WORDS; k++) {
        double p = probability[k], wanted = p * DRAWS, deviation = sqrt(DRAWS * p * (1 - p));
        if (fabs(count[k] - wanted) > 5 * deviation + (p > 0 ? 1 : 0))
            fail_msg("token %d came %d times, not %g", k, count[k], wanted);
        chi += wanted > 5 ? (count[k] - wanted) * (count[k] - wanted) / wanted : 0;
    }
    assert_true(chi < 25.7);
}

static const float logits[WORDS] = {1, 3, -2, 2.5F, 0, 2.9F};

/* The definition, in another way: walk down from the likeliest. */
static void define(const struct sampling *s, double *probability)
{
    double weight[WORDS], total = 0, kept = 0;
    bool in[WORDS] = {false};
    for (int k = 0; k < WORDS; k++)
        weight[k] = exp((double)logits[k] / s->temperature);
    int64_t most = s->top_k && s->top_k < WORDS ? s->top_k : WORDS;
    for (int pass = 0; pass < 2; pass++) { /* first which top_k keeps and their sum, then top_p among those */
        bool taken[WORDS] = {false};
        double sum = 0;
        for (int64_t n = 0; n < most && (pass == 0 || s->top_p == 0 || sum < s->top_p * total); n++) {
            int best = -1;
            for (int k = 0; k < WORDS; k++)
                if (!taken[k] && (best < 0 || weight[k] > weight[best]))
                    best = k;
            taken[best] = true;
            sum += weight[best];
        }
        total = pass == 0 ? sum : total;
        kept = sum;
        memcpy(in, taken, sizeof in);
    }
    for (int k = 0; k < WORDS; k++)
        probability[k] = in[k] ? weight[k] / kept : 0;
}

static void frequencies(void **state)
{
    (void)state;
    static const struct sampling all[] = {{1, 0, 0, 1},    {0.5, 0, 0, 2},  {3, 0, 1, 3},   {1, 3, 0, 4},
                                          {1, 1, 0, 5},    {1, 0, 0.7, 6},  {2, 5, 0.6, 7}, {1, 0, 1e-9, 8},
                                          {1, 99, 0.9, 9}, {0.01, 0, 0, 10}};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        double probability[WORDS];
        define(&all[i], probability);
        expect(&all[i], logits, probability);
    }
}

static void extremes(void **state)
{
    (void)state;
    static const float far[] = {-1e30F, 1e30F, -INFINITY, 5};
    struct tensor t = row(far, 4);
    struct sampling s = {1e-6, 0, 0, 1};
    for (uint64_t i = 0; i < 100; i++)
        assert_int_equal(sample_token(&s, &t, 0, 4, 0, i), 1);
    s.temperature = 1e-300;
    for (uint64_t i = 0; i < 100; i++)
        assert_int_equal(sample_token(&s, &t, 0, 4, 0, i), 1);
    s.temperature = 1e20; /* the second may come too, not -infinity */
    for (uint64_t i = 0; i < 1000; i++)
        assert_int_not_equal(sample_token(&s, &t, 0, 4, 0, i), 2);
}

/* ---- a long vocabulary -------------------------------------------------------------------------------------------------------- */

static int downwards(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x < y) - (x > y);
}

/* The least logit that comes, from the sorted ones. */
static double least_of(const struct sampling *s, const double *sorted, size_t count)
{
    size_t kept = s->top_k && (size_t)s->top_k < count ? (size_t)s->top_k : count, last = 0;
    while (kept < count && sorted[kept] == sorted[kept - 1])
        kept++;
    double total = 0, sum = 0;
    for (size_t i = 0; i < kept; i++)
        total += exp((sorted[i] - sorted[0]) / s->temperature);
    while (last < kept && (s->top_p == 0 || sum < s->top_p * total))
        sum += exp((sorted[last++] - sorted[0]) / s->temperature);
    return sorted[last - 1];
}

/* With many equal logits, in every type: the largest of logits and noise above the least, which are told from the vocabulary as it is sorted. */
static void long_rows(void **state)
{
    (void)state;
    enum { LONG = 5000 };
    static const dtype types[] = {DT_F32, DT_F64, DT_F16, DT_BF16};
    static const struct sampling all[] = {{1, 40, 0, 1},  {0.7, 2, 0, 1},   {1, 4999, 0, 1},
                                          {1, 0, 0.9, 1}, {2, 300, 0.5, 1}, {0.8, 0, 0, 1}};
    static double at[LONG], sorted[LONG];
    struct arena *arena = arena_new();
    for (size_t k = 0; k < 4 * sizeof all / sizeof *all; k++) {
        const struct sampling *s = &all[k / 4];
        struct tensor t;
        assert_true(tensor_new(arena, &t, types[k % 4], 1, (int64_t[]){LONG}));
        for (size_t i = 0; i < LONG; i++) {
            dtype_store_f64(t.dtype, t.data, i, (double)((i * 7919) % 601) / 50 - 8);
            at[i] = sorted[i] = dtype_load_f64(t.dtype, t.data, i);
        }
        qsort(sorted, LONG, sizeof *sorted, downwards);
        double least = least_of(s, sorted, LONG);
        for (uint64_t draw = 0; draw < 2; draw++) {
            double most = -(double)INFINITY;
            size_t token = 0;
            for (size_t i = 0; i < LONG; i++) {
                double y = at[i] * sample_factor(s) + sample_noise(s->seed, draw % 3, draw, i);
                token = at[i] >= least && y > most ? i : token;
                most = at[i] >= least && y > most ? y : most;
            }
            assert_int_equal(sample_token(s, &t, 0, LONG, draw % 3, draw), token);
        }
    }
    arena_free(arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_likeliest), cmocka_unit_test(philox),   cmocka_unit_test(noise),
        cmocka_unit_test(frequencies),   cmocka_unit_test(extremes), cmocka_unit_test(long_rows),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
