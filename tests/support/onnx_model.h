/* tests/support/onnx_model.h - small ONNX models for tests, made in memory: nodes, values and tensors are added one by one, then packed.
 *
 * Lists of names are words ("a b c"; "-" is an empty name), shapes too ("batch 3 sequence").
 */
#ifndef TPC_TESTS_SUPPORT_ONNX_MODEL_H
#define TPC_TESTS_SUPPORT_ONNX_MODEL_H

#include "frontend/onnx/proto.h"
#include "frontend/onnx/wire.h"
#include "ir/dtype.h"

struct made {
    struct arena *arena;
    Onnx__ModelProto model;
    Onnx__GraphProto graph;
    Onnx__OperatorSetIdProto opset[2], *opsets[2];
    Onnx__NodeProto *node[64];
    Onnx__ValueInfoProto *input[16], *output[16];
    Onnx__TensorProto *tensor[16];
    Onnx__FunctionProto *function[8];
};

struct made *made_new(struct arena *in);
char **made_names(const char *list, size_t *count);
Onnx__NodeProto *made_node_alone(const char *op_type, const char *inputs, const char *outputs);
Onnx__NodeProto *made_node(struct made *m, const char *op_type, const char *inputs, const char *outputs);
Onnx__AttributeProto *made_attribute(Onnx__NodeProto *n, const char *name);
void made_int(Onnx__NodeProto *n, const char *name, int64_t x);
Onnx__ValueInfoProto *made_value(const char *name, dtype type, const char *shape);
void made_input(struct made *m, const char *name, dtype type, const char *shape);
void made_output(struct made *m, const char *name);
Onnx__TensorProto *made_tensor(struct made *m, const char *name, dtype type, int64_t count, const void *bytes);
struct wire_bytes made_pack(struct made *m);

#endif
