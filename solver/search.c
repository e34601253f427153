/* solver/search.c - the search: decisions for regions and units of least cost, exactly.
 *
 * A *component* is a set of undecided regions and units that hang together. Deciding one region (the hub: a trunk) cuts its component into parts that no
 * longer know of each other, except through partial sums that meet in the hub (joint.c). So:
 *
 *   solve_component(component) = over the hub's decisions: the hub's cost + the parts' solutions, joined where their sums meet
 *
 * A part's solution is a *profile*: for each of its units whose result enters a region decided outside (an open unit), how that result may enter
 * (reduced, or partial over a mask), with the cost. Components are described as byte strings with everything that their solution depends on; equal ones
 * (equal layers) are solved once. The depth of recursion is the number of nested hubs, not the graph's depth: chains are cut in the middle.
 *
 * Invariant: on return from solve_component every region that was undecided is undecided again. Start with search, then solve_component.
 */
#include "solver/search.h"

#include <stdlib.h>

enum { MOST_COMBINATIONS = 4096 };

/* A solved component: its hub's masks and its parts' choices, in the order in which cut_apart gives them; or one unit's option. Means the same
 * for every component of equal description. */
struct choice {
    const uint32_t *masks;
    struct unit_option unit;
    const struct choice *const *part;
};

struct profile_row {
    const uint32_t *partial; /* per open unit */
    struct cost cost;
    const struct choice *choice;
};

struct profile {
    uint32_t open_count;
    uint32_t *open; /* positions among the component's units, ascending */
    LIST(struct profile_row) rows;
};

/* ---- small helpers ---- */

uint32_t position(const uint32_t *list, uint32_t count, uint32_t x)
{
    uint32_t lo = 0, hi = count;
    while (lo < hi) {
        uint32_t middle = lo + (hi - lo) / 2;
        if (list[middle] < x)
            lo = middle + 1;
        else
            hi = middle;
    }
    return lo < count && list[lo] == x ? lo : UINT32_MAX;
}

/* Keeps the better of two rows with equal openings; the earlier one when equal. */
static void keep_row(struct solver *s, struct profile *p, struct profile_row r)
{
    if (!cost_possible(r.cost))
        return;
    for (uint32_t i = 0; i < p->rows.count; i++)
        if (!p->open_count || !memcmp(p->rows.at[i].partial, r.partial, p->open_count * sizeof *r.partial)) {
            if (cost_less(s, r.cost, p->rows.at[i].cost))
                p->rows.at[i] = r;
            return;
        }
    s->stats.rows++;
    *PUSH(s->arena, &p->rows) = r;
}

/* ---- which sub-axes stand for each other ---- */

/* Parts every orbit into those inside and those outside of the mask; an orbit's number is its first member's. */
static void part_orbits(uint32_t *orbit, uint32_t n, uint32_t mask)
{
    uint32_t before[MAX_SUBAXES];
    memcpy(before, orbit, n * sizeof *orbit);
    for (uint32_t i = 0; i < n; i++)
        for (uint32_t k = i + 1; k-- > 0;)
            if (before[k] == before[i] && (mask >> k & 1) == (mask >> i & 1))
                orbit[i] = k;
}

static bool same_role(const struct solver *s, uint32_t a, uint32_t b)
{
    for (uint32_t role = 0; role < AXIS_ROLE_COUNT; role++)
        if ((s->over[role] >> a & 1) != (s->over[role] >> b & 1))
            return false;
    return true;
}

/* orbit[i] == orbit[k]: swapping the sub-axes changes nothing that the component can see. */
static void find_orbits(struct solver *s, const struct component *c, uint32_t *orbit)
{
    uint32_t n = s->mesh->count;
    for (uint32_t i = 0; i < n; i++)
        for (uint32_t k = i + 1; k-- > 0;)
            if (s->mesh->size[k] == s->mesh->size[i] && same_role(s, i, k) &&
                link_level(s, 1u << k) == link_level(s, 1u << i))
                orbit[i] = k;
    for (uint32_t k = 0; k < c->unit_count; k++) {
        const struct unit *u = &s->units.at[c->unit[k]];
        const uint32_t end[2] = {u->from, u->to};
        for (int e = 0; e < 2; e++) {
            const struct region *r = &s->regions.at[end[e]];
            if (!end[e] || !r->decision)
                continue;
            for (uint32_t x = 0; x < r->class_count; x++)
                part_orbits(orbit, n, r->decision[x]);
        }
    }
}

/* ---- cutting a component ---- */

typedef LIST(struct component) component_list;

static uint32_t root_of(uint32_t *parent, uint32_t x)
{
    while (parent[x] != x) {
        parent[x] = parent[parent[x]];
        x = parent[x];
    }
    return x;
}

/* What is left of `c` without region number `without` (UINT32_MAX: all of it), in parts that hang together. */
static component_list cut_apart(struct solver *s, const struct component *c, uint32_t without)
{
    uint32_t total = c->region_count + c->unit_count;
    uint32_t *parent = NEW_ARRAY(s->temporary, uint32_t, total + 1),
             *part = NEW_ARRAY(s->temporary, uint32_t, total + 1);
    component_list out = {0};
    for (uint32_t i = 0; i < total; i++)
        parent[i] = i;
    for (uint32_t i = 0; i < c->unit_count; i++) {
        const struct unit *u = &s->units.at[c->unit[i]];
        const uint32_t end[2] = {u->from, u->to};
        for (int e = 0; e < 2; e++) {
            uint32_t at = end[e] ? position(c->region, c->region_count, end[e]) : UINT32_MAX;
            if (at != UINT32_MAX && at != without) {
                uint32_t a = root_of(parent, at), b = root_of(parent, c->region_count + i);
                parent[a > b ? a : b] = a > b ? b : a;
            }
        }
    }
    for (int pass = 0; pass < 2; pass++) { /* count, then fill */
        for (uint32_t k = 0; pass && k < out.count; k++) {
            out.at[k].region = NEW_ARRAY(s->temporary, uint32_t, out.at[k].region_count);
            out.at[k].unit = NEW_ARRAY(s->temporary, uint32_t, out.at[k].unit_count);
            out.at[k].region_count = out.at[k].unit_count = 0;
        }
        for (uint32_t i = 0; i < total; i++) {
            if (i == without)
                continue;
            uint32_t root = root_of(parent, i);
            if (!pass && root == i) {
                (void)PUSH(s->temporary, &out);
                part[i] = out.count - 1;
            }
            struct component *k = &out.at[part[root]];
            bool is_region = i < c->region_count;
            uint32_t *count = is_region ? &k->region_count : &k->unit_count;
            if (pass)
                (is_region ? k->region : k->unit)[*count] = is_region ? c->region[i] : c->unit[i - c->region_count];
            ++*count;
        }
    }
    return out;
}

/* The region whose decision cuts the component best: the one with the most units, or the middle of a chain. */
static uint32_t choose_hub(const struct solver *s, const struct component *c)
{
    uint32_t best = 0, most = 0;
    for (uint32_t i = 0; i < c->region_count; i++)
        if (s->regions.at[c->region[i]].unit_count > most) {
            most = s->regions.at[c->region[i]].unit_count;
            best = i;
        }
    if (c->region_count > 8 && most <= 6 && most * 4 < c->unit_count)
        return c->region_count / 2;
    return best;
}

/* ---- solving ---- */

static struct profile *solve_component(struct solver *s, const struct component *c);

static struct profile *solve_unit(struct solver *s, const struct component *c, const uint32_t *orbit)
{
    struct profile *p = NEW(s->arena, struct profile);
    unit_options options = {0};
    uint32_t unit = c->unit[0];
    p->open_count = s->units.at[unit].kind != UNIT_EDGE;
    p->open = NEW_ARRAY(s->arena, uint32_t, 1);
    unit_enumerate(s, unit, orbit, s->temporary, &options);
    for (uint32_t i = 0; i < options.count; i++) {
        struct unit_result r;
        struct arena_mark mark = arena_mark(s->temporary);
        s->stats.options++;
        bool legal = unit_evaluate(s, unit, &options.at[i], &r, s->scratch, s->temporary);
        arena_rewind(s->temporary, mark);
        for (uint32_t loose = 0; legal && loose <= (r.partial != 0); loose++) {
            struct choice *choice = NEW(s->arena, struct choice);
            uint32_t *partial = NEW(s->arena, uint32_t);
            choice->unit = options.at[i];
            *partial = loose ? r.partial : 0;
            keep_row(s, p, (struct profile_row){partial, cost_add(r.here, loose ? r.loose : r.settled), choice});
        }
    }
    return p;
}

/* One component being solved: what is left of it beside the hub. */
struct hub {
    struct solver *s;
    const struct component *whole;
    uint32_t region; /* number of the hub */
    component_list parts;
    struct profile **profile; /* per part */
    const uint32_t *first;    /* per part: the first that is equal whatever the hub decides */
    uint32_t *group_of;       /* per part */
    struct profile *out;
};

/* Parts whose sums meet in trees of the hub. */
struct group {
    uint32_t count, *member;    /* parts, ascending */
    uint32_t *row;              /* per member: its row, while counting through those that are not simple */
    uint32_t open_count, *open; /* units that stay open: positions in the whole */
    LIST(struct group_row) rows;
};
struct group_row {
    const uint32_t *partial; /* per open unit */
    struct cost cost;
    const struct choice **choice; /* per member */
};
typedef LIST(struct group) group_list;

struct entry { /* a row of a member, as a birth in the hub */
    struct birth birth;
    uint32_t member, row;
    value root;
};
typedef LIST(struct entry) entry_list;

static int by_birth(const void *a, const void *b)
{
    const struct entry *x = a, *y = b;
    if (x->root != y->root)
        return (x->root > y->root) - (x->root < y->root);
    if (x->birth.at != y->birth.at)
        return (x->birth.at > y->birth.at) - (x->birth.at < y->birth.at);
    return (x->row > y->row) - (x->row < y->row);
}

static const struct unit *open_unit(const struct hub *h, uint32_t part, uint32_t opening)
{
    return &h->s->units.at[h->parts.at[part].unit[h->profile[part]->open[opening]]];
}

/* One open unit, whose result enters the hub: its rows can be weighed inside the tree. */
static bool is_simple(const struct hub *h, uint32_t part)
{
    return h->profile[part]->open_count == 1 && open_unit(h, part, 0)->to == h->region;
}

static void keep_group_row(struct solver *s, struct group *k, struct group_row r)
{
    if (!cost_possible(r.cost))
        return;
    for (uint32_t i = 0; i < k->rows.count; i++)
        if (!k->open_count || !memcmp(k->rows.at[i].partial, r.partial, k->open_count * sizeof *r.partial)) {
            if (cost_less(s, r.cost, k->rows.at[i].cost))
                k->rows.at[i] = r;
            return;
        }
    *PUSH(s->arena, &k->rows) = r;
}

/* Adds what a member's row does: births in the hub, openings beyond it. */
static void enter(struct hub *h, struct group *k, uint32_t m, uint32_t r, entry_list *entries, uint32_t *partial)
{
    const struct component *part = &h->parts.at[k->member[m]];
    const struct profile *p = h->profile[k->member[m]];
    for (uint32_t o = 0; o < p->open_count; o++) {
        const struct unit *u = open_unit(h, k->member[m], o);
        if (u->to == h->region) {
            struct cost cost = is_simple(h, k->member[m]) ? p->rows.at[r].cost : cost_zero();
            *PUSH(h->s->temporary, entries) = (struct entry){{u->node, p->rows.at[r].partial[o], cost}, m, r, u->joint};
            continue;
        }
        for (uint32_t x = 0; x < k->open_count; x++)
            if (h->whole->unit[k->open[x]] == part->unit[p->open[o]])
                partial[x] = p->rows.at[r].partial[o];
    }
}

/* The cheapest join of the group with the rows of the members that are not simple fixed. */
static void join(struct hub *h, struct group *k)
{
    struct solver *s = h->s;
    struct group_row out = {.choice = NEW_ARRAY(s->arena, const struct choice *, k->count)};
    uint32_t *partial = NEW_ARRAY(s->arena, uint32_t, k->open_count + 1);
    entry_list entries = {0};
    out.partial = partial;
    for (uint32_t m = 0; m < k->count; m++) {
        const struct profile *p = h->profile[k->member[m]];
        bool simple = is_simple(h, k->member[m]);
        for (uint32_t r = simple ? 0 : k->row[m]; r < (simple ? p->rows.count : k->row[m] + 1); r++)
            enter(h, k, m, r, &entries, partial);
        if (simple)
            continue;
        out.cost = cost_add(out.cost, p->rows.at[k->row[m]].cost);
        out.choice[m] = p->rows.at[k->row[m]].choice;
    }
    if (entries.count)
        qsort(entries.at, entries.count, sizeof *entries.at, by_birth);
    struct birth *births = NEW_ARRAY(s->temporary, struct birth, entries.count + 1);
    uint32_t *chosen = NEW_ARRAY(s->temporary, uint32_t, entries.count + 1);
    for (uint32_t i = 0; i < entries.count; i++)
        births[i] = entries.at[i].birth;
    for (uint32_t i = 0, end; i < entries.count; i = end) {
        uint32_t values = 1;
        for (end = i + 1; end < entries.count && entries.at[end].root == entries.at[i].root; end++)
            values += births[end].at != births[end - 1].at;
        out.cost = cost_add(out.cost, joint_solve(s, entries.at[i].root, births + i, end - i, chosen, NULL, NULL));
        for (uint32_t x = 0; x < values && cost_possible(out.cost); x++) {
            const struct entry *e = &entries.at[i + chosen[x]];
            out.choice[e->member] = h->profile[k->member[e->member]]->rows.at[e->row].choice;
        }
    }
    keep_group_row(s, k, out);
}

/* Counts through the rows of the members that are not simple. */
static void solve_group(struct hub *h, struct group *k)
{
    for (uint32_t m = 0; m < k->count; m++)
        if (!h->profile[k->member[m]]->rows.count)
            return;
    for (uint32_t combinations = 0; combinations < MOST_COMBINATIONS; combinations++) {
        struct arena_mark mark = arena_mark(h->s->temporary);
        join(h, k);
        arena_rewind(h->s->temporary, mark);
        uint32_t m = 0;
        for (; m < k->count; m++) {
            if (is_simple(h, k->member[m]))
                continue;
            if (++k->row[m] < h->profile[k->member[m]]->rows.count)
                break;
            k->row[m] = 0;
        }
        if (m == k->count)
            return;
    }
}

/* A part that is alone in its group, and equal to an earlier one that is: same rows. */
static bool take_rows(const struct hub *h, const group_list *groups, uint32_t group)
{
    struct group *k = &groups->at[group];
    uint32_t first = h->first[k->member[0]];
    const struct group *same = &groups->at[h->group_of[first]];
    if (k->count != 1 || same->count != 1 || first == k->member[0])
        return false;
    memcpy(&k->rows, &same->rows, sizeof k->rows);
    return true;
}

/* Joins parts that share a tree of the hub. */
static void find_groups(struct hub *h, group_list *out)
{
    struct solver *s = h->s;
    uint32_t count = h->parts.count;
    uint32_t *parent = NEW_ARRAY(s->temporary, uint32_t, count + 1), *group_of = h->group_of;
    for (uint32_t i = 0; i < count; i++)
        parent[i] = i;
    for (int pass = 0; pass < 2; pass++) /* join, then clean up */
        for (uint32_t i = 0; i < count; i++)
            for (uint32_t o = 0; o < h->profile[i]->open_count; o++) {
                const struct unit *u = open_unit(h, i, o);
                if (u->to != h->region)
                    continue;
                uint32_t *owner = &s->tree_owner[u->joint];
                if (pass) {
                    *owner = 0;
                } else if (*owner) {
                    uint32_t a = root_of(parent, *owner - 1), b = root_of(parent, i);
                    parent[a > b ? a : b] = a > b ? b : a;
                } else {
                    *owner = i + 1;
                }
            }
    for (uint32_t i = 0; i < count; i++) { /* roots come before their members */
        uint32_t root = root_of(parent, i);
        if (root == i) {
            (void)PUSH(s->temporary, out);
            group_of[i] = out->count - 1;
        }
        struct group *k = &out->at[group_of[root]];
        k->count++;
        for (uint32_t o = 0; o < h->profile[i]->open_count; o++)
            k->open_count += open_unit(h, i, o)->to != h->region;
    }
    for (uint32_t g = 0; g < out->count; g++) {
        struct group *k = &out->at[g];
        k->member = NEW_ARRAY(s->temporary, uint32_t, k->count);
        k->row = NEW_ARRAY(s->temporary, uint32_t, k->count);
        k->open = NEW_ARRAY(s->temporary, uint32_t, k->open_count + 1);
        k->count = k->open_count = 0;
    }
    for (uint32_t i = 0; i < count; i++) {
        struct group *k = &out->at[group_of[root_of(parent, i)]];
        k->member[k->count++] = i;
        for (uint32_t o = 0; o < h->profile[i]->open_count; o++)
            if (open_unit(h, i, o)->to != h->region)
                k->open[k->open_count++] =
                    position(h->whole->unit, h->whole->unit_count, h->parts.at[i].unit[h->profile[i]->open[o]]);
    }
}

static const struct choice *assemble(struct hub *h, const group_list *groups, const uint32_t *row,
                                     const uint32_t *masks)
{
    struct choice *choice = NEW(h->s->arena, struct choice);
    const struct choice **part = NEW_ARRAY(h->s->arena, const struct choice *, h->parts.count + 1);
    for (uint32_t g = 0; g < groups->count; g++)
        for (uint32_t m = 0; m < groups->at[g].count; m++)
            part[groups->at[g].member[m]] = groups->at[g].rows.at[row[g]].choice[m];
    choice->masks = masks;
    choice->part = part;
    return choice;
}

/* Adds every combination of the groups' rows (nearly all groups have one) to the component's profile. */
static void add_combinations(struct hub *h, const group_list *groups, const uint32_t *masks, struct cost base)
{
    struct solver *s = h->s;
    struct profile *p = h->out;
    uint32_t *row = NEW_ARRAY(s->temporary, uint32_t, groups->count + 1);
    for (uint32_t g = 0; g < groups->count; g++)
        if (!groups->at[g].rows.count)
            return;
    for (uint32_t combinations = 0; combinations < MOST_COMBINATIONS; combinations++) {
        struct profile_row out = {.cost = base};
        uint32_t *partial = NEW_ARRAY(s->arena, uint32_t, p->open_count + 1);
        for (uint32_t g = 0; g < groups->count; g++) {
            const struct group *k = &groups->at[g];
            out.cost = cost_add(out.cost, k->rows.at[row[g]].cost);
            for (uint32_t o = 0; o < k->open_count; o++)
                partial[position(p->open, p->open_count, k->open[o])] = k->rows.at[row[g]].partial[o];
        }
        out.partial = partial;
        bool better = cost_possible(out.cost);
        for (uint32_t i = 0; better && i < p->rows.count; i++)
            if (!p->open_count || !memcmp(p->rows.at[i].partial, partial, p->open_count * sizeof *partial))
                better = cost_less(s, out.cost, p->rows.at[i].cost);
        if (better) {
            out.choice = assemble(h, groups, row, masks);
            keep_row(s, p, out);
        }
        uint32_t g = 0;
        for (; g < groups->count; g++) {
            if (++row[g] < groups->at[g].rows.count)
                break;
            row[g] = 0;
        }
        if (g == groups->count)
            return;
    }
}

/* The units whose results enter regions decided outside. */
static void find_open(struct solver *s, const struct component *c, struct profile *p)
{
    p->open = NEW_ARRAY(s->arena, uint32_t, c->unit_count + 1);
    for (uint32_t i = 0; i < c->unit_count; i++) {
        const struct unit *u = &s->units.at[c->unit[i]];
        if (u->kind != UNIT_EDGE && position(c->region, c->region_count, u->to) == UINT32_MAX)
            p->open[p->open_count++] = i;
    }
}

/* Per part of the hub the first that is equal to it, whatever the hub decides. */
static uint32_t *first_equals(struct hub *h)
{
    struct solver *s = h->s;
    uint32_t *first = NEW_ARRAY(s->temporary, uint32_t, h->parts.count + 1);
    struct map kinds = {.arena = s->arena};
    for (uint32_t i = 0; i < h->parts.count; i++) {
        struct arena_mark mark = arena_mark(s->temporary);
        uint32_t orbit[MAX_SUBAXES];
        bool added;
        find_orbits(s, &h->parts.at[i], orbit);
        struct bytes description = describe(s, &h->parts.at[i], orbit, h->region);
        uint32_t *slot = map_put(&kinds, description.at, description.count, &added);
        *slot = added ? i : *slot;
        first[i] = *slot;
        arena_rewind(s->temporary, mark);
    }
    return first;
}

static struct profile *solve_hub(struct solver *s, const struct component *c, const uint32_t *orbit)
{
    uint32_t at = choose_hub(s, c);
    struct hub h = {.s = s,
                    .whole = c,
                    .region = c->region[at],
                    .parts = cut_apart(s, c, at),
                    .out = NEW(s->arena, struct profile)};
    h.profile = NEW_ARRAY(s->temporary, struct profile *, h.parts.count + 1);
    h.first = first_equals(&h);
    h.group_of = NEW_ARRAY(s->temporary, uint32_t, h.parts.count + 1);
    find_open(s, c, h.out);
    mask_list decisions = region_decisions(s, h.region, orbit);
    for (uint32_t d = 0; d < decisions.count; d++) {
        struct arena_mark mark = arena_mark(s->temporary);
        s->stats.decisions++;
        region_decide(s, h.region, decisions.at[d]);
        struct cost base = pins_allow_region(s, h.region) ? region_cost(s, h.region) : cost_never();
        bool possible = cost_possible(base);
        for (uint32_t i = 0; possible && i < h.parts.count; i++) {
            h.profile[i] = h.first[i] < i ? h.profile[h.first[i]] : solve_component(s, &h.parts.at[i]);
            possible = h.profile[i]->rows.count != 0;
        }
        group_list groups = {0};
        if (possible)
            find_groups(&h, &groups);
        for (uint32_t g = 0; g < groups.count; g++)
            if (!take_rows(&h, &groups, g))
                solve_group(&h, &groups.at[g]);
        if (possible)
            add_combinations(&h, &groups, decisions.at[d], base);
        region_decide(s, h.region, NULL);
        arena_rewind(s->temporary, mark);
    }
    return h.out;
}

static struct profile *solve_component(struct solver *s, const struct component *c)
{
    struct arena_mark mark = arena_mark(s->temporary);
    uint32_t orbit[MAX_SUBAXES];
    bool added;
    find_orbits(s, c, orbit);
    struct bytes description = describe(s, c, orbit, 0);
    uint32_t *slot = map_put(&s->seen, description.at, description.count, &added);
    uint32_t index = *slot;
    if (added) {
        s->stats.components++;
        (void)PUSH(s->arena, &s->solved);
        index = *slot = s->solved.count - 1;
        struct profile *p = c->region_count ? solve_hub(s, c, orbit) : solve_unit(s, c, orbit);
        s->solved.at[index] = p;
    }
    arena_rewind(s->temporary, mark);
    return (struct profile *)s->solved.at[index];
}

/* Writes a choice down. Depth as solve_component's. */
static void apply(struct solver *s, const struct component *c, const struct choice *choice)
{
    if (!c->region_count) {
        s->chosen[c->unit[0]] = choice->unit;
        return;
    }
    uint32_t at = choose_hub(s, c);
    component_list parts = cut_apart(s, c, at);
    region_decide(s, c->region[at], choice->masks);
    for (uint32_t i = 0; i < parts.count; i++)
        apply(s, &parts.at[i], choice->part[i]);
}

/* Everything, ascending. */
static void whole_component(struct solver *s, struct component *all)
{
    all->region = NEW_ARRAY(s->arena, uint32_t, all->region_count + 1);
    all->unit = NEW_ARRAY(s->arena, uint32_t, all->unit_count + 1);
    for (uint32_t i = 0; i < all->region_count; i++)
        all->region[i] = i + 1;
    for (uint32_t i = 0; i < all->unit_count; i++)
        all->unit[i] = i;
}

struct cost search_cost(struct solver *s)
{
    struct component all = {.region_count = s->regions.count - 1, .unit_count = s->units.count};
    struct arena_mark mark = arena_mark(s->temporary);
    struct cost total = cost_zero();
    whole_component(s, &all);
    component_list parts = cut_apart(s, &all, UINT32_MAX);
    for (uint32_t i = 0; i < parts.count && cost_possible(total); i++) {
        struct profile *p = solve_component(s, &parts.at[i]);
        total = p->rows.count ? cost_add(total, p->rows.at[0].cost) : cost_never();
    }
    arena_rewind(s->temporary, mark);
    return total;
}

bool search_possible(struct solver *s)
{
    return cost_possible(search_cost(s));
}

struct cost search(struct solver *s)
{
    struct component all = {.region_count = s->regions.count - 1, .unit_count = s->units.count};
    struct cost total = cost_zero();
    find_signatures(s);
    whole_component(s, &all);
    component_list parts = cut_apart(s, &all, UINT32_MAX);
    for (uint32_t i = 0; i < parts.count; i++) {
        struct profile *p = solve_component(s, &parts.at[i]);
        if (!p->rows.count)
            return cost_never();
        total = cost_add(total, p->rows.at[0].cost);
        apply(s, &parts.at[i], p->rows.at[0].choice);
    }
    return total;
}
