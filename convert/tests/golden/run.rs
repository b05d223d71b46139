//! From a run folder to a bundle: what the trainer executes is what the exporter writes and the engines compute.

use crate::common::*;
use excon_convert::{Options, Source, Target, convert};
use excon_edge::engine::{Engine, fused::FusedEngine, tract::TractEngine};
use excon_edge::image::Preprocess;
use excon_edge::predictor::Predictor;
use excon_train::checkpoint::{Run, RunManifest, RunWriter, SCHEMA};
use excon_train::config::{Mode, RecipeName, TrainConfig};
use excon_train::dataset::{Dataset, OpenOptions, open};
use excon_train::evaluate::NetworkEngine;
use excon_train::network::{Network, Stem, build};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use std::path::Path;

/// A run folder with an untrained network.
fn write_run(folder: &Path, network: &str, stem: Stem, data: &Dataset) -> Network {
    let graph = build(network, data.labels.len(), stem, 8).unwrap();
    let network = Network::new(graph.clone(), &mut ChaCha8Rng::seed_from_u64(5)).unwrap();
    let mut manifest = RunManifest {
        schema: SCHEMA.into(),
        config: TrainConfig::defaults(RecipeName::Excon, Mode::Device),
        graph,
        labels: data.labels.clone(),
        preprocess: Preprocess { size: data.train.size, mean: data.mean, std: data.std },
        data: data.name.clone(),
        data_digest: data.digest.clone(),
        seed: 3,
        finished: true,
        epoch: 1,
        validation_accuracy: 0.2,
        validation_nll: 2.0,
        refit_l2: None,
        seconds: 1.0,
        weights_sha256: String::new(),
        tool: "test".into(),
    };
    RunWriter::create(folder).unwrap().save(&mut manifest, &network.state().unwrap()).unwrap();
    network
}

fn photographs() -> Dataset {
    let all = open("trashnet", &OpenOptions { image_size: Some(40), ..OpenOptions::default() }).unwrap();
    let thin = |split: &excon_train::dataset::Split, step: usize| {
        split.subset(&(0..split.len()).step_by(step).collect::<Vec<_>>())
    };
    Dataset { train: thin(&all.train, 30), validation: thin(&all.validation, 4), ..all }
}

#[test]
fn trainer_and_exported_model_agree() {
    let data = photographs();
    let networks = [
        ("resnet8", Stem::Stride2),
        ("resnet18", Stem::Stride1),
        ("resnet20", Stem::Stride1),
        ("resnet50", Stem::Imagenet),
        ("mobilenetv2", Stem::Stride1),
    ];
    for (name, stem) in networks {
        let folder = tempfile::tempdir().unwrap();
        let network = write_run(folder.path(), name, stem, &data);
        let source = Source::open(folder.path()).unwrap();
        let file = excon_convert::onnx::encode(&excon_convert::export::float(&source.network, &source.labels));
        let engines: [&dyn Engine; 3] = [
            &NetworkEngine::new(network, 40).unwrap(),
            &TractEngine::from_onnx(&file, "m").unwrap(),
            &FusedEngine::from_onnx(&file, "m").unwrap(),
        ];
        let mut images = vec![];
        (0..3).for_each(|i| source.preprocess.normalise(&data.train.to_picture(i), &mut images));
        let a = engines[0].run(&images).unwrap();
        let scale = |x: &[f32]| x.iter().fold(1.0f32, |m, v| m.max(v.abs()));
        for engine in &engines[1..] {
            assert_eq!(engine.shapes(), engines[0].shapes());
            let b = engine.run(&images).unwrap();
            let gaps = [largest_gap(&a.logits, &b.logits), largest_gap(&a.features, &b.features)];
            assert!(gaps[0] <= 1e-4 * scale(&a.logits), "{name} on {}: {gaps:?}", engine.name());
            assert!(gaps[1] <= 1e-4 * scale(&a.features), "{name} on {}: {gaps:?}", engine.name());
        }
    }
}

#[test]
fn a_run_becomes_a_bundle_with_its_projection_head() {
    let folder = tempfile::tempdir().unwrap();
    let data = photographs();
    write_run(folder.path(), "resnet8", Stem::Stride2, &data);
    let out = folder.path().join("untrained.excon");
    let run = Run::open(folder.path()).unwrap();
    let done = convert(&Source::from_run(&run).unwrap(), &data, Target::Cpu, &Options::new(&out), &mut |_| ()).unwrap();
    let bundle = done.bundle.unwrap();
    assert_eq!(bundle.manifest.provenance.recipe, "excon (device, joint)");
    let projected = Predictor::open(&out).unwrap().predict(&data.test.to_picture(0)).unwrap().projected.unwrap();
    assert_eq!(projected.len(), 8);
    // A folder that lost a byte is refused before anything is built.
    let weights = folder.path().join("model.safetensors");
    let mut bytes = std::fs::read(&weights).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    std::fs::write(&weights, bytes).unwrap();
    let error = Source::open(folder.path()).unwrap_err();
    assert!(error.exit_code() == 65 && error.to_string().contains("model.safetensors"), "{error}");
}
