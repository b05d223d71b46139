//! A prediction holds together, and a bundle that does not compute what it promises is refused.
#![allow(clippy::unwrap_used)]
use super::*;
use crate::bundle::{GOLDEN, Golden};
use crate::shift::Channel;
use crate::tiny;

fn sealed(int8: bool, edit: impl FnOnce(&mut Bundle)) -> Result<Predictor> {
    let folder = tempfile::tempdir().unwrap();
    let mut bundle = tiny::writer(int8, 12).seal(folder.path().join("tiny.excon")).unwrap();
    edit(&mut bundle);
    Predictor::from_bundle(&bundle)
}

#[test]
fn a_prediction_holds_together() {
    for int8 in [false, true] {
        let predictor = sealed(int8, |_| ()).unwrap();
        let pictures: Vec<Picture> = (0..5).map(|seed| tiny::picture(seed, 0.4)).collect();
        let all = predictor.predict_all(&pictures).unwrap();
        for (picture, prediction) in pictures.iter().zip(&all) {
            assert_eq!(prediction, &predictor.predict(picture).unwrap());
            assert_eq!(prediction, &predictor.predict(&predictor.resize(picture)).unwrap());
            prediction.verify("tract").unwrap();
            let top = prediction.probabilities.iter().copied().fold(0.0, f64::max);
            assert_eq!(prediction.confidence, top);
            assert_eq!(prediction.label, tiny::LABELS[prediction.class]);
            // Softmax at the bundle's temperature, from first principles.
            let e: Vec<f64> = prediction.logits.iter().map(|z| (f64::from(*z) / 1.25).exp()).collect();
            for (p, e_k) in prediction.probabilities.iter().zip(&e) {
                assert!((p - e_k / e.iter().sum::<f64>()).abs() < 1e-12);
            }
            assert!(prediction.prediction_set.as_ref().unwrap().contains(&prediction.class));
        }
    }
}

#[test]
fn masked_scores_come_from_a_second_pass_on_the_salient_part() {
    let predictor = sealed(false, |_| ()).unwrap();
    let picture = predictor.resize(&tiny::picture(3, 0.5));
    let prediction = predictor.predict(&picture).unwrap();
    let plain = predictor.scores(&picture, &prediction, false).unwrap();
    let masked = predictor.scores(&picture, &prediction, true).unwrap();
    assert_eq!(plain.get(Channel::MaskedCosine), None);
    assert_eq!(plain.get(Channel::Confidence), Some(1.0 - prediction.confidence));
    assert_eq!(plain.completeness, Some(prediction.completeness));

    // By hand: half the map's range kept, the rest 0, run again.
    let mut input = Vec::new();
    predictor.parts().preprocess.normalise(&picture, &mut input);
    let map = prediction.cam.upsample(picture.width, picture.height);
    let (low, high) = map.values.iter().fold((f32::MAX, f32::MIN), |(l, h), &v| (l.min(v), h.max(v)));
    let area = map.values.len();
    for (i, value) in input.iter_mut().enumerate() {
        if (map.values[i % area] - low) / (high - low + 1e-8) <= 0.5 {
            *value = 0.0;
        }
    }
    let second = &predictor.predict_normalised(&input).unwrap()[0];
    let cosine = |a: &[f32], b: &[f32]| -> f64 {
        let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum::<f64>();
        1.0 - dot(a, b) / (dot(a, a).sqrt() * dot(b, b).sqrt())
    };
    let wanted = cosine(&prediction.pooled, &second.pooled);
    assert!((masked.get(Channel::MaskedCosine).unwrap() - wanted).abs() < 1e-9);
    let wanted = cosine(prediction.projected.as_ref().unwrap(), second.projected.as_ref().unwrap());
    assert!((masked.get(Channel::MaskedProjectionCosine).unwrap() - wanted).abs() < 1e-9);
    let disagree = f64::from(u8::from(second.class != prediction.class));
    assert_eq!(masked.get(Channel::MaskedDisagreement), Some(disagree));
}

#[test]
fn a_bundle_that_does_not_compute_what_it_promises_is_refused() {
    let says = |result: Result<Predictor>, words: &str| {
        let error = result.err().unwrap().to_string();
        assert!(error.contains(words), "expected `{words}` in: {error}");
    };
    says(sealed(true, |b| b.golden.logits[1] += 2.0), "golden input 0 gives");
    says(sealed(false, |b| b.golden.logits[1] = f32::NAN), "golden input 0 gives");
    says(sealed(false, |b| b.head.weight[0] += 0.5), "self-test failed");
    says(sealed(false, |b| b.head.bias.swap(0, 1)), "self-test failed");
    says(sealed(false, |b| b.manifest.network.features[1] = 9), "feature map");
    says(sealed(false, |b| b.model.truncate(40)), "model.onnx");
    says(sealed(false, |b| b.manifest.preprocess.size = 16), "preprocessing");
}

#[test]
fn golden_outputs_of_another_network_are_noticed_from_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tiny.excon");
    let bundle = tiny::writer(false, 12).seal(&path).unwrap();
    let golden = Golden { logits: bundle.golden.logits.iter().map(|z| z + 1.0).collect(), ..bundle.golden };
    let bytes = crate::bundle::encode(&golden.to_tensors(&bundle.manifest)).unwrap();
    let mut writer = tiny::writer(false, 12);
    writer.member(GOLDEN, bytes);
    writer.seal(&path).unwrap();
    assert!(matches!(Predictor::open(&path), Err(Error::Bundle { .. })));
}
