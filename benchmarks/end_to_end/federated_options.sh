#!/usr/bin/env bash
# Which option narrows the gap between N = 4 and N = 1 on the quickstart's question-answer pairs? Prints a Markdown table
# (docs/notes/federated.md). Needs the quickstart's base model; about 20 s a run on two cores.
#   benchmarks/end_to_end/federated_options.sh [SEED ...]      (default 42 43)
set -euo pipefail
cd "$(dirname "$0")/../.."

caravan=${CARAVAN_BIN:-build/release/bin/caravan}
base=runs/quickstart/base/checkpoints/base_ws1_lr0.002_round240
[ -d "$base" ] || { echo "federated_options: run scripts/quickstart.sh first" >&2; exit 1; }
seeds=("$@")
[ ${#seeds[@]} -gt 0 ] || seeds=(42 43)
export OMPI_MCA_rmaps_base_oversubscribe=1 OMPI_MCA_mpi_yield_when_idle=1 OMPI_MCA_hwloc_base_binding_policy=none
export OPENBLAS_NUM_THREADS=1
[ "$(id -u)" -eq 0 ] && export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT

# run RANKS SEED [--set ...]: the five losses after rounds 1 to 5, and before them that of round 0
run() {
  local ranks=$1 seed=$2
  shift 2
  mpirun --quiet -n "$ranks" $caravan train configs/quickstart/federated.yaml --overwrite --set seed="$seed" \
    --set model.checkpoint=$base --set output.dir="$out/run" "$@" >/dev/null 2>&1 </dev/null
  awk '{printf "%s ", $4}' "$out"/run/eval_res_llama32_ws*_r5.txt
  rm -rf "$out/run"
}

echo "| N | options | lr | seed | loss after rounds 1 ... 5 | best | lost |"
echo "|---|---|---|---|---|---|---|"
for seed in "${seeds[@]}"; do
  reference=""
  while read -r ranks lr name options; do
    sets=()
    for option in $options; do sets+=(--set "$option"); done
    losses=$(run "$ranks" "$seed" --set optimizer.lr="$lr" "${sets[@]}")
    reference=$(awk -v reference="$reference" -v n="$ranks" -v lr="$lr" -v name="${name//_/ }" -v seed="$seed" '{
        best = $2; for (i = 3; i <= NF; ++i) if ($i < best) best = $i
        if (reference == "") reference = best
        line = ""; for (i = 2; i <= NF; ++i) line = line sprintf("%.3f ", $i)
        lost = 100 * (best - reference) / ($1 - reference)
        printf "| %s | %s | %s | %s | %s| %.3f | %.0f %% |\n", n, name, lr, seed, line, best, lost > "/dev/stderr"
        print reference
      }' <<<"$losses" 2>&3)
  done <<'RUNS'
1 1e-3 reference_scheme
4 1e-3 reference_scheme
4 3e-3 reference_scheme
4 1e-3 swapping federated.enable_swapping=true
4 1e-3 rescale federated.rescale=true
4 1e-3 kept_optimizer_state federated.optimizer_state=keep
4 1e-3 kept_state,_swapping federated.optimizer_state=keep federated.enable_swapping=true
4 1e-3 delta_scale_0.5 federated.delta_scale=0.5
4 1e-3 delta_scale_1.5 federated.delta_scale=1.5
4 1e-3 outer_momentum_0.5 federated.outer.momentum=0.5
4 1e-3 outer_momentum_0.5,_nesterov federated.outer.momentum=0.5 federated.outer.nesterov=true
4 1e-3 outer_lr_1.5 federated.outer.lr=1.5
4 3e-3 swapping federated.enable_swapping=true
4 3e-3 kept_state,_swapping federated.optimizer_state=keep federated.enable_swapping=true
4 3e-3 delta_scale_0.5 federated.delta_scale=0.5
RUNS
done 3>&1
