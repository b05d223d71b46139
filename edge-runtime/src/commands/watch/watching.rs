//! A watch under way: one frame after the other, and between them the terminal, the state on disk and the service.

use super::super::output::Output;
use super::super::place::Checks;
use super::super::{Failure, Verdict};
use super::hook::Hook;
#[cfg(feature = "serve")]
use super::page;
use super::report::Told;
use super::show::Show;
use super::{Counts, Taken, named, report};
use excon_edge::Error;
use excon_edge::bundle::Bundle;
use excon_edge::image::Picture;
use excon_edge::keeper::{Keeper, Saved};
use excon_edge::predictor::Predictor;
use excon_edge::shift::{Alarm, Likeness, Observation};
use excon_edge::source::{Feed, Frame, Item, Next, Place, Stop};
use excon_edge::unusual::{Ring, rfc3339};
use serde::Serialize;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

/// Frames between two saves while nothing changes: what a power cut can cost is this much work, done again.
const SAVE_EVERY: u64 = 64;
/// The same where frames come slowly.
const SAVE_AFTER: Duration = Duration::from_secs(10);
/// How long a wait for a frame is before the rest is looked after.
const TICK: Duration = Duration::from_millis(100);
/// How often the state is looked at that another process may have changed.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// A watch under way, from what [`super::run`] has opened.
pub struct Watching {
    pub bundle: Arc<Bundle>,
    pub predictor: Arc<Predictor>,
    pub keeper: Arc<Keeper>,
    pub checks: Arc<Mutex<Checks>>,
    pub place: Place,
    pub follow: bool,
    pub in_folder: bool,
    pub feed: Feed,
    pub stop: Stop,
    pub ring: Option<Ring>,
    pub hook: Option<Hook>,
    pub show: Show,
    #[cfg(feature = "serve")]
    pub served: Option<page::Served>,
    /// The command that answers an alarm.
    pub next: Option<String>,
    pub progress: Progress,
}

/// How far it is.
pub struct Progress {
    counts: Counts,
    last: Option<Observation>,
    /// What was last said of accuracy.
    told: Told,
    /// When the state was last looked at that another process may change.
    looked: Instant,
    /// Frames since the last save, and when that was.
    unsaved: u64,
    saved: Instant,
}

impl Progress {
    /// At the beginning.
    pub fn new() -> Self {
        let now = Instant::now();
        Self { counts: Counts::default(), last: None, told: Told::default(), looked: now, unsaved: 0, saved: now }
    }
}

/// What `--on-alarm` reads.
#[derive(Serialize)]
struct Rang<'a> {
    schema: &'static str,
    alarm: &'a Alarm,
    /// The same in words.
    words: String,
    /// What it looks like so far, the likeliest first.
    looks_like: &'a [Likeness],
    model: &'a str,
    version: u64,
    source: String,
    frame: &'a str,
    predicted: &'a str,
    confidence: f64,
    log_r: f64,
    log_limit: f64,
    guarantee: bool,
    time: String,
    /// The command that answers it, where the monitor is kept.
    acknowledge: Option<&'a str>,
}

impl Watching {
    /// True when a signal ended it before the source did.
    pub fn until_the_end(&mut self, output: &mut Output) -> Result<bool, Failure> {
        loop {
            if self.stop.is_set() {
                return Ok(true);
            }
            let next = self.feed.next(TICK);
            (self.progress.counts.dropped, self.progress.counts.late) = (self.feed.dropped(), self.feed.late());
            match next {
                Next::End => return Ok(self.stop.is_set()),
                Next::Idle => {}
                Next::Item(Item::Trouble(error)) => self.show.trouble(&error),
                Next::Item(Item::Frame(frame)) => self.take(frame, output)?,
            }
            self.look_after()?;
        }
    }

    fn take(&mut self, frame: Frame, output: &mut Output) -> Result<(), Failure> {
        let begun = Instant::now();
        self.progress.counts.frames += 1;
        let (name, at, arrived) = (frame.name.clone(), frame.at, frame.arrived);
        let cursor = self.in_folder.then_some(name.as_str());
        let whole = match frame.picture() {
            Ok(picture) => picture,
            // A frame that cannot be read is the camera's trouble, not the end of the watch.
            Err(error @ (Error::Picture { .. } | Error::Read { .. })) => {
                self.keeper.unreadable(cursor);
                self.show.trouble(&error);
                self.save_when_due(false);
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        };
        let picture = self.predictor.resize(&whole);
        let prediction = self.predictor.predict(&picture)?;
        let took = begun.elapsed();
        let seen = self.keeper.observe(&self.predictor, &picture, &prediction, took, &name, cursor)?;
        let checked = {
            let mut checks = self.checks.lock().unwrap_or_else(PoisonError::into_inner);
            checks.see(&prediction, self.predictor.engine().name())
        };
        checked?;
        self.progress.counts.abstained += u64::from(prediction.abstains);
        let news = self.progress.told.news(&seen);
        let taken = Taken { name, picture, prediction, seen, took, behind: arrived.elapsed(), news };
        self.keep(&taken, &whole, at);
        self.tell(&taken, at);
        #[cfg(feature = "serve")]
        if let Some(served) = &self.served {
            served.show(&taken, &self.progress.counts);
        }
        self.show.frame(output, &taken, &self.progress.counts, self.progress.last.as_ref())?;
        if let Some(next) = self.next.as_ref().filter(|_| taken.seen.rings && (self.follow || self.feed.live())) {
            self.show.note(format_args!("next: {next}"));
        }
        let now = taken.seen.observation;
        let changed = self.progress.last.as_ref().is_none_or(|before| before.state != now.state);
        self.progress.last = Some(now);
        self.save_when_due(changed);
        Ok(())
    }

    /// Into the ring of unusual frames.
    fn keep(&mut self, taken: &Taken, whole: &Picture, at: SystemTime) {
        let (Some(ring), Some(score)) = (&mut self.ring, taken.seen.unusual) else { return };
        if let Err(error) = ring.offer(score, &taken.name, at, whole, &taken.picture, &taken.prediction) {
            self.show.trouble(&error);
        }
    }

    /// To the command of `--on-alarm`.
    fn tell(&mut self, taken: &Taken, at: SystemTime) {
        let now = &taken.seen.observation;
        let (Some(hook), Some(alarm), true) = (&self.hook, &now.alarm, taken.seen.rings) else { return };
        let told = hook.ring(&Rang {
            schema: "excon.alarm/1",
            alarm,
            words: named(alarm),
            looks_like: &taken.seen.looks_like,
            model: &self.bundle.manifest.name,
            version: self.bundle.manifest.version,
            source: self.place.to_string(),
            frame: &taken.name,
            predicted: &taken.prediction.label,
            confidence: taken.prediction.confidence,
            log_r: now.log_r,
            log_limit: now.log_limit,
            guarantee: taken.seen.guarantee,
            time: rfc3339(at),
            acknowledge: self.next.as_deref(),
        });
        if !told {
            self.show.warn("--on-alarm was not run: earlier alarms still wait for it");
        }
    }

    /// Whether a service saves beside the watch.
    fn is_served(&self) -> bool {
        #[cfg(feature = "serve")]
        return self.served.is_some();
        #[cfg(not(feature = "serve"))]
        false
    }

    fn save_when_due(&mut self, changed: bool) {
        self.progress.unsaved += 1;
        let due = self.progress.unsaved >= SAVE_EVERY || self.progress.saved.elapsed() >= SAVE_AFTER;
        if (changed || due) && !self.is_served() {
            self.save();
        }
    }

    /// A disk that is full for a while is no reason to stop watching; the last save is what counts.
    fn save(&mut self) {
        (self.progress.unsaved, self.progress.saved) = (0, Instant::now());
        match self.keeper.save() {
            Ok(Saved::Written) => {}
            Ok(Saved::Adopted) => self.adopted(),
            Err(error) => self.show.trouble(&error),
        }
    }

    /// What is not a frame's: the terminal, the state on disk, the service.
    fn look_after(&mut self) -> Result<(), Failure> {
        self.show.tick(&self.progress.counts);
        while let Some(failure) = self.hook.as_ref().and_then(Hook::failure) {
            self.show.warn(failure);
        }
        #[cfg(feature = "serve")]
        if let Some(served) = &mut self.served {
            return served.look_after(&mut self.show).map_err(Failure::from);
        }
        if self.progress.unsaved > 0 && self.progress.saved.elapsed() >= SAVE_AFTER {
            self.save();
        }
        if self.progress.looked.elapsed() >= LOOK_EVERY {
            self.progress.looked = Instant::now();
            match self.keeper.look() {
                Ok(true) => self.adopted(),
                Ok(false) => {}
                Err(error) => self.show.trouble(&error),
            }
        }
        Ok(())
    }

    fn adopted(&mut self) {
        self.show.note("the state was changed by another process and is taken over");
    }

    /// Whatever the end was: commands that run end, the state is saved, the summary is written.
    pub fn end(mut self, watched: Result<bool, Failure>, output: &mut Output) -> Result<Verdict, Failure> {
        self.stop.set();
        self.show.close();
        let failures = self.hook.take().map_or(Vec::new(), Hook::end);
        failures.into_iter().for_each(|failure| self.show.warn(failure));
        #[cfg(feature = "serve")]
        let served = self.served.take().map_or(Ok(()), page::Served::end);
        let saved = self.keeper.save();
        let signalled = watched?;
        #[cfg(feature = "serve")]
        served?;
        saved?;
        let interrupted = signalled && !self.follow && !self.feed.live();
        let next = self.next.as_deref();
        report::summary(output, &self.keeper, &self.progress.counts, interrupted, self.progress.last.as_ref(), next)?;
        let rings = self.keeper.with(|s| s.monitor.alarm().is_some());
        Ok(match (rings, interrupted) {
            (true, _) => Verdict::No,
            (false, true) => Verdict::Interrupted,
            (false, false) => Verdict::Done,
        })
    }
}
