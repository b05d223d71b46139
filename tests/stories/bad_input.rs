//! "Something is wrong": a clear error that names file and cause, the documented exit code, nothing half-written.

use super::{excon, excon_edge, own_folder};
use std::fs;

/// The command failed with `code`, said each of `words` on stderr, and neither panicked nor printed a result.
fn refused(run: super::Run, code: i32, words: &[&str]) {
    let run = run.expect(code);
    for word in words {
        assert!(run.stderr.contains(word), "{word:?} is not in\n{}", run.stderr);
    }
    assert!(!run.stderr.contains("panicked"), "{}", run.stderr);
}

#[test]
fn wrong_words_on_the_command_line() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    refused(excon(here, &["train", "--data", "trashnet", "--recipe", "exconn", "--out", "run"]), 64, &["excon"]);
    refused(excon(here, &["nonsense"]), 64, &[]);
    refused(excon(here, &["train", "--data", "trashnet", "--set", "epocs=3", "--out", "run"]), 64, &["epochs"]);
    #[cfg(not(feature = "cuda"))]
    refused(
        excon(here, &["train", "--data", "trashnet", "--device", "cuda", "--out", "run"]),
        64,
        &["--features cuda", "--device cpu"],
    );
    refused(excon_edge(here, &["predict"]), 64, &[]);
    assert!(fs::read_dir(here).unwrap().next().is_none(), "something was written");
}

#[test]
fn damaged_data_sets() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    let own = own_folder(here, 12);
    let train = |data: &str| excon(here, &["train", "--data", data, "--epochs", "1", "--out", "run"]);
    refused(train("nowhere"), 65, &["nowhere"]);

    let victim = fs::read_dir(own.join("glass")).unwrap().next().unwrap().unwrap().path();
    let whole = fs::read(&victim).unwrap();
    fs::write(&victim, &whole[..whole.len() / 2]).unwrap();
    refused(train("own"), 65, &[victim.file_name().unwrap().to_str().unwrap()]);
    fs::write(&victim, &whole).unwrap();

    for class in ["glass", "paper"] {
        fs::remove_dir_all(own.join(class)).unwrap();
    }
    refused(train("own"), 65, &["class"]);

    fs::create_dir(here.join("cifar-10-batches-bin")).unwrap();
    fs::write(here.join("cifar-10-batches-bin/test_batch.bin"), vec![0; 3073 * 3 + 1]).unwrap();
    fs::write(here.join("cifar-10-batches-bin/batches.meta.txt"), "a\nb\nc\nd\ne\nf\ng\nh\ni\nj\n").unwrap();
    refused(train("cifar-10-batches-bin"), 65, &["3073"]);
    assert!(!here.join("run").exists() || fs::read_dir(here.join("run")).unwrap().next().is_none());
}

#[test]
fn damaged_runs_and_bundles() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    own_folder(here, 60);
    excon(here, &["train", "--data", "own", "--epochs", "1", "--out", "run"]).expect(0);
    let convert = ["convert", "run", "--data", "own", "--target", "cpu", "--out", "own.excon"];
    let code = excon(here, &convert).code;
    assert!([0, 1].contains(&code));

    let bundle = fs::read(here.join("own.excon")).unwrap();
    let mut flipped = bundle.clone();
    flipped[bundle.len() / 2] ^= 1;
    fs::write(here.join("flipped.excon"), &flipped).unwrap();
    fs::write(here.join("short.excon"), &bundle[..bundle.len() / 3]).unwrap();
    for name in ["flipped.excon", "short.excon"] {
        refused(excon(here, &["inspect", name]), 65, &[name]);
        refused(excon_edge(here, &["status", name]), 65, &[name]);
    }

    let weights = here.join("run/model.safetensors");
    let whole = fs::read(&weights).unwrap();
    fs::write(&weights, &whole[..whole.len() - 100]).unwrap();
    refused(excon(here, &["evaluate", "run", "--data", "own"]), 65, &["model.safetensors"]);
    refused(excon(here, &convert), 65, &["model.safetensors"]);
    assert_eq!(fs::read(here.join("own.excon")).unwrap(), bundle, "a failed conversion touched the old bundle");
    fs::write(&weights, &whole).unwrap();

    // A folder stands where the file should go: root ignores permissions, but not this.
    fs::create_dir_all(here.join("taken.excon/full")).unwrap();
    refused(excon(here, &["convert", "run", "--data", "own", "--out", "taken.excon"]), 73, &["taken.excon"]);
}
