/* ir/interpret_row.h - what the interpreter's rows get: private to interpret*.c.
 *
 * A row function is given a node on one rank with its operands' tensors and a zeroed result of the node's shape and type, and fills the result.
 */
#ifndef TPC_IR_INTERPRET_ROW_H
#define TPC_IR_INTERPRET_ROW_H

#include "ir/interpret.h"

struct row {
    const struct graph *graph;
    value at;
    const struct node *node;
    uint32_t rank;                 /* of the mesh */
    const int64_t *of;             /* symbols on this rank */
    const struct tensor **operand; /* of this rank */
    struct tensor *result;
    struct tensor *const *everyone; /* everyone[r][v]: all values of all ranks, for collectives */
    int64_t *const *everyones;      /* everyones[r]: symbols of rank r */
    struct weights *weights;
    struct arena *scratch; /* emptied after the row */
    struct diag *diag;
};

/* One per `rule` column of ops.def. */
status row_leaf(struct row *r);
status row_iota(struct row *r);
status row_pointwise(struct row *r);
status row_reduce(struct row *r);
status row_dot(struct row *r);
status row_gather(struct row *r);
status row_scatter(struct row *r);
status row_reshape(struct row *r);
status row_transpose(struct row *r);
status row_broadcast(struct row *r);
status row_slice(struct row *r);
status row_concat(struct row *r);
status row_pad(struct row *r);
status row_reverse(struct row *r);
status row_window(struct row *r);
status row_cumsum(struct row *r);
status row_topk(struct row *r);
status row_cross_entropy(struct row *r);
status row_collective(struct row *r);

/* TPC_INTERNAL: the node does not fit its operands. */
status row_broken(struct row *r, const char *format, ...) TPC_PRINTF(2, 3);
/* TPC_DATA: the values that it was given cannot be used. */
status row_refused(struct row *r, const char *format, ...) TPC_PRINTF(2, 3);
/* attribute.dims[i] on this rank. */
status row_dim(struct row *r, uint32_t i, int64_t *x);

/* Arithmetic is done on one of two kinds of numbers: double for floats, int64 for integers (u64 keeps its bits) and bool. */
double *load_doubles(struct row *r, const struct tensor *t);
int64_t *load_integers(struct row *r, const struct tensor *t);
/* a op b for REDUCTION_*: NaN makes a maximum or minimum NaN; on bool a sum or maximum is `or`, a product or minimum `and`. */
double combine_doubles(int32_t reduction, double a, double b);
int64_t combine_integers(int32_t reduction, dtype type, int64_t a, int64_t b);
/* What an empty reduction gives: 0, 1, lowest, highest. */
double neutral_double(int32_t reduction);
int64_t neutral_integer(int32_t reduction, dtype type);
/* a < b as the type orders them (u64: without sign). */
bool integer_less(dtype type, int64_t a, int64_t b);

/* Product of extents; false for a negative one or on overflow. With an empty axis it is 0. */
bool shape_elements(uint32_t rank, const int64_t *shape, int64_t *elements);
/* strides[i]: elements from one index of axis i to the next. */
void shape_strides(uint32_t rank, const int64_t *shape, int64_t *strides);
bool same_shape(const struct tensor *a, const struct tensor *b); /* and type */

/* For every index of `shape`: to[to_start + index . to_step] = from[from_start + index . from_step]; in elements of `size` bytes. */
struct copy {
    size_t size;
    uint32_t rank;
    int64_t shape[MAX_RANK], to_step[MAX_RANK], from_step[MAX_RANK];
    int64_t to_start, from_start;
};
void copy_elements(const struct copy *c, const void *from, void *to);

#endif
