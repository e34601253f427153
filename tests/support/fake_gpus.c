/* tests/support/fake_gpus.c - see fake_gpus.h. */
#include "tests/support/fake_gpus.h"
#include "tests/test.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>

static void keep_line(void *user, severity level, const char *line)
{
    (void)user;
    (void)level;
    fakes.lines++;
    snprintf(fakes.last_line, sizeof fakes.last_line, "%s", line);
}

struct fake_gpus fakes = {.diag = {.sink = keep_line}};

static void find(void *library, const char *name, void *to)
{
    void *symbol = dlsym(library, name);
    assert_non_null(symbol);
    memcpy(to, &symbol, sizeof symbol);
}

int open_fakes(void **state)
{
    char path[4200];
    const char *build = getenv("BUILD");
    (void)state;
    snprintf(path, sizeof path, "%s/fake_cuda", build ? build : ".");
    setenv("TPC_CUDA_PATH", path, 1);
    setenv("TPC_FAKE_OBJECTS", "objects", 1);
    setenv("TPC_FAKE_GPUS", "4", 1);
    setenv("TPC_CUDA_OVERLAP", "1", 1);
    strncat(path, "/libcuda.so.1", sizeof path - strlen(path) - 1);
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!library)
        print_message("%s\n", dlerror());
    assert_non_null(library);
    find(library, "fake_fail_after", &fakes.fail_after);
    find(library, "fake_fail_of", &fakes.fail_of);
    find(library, "fake_calls", &fakes.calls);
    find(library, "fake_live", &fakes.live);
    return 0;
}
