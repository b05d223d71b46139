//! A graph made ready for one instruction set: forms, layouts, packed weights, and arenas that a run borrows.

use super::buffer::Buffer;
use super::dense::{Dense, RunDense};
use super::depthwise::{Depthwise, RunDepthwise};
use super::elementwise::{Classifier, MaxPool, RunClassifier, RunMaxPool, RunSum, Sum, take_in};
use super::end::Data;
use super::layout::{Layout, assign};
use super::winograd::{self, RunWinograd, Winograd};
use super::{Conv, Graph, Head, MapId, Step};
use crate::kernel::graph::{Executor, MAX_ARENA, StepDescription, describe};
use crate::kernel::{Isa, dispatch};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

/// Most weights that a grouped convolution becomes when its zeros are written out.
const MAX_SPREAD: usize = 1 << 24;

/// Makes a graph ready for an instruction set; one the processor lacks falls back to [`Isa::Portable`].
///
/// # Errors
/// As [`Graph::check`](crate::kernel::graph::Graph::check), or when the maps or weights need too much memory.
pub fn build(graph: &Graph, isa: Isa) -> Result<Box<dyn Executor>, String> {
    graph.check()?;
    Ok(Box::new(Network::new(graph, if isa.is_available() { isa } else { Isa::Portable })?))
}

/// How a convolution is computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Dense,
    Depthwise,
    /// Outputs of a tile's side.
    Winograd(usize),
}

impl Form {
    fn of(conv: &Conv, graph: &Graph, lanes: usize) -> Self {
        if conv.is_depthwise(&graph.maps) {
            return Self::Depthwise;
        }
        winograd::best(conv, &graph.maps, lanes).map_or(Self::Dense, Self::Winograd)
    }
}

enum Work {
    Dense(Dense),
    Depthwise(Depthwise),
    Winograd(Winograd),
    Sum(Sum),
    MaxPool(MaxPool),
}

/// A step on maps of the arena.
struct Ready {
    work: Work,
    input: MapId,
    residual: Option<MapId>,
    output: MapId,
}

/// Memory of one run at a time.
struct Arena {
    maps: Buffer<f32>,
    scratch: Buffer<f32>,
    pooled: Buffer<f32>,
}

struct Network {
    isa: Isa,
    steps: Vec<Ready>,
    /// Maps that are given out, and what becomes of them: only the last has classes.
    ends: Vec<(MapId, Classifier)>,
    given: usize,
    layouts: Vec<Layout>,
    /// Where each map starts in the arena, and sizes of the arena.
    starts: Vec<usize>,
    maps_len: usize,
    scratch_len: usize,
    descriptions: Vec<StepDescription>,
    /// Arenas that no run uses at the moment.
    idle: Mutex<Vec<Arena>>,
}

impl Network {
    fn new(graph: &Graph, isa: Isa) -> Result<Self, String> {
        let lanes = isa.lanes();
        let form = |step: &Step| if let Step::Conv(c) = step { Form::of(c, graph, lanes) } else { Form::Dense };
        let forms: Vec<Form> = graph.steps.iter().map(form).collect();
        let layouts = layouts(graph, &forms, lanes);
        let (starts, maps_len) = assign(graph, &layouts);
        if maps_len > MAX_ARENA {
            return Err(format!("its maps need more than {MAX_ARENA} values at once"));
        }
        let ready = graph.steps.iter().zip(&forms).map(|(step, form)| prepare(step, *form, graph, &layouts, lanes));
        let steps = ready.collect::<Result<Vec<Ready>, String>>()?;
        let scratch = |step: &Ready| if let Work::Winograd(conv) = &step.work { conv.scratch() } else { 0 };
        Ok(Self {
            isa,
            scratch_len: steps.iter().map(scratch).max().unwrap_or(0),
            steps,
            ends: ends(graph, &layouts),
            given: graph.given,
            layouts,
            starts,
            maps_len,
            descriptions: describe(graph, "take in"),
            idle: Mutex::default(),
        })
    }

    fn arena(&self) -> Arena {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        idle.unwrap_or_else(|| Arena {
            maps: Buffer::new(self.maps_len, 0.0),
            scratch: Buffer::new(self.scratch_len, 0.0),
            pooled: Buffer::new(self.ends.iter().map(|(_, end)| end.layout.pixel).max().unwrap_or(0), 0.0),
        })
    }

    /// Values of the maps that are given out.
    fn results(&self) -> usize {
        self.ends.iter().map(|(_, end)| end.layout.values()).sum()
    }

    fn classes(&self) -> usize {
        self.ends.iter().map(|(_, end)| end.classes()).sum()
    }

    /// Runs one picture; `done` is called behind each step.
    #[inline(always)]
    fn execute(&self, image: &[f32], logits: &mut [f32], features: &mut [f32], mut done: impl FnMut(usize)) {
        let given = &self.layouts[..self.given];
        assert_eq!(image.len(), given.iter().map(Layout::values).sum::<usize>(), "picture");
        assert_eq!(features.len(), self.results(), "features");
        assert_eq!(logits.len(), self.classes(), "logits");
        let mut arena = self.arena();
        let maps = arena.maps.values();
        let mut rest = image;
        for (layout, start) in given.iter().zip(&self.starts) {
            let (image, others) = rest.split_at(layout.values());
            let map = &mut maps[*start..][..layout.len];
            layout.clear_halo(map);
            take_in(image, layout, map);
            rest = others;
        }
        done(0);
        for (at, step) in self.steps.iter().enumerate() {
            self.layouts[step.output].clear_halo(&mut maps[self.starts[step.output]..]);
            let first = maps.as_mut_ptr();
            let start = |map: MapId| first.wrapping_add(self.starts[map]);
            let data = Data {
                input: start(step.input),
                residual: step.residual.map_or(std::ptr::null(), |map| start(map).cast_const()),
                output: start(step.output),
                scratch: arena.scratch.as_mut_ptr(),
            };
            // Maps that a step needs do not overlap in the arena, and each lies as the step was made for.
            match &step.work {
                Work::Dense(conv) => dispatch(self.isa, RunDense(conv, data)),
                Work::Depthwise(conv) => dispatch(self.isa, RunDepthwise(conv, data)),
                Work::Winograd(conv) => dispatch(self.isa, RunWinograd(conv, data)),
                Work::Sum(sum) => dispatch(self.isa, RunSum(sum, data)),
                Work::MaxPool(pool) => dispatch(self.isa, RunMaxPool(pool, data)),
            }
            done(at + 1);
        }
        let mut rest = features;
        for (map, classifier) in &self.ends {
            let (features, others) = rest.split_at_mut(classifier.layout.values());
            let classify = RunClassifier {
                classifier,
                input: maps[self.starts[*map]..].as_ptr(),
                pooled: &mut arena.pooled.values()[..classifier.layout.pixel],
                features,
                logits: &mut logits[..classifier.classes()],
            };
            dispatch(self.isa, classify);
            rest = others;
        }
        done(self.steps.len() + 1);
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(arena);
    }
}

impl Executor for Network {
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
        let mut features = vec![1.0; self.results()];
        let mut logits = vec![0.0; self.classes()];
        let mut begun = Instant::now();
        self.execute(image, &mut logits, &mut features, |step| {
            let now = Instant::now();
            seconds[step] = seconds[step].min((now - begun).as_secs_f64());
            begun = now;
        });
    }
}

fn ends(graph: &Graph, layouts: &[Layout]) -> Vec<(MapId, Classifier)> {
    let silent = Head { weight: vec![], bias: vec![] };
    let handed = graph.handed.iter().map(|&map| (map, Classifier::new(&silent, layouts[map])));
    handed.chain([(graph.features, Classifier::new(&graph.head, layouts[graph.features]))]).collect()
}

/// Order, halo and channel padding that the readers of each map need.
fn layouts(graph: &Graph, forms: &[Form], lanes: usize) -> Vec<Layout> {
    let mut halo = vec![([0; 2], [0; 2]); graph.maps.len()];
    // The picture stays planar where dense convolutions alone read it.
    let mut planar = graph.results().all(|map| map != 0);
    for (step, form) in graph.steps.iter().zip(forms) {
        if let Step::Conv(conv) = step {
            let needed = match form {
                Form::Winograd(side) => winograd::halo_after(*side, conv, &graph.maps),
                _ => conv.window.after,
            };
            let (before, after) = &mut halo[conv.input];
            for side in 0..2 {
                before[side] = before[side].max(conv.window.before[side]);
                after[side] = after[side].max(needed[side]);
            }
        }
        let dense = matches!(step, Step::Conv(c) if *form == Form::Dense && c.residual.is_none_or(|r| r.map != 0));
        planar &= dense || !step.inputs().contains(&0);
    }
    let layout = |id: MapId| {
        let (map, (before, after)) = (&graph.maps[id], halo[id]);
        if id == 0 && planar {
            return Layout::planes(map, before, after);
        }
        Layout::pixels(map, map.channels.next_multiple_of(lanes), before, after)
    };
    (0..graph.maps.len()).map(layout).collect()
}

fn prepare(step: &Step, form: Form, graph: &Graph, layouts: &[Layout], lanes: usize) -> Result<Ready, String> {
    let (output, maps) = (step.output(), &graph.maps);
    let to = &layouts[output];
    let (work, input, residual) = match step {
        Step::Conv(conv) => {
            let other = conv.residual.map(|r| r.map);
            let (from, beside) = (&layouts[conv.input], other.map(|r| &layouts[r]));
            let work = match form {
                Form::Depthwise => Work::Depthwise(Depthwise::new(conv, maps, lanes, from, to, beside)),
                Form::Winograd(side) => Work::Winograd(Winograd::new(side, conv, lanes, from, to, beside)),
                Form::Dense => {
                    let taps = conv.window.kernel.iter().product::<usize>();
                    let spread = to.pixel.saturating_mul(taps).saturating_mul(from.channels);
                    if conv.groups > 1 && spread > MAX_SPREAD {
                        return Err("a grouped convolution is too large to spread out".into());
                    }
                    Work::Dense(Dense::new(conv, maps, lanes, from, to, beside))
                }
            };
            (work, conv.input, other)
        }
        Step::Add { inputs: [a, b], clip, .. } => {
            (Work::Sum(Sum { layouts: [layouts[*a], layouts[*b], *to], clip: *clip }), *a, Some(*b))
        }
        Step::MaxPool { input, window, .. } => {
            (Work::MaxPool(MaxPool { window: *window, input: layouts[*input], output: *to }), *input, None)
        }
    };
    Ok(Ready { work, input, residual, output })
}
