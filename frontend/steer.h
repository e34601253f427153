/* frontend/steer.h - how people steer the split: patterns and styles (--pin, --tp-plan), turned into the solver's pins, and a plan's own styles printed.
 *
 * docs/steering.md is what people read. A pattern names switch points by their ONNX node, module path or weight; a style says what is cut there.
 *
 * Sections: steer_styles.c (the table of styles), steer_match.c (patterns), steer.c (entries -> pins), steer_file.c (JSON in), steer_plan.c (JSON out)
 */
#ifndef TPC_FRONTEND_STEER_H
#define TPC_FRONTEND_STEER_H

#include "solver/solver.h"

/* ---- steer_styles.c ---- */

enum { FITS_LINEAR = 1, FITS_EMBEDDING = 2, FITS_VALUE = 4 };
/* What a style says of nodes that are no switch points. */
enum style_values {
    VALUES_NONE,
    VALUES_WHOLE,   /* their results are whole */
    VALUES_OUTPUT,  /* what leaves the module is whole */
    VALUES_WEIGHTS, /* the weights that they read are whole */
    VALUES_SEQUENCE /* they lie on sequence shards */
};

/* input: "any", "whole", "cut"; weight: "any", "whole", or of "row" (the input features, the vocabulary), "column" (the output features), "expert" (the
 * leading axes), joined by '+'; output: as input. "cut", "row", "column", "expert" take ":N", a number of parts. */
struct style {
    const char *name;
    uint32_t fits;
    const char *input, *weight, *output;
    enum pin_packed packed;
    const char *instead; /* where `packed` is wrong */
    enum style_values values;
    bool local; /* no communication at the switch point itself */
};
extern const struct style styles[]; /* ended by a NULL name */

/* "NAME" or "NAME:N". NULL when unknown. *parts: N, or 0. */
const struct style *style_find(const char *text, uint32_t *parts);
const char *style_nearest(const char *text);
/* What the words mean, with `parts` in place of PARTS_CUT unless 0. false: *wrong is the word that is none. */
bool style_parts(const struct style *s, uint32_t parts, struct layer_parts *out, const char **wrong);

/* ---- steer_match.c: docs/steering.md, Patterns ---- */
/* tail: names may go on behind the pattern for so many parts. */
bool pattern_matches(const char *pattern, const char *name, uint32_t tail);
/* Insertions, deletions, replacements from a to a part of b; whole: to all of b. */
uint32_t text_distance(struct arena *arena, const char *a, const char *b, bool whole);

/* ---- steer.c ---- */

struct steer_entry {
    const char *pattern;
    const struct style *style;
    uint32_t parts;   /* of "STYLE:N" */
    const char *text; /* "'up=column'" */
    const char *file; /* the plan file it is from; NULL: the command line */
    bool exact;       /* what the style leaves open means no conversion: steer_plan.c writes it so */
};
struct steering {
    LIST(struct steer_entry) entries;
};

/* Entries into pins for `options` (their number of ranks is looked at). One error that names the pattern: TPC_USAGE from the command line, TPC_DATA
 * from a file. */
status steer_pins(struct arena *arena, struct graph *g, struct solve_options *options, const struct steering *steering,
                  struct diag *diag);

/* ---- steer_file.c ---- */
/* "PATTERN=STYLE" of the command line. */
status steer_add_pin(struct arena *arena, struct steering *out, const char *text, struct diag *diag);
/* A file of docs/tp-plan.schema.json. ranks: of the tensor axis; 0: not known yet. */
status steer_read_plan(struct arena *arena, struct steering *out, const char *path, uint32_t ranks, struct diag *diag);

/* ---- steer_plan.c ---- */
/* The solution's own plan as JSON text, which steer_read_plan reads back. `steering` (may be NULL) was in force. */
const char *steer_print_plan(struct arena *arena, const struct graph *g, const struct solution *s,
                             const struct steering *steering);

#endif
