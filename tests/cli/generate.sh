#!/bin/sh
# tests/cli/generate.sh TPC - tpc run --generate: the tokens that ONNX Runtime writes (tests/models/*/greedy.txt, made by greedy.py), for each prompt
# alone and for all in one batch, on 1, 2 and 3 ranks; sampling, stopping, and what is refused.
set -u
tpc=$1
models=$(cd "$(dirname "$0")/../models" && pwd)
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
failed=0
passed=0

wrong() {
    failed=$((failed + 1))
    echo "FAILED: $*"
    sed 's/^/    /' "$tmp/err" | head -3
}

# same WHAT WANTED GOT
same() {
    if [ "$2" = "$3" ]; then
        passed=$((passed + 1))
    else
        wrong "$1: $3, not $2"
    fi
}

ids() { tr '\n' ',' <"$tmp/out" | sed 's/,$//'; }
run() { timeout 60 "$tpc" run "$@" >"$tmp/out" 2>"$tmp/err"; }

# refused CODE TEXT ARGUMENT...: one line that holds TEXT, nothing on stdout
refused() {
    code=$1 text=$2
    shift 2
    run "$@"
    got=$?
    if [ $got = "$code" ] && grep -qF -- "$text" "$tmp/err" && [ "$(grep -c error: "$tmp/err")" = 1 ] && ! [ -s "$tmp/out" ]; then
        passed=$((passed + 1))
    else
        wrong "exit code $got and no '$text': $*"
    fi
}

# ---- greedy, against ONNX Runtime

number=0
for list in "$models"/*/greedy.txt; do
    number=$((number + 1))
    name=$(basename "$(dirname "$list")")
    case ${TPC_SANITIZE-}:$((number % 2)):$name in :* | *:0:* | *:llama-past-opt18) ;; *) continue ;; esac # half of them under sanitizers
    cut -d' ' -f1 "$list" >"$tmp/prompts"
    count=$(head -1 "$list" | cut -d' ' -f2 | tr ',' '\n' | wc -l)
    case $name in *past* | *genai*) sizes="1 2 3" ;; *) sizes="1 3" ;; esac
    for ranks in $sizes; do
        "$tpc" compile "$models/$name/model.onnx" --tp $ranks -o "$tmp/$name.$ranks" >/dev/null 2>"$tmp/err" || wrong "$name does not compile"
        while read -r prompt wanted; do
            [ $ranks = 1 ] || break
            run "$tmp/$name.$ranks" --generate "$count" --prompt-ids "$prompt"
            same "$name on $ranks" "$wanted" "$(ids)"
        done <"$list"
        run "$tmp/$name.$ranks" --generate "$count" --batch-file "$tmp/prompts"
        row=1
        while read -r prompt wanted; do
            same "$name on $ranks, row $row" "$wanted" "$(cut -d' ' -f$row "$tmp/out" | tr '\n' ',' | sed 's/,$//')"
            row=$((row + 1))
        done <"$list"
    done
done

# ---- the cache against none: each token from the whole text

plan=$tmp/llama-past-opt18.2
read -r text wanted <"$models/llama-past-opt18/greedy.txt"
for token in $(echo "$wanted" | tr ',' ' '); do
    run "$plan" --generate 1 --prompt-ids "$text"
    same "recomputed" "$token" "$(ids)"
    text=$text,$token
done

# ---- stopping

read -r text wanted <"$models/llama-past-opt18/greedy.txt"
third=$(echo "$wanted" | cut -d, -f3)
run "$plan" --generate 14 --prompt-ids "$text" --eos "$third,99999" --eos 88888
same "stops at the third" "$(echo "$wanted" | cut -d, -f1-3)" "$(ids)"
cut -d' ' -f1 "$models/llama-past-opt18/greedy.txt" >"$tmp/prompts"
run "$plan" --generate 14 --batch-file "$tmp/prompts" --eos "$third"
same "the first row has ended, the last goes on" "- $(tail -1 "$models/llama-past-opt18/greedy.txt" | cut -d' ' -f2 | cut -d, -f5)" \
    "$(sed -n 5p "$tmp/out" | cut -d' ' -f1,4)"
run "$tmp/llama-past-opt18.3" --first "$tmp/llama-past-opt18.1" --generate 14 --batch-file "$tmp/prompts"
same "the prompt on one rank, the rest on three" "$(tail -1 "$models/llama-past-opt18/greedy.txt" | cut -d' ' -f2)" \
    "$(cut -d' ' -f4 "$tmp/out" | tr '\n' ',' | sed 's/,$//')"
run "$plan" --generate 0 --prompt-ids 1
same "nothing wanted" "" "$(ids)"

# ---- sampling

draw() { run "$plan" --generate 40 --prompt-ids 5,9 "$@" && ids; }
same "the same seed" "$(draw --temperature 1.5 --seed 7)" "$(draw --temperature 1.5 --seed 7)"
[ "$(draw --temperature 1.5 --seed 7)" != "$(draw --temperature 1.5 --seed 8)" ] || wrong "another seed gives the same"
same "the likeliest alone" "$(draw)" "$(draw --top-k 1 --seed 3)"
same "a narrow nucleus" "$(draw)" "$(draw --top-p 0.000001 --seed 3)"

# ---- bytes

"$tpc" compile "$models/../../examples/charlm/model.onnx" --tp 2 -o "$tmp/charlm" >/dev/null 2>"$tmp/err" || wrong "charlm does not compile"
run "$tmp/charlm" --generate 40 --prompt 'Elizabeth '
same "a text" 'Elizabeth was so much glancing at the same time th' "$(cat "$tmp/out")"
printf 'Elizabeth \nIt is a truth \n' >"$tmp/texts"
run "$tmp/charlm" --generate 40 --batch-file "$tmp/texts"
same "a batch of texts" 'Elizabeth was so much glancing at the same time th
It is a truth a moment I am sure I had not been at all' "$(cat "$tmp/out")"
printf '1,2\n3\n' >"$tmp/digits"
run "$tmp/charlm" --generate 1 --batch-file "$tmp/digits" --text
same "digits as text" 1,2 "$(head -c 3 "$tmp/out")"

# ---- an encoder and a decoder (tests/generate/make.py): without past; with past behind one without; two rows

pair=$models/../generate/t5
first=$(sed -n 1p "$pair/greedy.txt" | cut -d' ' -f1) second=$(sed -n 2p "$pair/greedy.txt" | cut -d' ' -f1)
printf '0\n0\n' >"$tmp/starts"
for ranks in 1 2; do
    for part in encoder_model decoder_model decoder_with_past_model; do
        "$tpc" compile "$pair/$part.onnx" --tp $ranks -o "$tmp/$part" >/dev/null 2>"$tmp/err" || wrong "$part does not compile"
    done
    run "$tmp/encoder_model" --input "input_ids=2x7xi64=$first,$second" --input attention_mask=2x7xi64=1,1,1,1,1,1,1,1,1,1,1,1,1,1 \
        --output last_hidden_state=@"$tmp/hidden.npy" || wrong "the encoder does not run"
    for way in decoder_model decoder_with_past_model; do
        set -- "$tmp/$way" --input encoder_hidden_states=@"$tmp/hidden.npy" --generate 14 --batch-file "$tmp/starts"
        [ $way = decoder_model ] || set -- "$@" --first "$tmp/decoder_model"
        run "$@"
        for row in 1 2; do
            same "$way on $ranks, row $row" "$(sed -n ${row}p "$pair/greedy.txt" | cut -d' ' -f2)" \
                "$(cut -d' ' -f$row "$tmp/out" | tr '\n' ',' | sed 's/,$//')"
        done
    done
done
# the prompt's plan compiled for the states of the one behind it: they are not gathered
"$tpc" compile "$pair/decoder_model.onnx" --tp 2 --state-from "$tmp/decoder_with_past_model" -o "$tmp/first" >/dev/null 2>"$tmp/err" || wrong "--state-from"
same "what is a state there stays cut" 4 "$("$tpc" dump "$tmp/first" | grep -c 'all_gather *of present.*encoder')"
same "and is gathered by nobody" 0 "$("$tpc" dump "$tmp/first" | grep -c 'all_gather *of present.*decoder')"
run "$tmp/decoder_with_past_model" --input encoder_hidden_states=@"$tmp/hidden.npy" --generate 14 --batch-file "$tmp/starts" --first "$tmp/first"
for row in 1 2; do
    same "states stay on their ranks, row $row" "$(sed -n ${row}p "$pair/greedy.txt" | cut -d' ' -f2)" \
        "$(cut -d' ' -f$row "$tmp/out" | tr '\n' ',' | sed 's/,$//')"
done
"$tpc" compile "$pair/decoder_with_past_model.onnx" --tp 2 --state-from "$tmp/decoder_model" -o "$tmp/x" 2>"$tmp/err" || wrong "whole states"
grep -q "hands its states out whole" "$tmp/err" || wrong "no note of whole states"

# unlike CODE TEXT ARGUMENT...: a plan that cannot take the other's states
unlike() {
    code=$1 text=$2
    shift 2
    rm -f "$tmp/x"
    "$tpc" compile "$@" -o "$tmp/x" >"$tmp/out" 2>"$tmp/err"
    same "$*" "$code 1 1" "$? $(grep -c error: "$tmp/err") $(grep -cF -- "$text" "$tmp/err")"
    [ ! -e "$tmp/x" ] || wrong "a plan was written: $*"
}
caches=$tmp/llama-past-opt18.2
unlike 64 "plan for --mesh tp=2" "$models/llama-past-opt18/model.onnx" --tp 3 --state-from "$caches"
unlike 64 "fixes the number" "$models/llama-past-opt18/model.onnx" --tp auto --objective latency --state-from "$caches"
unlike 64 "'past_key_values.0.key' is f32 [batch_size, 6," "$models/gpt2-past-opt18/model.onnx" --tp 2 --state-from "$caches"
unlike 64 "no state in common" "$models/bert-dy18/model.onnx" --tp 2 --state-from "$caches"
unlike 64 "hands out nothing for the state" "$models/llama-past-opt18/model.onnx" --tp 2 --state-from "$tmp/encoder_model"
unlike 64 "--state-from (state " "$models/llama-past-opt18/model.onnx" --tp 2 --state-from "$caches" --pin 'layers.*=replicate'
unlike 66 "none.bin" "$models/llama-past-opt18/model.onnx" --tp 2 --state-from "$tmp/none.bin"
"$tpc" compile "$models/llama-past-opt18/model.onnx" --tp 2 --state-from "$caches" -o "$caches" 2>"$tmp/err"
same "not over the other" "64 1" "$? $(grep -c 'overwrite that of --state-from' "$tmp/err")"

refused 69 "encoder_hidden_states" "$tmp/decoder_model" --generate 3 --prompt-ids 0
refused 69 "past_key_values.0.encoder.key" "$tmp/decoder_with_past_model" --generate 3 --prompt-ids 0
refused 69 "does not hand out" "$tmp/decoder_with_past_model" --first "$tmp/encoder_model" --generate 3 --prompt-ids 0
refused 64 "--generate" "$tmp/decoder_model" --first "$tmp/decoder_model"

# ---- refused

refused 69 "byte-level" "$plan" --generate 3 --prompt hello
refused 69 "byte-level" "$plan" --generate 3 --batch-file "$tmp/texts"
refused 64 "--prompt needs a value" "$tmp/charlm" --generate 3 --prompt ''
refused 64 "--prompt-ids" "$plan" --generate 3 --prompt-ids 1,,2
refused 64 "--prompt-ids" "$plan" --generate 3 --prompt-ids 1,
refused 64 "--prompt-ids" "$plan" --generate 3 --prompt-ids 99999999999999999999
refused 65 "is not below 209" "$plan" --generate 3 --prompt-ids 1,209
refused 64 "one of --prompt" "$plan" --generate 3
refused 64 "exclude each other" "$plan" --generate 3 --prompt-ids 1 --batch-file "$tmp/prompts"
refused 64 "--generate" "$plan" --prompt-ids 1
refused 64 "context of 8 is too small" "$plan" --generate 6 --prompt-ids 1,2,3,4 --context 8
refused 64 "--top-p" "$plan" --generate 6 --prompt-ids 1 --top-p 1.5
refused 64 "temperature 0" "$plan" --generate 6 --prompt-ids 1 --seed 1
refused 64 "--temperature is '1e300'" "$plan" --generate 6 --prompt-ids 1 --temperature 1e300
refused 64 "--eos" "$plan" --generate 6 --prompt-ids 1 --eos x
refused 64 "INPUT=tokens" "$plan" --generate 6 --prompt-ids 1 --bind position_ids=angles
refused 64 "no input 'nobody'" "$plan" --generate 6 --prompt-ids 1 --bind nobody=mask
refused 64 "is a state" "$plan" --generate 6 --prompt-ids 1 --bind past_key_values.0.key=mask
refused 64 "cannot be" "$plan" --generate 6 --prompt-ids 1 --bind position_ids=given
: >"$tmp/empty"
refused 65 "no prompt" "$plan" --generate 6 --batch-file "$tmp/empty"
printf '1,2\n\n3\n' >"$tmp/gap"
refused 65 "line 2 is empty" "$tmp/charlm" --generate 6 --batch-file "$tmp/gap"
refused 66 "none.txt" "$plan" --generate 6 --batch-file "$tmp/none.txt"
refused 65 "tmp" "$plan" --generate 6 --batch-file "$tmp"

echo "$passed passed, $failed failed"
[ $failed = 0 ]
