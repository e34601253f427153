/* ir/dtype.h - element types. One row per type; sizes, names and the ONNX TensorProto.DataType number come from it.
 *
 * Section: dtype.c
 */
#ifndef TPC_IR_DTYPE_H
#define TPC_IR_DTYPE_H

#include "ir/base.h"

/* Bits are those of an element in a file, where elements below 8 bits lie packed, the first in the low bits; in memory and in Programs each
 * takes the bytes given, sign-extended where it is an integer.
 *       enumerator  name    bits bytes class   onnx */
#define TPC_DTYPES(X)                                                                                                  \
    X(BOOL, "bool", 8, 1, BOOL, 9)                                                                                     \
    X(I8, "i8", 8, 1, INT, 3)                                                                                          \
    X(I16, "i16", 16, 2, INT, 5)                                                                                       \
    X(I32, "i32", 32, 4, INT, 6)                                                                                       \
    X(I64, "i64", 64, 8, INT, 7)                                                                                       \
    X(U8, "u8", 8, 1, UINT, 2)                                                                                         \
    X(U16, "u16", 16, 2, UINT, 4)                                                                                      \
    X(U32, "u32", 32, 4, UINT, 12)                                                                                     \
    X(U64, "u64", 64, 8, UINT, 13)                                                                                     \
    X(F16, "f16", 16, 2, FLOAT, 10)                                                                                    \
    X(BF16, "bf16", 16, 2, FLOAT, 16)                                                                                  \
    X(F32, "f32", 32, 4, FLOAT, 1)                                                                                     \
    X(F64, "f64", 64, 8, FLOAT, 11)                                                                                    \
    X(F8E4M3FN, "f8e4m3fn", 8, 1, FLOAT, 17)                                                                           \
    X(F8E4M3FNUZ, "f8e4m3fnuz", 8, 1, FLOAT, 18)                                                                       \
    X(F8E5M2, "f8e5m2", 8, 1, FLOAT, 19)                                                                               \
    X(F8E5M2FNUZ, "f8e5m2fnuz", 8, 1, FLOAT, 20)                                                                       \
    X(F8E8M0, "f8e8m0", 8, 1, FLOAT, 24)                                                                               \
    X(F4E2M1, "f4e2m1", 4, 1, FLOAT, 23)                                                                               \
    X(U4, "u4", 4, 1, UINT, 21)                                                                                        \
    X(I4, "i4", 4, 1, INT, 22)                                                                                         \
    X(U2, "u2", 2, 1, UINT, 25)                                                                                        \
    X(I2, "i2", 2, 1, INT, 26)

/* The floats of at most 16 bits: exponent and fraction bits, exponent bias, and what beside finite numbers they have:
 *   IEEE  infinities and NaN
 *   FN    no infinities; all ones is NaN
 *   FNUZ  no infinities, no -0; what would be -0 is NaN
 *   ALL   numbers only: overflow gives the largest, NaN gives -0
 *   SCALE powers of two without a sign; all ones is NaN; 0 and negative numbers give the least */
#define TPC_NARROW_FLOATS(X)                                                                                           \
    X(F16, 5, 10, 15, IEEE)                                                                                            \
    X(BF16, 8, 7, 127, IEEE)                                                                                           \
    X(F8E4M3FN, 4, 3, 7, FN)                                                                                           \
    X(F8E4M3FNUZ, 4, 3, 8, FNUZ)                                                                                       \
    X(F8E5M2, 5, 2, 15, IEEE)                                                                                          \
    X(F8E5M2FNUZ, 5, 2, 16, FNUZ)                                                                                      \
    X(F8E8M0, 8, 0, 127, SCALE)                                                                                        \
    X(F4E2M1, 2, 1, 1, ALL)

typedef enum dtype {
    DT_NONE = 0,
#define X(id, name, bits, bytes, class, onnx) DT_##id,
    TPC_DTYPES(X)
#undef X
        DT_COUNT
} dtype;

const char *dtype_name(dtype t);
size_t dtype_size(dtype t);   /* bytes per element in memory */
uint32_t dtype_bits(dtype t); /* per element in a file */
/* Bytes of `count` elements in a file; false when that overflows. */
bool dtype_packed_size(dtype t, uint64_t count, uint64_t *bytes);
bool dtype_is_float(dtype t);
bool dtype_is_int(dtype t);    /* signed or unsigned, not bool */
bool dtype_is_signed(dtype t); /* signed int or float */
bool dtype_is_narrow(dtype t); /* a float of at most 16 bits: computed in f32 */
/* Bits from the sign on that are not always 0 in a float of the type, widened to f32 (f64: as it is). */
int dtype_significant_bits(dtype t);
bool dtype_is_stored(dtype t); /* a type that is kept, moved and converted, and never computed in */
dtype dtype_from_name(const char *name, size_t length); /* DT_NONE when unknown */
dtype dtype_from_onnx(int64_t onnx);                    /* DT_NONE when unknown */
int dtype_to_onnx(dtype t);
const char *dtype_missing_name(int64_t onnx); /* what ONNX calls a type that is none of ours */

/* Conversions round to nearest even, keep NaN as quiet NaN; overflow gives infinity, or NaN where there is none (IEEE 754; bfloat16 is the
 * high half of binary32; OCP 8-bit and microscaling formats). Bits of a narrow float: */
double narrow_to_f64(dtype t, uint32_t bits); /* exact */
uint32_t narrow_from_f64(dtype t, double d);  /* one rounding */
double narrow_largest(dtype t);               /* finite number */
double dtype_spacing(dtype t);                /* of floats: from 1 to the next larger number */
float f16_to_f32(uint16_t h);
uint16_t f32_to_f16(float f);
float bf16_to_f32(uint16_t h);
uint16_t f32_to_bf16(float f);
uint16_t f64_to_f16(double d);
uint16_t f64_to_bf16(double d);

/* Element i of an array of t as double (any type), or as int64 (integers and bool; u64 keeps its bits). */
double dtype_load_f64(dtype t, const void *base, size_t i);
/* Into an integer: truncates, saturates, NaN is 0 (as the op cast). Into bool: != 0. */
void dtype_store_f64(dtype t, void *base, size_t i, double x);
int64_t dtype_load_i64(dtype t, const void *base, size_t i);
void dtype_store_i64(dtype t, void *base, size_t i, int64_t x); /* wraps modulo 2^bits */
/* The bits of element i, without a sign; and an element from its bits. */
uint64_t dtype_load_bits(dtype t, const void *base, size_t i);
void dtype_store_bits(dtype t, void *base, size_t i, uint64_t bits);

/* From the elements of a file to those of memory and back; packed ones are unpacked, others copied. `file` may be unaligned. */
void dtype_unpack(dtype t, const void *file, size_t first, size_t count, void *to);
void dtype_pack(dtype t, const void *from, size_t count, void *file);

#endif
