#!/usr/bin/env bash
# Runs the runtime's own tests for aarch64 under qemu, once for each of three processors: plain NEON, dot products, and
# matrices of bytes. With BUNDLE and pictures also predictions and a watch over them, there and here, which must be equal.
# No timing means anything under emulation. Says that it skips, and ends with 0, where qemu or a toolchain is missing.
#
#   boards/test-aarch64.sh [BUNDLE.excon PICTURE…]
set -euo pipefail
cd "$(dirname "$0")/.."

skip() { printf 'skipped: %s\n' "$*"; exit 0; }

emulator=$(command -v qemu-aarch64-static || command -v qemu-aarch64) || skip "qemu-aarch64 is missing (Debian: qemu-user-static)"
source boards/toolchain.sh || skip "aarch64 cannot be built here"
library=/usr/aarch64-linux-gnu
triple=aarch64-unknown-linux-gnu
folder=target-aarch64

# Without tract: kernels, pictures, probabilities, maps, the alarm. The null battery is simulation for minutes, with
# nothing of the processor in it.
run() { # run CPU ISA FILTER…
  local cpu=$1 isa=$2; shift 2
  printf '\n== %s, EXCON_ISA=%s: %s\n' "$cpu" "$isa" "${*:-everything}"
  CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER="$emulator -L $library -cpu $cpu" EXCON_ISA=$isa \
    cargo test --release --quiet -p excon-edge --no-default-features --lib --target $triple --target-dir $folder -- "$@"
}
run cortex-a57 neon kernel:: image:: probability:: saliency:: shift:: --skip shift::tests::null
run cortex-a76 neondot kernel::
run max neoni8mm kernel::

[[ $# -gt 1 ]] || exit 0
printf '\n== predictions and a watch of %s, there and here\n' "$1"
cargo build --profile emulated --quiet -p excon-edge --bin excon-edge --target $triple --target-dir $folder
cargo build --release --quiet --workspace
# Labels, sets and everything written in words must be the same; numbers may differ by 1e-4, as the head runs in f32.
same='
import json, sys
def same(a, b):
    if isinstance(a, float) and isinstance(b, float): return abs(a - b) <= 1e-4
    if isinstance(a, dict): return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list): return len(a) == len(b) and all(map(same, a, b))
    return a == b
a, b = ([json.loads(line) for line in open(name)] for name in sys.argv[1:])
sys.exit(not same(a, b))
'
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
bundle=$1; shift
pictures=("$@")
# Every prediction, every line of a watch over the same pictures, and the watch's exit code: 1 says that the alarm rang.
answers() { # answers COMMAND…
  "$@" predict "$bundle" "${pictures[@]}" --format json
  local code=0
  printf '%s\n' "${pictures[@]}" | "$@" watch "$bundle" - --input list --independent --format json 2>"$work/said" || code=$?
  ((code <= 1)) || { cat "$work/said" >&2; return "$code"; }
  echo "$code"
}
EXCON_ISA=portable answers target/release/excon-edge >"$work/here"
for pair in cortex-a57:neon cortex-a76:neondot max:neoni8mm; do
  EXCON_ISA=${pair#*:} answers "$emulator" -L $library -cpu "${pair%:*}" $folder/$triple/emulated/excon-edge >"$work/there"
  python3 -c "$same" "$work/here" "$work/there" ||
    { printf '%s differs:\n' "$pair" >&2; diff "$work/here" "$work/there" >&2; exit 1; }
  printf '%s: the same answers\n' "$pair"
done
