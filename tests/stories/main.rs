//! User stories, end to end, through the two commands alone: the demo, one's own photographs, comparisons, real data sets, boards over ssh, and what
//! happens when something is wrong or cut off.
#![allow(clippy::unwrap_used, missing_docs)]

mod bad_input;
mod compare;
mod demo;
mod elsewhere;
mod emulated;
mod flash;
mod no_map;
mod own_photographs;
mod real_sets;
mod recipes;
mod resume;
#[path = "../../edge-runtime/tests/tiny/mod.rs"]
mod tiny;

use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What a command left.
pub struct Run {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Run {
    /// Fails with the whole transcript unless the exit code is `code`.
    pub fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, code, "stdout:\n{}\nstderr:\n{}", self.stdout, self.stderr);
        self
    }

    /// The one JSON object on stdout.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|e| panic!("{e} in\n{}", self.stdout))
    }
}

/// The workstation command, in `folder`.
pub fn excon(folder: &Path, arguments: &[&str]) -> Run {
    run(Path::new(env!("CARGO_BIN_EXE_excon")), folder, arguments)
}

/// The board's command, which cargo builds beside the other because its own package has tests.
pub fn excon_edge(folder: &Path, arguments: &[&str]) -> Run {
    run(&Path::new(env!("CARGO_BIN_EXE_excon")).with_file_name("excon-edge"), folder, arguments)
}

fn run(program: &Path, folder: &Path, arguments: &[&str]) -> Run {
    let output = command(program, folder, arguments).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Run { code: output.status.code().unwrap_or(-1), stdout: text(output.stdout), stderr: text(output.stderr) }
}

/// The workstation command, not yet started.
pub fn excon_command(folder: &Path, arguments: &[&str]) -> Command {
    command(Path::new(env!("CARGO_BIN_EXE_excon")), folder, arguments)
}

fn command(program: &Path, folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("EXCON_") && name != "EXCON_ISA") {
        command.env_remove(name);
    }
    command.args(arguments).current_dir(folder);
    command
}

/// Unpacks the shipped photographs into `folder` and returns their root.
pub fn photographs(folder: &Path) -> PathBuf {
    let archive = concat!(env!("CARGO_MANIFEST_DIR"), "/assets/trashnet/trashnet-64.tar.gz");
    let status = Command::new("tar").args(["xzf", archive, "-C"]).arg(folder).status().unwrap();
    assert!(status.success());
    folder.join("trashnet-64")
}

/// A class folder `own/CLASS/*.jpg` with the first `each` training photographs of three classes.
pub fn own_folder(folder: &Path, each: usize) -> PathBuf {
    let all = photographs(folder);
    let own = folder.join("own");
    for class in ["cardboard", "glass", "paper"] {
        std::fs::create_dir_all(own.join(class)).unwrap();
        let mut files: Vec<_> =
            std::fs::read_dir(all.join("train").join(class)).unwrap().map(|f| f.unwrap().path()).collect();
        files.sort();
        for file in &files[..each] {
            std::fs::copy(file, own.join(class).join(file.file_name().unwrap())).unwrap();
        }
    }
    own
}
