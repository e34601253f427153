/* ir/program_place.c - sizes of a Program's buffers, and where temporaries lie in the arena.
 *
 * First fit by size over live ranges: the largest buffer first, each at the lowest offset that is free among those placed before whose live
 * ranges meet its own. A tree over the steps finds those: a range is noted at the few nodes that make it up, and beneath every node above them,
 * so that a buffer looks at what meets it and not at all others. Start with program_place.
 */
#include "ir/program.h"

#include <stdlib.h>

bool buffer_bytes(const struct program *p, uint32_t buffer, const int64_t *of, uint64_t *bytes)
{
    const struct buffer *b = &p->buffers.at[buffer];
    int64_t elements, size;
    if (!dim_eval(p->graph->dims, b->elements, of, &elements) || elements < 0 ||
        !i64_mul(elements, (int64_t)dtype_size(b->type), &size))
        return false;
    *bytes = (uint64_t)size;
    return true;
}

struct request {
    uint64_t bytes;
    uint32_t buffer, first, last; /* steps */
    uint32_t seen;                /* by request number + 1 */
};

struct taken {
    uint64_t begin, end;
};

struct note { /* request, in the list of a node */
    uint32_t request, next;
};

struct placer {
    struct arena *arena;
    struct request *request;
    uint64_t *at;         /* per request: its offset */
    uint32_t leaves;      /* a power of two; node 1 is the root, node n has 2n and 2n + 1 beneath it */
    uint32_t *own, *deep; /* per node: 1 + first note of a range that it is part of; that lies beneath it */
    LIST(struct note) notes;
    struct taken *taken;
    uint32_t taken_count;
};

static void put_note(struct placer *p, uint32_t *list, uint32_t request)
{
    *PUSH(p->arena, &p->notes) = (struct note){request, *list};
    *list = p->notes.count;
}

static void collect(struct placer *p, uint32_t list, uint32_t asking)
{
    for (; list != 0; list = p->notes.at[list - 1].next) {
        struct request *r = &p->request[p->notes.at[list - 1].request];
        if (r->seen == asking + 1)
            continue;
        r->seen = asking + 1;
        uint64_t begin = p->at[p->notes.at[list - 1].request];
        p->taken[p->taken_count++] = (struct taken){begin, begin + r->bytes};
    }
}

/* The nodes that make up [first, last], left to right; at most two per level. */
static uint32_t nodes_of(const struct placer *p, const struct request *r, uint32_t node[64])
{
    uint32_t count = 0;
    for (uint32_t low = r->first + p->leaves, high = r->last + p->leaves + 1; low < high; low >>= 1, high >>= 1) {
        if (low & 1)
            node[count++] = low++;
        if (high & 1)
            node[count++] = --high;
    }
    return count;
}

/* What was placed and meets request i in time. */
static void find_taken(struct placer *p, uint32_t i)
{
    uint32_t node[64], count = nodes_of(p, &p->request[i], node);
    p->taken_count = 0;
    for (uint32_t k = 0; k < count; k++) {
        collect(p, p->deep[node[k]], i);
        for (uint32_t up = node[k]; up != 0; up >>= 1)
            collect(p, p->own[up], i);
    }
}

static void note_placed(struct placer *p, uint32_t i)
{
    uint32_t node[64], count = nodes_of(p, &p->request[i], node);
    for (uint32_t k = 0; k < count; k++) {
        put_note(p, &p->own[node[k]], i);
        for (uint32_t up = node[k] >> 1; up != 0; up >>= 1)
            if (p->deep[up] == 0 || p->notes.at[p->deep[up] - 1].request != i) /* once is enough */
                put_note(p, &p->deep[up], i);
    }
}

static int by_begin(const void *a, const void *b)
{
    const struct taken *x = a, *y = b;
    return (x->begin > y->begin) - (x->begin < y->begin);
}

/* The lowest offset with `size` bytes free between what is taken. */
static bool first_gap(struct placer *p, uint64_t size, uint64_t *offset)
{
    uint64_t at = 0, end;
    if (p->taken_count != 0)
        qsort(p->taken, p->taken_count, sizeof *p->taken, by_begin);
    for (uint32_t i = 0; i < p->taken_count; i++) {
        if (p->taken[i].begin >= at && p->taken[i].begin - at >= size)
            break;
        at = p->taken[i].end > at ? p->taken[i].end : at;
    }
    *offset = at;
    return !__builtin_add_overflow(at, size, &end) && end <= INT64_MAX;
}

static int by_size(const void *a, const void *b)
{
    const struct request *x = a, *y = b;
    if (x->bytes != y->bytes)
        return x->bytes < y->bytes ? 1 : -1;
    return (x->buffer > y->buffer) - (x->buffer < y->buffer);
}

/* The temporaries that are used at all, largest first. */
static bool find_requests(struct placer *p, const struct program *program, const int64_t *of, uint64_t align,
                          uint32_t *count)
{
    uint32_t steps = program->steps.count;
    for (uint32_t i = 0; i < program->buffers.count; i++) {
        const struct buffer *b = &program->buffers.at[i];
        struct request *r = &p->request[*count];
        if (b->kind != BUFFER_TEMP || b->first > b->last || b->first >= steps)
            continue;
        *r = (struct request){.buffer = i, .first = b->first, .last = b->last < steps ? b->last : steps - 1};
        if (!buffer_bytes(program, i, of, &r->bytes) || r->bytes > (uint64_t)INT64_MAX - align)
            return false;
        r->bytes = (r->bytes + align - 1) & ~(align - 1);
        ++*count;
    }
    if (*count != 0)
        qsort(p->request, *count, sizeof *p->request, by_size);
    for (p->leaves = 1; p->leaves < steps;)
        p->leaves *= 2;
    return true;
}

bool program_place(const struct program *program, const int64_t *of, struct arena *scratch, uint64_t *offset,
                   uint64_t *arena_bytes)
{
    return program_place_aligned(program, of, 64, scratch, offset, arena_bytes);
}

bool program_place_aligned(const struct program *program, const int64_t *of, uint64_t align, struct arena *scratch,
                           uint64_t *offset, uint64_t *arena_bytes)
{
    uint32_t total = program->buffers.count, count = 0;
    struct arena_mark mark = arena_mark(scratch);
    struct placer p = {.arena = scratch};
    p.request = NEW_ARRAY(p.arena, struct request, total + 1);
    p.taken = NEW_ARRAY(p.arena, struct taken, total + 1);
    p.at = NEW_ARRAY(p.arena, uint64_t, total + 1);
    bool ok = find_requests(&p, program, of, align, &count);
    p.own = NEW_ARRAY(p.arena, uint32_t, 2 * (size_t)p.leaves + 1);
    p.deep = NEW_ARRAY(p.arena, uint32_t, 2 * (size_t)p.leaves + 1);
    *arena_bytes = 0;
    for (uint32_t i = 0; i < total; i++)
        offset[i] = UINT64_MAX;
    for (uint32_t i = 0; i < count && ok; i++) {
        find_taken(&p, i);
        ok = first_gap(&p, p.request[i].bytes, &p.at[i]);
        note_placed(&p, i);
        uint64_t end = p.at[i] + p.request[i].bytes;
        offset[p.request[i].buffer] = p.at[i];
        *arena_bytes = end > *arena_bytes ? end : *arena_bytes;
    }
    arena_rewind(scratch, mark);
    return ok;
}
