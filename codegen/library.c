/* codegen/library.c - where CUDA's libraries are: a list of folders, in the order that cuda.h states, and dlopen. Runs nothing, changes nothing.
 *
 * A library found in a folder is opened by its whole path, so that a wheel's is taken though the loader does not know of it; what it needs
 * itself it finds by its own run path.
 */
#include "codegen/cuda.h"

#include <dlfcn.h>
#include <glob.h>
#include <stdlib.h>
#include <unistd.h>

struct finding {
    struct arena *arena;
    const char *const *names;
    const char *path;
    void *handle;
};

/* The first of the names that is in the folder and opens. */
static bool try_folder(struct finding *f, const char *folder)
{
    for (const char *const *name = f->names; *name && !f->handle; name++) {
        const char *path = arena_printf(f->arena, "%s/%s", folder, *name);
        if (access(path, R_OK) != 0)
            continue;
        f->handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
        f->path = f->handle ? path : f->path;
    }
    return f->handle != NULL;
}

/* All folders that a pattern stands for. */
static bool try_pattern(struct finding *f, const char *pattern)
{
    glob_t found = {0};
    if (glob(pattern, 0, NULL, &found) == 0)
        for (size_t i = 0; i < found.gl_pathc && !f->handle; i++)
            (void)try_folder(f, found.gl_pathv[i]);
    globfree(&found);
    return f->handle != NULL;
}

static bool try_list(struct finding *f, const char *list)
{
    while (*list && !f->handle) {
        size_t length = strcspn(list, ":");
        if (length)
            (void)try_folder(f, arena_strndup(f->arena, list, length));
        list += length + (list[length] == ':');
    }
    return f->handle != NULL;
}

/* Where a toolkit keeps libraries. */
static bool try_toolkit(struct finding *f, const char *root)
{
    return root && *root &&
           (try_folder(f, arena_printf(f->arena, "%s/lib64", root)) ||
            try_folder(f, arena_printf(f->arena, "%s/lib", root)) ||
            try_pattern(f, arena_printf(f->arena, "%s/targets/*/lib", root)));
}

/* Where wheels of a Python environment keep theirs. */
static bool try_wheels(struct finding *f, const char *root, const char *below)
{
    return root && *root &&
           try_pattern(f, arena_printf(f->arena, "%s%s/lib/python3*/site-packages/nvidia/*/lib", root, below));
}

static bool try_loader(struct finding *f)
{
    for (const char *const *name = f->names; *name && !f->handle; name++) {
        f->handle = dlopen(*name, RTLD_NOW | RTLD_LOCAL);
        f->path = f->handle ? *name : f->path;
    }
    return f->handle != NULL;
}

void *cuda_library(struct arena *arena, const char *const *names, const char **path)
{
    struct finding f = {.arena = arena, .names = names};
    const char *only = getenv("TPC_CUDA_PATH");
    bool found = only && *only
                     ? try_list(&f, only)
                     : try_toolkit(&f, getenv("CUDA_HOME")) || try_toolkit(&f, getenv("CUDA_PATH")) || try_loader(&f) ||
                           try_toolkit(&f, "/usr/local/cuda") || try_wheels(&f, getenv("VIRTUAL_ENV"), "") ||
                           try_wheels(&f, getenv("CONDA_PREFIX"), "") || try_wheels(&f, getenv("HOME"), "/.local") ||
                           try_pattern(&f, "/usr/local/lib/python3*/*-packages/nvidia/*/lib");
    if (path)
        *path = found ? f.path : NULL;
    return f.handle;
}
