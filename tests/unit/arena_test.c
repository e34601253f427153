/* tests/unit/arena_test.c - arenas, marks, deferred releases, guards, lists. */
#include "ir/base.h"
#include "tests/test.h"

#include <pthread.h>

static bool all_zero(const void *bytes, size_t size)
{
    const unsigned char *b = bytes;
    for (size_t i = 0; i < size; i++)
        if (b[i])
            return false;
    return true;
}

/* ---- arena -------------------------------------------------------------------------------------------------- */

static void test_alloc_is_aligned_zeroed_and_apart(void **state)
{
    (void)state;
    struct arena *arena = arena_new();
    unsigned char *previous = NULL;
    size_t previous_size = 0;
    for (size_t size = 0; size < 3000; size += 7) {
        unsigned char *p = arena_alloc(arena, size);
        assert_non_null(p);
        assert_int_equal((uintptr_t)p % 16, 0);
        assert_true(all_zero(p, size));
        if (size)
            memset(p, 0xaa, size);
        assert_ptr_not_equal(p, previous); /* for size 0 too */
        assert_false(previous && p > previous && p < previous + previous_size);
        previous = p;
        previous_size = size;
    }
    size_t large = (size_t)5 << 20; /* larger than the largest usual chunk */
    unsigned char *p = arena_alloc(arena, large);
    assert_true(all_zero(p, large));
    p[large - 1] = 1;
    assert_true(arena_bytes(arena) > large);
    arena_free(arena);
    arena_free(NULL);
}

static void test_strings(void **state)
{
    (void)state;
    struct arena *arena = arena_new();
    assert_string_equal(arena_strdup(arena, "heads"), "heads");
    assert_string_equal(arena_strdup(arena, ""), "");
    assert_string_equal(arena_strndup(arena, "heads", 4), "head");
    assert_string_equal(arena_strndup(arena, NULL, 0), "");
    assert_string_equal(arena_printf(arena, "%d·%s", 3, "x"), "3·x");
    assert_memory_equal(arena_copy(arena, "a\0b", 3), "a\0b", 3);
    assert_non_null(arena_copy(arena, NULL, 0));
    char *wide = arena_printf(arena, "%*s", 100000, "x");
    assert_int_equal(strlen(wide), 100000);
    arena_free(arena);
}

static void test_rewind_gives_back_and_clears(void **state)
{
    (void)state;
    struct arena *arena = arena_new();
    struct arena_mark empty = arena_mark(arena);
    char *kept = arena_strdup(arena, "kept");
    struct arena_mark mark = arena_mark(arena);
    size_t held = 0;
    for (int round = 0; round < 100; round++) {
        char *first = arena_alloc(arena, 24);
        assert_true(all_zero(first, 24));
        memset(first, 0xff, 24);
        for (int i = 0; i < 50; i++) {
            char *p = arena_alloc(arena, 1000); /* runs over into further chunks */
            assert_true(all_zero(p, 1000));
            memset(p, 0xff, 1000);
        }
        arena_rewind(arena, mark);
        assert_string_equal(kept, "kept");
        if (round == 10) /* the spare chunk has become large enough */
            held = arena_bytes(arena);
        if (round > 10)
            assert_true(arena_bytes(arena) <= held); /* backtracking holds no more with each step */
    }
    arena_rewind(arena, empty);
    assert_true(all_zero(arena_alloc(arena, 64), 64));
    arena_free(arena);
}

/* ---- deferred releases -------------------------------------------------------------------------------------- */

static int released[8], released_count;

static void note_release(void *object)
{
    released[released_count++] = *(int *)object;
}

static void test_defer_runs_newest_first(void **state)
{
    (void)state;
    static int one = 1, two = 2, three = 3;
    released_count = 0;
    struct arena *arena = arena_new();
    arena_defer(arena, note_release, &one);
    struct arena_mark mark = arena_mark(arena);
    arena_defer(arena, note_release, &two);
    arena_alloc(arena, 10000);
    arena_defer(arena, note_release, &three);
    arena_rewind(arena, mark);
    assert_int_equal(released_count, 2);
    assert_int_equal(released[0], 3);
    assert_int_equal(released[1], 2);
    arena_free(arena);
    assert_int_equal(released_count, 3);
    assert_int_equal(released[2], 1);
}

static void test_child_dies_with_its_owner_or_before(void **state)
{
    (void)state;
    static int one = 1, two = 2;
    released_count = 0;
    struct arena *owner = arena_new();
    struct arena *early = arena_new_in(owner), *late = arena_new_in(owner);
    arena_defer(early, note_release, &one);
    arena_defer(late, note_release, &two);
    arena_free(early);
    assert_int_equal(released_count, 1);
    arena_free(owner);
    assert_int_equal(released_count, 2);
    assert_int_equal(released[1], 2);

    owner = arena_new();
    struct arena_mark mark = arena_mark(owner);
    arena_alloc(arena_new_in(owner), 100);
    arena_rewind(owner, mark); /* must free the child; the leak check says so if not */
    arena_free(owner);
}

/* ---- guards ------------------------------------------------------------------------------------------------- */

struct heard {
    char last[1001];
    unsigned lines;
};

static void hear(void *user, severity level, const char *line)
{
    struct heard *heard = user;
    (void)level;
    heard->lines++;
    snprintf(heard->last, sizeof heard->last, "%s", line);
}

/* Something of everything that allocates, with a release deferred in the midst. */
static status work(void *context)
{
    struct arena *arena = context;
    struct map map = {.arena = arena};
    struct text text = {.arena = arena};
    LIST(uint64_t) list = {0};
    for (uint32_t i = 0; i < 200; i++) {
        text_printf(&text, "%u,", (unsigned)i);
        *map_put(&map, &i, sizeof i, NULL) = i;
        *PUSH(arena, &list) = i;
        void *block = base_alloc(10);
        if (!block)
            guard_out_of_memory(10);
        arena_defer(arena, base_free, block);
        arena_alloc(arena_new_in(arena), 50);
        arena_alloc(arena, 500);
    }
    return TPC_OK;
}

static void test_every_failing_allocation_unwinds(void **state)
{
    (void)state;
    struct heard heard = {.lines = 0};
    struct diag diag = {.sink = hear, .user = &heard};
    uint64_t failed = 0;
    for (uint64_t n = 1;; n++) {
        struct arena *arena = arena_new();
        base_fail_after(n);
        status s = guard_run(&diag, work, arena);
        base_fail_after(0);
        arena_free(arena); /* leaks are for the sanitizer to find */
        if (s == TPC_OK)
            break;
        assert_int_equal(s, TPC_NOMEM);
        failed++;
        assert_int_equal(heard.lines, failed);
        assert_int_equal(diag.errors, failed);
        assert_non_null(strstr(heard.last, "tpc: error: out of memory"));
    }
    assert_true(failed > 600);

    base_fail_after(1);
    assert_null(arena_new());
    assert_null(base_alloc(1)); /* and all later ones */
    base_fail_after(0);
}

static status overflow(void *context)
{
    arena_array(context, SIZE_MAX / 2, 3);
    return TPC_OK;
}

static status too_large(void *context)
{
    arena_alloc(context, SIZE_MAX - 8);
    return TPC_OK;
}

static status nested(void *context)
{
    struct diag quiet = {.sink = hear, .user = &(struct heard){.lines = 0}};
    assert_int_equal(guard_run(&quiet, overflow, context), TPC_NOMEM);
    assert_int_equal(guard_run(&quiet, too_large, context), TPC_NOMEM);
    arena_alloc(context, 10);
    guard_out_of_memory(1); /* goes to the outer guard, though two inner ones have been left */
}

static void test_guards_nest(void **state)
{
    (void)state;
    struct heard heard = {.lines = 0};
    struct diag diag = {.sink = hear, .user = &heard};
    struct arena *arena = arena_new();
    assert_int_equal(guard_run(&diag, nested, arena), TPC_NOMEM);
    assert_int_equal(heard.lines, 1);
    assert_string_equal(heard.last, "tpc: error: out of memory: 1 more bytes were wanted");
    arena_free(arena);
}

static status refuse(void *context)
{
    (void)context;
    return TPC_DATA;
}

static void *guard_on_thread(void *context)
{
    struct diag diag = {.sink = hear, .user = &(struct heard){.lines = 0}};
    struct arena *arena = arena_new();
    *(status *)context = guard_run(&diag, overflow, arena);
    arena_free(arena);
    return NULL;
}

static status guard_beside(void *context)
{
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, guard_on_thread, context), 0);
    pthread_join(thread, NULL);
    return TPC_OK;
}

static void test_guards_pass_results_and_are_per_thread(void **state)
{
    (void)state;
    assert_int_equal(guard_run(NULL, refuse, NULL), TPC_DATA);
    status beside = TPC_OK;
    assert_int_equal(guard_run(NULL, guard_beside, &beside), TPC_OK);
    assert_int_equal(beside, TPC_NOMEM);
}

/* ---- lists and sizes ---------------------------------------------------------------------------------------- */

static void test_list(void **state)
{
    (void)state;
    struct arena *arena = arena_new();
    struct pair {
        uint32_t a, b;
    };
    LIST(struct pair) list = {0};
    for (uint32_t i = 0; i < 1000; i++) {
        struct pair *p = PUSH(arena, &list);
        assert_int_equal(p->a, 0);
        assert_int_equal(p->b, 0);
        *p = (struct pair){i, i + 1};
    }
    assert_int_equal(list.count, 1000);
    for (uint32_t i = 0; i < 1000; i++)
        assert_int_equal(list.at[i].a + 1, list.at[i].b);
    list.count = 500; /* popped elements come back zeroed */
    assert_int_equal(PUSH(arena, &list)->b, 0);
    assert_int_equal(list.count, 501);
    arena_free(arena);
}

static void test_checked_sizes(void **state)
{
    (void)state;
    size_t s = 7;
    assert_false(size_add(SIZE_MAX, 1, &s));
    assert_false(size_mul(SIZE_MAX / 2, 3, &s));
    assert_int_equal(s, 7);
    assert_true(size_add(SIZE_MAX - 1, 1, &s));
    assert_true(s == SIZE_MAX);
    assert_true(size_mul(0, SIZE_MAX, &s));
    assert_int_equal(s, 0);
    int64_t i = 7;
    assert_false(i64_add(INT64_MAX, 1, &i));
    assert_false(i64_sub(INT64_MIN, 1, &i));
    assert_false(i64_mul(INT64_MIN, -1, &i));
    assert_int_equal(i, 7);
    assert_true(i64_mul(INT64_MIN, 1, &i));
    assert_true(i == INT64_MIN);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_alloc_is_aligned_zeroed_and_apart),
        cmocka_unit_test(test_strings),
        cmocka_unit_test(test_rewind_gives_back_and_clears),
        cmocka_unit_test(test_defer_runs_newest_first),
        cmocka_unit_test(test_child_dies_with_its_owner_or_before),
        cmocka_unit_test(test_every_failing_allocation_unwinds),
        cmocka_unit_test(test_guards_nest),
        cmocka_unit_test(test_guards_pass_results_and_are_per_thread),
        cmocka_unit_test(test_list),
        cmocka_unit_test(test_checked_sizes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
