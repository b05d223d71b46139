//! "I have CIFAR-100, Tiny ImageNet or CIFAR-10 as downloaded." Their licences keep them out of the repository: these
//! stories read `../shared/data` and say so where it is missing.

use super::excon;
use serde_json::Value;
use std::path::{Path, PathBuf};

fn archive(name: &str) -> Option<String> {
    let path: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data").join(name);
    if !path.is_file() {
        println!("skipped: {} is not there", path.display());
        return None;
    }
    Some(path.to_str().unwrap().to_string())
}

/// One epoch on a few classes, evaluated.
fn trains(data: &str, more: &[&str]) -> Value {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    let train = ["train", "--data", data, "--recipe", "supcon", "--epochs", "1", "--out", "run", "--format", "json"];
    let trained = excon(here, &[&train[..], more].concat()).expect(0).json();
    assert!(trained["validation_accuracy"].as_f64().unwrap() > 0.0);
    excon(here, &["evaluate", "run", "--data", data, "--explained", "8", "--format", "json"]).expect(0).json()
}

#[test]
fn cifar_100_trains_from_its_archive() {
    if let Some(data) = archive("cifar100/cifar-100-binary.tar.gz") {
        assert_eq!(trains(&data, &["--classes", "4"])["evaluation"]["localisation"], Value::Null);
    }
}

#[test]
fn tiny_imagenet_trains_from_its_archive() {
    if let Some(data) = archive("tiny-imagenet-20/tiny-imagenet-20.tar.gz") {
        let found = &trains(&data, &["--classes", "4"])["evaluation"]["localisation"];
        assert_eq!(found["count"], 200);
        let share = |name: &str| found[name]["value"].as_f64().unwrap();
        assert!((0.0..=1.0).contains(&share("pointing")));
        // Even after one epoch, a map is rarely worse than a flat one.
        assert!(share("energy") > found["area"].as_f64().unwrap() - 0.05, "{found}");
    }
}

#[test]
fn cifar_10_without_its_training_batches_names_them() {
    if let Some(data) = archive("cifar10-test/cifar-10-binary-test.tar.gz") {
        let folder = tempfile::tempdir().unwrap();
        let run = excon(folder.path(), &["train", "--data", &data, "--out", "run"]).expect(65);
        assert!(run.stderr.contains("data_batch_1.bin"), "{}", run.stderr);
    }
}
