//! Common corruptions of photographs at five severities, as CIFAR-10-C and Tiny-ImageNet-C define them (Hendrycks and
//! Dietterich, 2019), computed anew in f64: call results "CIFAR-C-style". Deterministic given the generator.

mod blur;
mod light;
mod noise;
mod quality;
#[cfg(test)]
mod tests;

use crate::{Error, Result};
use excon_edge::image::Picture;
use rand_chacha::ChaCha8Rng;
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
    /// Normal noise in proportion to the value.
    SpeckleNoise,
    /// A lens out of focus: mean over a disk.
    DefocusBlur,
    /// Gaussian filter.
    GaussianBlur,
    /// Mean over growing zooms.
    ZoomBlur,
    /// Plasma fog.
    Fog,
    /// More HSV value.
    Brightness,
    /// Less HSV value, by the constants of brightness; not part of the benchmark.
    Dark,
    /// Less contrast around the mean of each channel.
    Contrast,
    /// Changed HSV saturation: less, then more.
    Saturate,
    /// Reduced and enlarged again, in blocks.
    Pixelate,
    /// Saved as JPEG of low quality.
    JpegCompression,
}

impl Corruption {
    /// All corruptions.
    pub const ALL: [Self; 14] = [
        Self::GaussianNoise,
        Self::ShotNoise,
        Self::ImpulseNoise,
        Self::SpeckleNoise,
        Self::DefocusBlur,
        Self::GaussianBlur,
        Self::ZoomBlur,
        Self::Fog,
        Self::Brightness,
        Self::Dark,
        Self::Contrast,
        Self::Saturate,
        Self::Pixelate,
        Self::JpegCompression,
    ];

    /// Name as in the benchmark, such as `gaussian_noise`.
    pub fn name(self) -> &'static str {
        match self {
            Self::GaussianNoise => "gaussian_noise",
            Self::ShotNoise => "shot_noise",
            Self::ImpulseNoise => "impulse_noise",
            Self::SpeckleNoise => "speckle_noise",
            Self::DefocusBlur => "defocus_blur",
            Self::GaussianBlur => "gaussian_blur",
            Self::ZoomBlur => "zoom_blur",
            Self::Fog => "fog",
            Self::Brightness => "brightness",
            Self::Dark => "dark",
            Self::Contrast => "contrast",
            Self::Saturate => "saturate",
            Self::Pixelate => "pixelate",
            Self::JpegCompression => "jpeg_compression",
        }
    }

    /// The corrupted picture, of the same size. Severity is 1 (mild) to 5; `rng` is drawn from by the noises and fog only.
    ///
    /// # Errors
    /// [`Error::Setting`] for another severity, or a picture that JPEG cannot hold.
    pub fn apply(self, picture: &Picture, severity: usize, rng: &mut ChaCha8Rng) -> Result<Picture> {
        let level = Level::new(picture, severity)?;
        let rgb = match self {
            Self::Pixelate => {
                quality::pixelate(picture, level.pick([0.95, 0.9, 0.85, 0.75, 0.65], [0.9, 0.8, 0.7, 0.6, 0.5]))
            }
            Self::JpegCompression => quality::jpeg(picture, level.pick([80, 65, 58, 50, 40], [65, 58, 50, 40, 25]))?,
            _ => {
                let values = self.values(picture, level, rng);
                // The benchmark truncates: it does not round.
                values.iter().map(|value| (value.clamp(0.0, 1.0) * 255.0) as u8).collect()
            }
        };
        Ok(Picture { rgb, ..*picture })
    }

    /// The corrupted values in about 0..1, interleaved, before they are clipped and become bytes.
    fn values(self, picture: &Picture, level: Level, rng: &mut ChaCha8Rng) -> Vec<f64> {
        let mut field = Field::of(picture);
        match self {
            Self::GaussianNoise => {
                let strength = level.pick([0.04, 0.06, 0.08, 0.09, 0.10], [0.04, 0.08, 0.12, 0.15, 0.18]);
                noise::gaussian(&mut field.values, strength, rng);
            }
            Self::ShotNoise => {
                let photons = level.pick([500.0, 250.0, 100.0, 75.0, 50.0], [250.0, 100.0, 50.0, 30.0, 15.0]);
                noise::shot(&mut field.values, &picture.rgb, photons, rng);
            }
            Self::ImpulseNoise => {
                let share = level.pick([0.01, 0.02, 0.03, 0.05, 0.07], [0.01, 0.02, 0.05, 0.08, 0.14]);
                noise::impulse(&mut field.values, share, rng);
            }
            Self::SpeckleNoise => {
                let strength = level.pick([0.06, 0.1, 0.12, 0.16, 0.2], [0.15, 0.2, 0.25, 0.3, 0.35]);
                noise::speckle(&mut field.values, strength, rng);
            }
            Self::DefocusBlur => {
                let (radius, sigma) = level.pick(
                    [(0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1.0, 0.2), (1.5, 0.1)],
                    [(0.5, 0.6), (1.0, 0.1), (1.5, 0.1), (2.5, 0.01), (3.0, 0.1)],
                );
                blur::defocus(&mut field, radius, sigma);
            }
            Self::GaussianBlur => {
                blur::gaussian(&mut field, level.pick([0.4, 0.6, 0.7, 0.8, 1.0], [0.5, 0.75, 1.0, 1.25, 1.5]));
            }
            Self::ZoomBlur => {
                let zooms = [7, 12, 16, 21, 26];
                blur::zoom(&mut field, level.pick(zooms, zooms));
            }
            Self::Fog => {
                let (strength, decay) = level.pick(
                    [(0.2, 3.0), (0.5, 3.0), (0.75, 2.5), (1.0, 2.0), (1.5, 1.75)],
                    [(0.4, 3.0), (0.7, 3.0), (1.0, 2.5), (1.5, 2.0), (2.0, 1.75)],
                );
                light::fog(&mut field, strength, decay, rng);
            }
            Self::Brightness => light::brightness(&mut field.values, level.brightness()),
            Self::Dark => light::brightness(&mut field.values, -level.brightness()),
            Self::Contrast => {
                light::contrast(&mut field.values, level.pick([0.75, 0.5, 0.4, 0.3, 0.15], [0.4, 0.3, 0.2, 0.1, 0.05]));
            }
            Self::Saturate => {
                let (factor, shift) = level.pick(
                    [(0.3, 0.0), (0.1, 0.0), (1.5, 0.0), (2.0, 0.1), (2.5, 0.2)],
                    [(0.3, 0.0), (0.1, 0.0), (2.0, 0.0), (5.0, 0.1), (30.0, 0.2)],
                );
                light::saturate(&mut field.values, factor, shift);
            }
            // These two work on bytes.
            Self::Pixelate | Self::JpegCompression => {}
        }
        field.values
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

/// Which column and row of the parameter tables to use.
#[derive(Debug, Clone, Copy)]
struct Level {
    small: bool,
    index: usize,
}

impl Level {
    fn new(picture: &Picture, severity: usize) -> Result<Self> {
        if !(1..=5).contains(&severity) {
            return Err(Error::Setting { name: "severity".into(), reason: format!("it is 1 to 5, not {severity}") });
        }
        Ok(Self { small: picture.width.max(picture.height) <= 32, index: severity - 1 })
    }

    fn pick<T: Copy>(self, cifar: [T; 5], tiny_imagenet: [T; 5]) -> T {
        if self.small { cifar[self.index] } else { tiny_imagenet[self.index] }
    }

    fn brightness(self) -> f64 {
        self.pick([0.05, 0.1, 0.15, 0.2, 0.3], [0.1, 0.2, 0.3, 0.4, 0.5])
    }
}

/// A picture as f64 in 0..1, interleaved.
struct Field {
    width: usize,
    height: usize,
    values: Vec<f64>,
}

impl Field {
    fn of(picture: &Picture) -> Self {
        let values = picture.rgb.iter().map(|byte| f64::from(*byte) / 255.0).collect();
        Self { width: picture.width, height: picture.height, values }
    }
}
