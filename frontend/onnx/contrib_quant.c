/* frontend/onnx/contrib_quant.c - weights of a few bits with a scale per block: MatMulNBits, GatherBlockQuantized.
 *
 * A weight is unpacked by core operations on its bytes, so a linear's weight is still derived from params alone and is read as it is
 * stored. It is [n, blocks, block], and a product contracts both last axes: so it can be cut by rows, and along k at blocks (or inside of
 * them), and what is multiplied by it is cut at the same places.
 */
#include "frontend/onnx/contrib.h"

int64_t contrib_bits(struct call *c, const char *name, int64_t fallback)
{
    int64_t bits = attribute_int(c, name, fallback);
    if (bits != 2 && bits != 4 && bits != 8)
        call_unsupported(c, "%lld bits per weight", (long long)bits);
    return bits;
}

/* (bytes >> shifts) & ones */
static value low_bits(struct call *c, value bytes, value shifts, int64_t bits)
{
    value moved = build_both(c, OP_SHR, bytes, shifts);
    return build_with(c, OP_AND, moved, (double)((1 << bits) - 1));
}

static void require_bytes(struct call *c, value packed)
{
    if (call_type(c, packed) != DT_U8 || call_rank(c, packed) == 0 || call_rank(c, packed) == MAX_RANK)
        call_fail(c, "packed numbers must be bytes, and have an axis");
}

value contrib_unpack(struct call *c, value packed, int64_t bits)
{
    uint32_t rank = call_rank(c, packed);
    dim shape[MAX_RANK];
    int32_t axes[MAX_RANK];
    require_bytes(c, packed);
    if (bits == 8)
        return packed;
    for (uint32_t k = 0; k < rank; k++)
        axes[k] = (int32_t)k;
    dims_copy(shape, call_shape(c, packed), rank);
    shape[rank] = call_const(c, 8 / bits);
    value wide = graph_broadcast(c->g, packed, rank + 1, shape, axes);
    value shifts = build_with(c, OP_MUL, graph_iota(c->g, DT_U8, 1, shape + rank, 0), (double)bits);
    value numbers = low_bits(c, wide, shifts, bits);
    shape[rank - 1] = dim_mul(c->t, shape[rank - 1], shape[rank]);
    return graph_reshape(c->g, numbers, rank, shape);
}

value contrib_unpack_some(struct call *c, value packed, int64_t bits, dim count)
{
    uint32_t last = call_rank(c, packed) - 1;
    require_bytes(c, packed);
    if (bits == 8)
        return build_slice_axis(c, packed, last, call_const(c, 0), count);
    value place = graph_iota(c->g, DT_I64, 1, &count, 0);
    double per = (double)(8 / bits);
    value bytes = graph_gather(c->g, packed, build_with(c, OP_DIV, place, per), last, 0);
    value shifts = build_with(c, OP_MUL, build_with(c, OP_MOD, place, per), (double)bits);
    return low_bits(c, bytes, graph_cast(c->g, shifts, DT_U8), bits);
}

value contrib_spread(struct call *c, value v, uint32_t axis, int64_t block, dim extent)
{
    uint32_t rank = call_rank(c, v);
    dim wide[MAX_RANK], shape[MAX_RANK];
    int32_t axes[MAX_RANK];
    if (rank == MAX_RANK)
        call_fail(c, "has too many axes");
    dims_copy(shape, call_shape(c, v), rank);
    for (uint32_t k = 0; k < rank; k++) {
        axes[k] = (int32_t)(k + (k > axis));
        wide[k + (k > axis)] = shape[k];
    }
    wide[axis + 1] = call_const(c, block);
    shape[axis] = dim_mul(c->t, shape[axis], wide[axis + 1]);
    v = graph_reshape(c->g, graph_broadcast(c->g, v, rank + 1, wide, axes), rank, shape);
    return build_slice_axis(c, v, axis, call_const(c, 0), extent);
}

/* ---- MatMulNBits -------------------------------------------------------------------------------------------- */

struct blocks {
    int64_t n, k, block, bits, count; /* count: blocks along k, the last may be short */
};

static struct blocks read_blocks(struct call *c)
{
    struct blocks b = {
        .n = attribute_int(c, "N", 0), .k = attribute_int(c, "K", 0), .block = attribute_int(c, "block_size", 0)};
    b.bits = contrib_bits(c, "bits", 4);
    if (b.n < 1 || b.k < 1 || b.block < 16 || b.n > INT32_MAX || b.k > INT32_MAX || b.block > INT32_MAX ||
        (b.block & (b.block - 1)))
        call_fail(c, "N is %lld, K %lld, block_size %lld", (long long)b.n, (long long)b.k, (long long)b.block);
    b.count = (b.k + b.block - 1) / b.block;
    return b;
}

/* Zero points as [n, blocks]: packed like the weight, or plain numbers */
static value zero_points(struct call *c, const struct blocks *b, dtype work)
{
    value zero = call_use(c, 3);
    dim shape[2] = {call_const(c, b->n), call_const(c, b->count)};
    if (call_type(c, zero) != DT_U8)
        return graph_cast(c->g, build_reshape(c, zero, 2, shape), work);
    shape[1] = call_const(c, (b->count * b->bits + 7) / 8);
    zero = build_reshape(c, zero, 2, shape);
    return graph_cast(c->g, contrib_unpack_some(c, zero, b->bits, call_const(c, b->count)), work);
}

/* The blocks [first, first + count) of the weight as [n, count, block], (number - zero point) * scale. Each product reads its own. */
static value weight_of(struct call *c, const struct blocks *b, int64_t first, int64_t count, dtype type)
{
    dtype work = contrib_work(type);
    dim n = call_const(c, b->n), all = call_const(c, b->count), from = call_const(c, first),
        taken = call_const(c, count);
    value packed = build_reshape(c, call_use(c, 1), 3, (dim[]){n, all, call_const(c, b->block * b->bits / 8)});
    packed = build_slice_axis(c, packed, 1, from, taken);
    value w = graph_cast(c->g, contrib_unpack(c, packed, b->bits), work);
    value scale = build_reshape(c, call_use_as(c, 2, work), 2, (dim[]){n, all});
    scale = build_slice_axis(c, scale, 1, from, taken);
    if (call_has(c, 3)) {
        value zero = build_slice_axis(c, zero_points(c, b, work), 1, from, taken);
        w = build_both(c, OP_SUB, w, build_unsqueeze(c, zero, 2));
    } else {
        w = build_with(c, OP_SUB, w, (double)(1 << (b->bits - 1)));
    }
    return graph_cast(c->g, build_both(c, OP_MUL, w, build_unsqueeze(c, scale, 2)), type);
}

/* a[.., first * block : ..] by the blocks [first, first + count) of the weight, `length` numbers of each: contracts blocks and their insides */
static value block_product(struct call *c, value a, const struct blocks *b, int64_t first, int64_t count,
                           int64_t length)
{
    uint32_t last = call_rank(c, a) - 1;
    value w = weight_of(c, b, first, count, call_type(c, a));
    dim shape[MAX_RANK];
    if (last + 2 > MAX_RANK)
        call_fail(c, "has too many axes");
    w = build_slice_axis(c, w, 2, call_const(c, 0), call_const(c, length));
    a = build_slice_axis(c, a, last, call_const(c, first * b->block), call_const(c, count * length));
    dims_copy(shape, call_shape(c, a), last);
    shape[last] = call_const(c, count);
    shape[last + 1] = call_const(c, length);
    return graph_dot(c->g, graph_reshape(c->g, a, last + 2, shape), w, 0, 2);
}

/* A short last block is a product of its own: what is before it can then still be cut at blocks. */
void lower_contrib_matmulnbits(struct call *c)
{
    struct blocks b = read_blocks(c);
    if (call_has(c, 4))
        call_unsupported(c, "g_idx");
    if (attribute_int(c, "weight_prepacked", 0))
        call_unsupported(c, "prepacked weights");
    value a = call_use(c, 0), y = 0;
    if (call_rank(c, a) == 0)
        call_fail(c, "a scalar has no matrix product");
    call_agree(c, call_shape(c, a)[call_rank(c, a) - 1], call_const(c, b.k), "inner dimensions");
    int64_t full = b.k / b.block, rest = b.k % b.block;
    if (full)
        y = block_product(c, a, &b, 0, full, b.block);
    if (rest)
        y = contrib_plus(c, y, block_product(c, a, &b, full, 1, rest));
    if (call_has(c, 5))
        y = build_both(c, OP_ADD, y, call_use(c, 5));
    call_set(c, 0, y);
}

/* ---- GatherBlockQuantized ----------------------------------------------------------------------------------- */

static value gathered(struct call *c, uint32_t input, uint32_t axis, value index)
{
    return graph_gather(c->g, call_use(c, input), index, axis, 0);
}

/* The numbers of input 0 or 3 at these indices: elements of a type of few bits, or packed in bytes; `count` along axis `at` of the result. */
static value gathered_numbers(struct call *c, uint32_t input, uint32_t axis, value index, int64_t bits, uint32_t at,
                              dim count)
{
    dtype type = call_in(c, input)->dtype;
    value packed = type != DT_U8 && axis + 1 < call_in(c, input)->rank ? call_use_packed(c, input) : 0;
    if (packed) /* what is taken is unpacked, not all */
        return stored_unpack(c->g, graph_gather(c->g, packed, index, axis, 0), type);
    value v = gathered(c, input, axis, index);
    if (type != DT_U8)
        return v;
    return count != DIM_NONE && at + 1 == call_rank(c, v) ? contrib_unpack_some(c, v, bits, count)
                                                          : contrib_unpack(c, v, bits);
}

/* Gathers bytes, scales and zero points, then makes numbers of what was taken. */
void lower_contrib_gatherblockquantized(struct call *c)
{
    const struct datum *data = call_in(c, 0);
    uint32_t rank = data->rank;
    bool bytes = data->dtype == DT_U8; /* else elements of their own, whose zero point is 0 when there is none */
    int64_t block = attribute_int(c, "block_size", 128), bits = contrib_bits(c, "bits", 4);
    uint32_t axis = call_axis(c, attribute_int(c, "gather_axis", 0), rank);
    uint32_t quantized = call_axis(c, attribute_int(c, "quantize_axis", 1), rank);
    if (!bytes && !(dtype_is_int(data->dtype) && dtype_bits(data->dtype) < 8))
        call_unsupported(c, "elements of type %s", dtype_name(data->dtype));
    if (axis == quantized || block < 16)
        call_fail(c, "gathers along axis %u, blocks of %lld along axis %u", axis, (long long)block, quantized);
    if (call_in(c, 2)->rank != rank || (call_has(c, 3) && call_in(c, 3)->rank != rank))
        call_fail(c, "data, scales and zero points differ in their number of axes");
    value index = call_use_as(c, 1, DT_I64);
    value below = build_both(c, OP_LT, index, build_real(c, DT_I64, 0));
    index = build_choose(c, below, build_both(c, OP_ADD, index, graph_dim(c->g, data->shape[axis])), index);
    uint32_t extra = call_rank(c, index), at = quantized > axis ? quantized + extra - 1 : quantized;
    value x = gathered_numbers(c, 0, axis, index, bits, at, DIM_NONE), scale = gathered(c, 2, axis, index);
    dtype type = call_type(c, scale), work = contrib_work(type);
    dim extent = call_shape(c, x)[at], blocks = call_shape(c, scale)[at];
    scale = contrib_spread(c, graph_cast(c->g, scale, work), at, block, extent);
    x = graph_cast(c->g, x, work);
    if (call_has(c, 3)) {
        value zero = gathered_numbers(c, 3, axis, index, bits, at, blocks);
        x = build_both(c, OP_SUB, x, contrib_spread(c, graph_cast(c->g, zero, work), at, block, extent));
    } else if (bytes) {
        x = build_with(c, OP_SUB, x, (double)(1 << (bits - 1)));
    }
    call_set(c, 0, graph_cast(c->g, build_both(c, OP_MUL, x, scale), type));
}
