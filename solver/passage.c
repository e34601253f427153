/* solver/passage.c - how rows go through an op: which leaf of the result each leaf of an operand becomes.
 *
 * The table is docs/placements.md again, read leaf by leaf: an axis that an op keeps has the same leaves on both sides (its trees are tied), and any of them may
 * be cut; what an op contracts, scans or mixes it needs whole; what it sums over it takes in any part. Start with passage_of.
 */
#include "solver/passage.h"

struct leaves leaves_of(struct solver *s, const tree *axes, uint32_t rank)
{
    struct leaves l = {0};
    for (uint32_t i = 0; i < rank; i++) {
        tree_leaves(s, axes[i], s->temporary, &l.list);
        l.first[i + 1] = l.list.count;
    }
    return l;
}

static bool is_one(const struct solver *s, tree t)
{
    return dim_is(s->g->dims, s->trees.at[t].extent, 1);
}

bool axis_listed(const struct node *n, uint32_t axis)
{
    for (uint32_t i = 0; i < n->attribute.list_count; i++)
        if (n->attribute.list[i] == (int32_t)axis)
            return true;
    return false;
}

static bool same_leaf(const struct passage *p, uint32_t in, uint32_t out)
{
    tree a = p->in.list.at[in], b = p->out.list.at[out];
    return a == b || (is_one(p->s, a) && is_one(p->s, b));
}

static bool same_run(const struct passage *p, uint32_t in, uint32_t out, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++)
        if (!same_leaf(p, in + i, out + i))
            return false;
    return true;
}

static void pass_run(struct passage *p, uint32_t in, uint32_t out, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++)
        if (in + i < MOST_LEAVES && out + i < MOST_LEAVES)
            p->to[in + i] = (int16_t)(out + i);
}

/* Operand's axis a is result's axis r. */
static void pass_axis(struct passage *p, uint32_t a, uint32_t r)
{
    uint32_t in = p->in.first[a], out = p->out.first[r], count = p->in.first[a + 1] - in;
    if (count == p->out.first[r + 1] - out && same_run(p, in, out, count))
        pass_run(p, in, out, count);
}

/* Result's axis r is a run of the leaves of operand's axis r. */
static void pass_part(struct passage *p, uint32_t r)
{
    uint32_t in = p->in.first[r], end = p->in.first[r + 1], out = p->out.first[r], count = p->out.first[r + 1] - out;
    uint32_t found = 0, at = 0;
    for (uint32_t k = in; k + count <= end; k++)
        if (same_run(p, k, out, count))
            found++, at = k;
    if (found == 1)
        pass_run(p, at, out, count);
}

static bool has_sum(const struct solver *s, tree t, unsigned depth)
{
    const struct tree_node *n = &s->trees.at[tree_find(s, t)];
    bool found = n->kind == TREE_SUM;
    for (uint32_t i = 0; !found && i < n->count && depth < 60; i++)
        found = has_sum(s, n->child[i], depth + 1);
    return found;
}

static void pass_reduce(struct passage *p, const tree *axes, uint32_t rank)
{
    uint32_t kept = 0;
    for (uint32_t i = 0; i < rank; i++) {
        if (!axis_listed(p->node, i)) {
            pass_axis(p, i, kept++);
            continue;
        }
        for (uint32_t k = p->in.first[i]; k < p->in.first[i + 1] && k < MOST_LEAVES; k++)
            if (p->node->op != OP_REDUCE_PROD && !has_sum(p->s, axes[i], 0))
                p->to[k] = TAKES_ANY;
    }
}

static void pass_dot(struct passage *p, uint32_t operand, uint32_t rank)
{
    uint32_t nb = (uint32_t)p->node->attribute.nbatch, nk = (uint32_t)p->node->attribute.ncontract;
    uint32_t left = graph_node(p->s->g, p->node->operand[0])->rank - nk;
    for (uint32_t i = 0; i < rank - nk; i++)
        pass_axis(p, i, i < nb || operand == 0 ? i : left + i - nb);
}

static void pass_gather(struct passage *p, uint32_t operand, uint32_t rank)
{
    uint32_t axis = (uint32_t)p->node->attribute.axis, nb = (uint32_t)p->node->attribute.nbatch;
    uint32_t indices = graph_node(p->s->g, p->node->operand[1])->rank - nb;
    for (uint32_t i = 0; i < rank; i++)
        if (operand == 1)
            pass_axis(p, i, i < nb ? i : axis + i - nb);
        else if (i != axis)
            pass_axis(p, i, i < axis ? i : i + indices - 1);
}

static void pass_scatter(struct passage *p, uint32_t operand, uint32_t rank)
{
    uint32_t axis = (uint32_t)p->node->attribute.axis, nb = (uint32_t)p->node->attribute.nbatch;
    uint32_t indices = graph_node(p->s->g, p->node->operand[1])->rank - nb;
    for (uint32_t i = 0; i < rank; i++)
        if (operand == 1 ? i < nb : i < axis)
            pass_axis(p, i, i);
        else if (operand == 0 && i > axis)
            pass_axis(p, i, i);
        else if (operand == 2 && i >= axis + indices)
            pass_axis(p, i, i - indices + 1);
}

/* The same leaves from the left and from the right; what a reshape mixes in between is whole. */
static void pass_reshape(struct passage *p, const tree *axes, uint32_t rank, const tree *result)
{
    uint32_t x = p->in.list.count, y = p->out.list.count, left = 0;
    bool sums = false;
    for (uint32_t i = 0; i < rank; i++)
        sums = sums || has_sum(p->s, axes[i], 0);
    for (uint32_t i = 0; i < p->node->rank; i++)
        sums = sums || has_sum(p->s, result[i], 0);
    uint32_t *in = NEW_ARRAY(p->s->temporary, uint32_t, x + 1), *out = NEW_ARRAY(p->s->temporary, uint32_t, y + 1);
    uint32_t ins = 0, outs = 0; /* those longer than 1 */
    for (uint32_t i = 0; i < x; i++)
        if (!is_one(p->s, p->in.list.at[i]))
            in[ins++] = i;
    for (uint32_t i = 0; i < y; i++)
        if (!is_one(p->s, p->out.list.at[i]))
            out[outs++] = i;
    while (left < ins && left < outs && same_leaf(p, in[left], out[left]))
        left++;
    if (sums && (left < ins || left < outs))
        return;
    for (uint32_t i = 0; i < left; i++)
        pass_run(p, in[i], out[i], 1);
    while (ins > left && outs > left && same_leaf(p, in[ins - 1], out[outs - 1]))
        pass_run(p, in[--ins], out[--outs], 1);
}

static void pass_slice(struct passage *p, uint32_t rank)
{
    for (uint32_t i = 0; i < rank; i++)
        if (p->node->attribute.list[i] == 1)
            pass_part(p, i);
}

static void pass_concat(struct passage *p, uint32_t operand, uint32_t rank)
{
    uint32_t axis = (uint32_t)p->node->attribute.axis, before = 0, all = 0,
             mine = p->in.first[axis + 1] - p->in.first[axis];
    for (uint32_t i = 0; i < rank; i++)
        if (i != axis)
            pass_axis(p, i, i);
    for (uint32_t k = 0; k < p->node->operand_count; k++) {
        tree_list leaves = {0};
        tree_leaves(p->s, p->s->slot[p->node - p->s->g->nodes.at][k][axis], p->s->temporary, &leaves);
        before += k < operand ? leaves.count : 0;
        all += leaves.count;
    }
    uint32_t out = p->out.first[axis];
    if (all == p->out.first[axis + 1] - out && same_run(p, p->in.first[axis], out + before, mine))
        pass_run(p, p->in.first[axis], out + before, mine);
}

/* Every axis but those that the op needs whole. */
static void pass_others(struct passage *p, uint32_t operand, uint32_t rank)
{
    const struct node *n = p->node;
    uint32_t axis = (uint32_t)n->attribute.axis;
    for (uint32_t i = 0; i < rank; i++)
        switch ((int)n->op) {
        case OP_CUMSUM:
        case OP_TOPK:
            if (i != axis)
                pass_axis(p, i, i);
            break;
        case OP_REVERSE:
            if (!axis_listed(n, i))
                pass_axis(p, i, i);
            break;
        case OP_WINDOW:
            if (i != axis)
                pass_axis(p, i, i < axis ? i : i + 1);
            break;
        case OP_PAD:
            if (operand == 0 && graph_node(p->s->g, n->operand[0])->shape[i] == n->shape[i])
                pass_axis(p, i, i);
            break;
        case OP_CROSS_ENTROPY:
            if (i < n->rank)
                pass_axis(p, i, i);
            break;
        default: /* nothing is known of it */
            break;
        }
}

void passage_of(struct solver *s, value v, uint32_t operand, struct passage *p)
{
    const struct node *n = graph_node(s->g, v), *u = graph_node(s->g, n->operand[operand]);
    const tree *axes = s->slot[v][operand];
    *p = (struct passage){s, n, leaves_of(s, axes, u->rank), leaves_of(s, s->axes[v], n->rank), {0}};
    for (uint32_t i = 0; i < MOST_LEAVES; i++)
        p->to[i] = NEEDS_WHOLE;
    if (op_info(n->op)->class == CLASS_POINTWISE)
        for (uint32_t i = 0; i < u->rank; i++)
            pass_axis(p, i, i);
    else if (op_info(n->op)->class == CLASS_REDUCE)
        pass_reduce(p, axes, u->rank);
    else if (n->op == OP_DOT)
        pass_dot(p, operand, u->rank);
    else if (n->op == OP_GATHER)
        pass_gather(p, operand, u->rank);
    else if (n->op == OP_SCATTER)
        pass_scatter(p, operand, u->rank);
    else if (n->op == OP_RESHAPE)
        pass_reshape(p, axes, u->rank, s->axes[v]);
    else if (n->op == OP_TRANSPOSE)
        for (uint32_t i = 0; i < n->rank; i++)
            pass_axis(p, (uint32_t)n->attribute.list[i], i);
    else if (n->op == OP_BROADCAST)
        for (uint32_t i = 0; i < u->rank; i++)
            pass_axis(p, i, (uint32_t)n->attribute.list[i]);
    else if (n->op == OP_SLICE)
        pass_slice(p, u->rank);
    else if (n->op == OP_CONCAT)
        pass_concat(p, operand, u->rank);
    else
        pass_others(p, operand, u->rank);
}
