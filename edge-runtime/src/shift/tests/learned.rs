//! Learned directions and feature projections: what they find, how they travel, what they refuse.

use super::*;

/// Scores of a frame on everything a direction is made of, `moved` by so much along one channel.
fn scored(moved: Option<(Channel, f64)>, rng: &mut ChaCha8Rng) -> FrameScores {
    let mut scores = FrameScores::empty();
    for channel in Channel::PIXELS {
        scores.set(channel, normal(rng));
    }
    scores.set(Channel::Confidence, 0.1 * uniform(rng));
    scores.set(Channel::Cosine, 0.1 * uniform(rng));
    if let Some((channel, by)) = moved {
        let value = scores.get(channel).unwrap();
        scores.set(channel, value + by);
    }
    scores
}

/// A model with directions whose n-th shift moves the n-th pixel statistic, or the confidence for the last ones.
fn model(rng: &mut ChaCha8Rng) -> ScoreModel {
    let healthy: Vec<_> = (0..400).map(|_| scored(None, rng)).collect();
    let shifted = std::array::from_fn(|f| (0..400).map(|_| scored(Some(moves(f)), rng)).collect());
    let mut means = ClassMeans::new(1, 6);
    means.add(0, &[1.0; 6]).unwrap();
    let pixels: Vec<_> = healthy.iter().map(|s| PixelStatistics(Channel::PIXELS.map(|c| s.get(c).unwrap()))).collect();
    let embeddings: Vec<[f32; 6]> =
        (0..400).map(|_| std::array::from_fn(|c| (normal(rng) * SPREAD[c]) as f32)).collect();
    let embeddings: Vec<&[f32]> = embeddings.iter().map(|e| e.as_slice()).collect();
    let learned = (Directions::learn(&healthy, &shifted).unwrap(), Projections::learn(&embeddings).unwrap());
    ScoreModel::fit(&means, &pixels).unwrap().with(Some(learned.0), Some(learned.1))
}

/// Deviations of the embedding's channels: the axes are channels 4, 1, 3, 0 in this order.
const SPREAD: [f64; 6] = [1.0, 5.0, 0.2, 2.0, 9.0, 0.1];

fn moves(f: usize) -> (Channel, f64) {
    match f {
        0..6 => (Channel::PIXELS[f], 1.0),
        _ => (Channel::Confidence, 0.1),
    }
}

fn input<'a>(picture: &'a Picture, pooled: &'a [f32], confidence: &'a [f64]) -> FrameInput<'a> {
    FrameInput {
        picture,
        probabilities: confidence,
        predicted: 0,
        pooled,
        projected: None,
        cam: None,
        completeness: None,
        masked: None,
    }
}

#[test]
fn a_direction_grows_with_what_it_was_learned_from() {
    let mut rng = ChaCha8Rng::seed_from_u64(21);
    let model = model(&mut rng);
    let picture = picture(1);
    let sure = model.scores(&input(&picture, &[1.0; 6], &[0.99])).unwrap();
    let unsure = model.scores(&input(&picture, &[1.0; 6], &[0.7])).unwrap();
    let along = |scores: &FrameScores, f: usize| scores.get(Channel::TOWARD[f]).unwrap();
    for f in 7..14 {
        assert!(along(&unsure, f) > along(&sure, f) + 1.0, "{f}");
    }
    // Shift 0 hardly depends on confidence.
    assert!((along(&unsure, 0) - along(&sure, 0)).abs() < 0.5);
}

#[test]
fn axes_are_the_channels_of_largest_spread() {
    let mut rng = ChaCha8Rng::seed_from_u64(22);
    let model = model(&mut rng);
    let picture = picture(1);
    let at = |pooled: [f32; 6]| {
        let scores = model.scores(&input(&picture, &pooled, &[0.9])).unwrap();
        Channel::PROJECTIONS.map(|c| scores.get(c).unwrap())
    };
    let origin = at([0.0; 6]);
    for (axis, channel) in [4, 1, 3, 0].into_iter().enumerate() {
        let mut pooled = [0.0; 6];
        pooled[channel] = 1.0;
        let moved = at(pooled)[axis] - origin[axis];
        assert!((moved - 1.0).abs() < 0.1, "axis {axis}: {moved}");
    }
}

#[test]
fn learned_parts_travel_and_bad_ones_are_refused() {
    let model = model(&mut ChaCha8Rng::seed_from_u64(23));
    let tensors = model.to_tensors();
    assert_eq!(ScoreModel::from_tensors(&tensors).unwrap(), model);
    for name in tensors.keys().filter(|n| n.contains("direction") || n.contains("projection")) {
        let mut bad = tensors.clone();
        bad.get_mut(name).unwrap().1[0] = f64::NAN;
        assert!(ScoreModel::from_tensors(&bad).is_err(), "{name}");
    }
    let plain = model.clone().with(None, None);
    assert_eq!(ScoreModel::from_tensors(&plain.to_tensors()).unwrap(), plain);
    assert!(Directions::learn(&[], &Default::default()).is_err());
    assert!(Projections::learn(&[&[1.0, 2.0]]).is_err());
}

#[test]
fn a_reference_of_another_number_of_channels_is_refused_with_words() {
    let frames: Vec<_> = (0..20).map(|i| frame(&[(Channel::Confidence, f64::from(i))])).collect();
    let mut tensors = independent(&frames, &[Channel::Confidence]).to_tensors();
    tensors.insert("reference.weights".into(), (vec![22], vec![1.0 / 22.0; 22]));
    let refused = Reference::from_tensors(&tensors).unwrap_err().to_string();
    assert!(refused.contains("22 channels") && refused.contains("convert"), "{refused}");
}
