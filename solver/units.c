/* solver/units.c - the switch points: what a linear or an embedding may do, and what that costs between its two regions.
 *
 * A linear takes its activation `in` (the contracted axes) as the source's region has it (follow), whole, or cut on its own (a restrict; the result is then
 * partial), and gives its columns `out` as the result's region has them, whole, or cut on its own (gathered behind it). An embedding
 * is the same with the vocabulary for `in`. The axes that the weight lacks (rows: batch, tokens) follow the result's region or the source's.
 *
 * Invariant: unit_evaluate says no to whatever is not legal by docs/placements.md. Start there.
 */
#include "solver/internal.h"

/* Cuts the longest of axes [first, end) over `mask` as one factor; false when it has fewer units than parts. */
static bool own_cut(struct solver *s, struct graph *into, struct axis_layout *axis, const dim *shape, uint32_t first,
                    uint32_t end, uint32_t mask, struct arena *arena)
{
    uint32_t best = end;
    int64_t most = 0, extent;
    for (uint32_t i = first; i < end; i++)
        if (dim_is_const(s->g->dims, shape[i], &extent) && extent > most) {
            most = extent;
            best = i;
        }
    if (best == end || !parts_fit(s, shape[best], mesh_parts(&into->mesh, mask)))
        return false;
    struct factor *f = NEW(arena, struct factor);
    struct segment *g = NEW(arena, struct segment);
    *f = (struct factor){shape[best], class_partition(s, into, shape[best], mask)};
    *g = (struct segment){1, f};
    axis[best] = (struct axis_layout){1, g};
    return true;
}

static struct placement *copy_whole(uint32_t rank, const dim *shape, struct axis_layout **axis, struct arena *arena)
{
    struct placement *p = (struct placement *)arena_copy(arena, placement_whole(arena, rank, shape), sizeof *p);
    *axis = (struct axis_layout *)arena_copy(arena, p->axis, rank * sizeof **axis);
    p->axis = *axis;
    return p;
}

static bool all_whole(const struct axis_layout *axis, uint32_t first, uint32_t end)
{
    for (uint32_t i = first; i < end; i++)
        if (!axis_is_whole(&axis[i]))
            return false;
    return true;
}

/* Whether the axis can be summed over: a piece that fewer ranks share than another would be counted more than once. */
static bool evenly_cut(const struct graph *into, const struct axis_layout *a)
{
    for (uint32_t i = 1; i < a->count; i++) {
        struct axis_layout first = {1, &a->segment[0]}, one = {1, &a->segment[i]};
        if (axis_subaxes(into, &one) != axis_subaxes(into, &first))
            return false;
    }
    return true;
}

/* Everything that the three placements of a unit are made of. */
struct frame {
    const struct node *node, *x, *w;
    uint32_t weight;                         /* operand position of the weight */
    const struct placement *source, *target; /* region-side placements of the activation and of the result */
    struct axis_layout *xa, *wa, *ra;        /* axes of activation, weight, result, being made */
    struct placement *xp, *wp, *rp;
};

/* A prelude source as a unit may take it: whole, but for the batch and the sequence, which follow the result's own axes. */
static const struct placement *with_rows(struct solver *s, const struct unit *u, const struct node *x,
                                         struct graph *into, struct arena *arena)
{
    const struct node *n = graph_node(s->g, u->node);
    const struct placement *result = gathered_placement(s, into, u->node, arena);
    struct axis_layout *axis;
    struct placement *p = copy_whole(x->rank, x->shape, &axis, arena);
    uint32_t nb = (uint32_t)n->attribute.nbatch, nk = (uint32_t)n->attribute.ncontract;
    uint32_t first = u->kind == UNIT_LINEAR ? nb : 0, rows = u->kind == UNIT_LINEAR ? x->rank - nb - nk : x->rank;
    uint32_t at = u->kind == UNIT_EMBEDDING ? (uint32_t)n->attribute.axis : u->slot == 0 ? nb : n->rank - rows;
    for (uint32_t i = 0; i < rows; i++)
        axis[first + i] = result->axis[at + i];
    return p;
}

static void frame_start(struct solver *s, const struct unit *u, struct frame *f, struct graph *into,
                        struct arena *arena)
{
    f->node = graph_node(s->g, u->node);
    f->weight = 1 - u->slot;
    f->x = graph_node(s->g, u->source);
    f->w = graph_node(s->g, f->node->operand[f->weight]);
    struct view from = value_view(s, u->source), to = value_view(s, u->node);
    f->source =
        u->from ? view_placement(s, into, &from, OVER_ALL, arena) : placement_whole(arena, f->x->rank, f->x->shape);
    f->target = view_placement(s, into, &to, OVER_ALL, arena);
    if (!u->from && s->rows)
        f->source = with_rows(s, u, f->x, into, arena);
    f->xp = copy_whole(f->x->rank, f->x->shape, &f->xa, arena);
    f->wp = copy_whole(f->w->rank, f->w->shape, &f->wa, arena);
    f->rp = copy_whole(f->node->rank, f->node->shape, &f->ra, arena);
}

/* The axes [first, end) of `from` onto those of `to` from `at` on. */
static void copy_axes(struct axis_layout *to, uint32_t at, const struct axis_layout *from, uint32_t first, uint32_t end)
{
    for (uint32_t i = first; i < end; i++)
        to[at + i - first] = from[i];
}

static bool place_linear(struct solver *s, const struct unit *u, const struct unit_option *o, struct frame *f,
                         struct graph *into, struct arena *arena)
{
    uint32_t nb = (uint32_t)f->node->attribute.nbatch, nk = (uint32_t)f->node->attribute.ncontract;
    uint32_t xr = f->x->rank, wr = f->w->rank, rows = xr - nb - nk, columns = wr - nb - nk;
    uint32_t row_at = u->slot == 0 ? nb : nb + columns, column_at = u->slot == 0 ? nb + rows : nb;
    if (o->rows == TAKE_FOLLOW) {
        copy_axes(f->xa, 0, f->target->axis, 0, nb);
        copy_axes(f->xa, nb, f->target->axis, row_at, row_at + rows);
    } else {
        copy_axes(f->xa, 0, f->source->axis, 0, nb + rows);
    }
    copy_axes(f->wa, 0, f->xa, 0, nb);
    copy_axes(f->ra, 0, f->xa, 0, nb);
    copy_axes(f->ra, row_at, f->xa, nb, nb + rows);
    if (o->out == TAKE_FOLLOW)
        copy_axes(f->ra, column_at, f->target->axis, column_at, column_at + columns);
    else if (o->out == TAKE_OWN &&
             !(all_whole(f->target->axis, column_at, column_at + columns) &&
               own_cut(s, into, f->ra, f->node->shape, column_at, column_at + columns, o->out_mask, arena)))
        return false;
    copy_axes(f->wa, nb, f->ra, column_at, column_at + columns);
    if (o->in == TAKE_FOLLOW)
        copy_axes(f->xa, xr - nk, f->source->axis, xr - nk, xr);
    else if (o->in == TAKE_OWN && !(all_whole(f->source->axis, xr - nk, xr) &&
                                    own_cut(s, into, f->xa, f->x->shape, xr - nk, xr, o->in_mask, arena)))
        return false;
    copy_axes(f->wa, wr - nk, f->xa, xr - nk, xr);
    for (uint32_t i = xr - nk; i < xr; i++) {
        if (!evenly_cut(into, &f->xa[i]))
            return false;
        f->rp->partial_subaxes |= axis_subaxes(into, &f->xa[i]);
    }
    return true;
}

static bool place_embedding(struct solver *s, const struct unit_option *o, struct frame *f, struct graph *into,
                            struct arena *arena)
{
    uint32_t axis = (uint32_t)f->node->attribute.axis, ir = f->x->rank;
    copy_axes(f->xa, 0, o->rows == TAKE_FOLLOW ? f->target->axis + axis : f->source->axis, 0, ir);
    copy_axes(f->ra, axis, f->xa, 0, ir);
    if (o->out == TAKE_FOLLOW) {
        copy_axes(f->ra, 0, f->target->axis, 0, axis);
        copy_axes(f->ra, axis + ir, f->target->axis, axis + ir, f->node->rank);
    } else if (o->out == TAKE_OWN &&
               !(all_whole(f->target->axis, axis + ir, f->node->rank) &&
                 own_cut(s, into, f->ra, f->node->shape, axis + ir, f->node->rank, o->out_mask, arena))) {
        return false;
    }
    copy_axes(f->wa, 0, f->ra, 0, axis);
    copy_axes(f->wa, axis + 1, f->ra, axis + ir, f->node->rank);
    if (o->in == TAKE_OWN) {
        if (!own_cut(s, into, f->wa, f->w->shape, axis, axis + 1, o->in_mask, arena))
            return false;
        f->rp->partial_subaxes = o->in_mask;
    }
    return true;
}

static uint32_t parts_on(const struct graph *into, uint32_t over, const struct axis_layout *axis, uint32_t first,
                         uint32_t end)
{
    uint32_t mask = 0;
    for (uint32_t i = first; i < end; i++)
        mask |= axis_subaxes(into, &axis[i]);
    return mesh_parts(&into->mesh, mask & over);
}

/* In how many parts the unit has what, for pins and for people. */
static struct layer_parts count_parts(const struct solver *s, const struct unit *u, const struct frame *f,
                                      const struct graph *into)
{
    struct unit_axes a;
    unit_axes(s, u, &a);
    uint32_t over = pins_features(s);
    uint32_t axis = (uint32_t)f->node->attribute.axis;
    bool table = u->kind == UNIT_EMBEDDING;
    struct layer_parts p = {
        .batch = parts_on(into, pins_experts(s), f->wa, 0, a.batch),
        .in = table ? parts_on(into, over, f->wa, axis, axis + 1) : parts_on(into, over, f->xa, a.in, a.in_end),
        .out = parts_on(into, over, f->ra, 0, a.outer) * parts_on(into, over, f->ra, a.out, a.out_end),
        .leaves =
            parts_on(into, over, f->target->axis, 0, a.outer) * parts_on(into, over, f->target->axis, a.out, a.out_end),
    };
    p.arrives = table ? p.in : parts_on(into, over, f->source->axis, a.in, a.in_end);
    return p;
}

/* How the result gets into its region: reduced and converted, or loose as a partial sum. */
static void settle(struct solver *s, const struct unit *u, const struct frame *f, struct unit_result *out,
                   struct graph *into)
{
    out->settled = settled_cost(s, u->node, f->rp, f->target);
    out->partial = 0;
    struct view view = value_view(s, u->node);
    uint32_t shards = sequence_shards(s, u->node);
    const struct placement *target = f->rp->partial && shards == f->rp->partial_subaxes
                                         ? view_placement(s, into, &view, ~shards, s->temporary)
                                         : f->target;
    if (!f->rp->partial || (placement_subaxes(into, target) & f->rp->partial_subaxes))
        return;
    for (uint32_t i = 0; i < f->rp->rank; i++)
        if (!axis_equal(&f->rp->axis[i], &target->axis[i]) && !axis_is_whole(&f->rp->axis[i]))
            return; /* a gather of a partial sum is never better */
    out->partial = f->rp->partial_subaxes;
    out->loose = cost_zero();
}

/* What it costs to take the source so; a gather that its region pays for is free. */
static struct cost taking(struct solver *s, const struct unit *u, struct graph *into, const struct placement *from,
                          const struct placement *to)
{
    if (!u->from)
        return cost_zero();
    const struct placement *step = gathered_on_the_way(s, u->source, from, to);
    if ((s->handed_out[u->source] && placement_is_whole(step)) ||
        (s->gathered[u->source] && placement_equal(step, gathered_placement(s, into, u->source, s->temporary))))
        return cost_zero();
    return conversion_cost(s, into, graph_node(s->g, u->source)->dtype, from, to);
}

static bool evaluate_edge(struct solver *s, const struct unit *u, struct unit_result *out, struct graph *into,
                          struct arena *arena)
{
    struct view source = value_view(s, u->source), use = slot_view(s, u->node, u->slot);
    const struct placement *from = view_placement(s, into, &source, OVER_ALL, arena);
    const struct placement *to = view_placement(s, into, &use, OVER_ALL, arena);
    *out = (struct unit_result){.operand = {to, NULL}};
    out->settled = taking(s, u, into, from, to);
    return true;
}

bool unit_evaluate(struct solver *s, uint32_t unit, const struct unit_option *o, struct unit_result *out,
                   struct graph *into, struct arena *arena)
{
    const struct unit *u = &s->units.at[unit];
    struct frame f;
    if (u->kind == UNIT_EDGE)
        return evaluate_edge(s, u, out, into, arena);
    *out = (struct unit_result){0};
    frame_start(s, u, &f, into, arena);
    if (!(u->kind == UNIT_LINEAR ? place_linear(s, u, o, &f, into, arena) : place_embedding(s, o, &f, into, arena)))
        return false;
    f.rp->partial = f.rp->partial_subaxes ? REDUCTION_SUM : 0;
    out->parts = count_parts(s, u, &f, into);
    if (!pins_allow_unit(s, unit, out->parts))
        return false;
    if (!placement_disjoint(into, f.xp) || !placement_disjoint(into, f.wp) || !placement_disjoint(into, f.rp))
        return false;
    out->operand[u->slot] = placement_normalise(into, f.xp, arena);
    out->operand[f.weight] = placement_normalise(into, f.wp, arena);
    out->result = placement_normalise(into, f.rp, arena);
    if (into != s->scratch)
        return true; /* the final placements: costs are the search's matter */
    out->here = op_cost(s, into, u->node, out->operand, out->result);
    out->here.bytes = stored_bytes(s, f.node->operand[f.weight], out->operand[f.weight]);
    out->here = cost_add(out->here, taking(s, u, into, f.source, out->operand[u->slot]));
    settle(s, u, &f, out, into);
    return true;
}

/* ---- options ---- */

/* Masks to try for an own cut: of sub-axes that stand for each other (equal orbit) only the first few. */
static bool is_prefix(const struct solver *s, const uint32_t *orbit, uint32_t mask)
{
    for (uint32_t i = 0; i < s->mesh->count; i++)
        for (uint32_t k = 0; k < i; k++)
            if (orbit[k] == orbit[i] && (mask >> i & 1) && !(mask >> k & 1))
                return false;
    return true;
}

/* An own cut of a linear costs a collective that following a region's cut does not; it is for weights that nothing else can cut: where neither
 * region has a class to cut. (Else all linears of a layer cut on their own, and the layer whole, would win on bytes.) An embedding follows, or is
 * cut by vocabulary. A router is whole on every rank: it is small, and its collective would stand in the way of each layer. */
bool unit_may_cut_alone(const struct solver *s, const struct unit *u)
{
    const struct region *from = u->from ? &s->regions.at[u->from] : NULL, *to = &s->regions.at[u->to];
    return u->kind == UNIT_LINEAR && !to->class_count && !to->routes && !(from && (from->class_count || from->routes));
}

static void enumerate_out(struct solver *s, uint32_t unit, struct unit_option o, const uint32_t *orbit,
                          struct arena *arena, unit_options *out)
{
    uint32_t all = s->over[AXIS_TENSOR];
    o.out = TAKE_FOLLOW;
    *PUSH(arena, out) = o;
    o.out = TAKE_WHOLE;
    *PUSH(arena, out) = o;
    if (!unit_may_cut_alone(s, &s->units.at[unit]) && !pins_cut_out(s, unit))
        return;
    o.out = TAKE_OWN;
    uint32_t used[MAX_SUBAXES];
    for (uint32_t i = 0; i < s->mesh->count; i++) /* sub-axes that `in` takes no longer stand for the others */
        used[i] = orbit[i] * 2 + (o.in == TAKE_OWN && (o.in_mask >> i & 1));
    for (o.out_mask = all; o.out_mask; o.out_mask = (o.out_mask - 1) & all)
        if (is_prefix(s, used, o.out_mask) && !(o.in == TAKE_OWN && (o.in_mask & o.out_mask)))
            *PUSH(arena, out) = o;
}

void unit_enumerate(struct solver *s, uint32_t unit, const uint32_t *orbit, struct arena *arena, unit_options *out)
{
    const struct unit *u = &s->units.at[unit];
    struct unit_option o = {0};
    uint32_t all = s->over[AXIS_TENSOR];
    if (u->kind == UNIT_EDGE) {
        *PUSH(arena, out) = o;
        return;
    }
    for (int rows = TAKE_FOLLOW; rows <= TAKE_WHOLE; rows++) {
        o = (struct unit_option){.rows = (uint8_t)rows};
        o.in = u->kind == UNIT_LINEAR ? TAKE_FOLLOW : TAKE_WHOLE;
        enumerate_out(s, unit, o, orbit, arena, out);
        if (u->kind == UNIT_LINEAR) {
            o.in = TAKE_WHOLE;
            enumerate_out(s, unit, o, orbit, arena, out);
        }
        o.in = TAKE_OWN;
        bool alone = u->kind == UNIT_EMBEDDING || unit_may_cut_alone(s, u) || pins_cut_in(s, unit);
        for (o.in_mask = alone ? all : 0; o.in_mask; o.in_mask = (o.in_mask - 1) & all)
            if (is_prefix(s, orbit, o.in_mask))
                enumerate_out(s, unit, o, orbit, arena, out);
    }
}
