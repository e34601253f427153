/* tests/unit/import_test.c - the ONNX importer on small models made here: order, names, functions, If, guards, states, weights and where they lie,
 * and what it says of files that are broken. */
#include "frontend/onnx/onnx.h"
#include "frontend/onnx/proto.h"
#include "frontend/onnx/wire.h"

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

/* ---- making models ------------------------------------------------------------------------------------------ */

struct made {
    Onnx__ModelProto model;
    Onnx__GraphProto graph;
    Onnx__OperatorSetIdProto opset[2], *opsets[2];
    Onnx__NodeProto *node[64];
    Onnx__ValueInfoProto *input[16], *output[16];
    Onnx__TensorProto *tensor[16];
    Onnx__FunctionProto *function[8];
};

static struct made *make(void)
{
    struct made *m = NEW(arena, struct made);
    onnx__model_proto__init(&m->model);
    onnx__graph_proto__init(&m->graph);
    for (int i = 0; i < 2; i++) {
        onnx__operator_set_id_proto__init(&m->opset[i]);
        m->opset[i].has_version = 1;
        m->opset[i].version = i ? 1 : 18;
        m->opset[i].domain = (char *)(uintptr_t)(i ? "own" : "");
        m->opsets[i] = &m->opset[i];
    }
    m->model.has_ir_version = 1;
    m->model.ir_version = 9;
    m->model.graph = &m->graph;
    m->model.opset_import = m->opsets;
    m->model.n_opset_import = 2;
    m->model.functions = m->function;
    m->graph.node = m->node;
    m->graph.input = m->input;
    m->graph.output = m->output;
    m->graph.initializer = m->tensor;
    return m;
}

/* "a b c" as a list of names; "-" is an empty one. */
static char **names(const char *list, size_t *count)
{
    char **at = NEW_ARRAY(arena, char *, 16);
    *count = 0;
    while (*list) {
        size_t n = strcspn(list, " ");
        at[*count] = arena_strndup(arena, list, n);
        if (strcmp(at[*count], "-") == 0)
            at[*count][0] = '\0';
        ++*count;
        list += n + (list[n] == ' ');
    }
    return at;
}

static Onnx__NodeProto *new_node(const char *op_type, const char *inputs, const char *outputs)
{
    Onnx__NodeProto *n = NEW(arena, Onnx__NodeProto);
    onnx__node_proto__init(n);
    n->op_type = arena_strdup(arena, op_type);
    n->name = arena_printf(arena, "the %s", op_type);
    n->input = names(inputs, &n->n_input);
    n->output = names(outputs, &n->n_output);
    n->attribute = NEW_ARRAY(arena, Onnx__AttributeProto *, 8);
    return n;
}

static Onnx__NodeProto *node(struct made *m, const char *op_type, const char *inputs, const char *outputs)
{
    return m->node[m->graph.n_node++] = new_node(op_type, inputs, outputs);
}

static Onnx__AttributeProto *with(Onnx__NodeProto *n, const char *name)
{
    Onnx__AttributeProto *a = NEW(arena, Onnx__AttributeProto);
    onnx__attribute_proto__init(a);
    a->name = arena_strdup(arena, name);
    return n->attribute[n->n_attribute++] = a;
}

static void with_int(Onnx__NodeProto *n, const char *name, int64_t x)
{
    Onnx__AttributeProto *a = with(n, name);
    a->has_i = 1;
    a->i = x;
}

/* A value of that type and shape "batch 3 sequence": numbers and symbols. */
static Onnx__ValueInfoProto *value_info(const char *name, dtype type, const char *shape)
{
    Onnx__ValueInfoProto *v = NEW(arena, Onnx__ValueInfoProto);
    Onnx__TypeProto *t = NEW(arena, Onnx__TypeProto);
    Onnx__TypeProto__Tensor *tensor = NEW(arena, Onnx__TypeProto__Tensor);
    Onnx__TensorShapeProto *s = NEW(arena, Onnx__TensorShapeProto);
    onnx__value_info_proto__init(v);
    onnx__type_proto__init(t);
    onnx__type_proto__tensor__init(tensor);
    onnx__tensor_shape_proto__init(s);
    char **dims = names(shape, &s->n_dim);
    s->dim = NEW_ARRAY(arena, Onnx__TensorShapeProto__Dimension *, 16);
    for (size_t i = 0; i < s->n_dim; i++) {
        Onnx__TensorShapeProto__Dimension *d = s->dim[i] = NEW(arena, Onnx__TensorShapeProto__Dimension);
        onnx__tensor_shape_proto__dimension__init(d);
        bool number = dims[i][0] >= '0' && dims[i][0] <= '9';
        d->value_case = number ? ONNX__TENSOR_SHAPE_PROTO__DIMENSION__VALUE_DIM_VALUE
                               : ONNX__TENSOR_SHAPE_PROTO__DIMENSION__VALUE_DIM_PARAM;
        if (number)
            d->dim_value = atoll(dims[i]);
        else
            d->dim_param = dims[i];
    }
    tensor->has_elem_type = 1;
    tensor->elem_type = dtype_to_onnx(type);
    tensor->shape = s;
    t->value_case = ONNX__TYPE_PROTO__VALUE_TENSOR_TYPE;
    t->tensor_type = tensor;
    v->name = arena_strdup(arena, name);
    v->type = t;
    return v;
}

static void input(struct made *m, const char *name, dtype type, const char *shape)
{
    m->input[m->graph.n_input++] = value_info(name, type, shape);
}
static void output(struct made *m, const char *name)
{
    m->output[m->graph.n_output++] = value_info(name, DT_F32, "");
}

static Onnx__TensorProto *tensor(struct made *m, const char *name, dtype type, int64_t count, const void *bytes)
{
    Onnx__TensorProto *t = NEW(arena, Onnx__TensorProto);
    onnx__tensor_proto__init(t);
    t->name = arena_strdup(arena, name);
    t->has_data_type = 1;
    t->data_type = dtype_to_onnx(type);
    t->n_dims = 1;
    t->dims = arena_copy(arena, &count, sizeof count);
    if (bytes) {
        t->has_raw_data = 1;
        t->raw_data.len = (size_t)count * dtype_size(type);
        t->raw_data.data = arena_copy(arena, bytes, t->raw_data.len);
    }
    return m->tensor[m->graph.n_initializer++] = t;
}

static struct wire_bytes pack(struct made *m)
{
    size_t size = onnx__model_proto__get_packed_size(&m->model);
    uint8_t *bytes = arena_alloc(arena, size);
    return (struct wire_bytes){bytes, onnx__model_proto__pack(&m->model, bytes)};
}

static status import_with(struct made *m, const struct import_options *options, struct graph **g)
{
    struct wire_bytes b = pack(m);
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
    struct made *m = make();
    input(m, "x", DT_F32, "batch 4");
    node(m, "Neg", "b", "y"); /* before its input, and beside a node that nothing needs */
    node(m, "NoSuchOperator", "x", "unused");
    node(m, "Exp", "x", "b");
    output(m, "y");
    struct graph *g = imported(m);
    assert_int_equal(count_op(g, OP_NEG), 1);
    assert_int_equal(count_op(g, OP_EXP), 1);
    assert_string_equal(output_shape(g, 0), "batch 4");
    assert_string_equal(graph_node(g, g->outputs.at[0].value)->name, "y");
}

static void test_cycle(void **state)
{
    (void)state;
    struct made *m = make();
    input(m, "x", DT_F32, "4");
    node(m, "Add", "x c", "a");
    node(m, "Exp", "a", "b");
    node(m, "Neg", "b", "c");
    output(m, "c");
    refused(m, TPC_DATA, "cycle: 0 'the Add' (Add) <- 2 'the Neg' (Neg) <- 1 'the Exp' (Exp)");
}

static void test_duplicate(void **state)
{
    (void)state;
    struct made *m = make();
    input(m, "x", DT_F32, "4");
    node(m, "Neg", "x", "y");
    node(m, "Exp", "x", "y");
    output(m, "y");
    refused(m, TPC_DATA, "the name 'y' is given to two values");
}

static void test_unknown_name(void **state)
{
    (void)state;
    struct made *m = make();
    input(m, "x", DT_F32, "4");
    node(m, "Add", "x nothing", "y");
    output(m, "y");
    refused(m, TPC_DATA, "node 0 'the Add' (Add): error: input 'nothing' is not defined");
    assert_int_equal(lines, 1);
}

static void test_unsupported_together(void **state)
{
    (void)state;
    struct made *m = make();
    input(m, "x", DT_F32, "4");
    node(m, "Foo", "x", "a");
    node(m, "Foo", "x", "b");
    node(m, "Neg", "a", "c"); /* nothing is said of what follows from another */
    node(m, "Bar", "c", "d")->domain = arena_strdup(arena, "own");
    node(m, "Add", "b d", "y");
    output(m, "y");
    refused(m, TPC_UNSUPPORTED, "node 0 'the Foo' (Foo): error: Foo, version 18, is not supported (2 nodes)");
    assert_non_null(strstr(said, "own.Bar, version 1, is not supported (1 node)"));
    assert_int_equal(lines, 2);
}

static void test_empty(void **state)
{
    (void)state;
    struct made *m = make();
    input(m, "x", DT_F32, "4");
    output(m, "x");
    refused(m, TPC_DATA, "the graph has no nodes");
}

/* ---- shapes ------------------------------------------------------------------------------------------------- */

/* x[batch, sequence] reshaped by its own shape: nothing is left of the shape's computation. */
static void test_shape_vanishes(void **state)
{
    (void)state;
    static const int64_t one = 1, minus = -1;
    struct made *m = make();
    input(m, "x", DT_F32, "batch sequence 8");
    tensor(m, "one", DT_I64, 1, &one);
    tensor(m, "minus", DT_I64, 1, &minus);
    node(m, "Shape", "x", "shape");
    node(m, "Gather", "shape one", "sequence");
    node(m, "Concat", "minus sequence", "target");
    with_int(m->node[2], "axis", 0);
    node(m, "Reshape", "x target", "y");
    output(m, "y");
    struct graph *g = imported(m);
    assert_string_equal(output_shape(g, 0), "8*batch sequence");
    assert_int_equal(g->nodes.count, 3);
}

static void test_guard(void **state)
{
    (void)state;
    struct made *m = make();
    input(m, "x", DT_F32, "s1 4");
    input(m, "y", DT_F32, "s2 4");
    node(m, "Add", "x y", "z");
    output(m, "z");
    struct graph *g = imported(m);
    assert_int_equal(g->guards.count, 1);
    assert_string_equal(g->guards.at[0].why, "Add: extents of operands");
    m = make();
    input(m, "x", DT_F32, "5");
    input(m, "y", DT_F32, "4");
    node(m, "Add", "x y", "z");
    output(m, "z");
    refused(m, TPC_DATA, "extents of operands differ: 5 and 4");
}

static void test_set(void **state)
{
    (void)state;
    struct import_symbol symbol = {"batch", 3};
    struct import_options options = {.symbol_count = 1, .symbol = &symbol};
    struct graph *g = NULL;
    struct made *m = make();
    input(m, "x", DT_F32, "batch sequence");
    node(m, "Neg", "x", "y");
    output(m, "y");
    assert_int_equal(import_with(m, &options, &g), TPC_OK);
    assert_string_equal(output_shape(g, 0), "3 sequence");
    symbol.name = "width";
    assert_int_equal(import_with(m, &options, &g), TPC_USAGE);
    assert_non_null(strstr(said, "there are: batch, sequence"));
}

static void test_expression_dims(void **state)
{
    (void)state;
    struct made *m = make();
    input(m, "past", DT_F32, "p 4");
    input(m, "new", DT_F32, "s 4");
    input(m, "mask", DT_F32, "s+p");
    input(m, "other", DT_F32, "time-steps");
    with_int(node(m, "Concat", "past new", "all"), "axis", 0);
    node(m, "Neg", "mask", "m");
    node(m, "Neg", "other", "o");
    output(m, "all");
    output(m, "m");
    output(m, "o");
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
    f->input = names(inputs, &f->n_input);
    f->output = names(outputs, &f->n_output);
    f->opset_import = m->opsets;
    f->n_opset_import = 2;
    f->node = NEW_ARRAY(arena, Onnx__NodeProto *, 8);
    return m->function[m->model.n_functions++] = f;
}

static void call(struct made *m, const char *name, const char *inputs, const char *outputs)
{
    node(m, name, inputs, outputs)->domain = arena_strdup(arena, "own");
}

static void test_function(void **state)
{
    (void)state;
    struct made *m = make();
    Onnx__FunctionProto *f = function(m, "Twice", "a b", "r"); /* b is left out by the call */
    Onnx__AttributeProto *standard = with(new_node("", "", ""), "alpha");
    standard->has_f = 1;
    standard->f = 0.25F;
    f->attribute_proto = arena_copy(arena, &standard, sizeof standard);
    f->n_attribute_proto = 1;
    f->node[f->n_node++] = new_node("LeakyRelu", "a", "h");
    with(f->node[0], "alpha")->ref_attr_name = arena_strdup(arena, "alpha");
    f->node[f->n_node++] = new_node("Clip", "h b", "r");
    input(m, "x", DT_F32, "4");
    call(m, "Twice", "x", "y");
    output(m, "y");
    struct graph *g = imported(m);
    bool found = false;
    for (uint32_t v = 1; v < g->nodes.count; v++)
        if (g->nodes.at[v].op == OP_CONSTANT && dtype_load_f64(DT_F32, g->nodes.at[v].attribute.data, 0) == 0.25)
            found = true;
    assert_true(found);
    assert_string_equal(g->origins.at[g->nodes.at[2].origin].name, "the Twice/the LeakyRelu");
    call(m, "Twice", "y", "z");
    m->graph.n_output = 0;
    output(m, "z");
    assert_int_equal(count_op(imported(m), OP_SELECT), 2);
}

static void test_recursive_function(void **state)
{
    (void)state;
    struct made *m = make();
    Onnx__FunctionProto *f = function(m, "Again", "a", "r");
    f->node[f->n_node++] = new_node("Again", "a", "r");
    f->node[0]->domain = arena_strdup(arena, "own");
    input(m, "x", DT_F32, "4");
    call(m, "Again", "x", "y");
    output(m, "y");
    refused(m, TPC_DATA, "functions and subgraphs nest too deeply");
}

static Onnx__GraphProto *branch(const char *op_type, const char *in)
{
    Onnx__GraphProto *g = NEW(arena, Onnx__GraphProto);
    onnx__graph_proto__init(g);
    g->node = NEW_ARRAY(arena, Onnx__NodeProto *, 1);
    g->node[g->n_node++] = new_node(op_type, in, "inner");
    g->output = NEW_ARRAY(arena, Onnx__ValueInfoProto *, 1);
    g->output[g->n_output++] = value_info("inner", DT_F32, "");
    return g;
}

static struct made *make_if(const char *condition)
{
    struct made *m = make();
    input(m, "x", DT_F32, "4");
    node(m, "Exp", "x", "outer");
    Onnx__NodeProto *n = node(m, "If", condition, "y");
    with(n, "then_branch")->g = branch("Neg", "outer");
    with(n, "else_branch")->g = branch("NoSuchOperator", "outer");
    output(m, "y");
    return m;
}

static void test_if(void **state)
{
    (void)state;
    uint8_t yes = 1;
    struct made *m = make_if("condition");
    tensor(m, "condition", DT_BOOL, 1, &yes);
    struct graph *g = imported(m);
    assert_int_equal(count_op(g, OP_NEG), 1);
    m = make_if("flag");
    input(m, "flag", DT_BOOL, "1");
    refused(m, TPC_UNSUPPORTED, "its condition 'flag' is not decided");
    struct import_binding binding = {.name = "flag", .value = "true"};
    struct import_options options = {.binding_count = 1, .binding = &binding};
    assert_int_equal(import_with(m, &options, &g), TPC_OK);
    assert_int_equal(g->inputs.count, 1);
}

/* ---- weights ------------------------------------------------------------------------------------------------ */

static const float weights[300] = {1.5F, 2.5F, 3.5F};

static void test_weight_offset(void **state)
{
    (void)state;
    char folder[] = "/tmp/tpc-import-XXXXXX";
    assert_non_null(mkdtemp(folder));
    const char *path = arena_printf(arena, "%s/m.onnx", folder);
    struct made *m = make();
    input(m, "x", DT_F32, "300");
    tensor(m, "w", DT_F32, 300, weights);
    node(m, "Add", "x w", "y");
    output(m, "y");
    struct wire_bytes b = pack(m);
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
    struct made *m = make();
    input(m, "x", DT_F32, "300");
    Onnx__TensorProto *t = tensor(m, "w", DT_F32, 300, NULL);
    t->has_data_location = 1;
    t->data_location = ONNX__TENSOR_PROTO__DATA_LOCATION__EXTERNAL;
    t->external_data = NEW_ARRAY(arena, Onnx__StringStringEntryProto *, 1);
    t->external_data[0] = NEW(arena, Onnx__StringStringEntryProto);
    onnx__string_string_entry_proto__init(t->external_data[0]);
    t->external_data[0]->key = location_key;
    t->external_data[0]->value = arena_strdup(arena, location);
    t->n_external_data = 1;
    node(m, "Add", "x w", "y");
    output(m, "y");
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
    struct wire_bytes b = pack(make_external(location));
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

/* ---- broken files ------------------------------------------------------------------------------------------- */

static struct made *make_plain(void)
{
    static const int64_t shape[2] = {0, -1};
    struct made *m = make();
    m->model.n_opset_import = 1;
    input(m, "x", DT_F32, "batch 300");
    tensor(m, "w", DT_F32, 300, weights);
    tensor(m, "shape", DT_I64, 2, shape);
    node(m, "Add", "x w", "a");
    node(m, "Reshape", "a shape", "b");
    with_int(node(m, "Softmax", "b", "y"), "axis", 1);
    output(m, "y");
    return m;
}

static void test_truncated(void **state)
{
    (void)state;
    struct wire_bytes b = pack(make_plain());
    for (size_t n = 0; n < b.length; n++) {
        struct graph *g = NULL;
        struct arena *own = arena_new();
        said[0] = '\0';
        uint8_t *copy = malloc(n ? n : 1); /* exactly as long, so that a read past the end is seen */
        assert_non_null(copy);
        memcpy(copy, b.at, n);
        assert_int_not_equal(onnx_import_bytes(own, "m.onnx", copy, n, NULL, &diag, &g), TPC_OK);
        assert_int_not_equal(said[0], '\0');
        free(copy);
        arena_free(own);
    }
}

static void test_flipped(void **state)
{
    (void)state;
    struct wire_bytes b = pack(make_plain());
    uint8_t *copy = arena_copy(arena, b.at, b.length);
    for (size_t bit = 0; bit < 8 * b.length; bit++) {
        struct graph *g = NULL;
        if (bit > 8 * 400 && bit < 8 * 1200 && bit % 64) /* within the weights, where nothing can happen */
            continue;
        struct arena *own = arena_new();
        said[0] = '\0';
        copy[bit / 8] ^= (uint8_t)(1 << bit % 8);
        onnx_import_bytes(own, "m.onnx", copy, b.length, NULL, &diag, &g);
        copy[bit / 8] ^= (uint8_t)(1 << bit % 8);
        arena_free(own);
    }
}

static void test_not_onnx(void **state)
{
    (void)state;
    struct graph *g = NULL;
    assert_int_equal(onnx_import_bytes(arena, "m.onnx", "", 0, NULL, &diag, &g), TPC_DATA);
    assert_non_null(strstr(said, "the file is empty"));
    assert_int_equal(onnx_import_bytes(arena, "m.onnx", "#!/bin/sh\nexit\n", 15, NULL, &diag, &g), TPC_DATA);
    assert_int_equal(onnx_import(arena, "/no/such/model.onnx", NULL, &diag, &g), TPC_NOINPUT);
    assert_int_equal(onnx_import(arena, "/dev/null", NULL, &diag, &g), TPC_DATA);
    assert_int_equal(onnx_import(arena, "/tmp", NULL, &diag, &g), TPC_DATA);
}

/* Attributes that hold graphs that hold nodes that hold attributes ... */
static void test_depth_bomb(void **state)
{
    (void)state;
    enum { LEVELS = 5000 };
    struct graph *g = NULL;
    uint8_t *bytes = arena_alloc(arena, LEVELS * 16);
    size_t at = LEVELS * 16, end = at;
    for (int i = 0; i < LEVELS; i++) {
        static const uint8_t tags[] = {0x0a, 0x2a, 0x32}; /* node, attribute, graph */
        size_t length = end - at;
        uint8_t number[10], n = 0;
        for (; length >= 0x80; length >>= 7)
            number[n++] = (uint8_t)(length | 0x80);
        number[n++] = (uint8_t)length;
        at -= n;
        memcpy(bytes + at, number, n);
        bytes[--at] = i == LEVELS - 1 ? 0x3a : tags[(LEVELS - 2 - i) % 3];
    }
    assert_int_equal(onnx_import_bytes(arena, "m.onnx", bytes + at, end - at, NULL, &diag, &g), TPC_DATA);
    assert_non_null(strstr(said, "nest too deeply"));
    assert_int_equal(lines, 1);
}

/* A million empty nodes in two million bytes: no room for what they would become. */
static void test_small_messages(void **state)
{
    (void)state;
    enum { COUNT = 1000000 };
    struct graph *g = NULL;
    uint8_t *bytes = arena_alloc(arena, 2 * COUNT + 16);
    static const uint8_t head[] = {0x3a, 0x80, 0x89, 0x7a}; /* graph of 2000000 bytes */
    memcpy(bytes, head, sizeof head);
    for (size_t i = 0; i < COUNT; i++)
        bytes[sizeof head + 2 * i] = 0x0a;
    assert_int_equal(onnx_import_bytes(arena, "m.onnx", bytes, sizeof head + 2 * COUNT, NULL, &diag, &g), TPC_DATA);
    assert_non_null(strstr(said, "too many small messages"));
}

static void test_wrong_types(void **state)
{
    (void)state;
    struct made *m = make();
    input(m, "x", DT_F32, "4");
    input(m, "y", DT_I64, "4");
    node(m, "Add", "x y", "z");
    output(m, "z");
    refused(m, TPC_DATA, "operand types differ: f32 and i64");
    m = make();
    input(m, "x", DT_F32, "4 5");
    input(m, "y", DT_F32, "4 5");
    node(m, "MatMul", "x y", "z");
    output(m, "z");
    refused(m, TPC_DATA, "node 0 'the MatMul' (MatMul): error: inner dimensions differ: 5 and 4");
}

static void test_no_memory(void **state)
{
    (void)state;
    struct wire_bytes b = pack(make_plain());
    status s = TPC_NOMEM;
    for (uint64_t n = 1; s == TPC_NOMEM; n++) {
        struct graph *g = NULL;
        struct arena *own = arena_new();
        base_fail_after(n);
        s = onnx_import_bytes(own, "m.onnx", b.at, b.length, NULL, &diag, &g);
        base_fail_after(0);
        arena_free(own);
        said[0] = '\0';
    }
    assert_int_equal(s, TPC_OK);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(test_##name, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(order),          T(cycle),        T(duplicate),       T(unknown_name),       T(unsupported_together),
        T(empty),          T(shape_vanishes), T(guard),         T(set),                T(expression_dims),
        T(function),       T(recursive_function), T(if),        T(weight_offset),      T(external),
        T(tensor_file),    T(truncated),    T(flipped),         T(not_onnx),           T(depth_bomb),
        T(small_messages), T(wrong_types),  T(no_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
