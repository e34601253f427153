/* ir/string.c - growing texts, the map from byte strings to numbers, hashing.
 *
 * Invariant: a map's table has a power of two of slots, at most three quarters taken, and is never iterated: the order of its
 * slots must not reach any output.
 */
#include "ir/base.h"

#include <xxhash.h>

uint64_t hash_bytes(const void *bytes, size_t length, uint64_t seed)
{
    return XXH3_64bits_withSeed(bytes, length, seed);
}

/* ---- text --------------------------------------------------------------------------------------------------- */

/* Makes room for `more` bytes and the terminator. */
static void reserve(struct text *t, size_t more)
{
    size_t need = SIZE_MAX;
    if (!size_add(t->length, more, &need) || !size_add(need, 1, &need))
        guard_out_of_memory(SIZE_MAX);
    if (need <= t->capacity)
        return;
    size_t capacity = t->capacity < 64 ? 64 : t->capacity;
    while (capacity < need)
        if (!size_mul(capacity, 2, &capacity))
            capacity = need;
    char *larger = arena_alloc(t->arena, capacity);
    if (t->length)
        memcpy(larger, t->at, t->length);
    t->at = larger;
    t->capacity = capacity;
}

void text_putn(struct text *t, const char *s, size_t length)
{
    reserve(t, length);
    if (length)
        memcpy(t->at + t->length, s, length);
    t->length += length;
    t->at[t->length] = 0;
}

void text_put(struct text *t, const char *s)
{
    text_putn(t, s, strlen(s));
}

void text_printf(struct text *t, const char *format, ...)
{
    va_list args;
    size_t room = t->capacity - t->length;
    va_start(args, format);
    int length = vsnprintf(room ? t->at + t->length : NULL, room, format, args);
    va_end(args);
    if (length < 0) /* more than INT_MAX bytes */
        guard_out_of_memory(SIZE_MAX);
    if ((size_t)length >= room) {
        reserve(t, (size_t)length);
        va_start(args, format);
        vsnprintf(t->at + t->length, (size_t)length + 1, format, args);
        va_end(args);
    }
    t->length += (size_t)length;
}

/* ---- map ---------------------------------------------------------------------------------------------------- */

struct map_slot {
    const void *key; /* NULL: free */
    size_t length;
    uint64_t hash;
    uint32_t value;
};

/* The slot that holds the key, or the free one where it would go. Needs a table that is not full. */
static struct map_slot *probe(const struct map *m, const void *key, size_t length, uint64_t hash)
{
    for (uint32_t i = (uint32_t)hash & (m->capacity - 1);; i = (i + 1) & (m->capacity - 1)) {
        struct map_slot *slot = &m->slot[i];
        if (!slot->key)
            return slot;
        if (slot->hash == hash && slot->length == length && (!length || !memcmp(slot->key, key, length)))
            return slot;
    }
}

static void grow(struct map *m)
{
    struct map larger = {.arena = m->arena, .count = m->count};
    if (m->capacity > UINT32_MAX / 2)
        guard_out_of_memory(SIZE_MAX);
    larger.capacity = m->capacity ? m->capacity * 2 : 16;
    larger.slot = NEW_ARRAY(m->arena, struct map_slot, larger.capacity);
    for (uint32_t i = 0; i < m->capacity; i++) {
        const struct map_slot *slot = &m->slot[i];
        if (slot->key)
            *probe(&larger, slot->key, slot->length, slot->hash) = *slot;
    }
    *m = larger;
}

uint32_t *map_find(const struct map *m, const void *key, size_t length)
{
    if (!m->count)
        return NULL;
    struct map_slot *slot = probe(m, key, length, hash_bytes(key, length, 0));
    return slot->key ? &slot->value : NULL;
}

uint32_t *map_put(struct map *m, const void *key, size_t length, bool *added)
{
    if (m->count >= m->capacity / 4 * 3)
        grow(m);
    uint64_t hash = hash_bytes(key, length, 0);
    struct map_slot *slot = probe(m, key, length, hash);
    if (added)
        *added = !slot->key;
    if (!slot->key) {
        const void *copy = arena_copy(m->arena, key, length);
        *slot = (struct map_slot){.key = copy, .length = length, .hash = hash};
        m->count++;
    }
    return &slot->value;
}

const char *arena_printable(struct arena *arena, const char *text)
{
    struct text t = {.arena = arena};
    size_t length = strlen(text);
    for (size_t i = 0; i < length;) {
        const unsigned char *s = (const unsigned char *)text + i;
        size_t plain = printable_length(s, length - i);
        if (plain)
            text_printf(&t, "%.*s", (int)plain, (const char *)s);
        else
            text_printf(&t, "\\x%02x", s[0]);
        i += plain ? plain : 1;
    }
    return t.at == NULL ? "" : t.at;
}
