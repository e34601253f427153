/* frontend/onnx/proto.h - the structs that protoc-c makes of onnx.proto, with their warnings off. */
#ifndef TPC_FRONTEND_ONNX_PROTO_H
#define TPC_FRONTEND_ONNX_PROTO_H

#if defined(__GNUC__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wpedantic"
#endif
#include "frontend/onnx/onnx.pb-c.h"
#if defined(__GNUC__)
#pragma GCC diagnostic pop
#endif

#endif
