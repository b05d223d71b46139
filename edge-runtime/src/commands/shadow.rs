//! The running model and a new one on the same labelled pictures, before an install: the board's half of a statistical
//! commit.

use super::output;
use excon_edge::bundle::Bundle;
use excon_edge::image;
use excon_edge::predictor::Predictor;
use excon_edge::shadow::{Comparison, Verdict};
use excon_edge::{Error, Result};
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};

/// Probability with which a model worse by the margin may be promoted.
const LEVEL: f64 = 0.01;

/// Compares two models on class folders, until the answer is clear or the pictures end.
///
/// # Errors
/// When the folder cannot be read or holds no pictures of the models' classes, or when an engine fails.
pub fn compare(
    new: (&Bundle, &Predictor),
    running: (&Bundle, &Predictor),
    folder: &Path,
    margin: f64,
) -> Result<Comparison> {
    let mut comparison = Comparison::new(margin, LEVEL)?;
    let mut unreadable = 0;
    for (label, path) in pictures(folder, [new.0, running.0])? {
        let picture = match image::read(&path) {
            Ok(picture) => picture,
            Err(error) => {
                unreadable += 1;
                output::trouble(&error);
                continue;
            }
        };
        let right = |predictor: &Predictor| predictor.predict(&picture).map(|p| p.label == label);
        if comparison.observe(right(new.1)?, right(running.1)?) != Verdict::Open {
            break;
        }
    }
    let Comparison { pictures, new_only, running_only, .. } = comparison;
    output::note(format_args!(
        "shadow: on {pictures} pictures only the new model was right {new_only} times, only the running one {running_only} \
         times; {unreadable} unreadable"
    ));
    Ok(comparison)
}

/// The pictures of the classes that both models have, in the order of a digest of their names: one that has nothing to
/// do with classes or time.
fn pictures(folder: &Path, bundles: [&Bundle; 2]) -> Result<Vec<(String, PathBuf)>> {
    let mut found = Vec::new();
    for label in &bundles[0].manifest.labels {
        let place = folder.join(label);
        if !bundles[1].manifest.labels.contains(label) || !place.is_dir() {
            continue;
        }
        let failed = |source| Error::Read { path: place.clone(), source };
        for entry in std::fs::read_dir(&place).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            let extension = path.extension().map(|e| e.to_string_lossy().to_ascii_lowercase());
            if matches!(extension.as_deref(), Some("jpg" | "jpeg" | "png")) {
                let name = path.strip_prefix(folder).unwrap_or(&path).display().to_string();
                found.push((Sha256::digest(name.as_bytes()).to_vec(), label.clone(), path));
            }
        }
    }
    if found.is_empty() {
        let reason =
            format!("{} has no folder of pictures that is named after a class of both models", folder.display());
        return Err(Error::Data { what: "shadow", reason });
    }
    found.sort();
    Ok(found.into_iter().map(|(_, label, path)| (label, path)).collect())
}
