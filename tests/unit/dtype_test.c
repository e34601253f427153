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

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_rows), cmocka_unit_test(test_halves),
                                       cmocka_unit_test(test_elements)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
