//! The null battery: with no shift, the one-sided upper 95 % limit of P(alarm within t) stays at or below t/N.
//!
//! Every case runs m streams of t effective frames with m · t ≥ 3 N, each with its own reference, because the promise
//! is marginal over the draw of the reference.

use super::*;

struct Case {
    name: &'static str,
    streams: u64,
    frames: usize,
    mean_time: f64,
    reference: usize,
}

/// Runs a case whose frames come from a source made anew for every stream.
fn hold<S>(case: &Case, channels: &[Channel], source: impl Fn(&mut ChaCha8Rng) -> S + Sync)
where
    S: FnMut(&mut ChaCha8Rng) -> FrameScores,
{
    assert!(case.streams as f64 * case.frames as f64 >= 3.0 * case.mean_time, "too few frames to prove anything");
    let rang = count_alarms(&format!("{} {}", case.name, case.reference), case.streams, |rng| {
        let mut next = source(rng);
        let frames: Vec<FrameScores> = (0..case.reference).map(|_| next(rng)).collect();
        let mut monitor =
            Monitor::new(independent(&frames, channels), contract(case.mean_time, rng.next_u64())).unwrap();
        (0..case.frames).any(|_| {
            monitor.enter(&next(rng));
            monitor.alarm().is_some()
        })
    });
    report(case, rang);
}

fn report(case: &Case, rang: u64) {
    let (limit, allowed) = (upper_limit(rang, case.streams), case.frames as f64 / case.mean_time);
    let rate = rang as f64 / case.streams as f64;
    println!("{}: {rate:.4} rang, upper limit {limit:.4}, allowed {allowed:.4}", case.name);
    assert!(limit <= allowed, "{}: {rang} of {} rang, upper limit {limit} above {allowed}", case.name, case.streams);
}

const FEW: [Channel; 3] = [Channel::Confidence, Channel::LumaMean, Channel::SaturationResidual];

#[test]
fn independent_frames_all_channels() {
    let channels = betting();
    let case = Case { name: "iid, n = 100", streams: 1500, frames: 100, mean_time: 1e3, reference: 100 };
    hold(&case, &channels, |_| |rng: &mut ChaCha8Rng| noise_frame(&betting(), 0.0, rng));
    let case = Case { name: "iid, n = 500", streams: 700, frames: 500, mean_time: 5e3, reference: 500 };
    hold(&case, &channels, |_| |rng: &mut ChaCha8Rng| noise_frame(&betting(), 0.0, rng));
}

/// Half of N: long past the start, where R has reached its steady law.
#[test]
fn independent_frames_over_a_long_horizon() {
    for reference in [20, 100] {
        let case = Case { name: "iid, t = N/2", streams: 600, frames: 500, mean_time: 1e3, reference };
        hold(&case, &FEW, |_| |rng: &mut ChaCha8Rng| noise_frame(&FEW, 0.0, rng));
    }
}

#[test]
fn channels_that_move_together() {
    let case = Case { name: "common factor, n = 20", streams: 2000, frames: 100, mean_time: 1e3, reference: 20 };
    hold(&case, &betting(), |_| {
        |rng: &mut ChaCha8Rng| {
            let common = normal(rng);
            noise_frame(&betting(), 2.0 * common, rng)
        }
    });
}

#[test]
fn ties_in_five_levels_and_in_two() {
    for (name, levels) in [("five levels", 5.0), ("two levels", 2.0)] {
        let case = Case { name, streams: 2000, frames: 100, mean_time: 1e3, reference: 100 };
        hold(&case, &FEW, |_| move |rng: &mut ChaCha8Rng| frame(&FEW.map(|c| (c, (uniform(rng) * levels).floor()))));
    }
}

#[test]
fn autocorrelated_frames_kept_one_in_three_times() {
    for (name, rho) in [("AR(1) 0.5", 0.5f64), ("AR(1) 0.9", 0.9), ("AR(1) 0.99", 0.99)] {
        let step = thinning::step_for((1.0 + rho) / (1.0 - rho));
        for reference in [100, 500] {
            let case = Case { name, streams: 1200, frames: 100, mean_time: 1e3, reference };
            hold(&case, &FEW, |rng| {
                let mut series = FEW.map(|_| Ar1::new(rho.powi(step as i32), rng));
                move |rng: &mut ChaCha8Rng| {
                    let mut scores = FrameScores::empty();
                    FEW.iter().zip(&mut series).for_each(|(&c, s)| scores.set(c, s.next(rng)));
                    scores
                }
            });
        }
    }
}

/// The whole way from raw frames: time estimated on the reference, thinning of reference and stream.
fn hold_raw<S>(case: &Case, source: impl Fn(&mut ChaCha8Rng) -> S + Sync)
where
    S: FnMut(&mut ChaCha8Rng) -> f64,
{
    let channels = [Channel::LumaMean];
    let options = ReferenceOptions { weights: Weights::uniform(&channels).unwrap(), ..ReferenceOptions::default() };
    let rang = count_alarms(&format!("{} {}", case.name, case.reference), case.streams, |rng| {
        let mut next = source(rng);
        let raw: Vec<FrameScores> = (0..case.reference).map(|_| frame(&[(channels[0], next(rng))])).collect();
        let reference = Reference::build(&raw, &options).unwrap();
        let mut monitor = Monitor::new(reference, contract(case.mean_time, rng.next_u64())).unwrap();
        let mut kept = 0;
        while kept < case.frames && monitor.alarm().is_none() {
            let value = next(rng);
            kept += usize::from(monitor.enter(&frame(&[(channels[0], value)])));
        }
        monitor.alarm().is_some()
    });
    report(case, rang);
}

#[test]
fn raw_autocorrelated_frames_through_estimate_and_thinner() {
    for (name, rho, reference) in [("raw AR(1) 0.5", 0.5, 1000), ("raw AR(1) 0.9", 0.9, 6000)] {
        let case = Case { name, streams: 1500, frames: 100, mean_time: 1e3, reference };
        hold_raw(&case, |rng| {
            let mut series = Ar1::new(rho, rng);
            move |rng: &mut ChaCha8Rng| series.next(rng)
        });
    }
}

/// A day and night cycle that the reference has seen many times, with its own noise.
#[test]
fn day_and_night_seen_in_the_reference() {
    let case = Case { name: "day and night", streams: 1200, frames: 100, mean_time: 1e3, reference: 6000 };
    hold_raw(&case, |rng| {
        let mut phase = uniform(rng);
        move |rng: &mut ChaCha8Rng| {
            phase += 1.0 / 100.0;
            (std::f64::consts::TAU * phase).sin() + normal(rng)
        }
    });
}
