//! One whole step of each method: against the independent vectors, and against the CPU's step for every switch.

use super::*;
use crate::config::{Mode, RecipeName, TrainConfig};
use crate::cuda::step::{Batch, Method};
use crate::cuda::walk::Walker;
use crate::dataset::Dataset;
use crate::explain::{ExplainConfig, ExplainerNorm, Fill, MaskRule, Target};
use crate::golden::{self, channel_last, tensors, whole};
use crate::loss::Background;
use crate::recipe::{self, Draw, Purpose, stream};
use candle_core::DType;
use std::collections::HashMap;

const BLACK: [f32; 3] = [-1.5, -1.25, -1.75];

fn pure(recipe: RecipeName) -> TrainConfig {
    TrainConfig { joint: false, ..TrainConfig::defaults(recipe, Mode::Device) }
}

/// The step's gradients on a device: their sums, the walker that holds them.
fn step(machine: &Machine, config: &TrainConfig, f: &HashMap<String, Tensor>) -> (Vec<f32>, Walker) {
    let network = golden::network();
    let walker = Walker::new(machine, network.graph()).unwrap();
    walker.parameters.load(&network).unwrap();
    let method = Method::of(config, BLACK).unwrap();
    let [s, r, r1] = ["s", "r", "r1"].map(|name| channel_last(&f[name]));
    let labels = whole(&f["label"]);
    let count = labels.len();
    let explain = method.explains(1);
    let first = match (explain, config.recipe) {
        (_, RecipeName::CrossEntropy) => r.clone(),
        (Some(e), _) if e.unmasked => s.clone(),
        _ => r1,
    };
    let mut parts = vec![first];
    if config.recipe != RecipeName::CrossEntropy {
        parts.push(r);
    }
    while parts.len() * count < method.rows(count, 1) {
        parts.push(s.zeros_like().unwrap());
    }
    let flips: Vec<u8> = (0..count).map(|i| u8::from(stream(7, Purpose::MaskedFlip, 1, i).random_bool(0.5))).collect();
    let batch = Batch {
        views: upload(machine, &Tensor::cat(&parts, 0).unwrap()),
        standard: explain.filter(|e| !e.unmasked).map(|_| upload(machine, &s)),
        labels: machine.pool.put(&labels.iter().map(|l| *l as i32).collect::<Vec<_>>()).unwrap(),
        count,
        mirror: explain.filter(|e| e.flip).map(|_| machine.pool.put(&flips).unwrap()),
        epoch: 1,
    };
    let totals = method.gradients(&walker, &batch).unwrap().get(4).unwrap();
    (totals, walker)
}

#[test]
fn steps_match_the_independent_vectors() {
    let f = tensors("recipe/excon_step");
    for (config, case) in [
        (pure(RecipeName::Supcon), "supcon"),
        (TrainConfig { exp_epochs: 2, ..pure(RecipeName::Excon) }, "supcon"),
        (pure(RecipeName::Excon), "excon"),
        (pure(RecipeName::ExconB), "exconb_negative"),
        (TrainConfig { background: Background::Class, ..pure(RecipeName::ExconB) }, "exconb_class"),
    ] {
        on_devices(Precision::F32, |machine| {
            let (totals, walker) = step(machine, &config, &f);
            let want = golden::values(&f[&format!("{case}.loss_f64")])[0] as f32;
            close(&[totals[0]], &[want], 1e-5, case);
            if case != "supcon" {
                assert_eq!(totals[3] as usize, whole(&f["passes"]).iter().sum::<usize>());
            }
            let (gradients, state) = (walker.parameters.gradients().unwrap(), walker.parameters.state().unwrap());
            let mut compared = 0;
            for (name, want) in &f {
                let want = || of(&want.to_dtype(DType::F32).unwrap());
                if let Some(name) = name.strip_prefix(&format!("{case}.grad.")) {
                    close(&of(&gradients[name]), &want(), 1e-3, &format!("{case} {name}"));
                    compared += 1;
                }
                if let Some(name) = name.strip_prefix(&format!("{case}.after.")) {
                    close(&of(&state[name]), &want(), 1e-4, &format!("{case} {name}"));
                    compared += 1;
                }
            }
            assert_eq!(compared, 7);
        });
    }
}

#[test]
fn every_switch_does_what_it_does_on_the_cpu() {
    let f = tensors("recipe/excon_step");
    let excon = pure(RecipeName::Excon);
    let std = [0.5, 0.25, 0.4];
    let mean = std::array::from_fn(|c| -BLACK[c] * std[c]);
    let data = Dataset { mean, std, ..crate::trainer::tests::data() };
    let explain = |change: &dyn Fn(&mut ExplainConfig)| {
        let mut config = pure(RecipeName::Excon);
        change(&mut config.explain);
        config
    };
    for config in [
        TrainConfig { joint: true, ..pure(RecipeName::CrossEntropy) },
        TrainConfig { joint: true, cross_entropy_weight: 0.5, ..pure(RecipeName::Supcon) },
        TrainConfig { joint: true, ..pure(RecipeName::ExconB) },
        TrainConfig { view1_unmasked: true, ..excon.clone() },
        pure(RecipeName::Control),
        TrainConfig { flip_on_masked: true, ..excon.clone() },
        explain(&|e| e.explainer_bn = ExplainerNorm::Train),
        explain(&|e| e.explainer_bn = ExplainerNorm::TrainNoUpdate),
        explain(&|e| (e.mask_rule, e.fill) = (MaskRule::Top(0.4), Fill::Black)),
        explain(&|e| (e.cam_relu, e.explain_target) = (true, Target::Pred)),
    ] {
        let network = golden::network();
        let mut method = recipe::build(&config, &data).unwrap();
        let labels = whole(&f["label"]);
        let batch = recipe::Batch {
            standard: Some(channel_last(&f["s"])),
            first: channel_last(&f["r"]),
            second: channel_last(&f["r1"]),
            draws: (0..labels.len()).map(|index| Draw { index, key: index }).collect(),
            balanced: None,
            labels,
            seed: 7,
            epoch: 1,
        };
        let cpu = method.step(&network, &batch).unwrap();
        let store = cpu.loss.backward().unwrap();
        let title = format!("{config:?}");
        on_devices(Precision::F32, |machine| {
            let (totals, walker) = step(machine, &config, &f);
            close(&[totals[0]], &[cpu.contrastive.unwrap_or(0.0) as f32], 1e-4, &title);
            if let Some(entropy) = cpu.cross_entropy {
                close(&[totals[1] / cpu.classified.0 as f32], &[entropy as f32], 1e-4, &title);
            }
            assert_eq!(totals[2] as usize, cpu.classified.1, "{title}");
            let passing = cpu.passes.as_ref().map_or(0, |passes| passes.iter().filter(|p| **p).count());
            assert_eq!(totals[3] as usize, passing, "{title}");
            let (gradients, state) = (walker.parameters.gradients().unwrap(), walker.parameters.state().unwrap());
            let mut compared = 0;
            for (name, variable) in network.parameters() {
                if let Some(want) = store.get(&variable) {
                    close(&of(&gradients[&name]), &of(want), 2e-3, &format!("{name} {title}"));
                    compared += 1;
                }
            }
            assert!(compared > 20);
            for (name, want) in network.state().unwrap() {
                close(&of(&state[&name]), &of(&want), 1e-4, &format!("{name} {title}"));
            }
        });
    }
}

#[test]
fn what_does_not_run_there_is_refused_by_name() {
    let paper = TrainConfig::defaults(RecipeName::Excon, Mode::Paper);
    let error = Method::of(&paper, BLACK).unwrap_err().to_string();
    assert!(error.contains("cam_layer") && error.contains("--device cpu"), "{error}");
    let other = TrainConfig::defaults(RecipeName::Leoclr, Mode::Device);
    assert!(Method::of(&other, BLACK).unwrap_err().to_string().contains("leoclr"));
    assert!(Method::of(&TrainConfig { view1_unmasked: true, ..paper }, BLACK).is_ok());
}
