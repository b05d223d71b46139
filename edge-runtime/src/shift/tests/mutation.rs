//! Detectors broken on purpose: each must break the bound so plainly that the lower limit exceeds t/N. If one of these
//! fails, the null battery has lost its teeth.

use super::*;
use crate::shift::bet::{Tail, log_sum_exp, restart};
use crate::shift::rank::GrowingRank;

const STREAMS: u64 = 600;
const MEAN_TIME: f64 = 1e3;

fn assert_caught(name: &str, frames: usize, rings: impl Fn(&mut ChaCha8Rng) -> bool + Sync) {
    let rang = count_alarms(name, STREAMS, rings);
    let (limit, allowed) = (lower_limit(rang, STREAMS), frames as f64 / MEAN_TIME);
    println!("{name}: {rang} of {STREAMS} rang, lower limit {limit:.3}, allowed {allowed:.3}");
    assert!(limit > allowed, "{name} went unnoticed: {rang} of {STREAMS}");
}

/// Rings when the upper tail's evidence from a stream of p-values reaches N.
fn rings(frames: usize, mut p: impl FnMut() -> f64) -> bool {
    let mut tail = Tail::default();
    (0..frames).any(|_| {
        tail.update(normal_score(p()));
        tail.log_mean() >= MEAN_TIME.ln()
    })
}

#[test]
fn no_thinning() {
    assert_caught("no thinning at ρ = 0.9", 100, |rng| {
        let mut series = Ar1::new(0.9, rng);
        let channels = [Channel::LumaMean];
        let mut next = |rng: &mut ChaCha8Rng| frame(&[(channels[0], series.next(rng))]);
        let raw: Vec<FrameScores> = (0..500).map(|_| next(rng)).collect();
        let mut monitor = Monitor::new(independent(&raw, &channels), contract(MEAN_TIME, rng.next_u64())).unwrap();
        (0..100).any(|_| {
            monitor.enter(&next(rng));
            monitor.alarm().is_some()
        })
    });
}

#[test]
fn reference_not_thinned_while_the_stream_is() {
    assert_caught("reference not thinned at ρ = 0.99", 100, |rng| {
        let mut series = Ar1::new(0.99, rng);
        let mut sorted: Vec<f64> = (0..500).map(|_| series.next(rng)).collect();
        sorted.sort_by(f64::total_cmp);
        let mut rank = GrowingRank::new(&sorted);
        let mut kept = Ar1::new(0.99f64.powi(597), rng);
        rings(100, || {
            let score = kept.next(rng);
            rank.rank(score, uniform(rng))
        })
    });
}

#[test]
fn fixed_reference_with_power_bets() {
    assert_caught("fixed reference, power bets", 200, |rng| {
        let mut sorted: Vec<f64> = (0..8).map(|_| normal(rng)).collect();
        sorted.sort_by(f64::total_cmp);
        let fixed = GrowingRank::new(&sorted);
        let mut log_r = [f64::NEG_INFINITY; 9];
        (0..200).any(|_| {
            let p = fixed.clone().rank(normal(rng), uniform(rng));
            for (i, log_r) in log_r.iter_mut().enumerate() {
                let k = 0.1 * (i + 1) as f64;
                *log_r = restart(*log_r, k.ln() + (k - 1.0) * p.ln());
            }
            log_sum_exp(&log_r) - 9f64.ln() >= MEAN_TIME.ln()
        })
    });
}

#[test]
fn bisected_ties() {
    assert_caught("bisected ties", 100, |rng| {
        let level = |rng: &mut ChaCha8Rng| (uniform(rng) * 5.0).floor();
        let mut seen: Vec<f64> = (0..100).map(|_| level(rng)).collect();
        seen.sort_by(f64::total_cmp);
        rings(100, || {
            let score = level(rng);
            // The classic mistake: one insertion point, ties all on one side, no atom to spread U over.
            let place = seen.partition_point(|s| *s <= score);
            let p = ((seen.len() - place) as f64 + uniform(rng)) / (seen.len() + 1) as f64;
            seen.insert(place, score);
            p
        })
    });
}
