/* tests/support/mutate_impl.h - what mutate.c and mutate_content.c share. */
#ifndef TPC_TESTS_SUPPORT_MUTATE_IMPL_H
#define TPC_TESTS_SUPPORT_MUTATE_IMPL_H

#include "tests/support/mutate.h"

/* ---- mutate.c ---- */

struct node *mutant_node(struct graph *m, value v);
void mutant_set_operand(struct graph *m, value v, uint32_t i, value to);
int32_t *mutant_own_list(struct graph *m, value v); /* the node's list, copied so that it may be written */
dim *mutant_own_dims(struct graph *m, value v);
/* The variant-th value before v with the type and shape of `than`, other than that; 0 when there is none. */
value mutant_alike(const struct graph *m, value v, value than, uint32_t variant);

/* ---- mutate_content.c ---- */

bool mutate_swap_operands(struct graph *m, value v, uint32_t variant);
bool mutate_other_operand(struct graph *m, value v, uint32_t variant);
bool mutate_other_list(struct graph *m, value v, uint32_t variant);
bool mutate_other_op(struct graph *m, value v, uint32_t variant);
bool mutate_other_number(struct graph *m, value v, uint32_t variant);
bool mutate_other_param(struct graph *m, value v, uint32_t variant);
bool mutate_other_shard(struct graph *m, value v, uint32_t variant);
bool mutate_other_cuts(struct graph *m, value v, uint32_t variant);
bool mutate_other_output(struct graph *m, value v, uint32_t variant);
bool mutate_other_table(struct graph *m, value v, uint32_t variant);

#endif
