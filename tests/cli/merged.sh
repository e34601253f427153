#!/bin/sh
# tests/cli/merged.sh TPC - a merged decoder, an If on an input: refused while the input is not known, compiled once per branch with --bind, and
# right on 1, 2 and 3 ranks (verify binds what a data set has for it).
set -eu
tpc=$1
folder=${SOURCE:-$(cd "$(dirname "$0")/../.." && pwd)}/tests/cli/merged
"$tpc" compile "$folder/model.onnx" --tp 2 -o free.plan 2>err && { echo "compiled without knowing its branch"; exit 1; }
grep -q "its condition 'use_cache_branch' is not decided" err
for branch in true false; do
    "$tpc" compile "$folder/model.onnx" --tp 2 --bind use_cache_branch=$branch -o $branch.plan
    "$tpc" dump $branch.plan >$branch.txt
    grep -q '^  row ' $branch.txt
done
if cmp -s true.txt false.txt; then
    echo "both branches give one plan"
    exit 1
fi
for ranks in 1 2 3; do
    "$tpc" verify "$folder" --tp $ranks --rtol 0
done
