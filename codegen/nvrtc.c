/* codegen/nvrtc.c - CUDA text to cubins: by NVRTC, several at a time, through the private cache.
 *
 * An entry of the cache is named by what its contents follow from: text, architecture, NVRTC's version, options. It holds what the assembler
 * said of registers and spills, then the cubin. Threads take functions from a common counter; the first failure is kept, the others go on to
 * their end. Nothing is allocated in an arena while they run. Start at cuda_compile.
 */
#include "codegen/cuda_impl.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

enum { JOBS = 32, LOG_LINES = 12, PATH_BYTES = 4096, CACHE_FORMAT = 1 };

/* ---- NVRTC ---- */

typedef void *nvrtc_program;

/* Its functions; all return 0 when they succeed. */
struct nvrtc {
    int (*version)(int *major, int *minor);
    int (*create)(nvrtc_program *p, const char *text, const char *name, int headers, const char *const *,
                  const char *const *);
    int (*compile)(nvrtc_program p, int options, const char *const *option);
    int (*log_size)(nvrtc_program p, size_t *bytes);
    int (*log)(nvrtc_program p, char *log);
    int (*cubin_size)(nvrtc_program p, size_t *bytes);
    int (*cubin)(nvrtc_program p, char *cubin);
    int (*destroy)(nvrtc_program *p);
    int major, minor;
    const char *path;
};

/* NULL, or the symbol that is missing. */
static const char *find_functions(void *handle, struct nvrtc *n)
{
    struct {
        const char *name;
        void *to;
    } const symbols[] = {
        {"nvrtcVersion", &n->version},        {"nvrtcCreateProgram", &n->create},
        {"nvrtcCompileProgram", &n->compile}, {"nvrtcGetProgramLogSize", &n->log_size},
        {"nvrtcGetProgramLog", &n->log},      {"nvrtcGetCUBINSize", &n->cubin_size},
        {"nvrtcGetCUBIN", &n->cubin},         {"nvrtcDestroyProgram", &n->destroy},
    };
    for (size_t i = 0; i < sizeof symbols / sizeof symbols[0]; i++) {
        void *symbol = dlsym(handle, symbols[i].name);
        if (!symbol)
            return symbols[i].name;
        memcpy(symbols[i].to, &symbol, sizeof symbol);
    }
    return NULL;
}

/* It stays open until the process ends: it has threads and caches of its own. */
static status find_nvrtc(struct arena *arena, struct diag *diag, struct nvrtc *n)
{
    static const char *const names[] = {"libnvrtc.so.13", "libnvrtc.so.12", "libnvrtc.so", NULL};
    const char *path = NULL;
    void *handle = cuda_library(arena, names, &path);
    if (!handle)
        return diag_error(
            diag, TPC_UNSUPPORTED, "NVRTC",
            "libnvrtc.so.13 or .12 is not found in TPC_CUDA_PATH, CUDA_HOME, /usr/local/cuda, the loader's path or "
            "Python's wheels: install CUDA's NVRTC, or set TPC_CUDA_PATH to its folder");
    const char *missing = find_functions(handle, n);
    if (missing)
        return diag_error(diag, TPC_UNSUPPORTED, path, "this NVRTC has no %s: it is too old", missing);
    if (n->version(&n->major, &n->minor) != 0)
        return diag_error(diag, TPC_UNSUPPORTED, path, "this NVRTC does not tell its version");
    n->path = path;
    return TPC_OK;
}

/* ---- one function ---- */

struct figures {
    uint32_t format, registers, shared, stack, spilled;
};

struct compiling {
    struct cuda_set *set;
    const struct nvrtc *nvrtc;
    const char *cache;
    char architecture[32];
    uint64_t identity; /* of NVRTC and options */
    uint32_t next;     /* atomic */
    uint32_t cached, compiled;
    pthread_mutex_t lock; /* for what follows */
    status result;
    uint32_t failed; /* function */
    char *log;       /* of base_alloc */
};

static void path_of(const struct compiling *c, const struct cuda_function *f, char path[PATH_BYTES])
{
    uint64_t key[2] = {hash_bytes(f->source, f->length, c->identity), hash_bytes(f->source, f->length, ~c->identity)};
    (void)snprintf(path, PATH_BYTES, "%s/%016llx%016llx.cubin", c->cache, (unsigned long long)key[0],
                   (unsigned long long)key[1]);
}

static void give_image(struct cuda_function *f, const struct figures *figures, const void *image, size_t bytes)
{
    f->image = image;
    f->image_bytes = bytes;
    f->registers = figures->registers;
    f->shared_bytes = figures->shared;
    f->stack_bytes = figures->stack;
    f->spill_bytes = figures->spilled;
}

static bool take_cached(const char *path, struct cuda_function *f)
{
    struct figures figures;
    size_t bytes = 0;
    char *entry = cache_read(path, &bytes);
    if (entry && bytes > sizeof figures) {
        memcpy(&figures, entry, sizeof figures);
        if (figures.format == CACHE_FORMAT) {
            give_image(f, &figures, entry + sizeof figures, bytes - sizeof figures);
            return true;
        }
    }
    base_free(entry);
    return false;
}

/* Where it cannot be kept, the next start compiles again; that is no error. */
static void put_cached(const struct compiling *c, const char *path, const void *entry, size_t bytes, uint32_t number)
{
    char temporary[PATH_BYTES];
    int length = snprintf(temporary, sizeof temporary, "%s/.%ld.%u.cubin", c->cache, (long)getpid(), (unsigned)number);
    if (length < 0 || (size_t)length >= sizeof temporary)
        return;
    (void)unlink(temporary);
    int file = open(temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (file < 0)
        return;
    bool good = write(file, entry, bytes) == (ssize_t)bytes;
    if (close(file) == 0 && good)
        (void)cache_install(temporary, path);
    else
        (void)unlink(temporary);
}

/* The number that stands before `what` in the assembler's words, of its last occurrence; 0: there is none. */
static uint32_t number_before(const char *log, const char *what)
{
    uint32_t number = 0;
    for (const char *at = strstr(log, what); at; at = strstr(at + 1, what)) {
        const char *digits = at;
        while (digits > log && digits[-1] >= '0' && digits[-1] <= '9')
            digits--;
        number = digits < at ? (uint32_t)strtoul(digits, NULL, 10) : number;
    }
    return number;
}

static void fail_function(struct compiling *c, uint32_t number, status code, char *log)
{
    (void)pthread_mutex_lock(&c->lock);
    if (c->result == TPC_OK || number < c->failed) {
        base_free(c->log);
        c->result = code;
        c->failed = number;
        c->log = log;
        log = NULL;
    }
    (void)pthread_mutex_unlock(&c->lock);
    base_free(log);
}

static char *log_of(const struct nvrtc *n, nvrtc_program p)
{
    size_t bytes = 0;
    char *log = n->log_size(p, &bytes) == 0 ? base_alloc(bytes + 1) : NULL;
    if (log && n->log(p, log) != 0)
        log[0] = '\0';
    if (log)
        log[bytes] = '\0';
    return log;
}

/* The figures, then the cubin, as one block of base_alloc. */
static char *entry_of(const struct nvrtc *n, nvrtc_program p, const char *log, size_t *bytes)
{
    size_t image = 0;
    if (n->cubin_size(p, &image) != 0 || image == 0)
        return NULL;
    struct figures figures = {CACHE_FORMAT, number_before(log, " registers"), number_before(log, " bytes smem"),
                              number_before(log, " bytes stack frame"), 0};
    figures.spilled = number_before(log, " bytes spill stores") + number_before(log, " bytes spill loads");
    *bytes = sizeof figures + image;
    char *entry = base_alloc(*bytes);
    if (!entry || n->cubin(p, entry + sizeof figures) != 0) {
        base_free(entry);
        return NULL;
    }
    memcpy(entry, &figures, sizeof figures);
    return entry;
}

static void compile_function(struct compiling *c, uint32_t number)
{
    struct cuda_function *f = &c->set->functions.at[number];
    const struct nvrtc *n = c->nvrtc;
    const char *const options[] = {c->architecture, "--ptxas-options=-v", "-diag-suppress=177"};
    char path[PATH_BYTES];
    nvrtc_program p = NULL;
    path_of(c, f, path);
    if (take_cached(path, f)) {
        (void)__atomic_fetch_add(&c->cached, 1, __ATOMIC_RELAXED);
        return;
    }
    int failed = n->create(&p, f->source, f->name, 0, NULL, NULL);
    if (!failed)
        failed = n->compile(p, sizeof options / sizeof options[0], options);
    char *log = p ? log_of(n, p) : NULL;
    size_t bytes = 0;
    char *entry = failed || !log ? NULL : entry_of(n, p, log, &bytes);
    if (entry) {
        struct figures figures;
        memcpy(&figures, entry, sizeof figures);
        give_image(f, &figures, entry + sizeof figures, bytes - sizeof figures);
        put_cached(c, path, entry, bytes, number);
        (void)__atomic_fetch_add(&c->compiled, 1, __ATOMIC_RELAXED);
    } else {
        fail_function(c, number, failed || log ? TPC_INTERNAL : TPC_NOMEM, log);
        log = NULL;
    }
    base_free(log);
    if (p)
        (void)n->destroy(&p);
}

/* ---- all ---- */

static void *work(void *context)
{
    struct compiling *c = context;
    for (;;) {
        uint32_t number = __atomic_fetch_add(&c->next, 1, __ATOMIC_RELAXED);
        if (number >= c->set->functions.count)
            return NULL;
        if (!c->set->functions.at[number].image)
            compile_function(c, number);
    }
}

static void release_images(void *object)
{
    struct cuda_set *set = object;
    for (uint32_t i = 0; i < set->functions.count; i++)
        if (set->functions.at[i].image)
            base_free((char *)(uintptr_t)set->functions.at[i].image - sizeof(struct figures));
}

static status report(struct compiling *c, struct diag *diag)
{
    const struct cuda_function *f = &c->set->functions.at[c->failed];
    struct arena *arena = c->set->arena;
    if (c->result == TPC_NOMEM)
        return diag_error(diag, TPC_NOMEM, NULL, "out of memory while CUDA kernels are compiled");
    status result =
        diag_error(diag, c->result, f->name, "this generated function does not compile with NVRTC %d.%d for %s",
                   c->nvrtc->major, c->nvrtc->minor, strchr(c->architecture, 's'));
    if (f->node)
        diag_note(diag, f->name, "it computes %s", graph_where(c->set->program->graph, f->node, arena));
    char *words = c->log ? arena_strdup(arena, c->log) : NULL, *rest = NULL;
    int lines = 0;
    for (char *line = words ? strtok_r(words, "\n", &rest) : NULL; line && lines < LOG_LINES;
         line = strtok_r(NULL, "\n", &rest), lines++)
        diag_note(diag, f->name, "%s", line);
    return result;
}

static double seconds(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

static void run_jobs(struct compiling *c, uint32_t jobs)
{
    pthread_t thread[JOBS];
    uint32_t started = 0;
    long processors = sysconf(_SC_NPROCESSORS_ONLN);
    jobs = jobs ? jobs : processors > 0 ? (uint32_t)processors : 1;
    jobs = jobs < JOBS ? jobs : JOBS;
    while (started + 1 < jobs && started + 1 < c->set->functions.count &&
           pthread_create(&thread[started], NULL, work, c) == 0)
        started++;
    (void)work(c);
    for (uint32_t i = 0; i < started; i++)
        (void)pthread_join(thread[i], NULL);
}

status cuda_compile(struct cuda_set *set, const struct cuda_options *options, struct diag *diag)
{
    struct nvrtc n = {0};
    struct cache cache;
    struct compiling c = {.set = set, .nvrtc = &n, .lock = PTHREAD_MUTEX_INITIALIZER};
    double start = seconds();
    status s = find_nvrtc(set->arena, diag, &n);
    if (s == TPC_OK)
        s = cache_open(set->arena, options->cache, diag, &cache);
    if (s != TPC_OK)
        return s;
    c.cache = cache.path;
    (void)snprintf(c.architecture, sizeof c.architecture, "--gpu-architecture=sm_%u", (unsigned)options->compute);
    const int64_t facts[4] = {n.major, n.minor, options->compute, CACHE_FORMAT};
    c.identity = hash_bytes(facts, sizeof facts, 0);
    if (!set->released_with_arena)
        arena_defer(set->arena, release_images, set);
    set->released_with_arena = true;
    run_jobs(&c, options->jobs);
    set->counts.compiled = c.compiled;
    set->counts.cached = c.cached;
    set->counts.seconds = seconds() - start;
    set->counts.nvrtc = arena_printf(set->arena, "NVRTC %d.%d %s", n.major, n.minor, n.path);
    s = c.result == TPC_OK ? TPC_OK : report(&c, diag);
    base_free(c.log);
    (void)pthread_mutex_destroy(&c.lock);
    return s;
}
