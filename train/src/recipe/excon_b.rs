//! ExConB: ExCon whose failing masked pictures become background samples, in both views, without a fresh crop.

use super::{Contrast, Excon};
use crate::config::TrainConfig;
use crate::loss::Background;
use crate::{Error, Result};

/// ExCon with the background on.
///
/// # Errors
/// When the background is off, which would be ExCon, or the mask rule is out of range.
pub(super) fn build(config: &TrainConfig, contrast: Contrast, black: [f32; 3]) -> Result<Excon> {
    if config.background == Background::Off {
        let reason = "`off` is the recipe `excon`; `excon-b` takes `negatives` or `class`".into();
        return Err(Error::Setting { name: "background".into(), reason });
    }
    Excon::new(config, contrast, black)
}
