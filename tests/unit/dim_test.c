/* tests/unit/dim_test.c - dims: normal form, division, bounds, assumptions, text, and random expressions against plain evaluation. */
#include "ir/dim.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h> /* needs those above */

static struct arena *arena;
static struct dims *t;

static int setup(void **state)
{
    (void)state;
    arena = arena_new();
    t = dims_new(arena);
    return arena ? 0 : -1;
}
static int teardown(void **state)
{
    (void)state;
    arena_free(arena);
    return 0;
}

static dim parse(const char *text)
{
    const char *at = text;
    dim d = dim_parse(t, &at, text + strlen(text));
    assert_int_equal(*at, '\0');
    assert_true(dim_valid(d));
    return d;
}

/* Parses `text` and expects it to print as `printed`, which must parse to the same dim. */
static void check(const char *text, const char *printed)
{
    dim d = parse(text);
    assert_string_equal(dim_text(t, d, arena), printed);
    assert_int_equal(parse(printed), d);
}

static void test_normal_form(void **state)
{
    (void)state;
    (void)parse("a + b + c");
    check("12", "12");
    check("b + a", "a + b");
    check("a - a", "0");
    check("2*(a + b) - b*2", "2*a");
    check("(a + 1)*(a - 1)", "a*a - 1");
    check("2*b*(a + 1)", "2*a*b + 2*b");
    check("3 - a", "3 - a");
    check("-(a + 2)", "-a - 2");
    check("a*b/b", "a");
    check("(2*a*b + 4*b)/(2*b)", "a + 2");
    check("(a*a - 1)/(a + 1)", "a - 1");
    check("(a*b)/c", "(a*b)/c");
    check("(a*b*c)/(c*c)", "(a*b)/c");
    check("(4*a)/(6*b)", "(2*a)/(3*b)");
    check("(2*a + 1)/2", "a");
    check("(5*a + 7)/2", "2*a + (a + 1)/2 + 3");
    check("(a/2)/3", "a/6");
    check("(3 - a)/2", "-((a - 3)/2)");
    check("mod(4*a, 2)", "0");
    check("mod(4*a + 3, 2)", "1");
    check("a + mod(256 - mod(a, 256), 256)", "256*ceildiv(a, 256)");
    check("(a + mod(4 - mod(a, 4), 4)) / 4", "ceildiv(a, 4)");
    check("mod(3*mod(a, 8) + b, 8)", "mod(3*a + b, 8)");
    check("mod(a + 3*mod(a, 4), 4)", "0");
    check("mod(a + 3*mod(a - 1, 4) - 1, 4)", "mod(a + 3*mod(a - 1, 4) - 1, 4)"); /* a may be 0 */
    check("mod(mod(a, 4) + 3, 4)", "mod(a + 3, 4)");
    check("mod(6*a, 4*b)", "2*mod(3*a, 2*b)");
    check("ceildiv(4*a + 1, 4)", "a + 1");
    check("ceildiv(a, 4)", "ceildiv(a, 4)");
    check("max(0, a)", "a");
    check("min(0, a)", "0");
    check("max(a + 1, a)", "a + 1");
    check("max(b, max(a, b))", "max(a, b)");
    check("min(a, max(a, b))", "a");
    check("7/2", "3");
    check("-7/2", "-3");
    check("mod(-7, 2)", "-1");
    check("ceildiv(-7, 2)", "-3");
    check("ceildiv(7, 2)", "4");
}

static void test_names(void **state)
{
    (void)state;
    assert_int_equal(parse("s:3"), dim_part_size(t, 3));
    assert_int_equal(parse("o:3 + rank"), dim_add(t, dim_part_offset(t, 3), dim_rank(t)));
    assert_int_equal(parse("c2"), dim_coordinate(t, 2));
    dim odd = dim_symbol(t, "rank"), blank = dim_symbol(t, "batch \"size\"\n");
    assert_int_not_equal(odd, dim_rank(t));
    check("\"rank\" + \"c2\"", "\"rank\" + \"c2\"");
    assert_string_equal(dim_text(t, blank, arena), "\"batch \\\"size\\\"\\x0a\"");
    assert_int_equal(parse(dim_text(t, blank, arena)), blank);
    assert_int_equal(parse("\"max\""), dim_symbol(t, "max"));
    assert_string_equal(dim_text(t, dim_symbol(t, "max"), arena), "\"max\"");
}

static dim param(const char *text)
{
    return dim_parse_param(t, text, strlen(text));
}

static void test_model_text(void **state)
{
    (void)state;
    dim a = dim_symbol(t, "a"), b = dim_symbol(t, "b");
    assert_int_equal(param("past_sequence_length + 1"),
                     dim_add(t, dim_symbol(t, "past_sequence_length"), dim_const(t, 1)));
    assert_int_equal(param("(a*b)//4"), dim_div(t, dim_mul(t, a, b), dim_const(t, 4)));
    assert_int_equal(param("Max(1, a, b)"), dim_max(t, dim_const(t, 1), dim_max(t, a, b)));
    assert_int_equal(param("floor(a/b)"), dim_div(t, a, b));
    assert_int_equal(param("ceiling(a/b)"), dim_ceildiv(t, a, b));
    assert_int_equal(param("ceil(3/2)"), dim_const(t, 2));
    assert_int_equal(param("CeilToInt(IntTrueDiv(a, 3))"), dim_ceildiv(t, a, dim_const(t, 3)));
    assert_int_equal(param("a**2"), dim_mul(t, a, a));
    assert_int_equal(param("Mod(a, 4)"), dim_mod(t, a, dim_const(t, 4)));
    assert_int_equal(param("rank"), dim_symbol(t, "rank"));
    assert_int_equal(param("c0"), dim_symbol(t, "c0"));
    assert_int_equal(param("s:1"), dim_symbol(t, "s:1"));
    assert_int_equal(param("batch size"), dim_symbol(t, "batch size"));
    assert_int_equal(param("-1"), dim_symbol(t, "-1"));
    assert_int_equal(param("seq?"), dim_symbol(t, "seq?"));
    assert_int_equal(param("64"), dim_const(t, 64));
    assert_false(dim_valid(param("")));
    uint32_t before = dims_symbol_count(t);
    (void)param("new1 + new2 +");
    assert_int_equal(dims_symbol_count(t), before + 1);
}

static void reject(const char *text)
{
    const char *at = text;
    assert_false(dim_valid(dim_parse(t, &at, text + strlen(text))));
}

static void test_bad_text(void **state)
{
    (void)state;
    const char *const bad[] = {"",    "+",     "a +", "(a",      "max(a)", "mod(a, b, c)", "9223372036854775808",
                               "12x", "\"abc", "a/0", "max a, b"};
    for (size_t i = 0; i + 1 < sizeof bad / sizeof bad[0]; i++)
        reject(bad[i]);
    struct text deep = {.arena = arena};
    for (int i = 0; i < 100000; i++)
        text_put(&deep, "(");
    reject(deep.at);
    struct text minus = {.arena = arena};
    for (int i = 0; i < 100000; i++)
        text_put(&minus, "-");
    reject(minus.at);
    const char *two = "a b", *at = two; /* the longest expression, not more */
    assert_int_equal(dim_parse(t, &at, two + 3), dim_symbol(t, "a"));
    assert_ptr_equal(at, two + 1);
}

/* Overflow and blow-up end in DIM_NONE, which is passed on. */
static void test_limits(void **state)
{
    (void)state;
    dim big = dim_const(t, INT64_MAX), a = dim_symbol(t, "a");
    assert_false(dim_valid(dim_add(t, big, dim_const(t, 1))));
    assert_false(dim_valid(dim_mul(t, dim_mul(t, big, a), dim_const(t, 2))));
    assert_false(dim_valid(dim_div(t, dim_const(t, INT64_MIN), dim_const(t, -1))));
    assert_false(dim_valid(dim_mul(t, DIM_NONE, dim_const(t, 0))));
    dim d = a;
    for (int i = 0; i < 1000 && dim_valid(d); i++)
        d = dim_add(t, dim_div(t, dim_mul(t, d, a), dim_symbol(t, "b")), dim_const(t, 1));
    assert_false(dim_valid(d));
    d = a;
    for (int i = 0; i < 1000 && dim_valid(d); i++)
        d = dim_mul(t, d, dim_add(t, d, dim_symbol(t, "b")));
    assert_false(dim_valid(d));
    d = a;
    for (int i = 0; i < 64 && dim_valid(d); i++) /* doubles as a tree */
        d = dim_add(t, dim_div(t, d, dim_const(t, 3)), dim_mod(t, d, dim_const(t, 5)));
    assert_false(dim_valid(d));
}

static void test_bounds(void **state)
{
    (void)state;
    dim a = parse("a"), b = parse("b"), c = dim_coordinate(t, 0);
    assert_int_equal(dim_lower(t, parse("a*b + 3")), 3);
    assert_int_equal(dim_upper(t, parse("5 - a")), 5);
    assert_int_equal(dim_lower(t, parse("a - b")), INT64_MIN);
    assert_true(dim_provably_ge(t, parse("a + b + 1"), parse("b")));
    assert_false(dim_provably_ge(t, a, b));
    assert_true(dim_provably_ge(t, parse("max(a, b)"), b));
    dims_bound_symbol(t, dim_get(t, c).symbol, 0, 7);
    assert_int_equal(dim_upper(t, parse("2*c0 + 1")), 15);
    assert_true(dim_is(t, dim_div(t, c, dim_const(t, 8)), 0));
    assert_int_equal(dim_mod(t, c, dim_const(t, 8)), c);
    assert_int_equal(dim_upper(t, parse("mod(a, 4)")), 3);
    assert_int_equal(dim_upper(t, parse("ceildiv(c0, 2)")), 4);
    assert_int_equal(dim_lower(t, parse("ceildiv(a + 1, b)")), 1);
    assert_true(dim_uses_kind(t, parse("a/(c0 + 1)"), SYMBOL_COORDINATE));
    assert_false(dim_uses_kind(t, a, SYMBOL_COORDINATE));
    assert_true(dim_uses_symbol(t, parse("max(a*b, 7)"), dim_get(t, b).symbol));
}

static bool assume(const char *a, const char *b)
{
    return dim_assume_equal(t, parse(a), parse(b));
}
static void check_resolved(const char *text, const char *resolved)
{
    assert_string_equal(dim_text(t, dim_resolve(t, parse(text)), arena), resolved);
}

static void test_assume(void **state)
{
    (void)state;
    (void)parse("s10 + s12 + s21 + s86");
    assert_true(assume("s10", "s86")); /* the younger gives way */
    check_resolved("s86*2", "2*s10");
    assert_true(assume("s21", "(s12*s86)/s10"));
    check_resolved("s21", "s12");
    assert_true(assume("total", "past + s12"));
    check_resolved("total - s12", "past");
    assert_true(assume("kv", "64"));
    check_resolved("kv", "64");
    assert_false(assume("64", "32"));
    assert_false(assume("past + 1", "0"));
    assert_false(assume("2*past", "2*s12 + 1"));
    assert_false(assume("kv", "65"));
    assert_true(assume("kv", "64"));
}

static void test_assume_compound(void **state)
{
    (void)state;
    (void)parse("h + p + q");
    assert_true(assume("(h/8)*(h/8) + 1", "17")); /* nothing linear: stays */
    check_resolved("(h/8)*(h/8)", "(h/8)*(h/8)");
    assert_true(assume("(100*p)/q", "100")); /* a compound atom gives way */
    check_resolved("(100*p)/q + 1", "101");
    assert_true(assume("p", "q")); /* agrees with it */
    check_resolved("q", "p");
    assert_true(assume("q/3 + p/2", "x/3"));
    assert_true(assume("h", "32")); /* settles what was pending */
    check_resolved("h/8", "4");
}

static void test_assume_late(void **state)
{
    (void)state;
    (void)parse("x + y + z");
    assert_true(assume("x*y", "z*z"));
    assert_false(assume("x*y", "z*z + 1") && assume("z", "x") && assume("y", "x"));
}

static dim double_of(void *context, uint32_t symbol)
{
    (void)context;
    return symbol == 0 ? dim_mul(t, dim_const(t, 2), dim_symbol(t, "b")) : DIM_NONE;
}

static void test_substitute(void **state)
{
    (void)state;
    assert_int_equal(dim_get(t, parse("a")).symbol, 0);
    assert_int_equal(dim_substitute(t, parse("max(a*a/3, b) + a/2"), double_of, NULL), parse("max((4*b*b)/3, b) + b"));
    int64_t of[2] = {7, 3}, v;
    assert_true(dim_eval(t, parse("max(a*a/3, b) + ceildiv(a, 2) - mod(a, 4)"), of, &v));
    assert_int_equal(v, 16 + 4 - 3);
    of[1] = 0;
    assert_false(dim_eval(t, parse("a/b"), of, &v));
}

/* ---- random expressions: the normal form has the value of the plain one ---- */

enum { SYMBOLS = 4, POINTS = 12 };
static uint64_t seed;

static uint32_t below(uint32_t n)
{
    seed = seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (uint32_t)(seed >> 33) % n;
}

struct sample { /* an expression and its plain values at each point; an undefined one is not compared */
    dim d;
    int64_t value[POINTS];
    bool defined[POINTS];
};

static bool plain(uint32_t operation, int64_t a, int64_t b, int64_t *out)
{
    switch (operation) {
    case 0:
        return i64_add(a, b, out);
    case 1:
        return i64_sub(a, b, out);
    case 2:
        return i64_mul(a, b, out);
    case 3:
        *out = b ? a / b : 0;
        return b != 0;
    case 4:
        *out = b ? a % b : 0;
        return b != 0;
    case 5:
        *out = b ? (a >= 0) == (b > 0) && a % b ? a / b + 1 : a / b : 0;
        return b != 0;
    case 6:
        *out = a > b ? a : b;
        return true;
    default:
        *out = a < b ? a : b;
        return true;
    }
}

static dim apply(uint32_t operation, dim a, dim b)
{
    switch (operation) {
    case 0:
        return dim_add(t, a, b);
    case 1:
        return dim_sub(t, a, b);
    case 2:
        return dim_mul(t, a, b);
    case 3:
        return dim_div(t, a, b);
    case 4:
        return dim_mod(t, a, b);
    case 5:
        return dim_ceildiv(t, a, b);
    case 6:
        return dim_max(t, a, b);
    default:
        return dim_min(t, a, b);
    }
}

static struct sample random_sample(int64_t of[][SYMBOLS], int depth)
{
    struct sample s = {0};
    if (depth == 0 || below(6) == 0) {
        uint32_t leaf = below(SYMBOLS + 2);
        int64_t number = (int64_t)below(9) - (below(4) == 0 ? 4 : 0);
        s.d = leaf < SYMBOLS ? dim_of_symbol(t, leaf) : dim_const(t, number);
        for (int p = 0; p < POINTS; p++) {
            s.value[p] = leaf < SYMBOLS ? of[p][leaf] : number;
            s.defined[p] = true;
        }
        return s;
    }
    static const uint32_t weighted[] = {0, 0, 0, 1, 1, 2, 2, 2, 3, 3, 4, 5, 6, 7};
    uint32_t operation = weighted[below(sizeof weighted / sizeof weighted[0])];
    struct sample a = random_sample(of, depth - 1), b = random_sample(of, depth - 1);
    s.d = apply(operation, a.d, b.d);
    for (int p = 0; p < POINTS; p++)
        s.defined[p] = a.defined[p] && b.defined[p] && plain(operation, a.value[p], b.value[p], &s.value[p]);
    return s;
}

static void check_sample(const struct sample *s, struct dims *other, int64_t of[][SYMBOLS])
{
    for (int p = 0; p < POINTS; p++) {
        int64_t v;
        if (!s->defined[p])
            continue;
        assert_true(dim_eval(t, s->d, of[p], &v));
        if (v != s->value[p])
            fail_msg("%s: %lld, not %lld", dim_text(t, s->d, arena), (long long)v, (long long)s->value[p]);
        assert_true(v >= dim_lower(t, s->d) && v <= dim_upper(t, s->d));
    }
    const char *text = dim_text(t, s->d, arena), *at = text;
    if (parse(text) != s->d)
        fail_msg("'%s' parses to '%s'", text, dim_text(t, parse(text), arena));
    dim copy = dim_parse(other, &at, text + strlen(text));
    assert_string_equal(dim_text(other, copy, arena), text);
}

static void test_random(void **state)
{
    (void)state;
    static const char *const name[SYMBOLS] = {"a", "b", "c", "d"};
    int64_t of[POINTS][SYMBOLS];
    uint32_t valid = 0;
    seed = 1;
    struct dims *other = dims_new(arena);
    for (int i = 0; i < SYMBOLS; i++) {
        (void)dim_symbol(t, name[i]);
        (void)dim_symbol(other, name[i]);
    }
    for (int round = 0; round < 20000; round++) {
        for (int p = 0; p < POINTS; p++)
            for (int i = 0; i < SYMBOLS; i++)
                of[p][i] = below(p < 6 ? 4 : 40);
        struct sample s = random_sample(of, 1 + (int)below(5));
        if (!dim_valid(s.d))
            continue;
        valid++;
        check_sample(&s, other, of);
    }
    assert_true(valid > 15000);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_normal_form), TEST(test_names),      TEST(test_model_text), TEST(test_bad_text),
        TEST(test_limits),      TEST(test_bounds),     TEST(test_assume),     TEST(test_assume_compound),
        TEST(test_assume_late), TEST(test_substitute), TEST(test_random),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
