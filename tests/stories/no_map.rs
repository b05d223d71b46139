//! A classifier of another program whose head is not linear on the mean of a map: everything is measured but the map, and
//! every command says why.

use super::{excon, photographs};
use std::fs;

#[test]
fn measured_without_a_map() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    let all = photographs(here).join("train");
    for class in ["cardboard", "glass", "metal", "paper", "plastic"] {
        fs::create_dir_all(here.join("own").join(class)).unwrap();
        for file in fs::read_dir(all.join(class)).unwrap().take(24).map(|f| f.unwrap().path()) {
            fs::copy(&file, here.join("own").join(class).join(file.file_name().unwrap())).unwrap();
        }
    }
    let model = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/onnx/legacy_hidden.onnx");
    let given =
        ["convert", model, "--data", "own", "--preprocess=-1..1", "--precision", "float", "--out", "hidden.excon"];
    excon(here, &given).expect(0);

    let reason = "not linear on the mean of its last map";
    let evaluate = ["evaluate", "hidden.excon", "--data", "own", "--explained", "4"];
    let said = excon(here, &evaluate).expect(0).stdout;
    assert!(said.contains("No map: ") && said.contains(reason), "{said}");
    let none = ["drop, %", "increase, %", "deletion", "insertion"];
    assert!(none.iter().all(|figure| !said.contains(figure)) && said.contains("occlusion invariance"), "{said}");
    let json = excon(here, &[&evaluate[..], &["--format", "json"]].concat()).expect(0).json();
    let e = &json["evaluation"];
    assert!(e["no_map"].as_str().unwrap().contains(reason) && e["faithfulness"].is_null(), "{e}");
    assert!(json["explanations"]["deletion"].is_null() && json["explanations"]["occlusion"].is_object(), "{json}");

    let compare = ["compare", "hidden.excon", "tract:hidden.excon", "--data", "own"];
    let said = excon(here, &compare).expect(0).stdout;
    assert!(said.contains("class-activation map") && said.contains("none: hidden.excon: "), "{said}");
    let json = excon(here, &[&compare[..], &["--format", "json"]].concat()).expect(0).json();
    assert!(json["no_map"].as_str().unwrap().contains(reason) && json["map_cosine"].is_null(), "{json}");
    assert_eq!(json["same_class"], 1.0);

    // Laid beside others, it has no figures of maps either.
    excon(here, &[&evaluate[..], &["--out", "hidden.json"]].concat()).expect(0);
    let json = excon(here, &["report", "hidden.json", "--format", "json"]).expect(0).json();
    assert!(json["notes"].to_string().contains("no figures of maps"), "{json}");
    let figures = json["rows"][0]["figures"].as_object().unwrap();
    assert!(figures.contains_key("accuracy") && !figures.contains_key("drop") && !figures.contains_key("deletion"));
}
