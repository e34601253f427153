#!/bin/sh
# tests/large/cuda_compile.sh - NVRTC takes every function of every test model for sm_80, sm_90 and sm_100, and none spills (tests/unit/nvrtc_test.c).
set -eu
[ -x "$BUILD/unit/nvrtc_test" ] || exit 77
ALL=1 exec timeout 550 "$BUILD/unit/nvrtc_test"
