//! Pictures with sets of labels: `labels.csv` beside them, with columns `picture` (path below the data set's top folder)
//! and `labels` (names, `;` between them, may be empty).
//!
//! Classes are all names that occur, in bytewise order. Every picture that the table names is used and no other. They lie
//! below `train/`, `val/` and `test/`, or anywhere, and are then split 70/15/15 by seeded hash.

use super::files::Files;
use super::table::Table;
use super::tree::{Item, Plan, divide, is_picture, source_name};
use super::{OpenOptions, kept_classes};
use crate::Result;
use std::collections::{BTreeMap, BTreeSet};

/// The table that makes a data set one of label sets.
const LABELS: &str = "labels.csv";

/// Whether the files are such a data set.
pub(super) fn recognise(files: &Files) -> bool {
    files.has(LABELS)
}

/// Reads the table and plans the splits. A class dropped by the options is dropped from every set.
pub(super) fn plan(files: &Files, options: &OpenOptions) -> Result<Plan> {
    let table = Table::read(files, LABELS, &["picture", "labels"], 2)?;
    let mut sets: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (line, row) in &table.rows {
        let (picture, labels) = (&row[0], &row[1]);
        if !files.has(picture) {
            return Err(table.error(*line, format!("there is no file {picture:?} beside the table")));
        }
        if !is_picture(files, picture)? {
            return Err(table.error(*line, format!("{picture} is neither JPEG nor PNG")));
        }
        let labels = labels.split(';').map(str::trim).filter(|label| !label.is_empty()).map(String::from).collect();
        if sets.insert(picture.clone(), labels).is_some() {
            return Err(table.error(*line, format!("{picture} is named twice")));
        }
    }
    let names: BTreeSet<&String> = sets.values().flatten().collect();
    if names.len() < 2 {
        return Err(files.error(format!("{LABELS} names {} classes; at least 2 are needed", names.len())));
    }
    let kept = kept_classes(files, names.len(), options)?;
    let labels: Vec<String> = names.into_iter().take(kept).cloned().collect();
    let items = sets.into_iter().map(|(name, set)| {
        let set: Vec<usize> = set.iter().filter_map(|label| labels.binary_search(label).ok()).collect();
        Item { name, label: 0, set, object: None }
    });
    let splits = divide(files, items.collect(), options)?;
    if splits.iter().any(|split| split.len() < 2) {
        return Err(files.error(format!("{LABELS} names too few pictures for train, validation and test")));
    }
    let seen: BTreeSet<usize> = splits[0].iter().flat_map(|item| item.set.iter().copied()).collect();
    if let Some(label) = (0..labels.len()).find(|label| !seen.contains(label)) {
        let reason = format!("no training picture has the label {}. Add pictures of it, or take it out", labels[label]);
        return Err(files.error(reason));
    }
    Ok(Plan { name: source_name(files), labels, splits, normalisation: None, sets: true })
}
