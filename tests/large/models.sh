#!/bin/sh
# tests/large/models.sh TPC - every model of tests/models on several numbers of ranks: the runtime against one rank, the reference interpreter and
# PyTorch's float64 outputs, at all shapes of its data sets, to 1e-5 of the largest magnitude.
set -u
tpc=$1
models=${SOURCE:-$(cd "$(dirname "$0")/../.." && pwd)}/tests/models
failed=0
passed=0
for folder in "$models"/*/; do
    name=$(basename "$folder")
    [ -e "$folder/model.onnx" ] || continue
    for ranks in ${TPC_TEST_RANKS:-1 2 3 4 5 7 8}; do
        if "$tpc" verify "$folder" --tp "$ranks" --rtol 0 >out 2>err; then
            passed=$((passed + 1))
        else
            failed=$((failed + 1))
            echo "FAILED: $name on $ranks ranks"
            head -5 err | sed 's/^/    /'
        fi
    done
done
echo "$passed passed, $failed failed"
[ "$failed" = 0 ] && [ "$passed" -gt 0 ]
