//! `label`: the true classes of some frames, late. They sharpen the accuracy estimate and hold confidence and prediction
//! sets to what they promise.

use super::output::{GOOD, Output, paint};
use super::place::BundleArgs;
use super::watch::observed;
use super::{Failure, Verdict};
use excon_edge::Error;
use excon_edge::accuracy::{Accuracy, Labelled, Observed, parse_csv};
use serde::Serialize;
use std::io::Read;
use std::path::PathBuf;

/// Largest list of labels, bytes.
const LARGEST: u64 = 16 << 20;

#[derive(Debug, clap::Args)]
#[command(
    after_help = "A frame is called as `watch` and `serve` call it: the file's name, or the request's id. Labels may come late,
in any order and for a part of the frames, while the frame is among the last 2,000 effective ones; `--list` names those that
still wait for one. Choose frames by chance, not by how they look: labels of the strange ones alone tell the accuracy on
the strange ones.

Examples:
  excon-edge label active --state /var/lib/excon/state 0041.jpg cup 0042.jpg lid
  excon-edge label active --state /var/lib/excon/state < labels.csv      lines of `name,class`
  excon-edge label active --state /var/lib/excon/state --list | shuf -n 50"
)]
pub struct Label {
    #[command(flatten)]
    bundle: BundleArgs,
    /// Folder in which `watch` keeps its monitor
    #[arg(long, value_name = "DIR", env = "EXCON_STATE")]
    state: PathBuf,
    /// Frames and their classes; without any, lines of `name,class` from standard input
    #[arg(value_name = "NAME CLASS", num_args = 0.., conflicts_with = "list")]
    labels: Vec<String>,
    /// Name the frames that a label may still come for, the oldest first
    #[arg(long)]
    list: bool,
}

#[derive(Serialize)]
struct Line<'a> {
    schema: &'static str,
    #[serde(flatten)]
    labelled: &'a Labelled,
    accuracy: &'a Accuracy,
    labels: Option<&'a Observed>,
}

pub fn run(settings: &Label, output: &mut Output) -> Result<Verdict, Failure> {
    let labels = if settings.list { Vec::new() } else { settings.labels()? };
    let (bundle, mut session, _turn) = settings.bundle.saved(&settings.state)?;
    if settings.list {
        let waiting: Vec<&str> = session.about.accuracy.labels.waiting().collect();
        output.json(&serde_json::json!({ "schema": "excon.waiting/1", "frames": waiting }))?;
        waiting.into_iter().try_for_each(|name| output.text(name))?;
        return Ok(Verdict::Done);
    }
    let pairs = labels.iter().map(|(name, class)| (name.as_str(), class.as_str()));
    let labelled = session.label(pairs, &bundle.manifest.labels)?;
    if labelled.taken + labelled.changed > 0 {
        session.save()?;
    }
    let (accuracy, seen) = (session.accuracy(), session.observed());
    output.json(&Line { schema: "excon.label/1", labelled: &labelled, accuracy: &accuracy, labels: seen.as_ref() })?;
    let Labelled { taken, changed, duplicates, unknown, unknown_names } = &labelled;
    let labelled = paint(GOOD, "labelled:");
    output.text(format_args!("{labelled} {taken} frames, {changed} changed, {duplicates} were known"))?;
    if *unknown > 0 {
        let more = if *unknown > unknown_names.len() { ", …" } else { "" };
        output.text(format_args!("{unknown} not known: {}{more}", unknown_names.join(", ")))?;
    }
    output.text(format_args!("accuracy {}", accuracy.words()))?;
    let promised = bundle.manifest.calibration.conformal.as_ref().map(|c| 1.0 - c.alpha);
    for line in seen.iter().flat_map(|seen| observed(seen, promised)) {
        output.text(line)?;
    }
    Ok(Verdict::Done)
}

impl Label {
    /// Names and classes, of the command line or of standard input.
    fn labels(&self) -> excon_edge::Result<Vec<(String, String)>> {
        let refuse = |reason: String| Err(Error::Data { what: "labels", reason });
        if self.labels.len() % 2 == 1 {
            return refuse(format!(
                "`{}` has no class; they come in pairs, NAME CLASS",
                self.labels[self.labels.len() - 1]
            ));
        }
        if !self.labels.is_empty() {
            return Ok(self.labels.chunks_exact(2).map(|pair| (pair[0].clone(), pair[1].clone())).collect());
        }
        let mut text = String::new();
        let failed = |source| Error::Read { path: "standard input".into(), source };
        std::io::stdin().lock().take(LARGEST + 1).read_to_string(&mut text).map_err(failed)?;
        if text.len() as u64 > LARGEST {
            return refuse(format!("more than {LARGEST} bytes; give them in parts"));
        }
        parse_csv(&text)
    }
}
