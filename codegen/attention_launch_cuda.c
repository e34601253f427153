/* codegen/attention_launch_cuda.c - attention's launches: whether three steps are one for given shapes, and how rows and keys are shared out.
 *
 * Rows are numbered as the matrix of scores has them, which must be dense; the axes of both products are sorted to that order. Rows that
 * share keys and values (positions, heads of a group) are innermost then and make a group. Start at cuda_attention_step.
 */
#include "codegen/cuda_impl.h"

enum { LEAST_SPLIT = 32, FEW_ROWS = 32, AXES = MAX_RANK, MOST_KEYS = 1 << 30 };

/* Axes of rows: extents, strides of the matrix of rows x keys, and of two other operands. */
struct rows {
    uint32_t count;
    int64_t extent[AXES], order[AXES], inner[AXES], outer[AXES];
};

static bool rows_of(const struct cuda_making *m, const struct step *s, int matrix, int inner, int outer, struct rows *r)
{
    const struct dims *t = m->set->program->graph->dims;
    const struct dot *d = s->dot;
    r->count = cuda_rows_axes(d);
    for (uint32_t i = 0; i < r->count; i++)
        if (!dim_eval(t, d->extent[i], m->of, &r->extent[i]) ||
            !dim_eval(t, d->stride[matrix][i], m->of, &r->order[i]) ||
            !dim_eval(t, d->stride[inner][i], m->of, &r->inner[i]) ||
            !dim_eval(t, d->stride[outer][i], m->of, &r->outer[i]) || r->extent[i] < 0)
            return false;
    return true;
}

static void swap(int64_t *a, int64_t *b)
{
    int64_t c = *a;
    *a = *b;
    *b = c;
}

/* Outermost first; false when the matrix is not dense, `keys` to a row. */
static bool sort_rows(struct rows *r, int64_t keys)
{
    for (uint32_t i = 0; i < r->count; i++)
        for (uint32_t k = i + 1; k < r->count; k++)
            if (r->order[k] > r->order[i] || (r->order[k] == r->order[i] && r->extent[i] == 1)) {
                swap(&r->order[i], &r->order[k]);
                swap(&r->extent[i], &r->extent[k]);
                swap(&r->inner[i], &r->inner[k]);
                swap(&r->outer[i], &r->outer[k]);
            }
    int64_t stride = keys;
    for (uint32_t i = r->count; i-- > 0;) {
        if (r->extent[i] != 1 && r->order[i] != stride)
            return false;
        stride *= r->extent[i];
    }
    return true;
}

/* Rows, innermost, that share what `outer` steps through. */
static int64_t group_of(const struct rows *r)
{
    int64_t group = 1;
    for (uint32_t i = r->count; i-- > 0 && (r->outer[i] == 0 || r->extent[i] == 1);)
        group *= r->extent[i];
    return group;
}

struct shape {
    struct rows first, second; /* sorted */
    struct rows given[2];      /* as the products have them */
    int64_t rows, keys, group;
    int64_t line, alike; /* rows that differ in the kernel's innermost coordinate alone; that may differ in a tile */
};

static bool shape_of(const struct cuda_making *m, const struct cuda_attention *a, struct shape *out)
{
    const struct program *p = m->set->program;
    const struct step *first = &p->steps.at[a->scores], *second = &p->steps.at[a->product];
    const struct kernel *k = &p->kernels.at[p->steps.at[a->softmax].kernel];
    uint32_t n = cuda_rows_axes(first->dot), rest = cuda_rows_axes(second->dot) + 1;
    int64_t keys = 0, again = 0, stride[2], offset[2], rows[2] = {1, 1}, of_kernel = 1, x;
    const struct dims *t = p->graph->dims;
    bool fits = dim_eval(t, first->dot->extent[n], m->of, &keys) &&
                dim_eval(t, second->dot->extent[rest], m->of, &again) &&
                dim_eval(t, first->dot->stride[2][n], m->of, &stride[0]) &&
                dim_eval(t, second->dot->stride[0][rest], m->of, &stride[1]) &&
                dim_eval(t, first->dot->offset[2], m->of, &offset[0]) &&
                dim_eval(t, second->dot->offset[0], m->of, &offset[1]) && rows_of(m, first, 2, 0, 1, &out->first) &&
                rows_of(m, second, 0, 2, 1, &out->second);
    if (!fits || keys < 1 || keys > MOST_KEYS || again != keys || offset[0] != 0 || offset[1] != 0 ||
        (keys > 1 && (stride[0] != 1 || stride[1] != 1)))
        return false;
    out->given[0] = out->first;
    out->given[1] = out->second;
    if (!sort_rows(&out->first, keys) || !sort_rows(&out->second, keys))
        return false;
    for (uint32_t i = 0; i < out->first.count; i++)
        rows[0] *= out->first.extent[i];
    for (uint32_t i = 0; i < out->second.count; i++)
        rows[1] *= out->second.extent[i];
    out->line = out->alike = 1;
    for (uint32_t i = 0; i < k->outer; i++) {
        if (!dim_eval(t, k->extent[i], m->of, &x))
            return false;
        of_kernel *= x;
        out->line = x;
        out->alike = i < a->axes ? 1 : out->alike * x;
    }
    if (!dim_eval(t, k->extent[k->outer], m->of, &x) || x != keys || rows[0] != rows[1] || rows[0] != of_kernel)
        return false;
    int64_t one = group_of(&out->first), two = group_of(&out->second);
    out->group = one < two ? one : two;
    out->rows = rows[0];
    out->keys = keys;
    /* rows are 32 bits wide in the functions, with the splits of each, and keys with a tile more */
    return rows[0] == 0 || (keys <= INT32_MAX / 2 && rows[0] <= INT32_MAX / CUDA_ATTENTION_SPLITS &&
                            one % out->group == 0 && two % out->group == 0);
}

bool cuda_attention_fits(const struct cuda_making *m, const struct cuda_attention *a)
{
    struct shape shape;
    return shape_of(m, a, &shape);
}

static void put_axes(struct cuda_making *m, const struct rows *r)
{
    for (uint32_t i = 0; i < r->count; i++) {
        cuda_put_number(m, r->extent[i]);
        cuda_put_divisor(m, r->extent[i]);
        cuda_put_number(m, r->inner[i]);
        cuda_put_number(m, r->outer[i]);
    }
    for (int i = 0; i < 4 && r->count == 0; i++)
        cuda_put_number(m, i == 0);
}

/* Places of operands: offsets of q, k, v, result; steps along the head of q, k, v, result; strides of k and v from key to key. */
enum {
    OFFSET_Q = 0,
    OFFSET_K = 1,
    OFFSET_V = 2,
    STEP_Q = 4,
    STEP_K = 5,
    STEP_V = 6,
    NEXT_K = 8,
    NEXT_V = 9,
    PLACES = 10
};

static bool places_of(const struct cuda_making *m, const struct cuda_attention *a, int64_t x[PLACES])
{
    const struct program *p = m->set->program;
    const struct dot *first = p->steps.at[a->scores].dot, *second = p->steps.at[a->product].dot;
    uint32_t n1 = cuda_rows_axes(first), n2 = cuda_rows_axes(second);
    const dim numbers[PLACES] = {first->offset[0],         first->offset[1],         second->offset[1],
                                 second->offset[2],        first->stride[0][n1 + 1], first->stride[1][n1 + 1],
                                 second->stride[1][n2],    second->stride[2][n2],    first->stride[1][n1],
                                 second->stride[1][n2 + 1]};
    bool known = true;
    for (int i = 0; i < PLACES; i++)
        known = known && dim_eval(p->graph->dims, numbers[i], m->of, &x[i]);
    return known;
}

/* Can keys and values be read 16 bytes at a time? */
static bool is_wide(const struct shape *s, const int64_t x[PLACES], dtype t, int64_t key, int64_t row)
{
    int64_t width = 16 / (int64_t)dtype_size(t);
    bool wide = cuda_attention_may_be_wide(t, key, row) && x[STEP_K] == 1 && x[STEP_V] == 1 &&
                x[OFFSET_K] % width == 0 && x[OFFSET_V] % width == 0 && x[NEXT_K] % width == 0 &&
                x[NEXT_V] % width == 0;
    for (uint32_t i = 0; i < s->first.count; i++)
        wide = wide && (s->first.extent[i] == 1 || s->first.outer[i] % width == 0);
    for (uint32_t i = 0; i < s->second.count; i++)
        wide = wide && (s->second.extent[i] == 1 || s->second.outer[i] % width == 0);
    return wide;
}

/* Rows of q, too? */
static bool rows_are_wide(const struct shape *s, const int64_t x[PLACES], dtype t)
{
    int64_t width = 16 / (int64_t)dtype_size(t);
    bool wide = x[STEP_Q] == 1 && x[OFFSET_Q] % width == 0;
    for (uint32_t i = 0; i < s->first.count; i++)
        wide = wide && (s->first.extent[i] == 1 || s->first.inner[i] % width == 0);
    return wide;
}

/* Can keys that lie side by side, element by element, be read 16 bytes at a time, and values as ever? */
static bool is_across(const struct shape *s, const int64_t x[PLACES], dtype t, int64_t key, int64_t row)
{
    int64_t as_wide[PLACES];
    memcpy(as_wide, x, sizeof as_wide);
    as_wide[STEP_K] = x[NEXT_K];
    as_wide[NEXT_K] = x[STEP_K];
    return is_wide(s, as_wide, t, key, row);
}

/* Of the forms for few rows, that which reads what it can in 16 bytes. */
static int few_form(const struct cuda_attention *a, const struct shape *s, const int64_t x[PLACES], dtype t,
                    int64_t key, int64_t row)
{
    if (a->across)
        return is_across(s, x, t, key, row) ? CUDA_ATTENTION_FEW_ACROSS : CUDA_ATTENTION_FEW;
    if (!is_wide(s, x, t, key, row) || !rows_are_wide(s, x, t))
        return CUDA_ATTENTION_FEW;
    return cuda_attention_may_be_narrow(t, key, row) ? CUDA_ATTENTION_FEW_MATRIX : s->group > 1;
}

/* How the work is cut. */
struct cut {
    int form;
    int64_t tiles, splits, per_split; /* per_split: of keys; or what divides by splits */
};

/* What divides by the extents of the kernel's points. */
static void put_points(struct cuda_making *m, const struct cuda_attention *a)
{
    const struct nest *n = &m->set->kernel[m->set->program->steps.at[a->softmax].kernel].nest;
    for (uint32_t i = 0; i < n->points; i++) {
        int64_t extent = 1;
        (void)dim_eval(n->dims, n->kernel->extent[n->point[i]], m->of, &extent);
        cuda_put_divisor(m, extent);
    }
    if (n->points == 0)
        cuda_put_number(m, 0);
}

/* What the function begins with. */
static void put_head(struct cuda_making *m, const struct cuda_attention *a, const struct shape *s, const struct cut *c,
                     const int64_t x[PLACES])
{
    const struct program *p = m->set->program;
    const struct step *first = &p->steps.at[a->scores], *second = &p->steps.at[a->product];
    cuda_put_buffer(m, first->arg[0], 0);
    cuda_put_buffer(m, first->arg[1], 0);
    cuda_put_buffer(m, second->arg[1], 0);
    cuda_put_buffer(m, second->arg[2], 0);
    cuda_put_workspace(m, 0);
    for (int i = 0; i < 4; i++)
        cuda_put_number(m, x[i]);
    put_axes(m, a->alike ? &s->given[0] : &s->first);
    put_axes(m, a->alike ? &s->given[1] : &s->second);
    for (int i = 4; i < PLACES; i++)
        cuda_put_number(m, x[i]);
    const int64_t counts[] = {
        s->rows / s->group * c->tiles * c->splits, s->group, c->tiles, s->keys, c->splits, c->per_split};
    for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++)
        cuda_put_number(m, counts[i]);
    cuda_put_divisor(m, c->splits);
    cuda_put_divisor(m, c->tiles);
    put_points(m, a);
}

static void put_kernel(struct cuda_making *m, const struct cuda_attention *a)
{
    const struct step *s = &m->set->program->steps.at[a->softmax];
    const struct nest *n = &m->set->kernel[s->kernel].nest;
    for (uint32_t i = 0; i < n->kernel->buffer_count; i++)
        if (i != a->from && i != a->to)
            cuda_put_buffer(m, s->arg[i], 0);
    for (uint32_t i = 0; i < n->symbol_count; i++)
        cuda_put_number(m, m->of[n->symbol[i]]);
    uint32_t product = m->step;
    m->step = a->softmax;
    cuda_put_fault(m);
    m->step = product;
}

/* What a number is multiplied by, and the upper 32 bits taken, to divide it by d; or a little more. */
static int64_t inverse_of(int64_t d)
{
    return d == 1 ? UINT32_MAX : (((int64_t)1 << 32) + d - 1) / d;
}

/* Keys are split until there are some blocks for every processor, each with keys for all its warps. blocks: without splits. */
static void split_keys(const struct cuda_making *m, const struct shape *s, int64_t blocks, int64_t unit, struct cut *c)
{
    static const int64_t wanted[CUDA_ATTENTION_FORMS] = {3, 2, 2, 1,
                                                         1, 2, 2}; /* blocks per processor: those that run at once */
    int64_t most = wanted[c->form] * (int64_t)m->processors, splits = blocks < most ? most / blocks : 1;
    splits = blocks > CUDA_ATTENTION_TILES ? 1 : splits > CUDA_ATTENTION_SPLITS ? CUDA_ATTENTION_SPLITS : splits;
    int64_t keys = cuda_divide_up(s->keys, splits);
    c->per_split = cuda_divide_up(keys < LEAST_SPLIT ? LEAST_SPLIT : keys, unit) * unit;
    c->splits = cuda_divide_up(s->keys, c->per_split);
}

status cuda_attention_step(struct cuda_making *m, const struct cuda_attention *a, struct cuda_step *out)
{
    struct shape s;
    struct cut c = {.form = CUDA_ATTENTION_MANY, .splits = 1};
    int64_t key = 0, row = 0, blocks, bytes = 0, x[PLACES];
    *out = (struct cuda_step){.way = CUDA_NOTHING};
    if (!shape_of(m, a, &s) || !cuda_attention_widths(m->set, a, &key, &row))
        return TPC_INTERNAL;
    if (m->step != a->product || s.rows == 0)
        return TPC_OK;
    dtype t = m->set->program->buffers.at[m->set->program->steps.at[a->product].arg[2]].type;
    if (!places_of(m, a, x))
        return TPC_DATA;
    bool few = s.group <= FEW_ROWS;
    if (few)
        c.form = few_form(a, &s, x, t, key, row);
    else if (!a->across && is_wide(&s, x, t, key, row))
        c.form = CUDA_ATTENTION_MANY_WIDE;
    int64_t rows = a->rows[c.form];
    if (!few) /* a tile is to hold the end of one head and the start of the next only where heads are short */
        s.group = (int64_t)u64_gcd((uint64_t)s.group, (uint64_t)(s.line < rows / 2 ? s.alike : s.line));
    c.tiles = cuda_divide_up(s.group, rows);
    if (!i64_mul(s.rows / s.group, c.tiles, &blocks))
        return TPC_DATA;
    if (few) {
        uint32_t keys = c.form == CUDA_ATTENTION_FEW_MATRIX ? 16 : cuda_attention_keys(c.form, t, key, row);
        split_keys(m, &s, blocks, (int64_t)keys * CUDA_ATTENTION_THREADS / CUDA_WARP, &c);
        c.per_split = a->steady ? inverse_of(c.splits) : c.per_split;
    }
    if (!i64_mul(blocks, c.splits, &blocks) || !i64_mul(blocks, rows * cuda_attention_pitch(row) * 4, &bytes))
        return TPC_DATA;
    put_head(m, a, &s, &c, x);
    put_kernel(m, a);
    struct cuda_launch *launch = NEW(m->arena, struct cuda_launch);
    *launch = cuda_launch_of(m, a->function[c.form], blocks, CUDA_ATTENTION_THREADS, 1, (uint32_t)a->bytes[c.form]);
    *out = (struct cuda_step){.way = CUDA_LAUNCH, .count = 1, .launch = launch};
    out->workspace = c.splits > 1 ? (uint64_t)bytes : 0;
    return TPC_OK;
}
