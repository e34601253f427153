/* codegen/function_c.c - a kernel as one function of host C.
 *
 *     void tpc_k_HASH(void *const *buffers, const int64_t *symbols, int64_t begin, int64_t end, int64_t *fault)
 *
 * Points are run through in order from begin to end; the fast loop is marked `omp simd` (no two points write one element), with the
 * accumulators of reductions as its reduction variables: that vectorises sums without giving up IEEE arithmetic elsewhere. Start at function_c.
 */
#include "codegen/dialect.h"

enum {
    ROW_ON_STACK = 4096, /* elements of a kept row; longer ones are allocated per call */
    TILE = 16 /* of the fast axis, where a kernel transposes: so many cache lines are used up before the next tile */
};

/* ---- head of the function ---- */

static const struct instruction *instruction_at(const struct printer *p, uint32_t i)
{
    return &p->nest->kernel->instruction[i];
}

static const char *type_of(const struct printer *p, const struct instruction *a)
{
    return p->dialect->type[a->type];
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
        print_line(p, "%s%s *%sb%u = buffers[%u];", b->written ? "" : "const ", p->dialect->element[b->type],
                   both ? "" : "restrict ", (unsigned)i, (unsigned)i);
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
            print_line(p, "%s k%u_short[%d];", p->dialect->type[instruction_at(p, i)->type], (unsigned)i, ROW_ON_STACK);
            bytes += 8;
        }
    print_line(p, "char *const longer = length > %d ? __builtin_malloc((uint64_t)length * %u) : 0;", ROW_ON_STACK,
               (unsigned)bytes);
    print_line(p, "if (length > %d && !longer) {", ROW_ON_STACK);
    print_line(p, "    tpc_fault(fault, INT64_MAX);");
    print_line(p, "    return;");
    print_line(p, "}");
    bytes = 0;
    for (uint32_t i = 0; i < n->kernel->instruction_count; i++)
        if (n->value[i].kept) {
            const char *type = p->dialect->type[instruction_at(p, i)->type];
            print_line(p, "%s *restrict const k%u = longer ? (%s *)(longer + length * %u) : k%u_short;", type,
                       (unsigned)i, type, (unsigned)bytes, (unsigned)i);
            bytes += 8;
        }
}

static bool may_fault(const struct printer *p, uint32_t i)
{
    const struct instruction *a = instruction_at(p, i);
    return p->nest->value[i].live && (a->kind == INST_LOAD || a->kind == INST_STORE) && print_may_fault(a);
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

const char *print_accumulator_type(const struct dialect *d, const struct instruction *a)
{
    if (dtype_is_float(a->type) || (is_extreme(a) && a->type != DT_BOOL))
        return d->type[a->type];
    return a->type == DT_BOOL ? "int32_t" : dtype_size(a->type) == 8 ? "uint64_t" : "uint32_t";
}

static const char *neutral(const struct instruction *a)
{
    bool maximum = a->op == OP_REDUCE_MAX;
    if (a->op == OP_REDUCE_SUM || a->op == OP_REDUCE_PROD)
        return a->op == OP_REDUCE_SUM ? "0" : "1";
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
    case DT_F8E4M3FN: /* nothing is computed in these */
    case DT_F8E4M3FNUZ:
    case DT_F8E5M2:
    case DT_F8E5M2FNUZ:
    case DT_F8E8M0:
    case DT_F4E2M1:
    case DT_U4:
    case DT_I4:
    case DT_U2:
    case DT_I2:
    case DT_COUNT:
        break;
    }
    return maximum ? "0" : "1";
}

void print_neutral(const struct dialect *d, const struct instruction *a, struct text *out)
{
    if (is_extreme(a) && dtype_is_float(a->type))
        text_printf(out, "%s%s", a->op == OP_REDUCE_MAX ? "-" : "", d->infinity[a->type == DT_F64]);
    else
        text_put(out, neutral(a));
}

static const char *nan_type(const struct instruction *a)
{
    return a->type == DT_F64 ? "int64_t" : "int32_t";
}

/* Is the sum of a fast loop added to a wider total? Short fast loops would make a long chain of small roundings else. */
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
        struct text start = {.arena = p->arena};
        print_neutral(p->dialect, a, &start);
        if (has_total(p, a))
            print_line(p, "double t%u = 0;", (unsigned)i);
        else
            print_line(p, "%s r%u = %s;", print_accumulator_type(p->dialect, a), (unsigned)i, start.at);
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
        const char *type = type_of(p, a);
        if (is_extreme(a) && dtype_is_float(a->type))
            print_line(p, "const %s v%u = nan%u ? %s : r%u;", type, (unsigned)i, (unsigned)i,
                       a->type == DT_F64 ? "__builtin_nan(\"\")" : "__builtin_nanf(\"\")", (unsigned)i);
        else
            print_line(p, "const %s v%u = (%s)%c%u;", type, (unsigned)i, type, has_total(p, a) ? 't' : 'r',
                       (unsigned)i);
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

void function_c(struct printer *p, const char *name)
{
    const struct nest *n = p->nest;
    print_line(p, "void %s(void *const *buffers, const int64_t *symbols, int64_t begin, int64_t end, int64_t *fault)",
               name);
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
