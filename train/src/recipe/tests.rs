//! One whole step of each method against independent reference values, and the switches of the step.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::config::Mode;
use crate::explain::{ExplainConfig, explain};
use crate::golden::{channel_last, gap, largest, network, tensors, values, whole};
use crate::loss::Background;
use std::collections::HashMap;

fn fixture() -> HashMap<String, Tensor> {
    tensors("recipe/excon_step")
}

fn batch(f: &HashMap<String, Tensor>) -> Batch {
    Batch {
        standard: Some(channel_last(&f["s"])),
        first: channel_last(&f["r"]),
        second: channel_last(&f["r1"]),
        labels: whole(&f["label"]),
        indices: (0..8).collect(),
        seed: 7,
        epoch: 1,
    }
}

fn pure(recipe: RecipeName) -> TrainConfig {
    TrainConfig { joint: false, ..TrainConfig::defaults(recipe, Mode::Device) }
}

fn close(got: &Tensor, want: &Tensor, tolerance: f64, name: &str) {
    let (got, want) = (values(got), values(want));
    assert!(gap(&got, &want) <= tolerance, "{name}: {}", gap(&got, &want));
}

/// Runs one step of a configuration and compares loss, parameter gradients and running statistics.
fn check(config: &TrainConfig, case: &str) {
    let f = fixture();
    let network = network();
    let recipe = build(config, [0.0; 3]).unwrap();
    let step = recipe.step(&network, &batch(&f)).unwrap();
    let want = values(&f[&format!("{case}.loss_f64")])[0];
    let got = values(&step.loss)[0];
    assert!((got - want).abs() <= 1e-5 * want, "{case}: {got} instead of {want}");
    if let Some(explained) = &step.explained {
        assert_eq!(explained.passes.iter().map(|p| usize::from(*p)).collect::<Vec<_>>(), whole(&f["passes"]));
    }
    let grads = step.loss.backward().unwrap();
    let parameters: HashMap<_, _> = network.parameters().into_iter().collect();
    let mut compared = 0;
    for (name, want) in &f {
        if let Some(name) = name.strip_prefix(&format!("{case}.grad.")) {
            let tolerance = 1e-3 * largest(&values(want));
            close(grads.get(&parameters[name]).unwrap(), want, tolerance, &format!("{case} {name}"));
            compared += 1;
        }
        if let Some(name) = name.strip_prefix(&format!("{case}.after.")) {
            close(&network.state().unwrap()[name], want, 1e-4, &format!("{case} {name}"));
            compared += 1;
        }
    }
    assert_eq!(compared, 7);
}

#[test]
fn supcon_step_matches_reference() {
    check(&pure(RecipeName::Supcon), "supcon");
    // Before `exp_epochs` ExCon is the same step.
    check(&TrainConfig { exp_epochs: 2, ..pure(RecipeName::Excon) }, "supcon");
}

#[test]
fn excon_step_matches_reference() {
    check(&pure(RecipeName::Excon), "excon");
    check(&TrainConfig { exp_epochs: 1, ..pure(RecipeName::Excon) }, "excon");
}

#[test]
fn excon_b_step_matches_reference_in_both_treatments() {
    check(&pure(RecipeName::ExconB), "exconb_negative");
    check(&TrainConfig { background: Background::Class, ..pure(RecipeName::ExconB) }, "exconb_class");
}

#[test]
fn explainer_matches_reference() {
    let f = fixture();
    let network = network();
    let e = explain(&network, &ExplainConfig::device(), &channel_last(&f["s"]), &whole(&f["label"]), [0.0; 3]).unwrap();
    let flat = |maps: &[excon_edge::saliency::Map]| -> Vec<f64> {
        maps.iter().flat_map(|m| &m.values).map(|v| f64::from(*v)).collect()
    };
    let cam = values(&f["cam_f64"]);
    assert!(gap(&flat(&e.maps), &cam) <= 1e-4 * largest(&cam));
    assert!(gap(&flat(&e.normalised), &values(&f["cam_normalised"])) <= 1e-5);
    assert_eq!(e.keep.concat().into_iter().map(usize::from).collect::<Vec<_>>(), whole(&f["mask"]));
    close(&e.masked, &channel_last(&f["z"]), 0.0, "z");
    let argmax = |t: &Tensor| whole(&t.argmax(1).unwrap());
    assert_eq!(e.predicted, argmax(&f["logits_s"]));
    assert_eq!(e.predicted_masked, argmax(&f["logits_z"]));
}

#[test]
fn joint_adds_the_cross_entropy_of_both_views() {
    let f = fixture();
    let network = network();
    let config = TrainConfig { joint: true, cross_entropy_weight: 0.5, ..pure(RecipeName::Supcon) };
    let step = build(&config, [0.0; 3]).unwrap().step(&network, &batch(&f)).unwrap();
    let (contrastive, entropy) = (step.contrastive.unwrap(), step.cross_entropy.unwrap());
    let want = values(&f["supcon.loss_f64"])[0];
    assert!((contrastive - want).abs() < 1e-4);
    assert!((values(&step.loss)[0] - contrastive - 0.5 * entropy).abs() < 1e-5);
    assert_eq!(step.classified.0, 16);
    let grads = step.loss.backward().unwrap();
    let parameters: HashMap<_, _> = network.parameters().into_iter().collect();
    assert!(grads.get(&parameters["fc.weight"]).is_some());

    // The entropy is that of the classifier on the golden pooled features of the same 16 rows.
    let logits = f["supcon.feature"].matmul(&parameters["fc.weight"].t().unwrap()).unwrap();
    let logits = logits.broadcast_add(&parameters["fc.bias"]).unwrap();
    let labels = whole(&f["label"]);
    let direct = crate::loss::cross_entropy(&logits, &[labels.clone(), labels].concat()).unwrap();
    assert!((values(&direct)[0] - entropy).abs() < 1e-4);
}

#[test]
fn controls_replace_view_one() {
    let f = fixture();
    let step = |config: TrainConfig, batch: &Batch| {
        let network = network();
        let step = build(&config, [0.0; 3]).unwrap().step(&network, batch).unwrap();
        (values(&step.loss)[0], step.explained.is_some())
    };
    let (loss, explained) = step(TrainConfig { view1_unmasked: true, ..pure(RecipeName::Excon) }, &batch(&f));
    let as_supcon = Batch { second: channel_last(&f["s"]), ..batch(&f) };
    assert_eq!((loss, explained), (step(pure(RecipeName::Supcon), &as_supcon).0, false));

    let flipped = TrainConfig { flip_on_masked: true, ..pure(RecipeName::Excon) };
    let once = step(flipped.clone(), &batch(&f)).0;
    assert_ne!(once, step(pure(RecipeName::Excon), &batch(&f)).0);
    assert_eq!(once, step(flipped, &batch(&f)).0);
}

#[test]
fn frozen_classifier_moves_the_classifier_alone() {
    let f = fixture();
    let network = network();
    let (loss, _) = frozen_classifier_step(&network, &channel_last(&f["s"]), &whole(&f["label"])).unwrap();
    let direct = crate::loss::cross_entropy(&f["logits_s"], &whole(&f["label"])).unwrap();
    assert!((values(&loss)[0] - values(&direct)[0]).abs() < 1e-4);
    let grads = loss.backward().unwrap();
    let moved: Vec<String> =
        network.parameters().into_iter().filter(|(_, v)| grads.get(v).is_some()).map(|(n, _)| n).collect();
    assert_eq!(moved.len(), 2);
    assert!(moved.iter().all(|n| n.starts_with("fc.")));
    close(
        &network.state().unwrap()["stem_bn.running_mean"],
        &tensors("network/weights")["stem_bn.running_mean"],
        0.0,
        "",
    );
}
