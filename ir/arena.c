/* ir/arena.c - memory: the two malloc-like calls, guards, arenas, growable lists.
 *
 * Invariant: the free part of every chunk is zero, so arena_alloc never clears; a rewind clears what it gives back. Under
 * AddressSanitizer the free part is also poisoned and each object is followed by a red zone, so that a use after a rewind
 * and a write past an object are found as they are with malloc. Start with `take`.
 */
#include "ir/base.h"

#include <assert.h>
#include <setjmp.h>
#include <stdatomic.h>
#include <stdlib.h>

#if defined(__SANITIZE_ADDRESS__)
#define ARENA_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define ARENA_ASAN 1
#endif
#endif

#ifdef ARENA_ASAN
#include <sanitizer/asan_interface.h>
enum { RED_ZONE = 16 };
#define poison(address, size) ASAN_POISON_MEMORY_REGION((address), (size))
#define unpoison(address, size) ASAN_UNPOISON_MEMORY_REGION((address), (size))
#else
enum { RED_ZONE = 0 };
#define poison(address, size) ((void)(address), (void)(size))
#define unpoison(address, size) ((void)(address), (void)(size))
#endif

enum { ALIGNMENT = 16, SMALLEST_CHUNK = 4 << 10, LARGEST_CHUNK = 1 << 20 };

/* ---- malloc-like calls -------------------------------------------------------------------------------------- */

static _Atomic uint64_t fail_countdown; /* 0: off; 1: the next allocation fails, and it stays 1 */

void base_fail_after(uint64_t count)
{
    atomic_store(&fail_countdown, count);
}

static bool must_fail(void)
{
    uint64_t left = atomic_load_explicit(&fail_countdown, memory_order_relaxed);
    while (left > 1)
        if (atomic_compare_exchange_weak(&fail_countdown, &left, left - 1))
            return false;
    return left == 1;
}

void *base_alloc(size_t size)
{
    return must_fail() ? NULL : calloc(1, size ? size : 1);
}

void base_free(void *pointer)
{
    free(pointer);
}

/* ---- guards ------------------------------------------------------------------------------------------------- */

struct guard {
    jmp_buf resume;
    struct guard *outer;
};

static _Thread_local struct guard *innermost;
static _Thread_local size_t wanted_bytes; /* by the allocation that failed; not in the frame that setjmp returns to */

status guard_run(struct diag *diag, status (*body)(void *context), void *context)
{
    struct guard guard = {.outer = innermost};
    if (setjmp(guard.resume)) { /* guard_out_of_memory has restored `innermost` */
        return diag_error(diag, TPC_NOMEM, NULL, "out of memory: %zu more bytes were wanted", wanted_bytes);
    }
    innermost = &guard;
    status result = body(context);
    innermost = guard.outer;
    return result;
}

void guard_out_of_memory(size_t wanted)
{
    struct guard *guard = innermost;
    if (!guard) {
        diag_error(NULL, TPC_NOMEM, NULL, "out of memory: %zu more bytes were wanted, outside of any guard", wanted);
        abort();
    }
    wanted_bytes = wanted;
    innermost = guard->outer;
    longjmp(guard->resume, 1);
}

/* ---- arenas ------------------------------------------------------------------------------------------------- */

struct chunk {
    struct chunk *previous;
    size_t size, used; /* of the bytes that follow this header */
    size_t padding;    /* keeps them aligned */
};
static_assert(sizeof(struct chunk) % ALIGNMENT == 0, "what follows a chunk's header must be aligned");

struct deferred {
    struct deferred *previous;
    void (*release)(void *object);
    void *object;
};

struct arena {
    struct chunk *chunk; /* the newest; NULL before the first allocation */
    struct chunk *spare; /* one that a rewind has emptied, so that search does not go to malloc at each step */
    struct deferred *deferred;
    size_t deferred_count;
    size_t bytes;
    struct deferred *registration; /* in the owner's arena (arena_new_in) */
};

static char *chunk_bytes(struct chunk *chunk)
{
    return (char *)(chunk + 1);
}

static struct chunk *chunk_new(struct arena *arena, size_t size)
{
    struct chunk *chunk = arena->spare;
    if (chunk && chunk->size >= size) {
        arena->spare = NULL;
        return chunk;
    }
    /* As much again as is held, within bounds: few chunks in large arenas, little waste in small ones. */
    size_t usual = arena->bytes < SMALLEST_CHUNK ? SMALLEST_CHUNK : arena->bytes;
    usual = usual > LARGEST_CHUNK ? LARGEST_CHUNK : usual;
    size_t capacity = size > usual - sizeof *chunk ? size : usual - sizeof *chunk;
    chunk = base_alloc(sizeof *chunk + capacity);
    if (!chunk)
        return NULL;
    chunk->size = capacity;
    arena->bytes += sizeof *chunk + capacity;
    poison(chunk_bytes(chunk), capacity);
    return chunk;
}

static void chunk_free(struct arena *arena, struct chunk *chunk)
{
    if (!chunk)
        return;
    arena->bytes -= sizeof *chunk + chunk->size;
    unpoison(chunk_bytes(chunk), chunk->size);
    base_free(chunk);
}

/* Gives the bytes of the chunk from `used` on back, cleared. */
static void chunk_cut(struct chunk *chunk, size_t used)
{
    char *from = chunk_bytes(chunk) + used;
    size_t length = chunk->used - used;
    unpoison(from, length);
    memset(from, 0, length);
    poison(from, length);
    chunk->used = used;
}

/* NULL when out of memory. */
static void *take(struct arena *arena, size_t size)
{
    if (size > SIZE_MAX / 2)
        return NULL;
    size_t stride = ((size ? size : 1) + RED_ZONE + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    struct chunk *chunk = arena->chunk;
    if (!chunk || chunk->size - chunk->used < stride) {
        chunk = chunk_new(arena, stride);
        if (!chunk)
            return NULL;
        chunk->previous = arena->chunk;
        arena->chunk = chunk;
    }
    char *result = chunk_bytes(chunk) + chunk->used;
    chunk->used += stride;
    unpoison(result, size);
    return result;
}

struct arena *arena_new(void)
{
    return base_alloc(sizeof(struct arena));
}

static void release_arena(void *object)
{
    if (!object) /* freed before its owner was */
        return;
    struct arena *arena = object;
    arena->registration = NULL;
    arena_free(arena);
}

struct arena *arena_new_in(struct arena *owner)
{
    struct arena *arena = arena_new();
    if (!arena)
        guard_out_of_memory(sizeof *arena);
    arena_defer(owner, release_arena, arena);
    arena->registration = owner->deferred;
    return arena;
}

void arena_free(struct arena *arena)
{
    if (!arena)
        return;
    if (arena->registration)
        arena->registration->object = NULL;
    arena_rewind(arena, (struct arena_mark){0});
    chunk_free(arena, arena->spare);
    base_free(arena);
}

void *arena_alloc(struct arena *arena, size_t size)
{
    void *result = take(arena, size);
    if (!result)
        guard_out_of_memory(size);
    return result;
}

void *arena_array(struct arena *arena, size_t count, size_t size)
{
    size_t bytes = SIZE_MAX;
    if (!size_mul(count, size, &bytes))
        guard_out_of_memory(SIZE_MAX);
    return arena_alloc(arena, bytes);
}

void *arena_copy(struct arena *arena, const void *bytes, size_t size)
{
    void *result = arena_alloc(arena, size);
    if (size)
        memcpy(result, bytes, size);
    return result;
}

char *arena_strdup(struct arena *arena, const char *text)
{
    return arena_copy(arena, text, strlen(text) + 1);
}

char *arena_strndup(struct arena *arena, const char *text, size_t length)
{
    size_t size = SIZE_MAX;
    if (!size_add(length, 1, &size))
        guard_out_of_memory(SIZE_MAX);
    char *result = arena_alloc(arena, size); /* zeroed, so terminated */
    if (length)
        memcpy(result, text, length);
    return result;
}

char *arena_printf(struct arena *arena, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    int length = vsnprintf(NULL, 0, format, args);
    va_end(args);
    if (length < 0) /* more than INT_MAX bytes */
        guard_out_of_memory(SIZE_MAX);
    char *result = arena_alloc(arena, (size_t)length + 1);
    va_start(args, format);
    vsnprintf(result, (size_t)length + 1, format, args);
    va_end(args);
    return result;
}

void arena_defer(struct arena *arena, void (*release)(void *object), void *object)
{
    struct deferred *deferred = take(arena, sizeof *deferred);
    if (!deferred) { /* the object is ours already: nobody else could release it after the unwind */
        release(object);
        guard_out_of_memory(sizeof *deferred);
    }
    *deferred = (struct deferred){.previous = arena->deferred, .release = release, .object = object};
    arena->deferred = deferred;
    arena->deferred_count++;
}

struct arena_mark arena_mark(struct arena *arena)
{
    return (struct arena_mark){
        .chunk = arena->chunk,
        .used = arena->chunk ? arena->chunk->used : 0,
        .deferred = arena->deferred_count,
    };
}

void arena_rewind(struct arena *arena, struct arena_mark mark)
{
    while (arena->deferred_count > mark.deferred) { /* these lie in the chunks that go below */
        struct deferred *deferred = arena->deferred;
        arena->deferred = deferred->previous;
        arena->deferred_count--;
        deferred->release(deferred->object);
    }
    while (arena->chunk != mark.chunk) {
        struct chunk *chunk = arena->chunk;
        assert(chunk && "the mark is of another arena, or was itself given back");
        arena->chunk = chunk->previous;
        if (arena->spare && arena->spare->size >= chunk->size) {
            chunk_free(arena, chunk);
            continue;
        }
        chunk_free(arena, arena->spare);
        chunk_cut(chunk, 0);
        arena->spare = chunk;
    }
    if (arena->chunk)
        chunk_cut(arena->chunk, mark.used);
}

size_t arena_bytes(const struct arena *arena)
{
    return sizeof *arena + arena->bytes;
}

/* ---- lists -------------------------------------------------------------------------------------------------- */

void *list_grow(struct arena *arena, void *at, uint32_t *capacity, uint32_t count, size_t element)
{
    if (*capacity == UINT32_MAX)
        guard_out_of_memory(SIZE_MAX);
    uint32_t larger = *capacity < 4 ? 4 : *capacity > UINT32_MAX / 2 ? UINT32_MAX : *capacity * 2;
    void *result = arena_array(arena, larger, element);
    if (count)
        memcpy(result, at, count * element);
    *capacity = larger;
    return result;
}
