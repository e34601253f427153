/* tests/unit/dtype_test.c - conversions of the 16-bit floats, over all of their values, and element access. */
#include "ir/dtype.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h> /* needs those above */

static void test_rows(void **state)
{
    (void)state;
    assert_int_equal(dtype_from_name("bf16", 4), DT_BF16);
    assert_int_equal(dtype_from_name("bf1", 3), DT_NONE);
    assert_int_equal(dtype_from_onnx(7), DT_I64);
    assert_int_equal(dtype_from_onnx(8), DT_NONE);
    assert_int_equal(dtype_to_onnx(DT_F16), 10);
    assert_int_equal(dtype_size(DT_U16), 2);
    assert_true(dtype_is_float(DT_BF16) && dtype_is_signed(DT_BF16) && !dtype_is_int(DT_BF16));
    assert_true(dtype_is_int(DT_U8) && !dtype_is_signed(DT_U8) && !dtype_is_int(DT_BOOL));
}

/* Each value survives; between each value and the next, what lies below, at and above the middle goes where it must. */
static void check_half(uint16_t h, float (*wide)(uint16_t), uint16_t (*narrow)(double), uint16_t (*narrow_f32)(float),
                       uint16_t infinity)
{
    double x = (double)wide(h), next = (double)wide((uint16_t)(h + 1));
    assert_int_equal(narrow(x), h);
    assert_int_equal(narrow_f32((float)x), h);
    assert_int_equal(narrow(-x), h | 0x8000);
    if (h + 1 == infinity)
        next = x + (x - (double)wide((uint16_t)(h - 1))); /* where the next one would be */
    double middle = x + (next - x) / 2;
    assert_int_equal(narrow(middle), h & 1 ? h + 1 : h);
    assert_int_equal(narrow(nextafter(middle, 0)), h);
    assert_int_equal(narrow(nextafter(middle, INFINITY)), h + 1);
}

static void test_halves(void **state)
{
    (void)state;
    for (uint32_t h = 0; h < 0x7c00; h++)
        check_half((uint16_t)h, f16_to_f32, f64_to_f16, f32_to_f16, 0x7c00);
    for (uint32_t h = 0; h < 0x7f80; h++)
        check_half((uint16_t)h, bf16_to_f32, f64_to_bf16, f32_to_bf16, 0x7f80);
    assert_int_equal(f64_to_f16(1e300), 0x7c00);
    assert_int_equal(f32_to_bf16(-INFINITY), 0xff80);
    assert_int_equal(f32_to_f16(NAN) & 0x7e00, 0x7e00);
    assert_true(isnan(f16_to_f32(0x7c01)) && isnan(bf16_to_f32(0xff81)));
}

static void test_elements(void **state)
{
    (void)state;
    uint64_t room[2] = {0};
    dtype_store_i64(DT_I8, room, 3, 300);
    assert_int_equal(dtype_load_i64(DT_I8, room, 3), 44);
    dtype_store_f64(DT_I8, room, 0, -1e9);
    assert_int_equal(dtype_load_i64(DT_I8, room, 0), -128);
    dtype_store_f64(DT_U32, room, 0, 1e30);
    assert_int_equal(dtype_load_i64(DT_U32, room, 0), UINT32_MAX);
    dtype_store_f64(DT_I64, room, 0, 1e30);
    assert_int_equal(dtype_load_i64(DT_I64, room, 0), INT64_MAX);
    dtype_store_f64(DT_U64, room, 0, 0x1p63);
    assert_true(dtype_load_f64(DT_U64, room, 0) == 0x1p63);
    dtype_store_f64(DT_I32, room, 0, (double)NAN);
    assert_int_equal(dtype_load_i64(DT_I32, room, 0), 0);
    dtype_store_f64(DT_I32, room, 0, -2.9);
    assert_int_equal(dtype_load_i64(DT_I32, room, 0), -2);
    dtype_store_f64(DT_BOOL, room, 0, 0.5);
    assert_int_equal(dtype_load_i64(DT_BOOL, room, 0), 1);
    dtype_store_f64(DT_F16, room, 1, 1.5);
    assert_true(dtype_load_f64(DT_F16, room, 1) == 1.5);
}

/* Packed elements of a file, whose last byte is not full, from any place of it. */
static void test_packing(void **state)
{
    (void)state;
    const uint8_t file[] = {0x8f, 0x70, 0x05};
    const int8_t i4[] = {-1, -8, 0, 7, 5};
    int8_t some[5];
    uint8_t again[3] = {0xff, 0xff, 0xff};
    uint64_t bytes = 0;
    dtype_unpack(DT_I4, file, 0, 5, some);
    assert_memory_equal(some, i4, 5);
    dtype_unpack(DT_I4, file, 3, 2, some);
    assert_memory_equal(some, i4 + 3, 2);
    dtype_unpack(DT_U2, file, 1, 4, some);
    assert_memory_equal(some, ((uint8_t[]){3, 0, 2, 0}), 4);
    dtype_pack(DT_I4, i4, 5, again);
    assert_memory_equal(again, file, 3);
    assert_true(dtype_packed_size(DT_I2, 9, &bytes) && bytes == 3);
    assert_false(dtype_packed_size(DT_F64, UINT64_MAX / 8, &bytes));
    assert_true(dtype_is_stored(DT_F8E8M0) && dtype_is_stored(DT_I2) && !dtype_is_stored(DT_I8) &&
                !dtype_is_stored(DT_F16));
}

/* Every value of every narrow float comes back from its bits. */
static void test_narrow(void **state)
{
    (void)state;
    for (int t = DT_NONE + 1; t < DT_COUNT; t++)
        for (uint32_t bits = 0; dtype_is_narrow((dtype)t) && bits < 1u << dtype_bits((dtype)t); bits++) {
            double x = narrow_to_f64((dtype)t, bits);
            if (isnan(x))
                assert_true(isnan(narrow_to_f64((dtype)t, narrow_from_f64((dtype)t, x))));
            else
                assert_int_equal(narrow_from_f64((dtype)t, x), bits);
        }
    assert_true(narrow_largest(DT_F8E4M3FN) == 448 && narrow_largest(DT_F8E4M3FNUZ) == 240 &&
                narrow_largest(DT_F4E2M1) == 6);
    assert_true(narrow_largest(DT_F8E5M2) == 57344 && narrow_largest(DT_F16) == 65504);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_rows), cmocka_unit_test(test_halves),
                                       cmocka_unit_test(test_packing), cmocka_unit_test(test_narrow),
                                       cmocka_unit_test(test_elements)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
