/* passes/check_hold.c - are the intervals of a param that a rank loads what a span says? Run by run: elements that lie one behind another on the rank and
 * in the whole axis are compared at once, so that the work is that of the intervals, not of the elements. Start with span_holds.
 */
#include "passes/check.h"

struct range { /* of one part, on one rank */
    int64_t extent, lo, hi;
};

static bool part_range(struct checker *c, const struct part *p, uint32_t r, struct range *out)
{
    const struct graph *g = c->program;
    if (!dim_is_const(g->dims, p->extent, &out->extent)) {
        return false;
    }
    out->lo = 0;
    out->hi = out->extent;
    if (p->partition != 0) {
        const struct partition *q = &g->partitions.at[p->partition];
        if (q->offset == NULL) {
            return false;
        }
        uint32_t part = mesh_part_of(&g->mesh, q->subaxes, r);
        out->lo = q->offset[part];
        out->hi = q->offset[part + 1];
    }
    return true;
}

/* A piece in numbers: how many elements the rank holds, and how many of them at a time lie one behind another. */
struct held {
    uint32_t count;
    struct range *part; /* outermost first */
    int64_t base, elements, run;
};

static bool hold(struct checker *c, struct arena *arena, const struct piece *p, uint32_t r, struct held *out)
{
    bool inner = true; /* no cut part so far */
    *out = (struct held){.count = p->count, .part = NEW_ARRAY(arena, struct range, p->count), .elements = 1, .run = 1};
    if (!dim_is_const(c->program->dims, p->base, &out->base)) {
        return false;
    }
    for (uint32_t i = p->count; i-- > 0;) {
        struct range *x = &out->part[i];
        if (!part_range(c, &p->part[i], r, x) || x->lo < 0 || x->hi < x->lo || x->hi > x->extent ||
            !i64_mul(out->elements, x->hi - x->lo, &out->elements)) {
            return false;
        }
        if (inner) {
            out->run = out->elements;
        }
        inner = inner && x->lo == 0 && x->hi == x->extent;
    }
    return true;
}

/* The whole index of local element l. */
static int64_t whole_index(const struct held *h, int64_t l)
{
    int64_t stride = 1, index = h->base;
    for (uint32_t i = h->count; i-- > 0;) {
        const struct range *x = &h->part[i];
        index += (x->lo + l % (x->hi - x->lo)) * stride;
        l /= x->hi - x->lo;
        stride *= x->extent;
    }
    return index;
}

/* Where in a list of intervals the next element is. */
struct cursor {
    const struct intervals *of;
    uint32_t at;
    int64_t next;
};

/* Takes the elements [first, first + count) of the whole axis; false when others come next. */
static bool take(struct cursor *k, int64_t first, int64_t count)
{
    while (count > 0) {
        if (k->at < k->of->count && k->next == k->of->at[k->at].hi) {
            k->at++;
            k->next = k->at < k->of->count ? k->of->at[k->at].lo : 0;
        }
        if (k->at >= k->of->count || k->next != first) {
            return false;
        }
        int64_t left = k->of->at[k->at].hi - k->next, n = count < left ? count : left;
        if (n <= 0) {
            return false;
        }
        k->next += n;
        first += n;
        count -= n;
    }
    return true;
}

bool span_holds(struct checker *c, const struct span *s, uint32_t r, const struct intervals *of)
{
    struct cursor k = {of, 0, of->count > 0 ? of->at[0].lo : 0};
    struct arena_mark mark = arena_mark(c->arena);
    bool good = true;
    for (uint32_t i = 0; i < s->count && good; i++) {
        struct held h;
        good = hold(c, c->arena, &s->piece[i], r, &h);
        for (int64_t l = 0; good && l < h.elements; l += h.run) {
            good = take(&k, whole_index(&h, l), h.run);
        }
    }
    arena_rewind(c->arena, mark);
    return good && (of->count == 0 || (k.at == of->count - 1 && k.next == of->at[k.at].hi));
}
