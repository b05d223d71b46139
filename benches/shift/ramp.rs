//! Shifts that creep in: pictures on their way from healthy to a corruption's lightest severity.
//!
//! On the way a picture is the blend of the two, in ten steps. The first step comes after a tenth of the way.

use crate::play::{self, Variant};
use crate::subject::{Result, corrupted};
use crate::table::{quantile, words};
use crate::{Cell, score};
use anstream::println;
use excon_edge::image::Picture;
use excon_edge::predictor::Predictor;
use excon_edge::shift::FrameScores;
use excon_train::corruption::Corruption;

/// What creeps in.
const CREEPING: [Corruption; 4] =
    [Corruption::Brightness, Corruption::Pixelate, Corruption::JpegCompression, Corruption::GaussianNoise];
/// Steps on the way.
const STEPS: usize = 10;

/// Scores at every step of the way of each corruption, the whole way last.
pub fn cells(predictor: &Predictor, healthy: &[Picture]) -> Result<Vec<Cell>> {
    let mut cells = Vec::new();
    for corruption in CREEPING {
        let whole = corrupted(healthy, corruption, 1)?;
        for step in 1..=STEPS {
            let there: Vec<Picture> = healthy.iter().zip(&whole).map(|(from, to)| blend(from, to, step)).collect();
            let name = format!("ramp {corruption} {step:02}");
            let scores = score(predictor, &there)?;
            cells.push(Cell { name, pictures: Vec::new(), corruption: Some(corruption), severity: 0, scores });
        }
    }
    Ok(cells)
}

fn blend(from: &Picture, to: &Picture, step: usize) -> Picture {
    let share = step as f32 / STEPS as f32;
    let mix = |(&a, &b): (&u8, &u8)| (f32::from(a) * (1.0 - share) + f32::from(b) * share).round() as u8;
    Picture { width: from.width, height: from.height, rgb: from.rgb.iter().zip(&to.rgb).map(mix).collect() }
}

/// Frames until the alarm, for ramps of so many frames: median, 95th percentile, and how far the shift had come.
pub fn table(
    variant: &Variant,
    reference: &[FrameScores],
    healthy: &[FrameScores],
    cells: &[Cell],
    (frames, mean_time, streams): (usize, f64, u64),
) -> Result<()> {
    println!("\n### Slow ramps: severity 1 reached after {frames} frames, N = {mean_time}\n");
    println!("| shift | median | p95 | of the way, at the median | missed |\n|---|---|---|---|---|");
    let reference = variant.reference(reference)?;
    for (corruption, way) in CREEPING.iter().zip(cells.chunks(STEPS)) {
        let at = |t: usize| match t * STEPS / frames {
            0 => healthy,
            step => &way[step.min(STEPS) - 1].scores,
        };
        let rang = play::delays(&reference, mean_time, streams, 2 * frames, at)?;
        let median = quantile(&rang, 0.5);
        let come = median.map_or("–".into(), |m| format!("{:.0} %", 100.0 * (m / frames as f64).min(1.0)));
        let missed = rang.iter().filter(|d| d.is_none()).count();
        println!("| {corruption} | {} | {} | {come} | {missed} |", words(median), words(quantile(&rang, 0.95)));
    }
    Ok(())
}
