#!/usr/bin/env bash
# A folder (and its .tar.xz) that runs on another Linux x86-64 machine with this glibc or a newer one: the program, the tests
# and benchmarks for GPUs, configurations, and the shared libraries they need. That machine needs no Open MPI, HDF5 or
# yaml-cpp; for GPUs it needs a driver and a CUDA 13 toolkit (cuBLASLt), whose libraries are not in the bundle.
#
#   cmake --preset release -DCARAVAN_BUILD_BENCHMARKS=ON && cmake --build --preset release
#   scripts/bundle.sh [--build build/release] [--output build/caravan-bundle] [--folder-only] [--without-benchmarks]
#
# In the bundle: bin/ (start these), program/ (what they start), lib/, openmpi/, configs/, scripts/gpu_check.sh and what it
# reads of benchmarks/.
set -euo pipefail
cd "$(dirname "$0")/.."

build=build/release
output=build/caravan-bundle
folder_only=false
needed=(test_gpu_ops benchmark_gpu_step benchmark_cuda_kernels benchmark_cuda_attention)
while [ $# -gt 0 ]; do
  case $1 in
    --build) build=${2:?--build needs a folder}; shift 2 ;;
    --output) output=${2:?--output needs a folder}; shift 2 ;;
    --folder-only) folder_only=true; shift ;;
    --without-benchmarks) needed=(); shift ;;
    *) echo "bundle.sh: unknown option $1; see the head of $0" >&2; exit 2 ;;
  esac
done
if [ ! -x "$build/bin/caravan" ]; then
  echo "bundle.sh: $build/bin/caravan is not there; build first (scripts/test.sh), or give --build" >&2
  exit 2
fi
for name in "${needed[@]}"; do
  if [ ! -x "$build/bin/$name" ]; then
    echo "bundle.sh: $build/bin/$name is not there, and scripts/gpu_check.sh wants it; configure with -DCARAVAN_CUDA=ON" \
      "-DCARAVAN_BUILD_BENCHMARKS=ON, or give --without-benchmarks" >&2
    exit 2
  fi
done
if [ -e "$output" ] && [ ! -f "$output/BUNDLE" ]; then
  echo "bundle.sh: $output exists and is no bundle; give another --output" >&2
  exit 2
fi

unfinished=$output.unfinished
rm -rf "$unfinished"
mkdir -p "$unfinished"/{bin,program,lib,openmpi/lib,scripts}

programs=(caravan)
for file in "$build"/bin/test_gpu_* "$build"/bin/test_cuda_* "$build"/bin/benchmark_cuda* "$build"/bin/benchmark_gpu*; do
  [ -x "$file" ] && programs+=("$(basename "$file")")
done
for program in "${programs[@]}"; do
  strip --strip-debug -o "$unfinished/program/$program" "$build/bin/$program"
done
launcher=$(readlink -f "$(command -v orterun || command -v mpirun)")
daemon=$(readlink -f "$(command -v orted)")
strip --strip-debug -o "$unfinished/program/mpirun" "$launcher"
strip --strip-debug -o "$unfinished/program/orted" "$daemon"

# Plugins of Open MPI and PMIx: they are opened by name, and need libraries of their own.
plugins=$(ompi_info --parsable --path pkglibdir | cut -d: -f3)
mkdir -p "$unfinished/openmpi/lib/openmpi3" "$unfinished/openmpi/share"
# Shared memory, TCP and self are what one machine needs; the fabrics' plugins pull in their vendors' libraries.
for plugin in "$plugins"/*.so; do
  case $(basename "$plugin") in
    *ofi* | *ucx* | *psm* | *openib* | *usnic* | *cuda* | *libnbc_debug* | *verbs*) ;;
    *) cp -L "$plugin" "$unfinished/openmpi/lib/openmpi3/" ;;
  esac
done
cp -r "$(ompi_info --parsable --path pkgdatadir | cut -d: -f3)" "$unfinished/openmpi/share/openmpi"
pmix=$(dirname "$plugins")/../../pmix2
if [ -d "$pmix" ]; then
  mkdir -p "$unfinished/pmix"
  cp -rL "$pmix"/. "$unfinished/pmix/"
  rm -rf "$unfinished/pmix/include" "$unfinished/pmix/lib/"*.a
fi

# All libraries that any of these need, but glibc's own and CUDA's.
system='^(linux-vdso|ld-linux|libc|libm|libdl|libpthread|librt|libutil|libresolv|libcuda|libcudart|libcublas|libcublasLt|libnccl|libcudnn)\.'
find "$unfinished" -type f \( -name '*.so*' -o -path '*/program/*' \) -print0 |
  xargs -0 ldd 2>/dev/null | awk '$2 == "=>" && $3 ~ /^\// { print $1, $3 }' | sort -u |
  while read -r name path; do
    if ! [[ $name =~ $system ]]; then
      cp -L "$path" "$unfinished/lib/$name"
    fi
  done
find "$unfinished" -name '*.so*' -type f -exec strip --strip-unneeded {} + 2>/dev/null || true

for program in "${programs[@]}" mpirun; do
  cat > "$unfinished/bin/$program" <<'START'
#!/bin/sh
# Starts ../program/NAME with the libraries of the bundle.
here=$(cd "$(dirname "$(readlink -f "$0")")/.." && pwd)
export LD_LIBRARY_PATH="$here/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
export OPAL_PREFIX="$here/openmpi" OMPI_MCA_mca_base_component_path="$here/openmpi/lib/openmpi3"
export OPAL_LIBDIR="$here/openmpi/lib" OPAL_PKGLIBDIR="$here/openmpi/lib/openmpi3" OPAL_PKGDATADIR="$here/openmpi/share/openmpi"
export OPAL_BINDIR="$here/program"
if [ -d "$here/pmix" ]; then  # its plugins too, not those of a PMIx that this machine may have
  export PMIX_INSTALL_PREFIX="$here/pmix" PMIX_MCA_mca_base_component_path="$here/pmix/lib/pmix"
fi
exec "$here/program/$(basename "$0")" "$@"
START
  chmod +x "$unfinished/bin/$program"
done
cp -r configs "$unfinished/"
cp scripts/gpu_check.sh "$unfinished/scripts/"
mkdir -p "$unfinished/benchmarks/end_to_end"
cp benchmarks/end_to_end/{gpu_goals.txt,gpu_report.awk,gpu_torch_step.py,torch_llama.py} "$unfinished/benchmarks/end_to_end/"
{
  echo "caravan bundle of $(git rev-parse HEAD 2>/dev/null || echo unknown)"
  echo "glibc $(getconf GNU_LIBC_VERSION | cut -d' ' -f2) or newer, x86-64"
  printf 'programs: %s\n' "${programs[*]}"
} > "$unfinished/BUNDLE"

rm -rf "$output"
mv "$unfinished" "$output"
du -sh "$output" | sed 's/\t/ in /'
if ! $folder_only; then
  # The programs have the same kernels in them: a dictionary that spans several makes the file a third as large.
  tar -C "$(dirname "$output")" -cf - "$(basename "$output")" | xz --lzma2=preset=1,dict=512MiB > "$output.tar.xz.unfinished"
  mv "$output.tar.xz.unfinished" "$output.tar.xz"
  ls -l "$output.tar.xz" | awk '{ printf "%.1f MB compressed: %s\n", $5 / 1e6, $9 }'
fi
