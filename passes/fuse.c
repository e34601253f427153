/* passes/fuse.c - from the per-rank Graph to steps over buffers.
 *
 * Requires a verified Graph without composite operations. Keeps every output's value. Start at fuse; the decisions are in fuse_plan.c.
 */
#include "passes/fuse.h"

struct builder {
    struct plan *plan;
    struct program *program;
    uint32_t *buffer;  /* per value: 1 + buffer, 0 none yet */
    value *in_place;   /* per value: the collective's result that takes its buffer over, 0 none */
    bool *kept;        /* per value: a static one that run-time steps read */
    struct map kernel; /* hash -> 1 + first kernel of that hash */
};

/* ---- buffers ---- */

static uint32_t add_buffer(struct builder *b, struct buffer buffer)
{
    *PUSH(b->plan->arena, &b->program->buffers) = buffer;
    return b->program->buffers.count - 1;
}

/* The memory of a state that is written in place. */
static uint32_t state_buffer(struct builder *b, uint32_t state)
{
    const struct state_memory *m = &b->plan->memory[state];
    const struct node *n = graph_node(b->plan->graph, m->past);
    if (b->buffer[m->past] == 0)
        b->buffer[m->past] =
            1 + add_buffer(b, (struct buffer){.kind = BUFFER_STATE,
                                              .type = n->dtype,
                                              .elements = dim_product(b->plan->graph->dims, m->shape, n->rank),
                                              .index = state,
                                              .capacity = m->capacity,
                                              .node = m->past});
    return b->buffer[m->past] - 1;
}

/* The buffer that holds v, which may be another view of a materialised value. */
static uint32_t buffer_for(struct builder *b, value v)
{
    struct graph *g = b->plan->graph;
    while (!b->plan->materialised[v] && plan_is_alias(b->plan, v))
        v = graph_node(g, v)->operand[0];
    while (b->in_place[v] != 0)
        v = b->in_place[v];
    if (b->plan->state[v] != 0)
        return state_buffer(b, b->plan->state[v] - 1);
    if (b->buffer[v] != 0)
        return b->buffer[v] - 1;
    const struct node *n = graph_node(g, v);
    struct buffer fresh = {.type = n->dtype, .elements = graph_elements(g, v), .node = v};
    if (n->op == OP_INPUT) {
        fresh.kind = BUFFER_INPUT;
        fresh.index = n->attribute.index;
    } else if (n->op == OP_PARAM) {
        fresh.kind = BUFFER_WEIGHT;
        fresh.sharded = n->attribute.mode != 0;
        fresh.index = fresh.sharded ? (uint32_t)n->attribute.mode - 1 : n->attribute.index;
    } else if (n->op == OP_CONSTANT) {
        fresh.kind = BUFFER_CONSTANT;
    } else if (b->plan->output[v] != 0) {
        fresh.kind = BUFFER_OUTPUT;
        fresh.index = b->plan->output[v] - 1;
    } else {
        fresh.kind = b->kept[v] ? BUFFER_KEPT : BUFFER_TEMP;
    }
    b->buffer[v] = add_buffer(b, fresh) + 1;
    return b->buffer[v] - 1;
}

/* ---- kernels ---- */

static uint32_t intern_kernel(struct builder *b, const struct kernel *k)
{
    struct program *p = b->program;
    uint64_t hash = kernel_hash(k, b->plan->graph->dims, b->plan->arena);
    uint32_t *slot = map_put(&b->kernel, &hash, sizeof hash, NULL);
    if (*slot != 0 && kernel_same(&p->kernels.at[*slot - 1], k))
        return *slot - 1;
    *PUSH(b->plan->arena, &p->kernels) = *k;
    *slot = p->kernels.count;
    return p->kernels.count - 1;
}

/* ---- steps ---- */

static struct step *add_step(struct builder *b, step_kind kind, const struct group *g, uint32_t args)
{
    struct step *s = PUSH(b->plan->arena, &b->program->steps);
    uint32_t *arg = NEW_ARRAY(b->plan->arena, uint32_t, args);
    s->kind = kind;
    s->phase = g->is_static ? PHASE_LOAD : PHASE_RUN;
    s->node = g->root;
    s->arg_count = args;
    s->arg = arg;
    return s;
}

static void set_argument(const struct step *s, uint32_t i, uint32_t buffer)
{
    ((uint32_t *)s->arg)[i] = buffer;
}

static status emit_kernel(struct builder *b, uint32_t number)
{
    struct kernel k;
    value *held;
    status s = fuse_kernel(b->plan, number, &k, &held);
    if (s != TPC_OK)
        return s;
    struct step *step = add_step(b, STEP_KERNEL, plan_group(b->plan, number), k.buffer_count);
    step->kernel = intern_kernel(b, &k);
    for (uint32_t i = 0; i < k.buffer_count; i++)
        set_argument(step, i, buffer_for(b, held[i]));
    return TPC_OK;
}

static void emit_dot(struct builder *b, const struct group *g)
{
    struct step *s = add_step(b, STEP_DOT, g, 3);
    s->dot = fuse_dot(b->plan, g);
    set_argument(s, 0, buffer_for(b, g->operand[0]));
    set_argument(s, 1, buffer_for(b, g->operand[1]));
    set_argument(s, 2, buffer_for(b, b->plan->written_as[g->root]));
}

static status emit_step(struct builder *b, const struct group *g)
{
    const struct node *n = graph_node(b->plan->graph, g->root);
    op_class class = op_info(n->op)->class;
    if (class == CLASS_COMPOSITE)
        return diag_error(b->plan->diag, TPC_INTERNAL, graph_where(b->plan->graph, g->root, b->plan->arena),
                          "%s was not expanded before fusion", op_info(n->op)->text);
    struct step *s = add_step(b, class == CLASS_COLLECTIVE ? STEP_COLLECTIVE : STEP_BUILTIN, g, n->operand_count + 1);
    for (uint32_t i = 0; i < n->operand_count; i++)
        set_argument(s, i, buffer_for(b, n->operand[i]));
    set_argument(s, n->operand_count, buffer_for(b, g->root));
    return TPC_OK;
}

static void emit_copy(struct builder *b, const struct group *g)
{
    struct graph *graph = b->plan->graph;
    struct buffer out = {.kind = BUFFER_OUTPUT,
                         .type = graph_node(graph, g->root)->dtype,
                         .elements = graph_elements(graph, g->root),
                         .index = g->output,
                         .node = g->root};
    struct step *s = add_step(b, STEP_COPY, g, 2);
    set_argument(s, 0, buffer_for(b, g->root));
    set_argument(s, 1, add_buffer(b, out));
}

static status emit_group(struct builder *b, uint32_t number)
{
    const struct group *g = plan_group(b->plan, number);
    switch (g->kind) {
    case GROUP_KERNEL:
        return emit_kernel(b, number);
    case GROUP_DOT:
        emit_dot(b, g);
        return TPC_OK;
    case GROUP_STEP:
        return emit_step(b, g);
    case GROUP_COPY:
        emit_copy(b, g);
        return TPC_OK;
    }
    return TPC_INTERNAL;
}

/* ---- order ---- */

/* Emits what `number` reads before itself, with a stack of its own. */
static status emit_after_producers(struct builder *b, uint32_t number, bool *done)
{
    struct plan *p = b->plan;
    LIST(uint32_t) stack = {0};
    *PUSH(p->arena, &stack) = number;
    while (stack.count > 0) {
        uint32_t top = stack.at[stack.count - 1], before = stack.count;
        const struct group *g = plan_group(p, top);
        for (uint32_t i = 0; i < g->reads.count && !done[top]; i++)
            for (uint32_t k = 0; k < p->producers[g->reads.at[i]]; k++) {
                uint32_t producer = p->producer[g->reads.at[i]] - 1 + k;
                if (p->producer[g->reads.at[i]] != 0 && !done[producer] && producer != top)
                    *PUSH(p->arena, &stack) = producer;
            }
        if (stack.count > before)
            continue;
        stack.count--;
        if (done[top])
            continue;
        done[top] = true;
        status s = emit_group(b, top);
        if (s != TPC_OK)
            return s;
    }
    return TPC_OK;
}

/* Groups were made from the last value to the first; parts of one concat in order. */
static status emit_all(struct builder *b)
{
    struct plan *p = b->plan;
    bool *done = NEW_ARRAY(p->arena, bool, p->groups.count + 1);
    for (uint32_t i = p->groups.count; i-- > 0;) {
        uint32_t first = i;
        while (first > 0 && plan_group(p, first)->part > 0 &&
               plan_group(p, first - 1)->root == plan_group(p, first)->root)
            first--;
        for (uint32_t k = first; k <= i; k++) {
            status s = emit_after_producers(b, k, done);
            if (s != TPC_OK)
                return s;
        }
        i = first;
    }
    return TPC_OK;
}

/* ---- before ---- */

/* A collective that may work in place takes over the buffer of an operand that nobody else reads. */
static void find_in_place(struct builder *b)
{
    struct plan *p = b->plan;
    for (uint32_t i = 0; i < p->groups.count; i++) {
        const struct group *g = plan_group(p, i);
        const struct node *n = graph_node(p->graph, g->root);
        if (g->kind != GROUP_STEP || n->op != OP_ALL_REDUCE)
            continue;
        value from = plan_root(p, n->operand[0]);
        const struct access *a = &p->pool.at[p->accesses[from]];
        if (a->next == 0 && a->group == i && p->producer[from] != 0 && p->output[from] == 0 && !p->is_static[from])
            b->in_place[from] = g->root;
    }
}

static void find_kept(struct builder *b)
{
    struct plan *p = b->plan;
    for (uint32_t i = 0; i < p->groups.count; i++) {
        const struct group *g = plan_group(p, i);
        for (uint32_t k = 0; k < g->reads.count && !g->is_static; k++)
            b->kept[g->reads.at[k]] = p->is_static[g->reads.at[k]];
    }
}

status fuse(struct arena *arena, struct graph *graph, struct diag *diag, struct program **out)
{
    struct plan plan = {.arena = arena, .graph = graph, .diag = diag};
    struct builder b = {.plan = &plan, .kernel.arena = arena};
    for (uint32_t i = 0; i < KERNEL_AXES; i++) /* so that their order in the table does not depend on the model */
        (void)dim_coordinate(graph->dims, i);
    b.program = NEW(arena, struct program);
    b.program->graph = graph;
    b.buffer = NEW_ARRAY(arena, uint32_t, graph->nodes.count);
    b.in_place = NEW_ARRAY(arena, value, graph->nodes.count);
    b.kept = NEW_ARRAY(arena, bool, graph->nodes.count);
    status s = fuse_plan(&plan);
    if (s != TPC_OK)
        return s;
    find_in_place(&b);
    find_kept(&b);
    if ((s = emit_all(&b)) != TPC_OK)
        return s;
    *out = b.program;
    return TPC_OK;
}
