/* frontend/onnx/stored.c - stored tensors: initializers and constants, and what the Graph makes of them.
 *
 * Weights become params that say where their bytes lie; they are not read. Small constants become `constant` nodes; integers whose
 * values may decide a shape become content. Start reading at stored_read.
 */
#include "frontend/onnx/import.h"

#include <assert.h>
#include <stdlib.h>

enum { CONSTANT_COUNT = 256, AFFINE_COUNT = 65536 };

/* ---- protobuf-c on arenas ----------------------------------------------------------------------------------- */

static void *unpack_alloc(void *arena, size_t size)
{
    return arena_alloc(arena, size);
}

static void unpack_free(void *arena, void *pointer)
{
    (void)arena;
    (void)pointer;
}

void *proto_unpack(struct arena *arena, const ProtobufCMessageDescriptor *message, const struct wire_bytes *bytes)
{
    ProtobufCAllocator allocator = {.alloc = unpack_alloc, .free = unpack_free, .allocator_data = arena};
    return protobuf_c_message_unpack(message, &allocator, bytes->length, bytes->at);
}

/* ---- decoding ----------------------------------------------------------------------------------------------- */

enum { ONNX_TYPES = 26 }; /* TensorProto.DataType goes from 1 (FLOAT) to 26 (INT2) */

static status decode_shape(struct diag *diag, const char *where, const Onnx__TensorProto *p, struct stored *out)
{
    size_t bytes = 0;
    out->name = p->name ? p->name : "";
    out->dtype = dtype_from_onnx(p->data_type);
    out->file = NO_FILE;
    out->count = 1;
    if (out->dtype == DT_NONE)
        return diag_error(
            diag, p->data_type > 0 && p->data_type <= ONNX_TYPES ? TPC_UNSUPPORTED : TPC_DATA, where,
            "tensor '%s' has element type %d (%s), which %s", out->name, p->data_type, dtype_missing_name(p->data_type),
            p->data_type > 0 && p->data_type <= ONNX_TYPES ? "tpc does not have" : "ONNX does not define");
    if (p->n_dims > MAX_RANK)
        return diag_error(diag, TPC_UNSUPPORTED, where, "tensor '%s' has %zu axes (limit is %d)", out->name, p->n_dims,
                          MAX_RANK);
    out->rank = (uint32_t)p->n_dims;
    for (uint32_t k = 0; k < out->rank; k++) {
        out->shape[k] = p->dims[k];
        if (p->dims[k] < 0 || !i64_mul(out->count, p->dims[k], &out->count))
            return diag_error(diag, TPC_DATA, where, "tensor '%s' has an impossible shape", out->name);
    }
    if (!size_mul((size_t)out->count, dtype_size(out->dtype), &bytes) || bytes > INT64_MAX ||
        !dtype_packed_size(out->dtype, (uint64_t)out->count, &out->length))
        return diag_error(diag, TPC_DATA, where, "tensor '%s' has an impossible shape", out->name);
    return TPC_OK;
}

static status wrong_count(struct diag *diag, const char *where, const struct stored *t, uint64_t is)
{
    return diag_error(diag, TPC_DATA, where, "tensor '%s' stores %llu elements or bytes, its shape needs %lld elements",
                      t->name, (unsigned long long)is, (long long)t->count);
}

/* The typed fields: which one holds elements of a type, and how many it has. Packed elements are there byte by byte. */
static size_t typed_count(const Onnx__TensorProto *p, dtype type)
{
    switch (type) {
    case DT_F32:
        return p->n_float_data;
    case DT_F64:
        return p->n_double_data;
    case DT_I64:
        return p->n_int64_data;
    case DT_U32:
    case DT_U64:
        return p->n_uint64_data;
    case DT_BOOL:
    case DT_I8:
    case DT_I16:
    case DT_I32:
    case DT_U8:
    case DT_U16:
    case DT_F16:
    case DT_BF16:
    case DT_F8E4M3FN:
    case DT_F8E4M3FNUZ:
    case DT_F8E5M2:
    case DT_F8E5M2FNUZ:
    case DT_F8E8M0:
    case DT_F4E2M1:
    case DT_U4:
    case DT_I4:
    case DT_U2:
    case DT_I2:
        return p->n_int32_data;
    case DT_NONE:
    case DT_COUNT:
        break;
    }
    return 0;
}

static void typed_copy(const Onnx__TensorProto *p, dtype type, size_t count, uint8_t *to)
{
    size_t size = dtype_size(type);
    if (count == 0)
        return;
    if (type == DT_F32)
        memcpy(to, p->float_data, count * size);
    else if (type == DT_F64)
        memcpy(to, p->double_data, count * size);
    else if (type == DT_I64)
        memcpy(to, p->int64_data, count * size);
    else
        for (size_t i = 0; i < count; i++) { /* the low bytes of a wider integer */
            uint64_t x = type == DT_U32 || type == DT_U64 ? p->uint64_data[i] : (uint64_t)p->int32_data[i];
            memcpy(to + i * size, &x, size);
        }
}

status tensor_decode(struct arena *arena, struct diag *diag, const char *where, const Onnx__TensorProto *p,
                     const uint8_t *file, size_t file_length, struct stored *out)
{
    status s = decode_shape(diag, where, p, out);
    if (s != TPC_OK || p->data_location == ONNX__TENSOR_PROTO__DATA_LOCATION__EXTERNAL)
        return s;
    if (p->has_file_offset && p->has_file_length) {
        if (p->file_length != out->length || p->file_offset > file_length ||
            p->file_length > file_length - p->file_offset)
            return wrong_count(diag, where, out, p->file_length);
        out->offset = p->file_offset;
        out->bytes = file + p->file_offset;
        return TPC_OK;
    }
    size_t count = typed_count(p, out->dtype);
    if (count != (dtype_bits(out->dtype) < 8 ? (size_t)out->length : (size_t)out->count))
        return wrong_count(diag, where, out, count);
    uint8_t *bytes = arena_alloc(arena, (size_t)out->length);
    typed_copy(p, out->dtype, count, bytes);
    out->bytes = bytes;
    return TPC_OK;
}

/* ---- where the bytes lie ------------------------------------------------------------------------------------ */

static bool parse_u64(const char *text, uint64_t *out)
{
    uint64_t x = 0;
    if (!*text)
        return false;
    for (; *text; text++) {
        if (*text < '0' || *text > '9' || x > (UINT64_MAX - 9) / 10)
            return false;
        x = x * 10 + (uint64_t)(*text - '0');
    }
    *out = x;
    return true;
}

static status read_external(struct importer *im, const char *where, const Onnx__TensorProto *p, struct stored *out)
{
    const char *location = NULL;
    uint64_t length = out->length;
    for (size_t i = 0; i < p->n_external_data; i++) {
        const char *key = p->external_data[i]->key ? p->external_data[i]->key : "";
        const char *text = p->external_data[i]->value ? p->external_data[i]->value : "";
        bool good = true;
        if (strcmp(key, "location") == 0)
            location = text;
        else if (strcmp(key, "offset") == 0)
            good = parse_u64(text, &out->offset);
        else if (strcmp(key, "length") == 0)
            good = parse_u64(text, &length);
        if (!good)
            return diag_error(im->diag, TPC_DATA, where, "external data of tensor '%s': %s '%s' is not a number",
                              out->name, key, text);
    }
    if (!location)
        return diag_error(im->diag, TPC_DATA, where, "external data of tensor '%s' names no file", out->name);
    if (length != out->length)
        return diag_error(im->diag, TPC_DATA, where,
                          "external data of tensor '%s' are %llu bytes, its shape needs %llu", out->name,
                          (unsigned long long)length, (unsigned long long)out->length);
    return external_file(im, where, location, out->offset, out->length, &out->file);
}

/* External bytes that may decide a shape or are a scalar are read; weights are not. */
static status read_small(struct importer *im, const char *where, struct stored *t)
{
    bool small = dtype_is_float(t->dtype) ? t->count <= 16 : t->count <= AFFINE_COUNT;
    if (!small)
        return TPC_OK;
    uint8_t *bytes = arena_alloc(im->scratch, (size_t)t->length);
    t->bytes = bytes;
    return external_read(im, where, t->file, t->offset, bytes, (size_t)t->length);
}

status stored_read(struct importer *im, const char *where, const Onnx__TensorProto *p, struct stored *out)
{
    status s = tensor_decode(im->scratch, im->diag, where, p, im->bytes, im->length, out);
    if (s != TPC_OK)
        return s;
    if (p->data_location == ONNX__TENSOR_PROTO__DATA_LOCATION__EXTERNAL) {
        s = read_external(im, where, p, out);
        return s == TPC_OK ? read_small(im, where, out) : s;
    }
    if (p->has_file_offset && im->from_file)
        return model_file(im, &out->file);
    return TPC_OK;
}

const struct stored *stored_from(struct importer *im, dtype type, uint32_t rank, const int64_t *shape,
                                 const void *bytes)
{
    struct stored *t = NEW(im->scratch, struct stored);
    *t = (struct stored){.name = "", .dtype = type, .rank = rank, .count = 1, .file = NO_FILE};
    for (uint32_t k = 0; k < rank; k++) {
        t->shape[k] = shape[k];
        t->count *= shape[k];
    }
    bool fits = dtype_packed_size(type, (uint64_t)t->count, &t->length);
    assert(fits && "the elements are in memory");
    (void)fits;
    uint8_t *packed = arena_alloc(im->scratch, (size_t)t->length);
    dtype_pack(type, bytes, (size_t)t->count, packed);
    t->bytes = packed;
    return t;
}

const void *stored_elements(struct arena *arena, const struct stored *t)
{
    char *elements = arena_alloc(arena, (size_t)t->count * dtype_size(t->dtype));
    dtype_unpack(t->dtype, t->bytes, 0, (size_t)t->count, elements);
    return elements;
}

/* ---- content ------------------------------------------------------------------------------------------------ */

struct element_context {
    struct importer *im;
    const struct datum *d;
    int64_t stride[MAX_RANK];
};

static int64_t element_i64(const struct stored *t, int64_t i)
{
    uint64_t aligned = 0;
    dtype_unpack(t->dtype, t->bytes, (size_t)i, 1, &aligned);
    return dtype_load_i64(t->dtype, &aligned, 0);
}

static double element_f64(const struct stored *t, int64_t i)
{
    uint64_t aligned = 0;
    dtype_unpack(t->dtype, t->bytes, (size_t)i, 1, &aligned);
    return dtype_load_f64(t->dtype, &aligned, 0);
}

/* Integers at enumerated indices `fixed` and any coordinates, where they are affine in those. */
static const struct formula *affine_element(void *context, const dim *index)
{
    const struct element_context *c = context;
    const struct stored *t = c->d->stored;
    struct dims *dims = c->im->t;
    int64_t first = 0, step[MAX_RANK] = {0}, at[MAX_RANK] = {0}, inner = 1;
    bool free_axis[MAX_RANK] = {false};
    for (uint32_t k = 0; k < t->rank; k++) {
        int64_t i = 0;
        free_axis[k] = !dim_is_const(dims, index[k], &i);
        first += free_axis[k] ? 0 : i * c->stride[k];
        inner *= free_axis[k] ? t->shape[k] : 1;
    }
    int64_t base = element_i64(t, first);
    dim e = dim_const(dims, base);
    for (uint32_t k = 0; k < t->rank; k++) {
        if (!free_axis[k])
            continue;
        if (!i64_sub(element_i64(t, first + c->stride[k]), base, &step[k]))
            return NULL;
        e = dim_add(dims, e, dim_mul(dims, dim_const(dims, step[k]), index[k]));
    }
    for (int64_t n = 0; n < inner; n++) {
        int64_t expected = base, offset = first, term = 0;
        for (uint32_t k = 0; k < t->rank; k++) {
            offset += at[k] * c->stride[k];
            if (!i64_mul(at[k], step[k], &term) || !i64_add(expected, term, &expected))
                return NULL;
        }
        if (element_i64(t, offset) != expected)
            return NULL;
        for (uint32_t k = t->rank; k-- > 0;) {
            if (!free_axis[k])
                continue;
            at[k] = at[k] + 1 == t->shape[k] ? 0 : at[k] + 1;
            if (at[k] != 0)
                break;
        }
    }
    return formula_dim(&c->im->s, e);
}

static const struct content *stored_content(struct importer *im, const struct datum *d)
{
    const struct stored *t = d->stored;
    struct element_context context = {.im = im, .d = d};
    int64_t stride = 1;
    if (!t->bytes || dtype_is_stored(t->dtype))
        return NULL;
    if (dtype_is_float(t->dtype)) {
        if (t->count != 1)
            return NULL;
        return content_uniform(&im->s, d->rank, d->shape, formula_real(&im->s, element_f64(t, 0)));
    }
    if (t->count > AFFINE_COUNT)
        return NULL;
    for (uint32_t k = t->rank; k-- > 0;) {
        context.stride[k] = stride;
        if (!i64_mul(stride, t->shape[k], &stride)) /* an empty tensor may still have long axes */
            return NULL;
    }
    return content_make(&im->s, d->rank, d->shape, affine_element, &context);
}

void datum_from_stored(struct importer *im, struct datum *d, const struct stored *t, bool weight)
{
    dim *shape = NEW_ARRAY(im->scratch, dim, t->rank);
    for (uint32_t k = 0; k < t->rank; k++)
        shape[k] = dim_const(im->t, t->shape[k]);
    d->dtype = t->dtype;
    d->rank = t->rank;
    d->shape = shape;
    d->stored = t;
    d->weight = weight;
    d->content = stored_content(im, d);
}

/* ---- as nodes ----------------------------------------------------------------------------------------------- */

value stored_unpack(struct graph *g, value bytes, dtype type)
{
    const struct node *n = graph_node(g, bytes);
    uint32_t rank = n->rank;
    dim shape[MAX_RANK + 1], per = dim_const(g->dims, 8 / dtype_bits(type));
    int32_t axes[MAX_RANK];
    dims_copy(shape, n->shape, rank);
    for (uint32_t k = 0; k < rank; k++)
        axes[k] = (int32_t)k;
    shape[rank] = per;
    value shift = graph_binary(g, OP_MUL, graph_iota(g, DT_U8, 1, &per, 0),
                               graph_broadcast_to(g, graph_scalar_i64(g, DT_U8, dtype_bits(type)), 1, &per));
    value wide = graph_broadcast(g, bytes, rank + 1, shape, axes);
    wide = graph_binary(g, OP_SHR, wide, graph_broadcast_to(g, shift, rank + 1, shape));
    value ones = graph_scalar_i64(g, DT_U8, (1 << dtype_bits(type)) - 1);
    wide = graph_binary(g, OP_AND, wide, graph_broadcast_to(g, ones, rank + 1, shape));
    shape[rank - 1] = dim_mul(g->dims, shape[rank - 1], per);
    wide = graph_reshape(g, wide, rank, shape);
    return dtype_is_float(type) ? graph_bitcast(g, graph_cast(g, wide, DT_U4), type) : graph_cast(g, wide, type);
}

static value add_param(struct importer *im, const struct datum *d, dtype type, uint32_t rank, const int64_t *shape)
{
    const struct stored *t = d->stored;
    struct param *p = PUSH(im->arena, &im->g->params);
    p->name = arena_strdup(im->arena, d->name ? d->name : t->name);
    p->dtype = type;
    p->rank = rank;
    p->shape = arena_copy(im->arena, shape, rank * sizeof *shape);
    p->file = t->file;
    p->offset = t->file == NO_FILE ? 0 : t->offset;
    p->length = t->length;
    if (t->file == NO_FILE)
        p->data = arena_copy(im->arena, t->bytes, (size_t)t->length);
    return graph_param(im->g, im->g->params.count - 1);
}

/* The bytes of packed elements as a param, which stay packed: [.., n / per byte] where rows fill bytes, else all of them in a row. */
static value add_packed(struct importer *im, struct datum *d)
{
    const struct stored *t = d->stored;
    int64_t per = 8 / (int64_t)dtype_bits(t->dtype), shape[MAX_RANK] = {(int64_t)t->length};
    bool rows = t->rank > 0 && t->rank < MAX_RANK && t->shape[t->rank - 1] % per == 0;
    if (!rows)
        return add_param(im, d, DT_U8, 1, shape);
    memcpy(shape, t->shape, t->rank * sizeof *shape);
    shape[t->rank - 1] /= per;
    d->packed = d->packed ? d->packed : add_param(im, d, DT_U8, t->rank, shape);
    return d->packed;
}

static value build_packed(struct importer *im, struct datum *d)
{
    const struct stored *t = d->stored;
    dim shape[MAX_RANK], count = dim_const(im->t, t->count), zero = dim_const(im->t, 0);
    value v = stored_unpack(im->g, add_packed(im, d), t->dtype);
    if (d->packed)
        return v;
    for (uint32_t k = 0; k < t->rank; k++)
        shape[k] = dim_const(im->t, t->shape[k]);
    v = graph_slice(im->g, v, &zero, &count, &(int32_t){1}); /* what fills the last byte is no element */
    return graph_reshape(im->g, v, t->rank, shape);
}

static bool is_param(const struct datum *d)
{
    const struct stored *t = d->stored;
    return t->count > CONSTANT_COUNT || !t->bytes || (d->weight && dtype_is_float(t->dtype) && t->count > 1);
}

value stored_build(struct importer *im, struct datum *d)
{
    const struct stored *t = d->stored;
    if (!is_param(d))
        return graph_constant(im->g, t->dtype, t->rank, t->shape, stored_elements(im->scratch, t));
    return dtype_bits(t->dtype) < 8 ? build_packed(im, d) : add_param(im, d, t->dtype, t->rank, t->shape);
}

value call_use_packed(struct call *c, uint32_t i)
{
    struct datum *d = call_in(c, i);
    if (!d->stored || d->node || dtype_bits(d->dtype) >= 8 || !is_param(d))
        return d->packed;
    (void)datum_use(c->im, c->in[i]);
    return d->packed;
}
