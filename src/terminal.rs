//! What a person sees in a terminal: aligned lines on stdout, one moving line on stderr while work is under way.
//!
//! Colours follow `NO_COLOR` and vanish where the stream is no terminal; there, progress becomes plain lines.

use crate::failure::{Failure, Result};
use anstyle::{AnsiColor, Style};
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;
use std::cell::RefCell;
use std::io::{IsTerminal, Write};

use std::time::{Duration, Instant};

const BOLD: Style = Style::new().bold();
const DIM: Style = Style::new().dimmed();
const GOOD: Style = AnsiColor::Green.on_default();
const BAD: Style = AnsiColor::Red.on_default().bold();

/// Form of the result on stdout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// Aligned lines for people.
    Human,
    /// One JSON object with a `schema` key.
    Json,
}

/// Writes to stdout. A reader that has gone away is no error.
pub fn out(text: &str) -> Result<()> {
    match anstream::stdout().lock().write_all(text.as_bytes()) {
        Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => Err(Failure::write("stdout".as_ref(), e)),
        _ => Ok(()),
    }
}

/// A result as JSON.
pub fn json(value: &impl Serialize) -> Result<()> {
    out(&(serde_json::to_string_pretty(value)? + "\n"))
}

/// Aligned `name  value` lines.
pub fn rows(rows: &[(&str, String)]) -> Result<()> {
    let width = rows.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
    let lines: Vec<String> = rows.iter().map(|(n, v)| format!("{DIM}{n:<width$}{DIM:#}  {v}\n")).collect();
    out(&lines.concat())
}

/// Lines in columns, the first dimmed; `align` has an `l` or `r` for each column.
pub fn table(align: &str, rows: &[Vec<String>]) -> Result<()> {
    let mut widths = vec![0; align.len()];
    for row in rows {
        widths.iter_mut().zip(row).for_each(|(width, cell)| *width = (*width).max(cell.chars().count()));
    }
    let line = |row: &Vec<String>| {
        let mut line = String::new();
        for (i, ((cell, width), align)) in row.iter().zip(&widths).zip(align.chars()).enumerate() {
            let cell = if align == 'r' { format!("{cell:>width$}") } else { format!("{cell:<width$}") };
            line += &if i == 0 { format!("  {DIM}{cell}{DIM:#}") } else { format!("   {cell}") };
        }
        line.trim_end().to_string() + "\n"
    };
    out(&rows.iter().map(line).collect::<String>())
}

/// A heading above lines.
pub fn heading(text: &str) -> Result<()> {
    out(&format!("\n{BOLD}{text}{BOLD:#}\n"))
}

/// The commands to type next.
pub fn next(commands: &[String]) -> Result<()> {
    heading("Next")?;
    out(&commands.iter().map(|c| format!("  {c}\n")).collect::<String>())
}

/// An error, on stderr.
pub fn error(message: &str) {
    anstream::eprintln!("{BAD}error:{BAD:#} {message}");
}

/// A remark, on stderr.
pub fn note(message: &str) {
    anstream::eprintln!("{message}");
}

/// A finished step, on stderr.
pub fn done(step: &str, detail: &str, took: Duration) {
    anstream::eprintln!("{GOOD}✓{GOOD:#} {step:<9} {detail}  {DIM}{}{DIM:#}", duration(took.as_secs_f64()));
}

/// Seconds as people say them.
pub fn duration(seconds: f64) -> String {
    match seconds {
        s if s < 0.00995 => format!("{:.1} ms", s * 1e3),
        s if s < 0.9995 => format!("{:.0} ms", s * 1e3),
        s if s < 9.95 => format!("{s:.1} s"),
        s if s < 119.5 => format!("{s:.0} s"),
        s => format!("{} min {:02} s", (s.round() as u64) / 60, (s.round() as u64) % 60),
    }
}

/// A fraction as per cent with one decimal.
pub fn percent(fraction: f64) -> String {
    format!("{:.1} %", 100.0 * fraction)
}

/// Digits in groups of three.
pub fn grouped(n: usize) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(c);
    }
    out
}

/// Values as a row of bars between their least and their greatest; those that are no number are blank.
pub fn sparkline(values: &[f64]) -> String {
    const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let known = || values.iter().copied().filter(|v| v.is_finite());
    let (low, high) = (known().fold(f64::INFINITY, f64::min), known().fold(f64::NEG_INFINITY, f64::max));
    let bar = |v: &f64| match v.is_finite() {
        true if high > low => BARS[((v - low) / (high - low) * 7.0).round() as usize],
        true => BARS[3],
        false => ' ',
    };
    values.iter().map(bar).collect()
}

/// A piece of work under way: a bar with the remaining time in a terminal, plain lines elsewhere.
pub struct Progress {
    bar: ProgressBar,
    all: MultiProgress,
    below: RefCell<Vec<ProgressBar>>,
    step: &'static str,
    started: Instant,
    plain: bool,
}

impl Progress {
    /// Starts a bar of so many units; 0 when their number is not known yet.
    pub fn start(step: &'static str, units: u64) -> Self {
        let plain = !std::io::stderr().is_terminal();
        let target = if plain { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr_with_hz(8) };
        let all = MultiProgress::with_draw_target(target);
        let bar = all.add(ProgressBar::new(units).with_prefix(step));
        let form = "{spinner} {prefix:<9} {bar:28} {percent:>3} %  {msg}  {eta} left";
        if let Ok(style) = ProgressStyle::with_template(form) {
            bar.set_style(style.progress_chars("━╸ "));
        }
        Self { bar, all, below: RefCell::default(), step, started: Instant::now(), plain }
    }

    /// Sets the number of units.
    pub fn units(&self, units: u64) {
        self.bar.set_length(units);
    }

    /// Advances to a unit.
    pub fn at(&self, unit: u64) {
        self.bar.set_position(unit);
    }

    /// Says what is going on; `line` decides whether it is worth a line where nothing moves.
    pub fn say(&self, message: &str, line: bool) {
        self.bar.set_message(message.to_string());
        if self.plain && line {
            anstream::eprintln!("  {:<9} {message}", self.step);
        }
    }

    /// Whether something moves: there is a terminal.
    pub fn is_live(&self) -> bool {
        !self.plain
    }

    /// Sets the lines below the bar. They are shown in a terminal only.
    pub fn below(&self, lines: &[String]) {
        let mut below = self.below.borrow_mut();
        while below.len() < lines.len() {
            let line = self.all.add(ProgressBar::new(0));
            if let Ok(style) = ProgressStyle::with_template("            {msg}") {
                line.set_style(style);
            }
            below.push(line);
        }
        below.drain(lines.len()..).for_each(|line| line.finish_and_clear());
        below.iter().zip(lines).for_each(|(line, text)| line.set_message(text.clone()));
    }

    /// Removes the bar and leaves one line. Returns the time it took.
    pub fn finish(self, detail: &str) -> Duration {
        self.below(&[]);
        self.bar.finish_and_clear();
        let took = self.started.elapsed();
        done(self.step, detail, took);
        took
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.below(&[]);
        self.bar.finish_and_clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sparklines_span_their_values() {
        assert_eq!(sparkline(&[0.0, 7.0, 3.0, f64::NAN]), "▁█▄ ");
        assert_eq!(sparkline(&[2.0, 2.0]), "▄▄");
        assert_eq!(sparkline(&[]), "");
    }

    #[test]
    fn durations_read_well_at_every_scale() {
        let said = [0.0042, 3.21, 9.97, 61.0, 119.4, 119.6, 221.4].map(duration);
        assert_eq!(said, ["4.2 ms", "3.2 s", "10 s", "61 s", "119 s", "2 min 00 s", "3 min 41 s"]);
    }
}
