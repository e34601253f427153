#!/bin/sh
# tests/cli/plan_json.sh TPC - the JSON document of plans keeps to docs/plan-json.schema.json, and says what it should of plain cases; compiling
# twice gives the same bytes.
set -u
tpc=$1
source=${SOURCE:-$(cd "$(dirname "$0")/../.." && pwd)}
python=
for candidate in python3 /usr/bin/python3; do
    "$candidate" -c 'import jsonschema' 2>/dev/null && python=$candidate && break
done
[ -n "$python" ] || { echo "skipped: no python3 with jsonschema (apt install python3-jsonschema)"; exit 77; }
failed=0
for model in gpt2-ts17 llama-dy18 llama-past-opt18 llama-loss-ts17 t5-ts17 vit-dy18; do
    for ranks in 1 2 4; do
        "$tpc" compile "$source/tests/models/$model/model.onnx" --tp $ranks -o a.plan || failed=1
        "$tpc" compile "$source/tests/models/$model/model.onnx" --tp $ranks -o b.plan || failed=1
        cmp a.plan b.plan || { echo "FAILED: $model compiled twice for $ranks ranks: different plans"; failed=1; }
        "$tpc" dump a.plan --json >plan.json || failed=1
        "$python" "$source/tests/cli/plan_json.py" "$source/docs/plan-json.schema.json" plan.json "$model" || failed=1
    done
done
exit $failed
