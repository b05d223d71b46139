//! "I have a folder of photographs and a board."

use super::{elsewhere, excon, excon_edge, own_folder};
use ::excon_edge::image::{self, Picture};
use ::excon_edge::page::png;
use serde_json::Value;
use std::fs;
use std::path::Path;

/// Class folder → run → evaluation → bundle and ONNX → prediction → watch that rings on dark frames and is answered.
#[test]
fn from_a_class_folder_to_an_alarm() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    let own = own_folder(here, 60);
    let train = ["train", "--data", "own", "--epochs", "2", "--out", "run", "--format", "json"];
    let trained = excon(here, &train).expect(0).json();
    assert_eq!(trained["schema"], "excon.training/1");
    assert_eq!(trained["recipe"], "excon (device, joint)");

    let evaluated = excon(here, &["evaluate", "run", "--data", "own", "--format", "json"]).expect(0).json();
    assert_eq!(evaluated["schema"], "excon.evaluation/1");

    // A budget that is not met is exit code 1, after the file is written.
    let converted = excon(here, &["convert", "run", "--data", "own", "--target", "cpu", "--out", "own.excon"]);
    assert!([0, 1].contains(&converted.code), "{}", converted.stderr);
    excon(here, &["convert", "run", "--data", "own", "--target", "cpu", "--out", "own.onnx"]);
    assert!(fs::metadata(here.join("own.onnx")).unwrap().len() > 10_000);
    let inspected = excon(here, &["inspect", "own.excon"]).expect(0);
    assert!(inspected.stdout.contains("cardboard, glass, paper"), "{}", inspected.stdout);
    assert!(inspected.stdout.contains("accuracy estimate"), "{}", inspected.stdout);
    let evaluated = excon(here, &["evaluate", "own.excon", "--data", "own", "--format", "json"]).expect(0).json();
    assert_eq!(evaluated["schema"], "excon.evaluation/1");
    measures_robustness(here);
    compares_forms(here);

    // Frames that the network never saw so dark.
    let frames = here.join("frames");
    fs::create_dir(&frames).unwrap();
    let mut number = 0;
    let mut add = |bytes: &[u8], name: &str| {
        fs::write(frames.join(format!("{number:04}{name}")), bytes).unwrap();
        number += 1;
    };
    for file in fs::read_dir(own.join("glass")).unwrap().take(40) {
        let picture = image::read(&file.unwrap().path()).unwrap();
        let dark = Picture { rgb: picture.rgb.iter().map(|v| v / 4).collect(), ..picture };
        add(&png(&dark).unwrap(), ".png");
    }
    let watch = ["watch", "own.excon", "frames", "--independent", "--state", "state", "--mean-time", "1000"];
    let rang = excon_edge(here, &watch).expect(1);
    assert!(rang.stdout.to_lowercase().contains("alarm"), "{}", rang.stdout);
    let status = excon_edge(here, &["status", "own.excon", "--state", "state"]);
    assert!(status.stdout.contains("alarm"), "{}", status.stdout);
    // So few frames say nothing of accuracy.
    assert!(status.stdout.contains("effective frames so far, 100 are needed"), "{}", status.stdout);
    excon_edge(here, &["acknowledge", "own.excon", "--state", "state"]).expect(0);
    excon_edge(here, &watch).expect(0);
}

/// The run against its bundle, the bundle on two engines, and a bare ONNX file; what is no pair is refused.
fn compares_forms(here: &Path) {
    let compare =
        |a: &str, b: &str| excon(here, &["compare", a, b, "--data", "own", "--format", "json"]).expect(0).json();
    let c = compare("run", "own.excon");
    assert_eq!(
        (&c["schema"], &c["a"]["engine"], &c["b"]["engine"]),
        (&"excon.compare/1".into(), &"candle".into(), &"int8".into())
    );
    assert!(c["same_class"].as_f64().unwrap() > 0.7, "{c}");
    assert!(c["map_cosine"].as_f64().unwrap() > 0.9 && c["logits_db"].as_f64().unwrap() > 10.0, "{c}");
    assert!(c["layers"].as_array().unwrap().len() > 8 && c["a"]["milliseconds"].as_f64().unwrap() > 0.0);
    // Two engines compute the same integers.
    let c = compare("own.excon", "tract:own.excon");
    assert_eq!((&c["b"]["engine"], c["same_class"].as_f64(), &c["layers"]), (&"tract".into(), Some(1.0), &Value::Null));
    let c = compare("own.onnx", "run");
    assert!(c["a"]["temperature"].as_f64().unwrap() > 0.0 && c["layers"].as_array().unwrap().len() > 8);
    elsewhere::runs_forms(here);
    elsewhere::says_what_is_missing(here);
    let page = ["compare", "run", "own.excon", "--data", "own", "--limit", "4", "--out", "compare.html"];
    let said = excon(here, &page).expect(0).stdout;
    assert!(said.contains("same class") && said.contains("compare.html"), "{said}");
    assert!(fs::read_to_string(here.join("compare.html")).unwrap().contains("Layer by layer"));
    excon(here, &["compare", "own.onnx", "own.onnx", "--data", "own"]).expect(64);
    excon(here, &["compare", "run", "tract:run", "--data", "own"]).expect(64);
    excon(here, &["compare", "run", "missing.excon", "--data", "own"]).expect(65);
    // Runs are executed elsewhere only where that is built in and at hand; a bundle has its own engine.
    excon(here, &["evaluate", "own.excon", "--data", "own", "--device", "cuda"]).expect(64);
    excon(here, &["evaluate", "own.excon", "--data", "own", "--device", "tpu"]).expect(64);
}

/// Attacks on the run, corruptions on run and bundle, as JSON and for people.
fn measures_robustness(here: &Path) {
    let few = ["evaluate", "run", "--data", "own", "--limit", "6", "--attacks", "--corruptions", "--explained", "3"];
    let json = excon(here, &[&few[..], &["--format", "json", "--out", "few.json"]].concat()).expect(0).json();
    assert_eq!(json, serde_json::from_slice::<Value>(&fs::read(here.join("few.json")).unwrap()).unwrap());
    // Every figure lies in its interval, before and after scaling, whole, attacked and corrupted.
    let (attacks, cells) = (json["attacks"].as_array().unwrap(), json["corruptions"]["cells"].as_array().unwrap());
    for measured in [&json["evaluation"]].into_iter().chain(attacks).chain(cells) {
        for (figures, intervals) in [("metrics", "intervals"), ("unscaled", "unscaled_intervals")] {
            assert_eq!(measured[figures]["count"], 6);
            let intervals = measured[intervals].as_object().unwrap();
            assert_eq!(intervals.len(), measured[figures].as_object().unwrap().len() - 1);
            for (name, interval) in intervals.iter().filter(|(_, i)| !i.is_null()) {
                let value = measured[figures][name].as_f64().unwrap();
                let [low, high] = [0, 1].map(|i| interval[i].as_f64().unwrap());
                assert!(low <= value + 1e-9 && value <= high + 1e-9, "{name}: {low} {value} {high}");
            }
        }
    }
    let names: Vec<&str> = attacks.iter().map(|a| a["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["FGSM 1/255", "FGSM 2/255", "FGSM 4/255", "FGSM 8/255", "PGD-20 8/255"]);
    assert_eq!((&json["corruptions"]["origin"], &json["corruptions"]["pictures"]), (&"regenerated".into(), &6.into()));
    assert_eq!((cells.len(), &json["corruptions"]["mean"]["cells"]), (100, &75.into()));
    assert_eq!(json["explanations"]["count"], 3);
    assert_eq!(json["evaluation"]["localisation"], Value::Null, "own photographs have no boxes");
    let said = excon(here, &few).expect(0).stdout;
    for word in
        ["PGD-20 8/255", "regenerated", "gaussian_noise", "NLL, nats", "mean of the 15", "frost_like: procedural"]
    {
        assert!(said.contains(word), "{word:?} is not in\n{said}");
    }
    assert!(!said.contains("-0.0"), "{said}");

    // The whole test split is kept in the run, and what was measured before stays.
    let kept = || serde_json::from_slice::<Value>(&fs::read(here.join("run/evaluation.json")).unwrap()).unwrap();
    assert_eq!((&kept()["limit"], &kept()["attacks"]), (&Value::Null, &Value::Null));
    excon(here, &["evaluate", "run", "--data", "own", "--attacks"]).expect(0);
    excon(here, &["evaluate", "run", "--data", "own", "--explained", "0"]).expect(0);
    assert_eq!(kept()["attacks"].as_array().unwrap().len(), 5);
    assert!(kept()["explanations"].is_object());
    excon(here, &["evaluate", "own.excon", "--data", "own", "--limit", "2", "--corruptions"]).expect(0);
    let refused = excon(here, &["evaluate", "own.excon", "--data", "own", "--attacks"]).expect(64);
    assert!(refused.stderr.contains("--attacks"), "{}", refused.stderr);
}
