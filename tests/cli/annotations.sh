#!/bin/sh
# tests/cli/annotations.sh TPC - ONNX device annotations: read as constraints, refused in one line where they are not sound, and written such that the
# annotated model gives the same plan.
#
# "The same plan" is the same Program and the same decisions but for what names the file: its path, hash, IR version, and where in it weights lie.
# annotated/ is made by make_annotated.py.
set -u
tpc=$1
here=$(cd "$(dirname "$0")" && pwd)
models=${SOURCE:-$here/../..}/tests/models
failed=0
passed=0
fail() { echo "FAILED: $*"; failed=$((failed + 1)); }

# read NAME STYLE: the plan has the first product in that style
read_as() {
    if "$tpc" compile "$here/annotated/$1.onnx" --tp 2 --use-annotations -o a.plan 2>err && "$tpc" dump a.plan --tp-plan | grep -q "\"/up\":	\"$2\""; then
        passed=$((passed + 1))
    else
        fail "$1 is not read as $2: $(head -1 err) $("$tpc" dump a.plan --tp-plan | grep up)"
    fi
}
read_as column colwise
read_as of_four colwise
read_as whole whole
read_as row rowwise_split_input

# refuse NAME CODE TEXT: one error line
refuse() {
    rm -f a.plan
    timeout 20 "$tpc" compile "$here/annotated/$1.onnx" --tp 2 --use-annotations -o a.plan >out 2>err
    got=$?
    if [ $got = "$2" ] && grep -qF -- "$3" err && [ "$(grep -c error: err)" = 1 ] && [ ! -e a.plan ] && [ ! -s out ]; then
        passed=$((passed + 1))
    else
        fail "$1: exit code $got, not $2, or no '$3' in: $(head -2 err)"
    fi
}
refuse no_configuration 65 "no device configuration of 2 devices (there is none at all)"
refuse other_count 65 "no device configuration of 2 devices ('three' of 3)"
refuse no_name 65 "device configuration 0 has no name"
refuse no_devices 65 "device configuration 'two' has 0 devices"
refuse device_names 65 "device configuration 'two' names 1 devices of 2"
refuse twice_named 65 "there are two device configurations 'two'"
refuse unknown_configuration 65 "node 0 'up' (MatMul): error: is annotated for a configuration 'three' that the model lacks"
refuse annotated_twice 65 "node 0 'up' (MatMul): error: is annotated twice"
refuse stage 69 "is in pipeline stage 1"
refuse no_tensor 65 "an annotation is for 'q', which is none of its inputs and outputs"
refuse tensor_twice 65 "the annotation of 'w' stands there twice"
refuse no_axis 65 "has a dimension without an axis"
refuse far_axis 65 "is for axis 1099511627776, which no tensor has"
refuse axis_beyond 65 "names an axis that the tensor lacks"
refuse axis_below 65 "names an axis that the tensor lacks"
refuse axis_twice 65 "names an axis twice"
refuse no_shards 65 "has 0 shards over 2 devices"
refuse many_shards 65 "has 4 shards over 2 devices"
refuse many_shards_in_all 65 "has 4 shards over 2 devices"
refuse huge_dims 65 "has a dim of 4611686018427387904"
refuse zero_dim 65 "has a dim of 0"
refuse small_dim 65 "has 2 shards of a dim of 1"
refuse wrong_dim 65 "has dims of 9 in all on axis 1, which has 8"
refuse unknown_symbol 65 "has a dim 'rows', which no input has"
refuse device_beyond 65 "is for device 7, and there are 2"
refuse device_negative 65 "is for device -1, and there are 2"
refuse device_twice 65 "has device 1 twice"
refuse few_devices 65 "names 1 devices or groups for 2 shards"
refuse part_of_devices 65 "is for 1 of 2 devices"
refuse group_beyond 65 "is for device 5, and there are 2"
refuse conflict 65 "cannot be obeyed over 2 ranks"

python=
for candidate in ${PYTHON:-} python3 /usr/bin/python3; do
    "$candidate" -c 'import onnx' 2>/dev/null && python=$candidate && break
done
check='import onnx, sys; onnx.checker.check_model(sys.argv[1])'

plain() {
    "$tpc" dump "$1" --program | sed -E 's/^(model|file|opset|program graph) .*//; s/ offset [0-9]+/ offset/; s/"[^"]*(model|again)\.onnx"/"M"/g'
    "$tpc" dump "$1" --json | sed -E 's/"(path|xxh3)":.*//; s/"ir_version":.*//; s/[^ "]*(model|again)\.onnx/M/g'
}
# again MODEL TP OPTION...: annotated, and compiled from its annotations
again() {
    folder=$models/$1 tp=$2
    rm -rf w
    mkdir w
    cp "$folder"/model.onnx* w/
    shift 2
    "$tpc" compile w/model.onnx --tp "$tp" "$@" -o a.plan --annotate w/again.onnx 2>err || { fail "$folder $tp $*: $(grep error: err)"; return; }
    "$tpc" compile w/again.onnx --tp "$tp" --use-annotations -o b.plan 2>err || { fail "$folder $tp $*: its annotations: $(grep error: err)"; return; }
    plain a.plan >a.txt
    plain b.plan >b.txt
    cmp -s a.txt b.txt || { fail "$folder $tp $*: another plan: $(diff a.txt b.txt | head -3)"; return; }
    if [ -n "$python" ] && "$python" -c "$check" w/model.onnx 2>/dev/null; then # it does not know contrib operators
        "$python" -c "$check" w/again.onnx || { fail "$folder: onnx refuses it"; return; }
    fi
    passed=$((passed + 1))
}
for model in llama-ts17 llama-dy23 gpt2-ts11 gpt2-dy18 mistral-ts17 t5-dy18 bert-ts17 vit-dy18 llama-loss-dy18 llama-past-opt18 llama-genai-fp32 llama-genai-int4; do
    again $model 2
    again $model 4
done
again llama-ts17 2 --pin 'o_proj=colwise_rep' --pin 'lm_head=rowwise_rep'
again llama-ts17 4 --pin 'q_proj=column:2' --pin 'gate_proj=whole'
again gpt2-ts17 4 --pin 'c_attn=packed_colwise:2' --pin 'wpe=whole'
again gpt2-ts17 2 --pin 'c_fc=colwise_rep' --pin 'h.1.mlp.c_proj=rowwise_rep'
again bert-dy18 3 --pin 'layer.*.output.dense=whole'

# annotating an annotated model again replaces its own configuration and keeps others
"$tpc" compile w/again.onnx --tp 3 -o c.plan --annotate w/third.onnx && "$tpc" compile w/third.onnx --tp 3 --annotate w/fourth.onnx -o c.plan &&
    cmp w/third.onnx w/fourth.onnx || fail "annotating again changes the file"
"$tpc" compile w/again.onnx --tp 2 -o c.plan --annotate w/both.onnx && "$tpc" compile w/both.onnx --tp 3 --use-annotations -o c.plan &&
    "$tpc" compile w/both.onnx --tp 2 --use-annotations -o c.plan || fail "two configurations in one model"

# where it may be written
place() {
    "$tpc" compile "$1" --tp 2 -o c.plan --annotate "$2" >out 2>err
    got=$?
    if [ $got = "$3" ] && grep -qF -- "$4" err; then passed=$((passed + 1)); else fail "--annotate $2: $got, $(head -1 err)"; fi
}
place w/model.onnx w/model.onnx 64 "would overwrite the model"
place "$models/llama-genai-fp32/model.onnx" elsewhere.onnx 64 "the model has external data"
place w/model.onnx no/such/folder.onnx 74 "cannot write"
[ -z "$(find . -name '*.tmp.*')" ] || fail "temporary files are left"

echo "$passed passed, $failed failed"
[ $failed = 0 ]
