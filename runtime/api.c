/* runtime/api.c - the public C interface (tpc.h): a plan and its engine behind an opaque pointer, failures as codes and one line.
 *
 * Invariant: a model's arena holds all but the engine; no function leaves without the guard around what may allocate.
 */
#include "runtime/engine.h"
#include "runtime/generate.h"
#include "runtime/tpc.h"

#include <assert.h>

struct tpc_model {
    struct arena *arena;
    struct plan *plan;
    struct engine *engine;
    struct tensor *input; /* per input of the graph */
    bool *keep, *bound;
    LIST(struct role_binding) role; /* tpc_bind_role, once per input */
    struct role_binding noted;      /* the one in hand */
};

static_assert(TPC_TYPE_BOOL == (int)DT_BOOL && TPC_TYPE_F64 == (int)DT_F64 && (int)DT_COUNT == TPC_TYPE_I2 + 1,
              "types as in ir/dtype.h");
static_assert(TPC_MAX_RANK == (int)MAX_RANK, "ranks as in ir/graph.h");
static_assert(TPC_RESULT_DATA == (int)TPC_DATA && TPC_RESULT_IO == (int)TPC_IO &&
                  TPC_RESULT_NO_FILE == (int)TPC_NOINPUT && TPC_RESULT_RANKS == (int)TPC_RANKS,
              "codes as in ir/base.h");

static _Thread_local char last_error[1024];

static void note_error(void *user, severity level, const char *line)
{
    bool *noted = user;
    if (level == DIAG_ERROR && !*noted) {
        snprintf(last_error, sizeof last_error, "%s", line);
        *noted = true;
    }
}

/* Runs body under a guard; the first error line is kept. */
static int call(status (*body)(void *context, struct diag *diag), void *context);

struct call {
    status (*body)(void *context, struct diag *diag);
    void *context;
    struct diag *diag;
};

static status in_guard(void *context)
{
    struct call *c = context;
    return c->body(c->context, c->diag);
}

static int call(status (*body)(void *context, struct diag *diag), void *context)
{
    bool noted = false;
    struct diag diag = {.sink = note_error, .user = &noted};
    struct call c = {body, context, &diag};
    return (int)guard_run(&diag, in_guard, &c);
}

static int misuse(const char *what)
{
    snprintf(last_error, sizeof last_error, "tpc: error: %s", what);
    return TPC_RESULT_USAGE;
}

const char *tpc_version(void)
{
    return TPC_VERSION;
}

const char *tpc_error(void)
{
    return last_error;
}

/* ---- opening ---------------------------------------------------------------------------------------------------------- */

struct opening {
    tpc_model *model;
    const char *path;
    const tpc_options *options;
};

static status open_model(void *context, struct diag *diag)
{
    struct opening *o = context;
    tpc_model *m = o->model;
    status s = plan_read(m->arena, o->path, diag, &m->plan);
    if (s != TPC_OK)
        return s;
    const struct graph *g = m->plan->program->graph;
    m->input = NEW_ARRAY(m->arena, struct tensor, g->inputs.count + 1);
    m->keep = NEW_ARRAY(m->arena, bool, g->inputs.count + 1);
    m->bound = NEW_ARRAY(m->arena, bool, g->inputs.count + 1);
    const tpc_options *given = o->options;
    struct engine_options options = {.threads = given->threads};
    if (given->device == TPC_DEVICE_CUDA)
        options.kind = ENGINE_CUDA;
    if (given->gpus && given->gpu_count != g->mesh.ranks)
        return diag_error(diag, TPC_USAGE, NULL, "tpc_open_on: %zu GPUs for %u ranks", given->gpu_count,
                          (unsigned)g->mesh.ranks);
    options.gpus = given->gpus;
    options.host_collectives = given->host_collectives;
    return engine_open(m->plan->program, &m->plan->links, m->plan->folder, &options, diag, &m->engine);
}

int tpc_open_on(const char *plan, const tpc_options *options, tpc_model **out)
{
    if (!plan || !options || !out)
        return misuse("tpc_open: a NULL argument");
    if (options->device != TPC_DEVICE_CPU && options->device != TPC_DEVICE_CUDA)
        return misuse("tpc_open_on: no such device");
    *out = NULL;
    tpc_model *m = base_alloc(sizeof *m);
    if (!m || !(m->arena = arena_new())) {
        base_free(m);
        snprintf(last_error, sizeof last_error, "tpc: error: out of memory");
        return TPC_RESULT_NO_MEMORY;
    }
    struct opening o = {m, plan, options};
    int result = call(open_model, &o);
    if (result != 0)
        tpc_close(m);
    else
        *out = m;
    return result;
}

int tpc_open(const char *plan, uint32_t threads, tpc_model **out)
{
    const tpc_options options = {.threads = threads};
    return tpc_open_on(plan, &options, out);
}

void tpc_close(tpc_model *m)
{
    if (!m)
        return;
    engine_close(m->engine);
    arena_free(m->arena);
    base_free(m);
}

/* ---- what a model has ------------------------------------------------------------------------------------------------- */

static const struct graph *graph_of(const tpc_model *m)
{
    return m->plan->program->graph;
}

uint32_t tpc_ranks(const tpc_model *m)
{
    return graph_of(m)->mesh.ranks;
}

size_t tpc_input_count(const tpc_model *m)
{
    return graph_of(m)->inputs.count;
}

size_t tpc_output_count(const tpc_model *m)
{
    return graph_of(m)->outputs.count;
}

const char *tpc_input_name(const tpc_model *m, size_t input)
{
    return input < graph_of(m)->inputs.count ? graph_of(m)->inputs.at[input].name : NULL;
}

const char *tpc_output_name(const tpc_model *m, size_t output)
{
    return output < graph_of(m)->outputs.count ? graph_of(m)->outputs.at[output].name : NULL;
}

/* Whole extents: constants, or -1. */
static void describe(const tpc_model *m, value v, const struct placement *placement, tpc_tensor *out)
{
    const struct graph *g = graph_of(m);
    const struct node *n = graph_node(g, v);
    memset(out, 0, sizeof *out);
    out->type = (tpc_type)n->dtype;
    out->rank = n->rank;
    for (uint32_t a = 0; a < n->rank; a++) {
        int64_t total = 0, extent = 0;
        if (!placement) {
            out->shape[a] = dim_is_const(g->dims, n->shape[a], &extent) ? extent : -1;
            continue;
        }
        for (uint32_t s = 0; s < placement->axis[a].count && total >= 0; s++) {
            int64_t product = 1;
            for (uint32_t f = 0; f < placement->axis[a].segment[s].count && product >= 0; f++)
                product = dim_is_const(g->dims, placement->axis[a].segment[s].factor[f].extent, &extent)
                              ? product * extent
                              : -1;
            total = product < 0 ? -1 : total + product;
        }
        out->shape[a] = total;
    }
}

int tpc_input_type(const tpc_model *m, size_t input, tpc_tensor *out)
{
    if (input >= graph_of(m)->inputs.count)
        return misuse("tpc_input_type: no such input");
    const struct placement *const *placement = m->plan->links.input;
    describe(m, graph_of(m)->inputs.at[input].value, placement ? placement[input] : NULL, out);
    return 0;
}

int tpc_output_type(const tpc_model *m, size_t output, tpc_tensor *out)
{
    if (output >= graph_of(m)->outputs.count)
        return misuse("tpc_output_type: no such output");
    const struct placement *const *placement = m->plan->links.output;
    describe(m, graph_of(m)->outputs.at[output].value, placement ? placement[output] : NULL, out);
    return 0;
}

/* ---- running ------------------------------------------------------------------------------------------------------------ */

int tpc_bind(tpc_model *m, size_t input, const tpc_tensor *t)
{
    if (input >= graph_of(m)->inputs.count)
        return misuse("tpc_bind: no such input");
    const struct node *n = graph_node(graph_of(m), graph_of(m)->inputs.at[input].value);
    if ((dtype)t->type != n->dtype || t->rank != n->rank)
        return misuse("tpc_bind: the input has another type or rank (tpc_input_type says which)");
    struct tensor bound;
    if (!tensor_shape(&bound, n->dtype, t->rank, t->shape))
        return misuse("tpc_bind: a negative extent, or too many elements");
    if (bound.count && !t->data)
        return misuse("tpc_bind: the tensor has no data");
    bound.data = t->data;
    m->input[input] = bound;
    m->keep[input] = false;
    m->bound[input] = true;
    return 0;
}

int tpc_bind_state(tpc_model *m, size_t input)
{
    const struct graph *g = graph_of(m);
    for (uint32_t s = 0; s < g->states.count; s++)
        if (g->states.at[s].input == input) {
            m->keep[input] = true;
            m->bound[input] = true;
            return 0;
        }
    return misuse("tpc_bind_state: the input is no state of the model");
}

int tpc_context(tpc_model *m, int64_t entries)
{
    if (entries < 0)
        return misuse("tpc_context: a negative number of entries");
    engine_context(m->engine, entries);
    return 0;
}

static status run_model(void *context, struct diag *diag)
{
    tpc_model *m = context;
    for (uint32_t i = 0; i < graph_of(m)->inputs.count; i++)
        if (!m->bound[i])
            return diag_error(diag, TPC_USAGE, NULL, "input '%s' is not bound", graph_of(m)->inputs.at[i].name);
    return engine_run(m->engine, m->input, m->keep, diag);
}

int tpc_run(tpc_model *m)
{
    return call(run_model, m);
}

struct reading {
    tpc_model *model;
    uint32_t index;
    struct tensor tensor;
};

static status read_output(void *context, struct diag *diag)
{
    struct reading *r = context;
    return engine_output(r->model->engine, r->index, diag, &r->tensor);
}

int tpc_output(tpc_model *m, size_t output, tpc_tensor *out)
{
    if (output >= graph_of(m)->outputs.count)
        return misuse("tpc_output: no such output");
    struct reading r = {.model = m, .index = (uint32_t)output};
    int result = call(read_output, &r);
    if (result != 0)
        return result;
    *out = (tpc_tensor){.type = (tpc_type)r.tensor.dtype, .rank = r.tensor.rank, .data = r.tensor.data};
    memcpy(out->shape, r.tensor.shape, r.tensor.rank * sizeof *out->shape);
    return 0;
}

/* ---- generating ---------------------------------------------------------------------------------------------------------- */

struct generating {
    tpc_model *model;
    const tpc_generation *what;
};

/* What is bound serves inputs that generation does not fill itself. */
static const struct tensor *bound_inputs(const tpc_model *m, struct arena *scratch)
{
    uint32_t count = graph_of(m)->inputs.count;
    struct tensor *given = NEW_ARRAY(scratch, struct tensor, count + 1);
    for (uint32_t i = 0; i < count; i++)
        if (m->bound[i] && !m->keep[i])
            given[i] = m->input[i];
    return given;
}

static status generate_tokens(void *context, struct diag *diag)
{
    struct generating *g = context;
    const tpc_generation *what = g->what;
    tpc_model *m = g->model;
    struct arena *scratch = arena_new_in(m->arena);
    struct prompt *prompt = NEW_ARRAY(scratch, struct prompt, what->rows + 1);
    for (size_t r = 0; r < what->rows; r++)
        prompt[r] = (struct prompt){what->prompt[r], what->prompt_length[r]};
    struct generate_options o = {.prompt = prompt,
                                 .rows = what->rows,
                                 .count = what->count,
                                 .stop = what->stop,
                                 .stop_count = what->stop_count,
                                 .sampling = {what->temperature, what->top_k, what->top_p, what->seed},
                                 .context = what->context,
                                 .binding = m->role.at,
                                 .binding_count = m->role.count,
                                 .given = bound_inputs(m, scratch),
                                 .given_last = true,
                                 .step = what->step,
                                 .user = what->user};
    status s = generate(m->engine, m->plan, &o, scratch, diag);
    arena_free(scratch);
    return s;
}

int tpc_generate(tpc_model *m, const tpc_generation *what)
{
    if (!m || !what || (what->rows && (!what->prompt || !what->prompt_length)) || (what->stop_count && !what->stop))
        return misuse("tpc_generate: a NULL argument");
    for (size_t r = 0; r < what->rows; r++)
        if (what->prompt_length[r] && !what->prompt[r])
            return misuse("tpc_generate: a prompt without tokens");
    struct generating g = {m, what};
    return call(generate_tokens, &g);
}

static status note_role(void *context, struct diag *diag)
{
    struct generating *g = context;
    tpc_model *m = g->model;
    (void)diag;
    for (uint32_t i = 0; i < m->role.count; i++)
        if (m->role.at[i].input == m->noted.input) {
            m->role.at[i] = m->noted;
            return TPC_OK;
        }
    *PUSH(m->arena, &m->role) = m->noted;
    return TPC_OK;
}

int tpc_bind_role(tpc_model *m, size_t input, const char *text)
{
    role r = text ? role_from_text(text) : ROLE_NONE;
    if (input >= graph_of(m)->inputs.count)
        return misuse("tpc_bind_role: no such input");
    if (r == ROLE_NONE)
        return misuse("tpc_bind_role: a role is tokens, mask, positions, past_length, total_length or given");
    m->noted = (struct role_binding){graph_of(m)->inputs.at[input].name, r};
    struct generating g = {m, NULL};
    return call(note_role, &g);
}
