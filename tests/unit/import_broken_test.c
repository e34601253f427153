/* tests/unit/import_broken_test.c - what the ONNX importer says of files that are broken: one line, a status, and nothing leaks. */
#include "frontend/onnx/onnx.h"
#include "tests/support/onnx_model.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h> /* needs those above */

static struct arena *arena;
static char said[4000]; /* all diagnostics since setup, one per line */
static unsigned lines;

static void note(void *user, severity level, const char *line)
{
    size_t at = strlen(said);
    (void)user;
    (void)level;
    lines++;
    snprintf(said + at, sizeof said - at, "%s\n", line);
}
static struct diag diag = {.sink = note};

static int setup(void **state)
{
    (void)state;
    arena = arena_new();
    said[0] = '\0';
    lines = 0;
    return 0;
}
static int teardown(void **state)
{
    (void)state;
    arena_free(arena);
    return 0;
}

static status import_with(struct made *m, const struct import_options *options, struct graph **g)
{
    struct wire_bytes b = made_pack(m);
    return onnx_import_bytes(arena, "m.onnx", b.at, b.length, options, &diag, g);
}

static void refused(struct made *m, status wanted, const char *words)
{
    struct graph *g = NULL;
    assert_int_equal(import_with(m, NULL, &g), wanted);
    assert_null(g);
    if (!strstr(said, words))
        fail_msg("said: %s", said);
}

static const float weights[300] = {1.5F, 2.5F, 3.5F};

/* ---- broken files ------------------------------------------------------------------------------------------- */

static struct made *make_plain(void)
{
    static const int64_t shape[2] = {0, -1};
    struct made *m = made_new(arena);
    m->model.n_opset_import = 1;
    made_input(m, "x", DT_F32, "batch 300");
    made_tensor(m, "w", DT_F32, 300, weights);
    made_tensor(m, "shape", DT_I64, 2, shape);
    made_node(m, "Add", "x w", "a");
    made_node(m, "Reshape", "a shape", "b");
    made_int(made_node(m, "Softmax", "b", "y"), "axis", 1);
    made_output(m, "y");
    return m;
}

static void test_truncated(void **state)
{
    (void)state;
    struct wire_bytes b = made_pack(make_plain());
    for (size_t n = 0; n < b.length; n++) {
        struct graph *g = NULL;
        struct arena *own = arena_new();
        said[0] = '\0';
        uint8_t *copy = malloc(n ? n : 1); /* exactly as long, so that a read past the end is seen */
        assert_non_null(copy);
        memcpy(copy, b.at, n);
        assert_int_not_equal(onnx_import_bytes(own, "m.onnx", copy, n, NULL, &diag, &g), TPC_OK);
        assert_int_not_equal(said[0], '\0');
        free(copy);
        arena_free(own);
    }
}

static void test_flipped(void **state)
{
    (void)state;
    struct wire_bytes b = made_pack(make_plain());
    uint8_t *copy = arena_copy(arena, b.at, b.length);
    for (size_t bit = 0; bit < 8 * b.length; bit++) {
        struct graph *g = NULL;
        if (bit > 8 * 400 && bit < 8 * 1200 && bit % 64) /* within the weights, where nothing can happen */
            continue;
        struct arena *own = arena_new();
        said[0] = '\0';
        copy[bit / 8] ^= (uint8_t)(1 << bit % 8);
        onnx_import_bytes(own, "m.onnx", copy, b.length, NULL, &diag, &g);
        copy[bit / 8] ^= (uint8_t)(1 << bit % 8);
        arena_free(own);
    }
}

static void test_not_onnx(void **state)
{
    (void)state;
    struct graph *g = NULL;
    assert_int_equal(onnx_import_bytes(arena, "m.onnx", "", 0, NULL, &diag, &g), TPC_DATA);
    assert_non_null(strstr(said, "the file is empty"));
    assert_int_equal(onnx_import_bytes(arena, "m.onnx", "#!/bin/sh\nexit\n", 15, NULL, &diag, &g), TPC_DATA);
    assert_int_equal(onnx_import(arena, "/no/such/model.onnx", NULL, &diag, &g), TPC_NOINPUT);
    assert_int_equal(onnx_import(arena, "/dev/null", NULL, &diag, &g), TPC_DATA);
    assert_int_equal(onnx_import(arena, "/tmp", NULL, &diag, &g), TPC_DATA);
}

/* Attributes that hold graphs that hold nodes that hold attributes ... */
static void test_depth_bomb(void **state)
{
    (void)state;
    enum { LEVELS = 5000 };
    struct graph *g = NULL;
    uint8_t *bytes = arena_alloc(arena, LEVELS * 16);
    size_t at = LEVELS * 16, end = at;
    for (int i = 0; i < LEVELS; i++) {
        static const uint8_t tags[] = {0x0a, 0x2a, 0x32}; /* node, attribute, graph */
        size_t length = end - at;
        uint8_t number[10], n = 0;
        for (; length >= 0x80; length >>= 7)
            number[n++] = (uint8_t)(length | 0x80);
        number[n++] = (uint8_t)length;
        at -= n;
        memcpy(bytes + at, number, n);
        bytes[--at] = i == LEVELS - 1 ? 0x3a : tags[(LEVELS - 2 - i) % 3];
    }
    assert_int_equal(onnx_import_bytes(arena, "m.onnx", bytes + at, end - at, NULL, &diag, &g), TPC_DATA);
    assert_non_null(strstr(said, "nest too deeply"));
    assert_int_equal(lines, 1);
}

/* A million empty nodes in two million bytes: no room for what they would become. */
static void test_small_messages(void **state)
{
    (void)state;
    enum { COUNT = 1000000 };
    struct graph *g = NULL;
    uint8_t *bytes = arena_alloc(arena, 2 * COUNT + 16);
    static const uint8_t head[] = {0x3a, 0x80, 0x89, 0x7a}; /* graph of 2000000 bytes */
    memcpy(bytes, head, sizeof head);
    for (size_t i = 0; i < COUNT; i++)
        bytes[sizeof head + 2 * i] = 0x0a;
    assert_int_equal(onnx_import_bytes(arena, "m.onnx", bytes, sizeof head + 2 * COUNT, NULL, &diag, &g), TPC_DATA);
    assert_non_null(strstr(said, "too many small messages"));
}

static void test_wrong_types(void **state)
{
    (void)state;
    struct made *m = made_new(arena);
    made_input(m, "x", DT_F32, "4");
    made_input(m, "y", DT_I64, "4");
    made_node(m, "Add", "x y", "z");
    made_output(m, "z");
    refused(m, TPC_DATA, "operand types differ: f32 and i64");
    m = made_new(arena);
    made_input(m, "x", DT_F32, "4 5");
    made_input(m, "y", DT_F32, "4 5");
    made_node(m, "MatMul", "x y", "z");
    made_output(m, "z");
    refused(m, TPC_DATA, "node 0 'the MatMul' (MatMul): error: inner dimensions differ: 5 and 4");
}

static void test_no_memory(void **state)
{
    (void)state;
    struct wire_bytes b = made_pack(make_plain());
    status s = TPC_NOMEM;
    for (uint64_t n = 1; s == TPC_NOMEM; n++) {
        struct graph *g = NULL;
        struct arena *own = arena_new();
        base_fail_after(n);
        s = onnx_import_bytes(own, "m.onnx", b.at, b.length, NULL, &diag, &g);
        base_fail_after(0);
        arena_free(own);
        said[0] = '\0';
    }
    assert_int_equal(s, TPC_OK);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(test_##name, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(truncated), T(flipped), T(not_onnx), T(depth_bomb), T(small_messages), T(wrong_types), T(no_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
