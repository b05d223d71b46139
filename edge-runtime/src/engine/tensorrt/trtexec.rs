//! The second builder: NVIDIA's `trtexec`, which JetPack brings, as a command of its own. It serves where the library's
//! builder runs out of memory beside this program, and to compare with.
//!
//! Its flags follow from the same options and versions as the library's build; its output is only read for its errors.

use super::api::{BuildOptions, Fault, FaultKind, Version};
use super::master::Master;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Where JetPack puts it.
const PLACE: &str = "/usr/src/tensorrt/bin/trtexec";

/// `trtexec` in the search path, or where JetPack puts it.
pub fn find() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut places = std::env::split_paths(&path).map(|folder| folder.join("trtexec"));
    places.find(|p| p.is_file()).or_else(|| Some(PathBuf::from(PLACE)).filter(|p| p.is_file()))
}

/// The arguments that build `onnx` to `plan`.
pub fn arguments(onnx: &Path, plan: &Path, master: &Master, options: &BuildOptions, version: Version) -> Vec<OsString> {
    let flag = |name: &str, value: &Path| {
        let mut flag = OsString::from(name);
        flag.push(value);
        flag
    };
    let at_least = |major, minor| (version[0], version[1]) >= (major, minor);
    let mut all = vec![flag("--onnx=", onnx), flag("--saveEngine=", plan), "--noTF32".into()];
    all.push(if at_least(8, 6) { "--skipInference" } else { "--buildOnly" }.into());
    if options.int8 && version[0] < 11 {
        all.push("--int8".into());
    }
    if options.half && version[0] < 11 {
        all.push("--fp16".into());
        if at_least(8, 4) {
            let exact = |kind: &str| {
                let names: Vec<String> = master.head.iter().map(|name| format!("{name}:{kind}")).collect();
                names.join(",")
            };
            all.push("--precisionConstraints=obey".into());
            all.push(format!("--layerPrecisions={}", exact("fp32")).into());
            all.push(format!("--layerOutputTypes={}", exact("fp32")).into());
        }
    }
    if let Some(core) = options.dla_core {
        all.push(format!("--useDLACore={core}").into());
        all.push("--allowGPUFallback".into());
    }
    if let Some(bytes) = options.workspace {
        let mib = bytes.div_ceil(1 << 20);
        let flag = if at_least(8, 4) { format!("--memPoolSize=workspace:{mib}") } else { format!("--workspace={mib}") };
        all.push(flag.into());
    }
    all
}

/// Builds with the program at `trtexec`, within `limit`; `tick` hears how long it has been at it.
///
/// # Errors
/// [`FaultKind::Build`] with the program's own errors, [`FaultKind::Timeout`].
pub fn build(
    trtexec: &Path,
    master: &Master,
    options: &BuildOptions,
    version: Version,
    limit: Duration,
    tick: &mut dyn FnMut(Duration) -> bool,
) -> Result<Vec<u8>, Fault> {
    let fail = |reason: String| Fault::new(FaultKind::Build, reason);
    let broken = |e: std::io::Error| fail(format!("trtexec: {e}"));
    let work = tempfile::tempdir().map_err(broken)?;
    let [onnx, plan, log] = ["model.onnx", "model.plan", "log"].map(|name| work.path().join(name));
    fs::write(&onnx, &master.bytes).map_err(broken)?;
    let out = fs::File::create(&log).map_err(broken)?;
    let err = out.try_clone().map_err(broken)?;
    let mut command = Command::new(trtexec);
    command.args(arguments(&onnx, &plan, master, options, version));
    let started = Instant::now();
    let mut child = command.stdin(Stdio::null()).stdout(out).stderr(err).spawn().map_err(broken)?;
    let status = loop {
        if let Some(status) = child.try_wait().map_err(broken)? {
            break status;
        }
        let late = started.elapsed() > limit;
        if late || !tick(started.elapsed()) {
            let _ = child.kill();
            let _ = child.wait();
            let kind = if late { FaultKind::Timeout } else { FaultKind::Cancelled };
            return Err(Fault::new(kind, format!("trtexec was stopped after {} s", started.elapsed().as_secs())));
        }
        std::thread::sleep(Duration::from_millis(50));
    };
    let bytes = fs::read(&plan).unwrap_or_default();
    if status.success() && !bytes.is_empty() {
        return Ok(bytes);
    }
    let said = fs::read(&log).unwrap_or_default();
    let said = String::from_utf8_lossy(&said);
    let errors: Vec<&str> = said.lines().filter(|l| l.contains("[E]")).collect();
    let lines = if errors.is_empty() { said.lines().rev().take(3).collect() } else { errors };
    Err(fail(format!("trtexec ended with {status}: {}", lines.into_iter().take(3).collect::<Vec<_>>().join("; "))))
}
