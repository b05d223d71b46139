//! What a model is made for, and which numeric form that asks for.

use crate::quantize::Codes;
use crate::{Error, Result};
use excon_edge::engine::tensorrt;
use serde::{Deserialize, Serialize};

/// What a model is converted for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Target {
    /// Any CPU: the int8 kernels, or tract.
    #[serde(rename = "cpu")]
    Cpu,
    /// TensorRT on a graphics unit that computes with 8-bit integers.
    #[serde(rename = "tensorrt")]
    TensorRt,
    /// TensorRT in 16-bit float, for graphics units without: the Jetson Nano's and the TX2's. The file itself stays float.
    #[serde(rename = "tensorrt-fp16")]
    TensorRtHalf,
}

impl Target {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Cpu, Self::TensorRt, Self::TensorRtHalf];

    /// Name as in manifests and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::TensorRt => tensorrt::NAME,
            Self::TensorRtHalf => tensorrt::HALF_TARGET,
        }
    }

    /// What is written when `asked` was asked for. Only for a CPU does this machine's speed say anything.
    pub(crate) fn choice(self, asked: Choice) -> Result<Choice> {
        match (self, asked) {
            (Self::TensorRtHalf, Choice::Int8 | Choice::Mixed) => {
                let reason =
                    "a graphics unit without 8-bit integers cannot run int8 or mixed; use `float`, or another target";
                Err(Error::Setting { name: "precision".into(), reason: reason.into() })
            }
            (Self::TensorRtHalf, _) => Ok(Choice::Float),
            (Self::TensorRt, Choice::Auto) => Ok(Choice::Int8),
            (_, asked) => Ok(asked),
        }
    }

    /// How its engine lets codes be used.
    pub fn codes(self) -> Codes {
        match self {
            Self::Cpu => Codes::Full,
            Self::TensorRt | Self::TensorRtHalf => Codes::Symmetric,
        }
    }

    /// Whether the engine that will run exists only on the board, so that constants have to be fitted there again.
    pub(crate) fn is_built_on_board(self) -> bool {
        self != Self::Cpu
    }
}

impl std::str::FromStr for Target {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        let found = Self::ALL.into_iter().find(|target| target.name() == name);
        let reason = || format!("{name:?} is not known; use `cpu`, `tensorrt` or `tensorrt-fp16`");
        found.ok_or_else(|| Error::Setting { name: "target".into(), reason: reason() })
    }
}

/// Which numeric form is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Choice {
    /// Int8 where it is faster than float on this machine and loses no more than allowed; else, where it is faster, int8 with
    /// the layers in float that break the budget; else float. The report says why.
    Auto,
    /// Int8, whatever it costs.
    Int8,
    /// Int8, with the layers in float that break the budget, whatever that costs.
    Mixed,
    /// Float.
    Float,
}
