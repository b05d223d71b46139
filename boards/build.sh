#!/usr/bin/env bash
# Builds `excon-edge` for boards: stripped, one file, dynamic against an old glibc, so that it runs on what boards carry.
set -euo pipefail
cd "$(dirname "$0")/.."

usage() {
  cat <<'END'
Builds excon-edge for boards and checks that the result runs on their system library.

Usage: boards/build.sh [--target aarch64|x86_64]... [--glibc VERSION] [--out FOLDER]

  --target   aarch64 or x86_64; may be given twice [default: both]
  --glibc    oldest glibc it must run on [default: 2.27, that of JetPack 4; JetPack 5 has 2.31, 6 has 2.35, 7 has 2.39]
  --out      where excon-edge-aarch64 and excon-edge-x86_64 go [default: target/boards]

aarch64 needs a C cross compiler (Debian: gcc-aarch64-linux-gnu) and Rust's library for it: by `rustup target add`, or
from the folder that EXCON_AARCH64_TOOLCHAIN names (with bin/rustc and lib/rustlib/aarch64-unknown-linux-gnu inside).
A system linker asks for the system's own glibc. For an older one zig links: EXCON_ZIG names it [default: `zig`, else
`python3 -m ziglang` of the Python package ziglang].

Exit codes: 0 done · 1 the result asks for a newer glibc · 64 usage · 69 a tool is missing

Examples:
  boards/build.sh
  boards/build.sh --target aarch64 --glibc 2.31 --out dist
END
}

fail() { local code=$1; shift; printf 'build.sh: %s\n' "$*" >&2; exit "$code"; }

targets=() glibc=2.27 out=target/boards
while (($#)); do
  case $1 in
    --help|-h) usage; exit 0 ;;
    --target|--glibc|--out)
      [[ $# -ge 2 ]] || fail 64 "$1 wants a value; see --help"
      case $1 in --target) targets+=("$2") ;; --glibc) glibc=$2 ;; --out) out=$2 ;; esac
      shift 2 ;;
    *) fail 64 "unknown argument $1; see --help" ;;
  esac
done
[[ ${#targets[@]} -gt 0 ]] || targets=(aarch64 x86_64)
[[ $glibc =~ ^2\.[0-9]+$ ]] || fail 64 "--glibc wants a version such as 2.27"
for arch in "${targets[@]}"; do
  [[ $arch == aarch64 || $arch == x86_64 ]] || fail 64 "no target $arch: aarch64 or x86_64"
done
command -v readelf >/dev/null || fail 69 "readelf is missing (Debian: binutils)"

zig=${EXCON_ZIG:-}
if [[ -z $zig ]]; then
  if command -v zig >/dev/null; then zig=zig
  elif python3 -m ziglang version >/dev/null 2>&1; then zig="python3 -m ziglang"
  fi
fi

# A linker for rustc that asks for no symbol younger than $glibc. Rust's unwinder is looked for in zig's libunwind.
zig_linker() {
  local arch=$1 path=$2
  cat > "$path" <<END
#!/usr/bin/env bash
arguments=()
for argument in "\$@"; do
  case \$argument in
    -lgcc_s) arguments+=(-lunwind) ;;
    --target=*) ;;
    *) arguments+=("\$argument") ;;
  esac
done
exec $zig cc -target $arch-linux-gnu.$glibc "\${arguments[@]}"
END
  chmod +x "$path"
}

# The youngest glibc that a file asks for.
asked() { readelf -W --version-info "$1" | grep -o 'GLIBC_2[.0-9]*' | sort -uV | tail -n 1 | sed 's/GLIBC_//'; }

build() {
  local arch=$1 triple=$1-unknown-linux-gnu folder=target
  if [[ $arch == aarch64 ]]; then
    folder=target-aarch64
    source boards/toolchain.sh || fail 69 "aarch64 cannot be built here"
  fi
  if [[ -n $zig ]]; then
    mkdir -p "$folder"
    zig_linker "$arch" "$PWD/$folder/zig-$arch-$glibc"
    export "CARGO_TARGET_${arch^^}_UNKNOWN_LINUX_GNU_LINKER=$PWD/$folder/zig-$arch-$glibc"
  fi
  cargo build --profile board -p excon-edge --bin excon-edge --target "$triple" --target-dir "$folder"
  cp "$folder/$triple/board/excon-edge" "$out/excon-edge-$arch"
}

mkdir -p "$out"
for arch in "${targets[@]}"; do
  (build "$arch") || exit
  file=$out/excon-edge-$arch
  newest=$(asked "$file")
  printf '%s  %s bytes  glibc %s\n' "$file" "$(stat -c %s "$file")" "$newest"
  if [[ $(printf '%s\n' "$newest" "$glibc" | sort -V | tail -n 1) != "$glibc" ]]; then
    fail 1 "$file asks for glibc $newest, not $glibc: let zig link (pip install ziglang, or EXCON_ZIG), or allow it by" \
      "--glibc $newest"
  fi
done
