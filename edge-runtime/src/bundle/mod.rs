//! The bundle `NAME.excon`: everything a board needs, in one reproducible, verified file, or the same members in a
//! folder.
//!
//! [`Bundle::open`] promises that what it returns is exactly what a [`Writer`] sealed: every byte is covered by a
//! digest, sizes are bounded before anything is read, no name leads outside, and the tensors have the shapes the
//! manifest says. Digests guard against damage and mix-ups; who sealed a bundle is a question for a signature.

mod archive;
mod manifest;
mod members;
mod tensors;
mod writer;

#[cfg(test)]
mod tests;

pub use manifest::*;
pub use members::{CALIBRATION, GOLDEN, HEAD_BIAS, HEAD_WEIGHT, MODEL, REFERENCE};
pub use members::{CalibrationSet, Golden, ProjectionHead};
pub use tensors::{Data, Tensor, Tensors, decode, encode};
pub use writer::Writer;

use crate::saliency::LinearHead;
use crate::shift::{Contract, Reference, ScoreModel};
use crate::{Error, Result};
use archive::{Members, Refusal};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

/// Name of the manifest.
pub const MANIFEST: &str = "manifest.json";
/// Name of the manifest's digest, one line as `sha256sum` writes it.
pub const MANIFEST_DIGEST: &str = "manifest.json.sha256";
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
        let path = path.as_ref();
        let members = if path.is_dir() { read_folder(path) } else { read_file(path) };
        let members = members.map_err(|refusal| match refusal {
            Refusal::System(source) => Error::Read { path: path.into(), source },
            Refusal::Content(reason) => Error::Bundle { path: path.into(), reason },
        })?;
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
        let Members { manifest_bytes, manifest, mut files } = members;
        let mut take = |name: &str| files.remove(name).ok_or_else(|| format!("{name} is missing"));
        let tensors = |name: &str, bytes: Vec<u8>| decode(&bytes).map_err(|e| format!("{name}: {e}"));
        let model = take(MODEL)?;
        let heads = tensors(REFERENCE, take(REFERENCE)?)?;
        let golden = tensors(GOLDEN, take(GOLDEN)?)?;
        let golden = Golden::from_tensors(&golden, &manifest).map_err(|e| format!("{GOLDEN}: {e}"))?;
        let within = |reason: String| format!("{REFERENCE}: {reason}");
        let head = members::linear_head(&heads, &manifest).map_err(within)?;
        let projection = ProjectionHead::from_tensors(&heads, manifest.network.features[0]).map_err(within)?;
        let (scores, reference) = members::shift(&heads, &manifest).map_err(within)?;
        let calibration = match files.remove(CALIBRATION) {
            Some(bytes) => {
                let set = CalibrationSet::from_tensors(&tensors(CALIBRATION, bytes)?, &manifest);
                Some(set.map_err(|e| format!("{CALIBRATION}: {e}"))?)
            }
            None => None,
        };
        let digest = hex_digest(&manifest_bytes);
        Ok(Self {
            path: path.into(),
            digest,
            manifest,
            model,
            head,
            projection,
            scores,
            reference,
            golden,
            calibration,
        })
    }
}

fn read_file(path: &Path) -> std::result::Result<Members, Refusal> {
    let file = File::open(path)?;
    let about = file.metadata()?;
    if !about.is_file() {
        return Err(Refusal::Content("it is neither a file nor a folder".into()));
    }
    // Headers and padding of a handful of members fit in the second term.
    if about.len() > MAX_TOTAL + 2 * MAX_MANIFEST {
        return Err(Refusal::Content(format!("{} bytes are more than a bundle may have", about.len())));
    }
    archive::read(&mut BufReader::with_capacity(1 << 16, file), about.len())
}

/// The same members in a folder. Anything else in it, and anything that is no plain file, is refused.
fn read_folder(path: &Path) -> std::result::Result<Members, Refusal> {
    let plain = |name: &str, limit: u64| -> std::result::Result<Vec<u8>, Refusal> {
        let place = path.join(name);
        let missing = |e: std::io::Error| match e.kind() {
            std::io::ErrorKind::NotFound => Refusal::Content(format!("{name} is missing")),
            _ => Refusal::System(e),
        };
        let about = fs::symlink_metadata(&place).map_err(missing)?;
        if !about.is_file() || about.len() > limit {
            return Err(Refusal::Content(format!("{name} is no plain file or larger than declared")));
        }
        let mut bytes = Vec::new();
        File::open(&place).map_err(missing)?.take(limit + 1).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let manifest_bytes = plain(MANIFEST, MAX_MANIFEST)?;
    let manifest = archive::parse_manifest(&manifest_bytes, &plain(MANIFEST_DIGEST, 256)?)?;
    for entry in fs::read_dir(path)? {
        let name = entry?.file_name();
        let known = |n: &str| n == MANIFEST || n == MANIFEST_DIGEST || manifest.files.contains_key(n);
        if !name.to_str().is_some_and(known) {
            return Err(Refusal::Content(format!("{} is not in the manifest", name.to_string_lossy())));
        }
    }
    let mut files = BTreeMap::new();
    for (name, entry) in &manifest.files {
        let bytes = plain(name, entry.size)?;
        archive::verify(name, &bytes, entry)?;
        files.insert(name.clone(), bytes);
    }
    Ok(Members { manifest_bytes, manifest, files })
}

/// SHA-256 as lower-case hex.
fn hex_digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect()
}
