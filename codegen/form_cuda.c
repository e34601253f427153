/* codegen/form_cuda.c - which form a kernel's nest takes on a GPU, and which of its accesses are 16 bytes wide.
 *
 * Memory decides. Neighbouring threads must touch neighbouring elements: along the row where the row's accesses run, across rows where the points'
 * do. A wide access needs proof that its address is a multiple of its size: buffers are aligned (cuda.h), so the index must be one of the width.
 * Start at cuda_form_of.
 */
#include "codegen/cuda_impl.h"

enum { SHORT_ROW = 8, WIDTH_LIMIT = 8 };

bool cuda_divides(const struct dims *t, dim d, int64_t by)
{
    struct dim_node n = dim_get(t, d);
    bool all = true;
    switch (n.op) {
    case DIM_CONST:
        return n.value % by == 0;
    case DIM_SUM:
        for (uint32_t i = 0; i < n.count && all; i++)
            all = n.coefficient[i] % by == 0 || cuda_divides(t, n.arg[i], by);
        return all && n.value % by == 0;
    case DIM_PRODUCT:
        for (uint32_t i = 0; i < n.count; i++)
            if (cuda_divides(t, n.arg[i], by))
                return true;
        return false;
    case DIM_MAX:
    case DIM_MIN:
        return cuda_divides(t, n.arg[0], by) && cuda_divides(t, n.arg[1], by);
    case DIM_SYMBOL:
    case DIM_DIV:
    case DIM_CEILDIV:
    case DIM_MOD:
        break;
    }
    return by == 1;
}

static bool is_access(const struct instruction *a)
{
    return a->kind == INST_LOAD || a->kind == INST_STORE;
}

/* ---- wide accesses ---- */

/* d without its coordinate `axis`, which it runs along, is a multiple of `by`. */
static bool rest_divides(const struct dims *t, dim d, uint32_t axis, int64_t by)
{
    struct dim_node n = dim_get(t, d);
    if (n.op != DIM_SUM)
        return true; /* it is the coordinate */
    bool all = n.value % by == 0;
    for (uint32_t i = 0; i < n.count && all; i++)
        all = nest_motion_of(t, n.arg[i], axis) == NEST_RUNS || n.coefficient[i] % by == 0 ||
              cuda_divides(t, n.arg[i], by);
    return all;
}

/* Is instruction i an index that starts at a multiple of `width` for the first of so many elements, and runs, or (stands) one that is a multiple itself? */
static bool is_aligned(const struct nest *n, int32_t i, int64_t width, bool stands)
{
    const struct instruction *a = &n->kernel->instruction[i];
    uint32_t axis = nest_fast_axis(n);
    if (a->kind == INST_CONST)
        return stands && !dtype_is_float(a->type) && a->integer % width == 0;
    if (a->kind != INST_INDEX)
        return false;
    enum nest_motion motion = nest_motion_of(n->dims, a->index, axis);
    return stands ? motion == NEST_STANDS && cuda_divides(n->dims, a->index, width)
                  : motion == NEST_RUNS && rest_divides(n->dims, a->index, axis, width);
}

/* Does predicate i hold for all of `width` neighbouring elements or for none: one half of a row, say? */
static bool is_steady(const struct nest *n, int32_t i, int64_t width)
{
    const struct instruction *a = &n->kernel->instruction[i];
    if (n->value[i].depth < nest_fast_depth(n))
        return true;
    if (a->kind != INST_MAP)
        return false;
    if (a->op == OP_AND)
        return is_steady(n, a->arg[0], width) && is_steady(n, a->arg[1], width);
    if (a->op == OP_LT)
        return is_aligned(n, a->arg[0], width, false) && is_aligned(n, a->arg[1], width, true);
    return a->op == OP_LE && is_aligned(n, a->arg[0], width, true) && is_aligned(n, a->arg[1], width, false);
}

static bool can_be_wide(const struct nest *n, uint32_t i, int64_t width)
{
    const struct instruction *a = &n->kernel->instruction[i];
    uint32_t axis = nest_fast_axis(n);
    bool plain = a->predicate < 0 && a->dynamic < 0;
    bool load = a->kind == INST_LOAD && (a->predicate < 0 || is_steady(n, a->predicate, width)) &&
                (a->dynamic < 0 ||
                 (n->value[a->dynamic].depth < nest_fast_depth(n) && cuda_divides(n->dims, a->dynamic_stride, width)));
    return is_access(a) && n->value[i].live && n->value[i].depth == nest_fast_depth(n) && (plain || load) &&
           nest_motion_of(n->dims, a->index, axis) == NEST_RUNS && rest_divides(n->dims, a->index, axis, width) &&
           (size_t)width * dtype_size(a->type) >= 4;
}

/* Bytes of the smallest element among those that could be wide; 0: there are none. */
static size_t smallest_element(const struct nest *n, int64_t width)
{
    size_t least = 0;
    for (uint32_t i = 0; i < n->kernel->instruction_count; i++) {
        size_t size = dtype_size(n->kernel->instruction[i].type);
        if (can_be_wide(n, i, width) && (least == 0 || size < least))
            least = size;
    }
    return least;
}

static void widen(const struct nest *n, struct cuda_form *f)
{
    dim extent = n->kernel->extent[nest_fast_axis(n)];
    for (int64_t width = WIDTH_LIMIT; width > 1; width /= 2) {
        size_t least = smallest_element(n, width);
        if (!least || (size_t)width * least > 16 || !cuda_divides(n->dims, extent, width))
            continue;
        f->width = (uint32_t)width;
        for (uint32_t i = 0; i < n->kernel->instruction_count; i++) {
            const struct instruction *a = &n->kernel->instruction[i];
            f->wide[i] = can_be_wide(n, i, width);
            f->steady[i] = a->kind == INST_MAP && a->type == DT_BOOL && n->value[i].live &&
                           n->value[i].depth == nest_fast_depth(n) && is_steady(n, (int32_t)i, width);
        }
        return;
    }
}

/* ---- rows in registers ---- */

enum { MOST_TURNS = 4, MOST_KEPT = 16 };

static bool is_swept(const struct nest *n, uint32_t i)
{
    for (uint32_t sweep = 0; sweep < n->sweeps; sweep++)
        if (nest_use(n, sweep, i) == USE_COMPUTE)
            return true;
    return false;
}

/* What is read of a row of known length stays in registers between its sweeps, where that is not too much; all of it is read at once. */
static void keep_rows(const struct nest *n, struct cuda_form *f)
{
    int64_t length, kept = 0;
    if (f->shape != CUDA_ROWS || f->width == 1 || n->sweeps < 2 ||
        !dim_is_const(n->dims, n->kernel->extent[nest_fast_axis(n)], &length))
        return;
    int64_t steps = length / f->width, turns = (steps + CUDA_WARP - 1) / CUDA_WARP;
    if (turns > MOST_TURNS)
        turns = steps <= 2 * CUDA_ROW_THREADS ? 2 : (steps + CUDA_ROW_THREADS - 1) / CUDA_ROW_THREADS;
    for (uint32_t i = 0; i < n->kernel->instruction_count; i++) {
        const struct instruction *a = &n->kernel->instruction[i];
        f->kept[i] = f->wide[i] && a->kind == INST_LOAD && a->predicate < 0 && !n->kernel->buffer[a->buffer].written &&
                     is_swept(n, i);
        kept += f->kept[i];
    }
    if (steps > 0 && turns <= MOST_TURNS && kept * turns <= MOST_KEPT)
        f->turns = (uint32_t)turns;
    for (uint32_t i = 0; i < n->kernel->instruction_count && !f->turns; i++)
        f->kept[i] = false;
}

/* ---- forms ---- */

static bool is_short_row(const struct nest *n)
{
    int64_t length = 1, extent;
    for (uint32_t i = 0; i < n->loops; i++) {
        if (!dim_is_const(n->dims, n->kernel->extent[n->loop[i]], &extent) || extent > SHORT_ROW)
            return false;
        length *= extent;
    }
    return length <= SHORT_ROW;
}

/* Do the row's accesses run along the innermost axis of the points rather than along the row? */
static bool runs_across(const struct nest *n)
{
    int32_t merit = 0;
    for (uint32_t i = 0; i < n->kernel->instruction_count; i++) {
        const struct instruction *a = &n->kernel->instruction[i];
        if (!is_access(a) || !n->value[i].live || n->value[i].depth < DEPTH_LOOP)
            continue;
        merit += nest_motion_of(n->dims, a->index, n->point[n->points - 1]) == NEST_RUNS;
        merit -= nest_motion_of(n->dims, a->index, nest_fast_axis(n)) == NEST_RUNS;
    }
    return merit > 0;
}

static bool tile_loads(const struct nest *n, struct cuda_form *f)
{
    bool any = false;
    for (uint32_t i = 0; i < n->kernel->instruction_count; i++) {
        const struct instruction *a = &n->kernel->instruction[i];
        f->tiled[i] = a->kind == INST_LOAD && n->value[i].live && a->dynamic < 0 && a->predicate < 0 &&
                      nest_motion_of(n->dims, a->index, nest_fast_axis(n)) == NEST_JUMPS &&
                      nest_motion_of(n->dims, a->index, n->point[n->points - 1]) == NEST_RUNS;
        any |= f->tiled[i];
    }
    return any;
}

struct cuda_form cuda_form_of(const struct nest *n, struct arena *arena)
{
    struct cuda_form f = {.shape = CUDA_POINTS, .width = 1, .threads = CUDA_POINT_THREADS};
    f.wide = NEW_ARRAY(arena, bool, n->kernel->instruction_count + 1);
    f.steady = NEW_ARRAY(arena, bool, n->kernel->instruction_count + 1);
    f.tiled = NEW_ARRAY(arena, bool, n->kernel->instruction_count + 1);
    f.kept = NEW_ARRAY(arena, bool, n->kernel->instruction_count + 1);
    if (n->kernel->inner)
        f.shape = n->points && (is_short_row(n) || runs_across(n)) ? CUDA_COLUMNS : CUDA_ROWS;
    else if (n->transposes && n->points && tile_loads(n, &f))
        f.shape = CUDA_TILES;
    if (f.shape == CUDA_ROWS)
        f.threads = CUDA_ROW_THREADS;
    if ((f.shape == CUDA_POINTS || f.shape == CUDA_ROWS) && n->loops == 1)
        widen(n, &f);
    keep_rows(n, &f);
    return f;
}
