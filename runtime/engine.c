/* runtime/engine.c - opens a Program on its ranks, runs it, hands out what it computed. Start with engine_open and engine_run.
 *
 * Ranks are threads; rank 0 is the caller's. A command is given to all at once (`go`) and is over when all have returned (`done`). Errors
 * are collected by the ranks and reported here, one line: that of the lowest rank that has one of its own.
 */
#include "ir/bind.h"
#include "runtime/comm_nccl.h"
#include "runtime/engine_impl.h"
#include "runtime/processes.h"

/* ---- commands on all ranks ---------------------------------------------------------------------------------------- */

static status reserve_outputs(struct rank *r)
{
    struct engine *e = r->engine;
    status s = TPC_OK;
    for (uint32_t b = 0; b < e->program->buffers.count && s == TPC_OK; b++) {
        uint32_t i = e->program->buffers.at[b].index;
        if (e->program->buffers.at[b].kind == BUFFER_OUTPUT)
            s = store_reserve(r, &r->output[2 * i + (e->state_output[i] ? !e->turn : 0)], r->now->bytes[b]);
    }
    return s;
}

/* With memory for all that differs from run to run. */
static status run_placed(struct rank *r, enum step_phase phase)
{
    const struct engine *e = r->engine;
    const struct sides sides = {e->keep, e->turn, e->capacity};
    status s = store_reserve(r, &r->temporaries, r->now->arena_bytes);
    r->stats.arena = r->now->arena_bytes;
    if (s == TPC_OK && !addresses_of(r, r->now, &sides, r->address))
        return fail(&r->failure, TPC_INTERNAL, "a buffer has no memory");
    const struct course course = course_of(r, r->now, r->address, e->turn, &e->best.lines);
    return s == TPC_OK ? execute(r, &course, phase) : s;
}

/* What was made ready while the last run computed. */
static status run_foreseen(struct rank *r)
{
    const struct engine *e = r->engine;
    struct course course = r->next;
    course.lines = &e->best.lines; /* which as_foreseen has compared */
    void **address = r->address;
    r->address = r->next_address;
    r->next_address = address;
    r->now = course.plan;
    r->now->age = ++r->clock;
    status s = e->early ? TPC_OK : open_queued(r);
    if (s == TPC_OK && !e->early)
        s = bring_inputs(r, e->input, e->keep, UINT32_MAX);
    return s == TPC_OK ? execute(r, &course, PHASE_RUN) : s;
}

static status run_ranked(struct rank *r)
{
    const struct engine *e = r->engine;
    status s = open_queued(r); /* again, where a run before this one ended it */
    if (s == TPC_OK)
        s = bring_inputs(r, e->input, e->keep, UINT32_MAX);
    if (s == TPC_OK)
        s = reserve_outputs(r);
    if (s == TPC_OK)
        s = states_place(r);
    uint64_t best = best_bytes(r, r->now);
    if (s == TPC_OK && best > 0)
        s = store_reserve(r, &r->best, best);
    return s == TPC_OK ? run_placed(r, PHASE_RUN) : s;
}

static void *warm(void *argument)
{
    struct device *d = argument;
    d->ops->warm(d);
    return NULL;
}

static void stop_warming(struct rank *r)
{
    if (r->warming)
        (void)pthread_join(r->warmer, NULL);
    r->warming = false;
}

static status obey(void *context)
{
    struct rank *r = context;
    double start = seconds_now();
    bool ready = r->ready;
    r->ready = false;
    if (r->engine->as_foreseen && ready)
        return run_foreseen(r);
    status s = shape_plan_find(r, r->engine->of, &r->now);
    if (r == r->engine->rank)
        r->engine->stats.shape_seconds += seconds_now() - start;
    if (s != TPC_OK)
        return s;
    if (r->engine->command == COMMAND_RUN)
        return run_ranked(r);
    s = open_queued(r);
    r->warming = s == TPC_OK && r->device->ops->warm && pthread_create(&r->warmer, NULL, warm, r->device) == 0;
    if (s == TPC_OK)
        s = load_weights(r);
    stop_warming(r);
    if (s == TPC_OK && r->device->ops->reads_host &&
        r + 1 == r->engine->rank + r->engine->local) /* while the other ranks load */
        gemm_warm();
    return s == TPC_OK ? run_placed(r, PHASE_LOAD) : s;
}

static void swallow(void *user, severity level, const char *line)
{
    (void)user;
    (void)level;
    (void)line;
}

static void command_rank(struct rank *r)
{
    struct diag diag = {.sink = swallow};
    struct arena_mark mark = arena_mark(r->scratch);
    r->stopped = false;
    r->failed_at = 0;
    r->failure = (struct failure){.code = TPC_OK};
    r->result = guard_run(&diag, obey, r);
    stop_warming(r); /* where the guard was left */
    if (r->result == TPC_NOMEM && r->failure.code == TPC_OK)
        fail(&r->failure, TPC_NOMEM, "out of memory");
    if (r->result != TPC_OK)
        r->comm->ops->abort(r->comm);
    arena_rewind(r->scratch, mark);
}

static void *rank_main(void *argument)
{
    struct rank *r = argument;
    struct engine *e = r->engine;
    for (uint32_t seen = 0;; seen++) {
        signal_wait(&e->go, seen, NULL);
        if (e->command == COMMAND_QUIT)
            return NULL;
        command_rank(r);
        if (atomic_fetch_sub(&e->left, 1) == 1)
            signal_raise(&e->done);
    }
}

static status report(struct engine *e, struct diag *diag)
{
    for (uint32_t i = 0; i < e->local; i++) {
        const struct rank *r = &e->rank[i];
        if (r->result == TPC_OK || r->stopped)
            continue;
        value at = r->failed_at;
        const char *node = at ? graph_where(e->graph, at, e->scratch) : NULL;
        const char *where = node;
        if (e->ranks > 1)
            where = arena_printf(e->scratch, "rank %u%s%s", (unsigned)r->index, node ? ": " : "", node ? node : "");
        return diag_error(diag, r->result, where, "%s", r->failure.text[0] ? r->failure.text : "failed");
    }
    if (e->options.processes)
        return TPC_RANKS;
    return diag_error(diag, TPC_INTERNAL, NULL, "the ranks stopped and none says why");
}

static status command_all(struct engine *e, enum command command, struct diag *diag)
{
    e->command = command;
    atomic_store_explicit(&e->left, e->local - 1, memory_order_relaxed);
    uint32_t seen = signal_value(&e->done);
    if (e->local > 1)
        signal_raise(&e->go);
    command_rank(&e->rank[0]);
    if (e->local > 1)
        signal_wait(&e->done, seen, NULL);
    bool good = true;
    for (uint32_t i = 0; i < e->local; i++)
        good = good && e->rank[i].result == TPC_OK;
    if (good)
        return TPC_OK;
    if (e->world)
        comm_threads_reset(e->world);
    give_up_queued(e);
    return report(e, diag);
}

/* ---- opening -------------------------------------------------------------------------------------------------------- */

static bool is_cut(const struct placement *const *placement, uint32_t i)
{
    return placement && placement[i] && !placement_is_whole(placement[i]);
}

static void know_edges(struct engine *e)
{
    const struct graph *g = e->graph;
    e->cut_input = NEW_ARRAY(e->arena, bool, g->inputs.count + 1);
    e->cut_output = NEW_ARRAY(e->arena, bool, g->outputs.count + 1);
    e->state_of_input = NEW_ARRAY(e->arena, uint32_t, g->inputs.count + 1);
    e->state_output = NEW_ARRAY(e->arena, bool, g->outputs.count + 1);
    e->joined = NEW_ARRAY(e->arena, struct store, g->outputs.count + 1);
    e->of = NEW_ARRAY(e->arena, int64_t, dims_symbol_count(g->dims) + 1);
    e->expected.input = NEW_ARRAY(e->arena, struct tensor, g->inputs.count + 1);
    e->expected.keep = NEW_ARRAY(e->arena, bool, g->inputs.count + 1);
    e->foreseen.input = NEW_ARRAY(e->arena, struct tensor, g->inputs.count + 1);
    e->foreseen.keep = NEW_ARRAY(e->arena, bool, g->inputs.count + 1);
    e->taken = NEW_ARRAY(e->arena, struct taken, g->inputs.count + 1);
    e->begun = NEW_ARRAY(e->arena, uint64_t, g->inputs.count + 1);
    for (uint32_t i = 0; i < g->inputs.count; i++)
        e->cut_input[i] = is_cut(e->links.input, i);
    for (uint32_t i = 0; i < g->outputs.count; i++)
        e->cut_output[i] = is_cut(e->links.output, i);
    for (uint32_t i = 0; i < g->states.count; i++) {
        e->state_of_input[g->states.at[i].input] = i + 1;
        e->state_output[g->states.at[i].output] = true;
    }
}

static status make_rank(struct engine *e, uint32_t local, struct diag *diag)
{
    struct rank *r = &e->rank[local];
    const struct graph *g = e->graph;
    struct comm *comm = e->world ? comm_threads_rank(e->world, local) : e->alone;
    *r = (struct rank){.engine = e, .index = comm->rank, .comm = comm};
    r->scratch = arena_new_in(e->arena);
    r->address = NEW_ARRAY(e->arena, void *, e->program->buffers.count + 1);
    r->next_address = NEW_ARRAY(e->arena, void *, e->program->buffers.count + 1);
    r->input = NEW_ARRAY(e->arena, struct store, g->inputs.count + 1);
    r->state = NEW_ARRAY(e->arena, struct state_store, g->states.count + 1);
    r->output = NEW_ARRAY(e->arena, struct store, 2 * (size_t)g->outputs.count + 1);
    for (uint32_t i = 0; i < SHAPE_PLANS; i++) { /* made here: e->arena is this thread's */
        r->plan[i].arena = arena_new_in(e->arena);
        r->plan[i].mark = arena_mark(r->plan[i].arena);
    }
    if (e->options.profile)
        r->step_seconds = NEW_ARRAY(e->arena, double, e->program->steps.count + 1);
    r->device = e->device[local];
    e->device[local] = NULL;
    if (local == 0)
        return TPC_OK;
    int error = pthread_create(&r->thread, NULL, rank_main, r);
    if (error)
        return diag_error(diag, TPC_INTERNAL, NULL, "rank %u: cannot start its thread: %s", (unsigned)r->index,
                          strerror(error));
    r->started = true;
    return TPC_OK;
}

struct opening {
    struct engine *engine;
    const char *folder;
    struct diag *diag;
};

static status make_comm(struct engine *e)
{
    if (e->options.processes)
        e->alone = comm_processes_new(e->options.processes, &e->graph->mesh);
    else
        e->world = comm_threads_new(&e->graph->mesh);
    if (!e->world && !e->alone)
        guard_out_of_memory(0);
    return TPC_OK;
}

static status open_engine(void *context)
{
    struct opening *o = context;
    struct engine *e = o->engine;
    double start = seconds_now();
    e->scratch = arena_new_in(e->arena);
    status s = make_comm(e);
    if (s == TPC_OK)
        s = open_devices(e, o->diag);
    if (s != TPC_OK)
        return s;
    know_edges(e);
    states_know(e);
    e->rank = NEW_ARRAY(e->arena, struct rank, e->local);
    e->rank_stats = NEW_ARRAY(e->arena, struct engine_rank_stats, e->local);
    for (uint32_t i = 0; i < e->local && s == TPC_OK; i++)
        s = make_rank(e, i, o->diag);
    if (s == TPC_OK)
        s = find_weights(e, o->folder, o->diag);
    if (s == TPC_OK)
        s = command_all(e, COMMAND_LOAD, o->diag);
    if (s != TPC_OK)
        return s;
    e->stats.load_seconds = seconds_now() - start;
    return TPC_OK;
}

status engine_open(const struct program *program, const struct links *links, const char *folder,
                   const struct engine_options *options, struct diag *diag, struct engine **out)
{
    struct engine *e = base_alloc(sizeof *e);
    *out = NULL;
    if (!e || !(e->arena = arena_new())) {
        base_free(e);
        return diag_error(diag, TPC_NOMEM, NULL, "out of memory");
    }
    e->program = program;
    e->graph = program->graph;
    e->ranks = program->graph->mesh.ranks;
    if (links)
        e->links = *links;
    if (options)
        e->options = *options;
    e->local = e->options.processes ? 1 : e->ranks;
    uint32_t here = e->local;
    if (e->options.processes)
        (void)processes_first_here(e->options.processes, &here);
    if (e->options.threads == 0)
        e->options.threads = here && sync_cores() > here ? sync_cores() / here : 1;
    e->stats.ranks = e->ranks;
    e->stats.threads = e->options.threads;
    struct opening opening = {e, folder, diag};
    status s = e->ranks == 0 ? diag_error(diag, TPC_DATA, NULL, "the program has no mesh, so it cannot be run")
                             : guard_run(diag, open_engine, &opening);
    if (s != TPC_OK) {
        engine_close(e);
        return s;
    }
    *out = e;
    return TPC_OK;
}

static void close_rank(struct rank *r)
{
    struct engine *e = r->engine;
    if (!r->device)
        return;
    comm_nccl_free(r->queued);
    workers_free(r->fillers);
    for (uint32_t i = 0; i < 2; i++)
        base_free(r->staged[i].at);
    store_free(r, &r->temporaries);
    store_free(r, &r->best);
    store_free(r, &r->weights);
    store_free(r, &r->kept);
    store_free(r, &r->constants);
    for (uint32_t i = 0; i < e->graph->inputs.count && r->device->ops->reads_host; i++)
        store_free(r, &r->input[i]);
    store_free(r, &r->inputs);
    for (uint32_t i = 0; i < 2 * e->graph->outputs.count; i++)
        store_free(r, &r->output[i]);
    for (uint32_t i = 0; i < e->graph->states.count; i++)
        store_free(r, &r->state[i].store);
    if (r == e->rank)
        for (uint32_t i = 0; i < e->graph->outputs.count; i++)
            base_free(e->joined[i].at);
    r->device->ops->close(r->device);
}

void engine_close(struct engine *e)
{
    if (!e)
        return;
    if (e->began)
        drop_begun(e);
    e->command = COMMAND_QUIT;
    signal_raise(&e->go);
    for (uint32_t i = 0; e->rank && i < e->local; i++)
        if (e->rank[i].started)
            pthread_join(e->rank[i].thread, NULL);
    for (uint32_t i = 0; e->rank && i < e->local; i++)
        if (e->rank[i].engine)
            close_rank(&e->rank[i]);
    close_devices(e);
    base_free(e->best.lines.place);
    base_free(e->expected.lines.place);
    base_free(e->foreseen.lines.place);
    comm_threads_free(e->world);
    arena_free(e->arena);
    base_free(e);
}

/* ---- running -------------------------------------------------------------------------------------------------------- */

static status check_cut(const struct engine *e, const struct tensor *whole, struct diag *diag)
{
    for (uint32_t i = 0; i < e->graph->inputs.count; i++) {
        int64_t shape[MAX_RANK];
        if (!e->cut_input[i])
            continue;
        if (!layout_whole(e->graph, e->links.input[i], e->of, shape))
            return diag_error(diag, TPC_DATA, NULL, "input '%s' is too large: an extent overflows",
                              e->graph->inputs.at[i].name);
        for (uint32_t a = 0; a < whole[i].rank; a++)
            if (whole[i].shape[a] != shape[a])
                return diag_error(diag, TPC_DATA, NULL, "input '%s': axis %u is %lld but must be %lld",
                                  e->graph->inputs.at[i].name, (unsigned)a, (long long)whole[i].shape[a],
                                  (long long)shape[a]);
    }
    return TPC_OK;
}

struct running {
    struct engine *engine;
    const struct tensor *inputs;
    const bool *keep;
    struct diag *diag;
};

static status run_engine(void *context)
{
    struct running *run = context;
    struct engine *e = run->engine;
    const struct graph *g = e->graph;
    struct tensor *inputs = arena_copy(e->scratch, run->inputs, g->inputs.count * sizeof *inputs);
    static char nothing[64];
    bool takes = false;
    for (uint32_t i = 0; i < g->inputs.count; i++)
        takes = takes || e->taken[i].from;
    e->as_foreseen = !takes && as_foreseen(e, inputs, run->keep);
    e->early = e->began && e->as_foreseen && as_begun(e, inputs, run->keep);
    e->stats.early += e->early;
    if (!e->early)
        drop_begun(e);
    e->began = false;
    for (uint32_t i = 0; i < e->local; i++)
        e->rank[i].began = e->rank[i].marked = false;
    for (uint32_t i = 0; i < g->inputs.count; i++) {
        uint32_t state = e->state_of_input[i];
        if (!run->keep || !run->keep[i]) {
            inputs[i].data = inputs[i].data ? inputs[i].data : nothing;
            if (inputs[i].data == nothing && inputs[i].count && !e->taken[i].from)
                return diag_error(run->diag, TPC_DATA, NULL, "input '%s' has no data", g->inputs.at[i].name);
            continue;
        }
        if (!state || !e->ran)
            return diag_error(run->diag, TPC_USAGE, NULL, "input '%s' cannot be kept: %s", g->inputs.at[i].name,
                              state ? "there was no run before this one" : "the model does not hand it on");
        if (!e->as_foreseen)
            (void)engine_output_shape(e, g->states.at[state - 1].output, &inputs[i]);
    }
    e->input = inputs;
    e->keep = run->keep;
    if (e->as_foreseen)
        return command_all(e, COMMAND_RUN, run->diag);
    status s = bind_inputs(e, inputs, e->scratch, run->diag, e->of);
    if (s == TPC_OK)
        s = check_cut(e, inputs, run->diag);
    if (s == TPC_OK)
        s = states_measure(e, e->scratch, e->keep, run->diag, e->of, e->capacity);
    if (s == TPC_OK)
        s = command_all(e, COMMAND_RUN, run->diag);
    return s;
}

status engine_run(struct engine *e, const struct tensor *inputs, const bool *keep, struct diag *diag)
{
    double start = seconds_now();
    struct running run = {e, inputs, keep, diag};
    struct arena_mark mark = arena_mark(e->scratch);
    status s = guard_run(diag, run_engine, &run);
    arena_rewind(e->scratch, mark);
    e->input = NULL;
    e->keep = NULL;
    memset(e->taken, 0, e->graph->inputs.count * sizeof *e->taken);
    struct expected last = e->foreseen;
    e->foreseen = e->expected;
    e->expected = last;
    e->expected.given = false;
    e->ran = s == TPC_OK;
    for (uint32_t i = 0; i < e->local; i++)
        e->began = e->began || e->rank[i].began;
    if (s != TPC_OK) {
        drop_begun(e);
        return s;
    }
    e->turn = !e->turn;
    e->stats.runs++;
    e->stats.run_seconds += seconds_now() - start;
    return TPC_OK;
}
