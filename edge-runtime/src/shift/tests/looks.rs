//! What a shift looks like: found between the strengths that were learned, small, and refused when it is broken.

use super::*;

/// A frame whose pixel statistics are standard normal, some moved.
fn scored(moved: &[(Channel, f64)], rng: &mut ChaCha8Rng) -> FrameScores {
    let mut scores = FrameScores::empty();
    Channel::PIXELS.into_iter().for_each(|channel| scores.set(channel, normal(rng)));
    scores.set(Channel::Confidence, 0.1 * uniform(rng));
    scores.set(Channel::Cosine, 0.1 * uniform(rng));
    for &(channel, by) in moved {
        scores.set(channel, scores.get(channel).unwrap() + by);
    }
    scores
}

/// How a kind of the test moves the scores at a strength.
fn moves(look: Look, strength: f64) -> Vec<(Channel, f64)> {
    let [luma, contrast, texture, edges, ..] = Channel::PIXELS;
    match look {
        Look::Bright => vec![(luma, strength)],
        Look::Dark => vec![(luma, -strength)],
        Look::Haze => vec![(contrast, -strength), (edges, -strength)],
        Look::Noise => vec![(texture, strength), (edges, 0.5 * strength)],
        _ => vec![],
    }
}

const KINDS: [Look; 4] = [Look::Bright, Look::Dark, Look::Haze, Look::Noise];

fn frames(look: Look, strength: f64, count: usize, rng: &mut ChaCha8Rng) -> Vec<FrameScores> {
    (0..count).map(|_| scored(&moves(look, strength), rng)).collect()
}

/// Twenty cells, as `convert` draws them: kinds at five strengths.
fn learned(rng: &mut ChaCha8Rng) -> Looks {
    let cell = |(look, strength): (Look, f64), rng: &mut ChaCha8Rng| (look, frames(look, strength, 100, rng));
    let drawn = KINDS.into_iter().flat_map(|look| [1.0, 1.5, 2.0, 2.5, 3.0].map(|s| (look, s)));
    let cells: Vec<_> = drawn.map(|kind| cell(kind, rng)).collect();
    Looks::learn(&frames(Look::Unchanged, 0.0, 200, rng), &cells).unwrap()
}

#[test]
fn a_kind_is_known_at_strengths_that_were_not_drawn() {
    let mut rng = ChaCha8Rng::seed_from_u64(3);
    let looks = learned(&mut rng);
    for (strength, least) in [(1.2, 75), (2.2, 90), (4.5, 90)] {
        for look in KINDS {
            let right =
                (0..100).filter(|_| looks.of(frames(look, strength, 8, &mut rng).iter())[0].look == look).count();
            assert!(right >= least, "{look:?} {strength} {right}");
        }
    }
    let plain = (0..100).filter(|_| looks.of(frames(Look::Warp, 0.0, 8, &mut rng).iter())[0].look == Look::Unchanged);
    assert!(plain.count() >= 90);
    let found = looks.of(frames(Look::Haze, 2.0, 8, &mut rng).iter());
    assert!((found.iter().map(|l| l.share).sum::<f64>() - 1.0).abs() < 1e-12 && found.len() <= 5, "{found:?}");
    assert!(Likeness::words(&found).unwrap().starts_with("fog or low contrast ("));
}

#[test]
fn the_latest_frames_count_and_few_or_broken_ones_say_nothing() {
    let mut rng = ChaCha8Rng::seed_from_u64(4);
    let looks = learned(&mut rng);
    let before = frames(Look::Bright, 3.0, 50, &mut rng);
    let after = frames(Look::Noise, 3.0, 32, &mut rng);
    assert_eq!(looks.of(before.iter().chain(&after))[0].look, Look::Noise);
    assert_eq!(looks.of(before[..3].iter()), []);
    assert_eq!(Likeness::words(&[]), None);
    let mut broken = scored(&[], &mut rng);
    broken.set(Channel::LumaMean, f64::NAN);
    let broken = vec![broken; 10];
    assert_eq!(looks.of(broken.iter()), []);
    assert_eq!(looks.of(before.iter().chain(&broken))[0].look, Look::Bright);
}

#[test]
fn looks_travel_in_four_kilobytes_and_broken_ones_are_refused() {
    let mut rng = ChaCha8Rng::seed_from_u64(5);
    let healthy = frames(Look::Unchanged, 0.0, 40, &mut rng);
    // As many cells as twenty corruptions at two strengths are.
    let cells: Vec<_> = (0..40).map(|i| (KINDS[i % 4], frames(KINDS[i % 4], 2.0, 3, &mut rng))).collect();
    let looks = Looks::learn(&healthy, &cells).unwrap();
    let tensors = looks.to_tensors();
    let bytes: usize = tensors.values().map(|(_, values)| 8 * values.len()).sum();
    assert!(bytes < 4096, "{bytes}");
    assert_eq!(Looks::from_tensors(&tensors).unwrap().unwrap(), looks);
    assert_eq!(Looks::from_tensors(&Tensors::new()).unwrap(), None);
    for (name, value) in
        [("looks.kinds", 99.0), ("looks.kinds", 0.5), ("looks.deviation", 0.0), ("looks.places", f64::INFINITY)]
    {
        let mut broken = tensors.clone();
        broken.get_mut(name).unwrap().1[0] = value;
        assert!(Looks::from_tensors(&broken).is_err(), "{name}");
    }
    assert!(Looks::learn(&healthy[..10], &cells).is_err());
    assert!(Looks::learn(&healthy, &[(Look::Noise, vec![])]).is_err());
    assert!(Looks::learn(&healthy, &[(Look::Noise, vec![FrameScores::empty()])]).is_err());
}
