//! Common corruptions of photographs at five severities, as CIFAR-10-C and Tiny-ImageNet-C define them (Hendrycks and
//! Dietterich, 2019): the benchmark's fifteen, its four held-out ones, and darkness. Computed anew in f64: call results
//! "regenerated". Deterministic given the generator. [`Published`] reads the authors' own files instead.
//!
//! The filters are those of the libraries the benchmark was made with (scikit-image, OpenCV, ImageMagick, Pillow) and
//! are held to vectors from them. What differs by more than its random draws says so: [`Corruption::approximation`].

mod apply;
mod blur;
mod light;
mod noise;
mod published;
mod quality;
mod splash;
#[cfg(test)]
mod tests;
mod warp;
mod weather;

pub use published::Published;

use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// A corruption. Pictures up to 32 pixels a side get the parameters of CIFAR-C, larger ones those of Tiny-ImageNet-C.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Corruption {
    /// Normal noise on every value.
    GaussianNoise,
    /// Poisson noise: a sensor that counts few photons.
    ShotNoise,
    /// Salt and pepper, on each channel by itself.
    ImpulseNoise,
    /// A lens out of focus: mean over a disk.
    DefocusBlur,
    /// Frosted glass: neighbouring pixels copied over each other between two Gaussian filters.
    GlassBlur,
    /// A camera that moves: one-sided Gaussian along a random direction.
    MotionBlur,
    /// Mean over growing zooms.
    ZoomBlur,
    /// Bright streaks of falling snow over a paler picture.
    Snow,
    /// Ice on the lens, from procedural crystals instead of the benchmark's photographs.
    FrostLike,
    /// Plasma fog.
    Fog,
    /// More HSV value.
    Brightness,
    /// Less contrast around the mean of each channel.
    Contrast,
    /// Random affine map and, from severity 2, smooth displacements.
    ElasticTransform,
    /// Reduced and enlarged again, in blocks.
    Pixelate,
    /// Saved as JPEG of low quality.
    JpegCompression,
    /// Normal noise in proportion to the value.
    SpeckleNoise,
    /// Gaussian filter.
    GaussianBlur,
    /// Drops of water on the lens, then splashes of mud.
    Spatter,
    /// Changed HSV saturation: less, then more.
    Saturate,
    /// Less HSV value, by the constants of brightness; not part of the benchmark.
    Dark,
}

/// What kind of corruption it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Group {
    /// Noise of the sensor.
    Noise,
    /// Blur of lens, glass and movement.
    Blur,
    /// Weather and light.
    Weather,
    /// What processing does to a picture.
    Digital,
    /// The benchmark's four extras, meant for validation.
    HeldOut,
    /// Not part of the benchmark.
    Ours,
}

impl Group {
    /// Whether it is one of the four groups of the benchmark's fifteen corruptions, over which means are taken.
    pub fn in_benchmark(self) -> bool {
        self < Self::HeldOut
    }

    /// Name for people.
    pub fn words(self) -> &'static str {
        match self {
            Self::Noise => "noise",
            Self::Blur => "blur",
            Self::Weather => "weather",
            Self::Digital => "digital",
            Self::HeldOut => "held out",
            Self::Ours => "ours",
        }
    }
}

impl Corruption {
    /// All corruptions, group by group, in the benchmark's order.
    pub const ALL: [Self; 20] = [
        Self::GaussianNoise,
        Self::ShotNoise,
        Self::ImpulseNoise,
        Self::DefocusBlur,
        Self::GlassBlur,
        Self::MotionBlur,
        Self::ZoomBlur,
        Self::Snow,
        Self::FrostLike,
        Self::Fog,
        Self::Brightness,
        Self::Contrast,
        Self::ElasticTransform,
        Self::Pixelate,
        Self::JpegCompression,
        Self::SpeckleNoise,
        Self::GaussianBlur,
        Self::Spatter,
        Self::Saturate,
        Self::Dark,
    ];

    /// Name, such as `gaussian_noise`: the benchmark's own, but for `frost_like`, which is only like it, and `dark`.
    pub fn name(self) -> &'static str {
        match self {
            Self::GaussianNoise => "gaussian_noise",
            Self::ShotNoise => "shot_noise",
            Self::ImpulseNoise => "impulse_noise",
            Self::DefocusBlur => "defocus_blur",
            Self::GlassBlur => "glass_blur",
            Self::MotionBlur => "motion_blur",
            Self::ZoomBlur => "zoom_blur",
            Self::Snow => "snow",
            Self::FrostLike => "frost_like",
            Self::Fog => "fog",
            Self::Brightness => "brightness",
            Self::Contrast => "contrast",
            Self::ElasticTransform => "elastic_transform",
            Self::Pixelate => "pixelate",
            Self::JpegCompression => "jpeg_compression",
            Self::SpeckleNoise => "speckle_noise",
            Self::GaussianBlur => "gaussian_blur",
            Self::Spatter => "spatter",
            Self::Saturate => "saturate",
            Self::Dark => "dark",
        }
    }

    /// The benchmark's name, which its published files bear; none for what it does not have.
    pub fn benchmark_name(self) -> Option<&'static str> {
        match self {
            Self::FrostLike => Some("frost"),
            Self::Dark => None,
            other => Some(other.name()),
        }
    }

    /// Its group.
    pub fn group(self) -> Group {
        match self {
            Self::GaussianNoise | Self::ShotNoise | Self::ImpulseNoise => Group::Noise,
            Self::DefocusBlur | Self::GlassBlur | Self::MotionBlur | Self::ZoomBlur => Group::Blur,
            Self::Snow | Self::FrostLike | Self::Fog | Self::Brightness => Group::Weather,
            Self::Contrast | Self::ElasticTransform | Self::Pixelate | Self::JpegCompression => Group::Digital,
            Self::SpeckleNoise | Self::GaussianBlur | Self::Spatter | Self::Saturate => Group::HeldOut,
            Self::Dark => Group::Ours,
        }
    }

    /// How it differs from the benchmark's definition by more than the random draws and the last level of a byte.
    pub fn approximation(self) -> Option<&'static str> {
        match self {
            Self::FrostLike => Some("procedural crystals in place of the benchmark's photographs of frost"),
            Self::JpegCompression => Some("another JPEG encoder: up to 16 levels, 1.5 on average"),
            Self::Dark => Some("not part of the benchmark"),
            _ => None,
        }
    }
}

impl fmt::Display for Corruption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Corruption {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|corruption| corruption.name() == name).ok_or_else(|| {
            let near = Self::ALL.into_iter().min_by_key(|c| strsim::levenshtein(c.name(), name));
            let near = near.map(Self::name).unwrap_or_default();
            Error::Setting { name: "corruption".into(), reason: format!("there is no {name}; the nearest is {near}") }
        })
    }
}
