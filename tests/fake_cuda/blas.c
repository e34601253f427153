/* tests/fake_cuda/blas.c - the fake libcublasLt: products as loops, column by column, summed in float (double for f64); layouts are checked as the library would. */
#include "ir/dtype.h"
#include "runtime/cuda_api.h"
#include "tests/fake_cuda/fake.h"

#include <stdlib.h>

struct blas_opaque { /* an operation, a layout or a preference */
    int compute, scale, transposed[2];
    uint32_t epilogue;
    const char *bias;
    int type;
    uint64_t rows, columns;
    int64_t leading, stride;
    int32_t batch;
};

enum { INVALID_VALUE = 7, NOT_SUPPORTED = 15, FAILED = 13 };

static struct blas_opaque *make(void)
{
    fake_own(1);
    return calloc(1, sizeof(struct blas_opaque));
}

static int drop(struct blas_opaque *x)
{
    free(x);
    fake_own(-1);
    return 0;
}

FAKE_API size_t cublasLtGetVersion(void)
{
    return 130000;
}

FAKE_API int cublasLtCreate(blas_handle *handle)
{
    CALL(3);
    *handle = (blas_handle)make();
    return 0;
}

FAKE_API int cublasLtDestroy(blas_handle handle)
{
    return drop((struct blas_opaque *)handle);
}

FAKE_API int cublasLtMatmulDescCreate(blas_operation *operation, int compute, int scale)
{
    CALL(3);
    *operation = make();
    (*operation)->compute = compute;
    (*operation)->scale = scale;
    return 0;
}

FAKE_API int cublasLtMatmulDescDestroy(blas_operation operation)
{
    return drop(operation);
}

FAKE_API int cublasLtMatmulDescSetAttribute(blas_operation operation, int attribute, const void *value, size_t bytes)
{
    CALL(INVALID_VALUE);
    bool transposes = attribute == BLAS_OPERATION_TRANSPOSE_A || attribute == BLAS_OPERATION_TRANSPOSE_B;
    if (transposes && bytes == 4)
        memcpy(&operation->transposed[attribute - BLAS_OPERATION_TRANSPOSE_A], value, 4);
    else if (attribute == BLAS_OPERATION_EPILOGUE && bytes == 4)
        memcpy(&operation->epilogue, value, 4);
    else if (attribute == BLAS_OPERATION_BIAS && bytes == sizeof operation->bias)
        memcpy(&operation->bias, value, bytes);
    else
        return INVALID_VALUE;
    return 0;
}

FAKE_API int cublasLtMatrixLayoutCreate(blas_layout *layout, int type, uint64_t rows, uint64_t columns, int64_t leading)
{
    CALL(3);
    *layout = make();
    **layout = (struct blas_opaque){.type = type, .rows = rows, .columns = columns, .leading = leading, .batch = 1};
    return 0;
}

FAKE_API int cublasLtMatrixLayoutDestroy(blas_layout layout)
{
    return drop(layout);
}

FAKE_API int cublasLtMatrixLayoutSetAttribute(blas_layout layout, int attribute, const void *value, size_t bytes)
{
    CALL(INVALID_VALUE);
    if (attribute == BLAS_LAYOUT_BATCH && bytes == 4)
        memcpy(&layout->batch, value, 4);
    else if (attribute == BLAS_LAYOUT_BATCH_STRIDE && bytes == 8)
        memcpy(&layout->stride, value, 8);
    else
        return INVALID_VALUE;
    return 0;
}

FAKE_API int cublasLtMatmulPreferenceCreate(blas_preference *preference)
{
    CALL(3);
    *preference = make();
    return 0;
}

FAKE_API int cublasLtMatmulPreferenceDestroy(blas_preference preference)
{
    return drop(preference);
}

FAKE_API int cublasLtMatmulPreferenceSetAttribute(blas_preference preference, int attribute, const void *value,
                                                  size_t bytes)
{
    (void)preference;
    CALL(INVALID_VALUE);
    if (attribute == BLAS_PREFER_WORKSPACE)
        return bytes == 8 ? 0 : INVALID_VALUE;
    uint32_t alignment = 0;
    if (attribute < BLAS_PREFER_ALIGNMENT_A || attribute > BLAS_PREFER_ALIGNMENT_D || bytes != 4)
        return INVALID_VALUE;
    memcpy(&alignment, value, 4);
    return alignment && (alignment & (alignment - 1)) == 0 ? 0 : INVALID_VALUE;
}

/* Do the shapes fit together? */
static bool fits(const struct blas_opaque *o, const struct blas_opaque *a, const struct blas_opaque *b,
                 const struct blas_opaque *d)
{
    uint64_t m = o->transposed[0] ? a->columns : a->rows, k = o->transposed[0] ? a->rows : a->columns;
    uint64_t k2 = o->transposed[1] ? b->columns : b->rows, n = o->transposed[1] ? b->rows : b->columns;
    bool leading = a->leading >= (int64_t)a->rows && b->leading >= (int64_t)b->rows && d->leading >= (int64_t)d->rows;
    bool biased = o->epilogue == BLAS_EPILOGUE_BIAS, plain = !o->epilogue && !o->bias;
    if (!plain && (!biased || !o->bias || (uintptr_t)o->bias % 16 || a->type == BLAS_TYPE_F64 || a->batch != 1))
        return false;
    return m && n && k && k == k2 && m == d->rows && n == d->columns && leading && a->type == b->type &&
           a->type == d->type && a->batch == b->batch && a->batch == d->batch &&
           o->scale == (o->compute == BLAS_COMPUTE_F64 ? BLAS_TYPE_F64 : BLAS_TYPE_F32);
}

FAKE_API int cublasLtMatmulAlgoGetHeuristic(blas_handle handle, blas_operation operation, blas_layout a, blas_layout b,
                                            blas_layout c, blas_layout d, blas_preference preference, int wanted,
                                            struct blas_choice *choices, int *got)
{
    (void)handle;
    (void)c;
    CALL(NOT_SUPPORTED);
    *got = 0;
    if (!preference || wanted < 1 || !fits(operation, a, b, d))
        return INVALID_VALUE;
    choices[0] = (struct blas_choice){.algorithm = {{77}}};
    *got = 1;
    return 0;
}

struct product {
    struct blas_opaque operation, a, b, d;
    const char *at[2], *added;
    char *to;
    double alpha, beta;
};

static dtype type_of(int type)
{
    return type == BLAS_TYPE_F16 ? DT_F16 : type == BLAS_TYPE_BF16 ? DT_BF16 : type == BLAS_TYPE_F64 ? DT_F64 : DT_F32;
}

/* All of one operand as doubles, [rows][columns] of op(x). */
static double *widen(const struct blas_opaque *x, int transposed, const char *at, uint64_t rows, uint64_t columns)
{
    dtype t = type_of(x->type);
    double *to = malloc(rows * columns * sizeof *to);
    for (uint64_t r = 0; r < rows; r++)
        for (uint64_t c = 0; c < columns; c++) {
            uint64_t i = transposed ? c + r * (uint64_t)x->leading : r + c * (uint64_t)x->leading;
            to[r * columns + c] = dtype_load_f64(t, at, i);
        }
    return to;
}

static void multiply(void *argument)
{
    if (fake_idles())
        return;
    const struct product *p = argument;
    dtype t = type_of(p->d.type);
    uint64_t m = p->d.rows, n = p->d.columns, k = p->operation.transposed[0] ? p->a.rows : p->a.columns;
    size_t size = dtype_size(t);
    for (int32_t batch = 0; batch < p->d.batch; batch++) {
        const char *at[2] = {p->at[0] + (int64_t)size * p->a.stride * batch,
                             p->at[1] + (int64_t)size * p->b.stride * batch};
        char *to = p->to + (int64_t)size * p->d.stride * batch;
        const char *added = p->added + (int64_t)size * p->d.stride * batch;
        if (!fake_is_device(at[0], ((p->a.columns - 1) * (uint64_t)p->a.leading + p->a.rows) * size) ||
            !fake_is_device(at[1], ((p->b.columns - 1) * (uint64_t)p->b.leading + p->b.rows) * size) ||
            !fake_is_device(to, ((n - 1) * (uint64_t)p->d.leading + m) * size) ||
            !fake_is_device(added, ((n - 1) * (uint64_t)p->d.leading + m) * size) ||
            (p->operation.bias && !fake_is_device(p->operation.bias, m * size))) {
            fake_break(NULL, "a product reaches outside of its memory");
            return;
        }
        double *a = widen(&p->a, p->operation.transposed[0], at[0], m, k),
               *b = widen(&p->b, !p->operation.transposed[1], at[1], n, k);
        for (uint64_t i = 0; i < m; i++)
            for (uint64_t j = 0; j < n; j++) {
                double sum = 0, c = 0;
                for (uint64_t q = 0; q < k; q++)
                    sum += a[i * k + q] * b[j * k + q];
                if (p->beta != 0) /* otherwise it is not read */
                    c = p->beta * dtype_load_f64(t, added, i + j * (uint64_t)p->d.leading);
                if (p->operation.bias) /* along the rows of D */
                    c += dtype_load_f64(t, p->operation.bias, i);
                dtype_store_f64(t, to, i + j * (uint64_t)p->d.leading, p->alpha * sum + c);
            }
        free(a);
        free(b);
    }
}

FAKE_API int cublasLtMatmul(blas_handle handle, blas_operation operation, const void *alpha, const void *a,
                            blas_layout a_layout, const void *b, blas_layout b_layout, const void *beta, const void *c,
                            blas_layout c_layout, void *d, blas_layout d_layout, const struct blas_algorithm *algorithm,
                            void *workspace, size_t workspace_bytes, cu_stream stream)
{
    CALL(FAILED);
    struct product p = {
        .operation = *operation, .a = *a_layout, .b = *b_layout, .d = *d_layout, .at = {a, b}, .added = c, .to = d};
    float one = 0, zero = 1;
    if (operation->scale == BLAS_TYPE_F64) {
        memcpy(&p.alpha, alpha, sizeof p.alpha);
        memcpy(&p.beta, beta, sizeof p.beta);
    } else {
        memcpy(&one, alpha, sizeof one);
        memcpy(&zero, beta, sizeof zero);
        p.alpha = (double)one;
        p.beta = (double)zero;
    }
    bool good = handle && (c == d || p.beta != 0) && c_layout == d_layout && algorithm->data[0] == 77 &&
                fake_is_device(workspace, workspace_bytes) && fits(operation, a_layout, b_layout, d_layout);
    return good && fake_enqueue(stream, multiply, &p, sizeof p) ? 0 : INVALID_VALUE;
}
