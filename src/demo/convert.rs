//! Act two: the trained network becomes a sealed int8 bundle.

use super::report::Sealed;
use crate::commands::convert::seal;
use crate::failure::Result;
use excon_edge::bundle::{BudgetItem, Bundle};
use excon_train::checkpoint::Run;
use excon_train::dataset::Dataset;
use std::path::Path;

/// What the act leaves.
pub struct Converted {
    /// The sealed file.
    pub file: Sealed,
    /// What it was held to.
    pub budget: Vec<BudgetItem>,
}

/// Converts and seals.
pub fn play(run: &Run, data: &Dataset, out: &Path) -> Result<Converted> {
    seal(run, data, out)?;
    let bundle = Bundle::open(out)?;
    let bytes = std::fs::metadata(out).map_err(|source| excon_edge::Error::Read { path: out.into(), source })?.len();
    let file = Sealed { file: out.into(), digest: bundle.digest, bytes, model_bytes: bundle.model.len() };
    Ok(Converted { file, budget: bundle.manifest.budget })
}
