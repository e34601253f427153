#!/bin/sh
# tests/large/onnx_verify.sh TPC [--print] - ONNX's own node tests (where they are at hand) by `tpc verify` on 1, 2 and 3 ranks, in the tolerance
# of ONNX's runner. None may fail, and what is refused must be refused for one of the reasons below. The result is a table, which docs/operators.md
# must have where it was made of as many tests (scripts/operators TPC --nodes writes it there); --print prints it.
set -u
tpc=$1
source=${SOURCE:-$(cd "$(dirname "$0")/../.." && pwd)}
folder=${TPC_ONNX_NODE:-$source/../shared/onnx-node}
[ -d "$folder" ] || { echo "skipped: no ONNX node tests at $folder (set TPC_ONNX_NODE)"; exit 77; }
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
ranks=${TPC_TEST_RANKS:-1 2 3}

# One line per test and number of ranks: passed|refused|failed, name, ranks, why
run_one() {
    name=$(basename "$1") atol=1e-7
    case $name in test_dft_inverse* | test_dft_irfft* | test_stft*) atol=1e-5 ;; esac # where the truth is 0 these hold the rounding of what made them
    why=$(timeout 120 "$tpc" verify "$1" --tp "$2" --rtol 1e-3 --atol $atol 2>&1 >/dev/null)
    case $? in
    0) echo "passed|$name|$2|" ;;
    69) echo "refused|$name|$2|$(reason "$why")" ;;
    *) echo "failed|$name|$2|$(echo "$why" | grep -m1 error)" ;;
    esac
}
reason() {
    case $1 in
    *'(strings)'* | *'type STRING'* | *': strings'*) echo "strings are not numbers" ;;
    *'is not a tensor'*) echo "sequences and optionals are not tensors" ;;
    *) echo "$1" | sed -nE 's/.*is not supported: (.*) \([0-9]+ nodes?\).*/\1/p' | head -1 ;;
    esac
}
allowed='^(strings are not numbers|sequences and optionals are not tensors|sequences are not tensors|optionals are not tensors|the shape of its result depends on the numbers of its input|it makes random numbers|.*: it makes random numbers|it decodes image files)$'

find "$folder" -mindepth 1 -maxdepth 1 -type d -name 'test_*' | sort >"$tmp/tests"
half() { # every second test, so that two processors are busy
    awk -v part="$1" 'NR % 2 == part' "$tmp/tests" | while read -r test; do
        for n in $ranks; do run_one "$test" "$n"; done
    done >"$tmp/half$1"
}
half 0 & half 1
wait
sort "$tmp/half0" "$tmp/half1" >"$tmp/lines"

count() { cut -d'|' -f1,2 "$tmp/lines" | sort -u | awk -F'|' -v kind="$1" '$1 == kind' | wc -l; }
failed=$(count failed) refused=$(count refused) total=$(wc -l <"$tmp/tests")
passed=$((total - failed - refused))
{
    echo "$total tests on $(echo $ranks | sed 's/ \([0-9]*\)$/ and \1/; s/\([0-9]\) \([0-9]\)/\1, \2/') ranks each: $passed passed, $refused refused, $failed failed."
    echo
    echo "| refused because | tests |"
    echo "|---|---|"
    awk -F'|' '$1 == "refused" { print $4 "|" $2 }' "$tmp/lines" | sort -u | awk -F'|' '
        { sub("^test_", "", $2); n[$1]++; names[$1] = names[$1] (n[$1] > 1 ? ", " : "") $2 }
        END { for (why in n) print "| " why " (" n[why] ") | " names[why] " |" }' | sort
} >"$tmp/table"
awk -F'|' '$1 == "failed" { print "FAILED: " $2 " on " $3 " ranks: " $4 }' "$tmp/lines"
awk -F'|' '$1 == "refused" { print $4 }' "$tmp/lines" | sort -u | grep -vE "$allowed" | sed 's/^/refused for no accepted reason: /' >"$tmp/unexpected"
cat "$tmp/table" "$tmp/unexpected"
[ "${2:-}" = --print ] && exit 0
awk '/<!-- end of node tests -->/ { on = 0 } on; /<!-- node tests -->/ { on = 1 }' "$source/docs/operators.md" | sed '/./,$!d' >"$tmp/documented"
echo >>"$tmp/table"
if [ "$(head -1 "$tmp/documented" | cut -d' ' -f1)" = "$total" ] && [ "$ranks" = "1 2 3" ] && ! cmp -s "$tmp/documented" "$tmp/table"; then
    echo "docs/operators.md says otherwise: run scripts/operators $tpc --nodes"
    exit 1
fi
[ "$failed" = 0 ] && [ ! -s "$tmp/unexpected" ] && [ "$passed" -gt 0 ]
