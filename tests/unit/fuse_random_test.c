/* tests/unit/fuse_random_test.c - fused Programs of random graphs compute what the reference interpreter computes: chains of pointwise
 * operations, layout operations, reductions, dots, gathers and several outputs in no sensible order, so that values are hosted, inlined and
 * shared in ways that no model has. SEEDS=N tries more of them, SEED=N one.
 */
#include "ir/interpret.h"
#include "passes/passes.h"
#include "tests/support/execute.h"
#include "tests/test.h"

#include <math.h>
#include <stdlib.h>

static char lines[4000];

static void note(void *user, severity level, const char *line)
{
    (void)user;
    (void)level;
    size_t used = strlen(lines);
    snprintf(lines + used, sizeof lines - used, "%s\n", line);
}
static struct diag diag = {.sink = note};

/* ---- random graphs ---- */

enum { VALUES = 64 };

struct maker {
    struct arena *arena;
    struct graph *graph;
    uint32_t state;
    value made[VALUES];
    uint32_t count;
    dim size[6];
};

static uint32_t choose(struct maker *m, uint32_t below)
{
    m->state = m->state * 1664525u + 1013904223u;
    return (uint32_t)(((uint64_t)(m->state >> 4) * below) >> 28);
}

static const struct node *node_of(const struct maker *m, value v)
{
    return graph_node(m->graph, v);
}

static bool same_shape(const struct maker *m, value a, value b)
{
    const struct node *x = node_of(m, a), *y = node_of(m, b);
    return x->rank == y->rank && (x->rank == 0 || memcmp(x->shape, y->shape, x->rank * sizeof *x->shape) == 0);
}

/* Another value of v's shape, or v itself. */
static value partner(struct maker *m, value v)
{
    for (int i = 0; i < 12; i++) {
        value w = m->made[choose(m, m->count)];
        if (same_shape(m, v, w))
            return w;
    }
    return v;
}

static value scalar_like(struct maker *m, value v, double x)
{
    return graph_broadcast_to(m->graph, graph_scalar_f64(m->graph, DT_F32, x), node_of(m, v)->rank,
                              node_of(m, v)->shape);
}

static value pointwise(struct maker *m, value v)
{
    static const op unary[] = {OP_NEG, OP_TANH, OP_ERF, OP_ABS, OP_COS};
    static const op binary[] = {OP_ADD, OP_SUB, OP_MUL, OP_MAX, OP_ADD};
    struct graph *g = m->graph;
    switch (choose(m, 5)) {
    case 0:
        return graph_unary(g, unary[choose(m, 5)], v);
    case 1:
        return graph_binary(g, OP_MUL, v, scalar_like(m, v, 0.5 + choose(m, 3)));
    case 2:
        return graph_select(g, graph_binary(g, OP_LT, v, partner(m, v)), v, scalar_like(m, v, 0.25));
    default:
        return graph_binary(g, binary[choose(m, 5)], v, partner(m, v));
    }
}

static value permuted(struct maker *m, value v)
{
    int32_t order[MAX_RANK];
    uint32_t rank = node_of(m, v)->rank;
    for (uint32_t i = 0; i < rank; i++)
        order[i] = (int32_t)i;
    for (uint32_t i = rank; i-- > 1;) {
        uint32_t k = choose(m, i + 1);
        int32_t t = order[i];
        order[i] = order[k];
        order[k] = t;
    }
    return rank ? graph_transpose(m->graph, v, order) : v;
}

/* Joins two axes, or splits one. */
static value reshaped(struct maker *m, value v)
{
    const struct node *n = node_of(m, v);
    struct dims *t = m->graph->dims;
    dim shape[MAX_RANK + 1];
    int64_t extent;
    uint32_t rank = n->rank, axis = rank ? choose(m, rank) : 0;
    if (rank == 0)
        return v;
    memcpy(shape, n->shape, rank * sizeof *shape);
    if (axis + 1 < rank && choose(m, 2)) {
        shape[axis] = dim_mul(t, shape[axis], shape[axis + 1]);
        memmove(&shape[axis + 1], &shape[axis + 2], (rank - axis - 2) * sizeof *shape);
        return graph_reshape(m->graph, v, rank - 1, shape);
    }
    dim half = dim_exact_div(t, shape[axis], dim_const(t, 2));
    if (half == DIM_NONE || rank == 5 || (dim_is_const(t, shape[axis], &extent) && extent == 2))
        return v;
    memmove(&shape[axis + 1], &shape[axis], (rank - axis) * sizeof *shape);
    bool low = choose(m, 2);
    shape[axis + low] = half;
    shape[axis + !low] = dim_const(t, 2);
    return graph_reshape(m->graph, v, rank + 1, shape);
}

static value reduced(struct maker *m, value v)
{
    static const op kinds[] = {OP_REDUCE_SUM, OP_REDUCE_MAX, OP_REDUCE_MIN};
    const struct node *n = node_of(m, v);
    int32_t axis = n->rank ? (int32_t)choose(m, n->rank) : 0, kept[MAX_RANK];
    if (n->rank == 0)
        return v;
    dim shape[MAX_RANK];
    memcpy(shape, n->shape, n->rank * sizeof *shape);
    uint32_t rank = n->rank;
    value r = graph_reduce(m->graph, kinds[choose(m, 3)], v, 1, &axis);
    r = graph_unary(m->graph, OP_TANH, r); /* sums of sums grow */
    if (choose(m, 3) == 0)
        return r;
    for (uint32_t i = 0, k = 0; i < rank; i++)
        if ((int32_t)i != axis)
            kept[k++] = (int32_t)i;
    return graph_broadcast(m->graph, r, rank, shape, kept);
}

static value cut(struct maker *m, value v)
{
    const struct node *n = node_of(m, v);
    struct dims *t = m->graph->dims;
    uint32_t axis = n->rank ? choose(m, n->rank) : 0;
    int64_t extent;
    if (n->rank == 0)
        return v;
    switch (choose(m, 5)) {
    case 0:
        return graph_concat(m->graph, 2, (const value[]){v, partner(m, v)}, axis);
    case 1: {
        int32_t at = (int32_t)axis;
        return graph_reverse(m->graph, v, 1, &at);
    }
    case 2: {
        dim before[MAX_RANK], shape[MAX_RANK];
        for (uint32_t i = 0; i < n->rank; i++) {
            before[i] = dim_const(t, i == axis);
            shape[i] = i == axis ? dim_add(t, n->shape[i], dim_const(t, 3)) : n->shape[i];
        }
        return graph_pad(m->graph, v, graph_scalar_f64(m->graph, DT_F32, 0.5), before, shape);
    }
    default:
        if (!dim_is_const(t, n->shape[axis], &extent) || extent < 2)
            return v;
        return graph_slice_axis(m->graph, v, axis, dim_const(t, choose(m, 2)), dim_const(t, extent - 1));
    }
}

static value picked(struct maker *m, value v)
{
    const struct node *n = node_of(m, v);
    struct dims *t = m->graph->dims;
    uint32_t axis = n->rank ? choose(m, n->rank) : 0;
    if (n->rank == 0 || n->rank > 4 || dim_lower(t, n->shape[axis]) < 2)
        return v;
    dim shape[2] = {m->size[0], dim_const(t, 3)};
    uint32_t rank = n->rank == 4 ? 1 : 1 + choose(m, 2);
    value i = graph_iota(m->graph, DT_I64, rank, shape + 2 - rank, rank - 1);
    value one = graph_broadcast_to(m->graph, graph_scalar_i64(m->graph, DT_I64, 1), rank, shape + 2 - rank);
    return graph_gather(m->graph, v, graph_binary(m->graph, OP_AND, i, one), axis, 0);
}

static value product(struct maker *m, value v)
{
    const struct node *n = node_of(m, v);
    value w = partner(m, v);
    if (n->rank < 2 || n->rank > 4)
        return v;
    uint32_t batch = choose(m, n->rank - 1), contract = 1 + choose(m, n->rank - 1 - batch);
    if (2 * (n->rank - contract) - batch > 5)
        return v;
    value d = graph_dot(m->graph, graph_unary(m->graph, OP_TANH, v),
                        choose(m, 2) ? w : graph_unary(m->graph, OP_TANH, w), batch, contract);
    return graph_binary(m->graph, OP_MUL, d, scalar_like(m, d, 0.125));
}

static value next_value(struct maker *m)
{
    value v = m->made[m->count - 1 - choose(m, m->count < 6 ? m->count : 6)];
    switch (choose(m, 10)) {
    case 0:
        return permuted(m, v);
    case 1:
        return reshaped(m, v);
    case 2:
        return reduced(m, v);
    case 3:
        return cut(m, v);
    case 4:
        return choose(m, 3) ? pointwise(m, v) : picked(m, v);
    case 5:
        return choose(m, 2) ? product(m, v) : permuted(m, v);
    default:
        return pointwise(m, v);
    }
}

static bool is_small(const struct maker *m, value v)
{
    const struct node *n = node_of(m, v);
    int64_t elements = 1, extent;
    for (uint32_t i = 0; i < n->rank; i++) {
        int64_t of[8] = {5, 4, 5, 4, 5, 4, 5, 4};
        if (!dim_eval(m->graph->dims, n->shape[i], of, &extent))
            return false;
        elements *= extent;
    }
    return elements <= 20000;
}

static struct graph *random_graph(struct arena *arena, uint32_t seed)
{
    struct maker m = {.arena = arena, .graph = graph_new(arena), .state = seed * 2654435761u + 1};
    struct graph *g = m.graph;
    struct dims *t = g->dims;
    dim a = dim_symbol(t, "a"), b = dim_symbol(t, "b");
    m.size[0] = a;
    dim shape[][3] = {{a, b, dim_const(t, 6)},
                      {a, dim_mul(t, dim_const(t, 2), b), dim_const(t, 4)},
                      {b, dim_const(t, 4), dim_const(t, 6)}};
    for (int i = 0; i < 4; i++)
        m.made[m.count++] = graph_input(g, arena_printf(arena, "i%d", i), DT_F32, 3, shape[i % 3]);
    uint32_t length = 8 + choose(&m, 40);
    while (m.count < length && m.count < VALUES) {
        value v = next_value(&m);
        v = is_small(&m, v) ? v : m.made[choose(&m, m.count)];
        m.made[m.count++] = v;
    }
    for (uint32_t i = 0; i < 1 + choose(&m, 4); i++)
        graph_output(g, arena_printf(arena, "o%u", (unsigned)i), m.made[m.count - 1 - choose(&m, m.count / 2)]);
    return g;
}

/* ---- one trial ---- */

static void fail_trial(struct arena *arena, uint32_t seed, const struct program *p)
{
    struct text out = {.arena = arena};
    if (getenv("SEED") != NULL && p != NULL) {
        program_print(p, &out);
        fprintf(stderr, "%s", out.at);
    }
    fail_msg("SEED=%u: %s", (unsigned)seed, lines);
}

static void compare(struct arena *arena, const struct program *p, uint32_t seed, const struct tensor *got,
                    const struct tensor *wanted)
{
    const struct graph *g = p->graph;
    for (uint32_t i = 0; i < g->outputs.count; i++) {
        struct difference d;
        (void)tensor_compare(&got[i], &wanted[i], 0, 0, &d);
        if (!tensor_compare(&got[i], &wanted[i], 1e-4, 1e-4 * (d.largest > 1 ? d.largest : 1), &d)) {
            snprintf(lines, sizeof lines, "'%s': %zu differ, [%zu] is %.9g, wanted %.9g", g->outputs.at[i].name,
                     d.count, d.at, d.got, d.wanted);
            fail_trial(arena, seed, p);
        }
    }
}

static void trial(uint32_t seed, bool compiled)
{
    struct arena *arena = arena_new();
    struct graph *g = random_graph(arena, seed);
    struct program *p = NULL;
    struct kernel_set *kernels = NULL;
    struct codegen_options options = {.no_compiler = !compiled};
    lines[0] = '\0';
    if (graph_verify(g, "test", &diag) != TPC_OK || fuse(arena, g, &diag, &p) != TPC_OK ||
        schedule(p, &diag) != TPC_OK || program_verify(p, &diag) != TPC_OK ||
        kernels_load(arena, p, &options, &diag, &kernels) != TPC_OK)
        fail_trial(arena, seed, p);
    for (int64_t size = 0; size < 3; size++) {
        struct tensor inputs[4], outputs[8];
        struct interpretation x;
        int64_t of[8] = {5 - size, 4 - 2 * size}; /* 5, 4; 4, 2; 3, 0 */
        uint32_t state = seed + 77;
        for (uint32_t i = 0; i < 4; i++) {
            const struct node *n = graph_node(g, g->inputs.at[i].value);
            int64_t shape[3];
            for (uint32_t k = 0; k < 3; k++)
                assert_true(dim_eval(g->dims, n->shape[k], of, &shape[k]));
            assert_true(tensor_new(arena, &inputs[i], DT_F32, 3, shape));
            for (size_t k = 0; k < inputs[i].count; k++) {
                state = state * 1664525u + 1013904223u;
                ((float *)inputs[i].data)[k] = (float)(state >> 8) / (float)(1 << 23) - 1;
            }
        }
        if (interpret_same(g, NULL, inputs, arena, &diag, &x) != TPC_OK)
            fail_msg("SEED=%u: %s", (unsigned)seed, lines);
        assert_int_equal(execute_alone("random", p, kernels, x.of[0], inputs, outputs, size == 1, arena), 0);
        compare(arena, p, seed, outputs, x.output);
        for (uint32_t i = 0; i < g->outputs.count; i++)
            free(outputs[i].data);
    }
    arena_free(arena);
}

static void test_random_graphs(void **state)
{
    (void)state;
    const char *seeds = getenv("SEEDS"), *one = getenv("SEED");
    uint32_t from = one != NULL ? (uint32_t)atoi(one) : 1, count = one != NULL     ? 1
                                                                   : seeds != NULL ? (uint32_t)atoi(seeds)
                                                                                   : 400;
    for (uint32_t seed = from; seed < from + count; seed++)
        trial(seed, seed % 50 == 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_random_graphs)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
