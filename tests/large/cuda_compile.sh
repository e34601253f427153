#!/bin/sh
# tests/large/cuda_compile.sh - NVRTC takes the functions of every test model, each model for one of sm_80, sm_90 and sm_100 in turn, and none spills. Of those
# that differ in numbers alone it gets the first (tests/unit/nvrtc_test.c). TPC_CUDA_ALL=1: all, for all three, which takes a quarter of an hour on two cores.
set -eu
[ -x "$BUILD/unit/nvrtc_test" ] || exit 77
[ -z "${TPC_CUDA_ALL-}" ] || exec env ALL=1 "$BUILD/unit/nvrtc_test"
exec env ALL=each timeout 550 "$BUILD/unit/nvrtc_test"
