/* bench/solver.c - what the stages of the pipeline cost, as ratios of runs made in one process: many layers against few, many ranks against two,
 * and long chains per node. Never part of the tests (bench/README.md says how to read it).
 *
 *     build/release/bench/solver [layers | ranks | chain | all] [NODES [KIND]]
 *
 * Graphs are built here, without an ONNX file; weights are references to a file that is never opened. Start with main.
 */
#include "frontend/compile.h"
#include "runtime/plan.h"

#include <stdlib.h>
#include <time.h>
#include <unistd.h>

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* ---- graphs ---- */

enum { WIDTH = 512, HEADS = 8, HEAD = 64, HIDDEN = 1408, VOCABULARY = 32000, ROUNDS = 5 };

struct builder {
    struct arena *arena;
    struct graph *g;
    uint64_t offset; /* of the next weight in the file */
};

static dim number(struct builder *b, int64_t x)
{
    return dim_const(b->g->dims, x);
}

static value weight(struct builder *b, int64_t rows, int64_t columns)
{
    int64_t *shape = NEW_ARRAY(b->arena, int64_t, 2);
    struct param *p = PUSH(b->arena, &b->g->params);
    shape[0] = rows, shape[1] = columns;
    *p =
        (struct param){.name = "weight", .dtype = DT_F32, .rank = columns ? 2 : 1, .shape = shape, .offset = b->offset};
    p->length = (uint64_t)(rows * (columns ? columns : 1)) * dtype_size(DT_F32);
    b->offset += p->length;
    return graph_param(b->g, b->g->params.count - 1);
}

static void start(struct builder *b)
{
    b->arena = arena_new();
    b->g = graph_new(b->arena);
    b->g->model_path = "bench";
    *PUSH(b->arena, &b->g->files) = (struct weight_file){.path = "bench.weights", .size = INT64_MAX};
}

static const dim *shape_of(struct builder *b, value v)
{
    return graph_node(b->g, v)->shape;
}

/* rms(x) * weight over the last axis of [batch, sequence, WIDTH] */
static value norm(struct builder *b, value x)
{
    struct graph *g = b->g;
    const int32_t last = 2, keep[] = {0, 1}, place[] = {2};
    value square = graph_reduce(g, OP_REDUCE_SUM, graph_binary(g, OP_MUL, x, x), 1, &last);
    value scale = graph_broadcast_to(g, graph_scalar_f64(g, DT_F32, 1.0 / WIDTH), 2, shape_of(b, square));
    value root = graph_unary(g, OP_RECIP, graph_unary(g, OP_SQRT, graph_binary(g, OP_MUL, square, scale)));
    value normal = graph_binary(g, OP_MUL, x, graph_broadcast(g, root, 3, shape_of(b, x), keep));
    return graph_binary(g, OP_MUL, normal, graph_broadcast(g, weight(b, WIDTH, 0), 3, shape_of(b, x), place));
}

static value heads(struct builder *b, value x, bool transposed)
{
    const dim *s = shape_of(b, x);
    const dim split[] = {s[0], s[1], number(b, HEADS), number(b, HEAD)};
    const int32_t order[] = {0, 2, 1, 3}, turned[] = {0, 2, 3, 1};
    return graph_transpose(b->g, graph_reshape(b->g, x, 4, split), transposed ? turned : order);
}

static value attention(struct builder *b, value x)
{
    struct graph *g = b->g;
    value q = heads(b, graph_dot(g, x, weight(b, WIDTH, WIDTH), 0, 1), false);
    value k = heads(b, graph_dot(g, x, weight(b, WIDTH, WIDTH), 0, 1), false);
    value v = heads(b, graph_dot(g, x, weight(b, WIDTH, WIDTH), 0, 1), true);
    const int32_t last = 3, keep[] = {0, 1, 2}, back[] = {0, 2, 1, 3};
    value scores = graph_dot(g, q, k, 2, 1);
    value top = graph_broadcast(g, graph_reduce(g, OP_REDUCE_MAX, scores, 1, &last), 4, shape_of(b, scores), keep);
    value e = graph_unary(g, OP_EXP, graph_binary(g, OP_SUB, scores, top));
    value sum = graph_broadcast(g, graph_reduce(g, OP_REDUCE_SUM, e, 1, &last), 4, shape_of(b, scores), keep);
    value context = graph_transpose(g, graph_dot(g, graph_binary(g, OP_DIV, e, sum), v, 2, 1), back);
    const dim flat[] = {shape_of(b, x)[0], shape_of(b, x)[1], number(b, WIDTH)};
    return graph_dot(g, graph_reshape(g, context, 3, flat), weight(b, WIDTH, WIDTH), 0, 1);
}

static value mlp(struct builder *b, value x)
{
    struct graph *g = b->g;
    value gate = graph_dot(g, x, weight(b, HIDDEN, WIDTH), 0, 1), up = graph_dot(g, x, weight(b, HIDDEN, WIDTH), 0, 1);
    value hidden = graph_binary(g, OP_MUL, graph_unary(g, OP_TANH, gate), up);
    return graph_dot(g, hidden, weight(b, WIDTH, HIDDEN), 0, 1);
}

/* A decoder without positions: what costs the solver is all there. */
static void build_layers(struct builder *b, uint32_t layers)
{
    start(b);
    const dim tokens[] = {dim_symbol(b->g->dims, "batch"), dim_symbol(b->g->dims, "sequence")};
    value ids = graph_input(b->g, "ids", DT_I64, 2, tokens);
    value x = graph_gather(b->g, weight(b, VOCABULARY, WIDTH), ids, 0, 0);
    for (uint32_t i = 0; i < layers; i++) {
        x = graph_binary(b->g, OP_ADD, x, attention(b, norm(b, x)));
        x = graph_binary(b->g, OP_ADD, x, mlp(b, norm(b, x)));
    }
    graph_output(b->g, "logits", graph_dot(b->g, norm(b, x), weight(b, VOCABULARY, WIDTH), 0, 1));
}

enum chain { CHAIN_POINTWISE, CHAIN_PRELUDE, CHAIN_RESIDUAL, CHAIN_LINEARS, CHAINS };
static const char *const chain_names[CHAINS] = {"pointwise ops behind a linear", "pointwise ops on an input",
                                                "residual blocks on one trunk", "linears with an op between"};

static void build_chain(struct builder *b, enum chain kind, uint32_t nodes)
{
    enum { NARROW = 64 };
    start(b);
    const dim shape[] = {dim_symbol(b->g->dims, "rows"), number(b, NARROW)};
    value x = graph_input(b->g, "x", DT_F32, 2, shape);
    if (kind != CHAIN_PRELUDE)
        x = graph_dot(b->g, x, weight(b, NARROW, NARROW), 0, 1);
    while (b->g->nodes.count < nodes) {
        uint32_t at = b->g->nodes.count;
        if (kind == CHAIN_RESIDUAL) {
            value h = graph_unary(b->g, OP_TANH, graph_dot(b->g, x, weight(b, 2 * NARROW, NARROW), 0, 1));
            x = graph_binary(b->g, OP_ADD, x, graph_dot(b->g, h, weight(b, NARROW, 2 * NARROW), 0, 1));
        } else if (kind == CHAIN_LINEARS) {
            x = graph_unary(b->g, OP_TANH, graph_dot(b->g, x, weight(b, NARROW, NARROW), 0, 1));
        } else {
            x = graph_unary(b->g, at % 2 ? OP_TANH : OP_ABS, x);
        }
    }
    graph_output(b->g, "y", graph_dot(b->g, x, weight(b, NARROW, NARROW), 0, 1));
}

/* ---- the stages ---- */

enum stage {
    STAGE_SIMPLIFY,
    STAGE_SOLVE,
    STAGE_PARALLELIZE,
    STAGE_CHECK,
    STAGE_FUSE,
    STAGE_SCHEDULE,
    STAGE_VERIFY,
    STAGE_REPORT,
    STAGE_WRITE,
    STAGE_READ,
    STAGES
};
static const char *const stage_names[STAGES] = {"simplify", "solve",  "parallelize", "check", "fuse",
                                                "schedule", "verify", "report",      "write", "read"};

struct times {
    double of[STAGES], total;
};

static void must(status s, const char *what)
{
    if (s == TPC_OK)
        return;
    fprintf(stderr, "bench: %s failed (%d)\n", what, (int)s);
    exit((int)s);
}

static struct times run_stages(struct builder *b, uint32_t ranks)
{
    struct times t = {0};
    struct compiled c = {.machine = machine_default()};
    struct graph *split = NULL;
    struct solve_options o = {.ranks = ranks};
    struct plan *plan = NULL;
    char path[] = "/tmp/tpc-bench-XXXXXX";
    double at[STAGES + 1];
    must(graph_verify(b->g, "import", NULL), "the graph");
    at[0] = now();
    must(simplify(b->arena, b->g, NULL, &c.graph), "simplify");
    at[1] = now();
    must(solve(c.graph, &o, b->arena, NULL, &c.solution), "solve");
    at[2] = now();
    must(parallelize(b->arena, c.graph, c.solution, NULL, &split), "parallelize");
    at[3] = now();
    must(check(b->arena, c.graph, split, c.solution, NULL), "check");
    at[4] = now();
    must(fuse(b->arena, split, NULL, &c.program), "fuse");
    at[5] = now();
    must(schedule(c.program, NULL), "schedule");
    at[6] = now();
    must(program_verify(c.program, NULL), "program_verify");
    at[7] = now();
    const char *json = report_json(b->arena, &c);
    at[8] = now();
    struct plan_contents contents = {.program = c.program, .decisions = json, .weight_folder = "/tmp"};
    int file = mkstemp(path);
    must(plan_write(b->arena, path, &contents, NULL), "plan_write");
    at[9] = now();
    must(plan_read(b->arena, path, NULL, &plan), "plan_read");
    at[10] = now();
    close(file);
    unlink(path);
    for (int i = 0; i < STAGES; i++) {
        t.of[i] = at[i + 1] - at[i];
        t.total += t.of[i];
    }
    return t;
}

/* The least of several runs, stage by stage. */
static void keep_least(struct times *best, const struct times *t)
{
    for (int i = 0; i < STAGES; i++)
        best->of[i] = best->of[i] == 0 || t->of[i] < best->of[i] ? t->of[i] : best->of[i];
    best->total = best->total == 0 || t->total < best->total ? t->total : best->total;
}

static struct times layers_once(uint32_t layers, uint32_t ranks)
{
    struct builder b = {0};
    build_layers(&b, layers);
    struct times t = run_stages(&b, ranks);
    arena_free(b.arena);
    return t;
}

/* ---- what is measured ---- */

static void measure_layers(void)
{
    static const uint32_t layers[] = {2, 41, 80};
    struct times t[3] = {0};
    for (int round = 0; round < ROUNDS; round++)
        for (int i = 0; i < 3; i++) {
            struct times once = layers_once(layers[i], 4);
            keep_least(&t[i], &once);
        }
    printf("layers, tp 4        2 (ms)    41 (ms)    80 (ms)   80 less 2, per layer (us)   (80-41)/(41-2)\n");
    for (int i = 0; i < STAGES; i++)
        printf("  %-12s %11.3f %10.3f %10.3f %20.1f %22.2f\n", stage_names[i], 1e3 * t[0].of[i], 1e3 * t[1].of[i],
               1e3 * t[2].of[i], 1e6 * (t[2].of[i] - t[0].of[i]) / 78,
               (t[2].of[i] - t[1].of[i]) / (t[1].of[i] - t[0].of[i]));
}

static void measure_ranks(void)
{
    static const uint32_t ranks[] = {2, 3, 4, 8, 16, 32, 64};
    enum { COUNT = sizeof ranks / sizeof *ranks };
    struct times t[COUNT] = {0};
    for (int round = 0; round < ROUNDS; round++)
        for (int i = 0; i < COUNT; i++) {
            struct times once = layers_once(32, ranks[i]);
            keep_least(&t[i], &once);
        }
    printf("ranks, 32 layers ");
    for (int i = 0; i < COUNT; i++)
        printf("  tp %-6u", ranks[i]);
    printf(" 64/2\n");
    for (int s = 0; s < STAGES; s++) {
        printf("  %-12s", stage_names[s]);
        for (int i = 0; i < COUNT; i++)
            printf(" %10.3f", 1e3 * t[i].of[s]);
        printf(" %6.2f\n", t[COUNT - 1].of[s] / t[0].of[s]);
    }
    printf("  %-12s", "all");
    for (int i = 0; i < COUNT; i++)
        printf(" %10.3f", 1e3 * t[i].total);
    printf(" %6.2f\n", t[COUNT - 1].total / t[0].total);
}

static void measure_chain(enum chain kind, uint32_t nodes)
{
    struct builder b = {0};
    build_chain(&b, kind, nodes);
    struct times t = run_stages(&b, 2);
    arena_free(b.arena);
    printf("%u nodes, %s: %.2f s, %.3f s per 100,000\n ", nodes, chain_names[kind], t.total, 1e5 * t.total / nodes);
    for (int i = 0; i < STAGES; i++)
        printf(" %s %.2f", stage_names[i], t.of[i]);
    printf("\n");
    fflush(stdout);
}

int main(int argc, char **argv)
{
    const char *what = argc > 1 ? argv[1] : "all";
    uint32_t nodes = argc > 2 ? (uint32_t)strtoul(argv[2], NULL, 10) : 1000000;
    bool all = strcmp(what, "all") == 0;
    if (all || strcmp(what, "layers") == 0)
        measure_layers();
    if (all || strcmp(what, "ranks") == 0)
        measure_ranks();
    uint32_t only = argc > 3 ? (uint32_t)strtoul(argv[3], NULL, 10) : CHAINS;
    for (enum chain kind = 0; kind < CHAINS && (all || strcmp(what, "chain") == 0); kind++)
        if (only == CHAINS || only == kind)
            measure_chain(kind, nodes);
    return 0;
}
