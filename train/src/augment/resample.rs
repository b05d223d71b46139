//! Separable resampling weights, the rule shared by Pillow and torchvision: a filter whose support grows with the
//! reduction (antialias), normalised at the borders. Computed in f64, once per view, into buffers that are reused.

/// The shape of the resampling filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Filter {
    /// Triangle of half-width 1: bilinear.
    Triangle,
    /// Box of half-width ½: area mean when reducing, nearest when enlarging.
    Box,
}

impl Filter {
    fn half_width(self) -> f64 {
        match self {
            Self::Triangle => 1.0,
            Self::Box => 0.5,
        }
    }

    fn at(self, x: f64) -> f64 {
        match self {
            Self::Triangle => (1.0 - x.abs()).max(0.0),
            Self::Box => f64::from(x > -0.5 && x <= 0.5),
        }
    }
}

/// For each output sample along one axis: the first input sample and `count` weights that sum to 1.
#[derive(Debug, Default)]
pub(crate) struct Taps {
    /// Weights per output sample.
    pub count: usize,
    /// First input sample of each output sample; `start + count` never exceeds the input.
    pub start: Vec<usize>,
    /// `outputs × count` weights.
    pub weights: Vec<f32>,
}

impl Taps {
    /// Weights that resample `input` samples (at least 1) to `output` samples.
    pub fn new(filter: Filter, input: usize, output: usize) -> Self {
        let mut taps = Self::default();
        taps.set(filter, input, output);
        taps
    }

    /// As [`Taps::new`], into the buffers already held.
    pub fn set(&mut self, filter: Filter, input: usize, output: usize) {
        let scale = input as f64 / output as f64;
        let stretch = scale.max(1.0);
        let support = filter.half_width() * stretch;
        let range = |o: usize| {
            let centre = (o as f64 + 0.5) * scale;
            // Truncation towards zero, so a negative bound becomes sample 0.
            let first = (centre - support + 0.5).max(0.0) as usize;
            let last = ((centre + support + 0.5) as usize).min(input);
            (centre, first, last.max(first + 1).min(input))
        };
        self.count = (0..output).map(|o| range(o).2 - range(o).1).max().unwrap_or(1);
        self.start.clear();
        self.weights.clear();
        self.weights.resize(output * self.count, 0.0);
        for o in 0..output {
            let (centre, first, last) = range(o);
            let start = first.min(input - self.count);
            let weight = |i: usize| filter.at((i as f64 - centre + 0.5) / stretch);
            let sum: f64 = (first..last).map(weight).sum();
            for i in first..last {
                self.weights[o * self.count + i - start] = (weight(i) / sum) as f32;
            }
            self.start.push(start);
        }
    }

    /// Reverses the outputs: what was computed for the last comes first (a mirror image).
    pub fn reverse(&mut self) {
        self.start.reverse();
        self.weights.reverse();
        for weights in self.weights.chunks_exact_mut(self.count) {
            weights.reverse();
        }
    }
}

/// Resizes an interleaved RGB byte picture, rows first, with 8-bit rounding between the passes as Pillow does.
pub(crate) fn resize_bytes(
    rgb: &[u8],
    (width, height): (usize, usize),
    (to_width, to_height): (usize, usize),
    filter: Filter,
) -> Vec<u8> {
    let (x, y) = (Taps::new(filter, width, to_width), Taps::new(filter, height, to_height));
    let mut wide = vec![0u8; height * to_width * 3];
    for (row, out) in rgb.chunks_exact(width * 3).zip(wide.chunks_exact_mut(to_width * 3)) {
        for (o, pixel) in out.chunks_exact_mut(3).enumerate() {
            let weights = &x.weights[o * x.count..(o + 1) * x.count];
            for c in 0..3 {
                let sum: f32 =
                    weights.iter().enumerate().map(|(t, w)| w * f32::from(row[(x.start[o] + t) * 3 + c])).sum();
                pixel[c] = (sum + 0.5) as u8;
            }
        }
    }
    let mut out = vec![0u8; to_height * to_width * 3];
    for (o, row) in out.chunks_exact_mut(to_width * 3).enumerate() {
        let weights = &y.weights[o * y.count..(o + 1) * y.count];
        for (i, value) in row.iter_mut().enumerate() {
            let sum: f32 =
                weights.iter().enumerate().map(|(t, w)| w * f32::from(wide[(y.start[o] + t) * to_width * 3 + i])).sum();
            *value = (sum + 0.5) as u8;
        }
    }
    out
}

/// One row along x: interleaved pixels to three planar rows.
pub(super) fn blend_pixels(x: &Taps, row: &[f32], out: [&mut [f32]; 3]) {
    let [red, green, blue] = out;
    let targets = red.iter_mut().zip(green).zip(blue).zip(&x.start);
    // Enlarging always needs two taps: the usual case.
    if x.count == 2 {
        for ((((r, g), b), start), w) in targets.zip(x.weights.chunks_exact(2)) {
            let p = &row[start * 3..start * 3 + 6];
            *r = w[0] * p[0] + w[1] * p[3];
            *g = w[0] * p[1] + w[1] * p[4];
            *b = w[0] * p[2] + w[1] * p[5];
        }
        return;
    }
    for ((((r, g), b), start), weights) in targets.zip(x.weights.chunks_exact(x.count)) {
        let mut sum = [0f32; 3];
        for (w, p) in weights.iter().zip(row[start * 3..].chunks_exact(3)) {
            for c in 0..3 {
                sum[c] += w * p[c];
            }
        }
        [*r, *g, *b] = sum;
    }
}

/// Output row `o` along y: a weighted sum of the rows that begin at `rows`.
pub(super) fn blend_rows(y: &Taps, o: usize, rows: &[f32], out: &mut [f32]) {
    let size = out.len();
    let weights = &y.weights[o * y.count..(o + 1) * y.count];
    if let &[w0, w1] = weights {
        let (first, second) = rows[..2 * size].split_at(size);
        for ((value, a), b) in out.iter_mut().zip(first).zip(second) {
            *value = w0 * a + w1 * b;
        }
        return;
    }
    out.fill(0.0);
    for (w, row) in weights.iter().zip(rows.chunks_exact(size)) {
        for (value, a) in out.iter_mut().zip(row) {
            *value += w * a;
        }
    }
}
