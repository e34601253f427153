/* tests/unit/nvrtc_test.c - NVRTC takes every function of the test models, for several architectures: none spills registers, a second start compiles
 * nothing, a function that does not compile is told with its name and origin. Without NVRTC the test is skipped (exit 77).
 *
 * ALL=1: all models for all architectures (minutes); ALL=each: all models, each for one architecture in turn, and of functions that differ in numbers alone
 * the first; else one model.
 */
#include "codegen/cuda_impl.h"
#include "frontend/compile.h"
#include "tests/test.h"

#include <dirent.h>
#include <stdlib.h>
#include <unistd.h>

static struct arena *arena;
static char cache[4096], lines[8000];

static void note(void *user, severity level, const char *line)
{
    (void)user;
    if (level != DIAG_WARNING)
        snprintf(lines + strlen(lines), sizeof lines - strlen(lines), "%s\n", line);
}
static struct diag diag = {.sink = note};

static const uint32_t architectures[] = {80, 90, 100};
enum { ARCHITECTURES = 3 };

/* ---- models ---- */

static struct program *program_of(const char *model)
{
    const char *source = getenv("SOURCE");
    struct compile_options options = {.ranks = 2};
    struct compiled c;
    const char *path = arena_printf(arena, "%s/tests/models/%s/model.onnx", source ? source : ".", model);
    if (access(path, R_OK) != 0)
        return NULL;
    lines[0] = '\0';
    if (compile_model(arena, path, &options, &diag, &c) != TPC_OK)
        fail_msg("%s: %s", model, lines);
    return c.program;
}

static uint32_t list_models(const char **names, uint32_t limit)
{
    const char *source = getenv("SOURCE");
    DIR *d = opendir(arena_printf(arena, "%s/tests/models", source ? source : "."));
    uint32_t count = 0;
    assert_non_null(d);
    for (struct dirent *e = readdir(d); e && count < limit; e = readdir(d))
        if (strchr(e->d_name, '-'))
            names[count++] = arena_strdup(arena, e->d_name);
    (void)closedir(d);
    assert_true(count > 1);
    for (uint32_t i = 0; i < count; i++) /* the same order everywhere */
        for (uint32_t k = i + 1; k < count; k++)
            if (strcmp(names[k], names[i]) < 0) {
                const char *name = names[i];
                names[i] = names[k];
                names[k] = name;
            }
    return count;
}

/* Is it the first of its text, without numbers and its own name? */
static bool is_new(struct map *seen, const struct cuda_function *f)
{
    size_t length = 0, name = strlen(f->name);
    char *text = arena_strdup(arena, f->source);
    bool fresh;
    for (const char *at = text; *at;)
        if (strncmp(at, f->name, name) == 0)
            at += name;
        else if (*at >= '0' && *at <= '9')
            at++;
        else
            text[length++] = *at++;
    (void)map_put(seen, text, length, &fresh);
    return fresh;
}

/* seen: only functions that are new to it. NULL: all. */
static struct cuda_set *compiled(const struct program *p, uint32_t compute, const char *name, struct map *seen)
{
    struct cuda_set *set = NULL;
    const struct cuda_options options = {.cache = cache, .compute = compute};
    lines[0] = '\0';
    status s = cuda_new(arena, p, &diag, &set);
    uint32_t all = s == TPC_OK && seen ? set->functions.count : 0, kept = 0;
    for (uint32_t i = 0; i < all; i++)
        if (is_new(seen, &set->functions.at[i]))
            set->functions.at[kept++] = set->functions.at[i];
    if (all)
        set->functions.count = kept;
    if (s != TPC_OK || cuda_compile(set, &options, &diag) != TPC_OK)
        fail_msg("%s for sm_%u: %s", name, (unsigned)compute, lines);
    return set;
}

static void check_figures(const struct cuda_set *set, const char *model, uint32_t compute)
{
    for (uint32_t i = 0; i < cuda_function_count(set); i++) {
        const struct cuda_function *f = cuda_function_at(set, i);
        if (!f->image || f->image_bytes < 64 || memcmp(f->image, "\177ELF", 4) != 0)
            fail_msg("%s: %s has no cubin", model, f->name);
        if (f->spill_bytes != 0)
            fail_msg("%s: %s spills %u bytes on sm_%u:\n%s", model, f->name, (unsigned)f->spill_bytes,
                     (unsigned)compute, f->source);
        if (f->registers == 0 || f->registers > 65536 / f->max_threads)
            fail_msg("%s: %s takes %u registers in blocks of %u threads", model, f->name, (unsigned)f->registers,
                     (unsigned)f->max_threads);
        if (f->shared_bytes > 48 * 1024)
            fail_msg("%s: %s takes %u bytes of shared memory", model, f->name, (unsigned)f->shared_bytes);
    }
}

static void models(void **state)
{
    (void)state;
    const char *names[256];
    const char *wanted = getenv("ALL");
    bool all = wanted != NULL, every = all && strcmp(wanted, "each") != 0;
    uint32_t count = list_models(names, 256), functions = 0;
    struct map seen = {.arena = arena};
    for (uint32_t i = 0; i < count; i += all ? 1 : count) {
        struct program *p = program_of(names[i]);
        for (uint32_t a = 0; p && a < ARCHITECTURES; a++) {
            if (!every && a != i % ARCHITECTURES)
                continue;
            struct cuda_set *set = compiled(p, architectures[a], names[i], all && !every ? &seen : NULL);
            functions += cuda_function_count(set);
            check_figures(set, names[i], architectures[a]);
        }
    }
    print_message("%u functions\n", (unsigned)functions);
    assert_true(functions > 20);
}

/* ---- the cache ---- */

static struct program *small_program(void)
{
    static const char text[] = "%x: f32[b, 24] = input as \"x\"\n%y = exp %x\n%s = reduce_sum %y list [1]\n"
                               "output \"y\" %y\noutput \"s\" %s\n";
    struct graph *g;
    struct program *p = NULL;
    lines[0] = '\0';
    if (graph_parse(arena, "small", text, sizeof text - 1, &diag, &g) != TPC_OK ||
        fuse(arena, g, &diag, &p) != TPC_OK || schedule(p, &diag) != TPC_OK)
        fail_msg("%s", lines);
    return p;
}

static void second_start_compiles_nothing(void **state)
{
    (void)state;
    struct program *p = small_program();
    struct cuda_set *first = compiled(p, 90, "small", NULL), *second = compiled(p, 90, "small", NULL);
    assert_int_equal(cuda_counts(first).cached, 0);
    assert_int_equal(cuda_counts(first).compiled, cuda_function_count(first));
    assert_int_equal(cuda_counts(second).compiled, 0);
    assert_int_equal(cuda_counts(second).cached, cuda_function_count(first));
    for (uint32_t i = 0; i < cuda_function_count(first); i++) {
        const struct cuda_function *a = cuda_function_at(first, i), *b = cuda_function_at(second, i);
        assert_int_equal(a->image_bytes, b->image_bytes);
        assert_memory_equal(a->image, b->image, a->image_bytes);
        assert_int_equal(a->registers, b->registers);
    }
    assert_int_equal(cuda_counts(compiled(p, 80, "small", NULL)).cached, 0); /* another architecture is another entry */
}

/* A byte of an entry that is not what was written: it is compiled again. */
static void broken_entries_are_not_taken(void **state)
{
    (void)state;
    struct program *p = small_program();
    (void)compiled(p, 90, "small", NULL);
    DIR *d = opendir(cache);
    assert_non_null(d);
    for (struct dirent *e = readdir(d); e; e = readdir(d)) {
        if (!strstr(e->d_name, ".cubin"))
            continue;
        FILE *f = fopen(arena_printf(arena, "%s/%s", cache, e->d_name), "r+b");
        assert_non_null(f);
        assert_int_equal(fseek(f, 100, SEEK_SET), 0);
        int byte = fgetc(f);
        assert_int_equal(fseek(f, 100, SEEK_SET), 0);
        assert_int_equal(fputc(byte ^ 1, f), byte ^ 1);
        (void)fclose(f);
    }
    (void)closedir(d);
    assert_int_equal(cuda_counts(compiled(p, 90, "small", NULL)).cached, 0);
}

static void failures_are_told(void **state)
{
    (void)state;
    struct cuda_set *set;
    const struct cuda_options options = {.cache = cache, .compute = 90}, unknown = {.cache = cache, .compute = 1};
    assert_int_equal(cuda_new(arena, small_program(), &diag, &set), TPC_OK);
    set->functions.at[0].source = arena_printf(arena, "%s\nint planted = undeclared;\n", set->functions.at[0].source);
    set->functions.at[0].length = strlen(set->functions.at[0].source);
    lines[0] = '\0';
    assert_int_equal(cuda_compile(set, &options, &diag), TPC_INTERNAL);
    if (!strstr(lines, set->functions.at[0].name) || !strstr(lines, "undeclared") || !strstr(lines, "sm_90"))
        fail_msg("%s", lines);
    assert_int_equal(cuda_new(arena, small_program(), &diag, &set), TPC_OK);
    assert_int_not_equal(cuda_compile(set, &unknown, &diag), TPC_OK);
}

static void nothing_found(void **state)
{
    (void)state;
    struct cuda_set *set;
    const struct cuda_options options = {.cache = cache, .compute = 90};
    char *before = getenv("TPC_CUDA_PATH"), *kept = before ? arena_strdup(arena, before) : NULL;
    assert_int_equal(setenv("TPC_CUDA_PATH", "/nonexistent", 1), 0);
    assert_int_equal(cuda_new(arena, small_program(), &diag, &set), TPC_OK);
    lines[0] = '\0';
    assert_int_equal(cuda_compile(set, &options, &diag), TPC_UNSUPPORTED);
    assert_non_null(strstr(lines, "TPC_CUDA_PATH"));
    assert_int_equal(kept ? setenv("TPC_CUDA_PATH", kept, 1) : unsetenv("TPC_CUDA_PATH"), 0);
}

int main(void)
{
    static const char *const names[] = {"libnvrtc.so.13", "libnvrtc.so.12", "libnvrtc.so", NULL};
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(second_start_compiles_nothing), cmocka_unit_test(broken_entries_are_not_taken),
        cmocka_unit_test(failures_are_told), cmocka_unit_test(nothing_found), cmocka_unit_test(models)};
    char here[2048], command[4200];
    arena = arena_new();
    /* where scripts/setup puts PyPI's */
    const char *fetched = arena_printf(arena, "%s/.cache/tpc-nvrtc", getenv("HOME") ? getenv("HOME") : "");
    if (!cuda_library(arena, names, NULL) && access(fetched, R_OK) == 0)
        (void)setenv("TPC_CUDA_PATH", fetched, 1);
    if (!cuda_library(arena, names, NULL)) {
        (void)fprintf(stderr, "skipped: no NVRTC here\n");
        return 77;
    }
    if (!getcwd(here, sizeof here))
        return 1;
    (void)snprintf(cache, sizeof cache, "%s/nvrtc-cache-%ld", here, (long)getpid());
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    (void)snprintf(command, sizeof command, "rm -rf '%s'", cache);
    return system(command) == 0 ? failed : 1;
}
