#!/usr/bin/env bash
# The include directions of docs/tour.md: a folder may include only the folders listed for it.
#   scripts/check_includes.sh [ROOT]     ROOT: another tree than this one, for the script's own test
set -euo pipefail
cd "${1:-$(dirname "$0")/..}"

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
comm_of_backend=" stream device_streams pending " # comm orders work and hands it out unfinished; it computes nothing
bad=0
complain() { echo "$1"; bad=1; }
includes_in() { # FILE:LINE:PATH of every include of ours, however it is spelt
  grep -RnE '^[[:space:]]*#[[:space:]]*include[[:space:]]*("|<(caravan|kernels|src)/)' "$@" 2>/dev/null |
    sed -E 's/^([^:]*:[0-9]+):[^"<]*["<]([^">]*)[">].*/\1:\2/' || true
}
for folder in "${!may[@]}"; do
  while IFS=: read -r file line path; do
    case "$path" in
      caravan/*/*)
        target=$(cut -d/ -f2 <<<"$path")
        header=$(basename "$path" .h)
        if [[ " ${may[$folder]} " != *" $target "* ]]; then
          complain "$file:$line: $folder may not include caravan/$target"
        elif [ "$folder/$target" = comm/backend ] && [[ "$comm_of_backend" != *" $header "* ]]; then
          complain "$file:$line: comm may include of backend only$comm_of_backend"
        fi
        ;;
      kernels/*) complain "$file:$line: $folder may not include kernels/" ;;
      */*) complain "$file:$line: \"$path\": name a header as caravan/FOLDER/NAME.h, or by its bare name in its own folder" ;;
      *) [ -f "src/$folder/$path" ] || complain "$file:$line: \"$path\" is not in src/$folder" ;;
    esac
  done < <(includes_in "include/caravan/$folder" "src/$folder")
done
while IFS=: read -r file line path; do
  case "$path" in
    caravan/core/* | caravan/backend/* | kernels/*) ;;
    */*) complain "$file:$line: kernels may include core and backend only" ;;
    *) [ -f "$(dirname "$file")/$path" ] || complain "$file:$line: \"$path\" is not in $(dirname "$file")" ;;
  esac
done < <(includes_in kernels)
# Federated rounds stand above train and tell it what it needs to know.
if grep -RnE 'kFederated|FederatedSection|config\.federated' include/caravan/train src/train 2>/dev/null; then
  complain "train/ must not know federated"
fi
# The model knows no ranks (design: ports are the only places where the world outside is visible).
if grep -RnE 'mpi\.h|world_size|[^a-z_]rank\(|MPI_|if \(tp' include/caravan/model src/model 2>/dev/null; then
  echo "model/ must not know ranks or communicators"; bad=1
fi
for header in mpi.h hdf5.h yaml-cpp zip.h cblas.h pcre2.h cuda; do
  case "$header" in
    mpi.h) allowed='^(src/comm/|src/io/hdf5|src/app/|tests/)' ;;
    hdf5.h | yaml-cpp | zip.h) allowed='^(src/io/|tests/)' ;;
    cblas.h) allowed='^(kernels/cpu/|tests/|benchmarks/)' ;;
    pcre2.h) allowed='^(src/data/|tests/)' ;;
    cuda) allowed='^(kernels/cuda/|tests/cuda/|benchmarks/cuda/)' ;;
  esac
  hits=$(grep -RlE "#include <$header" include src kernels tests benchmarks 2>/dev/null | grep -vE "$allowed" || true)
  [ -z "$hits" ] || { echo "$header is included in: $hits"; bad=1; }
done
exit $bad
