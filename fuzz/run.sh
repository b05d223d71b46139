#!/bin/sh
# Builds the fuzz targets on the stable compiler, with the address sanitizer throughout and coverage of our own crates and
# the parsers they trust (instrument.sh), and runs each in turn.
#
#   fuzz/run.sh [SECONDS] [TARGET…]      30 seconds and all targets by default
#
# What a run finds is left in fuzz/found/TARGET; new inputs that reach new code in fuzz/target/corpus/TARGET. The first
# finding ends the script with an error.
set -eu
cd "$(dirname "$0")"
seconds=${1:-30}
[ $# -gt 0 ] && shift
[ $# -gt 0 ] || set -- onnx bundle image config

RUSTC_BOOTSTRAP=1
RUSTFLAGS="-Zsanitizer=address --cfg fuzzing"
RUSTC_WRAPPER="$PWD/instrument.sh"
export RUSTC_BOOTSTRAP RUSTFLAGS RUSTC_WRAPPER
triple=$(rustc -vV | sed -n 's/^host: //p')
CARGO_TARGET_DIR=target cargo build --release --target "$triple"

for target in "$@"; do
    case $target in
        onnx) seeds=../tests/fixtures/onnx ;;
        image) seeds=../tests/fixtures/image ;;
        config) seeds=../src/demo ;;
        *) seeds=corpus/$target ;;
    esac
    mkdir -p "target/corpus/$target" "found/$target"
    echo "== $target, $seconds s"
    "target/$triple/release/$target" "target/corpus/$target" "$seeds" -max_total_time="$seconds" \
        -artifact_prefix="found/$target/" -rss_limit_mb=2048 -malloc_limit_mb=1024 -timeout=20 -max_len=65536 \
        -print_final_stats=1
done
