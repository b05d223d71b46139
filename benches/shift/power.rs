//! The power study of the shift alarm on real pictures: what it finds, how soon, and by which channels.
//!
//! ```sh
//! cargo run --release --example shift -- model.excon --data DATA --classes 10 --out scores
//! ```
//!
//! Test pictures are predicted and scored once: healthy, through every corruption at three severities, on their way to a
//! few of them, and beside them pictures of classes the model was not trained on (`--classes`) and of other data sets
//! (`--foreign`). Streams drawn from those scores are then played to monitors that differ in nothing but their weights.
//! Tables go to stdout; the scores go to `--out` as NumPy arrays (`peers.py` beside this file measures ordinary detectors
//! on them).

mod play;
mod ramp;
mod saliency;
#[path = "../subject.rs"]
mod subject;
mod table;

use anstream::{eprintln, println};
use clap::Parser;
use excon_convert::looks::look;
use excon_edge::bundle::Bundle;
use excon_edge::image::Picture;
use excon_edge::predictor::Predictor;
use excon_edge::shift::{Channel, FrameScores, Look};
use excon_train::corruption::Corruption;
use excon_train::dataset::{Split, split_validation};
use excon_train::evaluate::spread;
use excon_train::npy;
use play::GIVE_UP;
use std::path::{Path, PathBuf};
use subject::{Result, Subject, corrupted};
use table::Played;

/// Severities of the contract's figures.
const SEVERITIES: [usize; 3] = [1, 3, 5];

/// The power study of a bundle's alarm
#[derive(Parser)]
struct Settings {
    #[command(flatten)]
    subject: Subject,
    /// Streams per cell
    #[arg(long, default_value_t = 60)]
    streams: u64,
    /// Healthy streams of N/10 frames
    #[arg(long, default_value_t = 200)]
    healthy_streams: u64,
    /// N: effective frames between false alarms that are promised
    #[arg(long, default_value_t = 5_000.0)]
    mean_time: f64,
    /// Another data set as a shift of content; may be given several times
    #[arg(long, value_name = "NAME=DATA")]
    foreign: Vec<String>,
    /// Frames on the way to severity 1 of a slow ramp; 0: no ramps
    #[arg(long, default_value_t = 2_000)]
    ramp: usize,
    /// Play the sealed weights and the families alone, no other variant
    #[arg(long)]
    sealed: bool,
    /// Also try other ways to make the explanation see shift
    #[arg(long)]
    saliency: bool,
    /// Folder for the scores
    #[arg(long)]
    out: PathBuf,
}

/// Scores of one kind of frames.
struct Cell {
    name: String,
    /// At network size; kept for `--saliency` alone.
    pictures: Vec<Picture>,
    /// None for healthy pictures and for other content.
    corruption: Option<Corruption>,
    /// 0 where there is none of the three.
    severity: usize,
    scores: Vec<FrameScores>,
}

fn main() -> Result<()> {
    let settings = Settings::parse();
    let bundle = Bundle::open(&settings.subject.bundle)?;
    let predictor = Predictor::from_bundle(&bundle)?;
    let subject = &settings.subject;
    let data = subject.open(&bundle, &subject.data, subject.classes)?;
    let (_, rank) = split_validation(&data.validation, bundle.manifest.provenance.seed);
    let reference = score(&predictor, &pictures(&data.validation.subset(&rank), usize::MAX))?;
    let test = pictures(&data.test, subject.pictures);

    let plain = |name: &str, pictures: &[Picture]| -> Result<Cell> {
        let kept = if settings.saliency { pictures.to_vec() } else { Vec::new() };
        let scores = score(&predictor, pictures)?;
        Ok(Cell { name: name.into(), pictures: kept, corruption: None, severity: 0, scores })
    };
    let healthy = plain("healthy", &test)?;
    let mut cells = Vec::new();
    for corruption in Corruption::ALL {
        for severity in SEVERITIES {
            let cell = plain(corruption.name(), &corrupted(&test, corruption, severity)?)?;
            cells.push(Cell { corruption: Some(corruption), severity, ..cell });
        }
        eprintln!("{corruption}");
    }
    if let Some(known) = subject.classes {
        let all = subject.open(&bundle, &subject.data, None)?.test;
        let others: Vec<usize> = (0..all.len()).filter(|&i| all.labels[i] >= known).collect();
        cells.push(plain("other classes", &pictures(&all.subset(&others), subject.pictures))?);
    }
    for foreign in &settings.foreign {
        let (name, data) = foreign.split_once('=').ok_or("--foreign wants NAME=DATA")?;
        let all = subject.open(&bundle, data, None)?.test;
        cells.push(plain(name, &pictures(&all, subject.pictures))?);
    }
    let ramps = if settings.ramp > 0 { ramp::cells(&predictor, &test)? } else { Vec::new() };
    write(&settings.out, &reference, [&healthy].into_iter().chain(&cells).chain(&ramps))?;

    table::auroc(&healthy, &cells);
    if settings.saliency {
        let train = data.train.subset(&spread(data.train.len(), 2_000));
        let typical = saliency::TypicalMaps::of(&predictor, &pictures(&train, usize::MAX), &train.labels)?;
        let frames = |cell: &Cell| saliency::frames(&predictor, &typical, &cell.pictures);
        let shifted = cells.iter().map(|cell| Ok((cell, frames(cell)?))).collect::<Result<Vec<_>>>()?;
        saliency::table(&frames(&healthy)?, &shifted);
    }
    let (mean_time, streams) = (settings.mean_time, settings.streams);
    let variants = play::variants()?;
    if let Some(looks) = bundle.scores.looks() {
        let sealed = variants[0].reference(&reference)?;
        let mut rows = Vec::new();
        for cell in &cells {
            let truth = cell.corruption.map_or(Look::Unchanged, look);
            for found in play::looks(looks, &sealed, cell, mean_time, streams)? {
                rows.push((truth, cell.severity, found));
            }
        }
        table::looks(&rows);
    }
    let all_healthy = [reference.as_slice(), &healthy.scores].concat();
    let mut shown = Vec::new();
    for variant in variants.iter().filter(|v| v.in_full || !settings.sealed) {
        let fixed = variant.reference(&reference)?;
        let sudden = |cell: &Cell| play::delays(&fixed, mean_time, streams, GIVE_UP, |_| cell.scores.as_slice());
        let delays = cells.iter().map(sudden).collect::<Result<Vec<_>>>()?;
        let rang = play::false_alarms(variant, &all_healthy, reference.len(), mean_time, settings.healthy_streams)?;
        let attained = play::attained(&fixed, &healthy.scores, mean_time, settings.healthy_streams)?;
        eprintln!("{}", variant.name);
        shown.push(Played { variant, delays, rang, attained });
    }
    println!("\nN = {mean_time}, reference of {} frames, {streams} streams a cell", reference.len());
    table::in_full(&cells, &shown);
    table::variants(&cells, &shown, settings.healthy_streams);
    if settings.ramp > 0 {
        let how = (settings.ramp, mean_time, streams);
        ramp::table(&variants[0], &reference, &healthy.scores, &ramps, how)?;
    }
    Ok(())
}

/// Pictures spread over a split, at most so many.
fn pictures(split: &Split, limit: usize) -> Vec<Picture> {
    spread(split.len(), limit).into_iter().map(|i| split.to_picture(i)).collect()
}

/// Scores with the masked pass on every picture.
fn score(predictor: &Predictor, pictures: &[Picture]) -> Result<Vec<FrameScores>> {
    let mut scores = Vec::with_capacity(pictures.len());
    for batch in pictures.chunks(64) {
        for (picture, prediction) in batch.iter().zip(predictor.predict_all(batch)?) {
            scores.push(predictor.scores(picture, &prediction, true)?);
        }
    }
    Ok(scores)
}

/// `reference.npy` and one array a cell, a row a frame and a column a channel; `channels.txt` names the columns.
fn write<'a>(folder: &Path, reference: &[FrameScores], cells: impl Iterator<Item = &'a Cell>) -> Result<()> {
    std::fs::create_dir_all(folder)?;
    let array = |scores: &[FrameScores]| {
        let row = |s: &FrameScores| Channel::ALL.map(|c| s.get(c).map_or(f32::NAN, |v| v as f32));
        npy::floats(scores.iter().map(row).collect::<Vec<_>>().as_flattened(), [scores.len(), Channel::COUNT])
    };
    std::fs::write(folder.join("reference.npy"), array(reference))?;
    for cell in cells {
        let name = format!("{}.{}.npy", cell.name.replace(' ', "_"), cell.severity);
        std::fs::write(folder.join(name), array(&cell.scores))?;
    }
    std::fs::write(folder.join("channels.txt"), Channel::ALL.map(|c| format!("{}\n", c.name())).concat())?;
    Ok(())
}
