/* ir/interpret_reduce.c - the interpreter's rows that combine elements: reductions, dot, cumulative sum, top-k, cross entropy. */
#include "ir/interpret_row.h"

#include <math.h>

/* ---- reductions ---- */

static int32_t reduction_of(op o)
{
    switch ((int)o) {
    case OP_REDUCE_SUM:
        return REDUCTION_SUM;
    case OP_REDUCE_PROD:
        return REDUCTION_PROD;
    case OP_REDUCE_MAX:
        return REDUCTION_MAX;
    default:
        return REDUCTION_MIN;
    }
}

/* step[k]: how far the result moves with axis k of the operand; 0 for the axes that go. */
static bool result_steps(const struct row *r, int64_t *step)
{
    const struct tensor *a = r->operand[0], *t = r->result;
    const struct attribute *at = &r->node->attribute;
    int64_t strides[MAX_RANK];
    uint32_t next = 0, kept = 0;
    shape_strides(t->rank, t->shape, strides);
    for (uint32_t k = 0; k < a->rank; k++) {
        step[k] = 0;
        if (next < at->list_count && at->list[next] == (int32_t)k) {
            next++;
            continue;
        }
        if (kept >= t->rank || t->shape[kept] != a->shape[k])
            return false;
        step[k] = strides[kept++];
    }
    return next == at->list_count && kept == t->rank && a->dtype == t->dtype;
}

/* Position in the result of element i of the operand. */
static int64_t position(const struct tensor *a, const int64_t *step, int64_t i)
{
    int64_t at = 0;
    for (uint32_t k = a->rank; k-- > 0; i /= a->shape[k])
        at += i % a->shape[k] * step[k];
    return at;
}

status row_reduce(struct row *r)
{
    const struct tensor *a = r->operand[0], *t = r->result;
    int32_t kind = reduction_of(r->node->op);
    int64_t step[MAX_RANK];
    if (!result_steps(r, step))
        return row_broken(r, "%s does not come from %s", tensor_type_text(t, r->scratch),
                          tensor_type_text(a, r->scratch));
    size_t count = t->count;
    double *sum = NEW_ARRAY(r->scratch, double, count);
    int64_t *total = NEW_ARRAY(r->scratch, int64_t, count);
    for (size_t i = 0; i < count; i++) {
        sum[i] = neutral_double(kind);
        total[i] = neutral_integer(kind, t->dtype);
    }
    for (size_t i = 0; i < a->count; i++) {
        int64_t at = position(a, step, (int64_t)i);
        if (dtype_is_float(a->dtype))
            sum[at] = combine_doubles(kind, sum[at], dtype_load_f64(a->dtype, a->data, i));
        else
            total[at] = combine_integers(kind, a->dtype, total[at], dtype_load_i64(a->dtype, a->data, i));
    }
    for (size_t i = 0; i < count; i++) {
        if (dtype_is_float(t->dtype))
            dtype_store_f64(t->dtype, t->data, i, sum[i]);
        else
            dtype_store_i64(t->dtype, t->data, i, total[i]);
    }
    return TPC_OK;
}

/* ---- dot ---- */

/* Both operands are matrices once axes are merged: lhs [batch, m, k], rhs [batch, n, k]. */
struct dot_sizes {
    int64_t batch, m, n, k;
};

static bool merge(const struct tensor *t, uint32_t from, uint32_t to, int64_t *product)
{
    return shape_elements(to - from, t->shape + from, product);
}

static bool dot_sizes(const struct row *r, struct dot_sizes *d)
{
    const struct tensor *l = r->operand[0], *x = r->operand[1], *t = r->result;
    const struct attribute *a = &r->node->attribute;
    if (a->nbatch < 0 || a->ncontract < 0 || (int64_t)a->nbatch + a->ncontract > l->rank ||
        (int64_t)a->nbatch + a->ncontract > x->rank)
        return false;
    uint32_t b = (uint32_t)a->nbatch, c = (uint32_t)a->ncontract, m = l->rank - b - c, n = x->rank - b - c;
    bool fits = l->dtype == x->dtype && l->dtype == t->dtype && t->rank == b + m + n;
    for (uint32_t k = 0; fits && k < b; k++)
        fits = l->shape[k] == x->shape[k] && t->shape[k] == l->shape[k];
    for (uint32_t k = 0; fits && k < c; k++)
        fits = l->shape[b + m + k] == x->shape[b + n + k];
    for (uint32_t k = 0; fits && k < m; k++)
        fits = t->shape[b + k] == l->shape[b + k];
    for (uint32_t k = 0; fits && k < n; k++)
        fits = t->shape[b + m + k] == x->shape[b + k];
    return fits && merge(l, 0, b, &d->batch) && merge(l, b, b + m, &d->m) && merge(l, b + m, l->rank, &d->k) &&
           merge(x, b, b + n, &d->n);
}

/* Four columns at a time only because their sums do not wait for each other; every sum goes from k = 0 upwards. */
static void dot_row(const double *l, const double *x, int64_t n, int64_t k, double *out)
{
    int64_t j = 0;
    for (; j + 4 <= n; j += 4) {
        const double *a = x + j * k, *b = a + k, *c = b + k, *d = c + k;
        double p = 0, q = 0, s = 0, t = 0;
        for (int64_t i = 0; i < k; i++) {
            p += l[i] * a[i];
            q += l[i] * b[i];
            s += l[i] * c[i];
            t += l[i] * d[i];
        }
        out[j] = p;
        out[j + 1] = q;
        out[j + 2] = s;
        out[j + 3] = t;
    }
    for (; j < n; j++) {
        out[j] = 0;
        for (int64_t i = 0; i < k; i++)
            out[j] += l[i] * x[j * k + i];
    }
}

static void dot_doubles(struct row *r, const struct dot_sizes *d)
{
    const double *l = load_doubles(r, r->operand[0]), *x = load_doubles(r, r->operand[1]);
    double *out = NEW_ARRAY(r->scratch, double, d->n);
    for (int64_t row = 0; row < d->batch * d->m; row++) {
        dot_row(l + row * d->k, x + row / d->m * d->n * d->k, d->n, d->k, out);
        for (int64_t j = 0; j < d->n; j++)
            dtype_store_f64(r->result->dtype, r->result->data, (size_t)(row * d->n + j), out[j]);
    }
}

static void dot_integers(struct row *r, const struct dot_sizes *d)
{
    const int64_t *l = load_integers(r, r->operand[0]), *x = load_integers(r, r->operand[1]);
    for (int64_t row = 0; row < d->batch * d->m; row++)
        for (int64_t j = 0; j < d->n; j++) {
            const int64_t *column = x + (row / d->m * d->n + j) * d->k;
            uint64_t sum = 0;
            for (int64_t i = 0; i < d->k; i++)
                sum += (uint64_t)l[row * d->k + i] * (uint64_t)column[i];
            dtype_store_i64(r->result->dtype, r->result->data, (size_t)(row * d->n + j), (int64_t)sum);
        }
}

status row_dot(struct row *r)
{
    struct dot_sizes d;
    if (!dot_sizes(r, &d))
        return row_broken(r, "%s does not come from %s and %s", tensor_type_text(r->result, r->scratch),
                          tensor_type_text(r->operand[0], r->scratch), tensor_type_text(r->operand[1], r->scratch));
    if (tensor_bytes(r->result) == 0) /* products of the other extents need not fit then */
        return TPC_OK;
    if (dtype_is_float(r->result->dtype))
        dot_doubles(r, &d);
    else
        dot_integers(r, &d);
    return TPC_OK;
}

/* ---- along one axis ---- */

/* The tensor as [outer, extent, inner] around an axis. */
struct along {
    int64_t outer, extent, inner;
};

static bool along_axis(const struct tensor *t, int32_t axis, struct along *out)
{
    if (axis < 0 || (uint32_t)axis >= t->rank)
        return false;
    out->extent = t->shape[axis];
    return shape_elements((uint32_t)axis, t->shape, &out->outer) &&
           shape_elements(t->rank - (uint32_t)axis - 1, t->shape + axis + 1, &out->inner);
}

/* One line of a cumulative sum; element i is at start + i * inner. */
static void sum_line(struct row *r, const struct along *l, int64_t start)
{
    const struct tensor *a = r->operand[0];
    struct tensor *t = r->result;
    bool exclusive = r->node->attribute.mode & 1, reverse = r->node->attribute.mode & 2;
    double sum = 0;
    uint64_t total = 0;
    for (int64_t i = 0; i < l->extent; i++) {
        size_t at = (size_t)(start + (reverse ? l->extent - 1 - i : i) * l->inner);
        if (dtype_is_float(a->dtype)) {
            double x = dtype_load_f64(a->dtype, a->data, at), before = sum;
            sum += x;
            dtype_store_f64(t->dtype, t->data, at, exclusive ? before : sum);
        } else {
            uint64_t x = (uint64_t)dtype_load_i64(a->dtype, a->data, at), before = total;
            total += x;
            dtype_store_i64(t->dtype, t->data, at, (int64_t)(exclusive ? before : total));
        }
    }
}

status row_cumsum(struct row *r)
{
    struct along l;
    if (!same_shape(r->operand[0], r->result) || !along_axis(r->result, r->node->attribute.axis, &l))
        return row_broken(r, "%s does not come from %s", tensor_type_text(r->result, r->scratch),
                          tensor_type_text(r->operand[0], r->scratch));
    for (int64_t o = 0; o < l.outer && l.extent > 0; o++)
        for (int64_t i = 0; i < l.inner; i++)
            sum_line(r, &l, o * l.extent * l.inner + i);
    return TPC_OK;
}

/* Does element i stand before element j: larger (smaller), NaN as the largest; of equals the lower index. */
static bool stands_before(const struct tensor *a, bool smallest, size_t i, size_t j)
{
    bool less, greater;
    if (dtype_is_float(a->dtype)) {
        double x = dtype_load_f64(a->dtype, a->data, i), y = dtype_load_f64(a->dtype, a->data, j);
        less = x < y || (!isnan(x) && isnan(y));
        greater = x > y || (isnan(x) && !isnan(y));
    } else {
        int64_t x = dtype_load_i64(a->dtype, a->data, i), y = dtype_load_i64(a->dtype, a->data, j);
        less = integer_less(a->dtype, x, y);
        greater = integer_less(a->dtype, y, x);
    }
    return less == greater ? i < j : smallest ? less : greater;
}

/* Merge sort of `count` elements' numbers; `spare` is as large. */
static void sort_line(const struct tensor *a, bool smallest, size_t *at, size_t *spare, size_t count)
{
    if (count < 2)
        return;
    size_t half = count / 2, left = 0, right = half;
    sort_line(a, smallest, at, spare, half);
    sort_line(a, smallest, at + half, spare, count - half);
    for (size_t i = 0; i < count; i++) {
        bool take_left = right == count || (left < half && stands_before(a, smallest, at[left], at[right]));
        spare[i] = take_left ? at[left++] : at[right++];
    }
    memcpy(at, spare, count * sizeof *at);
}

status row_topk(struct row *r)
{
    const struct tensor *a = r->operand[0], *t = r->result;
    struct along l, kept;
    bool fits = t->dtype == DT_I64 && a->rank == t->rank && along_axis(a, r->node->attribute.axis, &l) &&
                along_axis(t, r->node->attribute.axis, &kept) && l.outer == kept.outer && l.inner == kept.inner;
    if (!fits)
        return row_broken(r, "%s does not come from %s", tensor_type_text(t, r->scratch),
                          tensor_type_text(a, r->scratch));
    if (kept.extent > l.extent)
        return row_refused(r, "axis %d: the best %lld of %lld are wanted", (int)r->node->attribute.axis,
                           (long long)kept.extent, (long long)l.extent);
    size_t *order = NEW_ARRAY(r->scratch, size_t, l.extent), *spare = NEW_ARRAY(r->scratch, size_t, l.extent);
    for (int64_t line = 0; line < l.outer * l.inner; line++) {
        int64_t outer = line / l.inner, inner = line % l.inner, start = outer * l.extent * l.inner + inner;
        for (int64_t i = 0; i < l.extent; i++)
            order[i] = (size_t)(start + i * l.inner);
        sort_line(a, r->node->attribute.mode == 1, order, spare, (size_t)l.extent);
        for (int64_t i = 0; i < kept.extent; i++)
            dtype_store_i64(DT_I64, t->data, (size_t)((outer * kept.extent + i) * l.inner + inner),
                            ((int64_t)order[i] - start) / l.inner);
    }
    return TPC_OK;
}

/* ---- cross entropy ---- */

static double log_sum_exp(const struct tensor *logits, size_t start, size_t count)
{
    double top = -(double)INFINITY, sum = 0;
    for (size_t i = 0; i < count; i++)
        top = combine_doubles(REDUCTION_MAX, top, dtype_load_f64(logits->dtype, logits->data, start + i));
    if (isinf(top) || isnan(top)) /* nothing to shift by; log(0) = -inf for no logits at all */
        return top;
    for (size_t i = 0; i < count; i++)
        sum += exp(dtype_load_f64(logits->dtype, logits->data, start + i) - top);
    return log(sum) + top;
}

status row_cross_entropy(struct row *r)
{
    const struct tensor *logits = r->operand[0], *labels = r->operand[1], *t = r->result;
    bool fits = logits->rank == labels->rank + 1 && t->rank == labels->rank && dtype_is_float(logits->dtype) &&
                t->dtype == logits->dtype && dtype_is_int(labels->dtype);
    for (uint32_t k = 0; fits && k < t->rank; k++)
        fits = t->shape[k] == labels->shape[k] && t->shape[k] == logits->shape[k];
    if (!fits)
        return row_broken(r, "%s does not come from %s and %s", tensor_type_text(t, r->scratch),
                          tensor_type_text(logits, r->scratch), tensor_type_text(labels, r->scratch));
    size_t vocabulary = (size_t)logits->shape[t->rank];
    for (size_t i = 0; i < t->count; i++) {
        int64_t label = dtype_load_i64(labels->dtype, labels->data, i);
        bool inside = label >= 0 && (uint64_t)label < vocabulary;
        double picked = inside ? dtype_load_f64(logits->dtype, logits->data, i * vocabulary + (size_t)label) : 0;
        dtype_store_f64(t->dtype, t->data, i, log_sum_exp(logits, i * vocabulary, vocabulary) - picked);
    }
    return TPC_OK;
}
