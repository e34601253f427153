/* ir/placement.c - layouts of axes and values: canonical form, local extents, the indices that a rank owns, text.
 *
 * Invariant: a canonical axis has at least one segment and each segment at least one factor; within a segment no two neighbours are
 * whole and no whole factor has extent 1 (unless it is all there is); no two neighbouring segments differ only in their leading whole
 * factor (a x R | b x R is (a+b) x R, of which "a | b", both whole, is the case where R is empty); no segment is empty unless it is all there is. Two layouts of one axis give the same
 * local data exactly when their canonical forms are equal. Start with axis_normalise.
 */
#include "ir/placement.h"

#include <assert.h>

const struct placement *placement_whole(struct arena *arena, uint32_t rank, const dim *shape)
{
    struct placement *p = NEW(arena, struct placement);
    struct axis_layout *axis = NEW_ARRAY(arena, struct axis_layout, rank);
    struct segment *segment = NEW_ARRAY(arena, struct segment, rank);
    struct factor *factor = NEW_ARRAY(arena, struct factor, rank);
    for (uint32_t i = 0; i < rank; i++) {
        factor[i].extent = shape[i];
        segment[i].count = 1;
        segment[i].factor = &factor[i];
        axis[i].count = 1;
        axis[i].segment = &segment[i];
    }
    p->rank = rank;
    p->axis = axis;
    return p;
}

bool axis_is_whole(const struct axis_layout *a)
{
    for (uint32_t i = 0; i < a->count; i++)
        for (uint32_t k = 0; k < a->segment[i].count; k++)
            if (a->segment[i].factor[k].partition)
                return false;
    return true;
}

bool placement_is_whole(const struct placement *p)
{
    for (uint32_t i = 0; i < p->rank; i++)
        if (!axis_is_whole(&p->axis[i]))
            return false;
    return !p->partial;
}

static bool segment_equal(const struct segment *a, const struct segment *b)
{
    if (a->count != b->count)
        return false;
    for (uint32_t i = 0; i < a->count; i++)
        if (a->factor[i].extent != b->factor[i].extent || a->factor[i].partition != b->factor[i].partition)
            return false;
    return true;
}

bool axis_equal(const struct axis_layout *a, const struct axis_layout *b)
{
    if (axis_is_whole(a) && axis_is_whole(b))
        return true; /* of one axis: the extents are equal however they are written */
    if (a->count != b->count)
        return false;
    for (uint32_t i = 0; i < a->count; i++)
        if (!segment_equal(&a->segment[i], &b->segment[i]))
            return false;
    return true;
}

bool placement_equal(const struct placement *a, const struct placement *b)
{
    if (a == b)
        return true;
    if (a->rank != b->rank || a->partial != b->partial || (a->partial && a->partial_subaxes != b->partial_subaxes))
        return false;
    for (uint32_t i = 0; i < a->rank; i++)
        if (!axis_equal(&a->axis[i], &b->axis[i]))
            return false;
    return true;
}

/* ---- of two graphs ---- */

static bool factor_alike(const struct graph *g, const struct factor *x, const struct graph *h, const struct factor *y)
{
    int64_t m = 0, n = 0;
    bool known = dim_is_const(g->dims, x->extent, &m);
    if (known != dim_is_const(h->dims, y->extent, &n) || m != n || !x->partition != !y->partition)
        return false;
    const struct partition *a = &g->partitions.at[x->partition], *b = &h->partitions.at[y->partition];
    if (!x->partition)
        return true;
    return a->subaxes == b->subaxes && a->unit == b->unit && !a->offset == !b->offset &&
           (!a->offset || memcmp(a->offset, b->offset, (a->parts + 1) * sizeof *a->offset) == 0);
}

static bool axis_alike(const struct graph *g, const struct axis_layout *a, const struct graph *h,
                       const struct axis_layout *b)
{
    bool whole = axis_is_whole(a);
    if (whole || axis_is_whole(b))
        return whole == axis_is_whole(b);
    bool alike = a->count == b->count;
    for (uint32_t i = 0; alike && i < a->count; i++) {
        alike = a->segment[i].count == b->segment[i].count;
        for (uint32_t k = 0; alike && k < a->segment[i].count; k++)
            alike = factor_alike(g, &a->segment[i].factor[k], h, &b->segment[i].factor[k]);
    }
    return alike;
}

bool placement_alike(const struct graph *g, const struct placement *p, const struct graph *h, const struct placement *q)
{
    if (!p || !q)
        return (!p || placement_is_whole(p)) && (!q || placement_is_whole(q));
    bool alike = p->rank == q->rank && !p->partial && !q->partial;
    for (uint32_t i = 0; alike && i < p->rank; i++)
        alike = axis_alike(g, &p->axis[i], h, &q->axis[i]);
    return alike;
}

/* ---- canonical form ---- */

/* Merges whole neighbours and drops whole ones. */
static struct segment segment_normalise(struct graph *g, const struct segment *s, struct arena *arena)
{
    struct factor *out = NEW_ARRAY(arena, struct factor, s->count);
    uint32_t count = 0;
    for (uint32_t i = 0; i < s->count; i++) {
        struct factor f = s->factor[i];
        if (!f.partition && dim_is(g->dims, f.extent, 1))
            continue;
        if (!f.partition && count && !out[count - 1].partition)
            out[count - 1].extent = dim_mul(g->dims, out[count - 1].extent, f.extent);
        else
            out[count++] = f;
    }
    if (!count)
        out[count++] = (struct factor){.extent = dim_const(g->dims, 1)};
    return (struct segment){count, out};
}

/* The part behind the leading whole factor. */
static struct segment segment_tail(const struct segment *s)
{
    uint32_t lead = s->factor[0].partition ? 0 : 1;
    return (struct segment){s->count - lead, s->factor + lead};
}

static dim segment_lead(struct graph *g, const struct segment *s)
{
    return s->factor[0].partition ? dim_const(g->dims, 1) : s->factor[0].extent;
}

static struct segment segment_join(struct graph *g, const struct segment *a, const struct segment *b,
                                   struct arena *arena)
{
    struct segment tail = segment_tail(a);
    struct factor *out = NEW_ARRAY(arena, struct factor, tail.count + 1);
    out[0].extent = dim_add(g->dims, segment_lead(g, a), segment_lead(g, b));
    if (tail.count)
        memcpy(out + 1, tail.factor, tail.count * sizeof *out);
    return (struct segment){tail.count + 1, out};
}

struct axis_layout axis_normalise(struct graph *g, const struct axis_layout *a, struct arena *arena)
{
    struct segment *out = NEW_ARRAY(arena, struct segment, a->count);
    uint32_t count = 0;
    for (uint32_t i = 0; i < a->count; i++) {
        struct segment s = segment_normalise(g, &a->segment[i], arena);
        bool last = i + 1 == a->count && !count;
        if (!last && dim_is(g->dims, segment_extent(g, &s), 0))
            continue; /* an empty past: nothing stands there */
        if (count) {
            struct segment before = segment_tail(&out[count - 1]), now = segment_tail(&s);
            if (segment_equal(&before, &now)) {
                out[count - 1] = segment_join(g, &out[count - 1], &s, arena);
                continue;
            }
        }
        out[count++] = s;
    }
    return (struct axis_layout){count, out};
}

const struct placement *placement_normalise(struct graph *g, const struct placement *p, struct arena *arena)
{
    struct placement *out = NEW(arena, struct placement);
    struct axis_layout *axis = NEW_ARRAY(arena, struct axis_layout, p->rank);
    *out = *p;
    for (uint32_t i = 0; i < p->rank; i++)
        axis[i] = axis_normalise(g, &p->axis[i], arena);
    out->axis = axis;
    if (!out->partial || !out->partial_subaxes) {
        out->partial = 0;
        out->partial_subaxes = 0;
    }
    return out;
}

/* ---- extents ---- */

uint32_t axis_subaxes(const struct graph *g, const struct axis_layout *a)
{
    uint32_t mask = 0;
    for (uint32_t i = 0; i < a->count; i++)
        for (uint32_t k = 0; k < a->segment[i].count; k++)
            if (a->segment[i].factor[k].partition)
                mask |= g->partitions.at[a->segment[i].factor[k].partition].subaxes;
    return mask;
}

uint32_t placement_subaxes(const struct graph *g, const struct placement *p)
{
    uint32_t mask = 0;
    for (uint32_t i = 0; i < p->rank; i++)
        mask |= axis_subaxes(g, &p->axis[i]);
    return mask;
}

dim segment_extent(struct graph *g, const struct segment *s)
{
    dim product = dim_const(g->dims, 1);
    for (uint32_t i = 0; i < s->count; i++)
        product = dim_mul(g->dims, product, s->factor[i].extent);
    return product;
}

dim segment_local_extent(struct graph *g, const struct segment *s)
{
    dim product = dim_const(g->dims, 1);
    for (uint32_t i = 0; i < s->count; i++) {
        const struct factor *f = &s->factor[i];
        product = dim_mul(g->dims, product, f->partition ? partition_size(g, f->partition) : f->extent);
    }
    return product;
}

dim axis_extent(struct graph *g, const struct axis_layout *a)
{
    dim sum = dim_const(g->dims, 0);
    for (uint32_t i = 0; i < a->count; i++)
        sum = dim_add(g->dims, sum, segment_extent(g, &a->segment[i]));
    return sum;
}

dim axis_local_extent(struct graph *g, const struct axis_layout *a)
{
    dim sum = dim_const(g->dims, 0);
    for (uint32_t i = 0; i < a->count; i++)
        sum = dim_add(g->dims, sum, segment_local_extent(g, &a->segment[i]));
    return sum;
}

/* ---- what a rank owns ---- */

typedef LIST(struct interval) interval_list;

static void push_interval(struct arena *arena, interval_list *list, int64_t lo, int64_t hi)
{
    if (lo >= hi)
        return;
    if (list->count && list->at[list->count - 1].hi == lo)
        list->at[list->count - 1].hi = hi;
    else
        *PUSH(arena, list) = (struct interval){lo, hi};
}

/* From indices over the outer factors to indices over those and `f`. */
static interval_list refine(const struct graph *g, const interval_list *outer, const struct factor *f, uint32_t r,
                            struct arena *arena)
{
    interval_list out = {0};
    int64_t extent = 0, lo = 0, hi;
    bool constant = dim_is_const(g->dims, f->extent, &extent);
    assert(constant);
    (void)constant;
    hi = extent;
    if (f->partition) {
        const struct partition *p = &g->partitions.at[f->partition];
        uint32_t part = mesh_part_of(&g->mesh, p->subaxes, r);
        assert(p->offset);
        lo = p->offset[part];
        hi = p->offset[part + 1];
    }
    for (uint32_t i = 0; i < outer->count; i++) {
        struct interval at = outer->at[i];
        if (lo == 0 && hi == extent)
            push_interval(arena, &out, at.lo * extent, at.hi * extent);
        else
            for (int64_t x = at.lo; x < at.hi; x++)
                push_interval(arena, &out, x * extent + lo, x * extent + hi);
    }
    return out;
}

struct intervals axis_intervals(const struct graph *g, const struct axis_layout *a, uint32_t r, struct arena *arena)
{
    interval_list all = {0};
    int64_t base = 0;
    for (uint32_t i = 0; i < a->count; i++) {
        const struct segment *s = &a->segment[i];
        interval_list at = {0};
        int64_t size = 1;
        push_interval(arena, &at, 0, 1);
        for (uint32_t k = 0; k < s->count; k++) {
            int64_t extent = 0;
            at = refine(g, &at, &s->factor[k], r, arena);
            (void)dim_is_const(g->dims, s->factor[k].extent, &extent);
            size *= extent;
        }
        for (uint32_t k = 0; k < at.count; k++)
            push_interval(arena, &all, base + at.at[k].lo, base + at.at[k].hi);
        base += size;
    }
    return (struct intervals){all.count, all.at};
}

/* ---- text ---- */

static void print_axis(const struct graph *g, const struct axis_layout *a, struct text *out)
{
    for (uint32_t i = 0; i < a->count; i++) {
        if (i)
            text_put(out, " | ");
        for (uint32_t k = 0; k < a->segment[i].count; k++) {
            const struct factor *f = &a->segment[i].factor[k];
            if (k)
                text_put(out, " x ");
            dim_print(g->dims, f->extent, out);
            if (f->partition)
                text_printf(out, "/s:%u", f->partition);
        }
    }
}

void mesh_print_subaxes(const struct mesh *m, uint32_t subaxes, struct text *out)
{
    bool first = true;
    for (uint32_t i = 0; i < m->count; i++) {
        const char *name = m->axis[i] ? m->axis[i] : "tp";
        bool all = true, leader = true;
        uint32_t ordinal = 0;
        for (uint32_t k = 0; k < m->count; k++)
            if (!strcmp(m->axis[k] ? m->axis[k] : "tp", name)) {
                all = all && (subaxes >> k & 1);
                leader = leader && k >= i;
                ordinal += k < i;
            }
        if (!(subaxes >> i & 1) || (all && !leader))
            continue;
        text_put(out, first ? "" : ", ");
        text_put(out, name);
        if (!all)
            text_printf(out, ".%u", ordinal);
        first = false;
    }
}

static const char *partial_name(int32_t kind)
{
    static const char *const name[] = {"none", "sum", "max", "min", "prod"};
    return name[kind >= 0 && kind <= 4 ? kind : 0];
}

static bool has_several_axes(const struct mesh *m)
{
    for (uint32_t i = 1; i < m->count; i++)
        if (m->axis[i] && m->axis[0] && strcmp(m->axis[i], m->axis[0]) != 0)
            return true;
    return false;
}

static void tell_factor(const struct graph *g, const struct factor *f, struct text *out)
{
    dim_print(g->dims, f->extent, out);
    if (!f->partition)
        return;
    text_printf(out, "/%u", g->partitions.at[f->partition].parts);
    if (has_several_axes(&g->mesh)) {
        text_put(out, ":");
        mesh_print_subaxes(&g->mesh, g->partitions.at[f->partition].subaxes, out);
    }
}

void placement_tell(const struct graph *g, const struct placement *p, struct text *out)
{
    text_put(out, "[");
    for (uint32_t i = 0; i < p->rank; i++)
        for (uint32_t k = 0; k < p->axis[i].count; k++) {
            text_put(out, k ? " | " : i ? ", " : "");
            for (uint32_t f = 0; f < p->axis[i].segment[k].count; f++) {
                text_put(out, f ? " x " : "");
                tell_factor(g, &p->axis[i].segment[k].factor[f], out);
            }
        }
    text_put(out, "]");
    if (p->partial)
        text_printf(out, " partial(%s)", partial_name(p->partial));
}

void placement_print(const struct graph *g, const struct placement *p, struct text *out)
{
    text_put(out, "[");
    for (uint32_t i = 0; i < p->rank; i++) {
        text_put(out, i ? ", " : "");
        dim_print(g->dims, axis_extent((struct graph *)(uintptr_t)g, &p->axis[i]), out);
    }
    text_put(out, "]");
    bool open = false;
    for (uint32_t i = 0; i < p->rank; i++) {
        if (axis_is_whole(&p->axis[i]))
            continue;
        text_printf(out, "%s%u: ", open ? "; axis " : "{axis ", i);
        print_axis(g, &p->axis[i], out);
        open = true;
    }
    if (open)
        text_put(out, "}");
    if (p->partial) {
        text_printf(out, " partial(%s: ", partial_name(p->partial));
        mesh_print_subaxes(&g->mesh, p->partial_subaxes, out);
        text_put(out, ")");
    }
}

const char *layer_style_name(layer_style s)
{
    switch (s) {
    case STYLE_REPLICATED:
        return "replicated";
    case STYLE_COLUMN:
        return "column";
    case STYLE_ROW:
        return "row";
    case STYLE_VOCABULARY:
        return "vocabulary";
    case STYLE_FEATURE:
        return "feature";
    case STYLE_CROSS_ENTROPY:
        return "cross_entropy";
    }
    return "?";
}
