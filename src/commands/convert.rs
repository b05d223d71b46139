//! `excon convert`: a run, or an ONNX classifier of another program, becomes what a board runs: a sealed bundle or the bare
//! ONNX file.

use crate::failure::{Failure, Result};
use crate::terminal::{self, Format, Progress, duration, percent};
use clap::Args;
use excon_convert::compare::Verdict;
use excon_convert::import::import;
use excon_convert::{Choice, Conversion, ConversionReport, Feeding, Options, Source, Target, relabelled};
use excon_edge::bundle::Precision;
use excon_edge::engine::onnx;
use excon_edge::probability::{Abstention, Candidate, SetOptions, SetScore};
use excon_train::checkpoint::Run;
use excon_train::dataset::{self, Dataset, OpenOptions};
use std::io::Read;
use std::path::{Path, PathBuf};

/// Maps named in the result, of those with the least signal to noise.
const NOISIEST: usize = 3;

/// Converts a run, or an ONNX classifier of another program, to a sealed bundle or an ONNX file
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  excon convert runs/trashnet --data trashnet --target cpu --out trashnet.excon
  excon convert runs/trashnet --target tensorrt --out trashnet.excon
  excon convert runs/trashnet --out trashnet-float.onnx --precision float
  excon convert resnet18.onnx --data photographs/ --preprocess imagenet --out photographs.excon

Ranges come from training pictures; calibration, prediction sets and the shift reference from validation pictures, with the
engine that will run. Where int8 loses more than the budget allows, the layers that break it stay float. Where that or int8
is no faster than float on this machine, or loses too much all the same, float is written and a note says why. With
--precision int8 or mixed it is written whatever it costs; the exit code is 1 where a budget is not met.")]
pub struct Convert {
    /// The run folder, or FILE.onnx of another program (docs/convert.md)
    #[arg(value_name = "RUN|FILE.onnx")]
    model: PathBuf,
    /// Data set the network was trained on [default: the one named in the run]
    #[arg(long, value_name = "PATH")]
    data: Option<String>,
    /// How an ONNX file's network is fed: 0..1, -1..1, 0..255, imagenet, data, or R,G,B/R,G,B (mean and deviation in 0..1)
    #[arg(long, value_name = "HOW", allow_hyphen_values = true)]
    preprocess: Option<Feeding>,
    /// Side of an ONNX file's pictures, where the file leaves it open
    #[arg(long, value_name = "PIXELS")]
    size: Option<usize>,
    /// Class names of an ONNX file, one a line, in the order of its outputs [default: the data set's order]
    #[arg(long, value_name = "FILE")]
    labels: Option<PathBuf>,
    /// What it is made for: cpu, tensorrt (8-bit integers on a Jetson from Xavier on, or a workstation), or tensorrt-fp16
    /// (Jetson Nano and TX2, which have none)
    #[arg(long, default_value = "cpu")]
    target: Target,
    /// Result: FILE.excon (bundle) or FILE.onnx (network alone)
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Numeric form of the convolutions: auto takes int8 where it is faster here and within its budget, else mixed (int8 with
    /// the layers in float that break the budget) on the same terms, else float; for TensorRT what the target is made for
    #[arg(long, value_enum, default_value = "auto")]
    precision: Form,
    /// Model name [default: the data set's]
    #[arg(long)]
    name: Option<String>,
    /// Version counter; boards refuse to go back
    #[arg(long = "model-version", value_name = "N", default_value_t = 1)]
    version: u64,
    /// Accuracy that int8 or mixed may lose, as a fraction
    #[arg(long, value_name = "LOSS", default_value_t = excon_convert::compare::Allowed::default().accuracy_loss)]
    accuracy_budget: f64,
    /// ECE that int8 or mixed may lose, as a fraction
    #[arg(long, value_name = "LOSS", default_value_t = excon_convert::compare::Allowed::default().ece_loss)]
    ece_budget: f64,
    /// Error rate that prediction sets may have, as a fraction
    #[arg(long, value_name = "RATE", default_value_t = SetOptions::default().alpha)]
    alpha: f64,
    /// How classes enter a prediction set: aps by the probability above them, raps with a penalty for long sets
    #[arg(long, value_enum, default_value = "aps")]
    sets: Sets,
    /// Hold the error rate of prediction sets for every class by itself
    #[arg(long)]
    by_class: bool,
    /// Error rate of answers beyond which the network says that it does not know, as a fraction; 0: it always answers
    #[arg(long, value_name = "RATE", default_value_t = 0.1)]
    risk: f64,
    /// Put the validation pictures into the bundle, so that a board can fit its constants again; for tensorrt they always are
    #[arg(long)]
    ship_calibration: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Form {
    Auto,
    Int8,
    Mixed,
    Float,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Sets {
    Aps,
    Raps,
}

impl Convert {
    /// Converts.
    pub fn run(&self, format: Format) -> Result<()> {
        let (source, named, data) = self.source()?;
        let mut options = Options::new(&self.out);
        options.precision = match self.precision {
            Form::Auto => Choice::Auto,
            Form::Int8 => Choice::Int8,
            Form::Mixed => Choice::Mixed,
            Form::Float => Choice::Float,
        };
        options.name.clone_from(&self.name);
        options.version = self.version;
        options.allowed.accuracy_loss = self.accuracy_budget;
        options.allowed.ece_loss = self.ece_budget;
        options.ship_calibration = self.ship_calibration;
        let score = match self.sets {
            Sets::Aps => SetScore::Aps,
            Sets::Raps => SetScore::Raps,
        };
        for (flag, rate) in [("--alpha", self.alpha), ("--risk", self.risk)] {
            if !(0.0..1.0).contains(&rate) || (flag == "--alpha" && rate == 0.0) {
                return Err(Failure::usage(format!(
                    "{flag} {rate} is no error rate: give a fraction below 1, such as 0.1"
                )));
            }
        }
        options.fit.sets = SetOptions { alpha: self.alpha, score, by_class: self.by_class };
        options.fit.risk = (self.risk > 0.0).then_some(self.risk);
        let report = convert_source(&source, &data, self.target, &options)?.report;
        match format {
            Format::Json => terminal::json(&report)?,
            Format::Human => self.print(&report, &named)?,
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

    /// The network, and its pictures with their name.
    fn source(&self) -> Result<(Source, String, Dataset)> {
        if self.model.extension().is_none_or(|e| e != "onnx") {
            if self.preprocess.is_some() || self.size.is_some() || self.labels.is_some() {
                return Err(Failure::usage(
                    "--preprocess, --size and --labels are for ONNX files; a run knows its own",
                ));
            }
            let run = Run::open(&self.model)?;
            let named = self.data.clone().unwrap_or_else(|| run.manifest.config.data.clone());
            let data = data_of(&run, &named)?;
            return Ok((Source::from_run(&run)?, named, data));
        }
        let needed = |flag: &str, why: &str| Failure::usage(format!("an ONNX file needs {flag}: {why}"));
        let named = self.data.clone().ok_or_else(|| needed("--data", "its pictures give ranges and constants"))?;
        let feeding = self.preprocess.as_ref().ok_or_else(|| {
            needed(
                "--preprocess",
                "the file does not say how pictures become its input. Often it is 0..1, -1..1 or imagenet",
            )
        })?;
        let unreadable =
            |path: &Path, e: std::io::Error| Failure::input(format!("cannot read {}: {e}", path.display()));
        let bytes = bounded(&self.model).map_err(|e| unreadable(&self.model, e))?;
        let imported = import(&self.model, &bytes, self.size)?;
        let mut data =
            dataset::open(&named, &OpenOptions { image_size: Some(imported.size), ..OpenOptions::default() })?;
        if let Some(path) = &self.labels {
            let text = std::fs::read_to_string(path).map_err(|e| unreadable(path, e))?;
            let lines = text.lines().map(str::trim).filter(|l| !l.is_empty()).map(String::from);
            data = relabelled(data, lines.collect())?;
        }
        Ok((Source::from_onnx(&self.model, imported, &data, feeding)?, named, data))
    }

    fn print(&self, r: &ConversionReport, data: &str) -> Result<()> {
        let kib = |bytes: u64| format!("{} KiB", bytes.div_ceil(1024));
        terminal::rows(&[
            ("file", format!("{}, {}", r.path.display(), kib(r.bytes))),
            ("network", format!("{}, {} as float, {} as written", r.network, kib(r.float_bytes), kib(r.model_bytes))),
            ("target", r.target.name().into()),
            ("form", form(r)),
            ("time", duration(r.seconds)),
        ])?;
        if let Some(range) = &r.range {
            terminal::rows(&[("ranges", format!("{}, from {} pictures", range.best.words(), range.pictures))])?;
        }
        let mut noisiest: Vec<(f64, &str)> =
            r.layers.iter().filter_map(|l| Some((l.signal_to_noise_db?, l.layer.as_str()))).collect();
        noisiest.sort_by(|a, b| a.0.total_cmp(&b.0));
        if !noisiest.is_empty() {
            let words: Vec<String> =
                noisiest.iter().take(NOISIEST).map(|(db, layer)| format!("{layer} {db:.1} dB")).collect();
            terminal::rows(&[("most noise", words.join(", "))])?;
        }
        if let Some(c) = &r.comparison {
            terminal::heading(&format!("Float and int8 on the {}, {} pictures", c.split, c.int8.count))?;
            terminal::rows(&[
                ("accuracy", format!("{}  float {}", percent(c.int8.accuracy), percent(c.float.accuracy))),
                ("ECE", format!("{}  float {}", percent(c.int8.ece), percent(c.float.ece))),
                ("same class", percent(c.agreement)),
            ])?;
            if let Some(t) = &r.timing {
                let mixed = t.mixed_microseconds.map_or(String::new(), |time| format!("  mixed {time:.0}"));
                let said = format!(
                    "{:.0} µs a picture{mixed}  float {:.0}, the fastest of {}",
                    t.int8_microseconds, t.float_microseconds, t.runs
                );
                terminal::rows(&[("time here", said)])?;
            }
            if let Some(m) = &r.mixed {
                let c = &m.comparison;
                terminal::heading(&format!("Float and mixed on the {}, {} pictures", c.split, c.int8.count))?;
                terminal::rows(&[
                    ("accuracy", percent(c.int8.accuracy)),
                    ("ECE", percent(c.int8.ece)),
                    ("same class", percent(c.agreement)),
                ])?;
            }
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
                ("calibrated", format!("{} on {} pictures", f.scaling.words(), f.fit_pictures)),
                ("held-out NLL", tried(&f.calibrations)),
                ("prediction sets", f.conformal.as_ref().map_or("none".into(), |c| format!("cover {}", c.words()))),
                ("answers", f.abstention.as_ref().map_or("always".into(), answers)),
                ("shift reference", format!("{} frames", f.reference_frames)),
                ("completeness", format!("{:.1e}  (allowed 1e-4)", f.completeness_residual)),
            ])?;
        }
        for note in &r.notes {
            terminal::out(&format!("Note: {note}\n"))?;
        }
        let out = r.path.display();
        terminal::next(&if r.digest.is_some() {
            let mut next = vec![format!("excon inspect {out}"), format!("excon evaluate {out} --data {data}")];
            if r.target != Target::Cpu {
                next.push(format!("excon-edge tensorrt build {out}     (on the board)"));
            }
            next.push(format!("excon-edge watch {out} FOLDER --state STATE"));
            next
        } else {
            let fed = if self.preprocess.is_some() { " --preprocess HOW" } else { "" };
            vec![format!("excon convert {} --data {data}{fed} --target cpu --out {out}.excon", self.model.display())]
        })
    }
}

/// `none 0.912, temperature 0.871, Venn–Abers 0.874`.
fn tried(calibrations: &[Candidate]) -> String {
    let each = calibrations.iter().map(|c| format!("{} {:.4}", c.method.words(), c.held_out_nll));
    each.collect::<Vec<_>>().join(", ")
}

fn answers(a: &Abstention) -> String {
    let (least, risk) = (percent(a.confidence), percent(a.risk));
    format!("from {least} on, wrong at most {risk} of the time; {} of {} pictures", percent(a.answered), a.pictures)
}

/// The numeric form that was written, with the layers that stay float.
fn form(r: &ConversionReport) -> String {
    match (r.precision, &r.mixed) {
        (Precision::Float, _) => "float".into(),
        (Precision::Mixed, Some(mixed)) => {
            let layers: Vec<&str> = mixed.float_layers.iter().map(|l| l.layer.as_str()).collect();
            format!("int8, in float {}", layers.join(", "))
        }
        _ => "int8".into(),
    }
}

/// A data set with the splits and the picture size of a run.
pub fn data_of(run: &Run, source: &str) -> Result<Dataset> {
    let image_size = Some(run.manifest.preprocess.size);
    Ok(dataset::open(source, &OpenOptions { image_size, ..run.manifest.config.open_options() })?)
}

/// Converts with a progress bar.
pub fn convert(run: &Run, data: &Dataset, target: Target, options: &Options) -> Result<Conversion> {
    convert_source(&Source::from_run(run)?, data, target, options)
}

/// The bytes of an ONNX file; one beyond the reader's bound is not read further.
fn bounded(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut bytes = vec![];
    std::fs::File::open(path)?.take(onnx::MAX_BYTES as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn convert_source(source: &Source, data: &Dataset, target: Target, options: &Options) -> Result<Conversion> {
    let progress = Progress::start("convert", 5);
    let mut steps = 0;
    let conversion = excon_convert::convert(source, data, target, options, &mut |step| {
        progress.at(steps);
        steps += 1;
        progress.say(&step.words(), true);
    })?;
    let r = &conversion.report;
    progress.finish(&format!("{}, {} KiB", r.path.display(), r.bytes.div_ceil(1024)));
    Ok(conversion)
}
