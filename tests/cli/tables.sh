#!/bin/sh
# tests/cli/tables.sh TPC - README's and docs/operators.md's tables are what tpc prints now.
exec "${SOURCE:-$(cd "$(dirname "$0")/../.." && pwd)}/scripts/operators" "$1" --check
