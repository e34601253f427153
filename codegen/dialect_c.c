/* codegen/dialect_c.c - host C: how operations are spelled, and a kernel as one function.
 *
 *     void tpc_k_HASH(void *const *buffers, const int64_t *symbols, int64_t begin, int64_t end, int64_t *fault)
 *
 * Points are run through in order from begin to end; the fast loop is marked `omp simd` (no two points write one element), with the
 * accumulators of reductions as its reduction variables: that vectorises sums without giving up IEEE arithmetic elsewhere. 16-bit floats are
 * f32 between load and store. Start at print_function.
 */
#include "codegen/dialect.h"

#include <math.h>

enum {
    ROW_ON_STACK = 4096, /* elements of a kept row; longer ones are allocated per call */
    TILE = 16            /* of the fast axis, where a kernel transposes: so many cache lines are used up before the next tile */
};

/* ---- operations ---- */

/* $0 $1 $2 operands, $T type of the result, $U its unsigned type with at least 32 bits, $W its width in bits. NULL: the column does not
 * occur in Graphs; integers then pass unchanged, as in the reference interpreter. */
struct spelling {
    op op;
    const char *f32, *f64, *sint, *uint, *boolean;
};

#define SAME(id, text) {OP_##id, text, text, text, text, text}
#define FLOAT(id, f32, f64) {OP_##id, f32, f64, "$0", "$0", "$0"}
#define LIBM(id, name) {OP_##id, "__builtin_" name "f($0)", "__builtin_" name "($0)", "$0", "$0", "$0"}
#define BITS(id, sign) {OP_##id, NULL, NULL, "($T)($0 " sign " $1)", "($T)($0 " sign " $1)", "$0 " sign " $1"}

static const struct spelling spellings[] = {
    {OP_NEG, "-$0", "-$0", "($T)(0 - ($U)$0)", "($T)(0 - ($U)$0)", "$0"},
    {OP_ABS, "__builtin_fabsf($0)", "__builtin_fabs($0)", "$0 < 0 ? ($T)(0 - ($U)$0) : $0", "$0", "$0"},
    {OP_SIGN, "$0 != $0 ? $0 : (float)(($0 > 0) - ($0 < 0))", "$0 != $0 ? $0 : (double)(($0 > 0) - ($0 < 0))",
     "($T)(($0 > 0) - ($0 < 0))", "($T)($0 > 0)", "$0"},
    FLOAT(EXP, "tpc_exp($0)", "__builtin_exp($0)"),
    FLOAT(LOG, "tpc_log($0)", "__builtin_log($0)"),
    FLOAT(LOG1P, "tpc_log1p($0)", "__builtin_log1p($0)"),
    FLOAT(EXPM1, "tpc_expm1($0)", "__builtin_expm1($0)"),
    LIBM(SQRT, "sqrt"),
    FLOAT(RECIP, "1.0f / $0", "1.0 / $0"),
    FLOAT(SIN, "tpc_sin($0)", "__builtin_sin($0)"),
    FLOAT(COS, "tpc_cos($0)", "__builtin_cos($0)"),
    LIBM(TAN, "tan"),
    LIBM(ASIN, "asin"),
    LIBM(ACOS, "acos"),
    LIBM(ATAN, "atan"),
    LIBM(SINH, "sinh"),
    LIBM(COSH, "cosh"),
    LIBM(ASINH, "asinh"),
    LIBM(ACOSH, "acosh"),
    LIBM(ATANH, "atanh"),
    FLOAT(ERF, "tpc_erf($0)", "__builtin_erf($0)"),
    FLOAT(TANH, "tpc_tanh($0)", "__builtin_tanh($0)"),
    LIBM(FLOOR, "floor"),
    LIBM(CEIL, "ceil"),
    LIBM(ROUND, "rint"),
    {OP_NOT, NULL, NULL, "($T)~$0", "($T)~$0", "!$0"},
    {OP_ISNAN, "$0 != $0", "$0 != $0", "0", "0", "0"},
    {OP_ADD, "$0 + $1", "$0 + $1", "($T)(($U)$0 + ($U)$1)", "($T)(($U)$0 + ($U)$1)", "$0 | $1"},
    {OP_SUB, "$0 - $1", "$0 - $1", "($T)(($U)$0 - ($U)$1)", "($T)(($U)$0 - ($U)$1)", "$0 ^ $1"},
    {OP_MUL, "$0 * $1", "$0 * $1", "($T)(($U)$0 * ($U)$1)", "($T)(($U)$0 * ($U)$1)", "$0 & $1"},
    {OP_DIV, "$0 / $1", "$0 / $1", "$1 == 0 ? 0 : $1 == -1 ? ($T)(0 - ($U)$0) : ($T)($0 / $1)", "$1 == 0 ? 0 : ($T)($0 / $1)",
     "$0 & $1"},
    {OP_POW, "__builtin_powf($0, $1)", "__builtin_pow($0, $1)", "($T)tpc_power_signed($0, $1)", "($T)tpc_power_unsigned($0, $1)",
     "$0 | !$1"},
    {OP_MOD, "__builtin_fmodf($0, $1)", "__builtin_fmod($0, $1)", "$1 == 0 || $1 == -1 ? 0 : ($T)($0 % $1)",
     "$1 == 0 ? 0 : ($T)($0 % $1)", "0"},
    {OP_MAX, "$0 > $1 || $0 != $0 ? $0 : $1", "$0 > $1 || $0 != $0 ? $0 : $1", "$0 > $1 ? $0 : $1", "$0 > $1 ? $0 : $1", "$0 | $1"},
    {OP_MIN, "$0 < $1 || $0 != $0 ? $0 : $1", "$0 < $1 || $0 != $0 ? $0 : $1", "$0 < $1 ? $0 : $1", "$0 < $1 ? $0 : $1", "$0 & $1"},
    BITS(AND, "&"),
    BITS(OR, "|"),
    BITS(XOR, "^"),
    {OP_SHL, NULL, NULL, "(uint64_t)$1 >= $W ? 0 : ($T)(($U)$0 << $1)", "(uint64_t)$1 >= $W ? 0 : ($T)(($U)$0 << $1)", "$0"},
    {OP_SHR, NULL, NULL, "(uint64_t)$1 >= $W ? ($T)($0 < 0 ? -1 : 0) : ($T)($0 >> $1)", "(uint64_t)$1 >= $W ? 0 : ($T)($0 >> $1)",
     "$0 & !$1"},
    SAME(EQ, "$0 == $1"),
    SAME(LT, "$0 < $1"),
    SAME(LE, "$0 <= $1"),
    SAME(SELECT, "$0 ? $1 : $2"),
};
#undef SAME
#undef FLOAT
#undef LIBM
#undef BITS

static const char *c_type(dtype t)
{
    return dialect_c.type[t];
}

static void expand(struct text *out, const char *form, dtype t, const char *const arg[3])
{
    for (; *form; form++) {
        if (*form != '$') {
            text_putn(out, form, 1);
            continue;
        }
        form++;
        if (*form == 'T')
            text_put(out, c_type(t));
        else if (*form == 'U')
            text_put(out, dtype_size(t) == 8 ? "uint64_t" : "uint32_t");
        else if (*form == 'W')
            text_printf(out, "%u", (unsigned)(8 * dtype_size(t)));
        else
            text_put(out, arg[*form - '0']);
    }
}

static bool is_narrow(dtype t)
{
    return t == DT_F16 || t == DT_BF16;
}

static void c_cast(struct text *out, dtype from, dtype to, const char *a)
{
    if (to == DT_BOOL) {
        text_printf(out, from == DT_BOOL ? "%s" : "%s != 0", a);
    } else if (is_narrow(to) && from != to) {
        bool wide = from == DT_F64 || from == DT_I64 || from == DT_U64 || from == DT_I32 || from == DT_U32;
        text_printf(out, wide ? "tpc_%s_value(tpc_%s_bits(tpc_odd((double)%s)))" : "tpc_%s_value(tpc_%s_bits((float)%s))",
                    dtype_name(to), dtype_name(to), a);
    } else if (dtype_is_float(from) && dtype_is_int(to)) {
        text_printf(out, "tpc_%s_of_%s(%s)", dtype_name(to), from == DT_F64 ? "f64" : "f32", a);
    } else {
        text_printf(out, "(%s)%s", c_type(to), a);
    }
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

static void c_map(struct text *out, const struct instruction *n, dtype from, const char *const arg[3])
{
    dtype t = n->op == OP_SELECT ? n->type : from;
    if (n->op == OP_CAST) {
        c_cast(out, from, n->type, arg[0]);
        return;
    }
    if (n->op == OP_ISINF) {
        const char *infinity = from == DT_F64 ? "__builtin_inf()" : "__builtin_inff()";
        if (!dtype_is_float(from) || (n->mode & 3) == 0)
            text_put(out, "0");
        else if ((n->mode & 3) == 3)
            text_printf(out, "%s == %s || %s == -%s", arg[0], infinity, arg[0], infinity);
        else
            text_printf(out, "%s == %s%s", arg[0], n->mode & 1 ? "" : "-", infinity);
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
        expand(out, form ? form : "$0", t, arg);
        return;
    }
}

/* ---- numbers ---- */

/* The shortest of two decimal forms that reads back the same; always with a point or an exponent, in any locale. */
static void put_float(struct text *out, double x, bool single)
{
    char digits[40];
    double back;
    const char *infinity = single ? "__builtin_inff()" : "__builtin_inf()";
    if (isnan(x) || isinf(x)) {
        text_put(out, isnan(x) ? single ? "__builtin_nanf(\"\")" : "__builtin_nan(\"\")" : x > 0 ? infinity : "(-");
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
    text_printf(out, "%s%s%s%s%s", negative ? "(" : "", digits, whole ? ".0" : "", single ? "f" : "", negative ? ")" : "");
}

static void c_constant(struct text *out, const struct instruction *n)
{
    if (dtype_is_float(n->type))
        put_float(out, n->type == DT_F64 ? n->number : (double)(float)n->number, n->type != DT_F64);
    else if (n->type == DT_BOOL)
        text_put(out, n->integer ? "1" : "0");
    else if (n->type == DT_U64)
        text_printf(out, "UINT64_C(%llu)", (unsigned long long)n->integer);
    else if (n->integer == INT64_MIN)
        text_put(out, "(-INT64_C(9223372036854775807) - 1)");
    else
        text_printf(out, n->integer < 0 ? "(%s)(%lld)" : "(%s)%lld", c_type(n->type), (long long)n->integer);
}

static void c_load(struct text *out, dtype t, const char *element)
{
    if (is_narrow(t))
        text_printf(out, "tpc_%s_value(%s)", dtype_name(t), element);
    else
        text_printf(out, t == DT_BOOL ? "%s != 0" : "%s", element);
}

static void c_store(struct text *out, dtype t, const char *number)
{
    if (is_narrow(t))
        text_printf(out, "tpc_%s_bits(%s)", dtype_name(t), number);
    else
        text_put(out, number);
}

/* ---- the function ---- */

static const struct instruction *instruction_at(const struct printer *p, uint32_t i)
{
    return &p->nest->kernel->instruction[i];
}

static bool is_loaded(const struct kernel *k, uint32_t buffer)
{
    for (uint32_t i = 0; i < k->instruction_count; i++)
        if (k->instruction[i].kind == INST_LOAD && k->instruction[i].buffer == buffer)
            return true;
    return false;
}

static void print_arguments(struct printer *p)
{
    const struct nest *n = p->nest;
    for (uint32_t i = 0; i < n->kernel->buffer_count; i++) {
        const struct kernel_buffer *b = &n->kernel->buffer[i];
        bool both = b->written && is_loaded(n->kernel, i);
        print_line(p, "%s%s *%sb%u = buffers[%u];", b->written ? "" : "const ", dialect_c.element[b->type], both ? "" : "restrict ",
                   (unsigned)i, (unsigned)i);
    }
    for (uint32_t i = 0; i < n->symbol_count; i++)
        print_line(p, "const int64_t s%u = symbols[%u];", (unsigned)i, (unsigned)i);
    for (uint32_t i = 0; i < n->kernel->outer + n->kernel->inner; i++)
        if (!n->cut_loop && !(n->points && n->point[0] == i))
            print_line(p, "const int64_t n%u = %s;", (unsigned)i, print_dim_text(p, n->kernel->extent[i]));
}

/* Returns early where there is nothing to do, since what is hoisted must not touch memory then. */
static void print_guard(struct printer *p)
{
    const struct nest *n = p->nest;
    bool element = n->kernel->inner == 0 && n->loops && !n->cut_loop;
    if (element)
        print_line(p, "if (begin >= end || n%u <= 0)", (unsigned)n->loop[0]);
    else
        print_line(p, "if (begin >= end)");
    print_line(p, "    return;");
    if (n->kernel->inner < 2)
        return;
    struct text empty = {.arena = p->arena};
    for (uint32_t i = 0; i < n->loops; i++)
        text_printf(&empty, "%sn%u <= 0", i ? " || " : "", (unsigned)n->loop[i]);
    print_line(p, "const bool empty = %s;", empty.at);
}

static bool any_kept(const struct nest *n)
{
    bool any = false;
    for (uint32_t i = 0; i < n->kernel->instruction_count; i++)
        any |= n->value[i].kept;
    return any;
}

/* Row buffers: on the stack while a row is short, else one allocation for all of them. */
static void print_row_buffers(struct printer *p)
{
    const struct nest *n = p->nest;
    struct text row = {.arena = p->arena};
    size_t bytes = 0;
    if (!any_kept(n))
        return;
    for (uint32_t i = 0; i < n->loops; i++)
        text_printf(&row, "%sn%u", i ? "*" : "", (unsigned)n->loop[i]);
    print_line(p, "const int64_t length = %s;", row.at);
    for (uint32_t i = 0; i < n->kernel->instruction_count; i++)
        if (n->value[i].kept) {
            print_line(p, "%s k%u_short[%d];", dialect_c.type[instruction_at(p, i)->type], (unsigned)i, ROW_ON_STACK);
            bytes += 8;
        }
    print_line(p, "char *const longer = length > %d ? __builtin_malloc((uint64_t)length * %u) : 0;", ROW_ON_STACK, (unsigned)bytes);
    print_line(p, "if (length > %d && !longer) {", ROW_ON_STACK);
    print_line(p, "    *fault = INT64_MAX;");
    print_line(p, "    return;");
    print_line(p, "}");
    bytes = 0;
    for (uint32_t i = 0; i < n->kernel->instruction_count; i++)
        if (n->value[i].kept) {
            const char *type = dialect_c.type[instruction_at(p, i)->type];
            print_line(p, "%s *restrict const k%u = longer ? (%s *)(longer + length * %u) : k%u_short;", type, (unsigned)i, type,
                       (unsigned)bytes, (unsigned)i);
            bytes += 8;
        }
}

static bool may_fault(const struct printer *p, uint32_t i)
{
    const struct instruction *a = instruction_at(p, i);
    return p->nest->value[i].live && (a->kind == INST_LOAD || a->kind == INST_STORE) && a->dynamic >= 0 && !a->dynamic_zero;
}

static void print_fault_cells(struct printer *p)
{
    for (uint32_t i = 0; i < p->nest->kernel->instruction_count; i++)
        if (may_fault(p, i))
            print_line(p, "int32_t x%u = 0;", (unsigned)i);
}

static void print_fault_reports(struct printer *p)
{
    for (uint32_t i = 0; i < p->nest->kernel->instruction_count; i++)
        if (may_fault(p, i)) {
            print_line(p, "if (x%u)", (unsigned)i);
            print_line(p, "    tpc_fault(fault, %u);", (unsigned)i + 1);
        }
}

/* ---- reductions ---- */

static bool accumulates(const struct printer *p, uint32_t sweep, uint32_t i)
{
    return instruction_at(p, i)->kind == INST_REDUCE && nest_use(p->nest, sweep, i) == USE_COMPUTE;
}

static bool is_extreme(const struct instruction *a)
{
    return a->op == OP_REDUCE_MAX || a->op == OP_REDUCE_MIN;
}

static const char *accumulator_type(const struct instruction *a)
{
    if (dtype_is_float(a->type) || (is_extreme(a) && a->type != DT_BOOL))
        return c_type(a->type);
    return a->type == DT_BOOL ? "int32_t" : dtype_size(a->type) == 8 ? "uint64_t" : "uint32_t";
}

/* What an empty row gives. */
static const char *neutral(const struct instruction *a)
{
    bool single = a->type != DT_F64, maximum = a->op == OP_REDUCE_MAX;
    if (a->op == OP_REDUCE_SUM || a->op == OP_REDUCE_PROD)
        return a->op == OP_REDUCE_SUM ? "0" : "1";
    if (dtype_is_float(a->type))
        return maximum ? single ? "-__builtin_inff()" : "-__builtin_inf()" : single ? "__builtin_inff()" : "__builtin_inf()";
    switch (a->type) {
    case DT_I8:
        return maximum ? "-128" : "127";
    case DT_I16:
        return maximum ? "-32768" : "32767";
    case DT_I32:
        return maximum ? "-2147483647 - 1" : "2147483647";
    case DT_I64:
        return maximum ? "-INT64_MAX - 1" : "INT64_MAX";
    case DT_U8:
        return maximum ? "0" : "255";
    case DT_U16:
        return maximum ? "0" : "65535";
    case DT_U32:
        return maximum ? "0" : "4294967295u";
    case DT_U64:
        return maximum ? "0" : "UINT64_MAX";
    case DT_BOOL:
    case DT_NONE:
    case DT_F16:
    case DT_BF16:
    case DT_F32:
    case DT_F64:
    case DT_COUNT:
        break;
    }
    return maximum ? "0" : "1";
}

static const char *nan_type(const struct instruction *a)
{
    return a->type == DT_F64 ? "int64_t" : "int32_t";
}

/* Is the sum of a fast loop added to a wider one, t5? Short fast loops would make a long chain of small roundings else. */
static bool has_total(const struct printer *p, const struct instruction *a)
{
    return p->nest->loops > 1 && a->op == OP_REDUCE_SUM && dtype_is_float(a->type) && a->type != DT_F64;
}

static void print_totals(struct printer *p, uint32_t sweep, bool declare)
{
    for (uint32_t i = 0; i < p->nest->kernel->instruction_count; i++)
        if (accumulates(p, sweep, i) && has_total(p, instruction_at(p, i)))
            print_line(p, declare ? "float r%u = 0;" : "t%u += (double)r%u;", (unsigned)i, (unsigned)i);
}

static void print_accumulators(struct printer *p, uint32_t sweep)
{
    for (uint32_t i = 0; i < p->nest->kernel->instruction_count; i++) {
        const struct instruction *a = instruction_at(p, i);
        if (!accumulates(p, sweep, i))
            continue;
        if (has_total(p, a))
            print_line(p, "double t%u = 0;", (unsigned)i);
        else
            print_line(p, "%s r%u = %s;", accumulator_type(a), (unsigned)i, neutral(a));
        if (is_extreme(a) && dtype_is_float(a->type))
            print_line(p, "%s nan%u = 0;", nan_type(a), (unsigned)i);
    }
}

static void print_results(struct printer *p, uint32_t sweep)
{
    for (uint32_t i = 0; i < p->nest->kernel->instruction_count; i++) {
        const struct instruction *a = instruction_at(p, i);
        if (!accumulates(p, sweep, i))
            continue;
        const char *type = c_type(a->type);
        if (is_extreme(a) && dtype_is_float(a->type))
            print_line(p, "const %s v%u = nan%u ? %s : r%u;", type, (unsigned)i, (unsigned)i,
                       a->type == DT_F64 ? "__builtin_nan(\"\")" : "__builtin_nanf(\"\")", (unsigned)i);
        else
            print_line(p, "const %s v%u = (%s)%c%u;", type, (unsigned)i, type, has_total(p, a) ? 't' : 'r', (unsigned)i);
    }
}

static const char *reduction_operator(const struct instruction *a)
{
    bool boolean = a->type == DT_BOOL;
    switch ((int)a->op) {
    case OP_REDUCE_SUM:
        return boolean ? "|" : "+";
    case OP_REDUCE_PROD:
        return boolean ? "&" : "*";
    case OP_REDUCE_MAX:
        return boolean ? "|" : "max";
    default:
        return boolean ? "&" : "min";
    }
}

static void print_pragma(struct printer *p, uint32_t sweep)
{
    struct text line = {.arena = p->arena};
    text_put(&line, "#pragma omp simd");
    for (uint32_t i = 0; i < p->nest->kernel->instruction_count; i++) {
        const struct instruction *a = instruction_at(p, i);
        if (accumulates(p, sweep, i)) {
            text_printf(&line, " reduction(%s : r%u)", reduction_operator(a), (unsigned)i);
            if (is_extreme(a) && dtype_is_float(a->type))
                text_printf(&line, " reduction(| : nan%u)", (unsigned)i);
        }
        if (may_fault(p, i) && nest_use(p->nest, sweep, i) == USE_COMPUTE &&
            p->nest->value[i].depth == nest_fast_depth(p->nest))
            text_printf(&line, " reduction(| : x%u)", (unsigned)i);
    }
    int indent = p->indent;
    p->indent = 0;
    print_line(p, "%s", line.at);
    p->indent = indent;
}

/* ---- loops ---- */

/* Where the fast loop starts in a kept row. */
static void print_row_start(struct printer *p)
{
    const struct nest *n = p->nest;
    struct text start = {.arena = p->arena};
    for (uint32_t i = 0; i + 1 < n->loops; i++) {
        if (i)
            text_printf(&start, ")*n%u + ", (unsigned)n->loop[i]);
        text_printf(&start, "c%u", (unsigned)n->loop[i]);
    }
    struct text opened = {.arena = p->arena};
    for (uint32_t i = 0; i + 2 < n->loops; i++)
        text_put(&opened, "(");
    print_line(p, "const int64_t row = (%s%s)*n%u;", opened.at ? opened.at : "", start.at, (unsigned)nest_fast_axis(n));
}

static void print_loop_head(struct printer *p, uint32_t axis)
{
    unsigned c = (unsigned)axis;
    if (p->nest->cut_loop)
        print_line(p, "for (int64_t c%u = begin; c%u < end; c%u++) {", c, c, c);
    else if (p->nest->transposes)
        print_line(p, "for (int64_t c%u = tile; c%u < stop; c%u++) {", c, c, c);
    else if (p->nest->kernel->inner >= 2 && axis == p->nest->loop[0])
        print_line(p, "for (int64_t c%u = 0; c%u < n%u && !empty; c%u++) {", c, c, c, c);
    else
        print_line(p, "for (int64_t c%u = 0; c%u < n%u; c%u++) {", c, c, c, c);
    p->indent++;
}

static void print_close(struct printer *p)
{
    p->indent--;
    print_line(p, "}");
}

static void print_sweep(struct printer *p, uint32_t sweep)
{
    const struct nest *n = p->nest;
    print_accumulators(p, sweep);
    for (uint32_t i = 0; i < n->loops; i++) {
        if (i + 1 == n->loops) {
            if (any_kept(n) && n->loops > 1)
                print_row_start(p);
            print_totals(p, sweep, true);
            print_pragma(p, sweep);
        }
        print_loop_head(p, n->loop[i]);
        if (i + 1 < n->loops)
            print_indices(p, DEPTH_LOOP + i, sweep);
        print_values(p, DEPTH_LOOP + i, sweep);
    }
    for (uint32_t i = 0; i < n->loops; i++) {
        print_close(p);
        if (i == 0)
            print_totals(p, sweep, false);
    }
    print_results(p, sweep);
}

/* All of a point, its coordinates being set. */
static void print_point(struct printer *p)
{
    const struct nest *n = p->nest;
    print_indices(p, DEPTH_POINT, 0);
    print_values(p, DEPTH_POINT, 0);
    for (uint32_t sweep = 0; sweep < n->sweeps && n->loops; sweep++) {
        print_sweep(p, sweep);
        print_values(p, DEPTH_POINT, sweep + 1);
    }
}

/* The coordinates of the next point, as an odometer. */
static void print_step(struct printer *p)
{
    const struct nest *n = p->nest;
    for (uint32_t i = n->points; i-- > 1;) {
        unsigned c = (unsigned)n->point[i];
        print_line(p, "if (++c%u == n%u) {", c, c);
        p->indent++;
        print_line(p, "c%u = 0;", c);
    }
    print_line(p, "c%u++;", (unsigned)n->point[0]);
    for (uint32_t i = n->points; i-- > 1;)
        print_close(p);
}

/* All points. */
static void print_points(struct printer *p)
{
    const struct nest *n = p->nest;
    unsigned first = n->points ? (unsigned)n->point[0] : 0;
    if (n->points == 0) {
        print_point(p);
        return;
    }
    if (n->points == 1) {
        print_line(p, "for (int64_t c%u = begin; c%u < end; c%u++) {", first, first, first);
        p->indent++;
        print_point(p);
        print_close(p);
        return;
    }
    print_line(p, "int64_t c%u = begin;", first);
    for (uint32_t i = n->points; i-- > 1;) {
        unsigned c = (unsigned)n->point[i];
        print_line(p, "int64_t c%u = c%u %% n%u;", c, first, c);
        print_line(p, "c%u /= n%u;", first, c);
    }
    print_line(p, "for (int64_t point = begin; point < end; point++) {");
    p->indent++;
    print_point(p);
    print_step(p);
    print_close(p);
}

static void print_function(struct printer *p, const char *name)
{
    const struct nest *n = p->nest;
    print_line(p, "void %s(void *const *buffers, const int64_t *symbols, int64_t begin, int64_t end, int64_t *fault)", name);
    print_line(p, "{");
    p->indent++;
    print_arguments(p);
    print_guard(p);
    print_row_buffers(p);
    print_fault_cells(p);
    print_indices(p, DEPTH_ENTRY, 0);
    print_values(p, DEPTH_ENTRY, 0);
    if (n->transposes) {
        unsigned fast = (unsigned)nest_fast_axis(n);
        print_line(p, "for (int64_t tile = 0; tile < n%u; tile += %d) {", fast, TILE);
        p->indent++;
        print_line(p, "const int64_t stop = tile + %d < n%u ? tile + %d : n%u;", TILE, fast, TILE, fast);
        print_points(p);
        print_close(p);
    } else {
        print_points(p);
    }
    print_fault_reports(p);
    if (any_kept(n))
        print_line(p, "__builtin_free(longer);");
    print_close(p);
}

const struct dialect dialect_c = {
    .name = "c",
    .type = {[DT_BOOL] = "bool", [DT_I8] = "int8_t", [DT_I16] = "int16_t", [DT_I32] = "int32_t", [DT_I64] = "int64_t",
             [DT_U8] = "uint8_t", [DT_U16] = "uint16_t", [DT_U32] = "uint32_t", [DT_U64] = "uint64_t", [DT_F16] = "float",
             [DT_BF16] = "float", [DT_F32] = "float", [DT_F64] = "double"},
    .element = {[DT_BOOL] = "uint8_t", [DT_I8] = "int8_t", [DT_I16] = "int16_t", [DT_I32] = "int32_t", [DT_I64] = "int64_t",
                [DT_U8] = "uint8_t", [DT_U16] = "uint16_t", [DT_U32] = "uint32_t", [DT_U64] = "uint64_t", [DT_F16] = "uint16_t",
                [DT_BF16] = "uint16_t", [DT_F32] = "float", [DT_F64] = "double"},
    .map = c_map,
    .constant = c_constant,
    .load = c_load,
    .store = c_store,
    .function = print_function,
    .prelude = prelude_c,
};
