/* passes/check_span.c - the algebra of spans: which elements of an original axis a rank holds, and in what order. */
#include "passes/check.h"

#include <assert.h>

static dim one(struct checker *c)
{
    return dim_const(c->program->dims, 1);
}
static dim zero(struct checker *c)
{
    return dim_const(c->program->dims, 0);
}

static dim part_local(struct checker *c, const struct part *p)
{
    return p->partition == 0 ? p->extent : partition_size(c->program, p->partition);
}

static dim piece_extent(struct checker *c, const struct piece *p)
{
    dim d = one(c);
    for (uint32_t i = 0; i < p->count; i++) {
        d = dim_mul(c->program->dims, d, p->part[i].extent);
    }
    return d;
}

static dim piece_local(struct checker *c, const struct piece *p)
{
    dim d = one(c);
    for (uint32_t i = 0; i < p->count; i++) {
        d = dim_mul(c->program->dims, d, part_local(c, &p->part[i]));
    }
    return d;
}

static bool piece_whole(const struct piece *p)
{
    for (uint32_t i = 0; i < p->count; i++) {
        if (p->part[i].partition != 0) {
            return false;
        }
    }
    return true;
}

static uint32_t piece_mask(struct checker *c, const struct piece *p)
{
    uint32_t mask = 0;
    for (uint32_t i = 0; i < p->count; i++) {
        if (p->part[i].partition != 0) {
            mask |= c->program->partitions.at[p->part[i].partition].subaxes;
        }
    }
    return mask;
}

static struct piece piece_new(struct checker *c, dim base, uint32_t capacity)
{
    return (struct piece){base, 0, NEW_ARRAY(c->arena, struct part, capacity + 1)};
}

struct span span_whole(struct checker *c, dim extent)
{
    struct piece *p = NEW(c->arena, struct piece);
    *p = piece_new(c, zero(c), 1);
    p->part[p->count++] = (struct part){extent, 0};
    return (struct span){1, p};
}

struct span span_of_claim(struct checker *c, const struct axis_layout *a)
{
    struct span s = {a->count, NEW_ARRAY(c->arena, struct piece, a->count)};
    dim base = zero(c);
    for (uint32_t i = 0; i < a->count; i++) {
        s.piece[i] = piece_new(c, base, a->segment[i].count);
        for (uint32_t f = 0; f < a->segment[i].count; f++) {
            s.piece[i].part[s.piece[i].count++] =
                (struct part){a->segment[i].factor[f].extent, a->segment[i].factor[f].partition};
        }
        base = dim_add(c->program->dims, base, piece_extent(c, &s.piece[i]));
    }
    return span_normal(c, &s);
}

/* Parts of extent 1 go, neighbouring whole parts become one. */
static struct piece piece_normal(struct checker *c, const struct piece *p)
{
    struct piece n = piece_new(c, p->base, p->count);
    for (uint32_t i = 0; i < p->count; i++) {
        if (dim_is(c->program->dims, p->part[i].extent, 1) && p->part[i].partition == 0) {
            continue;
        }
        struct part *last = n.count == 0 ? NULL : &n.part[n.count - 1];
        if (last != NULL && last->partition == 0 && p->part[i].partition == 0) {
            last->extent = dim_mul(c->program->dims, last->extent, p->part[i].extent);
        } else {
            n.part[n.count++] = p->part[i];
        }
    }
    if (n.count == 0) {
        n.part[n.count++] = (struct part){one(c), 0};
    }
    return n;
}

/* A normal piece is [lead whole,] then a cut part and the rest: which part the rest begins at. */
static uint32_t rest_at(const struct piece *p)
{
    return p->part[0].partition == 0 ? 1 : 0;
}

static bool same_rest(const struct piece *a, const struct piece *b)
{
    uint32_t i = rest_at(a), k = rest_at(b);
    if (a->count - i != b->count - k) {
        return false;
    }
    for (; i < a->count; i++, k++) {
        if (a->part[i].extent != b->part[k].extent || a->part[i].partition != b->part[k].partition) {
            return false;
        }
    }
    return true;
}

/* a x R, then b x R right behind it: (a + b) x R. */
static bool merge(struct checker *c, struct piece *a, const struct piece *b)
{
    struct dims *t = c->program->dims;
    if (b->base != dim_add(t, a->base, piece_extent(c, a)) || !same_rest(a, b)) {
        return false;
    }
    dim lead = dim_add(t, rest_at(a) == 1 ? a->part[0].extent : one(c), rest_at(b) == 1 ? b->part[0].extent : one(c));
    struct piece m = piece_new(c, a->base, a->count + 1);
    m.part[m.count++] = (struct part){lead, 0};
    for (uint32_t i = rest_at(a); i < a->count; i++) {
        m.part[m.count++] = a->part[i];
    }
    *a = m;
    return true;
}

struct span span_normal(struct checker *c, const struct span *s)
{
    struct span n = {0, NEW_ARRAY(c->arena, struct piece, s->count + 1)};
    for (uint32_t i = 0; i < s->count; i++) {
        struct piece p = piece_normal(c, &s->piece[i]);
        if (dim_is(c->program->dims, piece_extent(c, &p), 0) && s->count > 1) {
            continue;
        }
        if (n.count == 0 || !merge(c, &n.piece[n.count - 1], &p)) {
            n.piece[n.count++] = p;
        }
    }
    return n.count == 0 ? span_whole(c, zero(c)) : n;
}

bool span_same(const struct span *a, const struct span *b)
{
    if (a->count != b->count) {
        return false;
    }
    for (uint32_t i = 0; i < a->count; i++) {
        const struct piece *p = &a->piece[i], *q = &b->piece[i];
        if (p->base != q->base || p->count != q->count || memcmp(p->part, q->part, p->count * sizeof *p->part) != 0) {
            return false;
        }
    }
    return true;
}

bool span_is_whole(const struct span *s)
{
    return s->count == 1 && piece_whole(&s->piece[0]);
}

dim span_local(struct checker *c, const struct span *s)
{
    dim d = zero(c);
    for (uint32_t i = 0; i < s->count; i++) {
        d = dim_add(c->program->dims, d, piece_local(c, &s->piece[i]));
    }
    return d;
}

dim span_extent(struct checker *c, const struct span *s)
{
    dim d = zero(c);
    for (uint32_t i = 0; i < s->count; i++) {
        d = dim_add(c->program->dims, d, piece_extent(c, &s->piece[i]));
    }
    return d;
}

bool span_is_complete(struct checker *c, const struct span *s, dim extent)
{
    dim next = zero(c);
    for (uint32_t i = 0; i < s->count; i++) {
        if (s->piece[i].base != next) {
            return false;
        }
        next = dim_add(c->program->dims, next, piece_extent(c, &s->piece[i]));
    }
    return next == dim_resolve(c->program->dims, extent);
}

uint32_t span_mask(struct checker *c, const struct span *s)
{
    uint32_t mask = 0;
    for (uint32_t i = 0; i < s->count; i++) {
        mask |= piece_mask(c, &s->piece[i]);
    }
    return mask;
}

bool span_evenly_cut(struct checker *c, const struct span *s)
{
    for (uint32_t i = 1; i < s->count; i++) {
        if (piece_mask(c, &s->piece[i]) != piece_mask(c, &s->piece[0])) {
            return false;
        }
    }
    return true;
}

uint32_t span_sole(const struct span *s)
{
    return s->count == 1 && s->piece[0].count == 1 ? s->piece[0].part[0].partition : 0;
}

/* Rows [from, from + rows) of the leading part of a piece a x R, a whole. `unit` is R's extent in the terms of from and rows. */
static bool piece_rows(struct checker *c, const struct piece *p, dim from, dim size, bool local, struct piece *out)
{
    struct dims *t = c->program->dims;
    if (p->part[0].partition != 0) {
        return false;
    }
    dim whole_unit = one(c), unit = one(c);
    for (uint32_t i = 1; i < p->count; i++) {
        whole_unit = dim_mul(t, whole_unit, p->part[i].extent);
        unit = dim_mul(t, unit, local ? part_local(c, &p->part[i]) : p->part[i].extent);
    }
    dim first = dim_exact_div(t, from, unit), rows = dim_exact_div(t, size, unit);
    if (first == DIM_NONE || rows == DIM_NONE) {
        return false;
    }
    *out = piece_new(c, dim_add(t, p->base, dim_mul(t, first, whole_unit)), p->count);
    out->part[out->count++] = (struct part){rows, 0};
    for (uint32_t i = 1; i < p->count; i++) {
        out->part[out->count++] = p->part[i];
    }
    return true;
}

/* Both slices: positions run over local or original extents. */
static bool slice(struct checker *c, const struct span *s, dim start, dim size, bool local, struct span *out,
                  dim *local_start)
{
    struct dims *t = c->program->dims;
    dim position = zero(c), here = zero(c), end = dim_add(t, start, size);
    bool begun = false, done = false;
    *out = (struct span){0, NEW_ARRAY(c->arena, struct piece, s->count + 1)};
    for (uint32_t i = 0; i < s->count && !done; i++) {
        const struct piece *p = &s->piece[i];
        dim length = local ? piece_local(c, p) : piece_extent(c, p), next = dim_add(t, position, length);
        if (!begun && position != start &&
            !(dim_provably_ge(t, start, position) && (next != start && !dim_provably_ge(t, start, next)))) {
            position = next; /* the slice begins behind this piece */
            here = dim_add(t, here, piece_local(c, p));
            continue;
        }
        dim from = begun ? zero(c) : dim_sub(t, start, position);
        bool whole_tail = dim_provably_ge(t, end, next);
        dim take = dim_sub(t, whole_tail ? next : end, begun ? position : start);
        struct piece *q = &out->piece[out->count];
        if (dim_is(t, from, 0) && take == length) {
            *q = *p;
        } else if (!piece_rows(c, p, from, take, local, q)) {
            return false;
        }
        if (!begun) { /* what is held before it: all pieces so far, and the rows of this one that are left out */
            struct piece skipped;
            if (!dim_is(t, from, 0)) {
                if (!piece_rows(c, p, zero(c), from, local, &skipped)) {
                    return false;
                }
                here = dim_add(t, here, piece_local(c, &skipped));
            }
            if (local_start != NULL) {
                *local_start = here;
            }
        }
        out->count++;
        begun = true;
        position = next;
        done = end == next || !whole_tail;
    }
    if (!begun || (!done && position != end)) {
        return false;
    }
    return true;
}

bool span_slice_local(struct checker *c, const struct span *s, dim start, dim size, struct span *out)
{
    return slice(c, s, start, size, true, out, NULL);
}

bool span_slice_whole(struct checker *c, const struct span *s, dim start, dim size, struct span *out, dim *local_start)
{
    if (!slice(c, s, start, size, false, out, local_start)) {
        return false;
    }
    for (uint32_t i = 0; i < out->count; i++) { /* a value of its own now: positions count from its first element */
        out->piece[i].base = dim_sub(c->program->dims, out->piece[i].base, start);
    }
    return true;
}

struct span span_join(struct checker *c, const struct span *a, const struct span *b, dim shift)
{
    struct span s = {a->count + b->count, NEW_ARRAY(c->arena, struct piece, a->count + b->count + 1)};
    memcpy(s.piece, a->piece, a->count * sizeof *s.piece);
    for (uint32_t i = 0; i < b->count; i++) {
        s.piece[a->count + i] = b->piece[i];
        s.piece[a->count + i].base = dim_add(c->program->dims, b->piece[i].base, shift);
    }
    return s;
}

/* Moves parts off the front of *rest until their extents (local where `local`) multiply to `wanted`; a whole part may be divided. */
static bool take_front(struct checker *c, struct piece *rest, dim wanted, bool local, struct piece *out)
{
    struct dims *t = c->program->dims;
    while (!dim_is(t, wanted, 1)) {
        if (rest->count == 0) {
            return false;
        }
        struct part *p = &rest->part[0];
        dim size = local ? part_local(c, p) : p->extent, left = dim_exact_div(t, wanted, size);
        if (left != DIM_NONE) {
            out->part[out->count++] = *p;
            rest->part++;
            rest->count--;
            wanted = left;
            continue;
        }
        left = p->partition == 0 ? dim_exact_div(t, p->extent, wanted) : DIM_NONE;
        if (left == DIM_NONE) {
            return false;
        }
        out->part[out->count++] = (struct part){wanted, 0};
        p->extent = left;
        break;
    }
    return true;
}

/* span_recut where the first `skip` parts behind `outer` belong before the middle too: a rank holds one of each, so the product does not tell. */
static bool recut_behind(struct checker *c, const struct piece *whole, dim outer, uint32_t skip, dim middle, dim inner,
                         uint32_t from, uint32_t to, struct span *out)
{
    struct piece rest = piece_new(c, whole->base, whole->count), p = piece_new(c, whole->base, 2 * whole->count + 4);
    memcpy(rest.part, whole->part, whole->count * sizeof *rest.part);
    rest.count = whole->count;
    if (!take_front(c, &rest, outer, true, &p)) {
        return false;
    }
    for (; skip > 0; skip--) {
        if (rest.count == 0 || !dim_is(c->program->dims, part_local(c, &rest.part[0]), 1)) {
            return false;
        }
        p.part[p.count++] = rest.part[0];
        rest.part++;
        rest.count--;
    }
    if (from != 0) {
        if (rest.count == 0 || rest.part[0].partition != from || rest.part[0].extent != middle) {
            return false;
        }
        rest.part++;
        rest.count--;
    } else {
        struct piece cut = piece_new(c, whole->base, whole->count);
        if (!take_front(c, &rest, middle, false, &cut) || !piece_whole(&cut)) {
            return false;
        }
    }
    p.part[p.count++] = (struct part){middle, to};
    if (piece_local(c, &rest) != inner) {
        return false;
    }
    for (uint32_t i = 0; i < rest.count; i++) {
        p.part[p.count++] = rest.part[i];
    }
    struct span r = {1, &p};
    *out = span_normal(c, &r);
    return true;
}

bool span_recut(struct checker *c, const struct span *s, dim outer, dim middle, dim inner, uint32_t from, uint32_t to,
                struct span *out)
{
    for (uint32_t skip = 0; s->count == 1 && skip <= s->piece[0].count; skip++) {
        if (recut_behind(c, &s->piece[0], outer, skip, middle, inner, from, to, out)) {
            return true;
        }
    }
    return false;
}

/* Moves parts off the back of p until their extents multiply to `wanted`, into `out` (in order). */
static bool take_back(struct checker *c, struct piece *p, dim wanted, struct piece *out)
{
    struct dims *t = c->program->dims;
    struct part taken[64];
    uint32_t n = 0;
    while (!dim_is(t, wanted, 1)) {
        if (p->count == 0 || n == 64) {
            return false;
        }
        struct part *last = &p->part[p->count - 1];
        dim left = dim_exact_div(t, wanted, last->extent);
        if (left != DIM_NONE) {
            taken[n++] = *last;
            p->count--;
            wanted = left;
            continue;
        }
        left = last->partition == 0 ? dim_exact_div(t, last->extent, wanted) : DIM_NONE;
        if (left == DIM_NONE) {
            return false;
        }
        taken[n++] = (struct part){wanted, 0};
        last->extent = left;
        break;
    }
    *out = piece_new(c, zero(c), n + 1);
    while (n > 0) {
        out->part[out->count++] = taken[--n];
    }
    if (out->count == 0) {
        out->part[out->count++] = (struct part){one(c), 0};
    }
    return true;
}

static bool pieces_same(const struct piece *a, const struct piece *b)
{
    return a->count == b->count && memcmp(a->part, b->part, a->count * sizeof *a->part) == 0;
}

/* One group: axes from[0..n) and to[0..m) of equal product. Only the outermost axis may have several pieces; what is inside
 * it must then end alike in every piece. */
static bool reshape_group(struct checker *c, const struct span *from, uint32_t n, const dim *shape, struct span *to,
                          uint32_t m)
{
    struct dims *t = c->program->dims;
    for (uint32_t i = 1; i < n; i++) {
        if (from[i].count != 1) {
            return false;
        }
    }
    uint32_t count = from[0].count;
    struct piece *flat = NEW_ARRAY(c->arena, struct piece, count);
    for (uint32_t s = 0; s < count; s++) {
        uint32_t parts = from[0].piece[s].count;
        for (uint32_t i = 1; i < n; i++) {
            parts += from[i].piece[0].count;
        }
        flat[s] = piece_new(c, zero(c), parts);
        for (uint32_t i = 0; i < n; i++) {
            const struct piece *p = &from[i].piece[i == 0 ? s : 0];
            memcpy(&flat[s].part[flat[s].count], p->part, p->count * sizeof *p->part);
            flat[s].count += p->count;
        }
        flat[s] = piece_normal(c, &flat[s]); /* what is whole side by side may be divided anew */
    }
    for (uint32_t i = m; i-- > 1;) {
        struct piece *common = NEW(c->arena, struct piece), other;
        for (uint32_t s = 0; s < count; s++) {
            if (!take_back(c, &flat[s], shape[i], s == 0 ? common : &other)) {
                return false;
            }
            *(s == 0 ? common : &other) = piece_normal(c, s == 0 ? common : &other);
            if (s > 0 && !pieces_same(common, &other)) {
                return false;
            }
        }
        to[i] = (struct span){1, common};
    }
    dim base = zero(c);
    for (uint32_t s = 0; s < count; s++) {
        if (flat[s].count == 0) {
            flat[s].part[flat[s].count++] = (struct part){one(c), 0};
        }
        flat[s].base = base;
        base = dim_add(t, base, piece_extent(c, &flat[s]));
    }
    struct span outer = {count, flat};
    to[0] = span_normal(c, &outer);
    return base == shape[0];
}

static bool all_whole(const struct span *s, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        if (!span_is_whole(&s[i])) {
            return false;
        }
    }
    return true;
}

bool span_reshape(struct checker *c, uint32_t rank, const struct span *from, uint32_t to_rank, const dim *shape,
                  struct span *to)
{
    struct dims *t = c->program->dims;
    uint32_t i = 0, k = 0;
    while (i < rank || k < to_rank) {
        if (all_whole(&from[i], rank - i)) { /* nothing left to follow */
            for (; k < to_rank; k++) {
                to[k] = span_whole(c, shape[k]);
            }
            return true;
        }
        uint32_t first = i, start = k;
        dim a = i < rank ? span_extent(c, &from[i++]) : one(c), b = k < to_rank ? shape[k++] : one(c);
        while (a != b) {
            if (i < rank && (dim_exact_div(t, b, a) != DIM_NONE || k == to_rank)) {
                a = dim_mul(t, a, span_extent(c, &from[i++]));
            } else if (k < to_rank) {
                b = dim_mul(t, b, shape[k++]);
            } else {
                return false;
            }
        }
        if (first == i || start == k) {
            for (uint32_t x = start; x < k; x++) {
                to[x] = span_whole(c, shape[x]);
            }
            if (!all_whole(&from[first], i - first)) {
                return false;
            }
            continue;
        }
        if (all_whole(&from[first], i - first)) {
            for (uint32_t x = start; x < k; x++) {
                to[x] = span_whole(c, shape[x]);
            }
        } else if (!reshape_group(c, &from[first], i - first, &shape[start], &to[start], k - start)) {
            return false;
        }
    }
    return true;
}
