//! The instruction sets behind [`Dot`](super::dot::Dot), a file per register width.

#[cfg(target_arch = "aarch64")]
mod neon;
mod portable;
#[cfg(target_arch = "x86_64")]
mod x86_256;
#[cfg(target_arch = "x86_64")]
mod x86_512;

#[cfg(target_arch = "aarch64")]
pub(super) use neon::{Neon, NeonDot, NeonI8mm};
pub(super) use portable::Portable;
#[cfg(target_arch = "x86_64")]
pub(super) use x86_256::{Avx2, AvxVnni};
#[cfg(target_arch = "x86_64")]
pub(super) use x86_512::Avx512Vnni;
