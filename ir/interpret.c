/* ir/interpret.c - the interpreter's driver: binds symbols, runs node after node on rank after rank, frees values after their last use.
 *
 * Invariant: values are owned by struct machine, which the caller's arena releases; a tensor with data NULL is not (or no longer) computed.
 * Start reading at interpret().
 */
#include "ir/interpret.h"
#include "ir/interpret_row.h"

#include <assert.h>

struct machine {
    const struct graph *graph;
    const struct interpret_options *options;
    const struct tensor *inputs;
    struct arena *arena, *scratch;
    struct diag *diag;
    uint32_t ranks;
    value count; /* of nodes */
    int64_t **of;
    struct tensor **value;
    bool **owned; /* owned[r][v]: this machine frees the data */
    value *last;  /* last[v]: last node that reads v; UINT32_MAX for outputs */
    uint64_t live, peak;
};

static status (*const rows[OP_COUNT])(struct row *) = {
#define OP(id, text, arity, attributes, shape, type, rule, linear, class) [OP_##id] = row_##rule,
#include "ir/ops.def"
#undef OP
};

/* ---- reports ---- */

status row_broken(struct row *r, const char *format, ...)
{
    char text[500];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    return diag_error(r->diag, TPC_INTERNAL, graph_where(r->graph, r->at, r->scratch), "%%%u = %s: %s", (unsigned)r->at,
                      op_info(r->node->op)->text, text);
}

status row_refused(struct row *r, const char *format, ...)
{
    char text[500];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    return diag_error(r->diag, TPC_DATA, graph_where(r->graph, r->at, r->scratch), "%s", text);
}

status row_dim(struct row *r, uint32_t i, int64_t *x)
{
    if (i >= r->node->attribute.dims_count)
        return row_broken(r, "has no dim %u", (unsigned)i);
    dim d = r->node->attribute.dims[i];
    if (!dim_valid(d) || !dim_eval(r->graph->dims, d, r->of, x))
        return row_refused(r, "%s is too large to compute",
                           dim_valid(d) ? dim_text(r->graph->dims, d, r->scratch) : "a dim");
    return TPC_OK;
}

/* ---- leaves ---- */

static status load_param(struct row *r)
{
    const struct graph *g = r->graph;
    const struct attribute *a = &r->node->attribute;
    const void *const *runs = NULL;
    int64_t shape[MAX_RANK];
    if (a->index >= g->params.count || a->mode < 0 || (uint32_t)a->mode > g->shards.count)
        return row_broken(r, "there is no such param or shard");
    const struct param *p = &g->params.at[a->index];
    status s = weights_runs(r->weights, g, a->index, r->scratch, r->diag, &runs);
    if (s != TPC_OK)
        return s;
    for (uint32_t i = 0; i < (p->part_count ? p->part_count : 1); i++)
        if (!runs[i] && tensor_bytes(r->result) > 0)
            return row_refused(r, "the bytes of weight '%s' are not at hand", p->name);
    if (p->dtype != r->node->dtype || p->rank != r->node->rank)
        return row_broken(r, "is not of the param's type or rank");
    uint32_t shard = (uint32_t)a->mode - 1;
    bool whole = a->mode == 0;
    if (!whole && (g->shards.at[shard].param != a->index || !shard_shape(g, shard, r->rank, shape)))
        return row_broken(r, "the shard does not lie in its param");
    for (uint32_t k = 0; k < p->rank; k++)
        if (r->result->shape[k] != (whole ? p->shape[k] : shape[k]))
            return row_broken(r, "axis %u has %lld elements, what is stored has %lld", (unsigned)k,
                              (long long)r->result->shape[k], (long long)(whole ? p->shape[k] : shape[k]));
    if (!whole)
        shard_copy(g, shard, r->rank, runs, r->result->data);
    else if (tensor_bytes(r->result))
        param_copy(g, a->index, runs, r->result->data);
    return TPC_OK;
}

status row_leaf(struct row *r)
{
    const struct attribute *a = &r->node->attribute;
    int64_t x;
    status s;
    switch ((int)r->node->op) {
    case OP_PARAM:
        return load_param(r);
    case OP_CONSTANT:
        if (a->data_size != tensor_bytes(r->result))
            return row_broken(r, "has %zu bytes of data but its shape needs %zu", a->data_size,
                              tensor_bytes(r->result));
        if (a->data_size)
            memcpy(r->result->data, a->data, a->data_size);
        return TPC_OK;
    case OP_DIM:
        s = row_dim(r, 0, &x);
        if (s == TPC_OK)
            dtype_store_i64(r->result->dtype, r->result->data, 0, x);
        return s;
    default:
        return row_broken(r, "is no leaf");
    }
}

/* ---- values ---- */

static void drop(struct machine *m, uint32_t rank, value v)
{
    if (!m->owned[rank][v])
        return;
    m->owned[rank][v] = false;
    m->live -= tensor_bytes(&m->value[rank][v]);
    base_free(m->value[rank][v].data);
    m->value[rank][v].data = NULL;
}

static void release(void *object)
{
    struct machine *m = object;
    for (uint32_t r = 0; r < m->ranks; r++)
        for (value v = 1; v < m->count; v++) /* the graph may be gone */
            drop(m, r, v);
}

static status allocate(struct machine *m, struct row *r, struct tensor *t)
{
    const struct node *n = r->node;
    int64_t shape[MAX_RANK];
    for (uint32_t k = 0; k < n->rank; k++) {
        if (!dim_valid(n->shape[k]) || !dim_eval(m->graph->dims, n->shape[k], r->of, &shape[k]))
            return row_refused(r, "axis %u of the result is too large to compute", (unsigned)k);
        if (shape[k] < 0)
            return row_refused(r, "axis %u of the result is %s = %lld", (unsigned)k,
                               dim_text(m->graph->dims, n->shape[k], m->scratch), (long long)shape[k]);
    }
    if (!tensor_shape(t, n->dtype, n->rank, shape))
        return row_refused(r, "the result has too many elements");
    uint64_t limit = m->options->memory_limit;
    if (limit && (tensor_bytes(t) > limit || m->live > limit - tensor_bytes(t)))
        return diag_error(m->diag, TPC_NOMEM, graph_where(m->graph, r->at, m->scratch),
                          "the result %s exceeds the limit of %llu bytes", tensor_type_text(t, m->scratch),
                          (unsigned long long)limit);
    t->data = base_alloc(tensor_bytes(t));
    if (!t->data)
        return diag_error(m->diag, TPC_NOMEM, graph_where(m->graph, r->at, m->scratch),
                          "out of memory: the result %s needs %zu bytes", tensor_type_text(t, m->scratch),
                          tensor_bytes(t));
    m->owned[r->rank][r->at] = true;
    m->live += tensor_bytes(t);
    m->peak = m->live > m->peak ? m->live : m->peak;
    return TPC_OK;
}

/* Which nodes must run, and when each value is read last. */
static void plan_lives(struct machine *m)
{
    const struct graph *g = m->graph;
    m->last = NEW_ARRAY(m->arena, value, g->nodes.count);
    for (uint32_t i = 0; i < g->outputs.count; i++)
        m->last[g->outputs.at[i].value] = UINT32_MAX;
    for (value v = g->nodes.count; v-- > 1;)
        for (uint32_t i = 0; (m->last[v] || m->options->keep_all) && i < graph_node(g, v)->operand_count; i++) {
            value o = graph_node(g, v)->operand[i];
            m->last[o] = m->last[o] ? m->last[o] : v;
        }
}

/* ---- one node on one rank ---- */

static status take_input(struct machine *m, struct row *r)
{
    uint32_t index = r->node->attribute.index;
    if (index >= m->graph->inputs.count)
        return row_broken(r, "there is no input %u", (unsigned)index);
    struct tensor *t = &m->value[r->rank][r->at];
    *t = m->inputs[(size_t)r->rank * m->graph->inputs.count + index];
    struct tensor shaped;
    bool fits = tensor_shape(&shaped, t->dtype, t->rank, t->shape) && shaped.count == t->count;
    if (!t->data && t->count == 0)
        t->data = (void *)m; /* anything but NULL: it is never read */
    if (!t->data || !fits)
        return row_refused(r, "input '%s' has no elements, or not those of its shape", m->graph->inputs.at[index].name);
    return TPC_OK;
}

static status operands_of(struct machine *m, struct row *r)
{
    const struct node *n = r->node;
    r->operand = NEW_ARRAY(m->scratch, const struct tensor *, n->operand_count);
    for (uint32_t i = 0; i < n->operand_count; i++) {
        if (n->operand[i] == 0 || n->operand[i] >= r->at || !m->value[r->rank][n->operand[i]].data)
            return row_broken(r, "operand %u is no value before it", (unsigned)i);
        r->operand[i] = &m->value[r->rank][n->operand[i]];
    }
    return TPC_OK;
}

static status run_node(struct machine *m, uint32_t rank, value v)
{
    struct tensor *t = &m->value[rank][v];
    const struct node *n = graph_node(m->graph, v);
    struct row r = {.graph = m->graph,
                    .at = v,
                    .node = n,
                    .rank = rank,
                    .of = m->of[rank],
                    .result = t,
                    .everyone = m->value,
                    .everyones = m->of,
                    .weights = m->options->weights,
                    .scratch = m->scratch,
                    .diag = m->diag};
    if (n->op <= OP_NONE || n->op >= OP_COUNT || n->rank > MAX_RANK || n->dtype <= DT_NONE || n->dtype >= DT_COUNT)
        return diag_error(m->diag, TPC_INTERNAL, graph_where(m->graph, v, m->scratch), "%%%u is no operation",
                          (unsigned)v);
    int arity = op_info(n->op)->arity;
    if (arity == OP_ANY ? n->operand_count == 0 : n->operand_count != (uint32_t)arity)
        return row_broken(&r, "has %u operands", (unsigned)n->operand_count);
    if (n->op == OP_INPUT)
        return take_input(m, &r);
    status s = operands_of(m, &r);
    if (s == TPC_OK)
        s = allocate(m, &r, t);
    return s == TPC_OK ? rows[n->op](&r) : s;
}

static void drop_dead(struct machine *m, value v)
{
    const struct node *n = graph_node(m->graph, v);
    for (uint32_t rank = 0; rank < m->ranks && !m->options->keep_all; rank++)
        for (uint32_t i = 0; i < n->operand_count; i++)
            if (m->last[n->operand[i]] == v)
                drop(m, rank, n->operand[i]);
}

static status run(struct machine *m)
{
    for (value v = 1; v < m->graph->nodes.count; v++) {
        if (!m->last[v] && !m->options->keep_all && graph_node(m->graph, v)->op != OP_INPUT)
            continue;
        for (uint32_t rank = 0; rank < m->ranks; rank++) {
            struct arena_mark mark = arena_mark(m->scratch);
            status s = run_node(m, rank, v);
            arena_rewind(m->scratch, mark);
            if (s != TPC_OK)
                return s;
        }
        drop_dead(m, v);
    }
    return TPC_OK;
}

/* ---- inputs and outputs ---- */

static bool is_state_output(const struct graph *g, uint32_t output)
{
    for (uint32_t i = 0; i < g->states.count; i++)
        if (g->states.at[i].output == output)
            return true;
    return false;
}

/* What is handed out whole must be the same on every rank, to the bit. */
static status check_replicas(struct machine *m, uint32_t output)
{
    const struct graph *g = m->graph;
    value v = g->outputs.at[output].value;
    const struct tensor *first = &m->value[0][v];
    for (uint32_t r = 1; r < m->ranks; r++) {
        const struct tensor *t = &m->value[r][v];
        bool same = same_shape(first, t);
        if (same && (tensor_bytes(t) == 0 || memcmp(first->data, t->data, tensor_bytes(t)) == 0))
            continue;
        return diag_error(m->diag, TPC_INTERNAL, graph_where(g, v, m->scratch),
                          "output '%s' is not the same on rank 0 and rank %u%s", g->outputs.at[output].name,
                          (unsigned)r, same ? "" : ", nor of the same shape");
    }
    return TPC_OK;
}

static status hand_out(struct machine *m, struct interpretation *out)
{
    const struct graph *g = m->graph;
    status s = TPC_OK;
    *out = (struct interpretation){m->ranks, m->of, m->value,
                                   NEW_ARRAY(m->arena, struct tensor, (size_t)m->ranks * g->outputs.count), m->peak};
    for (uint32_t i = 0; i < g->outputs.count; i++) {
        if (!m->options->cut_outputs && !is_state_output(g, i) && s == TPC_OK)
            s = check_replicas(m, i);
        for (uint32_t r = 0; r < m->ranks; r++)
            out->output[(size_t)r * g->outputs.count + i] = m->value[r][g->outputs.at[i].value];
    }
    return s;
}

static status bind_all(struct machine *m)
{
    const struct graph *g = m->graph;
    status s = TPC_OK;
    for (uint32_t r = 0; r < m->ranks && s == TPC_OK; r++) {
        m->of[r] = NEW_ARRAY(m->arena, int64_t, dims_symbol_count(g->dims));
        m->value[r] = NEW_ARRAY(m->arena, struct tensor, g->nodes.count);
        m->owned[r] = NEW_ARRAY(m->arena, bool, g->nodes.count);
        s = bind_symbols(g, r, m->inputs + (size_t)r * g->inputs.count, m->scratch, m->diag, m->of[r]);
    }
    return s;
}

/* Input symbols of two ranks may differ only by a wrong call: their inputs then have other shapes. */
static status check_same_symbols(struct machine *m)
{
    const struct dims *t = m->graph->dims;
    for (uint32_t r = 1; r < m->ranks; r++)
        for (uint32_t s = 0; s < dims_symbol_count(t); s++)
            if (dims_symbol(t, s)->kind == SYMBOL_INPUT && m->of[r][s] != m->of[0][s])
                return diag_error(m->diag, TPC_DATA, m->graph->model_path, "%s is %lld on rank 0 but %lld on rank %u",
                                  dims_symbol(t, s)->name, (long long)m->of[0][s], (long long)m->of[r][s], (unsigned)r);
    return TPC_OK;
}

status interpret(const struct graph *g, const struct interpret_options *options, const struct tensor *inputs,
                 struct arena *arena, struct diag *diag, struct interpretation *out)
{
    static const struct interpret_options defaults;
    struct machine *m = NEW(arena, struct machine);
    *m = (struct machine){.graph = g,
                          .options = options ? options : &defaults,
                          .inputs = inputs,
                          .arena = arena,
                          .diag = diag,
                          .count = g->nodes.count};
    uint32_t ranks = g->mesh.ranks ? g->mesh.ranks : 1;
    m->scratch = arena_new_in(arena);
    m->of = NEW_ARRAY(arena, int64_t *, ranks);
    m->value = NEW_ARRAY(arena, struct tensor *, ranks);
    m->owned = NEW_ARRAY(arena, bool *, ranks);
    m->ranks = ranks;
    memset(out, 0, sizeof *out);
    status s = bind_all(m);
    if (s == TPC_OK)
        s = check_same_symbols(m);
    if (s == TPC_OK) {
        plan_lives(m);
        arena_defer(arena, release, m);
        s = run(m);
    }
    if (s == TPC_OK)
        s = hand_out(m, out);
    arena_free(m->scratch);
    m->scratch = NULL;
    return s;
}

status interpret_same(const struct graph *g, const struct interpret_options *options, const struct tensor *inputs,
                      struct arena *arena, struct diag *diag, struct interpretation *out)
{
    uint32_t ranks = g->mesh.ranks ? g->mesh.ranks : 1;
    struct tensor *each = NEW_ARRAY(arena, struct tensor, (size_t)ranks * g->inputs.count);
    for (uint32_t r = 0; r < ranks; r++)
        for (uint32_t i = 0; i < g->inputs.count; i++)
            each[(size_t)r * g->inputs.count + i] = inputs[i];
    return interpret(g, options, each, arena, diag, out);
}
