/* frontend/explain/explain.h - a plan's decisions told to people: a page per plan, an answer per layer, two plans side by side, pictures.
 *
 * Everything here reads the plan's JSON document (docs/plan-json.md) and nothing else: neither the model nor the solver is needed again. The
 * document comes from a file, so nothing in it is believed: what is missing reads as "-" or 0, numbers of layers are checked, and names are printed without
 * control characters.
 *
 * Sections: document.c (JSON → struct document), fold.c (equal blocks told once), summary.c, one.c (a layer, a value), diff.c, dot.c, html.c (page.html
 * holds the page)
 */
#ifndef TPC_FRONTEND_EXPLAIN_H
#define TPC_FRONTEND_EXPLAIN_H

#include "ir/base.h"

struct told_alternative {
    const char *style, *why;
    bool possible, priced;
    double bytes, seconds, collectives; /* more than the plan has */
};

struct told_collective {
    const char *kind, *value, *node, *elements, *reason;
    double bytes;         /* of the buffer on one rank at the nominal extents */
    uint32_t layer_count; /* that it is there for */
};

struct told_layer {
    const char *node, *op_type, *style, *weight, *placement, *reason; /* "-" where there is none */
    double axis;                                                      /* -1: none */
    uint32_t kind, from, to;
    uint32_t alternative_count, collective_count;
    const struct told_alternative *alternative;
    const uint32_t *collective; /* into document->collective */
    double whole_bytes;         /* of the weight; 0: no weight */
    const double *bytes;        /* per rank: what it stores of the weight; NULL: no weight */
};

struct told_value {
    const char *name, *shape, *placement;
};

struct told_memory {
    double weights, activations;
};

struct document {
    struct arena *arena;
    const char *text; /* the JSON itself */
    size_t length;
    const char *model, *note; /* note: NULL, or why nothing was split */
    const char *mesh;         /* "tp 4" */
    const char *nominal;      /* "batch=1, sequence=512" */
    uint32_t ranks, layer_count, collective_count, value_count, region_count;
    const struct told_layer *layer;
    const struct told_collective *collective;
    const struct told_value *value;
    const uint32_t *region;           /* kind per region; [0] is unused */
    const struct told_memory *memory; /* per rank */
    double weight_bytes, seconds, switches, collective_bytes;
};

/* TPC_DATA, naming `name`, when the text is no such document. */
status document_parse(struct arena *arena, const char *name, const char *json, size_t length, struct diag *diag,
                      struct document *out);

/* ---- fold.c ---- */

/* Layers [first, first + period) occur `repeat` times, one after another. */
struct fold {
    uint32_t first, period, repeat;
};
typedef LIST(struct fold) fold_list;
/* All layers in order, repeated runs told once. Equal documents give equal folds. */
fold_list fold_layers(const struct document *d);
/* What the names of a layer in all repetitions have in common: "layers.*.mlp.up". `name` picks the name. */
const char *fold_name(const struct document *d, const struct fold *f, uint32_t at,
                      const char *(*name)(const struct told_layer *));
const char *told_node(const struct told_layer *l);
const char *told_weight(const struct told_layer *l);

/* ---- texts ---- */

const char *bytes_text(struct arena *arena, double bytes); /* "8.0 MiB" */
void explain_summary(const struct document *d, struct text *out);
/* A layer by its node's or its weight's name, or a value; `*` and `?` match several. false: nothing has that name. */
bool explain_one(const struct document *d, const char *pattern, struct text *out);
void explain_diff(const struct document *a, const struct document *b, struct text *out);
void explain_dot(const struct document *d, struct text *out);
void explain_html(const struct document *d, struct text *out);

#endif
