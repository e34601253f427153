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
    [ -z "${TPC_SANITIZE-}" ] || sed -i '2,$d' "$tmp/single" # one of each
    while read -r option; do
        refused "$command: $option is given twice: 1 and 2" $command "$option" 1 nothing "$option" 2
    done <"$tmp/single"
done
wanted=36
[ -z "${TPC_SANITIZE-}" ] || wanted=4
[ "$passed" -ge $wanted ] || { failed=$((failed + 1)); echo "FAILED: only $passed options were tried"; }

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

# ---- what excludes something else, or needs it

both() { # COMMAND OPTION OTHER ARGUMENT...: in either order
    command=$1 one=$2 other=$3
    shift 3
    refused "exclude each other: give one" "$command" "$@" $one $other
    [ -n "${TPC_SANITIZE-}" ] || refused "exclude each other: give one" "$command" "$@" $other $one
}
both dump --json --tp-plan x
both dump --json --program x
both dump --tp-plan --program x
both doctor --machine --operators
both compile "--tp 2" "--mesh dp=2" x
both verify "--tp 2" "--mesh dp=2" x
both run "--prompt a" "--prompt-ids 1" x --generate 1
both run "--prompt a" "--batch-file f" x --generate 1
both run "--prompt-ids 1" "--batch-file f" x --generate 1
for option in "--inputs d" "--output a=@b" "--outputs d" "--random-inputs 1" "--repeat 2"; do
    both run "$option" "--generate 1" x --prompt-ids 1
done
both run "--device cpu" "--gpus 0" "$tmp/plan" --random-inputs 1
both verify "--device cpu" "--collectives host" "$model"
generating="--prompt --prompt-ids --batch-file --temperature --top-k --top-p --seed --eos --context --first --bind"
[ -z "${TPC_SANITIZE-}" ] || generating=--prompt
for option in $generating; do
    refused "run: $option needs --generate N" run x $option 1
done
refused "run: --text needs --batch-file FILE" run x --generate 1 --text --prompt-ids 1
refused "run: --size needs --random-inputs SEED" run x --size batch_size=1
refused "run: --bind and --input both say what 'input_ids' gets" run "$tmp/plan" --generate 1 --prompt-ids 1 --bind input_ids=tokens --input input_ids=1x1xi64=1
refused "--diff tells of whole plans: leave 'lm_head' out" explain x lm_head --diff y
refused "a file is written with --machine only" doctor x
refused "--size is for made-up inputs" verify "$models/gpt2-ts17" --size batch=1
"$tpc" compile "$model" --tp 1 -o "$tmp/plan2" --dump-after import >"$tmp/g.tpc" 2>/dev/null
for option in "--set batch_size=1" "--bind x=1" "--annotate $tmp/a.onnx" --use-annotations; do
    refused "and this is a Graph in text form" compile "$tmp/g.tpc" --tp 1 -o "$tmp/plan.bin" $option
done
# what speaks of GPUs alone asks for them
for command in "run $tmp/plan --random-inputs 1" "verify $model --tp 1"; do
    for option in "--gpus 0" "--collectives host"; do
        TPC_CUDA_PATH=$tmp "$tpc" $command $option >"$tmp/out" 2>"$tmp/err"
        if [ $? = 69 ] && grep -q "CUDA's driver is not found" "$tmp/err"; then
            passed=$((passed + 1))
        else
            failed=$((failed + 1))
            echo "FAILED: $command $option: $(cat "$tmp/err")"
        fi
    done
done

echo "$passed passed, $failed failed"
[ $failed = 0 ]
