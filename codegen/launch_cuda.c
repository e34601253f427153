/* codegen/launch_cuda.c - from the symbols' values to launches: how many threads, and the words of their arguments.
 *
 * Entries loop with the stride of the grid, so a grid only decides how well the work is spread, never what is computed. Start at cuda_kernel_step.
 */
#include "codegen/cuda_impl.h"

enum { GRID_LIMIT = INT32_MAX, ROW_WARPS = 8 };

/* ---- words ---- */

void cuda_put_buffer(struct cuda_making *m, uint32_t buffer, int64_t bytes)
{
    *PUSH(m->arena, &m->words) = (struct cuda_word){CUDA_BUFFER, buffer, bytes};
}

void cuda_put_number(struct cuda_making *m, int64_t number)
{
    *PUSH(m->arena, &m->words) = (struct cuda_word){.kind = CUDA_NUMBER, .number = number};
}

void cuda_put_workspace(struct cuda_making *m, int64_t bytes)
{
    *PUSH(m->arena, &m->words) = (struct cuda_word){.kind = CUDA_WORKSPACE, .number = bytes};
}

/* n / d is n * m >> 31 + s with 2^(s - 1) < d <= 2^s and m = 2^(31 + s) / d, rounded up (Granlund and Montgomery, Division by invariant integers using multiplication,
 * 1994): m is in the lower 32 bits, the shift in the upper. */
void cuda_put_divisor(struct cuda_making *m, int64_t d)
{
    uint64_t shift = 31;
    while (((uint64_t)1 << (shift - 31)) < (uint64_t)d)
        shift++;
    uint64_t multiplier = (((uint64_t)1 << shift) + (uint64_t)d - 1) / (uint64_t)d;
    cuda_put_number(m, (int64_t)(shift << 32 | multiplier));
}

void cuda_put_fault(struct cuda_making *m)
{
    *PUSH(m->arena, &m->words) = (struct cuda_word){.kind = CUDA_FAULT};
    cuda_put_number(m, cuda_fault(m->step, 0));
}

struct cuda_launch cuda_launch_of(struct cuda_making *m, uint32_t function, int64_t blocks, uint32_t x, uint32_t y,
                                  uint32_t shared_bytes)
{
    struct cuda_launch l = {.function = function, .block = {x, y, 1}, .grid = {1, 1, 1}, .shared_bytes = shared_bytes};
    l.grid[0] = blocks < 1 ? 1 : blocks > GRID_LIMIT ? GRID_LIMIT : (uint32_t)blocks;
    l.word = m->words.at;
    l.word_count = m->words.count;
    memset(&m->words, 0, sizeof m->words);
    return l;
}

/* ---- kernels ---- */

/* Product of the extents of these axes; 0 where one is empty. */
static bool count_of(const struct cuda_making *m, const struct nest *n, const uint8_t *axis, uint32_t count,
                     int64_t *out)
{
    bool empty = false, fits = true;
    *out = 1;
    for (uint32_t i = 0; i < count; i++) {
        int64_t x;
        if (!dim_eval(n->dims, n->kernel->extent[axis[i]], m->of, &x))
            return false;
        empty |= x <= 0;
        fits = fits && i64_mul(*out, x, out);
    }
    *out = empty ? 0 : *out;
    return empty || fits;
}

static uint32_t round_to_warps(int64_t threads, uint32_t most)
{
    int64_t whole = cuda_divide_up(threads < 1 ? 1 : threads, CUDA_WARP) * CUDA_WARP;
    return whole > most ? most : (uint32_t)whole;
}

/* A warp per row while rows are short or there are many; a block each where rows are long or few: a step per thread while the device is not full, else
 * some four, or as many as a thread keeps. */
static struct cuda_launch launch_rows(struct cuda_making *m, const struct cuda_kernel *k, int64_t rows, int64_t length)
{
    int64_t steps = cuda_divide_up(length, k->form.width), turns = k->form.turns;
    bool many = rows >= (int64_t)m->processors * 2 * ROW_WARPS, full = rows >= (int64_t)m->processors;
    if (steps <= (many ? 16 : 2) * CUDA_WARP && (!turns || steps <= turns * CUDA_WARP))
        return cuda_launch_of(m, k->function, cuda_divide_up(rows, ROW_WARPS), CUDA_WARP, ROW_WARPS, 0);
    int64_t each = turns ? (full ? turns : 1) : many ? 4 : 1;
    uint32_t threads = round_to_warps(cuda_divide_up(steps, each), k->form.threads);
    return cuda_launch_of(m, k->function, rows, threads < 2 * CUDA_WARP ? 2 * CUDA_WARP : threads, 1, 0);
}

/* Few threads per block where there is too little work to fill the device otherwise. */
static struct cuda_launch launch_items(struct cuda_making *m, const struct cuda_kernel *k, int64_t items)
{
    uint32_t threads = k->form.threads;
    while (threads > 2 * CUDA_WARP && items < (int64_t)threads * m->processors)
        threads /= 2;
    return cuda_launch_of(m, k->function, cuda_divide_up(items, threads), threads, 1, 0);
}

static bool launch_tiles(struct cuda_making *m, const struct cuda_kernel *k, struct cuda_launch *out)
{
    const struct nest *n = &k->nest;
    int64_t outer, across, along;
    if (!count_of(m, n, n->point, n->points - 1, &outer) ||
        !dim_eval(n->dims, n->kernel->extent[n->point[n->points - 1]], m->of, &across) ||
        !dim_eval(n->dims, n->kernel->extent[nest_fast_axis(n)], m->of, &along))
        return false;
    int64_t tiles;
    if (!i64_mul(cuda_divide_up(across, CUDA_TILE), cuda_divide_up(along, CUDA_TILE), &tiles) ||
        !i64_mul(tiles, outer, &tiles))
        return false;
    *out = cuda_launch_of(m, k->function, tiles, CUDA_TILE, CUDA_TILE_ROWS, 0);
    return true;
}

void cuda_put_kernel(struct cuda_making *m, const struct nest *n, const struct step *s)
{
    for (uint32_t i = 0; i < n->kernel->buffer_count; i++)
        cuda_put_buffer(m, s->arg[i], 0);
    for (uint32_t i = 0; i < n->symbol_count; i++)
        cuda_put_number(m, m->of[n->symbol[i]]);
    cuda_put_fault(m);
}

status cuda_kernel_step(struct cuda_making *m, struct cuda_step *out)
{
    const struct step *s = &m->set->program->steps.at[m->step];
    return cuda_kernel_of(m, &m->set->kernel[s->kernel], s, out);
}

status cuda_kernel_of(struct cuda_making *m, const struct cuda_kernel *k, const struct step *s, struct cuda_step *out)
{
    const struct nest *n = &k->nest;
    struct cuda_launch *launch = NEW(m->arena, struct cuda_launch);
    int64_t points, row, items;
    if (!count_of(m, n, n->point, n->points, &points) || !count_of(m, n, n->loop, n->loops, &row) ||
        !i64_mul(points, row, &items))
        return TPC_DATA;
    *out = (struct cuda_step){.way = CUDA_NOTHING};
    if (points == 0 || (n->kernel->inner == 0 && row == 0))
        return TPC_OK;
    cuda_put_kernel(m, n, s);
    *out = (struct cuda_step){.way = CUDA_LAUNCH, .count = 1, .launch = launch};
    switch (k->form.shape) {
    case CUDA_POINTS:
        *launch = n->loops ? launch_items(m, k, items / k->form.width) : cuda_launch_of(m, k->function, 1, 1, 1, 0);
        return TPC_OK;
    case CUDA_TILES:
        return launch_tiles(m, k, launch) ? TPC_OK : TPC_DATA;
    case CUDA_ROWS:
        *launch = launch_rows(m, k, points, row);
        return TPC_OK;
    case CUDA_COLUMNS:
        *launch = launch_items(m, k, points);
        return TPC_OK;
    }
    return TPC_INTERNAL;
}
