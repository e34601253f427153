#!/bin/sh
# tests/include_rule.sh ROOT - fails when a source includes a header of a room that its own room may not know.
# tests/include_rule.sh --self-test - plants violations in a copy of nothing and expects each to be reported.
set -eu

check() { # ROOT
    cd "$1"
    find ir passes solver codegen runtime frontend -type f \( -name '*.[ch]' -o -name '*.def' \) 2>/dev/null | sort |
        xargs awk '
        BEGIN {
            may["ir"] = " ir "
            may["passes"] = " passes ir "
            may["solver"] = " solver ir "
            may["codegen"] = " codegen ir "
            may["runtime"] = " runtime ir codegen "
            may["frontend"] = " frontend ir passes solver codegen runtime "
        }
        function bad(why) { printf "%s:%d: %s: %s\n", FILENAME, FNR, why, $0; failures++ }
        /^[ \t]*#[ \t]*include/ {
            line = $0
            sub(/^[ \t]*#[ \t]*include[ \t]*/, "", line)
            quoted = line ~ /^"/
            path = substr(line, 2)
            sub(/[">].*/, "", path)
            split(FILENAME, own, "/")
            slash = index(path, "/")
            room = slash ? substr(path, 1, slash - 1) : ""
            if (line !~ /^["<]/)
                bad("an include must be spelled out, not computed")
            else if (path ~ /(^|\/)\.\.?(\/|$)/)
                bad("an include names its path from the root of the repository")
            else if (room == "tests" || room == "bench" || room == "examples")
                bad(own[1] "/ may not include " room "/")
            else if (room in may) {
                if (index(may[own[1]], " " room " ") == 0)
                    bad(own[1] "/ may not include " room "/")
            } else if (quoted)
                bad("an include names its path from the root of the repository")
        }
        END { if (NR == 0) { print "no sources found"; exit 2 } exit failures > 0 }'
}

self_test() {
    root=$(mktemp -d)
    trap 'rm -rf "$root"' EXIT
    mkdir -p "$root"/ir "$root"/passes "$root"/solver "$root"/codegen/cuda "$root"/runtime "$root"/frontend/cli
    expect() { # pass|fail FILE TEXT
        printf '%s\n' "$3" >"$root/$2"
        if (check "$root") >"$root/report" 2>&1; then result=pass; else result=fail; fi
        rm "$root/$2"
        [ $result = "$1" ] && return
        echo "expected '$3' in $2 to $1"
        cat "$root/report"
        exit 1
    }
    expect pass ir/a.c '#include "ir/base.h"'
    expect pass ir/a.c '#include <stdio.h>'
    expect pass ir/a.c '#include <sys/mman.h>'
    expect pass runtime/a.c '#include "codegen/kernel.h"'
    expect pass frontend/cli/a.c '#include "solver/solver.h"'
    expect fail ir/a.c '#include "passes/passes.h"'
    expect fail ir/a.h '#  include "solver/solver.h"'
    expect fail ir/a.def '#include <solver/solver.h>'
    expect fail passes/a.c '#include "solver/solver.h"'
    expect fail solver/a.c '#include "passes/passes.h"'
    expect fail codegen/cuda/a.c '#include "runtime/device.h"'
    expect fail runtime/a.c '#include "passes/passes.h"'
    expect fail runtime/a.c '#include "frontend/onnx/onnx.h"'
    expect fail runtime/a.c '#include "ir/../passes/passes.h"'
    expect fail runtime/a.c '#include "device.h"'
    expect fail runtime/a.c '#include DEVICE_HEADER'
    expect fail frontend/cli/a.c '#include "tests/support/models.h"'
    echo "all planted violations were reported"
}

case ${1-} in
--self-test) self_test ;;
"") echo "usage: include_rule.sh ROOT | --self-test" >&2; exit 64 ;;
*) check "$1" ;;
esac
