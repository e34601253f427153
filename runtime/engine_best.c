/* runtime/engine_best.c - the largest elements of an output's lines, found where they are: greedy tokens without logits on the host.
 *
 * Where the output is gathered from parts of the lines by the last step that touches it, that step is left out: each rank looks at its own part, and two words per row are
 * gathered instead. Else the first rank of a process, which like all has the whole output, looks at it.
 *
 * Invariant: what is left out, and what is done instead, depends on e->best and the symbols alone, so that all ranks do the same. Start with run_best.
 */
#include "codegen/cuda.h"
#include "runtime/engine_impl.h"

#include <math.h>

enum { WORDS = 2 }; /* of a row: cuda_best */

/* The step that alone writes and touches the buffer of an output, and is an all_gather: 1 + its number; 0: there is none. */
static uint32_t find_gather(const struct engine *e, uint32_t buffer)
{
    const struct program *p = e->program;
    uint32_t found = 0;
    for (uint32_t i = 0; i < p->steps.count; i++) {
        const struct step *s = &p->steps.at[i];
        for (uint32_t a = 0; a < s->arg_count; a++) {
            if (s->arg[a] != buffer)
                continue;
            if (found || s->kind != STEP_COLLECTIVE || a != 1 || graph_node(e->graph, s->node)->op != OP_ALL_GATHER)
                return 0;
            found = i + 1;
        }
    }
    return found;
}

/* May the places go to an input of the next run? One rank, which has it whole, as integers. */
static bool can_chain(const struct engine *e, uint32_t input)
{
    const struct device_ops *ops = e->rank[0].device->ops;
    if (input >= e->graph->inputs.count || e->ranks > 1 || !ops->mark || e->cut_input[input] ||
        e->state_of_input[input])
        return false;
    dtype type = graph_node(e->graph, e->graph->inputs.at[input].value)->dtype;
    return type == DT_I64 || type == DT_I32;
}

void engine_want_best(struct engine *e, uint32_t output, int64_t rows, uint32_t input)
{
    const struct node *n = graph_node(e->graph, e->graph->outputs.at[output].value);
    bool possible = e->rank[0].device->ops->best && !e->cut_output[output] && !e->state_output[output] &&
                    dtype_is_float(n->dtype) && dtype_size(n->dtype) > 1 && n->rank >= 2;
    struct wanted_best before = e->best;
    uint32_t chained = can_chain(e, input) ? input : UINT32_MAX;
    if (before.rows == rows && before.output == output && before.input == chained)
        return;
    e->best = (struct wanted_best){.output = output, .input = chained};
    for (uint32_t b = 0; b < e->program->buffers.count && possible; b++)
        if (e->program->buffers.at[b].kind == BUFFER_OUTPUT && e->program->buffers.at[b].index == output)
            e->best = (struct wanted_best){
                .output = output, .buffer = b, .rows = rows, .input = chained, .gather = find_gather(e, b)};
    for (uint32_t i = 0; i < e->local; i++)
        e->rank[i].ready = false; /* for a run that wants something else */
}

/* What is wanted of a run with these symbols: in the output's shape, which lines. false: nothing. */
static bool best_lines(const struct engine *e, const int64_t *of, struct tensor *shape, struct cuda_lines *lines)
{
    if (e->best.rows == 0 || !shape_of_value(e->graph, e->graph->outputs.at[e->best.output].value, of, shape))
        return false;
    if (shape->count == 0 || shape->shape[0] < e->best.rows)
        return false;
    int64_t extent = shape->shape[shape->rank - 1], each = (int64_t)shape->count / extent / shape->shape[0];
    *lines = (struct cuda_lines){.count = e->best.rows, .first = each - 1, .step = each, .extent = extent};
    return true;
}

static uint32_t parts_of(const struct engine *e, uint32_t subaxes)
{
    uint32_t parts = 1;
    for (uint32_t i = 0; i < e->graph->mesh.count; i++)
        parts *= subaxes >> i & 1 ? e->graph->mesh.size[i] : 1;
    return parts;
}

/* The gathering of whole lines from parts of them; NULL: there is none. */
static const struct exchange *line_gather(const struct engine *e, const struct shape_plan *plan, int64_t extent)
{
    const struct exchange *x = e->best.gather ? plan->exchange[e->best.gather - 1] : NULL;
    return x && x->cut.inner == 1 && x->cut.offset[parts_of(e, x->subaxes)] == extent ? x : NULL;
}

static const struct exchange *gather_of(const struct engine *e, const struct shape_plan *plan)
{
    struct cuda_lines lines;
    struct tensor t;
    return best_lines(e, plan->of, &t, &lines) ? line_gather(e, plan, lines.extent) : NULL;
}

bool best_instead_of(const struct rank *r, const struct shape_plan *plan, uint32_t step)
{
    return step + 1 == r->engine->best.gather && gather_of(r->engine, plan);
}

status best_reserve(struct rank *r)
{
    const struct exchange *x = gather_of(r->engine, r->now);
    if (!x)
        return TPC_OK;
    uint64_t own = (uint64_t)r->engine->best.rows * WORDS * sizeof(uint64_t), parts = parts_of(r->engine, x->subaxes);
    return r->queued ? store_reserve(r, &r->best, own * (1 + parts)) : host_reserve(r, &r->best_host, own * parts);
}

/* Everybody's words, in the order of parts. */
static bool gather_words(struct rank *r, struct comm *comm, const struct exchange *x, const void *own, void *all)
{
    uint32_t parts = parts_of(r->engine, x->subaxes);
    int64_t *offset = NEW_ARRAY(r->scratch, int64_t, parts + 1);
    for (uint32_t i = 0; i <= parts; i++)
        offset[i] = i;
    struct comm_cut cut = {1, r->engine->best.rows * WORDS, offset};
    return comm->ops->all_gather(comm, x->subaxes, sizeof(uint64_t), &cut, own, all);
}

static status find_own(struct rank *r, const struct course *c, const struct exchange *x, dtype type,
                       struct cuda_lines lines, void *to)
{
    const struct step *gather = &r->engine->program->steps.at[r->engine->best.gather - 1];
    uint32_t part = mesh_part_of(&r->engine->graph->mesh, x->subaxes, r->index);
    lines.base = x->cut.offset[part];
    lines.extent = x->cut.offset[part + 1] - lines.base;
    return r->device->ops->best(r->device, type, &lines, c->address[gather->arg[0]], to, c->slot, r->scratch,
                                &r->failure);
}

/* Where the places are also put, for the next run. */
static void chain(const struct rank *r, struct cuda_lines *lines)
{
    const struct engine *e = r->engine;
    uint32_t i = e->best.input;
    if (i == UINT32_MAX || !r->input[i].at)
        return;
    lines->next_bytes = (int64_t)dtype_size(graph_node(e->graph, e->graph->inputs.at[i].value)->dtype);
    if (r->input[i].capacity >= (uint64_t)(lines->next_bytes * lines->count))
        lines->next = (uint64_t)(uintptr_t)r->input[i].at;
}

/* Behind the steps of a run, in the device's queue. */
status run_best(struct rank *r, const struct course *c)
{
    struct engine *e = r->engine;
    const struct device_ops *ops = r->device->ops;
    struct cuda_lines lines;
    struct tensor t;
    if (!best_lines(e, c->plan->of, &t, &lines))
        return TPC_OK;
    const struct exchange *x = line_gather(e, c->plan, lines.extent);
    r->failed_at = e->graph->outputs.at[e->best.output].value;
    status s = TPC_OK;
    if (!x)
        chain(r, &lines);
    if (!x && r == e->rank)
        s = ops->best(r->device, t.dtype, &lines, c->address[e->best.buffer], NULL, c->slot, r->scratch, &r->failure);
    if (x)
        s = find_own(r, c, x, t.dtype, lines, r->queued ? r->best.at : NULL);
    if (x && r->queued && s == TPC_OK) {
        uint64_t own = (uint64_t)lines.count * WORDS * sizeof(uint64_t);
        char *all = (char *)r->best.at + own;
        const uint64_t what[] = {e->best.output, x->subaxes, own, (uint64_t)(uintptr_t)all};
        if (!ops->note(r->device, what, sizeof what / sizeof *what) && !gather_words(r, r->queued, x, r->best.at, all))
            return comm_failed(r, r->queued);
        s = ops->show(r->device, all, own * parts_of(e, x->subaxes), c->slot, r->scratch, &r->failure);
    }
    r->failed_at = s == TPC_OK ? 0 : r->failed_at;
    return s;
}

status best_finished(struct rank *r)
{
    const struct exchange *x = gather_of(r->engine, r->now);
    if (!x || r->queued)
        return TPC_OK;
    const uint64_t *own = r->device->ops->words(r->device, r->engine->turn);
    return gather_words(r, r->comm, x, own, r->best_host.at) ? TPC_OK : comm_failed(r, r->comm);
}

bool engine_best(const struct engine *e, int64_t row, int64_t *place)
{
    struct cuda_lines lines;
    struct tensor t;
    const struct rank *r = &e->rank[0];
    if (!e->ran || row >= e->best.rows || !best_lines(e, r->now->of, &t, &lines))
        return false;
    const struct exchange *x = line_gather(e, r->now, lines.extent);
    const uint64_t *word = x && !r->queued ? r->best_host.at : r->device->ops->words(r->device, !e->turn),
                   *best = word + WORDS * row;
    for (uint32_t part = 1; x && part < parts_of(e, x->subaxes); part++) {
        const uint64_t *other = word + WORDS * (part * e->best.rows + row);
        best = other[0] > best[0] ? other : best; /* of equals the first part's */
    }
    double most = cuda_best_value(best[0], t.dtype);
    *place = most > -(double)INFINITY ? (int64_t)best[1] : -1; /* neither -infinity nor NaN */
    return true;
}
