//! `excon report`: runs side by side, seeds pooled.

use crate::comparison::figure::FIGURES;
use crate::comparison::{Comparison, Pooled, page};
use crate::failure::Result;
use crate::terminal::{self, Format, duration};
use clap::Args;
use excon_edge::file::replace;
use std::path::PathBuf;

/// Lays runs side by side, seeds pooled into mean and spread
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  excon report runs/excon-1 runs/excon-2 runs/supcon-1
  excon report runs/* --out report.html
  excon report runs/mine mine.json

Runs that differ in nothing but seed, device and the place of their data are one row: mean ± standard deviation over the runs. Evaluations are
those that `excon evaluate RUN --data PATH` kept in each run; a file that `excon evaluate --out` wrote is a row by
itself, a bundle's for instance.")]
pub struct Report {
    /// Run folders, or evaluations
    #[arg(value_name = "RUN|FILE.json", required = true)]
    runs: Vec<PathBuf>,
    /// Write one self-contained page with plots
    #[arg(long, value_name = "FILE.html")]
    out: Option<PathBuf>,
}

impl Report {
    /// Compares.
    pub fn run(&self, format: Format) -> Result<()> {
        let comparison = Comparison::read(&self.runs)?;
        if let Some(out) = &self.out {
            replace(out, page::render(&comparison).as_bytes())?;
        }
        if format == Format::Json {
            return terminal::json(&comparison);
        }
        self.print(&comparison)
    }

    fn print(&self, c: &Comparison) -> Result<()> {
        let mut lines = vec![["", "method", "network", "data", "runs", "training"].map(String::from).to_vec()];
        lines.extend(c.rows.iter().enumerate().map(|(i, row)| {
            let seconds: Vec<f64> = row.runs.iter().filter_map(|r| r.seconds).collect();
            let each = Pooled::of(&seconds.iter().map(|s| (*s, None)).collect::<Vec<_>>());
            vec![
                page::letter(i),
                row.name.clone(),
                row.network.clone(),
                row.data.clone(),
                row.runs.len().to_string(),
                each.map(|p| duration(p.mean)).unwrap_or_default(),
            ]
        }));
        terminal::table("lllllr", &lines)?;
        let mut theme = None;
        for figure in FIGURES.iter().filter(|f| c.rows.iter().any(|r| r.figures.contains_key(f.key))) {
            if theme.replace(figure.theme) == Some(figure.theme) {
                continue;
            }
            terminal::heading(figure.theme.words())?;
            let head = std::iter::once(String::new()).chain((0..c.rows.len()).map(page::letter));
            let mut lines = vec![head.collect::<Vec<_>>()];
            lines.extend(FIGURES.iter().filter(|f| f.theme == figure.theme).filter_map(|f| {
                let cells: Vec<String> = c.rows.iter().map(|row| page::cell(f, row)).collect();
                cells.iter().any(|c| !c.is_empty()).then(|| std::iter::once(f.title()).chain(cells).collect())
            }));
            terminal::table(&("l".to_string() + &"r".repeat(c.rows.len())), &lines)?;
        }
        if !c.notes.is_empty() {
            terminal::heading("Notes")?;
            terminal::out(&c.notes.iter().map(|n| format!("  {n}\n")).collect::<String>())?;
        }
        match &self.out {
            Some(out) => terminal::out(&format!("\nReport: {}\n", out.display())),
            None => terminal::next(&[format!("{} --out report.html", c.command)]),
        }
    }
}
