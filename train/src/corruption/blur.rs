//! Blurs: Gaussian filter, glass, movement, disk kernel, mean of zooms. Borders and rounding are those of the libraries the benchmark was
//! made with.

use super::apply::Field;

/// Side of the disk kernel, pixels.
pub(super) const DISK: usize = 17;

/// How a Gaussian filter ends: where it is cut off, in sigmas, and what it finds outside the picture.
#[derive(Clone, Copy)]
pub(super) struct Tails {
    truncate: f64,
    outside: fn(isize, isize) -> isize,
}

/// Cut off at 4 sigma, the border pixel repeated outside: scikit-image's filter as it comes.
pub(super) const SKIMAGE: Tails = Tails { truncate: 4.0, outside: |i, length| i.clamp(0, length - 1) };
/// Cut off at 3 sigma, mirrored with the border pixel: the one of the elastic displacements.
pub(super) const ELASTIC: Tails = Tails { truncate: 3.0, outside: mirror_with_edge };

/// Gaussian filter.
pub(super) fn gaussian(field: &mut Field, tails: Tails, sigma: f64) {
    let radius = (tails.truncate * sigma + 0.5) as isize;
    let weights: Vec<f64> = (-radius..=radius).map(|i| (-0.5 * (i * i) as f64 / (sigma * sigma)).exp()).collect();
    let sum: f64 = weights.iter().sum();
    let (width, height, channels) = (field.width as isize, field.height as isize, field.channels);
    for (dx, dy) in [(0, 1), (1, 0)] {
        let source = &field.values;
        let mut out = Vec::with_capacity(source.len());
        for y in 0..height {
            for x in 0..width {
                for c in 0..channels {
                    let tap = |(i, w): (isize, &f64)| {
                        let (x, y) = ((tails.outside)(x + dx * i, width), (tails.outside)(y + dy * i, height));
                        w / sum * source[(y * width + x) as usize * channels + c]
                    };
                    out.push((-radius..=radius).zip(&weights).map(tap).sum());
                }
            }
        }
        field.values = out;
    }
}

/// Frosted glass: the filter, then from the lower right corner each pixel becomes a copy of one near it, `passes` times,
/// then the filter again. `shift` draws where from, columns and rows in `-reach..reach`. (The published code swaps, but
/// through views of one array, so that the second half of each swap changes nothing.)
pub(super) fn glass(
    field: &mut Field,
    sigma: f64,
    reach: isize,
    passes: usize,
    shift: &mut dyn FnMut() -> (isize, isize),
) {
    gaussian(field, SKIMAGE, sigma);
    // Bytes in between, truncated.
    field.values.iter_mut().for_each(|v| *v = (*v * 255.0).floor() / 255.0);
    let (width, height) = (field.width as isize, field.height as isize);
    for _ in 0..passes {
        for y in (reach + 1..=height - reach).rev() {
            for x in (reach + 1..=width - reach).rev() {
                let (dx, dy) = shift();
                let from = (((y + dy) * width + x + dx) * 3) as usize;
                field.values.copy_within(from..from + 3, ((y * width + x) * 3) as usize);
            }
        }
    }
    gaussian(field, SKIMAGE, sigma);
}

/// ImageMagick's motion blur of interleaved bytes: weights of a Gaussian of `sigma` at 0, 1, … `2 · radius` steps along
/// the direction, each step rounded to a pixel, the border pixel repeated outside.
pub(super) fn motion(bytes: &[u8], size: (usize, usize), radius: f64, sigma: f64, angle: f64) -> Vec<u8> {
    let channels = bytes.len() / (size.0 * size.1);
    let (width, height) = (size.0 as isize, size.1 as isize);
    let weight = |i: usize| (-0.5 * (i * i) as f64 / (sigma * sigma)).exp();
    let taps = 2 * radius.ceil() as usize + 1;
    let sum: f64 = (0..taps).map(weight).sum();
    let (sine, cosine) = angle.to_radians().sin_cos();
    let steps: Vec<(isize, isize, f64)> = (0..taps)
        .map(|i| {
            let step = |along: f64| (i as f64 * along - 0.5).ceil() as isize;
            (step(cosine), step(sine), weight(i) / sum)
        })
        .collect();
    let mut out = Vec::with_capacity(bytes.len());
    for y in 0..height {
        for x in 0..width {
            for c in 0..channels {
                let tap = |(dx, dy, weight): &(isize, isize, f64)| {
                    let (x, y) = ((x + dx).clamp(0, width - 1), (y + dy).clamp(0, height - 1));
                    weight * f64::from(bytes[(y * width + x) as usize * channels + c])
                };
                out.push((steps.iter().map(tap).sum::<f64>() + 0.5) as u8);
            }
        }
    }
    out
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

/// Index of the mirrored sample, the border pixel once: … 2 1 0 1 2 … n−2 n−1 n−2 …
pub(super) fn mirror(index: isize, length: isize) -> isize {
    if length == 1 {
        return 0;
    }
    let period = 2 * (length - 1);
    let index = index.rem_euclid(period);
    index.min(period - index)
}

/// Index of the mirrored sample, the border pixel twice: … 1 0 0 1 2 … n−1 n−1 n−2 …
pub(super) fn mirror_with_edge(index: isize, length: isize) -> isize {
    let index = index.rem_euclid(2 * length);
    index.min(2 * length - 1 - index)
}

/// Mean of the picture and its centre zooms by 1, 1.01, 1.02, …
pub(super) fn zoom(field: &mut Field, zooms: usize) {
    let mut sum = field.values.clone();
    for step in 0..zooms {
        let zoomed = zoomed(field, 1.0 + 0.01 * step as f64);
        sum.iter_mut().zip(zoomed).for_each(|(sum, value)| *sum += value);
    }
    field.values = sum.into_iter().map(|value| value / (zooms + 1) as f64).collect();
}

/// The centre of a field, enlarged by `factor` (at least 1) to the field's size.
pub(super) fn zoomed(field: &Field, factor: f64) -> Vec<f64> {
    let rows = zoomed_samples(field.height, factor);
    let columns = zoomed_samples(field.width, factor);
    let channels = field.channels;
    let mut out = Vec::with_capacity(field.values.len());
    for &(top, down) in &rows {
        for &(left, right) in &columns {
            for c in 0..channels {
                let at = |x: usize, y: usize| {
                    let (x, y) = (x.min(field.width - 1), y.min(field.height - 1));
                    field.values[(y * field.width + x) * channels + c]
                };
                let upper = at(left, top) * (1.0 - right) + at(left + 1, top) * right;
                let lower = at(left, top + 1) * (1.0 - right) + at(left + 1, top + 1) * right;
                out.push(upper * (1.0 - down) + lower * down);
            }
        }
    }
    out
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
