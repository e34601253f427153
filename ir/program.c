/* ir/program.c - a Program's invariants.
 *
 * A Program may come from a file: program_verify trusts no number in it. Start there.
 */
#include "ir/program.h"

#include <stdlib.h>

/* ---- invariants ---- */

static status broken(struct diag *diag, const char *what, uint32_t number, const char *why)
{
    return diag_error(diag, TPC_INTERNAL, "program", "%s %u: %s", what, (unsigned)number, why);
}

static bool plain_dim(const struct program *p, dim d)
{
    return d != DIM_NONE && d < dims_count(p->graph->dims) && !dim_uses_kind(p->graph->dims, d, SYMBOL_COORDINATE);
}

/* Shaped as both ends of the state, with the capacity along its axis. */
static bool state_holds(const struct program *p, const struct buffer *b)
{
    const struct graph *g = p->graph;
    if (b->index >= g->states.count || b->capacity >= g->states.count)
        return false;
    const struct state *s = &g->states.at[b->index];
    const struct node *past = graph_node(g, g->inputs.at[s->input].value);
    const struct node *present = graph_node(g, g->outputs.at[s->output].value);
    dim elements = dim_capacity(g->dims, b->capacity);
    for (uint32_t a = 0; a < past->rank; a++) {
        if (a == s->axis)
            continue;
        if (past->shape[a] != present->shape[a])
            return false;
        elements = dim_mul(g->dims, elements, past->shape[a]);
    }
    return b->type == past->dtype && elements == b->elements;
}

static status verify_buffer(const struct program *p, uint32_t number, struct diag *diag)
{
    const struct graph *g = p->graph;
    const struct buffer *b = &p->buffers.at[number];
    if (b->type <= DT_NONE || b->type >= DT_COUNT || !plain_dim(p, b->elements) || b->node >= g->nodes.count)
        return broken(diag, "buffer", number, "bad type, size or node");
    switch (b->kind) {
    case BUFFER_TEMP:
    case BUFFER_KEPT:
        return TPC_OK;
    case BUFFER_INPUT:
    case BUFFER_OUTPUT: {
        bool input = b->kind == BUFFER_INPUT;
        if (b->index >= (input ? g->inputs.count : g->outputs.count))
            return broken(diag, "buffer", number, "no such input or output");
        value v = input ? g->inputs.at[b->index].value : g->outputs.at[b->index].value;
        if (graph_node(g, v)->dtype != b->type || graph_elements(g, v) != b->elements)
            return broken(diag, "buffer", number, "is not as large as its input or output, or of another type");
        return TPC_OK;
    }
    case BUFFER_STATE:
        return state_holds(p, b) ? TPC_OK
                                 : broken(diag, "buffer", number, "is not the memory of a state with a capacity");
    case BUFFER_WEIGHT: {
        if (b->index >= (b->sharded ? g->shards.count : g->params.count))
            return broken(diag, "buffer", number, "no such weight");
        uint32_t param = b->sharded ? g->shards.at[b->index].param : b->index;
        const struct node *n = graph_node(g, b->node);
        bool same = n->op == OP_PARAM && n->attribute.index == param &&
                    n->attribute.mode == (b->sharded ? (int32_t)b->index + 1 : 0) && n->dtype == b->type &&
                    graph_elements(g, b->node) == b->elements;
        return same ? TPC_OK : broken(diag, "buffer", number, "is not what its param node says");
    }
    case BUFFER_CONSTANT: {
        const struct node *n = graph_node(g, b->node);
        bool same = n->op == OP_CONSTANT && n->dtype == b->type && graph_elements(g, b->node) == b->elements;
        return same ? TPC_OK : broken(diag, "buffer", number, "is not what its constant says");
    }
    }
    return broken(diag, "buffer", number, "unknown kind");
}

static bool buffer_is(const struct program *p, uint32_t buffer, value v)
{
    const struct buffer *b = &p->buffers.at[buffer];
    return b->type == graph_node(p->graph, v)->dtype && b->elements == graph_elements(p->graph, v);
}

static const char *kernel_step(const struct program *p, const struct step *s)
{
    if (s->kernel >= p->kernels.count)
        return "no such kernel";
    const struct kernel *k = &p->kernels.at[s->kernel];
    if (s->arg_count != k->buffer_count)
        return "not as many buffers as its kernel takes";
    for (uint32_t i = 0; i < s->arg_count; i++)
        if (p->buffers.at[s->arg[i]].type != k->buffer[i].type)
            return "a buffer of another type than its kernel takes";
    return NULL;
}

static const char *dot_step(const struct program *p, const struct step *s)
{
    if (s->dot == NULL || s->arg_count != 3)
        return "a dot takes three buffers";
    const struct dot *d = s->dot;
    uint64_t axes = (uint64_t)d->batch + d->m + d->n + d->k;
    if (axes > MAX_RANK)
        return "too many axes";
    for (int o = 0; o < 3; o++) {
        if (p->buffers.at[s->arg[o]].type != p->buffers.at[s->arg[2]].type || !plain_dim(p, d->offset[o]))
            return "buffers of unequal type, or a bad offset";
        for (uint32_t i = 0; i < axes; i++)
            if (!plain_dim(p, d->extent[i]) || !plain_dim(p, d->stride[o][i]))
                return "a bad extent or stride";
    }
    return NULL;
}

static const char *node_step(const struct program *p, const struct step *s)
{
    const struct node *n = graph_node(p->graph, s->node);
    op_class class = op_info(n->op)->class;
    bool fits = s->kind == STEP_COLLECTIVE ? class == CLASS_COLLECTIVE
                                           : class == CLASS_SCAN || class == CLASS_SORT || class == CLASS_SCATTER;
    if (!fits || s->arg_count != n->operand_count + 1)
        return "its node is of another kind";
    for (uint32_t i = 0; i < n->operand_count; i++)
        if (!buffer_is(p, s->arg[i], n->operand[i]))
            return "a buffer does not hold its operand";
    return buffer_is(p, s->arg[n->operand_count], s->node) ? NULL : "a buffer does not hold its result";
}

static const char *step_problem(const struct program *p, const struct step *s)
{
    if (s->node == 0 || s->node >= p->graph->nodes.count || (s->phase != PHASE_LOAD && s->phase != PHASE_RUN))
        return "bad node or phase";
    for (uint32_t i = 0; i < s->arg_count; i++)
        if (s->arg[i] >= p->buffers.count)
            return "no such buffer";
    switch (s->kind) {
    case STEP_KERNEL:
        return kernel_step(p, s);
    case STEP_DOT:
        return dot_step(p, s);
    case STEP_COLLECTIVE:
    case STEP_BUILTIN:
        return node_step(p, s);
    case STEP_COPY:
        if (s->arg_count != 2 || p->buffers.at[s->arg[0]].type != p->buffers.at[s->arg[1]].type ||
            p->buffers.at[s->arg[0]].elements != p->buffers.at[s->arg[1]].elements)
            return "a copy takes two buffers of one size";
        return NULL;
    }
    return "unknown kind";
}

static bool writes(const struct program *p, const struct step *s, uint32_t arg)
{
    return s->kind == STEP_KERNEL ? p->kernels.at[s->kernel].buffer[arg].written : arg + 1 == s->arg_count;
}

/* Nothing is read before it is written, nothing is written that may not be, live ranges are true. */
static status verify_flow(const struct program *p, struct diag *diag, bool *written)
{
    for (uint32_t i = 0; i < p->steps.count; i++) {
        const struct step *s = &p->steps.at[i];
        for (uint32_t k = 0; k < s->arg_count; k++) {
            const struct buffer *b = &p->buffers.at[s->arg[k]];
            bool state = b->kind == BUFFER_STATE;
            bool given = b->kind == BUFFER_INPUT || b->kind == BUFFER_WEIGHT || b->kind == BUFFER_CONSTANT;
            bool write = writes(p, s, k);
            if (i < b->first || i > b->last)
                return broken(diag, "step", i, "uses a buffer outside of its live range");
            if (write && (given || (s->phase == PHASE_RUN && b->kind == BUFFER_KEPT)))
                return broken(diag, "step", i, "writes what is only to be read");
            if (!write && !given && !state && !written[s->arg[k]])
                return broken(diag, "step", i, "reads a buffer that nothing has written");
            if (s->phase == PHASE_LOAD && (state || b->kind == BUFFER_INPUT || b->kind == BUFFER_OUTPUT))
                return broken(diag, "step", i, "uses an input or output at load");
        }
        for (uint32_t k = 0; k < s->arg_count; k++)
            written[s->arg[k]] |= writes(p, s, k);
        if (i > 0 && s->phase < p->steps.at[i - 1].phase)
            return broken(diag, "step", i, "is of an earlier phase than the one before it");
    }
    return TPC_OK;
}

/* An output is written to one buffer, be it a state's memory; an input that lies in such memory has no other. */
static status verify_edges(const struct program *p, const bool *written, struct diag *diag)
{
    const struct graph *g = p->graph;
    size_t size = (g->outputs.count + g->inputs.count + 1) * sizeof(uint32_t);
    uint32_t *found = base_alloc(size), *memory = found + g->outputs.count;
    status s = TPC_OK;
    if (found == NULL)
        guard_out_of_memory(size);
    for (uint32_t i = 0; i < p->buffers.count; i++) {
        const struct buffer *b = &p->buffers.at[i];
        if (b->kind == BUFFER_STATE)
            memory[g->states.at[b->index].input]++;
        if (b->kind == BUFFER_STATE || b->kind == BUFFER_OUTPUT)
            found[b->kind == BUFFER_STATE ? g->states.at[b->index].output : b->index] += written[i];
    }
    for (uint32_t o = 0; o < g->outputs.count && s == TPC_OK; o++)
        if (found[o] != 1)
            s = broken(diag, "output", o, "is not written to exactly one buffer");
    for (uint32_t i = 0; i < p->buffers.count && s == TPC_OK; i++) {
        const struct buffer *b = &p->buffers.at[i];
        if ((b->kind == BUFFER_INPUT && memory[b->index] > 0) ||
            (b->kind == BUFFER_STATE && memory[g->states.at[b->index].input] > 1))
            s = broken(diag, "buffer", i, "holds an input that lies in a state's memory");
    }
    base_free(found);
    return s;
}

status program_verify(const struct program *p, struct diag *diag)
{
    if (p->graph == NULL)
        return diag_error(diag, TPC_INTERNAL, "program", "has no graph");
    status s = TPC_OK;
    for (uint32_t i = 0; i < p->kernels.count && s == TPC_OK; i++)
        s = kernel_verify(&p->kernels.at[i], p->graph->dims, diag);
    for (uint32_t i = 0; i < p->buffers.count && s == TPC_OK; i++)
        s = verify_buffer(p, i, diag);
    for (uint32_t i = 0; i < p->steps.count && s == TPC_OK; i++) {
        const char *problem = step_problem(p, &p->steps.at[i]);
        s = problem == NULL ? TPC_OK : broken(diag, "step", i, problem);
    }
    if (s != TPC_OK)
        return s;
    bool *written = base_alloc(p->buffers.count + 1);
    if (written == NULL)
        guard_out_of_memory(p->buffers.count + 1);
    s = verify_flow(p, diag, written);
    if (s == TPC_OK)
        s = verify_edges(p, written, diag);
    base_free(written);
    return s;
}
