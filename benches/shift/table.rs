//! The study's tables, as Markdown.

use crate::{Cell, SEVERITIES};
use anstream::println;
use excon_edge::shift::{Channel, FrameScores, Likeness, Look, Sides};

/// AUROC of each channel of one frame against a healthy one: means over the corruptions.
pub fn auroc(cells: &[Cell]) {
    println!("\n| channel | severity 1 | 3 | 5 | other classes |\n|---|---|---|---|---|");
    for channel in Channel::ALL {
        let against = |cell: &Cell| folded(channel, &cells[0].scores, &cell.scores);
        let at = |severity: usize| {
            let found: Vec<f64> = cells.iter().filter(|c| c.severity == severity).filter_map(against).collect();
            found.iter().sum::<f64>() / found.len() as f64
        };
        let [light, middle, heavy] = SEVERITIES.map(at);
        let other = cells.iter().find(|c| c.name == "other classes").and_then(against).unwrap_or(f64::NAN);
        if light.is_finite() {
            println!("| {} | {light:.3} | {middle:.3} | {heavy:.3} | {other:.3} |", channel.name());
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

/// Median and 95th percentile per cell, their geometric mean per severity, and the healthy streams that rang.
pub fn delays(name: &str, cells: &[Cell], delays: &[Vec<Option<usize>>], rang: usize, streams: u64, mean_time: f64) {
    println!("\n### {name}\n\nN = {mean_time}; {rang} of {streams} healthy streams of N/10 frames rang.\n");
    println!("| shift | severity | median | p95 | missed |\n|---|---|---|---|---|");
    for (cell, delays) in cells.iter().zip(delays) {
        let missed = delays.iter().filter(|d| d.is_none()).count();
        let [median, late] = [0.5, 0.95].map(|q| words(quantile(delays, q)));
        println!("| {} | {} | {median} | {late} | {missed} |", cell.name, cell.severity);
    }
    for severity in SEVERITIES {
        let medians: Vec<Option<f64>> = cells
            .iter()
            .zip(delays)
            .filter(|(cell, _)| cell.severity == severity && cell.name != "dark")
            .map(|(_, d)| quantile(d, 0.5))
            .collect();
        let missed = medians.iter().filter(|m| m.is_none()).count();
        let logs: f64 = medians.iter().map(|m| m.unwrap_or(2_000.0).ln()).sum();
        let mean = (logs / medians.len() as f64).exp();
        println!("\nseverity {severity}: geometric mean of medians {mean:.1}, {missed} medians beyond 2000");
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

fn quantile(delays: &[Option<usize>], q: f64) -> Option<f64> {
    let mut sorted: Vec<usize> = delays.iter().map(|d| d.unwrap_or(usize::MAX)).collect();
    sorted.sort_unstable();
    let at = ((sorted.len() as f64 * q).ceil() as usize).clamp(1, sorted.len()) - 1;
    sorted.get(at).filter(|d| **d != usize::MAX).map(|d| *d as f64)
}

fn words(value: Option<f64>) -> String {
    value.map_or("never".into(), |v| format!("{v}"))
}
