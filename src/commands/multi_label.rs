//! What `excon evaluate` says of a run whose pictures have sets of labels: average precisions.

use crate::failure::Result;
use crate::model::Model;
use crate::terminal::{self, Format, Progress, percent};
use excon_train::dataset::{Dataset, Split};
use excon_train::evaluate::{LabelFigures, evaluate_labels};
use serde_json::json;
use std::path::Path;

/// Measures `split`, which is called `name`, and prints.
pub fn evaluate(path: &Path, model: &Model, data: &Dataset, split: &Split, name: &str, format: Format) -> Result<()> {
    let progress = Progress::start("evaluate", 1);
    progress.say(&format!("{} pictures", split.len()), true);
    let figures = evaluate_labels(model.engine.as_ref(), data, split, &model.preprocess)?;
    progress.finish(&format!("{} pictures with {}", split.len(), model.engine.name()));
    if format == Format::Json {
        return terminal::json(&json!({ "schema": "excon.multi-label-evaluation/1", "model": path, "data": data.name,
            "data_digest": data.digest, "split": name, "evaluation": figures }));
    }
    let LabelFigures { count, map, exact, nll, labels } = &figures;
    terminal::rows(&[
        ("pictures", format!("{count} ({name} of {})", data.name)),
        ("mAP", format!("{}, mean over the labels that occur", percent(*map))),
        ("whole sets", format!("{} right at probability 0.5", percent(*exact))),
        ("NLL", format!("{nll:.3} a picture and label")),
    ])?;
    terminal::heading("Average precision by label")?;
    let said = |ap: Option<f64>, pictures: usize| match ap {
        Some(ap) => format!("{}  ({pictures} pictures)", percent(ap)),
        None => "no picture has it".into(),
    };
    terminal::rows(
        &labels.iter().map(|l| (l.label.as_str(), said(l.average_precision, l.pictures))).collect::<Vec<_>>(),
    )
}
