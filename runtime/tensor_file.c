/* runtime/tensor_file.c - see tensor_file.h. A file is bytes from outside: its header is parsed by a small scanner that knows
 * nothing but the three keys that every .npy has, and no size is believed before it was multiplied out and compared with the file's.
 */
#include "runtime/tensor_file.h"
#include "ir/output.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>

/* ---- .npy: the header ----------------------------------------------------------------------------------------------- */

/* A row per dtype: kind and bytes as numpy writes them. */
static const struct {
    char kind;
    char size;
    dtype type;
} npy_types[] = {{'b', '1', DT_BOOL}, {'i', '1', DT_I8},  {'i', '2', DT_I16},  {'i', '4', DT_I32}, {'i', '8', DT_I64},
                 {'u', '1', DT_U8},   {'u', '2', DT_U16}, {'u', '4', DT_U32},  {'u', '8', DT_U64}, {'f', '2', DT_F16},
                 {'f', '4', DT_F32},  {'f', '8', DT_F64}, {'V', '2', DT_BF16}, {'V', '1', DT_U8}};
enum { NPY_TYPES = sizeof npy_types / sizeof *npy_types };

struct scan {
    const char *at, *end;
};

static void blanks(struct scan *s)
{
    while (s->at < s->end && isspace((unsigned char)*s->at))
        s->at++;
}

static bool accept(struct scan *s, const char *token)
{
    size_t n = strlen(token);
    blanks(s);
    if ((size_t)(s->end - s->at) < n || memcmp(s->at, token, n) != 0)
        return false;
    s->at += n;
    return true;
}

static bool number(struct scan *s, int64_t *out)
{
    blanks(s);
    if (s->at == s->end || !isdigit((unsigned char)*s->at))
        return false;
    int64_t x = 0;
    for (; s->at < s->end && isdigit((unsigned char)*s->at); s->at++)
        if (!i64_mul(x, 10, &x) || !i64_add(x, *s->at - '0', &x))
            return false;
    *out = x;
    (void)accept(s, "L"); /* as Python 2 wrote it */
    return true;
}

struct header {
    dtype type;
    bool swapped, fortran;
    uint32_t rank;
    int64_t shape[MAX_RANK];
    unsigned seen; /* one bit per key */
};

static bool read_descr(struct scan *s, struct header *h)
{
    char quote = s->at < s->end ? *s->at : 0;
    if ((quote != '\'' && quote != '"') || s->end - s->at < 5)
        return false;
    char order = s->at[1];
    for (int i = 0; i < NPY_TYPES; i++)
        if (s->at[2] == npy_types[i].kind && s->at[3] == npy_types[i].size && s->at[4] == quote)
            h->type = npy_types[i].type;
    h->swapped = order == '>' && h->type != DT_NONE && dtype_size(h->type) > 1;
    s->at += 5;
    return h->type != DT_NONE && strchr("<>|=", order) != NULL && order != 0;
}

static bool read_shape(struct scan *s, struct header *h)
{
    if (!accept(s, "("))
        return false;
    while (!accept(s, ")")) {
        if (h->rank == MAX_RANK || !number(s, &h->shape[h->rank++]))
            return false;
        if (!accept(s, ","))
            return accept(s, ")");
    }
    return true;
}

static bool read_key(struct scan *s, struct header *h)
{
    static const char *const keys[] = {"descr", "fortran_order", "shape"};
    for (unsigned k = 0; k < 3; k++) {
        char name[20];
        snprintf(name, sizeof name, "'%s'", keys[k]);
        if (!accept(s, name))
            continue;
        if ((h->seen >> k & 1) || !accept(s, ":"))
            return false;
        h->seen |= 1u << k;
        blanks(s);
        if (k == 0)
            return read_descr(s, h);
        if (k == 2)
            return read_shape(s, h);
        h->fortran = accept(s, "True");
        return h->fortran || accept(s, "False");
    }
    return false;
}

static bool read_header(struct scan *s, struct header *h)
{
    if (!accept(s, "{"))
        return false;
    while (!accept(s, "}")) {
        if (!read_key(s, h))
            return false;
        if (!accept(s, ",")) {
            if (!accept(s, "}"))
                return false;
            break;
        }
    }
    return h->seen == 7;
}

/* ---- .npy: the elements --------------------------------------------------------------------------------------------- */

static void swap_bytes(char *at, size_t count, size_t size)
{
    for (size_t i = 0; i < count; i++, at += size)
        for (size_t b = 0; b < size / 2; b++) {
            char x = at[b];
            at[b] = at[size - 1 - b];
            at[size - 1 - b] = x;
        }
}

/* From first-axis-fastest to last-axis-fastest. */
static void from_fortran(const struct tensor *t, const char *from)
{
    size_t size = dtype_size(t->dtype);
    int64_t index[MAX_RANK] = {0};
    for (size_t i = 0; i < t->count; i++) {
        int64_t at = 0;
        for (uint32_t a = t->rank; a-- > 0;)
            at = at * t->shape[a] + index[a];
        memcpy((char *)t->data + i * size, from + (size_t)at * size, size);
        for (uint32_t a = t->rank; a-- > 0;) {
            if (++index[a] < t->shape[a])
                break;
            index[a] = 0;
        }
    }
}

status npy_parse(struct arena *arena, const char *name, const void *bytes, size_t length, struct diag *diag,
                 struct tensor *out)
{
    const unsigned char *b = bytes;
    if (length < 12 || memcmp(b, "\x93NUMPY", 6) != 0)
        return diag_error(diag, TPC_DATA, name, "not a .npy file");
    if (b[6] < 1 || b[6] > 3)
        return diag_error(diag, TPC_DATA, name, ".npy version %u.%u is not known (1 to 3 are)", b[6], b[7]);
    size_t head = b[6] == 1 ? 10 : 12;
    size_t text = b[6] == 1 ? (size_t)(b[8] | b[9] << 8)
                            : (size_t)b[8] | (size_t)b[9] << 8 | (size_t)b[10] << 16 | (size_t)b[11] << 24;
    if (text > length - head)
        return diag_error(diag, TPC_DATA, name, "the file ends within its header");
    struct scan s = {(const char *)b + head, (const char *)b + head + text};
    struct header h = {0};
    if (!read_header(&s, &h)) {
        size_t shown = text < 120 ? text : 120;
        while (shown > 0 && strchr(" \n", b[head + shown - 1])) /* what fills it up is of no interest */
            shown--;
        return diag_error(diag, TPC_DATA, name, "the .npy header cannot be read, or its dtype is none of ours: %.*s",
                          (int)shown, (const char *)b + head);
    }
    struct tensor t;
    if (!tensor_shape(&t, h.type, h.rank, h.shape) || tensor_bytes(&t) != length - head - text)
        return diag_error(diag, TPC_DATA, name, "the file has %zu bytes of elements, which is not what its shape says",
                          length - head - text);
    const char *from = (const char *)b + head + text;
    t.data = arena_alloc(arena, tensor_bytes(&t));
    if (h.fortran)
        from_fortran(&t, from);
    else if (tensor_bytes(&t))
        memcpy(t.data, from, tensor_bytes(&t));
    if (h.swapped)
        swap_bytes(t.data, t.count, dtype_size(t.dtype));
    if (t.dtype == DT_BOOL)
        for (size_t i = 0; i < t.count; i++)
            ((unsigned char *)t.data)[i] = ((unsigned char *)t.data)[i] != 0;
    *out = t;
    return TPC_OK;
}

static void close_file(void *file)
{
    fclose(file);
}

status npy_read(struct arena *arena, const char *path, struct diag *diag, struct tensor *out)
{
    FILE *file = fopen(path, "rb");
    if (!file)
        return diag_error(diag, errno == ENOENT || errno == ENOTDIR ? TPC_NOINPUT : TPC_IO, path, "cannot open: %s",
                          strerror(errno));
    struct arena *scratch = arena_new_in(arena);
    arena_defer(scratch, close_file, file);
    struct stat st;
    status result = TPC_OK;
    if (fstat(fileno(file), &st) != 0 || !S_ISREG(st.st_mode)) {
        result = diag_error(diag, TPC_DATA, path, "not a regular file");
    } else {
        size_t length = (size_t)st.st_size;
        char *bytes = arena_alloc(scratch, length);
        if (fread(bytes, 1, length, file) != length)
            result = diag_error(diag, TPC_IO, path, "cannot read: %s",
                                ferror(file) ? strerror(errno) : "the file became shorter");
        else
            result = npy_parse(arena, path, bytes, length, diag, out);
    }
    arena_free(scratch);
    return result;
}

status npy_write(struct arena *arena, const char *path, const struct tensor *t, struct diag *diag)
{
    bool whole = !dtype_is_stored(t->dtype);
    char kind = !whole && dtype_is_int(t->dtype) && dtype_is_signed(t->dtype) ? 'i' : 'u', size = whole ? '2' : '1';
    for (int i = 0; i < NPY_TYPES; i++)
        if (npy_types[i].type == t->dtype && t->dtype != DT_BF16 && npy_types[i].kind != 'V') {
            kind = npy_types[i].kind;
            size = npy_types[i].size;
        }
    struct text shape = {.arena = arena};
    text_put(&shape, "(");
    for (uint32_t a = 0; a < t->rank; a++)
        text_printf(&shape, "%lld,%s", (long long)t->shape[a], a + 1 < t->rank ? " " : "");
    text_put(&shape, ")");
    struct text head = {.arena = arena};
    text_printf(&head, "{'descr': '%c%c%c', 'fortran_order': False, 'shape': %s, }", size == '1' ? '|' : '<', kind,
                size, shape.at);
    while ((10 + head.length + 1) % 64 != 0)
        text_put(&head, " ");
    text_put(&head, "\n");
    unsigned char start[10] = {
        0x93, 'N', 'U', 'M', 'P', 'Y', 1, 0, (unsigned char)(head.length & 255), (unsigned char)(head.length >> 8)};
    struct output_file file;
    status s = output_open(path, diag, &file);
    if (s != TPC_OK)
        return s;
    bool good = fwrite(start, 1, sizeof start, file.to) == sizeof start &&
                fwrite(head.at, 1, head.length, file.to) == head.length &&
                fwrite(t->data, 1, tensor_bytes(t), file.to) == tensor_bytes(t);
    return output_close(&file, good, diag);
}

/* ---- text ----------------------------------------------------------------------------------------------------------- */

static status bad_text(struct diag *diag, const char *text, const char *what)
{
    return diag_error(diag, TPC_DATA, NULL, "tensor '%.80s': %s (as in 2x3xi64=1,2,3,4,5,6)", text, what);
}

static bool parse_type(const char *text, const char *equals, dtype *type, uint32_t *rank, int64_t *shape)
{
    struct scan s = {text, equals};
    *rank = 0;
    while (s.at < s.end && isdigit((unsigned char)*s.at))
        if (*rank == MAX_RANK || !number(&s, &shape[(*rank)++]) || !accept(&s, "x"))
            return false;
    *type = dtype_from_name(s.at, (size_t)(s.end - s.at));
    return *type != DT_NONE;
}

/* Element i from the text at *at, which is moved behind it. */
static bool parse_element(struct tensor *t, size_t i, const char **at)
{
    char *end = NULL;
    errno = 0;
    if (t->dtype == DT_BOOL && (strncmp(*at, "true", 4) == 0 || strncmp(*at, "false", 5) == 0)) {
        dtype_store_i64(t->dtype, t->data, i, **at == 't');
        *at += **at == 't' ? 4 : 5;
        return true;
    }
    if (dtype_is_float(t->dtype)) {
        double x = strtod(*at, &end);
        dtype_store_f64(t->dtype, t->data, i, x);
    } else if (t->dtype == DT_U64) {
        dtype_store_i64(t->dtype, t->data, i, (int64_t)strtoull(*at, &end, 10));
    } else {
        int64_t x = strtoll(*at, &end, 10);
        dtype_store_i64(t->dtype, t->data, i, x);
        if (dtype_load_i64(t->dtype, t->data, i) != x)
            return false; /* beyond the type */
    }
    bool good = end != *at && (errno == 0 || dtype_is_float(t->dtype));
    *at = end;
    return good;
}

status tensor_parse(struct arena *arena, const char *text, struct diag *diag, struct tensor *out)
{
    const char *equals = strchr(text, '=');
    dtype type;
    uint32_t rank;
    int64_t shape[MAX_RANK];
    if (!equals || !parse_type(text, equals, &type, &rank, shape))
        return bad_text(diag, text, "expected EXTENTxEXTENTxTYPE=VALUES");
    struct tensor t;
    if (!tensor_shape(&t, type, rank, shape))
        return bad_text(diag, text, "too many elements");
    const char *at = equals + 1;
    size_t given = 1;
    for (const char *c = at; *c; c++)
        given += *c == ',';
    if (*at == 0)
        given = 0;
    if (given != t.count && !(given == 1 && t.count > 1))
        return diag_error(diag, TPC_DATA, NULL, "tensor '%.80s': its shape has %zu elements and %zu values are given",
                          text, t.count, given);
    if (!tensor_new(arena, &t, type, rank, shape))
        return bad_text(diag, text, "too many elements");
    for (size_t i = 0; i < given; i++) {
        if (i > 0 && *at++ != ',')
            return bad_text(diag, text, "expected a comma");
        if (!parse_element(&t, i, &at))
            return diag_error(diag, TPC_DATA, NULL, "tensor '%.80s': value %zu is no %s", text, i + 1,
                              dtype_name(type));
    }
    if (*at)
        return bad_text(diag, text, "something stands behind the last value");
    size_t size = dtype_size(type);
    for (size_t i = given; i < t.count; i++)
        memcpy((char *)t.data + i * size, t.data, size);
    *out = t;
    return TPC_OK;
}

/* ---- the rest --------------------------------------------------------------------------------------------------------- */

void tensor_as(struct tensor *t, dtype wanted)
{
    bool bytes = (t->dtype == DT_U8 || t->dtype == DT_I8) && dtype_is_stored(wanted);
    if ((t->dtype == DT_U16 && wanted == DT_BF16) || (t->dtype == DT_BF16 && wanted == DT_U16))
        t->dtype = wanted;
    for (size_t i = 0; bytes && i < t->count; i++)
        dtype_store_bits(wanted, t->data, i, ((const uint8_t *)t->data)[i] & ((1u << dtype_bits(wanted)) - 1));
    t->dtype = bytes ? wanted : t->dtype;
}

static uint64_t next_random(uint64_t *state) /* splitmix64 */
{
    uint64_t x = *state += 0x9e3779b97f4a7c15u;
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
    x = (x ^ x >> 27) * 0x94d049bb133111ebu;
    return x ^ x >> 31;
}

void tensor_random(struct tensor *t, uint64_t seed, int64_t limit)
{
    uint64_t state = seed * 0x2545f4914f6cdd1du + 1, bound = t->dtype == DT_BOOL ? 2 : limit > 0 ? (uint64_t)limit : 1;
    for (size_t i = 0; i < t->count; i++) {
        uint64_t x = next_random(&state);
        if (dtype_is_float(t->dtype))
            dtype_store_f64(t->dtype, t->data, i, (double)(x >> 11) * 0x1p-52 - 1);
        else
            dtype_store_i64(t->dtype, t->data, i, (int64_t)(x % bound));
    }
}
