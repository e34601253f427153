/* ir/text_lex.c - tokens of the text forms: quoting, the lexer, elements of tensors. */
#include "ir/text_form.h"

#include <stdlib.h>

/* ---- characters ---- */

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}
static bool is_word_start(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
}
static bool is_word_part(char c)
{
    return is_word_start(c) || is_digit(c) || c == '.';
}
static int hex_value(char c)
{
    return is_digit(c) ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

bool text_is_word(const char *s)
{
    if (!is_word_start(*s))
        return false;
    while (is_word_part(*s))
        s++;
    return *s == '\0';
}

/* ---- quoting ---- */

void text_quote(struct text *out, const char *bytes, size_t length)
{
    text_putn(out, "\"", 1);
    for (size_t i = 0, plain = 0; i <= length; i++) {
        bool special = i == length || bytes[i] < ' ' || bytes[i] > '~' || bytes[i] == '"' || bytes[i] == '\\';
        if (!special)
            continue;
        text_putn(out, bytes + plain, i - plain);
        plain = i + 1;
        if (i == length)
            break;
        if (bytes[i] == '"' || bytes[i] == '\\')
            text_printf(out, "\\%c", bytes[i]);
        else
            text_printf(out, "\\x%02x", (unsigned)(unsigned char)bytes[i]);
    }
    text_putn(out, "\"", 1);
}

bool text_unquote(const char **cursor, const char *end, struct arena *arena, char **out, size_t *length)
{
    const char *at = *cursor, *close;
    if (at == end || *at++ != '"')
        return false;
    for (close = at; close < end && *close != '"' && *close != '\n'; close++)
        close += *close == '\\' && close + 1 < end;
    if (close >= end || *close != '"')
        return false;
    char *copy = arena_alloc(arena, (size_t)(close - at) + 1);
    size_t n = 0;
    while (at < close) {
        if (*at != '\\') {
            copy[n++] = *at++;
        } else if (at[1] == '"' || at[1] == '\\') {
            copy[n++] = at[1];
            at += 2;
        } else if (at[1] == 'x' && close - at >= 4 && hex_value(at[2]) >= 0 && hex_value(at[3]) >= 0) {
            copy[n++] = (char)(hex_value(at[2]) * 16 + hex_value(at[3]));
            at += 4;
        } else {
            return false;
        }
    }
    *cursor = close + 1;
    *out = copy;
    *length = n;
    return true;
}

/* ---- the lexer ---- */

struct lexer lexer_over(struct arena *arena, const char *name, const char *text, size_t length, struct diag *diag)
{
    return (struct lexer){.start = text, .at = text, .end = text + length, .name = name, .arena = arena, .diag = diag};
}

bool lex_fail(struct lexer *l, const char *format, ...)
{
    if (l->failed)
        return false;
    l->failed = true;
    unsigned line = 1, column = 1;
    for (const char *c = l->start; c < l->at; c++) {
        column = *c == '\n' ? 1 : column + 1;
        line += *c == '\n';
    }
    char message[512];
    va_list args;
    va_start(args, format);
    vsnprintf(message, sizeof message, format, args);
    va_end(args);
    (void)diag_error(l->diag, TPC_DATA, arena_printf(l->arena, "%s:%u:%u", l->name, line, column), "%s", message);
    return false;
}

static void skip_blanks(struct lexer *l)
{
    while (l->at < l->end) {
        char c = *l->at;
        if (c == '#')
            while (l->at < l->end && *l->at != '\n')
                l->at++;
        else if (c == ' ' || c == '\t' || c == '\n' || c == '\r')
            l->at++;
        else
            break;
    }
}

bool lex_end(struct lexer *l)
{
    skip_blanks(l);
    return l->failed || l->at == l->end;
}

bool lex_peek(struct lexer *l, const char *token)
{
    if (l->failed)
        return false;
    skip_blanks(l);
    size_t n = strlen(token);
    if ((size_t)(l->end - l->at) < n || memcmp(l->at, token, n) != 0)
        return false;
    return !is_word_part(token[n - 1]) || l->at + n == l->end || !is_word_part(l->at[n]);
}

bool lex_accept(struct lexer *l, const char *token)
{
    if (!lex_peek(l, token))
        return false;
    l->at += strlen(token);
    return true;
}

bool lex_expect(struct lexer *l, const char *token)
{
    return lex_accept(l, token) || lex_fail(l, "expected '%s'", token);
}

bool lex_word(struct lexer *l, const char **word, size_t *length)
{
    if (l->failed)
        return false;
    skip_blanks(l);
    if (l->at == l->end || !is_word_start(*l->at))
        return false;
    *word = l->at;
    while (l->at < l->end && is_word_part(*l->at))
        l->at++;
    *length = (size_t)(l->at - *word);
    return true;
}

/* Digits at the cursor, in base 10 or 16. */
static bool lex_digits(struct lexer *l, unsigned base, uint64_t *out)
{
    uint64_t v = 0;
    const char *start = l->at;
    for (; l->at < l->end; l->at++) {
        int digit = hex_value(*l->at);
        if (digit < 0 || (unsigned)digit >= base)
            break;
        if (__builtin_mul_overflow(v, base, &v) || __builtin_add_overflow(v, (unsigned)digit, &v))
            return lex_fail(l, "number too large");
    }
    if (l->at == start || (l->at < l->end && is_word_part(*l->at)))
        return lex_fail(l, "expected a whole number");
    *out = v;
    return true;
}

bool lex_u64(struct lexer *l, uint64_t *out)
{
    *out = 0;
    if (l->failed)
        return false;
    skip_blanks(l);
    bool hexadecimal = l->end - l->at > 2 && l->at[0] == '0' && l->at[1] == 'x';
    l->at += hexadecimal ? 2 : 0;
    return lex_digits(l, hexadecimal ? 16 : 10, out);
}

bool lex_u32(struct lexer *l, uint32_t *out)
{
    uint64_t v;
    *out = 0;
    if (!lex_u64(l, &v))
        return false;
    if (v > UINT32_MAX)
        return lex_fail(l, "number too large");
    *out = (uint32_t)v;
    return true;
}

bool lex_i64(struct lexer *l, int64_t *out)
{
    uint64_t v = 0;
    *out = 0;
    bool negative = lex_accept(l, "-");
    if (!lex_u64(l, &v))
        return false;
    if (v > (uint64_t)INT64_MAX + negative)
        return lex_fail(l, "number too large");
    *out = negative ? (int64_t)(0 - v) : (int64_t)v;
    return true;
}

bool lex_string(struct lexer *l, const char **out)
{
    char *string;
    size_t length;
    *out = "";
    if (l->failed)
        return false;
    skip_blanks(l);
    if (!text_unquote(&l->at, l->end, l->arena, &string, &length) || strlen(string) != length)
        return lex_fail(l, "expected a string in double quotes");
    *out = string;
    return true;
}

bool lex_dim(struct lexer *l, struct dims *t, dim *out)
{
    *out = DIM_NONE;
    if (l->failed)
        return false;
    skip_blanks(l);
    *out = dim_parse(t, &l->at, l->end);
    return *out != DIM_NONE || lex_fail(l, "expected an extent, or it is too large");
}

bool lex_shape(struct lexer *l, struct dims *t, uint32_t limit, uint32_t *count, const dim **out)
{
    LIST(dim) list = {0};
    if (!lex_expect(l, "["))
        return false;
    while (!lex_accept(l, "]")) {
        if (list.count == limit)
            return lex_fail(l, "more than %u extents", (unsigned)limit);
        dim d;
        if ((list.count && !lex_expect(l, ",")) || !lex_dim(l, t, &d))
            return false;
        *PUSH(l->arena, &list) = d;
    }
    *count = list.count;
    *out = list.at;
    return true;
}

bool lex_type(struct lexer *l, struct dims *t, uint32_t limit, dtype *type, uint32_t *rank, const dim **shape)
{
    const char *word;
    size_t length;
    if (!lex_word(l, &word, &length) || (*type = dtype_from_name(word, length)) == DT_NONE)
        return lex_fail(l, "expected a type such as f32[2, 3]");
    return lex_shape(l, t, limit, rank, shape);
}

void text_shape(struct text *out, const struct dims *t, uint32_t rank, const dim *shape)
{
    text_put(out, "[");
    for (uint32_t i = 0; i < rank; i++) {
        text_put(out, i ? ", " : "");
        dim_print(t, shape[i], out);
    }
    text_put(out, "]");
}

/* ---- elements ---- */

enum { LISTED_ELEMENTS = 64 };
/* Bytes that all(...) may stand for, each and in one text: a short text must not fill the memory. */
static const size_t repeated_limit = (size_t)1 << 16, repeated_total = (size_t)1 << 28;

/* A number that reads back as the same value; 0x1.8p+1 would be exact too, but people read this. */
static void print_number(char *out, size_t room, dtype type, const void *data, size_t i)
{
    if (type == DT_U64)
        snprintf(out, room, "%llu", (unsigned long long)dtype_load_i64(type, data, i));
    else if (!dtype_is_float(type))
        snprintf(out, room, "%lld", (long long)dtype_load_i64(type, data, i));
    else
        snprintf(out, room, "%.*g", type == DT_F64 ? 17 : type == DT_F32 ? 9 : 6, dtype_load_f64(type, data, i));
}

/* Reads a number at `at`; returns where it ended, NULL when there is none of that type. */
static const char *read_number(const char *at, dtype type, void *data, size_t i)
{
    char *end = NULL;
    if (dtype_is_float(type)) {
        double x = type == DT_F32 ? (double)strtof(at, &end) : strtod(at, &end);
        dtype_store_f64(type, data, i, x);
    } else {
        long long x = type == DT_U64 ? (long long)strtoull(at, &end, 10) : strtoll(at, &end, 10);
        dtype_store_i64(type, data, i, x);
        if (type != DT_U64 && dtype_load_i64(type, data, i) != x)
            return NULL;
    }
    return end == at ? NULL : end;
}

static bool reads_back(dtype type, const void *data, size_t i)
{
    char number[64];
    uint64_t again[1] = {0};
    size_t size = dtype_size(type);
    print_number(number, sizeof number, type, data, i);
    return read_number(number, type, again, 0) && memcmp((const char *)data + i * size, again, size) == 0;
}

static void print_hex(struct text *out, const unsigned char *data, size_t size)
{
    static const char digit[] = "0123456789abcdef";
    char line[256];
    text_put(out, "x\"");
    for (size_t i = 0; i < size;) {
        size_t n = 0;
        for (; i < size && n + 2 <= sizeof line; i++) {
            line[n++] = digit[data[i] >> 4];
            line[n++] = digit[data[i] & 15];
        }
        text_putn(out, line, n);
    }
    text_put(out, "\"");
}

void text_elements(struct text *out, dtype type, const void *data, size_t count)
{
    size_t size = dtype_size(type);
    char number[64];
    bool equal = count > 1 && count * size <= repeated_limit, exact = count <= LISTED_ELEMENTS;
    for (size_t i = 1; i < count && equal; i++)
        equal = memcmp(data, (const char *)data + i * size, size) == 0;
    for (size_t i = 0; i < count && (exact || (equal && i == 0)); i++)
        exact = reads_back(type, data, i) && (exact || i == 0);
    if (equal && exact) {
        print_number(number, sizeof number, type, data, 0);
        text_printf(out, "all(%s)", number);
        return;
    }
    if (!exact) {
        print_hex(out, data, count * size);
        return;
    }
    text_put(out, "[");
    for (size_t i = 0; i < count; i++) {
        print_number(number, sizeof number, type, data, i);
        text_put(out, i ? ", " : "");
        text_put(out, number);
    }
    text_put(out, "]");
}

/* One number of the text, through a terminated copy. */
static bool lex_number(struct lexer *l, dtype type, void *data, size_t i)
{
    char number[64];
    size_t n = 0;
    skip_blanks(l);
    for (const char *c = l->at; c < l->end && n + 1 < sizeof number && (is_word_part(*c) || *c == '-' || *c == '+');
         c++)
        number[n++] = *c;
    number[n] = '\0';
    const char *end = n ? read_number(number, type, data, i) : NULL;
    if (!end || *end)
        return lex_fail(l, "expected a number of type %s", dtype_name(type));
    l->at += n;
    return true;
}

static bool lex_hex(struct lexer *l, unsigned char *data, size_t size)
{
    size_t i = 0;
    for (; l->end - l->at >= 2 && i < size; i++, l->at += 2) {
        int high = hex_value(l->at[0]), low = hex_value(l->at[1]);
        if (high < 0 || low < 0)
            break;
        data[i] = (unsigned char)(high * 16 + low);
    }
    return (i == size && l->at < l->end && *l->at == '"') ? (l->at++, true) : lex_fail(l, "expected %zu bytes", size);
}

/* all(x): x, count times. */
static bool lex_repeated(struct lexer *l, dtype type, size_t count, char *data, size_t size)
{
    l->repeated += size;
    if (count == 0 || l->repeated > repeated_total)
        return lex_fail(l, "too many repeated elements");
    if (!lex_number(l, type, data, 0))
        return false;
    for (size_t i = 1; i < count; i++)
        memcpy(data + i * (size / count), data, size / count);
    return lex_expect(l, ")");
}

bool lex_elements(struct lexer *l, dtype type, size_t count, const void **out, size_t *size)
{
    bool hex = lex_accept(l, "x\""), all = !hex && lex_accept(l, "all(");
    if (!hex && !all && !lex_expect(l, "["))
        return false;
    size_t most = all ? repeated_limit : (size_t)(l->end - l->at) * 8; /* an element takes at least a character */
    if (!size_mul(count, dtype_size(type), size) || *size > most)
        return lex_fail(l, "fewer elements than the shape has");
    char *data = arena_alloc(l->arena, *size ? *size : 1);
    *out = data;
    if (hex)
        return lex_hex(l, (unsigned char *)data, *size);
    if (all)
        return lex_repeated(l, type, count, data, *size);
    for (size_t i = 0; i < count; i++)
        if ((i && !lex_expect(l, ",")) || !lex_number(l, type, data, i))
            return false;
    return lex_expect(l, "]");
}
