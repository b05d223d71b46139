//! `excon convert`: a run becomes what a board runs, a sealed bundle or the bare ONNX file.

use crate::failure::{Failure, Result};
use crate::terminal::{self, Format, Progress, duration, percent};
use clap::Args;
use excon_convert::compare::Verdict;
use excon_convert::weights::Weights;
use excon_convert::{Conversion, ConversionReport, Options, Source, Target};
use excon_edge::bundle::Precision;
use excon_train::checkpoint::Run;
use excon_train::dataset::{self, Dataset, OpenOptions};
use std::path::PathBuf;

/// Converts a run to a sealed bundle or an ONNX file
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  excon convert runs/trashnet --data trashnet --target cpu --out trashnet.excon
  excon convert runs/trashnet --out trashnet-float.onnx --precision float

Ranges come from training pictures; temperature, prediction sets and the shift reference from validation pictures, with the
int8 engine itself. The file is written even where a budget is not met; the exit code is then 1.")]
pub struct Convert {
    /// The run folder
    #[arg(value_name = "RUN")]
    run: PathBuf,
    /// Data set the run was trained on [default: the one named in the run]
    #[arg(long, value_name = "PATH")]
    data: Option<String>,
    /// What it is made for: cpu
    #[arg(long, default_value = "cpu")]
    target: Target,
    /// Result: FILE.excon (bundle) or FILE.onnx (network alone)
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Numeric form of the convolutions
    #[arg(long, value_enum, default_value = "int8")]
    precision: Form,
    /// Model name [default: the data set's]
    #[arg(long)]
    name: Option<String>,
    /// Version counter; boards refuse to go back
    #[arg(long = "model-version", value_name = "N", default_value_t = 1)]
    version: u64,
    /// Accuracy that int8 may lose, as a fraction
    #[arg(long, value_name = "LOSS", default_value_t = excon_convert::compare::Allowed::default().accuracy_loss)]
    accuracy_budget: f64,
    /// ECE that int8 may lose, as a fraction
    #[arg(long, value_name = "LOSS", default_value_t = excon_convert::compare::Allowed::default().ece_loss)]
    ece_budget: f64,
    /// Put the validation pictures into the bundle, so that a board can fit its constants again
    #[arg(long)]
    ship_calibration: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Form {
    Int8,
    Float,
}

impl Convert {
    /// Converts.
    pub fn run(&self, format: Format) -> Result<()> {
        let run = Run::open(&self.run)?;
        let source = self.data.clone().unwrap_or_else(|| run.manifest.config.data.clone());
        let data = data_of(&run, &source)?;
        let mut options = Options::new(&self.out);
        options.precision = if self.precision == Form::Int8 { Precision::Int8 } else { Precision::Float };
        options.name.clone_from(&self.name);
        options.version = self.version;
        options.allowed.accuracy_loss = self.accuracy_budget;
        options.allowed.ece_loss = self.ece_budget;
        options.ship_calibration = self.ship_calibration;
        let report = convert(&run, &data, self.target, &options)?.report;
        match format {
            Format::Json => terminal::json(&report)?,
            Format::Human => self.print(&report, &source)?,
        }
        match report.budget.iter().find(|b| b.verdict == Verdict::NotMet) {
            None => Ok(()),
            Some(line) => Err(Failure::check(format!(
                "{}: {} lost, {} allowed. {} is written; train longer, or allow more with --accuracy-budget or \
                 --ece-budget",
                line.item.name,
                percent(line.item.measured),
                percent(line.item.allowed),
                self.out.display()
            ))),
        }
    }

    fn print(&self, r: &ConversionReport, data: &str) -> Result<()> {
        let kib = |bytes: u64| format!("{} KiB", bytes.div_ceil(1024));
        terminal::rows(&[
            ("file", format!("{}, {}", r.path.display(), kib(r.bytes))),
            ("network", format!("{}, {} as float, {} as written", r.network, kib(r.float_bytes), kib(r.model_bytes))),
            ("target", r.target.name().into()),
            ("time", duration(r.seconds)),
        ])?;
        if let Some(range) = &r.range {
            terminal::rows(&[("ranges", format!("{}, from {} pictures", range.method.name(), range.pictures))])?;
        }
        if let Some(c) = &r.comparison {
            terminal::heading(&format!("Float and int8 on the {}, {} pictures", c.split, c.int8.count))?;
            terminal::rows(&[
                ("accuracy", format!("{}  float {}", percent(c.int8.accuracy), percent(c.float.accuracy))),
                ("ECE", format!("{}  float {}", percent(c.int8.ece), percent(c.float.ece))),
                ("same class", percent(c.agreement)),
            ])?;
            let lines: Vec<(&str, String)> = r
                .budget
                .iter()
                .map(|b| {
                    let [low, high] = b.interval.map(|v| 100.0 * v);
                    let said = format!(
                        "{}, 95 % interval {low:.1} to {high:.1}, allowed {}: {}",
                        percent(b.item.measured),
                        percent(b.item.allowed),
                        b.verdict.words()
                    );
                    (b.item.name.as_str(), said)
                })
                .collect();
            terminal::rows(&lines)?;
        }
        if let Some(f) = &r.fit {
            terminal::heading("Fitted on the engine")?;
            terminal::rows(&[
                ("temperature", format!("{:.3} on {} pictures", f.temperature, f.fit_pictures)),
                ("shift reference", format!("{} frames", f.reference_frames)),
                ("completeness", format!("{:.1e}  (allowed 1e-4)", f.completeness_residual)),
            ])?;
        }
        for note in &r.notes {
            terminal::out(&format!("Note: {note}\n"))?;
        }
        let out = r.path.display();
        terminal::next(&if r.digest.is_some() {
            vec![
                format!("excon inspect {out}"),
                format!("excon evaluate {out} --data {data}"),
                format!("excon-edge watch {out} FOLDER --state STATE"),
            ]
        } else {
            vec![format!("excon convert {} --data {data} --target cpu --out {out}.excon", self.run.display())]
        })
    }
}

/// A data set with the splits and the picture size of a run.
pub fn data_of(run: &Run, source: &str) -> Result<Dataset> {
    let image_size = Some(run.manifest.preprocess.size);
    Ok(dataset::open(source, &OpenOptions { image_size, ..run.manifest.config.open_options() })?)
}

/// Converts with a progress bar.
pub fn convert(run: &Run, data: &Dataset, target: Target, options: &Options) -> Result<Conversion> {
    let m = &run.manifest;
    let source = Source {
        path: run.path.clone(),
        graph: m.graph.clone(),
        weights: Weights::read(&run.path.join("model.safetensors"))?,
        labels: m.labels.clone(),
        preprocess: m.preprocess.clone(),
        recipe: m.config.title(),
        data: m.data.clone(),
        data_digest: m.data_digest.clone(),
        seed: m.seed,
    };
    let progress = Progress::start("convert", 6);
    let mut steps = 0;
    let conversion = excon_convert::convert(&source, data, target, options, &mut |step| {
        progress.at(steps);
        steps += 1;
        progress.say(&step.words(), true);
    })?;
    let r = &conversion.report;
    progress.finish(&format!("{}, {} KiB", r.path.display(), r.bytes.div_ceil(1024)));
    Ok(conversion)
}
