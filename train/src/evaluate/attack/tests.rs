//! FGSM and PGD against the independent vectors: gradients, pictures, losses, logits.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::evaluate::NetworkEngine;
use crate::golden::{channel_last, gap, largest, tensors, values, whole};
use candle_core::DType;
use excon_edge::probability::log_softmax;

const MEAN: [f32; 3] = [0.5071, 0.4867, 0.4408];
const STD: [f32; 3] = [0.2675, 0.2565, 0.2761];

/// The twelve reference pictures in 0..1 and their labels.
fn pictures() -> (Tensor, Vec<usize>) {
    let f = tensors("network/batch");
    let bytes = channel_last(&f["image_u8"]).to_dtype(DType::F32).unwrap();
    ((bytes / 255.0).unwrap(), whole(&f["label"]))
}

fn network() -> NetworkEngine {
    NetworkEngine::new(crate::golden::network(), 32).unwrap()
}

/// Share of values that differ by more than 1e-4.
fn differing(a: &Tensor, b: &Tensor) -> f64 {
    let (a, b) = (values(a), values(b));
    assert_eq!(a.len(), b.len());
    a.iter().zip(&b).filter(|(a, b)| (*a - *b).abs() > 1e-4).count() as f64 / a.len() as f64
}

fn first_four(x: &Tensor) -> Tensor {
    x.narrow(0, 0, 4).unwrap()
}

#[test]
fn the_input_gradient_is_the_reference_gradient() {
    let network = network();
    let target = Target::new(&network, &MEAN, &STD).unwrap();
    let (x, labels) = pictures();
    let gradient = target.gradient(&x, &labels).unwrap();
    let want = values(&channel_last(&tensors("attack/fgsm_pgd")["loss_gradient_pixel_space"]));
    // As the network's other gradients: 1e-4 of the largest entry.
    let gap = gap(&values(&first_four(&gradient)), &want);
    assert!(gap < 1e-4 * largest(&want), "{gap} of {}", largest(&want));
}

#[test]
fn fgsm_makes_the_reference_pictures() {
    let network = network();
    let target = Target::new(&network, &MEAN, &STD).unwrap();
    let (x, labels) = pictures();
    let f = tensors("attack/fgsm_pgd");
    for level in [1, 2, 4, 8] {
        let hostile = target.fgsm(&x, &labels, f64::from(level) / 255.0).unwrap();
        let share = differing(&first_four(&hostile), &channel_last(&f[&format!("fgsm_eps{level}")]));
        assert!(share <= 1e-3, "ε = {level}: {share}");
        let gap = gap(&values(&target.logits(&hostile).unwrap()), &values(&f[&format!("fgsm_eps{level}_logits")]));
        assert!(gap < 1e-3, "ε = {level}: {gap}");
    }
}

#[test]
fn pgd_walks_the_reference_path() {
    let network = network();
    let target = Target::new(&network, &MEAN, &STD).unwrap();
    let (x, labels) = pictures();
    let f = tensors("attack/fgsm_pgd");
    let losses = values(&f["pgd_loss_per_image_by_step"]);
    let noise = channel_last(&f["start_noise"]);
    let (mut seen, mut steps) = (vec![], vec![]);
    let mut note = |x: &Tensor| {
        let logits = target.logits(x)?.to_vec2::<f32>()?;
        steps.push(logits.iter().zip(&labels).map(|(row, &l)| -log_softmax(row, 1.0)[l]).collect::<Vec<_>>());
        seen.push(x.clone());
        Ok(())
    };
    let last = target.pgd(&x, &labels, &noise, (8.0 / 255.0, 2.0 / 255.0, 20), &mut note).unwrap();
    assert_eq!((seen.len(), losses.len()), (21, 21 * 12));
    for (step, (ours, theirs)) in steps.iter().zip(losses.chunks_exact(12)).enumerate() {
        let gap = gap(ours, theirs);
        assert!(gap < if step <= 2 { 1e-3 } else { 5e-2 }, "step {step}: {gap}");
    }
    for (step, share) in [(1, 1e-3), (5, 3e-2)] {
        let differ = differing(&first_four(&seen[step]), &channel_last(&f[&format!("pgd_after_step{step}")]));
        assert!(differ <= share, "step {step}: {differ}");
    }
    assert!(differing(&last, &channel_last(&f["pgd20_image"])) <= 3e-2);
    // Inside the ball and the range.
    assert!(gap(&values(&last), &values(&x)) <= 8.0 / 255.0 + 1e-6);
    assert!(values(&last).iter().all(|v| (0.0..=1.0).contains(v)));
}

#[test]
fn attacked_splits_are_measured() {
    let network = network();
    let bytes = tensors("network/batch")["image_u8"].permute((0, 2, 3, 1)).unwrap().flatten_all().unwrap();
    let (_, labels) = pictures();
    let names = (0..12).map(|i| i.to_string()).collect();
    let split = Split { size: 32, rgb: bytes.to_vec1().unwrap(), labels, names, ..Split::default() };
    let preprocess = Preprocess { size: 32, mean: MEAN, std: STD };
    let run = |attack, seed| attacked(&network, &split, &preprocess, &1.0.into(), attack, seed).unwrap();
    // Right of 12, from the fixture's notes: FGSM 3, 1, 0, 0; PGD 0.
    for (attack, right) in Attack::ALL.into_iter().zip([3.0, 1.0, 0.0, 0.0, 0.0]) {
        let a = run(attack, 1);
        assert_eq!((a.measured.metrics.accuracy, a.measured.metrics.count), (right / 12.0, 12), "{}", a.name);
        assert_eq!(a, run(attack, 1));
    }
    assert_ne!(run(Attack::ALL[4], 1).measured.metrics.nll, run(Attack::ALL[4], 2).measured.metrics.nll);
    assert_eq!(Attack::ALL.map(|a| a.name())[3..], ["FGSM 8/255", "PGD-20 8/255"]);
    // A start is the picture's own.
    assert_eq!(noise(&[4], 2, 0.1, 1), noise(&[3, 4], 2, 0.1, 1)[12..]);
    assert!(noise(&[4], 32, 0.1, 1).iter().all(|v| v.abs() <= 0.1));
    let small = Preprocess { size: 16, ..preprocess };
    assert!(attacked(&network, &split, &small, &1.0.into(), Attack::ALL[0], 1).is_err());
}
