//! The study's tables, as Markdown.

use crate::play::Variant;
use crate::{Cell, SEVERITIES};
use anstream::println;
use excon_edge::shift::{Channel, FrameScores, Likeness, Look, Sides};
use excon_train::corruption::Corruption;

/// Frames at which delays are cut, here and in `peers.py`.
const CUT: f64 = 300.0;
const NEVER: &str = "never";

/// The cells that are new content.
fn contents(cells: &[Cell]) -> Vec<&Cell> {
    cells.iter().filter(|c| c.corruption.is_none()).collect()
}

/// `| first | severity 1 | 3 | 5 | other classes | … |` and the line below it.
fn head(first: &str, cells: &[Cell], last: &[&str]) {
    let contents: Vec<&str> = contents(cells).iter().map(|c| c.name.as_str()).collect();
    let columns = [&["severity 1", "3", "5"], contents.as_slice(), last].concat();
    println!("\n| {first} | {} |\n|{}", columns.join(" | "), "---|".repeat(columns.len() + 1));
}

/// AUROC of each channel of one frame against a healthy one: means over the corruptions.
pub fn auroc(healthy: &Cell, cells: &[Cell]) {
    head("channel", cells, &[]);
    for channel in Channel::ALL {
        let against = |cell: &Cell| folded(channel, &healthy.scores, &cell.scores);
        let at = |severity: usize| {
            let found: Vec<f64> = cells.iter().filter(|c| c.severity == severity).filter_map(against).collect();
            found.iter().sum::<f64>() / found.len() as f64
        };
        let mut row = SEVERITIES.map(at).to_vec();
        if row[0].is_finite() {
            row.extend(contents(cells).into_iter().map(|c| against(c).unwrap_or(f64::NAN)));
            let row: Vec<String> = row.iter().map(|v| format!("{v:.3}")).collect();
            println!("| {} | {} |", channel.name(), row.join(" | "));
        }
    }
}

/// P(shifted > healthy) + ½ P(equal); for a two-sided channel the larger of it and its complement.
fn folded(channel: Channel, healthy: &[FrameScores], shifted: &[FrameScores]) -> Option<f64> {
    let values = |scores: &[FrameScores]| -> Vec<f64> { scores.iter().filter_map(|s| s.get(channel)).collect() };
    let (mut healthy, shifted) = (values(healthy), values(shifted));
    if healthy.is_empty() || shifted.is_empty() {
        return None;
    }
    healthy.sort_by(f64::total_cmp);
    let beaten = |v: &f64| healthy.partition_point(|h| h < v) + healthy.partition_point(|h| h <= v);
    let area = shifted.iter().map(beaten).sum::<usize>() as f64 / (2 * healthy.len() * shifted.len()) as f64;
    Some(if channel.sides() == Sides::Both { area.max(1.0 - area) } else { area })
}

/// What became of a variant.
pub struct Played<'a> {
    pub variant: &'a Variant,
    /// Delays of its streams per cell.
    pub delays: Vec<Vec<Option<usize>>>,
    /// Healthy streams of N/10 frames that rang.
    pub rang: usize,
    /// Mean time between false alarms, with one reference.
    pub attained: f64,
}

/// Median and, in brackets, 95th percentile of every shift, for the variants that are shown in full.
pub fn in_full(cells: &[Cell], played: &[Played]) {
    let shown: Vec<&Played> = played.iter().filter(|p| p.variant.in_full).collect();
    let names: Vec<String> = shown.iter().map(|p| format!("{}: severity 1 / 3 / 5", p.variant.name)).collect();
    println!("\n| shift | {} |\n|{}", names.join(" | "), "---|".repeat(1 + shown.len()));
    let cell = |delays: &[Option<usize>]| {
        let [median, late] = [0.5, 0.95].map(|q| words(quantile(delays, q)));
        let late = if late == NEVER { "–".into() } else { late };
        if median == NEVER { median } else { format!("{median} ({late})") }
    };
    let mut names: Vec<&str> = cells.iter().map(|c| c.name.as_str()).collect();
    names.dedup();
    for name in names {
        let rows: Vec<usize> = (0..cells.len()).filter(|&i| cells[i].name == name).collect();
        let of = |p: &&Played| rows.iter().map(|&i| cell(&p.delays[i])).collect::<Vec<_>>().join(" / ");
        println!("| {name} | {} |", shown.iter().map(of).collect::<Vec<_>>().join(" | "));
    }
}

/// Geometric mean over the 19 corruptions of the medians, cut at [`CUT`] frames, for every variant.
pub fn variants(cells: &[Cell], played: &[Played], healthy_streams: u64) {
    head("weight", cells, &["healthy streams of N/10 frames that rang", "mean time attained"]);
    for Played { variant, delays, rang, attained } in played {
        let median = |i: usize| quantile(&delays[i], 0.5).unwrap_or(CUT).min(CUT);
        let at = |severity: usize| {
            let suite = |i: &usize| cells[*i].severity == severity && cells[*i].corruption != Some(Corruption::Dark);
            let logs: Vec<f64> = (0..cells.len()).filter(suite).map(|i| median(i).ln()).collect();
            (logs.iter().sum::<f64>() / logs.len() as f64).exp()
        };
        let mut row = SEVERITIES.map(|s| format!("{:.1}", at(s))).to_vec();
        let content = |i: &usize| cells[*i].corruption.is_none();
        row.extend((0..cells.len()).filter(content).map(|i| format!("{:.0}", median(i))));
        println!("| {} | {} | {rang} of {healthy_streams} | {attained:.0} |", variant.name, row.join(" | "));
    }
}

/// Confusion matrix of what alarms look like: true kinds down, the likeliest kind across, shares of the streams that
/// rang; beside it how often the true kind is the first, and among the first three.
pub fn looks(rows: &[(Look, usize, Vec<Likeness>)]) {
    println!("\n### What alarms look like\n");
    let names: Vec<&str> = Look::ALL.iter().map(|l| l.words()).collect();
    println!("| | {} | first | of three | rang |", names.join(" | "));
    println!("|---|{}", "---|".repeat(Look::ALL.len() + 3));
    let hit = |rows: &[&(Look, usize, Vec<Likeness>)], within: usize| {
        let hits = rows.iter().filter(|(truth, _, found)| found.iter().take(within).any(|l| l.look == *truth)).count();
        100.0 * hits as f64 / rows.len().max(1) as f64
    };
    for truth in Look::ALL {
        let all = rows.iter().filter(|r| r.0 == truth).count();
        let rang: Vec<_> = rows.iter().filter(|r| r.0 == truth && !r.2.is_empty()).collect();
        let share = |look: Look| {
            let count = rang.iter().filter(|r| r.2[0].look == look).count();
            format!("{:.0}", 100.0 * count as f64 / rang.len().max(1) as f64)
        };
        let cells: Vec<String> = Look::ALL.into_iter().map(share).collect();
        let (first, three) = (hit(&rang, 1), hit(&rang, 3));
        println!("| {} | {} | {first:.0} | {three:.0} | {} of {all} |", truth.words(), cells.join(" | "), rang.len());
    }
    for severity in SEVERITIES {
        let rang: Vec<_> = rows.iter().filter(|r| r.1 == severity && !r.2.is_empty()).collect();
        println!("\nseverity {severity}: first {:.0} %, among three {:.0} %", hit(&rang, 1), hit(&rang, 3));
    }
}

/// A quantile of the delays; none where it is beyond the last frame.
pub fn quantile(delays: &[Option<usize>], q: f64) -> Option<f64> {
    let mut sorted: Vec<usize> = delays.iter().map(|d| d.unwrap_or(usize::MAX)).collect();
    sorted.sort_unstable();
    let at = ((sorted.len() as f64 * q).ceil() as usize).clamp(1, sorted.len()) - 1;
    sorted.get(at).filter(|d| **d != usize::MAX).map(|d| *d as f64)
}

/// Frames, or that there was no alarm.
pub fn words(value: Option<f64>) -> String {
    value.map_or(NEVER.into(), |v| format!("{v}"))
}
