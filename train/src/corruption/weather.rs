//! Snow, and something like frost.

use super::apply::Field;
use super::blur::{motion, zoomed};
use super::light::plasma;
use rand::RngExt;
use rand_chacha::ChaCha8Rng;

/// Constants of snow.
#[derive(Clone, Copy)]
pub(super) struct Snow {
    /// Mean and deviation of the layer of flakes.
    flakes: (f64, f64),
    /// How much larger they are than a pixel.
    zoom: f64,
    /// Fainter ones melt.
    threshold: f64,
    /// Radius and sigma of their fall.
    fall: (f64, f64),
    /// How much of the picture's own colour stays.
    colour: f64,
}

const fn snow_of(flakes: (f64, f64), zoom: f64, threshold: f64, fall: (f64, f64), colour: f64) -> Snow {
    Snow { flakes, zoom, threshold, fall, colour }
}

pub(super) const SNOW_CIFAR: [Snow; 5] = snows([0.95, 0.9, 0.9, 0.85, 0.8]);
pub(super) const SNOW_TINY_IMAGENET: [Snow; 5] = snows([0.8, 0.8, 0.7, 0.65, 0.6]);

const fn snows(colour: [f64; 5]) -> [Snow; 5] {
    [
        snow_of((0.1, 0.2), 1.0, 0.6, (8.0, 3.0), colour[0]),
        snow_of((0.1, 0.2), 1.0, 0.5, (10.0, 4.0), colour[1]),
        snow_of((0.15, 0.3), 1.75, 0.55, (10.0, 4.0), colour[2]),
        snow_of((0.25, 0.3), 2.25, 0.6, (12.0, 6.0), colour[3]),
        snow_of((0.3, 0.3), 1.25, 0.65, (14.0, 12.0), colour[4]),
    ]
}

/// Lets it snow: flakes from `normal` (a standard normal value a pixel), falling in the direction `angle` (degrees), and
/// the same once more turned by half a turn, over a paler picture.
pub(super) fn snow(field: &mut Field, normal: &[f64], angle: f64, s: Snow) {
    let flakes = field.layer(normal.iter().map(|n| s.flakes.0 + s.flakes.1 * n).collect());
    let bytes: Vec<u8> = zoomed(&flakes, s.zoom)
        .into_iter()
        .map(|v| if v < s.threshold { 0 } else { (v.clamp(0.0, 1.0) * 255.0) as u8 })
        .collect();
    let layer = motion(&bytes, (field.width, field.height), s.fall.0, s.fall.1, angle);
    let last = layer.len().saturating_sub(1);
    for (i, pixel) in field.values.chunks_exact_mut(3).enumerate() {
        let grey = 0.299 * pixel[0] + 0.587 * pixel[1] + 0.114 * pixel[2];
        let snow = (f64::from(layer[i]) + f64::from(layer[last - i])) / 255.0;
        for value in pixel {
            *value = s.colour * *value + (1.0 - s.colour) * value.max(1.5 * grey + 0.5) + snow;
        }
    }
}

/// `keep · x + ice · frost`, as the benchmark blends its photographs of frost; here the frost is made: bright veins where
/// one plasma fractal crosses its middle, in patches of another, on a pale blue ground.
pub(super) fn frost_like(field: &mut Field, keep: f64, ice: f64, rng: &mut ChaCha8Rng) {
    let side = field.width.max(field.height).next_power_of_two();
    let (veins, patches) = (plasma(side, 1.4, rng), plasma(side, 2.5, rng));
    let crisp = 3.0 + 2.0 * rng.random::<f64>();
    for (i, pixel) in field.values.chunks_exact_mut(3).enumerate() {
        let at = i / field.width * side + i % field.width;
        let vein = (1.0 - (2.0 * veins[at] - 1.0).abs()).powf(crisp);
        let depth = 0.35 + 0.65 * vein * (0.4 + 0.6 * patches[at]);
        for (value, tint) in pixel.iter_mut().zip([0.86, 0.94, 1.0]) {
            *value = keep * *value + ice * depth * tint;
        }
    }
}
