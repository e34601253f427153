/* frontend/compile.h - the pipeline from a model file to a scheduled Program, and what it decided as a JSON document.
 *
 * Sections: compile.c (the pipeline), report.c (the document of `tpc dump --json`, docs/plan-json.md), inputs.c (inputs made up for a model)
 */
#ifndef TPC_FRONTEND_COMPILE_H
#define TPC_FRONTEND_COMPILE_H

#include "frontend/annotate.h"
#include "frontend/onnx/onnx.h"
#include "frontend/state_from.h"
#include "frontend/steer.h"
#include "ir/program.h"
#include "passes/passes.h"
#include "solver/solver.h"

struct compile_options {
    struct import_options import;
    uint32_t ranks;
    uint32_t axis_count; /* as in struct solve_options; 0: one tensor axis of `ranks` */
    const struct mesh_axis *axis;
    enum sequence_parallel sequence;
    const struct machine *machine; /* so these, and see frontend/budget.h */
    enum objective objective;
    uint32_t nominal_count;
    const struct nominal *nominal;
    int64_t byte_price;
    const struct steering *steering;       /* NULL: none */
    bool use_annotations;                  /* compile_model: the model's device annotations are constraints too */
    const struct annotations *annotations; /* compile_graph: these; NULL: none */
    const struct state_source *state_from; /* NULL: none; its mesh is `axis` or `ranks` */
    bool even;
    bool prices;            /* as in struct solve_options */
    const char *dump_after; /* a pass's name: prints the Graph or Program behind it to dump_to; NULL: nothing */
    FILE *dump_to;
    bool every_value; /* every value becomes an output too (verify looks for the first that differs) */
};

struct compiled {
    struct graph *graph; /* simplified, unsplit */
    struct solution *solution;
    const char *tp_plan; /* the solution as a plan file, JSON */
    struct program *program;
    const struct machine *machine; /* that the costs are of */
    enum objective objective;
    uint64_t memory_budget; /* bytes per rank; 0: none was given */
};

/* The names that dump_after takes, NULL-ended. */
extern const char *const compile_passes[];

/* `path`: an ONNX file, or a Graph in text form (X.tpc, docs/text-form.md). All results live in `arena`. Diagnostics name the ONNX node. TPC_DATA, TPC_UNSUPPORTED, TPC_NOINPUT, TPC_INTERNAL. */
status compile_model(struct arena *arena, const char *path, const struct compile_options *options, struct diag *diag,
                     struct compiled *out);
/* The same from a Graph on (tests, text form). */
status compile_graph(struct arena *arena, struct graph *graph, const struct compile_options *options, struct diag *diag,
                     struct compiled *out);

/* The JSON document, in `arena`. Bytes of collectives and activations are at the solver's nominal dims. */
const char *report_json(struct arena *arena, const struct compiled *c);

/* Value v of an int input must be in [0, *limit): the smallest extent that it indexes; false when it indexes nothing. */
bool input_index_limit(const struct graph *g, uint32_t input, const int64_t *of, int64_t *limit);

#endif
