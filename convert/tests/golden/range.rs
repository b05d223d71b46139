//! Ranges against the calibrators of ONNX Runtime.

use crate::common::*;
use excon_convert::range::{Histogram, Method};
use serde_json::Value;

fn cases() -> Vec<(&'static str, Histogram, Vec<f32>, Value)> {
    let text = std::fs::read_to_string(fixture("quantization/values.json")).unwrap();
    let json: Value = serde_json::from_str(&text).unwrap();
    ["relu", "signed"]
        .map(|name| {
            let values = floats("quantization/data.safetensors", &format!("calib.{name}.values"));
            let mut h = Histogram::new(values.iter().fold(0.0, |m: f32, v| m.max(v.abs())));
            h.add(&values);
            (name, h, values, json["calibration"].clone())
        })
        .into()
}

fn high(json: &Value, key: &str) -> f32 {
    json[key]["high"].as_f64().unwrap() as f32
}

#[test]
fn min_max_is_the_largest_magnitude() {
    for (name, h, _, json) in cases() {
        let key = format!("{name}.minmax");
        let expected = high(&json, &key).max(-json[&key]["low"].as_f64().unwrap() as f32);
        assert_eq!(h.threshold(Method::MinMax), expected);
    }
}

#[test]
fn percentiles_agree_within_one_bin() {
    for (name, h, _, json) in cases() {
        for (method, p) in [(Method::Percentile999, "99.9"), (Method::Percentile9999, "99.99")] {
            let theirs = high(&json, &format!("{name}.percentile{p}.symmetric_True"));
            let exact = json[format!("{name}.numpy_percentile_{p}")]["abs"].as_f64().unwrap() as f32;
            let ours = h.threshold(method);
            // Their bins begin at the smallest magnitude seen, ours at 0. Where the rank falls exactly between two values
            // (19,998 of 20,000) theirs is the upper one, which in a thin tail lies bins away; ours keeps to the lower one.
            let offset = json[format!("{name}.percentile{p}.symmetric_True")]["hist_low"].as_f64().unwrap() as f32;
            let gap = (ours - theirs).abs().min((ours - exact).abs());
            assert!(gap <= h.width() + offset, "{name} {p}: {ours}, {theirs}, exact {exact}");
        }
    }
}

/// Another smoothing of empty bins may legitimately choose another range; then the error must be no worse.
#[test]
fn entropy_is_as_good_as_theirs() {
    for (name, h, values, json) in cases() {
        let theirs = high(&json, &format!("{name}.entropy.symmetric_True"));
        let ours = h.threshold(Method::Entropy);
        let error = |range: f32| {
            let scale = range / 127.0;
            let once = |v: f32| f64::from(v - (v / scale).round_ties_even().clamp(-127.0, 127.0) * scale);
            values.iter().map(|&v| once(v).powi(2)).sum::<f64>()
        };
        assert!(ours < h.threshold(Method::MinMax), "{name}: the tail is cut");
        assert!(error(ours) <= error(theirs), "{name}: {ours} {} and {theirs} {}", error(ours), error(theirs));
        assert!(error(h.threshold(Method::Mse)) <= error(ours) * 1.001, "{name}: mse is best by its own measure");
    }
}
