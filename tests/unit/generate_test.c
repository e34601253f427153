/* tests/unit/generate_test.c - generation on exported models with caches: how much of a cache is copied, growth and fixed room, failures in the middle, roles that
 * are said. What is written is compared with ONNX Runtime by tests/cli/generate.sh.
 */
#include "frontend/compile.h"
#include "runtime/generate.h"

#include <setjmp.h>
#include <stdlib.h>

#include <cmocka.h>

enum { MOST = 160 };

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

struct ready {
    struct arena *arena;
    struct plan plan;
    struct engine *engine;
    const struct graph *graph;
};

static void open_compiled(struct ready *r, const struct compiled *compiled, const char *folder)
{
    struct compiled c = *compiled;
    r->graph = c.program->graph;
    r->plan = (struct plan){.program = c.program, .folder = folder};
    r->plan.links.input = NEW_ARRAY(r->arena, const struct placement *, c.graph->inputs.count);
    for (uint32_t i = 0; i < c.graph->inputs.count; i++)
        r->plan.links.input[i] = c.solution->result[c.graph->inputs.at[i].value];
    r->plan.links.output = c.solution->output;
    struct engine_options options = {.threads = 1};
    assert_int_equal(engine_open(c.program, &r->plan.links, folder, &options, &loud, &r->engine), TPC_OK);
}

static void make_ready_as(struct ready *r, const char *model, const struct compile_options *o)
{
    struct compiled c;
    const char *source = getenv("SOURCE");
    r->arena = arena_new();
    const char *folder = arena_printf(r->arena, "%s/tests/models/%s", source ? source : ".", model);
    assert_int_equal(compile_model(r->arena, arena_printf(r->arena, "%s/model.onnx", folder), o, &loud, &c), TPC_OK);
    open_compiled(r, &c, folder);
}

static void make_ready(struct ready *r, const char *model, uint32_t ranks)
{
    make_ready_as(r, model, &(struct compile_options){.ranks = ranks});
}

static void end(struct ready *r)
{
    engine_close(r->engine);
    arena_free(r->arena);
}

struct written {
    int64_t id[MOST];
    size_t count, most;
};

static bool take(void *user, size_t rows, const int64_t *token)
{
    struct written *w = user;
    assert_int_equal(rows, 1);
    w->id[w->count++] = token[0];
    return w->count != w->most;
}

static const int64_t ids[] = {5, 17, 3, 90, 41};
static const struct prompt prompt = {ids, 5};

static status write(struct ready *r, size_t count, int64_t context, struct diag *diag, struct written *out)
{
    *out = (struct written){.most = out->most};
    struct generate_options o = {
        .prompt = &prompt, .rows = 1, .count = count, .context = context, .step = take, .user = out};
    return generate(r->engine, &r->plan, &o, r->arena, diag);
}

static void sums(const struct engine *e, uint64_t *moved, uint64_t *given, uint64_t *held)
{
    const struct engine_stats *s = engine_stats(e);
    *moved = *given = *held = 0;
    for (uint32_t i = 0; i < s->ranks; i++) {
        *moved += s->rank[i].state_moved;
        *given += s->rank[i].state_given;
        *held += s->rank[i].states;
    }
}

/* Bytes of all states at `entries` entries. */
static uint64_t state_size(const struct graph *g, uint64_t entries, uint32_t ranks)
{
    uint64_t bytes = 0;
    for (uint32_t i = 0; i < g->states.count; i++) {
        const struct state *s = &g->states.at[i];
        const struct node *n = graph_node(g, g->inputs.at[s->input].value);
        uint64_t size = dtype_size(n->dtype) * entries;
        for (uint32_t a = 1; a < n->rank; a++) {
            int64_t extent;
            if (a != s->axis && dim_is_const(g->dims, n->shape[a], &extent))
                size *= (uint64_t)extent;
        }
        bytes += size;
    }
    return bytes * ranks;
}

/* What growing copies is less than twice the cache in the end, however many steps there were; with fixed room nothing is copied at all. */
static void no_copy_of_the_cache(void **state)
{
    (void)state;
    for (uint32_t ranks = 1; ranks <= 2; ranks++) {
        struct ready r;
        struct written grown = {0}, fixed = {0};
        uint64_t moved, given, held, before;
        make_ready(&r, "llama-past-opt18", ranks);
        assert_int_equal(write(&r, 140, 0, &loud, &grown), TPC_OK);
        assert_int_equal(grown.count, 140);
        sums(r.engine, &moved, &given, &held);
        uint64_t size = state_size(r.graph, 144, ranks);
        assert_in_range(held, size, 2 * size);
        assert_int_equal(moved, state_size(r.graph, 5 + 16 + 32 + 64 + 128, ranks)); /* of 140 steps: multiples of 8 */
        assert_int_equal(given, 0);
        before = moved;
        assert_int_equal(write(&r, 140, 144, &loud, &fixed), TPC_OK);
        sums(r.engine, &moved, &given, &held);
        assert_int_equal(moved, before);
        assert_int_equal(given, 0);
        assert_in_range(held, size, 2 * size); /* the memory of before serves */
        assert_memory_equal(grown.id, fixed.id, sizeof grown.id);
        end(&r);
    }
}

static void same_on_any_ranks(void **state)
{
    (void)state;
    static const char *const models[] = {"llama-past-opt18", "llama-genai-fp32"};
    for (size_t m = 0; m < 2; m++) {
        struct written first = {0}, other = {0};
        for (uint32_t ranks = 1; ranks <= 4; ranks++) {
            struct ready r;
            make_ready(&r, models[m], ranks);
            assert_int_equal(write(&r, 40, 0, &loud, ranks == 1 ? &first : &other), TPC_OK);
            if (ranks > 1)
                assert_memory_equal(first.id, other.id, sizeof first.id);
            end(&r);
        }
    }
}

static void too_small_a_context(void **state)
{
    (void)state;
    struct ready r;
    struct written a = {0}, b = {0};
    make_ready(&r, "llama-past-opt18", 2);
    assert_int_equal(write(&r, 30, 0, &loud, &a), TPC_OK);
    lines = 0;
    assert_int_equal(write(&r, 30, 33, &quiet, &b), TPC_USAGE); /* 5 + 30 - 1 are needed */
    assert_int_equal(lines, 1);
    assert_non_null(strstr(last_line, "context of 33 is too small"));
    assert_int_equal(b.count, 0);
    assert_int_equal(write(&r, 30, 34, &loud, &b), TPC_OK);
    assert_memory_equal(a.id, b.id, sizeof a.id);
    /* The engine itself notices too. */
    engine_context(r.engine, 3);
    struct tensor *in = NEW_ARRAY(r.arena, struct tensor, r.graph->inputs.count);
    for (uint32_t i = 0; i < r.graph->inputs.count; i++) {
        const struct node *n = graph_node(r.graph, r.graph->inputs.at[i].value);
        int64_t tokens[] = {1, 4}, cache[] = {1, 2, 0, 10};
        assert_true(tensor_new(r.arena, &in[i], n->dtype, n->rank, n->rank == 2 ? tokens : cache));
    }
    lines = 0;
    assert_int_equal(engine_run(r.engine, in, NULL, &quiet), TPC_USAGE);
    assert_int_equal(lines, 1);
    assert_non_null(strstr(last_line, "context of 3"));
    assert_int_equal(write(&r, 30, 0, &loud, &b), TPC_OK);
    assert_memory_equal(a.id, b.id, sizeof a.id);
    end(&r);
}

/* A run that fails, or is stopped, in the middle leaves an engine that writes as before. */
static void after_a_failure(void **state)
{
    (void)state;
    for (uint32_t ranks = 1; ranks <= 3; ranks += 2) {
        struct ready r;
        struct written a = {0}, b = {.most = 7};
        make_ready(&r, "gpt2-past-opt18", ranks);
        assert_int_equal(write(&r, 20, 0, &loud, &a), TPC_OK);
        assert_int_equal(write(&r, 20, 0, &loud, &b), TPC_OK);
        assert_int_equal(b.count, 7); /* stopped by the caller */
        b.most = 0;
        lines = 0;
        size_t before = (size_t)lines;
        assert_int_equal(write(&r, 150, 0, &quiet, &b), TPC_DATA); /* its table of positions ends */
        assert_int_equal(lines, before + 1);
        assert_in_range(b.count, 20, 149);
        assert_memory_equal(a.id, b.id, 20 * sizeof *a.id);
        assert_int_equal(write(&r, 20, 0, &loud, &b), TPC_OK);
        assert_memory_equal(a.id, b.id, 20 * sizeof *a.id);
        end(&r);
    }
}

static void roles_are_told_and_said(void **state)
{
    (void)state;
    struct ready r;
    struct written a = {0}, b = {0};
    make_ready(&r, "llama-past-opt18", 1);
    assert_int_equal(write(&r, 10, 0, &loud, &a), TPC_OK);
    for (uint32_t i = 0; i < r.graph->inputs.count; i++) /* names say nothing: structure does */
        r.plan.program->graph->inputs.at[i].name = arena_printf(r.arena, "x%u", (unsigned)i);
    r.plan.program->graph->outputs.at[0].name = "y";
    assert_int_equal(write(&r, 10, 0, &loud, &b), TPC_OK);
    assert_memory_equal(a.id, b.id, sizeof a.id);
    r.plan.program->graph->inputs.at[1].name = "position_ids"; /* a false name does not matter */
    assert_int_equal(write(&r, 10, 0, &loud, &b), TPC_OK);
    assert_memory_equal(a.id, b.id, sizeof a.id);
    struct role_binding said[] = {{"x2", ROLE_POSITIONS}, {"x0", ROLE_TOKENS}};
    b = (struct written){0};
    struct generate_options o = {
        .prompt = &prompt, .rows = 1, .count = 10, .binding = said, .binding_count = 2, .step = take, .user = &b};
    assert_int_equal(generate(r.engine, &r.plan, &o, r.arena, &loud), TPC_OK);
    assert_memory_equal(a.id, b.id, sizeof a.id);
    said[0] =
        (struct role_binding){"x2", ROLE_PAST_LENGTH}; /* wrong, but said: the positions of the first step are all 0 */
    b = (struct written){0};
    assert_int_equal(generate(r.engine, &r.plan, &o, r.arena, &loud), TPC_OK);
    assert_memory_not_equal(a.id, b.id, sizeof a.id);
    end(&r);
}

/* A cache of twelve entries, written at places that an input gives, which also say what is seen. */
static const char fixed_text[] =
    "param 0 = \"e\" f32[7, 3] data [0.5, -1, 0.25, 1, 0.75, -0.5, -0.25, 0.5, 1, 0.125, -0.75, 0.5, -1, 0.25, 0.75, "
    "0.875, 1, "
    "-0.125, -0.5, -0.25, -1]\n"
    "param 1 = \"h\" f32[7, 3] data [1, 0.5, -0.25, -1, 0.25, 0.75, 0.5, -1, 1, 0.25, 1, -0.5, -0.75, 0.5, 0.25, "
    "0.125, -0.5, "
    "-1, 0.75, 0.875, 0.5]\n"
    "%ids: i64[b, s] = input index 0 as \"a\"\n%at: i64[s] = input index 1 as \"b\"\n"
    "%past: f32[b, 12, 3] = input index 2 as \"c\"\n%e: f32[7, 3] = param index 0\n%h: f32[7, 3] = param index 1\n"
    "%x = gather %e, %ids\n%all = scatter %past, %at, %x axis 1\n%scores = dot %x, %all batch 1 contract 1\n"
    "%column: i64[s, 12] = iota axis 1\n%row: i64[s, 12] = broadcast %at list [0]\n%seen2 = le %column, %row\n"
    "%seen: bool[b, s, 12] = broadcast %seen2 list [1, 2]\n%low: f32[] = constant data [-1e+30]\n"
    "%low3: f32[b, s, 12] = broadcast %low\n%kept = select %seen, %scores, %low3\n%max = reduce_max %kept list [2]\n"
    "%max3: f32[b, s, 12] = broadcast %max list [0, 1]\n%shift = sub %kept, %max3\n%w = exp %shift\n"
    "%sum = reduce_sum %w list [2]\n%sum3: f32[b, s, 12] = broadcast %sum list [0, 1]\n%p = div %w, %sum3\n"
    "%turned = transpose %all list [0, 2, 1]\n%mixed = dot %p, %turned batch 1 contract 1\n%logits = dot %mixed, %h "
    "contract 1\n"
    "output \"y\" %logits\noutput \"z\" %all\nstate 2 1 axis 1 scattered\n";

static void states_of_fixed_length(void **state)
{
    (void)state;
    for (uint32_t ranks = 1; ranks <= 3; ranks++) {
        struct ready r = {.arena = arena_new()};
        struct graph *g = NULL;
        struct compiled c;
        struct compile_options o = {.ranks = ranks};
        assert_int_equal(graph_parse(r.arena, "fixed", fixed_text, strlen(fixed_text), &loud, &g), TPC_OK);
        assert_int_equal(compile_graph(r.arena, g, &o, &loud, &c), TPC_OK);
        open_compiled(&r, &c, NULL);
        int64_t text[12] = {3, 6, 1};
        struct prompt start = {text, 3};
        struct written all = {0}, one = {0};
        struct generate_options what = {.prompt = &start, .rows = 1, .count = 10, .step = take, .user = &all};
        assert_int_equal(generate(r.engine, &r.plan, &what, r.arena, &loud), TPC_OK);
        assert_int_equal(all.count, 10);
        assert_true(engine_stats(r.engine)->rank[0].states > 0); /* in place */
        what.user = &one;
        what.count = 1;
        for (size_t i = 0; i < 9; i++) { /* the same from the whole text each time */
            one.count = 0;
            start.count = 3 + i;
            assert_int_equal(generate(r.engine, &r.plan, &what, r.arena, &loud), TPC_OK);
            assert_int_equal(one.id[0], all.id[i]);
            text[3 + i] = one.id[0];
        }
        start.count = 3;
        what.count = 11;
        lines = 0;
        assert_int_equal(generate(r.engine, &r.plan, &what, r.arena, &quiet), TPC_USAGE);
        assert_int_equal(lines, 1);
        assert_non_null(strstr(last_line, "states hold 12 entries"));
        end(&r);
    }
}

static uint64_t all_taken(const struct engine *e)
{
    uint64_t taken = 0;
    for (uint32_t i = 0; i < engine_stats(e)->ranks; i++)
        taken += engine_stats(e)->rank[i].state_taken;
    return taken;
}

/* The prompt on one plan, the rest on another one that was compiled for other extents: what the first leaves stays on its ranks where the states lie alike. */
static void taken_from_another_plan(void **state)
{
    (void)state;
    static const struct nominal extents[] = {{"sequence_length", {1, 1}}, {"past_sequence_length", {900, 900}}};
    for (uint32_t ranks = 1; ranks <= 3; ranks++) {
        struct ready a, b, other;
        struct written alone = {0}, pair = {0};
        uint64_t moved, given, held;
        make_ready(&a, "llama-past-opt18", ranks);
        make_ready(&other, "llama-past-opt18", ranks % 3 + 1);
        struct state_source from = {"a", &a.plan};
        struct compile_options o = {.ranks = ranks, .nominal = extents, .nominal_count = 2, .state_from = &from};
        make_ready_as(&b, "llama-past-opt18", &o);
        assert_int_equal(write(&a, 20, 0, &loud, &alone), TPC_OK);
        struct generate_first first = {a.engine, &a.plan, NULL};
        struct generate_options g = {
            .prompt = &prompt, .rows = 1, .count = 20, .first = &first, .step = take, .user = &pair};
        assert_int_equal(generate(b.engine, &b.plan, &g, b.arena, &loud), TPC_OK);
        assert_memory_equal(alone.id, pair.id, sizeof alone.id);
        sums(b.engine, &moved, &given, &held);
        assert_int_equal(given, 0);
        assert_int_equal(all_taken(b.engine), state_size(b.graph, prompt.count, ranks));
        pair = (struct written){0};
        first = (struct generate_first){other.engine, &other.plan, NULL}; /* another number of ranks: as a whole */
        assert_int_equal(generate(b.engine, &b.plan, &g, b.arena, &loud), TPC_OK);
        assert_memory_equal(alone.id, pair.id, sizeof alone.id);
        sums(b.engine, &moved, &given, &held);
        assert_int_equal(given, state_size(b.graph, prompt.count, ranks));
        assert_int_equal(all_taken(b.engine), given);
        end(&other);
        end(&b);
        end(&a);
    }
}

/* As many parts of other sizes are not the same parts. */
static void other_parts_are_refused(void **state)
{
    (void)state;
    struct ready a, b;
    make_ready(&a, "llama-past-opt18", 2);
    struct graph *g = a.plan.program->graph;
    for (uint32_t i = 1; i < g->partitions.count; i++) {
        struct partition *p = &g->partitions.at[i];
        int64_t *offset = p->offset ? arena_copy(a.arena, p->offset, (p->parts + 1) * sizeof *offset) : NULL;
        if (offset)
            offset[1]--;
        p->offset = offset;
    }
    struct state_source from = {"a.plan", &a.plan};
    struct compile_options o = {.ranks = 2, .state_from = &from};
    struct compiled c;
    b.arena = arena_new();
    lines = 0;
    assert_int_equal(compile_model(b.arena, arena_printf(b.arena, "%s/model.onnx", a.plan.folder), &o, &quiet, &c),
                     TPC_USAGE);
    assert_int_equal(lines, 1);
    assert_non_null(strstr(last_line, "'past_key_values.0.key' cannot lie here as it does there"));
    arena_free(b.arena);
    end(&a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(no_copy_of_the_cache),    cmocka_unit_test(same_on_any_ranks),
        cmocka_unit_test(too_small_a_context),     cmocka_unit_test(after_a_failure),
        cmocka_unit_test(roles_are_told_and_said), cmocka_unit_test(states_of_fixed_length),
        cmocka_unit_test(taken_from_another_plan), cmocka_unit_test(other_parts_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
