//! "I cloned it and typed the one command."

use super::{excon, excon_edge, photographs};
use ::excon_edge::bundle::Bundle;
use ::excon_edge::engine::{self, Engine, tract::TractEngine};
use excon_convert::peer::{PYTHON, PeerEngine, Runtime};
use excon_train::dataset::{self, OpenOptions};
use serde_json::Value;
use std::fs;
use std::path::Path;

/// Two epochs prove the chain: report, page, bundle, and the board's command on the demo's bundle.
#[test]
fn the_demo_ends_with_a_report_and_a_bundle_that_the_board_accepts() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    let run = excon(here, &["demo", "--quick", "--out", "demo"]).expect(0);
    assert!(run.stdout.contains("demo/report.html") && run.stdout.contains("excon-edge predict"), "{}", run.stdout);

    let report: Value = serde_json::from_slice(&fs::read(here.join("demo/report.json")).unwrap()).unwrap();
    assert_eq!(report["schema"], "excon.report/1");
    assert_eq!(report["training"]["joint"], true);
    for key in ["/float/accuracy", "/int8/accuracy", "/int8/ece"] {
        let value = report.pointer(key).and_then(Value::as_f64).unwrap_or_else(|| panic!("{key} is missing"));
        assert!((0.0..=1.0).contains(&value), "{key} = {value}");
    }
    assert!(report["seconds"].as_f64().unwrap() > 0.0);
    // Far above the sixth that guessing gives: two epochs learn something, and int8 keeps it.
    assert!(report["int8"]["accuracy"].as_f64().unwrap() > 0.25, "{}", report["int8"]["accuracy"]);
    assert!(report["int8"]["completeness_residual"].as_f64().unwrap() < 1e-4);
    let saliency = report["board"]["phases"].to_string();
    assert!(saliency.contains("healthy"));

    let page = fs::read_to_string(here.join("demo/report.html")).unwrap();
    assert!(page.contains("<svg") && page.contains("data:image/png;base64,"));
    for outside in ["http://", "https://", "<script", "<link"] {
        assert!(!page.replace("http://www.w3.org/2000/svg", "").contains(outside), "the page reaches out: {outside}");
    }

    agrees_with_stock_tract(&here.join("demo/trashnet.excon"));
    agrees_with_other_runtimes(&here.join("demo/trashnet.excon"));

    let picture = photographs(here).join("test/glass/glass121.jpg");
    let bundle = "demo/trashnet.excon";
    let prediction =
        excon_edge(here, &["predict", bundle, picture.to_str().unwrap(), "--explain", "maps", "--format", "json"])
            .expect(0)
            .json();
    let sum: f64 = prediction["probabilities"].as_object().map_or_else(
        || prediction["probabilities"].as_array().unwrap().iter().map(|p| p.as_f64().unwrap()).sum(),
        |classes| classes.values().map(|p| p.as_f64().unwrap()).sum(),
    );
    assert!((sum - 1.0).abs() < 1e-6, "{sum}");
    assert_eq!(fs::read_dir(here.join("maps")).unwrap().count(), 1);

    let status = excon_edge(here, &["status", bundle]).expect(0);
    assert!(status.stdout.contains("P(a false alarm within t effective frames)"), "{}", status.stdout);
}

/// Normalised test photographs of the quick start, one after the other.
fn test_photographs(bundle: &Bundle) -> (Vec<f32>, usize) {
    let test = dataset::open("trashnet", &OpenOptions::default()).unwrap().test;
    let mut images = vec![];
    (0..test.len()).for_each(|i| bundle.manifest.preprocess.normalise(&test.to_picture(i), &mut images));
    (images, test.len())
}

fn best(logits: &[f32]) -> Option<usize> {
    (0..logits.len()).max_by(|&a, &b| logits[a].total_cmp(&logits[b]))
}

/// The fused kernels run the sealed file, and name the class that tract names, node by node in float between the pairs,
/// on at least 99 % of the test photographs; logits differ by rounding alone.
fn agrees_with_stock_tract(bundle: &Path) {
    let bundle = Bundle::open(bundle).unwrap();
    let (images, count) = test_photographs(&bundle);
    let ours = engine::open(&bundle.model, "demo").unwrap();
    assert_eq!((ours.name(), ours.note()), ("int8", None));
    let ours = ours.run(&images).unwrap();
    let theirs = TractEngine::from_onnx(&bundle.model, "demo").unwrap().run(&images).unwrap();
    let classes = bundle.manifest.labels.len();
    let pairs = || ours.logits.chunks(classes).zip(theirs.logits.chunks(classes));
    let equal = pairs().filter(|(a, b)| best(a) == best(b)).count();
    assert!(equal * 100 >= count * 99, "{equal} of {count}");
    let gap = ours.logits.iter().zip(&theirs.logits).map(|(a, b)| f64::from((a - b).abs())).sum::<f64>();
    let size = theirs.logits.iter().map(|b| f64::from(b.abs())).sum::<f64>();
    println!("fused int8 against tract: {equal} of {count} agree, logits differ by {:.4} of their size", gap / size);
    assert!(gap <= 0.02 * size, "{gap} of {size}");
}

/// ONNX Runtime and OpenVINO name the same class as the board's engine on at least 99 % of the test photographs. Says so
/// where `EXCON_PYTHON` names no Python that has them.
fn agrees_with_other_runtimes(bundle: &Path) {
    if std::env::var_os(PYTHON).is_none() {
        return println!("skipped: set {PYTHON} to compare the demo's model with ONNX Runtime and OpenVINO");
    }
    let bundle = Bundle::open(bundle).unwrap();
    let (images, count) = test_photographs(&bundle);
    let ours = engine::open(&bundle.model, "demo").unwrap();
    let (shapes, ours) = (ours.shapes(), ours.run(&images).unwrap());
    for runtime in Runtime::ALL {
        let theirs = match PeerEngine::start(runtime, &bundle.model, shapes) {
            Ok(engine) => engine.run(&images).unwrap(),
            Err(::excon_edge::Error::Unavailable { reason, .. }) if reason.contains("has no package") => {
                println!("skipped: {reason}");
                continue;
            }
            Err(error) => panic!("{error}"),
        };
        let pairs = ours.logits.chunks(shapes.classes).zip(theirs.logits.chunks(shapes.classes));
        let equal = pairs.filter(|(a, b)| best(a) == best(b)).count();
        println!("{runtime:?}: {equal} of {count} photographs with the same class");
        assert!(equal * 100 >= count * 99, "{runtime:?}: {equal} of {count}");
    }
}

/// The same seed gives the same network and the same bundle, byte for byte; another seed does not.
#[test]
fn a_seed_repeats_the_demo() {
    let folder = tempfile::tempdir().unwrap();
    let bundle = |name: &str, seed: &str| {
        excon(folder.path(), &["demo", "--quick", "--seed", seed, "--out", name]).expect(0);
        fs::read(folder.path().join(name).join("trashnet.excon")).unwrap()
    };
    let first = bundle("first", "3");
    assert!(first == bundle("again", "3"), "two runs of one seed differ");
    assert!(first != bundle("other", "4"), "the seed changes nothing");
}
