/* frontend/report.h - what the files that write the JSON document share; private to frontend/. */
#ifndef TPC_FRONTEND_REPORT_H
#define TPC_FRONTEND_REPORT_H

#include "frontend/compile.h"

#include <cjson/cJSON.h>

struct report {
    struct arena *arena;
    const struct compiled *c;
    int64_t *nominal; /* per symbol of the Program */
};

/* The ONNX name of a value, or %N. */
const char *report_name(const struct report *r, const struct graph *g, value v);
cJSON *report_list(cJSON *parent, const char *name);
cJSON *report_object(cJSON *list); /* a new last element */
void report_text(cJSON *o, const char *name, const char *text);

/* ---- report_layers.c ---- */
void report_layers(const struct report *r, cJSON *root);
/* Also which layers each is there for. Returns the bytes of all. */
double report_collectives(const struct report *r, cJSON *root);

/* ---- report_cost.c ---- */
void report_memory(const struct report *r, cJSON *root);
void report_cost(const struct report *r, cJSON *root, double collective_bytes);

#endif
