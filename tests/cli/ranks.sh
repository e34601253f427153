#!/bin/bash
# tests/cli/ranks.sh TPC - ranks as processes: the same bits as ranks that are threads; one rank killed, stopped, missing, odd; one line for all, an exit code
# for each, and nobody stays behind.
set -u
tpc=$1
model=$SOURCE/examples/charlm/model.onnx
port=$((20000 + $$ % 12000))
failures=0
rm -rf w && mkdir w && cd w || exit 1
trap 'kill -9 $(jobs -p) 2>/dev/null' EXIT

bad() {
    echo "FAILED: $*"
    cat err.* 2>/dev/null
    failures=$((failures + 1))
}

# start RANK RANKS COMMAND...: in the background; its number in pid[RANK]
start() {
    local r=$1 n=$2
    shift 2
    RANK=$r WORLD_SIZE=$n LOCAL_RANK=$r MASTER_ADDR=127.0.0.1 MASTER_PORT=$port "$@" >out."$r" 2>err."$r" &
    pid[r]=$!
}
fresh() {
    port=$((port + 1))
    rm -f err.* out.*
    pid=()
}
all() { # all RANKS COMMAND...
    local n=$1
    shift
    fresh
    for r in $(seq 0 $((n - 1))); do start "$r" "$n" "$@"; done
}
# ended SECONDS WHAT RANK:CODE...: each within so many seconds
ended() {
    local until=$(($(date +%s%N) + $1 * 1000000000)) what=$2
    shift 2
    for expected; do
        local r=${expected%:*} code=${expected#*:} got
        while kill -0 "${pid[r]}" 2>/dev/null && [ "$(date +%s%N)" -lt $until ]; do sleep 0.02; done
        if kill -0 "${pid[r]}" 2>/dev/null; then
            bad "$what: rank $r did not end"
            kill -9 "${pid[r]}"
        fi
        wait "${pid[r]}" 2>/dev/null
        got=$?
        [ $got = "$code" ] || bad "$what: rank $r exits with $got, not $code"
    done
}
said() { # said WHAT PATTERN...: one line over all ranks, which has all patterns
    local what=$1
    shift
    [ "$(cat err.* | wc -l)" = 1 ] || bad "$what: not one line"
    for pattern; do cat err.* | grep -q -- "$pattern" || bad "$what: nothing of '$pattern'"; done
}

for n in 2 3 4; do "$tpc" compile "$model" --tp $n -o p$n.bin >/dev/null || exit 1; done
"$tpc" compile "$model" --tp 3 --embed-weights -o other.bin >/dev/null || exit 1

# ---- the same bits ----
for n in 2 3 4; do
    "$tpc" run p$n.bin --random-inputs 7 --outputs threads$n || bad "threads, $n ranks"
    all $n "$tpc" run p$n.bin --random-inputs 7 --outputs processes$n
    for r in $(seq 0 $((n - 1))); do ended 60 "$n processes" "$r:0"; done
    diff -r threads$n processes$n || bad "$n processes compute something else than threads"
    cat out.* | grep -q . && bad "$n processes print something"
done
"$tpc" run p3.bin --prompt 'the ' --generate 20 >text 2>/dev/null
all 3 "$tpc" run p3.bin --prompt 'the ' --generate 20
ended 60 generate 0:0 1:0 2:0
cmp -s text out.0 || bad "generated text differs"
[ -s out.1 ] && bad "rank 1 prints, too"

# ---- one is lost ----
forever() { # forever RANKS MORE...: runs without an end
    local n=$1
    shift
    all "$n" "$tpc" run p"$n".bin --random-inputs 7 --repeat 1000000 "$@"
    for _ in $(seq 500); do
        grep -q '^run 2:' err.0 && break
        sleep 0.02
    done
    grep -q '^run 2:' err.0 || bad "the run does not begin"
}
quiet() { # the times of runs are no diagnostics
    wait 2>/dev/null
    for f in err.*; do sed -i '/^run [0-9]*: /d' "$f"; done
}
forever 3
kill -9 "${pid[1]}"
ended 5 "rank 1 killed" 0:75 2:75 1:137
quiet
said "rank 1 killed" "rank 1 on .* ended without a farewell" "last collective: number [0-9]*, all_"
forever 3
kill -9 "${pid[0]}"
ended 5 "rank 0 killed" 1:75 2:75 0:137
quiet
said "rank 0 killed" "rank 0 on .* ended without a farewell"
forever 3 --timeout 1
kill -STOP "${pid[2]}"
ended 5 "rank 2 stopped" 0:75 1:75
kill -CONT "${pid[2]}"
ended 5 "rank 2 goes on" 2:75
quiet
said "rank 2 stopped" "rank 2 on .* is silent for 1 s"

# ---- who cannot come together ----
fresh
start 0 3 "$tpc" run p3.bin --random-inputs 7 --timeout 1
start 1 3 "$tpc" run p3.bin --random-inputs 7 --timeout 1
ended 5 "rank 2 missing" 0:75 1:75
said "rank 2 missing" "rank 2 did not come within 1 s"

fresh
start 0 3 "$tpc" run p3.bin --random-inputs 7
start 1 3 "$tpc" run other.bin --random-inputs 7
start 2 3 "$tpc" run p3.bin --random-inputs 7
ended 5 "another plan" 0:75 1:75 2:75
said "another plan" "rank 1 on .* does not fit: its plan is"

fresh
start 0 3 "$tpc" run other.bin --random-inputs 7
start 1 3 "$tpc" run p3.bin --random-inputs 7
start 2 3 "$tpc" run p3.bin --random-inputs 7
ended 5 "rank 0 with another plan" 0:75 1:75 2:75
said "rank 0 with another plan" "rank 0 on .* does not fit: its plan is"

fresh
start 0 2 "$tpc" run p2.bin --random-inputs 7
start 1 2 "$tpc" run p2.bin --random-inputs 8
ended 5 "other options" 0:75 1:75
said "other options" "rank 1 on .* does not fit: its options for the run"

fresh
start 0 4 "$tpc" run p3.bin --random-inputs 7
ended 5 "more processes than ranks" 0:64
said "more processes than ranks" "the plan is for 3 ranks" "4 processes"

fresh
start 0 2 "$tpc" run p2.bin --random-inputs 7 --timeout 5
start 1 3 "$tpc" run p3.bin --random-inputs 7 --timeout 5
ended 8 "another number of ranks" 0:75 1:75
said "another number of ranks" "rank 1 on .* does not fit: its number of ranks is 3"

fresh
start 0 2 "$tpc" run p2.bin --random-inputs 7 --timeout 3
sleep 0.5
RANK=0 WORLD_SIZE=2 MASTER_ADDR=127.0.0.1 MASTER_PORT=$port "$tpc" run p2.bin --random-inputs 7 2>err.taken
[ $? = 75 ] || bad "a port that is taken: exit code"
grep -q "cannot listen at 127.0.0.1:$port: Address already in use" err.taken || bad "a port that is taken"
kill -9 "${pid[0]}"
wait "${pid[0]}" 2>/dev/null

# An error that all ranks have is said once.
all 3 "$tpc" run p3.bin --input nothing=1xi64=1
ended 5 "bad input" 0:65 1:65 2:65
[ "$(cat err.* | grep -c error)" = 1 ] || bad "bad input: not one line"

# ---- strangers: other versions, noise ----
if command -v python3 >/dev/null; then
    fresh
    start 0 2 "$tpc" run p2.bin --random-inputs 7 --timeout 5
    python3 "$SOURCE/tests/cli/ranks_stranger.py" noise "$port"
    start 1 2 "$tpc" run p2.bin --random-inputs 7 --timeout 5
    ended 8 "noise on the port" 0:0 1:0
    for how in version protocol length; do
        fresh
        start 0 2 "$tpc" run p2.bin --random-inputs 7 --timeout 5
        python3 "$SOURCE/tests/cli/ranks_stranger.py" $how "$port" >peer.log 2>&1 || bad "stranger: $(cat peer.log)"
        ended 8 "$how" 0:75
        case $how in
        version) said $how "rank 1 on elsewhere does not fit: its version of tpc is 9.9.9" ;;
        protocol) said $how "rank 1 on elsewhere does not fit: its protocol is 77" ;;
        length) said $how "rank 1 on elsewhere" ;;
        esac
    done
fi

# ---- launchers: what they would set ----
for how in mpirun srun; do
    for r in 0 1; do
        if [ $how = mpirun ]; then
            set -- OMPI_COMM_WORLD_SIZE=2 OMPI_COMM_WORLD_RANK=$r OMPI_COMM_WORLD_LOCAL_RANK=$r OMPI_COMM_WORLD_LOCAL_SIZE=2 PMIX_NAMESPACE=job-$$
        else
            set -- SLURM_STEP_NUM_TASKS=2 SLURM_PROCID=$r SLURM_LOCALID=$r "SLURM_STEP_NODELIST=localhost,other[3-7]" SLURM_JOB_ID=$$ SLURM_STEP_ID=0
        fi
        env "$@" "$tpc" run p2.bin --random-inputs 7 --outputs $how >out.$r 2>err.$r &
        pid[r]=$!
    done
    ended 60 $how 0:0 1:0
    diff -r threads2 $how || bad "$how: something else is computed"
done
RANK=0 WORLD_SIZE=2 MASTER_ADDR=127.0.0.1 "$tpc" run p2.bin --random-inputs 7 2>err.0
[ $? = 64 ] && grep -q "MASTER_PORT is not set" err.0 || bad "no port: $(cat err.0)"
RANK=2 WORLD_SIZE=2 MASTER_ADDR=127.0.0.1 MASTER_PORT=1 "$tpc" run p2.bin --random-inputs 7 2>err.0
[ $? = 64 ] && grep -q "RANK is '2' but must be a number from 0 to 1" err.0 || bad "rank 2 of 2: $(cat err.0)"
if command -v torchrun >/dev/null; then
    torchrun --nproc-per-node 2 --master-addr 127.0.0.1 --master-port $((port + 1)) --no-python "$tpc" run p2.bin --random-inputs 7 --outputs torchrun 2>err.torchrun || bad torchrun
    diff -r threads2 torchrun || bad "torchrun computes something else"
fi

[ -z "$(jobs -rp)" ] || bad "processes stay behind"
[ $failures = 0 ] && echo "ranks: all good"
exit $((failures > 0))
