//! Pooling and what stands in one row.

#![allow(clippy::unwrap_used)]
use super::*;

#[test]
fn pooled_is_mean_and_sample_deviation() {
    let one = Pooled::of(&[(0.5, Some([0.4, 0.6]))]).unwrap();
    assert_eq!((one.mean, one.spread, one.interval), (0.5, None, Some([0.4, 0.6])));
    let three = Pooled::of(&[(1.0, Some([0.0, 2.0])), (2.0, None), (4.5, None)]).unwrap();
    // Mean 2.5, squares 2.25 + 0.25 + 4.
    assert_eq!((three.mean, three.interval), (2.5, None));
    assert!((three.spread.unwrap() - 3.25f64.sqrt()).abs() < 1e-12);
    assert_eq!(Pooled::of(&[]), None);
}

#[test]
fn runs_of_a_method_are_one_row_whatever_trained_them() {
    let kept = |name| Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/evidence/resnet20/results").join(name);
    // The second as if a graphics card had trained it, on pictures that lay elsewhere.
    let moved = tempfile::tempdir().unwrap();
    for file in ["run.json", "log.jsonl", "evaluation.json"] {
        let text = std::fs::read_to_string(kept("excon-joint-2").join(file)).unwrap();
        let text = text.replace("\"device\": \"cpu\"", "\"device\": \"cuda\"");
        std::fs::write(moved.path().join(file), text.replace("../shared/data/", "")).unwrap();
    }
    let paths = [kept("excon-joint-1"), moved.path().to_path_buf(), kept("control-joint-1")];
    let found = Comparison::read(&paths).unwrap();
    let runs: Vec<Vec<u64>> = found.rows.iter().map(|r| r.runs.iter().map(|m| m.seed).collect()).collect();
    assert_eq!(runs, [vec![1, 2], vec![1]]);
    assert!(found.rows[0].figures["accuracy"].spread.is_some());
    assert!(found.notes.iter().any(|n| n.contains("different devices")), "{:?}", found.notes);
}

#[test]
fn diagrams_add_up_picture_by_picture() {
    let bin = |count, confidence, accuracy| Bin { lower: 0.0, upper: 1.0, count, confidence, accuracy };
    let (a, b) = (vec![bin(1, 0.2, 1.0)], vec![bin(3, 0.6, 0.0)]);
    let both = together([&a, &b, &vec![bin(0, 0.0, 0.0)]].into_iter());
    assert_eq!(both[0].count, 4);
    assert!((both[0].confidence - 0.5).abs() < 1e-12 && (both[0].accuracy - 0.25).abs() < 1e-12);
}

#[test]
fn keys_of_figures_are_unique() {
    let keys: std::collections::BTreeSet<_> = FIGURES.iter().map(|f| f.key).collect();
    assert_eq!(keys.len(), FIGURES.len());
}
