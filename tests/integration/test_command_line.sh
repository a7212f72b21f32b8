#!/usr/bin/env bash
# TIMEOUT 120
# The program's frame: help and version without a launcher, wrong command lines, commands that refuse ranks.
set -euo pipefail
fail() { echo "FAILED: $*" >&2; exit 1; }

# expect CODE WORDS COMMAND...: exit code and words anywhere in the output, which is left in $output.
expect() {
  local code=$1 words=$2 status=0
  shift 2
  output=$("$@" 2>&1) || status=$?
  [ "$status" -eq "$code" ] || fail "'$*' ended with $status instead of $code: $output"
  grep -qF -- "$words" <<<"$output" || fail "'$*' does not say '$words': $output"
}

expect 0 "Open MPI" "$CARAVAN_BIN" --version
for name in caravan commit build compiler mpi hdf5 blas; do
  grep -q "^$name " <<<"$output" || fail "--version has no line for $name: $output"
done
expect 0 "Usage: caravan" "$CARAVAN_BIN" --help
expect 2 "a command is missing" "$CARAVAN_BIN"
expect 2 "unknown command tokeniser; did you mean tokenizer?" "$CARAVAN_BIN" tokeniser
expect 2 "Try caravan --help" "$CARAVAN_BIN" --no-such-option

# Under a launcher every rank finds the same and one speaks.
expect 2 "unknown command tokeniser" mpirun --quiet -n 3 "$CARAVAN_BIN" tokeniser
[ "$(grep -c "unknown command" <<<"$output")" -eq 1 ] || fail "several ranks printed: $output"
expect 2 "started on 3 ranks" mpirun --quiet -n 3 "$CARAVAN_BIN" tokenizer encode --tokenizer none
[ "$(grep -c "started on" <<<"$output")" -eq 1 ] || fail "several ranks printed: $output"
