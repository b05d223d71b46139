//! Run folders: what is written is read back, and every damage is refused with the file's name.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::config::Mode;
use crate::config::RecipeName;
use crate::golden::{graph, network};

fn manifest() -> RunManifest {
    RunManifest {
        schema: SCHEMA.into(),
        config: TrainConfig::defaults(RecipeName::Excon, Mode::Device),
        graph: graph(),
        labels: (0..10).map(|i| format!("class {i}")).collect(),
        preprocess: Preprocess { size: 32, mean: [0.5; 3], std: [0.25; 3] },
        data: "test".into(),
        data_digest: "0".into(),
        seed: 1,
        finished: true,
        epoch: 3,
        validation_accuracy: 0.5,
        validation_nll: 1.0,
        refit_l2: None,
        seconds: 1.0,
        weights_sha256: String::new(),
        tool: "test".into(),
    }
}

fn saved() -> (tempfile::TempDir, RunManifest) {
    let folder = tempfile::tempdir().unwrap();
    let mut manifest = manifest();
    RunWriter::create(folder.path()).unwrap().save(&mut manifest, &network().state().unwrap()).unwrap();
    (folder, manifest)
}

#[test]
fn a_saved_run_is_read_back_whole() {
    let (folder, manifest) = saved();
    let run = Run::open(folder.path()).unwrap();
    assert_eq!(run.manifest, manifest);
    let state = network().state().unwrap();
    assert_eq!(run.state.keys().collect::<Vec<_>>(), state.keys().collect::<Vec<_>>());
    for (name, tensor) in run.network().unwrap().state().unwrap() {
        assert_eq!(crate::golden::values(&tensor), crate::golden::values(&state[&name]), "{name}");
    }
    let mut names: Vec<_> = std::fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["model.safetensors", "run.json"]);
}

#[test]
fn damage_is_refused_with_the_name_of_the_file() {
    let (folder, _) = saved();
    let weights = folder.path().join("model.safetensors");
    let json = folder.path().join("run.json");
    let good = (std::fs::read(&weights).unwrap(), std::fs::read_to_string(&json).unwrap());
    let refused = |file: &str| {
        let error = Run::open(folder.path()).unwrap_err();
        assert!(matches!(error, Error::Checkpoint { .. }), "{error}");
        assert!(error.to_string().contains(file), "{error}");
        std::fs::write(&weights, &good.0).unwrap();
        std::fs::write(&json, &good.1).unwrap();
        Run::open(folder.path()).unwrap();
    };
    for length in [0, 7, 8, 100, good.0.len() / 2, good.0.len() - 1] {
        std::fs::write(&weights, &good.0[..length]).unwrap();
        refused("model.safetensors");
    }
    for at in [3, 50, good.0.len() / 2] {
        let mut bytes = good.0.clone();
        bytes[at] ^= 1;
        std::fs::write(&weights, bytes).unwrap();
        refused("model.safetensors");
    }
    std::fs::remove_file(&weights).unwrap();
    refused("model.safetensors");
    for text in [&good.1[..good.1.len() / 2], "", "{}", "[1"] {
        std::fs::write(&json, text).unwrap();
        refused("run.json");
    }
    for (from, to) in [
        (SCHEMA, "excon.run/0"),
        ("\"seed\"", "\"sead\""),
        ("\"class 9\"", "\"class 9\", \"class 10\""),
        ("\"output\": 32", "\"output\": 33"),
        ("\"paper_cam\": ", "\"paper_cam\": 99"),
    ] {
        let text = good.1.replacen(from, to, 1);
        assert_ne!(text, good.1, "{from}");
        std::fs::write(&json, text).unwrap();
        refused("run.json");
    }
}

#[test]
fn weights_initialise_another_network() {
    let (folder, _) = saved();
    let mut other = Network::new(graph(), &mut stream(9, Purpose::Weights, 0, 0)).unwrap();
    assert!(initialise(&mut other, folder.path()).unwrap().is_empty());
    let same = |a: &Network, b: &Network, name: &str| {
        crate::golden::values(&a.state().unwrap()[name]) == crate::golden::values(&b.state().unwrap()[name])
    };
    assert!(same(&other, &network(), "stage3.conv2.weight"));

    // Another number of classes: only the classifier stays fresh.
    let mut graph = graph();
    let fc = graph.logits;
    graph.nodes[fc].op = Op::Linear { input: 64, output: 6 };
    let mut other = Network::new(graph, &mut stream(9, Purpose::Weights, 0, 0)).unwrap();
    let fresh = initialise(&mut other, &folder.path().join("model.safetensors")).unwrap();
    assert_eq!(fresh, ["fc.bias", "fc.weight"]);
    assert!(same(&other, &network(), "stem_bn.running_var"));

    // Another encoder is refused and nothing changes.
    let mut graph = crate::golden::graph();
    let head = graph.find("stage3.conv2").unwrap();
    graph.nodes[head].op = Op::Conv { input: 64, output: 64, kernel: 1, stride: 1, padding: 0, groups: 1 };
    let mut other = Network::new(graph, &mut stream(9, Purpose::Weights, 0, 0)).unwrap();
    let before = crate::golden::values(&other.state().unwrap()["stem_conv.weight"]);
    let error = initialise(&mut other, folder.path()).unwrap_err().to_string();
    assert!(error.contains("stage3.conv2.weight"), "{error}");
    assert_eq!(before, crate::golden::values(&other.state().unwrap()["stem_conv.weight"]));
    assert!(initialise(&mut other, Path::new("does-not-exist")).is_err());
}

#[test]
fn stages_freeze_from_the_stem_up() {
    let graph = graph();
    assert!(frozen_nodes(&graph, 0).unwrap().is_empty());
    assert_eq!(frozen_nodes(&graph, 1).unwrap(), ["stem_conv", "stem_bn"]);
    let two = frozen_nodes(&graph, 2).unwrap();
    assert_eq!(two.len(), 6);
    assert!(two.iter().skip(2).all(|n| n.starts_with("stage1.")));
    assert_eq!(frozen_nodes(&graph, 4).unwrap().len(), 18);
    assert!(frozen_nodes(&graph, 5).is_err());
}

#[test]
fn an_unwritable_place_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, "x").unwrap();
    let error = RunWriter::create(&file.join("run")).unwrap_err();
    assert_eq!(error.exit_code(), 73, "{error}");
}
