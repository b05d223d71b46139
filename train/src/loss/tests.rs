//! The losses against independent reference values and against their own defining properties.
#![allow(clippy::unwrap_used)]

use super::*;
use candle_core::{Device, Var};
use proptest::prelude::*;
use std::collections::HashMap;

fn fixture() -> HashMap<String, Tensor> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/loss/supcon.safetensors");
    candle_core::safetensors::load(path, &Device::Cpu).unwrap()
}

fn values(t: &Tensor) -> Vec<f64> {
    t.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

fn gap(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(x, y)| (x - y).abs()).fold(0.0, f64::max)
}

fn largest(a: &[f64]) -> f64 {
    a.iter().fold(0.0, |m, v| m.max(v.abs()))
}

const CASES: [(&str, Background, f64, f64); 9] = [
    ("spec_plain", Background::Off, 0.1, 0.07),
    ("spec_bg_negative", Background::Negatives, 0.1, 0.07),
    ("spec_bg_class", Background::Class, 0.1, 0.07),
    ("several_positives", Background::Off, 0.1, 0.07),
    ("one_positive", Background::Off, 0.1, 0.07),
    ("bg_negative", Background::Negatives, 0.1, 0.07),
    ("bg_class", Background::Class, 0.1, 0.07),
    ("wide_128", Background::Negatives, 0.1, 0.07),
    ("tau_0.5_beta_1", Background::Off, 0.5, 1.0),
];

fn check_case(name: &str, background: Background, temperature: f64, base: f64, dtype: DType, tol: f64, grad_tol: f64) {
    let f = fixture();
    let get = |k: &str| f.get(&format!("{name}.{k}")).map(|t| t.to_dtype(dtype).unwrap());
    let mut parts = vec![get("view1").unwrap(), get("view2").unwrap()];
    let back = get("background");
    parts.extend(back.iter().cloned().chain(back.iter().cloned()));
    let rows = Var::from_tensor(&Tensor::cat(&parts, 0).unwrap()).unwrap();
    let labels: Vec<usize> = values(&get("label").unwrap()).iter().map(|&l| l as usize).collect();
    let supcon = SupCon { temperature, base };
    let out = supcon.loss(&rows, &labels.repeat(2), background).unwrap();

    let want = values(&get("loss").unwrap())[0];
    let got = values(&out.loss)[0];
    assert!((got - want).abs() <= tol * want.abs(), "{name} {dtype:?}: {got} instead of {want}");
    let want_anchor = values(&f[&format!("{name}.per_anchor")]);
    assert!(gap(&out.per_anchor, &want_anchor) <= 10.0 * tol * largest(&want_anchor), "{name} per anchor");

    let grads = out.loss.backward().unwrap();
    let gradient = grads.get(&rows).unwrap();
    let b = labels.len();
    let check = |got: Vec<f64>, key: &str| {
        let want = values(&f[&format!("{name}.{key}")]);
        assert!(gap(&got, &want) <= grad_tol * largest(&want), "{name} {dtype:?} {key}: {}", gap(&got, &want));
    };
    check(values(&gradient.narrow(0, 0, b).unwrap()), "grad_view1");
    check(values(&gradient.narrow(0, b, b).unwrap()), "grad_view2");
    if let Some(back) = back {
        let g = back.dim(0).unwrap();
        let twins = [gradient.narrow(0, 2 * b, g).unwrap(), gradient.narrow(0, 2 * b + g, g).unwrap()];
        check(values(&(&twins[0] + &twins[1]).unwrap()), "grad_background");
        assert!(gap(&values(&twins[0]), &values(&twins[1])) <= 1e-12 + grad_tol * 1e-2);
    }
    // Normalisation removes the radial direction.
    let radial = values(&(gradient * rows.as_tensor()).unwrap().sum(1).unwrap());
    assert!(largest(&radial) <= 1e-4 * largest(&values(gradient)) * largest(&values(&rows)).max(1.0));
}

#[test]
fn matches_reference_in_double_precision() {
    for (name, background, temperature, base) in CASES {
        check_case(name, background, temperature, base, DType::F64, 1e-10, 1e-9);
    }
    check_case("sharp_tau_0.01", Background::Off, 0.01, 0.07, DType::F64, 1e-10, 1e-8);
}

#[test]
fn matches_reference_in_single_precision() {
    for (name, background, temperature, base) in CASES {
        check_case(name, background, temperature, base, DType::F32, 1e-5, 1e-4);
    }
    check_case("sharp_tau_0.01", Background::Off, 0.01, 0.07, DType::F32, 1e-5, 1e-3);
}

#[test]
fn reproduces_the_three_published_vectors() {
    let view1 = [[1.0, 0.2, 0.0], [0.8, 0.5, 0.1], [0.0, 1.0, 0.3f64]];
    let view2 = [[0.9, 0.1, 0.3], [0.5, 0.7, 0.0], [0.2, 0.9, 0.4f64]];
    let back = [[0.6, 0.6, 0.5f64]; 2];
    let real =
        Tensor::cat(&[Tensor::new(&view1, &Device::Cpu).unwrap(), Tensor::new(&view2, &Device::Cpu).unwrap()], 0)
            .unwrap();
    let all = Tensor::cat(&[real.clone(), Tensor::new(&back, &Device::Cpu).unwrap()], 0).unwrap();
    for (rows, background, want) in [
        (&real, Background::Off, 1.66637157),
        (&all, Background::Negatives, 2.08137596),
        (&all, Background::Class, 1.82229764),
    ] {
        let got = values(&SupCon::default().loss(rows, &[0, 0, 1, 0, 0, 1], background).unwrap().loss)[0];
        assert!((got - want).abs() < 5e-9, "{background:?}: {got} instead of {want}");
    }
}

#[test]
fn refuses_rows_that_do_not_fit() {
    let rows = Tensor::zeros((6, 4), DType::F32, &Device::Cpu).unwrap();
    let supcon = SupCon::default();
    let labels = [0, 1, 2, 0, 1, 2];
    assert!(supcon.loss(&rows, &labels[..4], Background::Off).is_err());
    assert!(supcon.loss(&rows, &labels[..5], Background::Negatives).is_err());
    assert!(supcon.loss(&rows, &labels.repeat(2), Background::Off).is_err());
    assert!(SupCon { temperature: 0.0, base: 1.0 }.loss(&rows, &labels, Background::Off).is_err());
    assert!(supcon.loss(&rows, &labels, Background::Off).is_ok());
}

#[test]
fn cross_entropy_matches_stock_candle() {
    let logits = Var::new(&[[1.0f32, -2.0, 0.5], [90.0, 0.0, -90.0], [0.0, 0.0, 0.0]], &Device::Cpu).unwrap();
    let labels = Tensor::new(&[2u32, 0, 1], &Device::Cpu).unwrap();
    let ours = cross_entropy(&logits, &[2, 0, 1]).unwrap();
    let stock = candle_nn::loss::cross_entropy(&logits, &labels).unwrap();
    assert!(gap(&values(&ours), &values(&stock)) < 1e-6);
    let (a, b) = (ours.backward().unwrap(), stock.backward().unwrap());
    assert!(gap(&values(a.get(&logits).unwrap()), &values(b.get(&logits).unwrap())) < 1e-6);
    assert!(cross_entropy(&logits, &[0, 1, 3]).is_err());
    assert!(cross_entropy(&logits, &[0, 1]).is_err());
}

/// Numbers without pattern in −1..1.
fn wave(rows: usize, columns: usize, phase: f64) -> Tensor {
    let numbers: Vec<f64> = (0..rows * columns).map(|i| (i as f64 * 1.7 + phase).sin()).collect();
    Tensor::from_vec(numbers, (rows, columns), &Device::Cpu).unwrap()
}

fn unit(t: &Tensor) -> Vec<Vec<f64>> {
    let norm = |row: &Vec<f64>| row.iter().map(|v| v * v).sum::<f64>().sqrt();
    t.to_vec2::<f64>().unwrap().iter().map(|row| row.iter().map(|v| v / norm(row)).collect()).collect()
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(x, y)| x * y).sum()
}

/// Holds the gradient of `loss` at `at` to central differences.
fn check_gradient(at: &Tensor, loss: impl Fn(&Tensor) -> Tensor) {
    let var = Var::from_tensor(at).unwrap();
    let grads = loss(&var).backward().unwrap();
    let gradient = values(grads.get(&var).unwrap());
    let numbers = values(at);
    for i in 0..numbers.len() {
        let moved = |by: f64| {
            let mut numbers = numbers.clone();
            numbers[i] += by;
            values(&loss(&Tensor::from_vec(numbers, at.shape(), &Device::Cpu).unwrap()))[0]
        };
        let slope = (moved(1e-5) - moved(-1e-5)) / 2e-5;
        assert!((slope - gradient[i]).abs() < 1e-8 * (1.0 + slope.abs()), "entry {i}: {} and {slope}", gradient[i]);
    }
}

#[test]
fn info_nce_is_the_log_share_of_the_own_key() {
    let (queries, queue, tau) = (wave(3, 4, 0.1), unit_rows(&wave(5, 4, 0.7)).unwrap(), 0.2);
    let keys = [unit_rows(&wave(3, 4, 2.0)).unwrap(), unit_rows(&wave(3, 4, 5.0)).unwrap()];
    let (q, n) = (unit(&queries), queue.to_vec2::<f64>().unwrap());
    let mut want = 0.0;
    for keys in &keys {
        for (q, k) in q.iter().zip(keys.to_vec2::<f64>().unwrap()) {
            let own = (dot(q, &k) / tau).exp();
            let all = own + n.iter().map(|n| (dot(q, n) / tau).exp()).sum::<f64>();
            want -= (own / all).ln() / 3.0;
        }
    }
    let loss = |q: &Tensor| info_nce(q, &keys, &queue, tau).unwrap();
    assert!((values(&loss(&queries))[0] - want).abs() < 1e-12);
    check_gradient(&queries, loss);
    // No overflow where a similarity over τ is in the hundreds.
    let sharp = values(&info_nce(&queries, &keys, &queue, 1e-3).unwrap())[0];
    assert!(sharp.is_finite() && sharp > 0.0);
    assert!(info_nce(&queries, &[], &queue, tau).is_err());
    assert!(info_nce(&queries, std::slice::from_ref(&queue), &queue, tau).is_err());
    assert!(info_nce(&queries, &keys, &queue, 0.0).is_err());
}

#[test]
fn multi_label_terms_are_one_supcon_term_per_label() {
    let rows = wave(6, 3, 0.4);
    let sets: Vec<Vec<usize>> = vec![vec![0, 2], vec![1], vec![], vec![0], vec![0, 1, 2], vec![3]];
    let supcon = SupCon { temperature: 0.3, base: 0.07 };
    let z = unit(&rows);
    let (mut want, mut pairs) = (0.0, 0.0);
    for i in 0..6 {
        let all: f64 = (0..6).filter(|&a| a != i).map(|a| (dot(&z[i], &z[a]) / 0.3).exp()).sum();
        for label in &sets[i] {
            pairs += 1.0;
            let positives: Vec<usize> = (0..6).filter(|&p| p != i && sets[p].contains(label)).collect();
            let log = |p: &usize| dot(&z[i], &z[*p]) / 0.3 - all.ln();
            want -= positives.iter().map(log).sum::<f64>() / positives.len().max(1) as f64;
        }
    }
    want *= 0.3 / 0.07 / pairs;
    let loss = |rows: &Tensor| supcon.multi_label_loss(rows, &sets).unwrap().loss;
    assert!((values(&loss(&rows))[0] - want).abs() < 1e-10);
    check_gradient(&rows, loss);
    assert_eq!(values(&supcon.multi_label_loss(&rows, &vec![vec![]; 6]).unwrap().loss), [0.0]);
    assert!(supcon.multi_label_loss(&rows, &sets[1..]).is_err());
}

#[test]
fn soft_targets_mix_the_entropies_and_binary_ones_stand_alone() {
    let logits = wave(3, 4, 1.0);
    let entropy = |labels: &[usize]| values(&cross_entropy(&logits, labels).unwrap())[0];
    let (a, b) = (one_hot(&[0, 1, 3], 4), one_hot(&[2, 1, 0], 4));
    let mixed: Vec<f64> = a.iter().zip(&b).map(|(a, b)| 0.3 * a + 0.7 * b).collect();
    let got = values(&soft_cross_entropy(&logits, &mixed).unwrap())[0];
    assert!((got - 0.3 * entropy(&[0, 1, 3]) - 0.7 * entropy(&[2, 1, 0])).abs() < 1e-12);
    check_gradient(&logits, |z| soft_cross_entropy(z, &mixed).unwrap());

    let direct = |z: f64, t: f64| -> f64 {
        let p = 1.0 / (1.0 + (-z).exp());
        -t * p.ln() - (1.0 - t) * (1.0 - p).ln()
    };
    let want: f64 = values(&logits).iter().zip(&a).map(|(z, t)| direct(*z, *t)).sum::<f64>() / 12.0;
    assert!((values(&binary_cross_entropy(&logits, &a).unwrap())[0] - want).abs() < 1e-12);
    check_gradient(&logits, |z| binary_cross_entropy(z, &mixed).unwrap());
    let far = Tensor::new(&[[800.0f64, -800.0]], &Device::Cpu).unwrap();
    assert_eq!(values(&binary_cross_entropy(&far, &[1.0, 0.0]).unwrap()), [0.0]);
    assert!(soft_cross_entropy(&logits, &a[1..]).is_err() && binary_cross_entropy(&logits, &a[1..]).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// With one label a row the multi-label loss is SupCon.
    #[test]
    fn sets_of_one_label_are_plain_supcon(
        numbers in prop::collection::vec(-3.0f64..3.0, 10 * 4),
        labels in prop::collection::vec(0usize..3, 5),
    ) {
        let rows = Tensor::from_vec(numbers, (10, 4), &Device::Cpu).unwrap();
        let labels = labels.repeat(2);
        let sets: Vec<Vec<usize>> = labels.iter().map(|l| vec![*l]).collect();
        let plain = SupCon::default().loss(&rows, &labels, Background::Off).unwrap();
        let other = SupCon::default().multi_label_loss(&rows, &sets).unwrap();
        prop_assert!((values(&plain.loss)[0] - values(&other.loss)[0]).abs() < 1e-12 * (1.0 + values(&plain.loss)[0]));
    }

    /// With no failing picture every treatment of the background is plain SupCon, and the order of rows is immaterial.
    #[test]
    fn no_background_means_plain_supcon(
        numbers in prop::collection::vec(-3.0f64..3.0, 2 * 5 * 4),
        labels in prop::collection::vec(0usize..3, 5),
    ) {
        let rows = Tensor::from_vec(numbers.clone(), (10, 4), &Device::Cpu).unwrap();
        let supcon = SupCon::default();
        let plain = values(&supcon.loss(&rows, &labels.repeat(2), Background::Off).unwrap().loss)[0];
        for background in [Background::Negatives, Background::Class] {
            let other = values(&supcon.loss(&rows, &labels.repeat(2), background).unwrap().loss)[0];
            prop_assert_eq!(plain, other);
        }
        let order = [3usize, 0, 4, 1, 2];
        let shuffled: Vec<f64> = [0, 5].iter()
            .flat_map(|v| order.iter().flat_map(move |&i| (0..4).map(move |c| (v + i) * 4 + c)))
            .map(|at| numbers[at]).collect();
        let moved: Vec<usize> = order.iter().map(|&i| labels[i]).collect();
        let rows = Tensor::from_vec(shuffled, (10, 4), &Device::Cpu).unwrap();
        let other = values(&supcon.loss(&rows, &moved.repeat(2), Background::Off).unwrap().loss)[0];
        prop_assert!((plain - other).abs() < 1e-9 * (1.0 + plain.abs()));
    }
}
