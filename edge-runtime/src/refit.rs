//! Constants that a board has fitted for an engine of its own, kept beside the bundle and never in it.
//!
//! `NAME.fitted.json` beside `NAME.excon`, or beside a slot's folder, names the manifest and the engine it belongs to by
//! their digests, and is used by nobody else: after an update of the bundle or a new build of the engine the sealed
//! constants count again, and the status says on which engine those were fitted.

use crate::accuracy::AccuracyModel;
use crate::bundle::{Bundle, Calibration, ShiftContract};
use crate::engine::Engine;
use crate::fit::{self, FitOptions, Fitted, Pictures};
use crate::predictor::Predictor;
use crate::probability::Conformal;
use crate::shift::{Reference, Tensors, from_bytes, to_bytes};
use crate::{Error, Result, file};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::{Deserialize, Serialize};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const SCHEMA: &str = "excon.fitted/2";
/// Far above any reference.
const LARGEST: u64 = 256 << 20;

/// See the module's first paragraph.
#[derive(Debug, Clone, PartialEq)]
pub struct Refit {
    /// Digest of the manifest.
    pub bundle: String,
    /// Digest of the engine.
    pub engine: String,
    /// Temperature and prediction sets.
    pub calibration: Calibration,
    /// What is promised.
    pub shift: ShiftContract,
    /// Scores of healthy pictures.
    pub reference: Reference,
    /// What accuracy is estimated with, where the pictures were enough.
    pub accuracy: Option<AccuracyModel>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    schema: String,
    bundle: String,
    engine: String,
    calibration: Calibration,
    shift: ShiftContract,
    /// Tensors as safetensors in base64: JSON would not keep every bit of a number.
    reference: String,
    #[serde(default)]
    accuracy: Option<String>,
}

/// Where the constants of a bundle at `path` are kept.
pub fn beside(path: &Path) -> PathBuf {
    path.with_extension("fitted.json")
}

impl Refit {
    /// Fits the constants on an engine, from the pictures that the bundle carries. None when it carries none. `digest`
    /// names the engine.
    ///
    /// # Errors
    /// As [`fit::fit`].
    pub fn fit(bundle: &Bundle, engine: Arc<dyn Engine>, digest: &str) -> Result<Option<Self>> {
        let Some(set) = &bundle.calibration else { return Ok(None) };
        let (manifest, defaults) = (&bundle.manifest, FitOptions::default());
        let options = FitOptions {
            sets: manifest.calibration.conformal.as_ref().map_or(defaults.sets, Conformal::options),
            risk: manifest.calibration.abstention.as_ref().map(|a| a.risk),
            mean_time_between_false_alarms: manifest.shift.mean_time_between_false_alarms,
            masked_every: manifest.shift.masked_every,
            independent: manifest.shift.independent,
        };
        let parts = Predictor::new(bundle, engine)?.into_parts();
        let (fit, rank) = set.halves();
        let Fitted { reference, accuracy, calibration, shift, .. } =
            fit::fit(parts, Pictures { train: None, fit, rank }, &options)?;
        Ok(Some(Self { bundle: bundle.digest.clone(), engine: digest.into(), calibration, shift, reference, accuracy }))
    }

    /// Puts the constants into an opened bundle, in place of the sealed ones.
    pub fn apply(&self, bundle: &mut Bundle) {
        bundle.manifest.calibration = self.calibration.clone();
        bundle.manifest.shift = self.shift.clone();
        bundle.reference = self.reference.clone();
        // Thresholds on another engine's confidence are not this one's.
        bundle.accuracy = self.accuracy.clone();
    }

    /// Reads what was fitted to a bundle on an engine; none when nothing was, or it was to another of the two.
    ///
    /// # Errors
    /// [`Error::Data`] when the file is damaged.
    pub fn read(path: &Path, bundle: &str, engine: &str) -> Result<Option<Self>> {
        let Ok(file) = std::fs::File::open(path) else { return Ok(None) };
        let mut text = String::new();
        file.take(LARGEST).read_to_string(&mut text).map_err(|source| Error::Read { path: path.into(), source })?;
        let refit = Self::parse(&text).map_err(|reason| Error::Data {
            what: "constants of an engine",
            reason: format!("{} is damaged ({reason}). Fit them anew: excon-edge tensorrt build", path.display()),
        })?;
        Ok(Some(refit).filter(|r| r.bundle == bundle && r.engine == engine))
    }

    fn parse(text: &str) -> std::result::Result<Self, String> {
        let stored: Stored = serde_json::from_str(text).map_err(|e| e.to_string())?;
        if stored.schema != SCHEMA {
            return Err(format!("its schema is not {SCHEMA}"));
        }
        let tensors = |text: &String| -> std::result::Result<Tensors, String> {
            let bytes = BASE64_STANDARD.decode(text).map_err(|e| e.to_string())?;
            from_bytes(&bytes).map_err(|e| e.to_string())
        };
        let reference = Reference::from_tensors(&tensors(&stored.reference)?).map_err(|e| e.to_string())?;
        let accuracy = stored.accuracy.as_ref().map(tensors).transpose()?.unwrap_or_default();
        let accuracy = AccuracyModel::from_tensors(&accuracy).map_err(|e| e.to_string())?;
        let Stored { bundle, engine, calibration, shift, .. } = stored;
        if shift.mean_time_between_false_alarms.is_nan() || shift.mean_time_between_false_alarms <= 1.0 {
            return Err("the promise is out of range".into());
        }
        Ok(Self { bundle, engine, calibration, shift, reference, accuracy })
    }

    /// Writes it, see [`file::replace`].
    ///
    /// # Errors
    /// [`Error::Write`].
    pub fn write(&self, path: &Path) -> Result<()> {
        let text = |tensors| to_bytes(&tensors).map(|bytes| BASE64_STANDARD.encode(bytes));
        let stored = Stored {
            schema: SCHEMA.into(),
            bundle: self.bundle.clone(),
            engine: self.engine.clone(),
            calibration: self.calibration.clone(),
            shift: self.shift.clone(),
            reference: text(self.reference.to_tensors())?,
            accuracy: self.accuracy.as_ref().map(|a| text(a.to_tensors())).transpose()?,
        };
        let failed = |e: serde_json::Error| Error::Write { path: path.into(), source: e.into() };
        let mut bytes = serde_json::to_vec_pretty(&stored).map_err(failed)?;
        bytes.push(b'\n');
        file::replace(path, &bytes)
    }
}

#[cfg(all(test, feature = "tract"))]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::tiny;

    #[test]
    fn constants_come_back_for_their_bundle_and_engine_alone() {
        let folder = tempfile::tempdir().unwrap();
        let sealed = folder.path().join("tiny.excon");
        let mut bundle = tiny::writer(true, 60).seal(&sealed).unwrap();
        let path = beside(&sealed);
        assert_eq!(path, folder.path().join("tiny.fitted.json"));
        let Bundle { manifest, reference, digest, .. } = bundle.clone();
        let accuracy = Some(crate::accuracy::tests::model());
        let calibration = Calibration { temperature: 0.1 + 0.2, engine: "other".into(), ..manifest.calibration };
        let refit = Refit {
            bundle: digest.clone(),
            engine: "e".into(),
            calibration,
            shift: manifest.shift,
            reference,
            accuracy,
        };
        assert_eq!(Refit::read(&path, &digest, "e").unwrap(), None);
        refit.write(&path).unwrap();
        let read = Refit::read(&path, &digest, "e").unwrap().unwrap();
        assert_eq!((&read, read.reference.digest()), (&refit, bundle.reference.digest()));
        assert_eq!(Refit::read(&path, &digest, "f").unwrap(), None);
        assert_eq!(Refit::read(&path, "another", "e").unwrap(), None);
        read.apply(&mut bundle);
        assert_eq!(bundle.manifest.calibration.engine, "other");

        let text = std::fs::read_to_string(&path).unwrap();
        for damaged in [text[..text.len() / 2].to_string(), text.replace("excon.fitted/2", "excon.fitted/1")] {
            std::fs::write(&path, damaged).unwrap();
            assert!(Refit::read(&path, &digest, "e").unwrap_err().to_string().contains("is damaged"));
        }
    }
}
