/* frontend/onnx/scope.c - names, order, and the bodies that nodes stand in.
 *
 * A scope maps ONNX names to data. scope_nodes lowers the nodes that its goals need: files may list nodes in any order, and what no
 * output needs is not looked at. It is one loop with its own stack, so that depth of a graph costs no C stack. Start reading there.
 */
#include "frontend/onnx/import.h"

/* ---- data --------------------------------------------------------------------------------------------------- */

struct datum *datum_add(struct importer *im, uint32_t *index)
{
    struct datum *d = NEW(im->scratch, struct datum);
    *index = im->data.count;
    *PUSH(im->scratch, &im->data) = d;
    d->epoch = im->epoch;
    return d;
}

struct sync_context {
    struct importer *im;
    const struct datum *d;
};
static const struct formula *sync_element(void *context, const dim *index)
{
    const struct sync_context *c = context;
    const struct formula *f = content_at(&c->im->s, c->d->content, c->d->rank, c->d->shape, index);
    return f ? formula_at(&c->im->s, f, 0, NULL) : NULL;
}

/* Brings shape and content up to date with the guards. */
void datum_sync(struct importer *im, struct datum *d)
{
    if (d->epoch == im->epoch)
        return;
    struct sync_context context = {im, d};
    dim *shape = NEW_ARRAY(im->scratch, dim, d->rank);
    bool same = true;
    for (uint32_t k = 0; k < d->rank; k++) {
        shape[k] = dim_resolve(im->t, d->shape[k]);
        same = same && shape[k] == d->shape[k];
    }
    if (d->content && (!same || !d->stored))
        d->content = content_make(&im->s, d->rank, shape, sync_element, &context);
    d->shape = shape;
    d->epoch = im->epoch;
}

/* The datum's node. What is known only as content or as stored bytes is built now, with the origin of its maker. */
value datum_use(struct importer *im, uint32_t index)
{
    struct datum *d = im->data.at[index];
    if (d->node)
        return d->node;
    datum_sync(im, d);
    if (!d->stored && !d->content) /* a guard changed the extents so that its elements can no longer be listed */
        call_unsupported(im->current, "the elements of '%s' can no longer be told", d->name ? d->name : "");
    if (d->stored)
        d->node = stored_build(im, d);
    else
        d->node = content_emit(&im->s, im->g, d->dtype, d->rank, d->shape, d->content);
    struct node *n = &im->g->nodes.at[d->node];
    if (!n->name && d->name)
        n->name = arena_strdup(im->arena, d->name);
    return d->node;
}

/* ---- names -------------------------------------------------------------------------------------------------- */

uint32_t scope_find(const struct scope *s, const char *name)
{
    for (; s; s = s->outer) {
        const uint32_t *at = map_find(&s->names, name, strlen(name));
        if (at && *at)
            return *at;
    }
    return 0;
}

status scope_define(struct importer *im, struct scope *s, const char *name, uint32_t datum)
{
    uint32_t *at = map_put(&s->names, name, strlen(name), NULL);
    if (*at)
        return diag_error(im->diag, TPC_DATA, im->path, "the name '%s' is given to two values", name);
    *at = datum;
    return TPC_OK;
}

status scope_tensors(struct importer *im, struct scope *s, const Onnx__GraphProto *graph)
{
    status result = TPC_OK;
    for (size_t i = 0; i < graph->n_initializer && result == TPC_OK; i++) {
        const Onnx__TensorProto *p = graph->initializer[i];
        uint32_t index = 0;
        struct datum *d = datum_add(im, &index);
        d->pending = p;
        d->weight = true;
        d->name = p->name ? p->name : "";
        result = scope_define(im, s, d->name, index);
    }
    if (result == TPC_OK && graph->n_sparse_initializer > 0)
        result = diag_error(im->diag, TPC_UNSUPPORTED, im->path, "sparse initializers are not supported");
    return result;
}

/* ---- order -------------------------------------------------------------------------------------------------- */

enum visit { UNSEEN, OPEN, DONE };

struct order {
    struct importer *im;
    const struct frame *frame;
    size_t count;
    Onnx__NodeProto *const *node;
    struct map maker; /* name -> node index + 1 */
    uint8_t *seen;
    LIST(uint32_t) stack;
    struct name_list *needs; /* per node: names that it reads, computed when it is opened */
};
struct name_list {
    LIST(const char *) names;
    uint32_t next;
};

static void needs_of_node(struct importer *im, const Onnx__NodeProto *n, struct name_list *out);

static void own_name(struct map *own, const char *name)
{
    if (name && *name)
        *map_put(own, name, strlen(name), NULL) = 1;
}

/* The names that a subgraph reads and does not define itself: its own may be names of the graph around it too. */
static void needs_of_graph(struct importer *im, const Onnx__GraphProto *g, struct name_list *out)
{
    struct name_list inner = {.next = 0};
    struct map own = {.arena = im->scratch};
    for (size_t i = 0; i < g->n_input; i++)
        own_name(&own, g->input[i]->name);
    for (size_t i = 0; i < g->n_initializer; i++)
        own_name(&own, g->initializer[i]->name);
    for (size_t i = 0; i < g->n_node; i++) {
        needs_of_node(im, g->node[i], &inner);
        for (size_t k = 0; k < g->node[i]->n_output; k++)
            own_name(&own, g->node[i]->output[k]);
    }
    for (size_t i = 0; i < g->n_output; i++)
        if (g->output[i]->name)
            *PUSH(im->scratch, &inner.names) = g->output[i]->name;
    for (uint32_t i = 0; i < inner.names.count; i++)
        if (!map_find(&own, inner.names.at[i], strlen(inner.names.at[i])))
            *PUSH(im->scratch, &out->names) = inner.names.at[i];
}

/* All names that n reads, those of its subgraphs included. Recursion is as deep as messages nest, which wire.c bounds. */
static void needs_of_node(struct importer *im, const Onnx__NodeProto *n, struct name_list *out)
{
    for (size_t i = 0; i < n->n_input; i++)
        if (*n->input[i])
            *PUSH(im->scratch, &out->names) = n->input[i];
    for (size_t i = 0; i < n->n_attribute; i++) {
        if (n->attribute[i]->g)
            needs_of_graph(im, n->attribute[i]->g, out);
        for (size_t k = 0; k < n->attribute[i]->n_graphs; k++)
            needs_of_graph(im, n->attribute[i]->graphs[k], out);
    }
}

static status list_makers(struct order *o)
{
    for (size_t i = 0; i < o->count; i++) {
        for (size_t k = 0; k < o->node[i]->n_output; k++) {
            const char *name = o->node[i]->output[k];
            if (!*name)
                continue;
            uint32_t *at = map_put(&o->maker, name, strlen(name), NULL);
            if (*at || map_find(&o->frame->scope->names, name, strlen(name)))
                return diag_error(o->im->diag, TPC_DATA, o->im->path, "the name '%s' is given to two values", name);
            *at = (uint32_t)i + 1;
        }
    }
    return TPC_OK;
}

static status report_cycle(struct order *o, uint32_t back_to)
{
    struct text names = {.arena = o->im->scratch};
    uint32_t first = 0, listed = 0;
    while (o->stack.at[first] != back_to)
        first++;
    for (uint32_t i = first; i < o->stack.count; i++) {
        const Onnx__NodeProto *n = o->node[o->stack.at[i]];
        if (++listed > 8) {
            text_printf(&names, " ... (%u nodes)", o->stack.count - first);
            break;
        }
        text_printf(&names, "%s%u '%s' (%s)", i == first ? "" : " <- ", o->stack.at[i], n->name ? n->name : "",
                    n->op_type ? n->op_type : "");
    }
    return diag_error(o->im->diag, TPC_DATA, o->im->path, "nodes form a cycle: %s", names.at);
}

static status open_node(struct order *o, uint32_t index)
{
    if (o->seen[index] == DONE)
        return TPC_OK;
    if (o->seen[index] == OPEN)
        return report_cycle(o, index);
    o->seen[index] = OPEN;
    needs_of_node(o->im, o->node[index], &o->needs[index]);
    *PUSH(o->im->scratch, &o->stack) = index;
    return TPC_OK;
}

/* Opens the next maker that the top of the stack waits for, or runs the top. */
static status step_node(struct order *o)
{
    uint32_t index = o->stack.at[o->stack.count - 1];
    struct name_list *needs = &o->needs[index];
    while (needs->next < needs->names.count) {
        const char *name = needs->names.at[needs->next++];
        const uint32_t *maker = map_find(&o->maker, name, strlen(name));
        if (maker && o->seen[*maker - 1] != DONE)
            return open_node(o, *maker - 1);
    }
    o->seen[index] = DONE;
    o->stack.count--;
    return call_run(o->im, o->frame, o->node[index], o->frame->index < 0 ? (int64_t)index : o->frame->index);
}

/* Marks what the goals need, so that the loop below can go in the file's order. */
static bool *needed_nodes(struct order *o, size_t goals, const char *const *goal)
{
    struct arena *a = o->im->scratch;
    bool *needed = NEW_ARRAY(a, bool, o->count + 1);
    LIST(const char *) names = {NULL, 0, 0};
    for (size_t i = 0; i < goals; i++)
        *PUSH(a, &names) = goal[i];
    for (uint32_t i = 0; i < names.count; i++) {
        const uint32_t *maker = map_find(&o->maker, names.at[i], strlen(names.at[i]));
        struct name_list needs = {.next = 0};
        if (!maker || needed[*maker - 1])
            continue;
        needed[*maker - 1] = true;
        needs_of_node(o->im, o->node[*maker - 1], &needs);
        for (uint32_t k = 0; k < needs.names.count; k++)
            *PUSH(a, &names) = needs.names.at[k];
    }
    return needed;
}

status scope_nodes(struct importer *im, const struct frame *frame, size_t count, Onnx__NodeProto *const *node,
                   size_t goals, const char *const *goal)
{
    struct order o = {.im = im, .frame = frame, .count = count, .node = node, .maker = {.arena = im->scratch}};
    o.seen = NEW_ARRAY(im->scratch, uint8_t, count);
    o.needs = NEW_ARRAY(im->scratch, struct name_list, count);
    status s = list_makers(&o);
    const bool *needed = s == TPC_OK ? needed_nodes(&o, goals, goal) : NULL;
    for (size_t i = 0; i < count && s == TPC_OK; i++) {
        if (!needed[i])
            continue;
        s = open_node(&o, (uint32_t)i);
        while (s == TPC_OK && o.stack.count > 0)
            s = step_node(&o);
    }
    return s;
}
