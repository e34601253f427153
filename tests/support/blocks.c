/* tests/support/blocks.c - large regular graphs, built in memory: see blocks.h. Start with block_decoder. */
#include "tests/support/blocks.h"

struct builder {
    struct arena *arena;
    struct graph *g;
    uint64_t offset; /* of the next weight in the file */
};

enum { WIDTH = 512, HEADS = 8, HEAD = 64, HIDDEN = 1408, VOCABULARY = 32000, NARROW = 64 };

static dim number(struct builder *b, int64_t x)
{
    return dim_const(b->g->dims, x);
}

static value weight(struct builder *b, int64_t rows, int64_t columns)
{
    int64_t *shape = NEW_ARRAY(b->arena, int64_t, 2);
    struct param *p = PUSH(b->arena, &b->g->params);
    shape[0] = rows, shape[1] = columns;
    *p =
        (struct param){.name = "weight", .dtype = DT_F32, .rank = columns ? 2 : 1, .shape = shape, .offset = b->offset};
    p->length = (uint64_t)(rows * (columns ? columns : 1)) * dtype_size(DT_F32);
    b->offset += p->length;
    return graph_param(b->g, b->g->params.count - 1);
}

static void start(struct builder *b, struct arena *arena)
{
    *b = (struct builder){.arena = arena, .g = graph_new(arena)};
    b->g->model_path = "blocks";
    *PUSH(b->arena, &b->g->files) = (struct weight_file){.path = "blocks.weights", .size = INT64_MAX};
}

static const dim *shape_of(struct builder *b, value v)
{
    return graph_node(b->g, v)->shape;
}

/* rms(x) * weight over the last axis of [batch, sequence, WIDTH] */
static value norm(struct builder *b, value x)
{
    struct graph *g = b->g;
    const int32_t last = 2, keep[] = {0, 1}, place[] = {2};
    value square = graph_reduce(g, OP_REDUCE_SUM, graph_binary(g, OP_MUL, x, x), 1, &last);
    value scale = graph_broadcast_to(g, graph_scalar_f64(g, DT_F32, 1.0 / WIDTH), 2, shape_of(b, square));
    value root = graph_unary(g, OP_RECIP, graph_unary(g, OP_SQRT, graph_binary(g, OP_MUL, square, scale)));
    value normal = graph_binary(g, OP_MUL, x, graph_broadcast(g, root, 3, shape_of(b, x), keep));
    return graph_binary(g, OP_MUL, normal, graph_broadcast(g, weight(b, WIDTH, 0), 3, shape_of(b, x), place));
}

static value heads(struct builder *b, value x, bool transposed)
{
    const dim *s = shape_of(b, x);
    const dim split[] = {s[0], s[1], number(b, HEADS), number(b, HEAD)};
    const int32_t order[] = {0, 2, 1, 3}, turned[] = {0, 2, 3, 1};
    return graph_transpose(b->g, graph_reshape(b->g, x, 4, split), transposed ? turned : order);
}

static value attention(struct builder *b, value x)
{
    struct graph *g = b->g;
    value q = heads(b, graph_dot(g, x, weight(b, WIDTH, WIDTH), 0, 1), false);
    value k = heads(b, graph_dot(g, x, weight(b, WIDTH, WIDTH), 0, 1), false);
    value v = heads(b, graph_dot(g, x, weight(b, WIDTH, WIDTH), 0, 1), true);
    const int32_t last = 3, keep[] = {0, 1, 2}, back[] = {0, 2, 1, 3};
    value scores = graph_dot(g, q, k, 2, 1);
    value top = graph_broadcast(g, graph_reduce(g, OP_REDUCE_MAX, scores, 1, &last), 4, shape_of(b, scores), keep);
    value e = graph_unary(g, OP_EXP, graph_binary(g, OP_SUB, scores, top));
    value sum = graph_broadcast(g, graph_reduce(g, OP_REDUCE_SUM, e, 1, &last), 4, shape_of(b, scores), keep);
    value context = graph_transpose(g, graph_dot(g, graph_binary(g, OP_DIV, e, sum), v, 2, 1), back);
    const dim flat[] = {shape_of(b, x)[0], shape_of(b, x)[1], number(b, WIDTH)};
    return graph_dot(g, graph_reshape(g, context, 3, flat), weight(b, WIDTH, WIDTH), 0, 1);
}

static value mlp(struct builder *b, value x)
{
    struct graph *g = b->g;
    value gate = graph_dot(g, x, weight(b, HIDDEN, WIDTH), 0, 1), up = graph_dot(g, x, weight(b, HIDDEN, WIDTH), 0, 1);
    value hidden = graph_binary(g, OP_MUL, graph_unary(g, OP_TANH, gate), up);
    return graph_dot(g, hidden, weight(b, WIDTH, HIDDEN), 0, 1);
}

struct graph *block_decoder(struct arena *arena, uint32_t layers)
{
    struct builder builder, *b = &builder;
    start(b, arena);
    const dim tokens[] = {dim_symbol(b->g->dims, "batch"), dim_symbol(b->g->dims, "sequence")};
    value ids = graph_input(b->g, "ids", DT_I64, 2, tokens);
    value x = graph_gather(b->g, weight(b, VOCABULARY, WIDTH), ids, 0, 0);
    for (uint32_t i = 0; i < layers; i++) {
        x = graph_binary(b->g, OP_ADD, x, attention(b, norm(b, x)));
        x = graph_binary(b->g, OP_ADD, x, mlp(b, norm(b, x)));
    }
    graph_output(b->g, "logits", graph_dot(b->g, norm(b, x), weight(b, VOCABULARY, WIDTH), 0, 1));
    return b->g;
}

const char *const block_chain_names[BLOCK_CHAINS] = {"pointwise ops behind a linear", "pointwise ops on an input",
                                                     "residual blocks on one trunk", "linears with an op between"};

struct graph *block_chain(struct arena *arena, enum block_chain kind, uint32_t nodes)
{
    struct builder builder, *b = &builder;
    start(b, arena);
    const dim shape[] = {dim_symbol(b->g->dims, "rows"), number(b, NARROW)};
    value x = graph_input(b->g, "x", DT_F32, 2, shape);
    if (kind != CHAIN_PRELUDE)
        x = graph_dot(b->g, x, weight(b, NARROW, NARROW), 0, 1);
    while (b->g->nodes.count < nodes) {
        uint32_t at = b->g->nodes.count;
        if (kind == CHAIN_RESIDUAL) {
            value h = graph_unary(b->g, OP_TANH, graph_dot(b->g, x, weight(b, 2 * NARROW, NARROW), 0, 1));
            x = graph_binary(b->g, OP_ADD, x, graph_dot(b->g, h, weight(b, NARROW, 2 * NARROW), 0, 1));
        } else if (kind == CHAIN_LINEARS) {
            x = graph_unary(b->g, OP_TANH, graph_dot(b->g, x, weight(b, NARROW, NARROW), 0, 1));
        } else {
            x = graph_unary(b->g, at % 2 ? OP_TANH : OP_ABS, x);
        }
    }
    graph_output(b->g, "y", graph_dot(b->g, x, weight(b, NARROW, NARROW), 0, 1));
    return b->g;
}
