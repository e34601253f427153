/* tests/support/onnx_model.c - small ONNX models, made in memory. */
#include "tests/support/onnx_model.h"

#include <stdlib.h>

static struct arena *arena; /* the last model's */

struct made *made_new(struct arena *in)
{
    arena = in;
    struct made *m = NEW(arena, struct made);
    m->arena = arena;
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
char **made_names(const char *list, size_t *count)
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

Onnx__NodeProto *made_node_alone(const char *op_type, const char *inputs, const char *outputs)
{
    Onnx__NodeProto *n = NEW(arena, Onnx__NodeProto);
    onnx__node_proto__init(n);
    n->op_type = arena_strdup(arena, op_type);
    n->name = arena_printf(arena, "the %s", op_type);
    n->input = made_names(inputs, &n->n_input);
    n->output = made_names(outputs, &n->n_output);
    n->attribute = NEW_ARRAY(arena, Onnx__AttributeProto *, 8);
    return n;
}

Onnx__NodeProto *made_node(struct made *m, const char *op_type, const char *inputs, const char *outputs)
{
    return m->node[m->graph.n_node++] = made_node_alone(op_type, inputs, outputs);
}

Onnx__AttributeProto *made_attribute(Onnx__NodeProto *n, const char *name)
{
    Onnx__AttributeProto *a = NEW(arena, Onnx__AttributeProto);
    onnx__attribute_proto__init(a);
    a->name = arena_strdup(arena, name);
    return n->attribute[n->n_attribute++] = a;
}

void made_int(Onnx__NodeProto *n, const char *name, int64_t x)
{
    Onnx__AttributeProto *a = made_attribute(n, name);
    a->has_i = 1;
    a->i = x;
}

/* A value of that type and shape "batch 3 sequence": numbers and symbols. */
Onnx__ValueInfoProto *made_value(const char *name, dtype type, const char *shape)
{
    Onnx__ValueInfoProto *v = NEW(arena, Onnx__ValueInfoProto);
    Onnx__TypeProto *t = NEW(arena, Onnx__TypeProto);
    Onnx__TypeProto__Tensor *tensor = NEW(arena, Onnx__TypeProto__Tensor);
    Onnx__TensorShapeProto *s = NEW(arena, Onnx__TensorShapeProto);
    onnx__value_info_proto__init(v);
    onnx__type_proto__init(t);
    onnx__type_proto__tensor__init(tensor);
    onnx__tensor_shape_proto__init(s);
    char **dims = made_names(shape, &s->n_dim);
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

void made_input(struct made *m, const char *name, dtype type, const char *shape)
{
    m->input[m->graph.n_input++] = made_value(name, type, shape);
}
void made_output(struct made *m, const char *name)
{
    m->output[m->graph.n_output++] = made_value(name, DT_F32, "");
}

Onnx__TensorProto *made_tensor(struct made *m, const char *name, dtype type, int64_t count, const void *bytes)
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

struct wire_bytes made_pack(struct made *m)
{
    size_t size = onnx__model_proto__get_packed_size(&m->model);
    uint8_t *bytes = arena_alloc(arena, size);
    return (struct wire_bytes){bytes, onnx__model_proto__pack(&m->model, bytes)};
}
