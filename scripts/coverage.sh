#!/usr/bin/env bash
# Share of the lines of src/ and kernels/cpu/ that the tests run; fails under 90 %.
#   scripts/coverage.sh                builds with the preset `coverage`, runs all tests, prints the report
#   scripts/coverage.sh --report       only the report, from the counts of earlier runs
#   scripts/coverage.sh [ctest options, e.g. -LE slow]
# The full list with the lines that were missed: build/coverage/coverage.txt. What a test kills (the resume tests, an
# aborted rank) writes no counts, so the true share is a little higher.
set -euo pipefail
cd "$(dirname "$0")/.."
least=90
build=build/coverage

case "${1:-}" in
  -h | --help) sed -n '2,7p' "$0"; exit 0 ;;
esac
command -v gcovr >/dev/null || scripts/install_deps.sh --dev
if [ "${1:-}" != "--report" ]; then
  cmake --preset coverage >/dev/null
  cmake --build --preset coverage
  find "$build" -name '*.gcda' -delete
  # A failing test does not hide the report: the share is of what ran.
  ctest --test-dir "$build" --output-on-failure -j "$(nproc)" "$@" || tests_failed=1
fi

# The sources of simd/ are compiled once per instruction set: gcovr adds up the counts of a line.
gcovr --root . --object-directory "$build" --filter 'src/' --filter 'kernels/cpu/' --sort-uncovered \
  --txt "$build/coverage.txt" --json-summary "$build/coverage.json" --fail-under-line "$least" "$build" || too_few=1
python3 - "$build/coverage.json" <<'PYTHON'
import json
import sys

summary = json.load(open(sys.argv[1]))
files = sorted(summary["files"], key=lambda f: f["line_covered"] - f["line_total"])
print("lines missed  share  file")
for f in files[:15]:
    print(f"{f['line_total'] - f['line_covered']:12d}  {f['line_percent']:4.0f} %  {f['filename']}")
print(f"{summary['line_percent']:.1f} % of {summary['line_total']} lines in {len(files)} files of src and kernels/cpu")
PYTHON
[ -z "${too_few:-}" ] || { echo "coverage: below $least %"; exit 1; }
[ -z "${tests_failed:-}" ] || { echo "coverage: some tests failed (above)"; exit 1; }
