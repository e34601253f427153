/* codegen/kernels.c - the kernels of a Program, ready to run: prints them, has them compiled, loads them, calls them.
 *
 * Kernels go into translation units by their number, so many to a unit; a unit's text, with the identity of the compiler, is the name of its
 * object in the cache. So equal programs find their objects again, and nothing else is ever compared. Start at kernels_load.
 */
#include "codegen/dialect.h"

#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { UNIT_KERNELS = 12, SYMBOL_LIMIT = 256 };

struct kernel_entry {
    struct nest nest;
    const uint32_t *coordinate; /* symbol per axis */
    kernel_function *run;       /* NULL: interpreted */
};

struct kernel_set {
    const struct program *program;
    struct kernel_entry *at;
    uint32_t count;
    struct kernel_counts counts;
};

/* ---- what can be said without code ---- */

/* Product of the extents of these axes. */
static bool extents(const struct kernel_entry *e, const uint8_t *axis, uint32_t count, const int64_t *of, int64_t *out)
{
    *out = 1;
    bool empty = false, fits = true;
    for (uint32_t i = 0; i < count; i++) {
        int64_t x;
        if (!dim_eval(e->nest.dims, e->nest.kernel->extent[axis[i]], of, &x))
            return false;
        empty |= x <= 0;
        fits = fits && i64_mul(*out, x, out);
    }
    *out = empty ? 0 : *out;
    return empty || fits;
}

int64_t kernel_extent(const struct kernel_set *set, uint32_t kernel, const int64_t *of)
{
    const struct kernel_entry *e = &set->at[kernel];
    int64_t points;
    bool fits = e->nest.cut_loop ? extents(e, e->nest.loop, 1, of, &points)
                                 : extents(e, e->nest.point, e->nest.points, of, &points);
    return fits ? points : -1;
}

int64_t kernel_work(const struct kernel_set *set, uint32_t kernel, const int64_t *of)
{
    const struct kernel_entry *e = &set->at[kernel];
    int64_t points, row, work;
    bool fits =
        extents(e, e->nest.point, e->nest.points, of, &points) && extents(e, e->nest.loop, e->nest.loops, of, &row);
    return fits && i64_mul(points, row, &work) && i64_mul(work, (int64_t)e->nest.work + 1, &work) ? work : INT64_MAX;
}

value kernel_fault_node(const struct kernel_set *set, uint32_t kernel, int64_t fault)
{
    const struct kernel *k = set->at[kernel].nest.kernel;
    return fault >= 1 && fault <= (int64_t)k->instruction_count ? k->instruction[fault - 1].node : 0;
}

struct kernel_counts kernels_counts(const struct kernel_set *set)
{
    return set->counts;
}

void kernel_run(const struct kernel_set *set, uint32_t kernel, void *const *buffers, const int64_t *of, int64_t begin,
                int64_t end, int64_t *fault)
{
    const struct kernel_entry *e = &set->at[kernel];
    int64_t symbols[SYMBOL_LIMIT];
    if (!e->run) {
        kernel_interpret(&e->nest, e->coordinate, buffers, of, begin, end, fault);
        return;
    }
    for (uint32_t i = 0; i < e->nest.symbol_count; i++)
        symbols[i] = of[e->nest.symbol[i]];
    e->run(buffers, symbols, begin, end, fault);
}

/* ---- preparing ---- */

struct loading {
    struct arena *arena, *scratch;
    const struct program *program;
    const struct codegen_options *options;
    struct diag *diag;
    struct kernel_set *set;
    struct compiler compiler;
    struct cache cache;
};

/* Symbols of the coordinates; one that is not in the table occurs in no expression and gets a spare number. */
static const uint32_t *find_coordinates(const struct dims *t, struct arena *arena)
{
    uint32_t *coordinate = NEW_ARRAY(arena, uint32_t, 2 * KERNEL_AXES), count = dims_symbol_count(t);
    for (uint32_t i = 0; i < 2 * KERNEL_AXES; i++)
        coordinate[i] = count + i;
    for (uint32_t s = 0; s < count; s++) {
        const struct symbol *symbol = dims_symbol(t, s);
        if (symbol->kind == SYMBOL_COORDINATE && symbol->index < 2 * KERNEL_AXES)
            coordinate[symbol->index] = s;
    }
    return coordinate;
}

static struct kernel_set *prepare(const struct loading *l, bool keep)
{
    struct kernel_set *set = NEW(l->arena, struct kernel_set);
    const struct dims *t = l->program->graph->dims;
    const uint32_t *coordinate = find_coordinates(t, l->arena);
    set->program = l->program;
    set->count = l->program->kernels.count;
    set->at = NEW_ARRAY(l->arena, struct kernel_entry, set->count + 1);
    for (uint32_t i = 0; i < set->count; i++) {
        nest_of(&l->program->kernels.at[i], t, keep, l->arena, &set->at[i].nest);
        set->at[i].coordinate = coordinate;
    }
    return set;
}

/* ---- units ---- */

struct source {
    struct unit unit;
    uint32_t first, end; /* kernels */
    const char *text;
    const uint32_t *line; /* at which each of them starts */
};

static uint32_t count_lines(const char *text)
{
    uint32_t lines = 0;
    for (const char *at = text; at && *at; at++)
        lines += *at == '\n';
    return lines;
}

static bool is_compiled(const struct kernel_entry *e)
{
    return e->nest.symbol_count <= SYMBOL_LIMIT;
}

static void print_unit(struct loading *l, struct source *s)
{
    const struct dims *t = l->program->graph->dims;
    struct text body = {.arena = l->scratch}, all = {.arena = l->scratch};
    struct map seen = {.arena = l->scratch};
    uint32_t *line = NEW_ARRAY(l->scratch, uint32_t, s->end - s->first + 1);
    text_put(&body, "");
    for (uint32_t i = s->first; i < s->end; i++) {
        char name[KERNEL_NAME];
        bool fresh;
        kernel_name(&l->program->kernels.at[i], t, l->scratch, name);
        (void)map_put(&seen, name, strlen(name), &fresh);
        line[i - s->first] = count_lines(body.at);
        if (fresh && is_compiled(&l->set->at[i])) {
            text_put(&body, "\n");
            print_kernel(&dialect_c, &l->program->kernels.at[i], t, l->scratch, &body);
        }
    }
    dialect_c.prelude(&all, body.at);
    for (uint32_t i = s->first; i < s->end; i++)
        line[i - s->first] += count_lines(all.at) + 2;
    text_put(&all, body.at);
    uint64_t key[2] = {hash_bytes(all.at, all.length, l->compiler.identity),
                       hash_bytes(all.at, all.length, ~l->compiler.identity)};
    s->unit = (struct unit){.source = all.at, .length = all.length};
    s->unit.object = arena_printf(l->scratch, "%s/%016llx%016llx.so", l->cache.path, (unsigned long long)key[0],
                                  (unsigned long long)key[1]);
    s->unit.cached = cache_check(s->unit.object);
    s->line = line;
}

/* The kernel that the compiler complains about: of the last line number before the first "error". */
static uint32_t blamed(const struct source *s, const char *log)
{
    const char *at = strstr(log, "error");
    uint32_t kernel = s->first;
    while (at && at > log && *at != '\n')
        at--;
    at = at ? strstr(at, ".c:") : NULL;
    unsigned long line = at ? strtoul(at + 3, NULL, 10) : 0;
    for (uint32_t i = s->first; i < s->end; i++)
        if (s->line[i - s->first] <= line)
            kernel = i;
    return kernel;
}

/* Where the compiler or the room for what it makes is at fault: one line. TPC_OK: it is the kernel. */
static status report_surroundings(const struct loading *l, const char *log)
{
    bool loading = false;
    if (log && (strstr(log, strerror(ENOSPC)) || strstr(log, strerror(EDQUOT))))
        return diag_error(l->diag, TPC_IO, l->cache.path,
                          "there is no room here (or for temporary files) to compile kernels; make some, or set "
                          "XDG_CACHE_HOME and TMPDIR to other folders");
    const char *why = compiler_objection(l->scratch, &l->compiler, &l->cache, &loading);
    if (!why)
        return TPC_OK;
    return diag_error(
        l->diag, TPC_UNSUPPORTED, l->compiler.path,
        loading ? "what this C compiler makes of an empty function cannot be loaded: %s; set CC to another one, or "
                  "XDG_CACHE_HOME to a folder that programs may be loaded from"
                : "this C compiler does not compile an empty function: %s; set CC to one that does (gcc, clang)",
        why);
}

static status report_failure(struct loading *l, const struct source *s, const char *log)
{
    status outside = report_surroundings(l, log);
    if (outside != TPC_OK)
        return outside;
    char name[KERNEL_NAME], *words = arena_strdup(l->scratch, log), *rest = NULL;
    kernel_name(&l->program->kernels.at[blamed(s, log)], l->program->graph->dims, l->scratch, name);
    status result =
        diag_error(l->diag, TPC_INTERNAL, name, "this generated kernel does not compile with %s", l->compiler.path);
    int lines = 0;
    for (char *line = strtok_r(words, "\n", &rest); line && lines < 10; line = strtok_r(NULL, "\n", &rest), lines++)
        diag_note(l->diag, name, "%s", line);
    return result;
}

static void unload(void *handle)
{
    (void)dlclose(handle);
}

static status load_unit(struct loading *l, const struct source *s)
{
    void *handle = dlopen(s->unit.object, RTLD_NOW | RTLD_LOCAL);
    if (!handle) {
        const char *why = arena_strdup(l->scratch, dlerror());
        status outside = report_surroundings(l, NULL);
        (void)unlink(s->unit.object);
        return outside != TPC_OK
                   ? outside
                   : diag_error(l->diag, TPC_INTERNAL, s->unit.object, "cannot load compiled kernels: %s", why);
    }
    arena_defer(l->arena, unload, handle);
    for (uint32_t i = s->first; i < s->end; i++) {
        struct kernel_entry *e = &l->set->at[i];
        char name[KERNEL_NAME];
        if (!is_compiled(e)) {
            l->set->counts.interpreted++;
            continue;
        }
        kernel_name(&l->program->kernels.at[i], l->program->graph->dims, l->scratch, name);
        void *symbol = dlsym(handle, name);
        if (!symbol)
            return diag_error(l->diag, TPC_INTERNAL, s->unit.object, "has no %s", name);
        memcpy(&e->run, &symbol, sizeof symbol);
        *(s->unit.cached ? &l->set->counts.cached : &l->set->counts.compiled) += 1;
    }
    return TPC_OK;
}

static uint32_t job_count(const struct codegen_options *options)
{
    long processors = sysconf(_SC_NPROCESSORS_ONLN);
    return options->jobs ? options->jobs : processors > 0 ? (uint32_t)processors : 1;
}

static status compile(struct loading *l)
{
    uint32_t count = (l->set->count + UNIT_KERNELS - 1) / UNIT_KERNELS, failed = 0;
    struct source *sources = NEW_ARRAY(l->scratch, struct source, count + 1);
    struct unit *units = NEW_ARRAY(l->scratch, struct unit, count + 1);
    const char *log = NULL;
    for (uint32_t i = 0; i < count; i++) {
        sources[i].first = i * UNIT_KERNELS;
        sources[i].end = (i + 1) * UNIT_KERNELS < l->set->count ? (i + 1) * UNIT_KERNELS : l->set->count;
        print_unit(l, &sources[i]);
        units[i] = sources[i].unit;
        l->set->counts.compilers += !units[i].cached;
    }
    if (compile_units(l->scratch, &l->compiler, &l->cache, units, count, job_count(l->options), &failed, &log) !=
        TPC_OK)
        return report_failure(l, &sources[failed], log);
    status s = TPC_OK;
    for (uint32_t i = 0; i < count && s == TPC_OK; i++)
        s = load_unit(l, &sources[i]);
    return s;
}

static double seconds(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

static void ignore_line(void *user, severity level, const char *line)
{
    (void)user;
    (void)level;
    (void)line;
}

const char *kernels_compiler(struct arena *arena, const char **why)
{
    struct compiler c;
    struct cache cache;
    struct diag quiet = {.sink = ignore_line};
    bool loading;
    *why = NULL;
    if (!compiler_find(arena, NULL, &c))
        return NULL;
    if (cache_temporary(arena, &quiet, &cache) == TPC_OK)
        *why = compiler_objection(arena, &c, &cache, &loading);
    return c.path;
}

/* Once per process. */
static void warn_of_interpreting(const struct loading *l)
{
    static bool said;
    const char *wanted = l->options->compiler ? l->options->compiler : getenv("CC");
    if (__atomic_exchange_n(&said, true, __ATOMIC_RELAXED))
        return;
    if (wanted && wanted[0])
        diag_warning(l->diag, NULL,
                     "the C compiler '%s' (CC) is not found: kernels are interpreted, which is slow; set CC to one "
                     "that is there",
                     wanted);
    else
        diag_warning(l->diag, NULL,
                     "no C compiler found: kernels are interpreted, which is slow; install gcc or clang, or set CC");
}

static status load_all(struct loading *l)
{
    bool found = !l->options->no_compiler && compiler_find(l->arena, l->options->compiler, &l->compiler);
    l->set = prepare(l, found);
    if (!found) {
        if (!l->options->no_compiler && l->set->count)
            warn_of_interpreting(l);
        l->set->counts.interpreted = l->set->count;
        return TPC_OK;
    }
    l->set->counts.compiler = l->compiler.path;
    if (l->set->count == 0)
        return TPC_OK;
    status s = cache_open(l->arena, l->options->cache, l->diag, &l->cache);
    l->set->counts.cache = l->cache.path;
    return s == TPC_OK ? compile(l) : s;
}

status kernels_load(struct arena *arena, const struct program *p, const struct codegen_options *options,
                    struct diag *diag, struct kernel_set **out)
{
    static const struct codegen_options none;
    double start = seconds();
    struct loading l = {.arena = arena, .program = p, .options = options ? options : &none, .diag = diag};
    l.scratch = arena_new_in(arena);
    status s = load_all(&l);
    arena_free(l.scratch);
    if (s == TPC_OK)
        l.set->counts.seconds = seconds() - start;
    *out = s == TPC_OK ? l.set : NULL;
    return s;
}

/* ---- for readers ---- */

static status emit_one(const struct program *p, uint32_t kernel, const char *dir, struct arena *arena,
                       struct diag *diag)
{
    struct text body = {.arena = arena}, all = {.arena = arena};
    char name[KERNEL_NAME];
    kernel_name(&p->kernels.at[kernel], p->graph->dims, arena, name);
    print_kernel(&dialect_c, &p->kernels.at[kernel], p->graph->dims, arena, &body);
    dialect_c.prelude(&all, body.at);
    text_put(&all, "\n");
    text_put(&all, body.at);
    const char *path = arena_printf(arena, "%s/%s.c", dir, name);
    FILE *f = fopen(path, "we");
    bool good = f && fwrite(all.at, 1, all.length, f) == all.length;
    good = f && fclose(f) == 0 && good;
    return good ? TPC_OK : diag_error(diag, TPC_IO, path, "cannot write: %s", strerror(errno));
}

struct emitting {
    struct arena *arena;
    const struct program *program;
    const char *dir;
    struct diag *diag;
};

static status emit_all(void *context)
{
    struct emitting *e = context;
    status s = TPC_OK;
    if (mkdir(e->dir, 0777) != 0 && errno != EEXIST)
        return diag_error(e->diag, TPC_IO, e->dir, "cannot make the directory: %s", strerror(errno));
    for (uint32_t i = 0; i < e->program->kernels.count && s == TPC_OK; i++)
        s = emit_one(e->program, i, e->dir, e->arena, e->diag);
    return s;
}

status kernels_emit(const struct program *p, const char *dir, struct diag *diag)
{
    struct emitting e = {arena_new(), p, dir, diag};
    if (!e.arena)
        return diag_error(diag, TPC_NOMEM, NULL, "out of memory");
    status s = guard_run(diag, emit_all, &e);
    arena_free(e.arena);
    return s;
}
