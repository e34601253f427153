/* ir/base.h - what every room stands on: status codes, diagnostics, arenas, growable lists, checked sizes.
 *
 * Invariant: nothing below a guard (guard_run) checks an allocation. An arena that cannot give memory unwinds to
 * the innermost guard of its thread, which returns TPC_NOMEM; whoever owns the arena then frees it, and that releases
 * what was deferred on it. Code that holds anything but arena memory (a file, a mapping, a malloc'd library object)
 * registers it with arena_defer at once.
 *
 * Sections: status and diagnostics (diag.c), arena, lists and guards (arena.c), checked sizes (inline),
 * strings (string.c).
 */
#ifndef TPC_IR_BASE_H
#define TPC_IR_BASE_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#if defined(__GNUC__)
#define TPC_PRINTF(fmt, args) __attribute__((format(printf, fmt, args)))
#define TPC_NORETURN __attribute__((noreturn))
#else
#define TPC_PRINTF(fmt, args)
#define TPC_NORETURN
#endif

/* ---- status and diagnostics: diag.c ------------------------------------------------------------------------ */

/* A status is the process's exit code (sysexits.h where it has one). Functions that can fail return one. */
typedef enum status {
    TPC_OK = 0,
    TPC_DIFFERENT = 1,    /* verify found a difference */
    TPC_USAGE = 64,       /* bad command line */
    TPC_DATA = 65,        /* bad model, plan or tensor */
    TPC_NOINPUT = 66,     /* no such file */
    TPC_UNSUPPORTED = 69, /* a valid model that needs what tpc does not have */
    TPC_INTERNAL = 70,    /* our own bug, or a generated kernel that does not compile */
    TPC_NOMEM = 71,       /* out of memory */
    TPC_IO = 74,          /* read or write failed */
    TPC_RANKS = 75        /* ranks that are processes did not come together, or one was lost */
} status;

typedef enum severity { DIAG_NOTE, DIAG_WARNING, DIAG_ERROR } severity;

/* Where diagnostics go. `sink` gets one finished line without newline ("model.onnx: node 17 'up' (MatMul): error:
 * ..."); NULL prints to stderr. Not thread-safe: a rank thread collects and its owner reports. */
struct diag {
    void (*sink)(void *user, severity level, const char *line);
    void *user;
    unsigned errors, warnings;
};

/* Prints "WHERE: error: TEXT" and returns `code`, so that callers write `return diag_error(d, TPC_DATA, where, ...)`.
 * WHERE is NULL or "" when there is no place to name (then "tpc: error: TEXT"). A line is cut at 1000 bytes, and
 * control characters that came from a file are printed as \xNN. `d` may be NULL (counts nothing, prints to stderr). */
status diag_error(struct diag *d, status code, const char *where, const char *format, ...) TPC_PRINTF(4, 5);
void diag_warning(struct diag *d, const char *where, const char *format, ...) TPC_PRINTF(3, 4);
void diag_note(struct diag *d, const char *where, const char *format, ...) TPC_PRINTF(3, 4);

/* ---- arena, guards, lists: arena.c -------------------------------------------------------------------------- */

struct arena; /* grows by chunks; memory is zeroed, aligned to 16; never moves; freed at once */

struct arena_mark {
    void *chunk;
    size_t used;
    size_t deferred;
};

/* NULL when out of memory (the only arena call that can say so). */
struct arena *arena_new(void);
/* An arena for temporaries that dies with its owner at the latest, so that an unwind does not leak it; arena_free may
 * end it earlier. Never NULL, as arena_alloc. */
struct arena *arena_new_in(struct arena *owner);
/* Runs the deferred releases, newest first, and frees all. NULL is allowed. */
void arena_free(struct arena *arena);
/* size 0 gives a unique valid pointer. Never NULL: unwinds to the guard (guard_run), or aborts with a message where
 * there is none. */
void *arena_alloc(struct arena *arena, size_t size);
void *arena_array(struct arena *arena, size_t count, size_t size); /* checked count * size */
void *arena_copy(struct arena *arena, const void *bytes, size_t size);
char *arena_strdup(struct arena *arena, const char *text);
char *arena_strndup(struct arena *arena, const char *text, size_t length);
/* Length of the well-formed UTF-8 sequence at s[0..n), 1 to 4, or 0: not well-formed, or a control character. (diag.c) */
size_t printable_length(const unsigned char *s, size_t n);
/* As diagnostics show it: what is not printable as \xNN, so that names from a file are safe on a terminal, and one line. */
const char *arena_printable(struct arena *arena, const char *text);
char *arena_printf(struct arena *arena, const char *format, ...) TPC_PRINTF(2, 3);
/* release(object) will be called by arena_free or by a rewind past this point, or now if even this cannot be noted
 * (then it unwinds): in every case the caller need not release the object any more. */
void arena_defer(struct arena *arena, void (*release)(void *object), void *object);
struct arena_mark arena_mark(struct arena *arena);
/* Gives back all that was allocated since the mark and runs what was deferred since. */
void arena_rewind(struct arena *arena, struct arena_mark mark);
size_t arena_bytes(const struct arena *arena); /* bytes held, for limits and reports */

#define NEW(arena, type) ((type *)arena_alloc((arena), sizeof(type)))
#define NEW_ARRAY(arena, type, count) ((type *)arena_array((arena), (size_t)(count), sizeof(type)))

/* Runs body(context) such that an allocation failure in it, on this thread, comes back as TPC_NOMEM (one diagnostic
 * is printed). Guards nest. What body allocated outside arenas must have been deferred on an arena that the caller frees. */
status guard_run(struct diag *diag, status (*body)(void *context), void *context);
/* Leaves the innermost guard with TPC_NOMEM. For wrappers of libraries that failed to allocate. */
TPC_NORETURN void guard_out_of_memory(size_t wanted);

/* All malloc-like calls of tpc go through these two, so that a test can fail the N-th: base_fail_after(N) makes the N-th
 * allocation from now fail (and all later ones), 0 turns that off. base_alloc may return NULL. */
void *base_alloc(size_t size); /* zeroed */
void base_free(void *pointer);
void base_fail_after(uint64_t count);

/* A list: struct { TYPE *at; uint32_t count, capacity; }. PUSH returns a pointer to the new, zeroed last element, which is
 * good until the next PUSH. `list` is evaluated several times. */
#define LIST(type)                                                                                                     \
    struct {                                                                                                           \
        type *at;                                                                                                      \
        uint32_t count, capacity;                                                                                      \
    }
#define PUSH(arena, list)                                                                                              \
    ((list)->count == (list)->capacity                                                                                 \
         ? (void)((list)->at = list_grow((arena), (list)->at, &(list)->capacity, (list)->count, sizeof *(list)->at))   \
         : (void)0,                                                                                                    \
     (void)memset((void *)&(list)->at[(list)->count], 0, sizeof *(list)->at), &(list)->at[(list)->count++])
void *list_grow(struct arena *arena, void *at, uint32_t *capacity, uint32_t count, size_t element);

/* ---- checked sizes: inline ---------------------------------------------------------------------------------- */

/* Each returns false on overflow and then leaves *out alone. */
static inline bool size_add(size_t a, size_t b, size_t *out)
{
    size_t r;
    if (__builtin_add_overflow(a, b, &r))
        return false;
    *out = r;
    return true;
}
static inline bool size_mul(size_t a, size_t b, size_t *out)
{
    size_t r;
    if (__builtin_mul_overflow(a, b, &r))
        return false;
    *out = r;
    return true;
}
static inline bool i64_add(int64_t a, int64_t b, int64_t *out)
{
    int64_t r;
    if (__builtin_add_overflow(a, b, &r))
        return false;
    *out = r;
    return true;
}
static inline bool i64_sub(int64_t a, int64_t b, int64_t *out)
{
    int64_t r;
    if (__builtin_sub_overflow(a, b, &r))
        return false;
    *out = r;
    return true;
}
static inline bool i64_mul(int64_t a, int64_t b, int64_t *out)
{
    int64_t r;
    if (__builtin_mul_overflow(a, b, &r))
        return false;
    *out = r;
    return true;
}

static inline uint64_t u64_gcd(uint64_t a, uint64_t b)
{
    while (b) {
        uint64_t r = a % b;
        a = b;
        b = r;
    }
    return a;
}

/* ---- strings: string.c -------------------------------------------------------------------------------------- */

/* A growing text in an arena. */
struct text {
    struct arena *arena;
    char *at; /* always terminated once anything was put */
    size_t length, capacity;
};
void text_put(struct text *t, const char *s);
void text_putn(struct text *t, const char *s, size_t length);
void text_printf(struct text *t, const char *format, ...) TPC_PRINTF(2, 3);

/* A map from byte strings to uint32_t, open addressing, in an arena. A zeroed struct with `arena` set is empty. */
struct map {
    struct arena *arena;
    struct map_slot *slot;
    uint32_t count, capacity;
};
/* Pointer to the value, NULL when absent. Keys are copied by map_put. */
uint32_t *map_find(const struct map *m, const void *key, size_t length);
/* Finds or adds (added with value 0 and *added = true). `added` may be NULL. */
uint32_t *map_put(struct map *m, const void *key, size_t length, bool *added);

uint64_t hash_bytes(const void *bytes, size_t length, uint64_t seed); /* XXH3 64 bit */

#endif
