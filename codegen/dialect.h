/* codegen/dialect.h - what the files of codegen share; private to codegen/.
 *
 * A Kernel becomes code in two steps. `nest_of` decides what no language changes: which axes are points and which are loops inside of one,
 * at which depth of the nest each instruction is computed, how many sweeps of the row there are, and what a sweep leaves for a later one.
 * A Dialect then prints it: how types and operations are spelled, and how points are handed to whoever runs them.
 */
#ifndef TPC_CODEGEN_DIALECT_H
#define TPC_CODEGEN_DIALECT_H

#include "codegen/codegen.h"

/* ---- nest.c ---- */

/* Depths: what depends on no coordinate, on those of the point, on those of the point and of loops 0..i. */
enum { DEPTH_ENTRY = 0, DEPTH_POINT = 1, DEPTH_LOOP = 2 };
enum nest_use {
    USE_NONE,
    USE_COMPUTE, /* in this sweep */
    USE_READ     /* from what an earlier sweep kept */
};

struct nest_value {
    bool live; /* some store needs it */
    bool kept; /* in a row buffer, by the sweep that computes it */
    uint32_t depth;
    uint32_t stage; /* it can be computed once the reductions of so many sweeps are known */
    uint32_t cost;  /* of computing one element again, in simple operations */
};

/* Invariants: a value's operands are at no deeper depth and no later stage. An instruction of a loop's depth is executed only where the
 * row (for a pointwise kernel: the whole space) is not empty. */
struct nest {
    const struct kernel *kernel;
    const struct dims *dims;
    uint32_t symbol_count;
    const uint32_t *symbol;         /* the kernel's, ascending */
    uint32_t points, loops;         /* numbers of: */
    uint8_t point[2 * KERNEL_AXES]; /* axes that the point runs through, row-major */
    uint8_t loop[2 * KERNEL_AXES];  /* axes that are loops within a point; the last is the fast one */
    uint8_t depth[2 * KERNEL_AXES]; /* of each axis */
    bool cut_loop;                  /* the only axis is a loop, and its range is what is cut */
    bool transposes; /* some access jumps along the fast axis and runs along the innermost of the points: worth tiles */
    uint32_t sweeps; /* of the loops: 1 without reductions */
    struct nest_value *value; /* per instruction */
    uint8_t *use;             /* enum nest_use, [sweep * instruction_count + instruction] */
    uint32_t work;            /* cost of one innermost element, all sweeps */
};

/* keep: dear values may be kept in row buffers. */
void nest_of(const struct kernel *k, const struct dims *t, bool keep, struct arena *arena, struct nest *out);
static inline enum nest_use nest_use(const struct nest *n, uint32_t sweep, uint32_t instruction)
{
    return (enum nest_use)n->use[(size_t)sweep * n->kernel->instruction_count + instruction];
}
static inline uint32_t nest_fast_depth(const struct nest *n)
{
    return n->loops ? (uint32_t)DEPTH_LOOP + n->loops - 1 : (uint32_t)DEPTH_POINT;
}
static inline uint32_t nest_fast_axis(const struct nest *n)
{
    return n->loop[n->loops - 1];
}
/* Depth of the deepest coordinate in d. */
uint32_t nest_depth(const struct nest *n, dim d);
/* How d moves through memory along an axis: not at all, element by element, or otherwise. */
enum nest_motion { NEST_STANDS, NEST_RUNS, NEST_JUMPS };
enum nest_motion nest_motion_of(const struct dims *t, dim d, uint32_t axis);
/* Number of the kernel's argument for a symbol of the table. */
uint32_t nest_symbol(const struct nest *n, uint32_t symbol);

/* ---- print_kernel.c ---- */

struct dialect;

/* An index term that is computed once and used by several accesses. */
struct print_index {
    char *text;
    uint32_t number, depth;
};

struct printer {
    const struct nest *nest;
    const struct dialect *dialect;
    struct arena *arena;
    struct text *out;
    int indent;
    LIST(struct print_index) indices;
    uint32_t *index_of; /* per instruction: 1 + its entry in indices, 0: written out */
    /* Where not NULL, per instruction: what stands for a load's or store's element (a lane of a wide access, a tile), or NULL. For a map: it has been printed. */
    const char **staged;
    const char *from; /* CUDA: what the members of the arguments are members of; NULL: "arguments" */
    const char *only; /* CUDA: NULL, or the condition under which stores that are not staged are done */
    const char *once; /* NULL, or the condition under which a store that is no element of the row is done */
};

/* How a language spells things. The slots that print get the operands as text that can stand beside any operator. */
struct dialect {
    const char *name;
    const char *type[DT_COUNT];       /* in which a value of that type is computed */
    const char *element[DT_COUNT];    /* as it lies in memory */
    const char *infinity[2], *nan[2]; /* as f32, as f64 */
    const char *read[2];              /* around an element of a buffer that the kernel only reads */
    /* A mathematical function ("exp") of a type. */
    void (*function_name)(struct text *out, const char *name, dtype t);
    /* The result of a MAP from its operands. from: type of the last operand. */
    void (*map)(const struct dialect *d, struct text *out, const struct instruction *n, dtype from,
                const char *const arg[3]);
    void (*constant)(const struct dialect *d, struct text *out, const struct instruction *n);
    void (*load)(struct text *out, dtype t, const char *element); /* element as a value */
    void (*store)(struct text *out, dtype t, const char *number); /* value as an element */
    bool keeps; /* dear values of a row in row buffers, rather than computing them again */
    /* One more element of a reduction into rN. */
    void (*accumulate)(struct printer *p, uint32_t instruction);
    /* The whole function: skeleton of points and loops, around the print_* below. */
    void (*function)(struct printer *p, const char *name);
    /* What functions in `body` need to stand before them. */
    void (*prelude)(struct text *out, const char *body);
};
extern const struct dialect dialect_c;

/* dialect_c.c: slots of any dialect with C's expressions. */
void spell_map(const struct dialect *d, struct text *out, const struct instruction *n, dtype from,
               const char *const arg[3]);
void spell_constant(const struct dialect *d, struct text *out, const struct instruction *n);
void spell_load(struct text *out, dtype t, const char *element);
void spell_store(struct text *out, dtype t, const char *number);

void print_kernel(const struct dialect *d, const struct kernel *k, const struct dims *t, struct arena *arena,
                  struct text *out);
void print_kernel_as(const struct dialect *d, const struct kernel *k, const char *name, const struct dims *t,
                     struct arena *arena, struct text *out);
/* tpc_k_ and 16 hexadecimal digits */
enum { KERNEL_NAME = 24 };
void kernel_name(const struct kernel *k, const struct dims *t, struct arena *scratch, char name[KERNEL_NAME]);

/* Whether a load or store may find its dynamic index out of range. */
static inline bool print_may_fault(const struct instruction *a)
{
    return a->dynamic >= 0 && (!a->dynamic_zero || a->dynamic_whole != DIM_NONE);
}
void print_line(struct printer *p, const char *format, ...) TPC_PRINTF(2, 3);
void print_dim(const struct printer *p, dim d, struct text *out);
const char *print_dim_text(const struct printer *p, dim d);
const char *print_value(const struct printer *p, uint32_t instruction); /* its name, or the number itself */
/* Declares the index terms of a depth that sweep `sweep` needs. */
void print_indices(struct printer *p, uint32_t depth, uint32_t sweep);
/* Computes (and stores) what sweep `sweep` needs at a depth; for depths above the loops, what can be computed at stage `sweep`. */
void print_values(struct printer *p, uint32_t depth, uint32_t sweep);
/* Declares inN, whether the dynamic index of a load or store is in range; whether that was a fault goes to xN. */
void print_range(struct printer *p, uint32_t instruction);
/* The index of a load or store without its dynamic part; and what of that does not change with the fast loop. */
const char *print_index(const struct printer *p, uint32_t instruction);
const char *print_slow_text(const struct printer *p, uint32_t instruction);
void print_accumulate(struct printer *p, uint32_t instruction); /* C's slot: a NaN is counted in nanN */

/* ---- function_c.c, prelude_c.c: slots of dialect_c ---- */
void function_c(struct printer *p, const char *name);
void prelude_c(struct text *out, const char *body);
/* What an empty row gives. */
void print_neutral(const struct dialect *d, const struct instruction *a, struct text *out);
/* Type of the accumulator of a reduction. */
const char *print_accumulator_type(const struct dialect *d, const struct instruction *a);

/* A function that printed code may call. In a table, it comes after those that it calls itself. */
struct prelude_function {
    const char *name, *text;
};
extern const struct prelude_function prelude_functions_c[];
extern const uint32_t prelude_function_count_c;
/* Marks those of a table that are called in `body`, directly or by each other. */
void prelude_find(const struct prelude_function *table, uint32_t count, const char *body, bool *used);

/* ---- cache.c ---- */

/* A private directory for objects: owned by us, mode 0700. `temporary`: made for this process, removed with the arena. */
struct cache {
    const char *path;
    bool temporary;
};
status cache_open(struct arena *arena, const char *wanted, struct diag *diag, struct cache *out);
/* A directory of this process alone. */
status cache_temporary(struct arena *arena, struct diag *diag, struct cache *out);
/* An entry is a shared object with a trailer that seals its contents. false: absent, or broken (then it is removed). */
bool cache_check(const char *path);
/* The contents of an entry, to be given to base_free. NULL: absent, broken, or out of memory. */
void *cache_read(const char *path, size_t *bytes);
/* Seals `temporary` and gives it its name. */
bool cache_install(const char *temporary, const char *path);

/* ---- compile_c.c ---- */

struct compiler {
    const char *path; /* as it was found */
    char **argv;      /* with its arguments, before ours */
    uint32_t arguments;
    uint64_t identity; /* of path, size, time, arguments, flags and processor: a part of every entry's key */
};
/* Finds it without running it. false: there is none. */
bool compiler_find(struct arena *arena, const char *wanted, struct compiler *out);

/* One translation unit. */
struct unit {
    const char *source;
    size_t length;
    const char *object; /* where it is, or is to be, in the cache */
    bool cached;
};
/* Compiles all units that are not cached, `jobs` at a time. On a failure *failed is the unit and *log the compiler's words. */
status compile_units(struct arena *arena, const struct compiler *c, const struct cache *cache, struct unit *units,
                     uint32_t count, uint32_t jobs, uint32_t *failed, const char **log);

/* The first line of a compiler's words that is no warning. */
const char *compiler_complaint(struct arena *arena, const char *log);
/* Why not even an empty function comes out of this compiler and is loaded; NULL: one does. *loading: it is made, but not loaded. */
const char *compiler_objection(struct arena *arena, const struct compiler *c, const struct cache *cache, bool *loading);

/* ---- kernel_interpret.c ---- */

/* As kernel_function, but with the symbols of the whole table. coordinate: symbol of each axis; one that the table lacks has a number
 * from its count up. */
void kernel_interpret(const struct nest *n, const uint32_t *coordinate, void *const *buffers, const int64_t *of,
                      int64_t begin, int64_t end, int64_t *fault);
/* interpret_map.c: a value of one lane: a double, rounded to f32 where its type is no f64; or an int64 that holds its integer type exactly. */
union cell {
    double f;
    int64_t i;
};
double cell_round(dtype t, double x);
int64_t cell_wrap(dtype t, int64_t x);
bool cell_below(dtype t, int64_t a, int64_t b);
double cell_larger(double a, double b); /* NaN when either is */
double cell_smaller(double a, double b);
/* A MAP. from: type of the last operand. */
union cell cell_map(const struct instruction *n, dtype from, union cell a, union cell b, union cell c);
/* Lowers *fault to `code`. */
void kernel_fault(int64_t *fault, int64_t code);

#endif
