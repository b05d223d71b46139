//! 3 × 3 convolutions of stride 1 with fewer multiplications: Winograd's F(m × m, 3 × 3), m = 2 or 4 (Lavin and Gray, Fast
//! Algorithms for Convolutional Neural Networks, 2016).
//!
//! A tile of m × m outputs is `Aᵀ[(G w Gᵀ) ⊙ (Bᵀ x B)]A`: (m + 2)² products a channel pair in place of 9 m², 2.25 or 4 times
//! fewer. F(4 × 4) interpolates at 0, ±1/√2, ±√2 and ∞, whose transforms have small, balanced entries and so lose less
//! to rounding than those of 0, ±1, ±2 and ∞.

mod form;

use super::buffer::Buffer;
use super::dense::{Block, Run, VECTORS, blocks, most_pixels, tile, with_pixels};
use super::end::{Data, End, Place};
use super::layout::Layout;
use super::{Conv, Map};
use crate::kernel::{Kernel, Vector};
use form::{Form, Four, Two, transformed};

/// Transformed input that is worked on at a time, numbers: a part of the second cache.
const BLOCK: usize = 32 << 10;
/// Bytes of weights that stay in the second cache from picture to picture.
const SECOND_CACHE: f64 = 700e3;
/// Products that take as long as fetching a weight from beyond it.
const FAR_WEIGHT: f64 = 12.0;
/// Products that take as long as the transforms of one number.
const TRANSFORM: f64 = 6.0;

/// Outputs of a tile's side where this form is the fastest for a convolution; nothing where the direct form is.
pub(super) fn best(conv: &Conv, maps: &[Map], lanes: usize) -> Option<usize> {
    let (w, input, output) = (&conv.window, &maps[conv.input], &maps[conv.output]);
    let fits = w.kernel == [3, 3] && w.stride == [1, 1] && w.dilation == [1, 1] && conv.groups == 1;
    if !fits || input.channels < lanes {
        return None;
    }
    let [from, to] = [input, output].map(|m| m.channels.next_multiple_of(lanes) as f64);
    // In products. A transformed number costs some, a weight that comes from beyond the second cache too.
    let weights = |positions: f64| {
        let count = positions * from * to;
        if count * 4.0 > SECOND_CACHE { count * FAR_WEIGHT } else { 0.0 }
    };
    let direct = 9.0 * from * to * (output.height * output.width) as f64 + weights(9.0);
    let cost = |m: usize| {
        let tiles = (output.height.div_ceil(m) * output.width.div_ceil(m)) as f64;
        let positions = ((m + 2) * (m + 2)) as f64;
        tiles * positions * (from * to + TRANSFORM * (from + to)) + weights(positions)
    };
    let (two, four) = (cost(2), cost(4));
    (two.min(four) < direct).then_some(if four < two { 4 } else { 2 })
}

/// A convolution in Winograd's form.
pub(super) struct Winograd {
    place: Place,
    end: End,
    /// Outputs of a tile's side: 2 or 4.
    side: usize,
    /// For each block of output channels `[position][input channel][vector][lane]`.
    weights: Buffer<f32>,
    bias: Buffer<f32>,
    blocks: Vec<Block>,
    /// Numbers of a tile at one position: the input channels, padded.
    stride: usize,
    lanes: usize,
    /// Tiles in a row, in all, and at a time.
    across: usize,
    tiles: usize,
    block: usize,
}

/// Columns and rows behind the map that the last tile's windows cover.
pub(super) fn halo_after(side: usize, conv: &Conv, maps: &[Map]) -> [usize; 2] {
    std::array::from_fn(|i| {
        let (from, to) = (maps[conv.input].side(i), maps[conv.output].side(i));
        (to.next_multiple_of(side) + 2).saturating_sub(conv.window.before[i] + from)
    })
}

impl Winograd {
    pub fn new(
        side: usize,
        conv: &Conv,
        lanes: usize,
        input: &Layout,
        output: &Layout,
        residual: Option<&Layout>,
    ) -> Self {
        let transform = if side == 2 { transformed::<Two, 4, 2> } else { transformed::<Four, 6, 4> };
        let (channels, outputs, positions) = (input.channels, output.channels, (side + 2) * (side + 2));
        let [stride, padded] = [channels, outputs].map(|c| c.next_multiple_of(lanes));
        let blocks = blocks(outputs, lanes);
        let mut weights = Buffer::new(padded * positions * channels, 0.0);
        let values = weights.values();
        for block in &blocks {
            let width = block.vectors * lanes;
            // Output channels inside: what they write lies side by side.
            for i in 0..channels {
                for o in block.channel..(block.channel + width).min(outputs) {
                    let window = &conv.weight[(o * channels + i) * 9..][..9];
                    let to = block.channel * positions * channels + o - block.channel;
                    transform(window, &mut |position, weight| values[to + (position * channels + i) * width] = weight);
                }
            }
        }
        let mut bias = Buffer::new(padded, 0.0);
        bias.values()[..outputs].copy_from_slice(&conv.bias);
        let (down, across) = (output.height.div_ceil(side), output.width.div_ceil(side));
        let (tiles, most) = (down * across, (BLOCK / (positions * channels)).max(8));
        Self {
            place: Place::new(conv.window, input, output, residual),
            end: End::new(conv),
            side,
            weights,
            bias,
            blocks,
            stride,
            lanes,
            across,
            tiles,
            block: tiles.div_ceil(tiles.div_ceil(most)),
        }
    }

    fn positions(&self) -> usize {
        (self.side + 2) * (self.side + 2)
    }

    /// Transformed input comes first in the scratch memory, products behind.
    fn inputs_len(&self) -> usize {
        self.positions() * self.block * self.stride
    }

    /// Numbers of scratch memory.
    pub fn scratch(&self) -> usize {
        self.inputs_len() + self.positions() * self.block * VECTORS * self.lanes
    }
}

/// [`Winograd`] on its data.
pub(super) struct RunWinograd<'a>(pub &'a Winograd, pub Data);

impl Kernel for RunWinograd<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<V: Vector>(self) {
        // SAFETY: vouched for by the caller.
        unsafe {
            match self.0.side {
                2 => self.all::<V, Two, 4, 2>(),
                _ => self.all::<V, Four, 6, 4>(),
            }
        }
    }
}

impl RunWinograd<'_> {
    /// # Safety
    /// The processor must have the set of `V`; the data must be that of the convolution.
    #[inline(always)]
    unsafe fn all<V: Vector, F: Form<IN, OUT>, const IN: usize, const OUT: usize>(&self) {
        let Self(conv, data) = self;
        let (inputs, products) = (data.scratch, data.scratch.wrapping_add(conv.inputs_len()));
        for first in (0..conv.tiles).step_by(conv.block) {
            let count = conv.block.min(conv.tiles - first);
            // SAFETY: tiles and blocks of this convolution, whose scratch memory holds a block of tiles.
            unsafe {
                for tile in 0..count {
                    self.transform::<V, F, IN, OUT>(first + tile, inputs.add(tile * conv.stride));
                }
                for block in &conv.blocks {
                    match block.vectors {
                        1 => self.products::<V, 1>(count, *block, inputs, products),
                        2 => self.products::<V, 2>(count, *block, inputs, products),
                        _ => self.products::<V, VECTORS>(count, *block, inputs, products),
                    }
                    let width = block.vectors * V::LANES;
                    for tile in 0..count {
                        for lane in (0..width).step_by(V::LANES) {
                            let from = products.add(tile * width + lane);
                            let channel = block.channel + lane;
                            if data.residual.is_null() {
                                self.finish::<V, F, IN, OUT, false>(first + tile, channel, from, conv.block * width);
                            } else {
                                self.finish::<V, F, IN, OUT, true>(first + tile, channel, from, conv.block * width);
                            }
                        }
                    }
                }
            }
        }
    }

    /// First row and column of a tile.
    #[inline(always)]
    fn corner(&self, tile: usize) -> [usize; 2] {
        [tile / self.0.across * self.0.side, tile % self.0.across * self.0.side]
    }

    /// `Bᵀ x B` of one tile, to `[position][tile][channel]`.
    ///
    /// # Safety
    /// The processor must have the set of `V`; the tile must exist, and `to` be its place in the scratch memory.
    #[inline(always)]
    unsafe fn transform<V: Vector, F: Form<IN, OUT>, const IN: usize, const OUT: usize>(
        &self,
        tile: usize,
        to: *mut f32,
    ) {
        let Self(conv, data) = self;
        let (input, [y, x]) = (&conv.place.input, self.corner(tile));
        let step = conv.block * conv.stride;
        // SAFETY: the layout's halo covers whole tiles, its pixels whole vectors.
        unsafe {
            let from = data.input.add(conv.place.start(y, x));
            for channel in (0..input.channels).step_by(V::LANES) {
                let at = from.add(channel);
                let mut columns = [[V::splat(0.0); IN]; IN];
                for x in 0..IN {
                    let mut d = [V::splat(0.0); IN];
                    for y in 0..IN {
                        d[y] = V::load(at.add(y * input.row + x * input.pixel));
                    }
                    columns[x] = F::input(d);
                }
                for y in 0..IN {
                    let mut d = [V::splat(0.0); IN];
                    for x in 0..IN {
                        d[x] = columns[x][y];
                    }
                    let row = F::input(d);
                    for x in 0..IN {
                        row[x].store(to.add((y * IN + x) * step + channel));
                    }
                }
            }
        }
    }

    /// Products of `count` tiles with one block of output channels, to `[position][tile][channel]`.
    ///
    /// # Safety
    /// The processor must have the set of `V`; `inputs` and `products` must be the scratch memory's parts.
    #[inline(always)]
    unsafe fn products<V: Vector, const B: usize>(
        &self,
        count: usize,
        block: Block,
        inputs: *const f32,
        products: *mut f32,
    ) {
        let conv = self.0;
        let channels = conv.place.input.channels;
        for position in 0..conv.positions() {
            let mut done = 0;
            let mut tiles = count.div_ceil(most_pixels::<V>(B));
            while tiles > 0 {
                let pixels = (count - done).div_ceil(tiles);
                // SAFETY: vouched for by the caller; weights hold every block and position.
                unsafe {
                    let weights = (block.channel * conv.positions() + position * B * V::LANES) * channels;
                    let weights = conv.weights.as_ptr().add(weights);
                    let from = inputs.add((position * conv.block + done) * conv.stride);
                    let to = products.add((position * conv.block + done) * B * V::LANES);
                    with_pixels!(pixels, const { most_pixels::<V>(B) }, |P| {
                        multiply::<V, P, B>([channels, conv.stride], from, weights, to)
                    });
                }
                done += pixels;
                tiles -= 1;
            }
        }
    }

    /// `Aᵀ · products · A` of one tile and vector, finished and stored; what lies beyond the map is left out.
    ///
    /// # Safety
    /// The processor must have the set of `V`; `from` must be the tile's first product, `step` lead to the next position,
    /// and with `RESIDUAL` there must be one.
    #[inline(always)]
    unsafe fn finish<V: Vector, F: Form<IN, OUT>, const IN: usize, const OUT: usize, const RESIDUAL: bool>(
        &self,
        tile: usize,
        channel: usize,
        from: *const f32,
        step: usize,
    ) {
        let Self(conv, data) = self;
        let (place, [y, x]) = (&conv.place, self.corner(tile));
        let (rows, across) = ((place.output.height - y).min(OUT), (place.output.width - x).min(OUT));
        // SAFETY: vouched for by the caller; rows and columns of the output.
        unsafe {
            let bias = V::load(conv.bias.as_ptr().add(channel));
            let mut columns = [[bias; OUT]; IN];
            for x in 0..IN {
                let mut m = [bias; IN];
                for y in 0..IN {
                    m[y] = V::load(from.add((y * IN + x) * step));
                }
                columns[x] = F::output(m);
            }
            for dy in 0..rows {
                let mut m = [bias; IN];
                for x in 0..IN {
                    m[x] = columns[x][dy];
                }
                let sums = F::output(m);
                let to = data.output.add(place.output.at(y + dy, x) + channel);
                let other = data.residual.wrapping_add(place.residual_at(y + dy, x) + channel);
                for dx in 0..OUT {
                    if dx < across {
                        let at = dx * place.output.pixel;
                        conv.end.store::<V, RESIDUAL>(sums[dx].add(bias), other.wrapping_add(at), to.add(at));
                    }
                }
            }
        }
    }
}

/// `P` tiles times `B` vectors of weights at one position.
///
/// # Safety
/// The processor must have the set of `V`; `from` must be readable for the tiles, `to` writable for their products.
#[inline(always)]
unsafe fn multiply<V: Vector, const P: usize, const B: usize>(
    [channels, stride]: [usize; 2],
    from: *const f32,
    weights: *const f32,
    to: *mut f32,
) {
    // SAFETY: vouched for by the caller.
    unsafe {
        let pixels: [*const f32; P] = std::array::from_fn(|p| from.add(p * stride));
        let sums = tile::<V, P, B>([V::splat(0.0); B], pixels, &[Run { offset: 0, count: channels }], weights);
        for p in 0..P {
            for b in 0..B {
                sums[p][b].store(to.add((p * B + b) * V::LANES));
            }
        }
    }
}
