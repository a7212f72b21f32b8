#!/usr/bin/env bash
# The include directions of docs/tour.md: a folder may include only the folders listed for it.
set -euo pipefail
cd "$(dirname "$0")/.."

declare -A may=(
  [core]="core"
  [config]="core config"
  [backend]="core backend"
  [comm]="core backend comm"
  [data]="core config data"
  [ops]="core backend ops"
  [io]="core config io"
  [model]="core config backend ops model"
  [parallel]="core config backend ops model comm parallel"
  [optim]="core config backend ops model comm optim"
  [train]="core config backend comm data ops io model parallel optim train"
  [federated]="core config backend comm data ops io model parallel optim train federated"
)
bad=0
for folder in "${!may[@]}"; do
  while IFS=: read -r file line included; do
    target=$(sed -E 's|.*caravan/([a-z_]+)/.*|\1|' <<<"$included")
    case " ${may[$folder]} " in *" $target "*) ;; *)
      echo "$file:$line: $folder may not include caravan/$target"; bad=1 ;;
    esac
  done < <(grep -RnE '#include "caravan/' "include/caravan/$folder" "src/$folder" 2>/dev/null || true)
  if grep -RnE '#include "kernels/' "include/caravan/$folder" "src/$folder" 2>/dev/null; then
    echo "$folder may not include kernels/"; bad=1
  fi
done
while IFS=: read -r file line included; do
  case "$included" in *caravan/core/*|*caravan/backend/*) ;; *) echo "$file:$line: kernels may include core and backend only"; bad=1 ;; esac
done < <(grep -RnE '#include "caravan/' kernels || true)
# The model knows no ranks (design: ports are the only places where the world outside is visible).
if grep -RnE 'mpi\.h|world_size|[^a-z_]rank\(|MPI_|if \(tp' include/caravan/model src/model; then
  echo "model/ must not know ranks or communicators"; bad=1
fi
for header in mpi.h hdf5.h yaml-cpp zip.h cblas.h pcre2.h; do
  case "$header" in
    mpi.h) allowed='^(src/comm/|src/io/hdf5|src/app/|tests/)' ;;
    hdf5.h | yaml-cpp | zip.h) allowed='^(src/io/|tests/)' ;;
    cblas.h) allowed='^(kernels/cpu/|tests/|benchmarks/)' ;;
    pcre2.h) allowed='^(src/data/|tests/)' ;;
  esac
  hits=$(grep -RlE "#include <$header" include src kernels tests benchmarks 2>/dev/null | grep -vE "$allowed" || true)
  [ -z "$hits" ] || { echo "$header is included in: $hits"; bad=1; }
done
exit $bad
