/* frontend/onnx/compose.h - what the larger lowerings share: tables known at compile time, steps along an axis, rounding, activations.
 *
 * Section: compose.c
 */
#ifndef TPC_FRONTEND_ONNX_COMPOSE_H
#define TPC_FRONTEND_ONNX_COMPOSE_H

#include "frontend/onnx/lower.h"

/* The most elements that a lowering makes up, and the most steps that it unrolls. */
enum { COMPOSE_TABLE = 1 << 22, COMPOSE_STEPS = 512 };

/* A constant of `type` from doubles; of i64 from integers. */
value compose_table(struct call *c, dtype type, uint32_t rank, const int64_t *shape, const double *x);
value compose_integers(struct call *c, uint32_t rank, const int64_t *shape, const int64_t *x);
/* Room for count numbers of a table; refuses as unsupported what is past the limit. */
double *compose_room(struct call *c, int64_t count);
int64_t *compose_integer_room(struct call *c, int64_t count);
/* The extent as a number, or unsupported: "a symbolic WHAT". */
int64_t compose_extent(struct call *c, dim extent, const char *what);
/* The same for what is unrolled: at most COMPOSE_STEPS. */
uint32_t compose_steps(struct call *c, dim extent, const char *what);

value compose_dim(struct call *c, dtype type, dim d);                /* a dim as a scalar of `type` */
value compose_at(struct call *c, value x, uint32_t axis, int64_t i); /* one place of an axis; the axis leaves */
value compose_part(struct call *c, value x, uint32_t axis, int64_t start, int64_t size);
value compose_stack(struct call *c, uint32_t count, const value *part, uint32_t axis); /* along a new axis */
value compose_clamp(struct call *c, value x, double low, double high);
/* Floats of any kind to an integer type: halves to even, saturated. */
value compose_quantize(struct call *c, value x, dtype type);
value compose_sigmoid(struct call *c, value x);
/* v, of one axis, along axis `axis` of a value of `rank` axes: [1, .., n, .., 1] without leading ones. */
value compose_along(struct call *c, value v, uint32_t axis, uint32_t rank);
/* The place along axis `axis` of everything in `shape`, as i64, with only as many axes as broadcasting needs. */
value compose_place(struct call *c, dtype type, uint32_t rank, const dim *shape, uint32_t axis);
/* f16 and bf16 are computed in f32. */
dtype compose_work(dtype type);

/* The node's convolution (strides, pads, groups.. from its attributes) of x by weight, without a bias: lower_conv.c. */
value compose_convolution(struct call *c, value x, value weight);
/* BatchNormalization in training mode: lower_train.c */
void compose_batch_training(struct call *c);

/* ---- lower_few.c ---- */
/* A conversion to a type of few bits (dtype_is_stored). saturate: to 8-bit floats; mode (up, down, nearest): to f8e8m0. */
value few_from(struct call *c, value v, dtype to, bool saturate, const char *mode);

/* ---- lower_refused.c: the argument of rows that refuse, and its reason ---- */
enum refusal { REFUSED_SHAPE, REFUSED_RANDOM, REFUSED_SEQUENCE, REFUSED_OPTIONAL, REFUSED_STRING, REFUSED_IMAGE };
const char *refused_reason(int argument);

/* ---- lower_loop.c: bodies that run more than once ---- */
struct body {
    const Onnx__GraphProto *graph;
    struct scope *constants; /* the body's initializers, shared by all runs */
    const char *prefix;
};
struct body body_open(struct call *c, const char *attribute, uint32_t inputs, uint32_t outputs);
/* One run: `in` and `out` are data indices. Leaves when a node of the body is not supported. */
void body_run(struct call *c, const struct body *b, const uint32_t *in, uint32_t *out);
uint32_t body_value(struct call *c, value v); /* a datum that is v */

#endif
