/* ir/interpret_layout.c - the interpreter's rows that only move elements: every one is a copy with strides. */
#include "ir/interpret_row.h"

/* ---- shapes ---- */

bool shape_elements(uint32_t rank, const int64_t *shape, int64_t *elements)
{
    int64_t product = 1;
    bool empty = false, fits = true;
    for (uint32_t k = 0; k < rank; k++) {
        if (shape[k] < 0)
            return false;
        empty |= shape[k] == 0;
        fits = fits && i64_mul(product, shape[k], &product);
    }
    *elements = empty ? 0 : product;
    return empty || fits;
}

void shape_strides(uint32_t rank, const int64_t *shape, int64_t *strides)
{
    int64_t step = 1;
    for (uint32_t k = rank; k-- > 0;) {
        strides[k] = step;
        if (!i64_mul(step, shape[k] > 0 ? shape[k] : 1, &step)) /* of a huge shape that is empty: never used */
            step = 0;
    }
}

bool same_shape(const struct tensor *a, const struct tensor *b)
{
    bool same = a->dtype == b->dtype && a->rank == b->rank;
    for (uint32_t k = 0; same && k < a->rank; k++)
        same = a->shape[k] == b->shape[k];
    return same;
}

/* ---- copying ---- */

void copy_elements(const struct copy *c, const void *from, void *to)
{
    int64_t index[MAX_RANK] = {0}, in = c->from_start, out = c->to_start;
    for (uint32_t k = 0; k < c->rank; k++)
        if (c->shape[k] == 0)
            return;
    for (;;) {
        memcpy((char *)to + out * (int64_t)c->size, (const char *)from + in * (int64_t)c->size, c->size);
        uint32_t k = c->rank;
        while (k > 0 && ++index[k - 1] == c->shape[k - 1]) { /* carry into the next axis outwards */
            k--;
            in -= (c->shape[k] - 1) * c->from_step[k];
            out -= (c->shape[k] - 1) * c->to_step[k];
            index[k] = 0;
        }
        if (k == 0)
            return;
        in += c->from_step[k - 1];
        out += c->to_step[k - 1];
    }
}

/* A copy into all of the result, in its order; from_step is to be filled. */
static struct copy into_result(const struct row *r)
{
    struct copy c = {.size = dtype_size(r->result->dtype), .rank = r->result->rank};
    memcpy(c.shape, r->result->shape, sizeof c.shape);
    shape_strides(c.rank, c.shape, c.to_step);
    return c;
}

static status same_type(struct row *r)
{
    for (uint32_t k = 0; k < r->node->operand_count; k++)
        if (r->operand[k]->dtype != r->result->dtype)
            return row_broken(r, "gives %s from %s", dtype_name(r->result->dtype), dtype_name(r->operand[k]->dtype));
    return TPC_OK;
}

static status shape_differs(struct row *r)
{
    return row_broken(r, "%s does not come from %s", tensor_type_text(r->result, r->scratch),
                      tensor_type_text(r->operand[0], r->scratch));
}

/* ---- rows ---- */

status row_iota(struct row *r)
{
    const struct tensor *t = r->result;
    int32_t axis = r->node->attribute.axis;
    int64_t strides[MAX_RANK];
    if (axis < 0 || (uint32_t)axis >= t->rank)
        return row_broken(r, "axis %d of rank %u", (int)axis, (unsigned)t->rank);
    shape_strides(t->rank, t->shape, strides);
    for (size_t i = 0; i < t->count; i++)
        dtype_store_i64(t->dtype, t->data, i, (int64_t)i / strides[axis] % t->shape[axis]);
    return TPC_OK;
}

status row_reshape(struct row *r)
{
    if (same_type(r) != TPC_OK || tensor_bytes(r->operand[0]) != tensor_bytes(r->result))
        return shape_differs(r);
    if (tensor_bytes(r->result))
        memcpy(r->result->data, r->operand[0]->data, tensor_bytes(r->result));
    return TPC_OK;
}

status row_transpose(struct row *r)
{
    const struct tensor *a = r->operand[0];
    const struct attribute *at = &r->node->attribute;
    struct copy c = into_result(r);
    int64_t strides[MAX_RANK];
    uint32_t seen = 0;
    if (same_type(r) != TPC_OK || at->list_count != a->rank || c.rank != a->rank)
        return shape_differs(r);
    shape_strides(a->rank, a->shape, strides);
    for (uint32_t k = 0; k < c.rank; k++) {
        int32_t axis = at->list[k];
        if (axis < 0 || (uint32_t)axis >= a->rank || seen >> axis & 1 || a->shape[axis] != c.shape[k])
            return shape_differs(r);
        seen |= 1u << axis;
        c.from_step[k] = strides[axis];
    }
    copy_elements(&c, a->data, r->result->data);
    return TPC_OK;
}

status row_broadcast(struct row *r)
{
    const struct tensor *a = r->operand[0];
    const struct attribute *at = &r->node->attribute;
    struct copy c = into_result(r);
    int64_t strides[MAX_RANK];
    if (same_type(r) != TPC_OK || at->list_count != a->rank)
        return shape_differs(r);
    shape_strides(a->rank, a->shape, strides);
    for (uint32_t k = 0; k < a->rank; k++) {
        int32_t axis = at->list[k];
        if (axis < 0 || (uint32_t)axis >= c.rank || (k && axis <= at->list[k - 1]))
            return shape_differs(r);
        if (a->shape[k] != 1 && a->shape[k] != c.shape[axis])
            return shape_differs(r);
        c.from_step[axis] = a->shape[k] == 1 ? 0 : strides[k];
    }
    copy_elements(&c, a->data, r->result->data);
    return TPC_OK;
}

status row_slice(struct row *r)
{
    const struct tensor *a = r->operand[0];
    const struct attribute *at = &r->node->attribute;
    struct copy c = into_result(r);
    int64_t strides[MAX_RANK], start, last;
    if (same_type(r) != TPC_OK || c.rank != a->rank || at->list_count != a->rank)
        return shape_differs(r);
    shape_strides(a->rank, a->shape, strides);
    for (uint32_t k = 0; k < c.rank; k++) {
        status s = row_dim(r, k, &start);
        if (s != TPC_OK)
            return s;
        int64_t step = at->list[k];
        bool fits = step >= 1 && start >= 0;
        if (fits && c.shape[k] > 0)
            fits = i64_mul(c.shape[k] - 1, step, &last) && i64_add(last, start, &last) && last < a->shape[k];
        if (!fits)
            return row_refused(r, "axis %u: %lld elements from %lld on in steps of %lld, of %lld", (unsigned)k,
                               (long long)c.shape[k], (long long)start, (long long)step, (long long)a->shape[k]);
        c.from_step[k] = c.shape[k] ? step * strides[k] : 0;
        c.from_start += c.shape[k] ? start * strides[k] : 0;
    }
    copy_elements(&c, a->data, r->result->data);
    return TPC_OK;
}

status row_concat(struct row *r)
{
    const struct tensor *t = r->result;
    int32_t axis = r->node->attribute.axis;
    int64_t at = 0;
    if (same_type(r) != TPC_OK || axis < 0 || (uint32_t)axis >= t->rank)
        return shape_differs(r);
    for (uint32_t i = 0; i < r->node->operand_count; i++) {
        const struct tensor *a = r->operand[i];
        struct copy c = into_result(r);
        for (uint32_t k = 0; k < t->rank; k++)
            if (a->rank != t->rank || (k != (uint32_t)axis && a->shape[k] != t->shape[k]))
                return row_broken(r, "operand %u is %s", (unsigned)i, tensor_type_text(a, r->scratch));
        if (a->shape[axis] > t->shape[axis] - at)
            return shape_differs(r);
        c.shape[axis] = a->shape[axis];
        c.to_start = at * c.to_step[axis];
        shape_strides(a->rank, a->shape, c.from_step);
        copy_elements(&c, a->data, t->data);
        at += a->shape[axis];
    }
    return at == t->shape[axis] ? TPC_OK : shape_differs(r);
}

status row_pad(struct row *r)
{
    const struct tensor *a = r->operand[0], *fill = r->operand[1], *t = r->result;
    struct copy background = into_result(r), c = into_result(r);
    int64_t before;
    if (same_type(r) != TPC_OK || fill->rank != 0 || a->rank != t->rank)
        return shape_differs(r);
    for (uint32_t k = 0; k < t->rank; k++) {
        status s = row_dim(r, k, &before);
        if (s != TPC_OK)
            return s;
        if (before < 0 || before > t->shape[k] || a->shape[k] > t->shape[k] - before)
            return row_refused(r, "axis %u: %lld elements behind %lld padded ones do not fit into %lld", (unsigned)k,
                               (long long)a->shape[k], (long long)before, (long long)t->shape[k]);
        c.shape[k] = a->shape[k];
        c.to_start += before * c.to_step[k];
    }
    shape_strides(a->rank, a->shape, c.from_step);
    copy_elements(&background, fill->data, t->data); /* its from_step is 0 everywhere */
    copy_elements(&c, a->data, t->data);
    return TPC_OK;
}

status row_reverse(struct row *r)
{
    const struct tensor *a = r->operand[0];
    struct copy c = into_result(r);
    if (!same_shape(a, r->result))
        return shape_differs(r);
    shape_strides(a->rank, a->shape, c.from_step);
    for (uint32_t i = 0; i < r->node->attribute.list_count; i++) {
        int32_t axis = r->node->attribute.list[i];
        if (axis < 0 || (uint32_t)axis >= a->rank || c.from_step[axis] < 0)
            return row_broken(r, "axis %d of rank %u", (int)axis, (unsigned)a->rank);
        c.from_start += a->shape[axis] > 0 ? (a->shape[axis] - 1) * c.from_step[axis] : 0;
        c.from_step[axis] = -c.from_step[axis];
    }
    copy_elements(&c, a->data, r->result->data);
    return TPC_OK;
}

status row_window(struct row *r)
{
    const struct tensor *a = r->operand[0], *t = r->result;
    const struct attribute *at = &r->node->attribute;
    struct copy c = into_result(r);
    int64_t strides[MAX_RANK];
    if (same_type(r) != TPC_OK || t->rank != a->rank + 1 || at->axis < 0 || (uint32_t)at->axis >= a->rank ||
        at->list_count != 3)
        return shape_differs(r);
    uint32_t axis = (uint32_t)at->axis;
    int64_t k = at->list[0], stride = at->list[1], dilation = at->list[2];
    if (k < 1 || stride < 1 || dilation < 1 || t->shape[axis + 1] != k)
        return shape_differs(r);
    if (t->shape[axis] > 0 && (t->shape[axis] - 1) * stride + (k - 1) * dilation >= a->shape[axis])
        return shape_differs(r);
    shape_strides(a->rank, a->shape, strides);
    for (uint32_t i = 0; i < t->rank; i++) {
        uint32_t from = i <= axis ? i : i - 1;
        if (i != axis && i != axis + 1 && t->shape[i] != a->shape[from])
            return shape_differs(r);
        c.from_step[i] = strides[from] * (i == axis ? stride : i == axis + 1 ? dilation : 1);
    }
    copy_elements(&c, a->data, t->data);
    return TPC_OK;
}
