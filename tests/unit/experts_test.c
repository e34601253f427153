/* tests/unit/experts_test.c - mixtures of experts, written in several ways: simplify keeps what they compute, brings them to one form, and every split of it
 * gives the unsplit numbers.
 */
#include "solver/solver.h"
#include "tests/support/subject.h"
#include "tests/test.h"

#include <stdlib.h>

static char first_line[1200];
static void note(void *user, severity level, const char *line)
{
    (void)user;
    if (level == DIAG_ERROR && !first_line[0])
        snprintf(first_line, sizeof first_line, "%s", line);
}
static struct diag diag = {.sink = note};

enum way { LOOP, BATCHED, TOKENS_FIRST, WEIGHED_BY_PRODUCT };
enum { BIASED = 1, GATED = 2, INTERLEAVED = 4, CAST = 8 };
struct mixture {
    const char *name;
    enum way way;
    unsigned options;
    int64_t experts, width, inner;
};

static struct arena *arena;
static struct graph *g;
static uint32_t seed;
static int64_t wide, inside, many;
static unsigned options;

static dim n(int64_t x)
{
    return dim_const(g->dims, x);
}
static dim tokens(void)
{
    return dim_symbol(g->dims, "tokens");
}

static value weight(uint32_t rank, const int64_t *shape)
{
    struct param p = {
        .name = arena_printf(arena, "w%u", g->params.count), .dtype = DT_F32, .rank = rank, .file = NO_FILE};
    size_t count = 1;
    for (uint32_t i = 0; i < rank; i++)
        count *= (size_t)shape[i];
    p.shape = arena_copy(arena, shape, rank * sizeof *shape);
    p.length = count * sizeof(float);
    float *data = arena_alloc(arena, p.length);
    for (size_t i = 0; i < count; i++) {
        seed = seed * 1664525u + 1013904223u;
        data[i] = (float)(seed >> 20) / 4096.f - 0.5f;
    }
    p.data = data;
    *PUSH(arena, &g->params) = p;
    return graph_param(g, g->params.count - 1);
}

static value spread(value v, uint32_t rank, const dim *shape, const int32_t *axes)
{
    return graph_broadcast(g, v, rank, shape, axes);
}
static value like(value v, value of)
{
    return graph_broadcast_to(g, v, graph_node(g, of)->rank, graph_node(g, of)->shape);
}
static value last_slice(value v, int64_t start, int64_t size, int32_t step)
{
    const struct node *m = graph_node(g, v);
    dim first[MAX_RANK], shape[MAX_RANK];
    int32_t steps[MAX_RANK];
    for (uint32_t i = 0; i < m->rank; i++) {
        first[i] = n(i + 1 == m->rank ? start : 0);
        shape[i] = i + 1 == m->rank ? n(size) : m->shape[i];
        steps[i] = i + 1 == m->rank ? step : 1;
    }
    return graph_slice(g, v, first, shape, steps);
}

/* [.., 2*inner or inner] -> [.., inner] */
static value activate(value h)
{
    if (!(options & GATED))
        return graph_unary(g, OP_TANH, h);
    bool apart = options & INTERLEAVED;
    value gate = last_slice(h, 0, inside, apart ? 2 : 1), up = last_slice(h, apart ? 1 : inside, inside, apart ? 2 : 1);
    return graph_binary(g, OP_MUL, graph_unary(g, OP_TANH, gate), up);
}

static value route(value x)
{
    const int64_t shape[] = {many, wide};
    const dim chosen[] = {tokens(), n(2)}, all[] = {tokens(), n(many)};
    const int32_t rows[] = {0};
    value logits = graph_dot(g, x, weight(2, shape), 0, 1), e = graph_unary(g, OP_EXP, logits);
    value p =
        graph_binary(g, OP_DIV, e, spread(graph_reduce(g, OP_REDUCE_SUM, e, 1, (const int32_t[]){1}), 2, all, rows));
    value best = graph_topk(g, p, 1, n(2), false), top = graph_gather(g, p, best, 1, 1);
    top = graph_binary(g, OP_DIV, top,
                       spread(graph_reduce(g, OP_REDUCE_SUM, top, 1, (const int32_t[]){1}), 2, chosen, rows));
    return graph_scatter(g, graph_broadcast(g, graph_scalar_f64(g, DT_F32, 0), 2, all, NULL), best, top, 1, 1, 0);
}

static value one_by_one(value x, value p)
{
    const int64_t up[] = {wide, options & GATED ? 2 * inside : inside}, down[] = {inside, wide};
    const int32_t swap[] = {1, 0}, rows[] = {0, 1};
    value sum = 0;
    for (int64_t e = 0; e < many; e++) {
        value h = graph_dot(g, x, graph_transpose(g, weight(2, up), swap), 0, 1);
        h = options & BIASED ? graph_binary(g, OP_ADD, h, like(weight(1, up + 1), h)) : h;
        value y = graph_dot(g, activate(h), graph_transpose(g, weight(2, down), swap), 0, 1);
        y = options & BIASED ? graph_binary(g, OP_ADD, y, like(weight(1, down + 1), y)) : y;
        value own = graph_slice_axis(g, p, 1, n(e), n(1));
        y = graph_binary(g, OP_MUL, y, spread(own, 2, graph_node(g, y)->shape, rows));
        sum = sum ? graph_binary(g, OP_ADD, sum, y) : y;
    }
    return sum;
}

static value at_once(value x, value p, enum way way)
{
    const int64_t up[] = {many, options & GATED ? 2 * inside : inside, wide}, down[] = {many, wide, inside};
    const int64_t up_bias[] = {many, 1, up[1]}, down_bias[] = {many, 1, wide};
    const dim all[] = {n(many), tokens(), n(wide)};
    const int32_t behind[] = {1, 2}, swap[] = {1, 0}, first[] = {1, 0, 2}, zero[] = {0}, one[] = {1};
    value h = graph_dot(g, spread(x, 3, all, behind), weight(3, up), 1, 1);
    h = options & BIASED ? graph_binary(g, OP_ADD, h, like(weight(3, up_bias), h)) : h;
    value y = graph_dot(g, activate(h), weight(3, down), 1, 1); /* [experts, tokens, wide] */
    y = options & BIASED ? graph_binary(g, OP_ADD, y, like(weight(3, down_bias), y)) : y;
    if (options & CAST)
        y = graph_cast(g, y, DT_F32);
    if (way == WEIGHED_BY_PRODUCT) { /* [tokens, 1, experts] x [tokens, wide, experts] */
        value q = graph_reshape(g, p, 3, (const dim[]){tokens(), n(1), n(many)});
        return graph_reshape(g, graph_dot(g, q, graph_transpose(g, y, (const int32_t[]){1, 2, 0}), 1, 1), 2,
                             (const dim[]){tokens(), n(wide)});
    }
    if (way == TOKENS_FIRST) {
        y = graph_transpose(g, y, first);
        y = graph_binary(g, OP_MUL, spread(p, 3, graph_node(g, y)->shape, (const int32_t[]){0, 1}), y);
        return graph_reduce(g, OP_REDUCE_SUM, y, 1, one);
    }
    value q = graph_reshape(g, graph_transpose(g, p, swap), 3, (const dim[]){n(many), tokens(), n(1)});
    y = graph_binary(g, OP_MUL, y, spread(q, 3, all, (const int32_t[]){0, 1, 2}));
    return graph_reduce(g, OP_REDUCE_SUM, y, 1, zero);
}

static void build(const struct mixture *m)
{
    const dim shape[] = {tokens(), n(m->width)};
    wide = m->width, inside = m->inner, many = m->experts, options = m->options;
    value x = graph_input(g, "x", DT_F32, 2, shape), square = graph_binary(g, OP_MUL, x, x);
    value scale = graph_unary(g, OP_RECIP,
                              graph_unary(g, OP_SQRT, graph_reduce(g, OP_REDUCE_SUM, square, 1, (const int32_t[]){1})));
    value y = graph_binary(g, OP_MUL, x, spread(scale, 2, shape, (const int32_t[]){0})), p = route(y);
    y = m->way == LOOP ? one_by_one(y, p) : at_once(y, p, m->way);
    y = graph_binary(g, OP_ADD, x, y);
    square = graph_reduce(g, OP_REDUCE_SUM, graph_binary(g, OP_MUL, y, y), 1, (const int32_t[]){1});
    graph_output(g, "y", graph_binary(g, OP_MUL, y, spread(square, 2, shape, (const int32_t[]){0})));
}

static const struct tensor *random_input(int64_t rows)
{
    struct tensor *in = NEW_ARRAY(arena, struct tensor, 1);
    const int64_t shape[] = {rows, wide};
    assert_true(tensor_new(arena, in, DT_F32, 2, shape));
    for (size_t i = 0; i < in->count; i++) {
        seed = seed * 1664525u + 1013904223u;
        dtype_store_f64(DT_F32, in->data, i, (double)(seed >> 20) / 1024 - 2);
    }
    return in;
}

static void expect_same(const struct tensor *a, const struct tensor *b, const char *what)
{
    struct difference d;
    if (!tensor_compare(a, b, 0, 0, &d) && (d.count == SIZE_MAX || d.worst > 2e-5 * (d.largest + 1e-3)))
        fail_msg("%s: other numbers: %g of %g", what, d.worst, d.largest);
}

/* One product over experts and insides, none that makes [experts, tokens, wide]. */
static void expect_form(const struct graph *s, const char *what)
{
    uint32_t contracted = 0, batched = 0;
    for (value v = 1; v < s->nodes.count; v++) {
        const struct node *m = graph_node(s, v);
        contracted += m->op == OP_DOT && m->attribute.ncontract == 2;
        batched += m->op == OP_DOT && m->attribute.nbatch == 1;
    }
    if (contracted != 1 || batched != 1)
        fail_msg("%s: %u contracted and %u batched products", what, contracted, batched);
}

static void split(const struct mixture *m, struct graph *s, const struct tensor *in, const struct tensor *wanted,
                  uint32_t ranks)
{
    struct subject it = {
        .name = m->name, .ranks = ranks, .arena = arena, .graph = s, .diag = &diag, .inputs = in, .wanted = wanted};
    struct solve_options o = {.ranks = ranks};
    first_line[0] = 0;
    if (solve(s, &o, arena, &diag, &it.solution) != TPC_OK ||
        parallelize(arena, s, it.solution, &diag, &it.program) != TPC_OK ||
        check(arena, s, it.program, it.solution, &diag) != TPC_OK)
        fail_msg("%s on %u: %s", m->name, ranks, first_line);
    if (it.solution->switches != 1)
        fail_msg("%s on %u: %u collectives", m->name, ranks, it.solution->switches);
    it.of = NEW_ARRAY(arena, int64_t, dims_symbol_count(it.program->dims) + 64);
    it.of[0] = in->shape[0];
    if (!subject_same_numbers(&it, it.program))
        fail_msg("%s on %u: other numbers: %s", m->name, ranks, first_line);
}

static void try_mixture(const struct mixture *m, uint32_t ranks)
{
    struct graph *s = NULL;
    struct interpretation before, after;
    arena = arena_new();
    g = graph_new(arena);
    seed = 7;
    build(m);
    assert_int_equal(graph_verify(g, "build", &diag), TPC_OK);
    assert_int_equal(simplify(arena, g, &diag, &s), TPC_OK);
    if (graph_verify(s, "simplify", &diag) != TPC_OK)
        fail_msg("%s: %s", m->name, first_line);
    const struct tensor *in = random_input(5);
    assert_int_equal(interpret(g, NULL, in, arena, &diag, &before), TPC_OK);
    assert_int_equal(interpret(s, NULL, in, arena, &diag, &after), TPC_OK);
    expect_same(&after.output[0], &before.output[0], m->name);
    expect_form(s, m->name);
    split(m, s, in, after.output, ranks);
    arena_free(arena);
}

static void test_forms(void **state)
{
    (void)state;
    static const struct mixture all[] = {
        {"loop", LOOP, 0, 4, 6, 5},
        {"loop, biased", LOOP, BIASED, 3, 6, 8},
        {"loop, gated", LOOP, GATED, 5, 6, 4},
        {"loop, gate and up interleaved, biased", LOOP, GATED | INTERLEAVED | BIASED, 4, 6, 4},
        {"batched", BATCHED, 0, 4, 6, 5},
        {"batched, interleaved, biased", BATCHED, GATED | INTERLEAVED | BIASED, 3, 6, 8},
        {"tokens first, biased", TOKENS_FIRST, BIASED, 4, 6, 5},
        {"weighed by a product", WEIGHED_BY_PRODUCT, GATED, 4, 6, 5},
        {"weighed by a product, biased", WEIGHED_BY_PRODUCT, BIASED, 6, 8, 4}};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        for (uint32_t ranks = 2; ranks <= 4; ranks++)
            try_mixture(&all[i], ranks);
}

/* ---- what must be left alone ---- */

static void test_lanes_that_differ_stay(void **state)
{
    (void)state;
    arena = arena_new();
    g = graph_new(arena);
    seed = 3, wide = 4;
    const dim shape[] = {tokens(), n(4)};
    const int64_t square[] = {4, 4};
    value x = graph_input(g, "x", DT_F32, 2, shape), z = graph_input(g, "z", DT_F32, 2, shape);
    value a = graph_unary(g, OP_TANH, graph_dot(g, x, weight(2, square), 0, 1)), shared = weight(2, square);
    value b = graph_unary(g, OP_TANH, graph_dot(g, z, weight(2, square), 0, 1)); /* of another value */
    value c = graph_unary(g, OP_EXP, graph_dot(g, x, weight(2, square), 0, 1));  /* another op */
    value d = graph_unary(g, OP_TANH, graph_dot(g, x, shared, 0, 1));            /* a weight that others use, too */
    value sum = graph_binary(g, OP_ADD, graph_binary(g, OP_ADD, a, b), graph_binary(g, OP_ADD, c, d));
    graph_output(g, "y", graph_dot(g, sum, shared, 0, 1));
    struct graph *s = NULL;
    assert_int_equal(simplify(arena, g, &diag, &s), TPC_OK);
    for (uint32_t i = 0; i < s->params.count; i++)
        assert_int_equal(s->params.at[i].part_count, 0);
    arena_free(arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_forms), cmocka_unit_test(test_lanes_that_differ_stay)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
