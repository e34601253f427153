/* solver/internal.h - what the parts of the solver share.
 *
 * Terms. A *region* is a connected piece of the graph between switch points; a *unit* is a switch point (a linear, an embedding, or an edge
 * between two regions). Every axis of a region's value is a tree of factors (factors.c); leaves that are tied are one *class*. A region's decision
 * gives masks of sub-axes to its classes; a unit's decision says how it takes its operand and gives its result. Costs add up and compare
 * lexicographically.
 */
#ifndef TPC_SOLVER_INTERNAL_H
#define TPC_SOLVER_INTERNAL_H

#include "solver/solver.h"

/* ---- factors.c: trees ---- */

typedef uint32_t tree; /* index into solver->trees; 0 is none */

enum tree_kind { TREE_LEAF, TREE_PROD, TREE_SUM };
enum block { /* why a class cannot be cut */
             BLOCK_NONE,
             BLOCK_CONTRACTED, /* contracted by a product of two activations */
             BLOCK_REDUCED,    /* reduced by an op that is no switch point */
             BLOCK_WHOLE_AXIS, /* an op needs the axis whole: gathered, scanned, sorted, padded, windowed */
             BLOCK_OPAQUE,     /* a reshape mixes it with others */
             BLOCK_SLICED,     /* cut at places that depend on run-time extents, or not at factor boundaries */
             BLOCK_TWICE,      /* two axes of one value hold it */
             BLOCK_PACKED      /* segments inside another factor */
};

enum row_kind { ROW_NONE, ROW_BATCH, ROW_SEQUENCE }; /* rows.c */

struct tree_node {
    uint8_t kind, block;
    uint16_t blocks; /* all reasons, bit per enum block; `block` is the first */
    bool candidate;  /* lies on a weight of a linear or an embedding */
    bool stacked;    /* on an axis that a linear\'s weight has beside its inputs and outputs: experts */
    dim extent;
    tree link; /* this node stands for that one */
    uint32_t count;
    tree *child;              /* PROD: outermost first; SUM: in order */
    value why;                /* node that blocked it */
    uint32_t region, ordinal; /* classes: 1 + index among the region's classes */
    uint8_t row;              /* enum row_kind */
    uint32_t mask, partition; /* the current decision */
};

struct tie { /* one union, for explanations */
    tree a, b;
    value node;
};

typedef LIST(tree) tree_list;

/* ---- classify.c: what each value is ---- */

enum role { ROLE_PRELUDE, ROLE_OP, ROLE_LINEAR, ROLE_EMBEDDING, ROLE_STATE };
enum { DEPENDS_INPUT = 1, DEPENDS_PARAM = 2, DEPENDS_LINEAR = 4, DEPENDS_EMBEDDING = 8, DEPENDS_STATE = 16 };

struct cost {
    int64_t bytes, time, switches;
};

enum unit_kind { UNIT_LINEAR, UNIT_EMBEDDING, UNIT_EDGE };
struct unit {
    enum unit_kind kind;
    value node;
    uint32_t slot;     /* operand position of the activation (the indices of an embedding; the edge's) */
    value source;      /* the activation */
    uint32_t from, to; /* regions; 0: prelude */
    value joint;       /* root of the partial-sum tree that the result belongs to; 0 for edges */
};

enum take { TAKE_FOLLOW, TAKE_WHOLE, TAKE_OWN };
struct unit_option {       /* `in`: the contracted axes, or the vocabulary; `out`: the weight's other axes */
    uint8_t in, out, rows; /* rows: TAKE_FOLLOW the result's region, TAKE_WHOLE the source's */
    uint32_t in_mask, out_mask;
};

struct region {
    uint32_t value_count;
    value *values; /* ascending */
    uint32_t class_count;
    tree *classes;      /* candidates that may be cut, in order of first appearance */
    uint32_t *conflict; /* per class: mask of classes that share a value with it */
    uint32_t *allowed;  /* per class: the sub-axes that it may take, by the roles of their axes */
    uint32_t row_count;
    tree *rows; /* batches and sequences */
    uint32_t unit_count;
    uint32_t *units;
    uint32_t signature;    /* equal for isomorphic regions */
    bool routes;           /* gives its values to stacked weights through edges set apart: a router */
    uint32_t shared_count; /* values that several units take: gathered once when the decision says so */
    value *shared;
    uint32_t *shared_holds; /* per shared value: the classes that it holds */
    uint32_t shared_rows;   /* those that hold a sequence, as a mask */
    uint32_t shard_count;   /* values on sequence shards that several units take: gathered once */
    value *shards;
    /* mask per class; then the shared values that are gathered, as a mask; then the sub-axes of the tensor axis that cut the sequence. NULL: not
     * decided */
    const uint32_t *decision;
};

/* All pins of one unit, met; pins.c. */
struct unit_pin {
    struct layer_parts want;
    bool follow_in, follow_out; /* no conversion there */
    bool own_in, own_out;       /* may cut on its own there */
    const struct pin *from[5];  /* who said so, per field of `want` */
};
struct region_pin {
    const struct pin *pin;
    struct region_pin *next;
};

struct solver {
    struct graph *g;
    struct graph *scratch; /* shares g's tables; holds the partitions tried */
    struct arena *arena, *temporary;
    struct diag *diag;
    const struct solve_options *options;
    struct mesh *mesh;
    uint32_t over[AXIS_ROLE_COUNT]; /* per role: the sub-axes of its axes, as a mask */
    struct uses uses;
    uint32_t node_count;
    bool *live;
    uint8_t *role, *depends;
    uint32_t *apart; /* per value: mask of the operands that reach it through a switch point of their own (stacked.c) */
    uint32_t *region_of; /* per value; 0: prelude */
    tree **axes;         /* per value of a region: a tree per axis */
    tree ***slot;        /* per op of a region and operand position */
    bool rows;           /* batch or sequence may be cut */
    uint64_t *whole;     /* per value of a region, as its op gives it: rows that are whole (struct view) */
    uint64_t **whole_at; /* the same per op and operand position, as the op takes it; NULL: none */
    value *joint_parent; /* the only use that passes a partial sum on; 0 */
    value *joint_root;
    uint32_t *joint_seen, joint_stamp;
    uint32_t *chain;  /* per value of a region: equal for values whose sums go equal ways */
    uint32_t *cone;   /* per prelude value: equal for equal computations (params by shape) */
    bool *is_output;  /* per value: a graph output, states' too */
    bool *handed_out; /* per value: an ordinary graph output, whole in the end */
    bool *gathered;   /* per value: made whole once, for all units that take it so */
    LIST(struct tree_node) trees;
    LIST(struct tie) ties;
    LIST(struct region) regions; /* [0] is reserved */
    LIST(struct unit) units;
    struct unit_option *chosen; /* per unit */
    LIST(int64_t) nominal[2];   /* per dim: value at prefill, decode; -1 not yet known */
    int64_t *symbol[2];
    const struct machine *machine;
    int64_t param_bytes; /* of all params */
    bool *negligible;    /* per param: all of its shape together are under 0.1 % of that */
    struct solve_stats stats;
    uint32_t *readers;              /* per param: linears and embeddings that read it */
    struct map seen;                /* components already solved: their number among those in `solved` */
    LIST(void *) solved;            /* struct profile */
    uint32_t *tree_owner;           /* per value, while grouping */
    bool even;                      /* only equal parts */
    struct unit_pin **unit_pin;     /* per unit; NULL: no pins */
    struct region_pin **region_pin; /* per region; NULL: no pins */
};

tree tree_find(const struct solver *s, tree t);
/* Makes every later tree_find one step; when all ties are made. */
void trees_flatten(struct solver *s);
tree tree_leaf(struct solver *s, dim extent);
void tree_block(struct solver *s, tree t, enum block why, value node);
/* Ties two axes of equal extent. What cannot be matched is blocked. */
void tree_unify(struct solver *s, tree a, tree b, value node);
/* Ties two products (outermost first) of equal total. */
void tree_align(struct solver *s, tree_list *a, tree_list *b, value node);
tree tree_slice(struct solver *s, tree t, dim start, dim size, value node);
tree tree_concat(struct solver *s, uint32_t count, const tree *part, dim extent);
/* Refines the leaves of one axis as the other's are, without tying them; true when something changed. */
bool tree_mirror(struct solver *s, tree a, tree b);
/* Leaves in order, each once per occurrence. */
void tree_leaves(const struct solver *s, tree t, struct arena *arena, tree_list *out);

/* ---- rules.c: one function per rule of ops.def ---- */
void rules_apply(struct solver *s);
bool op_passes_sum(const struct graph *g, const struct node *n, uint32_t operand);

/* ---- classify.c ---- */
void classify(struct solver *s);
bool is_internal(const struct solver *s, value v, uint32_t operand);
void find_joints(struct solver *s); /* anew, when what stands in their way has become known */

/* ---- rows.c: batch and sequence ---- */
/* Makes row axes alike on both sides of every unit; after rules_apply. */
void rows_mirror(struct solver *s);
/* Names the rows of all regions and finds where they are whole; when candidates and blocks are known. */
void rows_find(struct solver *s);
/* Sub-axes over which a reduction sums up rows of which each rank has a part, under the decisions. */
uint32_t rows_summed(struct solver *s, value v);
/* Whether it may, under some decision. */
bool rows_may_sum(struct solver *s, value v);
/* Whether a conversion of rows stands at an operand inside a region. */
bool rows_convert(const struct solver *s, value v, uint32_t operand);
/* Whether some op of its region takes a value with more rows whole than it is made with. */
bool rows_gathered(const struct solver *s, value v);
/* Writes down which rows are cut over what, under the decisions, and what the mesh's axes are not used for (NULL: nothing to say). */
const char *rows_report(struct solver *s, struct arena *arena, struct solution *out);
/* Whether a value as made holds a cut row of that kind. */
bool rows_hold(struct solver *s, value v, enum row_kind kind);

/* ---- stacked.c: weights with an axis beside inputs and outputs, and the edges by which a router's values enter ---- */
/* Leaves of a linear's result along such axes of its weight. */
void stacked_leaves(const struct solver *s, const struct unit *u, struct arena *arena, tree_list *out);
/* Fills `apart`, after rules_apply; true when regions must be found anew. */
bool stacked_apart(struct solver *s);
/* Marks the regions that such edges leave. */
void stacked_routers(struct solver *s);

/* ---- layout.c: trees under a decision -> placements ---- */
/* A value as its op gives it or as a use takes it: a tree per axis, and which leaves (bit k: the k-th of all axes, in order; the 64th and later are
 * always whole) are whole here though their class, a batch or a sequence, is cut (rows.c). */
struct view {
    const tree *axes;
    uint32_t rank;
    const dim *shape;
    uint64_t whole;
};
struct view value_view(const struct solver *s, value v); /* of a region's value */
struct view slot_view(const struct solver *s, value v, uint32_t operand);
/* The placement under the regions' decisions, of their cuts only those over sub-axes in `over`. */
#define OVER_ALL UINT32_MAX
const struct placement *view_placement(struct solver *s, struct graph *into, const struct view *view, uint32_t over,
                                       struct arena *arena);
void region_decide(struct solver *s, uint32_t region, const uint32_t *masks); /* NULL: undecide */
uint32_t decision_sequence(const struct region *r, const uint32_t *masks);
void region_classes(struct solver *s);
void region_shared(struct solver *s);
/* Balanced cuts; in the scratch graph without symbols of their own. */
uint32_t class_partition(struct solver *s, struct graph *into, dim extent, uint32_t mask);
/* Region-side placement of a value, whole for the prelude. */
const struct placement *value_placement(struct solver *s, value v, struct arena *arena);
const struct placement *slot_placement(struct solver *s, value v, uint32_t operand, struct arena *arena);
/* A value of a decided region, gathered but for the batch and the sequence's own axes: what several units take. */
const struct placement *gathered_placement(struct solver *s, struct graph *into, value v, struct arena *arena);
bool placement_disjoint(const struct graph *g, const struct placement *p);

/* ---- pull_back.c ---- */
/* The placement that operand `i` of node v must have for the result to come out as `p` without communication; NULL when there is none. */
const struct placement *pull_back(struct graph *g, value v, uint32_t i, const struct placement *p, struct arena *arena);

/* ---- cost.c ---- */
void cost_start(struct solver *s);
void cost_sharing(struct solver *s); /* finds `readers`, when the units are known */
int64_t nominal_extent(struct solver *s, dim d, int phase);
double placement_elements(struct solver *s, const struct graph *parts, const struct placement *p, int phase);
double view_elements(struct solver *s, const struct view *view, int phase);
struct cost cost_zero(void);
struct cost cost_add(struct cost a, struct cost b);
struct cost cost_never(void);
bool cost_less(const struct solver *s, struct cost a, struct cost b); /* by the objective */
static inline bool cost_possible(struct cost a)
{
    return a.bytes != INT64_MAX;
}
/* docs/placements.md, Conversions. */
struct cost conversion_cost(struct solver *s, const struct graph *parts, dtype type, const struct placement *from,
                            const struct placement *to);
struct cost conversions_cost(struct solver *s, const struct graph *parts, value v, const struct placement *result,
                             uint32_t count, const struct placement *const *targets);
/* The link that a collective over `mask` uses, as an index into machine->level. */
uint32_t link_level(const struct solver *s, uint32_t mask);
/* `from` with the axes whole that a conversion to `to` gathers. */
const struct placement *gathered_on_the_way(struct solver *s, value v, const struct placement *from,
                                            const struct placement *to);
struct cost reduce_cost(struct solver *s, const double elements[2], dtype type, uint32_t mask);
struct cost region_cost(struct solver *s, uint32_t region);
typedef LIST(const struct placement *) target_list;
/* Placements other than its own in which a region wants a value, and for which the region pays: handed out, gathered for several units, with rows
 * whole for an op. */
void region_targets(struct solver *s, value v, target_list *out);
/* From how a value was made to its own placement in its region, less what the region pays for the others from there: all at once may be less. */
struct cost settled_cost(struct solver *s, value v, const struct placement *from, const struct placement *own);
struct cost op_cost(struct solver *s, const struct graph *parts, value v, const struct placement *const *operand,
                    const struct placement *result);
/* Weight bytes behind a wanted placement of a prelude value: what a rank reads from the files. */
int64_t stored_bytes(struct solver *s, value v, const struct placement *wanted);

/* ---- units.c ---- */
struct unit_result {
    const struct placement *operand[2], *result;
    struct cost here;    /* bytes and time of the op, and the conversion of its operand */
    struct cost settled; /* converting the result to its region's placement, sums reduced */
    struct layer_parts parts;
    uint32_t
        partial; /* mask, when the result may enter the region as a partial sum; then `loose` is that conversion's cost */
    struct cost loose;
};
/* false: not legal. */
bool unit_evaluate(struct solver *s, uint32_t unit, const struct unit_option *o, struct unit_result *out,
                   struct graph *into, struct arena *arena);
bool unit_may_cut_alone(const struct solver *s, const struct unit *u);
typedef LIST(struct unit_option) unit_options;
void unit_enumerate(struct solver *s, uint32_t unit, const uint32_t *orbit, struct arena *arena, unit_options *out);

/* ---- pins.c: what the user demands ---- */
struct
    unit_axes { /* of a linear: the leading batch axes, the contracted ones of its source, its result's own; of an embedding: the result's, on both sides */
    uint32_t batch, in, in_end, outer, out, out_end;
};
void unit_axes(const struct solver *s, const struct unit *u, struct unit_axes *out);
/* The pieces of its input's or output's features, "64 | 64 | 64", when there are several with something to cut; NULL else. */
const char *unit_pieces(struct solver *s, const struct unit *u, bool in);
uint32_t pins_features(const struct solver *s);
uint32_t pins_experts(const struct solver *s);
/* Checks all pins (one diagnostic) and puts those that are not `off` (NULL: all) into force. After region_classes. */
status pins_start(struct solver *s);
status pins_apply(struct solver *s, const bool *off);
bool pins_allow_unit(const struct solver *s, uint32_t unit, struct layer_parts have);
bool pins_allow_region(struct solver *s, uint32_t region); /* which is decided */
/* Whether a unit is asked to cut its input on the spot, to gather its output. */
bool pins_cut_in(const struct solver *s, uint32_t unit);
bool pins_cut_out(const struct solver *s, uint32_t unit);
/* Whether the classes on a pin's side allow what it asks for, by their extents alone. */
bool pin_extents_fit(struct solver *s, const struct pin *pin);
/* Which unit a node is; UINT32_MAX when none. */
uint32_t unit_of(const struct solver *s, value v);
/* Whether `extent` may be cut in so many parts. */
bool parts_fit(const struct solver *s, dim extent, uint32_t parts);

/* ---- conflict.c: why pins cannot be obeyed together ---- */
struct conflict {
    uint32_t pin_count;
    const struct pin **pin; /* none can be left out */
    bool even;              /* without --even there is a solution */
    bool narrowed;          /* one node for each pattern */
    const char *chain;      /* the nodes that tie the first two; NULL: nothing does */
    const char *sizes;      /* numbers of ranks that the extents allow; NULL: not a matter of size */
};
/* After a search that found nothing. What it points to lives as long as the solver. */
void conflict_find(struct solver *s, struct conflict *out);
/* The same as one error that names the set, and notes. */
status conflict_report(struct solver *s);

/* ---- search.c ---- */
struct cost search(struct solver *s); /* leaves the decisions in regions and units */
/* The cost of the best solution under the pins in force, and whether there is one, after a search (what that found out is used again) and with no region
 * decided. Decides nothing. */
struct cost search_cost(struct solver *s);
bool search_possible(struct solver *s);

/* ---- joint.c: where partial sums are reduced ---- */
/* The sub-axes of the tensor axis over which a decided region's rows are cut. A sum over just those may travel too: the rows are whole as long. */
uint32_t sequence_shards(const struct solver *s, value v);
/* Sub-axes that cut the value or what it is computed with, sequence shards aside: a sum over those cannot pass. */
uint32_t sum_taken_at(struct solver *s, value v);
/* Whether the op may compute on a sum over `mask` though its region lies on sequence shards: when nothing of the region's own, cut, meets it. */
bool sum_stays_unscattered(const struct solver *s, value v, uint32_t mask, uint32_t arrived);
struct birth { /* one way for a unit's result to enter its tree */
    value at;
    uint32_t partial; /* 0: whole */
    struct cost cost;
};
/* The cheapest way to reduce everything that is born in the tree of `root`. `births` is sorted by value, several rows per value; chosen[] gets the index of
 * the row taken per birth value (in order); reduced, when not NULL, gets per value of the graph the mask that is reduced right behind it, and
 * flows the mask with which it arrives. */
struct cost joint_solve(struct solver *s, value root, const struct birth *births, uint32_t count, uint32_t *chosen,
                        uint32_t *reduced, uint32_t *flows);

/* ---- finish.c ---- */
void finish(struct solver *s, struct arena *arena, struct solution *out);
/* The same with sums placed as given: per value the mask with which it is produced, and the mask reduced right behind it. */
void finish_with(struct solver *s, struct arena *arena, struct solution *out, uint32_t *flows, uint32_t *reduced);

/* ---- explain.c: layers and their reasons ---- */
void explain(struct solver *s, struct arena *arena, struct solution *out);
/* The largest param behind a prelude value; 0 when there is none. */
value weight_behind(struct solver *s, value v);

/* ---- alternatives.c ---- */
/* Says why an axis of a region's value is whole: the first factor on a weight that cannot be cut. false, and nothing said: there is none. */
bool obstacle(struct solver *s, const tree *axes, uint32_t first, uint32_t end, struct text *t);
/* What the best plan with each alternative costs more; forgets what was decided. `layers` are those of the units, in order. */
void price_alternatives(struct solver *s, const struct solution *out);
/* The styles that the layer does not have. */
void add_alternatives(struct solver *s, struct arena *arena, const struct unit *u, struct layer *l);
struct kinds {
    struct map seen;
    uint32_t *twins; /* per signature: how many regions have it */
};
void kinds_start(struct solver *s, struct kinds *k);
/* Equal numbers, from 1, for layers of one kind. */
uint32_t layer_kind(struct solver *s, struct kinds *k, const struct unit *u, const struct layer *l);

/* ---- evaluate.c: what a solution costs, from its placements ---- */
double solution_bytes(struct solver *s, const struct solution *out);

/* ---- solver.c ---- */
void solver_start(struct solver *s, struct graph *g, const struct solve_options *options, struct arena *arena);
/* Ties axes and finds the classes of all regions: what a search needs. */
void solver_tie(struct solver *s);

#endif
