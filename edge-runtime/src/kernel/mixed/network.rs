//! The parts of a mixed network, run one behind the other.

use super::Graph;
use super::split::{self, Part, Precise, Value};
use crate::kernel::graph::{Executor, StepDescription};
use crate::kernel::{Isa, float, int8};
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

/// Makes a graph ready for an instruction set.
///
/// # Errors
/// As [`Graph::check`](crate::kernel::graph::Graph::check), or when a part is none that its kernels take.
pub fn build(graph: &Graph, isa: Isa) -> Result<Box<dyn Executor>, String> {
    graph.check()?;
    if graph.given != 1 || !graph.handed.is_empty() {
        return Err("a mixed network is whole".into());
    }
    Ok(Box::new(Network::new(graph, isa)?))
}

/// A map that a part reads: the picture, or a range of what an earlier part gave out.
struct Source {
    part: Option<usize>,
    range: Range<usize>,
}

struct Ready {
    network: Box<dyn Executor>,
    given: Vec<Source>,
    /// Values it gives out.
    results: usize,
}

/// Memory of one run at a time: what each part gave out, and what the next one is given.
struct Arena {
    results: Vec<Vec<f32>>,
    given: Vec<f32>,
}

struct Network {
    parts: Vec<Ready>,
    picture: usize,
    classes: usize,
    idle: Mutex<Vec<Arena>>,
}

impl Network {
    fn new(graph: &Graph, isa: Isa) -> Result<Self, String> {
        let size = |value: Value| {
            let (Value::Map(map) | Value::Unrounded(map)) = value;
            graph.values(map..map + 1)
        };
        let mut known = vec![(split::given(graph, 0), None, 0..graph.values(0..1))];
        let mut parts = vec![];
        for (at, Part { graph, given, results }) in split::split(graph)?.into_iter().enumerate() {
            let source = |value: &Value| {
                let found = known.iter().find(|(v, ..)| v == value).ok_or("a part reads what none gives")?;
                Ok::<_, String>(Source { part: found.1, range: found.2.clone() })
            };
            let given = given.iter().map(source).collect::<Result<_, _>>()?;
            let network = match &graph {
                Precise::Float(graph) => float::build(graph, isa)?,
                Precise::Int8(graph) => int8::build(graph, isa)?,
            };
            let mut end = 0;
            for value in results {
                known.push((value, Some(at), end..end + size(value)));
                end += size(value);
            }
            parts.push(Ready { network, given, results: end });
        }
        Ok(Self { parts, picture: graph.values(0..1), classes: graph.head.bias.len(), idle: Mutex::default() })
    }

    fn arena(&self) -> Arena {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let last = self.parts.len() - 1;
        let most = |part: &Ready| part.given.iter().map(|s| s.range.len()).sum();
        idle.unwrap_or_else(|| Arena {
            // The last part writes to where its caller wants it.
            results: self.parts[..last].iter().map(|part| vec![0.0; part.results]).collect(),
            given: vec![0.0; self.parts.iter().map(most).max().unwrap_or(0)],
        })
    }

    /// Hands each part with what it is given and where its results go to `run`.
    fn each(&self, image: &[f32], features: &mut [f32], mut run: impl FnMut(usize, &Ready, &[f32], &mut [f32])) {
        assert_eq!(image.len(), self.picture, "picture");
        let mut arena = self.arena();
        for (at, part) in self.parts.iter().enumerate() {
            let (earlier, later) = arena.results.split_at_mut(at);
            let from = |source: &Source| &source.part.map_or(image, |p| earlier[p].as_slice())[source.range.clone()];
            let given = match &part.given[..] {
                [one] => from(one),
                several => {
                    let mut end = 0;
                    for source in several {
                        arena.given[end..][..source.range.len()].copy_from_slice(from(source));
                        end += source.range.len();
                    }
                    &arena.given[..end]
                }
            };
            run(at, part, given, later.first_mut().map_or(&mut *features, Vec::as_mut_slice));
        }
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(arena);
    }

    /// Logits that a part has: the last one's are the network's.
    fn logits<'a>(&self, at: usize, logits: &'a mut [f32]) -> &'a mut [f32] {
        if at + 1 == self.parts.len() { logits } else { &mut [] }
    }
}

impl Executor for Network {
    fn run(&self, image: &[f32], logits: &mut [f32], features: &mut [f32]) {
        self.each(image, features, |at, part, given, results| {
            part.network.run(given, self.logits(at, logits), results)
        });
    }

    fn isa(&self) -> Isa {
        self.parts[0].network.isa()
    }

    fn steps(&self) -> Vec<StepDescription> {
        self.parts.iter().flat_map(|part| part.network.steps()).collect()
    }

    fn time(&self, image: &[f32], seconds: &mut [f64]) {
        let (mut logits, mut begin) = (vec![0.0; self.classes], 0);
        let mut features = vec![0.0; self.parts.last().map_or(0, |part| part.results)];
        self.each(image, &mut features, |at, part, given, results| {
            // Once for its results, once more under the clock.
            part.network.run(given, self.logits(at, &mut logits), results);
            let end = begin + part.network.steps().len();
            part.network.time(given, &mut seconds[begin..end]);
            begin = end;
        });
    }
}
