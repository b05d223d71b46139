//! Labels that come late and for a part of the frames: matched by name with frames that are remembered.
//!
//! The last 2,000 effective frames are remembered with what was predicted, and nothing of the picture. What labels say
//! assumes that whether a frame is labelled does not depend on whether it was answered rightly: whoever labels only the
//! strange ones learns the accuracy on the strange ones.

use super::model::Sums;
use crate::predictor::Prediction;
use crate::probability::{Z95, wilson};
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use std::collections::{HashMap, VecDeque};

/// Frames remembered, at most.
pub const REMEMBERED: usize = 2_000;
/// Longest name remembered, bytes.
const LONGEST_NAME: usize = 512;
/// Unknown names given back, at most.
const NAMED: usize = 20;
/// Labels of the window's frames below which they say nothing.
pub const FEWEST: usize = 20;

/// A frame that a label may still come for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(from = "Row", into = "Row")]
struct Remembered {
    name: String,
    /// Its number in the window's count.
    number: u64,
    class: usize,
    confidence: f64,
    set: Option<Vec<usize>>,
    label: Option<usize>,
}

/// A frame in the state file, which is written often: fields by their place.
type Row = (String, u64, usize, f64, Option<Vec<usize>>, Option<usize>);

impl From<Row> for Remembered {
    fn from((name, number, class, confidence, set, label): Row) -> Self {
        Self { name, number, class, confidence, set, label }
    }
}

impl From<Remembered> for Row {
    fn from(f: Remembered) -> Self {
        (f.name, f.number, f.class, f.confidence, f.set, f.label)
    }
}

/// See the module's first paragraph.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Labels {
    frames: VecDeque<Remembered>,
}

/// What became of labels.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Labelled {
    /// Frames that are labelled now and were not before.
    pub taken: usize,
    /// Frames that had another label before.
    pub changed: usize,
    /// Labels that were known.
    pub duplicates: usize,
    /// Labels without a frame: forgotten, never seen, or left out by thinning.
    pub unknown: usize,
    /// The first of their names.
    pub unknown_names: Vec<String>,
}

/// A share or a difference of shares with its 95 % interval.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Bounded {
    /// The value.
    pub value: f64,
    /// Lower limit.
    pub low: f64,
    /// Upper limit.
    pub high: f64,
}

/// What labelled frames show, those remembered.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Observed {
    /// Labelled frames.
    pub labelled: usize,
    /// Frames remembered.
    pub remembered: usize,
    /// Share answered rightly.
    pub accuracy: Bounded,
    /// Mean confidence less accuracy: above 0, the network believes too much.
    pub gap: Bounded,
    /// Share of prediction sets that hold the label; none where there are no sets.
    pub coverage: Option<Bounded>,
}

impl Labels {
    /// Remembers a frame.
    pub fn remember(&mut self, name: &str, number: u64, prediction: &Prediction) {
        if name.len() > LONGEST_NAME {
            return;
        }
        if self.frames.len() == REMEMBERED {
            self.frames.pop_front();
        }
        self.frames.push_back(Remembered {
            name: name.into(),
            number,
            class: prediction.class,
            confidence: prediction.confidence,
            set: prediction.prediction_set.clone(),
            label: None,
        });
    }

    /// Labels frames by name; of frames with the same name, the latest. All or, where a class is not one of `classes`,
    /// none.
    ///
    /// # Errors
    /// [`Error::Data`] that names the class that is none, and those there are.
    pub fn give<'a>(
        &mut self,
        labels: impl IntoIterator<Item = (&'a str, &'a str)>,
        classes: &[String],
    ) -> Result<Labelled> {
        let place: HashMap<&str, usize> = classes.iter().enumerate().map(|(i, class)| (class.as_str(), i)).collect();
        let label = |(name, class): (&'a str, &'a str)| match place.get(class) {
            Some(&label) => Ok((name, label)),
            None => {
                let reason = format!("`{class}` for {name} is no class; they are {}", classes.join(", "));
                Err(Error::Data { what: "labels", reason })
            }
        };
        let labels = labels.into_iter().map(label).collect::<Result<Vec<_>>>()?;
        let frames: HashMap<String, usize> = self.frames.iter().enumerate().map(|(i, f)| (f.name.clone(), i)).collect();
        let mut done = Labelled::default();
        for (name, label) in labels {
            let Some(frame) = frames.get(name).and_then(|&at| self.frames.get_mut(at)) else {
                done.unknown += 1;
                if done.unknown_names.len() < NAMED {
                    done.unknown_names.push(name.into());
                }
                continue;
            };
            match frame.label.replace(label) {
                None => done.taken += 1,
                Some(before) if before == label => done.duplicates += 1,
                Some(_) => done.changed += 1,
            }
        }
        Ok(done)
    }

    /// Names that a label may still come for, the oldest first.
    pub fn waiting(&self) -> impl Iterator<Item = &str> {
        self.frames.iter().filter(|f| f.label.is_none()).map(|f| f.name.as_str())
    }

    /// What the labelled frames show; none without any.
    pub fn observed(&self) -> Option<Observed> {
        let labelled: Vec<&Remembered> = self.frames.iter().filter(|f| f.label.is_some()).collect();
        let right = labelled.iter().filter(|f| f.label == Some(f.class)).count();
        let sets: Vec<bool> = labelled.iter().filter_map(|f| Some(f.set.as_ref()?.contains(&f.label?))).collect();
        let correction = Correction::of(labelled.iter().copied())?;
        let half = correction.half();
        let gap = -correction.mean;
        Some(Observed {
            labelled: labelled.len(),
            remembered: self.frames.len(),
            accuracy: share(right, labelled.len()),
            gap: Bounded { value: gap, low: (gap - half).max(-1.0), high: (gap + half).min(1.0) },
            coverage: (!sets.is_empty()).then(|| share(sets.iter().filter(|held| **held).count(), sets.len())),
        })
    }

    /// Accuracy over the frames of a window, by prediction-powered inference (Angelopoulos et al. 2023): the mean
    /// confidence of all, corrected by the mean of (right − confidence) of those labelled, with their number. `first` is
    /// the number of the window's first frame. None below `FEWEST` labels.
    pub fn powered(&self, sums: &Sums, first: u64) -> Option<(Bounded, usize)> {
        let labelled = self.frames.iter().filter(|f| f.number >= first && f.label.is_some());
        let correction = Correction::of(labelled).filter(|c| c.count >= FEWEST && sums.frames > 0)?;
        let n = sums.frames as f64;
        let mean = sums.confidence / n;
        let confidence = (sums.squares / n - mean * mean).max(0.0) / n;
        let value = (mean + correction.mean).clamp(0.0, 1.0);
        let half = correction.quantile() * (confidence + correction.variance()).sqrt();
        Some((Bounded { value, low: (value - half).max(0.0), high: (value + half).min(1.0) }, correction.count))
    }
}

/// Lines of `name,class`; a first line that says just that is passed over. A field in double quotes may hold commas.
///
/// # Errors
/// [`Error::Data`] with the number of the line that is none.
pub fn parse_csv(text: &str) -> Result<Vec<(String, String)>> {
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let row = |(number, line): (usize, &str)| match fields(line.trim()) {
        Some(pair) => Ok(pair),
        None => {
            let reason = format!("line {} is not `name,class`", number + 1);
            Err(Error::Data { what: "labels", reason })
        }
    };
    let mut rows = lines.map(row).collect::<Result<Vec<_>>>()?;
    if rows.first().is_some_and(|(name, class)| name == "name" && class == "class") {
        rows.remove(0);
    }
    Ok(rows)
}

/// Two fields of a line.
fn fields(line: &str) -> Option<(String, String)> {
    let (name, rest) = field(line)?;
    let (class, rest) = field(rest.strip_prefix(',')?)?;
    (rest.is_empty() && !name.is_empty() && !class.is_empty()).then_some((name, class))
}

/// The first field of a line, and what follows it.
fn field(line: &str) -> Option<(String, &str)> {
    let Some(quoted) = line.strip_prefix('"') else {
        let end = line.find(',').unwrap_or(line.len());
        return Some((line[..end].trim().to_string(), &line[end..]));
    };
    let mut value = String::new();
    let mut rest = quoted;
    loop {
        let (part, after) = rest.split_once('"')?;
        value.push_str(part);
        // Two quotes are one of the field's own.
        match after.strip_prefix('"') {
            Some(more) => (value, rest) = (value + "\"", more),
            None => return Some((value, after)),
        }
    }
}

/// Mean and scatter of (right − confidence).
struct Correction {
    count: usize,
    mean: f64,
    squares: f64,
}

impl Correction {
    fn of<'a>(frames: impl Iterator<Item = &'a Remembered>) -> Option<Self> {
        let off: Vec<f64> = frames.map(|f| f64::from(u8::from(f.label == Some(f.class))) - f.confidence).collect();
        let mean = off.iter().sum::<f64>() / off.len() as f64;
        let squares = off.iter().map(|v| (v - mean) * (v - mean)).sum();
        (!off.is_empty()).then_some(Self { count: off.len(), mean, squares })
    }

    /// Variance of the mean. As if one more frame had been right without any confidence and one more wrong with all of
    /// it: that no rare mistake was seen is no proof that there are none.
    fn variance(&self) -> f64 {
        let n = self.count as f64;
        (self.squares + 2.0) / (n + 2.0) / n
    }

    /// Student's quantile for 95 %, by its expansion around the normal one (Abramowitz and Stegun 26.7.5).
    fn quantile(&self) -> f64 {
        let (z, v) = (Z95, (self.count as f64 - 1.0).max(1.0));
        z + (z.powi(3) + z) / (4.0 * v) + (5.0 * z.powi(5) + 16.0 * z.powi(3) + 3.0 * z) / (96.0 * v * v)
    }

    fn half(&self) -> f64 {
        self.quantile() * self.variance().sqrt()
    }
}

/// A share with Wilson's interval.
fn share(holds: usize, of: usize) -> Bounded {
    let value = holds as f64 / of as f64;
    let [low, high] = wilson(value, of);
    Bounded { value, low, high }
}
