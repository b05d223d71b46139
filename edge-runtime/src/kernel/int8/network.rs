//! A graph made ready for one instruction set: layouts, packed weights, and arenas that a run borrows.

use super::buffer::Buffer;
use super::dense::{Dense, RunDense};
use super::depthwise::{self, Depthwise, RunDepthwise};
use super::dot::{Code, Dot};
use super::elementwise::{Classify, MaxPool, Quantize, RunMaxPool, RunSum, Sum};
use super::end::{Data, Special};
use super::sets;
use super::{Graph, Map, MapId, Step};
use crate::kernel::Isa;
use crate::kernel::graph::{Executor, MAX_ARENA, StepDescription, describe};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

/// Makes a graph ready for an instruction set; one the processor lacks falls back to [`Isa::Portable`], and AVX-512 without
/// VNNI to AVX2.
///
/// # Errors
/// As [`Graph::check`], or when the maps or spread-out weights need too much memory.
pub fn build(graph: &Graph, isa: Isa) -> Result<Box<dyn Executor>, String> {
    graph.check()?;
    match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512Vnni if isa.is_available() => Ok(Box::new(Network::<sets::Avx512Vnni>::new(graph, isa)?)),
        #[cfg(target_arch = "x86_64")]
        Isa::AvxVnni if isa.is_available() => Ok(Box::new(Network::<sets::AvxVnni>::new(graph, isa)?)),
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 | Isa::Avx512 if isa.is_available() => Ok(Box::new(Network::<sets::Avx2>::new(graph, Isa::Avx2)?)),
        #[cfg(target_arch = "aarch64")]
        Isa::NeonI8mm if isa.is_available() => Ok(Box::new(Network::<sets::NeonI8mm>::new(graph, isa)?)),
        #[cfg(target_arch = "aarch64")]
        Isa::NeonDot if isa.is_available() => Ok(Box::new(Network::<sets::NeonDot>::new(graph, isa)?)),
        #[cfg(target_arch = "aarch64")]
        Isa::Neon => Ok(Box::new(Network::<sets::Neon>::new(graph, isa)?)),
        _ => Ok(Box::new(Network::<sets::Portable>::new(graph, Isa::Portable)?)),
    }
}

/// How a map lies in memory: rows of pixels of `stride` codes, a halo around.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Layout {
    pub channels: usize,
    pub height: usize,
    pub width: usize,
    /// Codes from pixel to pixel: the channels, padded.
    pub stride: usize,
    /// Codes from row to row.
    pub row: usize,
    top: usize,
    left: usize,
    len: usize,
    /// The halo's value.
    zero: i32,
}

impl Layout {
    fn new(map: &Map, stride: usize, before: [usize; 2], after: [usize; 2], zero: i32) -> Self {
        let row = (before[1] + map.width + after[1]) * stride;
        Self {
            channels: map.channels,
            height: map.height,
            width: map.width,
            stride,
            row,
            top: before[0],
            left: before[1],
            len: (before[0] + map.height + after[0]) * row,
            zero,
        }
    }

    /// Whether each row begins where the last one ends.
    pub fn is_flat(&self) -> bool {
        self.row == self.width * self.stride
    }

    /// First code of a pixel.
    #[inline(always)]
    pub fn at(&self, y: usize, x: usize) -> usize {
        (y + self.top) * self.row + (x + self.left) * self.stride
    }

    /// First code of the pixel `up` above and `back` left of a pixel, which may lie in the halo.
    #[inline(always)]
    pub fn halo_at(&self, y: usize, up: usize, x: usize, back: usize) -> usize {
        (y + self.top - up) * self.row + (x + self.left - back) * self.stride
    }
}

/// A step on the arena's slots.
struct Ready<D: Dot> {
    work: Work<D>,
    input: usize,
    residual: Option<usize>,
    output: usize,
}

enum Work<D: Dot> {
    Dense(Dense<D>),
    Depthwise(Depthwise<D>),
    Special(Box<dyn Special<D>>),
    Sum(Sum),
    MaxPool(MaxPool<D>),
}

impl<D: Dot> Work<D> {
    fn scratch(&self) -> usize {
        if let Self::Special(work) = self { work.scratch() } else { 0 }
    }
}

/// Memory of one run at a time.
struct Arena<D: Dot> {
    slots: Vec<Buffer<D::Code>>,
    pooled: Buffer<f32>,
    scratch: Buffer<i32>,
}

struct Network<D: Dot> {
    graph: Graph,
    isa: Isa,
    layouts: Vec<Layout>,
    steps: Vec<Ready<D>>,
    /// Slot of each map, and the layout each slot was made for: maps share one when their lives do not overlap.
    slot: Vec<usize>,
    slots: Vec<Layout>,
    descriptions: Vec<StepDescription>,
    /// Arenas that no run uses at the moment.
    idle: Mutex<Vec<Arena<D>>>,
}

impl<D: Dot> Network<D> {
    fn new(graph: &Graph, isa: Isa) -> Result<Self, String> {
        let layouts = layouts::<D>(graph);
        let (slot, slots) = assign(graph, &layouts);
        if slots.iter().fold(0usize, |n, l| n.saturating_add(l.len)) > MAX_ARENA {
            return Err(format!("its maps need more than {MAX_ARENA} values at once"));
        }
        let mut ready = Vec::with_capacity(graph.steps.len());
        for step in &graph.steps {
            ready.push(prepare::<D>(step, &graph.maps, &layouts, &slot)?);
        }
        let descriptions = describe(graph, "quantize");
        // The packed copy stands for the weights from here on.
        let mut graph = graph.clone();
        graph.steps.clear();
        Ok(Self { graph, isa, layouts, steps: ready, slot, slots, descriptions, idle: Mutex::default() })
    }

    fn arena(&self) -> Arena<D> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        idle.unwrap_or_else(|| Arena {
            slots: self.slots.iter().map(|l| Buffer::new(l.len, D::Code::new(l.zero))).collect(),
            pooled: Buffer::new(self.graph.results().map(|m| self.layouts[m].channels).max().unwrap_or(0), 0.0),
            scratch: Buffer::new(self.steps.iter().map(|s| s.work.scratch()).max().unwrap_or(0), 0),
        })
    }
}

impl<D: Dot> Network<D> {
    /// Runs one picture; `done` is called behind each step.
    #[inline(always)]
    fn execute(&self, image: &[f32], logits: &mut [f32], features: &mut [f32], mut done: impl FnMut(usize)) {
        let graph = &self.graph;
        assert_eq!(image.len(), graph.values(0..graph.given), "picture");
        assert_eq!(features.len(), graph.values(graph.results()), "features");
        assert_eq!(logits.len(), graph.head.bias.len(), "logits");
        let mut arena = self.arena();
        let mut rest = image;
        for map in 0..graph.given {
            let (image, others) = rest.split_at(graph.values(map..map + 1));
            let (codes, output) = (graph.maps[map].codes, arena.slots[self.slot[map]].values());
            // SAFETY: a network is only built for a set the processor has.
            unsafe { D::enter(Quantize::<D> { image, codes, layout: self.layouts[map], output }) };
            rest = others;
        }
        done(0);
        for (at, step) in self.steps.iter().enumerate() {
            // Taken out so that the other slots can be read beside it; no memory moves.
            let mut output = std::mem::replace(&mut arena.slots[step.output], Buffer::new(0, D::Code::new(0)));
            let from = arena.slots[step.input].as_slice();
            let residual = step.residual.map(|r| arena.slots[r].as_slice());
            let scratch = arena.scratch.as_mut_ptr();
            let data = Data { input: from, residual, output: output.as_mut_ptr(), scratch };
            // SAFETY: as above; every slot was made for the layouts of the maps that live in it.
            unsafe {
                match &step.work {
                    Work::Dense(conv) => D::enter(RunDense(conv, data)),
                    Work::Depthwise(conv) => D::enter(RunDepthwise(conv, data)),
                    Work::Special(work) => work.run(data),
                    Work::Sum(sum) => D::enter(RunSum(sum, data)),
                    Work::MaxPool(pool) => D::enter(RunMaxPool(pool, from, output.values())),
                }
            }
            arena.slots[step.output] = output;
            done(at + 1);
        }
        let Arena { slots, pooled, .. } = &mut arena;
        let mut rest = features;
        for (at, map) in graph.results().enumerate() {
            let (features, others) = rest.split_at_mut(graph.values(map..map + 1));
            let last = at == graph.handed.len();
            let (weight, bias): (&[f32], &[f32]) =
                if last { (&graph.head.weight, &graph.head.bias) } else { (&[], &[]) };
            let layout = self.layouts[map];
            let classify = Classify::<D> {
                codes: graph.maps[map].codes,
                layout,
                input: slots[self.slot[map]].as_slice(),
                weight,
                bias,
                pooled: &mut pooled.values()[..layout.channels],
                features,
                logits: if last { &mut *logits } else { &mut [] },
            };
            // SAFETY: as above.
            unsafe { D::enter(classify) };
            rest = others;
        }
        done(self.steps.len() + 1);
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(arena);
    }
}

impl<D: Dot> Executor for Network<D> {
    fn run(&self, image: &[f32], logits: &mut [f32], features: &mut [f32]) {
        self.execute(image, logits, features, |_| ());
    }

    fn isa(&self) -> Isa {
        self.isa
    }

    fn steps(&self) -> Vec<StepDescription> {
        self.descriptions.clone()
    }

    fn time(&self, image: &[f32], seconds: &mut [f64]) {
        // Not zeros, which the system would hand out page by page while the last step is timed.
        let mut features = vec![1.0; self.graph.values(self.graph.results())];
        let mut logits = vec![0.0; self.graph.head.bias.len()];
        let mut begun = Instant::now();
        self.execute(image, &mut logits, &mut features, |step| {
            let now = Instant::now();
            seconds[step] = seconds[step].min((now - begun).as_secs_f64());
            begun = now;
        });
    }
}

/// Halo and channel padding that the readers of each map need.
fn layouts<D: Dot>(graph: &Graph) -> Vec<Layout> {
    let mut halo = vec![([0; 2], [0; 2]); graph.maps.len()];
    // Only the picture may have fewer channels than a vector, and only where dense convolutions alone read it.
    let mut narrow = graph.results().all(|map| map != 0);
    for step in &graph.steps {
        if let Step::Conv(conv) = step {
            let (before, after) = &mut halo[conv.input];
            for side in 0..2 {
                before[side] = before[side].max(conv.window.before[side]);
                // One more, for forms that compute tiles of two pixels and leave out what lies beyond.
                let odd = graph.maps[conv.output].side(side) % 2;
                after[side] = after[side].max(conv.window.after[side] + odd);
            }
        }
        let dense =
            matches!(step, Step::Conv(c) if !c.is_depthwise(&graph.maps) && c.residual.is_none_or(|r| r.map != 0));
        narrow &= dense || !step.inputs().contains(&0);
    }
    let layout = |id: MapId| {
        let (map, (before, after)) = (&graph.maps[id], halo[id]);
        let padding = if id == 0 && narrow { D::GROUP } else { D::LANES };
        let stride = map.channels.next_multiple_of(padding);
        Layout::new(map, stride, before, after, D::Code::shift(&map.codes))
    };
    (0..graph.maps.len()).map(layout).collect()
}

/// A slot for each map. A map takes over the slot of one that is read no more, if both lie alike: the halo is written
/// only once.
fn assign(graph: &Graph, layouts: &[Layout]) -> (Vec<usize>, Vec<Layout>) {
    let last_read = graph.last_reads();
    let mut slots = layouts[..graph.given].to_vec();
    // For each slot, the step after which it is free.
    let mut busy = last_read[..graph.given].to_vec();
    let mut slot: Vec<usize> = (0..graph.maps.len()).collect();
    for (at, step) in graph.steps.iter().enumerate() {
        let map = step.output();
        let until = last_read[map].max(at);
        let free = (0..slots.len()).find(|&s| busy[s] < at && slots[s] == layouts[map]);
        slot[map] = free.unwrap_or_else(|| {
            slots.push(layouts[map]);
            busy.push(0);
            slots.len() - 1
        });
        busy[slot[map]] = until;
    }
    (slot, slots)
}

fn prepare<D: Dot>(step: &Step, maps: &[Map], layouts: &[Layout], slot: &[usize]) -> Result<Ready<D>, String> {
    let output = step.output();
    let (work, input, residual) = match step {
        Step::Conv(conv) => {
            let other = conv.residual.map(|r| r.map);
            let (from, to, beside) = (&layouts[conv.input], &layouts[output], other.map(|r| &layouts[r]));
            let work = if conv.is_depthwise(maps) {
                match depthwise::columns(conv, maps, from, to) {
                    Some(work) => Work::Special(work),
                    None => Work::Depthwise(Depthwise::new(conv, maps, from, to, beside)),
                }
            } else if let Some(work) = D::special(conv, maps, from, to, beside) {
                Work::Special(work)
            } else {
                let taps = conv.window.kernel.iter().product::<usize>();
                let spread = to.stride.saturating_mul(taps).saturating_mul(from.stride);
                if conv.groups > 1 && spread > MAX_ARENA / 4 {
                    return Err("a grouped convolution is too large to spread out".into());
                }
                Work::Dense(Dense::new(conv, maps, from, to, beside))
            };
            (work, conv.input, other)
        }
        Step::Add { inputs: [a, b], clip, .. } => {
            let sum = Sum::new::<D>(
                [&maps[*a], &maps[*b], &maps[output]],
                [&layouts[*a], &layouts[*b], &layouts[output]],
                *clip,
            );
            (Work::Sum(sum), *a, Some(*b))
        }
        Step::MaxPool { input, window, .. } => {
            let pool = MaxPool::new(*window, [&maps[*input], &maps[output]], [&layouts[*input], &layouts[output]]);
            (Work::MaxPool(pool), *input, None)
        }
    };
    Ok(Ready { work, input: slot[input], residual: residual.map(|r| slot[r]), output: slot[output] })
}
