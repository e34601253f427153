/* tests/unit/scale_test.c - constant factors of products of two activations (passes/simplify_scale.c): the numbers stay, and keys that lie in a cache are
 * read where they lie.
 */
#include "ir/interpret.h"
#include "passes/passes.h"
#include "tests/test.h"

#include <math.h>

static struct arena *arena;
static char first_line[400];

static void note(void *user, severity level, const char *line)
{
    (void)user;
    (void)level;
    snprintf(first_line, sizeof first_line, "%s", line);
}
static struct diag diag = {.sink = note};

/* Attention over a cache, queries and keys scaled as TorchScript's exporter does it. */
static struct graph *cached_attention(const char *type, const char *q, const char *k)
{
    const char *text = arena_printf(arena,
                                    "symbol n\nsymbol past\n"
                                    "%%q: %s[2, n, 4] = input index 0 as \"q\"\n"
                                    "%%k: %s[2, n, 4] = input index 1 as \"k\"\n"
                                    "%%past: %s[2, past, 4] = input index 2 as \"past\"\n"
                                    "%%present = concat %%past, %%k axis 1\n"
                                    "%%a: %s[] = constant data [%s]\n"
                                    "%%as: %s[2, n, 4] = broadcast %%a\n"
                                    "%%q2 = mul %%q, %%as\n"
                                    "%%keys = transpose %%present list [0, 2, 1]\n"
                                    "%%b: %s[] = constant data [%s]\n"
                                    "%%bs: %s[2, 4, n + past] = broadcast %%b\n"
                                    "%%keys2 = mul %%keys, %%bs\n"
                                    "%%back = transpose %%keys2 list [0, 2, 1]\n"
                                    "%%scores = dot %%q2, %%back batch 1 contract 1\n"
                                    "output \"present\" %%present\noutput \"scores\" %%scores\n"
                                    "state 2 0 axis 1 appended\n",
                                    type, type, type, type, q, type, type, k, type);
    struct graph *g = NULL;
    if (graph_parse(arena, "test", text, strlen(text), &diag, &g) != TPC_OK)
        fail_msg("%s", first_line);
    return g;
}

static struct tensor numbers(dtype t, int64_t entries, double from)
{
    const int64_t shape[] = {2, entries, 4};
    struct tensor x;
    assert_true(tensor_new(arena, &x, t, 3, shape));
    for (size_t i = 0; i < x.count; i++)
        dtype_store_f64(t, x.data, i, sin(from + (double)i));
    return x;
}

static void expect_same_numbers(struct graph *g, struct graph *s, dtype t)
{
    const struct tensor in[] = {numbers(t, 3, 1), numbers(t, 3, 2), numbers(t, 5, 3)};
    struct interpretation before, after;
    assert_int_equal(interpret(g, NULL, in, arena, &diag, &before), TPC_OK);
    assert_int_equal(interpret(s, NULL, in, arena, &diag, &after), TPC_OK);
    assert_int_equal(before.output[1].count, after.output[1].count);
    for (size_t i = 0; i < before.output[1].count; i++) {
        double x = dtype_load_f64(t, before.output[1].data, i), y = dtype_load_f64(t, after.output[1].data, i);
        if (!(fabs(x - y) <= 4 * dtype_spacing(t)))
            fail_msg("%s: %g in place of %g at %zu", dtype_name(t), y, x, i);
    }
}

/* Steps that run, and whether a dot's second operand is the state's memory. */
static uint32_t fused_steps(struct graph *g, bool *from_state)
{
    struct program *p = NULL;
    uint32_t count = 0;
    if (fuse(arena, g, &diag, &p) != TPC_OK || schedule(p, &diag) != TPC_OK)
        fail_msg("%s", first_line);
    for (uint32_t i = 0; i < p->steps.count; i++) {
        const struct step *s = &p->steps.at[i];
        count += s->phase == PHASE_RUN;
        if (s->kind == STEP_DOT)
            *from_state = p->buffers.at[s->arg[1]].kind == BUFFER_STATE;
    }
    return count;
}

static void test_keys_of_a_cache_are_not_copied(void **state)
{
    (void)state;
    static const dtype types[] = {DT_F32, DT_BF16, DT_F16};
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        arena = arena_new();
        struct graph *g = cached_attention(dtype_name(types[i]), "0.7", "0.6"), *s = NULL;
        bool from_state = false;
        assert_int_equal(simplify(arena, g, &diag, &s), TPC_OK);
        assert_int_equal(graph_verify(s, "simplify", &diag), TPC_OK);
        expect_same_numbers(g, s, types[i]);
        uint32_t steps = fused_steps(s, &from_state);
        assert_true(from_state);
        assert_true(steps <= 4); /* append k; scale q; the product; f32: the factor behind it */
        arena_free(arena);
    }
}

static void test_unsafe_factors_stay(void **state)
{
    (void)state;
    static const struct {
        dtype type;
        const char *q, *k;
    } cases[] = {{DT_F16, "16", "2"}, {DT_F16, "0.01", "0.01"}, {DT_F32, "1e-20", "1e-20"}, {DT_F32, "1e20", "1e20"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        arena = arena_new();
        struct graph *g = cached_attention(dtype_name(cases[i].type), cases[i].q, cases[i].k), *s = NULL;
        uint32_t muls = 0;
        assert_int_equal(simplify(arena, g, &diag, &s), TPC_OK);
        for (value v = 1; v < s->nodes.count; v++)
            muls += graph_node(s, v)->op == OP_MUL;
        assert_int_equal(muls, 2);
        arena_free(arena);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_keys_of_a_cache_are_not_copied),
                                       cmocka_unit_test(test_unsafe_factors_stay)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
