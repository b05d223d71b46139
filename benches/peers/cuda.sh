#!/usr/bin/env bash
# Tests and benchmarks of the CUDA engine on a machine with a graphics card, in one go; results in OUT (default: target/cuda).
#   benches/peers/cuda.sh                 builds the tests and the bench here
#   benches/peers/cuda.sh TESTS BENCH     uses these binaries, built elsewhere by
#                                         `cargo test --release --workspace --features cuda --all-targets --no-run`
# Libraries of a PyTorch installation are found by themselves; PyTorch's own side runs where there is one.
set -uo pipefail
cd "$(dirname "$0")/../.."
out=${OUT:-target/cuda}
mkdir -p "$out"
for folder in $(python3 -c 'import glob, site; print(*(g for s in site.getsitepackages() for g in glob.glob(s + "/nvidia/*/lib")))' 2>/dev/null); do
  LD_LIBRARY_PATH=$folder:${LD_LIBRARY_PATH:-}
done
export LD_LIBRARY_PATH=${LD_LIBRARY_PATH:-}
tests=${1:-} bench=${2:-}
if [[ -z $tests ]]; then
  cargo test --release --workspace --features cuda --all-targets --no-run 2>&1 | tee "$out/build.log"
  tests=$(grep -oE 'target/release/deps/excon_train-[0-9a-f]+' "$out/build.log" | head -n 1)
  bench=$(grep -oE 'target/release/deps/cuda-[0-9a-f]+' "$out/build.log" | head -n 1)
fi
nvidia-smi --query-gpu=name,driver_version --format=csv,noheader | tee "$out/card.txt"
(cd train && "../$tests" cuda:: --nocapture) > "$out/tests.txt" 2>&1; echo "tests ended with $?" | tee -a "$out/tests.txt"
: > "$out/bench.jsonl"
"$bench" 2> "$out/bench.err" | tee -a "$out/bench.jsonl"
python3 benches/peers/cuda_step.py 2> "$out/torch.err" | tee -a "$out/bench.jsonl"
