/* solver/pins.c - constraints: what the user and the model's annotations demand, checked at once and then enforced in the search.
 *
 * Per switch point all pins are met to one struct layer_parts without PARTS_CUT; per region they are a list. pins_allow_unit and pins_allow_region say
 * no where the search asks; both look at nothing that pins_describe does not put into a component's description.
 * Invariant: without pins no function here changes what the search does. Start with pins_start.
 */
#include "solver/search.h"

enum { AXES = 5 };

static const char *const axis_name[AXES] = {"its experts", "its input features", "its output features",
                                            "the input as it arrives", "the output as it leaves"};

static uint32_t *part_at(struct layer_parts *p, int i)
{
    uint32_t *const at[AXES] = {&p->batch, &p->in, &p->out, &p->arrives, &p->leaves};
    return at[i];
}

/* ---- how far something can be cut ---- */

/* The sub-axes that a pin's numbers count. Those of data and context axes are not the pins' matter. */
uint32_t pins_features(const struct solver *s)
{
    return s->over[AXIS_TENSOR];
}

uint32_t pins_experts(const struct solver *s)
{
    return s->over[AXIS_TENSOR] | s->over[AXIS_EXPERT];
}

typedef LIST(tree) leaf_list;

/* The classes on axes [first, end) that may be cut. */
static void classes_on(const struct solver *s, const tree *axes, uint32_t first, uint32_t end, leaf_list *out)
{
    for (uint32_t i = first; i < end; i++) {
        tree_list leaves = {0};
        tree_leaves(s, axes[i], s->temporary, &leaves);
        for (uint32_t k = 0; k < leaves.count; k++) {
            bool known = !s->trees.at[leaves.at[k]].ordinal;
            for (uint32_t x = 0; x < out->count; x++)
                known = known || out->at[x] == leaves.at[k];
            if (!known)
                *PUSH(s->temporary, out) = leaves.at[k];
        }
    }
}

bool parts_fit(const struct solver *s, dim extent, uint32_t parts)
{
    int64_t n = 0, unit = s->options->class_unit ? s->options->class_unit : 1;
    if (!dim_is_const(s->g->dims, extent, &n))
        return false;
    return (n + unit - 1) / unit >= (int64_t)parts && (!s->even || n % (unit * parts) == 0);
}

/* Whether sub-axes [a, ..) can be given out such that the classes have `parts` in all, as --even allows. */
static bool parts_possible(const struct solver *s, const leaf_list *classes, uint32_t over, uint32_t *have, uint32_t a,
                           uint32_t parts)
{
    uint32_t all = 1;
    bool fit = true;
    for (uint32_t i = 0; i < classes->count; i++) {
        all *= have[i];
        fit = fit && (have[i] == 1 || parts_fit(s, s->trees.at[classes->at[i]].extent, have[i]));
    }
    if (all == parts && fit)
        return true;
    if (a == s->mesh->count || all >= parts)
        return false;
    if (parts_possible(s, classes, over, have, a + 1, parts))
        return true;
    for (uint32_t i = 0; i < classes->count && i < 4 && (over >> a & 1); i++) {
        have[i] *= s->mesh->size[a];
        bool possible = parts_possible(s, classes, over, have, a + 1, parts);
        have[i] /= s->mesh->size[a];
        if (possible)
            return true;
    }
    return false;
}

void unit_axes(const struct solver *s, const struct unit *u, struct unit_axes *out)
{
    const struct node *n = graph_node(s->g, u->node), *x = graph_node(s->g, u->source);
    if (u->kind == UNIT_EMBEDDING) {
        uint32_t axis = (uint32_t)n->attribute.axis;
        *out = (struct unit_axes){.outer = axis, .out = axis + x->rank, .out_end = n->rank};
        return;
    }
    uint32_t nb = (uint32_t)n->attribute.nbatch, nk = (uint32_t)n->attribute.ncontract;
    uint32_t rows = x->rank - nb - nk, first = u->slot == 0 ? nb + rows : nb;
    *out = (struct unit_axes){
        .batch = nb, .in = x->rank - nk, .in_end = x->rank, .out = first, .out_end = first + n->rank - nb - rows};
}

/* `want` as it is enforced. PARTS_CUT is at least two parts, the more the better by cost; in an exact plan all ranks of the axis; on one rank nothing. */
static struct layer_parts resolve(const struct solver *s, const struct pin *pin)
{
    struct layer_parts want = pin->parts;
    for (int i = 0; i < AXES; i++) {
        uint32_t all = mesh_parts(s->mesh, i == 0 ? pins_experts(s) : pins_features(s));
        if (*part_at(&want, i) == PARTS_CUT && (pin->exact || all == 1))
            *part_at(&want, i) = all;
    }
    return want;
}

/* ---- what is asked ---- */

static bool part_allowed(uint32_t want, uint32_t have)
{
    return want == PARTS_ANY || want == have || (want == PARTS_CUT && have > 1);
}

bool pins_allow_unit(const struct solver *s, uint32_t unit, struct layer_parts have)
{
    const struct unit_pin *p = s->unit_pin ? s->unit_pin[unit] : NULL;
    if (!p)
        return true;
    struct layer_parts want = p->want;
    for (int i = 0; i < AXES; i++)
        if (!part_allowed(*part_at(&want, i), *part_at(&have, i)))
            return false;
    return (!p->follow_in || have.arrives == have.in) && (!p->follow_out || have.leaves == have.out);
}

bool pins_cut_in(const struct solver *s, uint32_t unit)
{
    return s->unit_pin && s->unit_pin[unit] && s->unit_pin[unit]->own_in;
}

bool pins_cut_out(const struct solver *s, uint32_t unit)
{
    return s->unit_pin && s->unit_pin[unit] && s->unit_pin[unit]->own_out;
}

bool pins_allow_region(struct solver *s, uint32_t region)
{
    const struct region *r = &s->regions.at[region];
    bool shards = decision_sequence(r, r->decision) != 0, asked = false;
    for (const struct region_pin *p = s->region_pin ? s->region_pin[region] : NULL; p; p = p->next)
        asked = asked || p->pin->kind == PIN_SEQUENCE;
    if ((asked && !shards) || (shards && !asked && s->options->sequence_where_pinned))
        return false;
    for (const struct region_pin *p = s->region_pin ? s->region_pin[region] : NULL; p; p = p->next) {
        const struct pin *pin = p->pin;
        if (pin->kind == PIN_SEQUENCE)
            continue;
        struct arena_mark mark = arena_mark(s->temporary);
        const struct placement *at = pin->kind == PIN_OPERAND ? slot_placement(s, pin->node, pin->operand, s->temporary)
                                                              : value_placement(s, pin->node, s->temporary);
        bool allowed = true;
        uint32_t over = pin->all_axes ? (1u << s->mesh->count) - 1 : pins_features(s);
        for (uint32_t i = 0; i < pin->rank && i < at->rank; i++)
            allowed = allowed &&
                      part_allowed(p->pin->axis[i], mesh_parts(s->mesh, axis_subaxes(s->scratch, &at->axis[i]) & over));
        arena_rewind(s->temporary, mark);
        if (!allowed)
            return false;
    }
    return true;
}

void pins_describe(struct bytes *b, const struct solver *s, const struct component *c)
{
    bytes_put(b, s->even);
    for (uint32_t i = 0; s->unit_pin && i < c->unit_count; i++) {
        const struct unit_pin *p = s->unit_pin[c->unit[i]];
        if (!p)
            continue;
        struct layer_parts want = p->want;
        bytes_put(b, (uint64_t)i << 2 | (uint64_t)p->follow_in << 1 | p->follow_out);
        for (int k = 0; k < AXES; k++)
            bytes_put(b, *part_at(&want, k));
    }
    for (uint32_t i = 0; s->region_pin && i < c->region_count; i++)
        for (const struct region_pin *p = s->region_pin[c->region[i]]; p; p = p->next) {
            const struct region *r = &s->regions.at[c->region[i]];
            bytes_put(b, (uint64_t)1 << 40 | i);
            bytes_put(b, (uint64_t)position(r->values, r->value_count, p->pin->node) << 32 | p->pin->kind);
            bytes_put(b, (uint64_t)p->pin->operand << 32 | p->pin->rank << 1 | p->pin->all_axes);
            for (uint32_t k = 0; k < p->pin->rank; k++)
                bytes_put(b, p->pin->axis[k]);
        }
    bytes_put(b, UINT64_MAX);
}

/* ---- setting them up ---- */

static const char *parts_text(struct arena *arena, uint32_t parts)
{
    return parts == PARTS_WHOLE ? "whole" : parts == PARTS_CUT ? "cut" : arena_printf(arena, "cut in %u", parts);
}

static status clash(struct solver *s, const struct pin *a, const struct pin *b, const char *what, uint32_t wants,
                    uint32_t other)
{
    return diag_error(s->diag, b->code, graph_where(s->g, b->node, s->arena),
                      "%s and %s contradict: for %s the first says %s and the second %s; drop one of them", a->text,
                      b->text, what, parts_text(s->arena, wants), parts_text(s->arena, other));
}

static bool any_class(struct solver *s, const tree *axes, uint32_t first, uint32_t end)
{
    leaf_list classes = {0};
    struct arena_mark mark = arena_mark(s->temporary);
    classes_on(s, axes, first, end, &classes);
    arena_rewind(s->temporary, mark);
    return classes.count != 0;
}

/* Whether the unit cuts on its own: where it is told to, or is told to be cut and its regions have nothing to follow there. */
static void allow_own_cuts(struct solver *s, const struct unit *u, struct unit_pin *p)
{
    struct unit_axes a;
    unit_axes(s, u, &a);
    bool follow_in = p->follow_in || p->want.arrives > PARTS_WHOLE,
         follow_out = p->follow_out || p->want.leaves > PARTS_WHOLE;
    bool in_class = u->kind == UNIT_LINEAR && u->from && any_class(s, s->axes[u->source], a.in, a.in_end);
    bool out_class = any_class(s, s->axes[u->node], a.out, a.out_end);
    p->own_in = p->want.in > PARTS_WHOLE && !follow_in && (p->want.arrives == PARTS_WHOLE || !in_class);
    p->own_out = p->want.out > PARTS_WHOLE && !follow_out && (p->want.leaves == PARTS_WHOLE || !out_class);
}

/* One more pin of a switch point. */
static status meet(struct solver *s, struct unit_pin *p, const struct pin *pin, const struct unit *u)
{
    struct layer_parts want = resolve(s, pin);
    for (int i = 0; i < AXES; i++) {
        uint32_t *have = part_at(&p->want, i), more = *part_at(&want, i);
        bool narrower = *have == PARTS_ANY || (*have == PARTS_CUT && more > PARTS_WHOLE);
        if (more == PARTS_ANY || *have == more || (more == PARTS_CUT && *have > PARTS_WHOLE))
            continue;
        if (!narrower)
            return clash(s, p->from[i], pin, axis_name[i], *have, more);
        *have = more;
        p->from[i] = pin;
    }
    p->follow_in = p->follow_in || (pin->exact && !pin->parts.arrives);
    p->follow_out = p->follow_out || (pin->exact && !pin->parts.leaves);
    allow_own_cuts(s, u, p);
    return TPC_OK;
}

/* Units are in node order. */
uint32_t unit_of(const struct solver *s, value v)
{
    uint32_t lo = 0, hi = s->units.count;
    while (lo < hi) {
        uint32_t middle = lo + (hi - lo) / 2;
        if (s->units.at[middle].node < v)
            lo = middle + 1;
        else
            hi = middle;
    }
    return lo < s->units.count && s->units.at[lo].node == v && s->units.at[lo].kind != UNIT_EDGE ? lo : UINT32_MAX;
}

static status add_unit_pin(struct solver *s, const struct pin *pin)
{
    uint32_t unit = unit_of(s, pin->node);
    if (unit == UINT32_MAX)
        return diag_error(s->diag, pin->code, graph_where(s->g, pin->node, s->arena), "%s: is no switch point",
                          pin->text);
    if (!s->unit_pin[unit])
        s->unit_pin[unit] = NEW(s->arena, struct unit_pin);
    return meet(s, s->unit_pin[unit], pin, &s->units.at[unit]);
}

static bool disagree(uint32_t a, uint32_t b)
{
    return a && b && a != b && !(a == PARTS_CUT && b > PARTS_WHOLE) && !(b == PARTS_CUT && a > PARTS_WHOLE);
}

static bool has_sequence(const struct solver *s, uint32_t region)
{
    const struct region *r = &s->regions.at[region];
    for (uint32_t i = 0; region && i < r->row_count; i++)
        if (s->trees.at[r->rows[i]].row == ROW_SEQUENCE)
            return true;
    return false;
}

static status add_region_pin(struct solver *s, const struct pin *pin)
{
    uint32_t region = s->region_of[pin->node];
    if (pin->kind == PIN_SEQUENCE && !has_sequence(s, region))
        return diag_error(s->diag, pin->code, graph_where(s->g, pin->node, s->arena),
                          "%s: no sequence goes through here that could be cut", pin->text);
    if (!region)
        return TPC_OK; /* prelude is cut only where all users want it so: their pins say it */
    struct region_pin *p = NEW(s->arena, struct region_pin), **last = &s->region_pin[region];
    const uint32_t *axis = pin->axis;
    *p = (struct region_pin){.pin = pin};
    while (*last) {
        const struct region_pin *q = *last;
        for (uint32_t i = 0;
             q->pin->node == pin->node && q->pin->kind == pin->kind && q->pin->operand == pin->operand && i < pin->rank;
             i++)
            if (disagree(q->pin->axis[i], axis[i]))
                return clash(s, q->pin, pin, arena_printf(s->arena, "axis %u", i), q->pin->axis[i], axis[i]);
        last = &(*last)->next;
    }
    *last = p;
    return TPC_OK;
}

status pins_apply(struct solver *s, const bool *off)
{
    s->unit_pin = s->options->pin_count ? NEW_ARRAY(s->arena, struct unit_pin *, s->units.count + 1) : NULL;
    s->region_pin = s->options->pin_count ? NEW_ARRAY(s->arena, struct region_pin *, s->regions.count) : NULL;
    for (uint32_t i = 0; i < s->options->pin_count; i++) {
        const struct pin *pin = &s->options->pin[i];
        status result = off && off[i] ? TPC_OK : pin->kind == PIN_UNIT ? add_unit_pin(s, pin) : add_region_pin(s, pin);
        if (result != TPC_OK)
            return result;
    }
    return TPC_OK;
}

/* ---- checking them ---- */

/* The pieces of the axis that a pin cuts, as text, when there are several with something to cut; NULL else. */
static const char *pieces_text(struct solver *s, const tree *axes, uint32_t first, uint32_t end)
{
    for (uint32_t i = first; i < end; i++) {
        const struct tree_node *n = &s->trees.at[tree_find(s, axes[i])];
        if (n->kind == TREE_PROD)
            n = &s->trees.at[tree_find(s, n->child[0])];
        leaf_list classes = {0};
        classes_on(s, axes, i, i + 1, &classes);
        if (n->kind != TREE_SUM || n->count < 2 || !classes.count)
            continue;
        struct text t = {.arena = s->arena};
        for (uint32_t k = 0; k < n->count; k++) {
            text_put(&t, k ? " | " : "");
            dim_print(s->g->dims, s->trees.at[tree_find(s, n->child[k])].extent, &t);
        }
        return t.at;
    }
    return NULL;
}

const char *unit_pieces(struct solver *s, const struct unit *u, bool in)
{
    struct unit_axes a;
    unit_axes(s, u, &a);
    if (u->kind == UNIT_EMBEDDING || (in && !u->from))
        return NULL;
    return in ? pieces_text(s, s->axes[u->source], a.in, a.in_end) : pieces_text(s, s->axes[u->node], a.out, a.out_end);
}

static status check_packed(struct solver *s, const struct pin *pin, const struct unit *u)
{
    bool in = pin->parts.in > 1;
    const char *pieces = pin->packed == PACKED_ANY ? NULL : unit_pieces(s, u, in);
    if (pin->packed == PACKED_ANY || u->kind == UNIT_EMBEDDING)
        return TPC_OK;
    const char *where = graph_where(s->g, u->node, s->arena), *what = in ? "input" : "output";
    if (pin->packed == PACKED_NO && pieces)
        return diag_error(s->diag, pin->code, where,
                          "%s: the weight's %s features are packed (%s), and a plain cut would mix them up; use %s",
                          pin->text, what, pieces, pin->instead);
    if (pin->packed == PACKED_YES && !pieces)
        return diag_error(s->diag, pin->code, where, "%s: the weight's %s features are one piece, not packed; use %s",
                          pin->text, what, pin->instead);
    return TPC_OK;
}

/* "6, 64": what could be cut on the axes; NULL when nothing. */
static const char *extents_text(struct solver *s, const leaf_list *classes)
{
    struct text t = {.arena = s->arena};
    for (uint32_t i = 0; i < classes->count; i++) {
        text_put(&t, i ? ", " : "");
        dim_print(s->g->dims, s->trees.at[classes->at[i]].extent, &t);
    }
    return t.at;
}

/* A side of a unit that must be cut as its region has it. */
struct side {
    const tree *axes;
    uint32_t first, end, over; /* over: the sub-axes in question */
    uint32_t parts;
    const char *what;
};

/* Whether the classes of a side have `parts` parts together for some way to give sub-axes out. */
static bool side_allows(struct solver *s, const struct side *x, uint32_t parts)
{
    leaf_list classes = {0};
    classes_on(s, x->axes, x->first, x->end, &classes);
    uint32_t *have = NEW_ARRAY(s->temporary, uint32_t, classes.count + 1);
    for (uint32_t i = 0; i < classes.count; i++)
        have[i] = 1;
    return parts_possible(s, &classes, x->over, have, 0, parts);
}

/* 0: fits. Else the number of parts that is not possible. PARTS_CUT: all ranks if uneven cuts allow that, else any number. */
static uint32_t side_lacks(struct solver *s, const struct side *x)
{
    uint32_t all = mesh_parts(s->mesh, x->over);
    bool even = s->even;
    if (x->parts != PARTS_CUT)
        return side_allows(s, x, x->parts) ? 0 : x->parts;
    s->even = false;
    bool all_uneven = side_allows(s, x, all);
    s->even = even;
    if (all_uneven)
        return side_allows(s, x, all) ? 0 : all;
    for (uint32_t parts = 2; parts < all; parts++)
        if (side_allows(s, x, parts))
            return 0;
    return all;
}

/* The sides that a pin wants cut where its regions are. */
static uint32_t pin_sides(const struct solver *s, const struct pin *pin, struct side *out)
{
    uint32_t unit = pin->kind == PIN_UNIT ? unit_of(s, pin->node) : UINT32_MAX, count = 0;
    if (unit == UINT32_MAX)
        return 0;
    const struct unit_pin *p = s->unit_pin ? s->unit_pin[unit] : NULL; /* where it does not cut on its own it follows */
    const struct unit *u = &s->units.at[unit];
    struct layer_parts want = resolve(s, pin);
    const tree *to = s->axes[u->node], *from = u->from ? s->axes[u->source] : NULL;
    struct unit_axes a;
    unit_axes(s, u, &a);
    if (want.leaves > PARTS_WHOLE)
        out[count++] = (struct side){to, a.out, a.out_end, pins_features(s), want.leaves, "its output"};
    else if (want.out > PARTS_WHOLE && p && !p->own_out)
        out[count++] = (struct side){to, a.out, a.out_end, pins_features(s), want.out, "its output features"};
    if (want.arrives > PARTS_WHOLE && u->kind == UNIT_LINEAR && from)
        out[count++] = (struct side){from, a.in, a.in_end, pins_features(s), want.arrives, "its input"};
    else if (want.in > PARTS_WHOLE && u->kind == UNIT_LINEAR && from && p && !p->own_in)
        out[count++] = (struct side){from, a.in, a.in_end, pins_features(s), want.in, "its input features"};
    if (want.batch > PARTS_WHOLE)
        out[count++] = (struct side){to, 0, a.batch, pins_experts(s), want.batch, "its experts"};
    return count;
}

/* A table's rows are no factor of a region; they can be cut over any sub-axes for weights. */
static bool rows_fit(const struct solver *s, const struct pin *pin)
{
    uint32_t unit = pin->kind == PIN_UNIT ? unit_of(s, pin->node) : UINT32_MAX, want = resolve(s, pin).in;
    if (unit == UINT32_MAX || s->units.at[unit].kind != UNIT_EMBEDDING || want <= PARTS_WHOLE)
        return true;
    const struct node *n = graph_node(s->g, pin->node);
    dim rows = graph_node(s->g, n->operand[0])->shape[n->attribute.axis];
    bool fits = want != PARTS_CUT && parts_fit(s, rows, want);
    for (uint32_t i = 0; i < s->mesh->count && want == PARTS_CUT; i++)
        fits = fits || (pins_features(s) >> i & 1 && parts_fit(s, rows, s->mesh->size[i]));
    return fits;
}

/* A number of parts that no sub-axes of the mesh give; 0: there is none. */
static uint32_t parts_lacking(const struct solver *s, const struct pin *pin)
{
    struct layer_parts want = resolve(s, pin);
    for (int i = 0; i < AXES; i++) {
        uint32_t parts = *part_at(&want, i), over = i == 0 ? pins_experts(s) : pins_features(s), some = over;
        bool found = parts <= PARTS_WHOLE || parts == PARTS_CUT;
        for (; some && !found; some = (some - 1) & over)
            found = mesh_parts(s->mesh, some) == parts;
        if (!found)
            return parts;
    }
    return 0;
}

bool pin_extents_fit(struct solver *s, const struct pin *pin)
{
    struct side side[3];
    uint32_t count = pin_sides(s, pin, side);
    if (!rows_fit(s, pin) || (pin->kind == PIN_UNIT && parts_lacking(s, pin)))
        return false;
    for (uint32_t i = 0; i < count; i++)
        if (side_lacks(s, &side[i]))
            return false;
    return true;
}

static status check_side(struct solver *s, const struct pin *pin, const struct side *x)
{
    leaf_list classes = {0};
    const char *where = graph_where(s->g, pin->node, s->arena);
    classes_on(s, x->axes, x->first, x->end, &classes);
    if (!classes.count) {
        struct text t = {.arena = s->arena};
        if (!obstacle(s, x->axes, x->first, x->end, &t))
            text_put(&t, "nothing there has more than one element");
        return diag_error(s->diag, pin->code, where, "%s: %s cannot be cut: %s", pin->text, x->what, t.at);
    }
    uint32_t lacks = side_lacks(s, x);
    if (!lacks)
        return TPC_OK;
    return diag_error(s->diag, pin->code, where, "%s: %s cannot be cut in %u%s: its factors are %s; %s", pin->text,
                      x->what, lacks, s->even ? " equal parts" : "", extents_text(s, &classes),
                      s->even ? "leave --even out, or choose a --tp that divides one" : "take fewer ranks or parts");
}

static status check_unit(struct solver *s, const struct pin *pin)
{
    struct side side[3];
    const struct unit *u = &s->units.at[unit_of(s, pin->node)];
    uint32_t lacking = parts_lacking(s, pin);
    if (lacking)
        return diag_error(
            s->diag, pin->code, graph_where(s->g, u->node, s->arena),
            "%s: weights are split over %u ranks here, which cannot be %u parts; choose a --tp that %u divides",
            pin->text, (unsigned)mesh_parts(s->mesh, pins_features(s)), (unsigned)lacking, (unsigned)lacking);
    if (!rows_fit(s, pin))
        return diag_error(s->diag, pin->code, graph_where(s->g, u->node, s->arena),
                          "%s: the table's rows cannot be cut in %sparts over %u ranks%s", pin->text,
                          s->even ? "equal " : "so many ", (unsigned)mesh_parts(s->mesh, pins_features(s)),
                          s->even ? "; leave --even out, or choose a --tp that divides them" : "");
    status result = check_packed(s, pin, u);
    if (result == TPC_OK && pin->parts.arrives > PARTS_WHOLE && u->kind == UNIT_LINEAR && !u->from)
        result = diag_error(s->diag, pin->code, graph_where(s->g, u->node, s->arena),
                            "%s: its input is given whole to every rank; use a style that splits it here", pin->text);
    uint32_t count = pin_sides(s, pin, side);
    for (uint32_t i = 0; i < count && result == TPC_OK; i++)
        result = check_side(s, pin, &side[i]);
    return result;
}

status pins_start(struct solver *s)
{
    status result = pins_apply(s, NULL);
    for (uint32_t i = 0; i < s->options->pin_count && result == TPC_OK && s->mesh->count; i++) {
        struct arena_mark mark = arena_mark(s->temporary);
        if (s->options->pin[i].kind == PIN_UNIT)
            result = check_unit(s, &s->options->pin[i]);
        arena_rewind(s->temporary, mark);
    }
    return result;
}
