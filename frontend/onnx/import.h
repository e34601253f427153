/* frontend/onnx/import.h - inside the importer: what it knows of a value, the state of an import, and what a lowering may call.
 *
 * A lowering is a function of one struct call: it reads inputs and attributes, builds core operations, and sets outputs.
 * Errors leave it at once by call_fail and call_unsupported (longjmp to call_run), so that a lowering reads as what it computes; it
 * holds nothing but arena memory.
 *
 * Invariant: the data of a call are resolved (after each guard again), so two extents agree only if they are the same dim.
 *
 * Sections: import.c (model), scope.c (graphs, order, functions, If), call.c (what lowerings call), attribute.c,
 * stored.c (stored tensors), external.c (their files), operators.c (table), lower_*.c (one per family)
 */
#ifndef TPC_FRONTEND_ONNX_IMPORT_H
#define TPC_FRONTEND_ONNX_IMPORT_H

#include <setjmp.h>

#include "frontend/onnx/onnx.h"
#include "frontend/onnx/proto.h"
#include "frontend/onnx/symbolic.h"
#include "frontend/onnx/wire.h"

/* ---- stored tensors: stored.c, external.c ---- */

struct stored { /* a TensorProto's elements: where they lie, and the bytes when they are at hand */
    const char *name;
    dtype dtype;
    uint32_t rank;
    int64_t shape[MAX_RANK];
    int64_t count;
    uint32_t file; /* graph->files, NO_FILE: only in `bytes` */
    uint64_t offset;
    uint64_t length;      /* in the file */
    const uint8_t *bytes; /* as in a file: little endian, packed, unaligned; NULL for external data */
};

/* ---- values ---- */

struct datum {
    dtype dtype;
    uint32_t rank;
    const dim *shape;
    value node;   /* 0: not built (yet) */
    value packed; /* stored elements below 8 bits: the param that is their bytes, where rows fill bytes */
    const struct content *content;    /* NULL: unknown */
    const struct stored *stored;      /* NULL: not an initializer or constant */
    const Onnx__TensorProto *pending; /* an initializer that nothing has used yet */
    bool weight;                      /* stored, and an initializer: built as a param */
    bool poison;                      /* comes from an unsupported node: nothing else is reported of it */
    bool bound;                       /* a constant that the user gave for an input */
    const char *name;
    uint32_t origin;
    uint32_t epoch; /* the importer's when last resolved */
};

struct scope {        /* the names of one graph or function body */
    struct map names; /* ONNX name -> importer->data index + 1 */
    struct scope *outer;
};

struct
    frame { /* where a node is: its scope, the versions that bind it, the attributes of the function call around it */
    struct scope *scope;
    const char *prefix; /* "" or "outer node/" for names */
    size_t opset_count;
    Onnx__OperatorSetIdProto *const *opset;
    size_t attribute_count;
    Onnx__AttributeProto *const *attribute; /* of the call, references already followed */
    size_t default_count;
    Onnx__AttributeProto *const *defaults; /* of the function */
    int64_t index;                         /* -1, or the index of the main graph's node that all of this comes from */
    uint32_t depth;
};

struct importer;
struct call;
typedef void (*lowering)(struct call *c);

struct operator_row {
    const char *domain, *name;
    int64_t since, until;
    lowering lower;
    int argument;
};

struct missing { /* an unsupported operator or form */
    const char *domain, *op_type, *detail, *first;
    int64_t version;
    uint32_t count;
};

enum { ABSENT = 1 };

struct importer {
    struct arena *arena;   /* the Graph's */
    struct arena *scratch; /* dies with the import */
    struct graph *g;
    struct dims *t;
    struct symbolic s;
    struct diag *diag;
    const char *path; /* as the user named it */
    const struct import_options *options;
    const uint8_t *bytes; /* the model file */
    size_t length;
    bool from_file;      /* the bytes are those of the file at `path` */
    uint32_t model_file; /* graph->files, NO_FILE: not yet listed */
    struct map external; /* location -> graph->files */
    const Onnx__ModelProto *model;
    struct map functions;      /* "domain/name/overload" -> index in model->functions + 1 */
    uint64_t calls;            /* nodes lowered so far, those of inlined functions included */
    LIST(struct datum *) data; /* [0] is reserved, [ABSENT] stands for a function's input that the call leaves out */
    LIST(struct missing) missing;
    uint32_t epoch;
    struct call *current; /* the innermost one that runs */
};

/* ---- calls: call.c ---- */

struct call {
    struct importer *im;
    struct graph *g;
    struct dims *t;
    const struct frame *frame;
    const Onnx__NodeProto *proto;
    int64_t index, version;
    int argument;
    const char *where;
    uint32_t origin;
    uint32_t in_count, out_count;
    uint32_t *in, *out; /* importer->data indices, 0: absent */
    status failure;
    jmp_buf leave;
};

/* Runs one node: finds its lowering, function or refusal. */
status call_run(struct importer *im, const struct frame *frame, const Onnx__NodeProto *proto, int64_t index);
void call_refuse(void *importer, const char *why);                                     /* graph->refuse */
TPC_NORETURN void call_fail(struct call *c, const char *format, ...) TPC_PRINTF(2, 3); /* TPC_DATA */
TPC_NORETURN void call_unsupported(struct call *c, const char *format, ...)
    TPC_PRINTF(2, 3);                                         /* noted, reported at the end */
TPC_NORETURN void call_leave(struct call *c, status failure); /* the diagnostic is out already */

/* inputs */
bool call_has(const struct call *c, uint32_t i);
struct datum *call_in(struct call *c, uint32_t i); /* fails when absent; its content, shape and so on are resolved */
value call_use(struct call *c, uint32_t i);        /* its node, built now if need be */
value call_use_as(struct call *c, uint32_t i, dtype type);
/* The bytes [.., n / per byte] of a weight whose elements lie packed and whose rows fill bytes; 0: it is none. */
value call_use_packed(struct call *c, uint32_t i);
/* Elements of an integer input as dims (fails as unsupported when they are not known). */
const dim *call_dims(struct call *c, uint32_t i, uint32_t *count);
dim call_dim(struct call *c, uint32_t i); /* one element */
const int64_t *call_ints(struct call *c, uint32_t i, uint32_t *count);
int64_t call_int(struct call *c, uint32_t i);
/* Elements of a stored or known input as numbers; false when they are not known. */
bool call_reals(struct call *c, uint32_t i, const double **out, uint32_t *count);
bool call_real(struct call *c, uint32_t i, double *out); /* one element */

/* outputs */
bool call_wants(const struct call *c, uint32_t i);
void call_set(struct call *c, uint32_t i, value v);
void call_set_alias(struct call *c, uint32_t i, uint32_t input); /* the same value, content and all */
void call_set_content(struct call *c, uint32_t i, dtype type, uint32_t rank, const dim *shape,
                      const struct content *content);
/* Content of output i by a function of input `from`'s formulas: out[index] = in[map(index)]. false when not known. */
typedef bool (*index_map)(void *context, const dim *index, dim *source);
bool call_set_moved(struct call *c, uint32_t i, uint32_t from, uint32_t rank, const dim *shape, index_map map,
                    void *context);

/* attributes: attribute.c */
const Onnx__AttributeProto *attribute(struct call *c, const char *name); /* NULL when absent */
int64_t attribute_int(struct call *c, const char *name, int64_t fallback);
double attribute_real(struct call *c, const char *name, double fallback);
const char *attribute_text(struct call *c, const char *name, const char *fallback);
const int64_t *attribute_ints(struct call *c, const char *name, uint32_t *count); /* NULL when absent */
const float *attribute_reals(struct call *c, const char *name, uint32_t *count);

/* shapes */
uint32_t call_axis(struct call *c, int64_t axis, uint32_t rank); /* negative ones count from the end; fails outside */
/* Makes a and b one extent: a guard where they differ. Returns it resolved. */
dim call_agree(struct call *c, dim a, dim b, const char *what);
/* numpy's broadcast of two shapes. */
uint32_t call_broadcast(struct call *c, uint32_t rank, dim *shape, uint32_t other_rank, const dim *other);
dim call_product(struct call *c, const dim *shape, uint32_t from, uint32_t to);
const dim *call_shape(struct call *c, value v);
uint32_t call_rank(struct call *c, value v);
dtype call_type(struct call *c, value v);
dim call_const(struct call *c, int64_t x);

/* memcpy and memcmp of shapes, which may be empty (and then NULL) */
static inline void dims_copy(dim *to, const dim *from, uint32_t count)
{
    if (count)
        memcpy(to, from, count * sizeof *to);
}
static inline bool dims_same(const dim *a, const dim *b, uint32_t count)
{
    return count == 0 || memcmp(a, b, count * sizeof *a) == 0;
}

/* building: numpy's broadcasting around graph_* */
value build_expand(struct call *c, value v, uint32_t rank, const dim *shape);
value build_both(struct call *c, op o, value a, value b);
value build_choose(struct call *c, value condition, value a, value b);
value build_real(struct call *c, dtype type, double x);
value build_with(struct call *c, op o, value a, double x); /* build_both(a, scalar x of a's type) */
value build_reduce(struct call *c, op o, value v, uint32_t count, const int32_t *axes, bool keep);
value build_mean(struct call *c, value v, uint32_t count, const int32_t *axes, bool keep);
value build_reshape(struct call *c, value v, uint32_t rank, const dim *shape);
value build_unsqueeze(struct call *c, value v, uint32_t axis);
value build_squeeze(struct call *c, value v, uint32_t axis);
value build_move_axis(struct call *c, value v, uint32_t from, uint32_t to);
value build_swap_last(struct call *c, value v); /* transposes the last two axes */
value build_slice_axis(struct call *c, value v, uint32_t axis, dim start, dim size);
value build_full(struct call *c, dtype type, double x, uint32_t rank, const dim *shape);
/* MatMul's meaning on values. */
value build_matmul(struct call *c, value a, value b);
value build_softmax(struct call *c, value x, uint32_t first, uint32_t count,
                    bool logarithm); /* over axes first .. first+count-1 */

/* ---- scope.c ---- */
struct datum *datum_add(struct importer *im, uint32_t *index);
void datum_sync(struct importer *im, struct datum *d);
value datum_use(struct importer *im, uint32_t index);
uint32_t scope_find(const struct scope *s, const char *name); /* 0: unknown */
status scope_define(struct importer *im, struct scope *s, const char *name, uint32_t datum);
status scope_tensors(struct importer *im, struct scope *s, const Onnx__GraphProto *graph);
/* Lowers all nodes that `goals` need, in an order that is sorted and otherwise the file's. */
status scope_nodes(struct importer *im, const struct frame *frame, size_t count, Onnx__NodeProto *const *node,
                   size_t goals, const char *const *goal);
/* Runs a subgraph without inputs in place (a decided If); its outputs become those of the call. */
void call_subgraph(struct call *c, const Onnx__GraphProto *graph);

/* ---- stored.c, external.c ---- */
status stored_read(struct importer *im, const char *where, const Onnx__TensorProto *tensor, struct stored *out);
const struct stored *stored_from(struct importer *im, dtype type, uint32_t rank, const int64_t *shape,
                                 const void *bytes);
void datum_from_stored(struct importer *im, struct datum *d, const struct stored *stored, bool weight);
value stored_build(struct importer *im, struct datum *d);
/* Elements of a packed type from bytes along the last axis, u8: [.., n] -> [.., n * per byte]. */
value stored_unpack(struct graph *g, value bytes, dtype type);
const void *stored_elements(struct arena *arena, const struct stored *t); /* all, as in memory */
/* What a TensorProto is and holds. `file` are the bytes that it was walked from. External data are left out (bytes NULL). */
status tensor_decode(struct arena *arena, struct diag *diag, const char *where, const Onnx__TensorProto *tensor,
                     const uint8_t *file, size_t file_length, struct stored *out);
void *proto_unpack(struct arena *arena, const ProtobufCMessageDescriptor *message, const struct wire_bytes *bytes);
/* Lists the file (once) with the graph and checks that [offset, offset + length) lies in it. */
status external_file(struct importer *im, const char *where, const char *location, uint64_t offset, uint64_t length,
                     uint32_t *out);
status external_read(struct importer *im, const char *where, uint32_t file, uint64_t offset, void *to, size_t length);
status model_file(struct importer *im, uint32_t *out);
/* Maps a regular file for as long as the arena lives. */
status file_map(struct arena *arena, struct diag *diag, const char *path, const uint8_t **bytes, size_t *length);

/* ---- operators.c ---- */
const struct operator_row *operator_find(const char *domain, const char *name, int64_t version);
bool operator_known(const char *domain, const char *name);
void missing_add(struct importer *im, const char *domain, const char *op_type, int64_t version, const char *detail,
                 const char *where);
status missing_report(struct importer *im);

#endif
