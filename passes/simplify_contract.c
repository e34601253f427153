/* passes/simplify_contract.c - a sum over a batch axis of products with weights is one product that contracts that axis too.
 *
 *   sum over e of p[t, e] * (W[e, n, k] x[e, t, k] + b[e, n])  =  sum over (e, k) of W[e, n, k] (p[t, e] x[e, t, k])  +  sum over e of p[t, e] b[e, n]
 *
 * A mixture of experts, whoever wrote it, becomes the form on the right: its [e, t, n] is never made, and experts can be cut as contracted axes are, with one
 * sum at the end. The order of summing is not kept, as no library's product keeps it.
 *
 * sum_of() walks from the sum down to the products; p, the scale so far, has as many axes as the value, each of its extent or of extent 1. Start there.
 */
#include "passes/simplify.h"

enum { MOST_STEPS = 200 }; /* per sum */

struct sums {
    struct remaking *r;
    struct uses uses;
    const bool *live;
    bool *is_output, *varies; /* per value: depends on an input */
    bool product;             /* the walk has met a product with a weight */
    uint32_t steps;
};

static value sum_of(struct sums *k, value v, uint32_t axis, value p);

static const struct node *before(const struct sums *k, value v)
{
    return graph_node(k->r->in, v);
}
static const struct node *after(const struct sums *k, value v)
{
    return graph_node(k->r->out, v);
}
static bool is_one(const struct sums *k, dim d)
{
    return dim_is(k->r->out->dims, d, 1);
}

static bool used_once(const struct sums *k, value v)
{
    uint32_t count = 0;
    for (uint32_t i = k->uses.first[v]; i < k->uses.first[v + 1]; i++) {
        count += k->live[k->uses.use[i]];
    }
    return count == 1 && !k->is_output[v];
}

/* shape without one axis */
static uint32_t without(const struct node *n, uint32_t axis, dim *shape)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < n->rank; i++) {
        if (i != axis) {
            shape[count++] = n->shape[i];
        }
    }
    return count;
}

/* v * p, spread */
static value scaled(struct sums *k, value v, value p)
{
    struct graph *g = k->r->out;
    const struct node *n = after(k, v);
    return p == 0 ? v : graph_binary(g, OP_MUL, v, graph_broadcast_to(g, p, n->rank, n->shape));
}

/* ---- scales ---- */

/* The scale that a factor is, which was spread from fewer axes; times p. */
static value scale_by(struct sums *k, value factor, value p)
{
    struct graph *g = k->r->out;
    const struct node *n = before(k, factor);
    dim shape[MAX_RANK];
    for (uint32_t i = 0; i < n->rank; i++) {
        shape[i] = dim_const(g->dims, 1);
    }
    for (uint32_t i = 0; i < n->attribute.list_count; i++) {
        shape[n->attribute.list[i]] = before(k, n->operand[0])->shape[i];
    }
    value q = graph_reshape(g, k->r->new_of[n->operand[0]], n->rank, shape);
    if (p == 0) {
        return q;
    }
    for (uint32_t i = 0; i < n->rank; i++) {
        shape[i] = is_one(k, shape[i]) ? after(k, p)->shape[i] : shape[i];
    }
    return graph_binary(g, OP_MUL, graph_broadcast_to(g, p, n->rank, shape), graph_broadcast_to(g, q, n->rank, shape));
}

static bool varies_on(const struct sums *k, value p, uint32_t first, uint32_t end)
{
    for (uint32_t i = first; p != 0 && i < end; i++) {
        if (!is_one(k, after(k, p)->shape[i])) {
            return true;
        }
    }
    return false;
}

/* Extents of a scale behind a reshape, for a run of axes [v0, v1) that became [u0, u1): axes that stay, and a rest that it holds all or nothing of. */
static bool scale_run(const struct sums *k, const struct node *v, uint32_t v0, uint32_t v1, const struct node *u,
                      uint32_t u0, uint32_t u1, value p, dim *out)
{
    const dim *scale = after(k, p)->shape;
    while (v1 > v0 && u1 > u0 && v->shape[v1 - 1] == u->shape[u1 - 1]) {
        out[--u1] = scale[--v1];
    }
    bool all = true, none = true;
    for (uint32_t i = v0; i < v1; i++) {
        all = all && scale[i] == v->shape[i];
        none = none && is_one(k, scale[i]);
    }
    for (uint32_t i = u0; i < u1; i++) {
        out[i] = none ? dim_const(k->r->out->dims, 1) : u->shape[i];
    }
    return all || none;
}

/* ---- layout ---- */

static value through_reshape(struct sums *k, const struct node *n, uint32_t axis, value p)
{
    struct graph *g = k->r->out;
    const struct node *u = before(k, n->operand[0]);
    dim front = dim_const(g->dims, 1), own = front, shape[MAX_RANK];
    uint32_t at = 0;
    for (uint32_t i = 0; i < axis; i++) {
        front = dim_mul(g->dims, front, n->shape[i]);
    }
    while (at < u->rank && !(own == front && u->shape[at] == n->shape[axis])) {
        own = dim_mul(g->dims, own, u->shape[at++]);
    }
    if (at == u->rank) {
        return 0;
    }
    if (p != 0) {
        if (!scale_run(k, n, 0, axis, u, 0, at, p, shape) ||
            !scale_run(k, n, axis + 1, n->rank, u, at + 1, u->rank, p, shape)) {
            return 0;
        }
        shape[at] = after(k, p)->shape[axis];
        p = graph_reshape(g, p, u->rank, shape);
    }
    value sum = sum_of(k, n->operand[0], at, p);
    uint32_t rank = without(n, axis, shape);
    return sum == 0 ? 0 : graph_reshape(g, sum, rank, shape);
}

static value through_transpose(struct sums *k, const struct node *n, uint32_t axis, value p)
{
    struct graph *g = k->r->out;
    const int32_t *list = n->attribute.list;
    int32_t back[MAX_RANK], left[MAX_RANK];
    uint32_t count = 0, gone = (uint32_t)list[axis];
    for (uint32_t i = 0; i < n->rank; i++) {
        back[list[i]] = (int32_t)i;
        if (i != axis) {
            left[count++] = list[i] - (list[i] > list[axis] ? 1 : 0);
        }
    }
    value sum = sum_of(k, n->operand[0], gone, p == 0 ? 0 : graph_transpose(g, p, back));
    return sum == 0 ? 0 : graph_transpose(g, sum, left);
}

/* v with its axes of extent 1 dropped, `last` moved behind the others; which axes of `of` the others are, in order. */
static value last_of(struct sums *k, value v, const int32_t *axis_of, uint32_t last, int32_t *kept, uint32_t *count)
{
    struct graph *g = k->r->out;
    int32_t list[MAX_RANK];
    dim shape[MAX_RANK];
    uint32_t n = 0, rank = after(k, v)->rank;
    *count = 0;
    for (uint32_t i = 0; i < rank; i++) {
        if (i == last) {
            continue;
        }
        list[n++] = (int32_t)i;
        if (!is_one(k, after(k, v)->shape[i])) {
            shape[*count] = after(k, v)->shape[i];
            kept[(*count)++] = axis_of == NULL ? (int32_t)i : axis_of[i];
        }
    }
    list[n] = (int32_t)last;
    shape[*count] = after(k, v)->shape[last];
    return graph_reshape(g, graph_transpose(g, v, list), *count + 1, shape);
}

/* sum over e of p[.., e] * b[e, ..] for a b that is spread over the other axes: a product of its own. */
static value through_broadcast(struct sums *k, const struct node *n, uint32_t axis, value p)
{
    struct graph *g = k->r->out;
    const struct node *u = before(k, n->operand[0]);
    const int32_t *to = n->attribute.list;
    uint32_t at = 0, rows = 0, columns = 0;
    int32_t row[MAX_RANK], column[MAX_RANK], sorted[MAX_RANK], order[MAX_RANK];
    dim shape[MAX_RANK];
    while (at < u->rank && (to[at] != (int32_t)axis || u->shape[at] != n->shape[axis])) {
        at++;
    }
    if (at == u->rank) {
        return 0;
    }
    value sum, b = last_of(k, k->r->new_of[n->operand[0]], to, at, column, &columns);
    if (p == 0) {
        int32_t last = (int32_t)columns;
        sum = graph_reduce(g, OP_REDUCE_SUM, b, 1, &last);
    } else {
        value q = last_of(k, p, NULL, axis, row, &rows);
        for (uint32_t i = 0; i < rows; i++) {
            for (uint32_t j = 0; j < columns; j++) {
                if (row[i] == column[j]) {
                    return 0;
                }
            }
        }
        if (is_one(k, after(k, q)->shape[rows])) {
            return 0; /* the scale is the same for all e */
        }
        sum = graph_dot(g, q, b, 0, 1);
    }
    uint32_t count = 0; /* merge the axes in order */
    for (uint32_t i = 0, j = 0; i < rows || j < columns;) {
        bool take = j == columns || (i < rows && row[i] < column[j]);
        order[count] = take ? (int32_t)i : (int32_t)(rows + j);
        int32_t place = take ? row[i++] : column[j++];
        sorted[count++] = place - (place > (int32_t)axis ? 1 : 0);
    }
    uint32_t rank = without(n, axis, shape);
    return graph_broadcast(g, graph_transpose(g, sum, order), rank, shape, sorted);
}

/* ---- the product ---- */

/* [batch.., free.., k..] with batch axis `axis` moved in front of k */
static value contracted(struct sums *k, value v, uint32_t axis, uint32_t contract)
{
    int32_t list[MAX_RANK];
    uint32_t count = 0, rank = after(k, v)->rank;
    for (uint32_t i = 0; i < rank; i++) {
        if (i == rank - contract) {
            list[count++] = (int32_t)axis;
        }
        if (i != axis) {
            list[count++] = (int32_t)i;
        }
    }
    return graph_transpose(k->r->out, v, list);
}

static value through_dot(struct sums *k, const struct node *n, uint32_t axis, value p)
{
    struct graph *g = k->r->out;
    uint32_t nb = (uint32_t)n->attribute.nbatch, nk = (uint32_t)n->attribute.ncontract;
    uint32_t rows = before(k, n->operand[0])->rank - nb - nk;
    if (axis >= nb || nk == 0 || (k->varies[n->operand[0]] && k->varies[n->operand[1]])) {
        return 0;
    }
    value side[2] = {k->r->new_of[n->operand[0]], k->r->new_of[n->operand[1]]};
    bool on_rows = varies_on(k, p, nb, nb + rows), on_columns = varies_on(k, p, nb + rows, n->rank);
    if (on_rows && on_columns) {
        return 0;
    }
    uint32_t to = on_columns ? 1 : 0, rank = after(k, side[to])->rank;
    if (p != 0) {
        dim shape[MAX_RANK];
        for (uint32_t i = 0; i < rank; i++) {
            uint32_t from = i < nb ? i : to == 0 ? i : i + rows;
            shape[i] = i < rank - nk ? after(k, p)->shape[from] : dim_const(g->dims, 1);
        }
        side[to] = scaled(k, side[to], graph_reshape(g, p, rank, shape));
    }
    k->product = true;
    return graph_dot(g, contracted(k, side[0], axis, nk), contracted(k, side[1], axis, nk), nb - 1, nk + 1);
}

/* ---- the walk ---- */

static value through_mul(struct sums *k, const struct node *n, uint32_t axis, value p)
{
    for (uint32_t i = 2; i-- > 0;) {
        value rest = n->operand[1 - i];
        bool spread = before(k, n->operand[i])->op == OP_BROADCAST;
        value sum = spread ? sum_of(k, rest, axis, scale_by(k, n->operand[i], p)) : 0;
        if (sum != 0) {
            return sum;
        }
    }
    return 0;
}

/* The sum of v * p over an axis, in the new graph; 0 where this is no sum of products with weights. Depth: the steps allowed. */
static value sum_of(struct sums *k, value v, uint32_t axis, value p)
{
    struct graph *g = k->r->out;
    const struct node *n = before(k, v);
    bool alone = used_once(k, v) || n->op == OP_BROADCAST;
    if (!alone || k->steps++ > MOST_STEPS || !dtype_is_float(n->dtype)) {
        return 0;
    }
    if (n->op == OP_MUL) {
        return through_mul(k, n, axis, p);
    }
    if (n->op == OP_ADD) {
        value a = sum_of(k, n->operand[0], axis, p), b = a == 0 ? 0 : sum_of(k, n->operand[1], axis, p);
        return b == 0 ? 0 : graph_binary(g, OP_ADD, a, b);
    }
    if (n->op == OP_CAST && dtype_size(before(k, n->operand[0])->dtype) >= dtype_size(n->dtype)) {
        value sum = sum_of(k, n->operand[0], axis, p == 0 ? 0 : graph_cast(g, p, before(k, n->operand[0])->dtype));
        return sum == 0 ? 0 : graph_cast(g, sum, n->dtype);
    }
    return n->op == OP_RESHAPE     ? through_reshape(k, n, axis, p)
           : n->op == OP_TRANSPOSE ? through_transpose(k, n, axis, p)
           : n->op == OP_BROADCAST ? through_broadcast(k, n, axis, p)
           : n->op == OP_DOT       ? through_dot(k, n, axis, p)
                                   : 0;
}

/* A weighted sum written as a product of two activations: p [batch.., 1, e] with y [batch.., n.., e]. */
static value weighted_product(struct sums *k, const struct node *n)
{
    struct graph *g = k->r->out;
    uint32_t nb = (uint32_t)n->attribute.nbatch;
    for (uint32_t y = 0; y < 2 && n->attribute.ncontract == 1; y++) {
        const struct node *scale = before(k, n->operand[1 - y]), *of = before(k, n->operand[y]);
        bool thin = true;
        for (uint32_t i = nb; i + 1 < scale->rank; i++) {
            thin = thin && is_one(k, scale->shape[i]);
        }
        if (!thin || is_one(k, of->shape[of->rank - 1])) {
            continue;
        }
        dim shape[MAX_RANK];
        for (uint32_t i = 0; i < of->rank; i++) {
            shape[i] = i < nb || i + 1 == of->rank ? of->shape[i] : dim_const(g->dims, 1);
        }
        value sum =
            sum_of(k, n->operand[y], of->rank - 1, graph_reshape(g, k->r->new_of[n->operand[1 - y]], of->rank, shape));
        if (sum != 0) {
            return graph_reshape(g, sum, n->rank, n->shape);
        }
    }
    return 0;
}

static value contract_instead(struct remaking *r, value v, const struct node *n)
{
    struct sums *k = r->context;
    const struct node *m = graph_node(r->in, v);
    (void)n;
    k->r = r;
    k->product = false;
    k->steps = 0;
    value sum = 0;
    if (m->op == OP_REDUCE_SUM && m->attribute.list_count == 1) {
        sum = sum_of(k, m->operand[0], (uint32_t)m->attribute.list[0], 0);
    } else if (m->op == OP_DOT && k->varies[m->operand[0]] && k->varies[m->operand[1]]) {
        sum = weighted_product(k, m);
    }
    return k->product ? sum : 0;
}

struct graph *contract_sums(struct arena *arena, struct graph *g)
{
    struct sums k = {.uses = graph_uses(g, arena), .live = graph_live(g, arena)};
    bool any = false;
    k.is_output = NEW_ARRAY(arena, bool, g->nodes.count);
    k.varies = NEW_ARRAY(arena, bool, g->nodes.count);
    for (uint32_t i = 0; i < g->outputs.count; i++) {
        k.is_output[g->outputs.at[i].value] = true;
    }
    for (value v = 1; v < g->nodes.count; v++) {
        const struct node *n = graph_node(g, v);
        k.varies[v] = n->op == OP_INPUT;
        for (uint32_t i = 0; i < n->operand_count; i++) {
            k.varies[v] = k.varies[v] || k.varies[n->operand[i]];
        }
        any = any ||
              (n->op == OP_DOT && n->attribute.nbatch > 0 && !(k.varies[n->operand[0]] && k.varies[n->operand[1]]));
    }
    return any ? graph_remake(arena, g, contract_instead, &k) : g;
}
