/* tests/unit/text_test.c - the text form: what is printed parses to the same, what is broken is refused with its place; the verifier. */
#include "ir/graph.h"
#include "ir/text_form.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h> /* needs those above */

static struct arena *arena;
static char last[1200]; /* the first diagnostic since it was cleared */

static void note(void *user, severity level, const char *line)
{
    (void)user;
    (void)level;
    if (!last[0])
        snprintf(last, sizeof last, "%s", line);
}
static struct diag diag = {.sink = note};

static int setup(void **state)
{
    (void)state;
    arena = arena_new();
    last[0] = '\0';
    return 0;
}
static int teardown(void **state)
{
    (void)state;
    arena_free(arena);
    return 0;
}

static const char *print(const struct graph *g)
{
    struct text out = {.arena = arena};
    graph_print(g, &out);
    return out.at;
}

static struct graph *parse(const char *text)
{
    struct graph *g = NULL;
    status s = graph_parse(arena, "test.tpc", text, strlen(text), &diag, &g);
    if (s != TPC_OK)
        fail_msg("%s", last);
    return g;
}

/* print(parse(print(g))) is print(g), and so are the tables that the text does not show. */
static void round_trip(const struct graph *g)
{
    const char *text = print(g);
    const struct graph *again = parse(text);
    assert_string_equal(print(again), text);
    assert_int_equal(again->nodes.count, g->nodes.count);
    assert_int_equal(dims_symbol_count(again->dims), dims_symbol_count(g->dims));
    for (value v = 1; v < g->nodes.count; v++) {
        const struct node *a = graph_node(g, v), *b = graph_node(again, v);
        assert_int_equal(a->attribute.data_size, b->attribute.data_size);
        if (a->attribute.data_size)
            assert_memory_equal(a->attribute.data, b->attribute.data, a->attribute.data_size);
    }
}

static void refuse(const char *text, const char *message)
{
    struct graph *g = NULL;
    last[0] = '\0';
    assert_int_equal(graph_parse(arena, "test.tpc", text, strlen(text), &diag, &g), TPC_DATA);
    if (!strstr(last, message))
        fail_msg("'%s' does not say '%s'", last, message);
}

static dim extent(struct graph *g, const char *text)
{
    const char *at = text;
    return dim_parse(g->dims, &at, text + strlen(text));
}

static void tables(struct graph *g)
{
    static const char bytes[] = {0, 0, 0, 0, 0, 0, (char)0x80, 0x3f};
    static const int64_t shape[] = {6, 4}, vector[] = {2};
    g->model_path = "dir/m \"x\".onnx";
    g->model_hash = UINT64_MAX;
    g->ir_version = 8;
    *PUSH(g->arena, &g->opsets) = (struct opset){"", 17};
    *PUSH(g->arena, &g->opsets) = (struct opset){"com.microsoft", 1};
    *PUSH(g->arena, &g->files) = (struct weight_file){"m.onnx", 1000, -5, 0xabcdef};
    *PUSH(g->arena, &g->params) = (struct param){"w", DT_F32, 2, shape, 0, 64, 96, NULL, 0, NULL};
    *PUSH(g->arena, &g->params) = (struct param){"b\n\xff", DT_F32, 1, vector, NO_FILE, 0, 8, bytes, 0, NULL};
    (void)graph_add_origin(g, "m.onnx", 0, "a/b", "MatMul");
    (void)graph_add_origin(g, "m.onnx", -1, "", "");
}

static void test_graph(void **state)
{
    (void)state;
    struct graph *g = graph_new(arena);
    tables(g);
    graph_set_origin(g, 1);
    value ids = graph_input(g, "ids", DT_I64, 2, (dim[]){extent(g, "b"), extent(g, "\"seq len\"")});
    value past = graph_input(g, "past", DT_F32, 3, (dim[]){extent(g, "b2"), extent(g, "past"), extent(g, "4")});
    assert_true(graph_guard(g, extent(g, "b"), extent(g, "b2"), "Concat: axis 0"));
    assert_true(graph_guard(g, extent(g, "(100*x)/y"), extent(g, "100"), "Reshape"));
    value x = graph_gather(g, graph_param(g, 0), ids, 0, 0);
    graph_set_origin(g, 0);
    g->nodes.at[x].name = "hidden";
    value both = graph_concat(g, 2, (value[]){past, x}, 1);
    value sliced = graph_slice_axis(g, both, 1, extent(g, "past"), extent(g, "\"seq len\""));
    graph_output(g, "present", both);
    graph_output(g, "y", graph_binary(g, OP_ADD, sliced, x));
    *PUSH(arena, &g->states) = (struct state){1, 0, 1, true};
    (void)graph_param(g, 1);
    (void)graph_dim(g, extent(g, "max(past, ceildiv(b, 3)) - 1"));
    (void)graph_cumsum(g, ids, 1, true, true);
    (void)graph_iota(g, DT_I64, 1, (dim[]){extent(g, "b")}, 0);
    (void)graph_iota(g, DT_I64, 1, (dim[]){extent(g, "b")}, 0);
    round_trip(g); /* before shapes are resolved */
    graph_resolve(g);
    round_trip(g);
    const struct graph *again = parse(print(g));
    assert_int_equal(dim_resolve(again->dims, again->guards.at[0].b), again->guards.at[0].a);
    assert_int_equal(again->model_hash, UINT64_MAX);
    assert_string_equal(again->params.at[1].name, "b\n\xff");
    assert_int_equal(again->states.at[0].input, 1);
}

static void test_program(void **state)
{
    (void)state;
    struct graph *g = graph_new(arena);
    tables(g);
    mesh_init(&g->mesh, "tp", 4);
    (void)extent(g, "s");
    int64_t cuts[] = {0, 2, 4, 5, 6};
    uint32_t rows = graph_partition(g, dim_const(g->dims, 6), 1, 3, cuts),
             seq = graph_partition(g, extent(g, "s"), 2, 1, NULL);
    struct intervals *of = NEW_ARRAY(arena, struct intervals, 8);
    for (uint32_t r = 0; r < 4; r++) {
        struct interval one = {cuts[r], cuts[r + 1]}, all = {0, 4};
        of[r] = (struct intervals){1, arena_copy(arena, &one, sizeof one)};
        of[4 + r] = (struct intervals){1, arena_copy(arena, &all, sizeof all)};
    }
    *PUSH(arena, &g->shards) = (struct shard){0, 2, of};
    struct attribute shard = {.mode = 1}, group = {.index = 3, .mode = REDUCTION_SUM};
    value w = graph_add(g, OP_PARAM, DT_F32, 2, (dim[]){partition_size(g, rows), extent(g, "4")}, 0, NULL, &shard);
    value x = graph_input(g, "x", DT_F32, 2, (dim[]){partition_size(g, seq), extent(g, "s:1")});
    value y = graph_dot(g, x, graph_transpose(g, w, (int32_t[]){1, 0}), 0, 1);
    y = graph_add(g, OP_ALL_REDUCE, DT_NONE, 0, NULL, 1, &y, &group);
    const dim around[] = {dim_const(g->dims, 1), dim_const(g->dims, 1)};
    struct attribute gather = {.axis = 0, .dims = around, .dims_count = 2, .partition = seq};
    y = graph_add(g, OP_ALL_GATHER, DT_NONE, 0, NULL, 1, &y, &gather);
    (void)graph_dim(g, extent(g, "o:1 + rank"));
    graph_output(g, "y", y);
    for (value v = 0; v < g->nodes.count; v++)
        *PUSH(arena, &g->source) = v * 3;
    round_trip(g);
    const struct graph *again = parse(print(g));
    assert_int_equal(again->mesh.ranks, 4);
    assert_int_equal(again->shards.at[0].of[3].at[0].lo, 5);
    assert_int_equal(again->source.at[3], 9);
    assert_int_equal(dim_upper(again->dims, extent((struct graph *)again, "s:1")), 2);
}

/* Elements of all types, awkward numbers among them, come back bit for bit. */
static void test_constants(void **state)
{
    (void)state;
    uint64_t seed = 7;
    for (int type = DT_NONE + 1; type < DT_COUNT; type++) {
        struct graph *g = graph_new(arena);
        size_t size = dtype_size((dtype)type);
        for (int64_t count = 0; count < 200; count = count * 2 + 1) {
            unsigned char *data = arena_alloc(arena, (size_t)count * size);
            for (size_t i = 0; i < (size_t)count * size; i++) {
                seed = seed * UINT64_C(6364136223846793005) + 1;
                data[i] = type == DT_BOOL ? seed >> 40 & 1 : (unsigned char)(seed >> 40);
            }
            (void)graph_constant(g, (dtype)type, 1, &count, data);
            memset(data, 0, (size_t)count * size);
            (void)graph_constant(g, (dtype)type, 1, &count, data);
        }
        const double numbers[] = {0.0, -0.0, 0.1, INFINITY, -INFINITY, NAN, 1e-45, 65504, 3.4028235e38, 1.0 / 3};
        for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++)
            (void)graph_scalar_f64(g, (dtype)type, numbers[i]);
        (void)graph_scalar_i64(g, (dtype)type, INT64_MIN);
        (void)graph_scalar_i64(g, (dtype)type, -1);
        round_trip(g);
    }
}

static void test_by_hand(void **state)
{
    (void)state;
    struct graph *g = parse("# types may be left out where the row derives them\n"
                            "param 0 = \"w\" f32[64, 32] data all(0.5)\n"
                            "%x: f32[b, 32] = input as \"x\"\n"
                            "%w: f32[64, 32] = param index 0\n"
                            "%h = dot %x, %w contract 1\n"
                            "%one: f32[] = constant data [1]\n"
                            "%ones: f32[b, 64] = broadcast %one\n"
                            "%y = add %h, %ones\n"
                            "output \"y\" %y\n");
    assert_int_equal(g->nodes.count, 7);
    assert_string_equal(strstr(print(g), "%6"), "%6: f32[b, 64] = add %3, %5\noutput \"y\" %6\n");
    round_trip(g);
}

static void test_bad_text(void **state)
{
    (void)state;
    refuse("nonsense", "test.tpc:1:1: error: expected a statement");
    refuse("\n%a = exp %b", "test.tpc:2:12: error: %b is not defined above");
    refuse("%a: f32[2] = input as \"a\"\n%b: f32[3] = input as \"b\"\n%c = add %a, %b",
           "test.tpc:3:1: error: add: axis 0 differs: 2 and 3");
    refuse("%a: f32[2] = input as \"a\"\n%b: f32[3] = exp %a", "exp gives f32[2]");
    refuse("%a: f32[2] = input as \"a\"\n%b = add %a", "add: has 1 operands");
    refuse("%a: f32[2] = input as \"a\"\n%b = not %a", "not: is not defined for f32");
    refuse("%a: f32[2] = input as \"a\"\n%b: i32[2] = input as \"b\"\n%c = add %a, %b",
           "operands of types f32 and i32");
    refuse("%a: f32[2] = input as \"a\"\n%a = exp %a", "%a stands here twice");
    refuse("%a: f32[2] = frob", "expected an operation");
    refuse("%a: f99[2] = input", "expected a type");
    refuse("%a: f32[1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1] = input", "more than 16 extents");
    refuse("%a: f32[-1] = input", "axis 0 is negative: -1");
    refuse("%a: f32[s:1] = input", "uses the symbols of 's:1'");
    refuse("%a: f32[2] = constant data [1]", "expected ','");
    refuse("%a: f32[9223372036854775807] = constant data all(1)", "fewer elements");
    refuse("%a: f32[b] = constant data [1]", "the shape is not constant");
    refuse("%a: i8[1] = constant data [300]", "expected a number of type i8");
    refuse("%a: f32[2] = input index 1 as \"a\"", "input 0 has no node");
    refuse("%a: f32[2] = param index 0", "param 0 of 0");
    refuse("%a: f32[2] = input @3", "origin 3 of 1");
    refuse("param 0 = \"w\" f32[2] file 0 offset 0 length 8", "lies outside of its file");
    refuse("param 0 = \"w\" f32[2] file 0 offset 0 length 4", "has 4 bytes where its shape takes 8");
    refuse("param 1 = \"w\" f32[2] data [1, 2]", "number 1 where 0 is next");
    refuse("guard 3 == 4", "can never hold");
    refuse("mesh 4 = \"tp\" 2", "4 ranks in a mesh whose sub-axes make 2");
    refuse("mesh 2 = \"tp\" 2 partition 1 = 6 unit 2 over 1 at [0, 3, 6]", "its cuts do not go");
    refuse("mesh 2 = \"tp\" 2 partition 1 = 6 unit 2 over 2", "over sub-axes 0x2 of 1");
    refuse("%a: f32[2] = input %b = all_reduce %a index 1 mode 1", "stands in a graph that is not a program");
    refuse("mesh 2 = \"tp\" 2 %a: f32[2] = input %b = all_reduce %a mode 1", "sub-axes 0x0 of a mesh of 1");
    refuse("%a: f32[2] = input output \"a\" %a state 0 1 axis 0 appended", "state 0 joins input 0 and output 1");
    refuse("symbol 12", "expected the name of a symbol");
    refuse("model \"x", "expected a string");
}

static struct graph *broken_base(void)
{
    return parse(
        "%1: f32[2, 3] = input as \"x\"\n%2 = exp %1\n%3 = reduce_sum %2 list [1]\n%4: f32[2] = constant data [1, 2]\n"
        "%5 = add %3, %4\noutput \"y\" %5\n");
}

static void expect_broken(struct graph *g, const char *message)
{
    last[0] = '\0';
    assert_int_equal(graph_verify(g, "breaking", &diag), TPC_INTERNAL);
    if (!strstr(last, message))
        fail_msg("'%s' does not say '%s'", last, message);
}

static void test_verifier(void **state)
{
    (void)state;
    struct graph *g = broken_base();
    assert_int_equal(graph_verify(g, "nothing", &diag), TPC_OK);
    g->nodes.at[2].operand = (value[]){5};
    expect_broken(g, "after breaking: %2 exp: operand 0 is %5, which does not stand before it");
    g = broken_base();
    g->nodes.at[5].dtype = DT_F16;
    expect_broken(g, "%5 add: has type f16 where its row gives f32");
    g = broken_base();
    g->nodes.at[5].shape = (dim[]){dim_const(g->dims, 3)};
    expect_broken(g, "%5 add: axis 0 is 3 where its row gives 2");
    g = broken_base();
    g->nodes.at[3].attribute.list = (int32_t[]){2};
    expect_broken(g, "%3 reduce_sum: axes are not ascending within rank 2");
    g = broken_base();
    g->nodes.at[3].attribute.axis = 1;
    expect_broken(g, "%3 reduce_sum: has attributes that its row does not use (0x1)");
    g = broken_base();
    g->nodes.at[4].attribute.data_size = 4;
    expect_broken(g, "%4 constant: has 4 bytes where its shape takes 8");
    g = broken_base();
    g->nodes.at[2].shape = (dim[]){DIM_NONE, DIM_NONE};
    expect_broken(g, "%2 exp: axis 0 is no dim");
    g = broken_base();
    g->outputs.at[0].value = 9;
    expect_broken(g, "output 0 is %9 of 6");
    g = broken_base();
    g->nodes.at[2].op = OP_COUNT;
    expect_broken(g, "%2 is no operation");
    g = broken_base();
    *PUSH(arena, &g->source) = 0;
    expect_broken(g, "1 sources for 6 nodes");
}

static void test_shard_extents(void **state)
{
    (void)state;
#define SHARDED(end)                                                                                                   \
    "mesh 2 = \"tp\" 2\npartition 1 = 6 unit 1 over 0x1 at [0, 4, 6]\n"                                                \
    "param 0 = \"w\" f32[6] data [1, 2, 3, 4, 5, 6]\nshard 0 = param 0 [0:" end ", 4:6 | 2:4]\n"                       \
    "%1: f32[s:1] = param index 0 mode 1\n"
    (void)parse(SHARDED("2"));
    refuse(SHARDED("3"), "axis 0 is s:1, but rank 0 holds 5");
    refuse(SHARDED("0"), "rank 0 holds what param 'w' does not have");
}

/* Damaged text never gets further than a message. */
static void test_damage(void **state)
{
    (void)state;
    struct graph *g = graph_new(arena);
    tables(g);
    value x = graph_input(g, "x", DT_F32, 2, (dim[]){extent(g, "b + 1"), extent(g, "4")});
    value y = graph_reshape(g, graph_dot(g, x, graph_param(g, 0), 0, 1), 3,
                            (dim[]){extent(g, "b + 1"), extent(g, "2"), extent(g, "3")});
    graph_output(
        g, "y",
        graph_binary(g, OP_MAX, y, graph_broadcast_to(g, graph_scalar_f64(g, DT_F32, 0), 3, graph_node(g, y)->shape)));
    const char *text = print(g);
    size_t length = strlen(text);
    uint64_t seed = 3;
    for (int round = 0; round < 4000; round++) {
        struct arena *own = arena_new();
        struct graph *again;
        seed = seed * UINT64_C(6364136223846793005) + 1442695;
        char *copy = arena_strndup(own, text, length);
        size_t at = (size_t)(seed >> 33) % length, cut = length;
        if (round % 2)
            copy[at] = (char)(32 + (seed >> 20) % 95);
        else
            cut = at;
        if (graph_parse(own, "damaged", copy, cut, &diag, &again) == TPC_OK)
            assert_int_equal(graph_verify(again, "parsing", &diag), TPC_OK);
        arena_free(own);
    }
}

struct attempt {
    struct arena *arena;
    const char *text;
};

static status attempt_parse(void *context)
{
    struct attempt *a = context;
    struct graph *g;
    return graph_parse(a->arena, "test.tpc", a->text, strlen(a->text), &diag, &g);
}

/* Whichever allocation fails: the status says so and nothing leaks. */
static void test_no_memory(void **state)
{
    (void)state;
    struct text text = {.arena = arena};
    text_put(&text, "%0: f32[b, 4] = input as \"x\"\n");
    for (int i = 0; i < 3000; i++)
        text_printf(&text, "%%%d = exp %%%d \"name %d\"\n", i + 1, i, i);
    status s = TPC_NOMEM;
    for (uint64_t n = 2; s == TPC_NOMEM && n < 1000; n++) {
        base_fail_after(0);
        struct attempt a = {arena_new(), text.at};
        base_fail_after(n);
        s = guard_run(&diag, attempt_parse, &a);
        base_fail_after(0);
        arena_free(a.arena);
        assert_true(s == TPC_NOMEM || n > 4);
    }
    assert_int_equal(s, TPC_OK);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_graph),    TEST(test_program),       TEST(test_constants), TEST(test_by_hand),   TEST(test_bad_text),
        TEST(test_verifier), TEST(test_shard_extents), TEST(test_damage),    TEST(test_no_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
