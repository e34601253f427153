/* passes/check_rules.c - what a Program node is, given what its operands are: one rule per rule name of ops.def.
 *
 * A rule sees the original node and the Program's node (c->at), which has the same op, and answers with the layout of its result, or a fault.
 * Start reading at check_row().
 */
#include "passes/check.h"

static const struct node *here(const struct checker *c)
{
    return graph_node(c->program, c->at);
}
static const struct known *operand(const struct checker *c, uint32_t i)
{
    return &c->known[here(c)->operand[i]];
}
static struct dims *dims(const struct checker *c)
{
    return c->program->dims;
}

static bool same_axes(const struct known *a, uint32_t i, const struct known *b, uint32_t k)
{
    return span_same(&a->axis[i], &b->axis[k]);
}

/* Sums that pass: `kind` and `mask` of the result from those of the operands, by the row's linearity. */
static status pass_partial(struct checker *c, const struct node *n, struct known *out)
{
    op_linear linear = op_info(n->op)->linear;
    if (n->op == OP_DIV && !dtype_is_float(n->dtype)) {
        linear = LINEAR_NONE;
    }
    uint32_t partial = 0, whole = 0;
    for (uint32_t i = 0; i < n->operand_count; i++) {
        const struct known *k = operand(c, i);
        if (k->kind == 0) {
            whole++;
            continue;
        }
        partial++;
        if (k->kind != REDUCTION_SUM || (partial > 1 && k->mask != out->mask)) {
            return check_fault(c, "operand %u is a term of another sum than the rest", i);
        }
        if (linear == LINEAR_NONE || linear == LINEAR_MONOTONE || (linear == LINEAR_FIRST && i > 0)) {
            return check_fault(c, "operand %u is only a term of a sum, which %s does not pass on", i,
                               op_info(n->op)->text);
        }
        out->kind = REDUCTION_SUM;
        out->mask = k->mask;
    }
    if (partial > 0 && linear == LINEAR_ALL && whole > 0) {
        return check_fault(c, "adds terms of a sum to something that every rank has whole");
    }
    if (partial > 1 && linear == LINEAR_EACH) {
        return check_fault(c, "multiplies two sums term by term");
    }
    for (uint32_t i = 0; i < n->operand_count && partial > 0; i++) {
        for (uint32_t a = 0; a < operand(c, i)->rank; a++) {
            if (operand(c, i)->kind == 0 && (span_mask(c, &operand(c, i)->axis[a]) & out->mask) != 0) {
                return check_fault(c, "operand %u is cut over the ranks that hold terms of operand's sum", i);
            }
        }
    }
    return TPC_OK;
}

static status begin_sum(struct checker *c, struct known *out, int32_t kind, uint32_t mask)
{
    if (mask == 0) {
        return TPC_OK;
    }
    if (out->kind != 0 && (out->kind != kind || (out->mask & mask) != 0)) {
        return check_fault(c, "begins a sum over ranks that hold terms of another");
    }
    out->kind = kind;
    out->mask |= mask;
    return TPC_OK;
}

static status row_pointwise(struct checker *c, const struct node *n, struct known *out)
{
    if (here(c)->attribute.mode != n->attribute.mode) {
        return check_fault(c, "has another mode");
    }
    for (uint32_t i = 0; i < n->operand_count; i++) {
        for (uint32_t a = 0; a < n->rank; a++) {
            if (!same_axes(operand(c, i), a, operand(c, 0), a)) {
                return check_fault(c, "operands 0 and %u are cut differently on axis %u", i, a);
            }
            out->axis[a] = operand(c, 0)->axis[a];
        }
    }
    return pass_partial(c, n, out);
}

static bool same_list(const struct node *a, const struct node *b)
{
    return a->attribute.list_count == b->attribute.list_count &&
           (a->attribute.list_count == 0 ||
            memcmp(a->attribute.list, b->attribute.list, a->attribute.list_count * sizeof *a->attribute.list) == 0);
}

static status row_reduce(struct checker *c, const struct node *n, struct known *out)
{
    const struct known *x = operand(c, 0);
    if (!same_list(n, here(c))) {
        return check_fault(c, "reduces other axes");
    }
    status s = pass_partial(c, n, out);
    uint32_t mask = 0, l = 0, k = 0;
    for (uint32_t a = 0; a < x->rank; a++) {
        if (l < n->attribute.list_count && n->attribute.list[l] == (int32_t)a) {
            l++;
            mask |= span_mask(c, &x->axis[a]);
            if (!span_evenly_cut(c, &x->axis[a])) {
                return check_fault(c, "sums over axis %u, of which some pieces are whole on each rank", a);
            }
        } else {
            out->axis[k++] = x->axis[a];
        }
    }
    int32_t kind = n->op == OP_REDUCE_SUM   ? REDUCTION_SUM
                   : n->op == OP_REDUCE_MAX ? REDUCTION_MAX
                   : n->op == OP_REDUCE_MIN ? REDUCTION_MIN
                                            : REDUCTION_PROD;
    return s != TPC_OK ? s : begin_sum(c, out, kind, mask);
}

static status row_dot(struct checker *c, const struct node *n, struct known *out)
{
    const struct known *x = operand(c, 0), *y = operand(c, 1);
    const struct attribute *a = &here(c)->attribute;
    if (a->nbatch != n->attribute.nbatch || a->ncontract != n->attribute.ncontract) {
        return check_fault(c, "contracts other axes");
    }
    uint32_t batch = (uint32_t)a->nbatch, contract = (uint32_t)a->ncontract, k = 0, mask = 0;
    for (uint32_t i = 0; i < batch; i++) {
        if (!same_axes(x, i, y, i)) {
            return check_fault(c, "batch axis %u is cut differently in the two operands", i);
        }
        out->axis[k++] = x->axis[i];
    }
    for (uint32_t i = batch; i < x->rank - contract; i++) {
        out->axis[k++] = x->axis[i];
    }
    for (uint32_t i = batch; i < y->rank - contract; i++) {
        out->axis[k++] = y->axis[i];
    }
    for (uint32_t i = 0; i < contract; i++) {
        const struct span *p = &x->axis[x->rank - contract + i];
        if (!span_same(p, &y->axis[y->rank - contract + i])) {
            return check_fault(c, "contracted axis %u is cut differently in the two operands", i);
        }
        if (!span_evenly_cut(c, p)) {
            return check_fault(c, "contracts axis %u, of which some pieces are whole on each rank", i);
        }
        mask |= span_mask(c, p);
    }
    status s = pass_partial(c, n, out);
    return s != TPC_OK ? s : begin_sum(c, out, REDUCTION_SUM, mask);
}

/* A walked axis that is cut by p: the mode that ignores what other ranks hold, shifted by this rank's offset. */
static bool walks_own_part(struct checker *c, uint32_t p, dim whole, bool original_checks)
{
    const struct attribute *a = &here(c)->attribute;
    return original_checks && a->mode == GATHER_ZERO && a->dims_count == 2 &&
           a->dims[0] == partition_offset(c->program, p) && a->dims[1] == whole;
}

static status same_walk(struct checker *c, const struct node *n)
{
    const struct attribute *a = &here(c)->attribute, *b = &n->attribute;
    bool same = a->mode == b->mode && a->dims_count == b->dims_count;
    for (uint32_t i = 0; same && i < a->dims_count; i++) {
        same = a->dims[i] == b->dims[i];
    }
    return same ? TPC_OK : check_fault(c, "takes other indices for valid than the original");
}

static status row_gather(struct checker *c, const struct node *n, struct known *out)
{
    const struct known *x = operand(c, 0), *ix = operand(c, 1);
    const struct attribute *a = &here(c)->attribute;
    if (a->axis != n->attribute.axis || a->nbatch != n->attribute.nbatch) {
        return check_fault(c, "gathers along another axis");
    }
    uint32_t batch = (uint32_t)a->nbatch, axis = (uint32_t)a->axis, k = 0, mask = 0;
    for (uint32_t i = 0; i < axis; i++) {
        if (i < batch && !same_axes(x, i, ix, i)) {
            return check_fault(c, "batch axis %u is cut differently in table and indices", i);
        }
        out->axis[k++] = x->axis[i];
    }
    for (uint32_t i = batch; i < ix->rank; i++) {
        out->axis[k++] = ix->axis[i];
    }
    for (uint32_t i = axis + 1; i < x->rank; i++) {
        out->axis[k++] = x->axis[i];
    }
    status s = pass_partial(c, n, out);
    if (s == TPC_OK && span_is_whole(&x->axis[axis])) {
        return same_walk(c, n);
    }
    uint32_t p = span_sole(&x->axis[axis]);
    if (p == 0 ||
        !walks_own_part(c, p, graph_node(c->graph, n->operand[0])->shape[axis], n->attribute.mode == GATHER_CHECK)) {
        return check_fault(c, "gathers along a cut axis, but not just the rank's own part");
    }
    mask = c->program->partitions.at[p].subaxes;
    return s != TPC_OK ? s : begin_sum(c, out, REDUCTION_SUM, mask);
}

static status row_scatter(struct checker *c, const struct node *n, struct known *out)
{
    const struct known *x = operand(c, 0), *ix = operand(c, 1), *u = operand(c, 2);
    const struct attribute *a = &here(c)->attribute;
    uint32_t batch = (uint32_t)a->nbatch, axis = (uint32_t)a->axis, k = 0;
    if (a->axis != n->attribute.axis || a->nbatch != n->attribute.nbatch || !span_is_whole(&x->axis[axis])) {
        return check_fault(c, "scatters along another axis, or along one that is cut");
    }
    for (uint32_t i = 0; i < x->rank; i++) {
        out->axis[i] = x->axis[i];
        if (i == axis) {
            for (uint32_t q = batch; q < ix->rank; q++, k++) {
                if (!span_is_whole(&ix->axis[q]) || !span_is_whole(&u->axis[k])) {
                    return check_fault(c, "scatters by indices of which a rank has a part");
                }
            }
        } else if (!same_axes(x, i, u, k++) || (i < batch && !same_axes(x, i, ix, i))) {
            return check_fault(c, "axis %u is cut differently in operand, indices and updates", i);
        }
    }
    status s = pass_partial(c, n, out);
    return s != TPC_OK ? s : same_walk(c, n);
}

static status row_reshape(struct checker *c, const struct node *n, struct known *out)
{
    if (!span_reshape(c, operand(c, 0)->rank, operand(c, 0)->axis, n->rank, n->shape, out->axis)) {
        return check_fault(c, "what a rank holds is no part of the reshaped value");
    }
    return pass_partial(c, n, out);
}

static status row_transpose(struct checker *c, const struct node *n, struct known *out)
{
    for (uint32_t i = 0; i < n->rank; i++) {
        out->axis[i] = operand(c, 0)->axis[n->attribute.list[i]];
    }
    return same_list(n, here(c)) ? pass_partial(c, n, out) : check_fault(c, "permutes otherwise");
}

/* New and grown axes repeat what is there: any part of them is as good as its extent. The claim says which. */
static status row_broadcast(struct checker *c, const struct node *n, struct known *out)
{
    const struct known *x = operand(c, 0);
    const struct node *whole = graph_node(c->graph, n->operand[0]);
    const struct placement *claim = c->claims->result[out->original];
    if (!same_list(n, here(c))) {
        return check_fault(c, "spreads along other axes");
    }
    for (uint32_t i = 0; i < n->rank; i++) {
        out->axis[i] = span_of_claim(c, &claim->axis[i]);
    }
    for (uint32_t i = 0; i < x->rank; i++) {
        uint32_t to = (uint32_t)n->attribute.list[i];
        if (whole->shape[i] == n->shape[to]) {
            out->axis[to] = x->axis[i];
        } else if (!span_is_whole(&x->axis[i])) {
            return check_fault(c, "spreads axis %u, which is cut", i);
        }
    }
    return pass_partial(c, n, out);
}

static status row_slice(struct checker *c, const struct node *n, struct known *out)
{
    const struct known *x = operand(c, 0);
    const struct attribute *a = &here(c)->attribute;
    if (!same_list(n, here(c))) {
        return check_fault(c, "takes other steps");
    }
    for (uint32_t i = 0; i < n->rank; i++) {
        if (span_is_whole(&x->axis[i])) {
            out->axis[i] = span_whole(c, n->shape[i]);
            if (a->dims[i] != n->attribute.dims[i]) {
                return check_fault(c, "begins elsewhere on axis %u", i);
            }
            continue;
        }
        dim start = DIM_NONE;
        struct span s;
        if (n->attribute.list[i] != 1 ||
            !span_slice_whole(c, &x->axis[i], n->attribute.dims[i], n->shape[i], &s, &start)) {
            return check_fault(c, "slices through what is cut on axis %u", i);
        }
        if (start != a->dims[i]) {
            return check_fault(c, "begins elsewhere on axis %u", i);
        }
        out->axis[i] = span_normal(c, &s);
    }
    return pass_partial(c, n, out);
}

static status row_concat(struct checker *c, const struct node *n, struct known *out)
{
    uint32_t axis = (uint32_t)n->attribute.axis;
    if (here(c)->attribute.axis != n->attribute.axis) {
        return check_fault(c, "joins along another axis");
    }
    dim shift = dim_const(dims(c), 0);
    for (uint32_t i = 0; i < n->operand_count; i++) {
        const struct known *x = operand(c, i);
        for (uint32_t a = 0; a < n->rank; a++) {
            if (a != axis && !same_axes(x, a, operand(c, 0), a)) {
                return check_fault(c, "operands 0 and %u are cut differently on axis %u", i, a);
            }
            if (i == 0) {
                out->axis[a] = x->axis[a];
            } else if (a == axis) {
                out->axis[a] = span_join(c, &out->axis[a], &x->axis[a], shift);
            }
        }
        shift = dim_add(dims(c), shift, graph_node(c->graph, n->operand[i])->shape[axis]);
    }
    out->axis[axis] = span_normal(c, &out->axis[axis]);
    return pass_partial(c, n, out);
}

static status row_pad(struct checker *c, const struct node *n, struct known *out)
{
    const struct known *x = operand(c, 0);
    const struct node *whole = graph_node(c->graph, n->operand[0]);
    for (uint32_t i = 0; i < n->rank; i++) {
        bool untouched = dim_is(dims(c), n->attribute.dims[i], 0) && whole->shape[i] == n->shape[i];
        if (here(c)->attribute.dims[i] != n->attribute.dims[i] || (!untouched && !span_is_whole(&x->axis[i]))) {
            return check_fault(c, "pads axis %u otherwise, or where it is cut", i);
        }
        out->axis[i] = untouched ? x->axis[i] : span_whole(c, n->shape[i]);
    }
    return pass_partial(c, n, out);
}

static status row_reverse(struct checker *c, const struct node *n, struct known *out)
{
    for (uint32_t i = 0; i < n->rank; i++) {
        out->axis[i] = operand(c, 0)->axis[i];
    }
    for (uint32_t l = 0; l < n->attribute.list_count; l++) {
        if (!span_is_whole(&out->axis[n->attribute.list[l]])) {
            return check_fault(c, "reverses axis %d, which is cut", n->attribute.list[l]);
        }
    }
    return same_list(n, here(c)) ? pass_partial(c, n, out) : check_fault(c, "reverses other axes");
}

static status row_window(struct checker *c, const struct node *n, struct known *out)
{
    const struct known *x = operand(c, 0);
    uint32_t axis = (uint32_t)n->attribute.axis;
    if (here(c)->attribute.axis != n->attribute.axis || !same_list(n, here(c)) || !span_is_whole(&x->axis[axis])) {
        return check_fault(c, "takes windows of another axis, or of one that is cut");
    }
    for (uint32_t i = 0, k = 0; i < x->rank; i++, k++) {
        if (i == axis) {
            out->axis[k++] = span_whole(c, n->shape[i]);
            out->axis[k] = span_whole(c, n->shape[i + 1]);
        } else {
            out->axis[k] = x->axis[i];
        }
    }
    return pass_partial(c, n, out);
}

static status row_along(struct checker *c, const struct node *n, struct known *out)
{ /* cumsum, topk */
    const struct known *x = operand(c, 0);
    uint32_t axis = (uint32_t)n->attribute.axis;
    if (here(c)->attribute.axis != n->attribute.axis || here(c)->attribute.mode != n->attribute.mode ||
        !span_is_whole(&x->axis[axis])) {
        return check_fault(c, "goes along another axis, or along one that is cut");
    }
    for (uint32_t i = 0; i < n->rank; i++) {
        out->axis[i] = i == axis ? span_whole(c, n->shape[i]) : x->axis[i];
    }
    return pass_partial(c, n, out);
}

status check_row(struct checker *c, value original, const struct node *n, struct known *out)
{
    *out = (struct known){.original = original, .rank = n->rank};
    if (here(c)->dtype != n->dtype || here(c)->operand_count != n->operand_count) {
        return check_fault(c, "has another type or number of operands than the original");
    }
    if (op_info(n->op)->class == CLASS_POINTWISE) {
        return row_pointwise(c, n, out);
    }
    switch ((int)n->op) {
    case OP_REDUCE_SUM:
    case OP_REDUCE_PROD:
    case OP_REDUCE_MAX:
    case OP_REDUCE_MIN:
        return row_reduce(c, n, out);
    case OP_DOT:
        return row_dot(c, n, out);
    case OP_GATHER:
        return row_gather(c, n, out);
    case OP_SCATTER:
        return row_scatter(c, n, out);
    case OP_RESHAPE:
        return row_reshape(c, n, out);
    case OP_TRANSPOSE:
        return row_transpose(c, n, out);
    case OP_BROADCAST:
        return row_broadcast(c, n, out);
    case OP_SLICE:
        return row_slice(c, n, out);
    case OP_CONCAT:
        return row_concat(c, n, out);
    case OP_PAD:
        return row_pad(c, n, out);
    case OP_REVERSE:
        return row_reverse(c, n, out);
    case OP_WINDOW:
        return row_window(c, n, out);
    case OP_CUMSUM:
    case OP_TOPK:
        return row_along(c, n, out);
    default:
        return check_fault(c, "has no rule");
    }
}

/* ---- conversions ---- */

static status convert_cut(struct checker *c, struct known *out, bool cut, bool sum)
{
    const struct attribute *a = &here(c)->attribute;
    struct span s;
    const struct partition *p = &c->program->partitions.at[a->partition];
    if (a->partition == 0 || !span_recut(c, &out->axis[a->axis], a->dims[0], p->extent, a->dims[1],
                                         cut ? 0 : a->partition, cut ? a->partition : 0, &s)) {
        return check_fault(c, "axis %d does not lie as %s takes it to", a->axis, op_info(here(c)->op)->text);
    }
    out->axis[a->axis] = s;
    if (sum) {
        if (out->kind != a->mode || (out->mask & p->subaxes) != p->subaxes) {
            return check_fault(c, "completes a sum that was not begun over those ranks");
        }
        out->mask &= ~p->subaxes;
        out->kind = out->mask == 0 ? 0 : out->kind;
    }
    return TPC_OK;
}

static status convert_slice(struct checker *c, struct known *out)
{
    const struct node *n = here(c);
    for (uint32_t i = 0; i < n->rank; i++) {
        struct span s;
        if (dim_is(dims(c), n->attribute.dims[i], 0) && n->shape[i] == span_local(c, &out->axis[i]) &&
            n->attribute.list[i] == 1) {
            continue;
        }
        if (n->attribute.list[i] != 1 || !span_slice_local(c, &out->axis[i], n->attribute.dims[i], n->shape[i], &s)) {
            return check_fault(c, "takes no whole pieces of axis %u", i);
        }
        out->axis[i] = s;
    }
    return TPC_OK;
}

static status convert_concat(struct checker *c, struct known *out)
{
    const struct node *n = here(c);
    uint32_t axis = (uint32_t)n->attribute.axis;
    for (uint32_t i = 1; i < n->operand_count; i++) {
        const struct known *x = operand(c, i);
        bool same = x->original == out->original && x->kind == out->kind && x->mask == out->mask;
        for (uint32_t a = 0; same && a < n->rank; a++) {
            same = a == axis || same_axes(x, a, out, a);
        }
        if (!same) {
            return check_fault(c, "joins pieces of different values");
        }
        out->axis[axis] = span_join(c, &out->axis[axis], &x->axis[axis], dim_const(dims(c), 0));
    }
    out->axis[axis] = span_normal(c, &out->axis[axis]);
    return TPC_OK;
}

status check_conversion(struct checker *c, struct known *out)
{
    const struct node *n = here(c);
    *out = *operand(c, 0);
    switch ((int)n->op) {
    case OP_RESTRICT:
        return convert_cut(c, out, true, false);
    case OP_ALL_GATHER:
        return out->kind == 0 ? convert_cut(c, out, false, false) : check_fault(c, "gathers terms of a sum");
    case OP_REDUCE_SCATTER:
        return convert_cut(c, out, true, true);
    case OP_SLICE:
        return convert_slice(c, out);
    case OP_CONCAT:
        return convert_concat(c, out);
    case OP_ALL_REDUCE:
        if (out->kind != n->attribute.mode || n->attribute.index == 0 ||
            (out->mask & n->attribute.index) != n->attribute.index) {
            return check_fault(c, "completes a sum or maximum that was not begun over those ranks");
        }
        out->mask &= ~n->attribute.index;
        out->kind = out->mask == 0 ? 0 : out->kind;
        return TPC_OK;
    case OP_COUNT_ONCE:
        if ((out->kind != 0 && out->kind != REDUCTION_SUM) || (out->mask & n->attribute.index) != 0) {
            return check_fault(c, "is counted once though it is a term already");
        }
        out->kind = REDUCTION_SUM;
        out->mask |= n->attribute.index;
        return TPC_OK;
    default:
        return check_fault(c, "is no conversion");
    }
}
