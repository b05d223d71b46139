//! `excon demo`: from photographs to a watched board in four acts, one file each.
//!
//! Training and validation pictures choose everything; the test pictures are touched once, by the two evaluations and
//! the board's stream at the end. Everything is written below one folder: `run/`, `trashnet.excon`, `report.html` and
//! `report.json`.

mod board;
mod convert;
mod page;
mod report;
mod stream;
mod train;

use crate::failure::{Failure, Result};
use crate::model::Model;
use crate::terminal::{self, Format, Progress, duration, percent};
use board::{Board, Photograph, Stretch, Watched};
use excon_edge::file::replace;
use excon_edge::predictor::Prediction;
use excon_edge::shift::{Family, Likeness};
use excon_train::config::Device;
use excon_train::dataset::Dataset;
use page::{Example, Examples};
use report::{Acts, Data, Report, Side};
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Folder that is written where none is named.
pub const DEFAULT_OUT: &str = "runs/demo";
/// Predictions on each saliency sheet.
const EXAMPLES: usize = 9;

/// What the demo may be told.
#[derive(Debug, Clone)]
pub struct Options {
    /// Two epochs: proves the chain, not the accuracy.
    pub quick: bool,
    /// Seed of everything random.
    pub seed: u32,
    /// Folder to write.
    pub out: PathBuf,
}

/// Plays the demo.
pub fn run(options: &Options, format: Format) -> Result<()> {
    let started = Instant::now();
    let mut acts = Acts::default();
    std::fs::create_dir_all(&options.out).map_err(|e| Failure::write(&options.out, e))?;

    let act = Instant::now();
    let train::Trained { data, run, epochs } = train::play(options)?;
    acts.train = act.elapsed().as_secs_f64();

    let act = Instant::now();
    let bundle = options.out.join("trashnet.excon");
    let conversion = convert::play(&run, &data, &bundle)?;
    acts.convert = act.elapsed().as_secs_f64();

    let act = Instant::now();
    let (float, int8) = evaluate(&Model::from_run(&run, Device::Cpu)?, &Model::open(&bundle, Device::Cpu)?, &data)?;
    acts.evaluate = act.elapsed().as_secs_f64();

    let act = Instant::now();
    let photographs = stream::photographs(&data.test, u64::from(options.seed));
    let board = Board::boot(&bundle)?;
    let progress = Progress::start("predict", 0);
    let predictions = board.predict(&photographs)?;
    let right = photographs.iter().zip(&predictions).filter(|(f, p)| f.truth == p.class).count();
    progress
        .finish(&format!("{right} of {} test photographs right, every map adds up to its logit", photographs.len()));
    let watched = watch(board, &stream::stretches(&photographs, u64::from(options.seed))?)?;
    acts.board = act.elapsed().as_secs_f64();

    let agree = float.predicted.iter().zip(&int8.predicted).filter(|(a, b)| a == b).count();
    let m = &run.manifest;
    let report = Report {
        schema: report::SCHEMA,
        tool: format!("excon {}", env!("CARGO_PKG_VERSION")),
        command: options.command(),
        seed: options.seed.into(),
        quick: options.quick,
        seconds: started.elapsed().as_secs_f64(),
        seconds_of: acts,
        data: Data {
            name: data.name.clone(),
            digest: data.digest.clone(),
            labels: data.labels.clone(),
            train: data.train.len(),
            validation: data.validation.len(),
            test: data.test.len(),
        },
        training: report::Training {
            recipe: m.config.title(),
            joint: m.config.joint,
            network: m.config.network.clone(),
            kept_epoch: m.epoch,
            refit_l2: m.refit_l2,
            validation_accuracy: m.validation_accuracy,
            epochs,
        },
        agreement: agree as f64 / data.test.len().max(1) as f64,
        conversion,
        float,
        int8,
        board: watched,
    };
    let next = options.next();
    let html = page::render(&report, &examples(&photographs, &predictions, &report.board), &next)?;
    replace(&options.out.join("report.html"), html.as_bytes())?;
    replace(&options.out.join("report.json"), (serde_json::to_string_pretty(&report)? + "\n").as_bytes())?;
    match format {
        Format::Json => terminal::json(&report),
        Format::Human => summary(&report, options, &next),
    }
}

impl Options {
    /// The command that was typed, with what differs from the defaults.
    fn command(&self) -> String {
        let quick = if self.quick { " --quick" } else { "" };
        let out =
            if self.out == Path::new(DEFAULT_OUT) { String::new() } else { format!(" --out {}", self.out.display()) };
        format!("excon demo{quick} --seed {}{out}", self.seed)
    }

    fn next(&self) -> Vec<String> {
        let out = self.out.display();
        let commands = [
            format!("excon inspect {out}/trashnet.excon"),
            format!("excon-edge predict {out}/trashnet.excon PHOTO.jpg --explain {out}/maps"),
            format!("excon-edge watch {out}/trashnet.excon FOLDER --state {out}/state"),
            "excon train --data YOUR_PHOTOS --out runs/mine".to_string(),
        ];
        // `cargo run` builds this command alone and puts neither on the path.
        let build =
            (!on_path()).then(|| "cargo build --release --workspace && PATH=\"$PWD/target/release:$PATH\"".into());
        build.into_iter().chain(commands).collect()
    }
}

/// Whether the shell finds this very command by its name.
fn on_path() -> bool {
    let folder = std::env::current_exe().ok().and_then(|exe| Some(exe.parent()?.to_path_buf()));
    std::env::var_os("PATH").is_some_and(|path| std::env::split_paths(&path).any(|p| Some(&p) == folder.as_ref()))
}

/// Both forms of the network on the test pictures.
fn evaluate(float: &Model, int8: &Model, data: &Dataset) -> Result<(Side, Side)> {
    let progress = Progress::start("evaluate", 2);
    let side = |model: &Model| -> Result<Side> {
        let (scaling, _) = model.scaling(data)?;
        let evaluation = model.evaluate(&data.test, &scaling)?;
        Side::new(evaluation, data.labels.len())
    };
    progress.say("the float network on the test pictures", true);
    let float = side(float)?;
    progress.at(1);
    progress.say("the int8 engine on the test pictures", true);
    let int8 = side(int8)?;
    let accuracies = [&float, &int8].map(|s| percent(s.metrics.accuracy));
    progress.finish(&format!("test accuracy {} in float, {} in int8", accuracies[0], accuracies[1]));
    Ok((float, int8))
}

fn watch(board: Board, stream: &[Stretch]) -> Result<Watched> {
    let progress = Progress::start("watch", stream.iter().map(|s| s.frames.len() as u64).sum());
    let mut rang = String::new();
    let watched = board.watch(stream, |frame, stretch, seen| {
        progress.at(frame as u64);
        let Some(alarm) = &seen.alarm else {
            rang.clear();
            return;
        };
        if rang != stretch.name {
            rang.clone_from(&stretch.name);
            progress.say(&format!("frame {frame}, {}: alarm, {}", stretch.name, alarm.family.words()), true);
        }
    })?;
    let found: Vec<&str> = watched.phases.iter().filter(|p| p.alarm.is_some()).map(|p| p.name.as_str()).collect();
    let said = if found.is_empty() { "no alarm".to_string() } else { format!("alarm in {}", found.join(", ")) };
    progress.finish(&format!("{} frames, {said}", watched.log10.len()));
    Ok(watched)
}

/// The first right and wrong predictions in seeded order, and the frames at which alarms rang.
fn examples<'a>(photographs: &'a [Photograph], predictions: &'a [Prediction], watched: &'a Watched) -> Examples<'a> {
    let of = |right: bool| -> Vec<Example<'a>> {
        let all = photographs.iter().zip(predictions).filter(|(f, p)| (f.truth == p.class) == right);
        all.take(EXAMPLES).map(|(f, prediction)| Example { picture: &f.picture, prediction, truth: f.truth }).collect()
    };
    let alarms = watched.phases.iter().filter_map(|p| p.alarm.as_ref());
    let shifted = alarms.map(|a| Example { picture: &a.picture, prediction: &a.prediction, truth: a.truth }).collect();
    Examples { right: of(true), wrong: of(false), shifted }
}

/// The key figures as aligned lines.
fn summary(r: &Report, options: &Options, next: &[String]) -> Result<()> {
    let [low, high] = r.int8.accuracy_interval.map(|v| 100.0 * v);
    let both = |value: &dyn Fn(&Side) -> String| format!("{:<8}  float {}", value(&r.int8), value(&r.float));
    terminal::heading("On the board: int8, test photographs")?;
    terminal::rows(&[
        (
            "accuracy",
            format!(
                "{}   95 % interval {low:.1} to {high:.1}, {} photographs",
                both(&|s| percent(s.metrics.accuracy)),
                r.int8.metrics.count
            ),
        ),
        ("macro accuracy", both(&|s| percent(s.metrics.macro_accuracy))),
        ("ECE", both(&|s| percent(s.metrics.ece))),
        ("NLL", both(&|s| format!("{:.3}", s.metrics.nll))),
        ("Brier", both(&|s| format!("{:.3}", s.metrics.brier))),
        ("explanation drop", both(&|s| percent(s.explanation.drop))),
        ("explanation increase", both(&|s| percent(s.explanation.increase))),
        ("recipe", format!("{}, joint = {}", r.training.recipe, r.training.joint)),
        ("per frame", duration(r.board.seconds_per_frame)),
        ("time", format!("{}, training {}", duration(r.seconds), duration(r.seconds_of.train))),
    ])?;
    terminal::heading("The stream")?;
    let lines: Vec<(&str, String)> = r
        .board
        .phases
        .iter()
        .map(|p| {
            let frames = p.last + 1 - p.first;
            let said = match &p.alarm {
                None => format!("silent for {frames} frames"),
                Some(a) => {
                    let names: Vec<&str> = a.rang.iter().take(3).map(|c| c.name()).collect();
                    let looks = Likeness::words(&a.looks_like).map_or(String::new(), |l| format!(", looks like {l}"));
                    format!("alarm after {} frames: {} ({}){looks}", a.after, a.family.words(), names.join(", "))
                }
            };
            (p.name.as_str(), said)
        })
        .collect();
    terminal::rows(&lines)?;
    if let Some(alarm) = r.board.phases.iter().find_map(|p| p.alarm.as_ref()) {
        terminal::heading("Saliency channels at the first alarm")?;
        let saliency = alarm.channels.iter().filter(|c| c.family == Family::ExplanationInconsistent);
        let lines: Vec<(&str, String)> = saliency
            .map(|c| (c.channel.name(), format!("weight {:.3}, share {}", c.weight, percent(c.share))))
            .collect();
        terminal::rows(&lines)?;
    }
    terminal::out(&format!("\nReport: {}\n", options.out.join("report.html").display()))?;
    terminal::next(next)
}
