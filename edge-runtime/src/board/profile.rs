//! A kind of board as data: one TOML file each. Adding a board is adding a file.

use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use std::path::Path;

/// Schema identifier of a profile.
pub const SCHEMA: &str = "excon.profile/1";

/// A kind of board.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// Always `excon.profile/1`.
    pub schema: String,
    /// Name in commands, as its file.
    pub name: String,
    /// Name for people.
    pub title: String,
    /// `aarch64` or `x86_64`.
    pub architecture: String,
    /// System on a chip; empty for generic ones.
    #[serde(default)]
    pub soc: String,
    /// Parts of the device tree's `model`, one of which names this board, lower case.
    #[serde(default)]
    pub model: Vec<String>,
    /// Entries of the device tree's `compatible`, one of which the board has.
    #[serde(default)]
    pub compatible: Vec<String>,
    /// Modules and their memory.
    #[serde(default, rename = "module")]
    pub modules: Vec<Module>,
    /// The graphics unit, where inference can use it.
    pub gpu: Option<Gpu>,
    /// Releases of the vendor's system, oldest first.
    #[serde(default, rename = "release")]
    pub releases: Vec<Release>,
    /// Modes of `nvpmodel`.
    #[serde(default, rename = "power_mode")]
    pub power_modes: Vec<PowerMode>,
    /// Fields that nobody has checked on such a board or in a source: printed with that remark.
    #[serde(default)]
    pub unverified: Vec<String>,
    /// Where the rest was read.
    pub sources: Vec<String>,
}

/// One module of a board.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Module {
    /// Part number, or the vendor's name where there is none.
    pub part: String,
    /// Memory, GB.
    pub memory_gb: u32,
}

/// A graphics unit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Gpu {
    /// CUDA compute capability, such as `8.7`.
    pub compute_capability: String,
    /// Precisions that run faster than 32-bit float: `fp16`, `int8`, `fp8`, `fp4`.
    pub precisions: Vec<String>,
    /// Deep-learning accelerators; the most that a module has.
    pub dla: u32,
}

/// A release of the vendor's system and what it brings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Release {
    /// Its name, such as `JetPack 6.1 - 6.2.3`.
    pub name: String,
    /// First and last version of the board support (L4T), such as `36.4.0`.
    pub l4t: [String; 2],
    /// TensorRT.
    pub tensorrt: String,
    /// CUDA.
    pub cuda: String,
    /// cuDNN.
    pub cudnn: String,
    /// glibc, which decides what runs there.
    pub glibc: String,
}

impl Release {
    /// Whether a version of the board support belongs to it.
    pub fn covers(&self, l4t: &str) -> bool {
        let [first, last] = &self.l4t;
        (version(first)..=version(last)).contains(&version(l4t))
    }
}

/// `36.4.3` as numbers that compare.
pub(super) fn version(text: &str) -> Vec<u32> {
    text.split('.').map(|part| part.parse().unwrap_or(0)).collect()
}

/// A power mode.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PowerMode {
    /// Its name.
    pub name: String,
    /// Budget, W; none where it is not limited.
    pub watts: Option<f64>,
}

impl Profile {
    /// Parses and checks a profile.
    ///
    /// # Errors
    /// [`Error::Data`] with the field.
    pub fn parse(text: &str) -> Result<Self> {
        let refuse = |reason: String| Error::Data { what: "board profile", reason };
        let profile: Self = toml::from_str(text).map_err(|e| refuse(e.to_string()))?;
        profile.validate().map_err(|reason| refuse(format!("{}: {reason}", profile.name)))?;
        Ok(profile)
    }

    /// Reads a profile.
    ///
    /// # Errors
    /// [`Error::Read`], or as [`Profile::parse`].
    pub fn read(path: &Path) -> Result<Self> {
        Self::parse(&std::fs::read_to_string(path).map_err(|source| Error::Read { path: path.into(), source })?)
    }

    /// Whether this field was checked.
    pub fn is_verified(&self, field: &str) -> bool {
        !self.unverified.iter().any(|f| f == field)
    }

    fn validate(&self) -> std::result::Result<(), String> {
        let demand = |holds: bool, reason: &str| if holds { Ok(()) } else { Err(reason.to_string()) };
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        demand(self.schema == SCHEMA, &format!("schema must be {SCHEMA}"))?;
        demand(!self.name.is_empty() && self.name.chars().all(plain), "name must be of a-z, 0-9 and -")?;
        demand(["aarch64", "x86_64"].contains(&self.architecture.as_str()), "architecture must be aarch64 or x86_64")?;
        demand(!self.sources.is_empty(), "sources must say where the facts were read")?;
        demand(self.model.iter().all(|m| *m == m.to_lowercase()), "model must be in lower case")?;
        demand(self.modules.iter().all(|m| m.memory_gb > 0), "module.memory_gb must be positive")?;
        let number = |s: &String| !s.is_empty() && s.split('.').all(|p| p.parse::<u32>().is_ok());
        for r in &self.releases {
            let all = [&r.l4t[0], &r.l4t[1], &r.tensorrt, &r.cuda, &r.cudnn, &r.glibc];
            demand(all.into_iter().all(number), &format!("release {}: versions must be numbers with dots", r.name))?;
            demand(version(&r.l4t[0]) <= version(&r.l4t[1]), &format!("release {}: l4t runs backwards", r.name))?;
        }
        let ordered = self.releases.is_sorted_by_key(|r| version(&r.l4t[0]));
        demand(ordered, "release must be in order of l4t")?;
        if let Some(gpu) = &self.gpu {
            let known = ["fp16", "int8", "fp8", "fp4"];
            demand(number(&gpu.compute_capability), "gpu.compute_capability must be such as 8.7")?;
            demand(gpu.precisions.iter().all(|p| known.contains(&p.as_str())), "gpu.precisions has an unknown one")?;
        }
        demand(self.power_modes.iter().all(|m| m.watts.is_none_or(|w| w > 0.0)), "power_mode.watts must be positive")?;
        let fields = ["soc", "module", "gpu.compute_capability", "gpu.precisions", "gpu.dla", "release", "power_mode"];
        let known = |f: &String| fields.contains(&f.as_str()) || f == "model" || f == "compatible";
        match self.unverified.iter().find(|f| !known(f)) {
            Some(field) => Err(format!("unverified: `{field}` is no field of a profile")),
            None => Ok(()),
        }
    }
}
