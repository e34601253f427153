/* runtime/generate_first.c - one plan runs the prompt, another one goes on: a decoder without past and one with past. Start with first_run.
 *
 * What the first hands out as `present…` the other takes as `past_key_values…` or `past…`, of the same name otherwise: its states begin with that, and what is
 * no state of its own (an encoder's keys and values) stays. Both run in this process. States that lie alike in both (tpc compile --state-from) stay on their ranks; others pass whole, once.
 */
#include "runtime/generate_impl.h"

/* Is `present` the name of what goes out where `past` goes in? */
static bool names_meet(const char *past, const char *present)
{
    static const char *const ways[] = {"past_key_values", "past"};
    const char *out = strstr(present, "present");
    for (size_t i = 0; out && i < sizeof ways / sizeof *ways; i++) {
        const char *in = strstr(past, ways[i]);
        if (in && in - past == out - present && memcmp(past, present, (size_t)(in - past)) == 0 &&
            strcmp(in + strlen(ways[i]), out + strlen("present")) == 0)
            return true;
    }
    return false;
}

bool states_meet(const struct graph *g, uint32_t input, const struct graph *from, uint32_t output)
{
    const char *past = g->inputs.at[input].name, *present = from->outputs.at[output].name;
    for (uint32_t i = 0; i < from->states.count; i++)
        if (from->states.at[i].output == output && strcmp(from->inputs.at[from->states.at[i].input].name, past) == 0)
            return true;
    return names_meet(past, present);
}

status first_meet(struct writer *w)
{
    const struct graph *g = w->graph, *from = w->o->first->plan->program->graph;
    uint32_t states = 0;
    w->met = NEW_ARRAY(w->arena, uint32_t, g->inputs.count + 1);
    w->given = NEW_ARRAY(w->arena, struct tensor, g->inputs.count + 1);
    w->seed = NEW_ARRAY(w->arena, struct tensor, g->inputs.count + 1);
    for (uint32_t i = 0; i < g->inputs.count; i++) {
        const struct node *n = graph_node(g, g->inputs.at[i].value);
        if (w->o->given)
            w->given[i] = w->o->given[i];
        for (uint32_t k = 0; k < from->outputs.count && w->given[i].dtype == DT_NONE && !w->met[i]; k++)
            if (states_meet(g, i, from, k) && graph_node(from, from->outputs.at[k].value)->dtype == n->dtype)
                w->met[i] = k + 1;
        bool state = state_of_input(g, i) != NULL;
        states += state && w->met[i];
        if (state && !w->met[i])
            return refuse_input(w, i, "is a state that the first plan does not hand out");
        if (w->met[i] && !state)
            w->given[i].dtype = n->dtype; /* its shape is known when the first has run */
    }
    if (states > 0)
        return TPC_OK;
    return diag_error(
        w->diag, TPC_UNSUPPORTED, NULL,
        "the first plan hands out no state that the other one takes (present… there, past_key_values… here)");
}

/* The other plan's tensors, from the first one's outputs. */
static status hand_over(struct writer *w, struct writer *first)
{
    for (uint32_t i = 0; i < w->graph->inputs.count; i++) {
        struct tensor t = {0};
        bool state = w->roles.of[i] == ROLE_STATE; /* fetched by first_state */
        if (!w->met[i])
            continue;
        status s = state ? TPC_OK : engine_output(first->engine, w->met[i] - 1, w->diag, &t);
        if (s == TPC_OK && state && !engine_output_shape(first->engine, w->met[i] - 1, &t))
            return refuse_input(w, i, "is a state that the first plan has not left");
        if (s != TPC_OK)
            return s;
        if (t.rank != graph_node(w->graph, w->graph->inputs.at[i].value)->rank)
            return refuse_input(w, i, "has not as many axes as what the first plan hands out");
        *(state ? &w->seed[i] : &w->given[i]) = t;
    }
    w->past = first->past + first->now;
    return TPC_OK;
}

status first_state(struct writer *w, uint32_t i)
{
    struct engine *first = w->o->first->engine;
    w->input[i] = w->seed[i];
    return engine_take(w->engine, i, first, w->met[i] - 1) ? TPC_OK
                                                           : engine_output(first, w->met[i] - 1, w->diag, &w->input[i]);
}

status first_run(struct writer *w, int64_t *token)
{
    struct generate_options o = *w->o;
    struct writer first = {
        .engine = w->o->first->engine, .plan = w->o->first->plan, .arena = w->arena, .diag = w->diag};
    first.graph = first.plan->program->graph;
    o.first = NULL;
    o.given = w->o->first->given;
    o.binding_count = 0; /* they speak of the other plan's inputs */
    first.o = &o;
    status s = writer_open(&first);
    if (s == TPC_OK && first.padding != w->padding)
        s = diag_error(
            w->diag, TPC_UNSUPPORTED, NULL,
            "the two plans need prompts of unequal lengths padded on different sides: give prompts of one length");
    if (s == TPC_OK)
        s = writer_step(&first, 0, token);
    return s == TPC_OK ? hand_over(w, &first) : s;
}
