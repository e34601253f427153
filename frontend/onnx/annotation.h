/* frontend/onnx/annotation.h - ONNX multi-device annotations (IR 11): configurations of devices, and per node how its inputs and outputs are sharded.
 *
 * What is read are numbers of parts per axis; which device holds which part is tpc's choice, since all its ranks are alike. docs/steering.md says what is
 * honoured.
 *
 * Sections: annotate_read.c (a model's), annotate_specs.c (a solution's, as messages), annotate_write.c (a model with them)
 */
#ifndef TPC_FRONTEND_ONNX_ANNOTATION_H
#define TPC_FRONTEND_ONNX_ANNOTATION_H

#include "ir/placement.h"

struct annotated_axis {
    int64_t axis;       /* as written: may be negative */
    uint32_t parts;     /* >= 1 */
    bool sized;         /* all its dims are numbers */
    int64_t extent;     /* their product, when sized */
    const char *symbol; /* a dim's name; NULL: none */
};
struct annotation {    /* one sharding spec */
    int64_t node;      /* in the model's main graph */
    const char *where; /* "model.onnx: node 17 'up' (MatMul)" */
    const char *tensor;
    bool output;         /* of the node; else an input */
    uint32_t axis_count; /* axes that it does not name are whole */
    const struct annotated_axis *axis;
};
struct annotations {
    uint32_t count;
    const struct annotation *at;
};

/* The specs of the first configuration of `ranks` devices. TPC_DATA with one line when there is none, or a spec is not sound in itself. */
status onnx_read_annotations(struct arena *arena, const char *path, uint32_t ranks, struct diag *diag,
                             struct annotations *out);

/* Writes the model at `path` to `out` with the solution as its annotations, replacing those of the same name. Tensor bytes are copied as they stand;
 * external data are not touched, so `out` must lie beside the model when it has any. */
status onnx_annotate(struct arena *arena, const char *path, const char *out, const struct graph *g,
                     const struct solution *s, struct diag *diag);

#endif
