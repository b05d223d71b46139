//! The monitor as the service keeps it: one stream of frames in the order in which they are scored, the state on disk,
//! and what the live page shows.
//!
//! The state is written by a thread of its own, beside the work; see [`crate::keeper`] for who else may change it.

use super::metrics::Metrics;
use super::{Event, Listener, Shared, lock};
use crate::accuracy::Labelled;
use crate::bundle::Bundle;
use crate::image::Picture;
use crate::keeper::{Keeper, Saved, Seen, Standing};
use crate::predictor::{Prediction, Predictor};
use crate::saliency::Map;
use crate::shift::{Alarm, Answered, Observation, State};
use crate::{Error, Result};
use std::collections::VecDeque;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

/// Frames between two saves while nothing changes.
const SAVE_EVERY: u64 = 64;
/// How often the state on disk is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Frames whose pictures are kept for the live page.
pub const SHOWN: usize = 12;
/// Time between two frames shown, once there are so many: a browser has to fetch their pictures before they go.
const SHOW_EVERY: Duration = Duration::from_millis(400);
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
    /// Whether it is too low for an answer.
    pub abstains: bool,
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
    /// Latest frames, the newest last; of those that come fast a few.
    pub frames: VecDeque<Arc<Frame>>,
    /// State after the latest frame, shown or not.
    state: Option<State>,
    /// When a frame was last taken in.
    showed: Option<Instant>,
    /// Merged log evidence after each frame, the newest last.
    pub evidence: VecDeque<(u64, f64)>,
    /// Alarms, the newest last.
    pub alarms: VecDeque<Rang>,
    /// Times that pictures took, the newest last.
    pub took: VecDeque<Duration>,
}

/// See the module's first paragraph.
pub struct Watcher {
    keeper: Arc<Keeper>,
    listener: Listener,
    metrics: Arc<Metrics>,
    view: Mutex<View>,
    wake: SyncSender<Wake>,
    woken: Mutex<Option<Receiver<Wake>>>,
}

enum Wake {
    Save,
    Stop,
}

impl Watcher {
    /// Shows what the keeper holds.
    pub fn new(bundle: &Bundle, keeper: Arc<Keeper>, listener: Listener) -> Self {
        let standing = keeper.standing();
        let now = standing.observation;
        let metrics = Arc::new(Metrics::new(bundle, now.effective_frames, now.alarm.is_some()));
        metrics.monitor(&now, standing.promise.guarantee, &standing.accuracy);
        let mut view = View::default();
        view.alarms.extend(now.alarm.map(|alarm| Rang { alarm, at: None }));
        let (wake, woken) = sync_channel(1);
        Self { view: Mutex::new(view), woken: Mutex::new(Some(woken)), wake, keeper, listener, metrics }
    }

    /// The monitor it shows.
    pub fn keeper(&self) -> &Keeper {
        &self.keeper
    }

    /// The metrics it keeps up to date.
    pub fn metrics(&self) -> Arc<Metrics> {
        self.metrics.clone()
    }

    /// Takes the next frame, at network size, under the name that a label will call it by.
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
    ) -> Result<Observation> {
        let seen = self.keeper.observe(predictor, picture, prediction, took, name, None)?;
        self.show(picture, prediction, took, &seen);
        Ok(seen.observation)
    }

    /// Shows a frame that the monitor has seen, at network size.
    pub fn show(&self, picture: &Picture, prediction: &Prediction, took: Duration, seen: &Seen) {
        let now = &seen.observation;
        self.metrics.monitor(now, seen.guarantee, &seen.accuracy);
        let mut view = lock(&self.view);
        let changed = view.state.replace(now.state) != Some(now.state);
        let rested = view.showed.is_none_or(|showed| showed.elapsed() >= SHOW_EVERY);
        if changed || rested || view.frames.len() < SHOWN {
            view.showed = Some(Instant::now());
            let frame = Arc::new(shown(picture, prediction, now));
            push(&mut view.frames, frame, SHOWN);
        }
        push(&mut view.evidence, (now.raw_frames, now.log_r), DRAWN);
        push(&mut view.took, took, DRAWN);
        let rings = now.alarm.as_ref().filter(|_| seen.rings);
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
    }

    /// Answers the alarm and the notice that stand; says which did.
    ///
    /// # Errors
    /// When a change is accepted of which too little was seen; the alarm then stands. When the state cannot be saved.
    pub fn acknowledge(&self, accept: bool) -> Result<Answered> {
        let answered = self.keeper.acknowledge(accept)?;
        if !answered.is_nothing() {
            self.measure();
            (self.listener)(Event::Acknowledged);
            self.save()?;
        }
        Ok(answered)
    }

    /// Labels frames by name.
    ///
    /// # Errors
    /// When a class is none of the bundle's; then nothing was labelled. When the state cannot be saved.
    pub fn label(&self, labels: &[(String, String)]) -> Result<Labelled> {
        let done = self.keeper.label(labels.iter().map(|(name, class)| (name.as_str(), class.as_str())))?;
        self.measure();
        self.save()?;
        Ok(done)
    }

    /// How the monitor stands.
    pub fn standing(&self) -> Standing {
        self.keeper.standing()
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
        if self.keeper.save()? == Saved::Adopted {
            self.adopted();
        }
        Ok(())
    }

    fn look(&self) -> Result<()> {
        if self.keeper.look()? {
            self.adopted();
        }
        Ok(())
    }

    fn adopted(&self) {
        self.measure();
        (self.listener)(Event::Adopted);
    }

    fn measure(&self) {
        let standing = self.keeper.standing();
        self.metrics.monitor(&standing.observation, standing.promise.guarantee, &standing.accuracy);
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

fn shown(picture: &Picture, prediction: &Prediction, now: &Observation) -> Frame {
    Frame {
        number: now.raw_frames,
        picture: picture.clone(),
        map: prediction.cam.clone(),
        label: prediction.label.clone(),
        confidence: prediction.confidence,
        abstains: prediction.abstains,
        set: prediction.prediction_set.clone(),
        state: now.state,
        at: SystemTime::now(),
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
