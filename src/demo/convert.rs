//! Act two: the trained network becomes a sealed int8 bundle.

use crate::commands::convert::convert;
use crate::failure::Result;
use excon_convert::{Choice, ConversionReport, Options, Target};
use excon_train::checkpoint::Run;
use excon_train::dataset::Dataset;
use std::path::Path;

/// Exports, quantizes, compares, fits and seals.
pub fn play(run: &Run, data: &Dataset, out: &Path) -> Result<ConversionReport> {
    let mut options = Options::new(out);
    options.name = Some("trashnet".into());
    // The demo shows what int8 costs, also where it would not pay.
    options.precision = Choice::Int8;
    Ok(convert(run, data, Target::Cpu, &options)?.report)
}
