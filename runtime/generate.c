/* runtime/generate.c - the loop of generation. Start with generate.
 *
 * Invariant: rows go on in step; one that has ended is fed its last token again, and what comes of it is not handed out.
 */
#include "runtime/generate_impl.h"

/* ---- before the first step -------------------------------------------------------------------------------------------- */

static status check_options(const struct generate_options *o, struct diag *diag)
{
    const struct sampling *s = &o->sampling;
    if (o->rows == 0)
        return diag_error(diag, TPC_USAGE, NULL, "there is no prompt");
    for (size_t r = 0; r < o->rows; r++) {
        if (o->prompt[r].count == 0 && o->rows == 1)
            return diag_error(diag, TPC_USAGE, NULL, "the prompt is empty");
        if (o->prompt[r].count == 0)
            return diag_error(diag, TPC_USAGE, NULL, "prompt %zu is empty", r + 1);
        if (o->prompt[r].count > INT32_MAX || o->count > INT32_MAX)
            return diag_error(diag, TPC_USAGE, NULL, "prompt %zu and what is to be written are too long", r + 1);
    }
    if (o->rows > INT32_MAX)
        return diag_error(diag, TPC_USAGE, NULL, "there are too many prompts");
    if (!(s->temperature >= 0) || s->temperature > 1e30)
        return diag_error(diag, TPC_USAGE, NULL, "a temperature must be a number from 0 on");
    if (!(s->top_p >= 0) || s->top_p > 1 || s->top_k < 0)
        return diag_error(diag, TPC_USAGE, NULL, "top-p must lie between 0 and 1, and top-k may not be negative");
    return TPC_OK;
}

static void copy_prompts(struct writer *w)
{
    const struct generate_options *o = w->o;
    w->text = NEW_ARRAY(w->arena, int64_t *, o->rows);
    w->length = NEW_ARRAY(w->arena, int64_t, o->rows);
    w->ended = NEW_ARRAY(w->arena, bool, o->rows);
    w->place = NEW_ARRAY(w->arena, int64_t, o->rows);
    for (size_t r = 0; r < o->rows; r++) {
        w->text[r] = NEW_ARRAY(w->arena, int64_t, o->prompt[r].count + o->count);
        memcpy(w->text[r], o->prompt[r].token, o->prompt[r].count * sizeof **w->text);
        w->length[r] = (int64_t)o->prompt[r].count;
        w->longest = w->length[r] > w->longest ? w->length[r] : w->longest;
    }
}

static bool rows_differ(const struct writer *w)
{
    for (size_t r = 1; r < w->o->rows; r++)
        if (w->length[r] != w->length[0])
            return true;
    return false;
}

/* On which side rows of unequal length are padded, so that each is computed as if it were alone. */
static status choose_padding(struct writer *w)
{
    const struct roles *r = &w->roles;
    bool fixed = !r->states && w->fixed > 0;
    w->padding = fixed ? PADDING_RIGHT : PADDING_LEFT;
    if (!rows_differ(w) || fixed)
        return TPC_OK;
    if (r->mask_summed && !r->mask_by_place) { /* the sum says how many of a row's first places count */
        w->padding = PADDING_RIGHT;
        return TPC_OK;
    }
    if (r->mask && (r->positions || r->mask_summed))
        return TPC_OK;
    if (!r->states) { /* what follows a token does not matter to it */
        w->padding = PADDING_RIGHT;
        return TPC_OK;
    }
    return diag_error(w->diag, TPC_UNSUPPORTED, NULL,
                      "prompts of unequal lengths need %s, which this model has not: give prompts of one length",
                      r->mask ? "positions (an input, or counted from the mask)" : "a mask");
}

static status check_room(struct writer *w)
{
    int64_t count = (int64_t)w->o->count, hold = w->roles.states ? states_hold(w) : INT64_MAX;
    w->room = w->longest + count - 1; /* the last token is not fed back */
    if (w->o->context > 0 && w->room > w->o->context)
        return diag_error(w->diag, TPC_USAGE, NULL,
                          "a context of %lld is too small: %lld tokens of the prompt and %lld to write need %lld",
                          (long long)w->o->context, (long long)w->longest, (long long)count, (long long)w->room);
    if (w->room > hold)
        return diag_error(w->diag, TPC_USAGE, NULL,
                          "the model's states hold %lld entries: %lld tokens of the prompt and %lld to write need %lld",
                          (long long)hold, (long long)w->longest, (long long)count, (long long)w->room);
    return TPC_OK;
}

/* ---- one step ------------------------------------------------------------------------------------------------------------ */

/* How many places the next step has: all that are left, but one at a time where the plan fixes that. */
static status choose_step(struct writer *w, int64_t *now)
{
    int64_t fixed = w->fixed, length = 0;
    for (size_t r = 0; r < w->o->rows; r++)
        length = w->length[r] > length ? w->length[r] : length;
    *now = length - w->past;
    if (fixed == 0 || fixed == *now)
        return TPC_OK;
    bool one_by_one = w->roles.states && fixed == 1 && w->padding == PADDING_LEFT;
    bool room_behind = !w->roles.states && fixed > *now;
    *now = fixed;
    return one_by_one || room_behind
               ? TPC_OK
               : diag_error(w->diag, TPC_UNSUPPORTED, NULL,
                            "cannot generate with this model: it takes %lld tokens at a time, not %lld",
                            (long long)fixed, (long long)(length - w->past));
}

static status know_fixed(struct writer *w)
{
    w->fixed = fixed_extent(w, w->roles.tokens, 1);
    w->batch = fixed_extent(w, w->roles.tokens, 0);
    if (w->batch == 0)
        w->batch = (int64_t)w->o->rows;
    return w->batch >= (int64_t)w->o->rows
               ? TPC_OK
               : diag_error(w->diag, TPC_UNSUPPORTED, NULL,
                            "cannot generate %zu texts at a time with this model: its batch is fixed to %lld",
                            w->o->rows, (long long)w->batch);
}

/* First logit of the row's last token; false: that token has none. */
static bool find_row(const struct writer *w, const struct tensor *logits, int64_t row, size_t *first)
{
    int64_t vocabulary = logits->shape[logits->rank - 1], places = logits->rank == 3 ? logits->shape[1] : 1;
    int64_t place = last_place(w, row);
    if (places != w->now) { /* of the last place alone */
        if (places != 1 || place != w->now - 1)
            return false;
        place = 0;
    }
    *first = (size_t)((row * places + place) * vocabulary);
    return row < logits->shape[0];
}

static bool stops(const struct generate_options *o, int64_t token)
{
    for (size_t k = 0; k < o->stop_count; k++)
        if (o->stop[k] == token)
            return true;
    return false;
}

/* Does every row that goes on have logits? */
static status check_logits(const struct writer *w, const struct tensor *logits)
{
    size_t first;
    if (logits->count == 0)
        return diag_error(w->diag, TPC_UNSUPPORTED, NULL, "cannot generate with this model: its logits are empty");
    for (size_t r = 0; r < w->o->rows; r++)
        if (!w->ended[r] && !find_row(w, logits, (int64_t)r, &first))
            return diag_error(w->diag, TPC_UNSUPPORTED, NULL,
                              "cannot generate with this model: it has no logits for the last token of prompt %zu",
                              r + 1);
    return TPC_OK;
}

/* Chooses each row's next token from the logits, where the device has not; -1 in token[] for rows that had ended. */
static status choose_tokens(struct writer *w, size_t step, int64_t *token)
{
    struct tensor logits;
    int64_t place;
    if (!engine_output_shape(w->engine, w->roles.logits, &logits))
        return diag_error(w->diag, TPC_DATA, NULL, "the logits are too large: an extent overflows");
    status s = check_logits(w, &logits);
    bool chosen = s == TPC_OK && engine_best(w->engine, (int64_t)w->o->rows - 1, &place);
    if (s == TPC_OK && !chosen)
        s = engine_output(w->engine, w->roles.logits, w->diag, &logits);
    for (size_t r = 0; r < w->o->rows && s == TPC_OK; r++) {
        size_t first = 0;
        token[r] = -1;
        if (w->ended[r] || !find_row(w, &logits, (int64_t)r, &first))
            continue;
        if (chosen)
            (void)engine_best(w->engine, (int64_t)r, &token[r]);
        else
            token[r] = sample_token(&w->o->sampling, &logits, first, (size_t)logits.shape[logits.rank - 1], r, step);
        if (token[r] < 0)
            s = diag_error(w->diag, TPC_DATA, NULL, "the logits of step %zu are no numbers: the model overflows",
                           step + 1);
    }
    return s;
}

/* A device that has the logits chooses the tokens itself. */
static void want_tokens(struct writer *w)
{
    const struct engine_lines lines = lines_of(w);
    engine_want_best(w->engine, w->roles.logits, (int64_t)w->o->rows, w->roles.tokens, &w->o->sampling, &lines);
}

/* Runs until all of the text so far is in. */
static status run_text(struct writer *w)
{
    int64_t length = 0, now = 0;
    for (size_t r = 0; r < w->o->rows; r++)
        length = w->length[r] > length ? w->length[r] : length;
    for (;;) {
        status s = choose_step(w, &now);
        w->now = now;
        if (s == TPC_OK)
            s = fill_inputs(w);
        if (s == TPC_OK)
            want_tokens(w);
        if (s == TPC_OK)
            expect_step(w);
        if (s == TPC_OK)
            s = engine_run(w->engine, w->input, w->keep, w->diag);
        w->ran = s == TPC_OK;
        if (s != TPC_OK || !w->roles.states || w->past + w->now >= length)
            return s;
        w->past += w->now;
    }
}

status writer_step(struct writer *w, size_t number, int64_t *token)
{
    w->step = number;
    status s = run_text(w);
    return s == TPC_OK ? choose_tokens(w, number, token) : s;
}

/* Appends the tokens; true: there is a row that goes on. */
static bool take_tokens(struct writer *w, struct generate_options *o, const int64_t *token, bool elsewhere)
{
    bool goes_on = false;
    for (size_t r = 0; r < o->rows; r++) {
        int64_t last = w->text[r][w->length[r] - 1];
        w->text[r][w->length[r]++] = w->ended[r] ? last : token[r];
        o->written += !w->ended[r];
        w->ended[r] = w->ended[r] || stops(o, token[r]);
        goes_on = goes_on || !w->ended[r];
    }
    if (w->roles.states && !elsewhere) /* else it is counted already */
        w->past += w->now;
    return goes_on;
}

status writer_open(struct writer *w)
{
    const struct graph *g = w->graph;
    struct generate_options own = *w->o;
    status s = w->o->first ? first_meet(w) : TPC_OK;
    w->constant = own.given = w->given ? w->given : own.given;
    if (s == TPC_OK)
        s = roles_find(w->plan, &own, w->arena, w->diag, &w->roles);
    if (s != TPC_OK)
        return s;
    w->keep = NEW_ARRAY(w->arena, bool, g->inputs.count + 1);
    w->input = NEW_ARRAY(w->arena, struct tensor, g->inputs.count + 1);
    w->of = NEW_ARRAY(w->arena, int64_t, dims_symbol_count(g->dims) + 1);
    memset(w->of, 0xff, dims_symbol_count(g->dims) * sizeof *w->of); /* -1 */
    copy_prompts(w);
    s = know_fixed(w);
    if (s == TPC_OK)
        s = choose_padding(w);
    if (s == TPC_OK)
        s = check_room(w);
    if (s == TPC_OK)
        engine_context(w->engine, w->o->context);
    return s;
}

status generate(struct engine *engine, const struct plan *plan, struct generate_options *o, struct arena *arena,
                struct diag *diag)
{
    struct writer w = {
        .engine = engine, .plan = plan, .graph = plan->program->graph, .arena = arena, .diag = diag, .o = o};
    o->written = 0;
    status s = check_options(o, diag);
    if (s == TPC_OK)
        s = writer_open(&w);
    int64_t *token = NEW_ARRAY(arena, int64_t, o->rows);
    for (size_t i = 0; i < o->count && s == TPC_OK; i++) {
        struct arena_mark mark = arena_mark(arena);
        bool elsewhere = i == 0 && o->first;
        w.goes_on = i + 1 < o->count;
        s = elsewhere ? first_run(&w, token) : writer_step(&w, i, token);
        arena_rewind(arena, mark);
        if (s != TPC_OK)
            return s;
        bool goes_on = take_tokens(&w, o, token, elsewhere);
        if ((o->step && !o->step(o->user, o->rows, token)) || !goes_on)
            break;
    }
    return s;
}
