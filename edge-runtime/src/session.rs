//! What `watch` and `serve` keep between two runs, in one file: the monitor, where it stopped, what it was told, and the
//! frames behind the accuracy estimate.
//!
//! `DIR/watch.state` is `excon.watch-state/1 SHA-256`, a line of JSON, then the monitor's own bytes. It is written
//! beside and renamed, so that a power cut leaves the state before or the state after. Cursor and counters are one
//! file, so no frame is ever counted twice. Who reads, changes and writes it holds [`lock`] meanwhile.

use crate::accuracy::{Accuracy, AccuracyModel, Labelled, Observed, Tally};
use crate::bundle::Bundle;
use crate::predictor::Prediction;
use crate::shift::{Contract, Family, FrameScores, Likeness, Looks, Monitor, Promise};
use crate::{Error, Result, file};
use serde::{Deserialize, Serialize};
use std::fs::{File, TryLockError};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

const SCHEMA: &str = "excon.watch-state/1";
const FILE: &str = "watch.state";
const LOCK: &str = "watch.lock";
const OWNER: &str = "serve.lock";
/// Far above any state, below what would trouble a board.
const LARGEST: u64 = 80 << 20;

/// What the watch was told and where it stands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct About {
    /// N of the contract.
    pub mean_time: f64,
    /// One effective frame in so many is also run masked.
    pub masked_every: usize,
    /// The stream was declared independent.
    pub independent: bool,
    /// Folder watched last, and the last name seen in it.
    pub folder: Option<String>,
    /// Names up to this one are done.
    pub last: Option<String>,
    /// Frames that could not be read, so far.
    pub unreadable: u64,
    /// Frames with a sensor fault, so far.
    pub faults: u64,
    /// Time a frame may take before the state is `slow`, milliseconds; none: any.
    #[serde(default)]
    pub latency_budget_ms: Option<f64>,
    /// Families that give a notice instead of an alarm.
    #[serde(default)]
    pub notices: Vec<Family>,
    /// Frames after which an alarm ends by itself; none: only when acknowledged.
    #[serde(default)]
    pub recovery: Option<u64>,
    /// Frames behind the accuracy estimate.
    #[serde(default)]
    pub accuracy: Tally,
}

/// Flags that override what the bundle or the saved state says.
#[derive(Debug, Clone, Default)]
pub struct Overrides {
    /// N of the contract.
    pub mean_time: Option<f64>,
    /// One effective frame in so many is also run masked.
    pub masked_every: Option<usize>,
    /// Declares the stream independent; a state that says so already keeps saying it.
    pub independent: bool,
    /// Time a frame may take before the state is `slow`, milliseconds.
    pub latency_budget_ms: Option<f64>,
    /// Families that give a notice instead of an alarm; instead of those set before.
    pub notices: Option<Vec<Family>>,
    /// Frames after which an alarm ends by itself; 0: only when acknowledged.
    pub recovery: Option<u64>,
}

/// A monitor with its memory.
pub struct Session {
    /// What it was told and where it stands.
    pub about: About,
    /// The monitor.
    pub monitor: Monitor,
    path: Option<PathBuf>,
    looks: Option<Looks>,
    estimate: Option<AccuracyModel>,
    /// Engine that scores the frames, and the one the bundle's constants were fitted on.
    engines: (String, String),
}

impl Session {
    /// Continues from `folder/watch.state`, or starts afresh when there is none; without a folder nothing is kept.
    ///
    /// # Errors
    /// [`Error::State`] when a state is there and cannot be used; [`Error::Data`] when N is not above 1.
    pub fn open(bundle: &Bundle, engine: &str, folder: Option<&Path>, overrides: Overrides) -> Result<Self> {
        let path = folder.map(|f| f.join(FILE));
        let saved = path.as_deref().map(read).transpose()?.flatten();
        let (mut about, monitor) = saved.unwrap_or_else(|| (fresh(bundle), Vec::new()));
        about.mean_time = overrides.mean_time.unwrap_or(about.mean_time);
        about.masked_every = overrides.masked_every.unwrap_or(about.masked_every);
        about.independent |= overrides.independent;
        about.latency_budget_ms = overrides.latency_budget_ms.or(about.latency_budget_ms);
        about.notices = overrides.notices.unwrap_or(about.notices);
        about.recovery = overrides.recovery.or(about.recovery).filter(|frames| *frames > 0);
        let contract = Contract {
            mean_time_between_false_alarms: about.mean_time,
            masked_every: about.masked_every,
            latency_budget: about.latency_budget_ms.map(|ms| Duration::from_secs_f64(ms / 1e3)),
            notices: about.notices.clone(),
            recovery: about.recovery,
            ..bundle.contract()
        };
        let reference = bundle.reference.clone();
        let monitor = match &path {
            Some(path) if !monitor.is_empty() => Monitor::from_bytes(path, &monitor, reference, contract)?,
            _ => Monitor::new(reference, contract)?,
        };
        let engines = (engine.to_string(), bundle.manifest.calibration.engine.clone());
        Ok(Self {
            about,
            monitor,
            path,
            looks: bundle.scores.looks().cloned(),
            estimate: bundle.accuracy.clone(),
            engines,
        })
    }

    /// What the alarm that stands looks like, the likeliest first; empty without one, or where the bundle does not say.
    pub fn looks_like(&self) -> Vec<Likeness> {
        self.looks.as_ref().map_or(Vec::new(), |looks| looks.of(self.monitor.around_alarm()))
    }

    /// Takes an effective frame into the accuracy estimate; `name` is what a label will call it. With the frame that
    /// rings the alarm the estimate begins anew.
    pub fn tally(&mut self, name: &str, prediction: &Prediction, scores: &FrameScores, rings: bool) {
        if rings {
            self.about.accuracy.window.restart();
        }
        self.about.accuracy.take(self.estimate.as_ref(), name, prediction, scores);
    }

    /// Accuracy now.
    pub fn accuracy(&self) -> Accuracy {
        self.about.accuracy.accuracy(self.estimate.as_ref())
    }

    /// Labels frames by name, see [`Labels::give`](crate::accuracy::Labels::give). To be saved by the caller.
    ///
    /// # Errors
    /// [`Error::Data`] when a class is none of the bundle's; then nothing was labelled.
    pub fn label<'a>(
        &mut self,
        labels: impl IntoIterator<Item = (&'a str, &'a str)>,
        classes: &[String],
    ) -> Result<Labelled> {
        self.about.accuracy.labels.give(labels, classes)
    }

    /// What labelled frames show.
    pub fn observed(&self) -> Option<Observed> {
        self.about.accuracy.labels.observed()
    }

    /// The monitor's promise, with what only the command knows: how the stream was declared and which engine runs.
    /// Before there is a stream, its declaration is a condition; for a stream that was not declared, a reason against.
    pub fn promise(&self, watched: bool) -> Promise {
        let mut promise = self.monitor.promise();
        if !self.about.notices.is_empty() {
            let families: Vec<&str> = self.about.notices.iter().map(|f| f.words()).collect();
            promise.conditions.push(format!("no alarm by: {}, which give a notice only", families.join(", ")));
        }
        let mut against = Vec::new();
        if self.monitor.reference().independent() && !self.about.independent {
            if watched {
                against.push(
                    "the reference holds independent pictures, the stream is not declared so (--independent)".into(),
                );
            } else {
                promise.conditions.push("the stream must be declared independent too (`watch --independent`)".into());
            }
        }
        if self.engines.0 != self.engines.1 {
            against.push(format!("the constants were fitted on another engine ({})", self.engines.1));
        }
        if !against.is_empty() {
            promise.guarantee = false;
            promise.reasons.extend(against);
            promise.sentence = format!("no guarantee: {}", promise.reasons.join("; "));
        }
        promise
    }

    /// Where the state is kept.
    pub fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    /// Whether a state was saved before.
    pub fn is_saved(&self) -> bool {
        self.path.as_deref().is_some_and(Path::exists)
    }

    /// Saves, when there is a place to.
    ///
    /// # Errors
    /// [`Error::Write`]; what was saved before is untouched.
    pub fn save(&self) -> Result<()> {
        self.snapshot()?.map_or(Ok(()), |snapshot| snapshot.write())
    }

    /// The state as it stands now, to be written later; none when there is no place to.
    ///
    /// # Errors
    /// [`Error::Write`] when it cannot be put into bytes.
    pub fn snapshot(&self) -> Result<Option<Snapshot>> {
        let Some(path) = &self.path else { return Ok(None) };
        let failed = |source| Error::Write { path: path.clone(), source };
        let mut body = serde_json::to_vec(&self.about).map_err(|e| failed(io::Error::other(e)))?;
        body.push(b'\n');
        body.extend(self.monitor.to_bytes());
        Ok(Some(Snapshot { path: path.clone(), body }))
    }
}

/// A state taken at one moment.
pub struct Snapshot {
    path: PathBuf,
    body: Vec<u8>,
}

impl Snapshot {
    /// Writes it, see [`crate::file::replace`].
    ///
    /// # Errors
    /// [`Error::Write`]; what was saved before is untouched.
    pub fn write(&self) -> Result<()> {
        let folder = self.path.parent().unwrap_or(Path::new("."));
        std::fs::create_dir_all(folder).map_err(|source| Error::Write { path: self.path.clone(), source })?;
        let head = format!("{SCHEMA} {}\n", file::digest(&self.body));
        crate::file::replace(&self.path, &[head.as_bytes(), &self.body].concat())
    }
}

/// Waits until no other process is between reading and writing the state in `folder`; until the file is dropped, or the
/// process ends, the others wait.
///
/// # Errors
/// [`Error::Write`] when the folder cannot be written.
pub fn lock(folder: &Path) -> Result<File> {
    let path = folder.join(LOCK);
    let open = || {
        std::fs::create_dir_all(folder)?;
        let file = File::create(&path)?;
        file.lock()?;
        Ok(file)
    };
    open().map_err(|source| Error::Write { path: path.clone(), source })
}

/// Claims the state in `folder` for this process as long as the file lives: of two that watch on one state each
/// would undo the other's work.
///
/// # Errors
/// [`Error::State`] when another process has it, [`Error::Write`] when the folder cannot be written.
pub fn claim(folder: &Path) -> Result<File> {
    let path = folder.join(OWNER);
    let failed = |source| Error::Write { path: path.clone(), source };
    std::fs::create_dir_all(folder).map_err(failed)?;
    let file = File::create(&path).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(Error::State {
            path: folder.into(),
            reason: "another `serve` or `watch` keeps its monitor here; end that one, or give another folder".into(),
        }),
        Err(TryLockError::Error(source)) => Err(failed(source)),
    }
}

fn fresh(bundle: &Bundle) -> About {
    About {
        mean_time: bundle.manifest.shift.mean_time_between_false_alarms,
        masked_every: bundle.manifest.shift.masked_every,
        independent: false,
        folder: None,
        last: None,
        unreadable: 0,
        faults: 0,
        latency_budget_ms: None,
        notices: Vec::new(),
        recovery: None,
        accuracy: Tally::default(),
    }
}

/// The saved state and the monitor's bytes; none when there is no file.
fn read(path: &Path) -> Result<Option<(About, Vec<u8>)>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(Error::Read { path: path.into(), source }),
    };
    let mut bytes = Vec::new();
    file.take(LARGEST + 1).read_to_end(&mut bytes).map_err(|source| Error::Read { path: path.into(), source })?;
    parse(&bytes).map(Some).map_err(|reason| Error::State { path: path.into(), reason })
}

fn parse(bytes: &[u8]) -> std::result::Result<(About, Vec<u8>), String> {
    if bytes.len() as u64 > LARGEST {
        return Err("it is larger than any state".into());
    }
    let torn = || "it is torn or damaged".to_string();
    let (first, body) = split_line(bytes).ok_or_else(torn)?;
    let first = std::str::from_utf8(first).map_err(|_| torn())?;
    match first.split_once(' ') {
        Some((SCHEMA, sum)) if sum == file::digest(body) => {}
        Some((SCHEMA, _)) => return Err(torn()),
        _ => return Err(format!("its schema is not {SCHEMA}")),
    }
    let (about, monitor) = split_line(body).ok_or_else(torn)?;
    let about: About = serde_json::from_slice(about).map_err(|e| e.to_string())?;
    Ok((about, monitor.to_vec()))
}

fn split_line(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = bytes.iter().position(|&b| b == b'\n')?;
    Some((&bytes[..end], &bytes[end + 1..]))
}
