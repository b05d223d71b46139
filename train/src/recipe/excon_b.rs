//! ExConB: ExCon whose failing masked pictures become background samples, in both views, without a fresh crop.
//!
//! `background = "negatives"`, the published command: they stand in every anchor's denominator and are neither anchors
//! nor positives. `background = "class"`: they are a class of their own. Source: the released code of arXiv 2111.14271.
//! Unknown: that its flag `negative_pair` is what the paper calls ExConB is deduced, not read. Cost: ExCon's, and 6
//! units more for each failing picture.

use super::excon::Excon;
use crate::config::TrainConfig;
use crate::dataset::Dataset;
use crate::loss::Background;
use crate::{Error, Result};

/// ExCon with the background on.
///
/// # Errors
/// When the background is off, which would be ExCon, or the mask rule is out of range.
pub(super) fn build(config: &TrainConfig, data: &Dataset) -> Result<Excon> {
    if config.background == Background::Off {
        let reason = "`off` is the recipe `excon`; `excon-b` takes `negatives` or `class`".into();
        return Err(Error::Setting { name: "background".into(), reason });
    }
    Excon::new(config, data)
}
