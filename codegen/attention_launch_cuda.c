/* codegen/attention_launch_cuda.c - attention's launches: whether three steps are one for given shapes, and how rows and keys are shared out.
 *
 * Rows are numbered as the matrix of scores has them, which must be dense; the axes of both products are sorted to that order. Rows that
 * share keys and values (positions, heads of a group) are innermost then and make a group. Start at cuda_attention_step.
 */
#include "codegen/cuda_impl.h"

enum { LEAST_SPLIT = 128, AXES = MAX_RANK };

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
    struct rows first, second;
    int64_t rows, keys, group;
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
    if (!fits || keys < 1 || again != keys || offset[0] != 0 || offset[1] != 0 ||
        (keys > 1 && (stride[0] != 1 || stride[1] != 1)) || !sort_rows(&out->first, keys) ||
        !sort_rows(&out->second, keys))
        return false;
    for (uint32_t i = 0; i < out->first.count; i++)
        rows[0] *= out->first.extent[i];
    for (uint32_t i = 0; i < out->second.count; i++)
        rows[1] *= out->second.extent[i];
    for (uint32_t i = 0; i < k->outer; i++) {
        if (!dim_eval(t, k->extent[i], m->of, &x))
            return false;
        of_kernel *= x;
    }
    if (!dim_eval(t, k->extent[k->outer], m->of, &x) || x != keys || rows[0] != rows[1] || rows[0] != of_kernel)
        return false;
    int64_t one = group_of(&out->first), two = group_of(&out->second);
    out->group = one < two ? one : two;
    out->rows = rows[0];
    out->keys = keys;
    return rows[0] == 0 || (one % out->group == 0 && two % out->group == 0);
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
        cuda_put_number(m, r->inner[i]);
        cuda_put_number(m, r->outer[i]);
    }
    for (int i = 0; i < 3 && r->count == 0; i++)
        cuda_put_number(m, i == 0);
}

/* What both functions begin with. */
static bool put_head(struct cuda_making *m, const struct cuda_attention *a, const struct shape *s, int64_t tiles,
                     int64_t splits, int64_t per_split)
{
    const struct program *p = m->set->program;
    const struct step *first = &p->steps.at[a->scores], *second = &p->steps.at[a->product];
    const struct dims *t = p->graph->dims;
    uint32_t n1 = cuda_rows_axes(first->dot), n2 = cuda_rows_axes(second->dot);
    const dim numbers[] = {first->dot->offset[0],         first->dot->offset[1],         second->dot->offset[1],
                           second->dot->offset[2],        first->dot->stride[0][n1 + 1], first->dot->stride[1][n1 + 1],
                           second->dot->stride[1][n2],    second->dot->stride[2][n2],    first->dot->stride[1][n1],
                           second->dot->stride[1][n2 + 1]};
    int64_t x[10];
    for (int i = 0; i < 10; i++)
        if (!dim_eval(t, numbers[i], m->of, &x[i]))
            return false;
    cuda_put_buffer(m, first->arg[0], 0);
    cuda_put_buffer(m, first->arg[1], 0);
    cuda_put_buffer(m, second->arg[1], 0);
    cuda_put_buffer(m, second->arg[2], 0);
    cuda_put_workspace(m, 0);
    for (int i = 0; i < 4; i++)
        cuda_put_number(m, x[i]);
    put_axes(m, &s->first);
    put_axes(m, &s->second);
    for (int i = 4; i < 10; i++)
        cuda_put_number(m, x[i]);
    const int64_t counts[] = {s->rows, s->group, tiles, s->keys, splits, per_split};
    for (int i = 0; i < 6; i++)
        cuda_put_number(m, counts[i]);
    return true;
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

/* Keys are split where rows alone leave most of the device idle. */
static int64_t splits_for(const struct cuda_making *m, int64_t blocks, int64_t keys)
{
    int64_t wanted = blocks < m->processors ? (2 * (int64_t)m->processors + blocks - 1) / blocks : 1;
    int64_t most = keys / LEAST_SPLIT;
    wanted = wanted < most ? wanted : most;
    return wanted < 1 ? 1 : wanted;
}

status cuda_attention_step(struct cuda_making *m, const struct cuda_attention *a, struct cuda_step *out)
{
    struct shape s;
    int64_t key = 0, row = 0, blocks, bytes;
    *out = (struct cuda_step){.way = CUDA_NOTHING};
    if (!shape_of(m, a, &s) || !cuda_attention_widths(m->set, a, &key, &row))
        return TPC_INTERNAL;
    if (m->step != a->product || s.rows == 0)
        return TPC_OK;
    struct cuda_launch *launch = NEW_ARRAY(m->arena, struct cuda_launch, 2);
    int few = s.group <= 8;
    int64_t per_block = CUDA_ATTENTION_THREADS / cuda_attention_lanes[few],
            tiles = (s.group + per_block - 1) / per_block;
    if (!i64_mul(s.rows / s.group, tiles, &blocks))
        return TPC_DATA;
    int64_t splits = splits_for(m, blocks, s.keys);
    int64_t per_split =
        ((s.keys + splits - 1) / splits + CUDA_ATTENTION_KEYS - 1) / CUDA_ATTENTION_KEYS * CUDA_ATTENTION_KEYS;
    splits = (s.keys + per_split - 1) / per_split;
    if (!put_head(m, a, &s, tiles, splits, per_split) || !i64_mul(s.rows * splits, (row + 2) * 4, &bytes))
        return TPC_DATA;
    put_kernel(m, a);
    launch[0] = cuda_launch_of(m, a->function[few], blocks * splits, CUDA_ATTENTION_THREADS, 1, 0);
    *out = (struct cuda_step){.way = CUDA_LAUNCH, .count = 1, .launch = launch};
    if (splits == 1)
        return TPC_OK;
    if (!put_head(m, a, &s, tiles, splits, per_split))
        return TPC_DATA;
    launch[1] = cuda_launch_of(m, a->merge, (s.rows * row + CUDA_ATTENTION_THREADS - 1) / CUDA_ATTENTION_THREADS,
                               CUDA_ATTENTION_THREADS, 1, 0);
    out->count = 2;
    out->workspace = (uint64_t)bytes;
    return TPC_OK;
}
