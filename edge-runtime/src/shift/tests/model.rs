//! The score model: class means, cosine, residuals, and what it refuses.

use super::*;
use crate::saliency::Map;

/// Pixel statistics with one linear dependence: the seventh follows the first.
fn statistics(count: usize) -> Vec<PixelStatistics> {
    let mut rng = ChaCha8Rng::seed_from_u64(11);
    (0..count)
        .map(|_| {
            let mut values = std::array::from_fn(|_| normal(&mut rng));
            values[7] = 2.0 * values[0] + 0.3 * values[7];
            PixelStatistics(values)
        })
        .collect()
}

fn model() -> ScoreModel {
    let mut means = ClassMeans::new(2, 3);
    for (label, pooled) in [(0, [1.0, 0.0, 0.0]), (0, [3.0, 2.0, 0.0]), (1, [0.0, 0.0, 5.0])] {
        means.add(label, &pooled).unwrap();
    }
    ScoreModel::fit(&means, &statistics(400)).unwrap()
}

/// r_i is what is left of x_i after the ridge regression (0.1) on the other six: solve that one by gradient descent
/// and compare.
#[test]
fn residuals_are_what_the_other_six_do_not_predict() {
    let rows = statistics(400);
    let seven: Vec<[f64; 7]> = rows.iter().map(|s| [0, 1, 2, 3, 4, 5, 7].map(|i: usize| s.0[i])).collect();
    let count = seven.len() as f64;
    let mean: [f64; 7] = std::array::from_fn(|i| seven.iter().map(|r| r[i]).sum::<f64>() / count);
    let sd: [f64; 7] =
        std::array::from_fn(|i| (seven.iter().map(|r| (r[i] - mean[i]).powi(2)).sum::<f64>() / count).sqrt());
    let x: Vec<[f64; 7]> = seven.iter().map(|r| std::array::from_fn(|i| (r[i] - mean[i]) / sd[i])).collect();
    let product = |i: usize, j: usize| x.iter().map(|r| r[i] * r[j]).sum::<f64>() / count;
    let covariance: [[f64; 7]; 7] = std::array::from_fn(|i| std::array::from_fn(|j| product(i, j)));
    let target = 6;
    let mut weight = [0.0f64; 6];
    for _ in 0..4000 {
        let gradient: [f64; 6] = std::array::from_fn(|i| {
            let fitted: f64 = (0..6).map(|j| covariance[i][j] * weight[j]).sum();
            fitted + 0.1 * weight[i] - covariance[i][target]
        });
        let size: f64 = gradient.iter().map(|g| g * g).sum();
        (0..6).for_each(|i| weight[i] -= 0.4 * gradient[i]);
        if size < 1e-26 {
            break;
        }
    }
    let model = model();
    for (row, standard) in rows.iter().zip(&x).take(20) {
        let predicted: f64 = (0..6).map(|j| weight[j] * standard[j]).sum();
        let got = model.residuals(row)[target];
        assert!((got - (standard[target] - predicted)).abs() < 1e-9, "{got} against {}", standard[target] - predicted);
    }
}

#[test]
fn scores_of_a_frame() {
    let model = model();
    let picture = picture(3);
    let cam = Map { width: 2, height: 2, values: vec![0.0, 1.0, 2.0, 1.0] };
    let mut input = FrameInput {
        picture: &picture,
        probabilities: &[0.25, 0.75],
        predicted: 0,
        pooled: &[1.0, 0.0, 0.0],
        projected: None,
        cam: Some(&cam),
        completeness: Some(1e-7),
        masked: None,
    };
    let scores = model.scores(&input).unwrap();
    assert_eq!(scores.get(Channel::Confidence), Some(0.75));
    // Mean of class 0 is (2, 1, 0).
    assert!((scores.get(Channel::Cosine).unwrap() - (1.0 - 2.0 / 5f64.sqrt())).abs() < 1e-12);
    assert_eq!(scores.get(Channel::LumaMean), Some(PixelStatistics::of(&picture).0[0]));
    assert_eq!(scores.get(Channel::MaskedCosine), None);
    assert_eq!(scores.get(Channel::CamEntropy), Some(cam.entropy()));
    assert_eq!(scores.get(Channel::CamConcentration), Some(cam.concentration()));
    assert_eq!(scores.completeness, Some(1e-7));

    input.projected = Some(&[1.0, 1.0]);
    input.masked = Some(MaskedPass { pooled: &[0.0, 2.0, 0.0], projected: Some(&[-1.0, -1.0]), predicted: 1 });
    let scores = model.scores(&input).unwrap();
    assert_eq!(scores.get(Channel::MaskedCosine), Some(1.0));
    assert!((scores.get(Channel::MaskedProjectionCosine).unwrap() - 2.0).abs() < 1e-12);
    assert_eq!(scores.get(Channel::MaskedDisagreement), Some(1.0));

    for (predicted, pooled) in [(2, [1.0f32; 3].as_slice()), (0, [1.0; 2].as_slice())] {
        assert!(model.scores(&FrameInput { predicted, pooled, ..input }).is_err());
    }
}

#[test]
fn travels_as_tensors_and_refuses_bad_ones() {
    let model = model();
    assert_eq!(ScoreModel::from_tensors(&model.to_tensors()).unwrap(), model);
    for name in model.to_tensors().keys() {
        let mut tensors = model.to_tensors();
        if let Some((_, values)) = tensors.get_mut(name) {
            values[0] = f64::NAN;
        }
        assert!(ScoreModel::from_tensors(&tensors).is_err());
        tensors.remove(name);
        assert!(ScoreModel::from_tensors(&tensors).is_err());
    }
}

#[test]
fn a_class_without_pictures_is_named() {
    let mut means = ClassMeans::new(2, 1);
    means.add(0, &[1.0]).unwrap();
    let error = ScoreModel::fit(&means, &statistics(20)).unwrap_err();
    assert!(error.to_string().contains("class 1"));
    assert!(means.add(2, &[1.0]).is_err());
    assert!(means.add(1, &[f32::NAN]).is_err());
}
