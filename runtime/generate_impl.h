/* runtime/generate_impl.h - what the files of generation share; private to them. */
#ifndef TPC_RUNTIME_GENERATE_IMPL_H
#define TPC_RUNTIME_GENERATE_IMPL_H

#include "runtime/generate.h"

struct roles {
    role *of;                /* per input */
    uint32_t tokens, logits; /* input, output */
    int64_t vocabulary;      /* rows of the tokens' table; 0: there is none */
    bool *whole;             /* per input, a mask: of places that a given input has, all of which are there */
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
    bool *keep;                    /* per input: taken from the last run */
    const struct tensor *constant; /* per input: what ROLE_GIVEN gets */
    /* after another plan (generate_first.c), per input: */
    uint32_t *met;        /* 1 + the output of the first plan that it gets, 0 none */
    struct tensor *given; /* o->given, and what is no state; this is then `constant` */
    struct tensor *seed;  /* type and shape of what a state begins with */
    bool ran;             /* the engine has made a step: states are kept from now on */
    struct tensor *input;
    int64_t *of;       /* values of symbols; -1 unknown */
    int64_t **text;    /* per row: prompt and what was written */
    int64_t *length;   /* per row: of text */
    int64_t *place;    /* per row: scratch of lines_of */
    bool *ended;       /* per row */
    int64_t longest;   /* prompt */
    int64_t past, now; /* of this step: places (with padding) before it, and in it */
    int64_t fixed;     /* places of every step, where the plan fixes them; else 0 */
    int64_t batch;     /* rows of the inputs: o->rows, or more where the plan fixes it */
    size_t step;       /* its number */
    bool goes_on;      /* this step is not the last one that was asked for */
    int64_t room;      /* entries that a state of no fixed size must hold in the end */
};

/* ---- generate.c ---- */
/* Finds out all that is known before the first step. Engine, plan, graph, arena, diag and o are set; length and text are made. */
status writer_open(struct writer *w);
/* Runs what is left of the text; each row's next token, -1 for those that had ended. */
status writer_step(struct writer *w, size_t number, int64_t *token);

/* ---- generate_first.c ---- */
/* Before roles are found: which inputs get what the first plan hands out. */
status first_meet(struct writer *w);
/* Input i, a state, of the step behind it. */
status first_state(struct writer *w, uint32_t i);
/* The step of the prompt: its tokens, and w's states and given inputs. */
status first_run(struct writer *w, int64_t *token);

/* ---- generate_fill.c again ---- */
/* Shapes of all inputs for this step, and their elements. */
status fill_inputs(struct writer *w);
/* Tells the engine what shapes the step behind this one will have. */
void expect_step(const struct writer *w);
/* Of a plan's input axis: its value where it is fixed, else 0. */
int64_t fixed_extent(const struct writer *w, uint32_t input, uint32_t axis);
/* Entries that the states of fixed size hold; INT64_MAX where there are none. */
int64_t states_hold(const struct writer *w);
/* The place of row r's last token among the `now` of this step. */
int64_t last_place(const struct writer *w, int64_t row);
/* Which logits the step's tokens are chosen from, as the engine is told. */
struct engine_lines lines_of(const struct writer *w);
status refuse_input(const struct writer *w, uint32_t i, const char *why);

#endif
