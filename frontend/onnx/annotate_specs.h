/* frontend/onnx/annotate_specs.h - between annotate_specs.c, which spells a solution out as messages, and annotate_write.c. */
#ifndef TPC_FRONTEND_ONNX_ANNOTATE_SPECS_H
#define TPC_FRONTEND_ONNX_ANNOTATE_SPECS_H

#include "frontend/onnx/annotation.h"
#include "frontend/onnx/proto.h"

/* Per node of the model's main graph the bytes to append to its NodeProto; NULL for most. */
struct annotation_bytes {
    const uint8_t *at;
    size_t length;
};
/* How the solution has each switch point's tensors, as device configurations called `name`. *unsaid: tensors that a spec cannot describe. */
const struct annotation_bytes *onnx_annotation_specs(struct arena *arena, const Onnx__GraphProto *proto,
                                                     const struct graph *g, const struct solution *s, const char *name,
                                                     uint32_t *unsaid);

#endif
