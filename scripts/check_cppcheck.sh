#!/usr/bin/env bash
# cppcheck as an error on src and kernels (headers included), in seconds. What is suppressed and why is in
# scripts/cppcheck.suppressions; a suppression that no longer matches anything is an error too.
#   scripts/check_cppcheck.sh [FILE...]     these files instead of all
set -euo pipefail
cd "$(dirname "$0")/.."
case "${1:-}" in
  -h | --help) sed -n '2,4p' "$0"; exit 0 ;;
esac
command -v cppcheck >/dev/null || scripts/install_deps.sh --dev

# Without a list of its own it looks at every suppression, used or not.
unmatched=()
[ $# -gt 0 ] || { set -- src kernels; unmatched=(--enable=information); }
# The SIMD sources are compiled once per instruction set; one is enough here. System headers are not read (no
# compile database), so that a run takes seconds: cppcheck knows the standard library by itself.
cppcheck -j "${JOBS:-$(nproc)}" --quiet --std=c++20 --error-exitcode=1 --inline-suppr \
  --enable=warning,performance,portability,style "${unmatched[@]}" \
  --suppressions-list=scripts/cppcheck.suppressions \
  -I include -I . -I src -DCARAVAN_SIMD_LEVEL=baseline -D__GNUC__=12 "$@" ||
  { echo "check_cppcheck: findings above; mend them, or add a line with its reason to scripts/cppcheck.suppressions"; exit 1; }
