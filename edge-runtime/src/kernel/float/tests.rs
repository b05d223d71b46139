//! Every instruction set at hand against the scalar twin, on random shapes.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::kernel::graph::Residual;
use crate::kernel::{Clip, Isa};
use proptest::prelude::*;

/// Numbers for weights and pictures; proptest draws the shapes and this seed.
struct Draw(u64);

impl Draw {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.0 >> 33
    }
    fn below(&mut self, n: u64) -> usize {
        (self.next() % n) as usize
    }
    fn signed(&mut self) -> f32 {
        self.next() as f32 / (1u64 << 30) as f32 - 1.0
    }
    fn take(&mut self, count: usize) -> Vec<f32> {
        (0..count).map(|_| self.signed()).collect()
    }
    fn clip(&mut self) -> Clip {
        let cap = Clip { low: -0.3, high: 0.5 };
        [Clip::NONE, Clip::RELU, Clip::RELU6, cap][self.below(4)]
    }
    fn window(&mut self, spread: bool) -> Window {
        let mut pair = |n: u64, least: usize| [least + self.below(n), least + self.below(n)];
        let (kernel, stride) = (pair(4, 1), pair(3, 1));
        let dilation = if spread { pair(2, 1) } else { [1, 1] };
        let [before, after] = [pair(4, 0), pair(4, 0)].map(|p| [p[0].min(kernel[0] - 1), p[1].min(kernel[1] - 1)]);
        Window { kernel, stride, dilation, before, after }
    }
}

fn square(kernel: usize, stride: usize) -> Window {
    let border = [kernel / 2; 2];
    Window { kernel: [kernel; 2], stride: [stride; 2], dilation: [1; 2], before: border, after: border }
}

fn map(channels: usize, [height, width]: [usize; 2]) -> Map {
    Map { channels, height, width, codes: () }
}

/// A convolution whose results are about as large as its inputs.
fn conv(draw: &mut Draw, maps: &[Map], [input, output]: [MapId; 2], groups: usize, window: Window) -> Conv {
    let taps = maps[input].channels / groups * window.kernel[0] * window.kernel[1];
    let outputs = maps[output].channels;
    let weight = draw.take(outputs * taps).into_iter().map(|w| w * 1.7 / (taps as f32).sqrt()).collect();
    Conv {
        input,
        output,
        weight,
        weight_scale: (),
        bias: draw.take(outputs),
        window,
        groups,
        clip: draw.clip(),
        residual: None,
    }
}

fn head(draw: &mut Draw, channels: usize) -> Head {
    Head { weight: draw.take(6 * channels), bias: draw.take(6) }
}

/// Runs a graph on every set, twice, and compares the last map and the logits with the twin.
fn same_on_every_set(graph: &Graph, draw: &mut Draw) -> Result<(), TestCaseError> {
    graph.check().unwrap();
    let input = &graph.maps[0];
    let image = draw.take(input.channels * input.height * input.width);
    let wanted = &reference::run(graph, &image)[graph.features];
    let last = &graph.maps[graph.features];
    let area = last.height * last.width;
    for isa in Isa::available() {
        let network = build(graph, isa).unwrap();
        let mut first = None;
        for _ in 0..2 {
            let (mut logits, mut features) = (vec![0.0; graph.head.bias.len()], vec![f32::NAN; wanted.len()]);
            network.run(&image, &mut logits, &mut features);
            for (at, (got, wanted)) in features.iter().zip(wanted).enumerate() {
                prop_assert!(
                    (got - wanted).abs() <= 2e-5 * (1.0 + wanted.abs()),
                    "{} {at}: {got} {wanted}",
                    isa.name()
                );
            }
            let mean: Vec<f64> = features
                .chunks_exact(area)
                .map(|p| p.iter().map(|&v| f64::from(v)).sum::<f64>() / area as f64)
                .collect();
            for ((logit, row), bias) in
                logits.iter().zip(graph.head.weight.chunks_exact(mean.len())).zip(&graph.head.bias)
            {
                let exact = f64::from(*bias) + row.iter().zip(&mean).map(|(w, m)| f64::from(*w) * m).sum::<f64>();
                prop_assert!((f64::from(*logit) - exact).abs() <= 1e-5 * (1.0 + exact.abs()), "{}", isa.name());
            }
            let bits = first.get_or_insert_with(|| (logits.clone(), features.clone()));
            prop_assert!(*bits == (logits, features), "{}: the same picture, the same bits", isa.name());
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn convolutions(
        seed in any::<u64>(),
        (inputs, outputs) in (1..70usize, 1..70usize),
        size in (1..14usize, 1..20usize),
        form in 0..5usize,
    ) {
        let mut draw = Draw(seed);
        let window = if form == 4 { square(3, 1) } else { draw.window(true) };
        let (inputs, outputs, groups) = match form {
            0 => (inputs, inputs, inputs),
            1 => (inputs.div_ceil(3) * 3, outputs.div_ceil(3) * 3, 3),
            _ => (inputs, outputs, 1),
        };
        let result = window.output(size.0, size.1);
        prop_assume!(result.is_some());
        let maps = vec![map(inputs, [size.0, size.1]), map(outputs, result.unwrap())];
        let step = conv(&mut draw, &maps, [0, 1], groups, window);
        let graph = Graph { head: head(&mut draw, outputs), maps, steps: vec![Step::Conv(step)], given: 1, handed: vec![], features: 1 };
        same_on_every_set(&graph, &mut draw)?;
    }

    /// Stem, a pool, a block with two convolutions and a sum; fused and as it stands.
    #[test]
    fn residual_blocks(
        seed in any::<u64>(),
        (inputs, outputs) in (1..5usize, 1..70usize),
        size in (2..14usize, 2..20usize),
        swapped in any::<bool>(),
    ) {
        let mut draw = Draw(seed);
        let pool = draw.window(false);
        let size = [size.0, size.1];
        let small = pool.output(size[0], size[1]);
        prop_assume!(small.is_some());
        let small = small.unwrap();
        let mut maps = vec![map(inputs, size), map(outputs, size)];
        maps.extend([small; 4].map(|s| map(outputs, s)));
        let stem = conv(&mut draw, &maps, [0, 1], 1, square(3, 1));
        let first = conv(&mut draw, &maps, [2, 3], 1, square(3, 1));
        let second = conv(&mut draw, &maps, [3, 4], 1, square(3, 1));
        let inputs = if swapped { [4, 2] } else { [2, 4] };
        let mut graph = Graph {
            maps,
            steps: vec![
                Step::Conv(stem),
                Step::MaxPool { input: 1, output: 2, window: pool },
                Step::Conv(first),
                Step::Conv(second),
                Step::Add { inputs, output: 5, clip: draw.clip() },
            ],
            given: 1, handed: vec![], features: 5,
            head: head(&mut draw, outputs),
        };
        same_on_every_set(&graph, &mut Draw(seed))?;
        graph.fuse();
        let Step::Conv(fused) = &graph.steps[3] else { panic!() };
        prop_assert_eq!((graph.steps.len(), fused.residual.unwrap().map), (4, 2), "the sum joins the convolution");
        same_on_every_set(&graph, &mut Draw(seed))?;
    }

    /// Expansion, depthwise convolution, projection with or without a sum.
    #[test]
    fn inverted_residual_blocks(
        seed in any::<u64>(),
        channels in 1..70usize,
        expansion in 1..7usize,
        size in (1..12usize, 1..24usize),
        stride in 1..3usize,
    ) {
        let mut draw = Draw(seed);
        let (size, inner) = ([size.0, size.1], channels * expansion);
        let small = square(3, stride).output(size[0], size[1]).unwrap();
        let maps = vec![map(channels, size), map(inner, size), map(inner, small), map(channels, small)];
        let mut layers = [(0, 1, square(1, 1)), (1, inner, square(3, stride)), (2, 1, square(1, 1))]
            .map(|(at, groups, window)| conv(&mut draw, &maps, [at, at + 1], groups, window));
        if stride == 1 {
            layers[2].residual = Some(Residual { map: 0, between: Some(((), draw.clip())) });
        }
        let steps = layers.map(Step::Conv).to_vec();
        let graph = Graph { head: head(&mut draw, channels), maps, steps, given: 1, handed: vec![], features: 3 };
        same_on_every_set(&graph, &mut draw)?;
    }
}

/// No activation hides what is no number, so that a broken camera shows in the logits.
#[test]
fn nan_passes() {
    let mut draw = Draw(3);
    for channels in [3, 40] {
        let maps = vec![map(channels, [6, 6]), map(40, [6, 6])];
        let mut step = conv(&mut draw, &maps, [0, 1], 1, square(3, 1));
        step.clip = Clip::RELU6;
        let graph = Graph {
            head: head(&mut draw, 40),
            maps,
            steps: vec![Step::Conv(step)],
            given: 1,
            handed: vec![],
            features: 1,
        };
        let mut image = draw.take(channels * 36);
        image[7] = f32::NAN;
        for isa in Isa::available() {
            let (mut logits, mut features) = (vec![0.0; 6], vec![0.0; 40 * 36]);
            build(&graph, isa).unwrap().run(&image, &mut logits, &mut features);
            assert!(logits.iter().all(|v| v.is_nan()), "{} {channels}", isa.name());
        }
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let mut draw = Draw(7);
    let maps = vec![map(4, [5, 5]), map(6, [5, 5])];
    let step = conv(&mut draw, &maps, [0, 1], 1, square(3, 1));
    let good =
        Graph { head: head(&mut draw, 6), maps, steps: vec![Step::Conv(step)], given: 1, handed: vec![], features: 1 };
    good.check().unwrap();
    fn first(g: &mut Graph) -> &mut Conv {
        match &mut g.steps[0] {
            Step::Conv(c) => c,
            _ => panic!(),
        }
    }
    type Break = fn(&mut Graph);
    let cases: [(&str, Break); 8] = [
        ("weights too few", |g| first(g).weight.truncate(5)),
        ("bias too few", |g| first(g).bias.truncate(5)),
        ("groups that do not divide", |g| first(g).groups = 3),
        ("an activation that lets nothing through", |g| first(g).clip = Clip { low: 1.0, high: 0.0 }),
        ("output too small", |g| g.maps[1].width = 4),
        ("map index", |g| first(g).input = 9),
        ("head", |g| g.head.weight.truncate(5)),
        ("far too large", |g| g.maps[0].height = usize::MAX / 2),
    ];
    for (name, damage) in cases {
        let mut graph = good.clone();
        damage(&mut graph);
        assert!(graph.check().is_err() && build(&graph, Isa::Portable).is_err(), "{name}");
    }
}
