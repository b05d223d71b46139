//! How good the accuracy estimate without labels is: coverage, share told, width, over the corruption suite.
//!
//! ```sh
//! cargo run --release --example accuracy -- model.excon --data DATA --classes 10 --validation 0.2
//! ```
//!
//! Test pictures are predicted once, healthy and through every corruption at every severity. Windows drawn from them with
//! replacement go through the bundle's estimate; each interval is held against the share of right answers in that very
//! window. A Markdown table a cell and a summary go to stdout. Nothing is fitted here.

#[path = "../subject.rs"]
mod subject;

use anstream::{eprintln, println};
use clap::Parser;
use excon_edge::accuracy::{AccuracyModel, Estimators, Sums};
use excon_edge::bundle::Bundle;
use excon_edge::image::Picture;
use excon_edge::predictor::Predictor;
use excon_train::corruption::Corruption;
use excon_train::evaluate::spread;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use subject::{Result, Subject, corrupted};

/// Coverage of an estimate's intervals over the corruption suite
#[derive(Parser)]
struct Settings {
    #[command(flatten)]
    subject: Subject,
    /// Frames of a window
    #[arg(long, default_value_t = 1000)]
    frames: usize,
    /// Windows of each cell
    #[arg(long, default_value_t = 200)]
    windows: usize,
}

/// One frame: its sums, and whether the answer was right.
type Frame = (Sums, bool);

/// What the windows of one cell came to.
#[derive(Default)]
struct Outcome {
    windows: usize,
    told: usize,
    /// Windows told whose interval held the truth, sum of widths and of distances, by estimator.
    held: [usize; Estimators::COUNT],
    width: [f64; Estimators::COUNT],
    off: [f64; Estimators::COUNT],
    /// Of all windows, abstained on or not.
    truth: f64,
    value: f64,
    /// The channel that abstained last.
    outside: &'static str,
}

fn main() -> Result<()> {
    let settings = Settings::parse();
    let bundle = Bundle::open(&settings.subject.bundle)?;
    let predictor = Predictor::from_bundle(&bundle)?;
    let model = bundle.accuracy.as_ref().ok_or("this bundle brings no accuracy estimate; convert it anew")?;
    let data = settings.subject.open(&bundle, &settings.subject.data, settings.subject.classes)?;
    let chosen = spread(data.test.len(), settings.subject.pictures);
    let test: Vec<Picture> = chosen.iter().map(|&i| data.test.to_picture(i)).collect();
    let labels: Vec<usize> = chosen.iter().map(|&i| data.test.labels[i]).collect();

    println!(
        "| cell | severity | accuracy | estimate | told | held | width | outside |\n|---|---|---|---|---|---|---|---|"
    );
    let healthy = measure(&settings, model, &frames(&predictor, model, &test, &labels)?, 0);
    row("healthy", 0, &healthy);
    let mut by_severity: Vec<Vec<Outcome>> = Vec::new();
    for severity in 1..=5 {
        let mut outcomes = Vec::new();
        for corruption in Corruption::ALL {
            let seen = corrupted(&test, corruption, severity)?;
            let cell = frames(&predictor, model, &seen, &labels)?;
            let outcome = measure(&settings, model, &cell, (severity * 100 + corruption as usize) as u64);
            row(corruption.name(), severity, &outcome);
            outcomes.push(outcome);
        }
        eprintln!("severity {severity} of 5");
        by_severity.push(outcomes);
    }
    println!(
        "\n| severity | windows | told | {} | width of {} | distance of {} |",
        heads("held by "),
        names(),
        names()
    );
    println!("|---|---|---|{}---|---|", "---|".repeat(Estimators::COUNT));
    for (severity, outcomes) in by_severity.iter().enumerate() {
        total(&format!("{}", severity + 1), outcomes.iter());
    }
    total("all", by_severity.iter().flatten());
    Ok(())
}

/// Frames of a cell; one that lacks a score would be no frame of the window.
fn frames(predictor: &Predictor, model: &AccuracyModel, pictures: &[Picture], labels: &[usize]) -> Result<Vec<Frame>> {
    let mut frames = Vec::with_capacity(pictures.len());
    for (batch, labels) in pictures.chunks(64).zip(labels.chunks(64)) {
        for ((picture, label), p) in batch.iter().zip(labels).zip(predictor.predict_all(batch)?) {
            let scores = predictor.scores(picture, &p, false)?;
            frames.extend(Sums::of(Some(model), &scores).map(|sums| (sums, p.class == *label)));
        }
    }
    Ok(frames)
}

fn measure(settings: &Settings, model: &AccuracyModel, frames: &[Frame], seed: u64) -> Outcome {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut outcome = Outcome { windows: settings.windows, ..Outcome::default() };
    for _ in 0..settings.windows {
        let (mut sums, mut right) = (Sums::default(), 0);
        for _ in 0..settings.frames {
            let (frame, is_right) = &frames[rng.random_range(0..frames.len())];
            sums.add(frame);
            right += usize::from(*is_right);
        }
        let truth = right as f64 / settings.frames as f64;
        let values = model.estimators(&sums).values();
        outcome.truth += truth;
        outcome.value += values[Estimators::COUNT - 1];
        if let Some(channel) = model.outside(&sums) {
            outcome.outside = channel.name();
            continue;
        }
        outcome.told += 1;
        for (estimator, value) in values.into_iter().enumerate() {
            let [low, high] = model.interval(estimator, value, &sums);
            outcome.held[estimator] += usize::from(low <= truth && truth <= high);
            outcome.width[estimator] += high - low;
            outcome.off[estimator] += (value - truth).abs();
        }
    }
    outcome
}

fn row(name: &str, severity: usize, o: &Outcome) {
    const TOLD: usize = Estimators::COUNT - 1;
    let share = |sum: f64, of: usize| if of == 0 { "–".into() } else { format!("{:.1}", 100.0 * sum / of as f64) };
    println!(
        "| {name} | {severity} | {} | {} | {} | {} | {} | {} |",
        share(o.truth, o.windows),
        share(o.value, o.windows),
        share(o.told as f64, o.windows),
        share(o.held[TOLD] as f64, o.told),
        share(o.width[TOLD], o.told),
        o.outside
    );
}

fn total<'a>(name: &str, outcomes: impl Iterator<Item = &'a Outcome>) {
    let mut sum = Outcome::default();
    for o in outcomes {
        sum.windows += o.windows;
        sum.told += o.told;
        for e in 0..Estimators::COUNT {
            sum.held[e] += o.held[e];
            sum.width[e] += o.width[e];
            sum.off[e] += o.off[e];
        }
    }
    let of_told =
        |values: [f64; Estimators::COUNT]| values.map(|v| format!("{:.1}", 100.0 * v / sum.told.max(1) as f64));
    println!(
        "| {name} | {} | {:.1} % | {} | {} | {} |",
        sum.windows,
        100.0 * sum.told as f64 / sum.windows.max(1) as f64,
        of_told(sum.held.map(|h| h as f64)).join(" | "),
        of_told(sum.width).join(" / "),
        of_told(sum.off).join(" / ")
    );
}

fn names() -> String {
    Estimators::NAMES.join(" / ")
}

fn heads(before: &str) -> String {
    Estimators::NAMES.map(|name| format!("{before}{name}")).join(" | ")
}
