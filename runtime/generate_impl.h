/* runtime/generate_impl.h - what the files of generation share; private to them. */
#ifndef TPC_RUNTIME_GENERATE_IMPL_H
#define TPC_RUNTIME_GENERATE_IMPL_H

#include "runtime/generate.h"

struct roles {
    role *of;                /* per input */
    uint32_t tokens, logits; /* input, output */
    int64_t vocabulary;      /* rows of the tokens' table; 0: there is none */
    bool states;             /* there are some */
    bool mask;               /* there is one */
    bool positions;          /* there are some, for each row */
    bool mask_by_place;      /* what a mask says of each place matters */
    bool mask_summed;        /* its sums do: they say how long rows are, or where tokens stand */
};

/* ---- generate_roles.c ---- */
status roles_find(const struct plan *plan, const struct generate_options *o, struct arena *arena, struct diag *diag,
                  struct roles *out);
/* State of which input i is the past; NULL: none. */
const struct state *state_of_input(const struct graph *g, uint32_t i);

/* ---- generate_fill.c ---- */

/* Where the tokens of rows of unequal length stand. */
enum padding { PADDING_LEFT, PADDING_RIGHT };

struct writer {
    struct engine *engine;
    const struct plan *plan;
    const struct graph *graph;
    struct arena *arena;
    struct diag *diag;
    const struct generate_options *o;
    struct roles roles;
    enum padding padding;
    bool *keep; /* per input: taken from the last run */
    struct tensor *input;
    int64_t *of;       /* values of symbols; -1 unknown */
    int64_t **text;    /* per row: prompt and what was written */
    int64_t *length;   /* per row: of text */
    bool *ended;       /* per row */
    int64_t longest;   /* prompt */
    int64_t past, now; /* of this step: places (with padding) before it, and in it */
    int64_t fixed;     /* places of every step, where the plan fixes them; else 0 */
    int64_t batch;     /* rows of the inputs: o->rows, or more where the plan fixes it */
    int64_t room;      /* entries that a state of no fixed size must hold in the end */
};

/* Shapes of all inputs for this step, and their elements. */
status fill_inputs(struct writer *w);
/* Of a plan's input axis: its value where it is fixed, else 0. */
int64_t fixed_extent(const struct writer *w, uint32_t input, uint32_t axis);
/* Entries that the states of fixed size hold; INT64_MAX where there are none. */
int64_t states_hold(const struct writer *w);
/* The place of row r's last token among the `now` of this step. */
int64_t last_place(const struct writer *w, int64_t row);
status refuse_input(const struct writer *w, uint32_t i, const char *why);

#endif
