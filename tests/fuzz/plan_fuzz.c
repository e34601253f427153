/* tests/fuzz/plan_fuzz.c - any bytes as a plan: refused or read, never more. The checksums are mended first, so that mutations get past them; one
 * input in two is tried as it is. */
#include "runtime/plan.h"

#include <stdlib.h>

static void swallow(void *user, severity level, const char *line)
{
    (void)user;
    (void)level;
    (void)line;
}

/* Makes header, table and checksums fit what is there. */
static void mend(unsigned char *b, size_t length)
{
    memcpy(b, plan_magic, sizeof plan_magic);
    put_little(b + 8, PLAN_VERSION, 4);
    put_little(b + 12, SECTIONS, 4);
    put_little(b + 16, length, 8);
    memset(b + 32, 0, PLAN_HEADER - 32);
    size_t at = PLAN_TABLE;
    for (uint32_t i = 0; i < SECTIONS; i++) {
        unsigned char *entry = b + PLAN_HEADER + i * PLAN_ENTRY;
        size_t start = (at + PLAN_ALIGNMENT - 1) / PLAN_ALIGNMENT * PLAN_ALIGNMENT;
        start = start < length ? start : length;
        size_t size = (size_t)get_little(entry + 16, 8);
        if (i + 1 == SECTIONS || size > length - start)
            size = length - start;
        memset(b + at, 0, start - at);
        put_little(entry, i, 8);
        put_little(entry + 8, start, 8);
        put_little(entry + 16, size, 8);
        put_little(entry + 24, hash_bytes(b + start, size, 0), 8);
        at = start + size;
    }
    put_little(b + PLAN_HASH_AT, plan_table_hash(b), 8);
}

struct attempt {
    struct arena *arena;
    const void *bytes;
    size_t length;
    struct diag diag;
};

static status parse(void *context)
{
    struct attempt *a = context;
    struct plan *plan = NULL;
    return plan_parse(a->arena, "plan", NULL, a->bytes, a->length, &a->diag, &plan);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    unsigned char *bytes = malloc(size + 8);
    if (size)
        memcpy(bytes, data, size);
    if (size > PLAN_TABLE && data[size - 1] % 2 == 0)
        mend(bytes, size);
    struct attempt a = {.arena = arena_new(), .bytes = bytes, .length = size, .diag = {.sink = swallow}};
    (void)guard_run(&a.diag, parse, &a);
    arena_free(a.arena);
    free(bytes);
    return 0;
}
