/* codegen/function_cuda.c - a kernel as one CUDA entry, in one of four forms (cuda_impl.h).
 *
 *     ENTRY(tpc_k_HASH, threads) { ... }     its argument is struct tpc_k_HASH_arguments: buffers, symbols, fault, step
 *
 * Loops over points have strides of the whole grid, so that any grid is right. What a warp or block has in common (coordinates of the point, values
 * of level 0) every thread computes for itself; only reductions and tiles talk. Start at function_cuda.
 */
#include "codegen/cuda_impl.h"

struct writer {
    struct printer *p;
    const struct nest *nest;
    struct cuda_form form;
    const char *block, *blocks; /* this thread's block, and how many there are */
};

static const struct instruction *instruction_at(const struct writer *w, uint32_t i)
{
    return &w->nest->kernel->instruction[i];
}

static uint32_t instruction_count(const struct writer *w)
{
    return w->nest->kernel->instruction_count;
}

static void open_block(struct writer *w)
{
    w->p->indent++;
}

static void close_block(struct writer *w)
{
    w->p->indent--;
    print_line(w->p, "}");
}

/* ---- arguments ---- */

static bool may_fault(const struct printer *p, uint32_t i)
{
    const struct instruction *a = &p->nest->kernel->instruction[i];
    return p->nest->value[i].live && (a->kind == INST_LOAD || a->kind == INST_STORE) && print_may_fault(a);
}

void cuda_print_members(struct printer *p, const bool *skip)
{
    const struct kernel *k = p->nest->kernel;
    for (uint32_t i = 0; i < k->buffer_count; i++)
        if (!skip || !skip[i])
            print_line(p, "%s%s *b%u;", k->buffer[i].written ? "" : "const ", p->dialect->element[k->buffer[i].type],
                       (unsigned)i);
    for (uint32_t i = 0; i < p->nest->symbol_count; i++)
        print_line(p, "int64_t s%u;", (unsigned)i);
    print_line(p, "int64_t *fault;");
    print_line(p, "int64_t step;");
}

void cuda_print_locals(struct printer *p, const bool *skip)
{
    const struct kernel *k = p->nest->kernel;
    const char *from = p->from ? p->from : "arguments";
    for (uint32_t i = 0; i < k->buffer_count; i++)
        if (!skip || !skip[i])
            print_line(p, "%s%s *const b%u = %s.b%u;", k->buffer[i].written ? "" : "const ",
                       p->dialect->element[k->buffer[i].type], (unsigned)i, from, (unsigned)i);
    for (uint32_t i = 0; i < p->nest->symbol_count; i++)
        print_line(p, "const int64_t s%u = %s.s%u;", (unsigned)i, from, (unsigned)i);
    for (uint32_t i = 0; i < k->outer + k->inner; i++)
        print_line(p, "const int64_t n%u = %s;", (unsigned)i, print_dim_text(p, k->extent[i]));
    for (uint32_t i = 0; i < k->instruction_count; i++)
        if (may_fault(p, i))
            print_line(p, "int32_t x%u = 0;", (unsigned)i);
}

void cuda_print_fault_reports(struct printer *p)
{
    const char *from = p->from ? p->from : "arguments";
    for (uint32_t i = 0; i < p->nest->kernel->instruction_count; i++)
        if (may_fault(p, i)) {
            print_line(p, "if (x%u)", (unsigned)i);
            print_line(p, "    tpc_fault(%s.fault, %s.step + %u);", from, from, (unsigned)i);
        }
}

static void print_arguments(struct writer *w, const char *name)
{
    print_line(w->p, "struct %s_arguments {", name);
    open_block(w);
    cuda_print_members(w->p, NULL);
    w->p->indent--;
    print_line(w->p, "};");
}

/* ---- coordinates ---- */

/* n1*n2.. of these axes; "1" for none. */
static const char *extent_text(const struct writer *w, const uint8_t *axis, uint32_t count)
{
    struct text out = {.arena = w->p->arena};
    for (uint32_t i = 0; i < count; i++)
        text_printf(&out, "%sn%u", i ? "*" : "", (unsigned)axis[i]);
    return count ? out.at : "1";
}

/* The coordinates of row-major position `from`, a name. Without a sign a division by a power of two is a shift; by another number it is done in 32 bits where
 * both fit, and once. */
void cuda_print_coordinates(struct printer *p, const uint8_t *axis, uint32_t count, const char *from)
{
    if (count > 1)
        print_line(p, "uint64_t rest = %s, more;", from);
    for (uint32_t i = count; i-- > 1;) {
        print_line(p, "more = rest / (uint64_t)n%u;", (unsigned)axis[i]);
        print_line(p, "const int64_t c%u = rest - more * (uint64_t)n%u;", (unsigned)axis[i], (unsigned)axis[i]);
        print_line(p, "rest = more;");
    }
    if (count)
        print_line(p, "const int64_t c%u = %s;", (unsigned)axis[0], count > 1 ? "rest" : from);
}

/* ---- wide accesses ---- */

/* Condition i for all elements from `first` on, where the fast coordinate is `first`. */
static void put_steady(struct writer *w, uint32_t i, struct text *out)
{
    const struct instruction *a = instruction_at(w, i);
    bool map = a->kind == INST_MAP && w->nest->value[i].depth == nest_fast_depth(w->nest);
    if (!map) {
        text_put(out, a->kind == INST_INDEX ? print_dim_text(w->p, a->index) : print_value(w->p, i));
        return;
    }
    text_put(out, "(");
    put_steady(w, (uint32_t)a->arg[0], out);
    text_put(out, a->op == OP_AND ? " && " : a->op == OP_LT ? " < " : " <= ");
    put_steady(w, (uint32_t)a->arg[1], out);
    text_put(out, ")");
}

/* Conditions that are the same for all elements of a step, once. */
static void print_steady(struct writer *w, uint32_t sweep)
{
    bool any = false;
    for (uint32_t i = 0; i < instruction_count(w); i++) {
        if (!w->form.steady[i] || nest_use(w->nest, sweep, i) != USE_COMPUTE)
            continue;
        struct text condition = {.arena = w->p->arena};
        put_steady(w, i, &condition);
        if (!any)
            print_line(w->p, "const int64_t c%u = first;", (unsigned)nest_fast_axis(w->nest));
        any = true;
        print_line(w->p, "const bool v%u = %s;", (unsigned)i, condition.at);
    }
}

/* Of the first of the elements. */
static const char *address_text(const struct writer *w, uint32_t i)
{
    const struct instruction *a = instruction_at(w, i);
    const char *slow = print_slow_text(w->p, i), *dynamic = "";
    unsigned buffer = (unsigned)a->buffer;
    if (a->dynamic >= 0)
        dynamic = arena_printf(w->p->arena, " + (int64_t)%s*(%s)", print_value(w->p, (uint32_t)a->dynamic),
                               print_dim_text(w->p, a->dynamic_stride));
    return strcmp(slow, "0") == 0 ? arena_printf(w->p->arena, "b%u + first%s", buffer, dynamic)
                                  : arena_printf(w->p->arena, "b%u + (%s + first%s)", buffer, slow, dynamic);
}

/* A load that may be of nothing gives zeros then. */
static bool may_be_none(const struct instruction *a)
{
    return a->predicate >= 0 || a->dynamic >= 0;
}

/* A load; whether its dynamic index is in range is known. */
static void print_wide_load(struct writer *w, uint32_t i, const char *name)
{
    struct printer *p = w->p;
    const struct instruction *a = instruction_at(w, i);
    unsigned bytes = (unsigned)(w->form.width * dtype_size(a->type));
    const char *read = arena_printf(p->arena, "tpc_read_%u(%s, %s);", bytes, name, address_text(w, i));
    const char *condition = a->predicate < 0 ? "" : print_value(p, (uint32_t)a->predicate);
    if (a->dynamic >= 0)
        condition = arena_printf(p->arena, "%s%sin%u", condition, *condition ? " && " : "", (unsigned)i);
    if (*condition)
        print_line(p, "if (%s)", condition);
    print_line(p, "%s%s", *condition ? "    " : "", read);
}

/* Those of a sweep: loads before the elements, stores behind them. */
static void print_wide(struct writer *w, uint32_t sweep, instruction_kind kind)
{
    struct printer *p = w->p;
    for (uint32_t i = 0; i < instruction_count(w); i++) {
        const struct instruction *a = instruction_at(w, i);
        if (!w->form.wide[i] || w->form.kept[i] || nest_use(w->nest, sweep, i) != USE_COMPUTE)
            continue;
        unsigned bytes = (unsigned)(w->form.width * dtype_size(a->type)), number = (unsigned)i;
        if (kind == INST_STORE && a->kind == INST_STORE && p->only)
            print_line(p, "if (%s)", p->only);
        if (kind == INST_STORE && a->kind == INST_STORE)
            print_line(p, "%stpc_store_%u(%s, w%u);", p->only ? "    " : "", bytes, address_text(w, i), number);
        if (kind != INST_LOAD)
            continue;
        print_line(p, "ALIGNED(16) %s w%u[%u]%s;", p->dialect->element[a->type], number, (unsigned)w->form.width,
                   a->kind == INST_LOAD && may_be_none(a) ? " = {0}" : "");
        if (a->kind == INST_LOAD && a->dynamic >= 0)
            print_range(p, i);
        if (a->kind == INST_LOAD)
            print_wide_load(w, i, arena_printf(p->arena, "w%u", number));
    }
}

/* What one step of the fast loop does: `first` is the coordinate, or that of the first of `width`. */
static void print_elements(struct writer *w, uint32_t sweep)
{
    struct printer *p = w->p;
    unsigned fast = (unsigned)nest_fast_axis(w->nest);
    if (w->form.width == 1) {
        print_line(p, "const int64_t c%u = first;", fast);
        print_values(p, nest_fast_depth(w->nest), sweep);
        return;
    }
    print_steady(w, sweep);
    print_wide(w, sweep, INST_LOAD);
    print_line(p, "UNROLL for (int lane = 0; lane < %u; lane++) {", (unsigned)w->form.width);
    open_block(w);
    print_line(p, "const int64_t c%u = first + lane;", fast);
    print_values(p, nest_fast_depth(w->nest), sweep);
    close_block(w);
    print_wide(w, sweep, INST_STORE);
}

static void stage_wide(struct writer *w)
{
    for (uint32_t i = 0; i < instruction_count(w); i++) {
        if (w->form.steady[i])
            w->p->staged[i] = "";
        if (w->form.wide[i])
            w->p->staged[i] = arena_printf(w->p->arena, w->form.kept[i] ? "w%u[turn][lane]" : "w%u[lane]", (unsigned)i);
    }
}

/* ---- points ---- */

static void print_points(struct writer *w)
{
    struct printer *p = w->p;
    const struct nest *n = w->nest;
    if (n->loops == 0) { /* one element */
        print_indices(p, DEPTH_POINT, 0);
        print_values(p, DEPTH_POINT, 0);
        return;
    }
    unsigned fast = (unsigned)nest_fast_axis(n), width = (unsigned)w->form.width;
    const char *steps = width == 1 ? arena_printf(p->arena, "n%u", fast) : "steps";
    if (width > 1)
        print_line(p, "const int64_t steps = n%u / %u;", fast, width);
    const char *total = n->points ? arena_printf(p->arena, "%s*%s", extent_text(w, n->point, n->points), steps) : steps;
    print_line(p, "for (int64_t item = (int64_t)%s * blockDim.x + threadIdx.x; item < %s;", w->block, total);
    print_line(p, "     item += (int64_t)%s * blockDim.x) {", w->blocks);
    open_block(w);
    if (n->points) {
        print_line(p, "const uint64_t point = (uint64_t)item / (uint64_t)%s;", steps);
        print_line(p, "const int64_t first = ((uint64_t)item - point * (uint64_t)%s)%s;", steps,
                   width > 1 ? arena_printf(p->arena, " * %u", width) : "");
        cuda_print_coordinates(p, n->point, n->points, "point");
    } else {
        print_line(p, "const int64_t first = item%s;", width > 1 ? arena_printf(p->arena, " * %u", width) : "");
    }
    print_indices(p, DEPTH_POINT, 0);
    print_values(p, DEPTH_POINT, 0);
    print_elements(w, 0);
    close_block(w);
}

/* ---- tiles ---- */

/* One of the two passes over a tile: `slow` is the axis along threadIdx.y, `quick` that along threadIdx.x. */
static void print_tile_pass(struct writer *w, unsigned slow, unsigned quick, bool fills)
{
    struct printer *p = w->p;
    print_line(p, "for (int row = threadIdx.y; row < %d; row += %d) {", CUDA_TILE, CUDA_TILE_ROWS);
    open_block(w);
    print_line(p, "const int64_t c%u = from%u + row, c%u = from%u + threadIdx.x;", slow, slow, quick, quick);
    print_line(p, "if (c%u < n%u && c%u < n%u) {", slow, slow, quick, quick);
    open_block(w);
    if (fills) {
        for (uint32_t i = 0; i < instruction_count(w); i++)
            if (w->form.tiled[i])
                print_line(p, "tile%u[row][threadIdx.x] = %sb%u[%s]%s;", (unsigned)i, p->dialect->read[0],
                           (unsigned)instruction_at(w, i)->buffer, print_index(p, i), p->dialect->read[1]);
    } else {
        print_indices(p, DEPTH_POINT, 0);
        print_values(p, DEPTH_POINT, 0);
        print_values(p, nest_fast_depth(w->nest), 0);
    }
    close_block(w);
    close_block(w);
}

static void print_tiles(struct writer *w)
{
    struct printer *p = w->p;
    const struct nest *n = w->nest;
    unsigned fast = (unsigned)nest_fast_axis(n), across = (unsigned)n->point[n->points - 1];
    for (uint32_t i = 0; i < instruction_count(w); i++)
        if (w->form.tiled[i])
            print_line(p, "SHARED(%s, tile%u, [%d][%d]);", p->dialect->element[instruction_at(w, i)->type], (unsigned)i,
                       CUDA_TILE, CUDA_TILE + 1);
    print_line(p, "const int64_t across = (n%u + %d) / %d, along = (n%u + %d) / %d;", across, CUDA_TILE - 1, CUDA_TILE,
               fast, CUDA_TILE - 1, CUDA_TILE);
    print_line(p, "for (int64_t item = %s; item < %s*across*along; item += %s) {", w->block,
               extent_text(w, n->point, n->points - 1), w->blocks);
    open_block(w);
    print_line(p, "const int64_t from%u = item %% along * %d, from%u = item / along %% across * %d;", fast, CUDA_TILE,
               across, CUDA_TILE);
    if (n->points > 1) {
        print_line(p, "const int64_t point = item / along / across;");
        cuda_print_coordinates(p, n->point, n->points - 1, "point");
    }
    /* a full index, since what is a point's coordinate changes from pass to pass */
    uint32_t *named = p->index_of;
    p->index_of = NEW_ARRAY(p->arena, uint32_t, instruction_count(w) + 1);
    print_tile_pass(w, fast, across, true);
    p->index_of = named;
    print_line(p, "__syncthreads();");
    for (uint32_t i = 0; i < instruction_count(w); i++)
        if (w->form.tiled[i])
            p->staged[i] = arena_printf(p->arena, "tile%u[threadIdx.x][row]", (unsigned)i);
    print_tile_pass(w, across, fast, false);
    print_line(p, "__syncthreads();");
    close_block(w);
}

/* ---- rows ---- */

static bool accumulates(const struct writer *w, uint32_t sweep, uint32_t i)
{
    return instruction_at(w, i)->kind == INST_REDUCE && nest_use(w->nest, sweep, i) == USE_COMPUTE;
}

static void print_accumulators(struct writer *w, uint32_t sweep)
{
    for (uint32_t i = 0; i < instruction_count(w); i++) {
        const struct instruction *a = instruction_at(w, i);
        struct text start = {.arena = w->p->arena};
        if (!accumulates(w, sweep, i))
            continue;
        print_neutral(w->p->dialect, a, &start);
        print_line(w->p, "%s r%u = %s;", print_accumulator_type(w->p->dialect, a), (unsigned)i, start.at);
    }
}

/* The prelude's function that puts the accumulators of a row's threads together: tpc_row_sum_f32. */
static const char *row_function(const struct writer *w, const struct instruction *a)
{
    static const char *const names[] = {"sum", "prod", "max", "min"};
    uint32_t which = a->op == OP_REDUCE_SUM ? 0 : a->op == OP_REDUCE_PROD ? 1 : a->op == OP_REDUCE_MAX ? 2 : 3;
    if (a->type == DT_BOOL)
        return which == 0 || which == 2 ? "tpc_row_or_i32" : "tpc_row_and_i32";
    bool is_float = dtype_is_float(a->type), wide = dtype_size(a->type) == 8;
    bool is_signed = dtype_is_signed(a->type) && which > 1; /* sums and products are taken without a sign */
    return arena_printf(w->p->arena, "tpc_row_%s_%c%s", names[which],
                        is_float    ? 'f'
                        : is_signed ? 'i'
                                    : 'u',
                        wide ? "64" : "32");
}

static void print_results(struct writer *w, uint32_t sweep)
{
    for (uint32_t i = 0; i < instruction_count(w); i++) {
        const struct instruction *a = instruction_at(w, i);
        const char *type = w->p->dialect->type[a->type];
        if (!accumulates(w, sweep, i))
            continue;
        const char *cast = dtype_is_float(a->type) ? "" : arena_printf(w->p->arena, "(%s)", type);
        if (w->form.shape == CUDA_ROWS)
            print_line(w->p, "const %s v%u = %s%s(r%u);", type, (unsigned)i, cast, row_function(w, a), (unsigned)i);
        else
            print_line(w->p, "const %s v%u = %sr%u;", type, (unsigned)i, cast, (unsigned)i);
    }
}

/* For each step of a row that a thread may have. */
static void open_turns(struct writer *w)
{
    unsigned width = (unsigned)w->form.width;
    print_line(w->p, "UNROLL for (int turn = 0; turn < %u; turn++) {", (unsigned)w->form.turns);
    open_block(w);
    print_line(w->p, "const int64_t first = ((int64_t)turn * blockDim.x + threadIdx.x) * %u;", width);
    print_line(w->p, "if (first < n%u) {", (unsigned)nest_fast_axis(w->nest));
    open_block(w);
}

/* Reads all that is kept of a row. */
static void print_kept_row(struct writer *w)
{
    for (uint32_t i = 0; i < instruction_count(w); i++) {
        const struct instruction *a = instruction_at(w, i);
        if (!w->form.kept[i])
            continue;
        print_line(w->p, "ALIGNED(16) %s w%u[%u][%u]%s;", w->p->dialect->element[a->type], (unsigned)i,
                   (unsigned)w->form.turns, (unsigned)w->form.width, may_be_none(a) ? " = {{0}}" : "");
        if (a->dynamic >= 0)
            print_range(w->p, i);
    }
    open_turns(w);
    for (uint32_t i = 0; i < instruction_count(w); i++)
        if (w->form.kept[i])
            print_wide_load(w, i, arena_printf(w->p->arena, "w%u[turn]", (unsigned)i));
    close_block(w);
    close_block(w);
}

/* One sweep by the threads of a row. */
static void print_row_sweep(struct writer *w, uint32_t sweep)
{
    struct printer *p = w->p;
    const struct nest *n = w->nest;
    unsigned fast = (unsigned)nest_fast_axis(n), width = (unsigned)w->form.width;
    if (w->form.turns) {
        open_turns(w);
        print_elements(w, sweep);
        close_block(w);
        close_block(w);
        return;
    }
    if (n->loops == 1 && width == 1) {
        print_line(p, "for (int64_t first = threadIdx.x; first < n%u; first += blockDim.x) {", fast);
    } else if (n->loops == 1) {
        print_line(p, "for (int64_t first = threadIdx.x * %u; first < n%u; first += blockDim.x * %u) {", width, fast,
                   width);
    } else {
        print_line(p, "for (int64_t element = threadIdx.x; element < length; element += blockDim.x) {");
    }
    open_block(w);
    if (n->loops == 1) {
        print_elements(w, sweep);
    } else {
        cuda_print_coordinates(p, n->loop, n->loops, "element");
        for (uint32_t i = 0; i < n->loops; i++) {
            print_indices(p, DEPTH_LOOP + i, sweep);
            print_values(p, DEPTH_LOOP + i, sweep);
        }
    }
    close_block(w);
}

/* One sweep by one thread. */
static void print_column_sweep(struct writer *w, uint32_t sweep)
{
    struct printer *p = w->p;
    const struct nest *n = w->nest;
    for (uint32_t i = 0; i < n->loops; i++) {
        unsigned c = (unsigned)n->loop[i];
        print_line(p, "for (int64_t c%u = 0; c%u < n%u%s; c%u++) {", c, c, c,
                   i == 0 && n->loops > 1 ? " && !empty" : "", c);
        open_block(w);
        print_indices(p, DEPTH_LOOP + i, sweep);
        print_values(p, DEPTH_LOOP + i, sweep);
    }
    for (uint32_t i = 0; i < n->loops; i++)
        close_block(w);
}

void cuda_print_row(struct printer *p, const struct cuda_form *form)
{
    struct writer w = {.p = p, .nest = p->nest, .form = *form};
    bool rows = form->shape == CUDA_ROWS;
    p->once = rows ? "threadIdx.x == 0" : NULL;
    stage_wide(&w);
    print_indices(p, DEPTH_POINT, 0);
    print_values(p, DEPTH_POINT, 0);
    if (form->turns)
        print_kept_row(&w);
    for (uint32_t sweep = 0; sweep < p->nest->sweeps && p->nest->loops; sweep++) {
        print_accumulators(&w, sweep);
        if (rows)
            print_row_sweep(&w, sweep);
        else
            print_column_sweep(&w, sweep);
        print_results(&w, sweep);
        print_values(p, DEPTH_POINT, sweep + 1);
    }
}

static void print_rows(struct writer *w)
{
    struct printer *p = w->p;
    const struct nest *n = w->nest;
    bool rows = w->form.shape == CUDA_ROWS;
    const char *threads = rows ? "blockDim.y" : "blockDim.x", *thread = rows ? "threadIdx.y" : "threadIdx.x";
    if (rows && n->loops > 1)
        print_line(p, "const int64_t length = %s;", extent_text(w, n->loop, n->loops));
    else if (n->loops > 1) /* outer loops must touch nothing where an inner one is empty */
        print_line(p, "const bool empty = %s == 0;", extent_text(w, n->loop, n->loops));
    print_line(p, "for (int64_t point = (int64_t)%s * %s + %s; point < %s;", w->block, threads, thread,
               extent_text(w, n->point, n->points));
    print_line(p, "     point += (int64_t)%s * %s) {", w->blocks, threads);
    open_block(w);
    cuda_print_coordinates(p, n->point, n->points, "point");
    cuda_print_row(p, &w->form);
    close_block(w);
}

/* ---- the entry ---- */

static const char *about_form(const struct writer *w)
{
    switch (w->form.shape) {
    case CUDA_POINTS:
        return w->form.width > 1 ? arena_printf(w->p->arena, "%u elements per thread", (unsigned)w->form.width)
                                 : "an element per thread";
    case CUDA_TILES:
        return "tiles of 32 x 32 elements; what lies across passes through shared memory";
    case CUDA_ROWS:
        return "a warp per row, or a block where blockDim.y is 1";
    case CUDA_COLUMNS:
        return "a thread per row";
    }
    return "";
}

static void print_body(struct writer *w)
{
    struct printer *p = w->p;
    print_line(p, "{");
    p->indent++;
    cuda_print_locals(p, NULL);
    stage_wide(w);
    print_indices(p, DEPTH_ENTRY, 0);
    print_values(p, DEPTH_ENTRY, 0);
    switch (w->form.shape) {
    case CUDA_POINTS:
        print_points(w);
        break;
    case CUDA_TILES:
        print_tiles(w);
        break;
    case CUDA_ROWS:
    case CUDA_COLUMNS:
        print_rows(w);
        break;
    }
    cuda_print_fault_reports(p);
    close_block(w);
}

static struct writer begin(struct printer *p, const char *name, const char *block, const char *blocks)
{
    struct writer w = {.p = p, .nest = p->nest, .form = cuda_form_of(p->nest, p->arena)};
    w.block = block;
    w.blocks = blocks;
    p->staged = NEW_ARRAY(p->arena, const char *, instruction_count(&w) + 1);
    print_arguments(&w, name);
    print_line(p, "/* %s */", about_form(&w));
    return w;
}

void function_cuda(struct printer *p, const char *name)
{
    struct writer w = begin(p, name, "blockIdx.x", "gridDim.x");
    print_line(p, "ENTRY(%s, %u)", name, (unsigned)w.form.threads);
    print_body(&w);
}

void cuda_part_function(struct printer *p, const char *name)
{
    struct writer w = begin(p, name, "block", "blocks");
    print_line(p, "static __device__ inline void %s(const struct %s_arguments arguments, int64_t block,", name, name);
    print_line(p, "                                 int64_t blocks)");
    print_body(&w);
}
