//! Antialiased bilinear resampling: a triangle filter whose support grows with the reduction, horizontal pass first.
//!
//! The byte form rounds to 8 bits between the passes and uses 22-bit fixed-point weights, so that it reproduces Pillow's
//! `BILINEAR` (the de facto reference of training pipelines) to the level; the float form keeps full precision, as
//! torchvision does on float tensors. Both compute a window of the result only, which makes centre crops cheap.

use super::Picture;

/// Bits after the point of a weight in the byte form: 32 − 8 of the sample − 2 of headroom.
const WEIGHT_BITS: u32 = 22;

/// Which part of a resized picture is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// Size the whole picture would get: columns, rows. At least 1 each.
    pub full: (usize, usize),
    /// Top-left corner of the wanted part in the resized picture: column, row.
    pub origin: (usize, usize),
    /// Size of the wanted part: columns, rows; it must lie inside.
    pub size: (usize, usize),
}

impl Window {
    /// The whole resized picture.
    pub fn whole(width: usize, height: usize) -> Self {
        Self { full: (width, height), origin: (0, 0), size: (width, height) }
    }
}

/// The input samples that make one output sample, and their weights (sum 1).
struct Tap {
    first: usize,
    weights: Vec<f64>,
}

/// Taps of the outputs `origin .. origin + count` when `input` samples become `full`.
fn taps(input: usize, full: usize, origin: usize, count: usize) -> Vec<Tap> {
    let scale = input as f64 / full as f64;
    let support = scale.max(1.0);
    (origin..origin + count)
        .map(|index| {
            let centre = (index as f64 + 0.5) * scale;
            let first = (centre - support + 0.5).max(0.0) as usize;
            let last = ((centre + support + 0.5) as usize).min(input);
            let weight = |i: usize| (1.0 - ((i as f64 - centre + 0.5) / support).abs()).max(0.0);
            let mut weights: Vec<f64> = (first..last).map(weight).collect();
            let sum: f64 = weights.iter().sum();
            weights.iter_mut().for_each(|w| *w /= sum);
            Tap { first, weights }
        })
        .collect()
}

/// Resizes a picture and returns the wanted window of the result.
pub fn resample(picture: &Picture, window: Window) -> Picture {
    let Window { full, origin, size } = window;
    let fixed = |taps: Vec<Tap>| -> Vec<(usize, Vec<i64>)> {
        let one = f64::from(1u32 << WEIGHT_BITS);
        taps.into_iter().map(|t| (t.first, t.weights.iter().map(|w| (w * one).round() as i64).collect())).collect()
    };
    let columns = fixed(taps(picture.width, full.0, origin.0, size.0));
    let rows = fixed(taps(picture.height, full.1, origin.1, size.1));
    let byte = |sum: i64| ((sum + (1 << (WEIGHT_BITS - 1))) >> WEIGHT_BITS).clamp(0, 255) as u8;

    // Only the source rows that the window reads are filtered horizontally.
    let top = rows.iter().map(|r| r.0).min().unwrap_or(0);
    let bottom = rows.iter().map(|r| r.0 + r.1.len()).max().unwrap_or(0);
    let mut narrow = Vec::with_capacity((bottom - top) * size.0 * 3);
    for row in picture.rgb.chunks_exact(picture.width * 3).take(bottom).skip(top) {
        for (first, weights) in &columns {
            let mut sum = [0i64; 3];
            for (pixel, weight) in row[first * 3..].chunks_exact(3).zip(weights) {
                for channel in 0..3 {
                    sum[channel] += i64::from(pixel[channel]) * weight;
                }
            }
            narrow.extend(sum.map(byte));
        }
    }
    let stride = size.0 * 3;
    let mut rgb = Vec::with_capacity(stride * size.1);
    let mut sums = vec![0i64; stride];
    for (first, weights) in &rows {
        sums.fill(0);
        for (row, weight) in narrow[(first - top) * stride..].chunks_exact(stride).zip(weights) {
            for (sum, value) in sums.iter_mut().zip(row) {
                *sum += i64::from(*value) * weight;
            }
        }
        rgb.extend(sums.iter().map(|s| byte(*s)));
    }
    Picture { width: size.0, height: size.1, rgb }
}

/// Resizes one plane of floats (`height × width`, row-major) and returns the wanted window of the result.
///
/// # Panics
/// When `plane` is not `width * height` long.
pub fn resample_plane(plane: &[f32], width: usize, height: usize, window: Window) -> Vec<f32> {
    assert_eq!(plane.len(), width * height, "a plane must be width × height");
    let Window { full, origin, size } = window;
    let columns = taps(width, full.0, origin.0, size.0);
    let rows = taps(height, full.1, origin.1, size.1);
    let top = rows.iter().map(|r| r.first).min().unwrap_or(0);
    let bottom = rows.iter().map(|r| r.first + r.weights.len()).max().unwrap_or(0);
    let mut narrow = Vec::with_capacity((bottom - top) * size.0);
    for row in plane.chunks_exact(width).take(bottom).skip(top) {
        narrow.extend(columns.iter().map(|tap| {
            row[tap.first..].iter().zip(&tap.weights).map(|(value, weight)| f64::from(*value) * weight).sum::<f64>()
        }));
    }
    let mut out = Vec::with_capacity(size.0 * size.1);
    for tap in &rows {
        out.extend((0..size.0).map(|x| {
            let column = narrow[(tap.first - top) * size.0 + x..].iter().step_by(size.0);
            column.zip(&tap.weights).map(|(value, weight)| value * weight).sum::<f64>() as f32
        }));
    }
    out
}
