/* tests/unit/steer_test.c - patterns against names, styles as words, and docs/steering.md's table against the code's. */
#include "frontend/steer.h"
#include "tests/test.h"

#include <stdio.h>
#include <stdlib.h>

static void patterns_match_names(void **state)
{
    (void)state;
    static const struct {
        const char *pattern, *name;
        uint32_t tail;
        bool matches;
    } rows[] = {
        {"model.layers.*.mlp.up", "/model/layers.0/mlp/up/MatMul", 1, true},
        {"model.layers.*.mlp.up", "model.layers.17.mlp.up.weight", 1, true},
        {"layers.*.mlp.up", "/model/model/layers.3/mlp/up/MatMul", 1, true},
        {"up", "/model/layers.0/mlp/up/MatMul", 1, true},
        {"mlp", "/model/layers.0/mlp/up/MatMul", 1, false},
        {"mlp", "/model/layers.0/mlp/up/MatMul", UINT32_MAX, true},
        {"layers.1", "/model/layers.10/up", 1, false},
        {"layers.1*.up", "/model/layers.10/up", 1, true},
        {"layers.*0.up", "/model/layers.100/up", 1, true},
        {"layers.*.up", "/model/layers.0/mlp/up", 1, false},
        {"layers.**.up", "/model/layers.0/mlp/up", 1, true},
        {"**.up", "up", 1, true},
        {"**", "anything.at/all", 1, true},
        {"node_linear", "node_linear_1", 1, false},
        {"node_linear*", "node_linear_1", 1, true},
        {"/model/up/MatMul", "/model/up/MatMul", 1, true},
        {"/model/up", "/model/up/MatMul", 1, false},
        {"/up/MatMul", "/model/up/MatMul", 1, false},
        {"/model.up.MatMul", "/model/up/MatMul", 1, true},
        {"a*b*c", "axxbyyc", 0, true},
        {"a*b*c", "axxbyy", 0, false},
        {"*", "x", 0, true},
        {"x", "", 1, false},
        {"", "x", 1, false},
        {"/", "x", 1, false},
        {"...", "x", 1, false},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        if (pattern_matches(rows[i].pattern, rows[i].name, rows[i].tail) != rows[i].matches)
            fail_msg("'%s' against '%s'", rows[i].pattern, rows[i].name);
}

/* Names of more parts than are looked at, and of the kind that makes naive matchers slow. */
static void patterns_stay_fast(void **state)
{
    (void)state;
    char pattern[4000], name[20000];
    for (size_t i = 0; i + 1 < sizeof pattern; i++)
        pattern[i] = i % 2 ? '*' : 'a';
    for (size_t i = 0; i + 1 < sizeof name; i++)
        name[i] = 'a';
    pattern[sizeof pattern - 1] = name[sizeof name - 1] = 0;
    pattern[sizeof pattern - 3] = 'b';
    assert_false(pattern_matches(pattern, name, 1));
    for (size_t i = 0; i + 1 < sizeof name; i++)
        name[i] = i % 2 ? '.' : 'a';
    for (size_t i = 0; i + 1 < sizeof pattern; i++)
        pattern[i] = i % 3 == 2 ? '.' : '*';
    (void)pattern_matches(pattern, name, 1);
}

static void distances(void **state)
{
    (void)state;
    struct arena *arena = arena_new();
    assert_int_equal(text_distance(arena, "colwise", "colwise", true), 0);
    assert_int_equal(text_distance(arena, "colwize", "colwise", true), 1);
    assert_int_equal(text_distance(arena, "colwise", "packed_colwise", true), 7);
    assert_int_equal(text_distance(arena, "q_prj", "/model/q_proj/MatMul", false), 1);
    assert_int_equal(text_distance(arena, "", "abc", true), 3);
    assert_int_equal(text_distance(arena, "", "abc", false), 0);
    arena_free(arena);
}

static void styles_are_words(void **state)
{
    (void)state;
    struct layer_parts p;
    const char *wrong;
    uint32_t parts;
    for (const struct style *s = styles; s->name; s++) {
        assert_true(style_parts(s, 0, &p, &wrong));
        assert_ptr_equal(style_find(s->name, &parts), s);
        assert_int_equal(parts, 0);
        assert_true(!s->instead || style_find(s->instead, &parts));
        assert_true(!s->packed == !s->instead);
    }
    const struct style *s = style_find("colwise:4", &parts);
    assert_string_equal(s->name, "colwise");
    assert_int_equal(parts, 4);
    assert_true(style_parts(s, parts, &p, &wrong));
    assert_int_equal(p.out, 4);
    assert_int_equal(p.leaves, 4);
    assert_int_equal(p.in, PARTS_WHOLE);
    static const char *const unknown[] = {"",           "colwis",     "colwise:",
                                          "colwise:1",  "colwise:x",  "colwise:2x",
                                          "colwise:-2", "colwise: 2", "colwise:99999999999999999999"};
    for (size_t i = 0; i < sizeof unknown / sizeof *unknown; i++)
        assert_null(style_find(unknown[i], &parts));
    assert_string_equal(style_nearest("colwize"), "colwise");
    assert_string_equal(style_nearest("rowise"), "rowwise");
    assert_string_equal(style_nearest("voacb"), "vocab");
    const struct style own = {.name = "own", .input = "cut:2", .weight = "expert:3+row:2", .output = "whole"};
    assert_true(style_parts(&own, 0, &p, &wrong));
    assert_true(p.batch == 3 && p.in == 2 && p.out == 1 && p.arrives == 2 && p.leaves == 1);
    static const char *const bad[] = {"", "row+", "+row", "rows", "row:1", "row column", "any+row"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct style broken = own;
        broken.weight = bad[i];
        assert_false(style_parts(&broken, 0, &p, &wrong));
        assert_ptr_equal(wrong, bad[i]);
    }
}

static const char *fits_text(const struct style *s)
{
    return s->fits & FITS_VALUE                        ? "module"
           : s->fits == (FITS_LINEAR | FITS_EMBEDDING) ? "linear, embedding"
           : s->fits == FITS_LINEAR                    ? "linear"
                                                       : "embedding";
}

/* Every style has its row in the table, in order, with its words. */
static void documented(void **state)
{
    (void)state;
    const char *source = getenv("SOURCE");
    char path[512], line[1000], row[400];
    snprintf(path, sizeof path, "%s/docs/steering.md", source ? source : "../..");
    FILE *f = fopen(path, "r");
    assert_non_null(f);
    const struct style *s = styles;
    bool inside = false;
    while (fgets(line, sizeof line, f)) {
        inside = (inside || strstr(line, "<!-- styles -->")) && !strstr(line, "<!-- end of styles -->");
        if (!inside || strncmp(line, "| `", 3) != 0)
            continue;
        assert_non_null(s->name);
        snprintf(row, sizeof row, "| `%s` | %s | %s | %s | %s | ", s->name, fits_text(s), s->input, s->weight,
                 s->output);
        if (strncmp(line, row, strlen(row)) != 0)
            fail_msg("the table has\n%swhere the code has\n%s", line, row);
        s++;
    }
    fclose(f);
    assert_null(s->name);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(patterns_match_names), cmocka_unit_test(patterns_stay_fast),
                                       cmocka_unit_test(distances), cmocka_unit_test(styles_are_words),
                                       cmocka_unit_test(documented)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
