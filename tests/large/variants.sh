#!/bin/sh
# tests/large/variants.sh TPC - the exporters' variants of a test model give one plan, up to names.
set -u
source=${SOURCE:-$(cd "$(dirname "$0")/../.." && pwd)}
command -v python3 >/dev/null || { echo "skipped: no python3"; exit 77; }
exec python3 "$source/tests/large/variants.py" "$1" "$source/tests/models"
