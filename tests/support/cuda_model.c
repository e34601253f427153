/* tests/support/cuda_model.c - the host's side of tests/cuda_model: compiler, loader, launch. */
#include "tests/support/cuda_model.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

enum { UNIT_TEXTS = 24 };

struct cuda_model {
    void *handle;
    model_launch_function *launch;
};

static const char *or_else(const char *name, const char *otherwise)
{
    const char *value = getenv(name);
    return value && value[0] ? value : otherwise;
}

/* Calls put for each static function that the text defines outside of what is for CUDA alone: the word before the first parenthesis of such a
 * line. */
static void each_static(const char *text, FILE *f, unsigned number, void (*put)(FILE *f, const char *, int, unsigned))
{
    bool of_cuda = false;
    for (const char *at = text; at; at = strchr(at, '\n')) {
        at += *at == '\n';
        if (*at == '#')
            of_cuda = strncmp(at, "#ifdef __CUDACC_RTC__", 21) == 0 || (of_cuda && strncmp(at, "#e", 2) != 0);
        if (of_cuda || strncmp(at, "static ", 7) != 0)
            continue;
        const char *open = at + strcspn(at, "(=;\n"), *start = open;
        while (start > at && start[-1] != ' ' && start[-1] != '*')
            start--;
        if (*open == '(')
            put(f, start, (int)(open - start), number);
    }
}

static void put_rename(FILE *f, const char *name, int length, unsigned number)
{
    (void)fprintf(f, "#define %.*s %.*s_%u\n", length, name, length, name, number);
}

static void put_forget(FILE *f, const char *name, int length, unsigned number)
{
    (void)number;
    (void)fprintf(f, "#undef %.*s\n", length, name);
}

/* Several texts as one translation unit, which is quicker to compile: functions of the same name get numbers. */
static bool write_unit(const char *path, const struct cuda_text *text, uint32_t count)
{
    FILE *f = fopen(path, "we");
    bool good = f != NULL;
    for (uint32_t i = 0; i < count && good; i++) {
        each_static(text[i].source, f, (unsigned)i, put_rename);
        good = fprintf(f, "#line 1 \"%s.cu\"\n%s\n", text[i].name, text[i].source) >= 0;
        each_static(text[i].source, f, (unsigned)i, put_forget);
    }
    return f && fclose(f) == 0 && good;
}

static void read_words(const char *path, char *out, size_t bytes)
{
    FILE *f = fopen(path, "re");
    size_t n = f ? fread(out, 1, bytes - 1, f) : 0;
    out[n] = '\0';
    if (f)
        (void)fclose(f);
}

/* Entries see each other in no way, but the compiler takes several files at a time: two processes share the list. Accesses are instrumented in the
 * kernels' text alone, never in the model. */
static const char script[] = "cd \"$DIR\" && { ls *.c | xargs -P 2 -n 1 $CC -c -x c -w -O0 -fPIC -fsanitize=thread "
                             "-I\"$SOURCE/tests/cuda_model\" &&"
                             " $CC -c -w -O2 -fPIC -I\"$SOURCE\" \"$SOURCE\"/tests/cuda_model/*.c &&"
                             " $CC -shared -Wl,-z,defs -o object *.o -lm; } >log 2>&1";

static bool run_compiler(const char *directory)
{
    const char *cc = or_else("CC", "cc"), *source = or_else("SOURCE", ".");
    char root[4096], *real = realpath(source, NULL);
    (void)snprintf(root, sizeof root, "%s", real ? real : source);
    free(real);
    char *command = NULL;
    int length = asprintf(&command, "DIR='%s' CC='%s' SOURCE='%s'; %s", directory, cc, root, script);
    int code = length < 0 ? -1 : system(command);
    free(command);
    return code == 0;
}

bool cuda_model_compile(const struct cuda_text *text, uint32_t count, const char *path, char *error, size_t error_bytes)
{
    char directory[4096], at[4400];
    (void)snprintf(directory, sizeof directory, "%s-XXXXXX", path);
    error[0] = '\0';
    if (!mkdtemp(directory)) {
        (void)snprintf(error, error_bytes, "cannot make %s", directory);
        return false;
    }
    bool good = true;
    for (uint32_t i = 0; i < count && good; i += UNIT_TEXTS) {
        (void)snprintf(at, sizeof at, "%s/%u.c", directory, (unsigned)i);
        good = write_unit(at, text + i, count - i < UNIT_TEXTS ? count - i : UNIT_TEXTS);
    }
    good = good && run_compiler(directory);
    (void)snprintf(at, sizeof at, "%s/object", directory);
    good = good && rename(at, path) == 0;
    if (!good) {
        (void)snprintf(at, sizeof at, "%s/log", directory);
        read_words(at, error, error_bytes);
        return false; /* the files stay, for whoever looks why */
    }
    (void)snprintf(at, sizeof at, "rm -rf '%s'", directory);
    return system(at) == 0;
}

struct cuda_model *cuda_model_open(const char *path)
{
    void *handle = dlopen(path, RTLD_NOW | RTLD_LOCAL), *launch = handle ? dlsym(handle, "model_launch") : NULL;
    struct cuda_model *m = launch ? malloc(sizeof *m) : NULL;
    if (!m)
        return NULL;
    m->handle = handle;
    memcpy(&m->launch, &launch, sizeof launch);
    return m;
}

void cuda_model_close(struct cuda_model *m)
{
    if (!m)
        return;
    (void)dlclose(m->handle);
    free(m);
}

static const uint32_t *number_of(const struct cuda_model *m, const char *name, const char *what)
{
    char symbol[256];
    (void)snprintf(symbol, sizeof symbol, "%s_%s", name, what);
    return dlsym(m->handle, symbol);
}

uint32_t cuda_model_words(const struct cuda_model *m, const char *name)
{
    const uint32_t *words = number_of(m, name, "words");
    return words ? *words : 0;
}

bool cuda_model_launch(const struct cuda_model *m, const char *name, struct model_launch *launch, char *error,
                       size_t error_bytes)
{
    void *entry = dlsym(m->handle, name);
    const uint32_t *threads = number_of(m, name, "threads");
    if (!entry || !threads || launch->word_count != cuda_model_words(m, name)) {
        (void)snprintf(error, error_bytes, "%s: no such entry, or not with %u words", name,
                       (unsigned)launch->word_count);
        return false;
    }
    memcpy(&launch->entry, &entry, sizeof entry);
    launch->max_threads = *threads;
    return m->launch(launch, error, error_bytes);
}
