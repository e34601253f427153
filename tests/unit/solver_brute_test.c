/* tests/unit/solver_brute_test.c - the search against brute force.
 *
 * Random small graphs; every combination of decisions for regions, of options for units, and of places where sums are reduced, each turned into
 * placements and priced from those alone (solution_cost), on random machines, by either objective. The cheapest must cost what the solver's solution
 * costs, and that must be what the search thought. No symmetry, no decomposition, no caching here. The plan must also be proven by check, and its
 * Program give the unsplit graph's numbers.
 */
#include "solver/internal.h"
#include "tests/support/random_graph.h"
#include "tests/support/subject.h"
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

/* ---- brute force ---- */

struct brute {
    struct solver *s;
    struct solve_cost best;
    uint64_t tried;
    uint32_t **masks; /* per region */
    uint32_t *flows, *reduced;
    value *carried; /* values whose sum may go on to their only use */
    uint32_t carried_count;
};

static bool better(const struct solve_options *o, struct solve_cost a, struct solve_cost b)
{
    if (o->objective == OBJECTIVE_LATENCY && a.time != b.time)
        return a.time < b.time;
    if (a.bytes != b.bytes)
        return a.bytes < b.bytes;
    return a.time != b.time ? a.time < b.time : a.switches < b.switches;
}

/* Which sums flow where when those marked in `keep` are not reduced; false when an op cannot pass them. */
static bool flow(struct brute *b, uint64_t keep, const uint32_t *born)
{
    struct solver *s = b->s;
    memset(b->flows, 0, s->node_count * sizeof *b->flows);
    memset(b->reduced, 0, s->node_count * sizeof *b->reduced);
    for (value v = 1; v < s->node_count; v++) {
        const struct node *n = graph_node(s->g, v);
        if (!s->region_of[v])
            continue;
        uint32_t mask = born[v], arriving = 0;
        for (uint32_t i = 0; s->role[v] == ROLE_OP && i < n->operand_count; i++) {
            value u = n->operand[i];
            if (s->joint_parent[u] == v && b->flows[u] && !b->reduced[u]) {
                mask |= b->flows[u];
                arriving++;
            }
        }
        if (arriving > 1 && op_info(n->op)->linear != LINEAR_ALL)
            return false;
        if (s->role[v] == ROLE_OP && mask &&
            ((sum_taken_at(s, v) & mask) || !sum_stays_unscattered(s, v, mask, arriving)))
            return false;
        b->flows[v] = mask;
        bool on = false;
        for (uint32_t i = 0; i < b->carried_count; i++)
            on = on || (b->carried[i] == v && (keep >> i & 1));
        b->reduced[v] = on ? 0 : mask;
    }
    return true;
}

/* A value that is used several times passes no sum on, by definition of the space; where its use happens to want the sum that it was made as,
 * placements cannot say that it is finished and counted once. */
static bool passes_by_chance(const struct solver *s, const struct solution *out)
{
    for (value v = 1; v < s->node_count; v++)
        for (uint32_t i = 0; s->live[v] && i < graph_node(s->g, v)->operand_count; i++) {
            value u = graph_node(s->g, v)->operand[i];
            if (out->operand[v][i]->partial && out->result[u]->partial && s->joint_parent[u] != v)
                return true;
        }
    return false;
}

static void price(struct brute *b)
{
    struct arena *arena = arena_new();
    struct solution out = {.mesh = b->s->mesh};
    finish_with(b->s, arena, &out, b->flows, b->reduced);
    if (passes_by_chance(b->s, &out)) {
        arena_free(arena);
        return;
    }
    b->tried++;
    struct solve_cost c = solution_cost(b->s->g, &out, b->s->options, arena);
    if (better(b->s->options, c, b->best))
        b->best = c;
    arena_free(arena);
}

/* All ways to reduce the sums of the options chosen. */
static void try_sums(struct brute *b, uint32_t unit, uint32_t *born)
{
    struct solver *s = b->s;
    struct arena_mark mark = arena_mark(s->temporary);
    if (unit < s->units.count) {
        struct unit_result r;
        if (unit_evaluate(s, unit, &s->chosen[unit], &r, s->scratch, s->temporary)) {
            try_sums(b, unit + 1, born);
            if (s->units.at[unit].kind != UNIT_EDGE && r.partial) {
                born[s->units.at[unit].node] = r.partial;
                try_sums(b, unit + 1, born);
                born[s->units.at[unit].node] = 0;
            }
        }
    } else {
        bool any = false;
        for (value v = 1; v < s->node_count; v++)
            any = any || born[v];
        for (uint64_t keep = 0; keep < (any ? 1ull << b->carried_count : 1); keep++)
            if (flow(b, keep, born))
                price(b);
    }
    arena_rewind(s->temporary, mark);
}

static void try_units(struct brute *b, uint32_t unit, unit_options *options)
{
    struct solver *s = b->s;
    if (unit == s->units.count) {
        uint32_t *born = NEW_ARRAY(s->temporary, uint32_t, s->node_count);
        try_sums(b, 0, born);
        return;
    }
    for (uint32_t i = 0; i < options[unit].count; i++) {
        struct arena_mark mark = arena_mark(s->temporary);
        struct unit_result r;
        s->chosen[unit] = options[unit].at[i];
        bool legal = unit_evaluate(s, unit, &s->chosen[unit], &r, s->scratch, s->temporary);
        arena_rewind(s->temporary, mark);
        if (legal)
            try_units(b, unit + 1, options);
    }
}

/* No two classes of one value over one sub-axis, and no class over more parts than it has elements. */
static bool legal_masks(const struct solver *s, const struct region *r, const uint32_t *masks)
{
    for (uint32_t i = 0; i < r->class_count; i++) {
        int64_t extent = 0;
        if (masks[i] & ~r->allowed[i])
            return false;
        (void)dim_is_const(s->g->dims, s->trees.at[r->classes[i]].extent, &extent);
        if (masks[i] && extent < (int64_t)mesh_parts(s->mesh, masks[i]))
            return false;
        for (uint32_t k = 0; k < i; k++)
            if ((r->conflict[i] >> k & 1) && (masks[i] & masks[k]))
                return false;
    }
    return true;
}

static void try_regions(struct brute *b, uint32_t region, unit_options *options)
{
    struct solver *s = b->s;
    if (region == s->regions.count) {
        try_units(b, 0, options);
        return;
    }
    struct region *r = &s->regions.at[region];
    uint32_t all = 1u << s->mesh->count, total = 1;
    for (uint32_t i = 0; i < r->class_count; i++)
        total *= all;
    for (uint32_t x = 0; x < total; x++) {
        uint32_t rest = x;
        for (uint32_t i = 0; i < r->class_count; i++, rest /= all)
            b->masks[region][i] = rest % all;
        if (!legal_masks(s, r, b->masks[region]))
            continue;
        uint32_t left = s->options->sequence == SEQUENCE_SPLIT ? s->over[AXIS_TENSOR] : 0;
        for (uint32_t i = 0; i < r->class_count; i++)
            left = b->masks[region][i] ? 0 : left;
        b->masks[region][r->class_count + 1] = left;
        region_decide(s, region, b->masks[region]);
        try_regions(b, region + 1, options);
    }
    region_decide(s, region, NULL);
}

/* false: too many combinations for a test. */
static bool brute_force(struct graph *g, const struct solve_options *o, struct arena *arena, double most,
                        struct solve_cost *best)
{
    struct solver s;
    struct brute b = {.s = &s, .best = {INT64_MAX, INT64_MAX, INT64_MAX}};
    solver_start(&s, g, o, arena);
    solver_tie(&s);
    s.chosen = NEW_ARRAY(arena, struct unit_option, s.units.count + 1);
    b.masks = NEW_ARRAY(arena, uint32_t *, s.regions.count);
    b.flows = NEW_ARRAY(arena, uint32_t, s.node_count);
    b.reduced = NEW_ARRAY(arena, uint32_t, s.node_count);
    b.carried = NEW_ARRAY(arena, value, s.node_count);
    for (value v = 1; v < s.node_count; v++)
        if (s.joint_parent[v])
            b.carried[b.carried_count++] = v;
    double combinations = (double)(1u << (b.carried_count < 20 ? b.carried_count : 20));
    uint32_t orbit[MAX_SUBAXES];
    for (uint32_t i = 0; i < MAX_SUBAXES; i++)
        orbit[i] = i; /* no symmetry */
    unit_options *options = (unit_options *)arena_array(arena, s.units.count + 1, sizeof *options);
    for (uint32_t i = 0; i < s.units.count; i++) {
        unit_enumerate(&s, i, orbit, arena, &options[i]);
        combinations *= options[i].count;
    }
    for (uint32_t r = 1; r < s.regions.count; r++) {
        b.masks[r] = NEW_ARRAY(arena, uint32_t, s.regions.at[r].class_count + 2);
        for (uint32_t i = 0; i < s.regions.at[r].class_count; i++)
            combinations *= (double)(1u << s.mesh->count);
    }
    if (combinations > most)
        return false;
    try_regions(&b, 1, options);
    *best = b.best;
    return b.tried > 0;
}

/* As solve(), but says what the search thought. */
static struct solve_cost searched(struct graph *g, const struct solve_options *o, struct arena *arena,
                                  struct solution *out, bool *chance)
{
    struct solver s;
    solver_start(&s, g, o, arena);
    solver_tie(&s);
    s.chosen = NEW_ARRAY(arena, struct unit_option, s.units.count + 1);
    struct cost c = search(&s);
    out->mesh = s.mesh;
    finish(&s, arena, out);
    *chance = passes_by_chance(&s, out);
    return (struct solve_cost){c.bytes, c.time, c.switches};
}

static void compare(struct random_graph *r, const char *what, struct solve_cost a, struct solve_cost b)
{
    struct text t = {.arena = r->arena};
    if (a.bytes == b.bytes && a.time == b.time && a.switches == b.switches)
        return;
    graph_print(r->g, &t);
    fail_msg("%s: %lld bytes %lld ps %lld switches against %lld, %lld, %lld\n%s", what, (long long)a.bytes,
             (long long)a.time, (long long)a.switches, (long long)b.bytes, (long long)b.time, (long long)b.switches,
             t.at);
}

static char first_line[1200];
static void note(void *user, severity level, const char *line)
{
    (void)user;
    if (level == DIAG_ERROR && !first_line[0])
        snprintf(first_line, sizeof first_line, "%s", line);
}
static struct diag diag = {.sink = note};

/* The plan of solve() is proven, and computes what the graph computes. */
static void run(struct random_graph *r, const struct solve_options *o, const char *what)
{
    static const int64_t sizes[] = {5, 3};
    struct interpretation x;
    struct subject s = {.name = what, .ranks = o->ranks, .arena = r->arena, .graph = r->g, .diag = &diag};
    s.weights = weights_new(r->arena, r->g, NULL);
    s.inputs = random_graph_inputs(r, sizes);
    struct interpret_options options = {.weights = s.weights};
    bool good = s.inputs && interpret(r->g, &options, s.inputs, r->arena, &diag, &x) == TPC_OK &&
                solve(r->g, o, r->arena, &diag, &s.solution) == TPC_OK &&
                parallelize(r->arena, r->g, s.solution, &diag, &s.program) == TPC_OK &&
                graph_verify(s.program, "parallelize", &diag) == TPC_OK &&
                check(r->arena, r->g, s.program, s.solution, &diag) == TPC_OK;
    if (good) {
        s.wanted = x.output;
        s.of = NEW_ARRAY(r->arena, int64_t, dims_symbol_count(s.program->dims) + 64);
        memcpy(s.of, x.of[0], dims_symbol_count(r->g->dims) * sizeof *s.of);
        good = subject_same_numbers(&s, s.program);
    }
    if (!good) {
        struct text t = {.arena = r->arena};
        graph_print(r->g, &t);
        if (s.program)
            graph_print(s.program, &t);
        fail_msg("%s: %s\n%s", what, first_line[0] ? first_line : "the ranks give other numbers", t.at);
    }
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
    if (!brute_force(r->g, &o, r->arena, r->experts ? 2200000 : 200000, &best))
        return false;
    const char *what = arena_printf(r->arena, "seed %u, %u ranks", first, o.ranks);
    struct solve_cost thought = searched(r->g, &o, r->arena, &solution, &chance);
    compare(r, arena_printf(r->arena, "%s: search against brute force", what), thought, best);
    if (!chance)
        compare(r, arena_printf(r->arena, "%s: solution against search", what),
                solution_cost(r->g, &solution, &o, r->arena), thought);
    for (uint32_t k = 0; k < solution.class_count && !found; k++)
        *cut += found = solution.classes[k].partition != 0;
    run(r, &o, what);
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
                                 .every_row = rows == 1,
                                 .ops = rows == 1 ? 8 : 0};
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
    (void)state;
    for (uint32_t i = 0; i < sizeof meshes / sizeof *meshes; i++)
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
