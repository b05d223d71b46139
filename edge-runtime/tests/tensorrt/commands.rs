//! TensorRT as a user meets it: set-up, build, re-fit, the choice of an engine, install.

use super::{board, excon_edge, mock, seal};
use serde_json::Value;
use std::fs;
use std::path::Path;

fn engine(folder: &Path, arguments: &[&str]) -> Value {
    excon_edge(folder, "", arguments).expect(0).json()["engine"].clone()
}

#[test]
fn setup_compiles_on_the_board_and_says_what_is_missing() {
    if !mock::is_there("c++") {
        return eprintln!("skipped: there is no C++ compiler here (c++)");
    }
    let here = mock::Board::new("c++", mock::VERSION);
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let [include, lib] = [&here.include, &here.lib].map(|p| p.display().to_string());
    let setup = ["tensorrt", "setup", "--include", &include, "--lib", &lib];
    let line = excon_edge(folder, "", &setup).expect(0).json();
    assert_eq!((&line["schema"], &line["tensorrt"]), (&"excon.tensorrt-setup/1".into(), &"10.3.0".into()));
    assert_eq!((&line["device"]["name"], &line["device"]["capability"][0]), (&"Mock Orin".into(), &8.into()));

    // Without a device it loads and says so.
    let line = excon_edge(folder, "cuda=35", &setup).expect(1).json();
    assert!(line["trouble"].as_str().unwrap().contains("driver version is insufficient"), "{line}");

    let before = fs::read(folder.join("tensorrt/libexcon_tensorrt.so")).unwrap();
    let none = excon_edge(folder, "", &[&setup[..], &["--compiler", "no-such-compiler"]].concat()).expect(69);
    assert!(none.stderr.contains("no-such-compiler") && none.stderr.contains("g++"), "{}", none.stderr);
    fs::write(here.include.join("NvOnnxParser.h"), "#error other headers\n").unwrap();
    let broken = excon_edge(folder, "", &setup).expect(69);
    assert!(broken.stderr.contains("does not compile") && broken.stderr.contains("other headers"), "{}", broken.stderr);
    fs::remove_file(here.lib.join("libcudart.so")).unwrap();
    let missing = excon_edge(folder, "", &setup).expect(69);
    assert!(missing.stderr.contains("libcudart.so is in none of"), "{}", missing.stderr);
    assert_eq!(fs::read(folder.join("tensorrt/libexcon_tensorrt.so")).unwrap(), before, "what was there stays");
}

#[test]
fn a_bundle_is_built_fitted_and_used_where_it_is_ready() {
    let Some(folder) = board() else { return };
    let folder = folder.path();
    seal(folder, "tiny", true, "tensorrt", 1);

    // Nothing is built yet: auto takes the CPU and says why; what is asked for by name is built.
    let run = excon_edge(folder, "", &["status", "tiny.excon"]).expect(0);
    assert_eq!(run.json()["engine"], "int8");
    assert!(run.stderr.contains("no plan for this bundle"), "{}", run.stderr);

    let run = excon_edge(folder, "", &["tensorrt", "build", "tiny.excon"]).expect(0);
    let line = run.json();
    assert_eq!((&line["schema"], &line["plan"]["builder"]), (&"excon.tensorrt-build/1".into(), &"tensorrt".into()));
    assert_eq!((&line["graph"], &line["fitted_on"]), (&true.into(), &"tensorrt".into()));
    assert!(run.stderr.contains("TensorRT builds"), "{}", run.stderr);
    let fitted = fs::read_to_string(folder.join("tiny.fitted.json")).unwrap();
    assert!(fitted.contains(line["engine"].as_str().unwrap()) && fitted.contains(line["digest"].as_str().unwrap()));

    // The constants are the engine's, and the promise holds on it; on the CPU the sealed ones are used.
    let status = excon_edge(folder, "", &["status", "tiny.excon"]).expect(0).json();
    assert_eq!(
        (&status["engine"], &status["manifest"]["calibration"]["engine"]),
        (&"tensorrt".into(), &"tensorrt".into())
    );
    assert_eq!(status["manifest"]["calibration"]["temperature"], line["temperature"]);
    assert_eq!(status["manifest"]["shift"]["reference_frames"], 80);
    assert_eq!(status["promise"]["guarantee"], true);
    let cpu = excon_edge(folder, "", &["status", "tiny.excon", "--engine", "cpu"]).expect(0).json();
    assert_eq!((&cpu["engine"], &cpu["manifest"]["calibration"]["temperature"]), (&"int8".into(), &1.25.into()));

    // The same label with the same map on both.
    let predict = ["predict", "tiny.excon", "photo.png", "--engine"];
    let [a, b] =
        ["tensorrt", "cpu"].map(|name| excon_edge(folder, "", &[&predict[..], &[name]].concat()).expect(0).json());
    assert_eq!(a["label"], b["label"]);
    assert!(a["completeness"].as_f64().unwrap() <= 1e-4);

    // A monitor of its own for each engine, and both can be answered.
    fs::create_dir(folder.join("frames")).unwrap();
    fs::copy(folder.join("photo.png"), folder.join("frames/1.png")).unwrap();
    for name in ["auto", "cpu"] {
        excon_edge(folder, "", &["watch", "tiny.excon", "frames", "--state", "state", "--engine", name]).expect(0);
        excon_edge(folder, "", &["acknowledge", "tiny.excon", "--state", "state", "--engine", name]).expect(0);
    }
    let of_engine =
        fs::read_dir(folder.join("state")).unwrap().map(|e| e.unwrap().path()).find(|p| p.is_dir()).unwrap();
    assert!(of_engine.join("watch.state").is_file() && folder.join("state/watch.state").is_file());

    assert_eq!(engine(folder, &["bench", "tiny.excon", "--seconds", "0.05"]), "tensorrt");
    let doctor = excon_edge(folder, "", &["tensorrt", "doctor", "tiny.excon"]).expect(0).stdout;
    assert!(doctor.contains("fitted on this plan"), "{doctor}");

    // A damaged file of constants is told and not used.
    fs::write(folder.join("tiny.fitted.json"), &fitted[..fitted.len() / 2]).unwrap();
    let run = excon_edge(folder, "", &["status", "tiny.excon"]).expect(0);
    assert!(run.stderr.contains("is damaged") && run.json()["promise"]["guarantee"] == false, "{}", run.stderr);
}

#[test]
fn a_plan_is_for_one_board_and_built_anew_on_another() {
    let Some(folder) = board() else { return };
    let folder = folder.path();
    seal(folder, "tiny", true, "tensorrt", 1);
    let build = ["tensorrt", "build", "tiny.excon"];
    let first = excon_edge(folder, "", &build).expect(0).json();
    let again = excon_edge(folder, "", &build).expect(0);
    assert_eq!(again.json()["engine"], first["engine"]);
    assert!(!again.stderr.contains("TensorRT builds"), "what is there is used: {}", again.stderr);
    assert!(
        excon_edge(folder, "", &["tensorrt", "build", "tiny.excon", "--force"])
            .expect(0)
            .stderr
            .contains("TensorRT builds")
    );

    for (changed, words) in [("driver=12060", "driver 12020, and this is 12060"), ("capability=7.2", "capability 8.7")]
    {
        let run = excon_edge(folder, changed, &["predict", "tiny.excon", "photo.png"]).expect(0);
        assert!(run.stderr.contains("is stale") && run.stderr.contains(words), "{}", run.stderr);
    }
    let run = excon_edge(folder, "driver=12060", &build).expect(0);
    assert!(run.stderr.contains("built anew") && run.json()["plan"]["key"]["driver"] == 12060, "{}", run.stderr);

    // A flipped bit is seen before TensorRT sees it.
    let plan = fs::read_dir(folder.join("tensorrt/plans")).unwrap().next().unwrap().unwrap().path();
    let mut bytes = fs::read(&plan).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&plan, bytes).unwrap();
    let run = excon_edge(folder, "driver=12060", &build).expect(0);
    assert!(run.stderr.contains("torn or damaged"), "{}", run.stderr);
}

#[test]
fn install_builds_what_was_made_for_tensorrt() {
    let Some(folder) = board() else { return };
    let folder = folder.path();
    seal(folder, "cpu", true, "cpu", 1);
    seal(folder, "one", true, "tensorrt", 2);
    seal(folder, "two", true, "tensorrt", 3);
    excon_edge(folder, "", &["install", "cpu.excon"]).expect(0);
    assert_eq!(engine(folder, &["status"]), "int8", "made for the CPU: nothing is built for it");

    let run = excon_edge(folder, "", &["install", "one.excon"]).expect(0);
    assert_eq!((&run.json()["outcome"], &run.json()["slot"]), (&"committed".into(), &"b".into()));
    assert!(run.stderr.contains("passed its golden inputs on tensorrt"), "{}", run.stderr);
    assert!(folder.join("root/slots/b.fitted.json").is_file() && !folder.join("one.fitted.json").exists());
    let status = excon_edge(folder, "", &["status"]).expect(0).json();
    assert_eq!((&status["engine"], &status["promise"]["guarantee"]), (&"tensorrt".into(), &true.into()));
    excon_edge(folder, "", &["predict", "active", "photo.png"]).expect(0);

    // The slot's constants go with what is in it.
    excon_edge(folder, "", &["install", "two.excon", "--live", "--health", "2"]).expect(0);
    assert!(folder.join("root/slots/a.fitted.json").is_file());
    for _ in 0..2 {
        excon_edge(folder, "", &["predict", "active", "photo.png"]).expect(0);
    }
    assert_eq!(excon_edge(folder, "", &["status"]).expect(0).json()["installed"]["a"]["standing"], "committed");
    excon_edge(folder, "", &["rollback"]).expect(0);
    let status = excon_edge(folder, "", &["status"]).expect(0).json();
    assert_eq!((&status["engine"], &status["manifest"]["version"]), (&"tensorrt".into(), &2.into()));
}

#[test]
fn trtexec_builds_as_well() {
    let Some(folder) = board() else { return };
    let folder = folder.path();
    seal(folder, "tiny", true, "tensorrt", 1);
    let plan = excon_edge(folder, "", &["tensorrt", "build", "tiny.excon"]).expect(0).json()["engine"].clone();
    // Stands in for the program: keeps its arguments, and gives the plan that the library has built.
    let file = fs::read_dir(folder.join("tensorrt/plans")).unwrap().next().unwrap().unwrap().path();
    fs::copy(&file, folder.join("kept.plan")).unwrap();
    let script = "#!/bin/sh\necho \"$@\" > arguments\nfor a in \"$@\"; do case $a in --saveEngine=*) tail -n +3 kept.plan > ${a#--saveEngine=};; esac; done\n";
    executable(&folder.join("trtexec"), script);
    let build = ["tensorrt", "build", "tiny.excon", "--force", "--trtexec", "./trtexec", "--workspace", "64"];
    let line = excon_edge(folder, "", &build).expect(0).json();
    assert_eq!((&line["plan"]["builder"], &line["engine"]), (&"trtexec".into(), &plan));
    let arguments = fs::read_to_string(folder.join("arguments")).unwrap();
    for flag in ["--onnx=", "--saveEngine=", "--noTF32", "--skipInference", "--int8", "--memPoolSize=workspace:64"] {
        assert!(arguments.contains(flag), "{flag} in {arguments}");
    }

    executable(&folder.join("trtexec"), "#!/bin/sh\necho '[E] Error[4]: no tactic'\nexit 1\n");
    let failed = excon_edge(folder, "", &build).expect(70);
    assert!(failed.stderr.contains("[E] Error[4]: no tactic"), "{}", failed.stderr);
    executable(&folder.join("trtexec"), "#!/bin/sh\nexec sleep 60\n");
    let late = excon_edge(folder, "", &[&build[..], &["--limit", "1"]].concat()).expect(70);
    assert!(late.stderr.contains("stopped after 1 s"), "{}", late.stderr);
    assert_eq!(engine(folder, &["status", "tiny.excon"]), "tensorrt", "the plan that was there stays");
}

fn executable(path: &Path, text: &str) {
    use std::os::unix::fs::PermissionsExt;
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}
