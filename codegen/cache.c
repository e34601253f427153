/* codegen/cache.c - the private directory in which compiled kernels are kept.
 *
 * What is loaded from it runs, so it must be ours alone: a directory (no link) of this user, mode 0700. Anything else is refused with a
 * warning, and a directory of this process's own serves, which ends with it. An entry is a shared object, sealed by a trailer: its
 * length and a checksum of all bytes before. It is written beside and renamed, so that it is there whole or not at all; that it still is
 * what was written is checked before the loader maps it.
 */
#include "codegen/dialect.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- the directory ---- */

/* As mkdir -p, with mode 0700 for all that is made. */
static bool make_directories(struct arena *arena, const char *path)
{
    char *copy = arena_strdup(arena, path);
    for (char *at = copy + 1; *at; at++) {
        if (*at != '/')
            continue;
        *at = 0;
        if (mkdir(copy, 0700) != 0 && errno != EEXIST && errno != EROFS && errno != EACCES)
            return false;
        *at = '/';
    }
    return mkdir(copy, 0700) == 0 || errno == EEXIST;
}

/* NULL when the directory may be used, else why not. */
static const char *objection(struct arena *arena, const char *path)
{
    struct stat s;
    if (path[0] != '/')
        return "it is no absolute path";
    if (!make_directories(arena, path) || lstat(path, &s) != 0)
        return strerror(errno);
    if (!S_ISDIR(s.st_mode))
        return "it is no directory";
    if (s.st_uid != geteuid())
        return "it belongs to another user";
    if ((s.st_mode & 0777) != 0700)
        return arena_printf(arena, "its mode is %03o, not 700", (unsigned)(s.st_mode & 0777));
    return access(path, W_OK | X_OK) == 0 ? NULL : strerror(errno);
}

static void remove_directory(void *object)
{
    const char *path = object;
    DIR *d = opendir(path);
    for (struct dirent *e = d ? readdir(d) : NULL; e; e = readdir(d))
        (void)unlinkat(dirfd(d), e->d_name, 0); /* "." and ".." stay */
    if (d)
        (void)closedir(d);
    (void)rmdir(path);
}

status cache_temporary(struct arena *arena, struct diag *diag, struct cache *out)
{
    const char *parent = getenv("TMPDIR");
    char *path = arena_printf(arena, "%s/tpc-XXXXXX", parent && parent[0] == '/' ? parent : "/tmp");
    if (!mkdtemp(path))
        return diag_error(diag, TPC_IO, path, "cannot make a directory for compiled kernels: %s", strerror(errno));
    arena_defer(arena, remove_directory, path);
    *out = (struct cache){.path = path, .temporary = true};
    return TPC_OK;
}

status cache_open(struct arena *arena, const char *wanted, struct diag *diag, struct cache *out)
{
    const char *base = getenv("XDG_CACHE_HOME"), *home = getenv("HOME"), *path = wanted;
    if (!path && base && base[0] == '/')
        path = arena_printf(arena, "%s/tpc", base);
    else if (!path && home && home[0] == '/')
        path = arena_printf(arena, "%s/.cache/tpc", home);
    if (!path)
        return cache_temporary(arena, diag, out);
    const char *why = objection(arena, path);
    if (!why) {
        *out = (struct cache){.path = path};
        return TPC_OK;
    }
    diag_warning(diag, path, "the kernel cache cannot be used: %s; kernels are compiled for this run alone", why);
    return cache_temporary(arena, diag, out);
}

/* ---- entries ---- */

struct seal {
    char magic[8];
    uint64_t length, checksum;
};
static const char magic[8] = {'t', 'p', 'c', 'k', 'e', 'r', 'n', '1'};

/* Maps a regular file of ours. NULL when there is none, or it is empty. */
static void *map_file(int file, size_t *size)
{
    struct stat s;
    if (fstat(file, &s) != 0 || !S_ISREG(s.st_mode) || s.st_uid != geteuid() || s.st_size <= 0)
        return NULL;
    *size = (size_t)s.st_size;
    void *at = mmap(NULL, *size, PROT_READ, MAP_PRIVATE, file, 0);
    return at == MAP_FAILED ? NULL : at;
}

static bool is_sealed(const void *at, size_t size)
{
    struct seal s;
    if (size < sizeof s)
        return false;
    memcpy(&s, (const char *)at + size - sizeof s, sizeof s);
    return memcmp(s.magic, magic, sizeof magic) == 0 && s.length == size - sizeof s &&
           s.checksum == hash_bytes(at, size - sizeof s, s.length);
}

bool cache_check(const char *path)
{
    size_t size = 0;
    int file = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (file < 0)
        return false;
    void *at = map_file(file, &size);
    bool good = at && is_sealed(at, size);
    if (at)
        (void)munmap(at, size);
    (void)close(file);
    if (!good)
        (void)unlink(path);
    return good;
}

void *cache_read(const char *path, size_t *bytes)
{
    size_t size = 0;
    void *copy = NULL;
    if (!cache_check(path))
        return NULL;
    int file = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    void *at = file < 0 ? NULL : map_file(file, &size);
    if (at && is_sealed(at, size)) { /* again: another process may have put another in its place */
        *bytes = size - sizeof(struct seal);
        copy = base_alloc(*bytes + 1);
        if (copy)
            memcpy(copy, at, *bytes);
    }
    if (at)
        (void)munmap(at, size);
    if (file >= 0)
        (void)close(file);
    return copy;
}

bool cache_install(const char *temporary, const char *path)
{
    size_t size = 0;
    int file = open(temporary, O_RDWR | O_APPEND | O_CLOEXEC | O_NOFOLLOW);
    if (file < 0)
        return false;
    void *at = map_file(file, &size);
    bool good = at != NULL;
    if (good) {
        struct seal s = {.length = size, .checksum = hash_bytes(at, size, size)};
        memcpy(s.magic, magic, sizeof magic);
        good = write(file, &s, sizeof s) == (ssize_t)sizeof s && fchmod(file, 0700) == 0;
        (void)munmap(at, size);
    }
    good = close(file) == 0 && good && rename(temporary, path) == 0;
    if (!good)
        (void)unlink(temporary);
    return good;
}
