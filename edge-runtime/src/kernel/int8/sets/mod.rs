//! The instruction sets behind [`Dot`](super::dot::Dot), a file per register width. The NEON sets will join here.

mod portable;
#[cfg(target_arch = "x86_64")]
mod x86_256;
#[cfg(target_arch = "x86_64")]
mod x86_512;

pub(super) use portable::Portable;
#[cfg(target_arch = "x86_64")]
pub(super) use x86_256::{Avx2, AvxVnni};
#[cfg(target_arch = "x86_64")]
pub(super) use x86_512::Avx512Vnni;
