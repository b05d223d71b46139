#!/usr/bin/env bash
# Trains and measures the methods that docs/results.md compares: ResNet-20 on the first ten classes of CIFAR-100, each
# method's learning rate chosen on validation from one small grid, then three seeds of thirty epochs.
#
#   docs/evidence/run.sh [CIFAR-100]      folder or .tar.gz in the binary layout
#
# Goes on where it stopped: a training from its last epoch, a finished result is not made again. Run folders lie in
# runs/evidence (EXCON_RUNS). Kept are docs/evidence/rates, a summary of each trial, and docs/evidence/results, each run
# without its weights, which `excon report docs/evidence/results/*` lays side by side.
set -euo pipefail
cd "$(dirname "$0")/../.."

data=${1:-../shared/data/cifar100/cifar-100-binary.tar.gz}
runs=${EXCON_RUNS:-runs/evidence}
excon=${EXCON:-target/release/excon}
methods=(cross-entropy supcon control excon excon-joint excon-b)
rates=(0.02 0.05 0.1)
seeds=(1 2 3)
results=docs/evidence/results
grid=docs/evidence/rates
mkdir -p "$runs" "$results" "$grid"

common=(--data "$data" --classes 10 --network resnet20 --stem stride1 --batch 128
  --set select=last --set views.scale=[0.2,1.0] --set classifier_views.scale=[0.2,1.0])

# What makes a method; $2 is its number of epochs. Explanations begin after a quarter of them, as in the published
# command for CIFAR-100 (50 of 200); before that the step is SupCon's.
method() {
  local from=$(($2 / 4 + 1))
  case $1 in
    cross-entropy) echo "--recipe cross-entropy" ;;
    supcon) echo "--recipe supcon --joint=false" ;;
    control) echo "--recipe excon --joint=false --set exp_epochs=$from --set view1_unmasked=true" ;;
    excon) echo "--recipe excon --joint=false --set exp_epochs=$from" ;;
    excon-joint) echo "--recipe excon --joint=true --set exp_epochs=$from" ;;
    excon-b) echo "--recipe excon-b --joint=false --set exp_epochs=$from" ;;
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

for name in "${methods[@]}"; do
  for rate in "${rates[@]}"; do train "rate-$name-$rate" "$grid/$name-$rate.json" "$name" 10 "$rate" 1; done
done

for seed in "${seeds[@]}"; do
  for name in "${methods[@]}"; do
    run=$runs/$name-$seed result=$results/$name-$seed
    [ -e "$result" ] && continue
    train "$name-$seed" "$run.json" "$name" 30 "$(best_rate "$name")" "$seed"
    "$excon" evaluate "$run" --data "$data" --attacks --corruptions >&2
    rm -rf "$runs/result" && mkdir "$runs/result"
    cp "$run/run.json" "$run/log.jsonl" "$run/evaluation.json" "$runs/result"
    mv "$runs/result" "$result"
  done
done
"$excon" report "$results"/* --out docs/evidence/report.html
