//! The kernels' text, their names, and one typed function per kernel that chooses its grid.
//!
//! A function asks for work and returns at once. Shapes are the caller's to get right; the functions state what they
//! take. `map`s are in the device's precision, everything else is `f32` or `i32`.

mod explain;
mod loss;
mod norm;

use super::device::{Address, Argument, Device, Product};
use super::memory::{Block, Pool};
use crate::Result;
use crate::config::Precision;
use crate::kernel::EPSILON;
use excon_edge::kernel::Clip;
use std::rc::Rc;

/// Threads of every block.
pub(super) const THREADS: usize = 256;
/// Channels of a map come in whole packs of so many.
pub(super) const PACK: usize = 8;
/// Widest picture and map that the kernels take, pixels.
pub(super) const MAX_SIDE: usize = 1024;

/// The text of all kernels. `MAPS_BF16` decides about the type of maps.
pub(super) fn text(precision: Precision) -> String {
    let define = if precision == Precision::Bf16 { "#define MAPS_BF16\n" } else { "" };
    [
        define,
        include_str!("kernels/common.cu"),
        include_str!("kernels/norm.cu"),
        include_str!("kernels/pool.cu"),
        include_str!("kernels/pointwise.cu"),
        include_str!("kernels/loss.cu"),
        include_str!("kernels/augment.cu"),
        include_str!("kernels/explain.cu"),
    ]
    .concat()
}

/// Names of the kernels, as their text declares them.
pub(super) fn names(text: &str) -> Vec<&str> {
    let declared = text.split("extern \"C\" __global__ void ").skip(1);
    declared.map(|rest| rest.split('(').next().unwrap_or(rest)).collect()
}

/// A batch of maps, rows × height × width × channels.
#[derive(Clone)]
pub(super) struct Map {
    pub block: Rc<Block>,
    pub rows: usize,
    pub height: usize,
    pub width: usize,
    pub channels: usize,
}

impl Map {
    pub fn at(&self) -> Address {
        self.block.address()
    }

    pub fn pixels(&self) -> usize {
        self.rows * self.height * self.width
    }

    pub fn area(&self) -> usize {
        self.height * self.width
    }

    pub fn packs(&self) -> usize {
        self.pixels() * (self.channels / PACK)
    }

    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.pixels() * self.channels
    }
}

/// Rows × columns numbers of `f32`.
#[derive(Clone)]
pub(super) struct Matrix {
    pub block: Rc<Block>,
    pub rows: usize,
    pub columns: usize,
}

impl Matrix {
    pub fn at(&self) -> Address {
        self.block.address()
    }

    pub fn len(&self) -> usize {
        self.rows * self.columns
    }
}

/// Rows that do not count once each: see `norm.cu`.
#[derive(Clone)]
pub(super) struct Weights {
    /// One number per row.
    pub each: Rc<Block>,
    /// Their sum.
    pub total: Rc<Block>,
}

/// Where the running statistics, gamma and beta of one norm lie.
#[derive(Debug, Clone, Copy)]
pub(super) struct NormAt {
    pub gamma: Address,
    pub beta: Address,
    pub mean: Address,
    pub variance: Address,
}

/// What is known behind a norm on the way back.
pub(super) struct After<'a> {
    /// The gradient of the chain's output, one or two maps to be added.
    pub gradient: [Option<&'a Map>; 2],
    /// The output and its upper end, where it ends in an activation.
    pub gate: Option<(&'a Map, f32)>,
    /// Whether the gradient goes to a residual too.
    pub residual: bool,
}

/// Settings of an optimizer's step.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sgd {
    pub rate: f32,
    pub momentum: f32,
    pub decay: f32,
    pub nesterov: bool,
}

/// Windows of a pooling.
#[derive(Debug, Clone, Copy)]
pub(super) struct Windows {
    pub kernel: usize,
    pub stride: usize,
    pub padding: usize,
}

impl Windows {
    fn side(&self, side: usize) -> usize {
        (side + 2 * self.padding - self.kernel) / self.stride + 1
    }
}

/// A device with its memory: what the engine computes with.
#[derive(Clone)]
pub(super) struct Machine {
    pub pool: Rc<Pool>,
}

/// A number of things as the kernels take it.
fn int(value: usize) -> Argument {
    Argument::Int(value as i32)
}

fn long(value: usize) -> Argument {
    Argument::Long(value as i64)
}

fn at(address: Address) -> Argument {
    Argument::Pointer(address)
}

fn maybe(address: Option<Address>) -> Argument {
    Argument::Pointer(address.unwrap_or(0))
}

impl Machine {
    pub fn new(device: Rc<dyn Device>) -> Self {
        Self { pool: Pool::new(device) }
    }

    pub fn device(&self) -> &dyn Device {
        self.pool.device()
    }

    /// A map of any content.
    ///
    /// # Errors
    /// When there is no memory for it, or the kernels could not count its pixels and packs.
    pub fn map(&self, [rows, height, width, channels]: [usize; 4]) -> Result<Map> {
        let pixels = rows * height * width;
        if i32::try_from(pixels).is_err() || u32::try_from(pixels * channels.div_ceil(PACK)).is_err() {
            let reason =
                format!("{rows} × {height} × {width} × {channels} are too many numbers. Choose a smaller batch");
            return Err(super::fail("a map", reason));
        }
        let bytes = rows * height * width * channels * self.device().precision().bytes();
        Ok(Map { block: Rc::new(self.pool.take(bytes)?), rows, height, width, channels })
    }

    /// A map of the same shape, of any content.
    pub fn like(&self, map: &Map) -> Result<Map> {
        self.map([map.rows, map.height, map.width, map.channels])
    }

    /// A matrix of any content.
    pub fn matrix(&self, rows: usize, columns: usize) -> Result<Matrix> {
        Ok(Matrix { block: Rc::new(self.pool.floats(rows * columns)?), rows, columns })
    }

    /// One block per item.
    fn each(&self, kernel: &'static str, blocks: usize, arguments: &[Argument]) -> Result<()> {
        self.device().launch(kernel, (blocks, 1), arguments)
    }

    /// As many blocks as keep the device busy with `items`, a thread each or more.
    fn spread(&self, kernel: &'static str, items: usize, arguments: &[Argument]) -> Result<()> {
        let blocks = items.div_ceil(THREADS).clamp(1, 8 * self.device().width());
        self.device().launch(kernel, (blocks, 1), arguments)
    }

    /// How sums over `pixels` are cut: pixels per chunk, chunks, tiles of channels.
    fn chunks(&self, pixels: usize, channels: usize) -> (usize, usize, usize) {
        let packs = channels / PACK;
        let tiles = packs.div_ceil(packs.min(32));
        let lanes = THREADS / packs.min(32);
        let wanted = (4 * self.device().width()).div_ceil(tiles);
        let chunk = pixels.div_ceil(wanted).next_multiple_of(lanes);
        (chunk, pixels.div_ceil(chunk), tiles)
    }

    /// `to = clip(a + b?)`; `to` may be `a` or `b`.
    pub fn add(&self, a: &Map, b: Option<&Map>, clip: Clip, to: &Map) -> Result<()> {
        let (low, high) = (clip.low.into(), clip.high.into());
        let arguments = [at(a.at()), maybe(b.map(Map::at)), low, high, long(a.packs()), at(to.at())];
        self.spread("add", a.packs(), &arguments)
    }

    /// The gradient before a ReLU (`high` infinite) or ReLU6 whose output was `y`.
    pub fn gate(&self, gradient: &Map, y: &Map, high: f32) -> Result<Map> {
        let to = self.like(y)?;
        self.spread("gate", y.packs(), &[at(gradient.at()), at(y.at()), high.into(), long(y.packs()), at(to.at())])?;
        Ok(to)
    }

    /// Mean over each map: rows × channels.
    pub fn global_pool(&self, x: &Map) -> Result<Matrix> {
        let y = self.matrix(x.rows, x.channels)?;
        let arguments = [at(x.at()), int(x.rows), int(x.area()), int(x.channels), at(y.at())];
        self.spread("global_pool", x.rows * x.channels / PACK, &arguments)?;
        Ok(y)
    }

    /// The gradient of a map of the shape of `x` from that of its mean.
    pub fn global_pool_gradient(&self, gradient: &Matrix, x: &Map) -> Result<Map> {
        let dx = self.like(x)?;
        let arguments = [at(gradient.at()), int(x.rows), int(x.area()), int(x.channels), at(dx.at())];
        self.spread("global_pool_gradient", dx.packs(), &arguments)?;
        Ok(dx)
    }

    /// Maximum over windows.
    pub fn max_pool(&self, x: &Map, windows: Windows) -> Result<Map> {
        let y = self.map([x.rows, windows.side(x.height), windows.side(x.width), x.channels])?;
        let shape = [x.rows, x.height, x.width, x.channels].map(int);
        let window = [windows.kernel, windows.stride, windows.padding, y.height, y.width].map(int);
        let arguments = [&[at(x.at())][..], &shape, &window, &[at(y.at())]].concat();
        self.spread("max_pool", y.packs(), &arguments)?;
        Ok(y)
    }

    /// The gradient of `x` from that of its pooled map `y`.
    pub fn max_pool_gradient(&self, x: &Map, y: &Map, gradient: &Map, windows: Windows) -> Result<Map> {
        let dx = self.like(x)?;
        let shape = [x.rows, x.height, x.width, x.channels].map(int);
        let window = [windows.kernel, windows.stride, windows.padding, y.height, y.width].map(int);
        let arguments = [&[at(x.at()), at(y.at()), at(gradient.at())][..], &shape, &window, &[at(dx.at())]].concat();
        self.spread("max_pool_gradient", dx.packs(), &arguments)?;
        Ok(dx)
    }

    /// `y += bias` by rows.
    pub fn bias(&self, y: &Matrix, bias: Address) -> Result<()> {
        self.spread("bias", y.len(), &[at(y.at()), at(bias), long(y.len()), int(y.columns)])
    }

    /// `max(x, 0)`.
    pub fn relu_matrix(&self, x: &Matrix) -> Result<Matrix> {
        let y = self.matrix(x.rows, x.columns)?;
        self.spread("relu_matrix", x.len(), &[at(x.at()), long(x.len()), at(y.at())])?;
        Ok(y)
    }

    /// The gradient before a ReLU whose output was `y`, in place.
    pub fn gate_matrix(&self, gradient: &Matrix, y: &Matrix) -> Result<()> {
        self.spread("gate_matrix", y.len(), &[at(gradient.at()), at(y.at()), long(y.len())])
    }

    /// Sums of the columns.
    pub fn column_sums(&self, x: &Matrix, to: Address) -> Result<()> {
        let arguments = [at(x.at()), int(x.rows), int(x.columns), at(to)];
        self.each("column_sums", x.columns.div_ceil(32), &arguments)
    }

    /// Moves `count` parameters by their gradients.
    pub fn sgd(&self, parameter: Address, momentum: Address, gradient: Address, count: usize, step: Sgd) -> Result<()> {
        let arguments = [at(parameter), at(momentum), at(gradient), long(count)];
        self.spread("sgd", count, &[&arguments[..], &step.arguments()].concat())
    }

    /// As [`Self::sgd`] for weights of convolutions, whose gradient and working copy have the maps' precision.
    pub fn sgd_weights(
        &self,
        parameter: Address,
        momentum: Address,
        gradient: Address,
        copy: Address,
        count: usize,
        step: Sgd,
    ) -> Result<()> {
        let arguments = [at(parameter), at(momentum), at(gradient), at(copy), long(count)];
        self.spread("sgd_weights", count, &[&arguments[..], &step.arguments()].concat())
    }

    /// Numbers of `f32` in the maps' precision.
    pub fn to_maps(&self, from: Address, count: usize, to: Address) -> Result<()> {
        self.spread("to_maps", count, &[at(from), long(count), at(to)])
    }

    /// Renders views (`count` descriptions of 64 bytes, see `augment.cu`) of pictures of `side` × `side` into `to`, a map of
    /// [`PACK`] channels, from its row `row` on.
    pub fn views(
        &self,
        pictures: &Block,
        views: &Block,
        count: usize,
        (mean, std): ([f32; 3], [f32; 3]),
        to: &Map,
        row: usize,
    ) -> Result<()> {
        let colours = [mean, std].concat().into_iter().map(Argument::Float);
        let mut arguments = vec![at(pictures.address()), at(views.address()), int(to.width)];
        arguments.extend(colours);
        arguments.push(at(self.row(to, row)));
        self.each("views", count, &arguments)
    }

    /// Where a row of a map begins.
    pub fn row(&self, map: &Map, row: usize) -> Address {
        map.at() + (row * map.area() * map.channels * self.device().precision().bytes()) as Address
    }

    /// `c (m × n) = factor · op(a) · op(b) [+ c]` on row-major matrices; with `transpose` an operand is stored the other
    /// way round.
    pub fn product(
        &self,
        [m, n, k]: [usize; 3],
        transpose: [bool; 2],
        (a, b, c): (Address, Address, Address),
        (factor, add, exact): (f32, bool, bool),
    ) -> Result<()> {
        // What is row-major is column-major transposed, and c' = b' a'.
        let columns = |transposed, stored, other| if transposed { other } else { stored };
        let a = (a, columns(transpose[0], k, m));
        let b = (b, columns(transpose[1], n, k));
        let transpose = [transpose[1], transpose[0]];
        let product = Product { transpose, m: n, n: m, k, factor, a: b, b: a, c: (c, n), add, exact };
        self.device().multiply(&product)
    }
}

impl Sgd {
    fn arguments(self) -> [Argument; 4] {
        [self.rate.into(), self.momentum.into(), self.decay.into(), self.nesterov.into()]
    }
}
