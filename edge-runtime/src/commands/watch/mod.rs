//! `watch`: frames of a source through predictor and monitor, until the source ends or a signal comes.
//!
//! The source reads on a thread of its own; here one frame is taken at a time. What is lost with a signal is the frames
//! that still wait: state and summary are written as at any other end.

mod arguments;
mod hook;
#[cfg(feature = "serve")]
mod page;
mod report;
mod show;
mod view;

use super::monitor::MonitorArgs;
use super::output::Output;
use super::place::{ACTIVE, BundleArgs, Checks};
use super::{Failure, Verdict};
use arguments::SourceArgs;
use excon_edge::bundle::Bundle;
use excon_edge::image::Picture;
use excon_edge::keeper::{Keeper, Saved, Seen};
use excon_edge::predictor::{Prediction, Predictor};
use excon_edge::shift::{Alarm, Observation};
use excon_edge::source::{Feed, Frame, Item, Next, Place, Stop};
use excon_edge::unusual::{Ring, rfc3339};
use excon_edge::{Error, Result};
use hook::Hook;
pub use report::named;
use serde::Serialize;
use show::Show;
use std::path::{Path, PathBuf};
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

#[derive(Debug, clap::Args)]
#[command(after_help = "A folder's frames are taken in order of name, so time stamps make good names; with --state, a
second run goes on where the first stopped. Of a live source (a pipe, a camera) late frames are left out and counted;
from files every frame is taken. The alarm stands until `acknowledge`, and a command given with --on-alarm is run once,
by `sh -c`, with the alarm as JSON on its standard input. SIGTERM and Ctrl-C end cleanly.

Examples:
  excon-edge watch trashnet.excon camera/ --state /var/lib/excon --follow
  excon-edge watch trashnet.excon photos/ --independent --format json | jq .state
  find photos -name '*.jpg' | sort | excon-edge watch trashnet.excon -
  gst-launch-1.0 -q v4l2src ! jpegenc ! fdsink | excon-edge watch active - --view
  ffmpeg -v error -i clip.mp4 -f rawvideo -pix_fmt rgb24 -s 640x480 - | excon-edge watch active - --raw 640x480 --every-frame
  excon-edge watch active http://camera:8080/stream --serve 127.0.0.1:8080 --state /var/lib/excon --keep-unusual
  excon-edge watch active /dev/video0 --on-alarm 'mail -s \"camera 1 sees something else\" me@example.org'

Exit codes: 0 done (also by a signal, where the source has no end), 1 an alarm stands, 64 usage, 65 bad input or bundle,
69 the source does not answer or the address is taken, 73 cannot write, 130 a signal came before the last file")]
pub struct Watch {
    #[command(flatten)]
    bundle: BundleArgs,
    #[command(flatten)]
    source: SourceArgs,
    /// Show frames, maps and evidence live in the terminal; elsewhere than in one, lines
    #[arg(long)]
    view: bool,
    /// Once an alarm rings, run this by `sh -c`, with the alarm as JSON on its standard input; 30 s at most
    #[arg(long, value_name = "COMMAND")]
    on_alarm: Option<String>,
    /// Keep the most unusual frames with their maps in this folder [default for `active`: unusual/ below the root]
    #[arg(long, value_name = "FOLDER", num_args = 0..=1)]
    keep_unusual: Option<Option<PathBuf>>,
    /// How many of them
    #[arg(long, value_name = "K", default_value_t = 16, requires = "keep_unusual",
          value_parser = clap::value_parser!(u16).range(1..=9999))]
    keep: u16,
    #[command(flatten)]
    monitor: MonitorArgs,
    #[cfg(feature = "serve")]
    #[command(flatten)]
    page: page::PageArgs,
}

/// A frame that was seen.
pub struct Taken {
    name: String,
    /// At network size.
    picture: Picture,
    prediction: Prediction,
    seen: Seen,
    /// From the start of decoding to the prediction.
    took: Duration,
    /// From the frame's arrival to here.
    behind: Duration,
}

/// Frames of this run.
#[derive(Debug, Clone, Copy, Default)]
pub struct Counts {
    /// Taken, unreadable ones too.
    frames: u64,
    /// Left out because newer ones found no room.
    dropped: u64,
    /// Left out because they were older than the deadline.
    late: u64,
}

/// What `--on-alarm` reads.
#[derive(Serialize)]
struct Rang<'a> {
    schema: &'static str,
    alarm: &'a Alarm,
    /// The same in words.
    words: String,
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

pub fn run(settings: &Watch, output: &mut Output) -> std::result::Result<Verdict, Failure> {
    let stop = signals()?;
    let (bundle, checks) = settings.bundle.open()?;
    let predictor = Arc::new(Predictor::from_bundle(&bundle)?);
    let bundle = Arc::new(bundle);
    let state = settings.bundle.state(settings.monitor.state.as_deref(), &bundle);
    let engine = predictor.engine().name();
    let keeper = Arc::new(Keeper::open(bundle.clone(), engine, state.as_deref(), settings.monitor.overrides())?);
    let place = Place::of(&settings.source.source)?;
    let after = place.folder().and_then(|folder| goes_on(&keeper, folder));
    let source = place.open(&settings.source.options(), after.as_deref())?;
    let ring = settings.ring()?;
    // Told once, before any work: a place that cannot be written is no reason to lose a day's frames.
    keeper.save()?;

    let checks = Arc::new(Mutex::new(checks));
    #[cfg(feature = "serve")]
    let served = page::start(&settings.page, &bundle, &predictor, &keeper, &checks)?;
    let mut show = Show::new(settings.view && output.human(), source.expected(), &bundle, &place, engine);
    let hook = settings.on_alarm.as_ref().map(|command| Hook::new(command, show.is_view(), stop.clone()));
    let hook = hook.transpose().map_err(|e| Error::Source { name: "--on-alarm".into(), reason: e.to_string() })?;
    let what = source.expected().map_or(String::new(), |n| format!("{n} frames of "));
    let manifest = &bundle.manifest;
    show.note(format_args!("watching {what}{place} with {} version {}", manifest.name, manifest.version));

    let mut watching = Watching {
        next: settings.next(),
        follow: settings.source.follow,
        in_folder: place.folder().is_some(),
        feed: Feed::start(source, settings.source.limits(), stop.clone())?,
        stop,
        bundle,
        predictor,
        keeper,
        checks,
        place,
        ring,
        hook,
        show,
        #[cfg(feature = "serve")]
        served,
        counts: Counts::default(),
        last: None,
        looked: Instant::now(),
        unsaved: 0,
        saved: Instant::now(),
    };
    let watched = watching.until_the_end(output);
    watching.end(watched, output)
}

/// A wish to end that SIGINT and SIGTERM set.
fn signals() -> std::result::Result<Stop, Failure> {
    let stop = Stop::new();
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register(signal, stop.flag())?;
    }
    Ok(stop)
}

/// The name up to which a folder was watched; of another folder than last time, none.
fn goes_on(keeper: &Keeper, folder: &Path) -> Option<String> {
    let folder = folder.display().to_string();
    keeper.with(|session| {
        if session.about.folder.as_deref() != Some(&folder) {
            (session.about.folder, session.about.last) = (Some(folder), None);
        }
        session.about.last.clone()
    })
}

impl Watch {
    fn ring(&self) -> Result<Option<Ring>> {
        let folder = match &self.keep_unusual {
            None => return Ok(None),
            Some(Some(folder)) => folder.clone(),
            Some(None) if self.bundle.bundle == Path::new(ACTIVE) => self.bundle.root.root.join("unusual"),
            Some(None) => {
                let reason = "give it a folder; only `active` has one of its own".into();
                return Err(Error::Source { name: "with --keep-unusual".into(), reason });
            }
        };
        Ring::open(&folder, usize::from(self.keep)).map(Some)
    }

    /// The command that answers an alarm.
    fn next(&self) -> Option<String> {
        let (bundle, folder) = (self.bundle.bundle.display(), self.monitor.state.as_ref()?.display());
        Some(format!("excon-edge acknowledge {bundle} --state {folder}"))
    }
}

/// A watch under way.
struct Watching {
    bundle: Arc<Bundle>,
    predictor: Arc<Predictor>,
    keeper: Arc<Keeper>,
    checks: Arc<Mutex<Checks>>,
    place: Place,
    follow: bool,
    in_folder: bool,
    feed: Feed,
    stop: Stop,
    ring: Option<Ring>,
    hook: Option<Hook>,
    show: Show,
    #[cfg(feature = "serve")]
    served: Option<page::Served>,
    /// The command that answers an alarm.
    next: Option<String>,
    counts: Counts,
    last: Option<Observation>,
    looked: Instant,
    /// Frames since the last save, and when that was.
    unsaved: u64,
    saved: Instant,
}

impl Watching {
    /// True when a signal ended it before the source did.
    fn until_the_end(&mut self, output: &mut Output) -> std::result::Result<bool, Failure> {
        loop {
            if self.stop.is_set() {
                return Ok(true);
            }
            let next = self.feed.next(TICK);
            (self.counts.dropped, self.counts.late) = (self.feed.dropped(), self.feed.late());
            match next {
                Next::End => return Ok(self.stop.is_set()),
                Next::Idle => {}
                Next::Item(Item::Trouble(error)) => self.show.trouble(&error),
                Next::Item(Item::Frame(frame)) => self.take(frame, output)?,
            }
            self.look_after()?;
        }
    }

    fn take(&mut self, frame: Frame, output: &mut Output) -> std::result::Result<(), Failure> {
        let begun = Instant::now();
        self.counts.frames += 1;
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
        let seen = self.keeper.observe(&self.predictor, &picture, &prediction, took, cursor)?;
        let checked = {
            let mut checks = self.checks.lock().unwrap_or_else(PoisonError::into_inner);
            checks.see(&prediction, self.predictor.engine().name())
        };
        checked?;
        let taken = Taken { name, picture, prediction, seen, took, behind: arrived.elapsed() };
        self.keep(&taken, &whole, at);
        self.ring(&taken, at);
        #[cfg(feature = "serve")]
        if let Some(served) = &self.served {
            served.show(&taken, &self.counts);
        }
        self.show.frame(output, &taken, &self.counts, self.last.as_ref())?;
        if let Some(next) = self.next.as_ref().filter(|_| taken.seen.rings && (self.follow || self.feed.live())) {
            self.show.note(format_args!("next: {next}"));
        }
        let now = taken.seen.observation;
        let changed = self.last.as_ref().is_none_or(|before| before.state != now.state);
        self.last = Some(now);
        self.save_when_due(changed);
        Ok(())
    }

    fn keep(&mut self, taken: &Taken, whole: &Picture, at: SystemTime) {
        let (Some(ring), Some(score)) = (&mut self.ring, taken.seen.unusual) else { return };
        if let Err(error) = ring.offer(score, &taken.name, at, whole, &taken.picture, &taken.prediction) {
            self.show.trouble(&error);
        }
    }

    fn ring(&mut self, taken: &Taken, at: SystemTime) {
        let now = &taken.seen.observation;
        let (Some(hook), Some(alarm), true) = (&self.hook, &now.alarm, taken.seen.rings) else { return };
        let told = hook.ring(&Rang {
            schema: "excon.alarm/1",
            alarm,
            words: named(alarm),
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
        self.unsaved += 1;
        let due = self.unsaved >= SAVE_EVERY || self.saved.elapsed() >= SAVE_AFTER;
        if (changed || due) && !self.is_served() {
            self.save();
        }
    }

    /// A disk that is full for a while is no reason to stop watching; the last save is what counts.
    fn save(&mut self) {
        (self.unsaved, self.saved) = (0, Instant::now());
        match self.keeper.save() {
            Ok(Saved::Written) => {}
            Ok(Saved::Adopted) => self.adopted(),
            Err(error) => self.show.trouble(&error),
        }
    }

    /// What is not a frame's: the terminal, the state on disk, the service.
    fn look_after(&mut self) -> std::result::Result<(), Failure> {
        self.show.tick(&self.counts);
        while let Some(failure) = self.hook.as_ref().and_then(Hook::failure) {
            self.show.warn(failure);
        }
        #[cfg(feature = "serve")]
        if let Some(served) = &mut self.served {
            return served.look_after(&mut self.show).map_err(Failure::from);
        }
        if self.unsaved > 0 && self.saved.elapsed() >= SAVE_AFTER {
            self.save();
        }
        if self.looked.elapsed() >= LOOK_EVERY {
            self.looked = Instant::now();
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
    fn end(
        mut self,
        watched: std::result::Result<bool, Failure>,
        output: &mut Output,
    ) -> std::result::Result<Verdict, Failure> {
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
        report::summary(output, &self.keeper, &self.counts, interrupted, self.last.as_ref(), next)?;
        let rings = self.keeper.with(|s| s.monitor.alarm().is_some());
        Ok(match (rings, interrupted) {
            (true, _) => Verdict::No,
            (false, true) => Verdict::Interrupted,
            (false, false) => Verdict::Done,
        })
    }
}
