/* runtime/reduce.c - sums (products, maxima, minima) of several ranks' buffers, in the order of the ranks.
 *
 * Invariant: element i of the result depends on element i of the sources alone and is computed the same way wherever it stands in a
 * buffer, so that cutting the work into slices cannot change a bit.
 */
#include "runtime/comm.h"
#include "runtime/gemm.h"

#include <assert.h>

enum { BLOCK = 512 }; /* elements in flight: in the first cache for any type */

#define COMBINE(name, scalar, expression)                                                                              \
    static void name(scalar *sum, const scalar *x, int64_t count)                                                      \
    {                                                                                                                  \
        for (int64_t i = 0; i < count; i++)                                                                            \
            sum[i] = (scalar)(expression);                                                                             \
    }
#define COMBINE_FLOAT(suffix, scalar)                                                                                  \
    COMBINE(sum_##suffix, scalar, sum[i] + x[i])                                                                       \
    COMBINE(prod_##suffix, scalar, sum[i] * x[i])                                                                      \
    COMBINE(max_##suffix, scalar, x[i] > sum[i] || x[i] != x[i] ? x[i] : sum[i])                                       \
    COMBINE(min_##suffix, scalar, x[i] < sum[i] || x[i] != x[i] ? x[i] : sum[i])
#define COMBINE_INTEGER(suffix, scalar)                                                                                \
    COMBINE(sum_##suffix, scalar, (uint64_t)sum[i] + (uint64_t)x[i])                                                   \
    COMBINE(prod_##suffix, scalar, (uint64_t)sum[i] * (uint64_t)x[i])                                                  \
    COMBINE(max_##suffix, scalar, x[i] > sum[i] ? x[i] : sum[i])                                                       \
    COMBINE(min_##suffix, scalar, x[i] < sum[i] ? x[i] : sum[i])

COMBINE_FLOAT(F32, float)
COMBINE_FLOAT(F64, double)
COMBINE_INTEGER(I8, int8_t)
COMBINE_INTEGER(I16, int16_t)
COMBINE_INTEGER(I32, int32_t)
COMBINE_INTEGER(I64, int64_t)
COMBINE_INTEGER(U8, uint8_t)
COMBINE_INTEGER(U16, uint16_t)
COMBINE_INTEGER(U32, uint32_t)
COMBINE_INTEGER(U64, uint64_t)
COMBINE(sum_BOOL, uint8_t, (sum[i] | x[i]) != 0)
COMBINE(prod_BOOL, uint8_t, sum[i] && x[i])

#define CASES(suffix, scalar)                                                                                          \
    case DT_##suffix:                                                                                                  \
        if (reduction == REDUCTION_SUM)                                                                                \
            sum_##suffix((scalar *)sum, (const scalar *)x, count);                                                     \
        else if (reduction == REDUCTION_PROD)                                                                          \
            prod_##suffix((scalar *)sum, (const scalar *)x, count);                                                    \
        else if (reduction == REDUCTION_MAX)                                                                           \
            max_##suffix((scalar *)sum, (const scalar *)x, count);                                                     \
        else                                                                                                           \
            min_##suffix((scalar *)sum, (const scalar *)x, count);                                                     \
        break;

static void combine(enum reduction reduction, dtype type, void *sum, const void *x, int64_t count)
{
    switch (type) {
        CASES(F32, float)
        CASES(F64, double)
        CASES(I8, int8_t)
        CASES(I16, int16_t)
        CASES(I32, int32_t)
        CASES(I64, int64_t)
        CASES(U8, uint8_t)
        CASES(U16, uint16_t)
        CASES(U32, uint32_t)
        CASES(U64, uint64_t)
    case DT_BOOL:
        if (reduction == REDUCTION_SUM || reduction == REDUCTION_MAX)
            sum_BOOL(sum, x, count);
        else
            prod_BOOL(sum, x, count);
        break;
    case DT_F16: /* widened by the caller */
    case DT_BF16:
    case DT_F8E4M3FN: /* reduce_few */
    case DT_F8E4M3FNUZ:
    case DT_F8E5M2:
    case DT_F8E5M2FNUZ:
    case DT_F8E8M0:
    case DT_F4E2M1:
    case DT_U4:
    case DT_I4:
    case DT_U2:
    case DT_I2:
    case DT_NONE:
    case DT_COUNT:
        assert(false);
        break;
    }
}

static void reduce_halves(enum reduction reduction, dtype type, const void *const *from, uint32_t sources,
                          int64_t first, int64_t count, void *to)
{
    const struct gemm_kernels *k = gemm_kernels();
    float sum[BLOCK], x[BLOCK];
    for (int64_t at = 0; at < count; at += BLOCK) {
        int64_t n = count - at < BLOCK ? count - at : BLOCK;
        for (uint32_t s = 0; s < sources; s++) {
            k->widen(type, (const uint16_t *)from[s] + first + at, 1, n, s ? x : sum);
            if (s)
                combine(reduction, DT_F32, sum, x, n);
        }
        k->narrow(type, sum, n, (uint16_t *)to + at);
    }
}

static double reduce_two(enum reduction reduction, double a, double b)
{
    switch (reduction) {
    case REDUCTION_SUM:
        return a + b;
    case REDUCTION_PROD:
        return a * b;
    case REDUCTION_MAX:
        return a > b || a != a ? a : b;
    case REDUCTION_MIN:
        return a < b || a != a ? a : b;
    }
    return a;
}

/* Types of few bits: seldom (parts of a table that are gathered in its own type), so one by one. A double is exact for them all. */
static void reduce_few(enum reduction reduction, dtype type, const void *const *from, uint32_t sources, int64_t first,
                       int64_t count, void *to)
{
    for (size_t i = 0; i < (size_t)count; i++) {
        double sum = dtype_load_f64(type, from[0], (size_t)first + i);
        for (uint32_t s = 1; s < sources; s++)
            sum = reduce_two(reduction, sum, dtype_load_f64(type, from[s], (size_t)first + i));
        if (dtype_is_float(type))
            dtype_store_f64(type, to, i, sum);
        else
            dtype_store_i64(type, to, i, (int64_t)sum);
    }
}

void reduce_sources(enum reduction reduction, dtype type, const void *const *from, uint32_t sources, int64_t first,
                    int64_t count, void *to)
{
    if (type == DT_F16 || type == DT_BF16) {
        reduce_halves(reduction, type, from, sources, first, count, to);
        return;
    }
    if (dtype_is_stored(type)) {
        reduce_few(reduction, type, from, sources, first, count, to);
        return;
    }
    size_t size = dtype_size(type);
    uint64_t sum[BLOCK];
    for (int64_t at = 0; at < count; at += BLOCK) {
        int64_t n = count - at < BLOCK ? count - at : BLOCK;
        size_t offset = (size_t)(first + at) * size, bytes = (size_t)n * size;
        memcpy(sum, (const char *)from[0] + offset, bytes);
        for (uint32_t s = 1; s < sources; s++)
            combine(reduction, type, sum, (const char *)from[s] + offset, n);
        memcpy((char *)to + (size_t)at * size, sum, bytes);
    }
}
