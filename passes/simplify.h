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

/* simplify_softmax.c: of a softmax over scores and one more element of a row, the scores' part: without the longer rows. */
value rule_slice_of_softmax(struct simplifier *s, const struct node *n);

/* ---- rewrites of more than one node, as a copy of the whole graph ---- */

struct remaking {
    const struct graph *in;
    struct graph *out;
    value *new_of; /* per value of `in` */
    void *context;
};
/* Value v of r->in again in r->out; n is v's node with the new operands. 0: copy it. */
typedef value remake(struct remaking *r, value v, const struct node *n);
struct graph *graph_remake(struct arena *arena, const struct graph *g, remake *instead, void *context);

/* simplify_stack.c: terms of a sum that are computed alike from weights of their own become one batched computation. g itself when there are none. */
struct graph *stack_terms(struct arena *arena, struct graph *g);
/* simplify_contract.c: a (weighted) sum over a batch axis of products with weights becomes one product that contracts it. g itself when there are none. */
struct graph *contract_sums(struct arena *arena, struct graph *g);
/* simplify_scale.c: constant factors of a product of two activations become one, where it costs least. g itself when there is no such product. */
struct graph *move_scales(struct arena *arena, struct graph *g);

#endif
