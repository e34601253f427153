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

/* Temporaries of the load phase are not reused: it runs once. */
static bool loading_bytes(struct arena *arena, const struct program *p, const int64_t *of, uint64_t *out)
{
    bool *used = NEW_ARRAY(arena, bool, p->buffers.count + 1);
    *out = 0;
    for (uint32_t i = 0; i < p->steps.count; i++) {
        const struct step *s = &p->steps.at[i];
        for (uint32_t k = 0; s->phase == PHASE_LOAD && k < s->arg_count; k++) {
            uint32_t b = s->arg[k];
            uint64_t bytes;
            if (used[b] || p->buffers.at[b].kind != BUFFER_TEMP) {
                continue;
            }
            used[b] = true;
            if (!buffer_bytes(p, b, of, &bytes)) {
                return false;
            }
            *out += aligned(bytes);
        }
    }
    return true;
}

bool predict_memory(struct arena *arena, const struct program *p, const int64_t *symbols, uint32_t count, uint32_t rank,
                    struct rank_memory *out)
{
    uint32_t all = dims_symbol_count(p->graph->dims);
    int64_t *of = NEW_ARRAY(arena, int64_t, all + 1);
    uint64_t *offset = NEW_ARRAY(arena, uint64_t, p->buffers.count + 1), running = 0, loading = 0;
    *out = (struct rank_memory){0};
    memcpy(of, symbols, (count < all ? count : all) * sizeof *of);
    if (!graph_bind_rank(p->graph, rank, of) || !program_place(p, of, offset, &running) ||
        !loading_bytes(arena, p, of, &loading)) {
        return false;
    }
    for (uint32_t b = 0; b < p->buffers.count; b++) {
        const struct buffer *x = &p->buffers.at[b];
        uint64_t bytes = 0;
        if (x->kind == BUFFER_WEIGHT) {
            out->weights += predict_weight(p->graph, x->index, x->sharded, rank);
        } else if ((x->kind == BUFFER_KEPT || x->kind == BUFFER_OUTPUT) && !buffer_bytes(p, b, of, &bytes)) {
            return false;
        } else if (x->kind == BUFFER_KEPT) {
            out->kept += aligned(bytes);
        } else if (x->kind == BUFFER_OUTPUT) { /* of a state the last value is read while the next is written */
            out->outputs += bytes * (is_state(p->graph, x->index) ? 2 : 1);
        }
    }
    out->activations = running;
    out->loading = loading;
    return true;
}

uint64_t rank_memory_total(const struct rank_memory *m)
{
    uint64_t run = m->activations + m->outputs;
    return m->weights + m->kept + (run > m->loading ? run : m->loading);
}

bool predict_peak(struct arena *arena, const struct compiled *c, uint32_t rank, struct rank_memory *out)
{
    const struct solution *d = c->solution;
    struct rank_memory decode;
    if (!predict_memory(arena, c->program, d->nominal[NOMINAL_PREFILL], d->nominal_count, rank, out) ||
        !predict_memory(arena, c->program, d->nominal[NOMINAL_DECODE], d->nominal_count, rank, &decode)) {
        return false;
    }
    if (rank_memory_total(&decode) > rank_memory_total(out)) {
        *out = decode;
    }
    return true;
}
