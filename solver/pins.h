/* solver/pins.h - constraints on a split, in the solver's terms: what the user's patterns and a model's annotations become.
 *
 * A pin says in how many parts something is cut: at a switch point (a linear, an embedding) five things, at any other value its axes. The search
 * drops what a pin forbids where it arises (unit_evaluate, solve_hub), so a pinned plan is the best of those that obey.
 *
 * Section: pins.c
 */
#ifndef TPC_SOLVER_PINS_H
#define TPC_SOLVER_PINS_H

#include "ir/placement.h"

/* Beside these, a number of parts is itself. PARTS_CUT: at least two (with --even: all ranks, if uneven cuts would allow that). */
enum { PARTS_ANY = 0, PARTS_WHOLE = 1, PARTS_CUT = INT32_MAX };

enum pin_kind {
    PIN_UNIT,    /* a switch point: `parts` */
    PIN_RESULT,  /* a value as its region holds it: `axis` */
    PIN_OPERAND, /* the same of what operand `operand` of an op takes from outside of its region (a norm's weight) */
    PIN_SEQUENCE /* its region lies on sequence shards over the tensor axis */
};
enum pin_packed { PACKED_ANY, PACKED_NO, PACKED_YES };

struct pin {
    enum pin_kind kind;
    value node;
    uint32_t operand;
    struct layer_parts parts; /* PIN_UNIT */
    bool
        exact; /* PIN_UNIT: PARTS_ANY at its input and output means no conversion there, PARTS_CUT all ranks of the axis */
    enum pin_packed packed; /* whether the axis cut must be concatenated pieces */
    const char *instead;    /* the style to use when `packed` is wrong */
    uint32_t rank;          /* PIN_RESULT, PIN_OPERAND */
    const uint32_t *axis;
    bool all_axes;    /* of the mesh: data and context axes count too */
    const char *text; /* what the user wrote, for messages: "'up=column'" */
    uint32_t group;   /* equal for all pins that one text made */
    status code;      /* of an error: TPC_USAGE for the command line, TPC_DATA for a file */
};

struct solve_options;

/* A place where a weight enters, for those who look for pins. */
struct switch_point {
    value node, source, weight; /* weight: the operand */
    bool embedding;
    uint32_t param; /* the largest behind the weight; UINT32_MAX: none */
};
/* In node order, in `arena`. */
uint32_t switch_points(struct graph *g, const struct solve_options *options, struct arena *arena,
                       const struct switch_point **out);

#endif
