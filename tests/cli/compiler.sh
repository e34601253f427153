#!/bin/sh
# tests/cli/compiler.sh TPC - the C compiler of the CPU's kernels: with arguments, noisy, missing, broken; and the folder where kernels are kept.
set -u
tpc=$1
models=$(cd "$(dirname "$0")/../models" && pwd)
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
unset CC
cc=$(command -v gcc || command -v cc)
passed=0
failed=0
"$tpc" compile "$models/gpt2-past-opt18/model.onnx" --tp 1 -o "$tmp/plan" 2>"$tmp/err" || exit 1

# try CODE TEXT ENVIRONMENT...: a run with a cache of its own, exit code, a line that holds TEXT ("": none but the last one, which tells the speed)
try() {
    code=$1 text=$2
    shift 2
    [ -z "${TPC_SANITIZE-}" ] || [ -n "$text" ] || [ -z "${tokens-}" ] || return 0 # what compiles well takes its time
    rm -rf "$tmp/cache"
    timeout 60 env XDG_CACHE_HOME="$tmp/cache" "$@" "$tpc" run "$tmp/plan" --generate 1 --prompt-ids 5 >"$tmp/out" 2>"$tmp/err" </dev/null
    got=$?
    said=$(grep -v 'tokens in' "$tmp/err")
    case $text in '') good=$([ -z "$said" ] && echo 1) ;; *) good=$([ "$(echo "$said" | wc -l)" = 1 ] && echo "$said" | grep -F -- "$text") ;; esac
    if [ $got = "$code" ] && [ -n "$good" ]; then
        passed=$((passed + 1))
    else
        failed=$((failed + 1))
        echo "FAILED: exit code $got and no '$text': $*"
        sed 's/^/    /' "$tmp/err" | head -5
    fi
}
script() { printf '#!/bin/sh\n%s\n' "$2" >"$tmp/$1" && chmod +x "$tmp/$1"; }

try 0 "" CC="$cc"
tokens=$(cat "$tmp/out")
try 0 "" CC="env A=1 $cc -g"
script noisy 'echo "warning: I complain" >&2; exec '"$cc"' "$@"'
try 0 "" CC="$tmp/noisy"
try 0 "no C compiler found" PATH=/nowhere
try 0 "'nowhere/cc -g' (CC) is not found" CC="nowhere/cc -g"
[ "$(cat "$tmp/out")" = "$tokens" ] || { failed=$((failed + 1)); echo "FAILED: interpreted kernels write $(cat "$tmp/out")"; }
try 69 "/false: error: this C compiler does not compile an empty function: it said nothing and gave no object (exit code 1)" CC=/bin/false
script broken 'echo "cc: warning: old" >&2; echo "cc: no licence" >&2; echo more >&2; exit 3'
try 69 "an empty function: cc: no licence; set CC" CC="$tmp/broken"
script killed 'kill -9 $$'
try 69 "it died of signal 9" CC="$tmp/killed"
echo text >"$tmp/text" && chmod +x "$tmp/text"
try 69 "cannot start" CC="$tmp/text"
script garbage 'while [ "$1" != -o ]; do shift; done; echo text >"$2"'
try 69 "cannot be loaded" CC="$tmp/garbage"
[ -z "$(find "$tmp/cache" -type f)" ] || { failed=$((failed + 1)); echo "FAILED: what cannot be loaded was kept"; }
script full 'echo "ld: final link failed: No space left on device" >&2; exit 1'
try 74 "no room" CC="$tmp/full"

# where compiled kernels are kept
try 0 "" XDG_CACHE_HOME= HOME= CC="$cc"
try 0 "Not a directory" CC="$cc" XDG_CACHE_HOME="$tmp/plan"
try 74 "cannot make a directory for compiled kernels" CC="$cc" XDG_CACHE_HOME= HOME= TMPDIR=/dev/null
try 0 "" CC="$cc" HOME=/dev/null XDG_CACHE_HOME="$tmp/new/cache"

# doctor says what run will find
doctor() {
    text=$1
    shift
    env "$@" "$tpc" doctor >"$tmp/out" 2>"$tmp/err"
    if grep -qF -- "$text" "$tmp/out"; then
        passed=$((passed + 1))
    else
        failed=$((failed + 1))
        echo "FAILED: doctor does not say '$text'"
    fi
}
doctor "none (CC is 'nowhere/cc')" CC=nowhere/cc
doctor "which does not work: cc: no licence" CC="$tmp/broken"
doctor "C compiler       $cc" CC="$cc"

echo "$passed passed, $failed failed"
[ $failed = 0 ]
