/* runtime/engine_best.c - the largest elements of an output's lines, or draws from them, found where they are: tokens without logits on the host.
 *
 * Where the output is gathered from parts of the lines by the last step that touches it, that step is left out: each rank looks at its own part, and a few words per row are
 * gathered instead (draws with cuts: and sums added up). Else the first rank of a process, which like all has the whole output, looks at it.
 *
 * Invariant: what is left out, and what is done instead, depends on e->best and the symbols alone, so that all ranks do the same. Start with run_best.
 */
#include "codegen/cuda.h"
#include "runtime/engine_impl.h"
#include "runtime/sample.h"

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

static bool same_wish(const struct wanted_best *a, const struct wanted_best *b)
{
    return a->rows == b->rows && a->output == b->output && a->input == b->input && a->draws == b->draws &&
           memcmp(&a->sampling, &b->sampling, sizeof a->sampling) == 0;
}

void engine_want_best(struct engine *e, uint32_t output, int64_t rows, uint32_t input, const struct sampling *draw,
                      uint64_t step)
{
    const struct node *n = graph_node(e->graph, e->graph->outputs.at[output].value);
    bool possible = e->rank[0].device->ops->helper && !e->cut_output[output] && !e->state_output[output] &&
                    dtype_is_float(n->dtype) && dtype_size(n->dtype) > 1 && n->rank >= 2;
    struct wanted_best wish = {.output = output, .input = can_chain(e, input) ? input : UINT32_MAX};
    wish.draws = draw && !sample_is_greedy(draw);
    if (wish.draws)
        wish.sampling = *draw;
    for (uint32_t b = 0; b < e->program->buffers.count && possible; b++)
        if (e->program->buffers.at[b].kind == BUFFER_OUTPUT && e->program->buffers.at[b].index == output) {
            wish.buffer = b;
            wish.rows = rows;
            wish.gather = find_gather(e, b);
        }
    bool same = same_wish(&e->best, &wish);
    e->best = wish;
    e->best.step = wish.draws ? step : 0;
    for (uint32_t i = 0; i < e->local && !same; i++)
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

/* ---- memory and collectives ----------------------------------------------------------------------------------------------- */

/* What the candidates of this rank's lines take; those of all parts lie behind it. x: NULL where lines are whole. */
static void plan_of(const struct engine *e, const struct exchange *x, dtype type, int64_t extent, uint64_t step,
                    struct cuda_draw *draw, struct cuda_draw_plan *plan)
{
    const struct sampling *s = &e->best.sampling;
    int64_t longest = extent;
    for (uint32_t i = 0; x && i < parts_of(e, x->subaxes); i++) {
        int64_t own = x->cut.offset[i + 1] - x->cut.offset[i];
        longest = i == 0 || own > longest ? own : longest;
    }
    *draw = (struct cuda_draw){.rows = e->best.rows, .extent = extent, .blocks = 1};
    if (e->best.draws) {
        draw->factor = sample_factor(s);
        draw->share = s->top_p;
        draw->top_k = s->top_k;
        draw->seed = s->seed;
        draw->step = step;
        draw->blocks = (longest + CUDA_DRAW_EACH - 1) / CUDA_DRAW_EACH;
    }
    cuda_draw_plan(type, draw, plan);
}

uint64_t best_bytes(const struct rank *r, const struct shape_plan *now)
{
    const struct engine *e = r->engine;
    struct cuda_lines lines;
    struct tensor t;
    struct cuda_draw draw;
    struct cuda_draw_plan plan;
    if (!best_lines(e, now->of, &t, &lines))
        return 0;
    const struct exchange *x = line_gather(e, now, lines.extent);
    if (!x && (!e->best.draws || r != e->rank))
        return 0;
    plan_of(e, x, t.dtype, lines.extent, 0, &draw, &plan);
    return (plan.words + (x ? parts_of(e, x->subaxes) * plan.own_words : 0)) * sizeof(uint64_t);
}

enum combining { GATHER, ADD, LARGEST };

static bool call(struct rank *r, struct comm *comm, const struct exchange *x, enum combining how, int64_t words,
                 const void *from, void *to)
{
    uint32_t parts = parts_of(r->engine, x->subaxes);
    if (how != GATHER)
        return comm->ops->all_reduce(comm, x->subaxes, how == ADD ? REDUCTION_SUM : REDUCTION_MAX, DT_U64, from, to,
                                     words);
    int64_t *offset = NEW_ARRAY(r->scratch, int64_t, parts + 1);
    for (uint32_t i = 0; i <= parts; i++)
        offset[i] = i;
    struct comm_cut cut = {1, words, offset};
    return comm->ops->all_gather(comm, x->subaxes, sizeof(uint64_t), &cut, from, to);
}

/* Words of all ranks that have parts of a line: in the order of parts, or added up, or the largest. In the device's queue, or through host memory. */
static status combine(struct rank *r, const struct exchange *x, enum combining how, uint64_t words, void *from,
                      void *to)
{
    const struct device_ops *ops = r->device->ops;
    uint64_t bytes = words * sizeof(uint64_t), result = how == GATHER ? bytes * parts_of(r->engine, x->subaxes) : bytes;
    const uint64_t what[] = {r->engine->best.output, x->subaxes, (uint64_t)how, words, (uint64_t)(uintptr_t)from,
                             (uint64_t)(uintptr_t)to};
    if (r->queued && ops->note(r->device, what, sizeof what / sizeof *what))
        return TPC_OK;
    if (r->queued)
        return call(r, r->queued, x, how, (int64_t)words, from, to) ? TPC_OK : comm_failed(r, r->queued);
    status s = host_reserve(r, &r->staged[0], bytes);
    if (s == TPC_OK)
        s = host_reserve(r, &r->staged[1], result);
    if (s == TPC_OK)
        s = ops->download(r->device, r->staged[0].at, from, bytes, &r->failure);
    if (s != TPC_OK)
        return s;
    if (!call(r, r->comm, x, how, (int64_t)words, r->staged[0].at, r->staged[1].at))
        return comm_failed(r, r->comm);
    return ops->upload(r->device, to, r->staged[1].at, result, &r->failure);
}

/* ---- a run ---------------------------------------------------------------------------------------------------------------- */

/* The lines as this rank has them. */
struct own_lines {
    struct cuda_lines lines;
    dtype type;
    const void *from;
    const struct exchange *x; /* NULL: they are whole */
};

static status help(struct rank *r, bool there, const struct cuda_launch *l, const void *first, const void *second)
{
    if (!there)
        return fail(&r->failure, TPC_INTERNAL, "there is no function that finds tokens");
    return r->device->ops->helper(r->device, l, first, second, &r->failure);
}

/* Cuts, then candidates: from area + plan->own on. */
static status draw_own(struct rank *r, const struct own_lines *o, const struct cuda_draw *d,
                       const struct cuda_draw_plan *plan, uint64_t *area)
{
    const struct cuda_set *set = r->engine->cuda;
    bool some = o->lines.extent > 0; /* else it is as cleared */
    struct cuda_launch l;
    status s = TPC_OK;
    if (plan->rounds > 0 && plan->round[plan->rounds - 1].weighs) {
        if (some)
            s = help(r, cuda_best(set, o->type, &o->lines, r->scratch, &l), &l, o->from, area);
        if (s == TPC_OK && o->x)
            s = combine(r, o->x, LARGEST, (uint64_t)o->lines.count * WORDS, area, area);
    }
    for (uint32_t i = 0; i < plan->rounds && s == TPC_OK; i++) {
        const struct cuda_round *round = &plan->round[i];
        if (some)
            s = help(r, cuda_draw_tally(set, o->type, &o->lines, d, plan, i, r->scratch, &l), &l, o->from, area);
        if (s == TPC_OK && o->x)
            s = combine(r, o->x, ADD, round->words, area + round->bins, area + round->bins);
    }
    if (s == TPC_OK && some)
        s = help(r, cuda_draw_tokens(set, o->type, &o->lines, d, plan, r->scratch, &l), &l, o->from, area);
    return s;
}

/* Candidates of all ranks, and the best of them. */
static status find_tokens(struct rank *r, const struct own_lines *o, const struct cuda_draw *d,
                          const struct cuda_draw_plan *plan, const struct cuda_lines *whole, void *shown)
{
    const struct engine *e = r->engine;
    uint64_t *area = r->best.at, *own = area + plan->own, *all = o->x ? area + plan->words : own;
    int64_t parts = d->blocks * (o->x ? parts_of(e, o->x->subaxes) : 1);
    struct cuda_launch l;
    status s = TPC_OK;
    if (plan->rounds > 0 || o->lines.extent == 0)
        s = help(r, cuda_draw_clear(e->cuda, plan, r->scratch, &l), &l, area, NULL);
    if (s == TPC_OK && e->best.draws)
        s = draw_own(r, o, d, plan, area);
    else if (s == TPC_OK && o->lines.extent > 0)
        s = help(r, cuda_best(e->cuda, o->type, &o->lines, r->scratch, &l), &l, o->from, own);
    if (s == TPC_OK && o->x)
        s = combine(r, o->x, GATHER, plan->own_words, own, all);
    return s == TPC_OK ? help(r, cuda_merge(e->cuda, whole, parts, r->scratch, &l), &l, all, shown) : s;
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
    struct cuda_lines lines;
    struct cuda_draw draw;
    struct cuda_draw_plan plan;
    struct cuda_launch l;
    struct tensor t;
    void *shown;
    if (!best_lines(e, c->plan->of, &t, &lines))
        return TPC_OK;
    const struct exchange *x = line_gather(e, c->plan, lines.extent);
    if (!x && r != e->rank)
        return TPC_OK;
    struct own_lines own = {lines, t.dtype, c->address[e->best.buffer], x};
    if (x) {
        uint32_t part = mesh_part_of(&e->graph->mesh, x->subaxes, r->index);
        own.from = c->address[e->program->steps.at[e->best.gather - 1].arg[0]];
        own.lines.base = x->cut.offset[part];
        own.lines.extent = x->cut.offset[part + 1] - own.lines.base;
    }
    plan_of(e, x, t.dtype, lines.extent, c->step, &draw, &plan);
    r->failed_at = e->graph->outputs.at[e->best.output].value;
    chain(r, &lines);
    status s = r->device->ops->shown(r->device, (uint64_t)lines.count * WORDS * sizeof(uint64_t), c->slot, &shown,
                                     &r->failure);
    if (s == TPC_OK && !x && !e->best.draws)
        s = help(r, cuda_best(e->cuda, t.dtype, &lines, r->scratch, &l), &l, own.from, shown);
    else if (s == TPC_OK)
        s = find_tokens(r, &own, &draw, &plan, &lines, shown);
    r->failed_at = s == TPC_OK ? 0 : r->failed_at;
    return s;
}

bool engine_best(const struct engine *e, int64_t row, int64_t *place)
{
    struct cuda_lines lines;
    struct tensor t;
    const struct rank *r = &e->rank[0];
    if (!e->ran || row >= e->best.rows || !best_lines(e, r->now->of, &t, &lines))
        return false;
    const uint64_t *best = r->device->ops->words(r->device, !e->turn) + WORDS * row;
    double most = cuda_best_value(best[0], e->best.draws ? DT_F64 : t.dtype);
    *place = most > -(double)INFINITY ? (int64_t)best[1] : -1; /* neither -infinity nor NaN */
    return true;
}
