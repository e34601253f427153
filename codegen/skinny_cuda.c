/* codegen/skinny_cuda.c - products of few rows with a weight, on CUDA: bound by reading the weight once; and the pointwise kernel behind one, as its
 * epilogue. Which steps they are, and their launches; the text is skinny_text_cuda.c's.
 *
 * Two functions by how the weight lies, along k or along n, either for one row or for up to 8. The epilogue is any pointwise kernel that alone reads
 * the product, in its own order of elements: it is printed where the sum is known, in the kernel's coordinates, so bias, activation and
 * residual are no cases. For more rows the steps stay on their own. Start at cuda_find_skinny.
 */
#include "codegen/cuda_impl.h"

enum { MOST_ROWS = 8, LANES = 8, BLOCK_WARPS = CUDA_SKINNY_THREADS / CUDA_WARP, LEAST_PART = 64, PART_ROWS = 32 };
enum { LIMIT = 1 << 30 }; /* extents are counted in 32 bits */
static const uint32_t row_counts[2] = {1, MOST_ROWS};

/* ---- finding ---- */

static bool is_weight(const struct program *p, uint32_t buffer)
{
    buffer_kind kind = p->buffers.at[buffer].kind;
    return kind == BUFFER_WEIGHT || kind == BUFFER_KEPT || kind == BUFFER_CONSTANT;
}

/* Could there be few rows? */
static bool may_be_skinny(const struct cuda_set *set, const struct step *s)
{
    const struct dims *t = set->program->graph->dims;
    int64_t rows = 1, x;
    if (s->kind != STEP_DOT || s->phase != PHASE_RUN || !is_weight(set->program, s->arg[1]) || s->dot->batch ||
        !s->dot->n || !s->dot->k)
        return false;
    dtype type = set->program->buffers.at[s->arg[2]].type;
    if (type != DT_F16 && type != DT_BF16 && type != DT_F32)
        return false;
    for (uint32_t i = 0; i < s->dot->m; i++)
        rows *= dim_is_const(t, s->dot->extent[i], &x) ? x : 1;
    return rows <= MOST_ROWS;
}

static dim row_major(struct dims *t, const struct kernel *k)
{
    dim index = dim_const(t, 0);
    for (uint32_t i = 0; i < k->outer; i++)
        index = dim_add(t, dim_mul(t, index, k->extent[i]), dim_coordinate(t, i));
    return index;
}

/* The kernel's one plain load of a buffer, all of whose elements it reads in order; -1: it is not so. */
static int32_t plain_load(struct cuda_set *set, const struct step *s, uint32_t buffer)
{
    const struct kernel *k = &set->program->kernels.at[s->kernel];
    dim index = row_major(set->program->graph->dims, k);
    int32_t found = -1;
    for (uint32_t i = 0; i < k->instruction_count; i++) {
        const struct instruction *n = &k->instruction[i];
        if (n->kind != INST_LOAD || s->arg[n->buffer] != buffer)
            continue;
        if (found >= 0 || n->index != index || n->dynamic >= 0 || n->predicate >= 0)
            return -1;
        found = (int32_t)i;
    }
    return found;
}

/* The step that alone reads a dot's result, when it can be its epilogue and is not another's. */
static bool find_epilogue(struct cuda_set *set, uint32_t dot, struct cuda_skinny *a)
{
    const struct program *p = set->program;
    uint32_t buffer = p->steps.at[dot].arg[2], readers = 0;
    if (p->buffers.at[buffer].kind != BUFFER_TEMP)
        return false;
    for (uint32_t i = 0; i < p->steps.count; i++)
        for (uint32_t k = 0; k < p->steps.at[i].arg_count && i != dot; k++)
            if (p->steps.at[i].arg[k] == buffer) {
                a->epilogue = i;
                readers++;
            }
    const struct step *s = &p->steps.at[a->epilogue];
    if (readers != 1 || set->skinny[a->epilogue] || a->epilogue < dot || !cuda_may_wait(p, dot, a->epilogue) ||
        s->kind != STEP_KERNEL || s->phase != PHASE_RUN || p->kernels.at[s->kernel].inner != 0 ||
        p->kernels.at[s->kernel].outer == 0)
        return false;
    a->load = plain_load(set, s, buffer);
    return a->load >= 0;
}

void cuda_find_skinny(struct cuda_set *set)
{
    const struct program *p = set->program;
    set->skinny = NEW_ARRAY(set->arena, uint32_t, p->steps.count + 1);
    for (uint32_t i = 0; i < p->steps.count; i++) {
        struct cuda_skinny a = {.dot = i};
        const struct step *s = &p->steps.at[i];
        if (!may_be_skinny(set, s))
            continue;
        uint32_t last_k = s->dot->m + s->dot->n + s->dot->k - 1;
        a.along_k = dim_is(p->graph->dims, s->dot->stride[1][last_k], 1);
        if (!find_epilogue(set, i, &a))
            a.epilogue = 0;
        for (int few = 0; few < 2; few++) {
            const struct cuda_skinny alone = {.dot = i, .along_k = a.along_k};
            a.with[few] = a.epilogue ? cuda_add_skinny(set, &a, row_counts[few]) : 0;
            a.alone[few] = cuda_add_skinny(set, &alone, row_counts[few]);
        }
        *PUSH(set->arena, &set->skinnies) = a;
        set->skinny[i] = set->skinnies.count;
        if (a.epilogue)
            set->skinny[a.epilogue] = set->skinnies.count;
    }
}

/* ---- launches ---- */

/* As one product that the functions take. */
static bool product_of(struct cuda_making *m, const struct cuda_skinny *a, struct cuda_product *out)
{
    const struct step *s = &m->set->program->steps.at[a->dot];
    struct cuda_view v;
    struct cuda_step step;
    dtype t = m->set->program->buffers.at[s->arg[2]].type;
    int64_t width = 16 / (int64_t)dtype_size(t);
    if (!cuda_view_of(s->dot, m->set->program->graph->dims, m->of, &v) || !cuda_products_of(m, &v, t, &step) ||
        step.count != 1 || step.product[0].batch != 1)
        return false;
    *out = step.product[0];
    int64_t next = a->along_k ? out->stride[1][0] : out->stride[1][1], length = a->along_k ? out->k : out->n;
    bool lies = a->along_k ? out->stride[1][1] == 1 : out->stride[1][0] == 1;
    bool x_fits = out->stride[0][1] == 1 &&
                  (!a->along_k || (out->offset[0] % width == 0 && (out->m == 1 || out->stride[0][0] % width == 0)));
    return out->m >= 1 && out->m <= MOST_ROWS && out->k >= 1 && out->k <= LIMIT && out->n <= LIMIT && lies && x_fits &&
           next % width == 0 && length % width == 0 && out->offset[1] % width == 0;
}

/* Does the epilogue see the product row by row? */
static bool takes_epilogue(const struct cuda_making *m, const struct cuda_skinny *a, const struct cuda_product *x)
{
    if (!a->epilogue || !m->set->joined || x->offset[2] != 0 || x->stride[2][1] != 1 ||
        (x->m > 1 && x->stride[2][0] != x->n))
        return false;
    const struct kernel *k = &m->set->program->kernels.at[m->set->program->steps.at[a->epilogue].kernel];
    int64_t elements = 1, extent;
    for (uint32_t i = 0; i < k->outer; i++)
        if (!dim_eval(m->set->program->graph->dims, k->extent[i], m->of, &extent) ||
            !i64_mul(elements, extent, &elements))
            return false;
    return elements == x->m * x->n;
}

static int64_t divide_up(int64_t a, int64_t b)
{
    return a / b + (a % b != 0);
}

/* How a launch shares out its work. */
struct shares {
    int64_t tiles, parts; /* blocks: the grid's x and y */
    int64_t per_part;     /* of k; or warps of a block that share columns */
    int64_t sums;         /* floats that a part leaves for the last block */
};

/* Some two blocks per multiprocessor wherever there is enough work: then all run at once, and each has room for its successor's. */
static struct shares shares_of(const struct cuda_making *m, const struct cuda_product *x, bool along_k, int64_t rows)
{
    int64_t wanted = 2 * (int64_t)m->processors, width = 16 / (int64_t)dtype_size(x->type);
    struct shares s = {.parts = 1, .per_part = 1};
    if (along_k) {
        int64_t columns = divide_up(x->n, CUDA_SKINNY_COLUMNS);
        while (s.per_part < BLOCK_WARPS && divide_up(columns * s.per_part, BLOCK_WARPS) < wanted &&
               2 * s.per_part * CUDA_WARP * width <= x->k)
            s.per_part *= 2;
        s.tiles = divide_up(columns * s.per_part, BLOCK_WARPS);
        return s;
    }
    s.per_part = x->k;
    s.tiles = divide_up(x->n, LANES * width);
    int64_t most = x->k / LEAST_PART, parts = (wanted + s.tiles / 2) / s.tiles;
    parts = parts < most ? parts : most;
    if (parts > 1 && s.tiles <= CUDA_SKINNY_TILES) {
        s.per_part = divide_up(divide_up(x->k, parts), PART_ROWS) * PART_ROWS;
        s.parts = divide_up(x->k, s.per_part);
    }
    s.sums = s.parts > 1 ? rows * LANES * width : 0;
    return s;
}

static void put_epilogue(struct cuda_making *m, const struct cuda_skinny *a)
{
    const struct step *epilogue = &m->set->program->steps.at[a->epilogue];
    const struct nest *n = &m->set->kernel[epilogue->kernel].nest;
    for (uint32_t i = 0; i < n->kernel->buffer_count; i++)
        if (i != n->kernel->instruction[a->load].buffer)
            cuda_put_buffer(m, epilogue->arg[i], 0);
    for (uint32_t i = 0; i < n->symbol_count; i++)
        cuda_put_number(m, m->of[n->symbol[i]]);
    cuda_put_fault(m);
}

bool cuda_skinny_step(struct cuda_making *m, const struct cuda_skinny *a, struct cuda_step *out)
{
    struct cuda_product x;
    const struct program *p = m->set->program;
    const struct step *dot = &p->steps.at[a->dot];
    if (!product_of(m, a, &x))
        return false;
    bool with = takes_epilogue(m, a, &x);
    *out = (struct cuda_step){.way = CUDA_NOTHING};
    if (with != (a->epilogue && m->step == a->epilogue))
        return m->step == a->dot; /* the epilogue does all of it; or it stays a kernel on its own */
    int64_t size = (int64_t)dtype_size(p->buffers.at[dot->arg[2]].type);
    struct shares s = shares_of(m, &x, a->along_k, row_counts[x.m > 1]);
    cuda_put_buffer(m, dot->arg[0], x.offset[0] * size);
    cuda_put_workspace(m, 0);
    const int64_t head[] = {x.m, x.k, x.stride[0][0], s.tiles, s.per_part};
    for (size_t i = 0; i < sizeof head / sizeof head[0]; i++)
        cuda_put_number(m, head[i]);
    cuda_put_buffer(m, dot->arg[1], x.offset[1] * size);
    cuda_put_buffer(m, dot->arg[2], x.offset[2] * size);
    const int64_t unit[] = {x.n, s.tiles, a->along_k ? x.stride[1][0] : x.stride[1][1], x.stride[2][0], x.stride[2][1]};
    for (size_t i = 0; i < sizeof unit / sizeof unit[0]; i++)
        cuda_put_number(m, unit[i]);
    if (with)
        put_epilogue(m, a);
    struct cuda_launch *launch = NEW(m->arena, struct cuda_launch);
    *launch = cuda_launch_of(m, (with ? a->with : a->alone)[x.m > 1], s.tiles, CUDA_SKINNY_THREADS, 1, 0);
    launch->grid[1] = (uint32_t)s.parts;
    *out = (struct cuda_step){.way = CUDA_LAUNCH,
                              .count = 1,
                              .launch = launch,
                              .workspace = (uint64_t)(s.tiles * s.parts * s.sums) * sizeof(float)};
    return true;
}
