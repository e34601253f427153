/* frontend/report_cost.c - the part of the JSON document that says what a plan costs: memory per rank, and the solver's figures. */
#include "frontend/predict.h"
#include "frontend/report.h"

void report_memory(const struct report *r, cJSON *root)
{
    const struct solution *d = r->c->solution;
    uint32_t ranks = r->c->program->graph->mesh.ranks;
    struct rank_memory *at = NEW_ARRAY(r->arena, struct rank_memory, ranks),
                       *peak = NEW_ARRAY(r->arena, struct rank_memory, ranks);
    bool known = predict_memory(r->arena, r->c->program, d->nominal[NOMINAL_PREFILL], d->nominal_count, at) &&
                 predict_peak(r->arena, r->c, peak);
    cJSON *memory = report_list(root, "memory");
    for (uint32_t k = 0; k < ranks; k++) {
        const struct rank_memory *m = &at[k];
        cJSON *o = report_object(memory);
        cJSON_AddNumberToObject(o, "rank", k);
        cJSON_AddNumberToObject(o, "weights", (double)m->weights);
        cJSON_AddNumberToObject(o, "kept", (double)m->kept);
        cJSON_AddNumberToObject(o, "activations", known ? (double)m->activations : 0);
        cJSON_AddNumberToObject(o, "states", known ? (double)m->states : 0);
        cJSON_AddNumberToObject(o, "outputs", known ? (double)m->outputs : 0);
        cJSON_AddNumberToObject(o, "loading", known ? (double)m->loading : 0);
        cJSON_AddNumberToObject(o, "peak", known ? (double)rank_memory_total(&peak[k]) : 0);
    }
}

static void add_nominal(const struct report *r, cJSON *cost, const char *name, enum nominal_phase phase)
{
    const struct dims *t = r->c->program->graph->dims;
    const struct solution *d = r->c->solution;
    cJSON *nominal = cJSON_AddObjectToObject(cost, name);
    for (uint32_t s = 0; s < d->nominal_count; s++) {
        if (dims_symbol(t, s)->kind == SYMBOL_INPUT) {
            cJSON_AddNumberToObject(nominal, dims_symbol(t, s)->name, (double)d->nominal[phase][s]);
        }
    }
}

void report_cost(const struct report *r, cJSON *root, double collective_bytes)
{
    const struct solution *d = r->c->solution;
    cJSON *cost = cJSON_AddObjectToObject(root, "cost");
    cJSON_AddNumberToObject(cost, "weight_bytes_per_rank", d->bytes_per_rank);
    cJSON_AddNumberToObject(cost, "seconds", d->time);
    cJSON_AddNumberToObject(cost, "switches", d->switches);
    cJSON_AddNumberToObject(cost, "collective_bytes", collective_bytes);
    add_nominal(r, cost, "nominal", NOMINAL_PREFILL);
    add_nominal(r, cost, "nominal_decode", NOMINAL_DECODE);
    report_text(cost, "machine", r->c->machine->name);
    report_text(cost, "objective", r->c->objective == OBJECTIVE_LATENCY ? "latency" : "bytes");
    if (r->c->memory_budget == 0) {
        cJSON_AddNullToObject(cost, "memory_budget");
    } else {
        cJSON_AddNumberToObject(cost, "memory_budget", (double)r->c->memory_budget);
    }
}
