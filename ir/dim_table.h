/* ir/dim_table.h - what the files of the dim table share; nobody else includes it.
 *
 * A monomial is an atom or a PRODUCT of atoms. Monomials are ordered by degree (high first), then by their atoms; that order agrees with
 * multiplication (graded lexicographic), so rows of a product stay sorted and long division works on leading terms. Atoms are
 * ordered by structure and by the number of their symbols, never by the moment they were interned: text parsed into
 * another table whose symbols were added in the same order prints the same.
 */
#ifndef TPC_IR_DIM_TABLE_H
#define TPC_IR_DIM_TABLE_H

#include "ir/dim.h"

enum {
    DIM_TERM_LIMIT = 256,  /* terms of a sum */
    DIM_DEGREE_LIMIT = 64, /* atoms of a product */
    DIM_DEPTH_LIMIT = 96,  /* nesting: every recursion over an expression is bounded by it */
    DIM_SIZE_LIMIT = 4096, /* nodes of an expression written out as a tree */
    DIM_MEMO = 4096
};

struct dim_entry {
    struct dim_node node;
    int64_t lower, upper;
    uint64_t hash;
    uint32_t size; /* nodes as a tree */
    uint8_t depth;
    uint8_t kinds; /* bit per symbol_kind that occurs */
    dim equal;     /* compound atoms: what a guard has made of it */
    dim resolved;  /* valid when resolved_epoch == dims->epoch */
    uint32_t resolved_epoch;
};

struct dim_memo {
    uint32_t op; /* 1 + operation */
    dim a, b, result;
};
enum { MEMO_ADD = 100, MEMO_MUL, MEMO_EXACT }; /* beside enum dim_op */

struct dim_pair {
    dim a, b;
};

struct dims {
    struct arena *arena;
    LIST(struct dim_entry) entries; /* [0] is DIM_NONE */
    LIST(struct symbol) symbols;
    LIST(dim) of_symbol;
    struct map names; /* kind byte + name -> 1 + symbol */
    uint32_t *slot;   /* open addressing over entries; 0 is free */
    uint32_t slot_count;
    struct dim_memo memo[DIM_MEMO];
    uint32_t epoch;                /* bumped by each assumption */
    LIST(struct dim_pair) pending; /* assumed pairs that could not be rewritten yet */
    LIST(dim) rules;               /* atoms (symbols and compounds) that have an `equal` */
    dim zero, one;
};

/* A dim seen as a polynomial: sum of coefficient[i] * arg[i], plus value. `self` and `unit` hold it when it is one monomial. */
struct terms {
    uint32_t count;
    int64_t value;
    const dim *arg;
    const int64_t *coefficient;
    dim self;
    int64_t unit;
};
/* A polynomial under construction; terms sorted. */
struct poly {
    uint32_t count;
    int64_t value;
    dim arg[DIM_TERM_LIMIT];
    int64_t coefficient[DIM_TERM_LIMIT];
};

static inline const struct dim_entry *dim_entry(const struct dims *t, dim d)
{
    return &t->entries.at[d];
}
static inline const struct dim_node *dim_node_at(const struct dims *t, dim d)
{
    return &t->entries.at[d].node;
}
static inline bool dim_is_atom(const struct dims *t, dim d)
{
    enum dim_op o = dim_node_at(t, d)->op;
    return o != DIM_CONST && o != DIM_SUM && o != DIM_PRODUCT;
}

/* dim.c */
dim dim_intern(struct dims *t, const struct dim_node *n); /* DIM_NONE past a limit */
dim dim_intern_pair(struct dims *t, enum dim_op o, dim a, dim b);
void terms_of(const struct dims *t, dim d, struct terms *out);
/* The atoms of a monomial; `self` is storage for a single one. */
const dim *monomial_atoms(const struct dims *t, const dim *monomial, uint32_t *count);
int dim_compare(const struct dims *t, dim a, dim b); /* any two expressions, structurally */
int monomial_compare(const struct dims *t, dim a, dim b);
dim monomial_mul(struct dims *t, dim a, dim b);
bool monomial_div(struct dims *t, dim a, dim b, dim *out); /* *out may be the constant 1 */
/* Appends coefficient * monomial after all terms so far (the monomial may be a constant: then into value). false: overflow or too many. */
bool poly_append(const struct dims *t, struct poly *p, int64_t coefficient, dim monomial);
dim poly_dim(struct dims *t, const struct poly *p);
struct dim_memo *dim_memo_at(struct dims *t, uint32_t operation, dim a, dim b, bool *hit);

/* dim_facts.c */
void dim_bounds(const struct dims *t, const struct dim_node *n, int64_t *lower, int64_t *upper);

#endif
