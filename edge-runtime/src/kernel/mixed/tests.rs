//! Random mixed networks: on every instruction set their int8 parts give the bits of the scalar twin, and the whole gives
//! what its steps give one by one.
#![allow(clippy::unwrap_used)]

use super::split::{Precise, Value, given, split};
use super::*;
use crate::kernel::graph::{Head, Window};
use crate::kernel::{Clip, Isa, float, int8};
use proptest::prelude::*;
use std::collections::HashMap;

/// Numbers; proptest draws the seed.
struct Draw(u64);

impl Draw {
    fn below(&mut self, n: u64) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) % n) as usize
    }
    fn unit(&mut self) -> f32 {
        self.below(1 << 20) as f32 / (1 << 20) as f32
    }
    fn signed(&mut self, n: usize, reach: f32) -> Vec<f32> {
        (0..n).map(|_| (2.0 * self.unit() - 1.0) * reach).collect()
    }
    fn codes(&mut self) -> Option<Codes> {
        let zero = [0, -128, 17][self.below(3)];
        (self.below(3) > 0).then(|| Codes { scale: 0.02 + 0.03 * self.unit(), zero, signed: true })
    }
    fn clip(&mut self) -> Clip {
        [Clip::NONE, Clip::RELU, Clip::RELU6][self.below(3)]
    }
}

/// Convolutions, sums and pools in any order, each map and each convolution of either precision.
fn network(draw: &mut Draw) -> Graph {
    let (channels, height, width) = (1 + draw.below(20), 1 + draw.below(7), 1 + draw.below(7));
    let mut maps = vec![Map { channels: 3, height, width, codes: draw.codes() }];
    let mut steps = vec![];
    let window = |side: usize| Window {
        kernel: [side; 2],
        stride: [1; 2],
        dilation: [1; 2],
        before: [side / 2; 2],
        after: [side / 2; 2],
    };
    for output in 1..4 + draw.below(7) {
        let kind = if output == 1 { 0 } else { draw.below(5) };
        let input = if output == 1 { 0 } else { 1 + draw.below(output as u64 - 1) };
        maps.push(Map { channels, height, width, codes: draw.codes() });
        steps.push(match kind {
            0..3 => {
                let side = [1, 3][draw.below(2)];
                let groups = if input > 0 && draw.below(4) == 0 { channels } else { 1 };
                let taps = maps[input].channels / groups * side * side;
                let reach = 2.0 / (taps as f32).sqrt();
                let (weight, weight_scale) = if draw.below(2) == 0 {
                    (draw.signed(channels * taps, reach), None)
                } else {
                    let bytes = (0..channels * taps).map(|_| draw.below(255) as f32 - 127.0).collect();
                    (bytes, Some((0..channels).map(|_| (0.5 + draw.unit()) * reach / 127.0).collect()))
                };
                let (bias, clip) = (draw.signed(channels, 0.5), draw.clip());
                let window = window(side);
                Step::Conv(Conv { input, output, weight, weight_scale, bias, window, groups, clip, residual: None })
            }
            3 => Step::Add { inputs: [input, 1 + draw.below(output as u64 - 1)], output, clip: draw.clip() },
            _ => Step::MaxPool { input, output, window: window(3) },
        });
    }
    let head = Head { weight: draw.signed(4 * channels, 1.0), bias: draw.signed(4, 1.0) };
    Graph { features: maps.len() - 1, maps, steps, given: 1, handed: vec![], head }
}

/// Planar results of a part's plain loops, in the order it gives them out.
fn plain(part: &Precise, given: &[f32]) -> Vec<Vec<f32>> {
    match part {
        Precise::Float(g) => {
            let all = float::reference::run(g, given);
            g.results().map(|m| all[m].clone()).collect()
        }
        Precise::Int8(g) => {
            let all = int8::reference::run(g, given);
            let real = |m: MapId| all[m].iter().map(|&x| x as f32 * g.maps[m].codes.scale).collect();
            g.results().map(real).collect()
        }
    }
}

/// What a network gives: by its own parts, float ones on the kernels and int8 ones in plain loops, or each step in plain
/// loops.
fn parts(graph: &Graph, image: &[f32], isa: Option<Isa>) -> Vec<f32> {
    let mut known: HashMap<Value, Vec<f32>> = HashMap::from([(given(graph, 0), image.to_vec())]);
    for part in split(graph).unwrap() {
        let given: Vec<f32> = part.given.iter().flat_map(|v| known[v].clone()).collect();
        let results = match (&part.graph, isa) {
            (Precise::Float(g), Some(isa)) => {
                let mut all = vec![0.0; g.values(g.results())];
                float::build(g, isa).unwrap().run(&given, &mut vec![0.0; g.head.bias.len()], &mut all);
                let sizes = g.results().map(|m| g.values(m..m + 1));
                sizes
                    .scan(0, |at, n| Some((std::mem::replace(at, *at + n), n)))
                    .map(|(at, n)| all[at..at + n].to_vec())
                    .collect()
            }
            _ => plain(&part.graph, &given),
        };
        known.extend(part.results.into_iter().zip(results));
    }
    known.remove(&Value::Map(graph.features)).unwrap()
}

/// Each step alone: in float with what its bytes stand for, then rounded where its map is in codes.
fn one_by_one(graph: &Graph, image: &[f32]) -> Vec<f32> {
    let rounded = |map: MapId, values: Vec<f32>| match graph.maps[map].codes {
        Some(codes) => values.into_iter().map(|v| codes.quantize(v) * codes.scale).collect(),
        None => values,
    };
    let mut values = vec![vec![]; graph.maps.len()];
    values[0] = rounded(0, image.to_vec());
    for step in &graph.steps {
        // Nothing in codes: one float part.
        let to = step.output();
        let inputs = step.inputs();
        let maps = inputs.iter().chain([&step.output()]).map(|&m| Map { codes: None, ..graph.maps[m] }).collect();
        let mut step = step.clone();
        match &mut step {
            Step::Conv(c) => (c.input, c.output) = (0, 1),
            Step::Add { inputs, output, .. } => (*inputs, *output) = ([0, 1], 2),
            Step::MaxPool { input, output, .. } => (*input, *output) = (0, 1),
        }
        let output = step.output();
        let head = Head { weight: vec![], bias: vec![] };
        let alone = Graph { maps, steps: vec![step], given: output, handed: vec![], features: output, head };
        let [part] = &split(&alone).unwrap()[..] else { panic!("one step is one part") };
        let read: Vec<f32> = inputs.iter().flat_map(|&map| values[map].clone()).collect();
        values[to] = rounded(to, plain(&part.graph, &read).remove(0));
    }
    values.swap_remove(graph.features)
}

fn picture_of(graph: &Graph, draw: &mut Draw) -> Vec<f32> {
    draw.signed(graph.values(0..1), 2.0)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]

    #[test]
    fn int8_parts_give_the_bits_of_the_twin_on_every_set(seed in any::<u64>()) {
        let mut draw = Draw(seed);
        let graph = network(&mut draw);
        let image = picture_of(&graph, &mut draw);
        for isa in Isa::available() {
            let wanted = parts(&graph, &image, Some(isa));
            let network = build(&graph, isa).unwrap();
            for _ in 0..2 {
                let (mut logits, mut features) = (vec![f32::NAN; 4], vec![f32::NAN; wanted.len()]);
                network.run(&image, &mut logits, &mut features);
                prop_assert_eq!(&features, &wanted, "{}", isa.name());
                let last = &graph.maps[graph.features];
                for (k, logit) in logits.iter().enumerate() {
                    let row = &graph.head.weight[k * last.channels..][..last.channels];
                    let planes = features.chunks_exact(last.height * last.width);
                    let mean = planes.map(|p| p.iter().map(|v| f64::from(*v)).sum::<f64>() / p.len() as f64);
                    let exact = row.iter().zip(mean).map(|(w, m)| f64::from(*w) * m).sum::<f64>();
                    let exact = exact + f64::from(graph.head.bias[k]);
                    prop_assert!((f64::from(*logit) - exact).abs() <= 1e-4 * (1.0 + exact.abs()), "{logit} {exact}");
                }
            }
            let mut seconds = vec![f64::INFINITY; network.steps().len()];
            network.time(&image, &mut seconds);
            prop_assert!(seconds.iter().all(|s| s.is_finite()), "every step is timed");
        }
    }

    #[test]
    fn parts_together_compute_what_the_steps_say(seed in any::<u64>()) {
        let mut draw = Draw(seed);
        let graph = network(&mut draw);
        let image = picture_of(&graph, &mut draw);
        let (whole, steps) = (parts(&graph, &image, None), one_by_one(&graph, &image));
        // A value on a rounding border falls to the next code, and what reads it moves with it.
        let far = whole.iter().zip(&steps).filter(|(a, b)| (*a - *b).abs() > 0.2 * (1.0 + b.abs())).count();
        prop_assert!(far * 50 <= whole.len(), "{far} of {} are far off", whole.len());
    }
}

#[test]
fn a_float_layer_between_int8_ones_is_a_part_of_its_own() {
    let codes = Some(Codes { scale: 0.05, zero: 0, signed: true });
    let mut draw = Draw(3);
    let mut graph = network(&mut draw);
    let map = Map { channels: 2, height: 3, width: 3, codes };
    let one = Window { kernel: [1; 2], stride: [1; 2], dilation: [1; 2], before: [0; 2], after: [0; 2] };
    let conv = |input: MapId, scales: Option<Vec<f32>>| {
        let (weight, bias, window) = (vec![1.0; 4], vec![0.0; 2], one);
        let (output, groups, clip, residual) = (input + 1, 1, Clip::RELU, None);
        Step::Conv(Conv { input, output, weight, weight_scale: scales, bias, window, groups, clip, residual })
    };
    let bytes = || Some(vec![0.5; 2]);
    graph.maps = vec![map; 5];
    graph.maps[2].codes = None;
    graph.steps = vec![conv(0, bytes()), conv(1, None), conv(2, None), conv(3, bytes())];
    (graph.features, graph.head) = (4, Head { weight: vec![1.0; 8], bias: vec![0.0; 4] });
    let parts = split(&graph).unwrap();
    let steps = |part: &Precise| match part {
        Precise::Float(g) => ("float", g.steps.len()),
        Precise::Int8(g) => ("int8", g.steps.len()),
    };
    let kinds: Vec<_> = parts.iter().map(|p| steps(&p.graph)).collect();
    assert_eq!(kinds, [("int8", 1), ("float", 2), ("int8", 1)]);
    assert_eq!(parts[1].given, [Value::Map(1)]);
    assert_eq!(parts[2].given, [Value::Unrounded(3)]);
}
