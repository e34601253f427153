/* passes/fuse_kernel.c - the body of a group's kernel: scalar instructions for one element of the root, made by walking up the graph.
 *
 * A value at an index is computed once (memo); a value that lies in a buffer is a load. Under a concat or pad only one operand's element exists:
 * loads carry the predicate that says so. At the end coordinates are split, merged and renumbered, so that equal work gives equal
 * kernels. Start at emit. Its recursion is as deep as a group is large, which the plan bounds.
 */
#include "passes/fuse.h"

#include <math.h>

enum { NO_INSTRUCTION = -1 };

struct emitter {
    struct plan *plan;
    uint32_t number; /* of the group */
    const struct group *group;
    struct space space;
    LIST(struct instruction) list;
    LIST(struct kernel_buffer) buffers;
    LIST(value) held; /* per buffer */
    struct map memo;  /* (value, predicate, index) -> 1 + instruction */
    struct map same;  /* content -> 1 + instruction */
    bool failed;
};

static struct dims *dims_of(const struct emitter *e)
{
    return e->plan->graph->dims;
}

static const struct node *node_of(const struct emitter *e, value v)
{
    return graph_node(e->plan->graph, v);
}

/* ---- instructions ---- */

/* What makes two instructions one; the rest is for reports. */
struct content {
    int32_t kind, op, type, mode, arg[3], dynamic, predicate;
    uint32_t buffer, dynamic_zero;
    dim index, dynamic_stride, dynamic_limit, dynamic_base, dynamic_whole;
    uint64_t number;
    int64_t integer;
};

static int32_t append(struct emitter *e, const struct instruction *n)
{
    struct content key;
    memset(&key, 0, sizeof key);
    key.kind = (int32_t)n->kind;
    key.op = (int32_t)n->op;
    key.type = (int32_t)n->type;
    key.mode = n->mode;
    memcpy(key.arg, n->arg, sizeof key.arg);
    key.dynamic = n->dynamic;
    key.predicate = n->predicate;
    key.buffer = n->buffer;
    key.dynamic_zero = n->dynamic_zero;
    key.index = n->index;
    key.dynamic_stride = n->dynamic_stride;
    key.dynamic_limit = n->dynamic_limit;
    key.dynamic_base = n->dynamic_base;
    key.dynamic_whole = n->dynamic_whole;
    memcpy(&key.number, &n->number, sizeof key.number);
    key.integer = n->integer;
    bool added;
    uint32_t *slot = map_put(&e->same, &key, sizeof key, &added);
    if (added) {
        *PUSH(e->plan->arena, &e->list) = *n;
        *slot = e->list.count;
    }
    return (int32_t)*slot - 1;
}

static struct instruction blank(instruction_kind kind, dtype type, value node)
{
    return (struct instruction){
        .kind = kind, .type = type, .arg = {-1, -1, -1}, .dynamic = -1, .predicate = -1, .node = node};
}

static int32_t put_map(struct emitter *e, op o, dtype type, int32_t a, int32_t b, int32_t c, value node)
{
    struct instruction n = blank(INST_MAP, type, node);
    n.op = o;
    n.arg[0] = a;
    n.arg[1] = b;
    n.arg[2] = c;
    return append(e, &n);
}

static int32_t put_index(struct emitter *e, dim index, value node)
{
    struct instruction n = blank(INST_INDEX, DT_I64, node);
    n.index = index_simplify(&e->space, index);
    e->failed |= n.index == DIM_NONE;
    return append(e, &n);
}

static int32_t put_number(struct emitter *e, dtype type, double number, value node)
{
    struct instruction n = blank(INST_CONST, type, node);
    n.number = dtype_is_float(type) ? number : 0;
    n.integer = dtype_is_float(type) ? 0 : (int64_t)number;
    return append(e, &n);
}

static uint32_t buffer_of(struct emitter *e, value holder, bool written)
{
    if (e->plan->state[holder] != 0) /* past and present are one memory */
        holder = e->plan->memory[e->plan->state[holder] - 1].past;
    for (uint32_t i = 0; i < e->held.count; i++)
        if (e->held.at[i] == holder) {
            e->buffers.at[i].written |= written;
            return i;
        }
    *PUSH(e->plan->arena, &e->held) = holder;
    *PUSH(e->plan->arena, &e->buffers) = (struct kernel_buffer){node_of(e, holder)->dtype, written};
    return e->held.count - 1;
}

static int32_t both(struct emitter *e, int32_t a, int32_t b, value node)
{
    if (a == NO_INSTRUCTION || b == NO_INSTRUCTION)
        return a == NO_INSTRUCTION ? b : a;
    return put_map(e, OP_AND, DT_BOOL, a, b, -1, node);
}

/* a < b as a bool; NO_INSTRUCTION where it is provable. */
static int32_t put_below(struct emitter *e, dim a, dim b, value node)
{
    if (index_below(&e->space, a, b))
        return NO_INSTRUCTION;
    return put_map(e, OP_LT, DT_BOOL, put_index(e, a, node), put_index(e, b, node), -1, node);
}

/* lower <= a */
static int32_t put_from(struct emitter *e, dim lower, dim a, value node)
{
    if (index_nonnegative(&e->space, dim_sub(dims_of(e), a, lower)))
        return NO_INSTRUCTION;
    return put_map(e, OP_LE, DT_BOOL, put_index(e, lower, node), put_index(e, a, node), -1, node);
}

/* ---- values ---- */

static int32_t emit(struct emitter *e, value v, const dim *index, int32_t predicate);

static int32_t emit_load(struct emitter *e, value v, const dim *index, int32_t predicate)
{
    const struct node *n = node_of(e, v);
    struct instruction load = blank(INST_LOAD, n->dtype, v);
    load.buffer = buffer_of(e, v, false);
    load.index = index_simplify(&e->space, index_row_major(&e->space, n->rank, plan_shape(e->plan, v), index));
    load.predicate = predicate;
    e->failed |= load.index == DIM_NONE;
    int32_t x = append(e, &load);
    if (e->plan->scale[v] == 0)
        return x;
    return put_map(e, OP_MUL, n->dtype, x, put_number(e, n->dtype, e->plan->scale[v], v), -1, v);
}

static bool all_equal(const struct node *n)
{
    size_t size = dtype_size(n->dtype), limit = (size_t)1 << 16;
    if (n->attribute.data_size < size || n->attribute.data_size > limit)
        return false;
    const char *data = n->attribute.data;
    return n->attribute.data_size == size || memcmp(data, data + size, n->attribute.data_size - size) == 0;
}

static int32_t emit_constant(struct emitter *e, value v, const dim *index, int32_t predicate)
{
    const struct node *n = node_of(e, v);
    if (!all_equal(n))
        return emit_load(e, v, index, predicate);
    struct instruction c = blank(INST_CONST, n->dtype, v);
    if (dtype_is_float(n->dtype))
        c.number = dtype_load_f64(n->dtype, n->attribute.data, 0);
    else
        c.integer = dtype_load_i64(n->dtype, n->attribute.data, 0);
    return append(e, &c);
}

static int32_t cast_index(struct emitter *e, dim index, dtype type, value v)
{
    int32_t i = put_index(e, index, v);
    return type == DT_I64 ? i : put_map(e, OP_CAST, type, i, -1, -1, v);
}

/* x to a constant power as products. */
static int32_t emit_power(struct emitter *e, value v, int32_t x, int32_t exponent)
{
    const struct instruction *c = &e->list.at[exponent];
    dtype type = e->list.at[x].type;
    double power = c->kind == INST_CONST ? dtype_is_float(type) ? c->number : (double)c->integer : 0;
    if (power == 1)
        return x;
    if (power == 2 || power == 3) {
        int32_t square = put_map(e, OP_MUL, type, x, x, -1, v);
        return power == 2 ? square : put_map(e, OP_MUL, type, square, x, -1, v);
    }
    if (power == 0.5)
        return put_map(e, OP_SQRT, type, x, -1, -1, v);
    return put_map(e, OP_POW, type, x, exponent, -1, v);
}

/* x where this rank's coordinates on the sub-axes are 0, else 0. */
static int32_t emit_count_once(struct emitter *e, value v, int32_t x)
{
    const struct graph *g = e->plan->graph;
    struct dims *t = g->dims;
    dim rest = dim_rank(e->plan->graph->dims);
    int32_t first = NO_INSTRUCTION;
    for (uint32_t i = g->mesh.count; i-- > 0;) {
        dim size = dim_const(t, g->mesh.size[i]);
        dim coordinate = i == 0 ? rest : dim_mod(t, rest, size);
        rest = dim_div(t, rest, size);
        if ((node_of(e, v)->attribute.index >> i & 1) == 0)
            continue;
        int32_t zero = put_index(e, dim_const(t, 0), v);
        first = both(e, first, put_map(e, OP_EQ, DT_BOOL, put_index(e, coordinate, v), zero, -1, v), v);
    }
    dtype type = node_of(e, v)->dtype;
    return first == NO_INSTRUCTION ? x : put_map(e, OP_SELECT, type, first, x, put_number(e, type, 0, v), v);
}

static int32_t emit_pointwise(struct emitter *e, value v, const dim *index, int32_t predicate)
{
    const struct node *n = node_of(e, v);
    struct instruction map = blank(INST_MAP, n->dtype, v);
    map.op = n->op;
    map.mode = n->attribute.mode;
    for (uint32_t i = 0; i < n->operand_count; i++)
        map.arg[i] = emit(e, n->operand[i], index, predicate);
    if (e->failed)
        return 0;
    if (n->op == OP_POW)
        return emit_power(e, v, map.arg[0], map.arg[1]);
    if (n->op == OP_COUNT_ONCE)
        return emit_count_once(e, v, map.arg[0]);
    if (n->op == OP_CAST && e->list.at[map.arg[0]].type == n->dtype)
        return map.arg[0];
    return append(e, &map);
}

static int32_t emit_reduce(struct emitter *e, value v, const dim *index, int32_t predicate)
{
    const struct node *n = node_of(e, v);
    struct instruction reduce = blank(INST_REDUCE, n->dtype, v);
    dim at[MAX_RANK];
    plan_reduced_index(e->group, n, node_of(e, n->operand[0])->rank, index, at);
    reduce.op = n->op;
    reduce.arg[0] = emit(e, n->operand[0], at, predicate);
    return append(e, &reduce);
}

static int32_t emit_gather(struct emitter *e, value v, const dim *index, int32_t predicate)
{
    const struct node *n = node_of(e, v);
    struct instruction load = blank(INST_LOAD, n->dtype, v);
    dim where[MAX_RANK];
    plan_gather_where(e->plan, v, index, where);
    struct space probe = e->space;
    value base = plan_gather_view(e->plan, &probe, v, index, e->plan->base[v], &load.index, &load.dynamic_stride);
    load.dynamic = emit(e, n->operand[1], where, predicate);
    if (base == 0 || base != e->plan->base[v] || e->failed) {
        e->failed = true;
        return 0;
    }
    if (n->attribute.mode == GATHER_ZERO && !dim_is(dims_of(e), n->attribute.dims[0], 0)) {
        dtype type = e->list.at[load.dynamic].type;
        int32_t wide = type == DT_I64 ? load.dynamic : put_map(e, OP_CAST, DT_I64, load.dynamic, -1, -1, v);
        load.dynamic = put_map(e, OP_SUB, DT_I64, wide, put_index(e, n->attribute.dims[0], v), -1, v);
    }
    load.dynamic_limit = node_of(e, n->operand[0])->shape[n->attribute.axis];
    load.dynamic_zero = n->attribute.mode == GATHER_ZERO;
    if (load.dynamic_zero && n->attribute.dims_count > 1) {
        load.dynamic_base = n->attribute.dims[0];
        load.dynamic_whole = n->attribute.dims[1];
    }
    load.buffer = buffer_of(e, base, false);
    load.predicate = predicate;
    return append(e, &load);
}

static int32_t emit_concat(struct emitter *e, value v, const dim *index, int32_t predicate)
{
    const struct node *n = node_of(e, v);
    struct dims *t = dims_of(e);
    uint32_t axis = (uint32_t)n->attribute.axis;
    dim start = dim_const(t, 0), at[MAX_RANK];
    int32_t part[MAX_RANK], before[MAX_RANK], result = NO_INSTRUCTION;
    uint32_t used = 0;
    memcpy(at, index, n->rank * sizeof *index);
    for (uint32_t i = 0; i < n->operand_count; i++) {
        dim extent = node_of(e, n->operand[i])->shape[axis], end = dim_add(t, start, extent);
        at[axis] = dim_sub(t, index[axis], start);
        bool last = i + 1 == n->operand_count;
        int32_t from = put_from(e, start, index[axis], v),
                below = last ? NO_INSTRUCTION : put_below(e, index[axis], end, v);
        bool beyond = index_nonnegative(&e->space, dim_sub(t, index[axis], end)) && !dim_is(t, extent, 0);
        bool short_of = start != dim_const(t, 0) && index_below(&e->space, index[axis], start);
        start = end;
        if ((beyond && !last) || short_of)
            continue;
        part[used] = emit(e, n->operand[i], at, both(e, both(e, from, below, v), predicate, v));
        before[used++] = below;
        if (e->failed || below == NO_INSTRUCTION)
            break;
    }
    for (uint32_t i = used; i-- > 0 && !e->failed;)
        result = result == NO_INSTRUCTION ? part[i] : put_map(e, OP_SELECT, n->dtype, before[i], part[i], result, v);
    e->failed |= result == NO_INSTRUCTION;
    return e->failed ? 0 : result;
}

static int32_t emit_pad(struct emitter *e, value v, const dim *index, int32_t predicate)
{
    const struct node *n = node_of(e, v), *a = node_of(e, n->operand[0]);
    struct dims *t = dims_of(e);
    dim at[MAX_RANK];
    int32_t inside = NO_INSTRUCTION;
    for (uint32_t i = 0; i < n->rank; i++) {
        dim end = dim_add(t, n->attribute.dims[i], a->shape[i]);
        at[i] = dim_sub(t, index[i], n->attribute.dims[i]);
        inside = both(e, inside, put_from(e, n->attribute.dims[i], index[i], v), v);
        inside = both(e, inside, put_below(e, index[i], end, v), v);
    }
    int32_t x = emit(e, n->operand[0], at, both(e, inside, predicate, v)), fill = emit(e, n->operand[1], at, predicate);
    return inside == NO_INSTRUCTION || e->failed ? x : put_map(e, OP_SELECT, n->dtype, inside, x, fill, v);
}

/* A dot over extents of 1. */
static int32_t emit_product(struct emitter *e, value v, const dim *index, int32_t predicate)
{
    const struct node *n = node_of(e, v);
    int32_t side[2];
    for (int i = 0; i < 2; i++) {
        dim at[MAX_RANK];
        plan_dot_where(e->plan, v, index, i, at);
        side[i] = emit(e, n->operand[i], at, predicate);
    }
    return e->failed ? 0 : put_map(e, OP_MUL, n->dtype, side[0], side[1], -1, v);
}

/* v computed from its operands. */
static int32_t emit_value(struct emitter *e, value v, const dim *index, int32_t predicate)
{
    const struct node *n = node_of(e, v);
    dim at[MAX_RANK];
    if (n->op == OP_DIM)
        return put_index(e, n->attribute.dims[0], v);
    if (n->op == OP_IOTA)
        return cast_index(e, index[n->attribute.axis], n->dtype, v);
    if (n->op == OP_GATHER)
        return emit_gather(e, v, index, predicate);
    if (n->op == OP_CONCAT && !view_is_map(e->plan->graph, v))
        return emit_concat(e, v, index, predicate);
    if (n->op == OP_DOT && plan_is_product(e->plan, v))
        return emit_product(e, v, index, predicate);
    if (n->op == OP_PAD)
        return emit_pad(e, v, index, predicate);
    if (op_info(n->op)->class == CLASS_REDUCE)
        return emit_reduce(e, v, index, predicate);
    if (op_info(n->op)->class == CLASS_POINTWISE)
        return emit_pointwise(e, v, index, predicate);
    if (!view_is_map(e->plan->graph, v)) {
        e->failed = true;
        return 0;
    }
    view_map(e->plan->graph, &e->space, v, index, at);
    return emit(e, n->operand[0], at, predicate);
}

static void put_store(struct emitter *e, value holder, dim index, int32_t x)
{
    struct instruction store = blank(INST_STORE, e->list.at[x].type, holder);
    store.arg[0] = x;
    store.index = index_simplify(&e->space, index);
    store.buffer = buffer_of(e, holder, true);
    e->failed |= store.index == DIM_NONE;
    *PUSH(e->plan->arena, &e->list) = store;
}

static bool is_hosted(const struct emitter *e, value v)
{
    for (uint32_t i = 0; i < e->group->hosted.count; i++)
        if (e->group->hosted.at[i] == v)
            return true;
    return false;
}

static int32_t emit(struct emitter *e, value v, const dim *index, int32_t predicate)
{
    const struct node *n = node_of(e, v);
    dim key[MAX_RANK + 2];
    bool added, hosted = is_hosted(e, v), root = e->group->root == v && e->group->part < 0;
    if (e->failed)
        return 0;
    key[0] = v;
    key[1] = (dim)(predicate + 1);
    memcpy(key + 2, index, n->rank * sizeof *index);
    uint32_t *slot = map_put(&e->memo, key, (n->rank + 2) * sizeof *key, &added);
    if (!added)
        return (int32_t)*slot - 1;
    int32_t x;
    if (n->op == OP_CONSTANT)
        x = emit_constant(e, v, index, predicate);
    else if (e->plan->materialised[v] && !hosted && !root)
        x = emit_load(e, v, index, predicate);
    else
        x = emit_value(e, v, index, predicate);
    if (e->failed)
        return 0;
    if (hosted)
        put_store(e, v, index_row_major(&e->space, n->rank, n->shape, index), x);
    *map_put(&e->memo, key, (n->rank + 2) * sizeof *key, NULL) = (uint32_t)x + 1;
    return x;
}

/* ---- the finished kernel ---- */

static dim *index_slot(struct instruction *n, uint32_t i)
{
    return i == 0 ? &n->index : i == 1 ? &n->dynamic_stride : &n->dynamic_limit;
}

/* A reduction needs a row, be it of one element. */
static void keep_row(struct emitter *e)
{
    bool reduces = false, row = false;
    for (uint32_t i = 0; i < e->list.count; i++)
        reduces |= e->list.at[i].kind == INST_REDUCE;
    for (uint32_t i = 0; i < e->space.order_count; i++)
        row |= e->space.kind[i] == AXIS_INNER;
    if (reduces && !row)
        (void)space_add(&e->space, dim_const(dims_of(e), 1), AXIS_INNER);
}

/* Splits, merges and renumbers the coordinates in all instructions. */
static bool settle_axes(struct emitter *e)
{
    uint32_t count = e->list.count * 3;
    if (count > 1024 * 3)
        return false;
    dim *all = NEW_ARRAY(e->plan->arena, dim, count + 1);
    for (uint32_t i = 0; i < count; i++)
        all[i] = *index_slot(&e->list.at[i / 3], i % 3);
    space_split_all(&e->space, count, all);
    space_merge(&e->space, count, all, e->plan->arena);
    space_renumber(&e->space, count, all);
    for (uint32_t i = 0; i < count; i++)
        *index_slot(&e->list.at[i / 3], i % 3) = all[i];
    keep_row(e);
    return true;
}

static int32_t level_of_index(const struct emitter *e, dim d)
{
    for (uint32_t i = 0; i < e->space.order_count; i++)
        if (e->space.kind[i] == AXIS_INNER && index_uses(&e->space, d, i))
            return 1;
    return 0;
}

static void set_levels(struct emitter *e)
{
    for (uint32_t i = 0; i < e->list.count; i++) {
        struct instruction *n = &e->list.at[i];
        int32_t inputs[5] = {n->arg[0], n->arg[1], n->arg[2], n->dynamic, n->predicate};
        n->level = 0;
        for (int k = 0; k < 5; k++)
            if (inputs[k] >= 0 && e->list.at[inputs[k]].level > n->level)
                n->level = 1;
        for (uint32_t k = 0; k < 3 && n->level == 0; k++)
            n->level = *index_slot(n, k) != DIM_NONE ? level_of_index(e, *index_slot(n, k)) : 0;
        if (n->kind == INST_REDUCE)
            n->level = 0;
    }
}

/* Without what nothing uses (predicates that turned out to be needless). */
static void drop_dead(struct emitter *e)
{
    int32_t *moved = NEW_ARRAY(e->plan->arena, int32_t, e->list.count + 1);
    for (uint32_t i = e->list.count; i-- > 0;) {
        const struct instruction *n = &e->list.at[i];
        int32_t inputs[5] = {n->arg[0], n->arg[1], n->arg[2], n->dynamic, n->predicate};
        moved[i] |= n->kind == INST_STORE;
        for (int k = 0; k < 5 && moved[i]; k++)
            if (inputs[k] >= 0)
                moved[inputs[k]] = 1;
    }
    uint32_t count = 0;
    for (uint32_t i = 0; i < e->list.count; i++) {
        if (!moved[i])
            continue;
        struct instruction n = e->list.at[i];
        for (int k = 0; k < 3; k++)
            n.arg[k] = n.arg[k] >= 0 ? moved[n.arg[k]] : -1;
        n.dynamic = n.dynamic >= 0 ? moved[n.dynamic] : -1;
        n.predicate = n.predicate >= 0 ? moved[n.predicate] : -1;
        moved[i] = (int32_t)count;
        e->list.at[count++] = n;
    }
    e->list.count = count;
}

/* The updates of a scatter into a state's memory. */
static void emit_scatter(struct emitter *e)
{
    value v = e->group->root;
    const struct node *n = node_of(e, v);
    dim where[MAX_RANK], linear;
    int32_t x = emit(e, n->operand[2], e->group->index, NO_INSTRUCTION);
    plan_gather_where(e->plan, v, e->group->index, where);
    struct instruction store = blank(INST_STORE, n->dtype, v);
    store.arg[0] = x;
    store.dynamic = e->failed ? 0 : emit(e, n->operand[1], where, NO_INSTRUCTION);
    plan_scatter_view(e->plan, &e->space, v, e->group->index, &linear, &store.dynamic_stride);
    store.index = index_simplify(&e->space, linear);
    store.dynamic_limit = n->shape[n->attribute.axis];
    store.buffer = buffer_of(e, v, true);
    e->failed |= store.index == DIM_NONE || store.dynamic_stride == DIM_NONE;
    *PUSH(e->plan->arena, &e->list) = store;
}

static void emit_root(struct emitter *e)
{
    const struct group *g = e->group;
    const struct node *n = node_of(e, g->root);
    struct dims *t = dims_of(e);
    bool state = e->plan->state[g->root] != 0;
    if (state && n->op == OP_SCATTER) {
        emit_scatter(e);
        return;
    }
    value v = g->part >= 0 ? n->operand[g->part] : state ? n->operand[1] : g->root; /* a pad's fill */
    dim at[MAX_RANK];
    int32_t x = emit(e, v, g->index, NO_INSTRUCTION);
    if (e->failed)
        return;
    memcpy(at, g->index, n->rank * sizeof *at);
    for (int32_t i = 0; i < g->part; i++)
        at[n->attribute.axis] = dim_add(t, at[n->attribute.axis], node_of(e, n->operand[i])->shape[n->attribute.axis]);
    put_store(e, g->root, index_row_major(&e->space, n->rank, plan_shape(e->plan, g->root), at), x);
}

status fuse_kernel(struct plan *p, uint32_t number, struct kernel *out, value **buffers)
{
    struct emitter e = {
        .plan = p, .number = number, .group = plan_group(p, number), .memo.arena = p->arena, .same.arena = p->arena};
    e.space = e.group->space;
    emit_root(&e);
    if (!e.failed) {
        drop_dead(&e);
        e.failed = !settle_axes(&e);
    }
    if (e.failed)
        return diag_error(p->diag, TPC_UNSUPPORTED, graph_where(p->graph, e.group->root, p->arena),
                          "its index expressions are too large for a kernel");
    set_levels(&e);
    uint32_t axes = e.space.order_count;
    *out = (struct kernel){.extent = arena_copy(p->arena, e.space.extent, axes * sizeof(dim)),
                           .buffer_count = e.buffers.count,
                           .buffer = e.buffers.at,
                           .instruction_count = e.list.count,
                           .instruction = e.list.at};
    for (uint32_t i = 0; i < axes; i++)
        ++*(e.space.kind[i] == AXIS_OUTER ? &out->outer : &out->inner);
    *buffers = e.held.at;
    return TPC_OK;
}
