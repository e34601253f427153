/* tests/unit/solver_brute_test.c - the search against brute force.
 *
 * Random small graphs; every combination of decisions for regions, of options for units, and of places where sums are reduced, each turned into
 * placements and priced from those alone (solution_cost). The cheapest must cost what the solver's solution costs, and that must be what the
 * search thought. No symmetry, no decomposition, no caching here.
 */
#include "solver/internal.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h> /* needs those above */

/* ---- random graphs ---- */

static uint32_t seed;
static uint32_t pick(uint32_t n)
{
    seed = seed * 1664525u + 1013904223u;
    return (seed >> 10) % n;
}

struct random_graph {
    struct arena *arena;
    struct graph *g;
    value made[64];
    uint32_t count;
    uint32_t rows; /* leading axes that lie on no weight: rows, or batch and sequence */
};

static value weight(struct random_graph *r, uint32_t rank, const int64_t *shape)
{
    struct param *p = PUSH(r->arena, &r->g->params);
    *p = (struct param){.name = "w", .dtype = DT_F32, .rank = rank, .file = NO_FILE, .length = 4};
    p->shape = (const int64_t *)arena_copy(r->arena, shape, rank * sizeof *shape);
    for (uint32_t i = 0; i < rank; i++)
        p->length *= (uint64_t)shape[i];
    p->data = arena_alloc(r->arena, p->length);
    return graph_param(r->g, r->g->params.count - 1);
}

static const struct node *at(const struct random_graph *r, value v)
{
    return graph_node(r->g, v);
}

static int64_t last_extent(const struct random_graph *r, value v)
{
    int64_t n = 0;
    return at(r, v)->rank && dim_is_const(r->g->dims, at(r, v)->shape[at(r, v)->rank - 1], &n) ? n : 0;
}

static bool same_shape(const struct random_graph *r, value a, value b)
{
    return at(r, a)->rank == at(r, b)->rank && !memcmp(at(r, a)->shape, at(r, b)->shape, at(r, a)->rank * sizeof(dim));
}

static value make(struct random_graph *r)
{
    static const int64_t widths[] = {2, 4, 6, 12};
    struct graph *g = r->g;
    value x = r->made[pick(r->count)], y = r->made[pick(r->count)];
    int64_t k = last_extent(r, x), n = widths[pick(4)];
    uint32_t rank = at(r, x)->rank, plain = r->rows + 1;
    dim shape[5];
    memcpy(shape, at(r, x)->shape, rank * sizeof *shape);
    switch (pick(r->rows == 2 ? 14 : 12)) {
    case 0:
    case 1:
    case 2:
    case 3: { /* linear, sometimes with the weight on the left */
        const int64_t extent[] = {n, k};
        if (k < 2)
            return 0;
        return pick(5) || rank != plain ? graph_dot(g, x, weight(r, 2, extent), 0, 1) : 0;
    }
    case 4:
        return graph_unary(g, OP_TANH, x);
    case 5:
        return graph_unary(g, OP_NEG, x);
    case 6:
    case 7:
        return same_shape(r, x, y) ? graph_binary(g, pick(3) ? OP_ADD : OP_MUL, x, y) : 0;
    case 8: { /* a sum along the last axis, spread again */
        const int32_t axis[] = {(int32_t)rank - 1}, back[] = {0, 1, 2};
        return rank == plain ? graph_broadcast(g, graph_reduce(g, OP_REDUCE_SUM, x, 1, axis), rank, shape, back) : 0;
    }
    case 9: /* heads */
        if (rank == plain && k % 2 == 0 && k > 2) {
            shape[rank - 1] = dim_const(g->dims, k / 2);
            shape[rank] = dim_const(g->dims, 2);
            return graph_reshape(g, x, rank + 1, shape);
        }
        shape[rank - 2] = dim_mul(g->dims, shape[rank - 2], shape[rank - 1]);
        return rank == plain + 1 ? graph_reshape(g, x, plain, shape) : 0;
    case 10:
        return rank == plain && k >= 4 ? graph_slice_axis(g, x, rank - 1, dim_const(g->dims, pick(2) ? k / 2 : 0),
                                                          dim_const(g->dims, k / 2))
                                       : 0;
    case 11:
        return rank == plain && at(r, y)->rank == plain ? graph_concat(g, 2, (const value[]){x, y}, r->rows) : 0;
    case 12: { /* attention of x to y */
        const int32_t swap[] = {0, 2, 1};
        if (rank != plain || !same_shape(r, x, y))
            return 0;
        value scores = graph_unary(g, OP_EXP, graph_dot(g, x, y, 1, 1));
        return graph_dot(g, scores, graph_transpose(g, y, swap), 1, 1);
    }
    default: { /* a sum over the sequence or the batch, spread again */
        const int32_t axis[] = {(int32_t)pick(2)}, back[] = {1 - axis[0], 2};
        return rank == plain ? graph_broadcast(g, graph_reduce(g, OP_REDUCE_SUM, x, 1, axis), rank, shape, back) : 0;
    }
    }
}

static void build(struct random_graph *r, uint32_t ops)
{
    struct graph *g = r->g;
    dim shape[] = {dim_symbol(g->dims, "rows"), dim_symbol(g->dims, "sequence"), dim_const(g->dims, 4)};
    shape[r->rows] = shape[2];
    if (pick(2)) {
        value ids = graph_input(g, "ids", DT_I64, r->rows, shape);
        const int64_t extent[] = {6, 4};
        r->made[r->count++] = graph_gather(g, weight(r, 2, extent), ids, 0, 0);
    } else {
        r->made[r->count++] = graph_input(g, "x", DT_F32, r->rows + 1, shape);
    }
    for (uint32_t made = 0, tries = 0; made < ops && tries < 200; tries++) {
        value v = make(r);
        if (!v)
            continue;
        r->made[r->count++] = v;
        made++;
    }
    graph_output(g, "y", r->made[r->count - 1]);
    if (pick(3) == 0)
        graph_output(g, "z", r->made[pick(r->count)]);
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

static bool better(struct solve_cost a, struct solve_cost b)
{
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
        if (s->role[v] == ROLE_OP && mask) {
            uint32_t taken = placement_subaxes(s->scratch, value_placement(s, v, s->temporary));
            for (uint32_t i = 0; i < n->operand_count; i++)
                taken |= placement_subaxes(s->scratch, slot_placement(s, v, i, s->temporary));
            if (taken & mask)
                return false;
        }
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
    if (better(c, b->best))
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
        if (masks[i] & ~s->over[AXIS_TENSOR])
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
static bool brute_force(struct graph *g, const struct solve_options *o, struct arena *arena, struct solve_cost *best)
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
    if (combinations > 200000)
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

static void agree_on(const struct solve_options *o, uint32_t rows, uint32_t count, uint32_t first)
{
    uint32_t checked = 0, cut = 0;
    for (uint32_t i = 0; checked < count && i < count * 20; i++) {
        struct random_graph r = {.arena = arena_new(), .rows = rows};
        struct solve_cost best;
        struct solution solution = {0};
        char what[80];
        bool chance;
        r.g = graph_new(r.arena);
        seed = first + i;
        build(&r, 2 + pick(6));
        if (brute_force(r.g, o, r.arena, &best)) {
            struct solve_cost thought = searched(r.g, o, r.arena, &solution, &chance);
            snprintf(what, sizeof what, "seed %u, %u ranks: search against brute force", first + i, o->ranks);
            compare(&r, what, thought, best);
            snprintf(what, sizeof what, "seed %u, %u ranks: solution against search", first + i, o->ranks);
            if (!chance)
                compare(&r, what, solution_cost(r.g, &solution, o, r.arena), thought);
            checked++;
            for (uint32_t k = 0, found = 0; k < solution.class_count && !found; k++)
                cut += found = solution.classes[k].partition != 0;
        }
        arena_free(r.arena);
    }
    assert_int_equal(checked, count);
    assert_true(cut > count / 3);
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
    agree(2, graphs(60), 1000);
}
static void on_3(void **state)
{
    (void)state;
    agree(3, graphs(40), 100000);
}
static void on_4(void **state)
{
    (void)state;
    agree(4, graphs(30), 200000);
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

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(on_2), cmocka_unit_test(on_3), cmocka_unit_test(on_4),
                                       cmocka_unit_test(on_mesh)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
