#!/bin/sh
# tests/large/onnx_node.sh TPC - the ONNX project's node tests, by import and the reference interpreter: ONNX's own tolerance, none may fail, and
# what is refused must be for a reason listed below. The tests are not in the repository: $TPC_ONNX_NODE, or ../shared/onnx-node beside it,
# holds folders NAME/{model.onnx,test_data_set_0}.
set -eu
nodes=${TPC_ONNX_NODE:-$SOURCE/../shared/onnx-node}
driver=$BUILD/unit/onnx_node_driver
[ -d "$nodes" ] || { echo "skipped: no ONNX node tests at $nodes (set TPC_ONNX_NODE)"; exit 77; }
[ -x "$driver" ] || { echo "skipped: $driver was not built"; exit 77; }

# Where the truth is 0, these hold the rounding of the transform that made them.
noisy='^test_(dft_inverse|dft_irfft|stft)'
# What tpc does not take: strings; what is no tensor; numbers that decide shapes; chance; files in tensors.
allowed='(strings)|is not a tensor|is not a number|of type STRING|are not tensors|are not numbers|depends on the numbers of its input|makes random numbers|decodes image files|: strings'

find "$nodes" -mindepth 1 -maxdepth 1 -type d -name 'test_*' | sort >all
grep -E "/${noisy#^}" all >loose || true
grep -vE "/${noisy#^}" all >strict || true
{
    xargs -n 200 "$driver" <strict || true
    [ ! -s loose ] || xargs -n 200 "$driver" --atol 1e-5 <loose || true
} >out 2>&1
grep '^refused ' out >refused || true
grep -E '^FAILED |ERROR: |runtime error' out >failed || true
grep -vE "$allowed" refused >unexpected || true
passed=$(grep -c '^passed /' out || true)
total=$(wc -l <all)
echo "refused, by reason:"
sed -E "s/.*model\.onnx: (node [0-9]+ )?('[^']*' )?//; s/ \([0-9]+ nodes?\)//; s/^(error: )?input '[^']*'/an input/" refused | sort | uniq -c | sort -rn
cat failed
sed 's/^/refused for no accepted reason: /' unexpected
echo "$total ONNX node tests: passed $passed, refused $(wc -l <refused), failed $(wc -l <failed)"
[ "$total" -gt 0 ] && [ ! -s failed ] && [ ! -s unexpected ] && [ "$((passed + $(wc -l <refused)))" -eq "$total" ]
