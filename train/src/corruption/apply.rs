//! What each corruption does at each severity: the benchmark's constants.

use super::{Corruption, blur, light, noise, quality, splash, warp, weather};
use crate::{Error, Result};
use excon_edge::image::Picture;
use rand::RngExt;
use rand_chacha::ChaCha8Rng;

impl Corruption {
    /// The corrupted picture, of the same size. Severity is 1 (mild) to 5; `rng` is drawn from by all but the
    /// deterministic ones.
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
            Self::MotionBlur => {
                let (radius, sigma) = level.pick(
                    [(6.0, 1.0), (6.0, 1.5), (6.0, 2.0), (8.0, 2.0), (9.0, 2.5)],
                    [(10.0, 1.0), (10.0, 1.5), (10.0, 2.0), (10.0, 2.5), (12.0, 3.0)],
                );
                let angle = rng.random_range(-45.0..45.0);
                blur::motion(&picture.rgb, (picture.width, picture.height), radius, sigma, angle)
            }
            _ => {
                let values = self.values(picture, level, rng);
                // The benchmark truncates: it does not round.
                values.iter().map(|value| (value.clamp(0.0, 1.0) * 255.0) as u8).collect()
            }
        };
        Ok(Picture { rgb, ..*picture })
    }

    /// The corrupted values in about 0..1, interleaved, before they are clipped and become bytes.
    pub(super) fn values(self, picture: &Picture, level: Level, rng: &mut ChaCha8Rng) -> Vec<f64> {
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
                blur::gaussian(
                    &mut field,
                    blur::SKIMAGE,
                    level.pick([0.4, 0.6, 0.7, 0.8, 1.0], [0.5, 0.75, 1.0, 1.25, 1.5]),
                );
            }
            Self::GlassBlur => {
                let (sigma, reach, passes): (f64, i64, usize) = level.pick(
                    [(0.05, 1, 1), (0.25, 1, 1), (0.4, 1, 1), (0.25, 1, 2), (0.4, 1, 2)],
                    [(0.1, 1, 1), (0.5, 1, 1), (0.6, 1, 2), (0.7, 2, 1), (0.9, 2, 2)],
                );
                let draw = |rng: &mut ChaCha8Rng| rng.random_range(-reach..reach) as isize;
                let mut shift = || (draw(rng), draw(rng));
                blur::glass(&mut field, sigma, reach as isize, passes, &mut shift);
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
            Self::Snow => {
                let snow = level.pick(weather::SNOW_CIFAR, weather::SNOW_TINY_IMAGENET);
                let normal = noise::normals(field.width * field.height, rng);
                weather::snow(&mut field, &normal, rng.random_range(-135.0..-45.0), snow);
            }
            Self::FrostLike => {
                let (keep, ice) = level.pick(
                    [(1.0, 0.2), (1.0, 0.3), (0.9, 0.4), (0.85, 0.4), (0.75, 0.45)],
                    [(1.0, 0.3), (0.9, 0.4), (0.8, 0.45), (0.75, 0.5), (0.7, 0.55)],
                );
                weather::frost_like(&mut field, keep, ice, rng);
            }
            Self::ElasticTransform => {
                let (alpha, sigma, affine) = level.pick(
                    [(0.0, 0.0, 0.08), (0.05, 0.2, 0.07), (0.08, 0.06, 0.06), (0.1, 0.04, 0.05), (0.1, 0.03, 0.03)],
                    [(0.0, 0.0, 0.08), (0.05, 0.3, 0.06), (0.1, 0.08, 0.06), (0.1, 0.03, 0.03), (0.16, 0.03, 0.02)],
                );
                // The constants are shares of the side.
                let side = field.width.min(field.height) as f64;
                let mut uniform = || 2.0 * rng.random::<f64>() - 1.0;
                let jitter = std::array::from_fn(|_| std::array::from_fn(|_| affine * side * uniform()));
                warp::affine(&mut field, jitter);
                if alpha > 0.0 {
                    let pixels = field.width * field.height;
                    let [dx, dy] = std::array::from_fn(|_| (0..pixels).map(|_| uniform()).collect::<Vec<f64>>());
                    warp::displace(&mut field, dx, dy, alpha * side, sigma * side);
                }
            }
            Self::Spatter => {
                let splash = level.pick(splash::CIFAR, splash::TINY_IMAGENET);
                let normal = noise::normals(field.width * field.height, rng);
                splash::spatter(&mut field, &normal, splash);
            }
            // These work on bytes.
            Self::Pixelate | Self::JpegCompression | Self::MotionBlur => {}
        }
        field.values
    }
}

/// Which column and row of the parameter tables to use.
#[derive(Debug, Clone, Copy)]
pub(super) struct Level {
    small: bool,
    index: usize,
}

impl Level {
    pub fn new(picture: &Picture, severity: usize) -> Result<Self> {
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

/// A picture as f64 in 0..1, its channels interleaved.
pub(super) struct Field {
    pub width: usize,
    pub height: usize,
    pub channels: usize,
    pub values: Vec<f64>,
}

impl Field {
    pub fn of(picture: &Picture) -> Self {
        let values = picture.rgb.iter().map(|byte| f64::from(*byte) / 255.0).collect();
        Self { width: picture.width, height: picture.height, channels: 3, values }
    }

    /// One channel of the same size.
    pub fn layer(&self, values: Vec<f64>) -> Self {
        Self { width: self.width, height: self.height, channels: 1, values }
    }
}
