#!/usr/bin/env bash
# LABELS cuda-build
# TIMEOUT 120
# CARAVAN_CUDA decides about the GPU kernels: cmake/CaravanCuda.cmake in a project of its own, with a compiler that only
# says which CUDA it is.
set -euo pipefail
fail() { echo "FAILED: $*" >&2; exit 1; }
tree=$(mktemp -d)
trap 'rm -rf "$tree"' EXIT
cat >"$tree/CMakeLists.txt" <<END
cmake_minimum_required(VERSION 3.25)
project(option LANGUAGES CXX)
include($CARAVAN_SOURCE_DIR/cmake/CaravanCuda.cmake)
message(STATUS "has CUDA: \${CARAVAN_HAS_CUDA}")
END
printf '#!/bin/sh\necho "Cuda compilation tools, release 12.4, V12.4.131"\n' >"$tree/nvcc-12.4"
chmod +x "$tree/nvcc-12.4"

# expect STATUS WORDS OPTIONS...
expect() {
  local wanted=$1 words=$2 output status=0
  shift 2
  rm -rf "$tree/build"
  output=$(cmake -S "$tree" -B "$tree/build" -G Ninja "$@" 2>&1) || status=$?
  [ "$status" -eq "$wanted" ] || fail "$*: status $status, not $wanted: $output"
  # CMake breaks long messages.
  tr -s ' \n' ' ' <<<"$output" | grep -qF -- "$words" || fail "$* does not say '$words': $output"
}
old=-DCMAKE_CUDA_COMPILER=$tree/nvcc-12.4
expect 0 "has CUDA: FALSE" -DCARAVAN_CUDA=OFF "$old"
expect 0 "Building without GPU kernels: $tree/nvcc-12.4 is of CUDA 12.4, and 12.8 is needed" "$old"
expect 0 "has CUDA: FALSE" "$old"
expect 1 "CARAVAN_CUDA=ON: $tree/nvcc-12.4 is of CUDA 12.4, and 12.8 is needed; install a CUDA toolkit" \
  -DCARAVAN_CUDA=ON "$old"
expect 1 "CARAVAN_CUDA=MAYBE: there are AUTO, ON and OFF" -DCARAVAN_CUDA=MAYBE
expect 1 "names no release" -DCARAVAN_CUDA=ON -DCMAKE_CUDA_COMPILER=/bin/true
# No nvcc at all; what there is is out of sight.
mkdir "$tree/none"
expect 0 "Building without GPU kernels: no working nvcc was found" -DCMAKE_CUDA_COMPILER= -DCARAVAN_NVCC="$tree/none/nvcc"
