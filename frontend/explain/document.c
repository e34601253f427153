/* frontend/explain/document.c - from the JSON text to struct document. Start with document_parse. */
#include "frontend/explain/explain.h"
#include "frontend/json.h"

#include <math.h>

enum { MOST_RANKS = 4096 };

static const cJSON *field(const cJSON *o, const char *name)
{
    return cJSON_GetObjectItemCaseSensitive(o, name);
}

static const char *text_of(struct arena *arena, const cJSON *o, const char *name)
{
    const cJSON *x = field(o, name);
    return cJSON_IsString(x) ? arena_printable(arena, x->valuestring) : "-";
}

static double number_of(const cJSON *o, const char *name, double otherwise)
{
    const cJSON *x = field(o, name);
    return cJSON_IsNumber(x) && isfinite(x->valuedouble) ? x->valuedouble : otherwise;
}

/* Whole numbers below `limit`; others are 0. */
static uint32_t index_of(const cJSON *x, uint32_t limit)
{
    bool good = cJSON_IsNumber(x) && x->valuedouble >= 0 && x->valuedouble < (double)limit;
    return good ? (uint32_t)x->valuedouble : 0;
}

static uint32_t count_of(const cJSON *list)
{
    return cJSON_IsArray(list) ? (uint32_t)cJSON_GetArraySize(list) : 0;
}

/* "tp 4", or "dp 2 x tp 4". */
static void read_mesh(struct document *d, const cJSON *mesh)
{
    struct text t = {.arena = d->arena};
    const cJSON *x = NULL;
    cJSON_ArrayForEach(x, field(mesh, "axes"))
    {
        text_printf(&t, "%s%s %.0f", t.length == 0 ? "" : " x ", text_of(d->arena, x, "name"), number_of(x, "size", 1));
    }
    double ranks = number_of(mesh, "ranks", 1);
    d->mesh = t.at == NULL ? "1 rank" : t.at;
    d->ranks = ranks >= 1 && ranks <= MOST_RANKS ? (uint32_t)ranks : 1;
}

static void read_nominal(struct document *d, const cJSON *cost)
{
    struct text t = {.arena = d->arena};
    const cJSON *x = NULL;
    cJSON_ArrayForEach(x, field(cost, "nominal"))
    {
        if (cJSON_IsNumber(x) && x->string != NULL) {
            text_printf(&t, "%s%s=%.0f", t.length == 0 ? "" : ", ", arena_printable(d->arena, x->string),
                        x->valuedouble);
        }
    }
    d->nominal = t.at == NULL ? "" : t.at;
}

static void read_collectives(struct document *d, const cJSON *root)
{
    const cJSON *list = field(root, "collectives"), *x = NULL;
    struct told_collective *out = NEW_ARRAY(d->arena, struct told_collective, count_of(list) + 1);
    cJSON_ArrayForEach(x, list)
    {
        out[d->collective_count++] = (struct told_collective){
            text_of(d->arena, x, "kind"),     text_of(d->arena, x, "value"),  text_of(d->arena, x, "node"),
            text_of(d->arena, x, "elements"), text_of(d->arena, x, "reason"), number_of(x, "bytes", 0),
            count_of(field(x, "layers"))};
    }
    d->collective = out;
}

static void read_alternatives(struct document *d, const cJSON *list, struct told_layer *l)
{
    struct told_alternative *out = NEW_ARRAY(d->arena, struct told_alternative, count_of(list) + 1);
    const cJSON *x = NULL;
    cJSON_ArrayForEach(x, list)
    {
        out[l->alternative_count++] = (struct told_alternative){
            .style = text_of(d->arena, x, "style"),
            .why = text_of(d->arena, x, "why"),
            .possible = cJSON_IsTrue(field(x, "possible")),
            .priced = cJSON_IsNumber(field(x, "bytes")),
            .bytes = number_of(x, "bytes", 0),
            .seconds = number_of(x, "seconds", 0),
            .collectives = number_of(x, "collectives", 0),
        };
    }
    l->alternative = out;
}

/* What was stored per weight's name: the entry that is cut along the layer's axis, else the first. */
struct stored {
    const cJSON *param;
    uint32_t next; /* 1 + another entry of that name; 0: last */
};

static void read_stored(struct document *d, const cJSON *root, struct map *by_name, struct stored **out)
{
    const cJSON *list = field(root, "params"), *x = NULL;
    struct stored *all = NEW_ARRAY(d->arena, struct stored, count_of(list) + 1);
    uint32_t count = 0;
    cJSON_ArrayForEach(x, list)
    {
        const char *name = text_of(d->arena, x, "name");
        uint32_t *first = map_put(by_name, name, strlen(name), NULL);
        all[count] = (struct stored){x, *first};
        *first = ++count;
    }
    *out = all;
}

static void read_bytes(struct document *d, const struct map *by_name, const struct stored *all, struct told_layer *l)
{
    const uint32_t *first = map_find(by_name, l->weight, strlen(l->weight));
    const cJSON *param = NULL;
    for (uint32_t i = first == NULL ? 0 : *first; i != 0; i = all[i - 1].next) {
        if (param == NULL || number_of(all[i - 1].param, "axis", -1) == l->axis) {
            param = all[i - 1].param;
        }
    }
    if (param == NULL || count_of(field(param, "bytes")) != d->ranks) {
        return;
    }
    double *bytes = NEW_ARRAY(d->arena, double, d->ranks);
    const cJSON *x = NULL;
    uint32_t k = 0;
    cJSON_ArrayForEach(x, field(param, "bytes"))
    {
        bytes[k++] = cJSON_IsNumber(x) ? x->valuedouble : 0;
    }
    l->bytes = bytes;
    l->whole_bytes = number_of(param, "whole_bytes", 0);
}

/* Per layer the collectives that name it, in order. */
static void tie_collectives(struct document *d, const cJSON *root, struct told_layer *layers)
{
    struct tie {
        uint32_t layer, collective;
    };
    LIST(struct tie) ties = {0};
    const cJSON *c = NULL, *x = NULL;
    uint32_t number = 0;
    cJSON_ArrayForEach(c, field(root, "collectives"))
    {
        cJSON_ArrayForEach(x, field(c, "layers"))
        {
            struct tie t = {index_of(x, d->layer_count), number};
            *PUSH(d->arena, &ties) = t;
            layers[t.layer].collective_count += d->layer_count > 0;
        }
        number++;
    }
    uint32_t **fill = NEW_ARRAY(d->arena, uint32_t *, d->layer_count + 1);
    for (uint32_t i = 0; i < d->layer_count; i++) {
        fill[i] = NEW_ARRAY(d->arena, uint32_t, layers[i].collective_count + 1);
        layers[i].collective = fill[i];
    }
    for (uint32_t i = 0; d->layer_count > 0 && i < ties.count; i++) {
        *fill[ties.at[i].layer]++ = ties.at[i].collective;
    }
}

static void read_layers(struct document *d, const cJSON *root)
{
    const cJSON *list = field(root, "layers"), *regions = field(root, "regions"), *x = NULL;
    uint32_t *region = NEW_ARRAY(d->arena, uint32_t, count_of(regions) + 1);
    cJSON_ArrayForEach(x, regions)
    {
        region[++d->region_count] = index_of(x, UINT32_MAX);
    }
    d->region = region;
    struct told_layer *out = NEW_ARRAY(d->arena, struct told_layer, count_of(list) + 1);
    struct map by_name = {.arena = d->arena};
    struct stored *stored = NULL;
    read_stored(d, root, &by_name, &stored);
    cJSON_ArrayForEach(x, list)
    {
        struct told_layer *l = &out[d->layer_count++];
        *l = (struct told_layer){
            .node = text_of(d->arena, x, "node"),
            .op_type = text_of(d->arena, x, "op_type"),
            .style = text_of(d->arena, x, "style"),
            .weight = text_of(d->arena, x, "weight"),
            .placement = text_of(d->arena, x, "placement"),
            .reason = text_of(d->arena, x, "reason"),
            .axis = number_of(x, "axis", -1),
            .kind = index_of(field(x, "kind"), UINT32_MAX),
            .from = index_of(field(x, "from"), d->region_count + 1),
            .to = index_of(field(x, "to"), d->region_count + 1),
        };
        read_alternatives(d, field(x, "alternatives"), l);
        read_bytes(d, &by_name, stored, l);
    }
    d->layer = out;
    tie_collectives(d, root, out);
}

static void read_values(struct document *d, const cJSON *root)
{
    const cJSON *list = field(root, "values"), *x = NULL;
    struct told_value *out = NEW_ARRAY(d->arena, struct told_value, count_of(list) + 1);
    cJSON_ArrayForEach(x, list)
    {
        char *shape = cJSON_PrintUnformatted(field(x, "shape"));
        out[d->value_count++] =
            (struct told_value){text_of(d->arena, x, "name"), shape == NULL ? "-" : arena_printable(d->arena, shape),
                                text_of(d->arena, x, "placement")};
        cJSON_free(shape);
    }
    d->value = out;
}

static void read_costs(struct document *d, const cJSON *root)
{
    const cJSON *cost = field(root, "cost"), *m = NULL;
    struct told_memory *memory = NEW_ARRAY(d->arena, struct told_memory, d->ranks);
    uint32_t rank = 0;
    cJSON_ArrayForEach(m, field(root, "memory"))
    {
        if (rank < d->ranks) {
            memory[rank++] = (struct told_memory){number_of(m, "weights", 0), number_of(m, "activations", 0)};
        }
    }
    d->memory = memory;
    d->weight_bytes = number_of(cost, "weight_bytes_per_rank", 0);
    d->seconds = number_of(cost, "seconds", 0);
    d->switches = number_of(cost, "switches", 0);
    d->collective_bytes = number_of(cost, "collective_bytes", 0);
    read_nominal(d, cost);
}

status document_parse(struct arena *arena, const char *name, const char *json, size_t length, struct diag *diag,
                      struct document *out)
{
    const cJSON *root = json_keep(arena, cJSON_ParseWithLength(json, length));
    if (!cJSON_IsObject(root) || !cJSON_IsArray(field(root, "layers"))) {
        return diag_error(diag, TPC_DATA, name, "the plan's decisions are no document of tpc: compile the model again");
    }
    *out = (struct document){.arena = arena, .text = json, .length = length};
    out->model = text_of(arena, field(root, "model"), "path");
    out->note = cJSON_IsString(field(root, "note")) ? text_of(arena, root, "note") : NULL;
    read_mesh(out, field(root, "mesh"));
    read_collectives(out, root);
    read_layers(out, root);
    read_values(out, root);
    read_costs(out, root);
    return TPC_OK;
}
