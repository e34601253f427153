/* tests/unit/solver_test.c - the plans of the classic blocks, derived by hand, as text that a reader can check by eye.
 *
 * Each test builds a block as the frontend would lower it, solves it, and compares a summary: one line per weight (style, how a rank stores
 * it), one per collective (where, of which size), then the outputs. tests/unit/solver_brute_test.c checks optimality on random graphs.
 */
#include "solver/solver.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

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

/* ---- building ---- */

#define SHAPE(...) (const dim[]){__VA_ARGS__}, sizeof((const dim[]){__VA_ARGS__}) / sizeof(dim)

static dim n(int64_t x)
{
    return dim_const(g->dims, x);
}
static dim sym(const char *name)
{
    return dim_symbol(g->dims, name);
}

static value named(value v, const char *name)
{
    g->nodes.at[v].name = name;
    return v;
}

static value weight_of(const char *name, dtype type, uint32_t rank, const int64_t *shape)
{
    struct param *p = PUSH(arena, &g->params);
    *p = (struct param){
        .name = name, .dtype = type, .rank = rank, .shape = shape, .file = NO_FILE, .length = dtype_size(type)};
    for (uint32_t i = 0; i < rank; i++)
        p->length *= (uint64_t)shape[i];
    p->data = arena_alloc(arena, p->length);
    return named(graph_param(g, g->params.count - 1), name);
}
static value weight(const char *name, int64_t rows, int64_t columns)
{
    int64_t *shape = NEW_ARRAY(arena, int64_t, 2);
    shape[0] = rows, shape[1] = columns;
    return weight_of(name, DT_F32, 2, shape);
}
static value vector(const char *name, int64_t size)
{
    int64_t *shape = NEW_ARRAY(arena, int64_t, 1);
    shape[0] = size;
    return weight_of(name, DT_F32, 1, shape);
}

static value transposed(value v, int32_t a, int32_t b, int32_t c, int32_t d)
{
    const int32_t list[] = {a, b, c, d};
    return graph_transpose(g, v, list);
}

/* x [.., k] times a weight [k, out] as stored by exporters. */
static value linear(value x, const char *name, int64_t k, int64_t out)
{
    const int32_t swap[] = {1, 0};
    return named(graph_dot(g, x, graph_transpose(g, weight(name, k, out), swap), 0, 1), name);
}

static value like(value v, value shape_of)
{
    return graph_broadcast_to(g, v, graph_node(g, shape_of)->rank, graph_node(g, shape_of)->shape);
}
static value add(value a, value b)
{
    return graph_binary(g, OP_ADD, a, like(b, a));
}
static value bias(value x, const char *name, int64_t size)
{
    return add(x, vector(name, size));
}
static value reshape(value v, const dim *shape, size_t rank)
{
    return graph_reshape(g, v, (uint32_t)rank, shape);
}
static value keep_last(value reduced, value x) /* [..] -> the shape of x, along its last axis */
{
    const struct node *to = graph_node(g, x);
    int32_t axes[MAX_RANK];
    for (int32_t i = 0; i < (int32_t)to->rank; i++)
        axes[i] = i;
    return graph_broadcast(g, reduced, to->rank, to->shape, axes);
}
static value reduce_last(op o, value x)
{
    const int32_t last[] = {(int32_t)graph_node(g, x)->rank - 1};
    return graph_reduce(g, o, x, 1, last);
}
static value norm(value x, const char *name, int64_t size)
{
    value mean = reduce_last(OP_REDUCE_SUM, graph_binary(g, OP_MUL, x, x));
    value scale = graph_unary(g, OP_RECIP, graph_unary(g, OP_SQRT, mean));
    return graph_binary(g, OP_MUL, graph_binary(g, OP_MUL, x, keep_last(scale, x)), like(vector(name, size), x));
}
static value softmax(value x)
{
    value e = graph_unary(g, OP_EXP, graph_binary(g, OP_SUB, x, keep_last(reduce_last(OP_REDUCE_MAX, x), x)));
    return graph_binary(g, OP_DIV, e, keep_last(reduce_last(OP_REDUCE_SUM, e), e));
}

/* q, k, v [b, heads, s, d] -> [b, s, heads*d] */
static value attention(value q, value k, value v, int64_t heads, int64_t d)
{
    dim b = sym("batch"), s = sym("sequence");
    value p = softmax(graph_dot(g, q, k, 2, 1));
    value o = graph_dot(g, p, transposed(v, 0, 1, 3, 2), 2, 1); /* [b, h, s, d] */
    return reshape(transposed(o, 0, 2, 1, 3), SHAPE(b, s, n(heads * d)));
}
static value split_heads(value x, int64_t heads, int64_t d)
{
    return transposed(reshape(x, SHAPE(sym("batch"), sym("sequence"), n(heads), n(d))), 0, 2, 1, 3);
}
static value repeat_heads(value x, int64_t groups, int64_t repeat, int64_t d) /* [b, g, s, d] -> [b, g*r, s, d] */
{
    dim b = sym("batch"), s = sym("sequence");
    const int32_t axes[] = {0, 1, 3, 4};
    const dim wide[] = {b, n(groups), n(repeat), s, n(d)};
    return reshape(graph_broadcast(g, x, 5, wide, axes), SHAPE(b, n(groups * repeat), s, n(d)));
}
static value input(int64_t hidden)
{
    const dim shape[] = {sym("batch"), sym("sequence"), n(hidden)};
    return graph_input(g, "x", DT_F32, 3, shape);
}
static value slice_last(value x, int64_t start, int64_t size)
{
    return graph_slice_axis(g, x, graph_node(g, x)->rank - 1, n(start), n(size));
}

/* ---- summaries ---- */

static struct solution *solved(uint32_t ranks)
{
    struct solution *s = NULL;
    struct solve_options options = {.ranks = ranks};
    assert_int_equal(solve(g, &options, arena, NULL, &s), TPC_OK);
    assert_int_equal(graph_verify(g, "solve", NULL), TPC_OK);
    return s;
}

static void put_axis(const struct axis_layout *a, struct text *t)
{
    for (uint32_t i = 0; i < a->count; i++) {
        text_put(t, i ? " | " : "");
        for (uint32_t k = 0; k < a->segment[i].count; k++) {
            const struct factor *f = &a->segment[i].factor[k];
            text_put(t, k ? "x" : "");
            dim_print(g->dims, f->extent, t);
            if (f->partition) {
                text_put(t, "/");
                mesh_print_subaxes(&g->mesh, g->partitions.at[f->partition].subaxes, t);
            }
        }
    }
}

static void put_placement(const struct placement *p, struct text *t)
{
    text_put(t, "[");
    for (uint32_t i = 0; i < p->rank; i++) {
        text_put(t, i ? ", " : "");
        put_axis(&p->axis[i], t);
    }
    text_put(t, "]");
    if (p->partial) {
        text_put(t, "+");
        mesh_print_subaxes(&g->mesh, p->partial_subaxes, t);
    }
}

static bool communicates(const struct placement *from, const struct placement *to)
{
    if (from->partial && from->partial_subaxes & ~to->partial_subaxes)
        return true;
    for (uint32_t i = 0; i < from->rank; i++)
        if (!axis_is_whole(&from->axis[i]) && !axis_equal(&from->axis[i], &to->axis[i]))
            return true;
    return false;
}

static void put_conversions(const struct solution *s, value v, struct text *t)
{
    LIST(const struct placement *) seen = {0};
    for (value w = 1; w <= g->nodes.count; w++) {
        bool last = w == g->nodes.count;
        uint32_t count = last ? g->outputs.count : graph_node(g, w)->operand_count;
        for (uint32_t i = 0; i < count; i++) {
            if ((last ? g->outputs.at[i].value : graph_node(g, w)->operand[i]) != v)
                continue;
            const struct placement *to = last ? s->output[i] : s->operand[w][i];
            bool known = !communicates(s->result[v], to);
            for (uint32_t k = 0; k < seen.count; k++)
                known = known || placement_equal(seen.at[k], to);
            if (known)
                continue;
            *PUSH(arena, &seen) = to;
            text_printf(t, "%s %s ", graph_node(g, v)->name ? graph_node(g, v)->name : "?",
                        op_info(graph_node(g, v)->op)->text);
            put_placement(s->result[v], t);
            text_put(t, " -> ");
            put_placement(to, t);
            text_put(t, "\n");
        }
    }
}

static const char *summary(const struct solution *s)
{
    struct text t = {.arena = arena};
    for (uint32_t i = 0; i < s->layer_count; i++) {
        const struct layer *l = &s->layers[i];
        text_printf(&t, "%s %s axis %d", l->param == UINT32_MAX ? "-" : g->params.at[l->param].name,
                    layer_style_name(l->style), l->axis);
        for (value v = 1; v < g->nodes.count && l->param != UINT32_MAX; v++)
            if (graph_node(g, v)->op == OP_PARAM && graph_node(g, v)->attribute.index == l->param) {
                text_put(&t, " ");
                put_placement(s->result[v], &t);
                break;
            }
        text_put(&t, "\n");
    }
    for (value v = 1; v < g->nodes.count; v++)
        if (graph_node(g, v)->op != OP_PARAM && graph_node(g, v)->op != OP_CONSTANT && graph_node(g, v)->op != OP_IOTA)
            put_conversions(s, v, &t);
    if (s->note)
        text_printf(&t, "note: %s\n", s->note);
    return t.at ? t.at : "";
}

/* TPC_PRINT=1 prints what there is instead of comparing. */
static void expect(uint32_t ranks, const char *text)
{
    const char *got = summary(solved(ranks));
    if (getenv("TPC_PRINT"))
        printf("tp %u\n%s\n", ranks, got);
    else
        assert_string_equal(got, text);
}

/* ---- blocks ---- */

static void mlp(void **state)
{
    (void)state;
    value x = input(16), h = graph_unary(g, OP_TANH, bias(linear(x, "up", 16, 64), "up.bias", 64));
    graph_output(g, "y", bias(linear(h, "down", 64, 16), "down.bias", 16));
    expect(2, "up column axis 1 [16, 64/tp]\n"
              "down row axis 0 [64/tp, 16]\n"
              "down dot [batch, sequence, 16]+tp -> [batch, sequence, 16]\n");
}

static void mlp_uneven(void **state)
{
    (void)state;
    value x = input(16), h = graph_unary(g, OP_TANH, bias(linear(x, "up", 16, 66), "up.bias", 66));
    graph_output(g, "y", norm(linear(h, "down", 66, 16), "norm", 16));
    expect(4, "up column axis 1 [16, 66/tp]\n"
              "down row axis 0 [66/tp, 16]\n"
              "down dot [batch, sequence, 16]+tp -> [batch, sequence, 16]\n");
}

static value gated(value x, int64_t h, int64_t ffn) /* gate|up packed */
{
    value both = linear(x, "gate_up", h, 2 * ffn);
    return linear(
        graph_binary(g, OP_MUL, graph_unary(g, OP_TANH, slice_last(both, 0, ffn)), slice_last(both, ffn, ffn)), "down",
        ffn, h);
}
static void gated_mlp(void **state)
{
    (void)state;
    value x = input(16);
    graph_output(g, "y", norm(add(x, gated(norm(x, "norm", 16), 16, 48)), "norm2", 16));
    expect(2, "gate_up column axis 1 [16, 2x48/tp]\n"
              "down row axis 0 [48/tp, 16]\n"
              "down dot [batch, sequence, 16]+tp -> [batch, sequence, 16]\n");
}

static void attention_block(int64_t heads, int64_t groups, int64_t d)
{
    int64_t h = heads * d;
    value x = input(h), y = norm(x, "norm", h);
    value q = split_heads(linear(y, "q", h, h), heads, d), k = split_heads(linear(y, "k", h, groups * d), groups, d),
          v = split_heads(linear(y, "v", h, groups * d), groups, d);
    if (groups < heads) {
        k = repeat_heads(k, groups, heads / groups, d);
        v = repeat_heads(v, groups, heads / groups, d);
    }
    value o = linear(attention(q, k, v, heads, d), "o", h, h);
    graph_output(g, "y", norm(add(x, o), "norm2", h));
}

static void attention_8(void **state)
{
    (void)state;
    attention_block(8, 8, 4);
    expect(2, "q column axis 1 [32, 8/tpx4]\n"
              "k column axis 1 [32, 8/tpx4]\n"
              "v column axis 1 [32, 8/tpx4]\n"
              "o row axis 0 [8/tpx4, 32]\n"
              "o dot [batch, sequence, 32]+tp -> [batch, sequence, 32]\n");
}
static void attention_3_on_2(void **state)
{
    (void)state;
    attention_block(3, 3, 4);
    expect(2, "q column axis 1 [12, 3/tpx4]\n"
              "k column axis 1 [12, 3/tpx4]\n"
              "v column axis 1 [12, 3/tpx4]\n"
              "o row axis 0 [3/tpx4, 12]\n"
              "o dot [batch, sequence, 12]+tp -> [batch, sequence, 12]\n");
}
static void grouped_2(void **state)
{
    (void)state;
    attention_block(8, 2, 4);
    expect(2, "q column axis 1 [32, 2/tpx16]\n"
              "k column axis 1 [32, 2/tpx4]\n"
              "v column axis 1 [32, 2/tpx4]\n"
              "o row axis 0 [2/tpx16, 32]\n"
              "o dot [batch, sequence, 32]+tp -> [batch, sequence, 32]\n");
}
static void grouped_4(void **state)
{
    (void)state;
    attention_block(8, 2, 4);
    expect(4, "q column axis 1 [32, 2/tp.0x4/tp.1x4]\n"
              "k column axis 1 [32, 2/tp.0x4]\n"
              "v column axis 1 [32, 2/tp.0x4]\n"
              "o row axis 0 [2/tp.0x4/tp.1x4, 32]\n"
              "o dot [batch, sequence, 32]+tp -> [batch, sequence, 32]\n");
}
static void multi_query(void **state)
{
    (void)state;
    attention_block(8, 1, 4);
    expect(2, "q column axis 1 [32, 8/tpx4]\n"
              "k replicated axis -1 [32, 4]\n"
              "v replicated axis -1 [32, 4]\n"
              "o row axis 0 [8/tpx4, 32]\n"
              "o dot [batch, sequence, 32]+tp -> [batch, sequence, 32]\n");
}

/* q|k|v in one weight */
static void packed(void **state)
{
    (void)state;
    int64_t heads = 4, d = 8, h = 32;
    value x = input(h), qkv = bias(linear(norm(x, "norm", h), "qkv", h, 3 * h), "qkv.bias", 3 * h);
    value q = split_heads(slice_last(qkv, 0, h), heads, d), k = split_heads(slice_last(qkv, h, h), heads, d),
          v = split_heads(slice_last(qkv, 2 * h, h), heads, d);
    value o = bias(linear(attention(q, k, v, heads, d), "o", h, h), "o.bias", h);
    graph_output(g, "y", norm(add(x, o), "norm2", h));
    expect(2, "qkv column axis 1 [32, 3x4/tpx8]\n"
              "o row axis 0 [4/tpx8, 32]\n"
              "o dot [batch, sequence, 32]+tp -> [batch, sequence, 32]\n");
}

/* one weight [q | k | v] of a multi-query attention, beside an MLP: one all-reduce */
static void parallel(void **state)
{
    (void)state;
    int64_t heads = 4, d = 8, h = 32;
    value x = input(h), y = norm(x, "norm", h), qkv = linear(y, "qkv", h, h + 2 * d);
    value q = split_heads(slice_last(qkv, 0, h), heads, d),
          k = repeat_heads(split_heads(slice_last(qkv, h, d), 1, d), 1, heads, d),
          v = repeat_heads(split_heads(slice_last(qkv, h + d, d), 1, d), 1, heads, d);
    value a = bias(linear(attention(q, k, v, heads, d), "o", h, h), "o.bias", h);
    value m = bias(linear(graph_unary(g, OP_TANH, linear(y, "up", h, 4 * h)), "down", 4 * h, h), "down.bias", h);
    graph_output(g, "y", norm(named(add(add(a, m), x), "sum"), "norm2", h));
    expect(2, "qkv column axis 1 [32, 4/tpx8 | 16]\n"
              "o row axis 0 [4/tpx8, 32]\n"
              "up column axis 1 [32, 128/tp]\n"
              "down row axis 0 [128/tp, 32]\n"
              "? add [batch, sequence, 32]+tp -> [batch, sequence, 32]\n");
}

/* per-head interleaved (heads, 3, d), with a bias table per head */
static void interleaved(void **state)
{
    (void)state;
    int64_t heads = 4, d = 8, h = 32;
    dim b = sym("batch"), s = sym("sequence");
    value x = input(h), qkv = reshape(linear(norm(x, "norm", h), "qkv", h, 3 * h), SHAPE(b, s, n(heads), n(3), n(d))),
          part[3];
    for (int i = 0; i < 3; i++)
        part[i] = transposed(reshape(graph_slice_axis(g, qkv, 3, n(i), n(1)), SHAPE(b, s, n(heads), n(d))), 0, 2, 1, 3);
    value o = linear(attention(part[0], part[1], part[2], heads, d), "o", h, h);
    graph_output(g, "y", norm(add(x, o), "norm2", h));
    expect(4, "qkv column axis 1 [32, 4/tpx24]\n"
              "o row axis 0 [4/tpx8, 32]\n"
              "o dot [batch, sequence, 32]+tp -> [batch, sequence, 32]\n");
}

static value tokens(void)
{
    const dim shape[] = {sym("batch"), sym("sequence")};
    return graph_input(g, "ids", DT_I64, 2, shape);
}

/* embedding, MLP, head tied to the embedding, logits as output */
static void tied_head(void **state)
{
    (void)state;
    value table = weight("table", 101, 16), x = named(graph_gather(g, table, tokens(), 0, 0), "embedded");
    value y = norm(add(x, gated(norm(x, "norm", 16), 16, 48)), "norm2", 16);
    graph_output(g, "logits", named(graph_dot(g, y, table, 0, 1), "head"));
    expect(2, "table vocabulary axis 0 [101/tp, 16]\n"
              "gate_up column axis 1 [16, 2x48/tp]\n"
              "down row axis 0 [48/tp, 16]\n"
              "table column axis 0 [101/tp, 16]\n"
              "embedded gather [batch, sequence, 16]+tp -> [batch, sequence, 16]\n"
              "down dot [batch, sequence, 16]+tp -> [batch, sequence, 16]\n"
              "head dot [batch, sequence, 101/tp] -> [batch, sequence, 101]\n");
}

/* the same with a loss: the logits are never whole */
static void loss(void **state)
{
    (void)state;
    const dim shape[] = {sym("batch"), sym("sequence")};
    const int32_t axes[] = {0, 1};
    value x = named(graph_gather(g, weight("table", 101, 16), tokens(), 0, 0), "embedded");
    value y = norm(add(x, gated(norm(x, "norm", 16), 16, 48)), "norm2", 16),
          labels = graph_input(g, "labels", DT_I64, 2, shape);
    graph_output(g, "loss",
                 graph_reduce(g, OP_REDUCE_SUM, graph_cross_entropy(g, linear(y, "head", 16, 101), labels), 2, axes));
    expect(2, "table vocabulary axis 0 [101/tp, 16]\n"
              "gate_up column axis 1 [16, 2x48/tp]\n"
              "down row axis 0 [48/tp, 16]\n"
              "head column axis 1 [16, 101/tp]\n"
              "- cross_entropy axis -1\n"
              "embedded gather [batch, sequence, 16]+tp -> [batch, sequence, 16]\n"
              "down dot [batch, sequence, 16]+tp -> [batch, sequence, 16]\n");
}

/* two tables added: one all-reduce */
static void two_embeddings(void **state)
{
    (void)state;
    const dim shape[] = {sym("batch"), sym("sequence")};
    value words = graph_gather(g, weight("words", 101, 16), tokens(), 0, 0);
    value positions = graph_gather(g, weight("positions", 64, 16), graph_iota(g, DT_I64, 2, shape, 1), 0, 0);
    value x = named(graph_binary(g, OP_ADD, words, positions), "embedded");
    graph_output(g, "y", norm(x, "norm", 16));
    expect(2, "words vocabulary axis 0 [101/tp, 16]\n"
              "positions vocabulary axis 0 [64/tp, 16]\n"
              "embedded add [batch, sequence, 16]+tp -> [batch, sequence, 16]\n");
}

/* past and present keys, cut by head; a mask whole; scores biased by a table [buckets, heads] */
static void states(void **state)
{
    (void)state;
    int64_t heads = 4, d = 8, h = 32;
    dim b = sym("batch"), s = sym("sequence"), p = sym("past"), total = dim_add(g->dims, p, s);
    value x = input(h), y = norm(x, "norm", h);
    value past = graph_input(g, "past", DT_F32, 4, (const dim[]){b, n(heads), p, n(d)});
    value bucket = graph_input(g, "bucket", DT_I64, 2, (const dim[]){s, total});
    value q = split_heads(linear(y, "q", h, h), heads, d);
    value present = graph_concat(g, 2, (const value[]){past, split_heads(linear(y, "k", h, h), heads, d)}, 2);
    value table = graph_gather(g, weight("buckets", 32, heads), bucket, 0, 0); /* [s, total, heads] */
    value biased = add(graph_dot(g, q, present, 2, 1), graph_transpose(g, table, (const int32_t[]){2, 0, 1}));
    value o = graph_dot(g, softmax(biased), transposed(present, 0, 1, 3, 2), 2, 1);
    graph_output(g, "y",
                 norm(add(x, linear(reshape(transposed(o, 0, 2, 1, 3), SHAPE(b, s, n(h))), "o", h, h)), "norm2", h));
    graph_output(g, "present", present);
    *PUSH(arena, &g->states) = (struct state){.input = 1, .output = 1, .axis = 2, .appended = true};
    expect(2, "q column axis 1 [32, 4/tpx8]\n"
              "k column axis 1 [32, 4/tpx8]\n"
              "buckets feature axis 1 [32, 4/tp]\n"
              "o row axis 0 [4/tpx8, 32]\n"
              "o dot [batch, sequence, 32]+tp -> [batch, sequence, 32]\n");
}

/* patches, a class token, one block */
static void patches(void **state)
{
    (void)state;
    int64_t h = 24;
    dim b = sym("batch");
    value x = graph_input(g, "pixels", DT_F32, 3, (const dim[]){b, n(16), n(48)});
    value y = bias(linear(x, "patch", 48, h), "patch.bias", h);
    value class = graph_broadcast_to(g, graph_reshape(g, vector("class", h), 3, (const dim[]){n(1), n(1), n(h)}), 3,
                                     (const dim[]){b, n(1), n(h)});
    value z = graph_concat(g, 2, (const value[]){class, y}, 1);
    z = add(z, linear(graph_unary(g, OP_TANH, linear(norm(z, "norm", h), "up", h, 96)), "down", 96, h));
    graph_output(g, "y", norm(z, "norm2", h));
    expect(2, "patch column axis 1 [48, 24/tp]\n"
              "up column axis 1 [24, 96/tp]\n"
              "down row axis 0 [96/tp, 24]\n"
              "patch dot [batch, 16, 24/tp] -> [batch, 16, 24]\n"
              "down dot [batch, 17, 24]+tp -> [batch, 17, 24]\n");
}

/* one decoder layer on the trunk x */
static value decoder_layer(value x, int64_t heads, int64_t groups, int64_t d, int64_t ffn)
{
    int64_t h = heads * d;
    value y = norm(x, "norm", h), q = split_heads(linear(y, "q", h, h), heads, d);
    value k = repeat_heads(split_heads(linear(y, "k", h, groups * d), groups, d), groups, heads / groups, d);
    value v = repeat_heads(split_heads(linear(y, "v", h, groups * d), groups, d), groups, heads / groups, d);
    x = add(x, linear(attention(q, k, v, heads, d), "o", h, h));
    return add(x, gated(norm(x, "norm2", h), h, ffn));
}

/* 40 layers: each as one layer is, two all-reduces, and one for the embedding, and the logits gathered */
static void deep(void **state)
{
    (void)state;
    const uint32_t layers = 40;
    value x = graph_gather(g, weight("table", 509, 32), tokens(), 0, 0);
    for (uint32_t i = 0; i < layers; i++)
        x = decoder_layer(x, 8, 4, 4, 96);
    graph_output(g, "logits", linear(norm(x, "norm", 32), "head", 32, 509));
    for (uint32_t ranks = 2; ranks <= 8; ranks *= 2) {
        const struct solution *s = solved(ranks);
        assert_int_equal(s->switches, 2 * layers + 2);
        for (uint32_t i = 0; i < s->layer_count; i++)
            assert_string_equal(s->layers[i].reason, s->layers[i < 7 || i + 1 == s->layer_count ? i : i - 6].reason);
    }
}

static void nothing(void **state)
{
    (void)state;
    value x = input(16);
    graph_output(g, "y", norm(x, "norm", 16));
    expect(2, "note: nothing to split: no product with a weight and no embedding in the graph\n");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(mlp),         TEST(mlp_uneven), TEST(gated_mlp),   TEST(attention_8),    TEST(attention_3_on_2),
        TEST(grouped_2),   TEST(grouped_4),  TEST(multi_query), TEST(packed),         TEST(parallel),
        TEST(interleaved), TEST(tied_head),  TEST(loss),        TEST(two_embeddings), TEST(states),
        TEST(patches),     TEST(deep),       TEST(nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
