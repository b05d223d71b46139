//! The walk over a graph, forward and backward, against the CPU's.

use super::*;
use crate::cuda::walk::{Walker, Wanted};
use crate::golden;
use crate::network::{Graph, Network, NodeId, NormMode, Op, Stem, build};
use std::collections::BTreeMap;

fn network(graph: Graph) -> Network {
    let mut network = Network::new(graph, &mut rng(20)).unwrap();
    // Norms that are not as they begin.
    let mut rng = rng(21);
    let changed = |(name, tensor): (String, Tensor)| {
        let values = numbers(&mut rng, tensor.elem_count());
        let values: Vec<f32> = match name.rsplit_once('.').unwrap().1 {
            "running_var" => values.iter().map(|v| 1.0 + 0.5 * v).collect(),
            "running_mean" => values,
            "weight" if tensor.rank() == 1 => values.iter().map(|v| 1.0 + 0.5 * v).collect(),
            _ => return (name, tensor),
        };
        let tensor = Tensor::from_vec(values, tensor.shape(), tensor.device()).unwrap();
        (name, tensor)
    };
    let state: BTreeMap<String, Tensor> = network.state().unwrap().into_iter().map(changed).collect();
    network.load(&state).unwrap();
    network
}

/// What our networks do not have, all at once: norms and ReLUs alone, sums without ReLU, a map with three readers, groups.
fn odd() -> Graph {
    let mut g = Graph::new("odd", 3);
    let conv =
        |input, output, kernel, groups| Op::Conv { input, output, kernel, stride: 1, padding: kernel / 2, groups };
    let mut push = |name: &str, op: Op, inputs: &[NodeId]| g.push(name, op, inputs).unwrap();
    let x = push("stem_conv", conv(3, 16, 5, 1), &[0]);
    let x = push("stem_bn", Op::Norm { channels: 16 }, &[x]);
    let x = push("stem_relu", Op::Relu, &[x]);
    let m = push("pooled_map", Op::MaxPool { kernel: 3, stride: 2, padding: 1 }, &[x]);
    let x = push("a.conv", conv(16, 16, 3, 16), &[m]);
    let x = push("a.bn", Op::Norm { channels: 16 }, &[x]);
    let a = push("a.add", Op::Add, &[x, m]);
    let x = push("b.conv", conv(16, 16, 1, 1), &[a]);
    let x = push("b.relu", Op::Relu6, &[x]);
    let x = push("b.add", Op::Add, &[x, a]);
    let x = push("c.add", Op::Add, &[x, m]);
    let x = push("c.bn", Op::Norm { channels: 16 }, &[x]);
    let pooled = push("pool", Op::GlobalPool, &[x]);
    let logits = push("fc", Op::Linear { input: 16, output: 5 }, &[pooled]);
    let h = push("head.0", Op::Linear { input: 16, output: 16 }, &[pooled]);
    let h = push("head.1", Op::Relu, &[h]);
    let projection = push("head.2", Op::Linear { input: 16, output: 12 }, &[h]);
    Graph { features: x, pooled, logits, projection, paper_cam: x, ..g }
}

/// Graphs with rows and side of a batch, and how exactly gradients agree: rounding grows with depth.
fn graphs() -> Vec<(Graph, usize, usize, f32)> {
    let built = |name, stem| build(name, 7, stem, 24).unwrap();
    vec![
        (golden::graph(), 4, 16, 1e-3),
        (built("resnet8", Stem::Imagenet), 5, 32, 1e-3),
        (built("resnet20", Stem::Stride2), 3, 16, 1e-3),
        (built("mobilenetv2-0.25", Stem::Stride1), 4, 32, 0.02),
        (odd(), 3, 9, 1e-3),
    ]
}

fn cosine(a: &[f32], b: &[f32]) -> f32 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(x, y)| x * y).sum::<f32>();
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt().max(1e-12)
}

#[test]
fn a_training_pass_matches_with_its_gradients_and_running_statistics() {
    for (graph, rows, side, tolerance) in graphs() {
        let mut rng = rng(22);
        let cpu = network(graph.clone());
        let x = Tensor::from_vec(
            numbers(&mut rng, rows * side * side * 3),
            (rows, side, side, 3),
            &candle_core::Device::Cpu,
        );
        let x = x.unwrap();
        let before = network(graph.clone());
        let fetch = [graph.projection, graph.logits];
        let out = cpu.forward(&x, NormMode::Train, &fetch).unwrap();
        let g = fetch.map(|id| numbers(&mut rng, rows * graph.channels(id)));
        let scalar = |i: usize| {
            let g = Tensor::from_slice(&g[i], out[i].shape(), out[i].device()).unwrap();
            (&out[i] * g).unwrap().sum_all().unwrap()
        };
        let store = (scalar(0) + scalar(1)).unwrap().backward().unwrap();
        for precision in [Precision::F32, Precision::Bf16] {
            // In a deep network on few pictures bf16's gradients agree in no useful sense.
            if precision == Precision::Bf16 && tolerance > 1e-3 {
                continue;
            }
            on_devices(precision, |machine| {
                let walker = Walker::new(machine, &graph).unwrap();
                walker.parameters.load(&before).unwrap();
                let x = upload(machine, &x);
                let wanted = Wanted { mode: NormMode::Train, fetch: &fetch, weights: None, backward: true };
                let pass = walker.forward(&x, &wanted).unwrap();
                let exact = precision == Precision::F32;
                for (id, want) in fetch.iter().zip(&out) {
                    let got = of_matrix(pass.matrix(&graph, *id).unwrap());
                    close(&got, &of(want), if exact { 1e-4 } else { 0.15 }, &graph.name);
                }
                let gradients = fetch.iter().zip(&g).map(|(id, g)| (*id, matrix(machine, g, graph.channels(*id))));
                walker.backward(pass, gradients.collect()).unwrap();
                let got = walker.parameters.gradients().unwrap();
                for (name, variable) in cpu.parameters() {
                    let (got, want) = (of(&got[&name]), of(store.get(&variable).unwrap()));
                    if exact {
                        // A gradient that is 0 but for rounding (of a norm's bias before another norm) has no scale.
                        let largest = want.iter().fold(0.1f32, |m, v| m.max(v.abs()));
                        let gap = gap(&got, &want);
                        assert!(gap <= tolerance * largest, "{} {name}: {gap} of {largest}", graph.name);
                    } else {
                        let cosine = cosine(&got, &want);
                        assert!(cosine > 0.8, "{} {name}: {cosine}", graph.name);
                    }
                }
                let (got, want) = (walker.parameters.state().unwrap(), cpu.state().unwrap());
                assert_eq!(got.keys().collect::<Vec<_>>(), want.keys().collect::<Vec<_>>());
                for (name, want) in &want {
                    assert_eq!(got[name].dims(), want.dims());
                    close(&of(&got[name]), &of(want), if exact { 1e-5 } else { 0.02 }, name);
                }
            });
        }
    }
}

#[test]
fn passes_without_gradients_match_and_move_nothing() {
    for (graph, rows, side, _) in graphs() {
        let mut rng = rng(23);
        let cpu = network(graph.clone());
        let x = Tensor::from_vec(
            numbers(&mut rng, rows * side * side * 3),
            (rows, side, side, 3),
            &candle_core::Device::Cpu,
        );
        let x = x.unwrap();
        on_devices(Precision::F32, |machine| {
            let walker = Walker::new(machine, &graph).unwrap();
            walker.parameters.load(&cpu).unwrap();
            let x_map = upload(machine, &x);
            for mode in [NormMode::Eval, NormMode::Batch] {
                let fetch = [graph.features, graph.pooled, graph.logits];
                let want = cpu.infer(&x, mode, &fetch).unwrap();
                let wanted = Wanted { mode, fetch: &fetch, weights: None, backward: false };
                let pass = walker.forward(&x_map, &wanted).unwrap();
                close(&values(machine, pass.map(&graph, fetch[0]).unwrap()), &of(&want[0]), 1e-4, "features");
                for i in [1, 2] {
                    close(&of_matrix(pass.matrix(&graph, fetch[i]).unwrap()), &of(&want[i]), 1e-4, "matrix");
                }
            }
            let (got, want) = (walker.parameters.state().unwrap(), cpu.state().unwrap());
            want.iter().for_each(|(name, want)| assert_eq!(of(&got[name]), of(want), "{name}"));
            // The same shapes need no more memory.
            let before = machine.pool.allocations();
            let wanted = Wanted { mode: NormMode::Eval, fetch: &[graph.logits], weights: None, backward: false };
            (0..3).for_each(|_| drop(walker.forward(&x_map, &wanted).unwrap()));
            assert_eq!(machine.pool.allocations(), before);
        });
    }
}
