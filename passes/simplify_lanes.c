/* passes/simplify_lanes.c - a group of lanes (simplify_stack.c) as one computation with an axis of lanes in front.
 *
 * Entry by entry: what lies at the border, and what is the same for all lanes, stays as it is (shared) and is spread where a lane's own value meets it; weights
 * become a stacked param, constants one constant, slices of one value that lie one behind the other that value. Start with stacked_sum.
 */
#include "passes/simplify_stack.h"

#include <stdlib.h>

enum { MOST_CONSTANT = 1 << 16 }; /* bytes, of all lanes */

struct emitting {
    struct stack *k;
    struct remaking *r;
    const struct group *group;
    value *made;  /* per entry: its value in the new graph, of all lanes or shared; 0: none */
    bool *shared; /* per entry: the same for all lanes, without their axis */
};

static const struct node *lane_node(const struct emitting *e, uint32_t lane, uint32_t entry)
{
    return node_of(e->k, e->group->lane[lane].entry[entry].at);
}

/* [lanes, shape..] */
static uint32_t with_lanes(const struct emitting *e, const struct node *n, dim *shape)
{
    shape[0] = dim_const(e->r->out->dims, e->group->count);
    memcpy(shape + 1, n->shape, n->rank * sizeof *shape);
    return n->rank + 1;
}

/* The operand for all lanes: what they share is spread. */
static value for_all(const struct emitting *e, uint32_t entry)
{
    struct graph *g = e->r->out;
    value v = e->made[entry];
    if (!e->shared[entry]) {
        return v;
    }
    dim shape[MAX_RANK];
    uint32_t rank = with_lanes(e, graph_node(g, v), shape);
    return graph_broadcast_to(g, v, rank, shape);
}

/* "experts.{0..7}.up": where the names of the first and the last part differ, both. */
static const char *common_name(struct graph *g, const char *a, const char *b)
{
    size_t front = 0, back = 0, n = strlen(a), m = strlen(b), least = n < m ? n : m;
    while (front < least && a[front] == b[front]) {
        front++;
    }
    while (back < least - front && a[n - 1 - back] == b[m - 1 - back]) {
        back++;
    }
    while (front > 0 && a[front - 1] >= '0' && a[front - 1] <= '9') { /* numbers stay in one piece */
        front--;
    }
    while (back > 0 && a[n - back] >= '0' && a[n - back] <= '9') {
        back--;
    }
    return arena_printf(g->arena, "%.*s{%.*s..%.*s}%s", (int)front, a, (int)(n - front - back), a + front,
                        (int)(m - front - back), b + front, a + n - back);
}

static value stacked_param(const struct emitting *e, uint32_t entry)
{
    struct graph *g = e->r->out;
    uint32_t lanes = e->group->count, *part = NEW_ARRAY(g->arena, uint32_t, lanes);
    const struct param *first = &g->params.at[lane_node(e, 0, entry)->attribute.index];
    int64_t *shape = NEW_ARRAY(g->arena, int64_t, first->rank + 1);
    struct param p = {.dtype = first->dtype, .rank = first->rank + 1, .shape = shape, .file = NO_FILE};
    shape[0] = lanes;
    memcpy(shape + 1, first->shape, first->rank * sizeof *shape);
    for (uint32_t i = 0; i < lanes; i++) {
        part[i] = lane_node(e, i, entry)->attribute.index;
        if (g->params.at[part[i]].part_count || e->k->stacked[part[i]]) {
            return 0; /* stacked before */
        }
        p.length += g->params.at[part[i]].length;
    }
    for (uint32_t i = 0; i < lanes; i++) {
        e->k->stacked[part[i]] = true;
    }
    p.name = common_name(g, first->name, g->params.at[part[lanes - 1]].name);
    p.part = part;
    p.part_count = lanes;
    *PUSH(g->arena, &g->params) = p;
    return graph_param(g, g->params.count - 1);
}

/* The constants of all lanes: shared when they are equal. */
static value stacked_constant(struct emitting *e, uint32_t entry)
{
    struct graph *g = e->r->out;
    const struct node *n = lane_node(e, 0, entry);
    size_t each = n->attribute.data_size, count = e->group->count;
    bool same = true;
    for (uint32_t i = 1; i < count; i++) {
        const struct node *m = lane_node(e, i, entry);
        if (m->attribute.data_size != each) {
            return 0;
        }
        same = same && (each == 0 || memcmp(m->attribute.data, n->attribute.data, each) == 0);
    }
    if (same || each * count > MOST_CONSTANT) {
        e->shared[entry] = same;
        return same ? e->r->new_of[e->group->lane[0].entry[entry].at] : 0;
    }
    char *data = arena_alloc(g->arena, each * count);
    for (uint32_t i = 0; i < count; i++) {
        memcpy(data + i * each, lane_node(e, i, entry)->attribute.data, each);
    }
    dim shape[MAX_RANK];
    uint32_t rank = with_lanes(e, n, shape);
    struct attribute a = {.data = data, .data_size = each * count};
    return graph_add(g, OP_CONSTANT, n->dtype, rank, shape, 0, NULL, &a);
}

/* Slices of one value that lie one behind the other in the lanes' order: the value itself, cut into lanes. */
static value stacked_slice(struct emitting *e, uint32_t entry, value whole)
{
    struct graph *g = e->r->out;
    const struct node *n = lane_node(e, 0, entry);
    uint32_t axis = n->rank, lanes = e->group->count;
    int64_t first, size, start;
    for (uint32_t a = 0; a < n->rank; a++) {
        if (lane_node(e, 1, entry)->attribute.dims[a] != n->attribute.dims[a]) {
            axis = axis == n->rank ? a : n->rank + 1;
        }
    }
    if (axis >= n->rank || n->attribute.list[axis] != 1 || !dim_is_const(g->dims, n->attribute.dims[axis], &first) ||
        !dim_is_const(g->dims, n->shape[axis], &size)) {
        return 0;
    }
    for (uint32_t i = 1; i < lanes; i++) {
        const struct node *m = lane_node(e, i, entry);
        for (uint32_t a = 0; a < n->rank; a++) {
            if (a != axis && m->attribute.dims[a] != n->attribute.dims[a]) {
                return 0;
            }
        }
        if (!dim_is_const(g->dims, m->attribute.dims[axis], &start) || start != first + (int64_t)i * size) {
            return 0;
        }
    }
    dim shape[MAX_RANK], parts[MAX_RANK];
    int32_t list[MAX_RANK];
    uint32_t at = 0;
    memcpy(shape, n->shape, n->rank * sizeof *shape);
    shape[axis] = dim_const(g->dims, size * lanes);
    list[0] = (int32_t)axis;
    for (uint32_t a = 0; a < n->rank; a++) {
        if (a == axis) {
            parts[at++] = dim_const(g->dims, lanes);
        }
        list[1 + a] = (int32_t)(a < axis ? a : a + 1);
        parts[at++] = n->shape[a];
    }
    whole = graph_slice(g, whole, n->attribute.dims, shape, n->attribute.list);
    return graph_transpose(g, graph_reshape(g, whole, n->rank + 1, parts), list);
}

/* The attributes of an op that has one more axis in front. False: this op cannot have it. */
static bool shift_attributes(const struct node *n, struct attribute *a, int32_t *list, dim *dims, dim zero)
{
    bool leading = n->op == OP_TRANSPOSE || n->op == OP_BROADCAST; /* the new axis is listed, too */
    uint32_t step = leading || n->op == OP_SLICE;
    *a = n->attribute;
    switch ((int)n->op) {
    case OP_DOT:
        a->nbatch++;
        return true;
    case OP_GATHER:
    case OP_SCATTER:
        a->nbatch++;
        a->axis++;
        return true;
    case OP_CONCAT:
    case OP_CUMSUM:
    case OP_TOPK:
        a->axis++;
        return true;
    case OP_RESHAPE:
        return true;
    case OP_TRANSPOSE:
    case OP_BROADCAST:
    case OP_SLICE:
    case OP_REVERSE:
    case OP_REDUCE_SUM:
    case OP_REDUCE_PROD:
    case OP_REDUCE_MAX:
    case OP_REDUCE_MIN:
        list[0] = n->op == OP_SLICE ? 1 : 0;
        for (uint32_t i = 0; i < a->list_count; i++) {
            list[i + step] = a->list[i] + (n->op == OP_SLICE ? 0 : 1);
        }
        a->list = list;
        a->list_count += step;
        break;
    default:
        return op_info(n->op)->class == CLASS_POINTWISE;
    }
    if (n->op == OP_SLICE) {
        dims[0] = zero;
        memcpy(dims + 1, a->dims, a->dims_count * sizeof *dims);
        a->dims = dims;
        a->dims_count++;
    }
    return true;
}

static value stacked_op(struct emitting *e, uint32_t entry, const uint32_t *operand)
{
    struct graph *g = e->r->out;
    const struct node *n = lane_node(e, 0, entry);
    bool shared = true, same = true;
    for (uint32_t i = 0; i < n->operand_count; i++) {
        shared = shared && e->shared[operand[i]];
    }
    for (uint32_t i = 1; n->op == OP_SLICE && i < e->group->count; i++) {
        same = same &&
               !memcmp(lane_node(e, i, entry)->attribute.dims, n->attribute.dims, n->rank * sizeof *n->attribute.dims);
    }
    if (shared && same) {
        e->shared[entry] = true;
        return e->r->new_of[e->group->lane[0].entry[entry].at];
    }
    if (!same) {
        return shared ? stacked_slice(e, entry, e->made[operand[0]]) : 0;
    }
    int32_t list[MAX_RANK + 1];
    dim dims[MAX_RANK + 1], shape[MAX_RANK];
    struct attribute a;
    if (!shift_attributes(n, &a, list, dims, dim_const(g->dims, 0))) {
        return 0;
    }
    value *in = NEW_ARRAY(e->k->arena, value, n->operand_count);
    for (uint32_t i = 0; i < n->operand_count; i++) {
        in[i] = for_all(e, operand[i]);
    }
    uint32_t rank = with_lanes(e, n, shape);
    return graph_add(g, n->op, n->dtype, rank, shape, n->operand_count, in, &a);
}

static value stacked_entry(struct emitting *e, uint32_t entry)
{
    const struct entry *first = &e->group->lane[0].entry[entry];
    const struct node *n = node_of(e->k, first->at);
    if (!first->inside || n->op == OP_IOTA || n->op == OP_DIM) {
        e->shared[entry] = true;
        return e->r->new_of[first->at];
    }
    if (n->rank + 1 > MAX_RANK) {
        return 0;
    }
    if (n->op == OP_PARAM || n->op == OP_CONSTANT) {
        return n->op == OP_PARAM ? stacked_param(e, entry) : stacked_constant(e, entry);
    }
    uint32_t *operand = NEW_ARRAY(e->k->arena, uint32_t, n->operand_count);
    for (uint32_t i = 0; i < n->operand_count; i++) {
        operand[i] = e->k->number[n->operand[i]] - 1;
    }
    return stacked_op(e, entry, operand);
}

static int ascending(const void *a, const void *b)
{
    value x = *(const value *)a, y = *(const value *)b;
    return (x > y) - (x < y);
}

value stacked_sum(struct stack *k, struct remaking *r, const struct group *group)
{
    const struct lane *lane = &group->lane[0];
    struct emitting e = {k, r, group, NEW_ARRAY(k->arena, value, lane->count), NEW_ARRAY(k->arena, bool, lane->count)};
    value *sorted = NEW_ARRAY(k->arena, value, lane->count), sum = 0;
    for (uint32_t i = 0; i < lane->count; i++) {
        k->number[lane->entry[i].at] = i + 1;
        sorted[i] = lane->entry[i].at;
    }
    qsort(sorted, lane->count, sizeof *sorted, ascending); /* operands have smaller numbers */
    uint32_t made = 0;
    for (; made < lane->count; made++) {
        uint32_t entry = k->number[sorted[made]] - 1;
        e.made[entry] = stacked_entry(&e, entry);
        if (e.made[entry] == 0) {
            break;
        }
    }
    for (uint32_t i = 0; i < lane->count; i++) {
        k->number[lane->entry[i].at] = 0;
    }
    if (made == lane->count && !e.shared[0]) {
        sum = graph_reduce(r->out, OP_REDUCE_SUM, e.made[0], 1, (const int32_t[]){0});
    }
    return sum;
}
