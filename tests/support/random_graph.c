/* tests/support/random_graph.c - see random_graph.h. Start with random_graph. */
#include "tests/support/random_graph.h"

#include <math.h>

static const double EXACT = 1 << 20; /* sums of such are exact in f32 */

uint32_t random_pick(struct random_graph *r, uint32_t n)
{
    uint32_t x = r->seed += 0x9e3779b9u; /* neighbouring seeds must not give neighbouring graphs */
    x = (x ^ x >> 16) * 0x85ebca6bu;
    x = (x ^ x >> 13) * 0xc2b2ae35u;
    return (x ^ x >> 16) % n;
}

static const struct node *at(const struct random_graph *r, value v)
{
    return graph_node(r->g, v);
}

int64_t random_last_extent(const struct random_graph *r, value v)
{
    int64_t n = 0;
    return at(r, v)->rank && dim_is_const(r->g->dims, at(r, v)->shape[at(r, v)->rank - 1], &n) ? n : 0;
}

bool random_is_exact(const struct random_graph *r, uint32_t i)
{
    return r->most[i] <= EXACT;
}

static value weight(struct random_graph *r, int64_t rows, int64_t columns)
{
    const int64_t shape[] = {rows, columns};
    struct param *p = PUSH(r->arena, &r->g->params);
    float *data = NEW_ARRAY(r->arena, float, rows *columns);
    for (int64_t i = 0; i < rows * columns; i++)
        data[i] = (float)random_pick(r, 5) - 2;
    *p = (struct param){.name = "w",
                        .dtype = DT_F32,
                        .rank = 2,
                        .shape = arena_copy(r->arena, shape, sizeof shape),
                        .file = NO_FILE,
                        .length = (uint64_t)(rows * columns) * sizeof *data,
                        .data = data};
    return graph_param(r->g, r->g->params.count - 1);
}

static bool same_shape(const struct random_graph *r, value a, value b)
{
    return at(r, a)->rank == at(r, b)->rank && !memcmp(at(r, a)->shape, at(r, b)->shape, at(r, a)->rank * sizeof(dim));
}

/* A sum over an axis, spread again. */
static value sum_and_spread(struct random_graph *r, value x, int32_t axis)
{
    int32_t back[MAX_RANK];
    for (int32_t k = 0; k < (int32_t)at(r, x)->rank; k++)
        back[k] = k < axis ? k : k + 1;
    return graph_broadcast(r->g, graph_reduce(r->g, OP_REDUCE_SUM, x, 1, &axis), at(r, x)->rank, at(r, x)->shape, back);
}

static value heads(struct random_graph *r, value x, bool plain)
{
    uint32_t rank = at(r, x)->rank;
    int64_t k = random_last_extent(r, x);
    dim shape[MAX_RANK];
    memcpy(shape, at(r, x)->shape, rank * sizeof *shape);
    if (plain && k % 2 == 0 && k > 2) {
        shape[rank - 1] = dim_const(r->g->dims, k / 2);
        shape[rank] = dim_const(r->g->dims, 2);
        return graph_reshape(r->g, x, rank + 1, shape);
    }
    shape[rank - 2] = dim_mul(r->g->dims, shape[rank - 2], shape[rank - 1]);
    return !plain && rank == r->rows + 2 ? graph_reshape(r->g, x, rank - 1, shape) : 0;
}

static value attention(struct random_graph *r, value x, value y)
{
    const int32_t swap[] = {0, 2, 1};
    value scores = graph_unary(r->g, OP_EXP, graph_dot(r->g, x, y, 1, 1));
    return graph_dot(r->g, scores, graph_transpose(r->g, y, swap), 1, 1);
}

/* What a search has most to decide about. */
static value usual_row(struct random_graph *r, uint32_t i, uint32_t j)
{
    static const int64_t widths[] = {2, 4, 6, 12};
    struct graph *g = r->g;
    value x = r->made[i], y = r->made[j];
    int64_t k = random_last_extent(r, x), n = widths[random_pick(r, 4)];
    uint32_t rank = at(r, x)->rank;
    bool plain = rank == r->rows + 1;
    r->bound = r->most[i];
    switch (random_pick(r, r->rows == 2 ? 14 : 12)) {
    case 0:
    case 1:
    case 2:
    case 3: /* linear */
        r->bound *= 2 * (double)k;
        return k >= 2 && (random_pick(r, 5) || !plain) ? graph_dot(g, x, weight(r, n, k), 0, 1) : 0;
    case 4:
        r->bound = HUGE_VAL;
        return graph_unary(g, OP_TANH, x);
    case 5:
        return graph_unary(g, OP_NEG, x);
    case 6:
    case 7:
        if (!same_shape(r, x, y))
            return 0;
        bool sum = random_pick(r, 3);
        r->bound = sum ? r->most[i] + r->most[j] : r->most[i] * r->most[j];
        return graph_binary(g, sum ? OP_ADD : OP_MUL, x, y);
    case 8:
        r->bound *= (double)k;
        return plain ? sum_and_spread(r, x, (int32_t)rank - 1) : 0;
    case 9:
        return heads(r, x, plain);
    case 10:
        return plain && k >= 4 ? graph_slice_axis(g, x, rank - 1, dim_const(g->dims, random_pick(r, 2) ? k / 2 : 0),
                                                  dim_const(g->dims, k / 2))
                               : 0;
    case 11:
        r->bound = r->most[i] > r->most[j] ? r->most[i] : r->most[j];
        return plain && at(r, y)->rank == rank ? graph_concat(g, 2, (const value[]){x, y}, r->rows) : 0;
    case 12:
        r->bound = HUGE_VAL;
        return plain && same_shape(r, x, y) ? attention(r, x, y) : 0;
    default:
        r->bound = HUGE_VAL;
        return plain ? sum_and_spread(r, x, (int32_t)random_pick(r, 2)) : 0;
    }
}

static void keep(struct random_graph *r, value v)
{
    r->most[r->count] = r->bound;
    r->made[r->count++] = v;
}

static uint32_t op_nodes(const struct random_graph *r)
{
    uint32_t count = 0;
    for (value v = 1; v < r->g->nodes.count; v++)
        count += op_info(at(r, v)->op)->class != CLASS_LEAF;
    return count;
}

static void start(struct random_graph *r)
{
    struct graph *g = r->g = graph_new(r->arena);
    dim shape[] = {dim_symbol(g->dims, "rows"), dim_symbol(g->dims, "sequence"), dim_const(g->dims, 4)};
    shape[r->rows] = shape[2];
    r->count = 0;
    r->bound = 3;
    if (random_pick(r, 2)) {
        value ids = graph_input(g, "ids", DT_I64, r->rows, shape);
        keep(r, graph_gather(g, weight(r, 6, 4), ids, 0, 0));
    } else {
        keep(r, graph_input(g, "x", DT_F32, r->rows + 1, shape));
    }
}

/* x [rows, k] -> [rows, n]: a router reduces the experts' axis, the last product contracts it. */
static value experts(struct random_graph *r, value x)
{
    struct graph *g = r->g;
    const int64_t k = random_last_extent(r, x), many = 2 + random_pick(r, 3), inner = 2 + random_pick(r, 3),
                  n = 2 + 2 * random_pick(r, 3);
    dim rows = at(r, x)->shape[0], e = dim_const(g->dims, many), f = dim_const(g->dims, inner),
        d = dim_const(g->dims, k);
    const dim all[] = {e, rows, d}, inside[] = {e, rows, f}, flat[] = {rows, e}, up[] = {e, f, d},
              down[] = {dim_const(g->dims, n), e, f};
    const int32_t last[] = {1}, first[] = {0}, swap[] = {1, 0}, behind[] = {1, 2}, before[] = {0, 1},
                  forward[] = {1, 0, 2};
    value p = graph_unary(g, OP_TANH, graph_dot(g, x, weight(r, many, k), 0, 1));
    p = graph_binary(g, OP_SUB, p, graph_broadcast(g, graph_reduce(g, OP_REDUCE_MAX, p, 1, last), 2, flat, first));
    value w = graph_reshape(g, weight(r, many * inner, k), 3, up);
    value h = graph_unary(g, OP_TANH, graph_dot(g, graph_broadcast(g, x, 3, all, behind), w, 1, 1));
    h = graph_binary(g, OP_MUL, h, graph_broadcast(g, graph_transpose(g, p, swap), 3, inside, before));
    w = graph_reshape(g, weight(r, n, many * inner), 3, down);
    return graph_dot(g, graph_transpose(g, h, forward), w, 0, 2);
}

void random_graph(struct random_graph *r, uint32_t steps)
{
    start(r);
    if (r->experts) {
        r->bound = INFINITY;
        keep(r, experts(r, r->made[0]));
        graph_output(r->g, "experts", r->made[1]);
    }
    for (uint32_t made = 0, tries = 0; made < steps && tries < 200; tries++) {
        uint32_t i = random_pick(r, r->count), j = random_pick(r, r->count);
        bool any = r->every_row && (made == 0 || random_pick(r, 2)) && at(r, r->made[i])->rank == r->rows + 1;
        value v = any ? random_row(r, i) : usual_row(r, i, j);
        r->turn += any && made > 0 ? random_pick(r, 100) : 0;
        if (!v)
            continue;
        if (r->ops && op_nodes(r) > r->ops)
            break; /* what was made is dead */
        keep(r, v);
        made++;
    }
    graph_output(r->g, "y", r->made[r->count - 1]);
    if (random_pick(r, 3) == 0)
        graph_output(r->g, "z", r->made[random_pick(r, r->count)]);
    else if (r->every_row && r->count > 1 && random_pick(r, 2))
        graph_output(r->g, "z", r->made[1]);
}

const struct tensor *random_graph_inputs(struct random_graph *r, const int64_t *of)
{
    struct tensor *in = NEW_ARRAY(r->arena, struct tensor, r->g->inputs.count + 1);
    for (uint32_t i = 0; i < r->g->inputs.count; i++) {
        const struct node *n = at(r, r->g->inputs.at[i].value);
        int64_t shape[MAX_RANK];
        for (uint32_t k = 0; k < n->rank; k++)
            if (!dim_eval(r->g->dims, n->shape[k], of, &shape[k]))
                return NULL;
        if (!tensor_new(r->arena, &in[i], n->dtype, n->rank, shape))
            return NULL;
        for (size_t e = 0; e < in[i].count; e++) /* indices, or whole numbers */
            dtype_store_i64(n->dtype == DT_F32 ? DT_I32 : n->dtype, in[i].data, e,
                            random_pick(r, n->dtype == DT_F32 ? 7 : 2));
        for (size_t e = 0; e < in[i].count && n->dtype == DT_F32; e++)
            ((float *)in[i].data)[e] = (float)((int32_t *)in[i].data)[e] - 3;
    }
    return in;
}
