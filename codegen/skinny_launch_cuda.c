/* codegen/skinny_launch_cuda.c - launches of skinny_cuda.c's candidates: which of them fits the shapes, and how its work is shared out. Start at
 * cuda_skinny_step.
 */
#include "codegen/cuda_impl.h"

enum {
    LANES = 8,
    BLOCK_WARPS = CUDA_SKINNY_THREADS / CUDA_WARP,
    LEAST_PART = 64,
    PART_ROWS = 32,
    MOST_PARTS = 32,
    FEW_PARTS = 8 /* that are added at once */
};
enum {
    LIMIT = 1 << 30,         /* extents are counted in 32 bits */
    ROW_BYTES_LIMIT = 32768, /* of shared memory for the row that a norm gives */
};

struct products {
    struct cuda_product of[CUDA_SKINNY_UNITS][2];
};

/* ---- shapes ---- */

static const struct step *step_at(const struct cuda_making *m, uint32_t step)
{
    return &m->set->program->steps.at[step];
}

/* A dot as one product that the functions take. */
static bool product_of(struct cuda_making *m, uint32_t dot, bool along_k, struct cuda_product *out)
{
    const struct step *s = step_at(m, dot);
    struct cuda_view v;
    struct cuda_step step;
    dtype t = m->set->program->buffers.at[s->arg[2]].type;
    int64_t width = 16 / (int64_t)dtype_size(t);
    if (!cuda_view_of(s->dot, m->set->program->graph->dims, m->of, &v) || !cuda_products_of(m, &v, t, &step) ||
        step.count != 1 || step.product[0].batch != 1)
        return false;
    *out = step.product[0];
    int64_t next = along_k ? out->stride[1][0] : out->stride[1][1], length = along_k ? out->k : out->n;
    bool lies = along_k ? out->stride[1][1] == 1 : out->stride[1][0] == 1;
    bool x_fits = out->stride[0][1] == 1 &&
                  (!along_k || (out->offset[0] % width == 0 && (out->m == 1 || out->stride[0][0] % width == 0)));
    return out->m >= 1 && out->m <= CUDA_SKINNY_ROWS && out->k >= 1 && out->k <= LIMIT && out->n >= 1 &&
           out->n <= LIMIT && lies && x_fits && next % width == 0 && length % width == 0 && out->offset[1] % width == 0;
}

/* Number of a kernel's elements, those of a row included; -1: too many. */
static int64_t elements_of(const struct cuda_making *m, const struct step *s)
{
    const struct kernel *k = &m->set->program->kernels.at[s->kernel];
    int64_t elements = 1, extent;
    for (uint32_t i = 0; i < k->outer + k->inner; i++)
        if (!dim_eval(m->set->program->graph->dims, k->extent[i], m->of, &extent) ||
            !i64_mul(elements, extent, &elements))
            return -1;
    return elements;
}

/* Does the epilogue see the products row by row? */
static bool takes_epilogue(const struct cuda_making *m, const struct cuda_skinny_unit *unit, uint32_t width,
                           const struct cuda_product *x)
{
    for (uint32_t d = 0; d < width; d++)
        if (x[d].offset[2] != 0 || x[d].stride[2][1] != 1 || (x[d].m > 1 && x[d].stride[2][0] != x[d].n) ||
            x[d].n != x[0].n)
            return false;
    return elements_of(m, step_at(m, unit->epilogue)) == x->m * x->n;
}

/* ---- shares ---- */

/* How a launch shares out its work. */
struct shares {
    int64_t tile[CUDA_SKINNY_UNITS]; /* tiles of each unit */
    int64_t tiles, parts;            /* blocks: the grid's x and y */
    int64_t per_part;                /* of k; or warps of a block that share columns */
    int64_t sums;                    /* floats that a part leaves for the last block */
};

/* Columns of a tile; and tiles of all units. */
static void count_tiles(const struct cuda_skinny *a, const struct products *x, int64_t columns, struct shares *s)
{
    s->tiles = 0;
    for (uint32_t u = 0; u < a->units; u++)
        s->tiles += s->tile[u] = cuda_divide_up(x->of[u][0].n, columns);
}

static int64_t rows_of_part(int64_t k, int64_t parts)
{
    return cuda_divide_up(cuda_divide_up(k, parts), PART_ROWS) * PART_ROWS;
}

/* Parts of k for each of the tiles: none where one and a half blocks per multiprocessor are there without (97 % of an H200's bandwidth, and a part costs 2
 * us of adding at the end); else two and a half or more, in a number that leaves few multiprocessors with less than others, and all at once. */
static int64_t parts_for(const struct cuda_making *m, int64_t tiles, int64_t k, int64_t room)
{
    int64_t most = k / LEAST_PART < MOST_PARTS ? k / LEAST_PART : MOST_PARTS, best = 1, chosen = tiles, fullest = 0;
    for (int64_t parts = 1; parts <= most && fullest < 93; parts++) {
        int64_t blocks = tiles * cuda_divide_up(k, rows_of_part(k, parts)),
                rounds = cuda_divide_up(blocks, m->processors);
        int64_t full = 2 * blocks < 5 * (int64_t)m->processors ? 0 : 100 * blocks / (rounds * m->processors);
        bool enough = 2 * chosen >= 3 * (int64_t)m->processors;
        if (blocks > room * m->processors || (enough && (chosen == tiles || parts > FEW_PARTS)))
            break;
        if (full == 0 || full > fullest) {
            best = parts;
            chosen = blocks;
            fullest = full;
        }
    }
    return best;
}

static struct shares shares_of(const struct cuda_making *m, const struct cuda_skinny *a, const struct products *x)
{
    const struct cuda_product *first = &x->of[0][0];
    int64_t wanted = 2 * (int64_t)m->processors, width = 16 / (int64_t)dtype_size(first->type);
    int64_t rows = first->m > 1 ? CUDA_SKINNY_ROWS : 1;
    struct shares s = {.parts = 1, .per_part = 1};
    if (a->along_k) {
        int64_t warps = BLOCK_WARPS / a->width, columns = warps * cuda_skinny_columns(first->m > 1);
        for (count_tiles(a, x, columns, &s);
             s.per_part < warps && 3 * s.tiles <= 2 * wanted && 2 * s.per_part * CUDA_WARP * width <= first->k;
             count_tiles(a, x, columns / s.per_part, &s))
            s.per_part *= 2;
        return s;
    }
    count_tiles(a, x, LANES * width, &s);
    s.per_part = first->k;
    int64_t parts = parts_for(m, s.tiles, first->k, cuda_skinny_room(a, first->type, first->m > 1));
    if (parts > 1 && s.tiles <= CUDA_SKINNY_TILES) {
        s.per_part = rows_of_part(first->k, parts);
        s.parts = cuda_divide_up(first->k, s.per_part);
        s.sums = a->width * rows * LANES * width;
    }
    return s;
}

/* ---- which candidate? ---- */

/* The row that the norm gives is the left operand and fits in shared memory; and all blocks run at once: else some would do the norm when memory could
 * be busy with weights. */
static bool takes_norm(const struct cuda_making *m, const struct cuda_skinny *a, const struct products *all)
{
    const struct cuda_product *x = &all->of[0][0];
    struct shares s = shares_of(m, a, all);
    return s.tiles * s.parts <= (int64_t)m->processors * cuda_skinny_room(a, x->type, false) && x->m == 1 &&
           x->offset[0] == 0 && elements_of(m, step_at(m, a->norm)) == x->k &&
           x->k * (int64_t)dtype_size(x->type) <= ROW_BYTES_LIMIT;
}

static bool fits(struct cuda_making *m, const struct cuda_skinny *a, struct products *x)
{
    const struct cuda_product *first = &x->of[0][0];
    if (a->joins && !m->set->joined)
        return false;
    for (uint32_t u = 0; u < a->units; u++) {
        for (uint32_t d = 0; d < a->width; d++)
            if (!product_of(m, a->unit[u].dot[d], a->along_k, &x->of[u][d]) || x->of[u][d].m != first->m ||
                x->of[u][d].k != first->k)
                return false;
        if (a->unit[u].epilogue && !takes_epilogue(m, &a->unit[u], a->width, x->of[u]))
            return false;
    }
    return a->function[first->m > 1] != UINT32_MAX && (a->normal < 0 || takes_norm(m, a, x));
}

/* ---- the launch ---- */

static void put_unit(struct cuda_making *m, const struct cuda_skinny *a, uint32_t u, const struct cuda_product *x,
                     int64_t tiles)
{
    int64_t size = (int64_t)dtype_size(x->type);
    for (int o = 1; o < 3; o++)
        for (uint32_t d = 0; d < a->width; d++)
            cuda_put_buffer(m, step_at(m, a->unit[u].dot[d])->arg[o], x[d].offset[o] * size);
    cuda_put_number(m, x->n);
    cuda_put_number(m, tiles);
    for (uint32_t d = 0; d < a->width; d++)
        cuda_put_number(m, a->along_k ? x[d].stride[1][0] : x[d].stride[1][1]);
    for (int i = 0; i < 2; i++)
        for (uint32_t d = 0; d < a->width; d++)
            cuda_put_number(m, x[d].stride[2][i]);
}

/* What a kernel has as arguments, but for the buffers of these accesses. */
static void put_kernel(struct cuda_making *m, uint32_t step, const int32_t *access, uint32_t count)
{
    const struct step *s = step_at(m, step);
    const struct nest *n = &m->set->kernel[s->kernel].nest;
    uint32_t own = m->step;
    for (uint32_t i = 0; i < n->kernel->buffer_count; i++) {
        bool skip = false;
        for (uint32_t k = 0; k < count; k++)
            skip |= n->kernel->instruction[access[k]].buffer == i;
        if (!skip)
            cuda_put_buffer(m, s->arg[i], 0);
    }
    for (uint32_t i = 0; i < n->symbol_count; i++)
        cuda_put_number(m, m->of[n->symbol[i]]);
    m->step = step;
    cuda_put_fault(m);
    m->step = own;
}

static void make_launch(struct cuda_making *m, const struct cuda_skinny *a, const struct products *x,
                        struct cuda_step *out)
{
    const struct cuda_product *first = &x->of[0][0];
    int64_t size = (int64_t)dtype_size(first->type);
    struct shares s = shares_of(m, a, x);
    cuda_put_buffer(m, step_at(m, a->unit[0].dot[0])->arg[0], first->offset[0] * size);
    cuda_put_workspace(m, 0);
    const int64_t head[] = {first->m, first->k, first->stride[0][0], s.tiles, s.per_part};
    for (size_t i = 0; i < sizeof head / sizeof head[0]; i++)
        cuda_put_number(m, head[i]);
    for (uint32_t u = 0; u < a->units; u++)
        put_unit(m, a, u, x->of[u], s.tile[u]);
    for (uint32_t u = 0; u < a->units; u++)
        if (a->unit[u].epilogue)
            put_kernel(m, a->unit[u].epilogue, a->unit[u].load, a->width);
    if (a->normal >= 0)
        put_kernel(m, a->norm, &a->normal, 1);
    struct cuda_launch *launch = NEW(m->arena, struct cuda_launch);
    *launch = cuda_launch_of(m, a->function[first->m > 1], s.tiles, CUDA_SKINNY_THREADS, 1,
                             a->normal >= 0 ? (uint32_t)(first->k * size) : 0);
    launch->grid[1] = (uint32_t)s.parts;
    *out = (struct cuda_step){
        .way = CUDA_LAUNCH, .count = 1, .launch = launch, .workspace = (uint64_t)(s.tiles * s.parts * s.sums) * 4};
}

bool cuda_skinny_step(struct cuda_making *m, struct cuda_step *out)
{
    const struct cuda_skinny_steps *steps = &m->set->skinny[m->step];
    for (uint32_t i = steps->count; i-- > 0;) {
        const struct cuda_skinny *a = &m->set->skinnies.at[steps->at[i]];
        struct products x;
        if (!fits(m, a, &x))
            continue;
        if (a->place == m->step)
            make_launch(m, a, &x, out);
        return true; /* at other steps there is nothing to do: *out says so */
    }
    return false;
}
