//! A run that was stopped and resumed is the run that was not, bit for bit; whatever cannot go on says why.
#![allow(clippy::unwrap_used)]

use super::tests::{config, data, data_for};
use super::*;
use crate::checkpoint::Run;
use crate::config::{Mode, RecipeName};
use crate::optimizer::SgdConfig;
use std::fs;

/// Stops after so many more steps; epochs that end are counted as a step.
struct StopAfter(usize);

impl Observer for StopAfter {
    fn stop(&mut self) -> bool {
        self.0 = self.0.saturating_sub(1);
        self.0 == 0
    }
}

/// Loss curve, best epoch, manifest and model file of a run folder, but for the times.
fn outcome(folder: &Path) -> (Vec<EpochRecord>, RunManifest, Vec<u8>) {
    let log = fs::read_to_string(folder.join("log.jsonl")).unwrap();
    let timeless = |line| EpochRecord { seconds: 0.0, ..serde_json::from_str(line).unwrap() };
    let records = log.lines().map(timeless).collect();
    let manifest = RunManifest { seconds: 0.0, ..Run::open(folder).unwrap().manifest };
    (records, manifest, fs::read(folder.join("model.safetensors")).unwrap())
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.retain(|name| !name.contains("tfevents"));
    names.sort();
    names
}

/// Trains `config` once whole and once in pieces of `steps` steps each, and compares.
fn in_pieces(config: &TrainConfig, steps: &[usize]) {
    let data = data_for(config.recipe);
    let (whole, pieces) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let trained = train_in(config, &data, whole.path(), Start::New, &mut ()).unwrap();
    let mut start = Start::New;
    for &steps in steps {
        let error = train_in(config, &data, pieces.path(), start, &mut StopAfter(steps)).err().unwrap();
        assert!(matches!(error, Error::Interrupted { .. }), "{error}");
        assert!(pieces.path().join(LAST).exists());
        start = Start::Resume;
    }
    let resumed = train_in(config, &data, pieces.path(), start, &mut ()).unwrap();
    assert_eq!(outcome(whole.path()), outcome(pieces.path()));
    let losses = |t: &Trained| t.epochs.iter().map(|e| (e.loss, e.validation_nll)).collect::<Vec<_>>();
    assert_eq!(losses(&trained), losses(&resumed));
    assert_eq!(names(pieces.path()), ["log.jsonl", "model.safetensors", "run.json", "steps.jsonl"]);
    let steps = |folder: &Path| fs::read_to_string(folder.join("steps.jsonl")).unwrap();
    assert_eq!(steps(whole.path()), steps(pieces.path()));
    assert_eq!(steps(whole.path()).lines().count(), config.epochs * data.train.len().div_ceil(config.batch));
}

#[test]
fn a_resumed_run_is_the_uninterrupted_one() {
    // 96 pictures in batches of 16: six steps an epoch, and its end. Stops within the first epoch, at the end of the
    // second, within the third, right after the last.
    let joint = TrainConfig { epochs: 4, ..config(RecipeName::Excon) };
    in_pieces(&joint, &[3, 14, 4, 14]);
    // A rate so high that the best epoch is likely not the last one; Nesterov; no refit to hide a difference.
    let mut rough =
        TrainConfig { epochs: 4, learning_rate: 0.6, refit_head: false, ..config(RecipeName::CrossEntropy) };
    rough.optimizer = SgdConfig { momentum: 0.9, weight_decay: 1e-3, nesterov: true };
    in_pieces(&rough, &[8, 8, 8]);
    in_pieces(&TrainConfig { select: Select::Last, ..rough }, &[23]);
}

#[test]
fn a_classifier_of_its_own_resumes_with_its_momentum() {
    let mut config = config(RecipeName::Excon);
    let paper = TrainConfig::defaults(RecipeName::Excon, Mode::Paper);
    (config.mode, config.joint, config.explain) = (Mode::Paper, false, paper.explain);
    // Thirteen stops an epoch: six encoder steps, six of the classifier, the end. Within each of them.
    in_pieces(&TrainConfig { refit_head: false, ..config }, &[13 + 4, 13 + 9]);
}

#[test]
fn a_momentum_encoder_and_its_queue_resume() {
    // As above thirteen stops an epoch: before the first checkpoint, within the second epoch, after the last step.
    let mut config = config(RecipeName::Leoclr);
    config.queue.length = 40;
    in_pieces(&TrainConfig { refit_head: false, ..config }, &[5, 13 + 4, 13 + 13]);
}

#[test]
fn stages_samplers_and_masks_of_an_epoch_resume() {
    // Seven stops an epoch: within the first stage, and within the second, whose best weights come from nowhere else.
    let stages = TrainConfig { epochs: 4, refit_head: false, ..config(RecipeName::SupconTwoStage) };
    in_pieces(&stages, &[7 + 3, 14 + 2]);
    for recipe in [RecipeName::Hybrid, RecipeName::BackgroundMixup, RecipeName::CropAndMix, RecipeName::Pairs] {
        in_pieces(&TrainConfig { refit_head: false, epochs: 2, ..config(recipe) }, &[7 + 3]);
    }
    in_pieces(&TrainConfig { epochs: 2, ..config(RecipeName::MultiLabel) }, &[7 + 3]);
}

#[test]
fn the_best_weights_of_an_earlier_epoch_survive() {
    let data = data();
    let folder = tempfile::tempdir().unwrap();
    let config = TrainConfig { epochs: 6, learning_rate: 0.6, ..config(RecipeName::CrossEntropy) };
    train_in(&config, &data, folder.path(), Start::New, &mut StopAfter(7 * 5)).err().unwrap();
    let last = Last::find(folder.path()).unwrap().unwrap();
    assert_eq!(last.progress.records.len(), 5);
    // Put the best at an earlier epoch, whatever this machine's rounding made of the curve.
    let mut moved = last.clone();
    moved.progress.records.iter_mut().for_each(|r| r.best = r.epoch <= 2);
    moved.best = Some(last.network.iter().map(|(name, t)| (name.clone(), (t * 2.0).unwrap())).collect());
    RunWriter::create(folder.path()).unwrap().checkpoint(&moved).unwrap();
    let read = Last::find(folder.path()).unwrap().unwrap();
    assert_eq!(read.progress, moved.progress);
    let values = |state: &State| state.values().map(crate::golden::values).collect::<Vec<_>>();
    for (a, b) in [(&read.network, &last.network), (&read.encoder, &last.encoder)] {
        assert_eq!(values(a), values(b));
        assert!(!a.is_empty());
    }
    assert_eq!(values(read.best.as_ref().unwrap()), values(moved.best.as_ref().unwrap()));
}

#[test]
fn the_last_checkpoints_are_kept_and_an_older_one_can_be_gone_on_from() {
    let data = data();
    let config = TrainConfig { epochs: 5, keep: 2, ..config(RecipeName::CrossEntropy) };
    let (whole, back) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    train_in(&config, &data, whole.path(), Start::New, &mut ()).unwrap();
    assert_eq!(names(&whole.path().join("checkpoints")), ["epoch-0004.safetensors", "epoch-0005.safetensors"]);

    // Seven moments an epoch: stopped within the fourth one.
    train_in(&config, &data, back.path(), Start::New, &mut StopAfter(3 * 7 + 2)).err().unwrap();
    let older = back.path().join("checkpoints");
    assert_eq!(names(&older), ["epoch-0002.safetensors", "epoch-0003.safetensors"]);
    fs::copy(older.join("epoch-0002.safetensors"), back.path().join(LAST)).unwrap();
    train_in(&config, &data, back.path(), Start::Resume, &mut ()).unwrap();
    assert_eq!(outcome(whole.path()), outcome(back.path()));

    let fresh = TrainConfig { epochs: 1, keep: 1, ..config };
    train_in(&fresh, &data, back.path(), Start::Overwrite, &mut ()).unwrap();
    assert!(!older.exists());
}

#[test]
fn a_run_is_not_overwritten_by_accident() {
    let data = data();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let config = TrainConfig { epochs: 2, ..config(RecipeName::CrossEntropy) };
    // Nothing is lost before the first epoch ends.
    train_in(&config, &data, path, Start::New, &mut StopAfter(2)).err().unwrap();
    train_in(&config, &data, path, Start::New, &mut StopAfter(9)).err().unwrap();
    let refused = |words: &str| {
        let error = train_in(&config, &data, path, Start::New, &mut ()).err().unwrap();
        assert_eq!(error.exit_code(), 73);
        assert!(error.to_string().contains(words), "{error}");
    };
    refused("1 of 2 epochs");
    refused("--resume");
    train_in(&config, &data, path, Start::Resume, &mut ()).unwrap();
    let before = outcome(path);
    refused("--overwrite");
    // Resuming a finished run returns it.
    let again = train_in(&config, &data, path, Start::Resume, &mut ()).unwrap();
    assert_eq!((again.epochs.len(), again.manifest.weights_sha256), (2, before.1.weights_sha256.clone()));
    assert_eq!(outcome(path), before);
    train_in(&TrainConfig { seed: 9, ..config.clone() }, &data, path, Start::Overwrite, &mut ()).unwrap();
    assert_ne!(outcome(path).2, before.2);
}

#[test]
fn other_settings_other_pictures_and_missing_runs_are_refused() {
    let data = data();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let config = TrainConfig { epochs: 3, ..config(RecipeName::CrossEntropy) };
    let resume = |config: &TrainConfig, data: &Dataset| train_in(config, data, path, Start::Resume, &mut ()).err();
    let none = resume(&config, &data).unwrap();
    assert!(matches!(none, Error::Checkpoint { .. }) && none.to_string().contains(LAST), "{none}");
    for finished in [false, true] {
        if finished {
            train_in(&config, &data, path, Start::Resume, &mut ()).unwrap();
        } else {
            train_in(&config, &data, path, Start::New, &mut StopAfter(9)).err().unwrap();
        }
        let mut views = config.clone();
        views.views.flip = 0.25;
        for (other, name) in [
            (TrainConfig { epochs: 4, ..config.clone() }, "setting epochs"),
            (TrainConfig { seed: 2, ..config.clone() }, "setting seed"),
            (views, "setting views.flip"),
        ] {
            let error = resume(&other, &data).unwrap();
            assert!(error.to_string().contains(name), "{error}");
            assert_eq!(error.exit_code(), 64);
        }
        let other = Dataset { digest: "other".into(), ..data.clone() };
        assert!(matches!(resume(&config, &other).unwrap(), Error::Dataset { .. }));
        // The same pictures may have moved, and more checkpoints may be kept.
        let moved = TrainConfig { data: "elsewhere".into(), keep: 3, ..config.clone() };
        assert!(matches!(
            train_in(&moved, &data, path, Start::Resume, &mut StopAfter(1)),
            Ok(_) | Err(Error::Interrupted { .. })
        ));
    }
    assert_eq!(settings_of(path).unwrap(), config);
}

#[test]
fn a_damaged_checkpoint_is_refused_by_name_and_left_alone() {
    let data = data();
    let folder = tempfile::tempdir().unwrap();
    let config = TrainConfig { epochs: 2, ..config(RecipeName::CrossEntropy) };
    train_in(&config, &data, folder.path(), Start::New, &mut StopAfter(9)).err().unwrap();
    let file = folder.path().join(LAST);
    let whole = fs::read(&file).unwrap();
    let refused = |bytes: &[u8]| {
        fs::write(&file, bytes).unwrap();
        for start in [Start::Resume, Start::New] {
            let error = train_in(&config, &data, folder.path(), start, &mut ()).err().unwrap();
            assert!(error.to_string().contains(LAST), "{error}");
            assert!(start == Start::New || matches!(error, Error::Checkpoint { .. }), "{error}");
        }
        assert_eq!(fs::read(&file).unwrap(), bytes);
    };
    for length in [0, 7, 9, 500, whole.len() / 2, whole.len() - 1] {
        refused(&whole[..length]);
    }
    for at in [3, 300, whole.len() / 3, whole.len() - 2] {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        refused(&bytes);
    }
    fs::write(&file, &whole).unwrap();
    // What a killed write left is cleared away.
    fs::write(folder.path().join(".partial-abc"), b"half").unwrap();
    train_in(&config, &data, folder.path(), Start::Resume, &mut ()).unwrap();
    assert_eq!(names(folder.path()), ["log.jsonl", "model.safetensors", "run.json", "steps.jsonl"]);
}
