/* tests/support/brute.c - the space that the solver searches, tried out: see brute.h. */
#include "tests/support/brute.h"
#include "tests/support/subject.h"
#include "tests/test.h"

#include <stdlib.h>

static char first_line[1200];
static void note(void *user, severity level, const char *line)
{
    (void)user;
    if (level == DIAG_ERROR && !first_line[0])
        snprintf(first_line, sizeof first_line, "%s", line);
}
static struct diag diag = {.sink = note};

/* ---- brute force ---- */

struct brute {
    struct solver *s;
    struct solve_cost best;
    bool scatters; /* the best does */
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

/* A partial result that a use takes cut where its region has it whole: scattered on the spot, which the search prices as a sum finished for the region. */
static bool scatters(struct solver *s, const struct solution *out)
{
    for (value v = 1; v < s->node_count; v++)
        for (uint32_t i = 0; s->live[v] && i < graph_node(s->g, v)->operand_count; i++) {
            value u = graph_node(s->g, v)->operand[i];
            if (!s->region_of[u] || !out->result[u]->partial || out->operand[v][i]->partial)
                continue;
            const struct placement *region = value_placement(s, u, s->temporary);
            for (uint32_t k = 0; k < region->rank; k++)
                if (axis_is_whole(&region->axis[k]) && !axis_is_whole(&out->operand[v][i]->axis[k]))
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
    if (better(b->s->options, c, b->best)) {
        b->best = c;
        b->scatters = scatters(b->s, &out);
    }
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

/* ---- pins, by rules of their own ---- */

static uint32_t parts_over(const struct solver *s, const struct placement *p, uint32_t first, uint32_t end)
{
    uint32_t parts = 1;
    for (uint32_t i = first; i < end; i++)
        parts *= mesh_parts(s->mesh, axis_subaxes(s->scratch, &p->axis[i]));
    return parts;
}

static bool obeys(uint32_t want, uint32_t have)
{
    return want == PARTS_ANY || (want == PARTS_CUT ? have > 1 : have == want);
}

/* Whether the way in which a unit is computed, between regions decided as they are, is one that the pin allows. */
static bool pin_obeyed(struct solver *s, const struct pin *pin, const struct unit *u, const struct unit_result *r)
{
    const struct node *n = graph_node(s->g, u->node), *x = graph_node(s->g, u->source);
    const struct placement *from = value_placement(s, u->source, s->temporary),
                           *to = value_placement(s, u->node, s->temporary), *w = r->operand[1 - u->slot];
    if (u->kind == UNIT_EMBEDDING) /* the table is [vocabulary, features], gathered along axis 0 */
        return obeys(pin->parts.in, parts_over(s, w, 0, 1)) && obeys(pin->parts.out, parts_over(s, w, 1, w->rank)) &&
               obeys(pin->parts.leaves, parts_over(s, to, x->rank, n->rank));
    uint32_t columns = w->rank - 1, first = u->slot == 0 ? n->rank - columns : 0; /* weights are [columns.., inner] */
    return obeys(pin->parts.in, parts_over(s, w, columns, w->rank)) &&
           obeys(pin->parts.out, parts_over(s, w, 0, columns)) &&
           obeys(pin->parts.arrives, u->from ? parts_over(s, from, x->rank - 1, x->rank) : 1) &&
           obeys(pin->parts.leaves, parts_over(s, to, first, first + columns));
}

static bool pins_obeyed(struct brute *b, uint32_t unit, const struct unit_result *r)
{
    const struct solve_options *o = b->s->options;
    const struct unit *u = &b->s->units.at[unit];
    for (uint32_t i = 0; i < o->pin_count; i++)
        if (o->pin[i].node == u->node && u->kind != UNIT_EDGE && !pin_obeyed(b->s, &o->pin[i], u, r))
            return false;
    return true;
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
        bool legal = unit_evaluate(s, unit, &s->chosen[unit], &r, s->scratch, s->temporary) && pins_obeyed(b, unit, &r);
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
        int64_t parts = mesh_parts(s->mesh, masks[i]);
        if (masks[i] && (extent < parts || (s->options->even && extent % parts)))
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

enum brute_result brute_force(struct graph *g, const struct solve_options *o, struct arena *arena, double most,
                              struct solve_cost *best)
{
    struct solver s;
    struct brute b = {.s = &s, .best = {INT64_MAX, INT64_MAX, INT64_MAX}};
    solver_start(&s, g, o, arena);
    solver_tie(&s);
    s.diag = &diag;
    if (pins_apply(&s, NULL) != TPC_OK)
        return BRUTE_NOTHING; /* two of one node contradict each other */
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
    s.unit_pin = NULL; /* they have widened the options; which of these they allow is found here */
    s.region_pin = NULL;
    if (combinations > most)
        return BRUTE_TOO_MANY;
    try_regions(&b, 1, options);
    *best = b.best;
    return !b.tried ? BRUTE_NOTHING : b.scatters ? BRUTE_SCATTERS : BRUTE_FOUND;
}

struct solve_cost searched(struct graph *g, const struct solve_options *o, struct arena *arena, struct solution *out,
                           bool *chance)
{
    struct solver s;
    solver_start(&s, g, o, arena);
    solver_tie(&s);
    s.chosen = NEW_ARRAY(arena, struct unit_option, s.units.count + 1);
    s.diag = &diag;
    struct cost c = pins_apply(&s, NULL) == TPC_OK ? search(&s) : cost_never();
    out->mesh = s.mesh;
    if (!cost_possible(c))
        return (struct solve_cost){c.bytes, c.time, c.switches};
    finish(&s, arena, out);
    *chance = passes_by_chance(&s, out);
    return (struct solve_cost){c.bytes, c.time, c.switches};
}

void compare_costs(struct random_graph *r, const char *what, struct solve_cost a, struct solve_cost b)
{
    struct text t = {.arena = r->arena};
    if (a.bytes == b.bytes && a.time == b.time && a.switches == b.switches)
        return;
    graph_print(r->g, &t);
    fail_msg("%s: %lld bytes %lld ps %lld switches against %lld, %lld, %lld\n%s", what, (long long)a.bytes,
             (long long)a.time, (long long)a.switches, (long long)b.bytes, (long long)b.time, (long long)b.switches,
             t.at);
}

void runs_alike(struct random_graph *r, const struct solve_options *o, const char *what)
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
