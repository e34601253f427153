/* tests/unit/base_test.c - diagnostics, texts, maps, hashing. */
#include "ir/base.h"
#include "tests/test.h"

#include <stdlib.h>
#include <unistd.h>

/* ---- diagnostics -------------------------------------------------------------------------------------------- */

static char heard[1100];
static severity heard_level;

static void hear(void *user, severity level, const char *line)
{
    (void)user;
    heard_level = level;
    snprintf(heard, sizeof heard, "%s", line);
}

static void test_diagnostics_are_counted_and_named(void **state)
{
    (void)state;
    struct diag d = {.sink = hear};
    assert_int_equal(diag_error(&d, TPC_DATA, "model.onnx: node 17 'up' (MatMul)", "inner dimensions differ: %d and %d",
                                4096, 11008),
                     TPC_DATA);
    assert_string_equal(heard, "model.onnx: node 17 'up' (MatMul): error: inner dimensions differ: 4096 and 11008");
    assert_int_equal(heard_level, DIAG_ERROR);
    diag_warning(&d, "", "no compiler");
    assert_string_equal(heard, "tpc: warning: no compiler");
    assert_int_equal(heard_level, DIAG_WARNING);
    diag_note(&d, NULL, "100%%");
    assert_string_equal(heard, "tpc: note: 100%");
    assert_int_equal(d.errors, 1);
    assert_int_equal(d.warnings, 1);
}

static void test_diagnostics_escape_what_a_terminal_would_obey(void **state)
{
    (void)state;
    struct diag d = {.sink = hear};
    diag_note(&d, "a\nb", "'%s'", "\x1b[31m\t\x7f");
    assert_string_equal(heard, "a\\x0ab: note: '\\x1b[31m\\x09\\x7f'");
    diag_note(&d, NULL, "%s",
              "Gr\xc3\xb6\xc3\x9f"
              "e \xe2\x82\xac \xf0\x9f\x98\x80"); /* well-formed: kept */
    assert_string_equal(heard, "tpc: note: Gr\xc3\xb6\xc3\x9f"
                               "e \xe2\x82\xac \xf0\x9f\x98\x80");
    /* lone continuation, overlong, surrogate, beyond U+10FFFF, C1 control, cut short */
    static const char *const bad[][2] = {
        {"\x80", "\\x80"},
        {"\xc0\xaf", "\\xc0\\xaf"},
        {"\xe0\x80\xaf", "\\xe0\\x80\\xaf"},
        {"\xed\xa0\x80", "\\xed\\xa0\\x80"},
        {"\xf4\x90\x80\x80", "\\xf4\\x90\\x80\\x80"},
        {"\xc2\x9b", "\\xc2\\x9b"},
        {"\xe2\x82", "\\xe2\\x82"},
        {"\xff", "\\xff"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        diag_note(&d, NULL, "%s", bad[i][0]);
        assert_string_equal(heard + strlen("tpc: note: "), bad[i][1]);
    }
}

static void test_diagnostics_are_cut_at_1000_bytes(void **state)
{
    (void)state;
    struct diag d = {.sink = hear};
    char name[3000];
    const size_t head = strlen("tpc: note: ");
    memset(name, 'x', sizeof name);
    for (size_t length = 980; length < 995; length++) {
        name[length] = 0;
        diag_note(&d, NULL, "%s", name);
        size_t whole = head + length;
        assert_int_equal(strlen(heard), whole <= 1000 ? whole : 1000);
        assert_int_equal(strcmp(heard + strlen(heard) - 3, "...") == 0, whole > 1000);
        name[length] = 'x';
    }
    name[sizeof name - 1] = 0;
    diag_note(&d, name, "%s", name);
    assert_int_equal(strlen(heard), 1000);
    memset(name, '\n', sizeof name - 1); /* each becomes four bytes */
    diag_note(&d, NULL, "%s", name);
    assert_in_range(strlen(heard), 995, 1000);
    assert_string_equal(heard + strlen(heard) - 7, "\\x0a...");
    for (size_t i = 0; i + 2 < sizeof name; i += 2) /* no character is cut in two */
        memcpy(name + i, "\xc3\xb6", 3);
    for (int shift = 0; shift < 2; shift++) {
        diag_note(&d, NULL, "%s%s", shift ? "x" : "", name);
        assert_in_range(strlen(heard), 998, 1000);
        assert_null(strchr(heard, '\\'));
        assert_string_equal(heard + strlen(heard) - 5, "\xc3\xb6...");
    }
}

static void test_diagnostics_without_sink_go_to_stderr(void **state)
{
    (void)state;
    FILE *file = tmpfile();
    int saved = dup(STDERR_FILENO);
    assert_true(file && saved >= 0);
    fflush(stderr);
    dup2(fileno(file), STDERR_FILENO);
    struct diag d = {0};
    diag_warning(&d, "plan.bin", "old");
    status s = diag_error(NULL, TPC_IO, NULL, "disk full");
    fflush(stderr);
    dup2(saved, STDERR_FILENO);
    close(saved);
    char text[200];
    rewind(file);
    size_t length = fread(text, 1, sizeof text - 1, file);
    text[length] = 0;
    fclose(file);
    assert_int_equal(s, TPC_IO);
    assert_int_equal(d.warnings, 1);
    assert_string_equal(text, "plan.bin: warning: old\ntpc: error: disk full\n");
}

/* ---- texts -------------------------------------------------------------------------------------------------- */

static void test_text(void **state)
{
    (void)state;
    struct arena *arena = arena_new();
    struct text t = {.arena = arena};
    text_put(&t, "");
    assert_string_equal(t.at, "");
    text_put(&t, "[batch");
    text_putn(&t, ", seqX", 5);
    text_printf(&t, ", %d]", 64);
    assert_string_equal(t.at, "[batch, seq, 64]");
    assert_int_equal(t.length, strlen(t.at));
    size_t before = t.length;
    text_printf(&t, "%*d", 5000, 7);
    assert_int_equal(t.length, before + 5000);
    for (int i = 0; i < 5000; i++)
        text_printf(&t, "%d", i % 10);
    assert_int_equal(strlen(t.at), before + 10000);
    text_putn(&t, "\0z", 2);
    assert_int_equal(t.length, before + 10002);
    assert_int_equal(t.at[t.length - 1], 'z');
    for (size_t length = 0; length < 200; length++) { /* every way to meet the end of the room */
        struct text small = {.arena = arena};
        text_put(&small, "ab");
        text_printf(&small, "%*s", (int)length, "");
        text_put(&small, "c");
        assert_int_equal(small.length, length + 3);
        assert_int_equal(strlen(small.at), small.length);
    }
    arena_free(arena);
}

/* ---- maps --------------------------------------------------------------------------------------------------- */

static void test_map(void **state)
{
    (void)state;
    struct arena *arena = arena_new();
    struct map m = {.arena = arena};
    bool added = false;
    assert_null(map_find(&m, "x", 1));
    for (uint32_t i = 0; i < 5000; i++) {
        char key[16];
        size_t length = (size_t)snprintf(key, sizeof key, "node_%u", (unsigned)i);
        uint32_t *value = map_put(&m, key, length, &added);
        assert_true(added);
        assert_int_equal(*value, 0);
        *value = i;
        memset(key, 0, sizeof key); /* the map has its own copy */
    }
    assert_int_equal(m.count, 5000);
    for (uint32_t i = 0; i < 5000; i++) {
        char key[16];
        size_t length = (size_t)snprintf(key, sizeof key, "node_%u", (unsigned)i);
        uint32_t *value = map_find(&m, key, length);
        assert_non_null(value);
        assert_int_equal(*value, i);
        assert_ptr_equal(map_put(&m, key, length, &added), value);
        assert_false(added);
        assert_null(map_find(&m, key, length + 1)); /* with its terminator: another key */
    }
    assert_null(map_find(&m, "", 0));
    *map_put(&m, "", 0, NULL) = 77;
    assert_int_equal(*map_find(&m, NULL, 0), 77);
    assert_int_equal(m.count, 5001);
    const uint32_t key[] = {1, 0, 2};
    *map_put(&m, key, sizeof key, NULL) = 78; /* any bytes are a key */
    assert_int_equal(*map_find(&m, key, sizeof key), 78);
    assert_null(map_find(&m, key, 4));
    arena_free(arena);
}

static void test_hash(void **state)
{
    (void)state;
    assert_true(hash_bytes("", 0, 0) == UINT64_C(0x2d06800538d394c2)); /* XXH3, as published */
    assert_true(hash_bytes("a", 1, 0) != hash_bytes("a", 1, 1));
    assert_true(hash_bytes(NULL, 0, 0) == hash_bytes("", 0, 0));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_diagnostics_are_counted_and_named),
        cmocka_unit_test(test_diagnostics_escape_what_a_terminal_would_obey),
        cmocka_unit_test(test_diagnostics_are_cut_at_1000_bytes),
        cmocka_unit_test(test_diagnostics_without_sink_go_to_stderr),
        cmocka_unit_test(test_text),
        cmocka_unit_test(test_map),
        cmocka_unit_test(test_hash),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
