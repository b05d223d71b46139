//! Sealing: a manifest and members become one file, reproducibly, written beside its place and renamed into it.

use super::members::{self, CALIBRATION, CalibrationSet, GOLDEN, Golden, ProjectionHead, REFERENCE};
use super::{Bundle, FileEntry, Manifest, Members, Signed, Tensors, encode};
use crate::accuracy::AccuracyModel;
use crate::saliency::LinearHead;
use crate::shift::{Reference, ScoreModel};
use crate::{Error, Result, file};
use std::collections::BTreeMap;
use std::path::Path;

/// Collects the members of a bundle and seals them.
#[derive(Debug, Clone)]
pub struct Writer {
    manifest: Manifest,
    files: BTreeMap<String, Vec<u8>>,
}

impl Writer {
    /// Starts a bundle. The manifest's `files` are filled in when sealing.
    pub fn new(manifest: Manifest) -> Self {
        Self { manifest, files: BTreeMap::new() }
    }

    /// Adds a member by its name, such as [`super::MODEL`]; a second one of the same name replaces it.
    pub fn member(&mut self, name: &str, bytes: Vec<u8>) -> &mut Self {
        self.files.insert(name.into(), bytes);
        self
    }

    /// Adds [`REFERENCE`]: heads, score model, shift reference and, where there is one, the accuracy estimate.
    ///
    /// # Errors
    /// [`Error::Data`] when a tensor's shape does not fit its data.
    pub fn reference(
        &mut self,
        head: &LinearHead,
        projection: Option<&ProjectionHead>,
        scores: &ScoreModel,
        reference: &Reference,
        accuracy: Option<&AccuracyModel>,
    ) -> Result<&mut Self> {
        self.tensors(REFERENCE, &members::reference_tensors(head, projection, scores, reference, accuracy))
    }

    /// Adds [`GOLDEN`]: inputs and the outputs they must give.
    ///
    /// # Errors
    /// [`Error::Data`] when the values do not fit the manifest's shapes.
    pub fn golden(&mut self, golden: &Golden) -> Result<&mut Self> {
        let tensors = golden.to_tensors(&self.manifest);
        self.tensors(GOLDEN, &tensors)
    }

    /// Adds [`CALIBRATION`]: labelled pictures for a re-fit on another engine.
    ///
    /// # Errors
    /// [`Error::Data`] when bytes and labels do not fit each other.
    pub fn calibration(&mut self, set: &CalibrationSet) -> Result<&mut Self> {
        self.tensors(CALIBRATION, &set.to_tensors())
    }

    pub(super) fn tensors(&mut self, name: &str, tensors: &Tensors) -> Result<&mut Self> {
        let bytes = encode(tensors).map_err(|reason| Error::Data { what: "bundle member", reason })?;
        Ok(self.member(name, bytes))
    }

    /// Seals the bundle at `path` and returns it as a board would open it. What stood there before stays until the
    /// new file is complete and on disk.
    ///
    /// # Errors
    /// [`Error::Bundle`] when [`Bundle::open`] would refuse the result; [`Error::Write`] when it cannot be written.
    pub fn seal(mut self, path: impl AsRef<Path>) -> Result<Bundle> {
        let path = path.as_ref();
        let refuse = |reason: String| Error::Bundle { path: path.into(), reason };
        let entry = |bytes: &Vec<u8>| FileEntry { size: bytes.len() as u64, sha256: file::digest(bytes) };
        self.manifest.files = self.files.iter().map(|(name, bytes)| (name.clone(), entry(bytes))).collect();
        self.manifest.validate().map_err(refuse)?;
        let mut manifest_bytes = serde_json::to_vec_pretty(&self.manifest).map_err(|e| refuse(e.to_string()))?;
        manifest_bytes.push(b'\n');
        if manifest_bytes.len() as u64 > super::MAX_MANIFEST {
            return Err(refuse("its manifest is too large".into()));
        }

        // Taken apart as a board would, so that nothing is ever sealed that cannot be opened.
        let manifest = serde_json::from_slice(&manifest_bytes).map_err(|e| refuse(e.to_string()))?;
        let members =
            Members { manifest_bytes, signature: None, signed: Signed::default(), manifest, files: self.files };
        let bundle = Bundle::assemble(path, members.clone()).map_err(refuse)?;
        members.write(path)?;
        Ok(bundle)
    }
}
