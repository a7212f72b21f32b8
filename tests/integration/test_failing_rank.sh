#!/usr/bin/env bash
# LABELS mpi
# TIMEOUT 120
# A rank that fails inside a test ends the whole job at once, with one report that names it: the other ranks
# wait in a barrier that rank 1 never reaches.
set -euo pipefail
program=$(dirname "$CARAVAN_BIN")/test_parallel_mpi_session

expect_end() {  # <test case tag> <text that must be reported>
  local output status=0
  output=$(timeout 60 mpirun --quiet -n 3 "$program" "$1" 2>&1) || status=$?
  if [ "$status" -eq 0 ] || [ "$status" -eq 124 ]; then
    echo "$1: exit status $status, expected the job to fail by itself"; echo "$output"; exit 1
  fi
  for text in "[rank 1 of 3]" "$2"; do
    if ! grep -qF -- "$text" <<<"$output"; then
      echo "$1: '$text' is not in the output:"; echo "$output"; exit 1
    fi
  done
  if grep -qE "\[rank [02] of 3\]" <<<"$output"; then
    echo "$1: ranks that did not fail have reported:"; echo "$output"; exit 1
  fi
}

expect_end "[fails-on-rank-1]" "this is what rank 1 adds"
expect_end "[throws-on-rank-1]" "the reason rank 1 gives"
