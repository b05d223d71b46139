//! Runs side by side: what `excon report` finds, as data (`excon.comparison/1`).
//!
//! Runs of the same settings on a data set of the same name are one row, pooled over seeds into mean and spread (the
//! sample's standard deviation), wherever the pictures lay and whichever device trained; their evaluations come from
//! `evaluation.json` in each run folder. An evaluation file may stand for itself, such as a bundle's. An evaluation of
//! other weights than the run holds is not taken.

pub mod figure;
pub mod page;
#[cfg(test)]
mod tests;

use crate::evaluation::{self, Report};
use crate::failure::{Failure, Result};
use crate::settings::flat;
use excon_edge::probability::Bin;
use excon_train::checkpoint::{Run, RunManifest};
use excon_train::config::{Device, TrainConfig};
use excon_train::evaluate::{Attack, Cell, Corrupted, Means, Origin, SEVERITIES};
use figure::{FIGURES, Found};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Schema of the comparison.
pub const SCHEMA: &str = "excon.comparison/1";
/// Largest `log.jsonl` that is read, bytes.
const LOG_LIMIT: u64 = 256 << 20;

/// Runs side by side.
#[derive(Debug, Clone, Serialize)]
pub struct Comparison {
    /// Always [`SCHEMA`].
    pub schema: &'static str,
    /// Tool and version.
    pub tool: String,
    /// The command that made it.
    pub command: String,
    /// One for each combination of settings, in the order given.
    pub rows: Vec<Row>,
    /// What a reader has to know: runs without evaluation, different data.
    pub notes: Vec<String>,
}

/// Runs of the same settings on a data set of the same name: seed, device and place of the pictures may differ.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    /// Method in full, with what tells it from rows of the same method.
    pub name: String,
    /// Network.
    pub network: String,
    /// Data set.
    pub data: String,
    /// The runs.
    pub runs: Vec<Member>,
    /// Pictures behind each evaluation.
    pub pictures: Option<usize>,
    /// By key, where measured.
    pub figures: BTreeMap<&'static str, Pooled>,
    /// Accuracy by severity of corruption, 0 (none) to 5, mean of the benchmark's 15; empty where not measured.
    pub accuracy_by_severity: Vec<f64>,
    /// Calibration error likewise.
    pub ece_by_severity: Vec<f64>,
    /// Mean accuracy over severities by corruption, in the order of the tables.
    pub corruptions: Vec<(String, f64)>,
    /// Where the corrupted pictures come from.
    pub origin: Option<Origin>,
    /// (ε in levels of a byte, accuracy) under FGSM, from 0; empty where not measured.
    pub accuracy_by_epsilon: Vec<(f64, f64)>,
    /// Accuracy on the fit half of validation by epoch, mean over the runs that got there.
    pub validation_by_epoch: Vec<f64>,
    /// Reliability diagram after scaling, bins of all runs together.
    pub reliability: Vec<Bin>,
    #[serde(skip)]
    settings: Option<TrainConfig>,
    #[serde(skip)]
    reports: Vec<Report>,
}

/// One run of a row.
#[derive(Debug, Clone, Serialize)]
pub struct Member {
    /// Folder or file.
    pub path: PathBuf,
    /// Seed.
    pub seed: u64,
    /// Epoch whose weights were kept, of how many.
    pub epoch: Option<[usize; 2]>,
    /// Seconds of training.
    pub seconds: Option<f64>,
    /// What trained it.
    pub device: Option<Device>,
    /// Whether there is an evaluation of its whole test split.
    pub evaluated: bool,
}

/// A figure over the runs of a row.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Pooled {
    /// Mean over the runs.
    pub mean: f64,
    /// Standard deviation of the runs (n − 1); none for one run.
    pub spread: Option<f64>,
    /// Each run's.
    pub values: Vec<f64>,
    /// 95 % bootstrap interval over pictures of a single run; none for several.
    pub interval: Option<[f64; 2]>,
}

impl Pooled {
    /// Of some runs; none without any.
    pub fn of(found: &[Found]) -> Option<Self> {
        let values: Vec<f64> = found.iter().map(|f| f.0).collect();
        let n = values.len() as f64;
        let mean = values.iter().sum::<f64>() / n;
        let squares = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>();
        let spread = (values.len() > 1).then(|| (squares / (n - 1.0)).sqrt());
        let interval = if let [(_, interval)] = found { *interval } else { None };
        (!found.is_empty()).then_some(Self { mean, spread, values, interval })
    }
}

/// The part of a log's line that is read; whatever else stands there is left alone.
#[derive(Deserialize)]
struct Epoch {
    validation_accuracy: f64,
}

impl Comparison {
    /// Reads run folders and evaluation files.
    pub fn read(paths: &[PathBuf]) -> Result<Self> {
        let (mut rows, mut notes): (Vec<Row>, Vec<String>) = (Vec::new(), Vec::new());
        let mut logs: Vec<Vec<Vec<f64>>> = Vec::new();
        for path in paths {
            let (settings, member, report, log, mut row) = if path.is_file() {
                let report = Report::read(path)?;
                let member = Member {
                    path: path.clone(),
                    seed: report.seed,
                    epoch: None,
                    seconds: None,
                    device: None,
                    evaluated: true,
                };
                let row =
                    Row::empty(report.model.display().to_string(), report.evaluation.engine.clone(), &report.data);
                (None, member, Some(report), Vec::new(), row)
            } else {
                let m = Run::manifest(path)?;
                let report = of_run(path, &m, &mut notes)?;
                let mut settings = m.config.clone();
                (settings.seed, settings.keep, settings.device) = (0, 1, Device::Cpu);
                // Its digest is of the split, which the seed draws: it cannot tell whether the pictures are the same.
                settings.data.clone_from(&m.data);
                let member = Member {
                    path: path.clone(),
                    seed: m.seed,
                    epoch: Some([m.epoch, m.config.epochs]),
                    seconds: Some(m.seconds),
                    device: Some(m.config.device),
                    evaluated: report.is_some(),
                };
                let row = Row::empty(m.config.title(), m.config.network.clone(), &m.data);
                (Some(settings), member, report, log(path)?, row)
            };
            if rows.iter().any(|r| r.runs.iter().any(|run| run.path == *path)) {
                return Err(Failure::usage(format!("{} is given twice", path.display())));
            }
            let same = settings.as_ref().and_then(|s| rows.iter().position(|r| r.settings.as_ref() == Some(s)));
            let index = same.unwrap_or_else(|| {
                row.settings = settings;
                rows.push(row);
                logs.push(Vec::new());
                rows.len() - 1
            });
            if let Some(reason) = report.as_ref().and_then(|r: &Report| r.evaluation.no_map.as_ref()) {
                notes.push(format!("{}: no figures of maps: {reason}", path.display()));
            }
            rows[index].runs.push(member);
            rows[index].reports.extend(report);
            logs[index].push(log);
        }
        name(&mut rows);
        for (row, logs) in rows.iter_mut().zip(logs) {
            row.pool(&logs);
        }
        notes.extend(remarks(&rows));
        let names: Vec<String> = paths.iter().map(|p| p.display().to_string()).collect();
        let command = format!("excon report {}", names.join(" "));
        Ok(Self { schema: SCHEMA, tool: format!("excon {}", env!("CARGO_PKG_VERSION")), command, rows, notes })
    }
}

/// The evaluation in a run's folder, if it is of this run's weights and its whole test split.
fn of_run(path: &Path, manifest: &RunManifest, notes: &mut Vec<String>) -> Result<Option<Report>> {
    let file = path.join(evaluation::NAME);
    let missing = |why: &str| format!("{} {why}: excon evaluate {} --data PATH", path.display(), path.display());
    if !file.exists() {
        notes.push(missing("has no evaluation"));
        return Ok(None);
    }
    let report = Report::read(&file)?;
    if report.model_digest != manifest.weights_sha256 || !report.is_whole_test() {
        notes.push(missing("holds an evaluation of other weights or pictures"));
        return Ok(None);
    }
    Ok(Some(report))
}

/// Validation accuracy of each epoch; nothing where there is no log.
fn log(path: &Path) -> Result<Vec<f64>> {
    let file = path.join("log.jsonl");
    if std::fs::metadata(&file).map_or(true, |m| m.len() > LOG_LIMIT) {
        return Ok(Vec::new());
    }
    let read = |source| Failure::from(excon_edge::Error::Read { path: file.clone(), source });
    let text = std::fs::read_to_string(&file).map_err(read)?;
    // A line that is cut short is an epoch that was under way.
    let epoch = |line: &str| serde_json::from_str::<Epoch>(line).ok().map(|e| e.validation_accuracy);
    Ok(text.lines().map_while(epoch).collect())
}

/// Adds to rows of the same method and network the settings in which they differ.
fn name(rows: &mut [Row]) {
    let plain: Vec<(String, String)> = rows.iter().map(|r| (r.name.clone(), r.network.clone())).collect();
    let tables: Vec<BTreeMap<String, String>> =
        rows.iter().map(|r| r.settings.as_ref().map(flat).unwrap_or_default()).collect();
    for i in 0..rows.len() {
        let alike: Vec<usize> = (0..rows.len()).filter(|j| plain[*j] == plain[i]).collect();
        let differs = |key: &&String| alike.iter().any(|j| tables[*j].get(*key) != tables[i].get(*key));
        let mut keys: Vec<&String> = alike.iter().flat_map(|j| tables[*j].keys()).filter(differs).collect();
        keys.sort();
        keys.dedup();
        let said = |key: &&String| format!("{key} {}", tables[i].get(*key).map_or("not set", String::as_str));
        let more: Vec<String> = keys.iter().map(said).collect();
        if !more.is_empty() {
            rows[i].name += &format!(", {}", more.join(", "));
        }
    }
}

/// What makes rows hard to compare.
fn remarks(rows: &[Row]) -> Vec<String> {
    let mut notes = Vec::new();
    for row in rows {
        let mut seeds: Vec<u64> = row.runs.iter().map(|r| r.seed).collect();
        seeds.sort_unstable();
        if let Some(twice) = seeds.windows(2).find(|pair| pair[0] == pair[1]) {
            notes.push(format!("{}: several runs have the seed {}, so the spread is too small", row.name, twice[0]));
        }
        if row.runs.iter().any(|r| r.device != row.runs[0].device) {
            notes.push(format!("{}: trained on different devices, which round differently", row.name));
        }
    }
    let mut data: Vec<String> =
        rows.iter().flat_map(|r| r.pictures.map(|n| format!("{n} pictures of {}", r.data))).collect();
    data.sort();
    data.dedup();
    if data.len() > 1 {
        notes.push(format!("rows are measured on different pictures: {}", data.join(", ")));
    }
    if rows.iter().any(|r| r.origin == Some(Origin::Regenerated))
        && rows.iter().any(|r| r.origin == Some(Origin::Published))
    {
        notes.push("corruptions are regenerated in some rows and published files in others: not comparable".into());
    }
    notes
}

impl Row {
    fn empty(name: String, network: String, data: &str) -> Self {
        Self {
            name,
            network,
            data: data.into(),
            runs: Vec::new(),
            pictures: None,
            figures: BTreeMap::new(),
            accuracy_by_severity: Vec::new(),
            ece_by_severity: Vec::new(),
            corruptions: Vec::new(),
            origin: None,
            accuracy_by_epsilon: Vec::new(),
            validation_by_epoch: Vec::new(),
            reliability: Vec::new(),
            settings: None,
            reports: Vec::new(),
        }
    }

    /// Pools the evaluations and logs of the row's runs.
    fn pool(&mut self, logs: &[Vec<f64>]) {
        let reports = std::mem::take(&mut self.reports);
        self.pictures = reports.first().map(|r| r.evaluation.measured.metrics.count);
        for figure in &FIGURES {
            let found: Vec<Found> = reports.iter().filter_map(figure.of).collect();
            self.figures.extend(Pooled::of(&found).map(|pooled| (figure.key, pooled)));
        }
        self.pool_corruptions(&reports);
        let fgsm: Vec<(f64, f64)> = Attack::ALL
            .iter()
            .filter_map(|attack| {
                let Attack::Fgsm { epsilon } = attack else { return None };
                let of = |r: &Report| r.attacks.as_ref()?.iter().find(|a| a.attack == *attack).cloned();
                let found: Vec<f64> = reports.iter().filter_map(of).map(|a| a.measured.metrics.accuracy).collect();
                Some((epsilon * 255.0, mean(&found)?))
            })
            .collect();
        if let (Some(clean), false) = (self.figures.get("accuracy"), fgsm.is_empty()) {
            self.accuracy_by_epsilon = std::iter::once((0.0, clean.mean)).chain(fgsm).collect();
        }
        let longest = logs.iter().map(Vec::len).max().unwrap_or(0);
        let at = |epoch: usize| mean(&logs.iter().filter_map(|l| l.get(epoch).copied()).collect::<Vec<_>>());
        self.validation_by_epoch = (0..longest).filter_map(at).collect();
        self.reliability = together(reports.iter().map(|r| &r.evaluation.reliability[1]));
        self.reports = reports;
    }

    fn pool_corruptions(&mut self, reports: &[Report]) {
        let tables: Vec<_> = reports.iter().filter_map(|r| r.corruptions.as_ref()).collect();
        let Some(first) = tables.first() else { return };
        self.origin = Some(first.origin);
        let over =
            |of: &dyn Fn(&Corrupted) -> Option<f64>| mean(&tables.iter().filter_map(|t| of(t)).collect::<Vec<_>>());
        let clean = |key: &str| self.figures.get(key).map(|p: &Pooled| p.mean);
        let by_severity = |key: &str, of: fn(&Means) -> f64| -> Vec<f64> {
            let at = |severity: usize| {
                over(&|t| {
                    let chosen = |c: &Cell| c.severity == severity && c.group.is_some_and(|g| g.in_benchmark());
                    t.means(chosen).map(|m| of(&m))
                })
            };
            clean(key).into_iter().chain((1..=SEVERITIES).filter_map(at)).collect()
        };
        self.accuracy_by_severity = by_severity("accuracy", |m| m.accuracy);
        self.ece_by_severity = by_severity("ece", |m| m.ece);
        let mut names: Vec<&String> = first.cells.iter().map(|c| &c.corruption).collect();
        names.dedup();
        self.corruptions = names
            .into_iter()
            .filter_map(|name| {
                let of = over(&|t| t.means(|c| c.corruption == *name).map(|m| m.accuracy));
                Some((name.clone(), of?))
            })
            .collect();
    }
}

fn mean(values: &[f64]) -> Option<f64> {
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

/// Bins of several diagrams of the same edges as one.
fn together<'a>(diagrams: impl Iterator<Item = &'a Vec<Bin>>) -> Vec<Bin> {
    let mut all: Vec<Bin> = Vec::new();
    for diagram in diagrams {
        if all.is_empty() {
            all.clone_from(diagram);
            continue;
        }
        for (sum, bin) in all.iter_mut().zip(diagram).filter(|(_, bin)| bin.count > 0) {
            let (a, b) = (sum.count as f64, bin.count as f64);
            sum.confidence = (a * sum.confidence + b * bin.confidence) / (a + b);
            sum.accuracy = (a * sum.accuracy + b * bin.accuracy) / (a + b);
            sum.count += bin.count;
        }
    }
    all
}
