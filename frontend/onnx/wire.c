/* frontend/onnx/wire.c - the walk over the wire bytes: bounds what protobuf-c will see, and takes the tensor bytes out.
 *
 * Invariant: whatever passes here has nesting <= WIRE_DEPTH in every message field that onnx.proto declares, no groups, and
 * costs protobuf-c at most BASE_COST + COST_PER_BYTE bytes per byte that is not a tensor's. An edit replaces [from, to) of the input by a few
 * bytes: the length of each enclosing message, or a tensor's raw_data. Edits are noted in the order of `from`.
 * Start reading at wire_walk.
 */
#include "frontend/onnx/wire.h"

enum { VARINT = 0, FIXED64 = 1, BYTES = 2, FIXED32 = 5 };
enum { TENSOR_RAW_DATA = 9, TENSOR_FILE_OFFSET = 1000, TENSOR_FILE_LENGTH = 1001 };
enum { MESSAGE_COST = 400, FIELD_COST = 56, ELEMENT_COST = 8, COST_PER_BYTE = 48, BASE_COST = 64 << 20 };

struct schema_row {
    uint8_t parent;
    uint8_t child;
    uint32_t field;
};
/* The message fields that onnx.proto declares; LEAF messages hold no messages. */
static const struct schema_row schema[] = {
    {WIRE_MODEL, WIRE_GRAPH, 7},       {WIRE_MODEL, WIRE_LEAF, 8},           {WIRE_MODEL, WIRE_LEAF, 14},
    {WIRE_MODEL, WIRE_FUNCTION, 25},   {WIRE_MODEL, WIRE_LEAF, 26},          {WIRE_GRAPH, WIRE_NODE, 1},
    {WIRE_GRAPH, WIRE_TENSOR, 5},      {WIRE_GRAPH, WIRE_VALUE_INFO, 11},    {WIRE_GRAPH, WIRE_VALUE_INFO, 12},
    {WIRE_GRAPH, WIRE_VALUE_INFO, 13}, {WIRE_GRAPH, WIRE_ANNOTATION, 14},    {WIRE_GRAPH, WIRE_SPARSE, 15},
    {WIRE_GRAPH, WIRE_LEAF, 16},       {WIRE_NODE, WIRE_ATTRIBUTE, 5},       {WIRE_NODE, WIRE_LEAF, 9},
    {WIRE_NODE, WIRE_DEVICES, 10},     {WIRE_ATTRIBUTE, WIRE_TENSOR, 5},     {WIRE_ATTRIBUTE, WIRE_GRAPH, 6},
    {WIRE_ATTRIBUTE, WIRE_TENSOR, 10}, {WIRE_ATTRIBUTE, WIRE_GRAPH, 11},     {WIRE_ATTRIBUTE, WIRE_TYPE, 14},
    {WIRE_ATTRIBUTE, WIRE_TYPE, 15},   {WIRE_ATTRIBUTE, WIRE_SPARSE, 22},    {WIRE_ATTRIBUTE, WIRE_SPARSE, 23},
    {WIRE_TENSOR, WIRE_LEAF, 13},      {WIRE_SPARSE, WIRE_TENSOR, 1},        {WIRE_SPARSE, WIRE_TENSOR, 2},
    {WIRE_VALUE_INFO, WIRE_TYPE, 2},   {WIRE_VALUE_INFO, WIRE_LEAF, 4},      {WIRE_TYPE, WIRE_TYPE_TENSOR, 1},
    {WIRE_TYPE, WIRE_TYPE_NESTED, 4},  {WIRE_TYPE, WIRE_TYPE_MAP, 5},        {WIRE_TYPE, WIRE_TYPE_TENSOR, 8},
    {WIRE_TYPE, WIRE_TYPE_NESTED, 9},  {WIRE_TYPE_TENSOR, WIRE_SHAPE, 2},    {WIRE_TYPE_NESTED, WIRE_TYPE, 1},
    {WIRE_TYPE_MAP, WIRE_TYPE, 2},     {WIRE_SHAPE, WIRE_LEAF, 1},           {WIRE_FUNCTION, WIRE_NODE, 7},
    {WIRE_FUNCTION, WIRE_LEAF, 9},     {WIRE_FUNCTION, WIRE_ATTRIBUTE, 11},  {WIRE_FUNCTION, WIRE_VALUE_INFO, 12},
    {WIRE_FUNCTION, WIRE_LEAF, 14},    {WIRE_ANNOTATION, WIRE_LEAF, 2},      {WIRE_DEVICES, WIRE_SHARDING, 2},
    {WIRE_SHARDING, WIRE_LEAF, 3},     {WIRE_SHARDING, WIRE_SHARDED_DIM, 4}, {WIRE_SHARDED_DIM, WIRE_LEAF, 2},
};

struct edit {
    size_t from, to;
    uint8_t count;
    uint8_t with[24];
};
struct frame {
    enum wire_message kind;
    size_t end;
    size_t length_at, content; /* where its length is written, and its first byte */
    uint32_t edit;             /* the edit of its length, reserved at its start */
    int64_t grown;             /* bytes that edits within have added, may be negative */
};
struct walk {
    struct arena *arena;
    const char *where;
    struct diag *diag;
    const uint8_t *at;
    size_t length, cursor;
    uint64_t cost, nodes, taken; /* taken: bytes of raw_data */
    uint32_t depth;
    struct frame stack[WIRE_DEPTH];
    LIST(struct edit) edits;
};

static bool read_varint(struct walk *w, size_t end, uint64_t *out)
{
    uint64_t x = 0;
    for (unsigned shift = 0; shift < 64; shift += 7) {
        if (w->cursor >= end)
            return false;
        uint8_t b = w->at[w->cursor++];
        x |= (uint64_t)(b & 0x7f) << shift;
        if (b < 0x80) {
            *out = x;
            return true;
        }
    }
    return false;
}

static uint8_t put_varint(uint8_t *to, uint64_t x)
{
    uint8_t n = 0;
    while (x >= 0x80) {
        to[n++] = (uint8_t)(x | 0x80);
        x >>= 7;
    }
    to[n++] = (uint8_t)x;
    return n;
}

static enum wire_message child_kind(enum wire_message parent, uint64_t field)
{
    for (size_t i = 0; i < sizeof schema / sizeof *schema; i++)
        if (schema[i].parent == parent && schema[i].field == field)
            return (enum wire_message)schema[i].child;
    return WIRE_OPAQUE;
}

/* What is often given in place of a model. */
static const struct {
    const char *begin, *what;
} mistaken[] = {
    {"\x89TPCPLN\n", "a tpc plan, which run, dump and explain read; give the model"},
    {"version https://git-lfs", "a Git LFS pointer in place of a file; `git lfs pull` brings the file"},
    {"PK\x03\x04", "a zip archive (a checkpoint?), not an exported model"},
    {"<", "a page of HTML or XML"},
};

static status malformed(const struct walk *w, const char *what)
{
    for (size_t i = 0; i < sizeof mistaken / sizeof *mistaken; i++) {
        size_t n = strlen(mistaken[i].begin);
        if (w->length >= n && memcmp(w->at, mistaken[i].begin, n) == 0)
            return diag_error(w->diag, TPC_DATA, w->where, "not an ONNX file but %s", mistaken[i].what);
    }
    return diag_error(w->diag, TPC_DATA, w->where, "not a readable ONNX file: %s at byte %zu", what, w->cursor);
}

static status push_frame(struct walk *w, enum wire_message kind, size_t length_at, size_t length)
{
    if (w->depth == WIRE_DEPTH)
        return diag_error(w->diag, TPC_DATA, w->where, "messages nest too deeply (limit is %d) at byte %zu", WIRE_DEPTH,
                          w->cursor);
    if (kind == WIRE_NODE && ++w->nodes > WIRE_NODES)
        return diag_error(w->diag, TPC_DATA, w->where, "too many nodes (limit is %d)", WIRE_NODES);
    struct frame *f = &w->stack[w->depth++];
    *f = (struct frame){.kind = kind, .end = w->cursor + length, .length_at = length_at, .content = w->cursor};
    f->edit = w->edits.count;
    struct edit *e = PUSH(w->arena, &w->edits);
    e->from = length_at;
    e->to = length_at;
    w->cost += MESSAGE_COST;
    return TPC_OK;
}

/* Leaves the innermost message: its length is rewritten if what it holds has changed in size. */
static void pop_frame(struct walk *w)
{
    struct frame f = w->stack[--w->depth];
    if (w->depth == 0)
        return;
    if (w->edits.count == f.edit + 1) { /* no edit within */
        w->edits.count = f.edit;
        return;
    }
    struct edit *e = &w->edits.at[f.edit];
    e->to = f.content;
    e->count = put_varint(e->with, (uint64_t)((int64_t)(f.end - f.content) + f.grown));
    w->stack[w->depth - 1].grown += f.grown + (int64_t)e->count - (int64_t)(f.content - f.length_at);
}

/* Replaces a field of the innermost message; what is written instead is in e->with. */
static void note_edit(struct walk *w, const struct edit *e)
{
    *PUSH(w->arena, &w->edits) = *e;
    w->stack[w->depth - 1].grown += (int64_t)e->count - (int64_t)(e->to - e->from);
}

static void take_raw_data(struct walk *w, size_t field_at, size_t data_at, size_t length)
{
    struct edit e = {.from = field_at, .to = data_at + length};
    e.count = put_varint(e.with, TENSOR_FILE_OFFSET << 3 | VARINT);
    e.count = (uint8_t)(e.count + put_varint(e.with + e.count, data_at));
    e.count = (uint8_t)(e.count + put_varint(e.with + e.count, TENSOR_FILE_LENGTH << 3 | VARINT));
    e.count = (uint8_t)(e.count + put_varint(e.with + e.count, length));
    note_edit(w, &e);
    w->taken += length;
}

static status walk_bytes(struct walk *w, uint64_t field, size_t field_at)
{
    const struct frame *f = &w->stack[w->depth - 1];
    enum wire_message kind = f->kind;
    size_t length_at = w->cursor, end = f->end;
    uint64_t length = 0;
    if (!read_varint(w, end, &length) || length > end - w->cursor)
        return malformed(w, "a field runs past the end of its message");
    enum wire_message child = child_kind(kind, field);
    if (child != WIRE_OPAQUE)
        return push_frame(w, child, length_at, (size_t)length);
    size_t data_at = w->cursor;
    w->cursor += (size_t)length;
    if (kind == WIRE_TENSOR && field == TENSOR_RAW_DATA)
        take_raw_data(w, field_at, data_at, (size_t)length);
    else
        w->cost += length <= UINT32_MAX ? length * ELEMENT_COST : length;
    return TPC_OK;
}

static status walk_field(struct walk *w)
{
    const struct frame *f = &w->stack[w->depth - 1];
    size_t field_at = w->cursor;
    uint64_t tag = 0, ignored = 0;
    if (!read_varint(w, f->end, &tag) || tag >> 3 == 0 || tag >> 3 > 536870911)
        return malformed(w, "bad field tag");
    uint64_t field = tag >> 3;
    w->cost += FIELD_COST;
    switch (tag & 7) {
    case VARINT:
        if (!read_varint(w, f->end, &ignored))
            return malformed(w, "truncated number");
        if (f->kind == WIRE_TENSOR && (field == TENSOR_FILE_OFFSET || field == TENSOR_FILE_LENGTH))
            note_edit(w, &(struct edit){.from = field_at, .to = w->cursor});
        return TPC_OK;
    case FIXED64:
    case FIXED32: {
        size_t size = (tag & 7) == FIXED64 ? 8 : 4;
        if (f->end - w->cursor < size)
            return malformed(w, "truncated number");
        w->cursor += size;
        return TPC_OK;
    }
    case BYTES:
        return walk_bytes(w, field, field_at);
    default:
        return malformed(w, "unknown wire type");
    }
}

static void apply_edits(const struct walk *w, struct wire_bytes *out)
{
    size_t length = (size_t)((int64_t)w->length + w->stack[0].grown), read = 0, written = 0;
    uint8_t *to = arena_alloc(w->arena, length);
    for (uint32_t i = 1; i < w->edits.count; i++) { /* edit 0 is the root's, which has no length */
        const struct edit *e = &w->edits.at[i];
        memcpy(to + written, w->at + read, e->from - read);
        written += e->from - read;
        memcpy(to + written, e->with, e->count);
        written += e->count;
        read = e->to;
    }
    if (w->length > read)
        memcpy(to + written, w->at + read, w->length - read);
    out->at = to;
    out->length = length;
}

status wire_walk(struct arena *arena, const char *where, enum wire_message root, const void *bytes, size_t length,
                 struct diag *diag, struct wire_bytes *out)
{
    struct walk *w = NEW(arena, struct walk);
    w->arena = arena;
    w->where = where;
    w->diag = diag;
    w->at = bytes;
    w->length = length;
    if (length == 0)
        return diag_error(diag, TPC_DATA, where, "the file is empty");
    status s = push_frame(w, root, 0, length);
    while (s == TPC_OK && w->depth > 0) {
        if (w->cursor == w->stack[w->depth - 1].end)
            pop_frame(w);
        else
            s = walk_field(w);
        if (s == TPC_OK && w->cost > BASE_COST + (w->cursor - w->taken) * COST_PER_BYTE)
            s = diag_error(diag, TPC_DATA, where, "too many small messages for a file of %zu bytes", length);
    }
    if (s == TPC_OK)
        apply_edits(w, out);
    return s;
}
