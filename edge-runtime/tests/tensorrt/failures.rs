//! Everything that goes wrong on a board: each ends with a sentence and an exit code, and the CPU goes on.

use super::{board, excon_edge, seal};
use std::fs;
use std::path::Path;

/// A mock that does something wrong, the exit code of `predict --engine tensorrt`, words that must be told.
type Case = (&'static str, i32, &'static str);

/// `--engine tensorrt` fails with its words; `auto` predicts on the CPU.
fn fails(folder: &Path, (mock, code, words): Case) {
    let run = excon_edge(folder, mock, &["predict", "tiny.excon", "photo.png", "--engine", "tensorrt"]).expect(code);
    assert!(run.stderr.contains(words) && run.stdout.is_empty(), "{mock}: expected `{words}` in {}", run.stderr);
    excon_edge(folder, mock, &["predict", "tiny.excon", "photo.png"]).expect(0);
}

#[test]
fn what_is_not_there_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    seal(folder, "tiny", true, "tensorrt", 1);
    fs::write(folder.join("photo.png"), super::tiny::png(&super::tiny::picture(7, 0.5))).unwrap();
    fails(folder, ("", 69, "excon-edge tensorrt setup"));
    fs::create_dir(folder.join("tensorrt")).unwrap();
    fs::write(folder.join("tensorrt/libexcon_tensorrt.so"), b"no library").unwrap();
    fails(folder, ("", 69, "excon-edge tensorrt setup"));
    excon_edge(folder, "", &["tensorrt", "doctor"]).expect(1);
}

#[test]
fn builds_that_fail_say_why_and_leave_nothing() {
    let Some(folder) = board() else { return };
    let folder = folder.path();
    seal(folder, "tiny", true, "tensorrt", 1);
    let cases: [Case; 7] = [
        ("devices=0", 69, "no CUDA-capable device is detected"),
        ("cuda=35", 69, "driver version is insufficient"),
        ("library=100700", 69, "compiled for TensorRT 10.3.0, and 10.7.0 is installed"),
        ("capability=5.3", 65, "excon convert --target tensorrt-fp16"),
        ("capability=6.2", 65, "compute capability 6.2"),
        ("parse=4", 70, "node "),
        ("build=memory", 70, "out of memory"),
    ];
    for case in cases {
        fails(folder, case);
        assert!(!folder.join("tensorrt/plans").exists(), "{}", case.0);
    }
    // The node is told by its name.
    let refused = excon_edge(folder, "parse=0", &["tensorrt", "build", "tiny.excon"]).expect(70).stderr;
    assert!(refused.contains("node x_q_node") || refused.contains("node w1_node"), "{refused}");
    for hang in ["build=hang", "slow=400"] {
        let late = excon_edge(folder, hang, &["tensorrt", "build", "tiny.excon", "--limit", "1"]).expect(70).stderr;
        assert!(late.contains("given up after"), "{late}");
    }
    let doctor = excon_edge(folder, "devices=0", &["tensorrt", "doctor"]).expect(1).stdout;
    assert!(doctor.contains("no CUDA-capable device"), "{doctor}");
}

#[test]
fn the_accelerator_takes_half_precision_alone() {
    let Some(folder) = board() else { return };
    let folder = folder.path();
    seal(folder, "tiny", true, "tensorrt", 1);
    seal(folder, "half", false, "tensorrt-fp16", 1);
    let build =
        |mock, bundle, code| excon_edge(folder, mock, &["tensorrt", "build", bundle, "--dla-core", "0"]).expect(code);
    assert!(build("dla=2", "tiny.excon", 65).stderr.contains("quantize–dequantize pairs"));
    assert!(build("dla=0", "half.excon", 70).stderr.contains("no deep-learning accelerator"));
    let plan = build("dla=2", "half.excon", 0).json()["plan"].clone();
    let [layers, on_it] = ["layers", "dla_layers"].map(|name| plan[name].as_u64().unwrap());
    assert!(0 < on_it && on_it < layers, "{plan}");
    // Who only opens it takes the plan as it was built.
    let status = excon_edge(folder, "dla=2", &["status", "half.excon"]).expect(0).json();
    assert_eq!(status["engine"], "tensorrt");
}

#[test]
fn engines_that_fail_are_left_for_the_cpu() {
    let Some(folder) = board() else { return };
    let folder = folder.path();
    seal(folder, "tiny", true, "tensorrt", 1);
    excon_edge(folder, "", &["tensorrt", "build", "tiny.excon"]).expect(0);
    let cases: [Case; 7] = [
        ("plan=refuse", 70, "Serialization assertion failed"),
        ("context=refuse", 70, "TensorRT makes no context"),
        ("enqueue=refuse", 70, "was not accepted"),
        ("stream=error", 70, "illegal memory access"),
        ("output=nan", 65, "golden input 0 gives NaN"),
        ("output=garbage", 65, "golden input 0 gives 0.75"),
        ("stream=hang", 70, "did not end in time"),
    ];
    cases.into_iter().for_each(|case| fails(folder, case));
    // Without a graph it runs kernel by kernel.
    let plain = excon_edge(folder, "capture=refuse", &["tensorrt", "build", "tiny.excon"]).expect(0).json();
    assert_eq!(plain["graph"], false);
    excon_edge(folder, "capture=refuse", &["predict", "tiny.excon", "photo.png", "--engine", "tensorrt"]).expect(0);
}

#[test]
fn a_cache_that_cannot_be_written_costs_a_build_and_is_told_once() {
    let Some(folder) = board() else { return };
    let folder = folder.path();
    seal(folder, "tiny", true, "tensorrt", 1);
    fs::write(folder.join("tensorrt/plans"), b"a file where the folder should be").unwrap();
    let run =
        excon_edge(folder, "", &["predict", "tiny.excon", "photo.png", "photo.png", "--engine", "tensorrt"]).expect(0);
    assert_eq!(run.stderr.matches("cannot be kept").count(), 1, "{}", run.stderr);
    assert_eq!(run.stdout.lines().count(), 2);
}
