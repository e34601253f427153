/* solver/solver.c - the order of things. Start with solve. */
#include "solver/internal.h"

static void allocate(struct solver *s)
{
    uint32_t n = s->node_count;
    s->role = NEW_ARRAY(s->arena, uint8_t, n);
    s->depends = NEW_ARRAY(s->arena, uint8_t, n);
    s->region_of = NEW_ARRAY(s->arena, uint32_t, n);
    s->axes = NEW_ARRAY(s->arena, tree *, n);
    s->slot = NEW_ARRAY(s->arena, tree **, n);
    s->joint_parent = NEW_ARRAY(s->arena, value, n);
    s->joint_root = NEW_ARRAY(s->arena, value, n);
    s->joint_seen = NEW_ARRAY(s->arena, uint32_t, n);
    s->tree_owner = NEW_ARRAY(s->arena, uint32_t, n);
    s->cone = NEW_ARRAY(s->arena, uint32_t, n);
    s->handed_out = NEW_ARRAY(s->arena, bool, n);
    s->is_output = NEW_ARRAY(s->arena, bool, n);
    s->gathered = NEW_ARRAY(s->arena, bool, n);
    s->seen.arena = s->arena;
}

static void find_outputs(struct solver *s)
{
    for (uint32_t i = 0; i < s->g->outputs.count; i++) {
        bool state = false;
        s->is_output[s->g->outputs.at[i].value] = true;
        for (uint32_t k = 0; k < s->g->states.count; k++)
            state = state || s->g->states.at[k].output == i;
        if (!state)
            s->handed_out[s->g->outputs.at[i].value] = true;
    }
}

void solver_start(struct solver *s, struct graph *g, const struct solve_options *options, struct arena *arena)
{
    *s = (struct solver){
        .g = g, .options = options, .arena = arena, .temporary = arena_new_in(arena), .node_count = g->nodes.count};
    s->mesh = NEW(arena, struct mesh);
    mesh_init(s->mesh, "tp", options->ranks);
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

/* Why nothing is cut, for people. */
static const char *explain_nothing(const struct solver *s)
{
    uint32_t linears = 0;
    if (s->options->ranks == 1)
        return NULL;
    for (uint32_t i = 0; i < s->units.count; i++)
        linears += s->units.at[i].kind != UNIT_EDGE;
    if (!linears)
        return "nothing to split: no product with a weight and no embedding in the graph";
    return "nothing to split: every weight is too small, or is cut by nothing that the ops around it allow";
}

static bool anything_cut(const struct solver *s, const struct solution *out)
{
    for (value v = 1; v < s->node_count; v++)
        if (s->live[v] && !placement_is_whole(out->result[v]))
            return true;
    return false;
}

status solve(struct graph *g, const struct solve_options *options, struct arena *arena, struct diag *diag,
             struct solution **out)
{
    struct solver s;
    struct arena *work = arena_new_in(arena);
    if (options->ranks < 1 || options->ranks > MAX_RANKS)
        return diag_error(diag, TPC_USAGE, g->model_path, "%u ranks: must be between 1 and %d", options->ranks,
                          MAX_RANKS);
    solver_start(&s, g, options, work);
    s.diag = diag;
    rules_apply(&s);
    region_classes(&s);
    region_shared(&s);
    s.chosen = NEW_ARRAY(work, struct unit_option, s.units.count + 1);
    if (!cost_possible(search(&s)))
        return diag_error(diag, TPC_INTERNAL, g->model_path, "no solution, not even with everything whole");
    *out = NEW(arena, struct solution);
    struct mesh *mesh = NEW(arena, struct mesh);
    *mesh = *s.mesh;
    (*out)->mesh = mesh;
    finish(&s, arena, *out);
    explain(&s, arena, *out);
    (*out)->note = anything_cut(&s, *out) ? NULL : explain_nothing(&s);
    struct solve_cost cost = solution_cost(g, *out, options, work);
    (*out)->switches = (uint32_t)cost.switches;
    (*out)->time = (double)cost.time * 1e-12;
    (*out)->bytes_per_rank = solution_bytes(&s, *out);
    arena_free(work);
    return TPC_OK;
}
