/* tests/unit/sample_test.c - tokens from logits: greedy, the cuts of top-k and top-p, frequencies, reproducible draws, logits that are no numbers. */
#include "runtime/sample.h"

#include <math.h>
#include <setjmp.h>
#include <stdlib.h>

#include <cmocka.h>

enum { WORDS = 6, DRAWS = 30000 };

static struct tensor row(const float *at, int64_t count)
{
    return (struct tensor){
        .dtype = DT_F32, .rank = 1, .shape = {count}, .count = (size_t)count, .data = (void *)(uintptr_t)at};
}

static int64_t greedy(const float *at, int64_t count)
{
    struct sampling s = {0};
    struct tensor t = row(at, count);
    return sample_token(&s, &t, 0, (size_t)count, 0.5, NULL);
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

/* Draws and compares with the probabilities: within five standard deviations. */
static void expect(const struct sampling *s, const float *logits, const double *probability)
{
    struct arena *arena = arena_new();
    struct tensor t = row(logits, WORDS);
    int count[WORDS] = {0};
    for (uint64_t i = 0; i < DRAWS; i++) {
        struct arena_mark mark = arena_mark(arena);
        int64_t token = sample_token(s, &t, 0, WORDS, sample_uniform(s->seed, i % 7, i / 7), arena);
        assert_in_range(token, 0, WORDS - 1);
        count[token]++;
        arena_rewind(arena, mark);
    }
    for (int k = 0; k < WORDS; k++) {
        double p = probability[k], wanted = p * DRAWS, deviation = sqrt(DRAWS * p * (1 - p));
        if (fabs(count[k] - wanted) > 5 * deviation + (p > 0 ? 1 : 0))
            fail_msg("token %d came %d times, not %g", k, count[k], wanted);
    }
    arena_free(arena);
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
    struct arena *arena = arena_new();
    static const float far[] = {-1e30F, 1e30F, -INFINITY, 5};
    struct tensor t = row(far, 4);
    struct sampling s = {1e-6, 0, 0, 1};
    for (uint64_t i = 0; i < 100; i++)
        assert_int_equal(sample_token(&s, &t, 0, 4, sample_uniform(1, 0, i), arena), 1);
    s.temperature = 1e20; /* all but -infinity may come */
    for (uint64_t i = 0; i < 1000; i++)
        assert_int_not_equal(sample_token(&s, &t, 0, 4, sample_uniform(1, 0, i), arena), 2);
    arena_free(arena);
}

static int by_logit(const void *a, const void *b)
{
    const double *x = a, *y = b; /* logit, token */
    return x[0] != y[0] ? (x[0] < y[0] ? 1 : -1) : (x[1] > y[1]) - (x[1] < y[1]);
}

/* A long vocabulary with many equal logits, against one that is sorted as a whole: the same tokens. */
static void long_rows(void **state)
{
    (void)state;
    enum { LONG = 5000 };
    static float at[LONG];
    static double sorted[LONG][2];
    struct arena *arena = arena_new();
    struct tensor t = row(at, LONG);
    for (int i = 0; i < LONG; i++) {
        at[i] = (float)((i * 7919) % 601) / 50;
        sorted[i][0] = (double)at[i];
        sorted[i][1] = i;
    }
    qsort(sorted, LONG, sizeof sorted[0], by_logit);
    static const struct sampling all[] = {
        {1, 40, 0, 1}, {0.7, 1, 0, 1}, {1, 4999, 0, 1}, {1, 0, 0.9, 1}, {2, 300, 0.5, 1}};
    for (size_t k = 0; k < sizeof all / sizeof *all; k++) {
        const struct sampling *s = &all[k];
        size_t count = s->top_k ? (size_t)s->top_k : LONG, last = 0;
        double total = 0, kept = 0;
        for (size_t i = 0; i < count; i++)
            total += exp((sorted[i][0] - sorted[0][0]) / s->temperature);
        for (last = 0; last < count && (s->top_p == 0 || kept < s->top_p * total); last++)
            kept += exp((sorted[last][0] - sorted[0][0]) / s->temperature);
        for (int draw = 0; draw < 200; draw++) {
            double uniform = (draw + 0.37) / 200, sum = 0;
            size_t i = 0;
            while (i + 1 < last && (sum += exp((sorted[i][0] - sorted[0][0]) / s->temperature)) <= uniform * kept)
                i++;
            struct arena_mark mark = arena_mark(arena);
            assert_int_equal(sample_token(s, &t, 0, LONG, uniform, arena), (int64_t)sorted[i][1]);
            arena_rewind(arena, mark);
        }
    }
    arena_free(arena);
}

static void draws(void **state)
{
    (void)state;
    double sum = 0, square = 0;
    for (uint64_t i = 0; i < 10000; i++) {
        double x = sample_uniform(5, i % 10, i);
        assert_true(x >= 0 && x < 1);
        assert_true(x == sample_uniform(5, i % 10, i));
        assert_true(x != sample_uniform(6, i % 10, i) && x != sample_uniform(5, i % 10 + 1, i));
        sum += x;
        square += x * x;
    }
    assert_true(fabs(sum / 10000 - 0.5) < 0.015 && fabs(square / 10000 - 1.0 / 3) < 0.015);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_likeliest), cmocka_unit_test(frequencies), cmocka_unit_test(extremes),
        cmocka_unit_test(long_rows),     cmocka_unit_test(draws),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
