/* frontend/onnx/annotate_write.c - a model's file copied with device annotations put into it.
 *
 * Nothing is unpacked and packed again: an edit replaces [from, to) of the file by some bytes, the rest is copied as it stands from the mapping, so that
 * weights cost no memory and what tpc does not know survives. Edits: the IR version, each annotated node's length and end, the graph's length, and
 * at the end of the file the configuration. Annotations of the same name that were there before are left out. Start with onnx_annotate.
 */
#include "frontend/onnx/annotate_specs.h"
#include "frontend/onnx/import.h"
#include "ir/output.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

enum { OLDEST_IR = 11, MODEL_IR = 1, MODEL_GRAPH = 7, MODEL_CONFIGURATION = 26, GRAPH_NODE = 1, NODE_DEVICES = 10 };

struct edit {
    size_t from, to;
    const uint8_t *with;
    size_t count;
};
struct
    field { /* of a message: its number, where it begins and ends, where its bytes begin and how its length is written */
    uint64_t number;
    size_t at, length_at, data, end;
};
struct writer {
    struct arena *arena;
    struct diag *diag;
    const char *path, *name; /* of the model; of the configuration */
    uint32_t ranks;
    const uint8_t *bytes;
    size_t length;
    const struct annotation_bytes *specs; /* per node */
    LIST(struct edit) edits;
};

/* ---- reading what the wire walk has found sound ---- */

static uint64_t varint(const uint8_t *bytes, size_t *at)
{
    uint64_t x = 0;
    for (unsigned shift = 0; shift < 64; shift += 7) {
        uint8_t b = bytes[(*at)++];
        x |= (uint64_t)(b & 0x7f) << shift;
        if (b < 0x80)
            break;
    }
    return x;
}

/* The next field of a message at *at; false at `end`. */
static bool next_field(const struct writer *w, size_t *at, size_t end, struct field *out)
{
    if (*at >= end)
        return false;
    *out = (struct field){.at = *at};
    uint64_t tag = varint(w->bytes, at);
    out->number = tag >> 3;
    out->length_at = out->data = *at;
    if ((tag & 7) == 2) {
        size_t length = (size_t)varint(w->bytes, at);
        out->data = *at;
        *at += length;
    } else if ((tag & 7) == 0) {
        (void)varint(w->bytes, at);
    } else {
        *at += (tag & 7) == 1 ? 8 : 4;
    }
    out->end = *at;
    return true;
}

/* ---- edits ---- */

static struct edit *add_edit(struct writer *w, size_t from, size_t to, const uint8_t *with, size_t count)
{
    struct edit *e = PUSH(w->arena, &w->edits);
    *e = (struct edit){from, to, with, count};
    return e;
}

static size_t put_varint(uint8_t *to, uint64_t x)
{
    size_t n = 0;
    for (; x >= 0x80; x >>= 7)
        to[n++] = (uint8_t)(x | 0x80);
    to[n++] = (uint8_t)x;
    return n;
}

static void set_length(struct writer *w, uint32_t edit, uint64_t length)
{
    uint8_t *with = (uint8_t *)arena_alloc(w->arena, 10);
    w->edits.at[edit].count = put_varint(with, length);
    w->edits.at[edit].with = with;
}

/* Whether a message's field `number` is our name. */
static bool is_ours(const struct writer *w, const struct field *message, uint64_t number)
{
    struct field f;
    size_t at = message->data;
    bool ours = false;
    while (next_field(w, &at, message->end, &f))
        if (f.number == number && f.data > f.length_at)
            ours = f.end - f.data == strlen(w->name) && memcmp(w->bytes + f.data, w->name, f.end - f.data) == 0;
    return ours;
}

/* Edits one node; returns by how much it grows, its length's own digits included. */
static int64_t edit_node(struct writer *w, const struct field *node, const struct annotation_bytes *spec)
{
    uint32_t length = w->edits.count;
    int64_t grown = 0;
    struct field f;
    size_t at = node->data;
    (void)add_edit(w, node->length_at, node->data, NULL, 0);
    while (next_field(w, &at, node->end, &f))
        if (f.number == NODE_DEVICES && is_ours(w, &f, 1)) {
            (void)add_edit(w, f.at, f.end, NULL, 0);
            grown -= (int64_t)(f.end - f.at);
        }
    if (spec->length) {
        (void)add_edit(w, node->end, node->end, spec->at, spec->length);
        grown += (int64_t)spec->length;
    }
    if (w->edits.count == length + 1) {
        w->edits.count = length;
        return 0;
    }
    set_length(w, length, (uint64_t)((int64_t)(node->end - node->data) + grown));
    return grown + (int64_t)w->edits.at[length].count - (int64_t)(node->data - node->length_at);
}

static void edit_graph(struct writer *w, const struct field *graph)
{
    uint32_t length = w->edits.count, node = 0;
    int64_t grown = 0;
    struct field f;
    size_t at = graph->data;
    (void)add_edit(w, graph->length_at, graph->data, NULL, 0);
    while (next_field(w, &at, graph->end, &f))
        if (f.number == GRAPH_NODE)
            grown += edit_node(w, &f, &w->specs[node++]);
    set_length(w, length, (uint64_t)((int64_t)(graph->end - graph->data) + grown));
}

static void edit_model(struct writer *w, int64_t ir_version)
{
    struct field f;
    size_t at = 0, n;
    uint8_t *ir = (uint8_t *)arena_alloc(w->arena, 16);
    n = put_varint(ir, MODEL_IR << 3);
    n += put_varint(ir + n, (uint64_t)(ir_version < OLDEST_IR ? OLDEST_IR : ir_version));
    (void)add_edit(w, 0, 0, ir, n);
    while (next_field(w, &at, w->length, &f)) {
        if (f.number == MODEL_IR || (f.number == MODEL_CONFIGURATION && is_ours(w, &f, 1)))
            (void)add_edit(w, f.at, f.end, NULL, 0);
        else if (f.number == MODEL_GRAPH)
            edit_graph(w, &f);
    }
    Onnx__ModelProto m;
    Onnx__DeviceConfigurationProto c, *list = &c;
    onnx__model_proto__init(&m);
    onnx__device_configuration_proto__init(&c);
    c.name = arena_strdup(w->arena, w->name);
    c.has_num_devices = 1;
    c.num_devices = (int32_t)w->ranks;
    m.n_configuration = 1;
    m.configuration = &list;
    uint8_t *packed = (uint8_t *)arena_alloc(w->arena, onnx__model_proto__get_packed_size(&m));
    (void)add_edit(w, w->length, w->length, packed, onnx__model_proto__pack(&m, packed));
}

/* ---- the file ---- */

static bool copy_out(const struct writer *w, FILE *to)
{
    size_t read = 0;
    for (uint32_t i = 0; i < w->edits.count; i++) {
        const struct edit *e = &w->edits.at[i];
        if (e->from > read && fwrite(w->bytes + read, 1, e->from - read, to) != e->from - read)
            return false;
        if (e->count && fwrite(e->with, 1, e->count, to) != e->count)
            return false;
        read = e->to;
    }
    return w->length == read || fwrite(w->bytes + read, 1, w->length - read, to) == w->length - read;
}

static status write_file(const struct writer *w, const char *out)
{
    struct output_file file;
    status s = output_open(out, w->diag, &file);
    return s != TPC_OK ? s : output_close(&file, copy_out(w, file.to), w->diag);
}

static bool has_external(const Onnx__GraphProto *g)
{
    for (size_t i = 0; i < g->n_initializer; i++)
        if (g->initializer[i]->n_external_data)
            return true;
    return false;
}

static const char *folder_of(struct arena *arena, const char *path)
{
    const char *slash = strrchr(path, '/');
    return !slash ? "." : slash == path ? "/" : arena_strndup(arena, path, (size_t)(slash - path));
}

/* External data are named relative to the model: the copy must lie in the same folder, and not be the model. */
static status check_place(const struct writer *w, const char *out, bool external)
{
    struct stat model, target, from, to;
    const char *folder = folder_of(w->arena, w->path);
    if (stat(w->path, &model) == 0 && stat(out, &target) == 0 && model.st_dev == target.st_dev &&
        model.st_ino == target.st_ino)
        return diag_error(w->diag, TPC_USAGE, out,
                          "--annotate would overwrite the model that is read; name another file");
    if (!external)
        return TPC_OK;
    if (stat(folder, &from) != 0 || stat(folder_of(w->arena, out), &to) != 0 || from.st_dev != to.st_dev ||
        from.st_ino != to.st_ino)
        return diag_error(w->diag, TPC_USAGE, out,
                          "the model has external data, which are named relative to it: write into its folder '%s'",
                          folder);
    return TPC_OK;
}

status onnx_annotate(struct arena *arena, const char *path, const char *out, const struct graph *g,
                     const struct solution *s, struct diag *diag)
{
    struct writer w = {.arena = arena_new_in(arena), .diag = diag, .path = path};
    struct wire_bytes walked = {NULL, 0};
    uint32_t unsaid = 0;
    status result = file_map(w.arena, diag, path, &w.bytes, &w.length);
    if (result == TPC_OK)
        result = wire_walk(w.arena, path, WIRE_MODEL, w.bytes, w.length, diag, &walked);
    const Onnx__ModelProto *m =
        result == TPC_OK ? (const Onnx__ModelProto *)proto_unpack(w.arena, &onnx__model_proto__descriptor, &walked)
                         : NULL;
    if (result == TPC_OK && (!m || !m->graph))
        result = diag_error(diag, TPC_DATA, path, "not a readable ONNX file");
    if (result == TPC_OK)
        result = check_place(&w, out, has_external(m->graph));
    if (result != TPC_OK) {
        arena_free(w.arena);
        return result;
    }
    w.ranks = mesh_parts(s->mesh, (1u << s->mesh->count) - 1);
    w.name = arena_printf(w.arena, "tpc-%u", w.ranks);
    w.specs = onnx_annotation_specs(w.arena, m->graph, g, s, w.name, &unsaid);
    edit_model(&w, m->ir_version);
    result = write_file(&w, out);
    if (result == TPC_OK && unsaid)
        diag_note(diag, out,
                  "%u tensors are cut in pieces of several kinds, which an annotation cannot say; they are left out",
                  unsaid);
    arena_free(w.arena);
    return result;
}
