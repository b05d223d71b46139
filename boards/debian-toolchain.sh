#!/usr/bin/env bash
# Makes a Rust toolchain for aarch64 out of Debian's packages where rustup's library for it cannot be had: Debian's
# compiler accepts the library of the arm64 package of the same version. Nothing is installed but patchelf; the folder
# takes about 650 MB. Usage: export EXCON_AARCH64_TOOLCHAIN=$(boards/debian-toolchain.sh FOLDER)
set -euo pipefail
[[ $# -eq 1 && $1 != --help ]] || { sed -n '2,5s/^# //p' "$0"; exit 64; }
mkdir -p "$1"
folder=$(cd "$1" && pwd)
if [[ ! -x $folder/bin/rustc ]]; then
  {
    command -v patchelf >/dev/null || { apt-get update -qq; apt-get install -y -qq --no-install-recommends patchelf; }
    work=$(mktemp -d "$folder/work.XXXXXX")
    trap 'rm -rf "$work"' EXIT
    source "$(dirname "$0")/debian-arm64.sh"
    arm64_index "$work"
    named() { apt-cache "${options[@]}" depends "$1:amd64" | sed -n "s/.*Depends: \($2\)\$/\1/p" | head -n 1; }
    library=$(named libstd-rust-web-dev 'libstd-rust-web-[0-9.]*')
    compiler=$(named "$library" 'libllvm[0-9]*')
    arm64_download "$work" {rustc-web,"$library","$compiler",libstd-rust-web-dev}:amd64 libstd-rust-web-dev:arm64
    mkdir -p "$folder/lib" "$folder/bin.part"
    cp -a "$work"/root/usr/lib/rustlib "$work"/root/usr/lib/x86_64-linux-gnu/*.so* "$folder/lib/"
    cp -a "$work"/root/usr/bin/{rustc,rustdoc} "$folder/bin.part/"
    patchelf --set-rpath '$ORIGIN/../lib' "$folder"/bin.part/{rustc,rustdoc}
    patchelf --set-rpath '$ORIGIN' "$folder"/lib/librustc_driver*.so
    # Last: a folder with bin is a whole one.
    mv "$folder/bin.part" "$folder/bin"
  } >&2
fi
printf '%s\n' "$folder"
