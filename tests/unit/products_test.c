/* tests/unit/products_test.c - which products are one batched product for cuBLASLt (runtime/products_cuda.c). */
#include "runtime/device_cuda.h"
#include "tests/test.h"

enum { COUNT = 4, BUFFERS = 9 };

/* Products of buffer 0 with weights 1.., into buffers 5..: [12 x 16] by [16 x 8]. */
static void products(struct cuda_product *list)
{
    for (uint32_t i = 0; i < COUNT; i++)
        list[i] = (struct cuda_product){.type = DT_BF16,
                                        .buffer = {0, 1 + i, 5 + i},
                                        .batch = 1,
                                        .m = 12,
                                        .n = 8,
                                        .k = 16,
                                        .stride = {{16, 1}, {1, 8}, {8, 1}}};
}

static void place(void **address, const int64_t *at)
{
    for (uint32_t i = 0; i < BUFFERS; i++)
        address[i] = (void *)(uintptr_t)(4096 + at[i] * CUDA_ALIGN); /* never touched */
}

static void test_equal_distances(void **state)
{
    (void)state;
    static const struct {
        int64_t at[BUFFERS]; /* lhs, weights, results; in CUDA_ALIGN bytes */
        uint32_t taken;
    } cases[] = {{{0, 10, 20, 30, 40, 50, 51, 52, 53}, 4},
                 {{0, 10, 20, 31, 41, 50, 51, 52, 53}, 2},
                 {{0, 10, 20, 30, 40, 50, 51, 53, 54}, 2},
                 {{0, 20, 10, 30, 40, 50, 51, 52, 53}, 1},
                 {{0, 10, 20, 30, 40, 51, 50, 52, 53}, 1}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct cuda_product list[COUNT], batch;
        void *address[BUFFERS];
        products(list);
        place(address, cases[i].at);
        assert_int_equal(products_batch(list, COUNT, address, &batch), cases[i].taken);
        assert_int_equal(batch.batch, cases[i].taken);
        if (cases[i].taken == 1)
            continue;
        assert_int_equal(batch.batch_stride[0], 0);
        assert_int_equal(batch.batch_stride[1], 10 * CUDA_ALIGN / 2);
        assert_int_equal(batch.batch_stride[2], CUDA_ALIGN / 2);
    }
}

static void test_others_stay_alone(void **state)
{
    (void)state;
    static const int64_t at[BUFFERS] = {0, 10, 20, 30, 40, 50, 51, 52, 53};
    for (int what = 0; what < 6; what++) {
        struct cuda_product list[COUNT], batch;
        void *address[BUFFERS];
        products(list);
        place(address, at);
        list[1].n += what == 0 ? 8 : 0;
        list[1].type = what == 1 ? DT_F16 : DT_BF16;
        list[1].buffer[0] = what == 2 ? 3 : 0;
        list[1].stride[1][0] = what == 3 ? 16 : 1;
        list[1].offset[2] = what == 4 ? 8 : 0;
        list[0].batch = what == 5 ? 2 : 1;
        assert_int_equal(products_batch(list, COUNT, address, &batch), 1);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_equal_distances),
                                       cmocka_unit_test(test_others_stay_alone)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
