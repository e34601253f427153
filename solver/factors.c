/* solver/factors.c - axes as trees of factors, tied by union-find.
 *
 * Invariant: tree_find(t) is the node that t stands for; a LEAF is a factor, a PROD an ordered product (outermost first), a SUM concatenated
 * pieces. Extents of children multiply or add up to the node's. Nodes are refined in place: a leaf becomes a PROD or a SUM, never the other way.
 * What cannot be matched is blocked, never guessed. Recursion goes down a tree, whose depth is bounded by the refinements of one
 * axis, not by the graph. Start with tree_unify and tree_align.
 */
#include "solver/internal.h"

enum { DEEPEST = 60 };

tree tree_find(const struct solver *s, tree t)
{
    while (s->trees.at[t].link)
        t = s->trees.at[t].link;
    return t;
}

/* As tree_find, and shortens the way. */
static tree find(struct solver *s, tree t)
{
    tree root = tree_find(s, t);
    while (s->trees.at[t].link && s->trees.at[t].link != root) {
        tree next = s->trees.at[t].link;
        s->trees.at[t].link = root;
        t = next;
    }
    return root;
}

void trees_flatten(struct solver *s)
{
    for (tree t = 1; t < s->trees.count; t++)
        (void)find(s, t);
}

static struct tree_node *at(struct solver *s, tree t)
{
    return &s->trees.at[t];
}

tree tree_leaf(struct solver *s, dim extent)
{
    struct tree_node *n = PUSH(s->arena, &s->trees);
    n->extent = extent;
    return s->trees.count - 1;
}

static bool is_one(const struct solver *s, dim d)
{
    return dim_is(s->g->dims, d, 1);
}

static bool constant(const struct solver *s, dim d, int64_t *out)
{
    return dim_is_const(s->g->dims, d, out);
}

static void block_below(struct solver *s, tree t, enum block why, value node, unsigned depth)
{
    t = find(s, t);
    at(s, t)->blocks |= (uint16_t)(1u << why);
    if (!at(s, t)->block) {
        at(s, t)->block = (uint8_t)why;
        at(s, t)->why = node;
    }
    for (uint32_t i = 0; i < at(s, t)->count && depth < DEEPEST; i++)
        block_below(s, at(s, t)->child[i], why, node, depth + 1);
}

void tree_block(struct solver *s, tree t, enum block why, value node)
{
    block_below(s, t, why, node, 0);
}

/* All reasons that block `from` block `to`, the first one first. */
static void block_alike(struct solver *s, tree to, tree from)
{
    uint16_t blocks = at(s, from)->blocks;
    value node = at(s, from)->why;
    if (at(s, from)->block)
        tree_block(s, to, (enum block)at(s, from)->block, node);
    for (int why = 1; blocks >> why; why++)
        if (blocks >> why & 1)
            tree_block(s, to, (enum block)why, node);
}

static void leaves_below(const struct solver *s, tree t, struct arena *arena, tree_list *out, unsigned depth)
{
    t = tree_find(s, t);
    const struct tree_node *n = &s->trees.at[t];
    if (n->kind == TREE_LEAF) {
        *PUSH(arena, out) = t;
        return;
    }
    for (uint32_t i = 0; i < n->count && depth < DEEPEST; i++)
        leaves_below(s, n->child[i], arena, out, depth + 1);
}

void tree_leaves(const struct solver *s, tree t, struct arena *arena, tree_list *out)
{
    leaves_below(s, t, arena, out, 0);
}

static bool contains(const struct solver *s, tree t, tree leaf, unsigned depth)
{
    t = tree_find(s, t);
    if (t == leaf || depth >= DEEPEST)
        return true; /* too deep counts as a cycle: refused */
    for (uint32_t i = 0; i < s->trees.at[t].count; i++)
        if (contains(s, s->trees.at[t].child[i], leaf, depth + 1))
            return true;
    return false;
}

/* Makes leaf t the product or sum of two. */
static void refine(struct solver *s, tree t, enum tree_kind kind, tree first, tree second)
{
    tree *child = NEW_ARRAY(s->arena, tree, 2);
    child[0] = first;
    child[1] = second;
    at(s, t)->kind = (uint8_t)kind;
    at(s, t)->child = child;
    at(s, t)->count = 2;
    block_alike(s, first, t);
    block_alike(s, second, t);
}

/* f := g. */
static void set_to(struct solver *s, tree f, tree g, value node)
{
    if (f == g)
        return;
    at(s, f)->link = g;
    *PUSH(s->arena, &s->ties) = (struct tie){f, g, node};
    block_alike(s, g, f);
}

/* Appends the factors of t, products opened, extent 1 left out. */
static void factors_of(struct solver *s, tree t, tree_list *out, unsigned depth)
{
    t = find(s, t);
    if (is_one(s, at(s, t)->extent))
        return;
    if (at(s, t)->kind != TREE_PROD || depth >= DEEPEST) {
        *PUSH(s->temporary, out) = t;
        return;
    }
    for (uint32_t i = 0; i < at(s, t)->count; i++)
        factors_of(s, at(s, t)->child[i], out, depth + 1);
}

/* The product of factors as one node. */
static tree product_of(struct solver *s, uint32_t count, const tree *factor, dim extent)
{
    tree_list open = {0};
    for (uint32_t i = 0; i < count; i++)
        factors_of(s, factor[i], &open, 0);
    if (open.count == 0)
        return tree_leaf(s, extent);
    if (open.count == 1)
        return open.at[0];
    tree t = tree_leaf(s, extent);
    at(s, t)->kind = TREE_PROD;
    at(s, t)->count = open.count;
    at(s, t)->child = (tree *)arena_copy(s->arena, open.at, open.count * sizeof(tree));
    return t;
}

/* a / b for factors: constants without remainder, or polynomials. DIM_NONE when not. */
static dim quotient(struct solver *s, dim a, dim b)
{
    int64_t x, y;
    bool xc = constant(s, a, &x), yc = constant(s, b, &y);
    if (xc && yc)
        return y > 0 && x % y == 0 ? dim_const(s->g->dims, x / y) : DIM_NONE;
    if (xc)
        return DIM_NONE;
    return dim_exact_div(s->g->dims, a, b);
}

/* Makes t an outer factor times an inner one of extent `inner`; its parts in out[2]. */
static bool split(struct solver *s, tree t, dim outer, dim inner, tree out[2])
{
    t = find(s, t);
    if (at(s, t)->kind == TREE_LEAF) {
        out[0] = tree_leaf(s, outer);
        out[1] = tree_leaf(s, inner);
        refine(s, t, TREE_PROD, out[0], out[1]);
        return true;
    }
    if (at(s, t)->kind != TREE_SUM)
        return false;
    /* Every piece must be a multiple of `inner`: (a x i | b x i) is (a | b) x i. */
    uint32_t count = at(s, t)->count;
    dim *piece = NEW_ARRAY(s->temporary, dim, count);
    for (uint32_t i = 0; i < count; i++) {
        piece[i] = quotient(s, at(s, find(s, at(s, t)->child[i]))->extent, inner);
        if (!dim_valid(piece[i]))
            return false;
    }
    tree inside = tree_leaf(s, inner);
    tree *outside = NEW_ARRAY(s->arena, tree, count);
    for (uint32_t i = 0; i < count; i++) {
        outside[i] = tree_leaf(s, piece[i]);
        tree_list a = {0}, b = {0};
        *PUSH(s->temporary, &a) = at(s, t)->child[i];
        *PUSH(s->temporary, &b) = outside[i];
        *PUSH(s->temporary, &b) = inside;
        tree_align(s, &a, &b, at(s, t)->why);
    }
    tree sum = tree_concat(s, count, outside, outer);
    tree product = tree_leaf(s, at(s, t)->extent);
    tree *child = NEW_ARRAY(s->arena, tree, 2);
    child[0] = out[0] = sum;
    child[1] = out[1] = find(s, inside);
    at(s, product)->kind = TREE_PROD;
    at(s, product)->count = 2;
    at(s, product)->child = child;
    set_to(s, t, product, 0);
    return true;
}

/* Replaces the last factor of the list by the factors of out[0], out[1]. */
static void replace_last(struct solver *s, tree_list *list, const tree out[2])
{
    list->count--;
    factors_of(s, out[0], list, 0);
    factors_of(s, out[1], list, 0);
}

/* Makes the last factors of both lists comparable; false when they are not. */
static bool refine_last(struct solver *s, tree_list *a, tree_list *b)
{
    tree x = find(s, a->at[a->count - 1]), y = find(s, b->at[b->count - 1]), out[2], other[2];
    dim dx = at(s, x)->extent, dy = at(s, y)->extent, q;
    if (dim_valid(q = quotient(s, dx, dy)) && split(s, x, q, dy, out)) {
        replace_last(s, a, out);
        return true;
    }
    if (dim_valid(q = quotient(s, dy, dx)) && split(s, y, q, dx, out)) {
        replace_last(s, b, out);
        return true;
    }
    int64_t nx, ny;
    if (!constant(s, dx, &nx) || !constant(s, dy, &ny) || nx <= 0 || ny <= 0)
        return false;
    int64_t common = (int64_t)u64_gcd((uint64_t)nx, (uint64_t)ny);
    if (common <= 1 || common == nx || common == ny)
        return false;
    struct dims *t = s->g->dims;
    if (!split(s, x, dim_const(t, nx / common), dim_const(t, common), out) ||
        !split(s, y, dim_const(t, ny / common), dim_const(t, common), other))
        return false;
    replace_last(s, a, out);
    replace_last(s, b, other);
    return true;
}

void tree_align(struct solver *s, tree_list *a, tree_list *b, value node)
{
    tree_list x = {0}, y = {0};
    for (uint32_t i = 0; i < a->count; i++)
        factors_of(s, a->at[i], &x, 0);
    for (uint32_t i = 0; i < b->count; i++)
        factors_of(s, b->at[i], &y, 0);
    while (x.count && y.count) {
        tree f = find(s, x.at[x.count - 1]), g = find(s, y.at[y.count - 1]);
        if (f == g || at(s, f)->extent == at(s, g)->extent) {
            x.count--, y.count--;
            tree_unify(s, f, g, node);
        } else if (!refine_last(s, &x, &y)) {
            break;
        }
    }
    uint32_t skip = 0;
    while (skip < x.count && skip < y.count) {
        tree f = find(s, x.at[skip]), g = find(s, y.at[skip]);
        if (f != g && at(s, f)->extent != at(s, g)->extent)
            break;
        tree_unify(s, f, g, node);
        skip++;
    }
    for (uint32_t i = skip; i < x.count; i++)
        tree_block(s, x.at[i], BLOCK_OPAQUE, node);
    for (uint32_t i = skip; i < y.count; i++)
        tree_block(s, y.at[i], BLOCK_OPAQUE, node);
}

/* ---- sums ---- */

tree tree_concat(struct solver *s, uint32_t count, const tree *part, dim extent)
{
    tree_list open = {0};
    for (uint32_t i = 0; i < count; i++) {
        tree p = find(s, part[i]);
        if (at(s, p)->kind != TREE_SUM) {
            *PUSH(s->temporary, &open) = p;
            continue;
        }
        for (uint32_t k = 0; k < at(s, p)->count; k++)
            *PUSH(s->temporary, &open) = at(s, p)->child[k];
    }
    tree t = tree_leaf(s, extent);
    at(s, t)->kind = TREE_SUM;
    at(s, t)->count = open.count;
    at(s, t)->child = (tree *)arena_copy(s->arena, open.at, open.count * sizeof(tree));
    return t;
}

/* Extent of what stands behind the first factor of a product; -1 when not constant. */
static int64_t inner_extent(struct solver *s, tree product)
{
    int64_t inner = 1, n;
    for (uint32_t i = 1; i < at(s, product)->count; i++) {
        if (!constant(s, at(s, find(s, at(s, product)->child[i]))->extent, &n))
            return -1;
        inner *= n;
    }
    return inner;
}

/* Makes a boundary between pieces stand at `position`. */
static bool cut(struct solver *s, tree t, int64_t position, unsigned depth)
{
    t = find(s, t);
    int64_t extent;
    if (depth >= DEEPEST || !constant(s, at(s, t)->extent, &extent))
        return false;
    if (position <= 0 || position >= extent)
        return true;
    if (at(s, t)->kind == TREE_LEAF) {
        tree a = tree_leaf(s, dim_const(s->g->dims, position)),
             b = tree_leaf(s, dim_const(s->g->dims, extent - position));
        refine(s, t, TREE_SUM, a, b);
        return true;
    }
    if (at(s, t)->kind == TREE_PROD) {
        int64_t inner = inner_extent(s, t);
        return inner > 0 && position % inner == 0 && cut(s, at(s, t)->child[0], position / inner, depth + 1);
    }
    int64_t before = 0;
    for (uint32_t i = 0; i < at(s, t)->count; i++) {
        int64_t size = 0;
        tree child = find(s, at(s, t)->child[i]);
        if (!constant(s, at(s, child)->extent, &size))
            return false;
        if (before == position)
            return true;
        if (position < before + size)
            return cut(s, child, position - before, depth + 1);
        before += size;
    }
    return true;
}

/* The pieces of an axis, each with its extent; a product whose first factor has pieces is opened. */
struct piece {
    int64_t size;
    tree at;
};
typedef LIST(struct piece) piece_list;

static void pieces_of(struct solver *s, tree t, piece_list *out, unsigned depth)
{
    t = find(s, t);
    int64_t size = 0;
    (void)constant(s, at(s, t)->extent, &size);
    if (depth < DEEPEST && at(s, t)->kind == TREE_SUM) {
        for (uint32_t i = 0; i < at(s, t)->count; i++)
            pieces_of(s, at(s, t)->child[i], out, depth + 1);
        return;
    }
    int64_t inner = at(s, t)->kind == TREE_PROD ? inner_extent(s, t) : -1;
    if (depth < DEEPEST && inner > 0) {
        piece_list head = {0};
        pieces_of(s, at(s, t)->child[0], &head, depth + 1);
        for (uint32_t i = 0; head.count > 1 && i < head.count; i++) {
            tree *factor = NEW_ARRAY(s->temporary, tree, at(s, t)->count);
            memcpy(factor, at(s, t)->child, at(s, t)->count * sizeof *factor);
            factor[0] = head.at[i].at;
            int64_t whole = head.at[i].size * inner;
            tree p = product_of(s, at(s, t)->count, factor, dim_const(s->g->dims, whole));
            *PUSH(s->temporary, out) = (struct piece){whole, p};
        }
        if (head.count > 1)
            return;
    }
    *PUSH(s->temporary, out) = (struct piece){size, t};
}

tree tree_slice(struct solver *s, tree t, dim start, dim size, value node)
{
    int64_t from, length, extent;
    t = find(s, t);
    bool known = constant(s, start, &from) && constant(s, size, &length) && constant(s, at(s, t)->extent, &extent);
    if (!known || !cut(s, t, from, 0) || !cut(s, t, from + length, 0)) {
        tree_block(s, t, BLOCK_SLICED, node);
        tree out = tree_leaf(s, size);
        tree_block(s, out, BLOCK_SLICED, node);
        return out;
    }
    piece_list pieces = {0};
    tree_list inside = {0};
    pieces_of(s, t, &pieces, 0);
    int64_t before = 0, got = 0;
    for (uint32_t i = 0; i < pieces.count; before += pieces.at[i++].size)
        if (before >= from && before + pieces.at[i].size <= from + length && pieces.at[i].size) {
            *PUSH(s->temporary, &inside) = pieces.at[i].at;
            got += pieces.at[i].size;
        }
    if (got != length || !inside.count) {
        tree_block(s, t, BLOCK_SLICED, node);
        tree out = tree_leaf(s, size);
        tree_block(s, out, BLOCK_SLICED, node);
        return out;
    }
    return inside.count == 1 ? inside.at[0] : tree_concat(s, inside.count, inside.at, size);
}

/* ---- ties ---- */

static void refuse(struct solver *s, tree a, tree b, value node)
{
    tree_block(s, a, BLOCK_OPAQUE, node);
    tree_block(s, b, BLOCK_OPAQUE, node);
}

/* Two sums: cut each where the other is, then tie piece by piece. */
static void unify_sums(struct solver *s, tree f, tree g, value node)
{
    piece_list a = {0}, b = {0};
    pieces_of(s, f, &a, 0);
    pieces_of(s, g, &b, 0);
    int64_t before = 0;
    for (uint32_t i = 0; i < a.count; before += a.at[i++].size)
        if (!cut(s, g, before, 0)) {
            refuse(s, f, g, node);
            return;
        }
    before = 0;
    for (uint32_t i = 0; i < b.count; before += b.at[i++].size)
        if (!cut(s, f, before, 0)) {
            refuse(s, f, g, node);
            return;
        }
    a.count = b.count = 0;
    pieces_of(s, f, &a, 0);
    pieces_of(s, g, &b, 0);
    bool same = a.count == b.count;
    for (uint32_t i = 0; same && i < a.count; i++)
        same = a.at[i].size == b.at[i].size;
    if (!same) {
        refuse(s, f, g, node);
        return;
    }
    for (uint32_t i = 0; i < a.count; i++)
        tree_unify(s, a.at[i].at, b.at[i].at, node);
    f = find(s, f), g = find(s, g);
    set_to(s, f, g, node);
}

void tree_unify(struct solver *s, tree a, tree b, value node)
{
    tree f = find(s, a), g = find(s, b);
    if (f == g || is_one(s, at(s, f)->extent))
        return;
    if (at(s, f)->kind != TREE_LEAF && at(s, g)->kind == TREE_LEAF) {
        tree swap = f;
        f = g, g = swap;
    }
    if (at(s, f)->kind == TREE_LEAF) {
        if (at(s, g)->kind != TREE_LEAF && contains(s, g, f, 0))
            refuse(s, f, g, node);
        else
            set_to(s, f, g, node);
        return;
    }
    if (at(s, f)->kind == TREE_SUM && at(s, g)->kind == TREE_SUM) {
        unify_sums(s, f, g, node);
        return;
    }
    tree_list x = {0}, y = {0};
    *PUSH(s->temporary, &x) = f;
    *PUSH(s->temporary, &y) = g;
    /* A sum against a product: align splits the sum. A product against a product. */
    if (at(s, f)->kind == TREE_PROD || at(s, g)->kind == TREE_PROD) {
        tree_list fx = {0}, gy = {0};
        factors_of(s, f, &fx, 0);
        factors_of(s, g, &gy, 0);
        if (fx.count == 1 && gy.count == 1 && find(s, fx.at[0]) == f && find(s, gy.at[0]) == g) {
            refuse(s, f, g, node);
            return;
        }
        tree_align(s, &fx, &gy, node);
        f = find(s, f), g = find(s, g);
        if (f != g && at(s, f)->kind == TREE_PROD && at(s, g)->kind == TREE_PROD && !at(s, f)->block &&
            !at(s, g)->block && !contains(s, g, f, 0) && !contains(s, f, g, 0))
            set_to(s, f, g, node);
    }
}

bool tree_mirror(struct solver *s, tree a, tree b)
{
    tree f = find(s, a), g = find(s, b);
    bool changed = false;
    if (f == g || at(s, f)->extent != at(s, g)->extent || (at(s, f)->kind == TREE_LEAF && at(s, g)->kind == TREE_LEAF))
        return false;
    if (at(s, f)->kind != TREE_LEAF && at(s, g)->kind == TREE_LEAF) {
        tree swap = f;
        f = g, g = swap;
    }
    uint32_t count = at(s, g)->count;
    if (at(s, f)->kind == TREE_LEAF) {
        tree *child = NEW_ARRAY(s->arena, tree, count);
        for (uint32_t i = 0; i < count; i++)
            child[i] = tree_leaf(s, at(s, find(s, at(s, g)->child[i]))->extent);
        at(s, f)->kind = at(s, g)->kind;
        at(s, f)->count = count;
        at(s, f)->child = child;
        for (uint32_t i = 0; i < count; i++)
            block_alike(s, child[i], f);
        changed = true;
    }
    for (uint32_t i = 0; at(s, f)->kind == at(s, g)->kind && at(s, f)->count == count && i < count; i++)
        changed = tree_mirror(s, at(s, f)->child[i], at(s, g)->child[i]) || changed;
    return changed;
}
