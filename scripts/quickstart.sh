#!/usr/bin/env bash
# From a fresh checkout to a trained model: installs what is missing, builds, trains a small Llama 3 from scratch, and
# fine-tunes it in federated rounds at world sizes 1, 2 and 4, with and without swapping. Ends with a table.
#   scripts/quickstart.sh [--task qa|math|rhymes|FOLDER] [--quick]
#     --task    what to fine-tune on (default qa); a FOLDER holds train/*.txt and test/*.txt
#     --quick   a tenth of the steps, to see that everything works
set -euo pipefail
started_in=$PWD
cd "$(dirname "$0")/.."

task=qa
base_steps=240
rounds=5
while [ $# -gt 0 ]; do
  case "$1" in
    --task) task=${2:?--task needs a name or a folder}; shift ;;
    --quick) base_steps=24; rounds=2 ;;
    -h | --help) sed -n '2,6p' "$0"; exit 0 ;;
    *) echo "quickstart: unknown option $1 (try --help)" >&2; exit 2 ;;
  esac
  shift
done
data=configs/quickstart/data
folder=$task
[[ "$folder" = /* ]] || folder=$started_in/$folder # the user's own folder, not this repository's
if [ -f "$data/$task.train.txt" ]; then
  train="$data/$task.train.txt" eval="$data/$task.eval.txt" name=$task
elif [ -d "$folder" ]; then
  train="$folder/train/*.txt" eval="$folder/test/*.txt"
  name=$(basename "$folder" | tr -c '[:alnum:]._\n-' _) # becomes part of paths that the shell takes apart
else
  echo "quickstart: --task $task: choose qa, math, rhymes, or a folder with train/*.txt and test/*.txt" >&2
  exit 2
fi

# ---- Install and build
scripts/install_deps.sh
echo "quickstart: building (a few minutes the first time)"
cmake --preset release >/dev/null
cmake --build --preset release --target caravan >/dev/null
caravan=build/release/bin/caravan
started=$SECONDS

# mpirun on one small machine: as root in containers, more ranks than cores, ranks that wait without spinning.
export OMPI_MCA_rmaps_base_oversubscribe=1 OMPI_MCA_mpi_yield_when_idle=1 OMPI_MCA_hwloc_base_binding_policy=none
[ "$(id -u)" -eq 0 ] && export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1

# ---- A tokenizer and a base model from scratch
out=runs/quickstart
mkdir -p $out
echo "quickstart: training the tokenizer"
$caravan tokenizer train $data/*.train.txt --vocab-size 2048 --out $out/tokenizer.json
echo "quickstart: training the base model from scratch ($base_steps steps on $data/general.train.txt)"
$caravan train configs/quickstart/base.yaml --overwrite --set training.steps=$base_steps
base=$out/base/checkpoints/base_ws1_lr0.002_round$base_steps

# ---- Federated fine-tuning
columns=()
for run in "1 false" "2 false" "2 true" "4 false" "4 true"; do
  read -r ranks swapping <<<"$run"
  folder=$out/$name/ws${ranks}$([ "$swapping" = true ] && echo _swap || true)
  echo "quickstart: federated rounds on $name, $ranks rank(s), swapping $swapping"
  progress=${CARAVAN_PROGRESS:-}
  # A line that renews itself would never get through grep.
  CARAVAN_PROGRESS=${progress/terminal/plain} \
    mpirun --quiet -n "$ranks" $caravan train configs/quickstart/federated.yaml --overwrite \
    --set model.checkpoint="$base" --set data.train="$train" --set data.eval="$eval" --set data.name="$name" \
    --set federated.rounds=$rounds --set federated.enable_swapping="$swapping" --set output.dir="$folder" 2>&1 |
    grep --line-buffered -v -E '^(plan:|  |$)' || { echo "quickstart: the run failed; see above" >&2; exit 1; }
  columns+=("$folder")
done
unigram=$($caravan eval --checkpoint "$base" --data "$eval" --unigram "$train" --max-seq-len 96 --json |
  sed -E 's/.*"unigram_loss":([0-9.eE+-]+).*/\1/') || { echo "quickstart: the unigram baseline failed; see above" >&2; exit 1; }

# ---- The table
paste -d' ' $(for folder in "${columns[@]}"; do ls "$folder"/eval_res_llama32_ws*_r$rounds.txt; done) |
  awk -v unigram="$unigram" -v name="$name" '
    BEGIN {
      printf "\nheld-out loss (perplexity) on %s; N ranks, each training its slice of the model on its part of the data\n\n", name
      printf "%-8s%20s%20s%20s%20s%20s\n", "round", "N = 1", "N = 2", "N = 2, swapping", "N = 4", "N = 4, swapping"
    }
    {
      printf "%-8s", $2
      for (run = 0; run < 5; ++run) printf "%20s", sprintf("%.4f (%.4g)", $(6 * run + 4), $(6 * run + 6))
      printf "\n"
      if (NR == 1) first = $4
      last = $4
    }
    END {
      printf "%-8s%20s\n", "unigram", sprintf("%.4f (%.4g)", unigram, exp(unigram))
      printf "\nN = 1: held-out loss %.4f before, %.4f after fine-tuning, %.0f %% lower\n", first, last, 100 * (1 - last / first)
    }'
cat <<EOF
done in $((SECONDS - started)) s after the build

results   $out/$name/ws1/results.h5   (HDF5; caravan inspect shows it)
try next  $caravan inspect $out/$name/ws4/results.h5
          $caravan generate --checkpoint $out/$name/ws1/checkpoints/* --prompt 'Question: How many legs does a cat have? Answer:' -n 24
          $caravan train configs/train/llama3.2-3b-federated.yaml --dry-run --set model.checkpoint=null --set model.preset=llama3.2-3b --set federated.world_size=4
          scripts/quickstart.sh --task math
EOF
