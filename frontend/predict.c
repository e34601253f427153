/* frontend/predict.c - what a plan will hold in memory, from its Program alone: the engine's own numbers, before there is an engine.
 *
 * Invariant: the same sums as runtime/engine_load.c and engine.c make (engine_rank_stats); a test compares them on every model. Start with
 * predict_memory.
 */
#include "frontend/predict.h"

uint64_t predict_weight(const struct graph *g, uint32_t index, bool sharded, uint32_t rank)
{
    const struct param *q = &g->params.at[sharded ? g->shards.at[index].param : index];
    uint64_t bytes = dtype_size(q->dtype);
    for (uint32_t a = 0; a < q->rank; a++) {
        uint64_t extent = sharded ? 0 : (uint64_t)q->shape[a];
        for (uint32_t i = 0; sharded && i < g->shards.at[index].of[a * g->mesh.ranks + rank].count; i++) {
            const struct interval *k = &g->shards.at[index].of[a * g->mesh.ranks + rank].at[i];
            extent += (uint64_t)(k->hi - k->lo);
        }
        bytes *= extent;
    }
    return bytes;
}

static uint64_t aligned(uint64_t bytes)
{
    return (bytes + 63) & ~(uint64_t)63;
}

static bool is_state(const struct graph *g, uint32_t output)
{
    for (uint32_t i = 0; i < g->states.count; i++) {
        if (g->states.at[i].output == output) {
            return true;
        }
    }
    return false;
}

/* Which buffers the load phase has as temporaries: they are not reused, for it runs once. */
static bool *used_at_load(struct arena *arena, const struct program *p)
{
    bool *used = NEW_ARRAY(arena, bool, p->buffers.count + 1);
    for (uint32_t i = 0; i < p->steps.count; i++) {
        const struct step *s = &p->steps.at[i];
        for (uint32_t k = 0; s->phase == PHASE_LOAD && k < s->arg_count; k++) {
            used[s->arg[k]] = p->buffers.at[s->arg[k]].kind == BUFFER_TEMP;
        }
    }
    return used;
}

struct predictor {
    struct arena *arena;
    const struct program *program;
    const bool *loading;
    uint64_t *offset;
    struct map arenas; /* bytes of all buffers -> 1 + index into sizes: ranks with equal buffers have equal arenas */
    LIST(uint64_t) sizes;
};

static bool arena_size(struct predictor *p, const int64_t *of, const uint64_t *bytes, uint64_t *out)
{
    uint32_t *slot = map_put(&p->arenas, bytes, p->program->buffers.count * sizeof *bytes, NULL);
    if (*slot == 0) {
        if (!program_place(p->program, of, p->arena, p->offset, out)) {
            return false;
        }
        *PUSH(p->arena, &p->sizes) = *out;
        *slot = p->sizes.count;
    }
    *out = p->sizes.at[*slot - 1];
    return true;
}

static bool predict_rank(struct predictor *p, const int64_t *of, struct rank_memory *out)
{
    const struct program *program = p->program;
    uint64_t *bytes = NEW_ARRAY(p->arena, uint64_t, program->buffers.count + 1);
    *out = (struct rank_memory){0};
    for (uint32_t b = 0; b < program->buffers.count; b++) {
        const struct buffer *x = &program->buffers.at[b];
        if (!buffer_bytes(program, b, of, &bytes[b])) {
            return false;
        }
        if (x->kind == BUFFER_WEIGHT) {
            out->weights += bytes[b];
        } else if (x->kind == BUFFER_KEPT) {
            out->kept += aligned(bytes[b]);
        } else if (x->kind == BUFFER_STATE) {
            out->states += bytes[b];
        } else if (x->kind == BUFFER_OUTPUT) { /* of a state the last value is read while the next is written */
            out->outputs += bytes[b] * (is_state(program->graph, x->index) ? 2 : 1);
        } else if (p->loading[b]) {
            out->loading += aligned(bytes[b]);
        }
    }
    return arena_size(p, of, bytes, &out->activations);
}

/* States in place have room for what they hold behind the run, as the engine gives them at first. */
static bool set_capacities(const struct program *p, int64_t *of)
{
    const struct graph *g = p->graph;
    for (uint32_t b = 0; b < p->buffers.count; b++) {
        const struct buffer *x = &p->buffers.at[b];
        if (x->kind != BUFFER_STATE) {
            continue;
        }
        const struct state *s = &g->states.at[x->index];
        int64_t past, present;
        if (!dim_eval(g->dims, graph_node(g, g->inputs.at[s->input].value)->shape[s->axis], of, &past) ||
            !dim_eval(g->dims, graph_node(g, g->outputs.at[s->output].value)->shape[s->axis], of, &present)) {
            return false;
        }
        uint32_t symbol = dim_get(g->dims, dim_capacity(g->dims, x->capacity)).symbol;
        int64_t entries = past > present ? past : present;
        of[symbol] = entries > of[symbol] ? entries : of[symbol];
    }
    return true;
}

bool predict_memory(struct arena *arena, const struct program *program, const int64_t *symbols, uint32_t count,
                    struct rank_memory *out)
{
    uint32_t all = dims_symbol_count(program->graph->dims);
    int64_t *of = NEW_ARRAY(arena, int64_t, all + 1);
    struct predictor p = {.arena = arena_new_in(arena), .program = program};
    p.loading = used_at_load(p.arena, program);
    p.offset = NEW_ARRAY(p.arena, uint64_t, program->buffers.count + 1);
    p.arenas.arena = p.arena;
    bool known = true;
    for (uint32_t r = 0; r < program->graph->mesh.ranks && known; r++) {
        memset(of, 0, all * sizeof *of);
        memcpy(of, symbols, (count < all ? count : all) * sizeof *of);
        known = graph_bind_rank(program->graph, r, of) && set_capacities(program, of) && predict_rank(&p, of, &out[r]);
    }
    arena_free(p.arena);
    return known;
}

uint64_t rank_memory_total(const struct rank_memory *m)
{
    uint64_t run = m->activations + m->outputs + m->states;
    return m->weights + m->kept + (run > m->loading ? run : m->loading);
}

bool predict_peak(struct arena *arena, const struct compiled *c, struct rank_memory *out)
{
    const struct solution *d = c->solution;
    uint32_t ranks = c->program->graph->mesh.ranks;
    struct rank_memory *decode = NEW_ARRAY(arena, struct rank_memory, ranks);
    if (!predict_memory(arena, c->program, d->nominal[NOMINAL_PREFILL], d->nominal_count, out) ||
        !predict_memory(arena, c->program, d->nominal[NOMINAL_DECODE], d->nominal_count, decode)) {
        return false;
    }
    for (uint32_t r = 0; r < ranks; r++) {
        out[r] = rank_memory_total(&decode[r]) > rank_memory_total(&out[r]) ? decode[r] : out[r];
    }
    return true;
}
