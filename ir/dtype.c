/* ir/dtype.c - the table of element types, conversions of the 16-bit floats, and element access.
 *
 * Narrowing goes from the binary64 bits in one rounding: a binary32 value widens to binary64 exactly, so both sources share it.
 */
#include "ir/dtype.h"

#include <assert.h>
#include <math.h>

enum dtype_class { CLASS_NONE, CLASS_BOOL, CLASS_INT, CLASS_UINT, CLASS_FLOAT };

static const struct {
    const char *name;
    size_t bytes;
    enum dtype_class class;
    int onnx;
} rows[DT_COUNT] = {[DT_NONE] = {"none", 0, CLASS_NONE, 0},
#define X(id, name, bytes, class, onnx) [DT_##id] = {name, bytes, CLASS_##class, onnx},
                    TPC_DTYPES(X)
#undef X
};

const char *dtype_name(dtype t)
{
    return rows[t].name;
}
size_t dtype_size(dtype t)
{
    return rows[t].bytes;
}
bool dtype_is_float(dtype t)
{
    return rows[t].class == CLASS_FLOAT;
}
bool dtype_is_int(dtype t)
{
    return rows[t].class == CLASS_INT || rows[t].class == CLASS_UINT;
}
bool dtype_is_signed(dtype t)
{
    return rows[t].class == CLASS_INT || rows[t].class == CLASS_FLOAT;
}
int dtype_to_onnx(dtype t)
{
    return rows[t].onnx;
}

dtype dtype_from_name(const char *name, size_t length)
{
    for (int t = DT_NONE + 1; t < DT_COUNT; t++)
        if (strlen(rows[t].name) == length && memcmp(rows[t].name, name, length) == 0)
            return (dtype)t;
    return DT_NONE;
}

dtype dtype_from_onnx(int64_t onnx)
{
    for (int t = DT_NONE + 1; t < DT_COUNT; t++)
        if (rows[t].onnx == onnx)
            return (dtype)t;
    return DT_NONE;
}

/* ---- 16-bit floats ---- */

static uint64_t bits_of_f64(double d)
{
    uint64_t bits;
    memcpy(&bits, &d, sizeof bits);
    return bits;
}
static float f32_of_bits(uint32_t bits)
{
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

/* Rounds to a binary format with 1 sign bit, `exponent` exponent bits and 15 - exponent fraction bits. */
static uint16_t narrow(double d, int exponent)
{
    int fraction = 15 - exponent, bias = (1 << (exponent - 1)) - 1;
    uint64_t bits = bits_of_f64(d), mantissa = bits & ((UINT64_C(1) << 52) - 1);
    uint16_t sign = (uint16_t)(bits >> 48 & 0x8000);
    int e = (int)(bits >> 52 & 0x7ff);
    uint16_t infinity = (uint16_t)(((1u << exponent) - 1) << fraction);
    if (e == 0x7ff && mantissa) /* NaN: keep the high payload, set the quiet bit */
        return (uint16_t)(sign | infinity | 1u << (fraction - 1) | mantissa >> (52 - fraction));
    if (e == 0x7ff)
        return (uint16_t)(sign | infinity);
    if (e == 0) /* a binary64 subnormal is below half of any subnormal here */
        return sign;
    int target = e - 1023 + bias;
    mantissa |= UINT64_C(1) << 52;
    int drop = 52 - fraction + (target < 1 ? 1 - target : 0);
    if (drop > 54)
        return sign;
    uint64_t kept = mantissa >> drop, rest = mantissa & ((UINT64_C(1) << drop) - 1), half = UINT64_C(1) << (drop - 1);
    kept += rest > half || (rest == half && (kept & 1));
    if (target > 0) /* the hidden bit adds one to the exponent; a carry out of the fraction one more */
        kept += (uint64_t)(target - 1) << fraction;
    return (uint16_t)(sign | (kept >= infinity ? infinity : (uint16_t)kept));
}

float f16_to_f32(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000) << 16, e = h >> 10 & 0x1f, fraction = h & 0x3ff;
    if (e == 0x1f)
        return f32_of_bits(sign | 0x7f800000 | fraction << 13 | (fraction ? 0x400000u : 0u));
    if (e)
        return f32_of_bits(sign | (e + 112) << 23 | fraction << 13);
    float magnitude = (float)fraction * 0x1p-24f;
    return sign ? -magnitude : magnitude;
}
float bf16_to_f32(uint16_t h)
{
    bool nan = (h & 0x7fff) > 0x7f80;
    return f32_of_bits((uint32_t)h << 16 | (nan ? 0x400000u : 0u));
}
uint16_t f32_to_f16(float f)
{
    return narrow((double)f, 5);
}
uint16_t f32_to_bf16(float f)
{
    return narrow((double)f, 8);
}
uint16_t f64_to_f16(double d)
{
    return narrow(d, 5);
}
uint16_t f64_to_bf16(double d)
{
    return narrow(d, 8);
}

/* ---- elements ---- */

#define LOAD(type)                                                                                                     \
    do {                                                                                                               \
        type x_;                                                                                                       \
        memcpy(&x_, (const char *)base + i * sizeof x_, sizeof x_);                                                    \
        return x_;                                                                                                     \
    } while (0)
#define STORE(type, value)                                                                                             \
    do {                                                                                                               \
        type x_ = (type)(value);                                                                                       \
        memcpy((char *)base + i * sizeof x_, &x_, sizeof x_);                                                          \
        return;                                                                                                        \
    } while (0)

static uint16_t load_u16(const void *base, size_t i)
{
    LOAD(uint16_t);
}
static float load_f32(const void *base, size_t i)
{
    LOAD(float);
}
static double load_f64(const void *base, size_t i)
{
    LOAD(double);
}
static uint64_t load_u64(const void *base, size_t i)
{
    LOAD(uint64_t);
}

int64_t dtype_load_i64(dtype t, const void *base, size_t i)
{
    switch (t) {
    case DT_BOOL:
        return ((const uint8_t *)base)[i] != 0;
    case DT_U8:
        LOAD(uint8_t);
    case DT_I8:
        LOAD(int8_t);
    case DT_I16:
        LOAD(int16_t);
    case DT_U16:
        LOAD(uint16_t);
    case DT_I32:
        LOAD(int32_t);
    case DT_U32:
        LOAD(uint32_t);
    case DT_I64:
        LOAD(int64_t);
    case DT_U64:
        return (int64_t)load_u64(base, i);
    case DT_F16:
    case DT_BF16:
    case DT_F32:
    case DT_F64:
    case DT_NONE:
    case DT_COUNT:
        break;
    }
    assert(false && "not an integer type");
    return 0;
}

double dtype_load_f64(dtype t, const void *base, size_t i)
{
    switch (t) {
    case DT_F16:
        return (double)f16_to_f32(load_u16(base, i));
    case DT_BF16:
        return (double)bf16_to_f32(load_u16(base, i));
    case DT_F32:
        return (double)load_f32(base, i);
    case DT_F64:
        return load_f64(base, i);
    case DT_U64:
        return (double)load_u64(base, i);
    case DT_BOOL:
    case DT_I8:
    case DT_I16:
    case DT_I32:
    case DT_I64:
    case DT_U8:
    case DT_U16:
    case DT_U32:
        return (double)dtype_load_i64(t, base, i);
    case DT_NONE:
    case DT_COUNT:
        break;
    }
    assert(false && "no type");
    return 0;
}

void dtype_store_i64(dtype t, void *base, size_t i, int64_t x)
{
    uint64_t bits = (uint64_t)x;
    switch (t) {
    case DT_BOOL:
        STORE(uint8_t, x != 0);
    case DT_I8:
    case DT_U8:
        STORE(uint8_t, bits & 0xff);
    case DT_I16:
    case DT_U16:
        STORE(uint16_t, bits & 0xffff);
    case DT_I32:
    case DT_U32:
        STORE(uint32_t, bits & 0xffffffff);
    case DT_I64:
    case DT_U64:
        STORE(uint64_t, bits);
    case DT_F16:
        STORE(uint16_t, f64_to_f16((double)x));
    case DT_BF16:
        STORE(uint16_t, f64_to_bf16((double)x));
    case DT_F32:
        STORE(float, x);
    case DT_F64:
        STORE(double, x);
    case DT_NONE:
    case DT_COUNT:
        break;
    }
    assert(false && "no type");
}

/* Truncates; saturates to [low, 2^top); NaN is 0. */
static int64_t saturate(double x, int64_t low, int top)
{
    if (isnan(x))
        return 0;
    if (x <= (double)low)
        return low;
    if (x >= ldexp(1.0, top))
        return top == 64 ? -1 : (int64_t)((UINT64_C(1) << top) - 1);
    return top == 64 ? (int64_t)(uint64_t)x : (int64_t)x;
}

void dtype_store_f64(dtype t, void *base, size_t i, double x)
{
    int bits = (int)(8 * dtype_size(t));
    switch (t) {
    case DT_F16:
        STORE(uint16_t, f64_to_f16(x));
    case DT_BF16:
        STORE(uint16_t, f64_to_bf16(x));
    case DT_F32:
        STORE(float, x);
    case DT_F64:
        STORE(double, x);
    case DT_BOOL:
        STORE(uint8_t, x != 0);
    case DT_I8:
    case DT_I16:
    case DT_I32:
    case DT_I64:
        dtype_store_i64(t, base, i, saturate(x, bits == 64 ? INT64_MIN : -(INT64_C(1) << (bits - 1)), bits - 1));
        return;
    case DT_U8:
    case DT_U16:
    case DT_U32:
    case DT_U64:
        dtype_store_i64(t, base, i, saturate(x, 0, bits));
        return;
    case DT_NONE:
    case DT_COUNT:
        break;
    }
    assert(false && "no type");
}
