/* frontend/report_layers.c - the layers of the JSON document, what they could have been, and the collectives with the layers that cause them. */
#include "frontend/report.h"

static void add_alternatives(cJSON *o, const struct layer *l)
{
    cJSON *list = report_list(o, "alternatives");
    for (uint32_t i = 0; i < l->alternative_count; i++) {
        const struct alternative *a = &l->alternative[i];
        cJSON *x = report_object(list);
        report_text(x, "style", layer_style_name(a->style));
        cJSON_AddBoolToObject(x, "possible", a->possible);
        report_text(x, "why", a->why);
        if (a->priced) {
            cJSON_AddNumberToObject(x, "bytes", a->bytes);
            cJSON_AddNumberToObject(x, "seconds", a->seconds);
            cJSON_AddNumberToObject(x, "collectives", a->collectives);
        }
    }
}

void report_layers(const struct report *r, cJSON *root)
{
    const struct graph *g = r->c->graph;
    cJSON *layers = report_list(root, "layers");
    for (uint32_t i = 0; i < r->c->solution->layer_count; i++) {
        const struct layer *l = &r->c->solution->layers[i];
        const struct origin *at = &g->origins.at[graph_node(g, l->node)->origin];
        cJSON *o = report_object(layers);
        report_text(o, "node", at->name);
        report_text(o, "op_type", at->op_type);
        report_text(o, "style", layer_style_name(l->style));
        if (l->param == UINT32_MAX) {
            cJSON_AddNullToObject(o, "weight");
        } else {
            report_text(o, "weight", g->params.at[l->param].name);
        }
        if (l->axis < 0) {
            cJSON_AddNullToObject(o, "axis");
        } else {
            cJSON_AddNumberToObject(o, "axis", l->axis);
        }
        cJSON_AddNumberToObject(o, "kind", l->kind);
        cJSON_AddNumberToObject(o, "from", l->from);
        cJSON_AddNumberToObject(o, "to", l->to);
        if (l->placement != NULL) {
            struct text t = {.arena = r->arena};
            placement_tell(g, l->placement, &t);
            report_text(o, "placement", t.at);
        }
        report_text(o, "reason", l->reason);
        add_alternatives(o, l);
    }
    cJSON *regions = report_list(root, "regions");
    for (uint32_t i = 1; i <= r->c->solution->region_count; i++) {
        cJSON_AddItemToArray(regions, cJSON_CreateNumber(r->c->solution->region_kind[i]));
    }
}

/* ---- collectives ---- */

static const char *why_collective(op o)
{
    switch ((int)o) {
    case OP_ALL_REDUCE:
        return "its terms are spread over the ranks and what follows needs the whole sum or maximum";
    case OP_ALL_GATHER:
        return "it is cut over the ranks and what follows needs all of it";
    case OP_REDUCE_SCATTER:
        return "its terms are spread over the ranks and each rank goes on with a part of the sum";
    default:
        return "what follows is cut another way";
    }
}

static double bytes_of(const struct report *r, value v)
{
    const struct graph *p = r->c->program->graph;
    int64_t n;
    return dim_eval(p->dims, graph_elements(p, v), r->nominal, &n)
               ? (double)n * (double)dtype_size(graph_node(p, v)->dtype)
               : 0;
}

/* Per value the nearest one with an ONNX name at or before it. */
static value *named_before(const struct report *r)
{
    const struct graph *p = r->c->program->graph;
    value *of = NEW_ARRAY(r->arena, value, p->nodes.count);
    for (value v = 1; v < p->nodes.count; v++) {
        const struct node *n = graph_node(p, v);
        of[v] = n->name == NULL && n->operand_count > 0 ? of[n->operand[0]] : v;
    }
    return of;
}

/* Who causes a collective. A sum is there for the layers whose terms it adds up; a gather for the layers that take what it gives, or else for the one
 * that made it. */
struct causes {
    const struct report *r;
    const struct graph *program;
    struct uses uses;
    uint32_t *layer_of; /* per value of the Graph: 1 + its layer */
    uint32_t *seen, stamp;
    LIST(value) open;
    cJSON *out;
};

static uint32_t layer_at(const struct causes *c, value v)
{
    return v < c->program->source.count ? c->layer_of[c->program->source.at[v]] : 0;
}

static void push(struct causes *c, value v)
{
    if (c->seen[v] != c->stamp) {
        c->seen[v] = c->stamp;
        *PUSH(c->r->arena, &c->open) = v;
    }
}

static void start(struct causes *c, value v)
{
    c->stamp++;
    c->open.count = 0;
    push(c, v);
}

static void add_cause(struct causes *c, uint32_t layer)
{
    const cJSON *x = NULL;
    cJSON_ArrayForEach(x, c->out)
    {
        if (x->valuedouble == (double)(layer - 1)) {
            return;
        }
    }
    cJSON_AddItemToArray(c->out, cJSON_CreateNumber((double)(layer - 1)));
}

/* Back along partial sums to the layers where they were begun. */
static void find_terms(struct causes *c, value v)
{
    for (start(c, v); c->open.count > 0;) {
        value u = c->open.at[--c->open.count], original = c->program->source.at[u];
        if (u != v && layer_at(c, u) != 0) {
            add_cause(c, layer_at(c, u));
            continue;
        }
        if (u == v || (original != 0 && c->r->c->solution->result[original]->partial != 0)) {
            for (uint32_t i = 0; i < graph_node(c->program, u)->operand_count; i++) {
                push(c, graph_node(c->program, u)->operand[i]);
            }
        }
    }
}

/* Is it the same value still, seen otherwise? */
static bool moves_only(op o)
{
    enum op_class class = op_info(o)->class;
    return class == CLASS_LAYOUT || class == CLASS_COLLECTIVE || o == OP_RESTRICT || o == OP_COUNT_ONCE;
}

static void find_takers(struct causes *c, value v)
{
    for (start(c, v); c->open.count > 0;) {
        value u = c->open.at[--c->open.count];
        for (uint32_t i = c->uses.first[u]; i < c->uses.first[u + 1]; i++) {
            value w = c->uses.use[i];
            if (layer_at(c, w) != 0) {
                add_cause(c, layer_at(c, w));
            } else if (moves_only(graph_node(c->program, w)->op)) {
                push(c, w);
            }
        }
    }
}

static void find_maker(struct causes *c, value v)
{
    while (layer_at(c, v) == 0 && graph_node(c->program, v)->operand_count > 0) {
        v = graph_node(c->program, v)->operand[0];
    }
    if (layer_at(c, v) != 0) {
        add_cause(c, layer_at(c, v));
    }
}

/* What the steps of a composite, which stand for no value of the Graph, lead to. */
static value composite_of(const struct causes *c, value v)
{
    while (c->program->source.at[v] == 0 && c->uses.first[v] < c->uses.first[v + 1]) {
        v = c->uses.use[c->uses.first[v]];
    }
    return v;
}

static void find_causes(struct causes *c, value v, cJSON *o)
{
    op kind = graph_node(c->program, v)->op;
    c->out = report_list(o, "layers");
    uint32_t own = layer_at(c, composite_of(c, v));
    if (own != 0 && c->r->c->solution->layers[own - 1].style == STYLE_CROSS_ENTROPY) {
        add_cause(c, own);
    } else if (kind == OP_ALL_REDUCE || kind == OP_REDUCE_SCATTER) {
        find_terms(c, v);
    } else {
        find_takers(c, v);
    }
    if (cJSON_GetArraySize(c->out) == 0) {
        find_maker(c, v);
    }
}

static void start_causes(struct causes *c, const struct report *r)
{
    const struct graph *p = r->c->program->graph;
    *c = (struct causes){.r = r, .program = p, .uses = graph_uses(p, r->arena)};
    c->layer_of = NEW_ARRAY(r->arena, uint32_t, r->c->graph->nodes.count);
    c->seen = NEW_ARRAY(r->arena, uint32_t, p->nodes.count);
    for (uint32_t i = 0; i < r->c->solution->layer_count; i++) {
        c->layer_of[r->c->solution->layers[i].node] = i + 1;
    }
}

double report_collectives(const struct report *r, cJSON *root)
{
    const struct graph *p = r->c->program->graph;
    cJSON *list = report_list(root, "collectives");
    struct causes causes;
    const value *named = named_before(r);
    double total = 0;
    start_causes(&causes, r);
    for (value v = 1; v < p->nodes.count; v++) {
        const struct node *n = graph_node(p, v);
        if (op_info(n->op)->class != CLASS_COLLECTIVE) {
            continue;
        }
        cJSON *o = report_object(list);
        report_text(o, "kind", op_info(n->op)->text);
        report_text(o, "value", report_name(r, p, named[v]));
        report_text(o, "node", p->origins.at[n->origin].name);
        double bytes = bytes_of(r, n->op == OP_REDUCE_SCATTER ? n->operand[0] : v);
        total += bytes;
        cJSON_AddNumberToObject(o, "bytes", bytes);
        report_text(o, "elements",
                    dim_text(p->dims, graph_elements(p, n->op == OP_REDUCE_SCATTER ? n->operand[0] : v), r->arena));
        report_text(o, "reason", why_collective(n->op));
        find_causes(&causes, v, o);
    }
    return total;
}
