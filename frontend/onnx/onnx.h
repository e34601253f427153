/* frontend/onnx/onnx.h - from an ONNX file to a Graph.
 *
 * onnx_import is the way in: it maps the file, walks its bytes (wire.c), has protobuf-c read what remains of them without the
 * weights, and lowers every node that an output needs to the core operations. Start reading at import.c.
 *
 * Sections: import.c (models), tensor_file.c (tensor files), operators.c (the table of operators)
 */
#ifndef TPC_FRONTEND_ONNX_ONNX_H
#define TPC_FRONTEND_ONNX_ONNX_H

#include "ir/graph.h"

struct import_symbol { /* --set SYMBOL=N */
    const char *name;
    int64_t value;
};
struct onnx_tensor {  /* a tensor of a file */
    const char *name; /* "" when it has none */
    dtype dtype;
    uint32_t rank;
    const int64_t *shape;
    size_t size;       /* bytes */
    const void *bytes; /* row-major, little endian */
};
/* --bind INPUT=VALUE: an input becomes a constant. VALUE is true, false, a number or a dim expression, for every element; or a tensor. */
struct import_binding {
    const char *name;
    const char *value;
    const struct onnx_tensor *tensor; /* used when not NULL */
};
struct import_options {
    uint32_t symbol_count;
    const struct import_symbol *symbol;
    uint32_t binding_count;
    const struct import_binding *binding;
};

/* Reads the model at `path` into a Graph in `arena`. One diagnostic per fault; all unsupported operators are reported at once.
 * `options` may be NULL. Returns TPC_NOINPUT, TPC_IO, TPC_DATA, TPC_UNSUPPORTED, TPC_NOMEM. */
status onnx_import(struct arena *arena, const char *path, const struct import_options *options, struct diag *diag,
                   struct graph **out);
/* The same from memory; `path` names the model in messages, and external data is looked for beside it. `bytes` must outlive the
 * Graph only where the caller reads params from them. */
status onnx_import_bytes(struct arena *arena, const char *path, const void *bytes, size_t length,
                         const struct import_options *options, struct diag *diag, struct graph **out);

/* ---- tensor files (input_K.pb of ONNX test folders): one TensorProto each ---- */

status onnx_read_tensor_pb(struct arena *arena, const char *path, struct diag *diag, struct onnx_tensor *out);
status onnx_parse_tensor_pb(struct arena *arena, const char *where, const void *bytes, size_t length, struct diag *diag,
                            struct onnx_tensor *out);
/* Written to a temporary file beside `path` and renamed. */
status onnx_write_tensor_pb(const char *path, const struct onnx_tensor *tensor, struct diag *diag);

/* ---- the table of operators ---- */

/* A Markdown table: domain, operator, since, until, for README and docs/operators.md. */
void onnx_print_operators(struct text *out);

#endif
