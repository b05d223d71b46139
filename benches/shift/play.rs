//! Streams of scores, played to monitors with different weights.

use crate::Cell;
use crate::subject::Result;
use excon_edge::image::Picture;
use excon_edge::shift::{
    Channel, Contract, Family, FrameScores, Likeness, Looks, Monitor, Reference, ReferenceOptions, Weights,
};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

/// Frames after which a sudden shift counts as missed.
pub const GIVE_UP: usize = 2_000;
/// Frames after an alarm before it is said what it looks like.
const FRAMES_AFTER: usize = 16;
/// Healthy frames per stream, as a share of N.
const HEALTHY: f64 = 0.1;
/// Healthy frames per stream for the mean time attained, as a share of N; 2,000 of 5,000 as in `peers.py`.
const ATTAINED: f64 = 0.4;

/// A way to share the evidence out.
pub struct Variant {
    /// What it bets on, in words.
    pub name: &'static str,
    /// Whether its delays are shown for every shift.
    pub in_full: bool,
    weights: Weights,
}

/// What is compared: the sealed weights, whole and family by family, and the contract with and without its additions.
pub fn variants() -> Result<Vec<Variant>> {
    let sealed = Weights::default();
    let family = |name, family: Family| -> Result<Variant> {
        let mut part = Channel::ALL.map(|c| if c.family() == family { sealed.get(c) } else { 0.0 });
        let sum: f64 = part.iter().sum();
        part.iter_mut().for_each(|w| *w /= sum);
        Ok(Variant { name, in_full: true, weights: Weights::new(part)? })
    };
    let axis = |c: Channel| Channel::PROJECTIONS.contains(&c);
    let saliency = |c: Channel| c.family() == Family::ExplanationInconsistent;
    let network = |c: Channel| matches!(c, Channel::Confidence | Channel::Cosine);
    let base = |c: Channel| !Channel::TOWARD.contains(&c) && !axis(c) && !saliency(c);
    let uniform = |name, chosen: &dyn Fn(Channel) -> bool| -> Result<Variant> {
        let channels: Vec<Channel> = Channel::ALL.into_iter().filter(|&c| chosen(c)).collect();
        Ok(Variant { name, in_full: false, weights: Weights::uniform(&channels)? })
    };
    Ok(vec![
        Variant { name: "as sealed: half on the learned directions", in_full: true, weights: sealed.clone() },
        family("family *input changed* alone", Family::InputChanged)?,
        family("family *network unsure* alone", Family::NetworkUnsure)?,
        uniform("without directions: network, pixels, residuals", &base)?,
        uniform("… with feature projections", &|c| base(c) || axis(c))?,
        uniform("… with saliency", &|c| base(c) || saliency(c))?,
        uniform("network and saliency", &|c| network(c) || saliency(c))?,
        uniform("family *explanation inconsistent* alone", &saliency)?,
    ])
}

impl Variant {
    /// Its reference, of independent pictures.
    pub fn reference(&self, frames: &[FrameScores]) -> Result<Reference> {
        let options = ReferenceOptions { independent: true, weights: self.weights.clone(), problems: Vec::new() };
        Ok(Reference::build(frames, &options)?)
    }
}

/// Frames until the alarm rings, a stream each; none where it stayed silent. `scores` says what frame t, from 0 on, is drawn
/// from.
pub fn delays<'a>(
    reference: &Reference,
    mean_time: f64,
    streams: u64,
    limit: usize,
    scores: impl Fn(usize) -> &'a [FrameScores] + Sync,
) -> Result<Vec<Option<usize>>> {
    let one = |seed| {
        let mut stream = Stream::new(reference, mean_time, seed).map_err(|e| e.to_string())?;
        Ok((0..limit).find(|&t| stream.frame(scores(t))).map(|t| t + 1))
    };
    Ok((0..streams).into_par_iter().map(one).collect::<std::result::Result<_, String>>()?)
}

/// How many healthy streams of N/10 frames rang, each with a reference of its own: both are drawn from all healthy frames,
/// as the promise is marginal over the draw of the reference.
pub fn false_alarms(
    variant: &Variant,
    healthy: &[FrameScores],
    frames: usize,
    mean_time: f64,
    streams: u64,
) -> Result<usize> {
    let limit = (HEALTHY * mean_time) as usize;
    let one = |seed: u64| {
        let mut rng = ChaCha8Rng::seed_from_u64(seed ^ 0xfa15e);
        let drawn: Vec<FrameScores> =
            (0..frames).map(|_| healthy[rng.random_range(0..healthy.len())].clone()).collect();
        let rings = || -> Result<bool> {
            let mut stream = Stream::new(&variant.reference(&drawn)?, mean_time, seed)?;
            Ok((0..limit).any(|_| stream.frame(healthy)))
        };
        rings().map_err(|e| e.to_string())
    };
    let rang = (0..streams).into_par_iter().map(one).collect::<std::result::Result<Vec<bool>, String>>()?;
    Ok(rang.into_iter().filter(|rang| *rang).count())
}

/// Mean time between false alarms that is attained with one reference: healthy frames played over alarms.
pub fn attained(reference: &Reference, healthy: &[FrameScores], mean_time: f64, streams: u64) -> Result<f64> {
    let limit = (ATTAINED * mean_time) as usize;
    let rang = delays(reference, mean_time, streams, limit, |_| healthy)?;
    let frames: usize = rang.iter().map(|delay| delay.unwrap_or(limit)).sum();
    Ok(frames as f64 / rang.iter().flatten().count() as f64)
}

/// What each shift looks like when so many frames have come after its alarm; empty where none rang.
pub fn looks(
    looks: &Looks,
    reference: &Reference,
    cell: &Cell,
    mean_time: f64,
    streams: u64,
) -> Result<Vec<Vec<Likeness>>> {
    let one = |seed: u64| -> Result<Vec<Likeness>> {
        let mut stream = Stream::new(reference, mean_time, seed)?;
        if (0..GIVE_UP).any(|_| stream.frame(&cell.scores)) {
            for _ in 0..FRAMES_AFTER {
                stream.frame(&cell.scores);
            }
        }
        Ok(looks.of(stream.monitor.around_alarm()))
    };
    (0..streams).map(one).collect()
}

/// Frames drawn with replacement, and the monitor that takes them.
struct Stream {
    monitor: Monitor,
    rng: ChaCha8Rng,
}

impl Stream {
    fn new(reference: &Reference, mean_time: f64, seed: u64) -> Result<Self> {
        let contract = Contract { mean_time_between_false_alarms: mean_time, seed, ..Contract::default() };
        let monitor = Monitor::new(reference.clone(), contract)?;
        Ok(Self { monitor, rng: ChaCha8Rng::seed_from_u64(seed ^ 0x5eed) })
    }

    /// The next frame, one of `scores`; true while an alarm stands.
    fn frame(&mut self, scores: &[FrameScores]) -> bool {
        let rng = &mut self.rng;
        // The scores were taken before; the sensor check only has to find a picture that it has not just seen.
        let noise = Picture { width: 8, height: 8, rgb: (0..8 * 8 * 3).map(|_| rng.random_range(30..220)).collect() };
        self.monitor.observe(&noise, &scores[rng.random_range(0..scores.len())]);
        self.monitor.alarm().is_some()
    }
}
