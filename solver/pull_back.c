/* solver/pull_back.c - from the placement wanted of a result to the placement that an operand must have, for the prelude: chains of cast,
 * transpose, reshape, ... between a param and its use, masks, tables.
 *
 * Invariant: when pull_back gives a placement for every operand, computing the op on those local data gives the wanted result without
 * communication (docs/placements.md). NULL where no such placement exists: then the value is made whole and restricted. Start with pull_back.
 */
#include "solver/internal.h"

typedef LIST(struct factor) factor_list;
typedef LIST(struct segment) segment_list;

static struct axis_layout whole_axis(dim extent, struct arena *arena)
{
    struct factor *f = NEW(arena, struct factor);
    struct segment *s = NEW(arena, struct segment);
    f->extent = extent;
    *s = (struct segment){1, f};
    return (struct axis_layout){1, s};
}

/* ---- reshape ---- */

/* Regroups a flat list of factors into axes of the given extents; every cut factor must fall into one axis. */
static bool regroup(struct graph *g, const factor_list *flat, uint32_t count, const dim *extent,
                    struct axis_layout *out, struct arena *arena)
{
    uint32_t left = flat->count;
    struct factor rest = {0}; /* what is left of a whole factor */
    for (uint32_t axis = count; axis-- > 0;) {
        dim need = extent[axis];
        factor_list reversed = {0};
        while (!dim_is(g->dims, need, 1)) {
            if (!dim_valid(rest.extent)) {
                if (!left)
                    return false;
                rest = flat->at[--left];
            }
            dim quotient = dim_exact_div(g->dims, need, rest.extent);
            if (dim_valid(quotient)) {
                *PUSH(arena, &reversed) = rest;
                need = quotient;
                rest = (struct factor){0};
                continue;
            }
            quotient = rest.partition ? DIM_NONE : dim_exact_div(g->dims, rest.extent, need);
            if (!dim_valid(quotient))
                return false;
            *PUSH(arena, &reversed) = (struct factor){.extent = need};
            rest.extent = quotient;
            need = dim_const(g->dims, 1);
        }
        struct factor *f = NEW_ARRAY(arena, struct factor, reversed.count + 1);
        for (uint32_t i = 0; i < reversed.count; i++)
            f[i] = reversed.at[reversed.count - 1 - i];
        if (!reversed.count)
            f[0].extent = extent[axis];
        struct segment *s = NEW(arena, struct segment);
        *s = (struct segment){reversed.count ? reversed.count : 1, f};
        out[axis] = (struct axis_layout){1, s};
    }
    return !left && (!dim_valid(rest.extent) || dim_is(g->dims, rest.extent, 1));
}

/* Result axes [b0, b1) with layouts -> operand axes [a0, a1). */
static bool group_back(struct graph *g, const struct node *from, uint32_t a0, uint32_t a1, const struct node *to,
                       uint32_t b0, uint32_t b1, const struct placement *p, struct axis_layout *out,
                       struct arena *arena)
{
    if (a1 - a0 == 1 && b1 - b0 == 1) {
        out[a0] = p->axis[b0];
        return true;
    }
    bool whole = true, single = true;
    for (uint32_t i = b0; i < b1; i++) {
        whole = whole && axis_is_whole(&p->axis[i]);
        single = single && p->axis[i].count == 1;
    }
    if (whole) {
        for (uint32_t i = a0; i < a1; i++)
            out[i] = whole_axis(from->shape[i], arena);
        return true;
    }
    factor_list tail = {0};
    for (uint32_t i = single ? b0 : b0 + 1; i < b1; i++) {
        if (p->axis[i].count != 1)
            return false;
        for (uint32_t k = 0; k < p->axis[i].segment[0].count; k++)
            if (!dim_is(g->dims, p->axis[i].segment[0].factor[k].extent, 1))
                *PUSH(arena, &tail) = p->axis[i].segment[0].factor[k];
    }
    if (single)
        return regroup(g, &tail, a1 - a0, from->shape + a0, out + a0, arena);
    if (a1 - a0 != 1 || to->rank < b1)
        return false;
    segment_list all = {0}; /* pieces of the outermost axis, each times what is inside */
    for (uint32_t i = 0; i < p->axis[b0].count; i++) {
        const struct segment *head = &p->axis[b0].segment[i];
        struct factor *f = NEW_ARRAY(arena, struct factor, head->count + tail.count);
        memcpy(f, head->factor, head->count * sizeof *f);
        if (tail.count)
            memcpy(f + head->count, tail.at, tail.count * sizeof *f);
        *PUSH(arena, &all) = (struct segment){head->count + tail.count, f};
    }
    out[a0] = (struct axis_layout){all.count, all.at};
    return true;
}

static bool reshape_back(struct graph *g, const struct node *to, const struct placement *p, struct axis_layout *out,
                         struct arena *arena)
{
    const struct node *from = graph_node(g, to->operand[0]);
    uint32_t a0 = 0, b0 = 0, a = 0, b = 0;
    int64_t x, y;
    dim one = dim_const(g->dims, 1), left = one, right = one;
    while (a < from->rank || b < to->rank) {
        if (left == right && a > a0 && b > b0) {
            if (!group_back(g, from, a0, a, to, b0, b, p, out, arena))
                return false;
            a0 = a, b0 = b;
            left = right = one;
        }
        bool behind = dim_is_const(g->dims, left, &x) && dim_is_const(g->dims, right, &y) ? x <= y : a - a0 <= b - b0;
        if (b == to->rank || (behind && a < from->rank))
            left = dim_mul(g->dims, left, from->shape[a++]);
        else
            right = dim_mul(g->dims, right, to->shape[b++]);
    }
    return (a == a0 && b == b0) || group_back(g, from, a0, a, to, b0, b, p, out, arena);
}

/* ---- pieces ---- */

/* Layout of an operand's axis of which the result takes [start, start + size): whole before and behind. */
static bool slice_back(struct graph *g, dim extent, dim start, dim size, const struct axis_layout *p,
                       struct axis_layout *out, struct arena *arena)
{
    if (axis_is_whole(p)) {
        *out = whole_axis(extent, arena);
        return true;
    }
    dim behind = dim_sub(g->dims, extent, dim_add(g->dims, start, size));
    segment_list all = {0};
    if (!dim_is(g->dims, start, 0))
        *PUSH(arena, &all) = whole_axis(start, arena).segment[0];
    for (uint32_t i = 0; i < p->count; i++)
        *PUSH(arena, &all) = p->segment[i];
    if (!dim_is(g->dims, behind, 0))
        *PUSH(arena, &all) = whole_axis(behind, arena).segment[0];
    *out = (struct axis_layout){all.count, all.at};
    return true;
}

/* The first `take` of a segment's leading factor, for pieces of merged segments (a x R). */
static bool concat_back(struct graph *g, const struct node *n, uint32_t operand, const struct axis_layout *p,
                        struct axis_layout *out, struct arena *arena)
{
    uint32_t axis = (uint32_t)n->attribute.axis;
    int64_t lo = 0, hi, size, before = 0, extent;
    for (uint32_t i = 0; i <= operand; i++) {
        if (!dim_is_const(g->dims, graph_node(g, n->operand[i])->shape[axis], &size))
            return false;
        lo += i < operand ? size : 0;
    }
    hi = lo + size;
    segment_list all = {0};
    for (uint32_t i = 0; i < p->count; i++, before += extent) {
        const struct segment *s = &p->segment[i];
        if (!dim_is_const(g->dims, segment_extent(g, s), &extent))
            return false;
        int64_t from = lo > before ? lo - before : 0, to = hi < before + extent ? hi - before : extent;
        if (from >= to)
            continue;
        int64_t lead = 1;
        if (!s->factor[0].partition)
            (void)dim_is_const(g->dims, s->factor[0].extent, &lead);
        int64_t unit = lead ? extent / lead : 1;
        if (unit < 1 || from % unit || to % unit)
            return false;
        struct factor *f = NEW_ARRAY(arena, struct factor, s->count);
        memcpy(f, s->factor, s->count * sizeof *f);
        if (!f[0].partition)
            f[0].extent = dim_const(g->dims, (to - from) / unit);
        *PUSH(arena, &all) = (struct segment){s->count, f};
    }
    if (!all.count)
        return false;
    *out = (struct axis_layout){all.count, all.at};
    return true;
}

static bool listed(const struct node *n, uint32_t axis)
{
    for (uint32_t i = 0; i < n->attribute.list_count; i++)
        if (n->attribute.list[i] == (int32_t)axis)
            return true;
    return false;
}

static bool dot_back(const struct graph *g, const struct node *n, uint32_t operand, const struct placement *p,
                     struct axis_layout *out, struct arena *arena)
{
    uint32_t nb = (uint32_t)n->attribute.nbatch, nk = (uint32_t)n->attribute.ncontract;
    const struct node *u = graph_node(g, n->operand[operand]);
    uint32_t left_rows = graph_node(g, n->operand[0])->rank - nb - nk;
    for (uint32_t i = 0; i < u->rank; i++) {
        if (i < nb)
            out[i] = p->axis[i];
        else if (i < u->rank - nk)
            out[i] = p->axis[operand == 0 ? i : i + left_rows];
        else
            out[i] = whole_axis(u->shape[i], arena);
    }
    return true;
}

static bool gather_back(const struct graph *g, const struct node *n, uint32_t operand, const struct placement *p,
                        struct axis_layout *out, struct arena *arena)
{
    uint32_t axis = (uint32_t)n->attribute.axis, nb = (uint32_t)n->attribute.nbatch;
    const struct node *u = graph_node(g, n->operand[operand]);
    uint32_t indices = graph_node(g, n->operand[1])->rank - nb;
    for (uint32_t i = 0; i < u->rank; i++) {
        if (operand == 1)
            out[i] = p->axis[i < nb ? i : i - nb + axis];
        else if (i == axis)
            out[i] = whole_axis(u->shape[i], arena);
        else
            out[i] = p->axis[i < axis ? i : i - 1 + indices];
    }
    return true;
}

static bool axes_back(struct graph *g, const struct node *n, uint32_t operand, const struct placement *p,
                      struct axis_layout *out, struct arena *arena)
{
    const struct node *u = graph_node(g, n->operand[operand]);
    uint32_t at = 0;
    if (op_info(n->op)->class == CLASS_POINTWISE) {
        memcpy(out, p->axis, n->rank * sizeof *out);
        return true;
    }
    switch ((int)n->op) {
    case OP_RESHAPE:
        return reshape_back(g, n, p, out, arena);
    case OP_TRANSPOSE:
        for (uint32_t i = 0; i < n->rank; i++)
            out[n->attribute.list[i]] = p->axis[i];
        return true;
    case OP_BROADCAST:
        for (uint32_t i = 0; i < u->rank; i++)
            out[i] = u->shape[i] == n->shape[n->attribute.list[i]] ? p->axis[n->attribute.list[i]]
                                                                   : whole_axis(u->shape[i], arena);
        return true;
    case OP_SLICE:
        for (uint32_t i = 0; i < n->rank; i++) {
            if (n->attribute.list[i] != 1 && !axis_is_whole(&p->axis[i]))
                return false;
            if (!slice_back(g, u->shape[i], n->attribute.dims[i], n->shape[i], &p->axis[i], &out[i], arena))
                return false;
        }
        return true;
    case OP_CONCAT:
        for (uint32_t i = 0; i < n->rank; i++) {
            if (i != (uint32_t)n->attribute.axis)
                out[i] = p->axis[i];
            else if (axis_is_whole(&p->axis[i]))
                out[i] = whole_axis(u->shape[i], arena);
            else if (!concat_back(g, n, operand, &p->axis[i], &out[i], arena))
                return false;
        }
        return true;
    case OP_REDUCE_SUM:
    case OP_REDUCE_MAX:
    case OP_REDUCE_MIN:
    case OP_REDUCE_PROD:
        for (uint32_t i = 0; i < u->rank; i++)
            out[i] = listed(n, i) ? whole_axis(u->shape[i], arena) : p->axis[at++];
        return true;
    case OP_DOT:
        return dot_back(g, n, operand, p, out, arena);
    case OP_GATHER:
        return gather_back(g, n, operand, p, out, arena);
    case OP_CUMSUM:
    case OP_TOPK:
        for (uint32_t i = 0; i < n->rank; i++) {
            bool along = i == (uint32_t)n->attribute.axis;
            if (along && !axis_is_whole(&p->axis[i]))
                return false;
            out[i] = along ? whole_axis(u->shape[i], arena) : p->axis[i];
        }
        return true;
    default:
        return false; /* made whole */
    }
}

static bool constant_cuts(const struct graph *g, const struct placement *p)
{
    for (uint32_t i = 0; i < p->rank; i++)
        for (uint32_t k = 0; !axis_is_whole(&p->axis[i]) && k < p->axis[i].count; k++)
            for (uint32_t f = 0; f < p->axis[i].segment[k].count; f++)
                if (!dim_is_const(g->dims, p->axis[i].segment[k].factor[f].extent, NULL))
                    return false;
    return true;
}

const struct placement *pull_back(struct graph *g, value v, uint32_t i, const struct placement *p, struct arena *arena)
{
    const struct node *n = graph_node(g, v), *u = graph_node(g, n->operand[i]);
    if (p->partial)
        return NULL;
    if (placement_is_whole(p))
        return placement_whole(arena, u->rank, u->shape);
    struct axis_layout *axis = NEW_ARRAY(arena, struct axis_layout, u->rank + 1);
    if (!axes_back(g, n, i, p, axis, arena))
        return NULL;
    struct placement *out = NEW(arena, struct placement);
    out->rank = u->rank;
    out->axis = axis;
    if (u->op == OP_PARAM && !constant_cuts(g, out))
        return NULL; /* what a rank reads of a file is known before it runs */
    return placement_normalise(g, out, arena);
}
