#!/bin/sh
# tests/cli/steering.sh TPC - pins and plan files: what cannot be meant is refused in one line, and a plan printed as a plan file gives the same plan again.
set -u
tpc=$1
source=${SOURCE:-$(cd "$(dirname "$0")/../.." && pwd)}
models=$source/tests/models
failed=0
passed=0

fail() { echo "FAILED: $*"; failed=$((failed + 1)); }

# refuse CODE TEXT MODEL OPTION...: exit code, one error line that holds TEXT, no plan
refuse() {
    code=$1 text=$2 model=$models/$3/model.onnx
    shift 3
    rm -f x.plan
    timeout 20 "$tpc" compile "$model" "$@" -o x.plan >out 2>err
    got=$?
    if [ $got != "$code" ] || ! grep -qF -- "$text" err || [ "$(grep -c 'error:' err)" != 1 ] || [ -s out ] || [ -e x.plan ]; then
        fail "$*: exit code $got, not $code, or no '$text' in: $(head -3 err)"
    else
        passed=$((passed + 1))
    fi
}

llama=llama-ts17 gpt2=gpt2-ts17
refuse 64 "'q_prj=column': no node and no weight is called so; the nearest is '/model/model/layers.0/self_attn/q_proj/MatMul'" $llama --tp 2 --pin 'q_prj=column'
refuse 64 "unknown style 'colum'; did you mean 'column'" $llama --tp 2 --pin 'q_proj=colum'
refuse 64 "must be PATTERN=STYLE" $llama --tp 2 --pin 'q_proj'
refuse 64 "must be PATTERN=STYLE" $llama --tp 2 --pin '=row'
refuse 64 "contradict: for its input features the first says whole and the second cut" $llama --tp 2 --pin 'q_proj=column' --pin 'layers.1.self_attn.q_proj=row'
refuse 64 "contradict: for its output features the first says cut in 2 and the second cut in 4" $llama --tp 4 --pin 'q_proj=column:2' --pin 'q_proj=column:4'
refuse 64 "this is an embedding, and style 'row' is for linears" $llama --tp 2 --pin 'embed_tokens=row'
refuse 64 "this is a linear, and style 'vocab' is for embeddings" $llama --tp 2 --pin 'q_proj=vocab'
refuse 64 "(Softmax): error: 'Softmax=column': names no switch point" $llama --tp 2 --pin 'Softmax=column'
refuse 64 "packed (84 | 168), and a plain cut would mix them up; use packed_colwise" $gpt2 --tp 2 --pin 'c_attn=colwise'
refuse 64 "one piece, not packed; use colwise" $gpt2 --tp 2 --pin 'c_fc=packed_colwise'
refuse 64 "cannot be cut in 2 equal parts: its factors are 257" $gpt2 --tp 2 --pin 'lm_head=colwise' --even
refuse 64 "cannot be cut in 5: its factors are 4, 3" $llama --tp 5 --pin 'q_proj=colwise'
refuse 64 "its input cannot be cut: a factor of 96 is reduced by an op that needs all of it" $llama --tp 2 --pin 'q_proj=rowwise'
refuse 64 "its output cannot be cut: a factor of 96 is reduced" $llama --tp 2 --pin 'o_proj=colwise'
refuse 64 "'q_proj=rowwise_rep' at '/model/model/layers.0/self_attn/q_proj/MatMul' and 'k_proj=colwise' at '/model/model/layers.0/self_attn/k_proj/MatMul' cannot both be obeyed over 2 ranks" $llama --tp 2 --pin 'q_proj=rowwise_rep' --pin 'k_proj=colwise' --pin 'lm_head=colwise'
refuse 66 "nowhere.json" $llama --tp 2 --tp-plan nowhere.json

# plan files
bad() {
    printf '%s' "$3" >bad.json
    refuse "$1" "$2" $llama --tp 2 --tp-plan bad.json
}
bad 65 "not JSON" '{"q_proj": '
bad 65 "not JSON, from: x" '{"q_proj": "column"} x'
bad 65 "not JSON" ''
bad 65 "must be an object" '["q_proj"]'
bad 65 "its style must be a name or an object" '{"q_proj": 3}'
bad 65 "a pattern is empty" '{"": "column"}'
bad 65 "did you mean 'colwise'" '{"q_proj": "colwize"}'
bad 65 "no node and no weight is called so" '{"q_prj": "colwise"}'
bad 65 "is a plan for 4 ranks, not for 2" '{"tp": 4, "plan": {"q_proj": "colwise"}}'
bad 65 "has 'plans', which is none of" '{"plans": {}, "plan": {}}'
bad 65 "style 'colwise' is built in" '{"styles": {"colwise": {}}, "plan": {}}'
bad 65 "style 'mine' has 'inputs', which is none of" '{"styles": {"mine": {"inputs": "whole"}}, "plan": {}}'
bad 65 "style 'mine': 'rows' is no placement" '{"styles": {"mine": {"weight": "rows"}}, "plan": {}}'
bad 65 "style 'mine': \"input\" must be a word" '{"styles": {"mine": {"input": 3}}, "plan": {}}'
bad 65 "style 'mine' must be an object" '{"styles": {"mine": "column"}, "plan": {}}'
bad 65 '"styles" must be an object' '{"styles": 3, "plan": {}}'
head -c 20000 /dev/zero | tr '\0' '[' >bad.json
refuse 65 "not JSON" $llama --tp 2 --tp-plan bad.json

# what is said of sizes is so
refuse 64 "split over 4 ranks here, which cannot be 3 parts; choose a --tp that 3 divides" $llama --tp 4 --pin q_proj=column:3
refuse 64 "split over 2 ranks here, which cannot be 4 parts" $llama --mesh dp=2,tp=2 --pin q_proj=column:4
refuse 64 "its output features cannot be cut in 7: its factors are " $llama --tp 7 --pin q_proj=column
refuse 64 "the table's rows cannot be cut in equal parts over 4 ranks; leave --even out" $llama --tp 4 --even --pin embed_tokens=vocab
refuse 64 "did you mean 'column' (or that and :N" $llama --tp 4 --pin q_proj=column:0
"$tpc" compile "$models/$llama/model.onnx" --tp auto --memory-budget 1GB --pin q_proj=column:4 -o x.plan 2>err || fail "a pin for 4 ranks under --tp auto: $(head -1 err)"
grep -q "tp auto takes 4: 4 ranks need" err || fail "--tp auto with a pin says $(cat err)"
refuse 64 "'nobody=column': no node and no weight" $llama --tp auto --memory-budget 1GB --pin nobody=column

# noted LINE LAYER OPTION...: why nothing is split, and why that layer is whole
noted() {
    line=$1 layer=$2
    shift 2
    "$tpc" compile "$models/$llama/model.onnx" "$@" -o x.plan 2>err || fail "$*: $(head -1 err)"
    "$tpc" dump x.plan | grep -A1 'layers.0/mlp/up_proj' >out
    if grep -qF -- "$line" err && grep -qF -- "left whole: $layer" out; then passed=$((passed + 1)); else fail "$*: $(cat err out)"; fi
}
noted "no split is faster than all weights on every rank" "it could be cut" --tp 4 --objective latency
noted "divides into equal parts (without --even something does)" "a factor of 120 does not divide" --tp 7 --even
noted "no batch to divide: it is 1" "no axis of the mesh" --mesh dp=2 --set batch=1
noted "nothing to split that the pins allow" "it could be cut" --tp 2 --pin '**=replicate'

# a model's own plan, by module path, over three exporters' names
cat >hf.json <<'J'
{"layers.*.self_attn.q_proj": "colwise", "layers.*.self_attn.k_proj": "colwise", "layers.*.self_attn.v_proj": "colwise",
 "layers.*.self_attn.o_proj": "rowwise", "layers.*.mlp.gate_proj": "colwise", "layers.*.mlp.up_proj": "colwise",
 "layers.*.mlp.down_proj": "rowwise", "lm_head": "colwise_rep", "embed_tokens": "embedding_rowwise"}
J
for model in llama-ts17 llama-dy18 llama-dy23; do
    timeout 60 "$tpc" verify "$models/$model" --tp 2 --tp-plan hf.json >out 2>&1 || fail "$model with a model's own plan: $(tail -3 out)"
done

"$tpc" compile "$models/$llama/model.onnx" --tp 1 --tp-plan hf.json -o x.plan 2>err || fail "a plan on one rank: $(head -1 err)"

# own styles, sequence shards, whole modules: they run, and print themselves
cat >own.json <<'J'
{"styles": {"mine": {"input": "whole", "weight": "row", "output": "whole"}},
 "plan": {"layers.0.mlp.down_proj": {"weight": "column", "output": "whole"}, "lm_head": "mine", "layers.1.mlp": "replicate"}}
J
timeout 60 "$tpc" verify "$models/$llama" --tp 3 --tp-plan own.json >out 2>&1 || fail "own styles: $(tail -3 out)"
timeout 60 "$tpc" verify "$models/$llama" --tp 2 --pin 'input_layernorm=sequence_parallel' >out 2>&1 || fail "sequence shards: $(tail -3 out)"

# again MODEL TP OPTION...: compiled, printed, read back: the same bytes
again() {
    file=$models/$1/model.onnx tp=$2
    shift 2
    "$tpc" compile "$file" --tp "$tp" "$@" -o a.plan 2>err || { fail "$file --tp $tp $*: $(head -1 err)"; return; }
    "$tpc" dump a.plan --tp-plan >a.json
    "$tpc" compile "$file" --tp "$tp" --tp-plan a.json -o b.plan 2>err || { fail "$file --tp $tp $*: its own plan: $(head -1 err)"; return; }
    if cmp -s a.plan b.plan; then passed=$((passed + 1)); else fail "$file --tp $tp $*: another plan"; fi
}
for folder in "$models"/*/; do
    model=$(basename "$folder")
    for tp in $([ -n "${TPC_SANITIZE-}" ] && echo 3 || echo 2 3 4); do
        again "$model" $tp
    done
done
again $llama 3 --tp-plan own.json
again $llama 2 --pin 'o_proj=colwise_rep' --pin 'lm_head=rowwise_rep'
again $llama 4 --pin 'q_proj=column:2' --pin 'gate_proj=whole'
again $llama 2 --pin 'layers.1.mlp=replicate' --pin 'embed_tokens=embedding_colwise'
again $gpt2 4 --pin 'c_attn=packed_colwise:2' --pin 'wpe=whole'
again $gpt2 2 --pin 'h.0.mlp.c_proj=local' --pin 'h.1.attn=gather'

echo "$passed passed, $failed failed"
[ $failed = 0 ]
