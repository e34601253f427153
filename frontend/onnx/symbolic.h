/* frontend/onnx/symbolic.h - what the importer knows of a value's elements.
 *
 * A content is an array of formulas over a shape. Axes of constant extent <= CONTENT_EXTENT are enumerated, every other axis is
 * represented by its coordinate symbol (dim_coordinate of the axis number). A formula is an integer expression, a real constant,
 * a comparison that no fact decides, or a choice by one; truth is the integers 0 and 1. An integer formula may stand in a float value:
 * then the float is that integer.
 *
 * Invariant: a formula is NULL where nothing is known, and a content never holds NULL. Formulas are in normal form: what facts about
 * symbols decide is decided (again by content_resolve after a guard).
 *
 * Sections: symbolic.c (formulas, contents), symbolic_emit.c (contents to core operations)
 */
#ifndef TPC_FRONTEND_ONNX_SYMBOLIC_H
#define TPC_FRONTEND_ONNX_SYMBOLIC_H

#include "ir/graph.h"

enum { CONTENT_EXTENT = 64, CONTENT_COUNT = 4096 };

enum formula_op {
    FORMULA_DIM,
    FORMULA_REAL,
    FORMULA_LT,
    FORMULA_LE,
    FORMULA_EQ,
    FORMULA_NOT,
    FORMULA_AND,
    FORMULA_OR,
    FORMULA_SELECT
};
struct formula {
    enum formula_op op;
    dim d;       /* FORMULA_DIM */
    double real; /* FORMULA_REAL: not an integer, or an infinity, NaN, -0 */
    const struct formula *arg[3];
};

struct content {
    uint32_t count; /* product of the enumerated extents */
    const struct formula **at;
};

/* What formulas are made in. */
struct symbolic {
    struct arena *arena;
    struct dims *dims;
};

/* ---- formulas; every argument may be NULL, and then the result is ---- */
const struct formula *formula_dim(struct symbolic *s, dim d); /* NULL for DIM_NONE */
const struct formula *formula_int(struct symbolic *s, int64_t x);
const struct formula *formula_real(struct symbolic *s, double x);
bool formula_constant(const struct symbolic *s, const struct formula *f, double *x); /* integer or real constant */
bool formula_integer(const struct symbolic *s, const struct formula *f, int64_t *x);
/* Pointwise core operations, on elements of type `type` (the operands'). */
const struct formula *formula_unary(struct symbolic *s, op o, dtype type, const struct formula *a);
const struct formula *formula_binary(struct symbolic *s, op o, dtype type, const struct formula *a,
                                     const struct formula *b);
const struct formula *formula_select(struct symbolic *s, const struct formula *c, const struct formula *a,
                                     const struct formula *b);
const struct formula *formula_cast(struct symbolic *s, dtype from, dtype to, const struct formula *f);
/* f with coordinate k replaced by index[k], k < rank. */
const struct formula *formula_at(struct symbolic *s, const struct formula *f, uint32_t rank, const dim *index);
bool formula_equal(const struct formula *a, const struct formula *b);

/* ---- contents ---- */
bool axis_enumerated(const struct symbolic *s, dim extent, int64_t *out);
/* Calls element(context, index) for every element; index holds constants and coordinates. NULL when an element is
 * unknown or there are too many. */
typedef const struct formula *(*content_element)(void *context, const dim *index);
const struct content *content_make(struct symbolic *s, uint32_t rank, const dim *shape, content_element element,
                                   void *context);
const struct formula *content_at(struct symbolic *s, const struct content *c, uint32_t rank, const dim *shape,
                                 const dim *index);
const struct content *content_uniform(struct symbolic *s, uint32_t rank, const dim *shape, const struct formula *f);
const struct content *content_resolve(struct symbolic *s, const struct content *c);

/* e == base + sum of coefficient[k] * coordinate k, k < rank, with no coordinate in base or a coefficient. */
bool dim_affine(struct dims *t, dim e, uint32_t rank, dim *base, dim *coefficient);

/* ---- symbolic_emit.c: the same numbers as core operations, in the graph's current origin ---- */
value content_emit(struct symbolic *s, struct graph *g, dtype type, uint32_t rank, const dim *shape,
                   const struct content *c);

#endif
