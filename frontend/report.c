/* frontend/report.c - the decisions as a JSON document (`tpc dump --json`; docs/plan-json.md is its contract).
 *
 * Names are the ONNX file's own. Lists are in node order, so that two plans of one model differ only where the decisions do.
 */
#include "frontend/compile.h"

#include <cjson/cJSON.h>
#include <inttypes.h>

enum { SCHEMA_VERSION = 1, NOMINAL_EXTENT = 512 };

struct report {
    struct arena *arena;
    const struct compiled *c;
    int64_t *nominal; /* per symbol */
};

static const char *name_of(const struct report *r, const struct graph *g, value v)
{
    const struct node *n = graph_node(g, v);
    return n->name != NULL ? n->name : arena_printf(r->arena, "%%%" PRIu32, v);
}

static cJSON *list_in(cJSON *parent, const char *name)
{
    return cJSON_AddArrayToObject(parent, name);
}

static cJSON *object_in(cJSON *list)
{
    cJSON *o = cJSON_CreateObject();
    cJSON_AddItemToArray(list, o);
    return o;
}

static void add_text(cJSON *o, const char *name, const char *text)
{
    cJSON_AddStringToObject(o, name, text == NULL ? "" : text);
}

static void add_dim(const struct report *r, cJSON *list, const struct graph *g, dim d)
{
    int64_t k;
    cJSON_AddItemToArray(list, dim_is_const(g->dims, d, &k) ? cJSON_CreateNumber((double)k)
                                                            : cJSON_CreateString(dim_text(g->dims, d, r->arena)));
}

static void add_shape(const struct report *r, cJSON *o, const struct graph *g, const struct node *n)
{
    cJSON *shape = list_in(o, "shape");
    for (uint32_t a = 0; a < n->rank; a++) {
        add_dim(r, shape, g, n->shape[a]);
    }
}

static void add_placement(const struct report *r, cJSON *o, const struct graph *g, const struct placement *p)
{
    struct text t = {.arena = r->arena};
    placement_print(g, p, &t);
    add_text(o, "placement", t.at);
}

static void add_model(const struct report *r, cJSON *root)
{
    const struct graph *g = r->c->graph;
    cJSON *m = cJSON_AddObjectToObject(root, "model");
    add_text(m, "path", g->model_path);
    add_text(m, "xxh3", arena_printf(r->arena, "%016" PRIx64, g->model_hash));
    cJSON_AddNumberToObject(m, "ir_version", (double)g->ir_version);
    cJSON *opsets = cJSON_AddObjectToObject(m, "opsets");
    for (uint32_t i = 0; i < g->opsets.count; i++) {
        const char *domain = g->opsets.at[i].domain;
        cJSON_AddNumberToObject(opsets, domain[0] == 0 ? "ai.onnx" : domain, (double)g->opsets.at[i].version);
    }
    cJSON *mesh = cJSON_AddObjectToObject(root, "mesh");
    cJSON_AddNumberToObject(mesh, "tp", (double)r->c->program->graph->mesh.ranks);
}

static void add_symbols(const struct report *r, cJSON *root)
{
    const struct graph *g = r->c->graph;
    cJSON *symbols = list_in(root, "symbols"), *guards = list_in(root, "guards");
    for (uint32_t s = 0; s < dims_symbol_count(g->dims); s++) {
        const struct symbol *y = dims_symbol(g->dims, s);
        if (y->kind != SYMBOL_INPUT) {
            continue;
        }
        cJSON *o = object_in(symbols);
        add_text(o, "name", y->name);
        if (y->equal != DIM_NONE) {
            add_text(o, "equals", dim_text(g->dims, y->equal, r->arena));
        }
    }
    for (uint32_t i = 0; i < g->guards.count; i++) {
        const struct guard *u = &g->guards.at[i];
        cJSON *o = object_in(guards);
        add_text(
            o, "equal",
            arena_printf(r->arena, "%s == %s", dim_text(g->dims, u->a, r->arena), dim_text(g->dims, u->b, r->arena)));
        add_text(o, "node", g->origins.at[u->origin].name);
        add_text(o, "why", u->why);
    }
}

static void add_layers(const struct report *r, cJSON *root)
{
    const struct graph *g = r->c->graph;
    cJSON *layers = list_in(root, "layers");
    for (uint32_t i = 0; i < r->c->solution->layer_count; i++) {
        const struct layer *l = &r->c->solution->layers[i];
        const struct origin *at = &g->origins.at[graph_node(g, l->node)->origin];
        cJSON *o = object_in(layers);
        add_text(o, "node", at->name);
        add_text(o, "op_type", at->op_type);
        add_text(o, "style", layer_style_name(l->style));
        if (l->param == UINT32_MAX) {
            cJSON_AddNullToObject(o, "weight");
        } else {
            add_text(o, "weight", g->params.at[l->param].name);
        }
        if (l->axis < 0) {
            cJSON_AddNullToObject(o, "axis");
        } else {
            cJSON_AddNumberToObject(o, "axis", l->axis);
        }
        add_text(o, "reason", l->reason);
    }
}

static bool axis_is_cut(const struct shard *s, uint32_t axis, uint32_t ranks, int64_t extent)
{
    for (uint32_t k = 0; k < ranks; k++) {
        const struct intervals *x = &s->of[axis * ranks + k];
        if (x->count != 1 || x->at[0].lo != 0 || x->at[0].hi != extent) {
            return true;
        }
    }
    return false;
}

static cJSON *intervals_by_rank(const struct shard *s, uint32_t axis, uint32_t ranks)
{
    cJSON *all = cJSON_CreateArray();
    for (uint32_t k = 0; k < ranks; k++) {
        cJSON *mine = cJSON_CreateArray();
        const struct intervals *x = &s->of[axis * ranks + k];
        for (uint32_t i = 0; i < x->count; i++) {
            cJSON *pair = cJSON_CreateArray();
            cJSON_AddItemToArray(pair, cJSON_CreateNumber((double)x->at[i].lo));
            cJSON_AddItemToArray(pair, cJSON_CreateNumber((double)x->at[i].hi));
            cJSON_AddItemToArray(mine, pair);
        }
        cJSON_AddItemToArray(all, mine);
    }
    return all;
}

/* One entry per (param, way of cutting it) in use; a tied weight may have several. */
static void add_params(const struct report *r, cJSON *root)
{
    const struct graph *p = r->c->program->graph;
    cJSON *params = list_in(root, "params");
    for (value v = 1; v < p->nodes.count; v++) {
        const struct node *n = graph_node(p, v);
        if (n->op != OP_PARAM) {
            continue;
        }
        bool seen = false;
        for (value u = 1; u < v && !seen; u++) {
            const struct node *m = graph_node(p, u);
            seen =
                m->op == OP_PARAM && m->attribute.index == n->attribute.index && m->attribute.mode == n->attribute.mode;
        }
        if (seen) {
            continue;
        }
        const struct param *q = &p->params.at[n->attribute.index];
        cJSON *o = object_in(params);
        add_text(o, "name", q->name);
        cJSON *shape = list_in(o, "shape");
        for (uint32_t a = 0; a < q->rank; a++) {
            cJSON_AddItemToArray(shape, cJSON_CreateNumber((double)q->shape[a]));
        }
        add_text(o, "dtype", dtype_name(q->dtype));
        cJSON *cuts = NULL;
        for (uint32_t a = 0; n->attribute.mode > 0 && a < q->rank; a++) {
            const struct shard *s = &p->shards.at[n->attribute.mode - 1];
            if (!axis_is_cut(s, a, p->mesh.ranks, q->shape[a])) {
                continue;
            }
            if (cuts == NULL) {
                cJSON_AddNumberToObject(o, "axis", a);
                cJSON_AddItemToObject(o, "ranks", intervals_by_rank(s, a, p->mesh.ranks));
                cuts = list_in(o, "further_cuts");
            } else {
                cJSON *more = object_in(cuts);
                cJSON_AddNumberToObject(more, "axis", a);
                cJSON_AddItemToObject(more, "ranks", intervals_by_rank(s, a, p->mesh.ranks));
            }
        }
        if (cuts == NULL) {
            cJSON_AddNullToObject(o, "axis");
            cJSON_AddItemToObject(o, "ranks", cJSON_CreateArray());
        }
    }
}

static void add_classes(const struct report *r, cJSON *root)
{
    const struct graph *g = r->c->graph;
    cJSON *classes = list_in(root, "classes");
    for (uint32_t i = 0; i < r->c->solution->class_count; i++) {
        const struct class_info *k = &r->c->solution->classes[i];
        cJSON *o = object_in(classes);
        int64_t extent;
        if (dim_is_const(g->dims, k->extent, &extent)) {
            cJSON_AddNumberToObject(o, "extent", (double)extent);
        } else {
            add_text(o, "extent", dim_text(g->dims, k->extent, r->arena));
        }
        cJSON_AddNumberToObject(o, "unit", (double)k->unit);
        const struct partition *cut = &g->partitions.at[k->partition];
        if (k->partition == 0) {
            cJSON_AddNullToObject(o, "partition");
        } else if (cut->offset == NULL) {
            add_text(o, "partition",
                     arena_printf(r->arena, "%" PRIu32 " parts of ceildiv(%s, %" PRIu32 ")", cut->parts,
                                  dim_text(g->dims, cut->extent, r->arena), cut->parts));
        } else {
            cJSON *offsets = list_in(o, "partition");
            for (uint32_t part = 0; part <= cut->parts; part++) {
                cJSON_AddItemToArray(offsets, cJSON_CreateNumber((double)cut->offset[part]));
            }
        }
        cJSON *members = list_in(o, "members");
        for (uint32_t m = 0; m < k->member_count; m++) {
            cJSON_AddItemToArray(members, cJSON_CreateString(name_of(r, g, k->member[m])));
        }
    }
}

static void add_values(const struct report *r, cJSON *root)
{
    const struct graph *g = r->c->graph;
    cJSON *values = list_in(root, "values");
    for (value v = 1; v < g->nodes.count; v++) {
        const struct node *n = graph_node(g, v);
        if (n->name == NULL || n->op == OP_PARAM) {
            continue;
        }
        cJSON *o = object_in(values);
        add_text(o, "name", n->name);
        add_shape(r, o, g, n);
        add_placement(r, o, g, r->c->solution->result[v]);
    }
}

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

/* The nearest value with an ONNX name at or before v. */
static value named_before(const struct graph *p, value v)
{
    while (graph_node(p, v)->name == NULL && graph_node(p, v)->operand_count > 0) {
        v = graph_node(p, v)->operand[0];
    }
    return v;
}

static double add_collectives(const struct report *r, cJSON *root)
{
    const struct graph *p = r->c->program->graph;
    cJSON *list = list_in(root, "collectives");
    double total = 0;
    for (value v = 1; v < p->nodes.count; v++) {
        const struct node *n = graph_node(p, v);
        if (op_info(n->op)->class != CLASS_COLLECTIVE) {
            continue;
        }
        cJSON *o = object_in(list);
        add_text(o, "kind", op_info(n->op)->text);
        add_text(o, "value", name_of(r, p, named_before(p, v)));
        add_text(o, "node", p->origins.at[n->origin].name);
        double bytes = bytes_of(r, n->op == OP_REDUCE_SCATTER ? n->operand[0] : v);
        total += bytes;
        cJSON_AddNumberToObject(o, "bytes", bytes);
        add_text(o, "elements",
                 dim_text(p->dims, graph_elements(p, n->op == OP_REDUCE_SCATTER ? n->operand[0] : v), r->arena));
        add_text(o, "reason", why_collective(n->op));
    }
    return total;
}

static double weight_bytes(const struct program *p, uint32_t rank)
{
    const struct graph *g = p->graph;
    double total = 0;
    for (uint32_t b = 0; b < p->buffers.count; b++) {
        const struct buffer *x = &p->buffers.at[b];
        if (x->kind != BUFFER_WEIGHT) {
            continue;
        }
        const struct param *q = &g->params.at[x->sharded ? g->shards.at[x->index].param : x->index];
        double bytes = (double)dtype_size(q->dtype);
        for (uint32_t a = 0; a < q->rank; a++) {
            double extent = x->sharded ? 0 : (double)q->shape[a];
            for (uint32_t i = 0; x->sharded && i < g->shards.at[x->index].of[a * g->mesh.ranks + rank].count; i++) {
                const struct interval *k = &g->shards.at[x->index].of[a * g->mesh.ranks + rank].at[i];
                extent += (double)(k->hi - k->lo);
            }
            bytes *= extent;
        }
        total += bytes;
    }
    return total;
}

static void add_memory(const struct report *r, cJSON *root)
{
    const struct program *p = r->c->program;
    cJSON *memory = list_in(root, "memory");
    uint64_t *offset = NEW_ARRAY(r->arena, uint64_t, p->buffers.count + 1);
    for (uint32_t k = 0; k < p->graph->mesh.ranks; k++) {
        cJSON *o = object_in(memory);
        uint64_t arena_bytes = 0;
        cJSON_AddNumberToObject(o, "rank", k);
        cJSON_AddNumberToObject(o, "weights", weight_bytes(p, k));
        bool known = graph_bind_rank(p->graph, k, r->nominal) && program_place(p, r->nominal, offset, &arena_bytes);
        cJSON_AddNumberToObject(o, "activations", known ? (double)arena_bytes : 0);
    }
}

/* Is symbol s the first axis of an input that has others: a batch? */
static bool is_batch(const struct graph *g, uint32_t s)
{
    for (uint32_t i = 0; i < g->inputs.count; i++) {
        const struct node *n = graph_node(g, g->inputs.at[i].value);
        if (n->rank >= 2 && n->shape[0] == dim_of_symbol(g->dims, s)) {
            return true;
        }
    }
    return false;
}

/* What sizes are told for: one row of every batch, NOMINAL_EXTENT of everything else that is dynamic. */
static void set_nominal(struct report *r)
{
    struct dims *t = r->c->program->graph->dims;
    uint32_t n = dims_symbol_count(t);
    r->nominal = NEW_ARRAY(r->arena, int64_t, n + 1);
    for (uint32_t s = 0; s < n; s++) {
        const struct symbol *y = dims_symbol(t, s);
        int64_t wanted = is_batch(r->c->graph, s) ? 1 : NOMINAL_EXTENT;
        r->nominal[s] = y->kind != SYMBOL_INPUT ? 0 : y->upper < wanted ? y->upper : wanted;
    }
    for (uint32_t s = 0; s < n; s++) { /* what a guard has made of a symbol */
        const struct symbol *y = dims_symbol(t, s);
        if (y->equal != DIM_NONE) {
            (void)dim_eval(t, dim_resolve(t, y->equal), r->nominal, &r->nominal[s]);
        }
    }
    (void)graph_bind_rank(r->c->program->graph, 0, r->nominal);
}

static void add_cost(const struct report *r, cJSON *root, double collective_bytes)
{
    const struct dims *t = r->c->program->graph->dims;
    cJSON *cost = cJSON_AddObjectToObject(root, "cost");
    cJSON_AddNumberToObject(cost, "weight_bytes_per_rank", r->c->solution->bytes_per_rank);
    cJSON_AddNumberToObject(cost, "seconds", r->c->solution->time);
    cJSON_AddNumberToObject(cost, "switches", r->c->solution->switches);
    cJSON_AddNumberToObject(cost, "collective_bytes", collective_bytes);
    cJSON *nominal = cJSON_AddObjectToObject(cost, "nominal");
    for (uint32_t s = 0; s < dims_symbol_count(t); s++) {
        if (dims_symbol(t, s)->kind == SYMBOL_INPUT) {
            cJSON_AddNumberToObject(nominal, dims_symbol(t, s)->name, (double)r->nominal[s]);
        }
    }
}

const char *report_json(struct arena *arena, const struct compiled *c)
{
    struct report r = {arena, c, NULL};
    set_nominal(&r);
    cJSON *root = cJSON_CreateObject();
    cJSON_AddNumberToObject(root, "schema_version", SCHEMA_VERSION);
    add_model(&r, root);
    add_symbols(&r, root);
    add_layers(&r, root);
    add_params(&r, root);
    add_classes(&r, root);
    add_values(&r, root);
    double bytes = add_collectives(&r, root);
    add_memory(&r, root);
    add_cost(&r, root, bytes);
    if (c->solution->note == NULL) {
        cJSON_AddNullToObject(root, "note");
    } else {
        add_text(root, "note", c->solution->note);
    }
    char *printed = cJSON_Print(root);
    cJSON_Delete(root);
    if (printed == NULL) {
        guard_out_of_memory(0);
    }
    const char *text = arena_strdup(arena, printed);
    cJSON_free(printed);
    return text;
}
