//! Every instruction set at hand against the scalar twin, bit for bit, and the twin against independent vectors.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::fixture::{Golden, json};
use crate::kernel::Isa;
use crate::kernel::graph::{Head, Residual};
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
    fn unit(&mut self) -> f32 {
        self.next() as f32 / (1u64 << 31) as f32
    }
    fn codes(&mut self) -> Codes {
        let signed = self.below(2) == 0;
        // 0, the ends, and anything between.
        let zero = match self.below(4) {
            0 | 1 => 0,
            2 => [-128, 127][self.below(2)],
            _ => self.below(256) as i32 - 128,
        };
        let zero = if signed { zero } else { zero.max(0) + if zero > 0 { self.below(128) as i32 } else { 0 } };
        Codes { scale: 0.01 + 0.1 * self.unit(), zero, signed }
    }
    fn clip(&mut self) -> Clip {
        let cap = Clip { low: 0.0, high: 0.5 + 4.0 * self.unit() };
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

fn map(channels: usize, [height, width]: [usize; 2], codes: Codes) -> Map {
    Map { channels, height, width, codes }
}

/// A convolution of `map 0` in a random form; sums land in the middle of the codes' range, some beyond its ends.
fn conv(draw: &mut Draw, input: &Map, outputs: usize, groups: usize, window: Window) -> Conv {
    let taps = input.channels / groups * window.kernel[0] * window.kernel[1];
    // Some sets have a form of their own where no weight is −128.
    let least = [-128, -127][draw.below(2)];
    let weight = (0..outputs * taps).map(|_| (draw.below(256) as u8 as i8).max(least)).collect();
    let scale = |d: &mut Draw| (0.5 + d.unit()) * 2.0 / (80.0 * (taps as f32).sqrt());
    Conv {
        input: 0,
        output: 1,
        weight,
        weight_scale: (0..outputs).map(|_| scale(draw)).collect(),
        bias: (0..outputs).map(|_| 2.0 * draw.unit() - 1.0).collect(),
        window,
        groups,
        clip: draw.clip(),
        residual: None,
    }
}

/// Runs a graph on every set and compares the dequantized last map and the logits with the twin.
fn same_on_every_set(graph: &Graph, draw: &mut Draw) -> Result<(), TestCaseError> {
    let input = &graph.maps[0];
    let range = 140.0 * input.codes.scale;
    let image: Vec<f32> = (0..input.channels * input.height * input.width)
        .map(|_| (2.0 * draw.unit() - 1.0) * range - input.codes.zero as f32 * input.codes.scale * 0.5)
        .collect();
    let last = &graph.maps[graph.features];
    let wanted: Vec<f32> =
        reference::run(graph, &image)[graph.features].iter().map(|&x| x as f32 * last.codes.scale).collect();
    let classes = graph.head.bias.len();
    let mut logits: Option<Vec<f32>> = None;
    for isa in Isa::available() {
        let network = build(graph, isa).unwrap();
        for _ in 0..2 {
            let (mut scores, mut features) = (vec![0.0; classes], vec![f32::NAN; wanted.len()]);
            network.run(&image, &mut scores, &mut features);
            prop_assert_eq!(&features, &wanted, "{}", isa.name());
            prop_assert_eq!(&scores, logits.get_or_insert(scores.clone()), "{}", isa.name());
        }
    }
    // The head against f64.
    let area = last.height * last.width;
    let mean: Vec<f64> =
        wanted.chunks_exact(area).map(|p| p.iter().map(|&v| f64::from(v)).sum::<f64>() / area as f64).collect();
    for (k, logit) in logits.unwrap().iter().enumerate() {
        let row = &graph.head.weight[k * last.channels..][..last.channels];
        let exact = row.iter().zip(&mean).map(|(w, m)| f64::from(*w) * m).sum::<f64>() + f64::from(graph.head.bias[k]);
        prop_assert!((f64::from(*logit) - exact).abs() <= 1e-5 * (1.0 + exact.abs() + mean.len() as f64));
    }
    Ok(())
}

fn head(draw: &mut Draw, channels: usize) -> Head {
    let mut values = |n: usize| (0..n).map(|_| 2.0 * draw.unit() - 1.0).collect();
    Head { weight: values(5 * channels), bias: values(5) }
}

fn shapes() -> impl Strategy<Value = (u64, usize, usize, usize, usize)> {
    (any::<u64>(), 1..40usize, 1..40usize, 1..14usize, 1..20usize)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn convolutions((seed, inputs, outputs, height, width) in shapes(), form in 0..4usize) {
        let mut draw = Draw(seed);
        let window = draw.window(true);
        let (inputs, outputs, groups) = match form {
            0 => (inputs, inputs, inputs),
            1 => (inputs.div_ceil(3) * 3, outputs.div_ceil(3) * 3, 3),
            _ => (inputs, outputs, 1),
        };
        let size = window.output(height, width).filter(|s| !s.contains(&0));
        prop_assume!(size.is_some());
        let input = map(inputs, [height, width], draw.codes());
        let output = map(outputs, size.unwrap(), draw.codes());
        let conv = conv(&mut draw, &input, outputs, groups, window);
        let graph = Graph {
            maps: vec![input, output],
            steps: vec![Step::Conv(conv)],
            given: 1, handed: vec![], features: 1,
            head: head(&mut draw, outputs),
        };
        graph.check().unwrap();
        same_on_every_set(&graph, &mut draw)?;
    }

    /// Stem, a pool, a block with two convolutions and a sum in every form; fused and as it stands.
    #[test]
    fn residual_blocks((seed, inputs, outputs, height, width) in shapes(), between in any::<bool>()) {
        let mut draw = Draw(seed);
        let same = |k: usize| Window {
            kernel: [k; 2], stride: [1; 2], dilation: [1; 2], before: [k / 2; 2], after: [k / 2; 2],
        };
        let pool = draw.window(false);
        let size = pool.output(height, width).filter(|s| !s.contains(&0));
        prop_assume!(size.is_some());
        let size = size.unwrap();
        let mut maps = vec![map(inputs, [height, width], draw.codes()), map(inputs, size, draw.codes())];
        maps.extend((0..3).map(|_| map(outputs, size, draw.codes())));
        let mut first = conv(&mut draw, &maps[1], outputs, 1, same(1));
        (first.input, first.output) = (1, 2);
        let mut second = conv(&mut draw, &maps[2], outputs, 1, same(3));
        (second.input, second.output) = (2, 3);
        let clip = draw.clip();
        let mut steps = vec![Step::MaxPool { input: 0, output: 1, window: pool }, Step::Conv(first)];
        if between {
            let inputs = if draw.below(2) == 0 { [2, 3] } else { [3, 2] };
            steps.extend([Step::Conv(second), Step::Add { inputs, output: 4, clip }]);
        } else {
            maps.remove(4);
            second.residual = Some(Residual { map: 2, between: None });
            steps.push(Step::Conv(second));
        }
        let features = maps.len() - 1;
        let mut graph = Graph { maps, steps, given: 1, handed: vec![], features, head: head(&mut draw, outputs) };
        graph.check().unwrap();
        let seed = draw.0;
        same_on_every_set(&graph, &mut draw)?;
        if between {
            let apart = reference::run(&graph, &vec![0.3; inputs * height * width]).pop();
            graph.fuse();
            prop_assert_eq!(graph.steps.len(), 3, "the sum joins the convolution");
            graph.check().unwrap();
            prop_assert_eq!(reference::run(&graph, &vec![0.3; inputs * height * width]).pop(), apart);
            same_on_every_set(&graph, &mut Draw(seed))?;
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    /// Expansion, depthwise convolution, projection with or without a sum: channels beyond every block of vectors.
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
        let window = |kernel: usize, stride: usize| Window {
            kernel: [kernel; 2], stride: [stride; 2], dilation: [1; 2], before: [kernel / 2; 2], after: [kernel / 2; 2],
        };
        let small = window(3, stride).output(size[0], size[1]).unwrap();
        let mut maps = vec![map(channels, size, draw.codes()), map(inner, size, draw.codes())];
        maps.extend([map(inner, small, draw.codes()), map(channels, small, draw.codes())]);
        let mut steps = vec![];
        for (at, groups, window) in [(0, 1, window(1, 1)), (1, inner, window(3, stride)), (2, 1, window(1, 1))] {
            let outputs = maps[at + 1].channels;
            let mut layer = conv(&mut draw, &maps[at], outputs, groups, window);
            (layer.input, layer.output) = (at, at + 1);
            if at == 2 && stride == 1 {
                let between = (draw.below(2) == 0).then(|| (draw.codes(), draw.clip()));
                layer.residual = Some(Residual { map: 0, between });
            }
            steps.push(Step::Conv(layer));
        }
        let graph = Graph { maps, steps, given: 1, handed: vec![], features: 3, head: head(&mut draw, channels) };
        graph.check().unwrap();
        same_on_every_set(&graph, &mut draw)?;
    }
}

/// Operators of ONNX Runtime on full-range bytes: sums exact, results equal but for one level on 0.5 % (f32 constants).
#[test]
fn convolutions_are_those_of_the_independent_vectors() {
    let data = Golden::open("quantization/data.safetensors");
    let values = json("quantization/values.json");
    let cases = values["conv"].as_object().unwrap();
    assert!(cases.len() >= 6);
    for (name, case) in cases {
        let number = |key: &str| case[key].as_f64().unwrap();
        let get = |part: &str| data.f64(&format!("conv.{name}.{part}"));
        let sizes: Vec<usize> =
            case["N,C_in,C_out,H,W"].as_array().unwrap().iter().map(|v| v.as_u64().unwrap() as usize).collect();
        let [count, inputs, outputs, height, width] = sizes[..] else { panic!("{name}") };
        let [kernel, stride, pad, groups] = ["kernel", "stride", "pad", "group"].map(|k| number(k) as usize);
        let window =
            Window { kernel: [kernel; 2], stride: [stride; 2], dilation: [1; 2], before: [pad; 2], after: [pad; 2] };
        let codes = |axis: &str| Codes {
            scale: number(&format!("{axis}_scale")) as f32,
            zero: number(&format!("{axis}_zero_point")) as i32,
            signed: false,
        };
        let input = map(inputs, [height, width], codes("x"));
        let output = map(outputs, window.output(height, width).unwrap(), codes("y"));
        let weight_scale: Vec<f32> = get("w_scale").iter().map(|&v| v as f32).collect();
        let bias: Vec<f64> = get("bias");
        let real = bias.iter().zip(&weight_scale).map(|(b, w)| (b * f64::from(*w) * number("x_scale")) as f32);
        let conv = Conv {
            input: 0,
            output: 1,
            weight: get("w").iter().map(|&v| v as i8).collect(),
            bias: real.collect(),
            weight_scale,
            window,
            groups,
            clip: Clip::NONE,
            residual: None,
        };
        let (x, acc, out) = (get("x"), get("acc"), get("out_f64_rule"));
        let area = output.height * output.width;
        let graph = Graph {
            maps: vec![input, output],
            steps: vec![Step::Conv(conv.clone())],
            given: 1,
            handed: vec![],
            features: 1,
            head: Head { weight: vec![0.0; outputs], bias: vec![0.0] },
        };
        for n in 0..count {
            let x = &x[n * inputs * height * width..][..inputs * height * width];
            let (acc, out) = (&acc[n * outputs * area..], &out[n * outputs * area..]);
            let centred: Vec<i32> = x.iter().map(|&q| q as i32 - input.codes.zero).collect();
            for (at, sum) in reference::accumulate(&conv, &input, &centred).iter().enumerate() {
                assert_eq!(f64::from(*sum) + bias[at / area], acc[at], "{name}: sum {at}");
            }
            let image: Vec<f32> = centred.iter().map(|&x| x as f32 * input.codes.scale).collect();
            for isa in Isa::available() {
                let mut features = vec![0.0; outputs * area];
                build(&graph, isa).unwrap().run(&image, &mut [0.0], &mut features);
                let code = |v: f32| f64::from((v / output.codes.scale).round()) + f64::from(output.codes.zero);
                let off: Vec<f64> = features.iter().zip(out).map(|(&v, o)| (code(v) - o).abs()).collect();
                assert!(off.iter().all(|&d| d <= 1.0), "{name} {}", isa.name());
                let share = off.iter().sum::<f64>() / off.len() as f64;
                assert!(share <= 0.005, "{name} {}: {share} of the codes differ", isa.name());
            }
        }
    }
}

/// The largest sums there can be, on the form that transforms codes and weights: nothing may wrap in the result.
#[test]
fn extremes_are_exact() {
    let window = Window { kernel: [3; 2], stride: [1; 2], dilation: [1; 2], before: [1; 2], after: [1; 2] };
    for (weights, zero, picture) in [(-128i8, 0, 1e9f32), (127, 0, 1e9), (-128, 255, -1e9), (127, 255, -1e9)] {
        let codes = Codes { scale: 0.5, zero, signed: false };
        let maps = vec![map(256, [5, 4], codes), map(32, [5, 4], Codes { scale: 300_000.0, zero: 128, signed: false })];
        let step = Conv {
            input: 0,
            output: 1,
            weight: vec![weights; 32 * 256 * 9],
            weight_scale: vec![1.0; 32],
            bias: vec![0.0; 32],
            window,
            groups: 1,
            clip: Clip::NONE,
            residual: None,
        };
        let input = &maps[0];
        let code = if picture > 0.0 { 255 - zero } else { -zero };
        let sums = reference::accumulate(&step, input, &vec![code; 256 * 20]);
        assert_eq!(sums[5], code * i32::from(weights) * 256 * 9, "the middle of the map");
        let head = Head { weight: vec![0.0; 32], bias: vec![0.0] };
        let graph = Graph { maps, steps: vec![Step::Conv(step)], given: 1, handed: vec![], features: 1, head };
        graph.check().unwrap();
        let image = vec![picture; 256 * 20];
        let wanted: Vec<f32> = reference::run(&graph, &image)[1].iter().map(|&x| x as f32 * 300_000.0).collect();
        for isa in Isa::available() {
            let mut features = vec![0.0; wanted.len()];
            build(&graph, isa).unwrap().run(&image, &mut [0.0], &mut features);
            assert_eq!(features, wanted, "{}", isa.name());
        }
    }
}

#[test]
fn quantizing_follows_onnx() {
    let data = Golden::open("quantization/data.safetensors");
    let x = data.f32("qdq.x");
    for (signed, zero) in [(false, 0), (false, 128), (false, 255), (true, 0), (true, -128), (true, 5)] {
        let codes = Codes { scale: 0.5, zero, signed };
        let kind = if signed { "s8" } else { "u8" };
        let wanted = data.f64(&format!("qdq.scale0.5.{kind}.zp{zero}.q"));
        for (v, q) in x.iter().zip(wanted) {
            assert_eq!(f64::from(codes.quantize(*v)) + f64::from(zero), q, "{v} {kind} {zero}");
        }
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let mut draw = Draw(7);
    let codes = Codes { scale: 0.1, zero: 0, signed: true };
    let window = Window { kernel: [3; 2], stride: [1; 2], dilation: [1; 2], before: [1; 2], after: [1; 2] };
    let maps = vec![map(4, [5, 5], codes), map(6, [5, 5], codes)];
    let step = conv(&mut draw, &maps[0], 6, 1, window);
    let good =
        Graph { maps, steps: vec![Step::Conv(step)], given: 1, handed: vec![], features: 1, head: head(&mut draw, 6) };
    good.check().unwrap();
    type Break = fn(&mut Graph);
    fn first(g: &mut Graph) -> &mut Conv {
        match &mut g.steps[0] {
            Step::Conv(c) => c,
            _ => panic!(),
        }
    }
    let cases: [(&str, Break); 14] = [
        ("weights too few", |g| first(g).weight.truncate(5)),
        ("bias too few", |g| first(g).bias.truncate(5)),
        ("scale not a number", |g| first(g).weight_scale[0] = f32::NAN),
        ("scale 0", |g| g.maps[1].codes.scale = 0.0),
        ("zero point no code", |g| g.maps[0].codes.zero = 200),
        ("bias infinite", |g| first(g).bias[1] = f32::INFINITY),
        ("bias no number", |g| first(g).bias[1] = f32::NAN),
        ("results beyond 32 bits", |g| first(g).weight_scale[1] = 1e5),
        ("an activation that lets nothing through", |g| first(g).clip = Clip { low: 1.0, high: 0.0 }),
        ("output too small", |g| g.maps[1].width = 4),
        ("map index", |g| first(g).input = 9),
        ("written twice", |g| first(g).output = 0),
        ("head", |g| g.head.weight.truncate(5)),
        ("far too large", |g| g.maps[0].height = usize::MAX / 2),
    ];
    for (name, damage) in cases {
        let mut graph = good.clone();
        damage(&mut graph);
        assert!(graph.check().is_err() && build(&graph, Isa::Portable).is_err(), "{name}");
    }
}
