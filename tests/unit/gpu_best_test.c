/* tests/unit/gpu_best_test.c - the largest of an output's lines, and draws from them, where the output is, on the fake GPUs: of one that every rank has whole, and of one that is gathered
 * from parts of lines, whose gathering is then left out; alone and in graphs, under NCCL and through host memory; and that a call that fails ends it cleanly.
 */
#include "frontend/compile.h"
#include "runtime/engine_impl.h"
#include "runtime/sample.h"
#include "runtime/tensor_file.h"
#include "tests/support/fake_gpus.h"
#include "tests/test.h"

#include <stdlib.h>
#include <unistd.h>

enum { WORDS = 23, WIDTH = 12, MOST = 8, PLACES = 2 };

static value param(struct graph *g, const char *name, int64_t rows)
{
    struct tensor t;
    int64_t shape[2] = {rows, WIDTH};
    assert_true(tensor_new(g->arena, &t, DT_F32, 2, shape));
    tensor_random(&t, g->params.count + 7, 0);
    *PUSH(g->arena, &g->params) = (struct param){.name = name,
                                                 .dtype = DT_F32,
                                                 .rank = 2,
                                                 .shape = arena_copy(g->arena, shape, sizeof shape),
                                                 .file = NO_FILE,
                                                 .length = tensor_bytes(&t),
                                                 .data = t.data};
    return graph_param(g, g->params.count - 1);
}

/* ids[batch, places] -> rows of a table, and these less than their largest number: whole on each rank, outputs 0 and 2; -> 23 logits, cut over the ranks unevenly and
 * gathered: output 1 */
static struct graph *model(struct arena *arena)
{
    struct graph *g = graph_new(arena);
    graph_set_origin(g, graph_add_origin(g, "test.onnx", 0, "model", "Test"));
    dim shape[] = {dim_symbol(g->dims, "batch"), dim_symbol(g->dims, "places"), dim_const(g->dims, WIDTH)};
    value ids = graph_input(g, "ids", DT_I64, 2, shape);
    value x = graph_gather(g, param(g, "table", WORDS), ids, 0, 0);
    graph_output(g, "x", graph_unary(g, OP_TANH, x));
    graph_output(g, "logits", graph_dot(g, x, param(g, "head", WORDS), 0, 1));
    value most = graph_reduce(g, OP_REDUCE_MAX, x, 1, (int32_t[]){2});
    graph_output(g, "least", graph_binary(g, OP_SUB, graph_broadcast(g, most, 3, shape, (int32_t[]){0, 1}), x));
    return g;
}

struct trial {
    struct arena *arena;
    struct compiled compiled;
    struct engine *engine;
};

static status open_trial(struct trial *t, uint32_t ranks, const struct engine_options *o)
{
    *t = (struct trial){.arena = arena_new()};
    assert_int_equal(
        compile_graph(t->arena, model(t->arena), &(struct compile_options){.ranks = ranks}, &fakes.diag, &t->compiled),
        TPC_OK);
    return engine_open(t->compiled.program, NULL, NULL, o, &fakes.diag, &t->engine);
}

static void end(struct trial *t)
{
    engine_close(t->engine);
    arena_free(t->arena);
}

static status run(struct trial *t, int64_t count, int64_t first)
{
    int64_t ids[MOST * PLACES], shape[] = {count, PLACES};
    struct tensor in;
    for (int64_t i = 0; i < count * PLACES; i++)
        ids[i] = (first + i * 5) % WORDS;
    assert_true(tensor_shape(&in, DT_I64, 2, shape));
    in.data = ids;
    return engine_run(t->engine, &in, NULL, &fakes.diag);
}

/* Places of the largest of each row of an output, on CPUs. */
static void reference(uint32_t output, int64_t count, int64_t first, int64_t *place)
{
    struct trial t;
    struct tensor y;
    assert_int_equal(open_trial(&t, 1, NULL), TPC_OK);
    engine_want_best(t.engine, output, 2, UINT32_MAX, NULL, NULL); /* CPUs have the output at hand */
    assert_int_equal(run(&t, count, first), TPC_OK);
    assert_false(engine_best(t.engine, 0, &place[0]));
    assert_int_equal(engine_output(t.engine, output, &fakes.diag, &y), TPC_OK);
    int64_t extent = y.shape[2];
    const float *at = (float *)y.data + (PLACES - 1) * extent;
    for (int64_t row = 0; row < count; row++, at += PLACES * extent) {
        place[row] = 0;
        for (int64_t i = 1; i < extent; i++)
            place[row] = at[i] > at[place[row]] ? i : place[row];
    }
    end(&t);
}

/* Runs of several shapes that want several numbers of rows, each made ready for what the one before it wants. */
static void try_output(uint32_t output, uint32_t ranks, bool host)
{
    enum { RUNS = 12 };
    static const int64_t count[RUNS] = {3, 3, 3, 7, 7, 7, 7, 3, 2, 3, 3, 3};
    static const int64_t wanted[RUNS] = {2, 2, 2, 7, 7, 0, 5, 3, 3, 0, 0, 2};
    struct engine_options o = {.kind = ENGINE_CUDA, .host_collectives = host};
    struct trial t;
    bool cut = output == 1 && ranks > 1;
    uint64_t without = 0, all = 0;
    assert_int_equal(open_trial(&t, ranks, &o), TPC_OK);
    for (size_t k = 0; k < RUNS; k++) {
        static int64_t known_most[3][RUNS][MOST]; /* asked for once: with one rank, under NCCL */
        int64_t *most = known_most[output][k], place;
        struct tensor next, y;
        uint64_t before = engine_stats(t.engine)->collectives;
        bool known = wanted[k] <= count[k]; /* else there are fewer rows: the output has to be looked at */
        if (ranks == 1 && !host)
            reference(output, count[k], (int64_t)k, most);
        engine_want_best(t.engine, output, wanted[k], UINT32_MAX, NULL, NULL);
        assert_true(tensor_shape(&next, DT_I64, 2, (int64_t[]){count[k + 1 < RUNS ? k + 1 : 0], PLACES}));
        engine_expect(t.engine, &next, NULL, false, NULL);
        assert_int_equal(run(&t, count[k], (int64_t)k), TPC_OK);
        for (int64_t row = 0; row < wanted[k]; row++) {
            assert_int_equal(engine_best(t.engine, row, &place), known);
            if (known)
                assert_int_equal(place, most[row]);
        }
        assert_false(engine_best(t.engine, wanted[k], &place));
        bool there = !cut || !known || wanted[k] == 0;
        *(there ? &all : &without) = engine_stats(t.engine)->collectives - before;
        assert_int_equal(engine_output(t.engine, output, &fakes.diag, &y), there ? TPC_OK : TPC_USAGE);
        assert_int_equal(engine_output(t.engine, output == 0, &fakes.diag, &y), TPC_OK);
    }
    assert_true(!cut || all == without + 1);
    assert_true((host && ranks > 1) || engine_stats(t.engine)->graph_launches > 2);
    end(&t);
    assert_int_equal(fakes.live(), 0);
}

static void finds_the_largest(void **state)
{
    (void)state;
    for (uint32_t ranks = 1; ranks <= 3; ranks++)
        for (uint32_t output = 0; output < 3; output++) {
            try_output(output, ranks, false);
            try_output(output, ranks, true);
        }
}

static const struct sampling samplings[] = {{0.8, 0, 0, 1}, {1.5, 9, 0.7, 4}};
enum { SAMPLINGS = sizeof samplings / sizeof *samplings, ROWS = 3 };

/* What CPUs draw, from the lines at `place`. */
static void reference_draw(struct trial *cpu, uint32_t output, const struct sampling *s, uint64_t step, int64_t first,
                           const int64_t *place, int64_t *drawn)
{
    struct tensor y;
    assert_int_equal(run(cpu, ROWS, first), TPC_OK);
    assert_int_equal(engine_output(cpu->engine, output, &fakes.diag, &y), TPC_OK);
    size_t extent = (size_t)y.shape[2];
    for (uint64_t row = 0; row < ROWS; row++)
        drawn[row] = sample_token(s, &y, (row * PLACES + (uint64_t)place[row]) * extent, extent, row, step);
}

static const int64_t last[ROWS] = {PLACES - 1, PLACES - 1, PLACES - 1}, mixed[ROWS] = {0, 1, 1},
                     none[ROWS] = {1, 1, PLACES};

/* Of steps that follow each other, and one that does not; each is a launch of a graph from the third on. With and without cuts; of the last lines and, in the end, of others. */
static void try_draws(struct trial *cpu, uint32_t output, uint32_t ranks, bool host, const struct sampling *s)
{
    static const uint64_t steps[] = {0, 1, 2, 3, UINT64_C(1) << 40, 5, 6};
    static const int64_t *const places[] = {last, last, last, last, last, mixed, none};
    enum { RUNS = sizeof steps / sizeof *steps };
    struct engine_options o = {.kind = ENGINE_CUDA, .host_collectives = host};
    struct trial t;
    int64_t most[ROWS], place;
    assert_int_equal(open_trial(&t, ranks, &o), TPC_OK);
    for (size_t k = 0; k < RUNS; k++) {
        struct tensor next, y;
        uint64_t launches = engine_stats(t.engine)->launches;
        bool cut = output == 1 && ranks > 1, there = places[k] != none;
        struct engine_lines lines = {steps[k], places[k] == last ? NULL : places[k]}, then = {steps[k] + 1, NULL};
        reference_draw(cpu, output, s, steps[k], (int64_t)k, there ? places[k] : last, most);
        engine_want_best(t.engine, output, ROWS, UINT32_MAX, s, &lines);
        assert_true(tensor_shape(&next, DT_I64, 2, (int64_t[]){ROWS, PLACES}));
        engine_expect(t.engine, &next, NULL, false, &then);
        assert_int_equal(run(&t, ROWS, (int64_t)k), TPC_OK);
        for (int64_t row = 0; row < ROWS; row++) {
            assert_int_equal(engine_best(t.engine, row, &place), there);
            if (there && place != most[row])
                fail_msg("%u ranks, output %u, step %zu, row %lld: %lld, not %lld", ranks, output, k, (long long)row,
                         (long long)place, (long long)most[row]);
        }
        assert_int_equal(engine_output(t.engine, output, &fakes.diag, &y), cut ? TPC_USAGE : TPC_OK);
        if (k > 2 && places[k] == last && !(host && ranks > 1))
            assert_int_equal(engine_stats(t.engine)->launches, launches);
    }
    end(&t);
    assert_int_equal(fakes.live(), 0);
}

static void draws(void **state)
{
    static const struct sampling greedy = {0}; /* lines beside the last ones are told of it, too */
    (void)state;
    struct trial cpu;
    assert_int_equal(open_trial(&cpu, 1, NULL), TPC_OK);
    for (uint32_t ranks = 1; ranks <= 4; ranks *= 2)
        for (size_t i = 0; i < SAMPLINGS; i++)
            try_draws(&cpu, 1, ranks, false, &samplings[i]);
    try_draws(&cpu, 1, 2, true, &samplings[1]);
    try_draws(&cpu, 0, 2, false, &samplings[1]);
    try_draws(&cpu, 1, 2, false, &greedy);
    try_draws(&cpu, 0, 1, false, &greedy);
    end(&cpu);
}

/* What a run finds is what the next one is given, which begins early; where ranks have parts of the lines, and where all have all of them. */
static void go_on(uint32_t ranks, uint32_t output)
{
    enum { STEPS = 8 };
    struct trial t, cpu;
    int64_t shape[2] = {ROWS, 1}, ids[ROWS] = {3, 7, 1}, found[ROWS];
    struct tensor in, next, y;
    assert_int_equal(open_trial(&t, ranks, &(struct engine_options){.kind = ENGINE_CUDA}), TPC_OK);
    assert_int_equal(open_trial(&cpu, 1, NULL), TPC_OK);
    assert_true(tensor_shape(&in, DT_I64, 2, shape) && tensor_shape(&next, DT_I64, 2, shape));
    in.data = ids;
    for (uint64_t step = 0; step < STEPS; step++) {
        struct engine_lines now = {.step = step}, then = {.step = step + 1};
        assert_int_equal(engine_run(cpu.engine, &in, NULL, &fakes.diag), TPC_OK);
        assert_int_equal(engine_output(cpu.engine, output, &fakes.diag, &y), TPC_OK);
        engine_want_best(t.engine, output, ROWS, 0, &samplings[0], &now);
        engine_expect(t.engine, &next, NULL, step + 1 < STEPS, &then);
        assert_int_equal(engine_run(t.engine, &in, NULL, &fakes.diag), TPC_OK);
        for (int64_t row = 0; row < ROWS; row++) {
            size_t extent = (size_t)y.shape[2];
            assert_true(engine_best(t.engine, row, &found[row]));
            assert_int_equal(found[row],
                             sample_token(&samplings[0], &y, (size_t)row * extent, extent, (uint64_t)row, step));
        }
        memcpy(ids, found, sizeof ids);
    }
    for (uint32_t r = 0; r < ranks; r++) /* what the last one found is with every rank, in memory of fakes */
        assert_memory_equal(t.engine->rank[r].input[0].at, found, sizeof found);
    assert_true(engine_stats(t.engine)->early >= STEPS - 4);
    assert_int_equal(engine_stats(t.engine)->dropped, 0);
    end(&cpu);
    end(&t);
    assert_int_equal(fakes.live(), 0);
}

static void goes_on_with_what_it_finds(void **state)
{
    (void)state;
    go_on(1, 1);
    go_on(2, 0);
    go_on(2, 1);
}

static void every_call_may_fail(void **state)
{
    static const struct sampling nucleus = {1, 0, 0.8, 3};
    static const struct engine_lines fifth = {.step = 5};
    (void)state;
    uint64_t step = sanitized() ? 37 : 17, failed = 0;
    int64_t most[MOST], drawn[ROWS], place;
    struct trial cpu;
    reference(1, 3, 1, most);
    assert_int_equal(open_trial(&cpu, 1, NULL), TPC_OK);
    reference_draw(&cpu, 1, &nucleus, 5, 1, last, drawn);
    end(&cpu);
    for (uint32_t host = 0; host < 2; host++)
        for (uint64_t n = 1;; n += step) {
            struct trial t;
            uint64_t before = fakes.calls();
            fakes.lines = 0;
            fakes.fail_after(n);
            status s = open_trial(&t, 2, &(struct engine_options){.kind = ENGINE_CUDA, .host_collectives = host});
            for (int64_t k = 0; k < 3 && s == TPC_OK; k++) {
                bool largest = k == 0;
                engine_want_best(t.engine, 1, largest ? 1 : 3, UINT32_MAX, largest ? NULL : &nucleus, &fifth);
                s = run(&t, 3, 1);
                assert_true(s != TPC_OK || (engine_best(t.engine, largest ? 0 : 2, &place) &&
                                            place == (largest ? most[0] : drawn[2])));
            }
            end(&t);
            fakes.fail_after(0);
            if ((s != TPC_OK && fakes.lines != 1) || fakes.live() != 0)
                fail_msg("call %llu fails: %d lines, the last is '%s', %lld objects are left", (unsigned long long)n,
                         fakes.lines, fakes.last_line, (long long)fakes.live());
            failed += s != TPC_OK;
            if (n > fakes.calls() - before)
                break;
        }
    assert_true(failed > 10);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(finds_the_largest), cmocka_unit_test(draws),
                                       cmocka_unit_test(goes_on_with_what_it_finds),
                                       cmocka_unit_test(every_call_may_fail)};
    alarm(240); /* nothing may wait for ever */
    return cmocka_run_group_tests(tests, open_fakes, NULL);
}
