/* runtime/generate.h - text from a model: a batch of prompts, with the model's key-value cache where it has one.
 *
 * Invariant: what a model's inputs are for is known before anything runs (roles_find); each run is one shape of everything, which follows from how many
 * rows there are, how many tokens are new and how many came before. docs/generation.md has the tables.
 *
 * Sections: generate_roles.c (what inputs are for), generate_fill.c (their shapes and elements), generate_first.c (one plan for the prompt, another one to go on),
 * generate.c (the loop), sample.c
 */
#ifndef TPC_RUNTIME_GENERATE_H
#define TPC_RUNTIME_GENERATE_H

#include "runtime/engine.h"
#include "runtime/sample.h"

/* What an input gets at each step. */
typedef enum role {
    ROLE_NONE,
    ROLE_TOKENS,       /* [rows, new] the new tokens */
    ROLE_MASK,         /* [rows, past + new] 1 where a token is, 0 where padding */
    ROLE_POSITIONS,    /* [rows, new] or [new]: of each new token in its row */
    ROLE_PAST_LENGTH,  /* one number, or one per row: past */
    ROLE_TOTAL_LENGTH, /* past + new */
    ROLE_STATE,        /* empty at first, then what the last step left */
    ROLE_GIVEN,        /* the same tensor at each step, from the caller */
    ROLE_UNUSED        /* nothing reads it: zeros, or nothing */
} role;

struct role_binding {
    const char *input;
    role role;
};
/* "tokens", "mask", "positions", "past_length", "total_length", "given"; ROLE_NONE for others. */
role role_from_text(const char *text);

/* A plan that runs the prompt and leaves its states to the other one. */
struct generate_first {
    struct engine *engine;
    const struct plan *plan;
    const struct tensor *given; /* per input of this plan; NULL, or DT_NONE: not given */
};

struct prompt {
    const int64_t *token;
    size_t count; /* >= 1 */
};

struct generate_options {
    const struct prompt *prompt; /* one per row */
    size_t rows;                 /* >= 1 */
    size_t count;                /* tokens to write per row, at most */
    const int64_t *stop;         /* tokens that end their row (they are handed out too) */
    size_t stop_count;
    struct sampling sampling;
    int64_t context; /* entries that states have room for, fixed; 0: they grow */
    const struct role_binding *binding;
    size_t binding_count;
    const struct tensor *given; /* per input: rank and data as for engine_run; NULL, or dtype DT_NONE: not given */
    bool given_last;            /* it serves only inputs that have no other role */
    const struct generate_first *first; /* NULL: the plan runs its prompt itself */
    /* After each step: the token of each row, -1 for a row that had ended before. false ends all. */
    bool (*step)(void *user, size_t rows, const int64_t *token);
    void *user;
    size_t written; /* result: tokens of all rows */
};

/* The engine was opened on the plan's program. TPC_UNSUPPORTED: a model that cannot be used so; TPC_USAGE: options that make no sense. The engine
 * may be used again after a failure. */
status generate(struct engine *engine, const struct plan *plan, struct generate_options *options, struct arena *arena,
                struct diag *diag);

/* Does `input` of g begin with what `from` hands out as `output`? A state of both, or `present…` there and `past_key_values…` or `past…` here, of the same name otherwise. */
bool states_meet(const struct graph *g, uint32_t input, const struct graph *from, uint32_t output);

/* Rows of the table that the model looks its tokens up in, found by structure; 0: it has no such table or several inputs might be the tokens. 256 is
 * how a byte-level model is told. */
int64_t generate_vocabulary(const struct plan *plan, const struct generate_options *options, struct arena *arena);

#endif
