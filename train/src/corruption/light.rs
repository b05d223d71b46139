//! Changes of light and colour: HSV value and saturation, contrast, fog.

use super::apply::Field;
use rand::RngExt;
use rand_chacha::ChaCha8Rng;

/// RGB in 0..1 to hue, saturation, value, each in 0..1.
fn to_hsv([r, g, b]: [f64; 3]) -> [f64; 3] {
    let value = r.max(g).max(b);
    let chroma = value - r.min(g).min(b);
    if chroma == 0.0 {
        return [0.0, 0.0, value];
    }
    let sixths = if value == b {
        4.0 + (r - g) / chroma
    } else if value == g {
        2.0 + (b - r) / chroma
    } else {
        (g - b) / chroma
    };
    [(sixths / 6.0).rem_euclid(1.0), chroma / value, value]
}

fn from_hsv([hue, saturation, value]: [f64; 3]) -> [f64; 3] {
    let sixths = hue * 6.0;
    let fraction = sixths - sixths.floor();
    let p = value * (1.0 - saturation);
    let q = value * (1.0 - fraction * saturation);
    let t = value * (1.0 - (1.0 - fraction) * saturation);
    match sixths.floor() as usize % 6 {
        0 => [value, t, p],
        1 => [q, value, p],
        2 => [p, value, t],
        3 => [p, q, value],
        4 => [t, p, value],
        _ => [value, p, q],
    }
}

fn each_hsv(values: &mut [f64], change: impl Fn([f64; 3]) -> [f64; 3]) {
    for pixel in values.chunks_exact_mut(3) {
        let hsv = change(to_hsv([pixel[0], pixel[1], pixel[2]]));
        pixel.copy_from_slice(&from_hsv(hsv));
    }
}

/// Shifts the HSV value.
pub(super) fn brightness(values: &mut [f64], shift: f64) {
    each_hsv(values, |[h, s, v]| [h, s, (v + shift).clamp(0.0, 1.0)]);
}

/// Scales and shifts the HSV saturation.
pub(super) fn saturate(values: &mut [f64], factor: f64, shift: f64) {
    each_hsv(values, |[h, s, v]| [h, (s * factor + shift).clamp(0.0, 1.0), v]);
}

/// Scales the distance from the channel's mean.
pub(super) fn contrast(values: &mut [f64], factor: f64) {
    let pixels = (values.len() / 3) as f64;
    for c in 0..3 {
        let mean = values.iter().skip(c).step_by(3).sum::<f64>() / pixels;
        for value in values.iter_mut().skip(c).step_by(3) {
            *value = (*value - mean) * factor + mean;
        }
    }
}

/// Adds plasma fog and scales back to the picture's range: `(x + strength · P) · m / (m + strength)`, m = max x.
pub(super) fn fog(field: &mut Field, strength: f64, decay: f64, rng: &mut ChaCha8Rng) {
    let side = field.width.max(field.height).next_power_of_two();
    let plasma = plasma(side, decay, rng);
    let top = field.values.iter().copied().fold(0.0, f64::max);
    for (i, pixel) in field.values.chunks_exact_mut(3).enumerate() {
        let fog = strength * plasma[i / field.width * side + i % field.width];
        for value in pixel {
            *value = (*value + fog) * top / (top + strength);
        }
    }
}

/// Diamond-square fractal on a torus of `side × side` (a power of two), shifted and scaled to 0..1.
///
/// Every new value is the mean of its four neighbours plus `r · U(−r, r)`; the roughness r starts at 100 and is divided by
/// `decay` whenever the step is halved.
pub(super) fn plasma(side: usize, decay: f64, rng: &mut ChaCha8Rng) -> Vec<f64> {
    let mut map = vec![0.0; side * side];
    let (mut step, mut roughness) = (side, 100.0);
    while step >= 2 {
        let half = step / 2;
        let mut fill = |map: &mut [f64], y: usize, x: usize, neighbours: [(usize, usize); 4]| {
            // Offsets are taken from one side back, so that they stay positive.
            let at =
                |(dy, dx): (usize, usize)| map[(y + side + dy - half) % side * side + (x + side + dx - half) % side];
            let mean = neighbours.into_iter().map(at).sum::<f64>() / 4.0;
            map[y * side + x] = mean + roughness * roughness * (2.0 * rng.random::<f64>() - 1.0);
        };
        let (corners, sides) =
            ([(0, 0), (0, step), (step, 0), (step, step)], [(0, half), (step, half), (half, 0), (half, step)]);
        let squares = || (0..side).step_by(step).flat_map(|y| (0..side).step_by(step).map(move |x| (y, x)));
        for (y, x) in squares() {
            fill(&mut map, y + half, x + half, corners);
        }
        for (y, x) in squares() {
            fill(&mut map, y, x + half, sides);
            fill(&mut map, y + half, x, sides);
        }
        step = half;
        roughness /= decay;
    }
    let low = map.iter().copied().fold(f64::INFINITY, f64::min);
    let high = map.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    // One pixel has no range.
    let range = if high > low { high - low } else { 1.0 };
    map.into_iter().map(|value| (value - low) / range).collect()
}
