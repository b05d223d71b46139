//! `status`: what is installed, what the bundle holds, how the monitor stands, and what is promised under which conditions.

use super::output::{BAD, BOLD, GOOD, Output, WATCH, paint, percent, power};
use super::place::{self, ACTIVE, EngineArgs, RootArgs};
use super::watch::{named, observed};
use super::{Failure, Verdict};
use excon_edge::accuracy::{Accuracy, Observed};
use excon_edge::bundle::{Bundle, Manifest, Precision};
use excon_edge::session::{Overrides, Session};
use excon_edge::shift::{Alarm, Likeness, Promise};
use excon_edge::slot::{self, Slot, Standing};
use serde::Serialize;
use std::path::{Path, PathBuf};

#[derive(Debug, clap::Args)]
#[command(
    after_help = "The bundle is opened, verified and run on its golden inputs first. Exit code 1 while an alarm stands.

Examples:
  excon-edge status
  excon-edge status active --state /var/lib/excon/state --format json
  excon-edge status trashnet.excon"
)]
pub struct Status {
    /// The bundle: a `.excon` file, a folder with its members, or `active` for the installed one
    #[arg(value_name = "BUNDLE", default_value = ACTIVE)]
    bundle: PathBuf,
    #[command(flatten)]
    root: RootArgs,
    #[command(flatten)]
    engine: EngineArgs,
    /// Folder in which `watch` keeps its monitor
    #[arg(long, value_name = "DIR", env = "EXCON_STATE")]
    state: Option<PathBuf>,
}

#[derive(Serialize)]
struct Line<'a> {
    schema: &'static str,
    /// Architecture of this program.
    machine: &'static str,
    tool: &'static str,
    installed: &'a slot::State,
    pinned_keys: &'a [&'a str],
    #[serde(flatten)]
    bundle: Option<BundleLine<'a>>,
}

#[derive(Serialize)]
struct BundleLine<'a> {
    digest: &'a str,
    signed_by: Option<&'a str>,
    manifest: &'a Manifest,
    engine: &'a str,
    self_test: &'static str,
    monitor: Option<MonitorState<'a>>,
    promise: &'a Promise,
}

#[derive(Serialize)]
struct MonitorState<'a> {
    effective_frames: u64,
    raw_frames: u64,
    log_r: f64,
    log_limit: f64,
    alarm: Option<&'a Alarm>,
    looks_like: Vec<Likeness>,
    self_test_failures: u64,
    unreadable: u64,
    sensor_faults: u64,
    accuracy: Accuracy,
    labels: Option<Observed>,
}

pub fn run(settings: &Status, output: &mut Output) -> Result<Verdict, Failure> {
    let slots = settings.root.slots();
    let installed = slots.state()?;
    let trust = slots.trust()?;
    let pinned_keys = trust.names();
    let asked = settings.bundle == Path::new(ACTIVE);
    if asked || installed != slot::State::default() {
        slot_lines(output, &settings.root.root, &installed, &pinned_keys)?;
    }
    let line = |bundle| Line {
        schema: "excon.status/1",
        machine: std::env::consts::ARCH,
        tool: env!("CARGO_PKG_VERSION"),
        installed: &installed,
        pinned_keys: &pinned_keys,
        bundle,
    };
    if asked && installed.active.is_none() {
        output.json(&line(None))?;
        output.text("next: excon-edge install FILE.excon")?;
        return Ok(Verdict::Done);
    }
    let mut bundle = place::look(&settings.bundle, &settings.root)?;
    let predictor = settings.engine.opener(&settings.root).open(&mut bundle)?;
    let engine = predictor.engine().name();
    let folder = place::state(&settings.bundle, settings.state.as_deref(), &bundle);
    let session = Session::open(&bundle, engine, folder.as_deref(), Overrides::default())?;
    let (monitor, about) = (&session.monitor, &session.about);
    let promise = session.promise(session.is_saved());
    let saved = session.is_saved().then(|| MonitorState {
        effective_frames: monitor.effective_frames(),
        raw_frames: monitor.raw_frames(),
        log_r: monitor.log_r(),
        log_limit: about.mean_time.ln(),
        alarm: monitor.alarm(),
        looks_like: session.looks_like(),
        self_test_failures: monitor.self_test_failures(),
        unreadable: about.unreadable,
        sensor_faults: about.faults,
        accuracy: session.accuracy(),
        labels: session.observed(),
    });
    if output.human() {
        describe(output, &bundle, engine)?;
        monitor_lines(output, &bundle, saved.as_ref())?;
        promise_lines(output, &promise)?;
    }
    let verdict = if monitor.alarm().is_some() { Verdict::No } else { Verdict::Done };
    output.json(&line(Some(BundleLine {
        digest: &bundle.digest,
        signed_by: bundle.signed.by.as_deref(),
        manifest: &bundle.manifest,
        engine,
        self_test: "passed",
        monitor: saved,
        promise: &promise,
    })))?;
    Ok(verdict)
}

/// The slots, the trial, the keys, and what happened last.
fn slot_lines(output: &mut Output, root: &Path, state: &slot::State, keys: &[&str]) -> std::io::Result<()> {
    for slot in Slot::ALL {
        let line = match state.record(slot) {
            None => "empty".into(),
            Some(record) => {
                let standing = match record.standing {
                    Standing::Trial => paint(WATCH, "on trial"),
                    Standing::Committed => paint(GOOD, "committed"),
                    Standing::Failed => paint(BAD, "failed its trial"),
                };
                let active = if state.active == Some(slot) { ", active" } else { "" };
                let signed = record.signed_by.as_ref().map_or(String::new(), |key| format!(", signed by {key}"));
                format!("{} version {}{active}, {standing}{signed}", record.name, record.version)
            }
        };
        output.text(format_args!("{:<12}  {line}", format!("slot {slot}")))?;
    }
    if let Some(trial) = state.trial {
        let (passed, needed) = (trial.passed, trial.needed);
        output.text(format_args!("{:<12}  {passed} of {needed} predictions passed", "trial"))?;
    }
    let keys = if keys.is_empty() { "none pinned: any bundle is accepted".into() } else { keys.join(", ") };
    output.text(format_args!("{:<12}  {keys}", "keys"))?;
    output.text(format_args!("{:<12}  {}; {}", "last", state.last, root.display()))
}

fn describe(output: &mut Output, bundle: &Bundle, engine: &str) -> std::io::Result<()> {
    let manifest = &bundle.manifest;
    let calibration = &manifest.calibration;
    let precision = match manifest.precision {
        Precision::Float => "float",
        Precision::Int8 => "int8, float head",
        Precision::Mixed => "int8, float head and some layers in float",
    };
    let [_, height, width] = manifest.network.input;
    let provenance = &manifest.provenance;
    let mut row = |name: &str, value: String| output.text(format_args!("{name:<12}  {value}"));
    row("model", format!("{} version {}, for {}", paint(BOLD, &manifest.name), manifest.version, manifest.target))?;
    row("digest", bundle.digest[..16].to_string())?;
    row("network", format!("{}, {width}×{height} RGB, {precision}", provenance.network))?;
    row("labels", manifest.labels.join(", "))?;
    row("trained", format!("{} on {}, seed {}", provenance.recipe, provenance.data, provenance.seed))?;
    row("sealed by", provenance.tool.clone())?;
    row("engine", format!("{engine}; golden inputs and completeness {}", paint(GOOD, "passed")))?;
    let fitted =
        if calibration.engine == engine { String::new() } else { format!(", fitted on {}", calibration.engine) };
    row("calibrated", format!("{} from {} pictures{fitted}", calibration.scaling().words(), calibration.pictures))?;
    if let Some(conformal) = &calibration.conformal {
        row(
            "sets",
            format!("cover the truth {} of the time, from {} pictures", conformal.words(), conformal.pictures),
        )?;
    }
    if let Some(a) = &calibration.abstention {
        let (least, risk, answered) = (percent(a.confidence), percent(a.risk), percent(a.answered));
        row(
            "answers",
            format!("from {least} on, wrong at most {risk} of the time; {answered} of {} pictures", a.pictures),
        )?;
    }
    for item in &manifest.budget {
        let verdict = if item.met { paint(GOOD, "met") } else { paint(BAD, "not met") };
        let (measured, allowed) = (item.measured, item.allowed);
        row("budget", format!("{} {measured:.4} of {allowed:.4} on {} pictures: {verdict}", item.name, item.pictures))?;
    }
    for (name, file) in &manifest.files {
        row("member", format!("{name}, {} bytes", file.size))?;
    }
    Ok(())
}

fn monitor_lines(output: &mut Output, bundle: &Bundle, saved: Option<&MonitorState>) -> std::io::Result<()> {
    let Some(state) = saved else {
        return output.text(format_args!("{:<12}  no saved state; `watch --state DIR` keeps one", "monitor"));
    };
    let word = match state.alarm {
        Some(alarm) => paint(BAD, format_args!("shift since frame {}: {}", alarm.raw_frame, named(alarm))),
        None if state.log_r >= 0.5 * state.log_limit => paint(WATCH, "watching"),
        None => paint(GOOD, "healthy"),
    };
    output.text(format_args!("{:<12}  {word}", "monitor"))?;
    if let Some(looks) = Likeness::words(&state.looks_like) {
        output.text(format_args!("{:<12}  {looks}", "looks like"))?;
    }
    let frames = format!("{} raw, {} effective", state.raw_frames, state.effective_frames);
    output.text(format_args!("{:<12}  {frames}; {} unreadable", "frames", state.unreadable))?;
    output.text(format_args!("{:<12}  {} of {}", "evidence", power(state.log_r), power(state.log_limit)))?;
    let accuracy = match state.alarm {
        Some(alarm) => state.accuracy.under(alarm),
        None => state.accuracy.words(),
    };
    output.text(format_args!("{:<12}  {accuracy}", "accuracy"))?;
    let promised = bundle.manifest.calibration.conformal.as_ref().map(|c| 1.0 - c.alpha);
    for line in state.labels.iter().flat_map(|labels| observed(labels, promised)) {
        output.text(format_args!("{:<12}  {line}", "labels"))?;
    }
    Ok(())
}

fn promise_lines(output: &mut Output, promise: &Promise) -> std::io::Result<()> {
    output.text(format_args!("{:<12}  {}", "promise", promise.sentence))?;
    for condition in &promise.conditions {
        output.text(format_args!("{:<12}  · {condition}", ""))?;
    }
    Ok(())
}
