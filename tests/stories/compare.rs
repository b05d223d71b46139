//! "I have several runs: which is better, and by how much?" Reports, embeddings, public data sets, published corruptions.

use super::{excon, own_folder};
use serde_json::Value;
use std::fs;
use std::path::Path;

/// One epoch at 32 pixels, evaluated.
fn run(here: &Path, recipe: &str, seed: &str, out: &str) {
    let train = ["train", "--data", "own", "--recipe", recipe, "--seed", seed, "--epochs", "1", "--image-size", "32"];
    excon(here, &[&train[..], &["--out", out]].concat()).expect(0);
    excon(here, &["evaluate", out, "--data", "own", "--explained", "4"]).expect(0);
}

#[test]
fn runs_are_compared_with_seeds_pooled() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    own_folder(here, 30);
    for (recipe, seed, out) in [("cross-entropy", "1", "a"), ("excon", "1", "b"), ("cross-entropy", "2", "c")] {
        run(here, recipe, seed, out);
    }
    let report = ["report", "a", "b", "c", "--format", "json", "--out", "report.html"];
    let json = excon(here, &report).expect(0).json();
    assert_eq!(json["schema"], "excon.comparison/1");
    let rows = json["rows"].as_array().unwrap();
    assert_eq!(rows.iter().map(|r| r["runs"].as_array().unwrap().len()).collect::<Vec<_>>(), [2, 1]);
    let accuracy = |run: &str| {
        let text = fs::read(here.join(run).join("evaluation.json")).unwrap();
        serde_json::from_slice::<Value>(&text).unwrap()["evaluation"]["metrics"]["accuracy"].as_f64().unwrap()
    };
    let (a, c, pooled) = (accuracy("a"), accuracy("c"), &rows[0]["figures"]["accuracy"]);
    let close = |value: &Value, wanted: f64| (value.as_f64().unwrap() - wanted).abs() < 1e-12;
    assert!(close(&pooled["mean"], (a + c) / 2.0) && close(&pooled["spread"], (a - c).abs() / 2f64.sqrt()), "{pooled}");
    assert_eq!(rows[1]["figures"]["accuracy"]["spread"], Value::Null);
    assert!(rows[1]["figures"]["accuracy"]["interval"].is_array());
    let page = fs::read_to_string(here.join("report.html")).unwrap();
    assert!(page.contains("<svg") && page.contains("cross-entropy") && !page.contains("http"), "self-contained");
    let said = excon(here, &["report", "a", "b", "c"]).expect(0).stdout;
    assert!(said.contains(" ± ") && said.contains("top-1") && said.contains("--out report.html"), "{said}");

    // An evaluation of other weights is not taken for this run's.
    let train = ["train", "--data", "own", "--recipe", "excon", "--epochs", "2", "--image-size", "32", "--overwrite"];
    excon(here, &[&train[..], &["--out", "b"]].concat()).expect(0);
    let json = excon(here, &["report", "a", "b", "--format", "json"]).expect(0).json();
    assert!(json["notes"][0].as_str().unwrap().contains("other weights"), "{}", json["notes"]);
    assert_eq!(json["rows"][1]["figures"], serde_json::json!({}));
    assert!(excon(here, &["report", "a", "a"]).expect(64).stderr.contains("twice"));
    excon(here, &["report", "nowhere"]).expect(65);

    // Embeddings are as many rows as labels, in the same order.
    excon(here, &["embed", "a", "--data", "own", "--split", "train", "--out", "train.npy"]).expect(0);
    let projected = ["embed", "a", "--data", "own", "--projection", "--out", "test.npy", "--format", "json"];
    let json = excon(here, &projected).expect(0).json();
    let shape = [0, 1].map(|i| json["shape"][i].as_u64().unwrap() as usize);
    let array = fs::read(here.join("test.npy")).unwrap();
    assert!(array.starts_with(b"\x93NUMPY") && array.len() == 128 + 4 * shape[0] * shape[1]);
    let labels = fs::read_to_string(here.join("test.labels.tsv")).unwrap();
    assert_eq!(labels.lines().count(), shape[0]);
    assert!(labels.lines().all(|line| line.split('\t').count() == 3));
    assert!(fs::read_to_string(here.join("train.labels.tsv")).unwrap().lines().count() > 50);
}

#[test]
fn public_data_sets_are_listed_and_refused_plainly_without_network() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    let listed = excon(here, &["data", "list", "--format", "json"]).expect(0).json();
    let names: Vec<&str> = listed["sets"].as_array().unwrap().iter().map(|s| s["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["cifar-10", "cifar-100", "tiny-imagenet", "cifar-10-c", "cifar-100-c"]);
    assert!(excon(here, &["data", "fetch", "cifar10"]).expect(64).stderr.contains("cifar-10"));
    assert!(excon(here, &["data", "check", "cifar-10"]).expect(65).stderr.contains("excon data fetch cifar-10"));
    assert!(excon(here, &["data", "check"]).expect(0).stdout.contains("No data set"));
    // Nobody listens at this address.
    let offline = excon(here, &["data", "fetch", "cifar-10", "--from", "http://127.0.0.1:9/archive"]).expect(69);
    assert!(offline.stderr.contains("--from FILE"), "{}", offline.stderr);
    fs::write(here.join("wrong.tar"), "no archive").unwrap();
    let wrong = excon(here, &["data", "fetch", "cifar-10", "--from", "wrong.tar"]).expect(65);
    assert!(wrong.stderr.contains("wrong.tar"), "{}", wrong.stderr);
    assert!(!here.join("data/cifar-10-batches-bin").exists());
}

/// Made-up files in CIFAR-10's and CIFAR-10-C's layouts: 20 pictures a batch.
fn cifar(here: &Path) {
    let clean = here.join("cifar");
    fs::create_dir(&clean).unwrap();
    let record =
        |i: usize| [vec![(i % 10) as u8], (0..3072).map(|p| ((i * 25 + p / 7) % 256) as u8).collect()].concat();
    let batch: Vec<u8> = (0..20).flat_map(record).collect();
    for name in ["data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5", "test_batch"] {
        fs::write(clean.join(format!("{name}.bin")), &batch).unwrap();
    }
    let names = "airplane automobile bird cat deer dog frog horse ship truck".replace(' ', "\n");
    fs::write(clean.join("batches.meta.txt"), names).unwrap();
    let corrupted = here.join("corrupted");
    fs::create_dir(&corrupted).unwrap();
    let array = |name: &str, shape: &str, data: Vec<u8>| {
        let header = format!("{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}, }}\n");
        let length = (header.len() as u16).to_le_bytes();
        let bytes = [b"\x93NUMPY\x01\x00", &length[..], header.as_bytes(), &data].concat();
        fs::write(corrupted.join(name), bytes).unwrap();
    };
    array("labels.npy", "(100,)", (0..100).map(|i| (i % 10) as u8).collect());
    for name in ["fog.npy", "saturate.npy"] {
        array(name, "(100, 32, 32, 3)", (0..100 * 3072).map(|i| (i / 3072 * 2) as u8).collect());
    }
}

#[test]
fn published_corruptions_are_read_in_place_of_regenerated_ones() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    cifar(here);
    excon(here, &["train", "--data", "cifar", "--recipe", "cross-entropy", "--epochs", "1", "--out", "run"]).expect(0);
    let evaluate = ["evaluate", "run", "--data", "cifar", "--explained", "0", "--corrupted", "corrupted"];
    let json = excon(here, &[&evaluate[..], &["--format", "json"]].concat()).expect(0).json();
    let table = &json["corruptions"];
    assert_eq!((&table["origin"], &table["pictures"]), (&"published".into(), &20.into()));
    let cells = table["cells"].as_array().unwrap();
    assert_eq!((cells.len(), &table["mean"]["cells"], &table["mean_held_out"]["cells"]), (10, &5.into(), &5.into()));
    assert!(cells.iter().all(|c| c["metrics"]["count"] == 20 && c["approximation"].is_null()));
    assert!(excon(here, &evaluate).expect(0).stdout.contains("published corruptions"));
    let both = excon(here, &[&evaluate[..], &["--corruptions"]].concat()).expect(64);
    assert!(both.stderr.contains("--corrupted"), "{}", both.stderr);
    let validation = excon(here, &[&evaluate[..], &["--split", "validation"]].concat()).expect(65);
    assert!(validation.stderr.contains("test pictures of CIFAR-10"), "{}", validation.stderr);
}
