/* ir/verify.c - are the invariants of graph.h true of this Graph or Program?
 *
 * It runs after every pass in debug builds and on every text that was read. Nothing here trusts the builder: shapes and types are derived
 * again by the rules of ops.def and compared. Each check reports and goes on, so that a message shows what broke and not only where it
 * was noticed first; a node whose operands are unusable is not looked at further.
 */
#include "ir/op_infer.h"

enum { MESSAGE_LIMIT = 10 };

struct checker {
    struct graph graph; /* shallow: the rules may add dims to the table, nothing else */
    const char *name;   /* where a message without a node belongs: the pass or the file */
    bool file;
    struct arena *scratch;
    struct diag *diag;
    unsigned broken;
    bool *input_seen;
    bool *is_part; /* per param: of a stacked one */
};

/* Reports about node v (0: about the whole). */
TPC_PRINTF(3, 4) static void broken(struct checker *c, value v, const char *format, ...)
{
    if (c->broken++ >= MESSAGE_LIMIT)
        return;
    va_list args;
    char text[400];
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    status code = c->file ? TPC_DATA : TPC_INTERNAL;
    const char *where = v && !c->file ? graph_where(&c->graph, v, c->scratch) : c->name;
    const char *after = c->file ? "" : arena_printf(c->scratch, "after %s: ", c->name);
    if (v)
        (void)diag_error(c->diag, code, where, "%s%%%u %s: %s", after, (unsigned)v,
                         op_info(graph_node(&c->graph, v)->op)->text, text);
    else
        (void)diag_error(c->diag, code, c->file ? where : NULL, "%s%s", after, text);
}

/* ---- nodes ---- */

static bool is_collective(op o)
{
    return op_info(o)->class == CLASS_COLLECTIVE || o == OP_RESTRICT || o == OP_COUNT_ONCE;
}

static bool check_operands(struct checker *c, value v)
{
    const struct node *n = graph_node(&c->graph, v);
    for (uint32_t i = 0; i < n->operand_count; i++) {
        if (n->operand[i] == 0 || n->operand[i] >= v) {
            broken(c, v, "operand %u is %%%u, which does not stand before it", (unsigned)i, (unsigned)n->operand[i]);
            return false;
        }
        if (graph_node(&c->graph, n->operand[i])->rank > MAX_RANK)
            return false; /* reported there */
    }
    return true;
}

/* Symbols that may occur in extents: a Graph is whole, a Program this rank's. */
static void check_symbols(struct checker *c, value v, dim d)
{
    const struct dims *t = c->graph.dims;
    bool local = dim_uses_kind(t, d, SYMBOL_PART_SIZE) || dim_uses_kind(t, d, SYMBOL_PART_OFFSET) ||
                 dim_uses_kind(t, d, SYMBOL_RANK);
    if (dim_uses_kind(t, d, SYMBOL_COORDINATE) || dim_uses_kind(t, d, SYMBOL_CAPACITY) ||
        (local && c->graph.mesh.ranks == 0))
        broken(c, v, "uses the symbols of '%s'", dim_text(t, d, c->scratch));
}

static bool check_dims(struct checker *c, value v, const dim *d, uint32_t count, const char *what)
{
    for (uint32_t i = 0; i < count; i++) {
        if (!dim_valid(d[i]) || d[i] >= dims_count(c->graph.dims)) {
            broken(c, v, "%s %u is no dim", what, (unsigned)i);
            return false;
        }
        check_symbols(c, v, d[i]);
    }
    return true;
}

static void check_extents(struct checker *c, value v)
{
    const struct node *n = graph_node(&c->graph, v);
    for (uint32_t i = 0; i < n->rank; i++)
        if (dim_upper(c->graph.dims, n->shape[i]) < 0)
            broken(c, v, "axis %u is negative: %s", (unsigned)i, dim_text(c->graph.dims, n->shape[i], c->scratch));
}

static void check_rule(struct checker *c, value v)
{
    const struct node *n = graph_node(&c->graph, v);
    struct inference i = {.graph = &c->graph, .node = n};
    if (!op_infer(&i)) {
        broken(c, v, "%s", i.why);
        return;
    }
    if (i.dtype != n->dtype)
        broken(c, v, "has type %s where its row gives %s", dtype_name(n->dtype), dtype_name(i.dtype));
    if (i.rank != n->rank) {
        broken(c, v, "has rank %u where its row gives %u", (unsigned)n->rank, (unsigned)i.rank);
        return;
    }
    for (uint32_t k = 0; k < n->rank; k++)
        if (!extent_same(&c->graph, i.shape[k], n->shape[k]))
            broken(c, v, "axis %u is %s where its row gives %s", (unsigned)k,
                   dim_text(c->graph.dims, n->shape[k], c->scratch), dim_text(c->graph.dims, i.shape[k], c->scratch));
}

static void check_unused(struct checker *c, value v)
{
    const struct attribute *a = &graph_node(&c->graph, v)->attribute;
    unsigned uses = op_info(graph_node(&c->graph, v)->op)->attributes, has = 0;
    has |= a->axis ? A_AXIS : 0u;
    has |= a->mode ? A_MODE : 0u;
    has |= a->nbatch ? A_BATCH : 0u;
    has |= a->ncontract ? A_CONTRACT : 0u;
    has |= a->index ? A_INDEX : 0u;
    has |= a->list_count ? A_LIST : 0u;
    has |= a->dims_count ? A_DIMS : 0u;
    has |= a->partition ? A_PART : 0u;
    has |= a->data_size ? A_DATA : 0u;
    if (has & ~uses)
        broken(c, v, "has attributes that its row does not use (0x%x)", has & ~uses);
}

static void check_mode(struct checker *c, value v, int32_t least, int32_t most)
{
    int32_t mode = graph_node(&c->graph, v)->attribute.mode;
    if (mode < least || mode > most)
        broken(c, v, "mode %d is not in %d..%d", (int)mode, (int)least, (int)most);
}

static void check_axis(struct checker *c, value v)
{
    const struct node *n = graph_node(&c->graph, v);
    if (n->attribute.axis < 0 || n->attribute.axis >= (int32_t)n->rank)
        broken(c, v, "axis %d of rank %u", (int)n->attribute.axis, (unsigned)n->rank);
}

static void check_group(struct checker *c, value v)
{
    uint32_t mask = graph_node(&c->graph, v)->attribute.index;
    if (mask == 0 || mask >> c->graph.mesh.count)
        broken(c, v, "sub-axes 0x%x of a mesh of %u", (unsigned)mask, (unsigned)c->graph.mesh.count);
}

static void check_reversed_axes(struct checker *c, value v)
{
    const struct node *n = graph_node(&c->graph, v);
    uint32_t seen = 0;
    for (uint32_t i = 0; i < n->attribute.list_count; i++) {
        int32_t axis = n->attribute.list[i];
        if (axis < 0 || axis >= (int32_t)n->rank || seen >> axis & 1) {
            broken(c, v, "axis %d of rank %u, or twice", (int)axis, (unsigned)n->rank);
            return;
        }
        seen |= 1u << axis;
    }
}

static void check_input(struct checker *c, value v)
{
    uint32_t index = graph_node(&c->graph, v)->attribute.index;
    if (index >= c->graph.inputs.count || c->graph.inputs.at[index].value != v)
        broken(c, v, "is not input %u of the graph", (unsigned)index);
    else
        c->input_seen[index] = true;
}

static void check_constant(struct checker *c, value v)
{
    const struct node *n = graph_node(&c->graph, v);
    size_t size = dtype_size(n->dtype);
    int64_t extent;
    for (uint32_t i = 0; i < n->rank; i++)
        if (!dim_is_const(c->graph.dims, n->shape[i], &extent) || extent < 0 ||
            !size_mul(size, (size_t)extent, &size)) {
            broken(c, v, "axis %u is not a number", (unsigned)i);
            return;
        }
    if (n->attribute.data_size != size || (size && !n->attribute.data))
        broken(c, v, "has %zu bytes where its shape takes %zu", n->attribute.data_size, size);
}

static void check_param_node(struct checker *c, value v)
{
    const struct graph *g = &c->graph;
    const struct node *n = graph_node(g, v);
    uint32_t index = n->attribute.index;
    if (index >= g->params.count) {
        broken(c, v, "param %u of %u", (unsigned)index, (unsigned)g->params.count);
        return;
    }
    const struct param *p = &g->params.at[index];
    if (p->dtype != n->dtype || p->rank != n->rank)
        broken(c, v, "is %s of rank %u where param '%s' is %s of rank %u", dtype_name(n->dtype), (unsigned)n->rank,
               p->name, dtype_name(p->dtype), (unsigned)p->rank);
    int64_t shard = (int64_t)n->attribute.mode - 1;
    if (shard < -1 || shard >= (int64_t)g->shards.count || (shard >= 0 && g->shards.at[shard].param != index))
        broken(c, v, "shard %lld of %u is not one of param %u", (long long)shard, (unsigned)g->shards.count,
               (unsigned)index);
    for (uint32_t i = 0; shard == -1 && i < n->rank && i < p->rank; i++)
        if (!dim_is(g->dims, n->shape[i], p->shape[i]))
            broken(c, v, "axis %u is not that of param '%s': %lld", (unsigned)i, p->name, (long long)p->shape[i]);
}

/* Attributes that the shape rules do not look at. */
static void check_attributes(struct checker *c, value v)
{
    const struct node *n = graph_node(&c->graph, v);
    check_unused(c, v);
    switch ((int)n->op) {
    case OP_INPUT:
        check_input(c, v);
        break;
    case OP_PARAM:
        check_param_node(c, v);
        break;
    case OP_CONSTANT:
        check_constant(c, v);
        break;
    case OP_IOTA:
        check_axis(c, v);
        break;
    case OP_ISINF:
        check_mode(c, v, 0, 3);
        break;
    case OP_CUMSUM:
        check_axis(c, v);
        check_mode(c, v, 0, 3);
        break;
    case OP_TOPK:
        check_mode(c, v, 0, 1);
        break;
    case OP_REVERSE:
        check_reversed_axes(c, v);
        break;
    case OP_GATHER:
        check_mode(c, v, GATHER_CHECK, GATHER_ZERO);
        break;
    case OP_SCATTER:
        check_mode(c, v, 0, SCATTER_DROP | SCATTER_MIN);
        if ((n->attribute.mode & ~SCATTER_DROP) > SCATTER_MIN)
            broken(c, v, "mode %d is none", (int)n->attribute.mode);
        break;
    case OP_COUNT_ONCE:
        check_group(c, v);
        break;
    case OP_ALL_REDUCE:
        check_group(c, v);
        check_mode(c, v, REDUCTION_SUM, REDUCTION_PROD);
        break;
    case OP_REDUCE_SCATTER:
        check_mode(c, v, REDUCTION_SUM, REDUCTION_PROD);
        break;
    case OP_BROADCAST_FROM:
        check_group(c, v);
        check_mode(c, v, 0, (int32_t)mesh_parts(&c->graph.mesh, n->attribute.index) - 1);
        break;
    default:
        break;
    }
}

static void check_node(struct checker *c, value v)
{
    const struct node *n = graph_node(&c->graph, v);
    if (n->op <= OP_NONE || n->op >= OP_COUNT) {
        broken(c, 0, "%%%u is no operation", (unsigned)v);
        return;
    }
    if (n->rank > MAX_RANK) {
        broken(c, v, "rank %u (limit is %d)", (unsigned)n->rank, MAX_RANK);
        return;
    }
    if (n->dtype <= DT_NONE || n->dtype >= DT_COUNT) {
        broken(c, v, "has no type");
        return;
    }
    if (n->origin >= c->graph.origins.count)
        broken(c, 0, "%%%u has origin %u of %u", (unsigned)v, (unsigned)n->origin, (unsigned)c->graph.origins.count);
    if (is_collective(n->op) && c->graph.mesh.ranks == 0)
        broken(c, v, "stands in a graph that is not a program");
    bool ok = check_dims(c, v, n->shape, n->rank, "axis");
    ok = check_dims(c, v, n->attribute.dims, n->attribute.dims_count, "dim") && ok;
    ok = check_operands(c, v) && ok;
    if (!ok)
        return;
    check_extents(c, v);
    check_rule(c, v);
    check_attributes(c, v);
}

/* ---- tables ---- */

static void check_ends(struct checker *c)
{
    const struct graph *g = &c->graph;
    for (uint32_t i = 0; i < g->inputs.count; i++)
        if (!c->input_seen[i])
            broken(c, 0, "input %u has no node", (unsigned)i);
    for (uint32_t i = 0; i < g->outputs.count; i++)
        if (g->outputs.at[i].value == 0 || g->outputs.at[i].value >= g->nodes.count)
            broken(c, 0, "output %u is %%%u of %u", (unsigned)i, (unsigned)g->outputs.at[i].value,
                   (unsigned)g->nodes.count);
    for (uint32_t i = 0; i < g->states.count && c->broken == 0; i++) {
        const struct state *s = &g->states.at[i];
        if (s->input >= g->inputs.count || s->output >= g->outputs.count) {
            broken(c, 0, "state %u joins input %u and output %u", (unsigned)i, (unsigned)s->input, (unsigned)s->output);
            continue;
        }
        const struct node *in = graph_node(g, g->inputs.at[s->input].value);
        const struct node *out = graph_node(g, g->outputs.at[s->output].value);
        if (in->dtype != out->dtype || in->rank != out->rank || s->axis >= in->rank)
            broken(c, 0, "state %u joins %s of rank %u and %s of rank %u on axis %u", (unsigned)i,
                   dtype_name(in->dtype), (unsigned)in->rank, dtype_name(out->dtype), (unsigned)out->rank,
                   (unsigned)s->axis);
    }
    if (g->source.count != 0 && g->source.count != g->nodes.count)
        broken(c, 0, "%u sources for %u nodes", (unsigned)g->source.count, (unsigned)g->nodes.count);
    for (uint32_t i = 0; i < g->guards.count; i++)
        if (g->guards.at[i].origin >= g->origins.count)
            broken(c, 0, "guard %u has origin %u", (unsigned)i, (unsigned)g->guards.at[i].origin);
}

/* A stacked param: plain ones of one shape and type, which stand before it, and are part of nothing else (so a short text cannot ask for much memory). */
static void check_parts(struct checker *c, uint32_t index)
{
    const struct graph *g = &c->graph;
    const struct param *p = &g->params.at[index];
    bool ok = p->file == NO_FILE && !p->data && p->rank > 0 && p->shape[0] == (int64_t)p->part_count;
    for (uint32_t i = 0; ok && i < p->part_count; i++) {
        const struct param *q = p->part[i] < index ? &g->params.at[p->part[i]] : NULL;
        ok = q && !q->part_count && !c->is_part[p->part[i]] && q->dtype == p->dtype && q->rank + 1 == p->rank &&
             (q->rank == 0 || memcmp(q->shape, p->shape + 1, q->rank * sizeof *q->shape) == 0);
        if (ok)
            c->is_part[p->part[i]] = true;
    }
    if (!ok)
        broken(c, 0, "param %u '%s' is not made of params of its shape without the first axis", (unsigned)index,
               p->name);
}

static void check_param(struct checker *c, uint32_t index)
{
    const struct graph *g = &c->graph;
    const struct param *p = &g->params.at[index];
    size_t length = dtype_size(p->dtype);
    bool ok = p->dtype > DT_NONE && p->dtype < DT_COUNT && p->rank <= MAX_RANK;
    for (uint32_t k = 0; ok && k < p->rank; k++)
        ok = p->shape[k] >= 0 && size_mul(length, (size_t)p->shape[k], &length);
    if (!ok || length != p->length) {
        broken(c, 0, "param %u '%s' has %llu bytes where its shape takes %zu", (unsigned)index, p->name,
               (unsigned long long)p->length, length);
        return;
    }
    if (p->part_count) {
        check_parts(c, index);
        return;
    }
    if (p->file == NO_FILE) {
        if (p->length && !p->data)
            broken(c, 0, "param %u '%s' has neither file nor bytes", (unsigned)index, p->name);
        return;
    }
    if (p->file >= g->files.count || p->offset > g->files.at[p->file].size ||
        p->length > g->files.at[p->file].size - p->offset)
        broken(c, 0, "param %u '%s' lies outside of its file", (unsigned)index, p->name);
}

static void check_mesh(struct checker *c)
{
    const struct graph *g = &c->graph;
    if (g->mesh.count > MAX_SUBAXES || g->mesh.ranks > MAX_RANKS ||
        (g->mesh.ranks &&
         mesh_parts(&g->mesh, UINT32_MAX) != g->mesh.ranks)) /* sub-axes without ranks: a Graph that was solved */
        broken(c, 0, "the sub-axes do not make %u ranks", (unsigned)g->mesh.ranks);
    for (uint32_t i = 1; i < g->partitions.count; i++) {
        const struct partition *p = &g->partitions.at[i];
        int64_t extent;
        if (p->subaxes == 0 || p->subaxes >> g->mesh.count || p->parts != mesh_parts(&g->mesh, p->subaxes) ||
            p->unit < 1) {
            broken(c, 0, "partition %u has %u parts of unit %lld over sub-axes 0x%x", (unsigned)i, (unsigned)p->parts,
                   (long long)p->unit, (unsigned)p->subaxes);
            continue;
        }
        if (!p->offset)
            continue;
        bool ok = dim_is_const(g->dims, p->extent, &extent) && p->offset[0] == 0 && p->offset[p->parts] == extent;
        for (uint32_t k = 0; ok && k < p->parts; k++)
            ok = p->offset[k + 1] >= p->offset[k] && (p->offset[k] % p->unit == 0 || p->offset[k] == extent);
        if (!ok)
            broken(c, 0, "partition %u: its cuts do not go from 0 to the extent in units of %lld", (unsigned)i,
                   (long long)p->unit);
    }
}

/* How much rank r holds along an axis; -1 when an interval is not inside of the param. */
static int64_t held(const struct intervals *v, int64_t extent)
{
    int64_t sum = 0;
    for (uint32_t i = 0; i < v->count; i++) {
        if (v->at[i].lo < 0 || v->at[i].hi <= v->at[i].lo || v->at[i].hi > extent)
            return -1;
        if (!i64_add(sum, v->at[i].hi - v->at[i].lo, &sum))
            return -1;
    }
    return sum;
}

static void check_shards(struct checker *c)
{
    const struct graph *g = &c->graph;
    for (uint32_t i = 0; i < g->shards.count; i++) {
        const struct shard *s = &g->shards.at[i];
        if (s->param >= g->params.count || s->rank != g->params.at[s->param].rank || g->mesh.ranks == 0) {
            broken(c, 0, "shard %u of param %u", (unsigned)i, (unsigned)s->param);
            continue;
        }
        for (size_t k = 0; k < (size_t)s->rank * g->mesh.ranks; k++)
            if (held(&s->of[k], g->params.at[s->param].shape[k / g->mesh.ranks]) < 0) {
                broken(c, 0, "shard %u: rank %zu holds what param '%s' does not have", (unsigned)i, k % g->mesh.ranks,
                       g->params.at[s->param].name);
                break;
            }
    }
}

/* The extents of a sharded param's node on rank r are what its shard holds there. */
static void check_shard_node(struct checker *c, value v, uint32_t r, const int64_t *of)
{
    const struct graph *g = &c->graph;
    const struct node *n = graph_node(g, v);
    const struct shard *s = &g->shards.at[n->attribute.mode - 1];
    for (uint32_t axis = 0; axis < n->rank; axis++) {
        int64_t extent, has = held(&s->of[(size_t)axis * g->mesh.ranks + r], INT64_MAX);
        if (dim_uses_kind(g->dims, n->shape[axis], SYMBOL_INPUT))
            broken(c, v, "axis %u of a shard depends on an input", (unsigned)axis);
        else if (!dim_eval(g->dims, n->shape[axis], of, &extent) || extent != has)
            broken(c, v, "axis %u is %s, but rank %u holds %lld", (unsigned)axis,
                   dim_text(g->dims, n->shape[axis], c->scratch), (unsigned)r, (long long)has);
    }
}

static void check_shard_nodes(struct checker *c)
{
    const struct graph *g = &c->graph;
    int64_t *of = NEW_ARRAY(c->scratch, int64_t, dims_symbol_count(g->dims) + 1);
    for (uint32_t r = 0; r < g->mesh.ranks && c->broken == 0; r++) {
        if (!graph_bind_rank(g, r, of)) {
            broken(c, 0, "the partitions of rank %u have no value", (unsigned)r);
            return;
        }
        for (value v = 1; v < g->nodes.count; v++)
            if (graph_node(g, v)->op == OP_PARAM && graph_node(g, v)->attribute.mode > 0)
                check_shard_node(c, v, r, of);
    }
}

static status verify(const struct graph *g, const char *name, bool file, struct diag *diag)
{
    struct checker c = {.graph = *g, .name = name, .file = file, .scratch = arena_new_in(g->arena), .diag = diag};
    c.input_seen = NEW_ARRAY(c.scratch, bool, g->inputs.count + 1);
    c.is_part = NEW_ARRAY(c.scratch, bool, g->params.count + 1);
    check_mesh(&c);
    for (uint32_t i = 0; i < g->params.count; i++)
        check_param(&c, i);
    if (c.broken == 0) /* the rules look into partitions */
        for (value v = 1; v < g->nodes.count; v++)
            check_node(&c, v);
    check_ends(&c);
    check_shards(&c);
    if (c.broken == 0 && g->shards.count)
        check_shard_nodes(&c);
    if (c.broken > MESSAGE_LIMIT)
        diag_note(diag, name, "%u more broken invariants", c.broken - MESSAGE_LIMIT);
    arena_free(c.scratch);
    return c.broken == 0 ? TPC_OK : file ? TPC_DATA : TPC_INTERNAL;
}

status graph_verify(const struct graph *g, const char *after, struct diag *diag)
{
    return verify(g, after, false, diag);
}

status graph_verify_file(const struct graph *g, const char *name, struct diag *diag)
{
    return verify(g, name, true, diag);
}
