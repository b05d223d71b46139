//! The convolutions: dense by register tiles of pixels × output channels, depthwise by vectors of channels. Both end in
//! [`End`], which turns sums into codes.
//!
//! Maps are pixel by pixel (NHWC) with a halo of zeros, so the taps of a kernel row are one contiguous run of codes and
//! no border needs a case of its own.

use super::buffer::Buffer;
use super::dot::{Code, Dot, Task, lane_weight};
use super::network::Layout;
use super::{Conv, Map, Requantize, Window};

/// Codes of input that one pass over the output channels may stream: what stays in the first cache beside the weights.
const CHUNK_BYTES: usize = 16 << 10;

/// From sums to codes: requantization, residual, ReLU.
pub(super) struct End {
    scale: Buffer<f32>,
    bias: Buffer<f32>,
    between: Option<(f32, f32, f32)>,
    residual: f32,
    /// Stored forms of 0 of residual and output.
    residual_shift: f32,
    shift: f32,
    low: f32,
    high: f32,
}

impl End {
    fn new<D: Dot>(conv: &Conv, maps: &[Map]) -> Self {
        let r = Requantize::new(conv, maps);
        let padded = maps[conv.output].channels.next_multiple_of(D::LANES);
        let lanes = |values: &[f32]| {
            let mut buffer = Buffer::new(padded, 0.0);
            buffer.values()[..values.len()].copy_from_slice(values);
            buffer
        };
        Self {
            scale: lanes(&r.scale),
            bias: lanes(&r.bias),
            between: r.between,
            residual: r.residual,
            residual_shift: conv.residual.map_or(0, |x| D::Code::shift(&maps[x.map].codes)) as f32,
            shift: D::Code::shift(&maps[conv.output].codes) as f32,
            low: r.low,
            high: r.high,
        }
    }

    /// Turns the sums of `LANES` channels from `channel` on into codes at `to`.
    ///
    /// # Safety
    /// The processor must have the set; `channel + LANES` channels must exist with their padding, at `to` and, where
    /// given, at `residual`.
    #[inline(always)]
    unsafe fn apply<D: Dot>(&self, sum: D::Sum, channel: usize, residual: Option<*const D::Code>, to: *mut D::Code) {
        debug_assert!(channel + D::LANES <= self.scale.len());
        // SAFETY: scale and bias hold every padded channel; the rest is vouched for by the caller.
        unsafe {
            let (scale, bias) =
                (D::floats(self.scale.as_ptr().add(channel)), D::floats(self.bias.as_ptr().add(channel)));
            let mut y = D::add(D::mul(D::float(sum), scale), bias);
            if let Some(from) = residual {
                if let Some((low, high, factor)) = self.between {
                    y = D::mul(D::settle(y, D::number(low), D::number(high)), D::number(factor));
                }
                let mut x = D::float(D::widen(from));
                if !D::Code::CENTRED {
                    x = D::add(x, D::number(-self.residual_shift));
                }
                y = D::add(y, D::mul(x, D::number(self.residual)));
            }
            y = D::settle(y, D::number(self.low), D::number(self.high));
            if !D::Code::CENTRED {
                y = D::add(y, D::number(self.shift));
            }
            D::store(y, to);
        }
    }
}

/// Where a window stands on a stored map.
struct Place {
    window: Window,
    input: Layout,
    output: Layout,
    residual: Option<Layout>,
}

impl Place {
    fn new(window: Window, input: &Layout, output: &Layout, residual: Option<&Layout>) -> Self {
        Self { window, input: *input, output: *output, residual: residual.copied() }
    }

    /// Code under the window's first tap for an output pixel.
    #[inline(always)]
    fn start(&self, y: usize, x: usize) -> usize {
        let [top, left] = self.window.before;
        self.input.halo_at(y * self.window.stride[0], top, x * self.window.stride[1], left)
    }
}

/// A convolution over all channels. Channel groups are spread out with zero weights between.
pub(super) struct Dense<D: Dot> {
    place: Place,
    end: End,
    /// First code of each contiguous run of taps, counted from the window's first tap.
    runs: Vec<usize>,
    /// Groups of `D::GROUP` codes in a run.
    groups: usize,
    /// `[channel block][run][group][lane][code]`.
    weights: Buffer<D::Weight>,
    /// What a sum starts at: takes the halo's stored zero out again.
    start: Buffer<i32>,
}

impl<D: Dot> Dense<D> {
    pub fn new(conv: &Conv, maps: &[Map], input: &Layout, output: &Layout, residual: Option<&Layout>) -> Self {
        let [rows, columns] = conv.window.kernel;
        let [row_step, column_step] = [conv.window.dilation[0] * input.row, conv.window.dilation[1] * input.stride];
        // Neighbouring taps of a row lie side by side: one run. Spread taps are a run each.
        let (runs, taps): (Vec<usize>, usize) = if conv.window.dilation[1] == 1 {
            ((0..rows).map(|y| y * row_step).collect(), columns)
        } else {
            ((0..rows * columns).map(|t| t / columns * row_step + t % columns * column_step).collect(), 1)
        };
        let groups = taps * input.stride / D::GROUP;
        let (channels, outputs) = (maps[conv.input].channels, maps[conv.output].channels);
        let (fan_in, fan_out) = (channels / conv.groups, outputs / conv.groups);
        let padded = outputs.next_multiple_of(D::LANES);
        let mut weights = Buffer::new(padded * runs.len() * groups * D::GROUP, D::Weight::from(0));
        let mut start = Buffer::new(padded, 0);
        let shift = D::Code::shift(&maps[conv.input].codes);
        for o in 0..outputs {
            for i in 0..fan_in {
                for tap in 0..rows * columns {
                    let weight = conv.weight[(o * fan_in + i) * rows * columns + tap];
                    let (run, place) = (tap / taps, tap % taps * input.stride + o / fan_out * fan_in + i);
                    let group = (o / D::LANES * runs.len() + run) * groups + place / D::GROUP;
                    let at = (group * D::LANES + o % D::LANES) * D::GROUP + place % D::GROUP;
                    weights.values()[at] = D::Weight::from(weight);
                    start.values()[o] -= shift * i32::from(weight);
                }
            }
        }
        let place = Place::new(conv.window, input, output, residual);
        Self { place, end: End::new::<D>(conv, maps), runs, groups, weights, start }
    }

    /// One tile: `P` neighbouring pixels of a row, `B` vectors of output channels.
    ///
    /// # Safety
    /// The processor must have the set; the pixels and blocks must exist; the slices must be those of the layouts.
    #[inline(always)]
    unsafe fn tile<const P: usize, const B: usize>(&self, at: (usize, usize, usize), data: Data<'_, D>) {
        let (y, x, block) = at;
        let place = &self.place;
        let from = place.start(y, x);
        let step = place.window.stride[1] * place.input.stride;
        debug_assert!(
            from + (P - 1) * step + self.runs[self.runs.len() - 1] + self.groups * D::GROUP <= data.input.len()
        );
        debug_assert!((block + B) * D::LANES <= self.start.len() && x + P <= place.output.width);
        let block_len = self.runs.len() * self.groups * D::LANES * D::GROUP;
        // SAFETY: the layouts' halo covers every tap of the window; the weights hold every block.
        unsafe {
            let from = data.input.as_ptr().add(from);
            let mut weights = self.weights.as_ptr().add(block * block_len);
            let mut sums = [[D::sums(self.start.as_ptr().add(block * D::LANES)); B]; P];
            for b in 1..B {
                let start = D::sums(self.start.as_ptr().add((block + b) * D::LANES));
                sums.iter_mut().for_each(|s| s[b] = start);
            }
            for &run in &self.runs {
                let mut codes = from.add(run);
                for _ in 0..self.groups {
                    let w: [D::Operand; B] = std::array::from_fn(|b| D::weights(weights.add(b * block_len)));
                    for p in 0..P {
                        let x = D::splat(codes.add(p * step));
                        for b in 0..B {
                            sums[p][b] = D::dot(sums[p][b], x, w[b]);
                        }
                    }
                    weights = weights.add(D::LANES * D::GROUP);
                    codes = codes.add(D::GROUP);
                }
            }
            for p in 0..P {
                let to = data.output.add(place.output.at(y, x + p));
                let other = data.residual.zip(place.residual.as_ref()).map(|(r, l)| r.as_ptr().add(l.at(y, x + p)));
                for b in 0..B {
                    let channel = (block + b) * D::LANES;
                    self.end.apply::<D>(sums[p][b], channel, other.map(|r| r.add(channel)), to.add(channel));
                }
            }
        }
    }

    /// A row of tiles; the last one overlaps its neighbour instead of running over.
    ///
    /// # Safety
    /// As [`Self::tile`].
    #[inline(always)]
    unsafe fn row<const P: usize, const B: usize>(&self, y: usize, block: usize, data: Data<'_, D>) {
        let width = self.place.output.width;
        let mut x = 0;
        while x + P <= width {
            // SAFETY: the tile lies inside the row.
            unsafe { self.tile::<P, B>((y, x, block), data) };
            x += P;
        }
        if x < width && width >= P {
            // SAFETY: the last `P` pixels of the row.
            unsafe { self.tile::<P, B>((y, width - P, block), data) };
            x = width;
        }
        for x in x..width {
            // SAFETY: a pixel of the row.
            unsafe { self.tile::<1, B>((y, x, block), data) };
        }
    }
}

/// The memory a step works on. `output` stands for a whole arena map that nothing else refers to.
pub(super) struct Data<'a, D: Dot> {
    pub input: &'a [D::Code],
    pub residual: Option<&'a [D::Code]>,
    pub output: *mut D::Code,
}

impl<D: Dot> Clone for Data<'_, D> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<D: Dot> Copy for Data<'_, D> {}

/// [`Dense`] on its data.
pub(super) struct RunDense<'a, D: Dot>(pub &'a Dense<D>, pub Data<'a, D>);

impl<D: Dot> Task<D> for RunDense<'_, D> {
    type Output = ();

    #[inline(always)]
    unsafe fn run(self) {
        let Self(conv, data) = self;
        let (input, output) = (&conv.place.input, &conv.place.output);
        let blocks = conv.start.len() / D::LANES;
        let row_bytes = input.row * conv.place.window.stride[0] * size_of::<D::Code>();
        let rows = (CHUNK_BYTES / row_bytes).max(1);
        for first in (0..output.height).step_by(rows) {
            let chunk = first..(first + rows).min(output.height);
            let mut block = 0;
            while block < blocks {
                let pair = block + 1 < blocks;
                for y in chunk.clone() {
                    // SAFETY: rows and blocks of this convolution; the caller vouches for set and data.
                    unsafe {
                        match (pair, D::REGISTERS > 16) {
                            (true, true) => conv.row::<8, 2>(y, block, data),
                            (true, false) => conv.row::<4, 2>(y, block, data),
                            (false, true) => conv.row::<16, 1>(y, block, data),
                            (false, false) => conv.row::<8, 1>(y, block, data),
                        }
                    }
                }
                block += 1 + usize::from(pair);
            }
        }
    }
}

/// A convolution of each channel by itself.
pub(super) struct Depthwise<D: Dot> {
    place: Place,
    end: End,
    /// Each tap's distance from the first.
    taps: Vec<usize>,
    /// `[tap][channel]`, see [`lane_weight`].
    weights: Buffer<i32>,
    start: Buffer<i32>,
    set: std::marker::PhantomData<D>,
}

impl<D: Dot> Depthwise<D> {
    pub fn new(conv: &Conv, maps: &[Map], input: &Layout, output: &Layout, residual: Option<&Layout>) -> Self {
        let [rows, columns] = conv.window.kernel;
        let [down, right] = conv.window.dilation;
        let count = rows * columns;
        let taps = (0..count).map(|t| t / columns * down * input.row + t % columns * right * input.stride);
        let channels = maps[conv.input].channels;
        let padded = channels.next_multiple_of(D::LANES);
        let shift = D::Code::shift(&maps[conv.input].codes);
        let (mut weights, mut start) = (Buffer::new(count * padded, 0), Buffer::new(padded, 0));
        for (at, &weight) in conv.weight.iter().enumerate() {
            let (channel, tap) = (at / count, at % count);
            weights.values()[tap * padded + channel] = lane_weight(weight);
            start.values()[channel] -= shift * i32::from(weight);
        }
        Self {
            place: Place::new(conv.window, input, output, residual),
            end: End::new::<D>(conv, maps),
            taps: taps.collect(),
            weights,
            start,
            set: std::marker::PhantomData,
        }
    }

    /// `P` pixels, one vector of channels.
    ///
    /// # Safety
    /// The processor must have the set; pixels and channels must exist; the slices must be those of the layouts.
    #[inline(always)]
    unsafe fn tile<const P: usize>(&self, y: usize, x: usize, channel: usize, data: Data<'_, D>) {
        let place = &self.place;
        let from = place.start(y, x) + channel;
        let step = place.window.stride[1] * place.input.stride;
        debug_assert!(from + (P - 1) * step + self.taps[self.taps.len() - 1] + D::LANES <= data.input.len());
        // SAFETY: the layouts' halo covers every tap; weights and start hold every padded channel.
        unsafe {
            let from = data.input.as_ptr().add(from);
            let mut sums = [D::sums(self.start.as_ptr().add(channel)); P];
            for (t, &tap) in self.taps.iter().enumerate() {
                let weight = D::sums(self.weights.as_ptr().add(t * self.start.len() + channel));
                for p in 0..P {
                    sums[p] = D::multiply_add(sums[p], D::widen(from.add(tap + p * step)), weight);
                }
            }
            for p in 0..P {
                let other = data.residual.zip(place.residual.as_ref());
                let other = other.map(|(r, l)| r.as_ptr().add(l.at(y, x + p) + channel));
                let to = data.output.add(place.output.at(y, x + p) + channel);
                self.end.apply::<D>(sums[p], channel, other, to);
            }
        }
    }
}

/// [`Depthwise`] on its data.
pub(super) struct RunDepthwise<'a, D: Dot>(pub &'a Depthwise<D>, pub Data<'a, D>);

impl<D: Dot> Task<D> for RunDepthwise<'_, D> {
    type Output = ();

    #[inline(always)]
    unsafe fn run(self) {
        const PIXELS: usize = 4;
        let Self(conv, data) = self;
        let output = &conv.place.output;
        for y in 0..output.height {
            for channel in (0..conv.start.len()).step_by(D::LANES) {
                let mut x = 0;
                // SAFETY: pixels and channels of this convolution; the caller vouches for set and data.
                unsafe {
                    while x + PIXELS <= output.width {
                        conv.tile::<PIXELS>(y, x, channel, data);
                        x += PIXELS;
                    }
                    for x in x..output.width {
                        conv.tile::<1>(y, x, channel, data);
                    }
                }
            }
        }
    }
}
