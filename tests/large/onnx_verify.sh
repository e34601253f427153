#!/bin/sh
# tests/large/onnx_verify.sh TPC - ONNX's own node tests (where they are at hand) by `tpc verify` on 1, 2 and 3 ranks: passed, refused, failed.
# Failed must be 0. Tolerances are those of ONNX's runner; two tests' expected values are noisier than that.
set -u
tpc=$1
folder=${TPC_ONNX_NODE:-${SOURCE:-$(cd "$(dirname "$0")/../.." && pwd)}/../shared/onnx-node}
[ -d "$folder" ] || { echo "skipped: no ONNX node tests at $folder (set TPC_ONNX_NODE)"; exit 77; }
passed=0 refused=0 failed=0
for test in "$folder"/test_*/; do
    name=$(basename "$test")
    atol=1e-7
    case $name in test_dft_inverse* | test_dft_irfft* | test_stft*) atol=1e-5 ;; esac
    for ranks in ${TPC_TEST_RANKS:-1 2 3}; do
        timeout 60 "$tpc" verify "$test" --tp "$ranks" --rtol 1e-3 --atol $atol >out 2>err
        case $? in
        0) passed=$((passed + 1)) ;;
        69) refused=$((refused + 1)) ;;
        *) failed=$((failed + 1)); echo "FAILED: $name on $ranks ranks: $(grep -m1 error err)" ;;
        esac
    done
done
echo "$passed passed, $failed failed, $refused refused"
[ "$failed" = 0 ] && [ "$passed" -gt 0 ]
