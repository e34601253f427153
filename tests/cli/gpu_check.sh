#!/bin/bash
# tests/cli/gpu_check.sh TPC - scripts/gpu-check itself, on the fake libraries: it says that they are fakes, finds what fails, writes JSON that parses, and works from
# a folder that was packed.
set -u
fakes=$BUILD/fake_cuda
[ -e "$fakes/libcuda.so.1" ] || { echo "skipped: the fake libraries are not built"; exit 77; }
[ -z "${TPC_SANITIZE-}" ] || { echo "skipped: this is about the script"; exit 77; }
export TPC_CUDA_PATH=$fakes TPC_FAKE_GPUS=1 TPC_FAKE_OBJECTS=$PWD/objects
rm -rf w && mkdir -p w/models && cd w || exit 1
cp -r "$SOURCE/tests/models/gpt2-ts17" models/
export MODELS=$PWD/models TPC=$1 MEASURE=$BUILD/unit/gpu_measure
failed=0
bad() {
    echo "FAILED: $*"
    failed=1
}
unset CHARLM BENCH
timeout 200 "$SOURCE/scripts/gpu-check" --quick --json good.json >out 2>&1 || bad "gpu-check: $(grep FAILED out)"
grep -q '\*\*\* FAKE' out || bad "it does not say that the GPU is a fake"
grep -q '^gpt2-ts17 tp 4  *good' out || bad "no row for gpt2 at tp 4"
grep -q '^charlm, 2 processes, host  *good' out || bad "no row for two processes"
grep -q '"fake": true' good.json || bad "the JSON does not say that the GPU is a fake"
! command -v python3 >/dev/null || python3 -m json.tool good.json >/dev/null || bad "good.json is no JSON"
TPC_FAKE_FAIL=cuLaunchKernelEx:20 timeout 200 "$SOURCE/scripts/gpu-check" --quick --json bad.json >out 2>&1
[ $? = 1 ] && grep -q '^gpt2-ts17 tp 1  *FAILED' out || bad "a launch that fails goes unnoticed: $(tail -3 out)"
"$SOURCE/scripts/gpu-check" --pack packed >/dev/null && [ -x packed/gpu-check ] && [ -x packed/tpc ] && [ -e packed/models/gpt2-ts17/model.onnx ] || bad "--pack"
TPC_FAKE_GPUS=0 "$SOURCE/scripts/gpu-check" >out 2>&1
[ $? = 69 ] || bad "without a GPU it does not exit with 69"
exit $failed
