/* runtime/engine_next.c - what follows from a run's inputs before it starts: symbols, addresses of all buffers; and the same for the run behind it, while a device
 * computes.
 *
 * Invariant: what is made ready changes nothing that the run in hand, or its outputs, use; where memory would have to grow it is left to the run
 * itself. Start with expect_next.
 */
#include "ir/bind.h"
#include "runtime/comm_nccl.h"
#include "runtime/engine_impl.h"

/* ---- symbols ---------------------------------------------------------------------------------------------------------- */

static const struct node *input_node(const struct engine *e, uint32_t i)
{
    return graph_node(e->graph, e->graph->inputs.at[i].value);
}

/* Rank 0's extents of a cut input, from the whole one's: what is cut is a function of what the whole axes and plain symbols say. */
static bool local_shape(const struct engine *e, uint32_t i, const int64_t *of, struct tensor *t)
{
    const struct node *n = input_node(e, i);
    const struct placement *p = e->links.input[i];
    for (uint32_t a = 0; a < n->rank && a < t->rank; a++) {
        bool cut = false;
        for (uint32_t s = 0; s < p->axis[a].count; s++)
            for (uint32_t f = 0; f < p->axis[a].segment[s].count; f++)
                cut = cut || p->axis[a].segment[s].factor[f].partition;
        if (cut && !dim_eval(e->graph->dims, n->shape[a], of, &t->shape[a]))
            return false;
    }
    return true;
}

/* Symbols that are the whole extent of an axis: enough for the partitions of cut inputs. */
static void guess_symbols(const struct engine *e, const struct tensor *inputs, int64_t *of)
{
    const struct dims *t = e->graph->dims;
    memset(of, 0, dims_symbol_count(t) * sizeof *of);
    for (uint32_t i = 0; i < e->graph->inputs.count; i++) {
        const struct node *n = input_node(e, i);
        for (uint32_t a = 0; a < n->rank && a < inputs[i].rank; a++) {
            dim d = n->shape[a];
            if (e->cut_input[i])
                d = e->links.input[i]->axis[a].segment[0].factor[0].extent;
            struct dim_node x = dim_get(t, d);
            if (x.op == DIM_SYMBOL && dims_symbol(t, x.symbol)->kind == SYMBOL_INPUT)
                of[x.symbol] = inputs[i].shape[a];
        }
    }
}

status bind_inputs(const struct engine *e, const struct tensor *whole, struct arena *arena, struct diag *diag,
                   int64_t *of)
{
    const struct graph *g = e->graph;
    struct tensor *local = arena_copy(arena, whole, g->inputs.count * sizeof *local);
    bool any = false;
    for (uint32_t i = 0; i < g->inputs.count; i++)
        any = any || e->cut_input[i];
    if (any) {
        int64_t *guess = NEW_ARRAY(arena, int64_t, dims_symbol_count(g->dims) + 1);
        guess_symbols(e, whole, guess);
        if (!graph_bind_rank(g, 0, guess))
            return diag_error(diag, TPC_DATA, NULL, "these inputs are too large: an extent overflows");
        for (uint32_t i = 0; i < g->inputs.count; i++)
            if (e->cut_input[i] && !local_shape(e, i, guess, &local[i]))
                return diag_error(diag, TPC_DATA, NULL, "input '%s' is too large: an extent overflows",
                                  g->inputs.at[i].name);
    }
    return bind_symbols(g, 0, local, arena, diag, of);
}

/* ---- addresses -------------------------------------------------------------------------------------------------------- */

static void *address_in(const struct store *s, uint64_t bytes)
{
    return s->capacity >= bytes ? s->at : NULL;
}

static void *address_of(const struct rank *r, const struct shape_plan *plan, const struct sides *x, uint32_t b)
{
    const struct engine *e = r->engine;
    const struct buffer *buffer = &e->program->buffers.at[b];
    uint32_t i = buffer->index;
    switch (buffer->kind) {
    case BUFFER_INPUT:
        if (x->keep && x->keep[i])
            return r->output[2 * e->graph->states.at[e->state_of_input[i] - 1].output + x->turn].at;
        return e->cut_input[i] || !r->device->ops->reads_host ? address_in(&r->input[i], plan->bytes[b])
                                                              : e->input[i].data;
    case BUFFER_OUTPUT:
        return address_in(&r->output[2 * i + (e->state_output[i] ? !x->turn : 0)], plan->bytes[b]);
    case BUFFER_STATE:
        return r->state[i].capacity == (uint64_t)x->capacity[buffer->capacity]
                   ? address_in(&r->state[i].store, plan->bytes[b])
                   : NULL;
    case BUFFER_TEMP:
        return address_in(&r->temporaries, plan->arena_bytes)
                   ? (char *)r->temporaries.at + (plan->offset[b] != UINT64_MAX ? plan->offset[b] : 0)
                   : NULL;
    case BUFFER_KEPT:
    case BUFFER_WEIGHT:
    case BUFFER_CONSTANT:
        break;
    }
    return r->address[b];
}

bool addresses_of(const struct rank *r, const struct shape_plan *plan, const struct sides *x, void **address)
{
    const struct engine *e = r->engine;
    bool load = e->command == COMMAND_LOAD;
    for (uint32_t b = 0; b < e->program->buffers.count; b++) {
        buffer_kind kind = e->program->buffers.at[b].kind;
        bool stays = kind == BUFFER_KEPT || kind == BUFFER_WEIGHT || kind == BUFFER_CONSTANT;
        if (load && kind != BUFFER_TEMP)
            continue;
        address[b] = stays ? r->address[b] : address_of(r, plan, x, b);
        if (!address[b] && !stays)
            return false;
    }
    return true;
}

/* ---- the run that comes next -------------------------------------------------------------------------------------------- */

void engine_expect(struct engine *e, const struct tensor *inputs, const bool *keep, bool begin,
                   const struct engine_lines *lines)
{
    uint32_t count = e->graph->inputs.count;
    memcpy(e->expected.input, inputs, count * sizeof *inputs);
    memset(e->expected.keep, 0, count * sizeof *keep);
    if (keep)
        memcpy(e->expected.keep, keep, count * sizeof *keep);
    e->expected.given = wanted_lines_set(e, &e->expected.lines, lines);
    e->expected.begin = begin;
}

bool as_foreseen(const struct engine *e, const struct tensor *inputs, const bool *keep)
{
    const struct expected *x = &e->foreseen;
    bool same = x->given && e->ran && wanted_lines_same(e, &x->lines, &e->best.lines);
    for (uint32_t i = 0; i < e->local && same; i++)
        same = e->rank[i].ready;
    for (uint32_t i = 0; i < e->graph->inputs.count && same; i++) {
        const struct tensor *a = &inputs[i], *b = &x->input[i];
        same = x->keep[i] == (keep && keep[i]);
        if (same && !x->keep[i])
            same = a->dtype == b->dtype && a->rank == b->rank &&
                   memcmp(a->shape, b->shape, a->rank * sizeof *a->shape) == 0;
    }
    return same;
}

struct course course_of(const struct rank *r, struct shape_plan *plan, void *const *address, uint32_t slot,
                        const struct wanted_lines *lines)
{
    const struct engine *e = r->engine;
    uint64_t best = best_key(e, lines, slot);
    uint64_t shapes = hash_bytes(plan->of, dims_symbol_count(e->graph->dims) * sizeof *plan->of, best);
    return (struct course){plan, address, slot, lines,
                           hash_bytes(address, e->program->buffers.count * sizeof *address, shapes)};
}

/* The symbols of the expected run. false: they cannot be told, or states will have other capacities. */
static bool expected_symbols(struct rank *r, struct diag *diag, int64_t *of)
{
    const struct engine *e = r->engine;
    const struct graph *g = e->graph;
    struct tensor *input = arena_copy(r->scratch, e->expected.input, g->inputs.count * sizeof *input);
    int64_t *capacity = NEW_ARRAY(r->scratch, int64_t, g->states.count + 1);
    for (uint32_t i = 0; i < g->inputs.count; i++) {
        uint32_t state = e->state_of_input[i];
        if (e->expected.keep[i] && (!state || !output_shape(e, g->states.at[state - 1].output, r->now->of, &input[i])))
            return false;
    }
    return bind_inputs(e, input, r->scratch, diag, of) == TPC_OK &&
           states_measure(e, r->scratch, e->expected.keep, diag, of, capacity) == TPC_OK &&
           memcmp(capacity, e->capacity, g->states.count * sizeof *capacity) == 0;
}

static void swallow(void *user, severity level, const char *line)
{
    (void)user;
    (void)level;
    (void)line;
}

static status make_next(void *context)
{
    struct rank *r = context;
    const struct engine *e = r->engine;
    struct diag diag = {.sink = swallow};
    const struct sides sides = {e->expected.keep, !e->turn, e->capacity};
    struct shape_plan *plan = NULL;
    int64_t *of = NEW_ARRAY(r->scratch, int64_t, dims_symbol_count(e->graph->dims) + 1);
    if (!expected_symbols(r, &diag, of) || shape_plan_find(r, of, &plan) != TPC_OK)
        return TPC_OK;
    memcpy(r->next_address, r->address, e->program->buffers.count * sizeof *r->address);
    if (!addresses_of(r, plan, &sides, r->next_address) || r->best.capacity < best_bytes(r, plan))
        return TPC_OK;
    r->next = course_of(r, plan, r->next_address, !e->turn, &e->expected.lines);
    r->ready = true;
    make_ready(r, &r->next);
    return TPC_OK;
}

void expect_next(struct rank *r)
{
    struct diag diag = {.sink = swallow};
    struct failure failure = r->failure;
    value failed_at = r->failed_at;
    if (!r->engine->expected.given || !r->device->ops->prepare)
        return;
    struct arena_mark mark = arena_mark(r->scratch);
    (void)guard_run(&diag, make_next, r);
    arena_rewind(r->scratch, mark);
    r->failure = failure; /* it is for the next run to say what is wrong with it */
    r->failed_at = failed_at;
}

/* ---- a run that begins before the last one is over ------------------------------------------------------------------------ */

/* Do the places that the last step finds lie where this input's elements belong? */
static bool is_chained(const struct rank *r, uint32_t input, const struct tensor *t)
{
    const struct engine *e = r->engine;
    return e->best.rows > 0 && e->best.input == input && (uint64_t)e->best.rows == t->count &&
           r->input[input].capacity >= tensor_bytes(t);
}

static status begin(void *context)
{
    struct rank *r = context;
    struct engine *e = r->engine;
    const struct device_ops *ops = r->device->ops;
    const struct tensor *input = e->expected.input;
    for (uint32_t i = 0; i < e->graph->inputs.count && r == e->rank; i++)
        if (!e->expected.keep[i])
            e->begun[i] = i == e->best.input ? 0 : hash_bytes(input[i].data, tensor_bytes(&input[i]), 0);
    r->began = true; /* as much of it as there is */
    status s = bring_inputs(r, input, e->expected.keep, e->best.input);
    if (s == TPC_OK)
        s = ops->replay(r->device, &r->failure);
    if (s == TPC_OK)
        s = ops->mark(r->device, r->next.slot, &r->failure);
    r->marked = s == TPC_OK;
    return s;
}

/* Ranks begin together or not at all: a collective waits for all of them. The device computes meanwhile. */
static status agree(struct rank *r, bool *can)
{
    int32_t mine = *can, all = 0;
    if (r->engine->ranks > 1 && !r->comm->ops->all_reduce(r->comm, (1u << r->engine->graph->mesh.count) - 1,
                                                          REDUCTION_MIN, DT_I32, &mine, &all, 1))
        return comm_failed(r, r->comm);
    *can = r->engine->ranks > 1 ? all : mine;
    return TPC_OK;
}

status begin_next(struct rank *r)
{
    const struct engine *e = r->engine;
    struct diag diag = {.sink = swallow};
    uint32_t chained = e->best.input;
    if (!e->expected.begin || chained >= e->graph->inputs.count || e->expected.keep[chained])
        return TPC_OK; /* all ranks see it */
    bool can = r->ready && is_chained(r, chained, &e->expected.input[chained]) &&
               best_is_there(e, &e->best.lines, r->now->of) && r->device->ops->fits(r->device, r->next.key);
    status s = agree(r, &can);
    if (s != TPC_OK || !can)
        return s;
    struct failure failure = r->failure;
    struct arena_mark mark = arena_mark(r->scratch);
    s = guard_run(&diag, begin, r);
    arena_rewind(r->scratch, mark);
    if (r->engine->ranks > 1)
        return s; /* the others have begun */
    r->failure = failure;
    return TPC_OK; /* an error of the device is for ever, so that the run in hand hears of it; any other is not its own */
}

/* The elements of the input that is the last run's places. */
static bool same_places(const struct engine *e, const struct tensor *t)
{
    for (size_t i = 0; i < t->count; i++) {
        int64_t place = -1;
        if (!engine_best(e, (int64_t)i, &place) || place != dtype_load_i64(t->dtype, t->data, i))
            return false;
    }
    return true;
}

bool as_begun(const struct engine *e, const struct tensor *inputs, const bool *keep)
{
    bool same = true;
    for (uint32_t i = 0; i < e->local; i++)
        same = same && e->rank[i].marked;
    for (uint32_t i = 0; i < e->graph->inputs.count && same; i++)
        if (!(keep && keep[i]))
            same = i == e->best.input ? same_places(e, &inputs[i])
                                      : hash_bytes(inputs[i].data, tensor_bytes(&inputs[i]), 0) == e->begun[i];
    return same;
}

void drop_begun(struct engine *e)
{
    struct failure nobody = {.code = TPC_OK};
    bool whole = true;
    for (uint32_t i = 0; i < e->local && e->began; i++)
        whole = whole && e->rank[i].marked;
    e->stats.dropped += e->began;
    for (uint32_t i = 0; i < e->local && !whole; i++) /* else those that began wait for ever for one that did not */
        if (e->rank[i].queued)
            comm_nccl_give_up(e->rank[i].queued);
    for (uint32_t i = 0; i < e->local && e->began; i++)
        (void)e->rank[i].device->ops->finish(e->rank[i].device, &nobody);
    e->began = false;
}
