//! The tables of `excon evaluate`: a few figures a group, with their intervals, and what is good about them.

use crate::evaluation::Report;
use crate::failure::Result;
use crate::terminal::{self, duration, percent};
use excon_edge::probability::{Estimate, Intervals, Metrics};
use excon_train::evaluate::{Attacked, Corrupted, Evaluation, Explanations, KEPT, Means, Measured, Origin, Probe};

/// Prints a whole evaluation.
pub fn print(r: &Report) -> Result<()> {
    let (e, m) = (&r.evaluation, &r.evaluation.measured.metrics);
    let fitted = match r.temperature_fitted_on {
        0 => "the model's own".to_string(),
        n => format!("fitted on {n} validation pictures"),
    };
    terminal::rows(&[
        ("pictures", format!("{} ({} of {})", m.count, r.split, r.data)),
        ("engine", format!("{}, {}", e.engine, duration(e.seconds))),
        ("calibrated", format!("{}, {fitted}", e.scaling.words())),
    ])?;
    accuracy(&e.measured)?;
    explanation(e, r.explanations.as_ref())?;
    r.probe.as_ref().map_or(Ok(()), probe)?;
    r.attacks.as_deref().map_or(Ok(()), attacks)?;
    r.corruptions.as_ref().map_or(Ok(()), corruptions)
}

/// Cells of a value and its interval.
type Written = fn(f64) -> String;
const SHARE: Written = |v| format!("{:.1}", 100.0 * v);
const PLAIN: Written = |v| format!("{v:.3}");

fn interval([low, high]: [f64; 2], form: Written) -> String {
    format!("{} to {}", form(low), form(high))
}

fn accuracy(m: &Measured) -> Result<()> {
    type Figure = (&'static str, fn(&Metrics) -> f64, fn(&Intervals) -> [f64; 2], Written);
    let line = |(name, of, limits, form): &Figure, before: bool| {
        let mut line = vec![name.to_string(), form(of(&m.metrics)), interval(limits(&m.intervals), *form)];
        line.extend(before.then(|| form(of(&m.unscaled))));
        line
    };
    let head = |texts: &[&str]| texts.iter().map(|t| t.to_string()).collect::<Vec<_>>();
    terminal::heading("Accuracy, %")?;
    let figures: [Figure; 3] = [
        ("top-1", |m| m.accuracy, |i| i.accuracy, SHARE),
        ("top-5", |m| m.top5, |i| i.top5, SHARE),
        ("macro", |m| m.macro_accuracy, |i| i.macro_accuracy, SHARE),
    ];
    let mut rows = vec![head(&["", "", "95 % interval"])];
    rows.extend(figures.iter().map(|f| line(f, false)));
    terminal::table("lrr", &rows)?;

    terminal::heading("Calibration, after scaling")?;
    let figures: [Figure; 5] = [
        ("ECE, %", |m| m.ece, |i| i.ece, SHARE),
        ("ECE of 10 bins, %", |m| m.ece10, |i| i.ece10, SHARE),
        ("classwise ECE, %", |m| m.classwise_ece, |i| i.classwise_ece, |v| format!("{:.2}", 100.0 * v)),
        ("NLL, nats", |m| m.nll, |i| i.nll, PLAIN),
        ("Brier", |m| m.brier, |i| i.brier, PLAIN),
    ];
    let mut rows = vec![head(&["", "", "95 % interval", "before"])];
    rows.extend(figures.iter().map(|f| line(f, true)));
    if let (Some(value), Some(limits), Some(before)) = (m.metrics.auroc, m.intervals.auroc, m.unscaled.auroc) {
        rows.push(vec!["AUROC of errors".into(), PLAIN(value), interval(limits, PLAIN), PLAIN(before)]);
    }
    terminal::table("lrrr", &rows)
}

fn explanation(e: &Evaluation, more: Option<&Explanations>) -> Result<()> {
    terminal::heading("Explanations")?;
    if let Some(reason) = &e.no_map {
        terminal::out(&format!("  No map: {reason}.\n"))?;
    }
    let line = |name: &str, value: Estimate, form: Written, remark: String| {
        vec![name.to_string(), form(value.value), interval(value.interval, form), remark]
    };
    let of = |value, interval| Estimate { value, interval };
    let mut rows = vec![vec![String::new(), String::new(), "95 % interval".into(), String::new()]];
    if let Some(f) = &e.faithfulness {
        let kept = format!("top {:.0} % kept; {} pictures", 100.0 * KEPT, f.count);
        rows.push(line("drop, % ↓", of(f.drop, f.drop_interval), SHARE, kept));
        rows.push(line("increase, % ↑", of(f.increase, f.increase_interval), SHARE, String::new()));
    }
    if let Some(x) = more {
        let o = &x.occlusion;
        if let (Some(deletion), Some(insertion)) = (x.deletion, x.insertion) {
            rows.push(line("deletion ↓", deletion, PLAIN, format!("{} steps; {} pictures", x.steps, x.count)));
            rows.push(line("insertion ↑", insertion, PLAIN, String::new()));
        }
        let remark = format!("of the embedding; cosine {:.2}, between pictures {:.2}", o.cosine, o.between);
        rows.push(line("occlusion invariance ↑", o.invariance, PLAIN, remark));
    }
    if let Some(l) = &e.localisation {
        rows.push(line("energy in box, % ↑", l.energy, SHARE, format!("a flat map: {}", percent(l.area))));
        rows.push(line("pointing game, % ↑", l.pointing, SHARE, format!("{} pictures with a box", l.count)));
    }
    let gap = format!("{:.0e}", e.completeness_residual);
    let name = if e.no_map.is_some() { "head against logit" } else { "map against logit" };
    rows.push(vec![name.into(), gap, String::new(), "largest gap, allowed 1e-4".into()]);
    terminal::table("lrrl", &rows)
}

fn probe(p: &Probe) -> Result<()> {
    terminal::heading(&format!("Features, fitted on {} training pictures", p.train))?;
    terminal::rows(&[
        ("linear probe", format!("{}  (L2 {})", percent(p.linear), p.l2)),
        ("neighbours", format!("{}  ({} vote)", percent(p.neighbours), p.voters)),
    ])
}

fn attacks(all: &[Attacked]) -> Result<()> {
    terminal::heading("Under attack (white box, true label)")?;
    let mut rows = vec![["", "accuracy, %", "95 % interval", "ECE, %", "NLL, nats"].map(String::from).to_vec()];
    rows.extend(all.iter().map(|a| {
        let m = &a.measured.metrics;
        let limits = interval(a.measured.intervals.accuracy, SHARE);
        vec![a.name.clone(), SHARE(m.accuracy), limits, SHARE(m.ece), PLAIN(m.nll)]
    }));
    terminal::table("lrrrr", &rows)
}

fn corruptions(table: &Corrupted) -> Result<()> {
    let origin = match table.origin {
        Origin::Regenerated => "regenerated",
        Origin::Published => "published",
    };
    terminal::heading(&format!("Under {origin} corruptions, {} pictures a cell", table.pictures))?;
    let head = ["", "accuracy, %", "severity 1", "5", "ECE, %", "NLL, nats"];
    let mut rows = vec![head.map(String::from).to_vec()];
    let means = |name: &str, m: Option<Means>, ends: [String; 2]| {
        let figures = m.map(|m| [SHARE(m.accuracy), SHARE(m.ece), PLAIN(m.nll)]).unwrap_or_default();
        let [accuracy, ece, nll] = figures;
        let [mild, strong] = ends;
        vec![name.to_string(), accuracy, mild, strong, ece, nll]
    };
    let (mut notes, mut group) = (Vec::new(), None);
    for cells in table.cells.chunk_by(|a, b| a.corruption == b.corruption) {
        let end = |severity: usize| {
            let cell = cells.iter().find(|c| c.severity == severity);
            cell.map(|c| SHARE(c.measured.metrics.accuracy)).unwrap_or_default()
        };
        let name = &cells[0].corruption;
        if group.replace(cells[0].group).is_some_and(|before| before != cells[0].group) {
            rows.push(vec![String::new()]);
        }
        let last = cells.iter().map(|c| c.severity).max().unwrap_or_default();
        rows.push(means(name, table.means(|c| c.corruption == *name), [end(1), end(last)]));
        notes.extend(cells[0].approximation.as_ref().map(|note| format!("  {name}: {note}\n")));
    }
    let none = || [String::new(), String::new()];
    rows.push(vec![String::new()]);
    rows.push(means("mean of the 15", table.mean.filter(|m| m.cells == 75), none()));
    rows.push(means("mean of the 4 held out", table.mean_held_out.filter(|m| m.cells == 20), none()));
    rows.retain(|row| row.len() < 2 || !row[1].is_empty());
    terminal::table("lrrrrr", &rows)?;
    terminal::out(&notes.concat())
}
