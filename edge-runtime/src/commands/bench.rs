//! `bench`: how long one picture takes here, how many a second, how much memory, and what to make of it. A bare ONNX file
//! is timed by its engine alone: what a network costs on this board is known before it is converted. `tract:FILE.onnx` takes
//! tract for it, to compare with.

use super::output::{BOLD, Output, paint};
use super::place::BundleArgs;
use super::{Failure, Verdict};
use excon_edge::bundle::Bundle;
use excon_edge::engine::{self, Engine, StepTime, tract::TractEngine};
use excon_edge::image::Picture;
use excon_edge::kernel;
use excon_edge::predictor::Predictor;
use excon_edge::{Error, Result};
use serde::Serialize;
use std::path::Path;
use std::time::{Duration, Instant};

/// Size of the camera picture that the whole path starts from.
const CAMERA: (usize, usize) = (640, 480);

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  excon-edge bench trashnet.excon --seconds 5 --format json
  excon-edge bench network.onnx --profile
  excon-edge bench tract:network.onnx")]
pub struct Bench {
    #[command(flatten)]
    bundle: BundleArgs,
    /// Time for each of the three measurements
    #[arg(long, value_name = "S", default_value_t = 2.0, value_parser = seconds)]
    seconds: f64,
    /// Also say where the time goes, step by step
    #[arg(long)]
    profile: bool,
}

fn seconds(text: &str) -> std::result::Result<f64, String> {
    let value: f64 = text.parse().map_err(|_| "give a number of seconds".to_string())?;
    if (0.01..=600.0).contains(&value) { Ok(value) } else { Err("give 0.01 to 600 seconds".into()) }
}

#[derive(Serialize)]
struct Line<'a> {
    schema: &'static str,
    engine: &'a str,
    isa: &'static str,
    threads: usize,
    /// One picture through the engine, one thread.
    engine_latency: Latency,
    /// Camera picture to prediction, map and scores; of a bundle.
    #[serde(skip_serializing_if = "Option::is_none")]
    whole_latency: Option<Latency>,
    /// Batches over all threads, engine only.
    pictures_per_second: f64,
    memory: Option<Memory>,
    /// Why a faster engine was not taken.
    #[serde(skip_serializing_if = "Option::is_none")]
    note: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    profile: Option<Vec<Step>>,
    advice: String,
}

/// One fused step of the network.
#[derive(Debug, Clone, Serialize)]
struct Step {
    name: String,
    /// Microseconds a picture, the fastest run's.
    micros: f64,
    /// 10⁹ multiplications a second.
    billions_per_second: f64,
}

/// Microseconds.
#[derive(Debug, Clone, Copy, Serialize)]
struct Latency {
    runs: usize,
    least: f64,
    p50: f64,
    p90: f64,
    p99: f64,
}

/// Bytes of this process.
#[derive(Debug, Clone, Copy, Serialize)]
struct Memory {
    resident: u64,
    peak: u64,
}

/// What is timed.
enum Subject {
    Bundle(Box<(Bundle, Predictor)>),
    /// An ONNX file's engine.
    File(Box<dyn Engine>),
}

impl Subject {
    fn open(bundle: &BundleArgs) -> Result<Self> {
        let path = bundle.bundle.as_path();
        if path.extension().is_some_and(|e| e == "onnx") {
            let (path, tract) = match path.to_str().and_then(|p| p.strip_prefix("tract:")) {
                Some(file) => (Path::new(file), true),
                None => (path, false),
            };
            let (name, failed) = (path.display().to_string(), |source| Error::Read { path: path.into(), source });
            let bytes = std::fs::read(path).map_err(failed)?;
            return Ok(Self::File(match tract {
                true => Box::new(TractEngine::from_onnx(&bytes, &name)?),
                false => engine::open(&bytes, &name)?,
            }));
        }
        let mut opened = bundle.look()?;
        let predictor = bundle.predictor(&mut opened)?;
        Ok(Self::Bundle(Box::new((opened, predictor))))
    }

    fn engine(&self) -> &dyn Engine {
        match self {
            Self::Bundle(both) => both.1.engine(),
            Self::File(engine) => engine.as_ref(),
        }
    }

    fn title(&self, path: &Path) -> String {
        match self {
            Self::Bundle(both) => {
                let manifest = &both.0.manifest;
                format!("{} version {}", paint(BOLD, &manifest.name), manifest.version)
            }
            Self::File(_) => paint(BOLD, path.display()),
        }
    }
}

pub fn run(settings: &Bench, output: &mut Output) -> std::result::Result<Verdict, Failure> {
    let subject = Subject::open(&settings.bundle)?;
    let engine = subject.engine();
    let time = Duration::from_secs_f64(settings.seconds);
    let one: usize = engine.shapes().input.iter().product();
    let input: Vec<f32> = match &subject {
        Subject::Bundle(both) => both.0.golden.inputs[..one].to_vec(),
        Subject::File(_) => (0..one).map(|i| (i * 7 % 31) as f32 / 15.0 - 1.0).collect(),
    };
    let input = input.as_slice();

    let engine_latency = measure(time, || engine.run(input).map(drop))?;
    let whole_latency = match &subject {
        Subject::File(_) => None,
        Subject::Bundle(both) => {
            let (camera, predictor) = (camera_picture(), &both.1);
            Some(measure(time, || {
                let small = predictor.resize(&camera);
                let prediction = predictor.predict(&small)?;
                predictor.scores(&small, &prediction, false).map(drop)
            })?)
        }
    };
    let threads = rayon::current_num_threads();
    let batch: Vec<f32> = input.iter().copied().cycle().take(one * 16 * threads).collect();
    let batches = measure(time, || engine.run(&batch).map(drop))?;
    let pictures_per_second = (16 * threads) as f64 / (batches.p50 * 1e-6);

    let profile = if settings.profile {
        let runs = (time.as_secs_f64() / (engine_latency.p50 * 1e-6)).clamp(1.0, 10_000.0) as usize;
        let steps = engine.profile(input, runs).into_iter().flatten();
        let step = |s: StepTime| Step {
            micros: s.seconds * 1e6,
            billions_per_second: s.products as f64 / s.seconds * 1e-9,
            name: s.name,
        };
        Some(steps.map(step).collect())
    } else {
        None
    };

    let line = Line {
        schema: "excon.bench/1",
        engine: engine.name(),
        isa: kernel::active().name(),
        threads,
        engine_latency,
        whole_latency,
        pictures_per_second,
        memory: memory(),
        note: engine.note(),
        profile,
        advice: advice(engine_latency, whole_latency),
    };
    if output.human() {
        print(output, &subject.title(&settings.bundle.bundle), &line)?;
    }
    output.json(&line)?;
    Ok(Verdict::Done)
}

fn print(output: &mut Output, title: &str, line: &Line) -> std::io::Result<()> {
    output.text(title)?;
    output.text(format_args!("engine {}, instruction set {}, {} threads", line.engine, line.isa, line.threads))?;
    output.text(format_args!(
        "{:<34}  {:>10}  {:>10}  {:>10}  {:>7}",
        "one picture, one thread", "p50", "p90", "p99", "runs"
    ))?;
    let (width, height) = CAMERA;
    let whole = format!("  {width}×{height} picture to scores");
    let all = [("  engine alone", Some(line.engine_latency)), (whole.as_str(), line.whole_latency)];
    for (name, latency) in all.into_iter().filter_map(|(name, latency)| Some((name, latency?))) {
        let cell = |v: f64| format!("{:.3} ms", v / 1_000.0);
        let (p50, p90, p99) = (cell(latency.p50), cell(latency.p90), cell(latency.p99));
        output.text(format_args!("{name:<34}  {p50:>10}  {p90:>10}  {p99:>10}  {:>7}", latency.runs))?;
    }
    output.text(format_args!("all threads, engine alone           {:.0} pictures/s", line.pictures_per_second))?;
    if let Some(memory) = line.memory {
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        output.text(format_args!(
            "memory                              {:.1} MiB, {:.1} MiB at the peak",
            mib(memory.resident),
            mib(memory.peak)
        ))?;
    }
    for step in line.profile.iter().flatten() {
        let (micros, rate) = (step.micros, step.billions_per_second);
        output.text(format_args!("  {:<46}  {micros:>8.1} µs  {rate:>6.1} G products/s", step.name))?;
    }
    if line.profile.as_ref().is_some_and(Vec::is_empty) {
        output.text(format_args!("engine {} does not say where its time goes", line.engine))?;
    }
    if let Some(note) = line.note {
        output.text(note)?;
    }
    output.text(&line.advice)
}

/// Runs for a tenth of the time unmeasured, then for the time.
fn measure(time: Duration, mut work: impl FnMut() -> Result<()>) -> Result<Latency> {
    let warm_up = Instant::now();
    while warm_up.elapsed() < time / 10 {
        work()?;
    }
    let mut micros = Vec::new();
    let begun = Instant::now();
    while begun.elapsed() < time || micros.len() < 10 {
        let start = Instant::now();
        work()?;
        micros.push(start.elapsed().as_secs_f64() * 1e6);
    }
    micros.sort_by(f64::total_cmp);
    let at = |share: f64| micros[((micros.len() - 1) as f64 * share).round() as usize];
    Ok(Latency { runs: micros.len(), least: at(0.0), p50: at(0.5), p90: at(0.9), p99: at(0.99) })
}

fn advice(engine: Latency, whole: Option<Latency>) -> String {
    let all = whole.unwrap_or(engine);
    let spread = all.p99 / all.p50;
    let (rate, what) =
        (1e6 / all.p99, if whole.is_some() { "camera pictures" } else { "pictures of the network's size" });
    let mut text = format!("One core keeps up with {rate:.0} {what} a second, 99 times in 100.");
    if spread > 3.0 {
        text += &format!(
            " The slowest take {spread:.0} times the median: other work disturbs this machine; give the watch a core of \
             its own before trusting these figures."
        );
    } else if whole.is_some() && engine.p50 < 0.5 * all.p50 {
        text +=
            " Most of it is resizing and scoring, not the network: a camera that delivers smaller pictures helps most.";
    } else if whole.is_some() {
        text += " Most of it is the network: a smaller one, or another engine, helps most.";
    }
    text
}

/// A picture like a camera's: a gradient with some texture.
fn camera_picture() -> Picture {
    let (width, height) = CAMERA;
    let value = |i: usize| ((i / 3 % width) / 4 + (i / 3 / width) / 4 + i * 7 % 31) as u8;
    Picture { width, height, rgb: (0..width * height * 3).map(value).collect() }
}

/// What the kernel says about this process; nothing where it does not say.
fn memory() -> Option<Memory> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let field = |name: &str| -> Option<u64> {
        let line = status.lines().find(|l| l.starts_with(name))?;
        line.split_whitespace().nth(1)?.parse::<u64>().ok().map(|kib| kib << 10)
    };
    Some(Memory { resident: field("VmRSS:")?, peak: field("VmHWM:")? })
}
