/* codegen/prelude_c.c - the functions that printed C needs: a table of texts, of which a translation unit gets those that it uses.
 *
 * All of them are branch-free, so that loops with them vectorise, and they include no header, so that any compiler will do. Those of floats are
 * within 2.5 units in the last place for all 2^32 arguments (sin and cos: up to 1e12), infinities and (but for results of exp) denormals included; their
 * polynomials are minimax fits (Remez) over the reduced ranges. In the table, a function comes after those that it calls.
 */
#include "codegen/dialect.h"

static const char head[] =
    "#if defined(__GNUC__) && !defined(__clang__)\n"
    "#pragma GCC optimize(\"no-split-loops\") /* a loop cut where a causal mask turns is no longer one vector loop */\n"
    "#endif\n"
    "typedef __INT8_TYPE__ int8_t;\n"
    "typedef __INT16_TYPE__ int16_t;\n"
    "typedef __INT32_TYPE__ int32_t;\n"
    "typedef __INT64_TYPE__ int64_t;\n"
    "typedef __UINT8_TYPE__ uint8_t;\n"
    "typedef __UINT16_TYPE__ uint16_t;\n"
    "typedef __UINT32_TYPE__ uint32_t;\n"
    "typedef __UINT64_TYPE__ uint64_t;\n"
    "#define bool _Bool\n"
    "#define INT64_C(n) ((int64_t)n##LL)\n"
    "#define UINT64_C(n) ((uint64_t)n##ULL)\n"
    "#define INT64_MAX __INT64_MAX__\n"
    "#define UINT64_MAX (2 * (uint64_t)__INT64_MAX__ + 1)\n";

/* Float to integer: truncates, saturates, NaN is 0. */
#define TO_INT(to, c, from, f, low, high, least, most)                                                                 \
    {"tpc_" to "_of_" from,                                                                                            \
     "static inline " c " tpc_" to "_of_" from "(" f " x)\n"                                                           \
     "{\n"                                                                                                             \
     "    return x != x ? 0 : x <= " low " ? " least " : x >= " high " ? " most " : (" c ")x;\n"                       \
     "}\n"},
#define TO_INTS(from, f)                                                                                               \
    TO_INT("i8", "int8_t", from, f, "-0x1p7f", "0x1p7f", "-128", "127")                                                \
    TO_INT("i16", "int16_t", from, f, "-0x1p15f", "0x1p15f", "-32768", "32767")                                        \
    TO_INT("i32", "int32_t", from, f, "-0x1p31f", "0x1p31f", "-2147483647 - 1", "2147483647")                          \
    TO_INT("i64", "int64_t", from, f, "-0x1p63f", "0x1p63f", "-INT64_MAX - 1", "INT64_MAX")                            \
    TO_INT("u8", "uint8_t", from, f, "0", "0x1p8f", "0", "255")                                                        \
    TO_INT("u16", "uint16_t", from, f, "0", "0x1p16f", "0", "65535")                                                   \
    TO_INT("u32", "uint32_t", from, f, "0", "0x1p32f", "0", "4294967295u")                                             \
    TO_INT("u64", "uint64_t", from, f, "0", "0x1p64f", "0", "UINT64_MAX")                                              \
    TO_INT("u4", "uint8_t", from, f, "0", "0x1p4f", "0", "15")                                                         \
    TO_INT("i4", "int8_t", from, f, "-0x1p3f", "0x1p3f", "-8", "7")                                                    \
    TO_INT("u2", "uint8_t", from, f, "0", "0x1p2f", "0", "3")                                                          \
    TO_INT("i2", "int8_t", from, f, "-0x1p1f", "0x1p1f", "-2", "1")

/* Integers of few bits from the low bits of a byte. */
#define FEW_BITS(name, c, ones, sign)                                                                                  \
    {                                                                                                                  \
        "tpc_" name "_value", "static inline " c " tpc_" name "_value(uint8_t x) { return (" c ")(((x & " ones         \
                              ") ^ " sign ") - " sign "); }\n"                                                         \
    }

/* Floats of 8 bits and less, as ir/dtype.h has them. width: exponent and fraction bits. What is larger than `largest` is `over`. */
#define FEW_FLOAT(name, width, fraction, bias, largest, over, nan, infinity, no_zero)                                  \
    {"tpc_" name "_value", "static inline float tpc_" name "_value(uint8_t x) { return tpc_few_value(x, " width        \
                           ", " fraction ", " bias ", " largest ", " infinity ", " no_zero "); }\n"},                  \
    {                                                                                                                  \
        "tpc_" name "_bits", "static inline uint8_t tpc_" name "_bits(float x) { return tpc_few_bits(x, " width        \
                             ", " fraction ", " bias ", " largest ", " over ", " nan ", " no_zero "); }\n"             \
    }

const struct prelude_function prelude_functions_c[] = {
    {"tpc_fault", "/* The lowest fault wins; several threads may report. */\n"
                  "static void tpc_fault(int64_t *fault, int64_t code)\n"
                  "{\n"
                  "    int64_t seen = __atomic_load_n(fault, __ATOMIC_RELAXED);\n"
                  "    while ((seen == 0 || seen > code) && !__atomic_compare_exchange_n(fault, &seen, code, 0, "
                  "__ATOMIC_RELAXED, __ATOMIC_RELAXED))\n"
                  "        ;\n"
                  "}\n"},
    {"tpc_quotient", "static inline int64_t tpc_quotient(int64_t a, int64_t b) { return b == 0 ? 0 : a / b; }\n"},
    {"tpc_remainder", "static inline int64_t tpc_remainder(int64_t a, int64_t b) { return b == 0 ? 0 : a % b; }\n"},
    {"tpc_quotient_up", "static inline int64_t tpc_quotient_up(int64_t a, int64_t b)\n"
                        "{\n"
                        "    if (b == 0)\n"
                        "        return 0;\n"
                        "    return a / b + (a % b != 0 && (a % b < 0) == (b < 0));\n"
                        "}\n"},
    {"tpc_larger", "static inline int64_t tpc_larger(int64_t a, int64_t b) { return a > b ? a : b; }\n"},
    {"tpc_smaller", "static inline int64_t tpc_smaller(int64_t a, int64_t b) { return a < b ? a : b; }\n"},
    {"tpc_power_unsigned", "static inline uint64_t tpc_power_unsigned(uint64_t x, uint64_t n)\n"
                           "{\n"
                           "    uint64_t result = 1;\n"
                           "    for (; n; n >>= 1, x *= x)\n"
                           "        result *= n & 1 ? x : 1;\n"
                           "    return result;\n"
                           "}\n"},
    {"tpc_power_signed", "static inline int64_t tpc_power_signed(int64_t x, int64_t n)\n"
                         "{\n"
                         "    if (n < 0)\n"
                         "        return x == 1 ? 1 : x == -1 ? (n % 2 ? -1 : 1) : 0;\n"
                         "    return (int64_t)tpc_power_unsigned((uint64_t)x, (uint64_t)n);\n"
                         "}\n"},
    {"tpc_bits_of",
     "static inline uint32_t tpc_bits_of(float x) { uint32_t bits; __builtin_memcpy(&bits, &x, 4); return bits; }\n"},
    {"tpc_float_of",
     "static inline float tpc_float_of(uint32_t bits) { float x; __builtin_memcpy(&x, &bits, 4); return x; }\n"},
    {"tpc_odd",
     "/* Rounded to odd: a further rounding to fewer bits is then as if from x. */\n"
     "static inline float tpc_odd(double x)\n"
     "{\n"
     "    float near = (float)x;\n"
     "    uint32_t truncated = (tpc_bits_of(near) - (__builtin_fabs((double)near) > __builtin_fabs(x))) | 1u;\n"
     "    return (double)near == x || x != x ? near : tpc_float_of(truncated);\n"
     "}\n"},
    {"tpc_bf16_value", "static inline float tpc_bf16_value(uint16_t h) { return tpc_float_of((uint32_t)h << 16); }\n"},
    {"tpc_bf16_bits", "static inline uint16_t tpc_bf16_bits(float x)\n"
                      "{\n"
                      "    uint32_t bits = tpc_bits_of(x);\n"
                      "    uint32_t rounded = (bits + 0x7fffu + (bits >> 16 & 1u)) >> 16;\n"
                      "    return (uint16_t)(x != x ? bits >> 16 | 0x40u : rounded);\n"
                      "}\n"},
    {"tpc_f16_value", "static inline float tpc_f16_value(uint16_t h)\n"
                      "{\n"
                      "    uint32_t magnitude = (uint32_t)(h & 0x7fff) << 13, sign = (uint32_t)(h & 0x8000) << 16;\n"
                      "    uint32_t finite = tpc_bits_of(tpc_float_of(magnitude) * 0x1p112f); /* moves the exponent's "
                      "bias; exact for denormals too */\n"
                      "    return tpc_float_of((magnitude >= 0x0f800000u ? magnitude | 0x7f800000u : finite) | sign);\n"
                      "}\n"},
    {"tpc_f16_bits",
     "static inline uint16_t tpc_f16_bits(float x)\n"
     "{\n"
     "    uint32_t bits = tpc_bits_of(x), sign = bits >> 16 & 0x8000u, a = bits & 0x7fffffffu;\n"
     "    uint32_t normal = (a - 0x38000000u + 0xfffu + (a >> 13 & 1u)) >> 13;\n"
     "    uint32_t small = tpc_bits_of(tpc_float_of(a) + 0.5f) - 0x3f000000u; /* the addition rounds to denormals */\n"
     "    uint32_t other = a > 0x7f800000u ? 0x7e00u | (a >> 13 & 0x3ffu) : 0x7c00u;\n"
     "    uint32_t h = a < 0x38800000u ? small : normal;\n"
     "    return (uint16_t)((a >= 0x477ff000u ? other : h) | sign);\n"
     "}\n"},
    {"tpc_bits_of_double", "static inline uint64_t tpc_bits_of_double(double x)\n"
                           "{\n"
                           "    uint64_t bits;\n"
                           "    __builtin_memcpy(&bits, &x, 8);\n"
                           "    return bits;\n"
                           "}\n"},
    {"tpc_double_of", "static inline double tpc_double_of(uint64_t bits)\n"
                      "{\n"
                      "    double x;\n"
                      "    __builtin_memcpy(&x, &bits, 8);\n"
                      "    return x;\n"
                      "}\n"},
    FEW_BITS("u4", "uint8_t", "15", "0"),
    FEW_BITS("i4", "int8_t", "15", "8"),
    FEW_BITS("u2", "uint8_t", "3", "0"),
    FEW_BITS("i2", "int8_t", "3", "2"),
    {"tpc_few_value",
     "/* The multiplication moves the exponent's bias and is exact for denormals too. */\n"
     "static inline float tpc_few_value(uint32_t h, int width, int fraction, int bias, uint32_t largest, float "
     "infinity, bool no_zero)\n"
     "{\n"
     "    uint32_t sign = h >> width & 1u, magnitude = h & ((1u << width) - 1u);\n"
     "    float x = tpc_float_of(magnitude << (23 - fraction)) * tpc_float_of((uint32_t)(254 - bias) << 23);\n"
     "    x = magnitude > largest + 1u || (no_zero && magnitude == 0u && sign) ? __builtin_nanf(\"\") : x;\n"
     "    x = magnitude == largest + 1u ? infinity : x;\n"
     "    return tpc_float_of(tpc_bits_of(x) ^ sign << 31);\n"
     "}\n"},
    {"tpc_few_bits",
     "/* As tpc_f16_bits; `over` and `nan` have no sign but their own where there is no -0. */\n"
     "static inline uint8_t tpc_few_bits(float x, int width, int fraction, int bias, uint32_t largest, uint32_t over, "
     "uint32_t nan, bool no_zero)\n"
     "{\n"
     "    uint32_t bits = tpc_bits_of(x), sign = bits >> 31 << width, a = bits & 0x7fffffffu;\n"
     "    uint32_t half = (1u << (22 - fraction)) - 1u, magic = (uint32_t)(151 - bias - fraction) << 23;\n"
     "    uint32_t normal = (a - ((uint32_t)(127 - bias) << 23) + half + (a >> (23 - fraction) & 1u)) >> (23 - "
     "fraction);\n"
     "    uint32_t small = tpc_bits_of(tpc_float_of(a) + tpc_float_of(magic)) - magic; /* the addition rounds to "
     "denormals */\n"
     "    uint32_t h = a < (uint32_t)(128 - bias) << 23 ? small : normal;\n"
     "    bool bare = no_zero && (h == 0u || h > largest);\n"
     "    h = (h > largest ? over : h) | (bare ? 0u : sign);\n"
     "    return (uint8_t)(a > 0x7f800000u ? nan | sign : h);\n"
     "}\n"},
    FEW_FLOAT("f8e4m3fn", "7", "3", "7", "0x7e", "0x7f", "0x7f", "__builtin_nanf(\"\")", "0"),
    FEW_FLOAT("f8e4m3fnuz", "7", "3", "8", "0x7f", "0x80", "0x80", "0", "1"),
    FEW_FLOAT("f8e5m2", "7", "2", "15", "0x7b", "0x7c", "0x7e", "__builtin_inff()", "0"),
    FEW_FLOAT("f8e5m2fnuz", "7", "2", "16", "0x7f", "0x80", "0x80", "0", "1"),
    FEW_FLOAT("f4e2m1", "3", "1", "1", "0x7", "0x7", "0x8", "0", "0"),
    {"tpc_f8e8m0_value",
     "static inline float tpc_f8e8m0_value(uint8_t x)\n"
     "{\n"
     "    return x == 255 ? __builtin_nanf(\"\") : tpc_float_of(x ? (uint32_t)x << 23 : 0x400000u);\n"
     "}\n"},
    {"tpc_f8e8m0_bits", "static inline uint8_t tpc_f8e8m0_bits(float x)\n"
                        "{\n"
                        "    uint32_t a = tpc_bits_of(x) & 0x7fffffffu;\n"
                        "    uint32_t near = a >> 23 ? (a >> 23) + (a >> 22 & 1u) : a >= 0x600000u;\n"
                        "    return (uint8_t)(a >= 0x7f800000u ? 255u : x <= 0.0f ? 0u : near);\n"
                        "}\n"},
    {"tpc_exp_within",
     "/* For results that are normal numbers, or infinite. */\n"
     "static inline float tpc_exp_within(float x)\n"
     "{\n"
     "    float shifted = x * 1.44269504f + 12582912.0f; /* the integer n next to x/ln 2 is in its low bits */\n"
     "    float n = shifted - 12582912.0f;\n"
     "    float r = x - n * 0x1.62e4p-1f - n * 1.42860677e-06f;\n"
     "    float p = 0.00128711612f;\n"
     "    p = p * r + 0.00836412909f;\n"
     "    p = p * r + 0.0416855937f;\n"
     "    p = p * r + 0.166665655f;\n"
     "    p = p * r + 0.499999228f;\n"
     "    p = p * (r * r) + r + 1.0f;\n"
     "    int32_t k = (int32_t)(tpc_bits_of(shifted) - 0x4b400000u), half = k >> 1;\n"
     "    return p * tpc_float_of((uint32_t)(half + 127) << 23) * tpc_float_of((uint32_t)(k - half + 127) << 23);\n"
     "}\n"},
    {"tpc_exp", "/* Results below the normal numbers are 0: arithmetic on those is slow, and softmax makes many. */\n"
                "static inline float tpc_exp(float x)\n"
                "{\n"
                "    float y = x < -87.3f ? -87.3f : x;\n"
                "    y = tpc_exp_within(y > 89.0f ? 89.0f : y);\n"
                "    return x < -87.3f ? 0.0f : y;\n"
                "}\n"},
    {"tpc_expm1", "static inline float tpc_expm1(float x)\n"
                  "{\n"
                  "    float y = x < -25.0f ? -25.0f : x;\n"
                  "    y = y > 89.0f ? 89.0f : y;\n"
                  "    float shifted = y * 1.44269504f + 12582912.0f;\n"
                  "    float n = shifted - 12582912.0f;\n"
                  "    float r = y - n * 0x1.62e4p-1f - n * 1.42860677e-06f;\n"
                  "    float p = 0.000199089063f;\n"
                  "    p = p * r + 0.00139497829f;\n"
                  "    p = p * r + 0.0083332841f;\n"
                  "    p = p * r + 0.0416662234f;\n"
                  "    p = p * r + 0.166666668f;\n"
                  "    p = p * r + 0.5f;\n"
                  "    p = p * (r * r) + r;\n"
                  "    float half = tpc_float_of((tpc_bits_of(shifted) - 0x4b400000u + 126u) << 23);\n"
                  "    return 2.0f * (half * p + (half - 0.5f));\n"
                  "}\n"},
    {"tpc_log", "static inline float tpc_log(float x)\n"
                "{\n"
                "    bool tiny = x < 0x1p-126f;\n"
                "    uint32_t bits = tpc_bits_of(tiny ? x * 0x1p23f : x);\n"
                "    int32_t k = (int32_t)(bits - 0x3f3504f3u) >> 23;\n"
                "    float f = tpc_float_of(bits - ((uint32_t)k << 23)) - 1.0f;\n"
                "    float n = (float)k - (tiny ? 23.0f : 0.0f);\n"
                "    float p = -0.0783960493f;\n"
                "    p = p * f + 0.128682741f;\n"
                "    p = p * f - 0.131297454f;\n"
                "    p = p * f + 0.141830617f;\n"
                "    p = p * f - 0.166246475f;\n"
                "    p = p * f + 0.200022096f;\n"
                "    p = p * f - 0.250008063f;\n"
                "    p = p * f + 0.333333176f;\n"
                "    p = (p * f - 0.5f) * (f * f) + n * 1.42860677e-06f;\n"
                "    p = n * 0x1.62e4p-1f + (f + p);\n"
                "    p = x < __builtin_inff() ? p : x;\n"
                "    return x > 0.0f ? p : x == 0.0f ? -__builtin_inff() : __builtin_nanf(\"\");\n"
                "}\n"},
    {"tpc_log1p", "static inline float tpc_log1p(float x)\n"
                  "{\n"
                  "    float u = 1.0f + x, rest = x - (u - 1.0f);\n"
                  "    float p = tpc_log(u);\n"
                  "    return u > 0.0f && u < __builtin_inff() ? p + rest / u : p;\n"
                  "}\n"},
    {"tpc_tanh", "static inline float tpc_tanh(float x)\n"
                 "{\n"
                 "    float a = __builtin_fabsf(x);\n"
                 "    float e = tpc_expm1(2.0f * (a > 10.0f ? 10.0f : a));\n"
                 "    return __builtin_copysignf(e / (e + 2.0f), x);\n"
                 "}\n"},
    {"tpc_erf", "static inline float tpc_erf(float x)\n"
                "{\n"
                "    float a = __builtin_fabsf(x), s = x * x;\n"
                "    float near = 8.53679863e-05f;\n"
                "    near = near * s - 0.000818139084f;\n"
                "    near = near * s + 0.0052043818f;\n"
                "    near = near * s - 0.0268607265f;\n"
                "    near = near * s + 0.112837191f;\n"
                "    near = near * s - 0.376126352f;\n"
                "    near = near * s + 0.128379167f;\n"
                "    near = near * x + x;\n"
                "    float t = a > 4.0f ? 4.0f : a;\n"
                "    float far = -1.08424004e-05f; /* 1 - erf(t) = exp(t * far) */\n"
                "    far = far * t + 0.000318849046f;\n"
                "    far = far * t - 0.00362611175f;\n"
                "    far = far * t + 0.0237269002f;\n"
                "    far = far * t - 0.106195355f;\n"
                "    far = far * t - 0.635176849f;\n"
                "    far = far * t - 1.1286421f;\n"
                "    far = 1.0f - tpc_exp_within(far * t);\n"
                "    return a > 0.9f ? __builtin_copysignf(far, x) : near;\n"
                "}\n"},
    {"tpc_sine", "/* sin(x + quarter * pi/2); reduced in double, where n * (pi/2) has room. */\n"
                 "static inline float tpc_sine(float x, uint64_t quarter)\n"
                 "{\n"
                 "    double d = (double)x;\n"
                 "    double shifted = d * 0.63661977236758134 + 6755399441055744.0;\n"
                 "    double n = shifted - 6755399441055744.0;\n"
                 "    double r = d - n * 0x1.921fb544p+0 - n * 0x1.0b4611a6p-34 - n * 0x1.3198a2e037073p-69;\n"
                 "    uint64_t bits;\n"
                 "    __builtin_memcpy(&bits, &shifted, 8);\n"
                 "    uint32_t q = (uint32_t)(bits + quarter);\n"
                 "    float y = (float)r, s = y * y;\n"
                 "    float odd = -0.000195108393f;\n"
                 "    odd = odd * s + 0.0083321315f;\n"
                 "    odd = odd * s - 0.166666542f;\n"
                 "    odd = odd * (s * y) + y;\n"
                 "    float even = 2.44312051e-05f;\n"
                 "    even = even * s - 0.0013887306f;\n"
                 "    even = even * s + 0.0416666457f;\n"
                 "    even = even * (s * s) - 0.5f * s + 1.0f;\n"
                 "    uint32_t u = tpc_bits_of(q & 1u ? even : odd);\n"
                 "    return tpc_float_of(u ^ (q & 2u) << 30);\n"
                 "}\n"},
    {"tpc_sin", "static inline float tpc_sin(float x) { return tpc_sine(x, 0); }\n"},
    {"tpc_cos", "static inline float tpc_cos(float x) { return tpc_sine(x, 1); }\n"},
    TO_INTS("f32", "float") TO_INTS("f64", "double")};
#undef FEW_FLOAT
#undef FEW_BITS
#undef TO_INT
#undef TO_INTS
enum { FUNCTIONS = sizeof prelude_functions_c / sizeof prelude_functions_c[0] };
const uint32_t prelude_function_count_c = FUNCTIONS;

/* Is `name` called in text? */
static bool calls(const char *text, const char *name)
{
    size_t length = strlen(name);
    for (const char *at = strstr(text, name); at; at = strstr(at + length, name))
        if (at[length] == '(')
            return true;
    return false;
}

void prelude_find(const struct prelude_function *table, uint32_t count, const char *body, bool *used)
{
    for (size_t i = count; i-- > 0;) {
        used[i] = calls(body, table[i].name);
        for (size_t k = i + 1; k < count && !used[i]; k++)
            used[i] = used[k] && calls(table[k].text, table[i].name);
    }
}

void prelude_c(struct text *out, const char *body)
{
    bool used[FUNCTIONS] = {false};
    prelude_find(prelude_functions_c, FUNCTIONS, body, used);
    text_put(out, head);
    for (size_t i = 0; i < FUNCTIONS; i++)
        if (used[i])
            text_put(out, prelude_functions_c[i].text);
}
