/* runtime/builtin.c - cumsum, topk, scatter on the CPU. Shapes are checked against each other before an element is touched. */
#include "runtime/builtin.h"
#include "runtime/comm.h"

/* A shape around an axis: [outer, extent, inner]. */
struct around {
    int64_t outer, extent, inner;
};

static struct around around_axis(const struct tensor *t, uint32_t axis)
{
    struct around a = {1, t->shape[axis], 1};
    for (uint32_t i = 0; i < t->rank; i++) {
        if (i < axis)
            a.outer *= t->shape[i];
        if (i > axis)
            a.inner *= t->shape[i];
    }
    return a;
}

static bool same_shape(const struct tensor *a, const struct tensor *b)
{
    return a->rank == b->rank && (a->rank == 0 || memcmp(a->shape, b->shape, a->rank * sizeof *a->shape) == 0);
}

/* ---- cumsum ------------------------------------------------------------------------------------------------------- */

static void cumsum_line(const struct builtin_call *c, int64_t first, int64_t step, int64_t count)
{
    bool exclusive = c->node->attribute.mode & 1, reverse = c->node->attribute.mode & 2;
    dtype type = c->result.dtype;
    double sum = 0; /* of floats; rounded when stored */
    uint64_t whole = 0;
    for (int64_t i = 0; i < count; i++) {
        size_t at = (size_t)(first + (reverse ? count - 1 - i : i) * step);
        double x = dtype_is_float(type) ? dtype_load_f64(type, c->operand[0].data, at) : 0;
        uint64_t n = dtype_is_float(type) ? 0 : (uint64_t)dtype_load_i64(type, c->operand[0].data, at);
        if (dtype_is_float(type))
            dtype_store_f64(type, c->result.data, at, exclusive ? sum : sum + x);
        else
            dtype_store_i64(type, c->result.data, at, (int64_t)(exclusive ? whole : whole + n));
        sum += x;
        whole += n;
    }
}

static status cumsum(struct builtin_call *c)
{
    if (!same_shape(&c->operand[0], &c->result) || (uint32_t)c->node->attribute.axis >= c->result.rank)
        return TPC_INTERNAL;
    struct around a = around_axis(&c->result, (uint32_t)c->node->attribute.axis);
    for (int64_t o = 0; o < a.outer; o++)
        for (int64_t i = 0; i < a.inner; i++)
            cumsum_line(c, o * a.extent * a.inner + i, a.inner, a.extent);
    return TPC_OK;
}

/* ---- topk --------------------------------------------------------------------------------------------------------- */

/* Keys that order as wanted: the larger key comes first. NaN is the largest number; a double holds every type but the 64-bit integers. */
struct entry {
    double key;
    uint64_t whole;
    int64_t index;
};

static struct entry entry_at(const struct builtin_call *c, int64_t at, int64_t index)
{
    dtype type = c->operand[0].dtype;
    bool smallest = c->node->attribute.mode == 1;
    struct entry e = {.index = index};
    if (dtype_is_float(type)) {
        e.key = dtype_load_f64(type, c->operand[0].data, (size_t)at);
        if (smallest)
            e.key = -e.key;
    } else {
        uint64_t bias = dtype_is_signed(type) ? (uint64_t)1 << 63 : 0;
        e.whole = (uint64_t)dtype_load_i64(type, c->operand[0].data, (size_t)at) + bias;
        if (smallest)
            e.whole = ~e.whole;
    }
    return e;
}

static bool before(const struct entry *a, const struct entry *b, bool smallest)
{
    bool nan_a = a->key != a->key, nan_b = b->key != b->key;
    if (nan_a != nan_b)
        return nan_a != smallest; /* the largest: first, or last when the smallest are wanted */
    if (!nan_a && a->key != b->key)
        return a->key > b->key;
    return a->whole != b->whole ? a->whole > b->whole : a->index < b->index;
}

/* heap[0] is what comes last among those kept. */
static void sift_down(struct entry *heap, int64_t count, int64_t at, bool smallest)
{
    for (;;) {
        int64_t last = at;
        for (int64_t child = 2 * at + 1; child <= 2 * at + 2 && child < count; child++)
            if (before(&heap[last], &heap[child], smallest))
                last = child;
        if (last == at)
            return;
        struct entry e = heap[at];
        heap[at] = heap[last];
        heap[last] = e;
        at = last;
    }
}

static void topk_line(const struct builtin_call *c, struct entry *heap, int64_t first, int64_t step, int64_t count,
                      int64_t k, int64_t to, int64_t to_step)
{
    bool smallest = c->node->attribute.mode == 1;
    for (int64_t i = 0; i < k; i++)
        heap[i] = entry_at(c, first + i * step, i);
    for (int64_t i = k / 2; i-- > 0;)
        sift_down(heap, k, i, smallest);
    for (int64_t i = k; i < count; i++) {
        struct entry e = entry_at(c, first + i * step, i);
        if (!before(&e, &heap[0], smallest))
            continue;
        heap[0] = e;
        sift_down(heap, k, 0, smallest);
    }
    for (int64_t left = k; left-- > 0;) { /* the last one goes to the end, and so on */
        ((int64_t *)c->result.data)[to + left * to_step] = heap[0].index;
        heap[0] = heap[left];
        sift_down(heap, left, 0, smallest);
    }
}

static status topk(struct builtin_call *c)
{
    uint32_t axis = (uint32_t)c->node->attribute.axis;
    if (c->operand[0].rank != c->result.rank || axis >= c->result.rank || c->result.dtype != DT_I64)
        return TPC_INTERNAL;
    struct around from = around_axis(&c->operand[0], axis), to = around_axis(&c->result, axis);
    if (from.outer != to.outer || from.inner != to.inner)
        return TPC_INTERNAL;
    if (to.extent > from.extent) {
        c->fault_index = to.extent;
        c->fault_limit = from.extent + 1;
        return TPC_DATA;
    }
    size_t bytes = 0;
    if (to.extent == 0 || !size_mul((size_t)to.extent, sizeof(struct entry), &bytes))
        return to.extent == 0 ? TPC_OK : TPC_NOMEM;
    struct entry *heap = base_alloc(bytes);
    if (!heap)
        return TPC_NOMEM;
    for (int64_t o = 0; o < from.outer; o++)
        for (int64_t i = 0; i < from.inner; i++)
            topk_line(c, heap, o * from.extent * from.inner + i, from.inner, from.extent, to.extent,
                      o * to.extent * to.inner + i, to.inner);
    base_free(heap);
    return TPC_OK;
}

/* ---- scatter ------------------------------------------------------------------------------------------------------ */

/* result[b, o, indices[b, i], inner] (mode)= updates[b, o, i, inner] */
struct scatter {
    int64_t batch, outer, extent, indices, inner;
};

static bool scatter_shape(const struct builtin_call *c, struct scatter *s)
{
    const struct tensor *operand = &c->operand[0], *index = &c->operand[1], *updates = &c->operand[2];
    uint32_t nbatch = (uint32_t)c->node->attribute.nbatch, axis = (uint32_t)c->node->attribute.axis;
    if (!same_shape(operand, &c->result) || axis >= operand->rank || nbatch > axis || nbatch > index->rank)
        return false;
    if (updates->rank + 1 + nbatch != operand->rank + index->rank || !dtype_is_int(index->dtype))
        return false;
    *s = (struct scatter){1, 1, operand->shape[axis], 1, 1};
    uint32_t u = 0; /* axis of updates */
    bool fits = true;
    for (uint32_t a = 0; a < nbatch; a++, u++) {
        s->batch *= operand->shape[a];
        fits = fits && index->shape[a] == operand->shape[a] && updates->shape[u] == operand->shape[a];
    }
    for (uint32_t a = nbatch; a < axis; a++, u++) {
        s->outer *= operand->shape[a];
        fits = fits && updates->shape[u] == operand->shape[a];
    }
    for (uint32_t a = nbatch; a < index->rank; a++, u++) {
        s->indices *= index->shape[a];
        fits = fits && updates->shape[u] == index->shape[a];
    }
    for (uint32_t a = axis + 1; a < operand->rank; a++, u++) {
        s->inner *= operand->shape[a];
        fits = fits && updates->shape[u] == operand->shape[a];
    }
    return fits;
}

/* SCATTER_ADD etc. as reductions of one pair; -1 for SET. */
static int reduction_of(int32_t mode)
{
    static const int reductions[] = {[SCATTER_SET] = -1,
                                     [SCATTER_ADD] = REDUCTION_SUM,
                                     [SCATTER_MUL] = REDUCTION_PROD,
                                     [SCATTER_MAX] = REDUCTION_MAX,
                                     [SCATTER_MIN] = REDUCTION_MIN};
    int32_t kind = mode & 7;
    return kind <= SCATTER_MIN ? reductions[kind] : -2;
}

static status scatter(struct builtin_call *c)
{
    struct scatter s;
    int32_t mode = c->node->attribute.mode;
    int reduction = reduction_of(mode);
    if (!scatter_shape(c, &s) || reduction == -2)
        return TPC_INTERNAL;
    dtype type = c->result.dtype;
    size_t size = dtype_size(type);
    if (c->result.data != c->operand[0].data)
        memmove(c->result.data, c->operand[0].data, tensor_bytes(&c->result));
    const char *from = c->operand[2].data;
    for (int64_t b = 0; b < s.batch; b++)
        for (int64_t o = 0; o < s.outer; o++)
            for (int64_t i = 0; i < s.indices; i++, from += (size_t)s.inner * size) {
                int64_t at = 0,
                        index = dtype_load_i64(c->operand[1].dtype, c->operand[1].data, (size_t)(b * s.indices + i));
                bool inside = i64_sub(index, c->base, &at) && at >= 0 && at < s.extent;
                if (!inside && (mode & SCATTER_DROP))
                    continue;
                if (!inside) {
                    c->fault_index = index;
                    c->fault_limit = s.extent;
                    return TPC_DATA;
                }
                char *to = (char *)c->result.data + (size_t)(((b * s.outer + o) * s.extent + at) * s.inner) * size;
                if (reduction < 0)
                    memcpy(to, from, (size_t)s.inner * size);
                else
                    reduce_sources((enum reduction)reduction, type, (const void *const[]){to, from}, 2, 0, s.inner, to);
            }
    return TPC_OK;
}

status builtin_run(struct builtin_call *c)
{
    if (c->node->op == OP_CUMSUM)
        return cumsum(c);
    if (c->node->op == OP_TOPK)
        return topk(c);
    return c->node->op == OP_SCATTER ? scatter(c) : TPC_INTERNAL;
}
