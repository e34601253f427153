/* tests/unit/interpret_program_test.c - the interpreter on Programs: every collective on 2, 3, 4 and 6 ranks, even and uneven cuts, groups over some
 * sub-axes, shards against index enumeration, and small split programs against their unsplit form. */
#include "ir/interpret.h"
#include "ir/placement.h"
#include "tests/test.h"

#include <stdlib.h>

static struct arena *arena;
static char lines[4000];

static void note(void *user, severity level, const char *line)
{
    (void)user;
    (void)level;
    size_t used = strlen(lines);
    snprintf(lines + used, sizeof lines - used, "%s\n", line);
}
static struct diag diag = {.sink = note};

static int setup(void **state)
{
    (void)state;
    arena = arena_new();
    lines[0] = '\0';
    return 0;
}
static int teardown(void **state)
{
    (void)state;
    arena_free(arena);
    return 0;
}

static struct graph *parse(const char *text)
{
    struct graph *g = NULL;
    lines[0] = '\0';
    if (graph_parse(arena, "test.tpc", text, strlen(text), &diag, &g) != TPC_OK)
        fail_msg("%s%s", lines, text);
    return g;
}

static struct tensor zeros(dtype type, uint32_t rank, const int64_t *shape)
{
    struct tensor t;
    assert_true(tensor_new(arena, &t, type, rank, shape));
    return t;
}
#define SHAPE(...)                                                                                                     \
    (const int64_t[])                                                                                                  \
    {                                                                                                                  \
        __VA_ARGS__                                                                                                    \
    }

/* Small numbers, all different in their neighbourhood, whose sums are exact. */
static struct tensor numbers(dtype type, uint32_t rank, const int64_t *shape, int64_t salt)
{
    struct tensor t = zeros(type, rank, shape);
    for (size_t i = 0; i < t.count; i++)
        dtype_store_i64(type, t.data, i, ((int64_t)i * 37 + salt * 11) % 101 - 50);
    return t;
}

static void run(const struct graph *g, const struct tensor *inputs, bool cut_outputs, struct interpretation *x)
{
    struct interpret_options options = {.cut_outputs = cut_outputs};
    lines[0] = '\0';
    if (interpret_same(g, &options, inputs, arena, &diag, x) != TPC_OK)
        fail_msg("%s", lines);
}

static double at(const struct tensor *t, size_t i)
{
    assert_true(i < t->count);
    return dtype_load_f64(t->dtype, t->data, i);
}

static void expect_same(const struct tensor *got, const struct tensor *wanted)
{
    struct difference d;
    if (!tensor_compare(got, wanted, 0, 0, &d))
        fail_msg("%s: %zu differ from %s: [%zu] is %g, wanted %g", tensor_type_text(got, arena), d.count,
                 tensor_type_text(wanted, arena), d.at, d.got, d.wanted);
}

/* ---- restrict and all_gather ---- */

static const char *const meshes[] = {"mesh 2 = \"tp\" 2", "mesh 3 = \"tp\" 3", "mesh 4 = \"tp\" 2 \"tp\" 2",
                                     "mesh 6 = \"tp\" 3 \"tp\" 2"};
static const char *const all_of[] = {"0x1", "0x1", "0x3", "0x3"};
static const uint32_t rank_counts[] = {2, 3, 4, 6};

/* The part of an axis seen as [outer, extent, inner]: index of the whole for local index i, by walking all indices. */
static int64_t nth_owned(int64_t outer, int64_t extent, int64_t inner, int64_t lo, int64_t hi, int64_t i)
{
    for (int64_t k = 0; k < outer * extent * inner; k++) {
        int64_t middle = k / inner % extent;
        if (middle >= lo && middle < hi && i-- == 0)
            return k;
    }
    return -1;
}

/* restrict of axis 1 keeps what the rule says, and all_gather brings the whole back. */
static void round_trip(uint32_t m, int64_t outer, int64_t extent, int64_t inner, const char *cuts,
                       const int64_t *offset)
{
    struct text text = {.arena = arena};
    long long o = outer, e = extent, i = inner;
    text_printf(&text, "%s\npartition 1 = %lld unit 1 over %s%s\n", meshes[m], e, all_of[m], cuts);
    text_printf(&text, "%%x: f32[3, %lld, 2] = input as \"x\"\n", o * e * i);
    text_printf(&text, "%%r = restrict %%x axis 1 part 1 dims [%lld, %lld]\n", o, i);
    text_printf(&text, "%%g = all_gather %%r axis 1 part 1 dims [%lld, %lld]\noutput \"r\" %%r\noutput \"g\" %%g\n", o,
                i);
    struct tensor x = numbers(DT_F32, 3, SHAPE(3, outer * extent * inner, 2), 1);
    struct interpretation result;
    run(parse(text.at), &x, true, &result);
    for (uint32_t r = 0; r < rank_counts[m]; r++) {
        const struct tensor *part = &result.output[2 * r];
        int64_t held = outer * (offset[r + 1] - offset[r]) * inner;
        assert_int_equal(part->shape[1], held);
        for (int64_t k = 0; k < 3 * held * 2; k++) {
            int64_t index = nth_owned(outer, extent, inner, offset[r], offset[r + 1], k / 2 % held);
            assert_true(at(part, (size_t)k) ==
                        at(&x, (size_t)((k / 2 / held * outer * extent * inner + index) * 2 + k % 2)));
        }
        expect_same(&result.output[2 * r + 1], &x);
    }
}

static void test_restrict_and_all_gather(void **state)
{
    (void)state;
    static const int64_t around[][2] = {{1, 1}, {2, 1}, {1, 3}, {2, 3}};
    for (uint32_t k = 0; k < 4; k++) {
        int64_t o = around[k][0], i = around[k][1];
        round_trip(0, o, 6, i, "", SHAPE(0, 3, 6));
        round_trip(0, o, 7, i, "", SHAPE(0, 4, 7));
        round_trip(0, o, 7, i, " at [0, 2, 7]", SHAPE(0, 2, 7));
        round_trip(1, o, 7, i, " at [0, 3, 5, 7]", SHAPE(0, 3, 5, 7));
        round_trip(1, o, 2, i, "", SHAPE(0, 1, 2, 2)); /* the last rank has nothing */
        round_trip(2, o, 5, i, " at [0, 2, 3, 4, 5]", SHAPE(0, 2, 3, 4, 5));
        round_trip(2, o, 8, i, "", SHAPE(0, 2, 4, 6, 8));
        round_trip(3, o, 13, i, " at [0, 3, 5, 7, 9, 11, 13]", SHAPE(0, 3, 5, 7, 9, 11, 13));
    }
    round_trip(2, 1, 0, 1, "", SHAPE(0, 0, 0, 0, 0));
}

static void test_symbolic_cuts(void **state)
{
    (void)state;
    const struct graph *g =
        parse("mesh 3 = \"tp\" 3\npartition 1 = s unit 2 over 0x1\n%x: f32[s, 2] = input as \"x\"\n"
              "%r = restrict %x part 1 dims [1, 1]\n%d = dim dims [s:1]\n%o = dim dims [o:1]\n"
              "%g = all_gather %r part 1 dims [1, 1]\noutput \"g\" %g\noutput \"d\" %d\noutput \"o\" %o\n");
    static const int64_t sizes[][4] = {{0, 0, 0, 0}, {1, 1, 0, 0},  {5, 2, 2, 1},
                                       {7, 4, 3, 0}, {12, 4, 4, 4}, {13, 6, 6, 1}};
    for (uint32_t k = 0; k < 6; k++) {
        struct tensor x = numbers(DT_F32, 2, SHAPE(sizes[k][0], 2), 3);
        struct interpretation result;
        run(g, &x, true, &result);
        int64_t before = 0;
        for (uint32_t r = 0; r < 3; r++) {
            expect_same(&result.output[3 * r], &x);
            assert_int_equal(dtype_load_i64(DT_I64, result.output[3 * r + 1].data, 0), sizes[k][1 + r]);
            if (sizes[k][1 + r] > 0)
                assert_int_equal(dtype_load_i64(DT_I64, result.output[3 * r + 2].data, 0), before);
            before += sizes[k][1 + r];
        }
    }
}

/* A value cut twice, over different sub-axes: [h/2 over 0x1] x [d/2 over 0x2] on one axis. */
static void test_two_factors_of_one_axis(void **state)
{
    (void)state;
    const struct graph *g = parse(
        "mesh 4 = \"tp\" 2 \"tp\" 2\npartition 1 = 4 unit 1 over 0x1\npartition 2 = 3 unit 1 over 0x2 at [0, 2, 3]\n"
        "%x: i32[12] = input as \"x\"\n%a = restrict %x part 1 dims [1, 3]\n%b = restrict %a part 2 dims [2, 1]\n"
        "%c = all_gather %b part 1 dims [1, s:2]\n%d = all_gather %c part 2 dims [4, 1]\n"
        "output \"b\" %b\noutput \"d\" %d\n");
    struct tensor x = zeros(DT_I32, 1, SHAPE(12));
    for (size_t i = 0; i < 12; i++)
        dtype_store_i64(DT_I32, x.data, i, (int64_t)i);
    static const int64_t held[4][4] = {{0, 1, 3, 4}, {2, 5, 0, 0}, {6, 7, 9, 10}, {8, 11, 0, 0}}; /* heads by columns */
    struct interpretation result;
    run(g, &x, true, &result);
    for (uint32_t r = 0; r < 4; r++) {
        const struct tensor *b = &result.output[2 * r];
        assert_int_equal(b->count, r % 2 ? 2 : 4);
        for (size_t i = 0; i < b->count; i++)
            assert_int_equal(dtype_load_i64(DT_I32, b->data, i), held[r][i]);
        expect_same(&result.output[2 * r + 1], &x);
    }
}

/* ---- reductions over groups ---- */

static double expected(int32_t kind, double a, double b)
{
    return kind == REDUCTION_SUM   ? a + b
           : kind == REDUCTION_MAX ? (a > b ? a : b)
           : kind == REDUCTION_MIN ? (a < b ? a : b)
                                   : a * b;
}

/* Every rank holds its number + 1; the groups by hand: rank = 3 * outer + 2 ... = outer * 2 + inner for 6 = 3 x 2. */
static void reduce_groups(const char *type, int32_t kind, uint32_t mask, const uint32_t *group_of, uint32_t ranks)
{
    const char *text = arena_printf(arena,
                                    "mesh 6 = \"tp\" 3 \"tp\" 2\n%%n = dim dims [rank + 1]\n%%x: %s[] = cast %%n\n%%y "
                                    "= all_reduce %%x index %u mode %d\n"
                                    "output \"y\" %%y\n",
                                    type, (unsigned)mask, (int)kind);
    struct interpretation result;
    run(parse(text), NULL, true, &result);
    for (uint32_t r = 0; r < ranks; r++) {
        double wanted = 0;
        bool first = true;
        for (uint32_t q = 0; q < ranks; q++) {
            if (group_of[q] != group_of[r])
                continue;
            wanted = first ? q + 1 : expected(kind, wanted, q + 1);
            first = false;
        }
        assert_true(at(&result.output[r], 0) == wanted);
    }
}

static void test_all_reduce(void **state)
{
    (void)state;
    static const uint32_t inner[] = {0, 0, 1, 1, 2, 2}, outer[] = {0, 1, 0, 1, 0, 1}, all[] = {0, 0, 0, 0, 0, 0};
    static const char *const types[] = {"f32", "f64", "f16", "bf16", "i32", "u64", "i64", "u8"};
    for (uint32_t t = 0; t < 8; t++)
        for (int32_t kind = REDUCTION_SUM; kind <= REDUCTION_PROD; kind++) {
            if (kind == REDUCTION_PROD && t >= 7)
                continue;                               /* 720 does not fit */
            reduce_groups(types[t], kind, 1, outer, 6); /* sub-axis 0, of size 3, is the outermost */
            reduce_groups(types[t], kind, 2, inner, 6);
            if (!(kind == REDUCTION_PROD && t == 3)) /* bf16 rounds 720 */
                reduce_groups(types[t], kind, 3, all, 6);
        }
}

static void test_bool_reductions(void **state)
{
    (void)state;
    struct interpretation x;
    run(parse("mesh 3 = \"tp\" 3\n%n = dim dims [rank]\n%b: bool[] = cast %n\n%o = all_reduce %b index 1 mode 1\n%m = "
              "all_reduce %b index 1 mode 2\n"
              "%a = all_reduce %b index 1 mode 3\n%p = all_reduce %b index 1 mode 4\noutput \"o\" %o\noutput \"m\" "
              "%m\noutput \"a\" %a\noutput \"p\" %p\n"),
        NULL, false, &x);
    assert_true(at(&x.output[0], 0) == 1 && at(&x.output[1], 0) == 1 && at(&x.output[2], 0) == 0 &&
                at(&x.output[3], 0) == 0);
}

static void test_count_once(void **state)
{
    (void)state;
    struct interpretation x;
    run(parse(
            "mesh 6 = \"tp\" 3 \"tp\" 2\n%v: f32[2] = constant data [3, -4]\n%a = count_once %v index 1\n%b = "
            "count_once %v index 2\n%c = count_once %v index 3\n"
            "%s = all_reduce %c index 3 mode 1\noutput \"a\" %a\noutput \"b\" %b\noutput \"c\" %c\noutput \"s\" %s\n"),
        NULL, true, &x);
    static const bool a[] = {1, 1, 0, 0, 0, 0}, b[] = {1, 0, 1, 0, 1, 0}, c[] = {1, 0, 0, 0, 0, 0};
    for (uint32_t r = 0; r < 6; r++) {
        assert_true(at(&x.output[4 * r], 1) == (a[r] ? -4 : 0));
        assert_true(at(&x.output[4 * r + 1], 0) == (b[r] ? 3 : 0));
        assert_true(at(&x.output[4 * r + 2], 1) == (c[r] ? -4 : 0));
        assert_true(at(&x.output[4 * r + 3], 1) == -4);
    }
}

static void test_reduce_scatter(void **state)
{
    (void)state;
    const struct graph *g = parse(
        "mesh 4 = \"tp\" 2 \"tp\" 2\npartition 1 = 5 unit 1 over 0x3 at [0, 2, 3, 4, 5]\npartition 2 = 5 unit 1 over "
        "0x2 at [0, 3, 5]\n"
        "%x: i64[2, 10] = input as \"x\"\n%n = dim dims [rank + 1]\n%m: i64[2, 10] = broadcast %n\n%y = mul %x, %m\n"
        "%a = reduce_scatter %y axis 1 mode 1 part 1 dims [1, 2]\n%b = reduce_scatter %y axis 1 mode 2 part 2 dims [2, "
        "1]\n"
        "output \"a\" %a\noutput \"b\" %b\n");
    struct tensor x = zeros(DT_I64, 2, SHAPE(2, 10));
    for (size_t i = 0; i < 20; i++)
        dtype_store_i64(DT_I64, x.data, i, (int64_t)i);
    static const int64_t cut[] = {0, 2, 3, 4, 5}, other[] = {0, 3, 5};
    struct interpretation result;
    run(g, &x, true, &result);
    for (uint32_t r = 0; r < 4; r++) {
        const struct tensor *a = &result.output[2 * r], *b = &result.output[2 * r + 1];
        int64_t held = (cut[r + 1] - cut[r]) * 2, own = other[r % 2 + 1] - other[r % 2];
        assert_int_equal(a->shape[1], held);
        for (int64_t i = 0; i < 2 * held; i++) /* 1 + 2 + 3 + 4 times the whole */
            assert_true(at(a, (size_t)i) == (double)(10 * (i / held * 10 + cut[r] * 2 + i % held)));
        assert_int_equal(b->shape[1], 2 * own);
        for (int64_t i = 0; i < 4 * own; i++) { /* the larger factor of the pair: 2 or 4 */
            int64_t line = i / own, whole = line * 5 + other[r % 2] + i % own;
            assert_true(at(b, (size_t)i) == (double)((r < 2 ? 2 : 4) * whole));
        }
    }
}

static void test_all_to_all_and_broadcast_from(void **state)
{
    (void)state;
    const struct graph *g = parse("mesh 3 = \"tp\" 3\npartition 1 = 7 unit 1 over 0x1 at [0, 3, 5, 7]\npartition 2 = 4 "
                                  "unit 1 over 0x1 at [0, 2, 3, 4]\n"
                                  "%x: f32[7, 8] = input as \"x\"\n%a = restrict %x part 1 dims [1, 1]\n"
                                  "%b = all_to_all %a part 1 list [1, 2] dims [1, 1, 1, 2]\n%c = restrict %x axis 1 "
                                  "part 2 dims [1, 2]\n%d = sub %b, %c\n"
                                  "%n = dim dims [rank]\n%f = broadcast_from %n index 1 mode 2\noutput \"b\" "
                                  "%b\noutput \"d\" %d\noutput \"f\" %f\n");
    struct tensor x = numbers(DT_F32, 2, SHAPE(7, 8), 5);
    struct interpretation result;
    run(g, &x, true, &result);
    for (uint32_t r = 0; r < 3; r++) {
        assert_int_equal(result.output[3 * r].shape[0], 7);
        assert_int_equal(result.output[3 * r].shape[1], r == 0 ? 4 : 2);
        for (size_t i = 0; i < result.output[3 * r + 1].count; i++)
            assert_true(at(&result.output[3 * r + 1], i) == 0);
        assert_true(at(&result.output[3 * r + 2], 0) == 2);
    }
}

static void test_outputs_that_differ_between_ranks(void **state)
{
    (void)state;
    struct interpretation x;
    const struct graph *g = parse("mesh 2 = \"tp\" 2\n%n = dim dims [rank]\noutput \"y\" %n\n");
    assert_int_equal(interpret_same(g, NULL, NULL, arena, &diag, &x), TPC_INTERNAL);
    assert_non_null(strstr(lines, "output 'y' is not the same on rank 0 and rank 1"));
}

/* ---- split programs against their unsplit form ---- */

static void expect_equal_programs(const char *whole, const char *split, const struct tensor *inputs)
{
    struct interpretation a, b;
    const struct graph *g = parse(whole), *p = parse(split);
    run(g, inputs, false, &a);
    run(p, inputs, false, &b);
    for (uint32_t i = 0; i < g->outputs.count; i++)
        expect_same(&b.output[i], &a.output[i]);
}

static const char table[] =
    "param 0 = \"table\" f32[7, 3] data [1,2,3, 4,5,6, 7,8,9, 10,11,12, 13,14,15, 16,17,18, 19,20,21]\n";

static void test_vocabulary_shards(void **state)
{
    (void)state;
    struct tensor ids = zeros(DT_I64, 2, SHAPE(2, 4));
    for (size_t i = 0; i < 8; i++)
        dtype_store_i64(DT_I64, ids.data, i, (int64_t)(i * 5 % 7));
    const char *whole = arena_printf(
        arena, "%s%%i: i64[b, s] = input\n%%t: f32[7, 3] = param index 0\n%%g = gather %%t, %%i\noutput \"y\" %%g\n",
        table);
    static const char *const cuts[] = {
        "mesh 2 = \"tp\" 2\npartition 1 = 7 unit 1 over 0x1 at [0, 4, 7]\n|[0:4 | 4:7]",
        "mesh 3 = \"tp\" 3\npartition 1 = 7 unit 1 over 0x1 at [0, 3, 5, 7]\n|[0:3 | 3:5 | 5:7]",
        "mesh 3 = \"tp\" 3\npartition 1 = 7 unit 1 over 0x1 at [0, 7, 7, 7]\n|[0:7 | | ]"};
    for (uint32_t k = 0; k < 3; k++) {
        const char *bar = strstr(cuts[k], "\n|");
        const char *split = arena_printf(
            arena,
            "%.*s\n%sshard 0 = param 0 %s [all 0:3]\n%%i: i64[b, s] = input\n%%t: f32[s:1, 3] = param index 0 mode 1\n"
            "%%g = gather %%t, %%i mode 1 dims [o:1]\n%%r = all_reduce %%g index 1 mode 1\noutput \"y\" %%r\n",
            (int)(bar - cuts[k]), cuts[k], table, bar + 2);
        expect_equal_programs(whole, split, &ids);
    }
}

/* Column then row, with a bias that one rank adds. */
static void test_column_and_row(void **state)
{
    (void)state;
    const char *whole = "param 0 = \"up\" f32[4, 2] data [1,2, 3,-4, 5,6, -7,8]\nparam 1 = \"down\" f32[2, 4] data "
                        "[1,-2,3,4, 5,6,7,-8]\n"
                        "param 2 = \"bias\" f32[2] data [10, 20]\n%x: f32[n, 2] = input\n%u: f32[4, 2] = param index "
                        "0\n%d: f32[2, 4] = param index 1\n"
                        "%b: f32[2] = param index 2\n%h = dot %x, %u contract 1\n%a = abs %h\n%y = dot %a, %d contract "
                        "1\n%w: f32[n, 2] = broadcast %b list [1]\n"
                        "%z = add %y, %w\noutput \"z\" %z\n";
    const char *split =
        "mesh 3 = \"tp\" 3\npartition 1 = 4 unit 1 over 0x1 at [0, 2, 3, 4]\n"
        "param 0 = \"up\" f32[4, 2] data [1,2, 3,-4, 5,6, -7,8]\nparam 1 = \"down\" f32[2, 4] data [1,-2,3,4, "
        "5,6,7,-8]\n"
        "param 2 = \"bias\" f32[2] data [10, 20]\nshard 0 = param 0 [0:2 | 2:3 | 3:4] [all 0:2]\nshard 1 = param 1 "
        "[all 0:2] [0:2 | 2:3 | 3:4]\n"
        "%x: f32[n, 2] = input\n%u: f32[s:1, 2] = param index 0 mode 1\n%d: f32[2, s:1] = param index 1 mode 2\n"
        "%b: f32[2] = param index 2\n%h = dot %x, %u contract 1\n%a = abs %h\n%y = dot %a, %d contract 1\n%w: f32[n, "
        "2] = broadcast %b list [1]\n"
        "%c = count_once %w index 1\n%z = add %y, %c\n%r = all_reduce %z index 1 mode 1\noutput \"z\" %r\n";
    for (int64_t n = 0; n < 4; n++) {
        struct tensor x = numbers(DT_F32, 2, SHAPE(n, 2), n);
        expect_equal_programs(whole, split, &x);
    }
}

/* ---- shards against index enumeration ---- */

/* A random layout of an axis of `extent`: segments of factors, some cut. */
static struct axis_layout random_layout(struct graph *g, unsigned *seed, uint32_t *free_subaxes, int64_t *extent)
{
    uint32_t segments = 1 + (uint32_t)rand_r(seed) % 3;
    struct segment *s = NEW_ARRAY(arena, struct segment, segments);
    *extent = 0;
    uint32_t partition_of[4][2] = {{0}}; /* one partition per extent and sub-axis, so that segments may be cut alike */
    uint32_t taken = 0;
    for (uint32_t k = 0; k < segments; k++) {
        uint32_t factors = 1 + (uint32_t)rand_r(seed) % 3, in_segment = 0;
        struct factor *f = NEW_ARRAY(arena, struct factor, factors);
        int64_t product = 1;
        for (uint32_t i = 0; i < factors; i++) {
            int64_t e = 1 + rand_r(seed) % 4;
            uint32_t subaxis = (uint32_t)rand_r(seed) % 2, bit = 1u << subaxis;
            f[i].extent = dim_const(g->dims, e);
            product *= e;
            if (rand_r(seed) % 2 || !(*free_subaxes & bit) || in_segment & bit)
                continue;
            int64_t parts = g->mesh.size[subaxis], offset[4] = {0};
            for (int64_t p = 1; p < parts; p++)
                offset[p] = offset[p - 1] + rand_r(seed) % (e - offset[p - 1] + 1);
            offset[parts] = e;
            uint32_t *known = &partition_of[e - 1][subaxis];
            f[i].partition = *known = *known ? *known : graph_partition(g, f[i].extent, 1, bit, offset);
            in_segment |= bit;
            taken |= bit;
        }
        s[k] = (struct segment){factors, f};
        *extent += product;
    }
    *free_subaxes &= ~taken;
    return (struct axis_layout){segments, s};
}

/* Does rank r hold index i of the axis? By walking the definition in placement.h, factor by factor. */
static bool holds(const struct graph *g, const struct axis_layout *a, uint32_t r, int64_t i)
{
    for (uint32_t k = 0; k < a->count; k++) {
        int64_t size = 1, e;
        for (uint32_t f = 0; f < a->segment[k].count; f++) {
            assert_true(dim_is_const(g->dims, a->segment[k].factor[f].extent, &e));
            size *= e;
        }
        if (i >= size) {
            i -= size;
            continue;
        }
        for (uint32_t f = a->segment[k].count; f-- > 0;) {
            const struct factor *factor = &a->segment[k].factor[f];
            assert_true(dim_is_const(g->dims, factor->extent, &e));
            const struct partition *p = &g->partitions.at[factor->partition];
            uint32_t coordinate = p->subaxes == 1 ? r / g->mesh.size[1] : r % g->mesh.size[1];
            if (factor->partition && (i % e < p->offset[coordinate] || i % e >= p->offset[coordinate + 1]))
                return false;
            i /= e;
        }
        return true;
    }
    return false;
}

static void expect_shard(const struct graph *g, uint32_t shard, const struct axis_layout *axis, const int64_t *whole,
                         uint32_t r)
{
    const int32_t *bytes = g->params.at[0].data;
    int64_t shape[MAX_RANK];
    assert_true(shard_shape(g, shard, r, shape));
    int32_t *copy = NEW_ARRAY(arena, int32_t, shape[0] * shape[1] * shape[2] + 1);
    const void *runs[] = {bytes};
    shard_copy(g, shard, r, runs, copy);
    int64_t next = 0;
    for (int64_t i = 0; i < whole[0] * whole[1] * whole[2]; i++)
        if (holds(g, &axis[0], r, i / whole[2] / whole[1]) && holds(g, &axis[1], r, i / whole[2] % whole[1]) &&
            holds(g, &axis[2], r, i % whole[2]))
            assert_int_equal(copy[next++], bytes[i]);
    assert_int_equal(next, shape[0] * shape[1] * shape[2]);
    uint64_t offset, length;
    if (next > 0 && shard_contiguous(g, shard, r, &offset, &length)) {
        assert_int_equal(length, (uint64_t)next * 4);
        assert_memory_equal((const char *)bytes + offset, copy, length);
    }
}

static void test_shards_hold_what_enumeration_says(void **state)
{
    (void)state;
    unsigned seed = 1;
    uint32_t contiguous = 0;
    for (uint32_t round = 0; round < 200; round++) {
        struct graph *g = graph_new(arena);
        mesh_init(&g->mesh, "tp", 6);
        struct axis_layout axis[3];
        int64_t *whole = NEW_ARRAY(arena, int64_t, 3);
        uint32_t free_subaxes = 3;
        for (uint32_t a = 0; a < 3; a++)
            axis[a] = random_layout(g, &seed, &free_subaxes, &whole[a]);
        int64_t count = whole[0] * whole[1] * whole[2];
        int32_t *data = NEW_ARRAY(arena, int32_t, count);
        for (int64_t i = 0; i < count; i++)
            data[i] = (int32_t)i;
        *PUSH(arena, &g->params) =
            (struct param){"w", DT_I32, 3, whole, NO_FILE, 0, (uint64_t)count * 4, data, 0, NULL};
        struct intervals *of = NEW_ARRAY(arena, struct intervals, 3 * 6);
        for (uint32_t i = 0; i < 18; i++)
            of[i] = axis_intervals(g, &axis[i / 6], i % 6, arena);
        *PUSH(arena, &g->shards) = (struct shard){0, 3, of};
        for (uint32_t r = 0; r < 6; r++) {
            uint64_t offset, length;
            expect_shard(g, 0, axis, whole, r);
            contiguous += shard_contiguous(g, 0, r, &offset, &length);
        }
    }
    assert_true(contiguous > 20 && contiguous < 1100); /* both kinds occurred */
}

/* ---- weight files ---- */

static void write_file(const char *path, const void *bytes, size_t size)
{
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(bytes, 1, size, f), size);
    assert_int_equal(fclose(f), 0);
}

static struct graph *graph_with_file(const char *path, const float *data, size_t count)
{
    struct graph *g = graph_new(arena);
    uint64_t size = count * 4;
    int64_t *shape = NEW_ARRAY(arena, int64_t, 1);
    shape[0] = (int64_t)count - 1;
    *PUSH(arena, &g->files) = (struct weight_file){path, size, 0, weight_fingerprint(size, data, data, (size_t)size)};
    *PUSH(arena, &g->params) = (struct param){"w", DT_F32, 1, shape, 0, 4, size - 4, NULL, 0, NULL};
    graph_output(g, "w", graph_param(g, 0));
    return g;
}

static status load(const struct graph *g, const char *folder, struct interpretation *x)
{
    struct interpret_options options = {.weights = weights_new(arena, g, folder)};
    lines[0] = '\0';
    return interpret(g, &options, NULL, arena, &diag, x);
}

static void expect_line(const char *words)
{
    if (!strstr(lines, words))
        fail_msg("'%s' does not say '%s'", lines, words);
}

static void test_weight_files(void **state)
{
    (void)state;
    float data[] = {1, 2, 3, 4, 5};
    struct interpretation x;
    write_file("weights.bin", data, sizeof data);
    struct graph *g = graph_with_file("weights.bin", data, 5);
    assert_int_equal(load(g, NULL, &x), TPC_OK);
    assert_true(x.output[0].count == 4 && at(&x.output[0], 3) == 5);
    assert_int_equal(load(g, "./", &x), TPC_OK);
    data[2] = 9;
    write_file("weights.bin", data, sizeof data);
    assert_int_equal(load(g, ".", &x), TPC_DATA);
    expect_line("weights.bin: error: the weight file was changed since the plan was made");
    write_file("weights.bin", data, sizeof data - 4);
    assert_int_equal(load(g, ".", &x), TPC_DATA);
    expect_line("it has 16 bytes, then it had 20");
    assert_int_equal(load(g, "no/such", &x), TPC_NOINPUT);
    expect_line("no/such/weights.bin");
    assert_int_equal(interpret(g, NULL, NULL, arena, &diag, &x), TPC_DATA);
    expect_line("weight 'w'");
    static const char *const refused[] = {"/etc/passwd", "../weights.bin", "a/../../weights.bin", "", ".."};
    for (uint32_t i = 0; i < 5; i++) {
        assert_int_equal(load(graph_with_file(refused[i], data, 5), ".", &x), TPC_DATA);
        expect_line("relative");
    }
    assert_int_equal(load(graph_with_file("fd", data, 5), "/dev", &x), TPC_DATA); /* a folder */
    assert_int_equal(load(graph_with_file("null", data, 5), "/dev", &x), TPC_DATA);
    expect_line("not a regular file");
    g = graph_with_file("weights.bin", data, 4);
    g->params.at[0].offset = 8;
    assert_int_equal(load(g, ".", &x), TPC_DATA);
    expect_line("weight 'w' ends behind the file's 16 bytes");
    assert_int_equal(remove("weights.bin"), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_restrict_and_all_gather, setup, teardown),
        cmocka_unit_test_setup_teardown(test_symbolic_cuts, setup, teardown),
        cmocka_unit_test_setup_teardown(test_two_factors_of_one_axis, setup, teardown),
        cmocka_unit_test_setup_teardown(test_all_reduce, setup, teardown),
        cmocka_unit_test_setup_teardown(test_bool_reductions, setup, teardown),
        cmocka_unit_test_setup_teardown(test_count_once, setup, teardown),
        cmocka_unit_test_setup_teardown(test_reduce_scatter, setup, teardown),
        cmocka_unit_test_setup_teardown(test_all_to_all_and_broadcast_from, setup, teardown),
        cmocka_unit_test_setup_teardown(test_outputs_that_differ_between_ranks, setup, teardown),
        cmocka_unit_test_setup_teardown(test_vocabulary_shards, setup, teardown),
        cmocka_unit_test_setup_teardown(test_column_and_row, setup, teardown),
        cmocka_unit_test_setup_teardown(test_shards_hold_what_enumeration_says, setup, teardown),
        cmocka_unit_test_setup_teardown(test_weight_files, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
