/* runtime/cuda_api.c - see cuda_api.h. Libraries are opened once per process and never closed: they have threads of their own. */
#include "runtime/cuda_api.h"

#include "codegen/cuda.h"

#include <dlfcn.h>
#include <pthread.h>

static const char *const driver_names[] = {"libcuda.so.1", NULL};
static const char *const blas_names[] = {"libcublasLt.so.13", "libcublasLt.so.12", NULL};
static const char *const nccl_names[] = {"libnccl.so.2", NULL};

/* What was found of one library. */
struct loaded {
    bool good;
    char missing[256];
    char path[512];
};

static pthread_once_t once = PTHREAD_ONCE_INIT;
static struct loaded driver_loaded, blas_loaded, nccl_loaded;
static struct cuda_driver driver;
static struct cuda_blas blas;
static struct cuda_nccl nccl;

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

/* what: "CUDA's driver". Fills the table's slots. */
static void load(struct arena *arena, const char *what, const char *const *names, const struct entry *symbols,
                 void *table, struct loaded *out)
{
    const char *path = NULL;
    void *library = cuda_library(arena, names, &path);
    if (!library) {
        snprintf(out->missing, sizeof out->missing, "%s is not found (%s)", what, names[0]);
        return;
    }
    snprintf(out->path, sizeof out->path, "%s", path);
    for (const struct entry *s = symbols; s->name; s++) {
        void *address = dlsym(library, s->name);
        if (!address && !s->later) {
            snprintf(out->missing, sizeof out->missing, "%s lacks %s: %.120s is too old", what, s->name, path);
            return;
        }
        memcpy((char *)table + s->at, &address, sizeof address);
    }
    out->good = true;
}

static void check_driver(void)
{
    struct loaded *l = &driver_loaded;
    char text[160];
    if (!l->good)
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

static void check_nccl(void)
{
    struct loaded *l = &nccl_loaded;
    if (!l->good)
        return;
    l->good = nccl.get_version(&nccl.version) == NCCL_OK && nccl.version >= NCCL_OLDEST;
    if (!l->good)
        snprintf(l->missing, sizeof l->missing, "NCCL is too old: %d.%d, but 2.18 is needed", nccl.version / 10000,
                 nccl.version % 10000 / 100);
}

static status load_all(void *context)
{
    struct arena *arena = context;
    load(arena, "CUDA's driver", driver_names, driver_symbols, &driver, &driver_loaded);
    load(arena, "cuBLASLt", blas_names, blas_symbols, &blas, &blas_loaded);
    load(arena, "NCCL", nccl_names, nccl_symbols, &nccl, &nccl_loaded);
    return TPC_OK;
}

static void load_once(void)
{
    struct arena *arena = arena_new();
    if (!arena || guard_run(NULL, load_all, arena) != TPC_OK)
        driver_loaded.good = blas_loaded.good = nccl_loaded.good = false;
    arena_free(arena);
    driver.path = driver_loaded.path;
    blas.path = blas_loaded.path;
    nccl.path = nccl_loaded.path;
    check_driver();
    if (blas_loaded.good)
        blas.version = blas.get_version();
    check_nccl();
}

static bool ready(const struct loaded *l, const char **missing)
{
    (void)pthread_once(&once, load_once);
    if (missing)
        *missing = l->good ? "" : *l->missing ? l->missing : "out of memory";
    return l->good;
}

const struct cuda_driver *cuda_driver(const char **missing)
{
    return ready(&driver_loaded, missing) ? &driver : NULL;
}

const struct cuda_blas *cuda_blas(const char **missing)
{
    return ready(&blas_loaded, missing) ? &blas : NULL;
}

const struct cuda_nccl *cuda_nccl(const char **missing)
{
    return ready(&nccl_loaded, missing) ? &nccl : NULL;
}

const char *cuda_error(const struct cuda_driver *d, cu_result error, char *to, size_t room)
{
    const char *name = NULL, *text = NULL;
    (void)d->error_name(error, &name);
    (void)d->error_text(error, &text);
    snprintf(to, room, "%s (%s)", name ? name : "unknown error", text ? text : "?");
    return to;
}
