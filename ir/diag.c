/* ir/diag.c - diagnostics: one finished line per message, safe to print whatever a model file contained.
 *
 * Invariant: what reaches a sink or stderr is one line of at most LINE_LIMIT bytes, valid UTF-8 without control
 * characters, however long or hostile the names in it were. Nothing here allocates, so that "out of memory" can be
 * said. Start with `report`.
 */
#include "ir/base.h"

enum { LINE_LIMIT = 1000 };

size_t printable_length(const unsigned char *s, size_t n)
{
    if (s[0] < 0x80)
        return s[0] >= 0x20 && s[0] != 0x7f;
    size_t length = s[0] >= 0xf0 ? 4 : s[0] >= 0xe0 ? 3 : 2;
    if (s[0] < 0xc2 || s[0] > 0xf4 || length > n)
        return 0;
    for (size_t i = 1; i < length; i++)
        if ((s[i] & 0xc0) != 0x80)
            return 0;
    bool overlong = (s[0] == 0xe0 && s[1] < 0xa0) || (s[0] == 0xf0 && s[1] < 0x90);
    bool surrogate = s[0] == 0xed && s[1] > 0x9f;
    bool beyond = s[0] == 0xf4 && s[1] > 0x8f;
    bool control = s[0] == 0xc2 && s[1] < 0xa0; /* U+0080 to U+009F: terminals obey some of them */
    return overlong || surrogate || beyond || control ? 0 : length;
}

/* Copies raw to line, bytes that are not printable as \xNN; what does not fit is replaced by "...". */
static void escape_line(char line[LINE_LIMIT + 1], const char *raw, size_t length)
{
    static const char digits[] = "0123456789abcdef";
    size_t used = 0, last_fit = 0; /* last_fit: where "..." can stand */
    for (size_t i = 0; i < length;) {
        const unsigned char *s = (const unsigned char *)raw + i;
        size_t plain = printable_length(s, length - i);
        char piece[4] = {'\\', 'x', digits[s[0] >> 4], digits[s[0] & 15]};
        size_t piece_length = plain ? plain : sizeof piece;
        if (used + piece_length > LINE_LIMIT) {
            memcpy(line + last_fit, "...", 3);
            used = last_fit + 3;
            break;
        }
        memcpy(line + used, plain ? (const char *)s : piece, piece_length);
        used += piece_length;
        i += plain ? plain : 1;
        if (used + 3 <= LINE_LIMIT)
            last_fit = used;
    }
    line[used] = 0;
}

static void report(struct diag *d, severity level, const char *where, const char *format, va_list args)
    TPC_PRINTF(4, 0);
static void report(struct diag *d, severity level, const char *where, const char *format, va_list args)
{
    static const char *const names[] = {[DIAG_NOTE] = "note", [DIAG_WARNING] = "warning", [DIAG_ERROR] = "error"};
    /* Four bytes more than a line holds: enough for escape_line to see that something was cut. */
    char raw[LINE_LIMIT + 5], line[LINE_LIMIT + 1];
    int head = snprintf(raw, sizeof raw, "%s: %s: ", where && *where ? where : "tpc", names[level]);
    size_t length = head < 0 ? 0 : (size_t)head;
    if (length < sizeof raw) {
        int tail = vsnprintf(raw + length, sizeof raw - length, format, args);
        length += tail < 0 ? 0 : (size_t)tail;
    }
    if (length >= sizeof raw)
        length = sizeof raw - 1;
    escape_line(line, raw, length);

    if (d && level == DIAG_ERROR)
        d->errors++;
    if (d && level == DIAG_WARNING)
        d->warnings++;
    if (d && d->sink)
        d->sink(d->user, level, line);
    else
        fprintf(stderr, "%s\n", line);
}

status diag_error(struct diag *d, status code, const char *where, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    report(d, DIAG_ERROR, where, format, args);
    va_end(args);
    return code;
}

void diag_warning(struct diag *d, const char *where, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    report(d, DIAG_WARNING, where, format, args);
    va_end(args);
}

void diag_note(struct diag *d, const char *where, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    report(d, DIAG_NOTE, where, format, args);
    va_end(args);
}
