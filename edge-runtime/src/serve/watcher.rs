//! The monitor as the service keeps it: one stream of frames in the order in which they are scored, the state on disk,
//! and what the live page shows.
//!
//! Scoring and observing are one turn: what is due (a masked pass) depends on the count of frames, and the count must
//! not move in between. The state is written by a thread of its own, beside the work. When another process has changed
//! it, as `excon-edge acknowledge` does, that state is taken over; the few frames since the last save are forgotten.

use super::metrics::Metrics;
use super::{Event, Listener, Shared, lock};
use crate::bundle::Bundle;
use crate::image::Picture;
use crate::predictor::{Prediction, Predictor};
use crate::saliency::Map;
use crate::session::{self, Overrides, Session};
use crate::shift::{Alarm, Observation, Promise, State};
use crate::{Error, Result};
use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

/// Frames between two saves while nothing changes.
const SAVE_EVERY: u64 = 64;
/// How often the state on disk is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Frames whose pictures are kept for the live page.
pub const SHOWN: usize = 12;
/// Frames whose evidence is kept for the live page.
const DRAWN: usize = 600;
/// Alarms kept for the live page.
const RANG: usize = 8;

/// A frame as the live page shows it.
pub struct Frame {
    /// Its number since the watch began.
    pub number: u64,
    /// The picture at network size.
    pub picture: Picture,
    /// Map of the predicted class.
    pub map: Map,
    /// The predicted class.
    pub label: String,
    /// Its calibrated probability.
    pub confidence: f64,
    /// The prediction set's classes.
    pub set: Option<Vec<usize>>,
    /// The monitor's state after it.
    pub state: State,
    /// When it was seen.
    pub at: SystemTime,
}

/// An alarm and when it rang.
#[derive(Clone)]
pub struct Rang {
    /// What rang.
    pub alarm: Alarm,
    /// When; not known of one from before the start.
    pub at: Option<SystemTime>,
}

/// What the live page shows of the past.
#[derive(Default)]
pub struct View {
    /// Latest frames, the newest last.
    pub frames: VecDeque<Arc<Frame>>,
    /// Merged log evidence after each frame, the newest last.
    pub evidence: VecDeque<(u64, f64)>,
    /// Alarms, the newest last.
    pub alarms: VecDeque<Rang>,
    /// Times that pictures took, the newest last.
    pub took: VecDeque<Duration>,
}

/// The monitor as it stands.
pub struct Standing {
    /// State, evidence, alarm.
    pub observation: Observation,
    /// What is promised.
    pub promise: Promise,
    /// Frames with a sensor fault.
    pub faults: u64,
}

/// See the module's first paragraph.
pub struct Watcher {
    bundle: Arc<Bundle>,
    engine: String,
    folder: Option<PathBuf>,
    listener: Listener,
    metrics: Arc<Metrics>,
    session: Mutex<Session>,
    view: Mutex<View>,
    /// The state file as this process wrote or read it last.
    known: Mutex<Option<Stamp>>,
    wake: SyncSender<Wake>,
    woken: Mutex<Option<Receiver<Wake>>>,
}

enum Wake {
    Save,
    Stop,
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

impl Watcher {
    /// Continues from the state in `folder`, or starts afresh.
    ///
    /// # Errors
    /// As [`Session::open`].
    pub fn open(
        bundle: Arc<Bundle>,
        engine: &str,
        folder: Option<&Path>,
        overrides: Overrides,
        listener: Listener,
    ) -> Result<Self> {
        let session = Session::open(&bundle, engine, folder, overrides)?;
        let now = session.monitor.standing();
        let metrics = Arc::new(Metrics::new(&bundle, now.effective_frames, now.alarm.is_some()));
        metrics.monitor(&now, session.promise(true).guarantee);
        let mut view = View::default();
        view.alarms.extend(now.alarm.map(|alarm| Rang { alarm, at: None }));
        let (wake, woken) = sync_channel(1);
        Ok(Self {
            known: Mutex::new(session.path().and_then(Stamp::of)),
            folder: folder.map(Path::to_path_buf),
            engine: engine.to_string(),
            session: Mutex::new(session),
            view: Mutex::new(view),
            woken: Mutex::new(Some(woken)),
            wake,
            bundle,
            listener,
            metrics,
        })
    }

    /// The metrics it keeps up to date.
    pub fn metrics(&self) -> Arc<Metrics> {
        self.metrics.clone()
    }

    /// Takes the next frame, at network size.
    ///
    /// # Errors
    /// When the masked pass fails.
    pub fn observe(
        &self,
        predictor: &Predictor,
        picture: &Picture,
        prediction: &Prediction,
        took: Duration,
    ) -> Result<Observation> {
        let mut session = lock(&self.session);
        let scores = predictor.scores(picture, prediction, session.monitor.masked_pass_due())?;
        let rang_before = session.monitor.alarm().is_some();
        let now = session.monitor.observe_timed(picture, &scores, Some(took));
        session.about.faults += u64::from(now.fault.is_some());
        self.metrics.monitor(&now, session.promise(true).guarantee);
        let mut view = lock(&self.view);
        drop(session);

        let changed = view.frames.back().is_none_or(|f| f.state != now.state);
        let frame = Frame {
            number: now.raw_frames,
            picture: picture.clone(),
            map: prediction.cam.clone(),
            label: prediction.label.clone(),
            confidence: prediction.confidence,
            set: prediction.prediction_set.clone(),
            state: now.state,
            at: SystemTime::now(),
        };
        push(&mut view.frames, Arc::new(frame), SHOWN);
        push(&mut view.evidence, (now.raw_frames, now.log_r), DRAWN);
        push(&mut view.took, took, DRAWN);
        let rings = now.alarm.as_ref().filter(|_| !rang_before);
        if let Some(alarm) = rings {
            push(&mut view.alarms, Rang { alarm: alarm.clone(), at: Some(SystemTime::now()) }, RANG);
        }
        drop(view);
        if let Some(alarm) = rings {
            (self.listener)(Event::Alarm(alarm.clone()));
        }
        if changed || now.raw_frames.is_multiple_of(SAVE_EVERY) {
            self.wake(Wake::Save);
        }
        Ok(now)
    }

    /// Answers the alarm that stands; gives it back.
    ///
    /// # Errors
    /// When a change is accepted of which too little was seen; the alarm then stands. When the state cannot be saved.
    pub fn acknowledge(&self, accept: bool) -> Result<Option<Alarm>> {
        let mut session = lock(&self.session);
        let Some(alarm) = session.monitor.alarm().cloned() else { return Ok(None) };
        session.monitor.acknowledge(accept)?;
        self.metrics.monitor(&session.monitor.standing(), session.promise(true).guarantee);
        drop(session);
        (self.listener)(Event::Acknowledged);
        self.save()?;
        Ok(Some(alarm))
    }

    /// How the monitor stands.
    pub fn standing(&self) -> Standing {
        let session = lock(&self.session);
        Standing {
            observation: session.monitor.standing(),
            promise: session.promise(true),
            faults: session.about.faults,
        }
    }

    /// Reads from what the live page shows.
    pub fn view<T>(&self, read: impl FnOnce(&View) -> T) -> T {
        read(&lock(&self.view))
    }

    /// Writes the state, unless another process has written a newer one, which is then taken over.
    ///
    /// # Errors
    /// [`Error::Write`]; what was saved before is untouched.
    pub fn save(&self) -> Result<()> {
        let Some(folder) = &self.folder else { return Ok(()) };
        let _turn = session::lock(folder)?;
        if self.adopt()? {
            return Ok(());
        }
        // Bytes are taken under the lock, the disk is waited for outside.
        let (snapshot, path) = {
            let session = lock(&self.session);
            (session.snapshot()?, session.path().map(Path::to_path_buf))
        };
        if let Some(snapshot) = snapshot {
            snapshot.write()?;
        }
        *lock(&self.known) = path.as_deref().and_then(Stamp::of);
        Ok(())
    }

    /// Takes over what another process has written since this one wrote or read; the caller has the turn.
    fn adopt(&self) -> Result<bool> {
        let path = lock(&self.session).path().map(Path::to_path_buf);
        let stamp = path.as_deref().and_then(Stamp::of);
        if stamp.is_none() || stamp == *lock(&self.known) {
            return Ok(false);
        }
        *lock(&self.known) = stamp;
        let opened = Session::open(&self.bundle, &self.engine, self.folder.as_deref(), Overrides::default())?;
        let mut session = lock(&self.session);
        *session = opened;
        self.metrics.monitor(&session.monitor.standing(), session.promise(true).guarantee);
        drop(session);
        (self.listener)(Event::Adopted);
        Ok(true)
    }

    fn look(&self) -> Result<()> {
        let Some(folder) = &self.folder else { return Ok(()) };
        let path = lock(&self.session).path().map(Path::to_path_buf);
        if path.as_deref().and_then(Stamp::of) == *lock(&self.known) {
            return Ok(());
        }
        let _turn = session::lock(folder)?;
        self.adopt().map(|_| ())
    }

    /// Ends the saver.
    pub fn stop(&self) {
        // It may be about to save; then it takes this after.
        let _ = self.wake.send(Wake::Stop);
    }

    /// Tells of something that failed.
    pub fn trouble(&self, error: Error) {
        (self.listener)(Event::Trouble(error));
    }

    fn wake(&self, wake: Wake) {
        // A full channel means that it is woken already.
        let _ = self.wake.try_send(wake);
    }

    fn keep_saved(&self, woken: &Receiver<Wake>) {
        loop {
            let done = match woken.recv_timeout(LOOK_EVERY) {
                Ok(Wake::Save) => self.save(),
                Err(RecvTimeoutError::Timeout) => self.look(),
                Ok(Wake::Stop) | Err(RecvTimeoutError::Disconnected) => return,
            };
            if let Err(error) = done {
                self.metrics.save_failed();
                self.trouble(error);
            }
        }
    }
}

/// Starts the thread that keeps the state on disk.
///
/// # Errors
/// When there is no thread to be had.
pub fn start_saver(shared: &Arc<Shared>) -> Result<JoinHandle<()>> {
    let shared = shared.clone();
    let failed = |e| Error::Service { reason: format!("no thread to save the state on: {e}") };
    let work = move || {
        if let Some(woken) = lock(&shared.watcher.woken).take() {
            shared.watcher.keep_saved(&woken);
        }
    };
    std::thread::Builder::new().name("save".into()).spawn(work).map_err(failed)
}

fn push<T>(queue: &mut VecDeque<T>, item: T, most: usize) {
    if queue.len() == most {
        queue.pop_front();
    }
    queue.push_back(item);
}
