/* ir/weights.c - mapping of weight files, and the copying of shards.
 *
 * A plan is not trusted: its paths must stay under the folder, what they name must be a regular file, and every param must lie within it.
 */
#include "ir/weights.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- files ---- */

struct mapped {
    int descriptor;
    void *bytes; /* NULL: not mapped (yet, or empty) */
    size_t length;
    bool good; /* is the file that was compiled */
};

struct weights {
    struct arena *arena;
    const struct graph *graph;
    const char *folder;
    uint32_t count;
    struct mapped *file; /* per graph->files */
};

static void release(void *object)
{
    struct weights *w = object;
    for (uint32_t i = 0; i < w->count; i++) {
        if (w->file[i].bytes)
            munmap(w->file[i].bytes, w->file[i].length);
        if (w->file[i].descriptor >= 0)
            close(w->file[i].descriptor);
    }
}

struct weights *weights_new(struct arena *arena, const struct graph *g, const char *folder)
{
    struct weights *w = NEW(arena, struct weights);
    *w = (struct weights){arena, g, folder && *folder ? arena_strdup(arena, folder) : ".", g->files.count, NULL};
    w->file = NEW_ARRAY(arena, struct mapped, g->files.count);
    for (uint32_t i = 0; i < g->files.count; i++)
        w->file[i].descriptor = -1;
    arena_defer(arena, release, w);
    return w;
}

/* Relative, and no part of it is "..". */
static bool stays_below(const char *path)
{
    if (!*path || *path == '/')
        return false;
    for (const char *part = path; *part; part += strspn(part, "/")) {
        size_t length = strcspn(part, "/");
        if (length == 2 && part[0] == '.' && part[1] == '.')
            return false;
        part += length;
    }
    return true;
}

static status open_file(struct mapped *m, const char *path, struct diag *diag)
{
    struct stat facts;
    m->descriptor = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC | O_NOCTTY);
    if (m->descriptor < 0) {
        bool absent = errno == ENOENT || errno == ENOTDIR;
        return diag_error(diag, absent ? TPC_NOINPUT : TPC_IO, path, "cannot open the weight file: %s",
                          strerror(errno));
    }
    if (fstat(m->descriptor, &facts) != 0)
        return diag_error(diag, TPC_IO, path, "cannot read the weight file: %s", strerror(errno));
    if (!S_ISREG(facts.st_mode))
        return diag_error(diag, TPC_DATA, path, "the weight file is not a regular file");
    m->length = (size_t)facts.st_size;
    return TPC_OK;
}

static status map_file(struct mapped *m, const struct weight_file *wanted, const char *path, struct diag *diag)
{
    if (m->length != wanted->size)
        return diag_error(diag, TPC_DATA, path,
                          "the weight file was changed since the plan was made: it has %zu bytes, then it had %llu",
                          m->length, (unsigned long long)wanted->size);
    if (m->length > 0) {
        void *bytes = mmap(NULL, m->length, PROT_READ, MAP_PRIVATE, m->descriptor, 0);
        if (bytes == MAP_FAILED)
            return diag_error(diag, TPC_IO, path, "cannot map the weight file: %s", strerror(errno));
        m->bytes = bytes;
    }
    const char *first = m->bytes ? m->bytes : "";
    size_t sample = m->length < WEIGHT_SAMPLE ? m->length : WEIGHT_SAMPLE;
    if (weight_fingerprint(m->length, first, first + m->length - sample, sample) != wanted->fingerprint)
        return diag_error(diag, TPC_DATA, path,
                          "the weight file was changed since the plan was made (same size, other content)");
    m->good = true;
    return TPC_OK;
}

static status file_ready(struct weights *w, uint32_t file, struct diag *diag)
{
    struct mapped *m = &w->file[file];
    const struct weight_file *wanted = &w->graph->files.at[file];
    if (m->good)
        return TPC_OK;
    if (!stays_below(wanted->path))
        return diag_error(diag, TPC_DATA, wanted->path,
                          "the path of a weight file must be relative to the model's folder, without '..'");
    const char *path =
        strcmp(w->folder, ".") == 0 ? wanted->path : arena_printf(w->arena, "%s/%s", w->folder, wanted->path);
    status s = m->descriptor >= 0 ? TPC_OK : open_file(m, path, diag);
    return s == TPC_OK ? map_file(m, wanted, path, diag) : s;
}

/* ---- params ---- */

const void *param_own_bytes(const struct graph *g, uint32_t param)
{
    const struct param *p = &g->params.at[param];
    return p->file == NO_FILE ? p->data : NULL;
}

static bool param_bytes(const struct param *p, uint64_t *bytes)
{
    size_t product = dtype_size(p->dtype);
    for (uint32_t k = 0; k < p->rank; k++)
        if (p->shape[k] < 0 || !size_mul(product, (size_t)p->shape[k], &product))
            return false;
    *bytes = product;
    return true;
}

status weights_param(struct weights *w, uint32_t param, struct diag *diag, const void **bytes)
{
    assert(param < w->graph->params.count);
    const struct param *p = &w->graph->params.at[param];
    uint64_t needed, end;
    if (!param_bytes(p, &needed) || needed != p->length)
        return diag_error(diag, TPC_DATA, p->name, "the weight has %llu bytes, which is not what its shape needs",
                          (unsigned long long)p->length);
    if (p->file == NO_FILE) {
        *bytes = p->data;
        return p->data || needed == 0 ? TPC_OK : diag_error(diag, TPC_DATA, p->name, "the weight has no bytes");
    }
    if (p->file >= w->graph->files.count)
        return diag_error(diag, TPC_DATA, p->name, "the weight is in file %u of %u", (unsigned)p->file,
                          (unsigned)w->graph->files.count);
    status s = file_ready(w, p->file, diag);
    if (s != TPC_OK)
        return s;
    if (__builtin_add_overflow(p->offset, p->length, &end) || end > w->file[p->file].length)
        return diag_error(diag, TPC_DATA, w->graph->files.at[p->file].path,
                          "weight '%s' ends behind the file's %zu bytes", p->name, w->file[p->file].length);
    *bytes = needed ? (const char *)w->file[p->file].bytes + p->offset : "";
    return TPC_OK;
}

static status run_of(struct weights *w, const struct graph *g, uint32_t param, struct diag *diag, const void **run)
{
    *run = w ? NULL : param_own_bytes(g, param);
    return w ? weights_param(w, param, diag, run) : TPC_OK;
}

status weights_runs(struct weights *w, const struct graph *g, uint32_t param, struct arena *arena, struct diag *diag,
                    const void *const **runs)
{
    const struct param *p = &g->params.at[param];
    const void **run = NEW_ARRAY(arena, const void *, p->part_count + 1);
    status s = p->part_count ? TPC_OK : run_of(w, g, param, diag, &run[0]);
    for (uint32_t i = 0; i < p->part_count && s == TPC_OK; i++)
        s = run_of(w, g, p->part[i], diag, &run[i]);
    *runs = run;
    return s;
}

void param_copy(const struct graph *g, uint32_t param, const void *const *runs, void *to)
{
    const struct param *p = &g->params.at[param];
    uint32_t count = p->part_count ? p->part_count : 1;
    uint64_t each = p->length / count;
    for (uint32_t i = 0; i < count && each; i++)
        memcpy((char *)to + i * each, runs[i], each);
}

/* ---- shards ---- */

static const struct intervals *owned(const struct graph *g, const struct shard *s, uint32_t axis, uint32_t r)
{
    return &s->of[(size_t)axis * g->mesh.ranks + r];
}

bool shard_shape(const struct graph *g, uint32_t shard, uint32_t r, int64_t *shape)
{
    const struct shard *s = &g->shards.at[shard];
    const struct param *p = &g->params.at[s->param];
    if (s->rank != p->rank || r >= g->mesh.ranks)
        return false;
    for (uint32_t axis = 0; axis < s->rank; axis++) {
        const struct intervals *v = owned(g, s, axis, r);
        shape[axis] = 0;
        for (uint32_t i = 0; i < v->count; i++) {
            if (v->at[i].lo < 0 || v->at[i].lo > v->at[i].hi || v->at[i].hi > p->shape[axis])
                return false;
            if (!i64_add(shape[axis], v->at[i].hi - v->at[i].lo, &shape[axis]))
                return false;
        }
    }
    return true;
}

/* Axes from this one on are taken whole. */
static uint32_t whole_from(const struct graph *g, const struct shard *s, uint32_t r)
{
    const struct param *p = &g->params.at[s->param];
    uint32_t axis = s->rank;
    while (axis > 0) {
        const struct intervals *v = owned(g, s, axis - 1, r);
        if (v->count != 1 || v->at[0].lo != 0 || v->at[0].hi != p->shape[axis - 1])
            break;
        axis--;
    }
    return axis;
}

/* A state of the walk over the shard's runs: `bytes` of one index of axis `axis`. */
struct copying {
    const struct graph *graph;
    const struct shard *shard;
    uint32_t rank, last; /* axes up to `last` are walked; a run is an interval of that axis and all behind it */
    uint64_t stride[MAX_RANK];
    uint64_t part[MAX_RANK]; /* bytes of the rank's part behind one index of each axis up to `last` */
    uint64_t skip, left;     /* bytes that come before what is wanted; that are wanted still */
    char *to;
};

/* What of a run is wanted. */
static void copy_run(struct copying *c, const char *from, uint64_t length)
{
    uint64_t skip = c->skip < length ? c->skip : length, take = length - skip < c->left ? length - skip : c->left;
    c->skip -= skip;
    c->left -= take;
    if (take)
        memcpy(c->to, from + skip, take);
    c->to += take;
}

/* Whether an index of an axis lies before what is wanted: then it is passed over. */
static bool pass(struct copying *c, uint32_t axis)
{
    bool over = c->skip >= c->part[axis] || c->left == 0;
    if (over && c->left)
        c->skip -= c->part[axis];
    return over;
}

static void copy_axis(struct copying *c, uint32_t axis, const char *from)
{
    const struct intervals *v = owned(c->graph, c->shard, axis, c->rank);
    for (uint32_t i = 0; i < v->count; i++) {
        uint64_t length = (uint64_t)(v->at[i].hi - v->at[i].lo) * c->stride[axis];
        if (axis == c->last) {
            copy_run(c, from + (uint64_t)v->at[i].lo * c->stride[axis], length);
            continue;
        }
        for (int64_t k = v->at[i].lo; k < v->at[i].hi; k++)
            if (!pass(c, axis))
                copy_axis(c, axis + 1, from + (uint64_t)k * c->stride[axis]);
    }
}

static void strides_of(const struct param *p, uint64_t *stride)
{
    uint64_t bytes = dtype_size(p->dtype);
    for (uint32_t k = p->rank; k-- > 0; bytes *= (uint64_t)p->shape[k])
        stride[k] = bytes;
}

/* Axis 0 of a stacked param: each index has a run of its own. */
static void copy_parts(struct copying *c, const void *const *runs)
{
    const struct intervals *v = owned(c->graph, c->shard, 0, c->rank);
    for (uint32_t i = 0; i < v->count; i++)
        for (int64_t k = v->at[i].lo; k < v->at[i].hi; k++) {
            if (pass(c, 0))
                continue;
            if (c->last > 0)
                copy_axis(c, 1, runs[k]);
            else
                copy_run(c, runs[k], c->stride[0]);
        }
}

void shard_copy(const struct graph *g, uint32_t shard, uint32_t r, const void *const *runs, void *to)
{
    shard_copy_range(g, shard, r, runs, 0, UINT64_MAX, to);
}

void shard_copy_range(const struct graph *g, uint32_t shard, uint32_t r, const void *const *runs, uint64_t offset,
                      uint64_t bytes, void *to)
{
    const struct shard *s = &g->shards.at[shard];
    const struct param *p = &g->params.at[s->param];
    struct copying c = {.graph = g, .shard = s, .rank = r, .skip = offset, .left = bytes, .to = to};
    int64_t shape[MAX_RANK];
    if (s->rank == 0) {
        copy_run(&c, runs[0], dtype_size(p->dtype));
        return;
    }
    if (!shard_shape(g, shard, r, shape))
        return;
    for (uint32_t k = 0; k < s->rank; k++)
        if (shape[k] == 0)
            return;
    strides_of(p, c.stride);
    uint32_t behind = whole_from(g, s, r);
    c.last = behind > 0 ? behind - 1 : 0;
    uint64_t part = dtype_size(p->dtype);
    for (uint32_t k = s->rank; k-- > 0; part *= (uint64_t)shape[k])
        c.part[k] = part;
    if (p->part_count)
        copy_parts(&c, runs);
    else
        copy_axis(&c, 0, runs[0]);
}

bool shard_contiguous(const struct graph *g, uint32_t shard, uint32_t r, uint64_t *offset, uint64_t *length)
{
    const struct shard *s = &g->shards.at[shard];
    const struct param *p = &g->params.at[s->param];
    uint64_t stride[MAX_RANK], bytes = dtype_size(p->dtype), at = 0;
    int64_t shape[MAX_RANK];
    bool inside = true; /* all axes so far have one index */
    if (p->part_count || !shard_shape(g, shard, r, shape))
        return false;
    strides_of(p, stride);
    uint32_t behind = whole_from(g, s, r);
    for (uint32_t k = 0; k < s->rank; k++) {
        const struct intervals *v = owned(g, s, k, r);
        bytes *= (uint64_t)shape[k];
        if (k < behind && (!inside || v->count > 1))
            return false;
        at += v->count ? (uint64_t)v->at[0].lo * stride[k] : 0;
        inside = inside && shape[k] == 1;
    }
    *offset = at;
    *length = bytes;
    return true;
}
