/* solver/classify.c - which nodes are switch points, which are prelude, and the regions between them.
 *
 * Invariant: region_of[v] is 0 exactly for prelude values. An operand is internal when its value and the op lie in one region and the op is no unit;
 * everything else crosses a switch point and has trees of its own. Start with classify.
 */
#include "solver/internal.h"

static bool is_leaf_table(const struct solver *s, value v)
{
    return (s->depends[v] & DEPENDS_PARAM) && !(s->depends[v] & ~DEPENDS_PARAM);
}

static bool is_constant_shape(const struct solver *s, value v)
{
    const struct node *n = graph_node(s->g, v);
    for (uint32_t i = 0; i < n->rank; i++)
        if (!dim_is_const(s->g->dims, n->shape[i], NULL))
            return false;
    return true;
}

/* A dot of something with a value derived from params alone, contraction longer than 1. */
static bool is_linear(const struct solver *s, const struct node *n)
{
    if (n->op != OP_DOT)
        return false;
    bool left = is_leaf_table(s, n->operand[0]), right = is_leaf_table(s, n->operand[1]);
    if (left == right)
        return false;
    value other = n->operand[left ? 1 : 0];
    if (!s->depends[other])
        return false;
    const struct node *w = graph_node(s->g, n->operand[left ? 0 : 1]);
    for (int32_t i = 0; i < n->attribute.ncontract; i++)
        if (!dim_is(s->g->dims, w->shape[w->rank - 1 - (uint32_t)i], 1))
            return true;
    return false;
}

/* A gather from a table worth cutting: 0.1 % of all params, by indices that are not known when compiling. */
static bool is_embedding(const struct solver *s, const struct node *n)
{
    if (n->op != OP_GATHER || n->attribute.nbatch || !is_leaf_table(s, n->operand[0]))
        return false;
    value indices = n->operand[1];
    if (!(s->depends[indices] & ~DEPENDS_PARAM) && is_constant_shape(s, indices))
        return false;
    int64_t count = 1, extent;
    const struct node *table = graph_node(s->g, n->operand[0]);
    for (uint32_t i = 0; i < table->rank; i++)
        if (!dim_is_const(s->g->dims, table->shape[i], &extent) || !i64_mul(count, extent, &count))
            return false;
    return count * (int64_t)dtype_size(table->dtype) * 1000 >= s->param_bytes;
}

static bool is_state_input(const struct solver *s, value v)
{
    for (uint32_t i = 0; i < s->g->states.count; i++)
        if (s->g->inputs.at[s->g->states.at[i].input].value == v)
            return true;
    return false;
}

static void find_roles(struct solver *s)
{
    for (value v = 1; v < s->node_count; v++) {
        const struct node *n = graph_node(s->g, v);
        uint8_t depends = 0;
        for (uint32_t i = 0; i < n->operand_count; i++)
            depends |= s->depends[n->operand[i]];
        enum role role = ROLE_PRELUDE;
        if (n->op == OP_PARAM) {
            depends = DEPENDS_PARAM;
        } else if (n->op == OP_INPUT) {
            role = is_state_input(s, v) ? ROLE_STATE : ROLE_PRELUDE;
            depends = role == ROLE_STATE ? DEPENDS_STATE : DEPENDS_INPUT;
        } else if (is_linear(s, n)) {
            role = ROLE_LINEAR;
            depends |= DEPENDS_LINEAR;
        } else if (is_embedding(s, n)) {
            role = ROLE_EMBEDDING;
            depends |= DEPENDS_EMBEDDING;
        } else if (depends & (DEPENDS_LINEAR | DEPENDS_EMBEDDING | DEPENDS_STATE)) {
            role = ROLE_OP;
        }
        s->depends[v] = depends;
        s->role[v] = (uint8_t)role;
    }
}

/* Depends on embeddings, and on no linear: a trunk's start, a bias table. Where such a value meets the rest stands a switch point. */
static bool early(const struct solver *s, value v)
{
    return (s->depends[v] & DEPENDS_EMBEDDING) && !(s->depends[v] & (DEPENDS_LINEAR | DEPENDS_STATE));
}

bool is_internal(const struct solver *s, value v, uint32_t operand)
{
    value u = graph_node(s->g, v)->operand[operand];
    bool apart = operand < 32 && (s->apart[v] >> operand & 1);
    return s->role[v] == ROLE_OP && s->role[u] != ROLE_PRELUDE && early(s, u) == early(s, v) && !apart;
}

static uint32_t root_of(uint32_t *parent, uint32_t x)
{
    while (parent[x] != x) {
        parent[x] = parent[parent[x]];
        x = parent[x];
    }
    return x;
}

static void find_regions(struct solver *s)
{
    uint32_t *parent = NEW_ARRAY(s->temporary, uint32_t, s->node_count);
    for (value v = 0; v < s->node_count; v++)
        parent[v] = v;
    for (value v = 1; v < s->node_count; v++)
        for (uint32_t i = 0; s->live[v] && i < graph_node(s->g, v)->operand_count; i++)
            if (is_internal(s, v, i)) {
                uint32_t a = root_of(parent, v), b = root_of(parent, graph_node(s->g, v)->operand[i]);
                parent[a > b ? a : b] = a > b ? b : a;
            }
    (void)PUSH(s->arena, &s->regions);
    for (value v = 1; v < s->node_count; v++) {
        if (!s->live[v] || s->role[v] == ROLE_PRELUDE)
            continue;
        uint32_t root = root_of(parent, v);
        if (root == v) {
            (void)PUSH(s->arena, &s->regions);
            s->region_of[v] = s->regions.count - 1;
        } else {
            s->region_of[v] = s->region_of[root];
        }
        s->regions.at[s->region_of[v]].value_count++;
    }
    for (uint32_t r = 1; r < s->regions.count; r++) {
        s->regions.at[r].values = NEW_ARRAY(s->arena, value, s->regions.at[r].value_count);
        s->regions.at[r].value_count = 0;
    }
    for (value v = 1; v < s->node_count; v++)
        if (s->region_of[v]) {
            struct region *r = &s->regions.at[s->region_of[v]];
            r->values[r->value_count++] = v;
        }
}

/* The one live use of a value; 0 when it has none or several, or is an output. */
static value only_use(const struct solver *s, value v)
{
    value found = 0;
    for (uint32_t i = s->uses.first[v]; i < s->uses.first[v + 1]; i++) {
        value w = s->uses.use[i];
        if (s->live[w] && found)
            return 0;
        found = s->live[w] ? w : found;
    }
    return s->is_output[v] ? 0 : found;
}

/* A partial sum flows along values that are used once: joint_parent[v] is that use when it can pass the sum on. */
void find_joints(struct solver *s)
{
    for (value v = s->node_count; v-- > 1;) {
        value w = s->region_of[v] ? only_use(s, v) : 0;
        s->joint_parent[v] = 0;
        for (uint32_t i = 0; w && i < graph_node(s->g, w)->operand_count; i++)
            if (graph_node(s->g, w)->operand[i] == v && is_internal(s, w, i) &&
                op_passes_sum(s->g, graph_node(s->g, w), i) && !rows_convert(s, w, i) && !rows_may_sum(s, w))
                s->joint_parent[v] = w;
        s->joint_root[v] = s->joint_parent[v] ? s->joint_root[s->joint_parent[v]] : v;
    }
    for (uint32_t i = 0; i < s->units.count; i++)
        if (s->units.at[i].kind != UNIT_EDGE)
            s->units.at[i].joint = s->joint_root[s->units.at[i].node];
}

static void add_unit(struct solver *s, enum unit_kind kind, value v, uint32_t slot)
{
    struct unit *u = PUSH(s->arena, &s->units);
    u->kind = kind;
    u->node = v;
    u->slot = slot;
    u->source = graph_node(s->g, v)->operand[slot];
    u->from = s->region_of[u->source];
    u->to = s->region_of[v];
    u->joint = kind == UNIT_EDGE ? 0 : s->joint_root[v];
}

static void find_units(struct solver *s)
{
    for (value v = 1; v < s->node_count; v++) {
        const struct node *n = graph_node(s->g, v);
        if (!s->live[v])
            continue;
        if (s->role[v] == ROLE_LINEAR)
            add_unit(s, UNIT_LINEAR, v, is_leaf_table(s, n->operand[0]) ? 1 : 0);
        else if (s->role[v] == ROLE_EMBEDDING)
            add_unit(s, UNIT_EMBEDDING, v, 1);
        else if (s->role[v] == ROLE_OP)
            for (uint32_t i = 0; i < n->operand_count; i++)
                if (s->region_of[n->operand[i]] && !is_internal(s, v, i))
                    add_unit(s, UNIT_EDGE, v, i);
    }
    for (uint32_t i = 0; i < s->units.count; i++) {
        struct unit *u = &s->units.at[i];
        s->regions.at[u->to].unit_count++;
        if (u->from && u->from != u->to)
            s->regions.at[u->from].unit_count++;
    }
    for (uint32_t r = 1; r < s->regions.count; r++) {
        s->regions.at[r].units = NEW_ARRAY(s->arena, uint32_t, s->regions.at[r].unit_count);
        s->regions.at[r].unit_count = 0;
    }
    for (uint32_t i = 0; i < s->units.count; i++) {
        struct unit *u = &s->units.at[i];
        struct region *to = &s->regions.at[u->to], *from = &s->regions.at[u->from];
        to->units[to->unit_count++] = i;
        if (u->from && u->from != u->to)
            from->units[from->unit_count++] = i;
    }
}

static tree *fresh_axes(struct solver *s, value v)
{
    const struct node *n = graph_node(s->g, v);
    tree *axes = NEW_ARRAY(s->arena, tree, n->rank);
    for (uint32_t i = 0; i < n->rank; i++)
        axes[i] = tree_leaf(s, n->shape[i]);
    return axes;
}

static void make_axes(struct solver *s)
{
    (void)PUSH(s->arena, &s->trees);
    for (value v = 1; v < s->node_count; v++)
        if (s->region_of[v])
            s->axes[v] = fresh_axes(s, v);
    for (value v = 1; v < s->node_count; v++) {
        const struct node *n = graph_node(s->g, v);
        if (!s->region_of[v] || s->role[v] != ROLE_OP)
            continue;
        s->slot[v] = NEW_ARRAY(s->arena, tree *, n->operand_count);
        for (uint32_t i = 0; i < n->operand_count; i++)
            s->slot[v][i] = is_internal(s, v, i) ? s->axes[n->operand[i]] : fresh_axes(s, n->operand[i]);
    }
}

void classify(struct solver *s)
{
    find_roles(s);
    find_regions(s);
    find_joints(s);
    find_units(s);
    cost_sharing(s);
    make_axes(s);
}
