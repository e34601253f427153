/* ir/dim.h - extents and index expressions: interned integer expressions over named symbols.
 *
 * Invariant: two expressions that normalise to the same form are the same `dim` (an index into one `struct dims`), so
 * equality is ==. The normal form is a sum of integer multiples of products of atoms; an atom is a symbol or a
 * compound that does not distribute (div, ceildiv, mod, max, min). Constants fold; (x*y)/y -> x by exact polynomial division;
 * max(0, d) -> d for d provably >= 0; facts come from symbols alone (each symbol has a lower bound, 0 unless stated).
 * Arithmetic that would overflow int64 at construction, and an expression past a limit (256 terms, 64 factors, nested 96 deep, 4096
 * nodes as a tree, 16 operands of one max), makes an invalid dim (DIM_NONE), which every operation passes on; whoever builds a shape
 * from it reports. So a recursion over an expression is always bounded.
 *
 * The same expressions serve as extents (over input symbols), as a rank's local extents (over partition symbols), and as index
 * maps of kernels (over coordinates).
 *
 * A table only grows: never rewind its arena past an operation on it. dim_eval, dim_get and dim_print do not write to it and may
 * be used by several threads at once.
 *
 * Sections: dim.c, dim_divide.c, dim_facts.c, dim_text.c (dim_table.h is theirs alone)
 */
#ifndef TPC_IR_DIM_H
#define TPC_IR_DIM_H

#include "ir/base.h"

typedef uint32_t dim;
#define DIM_NONE 0u

typedef enum symbol_kind {
    SYMBOL_INPUT,       /* named by the model: batch, sequence, past; bound by the shapes of inputs (or --set) */
    SYMBOL_COORDINATE,  /* index along axis `index` of an iteration space; 0 <= it */
    SYMBOL_PART_SIZE,   /* this rank's extent of partition `index` */
    SYMBOL_PART_OFFSET, /* this rank's first element of partition `index` */
    SYMBOL_RANK,        /* this rank */
    SYMBOL_CAPACITY     /* entries that the memory of states has room for; only in the steps of a Program */
} symbol_kind;

struct symbol {
    const char
        *name; /* unique among its kind; "s:3", "o:3", "rank", "k:3" and "c0" are the names of the non-input kinds */
    symbol_kind kind;
    uint32_t index;
    int64_t lower; /* >= 0 */
    int64_t upper; /* INT64_MAX when none is known (coordinates: extent - 1 when that is constant) */
    dim equal;     /* DIM_NONE, or what a guard has made of it: the symbol is rewritten to that everywhere */
};

enum dim_op { DIM_CONST, DIM_SYMBOL, DIM_SUM, DIM_PRODUCT, DIM_DIV, DIM_CEILDIV, DIM_MOD, DIM_MAX, DIM_MIN };

/* How an expression is made, for those who print, evaluate or generate code from it.
 * CONST: value. SYMBOL: symbol. SUM: terms coefficient[i] * arg[i], plus value. PRODUCT: arg[0]*...*arg[count-1] (count >= 2, atoms with
 * repetition). DIV (truncating, as C), CEILDIV, MOD (C's %, sign of the dividend), MAX, MIN: arg[0], arg[1]. */
struct dim_node {
    enum dim_op op;
    uint32_t count;
    int64_t value;
    uint32_t symbol;
    const dim *arg;
    const int64_t *coefficient;
};

struct dims; /* the table; lives in an arena */
struct dims *dims_new(struct arena *arena);
uint32_t dims_count(const struct dims *t); /* all dims are in [1, count) */
uint32_t dims_symbol_count(const struct dims *t);
const struct symbol *dims_symbol(const struct dims *t, uint32_t symbol);
struct dim_node dim_get(const struct dims *t, dim d);

dim dim_const(struct dims *t, int64_t value);
/* Finds or adds the symbol of that name (input kind). */
dim dim_symbol(struct dims *t, const char *name);
dim dim_coordinate(struct dims *t, uint32_t axis);
dim dim_part_size(struct dims *t, uint32_t partition);
dim dim_part_offset(struct dims *t, uint32_t partition);
dim dim_rank(struct dims *t);
dim dim_capacity(struct dims *t, uint32_t number);
/* The dim that is symbol number `symbol`. */
dim dim_of_symbol(struct dims *t, uint32_t symbol);
/* Narrows what is known of a symbol. Do it before expressions are built with it: those that exist keep their form. */
void dims_bound_symbol(struct dims *t, uint32_t symbol, int64_t lower, int64_t upper);
/* Takes back what was known beyond these bounds (a partition's number means another partition in another Program over the same table). */
void dims_widen_symbol(struct dims *t, uint32_t symbol, int64_t lower, int64_t upper);

dim dim_add(struct dims *t, dim a, dim b);
dim dim_sub(struct dims *t, dim a, dim b);
dim dim_mul(struct dims *t, dim a, dim b);
dim dim_div(struct dims *t, dim a, dim b); /* truncating; by constant 0 -> DIM_NONE */
dim dim_ceildiv(struct dims *t, dim a, dim b);
dim dim_mod(struct dims *t, dim a, dim b);
dim dim_max(struct dims *t, dim a, dim b);
dim dim_min(struct dims *t, dim a, dim b);
dim dim_product(struct dims *t, const dim *d, uint32_t count); /* 1 for none */
/* a / b where that is provable without remainder as polynomials over the integers, DIM_NONE otherwise. */
dim dim_exact_div(struct dims *t, dim a, dim b);

bool dim_is_const(const struct dims *t, dim d, int64_t *value); /* value may be NULL */
static inline bool dim_valid(dim d)
{
    return d != DIM_NONE;
}
bool dim_is(const struct dims *t, dim d, int64_t value); /* the constant `value` */
/* Provable bounds by interval arithmetic over the symbols' bounds (and by sign of every coefficient); INT64_MIN / INT64_MAX when unknown. */
int64_t dim_lower(const struct dims *t, dim d);
int64_t dim_upper(const struct dims *t, dim d);
/* a >= b, a > b provable for all values of the symbols. */
bool dim_provably_ge(struct dims *t, dim a, dim b);
bool dim_uses_kind(const struct dims *t, dim d, symbol_kind kind);
bool dim_uses_symbol(const struct dims *t, dim d, uint32_t symbol);

/* Rewrites by the symbols' `equal` (see dim_assume_equal); cheap when nothing was assumed. */
dim dim_resolve(struct dims *t, dim d);
/* d with each symbol s for which replace(context, s) is valid replaced by that. */
dim dim_substitute(struct dims *t, dim d, dim (*replace)(void *context, uint32_t symbol), void *context);
/* Makes a == b hold from now on: solves for an input symbol that occurs linearly (the younger, and the plainer side's preferred) and sets
 * its `equal`; where there is none, a compound atom that occurs linearly ((a*b)/c == 100) is rewritten to the rest; when nothing can be
 * solved for, nothing is rewritten until a later assumption makes it possible. Returns false when the two can never be equal
 * (unequal constants, or a difference of provable sign). The caller records the guard with the graph. `d` values must be
 * resolved again after. The same assumptions in the same order on tables whose symbols were added in the same order give the same rewriting. */
bool dim_assume_equal(struct dims *t, dim a, dim b);

/* Value of d when symbol s has the value of[s]; false on overflow or division by zero. */
bool dim_eval(const struct dims *t, dim d, const int64_t *of, int64_t *out);

/* Text: 12, batch, past + sequence, 2*heads*(past + 1), (a*b)/c, ceildiv(a, b), mod(a, b), max(a, b), min(a, b), 3 - s. The same text gives the same dim. */
void dim_print(const struct dims *t, dim d, struct text *out);
const char *dim_text(const struct dims *t, dim d, struct arena *arena);
/* Parses the longest expression at *cursor and moves it past; DIM_NONE on a syntax error (*cursor then is where). Unknown names become input
 * symbols; a name that is not an identifier, or that would read as something else, is in double quotes: "batch size", "rank". */
dim dim_parse(struct dims *t, const char **cursor, const char *end);
/* Reads an ONNX dim_param, in which all names are input symbols: "past_sequence_length + 1", "(s0*s1)//4", "Max(0, s0)", "floor(a/b)",
 * "ceil(a/b)", "s0**2". What is no such expression, or a negative number, is one symbol with that whole text as its name. DIM_NONE
 * only for an empty text or an expression past the limits. */
dim dim_parse_param(struct dims *t, const char *text, size_t length);

#endif
