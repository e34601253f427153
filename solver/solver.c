/* solver/solver.c - the order of things. Start with solve. */
#include "solver/internal.h"

static void allocate(struct solver *s)
{
    uint32_t n = s->node_count;
    s->role = NEW_ARRAY(s->arena, uint8_t, n);
    s->depends = NEW_ARRAY(s->arena, uint8_t, n);
    s->apart = NEW_ARRAY(s->arena, uint32_t, n);
    s->readers = NEW_ARRAY(s->arena, uint32_t, s->g->params.count + 1);
    s->region_of = NEW_ARRAY(s->arena, uint32_t, n);
    s->axes = NEW_ARRAY(s->arena, tree *, n);
    s->slot = NEW_ARRAY(s->arena, tree **, n);
    s->whole = NEW_ARRAY(s->arena, uint64_t, n);
    s->whole_at = NEW_ARRAY(s->arena, uint64_t *, n);
    s->joint_parent = NEW_ARRAY(s->arena, value, n);
    s->joint_root = NEW_ARRAY(s->arena, value, n);
    s->joint_seen = NEW_ARRAY(s->arena, uint32_t, n);
    s->tree_owner = NEW_ARRAY(s->arena, uint32_t, n);
    s->cone = NEW_ARRAY(s->arena, uint32_t, n);
    s->chain = NEW_ARRAY(s->arena, uint32_t, n);
    s->handed_out = NEW_ARRAY(s->arena, bool, n);
    s->is_output = NEW_ARRAY(s->arena, bool, n);
    s->gathered = NEW_ARRAY(s->arena, bool, n);
    s->seen.arena = s->arena;
}

static void find_outputs(struct solver *s)
{
    for (uint32_t i = 0; i < s->g->outputs.count; i++) {
        bool state = s->options->taken && s->options->taken[i];
        s->is_output[s->g->outputs.at[i].value] = true;
        for (uint32_t k = 0; k < s->g->states.count; k++)
            state = state || s->g->states.at[k].output == i;
        if (!state)
            s->handed_out[s->g->outputs.at[i].value] = true;
    }
}

static void start_mesh(struct solver *s)
{
    const struct solve_options *o = s->options;
    mesh_init(s->mesh, "tp", o->axis_count ? 1 : o->ranks);
    s->over[AXIS_TENSOR] = (1u << s->mesh->count) - 1;
    for (uint32_t i = 0; i < o->axis_count; i++) {
        uint32_t before = s->mesh->count;
        mesh_add(s->mesh, o->axis[i].name, o->axis[i].size);
        s->over[o->axis[i].role] |= (1u << s->mesh->count) - (1u << before);
    }
}

void solver_start(struct solver *s, struct graph *g, const struct solve_options *options, struct arena *arena)
{
    *s = (struct solver){.g = g,
                         .options = options,
                         .arena = arena,
                         .temporary = arena_new_in(arena),
                         .node_count = g->nodes.count,
                         .even = options->even};
    s->mesh = NEW(arena, struct mesh);
    start_mesh(s);
    s->rows = s->over[AXIS_DATA] || s->over[AXIS_CONTEXT] || options->sequence != SEQUENCE_WHOLE;
    g->mesh = *s->mesh;
    g->mesh.ranks = 0; /* a Graph, not a Program */
    s->scratch = graph_derive(g);
    s->scratch->arena = arena;
    memcpy(&s->scratch->nodes, &g->nodes, sizeof g->nodes); /* read, never added to */
    s->scratch->partitions.at = NULL;
    s->scratch->partitions.count = s->scratch->partitions.capacity = 0;
    (void)PUSH(arena, &s->scratch->partitions);
    if (!g->partitions.count)
        (void)PUSH(g->arena, &g->partitions);
    s->uses = graph_uses(g, arena);
    s->live = graph_live(g, arena);
    allocate(s);
    find_outputs(s);
    cost_start(s);
    classify(s);
}

/* Forgets regions, units and trees. */
static void start_over(struct solver *s)
{
    memset(s->region_of, 0, s->node_count * sizeof *s->region_of);
    memset(s->axes, 0, s->node_count * sizeof *s->axes);
    memset(s->slot, 0, s->node_count * sizeof *s->slot);
    memset(s->joint_parent, 0, s->node_count * sizeof *s->joint_parent);
    s->trees.count = s->ties.count = s->units.count = 0;
    memset(&s->regions, 0, sizeof s->regions); /* each owns arrays */
}

void solver_tie(struct solver *s)
{
    rules_apply(s);
    if (stacked_apart(s)) {
        start_over(s);
        classify(s);
        rules_apply(s);
    }
    stacked_routers(s);
    region_classes(s);
    region_shared(s);
}

static void ignore(void *user, severity level, const char *line)
{
    (void)user;
    (void)level;
    (void)line;
}

/* Is there a plan of fewer bytes with these options? What is tried leaves no trace. */
static bool saves_bytes(const struct solver *s, const struct solve_options *o, int64_t whole)
{
    struct diag quiet = {.sink = ignore};
    struct solver other;
    solver_start(&other, s->g, o, arena_new_in(s->arena));
    other.diag = &quiet;
    solver_tie(&other);
    other.chosen = NEW_ARRAY(other.arena, struct unit_option, other.units.count + 1);
    struct cost least = pins_start(&other) == TPC_OK ? search(&other) : cost_never();
    return cost_possible(least) && least.bytes < whole;
}

/* Why nothing is cut, for people: what is in the way is what, left out, lets something be cut. */
static const char *explain_nothing(const struct solver *s, const char *rows, int64_t bytes)
{
    struct solve_options o = *s->options;
    uint32_t linears = 0;
    o.objective = OBJECTIVE_BYTES;
    if (s->options->ranks == 1)
        return NULL;
    for (uint32_t i = 0; i < s->units.count; i++)
        linears += s->units.at[i].kind != UNIT_EDGE;
    if (!linears)
        return "nothing to split: no product with a weight and no embedding in the graph";
    if (!(s->over[AXIS_TENSOR] | s->over[AXIS_EXPERT]))
        return rows;
    if (s->options->objective == OBJECTIVE_LATENCY && saves_bytes(s, &o, bytes))
        return "nothing is split: no split is faster than all weights on every rank, by this machine and these nominal "
               "extents (--machine, --nominal; --objective bytes splits)";
    o.even = false;
    if (s->options->even && saves_bytes(s, &o, bytes))
        return "nothing is split: no factor of a weight that may be cut divides into equal parts (without --even "
               "something "
               "does)";
    o.pin_count = 0;
    if (s->options->pin_count && saves_bytes(s, &o, bytes))
        return "nothing to split that the pins allow";
    return "nothing to split: every weight is too small, or is cut by nothing that the ops around it allow";
}

uint32_t switch_points(struct graph *g, const struct solve_options *options, struct arena *arena,
                       const struct switch_point **out)
{
    struct solver s;
    struct arena *work = arena_new_in(arena);
    uint32_t count = 0;
    solver_start(&s, g, options, work);
    struct switch_point *p = NEW_ARRAY(arena, struct switch_point, s.units.count + 1);
    for (uint32_t i = 0; i < s.units.count; i++) {
        const struct unit *u = &s.units.at[i];
        if (u->kind == UNIT_EDGE)
            continue;
        value weight = graph_node(g, u->node)->operand[1 - u->slot], param = weight_behind(&s, weight);
        p[count++] = (struct switch_point){
            .node = u->node,
            .source = u->source,
            .weight = weight,
            .embedding = u->kind == UNIT_EMBEDDING,
            .param = param ? graph_node(g, param)->attribute.index : UINT32_MAX,
        };
    }
    arena_free(work);
    *out = p;
    return count;
}

static bool anything_cut(const struct solver *s, const struct solution *out)
{
    for (value v = 1; v < s->node_count; v++)
        if (s->live[v] && !placement_is_whole(out->result[v]))
            return true;
    return false;
}

static status check_options(const struct graph *g, const struct solve_options *o, struct diag *diag)
{
    uint64_t ranks = o->axis_count ? 1 : o->ranks;
    for (uint32_t i = 0; i < o->axis_count && ranks <= MAX_RANKS; i++)
        ranks *= o->axis[i].size;
    if (ranks < 1 || ranks > MAX_RANKS || o->axis_count > MAX_MESH_AXES)
        return diag_error(diag, TPC_USAGE, g->model_path, "%u ranks on %u axes: must be 1 to %d on at most %d",
                          (unsigned)ranks, o->axis_count, MAX_RANKS, MAX_MESH_AXES);
    return TPC_OK;
}

/* An axis of experts needs some. */
static status check_experts(const struct solver *s)
{
    const struct solve_options *o = s->options;
    bool found = false;
    for (tree t = 1; t < s->trees.count; t++)
        found = found || s->trees.at[t].stacked;
    for (uint32_t i = 0; i < o->axis_count && !found; i++)
        if (o->axis[i].role == AXIS_EXPERT && o->axis[i].size > 1)
            return diag_error(s->diag, TPC_USAGE, s->g->model_path,
                              "mesh axis '%s' of %u: the model has no experts (no weight has an axis beside its inputs "
                              "and outputs): leave the axis out",
                              o->axis[i].name, o->axis[i].size);
    return TPC_OK;
}

status solve(struct graph *g, const struct solve_options *options, struct arena *arena, struct diag *diag,
             struct solution **out)
{
    struct solver s;
    struct arena *work = arena_new_in(arena);
    status legal = check_options(g, options, diag);
    if (legal != TPC_OK)
        return legal;
    int64_t *nominal[NOMINAL_PHASES];
    uint32_t symbols = dims_symbol_count(g->dims); /* solving adds those of partitions */
    if ((legal = nominal_dims(g, options, arena, diag, nominal)) != TPC_OK)
        return legal;
    solver_start(&s, g, options, work);
    s.diag = diag;
    solver_tie(&s);
    if ((legal = check_experts(&s)) != TPC_OK)
        return legal;
    s.chosen = NEW_ARRAY(work, struct unit_option, s.units.count + 1);
    status result = pins_start(&s);
    if (result != TPC_OK)
        return result;
    struct cost cheapest = search(&s);
    if (!cost_possible(cheapest))
        return s.options->pin_count
                   ? conflict_report(&s)
                   : diag_error(diag, TPC_INTERNAL, g->model_path, "no solution, not even with everything whole");
    *out = NEW(arena, struct solution);
    struct mesh *mesh = NEW(arena, struct mesh);
    *mesh = *s.mesh;
    (*out)->mesh = mesh;
    finish(&s, arena, *out);
    explain(&s, arena, *out);
    const char *rows = rows_report(&s, arena, *out);
    (*out)->note = anything_cut(&s, *out) ? rows : explain_nothing(&s, rows, cheapest.bytes);
    struct solve_cost cost = solution_cost(g, *out, options, work);
    (*out)->switches = (uint32_t)cost.switches;
    (*out)->time = (double)cost.time * 1e-12;
    (*out)->bytes_per_rank = solution_bytes(&s, *out);
    (*out)->nominal_count = symbols;
    for (int phase = 0; phase < NOMINAL_PHASES; phase++)
        (*out)->nominal[phase] = nominal[phase];
    if (options->stats)
        *options->stats = s.stats;
    if (options->prices)
        price_alternatives(&s, *out);
    arena_free(work);
    return TPC_OK;
}
