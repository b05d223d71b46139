//! Building a plan: by the library or by `trtexec`, watched, bounded in time, and written to the cache.

use super::api::{BuildOptions, BuildReport, Builder, Fault, FaultKind, Logger};
use super::home::{Home, Job, Ready};
use super::plan::{self, About, Plan};
use super::{NAME, told, trtexec};
use crate::Result;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

/// How often a watcher hears of a build.
const TICK: Duration = Duration::from_millis(100);
/// How long a build that was told to stop may take to do so.
const GRACE: Duration = Duration::from_secs(5);

/// How to build.
#[derive(Debug, Clone)]
pub struct How {
    /// `trtexec` instead of the library.
    pub trtexec: Option<PathBuf>,
    /// Deep-learning accelerator; what it cannot run falls back to the GPU.
    pub dla_core: Option<u32>,
    /// Bytes to try tactics with.
    pub workspace: Option<u64>,
    /// Longest a build may take.
    pub limit: Duration,
}

impl Default for How {
    fn default() -> Self {
        Self { trtexec: None, dla_core: None, workspace: None, limit: Duration::from_secs(3600) }
    }
}

/// How a build stands.
#[derive(Debug, Clone, PartialEq)]
pub struct Progress {
    /// Time since it began.
    pub elapsed: Duration,
    /// Seconds that the last build on this board took.
    pub estimate: Option<f64>,
    /// TensorRT's own phase with step and number of steps, from version 10.3 on.
    pub phase: Option<(String, u32, u32)>,
}

/// A plan that was built.
#[derive(Debug)]
pub struct Built {
    /// The plan.
    pub plan: Plan,
    /// Why it could not be kept for the next start.
    pub unsaved: Option<crate::Error>,
}

/// Builds a job's plan. `watch` hears of it ten times a second and stops it by `false`.
///
/// # Errors
/// [`crate::Error::Engine`] with TensorRT's reason, the refused node by name, and what to do.
pub fn build(
    ready: &Ready,
    home: &Home,
    job: &Job,
    how: &How,
    watch: &mut dyn FnMut(&Progress) -> bool,
) -> Result<Built> {
    let options =
        BuildOptions { half: job.half, int8: job.master.int8, dla_core: how.dla_core, workspace: how.workspace };
    let estimate = plan::last_build(&home.plans());
    let begun = Instant::now();
    let (builder, built) = match &how.trtexec {
        Some(program) => {
            let mut tick = |elapsed| watch(&Progress { elapsed, estimate, phase: None });
            let version = ready.library.version();
            let bytes = trtexec::build(program, &job.master, &options, version, how.limit, &mut tick);
            ("trtexec", bytes.map(|bytes| (bytes, BuildReport::default())))
        }
        None => (NAME, by_library(ready, job, options, how.limit, estimate, watch)),
    };
    let (bytes, report) = built.map_err(|fault| told(named(fault, job)))?;
    let about = About {
        key: ready.key(job, how.dla_core),
        builder: builder.into(),
        seconds: begun.elapsed().as_secs_f64(),
        layers: report.layers,
        dla_layers: report.dla_layers,
    };
    let plan = Plan { about, bytes };
    let unsaved = plan.write(&home.plans()).err();
    Ok(Built { plan, unsaved })
}

/// On a thread of its own: a build that hangs must not take its caller with it.
fn by_library(
    ready: &Ready,
    job: &Job,
    options: BuildOptions,
    limit: Duration,
    estimate: Option<f64>,
    watch: &mut dyn FnMut(&Progress) -> bool,
) -> std::result::Result<(Vec<u8>, BuildReport), Fault> {
    let mut builder = Builder::new(&ready.library, ready.index, &Logger::silent())?;
    builder.parse(&job.master.bytes)?;
    let stop = Arc::new(AtomicBool::new(false));
    let (say, hear) = mpsc::channel();
    let (phases, done) = (say.clone(), say);
    let told_to_stop = stop.clone();
    std::thread::spawn(move || {
        let result = builder.build(&options, &mut |phase, step, steps| {
            let _ = phases.send(Message::Phase(phase.to_string(), step, steps));
            !told_to_stop.load(Ordering::Relaxed)
        });
        let _ = done.send(Message::Done(result));
    });
    let begun = Instant::now();
    let mut progress = Progress { elapsed: Duration::ZERO, estimate, phase: None };
    let mut stopped: Option<(Instant, FaultKind)> = None;
    loop {
        match hear.recv_timeout(TICK) {
            Ok(Message::Done(result)) => return result,
            Ok(Message::Phase(name, step, steps)) => progress.phase = Some((name, step, steps)),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return Err(Fault::new(FaultKind::Build, "the builder fell over")),
        }
        progress.elapsed = begun.elapsed();
        if stopped.is_none() {
            let late = progress.elapsed > limit;
            if late || !watch(&progress) {
                let kind = if late { FaultKind::Timeout } else { FaultKind::Cancelled };
                stop.store(true, Ordering::Relaxed);
                stopped = Some((Instant::now(), kind));
            }
        }
        // Before 10.3 nothing stops a build from inside: then its thread is left behind.
        if let Some((_, kind)) = stopped.filter(|(since, kind)| *kind == FaultKind::Timeout || since.elapsed() > GRACE)
        {
            return Err(Fault::new(kind, format!("the build was given up after {} s", progress.elapsed.as_secs())));
        }
    }
}

enum Message {
    Phase(String, u32, u32),
    Done(std::result::Result<(Vec<u8>, BuildReport), Fault>),
}

/// The parser says which node by its number; people know it by its name.
fn named(mut fault: Fault, job: &Job) -> Fault {
    if let Some(name) = fault.node.and_then(|node| job.master.nodes.get(node)) {
        fault.reason = format!("node {name}: {}", fault.reason);
    }
    fault
}
