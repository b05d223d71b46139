//! Adversarial pictures, white box: FGSM and PGD under the largest-difference norm, with the true label, against
//! encoder and classifier in eval mode.
//!
//! Pictures are in 0..1 before normalisation and are not rounded to bytes. FGSM: clip(x + ε · sign ∇loss, 0, 1). PGD:
//! from clip(x + noise, 0, 1), each step adds `step` · sign ∇loss, is projected into x ± ε and clipped to 0..1. The sign
//! of the gradient is the same before and after normalisation, and sign(0) = 0.

use super::{BATCH, Measured};
use crate::dataset::Split;
use crate::recipe::{Purpose, stream};
use crate::{Error, Result};
use candle_core::{Device, Tensor};
use excon_edge::engine::Engine;
use excon_edge::image::Preprocess;
use excon_edge::probability::Scaling;
use rand::RngExt;
use serde::{Deserialize, Serialize};

/// A way to attack. Lengths are fractions of the range of a pixel: 4/255 is four levels of a byte.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "method")]
pub enum Attack {
    /// One step along the sign of the gradient.
    Fgsm {
        /// Largest change of a value.
        epsilon: f64,
    },
    /// Several, from a random start.
    Pgd {
        /// Largest change of a value.
        epsilon: f64,
        /// Change in one step.
        step: f64,
        /// Steps.
        steps: usize,
    },
}

impl Attack {
    /// The measured ones: FGSM with 1, 2, 4 and 8 levels, PGD with 20 steps of 2 levels within 8.
    pub const ALL: [Self; 5] = [
        Self::Fgsm { epsilon: 1.0 / 255.0 },
        Self::Fgsm { epsilon: 2.0 / 255.0 },
        Self::Fgsm { epsilon: 4.0 / 255.0 },
        Self::Fgsm { epsilon: 8.0 / 255.0 },
        Self::Pgd { epsilon: 8.0 / 255.0, step: 2.0 / 255.0, steps: 20 },
    ];

    /// Such as `FGSM 4/255` and `PGD-20 8/255`.
    pub fn name(&self) -> String {
        let levels = |epsilon: f64| format!("{:.0}/255", epsilon * 255.0);
        match *self {
            Self::Fgsm { epsilon } => format!("FGSM {}", levels(epsilon)),
            Self::Pgd { epsilon, steps, .. } => format!("PGD-{steps} {}", levels(epsilon)),
        }
    }
}

/// What a network is worth on attacked pictures.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Attacked {
    /// Name for people.
    pub name: String,
    /// The attack.
    pub attack: Attack,
    /// Accuracy and calibration, with intervals, before and after scaling.
    #[serde(flatten)]
    pub measured: Measured,
}

/// A network that an attacker sees into, in eval mode, on normalised pictures N × H × W × 3.
pub trait WhiteBox: Engine {
    /// N × classes.
    ///
    /// # Errors
    /// When the network cannot run.
    fn logits(&self, x: &Tensor) -> Result<Tensor>;
    /// Gradient of the sum of the pictures' cross entropies with respect to `x`, of its shape.
    ///
    /// # Errors
    /// When the network cannot run, or a label is none of its classes.
    fn gradient(&self, x: &Tensor, labels: &[usize]) -> Result<Tensor>;
}

/// A network behind its normalisation: what an attacker sees.
pub(crate) struct Target<'a> {
    network: &'a dyn WhiteBox,
    mean: Tensor,
    std: Tensor,
}

impl<'a> Target<'a> {
    pub(crate) fn new(network: &'a dyn WhiteBox, mean: &[f32; 3], std: &[f32; 3]) -> Result<Self> {
        let (mean, std) = (Tensor::new(mean, &Device::Cpu)?, Tensor::new(std, &Device::Cpu)?);
        Ok(Self { network, mean, std })
    }

    fn normalised(&self, pixels: &Tensor) -> Result<Tensor> {
        Ok(pixels.broadcast_sub(&self.mean)?.broadcast_div(&self.std)?)
    }

    /// Logits of pictures in 0..1, N × H × W × 3.
    pub(crate) fn logits(&self, pixels: &Tensor) -> Result<Tensor> {
        self.network.logits(&self.normalised(pixels)?)
    }

    /// Gradient of the sum of the pictures' cross entropies with respect to the pictures.
    pub(crate) fn gradient(&self, pixels: &Tensor, labels: &[usize]) -> Result<Tensor> {
        // Normalisation divides by the deviation.
        Ok(self.network.gradient(&self.normalised(pixels)?, labels)?.broadcast_div(&self.std)?)
    }

    /// Pictures moved by `step` along the sign of the gradient, not yet clipped.
    fn moved(&self, pixels: &Tensor, labels: &[usize], step: f64) -> Result<Tensor> {
        Ok((pixels + (self.gradient(pixels, labels)?.sign()? * step)?)?)
    }

    pub(crate) fn fgsm(&self, pixels: &Tensor, labels: &[usize], epsilon: f64) -> Result<Tensor> {
        Ok(self.moved(pixels, labels, epsilon)?.clamp(0f32, 1f32)?)
    }

    /// PGD from clip(pixels + noise, 0, 1); `seen` is given the pictures before the first and after every step.
    pub(crate) fn pgd(
        &self,
        pixels: &Tensor,
        labels: &[usize],
        noise: &Tensor,
        (epsilon, step, steps): (f64, f64, usize),
        seen: &mut dyn FnMut(&Tensor) -> Result<()>,
    ) -> Result<Tensor> {
        let (low, high) = ((pixels - epsilon)?, (pixels + epsilon)?);
        let mut x = (pixels + noise)?.clamp(0f32, 1f32)?;
        seen(&x)?;
        for _ in 0..steps {
            x = self.moved(&x, labels, step)?.maximum(&low)?.minimum(&high)?.clamp(0f32, 1f32)?;
            seen(&x)?;
        }
        Ok(x)
    }
}

/// Measures `network` on the attacked pictures of a split, which must have the size of `preprocess`. `scaling` gives
/// the probabilities; PGD's start is keyed by `seed` and the picture.
///
/// # Errors
/// When the split is empty, of another size or of other classes, or a tensor operation fails.
pub fn attacked(
    network: &dyn WhiteBox,
    split: &Split,
    preprocess: &Preprocess,
    scaling: &Scaling,
    attack: Attack,
    seed: u64,
) -> Result<Attacked> {
    let classes = network.shapes().classes;
    if split.is_empty() || split.size != preprocess.size || split.labels.iter().any(|&l| l >= classes) {
        let reason = format!("{} pictures of side {} do not suit the network", split.len(), split.size);
        return Err(Error::Setting { name: "data".into(), reason });
    }
    let target = Target::new(network, &preprocess.mean, &preprocess.std)?;
    let mut logits: Vec<f32> = Vec::with_capacity(split.len() * classes);
    for indices in (0..split.len()).collect::<Vec<_>>().chunks(BATCH) {
        let labels: Vec<usize> = indices.iter().map(|&i| split.labels[i]).collect();
        let values: Vec<f32> =
            indices.iter().flat_map(|&i| split.picture(i)).map(|&byte| f32::from(byte) / 255.0).collect();
        let shape = (indices.len(), split.size, split.size, 3);
        let pixels = Tensor::from_vec(values, shape, &Device::Cpu)?;
        let hostile = match attack {
            Attack::Fgsm { epsilon } => target.fgsm(&pixels, &labels, epsilon)?,
            Attack::Pgd { epsilon, step, steps } => {
                let noise = noise(indices, split.size, epsilon, seed);
                let noise = Tensor::from_vec(noise, shape, &Device::Cpu)?;
                target.pgd(&pixels, &labels, &noise, (epsilon, step, steps), &mut |_| Ok(()))?
            }
        };
        logits.extend(target.logits(&hostile)?.flatten_all()?.to_vec1::<f32>()?);
    }
    let measured = Measured::of(&logits, classes, &split.labels, scaling)?;
    Ok(Attacked { name: attack.name(), attack, measured })
}

/// Uniform in ±ε, the same for a picture whatever batch it is in.
fn noise(indices: &[usize], size: usize, epsilon: f64, seed: u64) -> Vec<f32> {
    let mut noise = Vec::with_capacity(indices.len() * size * size * 3);
    for &index in indices {
        let mut rng = stream(seed, Purpose::Attack, 0, index);
        noise.extend((0..size * size * 3).map(|_| (epsilon * (2.0 * rng.random::<f64>() - 1.0)) as f32));
    }
    noise
}

#[cfg(test)]
mod tests;
