/* passes/fuse.h - what the files of fuse share; private to passes/.
 *
 * fuse walks the Program graph twice. The plan (fuse_plan.c) goes backward: every value is reached by *accesses*, (group, index expressions), before
 * it is looked at, and is then either inlined into the groups that read it (its operands get accesses) or materialised in a buffer
 * (its own group, or stored on the way by a group that computes it anyway: it is *hosted*). A group becomes one step. Then each group is
 * emitted (fuse_kernel.c, fuse_dot.c) in dependency order (fuse.c). Index arithmetic is in fuse_index.c, the walk through layout
 * operations in fuse_view.c.
 */
#ifndef TPC_PASSES_FUSE_H
#define TPC_PASSES_FUSE_H

#include "passes/passes.h"

/* ---- fuse_index.c: index expressions over the coordinates of one iteration space ---- */

enum { SPACE_AXES = 60 };
enum { AXIS_OUTER = 0, AXIS_INNER = 1 };                     /* kinds of a kernel's axes */
enum { AXIS_BATCH = 0, AXIS_M = 1, AXIS_N = 2, AXIS_K = 3 }; /* kinds of a dot's axes */

/* Coordinate i is dim_coordinate(dims, i), 0 <= it < extent[i]. `order` lists those that are iterated, outermost first, sorted by kind. */
struct space {
    struct dims *dims;
    uint32_t count, order_count;
    dim extent[SPACE_AXES];
    uint8_t kind[SPACE_AXES];
    uint8_t order[SPACE_AXES];
};

/* A new coordinate, innermost of its kind; DIM_NONE when there are too many. */
dim space_add(struct space *s, dim extent, uint8_t kind);
/* One that is not iterated: it stands for a dynamic index below `extent`. */
dim space_add_hidden(struct space *s, dim extent);
/* Quotient, remainder by b > 0 for a >= 0, simplified by what is known of the coordinates. */
dim index_div(const struct space *s, dim a, dim b);
dim index_mod(const struct space *s, dim a, dim b);
dim index_simplify(const struct space *s, dim d);
bool index_nonnegative(const struct space *s, dim d);
bool index_below(const struct space *s, dim d, dim bound); /* d < bound is provable */
bool index_uses(const struct space *s, dim d, uint32_t coordinate);
/* d == rest + coefficient * coordinate, both without it. */
bool index_linear(const struct space *s, dim d, uint32_t coordinate, dim *coefficient, dim *rest);
dim index_row_major(const struct space *s, uint32_t rank, const dim *shape, const dim *index);
/* The coordinates of the iterated axes from position `from` to `to` of the order, row-major. */
dim space_row_major(const struct space *s, uint32_t from, uint32_t to);
dim space_size(const struct space *s, uint32_t from, uint32_t to);
/* Splits one coordinate that some expression divides; rewrites all expressions. false: none does, or its extent is not a multiple. */
bool space_split(struct space *s, uint32_t count, dim *expression);
void space_split_all(struct space *s, uint32_t count, dim *expression);
/* Drops axes of extent 1 and merges neighbours of one kind that every expression runs through as one. */
void space_merge(struct space *s, uint32_t count, dim *expression, struct arena *arena);
/* Renumbers the iterated coordinates c0, c1, ... in order; extent and kind are then in order too. */
void space_renumber(struct space *s, uint32_t count, dim *expression);

/* ---- fuse_view.c: layout operations as index maps ---- */

/* May its element be found by index arithmetic alone: transpose, reshape, broadcast, slice, window, restrict, reverse, a value behind itself? */
bool view_is_map(const struct graph *g, value v);
/* operand index of result index; in: rank of v, out: rank of the operand. */
void view_map(struct graph *g, const struct space *s, value v, const dim *in, dim *out);
/* Result index of v (reshape or transpose) that holds the operand's element `in`. */
void view_forward(struct graph *g, const struct space *s, value v, const dim *in, dim *out);
/* Same elements in the same order: a buffer serves both. */
bool view_is_alias(struct graph *g, value v);
/* The value whose buffer v is, as far as aliases go. */
value view_root(struct graph *g, value v);

/* ---- fuse_plan.c ---- */

struct access {
    uint32_t group;
    bool dense;       /* wants a buffer; else reads at index */
    const dim *index; /* of the value's rank */
    uint32_t next;    /* 0: last */
};

enum { GROUP_SIZE_LIMIT = 160 }; /* accesses inlined into one kernel */
enum group_kind { GROUP_KERNEL, GROUP_DOT, GROUP_STEP, GROUP_COPY };

struct group {
    enum group_kind kind;
    value root;
    int32_t part;   /* root is a concat, of which this stores operand `part`; -1 */
    bool is_static; /* PHASE_LOAD */
    struct space space;
    const dim *index; /* of the root (or part) at the group's coordinates */
    uint32_t row_count;
    dim row[MAX_RANK]; /* coordinates of the row, in order of the reduced axes */
    dim row_extent[MAX_RANK];
    uint32_t size;   /* accesses inlined so far */
    uint32_t output; /* GROUP_COPY: graph->outputs */
    LIST(value) hosted;
    LIST(value) reads;          /* materialised values that it reads, not leaves */
    value operand[2];           /* dot: whose buffers; */
    dim linear[3];              /* dot: element of each buffer at the coordinates */
    uint32_t mark, reader_mark; /* of the last search that came by */
    uint32_t reader_count;      /* accesses of the value in hand */
};

struct estimate {
    uint16_t operations, loads; /* to recompute one element from what surely lies in a buffer */
    bool heavy;                 /* with an expensive function, or a reduction */
};

/* Where a state lies that is written in place. */
struct state_memory {
    value past; /* the input; 0: this one is not */
    uint32_t capacity;
    dim before, after; /* extents of past and present along its axis */
    const dim *shape;  /* with the capacity there: strides come from it */
};

struct plan {
    struct arena *arena; /* of the result */
    struct graph *graph;
    struct diag *diag;
    struct uses uses;
    struct estimate *estimate; /* per value */
    bool *is_static;           /* depends on params and constants alone */
    uint32_t *accesses;        /* per value: first of `pool`, 0 none */
    LIST(struct access) pool;  /* [0] is reserved */
    struct map seen;           /* accesses so far */
    LIST(struct group *) groups;
    bool *materialised;          /* per value: has a buffer of its own */
    uint32_t *producer;          /* per materialised value: 1 + first group that writes it, 0: a leaf */
    uint32_t *producers;         /* how many consecutive groups write it */
    value *written_as;           /* of a dot: the value in whose layout it writes, 0: not planned */
    double *scale;               /* of a dot: what its buffer must be multiplied by as it is loaded, 0: nothing */
    value *base;                 /* of a gather: the value whose buffer it indexes */
    uint32_t *output;            /* per value: 1 + the output whose buffer holds it */
    uint32_t *state;             /* per value: 1 + the state in whose memory it lies, 0: in none */
    struct state_memory *memory; /* per state */
    uint32_t mark;
};

status fuse_plan(struct plan *p);
/* Fills estimate and is_static. fuse_prepare.c */
void plan_prepare(struct plan *p);
static inline struct group *plan_group(const struct plan *p, uint32_t group)
{
    return p->groups.at[group];
}
struct group *plan_add_group(struct plan *p, enum group_kind kind, value root, uint32_t *number);
/* v is read by the group: at `index`, or (dense) as a buffer. */
void plan_access(struct plan *p, uint32_t group, value v, const dim *index, bool dense);
/* From now on v lies in a buffer written by groups [first, first + count); each access of it, but those of group `host`, is a load. */
void plan_set_producer(struct plan *p, value v, uint32_t first, uint32_t count, uint32_t host);
/* Index into the operand of reduction n at result index `index` and the group's row. */
void plan_reduced_index(const struct group *g, const struct node *n, uint32_t rank, const dim *index, dim *out);
void plan_make_inner(struct space *s, const uint32_t *coordinates, uint32_t count);
value plan_dot_behind(const struct plan *p, value v);

/* ---- fuse_state.c ---- */

/* Fills state and memory. Requires uses. */
void plan_states(struct plan *p);
/* The shape that the strides of v's buffer come from. */
const dim *plan_shape(const struct plan *p, value v);
/* view_is_alias, view_root, but what lies in a state's memory is not dense. */
bool plan_is_alias(const struct plan *p, value v);
value plan_root(const struct plan *p, value v);
/* The pad v of a past writes what is behind the past; the scatter v writes into what it scatters to. */
void plan_extension(struct plan *p, value v);
void plan_scatter(struct plan *p, value v);
/* Update `index` of scatter v goes to element linear + d * stride of its memory, for an index d. */
void plan_scatter_view(const struct plan *p, const struct space *s, value v, const dim *index, dim *linear,
                       dim *stride);

/* ---- fuse_host.c ---- */

/* The access whose group is to store v: that of the earliest reader that has no other access. NULL: none can. */
const struct access *plan_host(struct plan *p, value v);

/* ---- fuse_dot.c: strided views of buffers ---- */

/* All contracted extents are 1: a product of broadcast operands, no step. */
bool plan_is_product(const struct plan *p, value dot);
/* Indices of a dot's operands (0: lhs, 1: rhs) at result index `index` and contracted index 0. */
void plan_dot_where(const struct plan *p, value dot, const dim *index, int operand, dim *where);
/* Is every element of v one and the same finite constant, not 0? */
bool plan_uniform(const struct plan *p, value v, double *number);
/* Plans the dot to write its result as value `as` (itself, or a transpose of it). false, and nothing done, when that is not a strided view. */
bool plan_dot(struct plan *p, value dot, value as);
/* Index into the operand 1 of gather v. */
void plan_gather_where(const struct plan *p, value v, const dim *index, dim *where);
/* Walks from gather v's operand 0 up to `stop` (0: as far as the element is linear in what is gathered): the element `linear` + d * `stride` of the value
 * returned is what index d picks. s gets a hidden coordinate. */
value plan_gather_view(struct plan *p, struct space *s, value v, const dim *index, value stop, dim *linear,
                       dim *stride);
/* The step's description, from group->linear. */
const struct dot *fuse_dot(struct plan *p, const struct group *g);

/* ---- fuse_kernel.c ---- */

/* The kernel of a group; *buffers: the values whose buffers it takes, in the kernel's order. */
status fuse_kernel(struct plan *p, uint32_t group, struct kernel *out, value **buffers);

#endif
