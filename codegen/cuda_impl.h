/* codegen/cuda_impl.h - what the files of CUDA's code generation share; private to codegen/.
 *
 * A Kernel's nest takes one of four forms on a GPU. The form decides the text and, with the symbols' values, the launch; both sides read it from
 * struct cuda_form, which depends on the nest alone.
 */
#ifndef TPC_CODEGEN_CUDA_IMPL_H
#define TPC_CODEGEN_CUDA_IMPL_H

#include "codegen/cuda.h"
#include "codegen/dialect.h"

/* ---- form_cuda.c ---- */

typedef enum cuda_shape {
    CUDA_POINTS, /* a thread for every `width` elements along the fast loop */
    CUDA_TILES, /* as that, in tiles of TILE x TILE over the fast loop and the innermost axis of points: what runs along the latter passes shared memory */
    CUDA_ROWS,  /* threadIdx.x runs along the row: a warp per row (blockDim.y rows per block), or a block per row */
    CUDA_COLUMNS /* a thread per row, since neighbouring rows are neighbours in memory, or rows are very short */
} cuda_shape;

enum { CUDA_TILE = 32, CUDA_TILE_ROWS = 8, CUDA_WARP = 32, CUDA_POINT_THREADS = 256, CUDA_ROW_THREADS = 512 };

struct cuda_form {
    cuda_shape shape;
    uint32_t width;   /* elements along the fast loop per thread and step */
    uint32_t threads; /* per block, at most */
    bool *wide;       /* per instruction: an access of `width` elements at once, aligned to their size or 16 bytes */
    bool *steady;     /* per instruction: a condition that holds for all of `width` elements or for none */
    bool *tiled;      /* per instruction: CUDA_TILES: a load through shared memory */
    uint32_t
        turns; /* CUDA_ROWS: a thread has at most so many steps of a row, for which it keeps what it reads; 0: any number */
    bool *kept; /* per instruction: a wide load that is kept so */
};
struct cuda_form cuda_form_of(const struct nest *n, struct arena *arena);
/* d is a multiple of `by` for all values of symbols and coordinates, provably. */
bool cuda_divides(const struct dims *t, dim d, int64_t by);

/* ---- join_cuda.c ---- */

enum { CUDA_PARTS = 8 };

/* Kernels that do not depend on each other: one launch, its blocks shared out. */
struct cuda_join {
    uint32_t count, step[CUDA_PARTS];
    uint32_t place;    /* the step in whose place they run */
    uint32_t function; /* where there are several */
};

/* ---- cuda.c ---- */

/* A kernel of the Program. */
struct cuda_kernel {
    struct nest nest;
    struct cuda_form form;
    uint32_t function;
};

enum { CUDA_ATTENTION_FORMS = 7 };

/* A product and the kernel that adds something to it and stores the sum: the library adds. */
struct cuda_epilogue {
    uint32_t dot, kernel;         /* steps */
    bool biased, adds;            /* what is added: a bias, a residual, or both */
    uint32_t bias, residual, sum; /* buffers */
    dim columns;                  /* elements of the bias, which is added to every row of so many */
    bool gone;                    /* that kernel does nothing else */
    struct cuda_kernel behind;    /* else what it does where the sum is made */
    struct step step;             /* its arguments */
};

/* Three steps that are one function: a product of q and k, a softmax of whatever is made of the scores, a product with v. */
struct cuda_attention {
    uint32_t scores, softmax, product; /* steps */
    int32_t load, score;               /* of the kernel: reads a product; gives what the softmax is of */
    uint32_t from, to;                 /* kernel-local buffers: products, probabilities */
    bool nan_is_zero;                  /* a row without any key gives 0 */
    int32_t zero;                      /* of the kernel: a condition under which a row gives 0; -1: none */
    int32_t sink;                      /* of the kernel: one more score of the row, which has no value; -1: none */
    uint32_t axes;                     /* of points, outermost: a tile's rows have the same coordinates there */
    bool always;                       /* whatever the shapes: scores and probabilities then need no memory */
    bool alike;                        /* rows are the same axes, in one order, for both products and the kernel */
    bool across;                       /* neighbouring keys lie side by side */
    bool steady;                       /* few rows: splits are found where positions are known */
    uint32_t function[CUDA_ATTENTION_FORMS];
    int64_t rows[CUDA_ATTENTION_FORMS], bytes[CUDA_ATTENTION_FORMS]; /* per block; of dynamic shared memory */
};

enum {
    CUDA_SKINNY_ROWS = 8, /* at most */
    CUDA_SKINNY_UNITS = 4,
    CUDA_SKINNY_LEVELS = 4,
    CUDA_SKINNY_THREADS = 256,
    CUDA_SKINNY_TILES = 1024 /* most that several blocks may share */
};

/* Steps that one function may do for few rows (skinny_cuda.c): units of one or two dots with weights, all of the same left operand, each with the
 * kernel behind it; the row kernel before them. */
struct cuda_skinny {
    uint32_t place; /* the last of them: does it all */
    uint32_t units, width;
    struct cuda_skinny_unit {
        uint32_t dot[2], epilogue; /* steps; epilogue 0: there is none */
        int32_t load[2];           /* of the epilogue's kernel: reads the product */
    } unit[CUDA_SKINNY_UNITS];     /* dot[width] */
    uint32_t norm;                 /* step */
    int32_t normal;                /* of the norm's kernel: stores the left operand; -1: there is no norm */
    bool along_k;                  /* how the weights lie */
    bool joins;                    /* only after cuda_join_steps */
    uint32_t function[2];          /* for one row, for several; UINT32_MAX: not for these */
};

/* Blocks that a multiprocessor has room for: 2, 3 or 4, with 128, 80 or 64 registers for each thread, as what the function does asks for. */
static inline uint32_t cuda_skinny_room(const struct cuda_skinny *a, dtype t, bool several)
{
    bool normal = a->normal >= 0;
    if (several || (normal && (a->along_k || dtype_size(t) > 2)))
        return 2;
    return normal || a->along_k ? 3 : 4;
}

/* Columns that a warp takes at once, where weights lie along k. */
static inline uint32_t cuda_skinny_columns(bool several)
{
    return several ? 2 : 4;
}

/* The candidates of a step, each contained in the next. */
struct cuda_skinny_steps {
    uint32_t count, at[CUDA_SKINNY_LEVELS];
};

struct cuda_set {
    struct arena *arena;
    const struct program *program;
    struct map by_name; /* -> functions */
    LIST(struct cuda_function) functions;
    struct cuda_kernel *kernel; /* per kernel of the Program */
    uint32_t *of_step;          /* per step that is no kernel: 1 + its first function, 0: none */
    uint32_t copy_rows;         /* the function */
    LIST(struct cuda_attention) attentions;
    LIST(struct cuda_skinny) skinnies;
    struct cuda_skinny_steps *skinny; /* per step */
    uint32_t *
        alike; /* per step: the last of the dots of one left operand and one shape, in whose place all are done; 0: it is alone */
    LIST(struct cuda_epilogue) epilogues;
    uint32_t *epilogue; /* per step, as attention */
    LIST(struct cuda_join) joins;
    uint32_t *join_at, *joined_by; /* per step: 1 + the one that runs in its place, and that it is part of */
    bool joined;                   /* attention may be taken together: cuda_join_steps */
    uint32_t *attention;           /* per step: 1 + the one that it is part of, 0: none */
    struct cuda_counts counts;
    bool released_with_arena; /* images */
};

/* The function of that name; when it is new, `body` (which defines ENTRY(name, threads)) gets its prelude. */
uint32_t cuda_add(struct cuda_set *set, const char *name, const char *body, uint32_t threads, value node);

/* ---- fill_cuda.c ---- */

/* What stands for $A .. $Z. */
struct cuda_letters {
    const char *of[26];
};
void cuda_fill(struct text *out, const char *form, const struct cuda_letters *l);
const char *cuda_number(struct arena *arena, int64_t number);
/* Defines value_of and element_of: an element in memory as a value, and back. */
void cuda_put_element(struct text *out, dtype t);

/* ---- launch_cuda.c ---- */

static inline int64_t cuda_divide_up(int64_t a, int64_t b)
{
    return a / b + (a % b != 0);
}

/* A launch in the making: words are added in the order of the entry's arguments. */
struct cuda_making {
    const struct cuda_set *set;
    uint32_t step;
    const int64_t *of;
    uint32_t processors;
    struct arena *arena;
    LIST(struct cuda_word) words;
};
void cuda_put_buffer(struct cuda_making *m, uint32_t buffer, int64_t bytes);
void cuda_put_number(struct cuda_making *m, int64_t number);
void cuda_put_workspace(struct cuda_making *m, int64_t bytes);
/* What tpc_divide(n, ..) needs to divide by d, 1 to 2^31, an n of less than 2^31. */
void cuda_put_divisor(struct cuda_making *m, int64_t d);
void cuda_put_fault(struct cuda_making *m); /* the cell and the step */
/* Ends the launch. `blocks` may be more than a grid holds: then it is the most that it does, since all entries loop. */
struct cuda_launch cuda_launch_of(struct cuda_making *m, uint32_t function, int64_t blocks, uint32_t x, uint32_t y,
                                  uint32_t shared_bytes);
/* The words of a kernel's arguments. */
void cuda_put_kernel(struct cuda_making *m, const struct nest *n, const struct step *s);
/* A kernel that is launched for step s. */
status cuda_kernel_of(struct cuda_making *m, const struct cuda_kernel *k, const struct step *s, struct cuda_step *out);
status cuda_kernel_step(struct cuda_making *m, struct cuda_step *out);

/* ---- dot_cuda.c ---- */

/* A dot in numbers, axes merged: those of extent 1 dropped, neighbours joined where all operands step alike. */
struct cuda_view {
    uint32_t count[4]; /* batch, m, n, k */
    int64_t extent[4][MAX_RANK], stride[3][4][MAX_RANK];
    int64_t offset[3];
};
enum { VIEW_BATCH, VIEW_M, VIEW_N, VIEW_K };
bool cuda_view_of(const struct dot *d, const struct dims *t, const int64_t *of, struct cuda_view *out);
/* Product of a group's extents. */
int64_t cuda_view_extent(const struct cuda_view *v, uint32_t group);
uint32_t cuda_add_dot(struct cuda_set *set, const struct step *s);
void cuda_find_alike(struct cuda_set *set);
status cuda_dot_step(struct cuda_making *m, struct cuda_step *out);

/* As products for the library; false: its strides do not allow that. */
bool cuda_products_of(struct cuda_making *m, const struct cuda_view *v, dtype type, struct cuda_step *out);

/* ---- epilogue_cuda.c: after all others ---- */

void cuda_find_epilogues(struct cuda_set *set);
void cuda_keep_epilogues(const struct cuda_set *set, struct program *p);
/* A step that is part of one, for these shapes; false: it is as ever. */
bool cuda_epilogue_step(struct cuda_making *m, struct cuda_step *out);

/* ---- join_cuda.c: after cuda_find_attention and cuda_find_skinny ---- */

void cuda_find_joins(struct cuda_set *set);
/* Says to the Program how long what joined kernels read and write must live. */
void cuda_keep_joined(const struct cuda_set *set, struct program *p);
/* What runs in the place of a step that is part of one. */
status cuda_join_step(struct cuda_making *m, struct cuda_step *out);

/* ---- skinny_cuda.c, skinny_launch_cuda.c, skinny_text_cuda.c ---- */

void cuda_find_skinny(struct cuda_set *set);
/* For cuda_join_steps. */
void cuda_keep_skinny(const struct cuda_set *set, struct program *p);
/* The function for one row or for several. */
uint32_t cuda_add_skinny(struct cuda_set *set, const struct cuda_skinny *a, bool several);
/* The step by the largest candidate that fits these shapes; false: none does. */
bool cuda_skinny_step(struct cuda_making *m, struct cuda_step *out);

/* ---- attention_cuda.c, attention_text_cuda.c, attention_few_cuda.c, attention_split_cuda.c, attention_many_cuda.c, attention_matrix_cuda.c,
 * attention_narrow_cuda.c, attention_mask_cuda.c, attention_launch_cuda.c ---- */

/* The forms: for few rows by 16-byte accesses (two) or by single elements; for many rows by single elements or by 16-byte accesses; for few rows by tensor cores, or
 * of keys whose elements lie apart and neighbours side by side. */
enum {
    CUDA_ATTENTION_FEW = 2,
    CUDA_ATTENTION_MANY = 3,
    CUDA_ATTENTION_MANY_WIDE = 4,
    CUDA_ATTENTION_FEW_MATRIX = 5,
    CUDA_ATTENTION_FEW_ACROSS = 6,
    CUDA_ATTENTION_THREADS = 128
};
enum { CUDA_ATTENTION_TILES = 4096, CUDA_ATTENTION_SPLITS = 64 };

/* Keys that a score hides from a row whatever the product is, by conditions (instructions): on positions, which change once along the keys, and on a key, the
 * same for rows that lie together. */
enum { CUDA_MASK_CONDITIONS = 8 };
enum cuda_mask_kind { CUDA_MASK_GROWS, CUDA_MASK_FALLS, CUDA_MASK_OF_KEY, CUDA_MASK_KINDS };
struct cuda_conditions {
    uint32_t count;
    int32_t at[CUDA_MASK_CONDITIONS];
    int slope
        [CUDA_MASK_CONDITIONS]; /* 1, -1: by so much its left side less its right grows from key to key, in integers; 0: else */
    bool *needed;               /* per instruction: for them */
};
struct cuda_mask {
    struct cuda_conditions of[CUDA_MASK_KINDS]; /* true from some key on; until some key; of a key */
    uint32_t axes;                              /* of points, outermost, that those of a key depend on: not all */
    uint32_t operations;                        /* of a score, but those of conditions on a key */
    bool loads;                                 /* some read memory */
    int32_t plain;                              /* what the score is where all hold */
    bool steady;                                /* some have a slope */
    bool finite;                                /* some hide only where the row has a score above `least` */
    double least;
};
/* product: the load that is no condition's. */
struct cuda_mask cuda_attention_mask(const struct nest *n, int32_t score, int32_t product, struct arena *arena);
/* Finds the keys low .. high that some row of the warp's may see, by conditions that have a slope, and how many of them a split has; the coordinates and values of the
 * lane's row are known. low is a multiple of `align` unless that is 0. */
void cuda_attention_print_seen(struct printer *p, const struct cuda_mask *mask, int align,
                               const struct cuda_letters *letters);
/* Finds first_tile and end_tile, of $K keys, for the $G rows of a tile of rows (`base`, `here`): what lies outside is hidden from all of them. edge_of[warp] has the same
 * for a quarter of the rows, and first and end of tiles of which no condition on positions hides anything from those. `place` is NULL or what a thread does for row
 * `r` of the tile, whose values are known; only then is all that found where there is no condition. */
void cuda_attention_print_range(struct printer *p, const struct cuda_mask *mask, const struct cuda_letters *letters,
                                const char *place);
/* Looks at a tile's keys, as far as conditions on a key say whether they are seen, a lane at some of them. The tile's first key is `from`, its last `last`. */
void cuda_attention_print_look(struct printer *p, const struct cuda_mask *mask, const struct cuda_letters *letters);
/* Tells all lanes; `every` has all bits where none is hidden. */
void cuda_attention_print_bits(struct printer *p, const struct cuda_mask *mask, const struct cuda_letters *letters);
/* A score with what has been seen; one where all conditions hold. */
void cuda_attention_print_masked(struct printer *p, const struct cuda_mask *mask, int32_t score);
void cuda_attention_print_plain(struct printer *p, const struct cuda_mask *mask);

/* A function's text around what is printed for the kernel: `row` is known behind `start`, `product` and the key's coordinate behind `loop`,
 * `score` before `end`. Where a thread has several rows, `row` is known behind `rows` (for each, `own`), whose coordinates are kept; `loop` ends for each
 * again, and `product` is known behind `element`. The same, for keys that no condition hides, between `plain` and `otherwise`, if there are. */
struct cuda_attention_form {
    const char *name, *functions, *start, *place, *fetch, *rows, *loop, *copies, *products, *plain, *otherwise,
        *element, *end, *out;
    const char *rounded; /* what stands for a product in memory, or NULL: `product` is rounded */
    uint32_t threads;
    int align;                                                       /* of the first key of few rows; 0: none */
    int64_t group, bytes;                                            /* rows of a block; its dynamic shared memory */
    int row_count, row_indent, element_indent, score_indent, blocks; /* blocks at once on a multiprocessor, at least */
    bool
        tiles; /* it goes through tiles of keys, found behind `start`, then `fetch`; `place` is done by a thread for each row, and coordinates are kept in shared memory */
};
struct cuda_attention_form cuda_attention_few(struct cuda_set *set, struct cuda_letters *l, dtype t, int form,
                                              int64_t key, int64_t row);
struct cuda_attention_form cuda_attention_many(struct cuda_set *set, struct cuda_letters *l, bool wide, int64_t key,
                                               int64_t row);
/* Are keys and values whole 16-byte accesses long? */
static inline bool cuda_attention_may_be_wide(dtype t, int64_t key, int64_t row)
{
    int64_t width = 16 / (int64_t)dtype_size(t);
    return key % width == 0 && row % width == 0;
}
/* Wider heads would not fit into registers. */
bool cuda_attention_may_be_narrow(dtype t, int64_t key, int64_t row);
struct cuda_attention_form cuda_attention_narrow(struct cuda_set *set, struct cuda_letters *l, dtype t, int64_t key,
                                                 int64_t row);
struct cuda_attention_form cuda_attention_matrix(struct cuda_set *set, struct cuda_letters *l, dtype t, bool wide,
                                                 bool rounds, const struct cuda_mask *mask, int64_t key, int64_t row);
extern const char *const cuda_attention_stage_form[2];
extern const char cuda_attention_shared_form[], cuda_attention_place_form[], cuda_attention_turns_form[];
extern const char cuda_attention_gather_form[];
extern const char cuda_attention_items_form[];
/* Few rows: keys that a warp takes at a time. */
uint32_t cuda_attention_keys(int form, dtype t, int64_t key, int64_t row);
/* Floats of a row's part in the workspace. */
static inline int64_t cuda_attention_pitch(int64_t row)
{
    return (row + 3) / 4 * 4 + 4;
}
/* Adds the functions. */
void cuda_add_attention(struct cuda_set *set, struct cuda_attention *a);

/* A step may be done in the place of a later one: none between writes to memory that outlives the run (a state's new value may lie where its old one
 * does, which the step may read). */
bool cuda_may_wait(const struct program *p, uint32_t step, uint32_t until);
/* Finds them, and adds their functions. */
void cuda_find_attention(struct cuda_set *set);
/* Axes of a dot's result that are rows; the widths of a key and of a value, both constant. */
uint32_t cuda_rows_axes(const struct dot *d);
bool cuda_attention_widths(const struct cuda_set *set, const struct cuda_attention *a, int64_t *key, int64_t *row);
/* Whether these three steps are one for these shapes. */
bool cuda_attention_fits(const struct cuda_making *m, const struct cuda_attention *a);
status cuda_attention_step(struct cuda_making *m, const struct cuda_attention *a, struct cuda_step *out);

/* ---- builtin_cuda.c ---- */

/* Adds the functions of a builtin step; 1 + the first. */
uint32_t cuda_add_builtin(struct cuda_set *set, const struct step *s);
status cuda_builtin_step(struct cuda_making *m, struct cuda_step *out);
uint32_t cuda_add_copy_rows(struct cuda_set *set);
uint32_t cuda_add_combine(struct cuda_set *set, dtype type, int32_t reduction);
/* Defines a function that gives a uint64_t > 0: larger for larger x, largest for NaN. */
void cuda_put_order(struct text *out, const char *name, dtype t);
void cuda_put_address(struct cuda_making *m);

/* ---- best_cuda.c ---- */

/* Functions for the Program's outputs that may be logits. */
void cuda_add_best(struct cuda_set *set);
/* What is found so far, an order and where that is; two, a warp's, a block's put together. */
extern const char cuda_found_form[];

/* ---- draw_cuda.c ---- */

void cuda_add_draw(struct cuda_set *set, dtype type, value node);

/* ---- dialect_cuda.c, function_cuda.c, prelude_cuda.c ---- */

/* Members of the arguments, from the kernel's buffers (but those of `skip`, which may be NULL), symbols, and the fault; then as locals. */
void cuda_print_members(struct printer *p, const bool *skip);
void cuda_print_locals(struct printer *p, const bool *skip);
void cuda_print_fault_reports(struct printer *p);
/* All sweeps of a row by its threads (CUDA_ROWS), or by one (CUDA_COLUMNS), the point's coordinates being known. */
void cuda_print_row(struct printer *p, const struct cuda_form *form);
/* The coordinates of these axes at row-major position `from`, a name. */
void cuda_print_coordinates(struct printer *p, const uint8_t *axis, uint32_t count, const char *from);
struct dialect dialect_cuda(void);
struct dialect dialect_cuda_of(const struct kernel *k); /* with exact conversions where it looks at bits */
void function_cuda(struct printer *p, const char *name);
/* As a device function that is told its block and how many there are. */
void cuda_part_function(struct printer *p, const char *name);
void prelude_cuda(struct text *out, const char *body);
/* prelude_matrix_cuda.c: a part of its table */
extern const struct prelude_function prelude_functions_matrix[];
extern const uint32_t prelude_function_count_matrix;

#endif
