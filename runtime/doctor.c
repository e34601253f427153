/* runtime/doctor.c - see doctor.h. Looks only; makes and changes nothing. */
#include "runtime/doctor.h"
#include "runtime/gemm.h"

#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

/* The first of the commands that is in $PATH, as a path; NULL: none. A command with a slash is taken as it is. */
static const char *find_command(struct arena *arena, const char *command)
{
    const char *path = getenv("PATH");
    if (strchr(command, '/'))
        return access(command, X_OK) == 0 ? command : NULL;
    while (path && *path) {
        size_t length = strcspn(path, ":");
        const char *file = arena_printf(arena, "%.*s/%s", (int)length, path, command);
        if (length && access(file, X_OK) == 0)
            return file;
        path += length + (path[length] == ':');
    }
    return NULL;
}

static void report_compiler(struct arena *arena, struct text *out)
{
    const char *wish = getenv("CC"), *found = NULL;
    static const char *const names[] = {"cc", "gcc", "clang"};
    if (wish && *wish)
        found = find_command(arena, arena_strndup(arena, wish, strcspn(wish, " ")));
    for (size_t i = 0; i < sizeof names / sizeof *names && !found; i++)
        found = find_command(arena, names[i]);
    text_printf(out, "C compiler       %s\n", found ? found : "none: kernels are interpreted, which is slow");
}

static void report_cache(struct arena *arena, struct text *out)
{
    const char *base = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    const char *cache = base && *base == '/' ? arena_printf(arena, "%s/tpc", base)
                        : home && *home      ? arena_printf(arena, "%s/.cache/tpc", home)
                                             : NULL;
    struct stat st;
    bool there = cache && stat(cache, &st) == 0;
    text_printf(out, "kernel cache     %s%s\n", cache ? cache : "none: neither XDG_CACHE_HOME nor HOME is set",
                !cache                     ? ""
                : !there                   ? " (not there yet)"
                : access(cache, W_OK) == 0 ? ""
                                           : " (cannot be written)");
}

void doctor_print(struct arena *arena, struct text *out)
{
    const struct gemm_info *gemm = gemm_info();
    text_printf(out, "cores            %u\n", (unsigned)sync_cores());
    text_printf(out, "matrix products  %s%s%s\n", gemm->name, *gemm->path ? " from " : "", gemm->path);
    text_printf(out, "own kernels      %s\n", gemm->instruction);
    report_compiler(arena, out);
    report_cache(arena, out);
    if (*gemm->warning)
        text_printf(out, "warning: %s\n", gemm->warning);
}
