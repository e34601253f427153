/* tests/unit/fuse_state_test.c - states that fuse puts in place: they compute what the reference interpreter computes, no step moves a past, what cannot be
 * in place is not, and a Program that lies about them is refused.
 */
#include "codegen/codegen.h"
#include "ir/interpret.h"
#include "passes/passes.h"
#include "tests/support/execute.h"
#include "tests/test.h"

#include <stdlib.h>

static struct arena *arena;
static char lines[4000];

static void note(void *user, severity level, const char *line)
{
    (void)user;
    (void)level;
    snprintf(lines, sizeof lines, "%s", line);
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

static const char *print(const struct program *p)
{
    struct text out = {.arena = arena};
    program_print(p, &out);
    return out.at;
}

/* The text as a Program that went through its own text. */
static struct program *fused(const char *name, const char *text)
{
    struct graph *g = NULL;
    struct program *p = NULL, *again = NULL;
    if (graph_parse(arena, name, text, strlen(text), &diag, &g) != TPC_OK)
        fail_msg("%s: %s", name, lines);
    if (fuse(arena, g, &diag, &p) != TPC_OK || schedule(p, &diag) != TPC_OK || program_verify(p, &diag) != TPC_OK)
        fail_msg("%s: %s\n%s", name, lines, p ? print(p) : "");
    const char *printed = print(p);
    if (program_parse(arena, name, printed, strlen(printed), &diag, &again) != TPC_OK)
        fail_msg("%s: %s\n%s", name, lines, printed);
    assert_string_equal(print(again), printed);
    return again;
}

static struct tensor some_input(const struct graph *g, uint32_t i, const int64_t *of, int64_t places)
{
    const struct node *n = graph_node(g, g->inputs.at[i].value);
    int64_t shape[MAX_RANK];
    struct tensor t;
    for (uint32_t a = 0; a < n->rank; a++)
        assert_true(dim_eval(g->dims, n->shape[a], of, &shape[a]));
    assert_true(tensor_new(arena, &t, n->dtype, n->rank, shape));
    for (size_t k = 0; k < t.count; k++) {
        uint64_t mixed = (k + 1) * UINT64_C(0x9e3779b97f4a7c15) >> 20;
        if (dtype_is_float(n->dtype))
            dtype_store_f64(n->dtype, t.data, k, (double)(mixed % 4000) / 1000 - 2 + i);
        else /* places are different ones along a row */
            dtype_store_i64(n->dtype, t.data, k, places ? ((int64_t)k * 5 + 2) % places : 0);
    }
    return t;
}

struct sizes {
    int64_t b, s, p, n;
};

static void run(const char *name, const struct program *p, struct sizes size)
{
    const struct graph *g = p->graph;
    int64_t *of = NEW_ARRAY(arena, int64_t, dims_symbol_count(g->dims) + 1);
    struct tensor *in = NEW_ARRAY(arena, struct tensor, g->inputs.count), out[8];
    for (uint32_t s = 0; s < dims_symbol_count(g->dims); s++) {
        char c = dims_symbol(g->dims, s)->name[0];
        of[s] = c == 'b' ? size.b : c == 's' ? size.s : c == 'p' ? size.p : c == 'n' ? size.n : 0;
    }
    for (uint32_t i = 0; i < g->inputs.count; i++)
        in[i] = some_input(g, i, of, strchr(g->inputs.at[i].name, 'n') ? size.n : size.p + size.s);
    struct interpretation x;
    if (interpret_same(g, NULL, in, arena, &diag, &x) != TPC_OK)
        fail_msg("%s: %s", name, lines);
    for (int way = 0; way < 2; way++) {
        struct kernel_set *set = NULL;
        struct codegen_options options = {.no_compiler = way == 0};
        assert_int_equal(kernels_load(arena, p, &options, &diag, &set), TPC_OK);
        assert_int_equal(execute_alone(name, p, set, x.of[0], in, out, way == 1, arena), 0);
        for (uint32_t i = 0; i < g->outputs.count; i++) {
            struct difference d;
            if (!tensor_compare(&out[i], &x.output[i], 1e-5, 1e-5, &d))
                fail_msg("%s: '%s': %zu differ, [%zu] is %g, wanted %g\n%s", name, g->outputs.at[i].name, d.count, d.at,
                         d.got, d.wanted, print(p));
            free(out[i].data);
        }
    }
}

static uint32_t count_buffers(const struct program *p, buffer_kind kind)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < p->buffers.count; i++)
        count += p->buffers.at[i].kind == kind;
    return count;
}

/* A state of this text is in place `states` times; `reads`: kernels that load from a state's memory (1: the reader that is there anyway). */
static const struct program *expect(const char *name, const char *text, uint32_t states)
{
    const struct program *p = fused(name, text);
    if (count_buffers(p, BUFFER_STATE) != states)
        fail_msg("%s: %u states in place, not %u:\n%s", name, (unsigned)count_buffers(p, BUFFER_STATE),
                 (unsigned)states, print(p));
    static const struct sizes sizes[] = {{2, 3, 5, 11}, {1, 1, 0, 3}, {3, 1, 1, 2}, {1, 7, 2, 9}, {2, 1, 40, 64}};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        run(name, p, sizes[i]);
    return p;
}

/* No kernel both loads from a state's memory and stores to another or the same one: nothing is moved. */
static void expect_no_moves(const char *name, const struct program *p)
{
    for (uint32_t i = 0; i < p->steps.count; i++) {
        const struct step *s = &p->steps.at[i];
        bool from = false, to = false;
        if (s->kind == STEP_COPY)
            fail_msg("%s: copies", name);
        if (s->kind != STEP_KERNEL)
            continue;
        const struct kernel *k = &p->kernels.at[s->kernel];
        for (uint32_t n = 0; n < k->instruction_count; n++) {
            const struct instruction *x = &k->instruction[n];
            bool state = (x->kind == INST_LOAD || x->kind == INST_STORE) &&
                         p->buffers.at[s->arg[x->buffer]].kind == BUFFER_STATE;
            from = from || (state && x->kind == INST_LOAD);
            to = to || (state && x->kind == INST_STORE);
        }
        if (from && to)
            fail_msg("%s: step %u moves a state:\n%s", name, (unsigned)i, print(p));
    }
}

#define PAST "%past: f32[b, 2, p, 3] = input as \"past\"\n%new: f32[b, 2, s, 3] = input as \"new\"\n"
#define READ                                                                                                           \
    "%q: f32[b, 2, s, 3] = input as \"q\"\n%scores = dot %q, %all batch 2 contract 1\n"                                \
    "%turned = transpose %all list [0, 1, 3, 2]\n%mixed = dot %scores, %turned batch 2 contract 1\n"                   \
    "output \"mixed\" %mixed\n"
#define APPENDED_AT_0 "output \"all\" %all\nstate 0 1 axis 0 appended\n"
#define APPENDED_ALONE "output \"all\" %all\nstate 0 0 axis 2 appended\n"
#define APPENDED "output \"all\" %all\nstate 0 1 axis 2 appended\n"

static void appended(void **state)
{
    (void)state;
    const struct program *p = expect("appended", PAST "%all = concat %past, %new axis 2\n" READ APPENDED, 1);
    expect_no_moves("appended", p);
    p = expect(
        "computed and several",
        PAST
        "%e = exp %new\n%one: f32[b, 2, 1, 3] = input as \"one\"\n%all = concat %past, %e, %one axis 2\n" READ APPENDED,
        1);
    expect_no_moves("computed and several", p);
    p = expect("the first axis",
               "%past: f32[p, 4] = input as \"past\"\n%new: f32[s, 4] = input as \"new\"\n"
               "%all = concat %past, %new axis 0\n%sum = reduce_sum %all list [0]\n"
               "output \"sum\" %sum\n" APPENDED_AT_0,
               1);
    expect_no_moves("the first axis", p);
    p = expect("the last axis",
               "%past: f32[b, 4, p] = input as \"past\"\n%new: f32[b, 4, s] = input as \"new\"\n"
               "%all = concat %past, %new axis 2\n%sum = reduce_sum %all list [2]\n"
               "output \"sum\" %sum\n" APPENDED,
               1);
    expect_no_moves("the last axis", p);
}

/* The past has readers of its own, and all of it is read through a reshape. */
static void read_in_all_ways(void **state)
{
    (void)state;
    (void)expect("past too",
                 PAST "%all = concat %past, %new axis 2\n%old = reduce_max %past list [2]\noutput \"old\" %old\n"
                      "output \"all\" %all\nstate 0 1 axis 2 appended\n",
                 1);
    (void)expect("reshaped",
                 PAST "%all = concat %past, %new axis 2\n%flat: f32[2*b, p + s, 3] = reshape %all\n"
                      "%q: f32[2*b, s, 3] = input as \"q\"\n%scores = dot %q, %flat batch 1 contract 1\n"
                      "output \"scores\" %scores\noutput \"all\" %all\nstate 0 1 axis 2 appended\n",
                 1);
    (void)expect("summed as it lies", /* a scan wants a dense buffer: of the reshaped, which is a copy then */
                 PAST "%all = concat %past, %new axis 2\n%flat: f32[2*b, p + s, 3] = reshape %all\n"
                      "%c = cumsum %flat axis 1\noutput \"c\" %c\noutput \"all\" %all\nstate 0 1 axis 2 appended\n",
                 1);
    (void)expect("a second name",
                 PAST "%all = concat %past, %new axis 2\n%flat: f32[2*b, p + s, 3] = reshape %all\n"
                      "output \"flat\" %flat\noutput \"all\" %all\nstate 0 1 axis 2 appended\n",
                 1);
    (void)expect("gathered",
                 PAST "%all = concat %past, %new axis 2\n%i: i64[b] = input as \"i\"\n"
                      "%row = gather %all, %i axis 2 batch 1\noutput \"row\" %row\noutput \"all\" %all\n"
                      "state 0 1 axis 2 appended\n",
                 1);
}

#define PLACES "%at: i64[b, s] = input as \"at\"\n"

static void scattered(void **state)
{
    (void)state;
    const struct program *p = expect("made longer",
                                     PAST PLACES "%zero: f32[] = constant data [0]\n"
                                                 "%more: f32[b, 2, p + s, 3] = pad %past, %zero dims [0, 0, 0, 0]\n"
                                                 "%all = scatter %more, %at, %new axis 2 batch 1\n" READ
                                                 "output \"all\" %all\nstate 0 1 axis 2 scattered\n",
                                     1);
    expect_no_moves("made longer", p);
    p = expect("of fixed length",
               "%past: f32[b, 2, n, 3] = input as \"past\"\n%new: f32[b, 2, 1, 3] = input as \"new\"\n%at: i64[b, 1] = "
               "input as \"n\"\n"
               "%all = scatter %past, %at, %new axis 2 batch 1\n%sum = reduce_sum %all list [2]\n"
               "output \"sum\" %sum\noutput \"all\" %all\nstate 0 1 axis 2 scattered\n",
               1);
    expect_no_moves("of fixed length", p);
    p = expect(
        "one place for all rows",
        "%past: f32[n, 2, 3] = input as \"past\"\n%new: f32[1, 2, 3] = input as \"new\"\n%at: i32[1] = input as \"n\"\n"
        "%all = scatter %past, %at, %new axis 0\n%sum = reduce_sum %all list [0]\n"
        "output \"sum\" %sum\noutput \"all\" %all\nstate 0 1 axis 0 scattered\n",
        1);
    expect_no_moves("one place for all rows", p);
}

static void not_in_place(void **state)
{
    (void)state;
    (void)expect("new before past", PAST "%all = concat %new, %past axis 2\n" APPENDED_ALONE, 0);
    (void)expect("another axis",
                 PAST "%all = concat %past, %new axis 2\noutput \"all\" %all\nstate 0 0 axis 1 appended\n", 0);
    (void)expect("past handed out", PAST "%all = concat %past, %new axis 2\noutput \"old\" %past\n" APPENDED, 0);
    (void)expect("present twice", PAST "%all = concat %past, %new axis 2\noutput \"copy\" %all\n" APPENDED, 0);
    (void)expect("scanned",
                 PAST "%all = concat %past, %new axis 2\n%c = cumsum %all axis 2\noutput \"c\" %c\n" APPENDED, 0);
    (void)expect(
        "added to",
        "%past: f32[b, 2, n, 3] = input as \"past\"\n%new: f32[b, 2, 1, 3] = input as \"new\"\n%at: i64[b, 1] = input "
        "as \"n\"\n"
        "%all = scatter %past, %at, %new axis 2 batch 1 mode 1\noutput \"all\" %all\nstate 0 0 axis 2 scattered\n",
        0);
    (void)expect(
        "overwritten and read",
        "%past: f32[b, 2, n, 3] = input as \"past\"\n%new: f32[b, 2, 1, 3] = input as \"new\"\n%at: i64[b, 1] = input "
        "as \"n\"\n"
        "%all = scatter %past, %at, %new axis 2 batch 1\n%old = reduce_sum %past list [2]\noutput \"old\" %old\n"
        "output \"all\" %all\nstate 0 1 axis 2 scattered\n",
        0);
}

/* Two layers share kernels and a capacity; a state of other extents has its own. */
static void capacities(void **state)
{
    (void)state;
    const struct program *p =
        expect("three",
               "%k: f32[b, 2, p, 3] = input as \"k\"\n%v: f32[b, 2, p, 3] = input as \"v\"\n%w: f32[b, 2, n, 3] = "
               "input as \"w\"\n"
               "%new: f32[b, 2, s, 3] = input as \"new\"\n%k1 = concat %k, %new axis 2\n%v1 = concat %v, %new axis 2\n"
               "%w1 = concat %w, %new axis 2\noutput \"k1\" %k1\noutput \"v1\" %v1\noutput \"w1\" %w1\n"
               "state 0 0 axis 2 appended\nstate 1 1 axis 2 appended\nstate 2 2 axis 2 appended\n",
               3);
    uint32_t highest = 0;
    for (uint32_t i = 0; i < p->buffers.count; i++)
        highest = p->buffers.at[i].capacity > highest ? p->buffers.at[i].capacity : highest;
    assert_int_equal(highest, 1);
    assert_int_equal(p->kernels.count, 2);
}

static void lies_are_refused(void **state)
{
    (void)state;
    static const struct {
        const char *from, *to;
    } lies[] = {
        {"buffer state 0 capacity 0", "buffer state 1 capacity 0"},
        {"buffer state 0 capacity 0", "buffer state 9 capacity 0"},
        {"buffer state 0 capacity 0", "buffer state 0 capacity 1"},
        {"buffer state 0 capacity 0", "buffer state 0 capacity 7"},
        {"buffer state 0 capacity 0", "buffer input 0"},
        {"capacity 0 f32 [", "capacity 0 i32 ["},
        {"capacity 0 f32 [6*b*k:0]", "capacity 0 f32 [6*b*k:1]"},
        {"capacity 0 f32 [6*b*k:0]", "capacity 0 f32 [6*b*p]"},
        {"capacity 0 f32 [6*b*k:0]", "capacity 0 f32 [7*b*k:0]"},
        {"capacity 0 f32 [6*b*k:0]", "capacity 0 f32 [6*b]"},
        {"state 0 1 axis 2 appended", "state 0 1 axis 1 appended"},
        {"%1: f32[b, 2, p, 3]", "%1: f32[b, 2, k:0, 3]"},
    };
    const char *text = print(fused("lies", PAST "%all = concat %past, %new axis 2\n" READ APPENDED));
    for (size_t i = 0; i < sizeof lies / sizeof *lies; i++) {
        struct program *p = NULL;
        const char *at = strstr(text, lies[i].from), *body = strchr(text, '\n') + 1,
                   *end = strstr(text, "\nkernel") + 1;
        if (!at)
            fail_msg("no '%s' in\n%s", lies[i].from, text);
        long change = at < end ? (long)strlen(lies[i].to) - (long)strlen(lies[i].from) : 0;
        const char *lie = arena_printf(arena, "program graph %ld\n%.*s%s%s", (long)(end - body) + change,
                                       (int)(at - body), body, lies[i].to, at + strlen(lies[i].from));
        lines[0] = '\0';
        if (program_parse(arena, "lie", lie, strlen(lie), &diag, &p) == TPC_OK || !lines[0])
            fail_msg("'%s' is taken", lies[i].to);
    }
    /* A memory that is too small for the symbols' values is noticed before a step runs. */
    struct program *p = fused("small", PAST "%all = concat %past, %new axis 2\n" READ APPENDED);
    int64_t of[64];
    for (uint32_t s = 0; s < dims_symbol_count(p->graph->dims); s++)
        of[s] = strcmp(dims_symbol(p->graph->dims, s)->name, "k:0") == 0 ? 7 : 4;
    bool fits = true;
    for (uint32_t i = 0; i < p->steps.count; i++)
        fits = fits && program_step_fits(p, i, of);
    assert_false(fits);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(appended, setup, teardown),
        cmocka_unit_test_setup_teardown(read_in_all_ways, setup, teardown),
        cmocka_unit_test_setup_teardown(scattered, setup, teardown),
        cmocka_unit_test_setup_teardown(not_in_place, setup, teardown),
        cmocka_unit_test_setup_teardown(capacities, setup, teardown),
        cmocka_unit_test_setup_teardown(lies_are_refused, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
