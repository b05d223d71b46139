//! TensorRT without TensorRT: the real shim on a mock that computes, from the compiler to the command line. No test here
//! has seen a real engine; `real` loads NVIDIA's own library where it is given, and gets no further than its version.
#![allow(clippy::unwrap_used, missing_docs)]

#[path = "../tiny/mod.rs"]
mod tiny;

mod commands;
mod failures;
mod headers;
mod mock;
mod real;
mod versions;

use excon_edge::bundle::CalibrationSet;
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A bundle for a target, with pictures to fit constants on: its own predictions, one in seven wrong.
fn seal(folder: &Path, name: &str, int8: bool, target: &str, version: u64) -> PathBuf {
    let mut writer = tiny::made_for(target, int8, 60, version);
    let predictor = excon_edge::predictor::Predictor::assemble(tiny::parts(int8)).unwrap();
    let pictures: Vec<_> = (0..160).map(|i| predictor.resize(&tiny::picture(3_000 + i, 0.5))).collect();
    let predictions = predictor.predict_all(&pictures).unwrap();
    let label = |(i, class): (usize, usize)| if i % 7 == 3 { (class + 1) % tiny::CLASSES } else { class };
    let labels = predictions.iter().map(|p| p.class).enumerate().map(label).collect();
    let rgb = pictures.iter().flat_map(|p| p.rgb.clone()).collect();
    writer.calibration(&CalibrationSet { size: tiny::SIZE, rgb, labels, fit: 80 }).unwrap();
    let path = folder.join(format!("{name}.excon"));
    writer.seal(&path).unwrap();
    path
}

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

    /// The first line of data.
    fn json(&self) -> Value {
        serde_json::from_str(self.stdout.lines().next().unwrap_or_default()).unwrap()
    }
}

/// Runs `excon-edge … --root root` in a folder that holds TensorRT's, with a mock that does something wrong.
fn excon_edge(folder: &Path, mock: &str, arguments: &[&str]) -> Run {
    let mut command = Command::new(env!("CARGO_BIN_EXE_excon-edge"));
    command.args(arguments).args(["--root", "root", "--format", "json"]).current_dir(folder);
    command
        .env("EXCON_MOCK", mock)
        .env("EXCON_TENSORRT", "tensorrt")
        .env_remove("EXCON_STATE")
        .env_remove("EXCON_ENGINE");
    let output = command.output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Run { code: output.status.code().unwrap_or(-1), stdout: text(output.stdout), stderr: text(output.stderr) }
}

/// A folder with a set-up TensorRT and one picture.
fn board() -> Option<tempfile::TempDir> {
    let (folder, _) = mock::home()?;
    fs::write(folder.path().join("photo.png"), tiny::png(&tiny::picture(7, 0.5))).unwrap();
    Some(folder)
}
