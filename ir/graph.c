/* ir/graph.c - the tables of a Graph, guards, walking, and equality of nodes. Builders are in graph_build.c. */
#include "ir/graph.h"

#include <assert.h>

struct graph *graph_new(struct arena *arena)
{
    struct graph *g = NEW(arena, struct graph);
    g->arena = arena;
    g->dims = dims_new(arena);
    (void)PUSH(arena, &g->nodes); /* the reserved entries */
    (void)PUSH(arena, &g->origins);
    (void)PUSH(arena, &g->partitions);
    g->partitions.at[0].parts = 1;
    return g;
}

struct graph *graph_derive(const struct graph *g)
{
    struct graph *d = NEW(g->arena, struct graph);
    *d = *g;
    memset(&d->nodes, 0, sizeof d->nodes);
    memset(&d->inputs, 0, sizeof d->inputs);
    memset(&d->outputs, 0, sizeof d->outputs);
    memset(&d->states, 0, sizeof d->states);
    memset(&d->source, 0, sizeof d->source);
    (void)PUSH(d->arena, &d->nodes);
    /* Full lists: the first push of either graph copies, so that neither writes into what the other sees. */
    d->params.capacity = d->params.count;
    d->files.capacity = d->files.count;
    d->origins.capacity = d->origins.count;
    d->guards.capacity = d->guards.count;
    d->partitions.capacity = d->partitions.count;
    d->shards.capacity = d->shards.count;
    d->opsets.capacity = d->opsets.count;
    d->origin = 0;
    d->refuse = NULL;
    d->refuse_context = NULL;
    return d;
}

/* ---- origins ---- */

void graph_set_origin(struct graph *g, uint32_t origin)
{
    assert(origin < g->origins.count);
    g->origin = origin;
}

uint32_t graph_add_origin(struct graph *g, const char *file, int64_t index, const char *name, const char *op_type)
{
    *PUSH(g->arena, &g->origins) = (struct origin){file, index, name ? name : "", op_type ? op_type : "", NULL};
    return g->origins.count - 1;
}

const char *origin_text(const struct graph *g, uint32_t origin, struct arena *arena)
{
    const char *file = g->model_path ? g->model_path : "tpc";
    if (origin == 0 || origin >= g->origins.count)
        return file;
    const struct origin *o = &g->origins.at[origin];
    struct text out = {.arena = arena};
    text_put(&out, o->file ? o->file : file);
    text_put(&out, o->index >= 0 || o->name[0] ? ": " : "");
    if (o->index >= 0)
        text_printf(&out, "node %lld%s", (long long)o->index, o->name[0] ? " " : "");
    if (o->name[0])
        text_printf(&out, "'%s'", o->name);
    if (o->op_type[0])
        text_printf(&out, " (%s)", o->op_type);
    return out.at;
}

const char *graph_where(const struct graph *g, value v, struct arena *arena)
{
    return origin_text(g, graph_node(g, v)->origin, arena);
}

/* ---- guards ---- */

bool graph_guard(struct graph *g, dim a, dim b, const char *why)
{
    if (!dim_valid(a) || !dim_valid(b))
        return false;
    if (dim_resolve(g->dims, a) == dim_resolve(g->dims, b)) /* what was assumed before implies it */
        return true;
    for (uint32_t i = 0; i < g->guards.count; i++)
        if ((g->guards.at[i].a == a && g->guards.at[i].b == b) || (g->guards.at[i].a == b && g->guards.at[i].b == a))
            return true;
    if (!dim_assume_equal(g->dims, a, b))
        return false;
    *PUSH(g->arena, &g->guards) = (struct guard){a, b, g->origin, arena_strdup(g->arena, why ? why : "")};
    return true;
}

/* The same list where nothing changes. */
static const dim *resolve_list(struct graph *g, const dim *list, uint32_t count)
{
    dim *fresh = NULL;
    for (uint32_t i = 0; i < count; i++) {
        dim d = dim_resolve(g->dims, list[i]);
        if (d == list[i])
            continue;
        if (!fresh)
            fresh = arena_copy(g->arena, list, count * sizeof *list);
        fresh[i] = d;
    }
    return fresh ? fresh : list;
}

void graph_resolve(struct graph *g)
{
    for (value v = 1; v < g->nodes.count; v++) {
        struct node *n = &g->nodes.at[v];
        n->shape = resolve_list(g, n->shape, n->rank);
        n->attribute.dims = resolve_list(g, n->attribute.dims, n->attribute.dims_count);
    }
    for (uint32_t p = 1; p < g->partitions.count; p++)
        g->partitions.at[p].extent = dim_resolve(g->dims, g->partitions.at[p].extent);
}

/* ---- walking ---- */

struct uses graph_uses(const struct graph *g, struct arena *arena)
{
    uint32_t *first = NEW_ARRAY(arena, uint32_t, (size_t)g->nodes.count + 2);
    for (value v = 1; v < g->nodes.count; v++) /* first[o + 2] counts, then begins, then ends one place lower */
        for (uint32_t i = 0; i < graph_node(g, v)->operand_count; i++)
            first[graph_node(g, v)->operand[i] + 2]++;
    for (uint32_t v = 2; v < g->nodes.count + 2; v++)
        first[v] += first[v - 1];
    value *use = NEW_ARRAY(arena, value, first[g->nodes.count + 1]);
    for (value v = 1; v < g->nodes.count; v++)
        for (uint32_t i = 0; i < graph_node(g, v)->operand_count; i++)
            use[first[graph_node(g, v)->operand[i] + 1]++] = v;
    return (struct uses){first, use};
}

bool *graph_live(const struct graph *g, struct arena *arena)
{
    bool *live = NEW_ARRAY(arena, bool, g->nodes.count);
    for (uint32_t i = 0; i < g->outputs.count; i++)
        live[g->outputs.at[i].value] = true;
    for (value v = g->nodes.count; v-- > 1;) {
        const struct node *n = graph_node(g, v);
        live[v] |= n->op == OP_INPUT;
        for (uint32_t i = 0; live[v] && i < n->operand_count; i++)
            live[n->operand[i]] = true;
    }
    return live;
}

dim graph_elements(const struct graph *g, value v)
{
    return dim_product(g->dims, graph_node(g, v)->shape, graph_node(g, v)->rank);
}

/* ---- equality of nodes ---- */

static bool bytes_same(const void *a, const void *b, size_t size)
{
    return size == 0 || a == b || memcmp(a, b, size) == 0;
}

static bool attribute_same(const struct attribute *a, const struct attribute *b)
{
    return a->axis == b->axis && a->mode == b->mode && a->nbatch == b->nbatch && a->ncontract == b->ncontract &&
           a->index == b->index && a->partition == b->partition && a->list_count == b->list_count &&
           a->dims_count == b->dims_count && a->data_size == b->data_size &&
           bytes_same(a->list, b->list, a->list_count * sizeof *a->list) &&
           bytes_same(a->dims, b->dims, a->dims_count * sizeof *a->dims) && bytes_same(a->data, b->data, a->data_size);
}

bool node_same(const struct node *a, const struct node *b)
{
    return a->op == b->op && a->dtype == b->dtype && a->rank == b->rank &&
           bytes_same(a->shape, b->shape, a->rank * sizeof *a->shape) && attribute_same(&a->attribute, &b->attribute);
}

uint64_t node_hash(const struct node *n)
{
    const struct attribute *a = &n->attribute;
    const uint32_t fixed[] = {(uint32_t)n->op,        (uint32_t)n->dtype, n->rank,
                              (uint32_t)a->axis,      (uint32_t)a->mode,  (uint32_t)a->nbatch,
                              (uint32_t)a->ncontract, a->index,           a->partition,
                              a->list_count,          a->dims_count};
    uint64_t h = hash_bytes(fixed, sizeof fixed, 0);
    if (n->rank)
        h = hash_bytes(n->shape, n->rank * sizeof *n->shape, h);
    if (a->list_count)
        h = hash_bytes(a->list, a->list_count * sizeof *a->list, h);
    if (a->dims_count)
        h = hash_bytes(a->dims, a->dims_count * sizeof *a->dims, h);
    if (a->data_size)
        h = hash_bytes(a->data, a->data_size, h);
    return h;
}
