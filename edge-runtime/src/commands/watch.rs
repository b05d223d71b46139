//! `watch`: frames of a folder in order of name through predictor and monitor, until the folder ends.

use super::monitor::MonitorArgs;
use super::output::{self, BAD, BOLD, Output, paint, power};
use super::place::BundleArgs;
use super::{Failure, Verdict};
use excon_edge::image;
use excon_edge::predictor::{Prediction, Predictor};
use excon_edge::session::Session;
use excon_edge::shift::{Alarm, Channel, ChannelReading, Observation, Promise, State};
use excon_edge::{Error, Result};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Frames between two saves while nothing changes: what a power cut can cost is this much work, done again.
const SAVE_EVERY: u64 = 64;

#[derive(Debug, clap::Args)]
#[command(after_help = "Frames are taken in order of name, so time stamps make good names. With --state, a second run
goes on where the first stopped and takes only later names. The alarm stands until `acknowledge`.

Examples:
  excon-edge watch trashnet.excon camera/ --state /var/lib/excon
  excon-edge watch trashnet.excon photos/ --independent --format json | jq .state")]
pub struct Watch {
    #[command(flatten)]
    bundle: BundleArgs,
    /// Folder of JPEG or PNG frames
    folder: PathBuf,
    #[command(flatten)]
    monitor: MonitorArgs,
}

#[derive(Serialize)]
struct Line<'a> {
    schema: &'static str,
    picture: &'a str,
    label: &'a str,
    confidence: f64,
    #[serde(flatten)]
    observation: &'a Observation,
}

#[derive(Serialize)]
struct Summary<'a> {
    schema: &'static str,
    frames: u64,
    unreadable: u64,
    sensor_faults: u64,
    effective_frames: u64,
    log_r: f64,
    log_limit: f64,
    alarm: Option<&'a Alarm>,
    slow_drift: bool,
    self_test_failures: u64,
    channels: &'a [ChannelReading],
    promise: Promise,
    state_file: Option<String>,
}

pub fn run(settings: &Watch, output: &mut Output) -> std::result::Result<Verdict, Failure> {
    let (bundle, mut checks) = settings.bundle.open()?;
    let predictor = Predictor::from_bundle(&bundle)?;
    let engine = predictor.engine().name();
    let state = settings.bundle.state(settings.monitor.state.as_deref(), &bundle);
    let mut session = Session::open(&bundle, engine, state.as_deref(), settings.monitor.overrides())?;
    let place = std::fs::canonicalize(&settings.folder);
    let place = place.map_err(|source| Error::Read { path: settings.folder.clone(), source })?;
    let place = place.display().to_string();
    if session.about.folder.as_deref() != Some(&place) {
        (session.about.folder, session.about.last) = (Some(place), None);
    }
    let names = frames(&settings.folder)?;
    let done = session.about.last.clone();
    let names: Vec<_> = names.into_iter().filter(|(name, _)| done.as_ref().is_none_or(|d| name > d)).collect();
    // Told once, before any work: a place that cannot be written is no reason to lose a day's frames.
    session.save()?;
    output::note(format_args!(
        "watching {} frames of {} with {} version {}",
        names.len(),
        settings.folder.display(),
        bundle.manifest.name,
        bundle.manifest.version
    ));

    let bar = progress(names.len(), output.human());
    let mut last: Option<Observation> = None;
    for (count, (name, path)) in names.iter().enumerate() {
        bar.inc(1);
        let observation = match look(&predictor, &mut session, path) {
            Ok((prediction, observation)) => {
                checks.see(&prediction, engine)?;
                bar.suspend(|| report(output, name, &prediction, &observation, last.as_ref()))?;
                Some(observation)
            }
            // A frame that cannot be read is the camera's trouble, not the end of the watch.
            Err(error @ (Error::Picture { .. } | Error::Read { .. })) => {
                session.about.unreadable += 1;
                bar.suspend(|| output::trouble(&error));
                None
            }
            Err(error) => return Err(error.into()),
        };
        session.about.last = Some(name.clone());
        let changed = observation.as_ref().is_some_and(|new| last.as_ref().is_none_or(|old| old.state != new.state));
        last = observation.or(last);
        if changed || (count as u64 + 1).is_multiple_of(SAVE_EVERY) {
            session.save()?;
        }
    }
    bar.finish_and_clear();
    session.save()?;
    conclude(output, settings, &session, names.len() as u64, last.as_ref())?;
    Ok(if session.monitor.alarm().is_some() { Verdict::No } else { Verdict::Done })
}

/// One frame through the whole path.
fn look(predictor: &Predictor, session: &mut Session, path: &Path) -> Result<(Prediction, Observation)> {
    let begun = Instant::now();
    let picture = predictor.resize(&image::read(path)?);
    let prediction = predictor.predict(&picture)?;
    let took = begun.elapsed();
    let scores = predictor.scores(&picture, &prediction, session.monitor.masked_pass_due())?;
    let observation = session.monitor.observe_timed(&picture, &scores, Some(took));
    session.about.faults += u64::from(observation.fault.is_some());
    Ok((prediction, observation))
}

/// For programs every frame, for people the changes.
fn report(
    output: &mut Output,
    name: &str,
    prediction: &Prediction,
    now: &Observation,
    before: Option<&Observation>,
) -> std::io::Result<()> {
    output.json(&Line {
        schema: "excon.watch/1",
        picture: name,
        label: &prediction.label,
        confidence: prediction.confidence,
        observation: now,
    })?;
    if let Some(residual) = now.self_test_failed {
        output.text(format_args!(
            "frame {:>6}  {name}  {} {residual:.1e}",
            now.raw_frames,
            paint(BAD, "self-test failed")
        ))?;
    }
    if before.is_some_and(|b| b.state == now.state && b.fault == now.fault) {
        return Ok(());
    }
    let why = match (&now.alarm, now.fault, now.state) {
        (_, Some(fault), _) => fault.words().to_string(),
        (Some(alarm), _, _) => named(alarm),
        (_, _, State::Healthy) => String::new(),
        _ => format!("evidence {} of {}", power(now.log_r), power(now.log_limit)),
    };
    output.text(format_args!("frame {:>6}  {name}  {} {why}", now.raw_frames, output::state(now.state)))
}

/// `input changed: luma_mean, saturation`.
pub fn named(alarm: &Alarm) -> String {
    let channels: Vec<&str> = alarm.channels.iter().map(|c| c.name()).collect();
    format!("{}: {}", alarm.family.words(), channels.join(", "))
}

fn conclude(
    output: &mut Output,
    settings: &Watch,
    session: &Session,
    frames: u64,
    last: Option<&Observation>,
) -> std::io::Result<()> {
    let (about, monitor) = (&session.about, &session.monitor);
    let promise = session.promise(true);
    let state_file = session.path().map(|p| p.display().to_string());
    output.json(&Summary {
        schema: "excon.watch-summary/1",
        frames,
        unreadable: about.unreadable,
        sensor_faults: about.faults,
        effective_frames: monitor.effective_frames(),
        log_r: monitor.log_r(),
        log_limit: about.mean_time.ln(),
        alarm: monitor.alarm(),
        slow_drift: last.is_some_and(|o| o.slow_drift),
        self_test_failures: monitor.self_test_failures(),
        channels: last.map_or(&[], |o| &o.channels),
        promise: promise.clone(),
        state_file,
    })?;
    if !output.human() {
        return Ok(());
    }
    output.text("")?;
    if let Some(last) = last {
        output.text(format_args!(
            "{} frames, {} effective so far; {} unreadable, {} with a sensor fault",
            frames, last.effective_frames, about.unreadable, about.faults
        ))?;
        output.text(format_args!("{}  weight  evidence  share", paint(BOLD, format_args!("{:<30}", "check"))))?;
        for family in excon_edge::shift::Family::ALL {
            output.text(family.words())?;
            for reading in last.channels.iter().filter(|c| c.family == family) {
                output.text(row(reading))?;
            }
        }
        if last.slow_drift {
            output.text("notice: the input drifts very slowly (outside the promise)")?;
        }
    } else {
        output.text("no new frames")?;
    }
    output.text(format_args!("evidence {} of {}", power(monitor.log_r()), power(about.mean_time.ln())))?;
    output.text(promise.sentence)?;
    if let Some(alarm) = monitor.alarm() {
        let since = format!("alarm since frame {}:", alarm.raw_frame);
        output.text(format_args!("{} {}", paint(BAD, since), named(alarm)))?;
        if let Some(folder) = &settings.monitor.state {
            let (bundle, folder) = (settings.bundle.bundle.display(), folder.display());
            output.text(format_args!("next: excon-edge acknowledge {bundle} --state {folder}"))?;
        }
    }
    Ok(())
}

fn row(reading: &ChannelReading) -> String {
    let ChannelReading { channel, weight, log_r, share, .. } = reading;
    let shown = if *weight == 0.0 { "  shown only" } else { "" };
    format!("  {:<28}   {weight:.3}  {:>8}  {:>5.2}{shown}", Channel::name(*channel), power(*log_r), share)
}

/// JPEG and PNG files of a folder, in order of name.
fn frames(folder: &Path) -> Result<Vec<(String, PathBuf)>> {
    let failed = |source| Error::Read { path: folder.into(), source };
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let extension = path.extension().map(|e| e.to_string_lossy().to_ascii_lowercase());
        if path.is_file() && matches!(extension.as_deref(), Some("jpg" | "jpeg" | "png")) {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            found.push((name, path));
        }
    }
    if found.is_empty() {
        let reason = format!("{} holds no JPEG or PNG frames", folder.display());
        return Err(Error::Data { what: "watch", reason });
    }
    found.sort();
    Ok(found)
}

fn progress(length: usize, human: bool) -> ProgressBar {
    if !human {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len} frames, {per_sec}, {eta} left");
    ProgressBar::new(length as u64).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}
