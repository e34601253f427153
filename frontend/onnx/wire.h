/* frontend/onnx/wire.h - the walk over a model's wire bytes that comes before protobuf-c.
 *
 * protobuf-c recurses without limit, turns two bytes into hundreds, and copies every tensor. So the bytes are walked first, without
 * recursion: nesting, counts and the memory that unpacking would take are bounded, and the walk yields a copy in which each
 * raw_data is replaced by where it lies (TensorProto.file_offset, file_length).
 *
 * Section: wire.c
 */
#ifndef TPC_FRONTEND_ONNX_WIRE_H
#define TPC_FRONTEND_ONNX_WIRE_H

#include "ir/base.h"

enum wire_message { /* also the row numbers of the schema in wire.c */
                    WIRE_OPAQUE,
                    WIRE_MODEL,
                    WIRE_GRAPH,
                    WIRE_NODE,
                    WIRE_ATTRIBUTE,
                    WIRE_TENSOR,
                    WIRE_SPARSE,
                    WIRE_VALUE_INFO,
                    WIRE_TYPE,
                    WIRE_TYPE_TENSOR,
                    WIRE_TYPE_NESTED,
                    WIRE_TYPE_MAP,
                    WIRE_SHAPE,
                    WIRE_LEAF,
                    WIRE_FUNCTION,
                    WIRE_ANNOTATION,
                    WIRE_DEVICES,
                    WIRE_SHARDING,
                    WIRE_SHARDED_DIM
};

enum { WIRE_DEPTH = 100, WIRE_NODES = 4000000 };

struct wire_bytes {
    const uint8_t *at;
    size_t length;
};

/* Walks `length` bytes as a message of kind `root`. On TPC_OK *out is a copy in `arena` without tensor bytes. */
status wire_walk(struct arena *arena, const char *where, enum wire_message root, const void *bytes, size_t length,
                 struct diag *diag, struct wire_bytes *out);

#endif
