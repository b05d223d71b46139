#!/usr/bin/env bash
# Trains and measures the methods that docs/results.md compares, in one of two settings.
#
#   docs/evidence/run.sh [resnet20|resnet18] [CIFAR-100]
#
#   resnet20  on the first ten classes of CIFAR-100, three seeds; hours on two cores, minutes on a graphics card
#   resnet18  on all of CIFAR-100, one seed; for a graphics card: EXCON_DEVICE=cuda
#
# CIFAR-100 is its folder or .tar.gz in the binary layout. Each method's learning rate is the best on validation of one
# small grid. Goes on where it stopped: a training from its last epoch, a finished result is not made again. Run folders
# lie in runs/evidence/SETTING (EXCON_RUNS). Kept are docs/evidence/SETTING/rates, a summary of each trial, and results,
# each run without its weights, which `excon report docs/evidence/SETTING/results/*` lays side by side.
# EXCON_EPOCHS sets the epochs of the final runs, EXCON_JOBS how many trainings go on at once, EXCON_METHODS the methods.
set -euo pipefail
cd "$(dirname "$0")/../.."

setting=${1:-resnet20}
data=${2:-../shared/data/cifar100/cifar-100-binary.tar.gz}
runs=${EXCON_RUNS:-runs/evidence/$setting}
excon=${EXCON:-target/release/excon}
jobs=${EXCON_JOBS:-1}
results=docs/evidence/$setting/results
grid=docs/evidence/$setting/rates
read -ra methods <<<"${EXCON_METHODS:-cross-entropy supcon control excon excon-b supcon-joint control-joint excon-joint}"
common=(--data "$data" --network "$setting" --stem stride1
  --set select=last --set views.scale=[0.2,1.0] --set classifier_views.scale=[0.2,1.0])
case $setting in
  resnet20)
    common+=(--classes 10 --batch 128)
    trial_epochs=10 epochs=${EXCON_EPOCHS:-60} rates=(0.02 0.05 0.1) seeds=(1 2 3)
    ;;
  resnet18)
    # The refit of a head of 51,200 weights on 45,000 pictures takes longer than the training.
    common+=(--batch 256 --set refit_head=false)
    trial_epochs=4 epochs=${EXCON_EPOCHS:-20} rates=(0.05 0.1 0.2) seeds=(1)
    ;;
  *) echo "there is no setting $setting: give resnet20 or resnet18" >&2 && exit 2 ;;
esac
mkdir -p "$runs" "$results" "$grid"

# What makes a method; $2 is its number of epochs. Explanations begin after a quarter of them, as in the published
# command for CIFAR-100 (50 of 200); before that the step is SupCon's.
method() {
  local from=$(($2 / 4 + 1))
  case $1 in
    cross-entropy) echo "--recipe cross-entropy" ;;
    supcon) echo "--recipe supcon --joint=false" ;;
    supcon-joint) echo "--recipe supcon --joint=true" ;;
    control) echo "--recipe excon --joint=false --set exp_epochs=$from --set view1_unmasked=true" ;;
    control-joint) echo "--recipe excon --joint=true --set exp_epochs=$from --set view1_unmasked=true" ;;
    excon) echo "--recipe excon --joint=false --set exp_epochs=$from" ;;
    excon-joint) echo "--recipe excon --joint=true --set exp_epochs=$from" ;;
    excon-b) echo "--recipe excon-b --joint=false --set exp_epochs=$from" ;;
    *) echo "there is no method $1" >&2 && return 2 ;;
  esac
}

# train NAME OUT.json METHOD EPOCHS RATE SEED: a run folder and its summary.
train() {
  local run=$runs/$1 again=()
  [ -e "$2" ] && return
  if [ -e "$run/last.safetensors" ] || [ -e "$run/run.json" ]; then again=(--resume); fi
  # shellcheck disable=SC2046
  "$excon" train "${common[@]}" $(method "$3" "$4") --epochs "$4" --lr "$5" --seed "$6" --out "$run" "${again[@]}" \
    --format json >"$run.partial"
  mv "$run.partial" "$2"
}

# The rate with the best accuracy on validation; of equals the one with the lower NLL.
best_rate() {
  for rate in "${rates[@]}"; do
    awk -v rate="$rate" -F'[:,]' '/^  "validation_accuracy"/ {a = $2} /^  "validation_nll"/ {n = $2}
      END {print a, -n, rate}' "$grid/$1-$rate.json"
  done | sort -k1,1gr -k2,2gr | awk 'NR == 1 {print $3}'
}

# final METHOD SEED: a whole run, measured.
final() {
  local run=$runs/$1-$2 result=$results/$1-$2
  [ -e "$result" ] && return
  train "$1-$2" "$run.json" "$1" "$epochs" "$(best_rate "$1")" "$2"
  [ -n "${EXCON_TRAIN_ONLY:-}" ] && return
  "$excon" evaluate "$run" --data "$data" --attacks --corruptions >&2
  rm -rf "$run.result" && mkdir "$run.result"
  cp "$run/run.json" "$run/log.jsonl" "$run/evaluation.json" "$run.result"
  mv "$run.result" "$result"
}

# Begins a job where fewer than EXCON_JOBS are under way; a failed one ends the script.
begin() {
  while [ "$(jobs -rp | wc -l)" -ge "$jobs" ]; do wait -n; done
  "$@" &
}
finish() { while [ -n "$(jobs -p)" ]; do wait -n; done; }

for name in "${methods[@]}"; do
  for rate in "${rates[@]}"; do begin train "rate-$name-$rate" "$grid/$name-$rate.json" "$name" "$trial_epochs" "$rate" 1; done
done
finish
for seed in "${seeds[@]}"; do
  for name in "${methods[@]}"; do begin final "$name" "$seed"; done
done
finish
[ -n "${EXCON_TRAIN_ONLY:-}" ] || "$excon" report "$results"/* --out "docs/evidence/$setting/report.html"
