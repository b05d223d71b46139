//! Blurs: Gaussian filter, disk kernel, mean of zooms. Borders and rounding are those of the libraries the benchmark was
//! made with.

use super::Field;

/// Side of the disk kernel, pixels.
pub(super) const DISK: usize = 17;

/// Gaussian filter, cut off at 4 sigma, the border pixel repeated outside.
pub(super) fn gaussian(field: &mut Field, sigma: f64) {
    let radius = (4.0 * sigma + 0.5) as isize;
    let weights: Vec<f64> = (-radius..=radius).map(|i| (-0.5 * (i * i) as f64 / (sigma * sigma)).exp()).collect();
    let sum: f64 = weights.iter().sum();
    let (width, height) = (field.width as isize, field.height as isize);
    for (dx, dy) in [(0, 1), (1, 0)] {
        let source = &field.values;
        let mut out = Vec::with_capacity(source.len());
        for y in 0..height {
            for x in 0..width {
                for c in 0..3 {
                    let tap = |(i, w): (isize, &f64)| {
                        let (x, y) = ((x + dx * i).clamp(0, width - 1), (y + dy * i).clamp(0, height - 1));
                        w / sum * source[((y * width + x) * 3 + c) as usize]
                    };
                    out.push((-radius..=radius).zip(&weights).map(tap).sum());
                }
            }
        }
        field.values = out;
    }
}

/// The disk of the given radius (at most 7) on a 17×17 grid, sum 1, smoothed by a 3×3 Gaussian against jagged edges.
pub(super) fn disk(radius: f64, sigma: f64) -> Vec<f64> {
    let centre = (DISK / 2) as f64;
    let at = |x: usize, y: usize| f64::from((x as f64 - centre).hypot(y as f64 - centre) <= radius);
    let sum: f64 = (0..DISK * DISK).map(|i| at(i % DISK, i / DISK)).sum();
    let side = (-0.5 / (sigma * sigma)).exp();
    let smooth = [side, 1.0, side].map(|w| w / (1.0 + 2.0 * side));
    let mut kernel = vec![0.0; DISK * DISK];
    // The disk ends before the grid's border, so there is no border rule to choose.
    for y in 1..DISK - 1 {
        for x in 1..DISK - 1 {
            let taps = (0..9).map(|t| smooth[t % 3] * smooth[t / 3] * at(x + t % 3 - 1, y + t / 3 - 1));
            kernel[y * DISK + x] = taps.sum::<f64>() / sum;
        }
    }
    kernel
}

/// Filter with the disk kernel; outside, the picture is mirrored without repeating its border.
pub(super) fn defocus(field: &mut Field, radius: f64, sigma: f64) {
    let half = (DISK / 2) as isize;
    let taps: Vec<(isize, isize, f64)> = disk(radius, sigma)
        .into_iter()
        .enumerate()
        .filter(|(_, weight)| *weight != 0.0)
        .map(|(i, weight)| ((i % DISK) as isize - half, (i / DISK) as isize - half, weight))
        .collect();
    let (width, height) = (field.width as isize, field.height as isize);
    let mut out = vec![0.0; field.values.len()];
    for y in 0..height {
        for x in 0..width {
            let to = ((y * width + x) * 3) as usize;
            for &(dx, dy, weight) in &taps {
                let from = ((mirror(y + dy, height) * width + mirror(x + dx, width)) * 3) as usize;
                for c in 0..3 {
                    out[to + c] += weight * field.values[from + c];
                }
            }
        }
    }
    field.values = out;
}

/// Index of the mirrored sample: … 2 1 0 1 2 … n−2 n−1 n−2 …
fn mirror(index: isize, length: isize) -> isize {
    if length == 1 {
        return 0;
    }
    let period = 2 * (length - 1);
    let index = index.rem_euclid(period);
    index.min(period - index)
}

/// Mean of the picture and its centre zooms by 1, 1.01, 1.02, …
pub(super) fn zoom(field: &mut Field, zooms: usize) {
    let mut sum = field.values.clone();
    for step in 0..zooms {
        let factor = 1.0 + 0.01 * step as f64;
        let rows = zoomed_samples(field.height, factor);
        let columns = zoomed_samples(field.width, factor);
        for (y, &(top, down)) in rows.iter().enumerate() {
            for (x, &(left, right)) in columns.iter().enumerate() {
                for c in 0..3 {
                    let at = |x: usize, y: usize| {
                        let (x, y) = (x.min(field.width - 1), y.min(field.height - 1));
                        field.values[(y * field.width + x) * 3 + c]
                    };
                    let upper = at(left, top) * (1.0 - right) + at(left + 1, top) * right;
                    let lower = at(left, top + 1) * (1.0 - right) + at(left + 1, top + 1) * right;
                    sum[(y * field.width + x) * 3 + c] += upper * (1.0 - down) + lower * down;
                }
            }
        }
    }
    field.values = sum.into_iter().map(|value| value / (zooms + 1) as f64).collect();
}

/// For each sample along one axis, the sample before it in the original and how far it lies towards the next one. The
/// central `⌈length / factor⌉` samples are stretched by `factor`, first to first and last to last, then cut centrally.
fn zoomed_samples(length: usize, factor: f64) -> Vec<(usize, f64)> {
    let crop = ((length as f64 / factor).ceil() as usize).min(length);
    let start = (length - crop) / 2;
    let stretched = ((crop as f64 * factor).round_ties_even() as usize).max(length);
    let trim = (stretched - length) / 2;
    let scale = if stretched > 1 { (crop - 1) as f64 / (stretched - 1) as f64 } else { 0.0 };
    (trim..trim + length)
        .map(|i| {
            let place = i as f64 * scale;
            // The last sample is reached from below, never beyond the crop.
            let before = (place as usize).min(crop.saturating_sub(2));
            (start + before, place - before as f64)
        })
        .collect()
}
