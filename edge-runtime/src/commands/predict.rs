//! `predict`: labels, calibrated probabilities, prediction sets, and the reason as a picture.

use super::output::{self, BOLD, Output, WATCH, paint, percent};
use super::place::BundleArgs;
use super::{Failure, Verdict};
use excon_edge::bundle::Bundle;
use excon_edge::engine::NO_MAP;
use excon_edge::image::{self, Picture};
use excon_edge::predictor::Prediction;
use excon_edge::{Error, page};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Side of a written overlay, pixels, at least.
const VIEWABLE: usize = 448;

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  excon-edge predict trashnet.excon photo.jpg
  excon-edge predict active *.jpg --explain maps --format json")]
pub struct Predict {
    #[command(flatten)]
    bundle: BundleArgs,
    /// JPEG or PNG pictures of any size
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<PathBuf>,
    /// Also write what speaks for each label, as a PNG over the picture, into this folder
    #[arg(long, value_name = "DIR")]
    explain: Option<PathBuf>,
}

#[derive(Serialize)]
struct Line<'a> {
    schema: &'static str,
    picture: String,
    label: &'a str,
    class: usize,
    confidence: f64,
    probabilities: BTreeMap<&'a str, f64>,
    prediction_set: Option<Vec<&'a str>>,
    coverage: Option<f64>,
    abstains: bool,
    completeness: f64,
    explanation: Option<String>,
}

pub fn run(settings: &Predict, output: &mut Output) -> Result<Verdict, Failure> {
    let (mut bundle, mut checks) = settings.bundle.open()?;
    let predictor = settings.bundle.predictor(&mut bundle)?;
    if settings.explain.is_some() && !predictor.engine().shapes().explains() {
        let reason = format!("{NO_MAP}. Leave --explain out");
        return Err(Error::Data { what: "explanation", reason }.into());
    }
    let mut overlays = settings.explain.as_deref().map(Overlays::open).transpose()?;
    let width = settings.images.iter().map(|p| p.display().to_string().chars().count()).max().unwrap_or(0);
    let mut verdict = Verdict::Done;
    for path in &settings.images {
        let picture = match image::read(path) {
            Ok(picture) => predictor.resize(&picture),
            Err(error) => {
                output::trouble(&error);
                verdict = Verdict::BadInput;
                continue;
            }
        };
        let prediction = predictor.predict(&picture)?;
        let engine = predictor.engine().name();
        checks.see(&prediction, engine)?;
        prediction.verify(engine)?;
        let written = match &mut overlays {
            Some(overlays) => Some(overlays.write(path, &picture, &prediction)?),
            None => None,
        };
        output.text(sentence(path, width, &prediction, &bundle))?;
        if let Some(written) = &written {
            output.text(format_args!("{:width$}  why: {}", "", written.display()))?;
        }
        output.json(&line(path, &prediction, &bundle, written.as_deref()))?;
    }
    Ok(verdict)
}

/// `photo.jpg  glass  53.1 %   plastic 24.0 %, metal 11.2 %   90 % set: glass, plastic   does not know (an answer needs 61.0 %)`.
fn sentence(path: &Path, width: usize, prediction: &Prediction, bundle: &Bundle) -> String {
    let labels = &bundle.manifest.labels;
    let longest = labels.iter().map(|l| l.chars().count()).max().unwrap_or(0);
    let mut order: Vec<usize> = (0..labels.len()).filter(|&k| k != prediction.class).collect();
    order.sort_by(|&a, &b| prediction.probabilities[b].total_cmp(&prediction.probabilities[a]));
    let others = order.iter().take(2).map(|&k| format!("{} {}", labels[k], percent(prediction.probabilities[k])));
    let others: Vec<String> = others.collect();
    let label = paint(BOLD, format_args!("{:<longest$}", prediction.label));
    let name = path.display().to_string();
    let mut text = format!("{name:<width$}  {label}  {:>7}   {}", percent(prediction.confidence), others.join(", "));
    if let (Some(set), Some(conformal)) = (&prediction.prediction_set, &bundle.manifest.calibration.conformal) {
        let names: Vec<&str> = set.iter().map(|&k| labels[k].as_str()).collect();
        text += &format!("   {:.0} % set: {}", 100.0 * (1.0 - conformal.alpha), names.join(", "));
    }
    if let (true, Some(abstention)) = (prediction.abstains, &bundle.manifest.calibration.abstention) {
        let asked = format!("does not know (an answer needs {})", percent(abstention.confidence));
        text += &format!("   {}", paint(WATCH, asked));
    }
    text
}

fn line<'a>(path: &Path, prediction: &'a Prediction, bundle: &'a Bundle, written: Option<&Path>) -> Line<'a> {
    let labels = &bundle.manifest.labels;
    let names = |set: &Vec<usize>| set.iter().map(|&k| labels[k].as_str()).collect();
    Line {
        schema: "excon.prediction/1",
        picture: path.display().to_string(),
        label: &prediction.label,
        class: prediction.class,
        confidence: prediction.confidence,
        probabilities: labels.iter().map(String::as_str).zip(prediction.probabilities.iter().copied()).collect(),
        prediction_set: prediction.prediction_set.as_ref().map(names),
        coverage: bundle.manifest.calibration.conformal.as_ref().map(|c| 1.0 - c.alpha),
        abstains: prediction.abstains,
        completeness: prediction.completeness,
        explanation: written.map(|p| p.display().to_string()),
    }
}

/// The folder of saliency pictures.
struct Overlays<'a> {
    folder: &'a Path,
    taken: BTreeSet<String>,
}

impl<'a> Overlays<'a> {
    fn open(folder: &'a Path) -> excon_edge::Result<Self> {
        std::fs::create_dir_all(folder).map_err(|source| Error::Write { path: folder.into(), source })?;
        Ok(Self { folder, taken: BTreeSet::new() })
    }

    /// Writes one overlay, named after its picture; two pictures of one name get a number.
    fn write(&mut self, source: &Path, picture: &Picture, prediction: &Prediction) -> excon_edge::Result<PathBuf> {
        let stem = source.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let numbered = (2..).map(|n| format!("{stem}-{n}"));
        let name = std::iter::once(stem.clone()).chain(numbered).find(|n| !self.taken.contains(n)).unwrap_or(stem);
        let path = self.folder.join(format!("{name}.saliency.png"));
        self.taken.insert(name);
        let (_, overlay) = page::overlay(&page::enlarged(picture, VIEWABLE), &prediction.cam);
        excon_edge::file::replace(&path, &page::png(&overlay)?)?;
        Ok(path)
    }
}
