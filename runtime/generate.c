/* runtime/generate.c - the loop of greedy generation, and what it takes a model's inputs for. Start with generate.
 *
 * Invariant: every extent that a model leaves open follows from three numbers: one sequence, so many tokens now, so many before.
 */
#include "runtime/generate.h"

typedef enum role { ROLE_TOKENS, ROLE_MASK, ROLE_POSITIONS, ROLE_STATE } role;

struct writer {
    struct engine *engine;
    const struct plan *plan;
    const struct graph *graph;
    struct arena *arena;
    struct diag *diag;
    role *role; /* per input */
    bool *keep; /* per input: taken from the last run */
    struct tensor *input;
    int64_t *of; /* symbols that the tokens' shape gives; -1 unknown */
    uint32_t tokens, logits;
    bool states;
    int64_t *all; /* prompt and what was written */
    int64_t length, past;
};

/* ---- what inputs are for ---------------------------------------------------------------------------------------------- */

static const struct node *input_node(const struct writer *w, uint32_t i)
{
    return graph_node(w->graph, w->graph->inputs.at[i].value);
}

static bool named(const struct writer *w, uint32_t i, const char *part)
{
    return strstr(w->graph->inputs.at[i].name, part) != NULL;
}

static bool is_state(const struct writer *w, uint32_t i)
{
    for (uint32_t s = 0; s < w->graph->states.count; s++)
        if (w->graph->states.at[s].input == i)
            return true;
    return false;
}

static status refuse(const struct writer *w, uint32_t i, const char *why)
{
    return diag_error(w->diag, TPC_UNSUPPORTED, NULL, "cannot generate with this model: input '%s' %s",
                      w->graph->inputs.at[i].name, why);
}

static status find_tokens(struct writer *w)
{
    uint32_t by_name = UINT32_MAX, by_shape = UINT32_MAX, candidates = 0;
    for (uint32_t i = 0; i < w->graph->inputs.count; i++) {
        const struct node *n = input_node(w, i);
        if (!dtype_is_int(n->dtype) || n->rank != 2 || is_state(w, i))
            continue;
        if (named(w, i, "input_ids"))
            by_name = by_name == UINT32_MAX ? i : by_name;
        if (named(w, i, "mask") || named(w, i, "position"))
            continue;
        by_shape = i;
        candidates++;
    }
    w->tokens = by_name != UINT32_MAX ? by_name : by_shape;
    if (by_name == UINT32_MAX && candidates != 1)
        return diag_error(
            w->diag, TPC_UNSUPPORTED, NULL,
            "cannot generate with this model: %u of its inputs could be the tokens (integers [batch, sequence])",
            (unsigned)candidates);
    return TPC_OK;
}

static status find_roles(struct writer *w)
{
    for (uint32_t i = 0; i < w->graph->inputs.count; i++) {
        const struct node *n = input_node(w, i);
        if (is_state(w, i)) {
            w->role[i] = ROLE_STATE;
            w->states = true;
        } else if (i == w->tokens) {
            w->role[i] = ROLE_TOKENS;
        } else if (named(w, i, "mask") && n->rank == 2) {
            w->role[i] = ROLE_MASK;
        } else if (named(w, i, "position") && dtype_is_int(n->dtype) && (n->rank == 1 || n->rank == 2)) {
            w->role[i] = ROLE_POSITIONS;
        } else {
            return refuse(w, i, "is none that it knows how to fill (states, tokens, mask, positions)");
        }
    }
    for (uint32_t s = 0; s < w->graph->states.count; s++)
        if (!w->graph->states.at[s].appended)
            return refuse(w, w->graph->states.at[s].input, "is a state of fixed size, which is not supported yet");
    return TPC_OK;
}

static status find_logits(struct writer *w)
{
    uint32_t found = UINT32_MAX;
    for (uint32_t i = w->graph->outputs.count; i-- > 0;) {
        const struct node *n = graph_node(w->graph, w->graph->outputs.at[i].value);
        bool state = false;
        for (uint32_t s = 0; s < w->graph->states.count; s++)
            state = state || w->graph->states.at[s].output == i;
        if (state || n->rank != 3 || !dtype_is_float(n->dtype))
            continue;
        found = i;
        if (strstr(w->graph->outputs.at[i].name, "logits"))
            break;
    }
    w->logits = found;
    return found != UINT32_MAX
               ? TPC_OK
               : diag_error(
                     w->diag, TPC_UNSUPPORTED, NULL,
                     "cannot generate with this model: no output is logits (floats [batch, sequence, vocabulary])");
}

/* ---- shapes ----------------------------------------------------------------------------------------------------------- */

/* Symbols are known from the tokens' shape; a plain symbol that is not among them takes `otherwise`. */
static bool extent_of(const struct writer *w, dim d, int64_t otherwise, int64_t *out)
{
    const struct dims *t = w->graph->dims;
    for (uint32_t s = 0; s < dims_symbol_count(t); s++)
        if (w->of[s] < 0 && dim_uses_symbol(t, d, s)) {
            *out = otherwise;
            return true;
        }
    return dim_eval(t, d, w->of, out);
}

static void know_symbol(struct writer *w, dim d, int64_t x)
{
    struct dim_node n = dim_get(w->graph->dims, d);
    if (n.op == DIM_SYMBOL)
        w->of[n.symbol] = x;
}

/* The whole extent of an axis of a state: of its placement, since its node has a rank's. Empty along the axis that grows. */
static bool state_extent(const struct writer *w, uint32_t input, uint32_t axis, int64_t *out)
{
    int64_t otherwise = 1;
    for (uint32_t s = 0; s < w->graph->states.count; s++)
        if (w->graph->states.at[s].input == input && w->graph->states.at[s].axis == axis)
            otherwise = 0;
    const struct placement *p = w->plan->links.input ? w->plan->links.input[input] : NULL;
    if (!p)
        return extent_of(w, input_node(w, input)->shape[axis], otherwise, out);
    *out = 0;
    for (uint32_t s = 0; s < p->axis[axis].count; s++) {
        const struct segment *segment = &p->axis[axis].segment[s];
        int64_t product = 1, extent = 0;
        for (uint32_t f = 0; f < segment->count; f++)
            if (!extent_of(w, segment->factor[f].extent, otherwise, &extent) || !i64_mul(product, extent, &product))
                return false;
        if (!i64_add(*out, product, out))
            return false;
    }
    return true;
}

static status shape_input(struct writer *w, uint32_t i, int64_t now)
{
    const struct node *n = input_node(w, i);
    int64_t shape[MAX_RANK];
    for (uint32_t a = 0; a < n->rank; a++) {
        bool last = a + 1 == n->rank;
        int64_t otherwise = !last ? 1 : w->role[i] == ROLE_POSITIONS ? now : w->past + now;
        bool good = w->role[i] == ROLE_STATE ? state_extent(w, i, a, &shape[a])
                                             : extent_of(w, n->shape[a], otherwise, &shape[a]);
        if (!good)
            return refuse(w, i, "has an extent that overflows");
    }
    if (!tensor_new(w->arena, &w->input[i], n->dtype, n->rank, shape))
        return refuse(w, i, "is too large");
    return TPC_OK;
}

/* ---- one step ----------------------------------------------------------------------------------------------------------- */

static void fill_input(struct writer *w, uint32_t i, int64_t now)
{
    struct tensor *t = &w->input[i];
    for (size_t k = 0; k < t->count; k++) {
        if (w->role[i] == ROLE_TOKENS)
            dtype_store_i64(t->dtype, t->data, k, w->all[w->past + (int64_t)k % now]);
        else if (w->role[i] == ROLE_POSITIONS)
            dtype_store_i64(t->dtype, t->data, k, w->past + (int64_t)k % now);
        else if (dtype_is_float(t->dtype))
            dtype_store_f64(t->dtype, t->data, k, 1);
        else
            dtype_store_i64(t->dtype, t->data, k, 1);
    }
}

static status check_tokens(const struct writer *w, int64_t now)
{
    const struct tensor *t = &w->input[w->tokens];
    if (t->shape[1] != now)
        return diag_error(w->diag, TPC_UNSUPPORTED, NULL,
                          "cannot generate with this model: it takes %lld tokens at a time, not %lld",
                          (long long)t->shape[1], (long long)now);
    if (t->shape[0] != 1)
        return diag_error(w->diag, TPC_UNSUPPORTED, NULL, "cannot generate with this model: its batch is fixed to %lld",
                          (long long)t->shape[0]);
    return TPC_OK;
}

/* Runs tokens [past, length); the next one goes to *token. */
static status step(struct writer *w, int64_t *token)
{
    int64_t now = w->length - w->past;
    const struct node *tokens = input_node(w, w->tokens);
    know_symbol(w, tokens->shape[0], 1);
    know_symbol(w, tokens->shape[1], now);
    for (uint32_t i = 0; i < w->graph->inputs.count; i++) {
        w->keep[i] = w->role[i] == ROLE_STATE && w->past > 0;
        if (w->keep[i])
            continue;
        status s = shape_input(w, i, now);
        if (s != TPC_OK)
            return s;
        if (i == w->tokens && (s = check_tokens(w, now)) != TPC_OK)
            return s;
        if (w->role[i] != ROLE_STATE)
            fill_input(w, i, now);
    }
    status s = engine_run(w->engine, w->input, w->keep, w->diag);
    struct tensor logits;
    if (s != TPC_OK || (s = engine_output(w->engine, w->logits, w->diag, &logits)) != TPC_OK)
        return s;
    if (logits.shape[2] == 0 || logits.shape[1] == 0 || logits.shape[0] == 0)
        return diag_error(w->diag, TPC_UNSUPPORTED, NULL, "cannot generate with this model: its logits are empty");
    size_t first = (size_t)((logits.shape[1] - 1) * logits.shape[2]);
    *token = 0;
    for (int64_t k = 1; k < logits.shape[2]; k++) /* the first of equals */
        if (dtype_load_f64(logits.dtype, logits.data, first + (size_t)k) >
            dtype_load_f64(logits.dtype, logits.data, first + (size_t)*token))
            *token = k;
    return TPC_OK;
}

status generate(struct engine *engine, const struct plan *plan, const struct generate_options *o, struct arena *arena,
                struct diag *diag)
{
    const struct graph *g = plan->program->graph;
    size_t room = 0;
    struct writer w = {.engine = engine, .plan = plan, .graph = g, .arena = arena, .diag = diag};
    if (o->prompt_count == 0 || !size_add(o->prompt_count, o->count, &room))
        return diag_error(diag, TPC_USAGE, NULL, "the prompt is empty");
    w.role = NEW_ARRAY(arena, role, g->inputs.count + 1);
    w.keep = NEW_ARRAY(arena, bool, g->inputs.count + 1);
    w.input = NEW_ARRAY(arena, struct tensor, g->inputs.count + 1);
    w.of = NEW_ARRAY(arena, int64_t, dims_symbol_count(g->dims) + 1);
    w.all = NEW_ARRAY(arena, int64_t, room);
    memset(w.of, 0xff, dims_symbol_count(g->dims) * sizeof *w.of); /* -1 */
    memcpy(w.all, o->prompt, o->prompt_count * sizeof *w.all);
    w.length = (int64_t)o->prompt_count;
    status s = find_tokens(&w);
    if (s == TPC_OK)
        s = find_roles(&w);
    if (s == TPC_OK)
        s = find_logits(&w);
    for (size_t i = 0; i < o->count && s == TPC_OK; i++) {
        int64_t token = 0;
        struct arena_mark mark = arena_mark(arena);
        s = step(&w, &token);
        arena_rewind(arena, mark);
        if (s != TPC_OK)
            break;
        if (w.states)
            w.past = w.length;
        w.all[w.length++] = token;
        if (o->token)
            o->token(o->user, token);
        for (size_t k = 0; k < o->stop_count; k++)
            if (o->stop[k] == token)
                return TPC_OK;
    }
    return s;
}
