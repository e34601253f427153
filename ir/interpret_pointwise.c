/* ir/interpret_pointwise.c - the interpreter's pointwise rows, and the arithmetic that other rows share with them. */
#include "ir/interpret_row.h"

#include <math.h>

/* ---- numbers ---- */

double *load_doubles(struct row *r, const struct tensor *t)
{
    size_t count = t->count;
    double *x = NEW_ARRAY(r->scratch, double, count);
    for (size_t i = 0; i < count; i++)
        x[i] = dtype_load_f64(t->dtype, t->data, i);
    return x;
}

int64_t *load_integers(struct row *r, const struct tensor *t)
{
    size_t count = t->count;
    int64_t *x = NEW_ARRAY(r->scratch, int64_t, count);
    for (size_t i = 0; i < count; i++)
        x[i] = dtype_load_i64(t->dtype, t->data, i);
    return x;
}

static int64_t wrap_add(int64_t a, int64_t b)
{
    return (int64_t)((uint64_t)a + (uint64_t)b);
}
static int64_t wrap_sub(int64_t a, int64_t b)
{
    return (int64_t)((uint64_t)a - (uint64_t)b);
}
static int64_t wrap_mul(int64_t a, int64_t b)
{
    return (int64_t)((uint64_t)a * (uint64_t)b);
}

bool integer_less(dtype type, int64_t a, int64_t b)
{
    return type == DT_U64 ? (uint64_t)a < (uint64_t)b : a < b;
}

static double maximum(double a, double b)
{
    return isnan(a) || isnan(b) ? (double)NAN : a > b ? a : b;
}
static double minimum(double a, double b)
{
    return isnan(a) || isnan(b) ? (double)NAN : a < b ? a : b;
}

double combine_doubles(int32_t reduction, double a, double b)
{
    switch (reduction) {
    case REDUCTION_SUM:
        return a + b;
    case REDUCTION_PROD:
        return a * b;
    case REDUCTION_MAX:
        return maximum(a, b);
    default:
        return minimum(a, b);
    }
}

int64_t combine_integers(int32_t reduction, dtype type, int64_t a, int64_t b)
{
    bool lower = integer_less(type, a, b);
    switch (reduction) {
    case REDUCTION_SUM:
        return type == DT_BOOL ? (a | b) : wrap_add(a, b);
    case REDUCTION_PROD:
        return wrap_mul(a, b); /* on bool: and */
    case REDUCTION_MAX:
        return lower ? b : a;
    default:
        return lower ? a : b;
    }
}

double neutral_double(int32_t reduction)
{
    switch (reduction) {
    case REDUCTION_SUM:
        return 0;
    case REDUCTION_PROD:
        return 1;
    case REDUCTION_MAX:
        return -(double)INFINITY;
    default:
        return (double)INFINITY;
    }
}

static int64_t lowest(dtype type)
{
    return dtype_is_signed(type) ? (int64_t)(UINT64_MAX << (8 * dtype_size(type) - 1)) : 0;
}
static int64_t highest(dtype type)
{
    unsigned bits = 8 * (unsigned)dtype_size(type);
    if (type == DT_BOOL)
        return 1;
    return (int64_t)(UINT64_MAX >> (64 - bits + (dtype_is_signed(type) ? 1u : 0u)));
}

int64_t neutral_integer(int32_t reduction, dtype type)
{
    switch (reduction) {
    case REDUCTION_SUM:
        return 0;
    case REDUCTION_PROD:
        return 1;
    case REDUCTION_MAX:
        return lowest(type);
    default:
        return highest(type);
    }
}

/* ---- one operand ---- */

static double unary_double(op o, double x)
{
    switch ((int)o) {
    case OP_NEG:
        return -x;
    case OP_ABS:
        return fabs(x);
    case OP_SIGN:
        return isnan(x) ? x : x > 0 ? 1 : x < 0 ? -1 : 0;
    case OP_EXP:
        return exp(x);
    case OP_LOG:
        return log(x);
    case OP_LOG1P:
        return log1p(x);
    case OP_EXPM1:
        return expm1(x);
    case OP_SQRT:
        return sqrt(x);
    case OP_RECIP:
        return 1 / x;
    case OP_SIN:
        return sin(x);
    case OP_COS:
        return cos(x);
    case OP_TAN:
        return tan(x);
    case OP_ASIN:
        return asin(x);
    case OP_ACOS:
        return acos(x);
    case OP_ATAN:
        return atan(x);
    case OP_SINH:
        return sinh(x);
    case OP_COSH:
        return cosh(x);
    case OP_ASINH:
        return asinh(x);
    case OP_ACOSH:
        return acosh(x);
    case OP_ATANH:
        return atanh(x);
    case OP_ERF:
        return erf(x);
    case OP_TANH:
        return tanh(x);
    case OP_FLOOR:
        return floor(x);
    case OP_CEIL:
        return ceil(x);
    case OP_ROUND:
        return rint(x); /* the default mode: halves to even */
    default:
        return (double)NAN;
    }
}

static int64_t unary_integer(op o, dtype type, int64_t x)
{
    bool negative = dtype_is_signed(type) && x < 0;
    switch ((int)o) {
    case OP_NEG:
        return wrap_sub(0, x);
    case OP_ABS:
        return negative ? wrap_sub(0, x) : x;
    case OP_SIGN:
        return negative ? -1 : x != 0;
    case OP_NOT:
        return type == DT_BOOL ? !x : ~x;
    default:
        return x; /* floor, ceil, round */
    }
}

static bool is_infinite(int32_t mode, double x)
{
    return isinf(x) && ((x > 0 && (mode & 1)) || (x < 0 && (mode & 2)));
}

static void run_test(struct row *r)
{
    const struct tensor *a = r->operand[0];
    for (size_t i = 0; i < a->count; i++) {
        double x = dtype_load_f64(a->dtype, a->data, i);
        dtype_store_i64(DT_BOOL, r->result->data, i,
                        r->node->op == OP_ISNAN ? isnan(x) : is_infinite(r->node->attribute.mode, x));
    }
}

static void run_cast(struct row *r)
{
    const struct tensor *a = r->operand[0];
    for (size_t i = 0; i < a->count; i++) {
        if (dtype_is_float(a->dtype))
            dtype_store_f64(r->result->dtype, r->result->data, i, dtype_load_f64(a->dtype, a->data, i));
        else if (a->dtype == DT_U64 && dtype_is_float(r->result->dtype)) /* as int64 it might be negative */
            dtype_store_f64(r->result->dtype, r->result->data, i, dtype_load_f64(a->dtype, a->data, i));
        else
            dtype_store_i64(r->result->dtype, r->result->data, i, dtype_load_i64(a->dtype, a->data, i));
    }
}

static void run_bitcast(struct row *r)
{
    const struct tensor *a = r->operand[0];
    for (size_t i = 0; i < a->count; i++)
        dtype_store_bits(r->result->dtype, r->result->data, i, dtype_load_bits(a->dtype, a->data, i));
}

static void run_unary(struct row *r)
{
    const struct tensor *a = r->operand[0];
    for (size_t i = 0; i < a->count; i++) {
        if (dtype_is_float(a->dtype))
            dtype_store_f64(a->dtype, r->result->data, i,
                            unary_double(r->node->op, dtype_load_f64(a->dtype, a->data, i)));
        else
            dtype_store_i64(a->dtype, r->result->data, i,
                            unary_integer(r->node->op, a->dtype, dtype_load_i64(a->dtype, a->data, i)));
    }
}

/* ---- two operands ---- */

static double binary_double(op o, double a, double b)
{
    switch ((int)o) {
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
        return maximum(a, b);
    case OP_MIN:
        return minimum(a, b);
    default:
        return (double)NAN;
    }
}

/* x to the n-th by squaring; wraps. To a negative power: 1/x truncated. */
static int64_t power(dtype type, int64_t x, int64_t n)
{
    if (dtype_is_signed(type) && n < 0)
        return x == 1 ? 1 : x == -1 ? (n % 2 ? -1 : 1) : 0;
    int64_t result = 1;
    for (uint64_t rest = (uint64_t)n; rest; rest >>= 1) {
        result = rest & 1 ? wrap_mul(result, x) : result;
        x = wrap_mul(x, x);
    }
    return result;
}

static int64_t divide(dtype type, int64_t a, int64_t b)
{
    if (b == 0)
        return 0;
    if (type == DT_U64)
        return (int64_t)((uint64_t)a / (uint64_t)b);
    return b == -1 ? wrap_sub(0, a) : a / b;
}

static int64_t remainder_of(dtype type, int64_t a, int64_t b)
{
    if (b == 0 || b == -1) /* -1: INT64_MIN % -1 traps. Of u64 it is the largest number. */
        return b == -1 && type == DT_U64 && a != b ? a : 0;
    return type == DT_U64 ? (int64_t)((uint64_t)a % (uint64_t)b) : a % b;
}

/* By the type's width or more, or by less than nothing: all bits are gone. */
static int64_t shift(op o, dtype type, int64_t a, int64_t b)
{
    uint64_t width = 8 * dtype_size(type), by = (uint64_t)b;
    bool sign = dtype_is_signed(type) && a < 0;
    if (by >= width)
        return o == OP_SHR && sign ? -1 : 0;
    if (o == OP_SHL)
        return (int64_t)((uint64_t)a << by);
    return sign ? ~(int64_t)(~(uint64_t)a >> by) : (int64_t)((uint64_t)a >> by);
}

static int64_t binary_integer(op o, dtype type, int64_t a, int64_t b)
{
    switch ((int)o) {
    case OP_ADD:
        return wrap_add(a, b);
    case OP_SUB:
        return wrap_sub(a, b);
    case OP_MUL:
        return wrap_mul(a, b);
    case OP_DIV:
        return divide(type, a, b);
    case OP_POW:
        return power(type, a, b);
    case OP_MOD:
        return remainder_of(type, a, b);
    case OP_MAX:
        return integer_less(type, a, b) ? b : a;
    case OP_MIN:
        return integer_less(type, a, b) ? a : b;
    case OP_AND:
        return a & b;
    case OP_OR:
        return a | b;
    case OP_XOR:
        return a ^ b;
    default:
        return shift(o, type, a, b);
    }
}

static bool compare(op o, dtype type, const void *a, const void *b, size_t i)
{
    if (dtype_is_float(type)) {
        double x = dtype_load_f64(type, a, i), y = dtype_load_f64(type, b, i);
        return o == OP_EQ ? x == y : o == OP_LT ? x < y : x <= y;
    }
    int64_t x = dtype_load_i64(type, a, i), y = dtype_load_i64(type, b, i);
    return o == OP_EQ ? x == y : o == OP_LT ? integer_less(type, x, y) : !integer_less(type, y, x);
}

static void run_binary(struct row *r)
{
    const struct tensor *a = r->operand[0], *b = r->operand[1];
    op o = r->node->op;
    bool test = o == OP_EQ || o == OP_LT || o == OP_LE;
    for (size_t i = 0; i < a->count; i++) {
        if (test)
            dtype_store_i64(DT_BOOL, r->result->data, i, compare(o, a->dtype, a->data, b->data, i));
        else if (dtype_is_float(a->dtype))
            dtype_store_f64(
                a->dtype, r->result->data, i,
                binary_double(o, dtype_load_f64(a->dtype, a->data, i), dtype_load_f64(b->dtype, b->data, i)));
        else
            dtype_store_i64(a->dtype, r->result->data, i,
                            binary_integer(o, a->dtype, dtype_load_i64(a->dtype, a->data, i),
                                           dtype_load_i64(b->dtype, b->data, i)));
    }
}

static void run_select(struct row *r)
{
    const struct tensor *condition = r->operand[0];
    size_t size = dtype_size(r->result->dtype);
    for (size_t i = 0; i < condition->count; i++) {
        const struct tensor *from = dtype_load_i64(DT_BOOL, condition->data, i) ? r->operand[1] : r->operand[2];
        memcpy((char *)r->result->data + i * size, (const char *)from->data + i * size, size);
    }
}

/* ---- the row ---- */

/* Every operand has the result's shape; those from `first` on have `type`. */
static status agree(struct row *r, uint32_t first, dtype type)
{
    for (uint32_t k = 0; k < r->node->operand_count; k++) {
        struct tensor wanted = *r->result;
        wanted.dtype = k < first ? DT_BOOL : type;
        if (!same_shape(r->operand[k], &wanted))
            return row_broken(r, "operand %u is %s but %s is wanted", (unsigned)k,
                              tensor_type_text(r->operand[k], r->scratch), tensor_type_text(&wanted, r->scratch));
    }
    return TPC_OK;
}

static bool is_test(op o)
{
    return o == OP_EQ || o == OP_LT || o == OP_LE || o == OP_ISNAN || o == OP_ISINF;
}

status row_pointwise(struct row *r)
{
    op o = r->node->op;
    dtype first = r->operand[0]->dtype, result = r->result->dtype;
    status s = agree(r, o == OP_SELECT, o == OP_SELECT ? result : first);
    if (s != TPC_OK)
        return s;
    if (o != OP_SELECT && o != OP_CAST && o != OP_BITCAST && result != (is_test(o) ? DT_BOOL : first))
        return row_broken(r, "gives %s from %s", dtype_name(result), dtype_name(first));
    if (o == OP_CAST)
        run_cast(r);
    else if (o == OP_BITCAST)
        run_bitcast(r);
    else if (o == OP_SELECT)
        run_select(r);
    else if (o == OP_ISNAN || o == OP_ISINF)
        run_test(r);
    else if (r->node->operand_count == 1)
        run_unary(r);
    else
        run_binary(r);
    return TPC_OK;
}
