//! A session in use: threads of one process take turns on it, and other processes may change its file meanwhile.
//!
//! Scoring and observing are one turn: what is due (a masked pass) depends on the count of frames, and the count must
//! not move in between. When another process has changed the state on disk, as `excon-edge acknowledge` does, that state
//! is taken over; the few frames since the last save are forgotten. One process at a time keeps a monitor in a folder.

use crate::accuracy::{Accuracy, Labelled, Observed};
use crate::bundle::Bundle;
use crate::image::Picture;
use crate::predictor::{Prediction, Predictor};
use crate::session::{self, Overrides, Session};
use crate::shift::{Answered, Likeness, Observation, Promise};
use crate::{Result, unusual};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

/// What the monitor made of a frame.
#[derive(Debug, Clone)]
pub struct Seen {
    /// State, evidence, alarm.
    pub observation: Observation,
    /// Whether every condition of the promise holds.
    pub guarantee: bool,
    /// Whether the alarm rang with this frame.
    pub rings: bool,
    /// What the alarm that stands looks like, the likeliest first; empty without one, or where the bundle does not say.
    pub looks_like: Vec<Likeness>,
    /// How unusual it is, see [`unusual::score`]; none of a frame that is thinned out or has a sensor fault.
    pub unusual: Option<f64>,
    /// Accuracy after it.
    pub accuracy: Accuracy,
}

/// The monitor as it stands.
#[derive(Debug, Clone)]
pub struct Standing {
    /// State, evidence, alarm.
    pub observation: Observation,
    /// What is promised.
    pub promise: Promise,
    /// What the alarm that stands looks like, as in [`Seen`].
    pub looks_like: Vec<Likeness>,
    /// Frames with a sensor fault.
    pub faults: u64,
    /// Frames that could not be read.
    pub unreadable: u64,
    /// Accuracy now.
    pub accuracy: Accuracy,
    /// What labelled frames show.
    pub labels: Option<Observed>,
}

/// What saving came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Saved {
    /// The state is on disk, or there is no place to save to.
    Written,
    /// Another process had changed it: its state was taken over.
    Adopted,
}

/// See the module's first paragraph.
pub struct Keeper {
    bundle: Arc<Bundle>,
    engine: String,
    folder: Option<PathBuf>,
    session: Mutex<Session>,
    /// The state file as this process wrote or read it last.
    known: Mutex<Option<Stamp>>,
    /// Keeps the state to this process.
    _claim: Option<File>,
}

/// What tells one state file from the next: each is a new file, moved into place.
#[derive(Debug, Clone, PartialEq)]
struct Stamp {
    modified: Option<SystemTime>,
    length: u64,
    #[cfg(unix)]
    inode: u64,
}

impl Stamp {
    fn of(path: &Path) -> Option<Self> {
        let about = std::fs::metadata(path).ok()?;
        Some(Self {
            modified: about.modified().ok(),
            length: about.len(),
            #[cfg(unix)]
            inode: std::os::unix::fs::MetadataExt::ino(&about),
        })
    }
}

impl Keeper {
    /// Continues from the state in `folder`, or starts afresh, and keeps other processes from watching with it.
    ///
    /// # Errors
    /// As [`Session::open`] and [`session::claim`].
    pub fn open(bundle: Arc<Bundle>, engine: &str, folder: Option<&Path>, overrides: Overrides) -> Result<Self> {
        let look = || Session::open(&bundle, engine, folder, overrides.clone());
        let first = look()?;
        let claim = folder.map(session::claim).transpose()?;
        // Until the claim was there, another process may have written; what it writes from here on is adopted.
        let known = first.path().and_then(Stamp::of);
        let session = look()?;
        Ok(Self {
            engine: engine.into(),
            folder: folder.map(Path::to_path_buf),
            session: Mutex::new(session),
            known: Mutex::new(known),
            _claim: claim,
            bundle,
        })
    }

    /// The folder in which the state is kept.
    pub fn folder(&self) -> Option<&Path> {
        self.folder.as_deref()
    }

    /// Reads from the session, or changes it, in one turn.
    pub fn with<T>(&self, change: impl FnOnce(&mut Session) -> T) -> T {
        change(&mut self.lock())
    }

    /// Takes the next frame, at network size. A label will call it by its `name`; a `cursor` is the name up to which a
    /// folder is done with it.
    ///
    /// # Errors
    /// When the masked pass fails.
    pub fn observe(
        &self,
        predictor: &Predictor,
        picture: &Picture,
        prediction: &Prediction,
        took: Duration,
        name: &str,
        cursor: Option<&str>,
    ) -> Result<Seen> {
        let mut session = self.lock();
        let scores = predictor.scores(picture, prediction, session.monitor.masked_pass_due())?;
        let (due, rang_before) = (session.monitor.scores_due(), session.monitor.alarm().is_some());
        let unusual = due.then(|| unusual::score(session.monitor.reference(), &scores));
        let observation = session.monitor.observe_timed(picture, &scores, Some(took));
        session.about.faults += u64::from(observation.fault.is_some());
        if let Some(name) = cursor {
            session.about.last = Some(name.into());
        }
        let rings = observation.alarm.is_some() && !rang_before;
        if due && observation.fault.is_none() && observation.self_test_failed.is_none() {
            session.tally(name, prediction, &scores, rings);
        }
        Ok(Seen {
            guarantee: session.promise(true).guarantee,
            rings,
            looks_like: session.looks_like(),
            accuracy: session.accuracy(),
            unusual: unusual.filter(|_| observation.fault.is_none()),
            observation,
        })
    }

    /// Counts a frame that could not be read.
    pub fn unreadable(&self, cursor: Option<&str>) {
        let mut session = self.lock();
        session.about.unreadable += 1;
        if let Some(name) = cursor {
            session.about.last = Some(name.into());
        }
    }

    /// Answers what stands, see [`Monitor::acknowledge`](crate::shift::Monitor::acknowledge). To be saved by the caller.
    ///
    /// # Errors
    /// When a change is accepted of which too little was seen; the alarm then stands.
    pub fn acknowledge(&self, accept: bool) -> Result<Answered> {
        self.lock().monitor.acknowledge(accept)
    }

    /// How the monitor stands.
    pub fn standing(&self) -> Standing {
        let session = self.lock();
        Standing {
            observation: session.monitor.standing(),
            promise: session.promise(true),
            looks_like: session.looks_like(),
            faults: session.about.faults,
            unreadable: session.about.unreadable,
            accuracy: session.accuracy(),
            labels: session.observed(),
        }
    }

    /// Share of prediction sets that are promised to hold the true class; none without sets.
    pub fn promised_coverage(&self) -> Option<f64> {
        self.bundle.manifest.calibration.conformal.as_ref().map(|c| 1.0 - c.alpha)
    }

    /// Labels frames by name, see [`Session::label`]. To be saved by the caller.
    ///
    /// # Errors
    /// When a class is none of the bundle's; then nothing was labelled.
    pub fn label<'a>(&self, labels: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<Labelled> {
        self.lock().label(labels, &self.bundle.manifest.labels)
    }

    /// Writes the state, unless another process has written a newer one, which is then taken over.
    ///
    /// # Errors
    /// [`Error::Write`](crate::Error::Write); what was saved before is untouched.
    pub fn save(&self) -> Result<Saved> {
        let Some(folder) = &self.folder else { return Ok(Saved::Written) };
        let _turn = session::lock(folder)?;
        if self.adopt()? {
            return Ok(Saved::Adopted);
        }
        // Bytes are taken in a turn on the session, the disk is waited for outside.
        let (snapshot, path) = self.with(|s| (s.snapshot(), s.path().map(Path::to_path_buf)));
        if let Some(snapshot) = snapshot? {
            snapshot.write()?;
        }
        *self.known() = path.as_deref().and_then(Stamp::of);
        Ok(Saved::Written)
    }

    /// Takes over what another process has written, if one has; true then.
    ///
    /// # Errors
    /// When what it wrote cannot be used.
    pub fn look(&self) -> Result<bool> {
        let Some(folder) = &self.folder else { return Ok(false) };
        if self.stamp() == *self.known() {
            return Ok(false);
        }
        let _turn = session::lock(folder)?;
        self.adopt()
    }

    /// Takes over what another process has written since this one wrote or read; the caller has the turn on the file.
    fn adopt(&self) -> Result<bool> {
        let stamp = self.stamp();
        if stamp.is_none() || stamp == *self.known() {
            return Ok(false);
        }
        let opened = Session::open(&self.bundle, &self.engine, self.folder.as_deref(), Overrides::default())?;
        *self.known() = stamp;
        *self.lock() = opened;
        Ok(true)
    }

    fn stamp(&self) -> Option<Stamp> {
        let path = self.with(|s| s.path().map(Path::to_path_buf));
        path.as_deref().and_then(Stamp::of)
    }

    fn lock(&self) -> MutexGuard<'_, Session> {
        self.session.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn known(&self) -> MutexGuard<'_, Option<Stamp>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
