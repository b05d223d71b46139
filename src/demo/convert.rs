//! Act two: the trained network becomes a sealed int8 bundle.

use crate::commands::convert::convert;
use crate::failure::Result;
use excon_convert::{ConversionReport, Options, Target};
use excon_train::checkpoint::Run;
use excon_train::dataset::Dataset;
use std::path::Path;

/// Exports, quantizes, compares, fits and seals.
pub fn play(run: &Run, data: &Dataset, out: &Path) -> Result<ConversionReport> {
    let mut options = Options::new(out);
    options.name = Some("trashnet".into());
    Ok(convert(run, data, Target::Cpu, &options)?.report)
}
