/* tests/unit/codegen_test.c - kernels built by hand: compiled C and the kernel interpreter against the reference interpreter or a computation here;
 * the cache. Buffers end at a page that may not be touched. */
#include "codegen/codegen.h"
#include "ir/interpret.h"
#include "tests/test.h"

#include <dirent.h>
#include <math.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- building kernels ---- */

struct build {
    struct arena *arena;
    struct program program;
    struct dims *dims;
    struct kernel kernel;
    LIST(struct instruction) list;
    LIST(struct kernel_buffer) buffers;
    LIST(dim) extents;
};

static char cache[4096];

static void begin(struct build *b)
{
    memset(b, 0, sizeof *b);
    b->arena = arena_new();
    b->program.graph = graph_new(b->arena);
    mesh_init(&b->program.graph->mesh, "tp", 1);
    b->dims = b->program.graph->dims;
}

static dim axis(struct build *b, uint32_t i)
{
    return dim_coordinate(b->dims, i);
}
static dim number(struct build *b, int64_t n)
{
    return dim_const(b->dims, n);
}
static dim symbol(struct build *b, const char *name)
{
    return dim_symbol(b->dims, name);
}

static void shape(struct build *b, uint32_t outer, uint32_t inner, const dim *extent)
{
    b->kernel.outer = outer;
    b->kernel.inner = inner;
    b->extents.count = 0;
    for (uint32_t i = 0; i < outer + inner; i++)
        *PUSH(b->arena, &b->extents) = extent[i];
}

static uint32_t buffer(struct build *b, dtype t, bool written)
{
    *PUSH(b->arena, &b->buffers) = (struct kernel_buffer){t, written};
    return b->buffers.count - 1;
}

static struct instruction *add(struct build *b, instruction_kind kind, dtype t, int32_t level)
{
    struct instruction *n = PUSH(b->arena, &b->list);
    *n = (struct instruction){
        .kind = kind, .type = t, .level = level, .arg = {-1, -1, -1}, .dynamic = -1, .predicate = -1};
    n->node = 100 + b->list.count; /* tells instructions apart in faults */
    return n;
}
static int32_t last(const struct build *b)
{
    return (int32_t)b->list.count - 1;
}

static int32_t load(struct build *b, uint32_t from, dim index, int32_t level)
{
    struct instruction *n = add(b, INST_LOAD, b->buffers.at[from].type, level);
    n->buffer = from;
    n->index = index;
    return last(b);
}

static void store(struct build *b, uint32_t to, dim index, int32_t x, int32_t level)
{
    struct instruction *n = add(b, INST_STORE, b->buffers.at[to].type, level);
    n->buffer = to;
    n->index = index;
    n->arg[0] = x;
}

static int32_t map(struct build *b, op o, dtype t, int32_t x, int32_t y, int32_t z, int32_t level)
{
    struct instruction *n = add(b, INST_MAP, t, level);
    n->op = o;
    n->arg[0] = x;
    n->arg[1] = y;
    n->arg[2] = z;
    return last(b);
}

static int32_t constant(struct build *b, dtype t, double x)
{
    struct instruction *n = add(b, INST_CONST, t, 0);
    n->number = dtype_is_float(t) ? x : 0;
    n->integer = dtype_is_float(t) ? 0 : (int64_t)x;
    return last(b);
}

static int32_t reduce(struct build *b, op o, dtype t, int32_t x)
{
    struct instruction *n = add(b, INST_REDUCE, t, 0);
    n->op = o;
    n->arg[0] = x;
    return last(b);
}

static int32_t index_value(struct build *b, dim d, int32_t level)
{
    add(b, INST_INDEX, DT_I64, level)->index = d;
    return last(b);
}

/* Adds what was built as one more kernel. */
static uint32_t finish(struct build *b)
{
    struct kernel k = b->kernel;
    k.extent = b->extents.at;
    k.buffer = b->buffers.at;
    k.buffer_count = b->buffers.count;
    k.instruction = b->list.at;
    k.instruction_count = b->list.count;
    memset(&b->buffers, 0, sizeof b->buffers);
    memset(&b->list, 0, sizeof b->list);
    memset(&b->extents, 0, sizeof b->extents);
    assert_int_equal(kernel_verify(&k, b->dims, NULL), TPC_OK);
    *PUSH(b->arena, &b->program.kernels) = k;
    return b->program.kernels.count - 1;
}

static unsigned warnings;
static void count_line(void *user, severity level, const char *line)
{
    (void)user;
    (void)line;
    warnings += level == DIAG_WARNING;
}
static struct diag quiet = {.sink = count_line};

static struct kernel_set *load_set(struct build *b, bool interpret)
{
    struct kernel_set *set;
    struct codegen_options o = {.cache = cache, .no_compiler = interpret};
    assert_int_equal(kernels_load(b->arena, &b->program, &o, NULL, &set), TPC_OK);
    return set;
}

/* ---- memory ---- */

static void *guarded(size_t bytes)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE), whole = (bytes + page - 1) / page * page;
    char *at = mmap(NULL, whole + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_true(at != MAP_FAILED);
    assert_int_equal(mprotect(at + whole, page, PROT_NONE), 0);
    return at + (whole - bytes);
}
static void unguard(void *p, size_t bytes)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE), whole = (bytes + page - 1) / page * page;
    munmap((char *)p - (whole - bytes), whole + page);
}

static uint64_t random_state = 1;
static uint32_t random_below(uint32_t n)
{
    random_state = random_state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)((random_state >> 33) % n);
}
static double unit(void)
{
    return random_below(2000001) / 1e6 - 1;
}

static double interesting(dtype t, uint32_t i)
{
    static const double floats[] = {0, -0.0, 1,   -1,   0.5,   -0.5, 1.5,   2.5,   -2.5, 1e-3, -1e-7,
                                    3, 88.5, -87, -103, 1e-40, 1e30, -1e30, 65504, 300,  -300};
    uint32_t n = sizeof floats / sizeof floats[0];
    if (i < n)
        return floats[i];
    if (i < n + 3)
        return i == n ? (double)NAN : i == n + 1 ? (double)INFINITY : -(double)INFINITY;
    double x = unit() * (i % 3 == 0 ? 1 : i % 3 == 1 ? 5 : ldexp(1, (int)random_below(60) - 30));
    return dtype_is_float(t) ? x : x * 100;
}

static void fill(dtype t, void *p, size_t count)
{
    static const int64_t ints[] = {0,      1,     -1,        2,         -2,         3,         7,        8,
                                   31,     32,    63,        64,        127,        -128,      255,      32767,
                                   -32768, 65535, INT32_MAX, INT32_MIN, UINT32_MAX, INT64_MAX, INT64_MIN};
    for (size_t i = 0; i < count; i++) {
        uint32_t k = random_below(4) ? random_below(64) + 24 : random_below(24);
        if (dtype_is_float(t))
            dtype_store_f64(t, p, i, interesting(t, k));
        else if (t == DT_BOOL)
            dtype_store_i64(t, p, i, random_below(2));
        else
            dtype_store_i64(t, p, i, k < 23 ? ints[k] : (int64_t)random_below(25) - (dtype_is_signed(t) ? 12 : 0));
    }
}

static bool close_to(dtype t, double got, double wanted, double ulps)
{
    double step = dtype_is_stored(t) ? 0 : dtype_spacing(t); /* conversions are exact */
    double tiny = dtype_is_stored(t) ? 0
                  : t == DT_F64      ? 0x1p-1074
                  : t == DT_F16      ? 0x1p-24
                  : t == DT_F32      ? 0x1p-149
                                     : 0x1p-133;
    if (isnan(wanted) || isinf(wanted))
        return isnan(wanted) ? isnan(got) : got == wanted;
    return fabs(got - wanted) <= ulps * (step * fabs(wanted) + tiny);
}

static void run(const struct kernel_set *set, uint32_t kernel, void *const *buffers, const int64_t *of, int64_t *fault)
{
    int64_t extent = kernel_extent(set, kernel, of);
    assert_true(extent >= 0);
    for (int64_t at = 0; at < extent;) { /* any cut must do */
        int64_t take = 1 + (int64_t)random_below((uint32_t)(extent < 50 ? extent : extent / 3) + 1);
        take = take < extent - at ? take : extent - at;
        kernel_run(set, kernel, buffers, of, at, at + take, fault);
        at += take;
    }
}

/* ---- every pointwise row on every type ---- */

enum { ROWS = 128, LENGTH = 300 };

struct row {
    op op;
    dtype result;
    int32_t mode;
};

static bool takes(op o, dtype t)
{
    bool is_float = dtype_is_float(t), is_bool = t == DT_BOOL;
    if (dtype_is_stored(t))
        return o == OP_SELECT || o == OP_CAST || o == OP_BITCAST;
    switch ((int)o) {
    case OP_NOT:
    case OP_AND:
    case OP_OR:
    case OP_XOR:
        return !is_float;
    case OP_SHL:
    case OP_SHR:
        return !is_float && !is_bool;
    case OP_COUNT_ONCE:
        return false;
    case OP_NEG:
    case OP_ABS:
    case OP_SIGN:
    case OP_ADD:
    case OP_SUB:
    case OP_MUL:
    case OP_DIV:
    case OP_MOD:
    case OP_POW:
        return !is_bool;
    case OP_MAX:
    case OP_MIN:
    case OP_EQ:
    case OP_LT:
    case OP_LE:
    case OP_SELECT:
    case OP_CAST:
    case OP_BITCAST:
        return true;
    default:
        return is_float;
    }
}

/* All rows that t can take; a cast to each type. */
static uint32_t rows_of(dtype t, struct row *rows)
{
    uint32_t count = 0;
    for (op o = OP_NONE + 1; o < OP_COUNT; o++) {
        if (op_info(o)->class != CLASS_POINTWISE || !takes(o, t))
            continue;
        bool test = o == OP_EQ || o == OP_LT || o == OP_LE || o == OP_ISNAN || o == OP_ISINF;
        bool converts = o == OP_CAST || o == OP_BITCAST;
        for (dtype to = DT_NONE + 1; to < DT_COUNT && converts; to++)
            if (to != t && (o == OP_CAST || dtype_bits(to) == dtype_bits(t)))
                rows[count++] = (struct row){o, to, 0};
        for (int32_t mode = 1; mode <= (o == OP_ISINF ? 3 : 1) && !converts; mode++)
            rows[count++] = (struct row){o, test ? DT_BOOL : t, o == OP_ISINF ? mode : 0};
    }
    return count;
}

static uint32_t build_rows(struct build *b, dtype t, const struct row *rows, uint32_t count)
{
    dim n = symbol(b, "batch_of_the_model"), c = axis(b, 0);
    shape(b, 1, 0, &n);
    uint32_t from[3] = {buffer(b, DT_BOOL, false), buffer(b, t, false), buffer(b, t, false)};
    int32_t x[3];
    for (int i = 0; i < 3; i++)
        x[i] = load(b, from[i], c, 0);
    for (uint32_t r = 0; r < count; r++) {
        uint32_t to = buffer(b, rows[r].result, true);
        int arity = op_info(rows[r].op)->arity;
        int32_t y = arity == 3 ? map(b, rows[r].op, t, x[0], x[1], x[2], 0)
                               : map(b, rows[r].op, rows[r].result, x[1], arity == 2 ? x[2] : -1, -1, 0);
        b->list.at[y].mode = rows[r].mode;
        store(b, to, c, y, 0);
    }
    return finish(b);
}

/* The same rows as a Graph, by the reference interpreter. */
static void reference_rows(dtype t, const struct row *rows, uint32_t count, struct arena *arena, struct tensor *inputs,
                           struct interpretation *out)
{
    struct graph *g = graph_new(arena);
    dim n = dim_const(g->dims, LENGTH);
    value x[3] = {graph_input(g, "p", DT_BOOL, 1, &n), graph_input(g, "a", t, 1, &n), graph_input(g, "b", t, 1, &n)};
    for (uint32_t r = 0; r < count; r++) {
        struct attribute a = {.mode = rows[r].mode};
        int arity = op_info(rows[r].op)->arity;
        value y = graph_add(g, rows[r].op, rows[r].result, 0, NULL, (uint32_t)arity, arity == 3 ? x : x + 1, &a);
        graph_output(g, arena_printf(arena, "o%u", (unsigned)r), y);
    }
    assert_int_equal(interpret(g, NULL, inputs, arena, NULL, out), TPC_OK);
}

static void compare_row(const struct row *r, dtype t, const struct tensor *inputs, const void *got,
                        const struct tensor *wanted, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (!dtype_is_float(r->result)) {
            if (dtype_load_i64(r->result, got, i) != dtype_load_i64(r->result, wanted->data, i))
                fail_msg("%s of %s: %lld, wanted %lld, operands %g, %g", op_info(r->op)->text, dtype_name(t),
                         (long long)dtype_load_i64(r->result, got, i),
                         (long long)dtype_load_i64(r->result, wanted->data, i), dtype_load_f64(t, inputs[1].data, i),
                         dtype_load_f64(t, inputs[2].data, i));
            continue;
        }
        double a = dtype_load_f64(t, inputs[1].data, i);
        bool exact = t == DT_F16 || t == DT_BF16 ? false
                                                 : r->op == OP_CAST || r->op == OP_BITCAST || r->op == OP_ADD ||
                                                       r->op == OP_MAX || r->op == OP_SQRT;
        if ((r->op == OP_SIN || r->op == OP_COS) && t != DT_F64 && fabs(a) > 1e12)
            continue;
        double g = dtype_load_f64(r->result, got, i), w = dtype_load_f64(r->result, wanted->data, i);
        if (!close_to(r->result, g, w, exact ? 0 : t == DT_F16 || t == DT_BF16 ? 1 : 4))
            fail_msg("%s of %s to %s: %.9g, wanted %.9g, operands %.9g, %.9g", op_info(r->op)->text, dtype_name(t),
                     dtype_name(r->result), g, w, a, dtype_load_f64(t, inputs[2].data, i));
    }
}

static void check_rows(struct build *b, uint32_t kernel, dtype t, const struct row *rows, uint32_t count,
                       struct kernel_set *const sets[2])
{
    static const int64_t lengths[] = {1, 5, 7, 11, 13, 0, LENGTH};
    struct arena *arena = arena_new();
    struct tensor inputs[3];
    struct interpretation reference;
    int64_t full = LENGTH, *of = NEW_ARRAY(arena, int64_t, dims_symbol_count(b->dims)), fault = 0;
    for (int i = 0; i < 3; i++) {
        assert_true(tensor_new(arena, &inputs[i], i ? t : DT_BOOL, 1, &full));
        fill(inputs[i].dtype, inputs[i].data, LENGTH);
    }
    reference_rows(t, rows, count, arena, inputs, &reference);
    for (size_t l = 0; l < 2 * sizeof lengths / sizeof lengths[0]; l++) {
        size_t n = (size_t)lengths[l / 2], sizes[3 + ROWS];
        void *buffers[3 + ROWS];
        of[dim_get(b->dims, symbol(b, "batch_of_the_model")).symbol] = (int64_t)n;
        for (uint32_t i = 0; i < 3 + count; i++) {
            sizes[i] = n * dtype_size(i < 3 ? inputs[i].dtype : rows[i - 3].result);
            buffers[i] = guarded(sizes[i]);
            if (i < 3)
                memcpy(buffers[i], inputs[i].data, sizes[i]);
        }
        run(sets[l % 2], kernel, buffers, of, &fault);
        for (uint32_t r = 0; r < count; r++)
            compare_row(&rows[r], t, inputs, buffers[3 + r], &reference.output[r], n);
        for (uint32_t i = 0; i < 3 + count; i++)
            unguard(buffers[i], sizes[i]);
    }
    assert_int_equal(fault, 0);
    arena_free(arena);
}

static void pointwise_rows(void **state)
{
    (void)state;
    struct build b;
    struct row rows[DT_COUNT][ROWS];
    uint32_t count[DT_COUNT], kernel[DT_COUNT];
    begin(&b);
    for (dtype t = DT_NONE + 1; t < DT_COUNT; t++) {
        count[t] = rows_of(t, rows[t]);
        assert_true(count[t] <= ROWS);
        kernel[t] = build_rows(&b, t, rows[t], count[t]);
    }
    struct kernel_set *sets[2] = {load_set(&b, false), load_set(&b, true)};
    for (dtype t = DT_NONE + 1; t < DT_COUNT; t++)
        check_rows(&b, kernel[t], t, rows[t], count[t], sets);
    arena_free(b.arena);
}

/* ---- rows ---- */

/* softmax and layer norm in one: out = softmax(x); norm = (x - mean) / sqrt(var + 1e-5) * gain; also the mean itself, once per point. */
static uint32_t build_norms(struct build *b, dtype t, bool two_axes)
{
    dim rows = symbol(b, "rows"), columns = symbol(b, "columns"), c = axis(b, 1), length = columns;
    dim extent[3] = {rows, columns, number(b, 3)};
    shape(b, 1, two_axes ? 2 : 1, extent);
    if (two_axes) {
        c = dim_add(b->dims, dim_mul(b->dims, c, number(b, 3)), axis(b, 2));
        length = dim_mul(b->dims, columns, number(b, 3));
    }
    dim at = dim_add(b->dims, dim_mul(b->dims, axis(b, 0), length), c);
    uint32_t x_buffer = buffer(b, t, false), gain_buffer = buffer(b, t, false), soft = buffer(b, t, true),
             norm = buffer(b, t, true), mean_buffer = buffer(b, DT_F32, true);
    int32_t x = load(b, x_buffer, at, 1);
    int32_t top = reduce(b, OP_REDUCE_MAX, t, x), e = map(b, OP_EXP, t, map(b, OP_SUB, t, x, top, -1, 1), -1, -1, 1);
    int32_t sum = reduce(b, OP_REDUCE_SUM, t, e);
    store(b, soft, at, map(b, OP_DIV, t, e, sum, -1, 1), 1);
    int32_t wide = map(b, OP_CAST, DT_F32, x, -1, -1, 1);
    if (t == DT_F32) {
        b->list.count--;
        wide = x;
    }
    int32_t n = map(b, OP_CAST, DT_F32, index_value(b, length, 0), -1, -1, 0);
    int32_t mean = map(b, OP_DIV, DT_F32, reduce(b, OP_REDUCE_SUM, DT_F32, wide), n, -1, 0);
    int32_t centred = map(b, OP_SUB, DT_F32, wide, mean, -1, 1);
    int32_t variance = map(b, OP_DIV, DT_F32,
                           reduce(b, OP_REDUCE_SUM, DT_F32, map(b, OP_MUL, DT_F32, centred, centred, -1, 1)), n, -1, 0);
    int32_t scale =
        map(b, OP_RECIP, DT_F32,
            map(b, OP_SQRT, DT_F32, map(b, OP_ADD, DT_F32, variance, constant(b, DT_F32, 1e-5), -1, 0), -1, -1, 0), -1,
            -1, 0);
    int32_t y = map(b, OP_MUL, DT_F32, centred, scale, -1, 1);
    if (t != DT_F32)
        y = map(b, OP_CAST, t, y, -1, -1, 1);
    store(b, norm, at, map(b, OP_MUL, t, y, load(b, gain_buffer, c, 1), -1, 1), 1);
    store(b, mean_buffer, axis(b, 0), mean, 0);
    return finish(b);
}

static void check_norms(const struct kernel_set *set, uint32_t kernel, dtype t, const int64_t *of, size_t rows,
                        size_t columns)
{
    size_t count = rows * columns, size = dtype_size(t),
           sizes[5] = {count * size, columns * size, count * size, count * size, rows * 4};
    void *buffers[5];
    int64_t fault = 0;
    for (int i = 0; i < 5; i++)
        buffers[i] = guarded(sizes[i]);
    for (size_t i = 0; i < count; i++)
        dtype_store_f64(t, buffers[0], i, unit() * 6);
    for (size_t i = 0; i < columns; i++)
        dtype_store_f64(t, buffers[1], i, unit());
    run(set, kernel, buffers, of, &fault);
    double limit = t == DT_F32 ? 5e-6 : t == DT_F16 ? 2e-3 : 2e-2;
    for (size_t r = 0; r < rows; r++) {
        double top = -(double)INFINITY, sum = 0, mean = 0, variance = 0;
        for (size_t c = 0; c < columns; c++) {
            double x = dtype_load_f64(t, buffers[0], r * columns + c);
            top = fmax(top, x);
            mean += x / (double)columns;
        }
        for (size_t c = 0; c < columns; c++) {
            double x = dtype_load_f64(t, buffers[0], r * columns + c);
            sum += exp(x - top);
            variance += (x - mean) * (x - mean) / (double)columns;
        }
        for (size_t c = 0; c < columns; c++) {
            double x = dtype_load_f64(t, buffers[0], r * columns + c), gain = dtype_load_f64(t, buffers[1], c);
            double soft = exp(x - top) / sum, norm = (x - mean) / sqrt(variance + 1e-5) * gain;
            double got = dtype_load_f64(t, buffers[2], r * columns + c);
            if (!(fabs(got - soft) <= limit * (soft + 1e-4)))
                fail_msg("softmax of %s over %zu: %g, wanted %g", dtype_name(t), columns, got, soft);
            assert_true(fabs(dtype_load_f64(t, buffers[3], r * columns + c) - norm) <= 2 * limit * (fabs(norm) + 1));
        }
        if (columns)
            assert_true(fabs(((float *)buffers[4])[r] - mean) < 1e-5);
    }
    assert_int_equal(fault, 0);
    for (int i = 0; i < 5; i++)
        unguard(buffers[i], sizes[i]);
}

static void norms(void **state)
{
    (void)state;
    static const dtype types[] = {DT_F32, DT_F16, DT_BF16};
    static const int64_t lengths[] = {1, 5, 7, 11, 13, 0, 64, 1000, 1500, 5000};
    struct build b;
    begin(&b);
    for (int i = 0; i < 6; i++)
        (void)build_norms(&b, types[i / 2], i % 2);
    struct kernel_set *sets[2] = {load_set(&b, false), load_set(&b, true)};
    int64_t of[512] = {0};
    for (size_t l = 0; l < sizeof lengths / sizeof lengths[0]; l++)
        for (uint32_t k = 0; k < 6; k++) {
            int64_t rows = lengths[l] > 100 ? 2 : lengths[(l + k) % 6];
            of[dim_get(b.dims, symbol(&b, "rows")).symbol] = rows;
            of[dim_get(b.dims, symbol(&b, "columns")).symbol] = lengths[l];
            for (int s = 0; s < 2; s++)
                check_norms(sets[s], k, types[k / 2], of, (size_t)rows, (size_t)lengths[l] * (k % 2 ? 3 : 1));
        }
    arena_free(b.arena);
}

/* Every reduction on every type, over a row of 7 * columns elements, beside a value of the point. */
static void reductions(void **state)
{
    (void)state;
    static const op ops[4] = {OP_REDUCE_SUM, OP_REDUCE_PROD, OP_REDUCE_MAX, OP_REDUCE_MIN};
    static const int64_t lengths[] = {1, 5, 0, 13, 40};
    struct build b;
    begin(&b);
    dim columns = symbol(&b, "columns");
    for (dtype t = DT_NONE + 1; t < DT_F8E4M3FN; t++) { /* those behind are never computed in */
        dim extent[2] = {number(&b, 3), columns};
        shape(&b, 1, 1, extent);
        dim at = dim_add(b.dims, dim_mul(b.dims, axis(&b, 0), columns), axis(&b, 1));
        int32_t x = load(&b, buffer(&b, t, false), at, 1);
        for (int o = 0; o < 4; o++)
            store(&b, buffer(&b, t, true), axis(&b, 0), reduce(&b, ops[t == DT_BOOL && o < 2 ? o + 2 : o], t, x), 0);
        (void)finish(&b);
    }
    struct kernel_set *sets[2] = {load_set(&b, false), load_set(&b, true)};
    int64_t of[512] = {0}, fault = 0;
    for (size_t l = 0; l < 2 * DT_F8E4M3FN * 5; l++) {
        dtype t = (dtype)(l / 2 % DT_F8E4M3FN);
        int64_t n = lengths[l / 2 / DT_F8E4M3FN];
        if (t == DT_NONE)
            continue;
        struct arena *arena = arena_new();
        struct graph *g = graph_new(arena);
        dim whole[2] = {dim_const(g->dims, 3), dim_const(g->dims, n)};
        value x = graph_input(g, "x", t, 2, whole);
        for (int o = 0; o < 4; o++) /* sums of bool are no rows of the table */
            graph_output(g, arena_printf(arena, "o%d", o),
                         graph_reduce(g, ops[t == DT_BOOL && o < 2 ? o + 2 : o], x, 1, &(int32_t){1}));
        struct tensor in;
        struct interpretation out;
        assert_true(tensor_new(arena, &in, t, 2, (int64_t[2]){3, n}));
        for (int64_t i = 0; i < 3 * n; i++) /* no NaN in the last row */
            dtype_store_f64(t, in.data, (size_t)i, t == DT_BOOL ? random_below(2) : i == 1 ? (double)NAN : unit() * 3);
        assert_int_equal(interpret(g, NULL, &in, arena, NULL, &out), TPC_OK);
        void *buffers[5];
        size_t size = dtype_size(t);
        for (int i = 0; i < 5; i++)
            buffers[i] = guarded(size * (i ? 3 : 3 * (size_t)n));
        memcpy(buffers[0], in.data, 3 * (size_t)n * size);
        of[dim_get(b.dims, columns).symbol] = n;
        run(sets[l % 2], (uint32_t)t - 1, buffers, of, &fault);
        for (int o = 0; o < 4; o++)
            for (size_t i = 0; i < 3; i++) {
                double got = dtype_load_f64(t, buffers[1 + o], i), wanted = dtype_load_f64(t, out.output[o].data, i);
                bool same = dtype_is_float(t) ? close_to(t, got, wanted, t == DT_F32 || t == DT_F64 ? 20 : 1) ||
                                                    fabs(got - wanted) < (t == DT_F64   ? 1e-12
                                                                          : t == DT_F32 ? 1e-5
                                                                                        : 0)
                                              : got == wanted;
                if (!same)
                    fail_msg("%s of %s over %lld: %g, wanted %g", op_info(ops[o])->text, dtype_name(t), (long long)n,
                             got, wanted);
            }
        for (int i = 0; i < 5; i++)
            unguard(buffers[i], size * (i ? 3 : 3 * (size_t)n));
        arena_free(arena);
    }
    arena_free(b.arena);
}

/* ---- indices ---- */

/* out[i, j] = j < split ? a[i, j] : b[i, j - split] * 2, in memory that holds a and b alone. */
static uint32_t build_concat(struct build *b, dtype t)
{
    dim rows = symbol(b, "rows"), columns = symbol(b, "columns"), split = symbol(b, "split"), i = axis(b, 0),
        j = axis(b, 1);
    shape(b, 2, 0, (dim[2]){rows, columns});
    uint32_t first = buffer(b, t, false), second = buffer(b, t, false), out = buffer(b, t, true);
    int32_t c = index_value(b, j, 0), s = index_value(b, split, 0);
    int32_t left = map(b, OP_LT, DT_BOOL, c, s, -1, 0), right = map(b, OP_LE, DT_BOOL, s, c, -1, 0);
    int32_t x = load(b, first, dim_add(b->dims, dim_mul(b->dims, i, split), j), 0);
    b->list.at[x].predicate = left;
    dim rest = dim_sub(b->dims, columns, split);
    int32_t y = load(b, second, dim_add(b->dims, dim_mul(b->dims, i, rest), dim_sub(b->dims, j, split)), 0);
    b->list.at[y].predicate = right;
    y = map(b, OP_ADD, t, y, y, -1, 0);
    store(b, out, dim_add(b->dims, dim_mul(b->dims, i, columns), j), map(b, OP_SELECT, t, left, x, y, 0), 0);
    return finish(b);
}

static void concat(void **state)
{
    (void)state;
    static const dtype types[] = {DT_F32, DT_F16, DT_I64, DT_U8, DT_BOOL};
    static const int64_t shapes[][3] = {{3, 7, 5},    {1, 13, 0}, {2, 11, 11}, {5, 1, 1},
                                        {4, 129, 65}, {0, 4, 2},  {2, 0, 0}};
    struct build b;
    begin(&b);
    for (int i = 0; i < 5; i++)
        (void)build_concat(&b, types[i]);
    struct kernel_set *sets[2] = {load_set(&b, false), load_set(&b, true)};
    int64_t of[512] = {0}, fault = 0;
    for (uint32_t l = 0; l < 7 * 5 * 2; l++) {
        const int64_t *s = shapes[l / 10];
        dtype t = types[l / 2 % 5];
        size_t size = dtype_size(t), sizes[3] = {(size_t)(s[0] * s[2]) * size, (size_t)(s[0] * (s[1] - s[2])) * size,
                                                 (size_t)(s[0] * s[1]) * size};
        void *buffers[3];
        for (int i = 0; i < 3; i++)
            buffers[i] = guarded(sizes[i]);
        for (int i = 0; i < 2; i++)
            for (size_t e = 0; e < sizes[i] / size; e++)
                dtype_store_f64(t, buffers[i], e, t == DT_BOOL ? random_below(2) : random_below(100));
        of[dim_get(b.dims, symbol(&b, "rows")).symbol] = s[0];
        of[dim_get(b.dims, symbol(&b, "columns")).symbol] = s[1];
        of[dim_get(b.dims, symbol(&b, "split")).symbol] = s[2];
        run(sets[l % 2], l / 2 % 5, buffers, of, &fault);
        for (int64_t i = 0; i < s[0]; i++)
            for (int64_t j = 0; j < s[1]; j++) {
                bool left = j < s[2];
                double x = left ? dtype_load_f64(t, buffers[0], (size_t)(i * s[2] + j))
                                : dtype_load_f64(t, buffers[1], (size_t)(i * (s[1] - s[2]) + j - s[2]));
                double wanted = t == DT_BOOL ? x : left ? x : 2 * x;
                assert_true(dtype_load_f64(t, buffers[2], (size_t)(i * s[1] + j)) == wanted);
            }
        for (int i = 0; i < 3; i++)
            unguard(buffers[i], sizes[i]);
    }
    assert_int_equal(fault, 0);
    arena_free(b.arena);
}

/* out[i, j] = table[ids[i] - offset, j]: a check, a shard's zero, and along the fast axis. */
static void build_gathers(struct build *b)
{
    dim n = symbol(b, "n"), d = symbol(b, "d"), v = symbol(b, "v"), i = axis(b, 0), j = axis(b, 1);
    for (int zero = 0; zero < 2; zero++) {
        shape(b, 2, 0, (dim[2]){n, d});
        uint32_t ids = buffer(b, DT_I32, false), table = buffer(b, DT_F32, false), out = buffer(b, DT_F32, true);
        int32_t id = load(b, ids, i, 0), x = load(b, table, j, 0);
        struct instruction *l = &b->list.at[x];
        l->dynamic = id;
        l->dynamic_stride = d;
        l->dynamic_limit = v;
        l->dynamic_zero = zero;
        store(b, out, dim_add(b->dims, dim_mul(b->dims, i, d), j), x, 0);
        (void)finish(b);
    }
    shape(b, 1, 0, &n); /* out[i] = table[ids[i]] */
    uint32_t ids = buffer(b, DT_I32, false), table = buffer(b, DT_F32, false), out = buffer(b, DT_F32, true);
    int32_t id = load(b, ids, i, 0), x = load(b, table, number(b, 0), 0);
    b->list.at[x].dynamic = id;
    b->list.at[x].dynamic_stride = number(b, 1);
    b->list.at[x].dynamic_limit = v;
    store(b, out, i, x, 0);
    (void)finish(b);
}

static void check_gather(struct build *b, const struct kernel_set *set, uint32_t kernel, int64_t n, int64_t d,
                         int64_t v, bool broken)
{
    int64_t of[512] = {0}, fault = 0;
    d = kernel == 2 ? 1 : d;
    of[dim_get(b->dims, symbol(b, "n")).symbol] = n;
    of[dim_get(b->dims, symbol(b, "d")).symbol] = d;
    of[dim_get(b->dims, symbol(b, "v")).symbol] = v;
    size_t sizes[3] = {(size_t)n * 4, (size_t)(v * d) * 4, (size_t)(n * d) * 4};
    void *buffers[3];
    for (int i = 0; i < 3; i++)
        buffers[i] = guarded(sizes[i]);
    int32_t *ids = buffers[0];
    float *table = buffers[1], *out = buffers[2];
    for (int64_t i = 0; i < n; i++)
        ids[i] = (int32_t)random_below((uint32_t)v);
    if (broken)
        ids[n / 2] = n % 2 ? (int32_t)v : -1;
    for (int64_t i = 0; i < v * d; i++)
        table[i] = (float)i + 1;
    run(set, kernel, buffers, of, &fault);
    for (int64_t i = 0; i < n; i++)
        for (int64_t j = 0; j < d; j++) {
            bool inside = ids[i] >= 0 && ids[i] < v;
            assert_true(out[i * d + j] == (inside ? (float)(ids[i] * d + j) + 1 : 0));
        }
    assert_int_equal(fault, broken && kernel != 1 ? 2 : 0);
    assert_int_equal(kernel_fault_node(set, kernel, fault), fault ? 102 : 0);
    for (int i = 0; i < 3; i++)
        unguard(buffers[i], sizes[i]);
}

static void gathers(void **state)
{
    (void)state;
    static const int64_t sizes[] = {1, 5, 7, 11, 13, 64, 200};
    struct build b;
    begin(&b);
    build_gathers(&b);
    struct kernel_set *sets[2] = {load_set(&b, false), load_set(&b, true)};
    for (uint32_t l = 0; l < 7 * 7 * 12; l++)
        check_gather(&b, sets[l % 2], l / 2 % 3, sizes[l / 12 % 7], sizes[l / 84], 9, l / 6 % 2);
    arena_free(b.arena);
}

/* Index maps against the same expressions evaluated here. */
static void index_maps(void **state)
{
    (void)state;
    struct build b;
    begin(&b);
    struct dims *t = b.dims;
    dim A = symbol(&b, "a"), B = symbol(&b, "b"), i = axis(&b, 0), j = axis(&b, 1), k = axis(&b, 2), C = number(&b, 6);
    dim dense = dim_add(t, dim_mul(t, dim_add(t, dim_mul(t, i, B), j), C), k);
    dim all = dim_mul(t, dim_mul(t, A, B), C);
    dim maps[] = {
        dim_add(t, dim_mul(t, dim_add(t, dim_mul(t, k, A), i), B), j),                         /* transposed */
        dim_sub(t, dim_sub(t, all, number(&b, 1)), dense),                                     /* reversed */
        dim_add(t, dim_mul(t, i, number(&b, 2)), dim_mul(t, dim_add(t, j, k), number(&b, 0))), /* broadcast, strided */
        dim_add(t, dim_mul(t, dim_div(t, k, number(&b, 2)), B),
                dim_add(t, j, dim_mod(t, k, number(&b, 2)))), /* split fast axis */
        dim_min(t, dim_max(t, dim_sub(t, k, i), number(&b, 0)), dim_sub(t, all, number(&b, 1))),
        dim_div(t, dense, dim_add(t, A, number(&b, 1))),
        dim_mod(t, dense, dim_mul(t, A, B)),
        dim_ceildiv(t, dense, dim_max(t, B, number(&b, 2))),
        dim_mul(t, dim_mod(t, k, number(&b, 2)), dim_mod(t, dim_mul(t, k, k), number(&b, 2))),
    };
    enum { MAPS = sizeof maps / sizeof maps[0] };
    for (int m = 0; m < MAPS; m++) {
        shape(&b, 3, 0, (dim[3]){A, B, C});
        uint32_t in = buffer(&b, DT_F32, false), out = buffer(&b, DT_F32, true), where = buffer(&b, DT_I64, true);
        int32_t x = load(&b, in, maps[m], 0);
        store(&b, where, dense, index_value(&b, maps[m], 0), 0);
        store(&b, out, dense, x, 0);
        (void)finish(&b);
    }
    struct kernel_set *sets[2] = {load_set(&b, false), load_set(&b, true)};
    static const int64_t shapes[][2] = {{1, 1}, {5, 7}, {3, 2}, {0, 5}, {5, 0}, {11, 13}};
    for (uint32_t l = 0; l < MAPS * 6 * 2; l++) {
        int64_t of[512] = {0}, fault = 0, a = shapes[l / 2 % 6][0], e = shapes[l / 2 % 6][1];
        uint32_t kernel = l / 12;
        of[dim_get(t, A).symbol] = a;
        of[dim_get(t, B).symbol] = e;
        size_t count = (size_t)(a * e * 6);
        void *buffers[3] = {guarded((count + 64) * 4), guarded(count * 4), guarded(count * 8)};
        for (size_t n = 0; n < count + 64; n++)
            ((float *)buffers[0])[n] = (float)n;
        run(sets[l % 2], kernel, buffers, of, &fault);
        size_t at = 0;
        int64_t *x = &of[dim_get(t, i).symbol], *y = &of[dim_get(t, j).symbol], *z = &of[dim_get(t, k).symbol], wanted;
        for (*x = 0; *x < a; ++*x)
            for (*y = 0; *y < e; ++*y)
                for (*z = 0; *z < 6; ++*z, at++) {
                    assert_true(dim_eval(t, maps[kernel], of, &wanted));
                    assert_int_equal(((int64_t *)buffers[2])[at], wanted);
                    assert_true(((float *)buffers[1])[at] == (float)wanted);
                }
        unguard(buffers[0], (count + 64) * 4);
        unguard(buffers[1], count * 4);
        unguard(buffers[2], count * 8);
    }
    arena_free(b.arena);
}

/* A kernel of no axes, and one whose row is all there is. */
static void scalars(void **state)
{
    (void)state;
    struct build b;
    begin(&b);
    shape(&b, 0, 0, NULL);
    uint32_t in = buffer(&b, DT_F32, false), out = buffer(&b, DT_F32, true);
    int32_t x = load(&b, in, number(&b, 0), 0);
    store(&b, out, number(&b, 0), map(&b, OP_MUL, DT_F32, x, x, -1, 0), 0);
    (void)finish(&b);
    shape(&b, 0, 1, (dim[1]){number(&b, 100)});
    in = buffer(&b, DT_F32, false), out = buffer(&b, DT_F32, true);
    x = load(&b, in, axis(&b, 0), 1);
    store(&b, out, number(&b, 0), reduce(&b, OP_REDUCE_SUM, DT_F32, x), 0);
    (void)finish(&b);
    struct kernel_set *sets[2] = {load_set(&b, false), load_set(&b, true)};
    float numbers[100], result = 0;
    int64_t of[512] = {0}, fault = 0;
    for (int i = 0; i < 100; i++)
        numbers[i] = (float)i + 3;
    for (int s = 0; s < 2; s++) {
        void *buffers[2] = {numbers, &result};
        assert_int_equal(kernel_extent(sets[s], 0, of), 1);
        run(sets[s], 0, buffers, of, &fault);
        assert_true(result == 9);
        run(sets[s], 1, buffers, of, &fault);
        assert_true(result == 5250);
        assert_true(kernel_work(sets[s], 1, of) >= 100);
    }
    arena_free(b.arena);
}

/* ---- the cache ---- */

static void small_kernel(struct build *b, double addend)
{
    begin(b);
    shape(b, 1, 0, (dim[1]){symbol(b, "secret name")});
    uint32_t in = buffer(b, DT_F32, false), out = buffer(b, DT_F32, true);
    int32_t x = load(b, in, axis(b, 0), 0);
    store(b, out, axis(b, 0), map(b, OP_ADD, DT_F32, x, constant(b, DT_F32, addend), -1, 0), 0);
    (void)finish(b);
}

/* Loads x + addend with these options, runs it where it loads. */
static status use(double addend, const struct codegen_options *o, struct kernel_counts *counts)
{
    struct build b;
    struct kernel_set *set;
    small_kernel(&b, addend);
    status s = kernels_load(b.arena, &b.program, o, &quiet, &set);
    if (s == TPC_OK) {
        float in[5] = {1, 2, 3, 4, 5}, out[5];
        int64_t of[64], fault = 0;
        for (int i = 0; i < 64; i++)
            of[i] = 5;
        run(set, 0, (void *[2]){in, out}, of, &fault);
        for (int i = 0; i < 5; i++)
            assert_true(out[i] == in[i] + (float)addend);
        *counts = kernels_counts(set);
        counts->compiler = counts->cache = NULL;
    }
    arena_free(b.arena);
    return s;
}

static char *object_in(const char *dir)
{
    static char path[8192];
    DIR *d = opendir(dir);
    path[0] = 0;
    for (struct dirent *e = readdir(d); e; e = readdir(d))
        if (strstr(e->d_name, ".so"))
            (void)snprintf(path, sizeof path, "%s/%s", dir, e->d_name);
        else
            assert_null(strstr(e->d_name, ".c")); /* nothing is left over */
    closedir(d);
    return path;
}

static void cached(void **state)
{
    (void)state;
    struct kernel_counts c;
    char dir[5000], *object;
    (void)snprintf(dir, sizeof dir, "%s/deep/below", cache);
    struct codegen_options o = {.cache = dir};
    assert_int_equal(use(1.25, &o, &c), TPC_OK);
    assert_int_equal(c.compiled, 1);
    assert_int_equal(c.compilers, 1);
    struct stat s;
    assert_int_equal(stat(dir, &s), 0);
    assert_int_equal(s.st_mode & 0777, 0700);
    assert_int_equal(use(1.25, &o, &c), TPC_OK);
    assert_int_equal(c.cached, 1);
    assert_int_equal(c.compilers, 0);
    object = object_in(dir);
    for (int damage = 0; damage < 3; damage++) { /* a byte, the end, all */
        FILE *f = fopen(object, damage == 0 ? "r+b" : "ab");
        assert_non_null(f);
        if (damage == 0)
            fseek(f, 200, SEEK_SET), fputc(0x5a, f);
        fclose(f);
        assert_int_equal(stat(object, &s), 0);
        if (damage)
            assert_int_equal(truncate(object, damage == 1 ? s.st_size - 1 : 0), 0);
        assert_int_equal(use(1.25, &o, &c), TPC_OK);
        assert_int_equal(c.compiled, 1);
        assert_int_equal(use(1.25, &o, &c), TPC_OK);
        assert_int_equal(c.cached, 1);
    }
    /* Others may read it: not used, but the work is done. */
    assert_int_equal(chmod(dir, 0755), 0);
    warnings = 0;
    assert_int_equal(use(1.25, &o, &c), TPC_OK);
    assert_int_equal(c.compiled, 1);
    assert_int_equal(warnings, 1);
    assert_int_equal(chmod(dir, 0700), 0);
    assert_int_equal(unlink(object), 0);
    assert_int_equal(rmdir(dir), 0);
    assert_int_equal(symlink("/tmp", dir), 0);
    assert_int_equal(use(1.25, &o, &c), TPC_OK);
    assert_int_equal(warnings, 2);
    assert_int_equal(unlink(dir), 0);
}

static void compilers(void **state)
{
    (void)state;
    struct kernel_counts c;
    struct codegen_options o = {.cache = cache, .compiler = "/nowhere/cc"};
    warnings = 0;
    assert_int_equal(use(2.5, &o, &c), TPC_OK);
    assert_int_equal(c.interpreted, 1);
    assert_int_equal(warnings, 1);
    o.compiler = "/bin/false";
    assert_int_equal(use(2.5, &o, &c), TPC_UNSUPPORTED);
    o.compiler = "/bin/true"; /* says nothing and gives nothing */
    assert_int_equal(use(2.5, &o, &c), TPC_UNSUPPORTED);
    o.compiler = "gcc -Dfor=break"; /* compiles, but not this */
    assert_int_equal(use(2.5, &o, &c), TPC_INTERNAL);
    o.compiler = "gcc -DUNUSED";
    assert_int_equal(use(2.5, &o, &c), TPC_OK);
}

struct loading {
    struct build *build;
    struct arena *arena;
};
static status load_guarded(void *context)
{
    struct loading *l = context;
    struct kernel_set *set;
    struct codegen_options o = {.cache = cache};
    return kernels_load(l->arena, &l->build->program, &o, &quiet, &set);
}

/* The n-th allocation fails, whatever n is: nothing leaks, and nothing is left in the cache. */
static void out_of_memory(void **state)
{
    (void)state;
    struct build b;
    small_kernel(&b, 4.5);
    status s = TPC_NOMEM;
    for (uint64_t n = 1; s != TPC_OK; n++) {
        struct loading l = {&b, arena_new()};
        base_fail_after(n);
        s = guard_run(&quiet, load_guarded, &l);
        base_fail_after(0);
        assert_true(s == TPC_OK || s == TPC_NOMEM);
        arena_free(l.arena);
    }
    (void)object_in(cache);
    arena_free(b.arena);
}

static void emitted(void **state)
{
    (void)state;
    struct build b;
    char dir[5000];
    (void)snprintf(dir, sizeof dir, "%s/emit", cache);
    small_kernel(&b, 3.5);
    assert_int_equal(kernels_emit(&b.program, dir, NULL), TPC_OK);
    DIR *d = opendir(dir);
    assert_non_null(d);
    unsigned files = 0;
    for (struct dirent *e = readdir(d); e; e = readdir(d)) {
        if (e->d_name[0] == '.')
            continue;
        char path[8192], text[16384];
        (void)snprintf(path, sizeof path, "%s/%s", dir, e->d_name);
        FILE *f = fopen(path, "r");
        text[fread(text, 1, sizeof text - 1, f)] = 0;
        fclose(f);
        assert_non_null(strstr(text, "3.5f"));
        assert_null(strstr(text, "secret"));
        files++;
        unlink(path);
    }
    closedir(d);
    assert_int_equal(files, 1);
    arena_free(b.arena);
}

static int remove_tree(const char *path)
{
    DIR *d = opendir(path);
    for (struct dirent *e = d ? readdir(d) : NULL; e; e = readdir(d)) {
        char below[8192];
        (void)snprintf(below, sizeof below, "%s/%s", path, e->d_name);
        if (strcmp(e->d_name, ".") && strcmp(e->d_name, "..") && unlink(below) != 0)
            (void)remove_tree(below);
    }
    if (d)
        closedir(d);
    return rmdir(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(scalars),       cmocka_unit_test(pointwise_rows), cmocka_unit_test(reductions),
        cmocka_unit_test(norms),         cmocka_unit_test(concat),         cmocka_unit_test(gathers),
        cmocka_unit_test(index_maps),    cmocka_unit_test(cached),         cmocka_unit_test(compilers),
        cmocka_unit_test(out_of_memory), cmocka_unit_test(emitted),
    };
    char here[2048];
    if (!getcwd(here, sizeof here))
        return 1;
    (void)snprintf(cache, sizeof cache, "%s/codegen-cache-%ld", here, (long)getpid());
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    (void)remove_tree(cache);
    return failed;
}
