//! The training methods by name, one line each: what a person chooses from.

use serde::{Deserialize, Serialize};

/// A training method. What each does, where it comes from and what is unknown about it stands in its file below
/// [`crate::recipe`]; `docs/recipes.md` has them in one table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RecipeName {
    /// Cross entropy on one random crop.
    CrossEntropy,
    /// Supervised contrastive learning on two random crops.
    Supcon,
    /// SupCon for half of the epochs, then the classifier alone.
    SupconTwoStage,
    /// ExCon: view 1 is the picture masked by its explanation, where the network still recognises it.
    Excon,
    /// ExConB: ExCon with unrecognised masked pictures as background.
    ExconB,
    /// View 1 is the whole picture, unmasked.
    Control,
    /// LeOCLR: whole picture as query, crops as keys of a momentum encoder, no labels.
    Leoclr,
    /// Whole picture and two crops in one SupCon loss.
    LeoclrSupervised,
    /// Cross entropy also on pictures occluded by their explanation.
    EddaStyle,
    /// SupCon fading into class-balanced cross entropy.
    Hybrid,
    /// SupCon on pictures whose background is exchanged for another's.
    BackgroundMixup,
    /// SupCon on views composed of several crops.
    CropAndMix,
    /// SupCon and binary cross entropy for sets of labels.
    MultiLabel,
    /// SupCon whose second view is a positive from `pairs.csv`.
    Pairs,
}

impl RecipeName {
    /// Every name, in the order of presentation.
    pub const ALL: [Self; 14] = [
        Self::CrossEntropy,
        Self::Supcon,
        Self::SupconTwoStage,
        Self::Excon,
        Self::ExconB,
        Self::Control,
        Self::Leoclr,
        Self::LeoclrSupervised,
        Self::EddaStyle,
        Self::Hybrid,
        Self::BackgroundMixup,
        Self::CropAndMix,
        Self::MultiLabel,
        Self::Pairs,
    ];

    /// The name as commands and files write it.
    pub fn as_str(self) -> &'static str {
        self.words().0
    }

    /// The method in one line.
    pub fn about(self) -> &'static str {
        self.words().1
    }

    fn words(self) -> (&'static str, &'static str) {
        match self {
            Self::CrossEntropy => ("cross-entropy", "cross entropy on one random crop"),
            Self::Supcon => ("supcon", "supervised contrastive learning on two random crops"),
            Self::SupconTwoStage => ("supcon-two-stage", "supcon for half of the epochs, then the classifier alone"),
            Self::Excon => ("excon", "view 1 masked by the picture's explanation, where still recognised"),
            Self::ExconB => ("excon-b", "excon with unrecognised masked pictures as background"),
            Self::Control => ("control", "view 1 whole and unmasked: what the mask is compared with"),
            Self::Leoclr => ("leoclr", "no labels: whole picture as query, crops as keys, a queue"),
            Self::LeoclrSupervised => ("leoclr-supervised", "supcon on the whole picture and two crops"),
            Self::EddaStyle => ("edda-style", "cross entropy also on pictures occluded by their explanation"),
            Self::Hybrid => ("hybrid", "supcon fading into class-balanced cross entropy (long tails)"),
            Self::BackgroundMixup => ("background-mixup", "supcon with backgrounds exchanged where saliency is low"),
            Self::CropAndMix => ("crop-and-mix", "supcon on views composed of crops of several scales"),
            Self::MultiLabel => ("multi-label", "supcon and binary cross entropy for sets of labels (labels.csv)"),
            Self::Pairs => ("pairs", "supcon with positives made by any generator (pairs.csv)"),
        }
    }

    /// Whether the classifier learns in the encoder's own step: always, never, or as the setting `joint` says.
    pub fn joint(self) -> Option<bool> {
        match self {
            Self::CrossEntropy | Self::EddaStyle | Self::Hybrid | Self::MultiLabel => Some(true),
            Self::SupconTwoStage | Self::Leoclr => Some(false),
            _ => None,
        }
    }

    /// Whether pictures are explained while it trains, so that whose explanation is meant belongs to its full name.
    pub fn explains(self) -> bool {
        matches!(self, Self::Excon | Self::ExconB | Self::EddaStyle | Self::BackgroundMixup)
    }
}
