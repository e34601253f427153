/* runtime/engine_state.c - the memory of states that are written in place: how much there is, what comes in from outside, what is handed out.
 *
 * A state's memory on a rank is [rows, capacity, entry] of its local shape: the axes before the state's own, its entries, the bytes behind. Invariant: after
 * a run the first `extent of the present` entries of each row are the present; a run with the state kept goes on from there, and nothing is copied
 * unless the capacity had to grow: then it doubles, so that the copies of all runs together are of the order of the state itself, to a multiple of 8, so that
 * rows of entries that lie side by side begin where 16 bytes do.
 * Start with states_measure (the engine's thread, before a run) and states_place (a rank's, at its begin).
 */
#include "runtime/engine_impl.h"

/* ---- which ---------------------------------------------------------------------------------------------------------------- */

void states_know(struct engine *e)
{
    const struct graph *g = e->graph;
    e->state_buffer = NEW_ARRAY(e->arena, uint32_t, g->states.count + 1);
    e->capacity = NEW_ARRAY(e->arena, int64_t, g->states.count + 1);
    for (uint32_t b = 0; b < e->program->buffers.count; b++)
        if (e->program->buffers.at[b].kind == BUFFER_STATE)
            e->state_buffer[e->program->buffers.at[b].index] = b + 1;
}

bool state_in_place(const struct engine *e, uint32_t state)
{
    return e->state_buffer[state] != 0;
}

/* The state in place that output `index` is the present of; UINT32_MAX: none. */
uint32_t state_of_output(const struct engine *e, uint32_t index)
{
    for (uint32_t s = 0; s < e->graph->states.count; s++)
        if (e->graph->states.at[s].output == index && state_in_place(e, s))
            return s;
    return UINT32_MAX;
}

/* ---- how much ------------------------------------------------------------------------------------------------------------- */

struct extents {
    int64_t past, present;
    bool grows;
};

static bool extents_of(const struct engine *e, uint32_t state, const int64_t *of, struct extents *x)
{
    const struct graph *g = e->graph;
    const struct state *s = &g->states.at[state];
    dim past = graph_node(g, g->inputs.at[s->input].value)->shape[s->axis];
    dim present = graph_node(g, g->outputs.at[s->output].value)->shape[s->axis];
    x->grows = past != present;
    return dim_eval(g->dims, past, of, &x->past) && dim_eval(g->dims, present, of, &x->present);
}

/* What all states of one capacity need, and whether one of them has contents that stay. */
struct need {
    int64_t entries;
    bool kept, grows;
};

static bool needs_of(const struct engine *e, const int64_t *of, const bool *keep, struct need *need)
{
    for (uint32_t s = 0; s < e->graph->states.count; s++) {
        struct extents x;
        if (!state_in_place(e, s))
            continue;
        if (!extents_of(e, s, of, &x))
            return false;
        struct need *n = &need[e->program->buffers.at[e->state_buffer[s] - 1].capacity];
        n->entries = x.past > n->entries ? x.past : n->entries;
        n->entries = x.present > n->entries ? x.present : n->entries;
        n->kept = n->kept || (keep && keep[e->graph->states.at[s].input]);
        n->grows = n->grows || x.grows;
    }
    return true;
}

status states_measure(const struct engine *e, struct arena *arena, const bool *keep, struct diag *diag, int64_t *of,
                      int64_t *capacity)
{
    const struct dims *t = e->graph->dims;
    struct need *need = NEW_ARRAY(arena, struct need, e->graph->states.count + 1);
    if (!needs_of(e, of, keep, need))
        return diag_error(diag, TPC_DATA, NULL, "these inputs are too large: an extent overflows");
    for (uint32_t k = 0; k < e->graph->states.count; k++) {
        int64_t wanted = need[k].entries;
        bool fixed = need[k].grows && e->context > 0;
        if (fixed && wanted > e->context)
            return diag_error(diag, TPC_USAGE, NULL,
                              "a context of %lld is too small: the model's states need %lld entries",
                              (long long)e->context, (long long)wanted);
        if (need[k].kept && wanted <= e->capacity[k])
            wanted = e->capacity[k];
        else if (need[k].kept && !fixed && e->capacity[k] <= INT64_MAX / 4 && wanted < 2 * e->capacity[k])
            wanted = (2 * e->capacity[k] + 7) & ~(int64_t)7;
        capacity[k] = fixed ? e->context : wanted;
    }
    for (uint32_t s = 0; s < dims_symbol_count(t); s++) {
        const struct symbol *symbol = dims_symbol(t, s);
        if (symbol->kind == SYMBOL_CAPACITY && symbol->index < e->graph->states.count)
            of[s] = capacity[symbol->index];
    }
    return TPC_OK;
}

void engine_context(struct engine *e, int64_t entries)
{
    if (e->context == entries)
        return;
    e->context = entries;
    memset(e->capacity, 0, e->graph->states.count * sizeof *e->capacity);
    e->ran = false;
}

/* ---- on a rank -------------------------------------------------------------------------------------------------------------- */

struct rows {
    uint64_t count, entry; /* rows; bytes of an entry */
};

/* Of the local shape that the run in hand (or the last one) has. false: overflow. */
static bool rows_of(const struct rank *r, uint32_t state, struct rows *out)
{
    const struct graph *g = r->engine->graph;
    const struct state *s = &g->states.at[state];
    const struct node *n = graph_node(g, g->inputs.at[s->input].value);
    *out = (struct rows){1, dtype_size(n->dtype)};
    for (uint32_t a = 0; a < n->rank; a++) {
        int64_t extent;
        uint64_t *to = a < s->axis ? &out->count : &out->entry;
        if (a == s->axis)
            continue;
        if (!dim_eval(g->dims, n->shape[a], r->now->of, &extent) || extent < 0 ||
            __builtin_mul_overflow(*to, (uint64_t)extent, to))
            return false;
    }
    return true;
}

enum direction { INSIDE, FROM_HOST, TO_HOST };

/* `entries` of each row from rows of `stride` entries to such of `to_stride`. Both memories hold that much. */
static status copy_rows(struct rank *r, enum direction d, void *to, uint64_t to_stride, const void *from,
                        uint64_t stride, const struct rows *rows, uint64_t entries)
{
    const struct device_ops *ops = r->device->ops;
    uint64_t bytes = entries * rows->entry, times = rows->count;
    if (bytes == 0 || times == 0)
        return TPC_OK;
    if (to_stride == entries && stride == entries) { /* one piece */
        bytes *= times;
        times = 1;
    }
    for (uint64_t k = 0; k < times; k++) {
        char *target = (char *)to + k * to_stride * rows->entry;
        const char *source = (const char *)from + k * stride * rows->entry;
        status s = d == INSIDE      ? ops->copy(r->device, target, source, bytes, &r->failure)
                   : d == FROM_HOST ? ops->upload(r->device, target, source, bytes, &r->failure)
                                    : ops->download(r->device, target, source, bytes, &r->failure);
        if (s != TPC_OK)
            return s;
    }
    return TPC_OK;
}

/* The state's entries stay, further apart. */
static status grow(struct rank *r, uint32_t state, uint64_t bytes, uint64_t capacity, const struct rows *rows,
                   uint64_t entries)
{
    struct state_store *st = &r->state[state];
    struct store larger = {0};
    status s = store_reserve(r, &larger, bytes);
    if (s != TPC_OK)
        return s;
    s = copy_rows(r, INSIDE, larger.at, capacity, st->store.at, st->capacity, rows, entries);
    if (s == TPC_OK)
        s = r->device->ops->finish(r->device, &r->failure);
    if (s != TPC_OK) {
        store_free(r, &larger);
        return s;
    }
    store_free(r, &st->store);
    st->store = larger;
    r->stats.state_moved += rows->count * entries * rows->entry;
    return TPC_OK;
}

/* This rank's part of a past that is given, dense, in host memory. NULL: it has not the extents that the plan cuts. */
static const void *given_part(struct rank *r, uint32_t input, uint64_t bytes)
{
    const struct engine *e = r->engine;
    const struct tensor *whole = &e->input[input];
    struct layout l;
    if (!e->cut_input[input])
        return tensor_bytes(whole) == bytes ? whole->data : NULL;
    if (!layout_of(e->graph, e->links.input[input], r->index, r->now->of, r->scratch, &l))
        return NULL;
    uint64_t local = dtype_size(whole->dtype);
    for (uint32_t a = 0; a < whole->rank; a++) {
        if (l.whole[a] != whole->shape[a] || __builtin_mul_overflow(local, (uint64_t)l.local[a], &local))
            return NULL;
    }
    if (local != bytes)
        return NULL;
    void *part = arena_alloc(r->scratch, bytes + 1);
    layout_cut(&l, dtype_size(whole->dtype), whole->data, part);
    return part;
}

static status take_given(struct rank *r, uint32_t state, uint64_t capacity, const struct rows *rows, uint64_t entries)
{
    uint32_t input = r->engine->graph->states.at[state].input;
    uint64_t bytes = rows->count * entries * rows->entry;
    struct arena_mark mark = arena_mark(r->scratch);
    const void *part = given_part(r, input, bytes);
    if (!part)
        return fail(&r->failure, TPC_DATA, "input '%.100s' does not have the extents that the plan cuts",
                    r->engine->graph->inputs.at[input].name);
    status s = copy_rows(r, FROM_HOST, r->state[state].store.at, capacity, part, entries, rows, entries);
    arena_rewind(r->scratch, mark);
    r->stats.state_given += bytes;
    return s;
}

bool engine_take(struct engine *e, uint32_t input, struct engine *from, uint32_t output)
{
    uint32_t state = e->state_of_input[input];
    const struct placement *here = e->links.input ? e->links.input[input] : NULL,
                           *there = from->links.output ? from->links.output[output] : NULL;
    bool same = e->ranks == from->ranks && e->local == from->local && e->options.kind == from->options.kind &&
                e->options.gpus == from->options.gpus && e->options.local_rank == from->options.local_rank;
    if (!same || !from->ran || from->began || !state || !state_in_place(e, state - 1) ||
        !placement_alike(e->graph, here, from->graph, there))
        return false;
    e->taken[input] = (struct taken){from, output};
    return true;
}

/* From the same rank of another engine, whose memory is this device's too. */
static status take_from(struct rank *r, uint32_t state, uint64_t capacity, const struct rows *rows, uint64_t entries)
{
    uint32_t input = r->engine->graph->states.at[state].input;
    const struct engine *from = r->engine->taken[input].from;
    uint32_t output = r->engine->taken[input].output, there = state_of_output(from, output);
    const struct rank *source = &from->rank[r - r->engine->rank];
    struct tensor x, y;
    bool same = shape_of_value(from->graph, from->graph->outputs.at[output].value, source->now->of, &x) &&
                shape_of_value(r->engine->graph, r->engine->graph->inputs.at[input].value, r->now->of, &y) &&
                x.dtype == y.dtype && x.rank == y.rank && memcmp(x.shape, y.shape, x.rank * sizeof *x.shape) == 0;
    if (!same)
        return fail(&r->failure, TPC_DATA, "input '%.100s' does not have the extents that the other plan hands out",
                    r->engine->graph->inputs.at[input].name);
    const void *part = there == UINT32_MAX ? part_of_output(from, (uint32_t)(r - r->engine->rank), output)
                                           : source->state[there].store.at;
    uint64_t stride = there == UINT32_MAX ? entries : source->state[there].capacity;
    r->stats.state_taken += rows->count * entries * rows->entry;
    return copy_rows(r, INSIDE, r->state[state].store.at, capacity, part, stride, rows, entries);
}

static status place_one(struct rank *r, uint32_t state)
{
    struct engine *e = r->engine;
    uint32_t buffer = e->state_buffer[state] - 1;
    struct state_store *st = &r->state[state];
    struct extents x;
    struct rows rows;
    uint64_t bytes = r->now->bytes[buffer];
    int64_t capacity = e->capacity[e->program->buffers.at[buffer].capacity];
    if (!rows_of(r, state, &rows) || !extents_of(e, state, r->now->of, &x) || x.past < 0 || x.past > capacity)
        return fail(&r->failure, TPC_DATA, "a state overflows for these shapes");
    bool kept = e->keep && e->keep[e->graph->states.at[state].input];
    status s = TPC_OK;
    if (!kept)
        s = store_reserve(r, &st->store, bytes);
    else if (st->capacity != (uint64_t)capacity)
        s = grow(r, state, bytes, (uint64_t)capacity, &rows, (uint64_t)x.past);
    if (s == TPC_OK && !kept)
        s = (e->taken[e->graph->states.at[state].input].from ? take_from : take_given)(r, state, (uint64_t)capacity,
                                                                                       &rows, (uint64_t)x.past);
    st->capacity = (uint64_t)capacity;
    return s;
}

status states_place(struct rank *r)
{
    status s = TPC_OK;
    for (uint32_t i = 0; i < r->engine->graph->states.count && s == TPC_OK; i++)
        if (state_in_place(r->engine, i))
            s = place_one(r, i);
    return s;
}

bool state_bytes(const struct rank *r, uint32_t state, uint64_t *bytes)
{
    struct rows rows;
    struct extents x;
    return rows_of(r, state, &rows) && extents_of(r->engine, state, r->now->of, &x) && x.present >= 0 &&
           !__builtin_mul_overflow(rows.count, rows.entry, bytes) &&
           !__builtin_mul_overflow(*bytes, (uint64_t)x.present, bytes);
}

status state_read(struct rank *r, uint32_t state, void *host)
{
    const struct state_store *st = &r->state[state];
    struct rows rows;
    struct extents x;
    if (!rows_of(r, state, &rows) || !extents_of(r->engine, state, r->now->of, &x))
        return fail(&r->failure, TPC_DATA, "a state overflows for these shapes");
    return copy_rows(r, TO_HOST, host, (uint64_t)x.present, st->store.at, st->capacity, &rows, (uint64_t)x.present);
}
