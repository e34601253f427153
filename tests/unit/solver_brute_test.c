/* tests/unit/solver_brute_test.c - the search against brute force (tests/support/brute.h).
 *
 * Random small graphs on random machines, by either objective: the cheapest split must cost what the solver's solution costs, and that must be what
 * the search thought. The plan must also be proven by check, and its Program give the unsplit graph's numbers.
 */
#include "tests/support/brute.h"
#include "tests/test.h"

#include <stdlib.h>

/* ---- machines ---- */

/* Rates over several orders of magnitude, links of one or two levels: what is cheap on one is dear on another. */
static const struct machine *random_machine(struct random_graph *r)
{
    struct machine *m = NEW(r->arena, struct machine);
    double slow = 1 << 2 * random_pick(r, 8), far = 1 << 2 * random_pick(r, 8);
    *m = (struct machine){.name = "random", .memory_bandwidth = 1e8 * slow, .level_count = 1 + random_pick(r, 2)};
    for (dtype t = DT_NONE + 1; t < DT_COUNT; t++)
        m->flops[t] = 1e9 * (1 << 2 * random_pick(r, 6));
    m->level[0] = (struct machine_link){2, 1e-9 * far, 1e8 * slow};
    m->level[1] = (struct machine_link){MAX_RANKS, 4e-9 * far, 2e7 * slow};
    return m;
}

static bool covered[OP_COUNT];

static void cover(const struct random_graph *r)
{
    const bool *live = graph_live(r->g, r->arena);
    for (value v = 1; v < r->g->nodes.count; v++)
        if (live[v])
            covered[graph_node(r->g, v)->op] = true;
}

/* One graph; false when it is too large to try everything. Counts those of which something is cut. */
static bool agree_on_one(struct random_graph *r, struct solve_options o, uint32_t *cut)
{
    struct solve_cost best;
    struct solution solution = {0};
    uint32_t first = r->seed;
    bool chance, found = false;
    random_graph(r, r->experts ? random_pick(r, 2) : 2 + random_pick(r, 6));
    if (r->every_row && random_pick(r, 3)) {
        o.machine = random_machine(r);
        o.objective = random_pick(r, 2) ? OBJECTIVE_LATENCY : OBJECTIVE_BYTES;
    }
    if (brute_force(r->g, &o, r->arena, r->experts ? 2200000 : 200000, &best) != BRUTE_FOUND)
        return false;
    const char *what = arena_printf(r->arena, "seed %u, %u ranks", first, o.ranks);
    struct solve_cost thought = searched(r->g, &o, r->arena, &solution, &chance);
    compare_costs(r, arena_printf(r->arena, "%s: search against brute force", what), thought, best);
    if (!chance)
        compare_costs(r, arena_printf(r->arena, "%s: solution against search", what),
                      solution_cost(r->g, &solution, &o, r->arena), thought);
    for (uint32_t k = 0; k < solution.class_count && !found; k++)
        *cut += found = solution.classes[k].partition != 0;
    runs_alike(r, &o, what);
    cover(r);
    return true;
}

enum { EXPERTS = 3 }; /* in place of a number of rows: one, and experts */

static void agree_on(const struct solve_options *o, uint32_t rows, uint32_t count, uint32_t first)
{
    uint32_t checked = 0, cut = 0;
    for (uint32_t i = 0; checked < count && i < count * 20; i++) {
        struct random_graph r = {.arena = arena_new(),
                                 .seed = first + i,
                                 .turn = i,
                                 .rows = rows == EXPERTS ? 1 : rows,
                                 .experts = rows == EXPERTS,
                                 .every_row = rows != EXPERTS,
                                 .ops = rows == 1   ? 8
                                        : rows == 2 ? 6
                                                    : 0};
        checked += agree_on_one(&r, *o, &cut);
        arena_free(r.arena);
    }
    assert_int_equal(checked, count);
    assert_true(cut > count / 10);
}

static void agree(uint32_t ranks, uint32_t count, uint32_t first)
{
    struct solve_options o = {.ranks = ranks};
    agree_on(&o, 1, count, first);
}

/* TPC_GRAPHS=N checks N graphs per number of ranks. */
static uint32_t graphs(uint32_t few)
{
    const char *wanted = getenv("TPC_GRAPHS");
    return wanted ? (uint32_t)strtoul(wanted, NULL, 10) : few;
}

static void on_2(void **state)
{
    (void)state;
    agree(2, graphs(330), 1000);
}
static void on_3(void **state)
{
    (void)state;
    agree(3, graphs(90), 100000);
}
static void on_4(void **state)
{
    (void)state;
    agree(4, graphs(60), 200000);
}

/* Batch and sequence, on meshes of several axes. */
static void on_mesh(void **state)
{
    static const struct mesh_axis batch[] = {{"dp", 2, AXIS_DATA}, {"tp", 2, AXIS_TENSOR}},
                                  sequence[] = {{"cp", 2, AXIS_CONTEXT}, {"tp", 2, AXIS_TENSOR}},
                                  all[] = {{"dp", 2, AXIS_DATA}, {"cp", 3, AXIS_CONTEXT}, {"tp", 2, AXIS_TENSOR}};
    static const struct solve_options meshes[] = {
        {.ranks = 4, .axis_count = 2, .axis = batch},
        {.ranks = 4, .axis_count = 2, .axis = sequence},
        {.ranks = 12, .axis_count = 3, .axis = all},
        {.ranks = 2, .sequence = SEQUENCE_SPLIT},
        {.ranks = 4, .sequence = SEQUENCE_SPLIT},
        {.ranks = 4, .axis_count = 2, .axis = batch, .sequence = SEQUENCE_SPLIT}};
    (void)state;
    for (uint32_t i = 0; i < sizeof meshes / sizeof *meshes; i++)
        agree_on(&meshes[i], 2, graphs(20), 300000 + 1000 * i);
}

/* Experts, over the tensor axis and over one of their own. */
static void on_experts(void **state)
{
    static const struct mesh_axis own[] = {{"ep", 2, AXIS_EXPERT}, {"tp", 2, AXIS_TENSOR}};
    static const struct solve_options meshes[] = {
        {.ranks = 2}, {.ranks = 3}, {.ranks = 4, .axis_count = 2, .axis = own}};
    uint32_t count = sanitized() ? 1 : sizeof meshes / sizeof *meshes; /* each takes longer than all else here */
    (void)state;
    for (uint32_t i = 0; i < count; i++)
        agree_on(&meshes[i], EXPERTS, graphs(1), 400000 + 1000 * i);
}

/* Behind the others: every row that can stand in a model stood in one of their graphs. */
static void every_row_stood_in_one(void **state)
{
    uint32_t missing = 0;
    (void)state;
    for (op o = OP_NONE + 1; o < OP_COUNT; o++) {
        bool of_programs = op_info(o)->class == CLASS_COLLECTIVE || o == OP_RESTRICT || o == OP_COUNT_ONCE;
        if (of_programs == covered[o])
            print_message("%s: %s\n", op_info(o)->text, covered[o] ? "is of Programs only" : "stood in no graph");
        missing += of_programs == covered[o];
    }
    assert_int_equal(missing, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(on_2),       cmocka_unit_test(on_3),
                                       cmocka_unit_test(on_4),       cmocka_unit_test(on_mesh),
                                       cmocka_unit_test(on_experts), cmocka_unit_test(every_row_stood_in_one)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
