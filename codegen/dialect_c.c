/* codegen/dialect_c.c - host C: how types, numbers and operations are spelled. Operations of ops.def are rows of a table. 16-bit floats are f32
 * between load and store, those of less too. The function around them is in function_c.c. Other dialects with C's expressions share all of it (spell_*);
 * what differs are
 * the names of mathematical functions and of the numbers that have no digits.
 */
#include "codegen/dialect.h"

#include <math.h>

/* ---- operations ---- */

/* $0 $1 $2 operands, $T type of the result, $U its unsigned type with at least 32 bits, $W its width in bits, $F(name) the mathematical function
 * `name` of the result's type. NULL: the column does not occur in Graphs; integers then pass unchanged, as in the reference interpreter. */
struct spelling {
    op op;
    const char *f32, *f64, *sint, *uint, *boolean;
};

#define SAME(id, text)                                                                                                 \
    {                                                                                                                  \
        OP_##id, text, text, text, text, text                                                                          \
    }
#define MATH(id, name)                                                                                                 \
    {                                                                                                                  \
        OP_##id, "$F(" name ")($0)", "$F(" name ")($0)", "$0", "$0", "$0"                                              \
    }
#define BITS(id, sign)                                                                                                 \
    {                                                                                                                  \
        OP_##id, NULL, NULL, "($T)($0 " sign " $1)", "($T)($0 " sign " $1)", "$0 " sign " $1"                          \
    }

static const struct spelling spellings[] = {
    {OP_NEG, "-$0", "-$0", "($T)(0 - ($U)$0)", "($T)(0 - ($U)$0)", "$0"},
    {OP_ABS, "$F(fabs)($0)", "$F(fabs)($0)", "$0 < 0 ? ($T)(0 - ($U)$0) : $0", "$0", "$0"},
    {OP_SIGN, "$0 != $0 ? $0 : (float)(($0 > 0) - ($0 < 0))", "$0 != $0 ? $0 : (double)(($0 > 0) - ($0 < 0))",
     "($T)(($0 > 0) - ($0 < 0))", "($T)($0 > 0)", "$0"},
    MATH(EXP, "exp"),
    MATH(LOG, "log"),
    MATH(LOG1P, "log1p"),
    MATH(EXPM1, "expm1"),
    MATH(SQRT, "sqrt"),
    {OP_RECIP, "1.0f / $0", "1.0 / $0", "$0", "$0", "$0"},
    MATH(SIN, "sin"),
    MATH(COS, "cos"),
    MATH(TAN, "tan"),
    MATH(ASIN, "asin"),
    MATH(ACOS, "acos"),
    MATH(ATAN, "atan"),
    MATH(SINH, "sinh"),
    MATH(COSH, "cosh"),
    MATH(ASINH, "asinh"),
    MATH(ACOSH, "acosh"),
    MATH(ATANH, "atanh"),
    MATH(ERF, "erf"),
    MATH(TANH, "tanh"),
    MATH(FLOOR, "floor"),
    MATH(CEIL, "ceil"),
    MATH(ROUND, "rint"),
    {OP_NOT, NULL, NULL, "($T)~$0", "($T)~$0", "!$0"},
    {OP_ISNAN, "$0 != $0", "$0 != $0", "0", "0", "0"},
    {OP_ADD, "$0 + $1", "$0 + $1", "($T)(($U)$0 + ($U)$1)", "($T)(($U)$0 + ($U)$1)", "$0 | $1"},
    {OP_SUB, "$0 - $1", "$0 - $1", "($T)(($U)$0 - ($U)$1)", "($T)(($U)$0 - ($U)$1)", "$0 ^ $1"},
    {OP_MUL, "$0 * $1", "$0 * $1", "($T)(($U)$0 * ($U)$1)", "($T)(($U)$0 * ($U)$1)", "$0 & $1"},
    {OP_DIV, "$0 / $1", "$0 / $1", "$1 == 0 ? 0 : $1 == -1 ? ($T)(0 - ($U)$0) : ($T)($0 / $1)",
     "$1 == 0 ? 0 : ($T)($0 / $1)", "$0 & $1"},
    {OP_POW, "$F(pow)($0, $1)", "$F(pow)($0, $1)", "($T)tpc_power_signed($0, $1)", "($T)tpc_power_unsigned($0, $1)",
     "$0 | !$1"},
    {OP_MOD, "$F(fmod)($0, $1)", "$F(fmod)($0, $1)", "$1 == 0 || $1 == -1 ? 0 : ($T)($0 % $1)",
     "$1 == 0 ? 0 : ($T)($0 % $1)", "0"},
    {OP_MAX, "$0 > $1 || $0 != $0 ? $0 : $1", "$0 > $1 || $0 != $0 ? $0 : $1", "$0 > $1 ? $0 : $1", "$0 > $1 ? $0 : $1",
     "$0 | $1"},
    {OP_MIN, "$0 < $1 || $0 != $0 ? $0 : $1", "$0 < $1 || $0 != $0 ? $0 : $1", "$0 < $1 ? $0 : $1", "$0 < $1 ? $0 : $1",
     "$0 & $1"},
    BITS(AND, "&"),
    BITS(OR, "|"),
    BITS(XOR, "^"),
    {OP_SHL, NULL, NULL, "(uint64_t)$1 >= $W ? 0 : ($T)(($U)$0 << $1)", "(uint64_t)$1 >= $W ? 0 : ($T)(($U)$0 << $1)",
     "$0"},
    {OP_SHR, NULL, NULL, "(uint64_t)$1 >= $W ? ($T)($0 < 0 ? -1 : 0) : ($T)($0 >> $1)",
     "(uint64_t)$1 >= $W ? 0 : ($T)($0 >> $1)", "$0 & !$1"},
    SAME(EQ, "$0 == $1"),
    SAME(LT, "$0 < $1"),
    SAME(LE, "$0 <= $1"),
    SAME(SELECT, "$0 ? $1 : $2"),
};
#undef SAME
#undef MATH
#undef BITS

static const char *c_type(dtype t)
{
    return dialect_c.type[t];
}

/* $F(name), at the parenthesis; returns the last character that was read. */
static const char *expand_function(const struct dialect *d, struct text *out, const char *form, dtype t)
{
    char name[16] = {0};
    for (size_t i = 0; *++form != ')';)
        name[i++] = *form;
    d->function_name(out, name, t);
    return form;
}

static void expand(const struct dialect *d, struct text *out, const char *form, dtype t, const char *const arg[3])
{
    for (; *form; form++) {
        if (*form != '$') {
            text_putn(out, form, 1);
            continue;
        }
        form++;
        if (*form == 'T')
            text_put(out, c_type(t));
        else if (*form == 'F')
            form = expand_function(d, out, form + 1, t);
        else if (*form == 'U')
            text_put(out, dtype_size(t) == 8 ? "uint64_t" : "uint32_t");
        else if (*form == 'W')
            text_printf(out, "%u", (unsigned)(8 * dtype_size(t)));
        else
            text_put(out, arg[*form - '0']);
    }
}

static void c_cast(struct text *out, dtype from, dtype to, const char *a)
{
    if (to == DT_BOOL) {
        text_printf(out, from == DT_BOOL ? "%s" : "%s != 0", a);
    } else if (dtype_is_narrow(to) && from != to) {
        bool wide = from == DT_F64 || from == DT_I64 || from == DT_U64 || from == DT_I32 || from == DT_U32;
        text_printf(out,
                    wide ? "tpc_%s_value(tpc_%s_bits(tpc_odd((double)%s)))" : "tpc_%s_value(tpc_%s_bits((float)%s))",
                    dtype_name(to), dtype_name(to), a);
    } else if (dtype_is_int(to) && dtype_bits(to) < 8 && !dtype_is_float(from)) {
        text_printf(out, "tpc_%s_value((uint8_t)%s)", dtype_name(to), a);
    } else if (dtype_is_float(from) && dtype_is_int(to)) {
        text_printf(out, "tpc_%s_of_%s(%s)", dtype_name(to), from == DT_F64 ? "f64" : "f32", a);
    } else {
        text_printf(out, "(%s)%s", c_type(to), a);
    }
}

/* Through an unsigned integer of the size. Values in memory of types of fewer bits than a byte keep to those of the type. */
static void c_bitcast(struct text *out, dtype from, dtype to, const char *a)
{
    static const char *const whole[9] = {[1] = "uint8_t", [2] = "uint16_t", [4] = "uint32_t", [8] = "uint64_t"};
    const char *unsigned_type = whole[dtype_size(from)];
    struct text bits = {.arena = out->arena};
    if (dtype_is_narrow(from))
        text_printf(&bits, "tpc_%s_bits(%s)", dtype_name(from), a);
    else if (dtype_is_float(from))
        text_printf(&bits, from == DT_F64 ? "tpc_bits_of_double(%s)" : "tpc_bits_of(%s)", a);
    else
        text_printf(&bits, "(%s)%s", unsigned_type, a);
    if (dtype_is_narrow(to) || dtype_bits(to) < 8)
        text_printf(out, "tpc_%s_value(%s)", dtype_name(to), bits.at);
    else if (dtype_is_float(to))
        text_printf(out, to == DT_F64 ? "tpc_double_of(%s)" : "tpc_float_of(%s)", bits.at);
    else
        text_printf(out, to == DT_BOOL ? "(%s) != 0" : "(%s)%s", to == DT_BOOL ? bits.at : c_type(to), bits.at);
}

/* A number that is no NaN nor infinite, as put_float and c_constant write it. */
static bool is_number(const char *a)
{
    return (a[0] >= '0' && a[0] <= '9') || (a[0] == '(' && a[1] == '-' && a[2] != '_');
}

/* One comparison is enough against a number: it is false for NaN. */
static bool c_clamp(struct text *out, const struct instruction *n, dtype t, const char *const arg[3])
{
    if (!dtype_is_float(t) || (n->op != OP_MAX && n->op != OP_MIN) || (!is_number(arg[0]) && !is_number(arg[1])))
        return false;
    const char *x = arg[is_number(arg[0]) ? 1 : 0], *limit = arg[is_number(arg[0]) ? 0 : 1];
    text_printf(out, "%s %c %s ? %s : %s", x, n->op == OP_MAX ? '<' : '>', limit, limit, x);
    return true;
}

static void put_isinf(const struct dialect *d, struct text *out, const struct instruction *n, dtype from,
                      const char *arg)
{
    const char *infinity = d->infinity[from == DT_F64];
    if (!dtype_is_float(from) || (n->mode & 3) == 0)
        text_put(out, "0");
    else if ((n->mode & 3) == 3)
        text_printf(out, "%s == %s || %s == -%s", arg, infinity, arg, infinity);
    else
        text_printf(out, "%s == %s%s", arg, n->mode & 1 ? "" : "-", infinity);
}

void spell_map(const struct dialect *d, struct text *out, const struct instruction *n, dtype from,
               const char *const arg[3])
{
    dtype t = n->op == OP_SELECT ? n->type : from;
    if (n->op == OP_CAST) {
        c_cast(out, from, n->type, arg[0]);
        return;
    }
    if (n->op == OP_BITCAST) {
        c_bitcast(out, from, n->type, arg[0]);
        return;
    }
    if (n->op == OP_ISINF) {
        put_isinf(d, out, n, from, arg[0]);
        return;
    }
    for (size_t i = 0; i < sizeof spellings / sizeof spellings[0] && !c_clamp(out, n, t, arg); i++) {
        const struct spelling *s = &spellings[i];
        if (s->op != n->op)
            continue;
        const char *form = t == DT_F64          ? s->f64
                           : dtype_is_float(t)  ? s->f32
                           : t == DT_BOOL       ? s->boolean
                           : dtype_is_signed(t) ? s->sint
                                                : s->uint;
        expand(d, out, form ? form : "$0", t, arg);
        return;
    }
}

/* ---- numbers ---- */

/* The shortest of two decimal forms that reads back the same; always with a point or an exponent, in any locale. */
static void put_float(const struct dialect *d, struct text *out, double x, bool single)
{
    char digits[40];
    double back;
    const char *infinity = d->infinity[!single];
    if (isnan(x) || isinf(x)) {
        text_put(out, isnan(x) ? d->nan[!single] : x > 0 ? infinity : "(-");
        if (isinf(x) && x < 0)
            text_printf(out, "%s)", infinity);
        return;
    }
    int length = snprintf(digits, sizeof digits, single ? "%.6g" : "%.15g", x);
    (void)sscanf(digits, "%lf", &back);
    if (single ? (float)back != (float)x : back != x)
        length = snprintf(digits, sizeof digits, single ? "%.9g" : "%.17g", x);
    bool whole = true;
    for (int i = 0; i < length; i++) {
        bool known = (digits[i] >= '0' && digits[i] <= '9') || strchr("+-e", digits[i]);
        digits[i] = known ? digits[i] : '.';
        whole &= digits[i] != '.' && digits[i] != 'e';
    }
    bool negative = digits[0] == '-';
    text_printf(out, "%s%s%s%s%s", negative ? "(" : "", digits, whole ? ".0" : "", single ? "f" : "",
                negative ? ")" : "");
}

void spell_constant(const struct dialect *d, struct text *out, const struct instruction *n)
{
    if (dtype_is_float(n->type))
        put_float(d, out, n->type == DT_F64 ? n->number : (double)(float)n->number, n->type != DT_F64);
    else if (n->type == DT_BOOL)
        text_put(out, n->integer ? "1" : "0");
    else if (n->type == DT_U64)
        text_printf(out, "UINT64_C(%llu)", (unsigned long long)n->integer);
    else if (n->integer == INT64_MIN)
        text_put(out, "(-INT64_C(9223372036854775807) - 1)");
    else
        text_printf(out, n->integer < 0 ? "(%s)(%lld)" : "(%s)%lld", c_type(n->type), (long long)n->integer);
}

void spell_load(struct text *out, dtype t, const char *element)
{
    if (dtype_is_narrow(t))
        text_printf(out, "tpc_%s_value(%s)", dtype_name(t), element);
    else
        text_printf(out, t == DT_BOOL ? "%s != 0" : "%s", element);
}

void spell_store(struct text *out, dtype t, const char *number)
{
    if (dtype_is_narrow(t))
        text_printf(out, "tpc_%s_bits(%s)", dtype_name(t), number);
    else
        text_put(out, number);
}

/* f32: our own where that is branch-free and the library's is not. */
static void function_name_c(struct text *out, const char *name, dtype t)
{
    static const char *const own[] = {"exp", "log", "log1p", "expm1", "sin", "cos", "erf", "tanh"};
    for (size_t i = 0; i < sizeof own / sizeof own[0] && t != DT_F64; i++)
        if (strcmp(own[i], name) == 0) {
            text_printf(out, "tpc_%s", name);
            return;
        }
    text_printf(out, "__builtin_%s%s", name, t == DT_F64 ? "" : "f");
}

const struct dialect dialect_c = {
    .name = "c",
    .type = {[DT_BOOL] = "bool",        [DT_I8] = "int8_t",      [DT_I16] = "int16_t",      [DT_I32] = "int32_t",
             [DT_I64] = "int64_t",      [DT_U8] = "uint8_t",     [DT_U16] = "uint16_t",     [DT_U32] = "uint32_t",
             [DT_U64] = "uint64_t",     [DT_F16] = "float",      [DT_BF16] = "float",       [DT_F32] = "float",
             [DT_F64] = "double",       [DT_F8E4M3FN] = "float", [DT_F8E4M3FNUZ] = "float", [DT_F8E5M2] = "float",
             [DT_F8E5M2FNUZ] = "float", [DT_F8E8M0] = "float",   [DT_F4E2M1] = "float",     [DT_U4] = "uint8_t",
             [DT_I4] = "int8_t",        [DT_U2] = "uint8_t",     [DT_I2] = "int8_t"},
    .element =
        {[DT_BOOL] = "uint8_t",       [DT_I8] = "int8_t",        [DT_I16] = "int16_t",        [DT_I32] = "int32_t",
         [DT_I64] = "int64_t",        [DT_U8] = "uint8_t",       [DT_U16] = "uint16_t",       [DT_U32] = "uint32_t",
         [DT_U64] = "uint64_t",       [DT_F16] = "uint16_t",     [DT_BF16] = "uint16_t",      [DT_F32] = "float",
         [DT_F64] = "double",         [DT_F8E4M3FN] = "uint8_t", [DT_F8E4M3FNUZ] = "uint8_t", [DT_F8E5M2] = "uint8_t",
         [DT_F8E5M2FNUZ] = "uint8_t", [DT_F8E8M0] = "uint8_t",   [DT_F4E2M1] = "uint8_t",     [DT_U4] = "uint8_t",
         [DT_I4] = "int8_t",          [DT_U2] = "uint8_t",       [DT_I2] = "int8_t"},
    .infinity = {"__builtin_inff()", "__builtin_inf()"},
    .nan = {"__builtin_nanf(\"\")", "__builtin_nan(\"\")"},
    .function_name = function_name_c,
    .read = {"", ""},
    .keeps = true,
    .accumulate = print_accumulate,
    .map = spell_map,
    .constant = spell_constant,
    .load = spell_load,
    .store = spell_store,
    .function = function_c,
    .prelude = prelude_c,
};
