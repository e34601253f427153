/* tests/unit/kernel_test.c - kernels as values and the text of Programs: what is broken is refused, nothing that a file can say makes the reader or the
 * verifier fail, and accesses outside of a buffer are seen before anything runs.
 */
#include "ir/program.h"
#include "tests/test.h"

#include <stdlib.h>

static struct arena *arena;
static char lines[2000];

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

/* A row norm of x in place of its parts, then a dot with w and a gather from it: every kind of instruction and of buffer. */
static const char graph_text[] =
    "symbol n\nsymbol c0\nsymbol c1\nsymbol c2\n"
    "param 0 = \"w\" f32[6, 6] data all(0.5)\n"
    "%1: f32[n, 6] = input index 0 as \"x\"\n%2: i64[n] = input index 1 as \"i\"\n"
    "%3: f32[6, 6] = param index 0\n%4: f32[n] = reduce_sum %1 list [1]\n"
    "%5: f32[n, 6] = broadcast %4 list [0]\n%6: f32[n, 6] = div %1, %5\n"
    "%7: f32[n, 6] = dot %6, %3 contract 1\n%8: f32[n, 6] = gather %3, %2\n%9: f32[n, 6] = add %7, %8\n"
    "output \"y\" %9\n";
static const char body_text[] = "kernel outer [n] inner [6] buffers [f32, f32 written] {\n"
                                "  %0 f32@1 load b0[6*c0 + c1] node 1\n"
                                "  %1 f32@0 reduce reduce_sum %0 node 4\n"
                                "  %2 f32@1 map div %0, %1 node 6\n"
                                "  %3 f32@1 store %2 b1[6*c0 + c1] node 6\n"
                                "}\n"
                                "kernel outer [n, 6] inner [] buffers [f32, i64, f32, f32 written] {\n"
                                "  %0 i64@0 load b1[c0] node 2\n"
                                "  %1 i64@0 index [c1] node 8\n"
                                "  %2 i64@0 index [6] node 8\n"
                                "  %3 bool@0 map lt %1, %2 node 8\n"
                                "  %4 f32@0 load b2[c1] at %0 * [6] below [6] check if %3 node 8\n"
                                "  %5 f32@0 load b0[6*c0 + c1] node 7\n"
                                "  %6 f32@0 const 0x3ff0000000000000 node 9 # 1\n"
                                "  %7 f32@0 map mul %5, %6 node 9\n"
                                "  %8 f32@0 map add %7, %4 node 9\n"
                                "  %9 f32@0 store %8 b3[6*c0 + c1] node 9\n"
                                "}\n"
                                "buffer input 0 f32 [6*n] node 1 live 0 0\n"
                                "buffer temp f32 [6*n] node 6 live 0 1\n"
                                "buffer weight 0 f32 [36] node 3 live 1 2\n"
                                "buffer temp f32 [6*n] node 7 live 1 2\n"
                                "buffer input 1 i64 [n] node 2 live 2 2\n"
                                "buffer output 0 f32 [6*n] node 9 live 2 2\n"
                                "step run kernel 0 node 6 args [0, 1]\n"
                                "step run dot batch 0 m 1 n 1 k 1 [n, 6, 6] at [0] [6, 0, 1] at [0] [0, 6, 1] at [0] "
                                "[6, 1, 0] node 7 args [1, 2, 3]\n"
                                "step run kernel 1 node 9 args [3, 4, 2, 5]\n"
                                "end\n";

static const char *program_text(const char *body)
{
    return arena_printf(arena, "program graph %zu\n%s%s", strlen(graph_text), graph_text, body);
}

static struct program *parse(const char *text)
{
    struct program *p = NULL;
    lines[0] = '\0';
    return program_parse(arena, "test", text, strlen(text), &diag, &p) == TPC_OK ? p : NULL;
}

/* body_text with the first `from` as `to`. */
static const char *with(const char *from, const char *to)
{
    const char *at = strstr(body_text, from);
    if (at == NULL)
        fail_msg("no '%s' in the text", from);
    return program_text(arena_printf(arena, "%.*s%s%s", (int)(at - body_text), body_text, to, at + strlen(from)));
}

static void test_round_trip(void **state)
{
    (void)state;
    const char *text = program_text(body_text);
    struct program *p = parse(text);
    if (p == NULL)
        fail_msg("%s", lines);
    struct text out = {.arena = arena};
    program_print(p, &out);
    assert_string_equal(out.at, text);
}

static void test_broken_texts_are_refused(void **state)
{
    (void)state;
    static const struct {
        const char *from, *to, *says;
    } cases[] = {
        {"map div %0, %1", "map div %0, %3", "before this one"},
        {"map div %0, %1", "map div %0", "does not come before it"},
        {"map div %0, %1", "map div %0, %1, %1", "too many operands"},
        {"%1 f32@0 reduce", "%1 f32@1 reduce", "level 0"},
        {"%2 f32@1 map div", "%2 f32@0 map div", "deeper level"},
        {"f32@1 load b0", "f32@0 load b0", "coordinates that its level"},
        {"b0[6*c0 + c1] node 1", "b0[6*c0 + c2] node 1", "coordinates that its level"},
        {"b0[6*c0 + c1] node 1", "b7[6*c0 + c1] node 1", "no such buffer"},
        {"store %2 b1", "store %2 b0", "another type|read only"},
        {"f32, f32 written", "f32, f64 written", "another type"},
        {"inner [6]", "inner [c0]", "extent"},
        {"%4 f32@0 load b2[c1] at %0", "%4 f32@0 load b2[c1] at %3", "no integer"},
        {"check if %3", "check if %2", "bad predicate"},
        {"kernel 0 node 6 args [0, 1]", "kernel 2 node 6 args [0, 1]", "no kernel 2"},
        {"kernel 0 node 6 args [0, 1]", "kernel 0 node 6 args [0]", "not as many buffers"},
        {"kernel 0 node 6 args [0, 1]", "kernel 0 node 6 args [4, 1]", "another type"},
        {"kernel 0 node 6 args [0, 1]", "kernel 0 node 6 args [1, 0]", "nothing has written"},
        {"kernel 0 node 6 args [0, 1]", "kernel 0 node 6 args [0, 9]", "no buffer 9"},
        {"buffer temp f32 [6*n] node 6 live 0 1", "buffer temp f32 [6*n] node 6 live 1 1", "live range"},
        {"buffer input 0 f32 [6*n]", "buffer input 0 f32 [5*n]", "not as large"},
        {"buffer input 0", "buffer input 2", "no such input"},
        {"buffer weight 0", "buffer weight 1", "no such weight"},
        {"buffer output 0 f32 [6*n] node 9", "buffer temp f32 [6*n] node 9", "exactly one buffer"},
        {"args [1, 2, 3]", "args [1, 2]", "three buffers"},
        {"dot batch 0", "dot batch 17", "no axis 17"},
        {"[n, 6, 6] at", "[n, 6] at", "one extent per axis"},
        {"node 7 args", "node 70 args", "no node 70"},
        {"step run dot", "step load dot", "earlier phase|at load"},
        {"end\n", "", "expected"},
        {"end\n", "end end", "after the end"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        if (parse(with(cases[i].from, cases[i].to)) != NULL)
            fail_msg("'%s' as '%s' was taken", cases[i].from, cases[i].to);
        char *says = arena_strdup(arena, cases[i].says), *rest = NULL;
        bool said = false;
        for (char *word = strtok_r(says, "|", &rest); word != NULL; word = strtok_r(NULL, "|", &rest))
            said |= strstr(lines, word) != NULL;
        if (!said)
            fail_msg("'%s' as '%s': %s", cases[i].from, cases[i].to, lines);
    }
}

static void test_reaching_out_is_seen(void **state)
{
    (void)state;
    static const struct {
        const char *from, *to;
        bool fits;
    } cases[] = {
        {"end\n", "end\n", true},
        {"load b0[6*c0 + c1] node 1", "load b0[6*c0 + c1 + 1] node 1", false},
        {"load b0[6*c0 + c1] node 1", "load b0[6*c0 - c1] node 1", false},
        {"load b0[6*c0 + c1] node 1", "load b0[6*c0 - c1 + 5] node 1", true},
        {"load b0[6*c0 + c1] node 1", "load b0[2*n*c0 + c1] node 1", false},
        {"store %2 b1[6*c0 + c1]", "store %2 b1[7*c0 + c1]", false},
        {"outer [n, 6]", "outer [n, 7]", false},
        {"at %0 * [6] below [6]", "at %0 * [6] below [7]", false},
        {"at %0 * [6] below [6]", "at %0 * [-1] below [6]", false},
        {"%2 i64@0 index [6]", "%2 i64@0 index [4]", true},
        {"[6, 0, 1] at [0] [0, 6, 1]", "[6, 0, 1] at [0] [0, 7, 1]", false},
        {"at [0] [6, 1, 0]", "at [1] [6, 1, 0]", false},
        {"[n, 6, 6] at", "[n, 6, 0] at", true},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct program *p = parse(with(cases[i].from, cases[i].to));
        if (p == NULL)
            fail_msg("'%s': %s", cases[i].to, lines);
        int64_t of[8] = {5};
        bool fits = true;
        for (uint32_t s = 0; s < p->steps.count; s++)
            fits &= program_step_fits(p, s, of);
        if (fits != cases[i].fits)
            fail_msg("'%s' as '%s' is said to %s", cases[i].from, cases[i].to, fits ? "fit" : "reach out");
        of[0] = 0; /* nothing is touched */
        if (strstr(cases[i].to, "outer") == NULL && !program_step_fits(p, 0, of))
            fail_msg("'%s' does not fit when there is nothing", cases[i].to);
    }
}

/* What a damaged file says is refused or is a sound Program; never anything else. */
static void test_damage(void **state)
{
    (void)state;
    const char *text = program_text(body_text);
    size_t length = strlen(text), start = length - strlen(body_text);
    uint32_t random = 1;
    for (int i = 0; i < 6000; i++) {
        struct arena *outer = arena;
        arena = arena_new();
        char *copy = arena_strdup(arena, text);
        for (int k = 0; k < 1 + i % 3; k++) {
            random = random * 1664525u + 1013904223u;
            size_t at = start + (random >> 8) % (length - start);
            static const char letters[] = "0123456789%[]{},-+*@ncbfx \n";
            copy[at] = (random >> 4) % 4 == 0 ? (char)(random >> 16) : letters[(random >> 12) % (sizeof letters - 1)];
        }
        struct program *p = NULL;
        lines[0] = '\0';
        (void)program_parse(arena, "test", copy, length, &diag, &p);
        int64_t of[64] = {3};
        for (uint32_t s = 0; p != NULL && s < p->steps.count && dims_symbol_count(p->graph->dims) <= 64; s++)
            (void)program_step_fits(p, s, of);
        arena_free(arena);
        arena = outer;
    }
}

static void test_equal_kernels_are_one(void **state)
{
    (void)state;
    struct program *a = parse(program_text(body_text)), *b = parse(with("node 1\n", "node 5\n"));
    struct program *c = parse(with("0x3ff0000000000000", "0x3ff0000000000001"));
    assert_true(a != NULL && b != NULL && c != NULL);
    assert_true(kernel_same(&a->kernels.at[0], &b->kernels.at[0])); /* nodes are for reports */
    assert_false(kernel_same(&a->kernels.at[1], &c->kernels.at[1]));
    const struct dims *t = a->graph->dims;
    uint64_t one = kernel_hash(&a->kernels.at[0], t, arena), two = kernel_hash(&a->kernels.at[1], t, arena);
    assert_true(one == kernel_hash(&b->kernels.at[0], b->graph->dims, arena) && one != two);
    assert_true(two != kernel_hash(&c->kernels.at[1], c->graph->dims, arena));
    const uint32_t *symbols;
    assert_int_equal(kernel_symbols(&a->kernels.at[0], t, arena, &symbols), 1);
    assert_string_equal(dims_symbol(t, symbols[0])->name, "n");
}

static void test_temporaries_share_memory(void **state)
{
    (void)state;
    struct program *p = parse(program_text(body_text));
    uint64_t offset[6], bytes;
    int64_t of[8] = {100};
    assert_non_null(p);
    assert_true(program_place(p, of, arena, offset, &bytes));
    assert_true(offset[0] == UINT64_MAX && offset[1] % 64 == 0 && offset[3] % 64 == 0 && offset[1] != offset[3]);
    assert_int_equal(bytes, 2 * 2432); /* both are live in step 1 */
    p->buffers.at[1].last = 0;
    assert_true(program_place(p, of, arena, offset, &bytes) && offset[1] == offset[3]);
    of[0] = INT64_MAX / 8;
    assert_false(program_place(p, of, arena, offset, &bytes));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_round_trip, setup, teardown),
        cmocka_unit_test_setup_teardown(test_broken_texts_are_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(test_reaching_out_is_seen, setup, teardown),
        cmocka_unit_test_setup_teardown(test_damage, setup, teardown),
        cmocka_unit_test_setup_teardown(test_equal_kernels_are_one, setup, teardown),
        cmocka_unit_test_setup_teardown(test_temporaries_share_memory, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
