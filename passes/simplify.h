/* passes/simplify.h - shared by the files of simplify; private to passes/. */
#ifndef TPC_PASSES_SIMPLIFY_H
#define TPC_PASSES_SIMPLIFY_H

#include "passes/passes.h"

struct simplifier {
    const struct graph *in;
    struct graph *out;
    struct arena *scratch;
    struct map seen;       /* hash of a node and its operands -> newest such value of out */
    LIST(value) next_same; /* chain of equal hashes */
};

/* Emits a node whose operands are values of s->out; GIVEN shapes and dtypes are in `n`, the others are derived again. */
value emit(struct simplifier *s, const struct node *n);
/* The first rule that applies; 0: none. */
value simplify_by_rule(struct simplifier *s, const struct node *n);

/* simplify_loss.c: gather of labels from a written-out log-softmax -> cross_entropy. */
value rule_log_softmax_gather(struct simplifier *s, const struct node *n);

#endif
