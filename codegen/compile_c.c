/* codegen/compile_c.c - C text to shared objects, by the compiler of the system.
 *
 * The compiler is found, and told from its next version, without running it: by real path, size and time of change. With the flags and the
 * processor's features that makes its identity, which is part of every cache key, so that a run whose kernels are all cached starts no
 * process. Units are compiled side by side, each by a process group of its own, without a shell; what they say is read through
 * pipes until a deadline. Start at compile_units.
 */
#include "codegen/dialect.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { COMPILE_SECONDS = 300, LOG_BYTES = 16384, JOB_LIMIT = 64 };

/* Nobody asks libm for errno, nor the processor for exception flags: that is all that keeps loops from being vectorised. Contraction to fused
 * multiply-add is the same for each rank, since all run the same object. Values keep their IEEE semantics otherwise. */
static const char *const flags[] = {
    "-x",
    "c",
    "-std=gnu11",
    "-w",
    "-fPIC",
    "-shared",
    "-O3",
    "-march=native",
    "-ffp-contract=fast",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-fopenmp-simd",
};
enum { FLAGS = sizeof flags / sizeof flags[0] };

/* ---- finding it ---- */

static bool is_program(const char *path, struct stat *s)
{
    return stat(path, s) == 0 && S_ISREG(s->st_mode) && access(path, X_OK) == 0;
}

/* As execvp would find it. */
static const char *search_path(struct arena *arena, const char *name, struct stat *s)
{
    if (strchr(name, '/'))
        return is_program(name, s) ? name : NULL;
    const char *path = getenv("PATH");
    for (const char *at = path ? path : "/usr/local/bin:/usr/bin:/bin"; *at;) {
        size_t length = strcspn(at, ":");
        const char *full = arena_printf(arena, "%.*s/%s", (int)length, at, name);
        if (length && is_program(full, s))
            return full;
        at += length + (at[length] == ':');
    }
    return NULL;
}

/* What -march=native depends on: the lines of the first processor that say what it can do. */
static uint64_t processor_hash(struct arena *arena)
{
    static const char *const keys[] = {"vendor_id", "cpu family",  "model", "flags", "Features",
                                       "CPU part",  "CPU variant", "isa",   "cpu\t"};
    uint64_t hash = 0;
    size_t size = 1 << 16;
    char *line = NEW_ARRAY(arena, char, size);
    FILE *f = fopen("/proc/cpuinfo", "re");
    while (f && fgets(line, (int)size, f) && line[0] != '\n')
        for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++)
            if (strncmp(line, keys[i], strlen(keys[i])) == 0) {
                hash = hash_bytes(line, strlen(line), hash);
                break;
            }
    if (f)
        (void)fclose(f);
    return hash;
}

/* Splits a command at spaces. */
static void split_command(struct arena *arena, const char *command, struct compiler *c)
{
    char *copy = arena_strdup(arena, command), *rest = NULL;
    c->argv = NEW_ARRAY(arena, char *, strlen(command) + 2);
    for (char *word = strtok_r(copy, " \t", &rest); word; word = strtok_r(NULL, " \t", &rest))
        c->argv[c->arguments++] = word;
}

static uint64_t hash_text(const char *text, uint64_t hash)
{
    return hash_bytes(text, strlen(text), hash);
}

static bool try_command(struct arena *arena, const char *command, struct compiler *c)
{
    struct stat s = {0};
    *c = (struct compiler){0};
    split_command(arena, command, c);
    c->path = c->arguments ? search_path(arena, c->argv[0], &s) : NULL;
    if (!c->path)
        return false;
    uint64_t hash = processor_hash(arena);
    char *real = realpath(c->path, NULL); /* nothing is allocated in the arena until it is freed */
    hash = hash_text(real ? real : c->path, hash);
    free(real);
    const int64_t facts[3] = {(int64_t)s.st_size, (int64_t)s.st_mtim.tv_sec, (int64_t)s.st_mtim.tv_nsec};
    hash = hash_bytes(facts, sizeof facts, hash);
    for (uint32_t i = 0; i < c->arguments; i++)
        hash = hash_text(c->argv[i], hash);
    for (uint32_t i = 0; i < FLAGS; i++)
        hash = hash_text(flags[i], hash);
    c->identity = hash;
    return true;
}

bool compiler_find(struct arena *arena, const char *wanted, struct compiler *out)
{
    static const char *const usual[] = {"cc", "gcc", "clang"};
    const char *command = wanted ? wanted : getenv("CC");
    if (command && command[0])
        return try_command(arena, command, out);
    for (size_t i = 0; i < sizeof usual / sizeof usual[0]; i++)
        if (try_command(arena, usual[i], out))
            return true;
    return false;
}

/* ---- one compilation ---- */

struct job {
    pid_t child; /* 0: free */
    int pipe;    /* its words; -1 once they have ended */
    uint32_t unit;
    char *source, *object; /* temporary files */
    char *log;
    size_t length;
};

struct batch {
    struct arena *arena;
    const struct compiler *compiler;
    const struct cache *cache;
    struct unit *units;
    struct job job[JOB_LIMIT];
    uint32_t jobs;
    struct timespec deadline;
};

static bool write_source(const char *path, const struct unit *u)
{
    int file = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (file < 0)
        return false;
    bool good = true;
    for (size_t done = 0; done < u->length && good;) {
        ssize_t n = write(file, u->source + done, u->length - done);
        good = n > 0 || (n < 0 && errno == EINTR);
        done += n > 0 ? (size_t)n : 0;
    }
    return close(file) == 0 && good;
}

static char **arguments_of(struct batch *b, const struct job *j)
{
    const struct compiler *c = b->compiler;
    char **argv = NEW_ARRAY(b->arena, char *, c->arguments + FLAGS + 8);
    uint32_t n = 0;
    for (uint32_t i = 0; i < c->arguments; i++)
        argv[n++] = c->argv[i];
    for (uint32_t i = 0; i < FLAGS; i++)
        argv[n++] = arena_strdup(b->arena, flags[i]);
    argv[n++] = arena_strdup(b->arena, "-o");
    argv[n++] = j->object;
    argv[n++] = j->source;
    argv[n++] = arena_strdup(b->arena, "-lm");
    return argv;
}

static int spawn(struct batch *b, struct job *j, char **argv, int out)
{
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    sigset_t none;
    (void)sigemptyset(&none);
    if (posix_spawn_file_actions_init(&actions) != 0)
        return ENOMEM;
    if (posix_spawnattr_init(&attributes) != 0) {
        (void)posix_spawn_file_actions_destroy(&actions);
        return ENOMEM;
    }
    (void)posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
    (void)posix_spawn_file_actions_adddup2(&actions, out, 1);
    (void)posix_spawn_file_actions_adddup2(&actions, out, 2);
    (void)posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGMASK);
    (void)posix_spawnattr_setpgroup(&attributes, 0);
    (void)posix_spawnattr_setsigmask(&attributes, &none);
    int failed = posix_spawn(&j->child, b->compiler->path, &actions, &attributes, argv, environ);
    j->child = failed ? 0 : j->child;
    (void)posix_spawnattr_destroy(&attributes);
    (void)posix_spawn_file_actions_destroy(&actions);
    return failed;
}

/* NULL, or why it could not be started. */
static const char *start(struct batch *b, struct job *j, uint32_t unit)
{
    static uint32_t serial;
    int ends[2];
    uint32_t number = __atomic_fetch_add(&serial, 1, __ATOMIC_RELAXED);
    *j = (struct job){.unit = unit, .pipe = -1};
    j->source = arena_printf(b->arena, "%s/.%ld.%u.c", b->cache->path, (long)getpid(), (unsigned)number);
    j->object = arena_printf(b->arena, "%s/.%ld.%u.so", b->cache->path, (long)getpid(), (unsigned)number);
    j->log = NEW_ARRAY(b->arena, char, LOG_BYTES + 1);
    char **argv = arguments_of(b, j);
    (void)unlink(j->source);
    if (!write_source(j->source, &b->units[unit]))
        return arena_printf(b->arena, "cannot write %s: %s", j->source, strerror(errno));
    if (pipe2(ends, O_CLOEXEC) != 0)
        return strerror(errno);
    int failed = spawn(b, j, argv, ends[1]);
    (void)close(ends[1]);
    if (failed) {
        (void)close(ends[0]);
        return arena_printf(b->arena, "cannot start %s: %s", b->compiler->path, strerror(failed));
    }
    j->pipe = ends[0];
    return NULL;
}

static void listen_to(struct job *j)
{
    char chunk[4096];
    ssize_t n = read(j->pipe, chunk, sizeof chunk);
    if (n < 0 && errno == EINTR)
        return;
    if (n <= 0) {
        (void)close(j->pipe);
        j->pipe = -1;
        return;
    }
    size_t room = LOG_BYTES - j->length, take = (size_t)n < room ? (size_t)n : room;
    memcpy(j->log + j->length, chunk, take);
    j->length += take;
}

static pid_t wait_for(pid_t child, int *code)
{
    pid_t got;
    do
        got = waitpid(child, code, 0);
    while (got < 0 && errno == EINTR);
    return got;
}

/* After its words have ended. NULL, or what went wrong. */
static const char *finish(struct batch *b, struct job *j)
{
    int code = 0;
    pid_t got = wait_for(j->child, &code);
    j->child = 0;
    (void)unlink(j->source);
    /* Where somebody ignores SIGCHLD there is nothing to wait for: then the object tells. */
    bool good = got < 0 || (WIFEXITED(code) && WEXITSTATUS(code) == 0);
    if (good && cache_install(j->object, b->units[j->unit].object))
        return NULL;
    (void)unlink(j->object);
    if (got >= 0 && WIFSIGNALED(code))
        return arena_printf(b->arena, "it died of signal %d\n%s", WTERMSIG(code), j->log);
    return j->length ? j->log
                     : arena_printf(b->arena, "it said nothing and gave no object (exit code %d)", WEXITSTATUS(code));
}

/* Ends what still runs; also when an allocation failed in between. */
static void abandon(void *object)
{
    struct batch *b = object;
    for (uint32_t i = 0; i < b->jobs; i++) {
        struct job *j = &b->job[i];
        int code;
        if (j->child) {
            (void)kill(-j->child, SIGKILL);
            (void)kill(j->child, SIGKILL);
            (void)wait_for(j->child, &code);
            if (j->pipe >= 0)
                (void)close(j->pipe);
        }
        if (j->object) {
            (void)unlink(j->source);
            (void)unlink(j->object);
        }
        *j = (struct job){0};
    }
}

/* ---- many ---- */

static int milliseconds_left(const struct batch *b)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    int64_t left = ((int64_t)b->deadline.tv_sec - (int64_t)now.tv_sec) * 1000;
    return left > 0 ? (int)left : 0;
}

/* Waits until some job has ended; its number, or -1 when the time is up. */
static int wait_for_one(struct batch *b)
{
    for (;;) {
        struct pollfd fds[JOB_LIMIT];
        for (uint32_t i = 0; i < b->jobs; i++) {
            if (b->job[i].child && b->job[i].pipe < 0)
                return (int)i;
            fds[i] = (struct pollfd){.fd = b->job[i].child ? b->job[i].pipe : -1, .events = POLLIN};
        }
        int left = milliseconds_left(b);
        if (left == 0)
            return -1;
        if (poll(fds, b->jobs, left) <= 0)
            continue;
        for (uint32_t i = 0; i < b->jobs; i++)
            if (fds[i].fd >= 0 && fds[i].revents)
                listen_to(&b->job[i]);
    }
}

static uint32_t free_job(const struct batch *b)
{
    uint32_t i = 0;
    while (i < b->jobs && b->job[i].child)
        i++;
    return i;
}

/* One step: starts a compiler, or waits for one. NULL, or what went wrong with unit *at. */
static const char *advance(struct batch *b, uint32_t *next, uint32_t count, uint32_t *running, uint32_t *at)
{
    uint32_t slot = free_job(b);
    if (*next < count && slot < b->jobs) {
        *at = (*next)++;
        (*running)++;
        return start(b, &b->job[slot], *at);
    }
    int done = wait_for_one(b);
    (*running)--;
    *at = b->job[done < 0 ? 0 : done].unit;
    return done < 0 ? "the compiler took too long" : finish(b, &b->job[done]);
}

status compile_units(struct arena *arena, const struct compiler *c, const struct cache *cache, struct unit *units,
                     uint32_t count, uint32_t jobs, uint32_t *failed, const char **log)
{
    struct batch *b = NEW(arena, struct batch);
    *b = (struct batch){.arena = arena, .compiler = c, .cache = cache, .units = units};
    b->jobs = jobs < 1 ? 1 : jobs > JOB_LIMIT ? JOB_LIMIT : jobs;
    arena_defer(arena, abandon, b);
    (void)clock_gettime(CLOCK_MONOTONIC, &b->deadline);
    b->deadline.tv_sec += COMPILE_SECONDS;
    *log = NULL;
    for (uint32_t next = 0, running = 0;;) {
        while (next < count && units[next].cached)
            next++;
        if (next == count && !running)
            return TPC_OK;
        *log = advance(b, &next, count, &running, failed);
        if (*log) {
            abandon(b);
            return TPC_INTERNAL;
        }
    }
}

/* ---- is it the compiler? ---- */

const char *compiler_complaint(struct arena *arena, const char *log)
{
    const char *first = log + strspn(log, "\n");
    for (const char *at = first; *at; at += strspn(at, "\n")) {
        const char *line = arena_strndup(arena, at, strcspn(at, "\n"));
        if (!strstr(line, "warning:") && !strstr(line, "note:"))
            return line;
        at += strlen(line);
    }
    return arena_strndup(arena, first, strcspn(first, "\n"));
}

const char *compiler_objection(struct arena *arena, const struct compiler *c, const struct cache *cache, bool *loading)
{
    static const char empty[] = "int tpc_empty(void);\nint tpc_empty(void) { return 0; }\n";
    struct unit unit = {.source = empty, .length = sizeof empty - 1};
    const char *log = NULL, *why = NULL;
    uint32_t failed = 0;
    unit.object = arena_printf(arena, "%s/.%ld.empty.so", cache->path, (long)getpid());
    *loading = compile_units(arena, c, cache, &unit, 1, 1, &failed, &log) == TPC_OK;
    if (!*loading)
        return compiler_complaint(arena, log);
    void *handle = dlopen(unit.object, RTLD_NOW | RTLD_LOCAL);
    if (handle)
        (void)dlclose(handle);
    else
        why = arena_strdup(arena, dlerror());
    (void)unlink(unit.object);
    return why;
}
