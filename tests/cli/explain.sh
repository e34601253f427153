#!/bin/sh
# tests/cli/explain.sh TPC - `tpc explain`: the page of a plan, one layer, two plans, pictures; names that would like to be more than names.
set -u
tpc=$1
models=${SOURCE:-$(cd "$(dirname "$0")/../.." && pwd)}/tests/models
failed=0

# has FILE LINE...: every LINE is in FILE, as it stands
has() {
    file=$1
    shift
    for line in "$@"; do
        grep -qF -- "$line" "$file" || { echo "FAILED: no '$line' in $file:"; sed 's/^/    /' "$file" | head -30; failed=1; }
    done
}
lacks() { if grep -qF -- "$2" "$1"; then echo "FAILED: '$2' in $1"; failed=1; fi; }
# ends CODE COMMAND...
ends() {
    code=$1
    shift
    "$@" >out 2>err
    got=$?
    [ $got = "$code" ] || { echo "FAILED: exit $got, not $code: $*"; cat err; failed=1; }
}

"$tpc" compile "$models/gpt2-ts17/model.onnx" --tp 2 -o two.plan || exit 1
"$tpc" compile "$models/gpt2-ts17/model.onnx" --tp 4 -o four.plan || exit 1

# The page: six heads packed as q|k|v over four ranks; two layers told once; the two embeddings share one sum.
ends 0 "$tpc" explain four.plan
has out "over tp 4" "2 x block of 4" "column        [3 x 6/4 x 14, 84]" "row           [84, 6/4 x 14]" \
    "/model/transformer/h.*/mlp/c_fc/Gemm, weight model.transformer.h.*.mlp.c_fc.weight" "all_reduce 168.0 KiB (one for 2 layers)"
[ "$(grep -c c_attn out)" = 1 ] || { echo "FAILED: equal layers are told more than once"; failed=1; }

# One layer: what it could have been, and what is in the way.
ends 0 "$tpc" explain four.plan model.transformer.h.1.mlp.c_fc.weight
has out "/model/transformer/h.1/mlp/c_fc/Gemm (Gemm): column" "stored: 51.2 KiB in all; per rank 12.8 KiB (0 to 3)" "causes: no collective" \
    "cannot be: row: a factor of 84 is reduced by an op that needs all of it" "could be: replicated"
ends 0 "$tpc" explain four.plan '*h.?/attn/c_proj*'
[ "$(grep -c 'causes: all_reduce' out)" = 2 ] || { echo "FAILED: a pattern should find two layers, each with its sum"; failed=1; }
ends 0 "$tpc" explain four.plan logits
has out 'logits: a value of shape ["batch","sequence",257]'
ends 64 "$tpc" explain four.plan no.such.layer
has err "no layer, weight or value is called 'no.such.layer'"
ends 66 "$tpc" explain absent.plan

# Two plans.
ends 0 "$tpc" explain two.plan --diff two.plan
has out "the plans do the same"
ends 0 "$tpc" explain two.plan --diff four.plan
has out "ranks: tp 2 -> tp 4" "2 x /model/transformer/h.0/mlp/c_fc/Gemm: column [156/2, 84] -> column [156/4, 84]"

# Pictures.
ends 0 "$tpc" explain four.plan --dot -
has out "digraph plan {" "2 x column [156/4, 84]"
if command -v dot >/dev/null; then dot -Tsvg out >/dev/null || { echo "FAILED: dot does not read it"; failed=1; }; fi
ends 74 "$tpc" explain four.plan --html /no/such/folder/page.html

# A model whose names want out of the text, the page and the picture.
cat >hostile.tpc <<'END'
symbol batch
param 0 = "</script><img src=x onerror=document.title=1>\"; bad [" f32[12, 64] data all(0)
origin 1 = "a" 0 "\x1b[2J</script><b>\"; bad [" "MatMul"
%1: f32[batch, 64] = input index 0 as "x"
%2: f32[12, 64] = param index 0
%3 = dot %1, %2 contract 1 @1
output "y" %3
END
ends 0 "$tpc" compile hostile.tpc --tp 2 -o hostile.plan
ends 0 "$tpc" explain hostile.plan --html hostile.html
lacks hostile.html "<img"
ends 0 "$tpc" explain hostile.plan
has out '\x1b[2J</script><b>"; bad ['
ends 0 "$tpc" explain hostile.plan --dot -
has out '\"; bad ['

# The page in a browser: what it draws by itself, and after a click on a layer.
ends 0 "$tpc" explain four.plan --html page.html
lacks page.html "http://"
lacks page.html "https://"
browser=
for candidate in chromium chromium-browser google-chrome; do
    command -v $candidate >/dev/null && browser=$candidate && break
done
if [ -z "$browser" ]; then
    echo "no browser (apt install chromium): the page was not opened"
    exit $failed
fi
# dom FILE: the document after its scripts have run. Errors of scripts become part of it.
dom() {
    timeout 120 $browser --headless --no-sandbox --disable-gpu --disable-dev-shm-usage --user-data-dir="$PWD/browser" \
        --virtual-time-budget=2000 --dump-dom "file://$PWD/$1" 2>/dev/null
}
{
    sed 's|<head>|<head><script>window.onerror = e => document.documentElement.setAttribute("data-error", e)</script>|' page.html
    echo '<script>document.querySelector("button.layer[data-layer=\"4\"]").click()</script>'
} >clicked.html
dom clicked.html >clicked.dom
lacks clicked.dom 'data-error="'
has clicked.dom 'data-layer="0"' 'style="--colour: var(--column)"' "block 2" "(one for 2 layers)" "activations" \
    '<h2 id="node">/model/transformer/h.0/mlp/c_fc/Gemm (Gemm)</h2>' "Stored, of 51.2 KiB" "cannot be row: a factor of 84 is reduced"
dom page.html >page.dom
has page.dom "Click a layer for its reasons."
lacks page.dom "cannot be row"
dom hostile.html >hostile.dom
lacks hostile.dom "<img"
has hostile.dom "&lt;/script&gt;&lt;b&gt;"
exit $failed
