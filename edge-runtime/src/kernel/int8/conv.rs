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

/// A form of convolution that only some sets have.
pub(super) trait Special<D: Dot>: Send + Sync {
    /// Numbers of scratch memory it needs.
    fn scratch(&self) -> usize;
    /// # Safety
    /// The processor must have the set; the data must be that of the layouts it was made for.
    unsafe fn run(&self, data: Data<'_, D>);
}

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
    /// `unit` is what one product counts in the sums.
    pub fn new<D: Dot>(conv: &Conv, maps: &[Map], unit: f32) -> Self {
        let r = Requantize::new(conv, maps);
        let padded = maps[conv.output].channels.next_multiple_of(D::LANES);
        let lanes = |values: &[f32], factor: f32| {
            let mut buffer = Buffer::new(padded, 0.0);
            buffer.values().iter_mut().zip(values).for_each(|(to, v)| *to = v * factor);
            buffer
        };
        Self {
            scale: lanes(&r.scale, unit),
            bias: lanes(&r.bias, 1.0),
            between: r.between,
            residual: r.residual,
            residual_shift: conv.residual.map_or(0, |x| D::Code::shift(&maps[x.map].codes)) as f32,
            shift: D::Code::shift(&maps[conv.output].codes) as f32,
            low: r.low,
            high: r.high,
        }
    }

    /// The constants in every lane, for a run.
    ///
    /// # Safety
    /// The processor must have the set.
    #[inline(always)]
    pub unsafe fn lanes<D: Dot>(&self) -> EndLanes<'_, D> {
        let (low, high, factor) = self.between.unwrap_or_default();
        // SAFETY: vouched for by the caller.
        unsafe {
            EndLanes {
                scale: self.scale.as_slice(),
                bias: self.bias.as_slice(),
                is_between: self.between.is_some(),
                between: [D::number(low), D::number(high), D::number(factor)],
                residual: D::number(self.residual),
                residual_shift: D::number(-self.residual_shift),
                shift: D::number(self.shift),
                low: D::number(self.low),
                high: D::number(self.high),
            }
        }
    }
}

/// [`End`] with its constants in registers.
#[derive(Clone, Copy)]
pub(super) struct EndLanes<'a, D: Dot> {
    scale: &'a [f32],
    bias: &'a [f32],
    is_between: bool,
    between: [D::Float; 3],
    residual: D::Float,
    residual_shift: D::Float,
    shift: D::Float,
    low: D::Float,
    high: D::Float,
}

impl<D: Dot> EndLanes<'_, D> {
    /// Turns the sums of `LANES` channels from `channel` on into codes at `to`. `RESIDUAL` and `BETWEEN` say what of a
    /// residual sum there is; only with the first is `residual` read.
    ///
    /// # Safety
    /// The processor must have the set; `channel + LANES` channels must exist with their padding, at `to` and, where
    /// it is read, at `residual`.
    #[inline(always)]
    unsafe fn apply<const RESIDUAL: bool, const BETWEEN: bool>(
        &self,
        sum: D::Sum,
        channel: usize,
        residual: *const D::Code,
        to: *mut D::Code,
    ) {
        debug_assert!(channel + D::LANES <= self.scale.len());
        // SAFETY: scale and bias hold every padded channel; the rest is vouched for by the caller.
        unsafe {
            let (scale, bias) = (self.scale.as_ptr().add(channel), self.bias.as_ptr().add(channel));
            let mut y = D::add(D::mul(D::float(sum), D::floats(scale)), D::floats(bias));
            if RESIDUAL {
                if BETWEEN {
                    let [low, high, factor] = self.between;
                    y = D::mul(D::settle(y, low, high), factor);
                }
                let mut x = D::float(D::widen(residual));
                if !D::Code::CENTRED {
                    x = D::add(x, self.residual_shift);
                }
                y = D::add(y, D::mul(x, self.residual));
            }
            y = D::settle(y, self.low, self.high);
            if !D::Code::CENTRED {
                y = D::add(y, self.shift);
            }
            D::store(y, to);
        }
    }

    /// The same for whatever there is.
    ///
    /// # Safety
    /// As [`Self::apply`].
    #[inline(always)]
    pub unsafe fn apply_any(&self, sum: D::Sum, channel: usize, residual: Option<*const D::Code>, to: *mut D::Code) {
        // SAFETY: vouched for by the caller.
        unsafe {
            match (residual, self.is_between) {
                (None, _) => self.apply::<false, false>(sum, channel, std::ptr::null(), to),
                (Some(other), false) => self.apply::<true, false>(sum, channel, other, to),
                (Some(other), true) => self.apply::<true, true>(sum, channel, other, to),
            }
        }
    }
}

/// Where a window stands on a stored map.
pub(super) struct Place {
    window: Window,
    pub input: Layout,
    pub output: Layout,
    residual: Option<Layout>,
}

impl Place {
    pub fn new(window: Window, input: &Layout, output: &Layout, residual: Option<&Layout>) -> Self {
        Self { window, input: *input, output: *output, residual: residual.copied() }
    }

    /// Code under the window's first tap for an output pixel.
    #[inline(always)]
    pub fn start(&self, y: usize, x: usize) -> usize {
        let [top, left] = self.window.before;
        self.input.halo_at(y * self.window.stride[0], top, x * self.window.stride[1], left)
    }

    /// The residual's codes for an output pixel.
    #[inline(always)]
    pub fn residual_at<D: Dot>(&self, data: Data<'_, D>, y: usize, x: usize, channel: usize) -> Option<*const D::Code> {
        let (from, layout) = data.residual.zip(self.residual.as_ref())?;
        from.get(layout.at(y, x) + channel..).map(<[D::Code]>::as_ptr)
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
        Self { place, end: End::new::<D>(conv, maps, 1.0), runs, groups, weights, start }
    }

    /// One tile: `P` neighbouring pixels of a row, `B` vectors of output channels.
    ///
    /// # Safety
    /// The processor must have the set; the pixels and blocks must exist; the slices must be those of the layouts.
    #[inline(always)]
    unsafe fn tile<const P: usize, const B: usize>(
        &self,
        at: (usize, usize, usize),
        end: &EndLanes<'_, D>,
        data: Data<'_, D>,
    ) {
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
            // One branch a tile: the sums stay in registers.
            let residual = data.residual.zip(place.residual.as_ref());
            let from = residual.map_or(std::ptr::null(), |(r, layout)| r.as_ptr().add(layout.at(y, x)));
            let spot = Spot {
                residual: from,
                residual_step: residual.map_or(0, |(_, layout)| layout.stride),
                to: data.output.add(place.output.at(y, x)),
                step: place.output.stride,
                channel: block * D::LANES,
            };
            match (residual.is_some(), end.is_between) {
                (false, _) => spot.finish::<D, P, B, false, false>(sums, end),
                (true, false) => spot.finish::<D, P, B, true, false>(sums, end),
                (true, true) => spot.finish::<D, P, B, true, true>(sums, end),
            }
        }
    }

    /// A row of tiles; the last one overlaps its neighbour instead of running over.
    ///
    /// # Safety
    /// As [`Self::tile`].
    #[inline(always)]
    unsafe fn row<const P: usize, const B: usize>(
        &self,
        y: usize,
        block: usize,
        end: &EndLanes<'_, D>,
        data: Data<'_, D>,
    ) {
        let width = self.place.output.width;
        let mut x = 0;
        while x + P <= width {
            // SAFETY: the tile lies inside the row.
            unsafe { self.tile::<P, B>((y, x, block), end, data) };
            x += P;
        }
        if x < width && width >= P {
            // SAFETY: the last `P` pixels of the row.
            unsafe { self.tile::<P, B>((y, width - P, block), end, data) };
            x = width;
        }
        for x in x..width {
            // SAFETY: a pixel of the row.
            unsafe { self.tile::<1, B>((y, x, block), end, data) };
        }
    }
}

/// Where a tile's codes go.
struct Spot<C> {
    residual: *const C,
    residual_step: usize,
    to: *mut C,
    step: usize,
    channel: usize,
}

impl<C> Spot<C> {
    /// # Safety
    /// As [`EndLanes::apply`], for `P` pixels and `B` vectors.
    #[inline(always)]
    unsafe fn finish<D, const P: usize, const B: usize, const RESIDUAL: bool, const BETWEEN: bool>(
        &self,
        sums: [[D::Sum; B]; P],
        end: &EndLanes<'_, D>,
    ) where
        D: Dot<Code = C>,
    {
        // SAFETY: vouched for by the caller; without a residual its pointer only travels.
        unsafe {
            for (p, sums) in sums.into_iter().enumerate() {
                for (b, sum) in sums.into_iter().enumerate() {
                    let channel = self.channel + b * D::LANES;
                    let from = self.residual.wrapping_add(p * self.residual_step + channel);
                    end.apply::<RESIDUAL, BETWEEN>(sum, channel, from, self.to.add(p * self.step + channel));
                }
            }
        }
    }
}

/// The memory a step works on. `output` stands for a whole arena map that nothing else refers to.
pub(super) struct Data<'a, D: Dot> {
    pub input: &'a [D::Code],
    pub residual: Option<&'a [D::Code]>,
    pub output: *mut D::Code,
    /// As much as the step's [`Special::scratch`] asked for.
    pub scratch: *mut i32,
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
        // SAFETY: the caller vouches for the set.
        let end = &unsafe { conv.end.lanes::<D>() };
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
                            (true, true) => conv.row::<8, 2>(y, block, end, data),
                            (true, false) => conv.row::<4, 2>(y, block, end, data),
                            (false, true) => conv.row::<16, 1>(y, block, end, data),
                            (false, false) => conv.row::<8, 1>(y, block, end, data),
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
            end: End::new::<D>(conv, maps, 1.0),
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
    unsafe fn tile<const P: usize>(&self, at: (usize, usize, usize), end: &EndLanes<'_, D>, data: Data<'_, D>) {
        let (y, x, channel) = at;
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
                let other = place.residual_at(data, y, x + p, channel);
                end.apply_any(sums[p], channel, other, data.output.add(place.output.at(y, x + p) + channel));
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
        // SAFETY: the caller vouches for the set.
        let end = &unsafe { conv.end.lanes::<D>() };
        for y in 0..output.height {
            for channel in (0..conv.start.len()).step_by(D::LANES) {
                let mut x = 0;
                // SAFETY: pixels and channels of this convolution; the caller vouches for set and data.
                unsafe {
                    while x + PIXELS <= output.width {
                        conv.tile::<PIXELS>((y, x, channel), end, data);
                        x += PIXELS;
                    }
                    for x in x..output.width {
                        conv.tile::<1>((y, x, channel), end, data);
                    }
                }
            }
        }
    }
}
