//! The table of channels: what is scored on every frame, its family, its tails and its share of the evidence.
//!
//! Names and order are stable: they stand in bundles, states, reports and metrics. Larger means more unusual for
//! one-sided channels; two-sided channels are signed and bet on both tails, each with half the channel's weight.

use serde::{Deserialize, Serialize};

/// What an alarm says has happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Family {
    /// Confidence and embedding: the network is less sure, or lands elsewhere.
    NetworkUnsure,
    /// Pixel statistics: the pictures themselves are different.
    InputChanged,
    /// Saliency: the explanations no longer hold together.
    ExplanationInconsistent,
}

impl Family {
    /// Every family.
    pub const ALL: [Self; 3] = [Self::NetworkUnsure, Self::InputChanged, Self::ExplanationInconsistent];

    /// Words for people: `network unsure`, `input changed`, `explanation inconsistent`.
    pub fn words(self) -> &'static str {
        match self {
            Self::NetworkUnsure => "network unsure",
            Self::InputChanged => "input changed",
            Self::ExplanationInconsistent => "explanation inconsistent",
        }
    }
}

/// Which tails of a score are unusual.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sides {
    /// Only large values.
    Upper,
    /// Large and small values.
    Both,
}

/// One score of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum Channel {
    /// 1 − calibrated probability of the predicted class.
    Confidence,
    /// Cosine distance of the pooled embedding to its predicted class's mean.
    Cosine,
    /// Mean luma.
    LumaMean,
    /// ln(sd of luma + 1e-3).
    LumaDeviation,
    /// ln(median |Laplacian| + 2e-3).
    LaplacianMedian,
    /// ln(sd of Laplacian + 1e-3).
    LaplacianDeviation,
    /// ln(mean saturation + 1e-2).
    Saturation,
    /// ln(median |2×2 checker difference| + 2e-3).
    CheckerMedian,
    /// ln(sd of Laplacian / (sd of luma + 1e-3) + 1e-3).
    LaplacianRatio,
    /// Mean red − mean blue.
    RedMinusBlue,
    /// Mean luma beyond what the other six statistics predict.
    LumaMeanResidual,
    /// Luma deviation beyond what the other six predict.
    LumaDeviationResidual,
    /// Median |Laplacian| beyond what the other six predict.
    LaplacianMedianResidual,
    /// Laplacian deviation beyond what the other six predict.
    LaplacianDeviationResidual,
    /// Saturation beyond what the other six predict.
    SaturationResidual,
    /// Checker difference beyond what the other six predict.
    CheckerMedianResidual,
    /// Red − blue beyond what the other six predict.
    RedMinusBlueResidual,
    /// Entropy of the predicted class's activation map.
    CamEntropy,
    /// Concentration of the predicted class's activation map.
    CamConcentration,
    /// 1 − cosine of the pooled embeddings of the picture and of its masked copy.
    MaskedCosine,
    /// 1 − cosine of the projected embeddings of the picture and of its masked copy.
    MaskedProjectionCosine,
    /// 1 where the masked copy gets another label, else 0.
    MaskedDisagreement,
    /// How far the frame looks like motion blur of the declared family.
    TowardMotionBlur,
    /// How far the frame looks like snow of the declared family.
    TowardSnow,
    /// How far the frame looks like frost of the declared family.
    TowardFrost,
    /// How far the frame looks like spatter of the declared family.
    TowardSpatter,
    /// How far the frame looks like posterise of the declared family.
    TowardPosterise,
    /// How far the frame looks like solarise of the declared family.
    TowardSolarise,
    /// How far the frame looks like gamma of the declared family.
    TowardGamma,
    /// How far the frame looks like hue of the declared family.
    TowardHue,
    /// How far the frame looks like rotation of the declared family.
    TowardRotation,
    /// How far the frame looks like occlusion of the declared family.
    TowardOcclusion,
    /// How far the frame looks like vignette of the declared family.
    TowardVignette,
    /// How far the frame looks like colour cast of the declared family.
    TowardColourCast,
    /// How far the frame looks like sharpen of the declared family.
    TowardSharpen,
    /// How far the frame looks like banding of the declared family.
    TowardBanding,
    /// The embedding along its first principal axis.
    ProjectionFirst,
    /// The embedding along its second principal axis.
    ProjectionSecond,
    /// The embedding along its third principal axis.
    ProjectionThird,
    /// The embedding along its fourth principal axis.
    ProjectionFourth,
}

impl Channel {
    /// Number of channels.
    pub const COUNT: usize = 40;

    /// Every channel, in stable order; `ALL[c.index()] == c`.
    pub const ALL: [Self; Self::COUNT] = [
        Self::Confidence,
        Self::Cosine,
        Self::LumaMean,
        Self::LumaDeviation,
        Self::LaplacianMedian,
        Self::LaplacianDeviation,
        Self::Saturation,
        Self::CheckerMedian,
        Self::LaplacianRatio,
        Self::RedMinusBlue,
        Self::LumaMeanResidual,
        Self::LumaDeviationResidual,
        Self::LaplacianMedianResidual,
        Self::LaplacianDeviationResidual,
        Self::SaturationResidual,
        Self::CheckerMedianResidual,
        Self::RedMinusBlueResidual,
        Self::CamEntropy,
        Self::CamConcentration,
        Self::MaskedCosine,
        Self::MaskedProjectionCosine,
        Self::MaskedDisagreement,
        Self::TowardMotionBlur,
        Self::TowardSnow,
        Self::TowardFrost,
        Self::TowardSpatter,
        Self::TowardPosterise,
        Self::TowardSolarise,
        Self::TowardGamma,
        Self::TowardHue,
        Self::TowardRotation,
        Self::TowardOcclusion,
        Self::TowardVignette,
        Self::TowardColourCast,
        Self::TowardSharpen,
        Self::TowardBanding,
        Self::ProjectionFirst,
        Self::ProjectionSecond,
        Self::ProjectionThird,
        Self::ProjectionFourth,
    ];

    /// The eight pixel statistics, in the order of [`super::PixelStatistics`].
    pub const PIXELS: [Self; 8] = [
        Self::LumaMean,
        Self::LumaDeviation,
        Self::LaplacianMedian,
        Self::LaplacianDeviation,
        Self::Saturation,
        Self::CheckerMedian,
        Self::LaplacianRatio,
        Self::RedMinusBlue,
    ];

    /// The seven residuals, in the order of the pixel statistics without the ratio.
    pub const RESIDUALS: [Self; 7] = [
        Self::LumaMeanResidual,
        Self::LumaDeviationResidual,
        Self::LaplacianMedianResidual,
        Self::LaplacianDeviationResidual,
        Self::SaturationResidual,
        Self::CheckerMedianResidual,
        Self::RedMinusBlueResidual,
    ];

    /// The learned directions, in the order of [`super::Declared::ALL`].
    pub const TOWARD: [Self; super::Declared::COUNT] = [
        Self::TowardMotionBlur,
        Self::TowardSnow,
        Self::TowardFrost,
        Self::TowardSpatter,
        Self::TowardPosterise,
        Self::TowardSolarise,
        Self::TowardGamma,
        Self::TowardHue,
        Self::TowardRotation,
        Self::TowardOcclusion,
        Self::TowardVignette,
        Self::TowardColourCast,
        Self::TowardSharpen,
        Self::TowardBanding,
    ];

    /// The embedding's leading principal axes, the largest variance first.
    pub const PROJECTIONS: [Self; 4] =
        [Self::ProjectionFirst, Self::ProjectionSecond, Self::ProjectionThird, Self::ProjectionFourth];

    /// Position in [`Channel::ALL`].
    pub fn index(self) -> usize {
        self as usize
    }

    /// Stable name in `snake_case`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Confidence => "confidence",
            Self::Cosine => "cosine",
            Self::LumaMean => "luma_mean",
            Self::LumaDeviation => "luma_deviation",
            Self::LaplacianMedian => "laplacian_median",
            Self::LaplacianDeviation => "laplacian_deviation",
            Self::Saturation => "saturation",
            Self::CheckerMedian => "checker_median",
            Self::LaplacianRatio => "laplacian_ratio",
            Self::RedMinusBlue => "red_minus_blue",
            Self::LumaMeanResidual => "luma_mean_residual",
            Self::LumaDeviationResidual => "luma_deviation_residual",
            Self::LaplacianMedianResidual => "laplacian_median_residual",
            Self::LaplacianDeviationResidual => "laplacian_deviation_residual",
            Self::SaturationResidual => "saturation_residual",
            Self::CheckerMedianResidual => "checker_median_residual",
            Self::RedMinusBlueResidual => "red_minus_blue_residual",
            Self::CamEntropy => "cam_entropy",
            Self::CamConcentration => "cam_concentration",
            Self::MaskedCosine => "masked_cosine",
            Self::MaskedProjectionCosine => "masked_projection_cosine",
            Self::MaskedDisagreement => "masked_disagreement",
            Self::TowardMotionBlur => "toward_motion_blur",
            Self::TowardSnow => "toward_snow",
            Self::TowardFrost => "toward_frost",
            Self::TowardSpatter => "toward_spatter",
            Self::TowardPosterise => "toward_posterise",
            Self::TowardSolarise => "toward_solarise",
            Self::TowardGamma => "toward_gamma",
            Self::TowardHue => "toward_hue",
            Self::TowardRotation => "toward_rotation",
            Self::TowardOcclusion => "toward_occlusion",
            Self::TowardVignette => "toward_vignette",
            Self::TowardColourCast => "toward_colour_cast",
            Self::TowardSharpen => "toward_sharpen",
            Self::TowardBanding => "toward_banding",
            Self::ProjectionFirst => "projection_first",
            Self::ProjectionSecond => "projection_second",
            Self::ProjectionThird => "projection_third",
            Self::ProjectionFourth => "projection_fourth",
        }
    }

    /// What the channel speaks of.
    pub fn family(self) -> Family {
        match self {
            Self::Confidence
            | Self::Cosine
            | Self::ProjectionFirst
            | Self::ProjectionSecond
            | Self::ProjectionThird
            | Self::ProjectionFourth => Family::NetworkUnsure,
            Self::CamEntropy
            | Self::CamConcentration
            | Self::MaskedCosine
            | Self::MaskedProjectionCosine
            | Self::MaskedDisagreement => Family::ExplanationInconsistent,
            _ => Family::InputChanged,
        }
    }

    /// Which tails are unusual. Map statistics may move either way; distances, disagreement and likeness to a declared
    /// shift only grow.
    pub fn sides(self) -> Sides {
        match self {
            _ if Self::TOWARD.contains(&self) => Sides::Upper,
            Self::Confidence
            | Self::Cosine
            | Self::MaskedCosine
            | Self::MaskedProjectionCosine
            | Self::MaskedDisagreement => Sides::Upper,
            _ => Sides::Both,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn table_is_consistent() {
        for (i, channel) in Channel::ALL.into_iter().enumerate() {
            assert_eq!(channel.index(), i);
            assert_eq!(serde_json::to_value(channel).unwrap(), channel.name());
        }
    }
}
