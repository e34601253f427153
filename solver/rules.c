/* solver/rules.c - how each op ties the factors of its operands and its result. The table is docs/placements.md.
 *
 * One function per `rule` of ops.def, called once per op of a region in topological order; units (linears, embeddings) tie nothing. A rule ties
 * equal axes (tree_unify), refines them (tree_align, tree_slice, tree_concat) or blocks what the op needs whole. Start with
 * rules_apply.
 */
#include "solver/internal.h"

typedef void rule(struct solver *s, value v, const struct node *n, tree *const *in, tree *out);

static rule rule_leaf, rule_iota, rule_pointwise, rule_reduce, rule_dot, rule_gather, rule_scatter, rule_reshape,
    rule_transpose, rule_broadcast, rule_slice, rule_concat, rule_pad, rule_reverse, rule_window, rule_cumsum,
    rule_topk, rule_cross_entropy, rule_collective;

static rule *const rules[OP_COUNT] = {
#define OP(id, text, arity, attributes, shape, type, name, linear, class) [OP_##id] = rule_##name,
#include "ir/ops.def"
#undef OP
};

void rules_apply(struct solver *s)
{
    for (value v = 1; v < s->node_count; v++)
        if (s->region_of[v] && s->role[v] == ROLE_OP)
            rules[graph_node(s->g, v)->op](s, v, graph_node(s->g, v), s->slot[v], s->axes[v]);
}

bool op_passes_sum(const struct graph *g, const struct node *n, uint32_t operand)
{
    (void)g;
    if (n->op == OP_DIV && !dtype_is_float(n->dtype))
        return false;
    switch (op_info(n->op)->linear) {
    case LINEAR_EACH:
    case LINEAR_ALL:
        return true;
    case LINEAR_FIRST:
        return operand == 0;
    case LINEAR_NONE:
    case LINEAR_MONOTONE:
        return false;
    }
    return false;
}

static bool listed(const struct node *n, uint32_t axis)
{
    for (uint32_t i = 0; i < n->attribute.list_count; i++)
        if (n->attribute.list[i] == (int32_t)axis)
            return true;
    return false;
}

static const struct node *operand_node(const struct solver *s, const struct node *n, uint32_t i)
{
    return graph_node(s->g, n->operand[i]);
}

static void rule_leaf(struct solver *s, value v, const struct node *n, tree *const *in, tree *out)
{
    (void)s, (void)v, (void)n, (void)in, (void)out;
}

static void rule_iota(struct solver *s, value v, const struct node *n, tree *const *in, tree *out)
{
    rule_leaf(s, v, n, in, out);
}

static void rule_collective(struct solver *s, value v, const struct node *n, tree *const *in, tree *out)
{
    (void)in;
    for (uint32_t i = 0; i < n->rank; i++)
        tree_block(s, out[i], BLOCK_WHOLE_AXIS, v); /* does not occur before parallelize */
}

static void rule_pointwise(struct solver *s, value v, const struct node *n, tree *const *in, tree *out)
{
    for (uint32_t k = 0; k < n->operand_count; k++)
        for (uint32_t i = 0; i < n->rank; i++)
            tree_unify(s, in[k][i], out[i], v);
}

static void rule_reduce(struct solver *s, value v, const struct node *n, tree *const *in, tree *out)
{
    uint32_t kept = 0;
    for (uint32_t i = 0; i < operand_node(s, n, 0)->rank; i++) {
        if (listed(n, i))
            tree_block(s, in[0][i], BLOCK_REDUCED, v);
        else
            tree_unify(s, in[0][i], out[kept++], v);
    }
}

static void rule_dot(struct solver *s, value v, const struct node *n, tree *const *in, tree *out)
{
    uint32_t nb = (uint32_t)n->attribute.nbatch, nk = (uint32_t)n->attribute.ncontract;
    uint32_t left = operand_node(s, n, 0)->rank, right = operand_node(s, n, 1)->rank, at = nb;
    for (uint32_t i = 0; i < nb; i++) {
        tree_unify(s, in[0][i], out[i], v);
        tree_unify(s, in[1][i], out[i], v);
    }
    for (uint32_t i = nb; i < left - nk; i++)
        tree_unify(s, in[0][i], out[at++], v);
    for (uint32_t i = nb; i < right - nk; i++)
        tree_unify(s, in[1][i], out[at++], v);
    for (uint32_t i = 0; i < nk; i++) {
        tree_unify(s, in[0][left - nk + i], in[1][right - nk + i], v);
        tree_block(s, in[0][left - nk + i], BLOCK_CONTRACTED, v);
        tree_block(s, in[1][right - nk + i], BLOCK_CONTRACTED, v);
    }
}

/* operand [batch.., outer.., n, inner..], indices [batch.., i..]; the result is result [batch.., outer.., i.., inner..] */
static void tie_gathered(struct solver *s, value v, const struct node *n, const tree *operand, uint32_t operand_rank,
                         const tree *indices, uint32_t indices_rank, const tree *result)
{
    uint32_t axis = (uint32_t)n->attribute.axis, nb = (uint32_t)n->attribute.nbatch, at = 0;
    for (uint32_t i = 0; i < axis; i++, at++) {
        tree_unify(s, operand[i], result[at], v);
        if (i < nb)
            tree_unify(s, indices[i], result[at], v);
    }
    for (uint32_t i = nb; i < indices_rank; i++)
        tree_unify(s, indices[i], result[at++], v);
    for (uint32_t i = axis + 1; i < operand_rank; i++)
        tree_unify(s, operand[i], result[at++], v);
    tree_block(s, operand[axis], BLOCK_WHOLE_AXIS, v);
}

static void rule_gather(struct solver *s, value v, const struct node *n, tree *const *in, tree *out)
{
    tie_gathered(s, v, n, in[0], operand_node(s, n, 0)->rank, in[1], operand_node(s, n, 1)->rank, out);
}

static void rule_scatter(struct solver *s, value v, const struct node *n, tree *const *in, tree *out)
{
    uint32_t nb = (uint32_t)n->attribute.nbatch;
    tie_gathered(s, v, n, in[0], operand_node(s, n, 0)->rank, in[1], operand_node(s, n, 1)->rank, in[2]);
    for (uint32_t i = 0; i < n->rank; i++)
        tree_unify(s, in[0][i], out[i], v);
    for (uint32_t i = nb; i < operand_node(s, n, 1)->rank; i++)
        tree_block(s, in[1][i], BLOCK_WHOLE_AXIS, v);
}

/* Ties [a0, a1) of the operand's axes with [b0, b1) of the result's, whose products are equal. */
static void tie_group(struct solver *s, value v, const tree *in, uint32_t a0, uint32_t a1, const tree *out, uint32_t b0,
                      uint32_t b1)
{
    if (a1 - a0 == 1 && b1 - b0 == 1) {
        tree_unify(s, in[a0], out[b0], v);
        return;
    }
    tree_list a = {0}, b = {0};
    for (uint32_t i = a0; i < a1; i++)
        *PUSH(s->temporary, &a) = in[i];
    for (uint32_t i = b0; i < b1; i++)
        *PUSH(s->temporary, &b) = out[i];
    tree_align(s, &a, &b, v);
}

static void rule_reshape(struct solver *s, value v, const struct node *n, tree *const *in, tree *out)
{
    struct dims *t = s->g->dims;
    const struct node *from = operand_node(s, n, 0);
    uint32_t a0 = 0, b0 = 0, a = 0, b = 0;
    dim left = dim_const(t, 1), right = left;
    while (a < from->rank && b < n->rank) { /* groups that close early keep what is symbolic apart */
        left = dim_mul(t, left, from->shape[a++]);
        right = dim_mul(t, right, n->shape[b++]);
        for (;;) {
            int64_t x, y;
            if (left == right || !dim_is_const(t, left, &x) || !dim_is_const(t, right, &y))
                break;
            if (x < y && a < from->rank && dim_is_const(t, from->shape[a], NULL))
                left = dim_mul(t, left, from->shape[a++]);
            else if (y < x && b < n->rank && dim_is_const(t, n->shape[b], NULL))
                right = dim_mul(t, right, n->shape[b++]);
            else
                break;
        }
        if (left != right || !dim_valid(left))
            continue;
        tie_group(s, v, in[0], a0, a, out, b0, b);
        a0 = a, b0 = b;
        left = right = dim_const(t, 1);
    }
    if (a0 < from->rank || b0 < n->rank)
        tie_group(s, v, in[0], a0, from->rank, out, b0, n->rank);
}

static void rule_transpose(struct solver *s, value v, const struct node *n, tree *const *in, tree *out)
{
    for (uint32_t i = 0; i < n->rank; i++)
        tree_unify(s, in[0][n->attribute.list[i]], out[i], v);
}

static void rule_broadcast(struct solver *s, value v, const struct node *n, tree *const *in, tree *out)
{
    for (uint32_t i = 0; i < operand_node(s, n, 0)->rank; i++)
        if (operand_node(s, n, 0)->shape[i] == n->shape[n->attribute.list[i]])
            tree_unify(s, in[0][i], out[n->attribute.list[i]], v);
}

static void rule_slice(struct solver *s, value v, const struct node *n, tree *const *in, tree *out)
{
    const struct node *from = operand_node(s, n, 0);
    for (uint32_t i = 0; i < n->rank; i++) {
        bool forward = n->attribute.list[i] == 1;
        if (forward && dim_is(s->g->dims, n->attribute.dims[i], 0) && from->shape[i] == n->shape[i])
            tree_unify(s, in[0][i], out[i], v);
        else if (forward)
            tree_unify(s, out[i], tree_slice(s, in[0][i], n->attribute.dims[i], n->shape[i], v), v);
        else
            tree_block(s, in[0][i], BLOCK_SLICED, v), tree_block(s, out[i], BLOCK_SLICED, v);
    }
}

static void rule_concat(struct solver *s, value v, const struct node *n, tree *const *in, tree *out)
{
    uint32_t axis = (uint32_t)n->attribute.axis;
    bool constant = true;
    for (uint32_t k = 0; k < n->operand_count; k++) {
        for (uint32_t i = 0; i < n->rank; i++)
            if (i != axis)
                tree_unify(s, in[k][i], out[i], v);
        constant = constant && dim_is_const(s->g->dims, operand_node(s, n, k)->shape[axis], NULL);
    }
    if (!constant) {
        for (uint32_t k = 0; k < n->operand_count; k++)
            tree_block(s, in[k][axis], BLOCK_SLICED, v);
        tree_block(s, out[axis], BLOCK_SLICED, v);
        return;
    }
    tree *part = NEW_ARRAY(s->temporary, tree, n->operand_count);
    for (uint32_t k = 0; k < n->operand_count; k++)
        part[k] = in[k][axis];
    tree_unify(s, out[axis], n->operand_count == 1 ? part[0] : tree_concat(s, n->operand_count, part, n->shape[axis]),
               v);
}

/* All axes tied; those that `whole` says are blocked. */
static void tie_but(struct solver *s, value v, const struct node *n, const tree *in, const tree *out,
                    bool (*whole)(const struct node *, uint32_t))
{
    for (uint32_t i = 0; i < n->rank; i++) {
        if (!whole(n, i)) {
            tree_unify(s, in[i], out[i], v);
            continue;
        }
        tree_block(s, in[i], BLOCK_WHOLE_AXIS, v);
        tree_block(s, out[i], BLOCK_WHOLE_AXIS, v);
    }
}

static bool at_axis(const struct node *n, uint32_t i)
{
    return (uint32_t)n->attribute.axis == i;
}

static void rule_pad(struct solver *s, value v, const struct node *n, tree *const *in, tree *out)
{
    for (uint32_t i = 0; i < n->rank; i++) {
        if (operand_node(s, n, 0)->shape[i] == n->shape[i]) {
            tree_unify(s, in[0][i], out[i], v);
            continue;
        }
        tree_block(s, in[0][i], BLOCK_WHOLE_AXIS, v);
        tree_block(s, out[i], BLOCK_WHOLE_AXIS, v);
    }
}

static void rule_reverse(struct solver *s, value v, const struct node *n, tree *const *in, tree *out)
{
    tie_but(s, v, n, in[0], out, listed);
}

static void rule_cumsum(struct solver *s, value v, const struct node *n, tree *const *in, tree *out)
{
    tie_but(s, v, n, in[0], out, at_axis);
}

static void rule_topk(struct solver *s, value v, const struct node *n, tree *const *in, tree *out)
{
    tie_but(s, v, n, in[0], out, at_axis);
}

static void rule_window(struct solver *s, value v, const struct node *n, tree *const *in, tree *out)
{
    uint32_t axis = (uint32_t)n->attribute.axis;
    for (uint32_t i = 0; i < n->rank; i++) {
        if (i == axis || i == axis + 1)
            tree_block(s, out[i], BLOCK_WHOLE_AXIS, v);
        else
            tree_unify(s, in[0][i < axis ? i : i - 1], out[i], v);
    }
    tree_block(s, in[0][axis], BLOCK_WHOLE_AXIS, v);
}

static void rule_cross_entropy(struct solver *s, value v, const struct node *n, tree *const *in, tree *out)
{
    for (uint32_t i = 0; i < n->rank; i++) {
        tree_unify(s, in[0][i], out[i], v);
        tree_unify(s, in[1][i], out[i], v);
    }
    /* the vocabulary: one factor, cut or whole (layout.c checks that it stays one) */
}
