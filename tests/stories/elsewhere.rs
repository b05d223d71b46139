//! `excon compare` with other runtimes: what they say of our files, and what is said where they are missing or die.

use super::{Run, excon, excon_command};
use excon_convert::peer::PYTHON;
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

/// `excon compare` with an interpreter.
fn compare(here: &Path, python: &str, a: &str, b: &str) -> Run {
    let arguments = ["compare", a, b, "--data", "own", "--limit", "24", "--format", "json"];
    let output = excon_command(here, &arguments).env(PYTHON, python).env("PID", here.join("pid")).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Run { code: output.status.code().unwrap_or(-1), stdout: text(output.stdout), stderr: text(output.stderr) }
}

/// Float answers are the run's own within 1e-4, int8 names the classes that our kernels name, and layers are compared too.
/// Says so where the Python of `EXCON_PYTHON` lacks a package. In `here` lie a run and its bundle.
pub fn runs_forms(here: &Path) {
    let Ok(python) = std::env::var(PYTHON) else {
        return println!("skipped: set {PYTHON} to compare with ONNX Runtime and OpenVINO");
    };
    for form in ["float", "int8"] {
        let out = format!("{form}.onnx");
        let done = excon(here, &["convert", "run", "--data", "own", "--precision", form, "--out", &out]);
        assert!([0, 1].contains(&done.code), "{}", done.stderr);
    }
    for runtime in ["onnxruntime", "openvino"] {
        let float = compare(here, &python, "run", &format!("{runtime}:float.onnx"));
        if float.code == 69 && float.stderr.contains("has no package") {
            println!("skipped: {}", float.stderr);
            continue;
        }
        let c = float.expect(0).json();
        let engine = c["b"]["engine"].as_str().unwrap();
        assert!(engine.starts_with(runtime) && engine.len() > runtime.len() + 3, "{engine}");
        assert!(c["largest_logit_difference"].as_f64().unwrap() < 1e-4 && c["same_class"] == 1.0, "{c}");
        // Our own engine is the other side, at the bundle's temperature; the layers are the runtime's.
        let c = compare(here, &python, &format!("{runtime}:own.excon"), "own.excon").expect(0).json();
        assert!(c["same_class"].as_f64().unwrap() > 0.95 && c["logits_db"].as_f64().is_none_or(|db| db > 20.0), "{c}");
        assert!(c["layers"].as_array().unwrap().len() > 8 && c["map_cosine"].as_f64().unwrap() > 0.99, "{c}");
        let c = compare(here, &python, "run", &format!("{runtime}:int8.onnx")).expect(0).json();
        let noisy = |l: &Value| l["signal_to_noise_db"].as_f64().is_some_and(|db| db > 5.0);
        assert!(c["layers"].as_array().unwrap().iter().all(noisy), "{c}");
    }
    excon(here, &["compare", "own.excon", "onnxruntime:run", "--data", "own"]).expect(64);
}

/// No interpreter, one without the package, one that dies midway, and one that hangs when it is no longer needed.
pub fn says_what_is_missing(here: &Path) {
    let script = |name: &str| format!("{}/tests/stories/python/{name}.sh", env!("CARGO_MANIFEST_DIR"));
    let other = "onnxruntime:own.excon";
    let none = compare(here, "/nowhere/python", "own.excon", other).expect(69);
    assert!(none.stderr.contains("pip install onnxruntime") && none.stderr.contains(PYTHON), "{}", none.stderr);
    let bare = compare(here, &script("bare"), "own.excon", other).expect(69);
    assert!(bare.stderr.contains("has no package onnxruntime"), "{}", bare.stderr);
    let dead = compare(here, &script("dying"), "own.excon", other).expect(69);
    assert!(dead.stderr.contains("exit status: 3") && dead.stderr.contains("no memory is left"), "{}", dead.stderr);
    // It is still there when the comparison ends because of something else.
    let began = Instant::now();
    let c = excon_command(here, &["compare", "own.excon", other, "--data", "missing"])
        .env(PYTHON, script("hanging"))
        .env("PID", here.join("pid"))
        .output()
        .unwrap();
    assert_eq!(c.status.code(), Some(65), "{}", String::from_utf8_lossy(&c.stderr));
    assert!(began.elapsed() < Duration::from_secs(300), "it was waited for");
    let pid = fs::read_to_string(here.join("pid")).unwrap();
    assert!(!Path::new("/proc").join(pid.trim()).exists(), "process {pid} was left behind");
}
