/* ir/interpret_index.c - the interpreter's gather and scatter.
 *
 * Both see the operand as [batch, outer, n, inner], the indices as [batch, i], and the gathered (or the updates) as [batch, outer, i, inner].
 */
#include "ir/interpret_row.h"

struct indexing {
    int64_t batch, outer, extent, inner, count; /* count: indices per batch */
    int64_t base;                               /* subtracted from each index */
    bool outside;                               /* an index outside is no error, */
    int64_t whole;                              /* if it lies in [0, whole) */
    int64_t *index;
};

/* Is t = [batch.., outer.., i.., inner..] of a and x? */
static bool is_gathered(const struct tensor *a, const struct tensor *x, const struct tensor *t, uint32_t axis,
                        uint32_t nbatch)
{
    uint32_t i = 0;
    if (t->rank + nbatch + 1 != a->rank + x->rank || t->dtype != a->dtype)
        return false;
    for (uint32_t k = 0; k < nbatch; k++)
        if (a->shape[k] != x->shape[k])
            return false;
    for (uint32_t k = 0; k < axis; k++)
        if (t->shape[i++] != a->shape[k])
            return false;
    for (uint32_t k = nbatch; k < x->rank; k++)
        if (t->shape[i++] != x->shape[k])
            return false;
    for (uint32_t k = axis + 1; k < a->rank; k++)
        if (t->shape[i++] != a->shape[k])
            return false;
    return true;
}

static status take_indices(struct row *r, const struct tensor *gathered, int32_t outside_mode, struct indexing *x)
{
    const struct tensor *a = r->operand[0], *indices = r->operand[1];
    const struct attribute *at = &r->node->attribute;
    bool fits = at->axis >= 0 && (uint32_t)at->axis < a->rank && at->nbatch >= 0 && at->nbatch <= at->axis &&
                (uint32_t)at->nbatch <= indices->rank && dtype_is_int(indices->dtype) &&
                is_gathered(a, indices, gathered, (uint32_t)at->axis, (uint32_t)at->nbatch);
    if (!fits)
        return row_broken(r, "%s and %s by %s do not fit together", tensor_type_text(a, r->scratch),
                          tensor_type_text(gathered, r->scratch), tensor_type_text(indices, r->scratch));
    uint32_t axis = (uint32_t)at->axis, nbatch = (uint32_t)at->nbatch;
    fits = shape_elements(nbatch, a->shape, &x->batch) && shape_elements(axis - nbatch, a->shape + nbatch, &x->outer) &&
           shape_elements(a->rank - axis - 1, a->shape + axis + 1, &x->inner) &&
           shape_elements(indices->rank - nbatch, indices->shape + nbatch, &x->count);
    if (!fits)
        return row_refused(r, "%s is too large", tensor_type_text(a, r->scratch));
    x->extent = a->shape[axis];
    x->outside = (at->mode & outside_mode) != 0;
    x->base = 0;
    x->index = load_integers(r, indices);
    x->whole = INT64_MAX;
    status s = x->outside && at->dims_count > 0 ? row_dim(r, 0, &x->base) : TPC_OK;
    return s == TPC_OK && x->outside && at->dims_count > 1 ? row_dim(r, 1, &x->whole) : s;
}

/* The position of index i of batch b on the axis, or -1 for one outside that is no error. */
static status resolve_index(struct row *r, const struct indexing *x, int64_t b, int64_t i, int64_t *at)
{
    int64_t index = x->index[b * x->count + i], moved;
    bool inside = i64_sub(index, x->base, &moved) && moved >= 0 && moved < x->extent;
    int64_t limit = x->outside ? x->whole : x->extent;
    *at = inside ? moved : -1;
    if (inside || (x->outside && (limit == INT64_MAX || (index >= 0 && index < limit))))
        return TPC_OK;
    return row_refused(r, "index %lld is outside [0, %lld)", (long long)index, (long long)limit);
}

status row_gather(struct row *r)
{
    struct tensor *t = r->result;
    struct indexing x;
    size_t size = dtype_size(t->dtype);
    status s = take_indices(r, t, GATHER_ZERO, &x);
    if (s != TPC_OK || tensor_bytes(t) == 0)
        return s;
    for (int64_t b = 0; b < x.batch; b++)
        for (int64_t i = 0; i < x.count; i++) {
            int64_t at;
            if ((s = resolve_index(r, &x, b, i, &at)) != TPC_OK)
                return s;
            for (int64_t o = 0; o < x.outer && at >= 0; o++) { /* else the zeros stay */
                int64_t line = b * x.outer + o;
                size_t to = (size_t)((line * x.count + i) * x.inner), from = (size_t)((line * x.extent + at) * x.inner);
                memcpy((char *)t->data + to * size, (const char *)r->operand[0]->data + from * size,
                       (size_t)x.inner * size);
            }
        }
    return TPC_OK;
}

/* ---- scatter ---- */

static int32_t reduction_of_mode(int32_t mode)
{
    switch (mode & ~(int32_t)SCATTER_DROP) {
    case SCATTER_ADD:
        return REDUCTION_SUM;
    case SCATTER_MUL:
        return REDUCTION_PROD;
    case SCATTER_MAX:
        return REDUCTION_MAX;
    case SCATTER_MIN:
        return REDUCTION_MIN;
    default:
        return 0;
    }
}

/* The numbers in which the updates are applied; of the two only the kind that the type has. */
struct numbers {
    double *d;
    int64_t *i;
};

static struct numbers load_numbers(struct row *r, const struct tensor *t)
{
    struct numbers n = {0};
    if (dtype_is_float(t->dtype))
        n.d = load_doubles(r, t);
    else
        n.i = load_integers(r, t);
    return n;
}

static void apply(int32_t reduction, dtype type, struct numbers *to, size_t at, const struct numbers *from, size_t i)
{
    if (to->d)
        to->d[at] = reduction ? combine_doubles(reduction, to->d[at], from->d[i]) : from->d[i];
    else
        to->i[at] = reduction ? combine_integers(reduction, type, to->i[at], from->i[i]) : from->i[i];
}

/* Updates in row-major order: [batch, outer, i, inner]. */
static status apply_all(struct row *r, const struct indexing *x, struct numbers *to, const struct numbers *from)
{
    int32_t reduction = reduction_of_mode(r->node->attribute.mode);
    for (int64_t line = 0; line < x->batch * x->outer; line++)
        for (int64_t i = 0; i < x->count; i++) {
            int64_t at;
            status s = resolve_index(r, x, line / x->outer, i, &at);
            if (s != TPC_OK)
                return s;
            for (int64_t k = 0; k < x->inner && at >= 0; k++)
                apply(reduction, r->result->dtype, to, (size_t)((line * x->extent + at) * x->inner + k), from,
                      (size_t)((line * x->count + i) * x->inner + k));
        }
    return TPC_OK;
}

status row_scatter(struct row *r)
{
    const struct tensor *a = r->operand[0], *updates = r->operand[2], *t = r->result;
    struct indexing x;
    if (!same_shape(a, t))
        return row_broken(r, "%s does not come from %s", tensor_type_text(t, r->scratch),
                          tensor_type_text(a, r->scratch));
    status s = take_indices(r, updates, SCATTER_DROP, &x);
    if (s != TPC_OK)
        return s;
    struct numbers to = load_numbers(r, a), from = load_numbers(r, updates);
    if (tensor_bytes(updates) > 0 && (s = apply_all(r, &x, &to, &from)) != TPC_OK)
        return s;
    for (size_t i = 0; i < t->count; i++) {
        if (to.d)
            dtype_store_f64(t->dtype, t->data, i, to.d[i]);
        else
            dtype_store_i64(t->dtype, t->data, i, to.i[i]);
    }
    return TPC_OK;
}
