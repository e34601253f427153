/* solver/finish.c - from decisions to the solution: placements of every result and every use, classes, layers, cost.
 *
 * Region by region what the search decided; then the prelude backwards: a value that all its users want cut in one way is computed cut, up to the params.
 * Invariant: what is written here fits together by docs/placements.md. Start with finish.
 */
#include "solver/internal.h"

#include <stdlib.h>

struct finish {
    struct solver *s;
    struct solution *out;
    uint32_t *flows, *reduced; /* per value: mask of the sum as produced; as reduced right behind it */
    struct arena *arena;
};

/* ---- sums ---- */

static int by_joint(const void *a, const void *b)
{
    const struct unit *const *x = a, *const *y = b;
    if ((*x)->joint != (*y)->joint)
        return ((*x)->joint > (*y)->joint) - ((*x)->joint < (*y)->joint);
    return ((*x)->node > (*y)->node) - ((*x)->node < (*y)->node);
}

static uint32_t unit_births(struct solver *s, const struct unit *u, struct birth *out)
{
    struct unit_result r;
    uint32_t unit = (uint32_t)(u - s->units.at), count = 0;
    if (!unit_evaluate(s, unit, &s->chosen[unit], &r, s->scratch, s->temporary))
        return 0;
    out[count++] = (struct birth){u->node, 0, r.settled};
    if (r.partial)
        out[count++] = (struct birth){u->node, r.partial, r.loose};
    return count;
}

/* Where the sums of each tree are reduced, now that the options are chosen. */
static void place_sums(struct finish *f)
{
    struct solver *s = f->s;
    uint32_t count = 0;
    const struct unit **units = NEW_ARRAY(s->temporary, const struct unit *, s->units.count + 1);
    for (uint32_t i = 0; i < s->units.count; i++)
        if (s->units.at[i].kind != UNIT_EDGE)
            units[count++] = &s->units.at[i];
    qsort(units, count, sizeof *units, by_joint);
    for (uint32_t i = 0, end; i < count; i = end) {
        struct arena_mark mark = arena_mark(s->temporary);
        for (end = i; end < count && units[end]->joint == units[i]->joint;)
            end++;
        struct birth *births = NEW_ARRAY(s->temporary, struct birth, 2 * (end - i));
        uint32_t *chosen = NEW_ARRAY(s->temporary, uint32_t, end - i), rows = 0;
        for (uint32_t k = i; k < end; k++)
            rows += unit_births(s, units[k], births + rows);
        (void)joint_solve(s, units[i]->joint, births, rows, chosen, f->reduced, f->flows);
        arena_rewind(s->temporary, mark);
    }
}

/* ---- regions ---- */

static const struct placement *with_sum(const struct placement *p, uint32_t mask, struct arena *arena)
{
    if (!mask)
        return p;
    struct placement *out = (struct placement *)arena_copy(arena, p, sizeof *p);
    out->partial = REDUCTION_SUM;
    out->partial_subaxes = mask;
    return out;
}

/* A region's value under the decisions, among the graph's partitions. */
static const struct placement *placed(struct solver *s, value v, uint32_t over, struct arena *arena)
{
    struct view view = value_view(s, v);
    return view_placement(s, s->g, &view, over, arena);
}

static void place_unit(struct finish *f, uint32_t unit)
{
    struct solver *s = f->s;
    const struct unit *u = &s->units.at[unit];
    struct unit_result r;
    if (!unit_evaluate(s, unit, &s->chosen[unit], &r, s->g, f->arena) || u->kind == UNIT_EDGE)
        return;
    f->out->operand[u->node][0] = r.operand[0];
    f->out->operand[u->node][1] = r.operand[1];
    f->out->result[u->node] = r.result;
}

static void place_op(struct finish *f, value v)
{
    struct solver *s = f->s;
    const struct node *n = graph_node(s->g, v);
    bool all = op_info(n->op)->linear == LINEAR_ALL;
    for (uint32_t i = 0; i < n->operand_count; i++) {
        value u = n->operand[i];
        struct view view = slot_view(s, v, i);
        const struct placement *p = view_placement(s, s->g, &view, ~f->flows[v], f->arena);
        bool carries = s->joint_parent[u] == v && f->flows[u] && !f->reduced[u];
        f->out->operand[v][i] = with_sum(p, all || carries ? f->flows[v] : 0, f->arena);
    }
    f->out->result[v] = with_sum(placed(s, v, ~f->flows[v], f->arena), f->flows[v], f->arena);
    uint32_t rows = rows_summed(s, v);
    if (rows) {
        struct placement *p = (struct placement *)arena_copy(f->arena, f->out->result[v], sizeof *p);
        p->partial = n->op == OP_REDUCE_SUM ? REDUCTION_SUM : n->op == OP_REDUCE_MAX ? REDUCTION_MAX : REDUCTION_MIN;
        p->partial_subaxes = rows;
        f->out->result[v] = p;
    }
}

/* ---- prelude ---- */

/* The cut that all users of v agree on; NULL when there is none. */
static const struct placement *agreed(struct finish *f, value v)
{
    struct solver *s = f->s;
    const struct placement *found = NULL;
    if (s->handed_out[v])
        return NULL;
    for (uint32_t i = s->uses.first[v]; i < s->uses.first[v + 1]; i++) {
        value w = s->uses.use[i];
        const struct node *user = graph_node(s->g, w);
        for (uint32_t k = 0; s->live[w] && k < user->operand_count; k++) {
            if (user->operand[k] != v)
                continue;
            const struct placement *p = f->out->operand[w][k];
            if (p->partial) {
                struct placement *plain = (struct placement *)arena_copy(f->arena, p, sizeof *p);
                plain->partial = 0;
                plain->partial_subaxes = 0;
                p = plain;
            }
            if (found && !placement_equal(found, p))
                return NULL;
            found = p;
        }
    }
    return found;
}

static void place_prelude(struct finish *f, value v)
{
    struct solver *s = f->s;
    const struct node *n = graph_node(s->g, v);
    const struct placement *wanted = agreed(f, v);
    bool possible = wanted != NULL && n->op != OP_INPUT;
    for (uint32_t i = 0; possible && i < n->operand_count; i++) {
        f->out->operand[v][i] = pull_back(s->g, v, i, wanted, f->arena);
        possible = f->out->operand[v][i] != NULL;
    }
    f->out->result[v] = possible ? wanted : placement_whole(f->arena, n->rank, n->shape);
    for (uint32_t i = 0; !possible && i < n->operand_count; i++) {
        const struct node *u = graph_node(s->g, n->operand[i]);
        f->out->operand[v][i] = placement_whole(f->arena, u->rank, u->shape);
    }
}

/* How an output lies that need not be whole; NULL: it is. */
static const struct placement *place_left(struct finish *f, value v)
{
    struct solver *s = f->s;
    const struct placement *p = f->out->result[v];
    if (!s->region_of[v] || s->handed_out[v])
        return NULL;
    return f->reduced[v] || p->partial ? placed(s, v, OVER_ALL, f->arena) : p;
}

static void place_outputs(struct finish *f)
{
    struct solver *s = f->s;
    f->out->output = NEW_ARRAY(f->arena, const struct placement *, s->g->outputs.count + 1);
    for (uint32_t i = 0; i < s->g->outputs.count; i++) {
        const struct node *n = graph_node(s->g, s->g->outputs.at[i].value);
        bool taken = s->options->taken && s->options->taken[i];
        const struct placement *p = taken ? place_left(f, s->g->outputs.at[i].value) : NULL;
        f->out->output[i] = p ? p : placement_whole(f->arena, n->rank, n->shape);
    }
    for (uint32_t i = 0; i < s->g->states.count; i++) {
        const struct state *state = &s->g->states.at[i];
        value past = s->g->inputs.at[state->input].value, present = s->g->outputs.at[state->output].value;
        const struct placement *p = place_left(f, present), *before = f->out->result[past];
        if (!p)
            continue;
        bool same = p->rank == before->rank;
        for (uint32_t k = 0; same && k < p->rank; k++)
            same = axis_equal(&p->axis[k], &before->axis[k]);
        if (!same) {
            p = placement_whole(f->arena, p->rank, graph_node(s->g, present)->shape);
            f->out->result[past] = placement_whole(f->arena, before->rank, graph_node(s->g, past)->shape);
        }
        f->out->output[state->output] = p;
    }
}

/* ---- classes ---- */

struct holder {
    tree class;
    value at;
};
typedef LIST(struct holder) holder_list;

static int by_class(const void *a, const void *b)
{
    const struct holder *x = a, *y = b;
    if (x->class != y->class)
        return (x->class > y->class) - (x->class < y->class);
    return (x->at > y->at) - (x->at < y->at);
}

static void find_holders(struct solver *s, holder_list *out)
{
    for (uint32_t r = 1; r < s->regions.count; r++) {
        const struct region *region = &s->regions.at[r];
        for (uint32_t i = 0; region->class_count && i < region->value_count; i++) {
            value v = region->values[i];
            for (uint32_t k = 0; k < graph_node(s->g, v)->rank; k++) {
                tree_list leaves = {0};
                tree_leaves(s, s->axes[v][k], s->temporary, &leaves);
                for (uint32_t x = 0; x < leaves.count; x++)
                    if (s->trees.at[leaves.at[x]].ordinal)
                        *PUSH(s->temporary, out) = (struct holder){leaves.at[x], v};
            }
        }
    }
    if (out->count)
        qsort(out->at, out->count, sizeof *out->at, by_class);
}

static void write_classes(struct finish *f)
{
    struct solver *s = f->s;
    holder_list holders = {0};
    LIST(struct class_info) classes = {0};
    find_holders(s, &holders);
    for (uint32_t i = 0, end; i < holders.count; i = end) {
        const struct tree_node *n = &s->trees.at[holders.at[i].class];
        struct class_info *c = PUSH(f->arena, &classes);
        for (end = i; end < holders.count && holders.at[end].class == holders.at[i].class;)
            end++;
        value *member = NEW_ARRAY(f->arena, value, end - i);
        for (end = i; end < holders.count && holders.at[end].class == holders.at[i].class; end++)
            if (!c->member_count || member[c->member_count - 1] != holders.at[end].at)
                member[c->member_count++] = holders.at[end].at;
        c->extent = n->extent;
        c->unit = s->options->class_unit ? s->options->class_unit : 1;
        c->partition = n->mask ? class_partition(s, s->g, n->extent, n->mask) : 0;
        c->member = member;
    }
    f->out->classes = classes.at;
    f->out->class_count = classes.count;
}

/* ---- the whole ---- */

void finish(struct solver *s, struct arena *arena, struct solution *out)
{
    struct finish f = {s, out, NEW_ARRAY(s->temporary, uint32_t, s->node_count),
                       NEW_ARRAY(s->temporary, uint32_t, s->node_count), arena};
    place_sums(&f);
    finish_with(s, arena, out, f.flows, f.reduced);
}

void finish_with(struct solver *s, struct arena *arena, struct solution *out, uint32_t *flows, uint32_t *reduced)
{
    struct finish f = {s, out, flows, reduced, arena};
    out->result = NEW_ARRAY(arena, const struct placement *, s->node_count);
    out->operand = NEW_ARRAY(arena, const struct placement **, s->node_count);
    for (value v = 1; v < s->node_count; v++)
        out->operand[v] = NEW_ARRAY(arena, const struct placement *, graph_node(s->g, v)->operand_count + 1);
    for (uint32_t i = 0; i < s->units.count; i++)
        place_unit(&f, i);
    for (value v = s->node_count; v-- > 1;) {
        if (s->role[v] == ROLE_PRELUDE || !s->live[v])
            place_prelude(&f, v);
        else if (s->role[v] == ROLE_OP)
            place_op(&f, v);
        else if (s->role[v] == ROLE_STATE)
            out->result[v] = placed(s, v, OVER_ALL, arena);
    }
    place_outputs(&f);
    write_classes(&f);
}
