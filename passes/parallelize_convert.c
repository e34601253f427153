/* passes/parallelize_convert.c - from the placement in which a value was made to the one in which a use wants it.
 *
 * Invariant: a conversion changes how a value lies on the mesh, never what it is. It goes in a fixed order: sums are finished (all_reduce,
 * or reduce_scatter where the same ranks cut the value next), pieces that the target does not cut the same way are gathered, then what is
 * not owned is dropped (restrict), then replicated terms of a sum are counted once. An axis of several segments is taken apart,
 * converted segment by segment, and concatenated again, since its local form is the concatenation of local segments.
 *
 * Start reading at convert().
 */
#include "passes/parallelize.h"

#include <assert.h>

/* A conversion step that was made before of the same value is made once: two uses that want a sum completed, and then different parts of it, share
 * the all_reduce. */
static value add_once(struct rewrite *w, op o, value v, const struct attribute *a)
{
    struct node n = {
        .op = o, .dtype = graph_node(w->program, v)->dtype, .operand_count = 1, .operand = &v, .attribute = *a};
    uint64_t key[] = {node_hash(&n), v};
    bool added;
    uint32_t *made = map_put(&w->steps, key, sizeof key, &added);
    if (!added) {
        const struct node *m = graph_node(w->program, *made);
        struct node same = n;
        same.rank = m->rank; /* derived */
        same.shape = m->shape;
        if (node_same(m, &same) && m->operand[0] == v) {
            return *made;
        }
    }
    *made = graph_add(w->program, o, n.dtype, 0, NULL, 1, &v, a);
    return *made;
}

/* [outer, extent, inner] around factor `at` of a segment, with what is local now. */
static void around(struct rewrite *w, const struct segment *s, const uint32_t *local, uint32_t at, dim out[2])
{
    struct dims *t = w->program->dims;
    out[0] = out[1] = dim_const(t, 1);
    for (uint32_t i = 0; i < s->count; i++) {
        dim d = local[i] ? partition_size(w->program, local[i]) : s->factor[i].extent;
        if (i < at) {
            out[0] = dim_mul(t, out[0], d);
        } else if (i > at) {
            out[1] = dim_mul(t, out[1], d);
        }
    }
}

/* restrict, all_gather or reduce_scatter of one factor. */
static value cut_node(struct rewrite *w, op o, value v, uint32_t axis, const dim around_[2], uint32_t partition,
                      int32_t mode)
{
    struct attribute a = {
        .axis = (int32_t)axis, .mode = mode, .dims_count = 2, .dims = around_, .partition = partition};
    return add_once(w, o, v, &a);
}

/* One segment, alone on its axis: from the partitions in `from` to those in `to` (factor by factor, 0 whole). A factor in both is left. */
static value convert_segment(struct rewrite *w, value v, uint32_t axis, const struct segment *s,
                             const struct segment *to)
{
    uint32_t local[64];
    assert(s->count == to->count && s->count <= 64);
    for (uint32_t i = 0; i < s->count; i++) {
        local[i] = s->factor[i].partition;
    }
    dim d[2];
    for (uint32_t i = 0; i < s->count; i++) {
        if (local[i] != 0 && local[i] != to->factor[i].partition) {
            around(w, s, local, i, d);
            v = cut_node(w, OP_ALL_GATHER, v, axis, d, local[i], 0);
            local[i] = 0;
        }
    }
    for (uint32_t i = 0; i < s->count; i++) {
        uint32_t wanted = to->factor[i].partition;
        if (local[i] != wanted) {
            around(w, s, local, i, d);
            v = cut_node(w, OP_RESTRICT, v, axis, d, wanted, 0);
            local[i] = wanted;
        }
    }
    return v;
}

/* The same segments and factors, partitions aside. */
static bool same_structure(const struct axis_layout *a, const struct axis_layout *b)
{
    if (a->count != b->count) {
        return false;
    }
    for (uint32_t s = 0; s < a->count; s++) {
        if (a->segment[s].count != b->segment[s].count) {
            return false;
        }
        for (uint32_t f = 0; f < a->segment[s].count; f++) {
            if (a->segment[s].factor[f].extent != b->segment[s].factor[f].extent) {
                return false;
            }
        }
    }
    return true;
}

/* `a` with every partition dropped. */
static struct axis_layout whole_of(struct rewrite *w, const struct axis_layout *a)
{
    struct segment *s = NEW_ARRAY(w->arena, struct segment, a->count);
    for (uint32_t i = 0; i < a->count; i++) {
        struct factor *f = NEW_ARRAY(w->arena, struct factor, a->segment[i].count);
        for (uint32_t k = 0; k < a->segment[i].count; k++) {
            f[k].extent = a->segment[i].factor[k].extent;
        }
        s[i] = (struct segment){a->segment[i].count, f};
    }
    return (struct axis_layout){a->count, s};
}

/* `a` with only the partitions that b, of the same structure, has too. */
static struct axis_layout common_of(struct rewrite *w, const struct axis_layout *a, const struct axis_layout *b)
{
    struct axis_layout c = whole_of(w, a);
    for (uint32_t i = 0; i < a->count; i++) {
        for (uint32_t k = 0; k < a->segment[i].count; k++) {
            uint32_t p = a->segment[i].factor[k].partition;
            ((struct factor *)c.segment[i].factor)[k].partition = p == b->segment[i].factor[k].partition ? p : 0;
        }
    }
    return c;
}

static bool segment_same(const struct segment *a, const struct segment *b)
{
    for (uint32_t f = 0; f < a->count; f++) {
        if (a->factor[f].partition != b->factor[f].partition) {
            return false;
        }
    }
    return true;
}

/* One axis, structures being the same. */
static value convert_axis(struct rewrite *w, value v, uint32_t axis, const struct axis_layout *from,
                          const struct axis_layout *to)
{
    struct graph *g = w->program;
    if (from->count == 1) {
        return convert_segment(w, v, axis, &from->segment[0], &to->segment[0]);
    }
    value *part = NEW_ARRAY(w->arena, value, from->count);
    dim start = dim_const(g->dims, 0);
    bool changed = false;
    for (uint32_t s = 0; s < from->count; s++) {
        struct axis_layout one = {1, &from->segment[s]};
        dim size = axis_local_extent(g, &one);
        part[s] = graph_slice_axis(g, v, axis, start, size);
        if (!segment_same(&from->segment[s], &to->segment[s])) {
            part[s] = convert_segment(w, part[s], axis, &from->segment[s], &to->segment[s]);
            changed = true;
        }
        start = dim_add(g->dims, start, size);
    }
    return changed ? graph_concat(g, from->count, part, axis) : v;
}

static value all_reduce(struct rewrite *w, value v, int32_t kind, uint32_t subaxes)
{
    struct attribute a = {.mode = kind, .index = subaxes};
    return add_once(w, OP_ALL_REDUCE, v, &a);
}

/* A sum over ranks that next cut the value the same way needs no whole sum: when the only change is one factor of a one-segment axis, whole
 * before and cut by a partition over exactly the ranks of the sum after, reduce_scatter does both. 0: not that case. */
static value try_reduce_scatter(struct rewrite *w, value v, const struct placement *from, const struct placement *to)
{
    uint32_t axis = 0, at = 0, found = 0;
    for (uint32_t a = 0; a < from->rank; a++) {
        struct axis_layout x = axis_normalise(w->program, &from->axis[a], w->arena);
        struct axis_layout y = axis_normalise(w->program, &to->axis[a], w->arena);
        if (axis_equal(&x, &y)) {
            continue;
        }
        if (!axis_is_whole(&from->axis[a]) || y.count != 1) {
            return 0;
        }
        for (uint32_t f = 0; f < y.segment[0].count; f++) {
            if (y.segment[0].factor[f].partition != 0) {
                axis = a;
                at = f;
                found++;
            }
        }
    }
    if (found != 1) {
        return 0;
    }
    struct axis_layout y = axis_normalise(w->program, &to->axis[axis], w->arena);
    uint32_t partition = y.segment[0].factor[at].partition;
    if (w->program->partitions.at[partition].subaxes != from->partial_subaxes) {
        return 0;
    }
    uint32_t local[64] = {0};
    dim d[2];
    around(w, &y.segment[0], local, at, d);
    return cut_node(w, OP_REDUCE_SCATTER, v, axis, d, partition, from->partial);
}

value convert(struct rewrite *w, value v, const struct placement *from, const struct placement *to)
{
    struct graph *g = w->program;
    uint32_t finish =
        from->partial == 0 ? 0 : from->partial_subaxes & ~(to->partial == from->partial ? to->partial_subaxes : 0);
    bool scattered = false;
    if (finish != 0) {
        value s = finish == from->partial_subaxes && to->partial == 0 ? try_reduce_scatter(w, v, from, to) : 0;
        scattered = s != 0;
        v = scattered ? s : all_reduce(w, v, from->partial, finish);
    }
    /* All axes are gathered before any is cut: sub-axes may go from one axis to another. */
    struct axis_layout *kept = NEW_ARRAY(w->arena, struct axis_layout, from->rank + 1);
    for (uint32_t a = 0; a < from->rank && !scattered; a++) {
        struct axis_layout x = from->axis[a], y = to->axis[a];
        if (!same_structure(&x, &y)) {
            x = axis_normalise(g, &x, w->arena);
            y = axis_normalise(g, &y, w->arena);
        }
        kept[a] = same_structure(&x, &y) ? common_of(w, &x, &y) : whole_of(w, &x);
        v = convert_axis(w, v, a, &x, &kept[a]);
    }
    for (uint32_t a = 0; a < from->rank && !scattered; a++) {
        struct axis_layout x = kept[a], y = to->axis[a];
        if (!same_structure(&x, &y)) {
            y = axis_normalise(g, &y, w->arena);
        }
        if (!same_structure(&x, &y)) {
            x = whole_of(w, &y); /* what was gathered is whole */
        }
        v = convert_axis(w, v, a, &x, &y);
    }
    uint32_t begin = to->partial == REDUCTION_SUM
                         ? to->partial_subaxes & ~(from->partial == REDUCTION_SUM ? from->partial_subaxes : 0)
                         : 0;
    if (begin != 0) {
        struct attribute once = {.index = begin};
        v = add_once(w, OP_COUNT_ONCE, v, &once);
    }
    return v;
}
