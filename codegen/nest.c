/* codegen/nest.c - the loop nest of a kernel: what no dialect changes.
 *
 * A kernel without rows runs one axis as a loop within the point, so that what does not depend on it is computed once and the loop can be
 * vectorised: the axis along which most accesses are contiguous. Of a single axis the loop itself is cut. A kernel with rows has its inner axes as loops, swept once per layer of
 * reductions: what a sweep needs is computed again from loads, unless that is dear: then the first sweep that has it keeps it in a row
 * buffer. Start at nest_of.
 */
#include "codegen/dialect.h"

enum {
    KEEP_COST = 7,  /* simple operations: dearer values are kept rather than computed again */
    KEEP_LIMIT = 6, /* row buffers per kernel */
    COST_LIMIT = 1000
};

/* ---- depth ---- */

uint32_t nest_depth(const struct nest *n, dim d)
{
    if (d == DIM_NONE)
        return DEPTH_ENTRY;
    struct dim_node node = dim_get(n->dims, d);
    uint32_t depth = DEPTH_ENTRY;
    if (node.op == DIM_SYMBOL) {
        const struct symbol *s = dims_symbol(n->dims, node.symbol);
        if (s->kind == SYMBOL_COORDINATE)
            depth = n->depth[s->index];
    }
    for (uint32_t i = 0; i < node.count; i++) {
        uint32_t of_argument = nest_depth(n, node.arg[i]);
        depth = of_argument > depth ? of_argument : depth;
    }
    return depth;
}

uint32_t nest_symbol(const struct nest *n, uint32_t symbol)
{
    uint32_t i = 0;
    while (i < n->symbol_count && n->symbol[i] != symbol)
        i++;
    return i;
}

/* Calls visit for each instruction that n reads. */
static void each_operand(const struct instruction *n, void (*visit)(void *context, uint32_t operand), void *context)
{
    for (int i = 0; i < 3; i++)
        if (n->arg[i] >= 0)
            visit(context, (uint32_t)n->arg[i]);
    if (n->dynamic >= 0)
        visit(context, (uint32_t)n->dynamic);
    if (n->predicate >= 0)
        visit(context, (uint32_t)n->predicate);
}

struct placing {
    struct nest *nest;
    uint32_t depth, stage, cost;
};

static void place_after(void *context, uint32_t operand)
{
    struct placing *at = context;
    const struct nest_value *v = &at->nest->value[operand];
    at->depth = v->depth > at->depth ? v->depth : at->depth;
    at->stage = v->stage > at->stage ? v->stage : at->stage;
    at->cost += v->depth >= DEPTH_LOOP ? v->cost : 0;
}

/* ---- cost ---- */

static uint32_t map_cost(const struct instruction *n)
{
    switch ((int)n->op) {
    case OP_EXP:
    case OP_EXPM1:
    case OP_LOG:
    case OP_SIN:
    case OP_COS:
        return n->type == DT_F64 ? 40 : 12;
    case OP_TANH:
    case OP_ERF:
    case OP_LOG1P:
        return n->type == DT_F64 ? 40 : 18;
    case OP_POW:
    case OP_MOD:
    case OP_TAN:
    case OP_ASIN:
    case OP_ACOS:
    case OP_ATAN:
    case OP_SINH:
    case OP_COSH:
    case OP_ASINH:
    case OP_ACOSH:
    case OP_ATANH:
        return 40;
    case OP_DIV:
    case OP_RECIP:
    case OP_SQRT:
        return 4;
    default:
        return 1;
    }
}

static bool is_coordinate(const struct dims *t, dim d, uint32_t axis)
{
    struct dim_node node = dim_get(t, d);
    return node.op == DIM_SYMBOL && dims_symbol(t, node.symbol)->kind == SYMBOL_COORDINATE &&
           dims_symbol(t, node.symbol)->index == axis;
}

static bool uses_axis(const struct dims *t, dim d, uint32_t axis)
{
    struct dim_node node = dim_get(t, d);
    bool uses = is_coordinate(t, d, axis);
    for (uint32_t i = 0; i < node.count && !uses; i++)
        uses = uses_axis(t, node.arg[i], axis);
    return uses;
}

enum nest_motion nest_motion_of(const struct dims *t, dim d, uint32_t axis)
{
    struct dim_node node = dim_get(t, d);
    enum nest_motion motion = NEST_STANDS;
    if (is_coordinate(t, d, axis))
        return NEST_RUNS;
    for (uint32_t i = 0; i < node.count; i++) {
        if (!uses_axis(t, node.arg[i], axis))
            continue;
        if (motion != NEST_STANDS || node.op != DIM_SUM || node.coefficient[i] != 1 ||
            !is_coordinate(t, node.arg[i], axis))
            return NEST_JUMPS;
        motion = NEST_RUNS;
    }
    return motion;
}

static uint32_t own_cost(const struct nest *n, const struct instruction *a)
{
    if (a->kind == INST_MAP)
        return map_cost(a);
    if (a->kind == INST_REDUCE)
        return 1;
    if (a->kind == INST_CONST || a->kind == INST_INDEX || n->loops == 0)
        return 0;
    bool narrow = dtype_is_narrow(a->type);
    uint32_t predicated = a->predicate >= 0,
             jumps = a->dynamic >= 0 || nest_motion_of(n->dims, a->index, nest_fast_axis(n)) == NEST_JUMPS;
    return 1 + (narrow ? 3u : 0u) + predicated + 5 * jumps;
}

/* ---- placing ---- */

static void place_one(struct nest *n, uint32_t i)
{
    const struct kernel *k = n->kernel;
    const struct instruction *a = &k->instruction[i];
    struct placing at = {.nest = n, .cost = own_cost(n, a)};
    each_operand(a, place_after, &at);
    bool indexed = a->kind == INST_LOAD || a->kind == INST_STORE || a->kind == INST_INDEX;
    const dim index[5] = {a->index, a->dynamic_stride, a->dynamic_limit, a->dynamic_base, a->dynamic_whole};
    for (int e = 0; e < 5 && indexed; e++) {
        uint32_t depth = nest_depth(n, index[e]);
        at.depth = depth > at.depth ? depth : at.depth;
    }
    /* Touching memory: a store once per element, a load of an empty row not at all. */
    if (a->kind == INST_STORE && n->loops && (k->inner == 0 || a->level))
        at.depth = nest_fast_depth(n);
    if (a->kind == INST_STORE && k->inner && !a->level && at.depth < DEPTH_POINT)
        at.depth = DEPTH_POINT;
    if (a->kind == INST_LOAD && a->level && at.depth < DEPTH_LOOP)
        at.depth = DEPTH_LOOP;
    if (a->kind == INST_REDUCE) {
        at.depth = DEPTH_POINT;
        at.stage++;
    }
    n->value[i].depth = at.depth;
    n->value[i].stage = at.stage;
    n->value[i].cost = at.cost < COST_LIMIT ? at.cost : COST_LIMIT;
}

static void mark_live(void *context, uint32_t operand)
{
    ((struct nest *)context)->value[operand].live = true;
}

static void find_live(struct nest *n)
{
    for (uint32_t i = n->kernel->instruction_count; i-- > 0;) {
        const struct instruction *a = &n->kernel->instruction[i];
        n->value[i].live |= a->kind == INST_STORE;
        if (n->value[i].live)
            each_operand(a, mark_live, n);
    }
}

/* ---- sweeps ---- */

struct need {
    struct nest *nest;
    uint32_t sweep, *kept;
    bool keep;
};

static bool computed_before(const struct nest *n, uint32_t sweep, uint32_t i)
{
    for (uint32_t s = 0; s < sweep; s++)
        if (nest_use(n, s, i) == USE_COMPUTE)
            return true;
    return false;
}

/* Marks that sweep w->sweep needs instruction i. Operands come later, from the loop in find_uses. */
static void need_value(void *context, uint32_t i)
{
    struct need *w = context;
    struct nest *n = w->nest;
    struct nest_value *v = &n->value[i];
    uint8_t *use = &n->use[(size_t)w->sweep * n->kernel->instruction_count + i];
    if (v->depth < DEPTH_LOOP || *use != USE_NONE)
        return;
    bool fast = v->depth == nest_fast_depth(n), dear = v->cost >= KEEP_COST;
    if (w->keep && fast && dear && n->kernel->inner && computed_before(n, w->sweep, i) &&
        (v->kept || *w->kept < KEEP_LIMIT)) {
        *w->kept += !v->kept;
        v->kept = true;
        *use = USE_READ;
        return;
    }
    *use = USE_COMPUTE;
}

static bool is_root(const struct nest *n, uint32_t sweep, uint32_t i)
{
    const struct instruction *a = &n->kernel->instruction[i];
    const struct nest_value *v = &n->value[i];
    if (!v->live)
        return false;
    if (a->kind == INST_REDUCE)
        return v->stage == sweep + 1;
    return a->kind == INST_STORE && v->depth >= DEPTH_LOOP && v->stage == sweep;
}

static void find_uses(struct nest *n, bool keep)
{
    uint32_t count = n->kernel->instruction_count, kept = 0;
    for (uint32_t sweep = 0; sweep < n->sweeps; sweep++) {
        struct need w = {n, sweep, &kept, keep};
        for (uint32_t i = count; i-- > 0;) {
            if (is_root(n, sweep, i)) {
                n->use[(size_t)sweep * count + i] = USE_COMPUTE;
                n->work += n->kernel->instruction[i].kind == INST_REDUCE ? 1 : 0;
            }
            if (nest_use(n, sweep, i) == USE_COMPUTE) {
                n->work += own_cost(n, &n->kernel->instruction[i]);
                each_operand(&n->kernel->instruction[i], need_value, &w);
            }
        }
    }
}

/* ---- axes ---- */

/* How well an axis does as the fast one. */
static uint32_t merit(const struct kernel *k, const struct dims *t, uint32_t axis)
{
    uint32_t sum = 0;
    int64_t extent;
    for (uint32_t i = 0; i < k->instruction_count; i++) {
        const struct instruction *a = &k->instruction[i];
        if (a->kind != INST_LOAD && a->kind != INST_STORE)
            continue;
        enum nest_motion m = nest_motion_of(t, a->index, axis);
        sum += m == NEST_RUNS ? a->kind == INST_STORE ? 12 : 8 : m == NEST_STANDS ? 6 : 0;
    }
    bool is_short = dim_is_const(t, k->extent[axis], &extent) && extent < 16;
    return is_short ? sum * (uint32_t)(extent < 1 ? 1 : extent) / 16 : sum;
}

static uint32_t choose_fast(const struct kernel *k, const struct dims *t)
{
    uint32_t best = k->outer - 1;
    for (uint32_t i = k->outer - 1; i-- > 0;)
        best = merit(k, t, i) > merit(k, t, best) ? i : best;
    return best;
}

static void place_axes(struct nest *n)
{
    const struct kernel *k = n->kernel;
    uint32_t axes = k->outer + k->inner;
    bool row = k->inner != 0;
    uint32_t fast = row || k->outer == 0 ? axes : choose_fast(k, n->dims);
    n->cut_loop = !row && k->outer == 1;
    for (uint32_t i = 0; i < axes; i++) {
        if (row ? i < k->outer : i != fast) {
            n->point[n->points++] = (uint8_t)i;
            n->depth[i] = DEPTH_POINT;
        } else {
            n->depth[i] = (uint8_t)(DEPTH_LOOP + n->loops);
            n->loop[n->loops++] = (uint8_t)i;
        }
    }
}

static bool has_transposing_access(const struct nest *n)
{
    for (uint32_t i = 0; i < n->kernel->instruction_count; i++) {
        const struct instruction *a = &n->kernel->instruction[i];
        bool access = a->kind == INST_LOAD || a->kind == INST_STORE;
        if (access && n->value[i].live && nest_motion_of(n->dims, a->index, nest_fast_axis(n)) == NEST_JUMPS &&
            nest_motion_of(n->dims, a->index, n->point[n->points - 1]) == NEST_RUNS)
            return true;
    }
    return false;
}

void nest_of(const struct kernel *k, const struct dims *t, bool keep, struct arena *arena, struct nest *out)
{
    struct nest n = {.kernel = k, .dims = t};
    n.symbol_count = kernel_symbols(k, t, arena, &n.symbol);
    place_axes(&n);
    n.value = NEW_ARRAY(arena, struct nest_value, k->instruction_count + 1);
    for (uint32_t i = 0; i < k->instruction_count; i++)
        place_one(&n, i);
    find_live(&n);
    n.transposes = k->inner == 0 && n.points && has_transposing_access(&n);
    for (uint32_t i = 0; i < k->instruction_count; i++) {
        const struct nest_value *v = &n.value[i];
        bool row = v->depth >= DEPTH_LOOP || k->instruction[i].kind == INST_REDUCE;
        uint32_t sweeps = k->instruction[i].kind == INST_REDUCE ? v->stage : v->stage + 1;
        if (v->live && row && sweeps > n.sweeps)
            n.sweeps = sweeps;
    }
    n.use = NEW_ARRAY(arena, uint8_t, (size_t)n.sweeps * k->instruction_count + 1);
    find_uses(&n, keep);
    *out = n;
}
