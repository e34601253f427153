/* tests/unit/engine_test.c - small models compiled for 1 to 4 ranks and run by the engine, against the reference interpreter: any shapes, states that are
 * kept, cut outputs put together, and ranks that fail.
 */
#include "frontend/compile.h"
#include "ir/interpret.h"
#include "runtime/engine.h"
#include "runtime/generate.h"
#include "runtime/tensor_file.h"
#include "runtime/tpc.h"

#include <math.h>
#include <setjmp.h>
#include <stdlib.h>

#include <cmocka.h>

static char last_line[1100];
static int lines;

static void keep_line(void *user, severity level, const char *line)
{
    (void)user;
    (void)level;
    lines++;
    snprintf(last_line, sizeof last_line, "%s", line);
}

static struct diag quiet = {.sink = keep_line};
static struct diag loud;

/* ---- models ------------------------------------------------------------------------------------------------------------ */

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

static dim constant(struct graph *g, int64_t x)
{
    return dim_const(g->dims, x);
}

static struct graph *new_graph(struct arena *arena, const char *name)
{
    struct graph *g = graph_new(arena);
    graph_set_origin(g, graph_add_origin(g, "test.onnx", 0, name, "Test"));
    return g;
}

/* x[batch, 12] -> 24 -> tanh -> 12, plus x, row-normalised by its maximum. */
static struct graph *mlp(struct arena *arena)
{
    struct graph *g = new_graph(arena, "mlp");
    dim shape[] = {dim_symbol(g->dims, "batch"), constant(g, 12)};
    value x = graph_input(g, "x", DT_F32, 2, shape);
    value up = graph_dot(g, x, param(g, "up", 2, (int64_t[]){24, 12}), 0, 1);
    value down = graph_dot(g, graph_unary(g, OP_TANH, up), param(g, "down", 2, (int64_t[]){12, 24}), 0, 1);
    value sum = graph_binary(g, OP_ADD, x, down);
    value most = graph_reduce(g, OP_REDUCE_MAX, sum, 1, (int32_t[]){1});
    value wide = graph_broadcast(g, most, 2, shape, (int32_t[]){0});
    graph_output(g, "y", graph_binary(g, OP_SUB, sum, wide));
    return g;
}

enum { VOCABULARY = 23, HIDDEN = 12, HEADS = 4, HEAD = 3 };

/* [batch, sequence, HIDDEN] . [HEADS * HEAD, HIDDEN] -> [batch, HEADS, sequence, HEAD] */
static value project(struct graph *g, value x, const char *name)
{
    const dim *s = graph_node(g, x)->shape;
    value y = graph_dot(g, x, param(g, name, 2, (int64_t[]){HEADS * HEAD, HIDDEN}), 0, 1);
    dim split[] = {s[0], s[1], constant(g, HEADS), constant(g, HEAD)};
    return graph_transpose(g, graph_reshape(g, y, 4, split), (int32_t[]){0, 2, 1, 3});
}

/* One attention layer with a key-value cache, between an embedding and a head; not causal within a step (one token at a time is). */
static struct graph *decoder(struct arena *arena)
{
    struct graph *g = new_graph(arena, "decoder");
    dim batch = dim_symbol(g->dims, "batch"), sequence = dim_symbol(g->dims, "sequence"),
        past = dim_symbol(g->dims, "past");
    value ids = graph_input(g, "input_ids", DT_I64, 2, (dim[]){batch, sequence});
    dim cache[] = {batch, constant(g, HEADS), past, constant(g, HEAD)};
    value past_k = graph_input(g, "past.key", DT_F32, 4, cache),
          past_v = graph_input(g, "past.value", DT_F32, 4, cache);
    value embedding = param(g, "embedding", 2, (int64_t[]){VOCABULARY, HIDDEN});
    value x = graph_gather(g, embedding, ids, 0, 0);
    value q = project(g, x, "q"), k = project(g, x, "k"), v = project(g, x, "v");
    value all_k = graph_concat(g, 2, (value[]){past_k, k}, 2), all_v = graph_concat(g, 2, (value[]){past_v, v}, 2);
    value scores = graph_dot(g, q, all_k, 2, 1); /* [batch, heads, sequence, past + sequence] */
    value e = graph_unary(g, OP_EXP, scores);
    value total = graph_reduce(g, OP_REDUCE_SUM, e, 1, (int32_t[]){3});
    value p = graph_binary(g, OP_DIV, e, graph_broadcast(g, total, 4, graph_node(g, e)->shape, (int32_t[]){0, 1, 2}));
    value mixed = graph_dot(g, p, graph_transpose(g, all_v, (int32_t[]){0, 1, 3, 2}), 2, 1);
    value flat = graph_reshape(g, graph_transpose(g, mixed, (int32_t[]){0, 2, 1, 3}), 3,
                               (dim[]){batch, sequence, constant(g, HEADS * HEAD)});
    value out =
        graph_binary(g, OP_ADD, x, graph_dot(g, flat, param(g, "o", 2, (int64_t[]){HIDDEN, HEADS * HEAD}), 0, 1));
    graph_output(g, "logits", graph_dot(g, out, param(g, "head", 2, (int64_t[]){VOCABULARY, HIDDEN}), 0, 1));
    graph_output(g, "present.key", all_k);
    graph_output(g, "present.value", all_v);
    *PUSH(arena, &g->states) = (struct state){1, 1, 2, true};
    *PUSH(arena, &g->states) = (struct state){2, 2, 2, true};
    return g;
}

struct ready {
    struct arena *arena;
    struct graph *graph; /* unsplit */
    struct plan plan;
    struct engine *engine;
};

static void make_ready(struct ready *r, struct graph *(*model)(struct arena *), uint32_t ranks, uint32_t threads)
{
    r->arena = arena_new();
    struct compiled c;
    struct compile_options o = {.ranks = ranks};
    assert_int_equal(compile_graph(r->arena, model(r->arena), &o, &loud, &c), TPC_OK);
    r->graph = c.graph;
    r->plan = (struct plan){.program = c.program, .folder = "."};
    r->plan.links.input = NEW_ARRAY(r->arena, const struct placement *, c.graph->inputs.count);
    for (uint32_t i = 0; i < c.graph->inputs.count; i++)
        r->plan.links.input[i] = c.solution->result[c.graph->inputs.at[i].value];
    r->plan.links.output = c.solution->output;
    struct engine_options options = {.threads = threads, .profile = ranks % 2};
    assert_int_equal(engine_open(c.program, &r->plan.links, NULL, &options, &loud, &r->engine), TPC_OK);
}

static void end(struct ready *r)
{
    engine_close(r->engine);
    arena_free(r->arena);
}

static void expect_equal(const struct tensor *got, const struct tensor *wanted)
{
    struct difference d;
    if (!tensor_compare(got, wanted, 1e-4, 1e-5, &d))
        fail_msg("%zu elements differ; the worst is %g and should be %g", d.count, d.got, d.wanted);
}

/* Runs the interpreter on the whole graph and compares all outputs. */
static void expect_as_interpreted(struct ready *r, const struct tensor *inputs)
{
    struct interpretation want;
    assert_int_equal(interpret(r->graph, NULL, inputs, r->arena, &loud, &want), TPC_OK);
    for (uint32_t i = 0; i < r->graph->outputs.count; i++) {
        struct tensor got;
        assert_int_equal(engine_output(r->engine, i, &loud, &got), TPC_OK);
        expect_equal(&got, &want.output[i]);
    }
}

static struct tensor random_tensor(struct arena *arena, dtype type, uint32_t rank, const int64_t *shape, uint64_t seed,
                                   int64_t limit)
{
    struct tensor t;
    assert_true(tensor_new(arena, &t, type, rank, shape));
    tensor_random(&t, seed, limit);
    return t;
}

/* ---- tests --------------------------------------------------------------------------------------------------------------- */

static void any_shapes(void **state)
{
    (void)state;
    static const int64_t batches[] = {1, 5, 0, 64, 5, 3, 2, 7, 11, 5};
    for (uint32_t ranks = 1; ranks <= 4; ranks++)
        for (uint32_t threads = 1; threads <= 3; threads += 2) {
            struct ready r;
            make_ready(&r, mlp, ranks, threads);
            for (size_t i = 0; i < sizeof batches / sizeof *batches; i++) {
                struct tensor x = random_tensor(r.arena, DT_F32, 2, (int64_t[]){batches[i], 12}, i, 0);
                assert_int_equal(engine_run(r.engine, &x, NULL, &loud), TPC_OK);
                expect_as_interpreted(&r, &x);
            }
            const struct engine_stats *stats = engine_stats(r.engine);
            assert_int_equal(stats->runs, sizeof batches / sizeof *batches);
            assert_int_equal(stats->collectives > 0, ranks > 1); /* it was really split */
            assert_int_equal(stats->shape_plans, 9);             /* the second 5 is known, the third forgotten */
            end(&r);
        }
}

static void same_bits(void **state)
{
    (void)state;
    struct ready r;
    make_ready(&r, mlp, 3, 2);
    struct tensor x = random_tensor(r.arena, DT_F32, 2, (int64_t[]){50, 12}, 1, 0), y;
    char first[50 * 12 * 4];
    for (int i = 0; i < 20; i++) {
        assert_int_equal(engine_run(r.engine, &x, NULL, &loud), TPC_OK);
        assert_int_equal(engine_output(r.engine, 0, &loud, &y), TPC_OK);
        if (i == 0)
            memcpy(first, y.data, sizeof first);
        assert_memory_equal(first, y.data, sizeof first);
    }
    end(&r);
}

/* Given whole, cut over the ranks, and handed out whole again. */
static void states_from_outside(void **state)
{
    (void)state;
    for (uint32_t ranks = 1; ranks <= 4; ranks++) {
        struct ready r;
        make_ready(&r, decoder, ranks, 1);
        for (int64_t past = 0; past < 8; past += 3) {
            int64_t cache[] = {2, HEADS, past, HEAD};
            struct tensor in[] = {random_tensor(r.arena, DT_I64, 2, (int64_t[]){2, 3}, 5, VOCABULARY),
                                  random_tensor(r.arena, DT_F32, 4, cache, 6, 0),
                                  random_tensor(r.arena, DT_F32, 4, cache, 7, 0)};
            assert_int_equal(engine_run(r.engine, in, NULL, &loud), TPC_OK);
            expect_as_interpreted(&r, in);
        }
        end(&r);
    }
}

/* One token after the other with the cache kept on its ranks is the same as with the cache carried about by hand. */
static void states_kept(void **state)
{
    (void)state;
    for (uint32_t ranks = 1; ranks <= 4; ranks++) {
        struct ready r;
        make_ready(&r, decoder, ranks, 1);
        static const bool keep[] = {false, true, true};
        struct tensor by_hand[3], kept[3];
        int64_t cache[] = {1, HEADS, 0, HEAD};
        by_hand[1] = random_tensor(r.arena, DT_F32, 4, cache, 6, 0);
        by_hand[2] = random_tensor(r.arena, DT_F32, 4, cache, 7, 0);
        for (uint64_t step = 0; step < 9; step++) {
            by_hand[0] = random_tensor(r.arena, DT_I64, 2, (int64_t[]){1, step == 4 ? 2 : 1}, step, VOCABULARY);
            memset(kept, 0xee, sizeof kept);
            kept[0] = by_hand[0];
            assert_int_equal(engine_run(r.engine, step ? kept : by_hand, step ? keep : NULL, &loud), TPC_OK);
            expect_as_interpreted(&r, by_hand);
            for (uint32_t i = 1; i < 3; i++) {
                struct tensor now;
                assert_int_equal(engine_output(r.engine, i, &loud, &now), TPC_OK);
                now.data = arena_copy(r.arena, now.data, tensor_bytes(&now));
                by_hand[i] = now;
            }
        }
        end(&r);
    }
}

struct collected {
    int64_t id[32];
    size_t count;
};

static bool collect(void *user, size_t rows, const int64_t *token)
{
    struct collected *c = user;
    for (size_t r = 0; r < rows; r++)
        c->id[c->count++] = token[r];
    return true;
}

static void generates_the_same_on_any_ranks(void **state)
{
    (void)state;
    struct collected first = {0};
    for (uint32_t ranks = 1; ranks <= 4; ranks++) {
        struct ready r;
        make_ready(&r, decoder, ranks, 1);
        struct collected c = {0};
        static const int64_t ids[] = {3, 7, 1};
        static const struct prompt prompt = {ids, 3};
        struct generate_options o = {.prompt = &prompt, .rows = 1, .count = 20, .step = collect, .user = &c};
        assert_int_equal(generate(r.engine, &r.plan, &o, r.arena, &loud), TPC_OK);
        assert_int_equal(c.count, 20);
        if (ranks == 1)
            first = c;
        assert_memory_equal(&c, &first, sizeof c);
        int64_t stop = first.id[2];
        o.stop = &stop;
        o.stop_count = 1;
        c.count = 0;
        assert_int_equal(generate(r.engine, &r.plan, &o, r.arena, &loud), TPC_OK);
        assert_in_range(c.count, 1, 3);
        end(&r);
    }
}

struct counted {
    int64_t count[VOCABULARY];
};

static bool count_tokens(void *user, size_t rows, const int64_t *token)
{
    struct counted *c = user;
    for (size_t r = 0; r < rows; r++)
        c->count[token[r]]++;
    return true;
}

/* 4000 rows of one prompt, one token each: as often as softmax(logits / temperature) says, within five standard deviations. */
static void draws_as_the_logits_say(void **state)
{
    (void)state;
    enum { ROWS = 4000 };
    struct ready r;
    make_ready(&r, decoder, 2, 1);
    static const int64_t ids[] = {3, 7, 1};
    struct prompt *prompt = NEW_ARRAY(r.arena, struct prompt, ROWS);
    for (int i = 0; i < ROWS; i++)
        prompt[i] = (struct prompt){ids, 3};
    struct counted c = {{0}};
    struct generate_options o = {.prompt = prompt,
                                 .rows = ROWS,
                                 .count = 1,
                                 .step = count_tokens,
                                 .user = &c,
                                 .sampling = {.temperature = 0.4, .seed = 3}};
    assert_int_equal(generate(r.engine, &r.plan, &o, r.arena, &loud), TPC_OK);
    assert_int_equal(o.written, ROWS);
    struct tensor logits;
    assert_int_equal(engine_output(r.engine, 0, &loud, &logits), TPC_OK);
    double weight[VOCABULARY], total = 0;
    for (size_t k = 0; k < VOCABULARY; k++)
        total += weight[k] = exp((double)((float *)logits.data)[2 * VOCABULARY + k] / 0.4);
    for (size_t k = 0; k < VOCABULARY; k++) {
        double p = weight[k] / total;
        assert_true(fabs((double)c.count[k] - ROWS * p) <= 5 * sqrt(ROWS * p * (1 - p)) + 1);
    }
    end(&r);
}

static void mistakes_are_told(void **state)
{
    (void)state;
    for (uint32_t ranks = 1; ranks <= 4; ranks += 3) {
        struct ready r;
        make_ready(&r, decoder, ranks, 1);
        int64_t cache[] = {1, HEADS, 0, HEAD};
        struct tensor in[] = {random_tensor(r.arena, DT_I64, 2, (int64_t[]){1, 2}, 5, VOCABULARY),
                              random_tensor(r.arena, DT_F32, 4, cache, 6, 0),
                              random_tensor(r.arena, DT_F32, 4, cache, 7, 0)};
        struct tensor out;
        static const bool keep[] = {false, true, true};
        assert_int_equal(engine_output(r.engine, 0, &quiet, &out), TPC_USAGE);
        assert_int_equal(engine_run(r.engine, in, keep, &quiet), TPC_USAGE);
        ((int64_t *)in[0].data)[1] = VOCABULARY; /* out of range: every rank that looks notices */
        lines = 0;
        status s = engine_run(r.engine, in, NULL, &quiet);
        assert_true(s == TPC_DATA || s == TPC_OK); /* a vocabulary that is cut takes it for another rank's */
        if (s != TPC_OK)
            assert_int_equal(lines, 1);
        ((int64_t *)in[0].data)[1] = 2;
        struct tensor bad[] = {in[0], in[1], in[2]};
        bad[1].shape[1] = HEADS + 1;
        assert_true(tensor_new(r.arena, &bad[1], DT_F32, 4, bad[1].shape));
        assert_int_equal(engine_run(r.engine, bad, NULL, &quiet), TPC_DATA);
        bad[1] = in[1];
        bad[0].dtype = DT_I32;
        assert_int_equal(engine_run(r.engine, bad, NULL, &quiet), TPC_DATA);
        assert_int_equal(engine_run(r.engine, in, NULL, &loud), TPC_OK); /* none of that has broken it */
        expect_as_interpreted(&r, in);
        end(&r);
    }
}

/* cumsum, topk and scatter, which no kernel expresses, in every mode. */
static struct graph *builtins(struct arena *arena)
{
    struct graph *g = new_graph(arena, "builtins");
    dim n = dim_symbol(g->dims, "n"), shape[] = {n, constant(g, 7), constant(g, 3)};
    value x = graph_input(g, "x", DT_F32, 3, shape), i = graph_input(g, "i", DT_I64, 1, (dim[]){constant(g, 4)});
    value k = graph_input(g, "k", DT_I32, 3, shape);
    value small = graph_input(g, "updates", DT_F32, 3, (dim[]){n, constant(g, 4), constant(g, 3)});
    for (uint32_t mode = 0; mode < 4; mode++) {
        graph_output(g, arena_printf(arena, "sum%u", mode), graph_cumsum(g, x, mode % 3, mode & 1, mode & 2));
        graph_output(g, arena_printf(arena, "whole%u", mode), graph_cumsum(g, k, 1, mode & 1, mode & 2));
        graph_output(g, arena_printf(arena, "top%u", mode),
                     graph_topk(g, mode & 1 ? x : k, 1, constant(g, mode < 2 ? 1 : 5), mode & 2));
    }
    for (int32_t mode = SCATTER_SET; mode <= SCATTER_MIN; mode++)
        graph_output(g, arena_printf(arena, "scatter%d", mode), graph_scatter(g, x, i, small, 1, 0, mode));
    graph_output(
        g, "dropped",
        graph_scatter(g, x,
                      graph_binary(g, OP_ADD, i,
                                   graph_broadcast_to(g, graph_scalar_i64(g, DT_I64, 2), 1, (dim[]){constant(g, 4)})),
                      small, 1, 0, SCATTER_ADD | SCATTER_DROP));
    return g;
}

static void builtins_are_right(void **state)
{
    (void)state;
    for (uint32_t ranks = 1; ranks <= 2; ranks++) {
        struct ready r;
        make_ready(&r, builtins, ranks, 2);
        for (int64_t n = 0; n < 6; n += 2) {
            int64_t shape[] = {n, 7, 3};
            struct tensor in[] = {random_tensor(r.arena, DT_F32, 3, shape, 1, 0),
                                  random_tensor(r.arena, DT_I64, 1, (int64_t[]){4}, 3, 7),
                                  random_tensor(r.arena, DT_I32, 3, shape, 2, 4),
                                  random_tensor(r.arena, DT_F32, 3, (int64_t[]){n, 4, 3}, 4, 0)};
            assert_int_equal(engine_run(r.engine, in, NULL, &loud), TPC_OK);
            expect_as_interpreted(&r, in);
            ((int64_t *)in[1].data)[2] = 7;
            lines = 0;
            assert_int_equal(engine_run(r.engine, in, NULL, &quiet), n ? TPC_DATA : TPC_OK);
            assert_int_equal(lines, n ? 1 : 0);
        }
        end(&r);
    }
}

/* The N-th allocation fails, for each N: one line, the right code, nothing leaks, nothing hangs. */
static void out_of_memory(void **state)
{
    (void)state;
    struct ready r;
    make_ready(&r, mlp, 2, 2);
    struct tensor x = random_tensor(r.arena, DT_F32, 2, (int64_t[]){33, 12}, 1, 0), y;
    uint64_t n = 1;
    for (status s = TPC_NOMEM; s != TPC_OK; n += 1 + n / 40) {
        struct engine *e = NULL;
        struct engine_options options = {.threads = 2};
        base_fail_after(n);
        s = engine_open(r.plan.program, &r.plan.links, NULL, &options, &quiet, &e);
        if (s == TPC_OK)
            s = engine_run(e, &x, NULL, &quiet);
        if (s == TPC_OK)
            s = engine_output(e, 0, &quiet, &y);
        base_fail_after(0);
        engine_close(e);
        assert_true(s == TPC_OK || s == TPC_NOMEM);
    }
    assert_true(n > 50);
    end(&r);
}

/* The public interface, by way of a plan file. */
static void public_interface(void **state)
{
    (void)state;
    struct ready r;
    make_ready(&r, decoder, 2, 1);
    struct plan_contents contents = {.program = r.plan.program, .links = r.plan.links, .decisions = "{}"};
    assert_int_equal(plan_write(r.arena, "api.bin", &contents, &loud), TPC_OK);
    tpc_model *m = NULL;
    assert_int_equal(tpc_open("no such plan", 0, &m), TPC_RESULT_NO_FILE);
    assert_non_null(strstr(tpc_error(), "no such plan"));
    assert_int_equal(tpc_open("api.bin", 1, &m), 0);
    assert_int_equal(tpc_ranks(m), 2);
    assert_int_equal(tpc_input_count(m), 3);
    assert_string_equal(tpc_output_name(m, 0), "logits");
    assert_null(tpc_input_name(m, 3));
    tpc_tensor t;
    assert_int_equal(tpc_input_type(m, 1, &t), 0);
    assert_int_equal(t.shape[1], HEADS);
    assert_int_equal(t.shape[2], -1);
    assert_int_equal(tpc_run(m), TPC_RESULT_USAGE);
    int64_t ids[] = {3, 7, 1};
    tpc_tensor in = {TPC_TYPE_I64, 2, {1, 3}, ids}, empty = {TPC_TYPE_F32, 4, {1, HEADS, 0, HEAD}, NULL};
    assert_int_equal(tpc_bind(m, 1, &in), TPC_RESULT_USAGE);
    assert_int_equal(tpc_bind(m, 0, &in), 0);
    assert_int_equal(tpc_bind(m, 1, &empty), 0);
    assert_int_equal(tpc_bind(m, 2, &empty), 0);
    assert_int_equal(tpc_bind_state(m, 0), TPC_RESULT_USAGE);
    assert_int_equal(tpc_run(m), 0);
    assert_int_equal(tpc_output(m, 0, &t), 0);
    assert_int_equal(t.shape[2], VOCABULARY);
    assert_int_equal(tpc_bind_state(m, 1), 0);
    assert_int_equal(tpc_bind_state(m, 2), 0);
    in.shape[1] = 1;
    assert_int_equal(tpc_bind(m, 0, &in), 0);
    assert_int_equal(tpc_run(m), 0);
    assert_int_equal(tpc_output(m, 1, &t), 0);
    assert_int_equal(t.shape[2], 4);
    struct collected c = {0};
    tpc_generation what = {.prompt = (const int64_t *[]){ids},
                           .prompt_length = (size_t[]){3},
                           .rows = 1,
                           .count = 5,
                           .step = collect,
                           .user = &c};
    assert_int_equal(tpc_generate(m, &what), 0);
    assert_int_equal(c.count, 5);
    struct collected again = {0};
    what.user = &again;
    what.context = 6; /* 3 + 5 - 1 are needed */
    assert_int_equal(tpc_generate(m, &what), TPC_RESULT_USAGE);
    assert_non_null(strstr(tpc_error(), "context of 6"));
    what.context = 7;
    assert_int_equal(tpc_bind_role(m, 0, "tokens"), 0);
    assert_int_equal(tpc_generate(m, &what), 0);
    assert_memory_equal(&c, &again, sizeof c);
    assert_int_equal(tpc_bind_role(m, 0, "nothing"), TPC_RESULT_USAGE);
    assert_int_equal(tpc_bind_role(m, 9, "mask"), TPC_RESULT_USAGE);
    assert_int_equal(tpc_context(m, -1), TPC_RESULT_USAGE);
    assert_int_equal(tpc_context(m, 2), 0);
    in.shape[1] = 3;
    assert_int_equal(tpc_bind(m, 0, &in), 0);
    assert_int_equal(tpc_bind(m, 1, &empty), 0);
    assert_int_equal(tpc_bind(m, 2, &empty), 0);
    assert_int_equal(tpc_run(m), TPC_RESULT_USAGE);
    assert_int_equal(tpc_context(m, 0), 0);
    assert_int_equal(tpc_run(m), 0);
    tpc_close(m);
    remove("api.bin");
    end(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(any_shapes),
        cmocka_unit_test(same_bits),
        cmocka_unit_test(states_from_outside),
        cmocka_unit_test(states_kept),
        cmocka_unit_test(generates_the_same_on_any_ranks),
        cmocka_unit_test(draws_as_the_logits_say),
        cmocka_unit_test(mistakes_are_told),
        cmocka_unit_test(builtins_are_right),
        cmocka_unit_test(out_of_memory),
        cmocka_unit_test(public_interface),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
