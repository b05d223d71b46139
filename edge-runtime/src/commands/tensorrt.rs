//! `tensorrt`: the shim compiled for this board, what stands in its way, and engines built with it.

use super::output::{self, BOLD, GOOD, Output, paint};
use super::place::{self, EngineArgs, RootArgs};
use super::{Failure, Verdict, doctor};
use excon_edge::board::{Finding, Grade};
use excon_edge::engine::tensorrt::api::{Device, Library, dotted};
use excon_edge::engine::tensorrt::plan::{About, Found};
use excon_edge::engine::tensorrt::{How, setup, trtexec};
use excon_edge::probability::Scaling;
use excon_edge::{Error, refit};
use serde::Serialize;
use std::path::PathBuf;
use std::time::Duration;

#[derive(Debug, clap::Args)]
#[command(
    after_help = "TensorRT is opened at run time, through a shim that is compiled once on the board. Nothing of it is needed to
start this program, and the CPU engine works without.

Examples:
  excon-edge tensorrt setup
  excon-edge tensorrt build active
  excon-edge tensorrt doctor active"
)]
pub struct Tensorrt {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Compile the shim against this board's TensorRT and CUDA
    Setup(Setup),
    /// Look at everything TensorRT needs here: what is missing, why it matters, what mends it
    Doctor(Doctor),
    /// Build a bundle's engine, prove it on the golden inputs, and fit the constants on it
    Build(Build),
}

#[derive(Debug, clap::Args)]
struct Place {
    #[command(flatten)]
    root: RootArgs,
    /// Folder of TensorRT's shim and plans [default: ROOT/tensorrt]
    #[arg(long, value_name = "DIR", env = "EXCON_TENSORRT", hide_env_values = true)]
    tensorrt: Option<PathBuf>,
}

impl Place {
    fn engine(&self) -> EngineArgs {
        EngineArgs { engine: excon_edge::opener::Choice::TensorRt, tensorrt: self.tensorrt.clone() }
    }
}

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Looked for are NvInfer.h, NvOnnxParser.h, cuda_runtime_api.h and their libraries, where JetPack and NVIDIA's
packages put them. TensorRT 8.2 to 11 are supported. Run it again after an update of TensorRT.

Examples:
  sudo excon-edge tensorrt setup
  excon-edge tensorrt setup --include ~/TensorRT/include --lib ~/TensorRT/lib --tensorrt ~/.excon-tensorrt"
)]
struct Setup {
    #[command(flatten)]
    place: Place,
    /// A folder of headers, searched before the usual ones; may be given again
    #[arg(long, value_name = "DIR")]
    include: Vec<PathBuf>,
    /// A folder of libraries, searched before the usual ones; may be given again
    #[arg(long, value_name = "DIR")]
    lib: Vec<PathBuf>,
    /// The C++ compiler
    #[arg(long, value_name = "PROGRAM", default_value = "c++", env = "CXX", hide_env_values = true)]
    compiler: PathBuf,
}

#[derive(Debug, clap::Args)]
#[command(after_help = "Nothing is changed, and no engine is built or run. Exit code 1 when TensorRT will not work.

Example:
  excon-edge tensorrt doctor active")]
struct Doctor {
    #[command(flatten)]
    place: Place,
    /// Also look at the plan of this bundle: a `.excon` file, a folder with its members, or `active`
    #[arg(value_name = "BUNDLE")]
    bundle: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
#[command(
    after_help = "A plan that is right for this bundle, device, driver and TensorRT is used as it is, unless --force. Temperature,
prediction sets and the shift reference are fitted on the built engine from the pictures that the bundle carries
(excon convert --ship-calibration), and kept beside it as NAME.fitted.json.

Examples:
  excon-edge tensorrt build active
  excon-edge tensorrt build trashnet.excon --dla-core 0
  excon-edge tensorrt build trashnet.excon --trtexec --workspace 256"
)]
struct Build {
    #[command(flatten)]
    place: Place,
    /// The bundle: a `.excon` file, a folder with its members, or `active` for the installed one
    #[arg(value_name = "BUNDLE")]
    bundle: PathBuf,
    /// Run what it can on this deep-learning accelerator, the rest on the GPU; float networks only
    #[arg(long, value_name = "N")]
    dla_core: Option<u32>,
    /// Build with NVIDIA's trtexec: the one in the search path or JetPack's, or the one named
    #[arg(long, value_name = "PROGRAM", num_args = 0..=1, default_missing_value = "")]
    trtexec: Option<PathBuf>,
    /// Memory that the builder may try kernels with
    #[arg(long, value_name = "MIB", value_parser = clap::value_parser!(u64).range(1..=65_536))]
    workspace: Option<u64>,
    /// Longest time the build may take
    #[arg(long, value_name = "SECONDS", default_value_t = 3600, value_parser = clap::value_parser!(u64).range(1..))]
    limit: u64,
    /// Build even where a plan is there
    #[arg(long)]
    force: bool,
}

#[derive(Serialize)]
struct SetupLine<'a> {
    schema: &'static str,
    shim: String,
    tensorrt: String,
    device: Option<&'a Device>,
    /// Why no device can be used.
    trouble: Option<String>,
}

#[derive(Serialize)]
struct DoctorLine<'a> {
    schema: &'static str,
    findings: &'a [Finding],
}

#[derive(Serialize)]
struct BuildLine<'a> {
    schema: &'static str,
    name: &'a str,
    version: u64,
    digest: &'a str,
    /// SHA-256 of the plan.
    engine: &'a str,
    plan: &'a About,
    graph: bool,
    self_test: &'static str,
    /// Engine the constants in use were fitted on.
    fitted_on: &'a str,
    #[serde(flatten)]
    scaling: Scaling,
    fitted: Option<String>,
}

pub fn run(settings: &Tensorrt, output: &mut Output) -> Result<Verdict, Failure> {
    match &settings.command {
        Command::Setup(settings) => set_up(settings, output),
        Command::Doctor(settings) => look(settings, output),
        Command::Build(settings) => build(settings, output),
    }
}

fn set_up(settings: &Setup, output: &mut Output) -> Result<Verdict, Failure> {
    let home = settings.place.engine().home(&settings.place.root);
    let sources = setup::Sources::standard(settings.compiler.clone(), settings.include.clone(), settings.lib.clone());
    let library = setup::compile(&sources, &home.shim())?;
    let device = library.device(0);
    output.json(&SetupLine {
        schema: "excon.tensorrt-setup/1",
        shim: home.shim().display().to_string(),
        tensorrt: dotted(library.version()),
        device: device.as_ref().ok(),
        trouble: device.as_ref().err().map(|fault| fault.reason.clone()),
    })?;
    output.text(format_args!("{} for TensorRT {}", home.shim().display(), dotted(library.version())))?;
    match device {
        Ok(device) => {
            output.text(describe(&device))?;
            output.text(format_args!("next: {}", paint(BOLD, "excon-edge tensorrt build BUNDLE")))?;
            Ok(Verdict::Done)
        }
        Err(fault) => {
            output::note(format_args!("the shim loads, and no device can be used: {}", fault.reason));
            Ok(Verdict::No)
        }
    }
}

/// `Orin (compute capability 8.7), driver 12.2, 7620 MiB, 8-bit integers`.
fn describe(device: &Device) -> String {
    let [major, minor] = device.capability;
    let driver = format!("{}.{}", device.driver / 1000, device.driver / 10 % 100);
    let int8 = if device.has_int8() { "8-bit integers" } else { "no 8-bit integers" };
    format!(
        "{} (compute capability {major}.{minor}), driver {driver}, {} MiB, {int8}",
        device.name,
        device.memory >> 20
    )
}

fn build(settings: &Build, output: &mut Output) -> Result<Verdict, Failure> {
    let engine = settings.place.engine();
    let mut bundle = place::look(&settings.bundle, &settings.place.root)?;
    let program = match &settings.trtexec {
        Some(named) if named.as_os_str().is_empty() => {
            Some(
                trtexec::find().ok_or_else(|| Error::Unavailable {
                    engine: "tensorrt".into(),
                    reason:
                        "trtexec is neither in the search path nor where JetPack puts it. Name it: --trtexec PROGRAM"
                            .into(),
                })?,
            )
        }
        named => named.clone(),
    };
    let how = How {
        trtexec: program,
        dla_core: settings.dla_core,
        workspace: settings.workspace.map(|mib| mib << 20),
        limit: Duration::from_secs(settings.limit),
    };
    let opener = engine.opener(&settings.place.root).building(how);
    let opened = opener.on_tensorrt(&mut bundle, settings.force)?;
    let path = refit::beside(&bundle.path);
    opener.keep(&opened, &path);
    let Some(built) = &opened.tensorrt else { return Ok(Verdict::No) };
    let (manifest, about) = (&bundle.manifest, built.about());
    let calibration = &manifest.calibration;
    output.json(&BuildLine {
        schema: "excon.tensorrt-build/1",
        name: &manifest.name,
        version: manifest.version,
        digest: &bundle.digest,
        engine: built.digest(),
        plan: about,
        graph: built.has_graph(),
        self_test: "passed",
        fitted_on: &calibration.engine,
        scaling: calibration.scaling(),
        fitted: opened.refit.as_ref().map(|_| path.display().to_string()),
    })?;
    let mut row = |name: &str, value: String| output.text(format_args!("{name:<12}  {value}"));
    row("model", format!("{} version {}", paint(BOLD, &manifest.name), manifest.version))?;
    let key = &about.key;
    row("built for", format!("{}, TensorRT {}", key.device, dotted(key.tensorrt)))?;
    let how = format!("{:.1} s by {}, {} layers", about.seconds, about.builder, about.layers);
    row("build", if key.dla_core.is_some() { format!("{how}, {} on the accelerator", about.dla_layers) } else { how })?;
    row("replay", if built.has_graph() { "one CUDA graph" } else { "kernel by kernel" }.into())?;
    row("self-test", format!("golden inputs and completeness {}", paint(GOOD, "passed")))?;
    row("calibrated", format!("{}, fitted on {}", calibration.scaling().words(), calibration.engine))?;
    let next = format!("excon-edge bench {} --engine tensorrt", settings.bundle.display());
    output.text(format_args!("next: {}", paint(BOLD, next)))?;
    Ok(Verdict::Done)
}

fn look(settings: &Doctor, output: &mut Output) -> Result<Verdict, Failure> {
    let home = settings.place.engine().home(&settings.place.root);
    let mut findings = Vec::new();
    let mut find = |grade, subject: &str, found: String, why: &str, mend: &str| {
        let (why, mend) = if grade == Grade::Good { ("", "") } else { (why, mend) };
        findings.push(Finding { subject: subject.into(), grade, found, why: why.into(), mend: mend.into() });
    };
    let (set_up, cpu) = ("excon-edge tensorrt setup", "the CPU engine works without");
    let opened = match home.is_set_up() {
        true => Library::open(&home.shim()).map_err(|fault| fault.reason),
        false => Err(format!("{} is not there", home.shim().display())),
    };
    match &opened {
        Err(reason) => find(Grade::Bad, "shim", reason.clone(), cpu, set_up),
        Ok(library) => {
            find(Grade::Good, "shim", library.path().display().to_string(), "", "");
            let (found, compiled) = (library.version(), library.compiled_for());
            let grade = if found == compiled { Grade::Good } else { Grade::Notice };
            let found = format!("{}, shim compiled for {}", dotted(found), dotted(compiled));
            find(grade, "TensorRT", found, "small updates usually fit, and may not", set_up);
        }
    }
    let ready = opened.is_ok().then(|| home.ready());
    match &ready {
        None => {}
        Some(Err(error)) => find(
            Grade::Bad,
            "device",
            error.to_string(),
            cpu,
            "sudo apt-get install nvidia-jetpack; a container needs --runtime nvidia",
        ),
        Some(Ok(ready)) => {
            let grade = if ready.device.has_int8() { Grade::Good } else { Grade::Notice };
            let why = "networks of 8-bit integers cannot be built for it";
            find(grade, "device", describe(&ready.device), why, "excon convert --target tensorrt-fp16");
        }
    }
    if let (Some(Ok(ready)), Some(path)) = (&ready, &settings.bundle) {
        let bundle = place::look(path, &settings.place.root)?;
        let again = format!("excon-edge tensorrt build {}", path.display());
        let why = "without a plan `auto` takes the CPU";
        match ready.job(&bundle) {
            Err(error) => find(Grade::Bad, "plan", error.to_string(), why, "seal a bundle for this device"),
            Ok(job) => match ready.cached(&home, &job, None) {
                Found::Absent => find(Grade::Notice, "plan", "none".into(), why, &again),
                Found::Stale(reason) => find(Grade::Notice, "plan", reason, why, &again),
                Found::Valid(plan) => {
                    find(Grade::Good, "plan", format!("{} bytes by {}", plan.bytes.len(), plan.about.builder), "", "");
                    let fitted = refit::Refit::read(&refit::beside(&bundle.path), &bundle.digest, &plan.digest());
                    match fitted {
                        Ok(Some(_)) => find(Grade::Good, "constants", "fitted on this plan".into(), "", ""),
                        other => {
                            let found = match other {
                                Err(error) => error.to_string(),
                                Ok(_) => format!("fitted on {}", bundle.manifest.calibration.engine),
                            };
                            find(
                                Grade::Notice,
                                "constants",
                                found,
                                "the alarm's promise does not hold on TensorRT",
                                &again,
                            );
                        }
                    }
                }
            },
        }
    }
    let program = trtexec::find();
    let found = program.map_or("not found; the library's own builder serves".into(), |p| p.display().to_string());
    find(Grade::Good, "trtexec", found, "", "");
    output.json(&DoctorLine { schema: "excon.tensorrt-doctor/1", findings: &findings })?;
    doctor::print(output, &findings)
}
