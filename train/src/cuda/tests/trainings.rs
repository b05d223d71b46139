//! Whole trainings through the trainer's own loop, a CPU in the graphics card's place where there is none.

use crate::checkpoint::Run;
use crate::config::{Device, Precision, RecipeName, TrainConfig};
use crate::trainer::tests::{config, data};
use crate::trainer::{EpochRecord, Observer, Start, Trained, train, train_in};
use std::collections::BTreeMap;

fn there_is_a_device() -> bool {
    let there = super::device(Precision::F32).is_ok();
    if !there {
        eprintln!("skipped: neither a graphics card nor a C++ compiler");
    }
    there
}

fn on_card(precision: Precision, config: TrainConfig) -> TrainConfig {
    TrainConfig { device: Device::Cuda, precision, batch: 32, ..config }
}

fn weights(trained: &Trained) -> BTreeMap<String, Vec<f32>> {
    trained.network.state().unwrap().iter().map(|(name, tensor)| (name.clone(), super::of(tensor))).collect()
}

#[test]
fn a_training_follows_the_one_on_the_cpu() {
    if !there_is_a_device() {
        return;
    }
    let data = data();
    for (recipe, joint) in [(RecipeName::CrossEntropy, true), (RecipeName::Supcon, false)] {
        // 96 pictures in batches of 40: the last one is smaller.
        let config = TrainConfig { joint, epochs: 2, refit_head: false, learning_rate: 0.01, ..config(recipe) };
        let cuda = TrainConfig { batch: 40, ..on_card(Precision::F32, config.clone()) };
        let card = train(&cuda, &data, None, &mut ()).unwrap();
        let cpu = train(&TrainConfig { device: Device::Cpu, ..cuda }, &data, None, &mut ()).unwrap();
        for (a, b) in card.epochs.iter().zip(&cpu.epochs) {
            let close = |a: Option<f64>, b: Option<f64>| match (a, b) {
                (Some(a), Some(b)) => assert!((a - b).abs() < 1e-2 * (1.0 + b.abs()), "{recipe:?}: {a} instead of {b}"),
                (a, b) => assert_eq!(a, b),
            };
            close(Some(a.loss), Some(b.loss));
            close(a.contrastive, b.contrastive);
            close(a.cross_entropy, b.cross_entropy);
            close(Some(a.validation_nll), Some(b.validation_nll));
            assert_eq!((a.epoch, a.learning_rate, a.passing), (b.epoch, b.learning_rate, b.passing));
        }
        for (name, want) in weights(&cpu) {
            let gap = super::gap(&weights(&card)[&name], &want);
            assert!(gap < 2e-3, "{name}: {gap}");
        }
    }
}

#[test]
fn excon_learns_in_bf16_and_its_run_opens_again() {
    if !there_is_a_device() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let config = TrainConfig { epochs: 5, ..on_card(Precision::Bf16, config(RecipeName::ExconB)) };
    let trained = train(&config, &data(), Some(folder.path()), &mut ()).unwrap();
    let last = trained.epochs.last().unwrap();
    assert!(trained.manifest.validation_accuracy > 0.7, "{last:?}");
    assert!(last.passing.is_some() && last.train_accuracy.is_some());
    let run = Run::open(folder.path()).unwrap();
    assert_eq!(run.manifest.config, config);
    assert_eq!(run.manifest.weights_sha256, trained.manifest.weights_sha256);
}

/// Stops after an epoch.
struct StopAfter(usize, bool);

impl Observer for StopAfter {
    fn epoch(&mut self, record: &EpochRecord) {
        self.1 = record.epoch == self.0;
    }

    fn stop(&mut self) -> bool {
        self.1
    }
}

#[test]
fn a_stopped_training_goes_on_bit_for_bit_and_on_the_cpu_too() {
    if !there_is_a_device() {
        return;
    }
    let data = data();
    let config = TrainConfig {
        joint: false,
        epochs: 3,
        refit_head: false,
        ..on_card(Precision::Bf16, config(RecipeName::Excon))
    };
    let whole = train(&config, &data, None, &mut ()).unwrap();
    let elsewhere = TrainConfig { device: Device::Cpu, precision: Precision::F32, ..config.clone() };
    for (resumed, same) in [(&config, true), (&elsewhere, false)] {
        let folder = tempfile::tempdir().unwrap();
        train_in(&config, &data, folder.path(), Start::New, &mut StopAfter(1, false)).err().unwrap();
        let rest = train_in(resumed, &data, folder.path(), Start::Resume, &mut ()).unwrap();
        assert_eq!(rest.epochs.len(), 3);
        assert_eq!(weights(&rest) == weights(&whole), same);
        assert_eq!(rest.epochs[1].loss == whole.epochs[1].loss, same);
    }
}
