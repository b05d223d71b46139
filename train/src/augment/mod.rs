//! The views a picture is trained on: the picture itself, a random crop, mirror image and colour change with
//! torchvision's meaning, or several such crops composed, normalised. Every picture draws from its own generator, keyed by (seed, epoch, view, index):
//! a view never depends on the batch it is in, on its neighbours or on threads.

mod colour;
pub(crate) mod resample;
#[cfg(test)]
mod tests;

use crate::dataset::Split;
use crate::{Error, Result};
use colour::Planes;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;
use resample::{Filter, Taps, blend_pixels, blend_rows};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;

/// How a picture becomes one training view.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum View {
    /// The picture as the board will see it: normalised, nothing else.
    Standard,
    /// A random view.
    Random(RandomView),
    /// Random crops side by side, `grid × grid` cells, each with a crop and mirror image of its own, then one change of
    /// colour for all; with probability `1 − probability` a random view instead.
    Composed {
        /// How each crop is drawn, and the colours.
        view: RandomView,
        /// Cells on a side, at least 1.
        grid: usize,
        /// Share of the views that are composed, in 0..=1.
        probability: f32,
    },
}

/// Random resized crop, mirror image, colour jitter and greyscale, in this order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RandomView {
    /// Least and greatest share of the picture's area that is kept, in 0..1.
    pub scale: (f32, f32),
    /// Least and greatest width / height of the crop before it is resized; drawn log-uniformly.
    pub ratio: (f32, f32),
    /// Probability of the mirror image.
    pub flip: f32,
    /// Colour jitter, if any.
    pub jitter: Option<Jitter>,
    /// Probability that the view loses its colour.
    pub grayscale: f32,
}

/// Strengths of the colour jitter: factors are drawn from `1 ± strength`, the hue shift from `± hue` of a turn, and
/// the four operations are applied in random order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Jitter {
    /// Strength for brightness, at least 0.
    pub brightness: f32,
    /// Strength for contrast, at least 0.
    pub contrast: f32,
    /// Strength for saturation, at least 0.
    pub saturation: f32,
    /// Largest hue shift, 0..0.5 of a turn.
    pub hue: f32,
    /// Probability that the jitter is applied at all.
    pub probability: f32,
}

impl RandomView {
    /// The view of contrastive training: crops of 20 % to 100 % of the area, mirror images, colour jitter 0.4, 0.4, 0.4,
    /// 0.1 in 80 % and greyscale in 20 % of the views.
    pub fn contrastive() -> Self {
        let jitter = Jitter { brightness: 0.4, contrast: 0.4, saturation: 0.4, hue: 0.1, probability: 0.8 };
        Self { jitter: Some(jitter), grayscale: 0.2, ..Self::crop_and_flip() }
    }

    /// The view of classifier training: crop and mirror image, no colour change.
    pub fn crop_and_flip() -> Self {
        Self { scale: (0.2, 1.0), ratio: (3.0 / 4.0, 4.0 / 3.0), flip: 0.5, jitter: None, grayscale: 0.0 }
    }

    /// The same colours and mirror images of the whole picture.
    pub fn uncropped(&self) -> Self {
        Self { scale: (1.0, 1.0), ratio: (1.0, 1.0), ..self.clone() }
    }

    /// Refuses values that make no sense, naming the setting.
    pub fn check(&self) -> Result<()> {
        let refuse = |name: &str, reason: &str| Err(Error::Setting { name: name.into(), reason: reason.into() });
        let probability = |p: f32| (0.0..=1.0).contains(&p);
        if !(self.scale.0 > 0.0 && self.scale.0 <= self.scale.1 && self.scale.1 <= 1.0) {
            return refuse("view.scale", "needs 0 < least <= greatest <= 1");
        }
        if !(self.ratio.0 > 0.0 && self.ratio.0 <= self.ratio.1 && self.ratio.1.is_finite()) {
            return refuse("view.ratio", "needs 0 < least <= greatest");
        }
        if !probability(self.flip) || !probability(self.grayscale) {
            return refuse("view.flip, view.grayscale", "probabilities lie in 0..1");
        }
        if let Some(jitter) = &self.jitter {
            let strengths = [jitter.brightness, jitter.contrast, jitter.saturation];
            if !strengths.iter().all(|s| *s >= 0.0 && s.is_finite()) {
                return refuse("view.jitter", "strengths are at least 0");
            }
            if !(0.0..=0.5).contains(&jitter.hue) || !probability(jitter.probability) {
                return refuse("view.jitter", "hue lies in 0..0.5 and probability in 0..1");
            }
        }
        Ok(())
    }
}

/// What makes one rendering differ from another; together with the picture's index it seeds the picture's generator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ViewSeed {
    /// Seed of the run.
    pub seed: u64,
    /// Epoch.
    pub epoch: u64,
    /// Which of the views of this epoch.
    pub view: u64,
}

impl ViewSeed {
    /// The generator of picture `index` of a split.
    fn generator(self, index: usize) -> ChaCha8Rng {
        let mut key = [0u8; 32];
        for (part, value) in key.chunks_exact_mut(8).zip([self.seed, self.epoch, self.view, index as u64]) {
            part.copy_from_slice(&value.to_le_bytes());
        }
        ChaCha8Rng::from_seed(key)
    }
}

/// Renders the pictures `indices` of a split as `N × size × size × 3` normalised values, `(x − mean) / std` per channel
/// with x in 0..1. Works in parallel; the result does not depend on how.
///
/// # Panics
/// If an index is not below [`Split::len`].
pub fn render(
    split: &Split,
    indices: &[usize],
    view: &View,
    mean: [f32; 3],
    std: [f32; 3],
    seed: ViewSeed,
) -> Vec<f32> {
    render_from(split.size, indices, |at| Cow::Borrowed(split.picture(indices[at])), view, (mean, std), seed)
}

/// As [`render`], with each row's key of randomness in place of its index, and its `size × size × 3` bytes from
/// `picture`, called with the row's number.
pub(crate) fn render_from<'a>(
    size: usize,
    keys: &[usize],
    picture: impl Fn(usize) -> Cow<'a, [u8]> + Sync,
    view: &View,
    (mean, std): ([f32; 3], [f32; 3]),
    seed: ViewSeed,
) -> Vec<f32> {
    let values = size * size * 3;
    let mut out = vec![0f32; keys.len() * values];
    // Every byte's normalised value, by the formula of the edge runtime: a standard view is a table look-up.
    let table: Vec<[f32; 3]> =
        (0..256).map(|b| std::array::from_fn(|c| (b as f32 / 255.0 - mean[c]) / std[c])).collect();
    let rows = out.par_chunks_mut(values.max(1)).zip(keys).enumerate();
    rows.for_each_init(Scratch::default, |scratch, (row, (out, &key))| {
        let rgb = picture(row);
        let mut rng = seed.generator(key);
        match view {
            View::Standard => {
                for (pixel, bytes) in out.chunks_exact_mut(3).zip(rgb.chunks_exact(3)) {
                    for c in 0..3 {
                        pixel[c] = table[usize::from(bytes[c])][c];
                    }
                }
                return;
            }
            View::Random(view) => random_view(&rgb, size, view, &mut rng, scratch),
            View::Composed { view, grid, probability } => match rng.random::<f32>() < *probability {
                true => composed_view(&rgb, size, view, *grid, &mut rng, scratch),
                false => random_view(&rgb, size, view, &mut rng, scratch),
            },
        }
        normalise(&scratch.planes, mean, std, out);
    });
    out
}

/// Buffers of one worker, reused for every picture.
#[derive(Default)]
struct Scratch {
    x: Taps,
    y: Taps,
    row: Vec<f32>,
    wide: Vec<f32>,
    /// The view: `3 × size × size` in 0..1.
    planes: Vec<f32>,
    /// A view under composition.
    canvas: Vec<f32>,
}

/// A rectangle of a picture, pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Crop {
    pub top: usize,
    pub left: usize,
    pub height: usize,
    pub width: usize,
}

/// What is random about one view of a picture.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Drawn {
    pub crop: Crop,
    pub mirror: bool,
    pub colours: Colours,
}

/// Changes of colour.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Colours {
    /// In their order, those without strength left out.
    pub operations: [Option<Operation>; 4],
    /// Whether the view loses its colour at the end.
    pub grey: bool,
}

/// A colour operation and its factor; the hue's is in turns.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Operation {
    Brightness(f32),
    Contrast(f32),
    Saturation(f32),
    Hue(f32),
}

/// Draws a random view as [`render_from`] does, without rendering it.
#[cfg(feature = "cuda")]
pub(crate) fn draw(size: usize, view: &RandomView, seed: ViewSeed, key: usize) -> Drawn {
    Drawn::new(size, view, &mut seed.generator(key))
}

impl Drawn {
    fn new(size: usize, view: &RandomView, rng: &mut ChaCha8Rng) -> Self {
        let (crop, mirror) = draw_place(size, view, rng);
        Self { crop, mirror, colours: draw_colours(view, rng) }
    }
}

/// Draws and renders one random view of a square picture into `scratch.planes`.
fn random_view(rgb: &[u8], size: usize, view: &RandomView, rng: &mut ChaCha8Rng, scratch: &mut Scratch) {
    let drawn = Drawn::new(size, view, rng);
    resized_crop(rgb, size, drawn.crop, drawn.mirror, size, scratch);
    change_colours(&mut scratch.planes, &drawn.colours);
}

/// Draws and renders `grid × grid` crops side by side into `scratch.planes`. Where the side is no multiple of the grid,
/// the last cells are cut off at the border.
fn composed_view(rgb: &[u8], size: usize, view: &RandomView, grid: usize, rng: &mut ChaCha8Rng, scratch: &mut Scratch) {
    let side = size.div_ceil(grid);
    scratch.canvas.resize(3 * size * size, 0.0);
    for (top, left) in (0..size).step_by(side).flat_map(|top| (0..size).step_by(side).map(move |left| (top, left))) {
        let (crop, mirror) = draw_place(size, view, rng);
        resized_crop(rgb, size, crop, mirror, side, scratch);
        let width = side.min(size - left);
        for (cell, plane) in scratch.planes.chunks_exact(side * side).zip(scratch.canvas.chunks_exact_mut(size * size))
        {
            for (y, row) in cell.chunks_exact(side).take(size - top).enumerate() {
                let at = (top + y) * size + left;
                plane[at..at + width].copy_from_slice(&row[..width]);
            }
        }
    }
    std::mem::swap(&mut scratch.planes, &mut scratch.canvas);
    change_colours(&mut scratch.planes, &draw_colours(view, rng));
}

/// Draws a crop and whether it is mirrored.
fn draw_place(size: usize, view: &RandomView, rng: &mut ChaCha8Rng) -> (Crop, bool) {
    let crop = draw_crop(size, view, rng);
    (crop, rng.random::<f32>() < view.flip)
}

/// Draws colour jitter and greyscale.
fn draw_colours(view: &RandomView, rng: &mut ChaCha8Rng) -> Colours {
    let jitter = view.jitter.as_ref().filter(|jitter| rng.random::<f32>() < jitter.probability);
    let operations = jitter.map_or([None; 4], |jitter| draw_jitter(jitter, rng));
    Colours { operations, grey: rng.random::<f32>() < view.grayscale }
}

fn change_colours(values: &mut [f32], colours: &Colours) {
    let mut planes = Planes::of(values);
    for operation in colours.operations.into_iter().flatten() {
        match operation {
            Operation::Brightness(factor) => planes.brightness(factor),
            Operation::Contrast(factor) => planes.contrast(factor),
            Operation::Saturation(factor) => planes.saturation(factor),
            Operation::Hue(turn) => planes.hue(turn),
        }
    }
    if colours.grey {
        planes.grey();
    }
}

fn uniform(rng: &mut ChaCha8Rng, low: f32, high: f32) -> f32 {
    low + (high - low) * rng.random::<f32>()
}

/// A crop by area and log-uniform aspect ratio; after ten misfits, the largest centred one within the ratios.
fn draw_crop(size: usize, view: &RandomView, rng: &mut ChaCha8Rng) -> Crop {
    let area = (size * size) as f32;
    for _ in 0..10 {
        let target = area * uniform(rng, view.scale.0, view.scale.1);
        let ratio = uniform(rng, view.ratio.0.ln(), view.ratio.1.ln()).exp();
        let width = (target * ratio).sqrt().round_ties_even() as usize;
        let height = (target / ratio).sqrt().round_ties_even() as usize;
        if (1..=size).contains(&width) && (1..=size).contains(&height) {
            let top = rng.random_range(0..=(size - height) as u32) as usize;
            let left = rng.random_range(0..=(size - width) as u32) as usize;
            return Crop { top, left, height, width };
        }
    }
    let side = size as f32;
    let width = if view.ratio.1 < 1.0 { (side * view.ratio.1).round_ties_even() } else { side };
    let height = if view.ratio.0 > 1.0 { (side / view.ratio.0).round_ties_even() } else { side };
    let (width, height) = ((width as usize).max(1), (height as usize).max(1));
    Crop { top: (size - height) / 2, left: (size - width) / 2, height, width }
}

/// Cuts `crop` out of a picture `stride` pixels wide and resizes it to `size × size`, bilinear with antialias, into
/// `scratch.planes` (0..1). Mirrors on the way, at no cost.
fn resized_crop(rgb: &[u8], stride: usize, crop: Crop, mirror: bool, size: usize, scratch: &mut Scratch) {
    let Scratch { x, y, row, wide, planes, .. } = scratch;
    x.set(Filter::Triangle, crop.width, size);
    y.set(Filter::Triangle, crop.height, size);
    if mirror {
        x.reverse();
    }
    row.resize(crop.width * 3, 0.0);
    wide.resize(3 * crop.height * size, 0.0);
    planes.resize(3 * size * size, 0.0);
    let plane = crop.height * size;
    for r in 0..crop.height {
        let from = ((crop.top + r) * stride + crop.left) * 3;
        for (value, byte) in row.iter_mut().zip(&rgb[from..from + crop.width * 3]) {
            *value = f32::from(*byte) * (1.0 / 255.0);
        }
        let (red, rest) = wide.split_at_mut(plane);
        let (green, blue) = rest.split_at_mut(plane);
        let at = r * size..(r + 1) * size;
        blend_pixels(x, row, [&mut red[at.clone()], &mut green[at.clone()], &mut blue[at]]);
    }
    for (from, to) in wide.chunks_exact(plane).zip(planes.chunks_exact_mut(size * size)) {
        for (o, out) in to.chunks_exact_mut(size).enumerate() {
            blend_rows(y, o, &from[y.start[o] * size..], out);
        }
    }
}

/// The four colour operations in random order, each with its own random strength.
fn draw_jitter(jitter: &Jitter, rng: &mut ChaCha8Rng) -> [Option<Operation>; 4] {
    let mut order = [0, 1, 2, 3];
    for last in (1..4).rev() {
        order.swap(last, rng.random_range(0..=last as u32) as usize);
    }
    let mut factor = |strength: f32| uniform(rng, (1.0 - strength).max(0.0), 1.0 + strength);
    let (brightness, contrast, saturation) =
        (factor(jitter.brightness), factor(jitter.contrast), factor(jitter.saturation));
    let turn = uniform(rng, -jitter.hue, jitter.hue);
    let operation = |number| match number {
        0 => (jitter.brightness > 0.0).then_some(Operation::Brightness(brightness)),
        1 => (jitter.contrast > 0.0).then_some(Operation::Contrast(contrast)),
        2 => (jitter.saturation > 0.0).then_some(Operation::Saturation(saturation)),
        _ => (jitter.hue > 0.0).then_some(Operation::Hue(turn)),
    };
    order.map(operation)
}

/// Planar 0..1 to interleaved normalised values.
fn normalise(planes: &[f32], mean: [f32; 3], std: [f32; 3], out: &mut [f32]) {
    let pixels = planes.len() / 3;
    let scale = std.map(|s| 1.0 / s);
    let shift: [f32; 3] = std::array::from_fn(|c| -mean[c] * scale[c]);
    let (red, rest) = planes.split_at(pixels);
    let (green, blue) = rest.split_at(pixels);
    for (((pixel, r), g), b) in out.chunks_exact_mut(3).zip(red).zip(green).zip(blue) {
        pixel[0] = r * scale[0] + shift[0];
        pixel[1] = g * scale[1] + shift[1];
        pixel[2] = b * scale[2] + shift[2];
    }
}
