# Sourced by the scripts beside it: sets up cargo for aarch64-unknown-linux-gnu with what this machine has, or returns 1
# and says on stderr what is missing.
#
# Rust's library for the target comes from the folder that EXCON_AARCH64_TOOLCHAIN names (bin/rustc, as
# debian-toolchain.sh makes it), else from rustup. Its artefacts go to target-aarch64, since the compiler may be another
# than the host's.

missing() { printf '%s\n' "$*" >&2; return 1; }

command -v aarch64-linux-gnu-gcc >/dev/null ||
  { missing "no C compiler for aarch64: install gcc-aarch64-linux-gnu and libc6-dev-arm64-cross"; return 1; }

if [[ -n ${EXCON_AARCH64_TOOLCHAIN:-} ]]; then
  [[ -x $EXCON_AARCH64_TOOLCHAIN/bin/rustc && -d $EXCON_AARCH64_TOOLCHAIN/lib/rustlib/aarch64-unknown-linux-gnu ]] ||
    { missing "EXCON_AARCH64_TOOLCHAIN: $EXCON_AARCH64_TOOLCHAIN holds no bin/rustc with a library for aarch64"; return 1; }
  export RUSTC=$EXCON_AARCH64_TOOLCHAIN/bin/rustc RUSTDOC=$EXCON_AARCH64_TOOLCHAIN/bin/rustdoc
else
  # Unset RUSTC: rustup's compiler is the one whose library rustup has.
  unset RUSTC RUSTDOC
  [[ -d $(rustc --print sysroot)/lib/rustlib/aarch64-unknown-linux-gnu/lib ]] ||
    timeout 300 rustup target add aarch64-unknown-linux-gnu >&2 ||
    { missing "no Rust for aarch64: neither rustup has it nor does EXCON_AARCH64_TOOLCHAIN name a folder; on Debian" \
        "boards/debian-toolchain.sh makes one"; return 1; }
fi

export CC_aarch64_unknown_linux_gnu=aarch64-linux-gnu-gcc
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc
