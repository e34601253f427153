/* frontend/onnx/lower_loop.c - Loop and Scan, unrolled: their trip count is decided by shapes and constants, or they are refused.
 *
 * Each step runs the body in a scope of its own, inside one that holds the body's initializers, so that a weight of the body is one weight.
 * Start reading at lower_loop.
 */
#include "frontend/onnx/compose.h"

enum { UNROLLED_CALLS = 1 << 18 };

/* ---- bodies ------------------------------------------------------------------------------------------------- */

struct body body_open(struct call *c, const char *name, uint32_t inputs, uint32_t outputs)
{
    struct importer *im = c->im;
    const Onnx__AttributeProto *a = attribute(c, name);
    struct body b = {.graph = a ? a->g : NULL};
    if (!b.graph)
        call_fail(c, "has no %s", name);
    if (b.graph->n_input != inputs || b.graph->n_output != outputs)
        call_fail(c, "its %s takes %zu and gives %zu values, %u and %u are expected", name, b.graph->n_input,
                  b.graph->n_output, inputs, outputs);
    if (c->frame->depth >= 32)
        call_fail(c, "functions and subgraphs nest too deeply");
    b.constants = NEW(im->scratch, struct scope);
    b.constants->names.arena = im->scratch;
    b.constants->outer = c->frame->scope;
    const char *own = c->proto->name && *c->proto->name ? c->proto->name : c->proto->op_type;
    b.prefix = arena_printf(im->scratch, "%s%s/", c->frame->prefix, own);
    status s = scope_tensors(im, b.constants, b.graph);
    if (s != TPC_OK)
        call_leave(c, s);
    return b;
}

void body_run(struct call *c, const struct body *b, const uint32_t *in, uint32_t *out)
{
    struct importer *im = c->im;
    const Onnx__GraphProto *g = b->graph;
    struct frame frame = *c->frame;
    const char **goal = NEW_ARRAY(im->scratch, const char *, g->n_output + 1);
    status s = TPC_OK;
    if (im->calls > UNROLLED_CALLS)
        call_unsupported(c, "more than %d nodes once loops are unrolled", UNROLLED_CALLS);
    frame.scope = NEW(im->scratch, struct scope);
    frame.scope->names.arena = im->scratch;
    frame.scope->outer = b->constants;
    frame.depth++;
    frame.index = c->index;
    frame.prefix = b->prefix;
    for (size_t i = 0; i < g->n_input && s == TPC_OK; i++)
        s = scope_define(im, frame.scope, g->input[i]->name ? g->input[i]->name : "", in[i]);
    for (size_t i = 0; i < g->n_output; i++)
        goal[i] = g->output[i]->name ? g->output[i]->name : "";
    if (s == TPC_OK)
        s = scope_nodes(im, &frame, g->n_node, g->node, g->n_output, goal);
    if (s != TPC_OK)
        call_leave(c, s);
    graph_set_origin(c->g, c->origin);
    for (size_t i = 0; i < g->n_output; i++) {
        out[i] = scope_find(frame.scope, goal[i]);
        if (!out[i] || out[i] == ABSENT)
            call_fail(c, "its body does not compute output %zu", i);
        struct datum *d = im->data.at[out[i]];
        if (d->pending) { /* an initializer as it is */
            struct stored *t = NEW(im->scratch, struct stored);
            s = stored_read(im, c->where, d->pending, t);
            if (s != TPC_OK)
                call_leave(c, s);
            d->pending = NULL;
            datum_from_stored(im, d, t, true);
        }
        datum_sync(im, d);
        if (d->poison)
            call_leave(c, TPC_UNSUPPORTED);
    }
}

uint32_t body_value(struct call *c, value v)
{
    uint32_t index = 0;
    struct datum *d = datum_add(c->im, &index);
    d->node = v;
    d->dtype = call_type(c, v);
    d->rank = call_rank(c, v);
    d->shape = call_shape(c, v);
    d->origin = c->origin;
    return index;
}

static uint32_t body_integer(struct call *c, dtype type, int64_t x)
{
    uint32_t index = 0;
    struct datum *d = datum_add(c->im, &index);
    d->dtype = type;
    d->content = content_uniform(&c->im->s, 0, NULL, formula_int(&c->im->s, x));
    d->origin = c->origin;
    return index;
}

/* ---- Loop --------------------------------------------------------------------------------------------------- */

/* Is the datum known, as one integer? */
static bool decided(struct call *c, uint32_t index, int64_t *out)
{
    struct datum *d = c->im->data.at[index];
    datum_sync(c->im, d);
    return d->content && d->content->count == 1 && formula_integer(&c->im->s, d->content->at[0], out);
}

static void stack_outputs(struct call *c, uint32_t first, uint32_t count, uint32_t steps, const uint32_t *collected)
{
    value *part = NEW_ARRAY(c->im->scratch, value, steps + 1);
    for (uint32_t k = 0; k < count; k++) {
        if (!call_wants(c, first + k))
            continue;
        if (steps == 0)
            call_unsupported(c, "a loop without steps that collects values");
        for (uint32_t i = 0; i < steps; i++)
            part[i] = datum_use(c->im, collected[(size_t)i * count + k]);
        graph_set_origin(c->g, c->origin);
        call_set(c, first + k, compose_stack(c, steps, part, 0));
    }
}

/* inputs: trip count, condition, carried..; body: step, condition, carried.. -> condition, carried.., collected.. */
void lower_loop(struct call *c)
{
    uint32_t carried = c->in_count > 2 ? c->in_count - 2 : 0;
    const Onnx__AttributeProto *a = attribute(c, "body");
    size_t gives = a && a->g ? a->g->n_output : 0;
    uint32_t collected = gives > carried + 1 ? (uint32_t)gives - carried - 1 : 0, steps = 0;
    struct body b = body_open(c, "body", carried + 2, 1 + carried + collected);
    int64_t trips = INT64_MAX, going = 1;
    if (call_has(c, 0) && !decided(c, c->in[0], &trips))
        call_unsupported(c, "its trip count is not decided by shapes and constants (--bind INPUT=VALUE or --set "
                            "SYMBOL=N may decide it)");
    if (call_has(c, 1) && !decided(c, c->in[1], &going))
        call_unsupported(c, "its condition is not decided by shapes and constants");
    uint32_t *in = NEW_ARRAY(c->im->scratch, uint32_t, carried + 2),
             *out = NEW_ARRAY(c->im->scratch, uint32_t, gives + 1);
    LIST(uint32_t) all = {NULL, 0, 0};
    for (uint32_t k = 0; k < carried; k++) {
        call_in(c, k + 2);
        in[k + 2] = c->in[k + 2];
    }
    for (; steps < trips && going; steps++) {
        if (steps >= COMPOSE_STEPS)
            call_unsupported(c, "more than %d steps", COMPOSE_STEPS);
        in[0] = body_integer(c, DT_I64, steps);
        in[1] = body_integer(c, DT_BOOL, 1);
        body_run(c, &b, in, out);
        for (uint32_t k = 0; k < carried; k++)
            in[k + 2] = out[k + 1];
        for (uint32_t k = 0; k < collected; k++)
            *PUSH(c->im->scratch, &all) = out[1 + carried + k];
        if (call_has(c, 1) && !decided(c, out[0], &going))
            call_unsupported(c, "its condition after step %u depends on the numbers of an input", steps);
    }
    for (uint32_t k = 0; k < carried; k++)
        if (call_wants(c, k))
            c->out[k] = in[k + 2];
    stack_outputs(c, carried, collected, steps, all.at);
}

/* ---- Scan --------------------------------------------------------------------------------------------------- */

struct scan {
    struct body body;
    uint32_t states, scanned, collected, steps;
    int64_t in_axis[MAX_RANK], in_reversed[MAX_RANK], out_axis[MAX_RANK], out_reversed[MAX_RANK];
};

static void read_numbers(struct call *c, const char *name, uint32_t wanted, int64_t *out)
{
    uint32_t count = 0;
    const int64_t *x = attribute_ints(c, name, &count);
    if (x && count != wanted)
        call_fail(c, "%s has %u numbers, %u are expected", name, count, wanted);
    for (uint32_t i = 0; i < wanted; i++)
        out[i] = x ? x[i] : 0;
}

static void read_scan(struct call *c, uint32_t given, struct scan *s)
{
    int64_t scanned = attribute_int(c, "num_scan_inputs", 0);
    const Onnx__AttributeProto *a = attribute(c, "body");
    size_t gives = a && a->g ? a->g->n_output : 0;
    if (scanned < 1 || scanned > given)
        call_fail(c, "num_scan_inputs is %lld of %u inputs", (long long)scanned, given);
    s->scanned = (uint32_t)scanned;
    s->states = given - s->scanned;
    s->collected = gives > s->states ? (uint32_t)gives - s->states : 0;
    if (s->scanned > MAX_RANK || s->collected > MAX_RANK)
        call_unsupported(c, "more than %d scanned values", MAX_RANK);
    s->body = body_open(c, "body", given, s->states + s->collected);
    read_numbers(c, c->version < 9 ? "directions" : "scan_input_directions", s->scanned, s->in_reversed);
    read_numbers(c, "scan_input_axes", s->scanned, s->in_axis);
    read_numbers(c, "scan_output_directions", s->collected, s->out_reversed);
    read_numbers(c, "scan_output_axes", s->collected, s->out_axis);
}

/* `in`: data of states, then the scanned values; states are replaced by those after the last step. parts: [collected][steps] */
static void scan_steps(struct call *c, const struct scan *s, uint32_t *in, const value *scanned, value *parts)
{
    uint32_t *out = NEW_ARRAY(c->im->scratch, uint32_t, s->states + s->collected + 1);
    for (uint32_t t = 0; t < s->steps; t++) {
        for (uint32_t k = 0; k < s->scanned; k++) {
            uint32_t axis = call_axis(c, s->in_axis[k], call_rank(c, scanned[k]));
            in[s->states + k] =
                body_value(c, compose_at(c, scanned[k], axis, s->in_reversed[k] ? s->steps - 1 - t : t));
        }
        body_run(c, &s->body, in, out);
        memcpy(in, out, s->states * sizeof *in);
        for (uint32_t k = 0; k < s->collected; k++)
            parts[k * s->steps + (s->out_reversed[k] ? s->steps - 1 - t : t)] = datum_use(c->im, out[s->states + k]);
        graph_set_origin(c->g, c->origin);
    }
}

static uint32_t scan_length(struct call *c, const struct scan *s, const value *scanned)
{
    dim length = DIM_NONE;
    for (uint32_t k = 0; k < s->scanned; k++) {
        uint32_t axis = call_axis(c, s->in_axis[k], call_rank(c, scanned[k]));
        dim own = call_shape(c, scanned[k])[axis];
        length = k == 0 ? own : call_agree(c, length, own, "lengths of scanned values");
    }
    return compose_steps(c, length, "scanned axis");
}

void lower_scan(struct call *c)
{
    struct scan s;
    read_scan(c, c->in_count, &s);
    uint32_t *in = NEW_ARRAY(c->im->scratch, uint32_t, c->in_count + 1);
    value *scanned = NEW_ARRAY(c->im->scratch, value, s.scanned);
    for (uint32_t k = 0; k < c->in_count; k++) {
        call_in(c, k);
        in[k] = c->in[k];
    }
    for (uint32_t k = 0; k < s.scanned; k++)
        scanned[k] = call_use(c, s.states + k);
    s.steps = scan_length(c, &s, scanned);
    if (s.steps == 0 && s.collected > 0)
        call_unsupported(c, "a scan without steps");
    value *parts = NEW_ARRAY(c->im->scratch, value, (size_t)s.collected * s.steps + 1);
    scan_steps(c, &s, in, scanned, parts);
    for (uint32_t k = 0; k < s.states; k++)
        if (call_wants(c, k))
            c->out[k] = in[k];
    for (uint32_t k = 0; k < s.collected; k++) {
        uint32_t rank = call_rank(c, parts[k * s.steps]) + 1;
        call_set(c, s.states + k, compose_stack(c, s.steps, parts + k * s.steps, call_axis(c, s.out_axis[k], rank)));
    }
}

/* Operator set 8: one scan per row of a batch, all values [batch, ..], scanned ones [batch, steps, ..]; rows may be shorter. */
void lower_scan8(struct call *c)
{
    struct scan s;
    uint32_t lengths = 0;
    const int64_t *length = call_has(c, 0) ? call_ints(c, 0, &lengths) : NULL;
    read_scan(c, c->in_count > 0 ? c->in_count - 1 : 0, &s);
    uint32_t given = c->in_count - 1, results = s.states + s.collected;
    uint32_t *in = NEW_ARRAY(c->im->scratch, uint32_t, given + 1);
    value *scanned = NEW_ARRAY(c->im->scratch, value, s.scanned);
    if (call_in(c, 1)->rank == 0)
        call_fail(c, "its values have no batch axis");
    uint32_t batch = compose_steps(c, call_in(c, 1)->shape[0], "batch of a scan");
    value *rows = NEW_ARRAY(c->im->scratch, value, (size_t)results * batch + 1);
    if (batch == 0 || (length && lengths != batch))
        call_fail(c, "%u lengths for a batch of %u", lengths, batch);
    for (uint32_t r = 0; r < batch; r++) {
        for (uint32_t k = 0; k < given; k++) {
            value row = compose_at(c, call_use(c, k + 1), 0, r);
            if (k < s.states)
                in[k] = body_value(c, row);
            else
                scanned[k - s.states] = row;
        }
        uint32_t most = scan_length(c, &s, scanned);
        s.steps = length && length[r] >= 0 && length[r] < most ? (uint32_t)length[r] : most;
        if (s.steps == 0)
            call_unsupported(c, "a scan without steps");
        for (uint32_t k = 0; k < s.scanned; k++)
            scanned[k] = compose_part(c, scanned[k], 0, 0, s.steps);
        value *parts = NEW_ARRAY(c->im->scratch, value, (size_t)s.collected * s.steps + 1);
        scan_steps(c, &s, in, scanned, parts);
        for (uint32_t k = 0; k < s.states; k++)
            rows[k * batch + r] = datum_use(c->im, in[k]);
        graph_set_origin(c->g, c->origin);
        for (uint32_t k = 0; k < s.collected; k++) {
            value v = compose_stack(c, s.steps, parts + k * s.steps, 0);
            dim before[MAX_RANK], shape[MAX_RANK];
            dims_copy(shape, call_shape(c, v), call_rank(c, v));
            for (uint32_t i = 0; i < call_rank(c, v); i++)
                before[i] = call_const(c, 0);
            shape[0] = call_const(c, most);
            bool whole = s.steps == most;
            rows[(s.states + k) * batch + r] =
                whole ? v : graph_pad(c->g, v, build_real(c, call_type(c, v), 0), before, shape);
        }
    }
    for (uint32_t k = 0; k < results; k++)
        call_set(c, k, compose_stack(c, batch, rows + k * batch, 0));
}
