/* solver/layout.c - the classes of a region, and the placements that a decision about them gives.
 *
 * Invariant: a candidate class lies on a weight, is not blocked, and no value holds it on two axes or twice in one segment. Under a decision
 * every class has a mask of sub-axes and, when that is not empty, a partition among the scratch graph's. Start with region_classes.
 */
#include "solver/internal.h"

enum { DEEPEST = 60, MOST_CLASSES = 32, MOST_SHARED = 6 };

/* ---- trees as segments ---- */

typedef LIST(struct segment) segment_list;

/* One value's trees on the way to segments. Each leaf is met once, in order. */
struct layout {
    struct solver *s;
    struct graph *into;
    struct arena *arena;
    uint64_t whole; /* as in struct view */
    uint32_t over, leaf;
};

static void segments_below(struct layout *l, tree t, segment_list *out, unsigned depth);

/* The factors of a tree that must be one segment. */
static void factors_below(struct layout *l, tree t, struct factor *at, uint32_t *count)
{
    segment_list inner = {0};
    segments_below(l, t, &inner, 1);
    if (inner.count == 1) {
        memcpy(at + *count, inner.at[0].factor, inner.at[0].count * sizeof *at);
        *count += inner.at[0].count;
    } else { /* packed inside another factor: never cut (BLOCK_PACKED) */
        at[(*count)++] = (struct factor){.extent = l->s->trees.at[tree_find(l->s, t)].extent};
    }
}

static void push_product(struct layout *l, const struct tree_node *n, segment_list *out, unsigned depth)
{
    segment_list head = {0};
    segments_below(l, n->child[0], &head, depth + 1);
    tree_list leaves = {0};
    for (uint32_t i = 1; i < n->count; i++)
        tree_leaves(l->s, n->child[i], l->arena, &leaves);
    struct factor *tail = NEW_ARRAY(l->arena, struct factor, leaves.count + 1);
    uint32_t count = 0;
    for (uint32_t i = 1; i < n->count; i++)
        factors_below(l, n->child[i], tail, &count);
    for (uint32_t i = 0; i < head.count; i++) {
        struct factor *all = NEW_ARRAY(l->arena, struct factor, head.at[i].count + count);
        memcpy(all, head.at[i].factor, head.at[i].count * sizeof *all);
        if (count)
            memcpy(all + head.at[i].count, tail, count * sizeof *all);
        *PUSH(l->arena, out) = (struct segment){head.at[i].count + count, all};
    }
}

/* How a leaf is cut: its class's mask, of that what `over` lets through, nothing where it is whole here. */
static uint32_t leaf_mask(const struct tree_node *n, uint64_t whole, uint32_t over, uint32_t leaf)
{
    if (n->row && (leaf >= 64 || (whole >> leaf & 1)))
        return 0;
    return n->mask & over;
}

static void segments_below(struct layout *l, tree t, segment_list *out, unsigned depth)
{
    const struct tree_node *n = &l->s->trees.at[tree_find(l->s, t)];
    if (n->kind == TREE_LEAF || depth > DEEPEST) {
        struct factor *f = NEW(l->arena, struct factor);
        uint32_t mask = leaf_mask(n, l->whole, l->over, l->leaf++);
        f->extent = n->extent;
        f->partition = mask ? class_partition(l->s, l->into, n->extent, mask) : 0;
        *PUSH(l->arena, out) = (struct segment){1, f};
        return;
    }
    if (n->kind == TREE_PROD) {
        push_product(l, n, out, depth);
        return;
    }
    for (uint32_t i = 0; i < n->count; i++)
        segments_below(l, n->child[i], out, depth + 1);
}

/* As graph_partition, but makes no symbols: what the search tries leaves no trace. */
static uint32_t scratch_partition(struct graph *scratch, const struct partition *p)
{
    for (uint32_t i = 1; i < scratch->partitions.count; i++) {
        const struct partition *q = &scratch->partitions.at[i];
        if (q->extent == p->extent && q->unit == p->unit && q->subaxes == p->subaxes &&
            (p->offset ? q->offset && !memcmp(p->offset, q->offset, (p->parts + 1) * sizeof *p->offset) : !q->offset))
            return i;
    }
    struct partition *q = PUSH(scratch->arena, &scratch->partitions);
    *q = *p;
    if (p->offset)
        q->offset = (const int64_t *)arena_copy(scratch->arena, p->offset, (p->parts + 1) * sizeof *p->offset);
    return scratch->partitions.count - 1;
}

uint32_t class_partition(struct solver *s, struct graph *into, dim extent, uint32_t mask)
{
    int64_t size = 0, offset[MAX_RANKS + 1], unit = s->options->class_unit ? s->options->class_unit : 1;
    struct partition p = {.extent = extent, .unit = unit, .subaxes = mask, .parts = mesh_parts(&into->mesh, mask)};
    if (dim_is_const(into->dims, extent, &size)) {
        partition_balance(size, unit, p.parts, offset);
        p.offset = offset;
    }
    return into == s->scratch ? scratch_partition(into, &p) : graph_partition(into, extent, unit, mask, p.offset);
}

const struct placement *view_placement(struct solver *s, struct graph *into, const struct view *view, uint32_t over,
                                       struct arena *arena)
{
    struct layout l = {.s = s, .into = into, .arena = arena, .whole = view->whole, .over = over};
    struct placement *p = NEW(arena, struct placement);
    struct axis_layout *axis = NEW_ARRAY(arena, struct axis_layout, view->rank);
    bool whole = true;
    for (uint32_t i = 0; i < view->rank; i++) {
        segment_list out = {0};
        segments_below(&l, view->axes[i], &out, 0);
        struct axis_layout raw = {out.count, out.at};
        axis[i] = axis_normalise(into, &raw, arena);
        whole = whole && axis_is_whole(&axis[i]);
    }
    if (whole)
        return placement_whole(arena, view->rank, view->shape);
    p->rank = view->rank;
    p->axis = axis;
    return p;
}

struct view value_view(const struct solver *s, value v)
{
    const struct node *n = graph_node(s->g, v);
    return (struct view){s->axes[v], n->rank, n->shape, s->whole[v]};
}

struct view slot_view(const struct solver *s, value v, uint32_t operand)
{
    const struct node *u = graph_node(s->g, graph_node(s->g, v)->operand[operand]);
    return (struct view){s->slot[v][operand], u->rank, u->shape, s->whole_at[v] ? s->whole_at[v][operand] : 0};
}

const struct placement *value_placement(struct solver *s, value v, struct arena *arena)
{
    const struct node *n = graph_node(s->g, v);
    if (!s->region_of[v])
        return placement_whole(arena, n->rank, n->shape);
    struct view view = value_view(s, v);
    return view_placement(s, s->scratch, &view, OVER_ALL, arena);
}

const struct placement *slot_placement(struct solver *s, value v, uint32_t operand, struct arena *arena)
{
    struct view view = slot_view(s, v, operand);
    return view_placement(s, s->scratch, &view, OVER_ALL, arena);
}

const struct placement *gathered_placement(struct solver *s, struct graph *into, value v, struct arena *arena)
{
    struct view view = value_view(s, v);
    return view_placement(s, into, &view, s->over[AXIS_DATA] | s->over[AXIS_CONTEXT], arena);
}

bool placement_disjoint(const struct graph *g, const struct placement *p)
{
    uint32_t seen = p->partial ? p->partial_subaxes : 0;
    for (uint32_t i = 0; i < p->rank; i++) {
        uint32_t here = axis_subaxes(g, &p->axis[i]);
        if (here & seen)
            return false;
        seen |= here;
    }
    return true;
}

/* ---- classes ---- */

static void mark_axis(struct solver *s, tree t)
{
    tree_list leaves = {0};
    tree_leaves(s, t, s->temporary, &leaves);
    for (uint32_t i = 0; i < leaves.count; i++)
        s->trees.at[leaves.at[i]].candidate = true;
}

/* Axes that a linear's weight has beside its inputs and outputs: experts. */
static void mark_stacked(struct solver *s, const struct unit *u)
{
    tree_list leaves = {0};
    stacked_leaves(s, u, s->temporary, &leaves);
    for (uint32_t i = 0; i < leaves.count; i++)
        s->trees.at[leaves.at[i]].stacked = true;
}

/* Axes of a linear or an embedding that lie on its weight. */
static void mark_candidates(struct solver *s, const struct unit *u)
{
    const struct node *n = graph_node(s->g, u->node);
    if (u->kind == UNIT_EDGE)
        return;
    if (u->kind == UNIT_EMBEDDING) {
        uint32_t axis = (uint32_t)n->attribute.axis, indices = graph_node(s->g, u->source)->rank;
        for (uint32_t i = 0; i < n->rank; i++)
            if (i < axis || i >= axis + indices)
                mark_axis(s, s->axes[u->node][i]);
        return;
    }
    uint32_t nb = (uint32_t)n->attribute.nbatch, nk = (uint32_t)n->attribute.ncontract;
    uint32_t rank = graph_node(s->g, u->source)->rank, rows = rank - nb - nk, columns = n->rank - nb - rows;
    for (uint32_t i = 0; i < n->rank; i++)
        if (i < nb || (u->slot == 0 ? i >= nb + rows : i < nb + columns))
            mark_axis(s, s->axes[u->node][i]);
    for (uint32_t i = rank - nk; u->from && i < rank; i++) /* batch axes follow the result's region */
        mark_axis(s, s->axes[u->source][i]);
}

struct stamps {
    uint32_t *value, *axis, *segment; /* per tree: where it was last seen; 0 never */
    uint32_t segments;
};

static void visit_segments(struct solver *s, struct stamps *k, tree t, uint32_t stamp, uint32_t axis, bool head,
                           value who, unsigned depth);

static void visit_leaf(struct solver *s, struct stamps *k, tree t, uint32_t stamp, uint32_t axis, value who)
{
    if (k->value[t] == stamp && (k->axis[t] != axis || k->segment[t] == k->segments))
        tree_block(s, t, BLOCK_TWICE, who);
    k->value[t] = stamp;
    k->axis[t] = axis;
    k->segment[t] = k->segments;
}

static void visit_segments(struct solver *s, struct stamps *k, tree t, uint32_t stamp, uint32_t axis, bool head,
                           value who, unsigned depth)
{
    t = tree_find(s, t);
    if (s->trees.at[t].kind == TREE_LEAF || depth > DEEPEST) {
        visit_leaf(s, k, t, stamp, axis, who);
        return;
    }
    for (uint32_t i = 0; i < s->trees.at[t].count; i++) {
        tree child = s->trees.at[t].child[i];
        if (s->trees.at[t].kind == TREE_SUM) {
            if (i)
                k->segments++;
            if (!head)
                tree_block(s, child, BLOCK_PACKED, who);
            visit_segments(s, k, child, stamp, axis, head, who, depth + 1);
        } else {
            visit_segments(s, k, child, stamp, axis, head && i == 0, who, depth + 1);
        }
    }
}

static void visit_axes(struct solver *s, struct stamps *k, const tree *axes, uint32_t rank, uint32_t stamp, value who)
{
    for (uint32_t i = 0; i < rank; i++) {
        k->segments++;
        visit_segments(s, k, axes[i], stamp, i + 1, true, who, 0);
    }
}

static void block_repeats(struct solver *s)
{
    struct stamps k = {.value = NEW_ARRAY(s->temporary, uint32_t, s->trees.count),
                       .axis = NEW_ARRAY(s->temporary, uint32_t, s->trees.count),
                       .segment = NEW_ARRAY(s->temporary, uint32_t, s->trees.count)};
    uint32_t stamp = 0;
    for (value v = 1; v < s->node_count; v++) {
        const struct node *n = graph_node(s->g, v);
        if (!s->region_of[v])
            continue;
        visit_axes(s, &k, s->axes[v], n->rank, ++stamp, v);
        for (uint32_t i = 0; s->slot[v] && i < n->operand_count; i++)
            if (!is_internal(s, v, i))
                visit_axes(s, &k, s->slot[v][i], graph_node(s->g, n->operand[i])->rank, ++stamp, v);
    }
    for (value v = 1; v < s->node_count; v++) { /* the vocabulary of a cross entropy is one factor */
        const struct node *n = graph_node(s->g, v);
        if (!s->region_of[v] || n->op != OP_CROSS_ENTROPY || s->role[v] != ROLE_OP)
            continue;
        tree t = tree_find(s, s->slot[v][0][n->rank]);
        if (s->trees.at[t].kind != TREE_LEAF)
            tree_block(s, t, BLOCK_PACKED, v);
    }
}

typedef LIST(tree) class_list;

/* Adds the candidates among the axes to the region's classes, and its rows; returns the former as a mask. */
static uint32_t collect(struct solver *s, uint32_t r, class_list *list, class_list *rows, const tree *axes,
                        uint32_t rank)
{
    uint32_t here = 0;
    for (uint32_t i = 0; i < rank; i++) {
        tree_list leaves = {0};
        tree_leaves(s, axes[i], s->temporary, &leaves);
        for (uint32_t k = 0; k < leaves.count; k++) {
            struct tree_node *n = &s->trees.at[leaves.at[k]];
            if (n->row && n->region != r)
                *PUSH(s->arena, rows) = leaves.at[k];
            n->region = r;
            int64_t extent;
            if (!n->candidate || n->block || !dim_is_const(s->g->dims, n->extent, &extent) || extent < 2)
                continue;
            if (!n->ordinal && list->count < MOST_CLASSES) {
                *PUSH(s->arena, list) = leaves.at[k];
                n->ordinal = list->count;
            }
            if (n->ordinal)
                here |= 1u << (n->ordinal - 1);
        }
    }
    return here;
}

static void note_conflicts(uint32_t *conflict, uint32_t here)
{
    for (uint32_t i = 0; i < MOST_CLASSES; i++)
        if (here >> i & 1)
            conflict[i] |= here & ~(1u << i);
}

void region_classes(struct solver *s)
{
    rows_mirror(s);
    trees_flatten(s);
    for (uint32_t i = 0; i < s->units.count; i++) {
        mark_candidates(s, &s->units.at[i]);
        mark_stacked(s, &s->units.at[i]);
    }
    block_repeats(s);
    rows_find(s);
    for (uint32_t r = 1; r < s->regions.count; r++) {
        struct region *region = &s->regions.at[r];
        class_list list = {0}, rows = {0};
        region->conflict = NEW_ARRAY(s->arena, uint32_t, MOST_CLASSES);
        for (uint32_t i = 0; i < region->value_count; i++) {
            value v = region->values[i];
            const struct node *n = graph_node(s->g, v);
            struct arena_mark mark = arena_mark(s->temporary);
            note_conflicts(region->conflict, collect(s, r, &list, &rows, s->axes[v], n->rank));
            for (uint32_t k = 0; s->slot[v] && k < n->operand_count; k++)
                if (!is_internal(s, v, k))
                    note_conflicts(region->conflict,
                                   collect(s, r, &list, &rows, s->slot[v][k], graph_node(s->g, n->operand[k])->rank));
            arena_rewind(s->temporary, mark);
        }
        region->class_count = list.count;
        region->classes = list.at;
        region->row_count = rows.count;
        region->rows = rows.at;
        region->allowed = NEW_ARRAY(s->arena, uint32_t, list.count + 1);
        for (uint32_t i = 0; i < list.count; i++)
            region->allowed[i] = s->over[AXIS_TENSOR] | (s->trees.at[list.at[i]].stacked ? s->over[AXIS_EXPERT] : 0);
    }
}

static uint32_t held_classes(struct solver *s, value v)
{
    uint32_t here = 0;
    for (uint32_t i = 0; i < graph_node(s->g, v)->rank; i++) {
        tree_list leaves = {0};
        tree_leaves(s, s->axes[v][i], s->temporary, &leaves);
        for (uint32_t k = 0; k < leaves.count; k++)
            if (s->trees.at[leaves.at[k]].ordinal)
                here |= 1u << (s->trees.at[leaves.at[k]].ordinal - 1);
    }
    return here;
}

/* Values that a unit and another op take, and that a class or sequence shards may cut: the region may gather them once for all. */
static bool is_shared(const struct solver *s, value v, const uint32_t *takers, const uint32_t *units, bool shards)
{
    bool sum = s->role[v] == ROLE_LINEAR ||
               s->role[v] == ROLE_EMBEDDING; /* may come as a sum: then it need not be scattered */
    for (uint32_t i = 0; shards && s->role[v] == ROLE_OP && i < graph_node(s->g, v)->operand_count; i++)
        sum = sum || s->joint_parent[graph_node(s->g, v)->operand[i]] == v;
    bool gathered_anyway = s->handed_out[v] && !s->rows; /* whole: what units take */
    return units[v] && !gathered_anyway && (takers[v] > 1 || (shards && (sum || rows_gathered(s, v))));
}

/* Which of them is decided, up to a number; beyond it those on sequence shards are always gathered, and of the others each unit pays for its own
 * gather, in the search. */
static void share(struct solver *s, struct region *region, const uint32_t *takers, const uint32_t *units)
{
    bool shards = s->options->sequence != SEQUENCE_WHOLE;
    LIST(value) list = {0};
    uint32_t on_shards = 0;
    region->shared = NEW_ARRAY(s->arena, value, MOST_SHARED);
    region->shared_holds = NEW_ARRAY(s->arena, uint32_t, MOST_SHARED);
    for (uint32_t i = 0; i < region->value_count && (region->class_count || shards); i++) {
        value v = region->values[i];
        bool row = shards && rows_hold(s, v, ROW_SEQUENCE);
        if (!is_shared(s, v, takers, units, row) || (!row && !held_classes(s, v)))
            continue;
        *PUSH(s->temporary, &list) = v;
        on_shards += row;
    }
    bool all = on_shards && list.count > MOST_SHARED;
    region->shards = NEW_ARRAY(s->arena, value, on_shards + 1);
    for (uint32_t i = 0; i < list.count; i++) {
        value v = list.at[i];
        bool row = on_shards && rows_hold(s, v, ROW_SEQUENCE);
        if (row && all) {
            region->shards[region->shard_count++] = v;
        } else if (region->shared_count < MOST_SHARED) {
            region->shared_rows |= (uint32_t)row << region->shared_count;
            region->shared_holds[region->shared_count] = held_classes(s, v);
            region->shared[region->shared_count++] = v;
        }
    }
}

void region_shared(struct solver *s)
{
    uint32_t *takers = NEW_ARRAY(s->temporary, uint32_t, s->node_count),
             *units = NEW_ARRAY(s->temporary, uint32_t, s->node_count);
    for (uint32_t i = 0; i < s->units.count; i++) {
        takers[s->units.at[i].source] = 1;
        units[s->units.at[i].source]++;
    }
    for (value v = 1; v < s->node_count; v++)
        for (uint32_t i = 0, uses = 0; takers[v] && i < s->uses.first[v + 1] - s->uses.first[v]; i++) {
            uses += s->live[s->uses.use[s->uses.first[v] + i]];
            takers[v] = uses > 1 ? uses : 1;
        }
    for (uint32_t r = 1; r < s->regions.count; r++) {
        struct arena_mark mark = arena_mark(s->temporary);
        share(s, &s->regions.at[r], takers, units);
        arena_rewind(s->temporary, mark);
    }
}

static void decide(struct solver *s, tree t, uint32_t mask)
{
    struct tree_node *n = &s->trees.at[t];
    n->mask = mask;
    n->partition = mask ? class_partition(s, s->scratch, n->extent, mask) : 0;
}

uint32_t decision_sequence(const struct region *r, const uint32_t *masks)
{
    return masks[r->class_count + 1];
}

void region_decide(struct solver *s, uint32_t region, const uint32_t *masks)
{
    struct region *r = &s->regions.at[region];
    uint32_t sequence = masks ? decision_sequence(r, masks) : 0;
    r->decision = masks;
    for (uint32_t i = 0; i < r->shard_count; i++)
        s->gathered[r->shards[i]] = sequence != 0;
    for (uint32_t i = 0; i < r->shared_count; i++)
        s->gathered[r->shared[i]] = masks && (masks[r->class_count] >> i & 1);
    for (uint32_t i = 0; i < r->class_count; i++)
        decide(s, r->classes[i], masks ? masks[i] : 0);
    for (uint32_t i = 0; i < r->row_count; i++) {
        bool batch = s->trees.at[r->rows[i]].row == ROW_BATCH;
        decide(s, r->rows[i], !masks ? 0 : batch ? s->over[AXIS_DATA] : s->over[AXIS_CONTEXT] | sequence);
    }
}
