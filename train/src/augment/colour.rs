//! Colour changes on planar f32 pictures in 0..1, with torchvision's meaning and its clipping after every operation.
//! All loops are free of branches on the data, so that the compiler can vectorise them.

/// Weights of R, G, B in the grey value.
const GREY: [f32; 3] = [0.2989, 0.587, 0.114];

/// Red, green and blue plane of one picture, equally long.
pub(crate) struct Planes<'a> {
    r: &'a mut [f32],
    g: &'a mut [f32],
    b: &'a mut [f32],
}

// Written as selects: unlike `f32::max`, these need no care for NaN, which cannot occur here.
#[inline(always)]
fn max(a: f32, b: f32) -> f32 {
    if a > b { a } else { b }
}

#[inline(always)]
fn min(a: f32, b: f32) -> f32 {
    if a < b { a } else { b }
}

#[inline(always)]
fn clip(x: f32) -> f32 {
    min(max(x, 0.0), 1.0)
}

#[inline(always)]
fn grey(r: f32, g: f32, b: f32) -> f32 {
    GREY[0] * r + GREY[1] * g + GREY[2] * b
}

impl<'a> Planes<'a> {
    /// Splits `3 × pixels` values into planes.
    pub fn of(values: &'a mut [f32]) -> Self {
        let pixels = values.len() / 3;
        let (r, rest) = values.split_at_mut(pixels);
        let (g, b) = rest.split_at_mut(pixels);
        Self { r, g, b }
    }

    fn each(&mut self, change: impl Fn(f32, f32, f32) -> (f32, f32, f32)) {
        let n = self.r.len();
        let (r, g, b) = (&mut self.r[..n], &mut self.g[..n], &mut self.b[..n]);
        for i in 0..n {
            (r[i], g[i], b[i]) = change(r[i], g[i], b[i]);
        }
    }

    /// `clip(factor · x)`.
    pub fn brightness(&mut self, factor: f32) {
        self.each(|r, g, b| (clip(factor * r), clip(factor * g), clip(factor * b)));
    }

    /// Blend with the mean of the grey picture: `clip(factor · x + (1 − factor) · mean)`.
    pub fn contrast(&mut self, factor: f32) {
        let shift = (1.0 - factor) * self.grey_mean();
        self.each(|r, g, b| (clip(factor * r + shift), clip(factor * g + shift), clip(factor * b + shift)));
    }

    /// Blend with the grey picture: `clip(factor · x + (1 − factor) · grey)`.
    pub fn saturation(&mut self, factor: f32) {
        let rest = 1.0 - factor;
        self.each(|r, g, b| {
            let y = rest * grey(r, g, b);
            (clip(factor * r + y), clip(factor * g + y), clip(factor * b + y))
        });
    }

    /// All channels become the grey value.
    pub fn grey(&mut self) {
        self.each(|r, g, b| {
            let y = grey(r, g, b);
            (y, y, y)
        });
    }

    /// Shifts the hue by `turn` of a full turn (−0.5..0.5), keeping HSV saturation and value.
    ///
    /// With hue h in sixths, value v and chroma c = max − min, the channels are
    /// `v − c · clip(min(k, 4 − k))`, k = (n + h) mod 6, n = 5, 3, 1 for R, G, B.
    pub fn hue(&mut self, turn: f32) {
        let shift = 6.0 * turn;
        self.each(|r, g, b| {
            let top = max(max(r, g), b);
            let chroma = top - min(min(r, g), b);
            let inverse = 1.0 / if chroma > 0.0 { chroma } else { 1.0 };
            let from_green = 2.0 + (b - r) * inverse;
            let from_blue = 4.0 + (r - g) * inverse;
            let not_red = if top == g { from_green } else { from_blue };
            let h = if top == r { (g - b) * inverse } else { not_red } + shift;
            let h = if h < 0.0 { h + 6.0 } else { h };
            let h = if h >= 6.0 { h - 6.0 } else { h };
            let channel = |n: f32| {
                let k = n + h;
                let k = if k >= 6.0 { k - 6.0 } else { k };
                top - chroma * clip(min(k, 4.0 - k))
            };
            (channel(5.0), channel(3.0), channel(1.0))
        });
    }

    /// Mean of the grey picture, summed in lanes: fixed order, and vectorised.
    fn grey_mean(&self) -> f32 {
        const LANES: usize = 16;
        let n = self.r.len();
        let mut lanes = [0f32; LANES];
        let whole = n / LANES * LANES;
        for i in (0..whole).step_by(LANES) {
            let (r, g, b) = (&self.r[i..i + LANES], &self.g[i..i + LANES], &self.b[i..i + LANES]);
            for lane in 0..LANES {
                lanes[lane] += grey(r[lane], g[lane], b[lane]);
            }
        }
        let rest: f32 = (whole..n).map(|i| grey(self.r[i], self.g[i], self.b[i])).sum();
        (lanes.iter().sum::<f32>() + rest) / n as f32
    }
}
