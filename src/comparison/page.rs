//! The comparison as one self-contained page. A row keeps its letter and its colour through all charts.

use super::figure::{FIGURES, Figure, Theme};
use super::{Comparison, Pooled, Row};
use crate::terminal::duration;
use excon_edge::page::{
    self, Caption, Column, Dot, DotChart, KeyFigure, LineChart, Series, Unit, dot_chart, figure, line_chart, pair,
    reliability_diagram, section, swatch, table, text,
};
use excon_train::evaluate::Origin;
use maud::{Markup, html};

/// Longest name that stands in a chart; longer ones are called by their letter.
const NAME: usize = 22;

/// The letter of a row: A, B, … Z, then numbers.
pub fn letter(index: usize) -> String {
    match u8::try_from(index) {
        Ok(i) if i < 26 => char::from(b'A' + i).to_string(),
        _ => (index + 1).to_string(),
    }
}

/// A figure of a row as text: `72.4 ± 0.8`, or `72.4` for a single run; nothing where not measured.
pub fn cell(f: &Figure, row: &Row) -> String {
    let Some(p) = row.figures.get(f.key) else { return String::new() };
    match p.spread {
        Some(spread) => format!("{} ± {}", f.write(p.mean), f.write(spread)),
        None => f.write(p.mean),
    }
}

/// The page as HTML text.
pub fn render(c: &Comparison) -> String {
    let v = View { c, names: names(&c.rows) };
    let sections = [
        v.rows(),
        v.dots(Theme::Accuracy, &["accuracy", "macro_accuracy"], ACCURACY),
        v.dots(Theme::Features, &["linear_probe", "neighbours"], FEATURES),
        v.calibration(),
        v.dots(
            Theme::Explanation,
            &["drop", "increase", "deletion", "insertion", "occlusion", "energy", "pointing"],
            EXPLANATION,
        ),
        v.attacks(),
        v.corruptions(),
        v.training(),
        v.all(),
    ];
    let body = html! { @for section in &sections { (section) } };
    let runs: usize = c.rows.iter().map(|r| r.runs.len()).sum();
    let lede = format!(
        "{} in {}. Runs of the same settings on the same data set are one row: its figures are means, ± the standard \
         deviation of the runs.",
        counted(runs, "run"),
        counted(c.rows.len(), "row"),
    );
    let footer = format!("{}. The same figures as data: {} --format json.", c.tool, c.command);
    page::document("ExCon on the edge · report", "Runs side by side", &lede, &v.key_figures(), &body, &footer)
}

const ACCURACY: &str = "On the test pictures, each touched once.";
const FEATURES: &str = "Accuracy of a linear classifier and of the nearest training pictures on the frozen features.";
const EXPLANATION: &str = "Whether the map shows what the prediction rests on, and whether the embedding minds an occlusion. \
                           docs/evaluation.md has the definitions.";

fn counted(n: usize, thing: &str) -> String {
    if n == 1 { format!("one {thing}") } else { format!("{n} {thing}s") }
}

/// What charts call the rows: their names where all are short, else their letters.
fn names(rows: &[Row]) -> Vec<String> {
    let full: Vec<String> = rows.iter().map(|r| r.name.clone()).collect();
    let distinct = full.iter().collect::<std::collections::BTreeSet<_>>().len() == full.len();
    if distinct && full.iter().all(|name| name.chars().count() <= NAME) {
        return full;
    }
    (0..rows.len()).map(letter).collect()
}

struct View<'a> {
    c: &'a Comparison,
    names: Vec<String>,
}

impl View<'_> {
    fn caption<'b>(&'b self, text: &'b str, samples: &'b str) -> Caption<'b> {
        // A long list of runs stands once, at the head of the page.
        let command = if self.c.command.len() > 60 { "excon report RUNS" } else { &self.c.command };
        Caption { text, samples, command }
    }

    fn samples(&self) -> String {
        let runs: usize = self.c.rows.iter().map(|r| r.runs.iter().filter(|m| m.evaluated).count()).sum();
        let mut pictures: Vec<usize> = self.c.rows.iter().filter_map(|r| r.pictures).collect();
        pictures.sort_unstable();
        pictures.dedup();
        match pictures[..] {
            [n] => format!("{n} test pictures, {}", counted(runs, "evaluated run")),
            _ => counted(runs, "evaluated run"),
        }
    }

    /// The best mean of a few figures, each with the row that has it.
    fn key_figures(&self) -> Vec<KeyFigure> {
        let wanted = ["accuracy", "ece", "drop", "pgd20", "corrupted_accuracy"];
        let best = |(place, key): (usize, &str)| {
            let f = FIGURES.iter().find(|f| f.key == key)?;
            let of = |i: &usize| self.c.rows[*i].figures.get(key).map(|p| if f.up { p.mean } else { -p.mean });
            let measured: Vec<usize> = (0..self.c.rows.len()).filter(|i| of(i).is_some()).collect();
            let row = measured
                .iter()
                .copied()
                .max_by(|a, b| of(a).partial_cmp(&of(b)).unwrap_or(std::cmp::Ordering::Equal))?;
            let word = if f.up { "highest" } else { "lowest" };
            let pooled = &self.c.rows[row].figures[key];
            let written = |i: &&usize| f.write(self.c.rows[**i].figures[key].mean) == f.write(pooled.mean);
            let alike: Vec<String> = measured.iter().filter(written).map(|i| letter(*i)).collect();
            let note = match (measured.len(), alike.len()) {
                (1, _) => letter(row),
                (n, 1) => format!("{}, the {word} of {n}", letter(row)),
                _ => format!("{} alike", alike.join(", ")),
            };
            let theme = match f.theme {
                Theme::Corruption => ", corrupted",
                _ => "",
            };
            let name = if f.theme == Theme::Corruption { "top-1" } else { f.name };
            Some(KeyFigure {
                name: format!("{name}{theme}"),
                value: format!("{} %", f.write(pooled.mean)),
                note,
                lead: place == 0,
            })
        };
        wanted.into_iter().enumerate().filter_map(best).collect()
    }

    fn rows(&self) -> Markup {
        let rows: Vec<Vec<Markup>> = self
            .c
            .rows
            .iter()
            .enumerate()
            .map(|(i, r)| {
                let seeds: Vec<String> = r.runs.iter().map(|m| m.seed.to_string()).collect();
                let epochs: Vec<[usize; 2]> = r.runs.iter().filter_map(|m| m.epoch).collect();
                let kept: Vec<String> = epochs.iter().map(|e| e[0].to_string()).collect();
                let of = epochs.first().map_or(String::new(), |e| format!("{} of {}", kept.join(", "), e[1]));
                let seconds: Vec<_> = r.runs.iter().filter_map(|m| m.seconds).map(|s| (s, None)).collect();
                vec![
                    swatch(i, &letter(i)),
                    text(&r.name),
                    text(&r.network),
                    text(&r.data),
                    text(seeds.join(", ")),
                    text(of),
                    text(Pooled::of(&seconds).map(|p| duration(p.mean)).unwrap_or_default()),
                ]
            })
            .collect();
        let columns = [
            Column::text(""),
            Column::text("method"),
            Column::text("network"),
            Column::text("data"),
            Column::text("seeds"),
            Column::text("kept epoch"),
            Column::number("training"),
        ];
        let notes = self.c.notes.join(". ");
        let runs = counted(self.c.rows.iter().map(|r| r.runs.len()).sum(), "run");
        let words =
            "The kept epoch is chosen on one half of the validation pictures. Training is the mean time a run took.";
        section(
            "What was run",
            &if notes.is_empty() { String::new() } else { format!("{notes}.") },
            &figure("", &table(&columns, &rows), &Caption { command: &self.c.command, ..self.caption(words, &runs) }),
        )
    }

    /// Dot charts of some figures of a theme, in pairs; nothing where none was measured.
    fn dots(&self, theme: Theme, keys: &[&str], sentence: &str) -> Markup {
        let charts = self.charts(keys);
        if charts.is_empty() {
            return html! {};
        }
        section(theme.words(), sentence, &figure("", &pairs(&charts), &self.caption(DOTS, &self.samples())))
    }

    fn charts(&self, keys: &[&str]) -> Vec<Markup> {
        keys.iter().filter_map(|key| FIGURES.iter().find(|f| f.key == *key)).filter_map(|f| self.chart(f)).collect()
    }

    fn chart(&self, f: &Figure) -> Option<Markup> {
        let rows: Vec<Dot> = self
            .c
            .rows
            .iter()
            .zip(&self.names)
            .map(|(row, name)| {
                let p = row.figures.get(f.key);
                let spread = |p: &Pooled| p.spread.map(|s| [p.mean - s, p.mean + s]);
                Dot {
                    label: name.clone(),
                    values: p.map(|p| p.values.clone()).unwrap_or_default(),
                    interval: p.and_then(|p| spread(p).or(p.interval)),
                    text: cell(f, row),
                }
            })
            .collect();
        let title = f.title().replace(", %", "");
        let chart = DotChart { description: f.name, title: &title, unit: f.unit(), rows: &rows };
        rows.iter().any(|r| !r.values.is_empty()).then(|| dot_chart(&chart))
    }

    fn calibration(&self) -> Markup {
        let charts = self.charts(&["ece", "unscaled_ece", "nll", "auroc"]);
        if charts.is_empty() {
            return html! {};
        }
        let known = self.c.rows.iter().enumerate().filter(|(_, r)| !r.reliability.is_empty());
        let diagrams: Vec<Markup> = known
            .map(|(i, r)| {
                let ece = r.figures.get("ece").map_or(String::new(), |p| format!("ECE {:.1} %", 100.0 * p.mean));
                reliability_diagram(&self.names[i], &ece, &r.reliability)
            })
            .collect();
        let words = "After scaling, bins of all runs of a row together. The light tip is the gap to the mean confidence: \
                     orange where the network is too sure, blue where it is not sure enough.";
        let samples = self.samples();
        section(
            Theme::Calibration.words(),
            "Whether the network is right as often as it says. One temperature a run was fitted on validation pictures.",
            &html! {
                (figure("", &pairs(&charts), &self.caption(DOTS, &samples)))
                (figure("Reliability", &pairs(&diagrams), &self.caption(words, &samples)))
            },
        )
    }

    /// A line a row, from the values of each; none where no row has any.
    fn lines(&self, description: &str, x: &str, y: &str, of: impl Fn(&Row) -> Vec<(f64, f64)>) -> Option<Markup> {
        let series: Vec<Series> =
            self.c.rows.iter().zip(&self.names).map(|(r, name)| Series { name: name.clone(), points: of(r) }).collect();
        let chart = LineChart { description, x, y, unit: Unit::Percent, range: None, series: &series };
        series.iter().any(|s| !s.points.is_empty()).then(|| line_chart(&chart))
    }

    fn attacks(&self) -> Markup {
        let curve =
            self.lines("Accuracy by strength of the attack", "ε, levels of a byte", "accuracy under FGSM", |r| {
                r.accuracy_by_epsilon.clone()
            });
        let charts: Vec<Markup> = curve.into_iter().chain(self.charts(&["pgd20"])).collect();
        if charts.is_empty() {
            return html! {};
        }
        let words = "White box, with the true label. FGSM takes one step of size ε, PGD twenty within 8/255.";
        let samples = self.samples();
        section(Theme::Attack.words(), "", &figure("", &pairs(&charts), &self.caption(words, &samples)))
    }

    fn corruptions(&self) -> Markup {
        let points = |values: &[f64]| values.iter().enumerate().map(|(i, v)| (i as f64, *v)).collect::<Vec<_>>();
        let curves = [
            self.lines("Accuracy by severity", "severity, 0 is none", "accuracy, mean of 15", |r| {
                points(&r.accuracy_by_severity)
            }),
            self.lines("Calibration error by severity", "severity, 0 is none", "ECE, mean of 15", |r| {
                points(&r.ece_by_severity)
            }),
        ];
        let curves: Vec<Markup> = curves.into_iter().flatten().collect();
        let Some(first) = self.c.rows.iter().find(|r| !r.corruptions.is_empty()) else { return html! {} };
        let of = |row: &Row, name: &str| row.corruptions.iter().find(|(n, _)| n == name).map(|(_, v)| *v);
        let lines: Vec<Vec<Markup>> = first
            .corruptions
            .iter()
            .map(|(name, _)| {
                let value = |row: &Row| text(of(row, name).map_or("–".into(), |v| format!("{:.1}", 100.0 * v)));
                std::iter::once(text(name.replace('_', " "))).chain(self.c.rows.iter().map(value)).collect()
            })
            .collect();
        let titles: Vec<String> = (0..self.c.rows.len()).map(letter).collect();
        let mut columns = vec![Column::text("accuracy, %, mean of 5 severities")];
        columns.extend(titles.iter().map(|t| Column::number(t)));
        let origin = match first.origin {
            Some(Origin::Published) => "The corrupted pictures are the published files.",
            _ => {
                "The corrupted pictures are regenerated from the test pictures, not the published files: frost is only \
                 frost-like, and figures are not comparable digit by digit with published ones."
            }
        };
        let samples = self.samples();
        section(
            Theme::Corruption.words(),
            origin,
            &html! {
                (figure("", &pairs(&curves), &self.caption("The benchmark's fifteen corruptions.", &samples)))
                (figure("By corruption", &table(&columns, &lines), &self.caption("", &samples)))
            },
        )
    }

    fn training(&self) -> Markup {
        let curve = self.lines("Validation accuracy by epoch", "epoch", "validation accuracy", |r| {
            r.validation_by_epoch.iter().enumerate().map(|(i, v)| ((i + 1) as f64, *v)).collect()
        });
        let Some(curve) = curve else { return html! {} };
        let words = "On the half of the validation pictures that chooses the epoch; the mean over a row's runs.";
        let runs: usize = self.c.rows.iter().map(|r| r.runs.len()).sum();
        let samples = counted(runs, "run");
        section("Training", "", &figure("", &pairs(&[curve]), &self.caption(words, &samples)))
    }

    fn all(&self) -> Markup {
        let mut lines: Vec<Vec<Markup>> = Vec::new();
        for f in &FIGURES {
            let cells: Vec<String> = self.c.rows.iter().map(|row| cell(f, row)).collect();
            if cells.iter().any(|c| !c.is_empty()) {
                let shown = |c: String| text(if c.is_empty() { "–".to_string() } else { c });
                let name = html! { (f.title()) @if f.theme == Theme::Corruption { " (corrupted)" } };
                lines.push(std::iter::once(name).chain(cells.into_iter().map(shown)).collect());
            }
        }
        if lines.is_empty() {
            return html! {};
        }
        let titles: Vec<String> = (0..self.c.rows.len()).map(letter).collect();
        let mut columns = vec![Column::text("figure, ↑ more is better, ↓ less is better")];
        columns.extend(titles.iter().map(|t| Column::number(t)));
        let samples = self.samples();
        let words =
            "Mean ± standard deviation of the runs; a single run has no ±. The definitions are in docs/evaluation.md.";
        section("All figures", "", &figure("", &table(&columns, &lines), &self.caption(words, &samples)))
    }
}

const DOTS: &str = "A ring is a run, the bar across their mean, the line one standard deviation to each side. A single run is a \
                    dot, its line the 95 % bootstrap interval over test pictures. Axes need not begin at 0.";

/// Charts two by two.
fn pairs(charts: &[Markup]) -> Markup {
    let nothing = html! {};
    html! {
        @for two in charts.chunks(2) { (pair(&two[0], two.get(1).unwrap_or(&nothing))) }
    }
}
