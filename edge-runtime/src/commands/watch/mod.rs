//! `watch`: frames of a source through predictor and monitor, until the source ends or a signal comes.
//!
//! The source reads on a thread of its own; [`watching`] takes one frame at a time. What is lost with a signal is the
//! frames that still wait: state and summary are written as at any other end.

mod arguments;
mod hook;
#[cfg(feature = "serve")]
mod page;
mod report;
mod show;
mod view;
mod watching;

use super::monitor::MonitorArgs;
use super::output::Output;
use super::place::{ACTIVE, BundleArgs};
use super::{Failure, Verdict};
use arguments::SourceArgs;
use excon_edge::image::Picture;
use excon_edge::keeper::{Keeper, Seen};
use excon_edge::predictor::Prediction;
use excon_edge::source::{Feed, Place, Stop};
use excon_edge::unusual::Ring;
use excon_edge::{Error, Result};
use hook::Hook;
pub use report::{named, observed};
use show::Show;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use watching::{Progress, Watching};

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
    /// Folder of JPEG or PNG frames, `-` for standard input, a file or named pipe, http://HOST/…, or a video device
    #[arg(value_name = "SOURCE")]
    source: PathBuf,
    #[command(flatten)]
    taken: SourceArgs,
    /// Show frames, maps and evidence live in the terminal; elsewhere than in one, lines
    #[arg(long, help_heading = "Output")]
    view: bool,
    /// Once an alarm rings, run this by `sh -c`, with the alarm as JSON on its standard input; 30 s at most
    #[arg(long, value_name = "COMMAND", help_heading = "Output")]
    on_alarm: Option<String>,
    /// Keep the most unusual frames with their maps in this folder [default for `active`: unusual/ below the root]
    #[arg(long, value_name = "FOLDER", num_args = 0..=1, help_heading = "Output")]
    keep_unusual: Option<Option<PathBuf>>,
    /// How many of them
    #[arg(long, value_name = "K", default_value_t = 16, requires = "keep_unusual", help_heading = "Output",
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
    /// What is new about accuracy, in words.
    news: Option<String>,
}

/// Frames of this run.
#[derive(Debug, Clone, Copy, Default)]
pub struct Counts {
    /// Taken, unreadable ones too.
    frames: u64,
    /// Whose confidence was too low for an answer.
    abstained: u64,
    /// Left out because newer ones found no room.
    dropped: u64,
    /// Left out because they were older than the deadline.
    late: u64,
}

pub fn run(settings: &Watch, output: &mut Output) -> std::result::Result<Verdict, Failure> {
    let stop = signals()?;
    let (mut bundle, checks) = settings.bundle.open()?;
    let predictor = Arc::new(settings.bundle.predictor(&mut bundle)?);
    let bundle = Arc::new(bundle);
    let state = settings.bundle.state(settings.monitor.state.as_deref(), &bundle);
    let engine = predictor.engine().name();
    let keeper = Arc::new(Keeper::open(bundle.clone(), engine, state.as_deref(), settings.monitor.overrides())?);
    let place = Place::of(&settings.source)?;
    let after = place.folder().and_then(|folder| goes_on(&keeper, folder));
    let source = place.open(&settings.taken.options(), after.as_deref())?;
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

    let feed = Feed::start(source, settings.taken.limits(), stop.clone())?;
    let mut watching = Watching {
        next: settings.next(),
        follow: settings.taken.follow,
        in_folder: place.folder().is_some(),
        feed,
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
        progress: Progress::new(),
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
