//! "The power went off while it trained", and "I pressed Ctrl-C".

use super::{excon, excon_command, own_folder};
use serde_json::Value;
use std::fs;
use std::hash::{BuildHasher, RandomState};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

const SETTINGS: [&str; 11] =
    ["train", "--data", "own", "--image-size", "32", "--batch", "16", "--epochs", "8", "--seed", "3"];

fn arguments<'a>(out: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    [&SETTINGS[..], &["--out", out], more].concat()
}

fn begin(here: &Path, arguments: &[&str]) -> Child {
    excon_command(here, arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// The log without times, and the model file.
fn outcome(run: &Path) -> (Vec<Value>, Vec<u8>) {
    let log = fs::read_to_string(run.join("log.jsonl")).unwrap();
    let timeless = |line| {
        let mut record: Value = serde_json::from_str(line).unwrap();
        record.as_object_mut().unwrap().remove("seconds").unwrap();
        record
    };
    (log.lines().map(timeless).collect(), fs::read(run.join("model.safetensors")).unwrap())
}

/// A number in 0..1 that is another each time: any moment must do.
fn random() -> f64 {
    RandomState::new().hash_one(0) as f64 / u64::MAX as f64
}

#[test]
fn killed_at_random_moments_it_ends_as_if_nothing_had_happened() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    own_folder(here, 40);
    let started = Instant::now();
    excon(here, &arguments("whole", &[])).expect(0);
    let mut length = started.elapsed().as_secs_f64();

    let (mut killed, mut epochs) = (0, vec![]);
    while killed < 4 {
        // A kill before the first checkpoint leaves nothing to resume.
        let more: &[&str] = if here.join("run/last.safetensors").exists() { &["--resume"] } else { &[] };
        let mut child = begin(here, &arguments("run", more));
        sleep(Duration::from_secs_f64(length * (0.1 + 0.4 * random())));
        if child.try_wait().unwrap().is_some() {
            if killed > 0 {
                break;
            }
            // Faster than the first time: once more, and not so patient.
            fs::remove_dir_all(here.join("run")).unwrap();
            length /= 2.0;
            continue;
        }
        child.kill().unwrap();
        child.wait().unwrap();
        killed += 1;
        epochs.push(fs::read_to_string(here.join("run/log.jsonl")).unwrap_or_default().lines().count());
    }
    println!("killed {killed} times, after {epochs:?} epochs");
    assert!(killed > 0);
    // The folder alone is enough to go on.
    let rest = if here.join("run/last.safetensors").exists() || here.join("run/run.json").exists() {
        vec!["train", "--resume", "--out", "run"]
    } else {
        arguments("run", &[])
    };
    excon(here, &rest).expect(0);
    let (whole, run) = (outcome(&here.join("whole")), outcome(&here.join("run")));
    assert_eq!(whole.0, run.0);
    assert!(whole.1 == run.1, "the weights differ");
    let mut left: Vec<_> = fs::read_dir(here.join("run")).unwrap().map(|f| f.unwrap().file_name()).collect();
    left.sort();
    left.retain(|name| !name.to_string_lossy().contains("tfevents"));
    assert_eq!(left, ["log.jsonl", "model.safetensors", "report.html", "run.json", "steps.jsonl"]);
    let steps = |run: &str| fs::read_to_string(here.join(run).join("steps.jsonl")).unwrap();
    assert_eq!(steps("whole"), steps("run"));
}

/// A file size limit stands in for the full disk: writing fails in the middle, in the same place.
#[cfg(unix)]
#[test]
fn a_full_disk_keeps_the_old_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    own_folder(here, 40);
    excon(here, &arguments("whole", &[])).expect(0);
    let mut child = begin(here, &arguments("run", &[]));
    let deadline = Instant::now() + Duration::from_secs(60);
    while !here.join("run/log.jsonl").exists() {
        assert!(Instant::now() < deadline, "no epoch within a minute");
        sleep(Duration::from_millis(2));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let last = here.join("run/last.safetensors");
    let before = fs::read(&last).unwrap();

    let limited = "trap '' XFSZ; ulimit -f 64; exec \"$0\" train --resume --out run";
    let mut command = Command::new("bash");
    command.current_dir(here).args(["-c", limited, env!("CARGO_BIN_EXE_excon")]);
    let output = command.output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(73), "{said}");
    assert!(said.contains("cannot write") && said.contains("safetensors"), "{said}");
    assert!(fs::read(&last).unwrap() == before, "the checkpoint changed");
    excon(here, &["train", "--resume", "--out", "run"]).expect(0);
    assert!(outcome(&here.join("whole")) == outcome(&here.join("run")));
}

#[cfg(unix)]
#[test]
fn control_c_saves_and_says_how_to_go_on() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    own_folder(here, 40);
    excon(here, &arguments("whole", &[])).expect(0);
    let child = begin(here, &arguments("run", &[]));
    let deadline = Instant::now() + Duration::from_secs(60);
    while !here.join("run/log.jsonl").exists() {
        assert!(Instant::now() < deadline, "no epoch within a minute");
        sleep(Duration::from_millis(2));
    }
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(130), "{said}");
    assert!(said.contains("excon train --resume --out run") && said.contains("of 8 epochs"), "{said}");

    // Without --resume nothing is overwritten, and other settings are refused by name.
    for (more, code, word) in [
        (&[][..], 73, "--resume"),
        (&["--resume", "--lr", "0.01"][..], 64, "learning_rate"),
        (&["--resume", "--overwrite"][..], 64, "--overwrite"),
    ] {
        let refused = excon(here, &arguments("run", more)).expect(code);
        assert!(refused.stderr.contains(word), "{}", refused.stderr);
    }
    let last = here.join("run/last.safetensors");
    let bytes = fs::read(&last).unwrap();
    fs::write(&last, &bytes[..bytes.len() / 2]).unwrap();
    let refused = excon(here, &["train", "--resume", "--out", "run"]).expect(65);
    assert!(refused.stderr.contains("last.safetensors"), "{}", refused.stderr);
    fs::write(&last, &bytes).unwrap();

    excon(here, &arguments("run", &["--resume"])).expect(0);
    let whole = outcome(&here.join("whole"));
    assert!(whole == outcome(&here.join("run")));
    // A finished run is only told again, and another one needs a word.
    excon(here, &["train", "--resume", "--out", "run"]).expect(0);
    assert!(whole == outcome(&here.join("run")));
    excon(here, &arguments("run", &[])).expect(73);
}
