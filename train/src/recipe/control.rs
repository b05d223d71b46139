//! The un-cropped, unmasked control: view 1 is the clean whole picture, view 2 a random view, nothing is explained.
//!
//! ExCon's view 1 differs from SupCon's twice: it is masked, and it is neither cropped nor recoloured. This recipe keeps
//! the second difference alone, so that `excon` against `control` is the mask's effect and `control` against `supcon`
//! the whole picture's. It is `excon` with `view1_unmasked`, the same code. Source: ours, after LeOCLR's whole picture
//! (arXiv 2403.06813). Unknown: nothing is published on it. Cost: SupCon's. What it does not keep is what `excon`'s
//! explainer does to the running statistics in paper mode (`explain.explainer_bn` is the switch for that).

use super::excon::Excon;
use crate::Result;
use crate::config::TrainConfig;
use crate::dataset::Dataset;

/// ExCon without the mask.
///
/// # Errors
/// When the mask rule is out of range.
pub(super) fn build(config: &TrainConfig, data: &Dataset) -> Result<Excon> {
    Excon::new(&TrainConfig { view1_unmasked: true, ..config.clone() }, data)
}
