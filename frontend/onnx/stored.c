/* frontend/onnx/stored.c - stored tensors: initializers and constants, and what the Graph makes of them.
 *
 * Weights become params that say where their bytes lie; they are not read. Small constants become `constant` nodes; integers whose
 * values may decide a shape become content. Start reading at stored_read.
 */
#include "frontend/onnx/import.h"

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
        return diag_error(diag, p->data_type > 0 && p->data_type <= ONNX_TYPES ? TPC_UNSUPPORTED : TPC_DATA, where,
                          "tensor '%s' has element type %d, which %s", out->name, p->data_type,
                          p->data_type > 0 && p->data_type <= ONNX_TYPES ? "tpc does not have"
                                                                         : "ONNX does not define");
    if (p->n_dims > MAX_RANK)
        return diag_error(diag, TPC_UNSUPPORTED, where, "tensor '%s' has %zu axes (limit is %d)", out->name, p->n_dims,
                          MAX_RANK);
    out->rank = (uint32_t)p->n_dims;
    for (uint32_t k = 0; k < out->rank; k++) {
        out->shape[k] = p->dims[k];
        if (p->dims[k] < 0 || !i64_mul(out->count, p->dims[k], &out->count))
            return diag_error(diag, TPC_DATA, where, "tensor '%s' has an impossible shape", out->name);
    }
    if (!size_mul((size_t)out->count, dtype_size(out->dtype), &bytes) || bytes > INT64_MAX)
        return diag_error(diag, TPC_DATA, where, "tensor '%s' has an impossible shape", out->name);
    out->length = bytes;
    return TPC_OK;
}

static status wrong_count(struct diag *diag, const char *where, const struct stored *t, uint64_t is)
{
    return diag_error(diag, TPC_DATA, where, "tensor '%s' stores %llu elements or bytes, its shape needs %lld elements",
                      t->name, (unsigned long long)is, (long long)t->count);
}

/* The typed fields: which one holds elements of a type, and how many it has. */
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
    if (count != (size_t)out->count)
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
    t->length = (uint64_t)t->count * dtype_size(type);
    t->bytes = t->length ? arena_copy(im->scratch, bytes, (size_t)t->length) : (const uint8_t *)"";
    return t;
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
    size_t size = dtype_size(t->dtype);
    memcpy(&aligned, t->bytes + (size_t)i * size, size);
    return dtype_load_i64(t->dtype, &aligned, 0);
}

static double element_f64(const struct stored *t, int64_t i)
{
    uint64_t aligned = 0;
    size_t size = dtype_size(t->dtype);
    memcpy(&aligned, t->bytes + (size_t)i * size, size);
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
    if (!t->bytes)
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

value stored_build(struct importer *im, const struct datum *d)
{
    const struct stored *t = d->stored;
    bool as_param = t->count > CONSTANT_COUNT || !t->bytes || (d->weight && dtype_is_float(t->dtype) && t->count > 1);
    if (!as_param)
        return graph_constant(im->g, t->dtype, t->rank, t->shape, t->bytes);
    struct param *p = PUSH(im->arena, &im->g->params);
    p->name = arena_strdup(im->arena, d->name ? d->name : t->name);
    p->dtype = t->dtype;
    p->rank = t->rank;
    p->shape = arena_copy(im->arena, t->shape, t->rank * sizeof *t->shape);
    p->file = t->file;
    p->offset = t->file == NO_FILE ? 0 : t->offset;
    p->length = t->length;
    if (t->file == NO_FILE)
        p->data = arena_copy(im->arena, t->bytes, (size_t)t->length);
    return graph_param(im->g, im->g->params.count - 1);
}
