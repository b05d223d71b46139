//! Positives made elsewhere: `pairs.csv` beside the pictures of class folders.
//!
//! Columns: `picture` (path of a picture of the set, below its top folder), `positive` (path of the picture that was made
//! of it), and optionally `label` and `share`: the class the positive was moved towards and its share in it, 0..=1. One
//! line per positive; a picture may have several. Positives belong to no class folder's pictures, wherever they lie.
//! Lines of pictures that are not in train are not used, so that nothing made of a test picture is trained on.

use super::files::Files;
use super::table::Table;
use super::tree::{Item, Plan, is_picture};
use super::{Split, pictures};
use crate::Result;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// The table of pairs.
const PAIRS: &str = "pairs.csv";

/// The positives of a data set's training pictures.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Pairs {
    /// The positives, with the class of the picture that each was made of.
    pub pictures: Split,
    /// Positions in `pictures` of each training picture's positives; empty where it has none.
    pub of: Vec<Vec<usize>>,
    /// For each positive, the class it was moved towards and its share in it, if that was said.
    pub towards: Vec<Option<(usize, f64)>>,
}

/// One line.
struct Pair {
    line: usize,
    picture: String,
    positive: String,
    towards: Option<(String, f64)>,
}

/// The lines of `pairs.csv`; none where there is no such file.
pub(super) struct Lines(Vec<Pair>);

impl Lines {
    /// Reads and checks every line by itself.
    pub fn read(files: &Files) -> Result<Option<Self>> {
        if !files.has(PAIRS) {
            return Ok(None);
        }
        let table = Table::read(files, PAIRS, &["picture", "positive", "label", "share"], 2)?;
        let mut lines = Vec::new();
        for (line, row) in &table.rows {
            let [picture, positive, label, share] = [0, 1, 2, 3].map(|c| row[c].clone());
            for name in [&picture, &positive] {
                if !files.has(name) || !is_picture(files, name)? {
                    return Err(table.error(*line, format!("there is no JPEG or PNG {name:?} beside the table")));
                }
            }
            if ["val/", "valid/", "validation/", "test/"].iter().any(|held_out| positive.starts_with(held_out)) {
                return Err(table.error(*line, format!("{positive} is held out from training. Move it elsewhere")));
            }
            let towards = match (label.as_str(), share.as_str()) {
                ("", "") => None,
                _ => match share.parse::<f64>() {
                    Ok(share) if (0.0..=1.0).contains(&share) && !label.is_empty() => Some((label, share)),
                    _ => return Err(table.error(*line, "label and share, in 0..1, need each other")),
                },
            };
            lines.push(Pair { line: *line, picture, positive, towards });
        }
        let positives: BTreeSet<&str> = lines.iter().map(|pair| pair.positive.as_str()).collect();
        if let Some(both) = lines.iter().find(|pair| positives.contains(pair.picture.as_str())) {
            return Err(table.error(both.line, format!("{} is a positive and has one", both.picture)));
        }
        Ok(Some(Self(lines)))
    }

    /// Names of the positives.
    pub fn positives(&self) -> BTreeSet<&str> {
        self.0.iter().map(|pair| pair.positive.as_str()).collect()
    }

    /// Loads the positives of the planned training pictures, at `size`.
    pub fn load(&self, files: &Files, plan: &Plan, size: usize) -> Result<Pairs> {
        let train = &plan.splits[0];
        let place: HashMap<&str, usize> = train.iter().enumerate().map(|(i, item)| (item.name.as_str(), i)).collect();
        let known: BTreeMap<&str, usize> = plan.labels.iter().enumerate().map(|(l, name)| (name.as_str(), l)).collect();
        let (mut items, mut of, mut towards) = (Vec::new(), vec![Vec::new(); train.len()], Vec::new());
        let kept: BTreeSet<&str> = plan.splits.iter().flatten().map(|item| item.name.as_str()).collect();
        for pair in self.0.iter().filter(|pair| kept.contains(pair.picture.as_str())) {
            let class = match &pair.towards {
                None => None,
                Some((label, share)) => match known.get(label.as_str()) {
                    Some(&label) => Some((label, *share)),
                    None => {
                        let reason = format!("{PAIRS}, line {}: {label:?} is none of the classes", pair.line);
                        return Err(files.error(reason));
                    }
                },
            };
            let Some(&index) = place.get(pair.picture.as_str()) else { continue };
            of[index].push(items.len());
            items.push(Item { name: pair.positive.clone(), label: train[index].label, set: vec![], object: None });
            towards.push(class);
        }
        if items.is_empty() {
            return Err(files.error(format!("{PAIRS} has no line for a training picture")));
        }
        // Two lines may name one positive; it is read once for each, since every name is visited once.
        let (names, places) = distinct(&items);
        let [read] = pictures::load(files, &[names], Some(size))?;
        let mut pictures = read.subset(&places);
        pictures.labels = items.iter().map(|item| item.label).collect();
        Ok(Pairs { pictures, of, towards })
    }
}

/// The items with different names, and each item's place among them.
fn distinct(items: &[Item]) -> (Vec<Item>, Vec<usize>) {
    let (mut seen, mut unique) = (HashMap::new(), Vec::new());
    let place = |item: &Item| {
        *seen.entry(item.name.clone()).or_insert_with(|| {
            unique.push(item.clone());
            unique.len() - 1
        })
    };
    let places = items.iter().map(place).collect();
    (unique, places)
}
