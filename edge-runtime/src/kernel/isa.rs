//! Which instruction set the kernels use: detected once, overridden by `EXCON_ISA`, never one the processor lacks.

#[cfg(target_arch = "aarch64")]
use super::vector::Neon;
#[cfg(target_arch = "x86_64")]
use super::vector::{Avx2, Avx512};
use super::vector::{Portable, Vector};
use crate::{Error, Result};
#[cfg(target_arch = "aarch64")]
use std::arch::is_aarch64_feature_detected;
use std::sync::OnceLock;

/// An instruction set that kernels are instantiated for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Isa {
    /// Plain arrays; correct on every processor.
    Portable,
    /// AVX2 with FMA: eight lanes.
    Avx2,
    /// AVX2 and dot products of bytes (AVX-VNNI); float kernels are those of AVX2.
    AvxVnni,
    /// AVX-512F: sixteen lanes; int8 kernels are those of AVX2.
    Avx512,
    /// AVX-512 and dot products of bytes (AVX512-VNNI); float kernels are those of AVX-512.
    Avx512Vnni,
    /// ARM's NEON, which every 64-bit ARM processor has.
    Neon,
    /// NEON and dot products of bytes (FEAT_DotProd); float kernels are those of NEON.
    NeonDot,
    /// NEON and products of matrices of bytes (FEAT_I8MM); float kernels are those of NEON.
    NeonI8mm,
}

impl Isa {
    /// All sets, narrowest first within an architecture.
    pub const ALL: [Self; 8] = [
        Self::Portable,
        Self::Avx2,
        Self::AvxVnni,
        Self::Avx512,
        Self::Avx512Vnni,
        Self::Neon,
        Self::NeonDot,
        Self::NeonI8mm,
    ];

    /// The name that `EXCON_ISA` takes.
    pub fn name(self) -> &'static str {
        match self {
            Self::Portable => "portable",
            Self::Avx2 => "avx2",
            Self::AvxVnni => "avxvnni",
            Self::Avx512 => "avx512",
            Self::Avx512Vnni => "avx512vnni",
            Self::Neon => "neon",
            Self::NeonDot => "neondot",
            Self::NeonI8mm => "neoni8mm",
        }
    }

    /// Whether this processor (and operating system) can run the set.
    pub fn is_available(self) -> bool {
        match self {
            Self::Portable => true,
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma"),
            #[cfg(target_arch = "x86_64")]
            Self::AvxVnni => Self::Avx2.is_available() && is_x86_feature_detected!("avxvnni"),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => Self::Avx2.is_available() && is_x86_feature_detected!("avx512f"),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512Vnni => {
                Self::Avx512.is_available()
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512vnni")
            }
            #[cfg(not(target_arch = "x86_64"))]
            Self::Avx2 | Self::AvxVnni | Self::Avx512 | Self::Avx512Vnni => false,
            #[cfg(target_arch = "aarch64")]
            Self::Neon => true,
            #[cfg(target_arch = "aarch64")]
            Self::NeonDot => is_aarch64_feature_detected!("dotprod"),
            #[cfg(target_arch = "aarch64")]
            Self::NeonI8mm => Self::NeonDot.is_available() && is_aarch64_feature_detected!("i8mm"),
            #[cfg(not(target_arch = "aarch64"))]
            Self::Neon | Self::NeonDot | Self::NeonI8mm => false,
        }
    }

    /// The sets this processor can run, narrowest first.
    pub fn available() -> impl Iterator<Item = Self> {
        Self::ALL.into_iter().filter(|isa| isa.is_available())
    }

    /// The widest set this processor can run.
    pub fn widest() -> Self {
        Self::available().last().unwrap_or(Self::Portable)
    }

    /// Lanes of its [`Vector`].
    pub fn lanes(self) -> usize {
        struct Lanes;
        impl Kernel for Lanes {
            type Output = usize;
            #[inline(always)]
            unsafe fn run<V: Vector>(self) -> usize {
                V::LANES
            }
        }
        dispatch(self, Lanes)
    }

    /// Reads a set's name.
    ///
    /// # Errors
    /// When the name is unknown or the processor lacks the set.
    pub fn parse(name: &str) -> Result<Self> {
        let fail = |reason| Err(Error::Data { what: "EXCON_ISA", reason });
        match Self::ALL.into_iter().find(|isa| isa.name() == name.trim()) {
            Some(isa) if isa.is_available() => Ok(isa),
            Some(isa) => fail(format!(
                "this processor has no {}; the widest it has is {}. Unset the variable or name that one",
                isa.name(),
                Self::widest().name()
            )),
            None => {
                let names = Self::ALL.map(Self::name).join(", ");
                fail(format!("{name:?} is not one of {names}. Unset the variable or name one"))
            }
        }
    }
}

fn selection() -> &'static (Isa, Option<String>) {
    static SELECTION: OnceLock<(Isa, Option<String>)> = OnceLock::new();
    SELECTION.get_or_init(|| match std::env::var("EXCON_ISA") {
        Err(_) => (Isa::widest(), None),
        Ok(name) => match Isa::parse(&name) {
            Ok(isa) => (isa, None),
            Err(error) => (Isa::widest(), Some(format!("{error}; {} is used", Isa::widest().name()))),
        },
    })
}

/// The set in use: `EXCON_ISA` where that names an available one, else the widest. Fixed at the first call.
pub fn active() -> Isa {
    selection().0
}

/// Why `EXCON_ISA` was not followed, if it was not: for a command's diagnostics.
pub fn note() -> Option<&'static str> {
    selection().1.as_deref()
}

/// A computation written once over vectors.
pub trait Kernel {
    /// What it returns.
    type Output;

    /// Runs it with vectors `V`. Mark implementations `#[inline(always)]`: only inlined into [`dispatch`]'s functions
    /// is the code compiled for the instruction set.
    ///
    /// # Safety
    /// The processor must have the instruction set of `V`; [`dispatch`] sees to that.
    unsafe fn run<V: Vector>(self) -> Self::Output;
}

/// Runs a kernel with an instruction set, or with [`Isa::Portable`] where the processor lacks that one.
#[inline]
pub fn dispatch<K: Kernel>(isa: Isa, kernel: K) -> K::Output {
    match isa {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the sets were just detected.
        Isa::Avx512 | Isa::Avx512Vnni if isa.is_available() => unsafe { run_avx512(kernel) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the set was just detected.
        Isa::Avx2 | Isa::AvxVnni if isa.is_available() => unsafe { run_avx2(kernel) },
        #[cfg(target_arch = "aarch64")]
        // SAFETY: the compiler's target has NEON.
        Isa::Neon | Isa::NeonDot | Isa::NeonI8mm => unsafe { kernel.run::<Neon>() },
        // SAFETY: plain arrays need nothing of the processor.
        _ => unsafe { kernel.run::<Portable>() },
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn run_avx2<K: Kernel>(kernel: K) -> K::Output {
    // SAFETY: this function's features are those of the vectors.
    unsafe { kernel.run::<Avx2>() }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx2,fma")]
fn run_avx512<K: Kernel>(kernel: K) -> K::Output {
    // SAFETY: this function's features are those of the vectors.
    unsafe { kernel.run::<Avx512>() }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn names_are_read_and_unknown_ones_refused_with_the_choice() {
        assert_eq!(Isa::parse("portable").unwrap(), Isa::Portable);
        let error = Isa::parse("sse9").unwrap_err().to_string();
        assert!(error.contains("portable, avx2, avxvnni"), "{error}");
        for isa in Isa::ALL {
            assert_eq!(Isa::parse(isa.name()).is_ok(), isa.is_available());
        }
    }

    /// Also how a test run for one set makes sure that it is that one which runs.
    #[test]
    fn the_active_set_is_available_and_the_one_asked_for() {
        assert!(active().is_available());
        if let Ok(name) = std::env::var("EXCON_ISA") {
            assert_eq!(active().name(), name.trim());
        }
        assert!(Isa::available().any(|isa| isa == Isa::Portable));
    }
}
