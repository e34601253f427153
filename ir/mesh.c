/* ir/mesh.c - the mesh's sub-axes, and partitions: who owns which part of an extent.
 *
 * Invariant: partitions are interned by content; a partition's symbols (s:N, o:N) are bounded when it is made.
 */
#include "ir/graph.h"

#include <assert.h>

/* ---- mesh ---- */

void mesh_init(struct mesh *m, const char *axis, uint32_t ranks)
{
    assert(ranks >= 1 && ranks <= MAX_RANKS);
    *m = (struct mesh){.ranks = 1};
    mesh_add(m, axis, ranks);
}

void mesh_add(struct mesh *m, const char *axis, uint32_t ranks)
{
    uint32_t rest = ranks, first = m->count;
    for (uint32_t prime = 2; rest > 1; prime++) {
        for (; rest % prime == 0; rest /= prime) {
            assert(m->count < MAX_SUBAXES);
            memmove(m->size + first + 1, m->size + first,
                    (m->count - first) * sizeof m->size[0]); /* the largest first */
            m->size[first] = prime;
            m->axis[m->count++] = axis;
        }
    }
    m->ranks *= ranks;
}

uint32_t mesh_axes(const struct mesh *m, const char **name, uint32_t *size)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < m->count; i++) {
        const char *axis = m->axis[i] ? m->axis[i] : "tp";
        if (count == 0 || strcmp(name[count - 1], axis) != 0) {
            name[count] = axis;
            size[count++] = 1;
        }
        size[count - 1] *= m->size[i];
    }
    return count;
}

uint32_t mesh_parts(const struct mesh *m, uint32_t subaxes)
{
    uint32_t parts = 1;
    for (uint32_t i = 0; i < m->count; i++)
        parts *= subaxes >> i & 1 ? m->size[i] : 1;
    return parts;
}

uint32_t mesh_part_of(const struct mesh *m, uint32_t subaxes, uint32_t rank)
{
    uint32_t part = 0, weight = 1; /* from the innermost sub-axis outwards */
    for (uint32_t i = m->count; i-- > 0; rank /= m->size[i]) {
        if (!(subaxes >> i & 1))
            continue;
        part += rank % m->size[i] * weight;
        weight *= m->size[i];
    }
    return part;
}

/* ---- partitions ---- */

void partition_balance(int64_t extent, int64_t unit, uint32_t parts, int64_t *offset)
{
    assert(extent >= 0 && unit >= 1 && parts >= 1);
    int64_t units = extent / unit + (extent % unit != 0), each = units / parts, more = units % parts;
    offset[0] = 0;
    for (uint32_t p = 0; p < parts; p++) { /* the first `more` parts have one unit more */
        int64_t size = (each + (p < more)) * unit;
        offset[p + 1] = extent - offset[p] < size ? extent : offset[p] + size;
    }
}

static bool partition_same(const struct partition *a, dim extent, int64_t unit, uint32_t subaxes, const int64_t *offset)
{
    if (a->extent != extent || a->unit != unit || a->subaxes != subaxes || !a->offset != !offset)
        return false;
    return !offset || memcmp(a->offset, offset, ((size_t)a->parts + 1) * sizeof *offset) == 0;
}

/* The smallest and the largest part of constant cuts. */
static void extreme_sizes(const struct partition *p, int64_t *least, int64_t *most)
{
    *least = INT64_MAX;
    *most = 0;
    for (uint32_t i = 0; i < p->parts; i++) {
        int64_t size = p->offset[i + 1] - p->offset[i];
        *least = size < *least ? size : *least;
        *most = size > *most ? size : *most;
    }
}

/* A symbol of this number may stand for another partition in another Program over the same dims: then what holds for both is known. */
static void bound_symbol(struct graph *g, dim d, bool fresh, int64_t lower, int64_t upper)
{
    uint32_t symbol = dim_get(g->dims, d).symbol;
    if (fresh)
        dims_bound_symbol(g->dims, symbol, lower, upper);
    else
        dims_widen_symbol(g->dims, symbol, lower, upper);
}

static void bound_symbols(struct graph *g, uint32_t index)
{
    const struct partition *p = &g->partitions.at[index];
    int64_t least = 0, most = dim_upper(g->dims, p->extent), last = most;
    if (p->offset) {
        extreme_sizes(p, &least, &most);
        last = p->offset[p->parts - 1];
    }
    uint32_t before = dims_symbol_count(g->dims);
    dim size = dim_part_size(g->dims, index);
    bound_symbol(g, size, dims_symbol_count(g->dims) > before, least, most);
    before = dims_symbol_count(g->dims);
    dim offset = dim_part_offset(g->dims, index);
    bound_symbol(g, offset, dims_symbol_count(g->dims) > before, 0, last);
}

uint32_t graph_partition(struct graph *g, dim extent, int64_t unit, uint32_t subaxes, const int64_t *offset)
{
    assert(dim_valid(extent) && unit >= 1 && subaxes != 0 && subaxes >> g->mesh.count == 0);
    for (uint32_t i = 1; i < g->partitions.count; i++)
        if (partition_same(&g->partitions.at[i], extent, unit, subaxes, offset))
            return i;
    struct partition p = {.extent = extent, .unit = unit, .subaxes = subaxes, .parts = mesh_parts(&g->mesh, subaxes)};
    if (offset)
        p.offset = arena_copy(g->arena, offset, ((size_t)p.parts + 1) * sizeof *offset);
    *PUSH(g->arena, &g->partitions) = p;
    bound_symbols(g, g->partitions.count - 1);
    return g->partitions.count - 1;
}

dim partition_size(struct graph *g, uint32_t partition)
{
    struct dims *t = g->dims;
    const struct partition *p = &g->partitions.at[partition];
    assert(partition > 0 && partition < g->partitions.count);
    if (p->offset) {
        int64_t least, most;
        extreme_sizes(p, &least, &most);
        return least == most ? dim_const(t, most) : dim_part_size(t, partition);
    }
    int64_t step;
    if (i64_mul(p->unit, p->parts, &step) && dim_valid(dim_exact_div(t, p->extent, dim_const(t, step))))
        return dim_exact_div(t, p->extent, dim_const(t, p->parts));
    return dim_part_size(t, partition);
}

dim partition_offset(struct graph *g, uint32_t partition)
{
    assert(partition > 0 && partition < g->partitions.count);
    return g->partitions.at[partition].parts == 1 ? dim_const(g->dims, 0) : dim_part_offset(g->dims, partition);
}

/* The first element of part `index` by the symbolic rule. */
static bool symbolic_cut(const struct partition *p, int64_t extent, uint32_t index, int64_t *cut)
{
    int64_t step, size, at;
    if (extent < 0 || !i64_mul(p->unit, p->parts, &step))
        return false;
    if (!i64_mul(extent / step + (extent % step != 0), p->unit, &size))
        return false;
    *cut = !i64_mul(size, index, &at) || at > extent ? extent : at;
    return true;
}

bool partition_range(const struct graph *g, uint32_t partition, uint32_t part, const int64_t *of, int64_t *lo,
                     int64_t *hi)
{
    const struct partition *p = &g->partitions.at[partition];
    int64_t extent;
    assert(partition < g->partitions.count && part < p->parts);
    if (p->offset) {
        *lo = p->offset[part];
        *hi = p->offset[part + 1];
        return true;
    }
    return dim_eval(g->dims, p->extent, of, &extent) && symbolic_cut(p, extent, part, lo) &&
           symbolic_cut(p, extent, part + 1, hi);
}

bool graph_bind_rank(const struct graph *g, uint32_t r, int64_t *of)
{
    for (uint32_t s = 0; s < dims_symbol_count(g->dims); s++) {
        const struct symbol *symbol = dims_symbol(g->dims, s);
        int64_t lo, hi;
        if (symbol->kind == SYMBOL_RANK)
            of[s] = r;
        if ((symbol->kind != SYMBOL_PART_SIZE && symbol->kind != SYMBOL_PART_OFFSET) || symbol->index == 0 ||
            symbol->index >= g->partitions.count)
            continue;
        uint32_t part = mesh_part_of(&g->mesh, g->partitions.at[symbol->index].subaxes, r);
        if (!partition_range(g, symbol->index, part, of, &lo, &hi))
            return false;
        of[s] = symbol->kind == SYMBOL_PART_SIZE ? hi - lo : lo;
    }
    return true;
}
