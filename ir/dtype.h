/* ir/dtype.h - element types. One row per type; sizes, names and the ONNX TensorProto.DataType number come from it.
 *
 * Section: dtype.c
 */
#ifndef TPC_IR_DTYPE_H
#define TPC_IR_DTYPE_H

#include "ir/base.h"

/*       enumerator  name    bytes class   onnx */
#define TPC_DTYPES(X)                                                                                                  \
    X(BOOL, "bool", 1, BOOL, 9)                                                                                        \
    X(I8, "i8", 1, INT, 3)                                                                                             \
    X(I16, "i16", 2, INT, 5)                                                                                           \
    X(I32, "i32", 4, INT, 6)                                                                                           \
    X(I64, "i64", 8, INT, 7)                                                                                           \
    X(U8, "u8", 1, UINT, 2)                                                                                            \
    X(U16, "u16", 2, UINT, 4)                                                                                          \
    X(U32, "u32", 4, UINT, 12)                                                                                         \
    X(U64, "u64", 8, UINT, 13)                                                                                         \
    X(F16, "f16", 2, FLOAT, 10)                                                                                        \
    X(BF16, "bf16", 2, FLOAT, 16)                                                                                      \
    X(F32, "f32", 4, FLOAT, 1)                                                                                         \
    X(F64, "f64", 8, FLOAT, 11)

typedef enum dtype {
    DT_NONE = 0,
#define X(id, name, bytes, class, onnx) DT_##id,
    TPC_DTYPES(X)
#undef X
        DT_COUNT
} dtype;

const char *dtype_name(dtype t);
size_t dtype_size(dtype t); /* bytes per element */
bool dtype_is_float(dtype t);
bool dtype_is_int(dtype t);                             /* signed or unsigned, not bool */
bool dtype_is_signed(dtype t);                          /* signed int or float */
dtype dtype_from_name(const char *name, size_t length); /* DT_NONE when unknown */
dtype dtype_from_onnx(int64_t onnx);                    /* DT_NONE when unknown */
int dtype_to_onnx(dtype t);

/* Conversions round to nearest even, keep NaN as quiet NaN, overflow to infinity (IEEE 754; bfloat16 is the high half of
 * binary32). */
float f16_to_f32(uint16_t h);
uint16_t f32_to_f16(float f);
float bf16_to_f32(uint16_t h);
uint16_t f32_to_bf16(float f);
uint16_t f64_to_f16(double d);  /* one rounding */
uint16_t f64_to_bf16(double d); /* one rounding */

/* Element i of an array of t as double (any type), or as int64 (integers and bool; u64 keeps its bits). */
double dtype_load_f64(dtype t, const void *base, size_t i);
/* Into an integer: truncates, saturates, NaN is 0 (as the op cast). Into bool: != 0. */
void dtype_store_f64(dtype t, void *base, size_t i, double x);
int64_t dtype_load_i64(dtype t, const void *base, size_t i);
void dtype_store_i64(dtype t, void *base, size_t i, int64_t x); /* wraps modulo 2^bits */

#endif
