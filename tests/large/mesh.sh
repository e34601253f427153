#!/bin/sh
# tests/large/mesh.sh TPC - models of tests/models on meshes of several axes and on sequence shards: the runtime against one rank, the reference interpreter and
# PyTorch's float64 outputs, at all shapes of its data sets. A plan that leaves an axis unused fails: each must name a collective or a cut over it.
#
# TPC_TEST_ALL=1 runs every model on every mesh (minutes).
set -u
tpc=$1
models=${SOURCE:-$(cd "$(dirname "$0")/../.." && pwd)}/tests/models
failed=0
passed=0

check() { # MODEL OPTION...
    name=$1
    shift
    [ -e "$models/$name/model.onnx" ] || return
    if "$tpc" verify "$models/$name" "$@" --rtol 0 >out 2>err; then
        passed=$((passed + 1))
    else
        failed=$((failed + 1))
        echo "FAILED: $name $*"
        head -5 err | sed 's/^/    /'
    fi
}

# MODEL OPTION...: the same text is written as on one rank
writes() {
    model=$models/../../examples/$1/model.onnx
    shift
    "$tpc" compile "$model" --tp 1 -o one.plan && "$tpc" run one.plan --prompt 'Once upon' --generate 12 >one.txt 2>err
    if "$tpc" compile "$model" "$@" -o mesh.plan 2>err && "$tpc" run mesh.plan --prompt 'Once upon' --generate 12 >many.txt 2>err &&
        [ -s one.txt ] && cmp -s one.txt many.txt; then
        passed=$((passed + 1))
    else
        failed=$((failed + 1))
        echo "FAILED: charlm $* writes another text"
        head -3 err
    fi
}

# MODEL OPTION...: batches and sequences shorter than the axis that divides them
short() {
    name=$1
    shift
    if "$tpc" verify "$models/$name/model.onnx" "$@" >out 2>err; then
        passed=$((passed + 1))
    else
        failed=$((failed + 1))
        echo "FAILED: $name $*"
        head -3 err
    fi
}

# MODEL PATTERN OPTION...: how the plan lists its collectives, as "kind value" lines, has to match
shows() {
    name=$1 pattern=$2
    shift 2
    if "$tpc" compile "$models/$name/model.onnx" "$@" -o mesh.plan 2>err && "$tpc" dump mesh.plan >out &&
        sed -n '/^collectives/,$p' out | awk '{print $1, $3}' | grep -q "$pattern"; then
        passed=$((passed + 1))
    else
        failed=$((failed + 1))
        echo "FAILED: the plan of $name $* has no '$pattern'"
        head -3 err
    fi
}

if [ "${TPC_TEST_ALL:-0}" = 1 ]; then
    for folder in "$models"/*/; do
        name=$(basename "$folder")
        for mesh in dp=2,tp=2 dp=3 cp=2,tp=2 cp=3 dp=2,tp=2,cp=2; do
            check "$name" --mesh "$mesh"
        done
        for ranks in 2 3 4; do
            check "$name" --tp "$ranks" --sequence-parallel
        done
        check "$name" --mesh dp=2,tp=2,cp=2 --sequence-parallel
    done
else
    for mesh in dp=2,tp=2 dp=3 cp=2,tp=2 cp=3 dp=2,tp=2,cp=2; do
        check llama-ts17 --mesh "$mesh"
    done
    for ranks in 2 3 4; do
        check llama-ts17 --tp "$ranks" --sequence-parallel
    done
    check llama-ts17 --mesh dp=2,tp=2,cp=2 --sequence-parallel
    for name in gpt2-past-opt18 llama-past-opt18 gpt2-dy18 bert-dy18 vit-ts17 t5-ts17; do
        check "$name" --mesh dp=2,cp=2,tp=2
        check "$name" --tp 3 --sequence-parallel
    done
    for name in llama-loss-ts17 llama-nll-dy18; do
        check "$name" --mesh dp=3
        check "$name" --mesh dp=2,tp=2,cp=2
    done
    check gemma2-genai-int4 --mesh dp=2,tp=2
    check llama-leftpad-ts17 --mesh cp=2,tp=2
    check gptoss-dy18 --mesh dp=2,cp=2
    check ../contrib/attention_past_empty --mesh dp=2,cp=2,tp=2
fi
short llama-ts17 --mesh dp=3 --size batch=1
short llama-ts17 --mesh dp=2,cp=3 --size batch=1 --size sequence=2
short llama-ts17 --tp 4 --sequence-parallel --size sequence=1
short llama-loss-ts17 --mesh dp=3 --size batch=1
writes charlm --mesh dp=2,tp=2
writes charlm --mesh cp=2
writes charlm --tp 2 --sequence-parallel
# The batch is not exchanged before the output, a loss is one number, keys and values meet over cp, sums are scattered to sequence shards.
shows llama-ts17 '^all_gather logits$' --mesh dp=2
shows llama-loss-ts17 '^all_reduce' --mesh dp=2
shows llama-ts17 '^all_gather .*k_proj' --mesh cp=2
shows gpt2-ts17 '^all_gather .*Split_output_2' --mesh cp=2
shows llama-ts17 '^reduce_scatter .*down_proj' --tp 2 --sequence-parallel
echo "$passed passed, $failed failed"
[ "$failed" = 0 ] && [ "$passed" -gt 0 ]
