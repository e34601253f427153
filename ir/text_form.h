/* ir/text_form.h - the tokens of the text forms (docs/text-form.md): what the printers and parsers of dims, graphs and programs share.
 *
 * A text is words, numbers, quoted strings and punctuation; "#" starts a comment that ends with the line; blanks and ends of lines separate and
 * mean nothing else. The first failure is reported with line and column; after it every function returns at once and nothing is accepted.
 *
 * Section: text_lex.c
 */
#ifndef TPC_IR_TEXT_FORM_H
#define TPC_IR_TEXT_FORM_H

#include "ir/dim.h"
#include "ir/dtype.h"

/* "text" with \" \\ and \xNN for what is not printable ASCII. */
void text_quote(struct text *out, const char *bytes, size_t length);
/* Parses such a string at *cursor (which is at the opening quote) and moves it past. false: malformed. *out is terminated. */
bool text_unquote(const char **cursor, const char *end, struct arena *arena, char **out, size_t *length);
/* A word that needs no quotes: [A-Za-z_][A-Za-z0-9_.]* */
bool text_is_word(const char *s);

struct lexer {
    const char *start, *at, *end;
    const char *name; /* of the text, for messages */
    struct arena *arena;
    struct diag *diag;
    bool failed;
    size_t repeated; /* bytes that all(...) has stood for */
};

struct lexer lexer_over(struct arena *arena, const char *name, const char *text, size_t length, struct diag *diag);
/* Reports "NAME:LINE:COLUMN: error: ..." once; returns false. */
bool lex_fail(struct lexer *l, const char *format, ...) TPC_PRINTF(2, 3);
bool lex_end(struct lexer *l);                       /* nothing but blanks is left */
bool lex_peek(struct lexer *l, const char *token);   /* is this word or punctuation next? */
bool lex_accept(struct lexer *l, const char *token); /* ... and then moves past it */
bool lex_expect(struct lexer *l, const char *token); /* ... or fails */
/* The next word, not copied; false (without failing) when there is none. */
bool lex_word(struct lexer *l, const char **word, size_t *length);
bool lex_i64(struct lexer *l, int64_t *out);  /* decimal with optional sign; fails when not there or too large */
bool lex_u64(struct lexer *l, uint64_t *out); /* decimal or 0x hexadecimal */
bool lex_u32(struct lexer *l, uint32_t *out);
bool lex_string(struct lexer *l, const char **out);      /* quoted, without NUL; fails when not there */
bool lex_dim(struct lexer *l, struct dims *t, dim *out); /* fails on a syntax error or an invalid dim */
/* "[d, d, ...]": at most `limit` dims. */
bool lex_shape(struct lexer *l, struct dims *t, uint32_t limit, uint32_t *count, const dim **out);
/* "f32[d, d]" */
bool lex_type(struct lexer *l, struct dims *t, uint32_t limit, dtype *type, uint32_t *rank, const dim **shape);

void text_shape(struct text *out, const struct dims *t, uint32_t rank, const dim *shape); /* "[d, d]" */

/* Elements of a tensor: "[1, 2, 3]" (numbers that read back as the same bits), "all(0)" when equal, or x"0a0b..." (bytes as stored) where there
 * are many or a number would lose bits (NaNs). Parsing wants exactly `count` elements. */
void text_elements(struct text *out, dtype type, const void *data, size_t count);
bool lex_elements(struct lexer *l, dtype type, size_t count, const void **out, size_t *size);

#endif
