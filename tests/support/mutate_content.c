/* tests/support/mutate_content.c - wrong operands, attributes, weights, outputs and tables. */
#include "tests/support/mutate_impl.h"

/* ---- operands and attributes ---- */

bool mutate_swap_operands(struct graph *m, value v, uint32_t variant)
{
    struct node *n = mutant_node(m, v);
    uint32_t i = variant, k = variant + 1;
    if (n->operand_count <= k || n->operand[i] == n->operand[k])
        return false;
    if (n->op == OP_ADD || n->op == OP_MUL || n->op == OP_MAX || n->op == OP_MIN || n->op == OP_EQ || n->op == OP_AND ||
        n->op == OP_OR || n->op == OP_XOR)
        return false; /* the same */
    value a = n->operand[i], b = n->operand[k];
    mutant_set_operand(m, v, i, b);
    mutant_set_operand(m, v, k, a);
    return true;
}

bool mutate_other_operand(struct graph *m, value v, uint32_t variant)
{
    uint32_t i = variant % 3;
    if (mutant_node(m, v)->operand_count <= i)
        return false;
    value other = mutant_alike(m, v, mutant_node(m, v)->operand[i], variant / 3);
    if (other != 0)
        mutant_set_operand(m, v, i, other);
    return other != 0;
}

bool mutate_other_list(struct graph *m, value v, uint32_t variant)
{
    struct node *n = mutant_node(m, v);
    if (n->attribute.list_count == 0 || n->op == OP_SLICE)
        return false;
    int32_t *list = mutant_own_list(m, v);
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

bool mutate_other_op(struct graph *m, value v, uint32_t variant)
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
        if (mutant_node(m, v)->op == change[i][0] && variant-- == 0) {
            mutant_node(m, v)->op = change[i][1];
            return true;
        }
    return false;
}

bool mutate_other_number(struct graph *m, value v, uint32_t variant)
{
    struct node *n = mutant_node(m, v);
    size_t count = n->op == OP_CONSTANT ? n->attribute.data_size / dtype_size(n->dtype) : 0;
    if (n->op == OP_DIM) {
        dim *d = mutant_own_dims(m, v);
        d[0] = dim_add(m->dims, d[0], dim_const(m->dims, variant ? -1 : 1));
        return dim_valid(d[0]);
    }
    if (n->op == OP_PAD && n->attribute.dims_count > variant) {
        dim *d = mutant_own_dims(m, v);
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

bool mutate_other_param(struct graph *m, value v, uint32_t variant)
{
    struct node *n = mutant_node(m, v);
    if (n->op != OP_PARAM)
        return false;
    for (uint32_t u = 1; u < m->nodes.count; u++) {
        const struct node *o = mutant_node(m, u);
        bool same = o->op == OP_PARAM &&
                    (o->attribute.index != n->attribute.index || o->attribute.mode != n->attribute.mode) &&
                    o->rank == n->rank && o->dtype == n->dtype &&
                    (n->rank == 0 || memcmp(o->shape, n->shape, n->rank * sizeof *n->shape) == 0);
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
bool mutate_other_shard(struct graph *m, value v, uint32_t variant)
{
    const struct node *n = mutant_node(m, v);
    if (n->op != OP_PARAM || n->attribute.mode == 0)
        return false;
    struct shard *s = &m->shards.at[n->attribute.mode - 1];
    uint32_t axis = variant / 4 % 2, ranks = m->mesh.ranks;
    if (axis >= s->rank)
        return false;
    struct intervals *of = own_intervals(m, s) + axis * ranks, *first = &of[0], *last = &of[ranks - 1];
    if (variant % 4 == 0) {
        bool same = first->count == last->count &&
                    (first->count == 0 || memcmp(first->at, last->at, first->count * sizeof *first->at) == 0);
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

bool mutate_other_cuts(struct graph *m, value v, uint32_t variant)
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

bool mutate_other_output(struct graph *m, value v, uint32_t variant)
{
    if (v > m->outputs.count) /* v numbers the output here, from 1 */
        return false;
    value *out = &m->outputs.at[v - 1].value;
    if (variant == 0) {
        if (mutant_node(m, *out)->operand_count == 0)
            return false;
        *out = mutant_node(m, *out)->operand[0];
        return true;
    }
    value other = mutant_alike(m, m->nodes.count, *out, variant - 1);
    if (other != 0)
        *out = other;
    return other != 0;
}

/* ---- tables ---- */

/* A stacked weight whose first two parts change places. */
static bool swap_parts(struct graph *m)
{
    for (uint32_t i = 0; i < m->params.count; i++) {
        struct param *p = &m->params.at[i];
        if (p->part_count < 2)
            continue;
        uint32_t *part = arena_copy(m->arena, p->part, p->part_count * sizeof *part);
        part[0] = p->part[1];
        part[1] = p->part[0];
        p->part = part;
        return true;
    }
    return false;
}

bool mutate_other_table(struct graph *m, value v, uint32_t variant)
{
    if (v > 1 || (variant == 5 && m->inputs.count == 0) || ((variant == 6 || variant == 7) && m->params.count == 0))
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
    case 8:
        if (m->guards.count == 0)
            return false;
        m->guards.at[0].b = dim_const(m->dims, 3);
        return true;
    default:
        return swap_parts(m);
    }
}
