/* passes/check.h - shared by the files of check; private to passes/. Knows nothing of the solver's and the rewrite's code.
 *
 * What check believes of a Program value: it is a part of one value of the original Graph. Along each axis a rank holds a list of pieces, one
 * after another. A piece is a contiguous range of the original axis, from `base` on, seen as an ordered product of parts (outermost first),
 * of which some are cut by a partition: of those the rank holds its own range. On top, the value may be one term of a sum (or maximum, minimum) over
 * the ranks that differ on the sub-axes of `mask`.
 */
#ifndef TPC_PASSES_CHECK_H
#define TPC_PASSES_CHECK_H

#include "passes/passes.h"

struct part {
    dim extent;
    uint32_t partition; /* 0: whole */
};
struct piece {
    dim base;
    uint32_t count;
    struct part *part; /* count >= 1 */
};
struct span {
    uint32_t count;
    struct piece *piece;
};
struct known {
    value original; /* 0: nothing is known (an auxiliary of an expanded op, looked at where that ends) */
    uint32_t rank;
    struct span axis[MAX_RANK];
    int32_t kind; /* REDUCTION_*, 0 */
    uint32_t mask;
};

struct checker {
    struct arena *arena;
    const struct graph *graph; /* the original */
    struct graph *program;     /* read only, but dims are made in its table */
    const struct solution *claims;
    struct diag *diag;
    struct known *known; /* per program value */
    value at;            /* program node under check */
};

/* Reports what is wrong with the node under check. */
status check_fault(struct checker *c, const char *format, ...) TPC_PRINTF(2, 3);

/* ---- check_span.c: the algebra of spans ---- */
struct span span_whole(struct checker *c, dim extent);
struct span span_of_claim(struct checker *c, const struct axis_layout *a);
struct span span_normal(struct checker *c, const struct span *s);
bool span_same(const struct span *a, const struct span *b); /* both normal */
bool span_is_whole(const struct span *s);
dim span_local(struct checker *c, const struct span *s);
dim span_extent(struct checker *c, const struct span *s);
/* Its pieces are all of [0, extent), in order: what slices and concats of a conversion make on the way is not. */
bool span_is_complete(struct checker *c, const struct span *s, dim extent);
uint32_t span_mask(struct checker *c, const struct span *s);
/* Every piece is cut over the same sub-axes: a sum over the axis counts each element once. */
bool span_evenly_cut(struct checker *c, const struct span *s);
/* The partition when the axis is one piece of one cut part, else 0. */
uint32_t span_sole(const struct span *s);
/* [start, start + size) in local terms; false when that does not fall on what can be told apart. */
bool span_slice_local(struct checker *c, const struct span *s, dim start, dim size, struct span *out);
/* [start, start + size) of the original axis of a complete span: the pieces, and where they begin locally. */
bool span_slice_whole(struct checker *c, const struct span *s, dim start, dim size, struct span *out, dim *local_start);
/* The pieces of b behind those of a; b's bases moved by `shift`. */
struct span span_join(struct checker *c, const struct span *a, const struct span *b, dim shift);
/* Axis seen locally as [outer, middle, inner]: the part in the middle goes from partition `from` to `to`. */
bool span_recut(struct checker *c, const struct span *s, dim outer, dim middle, dim inner, uint32_t from, uint32_t to,
                struct span *out);
/* Row-major reshape of complete spans. */
bool span_reshape(struct checker *c, uint32_t rank, const struct span *from, uint32_t to_rank, const dim *to_shape,
                  struct span *to);
/* ---- check_hold.c ---- */
/* The intervals that rank r holds are those of `s` (constant extents), in the same order. */
bool span_holds(struct checker *c, const struct span *s, uint32_t r, const struct intervals *of);

/* ---- check_rules.c: one rule per row of ops.def ---- */
/* Node c->at computes original node `n` (of value `original`) from operands that are all known. */
status check_row(struct checker *c, value original, const struct node *n, struct known *out);
/* Collectives, restrict, count_once, and slice and concat as parts of a conversion. */
status check_conversion(struct checker *c, struct known *out);

#endif
