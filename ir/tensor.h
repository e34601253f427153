/* ir/tensor.h - a dense array in memory, row-major.
 *
 * Section: tensor.c
 */
#ifndef TPC_IR_TENSOR_H
#define TPC_IR_TENSOR_H

#include "ir/graph.h"

struct tensor {
    dtype dtype;
    uint32_t rank;
    int64_t shape[MAX_RANK];
    size_t count; /* elements */
    void *data;   /* count * dtype_size(dtype) bytes */
};

/* Sets shape and count; data stays NULL. false: a negative extent, or more bytes than size_t counts. */
bool tensor_shape(struct tensor *t, dtype type, uint32_t rank, const int64_t *shape);
static inline size_t tensor_bytes(const struct tensor *t)
{
    return t->count * dtype_size(t->dtype);
}
/* Zeroed, in the arena. false as tensor_shape. */
bool tensor_new(struct arena *arena, struct tensor *t, dtype type, uint32_t rank, const int64_t *shape);
/* "2x3xf32" */
const char *tensor_type_text(const struct tensor *t, struct arena *arena);

struct difference {
    size_t count;       /* elements that differ */
    size_t at;          /* the worst */
    double got, wanted; /* there */
    double largest;     /* largest finite magnitude in `wanted` */
    double worst;       /* |got - wanted| there; infinity for NaN against a number */
};
/* |got - wanted| <= atol + rtol * |wanted| for every element; NaN equals NaN, infinities equal themselves. Integers and bools exactly when
 * rtol and atol are 0. Types and shapes must be equal (else false with count = SIZE_MAX). */
bool tensor_compare(const struct tensor *got, const struct tensor *wanted, double rtol, double atol,
                    struct difference *d);

#endif
