#!/usr/bin/env bash
# Builds everything and runs the CPU tests:  scripts/test.sh [--all] [--preset release|debug|asan] [ctest options]
#   --all     also the tests labelled slow, and clang, which those that fuzz need
set -euo pipefail
cd "$(dirname "$0")/.."

preset=release
slow=(-LE slow)
tools=()
while [ $# -gt 0 ]; do
  case "$1" in
    --all) slow=(); tools=(--dev) ;;
    --preset) preset=$2; shift ;;
    -h | --help) sed -n '2,3p' "$0"; exit 0 ;;
    *) break ;;
  esac
  shift
done

scripts/install_deps.sh "${tools[@]}"
cmake --preset "$preset" >/dev/null
cmake --build --preset "$preset"
ctest --test-dir "build/$preset" --no-tests=error --output-on-failure -j "$(nproc)" "${slow[@]}" "$@"
