#!/usr/bin/env bash
# Builds the libFuzzer programs (clang 14, build/fuzz) and runs them:  scripts/fuzz.sh [--seconds N] [target...]
#   --seconds N   for each target, default 60
#   target        pickle, zip, ...: without one, all of tests/fuzz
# They start from tests/fuzz/corpus and go on from what earlier runs found in build/fuzz/found. An input that breaks
# something lies in build/fuzz/broken afterwards, and the status is 1: mend the reader and copy the input to
# tests/fuzz/crashes/<target>, where the tests replay it. Status 77: there is no clang.
set -euo pipefail
cd "$(dirname "$0")/.."

seconds=60
targets=()
while [ $# -gt 0 ]; do
  case "$1" in
    --seconds) seconds=$2; shift ;;
    -h | --help) sed -n '2,7p' "$0"; exit 0 ;;
    -*) echo "fuzz.sh: unknown option $1; see --help" >&2; exit 2 ;;
    *) targets+=("$1") ;;
  esac
  shift
done
mapfile -t known < <(sed -nE 's/^ +Entry\{"([a-z_]+)".*/\1/p' tests/fuzz/fuzz_entries.cpp)
[ ${#targets[@]} -gt 0 ] || targets=("${known[@]}")
for target in "${targets[@]}"; do
  [[ " ${known[*]} " == *" $target "* ]] || { echo "fuzz.sh: no target $target; there are: ${known[*]}" >&2; exit 2; }
done

if ! command -v clang++-14 >/dev/null || ! clang++-14 -print-file-name=libclang_rt.fuzzer-x86_64.a | grep -q /; then
  echo "SKIPPED: no clang++-14 with libFuzzer; scripts/install_deps.sh --dev installs it"
  exit 77
fi
folder=$PWD/build/fuzz
mkdir -p "$folder"
(
  flock 9  # several tests may start at once
  cmake --preset fuzz >"$folder/configure.log" 2>&1 || { cat "$folder/configure.log"; exit 1; }
  cmake --build --preset fuzz --target "${targets[@]/#/fuzz_}" >"$folder/build.log" 2>&1 ||
    { cat "$folder/build.log"; exit 1; }
) 9>"$folder/lock"

# A claim in a file must not cost memory: one allocation may take 160 MiB (the largest a parser may make by its own
# limits is 100 MB, for the header of a safetensors file that really has that size), all together 512 MiB.
options=(-max_total_time="$seconds" -timeout=10 -rss_limit_mb=512 -malloc_limit_mb=160 -print_final_stats=1
  -verbosity=1 -reload=0)
declare -A max_len=([gzip]=8192 [tokenizer_model]=16384 [tokenizer_json]=16384)
status=0
for target in "${targets[@]}"; do
  found=$folder/found/$target
  broken=$folder/broken/$target
  mkdir -p "$found" "$broken"
  words=()
  [ ! -f "tests/fuzz/dictionaries/$target.dict" ] || words=(-dict="$PWD/tests/fuzz/dictionaries/$target.dict")
  log=$folder/$target.log
  if "$folder/bin/fuzz_$target" "${options[@]}" -max_len="${max_len[$target]:-4096}" "${words[@]}" \
    -artifact_prefix="$broken/" "$found" "$PWD/tests/fuzz/corpus/$target" >"$log" 2>&1; then
    runs=$(sed -nE 's/^stat::number_of_executed_units: +//p' "$log")
    edges=$(grep -oE 'cov: [0-9]+' "$log" | tail -1 | cut -d' ' -f2)
    echo "fuzz_$target: $runs inputs in $seconds s, $edges edges, nothing broken"
  else
    status=1
    tail -n 60 "$log"
    echo "fuzz_$target: broken; the input is in $broken"
  fi
done
exit $status
