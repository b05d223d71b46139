//! 3×3 convolutions of stride 1 with 2.25 times fewer multiplications: Winograd's F(2×2, 3×3), in integers and exact.
//!
//! A tile of 2×2 outputs is `Aᵀ[(G w Gᵀ) ⊙ (Bᵀ x B)]A`. With `2G` in place of `G` every entry is whole, and the result is
//! four times the sum, which the requantization's scale takes back: a power of two, so the very same float. Transformed
//! codes and weights fit 16 bits (`|Bᵀ x B| ≤ 4·255`, `|2G w 2Gᵀ| ≤ 9·128`). Sums between may wrap in 32 bits; the last
//! one does not, and arithmetic modulo 2³² is exact for it.
//!
//! It pays for sets that multiply in 16 bits. Where four bytes are multiplied at once, the direct form is as fast.

use super::buffer::Buffer;
use super::dot::{Dot, Task};
use super::end::{Data, End, Place, Special};
use super::network::Layout;
use super::{Conv, Map};

/// A set whose codes have 16 bits, with what the transforms need. Unsafe as [`Dot`] is.
pub(super) trait Wide: Dot<Code = i16, Weight = i16> {
    unsafe fn plus_codes(a: Self::Operand, b: Self::Operand) -> Self::Operand;
    unsafe fn minus_codes(a: Self::Operand, b: Self::Operand) -> Self::Operand;
    unsafe fn no_sum() -> Self::Sum;
    /// Wraps.
    unsafe fn plus(a: Self::Sum, b: Self::Sum) -> Self::Sum;
    /// Wraps.
    unsafe fn minus(a: Self::Sum, b: Self::Sum) -> Self::Sum;
}

/// Positions of a transformed tile.
const POSITIONS: usize = 16;
/// Tiles and vectors of channels that a register tile of the products holds.
const TILES: usize = 4;
const VECTORS: usize = 2;
/// Most input channels: four times the largest sum stays within 32 bits.
const MAX_CHANNELS: usize = 1024;
/// Transformed codes that are worked on at a time, bytes.
const BLOCK_BYTES: usize = 16 << 10;

/// A convolution in Winograd's form.
pub(super) struct Winograd<D: Wide> {
    place: Place,
    end: End,
    /// `[VECTORS of output channels][position][pair of input channels][lane][2]`.
    weights: Buffer<i16>,
    /// Output channels, padded.
    outputs: usize,
    /// Tiles in a row, in all, and at a time.
    across: usize,
    tiles: usize,
    block: usize,
    set: std::marker::PhantomData<D>,
}

/// Whether a convolution has this form for the set, and channels that fill its vectors.
pub(super) fn fits<D: Wide>(conv: &Conv, input: &Layout, output: &Layout) -> bool {
    let w = &conv.window;
    w.kernel == [3, 3]
        && w.stride == [1, 1]
        && w.dilation == [1, 1]
        && conv.groups == 1
        && input.stride.is_multiple_of(D::LANES * D::GROUP)
        && input.stride <= MAX_CHANNELS
        && output.channels.next_multiple_of(D::LANES).is_multiple_of(VECTORS * D::LANES)
}

impl<D: Wide> Winograd<D> {
    pub fn new(conv: &Conv, maps: &[Map], input: &Layout, output: &Layout, residual: Option<&Layout>) -> Self {
        let (channels, lanes) = (maps[conv.input].channels, D::LANES * VECTORS);
        let outputs = output.channels.next_multiple_of(D::LANES);
        let mut weights = Buffer::new(outputs * POSITIONS * input.stride, 0i16);
        let values = weights.values();
        for (filter, w) in conv.weight.chunks_exact(9).enumerate() {
            let (o, i) = (filter / channels, filter % channels);
            for (position, &weight) in transform(w).iter().enumerate() {
                let pair = ((o / lanes * POSITIONS + position) * input.stride / 2) + i / 2;
                values[(pair * lanes + o % lanes) * 2 + i % 2] = weight;
            }
        }
        let (down, across) = (output.height.div_ceil(2), output.width.div_ceil(2));
        let fitting = BLOCK_BYTES / (POSITIONS * input.stride * size_of::<i16>());
        let block = fitting.clamp(TILES, 16).min((down * across).next_multiple_of(TILES)) / TILES * TILES;
        Self {
            place: Place::new(conv.window, input, output, residual),
            end: End::new::<D>(conv, maps, &End::in_order::<D>(output.channels), 0.25),
            weights,
            outputs,
            across,
            tiles: down * across,
            block,
            set: std::marker::PhantomData,
        }
    }

    /// Transformed codes come first in the scratch memory, products behind.
    fn codes_len(&self) -> usize {
        POSITIONS * self.block * self.place.input.stride
    }

    /// Codes of one tile, transformed, to `[position][tile][channel]`.
    ///
    /// # Safety
    /// The processor must have the set; the tile must exist, `input` be the layout's, and `to` the block's codes.
    #[inline(always)]
    unsafe fn transform_codes(&self, tile: usize, input: &[i16], to: *mut i16) {
        let from = self.place.start(tile / self.across * 2, tile % self.across * 2);
        let (layout, step) = (&self.place.input, self.block * self.place.input.stride);
        debug_assert!(from + 3 * layout.row + 4 * layout.stride <= input.len());
        // SAFETY: the layout's halo covers whole tiles.
        unsafe {
            for channel in (0..layout.stride).step_by(D::LANES * D::GROUP) {
                let at = input.as_ptr().add(from + channel);
                // Down the columns, then along the rows.
                let columns: [[D::Operand; 4]; 4] = std::array::from_fn(|x| {
                    let d: [D::Operand; 4] =
                        std::array::from_fn(|y| D::load_codes(at.add(y * layout.row + x * layout.stride)));
                    Self::four(d)
                });
                for y in 0..4 {
                    let row = Self::four([columns[0][y], columns[1][y], columns[2][y], columns[3][y]]);
                    for x in 0..4 {
                        D::store_codes(row[x], to.add((y * 4 + x) * step + channel));
                    }
                }
            }
        }
    }

    /// `Bᵀ` times a column.
    ///
    /// # Safety
    /// The processor must have the set.
    #[inline(always)]
    unsafe fn four(d: [D::Operand; 4]) -> [D::Operand; 4] {
        // SAFETY: vouched for by the caller.
        unsafe {
            [
                D::minus_codes(d[0], d[2]),
                D::plus_codes(d[1], d[2]),
                D::minus_codes(d[2], d[1]),
                D::minus_codes(d[1], d[3]),
            ]
        }
    }

    /// Products of the block's tiles with `VECTORS` of output channels, to `[position][tile][channel]`.
    ///
    /// # Safety
    /// The processor must have the set; `codes` and `products` must be the block's.
    #[inline(always)]
    unsafe fn products(&self, group: usize, codes: *const i16, products: *mut i32) {
        let (channels, lanes) = (self.place.input.stride, D::LANES * VECTORS);
        // SAFETY: scratch memory holds whole blocks, the weights every group.
        unsafe {
            for position in 0..POSITIONS {
                let weights = self.weights.as_ptr().add((group * POSITIONS + position) * channels * lanes);
                for tile in (0..self.block).step_by(TILES) {
                    let codes = codes.add((position * self.block + tile) * channels);
                    let mut sums = [[D::no_sum(); VECTORS]; TILES];
                    for pair in 0..channels / 2 {
                        let at = weights.add(pair * lanes * 2);
                        let w: [D::Operand; VECTORS] = std::array::from_fn(|b| D::weights(at.add(b * D::LANES * 2)));
                        for p in 0..TILES {
                            let x = D::splat(codes.add(p * channels + pair * 2));
                            for b in 0..VECTORS {
                                sums[p][b] = D::dot(sums[p][b], x, w[b]);
                            }
                        }
                    }
                    let to = products.add((position * self.block + tile) * lanes);
                    for p in 0..TILES {
                        for b in 0..VECTORS {
                            D::store_sums(sums[p][b], to.add(p * lanes + b * D::LANES));
                        }
                    }
                }
            }
        }
    }

    /// `Aᵀ · products · A` of one tile and vector: sums of 2×2 pixels, four times too large.
    ///
    /// # Safety
    /// The processor must have the set; `from` must be the tile's first product, `step` lead to the next position.
    #[inline(always)]
    unsafe fn pixels(from: *const i32, step: usize) -> [[D::Sum; 2]; 2] {
        // SAFETY: vouched for by the caller.
        unsafe {
            let two = |m: [D::Sum; 4]| [D::plus(D::plus(m[0], m[1]), m[2]), D::minus(D::minus(m[1], m[2]), m[3])];
            let columns: [[D::Sum; 2]; 4] =
                std::array::from_fn(|x| two(std::array::from_fn(|y| D::sums(from.add((y * 4 + x) * step)))));
            std::array::from_fn(|y| two(std::array::from_fn(|x| columns[x][y])))
        }
    }
}

/// `2G w 2Gᵀ`.
fn transform(w: &[i8]) -> [i16; POSITIONS] {
    let four = |g: [i16; 3]| [2 * g[0], g[0] + g[1] + g[2], g[0] - g[1] + g[2], 2 * g[2]];
    let at = |y: usize, x: usize| i16::from(w[y * 3 + x]);
    let columns: [[i16; 4]; 3] = std::array::from_fn(|x| four([at(0, x), at(1, x), at(2, x)]));
    let rows: [[i16; 4]; 4] = std::array::from_fn(|y| four([columns[0][y], columns[1][y], columns[2][y]]));
    std::array::from_fn(|p| rows[p / 4][p % 4])
}

struct Run<'a, D: Wide>(&'a Winograd<D>, Data<'a, D>);

impl<D: Wide> Task<D> for Run<'_, D> {
    type Output = ();

    #[inline(always)]
    unsafe fn run(self) {
        let Self(conv, data) = self;
        let (output, lanes) = (&conv.place.output, D::LANES * VECTORS);
        let codes: *mut i16 = data.scratch.cast();
        // SAFETY: the scratch memory is as large as `Special::scratch` asked for; tiles, groups and pixels are those of
        // this convolution; the caller vouches for set and data.
        unsafe {
            let products = codes.add(conv.codes_len()).cast::<i32>();
            let end = conv.end.lanes::<D>();
            for first in (0..conv.tiles).step_by(conv.block) {
                let count = conv.block.min(conv.tiles - first);
                for tile in 0..count {
                    conv.transform_codes(first + tile, data.input, codes.add(tile * conv.place.input.stride));
                }
                for group in 0..conv.outputs / lanes {
                    conv.products(group, codes, products);
                    for tile in 0..count {
                        let (y, x) = ((first + tile) / conv.across * 2, (first + tile) % conv.across * 2);
                        for b in 0..VECTORS {
                            let from = products.add(tile * lanes + b * D::LANES);
                            let sums = Self::pixels_of(from, conv.block * lanes);
                            let channel = group * lanes + b * D::LANES;
                            for (i, sum) in sums.into_iter().enumerate() {
                                let (y, x) = (y + i / 2, x + i % 2);
                                if y < output.height && x < output.width {
                                    let to = data.output.add(output.at(y, x) + channel);
                                    let other = conv.place.residual_at(data, y, x, channel);
                                    end.apply_any(sum, channel, other, to);
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

impl<D: Wide> Run<'_, D> {
    /// # Safety
    /// As [`Winograd::pixels`].
    #[inline(always)]
    unsafe fn pixels_of(from: *const i32, step: usize) -> [D::Sum; 4] {
        // SAFETY: vouched for by the caller.
        let [[a, b], [c, d]] = unsafe { Winograd::<D>::pixels(from, step) };
        [a, b, c, d]
    }
}

impl<D: Wide> Special<D> for Winograd<D> {
    fn scratch(&self) -> usize {
        self.codes_len() / 2 + POSITIONS * self.block * D::LANES * VECTORS
    }

    unsafe fn run(&self, data: Data<'_, D>) {
        // SAFETY: vouched for by the caller.
        unsafe { D::enter(Run(self, data)) }
    }
}
