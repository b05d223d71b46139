//! `report.html` of a run: curves, what was kept, every setting.

use crate::failure::Result;
use crate::settings::flat;
use crate::terminal::{duration, grouped, percent};
use excon_edge::file::replace;
use excon_edge::page::{
    Caption, Column, KeyFigure, LineChart, Series, Unit, commands, document, figure, line_chart, pair, section, table,
    text,
};
use excon_train::config::TrainConfig;
use excon_train::dataset::Dataset;
use excon_train::trainer::{EpochRecord, Trained};
use maud::{Markup, html};
use std::path::Path;

/// Losses and accuracies by epoch, side by side.
pub fn curves(epochs: &[EpochRecord]) -> Markup {
    let series = |name: &str, value: &dyn Fn(&EpochRecord) -> Option<f64>| Series {
        name: name.into(),
        points: epochs.iter().map(|e| (e.epoch as f64, value(e).unwrap_or(f64::NAN))).collect(),
    };
    // A curve that no epoch has a value for is left out of the legend too.
    let known = |all: Vec<Series>| -> Vec<Series> {
        all.into_iter().filter(|s| s.points.iter().any(|(_, y)| y.is_finite())).collect()
    };
    let chart = |description, y, unit, range, series: &[Series]| {
        line_chart(&LineChart { description, x: "epoch", y, unit, range, series })
    };
    let loss = known(vec![series("contrastive", &|e| e.contrastive), series("cross entropy", &|e| e.cross_entropy)]);
    let accuracy = known(vec![
        series("train views", &|e| e.train_accuracy),
        series("validation", &|e| Some(e.validation_accuracy)),
        series("masks that pass", &|e| e.passing),
    ]);
    pair(
        &chart("Training losses by epoch", "loss, nats", Unit::Plain, None, &loss),
        &chart("Accuracies by epoch", "share of pictures", Unit::Percent, Some((0.0, 1.0)), &accuracy),
    )
}

/// A network as people write it: `ResNet-8`.
pub fn network_name(name: &str) -> String {
    name.strip_prefix("resnet").map_or(name.into(), |depth| format!("ResNet-{depth}"))
}

/// Writes the page of a finished run beside its files.
pub fn write_page(run: &Path, trained: &Trained, data: &Dataset, next: &[String]) -> Result<()> {
    let (m, config) = (&trained.manifest, &trained.manifest.config);
    let key = |name: &str, value: String, note: String, lead| KeyFigure { name: name.into(), value, note, lead };
    let figures = [
        key(
            "validation accuracy",
            percent(m.validation_accuracy),
            format!("on one half of {} validation pictures", data.validation.len()),
            true,
        ),
        key("NLL", format!("{:.3}", m.validation_nll), "nats, before scaling".into(), false),
        key("kept", format!("epoch {}", m.epoch), format!("of {}", config.epochs), false),
        key(
            "time",
            duration(m.seconds),
            format!("{} pictures, {} classes", grouped(data.train.len()), m.labels.len()),
            false,
        ),
    ];
    let command =
        format!("excon train --data {} --recipe {} … --out {}", config.data, config.recipe.as_str(), run.display());
    let samples = format!("{} training pictures", grouped(data.train.len()));
    let words = match m.refit_l2 {
        Some(_) => "The linear head was refitted to convergence on frozen features after the last epoch.",
        None => "The trained linear head was kept.",
    };
    let charts = figure("", &curves(&trained.epochs), &Caption { text: words, samples: &samples, command: &command });
    let body = html! {
        (section("Training", "", &charts))
        (section("Settings", "All of them. A file for --config takes the same keys.", &settings(config)))
        (section("What to type next", "", &commands(next)))
    };
    let lede = format!("{} trained by the recipe {} on {}.", network_name(&config.network), config.title(), m.data);
    let digest = m.data_digest.get(..16).unwrap_or(&m.data_digest);
    let footer =
        format!("{}, seed {}, data digest {digest}. The same numbers as data: run.json, log.jsonl.", m.tool, m.seed);
    let page = document("ExCon on the edge · training", &config.title(), &lede, &figures, &body, &footer);
    Ok(replace(&run.join("report.html"), page.as_bytes())?)
}

/// Key and value of every setting.
fn settings(config: &TrainConfig) -> Markup {
    let row = |(key, value): (String, String)| vec![html! { code { (key) } }, text(value)];
    let rows: Vec<_> = flat(config).into_iter().map(row).collect();
    let half = rows.len().div_ceil(2);
    let columns = [Column::text("setting"), Column::text("value")];
    pair(&table(&columns, &rows[..half]), &table(&columns, &rows[half..]))
}
