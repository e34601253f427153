/* tests/unit/gpu_generate_test.c - generation on GPUs, with the fake libraries of tests/fake_cuda: a step is one launch of a graph, which is queued before the host has
 * looked at the last one's token; the text is the CPU's whenever it ends and whatever fails.
 */
#include "frontend/compile.h"
#include "runtime/generate.h"
#include "tests/support/fake_gpus.h"
#include "tests/test.h"

#include <stdlib.h>
#include <unistd.h>

/* ---- a model -------------------------------------------------------------------------------------------------------------------- */

/* A decoder whose caches grow. */
struct model {
    struct arena *arena;
    struct plan plan;
};
enum { MODELS = 2 };
static struct model on_ranks[MODELS + 1];

static void make_model(struct model *m, uint32_t ranks)
{
    struct compiled c;
    const char *source = getenv("SOURCE");
    struct compile_options o = {.ranks = ranks};
    m->arena = arena_new();
    const char *folder = arena_printf(m->arena, "%s/tests/models/llama-past-opt18", source ? source : ".");
    assert_int_equal(compile_model(m->arena, arena_printf(m->arena, "%s/model.onnx", folder), &o, &fakes.diag, &c),
                     TPC_OK);
    m->plan = (struct plan){.program = c.program, .folder = folder};
    m->plan.links.input = NEW_ARRAY(m->arena, const struct placement *, c.graph->inputs.count);
    for (uint32_t i = 0; i < c.graph->inputs.count; i++)
        m->plan.links.input[i] = c.solution->result[c.graph->inputs.at[i].value];
    m->plan.links.output = c.solution->output;
}

static int open_models(void **state)
{
    for (uint32_t ranks = 1; ranks <= MODELS; ranks++)
        make_model(&on_ranks[ranks], ranks);
    return open_fakes(state);
}

static int close_models(void **state)
{
    (void)state;
    for (uint32_t ranks = 1; ranks <= MODELS; ranks++)
        arena_free(on_ranks[ranks].arena);
    return 0;
}

/* ---- texts ------------------------------------------------------------------------------------------------------------------------- */

enum { TOKENS = 11, WARM = 4 };

struct writing {
    const struct engine *engine;
    int64_t token[TOKENS];
    struct engine_stats after[TOKENS];
    size_t count, most;
};

static bool take(void *user, size_t rows, const int64_t *token)
{
    struct writing *w = user;
    assert_int_equal(rows, 1);
    w->after[w->count] = *engine_stats(w->engine);
    w->token[w->count++] = token[0];
    return w->count != w->most;
}

static status open_model(uint32_t ranks, engine_kind kind, struct engine **out)
{
    const struct plan *plan = &on_ranks[ranks].plan;
    struct engine_options options = {.threads = 1, .kind = kind};
    return engine_open(plan->program, &plan->links, plan->folder, &options, &fakes.diag, out);
}

static const struct sampling greedy = {0}, drawn = {.temperature = 1.3, .top_k = 60, .top_p = 0.9, .seed = 3};
static const struct sampling *sampling = &greedy; /* of all texts */

/* Until `most` are written; 0: all. */
static status write_text(struct engine *engine, uint32_t ranks, int64_t context, size_t most, struct writing *out)
{
    static const int64_t ids[] = {5, 17, 3, 90, 41};
    static const struct prompt prompt = {ids, 5};
    struct arena *arena = arena_new();
    *out = (struct writing){.engine = engine, .most = most};
    struct generate_options g = {
        .prompt = &prompt, .rows = 1, .count = TOKENS, .context = context, .step = take, .user = out};
    g.sampling = *sampling;
    status s = generate(engine, &on_ranks[ranks].plan, &g, arena, &fakes.diag);
    arena_free(arena);
    return s;
}

static void write_all(uint32_t ranks, engine_kind kind, int64_t context, struct writing *out)
{
    struct engine *engine;
    assert_int_equal(open_model(ranks, kind, &engine), TPC_OK);
    assert_int_equal(write_text(engine, ranks, context, 0, out), TPC_OK);
    assert_int_equal(out->count, TOKENS);
    engine_close(engine);
    if (kind == ENGINE_CUDA)
        assert_int_equal(fakes.live(), 0);
}

/* ---- tests ---------------------------------------------------------------------------------------------------------------------- */

/* Of a step that was expected nothing is launched by itself, and one graph is, which has begun before the last one's token was looked at. */
static void a_step_is_one_launch(void **state)
{
    sampling = state ? &greedy : &drawn;
    static struct writing cpu, gpu;
    for (uint32_t ranks = 1; ranks <= MODELS; ranks++) {
        write_all(ranks, ENGINE_CPU, 0, &cpu);
        write_all(ranks, ENGINE_CUDA, TOKENS + 5, &gpu);
        assert_memory_equal(cpu.token, gpu.token, sizeof cpu.token);
        for (size_t i = WARM; i + 1 < TOKENS; i++) {
            const struct engine_stats *before = &gpu.after[i - 1], *after = &gpu.after[i];
            assert_int_equal(after->graph_launches, before->graph_launches + 1);
            assert_int_equal(after->launches, before->launches);
            assert_int_equal(after->products, before->products);
            assert_int_equal(after->graphs, before->graphs);
            assert_int_equal(after->early - before->early, 1);
        }
        const struct engine_stats *s = &gpu.after[TOKENS - 1];
        assert_true(s->graphs <= 2 && s->graph_updates >= TOKENS - WARM - 1);
        assert_true(s->graph_nodes < s->graph_kernels); /* some stay as they are */
        assert_true(s->graph_overlaps > 0);
        assert_int_equal(s->dropped, 0); /* none is begun behind the last one */
        assert_int_equal(s->runs, TOKENS);
        if (sampling == &drawn)
            continue;
        write_all(ranks, ENGINE_CUDA, 0, &gpu); /* a cache that grows moves, which changes addresses but not the kind */
        assert_memory_equal(cpu.token, gpu.token, sizeof cpu.token);
        assert_true(gpu.after[TOKENS - 1].graphs <= 2);
    }
}

static void a_drawn_step_is_one_launch(void **state)
{
    (void)state;
    a_step_is_one_launch(NULL);
    sampling = &greedy;
}

/* What the run that has begun writes over is not handed out. */
static void expect_outputs(struct engine *engine, uint32_t ranks)
{
    const struct graph *g = on_ranks[ranks].plan.program->graph;
    struct tensor t;
    for (uint32_t o = 0; o < g->outputs.count; o++) {
        bool of_state = false;
        for (uint32_t s = 0; s < g->states.count; s++)
            of_state = of_state || g->states.at[s].output == o;
        assert_int_equal(engine_output(engine, o, &fakes.diag, &t), of_state ? TPC_OK : TPC_USAGE);
    }
}

/* A text that ends in the middle leaves a run that has begun: it is dropped, and the next text is as if it had not been. */
static void stops_anywhere(void **state)
{
    (void)state;
    static struct writing cpu, gpu;
    struct engine *engine;
    write_all(1, ENGINE_CPU, 0, &cpu);
    for (uint32_t ranks = 1; ranks <= MODELS; ranks++) {
        assert_int_equal(open_model(ranks, ENGINE_CUDA, &engine), TPC_OK);
        for (size_t most = 6; most < 8; most++) {
            assert_int_equal(write_text(engine, ranks, TOKENS + 5, most, &gpu), TPC_OK);
            assert_int_equal(gpu.count, most);
            assert_memory_equal(cpu.token, gpu.token, most * sizeof *cpu.token);
            expect_outputs(engine, ranks);
        }
        assert_int_equal(engine_stats(engine)->dropped, 1); /* the second is there still */
        engine_close(engine);
        assert_int_equal(fakes.live(), 0);
    }
}

/* A warm engine writes while the n-th call fails, of those of `name` where it is given (NULL: of all); n 0: none. The calls it made. */
static uint64_t write_failing(uint32_t ranks, const char *name, uint64_t n, const struct writing *cpu, uint32_t *failed)
{
    static struct writing gpu;
    struct engine *engine;
    assert_int_equal(open_model(ranks, ENGINE_CUDA, &engine), TPC_OK);
    assert_int_equal(write_text(engine, ranks, TOKENS + 5, 4, &gpu), TPC_OK); /* warm */
    fakes.lines = 0;
    uint64_t before = fakes.calls();
    fakes.fail_after(name ? 0 : n);
    if (name)
        fakes.fail_of(name, n);
    status s = write_text(engine, ranks, TOKENS + 5, 4, &gpu);
    uint64_t made = fakes.calls() - before;
    fakes.fail_after(0);
    fakes.fail_of("", 0);
    engine_close(engine);
    *failed += s != TPC_OK;
    if (s != TPC_OK && fakes.lines != 1)
        fail_msg("call %llu fails: %d lines, the last is '%s'", (unsigned long long)n, fakes.lines, fakes.last_line);
    if (fakes.live() != 0)
        fail_msg("call %llu fails with '%s': %lld objects are left", (unsigned long long)n, fakes.last_line,
                 (long long)fakes.live());
    if (s == TPC_OK)
        assert_memory_equal(cpu->token, gpu.token, 4 * sizeof *cpu->token);
    return made;
}

/* A call that fails, among those of steps that begin early; of two ranks one alone does not begin. */
static void calls_may_fail(void **state)
{
    (void)state;
    static struct writing cpu;
    uint32_t failed = 0, tries = 8;
    write_all(1, ENGINE_CPU, 0, &cpu);
    uint64_t made = write_failing(1, NULL, 0, &cpu, &failed);
    for (uint32_t i = 1; i <= tries; i++)
        (void)write_failing(1, NULL, made * i / tries, &cpu, &failed);
    assert_true(failed > 3);
    failed = 0;
    for (uint64_t n = 2; n <= 6; n += 2)
        (void)write_failing(2, "cuGraphLaunch", n, &cpu, &failed);
    (void)write_failing(2, "cuMemcpyHtoDAsync_v2", 5, &cpu, &failed);
    assert_int_equal(failed, 4);
}

/* The prompt on one plan, the rest on another: its states are copied on their GPU, and never seen by the host. */
static void taken_from_another_plan(void **state)
{
    (void)state;
    static struct writing cpu, gpu;
    static const int64_t ids[] = {5, 17, 3, 90, 41};
    static const struct prompt prompt = {ids, 5};
    for (uint32_t ranks = 1; ranks <= MODELS; ranks++) {
        struct engine *one, *two;
        struct arena *arena = arena_new();
        write_all(ranks, ENGINE_CPU, 0, &cpu);
        assert_int_equal(open_model(ranks, ENGINE_CUDA, &one), TPC_OK);
        assert_int_equal(open_model(ranks, ENGINE_CUDA, &two), TPC_OK);
        struct generate_first first = {one, &on_ranks[ranks].plan, NULL};
        struct generate_options g = {
            .prompt = &prompt, .rows = 1, .count = TOKENS, .first = &first, .step = take, .user = &gpu};
        for (int twice = 0; twice < 2; twice++) {
            gpu = (struct writing){.engine = two};
            assert_int_equal(generate(two, &on_ranks[ranks].plan, &g, arena, &fakes.diag), TPC_OK);
            assert_memory_equal(cpu.token, gpu.token, sizeof cpu.token);
        }
        for (uint32_t i = 0; i < ranks; i++) {
            assert_true(engine_stats(two)->rank[i].state_taken > 0);
            assert_int_equal(engine_stats(two)->rank[i].state_given, 0);
        }
        engine_close(one);
        engine_close(two);
        arena_free(arena);
        assert_int_equal(fakes.live(), 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_step_is_one_launch),    cmocka_unit_test(a_drawn_step_is_one_launch),
        cmocka_unit_test(stops_anywhere),          cmocka_unit_test(calls_may_fail),
        cmocka_unit_test(taken_from_another_plan),
    };
    alarm(240); /* nothing may wait for ever */
    return cmocka_run_group_tests(tests, open_models, close_models);
}
