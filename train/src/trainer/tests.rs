//! The loop on a small made-up data set: it learns, repeats exactly, stops on nonsense, and leaves a usable run.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::augment::View;
use crate::checkpoint::Run;
use crate::config::{Mode, RecipeName};
use crate::dataset::Pairs;
use crate::dataset::Split;
use crate::golden::values;
use crate::network::Stem;
use crate::recipe::{Draw, Purpose, Slot, stream};
use rand::RngExt;
use std::sync::Arc;

/// Pictures of 16×16 whose class is the colour of a square at a random place on noise.
fn split(n: usize, purpose: usize) -> Split {
    let size = 16;
    let mut rng = stream(11, Purpose::Order, purpose, 0);
    let (mut rgb, mut labels, mut names) = (Vec::new(), Vec::new(), Vec::new());
    for i in 0..n {
        let class = i % 3;
        let mut picture: Vec<u8> = (0..size * size * 3).map(|_| rng.random_range(60..140)).collect();
        let (top, left) = (rng.random_range(1..8usize), rng.random_range(1..8usize));
        for y in top..top + 7 {
            for x in left..left + 7 {
                picture[(y * size + x) * 3 + class] = rng.random_range(200..=255);
            }
        }
        rgb.extend(picture);
        labels.push(class);
        names.push(format!("{purpose}/{i}"));
    }
    Split { size, rgb, labels, names, ..Split::default() }
}

pub(crate) fn data() -> Dataset {
    Dataset {
        name: "squares".into(),
        labels: ["red", "green", "blue"].map(String::from).to_vec(),
        digest: "none".into(),
        mean: [0.4; 3],
        std: [0.2; 3],
        train: split(96, 1),
        validation: split(48, 2),
        test: split(48, 3),
        pairs: None,
    }
}

pub(crate) fn config(recipe: RecipeName) -> TrainConfig {
    let mut config = TrainConfig::defaults(recipe, Mode::Device);
    config.views = crate::augment::RandomView { scale: (0.6, 1.0), ..crate::augment::RandomView::crop_and_flip() };
    TrainConfig { epochs: 3, batch: 16, learning_rate: 0.05, stem: Stem::Stride2, ..config }
}

/// What a recipe needs besides pictures with one class each: sets of labels, or pairs.
pub(super) fn data_for(recipe: RecipeName) -> Dataset {
    let mut data = data();
    if recipe == RecipeName::MultiLabel {
        for split in [&mut data.train, &mut data.validation, &mut data.test] {
            split.sets = split.labels.iter().map(|&label| vec![label]).collect();
        }
    }
    if recipe == RecipeName::Pairs {
        // Another picture of the same class for every second one.
        let of = (0..96).map(|i| if i % 2 == 0 { vec![(i + 3) % 96] } else { vec![] }).collect();
        let pairs = Pairs { pictures: data.train.clone(), of, towards: vec![None; 96] };
        data.pairs = Some(Arc::new(pairs));
    }
    data
}

#[test]
fn every_recipe_learns_and_its_run_opens_again() {
    for recipe in RecipeName::ALL {
        let data = data_for(recipe);
        let mut config = TrainConfig { epochs: 5, ..config(recipe) };
        match recipe {
            // Not joint, so that both forms are trained here; joint in the others.
            RecipeName::Supcon => config.joint = false,
            RecipeName::SupconTwoStage => config.epochs = 10,
            RecipeName::Leoclr => config.queue.length = 64,
            _ => {}
        }
        let folder = tempfile::tempdir().unwrap();
        let trained = train(&config, &data, Some(folder.path()), &mut ()).unwrap();
        let last = trained.epochs.last().unwrap();
        assert!(trained.manifest.validation_accuracy > 0.7, "{recipe:?}: {last:?}");
        assert!(trained.manifest.finished);
        let masks = [RecipeName::Excon, RecipeName::ExconB, RecipeName::EddaStyle];
        assert_eq!(last.passing.is_some(), masks.contains(&recipe));
        let contrasts = !matches!(recipe, RecipeName::CrossEntropy | RecipeName::EddaStyle);
        assert_eq!(trained.epochs[0].contrastive.is_some(), contrasts);
        assert_eq!(last.validation_map.is_some(), recipe == RecipeName::MultiLabel);
        assert!(last.cross_entropy.is_some() && last.train_accuracy.is_some());

        let run = Run::open(folder.path()).unwrap();
        assert_eq!(run.manifest.config, config);
        assert_eq!(run.manifest.weights_sha256, trained.manifest.weights_sha256);
        let (a, b) = (run.network().unwrap().state().unwrap(), trained.network.state().unwrap());
        assert!(a.iter().all(|(name, tensor)| values(tensor) == values(&b[name])));
        let log = std::fs::read_to_string(folder.path().join("log.jsonl")).unwrap();
        let lines: Vec<String> = trained.epochs.iter().map(|e| serde_json::to_string(e).unwrap()).collect();
        assert_eq!(log.lines().collect::<Vec<_>>(), lines);
        assert!(log.lines().all(|l| serde_json::from_str::<EpochRecord>(l).is_ok()));
    }
}

#[test]
fn a_stage_without_a_classifier_is_never_the_best_and_every_pass_is_observed() {
    #[derive(Default)]
    struct Steps(Vec<(usize, usize)>);
    impl Observer for Steps {
        fn step(&mut self, record: &StepRecord) {
            self.0.push((record.epoch, record.step));
        }
    }
    for select in [Select::Best, Select::Last] {
        let config = TrainConfig { epochs: 4, batch: 48, select, ..config(RecipeName::SupconTwoStage) };
        let mut steps = Steps::default();
        let trained = train(&config, &data(), None, &mut steps).unwrap();
        let best: Vec<bool> = trained.epochs.iter().map(|e| e.best).collect();
        assert!(!best[0] && !best[1] && best[2], "{best:?}");
        assert_eq!(steps.0, (1..=4).flat_map(|e| [(e, 1), (e, 2)]).collect::<Vec<_>>());
        let rates: Vec<f64> = trained.epochs.iter().map(|e| e.learning_rate).collect();
        assert_eq!(rates[..2], rates[2..], "the schedule runs anew");
        assert!(trained.epochs[3].contrastive.is_none() && trained.epochs[3].loss > 0.0);
    }
}

#[test]
fn a_sampler_gives_every_class_its_share_of_the_steps() {
    let mut data = data();
    let keep: Vec<usize> = (0..96).filter(|i| i % 3 != 2 || i % 12 == 2).collect();
    data.train = data.train.subset(&keep);
    let mut config = config(RecipeName::CrossEntropy);
    config.sampler.power = 0.0;
    let session = Session::new(&config, &data, None, None).unwrap();
    let order = session.order(1, Purpose::Order, config.sampler.power);
    let count = |class: usize| order.iter().filter(|d| data.train.labels[d.index] == class).count();
    assert_eq!([0, 1, 2].map(count), [24; 3]);
    // A picture that comes again is seen anew.
    let again = order.iter().find(|d| order.iter().any(|e| e.index == d.index && e.key != d.key)).unwrap();
    let same: Vec<Draw> = order.iter().filter(|d| d.index == again.index).copied().collect();
    assert!(same.len() > 1);
    let view = View::Random(config.views.clone());
    let rows = values(&session.view(&same[..2], &view, 1, Slot::First).unwrap());
    assert_ne!(rows[..rows.len() / 2], rows[rows.len() / 2..]);
    assert!(train(&TrainConfig { epochs: 1, ..config }, &data, None, &mut ()).is_ok());
}

#[test]
fn a_seed_repeats_and_another_differs() {
    let data = data();
    let run = |seed| {
        let trained =
            train(&TrainConfig { seed, epochs: 2, ..config(RecipeName::Excon) }, &data, None, &mut ()).unwrap();
        let state: Vec<Vec<f64>> = trained.network.state().unwrap().values().map(values).collect();
        let losses: Vec<f64> = trained.epochs.iter().map(|e| e.loss).collect();
        (state, losses)
    };
    let first = run(3);
    assert_eq!(first, run(3));
    assert_ne!(first.1, run(4).1);
}

#[test]
fn steps_and_epochs_are_observed() {
    #[derive(Default)]
    struct Count(usize, usize, bool);
    impl Observer for Count {
        fn step(&mut self, record: &StepRecord) {
            assert!(record.step >= 1 && record.step <= record.steps);
            self.0 += 1;
        }
        fn epoch(&mut self, _: &EpochRecord) {
            self.1 += 1;
        }
        fn refitting(&mut self) {
            self.2 = true;
        }
    }
    let mut count = Count::default();
    train(&TrainConfig { batch: 40, epochs: 2, ..config(RecipeName::CrossEntropy) }, &data(), None, &mut count)
        .unwrap();
    assert_eq!((count.0, count.1, count.2), (6, 2, true));
}

#[test]
fn a_diverging_loss_stops_the_run_and_keeps_the_last_good_one() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(RecipeName::CrossEntropy);
    config.schedule.decay = crate::schedule::Decay::Constant;
    let good = TrainConfig { epochs: 1, ..config.clone() };
    train(&good, &data(), Some(folder.path()), &mut ()).unwrap();
    let before = Run::open(folder.path()).unwrap().manifest;
    let bad = TrainConfig { learning_rate: 1e30, epochs: 2, ..config };
    let error = train(&bad, &data(), Some(folder.path()), &mut ()).err().unwrap();
    assert!(matches!(error, Error::Diverged { epoch: 1, .. }), "{error}");
    let said = error.to_string();
    assert!(said.contains("on class") || said.contains(" more"), "{said}");
    assert!(said.contains("nothing was learned before"), "{said}");
    assert_eq!(Run::open(folder.path()).unwrap().manifest.weights_sha256, before.weights_sha256);
}

#[test]
fn frozen_stages_keep_their_weights() {
    let data = data();
    let folder = tempfile::tempdir().unwrap();
    train(&TrainConfig { epochs: 1, ..config(RecipeName::CrossEntropy) }, &data, Some(folder.path()), &mut ()).unwrap();
    let first = Run::open(folder.path()).unwrap().state;
    let config = TrainConfig {
        init: Some(folder.path().into()),
        freeze: 2,
        epochs: 1,
        seed: 5,
        ..config(RecipeName::CrossEntropy)
    };
    let state = train(&config, &data, None, &mut ()).unwrap().network.state().unwrap();
    let mut moved = 0;
    for (name, tensor) in &state {
        let frozen = (name.starts_with("stem") || name.starts_with("stage1")) && !name.contains("running");
        let same = values(tensor) == values(&first[name]);
        assert!(!frozen || same, "{name}");
        moved += usize::from(!same);
    }
    assert!(moved > 10);
}

#[test]
fn the_paper_mode_trains_its_classifier_apart() {
    let mut config = config(RecipeName::Excon);
    let paper = TrainConfig::defaults(RecipeName::Excon, Mode::Paper);
    (config.mode, config.joint, config.explain) = (Mode::Paper, false, paper.explain);
    let trained = train(&TrainConfig { refit_head: false, ..config }, &data(), None, &mut ()).unwrap();
    let epochs = &trained.epochs;
    assert!(epochs.iter().all(|e| e.passing.is_some() && e.cross_entropy.is_some()));
    assert!(epochs[2].cross_entropy < epochs[0].cross_entropy);
}

#[test]
fn settings_that_do_not_fit_are_refused() {
    let data = data();
    let fails = |config: TrainConfig| train(&config, &data, None, &mut ()).err().unwrap().exit_code();
    assert_eq!(fails(TrainConfig { freeze: 9, ..config(RecipeName::Excon) }), 64);
    assert_eq!(fails(TrainConfig { epochs: 0, ..config(RecipeName::Excon) }), 64);
    assert_eq!(fails(TrainConfig { init: Some("nowhere".into()), ..config(RecipeName::Excon) }), 65);
    assert_eq!(fails(config(RecipeName::Pairs)), 64);
    assert_eq!(fails(config(RecipeName::MultiLabel)), 64);
}
