/* frontend/state_from.c - see state_from.h. States meet as they do when texts are written (runtime/generate_first.c): the other plan's present becomes a past here, or this
 * one's becomes a past there. Pins say in how many parts each axis is; which parts these are is compared when the graph is solved. Start with state_pins.
 */
#include "frontend/state_from.h"
#include "runtime/generate.h"

/* A value here and where the other plan has it. */
struct meeting {
    const char *name;
    value here, there;
    uint32_t output;                /* 1 + the output that `here` is; 0: it is the past of a state */
    const struct placement *wanted; /* NULL: whole */
    bool free;                      /* the other plan hands it out whole, and this one takes what it wants of it */
};
typedef LIST(struct meeting) meetings;

static bool is_past(const struct graph *g, uint32_t input)
{
    for (uint32_t i = 0; i < g->states.count; i++)
        if (g->states.at[i].input == input)
            return true;
    return false;
}

static bool is_present(const struct graph *g, uint32_t output)
{
    for (uint32_t i = 0; i < g->states.count; i++)
        if (g->states.at[i].output == output)
            return true;
    return false;
}

/* This graph's pasts: each must be handed out there. */
static status meet_pasts(const struct graph *g, const struct state_source *from, struct diag *diag, meetings *out)
{
    const struct graph *other = from->plan->program->graph;
    for (uint32_t i = 0; i < g->inputs.count; i++) {
        uint32_t k = 0;
        while (k < other->outputs.count && !states_meet(g, i, other, k))
            k++;
        if (!is_past(g, i))
            continue;
        if (k == other->outputs.count)
            return diag_error(diag, TPC_USAGE, from->path,
                              "--state-from: it hands out nothing for the state '%s' (its past as an input of the same "
                              "name, or present... there for past... here)",
                              g->inputs.at[i].name);
        const struct placement *wanted = from->plan->links.output[k];
        *PUSH(g->arena, out) = (struct meeting){g->inputs.at[i].name,
                                                g->inputs.at[i].value,
                                                other->outputs.at[k].value,
                                                0,
                                                wanted,
                                                !wanted && !is_present(other, k)};
    }
    return TPC_OK;
}

/* The other one's pasts that are handed out here. */
static void meet_presents(const struct graph *g, const struct state_source *from, meetings *out)
{
    const struct graph *other = from->plan->program->graph;
    for (uint32_t k = 0; k < g->outputs.count; k++)
        for (uint32_t i = 0; i < other->inputs.count; i++)
            if (is_past(other, i) && states_meet(other, i, g, k))
                *PUSH(g->arena, out) = (struct meeting){g->outputs.at[k].name,      g->outputs.at[k].value,
                                                        other->inputs.at[i].value,  k + 1,
                                                        from->plan->links.input[i], false};
}

static status meet(struct graph *g, const struct state_source *from, struct diag *diag, meetings *out)
{
    status s = meet_pasts(g, from, diag, out);
    meet_presents(g, from, out);
    if (s != TPC_OK || out->count)
        return s;
    return diag_error(diag, TPC_USAGE, from->path,
                      "--state-from: this model and that of the plan have no state in common (present... in the one, "
                      "past... in the other)");
}

static const char *shape_text(struct arena *arena, struct graph *g, value v, const struct placement *p)
{
    const struct node *n = graph_node(g, v);
    struct text t = {.arena = arena};
    text_printf(&t, "%s ", dtype_name(n->dtype));
    placement_tell(g, p ? p : placement_whole(arena, n->rank, n->shape), &t);
    return t.at;
}

/* Whole extent of an axis there; -1: no number. */
static int64_t extent_there(const struct state_source *from, const struct meeting *m, uint32_t axis)
{
    struct graph *other = from->plan->program->graph;
    int64_t n = -1;
    dim d = m->wanted ? axis_extent(other, &m->wanted->axis[axis]) : graph_node(other, m->there)->shape[axis];
    return dim_is_const(other->dims, d, &n) ? n : -1;
}

static status check_types(struct arena *arena, struct graph *g, const struct state_source *from,
                          const struct meeting *m, struct diag *diag)
{
    struct graph *other = from->plan->program->graph;
    const struct node *here = graph_node(g, m->here), *there = graph_node(other, m->there);
    bool same = here->dtype == there->dtype && here->rank == there->rank;
    for (uint32_t a = 0; same && a < here->rank; a++) {
        int64_t n = -1, k = extent_there(from, m, a);
        if (dim_is_const(g->dims, here->shape[a], &n) && k >= 0)
            same = n == k;
    }
    return same ? TPC_OK
                : diag_error(diag, TPC_USAGE, from->path, "--state-from: '%s' is %s here and %s there", m->name,
                             shape_text(arena, g, m->here, NULL), shape_text(arena, other, m->there, m->wanted));
}

static void pin(struct arena *arena, struct graph *g, const struct state_source *from, const struct meeting *m,
                uint32_t group, struct pin *out)
{
    const struct graph *other = from->plan->program->graph;
    uint32_t rank = graph_node(g, m->here)->rank, *parts = NEW_ARRAY(arena, uint32_t, rank + 1);
    for (uint32_t a = 0; a < rank; a++)
        parts[a] = m->wanted ? mesh_parts(&other->mesh, axis_subaxes(other, &m->wanted->axis[a])) : PARTS_WHOLE;
    *out = (struct pin){.kind = PIN_RESULT,
                        .node = m->here,
                        .rank = rank,
                        .axis = parts,
                        .all_axes = true,
                        .text = arena_printf(arena, "--state-from (state '%s')", m->name),
                        .group = group,
                        .code = TPC_USAGE};
}

status state_pins(struct arena *arena, struct graph *g, struct solve_options *options, const struct state_source *from,
                  struct diag *diag)
{
    meetings all = {0};
    status s = from ? meet(g, from, diag, &all) : TPC_OK;
    if (!from || s != TPC_OK)
        return s;
    uint32_t count = options->pin_count, group = 0;
    struct pin *pins = NEW_ARRAY(arena, struct pin, count + all.count + 1);
    bool *taken = NEW_ARRAY(arena, bool, g->outputs.count + 1);
    for (uint32_t i = 0; i < count; i++) {
        pins[i] = options->pin[i];
        group = pins[i].group >= group ? pins[i].group + 1 : group;
    }
    for (uint32_t i = 0; i < all.count && s == TPC_OK; i++) {
        const struct meeting *m = &all.at[i];
        s = check_types(arena, g, from, m, diag);
        if (s == TPC_OK && !m->free)
            pin(arena, g, from, m, group, &pins[count++]);
        if (m->output)
            taken[m->output - 1] = true;
    }
    options->pin = pins;
    options->pin_count = count;
    options->taken = taken;
    return s;
}

status state_agree(struct arena *arena, struct graph *g, const struct solution *solution,
                   const struct state_source *from, struct diag *diag)
{
    meetings all = {0};
    status s = from ? meet(g, from, diag, &all) : TPC_OK;
    bool whole = false;
    for (uint32_t i = 0; i < all.count && s == TPC_OK; i++) {
        const struct meeting *m = &all.at[i];
        struct graph *other = from->plan->program->graph;
        const struct placement *here = m->output ? solution->output[m->output - 1] : solution->result[m->here];
        whole = whole || (m->free && !placement_is_whole(here));
        if (!m->free && !placement_alike(g, here, other, m->wanted))
            s = diag_error(diag, TPC_USAGE, from->path,
                           "--state-from: '%s' cannot lie here as it does there: %s here, %s there", m->name,
                           shape_text(arena, g, m->here, here), shape_text(arena, other, m->there, m->wanted));
    }
    if (whole)
        diag_note(
            diag, from->path,
            "--state-from: this plan hands its states out whole, so there is nothing to agree on: compile it with "
            "--state-from the one that takes them, and they stay on their ranks");
    return s;
}

status state_source_open(struct arena *arena, const char *path, const struct solve_options *o, struct diag *diag,
                         struct state_source *out)
{
    struct plan *plan = NULL;
    struct mesh mesh = {0};
    status s = plan_read(arena, path, diag, &plan);
    if (s != TPC_OK)
        return s;
    const struct mesh *there = &plan->program->graph->mesh;
    mesh_init(&mesh, "tp", o->axis_count ? 1 : o->ranks);
    for (uint32_t i = 0; i < o->axis_count; i++)
        mesh_add(&mesh, o->axis[i].name, o->axis[i].size);
    bool same = mesh.count == there->count;
    for (uint32_t i = 0; i < mesh.count && same; i++)
        same = mesh.size[i] == there->size[i] && strcmp(mesh.axis[i], there->axis[i] ? there->axis[i] : "tp") == 0;
    *out = (struct state_source){path, plan};
    if (same)
        return TPC_OK;
    const char *name[MAX_SUBAXES];
    uint32_t size[MAX_SUBAXES], axes = mesh_axes(there, name, size);
    struct text t = {.arena = arena};
    for (uint32_t i = 0; i < axes; i++)
        text_printf(&t, "%s%s=%u", i ? "," : "", name[i], (unsigned)size[i]);
    return diag_error(diag, TPC_USAGE, path, "--state-from: it is a plan for --mesh %s, which this one must be for too",
                      axes ? t.at : "tp=1");
}
