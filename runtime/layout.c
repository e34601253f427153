/* runtime/layout.c - see layout.h. An axis is walked factor by factor, outermost first; what a rank holds of the innermost factors is one run. */
#include "runtime/layout.h"

/* ---- which elements ----------------------------------------------------------------------------------------------- */

struct span { /* a factor in numbers: this rank holds [lo, hi) of extent */
    int64_t extent, lo, hi;
};

struct walk {
    struct arena *arena;
    struct intervals *to;
    uint32_t capacity;
};

static void add_run(struct walk *w, int64_t lo, int64_t hi)
{
    struct intervals *t = w->to;
    if (lo == hi)
        return;
    if (t->count && t->at[t->count - 1].hi == lo) {
        t->at[t->count - 1].hi = hi;
        return;
    }
    if (t->count == w->capacity)
        t->at = list_grow(w->arena, t->at, &w->capacity, t->count, sizeof *t->at);
    t->at[t->count++] = (struct interval){lo, hi};
}

static bool span_of(const struct graph *g, const struct factor *f, uint32_t r, const int64_t *of, struct span *out)
{
    if (!dim_eval(g->dims, f->extent, of, &out->extent) || out->extent < 0)
        return false;
    out->lo = 0;
    out->hi = out->extent;
    if (f->partition == 0)
        return true;
    uint32_t part = mesh_part_of(&g->mesh, g->partitions.at[f->partition].subaxes, r);
    return partition_range(g, f->partition, part, of, &out->lo, &out->hi) && 0 <= out->lo && out->lo <= out->hi &&
           out->hi <= out->extent;
}

/* The runs of one segment that begins at `base`: every combination of the outer factors' indices, each with the run of the innermost factor. */
static bool walk_segment(struct walk *w, const struct span *span, uint32_t count, int64_t base)
{
    int64_t combinations = 1;
    for (uint32_t f = 0; f + 1 < count; f++)
        if (!i64_mul(combinations, span[f].hi - span[f].lo, &combinations))
            return false;
    const struct span *last = &span[count - 1];
    for (int64_t i = 0; i < combinations; i++) {
        int64_t rest = i, at = 0, weight = last->extent;
        for (uint32_t f = count - 1; f-- > 0;) {
            int64_t held = span[f].hi - span[f].lo;
            at += (rest % held + span[f].lo) * weight;
            rest /= held;
            weight *= span[f].extent;
        }
        add_run(w, base + at + last->lo, base + at + last->hi);
    }
    return true;
}

static bool segment_of(const struct graph *g, const struct segment *s, uint32_t r, const int64_t *of, struct span *span,
                       int64_t *extent)
{
    *extent = 1;
    for (uint32_t f = 0; f < s->count; f++)
        if (!span_of(g, &s->factor[f], r, of, &span[f]) || !i64_mul(*extent, span[f].extent, extent))
            return false;
    return true;
}

/* Whole factors behind the last cut one are one factor: fewer runs to walk. */
static uint32_t merge_spans(struct span *span, uint32_t count)
{
    uint32_t made = 0;
    for (uint32_t f = 0; f < count; f++) {
        if (made && span[f].lo == 0 && span[f].hi == span[f].extent) {
            span[made - 1].extent *= span[f].extent;
            span[made - 1].lo *= span[f].extent;
            span[made - 1].hi *= span[f].extent;
        } else {
            span[made++] = span[f];
        }
    }
    return made;
}

bool layout_of(const struct graph *g, const struct placement *p, uint32_t r, const int64_t *of, struct arena *arena,
               struct layout *out)
{
    *out = (struct layout){.rank = p->rank};
    for (uint32_t a = 0; a < p->rank; a++) {
        struct walk w = {.arena = arena, .to = &out->held[a]};
        for (uint32_t s = 0; s < p->axis[a].count; s++) {
            const struct segment *segment = &p->axis[a].segment[s];
            struct span *span = NEW_ARRAY(arena, struct span, segment->count + 1);
            int64_t extent = 0;
            if (!segment_of(g, segment, r, of, span, &extent))
                return false;
            if (extent > 0 && !walk_segment(&w, span, merge_spans(span, segment->count), out->whole[a]))
                return false;
            if (!i64_add(out->whole[a], extent, &out->whole[a]))
                return false;
        }
        for (uint32_t i = 0; i < out->held[a].count; i++)
            out->local[a] += out->held[a].at[i].hi - out->held[a].at[i].lo;
    }
    return true;
}

bool layout_whole(const struct graph *g, const struct placement *p, const int64_t *of, int64_t *shape)
{
    for (uint32_t a = 0; a < p->rank; a++) {
        shape[a] = 0;
        for (uint32_t s = 0; s < p->axis[a].count; s++) {
            const struct segment *segment = &p->axis[a].segment[s];
            int64_t extent = 1, e = 0;
            for (uint32_t f = 0; f < segment->count; f++)
                if (!dim_eval(g->dims, segment->factor[f].extent, of, &e) || e < 0 || !i64_mul(extent, e, &extent))
                    return false;
            if (!i64_add(shape[a], extent, &shape[a]))
                return false;
        }
    }
    return true;
}

/* ---- copying ------------------------------------------------------------------------------------------------------- */

struct transfer {
    const struct layout *layout;
    const char *from;
    char *to;
    bool cut;
    uint32_t last;           /* innermost axis that is walked; behind it all is held */
    size_t stride[MAX_RANK]; /* bytes of one step along an axis of the whole */
};

/* Moves the local side on by what it copies; `at` is the whole's offset. Recursion is as deep as there are axes. */
static void transfer_axis(struct transfer *t, uint32_t a, size_t at)
{
    const struct intervals *held = &t->layout->held[a];
    for (uint32_t i = 0; i < held->count; i++) {
        if (a < t->last) {
            for (int64_t k = held->at[i].lo; k < held->at[i].hi; k++)
                transfer_axis(t, a + 1, at + (size_t)k * t->stride[a]);
            continue;
        }
        size_t whole = at + (size_t)held->at[i].lo * t->stride[a];
        size_t bytes = (size_t)(held->at[i].hi - held->at[i].lo) * t->stride[a];
        memcpy(t->to + (t->cut ? 0 : whole), t->from + (t->cut ? whole : 0), bytes);
        if (t->cut)
            t->to += bytes;
        else
            t->from += bytes;
    }
}

static void transfer(const struct layout *l, size_t size, const void *from, void *to, bool cut)
{
    struct transfer t = {.layout = l, .from = from, .to = to, .cut = cut};
    size_t bytes = size, local = size;
    for (uint32_t a = l->rank; a-- > 0;) {
        t.stride[a] = bytes;
        bytes *= (size_t)l->whole[a];
        local *= (size_t)l->local[a];
        if (t.last == 0 && l->local[a] != l->whole[a])
            t.last = a;
    }
    if (local == 0)
        return;
    if (l->rank == 0)
        memcpy(to, from, size);
    else
        transfer_axis(&t, 0, 0);
}

void layout_cut(const struct layout *l, size_t size, const void *whole, void *local)
{
    transfer(l, size, whole, local, true);
}

void layout_join(const struct layout *l, size_t size, const void *local, void *whole)
{
    transfer(l, size, local, whole, false);
}
