/* tests/unit/graph_test.c - building Graphs, guards, walking, mesh and partitions. */
#include "ir/graph.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h> /* needs those above */

static struct arena *arena;
static struct graph *g;

static int setup(void **state)
{
    (void)state;
    arena = arena_new();
    g = graph_new(arena);
    return 0;
}
static int teardown(void **state)
{
    (void)state;
    arena_free(arena);
    return 0;
}

static dim parse(const char *text)
{
    const char *at = text;
    return dim_parse(g->dims, &at, text + strlen(text));
}

/* An input of the shape written as "a, 3, b + 1". */
static value input(dtype type, const char *shape)
{
    dim d[MAX_RANK];
    uint32_t rank = 0;
    const char *at = shape, *end = shape + strlen(shape);
    while (at < end) {
        d[rank++] = dim_parse(g->dims, &at, end);
        at += at < end;
    }
    return graph_input(g, "x", type, rank, d);
}

static void check(value v, dtype type, const char *shape)
{
    const struct node *n = graph_node(g, v);
    struct text out = {.arena = arena};
    text_put(&out, "");
    for (uint32_t i = 0; i < n->rank; i++) {
        text_put(&out, i ? ", " : "");
        dim_print(g->dims, n->shape[i], &out);
    }
    assert_string_equal(out.at, shape);
    assert_int_equal(n->dtype, type);
}

static void test_shapes(void **state)
{
    (void)state;
    const int32_t permutation[] = {0, 2, 1}, axes[] = {2, 0}, ends[] = {0, 2};
    value x = input(DT_F32, "b, s, 64"), ids = input(DT_I64, "b, s"), w = input(DT_F32, "192, 64"),
          k = input(DT_F32, "b, p + s, 64");
    check(graph_unary(g, OP_EXP, x), DT_F32, "b, s, 64");
    check(graph_binary(g, OP_LT, x, x), DT_BOOL, "b, s, 64");
    check(graph_select(g, graph_binary(g, OP_EQ, ids, ids), ids, ids), DT_I64, "b, s");
    check(graph_cast(g, x, DT_F16), DT_F16, "b, s, 64");
    assert_int_equal(graph_cast(g, x, DT_F32), x);
    check(graph_reduce(g, OP_REDUCE_MAX, x, 2, axes), DT_F32, "s");
    check(graph_dot(g, x, w, 0, 1), DT_F32, "b, s, 192");
    check(graph_dot(g, x, k, 1, 1), DT_F32, "b, s, s + p");
    check(graph_gather(g, w, ids, 0, 0), DT_F32, "b, s, 64");
    check(graph_gather(g, x, input(DT_I32, "b, 7"), 1, 1), DT_F32, "b, 7, 64");
    check(graph_scatter(g, w, ids, x, 0, 0, SCATTER_SET), DT_F32, "192, 64");
    check(graph_reshape(g, x, 3, (dim[]){parse("b*s"), parse("4"), parse("16")}), DT_F32, "b*s, 4, 16");
    check(graph_transpose(g, x, permutation), DT_F32, "b, 64, s");
    check(graph_broadcast_to(g, ids, 3, (dim[]){parse("5"), parse("b"), parse("s")}), DT_I64, "5, b, s");
    check(graph_broadcast(g, ids, 3, (dim[]){parse("b"), parse("9"), parse("s")}, ends), DT_I64, "b, 9, s");
    check(graph_slice_axis(g, k, 1, parse("p"), parse("s")), DT_F32, "b, s, 64");
    assert_int_equal(graph_slice_axis(g, x, 1, parse("0"), parse("s")), x);
    check(graph_concat(g, 3, (value[]){x, k, x}, 1), DT_F32, "b, 3*s + p, 64");
    check(graph_window(g, input(DT_F32, "b, 3, 2*h + 2"), 2, 3, 2, 1), DT_F32, "b, 3, h, 3");
    check(graph_window(g, input(DT_F32, "b, 3, h"), 2, 16, 16, 1), DT_F32, "b, 3, h/16, 16");
    check(graph_topk(g, x, 2, parse("3"), false), DT_I64, "b, s, 3");
    check(graph_cross_entropy(g, x, ids), DT_F32, "b, s");
    check(graph_scalar_f64(g, DT_F16, 1.5), DT_F16, "");
    check(graph_dim(g, parse("b + 1")), DT_I64, "");
    check(graph_iota(g, DT_I64, 2, (dim[]){parse("b"), parse("s")}, 1), DT_I64, "b, s");
    check(graph_reverse(g, x, 2, ends), DT_F32, "b, s, 64");
    check(graph_cumsum(g, ids, 1, true, false), DT_I64, "b, s");
    check(graph_pad(g, ids, graph_scalar_i64(g, DT_I64, 0), (dim[]){parse("0"), parse("1")},
                    (dim[]){parse("b"), parse("s + 4")}),
          DT_I64, "b, s + 4");
    graph_output(g, "y", x);
    assert_int_equal(graph_verify(g, "test", NULL), TPC_OK);
}

static void test_guards(void **state)
{
    (void)state;
    value x = input(DT_F32, "b, s"), y = input(DT_F32, "b2, s2");
    graph_set_origin(g, graph_add_origin(g, "m.onnx", 17, "layers.0/add", "Add"));
    assert_true(graph_guard(g, parse("b"), parse("b2"), "Add: axis 0"));
    assert_true(graph_guard(g, parse("s2"), parse("s"), "Add: axis 1"));
    assert_true(graph_guard(g, parse("s2 + b2"), parse("b + s"), "implied"));
    assert_false(graph_guard(g, parse("4"), parse("5"), "never"));
    assert_int_equal(g->guards.count, 2);
    value sum = graph_binary(g, OP_ADD, x, y);
    check(sum, DT_F32, "b, s");
    check(y, DT_F32, "b2, s2");
    graph_resolve(g);
    check(y, DT_F32, "b, s");
    assert_string_equal(graph_where(g, sum, arena), "m.onnx: node 17 'layers.0/add' (Add)");
    assert_int_equal(graph_verify(g, "test", NULL), TPC_OK);
}

static void test_walk(void **state)
{
    (void)state;
    value x = input(DT_F32, "b"), y = graph_binary(g, OP_ADD, x, x), dead = graph_unary(g, OP_EXP, y),
          z = graph_unary(g, OP_NEG, y);
    value unused = input(DT_F32, "b");
    graph_output(g, "z", z);
    struct uses u = graph_uses(g, arena);
    assert_int_equal(u.first[x + 1] - u.first[x], 2);
    assert_int_equal(u.use[u.first[x]], y);
    assert_int_equal(u.first[y + 1] - u.first[y], 2);
    assert_int_equal(u.use[u.first[y]], dead);
    assert_int_equal(u.use[u.first[y] + 1], z);
    assert_int_equal(u.first[z + 1] - u.first[z], 0);
    assert_int_equal(u.first[g->nodes.count] - u.first[0], 4);
    bool *live = graph_live(g, arena);
    assert_true(live[x] && live[y] && live[z] && live[unused] && !live[dead]);
    struct graph *d = graph_derive(g);
    assert_int_equal(d->nodes.count, 1);
    (void)graph_add_origin(d, "m.onnx", 1, "", "");
    assert_int_equal(g->origins.count, 1);
    assert_true(node_same(graph_node(g, dead), graph_node(g, dead)));
    assert_false(node_same(graph_node(g, dead), graph_node(g, z)));
    value one = graph_scalar_f64(g, DT_F32, 1), again = graph_scalar_f64(g, DT_F32, 1),
          two = graph_scalar_f64(g, DT_F32, 2);
    assert_true(node_same(graph_node(g, one), graph_node(g, again)));
    assert_int_equal(node_hash(graph_node(g, one)), node_hash(graph_node(g, again)));
    assert_false(node_same(graph_node(g, one), graph_node(g, two)));
}

static void test_mesh(void **state)
{
    (void)state;
    struct mesh m;
    mesh_init(&m, "tp", 12);
    assert_int_equal(m.count, 3);
    assert_int_equal(m.size[0], 3);
    assert_int_equal(mesh_parts(&m, 5), 6);
    for (uint32_t r = 0; r < 12; r++) {
        assert_int_equal(mesh_part_of(&m, 7, r), r);
        assert_int_equal(mesh_part_of(&m, 1, r), r / 4);
        assert_int_equal(mesh_part_of(&m, 5, r), r / 4 * 2 + r % 2);
    }
    mesh_init(&m, "tp", 1);
    assert_int_equal(m.count, 0);
    assert_int_equal(m.ranks, 1);
}

static void test_partitions(void **state)
{
    (void)state;
    int64_t cut[5];
    partition_balance(176, 32, 4, cut);
    const int64_t wanted[] = {0, 64, 128, 160, 176};
    assert_memory_equal(cut, wanted, sizeof wanted);
    mesh_init(&g->mesh, "tp", 4);
    uint32_t uneven = graph_partition(g, parse("176"), 32, 3, cut), seq = graph_partition(g, parse("s"), 1, 3, NULL);
    partition_balance(64, 1, 4, cut);
    uint32_t even = graph_partition(g, parse("64"), 1, 3, cut), exact = graph_partition(g, parse("8*s"), 2, 3, NULL);
    assert_int_equal(graph_partition(g, parse("64"), 1, 3, cut), even);
    assert_string_equal(dim_text(g->dims, partition_size(g, uneven), arena), "s:1");
    assert_string_equal(dim_text(g->dims, partition_size(g, even), arena), "16");
    assert_string_equal(dim_text(g->dims, partition_size(g, exact), arena), "2*s");
    assert_string_equal(dim_text(g->dims, partition_offset(g, even), arena), "o:3");
    assert_int_equal(dim_lower(g->dims, partition_size(g, uneven)), 16);
    assert_int_equal(dim_upper(g->dims, partition_size(g, uneven)), 64);
    int64_t *of = NEW_ARRAY(arena, int64_t, dims_symbol_count(g->dims)), v;
    of[dim_get(g->dims, parse("s")).symbol] = 10;
    const int64_t sizes[] = {3, 3, 3, 1}, large[] = {64, 64, 32, 16};
    for (uint32_t r = 0; r < 4; r++) {
        assert_true(graph_bind_rank(g, r, of));
        assert_true(dim_eval(g->dims, partition_size(g, seq), of, &v));
        assert_int_equal(v, sizes[r]);
        assert_true(dim_eval(g->dims, partition_size(g, uneven), of, &v));
        assert_int_equal(v, large[r]);
        assert_true(dim_eval(g->dims, partition_offset(g, even), of, &v));
        assert_int_equal(v, 16 * r);
    }
}

static value cut(op o, value v, uint32_t axis, uint32_t partition)
{
    const dim around[2] = {parse("1"), parse("16")};
    struct attribute a = {.axis = (int32_t)axis, .partition = partition, .dims = around, .dims_count = 2};
    a.mode = o == OP_REDUCE_SCATTER ? REDUCTION_SUM : 0;
    return graph_add(g, o, DT_NONE, 0, NULL, 1, &v, &a);
}

static void test_collectives(void **state)
{
    (void)state;
    int64_t cuts[3];
    mesh_init(&g->mesh, "tp", 2);
    partition_balance(3, 1, 2, cuts);
    uint32_t heads = graph_partition(g, parse("3"), 1, 1, cuts), seq = graph_partition(g, parse("s"), 1, 1, NULL);
    value x = input(DT_F32, "b, s, 48");
    value part = cut(OP_RESTRICT, x, 2, heads);
    check(part, DT_F32, "b, s, 16*s:1");
    check(cut(OP_ALL_GATHER, part, 2, heads), DT_F32, "b, s, 48");
    check(cut(OP_REDUCE_SCATTER, x, 2, heads), DT_F32, "b, s, 16*s:1");
    const dim around[4] = {parse("1"), parse("16"), parse("1"), parse("1")};
    const int32_t other[2] = {1, (int32_t)seq};
    struct attribute a = {
        .axis = 2, .partition = heads, .dims = around, .dims_count = 4, .list = other, .list_count = 2};
    check(graph_add(g, OP_ALL_TO_ALL, DT_NONE, 0, NULL, 1, &part, &a), DT_F32, "b, s:2, 48");
    struct attribute group = {.index = 1, .mode = REDUCTION_SUM};
    check(graph_add(g, OP_ALL_REDUCE, DT_NONE, 0, NULL, 1, &part, &group), DT_F32, "b, s, 16*s:1");
    assert_int_equal(graph_verify(g, "test", NULL), TPC_OK);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_shapes), TEST(test_guards),     TEST(test_walk),
        TEST(test_mesh),   TEST(test_partitions), TEST(test_collectives),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
