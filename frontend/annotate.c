/* frontend/annotate.c - a model's device annotations as pins: docs/steering.md, Annotations.
 *
 * A spec becomes numbers of parts: on the axes of the value that it is for (an output), or on what a switch point takes (an input, a weight: followed through
 * transposes to the product's axes). Axes and extents are compared with the value's here. Start with annotation_pins.
 */
#include "frontend/annotate.h"

struct pinner {
    struct arena *arena;
    struct graph *g;
    struct diag *diag;
    const struct annotations *from;
    struct map made;    /* a named value -> its node */
    struct map specs;   /* an output's name -> 1 + index of its annotation */
    struct map outputs; /* an ONNX node's number -> the same of its first output */
    uint32_t count;
    const struct switch_point *point;
    LIST(struct pin) pins;
    uint32_t group;
};

static const char *name_of(const struct graph *g, value v)
{
    const struct node *n = graph_node(g, v);
    return n->op == OP_PARAM ? g->params.at[n->attribute.index].name : n->name;
}

static status bad_axis(struct pinner *p, const struct annotation *a, const char *what, int64_t axis, int64_t x)
{
    return diag_error(p->diag, TPC_DATA, a->where, "the annotation of '%s' %s: axis %lld, %lld", a->tensor, what,
                      (long long)axis, (long long)x);
}

/* Parts per axis of a value that the annotation is for, checked. */
static status parts_per_axis(struct pinner *p, const struct annotation *a, value v, uint32_t *parts)
{
    const struct node *n = graph_node(p->g, v);
    for (uint32_t i = 0; i < n->rank; i++)
        parts[i] = PARTS_ANY;
    for (uint32_t i = 0; i < a->axis_count; i++) {
        const struct annotated_axis *x = &a->axis[i];
        int64_t axis = x->axis < 0 ? x->axis + n->rank : x->axis, extent = 0;
        if (axis < 0 || axis >= n->rank)
            return bad_axis(p, a, "names an axis that the tensor lacks (axis, rank)", x->axis, n->rank);
        if (parts[axis])
            return bad_axis(p, a, "names an axis twice (axis, rank)", x->axis, n->rank);
        if (x->sized && dim_is_const(p->g->dims, n->shape[axis], &extent) && extent != x->extent)
            return diag_error(p->diag, TPC_DATA, a->where,
                              "the annotation of '%s' has dims of %lld in all on axis %lld, which has %lld", a->tensor,
                              (long long)x->extent, (long long)x->axis, (long long)extent);
        bool known = !x->symbol;
        for (uint32_t k = 0; k < dims_symbol_count(p->g->dims); k++)
            known = known || (dims_symbol(p->g->dims, k)->name && !strcmp(dims_symbol(p->g->dims, k)->name, x->symbol));
        if (!known)
            return diag_error(p->diag, TPC_DATA, a->where, "the annotation of '%s' has a dim '%s', which no input has",
                              a->tensor, x->symbol);
        parts[axis] = x->parts;
    }
    for (uint32_t i = 0; i < n->rank; i++)
        parts[i] = parts[i] ? parts[i] : PARTS_WHOLE;
    return TPC_OK;
}

static struct pin *new_pin(struct pinner *p, const struct annotation *a, enum pin_kind kind, value v)
{
    struct pin *pin = PUSH(p->arena, &p->pins);
    *pin = (struct pin){.kind = kind,
                        .node = v,
                        .all_axes = true,
                        .text = arena_printf(p->arena, "the annotation of '%s'", a->tensor),
                        .group = p->group,
                        .code = TPC_DATA};
    return pin;
}

static void pin_output(struct pinner *p, const struct annotation *a, value v, const uint32_t *parts)
{
    struct pin *pin = new_pin(p, a, PIN_RESULT, v);
    pin->rank = graph_node(p->g, v)->rank;
    pin->axis = (const uint32_t *)arena_copy(p->arena, parts, pin->rank * sizeof *parts);
}

static uint32_t product(const uint32_t *parts, uint32_t first, uint32_t end)
{
    uint32_t x = 1;
    for (uint32_t i = first; i < end; i++)
        x *= parts[i];
    return x;
}

/* The axes of a switch point's operand in terms of a param's: of[i] is the param's axis. false: more than transposes and casts lie between. */
static bool follow_to_param(const struct graph *g, value v, const char *name, uint32_t *of, value *param)
{
    for (uint32_t i = 0; i < graph_node(g, v)->rank; i++)
        of[i] = i;
    for (;;) {
        const struct node *n = graph_node(g, v);
        const char *here = name_of(g, v);
        if (here && strcmp(here, name) == 0) {
            *param = v;
            return true;
        }
        if (n->op != OP_TRANSPOSE && n->op != OP_CAST)
            return false;
        for (uint32_t i = 0; n->op == OP_TRANSPOSE && i < n->rank; i++)
            of[i] = (uint32_t)n->attribute.list[of[i]];
        v = n->operand[0];
    }
}

/* Parts on axes [first, end) of a value as its maker's annotation has them; PARTS_ANY when there is none. */
static uint32_t known_parts(struct pinner *p, const char *name, uint32_t rank, uint32_t first, uint32_t end)
{
    const uint32_t *slot = name ? map_find(&p->specs, name, strlen(name)) : NULL,
                   *made = name ? map_find(&p->made, name, strlen(name)) : NULL;
    uint32_t parts[MAX_RANK];
    if (!slot || !made || graph_node(p->g, *made)->rank != rank ||
        parts_per_axis(p, &p->from->at[*slot - 1], *made, parts) != TPC_OK)
        return PARTS_ANY;
    return product(parts, first, end);
}

/* The same for what the annotated node makes: a product's sum with its bias, mostly. */
static uint32_t known_output(struct pinner *p, int64_t node, uint32_t rank, uint32_t first, uint32_t end)
{
    const uint32_t *slot = map_find(&p->outputs, &node, sizeof node);
    return slot ? known_parts(p, p->from->at[*slot - 1].tensor, rank, first, end) : PARTS_ANY;
}

/* What an annotation of an input says of a switch point. */
static status pin_point(struct pinner *p, const struct annotation *a, const struct switch_point *s)
{
    const struct node *n = graph_node(p->g, s->node), *x = graph_node(p->g, s->source),
                      *w = graph_node(p->g, s->weight);
    uint32_t nb = (uint32_t)n->attribute.nbatch, nk = (uint32_t)n->attribute.ncontract, parts[MAX_RANK], of[MAX_RANK];
    const char *source = name_of(p->g, s->source);
    value param = 0;
    if (!s->embedding && source && strcmp(source, a->tensor) == 0) {
        status result = parts_per_axis(p, a, s->source, parts);
        if (result == TPC_OK) {
            struct pin *pin = new_pin(p, a, PIN_UNIT, s->node);
            pin->parts.in = product(parts, x->rank - nk, x->rank);
            pin->parts.arrives = known_parts(p, source, x->rank, x->rank - nk, x->rank);
        }
        return result;
    }
    if (!follow_to_param(p->g, s->weight, a->tensor, of, &param))
        return TPC_OK;
    status result = parts_per_axis(p, a, param, parts);
    if (result != TPC_OK)
        return result;
    uint32_t own[MAX_RANK], rows = x->rank - nb - nk;
    for (uint32_t i = 0; i < w->rank; i++)
        own[i] = parts[of[i]];
    struct pin *pin = new_pin(p, a, PIN_UNIT, s->node);
    if (s->embedding) {
        uint32_t axis = (uint32_t)n->attribute.axis;
        pin->parts.in = own[axis];
        pin->parts.out = product(own, 0, axis) * product(own, axis + 1, w->rank);
        pin->parts.leaves = known_output(p, a->node, n->rank, axis + x->rank, n->rank);
        return TPC_OK;
    }
    uint32_t first = graph_node(p->g, s->node)->operand[0] == s->source ? nb + rows : nb;
    pin->parts.batch = product(own, 0, nb);
    pin->parts.out = product(own, nb, w->rank - nk);
    pin->parts.in = product(own, w->rank - nk, w->rank);
    pin->parts.leaves = known_output(p, a->node, n->rank, first, first + n->rank - nb - rows);
    return TPC_OK;
}

static void find_values(struct pinner *p)
{
    p->made.arena = p->specs.arena = p->outputs.arena = p->arena;
    for (value v = 1; v < p->g->nodes.count; v++) {
        const char *name = graph_node(p->g, v)->op == OP_PARAM ? NULL : graph_node(p->g, v)->name;
        if (name && *name)
            *map_put(&p->made, name, strlen(name), NULL) = v;
    }
    for (uint32_t i = p->from->count; i-- > 0;) {
        const struct annotation *a = &p->from->at[i];
        if (a->output)
            *map_put(&p->specs, a->tensor, strlen(a->tensor), NULL) = i + 1;
        if (a->output)
            *map_put(&p->outputs, &a->node, sizeof a->node, NULL) = i + 1;
    }
}

static status pin_annotation(struct pinner *p, const struct annotation *a)
{
    uint32_t parts[MAX_RANK];
    p->group++;
    if (a->output) {
        const uint32_t *v = map_find(&p->made, a->tensor, strlen(a->tensor));
        status s = v ? parts_per_axis(p, a, *v, parts) : TPC_OK; /* what was computed away is not split either */
        if (v && s == TPC_OK)
            pin_output(p, a, *v, parts);
        return s;
    }
    for (uint32_t i = 0; i < p->count; i++) {
        if (p->g->origins.at[graph_node(p->g, p->point[i].node)->origin].index != a->node)
            continue;
        status s = pin_point(p, a, &p->point[i]);
        if (s != TPC_OK)
            return s;
    }
    return TPC_OK;
}

status annotation_pins(struct arena *arena, struct graph *g, struct solve_options *options,
                       const struct annotations *annotations, struct diag *diag)
{
    struct pinner p = {.arena = arena, .g = g, .diag = diag, .from = annotations};
    if (!annotations)
        return TPC_OK;
    p.count = switch_points(g, options, arena, &p.point);
    find_values(&p);
    for (uint32_t i = 0; i < options->pin_count; i++) {
        *PUSH(arena, &p.pins) = options->pin[i];
        p.group = options->pin[i].group;
    }
    for (int inputs = 0; inputs <= 1; inputs++) /* of inputs one asks what the outputs say */
        for (uint32_t i = 0; i < annotations->count; i++) {
            status s = annotations->at[i].output == !inputs ? pin_annotation(&p, &annotations->at[i]) : TPC_OK;
            if (s != TPC_OK)
                return s;
        }
    options->pin = p.pins.at;
    options->pin_count = p.pins.count;
    return TPC_OK;
}
