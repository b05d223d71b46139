//! One bundle onto one board: ask, send what is missing, let the board install it, wait for its health window.

use crate::remote::Board;
use crate::{Error, Result};
use excon_edge::bundle::{Bundle, Trust};
use excon_edge::slot::{Standing, State};
use excon_edge::transfer::{Answer, CHUNK, Plan};
use serde::Serialize;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

/// A bundle that is to go out, verified.
#[derive(Debug, Clone)]
pub struct Parcel {
    /// The container.
    pub bytes: Arc<Vec<u8>>,
    /// SHA-256 of its manifest.
    pub digest: String,
    /// Model name.
    pub name: String,
    /// Version counter.
    pub version: u64,
}

impl Parcel {
    /// Opens and verifies a bundle.
    ///
    /// # Errors
    /// As [`Bundle::open`].
    pub fn open(file: &Path) -> Result<Self> {
        let bundle = Bundle::open_trusted(file, &Trust::anyone())?;
        let read = |source| excon_edge::Error::Read { path: file.into(), source };
        let bytes = std::fs::read(file).map_err(read)?;
        let Bundle { digest, manifest, .. } = bundle;
        Ok(Self { bytes: Arc::new(bytes), digest, name: manifest.name, version: manifest.version })
    }

    /// Chunks in all.
    pub fn chunks(&self) -> usize {
        self.bytes.len().div_ceil(CHUNK)
    }
}

/// How it is to be done.
#[derive(Debug, Clone, Copy)]
pub struct Order {
    /// Checked predictions before the bundle is committed.
    pub health: u64,
    /// Only live predictions count; the board is watched until they are enough.
    pub live: bool,
    /// How long to watch a live trial.
    pub wait: Duration,
    /// Accept an older version.
    pub older: bool,
    /// Accept another model.
    pub other_model: bool,
    /// Only say what would be done.
    pub dry_run: bool,
}

/// What is going on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// The board is asked what it runs.
    Asking,
    /// So many chunks of so many are there.
    Sending(usize, usize),
    /// The board verifies, installs and tests itself.
    Installing,
    /// So many live predictions of so many have passed.
    Watching(u64, u64),
}

/// How it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Ending {
    /// The new bundle is active and has passed its window.
    Committed,
    /// The bundle was active and committed before.
    ActiveAlready,
    /// Nothing was sent: this is what would be done.
    WouldBeInstalled,
    /// It is active and still has to pass predictions.
    OnTrial,
    /// It failed, and the one before it is active again.
    RolledBack,
}

impl Ending {
    /// In words.
    pub fn words(self) -> &'static str {
        match self {
            Self::Committed => "committed",
            Self::ActiveAlready => "active already",
            Self::WouldBeInstalled => "would be installed",
            Self::OnTrial => "on trial",
            Self::RolledBack => "rolled back",
        }
    }

    /// Whether a fleet may go on.
    pub fn is_healthy(self) -> bool {
        !matches!(self, Self::RolledBack | Self::OnTrial)
    }
}

/// What was found and done.
#[derive(Debug, Clone, Serialize)]
pub struct Outcome {
    /// How it ended.
    pub ending: Ending,
    /// What ran before: name and version.
    pub before: Option<(String, u64)>,
    /// Bytes that were, or would be, sent.
    pub sent: usize,
    /// The board's own last sentence.
    pub last: String,
}

/// What a board says is installed there.
///
/// # Errors
/// As [`Board::ask`].
pub fn installed(board: &Board) -> Result<State> {
    let (_, status) = board.ask(&["status"])?;
    let state = status.get("installed").cloned().unwrap_or_default();
    serde_json::from_value(state).map_err(|e| Error::Board {
        board: board.address.clone(),
        reason: format!("its answer is not understood ({e}). Give both sides the same version of excon"),
        code: 65,
    })
}

/// Flashes one board.
///
/// # Errors
/// When the board cannot be reached or refuses; it then runs what it ran.
pub fn flash(board: &Board, parcel: &Parcel, order: &Order, say: &mut dyn FnMut(Step)) -> Result<Outcome> {
    say(Step::Asking);
    let state = installed(board)?;
    let before = state.running().map(|(_, record)| (record.name.clone(), record.version));
    let outcome = |ending, sent: usize, last: String| Outcome { ending, before: before.clone(), sent, last };
    let here = |state: &State| state.running().is_some_and(|(_, r)| r.digest == parcel.digest);
    if here(&state) && state.trial.is_none() {
        return Ok(outcome(Ending::ActiveAlready, 0, state.last));
    }
    if order.dry_run {
        let sent = (board.missing(&parcel.bytes)? * CHUNK).min(parcel.bytes.len());
        let last = format!("{} of {} bytes would be sent into slot {}", sent, parcel.bytes.len(), state.inactive());
        return Ok(outcome(Ending::WouldBeInstalled, sent, last));
    }
    let (mut there, mut sent) = (0, 0);
    let chunks = parcel.chunks();
    let place = board.send(&parcel.bytes, &mut |answer| {
        match answer {
            Answer::Missing(missing) => there = chunks - missing.len().min(chunks),
            Answer::Have(_) => {
                there += 1;
                sent += 1;
            }
            Answer::Complete(_) => there = chunks,
        }
        say(Step::Sending(there, chunks));
    })?;
    debug_assert!(place.contains(&Plan::of(&parcel.bytes).sha256));
    let sent = (sent * CHUNK).min(parcel.bytes.len());
    say(Step::Installing);
    let health = order.health.to_string();
    let mut arguments = vec!["install", &place, "--remove", "--health", &health];
    let flags = [(order.live, "--live"), (order.older, "--older"), (order.other_model, "--other-model")];
    arguments.extend(flags.iter().filter(|(set, _)| *set).map(|(_, flag)| *flag));
    board.ask(&arguments)?;
    let started = Instant::now();
    loop {
        let state = installed(board)?;
        let standing = state.running().filter(|(_, r)| r.digest == parcel.digest).map(|(_, r)| r.standing);
        match (standing, state.trial) {
            (Some(Standing::Committed), _) => return Ok(outcome(Ending::Committed, sent, state.last)),
            (Some(_), Some(trial)) if started.elapsed() < order.wait => say(Step::Watching(trial.passed, trial.needed)),
            (Some(_), _) => return Ok(outcome(Ending::OnTrial, sent, state.last)),
            (None, _) => return Ok(outcome(Ending::RolledBack, sent, state.last)),
        }
        thread::sleep(Duration::from_secs(2).min(order.wait));
    }
}
