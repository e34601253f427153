/* tests/unit/npy_test.c - .npy files and tensors as text: there and back, every dtype, and what must be refused. */
#include "runtime/tensor_file.h"

#include <setjmp.h>
#include <stdlib.h>

#include <cmocka.h>

static char last_line[1100];

static void keep_line(void *user, severity level, const char *line)
{
    (void)user;
    (void)level;
    snprintf(last_line, sizeof last_line, "%s", line);
}

static struct diag quiet = {.sink = keep_line};

static void there_and_back(void **state)
{
    (void)state;
    struct arena *arena = arena_new();
    for (int d = 1; d < DT_COUNT; d++)
        for (uint32_t rank = 0; rank < 5; rank++) {
            int64_t shape[] = {2, 3, rank == 4 ? 0 : 5, 7};
            struct tensor t, back;
            assert_true(tensor_new(arena, &t, (dtype)d, rank, shape));
            tensor_random(&t, (uint64_t)d, 100);
            assert_int_equal(npy_write(arena, "there.npy", &t, &quiet), TPC_OK);
            assert_int_equal(npy_read(arena, "there.npy", &quiet, &back), TPC_OK);
            tensor_as(&back, (dtype)d);
            assert_int_equal(back.dtype, t.dtype);
            assert_int_equal(back.rank, t.rank);
            assert_memory_equal(back.shape, t.shape, rank * sizeof *shape);
            assert_memory_equal(back.data, t.data, tensor_bytes(&t));
        }
    remove("there.npy");
    arena_free(arena);
}

/* A file as numpy writes it, with this header and these bytes. */
static status parse(struct arena *arena, const char *header, const void *bytes, size_t length, struct tensor *t)
{
    char *file = arena_alloc(arena, 10 + strlen(header) + length);
    memcpy(file, "\x93NUMPY\1", 8);
    file[8] = (char)strlen(header);
    memcpy(file + 10, header, strlen(header));
    if (length)
        memcpy(file + 10 + strlen(header), bytes, length);
    return npy_parse(arena, "x.npy", file, 10 + strlen(header) + length, &quiet, t);
}

static void foreign_forms(void **state)
{
    (void)state;
    struct arena *arena = arena_new();
    struct tensor t;
    static const unsigned char big[] = {0, 1, 0, 2, 0, 3, 0, 4, 0, 5, 0, 6};
    assert_int_equal(parse(arena, "{'descr': '>i2', 'fortran_order': False, 'shape': (2, 3), }\n", big, 12, &t),
                     TPC_OK);
    assert_int_equal(t.dtype, DT_I16);
    assert_int_equal(dtype_load_i64(DT_I16, t.data, 5), 6);
    static const int32_t columns[] = {0, 10, 1, 11, 2, 12};
    assert_int_equal(parse(arena, "{'shape': (2L, 3L), 'fortran_order': True, 'descr': '<i4'}", columns, 24, &t),
                     TPC_OK);
    static const int32_t rows[] = {0, 1, 2, 10, 11, 12};
    assert_memory_equal(t.data, rows, 24);
    assert_int_equal(parse(arena, "{'descr': '|V2', 'fortran_order': False, 'shape': (), }", "\x80\x3f", 2, &t),
                     TPC_OK);
    assert_int_equal(t.dtype, DT_BF16);
    assert_true(dtype_load_f64(t.dtype, t.data, 0) == 1.0);
    arena_free(arena);
}

static void bad_files(void **state)
{
    (void)state;
    static const char *const headers[] = {
        "",
        "{",
        "{}",
        "{'descr': '<f4', 'fortran_order': False}",
        "{'descr': '<c8', 'fortran_order': False, 'shape': (1,), }",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (2,), }",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (-1,), }",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999999999999,), }",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (4611686018427387904, 4,), }",
        "{'descr': '<f4', 'descr': '<f4', 'fortran_order': False, 'shape': (1,), }",
        "{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (1,), }",
        "{'descr': '<f4",
        "{'descr': '<f4', 'fortran_order': Maybe, 'shape': (1,), }",
        "{'descr': 'xf4', 'fortran_order': False, 'shape': (1,), }"};
    struct arena *arena = arena_new();
    for (size_t i = 0; i < sizeof headers / sizeof *headers; i++) {
        struct tensor t;
        assert_int_equal(parse(arena, headers[i], "abcd", 4, &t), TPC_DATA);
    }
    /* Every truncation and every flipped byte: refused or read, never a crash. */
    const char *header = "{'descr': '<f4', 'fortran_order': False, 'shape': (1, 1), }";
    size_t length = 10 + strlen(header) + 4;
    char *file = arena_alloc(arena, length);
    memcpy(file, "\x93NUMPY\1", 8);
    file[8] = (char)strlen(header);
    memcpy(file + 10, header, strlen(header));
    for (size_t n = 0; n < length; n++) {
        struct tensor t;
        char *cut = malloc(n + 1);
        memcpy(cut, file, n);
        assert_int_equal(npy_parse(arena, "x.npy", cut, n, &quiet, &t), TPC_DATA);
        free(cut);
        for (int bit = 0; bit < 8; bit++) {
            file[n] = (char)(file[n] ^ 1 << bit);
            (void)npy_parse(arena, "x.npy", file, length, &quiet, &t);
            file[n] = (char)(file[n] ^ 1 << bit);
        }
    }
    struct tensor t = {.dtype = DT_F32};
    assert_int_equal(npy_read(arena, "no such.npy", &quiet, &t), TPC_NOINPUT);
    assert_int_equal(npy_read(arena, "/", &quiet, &t), TPC_DATA);
    assert_int_equal(npy_read(arena, "/dev/zero", &quiet, &t), TPC_DATA);
    assert_int_equal(npy_write(arena, "/no/such/folder.npy", &t, &quiet), TPC_IO);
    arena_free(arena);
}

static void text(void **state)
{
    (void)state;
    struct arena *arena = arena_new();
    struct tensor t;
    assert_int_equal(tensor_parse(arena, "2x3xi64=1,2,-3,4,5,6", &quiet, &t), TPC_OK);
    assert_int_equal(t.rank, 2);
    assert_int_equal(((int64_t *)t.data)[2], -3);
    assert_int_equal(tensor_parse(arena, "f32=0.5", &quiet, &t), TPC_OK);
    assert_int_equal(t.rank, 0);
    assert_true(*(float *)t.data == 0.5f);
    assert_int_equal(tensor_parse(arena, "1x0x4xf16=", &quiet, &t), TPC_OK);
    assert_int_equal(t.count, 0);
    assert_int_equal(tensor_parse(arena, "2x2xbool=true,false,1,0", &quiet, &t), TPC_OK);
    assert_memory_equal(t.data, "\1\0\1\0", 4);
    assert_int_equal(tensor_parse(arena, "4xu8=255", &quiet, &t), TPC_OK);
    assert_memory_equal(t.data, "\xff\xff\xff\xff", 4);
    static const char *const bad[] = {"",
                                      "2x3",
                                      "2x3x=1",
                                      "2xi64=1,2,3",
                                      "2xi64=1,",
                                      "2xi64=1;2",
                                      "2xi64=a,b",
                                      "-1xi64=",
                                      "2xi65=1,2",
                                      "i8=200",
                                      "u8=-1",
                                      "i64=1 ",
                                      "i64=9223372036854775808",
                                      "99999999999999999999xf32=",
                                      "=",
                                      "2xi64=1,2x"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_int_equal(tensor_parse(arena, bad[i], &quiet, &t), TPC_DATA);
    arena_free(arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(there_and_back),
        cmocka_unit_test(foreign_forms),
        cmocka_unit_test(bad_files),
        cmocka_unit_test(text),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
