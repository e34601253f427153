/* runtime/cuda_api.c - see cuda_api.h. A library is opened when it is first asked for, since cuBLASLt alone takes a tenth of a second and 100 MB, and never
 * closed: they have threads of their own.
 */
#include "runtime/cuda_api.h"

#include "codegen/cuda.h"

#include <dlfcn.h>
#include <pthread.h>

static const char *const driver_names[] = {"libcuda.so.1", NULL};
static const char *const blas_names[] = {"libcublasLt.so.13", "libcublasLt.so.12", NULL};
static const char *const nccl_names[] = {"libnccl.so.2", NULL};

struct entry {
    const char *name;
    size_t at;  /* of the slot in the table */
    bool later; /* may be missing */
};
#define SYMBOL(table, slot, symbol) {#symbol, offsetof(struct table, slot), false},
#define DRIVER_SYMBOL(slot, symbol, parameters) SYMBOL(cuda_driver, slot, symbol)
#define LATER_SYMBOL(slot, symbol, parameters) {#symbol, offsetof(struct cuda_driver, slot), true},
#define BLAS_SYMBOL(slot, symbol, parameters) SYMBOL(cuda_blas, slot, symbol)
#define NCCL_SYMBOL(slot, symbol, parameters) SYMBOL(cuda_nccl, slot, symbol)

static const struct entry driver_symbols[] = {CUDA_DRIVER(DRIVER_SYMBOL) CUDA_DRIVER_LATER(LATER_SYMBOL){0}};
static const struct entry blas_symbols[] = {CUDA_BLAS(BLAS_SYMBOL)
                                                SYMBOL(cuda_blas, get_version, cublasLtGetVersion){0}};
static const struct entry nccl_symbols[] = {CUDA_NCCL(NCCL_SYMBOL) SYMBOL(cuda_nccl, error_text, ncclGetErrorString)
                                                SYMBOL(cuda_nccl, last_error, ncclGetLastError){0}};

static struct cuda_driver driver;
static struct cuda_blas blas;
static struct cuda_nccl nccl;

/* A library, and what was found of it. */
struct library {
    const char *what, *const *names;
    const struct entry *symbols;
    void *table; /* its slots are filled */
    struct arena *arena;
    bool good;
    char missing[256];
    char path[512];
};
static struct library driver_library = {
    .what = "CUDA's driver", .names = driver_names, .symbols = driver_symbols, .table = &driver};
static struct library blas_library = {.what = "cuBLASLt", .names = blas_names, .symbols = blas_symbols, .table = &blas};
static struct library nccl_library = {.what = "NCCL", .names = nccl_names, .symbols = nccl_symbols, .table = &nccl};

static status load(void *context)
{
    struct library *l = context;
    const char *path = NULL;
    void *handle = cuda_library(l->arena, l->names, &path);
    if (!handle) {
        snprintf(l->missing, sizeof l->missing, "%s is not found (%s)", l->what, l->names[0]);
        return TPC_OK;
    }
    snprintf(l->path, sizeof l->path, "%s", path);
    for (const struct entry *s = l->symbols; s->name; s++) {
        void *address = dlsym(handle, s->name);
        if (!address && !s->later) {
            snprintf(l->missing, sizeof l->missing, "%s lacks %s: %.120s is too old", l->what, s->name, path);
            return TPC_OK;
        }
        memcpy((char *)l->table + s->at, &address, sizeof address);
    }
    l->good = true;
    return TPC_OK;
}

static bool load_library(struct library *l)
{
    l->arena = arena_new();
    if (!l->arena || guard_run(NULL, load, l) != TPC_OK)
        l->good = false;
    arena_free(l->arena);
    return l->good;
}

static void load_driver(void)
{
    struct library *l = &driver_library;
    char text[160];
    driver.path = l->path;
    if (!load_library(l))
        return;
    cu_result r = driver.init(0);
    if (r == CU_OK)
        r = driver.driver_version(&driver.version);
    l->good = r == CU_OK && driver.version >= CU_OLDEST_DRIVER;
    if (r != CU_OK)
        snprintf(l->missing, sizeof l->missing,
                 r == CU_NO_DEVICE ? "CUDA's driver finds no GPU: %s" : "CUDA's driver does not start: %s",
                 cuda_error(&driver, r, text, sizeof text));
    else if (!l->good)
        snprintf(l->missing, sizeof l->missing, "CUDA's driver is for CUDA %d.%d, but 12.0 is needed",
                 driver.version / 1000, driver.version % 1000 / 10);
}

static void load_blas(void)
{
    blas.path = blas_library.path;
    if (load_library(&blas_library))
        blas.version = blas.get_version();
}

static void load_nccl(void)
{
    struct library *l = &nccl_library;
    nccl.path = l->path;
    if (!load_library(l))
        return;
    l->good = nccl.get_version(&nccl.version) == NCCL_OK && nccl.version >= NCCL_OLDEST;
    if (!l->good)
        snprintf(l->missing, sizeof l->missing, "NCCL is too old: %d.%d, but 2.18 is needed", nccl.version / 10000,
                 nccl.version % 10000 / 100);
}

static bool ready(const struct library *l, const char **missing)
{
    if (missing)
        *missing = l->good ? "" : *l->missing ? l->missing : "out of memory";
    return l->good;
}

const struct cuda_driver *cuda_driver(const char **missing)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    (void)pthread_once(&once, load_driver);
    return ready(&driver_library, missing) ? &driver : NULL;
}

const struct cuda_blas *cuda_blas(const char **missing)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    (void)pthread_once(&once, load_blas);
    return ready(&blas_library, missing) ? &blas : NULL;
}

const struct cuda_nccl *cuda_nccl(const char **missing)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    (void)pthread_once(&once, load_nccl);
    return ready(&nccl_library, missing) ? &nccl : NULL;
}

const char *cuda_error(const struct cuda_driver *d, cu_result error, char *to, size_t room)
{
    const char *name = NULL, *text = NULL;
    (void)d->error_name(error, &name);
    (void)d->error_text(error, &text);
    snprintf(to, room, "%s (%s)", name ? name : "unknown error", text ? text : "?");
    return to;
}
