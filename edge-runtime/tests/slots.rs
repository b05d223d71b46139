//! Slots as a user meets them: install, predict from `active`, roll back, try live, and be killed in the middle.
#![allow(clippy::unwrap_used, missing_docs)]

mod tiny;

use excon_edge::bundle::{Bundle, Members, Trust, Writer};
use excon_edge::slot::{Slots, Standing};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Runs `excon-edge … --root root` in a folder; exit code, JSON lines and stderr.
fn run(folder: &Path, code: i32, arguments: &[&str]) -> (Vec<Value>, String) {
    let output = command(folder, arguments).output().unwrap();
    let [stdout, stderr] = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap());
    assert_eq!(output.status.code(), Some(code), "{arguments:?}\nstdout:\n{stdout}\nstderr:\n{stderr}");
    (stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect(), stderr)
}

fn command(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_excon-edge"));
    command.args(arguments).args(["--root", "root", "--format", "json"]).current_dir(folder).env_remove("EXCON_STATE");
    command
}

/// A bundle of a version as `NAME.excon`.
fn bundle(folder: &Path, name: &str, version: u64) -> PathBuf {
    let path = folder.join(format!("{name}.excon"));
    versioned(version).seal(&path).unwrap();
    path
}

fn versioned(version: u64) -> Writer {
    tiny::versioned(true, 60, version)
}

fn photo(folder: &Path) {
    fs::write(folder.join("photo.png"), tiny::png(&tiny::picture(7, 0.5))).unwrap();
}

#[test]
fn a_board_is_updated_and_goes_back() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    photo(folder);
    for (name, version) in [("one", 1), ("two", 2)] {
        bundle(folder, name, version);
    }
    let (status, _) = run(folder, 0, &["status"]);
    assert!(status[0]["installed"]["active"].is_null());
    let (_, stderr) = run(folder, 65, &["predict", "active", "photo.png"]);
    assert!(stderr.contains("excon-edge install"), "{stderr}");

    let (line, stderr) = run(folder, 0, &["install", "one.excon"]);
    assert_eq!((&line[0]["outcome"], &line[0]["slot"]), (&"committed".into(), &"a".into()));
    assert!(stderr.contains("no key is pinned"), "{stderr}");
    let (line, _) = run(folder, 0, &["install", "one.excon"]);
    assert_eq!(line[0]["outcome"], "active already");
    let (line, _) = run(folder, 0, &["install", "two.excon", "--dry-run"]);
    assert_eq!((&line[0]["outcome"], &line[0]["slot"]), (&"acceptable".into(), &"b".into()));
    let (line, _) = run(folder, 0, &["install", "two.excon"]);
    assert_eq!((&line[0]["outcome"], &line[0]["slot"]), (&"committed".into(), &"b".into()));
    let (status, _) = run(folder, 0, &["status"]);
    assert_eq!((&status[0]["manifest"]["version"], &status[0]["installed"]["a"]["version"]), (&2.into(), &1.into()));
    run(folder, 0, &["predict", "active", "photo.png"]);

    // The monitor of each bundle waits for it.
    fs::create_dir(folder.join("frames")).unwrap();
    fs::copy(folder.join("photo.png"), folder.join("frames/1.png")).unwrap();
    run(folder, 0, &["watch", "active", "frames", "--state", "state"]);
    let (line, _) = run(folder, 0, &["rollback"]);
    assert_eq!(line[0]["active"]["version"], 1);
    run(folder, 0, &["watch", "active", "frames", "--state", "state"]);
    assert_eq!(fs::read_dir(folder.join("state")).unwrap().count(), 2);
}

#[test]
fn bad_bundles_never_cost_the_one_that_runs() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let one = bundle(folder, "one", 5);
    run(folder, 0, &["install", "one.excon"]);
    bundle(folder, "older", 4);
    let (_, stderr) = run(folder, 65, &["install", "older.excon"]);
    assert!(stderr.contains("--older"), "{stderr}");
    // Golden outputs that no engine gives.
    let mut liar = versioned(6);
    let mut golden = Bundle::open(&one).unwrap().golden;
    golden.logits.iter_mut().for_each(|v| *v += 5.0);
    liar.golden(&golden).unwrap();
    liar.seal(folder.join("liar.excon")).unwrap();
    assert!(run(folder, 65, &["install", "liar.excon"]).1.contains("golden input 0"));
    let mut damaged = fs::read(&one).unwrap();
    *damaged.iter_mut().rev().nth(2_000).unwrap() ^= 4;
    fs::write(folder.join("damaged.excon"), damaged).unwrap();
    run(folder, 65, &["install", "damaged.excon"]);
    run(folder, 65, &["install", "missing.excon"]);
    assert_eq!(run(folder, 0, &["status"]).0[0]["manifest"]["version"], 5);

    // A pinned key that is nobody's: all of it is refused, and what was installed unsigned too.
    fs::create_dir_all(folder.join("root/keys")).unwrap();
    let key = minisign::KeyPair::generate_unencrypted_keypair().unwrap().pk;
    fs::write(folder.join("root/keys/line.pub"), key.to_box().unwrap().into_string()).unwrap();
    for arguments in [&["install", "one.excon"][..], &["status"], &["bench", "one.excon"]] {
        assert!(run(folder, 65, arguments).1.contains("not signed"));
    }
}

#[test]
fn a_live_trial_is_committed_by_predictions_and_left_after_starts_that_come_to_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    photo(folder);
    for (name, version) in [("one", 1), ("two", 2), ("three", 3)] {
        bundle(folder, name, version);
    }
    run(folder, 0, &["install", "one.excon"]);
    let (line, _) = run(folder, 0, &["install", "two.excon", "--health", "3", "--live"]);
    assert_eq!(line[0]["outcome"], "on trial");
    run(folder, 75, &["install", "three.excon"]);
    run(folder, 0, &["predict", "active", "photo.png", "photo.png"]);
    let trial = |folder| run(folder, 0, &["status"]).0[0]["installed"]["trial"].clone();
    assert_eq!(trial(folder)["passed"], 2);
    run(folder, 0, &["predict", "active", "photo.png"]);
    assert!(trial(folder).is_null());

    run(folder, 0, &["install", "three.excon", "--health", "3", "--live"]);
    fs::write(folder.join("broken.png"), b"no picture").unwrap();
    for _ in 0..3 {
        run(folder, 65, &["predict", "active", "broken.png"]);
    }
    let (line, stderr) = run(folder, 0, &["predict", "active", "photo.png"]);
    assert!(stderr.contains("rolled back") && line.len() == 1, "{stderr}");
    let (status, _) = run(folder, 0, &["status"]);
    assert_eq!(
        (&status[0]["manifest"]["version"], &status[0]["installed"]["a"]["standing"]),
        (&2.into(), &"failed".into())
    );
    assert!(run(folder, 65, &["rollback"]).1.contains("nothing to go back to"));
}

#[test]
fn doctor_looks_at_a_board_below_a_root() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    fs::create_dir_all(folder.join("board/proc/device-tree")).unwrap();
    fs::write(folder.join("board/proc/device-tree/model"), "Raspberry Pi 5 Model B Rev 1.0\0").unwrap();
    let (line, _) = run(folder, 0, &["doctor", "--sysroot", "board"]);
    assert_eq!(line[0]["facts"]["model"], "Raspberry Pi 5 Model B Rev 1.0");
    assert!(line[0]["findings"].as_array().unwrap().iter().any(|f| f["subject"] == "slots" && f["grade"] == "good"));
}

/// Kills installs with SIGKILL at moments all over their course. After each, the old or the new bundle is active and
/// whole, and the next install works.
fn kill_installs(count: usize) {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let files = [bundle(folder, "even", 1), bundle(folder, "odd", 2)];
    let digests = files.each_ref().map(|file| Bundle::open(file).unwrap().digest);
    let names = ["even.excon", "odd.excon"];
    let started = Instant::now();
    for name in names {
        run(folder, 0, &["install", name]);
    }
    let slots = Slots::at(folder.join("root"));
    let usual = started.elapsed() / 2;
    let (mut killed, mut changed, mut open) = (0, 0, 0);
    for round in 0.. {
        if killed >= count || round > 10 * count {
            break;
        }
        let name = names[round % 2];
        let before = slots.state().unwrap();
        let mut child =
            command(folder, &["install", name, "--older"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        // Moments from the start to beyond the end, spread by the golden ratio.
        let share = (round as f64 * 0.618_033_988_75).fract();
        std::thread::sleep(Duration::from_secs_f64(usual.as_secs_f64() * 1.2 * share));
        child.kill().unwrap();
        killed += usize::from(child.wait().unwrap().code().is_none());
        let state = slots.state().unwrap();
        let (slot, running) = state.running().unwrap();
        assert!(digests.contains(&running.digest));
        let held = Members::open(&slots.place(slot), &Trust::anyone()).unwrap();
        assert_eq!(held.digest(), running.digest, "round {round}");
        changed += usize::from(before.active != state.active);
        open += usize::from(running.standing == Standing::Trial);
    }
    println!("{killed} installs were killed; {changed} had switched, {open} times a trial was open");
    assert_eq!(killed, count, "too few installs were caught alive");
    bundle(folder, "last", 9);
    run(folder, 0, &["install", "last.excon"]);
    assert_eq!(run(folder, 0, &["status"]).0[0]["manifest"]["version"], 9);
    let partial = fs::read_dir(folder.join("root"))
        .unwrap()
        .filter(|e| e.as_ref().unwrap().file_name().to_string_lossy().starts_with(".partial-"));
    assert_eq!(partial.count(), 0, "what a kill left was taken by the next install");
}

#[test]
fn an_install_that_is_killed_leaves_the_old_or_the_new_bundle() {
    kill_installs(25);
}

#[test]
#[ignore = "takes minutes: cargo test --release -p excon-edge --test slots -- --ignored --nocapture"]
fn a_thousand_installs_that_are_killed() {
    kill_installs(1_000);
}

#[test]
fn a_root_that_cannot_be_written_is_told_and_what_runs_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    photo(folder);
    bundle(folder, "one", 1);
    bundle(folder, "two", 2);
    fs::write(folder.join("file"), b"").unwrap();
    let output =
        command(folder, &["install", "one.excon"]).env("EXCON_ROOT", "x").args(["--root", "file/below"]).output();
    assert_eq!(output.unwrap().status.code(), Some(64), "one root, not two");
    run(folder, 0, &["install", "one.excon"]);
    // A folder where the state is to be written: writable for no one, root included.
    fs::create_dir(folder.join("root/.partial-slots.json")).unwrap();
    assert!(run(folder, 73, &["install", "two.excon"]).1.contains("Nothing was changed"));
    assert_eq!(run(folder, 0, &["predict", "active", "photo.png"]).0.len(), 1);
    assert_eq!(run(folder, 0, &["status"]).0[0]["manifest"]["version"], 1);
    assert_eq!(fs::read_dir(folder.join("root/slots/a")).unwrap().count(), 5);
}

#[test]
fn a_shadow_keeps_a_worse_model_out_and_lets_an_equal_one_in() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    bundle(folder, "one", 1);
    bundle(folder, "two", 2);
    run(folder, 0, &["install", "one.excon"]);
    // The same network under permuted labels is wrong wherever the running one is right.
    let mut liar = tiny::manifest(true, 60, "int8");
    liar.version = 3;
    liar.labels.rotate_left(1);
    let members = Members::open(&folder.join("two.excon"), &Trust::anyone()).unwrap();
    let mut writer = Writer::new(liar);
    for (name, bytes) in members.files {
        writer.member(&name, bytes);
    }
    writer.seal(folder.join("liar.excon")).unwrap();

    let predictor = excon_edge::predictor::Predictor::open(folder.join("one.excon")).unwrap();
    for seed in 0..600 {
        let picture = tiny::picture(seed, 0.5);
        let place = folder.join("labelled").join(predictor.predict(&picture).unwrap().label);
        fs::create_dir_all(&place).unwrap();
        fs::write(place.join(format!("{seed}.png")), tiny::png(&picture)).unwrap();
    }
    let (line, stderr) = run(folder, 1, &["install", "liar.excon", "--shadow", "labelled"]);
    assert_eq!(line[0]["outcome"], "worse", "{stderr}");
    let (line, _) = run(folder, 1, &["install", "two.excon", "--shadow", "labelled", "--margin", "0.001"]);
    assert_eq!(line[0]["outcome"], "undecided");
    assert_eq!(run(folder, 0, &["status"]).0[0]["manifest"]["version"], 1);
    let (line, _) = run(folder, 0, &["install", "two.excon", "--shadow", "labelled"]);
    assert_eq!(line[0]["outcome"], "committed");
    run(folder, 65, &["install", "one.excon", "--older", "--shadow", "root"]);
}
