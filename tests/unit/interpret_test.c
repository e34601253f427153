/* tests/unit/interpret_test.c - every row of ops.def on every type and on awkward shapes, against numbers that other programs made
 * (interpret_rows.txt, by interpret_rows.py); what the interpreter refuses; binding of symbols; memory. Programs: interpret_program_test.c. */
#include "ir/interpret.h"
#include "tests/test.h"

#include <math.h>
#include <stdlib.h>

static struct arena *arena;
static char lines[4000]; /* diagnostics, one per line */

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

static struct graph *parse(const char *name, const char *text, size_t length)
{
    struct graph *g = NULL;
    if (graph_parse(arena, name, text, length, &diag, &g) != TPC_OK)
        fail_msg("%s: %s", name, lines);
    return g;
}

/* ---- rows against interpret_rows.txt ---- */

/* Two units in the last place, and what different orders of summation in double may make. */
static bool close_enough(const struct tensor *got, const struct tensor *wanted, bool exact, struct difference *d)
{
    static const struct {
        double relative, absolute;
    } within[DT_COUNT] = {[DT_F16] = {0x1p-9, 0x1p-23},
                          [DT_BF16] = {0x1p-6, 1e-13},
                          [DT_F32] = {0x1p-22, 1e-13},
                          [DT_F64] = {0x1p-48, 1e-13}};
    bool same = exact || !dtype_is_float(wanted->dtype);
    return tensor_compare(got, wanted, same ? 0 : within[wanted->dtype].relative,
                          same ? 0 : within[wanted->dtype].absolute, d);
}

static void run_case(const char *name, const char *text, size_t length, bool exact, bool *rows_seen)
{
    struct interpretation result;
    const struct graph *g = parse(name, text, length);
    if (interpret(g, NULL, NULL, arena, &diag, &result) != TPC_OK)
        fail_msg("%s: %s", name, lines);
    assert_true(g->outputs.count % 2 == 0 && g->outputs.count > 0);
    for (uint32_t i = 0; i < g->outputs.count; i += 2) {
        struct difference d;
        rows_seen[graph_node(g, g->outputs.at[i].value)->op] = true;
        if (!close_enough(&result.output[i], &result.output[i + 1], exact, &d))
            fail_msg("%s: %s: %zu differ, [%zu] is %.17g, wanted %.17g", name, g->outputs.at[i].name, d.count, d.at,
                     d.got, d.wanted);
    }
}

static char *read_file(const char *path)
{
    FILE *f = fopen(path, "rb");
    if (!f)
        fail_msg("cannot open %s", path);
    assert_int_equal(fseek(f, 0, SEEK_END), 0);
    long size = ftell(f);
    assert_true(size > 0);
    rewind(f);
    char *text = arena_alloc(arena, (size_t)size + 1);
    assert_int_equal(fread(text, 1, (size_t)size, f), (size_t)size);
    assert_int_equal(fclose(f), 0);
    return text;
}

static void test_rows(void **state)
{
    (void)state;
    bool seen[OP_COUNT] = {false};
    const char *source = getenv("SOURCE");
    char *at = read_file(arena_printf(arena, "%s/tests/unit/interpret_rows.txt", source ? source : "."));
    unsigned cases = 0;
    while (*at) {
        char *name = at, *body = strchr(at, '\n'), *next = strstr(at + 1, "\n==");
        assert_non_null(body);
        *body++ = '\0';
        at = next ? next + 1 : body + strlen(body);
        bool exact = strstr(name, " exact") != NULL;
        assert_true(exact || strstr(name, " close") != NULL);
        struct arena *outer = arena;
        arena = arena_new();
        run_case(name, body, (size_t)(at - body), exact, seen);
        arena_free(arena);
        arena = outer;
        cases++;
    }
    assert_true(cases > 300);
    for (int o = OP_NONE + 1; o < OP_COUNT; o++) {
        bool elsewhere = o == OP_INPUT || o == OP_PARAM || o == OP_DIM || o == OP_CONSTANT || o == OP_COUNT_ONCE ||
                         o == OP_RESTRICT || op_info((op)o)->class == CLASS_COLLECTIVE;
        if (!seen[o] && !elsewhere)
            fail_msg("no case for %s", op_info((op)o)->text);
    }
}

/* ---- inputs, symbols, guards ---- */

static struct tensor over(dtype type, uint32_t rank, const int64_t *shape, const void *data)
{
    struct tensor t;
    assert_true(tensor_shape(&t, type, rank, shape));
    t.data = arena_copy(arena, data, tensor_bytes(&t));
    return t;
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
#define PARSE(text) parse("test.tpc", text, strlen(text))

static void expect_line(const char *words)
{
    if (!strstr(lines, words))
        fail_msg("'%s' does not say '%s'", lines, words);
}

static status run(const struct graph *g, const struct tensor *inputs, struct interpretation *result)
{
    lines[0] = '\0';
    return interpret(g, NULL, inputs, arena, &diag, result);
}

static int64_t symbol_value(const struct graph *g, const struct interpretation *x, const char *name)
{
    for (uint32_t s = 0; s < dims_symbol_count(g->dims); s++)
        if (strcmp(dims_symbol(g->dims, s)->name, name) == 0)
            return x->of[0][s];
    fail_msg("no symbol %s", name);
    return 0;
}

static void test_symbols_are_solved_for(void **state)
{
    (void)state;
    const struct graph *g = PARSE("%1: i64[b, 2*s] = input as \"ids\"\n%2: f32[b, p, 3] = input as \"past\"\n%3: "
                                  "f32[b, p + s] = input as \"mask\"\n"
                                  "%n = dim dims [b*s*100 + p]\noutput \"n\" %n\n");
    struct tensor in[] = {zeros(DT_I64, 2, SHAPE(2, 14)), zeros(DT_F32, 3, SHAPE(2, 0, 3)),
                          zeros(DT_F32, 2, SHAPE(2, 7))};
    struct interpretation x;
    assert_int_equal(run(g, in, &x), TPC_OK);
    assert_int_equal(symbol_value(g, &x, "s"), 7);
    assert_int_equal(symbol_value(g, &x, "p"), 0);
    assert_int_equal(dtype_load_i64(DT_I64, x.output[0].data, 0), 1400);

    in[2] = zeros(DT_F32, 2, SHAPE(2, 8));
    assert_int_equal(run(g, in, &x), TPC_DATA);
    expect_line("input 'mask'");
    expect_line("axis 1 must be");
    expect_line("= 7 but is 8");

    in[2] = zeros(DT_F32, 2, SHAPE(3, 7));
    assert_int_equal(run(g, in, &x), TPC_DATA);
    expect_line("axis 0 must be b = 2 (from axis 0 of input 'ids') but is 3");

    in[0] = zeros(DT_I64, 2, SHAPE(2, 13)); /* 2*s */
    assert_int_equal(run(g, in, &x), TPC_DATA);
    expect_line("input");
}

static void test_wrong_inputs_are_named(void **state)
{
    (void)state;
    const struct graph *g =
        PARSE("symbol b >= 1 <= 4\n%1: f32[b, 3] = input as \"x\"\n%2: i64[] = input as \"y\"\noutput \"o\" %1\n");
    struct interpretation x;
    struct tensor in[] = {zeros(DT_F64, 2, SHAPE(2, 3)), zeros(DT_I64, 1, SHAPE(1))};
    assert_int_equal(run(g, in, &x), TPC_DATA);
    expect_line("input 'x': error: wants f32[b, 3] but is given 2x3xf64");
    expect_line("input 'y'");
    in[0] = zeros(DT_F32, 2, SHAPE(2, 4));
    in[1] = zeros(DT_I64, 0, SHAPE(0));
    assert_int_equal(run(g, in, &x), TPC_DATA);
    expect_line("input 'x': error: axis 1 must be 3 but is 4");
    in[0] = zeros(DT_F32, 2, SHAPE(5, 3));
    assert_int_equal(run(g, in, &x), TPC_DATA);
    expect_line("b is 5 but must be at most 4");
    in[0] = zeros(DT_F32, 2, SHAPE(0, 3));
    assert_int_equal(run(g, in, &x), TPC_DATA);
    expect_line("b is 0 but must be at least 1");
    in[0] = zeros(DT_F32, 2, SHAPE(1, 3));
    in[0].data = NULL;
    assert_int_equal(run(g, in, &x), TPC_DATA);
    expect_line("input 'x' has no elements");
}

static void test_guards_are_checked(void **state)
{
    (void)state;
    const struct graph *g =
        PARSE("origin 1 = \"m.onnx\" 4 \"add\" \"Add\"\nguard (a*b)/c == d @1 \"axis 1 of operands\"\n"
              "%1: f32[a, b] = input\n%2: f32[c, d] = input\noutput \"o\" %1\n");
    struct interpretation x;
    struct tensor in[] = {zeros(DT_F32, 2, SHAPE(6, 4)), zeros(DT_F32, 2, SHAPE(3, 8))};
    assert_int_equal(run(g, in, &x), TPC_OK);
    in[1] = zeros(DT_F32, 2, SHAPE(3, 7));
    assert_int_equal(run(g, in, &x), TPC_DATA);
    expect_line("7");
    expect_line("8");
}

static void test_symbol_that_nothing_gives(void **state)
{
    (void)state;
    const struct graph *g = PARSE("%1: f32[b/2] = input\n%2 = dim dims [b]\noutput \"o\" %2\n");
    struct interpretation x;
    struct tensor in[] = {zeros(DT_F32, 1, SHAPE(6))};
    assert_int_equal(run(g, in, &x), TPC_DATA);
    expect_line("no input's shape gives the value of 'b'");
}

/* ---- refusals while running ---- */

static void test_index_outside_is_named(void **state)
{
    (void)state;
    const struct graph *g = PARSE(
        "origin 1 = \"m.onnx\" 17 \"embed\" \"Gather\"\n%t: f32[3, 2] = constant data all(1)\n%i: i64[n] = input\n"
        "%g = gather %t, %i @1\noutput \"o\" %g\n");
    struct interpretation x;
    struct tensor in[] = {over(DT_I64, 1, SHAPE(3), SHAPE(0, 2, 3))};
    assert_int_equal(run(g, in, &x), TPC_DATA);
    expect_line("m.onnx: node 17 'embed' (Gather): error: index 3 is outside [0, 3)");
    in[0] = over(DT_I64, 1, SHAPE(1), SHAPE(-1));
    assert_int_equal(run(g, in, &x), TPC_DATA);
    expect_line("index -1 is outside [0, 3)");
    in[0] = over(DT_I64, 1, SHAPE(0), SHAPE(0));
    assert_int_equal(run(g, in, &x), TPC_OK);

    g = PARSE("%t: f32[3] = constant data all(1)\n%i: i64[n] = input\n%u: f32[n] = input\n%s = scatter %t, %i, "
              "%u\noutput \"o\" %s\n");
    struct tensor both[] = {over(DT_I64, 1, SHAPE(1), SHAPE(5)), zeros(DT_F32, 1, SHAPE(1))};
    assert_int_equal(run(g, both, &x), TPC_DATA);
    expect_line("index 5 is outside [0, 3)");
}

static void test_extents_that_do_not_come_out(void **state)
{
    (void)state;
    struct interpretation x;
    const struct graph *g = PARSE("%a: f32[n] = input\n%b: f32[n - 3] = slice %a list [1] dims [3]\noutput \"o\" %b\n");
    struct tensor in[] = {zeros(DT_F32, 1, SHAPE(2))};
    assert_int_equal(run(g, in, &x), TPC_DATA);
    expect_line("n - 3 = -1");
    g = PARSE("%a: f32[n] = input\n%b: f32[m] = input\n%c: f32[m] = slice %a list [1] dims [0]\noutput \"o\" %c\n");
    struct tensor two[] = {zeros(DT_F32, 1, SHAPE(2)), zeros(DT_F32, 1, SHAPE(5))};
    assert_int_equal(run(g, two, &x), TPC_DATA);
    expect_line("of 2");
    g = PARSE("%a: f32[n] = input\n%b: i64[n*n*n*n*n, 4] = iota axis 0\noutput \"o\" %b\n");
    struct tensor many[] = {zeros(DT_F32, 1, SHAPE(8000))};
    assert_int_equal(run(g, many, &x), TPC_DATA);
    expect_line("too");
}

/* ---- memory ---- */

static void test_values_end_after_their_last_use(void **state)
{
    (void)state;
    const struct graph *g = PARSE(
        "%1: f32[n] = input\n%2 = exp %1\n%3 = log %2\n%4 = exp %3\n%5 = log %4\n%6 = add %5, %1\noutput \"o\" %6\n");
    struct tensor in[] = {zeros(DT_F32, 1, SHAPE(1000))};
    struct interpretation x;
    assert_int_equal(run(g, in, &x), TPC_OK);
    assert_int_equal(x.peak, 8000);
    assert_null(x.value[0][2].data);
    struct interpret_options all = {.keep_all = true};
    assert_int_equal(interpret(g, &all, in, arena, &diag, &x), TPC_OK);
    assert_int_equal(x.peak, 20000);
    assert_non_null(x.value[0][2].data);
    struct interpret_options limited = {.memory_limit = 7999};
    assert_int_equal(interpret(g, &limited, in, arena, &diag, &x), TPC_NOMEM);
    expect_line("exceeds the limit of 7999 bytes");
}

static status run_guarded(void *context)
{
    struct graph *g = context;
    struct interpretation x;
    struct tensor in[] = {zeros(DT_F32, 2, SHAPE(3, 5))};
    return interpret(g, NULL, in, arena, &diag, &x);
}

static void test_allocations_that_fail(void **state)
{
    (void)state;
    struct graph *g = PARSE("%1: f32[n, 5] = input\n%2 = transpose %1 list [1, 0]\n%3 = dot %1, %1 contract 1\n%4 = "
                            "reduce_sum %3 list [0]\n"
                            "output \"o\" %4\noutput \"p\" %2\n");
    status s = TPC_NOMEM;
    uint64_t n = 1;
    struct arena *outer = arena;
    for (; s == TPC_NOMEM && n < 1000; n++) {
        arena = arena_new();
        base_fail_after(n);
        s = guard_run(&diag, run_guarded, g);
        base_fail_after(0);
        arena_free(arena);
    }
    arena = outer;
    assert_int_equal(s, TPC_OK);
    assert_true(n > 3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_rows, setup, teardown),
        cmocka_unit_test_setup_teardown(test_symbols_are_solved_for, setup, teardown),
        cmocka_unit_test_setup_teardown(test_wrong_inputs_are_named, setup, teardown),
        cmocka_unit_test_setup_teardown(test_guards_are_checked, setup, teardown),
        cmocka_unit_test_setup_teardown(test_symbol_that_nothing_gives, setup, teardown),
        cmocka_unit_test_setup_teardown(test_index_outside_is_named, setup, teardown),
        cmocka_unit_test_setup_teardown(test_extents_that_do_not_come_out, setup, teardown),
        cmocka_unit_test_setup_teardown(test_values_end_after_their_last_use, setup, teardown),
        cmocka_unit_test_setup_teardown(test_allocations_that_fail, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
