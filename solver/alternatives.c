/* solver/alternatives.c - what a layer could have been: per style, whether the ops around it allow it, and the first that does not; and which layers
 * are of one kind.
 *
 * A style is possible when some factor of the axes that it cuts may be cut: the result's for column and feature, the activation's for row, the
 * table's rows for vocabulary. Start with add_alternatives.
 */
#include "solver/internal.h"

typedef LIST(struct alternative) alternative_list;

static const char *block_text(enum block why)
{
    switch (why) {
    case BLOCK_NONE:
        return "is free";
    case BLOCK_CONTRACTED:
        return "is contracted by a product of two activations";
    case BLOCK_REDUCED:
        return "is reduced by an op that needs all of it";
    case BLOCK_WHOLE_AXIS:
        return "is an axis that an op needs whole";
    case BLOCK_OPAQUE:
        return "is mixed with other axes by a reshape";
    case BLOCK_SLICED:
        return "is sliced where no factor ends";
    case BLOCK_TWICE:
        return "is on two axes of one value";
    case BLOCK_PACKED:
        return "is packed inside another factor";
    }
    return "?";
}

/* No sub-axis has so few parts that the factor can be cut over it; with --even: that divides it. */
static bool too_few(const struct solver *s, const struct tree_node *n)
{
    int64_t extent = 0;
    bool fits = !dim_is_const(s->g->dims, n->extent, &extent);
    for (uint32_t i = 0; i < s->mesh->count && !fits; i++)
        fits = parts_fit(s, n->extent, s->mesh->size[i]);
    return !fits;
}

static bool may_be_cut(struct solver *s, const tree *axes, uint32_t first, uint32_t end)
{
    for (uint32_t i = first; i < end; i++) {
        tree_list leaves = {0};
        tree_leaves(s, axes[i], s->temporary, &leaves);
        for (uint32_t k = 0; k < leaves.count; k++) {
            const struct tree_node *n = &s->trees.at[leaves.at[k]];
            if (n->candidate && !n->block && !too_few(s, n))
                return true;
        }
    }
    return false;
}

bool obstacle(struct solver *s, const tree *axes, uint32_t first, uint32_t end, struct text *t)
{
    for (uint32_t i = first; i < end; i++) {
        tree_list leaves = {0};
        tree_leaves(s, axes[i], s->temporary, &leaves);
        for (uint32_t k = 0; k < leaves.count; k++) {
            const struct tree_node *n = &s->trees.at[leaves.at[k]];
            if (!n->candidate || dim_is(s->g->dims, n->extent, 1) || (!n->block && !too_few(s, n)))
                continue;
            text_put(t, "a factor of ");
            dim_print(s->g->dims, n->extent, t);
            text_printf(t, " %s",
                        n->block  ? block_text((enum block)n->block)
                        : s->even ? "does not divide into equal parts"
                                  : "has fewer elements than parts");
            if (n->block && n->why)
                text_printf(t, " (%s)", graph_where(s->g, n->why, s->temporary));
            return true;
        }
    }
    return false;
}

/* ---- alternatives ---- */

static void add(struct solver *s, struct arena *arena, layer_style style, const tree *axes, uint32_t first,
                uint32_t end, alternative_list *out)
{
    struct alternative *a = PUSH(arena, out);
    struct text t = {.arena = arena};
    *a = (struct alternative){.style = style, .possible = axes != NULL && may_be_cut(s, axes, first, end)};
    if (a->possible)
        text_put(&t, "the ops around it allow it");
    else if (axes == NULL)
        text_put(&t, "its input is made by no layer: every rank has all of it");
    else if (!obstacle(s, axes, first, end, &t))
        text_put(&t, "no factor of the axis lies on a weight");
    a->why = t.at;
}

static void add_linear(struct solver *s, struct arena *arena, const struct unit *u, alternative_list *out)
{
    struct unit_axes a;
    unit_axes(s, u, &a);
    add(s, arena, STYLE_COLUMN, s->axes[u->node], a.out, a.out_end, out);
    add(s, arena, STYLE_ROW, u->from ? s->axes[u->source] : NULL, a.in, a.in_end, out);
}

static void add_embedding(struct solver *s, struct arena *arena, const struct unit *u, alternative_list *out)
{
    const struct node *n = graph_node(s->g, u->node), *table = graph_node(s->g, n->operand[0]);
    uint32_t axis = (uint32_t)n->attribute.axis, indices = graph_node(s->g, u->source)->rank;
    int64_t extent;
    bool enough =
        dim_is_const(s->g->dims, table->shape[axis], &extent) && parts_fit(s, table->shape[axis], s->options->ranks);
    *PUSH(arena, out) = (struct alternative){.style = STYLE_VOCABULARY,
                                             .possible = enough,
                                             .why = enough    ? "a table's rows can always be cut"
                                                    : s->even ? "the table's rows do not divide into equal parts"
                                                              : "the table has fewer rows than there are ranks"};
    add(s, arena, STYLE_FEATURE, s->axes[u->node], axis + indices, n->rank, out);
}

void add_alternatives(struct solver *s, struct arena *arena, const struct unit *u, struct layer *l)
{
    alternative_list all = {0};
    if (u->kind == UNIT_LINEAR)
        add_linear(s, arena, u, &all);
    else
        add_embedding(s, arena, u, &all);
    *PUSH(arena, &all) =
        (struct alternative){.style = STYLE_REPLICATED, .possible = true, .why = "every rank can hold all of a weight"};
    uint32_t kept = 0;
    for (uint32_t i = 0; i < all.count; i++)
        if (all.at[i].style != l->style)
            all.at[kept++] = all.at[i];
    l->alternative = all.at;
    l->alternative_count = kept;
}

/* ---- prices ---- */

static struct layer_parts parts_of_style(layer_style style)
{
    bool row = style == STYLE_ROW || style == STYLE_VOCABULARY,
         column = style == STYLE_COLUMN || style == STYLE_FEATURE;
    return (struct layer_parts){.batch = style == STYLE_REPLICATED ? (uint32_t)PARTS_WHOLE : (uint32_t)PARTS_ANY,
                                .in = row ? PARTS_CUT : PARTS_WHOLE,
                                .out = column ? PARTS_CUT
                                       : row  ? (uint32_t)PARTS_ANY
                                              : (uint32_t)PARTS_WHOLE};
}

/* The best plan in which the unit has that style: the search again, with that as the only pin. */
static void price(struct solver *s, uint32_t unit, struct cost base, struct alternative *a)
{
    struct unit_pin pin = {.want = parts_of_style(a->style)};
    s->unit_pin[unit] = &pin;
    struct cost cost = search_cost(s);
    s->unit_pin[unit] = NULL;
    a->possible = a->priced = cost_possible(cost);
    if (!a->possible) {
        a->why = "no plan has it: what it is made from or what takes it would have to be cut too, and cannot be";
        return;
    }
    a->bytes = (double)(cost.bytes - base.bytes);
    a->seconds = (double)(cost.time - base.time) * 1e-12;
    a->collectives = (int32_t)(cost.switches - base.switches);
}

/* The layer of each kind that is priced for all. */
static const struct layer **first_of_kinds(struct solver *s, const struct solution *out, uint32_t *alternatives)
{
    uint32_t most = 0;
    for (uint32_t i = 0; i < out->layer_count; i++)
        most = out->layers[i].kind > most ? out->layers[i].kind : most;
    const struct layer **first = NEW_ARRAY(s->temporary, const struct layer *, most + 1);
    *alternatives = 0;
    for (uint32_t i = out->layer_count; i-- > 0;)
        first[out->layers[i].kind] = &out->layers[i];
    for (uint32_t k = 1; k <= most; k++)
        *alternatives += first[k]->alternative_count;
    return first;
}

void price_alternatives(struct solver *s, const struct solution *out)
{
    enum {
        MOST_PRICES = 200 * 1000
    }; /* searches times units: beyond it a plan says what is possible, without prices */
    uint32_t count, unit = 0;
    const struct layer **first = first_of_kinds(s, out, &count);
    if (out->mesh->ranks == 1 || (uint64_t)count * s->units.count > MOST_PRICES)
        return;
    for (uint32_t r = 1; r < s->regions.count; r++)
        region_decide(s, r, NULL);
    struct cost base =
        search_cost(s); /* the plan's own; its pins are lifted for the others: what they cost is to be seen */
    s->unit_pin = NEW_ARRAY(s->arena, struct unit_pin *, s->units.count + 1);
    s->region_pin = NULL;
    for (uint32_t i = 0; i < out->layer_count; i++) {
        const struct layer *l = &out->layers[i];
        while (unit < s->units.count && (s->units.at[unit].node != l->node || s->units.at[unit].kind == UNIT_EDGE))
            unit++;
        for (uint32_t k = 0; l->kind && k < l->alternative_count; k++) {
            struct alternative *a = (struct alternative *)(uintptr_t)&l->alternative[k];
            if (!a->possible)
                continue;
            if (first[l->kind] == l)
                price(s, unit, base, a);
            else if (k < first[l->kind]->alternative_count && first[l->kind]->alternative[k].style == a->style)
                *a = first[l->kind]->alternative[k];
        }
    }
}

/* ---- kinds ---- */

static uint64_t place_in(const struct region *r, value v)
{
    uint32_t lo = 0, hi = r->value_count;
    while (lo < hi) {
        uint32_t middle = lo + (hi - lo) / 2;
        if (r->values[middle] < v)
            lo = middle + 1;
        else
            hi = middle;
    }
    return lo;
}

void kinds_start(struct solver *s, struct kinds *k)
{
    uint32_t most = 0;
    for (uint32_t r = 1; r < s->regions.count; r++)
        most = s->regions.at[r].signature > most ? s->regions.at[r].signature : most;
    *k = (struct kinds){.seen.arena = s->temporary, .twins = NEW_ARRAY(s->temporary, uint32_t, most + 1)};
    for (uint32_t r = 1; r < s->regions.count; r++)
        k->twins[s->regions.at[r].signature]++;
}

/* Layers are of one kind when they are cut alike, and stand at the same place of equal blocks. A layer's block is that of its two regions which occurs
 * more often, then the smaller: not the trunk on which all blocks hang. */
uint32_t layer_kind(struct solver *s, struct kinds *k, const struct unit *u, const struct layer *l)
{
    const struct region *from = &s->regions.at[u->from], *to = &s->regions.at[u->to];
    value weight = graph_node(s->g, u->node)->operand[1 - u->slot];
    uint32_t before = u->from ? k->twins[from->signature] : 0, behind = k->twins[to->signature];
    bool first = before > behind || (before == behind && from->value_count < to->value_count);
    const struct region *block = first ? from : to;
    uint64_t key[6] = {(uint64_t)u->kind << 8 | (uint64_t)l->style,  (uint64_t)first << 32 | block->signature,
                       place_in(block, first ? u->source : u->node), (uint64_t)(l->axis + 1),
                       graph_elements(s->scratch, weight),           graph_node(s->g, weight)->rank};
    bool added;
    uint32_t *kind = map_put(&k->seen, key, sizeof key, &added);
    if (added)
        *kind = k->seen.count;
    return *kind;
}
