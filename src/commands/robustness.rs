//! The tables of `excon evaluate --attacks` and `--corruptions`.

use crate::failure::Result;
use crate::terminal::{self, Progress, percent};
use excon_edge::engine::Engine;
use excon_edge::image::Preprocess;
use excon_train::corruption::Corruption;
use excon_train::dataset::Split;
use excon_train::evaluate::{Attack, Attacked, Cell, Corrupted, Means, SEVERITIES, attacked, corrupted};
use excon_train::network::Network;

/// Measures every attack, with a progress bar.
pub fn attack(network: &Network, split: &Split, p: &Preprocess, temperature: f64, seed: u64) -> Result<Vec<Attacked>> {
    let progress = Progress::start("attacks", Attack::ALL.len() as u64);
    let mut all = Vec::new();
    for attack in Attack::ALL {
        progress.say(&attack.name(), true);
        all.push(attacked(network, split, p, temperature, attack, seed)?);
        progress.at(all.len() as u64);
    }
    progress.finish(&format!("{} pictures, {} ways", split.len(), all.len()));
    Ok(all)
}

/// Measures every corruption, with a progress bar.
pub fn corrupt(engine: &dyn Engine, split: &Split, p: &Preprocess, temperature: f64, seed: u64) -> Result<Corrupted> {
    let cells = Corruption::ALL.len() * SEVERITIES;
    let progress = Progress::start("corrupt", cells as u64);
    let mut count = 0;
    let mut done = |cell: &Cell| {
        count += 1;
        progress.at(count);
        progress.say(&format!("{}, severity {}", cell.corruption, cell.severity), cell.severity == SEVERITIES);
    };
    let table = corrupted(engine, split, p, temperature, seed, &mut done)?;
    progress.finish(&format!("{} pictures, {cells} cells", split.len()));
    Ok(table)
}

/// Prints attacks, one a line.
pub fn print_attacks(all: &[Attacked]) -> Result<()> {
    terminal::heading("On attacked pictures (white box, true label)")?;
    let said = |a: &Attacked| {
        let m = &a.metrics;
        format!(
            "accuracy {}, ECE {}, NLL {:.3}",
            with_interval(m.accuracy, a.intervals.accuracy),
            percent(m.ece),
            m.nll
        )
    };
    terminal::rows(&all.iter().map(|a| (a.name.as_str(), said(a))).collect::<Vec<_>>())
}

/// Prints three tables, corruption × severity.
pub fn print_corruptions(table: &Corrupted) -> Result<()> {
    let (percents, nats) = (|v: f64| format!("{:.1}", 100.0 * v), |v: f64| format!("{v:.3}"));
    type Figure = (&'static str, fn(&Cell) -> f64, fn(&Means) -> f64, fn(f64) -> String);
    let figures: [Figure; 3] = [
        ("accuracy, %", |c| c.accuracy, |m| m.accuracy, percents),
        ("ECE, %", |c| c.ece, |m| m.ece, percents),
        ("NLL, nats", |c| c.nll, |m| m.nll, nats),
    ];
    for (name, of_cell, of_means, form) in figures {
        terminal::heading(&format!("{name}, by severity of regenerated corruptions, {} pictures", table.pictures))?;
        let line = |values: Vec<String>| values.iter().map(|v| format!("{v:>7}")).collect::<String>();
        let head = (1..=SEVERITIES).map(|s| s.to_string()).chain(["mean".into()]).collect();
        let mut lines = vec![("", line(head))];
        for corruption in Corruption::ALL {
            let cells = table.cells.iter().filter(|c| c.corruption == corruption.name());
            let mean = form(of_means(&table.of(corruption)));
            lines.push((corruption.name(), line(cells.map(|c| form(of_cell(c))).chain([mean]).collect())));
        }
        let blank = vec![String::new(); SEVERITIES];
        lines.push(("mean without dark", line([blank, vec![form(of_means(&table.mean))]].concat())));
        terminal::rows(&lines)?;
    }
    Ok(())
}

/// `72.4 % (68.0 to 76.4)`.
pub fn with_interval(value: f64, [low, high]: [f64; 2]) -> String {
    format!("{} ({:.1} to {:.1})", percent(value), 100.0 * low, 100.0 * high)
}
