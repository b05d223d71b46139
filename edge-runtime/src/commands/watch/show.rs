//! Where a watch shows itself while it goes on: a bar or lines, or the live view.

use super::super::output::{self, Output};
use super::view::View;
use super::{Counts, Taken, report};
use excon_edge::Error;
use excon_edge::bundle::Bundle;
use excon_edge::shift::Observation;
use excon_edge::source::Place;
use indicatif::{ProgressBar, ProgressStyle};
use std::fmt::Display;
use std::io;
use std::time::{Duration, Instant};

/// Of troubles that follow each other faster than this, as those of a bad cable do, one is shown and the rest counted.
const TROUBLE_EVERY: Duration = Duration::from_secs(1);

/// See the module's first paragraph.
pub struct Show {
    bar: ProgressBar,
    view: Option<View>,
    /// Whether the source has an end: then each trouble is shown.
    finite: bool,
    last_trouble: Option<Instant>,
    hidden: u64,
}

impl Show {
    /// The live view if it is wished for and there is a terminal for it, otherwise lines with a bar on stderr.
    pub fn new(view: bool, expected: Option<u64>, bundle: &Bundle, place: &Place, engine: &str) -> Self {
        let manifest = &bundle.manifest;
        let title = format!("{} version {} on {engine} · {place}", manifest.name, manifest.version);
        let view = if view { View::open(title) } else { None };
        let template = match expected {
            Some(_) => "{bar:30} {pos}/{len} frames, {per_sec}, {eta} left{msg}",
            None => "{spinner} {pos} frames, {per_sec}{msg}",
        };
        let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
        let bar = match (view.is_some(), expected) {
            (true, _) => ProgressBar::hidden(),
            (false, Some(length)) => ProgressBar::new(length),
            (false, None) => ProgressBar::new_spinner(),
        };
        Self { bar: bar.with_style(style), view, finite: expected.is_some(), last_trouble: None, hidden: 0 }
    }

    /// Whether it is the live view.
    pub fn is_view(&self) -> bool {
        self.view.is_some()
    }

    /// A frame.
    pub fn frame(
        &mut self,
        output: &mut Output,
        taken: &Taken,
        counts: &Counts,
        before: Option<&Observation>,
    ) -> io::Result<()> {
        match &mut self.view {
            Some(view) => {
                report::changes(taken, before).into_iter().for_each(|line| view.say(line));
                view.frame(taken, counts)
            }
            None => self.bar.suspend(|| report::frame(output, taken, counts, before)),
        }
    }

    /// The time between frames.
    pub fn tick(&mut self, counts: &Counts) {
        self.bar.set_position(counts.frames);
        if counts.dropped + counts.late > 0 {
            self.bar.set_message(format!(", {} dropped, {} late", counts.dropped, counts.late));
        }
        self.bar.tick();
        if let Some(view) = &mut self.view {
            // Whoever closed the terminal also sends a signal.
            let _ = view.tick();
        }
    }

    /// Something to know.
    pub fn note(&mut self, what: impl Display) {
        match &mut self.view {
            Some(view) => view.say(what.to_string()),
            None => self.bar.suspend(|| output::note(what)),
        }
    }

    /// Something that went wrong beside the frames.
    pub fn warn(&mut self, what: impl Display) {
        match &mut self.view {
            Some(view) => view.say(what.to_string()),
            None => self.bar.suspend(|| output::warning(&what)),
        }
    }

    /// Something that went wrong and does not end the watch.
    pub fn trouble(&mut self, error: &Error) {
        // A source says once that it is lost.
        let often = !matches!(error, Error::Unreachable { .. });
        if often && !self.finite && self.last_trouble.is_some_and(|last| last.elapsed() < TROUBLE_EVERY) {
            self.hidden += 1;
            return;
        }
        self.last_trouble = Some(Instant::now());
        let more = match std::mem::take(&mut self.hidden) {
            0 => String::new(),
            hidden => format!(" ({hidden} more since the last)"),
        };
        match &mut self.view {
            Some(view) => view.say(format!("{error}{more}")),
            None => self.bar.suspend(|| output::trouble(&format_args!("{error}{more}"))),
        }
    }

    /// Leaves the terminal as it was.
    pub fn close(&mut self) {
        self.bar.finish_and_clear();
        self.view = None;
        if self.hidden > 0 {
            output::note(format_args!("{} more frames or attempts had trouble", self.hidden));
        }
    }
}
