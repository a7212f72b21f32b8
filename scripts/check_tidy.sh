#!/usr/bin/env bash
# clang-tidy as an error (.clang-tidy has the checks and why some are off).
#   scripts/check_tidy.sh                   every source file of build/release/compile_commands.json
#   scripts/check_tidy.sh --changed [BASE]  what differs from the merge base with BASE (default main), committed
#                                           or not; a header is seen through one source file that includes it
#   scripts/check_tidy.sh FILE...           these source files
# JOBS sets how many run at once (default: all cores).
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD
command -v clang-tidy-14 >/dev/null || scripts/install_deps.sh --dev

database=build/release
# Generated files; clang 14 does not know "f16c" as a processor feature, nor lambdas that capture a structured binding
# (.cu files, of which it sees the host's half only).
left_out='^(build/|kernels/cpu/dispatch\.cpp$|kernels/cuda/.*\.cu$)'
# Sources come from globs: configure anew, so that new files have an entry.
cmake --preset release >/dev/null
mapfile -t known < <(sed -nE "s|^ *\"file\": \"$root/(.*)\".*|\1|p" "$database/compile_commands.json" |
  grep -vE "$left_out" | sort -u)

# The source files through which the changed files are seen.
changed_sources() {
  local base=$1 file name
  {
    git diff --name-only --diff-filter=d "$(git merge-base HEAD "$base")"
    git ls-files --others --exclude-standard
  } | sort -u | while read -r file; do
      case "$file" in
        *.cpp) echo "$file" ;;
        *.h)
          name=${file#include/}
          name=${name#src/}
          name=${name#tests/}
          { grep -lF "$name\"" "${known[@]}" || true; } | sed -n 1p ;;
      esac
    done | sort -u
}

case "${1:-}" in
  -h | --help) sed -n '2,7p' "$0"; exit 0 ;;
  --changed) mapfile -t wanted < <(changed_sources "${2:-main}") ;;
  "") wanted=("${known[@]}") ;;
  *) wanted=("$@") ;;
esac
# Only what the release build compiles: other files have no compile command.
mapfile -t wanted < <(comm -12 <(printf '%s\n' "${wanted[@]}" | sort -u) <(printf '%s\n' "${known[@]}"))
if [ ${#wanted[@]} -eq 0 ]; then
  echo "check_tidy: nothing to check"
  exit 0
fi

# The commands carry -Werror, so clang's own -Wall findings count too. On stderr is only the number of suppressed
# findings; errors are on stdout.
echo "check_tidy: ${#wanted[@]} files"
printf '%s\0' "${wanted[@]}" | xargs -0 -n 1 -P "${JOBS:-$(nproc)}" \
  clang-tidy-14 --quiet -p "$database" --extra-arg=-Wno-unknown-warning-option 2>/dev/null ||
  { echo "check_tidy: findings above"; exit 1; }
