/* runtime/plan_write.c - writes plan files. Start with plan_write.
 *
 * Invariant: the same contents give the same bytes. Nothing is at `path` but a whole plan: it is written under another name in the same
 * folder, brought to the disk, and renamed. What the file's own DATA section holds (params without a file, embedded weights) is
 * referred to as file "" by the program's text.
 */
#include "ir/weights.h"
#include "runtime/plan.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

const unsigned char plan_magic[8] = {0x89, 'T', 'P', 'C', 'P', 'L', 'N', '\n'};
const char *const plan_section_names[SECTIONS] = {"PROGRAM", "LINKS", "DECISIONS", "DATA"};

uint64_t plan_table_hash(const unsigned char table[PLAN_TABLE])
{
    uint64_t before = hash_bytes(table, PLAN_HASH_AT, 0);
    return hash_bytes(table + PLAN_HASH_AT + 8, PLAN_TABLE - PLAN_HASH_AT - 8, before);
}

/* ---- paths -------------------------------------------------------------------------------------------------------- */

static void unfree(void *text)
{
    free(text); /* what realpath allocated */
}

/* The real path of a folder, in the arena; NULL: there is none. */
static const char *real_folder(struct arena *arena, const char *folder)
{
    char *real = realpath(folder && *folder ? folder : ".", NULL);
    if (real)
        arena_defer(arena, unfree, real);
    return real;
}

static const char *folder_of(struct arena *arena, const char *path)
{
    const char *slash = strrchr(path, '/');
    if (!slash)
        return ".";
    return slash == path ? "/" : arena_strndup(arena, path, (size_t)(slash - path));
}

static const char *name_of(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

/* Absolute path `to` as seen from absolute folder `from`. */
static const char *relative_path(struct arena *arena, const char *from, const char *to)
{
    size_t same = 0; /* length of the common folders */
    for (size_t i = 0;; i++) {
        bool from_ends = from[i] == '/' || from[i] == 0, to_ends = to[i] == '/' || to[i] == 0;
        if (from_ends && to_ends)
            same = i;
        if (from[i] != to[i] || from[i] == 0)
            break;
    }
    if (strcmp(from, "/") == 0)
        same = 0;
    struct text out = {.arena = arena};
    for (const char *c = from + same; *c; c++)
        if (*c == '/' && c[1])
            text_put(&out, "../");
    text_put(&out, to[same] == '/' ? to + same + 1 : to + same);
    return out.length ? out.at : ".";
}

/* ---- the file ----------------------------------------------------------------------------------------------------- */

struct writer {
    const char *path, *temporary;
    int fd; /* -1: closed */
    bool renamed;
    uint64_t at;
    XXH3_state_t *hash;
    struct diag *diag;
    status result;
};

static void drop_writer(void *object)
{
    struct writer *w = object;
    if (w->fd >= 0)
        close(w->fd);
    if (w->temporary && !w->renamed)
        unlink(w->temporary);
    if (w->hash)
        XXH3_freeState(w->hash);
    *w = (struct writer){.fd = -1, .renamed = true};
}

static void fail_writing(struct writer *w, const char *what)
{
    if (w->result == TPC_OK)
        w->result = diag_error(w->diag, TPC_IO, w->path, "cannot %s: %s", what, strerror(errno));
}

static void put_raw(struct writer *w, const void *bytes, size_t length)
{
    const char *from = bytes;
    while (length && w->result == TPC_OK) {
        ssize_t n = write(w->fd, from, length < (1u << 30) ? length : 1u << 30);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0) {
            fail_writing(w, "write");
            return;
        }
        from += n;
        length -= (size_t)n;
        w->at += (uint64_t)n;
    }
}

static void put(struct writer *w, const void *bytes, size_t length)
{
    if (length)
        XXH3_64bits_update(w->hash, bytes, length);
    put_raw(w, bytes, length);
}

static const unsigned char zeros[PLAN_ALIGNMENT];

static size_t padding(uint64_t at)
{
    return (size_t)((PLAN_ALIGNMENT - at % PLAN_ALIGNMENT) % PLAN_ALIGNMENT);
}

static status open_writer(struct arena *arena, struct writer *w)
{
    struct stat st;
    if (stat(w->path, &st) == 0 && !S_ISREG(st.st_mode))
        return diag_error(w->diag, TPC_IO, w->path,
                          "is there and is not a regular file; a plan is not written over it");
    char *name = arena_printf(arena, "%s/.%s.XXXXXX", folder_of(arena, w->path), name_of(w->path));
    arena_defer(arena, drop_writer, w);
    w->hash = XXH3_createState();
    if (!w->hash)
        guard_out_of_memory(0);
    w->fd = mkstemp(name);
    if (w->fd < 0)
        return diag_error(w->diag, errno == ENOENT || errno == ENOTDIR ? TPC_NOINPUT : TPC_IO, w->path,
                          "cannot write into that folder: %s", strerror(errno));
    w->temporary = name;
    mode_t mask = umask(0);
    umask(mask);
    if (fchmod(w->fd, 0666 & ~mask) != 0)
        fail_writing(w, "set the mode");
    return w->result;
}

static status finish(struct arena *arena, struct writer *w, const unsigned char *table)
{
    if (w->result == TPC_OK && pwrite(w->fd, table, PLAN_TABLE, 0) != PLAN_TABLE)
        fail_writing(w, "write");
    if (w->result == TPC_OK && fsync(w->fd) != 0)
        fail_writing(w, "bring to the disk");
    int fd = w->fd;
    w->fd = -1;
    if (close(fd) != 0)
        fail_writing(w, "close");
    if (w->result == TPC_OK && rename(w->temporary, w->path) != 0)
        fail_writing(w, "rename the finished file");
    w->renamed = w->result == TPC_OK;
    if (w->renamed) { /* the new name too */
        FILE *folder = fopen(folder_of(arena, w->path), "r");
        if (folder) {
            (void)fsync(fileno(folder));
            fclose(folder);
        }
    }
    status result = w->result;
    drop_writer(w);
    return result;
}

/* ---- the contents --------------------------------------------------------------------------------------------------- */

/* A run of bytes in the DATA section. */
struct item {
    const void *bytes;
    uint64_t length, offset;
};

struct layout {
    struct program program; /* to be printed: its graph's params and files are rewritten */
    struct graph graph;
    LIST(struct item) items;
    uint64_t size;
    struct plan_place place;
};

/* Where `bytes` begin in the DATA section; equal runs (tied weights) are stored once. */
static uint64_t place(struct arena *arena, struct layout *l, struct map *known, const void *bytes, uint64_t length)
{
    struct {
        const void *bytes;
        uint64_t length;
    } key = {bytes, length};
    bool added = false;
    uint32_t *index = map_put(known, &key, sizeof key, &added);
    if (added) {
        *index = l->items.count;
        l->size += padding(l->size);
        *PUSH(arena, &l->items) = (struct item){bytes, length, l->size};
        l->size += length;
    }
    return l->items.at[*index].offset;
}

static status keep_data(struct arena *arena, struct layout *l, struct weights *weights, struct diag *diag)
{
    struct graph *g = &l->graph;
    struct map known = {.arena = arena};
    struct param *params = arena_copy(arena, g->params.at, g->params.count * sizeof *params);
    uint32_t own = weights ? 0 : g->files.count; /* the number that file "" will have */
    for (uint32_t i = 0; i < g->params.count; i++) {
        const void *bytes = params[i].data;
        if ((params[i].file != NO_FILE && !weights) || params[i].part_count)
            continue;
        status s = params[i].file == NO_FILE ? TPC_OK : weights_param(weights, i, diag, &bytes);
        if (s != TPC_OK)
            return s;
        params[i].offset = place(arena, l, &known, bytes, params[i].length);
        params[i].file = own;
        params[i].data = NULL;
    }
    g->params.at = params;
    struct weight_file *files = NEW_ARRAY(arena, struct weight_file, own + 1);
    if (own)
        memcpy(files, g->files.at, own * sizeof *files);
    files[own] = (struct weight_file){.path = "", .size = l->size};
    g->files.at = files;
    g->files.count = own + (l->items.count > 0);
    return TPC_OK;
}

/* Paths of weight files stay relative to the model's folder; here is noted where that is. */
static status find_place(struct arena *arena, struct layout *l, const struct plan_contents *c, const char *plan_folder,
                         struct diag *diag)
{
    bool refers = false;
    for (uint32_t i = 0; i < l->graph.files.count; i++)
        refers = refers || l->graph.files.at[i].path[0];
    if (!refers)
        return TPC_OK;
    const char *folder = real_folder(arena, c->weight_folder);
    if (!folder)
        return diag_error(diag, TPC_NOINPUT, c->weight_folder, "the model's folder is gone: %s", strerror(errno));
    l->place = (struct plan_place){relative_path(arena, plan_folder, folder), folder};
    return TPC_OK;
}

static void put_section(struct writer *w, unsigned char *table, enum plan_section kind, const void *bytes,
                        size_t length, const struct layout *data)
{
    put_raw(w, zeros, padding(w->at));
    uint64_t start = w->at;
    XXH3_64bits_reset(w->hash);
    put(w, bytes, length);
    for (uint32_t i = 0; data && i < data->items.count; i++) {
        put(w, zeros, padding(w->at - start));
        put(w, data->items.at[i].bytes, (size_t)data->items.at[i].length);
    }
    unsigned char *entry = table + PLAN_HEADER + kind * PLAN_ENTRY;
    put_little(entry, kind, 4);
    put_little(entry + 8, start, 8);
    put_little(entry + 16, w->at - start, 8);
    put_little(entry + 24, XXH3_64bits_digest(w->hash), 8);
}

status plan_write(struct arena *arena, const char *path, const struct plan_contents *c, struct diag *diag)
{
    const char *plan_folder = real_folder(arena, folder_of(arena, path));
    if (!plan_folder)
        return diag_error(diag, TPC_NOINPUT, path, "the folder to write into: %s", strerror(errno));
    struct weights *weights = c->embed_weights ? weights_new(arena, c->program->graph, c->weight_folder) : NULL;
    struct layout l = {.program = *c->program, .graph = *c->program->graph};
    l.program.graph = &l.graph;
    status s = keep_data(arena, &l, weights, diag);
    if (s != TPC_OK || (s = find_place(arena, &l, c, plan_folder, diag)) != TPC_OK)
        return s;
    struct text program = {.arena = arena}, links = {.arena = arena};
    program_print(&l.program, &program);
    links_print(&l.program, &c->links, &l.place, &links);

    struct writer *w = NEW(arena, struct writer);
    *w = (struct writer){.path = path, .fd = -1, .diag = diag};
    if ((s = open_writer(arena, w)) != TPC_OK)
        return s;
    unsigned char table[PLAN_TABLE] = {0};
    put_raw(w, table, PLAN_TABLE);
    put_section(w, table, SECTION_PROGRAM, program.at, program.length, NULL);
    put_section(w, table, SECTION_LINKS, links.at, links.length, NULL);
    put_section(w, table, SECTION_DECISIONS, c->decisions, c->decisions ? strlen(c->decisions) : 0, NULL);
    put_section(w, table, SECTION_DATA, NULL, 0, &l);
    memcpy(table, plan_magic, sizeof plan_magic);
    put_little(table + 8, PLAN_VERSION, 4);
    put_little(table + 12, SECTIONS, 4);
    put_little(table + 16, w->at, 8);
    put_little(table + PLAN_HASH_AT, plan_table_hash(table), 8);
    return finish(arena, w, table);
}
