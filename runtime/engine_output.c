/* runtime/engine_output.c - what a run has left: outputs, put together where ranks hold parts of them; times and sizes.
 *
 * Invariant: nothing here changes what the next run computes. Where ranks are processes, an output that is cut goes from all to all.
 */
#include "runtime/device_cuda.h"
#include "runtime/engine_impl.h"
#include "runtime/processes.h"

/* ---- outputs -------------------------------------------------------------------------------------------------------- */

bool output_shape(const struct engine *e, uint32_t index, const int64_t *of, struct tensor *out)
{
    value v = e->graph->outputs.at[index].value;
    int64_t shape[MAX_RANK];
    const struct node *n = graph_node(e->graph, v);
    if (!e->cut_output[index])
        return shape_of_value(e->graph, v, of, out);
    return layout_whole(e->graph, e->links.output[index], of, shape) && tensor_shape(out, n->dtype, n->rank, shape);
}

bool engine_output_shape(const struct engine *e, uint32_t index, struct tensor *out)
{
    return e->ran && output_shape(e, index, e->rank[0].now->of, out);
}

void *part_of_output(const struct engine *e, uint32_t r, uint32_t index)
{
    return e->rank[r].output[2 * index + (e->state_output[index] ? e->turn : 0)].at;
}

struct joining {
    struct engine *engine;
    uint32_t index;
    struct tensor *out;
    struct diag *diag;
};

/* The part of a rank of this process, in host memory: where it is, or in `room`. */
static status host_part(struct engine *e, uint32_t local, uint32_t index, size_t bytes, void *room, void **out,
                        struct diag *diag)
{
    struct rank *r = &e->rank[local];
    uint32_t state = state_of_output(e, index);
    uint64_t dense = bytes;
    status s = TPC_OK;
    r->failure = (struct failure){.code = TPC_OK};
    *out = state == UINT32_MAX ? part_of_output(e, local, index) : room;
    if (state != UINT32_MAX && (!state_bytes(r, state, &dense) || dense != bytes))
        s = fail(&r->failure, TPC_INTERNAL, "output '%.100s' cannot be read", e->graph->outputs.at[index].name);
    else if (state != UINT32_MAX)
        s = state_read(r, state, room);
    else if (!r->device->ops->reads_host)
        s = r->device->ops->download(r->device, room, *out, bytes, &r->failure);
    if (!r->device->ops->reads_host)
        *out = room;
    return s == TPC_OK ? s : diag_error(diag, s, NULL, "rank %u: %s", (unsigned)r->index, r->failure.text);
}

/* Rank r's part in host memory, of another process brought here. The same call on all of them. */
static status fetch_part(struct joining *j, uint32_t r, const struct layout *l, void **out)
{
    struct engine *e = j->engine;
    size_t bytes = dtype_size(j->out->dtype);
    for (uint32_t a = 0; a < l->rank; a++)
        bytes *= (size_t)l->local[a];
    bool own = !e->alone || r == e->rank[0].index;
    bool there = own && e->rank[0].device->ops->reads_host && state_of_output(e, j->index) == UINT32_MAX;
    void *room = there ? NULL : arena_alloc(e->scratch, bytes + 1);
    status s = TPC_OK;
    *out = room;
    if (own)
        s = host_part(e, e->alone ? 0 : r, j->index, bytes, room, out, j->diag);
    if (s != TPC_OK || !e->alone)
        return s;
    uint32_t all = (1u << e->graph->mesh.count) - 1;
    bool good = e->alone->ops->broadcast(e->alone, all, mesh_part_of(&e->graph->mesh, all, r), bytes, *out, *out);
    return good ? TPC_OK : TPC_RANKS;
}

/* The layout of any rank's part in the last run. */
static bool layout_of_rank(struct engine *e, const struct placement *p, uint32_t r, struct layout *out)
{
    const int64_t *of = e->rank[e->alone ? 0 : r].now->of;
    if (e->alone) {
        uint32_t symbols = dims_symbol_count(e->graph->dims);
        int64_t *own = arena_copy(e->scratch, of, (symbols + 1) * sizeof *of);
        if (!graph_bind_rank(e->graph, r, own))
            return false;
        of = own;
    }
    return layout_of(e->graph, p, r, of, e->scratch, out);
}

static status join_output(void *context)
{
    struct joining *j = context;
    struct engine *e = j->engine;
    const struct graph *g = e->graph;
    const struct placement *p = e->cut_output[j->index] ? e->links.output[j->index] : NULL;
    struct store *to = &e->joined[j->index];
    if (host_reserve(&e->rank[0], to, tensor_bytes(j->out)) != TPC_OK)
        return diag_error(j->diag, TPC_NOMEM, NULL, "out of memory for output '%s'", g->outputs.at[j->index].name);
    j->out->data = to->at;
    if (!e->cut_output[j->index])
        return host_part(e, 0, j->index, tensor_bytes(j->out), to->at, &j->out->data, j->diag);
    uint32_t others = ((1u << g->mesh.count) - 1) & ~placement_subaxes(g, p);
    for (uint32_t r = 0; r < e->ranks; r++) {
        struct layout l;
        if (mesh_part_of(&g->mesh, others, r) != 0)
            continue; /* the same as another's */
        if (!layout_of_rank(e, p, r, &l))
            return diag_error(j->diag, TPC_INTERNAL, NULL, "output '%s' cannot be put together",
                              g->outputs.at[j->index].name);
        void *part = NULL;
        status s = fetch_part(j, r, &l, &part);
        if (s != TPC_OK)
            return s;
        layout_join(&l, dtype_size(j->out->dtype), part, to->at);
    }
    return TPC_OK;
}

status engine_output(struct engine *e, uint32_t index, struct diag *diag, struct tensor *out)
{
    if (!engine_output_shape(e, index, out))
        return diag_error(diag, TPC_USAGE, NULL, "there is no output: no run, or the last one failed");
    if (e->began && !e->state_output[index])
        return diag_error(diag, TPC_USAGE, NULL, "there is no output: the next run has begun");
    if (index == e->best.output && e->best.gather && best_instead_of(&e->rank[0], e->rank[0].now, e->best.gather - 1))
        return diag_error(diag, TPC_USAGE, NULL, "output '%s' was not put together: its largest elements were wanted",
                          e->graph->outputs.at[index].name);
    bool in_place = state_of_output(e, index) != UINT32_MAX;
    out->data = in_place ? NULL : part_of_output(e, 0, index);
    if (!in_place && !e->cut_output[index] && e->rank[0].device->ops->reads_host)
        return TPC_OK;
    struct joining j = {e, index, out, diag};
    struct arena_mark mark = arena_mark(e->scratch);
    status s = guard_run(diag, join_output, &j);
    arena_rewind(e->scratch, mark);
    return s;
}

bool engine_leads(const struct engine *e)
{
    return e->rank[0].index == 0;
}

static void count_gpu(struct engine *e)
{
    struct cuda_totals t = device_cuda_totals(e->rank[0].device);
    e->stats.launches = t.launches;
    e->stats.products = t.products;
    e->stats.graphs = t.graphs.made;
    e->stats.graph_launches = t.graphs.launched;
    e->stats.graph_updates = t.graphs.updates;
    e->stats.graph_nodes = t.graphs.nodes;
    e->stats.graph_kernels = t.graphs.kernels;
    e->stats.graph_others = t.graphs.others;
    e->stats.graph_overlaps = t.graphs.overlaps;
    e->stats.uploaded = 0;
    e->stats.upload_seconds = 0;
    for (uint32_t i = 0; i < e->local; i++) {
        e->stats.uploaded += e->rank[i].stats.weight_copied;
        if (e->rank[i].upload_seconds > e->stats.upload_seconds)
            e->stats.upload_seconds = e->rank[i].upload_seconds;
    }
}

const struct engine_stats *engine_stats(const struct engine *e)
{
    struct engine *own = e->rank[0].engine;
    struct engine_rank_stats *stats = own->rank_stats;
    for (uint32_t i = 0; i < e->local; i++) {
        stats[i] = e->rank[i].stats;
        for (uint32_t o = 0; o < 2 * e->graph->outputs.count; o++)
            stats[i].outputs += e->rank[i].output[o].capacity;
        for (uint32_t s = 0; s < e->graph->states.count; s++)
            stats[i].states += e->rank[i].state[s].store.capacity;
    }
    own->stats.rank = stats;
    if (own->options.kind == ENGINE_CUDA)
        count_gpu(own);
    return &own->stats;
}

uint64_t engine_step_bytes(const struct engine *e, uint32_t step)
{
    const struct shape_plan *plan = e->ran ? e->rank[0].now : NULL;
    bool exchanged = plan && step < e->program->steps.count && e->program->steps.at[step].kind == STEP_COLLECTIVE &&
                     e->program->steps.at[step].phase == PHASE_RUN;
    return exchanged ? plan->exchange[step]->bytes : 0;
}

static void profile_gpu(const struct engine_stats *t, struct text *out)
{
    double launched = t->graph_launches ? (double)t->graph_launches : 1,
           set = t->graph_updates ? (double)t->graph_updates : 1;
    text_printf(out,
                "GPU: %llu kernels and %llu products launched one by one; %llu graphs made (%llu kernels may start "
                "early), %llu launched (each %.1f "
                "kernels, %.1f other), %llu set for other arguments (each %.1f kernels); %llu runs begun early, %llu "
                "of them for nothing; weights at %.2f GB/s\n",
                (unsigned long long)t->launches, (unsigned long long)t->products, (unsigned long long)t->graphs,
                (unsigned long long)t->graph_overlaps, (unsigned long long)t->graph_launches,
                (double)t->graph_kernels / launched, (double)t->graph_others / launched,
                (unsigned long long)t->graph_updates, (double)t->graph_nodes / set,
                (unsigned long long)(t->early + t->dropped), (unsigned long long)t->dropped,
                t->upload_seconds > 0 ? 1e-9 * (double)t->uploaded / t->upload_seconds : 0);
}

void engine_profile(const struct engine *e, uint32_t lines, struct text *out)
{
    static const char *const kinds[] = {[STEP_KERNEL] = "kernel",
                                        [STEP_DOT] = "dot",
                                        [STEP_COLLECTIVE] = "collective",
                                        [STEP_BUILTIN] = "builtin",
                                        [STEP_COPY] = "copy"};
    const struct rank *r = &e->rank[0];
    const struct engine_stats *t = engine_stats(e);
    text_printf(out, "%llu runs, %.3f ms each", (unsigned long long)t->runs,
                t->runs ? 1e3 * t->run_seconds / (double)t->runs : 0);
    if (r->step_seconds)
        text_printf(out, "; of all: dots %.1f, kernels %.1f, collectives %.1f, builtins %.1f, shapes %.1f ms",
                    1e3 * t->dot_seconds, 1e3 * t->kernel_seconds, 1e3 * t->collective_seconds,
                    1e3 * t->builtin_seconds, 1e3 * t->shape_seconds);
    text_printf(out, "\nloaded in %.3f s: %u kernels ready after %.3f s, %u of them compiled\n", t->load_seconds,
                (unsigned)t->kernels, t->kernel_compile_seconds, (unsigned)t->compiled);
    for (uint32_t i = 0; i < e->local; i++) {
        const struct engine_rank_stats *m = &engine_stats(e)->rank[i];
        text_printf(out,
                    "rank %u: MB of weights %.1f mapped, %.1f copied, %.1f computed; intermediate values %.1f; outputs "
                    "%.1f; states %.1f\n",
                    (unsigned)e->rank[i].index, 1e-6 * (double)m->weight_mapped, 1e-6 * (double)m->weight_copied,
                    1e-6 * (double)m->kept, 1e-6 * (double)m->arena, 1e-6 * (double)m->outputs,
                    1e-6 * (double)m->states);
    }
    uint64_t moved = 0, given = 0, taken = 0;
    for (uint32_t i = 0; i < e->local; i++) {
        moved += e->rank[i].stats.state_moved;
        given += e->rank[i].stats.state_given;
        taken += e->rank[i].stats.state_taken;
    }
    text_printf(out, "states: %.1f MB moved to grow, %.1f MB given, %.1f MB taken from another plan on their rank\n",
                1e-6 * (double)moved, 1e-6 * (double)given, 1e-6 * (double)taken);
    if (e->options.kind == ENGINE_CUDA)
        profile_gpu(t, out);
    text_printf(out, "%llu collectives, %.1f MB\n", (unsigned long long)t->collectives,
                1e-6 * (double)t->collective_bytes);
    if (!r->step_seconds)
        return;
    double below = 1e300;
    for (uint32_t i = 0; i < lines; i++) {
        uint32_t best = UINT32_MAX;
        for (uint32_t s = 0; s < e->program->steps.count; s++)
            if (r->step_seconds[s] < below && r->step_seconds[s] > 0 &&
                (best == UINT32_MAX || r->step_seconds[s] > r->step_seconds[best]))
                best = s;
        if (best == UINT32_MAX)
            return;
        below = r->step_seconds[best];
        const struct step *step = &e->program->steps.at[best];
        text_printf(out, "%9.3f ms  step %-5u %-10s ", 1e3 * below, (unsigned)best, kinds[step->kind]);
        if (step->kind == STEP_KERNEL)
            text_printf(out, "%-4u ", (unsigned)step->kernel);
        text_printf(out, "%s\n", graph_where(e->graph, step->node, out->arena));
    }
}
