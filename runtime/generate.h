/* runtime/generate.h - text from a model: greedy, one sequence, with the model's key-value cache where it has one.
 *
 * What each input of the model is for (docs/generation.md):
 *   states     past -> present pairs of the plan: empty at first, then kept on their ranks
 *   tokens     integers [batch, sequence] named *input_ids*, else the only integers of that shape that are none of the following
 *   mask       named *mask*, [batch, n]: ones
 *   positions  named *position*, integers [batch, sequence] or [sequence]: past, past + 1, ...
 * Anything else is refused by name. Logits: the output named *logits*, else the first float [batch, sequence, vocabulary] that is no state.
 *
 * Section: generate.c
 */
#ifndef TPC_RUNTIME_GENERATE_H
#define TPC_RUNTIME_GENERATE_H

#include "runtime/engine.h"

struct generate_options {
    const int64_t *prompt;
    size_t prompt_count; /* >= 1 */
    size_t count;        /* tokens to write, at most */
    const int64_t *stop; /* tokens that end the text (they are handed out too) */
    size_t stop_count;
    void (*token)(void *user, int64_t token);
    void *user;
};

/* The engine was opened on the plan's program. TPC_UNSUPPORTED: a model that cannot be used so. */
status generate(struct engine *engine, const struct plan *plan, const struct generate_options *options,
                struct arena *arena, struct diag *diag);

#endif
