//! The power study of the shift alarm on real pictures: what it finds, how soon, and by which channels.
//!
//! ```sh
//! cargo run --release --example shift -- model.excon --data DATA --classes 10 --out scores
//! ```
//!
//! Test pictures are predicted and scored once, healthy, through every corruption at three severities and, where the
//! data set has more classes than the model, as pictures of other classes. Streams drawn from those scores are then
//! played to monitors that differ in nothing but their weights. Tables go to stdout; the scores go to `--out` as NumPy
//! arrays (`peers.py` beside this file measures ordinary detectors on them).

mod play;
mod saliency;
#[path = "../subject.rs"]
mod subject;
mod table;

use anstream::eprintln;
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
use std::path::{Path, PathBuf};
use subject::{Result, Subject, corrupted};

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
    /// N: effective frames between false alarms that are promised
    #[arg(long, default_value_t = 5_000.0)]
    mean_time: f64,
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
    /// None for healthy pictures and for other classes.
    corruption: Option<Corruption>,
    severity: usize,
    scores: Vec<FrameScores>,
}

fn main() -> Result<()> {
    let settings = Settings::parse();
    let bundle = Bundle::open(&settings.subject.bundle)?;
    let predictor = Predictor::from_bundle(&bundle)?;
    let seed = bundle.manifest.provenance.seed;
    let subject = &settings.subject;
    let data = subject.open(&bundle, subject.classes)?;
    let (_, rank) = split_validation(&data.validation, seed);
    let reference = score(&predictor, &pictures(&data.validation.subset(&rank), usize::MAX))?;
    let test = pictures(&data.test, subject.pictures);

    let plain = |name: &str, pictures: &[Picture]| -> Result<Cell> {
        let kept = if settings.saliency { pictures.to_vec() } else { Vec::new() };
        let scores = score(&predictor, pictures)?;
        Ok(Cell { name: name.into(), pictures: kept, corruption: None, severity: 0, scores })
    };
    let mut cells = vec![plain("healthy", &test)?];
    for corruption in Corruption::ALL {
        for severity in SEVERITIES {
            let seen = corrupted(&test, corruption, severity)?;
            let cell = plain(corruption.name(), &seen)?;
            cells.push(Cell { corruption: Some(corruption), severity, ..cell });
        }
        eprintln!("{corruption}");
    }
    if let Some(known) = subject.classes {
        let all = subject.open(&bundle, None)?.test;
        let others: Vec<usize> = (0..all.len()).filter(|&i| all.labels[i] >= known).collect();
        let seen = pictures(&all.subset(&others), subject.pictures);
        cells.push(plain("other classes", &seen)?);
    }
    write(&settings.out, &reference, &cells)?;

    table::auroc(&cells);
    if settings.saliency {
        let train = data.train.subset(&spread(data.train.len(), 2_000));
        let typical = saliency::TypicalMaps::of(&predictor, &pictures(&train, usize::MAX), &train.labels)?;
        let frames = |cell: &Cell| saliency::frames(&predictor, &typical, &cell.pictures);
        let healthy = frames(&cells[0])?;
        let shifted = cells[1..].iter().map(|cell| Ok((cell, frames(cell)?))).collect::<Result<Vec<_>>>()?;
        saliency::table(&healthy, &shifted);
    }
    let mean_time = settings.mean_time;
    if let Some(looks) = bundle.scores.looks() {
        let mut rows = Vec::new();
        for cell in &cells[1..] {
            let truth = cell.corruption.map_or(Look::Unchanged, look);
            for found in play::looks(looks, &reference, cell, mean_time, settings.streams)? {
                rows.push((truth, cell.severity, found));
            }
        }
        table::looks(&rows);
    }
    for variant in play::variants()? {
        let delays = play::delays(&variant, &reference, &cells[1..], mean_time, settings.streams)?;
        let rang = play::false_alarms(&variant, &reference, &cells[0].scores, mean_time, settings.streams)?;
        table::delays(variant.name, &cells[1..], &delays, rang, settings.streams, mean_time);
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
fn write(folder: &Path, reference: &[FrameScores], cells: &[Cell]) -> Result<()> {
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
