/* runtime/plan_read.c - reads plan files: untrusted bytes. Start with plan_parse.
 *
 * Invariant: nothing of a section is looked at before the table's checksum, the section's place and the section's checksum were found
 * right. Sections lie in their order, each at the next multiple of 64 behind the one before, with zeros between, and the last
 * one ends the file: so no byte is outside of a check.
 */
#include "runtime/plan.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

struct reader {
    struct arena *arena;
    const char *name;
    struct diag *diag;
    const unsigned char *bytes;
    size_t length;
    struct {
        const char *at;
        size_t length;
    } section[SECTIONS];
};

#define DAMAGED(r, ...) diag_error((r)->diag, TPC_DATA, (r)->name, "the plan is damaged: " __VA_ARGS__)

static status read_header(const struct reader *r)
{
    const unsigned char *b = r->bytes;
    size_t known = r->length < sizeof plan_magic ? r->length : sizeof plan_magic;
    if (r->length == 0)
        return diag_error(r->diag, TPC_DATA, r->name, "the file is empty; expected a tpc plan");
    if (memcmp(b, plan_magic, known) != 0)
        return diag_error(r->diag, TPC_DATA, r->name, "not a tpc plan (tpc compile makes one from a model)");
    if (r->length < PLAN_TABLE)
        return DAMAGED(r, "it ends after %zu bytes", r->length);
    uint64_t version = get_little(b + 8, 4);
    if (version != PLAN_VERSION)
        return diag_error(r->diag, TPC_DATA, r->name,
                          "the plan is of version %llu; this tpc reads version %d: compile the model again",
                          (unsigned long long)version, PLAN_VERSION);
    if (get_little(b + PLAN_HASH_AT, 8) != plan_table_hash(b))
        return DAMAGED(r, "the header's checksum is wrong");
    if (get_little(b + 12, 4) != SECTIONS)
        return DAMAGED(r, "it should have %d sections", SECTIONS);
    if (get_little(b + 16, 8) != r->length)
        return DAMAGED(r, "it has %zu bytes and should have %llu", r->length,
                       (unsigned long long)get_little(b + 16, 8));
    return TPC_OK;
}

static status read_table(struct reader *r)
{
    size_t end = PLAN_TABLE;
    for (uint32_t i = 0; i < SECTIONS; i++) {
        const unsigned char *entry = r->bytes + PLAN_HEADER + i * PLAN_ENTRY;
        uint64_t offset = get_little(entry + 8, 8), size = get_little(entry + 16, 8);
        size_t start = (end + PLAN_ALIGNMENT - 1) / PLAN_ALIGNMENT * PLAN_ALIGNMENT;
        if (get_little(entry, 4) != i || get_little(entry + 4, 4) != 0 || offset != start || start > r->length ||
            size > r->length - start)
            return DAMAGED(r, "section %s is not where it should be", plan_section_names[i]);
        for (; end < start; end++)
            if (r->bytes[end] != 0)
                return DAMAGED(r, "something stands before section %s", plan_section_names[i]);
        end = start + (size_t)size;
        r->section[i].at = (const char *)r->bytes + start;
        r->section[i].length = (size_t)size;
    }
    if (end != r->length)
        return DAMAGED(r, "%zu bytes follow its end", r->length - end);
    for (uint32_t i = 0; i < SECTIONS; i++)
        if (hash_bytes(r->section[i].at, r->section[i].length, 0) !=
            get_little(r->bytes + PLAN_HEADER + i * PLAN_ENTRY + 24, 8))
            return DAMAGED(r, "the checksum of section %s is wrong", plan_section_names[i]);
    return TPC_OK;
}

/* Params in file "" get their bytes from the DATA section. */
static status take_data(const struct reader *r, struct graph *g)
{
    uint32_t own = NO_FILE;
    for (uint32_t i = 0; i < g->files.count; i++)
        if (g->files.at[i].path[0] == 0)
            own = i;
    if (own == NO_FILE)
        return TPC_OK;
    if (own + 1 != g->files.count)
        return DAMAGED(r, "its own data is not the last of its files");
    for (uint32_t i = 0; i < g->params.count; i++) {
        struct param *p = &g->params.at[i];
        if (p->file != own)
            continue;
        size_t size = r->section[SECTION_DATA].length;
        if (p->offset > size || p->length > size - p->offset || p->offset % PLAN_ALIGNMENT != 0)
            return DAMAGED(r, "weight '%s' is not within its data", p->name);
        p->file = NO_FILE;
        p->data = r->section[SECTION_DATA].at + p->offset;
    }
    g->files.count--;
    return TPC_OK;
}

static bool has_files(struct arena *arena, const struct graph *g, const char *folder)
{
    for (uint32_t i = 0; i < g->files.count; i++)
        if (access(arena_printf(arena, "%s/%s", folder, g->files.at[i].path), F_OK) != 0)
            return false;
    return true;
}

/* The model's folder where it is as seen from the plan, so that both can be moved together; else where it was when the plan was made. */
static const char *find_folder(struct arena *arena, const struct graph *g, const char *plan_folder,
                               const struct plan_place *place)
{
    if (!plan_folder || !place->relative)
        return plan_folder ? plan_folder : ".";
    const char *near = arena_printf(arena, "%s/%s", plan_folder, place->relative);
    return !has_files(arena, g, near) && has_files(arena, g, place->absolute) ? place->absolute : near;
}

status plan_parse(struct arena *arena, const char *name, const char *folder, const void *bytes, size_t length,
                  struct diag *diag, struct plan **out)
{
    struct reader r = {.arena = arena, .name = name, .diag = diag, .bytes = bytes, .length = length};
    status s = read_header(&r);
    if (s != TPC_OK || (s = read_table(&r)) != TPC_OK)
        return s;
    struct plan *plan = NEW(arena, struct plan);
    const char *inside = arena_printf(arena, "%s(program)", name);
    s = program_parse(arena, inside, r.section[SECTION_PROGRAM].at, r.section[SECTION_PROGRAM].length, diag,
                      &plan->program);
    if (s != TPC_OK || (s = program_verify(plan->program, diag)) != TPC_OK)
        return s == TPC_INTERNAL ? TPC_DATA : s;
    struct plan_place place;
    s = links_parse(arena, arena_printf(arena, "%s(links)", name), r.section[SECTION_LINKS].at,
                    r.section[SECTION_LINKS].length, plan->program, diag, &plan->links, &place);
    if (s != TPC_OK || (s = take_data(&r, plan->program->graph)) != TPC_OK)
        return s;
    plan->decisions_length = r.section[SECTION_DECISIONS].length;
    plan->decisions = arena_strndup(arena, r.section[SECTION_DECISIONS].at, plan->decisions_length);
    plan->hash = get_little((const unsigned char *)bytes + PLAN_HASH_AT, 8);
    plan->folder = find_folder(arena, plan->program->graph, folder, &place);
    *out = plan;
    return TPC_OK;
}

struct mapping {
    void *at;
    size_t size;
};

static void unmap(void *object)
{
    struct mapping *m = object;
    if (m->at)
        munmap(m->at, m->size);
}

status plan_read(struct arena *arena, const char *path, struct diag *diag, struct plan **out)
{
    struct mapping *m = NEW(arena, struct mapping);
    arena_defer(arena, unmap, m);
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    struct stat st;
    if (fd < 0)
        return diag_error(diag, errno == ENOENT || errno == ENOTDIR ? TPC_NOINPUT : TPC_IO, path,
                          "cannot open the plan: %s", strerror(errno));
    if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode)) {
        close(fd);
        return diag_error(diag, TPC_DATA, path, "not a regular file");
    }
    m->size = (size_t)st.st_size;
    m->at = m->size ? mmap(NULL, m->size, PROT_READ, MAP_PRIVATE, fd, 0) : NULL;
    int error = errno;
    close(fd);
    if (m->at == MAP_FAILED) {
        m->at = NULL;
        return diag_error(diag, TPC_IO, path, "cannot map the plan: %s", strerror(error));
    }
    const char *slash = strrchr(path, '/');
    const char *folder = !slash ? "." : slash == path ? "/" : arena_strndup(arena, path, (size_t)(slash - path));
    return plan_parse(arena, path, folder, m->at, m->size, diag, out);
}
