//! With a shift the alarm rings, soon, and names the right family.

use super::*;

/// Effective frames from the shift to the alarm (`None`: missed) and the family it names, per stream.
fn delays(reference: usize, shift: impl Fn(usize, Channel) -> f64 + Sync) -> Vec<(Option<usize>, Option<Family>)> {
    let channels = betting();
    (0..40u64)
        .into_par_iter()
        .map(|stream| {
            let mut rng = ChaCha8Rng::seed_from_u64(0xF00D + stream);
            let frames: Vec<FrameScores> = (0..reference).map(|_| noise_frame(&channels, 0.0, &mut rng)).collect();
            let mut monitor = Monitor::new(independent(&frames, &channels), contract(1e6, stream)).unwrap();
            for _ in 0..200 {
                monitor.enter(&noise_frame(&channels, 0.0, &mut rng));
            }
            assert!(monitor.alarm().is_none(), "rang before the shift");
            for t in 0..3000 {
                let values: Vec<_> = channels.iter().map(|&c| (c, normal(&mut rng) + shift(t, c))).collect();
                monitor.enter(&frame(&values));
                if let Some(alarm) = monitor.alarm() {
                    return (Some((alarm.frame - 200) as usize), Some(alarm.family));
                }
            }
            (None, None)
        })
        .collect()
}

fn median(found: &[(Option<usize>, Option<Family>)]) -> usize {
    let mut delays: Vec<usize> = found.iter().map(|f| f.0.unwrap_or(usize::MAX)).collect();
    delays.sort_unstable();
    delays[delays.len() / 2]
}

#[test]
fn one_pixel_statistic_that_falls_is_found_and_named() {
    let found = delays(500, |_, c| if c == Channel::LaplacianMedian { -2.0 } else { 0.0 });
    println!("one statistic by −2 sd, n = 500: median {}", median(&found));
    assert!(found.iter().all(|f| f.0.is_some()));
    assert!(found.iter().all(|f| f.1 == Some(Family::InputChanged)));
    assert!(median(&found) <= 25);
}

#[test]
fn an_unsure_network_is_named() {
    let found = delays(500, |_, c| if c.family() == Family::NetworkUnsure { 1.5 } else { 0.0 });
    println!("network by 1.5 sd, n = 500: median {}", median(&found));
    assert!(found.iter().all(|f| f.1 == Some(Family::NetworkUnsure)));
    assert!(median(&found) <= 30);
}

#[test]
fn a_small_reference_still_finds_a_plain_shift() {
    let found = delays(100, |_, c| if c.family() == Family::InputChanged { 1.5 } else { 0.0 });
    println!("pixels by 1.5 sd, n = 100: median {}", median(&found));
    assert!(found.iter().all(|f| f.0.is_some()));
    assert!(median(&found) <= 40);
}

#[test]
fn a_slow_ramp_is_found() {
    let found = delays(500, |t, c| if c.family() == Family::InputChanged { t as f64 / 1000.0 } else { 0.0 });
    println!("ramp of 1 sd in 1,000 frames, n = 500: median {}", median(&found));
    assert!(found.iter().all(|f| f.0.is_some()));
    assert!(median(&found) <= 1000);
}
