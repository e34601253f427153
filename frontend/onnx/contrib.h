/* frontend/onnx/contrib.h - what the lowerings of ONNX Runtime's own operators (domain com.microsoft) share.
 *
 * Sections: contrib_activation.c, contrib_heads.c, contrib_quant.c; the lowerings themselves: contrib_*.c
 */
#ifndef TPC_FRONTEND_ONNX_CONTRIB_H
#define TPC_FRONTEND_ONNX_CONTRIB_H

#include "frontend/onnx/lower.h"

/* ---- contrib_activation.c ---- */

value contrib_sigmoid(struct call *c, value x);
value contrib_gelu(struct call *c, value x);      /* x/2 (1 + erf(x / sqrt 2)) */
value contrib_gelu_tanh(struct call *c, value x); /* its approximation by tanh */
/* The activation that a fused operator names in its attributes `activation`, `activation_alpha`, `activation_beta`. */
value contrib_activate(struct call *c, value x);

/* ---- contrib_heads.c: values of attention are [batch, heads, sequence, size] ---- */

value contrib_split_heads(struct call *c, value x, int64_t heads); /* from [batch, sequence, heads * size] */
value contrib_merge_heads(struct call *c, value x);                /* and back */
value contrib_repeat_heads(struct call *c, value x,
                           dim heads);                      /* each key-value head once per query head that it serves */
double contrib_scale(struct call *c, value q);              /* attribute `scale`, or 1 / sqrt(size) */
value contrib_keep(struct call *c, value keep, dtype type); /* 0 where true, -inf elsewhere */
value contrib_plus(struct call *c, value a, value b);       /* their sum; either may be 0, no value */
dtype contrib_work(dtype type);                             /* what sums and exponentials of it are computed in */
/* cos or sin for rotation: rows of cache `input` at the positions [batch, sequence], all below `rows` where that is known (DIM_NONE: not);
 * [batch, 1, sequence, half] */
value contrib_rotary_table(struct call *c, uint32_t input, value positions, dim rows);
value contrib_rotate(struct call *c, value x, value cosine, value sine, bool interleaved);
/* softmax over the last axis; `sink` (0: none) is one more score whose probability is dropped, broadcast to [.., 1]. */
value contrib_softmax(struct call *c, value scores, value sink);

/* ---- contrib_quant.c ---- */

/* Bytes whose last axis holds 8 / bits numbers each, low bits first, as u8: [.., n] -> [.., n * 8 / bits] */
value contrib_unpack(struct call *c, value packed, int64_t bits);
/* `count` of the numbers that the bytes of the last axis hold; that axis can be cut anywhere. */
value contrib_unpack_some(struct call *c, value packed, int64_t bits, dim count);
/* Each element of `axis` `block` times, then the first `extent`. */
value contrib_spread(struct call *c, value v, uint32_t axis, int64_t block, dim extent);
int64_t contrib_bits(struct call *c, const char *name, int64_t fallback); /* 2, 4 or 8 */

/* ---- contrib_norm.c ---- */

struct normed {
    value y, mean, inverse; /* mean 0: not subtracted */
};
/* Over the last axis, in f32 at least, without scale; result in x's type. */
struct normed contrib_normalize(struct call *c, value x, uint32_t first, double epsilon, bool centred);

#endif
