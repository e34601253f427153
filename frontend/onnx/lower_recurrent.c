/* frontend/onnx/lower_recurrent.c - RNN, GRU and LSTM, unrolled over a sequence of constant length.
 *
 * The products with the inputs are one dot for all steps; each step adds the product with the last hidden state. Rows that are shorter than the
 * sequence keep their state and give zeros from there on; in reverse they are turned around by their own length. Start at lower_recurrent.
 */
#include <strings.h>

#include "frontend/onnx/compose.h"

enum recurrent_kind { RECURRENT_RNN, RECURRENT_GRU, RECURRENT_LSTM };
enum { MOST_FUNCTIONS = 3 };

struct function {
    const char *name;
    double alpha, beta;
};
struct cell {
    enum recurrent_kind kind;
    uint32_t gates, steps;
    int64_t hidden;
    double clip; /* 0: none */
    bool linear_before_reset, coupled;
    dim batch;
    value lengths; /* [batch] as i64, or 0 */
    struct function function[MOST_FUNCTIONS];
};
struct track {  /* one direction */
    value x;    /* [steps, batch, gates * hidden]: inputs' products, biases added as far as they can be */
    value r;    /* [gates * hidden, hidden] */
    value late; /* [hidden]: the bias that GRU's reset gate scales, or 0 */
    value peep; /* [3 * hidden], or 0 */
    value h, c; /* [batch, hidden] */
};

/* ---- activation functions ----------------------------------------------------------------------------------- */

struct known_function {
    const char *name;
    int numbers; /* that it takes: alpha, beta */
    double alpha, beta;
};
static const struct known_function known_functions[] = {
    {"Relu", 0, 0, 0},       {"Tanh", 0, 0, 0},   {"Sigmoid", 0, 0, 0},         {"Softsign", 0, 0, 0},
    {"Softplus", 0, 0, 0},   {"Affine", 2, 1, 0}, {"LeakyRelu", 1, 0.01, 0},    {"ThresholdedRelu", 1, 1, 0},
    {"ScaledTanh", 2, 1, 1}, {"Elu", 1, 1, 0},    {"HardSigmoid", 2, 0.2, 0.5},
};
enum { KNOWN_FUNCTIONS = sizeof known_functions / sizeof *known_functions };

static bool same_name(const char *name, const char *data, size_t length)
{
    return strlen(name) == length && strncasecmp(name, data, length) == 0;
}

/* The functions of all directions; numbers are taken in order by those that need them. */
static void read_functions(struct call *c, const struct cell *cell, uint32_t directions, struct function *out)
{
    static const char *const standard[][MOST_FUNCTIONS] = {{"Tanh"}, {"Sigmoid", "Tanh"}, {"Sigmoid", "Tanh", "Tanh"}};
    const Onnx__AttributeProto *names = attribute(c, "activations");
    uint32_t per = cell->kind == RECURRENT_RNN ? 1 : cell->kind == RECURRENT_GRU ? 2 : 3, alphas = 0, betas = 0;
    const float *alpha = attribute_reals(c, "activation_alpha", &alphas),
                *beta = attribute_reals(c, "activation_beta", &betas);
    uint32_t next_alpha = 0, next_beta = 0;
    bool given = names && names->n_strings > 0;
    if (given && names->n_strings != (size_t)per * directions)
        call_fail(c, "%zu activations, %u are expected", names->n_strings, per * directions);
    for (uint32_t i = 0; i < per * directions; i++) {
        const char *name = standard[cell->kind][i % per];
        const struct known_function *f = NULL;
        const char *data = given ? (const char *)names->strings[i].data : name;
        size_t length = given ? names->strings[i].len : strlen(name);
        for (int k = 0; k < KNOWN_FUNCTIONS; k++)
            if (same_name(known_functions[k].name, data, length))
                f = &known_functions[k];
        if (!f)
            call_unsupported(c, "the activation function '%.*s'", (int)(length > 100 ? 100 : length), data);
        struct function *o = &out[i / per * MOST_FUNCTIONS + i % per];
        *o = (struct function){f->name, f->alpha, f->beta};
        if (f->numbers > 0 && next_alpha < alphas)
            o->alpha = (double)alpha[next_alpha++];
        if (f->numbers > 1 && next_beta < betas)
            o->beta = (double)beta[next_beta++];
    }
}

static value elu(struct call *c, value x, double alpha)
{
    value zero = build_real(c, call_type(c, x), 0);
    value below = build_with(c, OP_MUL, graph_unary(c->g, OP_EXPM1, x), alpha);
    return build_choose(c, build_both(c, OP_LT, x, zero), below, x);
}

static value activate(struct call *c, const struct cell *cell, int which, value x)
{
    const struct function *f = &cell->function[which];
    if (cell->clip > 0)
        x = compose_clamp(c, x, -cell->clip, cell->clip);
    if (strcmp(f->name, "Sigmoid") == 0)
        return compose_sigmoid(c, x);
    if (strcmp(f->name, "Tanh") == 0)
        return graph_unary(c->g, OP_TANH, x);
    if (strcmp(f->name, "Relu") == 0)
        return build_with(c, OP_MAX, x, 0);
    if (strcmp(f->name, "Softsign") == 0)
        return build_both(c, OP_DIV, x, build_with(c, OP_ADD, graph_unary(c->g, OP_ABS, x), 1));
    if (strcmp(f->name, "Softplus") == 0) { /* max(x, 0) + log1p(exp(-|x|)) */
        value e = graph_unary(c->g, OP_EXP, graph_unary(c->g, OP_NEG, graph_unary(c->g, OP_ABS, x)));
        return build_both(c, OP_ADD, build_with(c, OP_MAX, x, 0), graph_unary(c->g, OP_LOG1P, e));
    }
    if (strcmp(f->name, "Affine") == 0)
        return build_with(c, OP_ADD, build_with(c, OP_MUL, x, f->alpha), f->beta);
    if (strcmp(f->name, "HardSigmoid") == 0)
        return compose_clamp(c, build_with(c, OP_ADD, build_with(c, OP_MUL, x, f->alpha), f->beta), 0, 1);
    if (strcmp(f->name, "ScaledTanh") == 0)
        return build_with(c, OP_MUL, graph_unary(c->g, OP_TANH, build_with(c, OP_MUL, x, f->beta)), f->alpha);
    if (strcmp(f->name, "Elu") == 0)
        return elu(c, x, f->alpha);
    bool leaky = strcmp(f->name, "LeakyRelu") == 0;
    value edge = build_real(c, call_type(c, x), leaky ? 0 : f->alpha);
    value low = leaky ? build_with(c, OP_MUL, x, f->alpha) : build_real(c, call_type(c, x), 0);
    return leaky ? build_choose(c, build_both(c, OP_LT, x, edge), low, x)
                 : build_choose(c, build_both(c, OP_LT, edge, x), x, low);
}

/* ---- cells -------------------------------------------------------------------------------------------------- */

/* Gate i of the last axis. */
static value gate(struct call *c, const struct cell *cell, value x, uint32_t i)
{
    return compose_part(c, x, call_rank(c, x) - 1, (int64_t)i * cell->hidden, cell->hidden);
}

static value hidden_product(struct call *c, value h, value r)
{
    return graph_dot(c->g, h, r, 0, 1);
}

static void step_rnn(struct call *c, const struct cell *cell, struct track *k, value x)
{
    k->h = activate(c, cell, 0, build_both(c, OP_ADD, x, hidden_product(c, k->h, k->r)));
}

/* gates z, r, h */
static void step_gru(struct call *c, const struct cell *cell, struct track *k, value x)
{
    value first = compose_part(c, k->r, 0, 0, 2 * cell->hidden),
          last = compose_part(c, k->r, 0, 2 * cell->hidden, cell->hidden);
    value both = build_both(c, OP_ADD, compose_part(c, x, 1, 0, 2 * cell->hidden), hidden_product(c, k->h, first));
    value z = activate(c, cell, 0, gate(c, cell, both, 0)), r = activate(c, cell, 0, gate(c, cell, both, 1)), inner;
    if (cell->linear_before_reset) {
        inner = hidden_product(c, k->h, last);
        inner = k->late ? build_both(c, OP_ADD, inner, k->late) : inner;
        inner = build_both(c, OP_MUL, r, inner);
    } else {
        inner = hidden_product(c, build_both(c, OP_MUL, r, k->h), last);
    }
    value h = activate(c, cell, 1, build_both(c, OP_ADD, gate(c, cell, x, 2), inner));
    value one = build_real(c, call_type(c, z), 1);
    value fresh = build_both(c, OP_MUL, build_both(c, OP_SUB, one, z), h);
    k->h = build_both(c, OP_ADD, fresh, build_both(c, OP_MUL, z, k->h));
}

static value with_peephole(struct call *c, const struct cell *cell, const struct track *k, value x, uint32_t i,
                           value state)
{
    if (!k->peep)
        return x;
    return build_both(c, OP_ADD, x, build_both(c, OP_MUL, state, gate(c, cell, k->peep, i)));
}

/* gates i, o, f, c; peepholes i, o, f */
static void step_lstm(struct call *c, const struct cell *cell, struct track *k, value x)
{
    value all = build_both(c, OP_ADD, x, hidden_product(c, k->h, k->r));
    value i = activate(c, cell, 0, with_peephole(c, cell, k, gate(c, cell, all, 0), 0, k->c)), f;
    if (cell->coupled)
        f = build_both(c, OP_SUB, build_real(c, call_type(c, i), 1), i);
    else
        f = activate(c, cell, 0, with_peephole(c, cell, k, gate(c, cell, all, 2), 2, k->c));
    value new_part = build_both(c, OP_MUL, i, activate(c, cell, 1, gate(c, cell, all, 3)));
    k->c = build_both(c, OP_ADD, build_both(c, OP_MUL, f, k->c), new_part);
    value o = activate(c, cell, 0, with_peephole(c, cell, k, gate(c, cell, all, 1), 1, k->c));
    k->h = build_both(c, OP_MUL, o, activate(c, cell, 2, k->c));
}

/* ---- sequences ---------------------------------------------------------------------------------------------- */

/* x [steps, batch, ..] backwards, each row by its own length */
static value turn_around(struct call *c, const struct cell *cell, value x)
{
    const int32_t first = 0;
    if (!cell->lengths)
        return graph_reverse(c->g, x, 1, &first);
    dim plane[2] = {cell->batch, call_const(c, cell->steps)};
    value place = graph_iota(c->g, DT_I64, 2, plane, 1), length = build_unsqueeze(c, cell->lengths, 1);
    value mirrored = build_both(c, OP_SUB, build_with(c, OP_SUB, length, 1), place);
    value source = build_choose(c, build_both(c, OP_LT, place, length), mirrored, place);
    value rows = graph_gather(c->g, build_move_axis(c, x, 1, 0), source, 1, 1);
    return build_move_axis(c, rows, 1, 0);
}

/* All steps of one direction: returns [steps, batch, hidden], leaves the last states in k. */
static value run_track(struct call *c, const struct cell *cell, struct track *k, bool reversed)
{
    value *out = NEW_ARRAY(c->im->scratch, value, cell->steps + 1), x = reversed ? turn_around(c, cell, k->x) : k->x;
    for (uint32_t t = 0; t < cell->steps; t++) {
        value step = compose_at(c, x, 0, t), h = k->h, state = k->c;
        if (cell->kind == RECURRENT_RNN)
            step_rnn(c, cell, k, step);
        else if (cell->kind == RECURRENT_GRU)
            step_gru(c, cell, k, step);
        else
            step_lstm(c, cell, k, step);
        out[t] = k->h;
        if (!cell->lengths)
            continue;
        value runs = build_unsqueeze(c, build_both(c, OP_LT, build_real(c, DT_I64, t), cell->lengths), 1);
        k->h = build_choose(c, runs, k->h, h);
        k->c = state ? build_choose(c, runs, k->c, state) : 0;
        out[t] = build_choose(c, runs, out[t], build_real(c, call_type(c, h), 0));
    }
    value y = compose_stack(c, cell->steps, out, 0);
    return reversed ? turn_around(c, cell, y) : y;
}

/* Row d of an optional input [directions, n], 0 where it is absent. */
static value row_of(struct call *c, uint32_t input, uint32_t d, uint32_t directions, int64_t n)
{
    if (!call_has(c, input))
        return 0;
    value v = call_use(c, input);
    if (call_rank(c, v) != 2)
        call_fail(c, "input %u has %u axes, two are expected", input, call_rank(c, v));
    call_agree(c, call_shape(c, v)[0], call_const(c, directions), "directions");
    call_agree(c, call_shape(c, v)[1], call_const(c, n), "biases or peepholes");
    return compose_at(c, v, 0, d);
}

static value initial(struct call *c, const struct cell *cell, uint32_t input, uint32_t d, bool batch_first, dtype type)
{
    dim shape[2] = {cell->batch, call_const(c, cell->hidden)};
    if (!call_has(c, input))
        return build_full(c, type, 0, 2, shape);
    value v = call_use(c, input);
    if (call_rank(c, v) != 3)
        call_fail(c, "an initial state has %u axes, three are expected", call_rank(c, v));
    return build_expand(c, compose_at(c, v, batch_first ? 1 : 0, d), 2, shape);
}

static struct track read_track(struct call *c, const struct cell *cell, value x, uint32_t d, uint32_t directions,
                               bool batch_first)
{
    struct track k = {.late = 0};
    int64_t wide = (int64_t)cell->gates * cell->hidden;
    dtype type = call_type(c, x);
    k.x = graph_dot(c->g, x, compose_at(c, call_use(c, 1), 0, d), 0, 1);
    k.r = compose_at(c, call_use(c, 2), 0, d);
    value bias = row_of(c, 3, d, directions, 2 * wide);
    if (bias) {
        value own = compose_part(c, bias, 0, 0, wide), hidden = compose_part(c, bias, 0, wide, wide);
        if (cell->kind == RECURRENT_GRU && cell->linear_before_reset) {
            k.late = compose_part(c, hidden, 0, 2 * cell->hidden, cell->hidden);
            value part[2] = {compose_part(c, hidden, 0, 0, 2 * cell->hidden), 0};
            dim shape[1] = {call_const(c, cell->hidden)};
            part[1] = build_full(c, type, 0, 1, shape);
            hidden = graph_concat(c->g, 2, part, 0);
        }
        k.x = build_both(c, OP_ADD, k.x, build_both(c, OP_ADD, own, hidden));
    }
    k.h = initial(c, cell, 5, d, batch_first, type);
    if (cell->kind == RECURRENT_LSTM) {
        k.c = initial(c, cell, 6, d, batch_first, type);
        k.peep = row_of(c, 7, d, directions, 3 * cell->hidden);
    }
    return k;
}

static struct cell read_cell(struct call *c, value x, uint32_t *directions)
{
    struct cell cell = {.kind = (enum recurrent_kind)c->argument};
    value w = call_use(c, 1), r = call_use(c, 2);
    const char *direction = attribute_text(c, "direction", "forward");
    *directions = strcmp(direction, "bidirectional") == 0 ? 2 : 1;
    if (call_rank(c, x) != 3 || call_rank(c, w) != 3 || call_rank(c, r) != 3)
        call_fail(c, "needs three axes in X, W and R");
    cell.gates = cell.kind == RECURRENT_RNN ? 1 : cell.kind == RECURRENT_GRU ? 3 : 4;
    cell.hidden = compose_extent(c, call_shape(c, r)[2], "hidden size");
    if (cell.hidden < 1 || cell.hidden > INT32_MAX)
        call_fail(c, "a hidden size of %lld", (long long)cell.hidden);
    cell.steps = compose_steps(c, call_shape(c, x)[0], "sequence of a recurrence");
    if (cell.steps == 0)
        call_unsupported(c, "an empty sequence");
    cell.batch = call_shape(c, x)[1];
    cell.clip = attribute_real(c, "clip", 0);
    cell.linear_before_reset = attribute_int(c, "linear_before_reset", 0) != 0;
    cell.coupled = attribute_int(c, "input_forget", 0) != 0;
    call_agree(c, call_shape(c, w)[0], call_const(c, *directions), "directions");
    call_agree(c, call_shape(c, r)[0], call_const(c, *directions), "directions");
    call_agree(c, call_shape(c, w)[1], call_const(c, cell.gates * cell.hidden), "gates and hidden size");
    call_agree(c, call_shape(c, r)[1], call_const(c, cell.gates * cell.hidden), "gates and hidden size");
    call_agree(c, call_shape(c, w)[2], call_shape(c, x)[2], "input sizes");
    if (call_has(c, 4))
        cell.lengths = call_use_as(c, 4, DT_I64);
    return cell;
}

/* argument: the kind. X, W, R, B, sequence_lens, initial_h, initial_c, P -> Y, Y_h, Y_c */
void lower_recurrent(struct call *c)
{
    struct function functions[2 * MOST_FUNCTIONS] = {{NULL, 0, 0}};
    bool batch_first = attribute_int(c, "layout", 0) != 0;
    uint32_t directions = 1;
    value x = call_use(c, 0), y[2] = {0, 0}, h[2] = {0, 0}, state[2] = {0, 0};
    const char *direction = attribute_text(c, "direction", "forward");
    bool reverse = strcmp(direction, "reverse") == 0;
    if (!reverse && strcmp(direction, "forward") != 0 && strcmp(direction, "bidirectional") != 0)
        call_fail(c, "direction is '%s'", direction);
    if (batch_first && call_rank(c, x) == 3)
        x = build_move_axis(c, x, 1, 0);
    struct cell cell = read_cell(c, x, &directions);
    read_functions(c, &cell, directions, functions);
    for (uint32_t d = 0; d < directions; d++) {
        memcpy(cell.function, functions + (size_t)d * MOST_FUNCTIONS, sizeof cell.function);
        struct track k = read_track(c, &cell, x, d, directions, batch_first);
        y[d] = run_track(c, &cell, &k, reverse || d == 1);
        h[d] = k.h;
        state[d] = k.c;
    }
    value all = compose_stack(c, directions, y, 1); /* [steps, directions, batch, hidden] */
    const int32_t order[] = {2, 0, 1, 3};
    call_set(c, 0, batch_first ? graph_transpose(c->g, all, order) : all);
    call_set(c, 1, compose_stack(c, directions, h, batch_first ? 1 : 0));
    if (cell.kind == RECURRENT_LSTM)
        call_set(c, 2, compose_stack(c, directions, state, batch_first ? 1 : 0));
}
