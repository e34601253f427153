#!/bin/sh
# tests/cli/bad_input.sh TPC - bad input gets one clear line, its exit code, and leaves nothing behind.
#
# Each row: file, exit code, text that the line must hold. Models are made by make_bad.py.
set -u
tpc=$1
here=$(cd "$(dirname "$0")" && pwd)
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
cp -r "$here/bad" "$tmp/bad"
mkfifo "$tmp/bad/fifo"
passed=0
failed=0

# expect CODE TEXT COMMAND...: exit code, one line on stderr that holds TEXT, nothing on stdout, no plan
expect() {
    code=$1 text=$2
    shift 2
    rm -f "$tmp/plan.bin"
    timeout 20 "$@" >"$tmp/out" 2>"$tmp/err" </dev/null
    got=$?
    why=
    [ "$got" = "$code" ] || why="exit code $got, not $code"
    grep -qF -- "$text" "$tmp/err" || why="$why; no '$text' in its message"
    [ "$(grep -c 'error:' "$tmp/err")" = "${lines:-1}" ] || why="$why; $(grep -c 'error:' "$tmp/err") error lines, not ${lines:-1}"
    [ -s "$tmp/out" ] && why="$why; printed on stdout"
    [ -e "$tmp/plan.bin" ] && why="$why; left a plan"
    [ -z "$(find "$tmp" -maxdepth 1 -name 'plan.bin*')" ] || why="$why; left a temporary file"
    if [ -z "$why" ]; then
        passed=$((passed + 1))
    else
        failed=$((failed + 1))
        echo "FAILED: $*: $why"
        sed 's/^/    /' "$tmp/err" | head -5
    fi
}

bad() { expect "$2" "$3" "$tpc" compile "$tmp/bad/$1.onnx" --tp 2 -o "$tmp/plan.bin"; }

bad empty 65 "empty"
bad text 65 "text.onnx"
bad truncated 65 "truncated.onnx"
bad inner_dims 65 "'up' (MatMul)"
bad cycle 65 "cycle"
bad undefined 65 "ghost"
bad twice 65 "'y'"
bad no_nodes 65 "no nodes"
bad no_outputs 65 "output"
lines=2 bad unknown_op 69 "Frobnicate"
bad short_weight 65 "'w'"
bad unknown_dtype 65 "'w'"
bad negative_dim 65 "'w'"
bad huge_dims 65 "'w'"
bad external_missing 66 "nowhere.data"
bad external_absolute 65 "/etc/passwd"
bad external_parent 65 "../make_bad.py"
bad external_beyond 65 "'w'"
bad external_no_number 65 "twelve"
bad external_device 65 "fifo"
bad depth_bomb 65 "depth"
bad missing_attribute 65 "'join' (Concat)"
bad bad_axis 65 "'soft' (Softmax)"
bad arity 65 "'half' (MatMul)"
bad type_mix 65 "'mix' (Add)"
bad nonzero 69 "NonZero"
expect 66 "nothing.onnx" "$tpc" compile "$tmp/bad/nothing.onnx" --tp 2 -o "$tmp/plan.bin"
expect 65 "bad" "$tpc" compile "$tmp/bad" --tp 2 -o "$tmp/plan.bin"
expect 64 "--tp" "$tpc" compile "$tmp/bad/good.onnx" --tp zero -o "$tmp/plan.bin"
expect 64 "--frob" "$tpc" compile "$tmp/bad/good.onnx" --frob 2
expect 64 "usage" "$tpc" compile
expect 64 "unknown command" "$tpc" transmogrify
expect 64 "nope" "$tpc" compile "$tmp/bad/good.onnx" --tp 2 --set nope=3 -o "$tmp/plan.bin"

expect 64 "not a number, true, false or dimension" "$tpc" compile "$tmp/bad/good.onnx" --tp 2 --bind x=nope -o "$tmp/plan.bin"

# plans and tensors
"$tpc" compile "$tmp/bad/good.onnx" --tp 1 -o "$tmp/good.plan" 2>"$tmp/err" || { echo "FAILED: the good model does not compile"; cat "$tmp/err"; failed=$((failed + 1)); }
run() { code=$1 text=$2; shift 2; expect "$code" "$text" "$tpc" run "$@"; }
run 66 "none.plan" "$tmp/none.plan"
run 65 "good.onnx" "$tmp/bad/good.onnx"
run 65 "'x'" "$tmp/good.plan"                                   # a missing input
run 65 "'z'" "$tmp/good.plan" --input z=2x4xf32=1,2,3,4,5,6,7,8 # a misnamed one
run 65 "'x'" "$tmp/good.plan" --input x=2x5xf32=1,2,3,4,5,6,7,8,9,10
run 65 "'x'" "$tmp/good.plan" --input x=2x4xi64=1,2,3,4,5,6,7,8
run 65 "x" "$tmp/good.plan" --input x=2x4xf32=1,2,3
run 66 "none.npy" "$tmp/good.plan" --input x=@"$tmp/none.npy"
head -c 200 "$tmp/good.plan" >"$tmp/short.plan"
run 65 "short.plan" "$tmp/short.plan" --input x=1x4xf32=1,2,3,4
{ cat "$tmp/good.plan"; echo; } >"$tmp/long.plan"
run 65 "long.plan" "$tmp/long.plan" --input x=1x4xf32=1,2,3,4
echo "changed" >>"$tmp/bad/good.onnx"
run 65 "good.onnx" "$tmp/good.plan" --input x=1x4xf32=1,2,3,4   # the weights' file has changed
rm "$tmp/bad/good.onnx"
run 66 "good.onnx" "$tmp/good.plan" --input x=1x4xf32=1,2,3,4   # and is gone

# A token id that no rank has is refused, however the vocabulary (211) is cut, by compiled and by interpreted kernels.
mkdir "$tmp/nothing"
for ranks in 1 2 3; do
    "$tpc" compile "$here/../models/llama-ts17/model.onnx" --tp $ranks -o "$tmp/ids.plan"
    for id in 211 -212 9223372036854775807 -9223372036854775808; do
        run 65 "embed_tokens/Gather" "$tmp/ids.plan" --input input_ids=1x2xi64=210,$id --input attention_mask=1x2xi64=1,1
    done
    expect 65 "embed_tokens/Gather" env PATH="$tmp/nothing" "$tpc" run "$tmp/ids.plan" \
        --input input_ids=1x2xi64=-211,211 --input attention_mask=1x2xi64=1,1
done

# nothing is written over what is read, and no device or pipe is replaced by a file
good=$tmp/bad/good.onnx
cp "$here/bad/good.onnx" "$good"
cp "$good" "$tmp/before.onnx"
ln -s good.onnx "$tmp/bad/link.onnx"
expect 64 "overwrite the model" "$tpc" compile "$good" --tp 1 -o "$good"
expect 64 "overwrite the model" "$tpc" compile "$good" --tp 1 -o "$tmp/bad/link.onnx"
expect 64 "--annotate name the same" "$tpc" compile "$good" --tp 1 -o "$tmp/one" --annotate "$tmp/one"
"$tpc" compile "$tmp/before.onnx" --tp 1 -o "$tmp/kept.plan" || failed=$((failed + 1))
expect 64 "over the plan that is read" "$tpc" explain "$tmp/kept.plan" --html "$tmp/kept.plan"
expect 64 "over the plan that is read" "$tpc" explain "$tmp/good.plan" --diff "$tmp/kept.plan" --dot "$tmp/kept.plan"
expect 64 "standard output" "$tpc" explain "$tmp/kept.plan" --diff "$tmp/kept.plan" --dot -
expect 65 "a plan file must be a regular file" "$tpc" compile "$good" --tp 1 --tp-plan "$tmp/bad/fifo" -o "$tmp/plan.bin"
expect 65 "a machine file must be a regular file" "$tpc" compile "$good" --tp 1 --machine "$tmp/bad/fifo" -o "$tmp/plan.bin"
expect 64 "--outputs" "$tpc" run "$tmp/kept.plan" --generate 3 --prompt-ids 1 --outputs "$tmp"
kept() { if "$@"; then passed=$((passed + 1)); else failed=$((failed + 1)); echo "FAILED: $*"; fi; }
kept cmp -s "$good" "$tmp/before.onnx"
kept [ ! -e "$tmp/one" ]
piped() { # OUT COMMAND...: what the command writes to OUT goes through the pipe that is there
    out=$1
    shift
    mkfifo "$out"
    timeout 20 cat "$out" >"$tmp/got" &
    timeout 20 "$@" >"$tmp/out" 2>"$tmp/err" || { failed=$((failed + 1)); cat "$tmp/err"; }
    wait $!
    kept [ -p "$out" -a -s "$tmp/got" ]
}
piped "$tmp/a.pipe" "$tpc" compile "$tmp/before.onnx" --tp 1 -o "$tmp/kept.plan" --annotate "$tmp/a.pipe"
piped "$tmp/h.pipe" "$tpc" explain "$tmp/kept.plan" --html "$tmp/h.pipe"
x=$(seq -s, 8)
piped "$tmp/n.pipe" "$tpc" run "$tmp/kept.plan" --input x=2x4xf32="$x" --output y=@"$tmp/n.pipe"
piped "$tmp/p.pb" "$tpc" run "$tmp/kept.plan" --input x=2x4xf32="$x" --output y=@"$tmp/p.pb"

# what is given in place of something else, and what is misspelt
expect 65 "not an ONNX file but a tpc plan" "$tpc" compile "$tmp/kept.plan" --tp 1 -o "$tmp/plan.bin"
printf 'version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n' >"$tmp/lfs.onnx"
expect 65 "a Git LFS pointer" "$tpc" compile "$tmp/lfs.onnx" --tp 1 -o "$tmp/plan.bin"
printf '<!DOCTYPE html>\n<html>' >"$tmp/page.onnx"
expect 65 "a page of HTML" "$tpc" verify "$tmp/page.onnx" --tp 1
expect 64 "an argument is empty" "$tpc" dump ''
expect 64 "--inputs needs a value (DIR)" "$tpc" run "$tmp/kept.plan" --inputs ''
expect 64 "unknown option --tp-pln: did you mean --tp-plan?" "$tpc" compile "$good" --tp-pln x
expect 64 "unknown option --xyzzy (known:" "$tpc" compile "$good" --xyzzy x
expect 64 "'+2' but must be a whole number" "$tpc" compile "$good" --tp +2
expect 64 "--bind y: the model has no such input (there are: x)" "$tpc" compile "$good" --tp 1 --bind y=1
expect 64 "'nosuch'; the nearest is " "$tpc" explain "$tmp/kept.plan" nosuch
for size in sequence= sequence=99999999999999999999 sequence=3000000000 sequence=2x sequence nope=1; do
    run 64 "dynamic extents (batch, sequence)" "$tmp/ids.plan" --random-inputs 1 --size $size
done
run 71 "input 'input_ids' of these extents has" "$tmp/ids.plan" --random-inputs 1 --size batch=2147483647 --size sequence=1000000
run 64 "NAME=@FILE" "$tmp/kept.plan" --input x=2x4xf32="$x" --output y=@
run 74 "cannot make the folder: " "$tmp/kept.plan" --input x=2x4xf32="$x" --outputs "$tmp/kept.plan"
run 65 "axis 0 must be batch = 2" "$tmp/ids.plan" --input input_ids=2x2xi64=1,2,3,4 --input attention_mask=1x3xi64=1,1,1
printf '\223NUMPY\1\0\166\0%-117s\n' "{'descr': '|O', 'fortran_order': False, 'shape': (1,), }" >"$tmp/object.npy"
run 65 "'shape': (1,), }" "$tmp/kept.plan" --input x=@"$tmp/object.npy"
kept [ -z "$(grep '  $' "$tmp/err")" ]
"$tpc" help run >"$tmp/out" 2>"$tmp/err"
kept grep -q -- --random-inputs "$tmp/out"

# names from a file do nothing to a terminal, and to no line
odd() {
    "$tpc" "$@" >"$tmp/out" 2>"$tmp/err" || { failed=$((failed + 1)); cat "$tmp/err"; }
    kept [ -z "$(LC_ALL=C tr -d '\n\11 -~\303\251' <"$tmp/out")" ]
    kept grep -qF '\x1b[31mred\x0aline' "$tmp/out"
}
"$tpc" compile "$tmp/bad/odd_names.onnx" --tp 3 -o "$tmp/odd.plan" || failed=$((failed + 1))
odd dump "$tmp/odd.plan"
odd explain "$tmp/odd.plan"
odd run "$tmp/odd.plan" --random-inputs 1
"$tpc" run "$tmp/odd.plan" >"$tmp/out" 2>&1
kept grep -qF '  x\x1b[31mred\x0aline' "$tmp/out"

# an expected output that is another's
cp -r "$here/../models/gpt2-ts17" "$tmp/folder"
cp "$tmp/folder/test_data_set_1/output_0.pb" "$tmp/folder/test_data_set_0/output_0.pb"
"$tpc" verify "$tmp/folder" --tp 2 >"$tmp/out" 2>"$tmp/err"
kept [ $? = 1 ]
kept grep -q "note: 2 ranks, one and the reference interpreter agree with each other" "$tmp/err"

# a stream that is closed is not the file that is opened next
"$tpc" compile "$tmp/before.onnx" --tp 7 --even -o "$tmp/closed.plan" 2>&- >&- <&- || failed=$((failed + 1))
kept "$tpc" dump "$tmp/closed.plan" >"$tmp/out"
"$tpc" dump "$tmp/kept.plan" >&- 2>"$tmp/err"
kept [ $? = 74 ]
"$tpc" run "$tmp/kept.plan" --input x=2x4xf32="$x" --output y=@"$tmp/y1.npy" --times 2>&- >&- <&- || failed=$((failed + 1))
"$tpc" run "$tmp/kept.plan" --input x=2x4xf32="$x" --output y=@"$tmp/y2.npy" 2>"$tmp/err" || failed=$((failed + 1))
kept cmp -s "$tmp/y1.npy" "$tmp/y2.npy"

echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
