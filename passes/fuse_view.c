/* passes/fuse_view.c - layout operations as index maps: where an element of a result lies in the operand.
 *
 * Start at view_map. A map is exact for every index inside the result; pad and concat choose between operands and are in fuse_kernel.c, but a concat of one
 * value with itself is a map.
 */
#include "passes/fuse.h"

#include <assert.h>

/* Its operands are one value, of a known extent: the index modulo that extent. */
static bool is_repeated(const struct graph *g, const struct node *n)
{
    for (uint32_t i = 1; i < n->operand_count; i++)
        if (n->operand[i] != n->operand[0])
            return false;
    return n->op == OP_CONCAT && n->operand_count > 1 &&
           dim_is_const(g->dims, graph_node(g, n->operand[0])->shape[n->attribute.axis], NULL);
}

bool view_is_map(const struct graph *g, value v)
{
    const struct node *n = graph_node(g, v);
    op o = n->op;
    return is_repeated(g, n) || o == OP_TRANSPOSE || o == OP_RESHAPE || o == OP_BROADCAST || o == OP_SLICE ||
           o == OP_WINDOW || o == OP_RESTRICT || o == OP_REVERSE;
}

/* ---- reshape ---- */

/* Index `from` of an array of shape `a` (na axes) as the index `to` of one of shape `b` with as many elements. */
static void reshape_group(const struct space *s, uint32_t na, const dim *a, const dim *from, uint32_t nb, const dim *b,
                          dim *to)
{
    dim flat = index_row_major(s, na, a, from);
    for (uint32_t i = nb; i-- > 1;) {
        to[i] = index_mod(s, flat, b[i]);
        flat = index_div(s, flat, b[i]);
    }
    if (nb > 0)
        to[0] = flat;
}

/* Extends the shorter side until both products agree: the smallest groups that map to each other. */
static void next_group(struct dims *t, uint32_t ra, const dim *a, uint32_t rb, const dim *b, uint32_t *ea, uint32_t *eb)
{
    dim pa = a[*ea], pb = b[*eb];
    ++*ea;
    ++*eb;
    while (pa != pb && (*ea < ra || *eb < rb)) {
        bool extend_b = *eb < rb && (*ea == ra || (dim_exact_div(t, pa, pb) != DIM_NONE && !dim_is(t, pa, 0)));
        bool extend_a = *ea < ra && !extend_b;
        if (extend_a && *eb < rb &&
            dim_exact_div(t, pb, pa) == DIM_NONE) { /* neither divides the other: all that is left */
            *ea = ra;
            *eb = rb;
            return;
        }
        if (extend_b)
            pb = dim_mul(t, pb, b[(*eb)++]);
        else
            pa = dim_mul(t, pa, a[(*ea)++]);
    }
    if (pa != pb) {
        *ea = ra;
        *eb = rb;
    }
}

/* Index `in` of shape a as index `out` of shape b. */
static void reshape_index(const struct space *s, uint32_t ra, const dim *a, const dim *in, uint32_t rb, const dim *b,
                          dim *out)
{
    struct dims *t = s->dims;
    uint32_t i = 0, j = 0;
    while (i < ra || j < rb) {
        if (i < ra && dim_is(t, a[i], 1)) {
            i++;
        } else if (j < rb && dim_is(t, b[j], 1)) {
            out[j++] = dim_const(t, 0);
        } else if (i == ra || j == rb) { /* only an empty array has such a rest */
            for (; j < rb; j++)
                out[j] = dim_const(t, 0);
            i = ra;
        } else {
            uint32_t ea = i, eb = j;
            next_group(t, ra, a, rb, b, &ea, &eb);
            reshape_group(s, ea - i, a + i, in + i, eb - j, b + j, out + j);
            i = ea;
            j = eb;
        }
    }
}

/* ---- the others ---- */

static void map_broadcast(const struct space *s, const struct node *n, const struct node *a, const dim *in, dim *out)
{
    for (uint32_t i = 0; i < a->rank; i++) {
        uint32_t axis = (uint32_t)n->attribute.list[i];
        bool spread = dim_is(s->dims, a->shape[i], 1);
        out[i] = spread ? dim_const(s->dims, 0) : in[axis];
    }
}

/* The axis seen as [outer, extent, inner]; this rank holds `size` of extent from `offset`. */
static dim map_restrict(struct graph *g, const struct space *s, const struct node *n, dim in)
{
    struct dims *t = s->dims;
    dim inner = n->attribute.dims[1];
    dim size = partition_size(g, n->attribute.partition), offset = partition_offset(g, n->attribute.partition);
    dim skipped = dim_sub(t, g->partitions.at[n->attribute.partition].extent, size);
    dim block = dim_is(t, n->attribute.dims[0], 1) ? dim_const(t, 0) : index_div(s, in, dim_mul(t, size, inner));
    return dim_add(t, in, dim_mul(t, inner, dim_add(t, offset, dim_mul(t, block, skipped))));
}

static void map_slice(const struct space *s, const struct node *n, const dim *in, dim *out)
{
    for (uint32_t i = 0; i < n->rank; i++)
        out[i] =
            dim_add(s->dims, n->attribute.dims[i], dim_mul(s->dims, in[i], dim_const(s->dims, n->attribute.list[i])));
}

static void map_window(const struct space *s, const struct node *n, const dim *in, dim *out)
{
    uint32_t axis = (uint32_t)n->attribute.axis;
    dim place = dim_mul(s->dims, in[axis], dim_const(s->dims, n->attribute.list[1]));
    dim tap = dim_mul(s->dims, in[axis + 1], dim_const(s->dims, n->attribute.list[2]));
    for (uint32_t i = 0; i + 1 < n->rank; i++)
        out[i] = i < axis ? in[i] : i == axis ? dim_add(s->dims, place, tap) : in[i + 1];
}

void view_map(struct graph *g, const struct space *s, value v, const dim *in, dim *out)
{
    const struct node *n = graph_node(g, v), *a = graph_node(g, n->operand[0]);
    struct dims *t = s->dims;
    if (n->op == OP_RESHAPE) {
        reshape_index(s, n->rank, n->shape, in, a->rank, a->shape, out);
        for (uint32_t i = 0; i < a->rank; i++)
            if (out[i] == DIM_NONE || dim_is(t, a->shape[i], 1))
                out[i] = dim_is(t, a->shape[i], 1) ? dim_const(t, 0) : out[i];
        return;
    }
    if (n->op == OP_BROADCAST) {
        map_broadcast(s, n, a, in, out);
        return;
    }
    if (n->op == OP_SLICE) {
        map_slice(s, n, in, out);
        return;
    }
    if (n->op == OP_WINDOW) {
        map_window(s, n, in, out);
        return;
    }
    memcpy(out, in, n->rank * sizeof *in);
    if (n->op == OP_TRANSPOSE)
        for (uint32_t i = 0; i < n->rank; i++)
            out[n->attribute.list[i]] = in[i];
    else if (n->op == OP_CONCAT)
        out[n->attribute.axis] = index_mod(s, in[n->attribute.axis], a->shape[n->attribute.axis]);
    else if (n->op == OP_RESTRICT)
        out[n->attribute.axis] = map_restrict(g, s, n, in[n->attribute.axis]);
    else if (n->op == OP_REVERSE)
        for (uint32_t i = 0; i < n->attribute.list_count; i++) {
            int32_t axis = n->attribute.list[i];
            out[axis] = dim_sub(t, dim_sub(t, n->shape[axis], dim_const(t, 1)), in[axis]);
        }
    else
        assert(false && "no map");
}

void view_forward(struct graph *g, const struct space *s, value v, const dim *in, dim *out)
{
    const struct node *n = graph_node(g, v), *a = graph_node(g, n->operand[0]);
    if (n->op == OP_RESHAPE) {
        reshape_index(s, a->rank, a->shape, in, n->rank, n->shape, out);
        return;
    }
    assert(n->op == OP_TRANSPOSE);
    for (uint32_t i = 0; i < n->rank; i++)
        out[i] = in[n->attribute.list[i]];
}

/* ---- aliases ---- */

static bool transpose_moves_ones(const struct dims *t, const struct node *n)
{
    int32_t last = -1;
    for (uint32_t i = 0; i < n->rank; i++) {
        if (dim_is(t, n->shape[i], 1))
            continue;
        if (n->attribute.list[i] < last)
            return false;
        last = n->attribute.list[i];
    }
    return true;
}

static bool same_shape(const struct node *a, const struct node *b)
{
    for (uint32_t i = 0; i < a->rank; i++)
        if (a->shape[i] != b->shape[i])
            return false;
    return a->rank == b->rank;
}

bool view_is_alias(struct graph *g, value v)
{
    const struct node *n = graph_node(g, v);
    if (n->op == OP_RESHAPE)
        return true;
    if (n->op == OP_TRANSPOSE)
        return transpose_moves_ones(g->dims, n);
    if (n->op == OP_BROADCAST)
        return graph_elements(g, v) == graph_elements(g, n->operand[0]);
    if (n->op == OP_SLICE)
        return same_shape(n, graph_node(g, n->operand[0]));
    return n->op == OP_CONCAT && n->operand_count == 1;
}

value view_root(struct graph *g, value v)
{
    while (view_is_alias(g, v))
        v = graph_node(g, v)->operand[0];
    return v;
}
