//! Writing: data to stdout for people or as JSON lines, trouble and progress to stderr, colour only where it is seen.

use anstyle::{AnsiColor, Style};
use excon_edge::engine::tensorrt::Progress;
use excon_edge::opener::Told;
use excon_edge::shift::State;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;
use std::fmt::Display;
use std::io::{self, IsTerminal, Write};
use std::sync::{Mutex, PoisonError};

/// What is needed for emphasis: bold, and three colours that are words as well.
pub const BOLD: Style = Style::new().bold();
/// All is well.
pub const GOOD: Style = AnsiColor::Green.on_default();
/// Look here.
pub const WATCH: Style = AnsiColor::Yellow.on_default();
/// A check said no.
pub const BAD: Style = AnsiColor::Red.on_default().bold();

/// Form of the data on stdout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// Aligned lines for people.
    Human,
    /// One JSON object a line, each with a `schema`.
    Json,
}

/// Stdout in one of two forms.
pub struct Output {
    format: Format,
    stdout: anstream::Stdout,
}

impl Output {
    pub fn new(format: Format) -> Self {
        Self { format, stdout: anstream::stdout() }
    }

    /// Whether people read it.
    pub fn human(&self) -> bool {
        self.format == Format::Human
    }

    /// One line of text, when people read it.
    pub fn text(&mut self, line: impl Display) -> io::Result<()> {
        if self.human() { writeln!(self.stdout, "{line}") } else { Ok(()) }
    }

    /// One JSON object, when programs read it.
    pub fn json(&mut self, value: &impl Serialize) -> io::Result<()> {
        if self.human() {
            return Ok(());
        }
        let line = serde_json::to_string(value).map_err(io::Error::other)?;
        writeln!(self.stdout, "{line}")
    }
}

/// Text in a style.
pub fn paint(style: Style, text: impl Display) -> String {
    format!("{style}{text}{style:#}")
}

/// A state in its colour.
pub fn state(state: State) -> String {
    let style = match state {
        State::Healthy => GOOD,
        State::Watching | State::Slow => WATCH,
        State::Shift | State::SensorFault | State::EngineFault => BAD,
    };
    // Padded inside the colour, so that columns stay aligned.
    paint(style, format_args!("{:<12}", state.words()))
}

/// Says on stderr what went wrong.
pub fn trouble(what: &impl Display) {
    let _ = writeln!(anstream::stderr(), "{} {what}", paint(BAD, "error:"));
}

/// Says on stderr what went wrong and is lived with.
pub fn warning(what: &impl Display) {
    let _ = writeln!(anstream::stderr(), "{} {what}", paint(WATCH, "warning:"));
}

/// Says on stderr what should be known.
pub fn note(what: impl Display) {
    let _ = writeln!(anstream::stderr(), "{what}");
}

/// Says on stderr what an opener does: notes as lines, a build as a bar that moves, or where nobody looks as a line now and
/// then.
pub fn building() -> impl Fn(Told) + Send + Sync + 'static {
    let terminal = io::stderr().is_terminal();
    let state: Mutex<(Option<ProgressBar>, u64)> = Mutex::new((None, 0));
    move |told| {
        let (bar, said) = &mut *state.lock().unwrap_or_else(PoisonError::into_inner);
        match told {
            Told::Note(text) => note(text),
            Told::Building(progress) if terminal => {
                let style = ProgressStyle::with_template("{spinner} {msg}")
                    .unwrap_or_else(|_| ProgressStyle::default_spinner());
                let bar = bar.get_or_insert_with(|| {
                    ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr()).with_style(style)
                });
                bar.set_message(build_line(progress));
                bar.tick();
            }
            Told::Building(progress) if *said == 0 || progress.elapsed.as_secs() >= *said => {
                *said = progress.elapsed.as_secs() + 15;
                note(build_line(progress));
            }
            Told::Built => {
                if let Some(bar) = bar.take() {
                    bar.finish_and_clear();
                }
                *said = 0;
            }
            _ => {}
        }
    }
}

/// `TensorRT builds: 42 s of about 84 s, Building 3 of 4`.
fn build_line(progress: &Progress) -> String {
    let mut line = format!("TensorRT builds: {} s", progress.elapsed.as_secs());
    line += &match progress.estimate {
        Some(seconds) => format!(" of about {seconds:.0} s"),
        None => ", which takes a minute or several the first time".into(),
    };
    if let Some((phase, step, steps)) = &progress.phase {
        line += &format!(", {phase} {step} of {steps}");
    }
    line
}

/// A power of ten for evidence: `10^3.2`, or `0` for none.
pub fn power(log: f64) -> String {
    if log == f64::NEG_INFINITY { "0".into() } else { format!("10^{:.1}", log / std::f64::consts::LN_10) }
}

/// A share as percent with one digit.
pub fn percent(share: f64) -> String {
    format!("{:.1} %", 100.0 * share)
}
