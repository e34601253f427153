#!/bin/sh
# tests/cli/options.sh TPC - the table of options: what is given twice, and what excludes or needs something else, is refused in one line; exit code 64.
set -u
tpc=$1
models=$(cd "$(dirname "$0")/../models" && pwd)
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
passed=0
failed=0

# refused TEXT ARGUMENT...
refused() {
    text=$1
    shift
    timeout 20 "$tpc" "$@" >"$tmp/out" 2>"$tmp/err" </dev/null
    got=$?
    if [ $got = 64 ] && [ "$(wc -l <"$tmp/err")" = 1 ] && grep -qF -- "$text" "$tmp/err" && ! [ -s "$tmp/out" ] && ! [ -e "$tmp/plan.bin" ]; then
        passed=$((passed + 1))
    else
        failed=$((failed + 1))
        echo "FAILED: exit code $got and no '$text': $*"
        sed 's/^/    /' "$tmp/err" | head -3
    fi
}

# ---- twice: every option of every subcommand that takes one value

for command in compile run dump explain verify doctor; do
    "$tpc" $command --help >"$tmp/help"
    sed -n 's/^  \(-[-a-z]*\) [^ ].*/\1 &/p' "$tmp/help" | while read -r option line; do
        case $line in
        *"may be repeated"*) continue ;;
        "$option  "*) continue ;; # a flag
        esac
        echo "$option"
    done >"$tmp/single"
    while read -r option; do
        refused "$command: $option is given twice: 1 and 2" $command "$option" 1 nothing "$option" 2
    done <"$tmp/single"
done
[ "$passed" -ge 36 ] || { failed=$((failed + 1)); echo "FAILED: only $passed options were tried"; }

refused "compile: --tp is given twice: 2 and 2" compile --tp=2 --tp=2

# ---- twice: names within one that may be repeated

model=$models/gpt2-past-opt18/model.onnx
"$tpc" compile "$model" --tp 1 -o "$tmp/plan" 2>/dev/null || echo "FAILED: does not compile"
refused "compile: --set gives 'batch_size' twice: 1 and 2" compile "$model" --tp 1 --set batch_size=1 --set batch_size=2 -o "$tmp/plan.bin"
refused "compile: --bind gives 'x' twice: true and true" compile "$model" --tp 1 --bind x=true --bind x=true -o "$tmp/plan.bin"
refused "compile: --nominal gives batch_size twice" compile "$model" --tp 1 --nominal batch_size=1 --nominal batch_size=1 -o "$tmp/plan.bin"
refused "run: --size gives 'batch_size' twice: 1 and 2" run "$tmp/plan" --random-inputs 1 --size batch_size=1 --size batch_size=2
refused "run: --input gives 'input_ids' twice" run "$tmp/plan" --input input_ids=1x1xi64=1 --input input_ids=1x1xi64=2
refused "run: --bind gives 'input_ids' twice" run "$tmp/plan" --generate 1 --prompt-ids 1 --bind input_ids=tokens --bind input_ids=mask

echo "$passed passed, $failed failed"
[ $failed = 0 ]
