//! Streams of scores, played to monitors with different weights.

use crate::Cell;
use crate::subject::Result;
use excon_edge::image::Picture;
use excon_edge::shift::{
    Channel, Contract, Family, FrameScores, Likeness, Looks, Monitor, Reference, ReferenceOptions, Weights,
};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Frames after which a shift counts as missed.
const GIVE_UP: usize = 2_000;
/// Frames after an alarm before it is said what it looks like.
const FRAMES_AFTER: usize = 16;
/// Healthy frames per stream, as a share of N.
const HEALTHY: f64 = 0.1;

/// A way to share the evidence out.
pub struct Variant {
    pub name: &'static str,
    weights: Weights,
}

/// What is compared: the channels of the contract with and without each of its additions.
pub fn variants() -> Result<Vec<Variant>> {
    let learned = |c: Channel| Channel::TOWARD.contains(&c);
    let axis = |c: Channel| Channel::PROJECTIONS.contains(&c);
    let saliency = |c: Channel| c.family() == Family::ExplanationInconsistent;
    let network = |c: Channel| matches!(c, Channel::Confidence | Channel::Cosine);
    let base = |c: Channel| !learned(c) && !axis(c) && !saliency(c);
    let uniform = |name, chosen: &dyn Fn(Channel) -> bool| -> Result<Variant> {
        let channels: Vec<Channel> = Channel::ALL.into_iter().filter(|&c| chosen(c)).collect();
        Ok(Variant { name, weights: Weights::uniform(&channels)? })
    };
    Ok(vec![
        Variant { name: "as sealed: half of the weight on the learned directions", weights: Weights::default() },
        uniform("without directions: network, pixels, residuals", &base)?,
        uniform("… with feature projections", &|c| base(c) || axis(c))?,
        uniform("… with saliency", &|c| base(c) || saliency(c))?,
        uniform("network alone: confidence, cosine", &network)?,
        uniform("network and saliency", &|c| network(c) || saliency(c))?,
        uniform("saliency alone", &saliency)?,
    ])
}

/// Frames until the alarm rings, per cell and stream; none where it stayed silent.
pub fn delays(
    variant: &Variant,
    reference: &[FrameScores],
    cells: &[Cell],
    mean_time: f64,
    streams: u64,
) -> Result<Vec<Vec<Option<usize>>>> {
    let reference = build(variant, reference)?;
    let cell = |cell: &Cell| -> Result<_> {
        (0..streams).map(|s| rings(&reference, &cell.scores, mean_time, s, GIVE_UP)).collect()
    };
    cells.iter().map(cell).collect()
}

/// How many healthy streams of N/10 frames rang.
pub fn false_alarms(
    variant: &Variant,
    reference: &[FrameScores],
    healthy: &[FrameScores],
    mean_time: f64,
    streams: u64,
) -> Result<usize> {
    let reference = build(variant, reference)?;
    let frames = (HEALTHY * mean_time) as usize;
    let mut rang = 0;
    for stream in 0..streams {
        rang += usize::from(rings(&reference, healthy, mean_time, stream, frames)?.is_some());
    }
    Ok(rang)
}

fn build(variant: &Variant, reference: &[FrameScores]) -> Result<Reference> {
    let options = ReferenceOptions { independent: true, weights: variant.weights.clone(), problems: Vec::new() };
    Ok(Reference::build(reference, &options)?)
}

/// Plays frames drawn with replacement.
fn rings(
    reference: &Reference,
    scores: &[FrameScores],
    mean_time: f64,
    seed: u64,
    limit: usize,
) -> Result<Option<usize>> {
    let mut stream = Stream::new(reference, scores, mean_time, seed)?;
    for frame in 0..limit {
        if stream.frame() {
            return Ok(Some(frame + 1));
        }
    }
    Ok(None)
}

/// What each shift looks like when so many frames have come after its alarm; empty where none rang.
pub fn looks(
    looks: &Looks,
    reference: &[FrameScores],
    cell: &Cell,
    mean_time: f64,
    streams: u64,
) -> Result<Vec<Vec<Likeness>>> {
    let reference = build(&variants()?[0], reference)?;
    let one = |seed: u64| -> Result<Vec<Likeness>> {
        let mut stream = Stream::new(&reference, &cell.scores, mean_time, seed)?;
        if (0..GIVE_UP).any(|_| stream.frame()) {
            for _ in 0..FRAMES_AFTER {
                stream.frame();
            }
        }
        Ok(looks.of(stream.monitor.around_alarm()))
    };
    (0..streams).map(one).collect()
}

/// Frames drawn with replacement, and the monitor that takes them.
struct Stream<'a> {
    monitor: Monitor,
    scores: &'a [FrameScores],
    rng: ChaCha8Rng,
}

impl<'a> Stream<'a> {
    fn new(reference: &Reference, scores: &'a [FrameScores], mean_time: f64, seed: u64) -> Result<Self> {
        let contract = Contract { mean_time_between_false_alarms: mean_time, seed, ..Contract::default() };
        let monitor = Monitor::new(reference.clone(), contract)?;
        Ok(Self { monitor, scores, rng: ChaCha8Rng::seed_from_u64(seed ^ 0x5eed) })
    }

    /// The next frame; true while an alarm stands.
    fn frame(&mut self) -> bool {
        let rng = &mut self.rng;
        // The scores were taken before; the sensor check only has to find a picture that it has not just seen.
        let noise = Picture { width: 8, height: 8, rgb: (0..8 * 8 * 3).map(|_| rng.random_range(30..220)).collect() };
        self.monitor.observe(&noise, &self.scores[rng.random_range(0..self.scores.len())]);
        self.monitor.alarm().is_some()
    }
}
