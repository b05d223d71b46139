//! The bundle `NAME.excon`: everything a board needs, in one reproducible, verified file, or the same members in a
//! folder.
//!
//! [`Bundle::open`] promises that what it returns is exactly what a [`Writer`] sealed: every byte is covered by a
//! digest, sizes are bounded before anything is read, no name leads outside, and the tensors have the shapes the
//! manifest says. Digests guard against damage and mix-ups; who sealed a bundle is a question for its signature, which
//! [`Bundle::open_trusted`] checks first.

mod archive;
mod manifest;
mod members;
mod sealed;
mod signature;
mod tensors;
mod writer;

#[cfg(all(test, feature = "tract"))]
mod mutation_tests;
#[cfg(all(test, feature = "tract"))]
mod tests;

pub use manifest::*;
pub use members::{CALIBRATION, GOLDEN, HEAD_BIAS, HEAD_WEIGHT, MODEL, REFERENCE};
pub use members::{CalibrationSet, Golden, ProjectionHead};
pub use sealed::Members;
pub use signature::{MAX_SIGNATURE, Signed, Trust};
pub use tensors::{Data, Tensor, Tensors, decode, encode};
pub use writer::Writer;

use crate::accuracy::AccuracyModel;
use crate::saliency::LinearHead;
use crate::shift::{Contract, Reference, ScoreModel};
use crate::{Error, Result, file};
use std::path::{Path, PathBuf};

/// Name of the manifest.
pub const MANIFEST: &str = "manifest.json";
/// Name of the manifest's digest, one line as `sha256sum` writes it.
pub const MANIFEST_DIGEST: &str = "manifest.json.sha256";
/// Name of the manifest's signature.
pub const MANIFEST_SIGNATURE: &str = "manifest.json.minisig";
/// Largest manifest, bytes.
pub const MAX_MANIFEST: u64 = 1 << 20;
/// Largest sum of all members, bytes.
pub const MAX_TOTAL: u64 = 512 << 20;

/// An opened, verified bundle.
#[derive(Debug, Clone, PartialEq)]
pub struct Bundle {
    /// Where it was opened.
    pub path: PathBuf,
    /// SHA-256 of the manifest, lower-case hex: names this bundle, since the manifest names all its members.
    pub digest: String,
    /// Who signed it, as far as that was checked.
    pub signed: Signed,
    /// The manifest.
    pub manifest: Manifest,
    /// The ONNX file.
    pub model: Vec<u8>,
    /// The linear head.
    pub head: LinearHead,
    /// The projection head that training used, when the bundle carries it.
    pub projection: Option<ProjectionHead>,
    /// The fitted part of a frame's scores.
    pub scores: ScoreModel,
    /// What a healthy stream looks like.
    pub reference: Reference,
    /// What accuracy is estimated with; bundles of older programs bring none.
    pub accuracy: Option<AccuracyModel>,
    /// A few inputs and the outputs they must give.
    pub golden: Golden,
    /// Labelled pictures for a re-fit on another engine.
    pub calibration: Option<CalibrationSet>,
}

impl Bundle {
    /// Opens a `.excon` file or a folder with the same members, and verifies all of it.
    ///
    /// # Errors
    /// [`Error::Read`] when the system cannot read it; [`Error::Bundle`] with the offending member or field when
    /// anything in it is not what the manifest declares.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::open_trusted(path, &Trust::anyone())
    }

    /// As [`Bundle::open`], and refuses what no pinned key has signed before anything in it is looked at.
    ///
    /// # Errors
    /// As [`Bundle::open`]; [`Error::Refused`] when it is not signed by a pinned key.
    pub fn open_trusted(path: impl AsRef<Path>, trust: &Trust) -> Result<Self> {
        Self::from_members(path.as_ref(), Members::open(path.as_ref(), trust)?)
    }

    /// Takes verified members apart.
    ///
    /// # Errors
    /// [`Error::Bundle`] when a tensor is not what the manifest declares.
    pub fn from_members(path: &Path, members: Members) -> Result<Self> {
        Self::assemble(path, members).map_err(|reason| Error::Bundle { path: path.into(), reason })
    }

    /// What a monitor of this bundle is held to.
    pub fn contract(&self) -> Contract {
        Contract {
            mean_time_between_false_alarms: self.manifest.shift.mean_time_between_false_alarms,
            masked_every: self.manifest.shift.masked_every,
            ..Contract::default()
        }
    }

    /// Takes verified members apart; the error is a sentence fragment.
    fn assemble(path: &Path, members: Members) -> std::result::Result<Self, String> {
        let Members { manifest_bytes, signed, manifest, mut files, .. } = members;
        let mut take = |name: &str| files.remove(name).ok_or_else(|| format!("{name} is missing"));
        let tensors = |name: &str, bytes: Vec<u8>| decode(&bytes).map_err(|e| format!("{name}: {e}"));
        let model = take(MODEL)?;
        let heads = tensors(REFERENCE, take(REFERENCE)?)?;
        let golden = tensors(GOLDEN, take(GOLDEN)?)?;
        let golden = Golden::from_tensors(&golden, &manifest).map_err(|e| format!("{GOLDEN}: {e}"))?;
        let within = |reason: String| format!("{REFERENCE}: {reason}");
        let head = members::linear_head(&heads, &manifest).map_err(within)?;
        let projection = ProjectionHead::from_tensors(&heads, manifest.network.features[0]).map_err(within)?;
        let (scores, reference, accuracy) = members::shift(&heads, &manifest).map_err(within)?;
        let calibration = match files.remove(CALIBRATION) {
            Some(bytes) => {
                let set = CalibrationSet::from_tensors(&tensors(CALIBRATION, bytes)?, &manifest);
                Some(set.map_err(|e| format!("{CALIBRATION}: {e}"))?)
            }
            None => None,
        };
        let digest = file::digest(&manifest_bytes);
        Ok(Self {
            path: path.into(),
            digest,
            signed,
            manifest,
            model,
            head,
            projection,
            scores,
            reference,
            accuracy,
            golden,
            calibration,
        })
    }
}
