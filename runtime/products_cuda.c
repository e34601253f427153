/* runtime/products_cuda.c - matrix products by cuBLASLt: rows and columns told in its terms, its choice asked once per product and kept.
 *
 * cuBLASLt thinks in columns. Of out [m][n] the axis with stride 1 becomes its rows: where that is n, it is asked for out' = rhs . lhs', else for out = lhs . rhs'.
 * Products of one left operand that are alike are done as one batched product, whose strides are what lies between their weights and between their results: one alone
 * would leave a part of the GPU idle at its end. Start with products_plan.
 */
#include "runtime/device_cuda.h"

struct product_plan {
    struct product_plan *next;
    struct cuda_product product;
    blas_operation operation;
    blas_layout layout[3]; /* its A, B, D */
    int operand[2];        /* which of lhs, rhs is A, B */
    struct blas_choice choice;
    bool nothing, zero; /* no element; or each a sum of nothing */
};

enum { BUCKETS = 256 };
struct products {
    const struct cuda_driver *driver;
    const struct cuda_blas *api;
    blas_handle handle;
    struct product_plan *bucket[BUCKETS];
};

struct products *products_new(const struct cuda_driver *driver, const struct cuda_blas *api)
{
    struct products *p = base_alloc(sizeof *p);
    if (!p)
        return NULL;
    *p = (struct products){.driver = driver, .api = api};
    if (api->create(&p->handle) == 0)
        return p;
    base_free(p);
    return NULL;
}

static void free_plan(const struct products *p, struct product_plan *x)
{
    for (int i = 0; i < 3; i++)
        if (x->layout[i])
            (void)p->api->layout_destroy(x->layout[i]);
    if (x->operation)
        (void)p->api->operation_destroy(x->operation);
    base_free(x);
}

void products_free(struct products *p)
{
    if (!p)
        return;
    for (uint32_t b = 0; b < BUCKETS; b++)
        for (struct product_plan *x = p->bucket[b], *next; x; x = next) {
            next = x->next;
            free_plan(p, x);
        }
    (void)p->api->destroy(p->handle);
    base_free(p);
}

/* ---- in cuBLASLt's terms ---------------------------------------------------------------------------------------------- */

static int type_of(dtype t)
{
    return t == DT_F16 ? BLAS_TYPE_F16 : t == DT_BF16 ? BLAS_TYPE_BF16 : t == DT_F64 ? BLAS_TYPE_F64 : BLAS_TYPE_F32;
}

/* A matrix of rows x columns with element strides: stored by columns, or its transpose is. */
struct matrix {
    bool transposed;
    int64_t rows, columns, leading; /* as stored */
};

static struct matrix matrix_of(int64_t rows, int64_t columns, int64_t row_stride, int64_t column_stride)
{
    bool by_columns = row_stride == 1 || rows == 1;
    if (rows == 1 && columns > 1 &&
        column_stride == 1) /* a row: as a column of its transpose, whose stride does not matter */
        by_columns = false;
    struct matrix m = {.transposed = !by_columns,
                       .rows = by_columns ? rows : columns,
                       .columns = by_columns ? columns : rows,
                       .leading = by_columns ? column_stride : row_stride};
    if (m.columns == 1 || m.leading < m.rows)
        m.leading = m.rows > m.leading ? m.rows : m.leading;
    return m;
}

static bool make_layout(const struct products *p, struct product_plan *x, int which, int of, const struct matrix *m)
{
    int32_t batch = (int32_t)x->product.batch;
    int64_t stride = x->product.batch_stride[of];
    return p->api->layout_create(&x->layout[which], type_of(x->product.type), (uint64_t)m->rows, (uint64_t)m->columns,
                                 m->leading) == 0 &&
           (batch == 1 ||
            (p->api->layout_set(x->layout[which], BLAS_LAYOUT_BATCH, &batch, sizeof batch) == 0 &&
             p->api->layout_set(x->layout[which], BLAS_LAYOUT_BATCH_STRIDE, &stride, sizeof stride) == 0));
}

static bool set_transposed(const struct products *p, struct product_plan *x, int attribute, bool transposed)
{
    int32_t operation = transposed ? BLAS_TRANSPOSED : BLAS_PLAIN;
    return p->api->operation_set(x->operation, attribute, &operation, sizeof operation) == 0;
}

/* It may be said anew for each run; what is chosen depends on its alignment. */
static bool set_bias(const struct products *p, const struct product_plan *x, const void *bias)
{
    uint32_t epilogue = BLAS_EPILOGUE_BIAS;
    return p->api->operation_set(x->operation, BLAS_OPERATION_EPILOGUE, &epilogue, sizeof epilogue) == 0 &&
           p->api->operation_set(x->operation, BLAS_OPERATION_BIAS, &bias, sizeof bias) == 0;
}

/* Largest power of 2 that divides every address of an operand. */
static uint32_t alignment(const struct cuda_product *q, int operand)
{
    uint64_t size = dtype_size(q->type), all = CUDA_ALIGN | (uint64_t)q->offset[operand] * size;
    if (q->batch > 1)
        all |= (uint64_t)q->batch_stride[operand] * size;
    return (uint32_t)(all & (~all + 1));
}

static bool choose(const struct products *p, struct product_plan *x)
{
    blas_preference preference = NULL;
    uint64_t workspace = PRODUCTS_WORKSPACE;
    uint32_t align[4] = {alignment(&x->product, x->operand[0]), alignment(&x->product, x->operand[1]),
                         alignment(&x->product, 2), alignment(&x->product, 2)};
    static const int attribute[4] = {BLAS_PREFER_ALIGNMENT_A, BLAS_PREFER_ALIGNMENT_B, BLAS_PREFER_ALIGNMENT_C,
                                     BLAS_PREFER_ALIGNMENT_D};
    int got = 0;
    if (p->api->preference_create(&preference) != 0)
        return false;
    bool good = p->api->preference_set(preference, BLAS_PREFER_WORKSPACE, &workspace, sizeof workspace) == 0;
    for (int i = 0; i < 4 && good; i++)
        good = p->api->preference_set(preference, attribute[i], &align[i], sizeof align[i]) == 0;
    good = good && p->api->choose(p->handle, x->operation, x->layout[0], x->layout[1], x->layout[2], x->layout[2],
                                  preference, 1, &x->choice, &got) == 0;
    (void)p->api->preference_destroy(preference);
    return good && got > 0 && x->choice.state == 0;
}

static bool make_plan(const struct products *p, struct product_plan *x)
{
    const struct cuda_product *q = &x->product;
    bool f64 = q->type == DT_F64, by_n = q->stride[2][1] == 1 || (q->n == 1 && q->stride[2][0] != 1);
    struct matrix lhs, rhs, out;
    if (q->batch > INT32_MAX || p->api->operation_create(&x->operation, f64 ? BLAS_COMPUTE_F64 : BLAS_COMPUTE_F32,
                                                         f64 ? BLAS_TYPE_F64 : BLAS_TYPE_F32) != 0)
        return false;
    if (by_n) { /* [n][m] = rhs [n][k] . lhs' [k][m] */
        rhs = matrix_of(q->n, q->k, q->stride[1][0], q->stride[1][1]);
        lhs = matrix_of(q->k, q->m, q->stride[0][1], q->stride[0][0]);
        out = (struct matrix){.rows = q->n, .columns = q->m, .leading = q->stride[2][0]};
    } else { /* [m][n] = lhs [m][k] . rhs' [k][n] */
        lhs = matrix_of(q->m, q->k, q->stride[0][0], q->stride[0][1]);
        rhs = matrix_of(q->k, q->n, q->stride[1][1], q->stride[1][0]);
        out = (struct matrix){.rows = q->m, .columns = q->n, .leading = q->stride[2][1]};
    }
    if (out.leading < out.rows)
        out.leading = out.rows;
    x->operand[0] = by_n ? 1 : 0;
    x->operand[1] = !x->operand[0];
    const struct matrix *a = by_n ? &rhs : &lhs, *b = by_n ? &lhs : &rhs;
    return set_transposed(p, x, BLAS_OPERATION_TRANSPOSE_A, a->transposed) &&
           set_transposed(p, x, BLAS_OPERATION_TRANSPOSE_B, b->transposed) && make_layout(p, x, 0, x->operand[0], a) &&
           make_layout(p, x, 1, x->operand[1], b) && make_layout(p, x, 2, 2, &out) &&
           (!q->biased || set_bias(p, x, (const void *)(uintptr_t)CUDA_ALIGN)) && choose(p, x);
}

status products_plan(struct products *p, const struct cuda_product *product, const struct product_plan **out,
                     struct failure *f)
{
    struct cuda_product key;
    memset(&key, 0, sizeof key); /* padding is compared, too */
    key.type = product->type;
    key.batch = product->batch;
    key.m = product->m;
    key.n = product->n;
    key.k = product->k;
    key.biased = product->biased;
    memcpy(key.offset, product->offset, sizeof key.offset);
    memcpy(key.batch_stride, product->batch_stride, sizeof key.batch_stride);
    memcpy(key.stride, product->stride, sizeof key.stride);
    struct product_plan **bucket = &p->bucket[hash_bytes(&key, sizeof key, 0) % BUCKETS];
    for (struct product_plan *x = *bucket; x; x = x->next)
        if (memcmp(&x->product, &key, sizeof key) == 0) {
            *out = x;
            return TPC_OK;
        }
    struct product_plan *x = base_alloc(sizeof *x);
    if (!x)
        return fail(f, TPC_NOMEM, "out of memory");
    memcpy(&x->product, &key, sizeof key);
    x->nothing = key.batch == 0 || key.m == 0 || key.n == 0;
    x->zero = key.k == 0;
    if (!x->nothing && !x->zero && !make_plan(p, x)) {
        free_plan(p, x);
        return fail(f, TPC_UNSUPPORTED,
                    "cuBLASLt has no way to multiply [%lld, %lld, %lld] by [%lld, %lld, %lld] in %s",
                    (long long)key.batch, (long long)key.m, (long long)key.k, (long long)key.batch, (long long)key.k,
                    (long long)key.n, dtype_name(key.type));
    }
    x->next = *bucket;
    *bucket = x;
    *out = x;
    return TPC_OK;
}

/* ---- several at once ---------------------------------------------------------------------------------------------------- */

static bool alike(const struct cuda_product *a, const struct cuda_product *b)
{
    return !a->adds && !b->adds && !a->biased && !b->biased && a->type == b->type && a->batch == 1 && b->batch == 1 &&
           a->m == b->m && a->n == b->n && a->k == b->k && a->buffer[0] == b->buffer[0] &&
           memcmp(a->offset, b->offset, sizeof a->offset) == 0 && memcmp(a->stride, b->stride, sizeof a->stride) == 0;
}

/* From operand o of one product to that of the next, in elements; 0: it lies before, or between elements. */
static int64_t distance(const struct cuda_product *a, const struct cuda_product *b, int o, void *const *address)
{
    uintptr_t from = (uintptr_t)address[a->buffer[o]], to = (uintptr_t)address[b->buffer[o]];
    return to > from && (to - from) % CUDA_ALIGN == 0 ? (int64_t)((to - from) / dtype_size(a->type)) : 0;
}

uint32_t products_batch(const struct cuda_product *list, uint32_t count, void *const *address, struct cuda_product *out)
{
    uint32_t taken = 1;
    *out = list[0];
    for (; taken < count && alike(&list[0], &list[taken]); taken++) {
        int64_t step[3] = {0};
        for (int o = 1; o < 3; o++)
            step[o] = distance(&list[taken - 1], &list[taken], o, address);
        if (!step[1] || !step[2] || (taken > 1 && memcmp(step, out->batch_stride, sizeof step) != 0))
            break;
        memcpy(out->batch_stride, step, sizeof step);
        out->batch++;
    }
    return taken;
}

/* ---- running ------------------------------------------------------------------------------------------------------------ */

static void *moved(void *base, int64_t elements, size_t size)
{
    return (char *)base + elements * (int64_t)size;
}

static status fill_zero(struct products *p, const struct cuda_product *q, void *out, cu_stream stream,
                        struct failure *f)
{
    size_t size = dtype_size(q->type);
    bool by_n = q->stride[2][1] == 1 || q->n == 1;
    int64_t lines = by_n ? q->m : q->n, run = by_n ? q->n : q->m, pitch = q->stride[2][by_n ? 0 : 1];
    for (int64_t b = 0; b < q->batch; b++)
        for (int64_t i = 0; i < lines; i++) {
            void *at = moved(out, b * q->batch_stride[2] + i * pitch, size);
            if (p->driver->fill((cu_pointer)(uintptr_t)at, 0, (size_t)run * size, stream) != CU_OK)
                return fail(f, TPC_INTERNAL, "the GPU does not fill its memory");
        }
    return TPC_OK;
}

status products_run(struct products *p, const struct product_plan *plan, void *const operand[5], void *workspace,
                    cu_stream stream, struct failure *f)
{
    const struct cuda_product *q = &plan->product;
    size_t size = dtype_size(q->type);
    static const double one = 1, zero = 0;
    static const float one_f = 1, zero_f = 0;
    bool f64 = q->type == DT_F64;
    void *at[4] = {0};
    for (int i = 0; i < 4; i++)
        at[i] = operand[i] ? moved(operand[i], q->offset[i < 3 ? i : 2], size) : NULL;
    if (q->biased && !set_bias(p, plan, operand[4]))
        return fail(f, TPC_INTERNAL, "cuBLASLt does not take a bias");
    const float *share_f = at[3] ? &one_f : &zero_f;
    const double *share = at[3] ? &one : &zero;
    if (plan->nothing)
        return TPC_OK;
    if (plan->zero)
        return fill_zero(p, q, at[2], stream, f);
    int r = p->api->multiply(p->handle, plan->operation, f64 ? (const void *)&one : &one_f, at[plan->operand[0]],
                             plan->layout[0], at[plan->operand[1]], plan->layout[1],
                             f64 ? (const void *)share : share_f, at[3] ? at[3] : at[2], plan->layout[2], at[2],
                             plan->layout[2], &plan->choice.algorithm, workspace, PRODUCTS_WORKSPACE, stream);
    return r == 0 ? TPC_OK : fail(f, TPC_INTERNAL, "cuBLASLt fails with status %d", r);
}
