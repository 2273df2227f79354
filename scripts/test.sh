#!/usr/bin/env bash
# Runs rings of tests, prints each ring's command and at the end one line per ring.
#
#   scripts/test.sh PYTHON RING...
#
# Every ring runs, also after a failure; the exit code says whether all passed.
set -uo pipefail
cd "$(dirname "$0")/.."

python=$1; shift
export PYTHONPATH=$PWD/src  # also for the processes tests start
log=$(mktemp -t atoll-test.XXXXXX)
trap 'rm -f "$log"' EXIT
summary=()
failed=0

for ring in "$@"; do
  paths=("tests/$ring")
  [ "$ring" = unit ] && paths+=(tests/house)
  command=("$python" -m pytest "${paths[@]}")
  # One process per core; the tests of a file stay together. The other rings share a kernel and stay serial.
  [ "$ring" = unit ] && command+=(-n auto --maxprocesses 8 --dist loadfile)
  if [ "$ring" != unit ] && [ "$(id -u)" -ne 0 ]; then
    summary+=("$ring: needs root, not run")
    failed=1
    continue
  fi
  printf '\n== %s: %s\n' "$ring" "${command[*]}"
  "${command[@]}" 2>&1 | tee "$log"
  code=${PIPESTATUS[0]}
  [ "$code" -eq 0 ] || failed=1
  closing=$(grep -E '[0-9]+ (passed|failed|error|skipped)|no tests ran' "$log" | tail -n 1)
  summary+=("$ring: ${closing:-ended with $code}")
done

printf '\n'
printf '%s\n' "${summary[@]}"
exit "$failed"
