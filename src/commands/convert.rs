//! `excon convert`: a run becomes what a board runs.

use crate::failure::Result;
use crate::terminal::Format;
use clap::Args;
use excon_train::checkpoint::Run;
use excon_train::dataset::Dataset;
use std::path::{Path, PathBuf};

/// Converts a run to a sealed bundle or an ONNX file
#[derive(Debug, Args)]
pub struct Convert {
    /// The run folder
    #[arg(value_name = "RUN")]
    run: PathBuf,
}

impl Convert {
    /// Converts.
    pub fn run(&self, _format: Format) -> Result<()> {
        Ok(())
    }
}

pub fn seal(_run: &Run, _data: &Dataset, _out: &Path) -> Result<()> {
    Ok(())
}
