/* passes/check.c - proves that the Program computes what the Graph computes (translation validation; Pnueli, Siegel, Singerman, TACAS 1998).
 *
 * Requires: a Graph, a Program with `source`, and the placements that were claimed. Keeps, breaks: nothing, it reads only.
 *
 * One walk forward. Each Program value is proven to be a part of one original value (struct known), by induction over operands: a node that stands
 * for an original node must have its op and attributes, and as operands the right parts of the right originals (check_rules.c); every other node
 * must be a conversion, which changes which part a rank has. What is taken from the claims is only what cannot be derived, and it is then
 * verified: which part of a param a shard is (compared index by index with the shard's intervals), which part of an axis along which
 * nothing varies (an iota's other axes, a broadcast's new ones) is made.
 *
 * Start reading at check().
 */
#include "passes/check.h"

status check_fault(struct checker *c, const char *format, ...)
{
    char text[512];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    const struct node *n = graph_node(c->program, c->at);
    return diag_error(c->diag, TPC_INTERNAL, graph_where(c->program, c->at, c->arena),
                      "the split program is wrong at %%%u = %s: %s", c->at, op_info(n->op)->text, text);
}

/* A value must not be cut twice over one sub-axis, nor be cut and a term over one; and its shape must be that of what it is. */
static status sound(struct checker *c, const struct known *k)
{
    const struct node *n = graph_node(c->program, c->at);
    uint32_t used = k->mask;
    for (uint32_t a = 0; a < k->rank; a++) {
        for (uint32_t s = 0; s < k->axis[a].count; s++) {
            struct span one = {1, &k->axis[a].piece[s]};
            uint32_t mine = 0;
            for (uint32_t i = 0; i < one.piece->count; i++) {
                uint32_t p = one.piece->part[i].partition, mask = c->program->partitions.at[p].subaxes;
                if (p != 0 && (mine & mask) != 0) {
                    return check_fault(c, "axis %u is cut twice over the same ranks", a);
                }
                if (p != 0 && c->program->partitions.at[p].extent != one.piece->part[i].extent) {
                    return check_fault(c, "axis %u is cut by the partition of another extent", a);
                }
                mine |= p != 0 ? mask : 0;
            }
            if ((mine & used) != 0) {
                return check_fault(c, "axis %u is cut over ranks that already divide the value otherwise", a);
            }
        }
        used |= span_mask(c, &k->axis[a]);
        dim local = span_local(c, &k->axis[a]);
        if (n->shape[a] != local) {
            return check_fault(
                c, "axis %u has %s elements on a rank, but the part of the original that it holds has %s", a,
                dim_text(c->program->dims, n->shape[a], c->arena), dim_text(c->program->dims, local, c->arena));
        }
    }
    return TPC_OK;
}

/* ---- leaves ---- */

/* What a leaf is for: the original operand, and the placement in which the node that wants it takes it. */
struct purpose {
    value original;
    const struct placement *placement;
};

static bool is_leaf(op o)
{
    return o == OP_PARAM || o == OP_CONSTANT || o == OP_IOTA || o == OP_DIM;
}

static bool converts(op o)
{
    return o == OP_RESTRICT || o == OP_COUNT_ONCE || o == OP_SLICE || o == OP_CONCAT || o == OP_ALL_GATHER ||
           o == OP_ALL_REDUCE || o == OP_REDUCE_SCATTER;
}

/* Backward over conversions from every use by a main node and from every output. */
static struct purpose *purposes(struct checker *c)
{
    const struct graph *p = c->program;
    struct purpose *of = NEW_ARRAY(c->arena, struct purpose, p->nodes.count);
    for (uint32_t i = 0; i < p->outputs.count; i++) {
        of[p->outputs.at[i].value] = (struct purpose){c->graph->outputs.at[i].value, c->claims->output[i]};
    }
    for (value v = p->nodes.count; v-- > 1;) {
        const struct node *n = graph_node(p, v);
        value o = p->source.at[v];
        const struct node *m = o == 0 || o >= c->graph->nodes.count ? NULL : graph_node(c->graph, o);
        bool main = m != NULL && m->op == n->op && m->operand_count == n->operand_count;
        for (uint32_t i = 0; i < n->operand_count; i++) {
            if (main) {
                of[n->operand[i]] = (struct purpose){m->operand[i], c->claims->operand[o][i]};
            } else if (converts(n->op) && of[v].placement != NULL) {
                of[n->operand[i]] = of[v];
            }
        }
        if (m != NULL && m->op == OP_CROSS_ENTROPY && !main) { /* its labels are reached through the gather */
            for (value u = v; u-- > 1;) {
                if (graph_node(p, u)->op == OP_GATHER && p->source.at[u] == 0) {
                    of[graph_node(p, u)->operand[0]] = (struct purpose){m->operand[0], c->claims->operand[o][0]};
                    of[graph_node(p, u)->operand[1]] = (struct purpose){m->operand[1], c->claims->operand[o][1]};
                    break;
                }
            }
        }
    }
    return of;
}

static status known_param(struct checker *c, const struct node *n, const struct placement *claim, struct known *out)
{
    for (uint32_t a = 0; a < n->rank; a++) {
        if (n->attribute.mode == 0) {
            out->axis[a] = span_whole(c, n->shape[a]);
            continue;
        }
        out->axis[a] = span_of_claim(c, &claim->axis[a]);
        const struct shard *s = &c->program->shards.at[n->attribute.mode - 1];
        for (uint32_t r = 0; r < c->program->mesh.ranks; r++) {
            if (s->param != n->attribute.index ||
                !span_holds(c, &out->axis[a], r, &s->of[a * c->program->mesh.ranks + r])) {
                return check_fault(c, "rank %u loads other elements of axis %u than it should", r, a);
            }
        }
    }
    return TPC_OK;
}

static status known_leaf(struct checker *c, const struct purpose *use, struct known *out)
{
    const struct node *n = graph_node(c->program, c->at);
    *out = (struct known){.original = use->original, .rank = n->rank};
    if (use->placement == NULL) {
        out->original = 0; /* of no use to anything that is checked */
        return TPC_OK;
    }
    const struct node *m = graph_node(c->graph, use->original);
    if (m->op != n->op || m->dtype != n->dtype || m->rank != n->rank || m->attribute.index != n->attribute.index ||
        m->attribute.axis != n->attribute.axis || (n->op == OP_DIM && m->attribute.dims[0] != n->attribute.dims[0]) ||
        (n->op == OP_CONSTANT &&
         (m->attribute.data_size != n->attribute.data_size ||
          (m->attribute.data_size > 0 && memcmp(m->attribute.data, n->attribute.data, m->attribute.data_size) != 0)))) {
        return check_fault(c, "is another %s than the original's", op_info(n->op)->text);
    }
    if (n->op == OP_PARAM) {
        return known_param(c, n, use->placement, out);
    }
    for (uint32_t a = 0; a < n->rank; a++) {
        bool free = n->op == OP_IOTA && (int32_t)a != n->attribute.axis;
        out->axis[a] = free ? span_of_claim(c, &use->placement->axis[a]) : span_whole(c, m->shape[a]);
    }
    return TPC_OK;
}

static status known_input(struct checker *c, struct known *out)
{
    const struct node *n = graph_node(c->program, c->at);
    if (n->attribute.index >= c->graph->inputs.count) {
        return check_fault(c, "is no input of the original");
    }
    value o = c->graph->inputs.at[n->attribute.index].value;
    *out = (struct known){.original = o, .rank = n->rank};
    if (graph_node(c->graph, o)->dtype != n->dtype || graph_node(c->graph, o)->rank != n->rank) {
        return check_fault(c, "is not of the original input's type");
    }
    bool state = false;
    for (uint32_t i = 0; i < c->graph->states.count; i++) {
        state = state || c->graph->states.at[i].input == n->attribute.index;
    }
    for (uint32_t a = 0; a < n->rank; a++) {
        out->axis[a] =
            state ? span_of_claim(c, &c->claims->result[o]->axis[a]) : span_whole(c, graph_node(c->graph, o)->shape[a]);
    }
    return TPC_OK;
}

/* An op of the original may only be applied to parts of all of its operand: a sum over a slice of an axis is no sum over the axis. */
static status complete(struct checker *c, const struct known *k)
{
    const struct node *m = graph_node(c->graph, k->original);
    for (uint32_t a = 0; a < k->rank; a++) {
        if (!span_is_complete(c, &k->axis[a], m->shape[a])) {
            return check_fault(c, "is given only a piece of axis %u", a);
        }
    }
    return TPC_OK;
}

/* ---- cross entropy, written out over the ranks that hold the vocabulary ---- */

static const struct node *node_if(const struct checker *c, value v, op o)
{
    const struct node *n = graph_node(c->program, v);
    return n->op == o ? n : NULL;
}

/* v = all_reduce(kind, mask) of r, or r itself where the mask is 0; gives r, 0 when it is not that. */
static value completed(const struct checker *c, value v, int32_t kind, uint32_t mask)
{
    const struct node *n = graph_node(c->program, v);
    if (mask == 0) {
        return v;
    }
    return n->op == OP_ALL_REDUCE && n->attribute.mode == kind && n->attribute.index == mask ? n->operand[0] : 0;
}

/* reduction of `x` along its last axis only */
static bool reduces_last(const struct checker *c, value v, op o, value x)
{
    const struct node *n = node_if(c, v, o);
    return n != NULL && n->operand[0] == x && n->attribute.list_count == 1 &&
           n->attribute.list[0] == (int32_t)graph_node(c->program, x)->rank - 1;
}

static status known_cross_entropy(struct checker *c, value original, struct known *out)
{
    const struct node *m = graph_node(c->graph, original), *difference = node_if(c, c->at, OP_SUB);
    const struct node *sum = difference == NULL ? NULL : node_if(c, difference->operand[0], OP_ADD);
    const struct node *log = sum == NULL ? NULL : node_if(c, sum->operand[0], OP_LOG);
    if (log == NULL) {
        return check_fault(c, "is no cross entropy");
    }
    value top = sum->operand[1], picked = difference->operand[1];
    const struct node *gather = node_if(c, picked, OP_GATHER);
    gather = gather == NULL && node_if(c, picked, OP_ALL_REDUCE) != NULL
                 ? node_if(c, graph_node(c->program, picked)->operand[0], OP_GATHER)
                 : gather;
    if (gather == NULL) {
        return check_fault(c, "picks no logit by its label");
    }
    value x = gather->operand[0];
    const struct known *logits = &c->known[x], *labels = &c->known[gather->operand[1]];
    if (logits->original != m->operand[0] || labels->original != m->operand[1] || logits->kind != 0 ||
        labels->kind != 0) {
        return check_fault(c, "is not taken of the original's logits and labels");
    }
    if (complete(c, logits) != TPC_OK || complete(c, labels) != TPC_OK) {
        return TPC_INTERNAL;
    }
    uint32_t rows = logits->rank - 1, p = span_sole(&logits->axis[rows]),
             mask = p == 0 ? 0 : c->program->partitions.at[p].subaxes;
    if (p == 0 && !span_is_whole(&logits->axis[rows])) {
        return check_fault(c, "the vocabulary is cut in more than one piece");
    }
    dim base = p == 0 ? dim_const(c->program->dims, 0) : partition_offset(c->program, p);
    const struct attribute *a = &gather->attribute;
    value kept = completed(c, picked, REDUCTION_SUM, mask), total = completed(c, log->operand[0], REDUCTION_SUM, mask),
          best = completed(c, top, REDUCTION_MAX, mask);
    const struct node *exp =
        total == 0
            ? NULL
            : node_if(c,
                      graph_node(c->program, total)->operand_count > 0 ? graph_node(c->program, total)->operand[0] : 0,
                      OP_EXP);
    const struct node *shifted = exp == NULL ? NULL : node_if(c, exp->operand[0], OP_SUB);
    const struct node *wide = shifted == NULL ? NULL : node_if(c, shifted->operand[1], OP_BROADCAST);
    bool spread = wide != NULL && wide->operand[0] == top && shifted->operand[0] == x;
    for (uint32_t i = 0; spread && i < rows; i++) {
        spread = wide->attribute.list[i] == (int32_t)i;
    }
    if (kept == 0 || best == 0 || !spread || graph_node(c->program, kept) != gather ||
        !reduces_last(c, total, OP_REDUCE_SUM,
                      shifted == NULL ? 0
                      : exp == NULL   ? 0
                                      : graph_node(c->program, total)->operand[0]) ||
        !reduces_last(c, best, OP_REDUCE_MAX, x)) {
        return check_fault(c, "does not take its maximum and sum over all ranks that hold the vocabulary");
    }
    if (a->axis != (int32_t)rows || a->nbatch != (int32_t)rows || a->mode != GATHER_ZERO || a->dims_count != 1 ||
        a->dims[0] != base) {
        return check_fault(c, "does not pick the label's logit among the rank's own");
    }
    *out = (struct known){.original = original, .rank = rows};
    for (uint32_t i = 0; i < rows; i++) {
        if (!span_same(&logits->axis[i], &labels->axis[i])) {
            return check_fault(c, "rows of logits and labels are cut differently on axis %u", i);
        }
        out->axis[i] = logits->axis[i];
    }
    return TPC_OK;
}

/* ---- the walk ---- */

static bool operands_known(const struct checker *c, const struct node *n)
{
    for (uint32_t i = 0; i < n->operand_count; i++) {
        if (c->known[n->operand[i]].original == 0) {
            return false;
        }
    }
    return true;
}

static status known_node(struct checker *c, const struct purpose *use, struct known *out)
{
    const struct node *n = graph_node(c->program, c->at);
    value o = c->program->source.at[c->at];
    if (n->op == OP_INPUT) {
        return known_input(c, out);
    }
    if (is_leaf(n->op)) {
        return known_leaf(c, use, out);
    }
    if (o >= c->graph->nodes.count) {
        return check_fault(c, "stands for value %u, which the original does not have", o);
    }
    const struct node *m = o == 0 ? NULL : graph_node(c->graph, o);
    if (m != NULL && m->op == OP_CROSS_ENTROPY && n->op == OP_SUB) {
        return known_cross_entropy(c, o, out);
    }
    bool main = m != NULL && m->op == n->op && m->operand_count == n->operand_count;
    for (uint32_t i = 0; main && i < n->operand_count; i++) {
        main = c->known[n->operand[i]].original == m->operand[i];
    }
    if (main) {
        status s = TPC_OK;
        for (uint32_t i = 0; i < n->operand_count && s == TPC_OK; i++) {
            s = complete(c, &c->known[n->operand[i]]);
        }
        return s == TPC_OK ? check_row(c, o, m, out) : s;
    }
    *out = (struct known){0};
    if (!operands_known(c, n) || (o == 0 && !converts(n->op))) {
        return o == 0 ? TPC_OK : check_fault(c, "an operand is no part of any value of the original");
    }
    status s = check_conversion(c, out);
    if (s == TPC_OK && o != 0 && out->original != o) {
        return check_fault(c, "stands for value %u of the original but is made of value %u", o, out->original);
    }
    return s;
}

static status check_outputs(struct checker *c)
{
    const struct graph *g = c->graph, *p = c->program;
    for (uint32_t i = 0; i < p->outputs.count; i++) {
        c->at = p->outputs.at[i].value;
        const struct known *k = &c->known[c->at];
        const struct placement *claim = c->claims->output[i];
        if (k->original != g->outputs.at[i].value || k->kind != 0) {
            return check_fault(c, "output '%s' is not the original's, whole of sum", g->outputs.at[i].name);
        }
        for (uint32_t a = 0; a < k->rank; a++) {
            struct span wanted = span_of_claim(c, &claim->axis[a]); /* the runtime reads outputs by these claims */
            if (!span_same(&k->axis[a], &wanted)) {
                return check_fault(c, "output '%s' is not given out as claimed on axis %u", g->outputs.at[i].name, a);
            }
        }
    }
    for (uint32_t s = 0; s < g->states.count; s++) {
        const struct placement *in = c->claims->result[g->inputs.at[g->states.at[s].input].value];
        if (!placement_equal(in, c->claims->output[g->states.at[s].output])) {
            return diag_error(c->diag, TPC_INTERNAL, NULL, "state '%s' comes out otherwise than it goes in",
                              g->inputs.at[g->states.at[s].input].name);
        }
    }
    return TPC_OK;
}

static bool params_same(const struct param *a, const struct param *b)
{
    return a->dtype == b->dtype && a->rank == b->rank && a->file == b->file && a->offset == b->offset &&
           a->length == b->length && a->data == b->data && strcmp(a->name, b->name) == 0 &&
           a->part_count == b->part_count &&
           (a->part_count == 0 || memcmp(a->part, b->part, a->part_count * sizeof *a->part) == 0) &&
           (a->rank == 0 || memcmp(a->shape, b->shape, a->rank * sizeof *a->shape) == 0);
}

/* What later stages take from the Program's tables is what the original says: no number computed here would tell. */
static bool tables_same(const struct graph *g, const struct graph *p)
{
    bool same =
        p->params.count == g->params.count && p->guards.count == g->guards.count && p->states.count == g->states.count;
    for (uint32_t i = 0; same && i < g->params.count; i++) {
        same = params_same(&g->params.at[i], &p->params.at[i]);
    }
    for (uint32_t i = 0; same && i < g->guards.count; i++) {
        same = g->guards.at[i].a == p->guards.at[i].a && g->guards.at[i].b == p->guards.at[i].b;
    }
    for (uint32_t i = 0; same && i < g->states.count; i++) {
        const struct state *a = &g->states.at[i], *b = &p->states.at[i];
        same = a->input == b->input && a->output == b->output && a->axis == b->axis && a->appended == b->appended;
    }
    for (uint32_t i = 0; same && i < g->inputs.count && i < p->inputs.count; i++) {
        same = strcmp(g->inputs.at[i].name, p->inputs.at[i].name) == 0;
    }
    for (uint32_t i = 0; same && i < g->outputs.count && i < p->outputs.count; i++) {
        same = strcmp(g->outputs.at[i].name, p->outputs.at[i].name) == 0;
    }
    return same;
}

status check(struct arena *arena, const struct graph *g, const struct graph *program, const struct solution *claims,
             struct diag *diag)
{
    struct graph *p = graph_derive(program); /* dims are made below; the nodes are only read */
    p->nodes = program->nodes;
    p->inputs = program->inputs;
    p->outputs = program->outputs;
    p->source = program->source;
    p->mesh = program->mesh;
    p->partitions = program->partitions;
    p->shards = program->shards;
    struct checker c = {arena, g, p, claims, diag, NEW_ARRAY(arena, struct known, program->nodes.count), 0};
    if (!tables_same(g, program)) {
        return diag_error(diag, TPC_INTERNAL, NULL,
                          "the split program has other weights, guards, states or names than the original");
    }
    if (program->outputs.count != g->outputs.count || program->inputs.count != g->inputs.count) {
        return diag_error(diag, TPC_INTERNAL, NULL,
                          "the split program has %u inputs and %u outputs, the original %u and %u",
                          program->inputs.count, program->outputs.count, g->inputs.count, g->outputs.count);
    }
    const struct purpose *use = purposes(&c);
    for (value v = 1; v < program->nodes.count; v++) {
        c.at = v;
        status s = known_node(&c, &use[v], &c.known[v]);
        if (s == TPC_OK && c.known[v].original != 0) {
            s = sound(&c, &c.known[v]);
        }
        if (s != TPC_OK) {
            return s;
        }
    }
    return check_outputs(&c);
}
