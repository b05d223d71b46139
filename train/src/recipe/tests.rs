//! One whole step of each method against independent reference values, and the switches of the step.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::config::{ComposeConfig, EddaConfig, HybridConfig, MixupConfig, Mode, QueueConfig};
use crate::dataset::Pairs;
use crate::explain::{ExplainConfig, explain};
use crate::golden::{channel_last, gap, largest, network, tensors, values, whole};
use crate::loss::{self, Background};
use crate::network::NormMode;
use std::collections::HashMap;
use std::sync::Arc;

fn fixture() -> HashMap<String, Tensor> {
    tensors("recipe/excon_step")
}

fn batch(f: &HashMap<String, Tensor>) -> Batch {
    Batch {
        standard: Some(channel_last(&f["s"])),
        first: channel_last(&f["r"]),
        second: channel_last(&f["r1"]),
        labels: whole(&f["label"]),
        draws: (0..8).map(|index| Draw { index, key: index }).collect(),
        balanced: None,
        seed: 7,
        epoch: 1,
    }
}

/// Eight pictures of ten classes, of no meaning, whose normalisation changes nothing.
fn data() -> Dataset {
    let bytes = |i: usize| (i * 37 + i / 96 * 11) as u8;
    let train = Split {
        size: 32,
        rgb: (0..8 * 32 * 32 * 3).map(bytes).collect(),
        labels: whole(&fixture()["label"]),
        names: (0..8).map(|i| i.to_string()).collect(),
        ..Split::default()
    };
    Dataset {
        name: "noise".into(),
        labels: (0..10).map(|i| i.to_string()).collect(),
        digest: String::new(),
        mean: [0.0; 3],
        std: [1.0; 3],
        validation: train.clone(),
        test: train.clone(),
        train,
        pairs: None,
    }
}

fn pure(recipe: RecipeName) -> TrainConfig {
    TrainConfig { joint: false, ..TrainConfig::defaults(recipe, Mode::Device) }
}

fn device(recipe: RecipeName) -> TrainConfig {
    TrainConfig::defaults(recipe, Mode::Device)
}

/// One step of a recipe on the reference network and batch.
fn step(config: &TrainConfig, batch: &Batch) -> Step {
    build(config, &data()).unwrap().step(&network(), batch).unwrap()
}

fn loss_of(config: &TrainConfig, batch: &Batch) -> f64 {
    values(&step(config, batch).loss)[0]
}

fn close(got: &Tensor, want: &Tensor, tolerance: f64, name: &str) {
    let (got, want) = (values(got), values(want));
    assert!(gap(&got, &want) <= tolerance, "{name}: {}", gap(&got, &want));
}

/// Runs one step of a configuration and compares loss, parameter gradients and running statistics.
fn check(config: &TrainConfig, case: &str) {
    let f = fixture();
    let network = network();
    let mut recipe = build(config, &data()).unwrap();
    let step = recipe.step(&network, &batch(&f)).unwrap();
    let want = values(&f[&format!("{case}.loss_f64")])[0];
    let got = values(&step.loss)[0];
    assert!((got - want).abs() <= 1e-5 * want, "{case}: {got} instead of {want}");
    if let Some(passes) = &step.passes {
        assert_eq!(passes.iter().map(|p| usize::from(*p)).collect::<Vec<_>>(), whole(&f["passes"]));
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
    let step = build(&config, &data()).unwrap().step(&network, &batch(&f)).unwrap();
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
fn the_control_is_supcon_on_the_whole_picture() {
    let f = fixture();
    let control = step(&pure(RecipeName::Control), &batch(&f));
    let as_supcon = Batch { second: channel_last(&f["s"]), ..batch(&f) };
    assert_eq!(values(&control.loss)[0], loss_of(&pure(RecipeName::Supcon), &as_supcon));
    assert!(control.passes.is_none());
    let switched = TrainConfig { view1_unmasked: true, ..pure(RecipeName::Excon) };
    assert_eq!(values(&control.loss)[0], loss_of(&switched, &batch(&f)));
    let needs = build(&pure(RecipeName::Control), &data()).unwrap().needs(1);
    assert!(needs.standard == Some(View::Standard) && needs.second.is_none());
}

#[test]
fn masked_views_flip_by_their_key() {
    let f = fixture();
    let flipped = TrainConfig { flip_on_masked: true, ..pure(RecipeName::Excon) };
    let once = loss_of(&flipped, &batch(&f));
    assert_ne!(once, loss_of(&pure(RecipeName::Excon), &batch(&f)));
    assert_eq!(once, loss_of(&flipped, &batch(&f)));
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

#[test]
fn two_stages_are_supcon_and_then_the_classifier() {
    let f = fixture();
    let config = TrainConfig { epochs: 5, ..device(RecipeName::SupconTwoStage) };
    let mut recipe = build(&config, &data()).unwrap();
    let trains: Vec<Trains> = (1..=5).map(|e| recipe.trains(e)).collect();
    assert_eq!(trains, [Trains::Encoder, Trains::Encoder, Trains::Encoder, Trains::Classifier, Trains::Classifier]);
    let places: Vec<(usize, usize)> = (1..=5).map(|e| recipe.on_schedule(e, 5)).collect();
    assert_eq!(places, [(1, 3), (2, 3), (3, 3), (1, 2), (2, 2)]);
    let loss = recipe.step(&network(), &batch(&f)).unwrap().loss;
    assert_eq!(values(&loss)[0], loss_of(&pure(RecipeName::Supcon), &batch(&f)));
}

/// Rows of the reference network's node, in train mode, on these pictures.
fn forward(pictures: &[&Tensor], node: fn(&Network) -> usize) -> Tensor {
    let network = network();
    let node = node(&network);
    network.forward(&Tensor::cat(pictures, 0).unwrap(), NormMode::Train, &[node]).unwrap().remove(0)
}

fn projection(network: &Network) -> usize {
    network.graph().projection
}

fn logits(network: &Network) -> usize {
    network.graph().logits
}

#[test]
fn leoclr_tells_keys_from_the_queue_and_its_encoder_follows() {
    let f = fixture();
    let mut config = device(RecipeName::Leoclr);
    config.queue = QueueConfig { length: 40, momentum: 0.75, temperature: 0.2 };
    let (network, batch) = (network(), batch(&f));
    let mut recipe = build(&config, &data()).unwrap();
    assert!(recipe.step(&network, &batch).is_err(), "there is no encoder before the first epoch");
    recipe.begin(&network, &data(), 1).unwrap();
    let before = recipe.state().unwrap();
    let rows = before["queue"].to_vec2::<f32>().unwrap();
    assert!(rows.iter().all(|row| (row.iter().map(|v| v * v).sum::<f32>() - 1.0).abs() < 1e-5));

    // The loss: whole pictures as queries, both crops as keys, of one batch of crops.
    let step = recipe.step(&network, &batch).unwrap();
    let query = forward(&[batch.standard.as_ref().unwrap()], projection);
    let keys = loss::unit_rows(&forward(&[&batch.first, &batch.second], projection)).unwrap();
    let both = [keys.narrow(0, 0, 8).unwrap(), keys.narrow(0, 8, 8).unwrap()];
    let want = values(&loss::info_nce(&query, &both, &before["queue"], 0.2).unwrap())[0];
    assert!((values(&step.loss)[0] - want).abs() < 1e-5 * want, "{} {want}", values(&step.loss)[0]);
    assert!(step.cross_entropy.is_none() && step.classified.0 == 0);

    // The keys are in the queue, the oldest out of it.
    let after = recipe.state().unwrap();
    close(&after["queue"].narrow(0, 24, 16).unwrap(), &keys, 1e-5, "new keys");
    close(&after["queue"].narrow(0, 0, 24).unwrap(), &before["queue"].narrow(0, 16, 24).unwrap(), 0.0, "old keys");
    // No gradient reaches the other encoder, and running statistics are its own.
    assert_ne!(values(&after["momentum.stem_bn.running_mean"]), values(&before["momentum.stem_bn.running_mean"]));

    // Parameters follow: three quarters of the old, one of the new.
    let parameters: HashMap<_, _> = network.parameters().into_iter().collect();
    let old = parameters["stem_conv.weight"].as_detached_tensor().copy().unwrap();
    parameters["stem_conv.weight"].set(&(&old + 1.0).unwrap()).unwrap();
    recipe.follow(&network).unwrap();
    let followed = recipe.state().unwrap();
    close(&followed["momentum.stem_conv.weight"], &(&old + 0.25).unwrap(), 1e-6, "followed");
    close(&followed["momentum.fc.bias"], &before["momentum.fc.bias"], 1e-6, "unmoved");
}

#[test]
fn leoclr_goes_on_from_its_state_and_refuses_another() {
    let f = fixture();
    let mut config = device(RecipeName::Leoclr);
    config.queue.length = 24;
    let (network, batch) = (network(), batch(&f));
    let mut recipe = build(&config, &data()).unwrap();
    recipe.begin(&network, &data(), 1).unwrap();
    recipe.step(&network, &batch).unwrap();
    let state = recipe.state().unwrap();
    let mut again = build(&config, &data()).unwrap();
    again.load(&network, &state).unwrap();
    again.begin(&network, &data(), 2).unwrap();
    let losses = [&mut recipe, &mut again].map(|r| values(&r.step(&network, &batch).unwrap().loss));
    assert_eq!(losses[0], losses[1]);
    let mut lacking = state.clone();
    lacking.remove("momentum.fc.bias");
    assert!(again.load(&network, &lacking).is_err());
    config.queue.length = 25;
    assert!(build(&config, &data()).unwrap().load(&network, &state).is_err());
    assert!(build(&device(RecipeName::Supcon), &data()).unwrap().load(&network, &state).is_err());
}

#[test]
fn leoclr_supervised_is_supcon_on_three_views() {
    let f = fixture();
    let batch = batch(&f);
    let rows = forward(&[batch.standard.as_ref().unwrap(), &batch.first, &batch.second], projection);
    let want = loss::SupCon::default().loss(&rows, &batch.labels.repeat(3), Background::Off).unwrap().loss;
    let config = pure(RecipeName::LeoclrSupervised);
    assert!((loss_of(&config, &batch) - values(&want)[0]).abs() < 1e-5);
    let needs = build(&config, &data()).unwrap().needs(1);
    let Some(View::Random(whole)) = needs.standard else { panic!("no un-cropped view") };
    assert_eq!((whole.scale, whole.jitter.is_some()), ((1.0, 1.0), true));
}

#[test]
fn edda_style_adds_what_stays_and_what_goes() {
    let f = fixture();
    let batch = Batch { first: channel_last(&f["s"]), ..batch(&f) };
    let mut config = device(RecipeName::EddaStyle);
    config.edda = EddaConfig { keep: 0.5, drop: 0.25 };
    let e = explain(&network(), &config.explain, &batch.first, &batch.labels, [0.0; 3]).unwrap();
    // The two occlusions share out the picture.
    let dropped = (&batch.first - &e.masked).unwrap();
    let z = forward(&[&batch.first, &e.masked, &dropped], logits);
    let part = |at: usize| z.narrow(0, 8 * at, 8).unwrap();
    let entropy = |at: usize| values(&loss::cross_entropy(&part(at), &batch.labels).unwrap())[0];
    let even = values(&loss::soft_cross_entropy(&part(2), &[0.1; 80]).unwrap())[0] - 10f64.ln();
    let want = entropy(0) + 0.5 * entropy(1) + 0.25 * even;
    let got = step(&config, &batch);
    assert!((values(&got.loss)[0] - want).abs() < 1e-4, "{} {want}", values(&got.loss)[0]);
    assert!((got.cross_entropy.unwrap() - entropy(0)).abs() < 1e-5);
    assert_eq!(got.passes.unwrap().len(), 8);
    // Before its first epoch it is plain cross entropy.
    let plain = TrainConfig { exp_epochs: 2, ..config };
    assert_eq!(loss_of(&plain, &batch), loss_of(&device(RecipeName::CrossEntropy), &batch));
}

#[test]
fn hybrid_fades_from_features_to_classifier() {
    let f = fixture();
    let mut config = TrainConfig { epochs: 4, ..device(RecipeName::Hybrid) };
    assert_eq!(config.sampler.power, 0.0);
    let pictures = channel_last(&f["s"]);
    let balanced = vec![1, 1, 0, 0, 2, 2, 3, 3];
    let at = |epoch| Batch { balanced: Some((pictures.clone(), balanced.clone())), epoch, ..batch(&f) };
    for (power, epoch, alpha) in [(2.0, 1, 1.0), (2.0, 3, 0.75), (1.0, 3, 0.5), (2.0, 4, 1.0 - 9.0 / 16.0)] {
        config.hybrid = HybridConfig { power };
        let got = step(&config, &at(epoch));
        let (supcon, entropy) = (got.contrastive.unwrap(), got.cross_entropy.unwrap());
        let want = alpha * supcon + (1.0 - alpha) * entropy;
        assert!((values(&got.loss)[0] - want).abs() < 1e-5, "epoch {epoch}");
    }
    // One pass over both branches, each read by its own head.
    let got = step(&config, &at(1));
    let rows = [&batch(&f).second, &batch(&f).first, &pictures];
    let z = forward(&rows, projection).narrow(0, 0, 16).unwrap();
    let want = loss::SupCon::default().loss(&z, &batch(&f).labels.repeat(2), Background::Off).unwrap().loss;
    assert!((got.contrastive.unwrap() - values(&want)[0]).abs() < 1e-5);
    let want = loss::cross_entropy(&forward(&rows, logits).narrow(0, 16, 8).unwrap(), &balanced).unwrap();
    assert!((got.cross_entropy.unwrap() - values(&want)[0]).abs() < 1e-5);
    assert!(build(&config, &data()).unwrap().step(&network(), &batch(&f)).is_err());
}

#[test]
fn background_mixup_changes_view_one_alone_and_as_often_as_asked() {
    let (network, data) = (network(), data());
    let changed = |probability: f64, slot: Slot, begun: bool| {
        let mut config = device(RecipeName::BackgroundMixup);
        config.mixup = MixupConfig { probability, threshold: 0.5 };
        let mut recipe = build(&config, &data).unwrap();
        if begun {
            recipe.begin(&network, &data, 1).unwrap();
        }
        let of = |index: usize, key: usize| Sample { draw: Draw { index, key }, slot, seed: 1, epoch: 1 };
        let differs = |key: usize| {
            let index = key % 8;
            recipe.picture(&data.train, of(index, key)) != Cow::Borrowed(data.train.picture(index))
        };
        (0..400).filter(|&key| differs(key)).count()
    };
    let all = changed(1.0, Slot::Second, true);
    assert!(all > 100, "{all} of 400");
    let half = changed(0.5, Slot::Second, true);
    assert!((all / 2).abs_diff(half) < 50, "{half} of {all}");
    assert_eq!(changed(0.0, Slot::Second, true), 0);
    assert_eq!(changed(1.0, Slot::First, true), 0);
    assert_eq!(changed(1.0, Slot::Second, false), 0);
}

#[test]
fn crop_and_mix_is_supcon_on_composed_views() {
    let f = fixture();
    let mut config = pure(RecipeName::CropAndMix);
    config.compose = ComposeConfig { grid: 3, probability: 0.25 };
    assert_eq!(loss_of(&config, &batch(&f)), loss_of(&pure(RecipeName::Supcon), &batch(&f)));
    let needs = build(&config, &data()).unwrap().needs(1);
    let composed = View::Composed { view: config.views.clone(), grid: 3, probability: 0.25 };
    assert_eq!((needs.first, needs.second), (composed.clone(), Some(composed)));
}

#[test]
fn multi_label_adds_binary_entropies_of_both_views() {
    let f = fixture();
    let mut data = data();
    let sets: Vec<Vec<usize>> = (0..8).map(|i| (0..10).filter(|k| (k + i) % 3 == 0).collect()).collect();
    let config = TrainConfig { cross_entropy_weight: 0.5, ..device(RecipeName::MultiLabel) };
    assert!(build(&config, &data).err().unwrap().to_string().contains("labels.csv"));
    data.train.sets = sets.clone();
    assert!(build(&device(RecipeName::Supcon), &data).err().unwrap().to_string().contains("multi-label"));

    // The rows of the batch are pictures 7 to 0.
    let batch = Batch { draws: (0..8).map(|i| Draw { index: 7 - i, key: 7 - i }).collect(), ..batch(&f) };
    let got = build(&config, &data).unwrap().step(&network(), &batch).unwrap();
    let rows: Vec<Vec<usize>> = sets.iter().rev().chain(sets.iter().rev()).cloned().collect();
    let views = [&batch.second, &batch.first];
    let supcon = loss::SupCon::default().multi_label_loss(&forward(&views, projection), &rows).unwrap().loss;
    let targets: Vec<f64> =
        rows.iter().flat_map(|set| (0..10).map(|k| f64::from(u8::from(set.contains(&k))))).collect();
    let entropy = loss::binary_cross_entropy(&forward(&views, logits), &targets).unwrap();
    let (supcon, entropy) = (values(&supcon)[0], values(&entropy)[0]);
    assert!((got.contrastive.unwrap() - supcon).abs() < 1e-5 && (got.cross_entropy.unwrap() - entropy).abs() < 1e-5);
    assert!((values(&got.loss)[0] - supcon - 0.5 * entropy).abs() < 1e-4);
    assert_eq!(got.classified.0, 16);
}

/// Two positives of picture 2, none of the others; the second is mostly of class 9.
fn pairs() -> Pairs {
    let mut of = vec![vec![]; 8];
    of[2] = vec![0, 1];
    let rgb = [vec![1; 32 * 32 * 3], vec![2; 32 * 32 * 3]].concat();
    let names = vec!["a".into(), "b".into()];
    let pictures = Split { size: 32, rgb, labels: vec![0, 0], names, ..Split::default() };
    Pairs { pictures, of, towards: vec![None, Some((9, 0.75))] }
}

#[test]
fn external_positives_stand_in_for_view_two() {
    let f = fixture();
    let config = device(RecipeName::Pairs);
    assert!(build(&config, &data()).err().unwrap().to_string().contains("pairs.csv"));
    let data = Dataset { pairs: Some(Arc::new(pairs())), ..data() };
    let mut recipe = build(&config, &data).unwrap();
    let of = |index: usize, slot: Slot, epoch: usize| Sample { draw: Draw { index, key: index }, slot, seed: 7, epoch };
    for index in 0..8 {
        for slot in [Slot::Second, Slot::Classifier] {
            assert_eq!(*recipe.picture(&data.train, of(index, slot, 1)), *data.train.picture(index));
        }
        let first = recipe.picture(&data.train, of(index, Slot::First, 1));
        assert_eq!(*first == *data.train.picture(index), index != 2);
    }
    // Over the epochs both positives are drawn, and the targets are those of the one that is shown.
    let (mut shown, mut batch) = (vec![], batch(&f));
    for epoch in 1..=12 {
        let positive = recipe.picture(&data.train, of(2, Slot::First, epoch))[0] as usize - 1;
        batch.epoch = epoch;
        let got = recipe.step(&network(), &batch).unwrap();
        let mut rows = batch.labels.repeat(2);
        let mut targets = loss::one_hot(&rows, 10);
        if positive == 1 {
            (targets[10 * 10 + rows[10]], targets[10 * 10 + 9], rows[10]) = (0.25, 0.75, 9);
        }
        let views = [&batch.second, &batch.first];
        let supcon = loss::SupCon::default().loss(&forward(&views, projection), &rows, Background::Off).unwrap().loss;
        let entropy = loss::soft_cross_entropy(&forward(&views, logits), &targets).unwrap();
        let want = values(&supcon)[0] + values(&entropy)[0];
        assert!((values(&got.loss)[0] - want).abs() < 1e-4, "epoch {epoch}");
        shown.push(positive);
    }
    assert!(shown.contains(&0) && shown.contains(&1), "{shown:?}");
}
