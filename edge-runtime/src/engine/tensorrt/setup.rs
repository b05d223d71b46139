//! Compiling the shim on the board: its text is part of this program, headers and libraries are the board's own.
//!
//! The result is opened before it is put in its place, so what stands there has been seen to load.

use super::api::Library;
use crate::{Error, Result};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// `shim.h`.
pub const HEADER: &str = include_str!("shim/shim.h");
/// `shim.cpp`.
pub const SOURCE: &str = include_str!("shim/shim.cpp");

/// Headers that have to be there, and the libraries with the package that brings either.
const HEADERS: [(&str, &str); 3] = [
    ("NvInfer.h", "libnvinfer-dev"),
    ("NvOnnxParser.h", "libnvonnxparsers-dev"),
    ("cuda_runtime_api.h", "cuda-cudart-dev (part of nvidia-jetpack)"),
];
const LIBRARIES: [(&str, &str); 3] = [
    ("nvinfer", "libnvinfer-dev"),
    ("nvonnxparser", "libnvonnxparsers-dev"),
    ("cudart", "cuda-cudart-dev (part of nvidia-jetpack)"),
];

/// Where the compiler and its input are.
#[derive(Debug, Clone)]
pub struct Sources {
    /// The C++ compiler.
    pub compiler: PathBuf,
    /// Folders of headers, searched in order.
    pub include: Vec<PathBuf>,
    /// Folders of libraries, searched in order.
    pub libraries: Vec<PathBuf>,
}

impl Sources {
    /// The places of JetPack and of NVIDIA's packages for workstations, behind those the caller names.
    pub fn standard(compiler: PathBuf, mut include: Vec<PathBuf>, mut libraries: Vec<PathBuf>) -> Self {
        let machine = std::env::consts::ARCH;
        include.extend(
            [
                format!("/usr/include/{machine}-linux-gnu"),
                "/usr/include".into(),
                "/usr/local/cuda/include".into(),
                format!("/usr/local/cuda/targets/{machine}-linux/include"),
                "/usr/local/tensorrt/include".into(),
                "/opt/tensorrt/include".into(),
            ]
            .map(PathBuf::from),
        );
        libraries.extend(
            [
                format!("/usr/lib/{machine}-linux-gnu"),
                "/usr/lib".into(),
                "/usr/local/cuda/lib64".into(),
                format!("/usr/local/cuda/targets/{machine}-linux/lib"),
                "/usr/local/tensorrt/lib".into(),
                "/opt/tensorrt/lib".into(),
            ]
            .map(PathBuf::from),
        );
        Self { compiler, include, libraries }
    }

    /// The command line that compiles `source` to `to`.
    ///
    /// # Errors
    /// [`Error::Unavailable`] naming the header or library that is missing, and the package that brings it.
    pub fn command(&self, source: &Path, to: &Path) -> Result<Command> {
        let missing = |what: &str, package: &str, places: &[PathBuf]| {
            let places: Vec<_> = places.iter().map(|p| p.display().to_string()).collect();
            let reason = format!(
                "{what} is in none of {}. Install {package}, or name its folder with --include or --lib",
                places.join(", ")
            );
            super::unavailable(reason)
        };
        let mut command = Command::new(&self.compiler);
        command.args(["-std=c++14", "-O2", "-fPIC", "-shared", "-Wno-deprecated-declarations"]);
        let mut used: Vec<&PathBuf> = Vec::new();
        for (header, package) in HEADERS {
            let folder = self.include.iter().find(|folder| folder.join(header).is_file());
            used.push(folder.ok_or_else(|| missing(header, package, &self.include))?);
        }
        used.dedup();
        for folder in used {
            // As system headers: their warnings are nobody's here.
            command.arg("-isystem").arg(folder);
        }
        let mut linked = Vec::new();
        for (library, package) in LIBRARIES {
            let found = self.libraries.iter().find_map(|folder| newest(folder, library));
            let found = found.ok_or_else(|| missing(&format!("lib{library}.so"), package, &self.libraries))?;
            if library == "nvonnxparser" {
                // Opened for a build alone, by its path: see the shim.
                command.arg(format!("-DEXCON_TRT_PARSER=\"{}\"", found.display()));
                continue;
            }
            if let Some(folder) = found.parent() {
                linked.push(format!("-Wl,-rpath,{}", folder.display()).into());
            }
            linked.push(found.into_os_string());
        }
        command.arg("-o").arg(to).arg(source).args(linked).args(["-ldl", "-pthread"]);
        Ok(command)
    }
}

/// `libNAME.so`, or of `libNAME.so.…` the one of the highest version.
fn newest(folder: &Path, name: &str) -> Option<PathBuf> {
    let plain = folder.join(format!("lib{name}.so"));
    if plain.is_file() {
        return Some(plain);
    }
    let prefix = format!("lib{name}.so.");
    let version = |path: &PathBuf| {
        let parts = path.file_name()?.to_str()?.strip_prefix(&prefix)?.split('.').map(|part| part.parse::<u32>().ok());
        parts.collect::<Option<Vec<_>>>()
    };
    let entries = fs::read_dir(folder).ok()?.flatten().map(|e| e.path());
    entries.filter_map(|path| Some((version(&path)?, path))).max().map(|(_, path)| path)
}

/// Compiles the shim, opens it, and puts it at `to`.
///
/// # Errors
/// [`Error::Unavailable`] when something is missing, it does not compile or cannot be loaded; [`Error::Write`] when the
/// folder cannot be written. What stood at `to` is untouched by any of them.
pub fn compile(sources: &Sources, to: &Path) -> Result<Library> {
    let failed = |source| Error::Write { path: to.into(), source };
    let folder = crate::file::folder(to);
    fs::create_dir_all(folder).map_err(failed)?;
    let work = tempfile::Builder::new().prefix(crate::file::PARTIAL).tempdir_in(folder).map_err(failed)?;
    let (source, made) = (work.path().join("shim.cpp"), work.path().join("shim.so"));
    fs::write(work.path().join("shim.h"), HEADER).and_then(|()| fs::write(&source, SOURCE)).map_err(failed)?;
    let mut command = sources.command(&source, &made)?;
    let output = command.output().map_err(|e| {
        let compiler = sources.compiler.display();
        super::unavailable(format!(
            "the compiler {compiler} cannot be started: {e}. Install it (package g++), or name one with --compiler"
        ))
    })?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let errors: Vec<&str> = said.lines().filter(|l| l.contains("error")).take(4).collect();
        let said = if errors.is_empty() { said.lines().take(4).collect() } else { errors };
        return Err(super::unavailable(format!(
            "the shim does not compile against these headers: {}. TensorRT 8.2 to 11 are supported",
            said.join("; ")
        )));
    }
    Library::open(&made).map_err(super::told)?;
    fs::rename(&made, to).map_err(failed)?;
    Library::open(to).map_err(super::told)
}
