#!/bin/sh
# tests/large/install.sh TPC - installs into a directory and builds against it as a user would: C and C++, shared and static.
set -eu
root=$PWD/root
rm -rf "$root"
cmake --install "$BUILD" --prefix "$root" >/dev/null
"$root/bin/tpc" --version
"$root/bin/tpc" --help >/dev/null

PKG_CONFIG_PATH=$(dirname "$(find "$root" -name tpc.pc)")
export PKG_CONFIG_PATH
libdir=$(pkg-config --variable=libdir tpc)
version=$(pkg-config --modversion tpc)

# arena_new is our own name too: the libraries must leave it to the user.
cat >user.c <<'END'
#include <tpc.h>
#include <stdio.h>
int arena_new(void);
int arena_new(void) { return 0; }
int main(void) { puts(TPC_VERSION); return arena_new(); }
END
cp user.c user.cc

build() { # COMPILER SOURCE FLAG...
    "$@" -Wall -Wextra -Wpedantic -Werror -o user
    [ "$(LD_LIBRARY_PATH=$libdir ./user)" = "$version" ] || { echo "$*: prints another version than $version"; exit 1; }
}
# shellcheck disable=SC2046 # lists of words
{
    build "$CC" -std=c11 user.c $(pkg-config --cflags --libs tpc)
    build "$CC" -std=c11 user.c $(pkg-config --cflags tpc) -Wl,--whole-archive "$libdir/libtpc.a" -Wl,--no-whole-archive \
        $(pkg-config --libs --static tpc | sed 's/-ltpc//')
    if command -v c++ >/dev/null; then
        build c++ user.cc $(pkg-config --cflags --libs tpc)
    fi
}

for library in "-D $libdir/libtpc.so" "$libdir/libtpc.a"; do
    # shellcheck disable=SC2086
    nm -g --defined-only $library | awk 'NF == 3 && $3 !~ /^tpc_/ { print "exported, but not ours to take: " $3; bad = 1 } END { exit bad }'
done

# the examples, on the installed library: the bias-free product of zeros; what ONNX Runtime writes
example() { # NAME
    # shellcheck disable=SC2046
    "$CC" -std=c11 -Wall -Wextra -Wpedantic -Werror "$SOURCE/examples/$1.c" $(pkg-config --cflags --libs tpc) -o "$1"
}
"$root/bin/tpc" compile "$SOURCE/tests/cli/bad/good.onnx" --tp 2 -o embed.plan
example embed
[ "$(LD_LIBRARY_PATH=$libdir ./embed embed.plan)" = "y: 0" ] || { echo "examples/embed.c prints something else"; exit 1; }
model=$SOURCE/tests/models/llama-past-opt18
"$root/bin/tpc" compile "$model/model.onnx" --tp 2 -o generate.plan
example generate
sed -n 2p "$model/greedy.txt" | {
    read -r prompt wanted
    # shellcheck disable=SC2046
    got=$(LD_LIBRARY_PATH=$libdir ./generate generate.plan $(echo "$prompt" | tr ',' ' ') | tr '\n' ',')
    [ "$got" = "$(echo "$wanted" | cut -d, -f1-10)," ] || { echo "examples/generate.c writes $got, not $wanted"; exit 1; }
}
