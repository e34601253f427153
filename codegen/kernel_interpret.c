/* codegen/kernel_interpret.c - executes a kernel without a compiler.
 *
 * It walks the same loop nest as printed code does, but takes the fast loop in blocks of lanes: each instruction works on a block before the next
 * one starts, so that decoding costs little. A value is 8 bytes per lane: a double (rounded to f32 after every operation of a smaller
 * type) or an int64 that holds its type exactly. Index expressions are affine in the fast coordinate almost always; then a block
 * needs one evaluation. Start at kernel_interpret.
 */
#include "codegen/dialect.h"

#include <math.h>

enum { LANES = 128 };

union cell {
    double f;
    int64_t i;
};

struct machine {
    const struct nest *nest;
    const struct kernel *kernel;
    const uint32_t *coordinate; /* symbol of each axis */
    void *const *buffers;
    int64_t *fault;
    int64_t *of;                /* all symbols, coordinates among them */
    int64_t extent[2 * KERNEL_AXES];
    union cell *cell;           /* [instruction * LANES + lane]; lane 0 alone above the fast loop */
    union cell *sum;            /* [instruction]: accumulators */
    int64_t *index;             /* [lane] */
    bool *touch;                /* [lane] */
    int64_t begin, end;
};

void kernel_fault(int64_t *fault, int64_t code)
{
    int64_t seen = __atomic_load_n(fault, __ATOMIC_RELAXED);
    while ((seen == 0 || seen > code) &&
           !__atomic_compare_exchange_n(fault, &seen, code, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED))
        ;
}

/* ---- numbers ---- */

static double round_to(dtype t, double x)
{
    return t == DT_F64 ? x : (double)(float)x;
}

static int64_t wrap(dtype t, int64_t x)
{
    switch (t) {
    case DT_BOOL:
        return x != 0;
    case DT_I8:
        return (int8_t)(uint8_t)((uint64_t)x & 0xff);
    case DT_I16:
        return (int16_t)(uint16_t)((uint64_t)x & 0xffff);
    case DT_I32:
        return (int32_t)(uint32_t)((uint64_t)x & 0xffffffff);
    case DT_U8:
        return x & 0xff;
    case DT_U16:
        return x & 0xffff;
    case DT_U32:
        return x & 0xffffffff;
    case DT_I64:
    case DT_U64:
    case DT_F16:
    case DT_BF16:
    case DT_F32:
    case DT_F64:
    case DT_NONE:
    case DT_COUNT:
        break;
    }
    return x;
}

static bool below(dtype t, int64_t a, int64_t b)
{
    return t == DT_U64 ? (uint64_t)a < (uint64_t)b : a < b;
}

static double larger(double a, double b)
{
    return a > b || isnan(a) ? a : b;
}
static double smaller(double a, double b)
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
        return larger(a, b);
    case OP_MIN:
        return smaller(a, b);
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
    bool less = below(n->type, a, b), negative = dtype_is_signed(n->type) && a < 0;
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
        return (union cell){.i = wrap(to, a.i)};
    double x = dtype_is_float(from) ? a.f : from == DT_U64 ? (double)(uint64_t)a.i : (double)a.i;
    if (to == DT_F16 || to == DT_BF16)
        return (union cell){.f = (double)(to == DT_F16 ? f16_to_f32(f64_to_f16(x)) : bf16_to_f32(f64_to_bf16(x)))};
    if (to == DT_F32 && !dtype_is_float(from)) /* one rounding */
        return (union cell){.f = from == DT_U64 ? (double)(float)(uint64_t)a.i : (double)(float)a.i};
    return (union cell){.f = round_to(to, x)};
}

static bool compare(op o, dtype t, union cell a, union cell b)
{
    if (dtype_is_float(t))
        return o == OP_EQ ? a.f == b.f : o == OP_LT ? a.f < b.f : a.f <= b.f;
    return o == OP_EQ ? a.i == b.i : o == OP_LT ? below(t, a.i, b.i) : !below(t, b.i, a.i);
}

static union cell map(const struct instruction *n, dtype from, union cell a, union cell b, union cell c)
{
    switch ((int)n->op) {
    case OP_CAST:
        return cast(from, n->type, a);
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
            return (union cell){.f = round_to(n->type, float_map(n, a.f, b.f))};
        return (union cell){.i = wrap(n->type, int_map(n, a.i, b.i))};
    }
}

/* ---- indices ---- */

static int64_t evaluate(const struct machine *m, dim d)
{
    int64_t x = 0;
    return dim_eval(m->nest->dims, d, m->of, &x) ? x : 0;
}

static bool is_fast(const struct machine *m, dim d)
{
    return m->nest->loops && nest_depth(m->nest, d) == nest_fast_depth(m->nest);
}

/* d == rest + coefficient * the fast coordinate? */
static bool affine(const struct machine *m, dim d, int64_t *coefficient)
{
    struct dim_node n = dim_get(m->nest->dims, d);
    *coefficient = 0;
    if (!is_fast(m, d))
        return true;
    int64_t part;
    bool found = false;
    switch (n.op) {
    case DIM_SYMBOL:
        *coefficient = 1;
        return true;
    case DIM_SUM:
        for (uint32_t i = 0; i < n.count; i++) {
            if (!affine(m, n.arg[i], &part))
                return false;
            *coefficient += n.coefficient[i] * part;
        }
        return true;
    case DIM_PRODUCT:
        *coefficient = 1;
        for (uint32_t i = 0; i < n.count; i++) {
            bool fast = is_fast(m, n.arg[i]);
            if (fast && (found || dim_get(m->nest->dims, n.arg[i]).op != DIM_SYMBOL)) /* a square, or a compound */
                return false;
            *coefficient *= fast ? 1 : evaluate(m, n.arg[i]);
            found |= fast;
        }
        return true;
    case DIM_CONST:
    case DIM_DIV:
    case DIM_CEILDIV:
    case DIM_MOD:
    case DIM_MAX:
    case DIM_MIN:
        break;
    }
    return false;
}

static void evaluate_lanes(struct machine *m, dim d, uint32_t lanes, int64_t *out)
{
    int64_t step, first = evaluate(m, d);
    if (lanes == 1 || affine(m, d, &step)) {
        for (uint32_t l = 0; l < lanes; l++)
            out[l] = first + (l ? (int64_t)l * step : 0);
        return;
    }
    int64_t *fast = &m->of[m->coordinate[nest_fast_axis(m->nest)]], start = *fast;
    for (uint32_t l = 0; l < lanes; l++) {
        *fast = start + l;
        out[l] = evaluate(m, d);
    }
    *fast = start;
}

/* ---- instructions ---- */

static union cell cell_at(const struct machine *m, int32_t i, uint32_t lane)
{
    bool wide = m->nest->loops && m->nest->value[i].depth == nest_fast_depth(m->nest);
    return m->cell[(size_t)i * LANES + (wide ? lane : 0)];
}

/* Fills m->index and m->touch: which element each lane accesses, if any. */
static void find_elements(struct machine *m, uint32_t i, uint32_t lanes)
{
    const struct instruction *n = &m->kernel->instruction[i];
    evaluate_lanes(m, n->index, lanes, m->index);
    for (uint32_t l = 0; l < lanes; l++)
        m->touch[l] = n->predicate < 0 || cell_at(m, n->predicate, l).i;
    if (n->dynamic < 0)
        return;
    int64_t stride[LANES], limit[LANES];
    evaluate_lanes(m, n->dynamic_stride, lanes, stride);
    evaluate_lanes(m, n->dynamic_limit, lanes, limit);
    for (uint32_t l = 0; l < lanes; l++) {
        int64_t d = cell_at(m, n->dynamic, l).i;
        bool inside = (uint64_t)d < (uint64_t)limit[l];
        if (!inside && m->touch[l] && !n->dynamic_zero)
            kernel_fault(m->fault, (int64_t)i + 1);
        m->touch[l] = m->touch[l] && inside;
        m->index[l] += m->touch[l] ? d * stride[l] : 0;
    }
}

static void load(struct machine *m, uint32_t i, uint32_t lanes)
{
    const struct instruction *n = &m->kernel->instruction[i];
    const void *base = m->buffers[n->buffer];
    union cell *out = &m->cell[(size_t)i * LANES];
    find_elements(m, i, lanes);
    for (uint32_t l = 0; l < lanes; l++) {
        size_t at = (size_t)m->index[l];
        if (dtype_is_float(n->type))
            out[l].f = m->touch[l] ? dtype_load_f64(n->type, base, at) : 0;
        else
            out[l].i = m->touch[l] ? dtype_load_i64(n->type, base, at) : 0;
    }
}

static void store(struct machine *m, uint32_t i, uint32_t lanes)
{
    const struct instruction *n = &m->kernel->instruction[i];
    void *base = m->buffers[n->buffer];
    find_elements(m, i, lanes);
    for (uint32_t l = 0; l < lanes; l++) {
        if (!m->touch[l])
            continue;
        union cell x = cell_at(m, n->arg[0], l);
        if (dtype_is_float(n->type))
            dtype_store_f64(n->type, base, (size_t)m->index[l], x.f);
        else
            dtype_store_i64(n->type, base, (size_t)m->index[l], x.i);
    }
}

static void accumulate(struct machine *m, uint32_t i, uint32_t lanes)
{
    const struct instruction *n = &m->kernel->instruction[i];
    bool sum = n->op == OP_REDUCE_SUM, product = n->op == OP_REDUCE_PROD, maximum = n->op == OP_REDUCE_MAX;
    union cell *r = &m->sum[i];
    for (uint32_t l = 0; l < lanes; l++) {
        union cell x = cell_at(m, n->arg[0], l);
        if (dtype_is_float(n->type))
            r->f = sum ? r->f + x.f : product ? r->f * x.f : maximum ? larger(r->f, x.f) : smaller(r->f, x.f);
        else if (sum)
            r->i = n->type == DT_BOOL ? (r->i | x.i) : (int64_t)((uint64_t)r->i + (uint64_t)x.i);
        else if (product)
            r->i = (int64_t)((uint64_t)r->i * (uint64_t)x.i);
        else
            r->i = below(n->type, r->i, x.i) == maximum ? x.i : r->i;
    }
}

static union cell neutral(const struct instruction *n)
{
    unsigned bits = 8 * (unsigned)dtype_size(n->type);
    bool maximum = n->op == OP_REDUCE_MAX, sum = n->op == OP_REDUCE_SUM;
    if (sum || n->op == OP_REDUCE_PROD)
        return dtype_is_float(n->type) ? (union cell){.f = sum ? 0 : 1} : (union cell){.i = sum ? 0 : 1};
    if (dtype_is_float(n->type))
        return (union cell){.f = maximum ? -(double)INFINITY : (double)INFINITY};
    if (n->type == DT_BOOL)
        return (union cell){.i = !maximum};
    if (!dtype_is_signed(n->type))
        return (union cell){.i = maximum ? 0 : (int64_t)(UINT64_MAX >> (64 - bits))};
    return (union cell){.i = maximum ? (int64_t)(UINT64_MAX << (bits - 1)) : (int64_t)(UINT64_MAX >> (65 - bits))};
}

static void execute(struct machine *m, uint32_t i, uint32_t lanes)
{
    const struct instruction *n = &m->kernel->instruction[i];
    union cell *out = &m->cell[(size_t)i * LANES];
    switch (n->kind) {
    case INST_CONST:
        if (dtype_is_float(n->type))
            out->f = round_to(n->type, n->number);
        else
            out->i = n->integer;
        return;
    case INST_INDEX:
        evaluate_lanes(m, n->index, lanes, m->index);
        for (uint32_t l = 0; l < lanes; l++)
            out[l].i = m->index[l];
        return;
    case INST_LOAD:
        load(m, i, lanes);
        return;
    case INST_MAP: {
        dtype from = DT_NONE;
        for (int a = 0; a < 3 && n->arg[a] >= 0; a++)
            from = m->kernel->instruction[n->arg[a]].type;
        for (uint32_t l = 0; l < lanes; l++) {
            union cell a = cell_at(m, n->arg[0], l), b = n->arg[1] >= 0 ? cell_at(m, n->arg[1], l) : a;
            out[l] = map(n, from, a, b, n->arg[2] >= 0 ? cell_at(m, n->arg[2], l) : a);
        }
        return;
    }
    case INST_REDUCE:
        accumulate(m, i, lanes);
        return;
    case INST_STORE:
        store(m, i, lanes);
        return;
    }
}

/* ---- the nest ---- */

/* As print_values. */
static void run_values(struct machine *m, uint32_t depth, uint32_t sweep, uint32_t lanes)
{
    const struct nest *n = m->nest;
    for (uint32_t i = 0; i < m->kernel->instruction_count; i++) {
        bool reduce = m->kernel->instruction[i].kind == INST_REDUCE, here;
        if (depth < DEPTH_LOOP)
            here = n->value[i].live && n->value[i].depth == depth && n->value[i].stage == sweep && !reduce;
        else
            here = nest_use(n, sweep, i) != USE_NONE && (reduce ? depth == nest_fast_depth(n) : n->value[i].depth == depth);
        if (here)
            execute(m, i, lanes);
    }
}

static void run_loop(struct machine *m, uint32_t sweep, uint32_t loop)
{
    const struct nest *n = m->nest;
    int64_t *c = &m->of[m->coordinate[n->loop[loop]]];
    int64_t begin = n->cut_loop ? m->begin : 0, end = n->cut_loop ? m->end : m->extent[n->loop[loop]];
    bool fast = loop + 1 == n->loops;
    for (*c = begin; *c < end; *c += fast ? LANES : 1) {
        int64_t left = end - *c;
        run_values(m, DEPTH_LOOP + loop, sweep, !fast ? 1 : left < LANES ? (uint32_t)left : LANES);
        if (!fast)
            run_loop(m, sweep, loop + 1);
    }
}

static void run_sweep(struct machine *m, uint32_t sweep)
{
    const struct nest *n = m->nest;
    bool empty = false;
    for (uint32_t i = 0; i < m->kernel->instruction_count; i++)
        m->sum[i] = m->kernel->instruction[i].kind == INST_REDUCE ? neutral(&m->kernel->instruction[i]) : (union cell){0};
    for (uint32_t i = 0; i < n->loops && !n->cut_loop; i++)
        empty |= m->extent[n->loop[i]] <= 0;
    if (!empty)
        run_loop(m, sweep, 0);
    for (uint32_t i = 0; i < m->kernel->instruction_count; i++) {
        const struct instruction *a = &m->kernel->instruction[i];
        if (a->kind != INST_REDUCE || nest_use(n, sweep, i) == USE_NONE)
            continue;
        union cell *out = &m->cell[(size_t)i * LANES];
        *out = m->sum[i];
        if (dtype_is_float(a->type))
            out->f = round_to(a->type, out->f);
        else
            out->i = wrap(a->type, out->i);
    }
}

static void run_point(struct machine *m)
{
    const struct nest *n = m->nest;
    run_values(m, DEPTH_POINT, 0, 1);
    for (uint32_t sweep = 0; sweep < n->sweeps && n->loops; sweep++) {
        run_sweep(m, sweep);
        run_values(m, DEPTH_POINT, sweep + 1, 1);
    }
}

static void run_points(struct machine *m)
{
    const struct nest *n = m->nest;
    if (m->begin >= m->end)
        return;
    if (m->kernel->inner == 0 && n->loops && !n->cut_loop && m->extent[n->loop[0]] <= 0)
        return;
    run_values(m, DEPTH_ENTRY, 0, 1);
    if (n->points == 0) {
        run_point(m);
        return;
    }
    for (int64_t point = m->begin; point < m->end; point++) {
        int64_t rest = point;
        for (uint32_t i = n->points; i-- > 0;) {
            int64_t extent = m->extent[n->point[i]];
            m->of[m->coordinate[n->point[i]]] = i ? rest % extent : rest;
            rest = i ? rest / extent : 0;
        }
        run_point(m);
    }
}

void kernel_interpret(const struct nest *n, const uint32_t *coordinate, void *const *buffers, const int64_t *of, int64_t begin, int64_t end,
                      int64_t *fault)
{
    const struct kernel *k = n->kernel;
    size_t symbols = dims_symbol_count(n->dims) + 2 * KERNEL_AXES, cells = (size_t)k->instruction_count * (LANES + 1);
    char *memory = base_alloc(cells * sizeof(union cell) + (symbols + LANES) * sizeof(int64_t) + LANES * sizeof(bool));
    if (!memory) {
        kernel_fault(fault, KERNEL_NO_MEMORY);
        return;
    }
    struct machine m = {.nest = n, .kernel = k, .coordinate = coordinate, .buffers = buffers, .fault = fault, .begin = begin, .end = end};
    m.cell = (union cell *)(void *)memory;
    m.sum = m.cell + (size_t)k->instruction_count * LANES;
    m.of = (int64_t *)(void *)(m.cell + cells);
    m.index = m.of + symbols;
    m.touch = (bool *)(m.index + LANES);
    for (uint32_t i = 0; i < n->symbol_count; i++)
        m.of[n->symbol[i]] = of[n->symbol[i]];
    for (uint32_t i = 0; i < k->outer + k->inner; i++)
        m.extent[i] = evaluate(&m, k->extent[i]);
    run_points(&m);
    base_free(memory);
}
