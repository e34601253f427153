/* frontend/onnx/annotate_specs.c - a solution as sharding specs: for every ONNX node that holds a switch point how its inputs and outputs lie, and for the
 * nodes that make its inputs how they leave.
 *
 * A spec says what a tensor is when an op takes it or has given it, whole sums included: so a row-parallel product's output is whole. What a spec cannot
 * say (pieces that are cut each on their own and are not alike) is left out and counted. Start with onnx_annotation_specs.
 */
#include "frontend/onnx/annotate_specs.h"

struct speller {
    struct arena *arena;
    const struct graph *g;
    const struct solution *s;
    struct uses uses;
    const bool *live;
    struct map named;      /* a value's name -> its node */
    const value *by_index; /* nodes in order of their ONNX node; first[i] .. first[i + 1] */
    const uint32_t *first;
    size_t index_count;
    const char *configuration;
    bool *layer, *turned; /* per value: a switch point; one whose result leaves otherwise than it is made */
    uint32_t unsaid;
};

/* ---- where a tensor is in the graph ---- */

static const char *name_of(const struct graph *g, value v)
{
    const struct node *n = graph_node(g, v);
    return n->op == OP_PARAM ? g->params.at[n->attribute.index].name : n->name;
}

static void find_names(struct speller *p)
{
    p->named.arena = p->arena;
    for (value v = 1; v < p->g->nodes.count; v++) {
        const char *name = name_of(p->g, v);
        if (name && *name && p->live[v])
            *map_put(&p->named, name, strlen(name), NULL) = v;
    }
}

static int64_t index_of(const struct graph *g, value v)
{
    return g->origins.at[graph_node(g, v)->origin].index;
}

static void sort_by_index(struct speller *p)
{
    uint32_t *first = NEW_ARRAY(p->arena, uint32_t, p->index_count + 2);
    value *sorted = NEW_ARRAY(p->arena, value, p->g->nodes.count);
    for (int pass = 0; pass < 2; pass++) {
        for (value v = 1; v < p->g->nodes.count; v++) {
            int64_t i = index_of(p->g, v);
            if (i < 0 || (uint64_t)i >= p->index_count || !p->live[v])
                continue;
            if (pass)
                sorted[first[i]++] = v;
            else
                first[i + 1]++;
        }
        for (size_t i = 0; !pass && i < p->index_count; i++)
            first[i + 1] += first[i];
    }
    for (size_t i = p->index_count; i > 0; i--) /* filling moved each to the next one's beginning */
        first[i] = first[i - 1];
    first[0] = 0;
    p->by_index = sorted;
    p->first = first;
}

/* How ONNX node i takes the tensor; NULL when nothing that it was lowered to takes it. */
static const struct placement *taken(const struct speller *p, size_t i, const char *tensor)
{
    for (uint32_t k = p->first[i]; k < p->first[i + 1]; k++) {
        const struct node *n = graph_node(p->g, p->by_index[k]);
        for (uint32_t x = 0; x < n->operand_count; x++) {
            const char *name = name_of(p->g, n->operand[x]);
            if (name && strcmp(name, tensor) == 0)
                return p->s->operand[p->by_index[k]][x];
        }
    }
    return NULL;
}

/* How a value leaves: as its first use has it, sums finished. NULL where only switch points use it and it leaves otherwise than it was made. */
static const struct placement *delivered(const struct speller *p, value v)
{
    for (uint32_t i = p->uses.first[v]; i < p->uses.first[v + 1]; i++) {
        value w = p->uses.use[i];
        for (uint32_t x = 0; p->live[w] && !p->layer[w] && x < graph_node(p->g, w)->operand_count; x++)
            if (graph_node(p->g, w)->operand[x] == v)
                return p->s->operand[w][x];
    }
    return p->turned[v] ? NULL : p->s->result[v];
}

/* ---- messages ---- */

static Onnx__SimpleShardedDimProto *simple(struct speller *p, dim extent, uint32_t parts)
{
    Onnx__SimpleShardedDimProto *x = NEW(p->arena, Onnx__SimpleShardedDimProto);
    onnx__simple_sharded_dim_proto__init(x);
    int64_t n = 0;
    if (dim_is_const(p->g->dims, extent, &n)) {
        x->dim_case = ONNX__SIMPLE_SHARDED_DIM_PROTO__DIM_DIM_VALUE;
        x->dim_value = n;
    } else if (dim_get(p->g->dims, extent).op == DIM_SYMBOL) {
        x->dim_case = ONNX__SIMPLE_SHARDED_DIM_PROTO__DIM_DIM_PARAM;
        x->dim_param = arena_strdup(p->arena, dim_text(p->g->dims, extent, p->arena));
    }
    x->has_num_shards = 1;
    x->num_shards = parts;
    return x;
}

static uint32_t parts_of(const struct graph *g, uint32_t partition)
{
    return partition ? g->partitions.at[partition].parts : 1;
}

/* Whether all segments of an axis are cut alike: then they are one more factor, in front. */
static bool alike(const struct axis_layout *a)
{
    for (uint32_t i = 1; i < a->count; i++) {
        if (a->segment[i].count != a->segment[0].count)
            return false;
        for (uint32_t k = 0; k < a->segment[0].count; k++)
            if (a->segment[i].factor[k].extent != a->segment[0].factor[k].extent ||
                a->segment[i].factor[k].partition != a->segment[0].factor[k].partition)
                return false;
    }
    return true;
}

static Onnx__ShardedDimProto *sharded_dim(struct speller *p, uint32_t axis, const struct axis_layout *a)
{
    Onnx__ShardedDimProto *d = NEW(p->arena, Onnx__ShardedDimProto);
    const struct segment *g = &a->segment[0];
    onnx__sharded_dim_proto__init(d);
    d->has_axis = 1;
    d->axis = axis;
    d->simple_sharding = NEW_ARRAY(p->arena, Onnx__SimpleShardedDimProto *, g->count + 1);
    if (a->count > 1)
        d->simple_sharding[d->n_simple_sharding++] = simple(p, dim_const(p->g->dims, a->count), 1);
    for (uint32_t i = 0; i < g->count; i++)
        d->simple_sharding[d->n_simple_sharding++] =
            simple(p, g->factor[i].extent, parts_of(p->g, g->factor[i].partition));
    return d;
}

/* The device, or the group of devices, that has shard `shard` (row-major over the axes that are cut). */
static void put_holder(struct speller *p, const struct placement *at, uint64_t shard, uint64_t shards,
                       Onnx__ShardingSpecProto *out)
{
    const struct mesh *m = p->s->mesh;
    uint32_t ranks = mesh_parts(m, (1u << m->count) - 1), count = 0;
    int64_t *holder = NEW_ARRAY(p->arena, int64_t, ranks);
    for (uint32_t r = 0; r < ranks; r++) {
        uint64_t own = 0;
        for (uint32_t i = 0; i < at->rank; i++) {
            uint32_t mask = axis_subaxes(p->g, &at->axis[i]);
            own = own * mesh_parts(m, mask) + mesh_part_of(m, mask, r);
        }
        if (own == shard)
            holder[count++] = r;
    }
    if (shards == ranks) {
        out->device[out->n_device++] = holder[0];
        return;
    }
    Onnx__IntIntListEntryProto *group = NEW(p->arena, Onnx__IntIntListEntryProto);
    onnx__int_int_list_entry_proto__init(group);
    group->has_key = 1;
    group->key = -1 - (int64_t)shard;
    group->n_value = count;
    group->value = holder;
    out->index_to_device_group_map[out->n_index_to_device_group_map++] = group;
    out->device[out->n_device++] = group->key;
}

/* NULL when a spec cannot say it. */
static Onnx__ShardingSpecProto *spec(struct speller *p, const char *tensor, const struct placement *at)
{
    Onnx__ShardingSpecProto *x = NEW(p->arena, Onnx__ShardingSpecProto);
    uint64_t shards = 1;
    onnx__sharding_spec_proto__init(x);
    x->tensor_name = arena_strdup(p->arena, tensor);
    x->sharded_dim = NEW_ARRAY(p->arena, Onnx__ShardedDimProto *, at->rank + 1);
    for (uint32_t i = 0; i < at->rank; i++) {
        if (axis_is_whole(&at->axis[i]))
            continue;
        if (!alike(&at->axis[i])) {
            p->unsaid++;
            return NULL;
        }
        shards *= mesh_parts(p->s->mesh, axis_subaxes(p->g, &at->axis[i]));
        x->sharded_dim[x->n_sharded_dim++] = sharded_dim(p, i, &at->axis[i]);
    }
    x->device = NEW_ARRAY(p->arena, int64_t, shards);
    x->index_to_device_group_map = NEW_ARRAY(p->arena, Onnx__IntIntListEntryProto *, shards);
    for (uint64_t k = 0; k < shards; k++)
        put_holder(p, at, k, shards, x);
    return x;
}

/* Appends a spec unless the tensor has one already. */
static void add_spec(struct speller *p, Onnx__NodeDeviceConfigurationProto *c, const char *tensor,
                     const struct placement *at)
{
    for (size_t i = 0; i < c->n_sharding_spec; i++)
        if (strcmp(c->sharding_spec[i]->tensor_name, tensor) == 0)
            return;
    Onnx__ShardingSpecProto *x = at && *tensor ? spec(p, tensor, at) : NULL;
    if (x)
        c->sharding_spec[c->n_sharding_spec++] = x;
}

/* ---- nodes ---- */

/* Field 10 of a NodeProto, packed. */
static struct annotation_bytes pack(struct speller *p, Onnx__NodeDeviceConfigurationProto *c)
{
    Onnx__NodeProto n;
    onnx__node_proto__init(&n);
    n.n_device_configurations = 1;
    n.device_configurations = &c;
    size_t length = onnx__node_proto__get_packed_size(&n);
    uint8_t *bytes = (uint8_t *)arena_alloc(p->arena, length);
    onnx__node_proto__pack(&n, bytes);
    return (struct annotation_bytes){bytes, length};
}

static struct annotation_bytes node_specs(struct speller *p, const Onnx__NodeProto *n, size_t i, bool inputs)
{
    Onnx__NodeDeviceConfigurationProto c;
    onnx__node_device_configuration_proto__init(&c);
    c.configuration_id = arena_strdup(p->arena, p->configuration);
    c.sharding_spec = NEW_ARRAY(p->arena, Onnx__ShardingSpecProto *, n->n_input + n->n_output + 1);
    for (size_t k = 0; inputs && k < n->n_input; k++)
        add_spec(p, &c, n->input[k], taken(p, i, n->input[k]));
    for (size_t k = 0; k < n->n_output; k++) {
        const uint32_t *v = map_find(&p->named, n->output[k], strlen(n->output[k]));
        add_spec(p, &c, n->output[k], v ? delivered(p, *v) : NULL);
    }
    return c.n_sharding_spec ? pack(p, &c) : (struct annotation_bytes){NULL, 0};
}

const struct annotation_bytes *onnx_annotation_specs(struct arena *arena, const Onnx__GraphProto *proto,
                                                     const struct graph *g, const struct solution *s, const char *name,
                                                     uint32_t *unsaid)
{
    struct speller p = {.arena = arena,
                        .g = g,
                        .s = s,
                        .uses = graph_uses(g, arena),
                        .live = graph_live(g, arena),
                        .index_count = proto->n_node,
                        .configuration = name};
    struct annotation_bytes *out = NEW_ARRAY(arena, struct annotation_bytes, proto->n_node + 1);
    struct map source = {.arena = arena}; /* names of switch points' inputs */
    bool *point = NEW_ARRAY(arena, bool, proto->n_node + 1);
    find_names(&p);
    sort_by_index(&p);
    p.layer = NEW_ARRAY(arena, bool, g->nodes.count);
    p.turned = NEW_ARRAY(arena, bool, g->nodes.count);
    for (uint32_t i = 0; i < s->layer_count; i++) {
        p.layer[s->layers[i].node] = s->layers[i].parts.in != 0;
        p.turned[s->layers[i].node] = s->layers[i].parts.leaves != s->layers[i].parts.out;
        int64_t at = index_of(g, s->layers[i].node);
        if (at < 0 || (uint64_t)at >= proto->n_node)
            continue;
        point[at] = true;
        for (size_t k = 0; k < proto->node[at]->n_input; k++)
            map_put(&source, proto->node[at]->input[k], strlen(proto->node[at]->input[k]), NULL);
    }
    for (size_t i = 0; i < proto->n_node; i++) {
        bool makes = false;
        for (size_t k = 0; k < proto->node[i]->n_output && !point[i]; k++)
            makes = makes || map_find(&source, proto->node[i]->output[k], strlen(proto->node[i]->output[k]));
        if (point[i] || makes)
            out[i] = node_specs(&p, proto->node[i], i, point[i]);
    }
    *unsaid = p.unsaid;
    return out;
}
