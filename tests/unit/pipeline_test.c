/* tests/unit/pipeline_test.c - the whole way from a model file to a scheduled Program: memory that runs out anywhere ends cleanly, the
 * same input gives the same Program, and one more layer adds no kernel.
 */
#include "frontend/compile.h"
#include "tests/test.h"

#include <stdlib.h>

struct job {
    struct arena *arena;
    const char *model;
    uint32_t ranks;
    struct compiled result;
    struct diag diag;
};

static void ignore(void *user, severity level, const char *line)
{
    (void)user;
    (void)level;
    (void)line;
}

static status compile(void *context)
{
    struct job *j = context;
    struct compile_options o = {.ranks = j->ranks};
    status s = compile_model(j->arena, j->model, &o, &j->diag, &j->result);
    if (s == TPC_OK)
        (void)report_json(j->arena, &j->result);
    return s;
}

static const char *model_path(char *to, size_t size, const char *name)
{
    const char *source = getenv("SOURCE");
    snprintf(to, size, "%s/tests/models/%s/model.onnx", source != NULL ? source : "../..", name);
    return to;
}

static status attempt(const char *path, uint32_t ranks, uint64_t fail_at, struct text *program)
{
    struct job j = {.model = path, .ranks = ranks, .diag = {.sink = ignore}};
    base_fail_after(fail_at);
    j.arena = arena_new();
    status s = j.arena == NULL ? TPC_NOMEM : guard_run(&j.diag, compile, &j);
    base_fail_after(0);
    if (s == TPC_OK && program != NULL)
        program_print(j.result.program, program);
    arena_free(j.arena);
    return s;
}

static void memory_may_run_out_anywhere(void **state)
{
    (void)state;
    char path[512];
    model_path(path, sizeof path, "gpt2-ts17");
    uint64_t failures = 0;
    for (uint64_t n = 1;; n += 1 + n / 8) {
        status s = attempt(path, 2, n, NULL);
        if (s == TPC_OK)
            break;
        assert_int_equal(s, TPC_NOMEM);
        failures++;
    }
    assert_true(failures > 10);
}

static void compiling_twice_gives_one_program(void **state)
{
    (void)state;
    const char *names[] = {"llama-dy18", "gpt2-past-opt18", "t5-ts17"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char path[512];
        struct arena *arena = arena_new();
        struct text a = {.arena = arena}, b = {.arena = arena};
        model_path(path, sizeof path, names[i]);
        assert_int_equal(attempt(path, 3, 0, &a), TPC_OK);
        assert_int_equal(attempt(path, 3, 0, &b), TPC_OK);
        assert_string_equal(a.at, b.at);
        arena_free(arena);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(memory_may_run_out_anywhere),
        cmocka_unit_test(compiling_twice_gives_one_program),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
