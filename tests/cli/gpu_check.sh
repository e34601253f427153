#!/bin/bash
# tests/cli/gpu_check.sh TPC - scripts/gpu-check itself, on the fake libraries: it says that they are fakes, finds what fails, writes JSON that parses, works from a folder
# that was packed, and measures a model there.
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
timeout 400 "$SOURCE/scripts/gpu-check" --quick --only checker,models,processes --json good.json >out 2>&1 || bad "gpu-check: $(grep FAILED out)"
grep -q '\*\*\* FAKE' out || bad "it does not say that the GPU is a fake"
grep -q '^gpt2-ts17 tp 4  *good' out || bad "no row for gpt2 at tp 4"
grep -q '^charlm, 2 processes, host  *good' out || bad "no row for two processes"
grep -q '"fake": true' good.json || bad "the JSON does not say that the GPU is a fake"
! command -v python3 >/dev/null || python3 -m json.tool good.json >/dev/null || bad "good.json is no JSON"
TPC_FAKE_FAIL=cuLaunchKernelEx:20 timeout 400 "$SOURCE/scripts/gpu-check" --quick --only models --json bad.json >out 2>&1
[ $? = 1 ] && grep -q '^gpt2-ts17 tp 1  *FAILED' out || bad "a launch that fails goes unnoticed: $(tail -3 out)"

# ---- the bench models, from a folder that was packed; torch and ONNX Runtime are played by a script ----
mkdir -p models-to-measure/tiny
cp "$SOURCE/tests/models/llama-past-opt18/model.onnx" models-to-measure/tiny/
printf 'sizes batch_size sequence_length past_sequence_length\ntorch layers=1\n' >models-to-measure/tiny/about
BENCH=models-to-measure "$SOURCE/scripts/gpu-check" --pack packed >/dev/null && [ -x packed/gpu-check ] && [ -x packed/tpc ] && [ -e packed/models/gpt2-ts17/model.onnx ] &&
    [ -e packed/torch_peer.py ] && [ -e packed/ort_peer.py ] || bad "--pack"
cat >python <<'EOT'
#!/bin/sh
case $1 in
-c) exit 0 ;;
*/ort_peer.py)
    [ "$2 $3 $4" = "model.onnx --device cuda" ] && [ -e model.onnx ] && echo '{"peer": "onnxruntime", "what": "decode", "way": "as it is", "s": 0.25}'
    exit 0
    ;;
esac
echo '{"peer": "torch", "what": "decode", "way": "compiled", "s": 0.5}'
echo '{"peer": "torch", "what": "prefill 16", "way": "compiled", "left_out": "not there within 60 s"}'
EOT
chmod +x python
(unset MODELS TPC MEASURE && PYTHON=$PWD/python timeout 400 packed/gpu-check --quick --only speed,peers --json speed.json --results results.md >out 2>&1) || bad "the packed gpu-check: $(tail -5 out)"
grep -q '^tiny decode at 16, fixed room  *measured .* [1-9][0-9]*+[0-9]* kernels + products in a step alone; [1-9][0-9]* graphs of [1-9]' out && grep -q '^tiny prefill of 16  *measured .* % of cuBLASLt' out || bad "the figures of tiny: $(cat out)"
grep -q '^tiny start  *measured .*([1-9][0-9]* by NVRTC)' out || bad "the start of tiny: $(cat out)"
grep -q '^tiny decode, torch compiled  *measured  500 ms; tpc .* times as fast' out && grep -q '^tiny prefill 16, torch compiled  *skipped  *not there' out &&
    grep -q '^tiny decode, ONNX Runtime as it is  *measured  250 ms; tpc .* times as fast' out || bad "peers beside: $(cat out)"
grep -q '^| tiny decode at 16' results.md && grep -q 'fake libraries' results.md || bad "results.md"
grep -q '"share_of_copy_percent": [0-9]' speed.json && { ! command -v python3 >/dev/null || python3 -m json.tool speed.json >/dev/null; } || bad "speed.json"
"$MEASURE" plan packed/none batch=1 2>/dev/null && bad "gpu_measure takes a plan that is not there"
TPC_FAKE_GPUS=0 "$SOURCE/scripts/gpu-check" >out 2>&1
[ $? = 69 ] || bad "without a GPU it does not exit with 69"
exit $failed
