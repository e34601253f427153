/* ir/interpret_collective.c - the interpreter's collectives, restrict and count_once.
 *
 * A rank's result is a function of the operands of all ranks of its group: those that differ from it only on the sub-axes that the node names. The group is
 * walked in the order of its parts, so that every rank adds in the same order.
 */
#include "ir/interpret_row.h"

/* The rank of this group that has part `part` on `subaxes`. */
static uint32_t member(const struct row *r, uint32_t subaxes, uint32_t part)
{
    const struct mesh *m = &r->graph->mesh;
    for (uint32_t q = 0; q < m->ranks; q++)
        if (mesh_part_of(m, subaxes, q) == part && mesh_part_of(m, ~subaxes, q) == mesh_part_of(m, ~subaxes, r->rank))
            return q;
    return r->rank; /* never: every combination of coordinates is a rank */
}

/* Operand 0 of the group's member. */
static const struct tensor *operand_of(const struct row *r, uint32_t subaxes, uint32_t part)
{
    return &r->everyone[member(r, subaxes, part)][r->node->operand[0]];
}

static status known_subaxes(struct row *r, uint32_t subaxes)
{
    if (subaxes == 0 || subaxes >> r->graph->mesh.count != 0)
        return row_broken(r, "sub-axes 0x%x of a mesh of %u", (unsigned)subaxes, (unsigned)r->graph->mesh.count);
    return TPC_OK;
}

/* ---- a cut: an axis seen as [outer, extent, inner] with a partition on the middle ---- */

struct cut {
    uint32_t axis, subaxes, partition, parts;
    int64_t outer, inner;
};

static status cut_of(struct row *r, int64_t axis, int64_t partition, uint32_t first_dim, struct cut *c)
{
    if (partition <= 0 || partition >= (int64_t)r->graph->partitions.count || axis < 0 ||
        axis >= (int64_t)r->node->rank)
        return row_broken(r, "there is no partition %lld, or no axis %lld", (long long)partition, (long long)axis);
    *c = (struct cut){.axis = (uint32_t)axis, .partition = (uint32_t)partition};
    c->subaxes = r->graph->partitions.at[partition].subaxes;
    c->parts = r->graph->partitions.at[partition].parts;
    status s = known_subaxes(r, c->subaxes);
    if (s == TPC_OK)
        s = row_dim(r, first_dim, &c->outer);
    if (s == TPC_OK)
        s = row_dim(r, first_dim + 1, &c->inner);
    if (s == TPC_OK && (c->outer < 0 || c->inner < 0))
        return row_broken(r, "a negative extent");
    return s;
}

static status range_of(struct row *r, const struct cut *c, uint32_t part, int64_t *lo, int64_t *hi)
{
    if (!partition_range(r->graph, c->partition, part, r->of, lo, hi) || *lo < 0 || *hi < *lo)
        return row_refused(r, "partition %u is too large to compute", (unsigned)c->partition);
    return TPC_OK;
}

static status extent_of(struct row *r, const struct cut *c, int64_t *extent)
{
    int64_t lo;
    return range_of(r, c, c->parts - 1, &lo, extent);
}

/* Is axis c->axis of t outer * middle * inner? */
static bool is_view(const struct tensor *t, const struct cut *c, int64_t middle)
{
    int64_t product;
    return i64_mul(c->outer, middle, &product) && i64_mul(product, c->inner, &product) && t->rank > c->axis &&
           t->shape[c->axis] == product;
}

/* Sizes around: t is [before, outer, middle, inner, after], and `run` is inner * after. */
static bool around(const struct tensor *t, const struct cut *c, int64_t *blocks, int64_t *run)
{
    int64_t before, after;
    return shape_elements(c->axis, t->shape, &before) &&
           shape_elements(t->rank - c->axis - 1, t->shape + c->axis + 1, &after) && i64_mul(before, c->outer, blocks) &&
           i64_mul(c->inner, after, run);
}

/* Do all axes but c's agree? */
static bool same_elsewhere(const struct tensor *a, const struct tensor *t, const struct cut *c)
{
    bool same = a->rank == t->rank && a->dtype == t->dtype;
    for (uint32_t k = 0; same && k < t->rank; k++)
        same = k == c->axis || a->shape[k] == t->shape[k];
    return same;
}

static status misfit(struct row *r, const struct tensor *a, const struct tensor *t)
{
    return row_broken(r, "%s does not come from %s", tensor_type_text(t, r->scratch), tensor_type_text(a, r->scratch));
}

/* ---- pieces ---- */

/* t: what rank holds of `a` along the cut. */
static status keep_own(struct row *r, const struct cut *c, const struct tensor *a, struct tensor *t)
{
    int64_t lo, hi, extent, blocks, run;
    status s = range_of(r, c, mesh_part_of(&r->graph->mesh, c->subaxes, r->rank), &lo, &hi);
    if (s == TPC_OK)
        s = extent_of(r, c, &extent);
    if (s != TPC_OK)
        return s;
    if (!same_elsewhere(a, t, c) || !is_view(a, c, extent) || !is_view(t, c, hi - lo) || !around(t, c, &blocks, &run))
        return misfit(r, a, t);
    size_t size = dtype_size(t->dtype), length = (size_t)((hi - lo) * run) * size;
    for (int64_t b = 0; b < blocks && length > 0; b++)
        memcpy((char *)t->data + (size_t)b * length, (const char *)a->data + (size_t)((b * extent + lo) * run) * size,
               length);
    return TPC_OK;
}

/* t: the operands of the group's members, each at its part of the cut. */
static status put_together(struct row *r, const struct cut *c, struct tensor *t)
{
    int64_t lo, hi, extent, blocks, run;
    status s = extent_of(r, c, &extent);
    if (s != TPC_OK)
        return s;
    for (uint32_t p = 0; p < c->parts; p++) {
        const struct tensor *a = operand_of(r, c->subaxes, p);
        if ((s = range_of(r, c, p, &lo, &hi)) != TPC_OK)
            return s;
        if (!same_elsewhere(a, t, c) || !is_view(a, c, hi - lo) || !is_view(t, c, extent) ||
            !around(t, c, &blocks, &run))
            return misfit(r, a, t);
        size_t size = dtype_size(t->dtype), length = (size_t)((hi - lo) * run) * size;
        for (int64_t b = 0; b < blocks && length > 0; b++)
            memcpy((char *)t->data + (size_t)((b * extent + lo) * run) * size,
                   (const char *)a->data + (size_t)b * length, length);
    }
    return TPC_OK;
}

/* t: the members' operands combined, part 0 first. */
static status combine(struct row *r, uint32_t subaxes, struct tensor *t)
{
    int32_t kind = r->node->attribute.mode;
    uint32_t parts = mesh_parts(&r->graph->mesh, subaxes);
    if (kind < REDUCTION_SUM || kind > REDUCTION_PROD)
        return row_broken(r, "reduction %d", (int)kind);
    const struct tensor **each = NEW_ARRAY(r->scratch, const struct tensor *, parts);
    for (uint32_t p = 0; p < parts; p++) {
        each[p] = operand_of(r, subaxes, p);
        if (!same_shape(each[p], t))
            return misfit(r, each[p], t);
    }
    for (size_t i = 0; i < t->count; i++) {
        if (dtype_is_float(t->dtype)) {
            double x = dtype_load_f64(t->dtype, each[0]->data, i);
            for (uint32_t p = 1; p < parts; p++)
                x = combine_doubles(kind, x, dtype_load_f64(t->dtype, each[p]->data, i));
            dtype_store_f64(t->dtype, t->data, i, x);
        } else {
            int64_t x = dtype_load_i64(t->dtype, each[0]->data, i);
            for (uint32_t p = 1; p < parts; p++)
                x = combine_integers(kind, t->dtype, x, dtype_load_i64(t->dtype, each[p]->data, i));
            dtype_store_i64(t->dtype, t->data, i, x);
        }
    }
    return TPC_OK;
}

/* ---- rows ---- */

static status run_restrict(struct row *r)
{
    struct cut c;
    status s = cut_of(r, r->node->attribute.axis, r->node->attribute.partition, 0, &c);
    return s == TPC_OK ? keep_own(r, &c, r->operand[0], r->result) : s;
}

static status run_all_gather(struct row *r)
{
    struct cut c;
    status s = cut_of(r, r->node->attribute.axis, r->node->attribute.partition, 0, &c);
    return s == TPC_OK ? put_together(r, &c, r->result) : s;
}

static status run_reduce_scatter(struct row *r)
{
    struct cut c;
    status s = cut_of(r, r->node->attribute.axis, r->node->attribute.partition, 0, &c);
    if (s != TPC_OK)
        return s;
    struct tensor whole;
    if (!tensor_new(r->scratch, &whole, r->operand[0]->dtype, r->operand[0]->rank, r->operand[0]->shape))
        return row_refused(r, "the operand is too large");
    s = combine(r, c.subaxes, &whole);
    return s == TPC_OK ? keep_own(r, &c, &whole, r->result) : s;
}

static status run_all_to_all(struct row *r)
{
    const struct attribute *a = &r->node->attribute;
    struct cut gathered, own;
    int64_t extent;
    if (a->list_count != 2)
        return row_broken(r, "does not name the other axis and partition");
    status s = cut_of(r, a->axis, a->partition, 0, &gathered);
    if (s == TPC_OK)
        s = cut_of(r, a->list[0], a->list[1], 2, &own);
    if (s == TPC_OK)
        s = extent_of(r, &gathered, &extent);
    if (s != TPC_OK)
        return s;
    int64_t shape[MAX_RANK], product;
    memcpy(shape, r->operand[0]->shape, sizeof shape);
    if (own.subaxes != gathered.subaxes || !i64_mul(gathered.outer, extent, &product) ||
        !i64_mul(product, gathered.inner, &shape[gathered.axis]))
        return row_broken(r, "the two partitions are not over the same ranks");
    struct tensor whole;
    if (!tensor_new(r->scratch, &whole, r->operand[0]->dtype, r->operand[0]->rank, shape))
        return row_refused(r, "the operand is too large");
    s = put_together(r, &gathered, &whole);
    return s == TPC_OK ? keep_own(r, &own, &whole, r->result) : s;
}

static status copy_from(struct row *r, const struct tensor *a)
{
    if (!same_shape(a, r->result))
        return misfit(r, a, r->result);
    if (tensor_bytes(a))
        memcpy(r->result->data, a->data, tensor_bytes(a));
    return TPC_OK;
}

status row_collective(struct row *r)
{
    const struct attribute *a = &r->node->attribute;
    if (r->graph->mesh.ranks == 0)
        return row_broken(r, "stands in a graph that is no program");
    op o = r->node->op;
    bool by_mask = o == OP_ALL_REDUCE || o == OP_COUNT_ONCE || o == OP_BROADCAST_FROM;
    status s = by_mask ? known_subaxes(r, a->index) : TPC_OK;
    if (s != TPC_OK)
        return s;
    switch ((int)o) {
    case OP_RESTRICT:
        return run_restrict(r);
    case OP_ALL_GATHER:
        return run_all_gather(r);
    case OP_REDUCE_SCATTER:
        return run_reduce_scatter(r);
    case OP_ALL_TO_ALL:
        return run_all_to_all(r);
    case OP_ALL_REDUCE:
        return combine(r, a->index, r->result);
    case OP_COUNT_ONCE: /* the result is zeros already */
        return mesh_part_of(&r->graph->mesh, a->index, r->rank) == 0 ? copy_from(r, r->operand[0]) : TPC_OK;
    case OP_BROADCAST_FROM:
        if (a->mode < 0 || (uint32_t)a->mode >= mesh_parts(&r->graph->mesh, a->index))
            return row_broken(r, "there is no rank %d in the group", (int)a->mode);
        return copy_from(r, operand_of(r, a->index, (uint32_t)a->mode));
    default:
        return row_broken(r, "is no collective");
    }
}
