#!/usr/bin/env bash
# TIMEOUT 60
# scripts/check_includes.sh finds every way to include what a folder may not, and nothing in this tree.
set -euo pipefail
fail() { echo "FAILED: $*" >&2; exit 1; }
check=$CARAVAN_SOURCE_DIR/scripts/check_includes.sh
"$check" || fail "this tree breaks its own rules"

tree=$(mktemp -d)
trap 'rm -rf "$tree"' EXIT

# expect WORDS FILE LINE: a tree with this one line in this one file is refused with these words; "" is accepted.
expect() {
  rm -rf "$tree"/*
  mkdir -p "$tree"/{include/caravan,src}/{core,config,backend,comm,data,ops,io,model,optim,train,federated} \
    "$tree"/kernels/{cpu,reference} "$tree"/src/app "$tree"/tests "$tree"/benchmarks
  touch "$tree/src/io/own.h" "$tree/kernels/cpu/own.h"
  echo "$3" >"$tree/$2"
  local output status=0
  output=$("$check" "$tree" 2>&1) || status=$?
  if [ -z "$1" ]; then
    [ "$status" -eq 0 ] || fail "'$3' in $2 is refused: $output"
  else
    [ "$status" -ne 0 ] || fail "'$3' in $2 is accepted"
    grep -qF -- "$1" <<<"$output" || fail "'$3' in $2 does not give '$1': $output"
  fi
}

expect "" src/io/a.cpp '#include "caravan/core/error.h"'
expect "" src/io/a.cpp '#include "own.h"'
expect "" src/app/a.cpp '#include "src/io/own.h"'
expect "" kernels/cpu/a.cpp '#include "own.h"'
expect "io may not include caravan/model" src/io/a.cpp '#include "caravan/model/llama.h"'
expect "io may not include caravan/model" include/caravan/io/a.h '  #  include <caravan/model/llama.h>'
expect 'name a header as' src/data/a.cpp '#include "../io/own.h"'
expect 'name a header as' src/data/a.cpp '#include "src/io/own.h"'
expect 'is not in src/data' src/data/a.cpp '#include "own.h"'
expect "io may not include kernels/" src/io/a.cpp '#include "kernels/cpu/own.h"'
expect "" src/comm/a.cpp '#include "caravan/backend/pending.h"'
expect "comm may include of backend only" src/comm/a.cpp '#include "caravan/backend/backend.h"'
expect "kernels may include core and backend only" kernels/cpu/a.cpp '#include "caravan/model/llama.h"'
expect "kernels may include core and backend only" kernels/cpu/a.cpp '#include "../../src/io/own.h"'
expect "is not in kernels/cpu" kernels/cpu/a.cpp '#include "json_file.h"'
expect "train/ must not know federated" src/train/a.cpp 'if (config.mode == TrainMode::kFederated) {'
expect "model/ must not know ranks" src/model/a.cpp 'if (world.rank() == 0) {'
expect "mpi.h is included in" src/io/a.cpp '#include <mpi.h>'
