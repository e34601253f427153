/* tests/unit/gpu_engine_test.c - the engine on GPUs, with the fake libraries of tests/fake_cuda: what it computes, how often it launches what, and that a call that
 * fails, wherever it is, ends cleanly: one line, nothing left behind, nothing that waits.
 */
#include "frontend/compile.h"
#include "runtime/device_cuda.h"
#include "runtime/engine.h"
#include "runtime/plan.h"
#include "runtime/tensor_file.h"
#include "runtime/tpc.h"
#include "tests/support/fake_gpus.h"
#include "tests/test.h"

#include <math.h>
#include <stdlib.h>
#include <unistd.h>

/* ---- a model ------------------------------------------------------------------------------------------------------------------ */

enum { WORDS = 23, WIDTH = 12, INNER = 24 };

static value param(struct graph *g, const char *name, uint32_t rank, const int64_t *shape)
{
    struct tensor t;
    assert_true(tensor_new(g->arena, &t, DT_F32, rank, shape));
    tensor_random(&t, g->params.count + 7, 0);
    for (size_t i = 0; i < t.count; i++)
        ((float *)t.data)[i] *= 0.2f;
    *PUSH(g->arena, &g->params) = (struct param){.name = name,
                                                 .dtype = DT_F32,
                                                 .rank = rank,
                                                 .shape = arena_copy(g->arena, shape, rank * sizeof *shape),
                                                 .file = NO_FILE,
                                                 .length = tensor_bytes(&t),
                                                 .data = t.data};
    return graph_param(g, g->params.count - 1);
}

/* ids[batch] -> rows of a table -> 24 -> tanh -> 12, plus the rows, minus their maximum */
static struct graph *model(struct arena *arena)
{
    struct graph *g = graph_new(arena);
    graph_set_origin(g, graph_add_origin(g, "test.onnx", 0, "model", "Test"));
    dim batch = dim_symbol(g->dims, "batch"), shape[] = {batch, dim_const(g->dims, WIDTH)};
    value ids = graph_input(g, "ids", DT_I64, 1, &batch);
    value x = graph_gather(g, param(g, "table", 2, (int64_t[]){WORDS, WIDTH}), ids, 0, 0);
    value up = graph_dot(g, x, param(g, "up", 2, (int64_t[]){INNER, WIDTH}), 0, 1);
    value down = graph_dot(g, graph_unary(g, OP_TANH, up), param(g, "down", 2, (int64_t[]){WIDTH, INNER}), 0, 1);
    value sum = graph_binary(g, OP_ADD, x, down);
    value most = graph_reduce(g, OP_REDUCE_MAX, sum, 1, (int32_t[]){1});
    graph_output(g, "y", graph_binary(g, OP_SUB, sum, graph_broadcast(g, most, 2, shape, (int32_t[]){0})));
    return g;
}

struct trial {
    struct arena *arena;
    struct compiled compiled;
    struct engine *engine;
};

static void compile(struct trial *t, uint32_t ranks)
{
    *t = (struct trial){.arena = arena_new()};
    struct graph *g = model(t->arena);
    assert_int_equal(compile_graph(t->arena, g, &(struct compile_options){.ranks = ranks}, &fakes.diag, &t->compiled),
                     TPC_OK);
}

static status open_on(struct trial *t, const struct engine_options *o)
{
    return engine_open(t->compiled.program, NULL, NULL, o, &fakes.diag, &t->engine);
}

static void end(struct trial *t)
{
    engine_close(t->engine);
    arena_free(t->arena);
}

static status run_ids(struct trial *t, int64_t count, int64_t first, float *out)
{
    int64_t ids[64];
    struct tensor in, y;
    for (int64_t i = 0; i < count; i++)
        ids[i] = i == 0 ? first : (i * 5) % WORDS;
    assert_true(tensor_shape(&in, DT_I64, 1, &count));
    in.data = ids;
    status s = engine_run(t->engine, &in, NULL, &fakes.diag);
    if (s == TPC_OK && (s = engine_output(t->engine, 0, &fakes.diag, &y)) == TPC_OK)
        memcpy(out, y.data, tensor_bytes(&y));
    return s;
}

static void expect(const float *got, const float *wanted, int64_t count)
{
    for (int64_t i = 0; i < count * WIDTH; i++)
        if (fabsf(got[i] - wanted[i]) > 1e-5f)
            fail_msg("element %lld is %g, not %g", (long long)i, (double)got[i], (double)wanted[i]);
}

/* What CPU ranks compute. */
static void on_cpu(uint32_t ranks, int64_t count, int64_t first, float *out)
{
    struct trial t;
    compile(&t, ranks);
    assert_int_equal(open_on(&t, NULL), TPC_OK);
    assert_int_equal(run_ids(&t, count, first, out), TPC_OK);
    end(&t);
}

/* ---- tests ---------------------------------------------------------------------------------------------------------------------- */

static void equals_the_cpu(void **state)
{
    (void)state;
    static float got[64 * WIDTH], wanted[64 * WIDTH];
    for (uint32_t ranks = 1; ranks <= 4; ranks++)
        for (int host = 0; host < 2; host++) {
            struct trial t;
            compile(&t, ranks);
            assert_int_equal(open_on(&t, &(struct engine_options){.kind = ENGINE_CUDA, .host_collectives = host}),
                             TPC_OK);
            for (int64_t count = 1; count < 30; count += 9)
                for (int64_t again = 0; again < 4; again++) {
                    on_cpu(ranks, count, again, wanted);
                    assert_int_equal(run_ids(&t, count, again, got), TPC_OK);
                    expect(got, wanted, count);
                }
            end(&t);
            assert_int_equal(fakes.live(), 0);
        }
}

/* The public interface: the same plan on GPUs and on CPUs. */
static void public_interface(void **state)
{
    (void)state;
    static float wanted[3 * WIDTH];
    struct trial t;
    compile(&t, 2);
    struct plan_contents contents = {.program = t.compiled.program, .decisions = "{}"};
    assert_int_equal(plan_write(t.arena, "gpu.bin", &contents, &fakes.diag), TPC_OK);
    on_cpu(2, 3, 2, wanted);
    const uint32_t gpus[] = {2, 1}, shared[] = {0, 0}, no_such[] = {0, 9};
    const tpc_options good[] = {{.device = TPC_DEVICE_CUDA},
                                {.device = TPC_DEVICE_CUDA, .gpus = gpus, .gpu_count = 2},
                                {.device = TPC_DEVICE_CUDA, .gpus = shared, .gpu_count = 2, .host_collectives = true},
                                {.threads = 1}};
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        tpc_model *m = NULL;
        int64_t ids[] = {2, 5, 10};
        tpc_tensor in = {TPC_TYPE_I64, 1, {3}, ids}, out;
        assert_int_equal(tpc_open_on("gpu.bin", &good[i], &m), 0);
        assert_int_equal(tpc_bind(m, 0, &in), 0);
        assert_int_equal(tpc_run(m), 0);
        assert_int_equal(tpc_output(m, 0, &out), 0);
        expect(out.data, wanted, 3);
        tpc_close(m);
        assert_int_equal(fakes.live(), 0);
    }
    tpc_model *m = NULL;
    tpc_options bad = {.device = TPC_DEVICE_CUDA, .gpus = no_such, .gpu_count = 2};
    assert_int_equal(tpc_open_on("gpu.bin", &bad, &m), TPC_RESULT_UNSUPPORTED);
    assert_non_null(strstr(tpc_error(), "no GPU 9"));
    bad.gpu_count = 1;
    assert_int_equal(tpc_open_on("gpu.bin", &bad, &m), TPC_RESULT_USAGE);
    bad = (tpc_options){.device = (tpc_device)7};
    assert_int_equal(tpc_open_on("gpu.bin", &bad, &m), TPC_RESULT_USAGE);
    assert_int_equal(fakes.live(), 0);
    end(&t);
}

/* The second run of a kind is recorded, later ones are one launch each. Where collectives have other sizes it is another kind. */
static void repeats_are_one_launch(void **state)
{
    (void)state;
    static float out[64 * WIDTH], wanted[64 * WIDTH];
    for (uint32_t ranks = 1; ranks <= 2; ranks++) {
        struct trial t;
        struct engine_stats before, after;
        compile(&t, ranks);
        assert_int_equal(open_on(&t, &(struct engine_options){.kind = ENGINE_CUDA}), TPC_OK);
        assert_int_equal(run_ids(&t, 3, 0, out), TPC_OK);
        before = *engine_stats(t.engine);
        assert_true(before.launches > 0 && before.graphs == 0 && before.graph_launches == 0);
        assert_int_equal(run_ids(&t, 3, 1, out), TPC_OK);
        after = *engine_stats(t.engine);
        assert_true(after.graphs == 1 && after.graph_launches == 1 && after.graph_updates == 0);
        before = after;
        uint64_t calls_before = fakes.calls();
        assert_int_equal(run_ids(&t, 3, 2, out), TPC_OK);
        after = *engine_stats(t.engine);
        assert_true(after.launches == before.launches && after.products == before.products);
        assert_true(after.graphs == 1 && after.graph_launches == 2 && after.graph_updates == 0);
        assert_true(fakes.calls() - calls_before < 40 * ranks); /* inputs, the graph, the fault cell, the output */
        for (int64_t count = 5; count < 8; count++) {
            before = *engine_stats(t.engine);
            assert_int_equal(run_ids(&t, count, 2, out), TPC_OK);
            after = *engine_stats(t.engine);
            bool same_kind = ranks == 1;
            assert_int_equal(after.graph_updates - before.graph_updates, same_kind);
            assert_int_equal(after.graph_launches - before.graph_launches, same_kind);
            assert_int_equal(after.launches == before.launches, same_kind);
            on_cpu(ranks, count, 2, wanted);
            expect(out, wanted, count);
        }
        for (uint32_t again = 0; again < ranks; again++) /* collectives are recorded anew where memory has moved */
            assert_int_equal(run_ids(&t, 3, 2, out), TPC_OK);
        assert_int_equal(engine_stats(t.engine)->graphs, ranks);
        assert_int_equal(engine_stats(t.engine)->graph_launches, after.graph_launches + 1);
        on_cpu(ranks, 3, 2, wanted);
        expect(out, wanted, 3);
        end(&t);
        assert_int_equal(fakes.live(), 0);
    }
}

/* Each call in turn fails. */
static void every_call_may_fail(void **state)
{
    (void)state;
    static float got[64 * WIDTH], wanted[64 * WIDTH];
    static const int64_t runs[] = {3, 3, 4, 3}; /* one by one; recorded; of the same kind; again */
    uint64_t slow = sanitized() ? 3 : 1;        /* then not quite each */
    for (uint32_t ranks = 1; ranks <= 2; ranks++) {
        on_cpu(ranks, 3, 2, wanted);
        uint32_t failed = 0;
        for (uint64_t n = 1;; n += (ranks == 1 ? 2 : 7) * slow) {
            struct trial t;
            compile(&t, ranks);
            fakes.lines = 0;
            uint64_t before = fakes.calls();
            fakes.fail_after(n);
            status s = open_on(&t, &(struct engine_options){.kind = ENGINE_CUDA});
            for (size_t k = 0; k < sizeof runs / sizeof *runs && s == TPC_OK; k++) {
                engine_want_best(t.engine, 0, (int64_t)k, UINT32_MAX, NULL, NULL);
                s = run_ids(&t, runs[k], 2, got);
            }
            end(&t);
            fakes.fail_after(0);
            uint64_t made = fakes.calls() - before;
            if (s != TPC_OK && fakes.lines != 1)
                fail_msg("call %llu fails: %d lines, the last is '%s'", (unsigned long long)n, fakes.lines,
                         fakes.last_line);
            if (fakes.live() != 0)
                fail_msg("call %llu fails with '%s': %lld objects are left", (unsigned long long)n, fakes.last_line,
                         (long long)fakes.live());
            failed += s != TPC_OK;
            if (s == TPC_OK)
                expect(got, wanted, 3);
            if (n > made)
                break;
        }
        assert_true(failed > 20 / slow);
    }
}

/* Without the rank: all ranks meet it, and any may be the first to say so. */
static const char *behind_rank(const char *line)
{
    const char *colon = strncmp(line, "rank ", 5) == 0 ? strstr(line, ": ") : NULL;
    return colon ? colon : line;
}

static void index_out_of_range(void **state)
{
    (void)state;
    static float got[64 * WIDTH], wanted[64 * WIDTH];
    char on_cpu_line[sizeof fakes.last_line];
    for (uint32_t ranks = 1; ranks <= 2; ranks++) {
        struct trial t;
        compile(&t, ranks);
        assert_int_equal(open_on(&t, NULL), TPC_OK);
        assert_int_equal(run_ids(&t, 3, WORDS, got), TPC_DATA);
        memcpy(on_cpu_line, fakes.last_line, sizeof fakes.last_line);
        end(&t);
        on_cpu(ranks, 3, 1, wanted);
        compile(&t, ranks);
        assert_int_equal(open_on(&t, &(struct engine_options){.kind = ENGINE_CUDA}), TPC_OK);
        for (int k = 0; k < 3; k++) {
            fakes.lines = 0;
            assert_int_equal(run_ids(&t, 3, WORDS, got), TPC_DATA);
            assert_int_equal(fakes.lines, 1);
            assert_string_equal(behind_rank(fakes.last_line), behind_rank(on_cpu_line));
            assert_int_equal(run_ids(&t, 3, 1, got), TPC_OK); /* it goes on */
            expect(got, wanted, 3);
        }
        end(&t);
        assert_int_equal(fakes.live(), 0);
    }
}

/* A collective that fails later ends all ranks; the next run makes new communicators. */
static void nccl_fails(void **state)
{
    (void)state;
    static float got[64 * WIDTH], wanted[64 * WIDTH];
    on_cpu(3, 3, 1, wanted);
    for (int n = 1; n <= 3; n++) {
        char number[8];
        struct trial t;
        compile(&t, 3);
        assert_int_equal(open_on(&t, &(struct engine_options){.kind = ENGINE_CUDA}), TPC_OK);
        snprintf(number, sizeof number, "%d", n);
        setenv("TPC_FAKE_NCCL_FAIL", number, 1);
        status s = TPC_OK;
        fakes.lines = 0;
        for (int k = 0; k < 3 && s == TPC_OK; k++)
            s = run_ids(&t, 3, 1, got);
        assert_int_equal(s, TPC_RANKS);
        assert_int_equal(fakes.lines, 1);
        assert_non_null(strstr(fakes.last_line, "NCCL"));
        unsetenv("TPC_FAKE_NCCL_FAIL");
        assert_int_equal(run_ids(&t, 3, 1, got), TPC_OK);
        expect(got, wanted, 3);
        end(&t);
        assert_int_equal(fakes.live(), 0);
    }
}

static void too_little_memory(void **state)
{
    (void)state;
    struct trial t;
    setenv("TPC_FAKE_MEMORY", "34000000", 1); /* cuBLASLt's workspace is most of it */
    compile(&t, 1);
    fakes.lines = 0;
    assert_int_equal(open_on(&t, &(struct engine_options){.kind = ENGINE_CUDA, .activations = 1000000}), TPC_NOMEM);
    assert_int_equal(fakes.lines, 1);
    assert_non_null(strstr(fakes.last_line, "GB free, but"));
    end(&t);
    assert_int_equal(fakes.live(), 0);
    unsetenv("TPC_FAKE_MEMORY");
}

/* ---- streaming to a device ---------------------------------------------------------------------------------------------------- */

static void fill_numbers(void *context, uint64_t offset, void *host, size_t bytes)
{
    *(uint64_t *)context += bytes;
    for (size_t i = 0; i < bytes / 4; i++)
        ((uint32_t *)host)[i] = (uint32_t)(offset / 4 + i) * 2654435761u;
}

/* More than all pinned pieces hold, on a GPU that copies slowly: none may be filled again before it is copied, which the fake driver checks too. */
static void streams_through_pieces(void **state)
{
    (void)state;
    enum { BYTES = 75 << 20 };
    struct failure f = {.code = TPC_OK};
    struct device *d = NULL;
    uint64_t filled = 0;
    uint32_t *back = malloc(BYTES);
    setenv("TPC_FAKE_SLOW", "3", 1);
    assert_int_equal(device_cuda_new(0, &f, &d), TPC_OK);
    void *at = d->ops->alloc(d, BYTES);
    assert_non_null(at);
    assert_int_equal(d->ops->stream(d, at, BYTES, fill_numbers, &filled, &f), TPC_OK);
    assert_int_equal(filled, BYTES);
    assert_int_equal(d->ops->download(d, back, at, BYTES, &f), TPC_OK);
    for (uint32_t i = 0; i < BYTES / 4; i++)
        if (back[i] != i * 2654435761u)
            fail_msg("number %u is wrong", i);
    unsetenv("TPC_FAKE_SLOW");
    d->ops->release(d, at, BYTES);
    d->ops->close(d);
    free(back);
}

/* That the fake driver would notice. */
static void early_refill_is_noticed(void **state)
{
    (void)state;
    struct failure f = {.code = TPC_OK};
    struct device *d = NULL;
    void *pinned = NULL;
    const char *missing;
    const struct cuda_driver *api = cuda_driver(&missing);
    setenv("TPC_FAKE_SLOW", "20", 1);
    assert_int_equal(device_cuda_new(0, &f, &d), TPC_OK);
    void *at = d->ops->alloc(d, 4096);
    assert_int_equal(api->host_alloc(&pinned, 4096, 0), CU_OK);
    memset(pinned, 1, 4096);
    assert_int_equal(api->upload((cu_pointer)(uintptr_t)at, pinned, 4096, device_cuda_stream(d)), CU_OK);
    memset(pinned, 2, 4096);
    assert_int_not_equal(d->ops->finish(d, &f), TPC_OK);
    unsetenv("TPC_FAKE_SLOW");
    (void)api->host_free(pinned);
    d->ops->release(d, at, 4096);
    d->ops->close(d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(equals_the_cpu),
        cmocka_unit_test(public_interface),
        cmocka_unit_test(repeats_are_one_launch),
        cmocka_unit_test(index_out_of_range),
        cmocka_unit_test(nccl_fails),
        cmocka_unit_test(too_little_memory),
        cmocka_unit_test(streams_through_pieces),
        cmocka_unit_test(early_refill_is_noticed),
        cmocka_unit_test(every_call_may_fail),
    };
    alarm(240); /* nothing may wait for ever */
    return cmocka_run_group_tests(tests, open_fakes, NULL);
}
