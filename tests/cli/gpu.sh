#!/bin/bash
# tests/cli/gpu.sh TPC - tpc on GPUs, on the fake libraries of tests/fake_cuda: models equal the reference on 1, 2 and 4 of them, as threads and as processes; what
# is missing, too old or too small is one line and an exit code; a rank that is lost ends all.
set -u
tpc=$1
fakes=$BUILD/fake_cuda
[ -e "$fakes/libcuda.so.1" ] || { echo "skipped: the fake libraries are not built"; exit 77; }
[ -z "${TPC_SANITIZE-}" ] || { echo "skipped: kernels are checked by the model of CUDA itself"; exit 77; }
export TPC_CUDA_PATH=$fakes TPC_FAKE_GPUS=4 TPC_FAKE_OBJECTS=$PWD/objects
models=$SOURCE/tests/models
failures=0
rm -rf w && mkdir w && cd w || exit 1
trap 'kill -9 $(jobs -p) 2>/dev/null' EXIT
bad() {
    echo "FAILED: $*"
    failures=$((failures + 1))
}
# refused CODE PATTERN COMMAND...: exits so, with one line that has the pattern
refused() {
    local code=$1 pattern=$2
    shift 2
    timeout 60 "$@" >out 2>err
    local got=$?
    [ $got = "$code" ] || bad "'$*' exits with $got, not $code: $(cat err)"
    [ "$(wc -l <err)" = 1 ] || bad "'$*' does not say one line: $(cat err)"
    grep -q -- "$pattern" err || bad "'$*' does not say '$pattern': $(cat err)"
}

# ---- models, against the interpreter and the exporter's numbers: the third run of each, a replayed one ----
for case in "gpt2-ts17 --tp 1" "llama-past-opt18 --tp 2" "qwen2-ts17 --mesh dp=2,tp=2"; do
    set -- $case
    timeout 200 "$tpc" verify "$models/$1" "$2" "$3" --device cuda >out 2>err || bad "$*: $(cat err)"
done
timeout 200 "$tpc" verify "$models/gpt2-ts17" --tp 2 --device cuda --collectives host --gpus 0,0 >out 2>err || bad "two ranks on one GPU: $(cat err)"

# ---- generation: caches stay on the GPU ----
"$tpc" compile "$SOURCE/examples/charlm/model.onnx" --tp 2 -o plan.bin >/dev/null || exit 1
"$tpc" run plan.bin --prompt 'the ' --generate 5 --device cpu >cpu.txt 2>/dev/null || bad "generation on CPUs"
# logits are cut along the vocabulary: their gathering, one collective of ten, is left out; where GPUs are, they are the default
for how in "--device cpu" "--threads 3" "--device cuda --collectives host"; do
    timeout 200 "$tpc" run plan.bin --prompt 'the ' --generate 5 --times $how 2>err >some.txt || bad "$how: $(tail -1 err)"
    cmp -s cpu.txt some.txt || bad "$how writes something else"
    [ "$how" != "--device cpu" ] && wanted=45 || wanted=50
    grep -q "^$wanted collectives" err || bad "$how does not have $wanted collectives: $(grep collectives err)"
done
printf '116,104,101,32\n97,110\n' >batch.txt # rows of unequal length; the likeliest, then draws
for how in "" "--temperature 0.9 --seed 3 --top-k 5"; do
    "$tpc" run plan.bin --batch-file batch.txt --generate 4 --device cpu $how >cpu-batch.txt 2>err || bad "a batch on CPUs: $(cat err)"
    timeout 200 "$tpc" run plan.bin --batch-file batch.txt --generate 4 --device cuda $how >gpu-batch.txt 2>err || bad "a batch on GPUs: $(cat err)"
    cmp -s cpu-batch.txt gpu-batch.txt || bad "GPUs write another batch ($how)"
done

# rows that are padded on the right: their first tokens come from different places
"$tpc" compile "$models/llama-genai-fp32/model.onnx" --tp 2 -o right.bin >/dev/null || exit 1
"$tpc" run right.bin --batch-file batch.txt --generate 3 --device cpu --temperature 0.9 --top-p 0.9 >cpu-batch.txt 2>err || bad "unequal rows on CPUs: $(cat err)"
timeout 200 "$tpc" run right.bin --batch-file batch.txt --generate 3 --device cuda --temperature 0.9 --top-p 0.9 >gpu-batch.txt 2>err || bad "unequal rows on GPUs: $(cat err)"
cmp -s cpu-batch.txt gpu-batch.txt || bad "GPUs write other unequal rows"

# ---- a plan for the prompt and another one behind it, whose states lie alike (--state-from) ----
pair=$SOURCE/tests/generate/t5
for part in encoder_model decoder_with_past_model; do "$tpc" compile "$pair/$part.onnx" --tp 2 -o $part.bin || bad "$part"; done
"$tpc" compile "$pair/decoder_model.onnx" --tp 2 --state-from decoder_with_past_model.bin -o first.bin || bad "--state-from"
"$tpc" run encoder_model.bin --device cpu --input input_ids=1x4xi64=5,6,7,1 --input attention_mask=1x4xi64=1,1,1,1 --output last_hidden_state=@hidden.npy || bad encoder
for how in cpu cuda; do
    timeout 200 "$tpc" run decoder_with_past_model.bin --first first.bin --input encoder_hidden_states=@hidden.npy --prompt-ids 0 --generate 7 --device $how >$how.ids 2>err ||
        bad "--first on $how: $(cat err)"
done
cmp -s cpu.ids cuda.ids || bad "--first writes $(cat cuda.ids) on GPUs and not $(cat cpu.ids)"

# ---- processes, a GPU each: collectives through host memory ----
port=$((20000 + $$ % 12000))
process() { # process RANK COMMAND...
    local r=$1
    shift
    RANK=$r WORLD_SIZE=2 LOCAL_RANK=$r MASTER_ADDR=127.0.0.1 MASTER_PORT=$port timeout 200 "$@" >out."$r" 2>err."$r" &
    pid[r]=$!
}
for r in 0 1; do process $r "$tpc" run plan.bin --prompt 'the ' --generate 5 --collectives host; done
for r in 0 1; do wait "${pid[$r]}" || bad "process $r: $(cat err.$r)"; done
cmp -s cpu.txt out.0 || bad "processes with a GPU each write something else"
port=$((port + 1))
drawn="--temperature 1.2 --top-p 0.9 --seed 5"
"$tpc" run plan.bin --prompt 'the ' --generate 5 --device cpu $drawn >cpu-drawn.txt 2>err || bad "draws on CPUs: $(cat err)"
for r in 0 1; do CUDA_VISIBLE_DEVICES=$r TPC_FAKE_GPUS=1 process $r "$tpc" run plan.bin --prompt 'the ' --generate 5 --device cuda --collectives host $drawn; done
for r in 0 1; do wait "${pid[$r]}" || bad "process $r, shown one GPU: $(cat err.$r)"; done
cmp -s cpu-drawn.txt out.0 || bad "processes that are shown one GPU each write something else"
port=$((port + 1))
for r in 0 1; do process $r "$tpc" run plan.bin --random-inputs 1 --repeat 100000 --collectives host; done
for _ in $(seq 1000); do
    grep -q '^run 1:' err.0 && break
    sleep 0.02
done
kill -9 $(pgrep -P "${pid[1]}")
begun=$(date +%s)
wait "${pid[0]}"
[ $? = 75 ] || bad "rank 1 is killed: rank 0 exits otherwise: $(tail -2 err.0)"
[ $(($(date +%s) - begun)) -le 5 ] || bad "rank 1 is killed: rank 0 takes too long"
grep -q "rank 1 on .* ended without a farewell" err.0 || bad "rank 1 is killed: $(tail -2 err.0)"

# ---- what is missing ----
"$tpc" compile "$models/gpt2-ts17/model.onnx" --tp 2 -o two.bin >/dev/null || exit 1
run=("$tpc" run two.bin --random-inputs 1)
mkdir none old partial
TPC_CUDA_PATH=$PWD/none refused 69 "CUDA's driver is not found (libcuda.so.1)" "${run[@]}" --device cuda
TPC_CUDA_PATH=$PWD/none "${run[@]}" >/dev/null 2>err || bad "without CUDA the CPU is the default: $(cat err)"
TPC_FAKE_DRIVER=11080 refused 69 "driver is for CUDA 11.8, but 12.0 is needed" "${run[@]}" --device cuda
TPC_FAKE_GPUS=0 refused 69 "finds no GPU" "${run[@]}" --device cuda
TPC_FAKE_GPUS=1 refused 69 "there are 1 GPUs for 2 ranks" "${run[@]}" --device cuda
TPC_FAKE_GPUS=1 "${run[@]}" >/dev/null 2>err || bad "with too few GPUs the CPU is the default: $(cat err)"
TPC_FAKE_COMPUTE=75 refused 69 "compute capability 7.5, but 8.0 is needed" "${run[@]}" --device cuda
refused 69 "there is no GPU 9" "${run[@]}" --device cuda --gpus 0,9
refused 64 "must be 2 numbers of GPUs" "${run[@]}" --device cuda --gpus 0
refused 64 "must be cuda or cpu" "${run[@]}" --device tpu
for library in libcuda.so.1 libnvrtc.so.13 libcublasLt.so.13 libnccl.so.2; do
    rm -rf partial && cp -r "$fakes" partial && rm "partial/$library"
    case $library in
    libcuda.so.1) pattern="driver is not found" ;;
    libnvrtc.so.13) pattern="NVRTC" ;;
    libcublasLt.so.13) pattern="cuBLASLt is not found" ;;
    *) pattern="NCCL is not found" ;;
    esac
    [ $library = libcuda.so.1 ] || TPC_CUDA_PATH=$PWD/partial LD_LIBRARY_PATH=$fakes refused 69 "$pattern" "${run[@]}" --device cuda
done
echo 'int cuInit(unsigned f) { return (int)f; }' >old.c
$CC -shared -fPIC -o old/libcuda.so.1 old.c
TPC_CUDA_PATH=$PWD/old refused 69 "lacks cuDriverGetVersion" "${run[@]}" --device cuda
echo 'void _exit(int); __attribute__((constructor)) static void opened(void) { _exit(9); }' >heavy.c
$CC -shared -fPIC -o old/libcublasLt.so.13 heavy.c && cp old/libcublasLt.so.13 old/libnccl.so.2
TPC_CUDA_PATH=$PWD/old "${run[@]}" >/dev/null 2>err || bad "a run on CPUs opens libraries for GPUs: $(cat err)"

# ---- trouble ----
TPC_FAKE_MEMORY=38000000 refused 71 "GB free, but .* GB are needed" "$tpc" run plan.bin --random-inputs 1 --size sequence_length=400
TPC_FAKE_FAIL=cuMemAlloc_v2:9 refused 71 "out of memory" "${run[@]}"
TPC_FAKE_FAIL=cuLaunchKernelEx:7 refused 70 "launching a kernel fails: CUDA_ERROR_LAUNCH_FAILED" "${run[@]}"
TPC_FAKE_FAIL=cublasLtMatmul:3 refused 70 "cuBLASLt fails" "${run[@]}"
TPC_FAKE_FAIL=ncclAllReduce:1 refused 75 "NCCL" "${run[@]}"
TPC_FAKE_FAIL=nvrtcCompileProgram:2 XDG_CACHE_HOME=$PWD/cache "${run[@]}" >out 2>err
[ $? = 70 ] && grep -q "does not compile\|tpc_" err || bad "a kernel that does not compile: $(cat err)"
TPC_FAKE_NCCL_FAIL=2 refused 75 "NCCL" "${run[@]}"

# ---- doctor ----
"$tpc" doctor >out || bad doctor
grep -q "GPU 3 .*fake GPU" out && grep -q "^NCCL  *2.28.0 from $fakes" out || bad "doctor does not say what there is: $(cat out)"
TPC_CUDA_PATH=$PWD/none "$tpc" doctor >out && grep -q "^CUDA driver  *none: CUDA's driver is not found" out || bad "doctor without CUDA"

[ $failures = 0 ] && echo "gpu: all good"
exit $((failures > 0))
