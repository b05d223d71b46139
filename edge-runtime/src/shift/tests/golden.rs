//! Against the independent vectors of `tests/fixtures/shift`.

use super::*;
use crate::shift::autocorrelation::integrated_time;
use crate::shift::bet::{DELTAS, Tail, log_sum_exp, restart};
use crate::shift::drift::{log_bet, padding, upper_rank};
use crate::shift::rank::GrowingRank;
use serde_json::Value;
use std::path::PathBuf;

fn fixture(name: &str) -> Vec<u8> {
    let path = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/shift")).join(name);
    std::fs::read(path).unwrap()
}

fn json(name: &str) -> Value {
    serde_json::from_slice(&fixture(name)).unwrap()
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect()
}

/// A tensor of `data.safetensors`, f32 widened.
fn tensor(name: &str) -> Vec<f64> {
    let bytes = fixture("data.safetensors");
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let view = file.tensor(name).unwrap();
    match view.dtype() {
        safetensors::Dtype::F64 => {
            view.data().chunks_exact(8).map(|b| f64::from_le_bytes(b.try_into().unwrap())).collect()
        }
        safetensors::Dtype::F32 => {
            view.data().chunks_exact(4).map(|b| f64::from(f32::from_le_bytes(b.try_into().unwrap()))).collect()
        }
        other => unreachable!("{other:?}"),
    }
}

fn assert_close(got: &[f64], want: &[f64], tolerance: f64) {
    assert_eq!(got.len(), want.len());
    for (i, (got, want)) in got.iter().zip(want).enumerate() {
        assert!((got - want).abs() <= tolerance, "at {i}: {got} against {want}");
    }
}

/// Linear-bet recursions of a series of p-values: log R per bet and frame, and their log mean per frame.
fn linear(p: &[f64]) -> (Vec<f64>, Vec<f64>) {
    let slopes = tensor("lambda");
    let mut log_r = vec![f64::NEG_INFINITY; slopes.len()];
    let (mut per_bet, mut mean) = (Vec::new(), Vec::new());
    for &p in p {
        for (log_r, lambda) in log_r.iter_mut().zip(&slopes) {
            *log_r = restart(*log_r, log_bet(p, *lambda));
        }
        per_bet.extend(&log_r);
        mean.push(log_sum_exp(&log_r) - (slopes.len() as f64).ln());
    }
    (per_bet, mean)
}

#[test]
fn urn_ranks_and_normal_bets() {
    let urn = json("urn.json");
    let mut reference = numbers(&urn["reference"]);
    reference.sort_by(f64::total_cmp);
    assert_close(&numbers(&urn["delta"]), &DELTAS, 0.0);
    let mut rank = GrowingRank::new(&reference);
    let p: Vec<f64> =
        numbers(&urn["score"]).iter().zip(numbers(&urn["u"])).map(|(&score, u)| rank.rank(score, u)).collect();
    assert_close(&p, &numbers(&urn["p"]), 1e-10);

    let evidence = |sign: f64| -> Vec<f64> {
        let mut tail = Tail::default();
        p.iter().map(|&p| (tail.update(sign * normal_score(p)), tail.log_mean()).1).collect()
    };
    assert_close(&evidence(1.0), &numbers(&urn["log_sr_mean_normal_upper"]), 1e-10);
    assert_close(&evidence(-1.0), &numbers(&urn["log_sr_mean_normal_lower"]), 1e-10);
}

#[test]
fn fixed_ranks_with_and_without_padding() {
    let sorted = tensor("reference_sorted");
    let strict: Vec<f64> = tensor("score").iter().map(|&s| upper_rank(&sorted, s)).collect();
    assert_close(&strict, &tensor("p_strict"), f64::EPSILON);
    let edge: Vec<f64> = tensor("edge.score").iter().map(|&s| upper_rank(&sorted, s)).collect();
    assert_close(&edge, &tensor("edge.p_strict"), f64::EPSILON);
    let padded: Vec<f64> = strict.iter().map(|p| (p + padding(sorted.len())).min(1.0)).collect();
    assert_close(&padded, &tensor("p_padded"), 2.0 * f64::EPSILON);
}

#[test]
fn restarting_recursion_per_bet_and_its_mean() {
    for (p, name) in [("p_strict", "strict"), ("p_padded", "padded")] {
        let (per_bet, mean) = linear(&tensor(p));
        assert_close(&per_bet, &tensor(&format!("{name}.log_sr_per_bet")), 1e-10);
        assert_close(&mean, &tensor(&format!("{name}.log_sr_mean_over_bets")), 1e-10);
        let first = mean.iter().position(|r| *r >= 1e6f64.ln()).unwrap();
        assert_eq!(first as u64, json("values.json")[format!("{name}.first_index_at_or_over_1e6")].as_u64().unwrap());
    }
}

#[test]
fn channels_are_averaged_not_multiplied() {
    let (_, first) = linear(&tensor("p_padded"));
    let (_, second) = linear(&tensor("channel2.p_padded"));
    assert_close(&second, &tensor("channel2.log_sr_mean_over_bets"), 1e-10);
    let merged: Vec<f64> = first.iter().zip(&second).map(|(a, b)| log_sum_exp(&[*a, *b]) - 2f64.ln()).collect();
    assert_close(&merged, &tensor("merged.log_sr"), 1e-10);
}

#[test]
fn evidence_beyond_the_range_of_floats() {
    let case = &json("values.json")["overflow_case"];
    let p = vec![case["p"].as_f64().unwrap(); case["steps"].as_u64().unwrap() as usize];
    let (_, mean) = linear(&p);
    let want = case["log_sr_mean_over_bets"].as_f64().unwrap();
    // Five thousand additions in the hundreds: 1e-10 absolute is below their rounding.
    assert!((mean.last().unwrap() - want).abs() < 1e-12 * want * 50.0, "{:?} against {want}", mean.last());
}

#[test]
fn autocorrelation_time() {
    let values = json("values.json");
    for rho in ["0", "0.5", "0.9", "0.99"] {
        let time = integrated_time(&tensor(&format!("ar1.rho{rho}"))).unwrap();
        let want = values["autocorrelation"][rho]["geyer_initial_positive"].as_f64().unwrap();
        assert!((time / want - 1.0).abs() < 1e-6, "ρ = {rho}: {time} against {want}");
    }
    assert_eq!(integrated_time(&[1.0; 100]), None);
    assert_eq!(integrated_time(&[1.0, 2.0]), None);
}

#[test]
fn clopper_pearson_limits() {
    for (key, want) in json("values.json")["tests"]["clopper_pearson_upper_95_one_sided"].as_object().unwrap() {
        let (rang, streams) = key.split_once('/').unwrap();
        let limit = upper_limit(rang.parse().unwrap(), streams.parse().unwrap());
        assert!((limit / want.as_f64().unwrap() - 1.0).abs() < 1e-6, "{key}: {limit} against {want}");
    }
}
