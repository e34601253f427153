/* tests/support/trial.c - random legal placements, row by row. */
#include "tests/support/trial.h"

#include "tests/test.h"

/* ---- random layouts ---- */

uint32_t trial_any(struct trial *t, uint32_t below)
{
    t->random = t->random * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(t->random >> 33) % below;
}

static dim constant(struct trial *t, int64_t x)
{
    return dim_const(t->g->dims, x);
}

static uint32_t some_subaxes(struct trial *t, uint32_t free)
{
    uint32_t mask = (trial_any(t, 7) + 1) & free;
    return trial_any(t, 3) == 0 ? 0 : mask;
}

static uint32_t some_partition(struct trial *t, dim extent, uint32_t mask)
{
    int64_t e, offset[8] = {0};
    if (!dim_is_const(t->g->dims, extent, &e))
        return graph_partition(t->g, extent, 1, mask, NULL);
    uint32_t parts = mesh_parts(&t->mesh, mask);
    bool even = trial_any(t, 2) == 0;
    if (even)
        partition_balance(e, 1, parts, offset);
    for (uint32_t p = 1; p < parts && !even; p++)
        offset[p] = offset[p - 1] + trial_any(t, (uint32_t)(e - offset[p - 1]) + 1);
    offset[parts] = e;
    return graph_partition(t->g, extent, 1, mask, offset);
}

static struct axis_layout layout_of_factors(struct trial *t, uint32_t count, const struct factor *factor)
{
    struct segment *s = NEW(t->arena, struct segment);
    *s = (struct segment){count, arena_copy(t->arena, factor, count * sizeof *factor)};
    return (struct axis_layout){1, s};
}

static struct axis_layout whole_axis(struct trial *t, dim extent)
{
    struct factor f = {extent, 0};
    return layout_of_factors(t, 1, &f);
}

/* Cut as one factor over some free sub-axes, or whole. */
static struct axis_layout plain_axis(struct trial *t, dim extent, uint32_t *free)
{
    uint32_t mask = dim_is(t->g->dims, extent, 1) || dim_is(t->g->dims, extent, 0) ? 0 : some_subaxes(t, *free);
    struct factor f = {extent, mask ? some_partition(t, extent, mask) : 0};
    *free &= ~mask;
    return layout_of_factors(t, 1, &f);
}

/* ... or as pieces of which some are cut alike, or as a product of which one factor is cut. */
static struct axis_layout any_axis(struct trial *t, dim extent, uint32_t *free)
{
    int64_t e;
    uint32_t mask = some_subaxes(t, *free), way = trial_any(t, 3);
    if (mask == 0 || way == 0 || !dim_is_const(t->g->dims, extent, &e) || e < 4)
        return plain_axis(t, extent, free);
    int64_t divisor = e % 2 == 0 ? 2 : e % 3 == 0 ? 3 : 1;
    *free &= ~mask;
    if (way == 1 || divisor == 1) { /* a | b, one cut, or both */
        int64_t a = 1 + trial_any(t, (uint32_t)e - 1);
        struct segment *s = NEW_ARRAY(t->arena, struct segment, 2);
        uint32_t which = trial_any(t, 3);
        for (uint32_t k = 0; k < 2; k++) {
            struct factor f = {constant(t, k ? e - a : a), 0};
            f.partition = which == 2 || which == k ? some_partition(t, f.extent, mask) : 0;
            s[k] = layout_of_factors(t, 1, &f).segment[0];
        }
        return (struct axis_layout){2, s};
    }
    struct factor f[2] = {{constant(t, divisor), 0}, {constant(t, e / divisor), 0}};
    uint32_t which = trial_any(t, 2);
    f[which].partition = some_partition(t, f[which].extent, mask);
    return layout_of_factors(t, 2, f);
}

static const struct node *node_of(const struct trial *t, value v)
{
    return graph_node(t->g, v);
}

static struct placement new_placement(struct trial *t, uint32_t rank)
{
    return (struct placement){.rank = rank, .axis = NEW_ARRAY(t->arena, struct axis_layout, rank + 1)};
}

static void set_axis(struct placement *p, uint32_t axis, struct axis_layout a)
{
    ((struct axis_layout *)p->axis)[axis] = a; /* made by new_placement */
}

static struct placement whole(struct trial *t, value v)
{
    return *placement_whole(t->arena, node_of(t, v)->rank, node_of(t, v)->shape);
}

static struct placement random_placement(struct trial *t, value v, uint32_t *free)
{
    struct placement p = new_placement(t, node_of(t, v)->rank);
    for (uint32_t k = 0; k < p.rank; k++)
        set_axis(&p, k, any_axis(t, node_of(t, v)->shape[k], free));
    return p;
}

static void partial(struct placement *p, uint32_t mask)
{
    p->partial = mask ? REDUCTION_SUM : 0;
    p->partial_subaxes = mask;
}

static uint32_t all_subaxes(const struct trial *t)
{
    return (1u << t->mesh.count) - 1;
}

/* v's operands are wanted as in `in`, and it comes as `out`. */
static void place(struct trial *t, value v, const struct placement *in, const struct placement *out)
{
    assert_true(v < MOST_VALUES);
    for (uint32_t i = 0; i < node_of(t, v)->operand_count; i++)
        t->wanted[v][i] = in[i];
    t->result[v] = *out;
    t->placed[v] = true;
}

/* ---- operands ---- */

static value leaf(struct trial *t, dtype type, uint32_t rank, const dim *shape)
{
    int64_t extent[MAX_RANK];
    size_t count = 1;
    bool known = true;
    for (uint32_t k = 0; k < rank; k++) {
        known = known && dim_is_const(t->g->dims, shape[k], &extent[k]);
        count *= known ? (size_t)extent[k] : 1;
    }
    uint32_t kind = trial_any(t, 3);
    if (!known || kind == 0)
        return graph_input(t->g, arena_printf(t->arena, "x%u", t->g->inputs.count), type, rank, shape);
    char *data = arena_alloc(t->arena, count * dtype_size(type));
    for (size_t i = 0; i < count; i++)
        dtype_store_f64(type, data, i, (double)trial_any(t, 13) - 5.5);
    if (kind == 1)
        return graph_constant(t->g, type, rank, extent, data);
    struct param p = {
        "w",  type, rank, arena_copy(t->arena, extent, rank * sizeof *extent), NO_FILE, 0, count * dtype_size(type),
        data, 0,    NULL};
    *PUSH(t->arena, &t->g->params) = p;
    return graph_param(t->g, t->g->params.count - 1);
}

static value indices(struct trial *t, uint32_t rank, const dim *shape, int64_t below)
{
    int64_t extent[MAX_RANK], data[1000];
    size_t count = 1;
    for (uint32_t k = 0; k < rank; k++) {
        assert_true(dim_is_const(t->g->dims, shape[k], &extent[k]));
        count *= (size_t)extent[k];
    }
    for (size_t i = 0; i < count; i++)
        data[i] = trial_any(t, (uint32_t)below);
    return graph_constant(t->g, DT_I64, rank, extent, data);
}

static dtype some_type(struct trial *t)
{
    static const dtype types[] = {DT_F32, DT_F64, DT_I32, DT_I64};
    return types[trial_any(t, 4)];
}

static dim some_extent(struct trial *t)
{
    static const int64_t extents[] = {6, 5, 7, 12, 1, 2, 8};
    uint32_t i = trial_any(t, 9);
    return i < 7 ? constant(t, extents[i]) : t->n;
}

static void some_shape(struct trial *t, uint32_t rank, dim *shape)
{
    for (uint32_t k = 0; k < rank; k++)
        shape[k] = some_extent(t);
}

/* ---- rows: each gives the value and places it ---- */

static value try_pointwise(struct trial *t)
{
    static const op ops[] = {OP_ADD, OP_SUB, OP_MUL, OP_DIV, OP_NEG, OP_EXP, OP_MAX, OP_SELECT, OP_CAST, OP_LT};
    op o = ops[trial_any(t, 10)];
    dim shape[3];
    uint32_t rank = trial_any(t, 4), free = all_subaxes(t);
    some_shape(t, rank, shape);
    dtype type = o == OP_EXP || o == OP_DIV ? DT_F32 : some_type(t);
    uint32_t arity = o == OP_SELECT ? 3 : (uint32_t)op_info(o)->arity;
    value operand[3], v;
    for (uint32_t i = 0; i < arity; i++)
        operand[i] = leaf(t, o == OP_SELECT && i == 0 ? DT_BOOL : type, rank, shape);
    v = graph_add(t->g, o, DT_F32, 0, NULL, arity, operand, NULL);
    struct placement p = random_placement(t, v, &free), in[3] = {p, p, p}, out = p;
    op_linear linear = op_info(o)->linear;
    uint32_t mask = linear == LINEAR_ALL || linear == LINEAR_EACH || linear == LINEAR_FIRST ? some_subaxes(t, free) : 0;
    uint32_t which = linear == LINEAR_EACH ? trial_any(t, arity) : 0;
    for (uint32_t i = 0; i < arity; i++)
        if (linear == LINEAR_ALL || i == which)
            partial(&in[i], mask);
    partial(&out, mask);
    place(t, v, in, &out);
    return v;
}

static value try_reduce(struct trial *t)
{
    static const op ops[] = {OP_REDUCE_SUM, OP_REDUCE_MAX, OP_REDUCE_MIN, OP_REDUCE_PROD};
    static const int32_t kinds[] = {REDUCTION_SUM, REDUCTION_MAX, REDUCTION_MIN, 0};
    uint32_t way = trial_any(t, 4), axis = trial_any(t, 3), free = all_subaxes(t);
    dim shape[3];
    some_shape(t, 3, shape);
    value x = leaf(t, way == 3 ? DT_F64 : some_type(t), 3, shape);
    value v = graph_reduce(t->g, ops[way], x, 1, (int32_t[]){(int32_t)axis});
    struct placement in = new_placement(t, 3), out = new_placement(t, 2);
    for (uint32_t k = 0, to = 0; k < 3; k++) {
        uint32_t before = free;
        set_axis(&in, k,
                 k == axis ? (way == 3 ? whole_axis(t, shape[k]) : plain_axis(t, shape[k], &free))
                           : any_axis(t, shape[k], &free));
        if (k != axis)
            set_axis(&out, to++, in.axis[k]);
        else if (before != free) {
            out.partial = kinds[way];
            out.partial_subaxes = before & ~free;
        }
    }
    uint32_t mask = way == 0 && out.partial == 0 ? some_subaxes(t, free) : 0;
    if (mask) {
        partial(&in, mask);
        partial(&out, mask);
    }
    place(t, v, &in, &out);
    return v;
}

static value try_dot(struct trial *t)
{
    uint32_t batch = trial_any(t, 2), contract = 1 + trial_any(t, 2), free = all_subaxes(t);
    dtype type = trial_any(t, 2) ? DT_F32 : DT_I64;
    dim b = some_extent(t), m = some_extent(t), n = some_extent(t), k[2] = {some_extent(t), constant(t, 4)}, l[4], r[4];
    uint32_t rank = 0;
    if (batch)
        l[rank] = b, r[rank++] = b;
    l[rank] = m, r[rank++] = n;
    for (uint32_t i = 0; i < contract; i++)
        l[rank] = k[i], r[rank++] = k[i];
    value operand[2] = {leaf(t, type, rank, l), leaf(t, type, rank, r)};
    value v = graph_dot(t->g, operand[0], operand[1], batch, contract);
    struct placement in[2] = {new_placement(t, rank), new_placement(t, rank)}, out = new_placement(t, batch + 2);
    for (uint32_t i = 0; i < rank; i++) {
        bool shared = i != batch;
        uint32_t before = free;
        struct axis_layout a = i > batch ? plain_axis(t, l[i], &free) : any_axis(t, l[i], &free);
        set_axis(&in[0], i, a);
        set_axis(&in[1], i, shared ? a : any_axis(t, r[i], &free));
        if (i < batch + 1)
            set_axis(&out, i, a);
        if (i == batch)
            set_axis(&out, i + 1, in[1].axis[i]);
        if (i > batch && before != free)
            partial(&out, out.partial_subaxes | (before & ~free));
    }
    uint32_t mask = out.partial == 0 ? some_subaxes(t, free) : 0;
    if (mask) {
        partial(&in[trial_any(t, 2)], mask);
        partial(&out, mask);
    }
    place(t, v, in, &out);
    return v;
}

static value try_gather(struct trial *t)
{
    uint32_t free = all_subaxes(t);
    dim shape[3] = {some_extent(t), constant(t, 7), some_extent(t)}, at[2] = {constant(t, 3), constant(t, 2)};
    value operand[2] = {leaf(t, some_type(t), 3, shape), indices(t, 2, at, 7)};
    value v = graph_gather(t->g, operand[0], operand[1], 1, 0);
    struct placement in[2] = {new_placement(t, 3), new_placement(t, 2)}, out = new_placement(t, 4);
    uint32_t before = free;
    set_axis(&in[0], 1, plain_axis(t, shape[1], &free));
    partial(&out, before & ~free);
    set_axis(&in[0], 0, any_axis(t, shape[0], &free));
    set_axis(&in[0], 2, any_axis(t, shape[2], &free));
    set_axis(&in[1], 0, plain_axis(t, at[0], &free));
    set_axis(&in[1], 1, whole_axis(t, at[1]));
    set_axis(&out, 0, in[0].axis[0]);
    set_axis(&out, 1, in[1].axis[0]);
    set_axis(&out, 2, in[1].axis[1]);
    set_axis(&out, 3, in[0].axis[2]);
    place(t, v, in, &out);
    return v;
}

static value try_scatter(struct trial *t)
{
    uint32_t free = all_subaxes(t);
    dim shape[3] = {some_extent(t), constant(t, 7), some_extent(t)}, at = constant(t, 3),
        news[3] = {shape[0], at, shape[2]};
    dtype type = some_type(t);
    value operand[3] = {leaf(t, type, 3, shape), indices(t, 1, &at, 7), leaf(t, type, 3, news)};
    value v =
        graph_scatter(t->g, operand[0], operand[1], operand[2], 1, 0, trial_any(t, 2) ? SCATTER_ADD : SCATTER_SET);
    struct placement in[3] = {new_placement(t, 3), new_placement(t, 1), new_placement(t, 3)};
    for (uint32_t k = 0; k < 3; k++) {
        set_axis(&in[0], k, k == 1 ? whole_axis(t, shape[k]) : any_axis(t, shape[k], &free));
        set_axis(&in[2], k, k == 1 ? whole_axis(t, at) : in[0].axis[k]);
    }
    set_axis(&in[1], 0, whole_axis(t, at));
    place(t, v, in, &in[0]);
    return v;
}

/* [a, b*c, d] <-> [a, b, c, d]: the factors of b*c are those two axes. */
static value try_reshape(struct trial *t)
{
    uint32_t free = all_subaxes(t), join = trial_any(t, 2);
    dim a = some_extent(t), d = some_extent(t), b = trial_any(t, 3) ? constant(t, 6) : t->n, c = constant(t, 4),
        bc = dim_mul(t->g->dims, b, c);
    dim flat[3] = {a, bc, d}, split[4] = {a, b, c, d};
    value x = join ? leaf(t, some_type(t), 4, split) : leaf(t, some_type(t), 3, flat);
    value v = join ? graph_reshape(t->g, x, 3, flat) : graph_reshape(t->g, x, 4, split);
    struct placement p = new_placement(t, 4), q = new_placement(t, 3);
    for (uint32_t k = 0; k < 4; k++)
        set_axis(&p, k, plain_axis(t, split[k], &free));
    struct factor both[2] = {p.axis[1].segment[0].factor[0], p.axis[2].segment[0].factor[0]};
    set_axis(&q, 0, p.axis[0]);
    set_axis(&q, 1, layout_of_factors(t, 2, both));
    set_axis(&q, 2, p.axis[3]);
    uint32_t mask = some_subaxes(t, free);
    partial(&p, mask);
    partial(&q, mask);
    place(t, v, join ? &p : &q, join ? &q : &p);
    return v;
}

/* [a, b, 6, 10] <-> [a * b * 4, 15]: rows stay in front of what is mixed; and [a, b, 6] <-> [a * b, 6]. */
static value try_rows(struct trial *t)
{
    uint32_t free = all_subaxes(t), join = trial_any(t, 2), mixed = trial_any(t, 2);
    struct dims *d = t->g->dims;
    dim a = trial_any(t, 3) ? t->n : some_extent(t), b = trial_any(t, 3) ? t->m : some_extent(t), ab = dim_mul(d, a, b);
    dim apart[4] = {a, b, constant(t, 6), constant(t, 10)},
        together[2] = {mixed ? dim_mul(d, ab, constant(t, 4)) : ab, constant(t, mixed ? 15 : 6)};
    uint32_t rank = mixed ? 4 : 3;
    value x = join ? leaf(t, some_type(t), rank, apart) : leaf(t, some_type(t), 2, together);
    value v = join ? graph_reshape(t->g, x, 2, together) : graph_reshape(t->g, x, rank, apart);
    struct placement p = new_placement(t, rank), q = new_placement(t, 2);
    for (uint32_t k = 0; k < rank; k++)
        set_axis(&p, k, k < 2 ? plain_axis(t, apart[k], &free) : whole_axis(t, apart[k]));
    struct factor front[3] = {p.axis[0].segment[0].factor[0], p.axis[1].segment[0].factor[0], {constant(t, 4), 0}};
    set_axis(&q, 0, layout_of_factors(t, mixed ? 3 : 2, front));
    set_axis(&q, 1, whole_axis(t, together[1]));
    uint32_t mask = some_subaxes(t, free);
    partial(&p, mask);
    partial(&q, mask);
    place(t, v, join ? &p : &q, join ? &q : &p);
    return v;
}

static value try_transpose(struct trial *t)
{
    static const int32_t orders[][3] = {{1, 0, 2}, {2, 0, 1}, {2, 1, 0}};
    uint32_t free = all_subaxes(t);
    const int32_t *order = orders[trial_any(t, 3)];
    dim shape[3];
    some_shape(t, 3, shape);
    value v = graph_transpose(t->g, leaf(t, some_type(t), 3, shape), order);
    struct placement in = random_placement(t, node_of(t, v)->operand[0], &free), out = new_placement(t, 3);
    for (uint32_t k = 0; k < 3; k++)
        set_axis(&out, k, in.axis[order[k]]);
    uint32_t mask = some_subaxes(t, free);
    partial(&in, mask);
    partial(&out, mask);
    place(t, v, &in, &out);
    return v;
}

static value try_broadcast(struct trial *t)
{
    uint32_t free = all_subaxes(t);
    dim one = constant(t, 1), a = some_extent(t), from[2] = {a, one}, to[3] = {some_extent(t), a, some_extent(t)};
    value v = graph_broadcast(t->g, leaf(t, some_type(t), 2, from), 3, to, (int32_t[]){1, 2});
    struct placement in = new_placement(t, 2), out = random_placement(t, v, &free);
    set_axis(&in, 0, out.axis[1]);
    set_axis(&in, 1, whole_axis(t, one));
    uint32_t mask = some_subaxes(t, free);
    partial(&in, mask);
    partial(&out, mask);
    place(t, v, &in, &out);
    return v;
}

/* Along the middle axis something is done that needs it whole; the others are as they like. */
static value along_middle(struct trial *t, value v, uint32_t rank, uint32_t operands)
{
    uint32_t free = all_subaxes(t);
    const struct node *n = node_of(t, v), *x = node_of(t, n->operand[0]);
    struct placement in[2] = {new_placement(t, 3), new_placement(t, 0)}, out = new_placement(t, rank);
    set_axis(&in[0], 0, any_axis(t, x->shape[0], &free));
    set_axis(&in[0], 1, whole_axis(t, x->shape[1]));
    set_axis(&in[0], 2, any_axis(t, x->shape[2], &free));
    set_axis(&out, 0, in[0].axis[0]);
    for (uint32_t k = 1; k + 1 < rank; k++)
        set_axis(&out, k, whole_axis(t, n->shape[k]));
    set_axis(&out, rank - 1, in[0].axis[2]);
    if (op_info(n->op)->linear == LINEAR_ALL && operands == 1) {
        uint32_t mask = some_subaxes(t, free);
        partial(&in[0], mask);
        partial(&out, mask);
    }
    place(t, v, in, &out);
    return v;
}

static value try_along(struct trial *t)
{
    dim shape[3] = {some_extent(t), constant(t, 6), some_extent(t)}, zero = constant(t, 0),
        longer[3] = {shape[0], constant(t, 9), shape[2]};
    dtype type = some_type(t);
    value x = leaf(t, type, 3, shape);
    switch (trial_any(t, 6)) {
    case 0:
        return along_middle(t, graph_cumsum(t->g, x, 1, trial_any(t, 2), trial_any(t, 2)), 3, 1);
    case 1:
        return along_middle(t, graph_topk(t->g, x, 1, constant(t, 2), trial_any(t, 2)), 3, 1);
    case 2:
        return along_middle(t, graph_reverse(t->g, x, 1, (int32_t[]){1}), 3, 1);
    case 3:
        return along_middle(t, graph_window(t->g, x, 1, 3, 2, 1), 4, 1);
    case 4:
        return along_middle(t, graph_slice_axis(t->g, x, 1, constant(t, 2), constant(t, 3)), 3, 1);
    default:
        return along_middle(
            t, graph_pad(t->g, x, graph_scalar_f64(t->g, type, 3), (dim[]){zero, constant(t, 1), zero}, longer), 3, 2);
    }
}

/* Pieces q|k|v of a packed axis, of which one is taken, or all are joined. */
static value try_pieces(struct trial *t)
{
    uint32_t free = all_subaxes(t), joins = trial_any(t, 2);
    dim rows = some_extent(t), piece[3] = {constant(t, 4), constant(t, 6), constant(t, 6)},
        packed[2] = {rows, constant(t, 16)};
    dtype type = some_type(t);
    struct placement each[3], all = new_placement(t, 2);
    struct segment *s = NEW_ARRAY(t->arena, struct segment, 3);
    struct axis_layout first = any_axis(t, rows, &free);
    uint32_t rest = some_subaxes(t, free);
    set_axis(&all, 0, first);
    for (uint32_t k = 0; k < 3; k++) {
        uint32_t mine = rest;
        each[k] = new_placement(t, 2);
        set_axis(&each[k], 0, first);
        set_axis(&each[k], 1, plain_axis(t, piece[k], &mine));
        s[k] = each[k].axis[1].segment[0];
    }
    set_axis(&all, 1, (struct axis_layout){3, s});
    if (joins) {
        value part[3];
        for (uint32_t k = 0; k < 3; k++)
            part[k] = leaf(t, type, 2, (dim[]){rows, piece[k]});
        value v = graph_concat(t->g, 3, part, 1);
        place(t, v, each, &all);
        return v;
    }
    uint32_t k = trial_any(t, 3);
    value v = graph_slice_axis(t->g, leaf(t, type, 2, packed), 1, constant(t, k == 0 ? 0 : k == 1 ? 4 : 10), piece[k]);
    place(t, v, &all, &each[k]);
    return v;
}

static value try_iota(struct trial *t)
{
    dim shape[2] = {some_extent(t), some_extent(t)};
    value x = graph_iota(t->g, some_type(t), 2, shape, trial_any(t, 2)), v = graph_unary(t->g, OP_NEG, x);
    uint32_t free = all_subaxes(t);
    struct placement p = random_placement(t, v, &free);
    place(t, v, &p, &p);
    return v;
}

static value try_cross_entropy(struct trial *t)
{
    uint32_t free = all_subaxes(t);
    dim shape[2] = {constant(t, 5), constant(t, 7)};
    value x = leaf(t, DT_F32, 2, shape), v = graph_cross_entropy(t->g, x, indices(t, 1, shape, 9));
    struct placement in[2] = {new_placement(t, 2), new_placement(t, 1)}, out = new_placement(t, 1);
    set_axis(&in[0], 1, plain_axis(t, shape[1], &free));
    set_axis(&in[0], 0, any_axis(t, shape[0], &free));
    set_axis(&in[1], 0, in[0].axis[0]);
    set_axis(&out, 0, in[0].axis[0]);
    place(t, v, in, &out);
    return v;
}

const struct trial_row trial_rows[] = {{"pointwise", try_pointwise},
                                       {"reduce", try_reduce},
                                       {"dot", try_dot},
                                       {"gather", try_gather},
                                       {"scatter", try_scatter},
                                       {"reshape", try_reshape},
                                       {"transpose", try_transpose},
                                       {"along", try_along},
                                       {"pieces", try_pieces},
                                       {"rows", try_rows},
                                       {"broadcast", try_broadcast},
                                       {"iota", try_iota},
                                       {"cross_entropy", try_cross_entropy}};
const uint32_t trial_row_count = sizeof trial_rows / sizeof *trial_rows;

/* ---- a trial ---- */

void trial_hand_out(struct trial *t, value v)
{
    uint32_t free = all_subaxes(t);
    value u = node_of(t, v)->dtype == DT_BOOL ? graph_unary(t->g, OP_NOT, v) : graph_unary(t->g, OP_NEG, v);
    struct placement p = random_placement(t, u, &free);
    place(t, u, &p, &p);
    graph_output(t->g, "y", u);
    if (trial_any(t, 3) == 0)
        graph_output(t->g, "x", v);
}

static const struct placement *kept(struct trial *t, const struct placement *p)
{
    return placement_normalise(t->g, p, t->arena);
}

struct solution *trial_solution(struct trial *t)
{
    struct solution *s = NEW(t->arena, struct solution);
    uint32_t count = t->g->nodes.count;
    s->mesh = &t->mesh;
    s->result = NEW_ARRAY(t->arena, const struct placement *, count);
    s->operand = NEW_ARRAY(t->arena, const struct placement **, count);
    s->output = NEW_ARRAY(t->arena, const struct placement *, t->g->outputs.count);
    for (value v = 1; v < count; v++) {
        struct placement w = whole(t, v);
        s->result[v] = kept(t, t->placed[v] ? &t->result[v] : &w);
        s->operand[v] = NEW_ARRAY(t->arena, const struct placement *, node_of(t, v)->operand_count + 1);
        for (uint32_t i = 0; i < node_of(t, v)->operand_count; i++)
            s->operand[v][i] = kept(t, &t->wanted[v][i]);
    }
    for (uint32_t i = 0; i < t->g->outputs.count; i++) {
        struct placement w = whole(t, t->g->outputs.at[i].value);
        s->output[i] = kept(t, &w);
    }
    return s;
}
