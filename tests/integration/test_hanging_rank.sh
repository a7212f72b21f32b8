#!/usr/bin/env bash
# LABELS mpi
# TIMEOUT 120
# A rank that misses a collective leaves the others waiting. The job ends by itself, and says who waits in what.
set -euo pipefail
program=$(dirname "$CARAVAN_BIN")/test_parallel_comm_watch

# expect CASE RANK|TEXT...: the job of the hidden case ends, and each rank says what it waits for.
expect() {
  local case=$1 rank_and_text rank text status=0
  shift
  output=$(timeout 60 mpirun --quiet -n 4 "$program" "$case" 2>&1) || status=$?
  if [ "$status" -eq 0 ] || [ "$status" -eq 124 ]; then
    echo "$case: exit status $status, expected the job to end by itself"; echo "$output"; exit 1
  fi
  for rank_and_text in "$@"; do
    rank=${rank_and_text%%|*}
    text=${rank_and_text#*|}
    if ! grep -qE "^\[rank $rank\] has waited [0-9.]+ s for other ranks in " <<<"$output" ||
       ! grep -F -- "[rank $rank] has waited" <<<"$output" | grep -qF -- "$text"; then
      echo "$case: rank $rank does not say '$text':"; echo "$output"; exit 1
    fi
  done
}

expect "[skips-split]" "0|split number" "1|barrier number" "2|split number" "3|split number"
# Rank 0 waits for rank 1 in the all_reduce that rank 1 has missed; the others have gone on to the barrier.
expect "[skips-all-reduce]" "0|all_reduce number 2 of group tp (rank 0 of 2 there), 8 bytes, from parallel/test_comm_watch.cpp:" \
  "1|barrier number" "2|barrier number" "3|barrier number"
if ! grep -qF "all_reduce number 1 of group tp (rank 1 of 2 there)" <<<"$output"; then
  echo "the last operations of rank 1 are not there:"; echo "$output"; exit 1
fi
