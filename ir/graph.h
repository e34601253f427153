/* ir/graph.h - the Graph: what a model computes, and (with a mesh, partitions and shards) the Program that all ranks share.
 *
 * Invariants (ir/verify.c checks them):
 *   - A value is the one result of a node; its number is the node's. Node 0 is "no value". Operands have smaller numbers: the list is in
 *     topological order, and every pass walks it forward without recursion.
 *   - Shapes are explicit and broadcasting is explicit. Two extents agree only if they are the same dim (after dim_resolve).
 *   - A node's shape and dtype follow from operands and attributes by the rules in ops.def.
 *   - Every node has an origin.
 *
 * A Program is a Graph whose `mesh.ranks` is set: extents are this rank's (they may use partition symbols), params are shards, and the
 * collective rows occur. `source[v]` then says which value of the original Graph node v stands for (0: none, an auxiliary).
 *
 * Sections: graph.c (tables, walk, guards), graph_build.c (builders; rules in op_infer.c), mesh.c, text_print.c, text_parse.c, verify.c, interpret*.c
 */
#ifndef TPC_IR_GRAPH_H
#define TPC_IR_GRAPH_H

#include "ir/base.h"
#include "ir/dim.h"
#include "ir/dtype.h"
#include "ir/op.h"

typedef uint32_t value;
enum { MAX_RANK = 16 };

/* Attributes; ops.def says which of them a row uses, the others are 0. */
struct attribute {
    int32_t axis; /* normalised, 0 <= axis < rank */
    int32_t mode;
    int32_t nbatch, ncontract;
    uint32_t index;     /* input, param, or mask of sub-axes */
    uint32_t partition; /* A_PART; 0 is none */
    uint32_t list_count, dims_count;
    const int32_t *list;
    const dim *dims;
    const void *data; /* A_DATA: constant's elements */
    size_t data_size; /* bytes */
};

struct node {
    op op;
    dtype dtype;
    uint32_t rank, operand_count;
    const dim *shape;
    const value *operand;
    struct attribute attribute;
    uint32_t origin;  /* graph->origins; 0: made by tpc without one */
    const char *name; /* ONNX name of the value, NULL when it has none */
};

/* Where a node came from. Shared by all nodes that one ONNX node was lowered to. */
struct origin {
    const char *file;    /* as the user named it */
    int64_t index;       /* of the ONNX node in its graph, -1 when not a node */
    const char *name;    /* the ONNX node's name, may be "" */
    const char *op_type; /* "MatMul", "com.microsoft.FusedMatMul" */
    const char *scope;   /* the exporter's module path, "layers.0.mlp.up"; NULL: unknown. Not part of the text form. */
};

struct graph_input {
    const char *name;
    value value;
};
struct graph_output {
    const char *name;
    value value;
};

/* A weight: bytes in a file, or in the graph's own blob when `file` is NO_FILE (what was stored as varints, or folded by a pass); or *stacked*: params of
 * one shape and type, one after another along a first axis. Those are plain, stand before it, and its bytes are theirs: nothing is stored twice. */
struct param {
    const char *name;
    dtype dtype;
    uint32_t rank;
    const int64_t *shape;
    uint32_t file;        /* graph->files, or NO_FILE */
    uint64_t offset;      /* bytes from the file's start; with NO_FILE unused */
    uint64_t length;      /* bytes: product(shape) * dtype_size */
    const void *data;     /* with NO_FILE: the bytes (little endian) */
    uint32_t part_count;  /* 0: not stacked; else shape[0], and file is NO_FILE */
    const uint32_t *part; /* graph->params, each once per index of axis 0 */
};
#define NO_FILE UINT32_MAX

struct weight_file {
    const char *path;     /* as the plan stores it: relative to the model's folder */
    uint64_t size;        /* bytes when compiled */
    int64_t mtime;        /* nanoseconds since 1970 when compiled */
    uint64_t fingerprint; /* XXH3 over size and the first and last 64 KiB: a changed file is refused at load */
};
enum { WEIGHT_SAMPLE = 65536 };
/* The fingerprint from the first and the last min(size, WEIGHT_SAMPLE) bytes of a file. */
static inline uint64_t weight_fingerprint(uint64_t size, const void *first, const void *last, size_t sample)
{
    return hash_bytes(last, sample, hash_bytes(first, sample, size));
}

struct guard {
    dim a, b; /* as written before either was rewritten; must be equal at run time */
    uint32_t origin;
    const char *why; /* "Add: axis 2 of operands" */
};

/* A state pair: `output` is `input` with new entries appended along `axis` (or scattered in: appended false). */
struct state {
    uint32_t input, output; /* indices into inputs, outputs */
    uint32_t axis;
    bool appended;
};

/* ---- mesh, partitions, shards: empty in an unsplit Graph ---- */

enum { MAX_SUBAXES = 16, MAX_RANKS = 4096 };
/* ranks = product of sub-axes; rank r has coordinates c[0..count-1] with r = ((c0 * size1 + c1) * size2 + c2)... A set of sub-axes is a mask, bit i for sub-axis i. */
struct mesh {
    uint32_t ranks; /* 0: not a Program */
    uint32_t count;
    uint32_t size[MAX_SUBAXES];    /* primes, or 1-element for ranks == 1 (count 0) */
    const char *axis[MAX_SUBAXES]; /* which user mesh axis it belongs to: "tp", "dp", ... */
};

/* How an extent is cut over a set of sub-axes. parts = product of their sizes; a rank's part is the mixed-radix number of its coordinates on them
 * (first sub-axis outermost). Interned by content, so equal layers share partitions. Partition 0 is "whole". */
struct partition {
    dim extent;
    int64_t unit;     /* cuts fall on multiples of this (the end excepted) */
    uint32_t subaxes; /* mask, non-zero */
    uint32_t parts;
    const int64_t *
        offset; /* parts + 1 cuts when extent is constant; NULL: symbolic, part p owns [p*c, min((p+1)*c, extent)) with c = unit * ceildiv(extent, unit * parts) */
};

struct interval {
    int64_t lo, hi;
}; /* [lo, hi) */
struct intervals {
    uint32_t count;
    struct interval *at;
}; /* ascending order of local storage, none empty */
/* What each rank stores of a param: the product over axes of its intervals. */
struct shard {
    uint32_t param;
    uint32_t rank;              /* number of axes */
    const struct intervals *of; /* of[axis * mesh.ranks + r] */
};

struct opset {
    const char *domain;
    int64_t version;
};

struct graph {
    struct arena *arena;
    struct dims *dims;
    LIST(struct node) nodes; /* [0] is reserved */
    LIST(struct graph_input) inputs;
    LIST(struct graph_output) outputs;
    LIST(struct param) params;
    LIST(struct weight_file) files;
    LIST(struct origin) origins; /* [0] is reserved */
    LIST(struct guard) guards;
    LIST(struct state) states;
    struct mesh mesh;
    LIST(struct partition) partitions; /* [0] is reserved */
    LIST(struct shard) shards;
    LIST(value) source; /* Programs: per node */
    /* the model, for reports */
    const char *model_path;
    uint64_t model_hash; /* XXH3 of the model file without tensor bytes */
    int64_t ir_version;
    LIST(struct opset) opsets;
    /* What a builder does with operands that the rules refuse: NULL ends the process (a bug); who builds from an untrusted file leaves by longjmp.
     * Not copied by graph_derive. */
    void (*refuse)(void *context, const char *why);
    void *refuse_context;
    uint32_t origin; /* what graph_set_origin has set */
};

struct graph *graph_new(struct arena *arena); /* with its own dims table */

static inline const struct node *graph_node(const struct graph *g, value v)
{
    return &g->nodes.at[v];
}

/* ---- building: each derives shape and dtype, hash-conses nothing, folds nothing. Wrong calls are our bugs: they end the process with a message
 * (in release builds too). A derived extent that overflows is DIM_NONE: who lowers untrusted input looks. Shapes are stored resolved. The current
 * origin is g's last set by graph_set_origin. `shape` arrays are copied. ---- */
void graph_set_origin(struct graph *g, uint32_t origin);
uint32_t graph_add_origin(struct graph *g, const char *file, int64_t index, const char *name, const char *op_type);
/* The general one: all other builders end here. Derives the shape unless the row's shape is GIVEN (or partly given: see each row), in
 * which case `rank` and `shape` are it; other rows ignore them. `type` is used by rows whose dtype is GIVEN. Lists are copied, `data` is not.
 * `source` is left alone: who builds a Program fills it. */
value graph_add(struct graph *g, op o, dtype type, uint32_t rank, const dim *shape, uint32_t operands,
                const value *operand, const struct attribute *attribute);

value graph_input(struct graph *g, const char *name, dtype type, uint32_t rank, const dim *shape);
value graph_param(struct graph *g, uint32_t param); /* whole */
value graph_constant(struct graph *g, dtype type, uint32_t rank, const int64_t *shape, const void *data);
value graph_scalar_f64(struct graph *g, dtype type, double x); /* rank 0, converted to type */
value graph_scalar_i64(struct graph *g, dtype type, int64_t x);
value graph_dim(struct graph *g, dim d);
value graph_iota(struct graph *g, dtype type, uint32_t rank, const dim *shape, uint32_t axis);
value graph_unary(struct graph *g, op o, value a);
value graph_binary(struct graph *g, op o, value a, value b); /* equal shapes */
value graph_select(struct graph *g, value condition, value a, value b);
value graph_cast(struct graph *g, value a, dtype to); /* a itself when it is of that type */
value graph_bitcast(struct graph *g, value a, dtype to);
value graph_reduce(struct graph *g, op o, value a, uint32_t count,
                   const int32_t *axes); /* axes in any order; a itself when none */
value graph_dot(struct graph *g, value lhs, value rhs, uint32_t nbatch, uint32_t ncontract);
value graph_gather(struct graph *g, value operand, value indices, uint32_t axis, uint32_t nbatch);
value graph_scatter(struct graph *g, value operand, value indices, value updates, uint32_t axis, uint32_t nbatch,
                    int32_t mode);
value graph_reshape(struct graph *g, value a, uint32_t rank, const dim *shape); /* a itself when equal */
value graph_transpose(struct graph *g, value a, const int32_t *permutation);    /* a itself when identity */
value graph_broadcast(struct graph *g, value a, uint32_t rank, const dim *shape, const int32_t *axes);
/* numpy's alignment: a's axes are the last ones of shape; extents equal or 1. a itself when equal. */
value graph_broadcast_to(struct graph *g, value a, uint32_t rank, const dim *shape);
value graph_slice(struct graph *g, value a, const dim *start, const dim *size,
                  const int32_t *step); /* step NULL: ones; a itself when it takes all */
value graph_slice_axis(struct graph *g, value a, uint32_t axis, dim start, dim size);
value graph_concat(struct graph *g, uint32_t count, const value *part, uint32_t axis); /* part[0] when it is alone */
value graph_pad(struct graph *g, value a, value scalar, const dim *before, const dim *shape);
value graph_reverse(struct graph *g, value a, uint32_t count, const int32_t *axes);
value graph_window(struct graph *g, value a, uint32_t axis, int32_t k, int32_t stride, int32_t dilation);
value graph_cumsum(struct graph *g, value a, uint32_t axis, bool exclusive, bool reverse);
value graph_topk(struct graph *g, value a, uint32_t axis, dim k, bool smallest);
value graph_cross_entropy(struct graph *g, value logits, value labels);
void graph_output(struct graph *g, const char *name, value v);
/* Records that a == b is assumed, and assumes it (dim_assume_equal). false: can never hold. */
bool graph_guard(struct graph *g, dim a, dim b, const char *why);
/* After guards: rewrites all shapes and dim attributes to their resolved form. */
void graph_resolve(struct graph *g);

/* ---- walking ---- */
/* uses[first[v] .. first[v+1]) are the nodes that have v as an operand (once per operand position), ascending. */
struct uses {
    const uint32_t *first;
    const value *use;
};
struct uses graph_uses(const struct graph *g, struct arena *arena);
bool *graph_live(const struct graph *g, struct arena *arena); /* per node: reaches an output (inputs always live) */
/* An empty graph that shares `g`'s arena-held tables (dims, params, files, origins, model facts; inputs and outputs empty). */
struct graph *graph_derive(const struct graph *g);
/* "model.onnx: node 17 'layers.0/mlp/up' (MatMul)" of v's origin, for diagnostics. */
const char *graph_where(const struct graph *g, value v, struct arena *arena);
const char *origin_text(const struct graph *g, uint32_t origin, struct arena *arena);
dim graph_elements(const struct graph *g, value v); /* product of the shape */
/* Structural equality of two nodes' op, attributes, dtype, shape (operands excluded), and a hash agreeing with it. */
bool node_same(const struct node *a, const struct node *b);
uint64_t node_hash(const struct node *n);

/* ---- mesh and partitions ---- */
void mesh_init(struct mesh *m, const char *axis,
               uint32_t ranks); /* sub-axes: prime factors, descending... largest outermost */
/* Another axis inside those that are there: neighbouring ranks differ in it. */
void mesh_add(struct mesh *m, const char *axis, uint32_t ranks);
/* The user's axes, outermost first, each with its size; returns how many. name and size have room for MAX_SUBAXES. */
uint32_t mesh_axes(const struct mesh *m, const char **name, uint32_t *size);
uint32_t mesh_parts(const struct mesh *m, uint32_t subaxes); /* product of sizes */
uint32_t mesh_part_of(const struct mesh *m, uint32_t subaxes, uint32_t rank);
/* Finds or adds; offset is copied (NULL: symbolic rule). Also bounds the partition's symbols where known. */
uint32_t graph_partition(struct graph *g, dim extent, int64_t unit, uint32_t subaxes, const int64_t *offset);
/* Balanced cuts of a constant extent in units: part sizes differ by at most one unit; the last may be short. */
void partition_balance(int64_t extent, int64_t unit, uint32_t parts, int64_t *offset);
/* This rank's extent and offset as dims: constants where all parts agree (extent only), else the partition's symbols. */
dim partition_size(struct graph *g, uint32_t partition);
dim partition_offset(struct graph *g, uint32_t partition);
/* Fills of[symbol] for every partition and rank symbol of rank r; input symbols must be set already. false: overflow. */
bool graph_bind_rank(const struct graph *g, uint32_t r, int64_t *of);
/* Cuts of a partition for given symbol values: lo, hi of part p. */
bool partition_range(const struct graph *g, uint32_t partition, uint32_t part, const int64_t *of, int64_t *lo,
                     int64_t *hi);

/* ---- text_print.c, text_parse.c: the exact text form, docs/text-form.md ---- */
void graph_print(const struct graph *g, struct text *out);
/* The whole text is one graph; it is verified (TPC_DATA when it is broken). */
status graph_parse(struct arena *arena, const char *name, const char *text, size_t length, struct diag *diag,
                   struct graph **out);
/* For texts that embed a graph (a program's): one node's line; the statements of a graph up to one that is none of its own. The latter returns NULL
 * after reporting, else a graph that is not verified yet. `struct lexer` is in ir/text_form.h. */
struct lexer;
void graph_print_node(const struct graph *g, value v, struct text *out);
struct graph *graph_parse_statements(struct lexer *l);

/* ---- verify.c ---- */
/* TPC_OK, or TPC_INTERNAL with a diagnostic per broken invariant (at most ten). `after` names the pass, for the message. */
status graph_verify(const struct graph *g, const char *after, struct diag *diag);
/* The same for a graph that came from a file called `name`: the status is TPC_DATA. */
status graph_verify_file(const struct graph *g, const char *name, struct diag *diag);

#endif
