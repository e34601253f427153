/* runtime/gemm.c - a dot with any strides as calls of a matrix kernel.
 *
 * Invariant: a product is reduced to loops over `outer` axes around matrices out[m][n] = l[m][k] . r[n][k] with one stride per axis. How it
 * is shared out depends on shape and number of workers only. Three ways to do a matrix, tried in this order: skinny (few rows; reads
 * the large operand once), direct (a library call on the operands where they lie), blocks (operands are packed, f16 and bf16
 * widened, block by block). Start with gemm_dot.
 */
#include "runtime/gemm.h"

#include <assert.h>

enum { LHS, RHS, OUT };

/* ---- views ---------------------------------------------------------------------------------------------------- */

static bool is_bound(const struct dims *t, const int64_t *of, dim d, int64_t *out)
{
    return dim_eval(t, d, of, out);
}

bool dot_view_of(const struct dot *d, const struct dims *t, const int64_t *of, struct dot_view *out)
{
    *out = (struct dot_view){.batch = d->batch, .m = d->m, .n = d->n, .k = d->k};
    uint32_t axes = d->batch + d->m + d->n + d->k;
    for (uint32_t a = 0; a < axes; a++)
        if (!is_bound(t, of, d->extent[a], &out->extent[a]) || out->extent[a] < 0)
            return false;
    for (uint32_t i = 0; i < 3; i++) {
        if (!is_bound(t, of, d->offset[i], &out->offset[i]) || out->offset[i] < 0)
            return false;
        for (uint32_t a = 0; a < axes; a++)
            if (!is_bound(t, of, d->stride[i][a], &out->stride[i][a]))
                return false;
    }
    return true;
}

static uint32_t axes_of(const struct dot_view *v)
{
    return v->batch + v->m + v->n + v->k;
}

bool dot_view_fits(const struct dot_view *v, const uint64_t elements[3])
{
    bool none = false; /* nothing is written, hence nothing read */
    for (uint32_t a = 0; a < v->batch + v->m + v->n; a++)
        none = none || v->extent[a] == 0;
    bool empty_sum = false;
    for (uint32_t a = v->batch + v->m + v->n; a < axes_of(v); a++)
        empty_sum = empty_sum || v->extent[a] == 0;
    for (uint32_t i = 0; i < 3; i++) {
        if (none || (empty_sum && i != OUT))
            continue;
        int64_t low = v->offset[i], high = v->offset[i];
        for (uint32_t a = 0; a < axes_of(v); a++) {
            int64_t far = 0;
            if (!i64_mul(v->extent[a] - 1, v->stride[i][a], &far))
                return false;
            if (!i64_add(far < 0 ? low : high, far, far < 0 ? &low : &high))
                return false;
        }
        if (low < 0 || (uint64_t)high >= elements[i])
            return false;
    }
    return true;
}

/* Axes [first, first + *count): drops those of extent 1, sorts by `by`'s stride (largest first), merges neighbours. Writes to `to`. */
static uint32_t merge_group(const struct dot_view *v, uint32_t first, uint32_t count, int by, struct dot_view *to,
                            uint32_t at)
{
    uint32_t order[MAX_RANK], kept = 0;
    for (uint32_t a = first; a < first + count; a++) {
        if (v->extent[a] == 1)
            continue;
        uint32_t i = kept++;
        for (; i > 0 && v->stride[by][order[i - 1]] < v->stride[by][a]; i--)
            order[i] = order[i - 1];
        order[i] = a;
    }
    uint32_t made = 0;
    for (uint32_t i = 0; i < kept; i++) {
        uint32_t a = order[i], last = at + made - 1;
        bool joins = made > 0;
        for (int o = 0; o < 3 && joins; o++)
            joins = to->stride[o][last] == v->stride[o][a] * v->extent[a];
        uint32_t target = joins ? last : at + made++;
        to->extent[target] = joins ? to->extent[target] * v->extent[a] : v->extent[a];
        for (int o = 0; o < 3; o++)
            to->stride[o][target] = v->stride[o][a];
    }
    return made;
}

void dot_view_merge(struct dot_view *v)
{
    struct dot_view to = {.offset = {v->offset[0], v->offset[1], v->offset[2]}};
    to.batch = merge_group(v, 0, v->batch, OUT, &to, 0);
    to.m = merge_group(v, v->batch, v->m, OUT, &to, to.batch);
    to.n = merge_group(v, v->batch + v->m, v->n, OUT, &to, to.batch + to.m);
    to.k = merge_group(v, v->batch + v->m + v->n, v->k, LHS, &to, to.batch + to.m + to.n);
    *v = to;
}

double dot_view_flops(const struct dot_view *v)
{
    double flops = 2;
    for (uint32_t a = 0; a < axes_of(v); a++)
        flops *= (double)v->extent[a];
    return flops;
}

/* ---- the product as loops around matrices ----------------------------------------------------------------------- */

struct axis {
    int64_t extent, stride[3];
};

struct product {
    dtype type;
    const char *lhs, *rhs; /* first elements */
    char *out;
    struct axis m, n, k;
    uint32_t outer_count, sum_count;
    struct axis outer[MAX_RANK], sum[MAX_RANK]; /* loops around; sums are added up */
    int64_t outer_total, sum_total;
    bool split_outer, split_rows;
    struct workers *workers;
    atomic_bool out_of_memory;
};

static struct axis axis_at(const struct dot_view *v, uint32_t a)
{
    return (struct axis){v->extent[a], {v->stride[0][a], v->stride[1][a], v->stride[2][a]}};
}

/* The longest of a group becomes the matrix's own axis, the rest are loops. Prefers one that is contiguous in operand `by`. */
static struct axis pick(const struct dot_view *v, uint32_t first, uint32_t count, struct axis *rest,
                        uint32_t *rest_count)
{
    if (count == 0)
        return (struct axis){1, {0, 0, 0}};
    uint32_t best = first;
    for (uint32_t a = first; a < first + count; a++)
        if (v->extent[a] > v->extent[best])
            best = a;
    for (uint32_t a = first; a < first + count; a++)
        if (a != best)
            rest[(*rest_count)++] = axis_at(v, a);
    return axis_at(v, best);
}

static void swap_sides(struct product *p)
{
    const char *lhs = p->lhs;
    p->lhs = p->rhs;
    p->rhs = lhs;
    struct axis m = p->m;
    p->m = p->n;
    p->n = m;
    struct axis *const groups[] = {&p->m, &p->n, &p->k};
    for (int g = 0; g < 3; g++) {
        int64_t s = groups[g]->stride[LHS];
        groups[g]->stride[LHS] = groups[g]->stride[RHS];
        groups[g]->stride[RHS] = s;
    }
    for (uint32_t i = 0; i < p->outer_count + p->sum_count; i++) {
        struct axis *a = i < p->outer_count ? &p->outer[i] : &p->sum[i - p->outer_count];
        int64_t s = a->stride[LHS];
        a->stride[LHS] = a->stride[RHS];
        a->stride[RHS] = s;
    }
}

/* Element offset of iteration `i` of nested loops in operand `o`. */
static int64_t loop_offset(const struct axis *axes, uint32_t count, int64_t i, int o)
{
    int64_t offset = 0;
    for (uint32_t a = count; a-- > 0;) {
        offset += i % axes[a].extent * axes[a].stride[o];
        i /= axes[a].extent;
    }
    return offset;
}

/* A matrix operand, seen as [rows][columns] with strides, that a kernel can read where it lies: one stride 1, the other a leading dimension. */
static bool lies_well(int64_t rows, int64_t row, int64_t columns, int64_t column, bool *transposed, int64_t *leading)
{
    if ((column == 1 || columns == 1) && (row >= columns || rows == 1)) {
        *transposed = false;
        *leading = rows == 1 ? columns : row;
        return true;
    }
    if ((row == 1 || rows == 1) && (column >= rows || columns == 1)) {
        *transposed = true;
        *leading = columns == 1 ? rows : column;
        return true;
    }
    return false;
}

/* A range of one of the matrices: first elements, and extents. */
struct piece {
    const char *lhs, *rhs;
    char *out;
    int64_t m, n;
    uint32_t part;
};

/* ---- skinny ----------------------------------------------------------------------------------------------------- */

static void widen_any(dtype type, const char *from, int64_t stride, int64_t count, float *to)
{
    if (type != DT_F32) {
        gemm_kernels()->widen(type, from, stride, count, to);
        return;
    }
    for (int64_t i = 0; i < count; i++)
        memcpy(&to[i], from + (size_t)(i * stride) * sizeof(float), sizeof(float));
}

static void store_row(dtype type, const float *from, int64_t count, char *to, int64_t stride)
{
    if (stride == 1 && type != DT_F32) {
        gemm_kernels()->narrow(type, from, count, to);
    } else if (stride == 1) {
        memcpy(to, from, (size_t)count * sizeof *from);
    } else {
        for (int64_t i = 0; i < count; i++)
            if (type == DT_F32)
                memcpy(to + i * stride * 4, &from[i], 4);
            else
                gemm_kernels()->narrow(type, from + i, 1, to + i * stride * 2);
    }
}

/* true when done. */
static bool try_skinny(struct product *p, const struct piece *e)
{
    if (e->m > SKINNY_ROWS || p->sum_count || p->type == DT_F64 || p->k.extent == 0)
        return false;
    bool rows_of_n = false, column_rows = false;
    int64_t leading = 0;
    if (!lies_well(e->n, p->n.stride[RHS], p->k.extent, p->k.stride[RHS], &column_rows, &leading))
        return false;
    rows_of_n = !column_rows;
    size_t size = dtype_size(p->type);
    bool direct = p->type == DT_F32 && p->n.stride[OUT] == 1;
    size_t x_bytes = (size_t)(e->m * p->k.extent) * sizeof(float) + 64;
    float *x = workers_scratch(p->workers, e->part, x_bytes + (direct ? 0 : (size_t)(e->m * e->n) * sizeof(float)));
    if (!x) {
        atomic_store(&p->out_of_memory, true);
        return true;
    }
    for (int64_t i = 0; i < e->m; i++)
        widen_any(p->type, e->lhs + (size_t)(i * p->m.stride[LHS]) * size, p->k.stride[LHS], p->k.extent,
                  x + i * p->k.extent);
    struct skinny_call c = {.rows_of_n = rows_of_n,
                            .type = p->type,
                            .rows = e->m,
                            .end = e->n,
                            .k = p->k.extent,
                            .x = x,
                            .ldx = p->k.extent,
                            .w = e->rhs,
                            .ldw = leading};
    c.out = direct ? (float *)(void *)e->out : (float *)(void *)((char *)x + x_bytes / 64 * 64);
    c.ldo = direct ? p->m.stride[OUT] : e->n;
    gemm_kernels()->skinny(&c);
    for (int64_t i = 0; i < e->m && !direct; i++)
        store_row(p->type, c.out + i * e->n, e->n, e->out + (size_t)(i * p->m.stride[OUT]) * size, p->n.stride[OUT]);
    return true;
}

/* ---- direct, and by blocks ---------------------------------------------------------------------------------------- */

static bool try_direct(struct product *p, const struct piece *e)
{
    if (p->type != DT_F32 && p->type != DT_F64)
        return false;
    struct gemm_call c = {.m = e->m, .n = e->n, .k = p->k.extent, .out = e->out};
    bool out_transposed = false;
    if (!lies_well(e->m, p->m.stride[LHS], c.k, p->k.stride[LHS], &c.transpose_a, &c.lda) ||
        !lies_well(c.k, p->k.stride[RHS], e->n, p->n.stride[RHS], &c.transpose_b, &c.ldb) ||
        !lies_well(e->m, p->m.stride[OUT], e->n, p->n.stride[OUT], &out_transposed, &c.ldo) || out_transposed)
        return false;
    c.scratch = workers_scratch(p->workers, e->part, GEMM_SCRATCH);
    if (!c.scratch) {
        atomic_store(&p->out_of_memory, true);
        return true;
    }
    size_t size = dtype_size(p->type);
    for (int64_t i = 0; i < p->sum_total; i++) {
        c.a = e->lhs + (size_t)loop_offset(p->sum, p->sum_count, i, LHS) * size;
        c.b = e->rhs + (size_t)loop_offset(p->sum, p->sum_count, i, RHS) * size;
        c.accumulate = i > 0;
        if (p->type == DT_F32)
            gemm_call_f32(&c);
        else
            gemm_call_f64(&c);
    }
    return true;
}

/* to[row][column] dense, as f32 (from f16, bf16, f32) or f64. */
static void pack_block(dtype type, const char *from, int64_t rows, int64_t row, int64_t columns, int64_t column,
                       void *to)
{
    size_t size = dtype_size(type);
    for (int64_t i = 0; i < rows; i++) {
        const char *line = from + i * row * (int64_t)size;
        if (type == DT_F64)
            for (int64_t j = 0; j < columns; j++)
                memcpy((double *)to + i * columns + j, line + j * column * 8, 8);
        else
            widen_any(type, line, column, columns, (float *)to + i * columns);
    }
}

enum { BLOCK_M = 192, BLOCK_N = 384, BLOCK_K = 384 };

struct blocks {
    void *scratch; /* of the kernel */
    char *a, *b, *out;
};

static void multiply_block(struct product *p, const struct piece *e, const struct blocks *b, int64_t first_m,
                           int64_t first_n, int64_t m, int64_t n)
{
    size_t size = dtype_size(p->type), wide = p->type == DT_F64 ? 8 : 4;
    bool started = false;
    for (int64_t i = 0; i < p->sum_total; i++) {
        const char *lhs =
            e->lhs + (loop_offset(p->sum, p->sum_count, i, LHS) + first_m * p->m.stride[LHS]) * (int64_t)size;
        const char *rhs =
            e->rhs + (loop_offset(p->sum, p->sum_count, i, RHS) + first_n * p->n.stride[RHS]) * (int64_t)size;
        for (int64_t first = 0; first < p->k.extent; first += BLOCK_K) {
            int64_t k = p->k.extent - first < BLOCK_K ? p->k.extent - first : BLOCK_K;
            pack_block(p->type, lhs + first * p->k.stride[LHS] * (int64_t)size, m, p->m.stride[LHS], k,
                       p->k.stride[LHS], b->a);
            bool n_rows = p->n.stride[RHS] != 1; /* pack along what is contiguous */
            const char *from = rhs + first * p->k.stride[RHS] * (int64_t)size;
            if (n_rows)
                pack_block(p->type, from, n, p->n.stride[RHS], k, p->k.stride[RHS], b->b);
            else
                pack_block(p->type, from, k, p->k.stride[RHS], n, p->n.stride[RHS], b->b);
            struct gemm_call c = {.transpose_b = n_rows,
                                  .accumulate = started,
                                  .m = m,
                                  .n = n,
                                  .k = k,
                                  .a = b->a,
                                  .b = b->b,
                                  .out = b->out,
                                  .lda = k,
                                  .ldb = n_rows ? k : n,
                                  .ldo = n,
                                  .scratch = b->scratch};
            if (wide == 8)
                gemm_call_f64(&c);
            else
                gemm_call_f32(&c);
            started = true;
        }
    }
    if (!started)
        memset(b->out, 0, (size_t)(m * n) * wide);
}

static void store_block(const struct product *p, const struct piece *e, const char *block, int64_t first_m,
                        int64_t first_n, int64_t m, int64_t n)
{
    int64_t size = (int64_t)dtype_size(p->type);
    for (int64_t i = 0; i < m; i++) {
        char *to = e->out + ((first_m + i) * p->m.stride[OUT] + first_n * p->n.stride[OUT]) * size;
        if (p->type != DT_F64) {
            store_row(p->type, (const float *)(const void *)block + i * n, n, to, p->n.stride[OUT]);
            continue;
        }
        for (int64_t j = 0; j < n; j++)
            memcpy(to + j * p->n.stride[OUT] * 8, block + (i * n + j) * 8, 8);
    }
}

static void by_blocks(struct product *p, const struct piece *e)
{
    size_t wide = p->type == DT_F64 ? 8 : 4;
    size_t a = BLOCK_M * BLOCK_K * wide, b = BLOCK_K * BLOCK_N * wide, out = BLOCK_M * BLOCK_N * wide;
    char *scratch = workers_scratch(p->workers, e->part, GEMM_SCRATCH + a + b + out);
    if (!scratch) {
        atomic_store(&p->out_of_memory, true);
        return;
    }
    struct blocks blocks = {scratch, scratch + GEMM_SCRATCH, scratch + GEMM_SCRATCH + a,
                            scratch + GEMM_SCRATCH + a + b};
    for (int64_t n = 0; n < e->n; n += BLOCK_N)
        for (int64_t m = 0; m < e->m; m += BLOCK_M) {
            int64_t rows = e->m - m < BLOCK_M ? e->m - m : BLOCK_M, columns = e->n - n < BLOCK_N ? e->n - n : BLOCK_N;
            multiply_block(p, e, &blocks, m, n, rows, columns);
            store_block(p, e, blocks.out, m, n, rows, columns);
        }
}

/* ---- integers ----------------------------------------------------------------------------------------------------- */

#define INTEGER_DOT(name, scalar)                                                                                      \
    static void name(const struct product *p, const struct piece *e)                                                   \
    {                                                                                                                  \
        const scalar *lhs = (const void *)e->lhs, *rhs = (const void *)e->rhs;                                         \
        scalar *out = (void *)e->out;                                                                                  \
        for (int64_t m = 0; m < e->m; m++)                                                                             \
            for (int64_t n = 0; n < e->n; n++) {                                                                       \
                uint64_t sum = 0;                                                                                      \
                for (int64_t i = 0; i < p->sum_total; i++) {                                                           \
                    const scalar *l = lhs + m * p->m.stride[LHS] + loop_offset(p->sum, p->sum_count, i, LHS);          \
                    const scalar *r = rhs + n * p->n.stride[RHS] + loop_offset(p->sum, p->sum_count, i, RHS);          \
                    for (int64_t k = 0; k < p->k.extent; k++)                                                          \
                        sum += (uint64_t)l[k * p->k.stride[LHS]] * r[k * p->k.stride[RHS]];                            \
                }                                                                                                      \
                out[m * p->m.stride[OUT] + n * p->n.stride[OUT]] = (scalar)sum;                                        \
            }                                                                                                          \
    }
INTEGER_DOT(dot_8, uint8_t) /* products modulo 2^bits are the same for signed operands */
INTEGER_DOT(dot_16, uint16_t)
INTEGER_DOT(dot_32, uint32_t)
INTEGER_DOT(dot_64, uint64_t)

static void dot_bool(const struct product *p, const struct piece *e)
{
    for (int64_t m = 0; m < e->m; m++)
        for (int64_t n = 0; n < e->n; n++) {
            bool any = false;
            for (int64_t i = 0; i < p->sum_total * p->k.extent && !any; i++) {
                int64_t s = i / p->k.extent, k = i % p->k.extent;
                int64_t l = m * p->m.stride[LHS] + k * p->k.stride[LHS] + loop_offset(p->sum, p->sum_count, s, LHS);
                int64_t r = n * p->n.stride[RHS] + k * p->k.stride[RHS] + loop_offset(p->sum, p->sum_count, s, RHS);
                any = e->lhs[l] && e->rhs[r];
            }
            e->out[m * p->m.stride[OUT] + n * p->n.stride[OUT]] = any;
        }
}

static void integers(const struct product *p, const struct piece *e)
{
    size_t size = dtype_size(p->type);
    if (p->type == DT_BOOL)
        dot_bool(p, e);
    else if (size == 1)
        dot_8(p, e);
    else if (size == 2)
        dot_16(p, e);
    else if (size == 4)
        dot_32(p, e);
    else
        dot_64(p, e);
}

/* ---- sharing out -------------------------------------------------------------------------------------------------- */

static void multiply(struct product *p, const struct piece *e)
{
    if (e->m <= 0 || e->n <= 0)
        return;
    if (!dtype_is_float(p->type))
        integers(p, e);
    else if (!try_skinny(p, e) && !try_direct(p, e))
        by_blocks(p, e);
}

static void work(void *context, uint32_t part, uint32_t parts)
{
    struct product *p = context;
    int64_t size = (int64_t)dtype_size(p->type), first = 0, last = p->outer_total;
    int64_t m = 0, m_end = p->m.extent, n = 0, n_end = p->n.extent;
    if (p->split_outer)
        part_range(p->outer_total, 1, part, parts, &first, &last);
    else if (p->split_rows)
        part_range(p->m.extent, 12, part, parts, &m, &m_end);
    else
        part_range(p->n.extent, 32, part, parts, &n, &n_end);
    for (int64_t i = first; i < last; i++) {
        struct piece e = {.m = m_end - m, .n = n_end - n, .part = part};
        e.lhs = p->lhs + (loop_offset(p->outer, p->outer_count, i, LHS) + m * p->m.stride[LHS]) * size;
        e.rhs = p->rhs + (loop_offset(p->outer, p->outer_count, i, RHS) + n * p->n.stride[RHS]) * size;
        e.out = p->out +
                (loop_offset(p->outer, p->outer_count, i, OUT) + m * p->m.stride[OUT] + n * p->n.stride[OUT]) * size;
        multiply(p, &e);
    }
}

static int64_t total(const struct axis *axes, uint32_t count)
{
    int64_t n = 1;
    for (uint32_t i = 0; i < count; i++)
        n *= axes[i].extent;
    return n;
}

status gemm_dot(const struct dot_view *view, dtype type, const void *lhs, const void *rhs, void *out,
                struct workers *workers)
{
    struct dot_view v = *view;
    for (uint32_t a = 0; a < v.batch + v.m + v.n; a++)
        if (v.extent[a] == 0)
            return TPC_OK;
    dot_view_merge(&v);
    int64_t size = (int64_t)dtype_size(type);
    struct product p = {.type = type, .workers = workers};
    p.lhs = (const char *)lhs + v.offset[LHS] * size;
    p.rhs = (const char *)rhs + v.offset[RHS] * size;
    p.out = (char *)out + v.offset[OUT] * size;
    for (uint32_t a = 0; a < v.batch; a++)
        p.outer[p.outer_count++] = axis_at(&v, a);
    p.m = pick(&v, v.batch, v.m, p.outer, &p.outer_count);
    p.n = pick(&v, v.batch + v.m, v.n, p.outer, &p.outer_count);
    p.k = pick(&v, v.batch + v.m + v.n, v.k, p.sum, &p.sum_count);
    assert(p.outer_count <= MAX_RANK && p.sum_count <= MAX_RANK);
    p.outer_total = total(p.outer, p.outer_count);
    p.sum_total = total(p.sum, p.sum_count);
    /* Few columns are as good as few rows; and a result stored by columns is the other product stored by rows. */
    bool few = p.m.extent <= SKINNY_ROWS || p.n.extent <= SKINNY_ROWS;
    if (few ? p.n.extent < p.m.extent : p.n.stride[OUT] != 1 && p.m.stride[OUT] == 1)
        swap_sides(&p);

    uint32_t parts = workers_count(workers);
    p.split_outer = p.outer_total >= parts && (p.outer_total % parts == 0 || p.outer_total >= 4 * (int64_t)parts);
    p.split_rows = !p.split_outer && p.m.extent > p.n.extent;
    if (parts == 1 || dot_view_flops(&v) < 4e5) /* some ten microseconds: waking the others is not worth it */
        work(&p, 0, 1);
    else
        workers_run(workers, work, &p);
    return atomic_load(&p.out_of_memory) ? TPC_NOMEM : TPC_OK;
}
