/* tests/unit/gemm_test.c - dots with all kinds of strides, shapes and types against the definition, with one worker and with three. */
#include "runtime/gemm.h"
#include "tests/test.h"

#include <math.h>
#include <stdlib.h>

static uint64_t random_state = 1;

static uint32_t random_below(uint32_t n)
{
    random_state = random_state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)((random_state >> 33) % n);
}

static double random_number(dtype type)
{
    if (type == DT_BOOL)
        return random_below(2);
    if (!dtype_is_float(type))
        return (double)random_below(7) - (dtype_is_signed(type) ? 3 : 0);
    return (double)random_below(2001) / 1000 - 1;
}

/* Strides for the axes that operand o has, in a random order of storage, sometimes with gaps; the number of elements that they span. */
static size_t random_strides(struct dot_view *v, int o)
{
    uint32_t axes = v->batch + v->m + v->n + v->k, order[MAX_RANK], count = 0;
    for (uint32_t a = 0; a < axes; a++) {
        bool m = a >= v->batch && a < v->batch + v->m, n = a >= v->batch + v->m && a < v->batch + v->m + v->n;
        bool k = a >= v->batch + v->m + v->n;
        v->stride[o][a] = 0;
        if ((o == 0 && n) || (o == 1 && m) || (o == 2 && k))
            continue;
        uint32_t at = random_below(3) ? count : random_below(count + 1);
        memmove(order + at + 1, order + at, (count - at) * sizeof *order);
        order[at] = a;
        count++;
    }
    int64_t stride = random_below(6) ? 1 : 2;
    for (uint32_t i = count; i-- > 0;) {
        v->stride[o][order[i]] = stride;
        stride *= v->extent[order[i]] + (random_below(8) ? 0 : 3);
    }
    v->offset[o] = random_below(4);
    return (size_t)(stride + v->offset[o]);
}

static int64_t element(const struct dot_view *v, int o, const int64_t *c)
{
    int64_t at = v->offset[o];
    for (uint32_t a = 0; a < v->batch + v->m + v->n + v->k; a++)
        at += c[a] * v->stride[o][a];
    return at;
}

/* Moves coordinates [first, end) to the next point; false after the last. */
static bool next(const struct dot_view *v, int64_t *c, uint32_t first, uint32_t end)
{
    for (uint32_t a = end; a-- > first;) {
        if (++c[a] < v->extent[a])
            return true;
        c[a] = 0;
    }
    return false;
}

static void compare(const struct dot_view *v, dtype type, const void *lhs, const void *rhs, const void *out)
{
    uint32_t kept = v->batch + v->m + v->n, axes = kept + v->k;
    int64_t c[MAX_RANK] = {0};
    double tolerance = type == DT_F64 ? 1e-12 : type == DT_F32 ? 2e-5 : type == DT_F16 ? 2e-3 : 1e-2;
    do {
        double sum = 0, size = 0;
        int64_t whole = 0;
        for (uint32_t a = kept; a < axes; a++)
            c[a] = 0;
        bool empty = false;
        for (uint32_t a = kept; a < axes; a++)
            empty = empty || v->extent[a] == 0;
        if (!empty)
            do {
                size_t l = (size_t)element(v, 0, c), r = (size_t)element(v, 1, c);
                if (dtype_is_float(type)) {
                    double term = dtype_load_f64(type, lhs, l) * dtype_load_f64(type, rhs, r);
                    sum += term;
                    size += fabs(term);
                } else {
                    whole += dtype_load_i64(type, lhs, l) * dtype_load_i64(type, rhs, r);
                }
            } while (next(v, c, kept, axes));
        size_t at = (size_t)element(v, 2, c);
        if (dtype_is_float(type)) {
            double got = dtype_load_f64(type, out, at);
            if (!(fabs(got - sum) <= tolerance * (size + 1e-3)))
                fail_msg("%s: got %g, expected %g", dtype_name(type), got, sum);
        } else {
            unsigned char expected[8];
            dtype_store_i64(type, expected, 0, type == DT_BOOL ? whole != 0 : whole);
            assert_int_equal(dtype_load_i64(type, out, at), dtype_load_i64(type, expected, 0));
        }
    } while (next(v, c, 0, kept));
}

static void one_dot(struct workers *w, dtype type, const uint32_t count[4], const int64_t *extent)
{
    struct dot_view v = {.batch = count[0], .m = count[1], .n = count[2], .k = count[3]};
    bool empty = false;
    for (uint32_t a = 0; a < count[0] + count[1] + count[2] + count[3]; a++) {
        v.extent[a] = extent[a];
        empty = empty || (extent[a] == 0 && a < count[0] + count[1] + count[2]);
    }
    void *buffer[3];
    uint64_t elements[3];
    for (int o = 0; o < 3; o++) {
        elements[o] = random_strides(&v, o) + 1;
        buffer[o] = calloc(elements[o], dtype_size(type));
        for (size_t i = 0; i < elements[o]; i++)
            dtype_store_f64(type, buffer[o], i, random_number(type));
    }
    assert_true(dot_view_fits(&v, elements));
    assert_int_equal(gemm_dot(&v, type, buffer[0], buffer[1], buffer[2], w), TPC_OK);
    if (!empty)
        compare(&v, type, buffer[0], buffer[1], buffer[2]);
    for (int o = 0; o < 3; o++)
        free(buffer[o]);
}

static void random_dots(void **state)
{
    (void)state;
    static const dtype types[] = {DT_F32, DT_F32, DT_F32, DT_F16, DT_BF16, DT_F64, DT_I64, DT_I32, DT_U8, DT_BOOL};
    static const int64_t small[] = {1, 2, 3, 4, 5, 7, 11, 13, 17, 33, 0}, large[] = {1, 4, 31, 64, 129, 200, 391, 530};
    struct workers *pools[] = {workers_new(1), workers_new(3)};
    int rounds = sanitized() ? 200 : 600;
    for (int i = 0; i < rounds; i++) {
        uint32_t count[4] = {random_below(3), random_below(3), random_below(3), random_below(3)}, axes = 0;
        bool big = i % 10 == 0;
        if (big)
            count[0] = count[1] = count[2] = count[3] = 1;
        int64_t extent[MAX_RANK];
        for (int g = 0; g < 4; g++)
            for (uint32_t a = 0; a < count[g]; a++, axes++)
                extent[axes] = big ? (g ? large[random_below(8)] : 1 + random_below(2))
                                   : small[random_below(i % 7 == 0 ? 11
                                                        : axes > 4 ? 4
                                                                   : 9)];
        one_dot(pools[i % 2], types[random_below(10)], count, extent);
    }
    workers_free(pools[0]);
    workers_free(pools[1]);
}

static void past_the_end_is_seen(void **state)
{
    (void)state;
    struct dot_view v = {.m = 1, .n = 1, .k = 1, .extent = {2, 3, 4}, .stride = {{4, 0, 1}, {0, 4, 1}, {3, 1, 0}}};
    assert_true(dot_view_fits(&v, (uint64_t[]){8, 12, 6}));
    assert_false(dot_view_fits(&v, (uint64_t[]){7, 12, 6}));
    assert_false(dot_view_fits(&v, (uint64_t[]){8, 11, 6}));
    assert_false(dot_view_fits(&v, (uint64_t[]){8, 12, 5}));
    v.stride[0][0] = INT64_MAX / 2;
    v.extent[0] = 5;
    assert_false(dot_view_fits(&v, (uint64_t[]){UINT64_MAX, 12, UINT64_MAX}));
}

static void every_kernel_agrees(void **state)
{
    (void)state;
    enum { M = 37, N = 75, K = 300 };
    float *a = calloc(M * K, 4), *b = calloc(K * N, 4), *out = calloc(M * N, 4);
    for (int i = 0; i < M * K; i++)
        a[i] = (float)random_number(DT_F32);
    for (int i = 0; i < K * N; i++)
        b[i] = (float)random_number(DT_F32);
    struct gemm_call c = {.m = M,
                          .n = N,
                          .k = K,
                          .a = a,
                          .b = b,
                          .out = out,
                          .lda = K,
                          .ldb = N,
                          .ldo = N,
                          .scratch = malloc(GEMM_SCRATCH)};
    gemm_kernels()->gemm_f32(&c);
    for (int m = 0; m < M; m++)
        for (int n = 0; n < N; n++) {
            double sum = 0;
            for (int k = 0; k < K; k++)
                sum += (double)a[m * K + k] * (double)b[k * N + n];
            assert_true(fabs(sum - (double)out[m * N + n]) < 1e-4);
        }
    free(c.scratch);
    free(a);
    free(b);
    free(out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(random_dots),
        cmocka_unit_test(past_the_end_is_seen),
        cmocka_unit_test(every_kernel_agrees),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
