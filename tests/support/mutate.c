/* tests/support/mutate.c - the ways in which a rewrite might be wrong. */
#include "tests/support/mutate.h"

#include "ir/op_infer.h"

/* ---- copies ---- */

#define OWN(arena, list)                                                                                               \
    ((list).at = arena_copy((arena), (list).at, (list).count * sizeof *(list).at), (list).capacity = (list).count)

struct graph *program_copy(const struct graph *p, struct arena *arena)
{
    struct graph *m = NEW(arena, struct graph);
    *m = *p;
    m->arena = arena;
    OWN(m->arena, m->nodes);
    OWN(m->arena, m->outputs);
    OWN(m->arena, m->inputs);
    OWN(m->arena, m->source);
    OWN(m->arena, m->partitions);
    OWN(m->arena, m->shards);
    OWN(m->arena, m->params);
    OWN(m->arena, m->guards);
    OWN(m->arena, m->states);
    return m;
}

bool program_derive(struct graph *m)
{
    for (value v = 1; v < m->nodes.count; v++) {
        struct node *n = &m->nodes.at[v];
        struct inference i = {.graph = m, .node = n};
        for (uint32_t k = 0; k < n->operand_count; k++)
            if (n->operand[k] == 0 || n->operand[k] >= v)
                return false;
        if (!op_infer(&i))
            return false;
        for (uint32_t k = 0; k < i.rank; k++)
            if (!dim_valid(i.shape[k]))
                return false;
        n->dtype = i.dtype;
        n->rank = i.rank;
        dim *shape = arena_copy(m->arena, i.shape, i.rank * sizeof *shape);
        for (uint32_t k = 0; k < i.rank; k++)
            shape[k] = dim_resolve(m->dims, shape[k]);
        n->shape = shape;
    }
    return true;
}

static struct node *at(struct graph *m, value v)
{
    return &m->nodes.at[v];
}

static void set_operand(struct graph *m, value v, uint32_t i, value to)
{
    struct node *n = at(m, v);
    value *operand = arena_copy(m->arena, n->operand, n->operand_count * sizeof *operand);
    operand[i] = to;
    n->operand = operand;
}

static int32_t *own_list(struct graph *m, value v)
{
    struct attribute *a = &at(m, v)->attribute;
    int32_t *list = arena_copy(m->arena, a->list, a->list_count * sizeof *list);
    a->list = list;
    return list;
}

static dim *own_dims(struct graph *m, value v)
{
    struct attribute *a = &at(m, v)->attribute;
    dim *dims = arena_copy(m->arena, a->dims, a->dims_count * sizeof *dims);
    a->dims = dims;
    return dims;
}

/* Uses of `from` behind `after`, and outputs, become uses of `to`. */
static void redirect(struct graph *m, value from, value to, value after)
{
    for (value v = after + 1; v < m->nodes.count; v++)
        for (uint32_t i = 0; i < at(m, v)->operand_count; i++)
            if (at(m, v)->operand[i] == from && v != to)
                set_operand(m, v, i, to);
    for (uint32_t i = 0; i < m->outputs.count; i++)
        if (m->outputs.at[i].value == from)
            m->outputs.at[i].value = to;
}

/* Makes room for a node at v; what stood there and behind moves up by one. */
static struct node *insert(struct graph *m, value v)
{
    (void)PUSH(m->arena, &m->nodes);
    (void)PUSH(m->arena, &m->source);
    memmove(&m->nodes.at[v + 1], &m->nodes.at[v], (m->nodes.count - 1 - v) * sizeof *m->nodes.at);
    memmove(&m->source.at[v + 1], &m->source.at[v], (m->source.count - 1 - v) * sizeof *m->source.at);
    for (value u = v + 1; u < m->nodes.count; u++)
        for (uint32_t i = 0; i < at(m, u)->operand_count; i++)
            if (at(m, u)->operand[i] >= v)
                set_operand(m, u, i, at(m, u)->operand[i] + 1);
    for (uint32_t i = 0; i < m->outputs.count; i++)
        m->outputs.at[i].value += m->outputs.at[i].value >= v;
    for (uint32_t i = 0; i < m->inputs.count; i++)
        m->inputs.at[i].value += m->inputs.at[i].value >= v;
    *at(m, v) = (struct node){.origin = at(m, v - 1)->origin};
    m->source.at[v] = 0;
    return at(m, v);
}

/* Inserts a node with the one operand v right behind it, and has all users of v use that. */
static value insert_behind(struct graph *m, value v, op o, const struct attribute *a)
{
    struct node *n = insert(m, v + 1);
    const struct node *x = at(m, v);
    n->op = o;
    n->dtype = x->dtype;
    n->rank = x->rank;
    n->shape = x->shape;
    n->operand_count = 1;
    n->operand = arena_copy(m->arena, &v, sizeof v);
    n->attribute = *a;
    redirect(m, v, v + 1, v + 1);
    return v + 1;
}

static bool communicates(op o)
{
    return o == OP_ALL_REDUCE || o == OP_ALL_GATHER || o == OP_REDUCE_SCATTER || o == OP_RESTRICT || o == OP_COUNT_ONCE;
}

static bool cuts(op o)
{
    return o == OP_ALL_GATHER || o == OP_REDUCE_SCATTER || o == OP_RESTRICT;
}

/* The variant-th value before v with that type and shape, other than v's operand i. */
static value alike(const struct graph *m, value v, value than, uint32_t variant)
{
    const struct node *x = graph_node(m, than);
    for (value u = v; u-- > 1;) {
        const struct node *n = graph_node(m, u);
        if (u != than && n->dtype == x->dtype && n->rank == x->rank &&
            (x->rank == 0 || memcmp(n->shape, x->shape, x->rank * sizeof *x->shape) == 0) && variant-- == 0)
            return u;
    }
    return 0;
}

/* ---- collectives ---- */

static bool drop(struct graph *m, value v, uint32_t variant)
{
    (void)variant;
    if (!communicates(at(m, v)->op))
        return false;
    redirect(m, v, at(m, v)->operand[0], v);
    return true;
}

static bool twice(struct graph *m, value v, uint32_t variant)
{
    (void)variant;
    struct attribute a = at(m, v)->attribute;
    return communicates(at(m, v)->op) && insert_behind(m, v, at(m, v)->op, &a) != 0;
}

static bool other_reduction(struct graph *m, value v, uint32_t variant)
{
    op o = at(m, v)->op;
    if ((o != OP_ALL_REDUCE && o != OP_REDUCE_SCATTER) || (int32_t)variant + 1 == at(m, v)->attribute.mode)
        return false;
    at(m, v)->attribute.mode = (int32_t)variant + 1;
    return true;
}

static bool other_group(struct graph *m, value v, uint32_t variant)
{
    op o = at(m, v)->op;
    uint32_t mask = variant + 1;
    if ((o != OP_ALL_REDUCE && o != OP_COUNT_ONCE) || mask >> m->mesh.count || mask == at(m, v)->attribute.index)
        return false;
    at(m, v)->attribute.index = mask;
    return true;
}

static bool other_partition(struct graph *m, value v, uint32_t variant)
{
    struct attribute *a = &at(m, v)->attribute;
    if (!cuts(at(m, v)->op))
        return false;
    for (uint32_t p = 1; p < m->partitions.count; p++)
        if (p != a->partition && m->partitions.at[p].extent == m->partitions.at[a->partition].extent &&
            variant-- == 0) {
            a->partition = p;
            return true;
        }
    return false;
}

/* The same parts, handed to the ranks in another order: parts of the same size swap. */
static bool cut_around(struct graph *m, value v, uint32_t variant)
{
    if (!cuts(at(m, v)->op) || at(m, v)->attribute.dims_count != 2)
        return false;
    dim *d = own_dims(m, v), outer = d[0];
    if (variant == 0) {
        d[0] = d[1];
        d[1] = outer;
    } else {
        uint32_t rank = graph_node(m, at(m, v)->operand[0])->rank;
        if (rank < 2)
            return false;
        at(m, v)->attribute.axis = (at(m, v)->attribute.axis + (int32_t)variant) % (int32_t)rank;
        return variant % rank != 0;
    }
    return d[0] != d[1];
}

static bool exchange_collective(struct graph *m, value v, uint32_t variant)
{
    static const op to[] = {OP_COUNT_ONCE, OP_RESTRICT, OP_ALL_REDUCE};
    op o = at(m, v)->op;
    static const op from[] = {OP_ALL_REDUCE, OP_REDUCE_SCATTER, OP_COUNT_ONCE};
    if (o != from[variant])
        return false;
    at(m, v)->op = to[variant];
    at(m, v)->attribute.mode = to[variant] == OP_ALL_REDUCE ? REDUCTION_SUM : 0;
    return true;
}

static bool once_too_often(struct graph *m, value v, uint32_t variant)
{
    op o = at(m, v)->op;
    if (!dtype_is_float(at(m, v)->dtype) || o == OP_PARAM)
        return false;
    struct attribute a = {.index = 1, .mode = variant ? REDUCTION_SUM : 0};
    return insert_behind(m, v, variant ? OP_ALL_REDUCE : OP_COUNT_ONCE, &a) != 0;
}

/* u = op(.., all_reduce(x), ..) becomes all_reduce(op(.., x, ..)), for the variant-th user. */
static bool reduce_later(struct graph *m, value v, uint32_t variant)
{
    op o = at(m, v)->op;
    if (o != OP_ALL_REDUCE && o != OP_COUNT_ONCE)
        return false;
    struct attribute a = at(m, v)->attribute;
    value x = at(m, v)->operand[0];
    for (value u = v + 1; u < m->nodes.count; u++)
        for (uint32_t i = 0; i < at(m, u)->operand_count; i++)
            if (at(m, u)->operand[i] == v && variant-- == 0) {
                set_operand(m, u, i, x);
                value kept = m->source.at[u];
                value r = insert_behind(m, u, o, &a);
                m->source.at[u] = kept;
                return r != 0;
            }
    return false;
}

/* all_reduce(op(x, ..)) becomes op(all_reduce(x), ..). */
static bool reduce_sooner(struct graph *m, value v, uint32_t variant)
{
    struct node *n = at(m, v);
    if (n->op != OP_ALL_REDUCE || variant >= at(m, n->operand[0])->operand_count)
        return false;
    value f = n->operand[0];
    struct attribute a = n->attribute;
    redirect(m, v, f, v);
    value x = at(m, f)->operand[variant];
    struct node *r = insert(m, f); /* f moves to f + 1 */
    r->op = OP_ALL_REDUCE;
    r->dtype = at(m, x)->dtype;
    r->rank = at(m, x)->rank;
    r->shape = at(m, x)->shape;
    r->operand_count = 1;
    r->operand = arena_copy(m->arena, &x, sizeof x);
    r->attribute = a;
    set_operand(m, f + 1, variant, f);
    return true;
}

/* ---- pieces ---- */

static bool other_start(struct graph *m, value v, uint32_t variant)
{
    if (at(m, v)->op != OP_SLICE)
        return false;
    uint32_t axis = variant / 3 % 4;
    if (axis >= at(m, v)->rank)
        return false;
    dim *d = own_dims(m, v), before = d[axis];
    dim one = dim_const(m->dims, 1);
    d[axis] = variant % 3 == 0   ? dim_add(m->dims, before, one)
              : variant % 3 == 1 ? dim_sub(m->dims, before, one)
                                 : dim_const(m->dims, 0);
    return d[axis] != before && dim_valid(d[axis]) && dim_lower(m->dims, d[axis]) >= 0;
}

static bool other_walk(struct graph *m, value v, uint32_t variant)
{
    struct node *n = at(m, v);
    if (n->op != OP_GATHER && n->op != OP_SCATTER)
        return false;
    dim base = variant == 1 ? dim_const(m->dims, 0) : variant == 2 ? dim_const(m->dims, 1) : DIM_NONE;
    if (variant == 0) {
        n->attribute.mode ^= n->op == OP_GATHER ? (int32_t)GATHER_ZERO : (int32_t)SCATTER_DROP;
    } else if (variant >= 3) {
        if (variant - 2 >= m->partitions.count)
            return false;
        base = partition_offset(m, variant - 2);
    }
    if (variant > 0) {
        if (n->attribute.dims_count && n->attribute.dims[0] == base)
            return false;
        n->attribute.dims = arena_copy(m->arena, &base, sizeof base);
        n->attribute.dims_count = 1;
        n->attribute.mode |= n->op == OP_GATHER ? (int32_t)GATHER_ZERO : (int32_t)SCATTER_DROP;
    }
    return true;
}

/* Only some of an axis goes into what combines all of it. */
static bool cut_short(struct graph *m, value v, uint32_t variant)
{
    op o = at(m, v)->op;
    bool combines = op_info(o)->class == CLASS_REDUCE || o == OP_GATHER || o == OP_SLICE || o == OP_CROSS_ENTROPY;
    if (!combines)
        return false;
    value x = at(m, v)->operand[0];
    const struct node *from = at(m, x);
    uint32_t axis = op_info(o)->class == CLASS_REDUCE ? (uint32_t)at(m, v)->attribute.list[0]
                    : o == OP_GATHER                  ? (uint32_t)at(m, v)->attribute.axis
                                                      : variant / 2;
    int64_t extent;
    if (axis >= from->rank || !dim_is_const(m->dims, from->shape[axis], &extent) || extent < 2)
        return false;
    dim *shape = arena_copy(m->arena, from->shape, from->rank * sizeof *shape),
        *start = NEW_ARRAY(m->arena, dim, from->rank);
    int32_t *step = NEW_ARRAY(m->arena, int32_t, from->rank);
    for (uint32_t k = 0; k < from->rank; k++) {
        start[k] = dim_const(m->dims, k == axis && variant % 2 ? 1 : 0);
        step[k] = 1;
    }
    shape[axis] = dim_const(m->dims, extent - 1);
    struct node s = {.op = OP_SLICE, .dtype = from->dtype, .rank = from->rank, .shape = shape, .operand_count = 1};
    s.operand = arena_copy(m->arena, &x, sizeof x);
    s.attribute = (struct attribute){.dims = start, .dims_count = from->rank, .list = step, .list_count = from->rank};
    s.origin = at(m, v)->origin;
    *insert(m, v) = s;
    set_operand(m, v + 1, 0, v);
    return true;
}

/* The contracted axis of both operands loses its last (or first) element. */
static bool contract_less(struct graph *m, value v, uint32_t variant)
{
    if (at(m, v)->op != OP_DOT || at(m, v)->attribute.ncontract != 1)
        return false;
    for (uint32_t side = 0; side < 2; side++) {
        value dot = v + side, x = at(m, dot)->operand[side];
        const struct node *from = at(m, x);
        int64_t extent;
        uint32_t axis = from->rank - 1;
        if (!dim_is_const(m->dims, from->shape[axis], &extent) || extent < 2)
            return false;
        dim *shape = arena_copy(m->arena, from->shape, from->rank * sizeof *shape),
            *start = NEW_ARRAY(m->arena, dim, from->rank);
        int32_t *step = NEW_ARRAY(m->arena, int32_t, from->rank);
        for (uint32_t k = 0; k < from->rank; k++) {
            start[k] = dim_const(m->dims, k == axis && variant ? 1 : 0);
            step[k] = 1;
        }
        shape[axis] = dim_const(m->dims, extent - 1);
        struct node s = {.op = OP_SLICE,
                         .dtype = from->dtype,
                         .rank = from->rank,
                         .shape = shape,
                         .operand_count = 1,
                         .origin = at(m, dot)->origin};
        s.operand = arena_copy(m->arena, &x, sizeof x);
        s.attribute =
            (struct attribute){.dims = start, .dims_count = from->rank, .list = step, .list_count = from->rank};
        *insert(m, dot) = s;
        set_operand(m, dot + 1, side, dot);
    }
    return true;
}

/* ---- operands and attributes ---- */

static bool swap_operands(struct graph *m, value v, uint32_t variant)
{
    struct node *n = at(m, v);
    uint32_t i = variant, k = variant + 1;
    if (n->operand_count <= k || n->operand[i] == n->operand[k])
        return false;
    if (n->op == OP_ADD || n->op == OP_MUL || n->op == OP_MAX || n->op == OP_MIN || n->op == OP_EQ || n->op == OP_AND ||
        n->op == OP_OR || n->op == OP_XOR)
        return false; /* the same */
    value a = n->operand[i], b = n->operand[k];
    set_operand(m, v, i, b);
    set_operand(m, v, k, a);
    return true;
}

static bool other_operand(struct graph *m, value v, uint32_t variant)
{
    uint32_t i = variant % 3;
    if (at(m, v)->operand_count <= i)
        return false;
    value other = alike(m, v, at(m, v)->operand[i], variant / 3);
    if (other != 0)
        set_operand(m, v, i, other);
    return other != 0;
}

static bool other_list(struct graph *m, value v, uint32_t variant)
{
    struct node *n = at(m, v);
    if (n->attribute.list_count == 0 || n->op == OP_SLICE)
        return false;
    int32_t *list = own_list(m, v);
    uint32_t count = n->attribute.list_count;
    if (n->op == OP_TRANSPOSE) {
        if (variant + 1 >= count)
            return false;
        int32_t kept = list[variant];
        list[variant] = list[variant + 1];
        list[variant + 1] = kept;
        return true;
    }
    uint32_t i = variant / 2;
    if (i >= count || (variant % 2 && list[i] == 0))
        return false;
    list[i] += variant % 2 ? -1 : 1;
    return true;
}

static bool other_op(struct graph *m, value v, uint32_t variant)
{
    static const op change[][2] = {{OP_ADD, OP_SUB},
                                   {OP_SUB, OP_ADD},
                                   {OP_MUL, OP_ADD},
                                   {OP_DIV, OP_MUL},
                                   {OP_EXP, OP_TANH},
                                   {OP_TANH, OP_EXP},
                                   {OP_MAX, OP_MIN},
                                   {OP_LT, OP_LE},
                                   {OP_SQRT, OP_EXP},
                                   {OP_RECIP, OP_SQRT},
                                   {OP_NEG, OP_ABS},
                                   {OP_SIN, OP_COS},
                                   {OP_COS, OP_SIN},
                                   {OP_ERF, OP_TANH},
                                   {OP_LOG, OP_EXP},
                                   {OP_POW, OP_MUL},
                                   {OP_AND, OP_OR},
                                   {OP_OR, OP_AND},
                                   {OP_LE, OP_LT},
                                   {OP_EQ, OP_LE},
                                   {OP_REDUCE_SUM, OP_REDUCE_MAX},
                                   {OP_REDUCE_MAX, OP_REDUCE_SUM},
                                   {OP_REDUCE_SUM, OP_REDUCE_MIN}};
    for (uint32_t i = 0; i < sizeof change / sizeof *change; i++)
        if (at(m, v)->op == change[i][0] && variant-- == 0) {
            at(m, v)->op = change[i][1];
            return true;
        }
    return false;
}

static bool other_number(struct graph *m, value v, uint32_t variant)
{
    struct node *n = at(m, v);
    size_t count = n->op == OP_CONSTANT ? n->attribute.data_size / dtype_size(n->dtype) : 0;
    if (n->op == OP_DIM) {
        dim *d = own_dims(m, v);
        d[0] = dim_add(m->dims, d[0], dim_const(m->dims, variant ? -1 : 1));
        return dim_valid(d[0]);
    }
    if (n->op == OP_PAD && n->attribute.dims_count > variant) {
        dim *d = own_dims(m, v);
        d[variant] = dim_sub(m->dims, d[variant], dim_const(m->dims, 1));
        return dim_valid(d[variant]) && dim_lower(m->dims, d[variant]) >= 0;
    }
    if (n->op == OP_CUMSUM || n->op == OP_TOPK) {
        n->attribute.mode ^= 1 + (int32_t)variant * (n->op == OP_CUMSUM);
        return true;
    }
    if (n->op == OP_IOTA) {
        n->attribute.axis += variant ? 1 : -1;
        return true;
    }
    if (count == 0)
        return false;
    void *data = arena_copy(m->arena, n->attribute.data, n->attribute.data_size);
    size_t i = variant ? count - 1 : 0;
    dtype_store_f64(n->dtype, data, i,
                    n->dtype == DT_BOOL ? dtype_load_f64(n->dtype, data, i) == 0
                                        : dtype_load_f64(n->dtype, data, i) * 2 + 1);
    bool same = memcmp(n->attribute.data, data, n->attribute.data_size) == 0; /* infinities are */
    n->attribute.data = data;
    return !same;
}

/* ---- weights ---- */

static bool other_param(struct graph *m, value v, uint32_t variant)
{
    struct node *n = at(m, v);
    if (n->op != OP_PARAM)
        return false;
    for (uint32_t u = 1; u < m->nodes.count; u++) {
        const struct node *o = at(m, u);
        bool same =
            o->op == OP_PARAM && (o->attribute.index != n->attribute.index || o->attribute.mode != n->attribute.mode) &&
            o->rank == n->rank && o->dtype == n->dtype && memcmp(o->shape, n->shape, n->rank * sizeof *n->shape) == 0;
        if (same && variant-- == 0) {
            n->attribute.index = o->attribute.index;
            n->attribute.mode = o->attribute.mode;
            return true;
        }
    }
    return false;
}

static struct intervals *own_intervals(struct graph *m, struct shard *s)
{
    struct intervals *of = arena_copy(m->arena, s->of, (size_t)s->rank * m->mesh.ranks * sizeof *of);
    for (uint32_t i = 0; i < s->rank * m->mesh.ranks; i++)
        of[i].at = arena_copy(m->arena, of[i].at, of[i].count * sizeof *of[i].at);
    s->of = of;
    return of;
}

/* Two ranks' intervals on one axis change places; or one interval moves by one; or two intervals of a rank are swapped. */
static bool other_shard(struct graph *m, value v, uint32_t variant)
{
    const struct node *n = at(m, v);
    if (n->op != OP_PARAM || n->attribute.mode == 0)
        return false;
    struct shard *s = &m->shards.at[n->attribute.mode - 1];
    uint32_t axis = variant / 4 % 2, ranks = m->mesh.ranks;
    if (axis >= s->rank)
        return false;
    struct intervals *of = own_intervals(m, s) + axis * ranks, *first = &of[0], *last = &of[ranks - 1];
    if (variant % 4 == 0) {
        bool same = first->count == last->count && memcmp(first->at, last->at, first->count * sizeof *first->at) == 0;
        struct intervals kept = *first;
        *first = *last;
        *last = kept;
        return !same;
    }
    struct intervals *one = variant % 4 == 1 ? first : last;
    if (one->count == 0)
        return false;
    if (variant % 4 == 3) {
        if (one->count < 2)
            return false;
        struct interval kept = one->at[0];
        one->at[0] = one->at[1];
        one->at[1] = kept;
        return true;
    }
    int64_t by = variant % 4 == 1 ? 1 : -1;
    one->at[0].lo += by;
    one->at[0].hi += by;
    return one->at[0].lo >= 0 && one->at[0].hi <= m->params.at[s->param].shape[axis];
}

static bool other_cuts(struct graph *m, value v, uint32_t variant)
{
    if (v >= m->partitions.count || !m->partitions.at[v].offset) /* v numbers the partition here */
        return false;
    struct partition *p = &m->partitions.at[v];
    int64_t *offset = arena_copy(m->arena, p->offset, (p->parts + 1) * sizeof *offset);
    p->offset = offset;
    uint32_t i = 1 + variant / 2;
    if (i >= p->parts)
        return false;
    offset[i] += variant % 2 ? 1 : -1;
    return offset[i] >= offset[i - 1] && offset[i] <= offset[i + 1];
}

/* ---- outputs ---- */

static bool other_output(struct graph *m, value v, uint32_t variant)
{
    if (v > m->outputs.count) /* v numbers the output here, from 1 */
        return false;
    value *out = &m->outputs.at[v - 1].value;
    if (variant == 0) {
        if (at(m, *out)->operand_count == 0)
            return false;
        *out = at(m, *out)->operand[0];
        return true;
    }
    value other = alike(m, m->nodes.count, *out, variant - 1);
    if (other != 0)
        *out = other;
    return other != 0;
}

/* ---- tables ---- */

static bool other_table(struct graph *m, value v, uint32_t variant)
{
    if (v > 1)
        return false;
    switch (variant) {
    case 0:
        return m->guards.count && m->guards.count--;
    case 1:
        return m->states.count && m->states.count--;
    case 2: {
        if (m->states.count < 2)
            return false;
        uint32_t output = m->states.at[0].output;
        m->states.at[0].output = m->states.at[1].output;
        m->states.at[1].output = output;
        return true;
    }
    case 3:
        if (m->states.count == 0)
            return false;
        m->states.at[0].appended = !m->states.at[0].appended;
        return true;
    case 4:
        m->outputs.at[0].name = "another";
        return true;
    case 5:
        m->inputs.at[0].name = "another";
        return true;
    case 6:
        m->params.at[0].offset += 4;
        return true;
    case 7:
        m->params.at[m->params.count - 1].name = "another";
        return true;
    default:
        if (m->guards.count == 0)
            return false;
        m->guards.at[0].b = dim_const(m->dims, 3);
        return true;
    }
}

const struct mutation mutations[] = {
    {"drop a collective", drop, 1, false},
    {"double a collective", twice, 1, false},
    {"another reduction", other_reduction, 4, false},
    {"another group", other_group, 7, false},
    {"another partition", other_partition, 3, false},
    {"cut another way around", cut_around, 3, false},
    {"one collective for another", exchange_collective, 3, false},
    {"a collective where none belongs", once_too_often, 2, false},
    {"reduce later", reduce_later, 3, false},
    {"reduce sooner", reduce_sooner, 3, false},
    {"another start of a slice", other_start, 12, false},
    {"another base of an index", other_walk, 6, false},
    {"part of an axis for the whole", cut_short, 6, false},
    {"contract less", contract_less, 2, false},
    {"swap operands", swap_operands, 3, false},
    {"another operand", other_operand, 6, false},
    {"other axes", other_list, 4, false},
    {"another operation", other_op, 2, false},
    {"another number", other_number, 2, false},
    {"another weight", other_param, 3, false},
    {"another shard", other_shard, 8, false},
    {"other cuts", other_cuts, 6, false},
    {"another output", other_output, 4, false},
    {"another table", other_table, 9, true},
};
const uint32_t mutation_count = sizeof mutations / sizeof *mutations;
