/* solver/rows.c - batch and sequence: the factors that lie on no weight, and where a value has one whole although its class is cut.
 *
 * The rows of a linear (the axes that its weight lacks) and the indices of an embedding go through a whole model. Those that nothing ever needs whole are
 * a *batch*, the others *sequences*. How they are cut is not searched: a batch takes the mesh's data axes, a sequence its context axes and, when
 * what stands between the switch points shall lie on sequence shards, the tensor axis in every region that has no class cut over it.
 *
 * Unlike a class on a weight, a sequence is not cut everywhere or nowhere: attention has each rank's queries meet everybody's keys and values. So each
 * occurrence of a row in a value (the k-th leaf of its axes) is cut or whole on its own. Two ways lead to whole: an op needs it so (it contracts, scans,
 * slices the axis), or all that is made of the value needs it so: then it is gathered as early as that, before it grows. Where a value as made
 * and as taken differ, a conversion stands, inside a region too.
 *
 * Invariant: no value has two occurrences of one kind that are cut. Start with rows_find.
 */
#include "solver/passage.h"

/* ---- the rows of a unit ---- */

struct axis_pair {
    tree from, to; /* source's axis (0: prelude), result's */
};

static uint32_t unit_rows(const struct solver *s, const struct unit *u, struct axis_pair *out)
{
    const struct node *n = graph_node(s->g, u->node), *x = graph_node(s->g, u->source);
    const tree *from = u->from ? s->axes[u->source] : NULL;
    if (u->kind == UNIT_EDGE) {
        for (uint32_t i = 0; i < x->rank; i++)
            out[i] = (struct axis_pair){from ? from[i] : 0, s->slot[u->node][u->slot][i]};
        return x->rank;
    }
    uint32_t nb = (uint32_t)n->attribute.nbatch, nk = (uint32_t)n->attribute.ncontract;
    uint32_t first = u->kind == UNIT_LINEAR ? nb : 0, rows = u->kind == UNIT_LINEAR ? x->rank - nb - nk : x->rank;
    uint32_t at = u->kind == UNIT_EMBEDDING ? (uint32_t)n->attribute.axis : u->slot == 0 ? nb : n->rank - rows;
    for (uint32_t i = 0; i < rows; i++)
        out[i] = (struct axis_pair){from ? from[first + i] : 0, s->axes[u->node][at + i]};
    return rows;
}

void rows_mirror(struct solver *s)
{
    struct axis_pair pair[MAX_RANK];
    bool changed = s->rows;
    for (int pass = 0; changed && pass < 16; pass++) {
        changed = false;
        for (uint32_t i = 0; i < s->units.count; i++) {
            uint32_t count = unit_rows(s, &s->units.at[i], pair);
            for (uint32_t k = 0; k < count; k++)
                changed = (pair[k].from && tree_mirror(s, pair[k].from, pair[k].to)) || changed;
        }
    }
}

/* ---- which leaves are a batch, which a sequence ---- */

enum { MOST_GROUPS = 64 };

/* Leaves of several regions that are one row: linked through units. */
struct groups {
    uint32_t *parent; /* per tree */
    uint16_t *blocks; /* per root */
    bool *on_weight;  /* per root */
    bool *row;        /* per root: rows of some unit */
    uint8_t *number;  /* per root: 1 + its place among those that may be a batch */
    uint32_t count, root[MOST_GROUPS];
    uint64_t conflict[MOST_GROUPS]; /* those that share a value with it */
};

static uint32_t root_of(uint32_t *parent, uint32_t x)
{
    while (parent[x] != x) {
        parent[x] = parent[parent[x]];
        x = parent[x];
    }
    return x;
}

static bool is_one(const struct solver *s, tree t)
{
    return dim_is(s->g->dims, s->trees.at[t].extent, 1);
}

static void link_rows(struct solver *s, struct groups *g, const struct axis_pair *p, bool row)
{
    tree_list from = {0}, to = {0};
    tree_leaves(s, p->to, s->temporary, &to);
    if (p->from)
        tree_leaves(s, p->from, s->temporary, &from);
    bool same = from.count == to.count;
    for (uint32_t i = 0; same && i < to.count; i++)
        same = s->trees.at[from.at[i]].extent == s->trees.at[to.at[i]].extent;
    for (uint32_t i = 0; i < to.count; i++) {
        uint32_t b = root_of(g->parent, to.at[i]);
        if (same) {
            uint32_t a = root_of(g->parent, from.at[i]), low = a < b ? a : b;
            bool either = g->row[a] || g->row[b];
            g->parent[a] = low;
            g->parent[b] = low;
            g->row[low] = either;
            b = low;
        }
        g->row[b] = g->row[b] || row;
    }
    for (uint32_t i = 0; row && i < from.count; i++)
        g->row[root_of(g->parent, from.at[i])] = true;
}

/* Groups that may be a batch, in the order of the units and of their axes: the outermost first. */
static void list_groups(struct solver *s, struct groups *g)
{
    struct axis_pair pair[MAX_RANK];
    for (uint32_t i = 0; i < s->units.count; i++) {
        uint32_t count = s->units.at[i].kind == UNIT_EDGE ? 0 : unit_rows(s, &s->units.at[i], pair);
        for (uint32_t k = 0; k < count; k++) {
            tree_list leaves = {0};
            tree_leaves(s, pair[k].to, s->temporary, &leaves);
            for (uint32_t x = 0; x < leaves.count && g->count < MOST_GROUPS; x++) {
                uint32_t root = root_of(g->parent, leaves.at[x]);
                if (g->number[root] || g->on_weight[root] || is_one(s, leaves.at[x]))
                    continue;
                g->root[g->count++] = root;
                g->number[root] = (uint8_t)g->count;
            }
        }
    }
}

static void note_conflicts(struct solver *s, struct groups *g)
{
    for (value v = 1; v < s->node_count; v++) {
        uint64_t here = 0;
        struct arena_mark mark = arena_mark(s->temporary);
        tree_list leaves = {0};
        for (uint32_t i = 0; s->region_of[v] && i < graph_node(s->g, v)->rank; i++)
            tree_leaves(s, s->axes[v][i], s->temporary, &leaves);
        for (uint32_t i = 0; i < leaves.count; i++) {
            uint32_t number = g->number[root_of(g->parent, leaves.at[i])];
            here |= number ? 1ull << (number - 1) : 0;
        }
        for (uint32_t i = 0; i < g->count; i++)
            if (here >> i & 1)
                g->conflict[i] |= here & ~(1ull << i);
        arena_rewind(s->temporary, mark);
    }
}

static struct groups find_groups(struct solver *s)
{
    struct groups g = {.parent = NEW_ARRAY(s->temporary, uint32_t, s->trees.count),
                       .blocks = NEW_ARRAY(s->temporary, uint16_t, s->trees.count),
                       .on_weight = NEW_ARRAY(s->temporary, bool, s->trees.count),
                       .row = NEW_ARRAY(s->temporary, bool, s->trees.count),
                       .number = NEW_ARRAY(s->temporary, uint8_t, s->trees.count)};
    struct axis_pair pair[MAX_RANK];
    for (tree t = 0; t < s->trees.count; t++)
        g.parent[t] = t;
    for (uint32_t i = 0; i < s->units.count; i++) {
        uint32_t count = unit_rows(s, &s->units.at[i], pair);
        for (uint32_t k = 0; k < count; k++)
            link_rows(s, &g, &pair[k], s->units.at[i].kind != UNIT_EDGE);
    }
    for (tree t = 1; t < s->trees.count; t++) {
        const struct tree_node *n = &s->trees.at[t];
        if (n->link || n->kind != TREE_LEAF)
            continue;
        uint32_t root = root_of(g.parent, t);
        g.blocks[root] |= n->blocks;
        g.on_weight[root] = g.on_weight[root] || n->candidate;
    }
    list_groups(s, &g);
    note_conflicts(s, &g);
    return g;
}

/* Batches: first what nothing but a loss's sum ever needs whole, then, where there is no such row, what is at least never contracted nor sliced. */
static uint64_t choose_batches(const struct groups *g)
{
    const uint16_t sum = 1u << BLOCK_REDUCED, some = (uint16_t)(sum | 1u << BLOCK_WHOLE_AXIS | 1u << BLOCK_OPAQUE);
    uint64_t chosen = 0;
    for (int round = 0; round < 2 && !chosen; round++)
        for (uint32_t i = 0; i < g->count; i++)
            if (!(g->blocks[g->root[i]] & ~(round ? some : sum)) && !(g->conflict[i] & chosen))
                chosen |= 1ull << i;
    return chosen;
}

static void name_rows(struct solver *s)
{
    struct groups g = find_groups(s);
    uint64_t batch = choose_batches(&g);
    bool sequences = s->over[AXIS_CONTEXT] || s->options->sequence != SEQUENCE_WHOLE;
    for (tree t = 1; t < s->trees.count; t++) {
        struct tree_node *n = &s->trees.at[t];
        uint32_t root = root_of(g.parent, t), number = g.number[root];
        if (n->link || n->kind != TREE_LEAF || n->candidate || !g.row[root] || is_one(s, t))
            continue;
        bool is_batch = number && (batch >> (number - 1) & 1);
        n->row = is_batch ? (s->over[AXIS_DATA] ? ROW_BATCH : ROW_NONE) : sequences ? ROW_SEQUENCE : ROW_NONE;
    }
}

/* ---- what is whole ---- */

struct whole {
    struct solver *s;
    uint64_t *forced;               /* per value: whatever its uses want */
    uint64_t *wanted, *indifferent; /* per value, over the uses seen: all want it whole; all take any */
};

/* Leaves of the result that no operand hands on are made whole, but where an op repeats what it has. */
static uint64_t made_whole(struct solver *s, value v)
{
    const struct node *n = graph_node(s->g, v);
    uint64_t reached = 0;
    if (s->role[v] != ROLE_OP || n->op == OP_BROADCAST)
        return 0;
    for (uint32_t i = 0; i < n->operand_count; i++) {
        struct passage p;
        passage_of(s, v, i, &p);
        for (uint32_t k = 0; k < MOST_LEAVES; k++)
            reached |= p.to[k] >= 0 ? 1ull << p.to[k] : 0;
    }
    return ~reached;
}

/* What op v wants of an operand, given what its result has. */
static void want(struct whole *w, value v, uint32_t operand)
{
    struct solver *s = w->s;
    struct passage p;
    value u = graph_node(s->g, v)->operand[operand];
    uint64_t need = 0, any = 0;
    passage_of(s, v, operand, &p);
    for (uint32_t k = 0; k < MOST_LEAVES && k < p.in.list.count; k++) {
        any |= p.to[k] == TAKES_ANY ? 1ull << k : 0;
        if (p.to[k] == NEEDS_WHOLE || (p.to[k] >= 0 && (s->whole[v] >> p.to[k] & 1)))
            need |= 1ull << k;
    }
    s->whole_at[v][operand] = need;
    if (!is_internal(s, v, operand))
        return;
    w->wanted[u] &= need | any;
    w->indifferent[u] &= any;
}

/* Of two cut occurrences of one kind the later is whole. */
static uint64_t surplus(struct solver *s, const struct leaves *l, uint64_t whole)
{
    uint64_t out = 0;
    bool seen[3] = {false, false, false};
    for (uint32_t k = 0; k < l->list.count && k < MOST_LEAVES; k++) {
        uint8_t row = s->trees.at[l->list.at[k]].row;
        if (row == ROW_NONE || (whole >> k & 1))
            continue;
        out |= seen[row] ? 1ull << k : 0;
        seen[row] = true;
    }
    return out;
}

/* One pass backwards; true when a value was found to hold too much. */
static bool settle_wholes(struct whole *w)
{
    struct solver *s = w->s;
    bool changed = false;
    for (value v = 0; v < s->node_count; v++)
        w->wanted[v] = w->indifferent[v] = UINT64_MAX;
    for (uint32_t i = 0; i < s->units.count; i++) /* conversions stand there: anything goes */
        w->wanted[s->units.at[i].source] = w->indifferent[s->units.at[i].source] = 0;
    for (value v = s->node_count; v-- > 1;) {
        const struct node *n = graph_node(s->g, v);
        if (!s->region_of[v])
            continue;
        struct arena_mark mark = arena_mark(s->temporary);
        s->whole[v] = (s->is_output[v] ? 0 : w->wanted[v] & ~w->indifferent[v]) | w->forced[v];
        struct leaves l = leaves_of(s, s->axes[v], n->rank);
        uint64_t more = surplus(s, &l, s->whole[v]);
        w->forced[v] |= more;
        s->whole[v] |= more;
        changed = changed || more;
        for (uint32_t i = 0; s->role[v] == ROLE_OP && i < n->operand_count; i++)
            want(w, v, i);
        arena_rewind(s->temporary, mark);
    }
    return changed;
}

/* What is sliced off a value of which another part stays cut is gathered behind the slice: it is less. */
static void gather_behind_slices(struct whole *w)
{
    struct solver *s = w->s;
    uint64_t *before = (uint64_t *)arena_copy(s->temporary, s->whole, s->node_count * sizeof *s->whole);
    for (value v = 1; v < s->node_count; v++) {
        value u = s->role[v] == ROLE_OP ? graph_node(s->g, v)->operand[0] : 0;
        if (!u || graph_node(s->g, v)->op != OP_SLICE || !s->region_of[v] || !is_internal(s, v, 0))
            continue;
        struct arena_mark mark = arena_mark(s->temporary);
        struct passage p;
        passage_of(s, v, 0, &p);
        for (uint32_t k = 0; k < MOST_LEAVES && k < p.in.list.count; k++)
            if (p.to[k] >= 0 && !(before[u] >> k & 1) && !(w->forced[v] >> p.to[k] & 1)) {
                s->whole[v] &= ~(1ull << p.to[k]);
                s->whole_at[v][0] &= ~(1ull << k);
            }
        arena_rewind(s->temporary, mark);
    }
}

/* A sum takes what there is, as far as no other row of the operand is cut over the same ranks. */
static void take_any(struct solver *s, value v)
{
    const struct node *n = graph_node(s->g, v);
    struct passage p;
    passage_of(s, v, 0, &p);
    uint64_t *at = &s->whole_at[v][0];
    bool taken[3] = {false, false, false};
    for (uint32_t k = 0; k < p.in.list.count && k < MOST_LEAVES; k++)
        if (p.to[k] >= 0 && !(*at >> k & 1))
            taken[s->trees.at[p.in.list.at[k]].row] = true;
    for (uint32_t k = 0; k < p.in.list.count && k < MOST_LEAVES; k++) {
        uint8_t row = s->trees.at[p.in.list.at[k]].row;
        if (p.to[k] != TAKES_ANY)
            continue;
        bool whole = taken[row] || (is_internal(s, v, 0) && (s->whole[n->operand[0]] >> k & 1));
        *at |= whole ? 1ull << k : 0;
        taken[row] = taken[row] || !whole;
    }
}

uint32_t rows_summed(struct solver *s, value v)
{
    const struct node *n = graph_node(s->g, v);
    uint32_t mask = 0;
    if (!s->rows || s->role[v] != ROLE_OP || op_info(n->op)->class != CLASS_REDUCE)
        return 0;
    struct arena_mark mark = arena_mark(s->temporary);
    const struct placement *p = slot_placement(s, v, 0, s->temporary);
    for (uint32_t i = 0; i < p->rank; i++)
        mask |= axis_listed(n, i) ? axis_subaxes(s->scratch, &p->axis[i]) : 0;
    arena_rewind(s->temporary, mark);
    return mask;
}

bool rows_may_sum(struct solver *s, value v)
{
    const struct node *n = graph_node(s->g, v);
    bool found = false;
    if (!s->rows || s->role[v] != ROLE_OP || op_info(n->op)->class != CLASS_REDUCE || !s->whole_at[v])
        return false;
    struct arena_mark mark = arena_mark(s->temporary);
    struct leaves l = leaves_of(s, s->slot[v][0], graph_node(s->g, n->operand[0])->rank);
    for (uint32_t i = 0; i < graph_node(s->g, n->operand[0])->rank; i++)
        for (uint32_t k = l.first[i]; axis_listed(n, i) && k < l.first[i + 1] && k < MOST_LEAVES; k++)
            found = found || (s->trees.at[l.list.at[k]].row && !(s->whole_at[v][0] >> k & 1));
    arena_rewind(s->temporary, mark);
    return found;
}

bool rows_convert(const struct solver *s, value v, uint32_t operand)
{
    value u = graph_node(s->g, v)->operand[operand];
    if (!s->rows || !s->whole_at[v] || !is_internal(s, v, operand))
        return false;
    uint64_t differ = s->whole[u] ^ s->whole_at[v][operand];
    struct arena_mark mark = arena_mark(s->temporary);
    struct leaves l = leaves_of((struct solver *)(uintptr_t)s, s->axes[u], graph_node(s->g, u)->rank);
    bool found = false;
    for (uint32_t k = 0; differ && k < l.list.count && k < MOST_LEAVES; k++)
        found = found || ((differ >> k & 1) && s->trees.at[l.list.at[k]].row);
    arena_rewind(s->temporary, mark);
    return found;
}

bool rows_gathered(const struct solver *s, value v)
{
    for (uint32_t i = s->uses.first[v]; i < s->uses.first[v + 1]; i++) {
        value w = s->uses.use[i];
        for (uint32_t k = 0; s->live[w] && s->whole_at[w] && k < graph_node(s->g, w)->operand_count; k++)
            if (graph_node(s->g, w)->operand[k] == v && rows_convert(s, w, k))
                return true;
    }
    return false;
}

const char *rows_report(struct solver *s, struct arena *arena, struct solution *out)
{
    LIST(struct row_info) rows = {0};
    bool found[3] = {false, false, false};
    struct text note = {.arena = arena};
    for (tree t = 1; t < s->trees.count; t++) {
        const struct tree_node *n = &s->trees.at[t];
        if (n->link || !n->row || !n->mask)
            continue;
        struct row_info *known = NULL;
        const char *kind = n->row == ROW_BATCH ? "batch" : "sequence";
        found[n->row] = true;
        for (uint32_t i = 0; i < rows.count; i++)
            known = rows.at[i].kind == kind && rows.at[i].extent == n->extent ? &rows.at[i] : known;
        if (!known) {
            known = PUSH(arena, &rows);
            *known = (struct row_info){kind, n->extent, 0};
        }
        known->subaxes |= n->mask;
    }
    out->rows = rows.at;
    out->row_count = rows.count;
    if (s->over[AXIS_DATA] && !found[ROW_BATCH])
        text_put(&note, "no batch to divide: it is 1, or every op needs it whole; ");
    if (s->over[AXIS_CONTEXT] && !found[ROW_SEQUENCE])
        text_put(&note, "no sequence to divide: it is 1, or every op needs it whole; ");
    if (s->over[AXIS_CONTEXT] && s->g->states.count)
        text_put(&note, "caches stay whole along the sequence; ");
    return note.length > 2 ? arena_strndup(arena, note.at, note.length - 2) : NULL;
}

bool rows_hold(struct solver *s, value v, enum row_kind kind)
{
    struct leaves l = leaves_of(s, s->axes[v], graph_node(s->g, v)->rank);
    for (uint32_t k = 0; k < l.list.count && k < MOST_LEAVES; k++)
        if (s->trees.at[l.list.at[k]].row == kind && !(s->whole[v] >> k & 1))
            return true;
    return false;
}

void rows_find(struct solver *s)
{
    if (!s->rows)
        return;
    name_rows(s);
    struct whole w = {s, NEW_ARRAY(s->temporary, uint64_t, s->node_count),
                      NEW_ARRAY(s->temporary, uint64_t, s->node_count),
                      NEW_ARRAY(s->temporary, uint64_t, s->node_count)};
    for (value v = 1; v < s->node_count; v++) {
        struct arena_mark mark = arena_mark(s->temporary);
        if (s->slot[v])
            s->whole_at[v] = NEW_ARRAY(s->arena, uint64_t, graph_node(s->g, v)->operand_count);
        w.forced[v] = s->region_of[v] ? made_whole(s, v) : 0;
        arena_rewind(s->temporary, mark);
    }
    for (int pass = 0; pass < 32 && settle_wholes(&w); pass++) {
    }
    gather_behind_slices(&w);
    for (value v = 1; v < s->node_count; v++)
        if (s->slot[v] && op_info(graph_node(s->g, v)->op)->class == CLASS_REDUCE) {
            struct arena_mark mark = arena_mark(s->temporary);
            take_any(s, v);
            arena_rewind(s->temporary, mark);
        }
    find_joints(s); /* no sum passes a conversion */
}
