//! The alarm's promise at its default N: how many simulated streams without any shift ring within N/10 effective frames.
//!
//! ```sh
//! cargo run --release --example null -- --mean-time 1000000 --streams 200
//! ```
//!
//! All channels that bet take part, with the weights as sealed. Every stream has a reference of its own, because the
//! promise is marginal over the draw of the reference. The tests run the same at N of 1,000 and 5,000.

use anstream::{eprintln, println};
use clap::Parser;
use excon_edge::image::Picture;
use excon_edge::probability::upper_limit;
use excon_edge::shift::bet::normal_score;
use excon_edge::shift::thinning::step_for;
use excon_edge::shift::{Channel, Contract, FrameScores, Monitor, Reference, ReferenceOptions, Weights};
use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;
use std::sync::atomic::{AtomicU64, Ordering};

/// False alarms of the shift alarm on simulated healthy streams
#[derive(Parser)]
struct Settings {
    /// N: effective frames between false alarms that are promised
    #[arg(long, default_value_t = 1e6)]
    mean_time: f64,
    /// Streams of N/10 effective frames per kind
    #[arg(long, default_value_t = 200)]
    streams: u64,
    /// Frames of each stream's reference
    #[arg(long, default_value_t = 500)]
    reference: usize,
}

/// What a healthy stream's scores do over time, in every channel.
#[derive(Debug, Clone, Copy)]
enum Kind {
    Independent,
    /// Channels that share most of what moves them.
    Together,
    /// Five levels in the reference and the stream.
    Ties,
    /// First-order autoregression with this coefficient, one frame kept per three autocorrelation times.
    Autoregressive(f64),
}

impl Kind {
    const ALL: [Self; 5] =
        [Self::Independent, Self::Together, Self::Ties, Self::Autoregressive(0.5), Self::Autoregressive(0.99)];

    fn words(self) -> String {
        match self {
            Self::Independent => "independent frames".into(),
            Self::Together => "channels that move together".into(),
            Self::Ties => "ties, five levels".into(),
            Self::Autoregressive(rho) => format!("AR(1) {rho}, one frame per 3τ"),
        }
    }
}

/// A source of healthy scores.
struct Healthy {
    kind: Kind,
    /// What is left of an autoregression's correlation between two kept frames.
    kept: f64,
    last: Vec<f64>,
}

impl Healthy {
    fn new(kind: Kind, rng: &mut ChaCha8Rng) -> Self {
        let kept = match kind {
            Kind::Autoregressive(rho) => rho.powi(step_for((1.0 + rho) / (1.0 - rho)) as i32),
            _ => 0.0,
        };
        Self { kind, kept, last: (0..Channel::COUNT).map(|_| normal(rng)).collect() }
    }

    fn next(&mut self, betting: &[Channel], rng: &mut ChaCha8Rng) -> FrameScores {
        let mut scores = FrameScores::empty();
        let common = if matches!(self.kind, Kind::Together) { 2.0 * normal(rng) } else { 0.0 };
        for (&channel, last) in betting.iter().zip(&mut self.last) {
            let fresh = normal(rng);
            *last = match self.kind {
                Kind::Independent | Kind::Together => common + fresh,
                Kind::Ties => (2.0 * fresh).round().clamp(-2.0, 2.0),
                Kind::Autoregressive(_) => self.kept * *last + (1.0 - self.kept * self.kept).sqrt() * fresh,
            };
            scores.set(channel, *last);
        }
        scores
    }
}

fn normal(rng: &mut ChaCha8Rng) -> f64 {
    normal_score((((rng.next_u64() >> 11) as f64) + 0.5) * 0.5f64.powi(53))
}

fn main() -> excon_edge::Result<()> {
    let settings = Settings::parse();
    let weights = Weights::default();
    let betting: Vec<Channel> = Channel::ALL.into_iter().filter(|&c| weights.get(c) > 0.0).collect();
    let frames = (settings.mean_time / 10.0) as usize;
    let rings = |kind: Kind, stream: u64| -> excon_edge::Result<bool> {
        let mut rng = ChaCha8Rng::seed_from_u64(stream);
        let mut source = Healthy::new(kind, &mut rng);
        let reference: Vec<FrameScores> = (0..settings.reference).map(|_| source.next(&betting, &mut rng)).collect();
        let options = ReferenceOptions { independent: true, weights: weights.clone(), problems: Vec::new() };
        let contract = Contract {
            mean_time_between_false_alarms: settings.mean_time,
            seed: rng.next_u64(),
            ..Contract::default()
        };
        let mut monitor = Monitor::new(Reference::build(&reference, &options)?, contract)?;
        for _ in 0..frames {
            // The sensor check only has to find a picture that it has not just seen.
            let rgb = (0..8 * 8 * 3).map(|_| rng.random_range(30..220)).collect();
            let scores = source.next(&betting, &mut rng);
            monitor.observe(&Picture { width: 8, height: 8, rgb }, &scores);
            if monitor.alarm().is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    };
    let (channels, n, reference) = (betting.len(), settings.mean_time, settings.reference);
    println!("{channels} channels, reference of {reference} frames, t = {frames}, N = {n}\n");
    println!("| streams | rang | upper 95 % limit | allowed |\n|---|---|---|---|");
    for kind in Kind::ALL {
        let done = AtomicU64::new(0);
        let one = |stream: u64| {
            let rang = rings(kind, stream);
            let done = done.fetch_add(1, Ordering::Relaxed) + 1;
            if done.is_multiple_of(20) {
                eprintln!("{}: {done} of {}", kind.words(), settings.streams);
            }
            rang
        };
        let rang = (0..settings.streams).into_par_iter().map(one).collect::<excon_edge::Result<Vec<bool>>>()?;
        let count = rang.iter().filter(|r| **r).count();
        let (share, limit) = (count as f64 / rang.len() as f64, upper_limit(count, rang.len(), 0.05));
        println!("| {} | {share:.3} | {limit:.3} | 0.1 |", kind.words());
    }
    Ok(())
}
