/* passes/parallelize.c - Graph and placements to the one Program that all ranks share.
 *
 * Requires: a simplified Graph and a solution for it. Keeps: what every output computes (check proves it). Breaks: extents are a rank's own from
 * here on, and weights are shards.
 *
 * Every value gets a local form in its result placement; every use gets a conversion from that to the placement that the solution wants
 * there (parallelize_convert.c), made once per (value, placement). Then a node's local form is the same op on local operands: most
 * rows need nothing more, since shapes are derived; `localise` has the rows that do. Conversions at a param make no code: the
 * param is loaded in the wanted shard, and constants and iotas are made anew in each placement.
 *
 * Start reading at parallelize().
 */
#include "passes/parallelize.h"

#include <assert.h>

/* One way of storing a param. */
struct sliced {
    uint32_t shard;
    struct sliced *next;
};

struct made {
    const struct placement *placement;
    value value;
    struct made *next;
};

static void mark_source(struct rewrite *w, value original)
{
    struct graph *p = w->program;
    while (p->source.count < p->nodes.count) {
        *PUSH(p->arena, &p->source) = original;
    }
}

/* ---- params ---- */

static bool intervals_same(const struct intervals *a, const struct intervals *b)
{
    if (a->count != b->count) {
        return false;
    }
    for (uint32_t i = 0; i < a->count; i++) {
        if (a->at[i].lo != b->at[i].lo || a->at[i].hi != b->at[i].hi) {
            return false;
        }
    }
    return true;
}

/* Which indices of an axis each rank holds. Equal layers lay their weights out alike: worked out once. */
static const struct intervals *held_by_ranks(struct rewrite *w, const struct axis_layout *axis)
{
    struct graph *p = w->program;
    struct text key = {.arena = w->arena};
    for (uint32_t i = 0; i < axis->count; i++) {
        const struct segment *s = &axis->segment[i];
        text_putn(&key, (const char *)&s->count, sizeof s->count);
        text_putn(&key, (const char *)s->factor, s->count * sizeof *s->factor);
    }
    uint32_t *slot = map_put(&w->ways, key.at, key.length, NULL);
    if (*slot == 0) {
        struct intervals *of = NEW_ARRAY(p->arena, struct intervals, p->mesh.ranks);
        for (uint32_t r = 0; r < p->mesh.ranks; r++) {
            of[r] = axis_intervals(p, axis, r, p->arena);
        }
        *PUSH(w->arena, &w->held) = of;
        *slot = w->held.count;
    }
    return w->held.at[*slot - 1];
}

static uint32_t shard_of(struct rewrite *w, uint32_t param, const struct placement *to)
{
    struct graph *p = w->program;
    uint32_t ranks = p->mesh.ranks, lists = to->rank * ranks;
    struct intervals *of = NEW_ARRAY(p->arena, struct intervals, lists);
    for (uint32_t a = 0; a < to->rank; a++) {
        memcpy(&of[a * ranks], held_by_ranks(w, &to->axis[a]), ranks * sizeof *of);
    }
    for (struct sliced *k = w->sliced[param]; k != NULL; k = k->next) {
        const struct shard *old = &p->shards.at[k->shard];
        bool same = true;
        for (uint32_t i = 0; i < lists && same; i++) {
            same = intervals_same(&old->of[i], &of[i]);
        }
        if (same) {
            return k->shard;
        }
    }
    struct sliced *k = NEW(w->arena, struct sliced);
    *k = (struct sliced){p->shards.count, w->sliced[param]};
    w->sliced[param] = k;
    *PUSH(p->arena, &p->shards) = (struct shard){param, to->rank, of};
    return k->shard;
}

static void local_shape(struct rewrite *w, const struct placement *to, dim shape[MAX_RANK])
{
    for (uint32_t a = 0; a < to->rank; a++) {
        shape[a] = axis_local_extent(w->program, &to->axis[a]);
    }
}

static bool nothing_cut(const struct placement *p)
{
    struct placement q = *p;
    q.partial = 0;
    q.partial_subaxes = 0;
    return placement_is_whole(&q);
}

static value local_param(struct rewrite *w, const struct node *n, const struct placement *to)
{
    dim shape[MAX_RANK];
    local_shape(w, to, shape);
    struct attribute a = {.index = n->attribute.index};
    if (!nothing_cut(to)) {
        a.mode = 1 + (int32_t)shard_of(w, n->attribute.index, to);
    }
    value v = graph_add(w->program, OP_PARAM, n->dtype, n->rank, shape, 0, NULL, &a);
    if (to->partial != 0) {
        struct placement from = *to;
        from.partial = 0;
        from.partial_subaxes = 0;
        v = convert(w, v, &from, to);
    }
    return v;
}

/* ---- rows that need more than local operands ---- */

static uint32_t sole_partition(const struct axis_layout *a)
{
    return a->count == 1 && a->segment[0].count == 1 ? a->segment[0].factor[0].partition : 0;
}

/* The partition that cuts an axis that a gather or scatter walks; 0 when it is whole. The solver leaves only these two forms. */
static uint32_t walked_partition(struct rewrite *w, const struct placement *p, int32_t axis)
{
    struct axis_layout n = axis_normalise(w->program, &p->axis[axis], w->arena);
    return sole_partition(&n);
}

static value local_indexed(struct rewrite *w, const struct node *n, const value *operand,
                           const struct placement *const *lies)
{
    struct attribute a = n->attribute;
    uint32_t partition = walked_partition(w, lies[0], a.axis);
    dim part[2] = {DIM_NONE, graph_node(w->graph, n->operand[0])->shape[a.axis]};
    if (partition !=
        0) { /* what is outside of this rank's part may be inside of another's, outside of all it is an error */
        part[0] = partition_offset(w->program, partition);
        a.mode = n->op == OP_GATHER ? GATHER_ZERO : a.mode | SCATTER_DROP;
        a.dims = part;
        a.dims_count = n->op == OP_GATHER ? 2 : 1;
    }
    return graph_add(w->program, n->op, n->dtype, 0, NULL, n->operand_count, operand, &a);
}

/* A slice of a cut axis begins where a segment begins: the local start is what is held of the segments before. */
static dim local_start(struct rewrite *w, const struct axis_layout *a, dim start)
{
    struct graph *p = w->program;
    dim whole = dim_const(p->dims, 0), local = whole;
    for (uint32_t s = 0; s < a->count && whole != start; s++) {
        struct axis_layout one = {1, &a->segment[s]};
        dim next = dim_add(p->dims, whole, segment_extent(p, &a->segment[s]));
        if (dim_provably_ge(p->dims, start, next)) {
            local = dim_add(p->dims, local, axis_local_extent(p, &one));
        } else { /* within a segment [a, rest]: a is whole, and what is before holds as many of rest as the rank does */
            struct segment rest = {a->segment[s].count - 1, a->segment[s].factor + 1};
            struct axis_layout inner = {1, &rest};
            dim before = dim_sub(p->dims, start, whole), one_of = dim_const(p->dims, 1), local_of = one_of;
            if (rest.count > 0 && !axis_is_whole(&one)) {
                one_of = segment_extent(p, &rest);
                local_of = axis_local_extent(p, &inner);
            }
            return dim_add(p->dims, local, dim_mul(p->dims, dim_exact_div(p->dims, before, one_of), local_of));
        }
        whole = next;
    }
    return local;
}

static value local_slice(struct rewrite *w, const struct node *n, const value *operand, const struct placement *from,
                         const dim *shape)
{
    dim start[MAX_RANK];
    for (uint32_t a = 0; a < n->rank; a++) {
        dim s = n->attribute.dims[a];
        start[a] = nothing_cut(from) ? s : local_start(w, &from->axis[a], s);
    }
    return graph_slice(w->program, operand[0], start, shape, n->attribute.list);
}

static value reduced(struct rewrite *w, op o, value v, int32_t kind, uint32_t subaxes)
{
    struct graph *p = w->program;
    int32_t last = (int32_t)graph_node(p, v)->rank - 1;
    value r = graph_reduce(p, o, v, 1, &last);
    struct attribute a = {.mode = kind, .index = subaxes};
    return subaxes == 0 ? r : graph_add(p, OP_ALL_REDUCE, graph_node(p, r)->dtype, 0, NULL, 1, &r, &a);
}

/* log(sum(exp(x - max))) + max - x[label], each over the ranks that hold a part of the vocabulary: three scalars a row are exchanged. */
static value local_cross_entropy(struct rewrite *w, const value *operand, const struct placement *logits)
{
    struct graph *p = w->program;
    value x = operand[0];
    uint32_t rank = graph_node(p, x)->rank, rows = rank - 1;
    uint32_t partition = walked_partition(w, logits, (int32_t)rows);
    uint32_t subaxes = partition == 0 ? 0 : p->partitions.at[partition].subaxes;
    value top = reduced(w, OP_REDUCE_MAX, x, REDUCTION_MAX, subaxes);
    int32_t axes[MAX_RANK];
    for (uint32_t a = 0; a < rows; a++) {
        axes[a] = (int32_t)a;
    }
    value wide = graph_broadcast(p, top, rank, graph_node(p, x)->shape, axes);
    value sum =
        reduced(w, OP_REDUCE_SUM, graph_unary(p, OP_EXP, graph_binary(p, OP_SUB, x, wide)), REDUCTION_SUM, subaxes);
    dim base = partition == 0 ? dim_const(p->dims, 0) : partition_offset(p, partition);
    struct attribute pick = {
        .axis = (int32_t)rows, .nbatch = (int32_t)rows, .mode = GATHER_ZERO, .dims = &base, .dims_count = 1};
    value picked = graph_add(p, OP_GATHER, graph_node(p, x)->dtype, 0, NULL, 2, (value[]){x, operand[1]}, &pick);
    if (subaxes != 0) {
        struct attribute a = {.mode = REDUCTION_SUM, .index = subaxes};
        picked = graph_add(p, OP_ALL_REDUCE, graph_node(p, x)->dtype, 0, NULL, 1, &picked, &a);
    }
    return graph_binary(p, OP_SUB, graph_binary(p, OP_ADD, graph_unary(p, OP_LOG, sum), top), picked);
}

/* Coordinates on uncut axes need no exchange; along a cut axis a rank keeps its own. */
static value local_iota(struct rewrite *w, const struct node *n, const struct placement *to, const dim *shape)
{
    struct placement from = *to;
    struct axis_layout *axis = NEW_ARRAY(w->arena, struct axis_layout, n->rank);
    memcpy(axis, to->axis, n->rank * sizeof *axis);
    dim extent[MAX_RANK];
    memcpy(extent, shape, n->rank * sizeof *extent);
    uint32_t a = (uint32_t)n->attribute.axis;
    axis[a] = placement_whole(w->arena, n->rank, n->shape)->axis[a];
    extent[a] = n->shape[a];
    from.axis = axis;
    from.partial = 0;
    from.partial_subaxes = 0;
    return convert(w, graph_iota(w->program, n->dtype, n->rank, extent, a), &from, to);
}

static bool is_leaf(op o)
{
    return o == OP_PARAM || o == OP_CONSTANT || o == OP_IOTA || o == OP_DIM;
}

/* A leaf has no local form of its own: it is made in the placement that a use wants. */
static value local_leaf(struct rewrite *w, const struct node *n, const struct placement *to)
{
    struct graph *p = w->program;
    if (n->op == OP_PARAM) {
        return local_param(w, n, to);
    }
    if (n->op == OP_IOTA) {
        dim shape[MAX_RANK];
        local_shape(w, to, shape);
        return local_iota(w, n, to, shape);
    }
    value v = graph_add(p, n->op, n->dtype, n->rank, n->shape, 0, NULL, &n->attribute);
    return convert(w, v, placement_whole(w->arena, n->rank, n->shape), to);
}

static value localise(struct rewrite *w, value original, const value *operand)
{
    const struct node *n = graph_node(w->graph, original);
    const struct placement *to = w->solution->result[original];
    const struct placement *const *lies = w->solution->operand[original];
    dim shape[MAX_RANK];
    local_shape(w, to, shape);
    if (n->op == OP_INPUT) {
        return graph_input(w->program, w->graph->inputs.at[n->attribute.index].name, n->dtype, n->rank, shape);
    }
    if (n->op == OP_GATHER || n->op == OP_SCATTER) {
        return local_indexed(w, n, operand, lies);
    }
    if (n->op == OP_SLICE) {
        return local_slice(w, n, operand, lies[0], shape);
    }
    if (n->op == OP_CROSS_ENTROPY) {
        return local_cross_entropy(w, operand, lies[0]);
    }
    return graph_add(w->program, n->op, n->dtype, n->rank, shape, n->operand_count, operand, &n->attribute);
}

/* ---- the walk ---- */

static void note_target(struct rewrite *w, value v, const struct placement *to, const struct placement **first)
{
    if (w->solution->result[v]->partial == 0 || to->partial != 0) {
        return;
    }
    w->completed[v] = w->completed[v] || (first[v] != NULL && !placement_equal(first[v], to));
    first[v] = first[v] == NULL ? to : first[v];
}

/* Two scatterings would move as much as one all_reduce, which serves any number of uses. */
static void find_completed(struct rewrite *w, const bool *live)
{
    const struct graph *g = w->graph;
    const struct placement **first = NEW_ARRAY(w->arena, const struct placement *, g->nodes.count);
    w->completed = NEW_ARRAY(w->arena, bool, g->nodes.count);
    for (value v = 1; v < g->nodes.count; v++) {
        for (uint32_t i = 0; live[v] && i < graph_node(g, v)->operand_count; i++) {
            note_target(w, graph_node(g, v)->operand[i], w->solution->operand[v][i], first);
        }
    }
    for (uint32_t i = 0; i < g->outputs.count; i++) {
        note_target(w, g->outputs.at[i].value, w->solution->output[i], first);
    }
}

static value convert_from(struct rewrite *w, value v, const struct placement *from, const struct placement *to)
{
    if (!w->completed[v] || to->partial != 0) {
        return convert(w, w->local[v], from, to);
    }
    struct placement *whole_sum = arena_copy(w->arena, from, sizeof *from);
    whole_sum->partial = 0;
    whole_sum->partial_subaxes = 0;
    return convert(w, convert(w, w->local[v], from, whole_sum), whole_sum, to);
}

/* The program's value of `v` in placement `to`. */
static value in_placement(struct rewrite *w, value v, const struct placement *to)
{
    const struct placement *from = w->solution->result[v];
    bool leaf = is_leaf(graph_node(w->graph, v)->op);
    if (!leaf && placement_equal(from, to)) {
        return w->local[v];
    }
    for (struct made *m = &w->made[v]; m != NULL; m = m->next) {
        if (m->placement != NULL && placement_equal(m->placement, to)) {
            return m->value;
        }
    }
    const struct node *n = graph_node(w->graph, v);
    graph_set_origin(w->program, n->origin);
    value made = leaf ? local_leaf(w, n, to) : convert_from(w, v, from, to);
    mark_source(w, 0);
    w->program->source.at[made] = v;
    w->program->nodes.at[made].name =
        w->program->nodes.at[made].name == NULL && leaf ? n->name : w->program->nodes.at[made].name;
    struct made *m = NEW(w->arena, struct made);
    *m = (struct made){to, made, w->made[v].next};
    w->made[v].next = m;
    return made;
}

static status walk(struct rewrite *w, const bool *live)
{
    const struct graph *g = w->graph;
    value operand_space[MAX_RANK];
    for (value v = 1; v < g->nodes.count; v++) {
        const struct node *n = graph_node(g, v);
        if (!live[v] || is_leaf(n->op)) {
            continue;
        }
        value *operand = n->operand_count <= MAX_RANK ? operand_space : NEW_ARRAY(w->arena, value, n->operand_count);
        for (uint32_t i = 0; i < n->operand_count; i++) {
            operand[i] = in_placement(w, n->operand[i], w->solution->operand[v][i]);
        }
        graph_set_origin(w->program, n->origin);
        w->local[v] = localise(w, v, operand);
        mark_source(w, 0);
        w->program->source.at[w->local[v]] = v;
        w->program->nodes.at[w->local[v]].name = n->name;
        dim shape[MAX_RANK];
        local_shape(w, w->solution->result[v], shape);
        const struct node *made = graph_node(w->program, w->local[v]);
        for (uint32_t a = 0; a < n->rank; a++) {
            if (made->shape[a] != shape[a]) {
                return diag_error(w->diag, TPC_INTERNAL, graph_where(g, v, w->arena),
                                  "%s: axis %u is %s on a rank but its placement says %s", op_info(n->op)->text, a,
                                  dim_text(g->dims, made->shape[a], w->arena), dim_text(g->dims, shape[a], w->arena));
            }
        }
    }
    return TPC_OK;
}

status parallelize(struct arena *arena, const struct graph *g, const struct solution *solution, struct diag *diag,
                   struct graph **out)
{
    struct graph *p = graph_derive(g);
    p->mesh = *solution->mesh;
    p->partitions = g->partitions;
    p->partitions.capacity = p->partitions.count; /* growing copies: g keeps its own */
    struct rewrite w = {.arena = arena,
                        .graph = g,
                        .program = p,
                        .solution = solution,
                        .diag = diag,
                        .steps = {.arena = arena},
                        .ways = {.arena = arena}};
    w.local = NEW_ARRAY(arena, value, g->nodes.count);
    w.made = NEW_ARRAY(arena, struct made, g->nodes.count);
    w.sliced = NEW_ARRAY(arena, struct sliced *, g->params.count + 1);
    mark_source(&w, 0);
    const bool *live = graph_live(g, arena);
    find_completed(&w, live);
    status s = walk(&w, live);
    if (s != TPC_OK) {
        return s;
    }
    for (uint32_t i = 0; i < g->outputs.count; i++) {
        value v = in_placement(&w, g->outputs.at[i].value, solution->output[i]);
        graph_output(p, g->outputs.at[i].name, v);
    }
    p->states = g->states;
    p->states.capacity = p->states.count;
    *out = p;
    return TPC_OK;
}
