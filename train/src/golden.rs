//! Helpers of the tests that compare with the independent reference vectors: the reference network and its tensors.
#![allow(clippy::unwrap_used)]

use crate::network::{Graph, Network, Op};
use crate::recipe::{Purpose, stream};
use candle_core::{DType, Device, Tensor};
use std::collections::{BTreeMap, HashMap};

/// The tensors of a fixture, such as `explain/maps`.
pub fn tensors(name: &str) -> HashMap<String, Tensor> {
    let path = format!("{}/../tests/fixtures/{name}.safetensors", env!("CARGO_MANIFEST_DIR"));
    candle_core::safetensors::load(path, &Device::Cpu).unwrap()
}

/// Values of a tensor of any type.
pub fn values(t: &Tensor) -> Vec<f64> {
    t.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

/// Whole numbers of a tensor of any type.
pub fn whole(t: &Tensor) -> Vec<usize> {
    values(t).into_iter().map(|v| v as usize).collect()
}

/// Planar pictures in the trainer's channel-last layout.
pub fn channel_last(t: &Tensor) -> Tensor {
    t.to_dtype(DType::F32).unwrap().permute((0, 2, 3, 1)).unwrap().contiguous().unwrap()
}

/// Largest difference.
pub fn gap(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(x, y)| (x - y).abs()).fold(0.0, f64::max)
}

/// Largest magnitude.
pub fn largest(a: &[f64]) -> f64 {
    a.iter().fold(0.0, |m, v| m.max(v.abs()))
}

/// The reference ResNet-8 (three basic blocks, 16, 32, 64 channels, ten classes) with the reference projection head.
pub fn graph() -> Graph {
    let mut g = Graph::new("resnet8", 3);
    let conv = |input, output, kernel, stride, padding| Op::Conv { input, output, kernel, stride, padding, groups: 1 };
    let mut x = g.push("stem_conv", conv(3, 16, 3, 1, 1), &[0]).unwrap();
    x = g.push("stem_bn", Op::Norm { channels: 16 }, &[x]).unwrap();
    x = g.push("stem_relu", Op::Relu, &[x]).unwrap();
    let mut input = 16;
    for (stage, output, stride) in [(1, 16, 1), (2, 32, 2), (3, 64, 2)] {
        let at = |part: &str| format!("stage{stage}.{part}");
        let norm = Op::Norm { channels: output };
        let mut y = g.push(at("conv1"), conv(input, output, 3, stride, 1), &[x]).unwrap();
        y = g.push(at("bn1"), norm.clone(), &[y]).unwrap();
        y = g.push(at("relu1"), Op::Relu, &[y]).unwrap();
        y = g.push(at("conv2"), conv(output, output, 3, 1, 1), &[y]).unwrap();
        y = g.push(at("bn2"), norm.clone(), &[y]).unwrap();
        let mut short = x;
        if input != output {
            short = g.push(at("short_conv"), conv(input, output, 1, stride, 0), &[x]).unwrap();
            short = g.push(at("short_bn"), norm, &[short]).unwrap();
        }
        y = g.push(at("add"), Op::Add, &[y, short]).unwrap();
        x = g.push(at("relu2"), Op::Relu, &[y]).unwrap();
        input = output;
    }
    g.features = x;
    g.pooled = g.push("pool", Op::GlobalPool, &[x]).unwrap();
    g.logits = g.push("fc", Op::Linear { input: 64, output: 10 }, &[g.pooled]).unwrap();
    let mut p = g.push("head.0", Op::Linear { input: 64, output: 64 }, &[g.pooled]).unwrap();
    p = g.push("head.1", Op::Relu, &[p]).unwrap();
    g.projection = g.push("head.2", Op::Linear { input: 64, output: 128 }, &[p]).unwrap();
    g.paper_cam = g.find("stage2.conv2").unwrap();
    g
}

/// The reference network with the reference weights.
pub fn network() -> Network {
    let heads = tensors("recipe/excon_step").into_iter().filter(|(name, _)| name.starts_with("head."));
    let weights = tensors("network/weights").into_iter().filter(|(name, _)| !name.ends_with("num_batches_tracked"));
    let state: BTreeMap<String, Tensor> = weights.chain(heads).collect();
    let mut network = Network::new(graph(), &mut stream(0, Purpose::Weights, 0, 0)).unwrap();
    network.load(&state).unwrap();
    network
}
