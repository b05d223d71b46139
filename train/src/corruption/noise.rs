//! Noises, value by value; the caller clips.

use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, Poisson, StandardNormal};

fn normal(rng: &mut ChaCha8Rng) -> f64 {
    StandardNormal.sample(rng)
}

/// So many standard normal values.
pub(super) fn normals(count: usize, rng: &mut ChaCha8Rng) -> Vec<f64> {
    (0..count).map(|_| normal(rng)).collect()
}

/// `x + strength · N`.
pub(super) fn gaussian(values: &mut [f64], strength: f64, rng: &mut ChaCha8Rng) {
    for value in values {
        *value += strength * normal(rng);
    }
}

/// `x + x · strength · N`.
pub(super) fn speckle(values: &mut [f64], strength: f64, rng: &mut ChaCha8Rng) {
    for value in values {
        *value += *value * strength * normal(rng);
    }
}

/// `Poisson(photons · x) / photons`. There are only 256 different rates, one for each of the `bytes` behind `values`.
pub(super) fn shot(values: &mut [f64], bytes: &[u8], photons: f64, rng: &mut ChaCha8Rng) {
    // A rate of zero has no distribution object: it counts nothing.
    let counts: Vec<Option<Poisson<f64>>> =
        (0..256).map(|byte| Poisson::new(photons * f64::from(byte) / 255.0).ok()).collect();
    for (value, byte) in values.iter_mut().zip(bytes) {
        *value = counts[usize::from(*byte)].map_or(0.0, |count| count.sample(rng) / photons);
    }
}

/// A share of the values becomes 0 or 1, with equal chance.
pub(super) fn impulse(values: &mut [f64], share: f64, rng: &mut ChaCha8Rng) {
    for value in values {
        if rng.random::<f64>() < share {
            *value = f64::from(rng.random::<bool>());
        }
    }
}
