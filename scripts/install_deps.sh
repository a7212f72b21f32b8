#!/usr/bin/env bash
# The one place that lists Debian packages. Installs what is missing and nothing else; asks apt only when
# something is missing, so a second run costs nothing and works offline.
#   scripts/install_deps.sh            what building, running and testing on CPUs needs
#   scripts/install_deps.sh --dev      also clang-format, clang-tidy, cppcheck, gcovr, clang for fuzzing
#   scripts/install_deps.sh --slurm    also a Slurm to test the batch scripts with
set -euo pipefail

packages=(
  build-essential cmake ninja-build ccache git pkg-config
  openmpi-bin libopenmpi-dev
  libhdf5-openmpi-dev hdf5-tools
  libopenblas-pthread-dev
  libyaml-cpp-dev libcli11-dev libfmt-dev libspdlog-dev nlohmann-json3-dev
  libpcre2-dev zlib1g-dev libzip-dev zipcmp zipmerge ziptool
  catch2 libboost-context-dev python3 python3-h5py
)
dev_packages=(clang-format-14 clang-tidy-14 clang-14 libclang-rt-14-dev cppcheck gcovr)

slurm_packages=(slurm-wlm slurmctld slurmd slurm-client munge slurm-wlm-basic-plugins libpmix2)

case "${1:-}" in
  "") ;;
  --dev) packages+=("${dev_packages[@]}") ;;
  --slurm) packages+=("${slurm_packages[@]}") ;;
  *) echo "install_deps: $1 is not an option; there are --dev and --slurm" >&2; exit 2 ;;
esac

missing=()
for package in "${packages[@]}"; do
  dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
done
[ ${#missing[@]} -eq 0 ] && exit 0

as_root=()
if [ "$(id -u)" -ne 0 ]; then
  command -v sudo >/dev/null || { echo "install_deps: not root and no sudo; ask an administrator to install: ${missing[*]}" >&2; exit 1; }
  as_root=(sudo)
fi
echo "install_deps: installing ${missing[*]}"
"${as_root[@]}" apt-get update -qq
"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
