/* solver/explain.c - the layers of a plan and why each is as it is, in words. Start with explain. */
#include "solver/internal.h"

typedef LIST(struct layer) layer_list;

/* The largest param behind a prelude value, following what the value is made of. */
value weight_behind(struct solver *s, value v)
{
    LIST(value) open = {0};
    value best = 0;
    double most = -1;
    *PUSH(s->temporary, &open) = v;
    s->joint_stamp++;
    while (open.count) {
        value u = open.at[--open.count];
        const struct node *n = graph_node(s->g, u);
        if (s->joint_seen[u] == s->joint_stamp)
            continue;
        s->joint_seen[u] = s->joint_stamp;
        if (n->op == OP_PARAM) {
            double size = (double)s->g->params.at[n->attribute.index].length;
            if (size > most)
                most = size, best = u;
        }
        for (uint32_t i = 0; i < n->operand_count; i++)
            if (s->depends[n->operand[i]] & DEPENDS_PARAM)
                *PUSH(s->temporary, &open) = n->operand[i];
    }
    return best;
}

static int32_t cut_axis(const struct placement *p)
{
    for (uint32_t i = 0; i < p->rank; i++)
        if (!axis_is_whole(&p->axis[i]))
            return (int32_t)i;
    return -1;
}

/* The first placement in which a use takes v. */
static const struct placement *first_use(const struct solver *s, const struct solution *out, value v, value *user)
{
    for (uint32_t i = s->uses.first[v]; i < s->uses.first[v + 1]; i++) {
        value w = s->uses.use[i];
        for (uint32_t k = 0; s->live[w] && k < graph_node(s->g, w)->operand_count; k++)
            if (graph_node(s->g, w)->operand[k] == v) {
                *user = w;
                return out->operand[w][k];
            }
    }
    return out->result[v];
}

/* " (largest 2, smallest 1)" of parts that differ: it is the largest that is waited for. */
static void put_sizes(const struct partition *p, struct text *t)
{
    int64_t most = 0, least = INT64_MAX;
    for (uint32_t i = 0; p->offset && i < p->parts; i++) {
        int64_t size = p->offset[i + 1] - p->offset[i];
        most = size > most ? size : most;
        least = size < least ? size : least;
    }
    if (p->offset && most != least)
        text_printf(t, " (largest %lld, smallest %lld)", (long long)most, (long long)least);
}

/* "4 groups over tp, 2 each" for each factor that is cut in an axis. */
static void put_cuts(const struct graph *g, const struct placement *p, struct text *t)
{
    uint32_t last = 0;
    for (uint32_t i = 0; i < p->rank; i++)
        for (uint32_t k = 0; k < p->axis[i].count; k++)
            for (uint32_t f = 0; f < p->axis[i].segment[k].count; f++) {
                const struct factor *x = &p->axis[i].segment[k].factor[f];
                if (!x->partition || x->partition == last)
                    continue;
                text_put(t, last ? " and " : "");
                dim_print(g->dims, x->extent, t);
                text_printf(t, " over %u", g->partitions.at[x->partition].parts);
                put_sizes(&g->partitions.at[x->partition], t);
                last = x->partition;
            }
}

/* Whether a cut class on these axes is one of experts. */
static bool cuts_experts(struct solver *s, const tree *axes, uint32_t rank)
{
    for (uint32_t i = 0; i < rank; i++) {
        tree_list leaves = {0};
        tree_leaves(s, axes[i], s->temporary, &leaves);
        for (uint32_t k = 0; k < leaves.count; k++)
            if (s->trees.at[leaves.at[k]].stacked && s->trees.at[leaves.at[k]].mask)
                return true;
    }
    return false;
}

/* Where a weight is cut over fewer sub-axes than there are for weights: its class has too few elements, or the others pay elsewhere. */
static void put_repeats(const struct solver *s, const struct placement *w, struct text *t)
{
    uint32_t left = s->over[AXIS_TENSOR] & ~placement_subaxes(s->g, w);
    if (left)
        text_printf(t, "; %u ranks hold each part", mesh_parts(s->mesh, left));
}

static void describe_unit(struct solver *s, const struct unit *u, const struct solution *out, struct layer *l,
                          struct text *t)
{
    const struct node *n = graph_node(s->g, u->node);
    const struct unit_option *o = &s->chosen[u - s->units.at];
    const struct placement *w = out->operand[u->node][1 - u->slot], *r = out->result[u->node];
    bool out_cut = !placement_is_whole(r) && placement_subaxes(s->g, r) != 0;
    if (r->partial) {
        l->style = u->kind == UNIT_EMBEDDING ? STYLE_VOCABULARY : STYLE_ROW;
        text_put(t, u->kind == UNIT_EMBEDDING ? "the vocabulary is cut: "
                    : o->in == TAKE_OWN       ? "its input is cut here: "
                                              : "its input arrives cut: ");
        put_cuts(s->g, w, t);
        bool experts = u->from && cuts_experts(s, s->axes[u->source], graph_node(s->g, u->source)->rank);
        text_put(t, experts ? "; the partial sums, the experts' among them, are added up behind it"
                            : "; the partial sums are added up behind it");
        put_repeats(s, w, t);
    } else if (out_cut && placement_subaxes(s->g, w)) {
        l->style = u->kind == UNIT_EMBEDDING ? STYLE_FEATURE : STYLE_COLUMN;
        text_put(t, o->out == TAKE_OWN ? "its output is cut, and gathered behind it: "
                                       : "its output stays cut up to the next switch point: ");
        put_cuts(s->g, w, t);
        text_put(t, cuts_experts(s, s->axes[u->node], n->rank) ? "; each rank has experts of its own" : "");
        put_repeats(s, w, t);
    } else {
        l->style = STYLE_REPLICATED;
    }
}

/* What is in the way of cutting a layer that is whole. Its alternatives are known. A plan that is pinned to be as it is says the same. */
static void describe_whole(struct solver *s, const struct unit *u, const struct layer *l, struct text *t)
{
    bool possible = false;
    for (uint32_t i = 0; i < l->alternative_count; i++)
        possible = possible || (l->alternative[i].possible && l->alternative[i].style != STYLE_REPLICATED);
    text_put(t, "left whole: ");
    if (!s->mesh->count)
        text_put(t, "there is one rank");
    else if (!(s->over[AXIS_TENSOR] | s->over[AXIS_EXPERT]))
        text_put(t, "no axis of the mesh divides weights");
    else if (possible || !obstacle(s, s->axes[u->node], 0, graph_node(s->g, u->node)->rank, t))
        text_put(t, "it could be cut, but the best of the plans allowed does not");
}

/* What a plan file says of the layer: frontend/steer_plan.c. */
static void add_parts(struct solver *s, const struct unit *u, struct layer *l)
{
    struct unit_result r;
    struct arena_mark mark = arena_mark(s->temporary);
    uint32_t unit = (uint32_t)(u - s->units.at);
    if (unit_evaluate(s, unit, &s->chosen[unit], &r, s->scratch, s->temporary))
        l->parts = r.parts;
    l->packed_in = unit_pieces(s, u, true) != NULL;
    l->packed_out = unit_pieces(s, u, false) != NULL;
    arena_rewind(s->temporary, mark);
}

static void add_layer(struct solver *s, struct arena *arena, const struct solution *out, const struct unit *u,
                      struct kinds *kinds, layer_list *layers)
{
    struct layer *l = PUSH(arena, layers);
    struct text t = {.arena = arena};
    value user = 0, param = weight_behind(s, graph_node(s->g, u->node)->operand[1 - u->slot]);
    l->node = u->node;
    l->param = UINT32_MAX;
    l->axis = -1;
    if (param) {
        l->param = graph_node(s->g, param)->attribute.index;
        const struct placement *p = out->operand[u->node][1 - u->slot];
        if (graph_node(s->g, u->node)->operand[1 - u->slot] != param)
            p = first_use(s, out, param, &user);
        l->axis = cut_axis(p);
    }
    l->placement = out->operand[u->node][1 - u->slot];
    describe_unit(s, u, out, l, &t);
    l->kind = layer_kind(s, kinds, u, l);
    l->from = u->from;
    l->to = u->to;
    add_alternatives(s, arena, u, l);
    if (l->style == STYLE_REPLICATED)
        describe_whole(s, u, l, &t);
    l->reason = t.at;
    add_parts(s, u, l);
}

static void add_loss(struct solver *s, struct arena *arena, const struct solution *out, value v, layer_list *layers)
{
    struct layer *l = PUSH(arena, layers);
    struct text t = {.arena = arena};
    *l = (struct layer){.node = v, .param = UINT32_MAX, .axis = -1};
    if (placement_is_whole(out->operand[v][0])) {
        text_put(&t, "the logits are whole");
    } else {
        l->style = STYLE_CROSS_ENTROPY;
        text_put(&t, "the logits stay cut: ");
        put_cuts(s->g, out->operand[v][0], &t);
    }
    l->reason = t.at;
}

void explain(struct solver *s, struct arena *arena, struct solution *out)
{
    layer_list layers = {0};
    struct kinds kinds;
    uint32_t unit = 0;
    kinds_start(s, &kinds);
    for (value v = 1; v < s->node_count; v++) {
        while (unit < s->units.count && s->units.at[unit].node < v)
            unit++;
        if (unit < s->units.count && s->units.at[unit].node == v && s->units.at[unit].kind != UNIT_EDGE)
            add_layer(s, arena, out, &s->units.at[unit], &kinds, &layers);
        else if (s->live[v] && graph_node(s->g, v)->op == OP_CROSS_ENTROPY)
            add_loss(s, arena, out, v, &layers);
    }
    out->layers = layers.at;
    out->layer_count = layers.count;
    out->region_count = s->regions.count - 1;
    uint32_t *kind = NEW_ARRAY(arena, uint32_t, s->regions.count);
    for (uint32_t r = 1; r < s->regions.count; r++)
        kind[r] = s->regions.at[r].signature;
    out->region_kind = kind;
}
