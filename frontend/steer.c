/* frontend/steer.c - entries (a pattern and a style) into pins: finds what a pattern names, and refuses at once what cannot be meant.
 *
 * A pattern names switch points by what their ONNX node is called, by the module path that the exporter noted, or by the value that they make; where it
 * names none so, by their weight. Whether the style can be had there is the solver's question (solver/pins.c). Start with steer_pins.
 */
#include "frontend/steer.h"

struct names {
    struct arena *arena;
    const struct graph *g;
    struct diag *diag;
    struct solve_options *options;
    uint32_t count;
    const struct switch_point *point;
    bool *is_point; /* per value */
    LIST(struct pin) pins;
    uint32_t group; /* number of the entry */
    bool *behind;   /* per value: depends on a switch point */
    bool sequences; /* a style asked for sequence shards */
};

static status entry_code(const struct steer_entry *e)
{
    return e->file ? TPC_DATA : TPC_USAGE;
}

/* How many parts of a name may follow the pattern: what stands behind a module's name, its op or its parameter; for what concerns a whole module all. */
static uint32_t tail_of(const struct steer_entry *e)
{
    return e->style->values == VALUES_NONE ? 1 : UINT32_MAX;
}

static bool node_matches(const struct names *n, const struct steer_entry *e, value v, uint32_t tail)
{
    const struct node *node = graph_node(n->g, v);
    const struct origin *o = &n->g->origins.at[node->origin];
    if (e->pattern[0] == '%')
        return strcmp(e->pattern, arena_printf(n->arena, "%%%u", v)) == 0;
    return (o->name && pattern_matches(e->pattern, o->name, tail)) ||
           (o->scope && pattern_matches(e->pattern, o->scope, tail == 1 ? 0 : tail)) ||
           (node->name && pattern_matches(e->pattern, node->name, tail));
}

static const char *weight_name(const struct names *n, const struct switch_point *p)
{
    return p->param == UINT32_MAX ? NULL : n->g->params.at[p->param].name;
}

static bool fits(const struct steer_entry *e, const struct switch_point *p)
{
    return e->style->fits & (p->embedding ? FITS_EMBEDDING : FITS_LINEAR);
}

/* ---- pins ---- */

static void pin_point(struct names *n, const struct steer_entry *e, const struct switch_point *p)
{
    struct pin *pin = PUSH(n->arena, &n->pins);
    const char *wrong = NULL;
    *pin = (struct pin){.kind = PIN_UNIT,
                        .node = p->node,
                        .exact = e->exact || e->style->local,
                        .packed = e->style->packed,
                        .instead = e->style->instead,
                        .text = e->text,
                        .group = n->group,
                        .code = entry_code(e)};
    (void)style_parts(e->style, e->parts, &pin->parts, &wrong); /* was looked at when it was read */
    if (p->embedding)
        pin->parts.arrives = PARTS_ANY; /* indices are never cut by a style */
    if (e->exact && !pin->parts.batch)
        pin->parts.batch = PARTS_WHOLE;
}

static void pin_value(struct names *n, const struct steer_entry *e, value v, enum pin_kind kind, uint32_t operand)
{
    const struct node *node = graph_node(n->g, kind == PIN_OPERAND ? graph_node(n->g, v)->operand[operand] : v);
    uint32_t *axis = NEW_ARRAY(n->arena, uint32_t, node->rank);
    for (uint32_t i = 0; i < node->rank; i++)
        axis[i] = PARTS_WHOLE;
    *PUSH(n->arena, &n->pins) = (struct pin){.kind = kind,
                                             .node = v,
                                             .operand = operand,
                                             .rank = node->rank,
                                             .axis = axis,
                                             .text = e->text,
                                             .group = n->group,
                                             .code = entry_code(e)};
}

/* Whether something outside of the matched nodes reads v. */
static bool leaves_module(const struct names *n, const bool *matched, const struct uses *uses, const bool *live,
                          value v)
{
    for (uint32_t i = 0; i < n->g->outputs.count; i++)
        if (n->g->outputs.at[i].value == v)
            return true;
    for (uint32_t i = uses->first[v]; i < uses->first[v + 1]; i++)
        if (live[uses->use[i]] && !matched[uses->use[i]])
            return true;
    return false;
}

/* What the style says of nodes that are no switch points. Returns how many there are. */
static uint32_t pin_values(struct names *n, const struct steer_entry *e, const struct uses *uses, const bool *live)
{
    uint32_t found = 0;
    bool *matched = NEW_ARRAY(n->arena, bool, n->g->nodes.count);
    for (value v = 1; v < n->g->nodes.count; v++) {
        const struct node *node = graph_node(n->g, v);
        bool leaf = op_info(node->op)->class == CLASS_LEAF;
        matched[v] = live[v] && !leaf && node_matches(n, e, v, UINT32_MAX);
        found += matched[v];
    }
    for (value v = 1; v < n->g->nodes.count; v++) {
        const struct node *node = graph_node(n->g, v);
        if (!matched[v])
            continue;
        if (e->style->values == VALUES_WHOLE && !n->is_point[v])
            pin_value(n, e, v, PIN_RESULT, 0);
        if (e->style->values == VALUES_OUTPUT && leaves_module(n, matched, uses, live, v))
            pin_value(n, e, v, PIN_RESULT, 0);
        if (e->style->values == VALUES_SEQUENCE && !n->is_point[v] && n->behind[v]) {
            pin_value(n, e, v, PIN_SEQUENCE, 0);
            n->sequences = true;
        }
        for (uint32_t i = 0; e->style->values == VALUES_WEIGHTS && !n->is_point[v] && i < node->operand_count; i++)
            pin_value(n, e, v, PIN_OPERAND, i);
    }
    return found;
}

/* ---- what is refused ---- */

static const char *kind_text(const struct switch_point *p)
{
    return p->embedding ? "an embedding" : "a linear";
}

static status refuse_kind(struct names *n, const struct steer_entry *e, const struct switch_point *p)
{
    const char *wanted = e->style->fits & FITS_VALUE    ? "whole modules"
                         : e->style->fits & FITS_LINEAR ? "linears"
                                                        : "embeddings";
    return diag_error(n->diag, entry_code(e), graph_where(n->g, p->node, n->arena),
                      "%s: this is %s, and style '%s' is for %s; use %s", e->text, kind_text(p), e->style->name, wanted,
                      p->embedding ? "vocab, feature or whole" : "column, row or whole");
}

/* Nothing is called so. */
static status refuse_absent(struct names *n, const struct steer_entry *e)
{
    const char *best = NULL;
    uint32_t least = UINT32_MAX;
    for (value v = 1; v < n->g->nodes.count; v++)
        if (!n->is_point[v] && op_info(graph_node(n->g, v)->op)->class != CLASS_LEAF && node_matches(n, e, v, 1))
            return diag_error(n->diag, entry_code(e), graph_where(n->g, v, n->arena),
                              "%s: names no switch point (a product with a weight, an embedding), only such as this; "
                              "style '%s' does not fit it",
                              e->text, e->style->name);
    for (uint32_t i = 0; i < n->count; i++) {
        const struct origin *o = &n->g->origins.at[graph_node(n->g, n->point[i].node)->origin];
        const char *const name[3] = {o->name, o->scope, weight_name(n, &n->point[i])};
        for (int k = 0; k < 3; k++) {
            if (!name[k] || !*name[k])
                continue;
            uint32_t distance = text_distance(n->arena, e->pattern, name[k], false);
            if (distance < least)
                best = name[k], least = distance;
        }
    }
    return diag_error(n->diag, entry_code(e), n->g->model_path,
                      best ? "%s: no node and no weight is called so; the nearest is '%s'"
                           : "%s: no node and no weight is called so%s",
                      e->text, best ? best : "");
}

/* ---- the whole ---- */

static status add_entry(struct names *n, const struct steer_entry *e, const struct uses *uses, const bool *live)
{
    const struct switch_point *misfit = NULL;
    uint32_t found = 0;
    for (int by_weight = 0; by_weight <= 1 && !found && !misfit; by_weight++)
        for (uint32_t i = 0; i < n->count; i++) {
            const struct switch_point *p = &n->point[i];
            const char *weight = weight_name(n, p);
            if (!(by_weight ? weight && pattern_matches(e->pattern, weight, 1)
                            : node_matches(n, e, p->node, tail_of(e))))
                continue;
            if (!fits(e, p)) {
                misfit = misfit ? misfit : p;
                continue;
            }
            found++;
            pin_point(n, e, p);
        }
    if (e->style->values != VALUES_NONE)
        found += pin_values(n, e, uses, live);
    if (found)
        return TPC_OK;
    return misfit ? refuse_kind(n, e, misfit) : refuse_absent(n, e);
}

status steer_pins(struct arena *arena, struct graph *g, struct solve_options *options, const struct steering *steering,
                  struct diag *diag)
{
    struct names n = {.arena = arena, .g = g, .diag = diag, .options = options};
    if (!steering || !steering->entries.count)
        return TPC_OK;
    struct uses uses = graph_uses(g, arena);
    const bool *live = graph_live(g, arena);
    n.count = switch_points(g, options, arena, &n.point);
    n.is_point = NEW_ARRAY(arena, bool, g->nodes.count);
    for (uint32_t i = 0; i < n.count; i++)
        n.is_point[n.point[i].node] = true;
    n.behind = NEW_ARRAY(arena, bool, g->nodes.count);
    for (value v = 1; v < g->nodes.count; v++) {
        n.behind[v] = n.is_point[v];
        for (uint32_t i = 0; i < graph_node(g, v)->operand_count; i++)
            n.behind[v] = n.behind[v] || n.behind[graph_node(g, v)->operand[i]];
    }
    for (uint32_t i = 0; i < steering->entries.count; i++) {
        n.group = i;
        status s = add_entry(&n, &steering->entries.at[i], &uses, live);
        if (s != TPC_OK)
            return s;
    }
    if (n.sequences && options->sequence == SEQUENCE_WHOLE) {
        options->sequence = SEQUENCE_BY_COST;
        options->sequence_where_pinned = true;
    }
    options->pin = n.pins.at;
    options->pin_count = n.pins.count;
    return TPC_OK;
}
