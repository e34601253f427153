/* frontend/report.c - the decisions as a JSON document (`tpc dump --json`; docs/plan-json.md is its contract).
 *
 * Names are the ONNX file's own. Lists are in node order, so that two plans of one model differ only where the decisions do.
 */
#include "frontend/report.h"
#include "frontend/json.h"
#include "frontend/predict.h"

#include <inttypes.h>

enum { SCHEMA_VERSION = 1 };

const char *report_name(const struct report *r, const struct graph *g, value v)
{
    const struct node *n = graph_node(g, v);
    return n->name != NULL ? n->name : arena_printf(r->arena, "%%%" PRIu32, v);
}

cJSON *report_list(cJSON *parent, const char *name)
{
    return cJSON_AddArrayToObject(parent, name);
}

cJSON *report_object(cJSON *list)
{
    cJSON *o = cJSON_CreateObject();
    cJSON_AddItemToArray(list, o);
    return o;
}

void report_text(cJSON *o, const char *name, const char *text)
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
    cJSON *shape = report_list(o, "shape");
    for (uint32_t a = 0; a < n->rank; a++) {
        add_dim(r, shape, g, n->shape[a]);
    }
}

static void add_placement(const struct report *r, cJSON *o, const struct graph *g, const struct placement *p)
{
    struct text t = {.arena = r->arena};
    placement_tell(g, p, &t);
    report_text(o, "placement", t.at);
}

static void add_mesh(const struct mesh *mesh, cJSON *o)
{
    const char *name[MAX_SUBAXES];
    uint32_t size[MAX_SUBAXES], count = mesh_axes(mesh, name, size), tensor = 1;
    cJSON_AddNumberToObject(o, "ranks", (double)mesh->ranks);
    cJSON *axes = report_list(o, "axes");
    for (uint32_t i = 0; i < count; i++) {
        cJSON *axis = report_object(axes);
        report_text(axis, "name", name[i]);
        cJSON_AddNumberToObject(axis, "size", (double)size[i]);
        tensor *= strcmp(name[i], "tp") == 0 ? size[i] : 1;
    }
    cJSON_AddNumberToObject(o, "tp", (double)tensor);
}

static void add_model(const struct report *r, cJSON *root)
{
    const struct graph *g = r->c->graph;
    cJSON *m = cJSON_AddObjectToObject(root, "model");
    report_text(m, "path", g->model_path);
    report_text(m, "xxh3", arena_printf(r->arena, "%016" PRIx64, g->model_hash));
    cJSON_AddNumberToObject(m, "ir_version", (double)g->ir_version);
    cJSON *opsets = cJSON_AddObjectToObject(m, "opsets");
    for (uint32_t i = 0; i < g->opsets.count; i++) {
        const char *domain = g->opsets.at[i].domain;
        cJSON_AddNumberToObject(opsets, domain[0] == 0 ? "ai.onnx" : domain, (double)g->opsets.at[i].version);
    }
    add_mesh(&r->c->program->graph->mesh, cJSON_AddObjectToObject(root, "mesh"));
}

static void add_symbols(const struct report *r, cJSON *root)
{
    const struct graph *g = r->c->graph;
    cJSON *symbols = report_list(root, "symbols"), *guards = report_list(root, "guards");
    for (uint32_t s = 0; s < dims_symbol_count(g->dims); s++) {
        const struct symbol *y = dims_symbol(g->dims, s);
        if (y->kind != SYMBOL_INPUT) {
            continue;
        }
        cJSON *o = report_object(symbols);
        report_text(o, "name", y->name);
        if (y->equal != DIM_NONE) {
            report_text(o, "equals", dim_text(g->dims, y->equal, r->arena));
        }
    }
    for (uint32_t i = 0; i < g->guards.count; i++) {
        const struct guard *u = &g->guards.at[i];
        cJSON *o = report_object(guards);
        report_text(
            o, "equal",
            arena_printf(r->arena, "%s == %s", dim_text(g->dims, u->a, r->arena), dim_text(g->dims, u->b, r->arena)));
        report_text(o, "node", g->origins.at[u->origin].name);
        report_text(o, "why", u->why);
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

/* What a rank stores: of a shard, or (not sharded) of a whole param. */
/* One entry per (param, way of cutting it) in use; a tied weight may have several. */
static void add_params(const struct report *r, cJSON *root)
{
    const struct graph *p = r->c->program->graph;
    cJSON *params = report_list(root, "params");
    struct map entries = {.arena = r->arena};
    for (value v = 1; v < p->nodes.count; v++) {
        const struct node *n = graph_node(p, v);
        if (n->op != OP_PARAM) {
            continue;
        }
        bool fresh = false;
        (void)map_put(&entries, (const uint32_t[]){n->attribute.index, (uint32_t)n->attribute.mode}, 8, &fresh);
        if (!fresh) {
            continue;
        }
        const struct param *q = &p->params.at[n->attribute.index];
        cJSON *o = report_object(params);
        report_text(o, "name", q->name);
        cJSON *shape = report_list(o, "shape");
        for (uint32_t a = 0; a < q->rank; a++) {
            cJSON_AddItemToArray(shape, cJSON_CreateNumber((double)q->shape[a]));
        }
        report_text(o, "dtype", dtype_name(q->dtype));
        cJSON_AddNumberToObject(o, "whole_bytes", (double)q->length);
        bool sharded = n->attribute.mode > 0;
        cJSON *bytes = report_list(o, "bytes");
        for (uint32_t k = 0; k < p->mesh.ranks; k++) {
            uint32_t index = sharded ? (uint32_t)n->attribute.mode - 1 : (uint32_t)n->attribute.index;
            cJSON_AddItemToArray(bytes, cJSON_CreateNumber((double)predict_weight(p, index, sharded, k)));
        }
        cJSON *cuts = NULL;
        for (uint32_t a = 0; n->attribute.mode > 0 && a < q->rank; a++) {
            const struct shard *s = &p->shards.at[n->attribute.mode - 1];
            if (!axis_is_cut(s, a, p->mesh.ranks, q->shape[a])) {
                continue;
            }
            if (cuts == NULL) {
                cJSON_AddNumberToObject(o, "axis", a);
                cJSON_AddItemToObject(o, "ranks", intervals_by_rank(s, a, p->mesh.ranks));
                cuts = report_list(o, "further_cuts");
            } else {
                cJSON *more = report_object(cuts);
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

static void add_rows(const struct report *r, cJSON *root)
{
    const struct solution *s = r->c->solution;
    cJSON *rows = report_list(root, "rows");
    for (uint32_t i = 0; i < s->row_count; i++) {
        struct text over = {.arena = r->arena};
        cJSON *o = report_object(rows);
        mesh_print_subaxes(s->mesh, s->rows[i].subaxes, &over);
        report_text(o, "kind", s->rows[i].kind);
        report_text(o, "extent", dim_text(r->c->graph->dims, s->rows[i].extent, r->arena));
        report_text(o, "over", over.at);
    }
}

static void add_classes(const struct report *r, cJSON *root)
{
    const struct graph *g = r->c->graph;
    cJSON *classes = report_list(root, "classes");
    for (uint32_t i = 0; i < r->c->solution->class_count; i++) {
        const struct class_info *k = &r->c->solution->classes[i];
        cJSON *o = report_object(classes);
        int64_t extent;
        if (dim_is_const(g->dims, k->extent, &extent)) {
            cJSON_AddNumberToObject(o, "extent", (double)extent);
        } else {
            report_text(o, "extent", dim_text(g->dims, k->extent, r->arena));
        }
        cJSON_AddNumberToObject(o, "unit", (double)k->unit);
        const struct partition *cut = &g->partitions.at[k->partition];
        if (k->partition == 0) {
            cJSON_AddNullToObject(o, "partition");
        } else if (cut->offset == NULL) {
            report_text(o, "partition",
                        arena_printf(r->arena, "%" PRIu32 " parts of ceildiv(%s, %" PRIu32 ")", cut->parts,
                                     dim_text(g->dims, cut->extent, r->arena), cut->parts));
        } else {
            cJSON *offsets = report_list(o, "partition");
            for (uint32_t part = 0; part <= cut->parts; part++) {
                cJSON_AddItemToArray(offsets, cJSON_CreateNumber((double)cut->offset[part]));
            }
        }
        cJSON *members = report_list(o, "members");
        for (uint32_t m = 0; m < k->member_count; m++) {
            cJSON_AddItemToArray(members, cJSON_CreateString(report_name(r, g, k->member[m])));
        }
    }
}

static void add_values(const struct report *r, cJSON *root)
{
    const struct graph *g = r->c->graph;
    cJSON *values = report_list(root, "values");
    for (value v = 1; v < g->nodes.count; v++) {
        const struct node *n = graph_node(g, v);
        if (n->name == NULL || n->op == OP_PARAM) {
            continue;
        }
        cJSON *o = report_object(values);
        report_text(o, "name", n->name);
        add_shape(r, o, g, n);
        add_placement(r, o, g, r->c->solution->result[v]);
    }
}

/* What sizes are told for: the solver's nominal extents at prefill. */
static void set_nominal(struct report *r)
{
    const struct solution *d = r->c->solution;
    r->nominal = NEW_ARRAY(r->arena, int64_t, dims_symbol_count(r->c->program->graph->dims) + 1);
    memcpy(r->nominal, d->nominal[NOMINAL_PREFILL], d->nominal_count * sizeof *r->nominal);
    (void)graph_bind_rank(r->c->program->graph, 0, r->nominal);
}

const char *report_json(struct arena *arena, const struct compiled *c)
{
    struct report r = {arena, c, NULL};
    set_nominal(&r);
    cJSON *root = json_object(arena);
    cJSON_AddNumberToObject(root, "schema_version", SCHEMA_VERSION);
    add_model(&r, root);
    add_symbols(&r, root);
    report_layers(&r, root);
    cJSON_AddItemToObject(root, "tp_plan", cJSON_Parse(c->tp_plan));
    add_params(&r, root);
    add_classes(&r, root);
    add_rows(&r, root);
    add_values(&r, root);
    double bytes = report_collectives(&r, root);
    report_memory(&r, root);
    report_cost(&r, root, bytes);
    if (c->solution->note == NULL) {
        cJSON_AddNullToObject(root, "note");
    } else {
        report_text(root, "note", c->solution->note);
    }
    return json_text(arena, root);
}
