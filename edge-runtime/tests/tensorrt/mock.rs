//! A board with the mock's TensorRT on it: headers and libraries in a folder, as JetPack would put them, and the shim
//! compiled against them by the library's own set-up.
#![allow(dead_code, missing_docs, clippy::unwrap_used)]

use excon_edge::engine::tensorrt::{Home, setup};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The version that most tests are on.
pub const VERSION: [u32; 3] = [10, 3, 0];

/// The mock's sources.
pub fn sources() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tensorrt/mock")
}

/// Whether a program starts.
pub fn is_there(program: &str) -> bool {
    Command::new(program).arg("--version").output().is_ok_and(|o| o.status.success())
}

/// Headers and libraries of a mocked TensorRT.
pub struct Board {
    pub include: PathBuf,
    pub lib: PathBuf,
    folder: tempfile::TempDir,
}

impl Board {
    /// Compiles the mock as a version, by a compiler.
    pub fn new(compiler: &str, version: [u32; 3]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let [include, lib] = ["include", "lib"].map(|name| folder.path().join(name));
        [&include, &lib].into_iter().for_each(|place| fs::create_dir(place).unwrap());
        for from in [sources(), sources().join("cuda")] {
            let files = fs::read_dir(from).unwrap().map(|e| e.unwrap().path());
            for header in files.filter(|p| p.extension().is_some_and(|e| e == "h")) {
                fs::copy(&header, include.join(header.file_name().unwrap())).unwrap();
            }
        }
        let [major, minor, patch] = version;
        let text = format!(
            "#pragma once\n#define NV_TENSORRT_MAJOR {major}\n#define NV_TENSORRT_MINOR {minor}\n#define NV_TENSORRT_PATCH {patch}\n"
        );
        fs::write(include.join("NvInferVersion.h"), text).unwrap();
        let made = lib.join("libnvinfer.so");
        let mut command = Command::new(compiler);
        command.args([
            "-std=c++17",
            "-O1",
            "-fPIC",
            "-shared",
            "-Wall",
            "-Wextra",
            "-Werror",
            "-Wl,-soname,libnvinfer.so",
        ]);
        // Each version under its own name: two of one name in a process would be one.
        let name = format!("libnvinfer.so.{major}.{minor}");
        command.arg(format!("-Wl,-soname,{name}")).arg("-I").arg(&include).arg("-o").arg(&made);
        run(command.args(["tensorrt.cpp", "cuda.cpp", "network.cpp"].map(|name| sources().join(name))));
        for name in ["libnvonnxparser.so", "libcudart.so", &name] {
            std::os::unix::fs::symlink("libnvinfer.so", lib.join(name)).unwrap();
        }
        Self { include, lib, folder }
    }

    /// What set-up needs to know of it.
    pub fn sources(&self, compiler: &str) -> setup::Sources {
        setup::Sources {
            compiler: compiler.into(),
            include: vec![self.include.clone()],
            libraries: vec![self.lib.clone()],
        }
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }
}

/// Runs a command that must succeed; what it said on stdout.
pub fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}\n{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// A folder with a shim on the usual mock; none, with a message, where no compiler is.
pub fn home() -> Option<(tempfile::TempDir, Home)> {
    static SHIM: OnceLock<Option<(Board, PathBuf)>> = OnceLock::new();
    let shim = SHIM.get_or_init(|| {
        if !is_there("c++") {
            eprintln!("skipped: there is no C++ compiler here (c++)");
            return None;
        }
        let board = Board::new("c++", VERSION);
        let shim = board.path().join("shim.so");
        setup::compile(&board.sources("c++"), &shim).unwrap();
        Some((board, shim))
    });
    let (_, shim) = shim.as_ref()?;
    let folder = tempfile::tempdir().unwrap();
    let home = Home::at(folder.path().join("tensorrt"));
    fs::create_dir(home.folder()).unwrap();
    fs::copy(shim, home.shim()).unwrap();
    Some((folder, home))
}
