/* bench/solver.c - what the stages of the pipeline cost, as ratios of runs made in one process: many layers against few, many ranks against two,
 * and long chains per node. Never part of the tests (bench/README.md says how to read it).
 *
 *     build/release/bench/solver [layers | ranks | pins | chain | all] [NODES [KIND]]
 *
 * Graphs are built in memory (tests/support/blocks.c). Start with main.
 */
#include "frontend/compile.h"
#include "runtime/plan.h"
#include "tests/support/blocks.h"

#include <stdlib.h>
#include <time.h>
#include <unistd.h>

enum { ROUNDS = 5 };

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
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

static struct times run_stages(struct arena *arena, struct graph *g, uint32_t ranks)
{
    struct times t = {0};
    struct compiled c = {.machine = machine_default()};
    struct graph *split = NULL;
    struct solve_options o = {.ranks = ranks};
    struct plan *plan = NULL;
    char path[] = "/tmp/tpc-bench-XXXXXX";
    double at[STAGES + 1];
    must(graph_verify(g, "import", NULL), "the graph");
    at[0] = now();
    must(simplify(arena, g, NULL, &c.graph), "simplify");
    at[1] = now();
    must(solve(c.graph, &o, arena, NULL, &c.solution), "solve");
    at[2] = now();
    must(parallelize(arena, c.graph, c.solution, NULL, &split), "parallelize");
    at[3] = now();
    must(check(arena, c.graph, split, c.solution, NULL), "check");
    at[4] = now();
    must(fuse(arena, split, NULL, &c.program), "fuse");
    at[5] = now();
    must(schedule(c.program, NULL), "schedule");
    at[6] = now();
    must(program_verify(c.program, NULL), "program_verify");
    at[7] = now();
    const char *json = report_json(arena, &c);
    at[8] = now();
    struct plan_contents contents = {.program = c.program, .decisions = json, .weight_folder = "/tmp"};
    int file = mkstemp(path);
    must(plan_write(arena, path, &contents, NULL), "plan_write");
    at[9] = now();
    must(plan_read(arena, path, NULL, &plan), "plan_read");
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
    struct arena *arena = arena_new();
    struct times t = run_stages(arena, block_decoder(arena, layers), ranks);
    arena_free(arena);
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
            struct times once = layers_once(80, ranks[i]);
            keep_least(&t[i], &once);
        }
    printf("ranks, 80 layers ");
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

static void swallow(void *user, severity level, const char *line)
{
    (void)user;
    (void)level;
    (void)line;
}

/* Seconds of solve() with every linear of 32 layers pinned as it would be, and one of them to what it cannot be. */
static double pinned_once(bool possible)
{
    struct arena *arena = arena_new();
    struct diag quiet = {.sink = swallow};
    struct graph *g = NULL;
    struct solution *solution = NULL;
    const struct switch_point *point = NULL;
    struct solve_options o = {.ranks = 4};
    must(simplify(arena, block_decoder(arena, 32), NULL, &g), "simplify");
    uint32_t count = switch_points(g, &o, arena, &point);
    struct pin *pin = NEW_ARRAY(arena, struct pin, count + 1);
    for (uint32_t i = 1; i + 1 < count; i++) { /* between embedding and head: q, k, v, o, gate, up, down */
        bool row = (i - 1) % 7 == 3 || (i - 1) % 7 == 6;
        struct pin *p = &pin[o.pin_count++];
        *p = (struct pin){.kind = PIN_UNIT, .node = point[i].node, .text = "pin", .group = i, .code = TPC_USAGE};
        *(row ? &p->parts.in : &p->parts.out) = !possible && i == count / 2 ? 3 : 4;
    }
    o.pin = pin;
    double begin = now();
    status s = solve(g, &o, arena, &quiet, &solution);
    double end = now();
    if ((s == TPC_OK) != possible)
        fprintf(stderr, "bench: pins gave %d\n", (int)s);
    arena_free(arena);
    return end - begin;
}

static void measure_pins(void)
{
    double least[2] = {0, 0};
    for (int round = 0; round < ROUNDS; round++)
        for (int possible = 0; possible < 2; possible++) {
            double t = pinned_once(possible);
            least[possible] = round == 0 || t < least[possible] ? t : least[possible];
        }
    printf("224 pins on 32 layers: possible %.3f ms, impossible %.3f ms, ratio %.2f\n", 1e3 * least[1], 1e3 * least[0],
           least[0] / least[1]);
}

static void measure_chain(enum block_chain kind, uint32_t nodes)
{
    struct arena *arena = arena_new();
    struct times t = run_stages(arena, block_chain(arena, kind, nodes), 2);
    arena_free(arena);
    printf("%u nodes, %s: %.2f s, %.3f s per 100,000\n ", nodes, block_chain_names[kind], t.total,
           1e5 * t.total / nodes);
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
    if (all || strcmp(what, "pins") == 0)
        measure_pins();
    uint32_t only = argc > 3 ? (uint32_t)strtoul(argv[3], NULL, 10) : BLOCK_CHAINS;
    for (enum block_chain kind = 0; kind < BLOCK_CHAINS && (all || strcmp(what, "chain") == 0); kind++)
        if (only == BLOCK_CHAINS || only == kind)
            measure_chain(kind, nodes);
    return 0;
}
