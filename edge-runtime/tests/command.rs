//! The command as a user meets it: a tiny sealed bundle, pictures in a folder, exit codes, JSON keys.
//!
//! Each test is a closure over its own folder; see [`in_folder`].
#![allow(clippy::unwrap_used, missing_docs)]

mod tiny;

use assert_cmd::Command;
use serde_json::Value;
use std::fs;
use std::path::Path;

/// What a run left.
struct Run {
    code: i32,
    stdout: String,
    stderr: String,
}

impl Run {
    fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, code, "stdout:\n{}\nstderr:\n{}", self.stdout, self.stderr);
        self
    }

    fn json(&self) -> Vec<Value> {
        let lines: Vec<Value> = self.stdout.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
        assert!(lines.iter().all(|l| l["schema"].as_str().is_some_and(|s| s.starts_with("excon."))));
        lines
    }
}

/// Runs `excon-edge` in a folder that holds `tiny.excon`.
fn run(folder: &Path, arguments: &[&str]) -> Run {
    let output = Command::new(env!("CARGO_BIN_EXE_excon-edge"))
        .args(arguments)
        .current_dir(folder)
        .env_remove("EXCON_FORMAT")
        .env_remove("EXCON_STATE")
        .output()
        .unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Run { code: output.status.code().unwrap_or(-1), stdout: text(output.stdout), stderr: text(output.stderr) }
}

fn in_folder(test: impl FnOnce(&Path)) {
    let folder = tempfile::tempdir().unwrap();
    tiny::writer(true, 150).seal(folder.path().join("tiny.excon")).unwrap();
    test(folder.path());
}

/// Writes frames `NAME_000.png`, … of one brightness.
fn frames(folder: &Path, name: &str, seeds: std::ops::Range<u64>, brightness: f32) {
    fs::create_dir_all(folder).unwrap();
    for (index, seed) in seeds.enumerate() {
        let picture = tiny::picture(seed, brightness);
        fs::write(folder.join(format!("{name}_{index:03}.png")), tiny::png(&picture)).unwrap();
    }
}

#[test]
fn predict_gives_labels_probabilities_and_maps() {
    in_folder(|folder| {
        frames(folder, "photo", 5_000..5_002, 0.5);
        let human = run(folder, &["predict", "tiny.excon", "photo_000.png", "photo_001.png"]).expect(0);
        assert_eq!(human.stdout.lines().count(), 2);
        assert!(human.stdout.contains("photo_001.png") && human.stdout.contains("90 % set: "), "{}", human.stdout);
        assert!(!human.stdout.contains('\x1b'), "no colour into a pipe");

        let arguments =
            ["predict", "tiny.excon", "photo_000.png", "photo_000.png", "--explain", "maps", "--format", "json"];
        let lines = run(folder, &arguments).expect(0).json();
        assert_eq!((lines.len(), &lines[0]["schema"]), (2, &Value::from("excon.prediction/1")));
        let probabilities = lines[0]["probabilities"].as_object().unwrap();
        let sum: f64 = probabilities.values().map(|p| p.as_f64().unwrap()).sum();
        assert!((sum - 1.0).abs() < 1e-9);
        let label = lines[0]["label"].as_str().unwrap();
        assert_eq!(probabilities[label], lines[0]["confidence"]);
        assert!(lines[0]["prediction_set"].as_array().unwrap().contains(&Value::from(label)));
        assert!(lines[0]["completeness"].as_f64().unwrap() <= 1e-4);
        assert_eq!(lines[1]["explanation"], "maps/photo_000-2.saliency.png", "a second one of the name is kept too");
        for line in &lines {
            let picture = excon_edge::image::read(&folder.join(line["explanation"].as_str().unwrap())).unwrap();
            assert!(picture.width >= 400 && picture.width == picture.height);
            let coloured = picture.rgb.chunks_exact(3).filter(|p| p[0] != p[1] || p[1] != p[2]).count();
            assert!(coloured > picture.width * picture.height / 2, "viridis over grey is coloured");
        }
    });
}

#[test]
fn bad_input_is_named_and_gets_its_exit_code() {
    in_folder(|folder| {
        frames(folder, "photo", 1..2, 0.5);
        fs::write(folder.join("broken.jpg"), b"not a picture").unwrap();
        let mixed = run(folder, &["predict", "tiny.excon", "broken.jpg", "photo_000.png"]).expect(65);
        assert!(mixed.stderr.contains("broken.jpg") && mixed.stdout.contains("photo_000.png"), "the rest is done");

        let missing = run(folder, &["predict", "none.excon", "photo_000.png"]).expect(65);
        assert!(missing.stderr.contains("none.excon") && missing.stdout.is_empty());

        let mut bytes = fs::read(folder.join("tiny.excon")).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(folder.join("damaged.excon"), bytes).unwrap();
        let damaged = run(folder, &["status", "damaged.excon"]).expect(65);
        assert!(damaged.stderr.contains("does not match its digest"), "{}", damaged.stderr);

        fs::write(folder.join("file"), b"").unwrap();
        let unwritable = ["predict", "tiny.excon", "photo_000.png", "--explain", "file"];
        assert!(run(folder, &unwritable).expect(73).stderr.contains("cannot write file"));
        let unwritable = ["watch", "tiny.excon", ".", "--state", "file/below"];
        assert!(run(folder, &unwritable).expect(65).stderr.contains("file/below"));

        fs::create_dir(folder.join("empty")).unwrap();
        assert!(run(folder, &["watch", "tiny.excon", "empty"]).expect(65).stderr.contains("no JPEG or PNG"));
        assert!(run(folder, &["watch", "tiny.excon", "nowhere"]).expect(65).stderr.contains("nowhere"));

        for usage in [&["predict"][..], &["guess"], &["watch", "tiny.excon", ".", "--mean-time", "1"], &[]] {
            run(folder, usage).expect(64);
        }
    });
}

#[test]
fn help_version_and_completions_are_data() {
    in_folder(|folder| {
        for command in ["predict", "watch", "bench", "status", "acknowledge"] {
            let help = run(folder, &[command, "--help"]).expect(0);
            assert!(help.stdout.contains("Example") && help.stdout.contains("--format"), "{}", help.stdout);
        }
        assert!(run(folder, &["--help"]).expect(0).stdout.contains("Exit codes"));
        assert!(run(folder, &["--version"]).expect(0).stdout.starts_with("excon-edge "));
        assert!(run(folder, &["completions", "bash"]).expect(0).stdout.contains("excon-edge"));
    });
}

#[test]
fn families_may_be_turned_to_notices_and_slow_frames_are_called_so() {
    in_folder(|folder| {
        let stream = folder.join("stream");
        frames(&stream, "a", 20_000..20_010, 0.5);
        frames(&stream, "b", 30_000..30_040, 0.25);
        let watch = |more: &[&str]| {
            run(folder, &[&["watch", "tiny.excon", "stream", "--independent", "--format", "json"], more].concat())
        };
        let quiet = ["--notice", "input-changed", "--notice", "network-unsure"];
        let kept = [&["--state", "kept", "--latency-budget-ms", "0"], &quiet[..]].concat();
        let lines = watch(&kept).expect(0).json();
        let summary = &lines[50];
        assert_eq!(summary["alarm"], Value::Null);
        let conditions = summary["promise"]["conditions"].to_string();
        assert!(conditions.contains("no alarm by: input changed, network unsure"), "{conditions}");
        assert!(lines[..50].iter().all(|l| l["state"] == "slow"), "no frame takes no time");
        assert!(lines[49]["notices"].as_array().unwrap().contains(&"input_changed".into()), "{}", lines[49]);

        // What was set stands in the state, until it is taken back.
        frames(&stream, "c", 40_000..40_010, 0.25);
        let lines = watch(&["--state", "kept"]).expect(0).json();
        assert!(lines[..10].iter().all(|l| l["state"] == "slow"));
        frames(&stream, "d", 50_000..50_010, 0.25);
        let lines = watch(&["--state", "kept", "--notice", "none"]).expect(1).json();
        assert_eq!(lines[10]["alarm"]["family"], "input_changed");

        let unknown = run(folder, &["watch", "tiny.excon", "stream", "--notice", "everything"]).expect(64);
        assert!(unknown.stderr.contains("explanation-inconsistent"), "{}", unknown.stderr);
    });
}

#[test]
fn a_healthy_stream_is_silent_and_a_dark_one_rings_until_acknowledged() {
    in_folder(|folder| {
        let stream = folder.join("stream");
        frames(&stream, "a", 20_000..20_030, 0.5);
        let watch = |more: &[&str]| run(folder, &[&["watch", "tiny.excon", "stream", "--independent"], more].concat());

        let healthy = watch(&["--state", "kept", "--format", "json"]).expect(0).json();
        assert_eq!(healthy.len(), 31, "one line a frame and a summary");
        assert!(healthy[..30].iter().all(|l| l["state"] != "shift" && l["kept"] == true));
        assert_eq!(healthy[30]["schema"], "excon.watch-summary/1");
        assert_eq!(healthy[30]["promise"]["guarantee"], true);

        frames(&stream, "b", 30_000..30_040, 0.25);
        let ringing = watch(&["--state", "kept", "--format", "json"]).expect(1).json();
        assert_eq!(ringing.len(), 41, "what was seen is not seen again");
        assert_eq!(ringing[0]["raw_frames"], 31);
        let alarm = &ringing[40]["alarm"];
        assert_eq!(alarm["family"], "input_changed", "{alarm}");
        let saliency: Vec<_> = ringing[40]["channels"].as_array().unwrap().iter().collect();
        assert!(saliency.iter().any(|c| c["family"] == "explanation_inconsistent" && c["weight"] == 0.0));

        // In one go, without a saved state, the answer is the same.
        let at_once = watch(&["--format", "json"]).expect(1).json();
        assert_eq!(at_once[69]["log_r"], ringing[39]["log_r"]);
        assert_eq!(&at_once[70]["alarm"], alarm);

        let human = watch(&[]).expect(1);
        assert!(human.stdout.contains("explanation inconsistent") && human.stdout.contains("shown only"));
        assert!(human.stdout.lines().count() < 50, "people see changes, not frames");

        let status = run(folder, &["status", "tiny.excon", "--state", "kept"]).expect(1);
        assert!(status.stdout.contains("shift since frame"), "{}", status.stdout);
        let answer = run(folder, &["acknowledge", "tiny.excon", "--state", "kept"]).expect(0);
        assert!(answer.stdout.contains("acknowledged: input changed"), "{}", answer.stdout);
        let status = run(folder, &["status", "tiny.excon", "--state", "kept", "--format", "json"]).expect(0).json();
        assert_eq!((&status[0]["monitor"]["alarm"], &status[0]["monitor"]["raw_frames"]), (&Value::Null, &70.into()));
        let again = watch(&["--state", "kept"]).expect(0);
        assert!(again.stdout.contains("no new frames"), "{}", again.stdout);
    });
}

#[test]
fn an_alarm_ends_by_itself_only_where_it_was_told_to() {
    in_folder(|folder| {
        frames(&folder.join("stream"), "a", 30_000..30_040, 0.25);
        frames(&folder.join("stream"), "b", 20_000..20_080, 0.5);
        let watch = |more: &[&str]| run(folder, &[&["watch", "tiny.excon", "stream", "--independent"], more].concat());
        watch(&[]).expect(1);
        let line =
            |run: Run| run.json().into_iter().map(|l| l["state"].as_str().map(str::to_owned)).collect::<Vec<_>>();
        let states = line(watch(&["--recover-after", "60", "--state", "kept", "--format", "json"]).expect(0));
        let ringing: Vec<usize> = (0..120).filter(|&i| states[i].as_deref() == Some("shift")).collect();
        assert_eq!(ringing.len(), 61, "the frame that rings, and sixty after it: {states:?}");

        // What it was told is kept with the state, until it is told otherwise.
        frames(&folder.join("stream"), "c", 31_000..31_040, 0.25);
        frames(&folder.join("stream"), "d", 21_000..21_080, 0.5);
        watch(&["--state", "kept"]).expect(0);
        frames(&folder.join("stream"), "e", 32_000..32_040, 0.25);
        frames(&folder.join("stream"), "f", 22_000..22_080, 0.5);
        watch(&["--state", "kept", "--recover-after", "0"]).expect(1);
    });
}

#[test]
fn accepting_a_change_takes_it_as_the_new_normal() {
    in_folder(|folder| {
        let watch = ["watch", "tiny.excon", "stream", "--state", "kept", "--independent"];
        frames(&folder.join("stream"), "a", 30_000..30_060, 0.25);
        run(folder, &watch).expect(1);
        let accepted = run(folder, &["acknowledge", "tiny.excon", "--state", "kept", "--accept"]).expect(0);
        assert!(accepted.stdout.contains("low power"), "{}", accepted.stdout);
        frames(&folder.join("stream"), "b", 31_000..31_030, 0.25);
        run(folder, &watch).expect(0);
    });
}

#[test]
fn an_undeclared_stream_gets_no_guarantee_and_damaged_state_is_refused() {
    in_folder(|folder| {
        frames(&folder.join("stream"), "a", 1..6, 0.5);
        fs::write(folder.join("stream/a_002.png"), b"\x89PNG\r\n\x1a\ntorn").unwrap();
        let undeclared = run(folder, &["watch", "tiny.excon", "stream", "--state", "kept"]).expect(0);
        assert!(undeclared.stdout.contains("no guarantee") && undeclared.stdout.contains("--independent"));
        assert!(undeclared.stdout.contains("1 unreadable") && undeclared.stderr.contains("a_002.png"));

        let state = folder.join("kept/watch.state");
        let bytes = fs::read(&state).unwrap();
        for damage in [bytes[..bytes.len() / 2].to_vec(), b"excon.watch-state/9 0\n".to_vec(), Vec::new()] {
            fs::write(&state, &damage).unwrap();
            let refused = run(folder, &["watch", "tiny.excon", "stream", "--state", "kept"]).expect(65);
            assert!(refused.stderr.contains("watch.state"), "{}", refused.stderr);
            assert_eq!(fs::read(&state).unwrap(), damage, "it is left for someone to look at");
        }
        run(folder, &["acknowledge", "tiny.excon", "--state", "elsewhere"]).expect(65);
    });
}

#[test]
fn bench_and_status_describe_the_bundle() {
    in_folder(|folder| {
        let bench = &run(folder, &["bench", "tiny.excon", "--seconds", "0.05", "--format", "json"]).expect(0).json()[0];
        assert_eq!((&bench["schema"], &bench["engine"]), (&"excon.bench/1".into(), &"int8".into()));
        let latency = &bench["engine_latency"];
        assert!(latency["p50"].as_f64() <= latency["p99"].as_f64() && latency["runs"].as_u64() >= Some(10));
        assert!(bench["advice"].as_str().unwrap().ends_with('.'));
        let human = run(folder, &["bench", "tiny.excon", "--seconds", "0.05"]).expect(0);
        assert!(human.stdout.contains("p99") && human.stdout.contains("pictures/s"));
        std::fs::write(folder.join("float.onnx"), tiny::network(false).bytes()).unwrap();
        for (file, engine) in [("float.onnx", "float"), ("tract:float.onnx", "tract")] {
            let bench = &run(folder, &["bench", file, "--seconds", "0.05", "--format", "json"]).expect(0).json()[0];
            assert!(bench["engine"] == engine && bench["whole_latency"].is_null(), "{bench}");
            assert!(bench["engine_latency"]["least"].as_f64() <= bench["engine_latency"]["p50"].as_f64());
        }
        run(folder, &["bench", "none.onnx"]).expect(65);

        let status = run(folder, &["status", "tiny.excon"]).expect(0);
        for word in ["tiny version 3", "cup, jar, lid", "int8", "model.onnx", "accuracy loss", "passed", "1,000,000"] {
            assert!(status.stdout.contains(word), "{word} is not in:\n{}", status.stdout);
        }
    });
}

#[test]
fn a_closed_pipe_is_no_error() {
    in_folder(|folder| {
        frames(folder, "photo", 0..3, 0.5);
        let script =
            "\"$0\" predict tiny.excon photo_000.png photo_001.png --format json | true; exit ${PIPESTATUS[0]}";
        let bash = std::process::Command::new("bash")
            .args(["-c", script, env!("CARGO_BIN_EXE_excon-edge")])
            .current_dir(folder)
            .output();
        let Ok(output) = bash else { return eprintln!("skipped: no bash on this machine") };
        assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    });
}
