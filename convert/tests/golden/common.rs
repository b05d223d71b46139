//! The ResNet-8 of the fixtures, its pictures, and a plain reference executor of unfolded graphs (f64).

use excon_convert::peer::{PYTHON, Peer, Runtime};
use excon_convert::{fold::Folded, weights::Weights};
use excon_train::network::{Graph, NodeId, Op, Stem, build};
use safetensors::SafeTensors;
use std::io::Write;
use std::path::{Path, PathBuf};

pub const SIDE: usize = 32;
pub const ONE: usize = 3 * SIDE * SIDE;

pub fn fixture(name: &str) -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures")).join(name)
}

/// f32 values of one tensor of a fixture.
pub fn floats(file: &str, name: &str) -> Vec<f32> {
    let bytes = std::fs::read(fixture(file)).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let data = tensors.tensor(name).unwrap().data().to_vec();
    data.as_chunks::<4>().0.iter().map(|c| f32::from_le_bytes(*c)).collect()
}

/// i64 values of one tensor of a fixture.
pub fn integers(file: &str, name: &str) -> Vec<i64> {
    let bytes = std::fs::read(fixture(file)).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let data = tensors.tensor(name).unwrap().data().to_vec();
    data.as_chunks::<8>().0.iter().map(|c| i64::from_le_bytes(*c)).collect()
}

/// u8 values of one tensor of a fixture.
pub fn bytes(file: &str, name: &str) -> Vec<u8> {
    let bytes = std::fs::read(fixture(file)).unwrap();
    SafeTensors::deserialize(&bytes).unwrap().tensor(name).unwrap().data().to_vec()
}

/// The network of `tests/fixtures/network`.
pub fn resnet8() -> Graph {
    build("resnet8", 10, Stem::Stride1, 128).unwrap()
}

fn unit(g: &mut Graph, conv: &str, norm: &str, op: Op, x: NodeId) -> NodeId {
    let Op::Conv { output, .. } = op else { panic!("not a convolution") };
    let y = g.push(conv, op, &[x]).unwrap();
    g.push(norm, Op::Norm { channels: output }, &[y]).unwrap()
}

pub fn weights() -> Weights {
    Weights::read(&fixture("network/weights.safetensors")).unwrap()
}

pub fn folded() -> Folded {
    Folded::new(&resnet8(), &weights(), SIDE).unwrap()
}

pub fn labels() -> Vec<String> {
    (0..10).map(|i| format!("class \"{i}\"")).collect()
}

/// The twelve normalised pictures.
pub fn pictures() -> Vec<f32> {
    floats("network/batch.safetensors", "input")
}

pub fn largest_gap(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(x, y)| (x - y).abs()).fold(0.0, f32::max)
}

pub fn argmax(x: &[f32]) -> usize {
    (0..x.len()).fold(0, |best, i| if x[i] > x[best] { i } else { best })
}

/// Values of every node up to the logits of an unfolded graph for one planar picture, in f64, with batch norm as it is written.
pub fn reference(g: &Graph, w: &Weights, side: usize, picture: &[f32]) -> Vec<Vec<f64>> {
    let mut maps: Vec<(Vec<f64>, usize)> = Vec::new();
    for node in &g.nodes[..=g.logits] {
        let get = |part: &str, shape: &[usize]| -> Vec<f64> {
            w.get(&format!("{}.{part}", node.name), shape).unwrap().iter().map(|&v| f64::from(v)).collect()
        };
        let given = node.inputs.first().map(|&i| maps[i].clone()).unwrap_or_default();
        let (x, n) = (&given.0, given.1);
        let value = match node.op {
            Op::Input { .. } => (picture.iter().map(|&v| f64::from(v)).collect(), side),
            Op::Conv { input, output, kernel: k, stride, padding, groups } => {
                let (i_group, o_group) = (input / groups, output / groups);
                let weight = get("weight", &[output, i_group, k, k]);
                let m = (n + 2 * padding - k) / stride + 1;
                let mut y = vec![0.0; output * m * m];
                for (o, plane) in y.chunks_exact_mut(m * m).enumerate() {
                    for i in 0..i_group {
                        let source = &x[(o / o_group * i_group + i) * n * n..][..n * n];
                        for (tap, f) in weight[(o * i_group + i) * k * k..][..k * k].iter().enumerate() {
                            for (at, out) in plane.iter_mut().enumerate() {
                                let row = (at / m * stride + tap / k).wrapping_sub(padding);
                                let column = (at % m * stride + tap % k).wrapping_sub(padding);
                                if row < n && column < n {
                                    *out += f * source[row * n + column];
                                }
                            }
                        }
                    }
                }
                (y, m)
            }
            Op::Norm { channels } => {
                let [gamma, beta, mean, var] =
                    ["weight", "bias", "running_mean", "running_var"].map(|p| get(p, &[channels]));
                let norm = |(at, v): (usize, &f64)| {
                    let c = at / (n * n);
                    (v - mean[c]) / (var[c] + 1e-5).sqrt() * gamma[c] + beta[c]
                };
                (x.iter().enumerate().map(norm).collect(), n)
            }
            Op::Relu => (x.iter().map(|v| v.max(0.0)).collect(), n),
            Op::Relu6 => (x.iter().map(|v| v.clamp(0.0, 6.0)).collect(), n),
            Op::Add => (x.iter().zip(&maps[node.inputs[1]].0).map(|(a, b)| a + b).collect(), n),
            Op::MaxPool { kernel, stride, padding } => {
                let m = (n + 2 * padding - kernel) / stride + 1;
                let window = |c: usize, at: usize| {
                    let mut best = f64::NEG_INFINITY;
                    for tap in 0..kernel * kernel {
                        let row = (at / m * stride + tap / kernel).wrapping_sub(padding);
                        let column = (at % m * stride + tap % kernel).wrapping_sub(padding);
                        if row < n && column < n {
                            best = best.max(x[c * n * n + row * n + column]);
                        }
                    }
                    best
                };
                ((0..x.len() / (n * n) * m * m).map(|at| window(at / (m * m), at % (m * m))).collect(), m)
            }
            Op::GlobalPool => (x.chunks_exact(n * n).map(|p| p.iter().sum::<f64>() / (n * n) as f64).collect(), 1),
            Op::Linear { input, output } => {
                let (weight, bias) = (get("weight", &[output, input]), get("bias", &[output]));
                let dot = |o: usize| weight[o * input..][..input].iter().zip(x).map(|(a, b)| a * b).sum::<f64>();
                ((0..output).map(|o| dot(o) + bias[o]).collect(), 1)
            }
        };
        maps.push(value);
    }
    maps.into_iter().map(|(values, _)| values).collect()
}

/// Random but plausible weights for any graph, as safetensors bytes.
pub fn random_weights(g: &Graph, seed: u64) -> Weights {
    let mut state = seed;
    let mut uniform = move || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        ((state >> 40) as f32 / (1u64 << 24) as f32) * 2.0 - 1.0
    };
    let mut named: Vec<(String, Vec<usize>, Vec<u8>)> = vec![];
    let mut add = |name: String, shape: Vec<usize>, f: &mut dyn FnMut() -> f32| {
        let data = (0..shape.iter().product()).flat_map(|_: usize| f().to_le_bytes()).collect();
        named.push((name, shape, data));
    };
    for node in &g.nodes {
        let name = |part: &str| format!("{}.{part}", node.name);
        match node.op {
            Op::Conv { input, output, kernel, groups, .. } => {
                let gain = (3.0 / (input / groups * kernel * kernel) as f32).sqrt();
                add(name("weight"), vec![output, input / groups, kernel, kernel], &mut || uniform() * gain);
            }
            Op::Linear { input, output } => {
                add(name("weight"), vec![output, input], &mut || uniform() * 0.3);
                add(name("bias"), vec![output], &mut uniform);
            }
            Op::Norm { channels } => {
                add(name("weight"), vec![channels], &mut || 0.8 + 0.7 * uniform());
                add(name("bias"), vec![channels], &mut || 0.5 * uniform());
                add(name("running_mean"), vec![channels], &mut uniform);
                add(name("running_var"), vec![channels], &mut || (1.01 + uniform()) * 0.7);
            }
            _ => {}
        }
    }
    let views = named.iter().map(|(name, shape, data)| {
        (name, safetensors::tensor::TensorView::new(safetensors::Dtype::F32, shape.clone(), data).unwrap())
    });
    let file = safetensors::serialize(views, None).unwrap();
    Weights::from_bytes(Path::new("random"), &file).unwrap()
}

/// A graph with what ResNet-8 lacks: an Imagenet stem with max pooling, groups, a depthwise convolution with ReLU6, odd sides.
pub fn unusual() -> Graph {
    let mut g = Graph::new("unusual", 3);
    let stem = Op::Conv { input: 3, output: 12, kernel: 7, stride: 2, padding: 3, groups: 1 };
    let mut x = unit(&mut g, "stem_conv", "stem_bn", stem, 0);
    x = g.push("stem_relu", Op::Relu, &[x]).unwrap();
    x = g.push("stem_pool", Op::MaxPool { kernel: 3, stride: 2, padding: 1 }, &[x]).unwrap();
    let grouped = Op::Conv { input: 12, output: 12, kernel: 3, stride: 1, padding: 1, groups: 3 };
    let mut y = unit(&mut g, "grouped", "grouped_bn", grouped, x);
    y = g.push("grouped_relu", Op::Relu, &[y]).unwrap();
    let depthwise = Op::Conv { input: 12, output: 12, kernel: 3, stride: 1, padding: 1, groups: 12 };
    y = unit(&mut g, "depthwise", "depthwise_bn", depthwise, y);
    y = g.push("depthwise_relu", Op::Relu6, &[y]).unwrap();
    let project = Op::Conv { input: 12, output: 12, kernel: 1, stride: 1, padding: 0, groups: 1 };
    y = unit(&mut g, "project", "project_bn", project, y);
    x = g.push("features", Op::Add, &[y, x]).unwrap(); // a node may carry a public name; no ReLU behind the sum
    g.features = x;
    g.pooled = g.push("pool", Op::GlobalPool, &[x]).unwrap();
    g.logits = g.push("logits", Op::Linear { input: 12, output: 5 }, &[g.pooled]).unwrap();
    g.projection = g.push("projection", Op::Linear { input: 12, output: 7 }, &[g.pooled]).unwrap();
    g
}

/// Checks a model with `onnx.checker` and runs it in every other runtime that the Python of `EXCON_PYTHON` has: logits and
/// features of all pictures. What is missing there is said aloud.
pub fn elsewhere(
    model: &excon_convert::onnx::pb::ModelProto,
    input: [usize; 3],
    x: &[f32],
) -> Vec<(Runtime, [Vec<f32>; 2])> {
    let file = excon_convert::onnx::encode(model);
    check_onnx(&file);
    let run = |runtime| {
        let peer = peer(|| Peer::start(runtime, &file, input, &["logits", "features"]))?;
        Some((runtime, peer.run(x).unwrap().try_into().unwrap()))
    };
    Runtime::ALL.into_iter().filter_map(run).collect()
}

/// Starts another runtime; says so aloud where `EXCON_PYTHON` names no Python that has it.
pub fn peer<T>(start: impl FnOnce() -> excon_edge::Result<T>) -> Option<T> {
    if std::env::var_os(PYTHON).is_none() {
        eprintln!("SKIPPED: set {PYTHON} to a Python with onnx, onnxruntime, openvino and numpy to compare with these");
        return None;
    }
    match start() {
        Ok(started) => Some(started),
        Err(excon_edge::Error::Unavailable { reason, .. }) if reason.contains("has no package") => {
            eprintln!("SKIPPED: {reason}");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

/// `onnx.checker`'s opinion of a file, where there is one.
fn check_onnx(file: &[u8]) {
    let Some(python) = std::env::var_os(PYTHON) else { return };
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/python/check_onnx.py");
    let piped = std::process::Stdio::piped;
    let mut process = std::process::Command::new(python).arg(script).stdin(piped()).stderr(piped()).spawn().unwrap();
    let written = process.stdin.take().unwrap().write_all(file);
    let done = process.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&done.stderr);
    if said.contains("No module named 'onnx'") {
        return eprintln!("SKIPPED: the Python of {PYTHON} has no package onnx");
    }
    assert!(written.is_ok() && done.status.success(), "{said}");
}
