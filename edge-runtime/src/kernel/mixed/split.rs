//! A mixed graph as parts of one precision, in an order in which each finds what it reads.

use super::{Conv, Graph, MapId, Step};
use crate::kernel::float::{self, Float};
use crate::kernel::graph::{self, Format, Head};
use crate::kernel::int8::{self, Codes, Int8};
use std::collections::HashMap;

/// What passes between parts, planar: a map, or what was computed for one before it is rounded to codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Value {
    Map(MapId),
    Unrounded(MapId),
}

impl Value {
    fn map(self) -> MapId {
        let (Self::Map(map) | Self::Unrounded(map)) = self;
        map
    }
}

/// A part of one precision.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Part {
    pub graph: Precise,
    /// What its given maps are, in their order.
    pub given: Vec<Value>,
    /// What it gives out, in the order of the graph's results.
    pub results: Vec<Value>,
}

/// A graph of either precision.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Precise {
    Float(float::Graph),
    Int8(int8::Graph),
}

/// What a part is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unit {
    Step(usize),
    /// A map is rounded to its codes, by an int8 part as it takes it in.
    Round(MapId),
}

/// What a given map, the picture for instance, is to a graph.
pub(super) fn given(graph: &Graph, map: MapId) -> Value {
    if graph.maps[map].codes.is_some() { Value::Unrounded(map) } else { Value::Map(map) }
}

/// Cuts a checked graph. Steps that the features do not need are left out; the last part ends in the classifier.
///
/// # Errors
/// A sentence fragment when nothing is left to run, or a convolution is of neither precision.
pub(super) fn split(graph: &Graph) -> Result<Vec<Part>, String> {
    let mut needed = vec![false; graph.maps.len()];
    needed[graph.features] = true;
    for step in graph.steps.iter().rev() {
        if needed[step.output()] {
            step.inputs().into_iter().for_each(|map| needed[map] = true);
        }
    }
    let rounded = |map: MapId| graph.maps[map].codes.is_some();
    let mut waiting: Vec<Unit> = (0..graph.given).filter(|&m| needed[m] && rounded(m)).map(Unit::Round).collect();
    for (at, step) in graph.steps.iter().enumerate().filter(|(_, s)| needed[s.output()]) {
        waiting.push(Unit::Step(at));
        if rounded(step.output()) && !is_int8(step, graph) {
            waiting.push(Unit::Round(step.output()));
        }
    }
    let cut = Cut(graph);
    let mut known: Vec<Value> = (0..graph.given).map(|map| given(graph, map)).collect();
    let mut parts: Vec<(bool, Vec<Unit>)> = vec![];
    while let Some(&first) = waiting.first() {
        // The first one finds what it reads, for units stand in the graph's order; all of its precision that do follow.
        let int8 = cut.is_int8(first);
        let mut part = vec![];
        waiting.retain(|&unit| {
            let ready = cut.is_int8(unit) == int8 && cut.reads(unit).iter().all(|v| known.contains(v));
            if ready {
                known.push(cut.writes(unit));
                part.push(unit);
            }
            !ready
        });
        if part.is_empty() {
            return Err("a step reads what no step has written".into());
        }
        parts.push((int8, part));
    }
    if parts.is_empty() {
        return Err("it has no step".into());
    }
    let last = Value::Map(graph.features);
    let mut all = Vec::with_capacity(parts.len());
    for (at, (int8, units)) in parts.iter().enumerate() {
        let later: Vec<Value> =
            parts[at + 1..].iter().flat_map(|(_, units)| units).flat_map(|&u| cut.reads(u)).collect();
        let written = units.iter().map(|&u| cut.writes(u));
        let results: Vec<Value> = written.filter(|v| later.contains(v) || *v == last).collect();
        all.push(if *int8 { cut.part::<Int8>(units, results)? } else { cut.part::<Float>(units, results)? });
    }
    Ok(all)
}

/// Whether a step runs in int8: all that it touches is in codes.
fn is_int8(step: &Step, graph: &Graph) -> bool {
    let coded = step.inputs().into_iter().chain([step.output()]).all(|m| graph.maps[m].codes.is_some());
    coded && !matches!(step, Step::Conv(c) if c.weight_scale.is_none())
}

/// A precision that steps of a mixed graph are brought to.
trait Precision: Format {
    fn codes(codes: Option<Codes>) -> Option<Self::Codes>;
    fn weights(conv: &Conv) -> Option<(Vec<Self::Weight>, Self::Scales)>;
    fn precise(graph: graph::Graph<Self>) -> Precise;
}

impl Precision for Int8 {
    fn codes(codes: Option<Codes>) -> Option<Codes> {
        codes
    }

    fn weights(conv: &Conv) -> Option<(Vec<i8>, Vec<f32>)> {
        // Bytes as numbers, exactly.
        Some((conv.weight.iter().map(|&w| w as i8).collect(), conv.weight_scale.clone()?))
    }

    fn precise(graph: int8::Graph) -> Precise {
        Precise::Int8(graph)
    }
}

impl Precision for Float {
    fn codes(_: Option<Codes>) -> Option<()> {
        Some(())
    }

    fn weights(conv: &Conv) -> Option<(Vec<f32>, ())> {
        let mut weight = conv.weight.clone();
        if let Some(scales) = &conv.weight_scale {
            let filter = (weight.len() / scales.len().max(1)).max(1);
            let filters = weight.chunks_mut(filter).zip(scales);
            filters.for_each(|(filter, scale)| filter.iter_mut().for_each(|w| *w *= scale));
        }
        Some((weight, ()))
    }

    fn precise(graph: float::Graph) -> Precise {
        Precise::Float(graph)
    }
}

struct Cut<'a>(&'a Graph);

impl Cut<'_> {
    fn is_int8(&self, unit: Unit) -> bool {
        match unit {
            Unit::Step(at) => is_int8(&self.0.steps[at], self.0),
            Unit::Round(_) => true,
        }
    }

    fn reads(&self, unit: Unit) -> Vec<Value> {
        match unit {
            Unit::Step(at) => self.0.steps[at].inputs().into_iter().map(Value::Map).collect(),
            Unit::Round(map) => vec![Value::Unrounded(map)],
        }
    }

    fn writes(&self, unit: Unit) -> Value {
        match unit {
            Unit::Step(at) => {
                let map = self.0.steps[at].output();
                let unrounded = self.0.maps[map].codes.is_some() && !self.is_int8(unit);
                if unrounded { Value::Unrounded(map) } else { Value::Map(map) }
            }
            Unit::Round(map) => Value::Map(map),
        }
    }

    /// The part of these units, which gives out `results`: the classifier too where the last map is one of them.
    fn part<F: Precision>(&self, units: &[Unit], mut results: Vec<Value>) -> Result<Part, String> {
        let mut maps: Vec<graph::Map<F>> = vec![];
        // Where each value lies in the part.
        let mut place: HashMap<Value, MapId> = HashMap::new();
        let mut add = |value: Value, place: &mut HashMap<Value, MapId>| {
            let from = &self.0.maps[value.map()];
            let codes = F::codes(from.codes).ok_or("an int8 step reads a float map")?;
            place.insert(value, maps.len());
            maps.push(graph::Map { channels: from.channels, height: from.height, width: from.width, codes });
            Ok::<_, String>(maps.len() - 1)
        };
        let written: Vec<Value> = units.iter().map(|&u| self.writes(u)).collect();
        let mut given = vec![];
        for &unit in units {
            // What is rounded is taken in as codes.
            if let Unit::Round(map) = unit {
                add(Value::Map(map), &mut place)?;
                given.push(Value::Unrounded(map));
                continue;
            }
            for value in self.reads(unit) {
                if !written.contains(&value) && !place.contains_key(&value) {
                    add(value, &mut place)?;
                    given.push(value);
                }
            }
        }
        let mut steps = vec![];
        for &unit in units {
            let Unit::Step(at) = unit else { continue };
            let to = add(self.writes(unit), &mut place)?;
            let at_part =
                |map: MapId| place.get(&Value::Map(map)).copied().ok_or("a step reads what no step has written");
            steps.push(match &self.0.steps[at] {
                Step::Conv(c) => {
                    let (weight, weight_scale) = F::weights(c).ok_or("an int8 convolution has float weights")?;
                    let (bias, window, groups, clip) = (c.bias.clone(), c.window, c.groups, c.clip);
                    let input = at_part(c.input)?;
                    let conv = graph::Conv {
                        input,
                        output: to,
                        weight,
                        weight_scale,
                        bias,
                        window,
                        groups,
                        clip,
                        residual: None,
                    };
                    graph::Step::Conv(conv)
                }
                Step::Add { inputs: [a, b], clip, .. } => {
                    graph::Step::Add { inputs: [at_part(*a)?, at_part(*b)?], output: to, clip: *clip }
                }
                Step::MaxPool { input, window, .. } => {
                    graph::Step::MaxPool { input: at_part(*input)?, output: to, window: *window }
                }
            });
        }
        let last = Value::Map(self.0.features);
        results.sort_by_key(|v| *v == last);
        let head = match results.last() {
            Some(v) if *v == last => self.0.head.clone(),
            _ => Head { weight: vec![], bias: vec![] },
        };
        let mut handed: Vec<MapId> = results.iter().filter_map(|v| place.get(v).copied()).collect();
        let features = handed.pop().ok_or("a part gives nothing out")?;
        let mut graph = graph::Graph { maps, steps, given: given.len(), handed, features, head };
        graph.fuse();
        Ok(Part { graph: F::precise(graph), given, results })
    }
}
