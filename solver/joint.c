/* solver/joint.c - where partial sums are reduced: the cheapest way through one tree of ops that pass sums on.
 *
 * Values that are used once form trees (joint_parent); a sum born at a linear or an embedding may travel along them and meet others, so that several
 * are reduced by one collective. Dynamic programming over the tree, operands before users: per value the cheapest way to have it reduced
 * (mask 0) or partial over each mask that can arise. Exact for this set of ways. Start with joint_solve.
 *
 * Invariant: rows of a value have distinct masks; row 0, when it exists, has mask 0.
 */
#include "solver/internal.h"

#include <stdlib.h>

struct row {
    uint32_t mask;     /* as it leaves */
    uint32_t produced; /* as the op gives it: reduced behind the op when mask is 0 and this is not */
    struct cost cost;
    const uint32_t *operand; /* per operand on the way: its row */
    uint32_t birth;          /* index into births; UINT32_MAX for ops */
    uint32_t arrived;        /* operands that arrive partial */
};
typedef LIST(struct row) row_list;

struct joint {
    value at;
    row_list rows;
    uint32_t operand_count;
    uint32_t *operand; /* joints below */
    uint32_t parent;   /* index + 1 */
};
typedef LIST(struct joint) joint_list;

static void keep(struct solver *s, row_list *rows, struct row r)
{
    for (uint32_t i = 0; i < rows->count; i++)
        if (rows->at[i].mask == r.mask) {
            if (cost_less(s, r.cost, rows->at[i].cost))
                rows->at[i] = r;
            return;
        }
    *PUSH(s->temporary, rows) = r;
}

static int by_value(const void *a, const void *b)
{
    value x = ((const struct joint *)a)->at, y = ((const struct joint *)b)->at;
    return (x > y) - (x < y);
}

static uint32_t index_of(const joint_list *list, value v)
{
    uint32_t lo = 0, hi = list->count;
    while (lo < hi) {
        uint32_t middle = lo + (hi - lo) / 2;
        if (list->at[middle].at < v)
            lo = middle + 1;
        else
            hi = middle;
    }
    return lo < list->count && list->at[lo].at == v ? lo : UINT32_MAX;
}

/* The values on the ways from the births to the root, ascending. */
static joint_list collect(struct solver *s, const struct birth *births, uint32_t count)
{
    joint_list all = {0}, out = {0};
    s->joint_stamp++;
    for (uint32_t i = 0; i < count; i++)
        for (value v = births[i].at; v && s->joint_seen[v] != s->joint_stamp; v = s->joint_parent[v]) {
            s->joint_seen[v] = s->joint_stamp;
            PUSH(s->temporary, &all)->at = v;
        }
    qsort(all.at, all.count, sizeof *all.at, by_value);
    out = all;
    for (uint32_t i = 0; i < out.count; i++) {
        value up = s->joint_parent[out.at[i].at];
        if (!up)
            continue;
        uint32_t k = index_of(&out, up);
        out.at[i].parent = k + 1;
        out.at[k].operand_count++;
    }
    for (uint32_t i = 0; i < out.count; i++) {
        out.at[i].operand = NEW_ARRAY(s->temporary, uint32_t, out.at[i].operand_count + 1);
        out.at[i].operand_count = 0;
    }
    for (uint32_t i = 0; i < out.count; i++)
        if (out.at[i].parent) {
            struct joint *up = &out.at[out.at[i].parent - 1];
            up->operand[up->operand_count++] = i;
        }
    return out;
}

uint32_t sequence_shards(const struct solver *s, value v)
{
    const struct region *r = &s->regions.at[s->region_of[v]];
    return r->decision ? decision_sequence(r, r->decision) : 0;
}

uint32_t sum_taken_at(struct solver *s, value v)
{
    struct arena_mark mark = arena_mark(s->temporary);
    struct view view = value_view(s, v);
    uint32_t over = ~sequence_shards(s, v);
    uint32_t taken = placement_subaxes(s->scratch, view_placement(s, s->scratch, &view, over, s->temporary));
    const struct node *n = graph_node(s->g, v);
    for (uint32_t i = 0; s->slot[v] && i < n->operand_count; i++) {
        view = slot_view(s, v, i);
        taken |= placement_subaxes(s->scratch, view_placement(s, s->scratch, &view, over, s->temporary));
    }
    arena_rewind(s->temporary, mark);
    return taken;
}

bool sum_stays_unscattered(const struct solver *s, value v, uint32_t mask, uint32_t arrived)
{
    const struct node *n = graph_node(s->g, v);
    uint32_t shards = sequence_shards(s, v), operands = 0;
    op_class class = op_info(n->op)->class;
    if (!(mask & shards))
        return true;
    for (uint32_t i = 0; i < n->operand_count; i++)
        operands += s->region_of[n->operand[i]] != 0;
    return mask == shards && arrived == operands && (class == CLASS_POINTWISE || class == CLASS_LAYOUT);
}

/* All ways to combine what arrives at an op. */
static void combine(struct solver *s, const joint_list *list, struct joint *j, row_list *out)
{
    bool each = op_info(graph_node(s->g, j->at)->op)->linear != LINEAR_ALL;
    uint32_t taken = sum_taken_at(s, j->at);
    row_list done = {0};
    *PUSH(s->temporary, &done) =
        (struct row){.birth = UINT32_MAX, .operand = NEW_ARRAY(s->temporary, uint32_t, j->operand_count + 1)};
    for (uint32_t k = 0; k < j->operand_count; k++) {
        const row_list *in = &list->at[j->operand[k]].rows;
        row_list next = {0};
        for (uint32_t a = 0; a < done.count; a++)
            for (uint32_t b = 0; b < in->count; b++) {
                struct row r = done.at[a];
                if ((each && r.mask && in->at[b].mask) || (in->at[b].mask & taken))
                    continue;
                r.mask |= in->at[b].mask;
                r.produced = r.mask;
                r.arrived += in->at[b].mask != 0;
                r.cost = cost_add(r.cost, in->at[b].cost);
                uint32_t *pick =
                    (uint32_t *)arena_copy(s->temporary, r.operand, (j->operand_count + 1) * sizeof(uint32_t));
                pick[k] = b;
                r.operand = pick;
                keep(s, &next, r);
            }
        done = next;
    }
    for (uint32_t i = 0; i < done.count; i++)
        if (sum_stays_unscattered(s, j->at, done.at[i].mask, done.at[i].arrived))
            *PUSH(s->temporary, out) = done.at[i];
}

/* From a sum over the ranks of sequence shards to the shards, and to what else the region wants and pays for from there. */
static struct cost scatter_cost(struct solver *s, value v, uint32_t subaxes)
{
    struct arena_mark mark = arena_mark(s->temporary);
    struct view view = value_view(s, v);
    struct placement sum = *view_placement(s, s->scratch, &view, ~subaxes, s->temporary);
    sum.partial = REDUCTION_SUM;
    sum.partial_subaxes = subaxes;
    struct cost c = settled_cost(s, v, &sum, view_placement(s, s->scratch, &view, OVER_ALL, s->temporary));
    arena_rewind(s->temporary, mark);
    return c;
}

/* Adds the way that reduces right behind the op. */
static void reduce_here(struct solver *s, struct joint *j, bool only)
{
    double elements[2] = {-1, -1};
    const struct node *n = graph_node(s->g, j->at);
    struct view view = value_view(s, j->at);
    row_list rows = {0};
    for (uint32_t i = 0; i < j->rows.count; i++)
        if (!j->rows.at[i].mask)
            keep(s, &rows, j->rows.at[i]);
    for (uint32_t i = 0; i < j->rows.count; i++) {
        struct row r = j->rows.at[i];
        if (!r.mask)
            continue;
        for (int phase = 0; phase < 2 && elements[phase] < 0; phase++)
            elements[phase] = view_elements(s, &view, phase);
        r.cost = cost_add(r.cost, r.mask & sequence_shards(s, j->at) ? scatter_cost(s, j->at, r.mask)
                                                                     : reduce_cost(s, elements, n->dtype, r.mask));
        r.mask = 0;
        keep(s, &rows, r);
    }
    for (uint32_t i = 0; i < j->rows.count && !only; i++)
        if (j->rows.at[i].mask)
            keep(s, &rows, j->rows.at[i]);
    j->rows = rows;
}

/* Writes down the way that ends in row 0 of the root. */
static void follow(struct solver *s, const joint_list *list, const struct birth *births, uint32_t count,
                   uint32_t *chosen, uint32_t *reduced, uint32_t *flows)
{
    uint32_t *row = NEW_ARRAY(s->temporary, uint32_t, list->count);
    for (uint32_t i = list->count; i-- > 0;) {
        const struct joint *j = &list->at[i];
        const struct row *r = &j->rows.at[row[i]];
        if (reduced && r->produced) {
            flows[j->at] = r->produced;
            reduced[j->at] = r->mask ? 0 : r->produced;
        }
        for (uint32_t k = 0; k < j->operand_count && r->birth == UINT32_MAX; k++)
            row[j->operand[k]] = r->operand[k];
        if (r->birth == UINT32_MAX)
            continue;
        uint32_t ordinal = 0;
        for (uint32_t b = 1; b <= r->birth && b < count; b++)
            ordinal += births[b].at != births[b - 1].at;
        chosen[ordinal] = r->birth;
    }
}

struct cost joint_solve(struct solver *s, value root, const struct birth *births, uint32_t count, uint32_t *chosen,
                        uint32_t *reduced, uint32_t *flows)
{
    (void)root;
    uint32_t next = 0;
    joint_list list = collect(s, births, count);
    for (uint32_t i = 0; i < list.count; i++) {
        struct joint *j = &list.at[i];
        if (j->operand_count) {
            combine(s, &list, j, &j->rows);
        } else {
            for (; next < count && births[next].at == j->at; next++)
                keep(s, &j->rows,
                     (struct row){.mask = births[next].partial,
                                  .produced = births[next].partial,
                                  .cost = births[next].cost,
                                  .birth = next});
        }
        reduce_here(s, j, !j->parent);
        if (!j->rows.count)
            return cost_never();
    }
    follow(s, &list, births, count, chosen, reduced, flows);
    return list.at[list.count - 1].rows.at[0].cost;
}
