/* runtime/generate_fill.c - shapes and elements of a model's inputs, step by step. Start with fill_inputs.
 *
 * A step has places [past, past + now) of each row, the same for all rows. Padded at the left, token t of row r stands at place pad(r) + t. Padded at the
 * right it stands at place t, and once states are kept a step has one place: of each row's last token.
 */
#include "runtime/generate_impl.h"

static const struct node *input_node(const struct writer *w, uint32_t i)
{
    return graph_node(w->graph, w->graph->inputs.at[i].value);
}

status refuse_input(const struct writer *w, uint32_t i, const char *why)
{
    return diag_error(w->diag, TPC_UNSUPPORTED, NULL, "cannot generate with this model: input '%s' %s",
                      w->graph->inputs.at[i].name, why);
}

/* ---- where tokens stand ------------------------------------------------------------------------------------------------ */

static int64_t pad(const struct writer *w, int64_t row)
{
    return w->padding == PADDING_LEFT ? w->longest - (int64_t)w->o->prompt[row].count : 0;
}

/* Which token of the row stands in column c of this step; outside of [0, length): padding. */
static int64_t token_at(const struct writer *w, int64_t row, int64_t c)
{
    if (w->padding == PADDING_RIGHT)
        return w->past == 0 ? c : w->length[row] - w->now + c;
    return w->past + c - pad(w, row);
}

int64_t last_place(const struct writer *w, int64_t row)
{
    return w->padding == PADDING_RIGHT && w->past == 0 ? w->length[row] - 1 : w->now - 1;
}

struct engine_lines lines_of(const struct writer *w)
{
    bool last = true;
    for (int64_t r = 0; r < (int64_t)w->o->rows; r++) {
        w->place[r] = last_place(w, r);
        last = last && w->place[r] == w->now - 1;
    }
    return (struct engine_lines){w->step, last ? NULL : w->place};
}

/* ---- elements ------------------------------------------------------------------------------------------------------------ */

static int64_t element(const struct writer *w, uint32_t i, int64_t row, int64_t c)
{
    int64_t t = token_at(w, row, c);
    switch (w->roles.of[i]) {
    case ROLE_TOKENS:
        return t >= 0 && t < w->length[row] ? w->text[row][t] : 0;
    case ROLE_POSITIONS:
        if (input_node(w, i)->rank == 1 || w->input[i].shape[0] == 1)
            t = w->o->rows == 1 ? t : w->past + c;
        return t > 0 ? t : 0;
    case ROLE_PAST_LENGTH:
        return w->past;
    case ROLE_TOTAL_LENGTH:
        return w->past + w->now;
    case ROLE_MASK:
    case ROLE_NONE:
    case ROLE_STATE:
    case ROLE_GIVEN:
    case ROLE_UNUSED:
        break;
    }
    return 0;
}

/* Ones in elements [from, to). */
static void fill_ones(struct tensor *t, size_t from, size_t to)
{
    size_t size = dtype_size(t->dtype);
    char *at = (char *)t->data + from * size;
    if (from >= to)
        return;
    if (dtype_is_float(t->dtype))
        dtype_store_f64(t->dtype, at, 0, 1);
    else
        dtype_store_i64(t->dtype, at, 0, 1);
    for (size_t done = 1; done < to - from; done *= 2)
        memcpy(at + done * size, at, (2 * done <= to - from ? done : to - from - done) * size);
}

/* A row of a mask, as long as all places so far, at once; the rest is 0 already. One that is shorter is of the last of them. */
static void fill_mask(const struct writer *w, uint32_t i, int64_t row, size_t first, int64_t columns)
{
    int64_t total = w->past + w->now, skipped = columns < total ? total - columns : 0;
    int64_t from = pad(w, row), to = from + w->length[row] < total ? from + w->length[row] : total;
    from = from > skipped ? from - skipped : 0;
    to = to - skipped < columns ? to - skipped : columns;
    if (w->roles.whole[i])
        fill_ones(&w->input[i], first, first + (size_t)columns);
    else if (from < to)
        fill_ones(&w->input[i], first + (size_t)from, first + (size_t)to);
}

static void fill_input(struct writer *w, uint32_t i)
{
    struct tensor *t = &w->input[i];
    int64_t columns = t->rank == 0 ? 1 : t->shape[t->rank - 1], rows = t->rank == 2 ? t->shape[0] : 1;
    for (int64_t r = 0; r < rows && w->roles.of[i] == ROLE_MASK; r++)
        fill_mask(w, i, r < (int64_t)w->o->rows ? r : 0, (size_t)(r * columns), columns);
    if (w->roles.of[i] == ROLE_MASK)
        return;
    for (int64_t r = 0; r < rows; r++)
        for (int64_t c = 0; c < columns; c++) {
            int64_t row = r < (int64_t)w->o->rows ? r : 0; /* a fixed batch has more rows than there are prompts */
            int64_t x = element(w, i, row, c);
            if (dtype_is_float(t->dtype))
                dtype_store_f64(t->dtype, t->data, (size_t)(r * columns + c), (double)x);
            else
                dtype_store_i64(t->dtype, t->data, (size_t)(r * columns + c), x);
        }
}

static void swallow(void *user, severity level, const char *line)
{
    (void)user;
    (void)level;
    (void)line;
}

/* ---- shapes -------------------------------------------------------------------------------------------------------------- */

/* d's value; `otherwise` where it has a symbol that is not known. false: overflow. */
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

int64_t fixed_extent(const struct writer *w, uint32_t input, uint32_t axis)
{
    int64_t extent = 0;
    return extent_of(w, input_node(w, input)->shape[axis], 0, &extent) ? extent : 0;
}

static void know_symbol(struct writer *w, dim d, int64_t x)
{
    struct dim_node n = dim_get(w->graph->dims, d);
    if (n.op == DIM_SYMBOL && dims_symbol(w->graph->dims, n.symbol)->kind == SYMBOL_INPUT)
        w->of[n.symbol] = x;
}

/* Does the state keep its length (what is new is written into it)? */
static bool keeps_length(const struct writer *w, const struct state *s)
{
    return input_node(w, s->input)->shape[s->axis] ==
           graph_node(w->graph, w->graph->outputs.at[s->output].value)->shape[s->axis];
}

int64_t states_hold(const struct writer *w)
{
    int64_t least = INT64_MAX, extent;
    for (uint32_t i = 0; i < w->graph->states.count; i++) {
        const struct state *s = &w->graph->states.at[i];
        if (w->roles.of[s->input] == ROLE_STATE && keeps_length(w, s) &&
            dim_is_const(w->graph->dims, input_node(w, s->input)->shape[s->axis], &extent) && extent < least)
            least = extent;
    }
    return least;
}

/* The whole extent of an axis of a state before the first step: of its placement, since its node has a rank's. */
static bool state_extent(const struct writer *w, const struct state *s, uint32_t axis, int64_t *out)
{
    const struct placement *p = w->plan->links.input ? w->plan->links.input[s->input] : NULL;
    int64_t otherwise = axis != s->axis ? w->batch : keeps_length(w, s) ? w->room : 0, extent;
    if (!p || axis == s->axis)
        return extent_of(w, input_node(w, s->input)->shape[axis], otherwise, out);
    *out = 0;
    for (uint32_t k = 0; k < p->axis[axis].count; k++) {
        const struct segment *segment = &p->axis[axis].segment[k];
        int64_t product = 1;
        for (uint32_t f = 0; f < segment->count; f++)
            if (!extent_of(w, segment->factor[f].extent, otherwise, &extent) || !i64_mul(product, extent, &product))
                return false;
        if (!i64_add(*out, product, out))
            return false;
    }
    return true;
}

static bool shape_input(const struct writer *w, uint32_t i, int64_t *shape)
{
    const struct node *n = input_node(w, i);
    const struct state *state = state_of_input(w->graph, i);
    for (uint32_t a = 0; a < n->rank; a++) {
        bool columns = a + 1 == n->rank && w->roles.of[i] <= ROLE_POSITIONS;
        bool unused = w->roles.of[i] == ROLE_UNUSED && a > 0;
        int64_t otherwise = n->rank == 2 ? w->batch : 1;
        if (columns || unused)
            otherwise = unused ? 0 : w->now + (w->roles.of[i] == ROLE_MASK ? w->past : 0);
        bool good = w->roles.of[i] == ROLE_STATE ? state_extent(w, state, a, &shape[a])
                                                 : extent_of(w, n->shape[a], otherwise, &shape[a]);
        if (!good)
            return false;
    }
    return true;
}

/* Shapes, keep and, with `fill`, elements of all inputs for the places [past, past + now). */
static status make_inputs(struct writer *w, bool fill)
{
    const struct graph *g = w->graph;
    const struct node *tokens = input_node(w, w->roles.tokens);
    memset(w->of, 0xff, dims_symbol_count(g->dims) * sizeof *w->of); /* -1 */
    for (uint32_t i = 0; i < g->inputs.count; i++)
        for (uint32_t a = 0; w->roles.of[i] == ROLE_GIVEN && a < w->constant[i].rank; a++)
            if (a < input_node(w, i)->rank)
                know_symbol(w, input_node(w, i)->shape[a], w->constant[i].shape[a]);
    know_symbol(w, tokens->shape[0], w->batch);
    know_symbol(w, tokens->shape[1], w->now);
    for (uint32_t i = 0; i < g->inputs.count; i++) {
        int64_t shape[MAX_RANK];
        bool state = w->roles.of[i] == ROLE_STATE, seeded = state && !w->ran && w->past > 0;
        w->keep[i] = state && w->ran;
        if (w->roles.of[i] == ROLE_GIVEN)
            w->input[i] = w->constant[i];
        status s = seeded ? first_state(w, i) : TPC_OK;
        if (s != TPC_OK)
            return s;
        if (w->keep[i] || seeded || w->roles.of[i] == ROLE_GIVEN)
            continue;
        if (!shape_input(w, i, shape))
            return refuse_input(w, i, "has an extent that overflows");
        const struct node *n = input_node(w, i);
        if (!(fill ? tensor_new(w->arena, &w->input[i], n->dtype, n->rank, shape)
                   : tensor_shape(&w->input[i], n->dtype, n->rank, shape)))
            return refuse_input(w, i, "is too large");
        if (fill && !state && w->roles.of[i] != ROLE_UNUSED)
            fill_input(w, i);
    }
    return TPC_OK;
}

status fill_inputs(struct writer *w)
{
    return make_inputs(w, true);
}

void expect_step(const struct writer *w)
{
    const struct graph *g = w->graph;
    struct writer next = *w;
    struct diag quiet = {.sink = swallow};
    int64_t length = 0; /* of the longest row then */
    bool begin = w->goes_on && w->roles.states && w->batch == (int64_t)w->o->rows;
    next.length = NEW_ARRAY(w->arena, int64_t, w->o->rows);
    for (size_t r = 0; r < w->o->rows; r++) {
        next.length[r] = w->length[r] + 1;
        length = next.length[r] > length ? next.length[r] : length;
        begin = begin && !w->ended[r];
    }
    next.diag = &quiet;
    next.past = w->roles.states ? w->past + w->now : 0;
    next.now = w->fixed ? w->fixed : length - next.past;
    next.ran = true;
    next.keep = NEW_ARRAY(w->arena, bool, g->inputs.count + 1);
    next.input = NEW_ARRAY(w->arena, struct tensor, g->inputs.count + 1);
    next.of = NEW_ARRAY(w->arena, int64_t, dims_symbol_count(g->dims) + 1);
    begin = begin && next.now == 1 && next.past + next.now == length; /* it takes the tokens of this one */
    next.step += w->past + w->now + 1 >= length;                      /* else a part of the text follows */
    const struct engine_lines lines = lines_of(&next);
    if (next.now > 0 && make_inputs(&next, begin) == TPC_OK)
        engine_expect(w->engine, next.input, next.keep, begin, &lines);
}
