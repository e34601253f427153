/* tests/unit/import_test.c - the ONNX importer on small models made here: order, names, functions, If, guards, states, weights and
 * where they lie. */
#include "frontend/onnx/onnx.h"
#include "tests/support/onnx_model.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h> /* needs those above */

static struct arena *arena;
static char said[4000]; /* all diagnostics since setup, one per line */
static unsigned lines;

static void note(void *user, severity level, const char *line)
{
    size_t at = strlen(said);
    (void)user;
    (void)level;
    lines++;
    snprintf(said + at, sizeof said - at, "%s\n", line);
}
static struct diag diag = {.sink = note};

static int setup(void **state)
{
    (void)state;
    arena = arena_new();
    said[0] = '\0';
    lines = 0;
    return 0;
}
static int teardown(void **state)
{
    (void)state;
    arena_free(arena);
    return 0;
}

static status import_with(struct made *m, const struct import_options *options, struct graph **g)
{
    struct wire_bytes b = made_pack(m);
    return onnx_import_bytes(arena, "m.onnx", b.at, b.length, options, &diag, g);
}

static struct graph *imported(struct made *m)
{
    struct graph *g = NULL;
    status s = import_with(m, NULL, &g);
    if (s != TPC_OK)
        fail_msg("status %d: %s", s, said);
    assert_int_equal(graph_verify(g, "import", &diag), TPC_OK);
    return g;
}

static void refused(struct made *m, status wanted, const char *words)
{
    struct graph *g = NULL;
    assert_int_equal(import_with(m, NULL, &g), wanted);
    assert_null(g);
    if (!strstr(said, words))
        fail_msg("said: %s", said);
}

static uint32_t count_op(const struct graph *g, op o)
{
    uint32_t n = 0;
    for (uint32_t v = 1; v < g->nodes.count; v++)
        n += g->nodes.at[v].op == o;
    return n;
}

static const char *output_shape(const struct graph *g, uint32_t i)
{
    const struct node *n = graph_node(g, g->outputs.at[i].value);
    struct text t = {.arena = arena};
    text_put(&t, "");
    for (uint32_t k = 0; k < n->rank; k++)
        text_printf(&t, "%s%s", k ? " " : "", dim_text(g->dims, n->shape[k], arena));
    return t.at ? t.at : "";
}

/* ---- order and names ---------------------------------------------------------------------------------------- */

static void test_order(void **state)
{
    (void)state;
    struct made *m = made_new(arena);
    made_input(m, "x", DT_F32, "batch 4");
    made_node(m, "Neg", "b", "y"); /* before its input, and beside a node that nothing needs */
    made_node(m, "NoSuchOperator", "x", "unused");
    made_node(m, "Exp", "x", "b");
    made_output(m, "y");
    struct graph *g = imported(m);
    assert_int_equal(count_op(g, OP_NEG), 1);
    assert_int_equal(count_op(g, OP_EXP), 1);
    assert_string_equal(output_shape(g, 0), "batch 4");
    assert_string_equal(graph_node(g, g->outputs.at[0].value)->name, "y");
}

/* What exporters write and ONNX does not allow, where it has one meaning. */
static void test_odd_names(void **state)
{
    (void)state;
    const float w[4] = {1, 2, 3, 4};
    struct made *m = made_new(arena);
    made_input(m, "a/b:0", DT_F32, "batch 4");
    made_input(m, "/w:1", DT_F32, "4"); /* an initializer listed as an input */
    made_tensor(m, "/w:1", DT_F32, 4, w);
    made_node(m, "Clip", "y//:2", "out:0"); /* before its input; nodes of one name */
    made_node(m, "Add", "a/b:0 /w:1", "y//:2")->name = m->graph.node[0]->name;
    made_output(m, "out:0");
    struct graph *g = imported(m);
    assert_int_equal(g->inputs.count, 1);
    assert_string_equal(g->inputs.at[0].name, "a/b:0");
    assert_int_equal(count_op(g, OP_ADD), 1);
}

/* A truth added to scores keeps those where it is true; added to anything else it is an error. */
static void test_mask_added(void **state)
{
    (void)state;
    for (int softmax = 0; softmax < 2; softmax++) {
        struct made *m = made_new(arena);
        made_input(m, "scores", DT_F32, "batch 4");
        made_input(m, "keep", DT_BOOL, "batch 4");
        made_node(m, "Add", "scores keep", "masked");
        made_node(m, softmax ? "Softmax" : "Exp", "masked", "y");
        made_output(m, "y");
        if (softmax)
            assert_int_equal(count_op(imported(m), OP_SELECT), 1);
        else
            refused(m, TPC_DATA, "operand types differ: f32 and bool");
    }
}

static void test_cycle(void **state)
{
    (void)state;
    struct made *m = made_new(arena);
    made_input(m, "x", DT_F32, "4");
    made_node(m, "Add", "x c", "a");
    made_node(m, "Exp", "a", "b");
    made_node(m, "Neg", "b", "c");
    made_output(m, "c");
    refused(m, TPC_DATA, "cycle: 0 'the Add' (Add) <- 2 'the Neg' (Neg) <- 1 'the Exp' (Exp)");
}

static void test_duplicate(void **state)
{
    (void)state;
    struct made *m = made_new(arena);
    made_input(m, "x", DT_F32, "4");
    made_node(m, "Neg", "x", "y");
    made_node(m, "Exp", "x", "y");
    made_output(m, "y");
    refused(m, TPC_DATA, "the name 'y' is given to two values");
}

static void test_unknown_name(void **state)
{
    (void)state;
    struct made *m = made_new(arena);
    made_input(m, "x", DT_F32, "4");
    made_node(m, "Add", "x nothing", "y");
    made_output(m, "y");
    refused(m, TPC_DATA, "node 0 'the Add' (Add): error: input 'nothing' is not defined");
    assert_int_equal(lines, 1);
}

static void test_unsupported_together(void **state)
{
    (void)state;
    struct made *m = made_new(arena);
    made_input(m, "x", DT_F32, "4");
    made_node(m, "Foo", "x", "a");
    made_node(m, "Foo", "x", "b");
    made_node(m, "Neg", "a", "c"); /* nothing is said of what follows from another */
    made_node(m, "Bar", "c", "d")->domain = arena_strdup(arena, "own");
    made_node(m, "Add", "b d", "y");
    made_output(m, "y");
    refused(m, TPC_UNSUPPORTED, "node 0 'the Foo' (Foo): error: Foo, version 18, is not supported (2 nodes)");
    assert_non_null(strstr(said, "own.Bar, version 1, is not supported (1 node)"));
    assert_int_equal(lines, 2);
}

static void test_empty(void **state)
{
    (void)state;
    struct made *m = made_new(arena);
    made_input(m, "x", DT_F32, "4");
    made_output(m, "x");
    refused(m, TPC_DATA, "the graph has no nodes");
}

/* ---- shapes ------------------------------------------------------------------------------------------------- */

/* x[batch, sequence] reshaped by its own shape: nothing is left of the shape's computation. */
static void test_shape_vanishes(void **state)
{
    (void)state;
    static const int64_t one = 1, minus = -1;
    struct made *m = made_new(arena);
    made_input(m, "x", DT_F32, "batch sequence 8");
    made_tensor(m, "one", DT_I64, 1, &one);
    made_tensor(m, "minus", DT_I64, 1, &minus);
    made_node(m, "Shape", "x", "shape");
    made_node(m, "Gather", "shape one", "sequence");
    made_node(m, "Concat", "minus sequence", "target");
    made_int(m->node[2], "axis", 0);
    made_node(m, "Reshape", "x target", "y");
    made_output(m, "y");
    struct graph *g = imported(m);
    assert_string_equal(output_shape(g, 0), "8*batch sequence");
    assert_int_equal(g->nodes.count, 3);
}

static void test_guard(void **state)
{
    (void)state;
    struct made *m = made_new(arena);
    made_input(m, "x", DT_F32, "s1 4");
    made_input(m, "y", DT_F32, "s2 4");
    made_node(m, "Add", "x y", "z");
    made_output(m, "z");
    struct graph *g = imported(m);
    assert_int_equal(g->guards.count, 1);
    assert_string_equal(g->guards.at[0].why, "Add: extents of operands");
    m = made_new(arena);
    made_input(m, "x", DT_F32, "5");
    made_input(m, "y", DT_F32, "4");
    made_node(m, "Add", "x y", "z");
    made_output(m, "z");
    refused(m, TPC_DATA, "extents of operands differ: 5 and 4");
}

/* x[sequence] padded to whole blocks of 4, (-sequence mod 4) more, and cut into them. */
static void test_pad_to_blocks(void **state)
{
    (void)state;
    static const int64_t four = 4, zero = 0, blocks[] = {-1, 4};
    struct made *m = made_new(arena);
    made_input(m, "x", DT_F32, "sequence");
    made_tensor(m, "four", DT_I64, 1, &four);
    made_tensor(m, "zero", DT_I64, 1, &zero);
    made_tensor(m, "blocks", DT_I64, 2, blocks);
    made_node(m, "Shape", "x", "length");
    made_node(m, "Neg", "length", "less");
    made_node(m, "Mod", "less four", "lacks");
    made_int(made_node(m, "Concat", "zero lacks", "pads"), "axis", 0);
    made_node(m, "Pad", "x pads", "padded");
    made_node(m, "Reshape", "padded blocks", "y");
    made_output(m, "padded");
    made_output(m, "y");
    struct graph *g = imported(m);
    assert_string_equal(output_shape(g, 0), "4*ceildiv(sequence, 4)");
    assert_string_equal(output_shape(g, 1), "ceildiv(sequence, 4) 4");
}

/* bias[max(1 - sequence, 0):] of one row is that row, wherever there is a sequence. */
static void test_slice_of_one(void **state)
{
    (void)state;
    static const int64_t one = 1, zero = 0, all = INT64_MAX;
    struct made *m = made_new(arena);
    made_input(m, "x", DT_F32, "sequence");
    made_input(m, "bias", DT_F32, "1");
    made_tensor(m, "one", DT_I64, 1, &one);
    made_tensor(m, "zero", DT_I64, 1, &zero);
    made_tensor(m, "all", DT_I64, 1, &all);
    made_node(m, "Shape", "x", "length");
    made_node(m, "Sub", "one length", "less");
    made_node(m, "Max", "less zero", "start");
    made_node(m, "Slice", "bias start all", "part");
    made_node(m, "Add", "x part", "y");
    made_output(m, "y");
    struct graph *g = imported(m);
    assert_string_equal(output_shape(g, 0), "sequence");
    assert_int_equal(g->guards.count, 1);
    assert_string_equal(g->guards.at[0].why, "Add: extent of an operand");
}

static void test_set(void **state)
{
    (void)state;
    struct import_symbol symbol = {"batch", 3};
    struct import_options options = {.symbol_count = 1, .symbol = &symbol};
    struct graph *g = NULL;
    struct made *m = made_new(arena);
    made_input(m, "x", DT_F32, "batch sequence");
    made_node(m, "Neg", "x", "y");
    made_output(m, "y");
    assert_int_equal(import_with(m, &options, &g), TPC_OK);
    assert_string_equal(output_shape(g, 0), "3 sequence");
    symbol.name = "width";
    assert_int_equal(import_with(m, &options, &g), TPC_USAGE);
    assert_non_null(strstr(said, "there are: batch, sequence"));
}

static void test_expression_dims(void **state)
{
    (void)state;
    struct made *m = made_new(arena);
    made_input(m, "past", DT_F32, "p 4");
    made_input(m, "new", DT_F32, "s 4");
    made_input(m, "mask", DT_F32, "s+p");
    made_input(m, "other", DT_F32, "time-steps");
    made_int(made_node(m, "Concat", "past new", "all"), "axis", 0);
    made_node(m, "Neg", "mask", "m");
    made_node(m, "Neg", "other", "o");
    made_output(m, "all");
    made_output(m, "m");
    made_output(m, "o");
    struct graph *g = imported(m);
    assert_true(graph_node(g, g->outputs.at[0].value)->shape[0] == graph_node(g, g->outputs.at[1].value)->shape[0]);
    assert_string_equal(output_shape(g, 2), "time_steps");
    assert_int_equal(g->states.count, 1);
    assert_true(g->states.at[0].appended && g->states.at[0].axis == 0 && g->states.at[0].input == 0);
}

/* ---- functions and If --------------------------------------------------------------------------------------- */

static Onnx__FunctionProto *function(struct made *m, const char *name, const char *inputs, const char *outputs)
{
    Onnx__FunctionProto *f = NEW(arena, Onnx__FunctionProto);
    onnx__function_proto__init(f);
    f->name = arena_strdup(arena, name);
    f->domain = arena_strdup(arena, "own");
    f->input = made_names(inputs, &f->n_input);
    f->output = made_names(outputs, &f->n_output);
    f->opset_import = m->opsets;
    f->n_opset_import = 2;
    f->node = NEW_ARRAY(arena, Onnx__NodeProto *, 8);
    return m->function[m->model.n_functions++] = f;
}

static void call(struct made *m, const char *name, const char *inputs, const char *outputs)
{
    made_node(m, name, inputs, outputs)->domain = arena_strdup(arena, "own");
}

static void test_function(void **state)
{
    (void)state;
    struct made *m = made_new(arena);
    Onnx__FunctionProto *f = function(m, "Twice", "a b", "r"); /* b is left out by the call */
    Onnx__AttributeProto *standard = made_attribute(made_node_alone("", "", ""), "alpha");
    standard->has_f = 1;
    standard->f = 0.25F;
    f->attribute_proto = arena_copy(arena, &standard, sizeof standard);
    f->n_attribute_proto = 1;
    f->node[f->n_node++] = made_node_alone("LeakyRelu", "a", "h");
    made_attribute(f->node[0], "alpha")->ref_attr_name = arena_strdup(arena, "alpha");
    f->node[f->n_node++] = made_node_alone("Clip", "h b", "r");
    made_input(m, "x", DT_F32, "4");
    call(m, "Twice", "x", "y");
    made_output(m, "y");
    struct graph *g = imported(m);
    bool found = false;
    for (uint32_t v = 1; v < g->nodes.count; v++)
        if (g->nodes.at[v].op == OP_CONSTANT && dtype_load_f64(DT_F32, g->nodes.at[v].attribute.data, 0) == 0.25)
            found = true;
    assert_true(found);
    assert_string_equal(g->origins.at[g->nodes.at[2].origin].name, "the Twice/the LeakyRelu");
    call(m, "Twice", "y", "z");
    m->graph.n_output = 0;
    made_output(m, "z");
    assert_int_equal(count_op(imported(m), OP_SELECT), 2);
}

static void test_recursive_function(void **state)
{
    (void)state;
    struct made *m = made_new(arena);
    Onnx__FunctionProto *f = function(m, "Again", "a", "r");
    f->node[f->n_node++] = made_node_alone("Again", "a", "r");
    f->node[0]->domain = arena_strdup(arena, "own");
    made_input(m, "x", DT_F32, "4");
    call(m, "Again", "x", "y");
    made_output(m, "y");
    refused(m, TPC_DATA, "functions and subgraphs nest too deeply");
}

static Onnx__GraphProto *branch(const char *op_type, const char *in)
{
    Onnx__GraphProto *g = NEW(arena, Onnx__GraphProto);
    onnx__graph_proto__init(g);
    g->node = NEW_ARRAY(arena, Onnx__NodeProto *, 1);
    g->node[g->n_node++] = made_node_alone(op_type, in, "inner");
    g->output = NEW_ARRAY(arena, Onnx__ValueInfoProto *, 1);
    g->output[g->n_output++] = made_value("inner", DT_F32, "");
    return g;
}

static struct made *make_if(const char *condition)
{
    struct made *m = made_new(arena);
    made_input(m, "x", DT_F32, "4");
    made_node(m, "Exp", "x", "outer");
    Onnx__NodeProto *n = made_node(m, "If", condition, "y");
    made_attribute(n, "then_branch")->g = branch("Neg", "outer");
    made_attribute(n, "else_branch")->g = branch("NoSuchOperator", "outer");
    made_output(m, "y");
    return m;
}

static void test_if(void **state)
{
    (void)state;
    uint8_t yes = 1;
    struct made *m = make_if("condition");
    made_tensor(m, "condition", DT_BOOL, 1, &yes);
    struct graph *g = imported(m);
    assert_int_equal(count_op(g, OP_NEG), 1);
    m = make_if("flag");
    made_input(m, "flag", DT_BOOL, "1");
    refused(m, TPC_UNSUPPORTED, "its condition 'flag' is not decided");
    struct import_binding binding = {.name = "flag", .value = "true"};
    struct import_options options = {.binding_count = 1, .binding = &binding};
    assert_int_equal(import_with(m, &options, &g), TPC_OK);
    assert_int_equal(g->inputs.count, 1);
}

/* What a branch names is its own, also where the graph around it has the name: merged decoders name both outputs alike. */
static void test_if_names(void **state)
{
    (void)state;
    uint8_t yes = 1;
    struct made *m = made_new(arena);
    made_input(m, "x", DT_F32, "4");
    made_node(m, "Exp", "x", "outer");
    Onnx__NodeProto *n = made_node(m, "If", "condition", "inner");
    made_attribute(n, "then_branch")->g = branch("Neg", "outer");
    made_attribute(n, "else_branch")->g = branch("Abs", "outer");
    made_tensor(m, "condition", DT_BOOL, 1, &yes);
    made_output(m, "inner");
    struct graph *g = imported(m);
    assert_int_equal(count_op(g, OP_NEG), 1);
    assert_int_equal(count_op(g, OP_ABS), 0);
}

/* ---- weights ------------------------------------------------------------------------------------------------ */

static const float weights[300] = {1.5F, 2.5F, 3.5F};

static void test_weight_offset(void **state)
{
    (void)state;
    char folder[] = "/tmp/tpc-import-XXXXXX";
    assert_non_null(mkdtemp(folder));
    const char *path = arena_printf(arena, "%s/m.onnx", folder);
    struct made *m = made_new(arena);
    made_input(m, "x", DT_F32, "300");
    made_tensor(m, "w", DT_F32, 300, weights);
    made_node(m, "Add", "x w", "y");
    made_output(m, "y");
    struct wire_bytes b = made_pack(m);
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(b.at, 1, b.length, f), b.length);
    fclose(f);
    struct graph *g = NULL;
    assert_int_equal(onnx_import(arena, path, NULL, &diag, &g), TPC_OK);
    assert_int_equal(g->params.count, 1);
    const struct param *p = &g->params.at[0];
    assert_int_equal(p->length, sizeof weights);
    assert_memory_equal(b.at + p->offset, weights, sizeof weights);
    assert_string_equal(g->files.at[p->file].path, "m.onnx");
    remove(path);
    rmdir(folder);
}

static struct made *make_external(const char *location)
{
    static char location_key[] = "location";
    struct made *m = made_new(arena);
    made_input(m, "x", DT_F32, "300");
    Onnx__TensorProto *t = made_tensor(m, "w", DT_F32, 300, NULL);
    t->has_data_location = 1;
    t->data_location = ONNX__TENSOR_PROTO__DATA_LOCATION__EXTERNAL;
    t->external_data = NEW_ARRAY(arena, Onnx__StringStringEntryProto *, 1);
    t->external_data[0] = NEW(arena, Onnx__StringStringEntryProto);
    onnx__string_string_entry_proto__init(t->external_data[0]);
    t->external_data[0]->key = location_key;
    t->external_data[0]->value = arena_strdup(arena, location);
    t->n_external_data = 1;
    made_node(m, "Add", "x w", "y");
    made_output(m, "y");
    return m;
}

static void put_file(const char *path, const void *bytes, size_t length)
{
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(bytes, 1, length, f), length);
    fclose(f);
}

static void external(const char *folder, const char *location, status wanted, const char *words)
{
    const char *path = arena_printf(arena, "%s/in/m.onnx", folder);
    struct wire_bytes b = made_pack(make_external(location));
    struct graph *g = NULL;
    said[0] = '\0';
    put_file(path, b.at, b.length);
    assert_int_equal(onnx_import(arena, path, NULL, &diag, &g), wanted);
    if (!strstr(said, words))
        fail_msg("said: %s", said);
    if (g) {
        assert_string_equal(g->files.at[g->params.at[0].file].path, location);
        assert_int_equal(g->files.at[0].size, sizeof weights);
    }
}

static void test_external(void **state)
{
    (void)state;
    char folder[] = "/tmp/tpc-import-XXXXXX";
    assert_non_null(mkdtemp(folder));
    char *inside = arena_printf(arena, "%s/in", folder);
    char *outside = arena_printf(arena, "%s/out", folder);
    assert_int_equal(mkdir(inside, 0700), 0);
    put_file(arena_printf(arena, "%s/w.data", inside), weights, sizeof weights);
    put_file(arena_printf(arena, "%s/short", inside), weights, 10);
    put_file(outside, weights, sizeof weights);
    assert_int_equal(symlink("w.data", arena_printf(arena, "%s/link", inside)), 0);
    assert_int_equal(symlink("../out", arena_printf(arena, "%s/escape", inside)), 0);
    assert_int_equal(mkfifo(arena_printf(arena, "%s/fifo", inside), 0600), 0);
    external(folder, "w.data", TPC_OK, "");
    external(folder, "./w.data", TPC_OK, "");
    external(folder, "link", TPC_OK, "");
    external(folder, "escape", TPC_DATA, "outside the model's folder");
    external(folder, "../out", TPC_DATA, "without '..'");
    external(folder, outside, TPC_DATA, "must be relative");
    external(folder, "fifo", TPC_DATA, "is not a regular file");
    external(folder, "short", TPC_DATA, "has 10 bytes");
    external(folder, "missing", TPC_NOINPUT, "missing' cannot be opened");
    assert_int_equal(system(arena_printf(arena, "rm -r '%s'", folder)), 0);
}

/* Every type through a tensor file and back. */
static void test_tensor_file(void **state)
{
    (void)state;
    static const uint8_t bytes[48] = {1, 0, 1, 1, 0, 1};
    int64_t shape[] = {2, 3};
    char path[] = "/tmp/tpc-tensor-XXXXXX";
    int made = mkstemp(path);
    assert_true(made >= 0);
    close(made);
    for (int t = DT_NONE + 1; t < DT_COUNT; t++) {
        struct onnx_tensor back, out = {"name", (dtype)t, 2, shape, 6 * dtype_size((dtype)t), bytes};
        assert_int_equal(onnx_write_tensor_pb(path, &out, &diag), TPC_OK);
        assert_int_equal(onnx_read_tensor_pb(arena, path, &diag, &back), TPC_OK);
        assert_int_equal(back.dtype, t);
        assert_int_equal(back.rank, 2);
        assert_int_equal(back.shape[1], 3);
        assert_string_equal(back.name, "name");
        assert_int_equal(back.size, out.size);
        assert_memory_equal(back.bytes, bytes, out.size);
    }
    remove(path);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(test_##name, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(order),
        T(odd_names),
        T(mask_added),
        T(cycle),
        T(duplicate),
        T(unknown_name),
        T(unsupported_together),
        T(empty),
        T(shape_vanishes),
        T(guard),
        T(pad_to_blocks),
        T(slice_of_one),
        T(set),
        T(expression_dims),
        T(function),
        T(recursive_function),
        T(if),
        T(if_names),
        T(weight_offset),
        T(external),
        T(tensor_file),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
