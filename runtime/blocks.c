/* runtime/blocks.c - see blocks.h. */
#include "runtime/blocks.h"

static int64_t own(const int64_t *offset, uint32_t part)
{
    return offset[part + 1] - offset[part];
}

/* In a buffer whose two axes have these extents, from these places on; `run` bytes per element of the second axis. */
static struct block_side side(const struct comm_exchange *x, const int64_t extent[2], const int64_t start[2],
                              size_t run)
{
    size_t second = (size_t)extent[1] * run, between = (size_t)x->between * second;
    return (struct block_side){(size_t)start[0] * between + (size_t)start[1] * run,
                               {(size_t)extent[0] * between, between, second}};
}

void block_of(const struct comm_exchange *x, uint32_t parts, uint32_t p, uint32_t q, size_t size, struct block *out)
{
    const int64_t *gather = x->gather_first ? x->first : x->second, *cut = x->gather_first ? x->second : x->first;
    int g = x->gather_first ? 0 : 1;
    int64_t from_extent[2], to_extent[2], from_start[2] = {0, 0}, to_start[2] = {0, 0}, count[2];
    static const int64_t nowhere[2] = {0, 0};
    count[g] = own(gather, p);
    count[!g] = own(cut, q);
    from_extent[g] = own(gather, p);
    from_extent[!g] = cut[parts];
    to_extent[g] = gather[parts];
    to_extent[!g] = own(cut, q);
    from_start[!g] = cut[q];
    to_start[g] = gather[p];
    size_t run = (size_t)x->after * size;
    *out = (struct block){.count = {(size_t)x->before, (size_t)count[0], (size_t)x->between},
                          .bytes = (size_t)count[1] * run,
                          .from = side(x, from_extent, from_start, run),
                          .to = side(x, to_extent, to_start, run),
                          .packed = side(x, count, nowhere, run)};
}

size_t block_bytes(const struct comm_exchange *x, uint32_t parts, uint32_t p, uint32_t q, size_t size)
{
    struct block b;
    block_of(x, parts, p, q, size, &b);
    return b.count[0] * b.count[1] * b.count[2] * b.bytes;
}

static void walk(const struct block *b, const struct block_side *f, const struct block_side *t, const char *from,
                 char *to)
{
    for (size_t i = 0; i < b->count[0] && b->bytes; i++)
        for (size_t j = 0; j < b->count[1]; j++)
            for (size_t k = 0; k < b->count[2]; k++)
                memcpy(to + t->start + i * t->stride[0] + j * t->stride[1] + k * t->stride[2],
                       from + f->start + i * f->stride[0] + j * f->stride[1] + k * f->stride[2], b->bytes);
}

void block_copy(const struct comm_exchange *x, uint32_t parts, uint32_t p, uint32_t q, size_t size, const void *from,
                void *to)
{
    struct block b;
    block_of(x, parts, p, q, size, &b);
    walk(&b, &b.from, &b.to, from, to);
}

void block_pack(const struct comm_exchange *x, uint32_t parts, uint32_t p, uint32_t q, size_t size, const void *from,
                void *packed)
{
    struct block b;
    block_of(x, parts, p, q, size, &b);
    walk(&b, &b.from, &b.packed, from, packed);
}

void block_unpack(const struct comm_exchange *x, uint32_t parts, uint32_t p, uint32_t q, size_t size,
                  const void *packed, void *to)
{
    struct block b;
    block_of(x, parts, p, q, size, &b);
    walk(&b, &b.packed, &b.to, packed, to);
}
