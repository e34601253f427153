/* ir/dtype.c - the table of element types, conversions of the narrow floats, and element access.
 *
 * Narrowing goes from the binary64 bits in one rounding: a binary32 value widens to binary64 exactly, so both sources share it.
 */
#include "ir/dtype.h"

#include <assert.h>
#include <math.h>

enum dtype_class { CLASS_NONE, CLASS_BOOL, CLASS_INT, CLASS_UINT, CLASS_FLOAT };

static const struct {
    const char *name;
    uint32_t bits;
    size_t bytes;
    enum dtype_class class;
    int onnx;
} rows[DT_COUNT] = {[DT_NONE] = {"none", 0, 0, CLASS_NONE, 0},
#define X(id, name, bits, bytes, class, onnx) [DT_##id] = {name, bits, bytes, CLASS_##class, onnx},
                    TPC_DTYPES(X)
#undef X
};

enum extras { IEEE = 1, FN, FNUZ, ALL, SCALE };

static const struct narrow {
    int exponent, fraction, bias;
    enum extras extras;
} narrows[DT_COUNT] = {
#define X(id, exponent, fraction, bias, extras) [DT_##id] = {exponent, fraction, bias, extras},
    TPC_NARROW_FLOATS(X)
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
uint32_t dtype_bits(dtype t)
{
    return rows[t].bits;
}
bool dtype_packed_size(dtype t, uint64_t count, uint64_t *bytes)
{
    if (count > (UINT64_MAX - 7) / rows[t].bits)
        return false;
    *bytes = (count * rows[t].bits + 7) / 8;
    return true;
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
bool dtype_is_narrow(dtype t)
{
    return narrows[t].extras != 0;
}
int dtype_significant_bits(dtype t)
{
    return t == DT_F64 ? 64 : t == DT_F16 ? 19 : t == DT_BF16 ? 16 : 32;
}
bool dtype_is_stored(dtype t)
{
    return rows[t].bits < 8 || (rows[t].bits == 8 && rows[t].class == CLASS_FLOAT);
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

const char *dtype_missing_name(int64_t onnx)
{
    return onnx == 8 ? "strings" : onnx == 14 || onnx == 15 ? "complex numbers" : "unknown";
}

/* ---- narrow floats ---- */

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

/* The largest finite number's bits, and those of what overflows and of NaN (without a sign). */
static uint32_t largest_bits(const struct narrow *n)
{
    uint32_t ones = (1u << (n->exponent + n->fraction)) - 1;
    return n->extras == IEEE ? ones - (1u << n->fraction) : n->extras == FN || n->extras == SCALE ? ones - 1 : ones;
}
static uint32_t overflow_bits(const struct narrow *n)
{
    return n->extras == FNUZ ? 1u << (n->exponent + n->fraction) : largest_bits(n) + (n->extras != ALL);
}

static uint32_t nan_bits(const struct narrow *n, uint32_t sign, uint64_t mantissa)
{
    if (n->extras == FNUZ || n->extras == ALL) /* the sign alone */
        return 1u << (n->exponent + n->fraction);
    if (n->extras != IEEE)
        return sign | overflow_bits(n);
    uint32_t quiet = sign | overflow_bits(n) | 1u << (n->fraction - 1); /* 16 bits keep the high payload too */
    return n->fraction < 7 ? quiet : quiet | (uint32_t)(mantissa >> (52 - n->fraction));
}

/* To the nearer power of two; halfway to the larger. */
static uint32_t scale_from_f64(double d)
{
    int e = 0;
    if (isnan(d) || isinf(d))
        return 255;
    if (d <= 0)
        return 0;
    double m = frexp(d, &e);
    int code = e - 1 + 127 + (m >= 0.75);
    return code < 0 ? 0 : code > 254 ? 255 : (uint32_t)code;
}

uint32_t narrow_from_f64(dtype t, double d)
{
    const struct narrow *n = &narrows[t];
    if (n->extras == SCALE)
        return scale_from_f64(d);
    uint64_t bits = bits_of_f64(d), mantissa = bits & ((UINT64_C(1) << 52) - 1);
    uint32_t sign = (uint32_t)(bits >> 63) << (n->exponent + n->fraction), zero = n->extras == FNUZ ? 0 : sign;
    int e = (int)(bits >> 52 & 0x7ff);
    if (e == 0x7ff)
        return mantissa ? nan_bits(n, sign, mantissa) : n->extras == FNUZ ? overflow_bits(n) : sign | overflow_bits(n);
    if (e == 0) /* a binary64 subnormal is below half of any subnormal here */
        return zero;
    int target = e - 1023 + n->bias;
    mantissa |= UINT64_C(1) << 52;
    int drop = 52 - n->fraction + (target < 1 ? 1 - target : 0);
    if (drop > 54)
        return zero;
    uint64_t kept = mantissa >> drop, rest = mantissa & ((UINT64_C(1) << drop) - 1), half = UINT64_C(1) << (drop - 1);
    kept += rest > half || (rest == half && (kept & 1));
    if (target > 0) /* the hidden bit adds one to the exponent; a carry out of the fraction one more */
        kept += (uint64_t)(target - 1) << n->fraction;
    if (kept > largest_bits(n))
        return n->extras == FNUZ ? overflow_bits(n) : sign | overflow_bits(n);
    return kept == 0 ? zero : sign | (uint32_t)kept;
}

double narrow_to_f64(dtype t, uint32_t bits)
{
    const struct narrow *n = &narrows[t];
    uint32_t top = 1u << (n->exponent + n->fraction), magnitude = bits & (top - 1);
    double sign = bits & top ? -1 : 1;
    if (n->extras == SCALE)
        return bits == 255 ? (double)NAN : ldexp(1, (int)bits - 127);
    if (n->extras == FNUZ && bits == top)
        return (double)NAN;
    if (magnitude > largest_bits(n))
        return n->extras == IEEE && magnitude == overflow_bits(n) ? sign * (double)INFINITY
                                                                  : copysign((double)NAN, sign);
    int e = (int)(magnitude >> n->fraction);
    double fraction = (double)(magnitude & ((1u << n->fraction) - 1)) + (e ? (double)(1u << n->fraction) : 0);
    return sign * ldexp(fraction, (e ? e : 1) - n->bias - n->fraction);
}

double narrow_largest(dtype t)
{
    return narrow_to_f64(t, largest_bits(&narrows[t]));
}
double dtype_spacing(dtype t)
{
    return t == DT_F64 ? 0x1p-52 : t == DT_F32 ? 0x1p-23 : ldexp(1, -narrows[t].fraction);
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
uint16_t f64_to_f16(double d)
{
    return (uint16_t)narrow_from_f64(DT_F16, d);
}
uint16_t f64_to_bf16(double d)
{
    return (uint16_t)narrow_from_f64(DT_BF16, d);
}
uint16_t f32_to_f16(float f)
{
    return f64_to_f16((double)f);
}
uint16_t f32_to_bf16(float f)
{
    return f64_to_bf16((double)f);
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
    case DT_U4:
    case DT_U2:
        LOAD(uint8_t);
    case DT_I8:
    case DT_I4:
    case DT_I2:
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
    case DT_F8E4M3FN:
    case DT_F8E4M3FNUZ:
    case DT_F8E5M2:
    case DT_F8E5M2FNUZ:
    case DT_F8E8M0:
    case DT_F4E2M1:
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
    case DT_F8E4M3FN:
    case DT_F8E4M3FNUZ:
    case DT_F8E5M2:
    case DT_F8E5M2FNUZ:
    case DT_F8E8M0:
    case DT_F4E2M1:
        return narrow_to_f64(t, ((const uint8_t *)base)[i]);
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
    case DT_U4:
    case DT_I4:
    case DT_U2:
    case DT_I2:
        return (double)dtype_load_i64(t, base, i);
    case DT_NONE:
    case DT_COUNT:
        break;
    }
    assert(false && "no type");
    return 0;
}

/* The low bits of x, as a number of type t: with its sign above them. */
static uint64_t wrapped(dtype t, uint64_t x)
{
    uint64_t ones = (UINT64_C(1) << rows[t].bits) - 1,
             sign = dtype_is_signed(t) ? UINT64_C(1) << (rows[t].bits - 1) : 0;
    return ((x & ones) ^ sign) - sign;
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
    case DT_U4:
    case DT_I4:
    case DT_U2:
    case DT_I2:
        STORE(uint8_t, wrapped(t, bits) & 0xff);
    case DT_F8E4M3FN:
    case DT_F8E4M3FNUZ:
    case DT_F8E5M2:
    case DT_F8E5M2FNUZ:
    case DT_F8E8M0:
    case DT_F4E2M1:
        STORE(uint8_t, narrow_from_f64(t, (double)x));
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
    int bits = (int)rows[t].bits;
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
    case DT_F8E4M3FN:
    case DT_F8E4M3FNUZ:
    case DT_F8E5M2:
    case DT_F8E5M2FNUZ:
    case DT_F8E8M0:
    case DT_F4E2M1:
        STORE(uint8_t, narrow_from_f64(t, x));
    case DT_I8:
    case DT_I16:
    case DT_I32:
    case DT_I64:
    case DT_I4:
    case DT_I2:
        dtype_store_i64(t, base, i, saturate(x, bits == 64 ? INT64_MIN : -(INT64_C(1) << (bits - 1)), bits - 1));
        return;
    case DT_U8:
    case DT_U16:
    case DT_U32:
    case DT_U64:
    case DT_U4:
    case DT_U2:
        dtype_store_i64(t, base, i, saturate(x, 0, bits));
        return;
    case DT_NONE:
    case DT_COUNT:
        break;
    }
    assert(false && "no type");
}

uint64_t dtype_load_bits(dtype t, const void *base, size_t i)
{
    uint64_t bits = 0;
    size_t size = rows[t].bytes;
    memcpy(&bits, (const char *)base + i * size, size); /* little endian */
    return rows[t].bits < 8 ? bits & ((UINT64_C(1) << rows[t].bits) - 1) : bits;
}

void dtype_store_bits(dtype t, void *base, size_t i, uint64_t bits)
{
    size_t size = rows[t].bytes;
    uint64_t x = t == DT_BOOL ? bits != 0 : rows[t].bits < 8 && dtype_is_int(t) ? wrapped(t, bits) : bits;
    memcpy((char *)base + i * size, &x, size);
}

void dtype_unpack(dtype t, const void *file, size_t first, size_t count, void *to)
{
    size_t bits = rows[t].bits, size = rows[t].bytes;
    if (bits >= 8 && count > 0)
        memcpy(to, (const char *)file + first * size, count * size);
    for (size_t i = 0; i < count && bits < 8; i++) {
        size_t at = (first + i) * bits;
        uint64_t byte = ((const uint8_t *)file)[at / 8];
        dtype_store_bits(t, to, i, byte >> (at % 8) & ((UINT64_C(1) << bits) - 1));
    }
}

void dtype_pack(dtype t, const void *from, size_t count, void *file)
{
    size_t bits = rows[t].bits, size = rows[t].bytes;
    if (bits >= 8 && count > 0)
        memcpy(file, from, count * size);
    for (size_t i = 0; i < count && bits < 8; i++) {
        uint8_t *byte = (uint8_t *)file + i * bits / 8, x = (uint8_t)(dtype_load_bits(t, from, i) << (i * bits % 8));
        *byte = i * bits % 8 ? (uint8_t)(*byte | x) : x;
    }
}
