/* frontend/onnx/external.c - the files that hold weights: the model itself and external data beside it.
 *
 * A location is a path relative to the model's folder without "..". The real file (symbolic links followed, as the Hugging
 * Face cache has them) must be a regular file under the model's folder or under the folder of the model's real path. Nothing is
 * opened that could block or be anything but a file. Start reading at external_file.
 */
#include "frontend/onnx/import.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- files -------------------------------------------------------------------------------------------------- */

struct open_file {
    int descriptor;
    void *mapping;
    size_t length;
};

static void release_file(void *object)
{
    struct open_file *f = object;
    if (f->mapping)
        munmap(f->mapping, f->length);
    if (f->descriptor >= 0)
        close(f->descriptor);
}

/* Opens a regular file for reading; closed when the arena goes. */
static status open_regular(struct arena *arena, struct diag *diag, const char *where, const char *path, int flags,
                           struct open_file **out, struct stat *facts)
{
    struct open_file *f = NEW(arena, struct open_file);
    f->descriptor = -1;
    arena_defer(arena, release_file, f);
    f->descriptor = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC | O_NOCTTY | flags);
    if (f->descriptor < 0) {
        bool absent = errno == ENOENT || errno == ENOTDIR;
        return diag_error(diag, absent ? TPC_NOINPUT : TPC_IO, where, "cannot open '%s': %s", path, strerror(errno));
    }
    if (fstat(f->descriptor, facts) != 0)
        return diag_error(diag, TPC_IO, where, "cannot read '%s': %s", path, strerror(errno));
    if (!S_ISREG(facts->st_mode))
        return diag_error(diag, TPC_DATA, where, "'%s' is not a regular file", path);
    f->length = (size_t)facts->st_size;
    *out = f;
    return TPC_OK;
}

status file_map(struct arena *arena, struct diag *diag, const char *path, const uint8_t **bytes, size_t *length)
{
    struct open_file *f = NULL;
    struct stat facts;
    status s = open_regular(arena, diag, path, path, 0, &f, &facts);
    if (s != TPC_OK)
        return s;
    *length = f->length;
    *bytes = (const uint8_t *)"";
    if (f->length == 0)
        return TPC_OK;
    void *mapping = mmap(NULL, f->length, PROT_READ, MAP_PRIVATE, f->descriptor, 0);
    if (mapping == MAP_FAILED)
        return diag_error(diag, TPC_IO, path, "cannot map the file: %s", strerror(errno));
    f->mapping = mapping;
    *bytes = mapping;
    return TPC_OK;
}

static bool read_at(int descriptor, void *to, size_t length, uint64_t offset)
{
    uint8_t *at = to;
    while (length > 0) {
        ssize_t n = pread(descriptor, at, length, (off_t)offset);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return false;
        at += n;
        offset += (uint64_t)n;
        length -= (size_t)n;
    }
    return true;
}

/* ---- facts for the plan ------------------------------------------------------------------------------------- */

static status list_file(struct importer *im, const char *where, const char *stored_path, const struct open_file *f,
                        const struct stat *facts, uint32_t *out)
{
    enum { SAMPLE = WEIGHT_SAMPLE };
    size_t sample = f->length < SAMPLE ? f->length : SAMPLE;
    uint8_t *head = arena_alloc(im->scratch, sample), *tail = arena_alloc(im->scratch, sample);
    if (!read_at(f->descriptor, head, sample, 0) || !read_at(f->descriptor, tail, sample, f->length - sample))
        return diag_error(im->diag, TPC_IO, where, "cannot read '%s': %s", stored_path, strerror(errno));
    struct weight_file *w = PUSH(im->arena, &im->g->files);
    w->path = arena_strdup(im->arena, stored_path);
    w->size = f->length;
    w->mtime = (int64_t)facts->st_mtim.tv_sec * 1000000000 + facts->st_mtim.tv_nsec;
    w->fingerprint = weight_fingerprint(f->length, head, tail, sample);
    *out = im->g->files.count - 1;
    return TPC_OK;
}

status model_file(struct importer *im, uint32_t *out)
{
    struct open_file *f = NULL;
    struct stat facts;
    status s = TPC_OK;
    if (im->model_file == NO_FILE) {
        const char *slash = strrchr(im->path, '/');
        s = open_regular(im->scratch, im->diag, im->path, im->path, 0, &f, &facts);
        if (s == TPC_OK)
            s = list_file(im, im->path, slash ? slash + 1 : im->path, f, &facts, &im->model_file);
    }
    *out = im->model_file;
    return s;
}

/* ---- paths -------------------------------------------------------------------------------------------------- */

static bool safe_location(const char *location)
{
    if (!*location || *location == '/')
        return false;
    for (const char *part = location; *part;) {
        size_t length = strcspn(part, "/");
        if (length == 2 && part[0] == '.' && part[1] == '.')
            return false;
        part += length;
        part += strspn(part, "/");
    }
    return true;
}

static void release_text(void *text)
{
    free(text);
}

/* realpath in an arena; NULL when there is no such file. */
static const char *real_path(struct arena *arena, const char *path)
{
    char *real = realpath(path, NULL);
    if (real)
        arena_defer(arena, release_text, real);
    return real;
}

static const char *folder_of(struct arena *arena, const char *path)
{
    const char *slash = strrchr(path, '/');
    if (!slash)
        return ".";
    return slash == path ? "/" : arena_strndup(arena, path, (size_t)(slash - path));
}

static bool lies_under(const char *path, const char *folder)
{
    size_t n = strlen(folder);
    if (strcmp(folder, "/") == 0)
        return true;
    return strncmp(path, folder, n) == 0 && path[n] == '/';
}

static status resolve(struct importer *im, const char *where, const char *location, const char **out)
{
    struct arena *a = im->scratch;
    if (!safe_location(location))
        return diag_error(im->diag, TPC_DATA, where,
                          "external data '%s': the path must be relative to the model's folder, without '..'",
                          location);
    const char *folder = folder_of(a, im->path);
    const char *path = arena_printf(a, "%s/%s", folder, location);
    const char *real = real_path(a, path);
    if (!real)
        return diag_error(im->diag, TPC_NOINPUT, where, "external data '%s' cannot be opened: %s", path,
                          strerror(errno));
    const char *real_folder = real_path(a, folder), *real_model = real_path(a, im->path);
    bool beside = real_folder && lies_under(real, real_folder);
    bool beside_real = real_model && lies_under(real, folder_of(a, real_model));
    if (!beside && !beside_real)
        return diag_error(im->diag, TPC_DATA, where, "external data '%s' leads to '%s', outside the model's folder",
                          location, real);
    *out = real;
    return TPC_OK;
}

status external_file(struct importer *im, const char *where, const char *location, uint64_t offset, uint64_t length,
                     uint32_t *out)
{
    struct open_file *f = NULL;
    struct stat facts;
    const char *real = NULL;
    uint32_t *known = map_find(&im->external, location, strlen(location));
    if (!known) {
        uint32_t file = 0;
        status s = resolve(im, where, location, &real);
        if (s == TPC_OK)
            s = open_regular(im->scratch, im->diag, where, real, O_NOFOLLOW, &f, &facts);
        if (s == TPC_OK)
            s = list_file(im, where, location, f, &facts, &file);
        if (s != TPC_OK)
            return s;
        known = map_put(&im->external, location, strlen(location), NULL);
        *known = file;
    }
    *out = *known;
    uint64_t size = im->g->files.at[*known].size;
    if (offset > size || length > size - offset)
        return diag_error(im->diag, TPC_DATA, where,
                          "external data '%s' has %llu bytes, a tensor needs bytes %llu to %llu", location,
                          (unsigned long long)size, (unsigned long long)offset, (unsigned long long)(offset + length));
    return TPC_OK;
}

status external_read(struct importer *im, const char *where, uint32_t file, uint64_t offset, void *to, size_t length)
{
    const char *location = im->g->files.at[file].path, *real = NULL;
    struct open_file *f = NULL;
    struct stat facts;
    struct arena *a = arena_new_in(im->scratch);
    status s = resolve(im, where, location, &real);
    if (s == TPC_OK)
        s = open_regular(a, im->diag, where, real, O_NOFOLLOW, &f, &facts);
    if (s == TPC_OK && !read_at(f->descriptor, to, length, offset))
        s = diag_error(im->diag, TPC_IO, where, "cannot read '%s': %s", location, strerror(errno));
    arena_free(a);
    return s;
}
