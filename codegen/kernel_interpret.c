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

struct machine {
    const struct nest *nest;
    const struct kernel *kernel;
    const uint32_t *coordinate; /* symbol of each axis */
    void *const *buffers;
    int64_t *fault;
    int64_t *of; /* all symbols, coordinates among them */
    int64_t extent[2 * KERNEL_AXES];
    union cell *cell; /* [instruction * LANES + lane]; lane 0 alone above the fast loop */
    union cell *sum;  /* [instruction]: accumulators */
    int64_t *index;   /* [lane] */
    bool *touch;      /* [lane] */
    int64_t begin, end;
};

void kernel_fault(int64_t *fault, int64_t code)
{
    int64_t seen = __atomic_load_n(fault, __ATOMIC_RELAXED);
    while ((seen == 0 || seen > code) &&
           !__atomic_compare_exchange_n(fault, &seen, code, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED))
        ;
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

/* The lanes of a value: at[lane * step]. */
struct lanes {
    const union cell *at;
    uint32_t step;
};

static struct lanes lanes_of(const struct machine *m, int32_t i)
{
    bool wide = m->nest->loops && m->nest->value[i].depth == nest_fast_depth(m->nest);
    return (struct lanes){m->cell + (size_t)i * LANES, wide};
}

/* Fills m->index and m->touch: which element each lane accesses, if any. */
static void find_elements(struct machine *m, uint32_t i, uint32_t lanes)
{
    const struct instruction *n = &m->kernel->instruction[i];
    evaluate_lanes(m, n->index, lanes, m->index);
    struct lanes predicate = lanes_of(m, n->predicate < 0 ? 0 : n->predicate),
                 dynamic = lanes_of(m, n->dynamic < 0 ? 0 : n->dynamic);
    for (uint32_t l = 0; l < lanes; l++)
        m->touch[l] = n->predicate < 0 || predicate.at[l * predicate.step].i;
    if (n->dynamic < 0)
        return;
    int64_t stride[LANES], limit[LANES];
    evaluate_lanes(m, n->dynamic_stride, lanes, stride);
    evaluate_lanes(m, n->dynamic_limit, lanes, limit);
    int64_t base[LANES], whole[LANES];
    bool all = n->dynamic_whole != DIM_NONE;
    if (all) {
        evaluate_lanes(m, n->dynamic_base, lanes, base);
        evaluate_lanes(m, n->dynamic_whole, lanes, whole);
    }
    for (uint32_t l = 0; l < lanes; l++) {
        int64_t d = dynamic.at[l * dynamic.step].i;
        bool inside = (uint64_t)d < (uint64_t)limit[l];
        bool known = all ? (uint64_t)d + (uint64_t)base[l] < (uint64_t)whole[l] : inside || n->dynamic_zero;
        if (!known && m->touch[l])
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
    if (n->type == DT_F32) {
        for (uint32_t l = 0; l < lanes; l++)
            out[l].f = m->touch[l] ? (double)((const float *)base)[m->index[l]] : 0;
        return;
    }
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
    struct lanes from = lanes_of(m, n->arg[0]);
    find_elements(m, i, lanes);
    for (uint32_t l = 0; l < lanes; l++) {
        if (!m->touch[l])
            continue;
        union cell x = from.at[l * from.step];
        if (n->type == DT_F32)
            ((float *)base)[m->index[l]] = (float)x.f;
        else if (dtype_is_float(n->type))
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
    struct lanes from = lanes_of(m, n->arg[0]);
    for (uint32_t l = 0; l < lanes; l++) {
        union cell x = from.at[l * from.step];
        if (dtype_is_float(n->type))
            r->f = sum ? r->f + x.f : product ? r->f * x.f : maximum ? cell_larger(r->f, x.f) : cell_smaller(r->f, x.f);
        else if (sum)
            r->i = n->type == DT_BOOL ? (r->i | x.i) : (int64_t)((uint64_t)r->i + (uint64_t)x.i);
        else if (product)
            r->i = (int64_t)((uint64_t)r->i * (uint64_t)x.i);
        else
            r->i = cell_below(n->type, r->i, x.i) == maximum ? x.i : r->i;
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

#define EACH(expression)                                                                                               \
    for (uint32_t l = 0; l < lanes; l++) {                                                                             \
        double x = a.at[l * a.step].f, y = b.at[l * b.step].f;                                                         \
        (void)y;                                                                                                       \
        out[l].f = cell_round(n->type, expression);                                                                    \
    }                                                                                                                  \
    return true

/* The operations of which most kernels are made, without a decision per lane. */
static bool map_common(const struct instruction *n, struct lanes a, struct lanes b, uint32_t lanes, union cell *out)
{
    if (!dtype_is_float(n->type))
        return false;
    switch ((int)n->op) {
    case OP_ADD:
        EACH(x + y);
    case OP_SUB:
        EACH(x - y);
    case OP_MUL:
        EACH(x * y);
    case OP_DIV:
        EACH(x / y);
    case OP_NEG:
        EACH(-x);
    case OP_EXP:
        EACH(exp(x));
    default:
        return false;
    }
}
#undef EACH

static void execute_map(struct machine *m, uint32_t i, uint32_t lanes)
{
    const struct instruction *n = &m->kernel->instruction[i];
    struct lanes arg[3];
    dtype from = DT_NONE;
    for (int k = 0; k < 3; k++) {
        arg[k] = lanes_of(m, n->arg[k] < 0 ? n->arg[0] : n->arg[k]);
        from = n->arg[k] < 0 ? from : m->kernel->instruction[n->arg[k]].type;
    }
    union cell *out = &m->cell[(size_t)i * LANES];
    if (map_common(n, arg[0], arg[1], lanes, out))
        return;
    for (uint32_t l = 0; l < lanes; l++)
        out[l] = cell_map(n, from, arg[0].at[l * arg[0].step], arg[1].at[l * arg[1].step], arg[2].at[l * arg[2].step]);
}

static void execute(struct machine *m, uint32_t i, uint32_t lanes)
{
    const struct instruction *n = &m->kernel->instruction[i];
    union cell *out = &m->cell[(size_t)i * LANES];
    switch (n->kind) {
    case INST_CONST:
        if (dtype_is_float(n->type))
            out->f = cell_round(n->type, n->number);
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
    case INST_MAP:
        execute_map(m, i, lanes);
        return;
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
            here = nest_use(n, sweep, i) != USE_NONE &&
                   (reduce ? depth == nest_fast_depth(n) : n->value[i].depth == depth);
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
        m->sum[i] =
            m->kernel->instruction[i].kind == INST_REDUCE ? neutral(&m->kernel->instruction[i]) : (union cell){0};
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
            out->f = cell_round(a->type, out->f);
        else
            out->i = cell_wrap(a->type, out->i);
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

void kernel_interpret(const struct nest *n, const uint32_t *coordinate, void *const *buffers, const int64_t *of,
                      int64_t begin, int64_t end, int64_t *fault)
{
    const struct kernel *k = n->kernel;
    size_t symbols = dims_symbol_count(n->dims) + 2 * KERNEL_AXES, cells = (size_t)k->instruction_count * (LANES + 1);
    char *memory = base_alloc(cells * sizeof(union cell) + (symbols + LANES) * sizeof(int64_t) + LANES * sizeof(bool));
    if (!memory) {
        kernel_fault(fault, KERNEL_NO_MEMORY);
        return;
    }
    struct machine m = {.nest = n,
                        .kernel = k,
                        .coordinate = coordinate,
                        .buffers = buffers,
                        .fault = fault,
                        .begin = begin,
                        .end = end};
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
