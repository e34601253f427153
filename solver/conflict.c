/* solver/conflict.c - why pins cannot be obeyed together: the smallest set that conflicts, what ties it, which numbers of ranks work.
 *
 * Found by deletion: the search runs again with some pins left out. What it solved before is not solved again (the description of a component says which
 * pins it has), so that a run costs little more than a pass over the graph. First patterns are left out, half of them at a time, then each that remains is
 * narrowed to one of its nodes. Start with conflict_find.
 */
#include "solver/internal.h"

enum { MOST_TRIES = 6 };

static bool possible_without(struct solver *s, const bool *off)
{
    return pins_apply(s, off) != TPC_OK || search_possible(s);
}

/* Leaves out the pins [first, end), whole groups, as far as the rest still conflicts: all of them, or one half after the other. Depth: log of their
 * number. */
static void drop_groups(struct solver *s, bool *off, uint32_t first, uint32_t end)
{
    const struct pin *pin = s->options->pin;
    uint32_t n = s->options->pin_count, middle = first + (end - first) / 2;
    bool *with = (bool *)arena_copy(s->arena, off, n * sizeof *off);
    for (uint32_t i = first; i < end; i++)
        with[i] = true;
    if (!possible_without(s, with)) {
        memcpy(off, with, n * sizeof *off);
        return;
    }
    while (middle > first && middle < end && pin[middle].group == pin[middle - 1].group)
        middle++;
    if (middle == end) /* the group in the middle is the last */
        for (middle = end - 1; middle > first && pin[middle].group == pin[middle - 1].group;)
            middle--;
    if (middle == first || middle == end)
        return; /* one group */
    drop_groups(s, off, first, middle);
    drop_groups(s, off, middle, end);
}

/* Tries the nodes of the group that begins at `first` alone, those nearest to `near` first. */
static bool narrow(struct solver *s, bool *off, uint32_t first, value near)
{
    const struct pin *pin = s->options->pin;
    uint32_t n = s->options->pin_count, end = first;
    while (end < n && pin[end].group == pin[first].group)
        end++;
    bool *tried = NEW_ARRAY(s->arena, bool, n);
    for (uint32_t tries = 0; tries < MOST_TRIES && end - first > 1; tries++) {
        uint32_t best = end, least = UINT32_MAX;
        for (uint32_t i = first; i < end; i++) {
            uint32_t distance = pin[i].node > near ? pin[i].node - near : near - pin[i].node;
            if (!tried[i] && distance < least)
                best = i, least = distance;
        }
        if (best == end)
            return false;
        tried[best] = true;
        bool *with = (bool *)arena_copy(s->arena, off, n * sizeof *off);
        for (uint32_t i = first; i < end; i++)
            with[i] = i != best;
        if (!possible_without(s, with)) {
            memcpy(off, with, n * sizeof *off);
            return true;
        }
    }
    return end - first == 1;
}

/* ---- what ties two nodes ---- */

struct step {
    tree to;
    value node; /* 0: from a factor to what it is a part of, or the other way */
    int8_t way; /* 1 up, -1 down, 0 a tie */
};
typedef LIST(struct step) step_list;

struct walk {
    struct solver *s;
    step_list *next; /* per tree */
    tree *came;      /* per tree and last way */
    value *by;
};

static void link(struct walk *w, tree a, tree b, value node, int8_t way)
{
    *PUSH(w->s->temporary, &w->next[a]) = (struct step){b, node, way};
    *PUSH(w->s->temporary, &w->next[b]) = (struct step){a, node, (int8_t)-way};
}

/* The axes that a pin speaks of, as the regions beside it have them. */
static void pinned_trees(const struct solver *s, const struct pin *pin, tree_list *out)
{
    uint32_t unit = pin->kind == PIN_UNIT ? unit_of(s, pin->node) : UINT32_MAX;
    if (unit == UINT32_MAX) {
        for (uint32_t i = 0; s->axes[pin->node] && i < graph_node(s->g, pin->node)->rank; i++)
            *PUSH(s->temporary, out) = s->axes[pin->node][i];
        return;
    }
    const struct unit *u = &s->units.at[unit];
    struct unit_axes a;
    unit_axes(s, u, &a);
    for (uint32_t i = a.out; i < a.out_end && (pin->parts.leaves || pin->parts.out > 1); i++)
        *PUSH(s->temporary, out) = s->axes[u->node][i];
    for (uint32_t i = a.in; u->from && i < a.in_end && (pin->parts.arrives || pin->parts.in > 1); i++)
        *PUSH(s->temporary, out) = s->axes[u->source][i];
}

static void put_path(struct walk *w, uint32_t at, struct text *out)
{
    value *node = NEW_ARRAY(w->s->temporary, value, 64);
    uint32_t count = 0;
    for (; at; at = w->came[at])
        if (w->by[at] && count < 64 && (!count || node[count - 1] != w->by[at]))
            node[count++] = w->by[at];
    for (uint32_t i = count; i-- > 0;) {
        if (count > 8 && i == count - 5) {
            text_printf(out, ", %u more", count - 8);
            i = 4;
        }
        const struct origin *o = &w->s->g->origins.at[graph_node(w->s->g, node[i])->origin];
        text_put(out, out->length ? ", " : "");
        if (o->name && *o->name)
            text_printf(out, "'%s' (%s)", o->name, o->op_type);
        else
            text_printf(out, "%%%u (%s)", node[i], op_info(graph_node(w->s->g, node[i])->op)->text);
    }
}

/* The nodes whose unions lead from a factor of `a` to one of `b`; NULL when none does. States are (tree, last way). */
static const char *chain_between(struct solver *s, const struct pin *a, const struct pin *b)
{
    uint32_t n = s->trees.count;
    struct walk w = {s, NULL, NULL, NULL};
    w.next = (step_list *)arena_array(s->temporary, n, sizeof *w.next);
    w.came = NEW_ARRAY(s->temporary, tree, 3 * n + 3);
    w.by = NEW_ARRAY(s->temporary, value, 3 * n + 3);
    bool *seen = NEW_ARRAY(s->temporary, bool, 3 * n + 3), *goal = NEW_ARRAY(s->temporary, bool, n);
    LIST(uint32_t) open = {0};
    tree_list from = {0}, to = {0};
    for (uint32_t i = 0; i < s->ties.count; i++)
        link(&w, s->ties.at[i].a, s->ties.at[i].b, s->ties.at[i].node, 0);
    for (tree t = 1; t < n; t++)
        for (uint32_t i = 0; i < s->trees.at[t].count; i++)
            link(&w, t, s->trees.at[t].child[i], 0, -1);
    pinned_trees(s, a, &from);
    pinned_trees(s, b, &to);
    for (uint32_t i = 0; i < to.count; i++)
        goal[to.at[i]] = !dim_is(s->g->dims, s->trees.at[to.at[i]].extent, 1) &&
                         dim_is_const(s->g->dims, s->trees.at[to.at[i]].extent, NULL);
    for (uint32_t i = 0; i < from.count; i++)
        if (dim_is_const(s->g->dims, s->trees.at[from.at[i]].extent, NULL)) {
            seen[3 * from.at[i] + 1] = true;
            *PUSH(s->temporary, &open) = 3 * from.at[i] + 1;
        }
    for (uint32_t i = 0; i < open.count; i++) {
        uint32_t at = open.at[i];
        tree t = at / 3;
        if (goal[t]) {
            struct text out = {.arena = s->arena};
            put_path(&w, at, &out);
            return out.at;
        }
        for (uint32_t k = 0; k < w.next[t].count; k++) {
            const struct step *x = &w.next[t].at[k];
            int way = (int)(at % 3) - 1;
            uint32_t then = 3 * x->to + (uint32_t)(x->way + 1);
            if ((x->way && way && x->way != way) || seen[then])
                continue; /* up and down again would lead to a neighbour that nothing ties */
            seen[then] = true;
            w.came[then] = at;
            w.by[then] = x->node;
            *PUSH(s->temporary, &open) = then;
        }
    }
    return NULL;
}

/* ---- the whole ---- */

/* Numbers of ranks that the extents allow for all pins of the set; NULL when they allow the present one: then it is not a matter of size. */
static const char *sizes_text(struct solver *s, const struct conflict *c)
{
    struct mesh *own = s->mesh, other;
    uint32_t features = s->over[AXIS_TENSOR];
    struct text t = {.arena = s->arena};
    bool now = true;
    for (uint32_t i = 0; i < c->pin_count; i++)
        now = now && pin_extents_fit(s, c->pin[i]);
    for (uint32_t ranks = 2; ranks <= 64 && !now; ranks++) {
        bool fits = true;
        mesh_init(&other, "tp", ranks);
        s->mesh = &other;
        s->over[AXIS_TENSOR] = (1u << other.count) - 1;
        for (uint32_t i = 0; i < c->pin_count && fits; i++) {
            struct arena_mark mark = arena_mark(s->temporary);
            fits = pin_extents_fit(s, c->pin[i]);
            arena_rewind(s->temporary, mark);
        }
        if (fits)
            text_printf(&t, "%s%u", t.length ? ", " : "", ranks);
    }
    s->mesh = own;
    s->over[AXIS_TENSOR] = features;
    return now ? NULL : t.length ? t.at : "1";
}

void conflict_find(struct solver *s, struct conflict *out)
{
    uint32_t n = s->options->pin_count;
    bool *off = NEW_ARRAY(s->arena, bool, n + 1);
    *out = (struct conflict){.pin = NEW_ARRAY(s->arena, const struct pin *, n + 1)};
    if (s->even) {
        s->even = false;
        out->even = search_possible(s);
        s->even = !out->even ? false : true;
    }
    drop_groups(s, off, 0, n);
    value near = 0;
    out->narrowed = true;
    for (uint32_t i = 0; i < n; i++) {
        bool first = !i || s->options->pin[i].group != s->options->pin[i - 1].group;
        if (first && !off[i])
            out->narrowed = narrow(s, off, i, near) && out->narrowed;
        if (!off[i])
            near = s->options->pin[i].node;
    }
    for (uint32_t i = 0; i < n; i++)
        if (!off[i])
            out->pin[out->pin_count++] = &s->options->pin[i];
    if (out->pin_count > 1)
        out->chain = chain_between(s, out->pin[0], out->pin[1]);
    out->sizes = sizes_text(s, out);
    (void)pins_apply(s, NULL);
}

static void put_pin(struct solver *s, const struct pin *p, struct text *t)
{
    const struct origin *o = &s->g->origins.at[graph_node(s->g, p->node)->origin];
    text_put(t, p->text);
    if (o->name && *o->name)
        text_printf(t, " at '%s'", o->name);
    else
        text_printf(t, " at %%%u", p->node);
}

status conflict_report(struct solver *s)
{
    struct conflict c;
    struct text t = {.arena = s->arena};
    conflict_find(s, &c);
    if (!c.pin_count)
        return diag_error(s->diag, TPC_INTERNAL, s->g->model_path, "no solution, not even without pins");
    for (uint32_t i = 0; i < c.pin_count && i < 8; i++) {
        text_put(&t, i ? " and " : "");
        put_pin(s, c.pin[i], &t);
    }
    if (c.pin_count > 8)
        text_printf(&t, " and %u more", c.pin_count - 8);
    uint32_t ranks = mesh_parts(s->mesh, pins_experts(s));
    status result =
        diag_error(s->diag, c.pin[0]->code, s->g->model_path, "%s cannot %sbe obeyed%s over %u rank%s: %s", t.at,
                   c.pin_count > 1 ? "both " : "", c.even ? " with --even" : "", (unsigned)ranks, ranks == 1 ? "" : "s",
                   c.pin_count > 1 ? "drop one of them" : "drop it, or choose another style");
    if (c.chain)
        diag_note(s->diag, s->g->model_path, "they are tied: %s", c.chain);
    if (c.sizes)
        diag_note(s->diag, s->g->model_path, "by the extents these numbers of ranks work: %s", c.sizes);
    else
        diag_note(s->diag, s->g->model_path,
                  "it is no matter of size: by the extents alone it could be, but the ops around do not allow it");
    return result;
}
