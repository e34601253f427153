/* frontend/onnx/annotate_read.c - a model's device annotations, checked as far as they can be without the graph.
 *
 * The file is untrusted: every number that something is indexed or multiplied by is looked at here; axes and extents are compared with the values they
 * are for in frontend/annotate.c. Start with onnx_read_annotations.
 */
#include "frontend/onnx/annotation.h"
#include "frontend/onnx/import.h"

#include <inttypes.h>

struct reader {
    struct arena *arena, *scratch;
    struct diag *diag;
    const char *path;
    const Onnx__ModelProto *model;
    const char *configuration; /* chosen */
    uint32_t ranks;
    LIST(struct annotation) found;
    const char *where; /* the node being read */
    const Onnx__NodeProto *node;
    int64_t index;
};

/* ---- configurations ---- */

static status check_configuration(struct reader *r, const Onnx__DeviceConfigurationProto *c, size_t i)
{
    if (!c->name || !*c->name)
        return diag_error(r->diag, TPC_DATA, r->path, "device configuration %zu has no name", i);
    if (c->num_devices < 1)
        return diag_error(r->diag, TPC_DATA, r->path, "device configuration '%s' has %d devices", c->name,
                          c->num_devices);
    if (c->n_device && c->n_device != (size_t)c->num_devices)
        return diag_error(r->diag, TPC_DATA, r->path, "device configuration '%s' names %zu devices of %d", c->name,
                          c->n_device, c->num_devices);
    for (size_t k = 0; k < i; k++)
        if (strcmp(r->model->configuration[k]->name, c->name) == 0)
            return diag_error(r->diag, TPC_DATA, r->path, "there are two device configurations '%s'", c->name);
    return TPC_OK;
}

static status choose_configuration(struct reader *r)
{
    struct text known = {.arena = r->scratch};
    for (size_t i = 0; i < r->model->n_configuration; i++) {
        const Onnx__DeviceConfigurationProto *c = r->model->configuration[i];
        status s = check_configuration(r, c, i);
        if (s != TPC_OK)
            return s;
        text_printf(&known, "%s'%s' of %d", i ? ", " : "", c->name, c->num_devices);
        if (!r->configuration && c->num_devices == (int32_t)r->ranks)
            r->configuration = c->name;
    }
    if (r->configuration)
        return TPC_OK;
    return diag_error(r->diag, TPC_DATA, r->path, "--use-annotations: no device configuration of %u devices (%s)",
                      r->ranks, known.at ? known.at : "there is none at all");
}

static bool is_configuration(const struct reader *r, const char *name)
{
    for (size_t i = 0; name && i < r->model->n_configuration; i++)
        if (strcmp(r->model->configuration[i]->name, name) == 0)
            return true;
    return false;
}

/* ---- one spec ---- */

static status bad(struct reader *r, const Onnx__ShardingSpecProto *p, const char *format, ...) TPC_PRINTF(3, 4);
static status bad(struct reader *r, const Onnx__ShardingSpecProto *p, const char *format, ...)
{
    char text[300];
    va_list list;
    va_start(list, format);
    vsnprintf(text, sizeof text, format, list);
    va_end(list);
    return diag_error(r->diag, TPC_DATA, r->where, "the annotation of '%s' %s", p->tensor_name, text);
}

static const Onnx__IntIntListEntryProto *group_of(const Onnx__ShardingSpecProto *p, int64_t key)
{
    for (size_t i = 0; i < p->n_index_to_device_group_map; i++)
        if (p->index_to_device_group_map[i]->key == key)
            return p->index_to_device_group_map[i];
    return NULL;
}

static status take_device(struct reader *r, const Onnx__ShardingSpecProto *p, int64_t device, bool *taken)
{
    if (device < 0 || device >= (int64_t)r->ranks)
        return bad(r, p, "is for device %lld, and there are %u", (long long)device, r->ranks);
    if (taken[device])
        return bad(r, p, "has device %lld twice", (long long)device);
    taken[device] = true;
    return TPC_OK;
}

/* As many devices or groups as shards; every device has one part. */
static status check_devices(struct reader *r, const Onnx__ShardingSpecProto *p, uint64_t shards)
{
    bool *taken = NEW_ARRAY(r->scratch, bool, r->ranks);
    uint32_t count = 0;
    if (p->n_device != shards)
        return bad(r, p, "names %zu devices or groups for %llu shards", p->n_device, (unsigned long long)shards);
    for (size_t i = 0; i < p->n_device; i++) {
        const Onnx__IntIntListEntryProto *group = group_of(p, p->device[i]);
        size_t n = group ? group->n_value : 1;
        for (size_t k = 0; k < n; k++, count++) {
            status s = take_device(r, p, group ? group->value[k] : p->device[i], taken);
            if (s != TPC_OK)
                return s;
        }
    }
    if (count != r->ranks)
        return bad(r, p, "is for %u of %u devices; each must have a part", count, r->ranks);
    return TPC_OK;
}

static status read_axis(struct reader *r, const Onnx__ShardingSpecProto *p, const Onnx__ShardedDimProto *d,
                        struct annotated_axis *out)
{
    int64_t parts = 1;
    if (!d->has_axis)
        return bad(r, p, "has a dimension without an axis");
    if (d->axis < -MAX_RANK || d->axis >= MAX_RANK)
        return bad(r, p, "is for axis %lld, which no tensor has", (long long)d->axis);
    *out = (struct annotated_axis){.axis = d->axis, .sized = d->n_simple_sharding > 0, .extent = 1};
    for (size_t i = 0; i < d->n_simple_sharding; i++) {
        const Onnx__SimpleShardedDimProto *x = d->simple_sharding[i];
        bool number = x->dim_case == ONNX__SIMPLE_SHARDED_DIM_PROTO__DIM_DIM_VALUE;
        if (!x->has_num_shards || x->num_shards < 1 || x->num_shards > (int64_t)r->ranks)
            return bad(r, p, "has %lld shards over %u devices", x->has_num_shards ? (long long)x->num_shards : 0,
                       r->ranks);
        parts *= x->num_shards;
        if (parts > (int64_t)r->ranks)
            return bad(r, p, "has %lld shards over %u devices", (long long)parts, r->ranks);
        if (number && (x->dim_value < 1 || !i64_mul(out->extent, x->dim_value, &out->extent)))
            return bad(r, p, "has a dim of %lld on axis %lld", (long long)x->dim_value, (long long)d->axis);
        if (number && x->num_shards > x->dim_value)
            return bad(r, p, "has %lld shards of a dim of %lld", (long long)x->num_shards, (long long)x->dim_value);
        out->sized = out->sized && number;
        if (x->dim_case == ONNX__SIMPLE_SHARDED_DIM_PROTO__DIM_DIM_PARAM && x->dim_param && *x->dim_param)
            out->symbol = arena_strdup(r->arena, x->dim_param);
    }
    out->parts = (uint32_t)parts;
    return TPC_OK;
}

static bool is_named(size_t count, char *const *name, const char *wanted)
{
    for (size_t i = 0; i < count; i++)
        if (name[i] && strcmp(name[i], wanted) == 0)
            return true;
    return false;
}

static status read_spec(struct reader *r, const Onnx__ShardingSpecProto *p)
{
    const char *tensor = p->tensor_name ? p->tensor_name : "";
    bool input = *tensor && is_named(r->node->n_input, r->node->input, tensor),
         output = *tensor && is_named(r->node->n_output, r->node->output, tensor);
    if (!input && !output)
        return diag_error(r->diag, TPC_DATA, r->where,
                          "an annotation is for '%s', which is none of its inputs and outputs", tensor);
    for (uint32_t i = 0; i < r->found.count; i++)
        if (r->found.at[i].node == r->index && strcmp(r->found.at[i].tensor, tensor) == 0)
            return bad(r, p, "stands there twice");
    struct annotated_axis *axis = NEW_ARRAY(r->arena, struct annotated_axis, p->n_sharded_dim);
    uint64_t shards = 1;
    for (size_t i = 0; i < p->n_sharded_dim; i++) {
        status s = read_axis(r, p, p->sharded_dim[i], &axis[i]);
        if (s != TPC_OK)
            return s;
        shards *= axis[i].parts;
        if (shards > r->ranks)
            return bad(r, p, "has %llu shards over %u devices", (unsigned long long)shards, r->ranks);
    }
    status s = p->n_device || shards > 1 ? check_devices(r, p, shards) : TPC_OK;
    if (s != TPC_OK)
        return s;
    *PUSH(r->arena, &r->found) = (struct annotation){
        r->index, r->where, arena_strdup(r->arena, tensor), output, (uint32_t)p->n_sharded_dim, axis};
    return TPC_OK;
}

/* ---- nodes ---- */

static status read_node(struct reader *r, const Onnx__NodeProto *n, int64_t index)
{
    bool seen = false;
    r->node = n;
    r->index = index;
    r->where = arena_printf(r->arena, "%s: node %" PRId64 " '%s' (%s)", r->path, index, n->name ? n->name : "",
                            n->op_type ? n->op_type : "");
    for (size_t i = 0; i < n->n_device_configurations; i++) {
        const Onnx__NodeDeviceConfigurationProto *c = n->device_configurations[i];
        if (!is_configuration(r, c->configuration_id))
            return diag_error(r->diag, TPC_DATA, r->where, "is annotated for a configuration '%s' that the model lacks",
                              c->configuration_id ? c->configuration_id : "");
        if (strcmp(c->configuration_id, r->configuration) != 0)
            continue;
        if (seen)
            return diag_error(r->diag, TPC_DATA, r->where, "is annotated twice for configuration '%s'",
                              r->configuration);
        if (c->has_pipeline_stage && c->pipeline_stage != 0)
            return diag_error(r->diag, TPC_UNSUPPORTED, r->where, "is in pipeline stage %d: tpc has no pipelines",
                              c->pipeline_stage);
        seen = true;
        for (size_t k = 0; k < c->n_sharding_spec; k++) {
            status s = read_spec(r, c->sharding_spec[k]);
            if (s != TPC_OK)
                return s;
        }
    }
    return TPC_OK;
}

static status read_model(struct reader *r)
{
    const uint8_t *bytes = NULL;
    size_t length = 0;
    struct wire_bytes walked = {NULL, 0};
    status s = file_map(r->scratch, r->diag, r->path, &bytes, &length);
    if (s == TPC_OK)
        s = wire_walk(r->scratch, r->path, WIRE_MODEL, bytes, length, r->diag, &walked);
    if (s != TPC_OK)
        return s;
    r->model = proto_unpack(r->scratch, &onnx__model_proto__descriptor, &walked);
    if (!r->model || !r->model->graph)
        return diag_error(r->diag, TPC_DATA, r->path, "not a readable ONNX file");
    s = choose_configuration(r);
    for (size_t i = 0; i < r->model->graph->n_node && s == TPC_OK; i++)
        if (r->model->graph->node[i]->n_device_configurations)
            s = read_node(r, r->model->graph->node[i], (int64_t)i);
    return s;
}

status onnx_read_annotations(struct arena *arena, const char *path, uint32_t ranks, struct diag *diag,
                             struct annotations *out)
{
    struct reader r = {.arena = arena, .scratch = arena_new_in(arena), .diag = diag, .path = path, .ranks = ranks};
    status s = read_model(&r);
    *out = (struct annotations){r.found.count, r.found.at};
    arena_free(r.scratch);
    return s;
}
