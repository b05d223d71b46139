//! Probabilities against numpy, scipy, netcal, torchmetrics and scikit-learn, and against their own laws.
#![allow(clippy::unwrap_used)]

mod calibration;
mod selective;

use super::metrics::{Closed, bin_index};
use super::*;
use crate::fixture::{Golden, gap, json};
use proptest::prelude::*;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

const DATA: &str = "probability/data.safetensors";
const CLASSES: usize = 10;

fn close(a: f64, b: f64, tolerance: f64) {
    assert!((a - b).abs() <= tolerance, "{a} is not {b} within {tolerance}");
}

#[test]
fn softmax_is_the_reference() {
    let golden = Golden::open(DATA);
    let logits = golden.f64("logits");
    assert!(gap(&softmax_rows(&logits[..200 * CLASSES], CLASSES, 1.0), &golden.f64("softmax")) <= 1e-12);
    for temperature in [0.5, 1.7, 10.0] {
        let rows = softmax_rows(&logits[..8 * CLASSES], CLASSES, temperature);
        assert!(gap(&rows, &golden.f64(&format!("softmax_T{temperature:?}.first8"))) <= 1e-12);
    }
    let single: Vec<f32> = golden.f32("logits")[..200 * CLASSES].to_vec();
    assert!(gap(&softmax_rows(&single, CLASSES, 1.0), &golden.f64("softmax")) <= 1e-6);
    let extreme = golden.f64("extreme_logits");
    assert!(gap(&softmax_rows(&extreme, 3, 1.0), &golden.f64("extreme_softmax")) <= 1e-12);
    let logs: Vec<f64> = extreme.chunks_exact(3).flat_map(|row| log_softmax(row, 1.0)).collect();
    for (own, reference) in logs.iter().zip(golden.f64("extreme_log_softmax")) {
        close(*own, reference, 1e-12 * reference.abs().max(1.0));
    }
}

#[test]
fn argmax_takes_the_first_of_equals() {
    assert_eq!(argmax(&[1.0f32, 3.0, 3.0, 2.0]), 1);
    assert_eq!(argmax::<f32>(&[]), 0);
}

#[test]
fn temperature_is_the_reference() {
    let golden = Golden::open(DATA);
    let expected = &json("probability/metrics.json")["temperature"];
    let fit = fit_temperature_reported(&golden.f64("logits"), CLASSES, &golden.index("label")).unwrap();
    close(fit.temperature, expected["T"].as_f64().unwrap(), 1e-6);
    close(fit.nll_before, expected["nll_before"].as_f64().unwrap(), 1e-10);
    close(fit.nll_after, expected["nll_after"].as_f64().unwrap(), 1e-10);
    assert_eq!(fit.refused, None);
}

#[test]
fn a_fit_that_cannot_be_is_refused_with_its_reason() {
    // Every picture right: the likelihood grows without bound as the temperature falls.
    let right = fit_temperature_reported(&[3.0f32, 0.0, 0.0, 3.0], 2, &[0, 1]).unwrap();
    assert_eq!((right.temperature, right.refused.is_some()), (1.0, true));
    // Every picture wrong: it grows as the temperature rises.
    let wrong = fit_temperature_reported(&[3.0f32, 0.0, 0.0, 3.0], 2, &[1, 0]).unwrap();
    assert_eq!((wrong.temperature, wrong.refused.is_some()), (1.0, true));
    // Already best: three of four right at confidence 3/4.
    let z = 3f64.ln();
    let best = fit_temperature(&[z, 0.0, z, 0.0, z, 0.0, z, 0.0], 2, &[0, 0, 0, 1]).unwrap();
    close(best, 1.0, 1e-7);
    assert!(fit_temperature(&[1.0f32, f32::NAN], 2, &[0]).is_err());
    assert!(fit_temperature(&[1.0f32, 2.0], 2, &[2]).is_err());
    assert!(fit_temperature::<f32>(&[], 2, &[]).is_err());
    assert!(fit_temperature(&[1.0f32, 2.0, 3.0], 2, &[0]).is_err());
}

#[test]
fn metrics_are_the_reference() {
    let golden = Golden::open(DATA);
    let labels = golden.index("label");
    let probabilities = softmax_rows(&golden.f64("logits"), CLASSES, 1.0);
    let own = Metrics::measure(&probabilities, CLASSES, &labels).unwrap();
    let expected = json("probability/metrics.json")["metrics"].clone();
    let value = |pointer: &str| expected.pointer(pointer).unwrap().as_f64().unwrap();
    assert_eq!(own.count, 2000);
    for (own, pointer) in [
        (own.accuracy, "/accuracy"),
        (own.top5, "/top5_accuracy"),
        (own.macro_accuracy, "/macro_accuracy"),
        (own.ece, "/ece_width_15/right_closed"),
        (own.ece10, "/ece_width_10/left_closed"),
        (own.ece10, "/ece_width_10/netcal_ece"),
        (own.ece_mass, "/ece_mass_15/ours_array_split"),
        (own.classwise_ece, "/classwise_ece_15/mean"),
        (own.nll, "/nll"),
        (own.brier, "/brier_sum_over_classes"),
        (own.auroc.unwrap(), "/auroc_correct_by_confidence"),
        (own.aurc, "/aurc_mean_of_risks"),
    ] {
        close(own, value(pointer), 1e-9);
    }
    for bins in [10, 15] {
        let table = reliability(&probabilities, CLASSES, &labels, bins);
        let list = |name: &str| expected[format!("ece_width_{bins}")][name].as_array().unwrap().clone();
        for (index, bin) in table.iter().enumerate() {
            let count = bin.count as f64;
            close(count, list("bin_count")[index].as_f64().unwrap(), 0.0);
            close(count * bin.confidence, list("bin_confidence_sum")[index].as_f64().unwrap(), 1e-9);
            close(count * bin.accuracy, list("bin_correct_sum")[index].as_f64().unwrap(), 1e-9);
        }
    }
}

#[test]
fn confidences_on_edges_follow_the_stated_rule() {
    let case = json("probability/metrics.json")["edge_case_10_bins"].clone();
    let list =
        |name: &str| -> Vec<f64> { case[name].as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect() };
    let scored: Vec<(f64, bool)> =
        list("confidence").into_iter().zip(list("correct").into_iter().map(|c| c == 1.0)).collect();
    let calibration_error = |closed: Closed| {
        let gap = |bin: usize| {
            let inside = scored.iter().filter(|(c, _)| bin_index(*c, 10, closed) == bin);
            inside.map(|(confidence, right)| f64::from(u8::from(*right)) - confidence).sum::<f64>().abs()
        };
        (0..10).map(gap).sum::<f64>() / scored.len() as f64
    };
    close(calibration_error(Closed::Left), case["left_closed"].as_f64().unwrap(), 1e-12);
    close(calibration_error(Closed::Right), case["right_closed"].as_f64().unwrap(), 1e-12);
}

#[test]
fn metrics_refuse_what_is_no_distribution() {
    for (probabilities, classes, labels) in [
        (vec![0.5, 0.6], 2, vec![0]),
        (vec![f64::NAN, 1.0], 2, vec![0]),
        (vec![-0.5, 1.5], 2, vec![0]),
        (vec![0.5, 0.5], 2, vec![2]),
        (vec![0.5, 0.5], 2, vec![0, 1]),
        (vec![], 2, vec![]),
        (vec![1.0], 1, vec![0]),
    ] {
        assert!(Metrics::measure(&probabilities, classes, &labels).is_err(), "{probabilities:?}");
    }
    let sure = Metrics::measure(&[1.0, 0.0, 0.0, 1.0], 2, &[0, 0]).unwrap();
    assert!(sure.nll.is_finite() && sure.nll > 300.0);
    close(sure.auroc.unwrap(), 0.5, 0.0);
    close(sure.aurc, 0.5, 1e-12);
    assert_eq!(Metrics::measure(&[1.0, 0.0], 2, &[0]).unwrap().auroc, None);
    let text = serde_json::to_string(&sure).unwrap();
    assert_eq!(serde_json::from_str::<Metrics>(&text).unwrap(), sure);
}

#[test]
fn conformal_scores_quantiles_and_sets_are_the_reference() {
    let golden = Golden::open(DATA);
    let expected = json("probability/conformal.json");
    let calibration = softmax_rows(&golden.f64("logits"), CLASSES, 1.0);
    let test = softmax_rows(&golden.f64("test_logits"), CLASSES, 1.0);
    type Score = fn(&[f64], f64) -> Vec<f64>;
    let methods: [(&str, Score); 5] = [
        ("lac", |p, _| conformal::lac(p)),
        ("aps", |p, _| conformal::aps(p, None)),
        ("aps_randomised", |p, u| conformal::aps(p, Some(u))),
        ("raps_l0.1_k2", |p, _| conformal::raps(p, None, 0.1, 2)),
        ("raps_randomised_l0.1_k2", |p, u| conformal::raps(p, Some(u), 0.1, 2)),
    ];
    let (labels, u_cal, u_test) =
        (golden.index("label"), golden.f64("conformal.u_cal"), golden.f64("conformal.u_test"));
    for (method, score) in methods {
        let rows = calibration.chunks_exact(CLASSES).zip(&u_cal).zip(&labels);
        let scores: Vec<f64> = rows.map(|((row, u), label)| score(row, *u)[*label]).collect();
        assert!(gap(&scores, &golden.f64(&format!("conformal.{method}.cal_score"))) <= 1e-9, "{method}");
        for (text, alpha) in [("0.1", 0.1), ("0.05", 0.05), ("0.01", 0.01)] {
            let quantile = conformal::quantile(&scores, alpha).unwrap();
            close(quantile, expected[text][method]["quantile"].as_f64().unwrap(), 1e-9);
            let mut entries = vec![0u8; test.len()];
            for (index, (row, u)) in test.chunks_exact(CLASSES).zip(&u_test).enumerate() {
                for class in conformal::set(&score(row, *u), quantile) {
                    entries[index * CLASSES + class] = 1;
                }
            }
            assert_eq!(entries, golden.u8(&format!("conformal.{method}.alpha{text}.set")), "{method} {alpha}");
        }
    }
}

#[test]
fn the_conformal_quantile_says_how_many_pictures_it_needs() {
    let scores: Vec<f64> = (1..=19).map(f64::from).collect();
    close(conformal::quantile(&scores, 0.05).unwrap(), 19.0, 0.0);
    close(conformal::quantile(&scores, 0.5).unwrap(), 10.0, 0.0);
    let reason = conformal::quantile(&scores[..18], 0.05).unwrap_err().to_string();
    assert!(reason.contains("at least 19"), "{reason}");
    for alpha in [0.0, 1.0, f64::NAN] {
        assert!(conformal::quantile(&scores, alpha).is_err());
    }
    assert!(conformal::quantile(&[0.1, f64::NAN], 0.5).is_err());
}

/// Coverage of exchangeable data lies between 1 − alpha and 1 − alpha + 1/(n + 1): on average over many draws of
/// calibration and test, within four standard errors.
#[test]
fn conformal_sets_cover_exchangeable_data() {
    let mut rng = ChaCha8Rng::seed_from_u64(7);
    let (n, alpha, trials) = (39, 0.1, 4000);
    let mut scores = |count: usize| -> Vec<f64> {
        let mut one = || {
            let logits: Vec<f64> = (0..4).map(|_| rng.random_range(-2.0..2.0)).collect();
            let p = softmax(&logits, 1.0);
            // The label is drawn from a distorted distribution: coverage must not depend on the model being right.
            let label = if rng.random_bool(0.3) { rng.random_range(0..4) } else { argmax(&p) };
            conformal::aps(&p, Some(rng.random()))[label]
        };
        (0..count).map(|_| one()).collect()
    };
    let mut covered = 0.0;
    for _ in 0..trials {
        let quantile = conformal::quantile(&scores(n), alpha).unwrap();
        covered += f64::from(u8::from(scores(1)[0] <= quantile));
    }
    // n + 1 = 40, so that the exact coverage is 36/40 without rounding.
    close(covered / f64::from(trials), 0.9, 4.0 * (0.09f64 / f64::from(trials)).sqrt());
}

proptest! {
    #[test]
    fn softmax_sums_to_one_and_ignores_a_shift(
        logits in proptest::collection::vec(-200.0f64..200.0, 1..20),
        shift in -500.0f64..500.0,
        temperature in 0.1f64..10.0,
    ) {
        let p = softmax(&logits, temperature);
        prop_assert!((p.iter().sum::<f64>() - 1.0).abs() < 1e-12);
        prop_assert!(p.iter().all(|v| (0.0..=1.0).contains(v)));
        let shifted: Vec<f64> = logits.iter().map(|z| z + shift).collect();
        prop_assert!(gap(&p, &softmax(&shifted, temperature)) < 1e-10);
        let logs: Vec<f64> = log_softmax(&logits, temperature).iter().map(|l| l.exp()).collect();
        prop_assert!(gap(&p, &logs) < 1e-12);
    }

    /// The conformal p-value of one of n + 1 distinct exchangeable scores is uniform: leaving each out in turn, exactly
    /// the promised share is covered.
    #[test]
    fn leaving_each_score_out_covers_exactly(n in 10usize..60, alpha in 0.1f64..0.5, seed in any::<u64>()) {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let scores: Vec<f64> = (0..=n).map(|_| rng.random()).collect();
        let mut covered = 0;
        for out in 0..=n {
            let rest: Vec<f64> = scores.iter().enumerate().filter(|(i, _)| *i != out).map(|(_, s)| *s).collect();
            covered += usize::from(scores[out] <= conformal::quantile(&rest, alpha).unwrap());
        }
        prop_assert!(covered as f64 >= (1.0 - alpha) * (n + 1) as f64 - 1e-6);
        prop_assert!(covered as f64 <= (1.0 - alpha) * (n + 1) as f64 + 1.0);
    }

    #[test]
    fn metrics_do_not_depend_on_the_order_of_rows(seed in any::<u64>(), n in 16usize..80) {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        // Few distinct logits: many tied confidences.
        let rows: Vec<([f64; 3], usize)> =
            (0..n).map(|_| ([0, 1, 2].map(|_| f64::from(rng.random_range(0..3))), rng.random_range(0..3))).collect();
        let measure = |rows: &[([f64; 3], usize)]| {
            let probabilities: Vec<f64> = rows.iter().flat_map(|r| softmax(&r.0, 1.0)).collect();
            Metrics::measure(&probabilities, 3, &rows.iter().map(|r| r.1).collect::<Vec<_>>()).unwrap()
        };
        let (forth, back) = (measure(&rows), measure(&rows.iter().rev().copied().collect::<Vec<_>>()));
        prop_assert!((forth.aurc - back.aurc).abs() < 1e-12);
        prop_assert!((forth.auroc.unwrap_or(0.5) - back.auroc.unwrap_or(0.5)).abs() < 1e-12);
        prop_assert!((forth.ece - back.ece).abs() < 1e-12 && (forth.brier - back.brier).abs() < 1e-12);
        prop_assert!(forth.auroc.is_none_or(|a| (0.0..=1.0).contains(&a)) && (0.0..=1.0).contains(&forth.aurc));
    }
}
