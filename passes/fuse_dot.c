/* passes/fuse_dot.c - operands of dots and gathers as strided views of buffers.
 *
 * A dot reads each operand through the layout operations above it, as far as the element stays an affine expression of the dot's
 * coordinates; so transposes, slices, windows, and the broadcast of grouped heads cost nothing. A coordinate that a reshape divides is split.
 */
#include "passes/fuse.h"

/* ---- affine? ---- */

/* Every iterated coordinate with a coefficient >= 0 that is free of coordinates. */
static bool is_affine(const struct space *s, dim d)
{
    dim coefficient;
    for (uint32_t i = 0; i < s->order_count; i++)
        if (!index_linear(s, d, s->order[i], &coefficient, &d) ||
            dim_uses_kind(s->dims, coefficient, SYMBOL_COORDINATE) || dim_lower(s->dims, coefficient) < 0)
            return false;
    return d != DIM_NONE && !dim_uses_kind(s->dims, d, SYMBOL_COORDINATE);
}

static uint32_t real_axes(const struct space *s)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < s->order_count; i++)
        count += !dim_is(s->dims, s->extent[s->order[i]], 1);
    return count;
}

/* ---- the walk of a dot's operand ---- */

enum { EXTRA = MAX_RANK + 2 };

struct walk {
    struct space space;
    dim linear, extra[EXTRA]; /* the element; what else is in terms of the space */
    dim index[MAX_RANK];
    double scale; /* what the element is to be multiplied by; 0: scaling must not be put off */
};

/* Makes w->linear affine by splitting, if that can be. Left alone otherwise. */
static bool make_affine(struct walk *w, uint32_t rank)
{
    struct walk now = *w;
    dim all[1 + EXTRA + MAX_RANK];
    all[0] = w->linear;
    memcpy(all + 1, w->extra, sizeof w->extra);
    memcpy(all + 1 + EXTRA, w->index, rank * sizeof(dim));
    space_split_all(&now.space, 1 + EXTRA + rank, all);
    bool crowded = now.space.count > w->space.count && real_axes(&now.space) > MAX_RANK;
    if (crowded || !is_affine(&now.space, all[0]))
        return false;
    now.linear = all[0];
    memcpy(now.extra, all + 1, sizeof now.extra);
    memcpy(now.index, all + 1 + EXTRA, rank * sizeof(dim));
    *w = now;
    return true;
}

static bool may_pass(const struct plan *p, value v)
{
    op o = graph_node(p->graph, v)->op;
    bool stored_so =
        o == OP_TRANSPOSE && !plan_is_alias(p, v) && plan_dot_behind(p, v) != 0; /* the dot writes it transposed */
    return view_is_map(p->graph, v) && o != OP_REVERSE && p->output[v] == 0 && !stored_so;
}

bool plan_uniform(const struct plan *p, value v, double *number)
{
    const struct node *n = graph_node(p->graph, v);
    while (n->op == OP_BROADCAST || n->op == OP_RESHAPE || n->op == OP_TRANSPOSE || n->op == OP_SLICE)
        n = graph_node(p->graph, n->operand[0]);
    size_t size = dtype_size(n->dtype);
    if (n->op != OP_CONSTANT || !dtype_is_float(n->dtype) || n->attribute.data_size != size)
        return false;
    *number = dtype_load_f64(n->dtype, n->attribute.data, 0);
    return *number != 0 && *number - *number == 0;
}

/* v = rest * factor for a constant factor: the dot's result can be multiplied by it instead. 0: it is not. */
static value without_factor(const struct plan *p, value v, double *factor)
{
    const struct node *n = graph_node(p->graph, v);
    if (p->output[v] != 0 || (n->op != OP_MUL && n->op != OP_DIV))
        return 0;
    if (plan_uniform(p, n->operand[1], factor)) {
        *factor = n->op == OP_DIV ? 1 / *factor : *factor;
        return n->operand[0];
    }
    return n->op == OP_MUL && plan_uniform(p, n->operand[0], factor) ? n->operand[1] : 0;
}

/* The furthest value above v whose row-major buffer can be read in v's place. */
static value view_operand(struct plan *p, struct walk *w, value v)
{
    struct walk best = *w, at = *w;
    value found = 0;
    for (;;) {
        const struct node *n = graph_node(p->graph, v);
        at.linear = index_simplify(&at.space, index_row_major(&at.space, n->rank, plan_shape(p, v), at.index));
        bool apart = (n->op == OP_CONCAT || n->op == OP_PAD) && !view_is_map(p->graph, v) && p->output[v] == 0 &&
                     p->accesses[v] == 0;
        if (at.scale != best.scale && apart) /* the product may be one kernel with it */
            break;
        if (at.linear != DIM_NONE && make_affine(&at, n->rank)) {
            best = at;
            found = v;
        }
        double factor;
        value rest = at.scale != 0 ? without_factor(p, v, &factor) : 0;
        if (rest != 0) {
            at.scale *= factor;
            v = rest;
            continue;
        }
        if (!may_pass(p, v) || at.linear == DIM_NONE)
            break;
        dim in[MAX_RANK];
        memcpy(in, at.index, sizeof in);
        view_map(p->graph, &at.space, v, in, at.index);
        v = n->operand[0];
    }
    *w = best;
    return found;
}

/* ---- dots ---- */

/* The element of `as` that holds the dot's result at `index`. */
static dim written_at(struct plan *p, const struct space *s, value dot, value as, dim *index)
{
    value chain[64];
    uint32_t count = 0;
    for (value v = as; v != dot; v = graph_node(p->graph, v)->operand[0]) {
        if (count == 64)
            return DIM_NONE;
        chain[count++] = v;
    }
    while (count-- > 0) {
        dim in[MAX_RANK];
        memcpy(in, index, sizeof in);
        view_forward(p->graph, s, chain[count], in, index);
    }
    const struct node *n = graph_node(p->graph, as);
    return index_simplify(s, index_row_major(s, n->rank, n->shape, index));
}

/* The coordinates of the dot, and the indices of its operands and its result in them. */
static void dot_space(const struct plan *p, value dot, struct space *s, dim *lhs, dim *rhs, dim *result)
{
    const struct node *n = graph_node(p->graph, dot);
    const struct node *a = graph_node(p->graph, n->operand[0]), *b = graph_node(p->graph, n->operand[1]);
    uint32_t batch = (uint32_t)n->attribute.nbatch, k = (uint32_t)n->attribute.ncontract;
    uint32_t m = a->rank - batch - k, of_n = b->rank - batch - k;
    for (uint32_t i = 0; i < batch; i++)
        lhs[i] = rhs[i] = result[i] = space_add(s, a->shape[i], AXIS_BATCH);
    for (uint32_t i = 0; i < m; i++)
        lhs[batch + i] = result[batch + i] = space_add(s, a->shape[batch + i], AXIS_M);
    for (uint32_t i = 0; i < of_n; i++)
        rhs[batch + i] = result[batch + m + i] = space_add(s, b->shape[batch + i], AXIS_N);
    for (uint32_t i = 0; i < k; i++)
        lhs[batch + m + i] = rhs[batch + of_n + i] = space_add(s, a->shape[batch + m + i], AXIS_K);
}

bool plan_is_product(const struct plan *p, value dot)
{
    const struct node *n = graph_node(p->graph, dot), *a = graph_node(p->graph, n->operand[0]);
    for (uint32_t i = a->rank - (uint32_t)n->attribute.ncontract; i < a->rank; i++)
        if (!dim_is(p->graph->dims, a->shape[i], 1))
            return false;
    return true;
}

void plan_dot_where(const struct plan *p, value dot, const dim *index, int operand, dim *where)
{
    const struct node *n = graph_node(p->graph, dot), *a = graph_node(p->graph, n->operand[operand]);
    uint32_t batch = (uint32_t)n->attribute.nbatch, k = (uint32_t)n->attribute.ncontract,
             free_axes = a->rank - batch - k;
    memcpy(where, index, batch * sizeof *index);
    memcpy(where + batch, operand == 0 ? index + batch : index + n->rank - free_axes, free_axes * sizeof *index);
    for (uint32_t i = batch + free_axes; i < a->rank; i++)
        where[i] = dim_const(p->graph->dims, 0);
}

/* May what reads the dot multiply it? Kernels do, in single precision at least. */
static bool may_put_off_scale(const struct plan *p, value dot, value as)
{
    dtype type = graph_node(p->graph, dot)->dtype;
    bool kernels = as == dot && p->output[dot] == 0 && (type == DT_F32 || type == DT_F64);
    for (uint32_t i = p->accesses[dot]; i != 0; i = p->pool.at[i].next)
        kernels &= !p->pool.at[i].dense;
    return kernels;
}

bool plan_dot(struct plan *p, value dot, value as)
{
    const struct node *n = graph_node(p->graph, dot);
    struct walk w = {.space = {.dims = p->graph->dims}};
    dim result[MAX_RANK] = {DIM_NONE}, linear[3];
    value operand[2];
    dot_space(p, dot, &w.space, w.index, w.extra + 2, result);
    w.linear = written_at(p, &w.space, dot, as, result);
    if (w.linear == DIM_NONE || !make_affine(&w, MAX_RANK))
        return false;
    w.extra[0] = w.linear;
    w.scale = may_put_off_scale(p, dot, as) ? 1 : 0;
    operand[0] = view_operand(p, &w, n->operand[0]);
    w.extra[1] = w.linear;
    memcpy(w.index, w.extra + 2, sizeof w.index);
    operand[1] = view_operand(p, &w, n->operand[1]);
    linear[0] = w.extra[1];
    linear[1] = w.linear;
    linear[2] = w.extra[0];

    uint32_t number;
    struct group *g = plan_add_group(p, GROUP_DOT, dot, &number);
    g->space = w.space;
    memcpy(g->operand, operand, sizeof operand);
    memcpy(g->linear, linear, sizeof linear);
    p->written_as[dot] = as;
    p->scale[dot] = w.scale == 1 ? 0 : w.scale;
    plan_set_producer(p, as, number, 1, UINT32_MAX);
    plan_access(p, number, operand[0], NULL, true);
    plan_access(p, number, operand[1], NULL, true);
    return true;
}

/* A batch axis along which one operand stands still is an axis of the other one: grouped heads make one larger product. */
static uint8_t kind_of_axis(const struct space *s, uint32_t coordinate, dim lhs, dim rhs)
{
    uint8_t kind = s->kind[coordinate];
    bool lhs_stays = dim_is(s->dims, lhs, 0), rhs_stays = dim_is(s->dims, rhs, 0);
    if (kind != AXIS_BATCH || lhs_stays == rhs_stays)
        return kind;
    return rhs_stays ? AXIS_M : AXIS_N;
}

const struct dot *fuse_dot(struct plan *p, const struct group *g)
{
    struct dot *d = NEW(p->arena, struct dot);
    const struct space *s = &g->space;
    uint32_t *axes[4] = {&d->batch, &d->m, &d->n, &d->k}, count = 0, total = s->order_count;
    dim *extent = NEW_ARRAY(p->arena, dim, total), *stride[3], linear[3], of[3][SPACE_AXES];
    uint8_t kind[SPACE_AXES];
    memcpy(linear, g->linear, sizeof linear);
    for (uint32_t i = 0; i < total; i++) {
        for (int o = 0; o < 3; o++)
            (void)index_linear(s, linear[o], s->order[i], &of[o][i], &linear[o]);
        kind[i] = kind_of_axis(s, s->order[i], of[0][i], of[1][i]);
    }
    for (int o = 0; o < 3; o++) {
        d->stride[o] = stride[o] = NEW_ARRAY(p->arena, dim, total);
        d->offset[o] = linear[o];
    }
    for (uint8_t k = AXIS_BATCH; k <= AXIS_K; k++)
        for (uint32_t i = 0; i < total; i++) {
            dim e = s->extent[s->order[i]];
            if (kind[i] != k || dim_is(s->dims, e, 1))
                continue;
            ++*axes[k];
            for (int o = 0; o < 3; o++)
                stride[o][count] = of[o][i];
            extent[count++] = e;
        }
    d->extent = extent;
    return d;
}

/* ---- gathers ---- */

void plan_gather_where(const struct plan *p, value v, const dim *index, dim *where)
{
    const struct node *n = graph_node(p->graph, v);
    uint32_t batch = (uint32_t)n->attribute.nbatch;
    uint32_t picked = graph_node(p->graph, n->operand[1])->rank - batch;
    memcpy(where, index, batch * sizeof *index);
    memcpy(where + batch, index + n->attribute.axis, picked * sizeof *index);
}

/* linear + d * stride, if d occurs so. */
static bool split_dynamic(const struct space *s, dim d, uint32_t hidden, dim *linear, dim *stride)
{
    dim coefficient, rest;
    if (!index_linear(s, d, hidden, &coefficient, &rest) || dim_uses_kind(s->dims, coefficient, SYMBOL_COORDINATE))
        return false;
    *linear = rest;
    *stride = coefficient;
    return true;
}

value plan_gather_view(struct plan *p, struct space *s, value v, const dim *index, value stop, dim *linear, dim *stride)
{
    const struct node *n = graph_node(p->graph, v), *a = graph_node(p->graph, n->operand[0]);
    uint32_t batch = (uint32_t)n->attribute.nbatch, axis = (uint32_t)n->attribute.axis;
    uint32_t picked = graph_node(p->graph, n->operand[1])->rank - batch, hidden = s->count;
    dim at[MAX_RANK];
    for (uint32_t i = 0; i < a->rank; i++)
        at[i] = i < axis ? index[i] : i == axis ? space_add_hidden(s, a->shape[i]) : index[i - 1 + picked];
    value from = n->operand[0], found = 0;
    for (;;) {
        a = graph_node(p->graph, from);
        dim whole = index_simplify(s, index_row_major(s, a->rank, plan_shape(p, from), at));
        if (split_dynamic(s, whole, hidden, linear, stride))
            found = from;
        if (from == stop || whole == DIM_NONE || !may_pass(p, from))
            return found;
        dim in[MAX_RANK];
        memcpy(in, at, sizeof in);
        view_map(p->graph, s, from, in, at);
        from = a->operand[0];
    }
}
