#!/bin/sh
# tests/cli/machine.sh TPC - machine files, nominal extents, budgets of memory and --tp auto: what is refused in one line, and what they do to a plan.
set -u
tpc=$1
model=${SOURCE:-$(cd "$(dirname "$0")/../.." && pwd)}/tests/models/llama-past-opt18/model.onnx
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
cd "$tmp" || exit 1
failed=0

no() {
    failed=$((failed + 1))
    echo "FAILED: $*"
    sed 's/^/    /' err | head -3
}

# refuse CODE TEXT OPTION...: one line on stderr with TEXT, no plan
refuse() {
    code=$1 text=$2
    shift 2
    timeout 60 "$tpc" compile "$model" -o plan.bin "$@" >out 2>err
    got=$?
    [ "$got" = "$code" ] || no "$*: exit code $got, not $code"
    grep -qF -- "$text" err || no "$*: no '$text'"
    [ "$(wc -l <err)" = 1 ] || no "$*: $(wc -l <err) lines"
    [ ! -e plan.bin ] || no "$*: left a plan"
    rm -f plan.bin
}

# bad TEXT JSON: a machine file that is refused
bad() {
    printf '%s' "$2" >machine.json
    refuse 65 "$1" --tp 2 --machine machine.json
}

accept() {
    timeout 60 "$tpc" compile "$model" -o plan.bin "$@" >out 2>err || no "$*: exit code $?"
}

says() {
    "$tpc" dump plan.bin --json >json 2>err
    grep -qF -- "$1" json || no "the plan does not say $1"
}

good='"name": "m", "memory_bandwidth": 1e9'
flops='"flops": {"f32": 1e9}' links='"links": [{"ranks": 4, "latency": 1e-6, "bandwidth": 1e9}]'
bad "no JSON" ''
bad "no JSON" '{'
bad "no JSON" "$(printf '%060000d' 0 | tr 0 '[')"
bad "65536 bytes at most" "$(printf '%070000d' 0)"
bad "one JSON object" '[]'
bad "something follows" "{$good, $flops, $links} x"
bad "flops must be" "{$good, $links}"
bad "flops.f32 is missing" "{$good, \"flops\": {}, $links}"
bad "flops.f32 must be a number" "{$good, \"flops\": {\"f32\": -1}, $links}"
bad "flops.f32 must be a number" "{$good, \"flops\": {\"f32\": 1e999}, $links}"
bad "flops.f31 is no field" "{$good, \"flops\": {\"f31\": 1}, $links}"
bad "links must be a list" "{$good, $flops}"
bad "links must be a list" "{$good, $flops, \"links\": []}"
bad "links[0].bandwidth is missing" "{$good, $flops, \"links\": [{\"ranks\": 4, \"latency\": 0}]}"
bad "links[1].ranks must be a number from 5" "{$good, $flops, \"links\": [{\"ranks\": 4, \"latency\": 0, \"bandwidth\": 1}, {\"ranks\": 4, \"latency\": 0, \"bandwidth\": 1}]}"
bad "links[0].ranks must be a whole number" "{$good, $flops, \"links\": [{\"ranks\": 4.5, \"latency\": 0, \"bandwidth\": 1}]}"
bad "colour is no field" "{$good, $flops, $links, \"colour\": 1}"
bad "name is there twice" "{$good, $flops, $links, \"name\": \"n\"}"
bad "devices must be a whole number" "{$good, $flops, $links, \"devices\": 1.5}"
bad "name must be" "{\"memory_bandwidth\": 1e9, $flops, $links}"
refuse 66 "no such machine file" --tp 2 --machine h300x8

refuse 64 "no such symbol (it has: batch_size" --tp 2 --nominal batch=1
refuse 64 "must be SYMBOL=N" --tp 2 --nominal batch_size
refuse 64 "must be SYMBOL=N" --tp 2 --nominal batch_size=1/2/3
refuse 64 "must be SYMBOL=N" --tp 2 --nominal batch_size=-1
refuse 64 "twice" --tp 2 --nominal batch_size=1,batch_size=2
refuse 64 "bytes or latency" --tp 2 --objective speed
refuse 64 "such as 24GiB" --tp 2 --memory-budget 24Gi
refuse 64 "such as 24GiB" --tp 2 --memory-budget nan
refuse 64 "--tp auto needs to know" --tp auto
refuse 64 "the smallest plan on 2 ranks needs" --tp 2 --memory-budget 1KiB
refuse 64 "no number of ranks up to 64 fits" --tp 64 --memory-budget 1KiB
size="batch_size=1,sequence_length=16/1,past_sequence_length=16/16"
refuse 64 "--tp 3 is the smallest that fits" --tp 2 --nominal $size --memory-budget 200KB

accept --tp 2 --nominal sequence_length=64/2,past_sequence_length=32
says '"sequence_length":	64'
says '"sequence_length":	2'
printf '%s' "{$good, $flops, $links}" >machine.json
accept --tp 2 --machine machine.json --objective latency
says '"machine":	"m"'
says '"objective":	"latency"'
accept --tp auto --nominal $size --memory-budget 200KB
grep -q "note: --tp auto takes 3: 1 rank needs" err || no "--tp auto does not say what it tried"
says '"tp":	3'
accept --tp auto --machine h100x8
says '"tp":	1'
accept --tp auto --machine machine.json --objective latency --nominal $size
grep -q "ms" err || no "--tp auto does not say how long each takes"
accept --tp 2 --objective latency --machine h100x8 --nominal $size --memory-budget 500KB
says '"memory_budget":	500000'

"$tpc" doctor --machine here.json >out 2>err || no "doctor --machine: exit code $?"
accept --tp 2 --machine here.json
[ "$failed" = 0 ] && echo "machines, nominal extents and budgets are as documented"
exit "$((failed != 0))"
