/* codegen/interpret_map.c - scalar operations of interpreted kernels: what dialect_c.c spells, computed. */
#include "codegen/dialect.h"

#include <math.h>

double cell_round(dtype t, double x)
{
    return t == DT_F64 ? x : (double)(float)x;
}

int64_t cell_wrap(dtype t, int64_t x)
{
    uint32_t bits = dtype_bits(t);
    if (t == DT_BOOL)
        return x != 0;
    if (bits == 64 || dtype_is_float(t))
        return x;
    uint64_t sign = dtype_is_signed(t) ? UINT64_C(1) << (bits - 1) : 0;
    return (int64_t)((((uint64_t)x & ((UINT64_C(1) << bits) - 1)) ^ sign) - sign);
}

bool cell_below(dtype t, int64_t a, int64_t b)
{
    return t == DT_U64 ? (uint64_t)a < (uint64_t)b : a < b;
}

double cell_larger(double a, double b)
{
    return a > b || isnan(a) ? a : b;
}
double cell_smaller(double a, double b)
{
    return a < b || isnan(a) ? a : b;
}

static double float_map(const struct instruction *n, double a, double b)
{
    switch ((int)n->op) {
    case OP_NEG:
        return -a;
    case OP_ABS:
        return fabs(a);
    case OP_SIGN:
        return isnan(a) ? a : (double)((a > 0) - (a < 0));
    case OP_EXP:
        return exp(a);
    case OP_LOG:
        return log(a);
    case OP_LOG1P:
        return log1p(a);
    case OP_EXPM1:
        return expm1(a);
    case OP_SQRT:
        return sqrt(a);
    case OP_RECIP:
        return 1 / a;
    case OP_SIN:
        return sin(a);
    case OP_COS:
        return cos(a);
    case OP_TAN:
        return tan(a);
    case OP_ASIN:
        return asin(a);
    case OP_ACOS:
        return acos(a);
    case OP_ATAN:
        return atan(a);
    case OP_SINH:
        return sinh(a);
    case OP_COSH:
        return cosh(a);
    case OP_ASINH:
        return asinh(a);
    case OP_ACOSH:
        return acosh(a);
    case OP_ATANH:
        return atanh(a);
    case OP_ERF:
        return erf(a);
    case OP_TANH:
        return tanh(a);
    case OP_FLOOR:
        return floor(a);
    case OP_CEIL:
        return ceil(a);
    case OP_ROUND:
        return rint(a);
    case OP_ADD:
        return a + b;
    case OP_SUB:
        return a - b;
    case OP_MUL:
        return a * b;
    case OP_DIV:
        return a / b;
    case OP_POW:
        return pow(a, b);
    case OP_MOD:
        return fmod(a, b);
    case OP_MAX:
        return cell_larger(a, b);
    case OP_MIN:
        return cell_smaller(a, b);
    default:
        return a;
    }
}

static uint64_t power(uint64_t x, uint64_t n)
{
    uint64_t result = 1;
    for (; n; n >>= 1, x *= x)
        result *= n & 1 ? x : 1;
    return result;
}

static int64_t int_divide(const struct instruction *n, int64_t a, int64_t b)
{
    bool divides = n->op == OP_DIV;
    if (b == 0)
        return 0;
    if (n->type == DT_U64)
        return (int64_t)(divides ? (uint64_t)a / (uint64_t)b : (uint64_t)a % (uint64_t)b);
    if (b == -1)
        return divides ? (int64_t)(0 - (uint64_t)a) : 0;
    return divides ? a / b : a % b;
}

static int64_t int_power(dtype t, int64_t a, int64_t b)
{
    if (dtype_is_signed(t) && b < 0)
        return a == 1 ? 1 : a == -1 ? (b % 2 ? -1 : 1) : 0;
    return (int64_t)power((uint64_t)a, (uint64_t)b);
}

static int64_t int_shift(const struct instruction *n, int64_t a, int64_t b)
{
    bool sign = dtype_is_signed(n->type) && a < 0;
    if ((uint64_t)b >= 8 * dtype_size(n->type))
        return n->op == OP_SHR && sign ? -1 : 0;
    if (n->op == OP_SHL)
        return (int64_t)((uint64_t)a << b);
    return sign ? ~(int64_t)(~(uint64_t)a >> b) : (int64_t)((uint64_t)a >> b);
}

static int64_t int_map(const struct instruction *n, int64_t a, int64_t b)
{
    bool less = cell_below(n->type, a, b), negative = dtype_is_signed(n->type) && a < 0;
    switch ((int)n->op) {
    case OP_NEG:
        return (int64_t)(0 - (uint64_t)a);
    case OP_ABS:
        return negative ? (int64_t)(0 - (uint64_t)a) : a;
    case OP_SIGN:
        return negative ? -1 : a != 0;
    case OP_NOT:
        return n->type == DT_BOOL ? !a : ~a;
    case OP_ADD:
        return (int64_t)((uint64_t)a + (uint64_t)b);
    case OP_SUB:
        return (int64_t)((uint64_t)a - (uint64_t)b);
    case OP_MUL:
        return (int64_t)((uint64_t)a * (uint64_t)b);
    case OP_DIV:
    case OP_MOD:
        return int_divide(n, a, b);
    case OP_POW:
        return int_power(n->type, a, b);
    case OP_MAX:
        return less ? b : a;
    case OP_MIN:
        return less ? a : b;
    case OP_AND:
        return a & b;
    case OP_OR:
        return a | b;
    case OP_XOR:
        return a ^ b;
    case OP_SHL:
    case OP_SHR:
        return int_shift(n, a, b);
    default:
        return a;
    }
}

/* Truncates, saturates, NaN is 0. */
static int64_t int_of_float(dtype t, double x)
{
    unsigned char bytes[8];
    dtype_store_f64(t, bytes, 0, x);
    return dtype_load_i64(t, bytes, 0);
}

static union cell cast(dtype from, dtype to, union cell a)
{
    if (dtype_is_float(from) && !dtype_is_float(to))
        return (union cell){.i = int_of_float(to, a.f)};
    if (!dtype_is_float(to))
        return (union cell){.i = cell_wrap(to, a.i)};
    double x = dtype_is_float(from) ? a.f : from == DT_U64 ? (double)(uint64_t)a.i : (double)a.i;
    if (dtype_is_narrow(to))
        return (union cell){.f = narrow_to_f64(to, narrow_from_f64(to, x))};
    if (to == DT_F32 && !dtype_is_float(from)) /* one rounding */
        return (union cell){.f = from == DT_U64 ? (double)(float)(uint64_t)a.i : (double)(float)a.i};
    return (union cell){.f = cell_round(to, x)};
}

static union cell bitcast(dtype from, dtype to, union cell a)
{
    unsigned char bytes[8];
    if (dtype_is_float(from))
        dtype_store_f64(from, bytes, 0, a.f);
    else
        dtype_store_i64(from, bytes, 0, a.i);
    dtype_store_bits(to, bytes, 0, dtype_load_bits(from, bytes, 0));
    if (dtype_is_float(to))
        return (union cell){.f = dtype_load_f64(to, bytes, 0)};
    return (union cell){.i = dtype_load_i64(to, bytes, 0)};
}

static bool compare(op o, dtype t, union cell a, union cell b)
{
    if (dtype_is_float(t))
        return o == OP_EQ ? a.f == b.f : o == OP_LT ? a.f < b.f : a.f <= b.f;
    return o == OP_EQ ? a.i == b.i : o == OP_LT ? cell_below(t, a.i, b.i) : !cell_below(t, b.i, a.i);
}

union cell cell_map(const struct instruction *n, dtype from, union cell a, union cell b, union cell c)
{
    switch ((int)n->op) {
    case OP_CAST:
        return cast(from, n->type, a);
    case OP_BITCAST:
        return bitcast(from, n->type, a);
    case OP_SELECT:
        return a.i ? b : c;
    case OP_EQ:
    case OP_LT:
    case OP_LE:
        return (union cell){.i = compare(n->op, from, a, b)};
    case OP_ISNAN:
        return (union cell){.i = dtype_is_float(from) && isnan(a.f)};
    case OP_ISINF:
        return (union cell){.i = dtype_is_float(from) && isinf(a.f) && (n->mode & (a.f > 0 ? 1 : 2))};
    default:
        if (dtype_is_float(n->type))
            return (union cell){.f = cell_round(n->type, float_map(n, a.f, b.f))};
        return (union cell){.i = cell_wrap(n->type, int_map(n, a.i, b.i))};
    }
}
