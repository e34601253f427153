/* frontend/onnx/lower.h - what a lower_*.c includes: the importer's services, and a prototype for every lowering of ops.def. */
#ifndef TPC_FRONTEND_ONNX_LOWER_H
#define TPC_FRONTEND_ONNX_LOWER_H

#include "frontend/onnx/import.h"

/* The argument of the rows of ReduceX. */
enum reduce_kind {
    REDUCE_KIND_SUM,
    REDUCE_KIND_MEAN,
    REDUCE_KIND_MAX,
    REDUCE_KIND_MIN,
    REDUCE_KIND_PROD,
    REDUCE_KIND_L1,
    REDUCE_KIND_L2,
    REDUCE_KIND_SUM_SQUARE,
    REDUCE_KIND_LOG_SUM,
    REDUCE_KIND_LOG_SUM_EXP
};

#define OPERATOR(domain, name, since, until, function, argument) void lower_##function(struct call *c);
#include "frontend/onnx/ops.def"
#undef OPERATOR

#endif
