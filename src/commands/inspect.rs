//! `excon inspect`: what a bundle holds, after verifying all of it.

use crate::failure::Result;
use crate::terminal::{self, Format, percent};
use clap::Args;
use excon_edge::accuracy::AccuracyModel;
use excon_edge::bundle::{Bundle, Precision};
use excon_edge::engine::NO_MAP;
use excon_edge::predictor::Predictor;
use serde_json::json;
use std::path::PathBuf;

/// Shows what a bundle holds and verifies it
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  excon inspect runs/demo/trashnet.excon")]
pub struct Inspect {
    /// The bundle
    #[arg(value_name = "FILE.excon")]
    file: PathBuf,
}

impl Inspect {
    /// Verifies digests and golden outputs, then prints.
    pub fn run(&self, format: Format) -> Result<()> {
        let bundle = Bundle::open(&self.file)?;
        Predictor::from_bundle(&bundle)?;
        let m = &bundle.manifest;
        if format == Format::Json {
            let report = json!({ "schema": "excon.inspection/1", "file": self.file, "digest": bundle.digest, "verified": true,
                "golden_inputs": bundle.golden.count, "manifest": m });
            return terminal::json(&report);
        }
        let shape = |[c, h, w]: [usize; 3]| format!("{c} × {h} × {w}");
        let precision = match m.precision {
            Precision::Float => "32-bit float",
            Precision::Int8 => "8-bit integers, head in float",
            Precision::Mixed => "8-bit integers, head and some layers in float",
        };
        let sets = m
            .calibration
            .conformal
            .as_ref()
            .map_or("none".into(), |c| format!("cover {}, fitted on {} pictures", c.words(), c.pictures));
        let answers = m.calibration.abstention.as_ref().map_or("always".into(), |a| {
            let (least, risk) = (percent(a.confidence), percent(a.risk));
            format!(
                "from a confidence of {least} on: wrong at most {risk} of the time, {} answered",
                percent(a.answered)
            )
        });
        terminal::rows(&[
            ("name", format!("{}, version {}", m.name, m.version)),
            ("digest", bundle.digest.clone()),
            ("target", format!("{}, {precision}", m.target)),
            ("classes", format!("{}: {}", m.labels.len(), m.labels.join(", "))),
            ("input", format!("{} (channels × height × width)", shape(m.network.input))),
            (
                "last map",
                match m.network.features {
                    [_, 1, 1] => format!("one cell: {NO_MAP}"),
                    features => shape(features),
                },
            ),
            ("recipe", m.provenance.recipe.clone()),
            ("network", m.provenance.network.clone()),
            ("data", m.provenance.data.clone()),
            ("seed", m.provenance.seed.to_string()),
            ("sealed by", m.provenance.tool.clone()),
            (
                "calibrated",
                format!(
                    "{}, fitted on {} pictures with {}",
                    m.calibration.scaling().words(),
                    m.calibration.pictures,
                    m.calibration.engine
                ),
            ),
            ("prediction sets", sets),
            ("answers", answers),
            (
                "shift reference",
                format!(
                    "{} frames, autocorrelation time {:.1}{}",
                    m.shift.reference_frames,
                    m.shift.autocorrelation_time,
                    if m.shift.independent { ", declared independent" } else { "" }
                ),
            ),
            ("accuracy estimate", bundle.accuracy.as_ref().map_or("none".into(), AccuracyModel::words)),
            (
                "false alarms",
                format!("at most one in {} effective frames on average", m.shift.mean_time_between_false_alarms),
            ),
        ])?;
        if !m.budget.is_empty() {
            terminal::heading("Budget")?;
            let lines: Vec<(&str, String)> = m
                .budget
                .iter()
                .map(|b| {
                    let verdict = if b.met { "met" } else { "NOT met" };
                    (
                        b.name.as_str(),
                        format!("{:.4} of {:.4} allowed, {} pictures, {verdict}", b.measured, b.allowed, b.pictures),
                    )
                })
                .collect();
            terminal::rows(&lines)?;
        }
        terminal::heading("Members")?;
        let members: Vec<(&str, String)> = m
            .files
            .iter()
            .map(|(name, f)| (name.as_str(), format!("{:>9} bytes  {}", f.size, &f.sha256[..f.sha256.len().min(16)])))
            .collect();
        terminal::rows(&members)?;
        terminal::out(&format!(
            "\nAll digests match, and {} golden inputs gave their golden outputs.\n",
            bundle.golden.count
        ))?;
        terminal::next(&[format!("excon-edge predict {} IMAGE", self.file.display())])
    }
}
