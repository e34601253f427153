/* frontend/onnx/tensor_file.c - tensor files: one TensorProto each, as ONNX test folders have them (input_0.pb). */
#include "frontend/onnx/import.h"
#include "ir/output.h"

#include <stdlib.h>

status onnx_parse_tensor_pb(struct arena *arena, const char *where, const void *bytes, size_t length, struct diag *diag,
                            struct onnx_tensor *out)
{
    struct wire_bytes walked = {NULL, 0};
    struct stored t = {.name = ""};
    status s = wire_walk(arena, where, WIRE_TENSOR, bytes, length, diag, &walked);
    if (s != TPC_OK)
        return s;
    const Onnx__TensorProto *p = proto_unpack(arena, &onnx__tensor_proto__descriptor, &walked);
    if (!p)
        return diag_error(diag, TPC_DATA, where, "not a tensor file");
    if (p->data_location == ONNX__TENSOR_PROTO__DATA_LOCATION__EXTERNAL)
        return diag_error(diag, TPC_DATA, where, "a tensor file may not point to external data");
    s = tensor_decode(arena, diag, where, p, bytes, length, &t);
    if (s != TPC_OK)
        return s;
    out->name = arena_strdup(arena, t.name);
    out->dtype = t.dtype;
    out->rank = t.rank;
    out->shape = arena_copy(arena, t.shape, t.rank * sizeof *t.shape);
    out->size = (size_t)t.count * dtype_size(t.dtype);
    out->bytes = stored_elements(arena, &t);
    return TPC_OK;
}

status onnx_read_tensor_pb(struct arena *arena, const char *path, struct diag *diag, struct onnx_tensor *out)
{
    const uint8_t *bytes = NULL;
    size_t length = 0;
    struct arena *scratch = arena_new_in(arena);
    struct onnx_tensor t = {.name = ""};
    status s = file_map(scratch, diag, path, &bytes, &length);
    if (s == TPC_OK)
        s = onnx_parse_tensor_pb(arena, path, bytes, length, diag, &t);
    arena_free(scratch);
    if (s == TPC_OK)
        *out = t;
    return s;
}

/* ---- writing ------------------------------------------------------------------------------------------------ */

static void put_varint(FILE *to, uint64_t x)
{
    for (; x >= 0x80; x >>= 7)
        fputc((int)(x & 0x7f) | 0x80, to);
    fputc((int)x, to);
}

static void put_bytes(FILE *to, unsigned field, const void *bytes, size_t length)
{
    put_varint(to, (uint64_t)field << 3 | 2);
    put_varint(to, length);
    if (length)
        fwrite(bytes, 1, length, to);
}

static void put_tensor(FILE *to, const struct onnx_tensor *t, const void *bytes, size_t length)
{
    for (uint32_t k = 0; k < t->rank; k++) {
        put_varint(to, 1 << 3);
        put_varint(to, (uint64_t)t->shape[k]);
    }
    put_varint(to, 2 << 3);
    put_varint(to, (uint64_t)dtype_to_onnx(t->dtype));
    if (t->name && *t->name)
        put_bytes(to, 8, t->name, strlen(t->name));
    put_bytes(to, 9, bytes, length);
}

status onnx_write_tensor_pb(const char *path, const struct onnx_tensor *tensor, struct diag *diag)
{
    size_t size = dtype_size(tensor->dtype), count = tensor->size / size;
    struct output_file file;
    status s = output_open(path, diag, &file);
    if (s != TPC_OK)
        return s;
    bool packs = dtype_bits(tensor->dtype) < 8;
    uint64_t length = tensor->size;
    char *packed = packs && dtype_packed_size(tensor->dtype, count, &length) ? malloc((size_t)length + 1) : NULL;
    if (packed)
        dtype_pack(tensor->dtype, tensor->bytes, count, packed);
    put_tensor(file.to, tensor, packs ? packed : tensor->bytes, packs && !packed ? 0 : (size_t)length);
    bool good = !ferror(file.to) && (!packs || packed);
    free(packed);
    return output_close(&file, good, diag);
}
