/* tests/unit/cuda_draw_test.c - draws from lines, on the model of CUDA, are the CPU's to the token: in all types, with top-k and top-p, with equal logits, infinities and NaN; for
 * lines that are whole, that several blocks share, and that lie in parts.
 */
#include "runtime/sample.h"
#include "tests/support/cuda_trial.h"
#include "tests/test.h"

#include <math.h>
#include <stdlib.h>

static const dtype types[] = {DT_F32, DT_F16, DT_BF16, DT_F64};
enum { TYPES = 4, LINES = 3, EVERY = 2, PARTS = 3 }; /* lines are every second one of the tensor */

static const struct sampling samplings[] = {
    {0.7, 0, 0, 3}, {1, 40, 0, 4}, {1.5, 0, 0.9, UINT64_C(0x123456789abcdef0)}, {1, 200, 0.5, 6}, {1e-12, 5, 1e-6, 7}};
enum { SAMPLINGS = sizeof samplings / sizeof *samplings };

static struct cuda_set *sets[TYPES];
static struct cuda_model *model;

/* ---- launches ----------------------------------------------------------------------------------------------------------------- */

static void launch(const struct cuda_set *set, const struct cuda_launch *l, const void *first, const void *second,
                   const struct model_buffer *range, uint32_t ranges)
{
    uint64_t words[64];
    char error[400] = "";
    assert_true(l->word_count <= 64 && l->word[0].kind == CUDA_ADDRESS && l->word[1].kind == CUDA_ADDRESS);
    words[0] = (uint64_t)(uintptr_t)first;
    words[1] = (uint64_t)(uintptr_t)second;
    for (uint32_t i = 2; i < l->word_count; i++)
        words[i] = (uint64_t)l->word[i].number;
    struct model_launch x = {.words = words, .word_count = l->word_count, .range = range, .range_count = ranges};
    memcpy(x.grid, l->grid, sizeof x.grid);
    memcpy(x.block, l->block, sizeof x.block);
    if (!cuda_model_launch(model, cuda_function_at(set, l->function)->name, &x, error, sizeof error))
        fail_msg("%s: %s", cuda_function_at(set, l->function)->name, error);
}

/* A part of the lines, as a rank has it. */
struct part {
    struct tensor t; /* [EVERY * LINES, extent] */
    int64_t base;
    uint64_t *area;
};

static void on_part(const struct cuda_set *set, const struct part *p, const struct cuda_launch *l, uint64_t bytes)
{
    const struct model_buffer range[2] = {{p->t.data, tensor_bytes(&p->t), false}, {p->area, bytes, true}};
    launch(set, l, p->t.data, p->area, range, 2);
}

static void clear_part(const struct cuda_set *set, const struct part *p, const struct cuda_draw_plan *plan)
{
    struct cuda_launch l;
    const struct model_buffer range = {p->area, plan->words * sizeof *p->area, true};
    memset(p->area, 0xee, plan->words * sizeof *p->area);
    assert_true(cuda_draw_clear(set, plan, trial_arena, &l));
    launch(set, &l, p->area, NULL, &range, 1);
}

static struct cuda_lines lines_of(const struct part *p, int64_t first, int64_t count)
{
    return (struct cuda_lines){.count = count,
                               .first = EVERY * first + 1,
                               .step = EVERY,
                               .extent = p->t.shape[1],
                               .base = p->base,
                               .row = first};
}

/* Of all parts, what collectives do between launches. */
static void add_up(const struct part *part, int parts, uint64_t at, uint64_t words, bool largest)
{
    for (uint64_t w = at; w < at + words; w++) {
        uint64_t all = 0;
        for (int i = 0; i < parts; i++)
            all = !largest ? all + part[i].area[w] : part[i].area[w] > all ? part[i].area[w] : all;
        for (int i = 0; i < parts; i++)
            part[i].area[w] = all;
    }
}

/* The lines by two launches each: the first alone, the others. */
static void draw(const struct cuda_set *set, const struct sampling *s, struct part *part, int parts, int64_t extent,
                 uint64_t step, uint64_t *to)
{
    struct cuda_draw d = {
        .factor = sample_factor(s), .share = s->top_p, .top_k = s->top_k, .seed = s->seed, .step = step};
    struct cuda_draw_plan plan;
    struct cuda_launch l;
    dtype type = part[0].t.dtype;
    d.rows = LINES;
    d.extent = extent;
    d.scale = sample_scale((size_t)extent);
    for (int i = 0; i < parts; i++) {
        int64_t blocks = (part[i].t.shape[1] + CUDA_DRAW_EACH - 1) / CUDA_DRAW_EACH;
        d.blocks = blocks > d.blocks ? blocks : d.blocks;
    }
    cuda_draw_plan(type, &d, &plan);
    uint64_t bytes = plan.words * sizeof(uint64_t);
    for (int i = 0; i < parts; i++) {
        part[i].area = arena_alloc(trial_arena, bytes);
        clear_part(set, &part[i], &plan);
        struct cuda_lines lines = lines_of(&part[i], 0, LINES);
        if (plan.rounds > 0 && cuda_best(set, type, &lines, trial_arena, &l))
            on_part(set, &part[i], &l, bytes);
    }
    add_up(part, parts, 0, 2 * LINES, true);
    for (uint32_t round = 0; round <= plan.rounds; round++) {
        for (int i = 0; i < parts; i++)
            for (int64_t first = 0; first < LINES; first += first ? LINES : 1) {
                struct cuda_lines lines = lines_of(&part[i], first, first ? LINES - 1 : 1);
                if (round < plan.rounds ? cuda_draw_tally(set, type, &lines, &d, &plan, round, trial_arena, &l)
                                        : cuda_draw_tokens(set, type, &lines, &d, &plan, trial_arena, &l))
                    on_part(set, &part[i], &l, bytes);
                else
                    assert_int_equal(lines.extent, 0);
            }
        if (round < plan.rounds)
            add_up(part, parts, plan.round[round].bins, plan.round[round].words, false);
    }
    uint64_t *all = NEW_ARRAY(trial_arena, uint64_t, (size_t)parts * plan.own_words);
    for (int i = 0; i < parts; i++)
        memcpy(all + (size_t)i * plan.own_words, part[i].area + plan.own, plan.own_words * sizeof *all);
    int64_t next[LINES];
    struct cuda_lines lines = {.count = LINES, .next = (uint64_t)(uintptr_t)next, .next_bytes = sizeof *next};
    const struct model_buffer range[3] = {{all, (size_t)parts * plan.own_words * sizeof *all, false},
                                          {to, 2 * LINES * sizeof *to, true},
                                          {next, sizeof next, true}};
    assert_true(cuda_merge(set, &lines, parts * d.blocks, trial_arena, &l));
    launch(set, &l, all, to, range, 3);
    for (int64_t i = 0; i < LINES; i++)
        assert_int_equal(next[i], to[2 * i + 1]);
}

/* ---- tests -------------------------------------------------------------------------------------------------------------------- */

/* Of the first line all kinds, of the others nothing but numbers; many are equal. */
static double number(int64_t line, int64_t i, uint64_t kind)
{
    uint32_t out[4];
    sample_philox((const uint32_t[4]){(uint32_t)i, (uint32_t)line, 0, 0}, (const uint32_t[2]){1, 2}, out);
    if (line == 1 && i % 97 == 5 && kind > 0)
        return kind == 1 ? (double)NAN : kind == 2 ? (double)INFINITY : -(double)INFINITY;
    if (line == 1 && kind == 3)
        return -(double)INFINITY;
    return ((double)(out[0] % 4001) - 2000) / 250;
}

/* All lines; *seconds: how often the second word comes. */
static void compare(int k, const struct tensor *whole, const struct sampling *s, int parts, uint64_t step, int *seconds)
{
    struct part part[PARTS] = {0};
    uint64_t found[2 * LINES];
    int64_t extent = whole->shape[1];
    for (int i = 0; i < parts; i++) { /* uneven; one is empty where the line is short */
        int64_t from = i == 0 ? 0 : extent * (i + 1) / (parts + 1), to = extent * (i + 2) / (parts + 1);
        size_t size = dtype_size(types[k]);
        part[i].base = from;
        assert_true(tensor_new(trial_arena, &part[i].t, types[k], 2, (int64_t[]){EVERY * LINES, to - from}));
        for (int64_t line = 0; line < EVERY * LINES; line++)
            memcpy((char *)part[i].t.data + (size_t)(line * (to - from)) * size,
                   (char *)whole->data + (size_t)(line * extent + from) * size, (size_t)(to - from) * size);
    }
    draw(sets[k], s, part, parts, extent, step, found);
    for (int64_t line = 0; line < LINES; line++) {
        size_t first = (size_t)((EVERY * line + 1) * extent);
        int64_t token = sample_token(s, whole, first, (size_t)extent, (uint64_t)line, step);
        double score = cuda_best_value(found[2 * line], DT_F64);
        int64_t other = score > -(double)INFINITY ? (int64_t)found[2 * line + 1] : -1;
        if (token != other)
            fail_msg("%s, %lld elements in %d parts, line %lld: %lld, not %lld", dtype_name(types[k]),
                     (long long)extent, parts, (long long)line, (long long)other, (long long)token);
        if (token >= 0) /* to the bit */
            assert_true(score == dtype_load_f64(types[k], whole->data, first + (size_t)token) * sample_factor(s) +
                                     sample_noise(s->seed, (uint64_t)line, step, (uint64_t)token));
        *seconds += token == 1;
    }
}

static void try_line(int k, int64_t extent, const struct sampling *s, int parts, uint64_t kind)
{
    struct tensor whole;
    int seconds = 0;
    assert_true(tensor_new(trial_arena, &whole, types[k], 2, (int64_t[]){EVERY * LINES, extent}));
    for (int64_t i = 0; i < (int64_t)whole.count; i++)
        dtype_store_f64(types[k], whole.data, (size_t)i, number(i / extent, i % extent, kind));
    compare(k, &whole, s, parts, kind << 33 | (uint64_t)extent, &seconds);
}

/* A share that the likeliest of two just reaches, and one that it just misses: weights are right to some ten digits. */
static void cuts_in_the_same_place(void **unused)
{
    (void)unused;
    int seconds[2] = {0};
    struct tensor whole;
    assert_true(tensor_new(trial_arena, &whole, DT_F64, 2, (int64_t[]){EVERY * LINES, 2}));
    for (size_t i = 0; i < whole.count; i++)
        ((double *)whole.data)[i] = i % 2 ? -0.18 : 0.5;
    for (uint64_t step = 0; step < 8; step++)
        for (int more = 0; more < 2; more++) {
            struct sampling s = {.temperature = 2, .top_p = 1 / (1 + exp(-0.34)) + (more ? 1e-11 : -1e-11), .seed = 1};
            compare(3, &whole, &s, 1, step, &seconds[more]);
        }
    assert_true(seconds[0] == 0 && seconds[1] > 2);
}

static void equals_the_cpu(void **unused)
{
    static const int64_t extents[] = {1, 41, 700, 2 * CUDA_DRAW_EACH + 9};
    (void)unused;
    for (size_t e = 0, n = 0; e < sizeof extents / sizeof *extents; e++)
        for (size_t i = 0; i < SAMPLINGS; i++)
            for (int k = 0; k < TYPES; k++, n++)
                if ((k + (int)(i + e)) % TYPES == 0 ||
                    (extents[e] == 41 && k + (int)i != 3)) /* a quarter; of one nearly all */
                    try_line(k, extents[e], &samplings[i], 1 + (int)(n % PARTS), (n / 3) % 4);
}

static int open_sets(void **unused)
{
    (void)unused;
    trial_start();
    for (int i = 0; i < TYPES; i++) {
        struct cuda_trial *t =
            trial_typed("draw", "%x: $[b, n] = input as \"x\"\n%y = neg %x\noutput \"y\" %y\n", types[i]);
        assert_non_null(t);
        sets[i] = t->set;
    }
    model = compile_sets(sets, TYPES, trial_arena);
    return model ? 0 : 1;
}

static int close_sets(void **unused)
{
    cuda_model_close(model);
    return trial_end(unused);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(equals_the_cpu), cmocka_unit_test(cuts_in_the_same_place)};
    return cmocka_run_group_tests(tests, open_sets, close_sets);
}
