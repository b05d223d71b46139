//! Composed multi-scale crops: SupCon on views that are, with a set probability, several random crops side by side.
//!
//! Each cell of a composed view is a crop with a scale and mirror image of its own, so that one view shows the picture
//! at several scales at once (`[compose]`). Source: Random Crop and Mix of CLIC (arXiv 2408.03230), which uses it without
//! labels to learn image complexity; here it serves classification by SupCon. Unknown, and therefore ours: the grid, the
//! scales, the probability, and whether both views are composed; only the abstract was read. Cost: SupCon's.

use super::supcon::Supcon;
use crate::augment::View;
use crate::config::{ComposeConfig, TrainConfig};

/// SupCon on composed views.
pub(super) fn build(config: &TrainConfig) -> Supcon {
    let ComposeConfig { grid, probability } = config.compose;
    Supcon::with_view(config, View::Composed { view: config.views.clone(), grid, probability })
}
