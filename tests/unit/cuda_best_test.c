/* tests/unit/cuda_best_test.c - the largest of each line, on the model of CUDA, is the token that a greedy choice takes on the CPU: with NaN, infinities, zeros of both
 * signs and equal numbers; on lines that begin anywhere, whole or cut in parts.
 */
#include "runtime/sample.h"
#include "tests/support/cuda_trial.h"
#include "tests/test.h"

#include <math.h>
#include <stdlib.h>

static const dtype types[] = {DT_F32, DT_F16, DT_BF16, DT_F64};
enum { TYPES = 4, LINES = 7 };

static uint64_t state = 88172645463325252u;
static uint32_t draw(uint32_t limit)
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return (uint32_t)((state >> 20) % limit);
}

/* Few different numbers, so that many are equal; now and then what is no number. */
static double number(uint32_t kind)
{
    if (kind == 1 && draw(50) == 0)
        return (double)NAN;
    if (kind == 2)
        return -(double)INFINITY;
    if (kind == 3)
        return draw(2) ? 0.0 : -0.0;
    if (kind == 4 && draw(9) == 0)
        return draw(2) ? (double)INFINITY : -(double)INFINITY;
    return ((double)draw(64) - 40) / 8;
}

/* Two words per line. `at` and what is behind it may be read. */
static void find_best(const struct cuda_set *set, const struct cuda_model *model, const struct tensor *t,
                      const char *at, uint64_t bytes, const struct cuda_lines *lines, uint64_t *to)
{
    struct cuda_launch l;
    uint64_t words[16];
    char error[400] = "";
    assert_true(cuda_best(set, t->dtype, lines, trial_arena, &l));
    assert_int_equal(l.word[0].kind, CUDA_ADDRESS);
    assert_int_equal(l.word[1].kind, CUDA_ADDRESS);
    words[0] = (uint64_t)(uintptr_t)at;
    words[1] = (uint64_t)(uintptr_t)to;
    for (uint32_t i = 2; i < l.word_count; i++)
        words[i] = (uint64_t)l.word[i].number;
    struct model_buffer range[3] = {
        {(void *)(uintptr_t)at, bytes, false},
        {to, LINES * 2 * sizeof *to, true},
        {(void *)(uintptr_t)lines->next, (uint64_t)(lines->count * lines->next_bytes), true}};
    struct model_launch x = {
        .words = words, .word_count = l.word_count, .range = range, .range_count = lines->next ? 3 : 2};
    memcpy(x.grid, l.grid, sizeof x.grid);
    memcpy(x.block, l.block, sizeof x.block);
    if (!cuda_model_launch(model, cuda_function_at(set, l.function)->name, &x, error, sizeof error))
        fail_msg("%s", error);
}

static void try_lines(const struct cuda_set *set, const struct cuda_model *model, dtype type, int64_t extent)
{
    int64_t shape[2] = {LINES, extent};
    struct tensor t;
    struct sampling greedy = {0};
    assert_true(tensor_new(trial_arena, &t, type, 2, shape));
    for (size_t i = 0; i < t.count; i++)
        dtype_store_f64(type, t.data, i, number((uint32_t)(i / (size_t)extent) % 6));
    uint64_t all[2 * LINES], some[2 * LINES];
    int64_t next[LINES] = {0};
    struct cuda_lines lines = {LINES, 0, 1, extent, 0, (uint64_t)(uintptr_t)next, sizeof *next, 0};
    find_best(set, model, &t, t.data, tensor_bytes(&t), &lines, all);
    for (int64_t line = 0; line < LINES; line++)
        assert_int_equal(next[line], all[2 * line + 1]);
    for (int64_t line = 0; line < LINES; line++) {
        int64_t token = sample_token(&greedy, &t, (size_t)(line * extent), (size_t)extent, 0, 0);
        double largest = cuda_best_value(all[2 * line], type);
        if (token < 0) {
            assert_true(isnan(largest) || largest == -(double)INFINITY);
            continue;
        }
        if ((int64_t)all[2 * line + 1] != token)
            fail_msg("%s, %lld elements, line %lld: %llu, not %lld", dtype_name(type), (long long)extent,
                     (long long)line, (unsigned long long)all[2 * line + 1], (long long)token);
        assert_true(largest == dtype_load_f64(type, t.data, (size_t)(line * extent + token)));
    }
    /* every second line from the second on */
    int32_t narrow[3] = {0};
    lines = (struct cuda_lines){3, 1, 2, extent, 100, (uint64_t)(uintptr_t)narrow, sizeof *narrow, 0};
    find_best(set, model, &t, t.data, tensor_bytes(&t), &lines, some);
    for (int64_t i = 0; i < 3; i++) {
        assert_int_equal(narrow[i], (int32_t)some[2 * i + 1]);
        assert_true(some[2 * i] == all[2 * (1 + 2 * i)]);
        assert_true(some[2 * i + 1] == all[2 * (1 + 2 * i) + 1] + 100);
    }
}

static void equals_the_cpu(void **unused)
{
    static const int64_t extents[] = {1, 5, 7, 11, 13, 256, 511, 4099, 33011};
    struct cuda_set *sets[TYPES];
    (void)unused;
    trial_start();
    for (int i = 0; i < TYPES; i++) {
        struct cuda_trial *t =
            trial_typed("best", "%x: $[b, n] = input as \"x\"\n%y = neg %x\noutput \"y\" %y\n", types[i]);
        assert_non_null(t);
        sets[i] = t->set;
    }
    struct cuda_model *model = compile_sets(sets, TYPES, trial_arena);
    for (int i = 0; i < TYPES && model; i++)
        for (size_t e = 0; e < sizeof extents / sizeof extents[0]; e++)
            try_lines(sets[i], model, types[i], extents[e]);
    cuda_model_close(model);
    assert_int_equal(trial_end(NULL), 0);
}

/* Orders compare as numbers do. */
static void orders(void **unused)
{
    (void)unused;
    assert_true(isnan(cuda_best_value(UINT64_MAX, DT_F32)) && isnan(cuda_best_value(UINT64_MAX, DT_F64)));
    assert_true(cuda_best_value(0x80000000u, DT_BF16) == 0 && cuda_best_value(UINT64_C(1) << 63, DT_F64) == 0);
    assert_true(cuda_best_value(0x007fffffu, DT_F16) == -(double)INFINITY);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(equals_the_cpu), cmocka_unit_test(orders)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
