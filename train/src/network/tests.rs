//! Whole networks against the golden vectors `network` and `explain`, made with PyTorch and captum.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::optimizer::{Sgd, SgdConfig};
use candle_core::{D, DType, Device, Tensor};
use rand::RngExt;
use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};
use std::collections::{BTreeMap, HashMap};

type Tensors = HashMap<String, Tensor>;

fn fixture(name: &str) -> Tensors {
    let path = format!("{}/../tests/fixtures/{name}.safetensors", env!("CARGO_MANIFEST_DIR"));
    candle_core::safetensors::load(path, &Device::Cpu).unwrap()
}

/// ResNet-8 with the fixture's weights; the projection head, which the fixture lacks, stays fresh.
fn golden_network() -> Network {
    let graph = build("resnet8", 10, Stem::Stride1, 128).unwrap();
    let mut network = Network::new(graph, &mut ChaCha8Rng::seed_from_u64(1)).unwrap();
    let mut state = network.state().unwrap();
    let weights = fixture("network/weights");
    for (name, tensor) in weights.iter().filter(|(name, _)| !name.ends_with("num_batches_tracked")) {
        assert!(state.insert(name.clone(), tensor.clone()).is_some(), "the network has no {name}");
    }
    network.load(&state).unwrap();
    network
}

/// Images `from .. from + count`, N × H × W × C.
fn images(from: usize, count: usize) -> Tensor {
    nhwc(&fixture("network/batch")["input"].narrow(0, from, count).unwrap())
}

fn labels(from: usize, count: usize) -> Tensor {
    fixture("network/batch")["label"].narrow(0, from, count).unwrap()
}

fn nhwc(x: &Tensor) -> Tensor {
    x.permute((0, 2, 3, 1)).unwrap().contiguous().unwrap()
}

fn nchw(x: &Tensor) -> Tensor {
    x.permute((0, 3, 1, 2)).unwrap().contiguous().unwrap()
}

fn largest(x: &Tensor) -> f32 {
    x.flatten_all().unwrap().abs().unwrap().max(D::Minus1).unwrap().to_scalar().unwrap()
}

#[track_caller]
fn close(got: &Tensor, wanted: &Tensor, tolerance: f32, what: &str) {
    assert_eq!(got.dims(), wanted.dims(), "{what}");
    let gap = largest(&(got - wanted).unwrap());
    assert!(gap <= tolerance, "{what}: off by {gap}, allowed {tolerance}");
}

/// Seeded numbers, uniform in −1 … 1.
fn noise(seed: u64, shape: &[usize]) -> Tensor {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let values = (0..shape.iter().product::<usize>()).map(|_| rng.random::<f32>() * 2.0 - 1.0).collect();
    Tensor::from_vec::<_, f32>(values, shape, &Device::Cpu).unwrap()
}

/// Agreement in the mean square, which a few ReLUs that fall to the other side by rounding hardly move.
#[track_caller]
fn alike(got: &Tensor, wanted: &Tensor, tolerance: f32, what: &str) {
    assert_eq!(got.dims(), wanted.dims(), "{what}");
    let norm = |t: &Tensor| t.sqr().unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap().sqrt();
    let gap = norm(&(got - wanted).unwrap()) / norm(wanted).max(f32::MIN_POSITIVE);
    assert!(gap <= tolerance, "{what}: off by {gap} of the norm, allowed {tolerance}");
}

fn cross_entropy(logits: &Tensor, labels: &Tensor) -> Tensor {
    candle_nn::loss::cross_entropy(logits, labels).unwrap()
}

#[test]
fn evaluation_agrees_with_pytorch_folded_and_unfolded() {
    let network = golden_network();
    let graph = network.graph();
    let wanted = fixture("network/eval_forward");
    let stage = |name: &str| graph.find(name).unwrap();
    let fetch =
        [graph.logits, graph.pooled, graph.features, stage("stem_relu"), stage("stage1.relu2"), stage("stage2.relu2")];
    let x = images(0, 12);
    for outputs in [network.infer(&x, NormMode::Eval, &fetch), network.forward(&x, NormMode::Eval, &fetch)] {
        let outputs = outputs.unwrap();
        close(&outputs[0], &wanted["logits"], 2e-5, "logits");
        close(&outputs[1], &wanted["pooled"], 2e-5, "pooled");
        close(&nchw(&outputs[2].narrow(0, 0, 4).unwrap()), &wanted["last_map"], 2e-5, "last map");
        for (i, name) in [(3, "stem.image0"), (4, "stage1.image0"), (5, "stage2.image0")] {
            close(&nchw(&outputs[i].narrow(0, 0, 1).unwrap()).squeeze(0).unwrap(), &wanted[name], 2e-5, name);
        }
    }
}

#[test]
fn a_training_step_has_pytorchs_gradients_and_statistics() {
    let network = golden_network();
    let wanted = fixture("network/train_forward_backward");
    let graph = network.graph();
    let fetch = [graph.logits, graph.pooled, graph.features];
    let outputs = network.forward(&images(0, 4), NormMode::Train, &fetch).unwrap();
    close(&outputs[0], &wanted["logits"], 2e-5, "logits");
    close(&outputs[1], &wanted["pooled"], 2e-5, "pooled");
    close(&nchw(&outputs[2]), &wanted["last_map"], 2e-5, "last map");
    let loss = cross_entropy(&outputs[0], &labels(0, 4));
    close(&loss.reshape(1).unwrap(), &wanted["loss"], 2e-5, "loss");
    let grads = loss.backward().unwrap();
    let mut compared = 0;
    for (name, parameter) in network.parameters() {
        let Some(wanted) = wanted.get(&format!("grad.{name}")) else { continue };
        close(grads.get(&parameter).unwrap(), wanted, 1e-4 * largest(wanted), &name);
        compared += 1;
    }
    assert_eq!(compared, 29);
    for (name, value) in network.state().unwrap() {
        if let Some(wanted) = wanted.get(&format!("after.{name}")) {
            close(&value, wanted, 1e-4, &name);
        }
    }
}

#[test]
fn batch_mode_normalises_as_training_and_leaves_the_running_statistics() {
    let network = golden_network();
    let before = network.state().unwrap();
    let fetch = [network.graph().logits];
    let wanted = &fixture("network/train_forward_backward")["logits"];
    let outputs = network.infer(&images(0, 4), NormMode::Batch, &fetch).unwrap();
    close(&outputs[0], wanted, 2e-5, "logits");
    for (name, value) in network.state().unwrap() {
        close(&value, &before[&name], 0.0, &name);
    }
}

#[test]
fn the_optimizer_follows_pytorch_over_one_and_three_steps() {
    for (kind, nesterov) in [("heavyball", false), ("nesterov", true)] {
        for (steps, tolerance) in [(1, 1e-5), (3, 1e-4)] {
            let wanted = fixture(&format!("network/sgd_{kind}_{steps}step"));
            let network = golden_network();
            let config = SgdConfig { momentum: 0.9, weight_decay: 1e-4, nesterov };
            let mut optimizer = Sgd::new(network.parameters(), config).unwrap();
            for step in 0..steps {
                let fetch = [network.graph().logits];
                let outputs = network.forward(&images(4 * step, 4), NormMode::Train, &fetch).unwrap();
                let loss = cross_entropy(&outputs[0], &labels(4 * step, 4));
                optimizer.step(&loss.backward().unwrap(), 0.1).unwrap();
            }
            let mut state = network.state().unwrap();
            state.extend(optimizer.state().unwrap());
            let mut compared = 0;
            for (name, wanted) in wanted.iter().filter(|(_, t)| t.dtype() == DType::F32) {
                let statistic = name.contains("running");
                close(
                    &state[name],
                    wanted,
                    if statistic { 1e-4 } else { tolerance },
                    &format!("{kind} {steps}: {name}"),
                );
                compared += 1;
            }
            assert!(compared >= 47, "{compared}");
        }
    }
}

#[test]
fn gradients_at_an_inner_map_give_captums_grad_cam() {
    let network = golden_network();
    let graph = network.graph();
    let wanted = fixture("explain/maps");
    let x = images(0, 4);
    let layer = |name: &str| graph.find(name).unwrap();
    let cases = [
        ("gradcam.stage1.conv2", layer("stage1.conv2"), NormMode::Eval),
        ("gradcam.stage2.conv2", layer("stage2.conv2"), NormMode::Eval),
        ("gradcam.last", graph.features, NormMode::Eval),
        ("gradcam_trainmode.stage2.conv2", graph.paper_cam, NormMode::Batch),
    ];
    assert_eq!(graph.paper_cam, layer("stage2.conv2"));
    for (name, leaf, mode) in cases {
        for target in ["label", "predicted"] {
            let Some(map) = wanted.get(&format!("{name}.{target}")) else { continue };
            let (var, outputs) = network.forward_from_leaf(&x, mode, leaf, &[graph.logits]).unwrap();
            let classes = wanted[target].unsqueeze(1).unwrap();
            let grads = outputs[0].gather(&classes, 1).unwrap().sum_all().unwrap().backward().unwrap();
            let gradient = grads.get(&var).unwrap();
            let weights = gradient.mean_keepdim((1, 2)).unwrap();
            let cam = var.as_tensor().broadcast_mul(&weights).unwrap().sum(3).unwrap();
            close(&cam, map, 1e-4 * largest(map), name);
            assert!(network.parameters().iter().all(|(_, p)| grads.get(p).is_none()));
        }
    }
}

#[test]
fn every_named_network_runs_and_only_what_is_asked_for() {
    for (name, stem, side, features) in [
        ("resnet20", Stem::Stride1, 16, vec![2, 4, 4, 64]),
        ("resnet8", Stem::Stride2, 17, vec![2, 3, 3, 64]),
        ("resnet18", Stem::Imagenet, 33, vec![2, 2, 2, 512]),
        ("resnet50", Stem::Stride2, 16, vec![2, 1, 1, 2048]),
        ("mobilenetv2-0.35", Stem::Stride1, 21, vec![2, 3, 3, 1280]),
        ("mobilenetv2-0.5", Stem::Imagenet, 33, vec![2, 2, 2, 1280]),
    ] {
        let graph = build(name, 7, stem, 128).unwrap();
        let network = Network::new(graph, &mut ChaCha8Rng::seed_from_u64(2)).unwrap();
        let graph = network.graph();
        let x = noise(4, &[2, side, side, 3]);
        let fetch = [graph.features, graph.logits, graph.projection, graph.paper_cam];
        let outputs = network.forward(&x, NormMode::Train, &fetch).unwrap();
        assert_eq!(outputs[0].dims(), features, "{name}");
        assert_eq!(outputs[1].dims(), [2, 7]);
        assert_eq!(outputs[2].dims(), [2, 128]);
        assert_eq!(outputs[3].dims()[3], graph.channels(graph.paper_cam));
        let grads = (outputs[2].sqr().unwrap().sum_all().unwrap()).backward().unwrap();
        for (parameter, var) in network.parameters() {
            assert_eq!(grads.get(&var).is_some(), !parameter.starts_with("fc."), "{name} {parameter}");
        }
        // The unfused and the folded evaluation agree.
        let eval = network.forward(&x, NormMode::Eval, &fetch).unwrap();
        let fused = network.infer(&x, NormMode::Eval, &fetch).unwrap();
        for (a, b) in eval.iter().zip(&fused) {
            close(a, b, 1e-4 * largest(a).max(1.0), name);
        }
    }
}

/// Asking for the first convolution keeps the encoder from running as one operation.
#[test]
fn the_whole_encoder_and_single_operations_agree_in_all_gradients() {
    // In a deep network with few pixels a norm, rounding grows: the last tolerance is for that.
    for (name, stem, side, tolerance) in [
        ("resnet20", Stem::Stride1, 9, 2e-3),
        ("resnet8", Stem::Stride2, 21, 2e-3),
        ("resnet18", Stem::Imagenet, 37, 5e-3),
        ("resnet50", Stem::Stride2, 34, 5e-2),
        ("mobilenetv2-0.25", Stem::Stride1, 25, 5e-2),
    ] {
        let new = || {
            let graph = build(name, 5, stem, 16).unwrap();
            Network::new(graph, &mut ChaCha8Rng::seed_from_u64(3)).unwrap()
        };
        let (whole, single) = (new(), new());
        let graph = whole.graph();
        let x = candle_core::Var::from_tensor(&noise(5, &[5, side, side, 3])).unwrap();
        let first = graph.find("stem_conv").unwrap();
        let a = whole.forward(&x, NormMode::Train, &[graph.logits]).unwrap();
        let b = single.forward(&x, NormMode::Train, &[graph.logits, first]).unwrap();
        close(&a[0], &b[0], 1e-4 * largest(&b[0]), name);
        let weights = noise(6, a[0].dims());
        let [a, b] = [a, b].map(|y| (&y[0] * &weights).unwrap().sum_all().unwrap().backward().unwrap());
        let (got, wanted) = (a.get(&x).unwrap(), b.get(&x).unwrap());
        alike(got, wanted, tolerance, &format!("{name}: input"));
        let (mine, theirs) = (whole.parameters(), single.parameters());
        // The head is not asked for; a linear bottleneck's shift, which the next norm takes away, has a gradient of rounding.
        let compared = |name: &str| !name.starts_with("head.") && !name.ends_with("project_bn.bias");
        for ((parameter, p), (_, q)) in mine.iter().zip(&theirs).filter(|((name, _), _)| compared(name)) {
            let (got, wanted) = (a.get(p).unwrap(), b.get(q).unwrap());
            alike(got, wanted, tolerance, &format!("{name}: {parameter}"));
        }
        let (mine, theirs) = (whole.state().unwrap(), single.state().unwrap());
        for (key, value) in &mine {
            close(value, &theirs[key], 1e-4 * largest(value).max(1.0), &format!("{name}: {key}"));
        }
        // Evaluation: the encoder in one go, and folded one by one.
        let a = whole.infer(&x, NormMode::Eval, &[graph.features]).unwrap();
        let b = whole.infer(&x, NormMode::Eval, &[graph.features, first]).unwrap();
        close(&a[0], &b[0], 1e-4 * largest(&b[0]), name);
    }
}

#[test]
fn loading_refuses_what_does_not_fit_and_changes_nothing() {
    let mut network = golden_network();
    let before = network.state().unwrap();
    let load = |change: &dyn Fn(&mut BTreeMap<String, Tensor>), network: &mut Network| {
        let mut state = before.clone();
        change(&mut state);
        network.load(&state).unwrap_err().to_string()
    };
    let zeros = Tensor::zeros(3, DType::F32, &Device::Cpu).unwrap();
    assert!(load(&|s| drop(s.remove("fc.bias")), &mut network).contains("fc.bias"));
    assert!(load(&|s| drop(s.insert("fc.bias".into(), zeros.clone())), &mut network).contains("[10]"));
    assert!(load(&|s| drop(s.insert("fc.scale".into(), zeros.clone())), &mut network).contains("fc.scale"));
    for (name, value) in network.state().unwrap() {
        close(&value, &before[&name], 0.0, &name);
    }
    let error = network.infer(&zeros, NormMode::Eval, &[0]).unwrap_err().to_string();
    assert!(error.contains("N × H × W × 3"), "{error}");
}

/// Channels, strides and parameters of the paper's table 2, and of torchvision's `mobilenet_v2` (2,223,872 in the encoder).
#[test]
fn mobilenetv2_is_the_papers() {
    let graph = build("mobilenetv2", 1000, Stem::Imagenet, 128).unwrap();
    let network = Network::new(graph, &mut ChaCha8Rng::seed_from_u64(1)).unwrap();
    let count = |wanted: &dyn Fn(&str) -> bool| -> usize {
        network.parameters().iter().filter(|(name, _)| wanted(name)).map(|(_, p)| p.elem_count()).sum()
    };
    assert_eq!(count(&|name| !name.starts_with("fc.") && !name.starts_with("head.")), 2_223_872);
    assert_eq!(count(&|name| name.starts_with("fc.")), 1_281_000);
    let graph = network.graph();
    let strides = |graph: &Graph| {
        let stride = |n: &Node| if let Op::Conv { stride, .. } = n.op { stride } else { 1 };
        graph.nodes.iter().map(stride).product::<usize>()
    };
    let reduced =
        [Stem::Stride1, Stem::Stride2, Stem::Imagenet].map(|s| strides(&build("mobilenetv2", 5, s, 8).unwrap()));
    assert_eq!(reduced, [8, 16, 32]);
    assert_eq!(graph.nodes.iter().filter(|n| n.op == Op::Add).count(), 10);
    assert_eq!(graph.nodes.iter().filter(|n| n.op == Op::Relu6).count(), 35);
    assert_eq!(graph.nodes[graph.paper_cam].name, "last_conv");
    let error = build("mobilenetv2-wide", 10, Stem::Stride1, 128).unwrap_err().to_string();
    assert!(error.contains("mobilenetv2-0.5"), "{error}");
}

#[test]
fn an_unknown_network_is_refused_with_the_nearest_name() {
    let error = build("resnet21", 10, Stem::Stride1, 128).unwrap_err().to_string();
    assert!(error.contains("resnet20"), "{error}");
}
