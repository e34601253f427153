/* runtime/engine_best.c - the largest elements of an output's lines, or draws from them, found where they are: tokens without logits on the host.
 *
 * Where the output is gathered from parts of the lines by the last step that touches it, that step is left out: each rank looks at its own part, and a few words per row are
 * gathered instead (draws with cuts: and sums added up). Else a rank looks at the whole output, which all have: looks().
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

/* May the places go to an input of the next run? One that every rank has whole, as integers; of ranks in one process. */
static bool can_chain(const struct engine *e, uint32_t input)
{
    if (input >= e->graph->inputs.count || !e->rank[0].device->ops->mark || e->options.processes ||
        e->cut_input[input] || e->state_of_input[input])
        return false;
    dtype type = graph_node(e->graph, e->graph->inputs.at[input].value)->dtype;
    return type == DT_I64 || type == DT_I32;
}

/* Of lines that all ranks have whole, each looks for itself where the next run takes what it finds; else the first of a process does for all. */
static bool looks(const struct rank *r)
{
    return r == r->engine->rank || r->engine->best.input != UINT32_MAX;
}

static bool same_wish(const struct wanted_best *a, const struct wanted_best *b)
{
    return a->rows == b->rows && a->output == b->output && a->input == b->input && a->draws == b->draws &&
           memcmp(&a->sampling, &b->sampling, sizeof a->sampling) == 0;
}

bool wanted_lines_set(const struct engine *e, struct wanted_lines *to, const struct engine_lines *from)
{
    size_t rows = (size_t)e->best.rows;
    to->step = e->best.draws && from ? from->step : 0;
    to->placed = rows > 0 && from && from->place;
    if (to->placed && to->room < rows) {
        base_free(to->place);
        to->place = base_alloc(rows * sizeof *to->place);
        to->room = to->place ? rows : 0;
    }
    if (to->placed && to->place)
        memcpy(to->place, from->place, rows * sizeof *to->place);
    return !to->placed || to->place;
}

bool wanted_lines_same(const struct engine *e, const struct wanted_lines *a, const struct wanted_lines *b)
{
    return a->step == b->step && a->placed == b->placed &&
           (!a->placed || memcmp(a->place, b->place, (size_t)e->best.rows * sizeof *a->place) == 0);
}

uint64_t best_key(const struct engine *e, const struct wanted_lines *lines, uint32_t slot)
{
    const struct wanted_best *w = &e->best;
    const uint64_t wanted[] = {w->output, (uint64_t)w->rows, w->input, w->rows ? slot : 0, w->draws, lines->step};
    uint64_t key = hash_bytes(&w->sampling, sizeof w->sampling, 0);
    if (lines->placed)
        key = hash_bytes(lines->place, (size_t)w->rows * sizeof *lines->place, key + 1);
    return hash_bytes(wanted, sizeof wanted, key);
}

void engine_want_best(struct engine *e, uint32_t output, int64_t rows, uint32_t input, const struct sampling *draw,
                      const struct engine_lines *lines)
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
    wish.lines = e->best.lines;
    bool same = same_wish(&e->best, &wish);
    e->best = wish;
    if (!wanted_lines_set(e, &e->best.lines, lines))
        e->best.rows = 0;
    for (uint32_t i = 0; i < e->local && !same; i++)
        e->rank[i].ready = false; /* for a run that wants something else */
}

/* What is wanted of a run with these symbols: the output's shape, and how many lines an entry has. false: nothing. */
static bool best_shape(const struct engine *e, const int64_t *of, struct tensor *shape, int64_t *each)
{
    if (e->best.rows == 0 || !shape_of_value(e->graph, e->graph->outputs.at[e->best.output].value, of, shape))
        return false;
    if (shape->count == 0 || shape->shape[0] < e->best.rows)
        return false;
    *each = (int64_t)shape->count / shape->shape[shape->rank - 1] / shape->shape[0];
    return true;
}

static int64_t extent_of(const struct tensor *shape)
{
    return shape->shape[shape->rank - 1];
}

/* The same, and the lines are there. */
static bool best_lines(const struct engine *e, const struct wanted_lines *lines, const int64_t *of,
                       struct tensor *shape, int64_t *each)
{
    bool good = best_shape(e, of, shape, each);
    for (int64_t row = 0; good && lines->placed && row < e->best.rows; row++)
        good = lines->place[row] >= 0 && lines->place[row] < *each;
    return good;
}

bool best_is_there(const struct engine *e, const struct wanted_lines *lines, const int64_t *of)
{
    struct tensor t;
    int64_t each;
    return best_lines(e, lines, of, &t, &each);
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
    struct tensor t;
    int64_t each;
    return best_shape(e, plan->of, &t, &each) ? line_gather(e, plan, extent_of(&t)) : NULL;
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
        draw->scale = sample_scale((size_t)extent);
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
    struct tensor t;
    struct cuda_draw draw;
    struct cuda_draw_plan plan;
    int64_t each;
    if (!best_shape(e, now->of, &t, &each))
        return 0;
    const struct exchange *x = line_gather(e, now, extent_of(&t));
    if (!x && (!e->best.draws || !looks(r)))
        return 0;
    plan_of(e, x, t.dtype, extent_of(&t), 0, &draw, &plan);
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
    struct cuda_lines part; /* extent, base; where places go */
    dtype type;
    const void *from;
    int64_t each; /* per entry */
    const struct wanted_lines *wanted;
    const struct exchange *x; /* NULL: they are whole */
};

static int64_t line_of(const struct own_lines *o, int64_t row)
{
    return row * o->each + (o->wanted->placed ? o->wanted->place[row] : o->each - 1);
}

/* One launch's: those of rows from `row` on that lie as far apart as the first two. */
static struct cuda_lines lines_from(const struct own_lines *o, int64_t row, int64_t rows)
{
    struct cuda_lines l = o->part;
    l.row = row;
    l.count = 1;
    l.first = line_of(o, row);
    l.step = row + 1 < rows ? line_of(o, row + 1) - l.first : 1;
    while (row + l.count < rows && line_of(o, row + l.count) == l.first + l.count * l.step)
        l.count++;
    l.next += l.next ? (uint64_t)(row * l.next_bytes) : 0;
    return l;
}

static status help(struct rank *r, bool there, const struct cuda_launch *l, const void *first, const void *second)
{
    if (!there)
        return fail(&r->failure, TPC_INTERNAL, "there is no function that finds tokens");
    return r->device->ops->helper(r->device, l, first, second, &r->failure);
}

/* What of lines: the largest, two words for each to `to`; a round of a draw's cuts; a draw's candidates. A part that is empty is as cleared. */
enum finding { FIND_LARGEST, FIND_DIGIT, FIND_DRAW };

static status find(struct rank *r, enum finding what, const struct own_lines *o, const struct cuda_draw *d,
                   const struct cuda_draw_plan *plan, uint32_t round, uint64_t *to)
{
    const struct cuda_set *set = r->engine->cuda;
    status s = TPC_OK;
    for (int64_t row = 0; row < d->rows && o->part.extent > 0 && s == TPC_OK;) {
        struct cuda_lines lines = lines_from(o, row, d->rows);
        struct cuda_launch l;
        bool there = what == FIND_LARGEST ? cuda_best(set, o->type, &lines, r->scratch, &l)
                     : what == FIND_DIGIT ? cuda_draw_tally(set, o->type, &lines, d, plan, round, r->scratch, &l)
                                          : cuda_draw_tokens(set, o->type, &lines, d, plan, r->scratch, &l);
        s = help(r, there, &l, o->from, what == FIND_LARGEST ? to + WORDS * row : to);
        row += lines.count;
    }
    return s;
}

/* Cuts, then candidates: from area + plan->own on. */
static status draw_own(struct rank *r, const struct own_lines *o, const struct cuda_draw *d,
                       const struct cuda_draw_plan *plan, uint64_t *area)
{
    status s = TPC_OK;
    if (plan->rounds > 0 && plan->round[plan->rounds - 1].weighs) {
        s = find(r, FIND_LARGEST, o, d, plan, 0, area);
        if (s == TPC_OK && o->x)
            s = combine(r, o->x, LARGEST, (uint64_t)d->rows * WORDS, area, area);
    }
    for (uint32_t i = 0; i < plan->rounds && s == TPC_OK; i++) {
        uint64_t *sums = area + plan->round[i].bins;
        s = find(r, FIND_DIGIT, o, d, plan, i, area);
        if (s == TPC_OK && o->x)
            s = combine(r, o->x, ADD, plan->round[i].words, sums, sums);
    }
    return s == TPC_OK ? find(r, FIND_DRAW, o, d, plan, 0, area) : s;
}

/* Candidates of all ranks, and the best of them. */
static status find_tokens(struct rank *r, const struct own_lines *o, const struct cuda_draw *d,
                          const struct cuda_draw_plan *plan, const struct cuda_lines *rows, void *shown)
{
    const struct engine *e = r->engine;
    uint64_t *area = r->best.at, *own = area + plan->own, *all = o->x ? area + plan->words : own;
    int64_t parts = d->blocks * (o->x ? parts_of(e, o->x->subaxes) : 1);
    struct cuda_launch l;
    status s = TPC_OK;
    if (plan->rounds > 0 || o->part.extent == 0)
        s = help(r, cuda_draw_clear(e->cuda, plan, r->scratch, &l), &l, area, NULL);
    if (s == TPC_OK)
        s = e->best.draws ? draw_own(r, o, d, plan, area) : find(r, FIND_LARGEST, o, d, plan, 0, own);
    if (s == TPC_OK && o->x)
        s = combine(r, o->x, GATHER, plan->own_words, own, all);
    return s == TPC_OK ? help(r, cuda_merge(e->cuda, rows, parts, r->scratch, &l), &l, all, shown) : s;
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
    struct cuda_lines rows = {.count = e->best.rows};
    struct cuda_draw draw;
    struct cuda_draw_plan plan;
    struct tensor t;
    void *shown;
    struct own_lines own = {.from = c->address[e->best.buffer], .wanted = c->lines};
    if (!best_lines(e, c->lines, c->plan->of, &t, &own.each))
        return TPC_OK;
    own.type = t.dtype;
    own.x = line_gather(e, c->plan, extent_of(&t));
    if (!own.x && !looks(r))
        return TPC_OK;
    chain(r, &rows);
    bool direct = !own.x && !e->best.draws; /* nothing is to be put together */
    if (direct)
        own.part = rows;
    own.part.extent = extent_of(&t);
    if (own.x) {
        uint32_t part = mesh_part_of(&e->graph->mesh, own.x->subaxes, r->index);
        own.from = c->address[e->program->steps.at[e->best.gather - 1].arg[0]];
        own.part.base = own.x->cut.offset[part];
        own.part.extent = own.x->cut.offset[part + 1] - own.part.base;
    }
    plan_of(e, own.x, t.dtype, extent_of(&t), c->lines->step, &draw, &plan);
    r->failed_at = e->graph->outputs.at[e->best.output].value;
    status s =
        r->device->ops->shown(r->device, (uint64_t)rows.count * WORDS * sizeof(uint64_t), c->slot, &shown, &r->failure);
    if (s == TPC_OK)
        s = direct ? find(r, FIND_LARGEST, &own, &draw, &plan, 0, shown)
                   : find_tokens(r, &own, &draw, &plan, &rows, shown);
    r->failed_at = s == TPC_OK ? 0 : r->failed_at;
    return s;
}

bool engine_best(const struct engine *e, int64_t row, int64_t *place)
{
    struct tensor t;
    int64_t each;
    const struct rank *r = &e->rank[0];
    if (!e->ran || row >= e->best.rows || !best_lines(e, &e->best.lines, r->now->of, &t, &each))
        return false;
    const uint64_t *best = r->device->ops->words(r->device, !e->turn) + WORDS * row;
    double most = cuda_best_value(best[0], e->best.draws ? DT_F64 : t.dtype);
    *place = most > -(double)INFINITY ? (int64_t)best[1] : -1; /* neither -infinity nor NaN */
    return true;
}
