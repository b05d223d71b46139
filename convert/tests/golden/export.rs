//! The float model: tract, ONNX Runtime and OpenVINO against the vectors, and the checker's opinion.

use crate::common::*;
use excon_convert::{export, onnx, probe::Probe};

#[test]
fn float_model_reproduces_the_vectors_in_tract() {
    let model = onnx::decode(&onnx::encode(&export::float(&folded(), &labels()))).unwrap();
    let outputs = Probe::new(&model, [3, SIDE, SIDE]).unwrap().run_all(&pictures(), |o| o).unwrap();
    let logits: Vec<f32> = outputs.iter().flat_map(|o| o[0].clone()).collect();
    let gap = largest_gap(&logits, &floats("network/eval_forward.safetensors", "logits"));
    assert!(gap <= 2e-5, "logits {gap}");
    let features: Vec<f32> = outputs[..4].iter().flat_map(|o| o[1].clone()).collect();
    let expected = floats("network/eval_forward.safetensors", "last_map");
    let scale = expected.iter().fold(0.0f32, |m, v| m.max(v.abs()));
    let gap = largest_gap(&features, &expected);
    assert!(gap <= 1e-5 * scale, "features {gap} at {scale}");
}

#[test]
fn labels_travel_in_the_metadata() {
    let model = export::float(&folded(), &labels());
    let entry = model.metadata_props.iter().find(|p| p.key == "excon.labels").unwrap();
    assert_eq!(serde_json::from_str::<Vec<String>>(&entry.value).unwrap(), labels());
}

#[test]
fn equal_networks_give_equal_bytes() {
    assert_eq!(onnx::encode(&export::float(&folded(), &labels())), onnx::encode(&export::float(&folded(), &labels())));
}

#[test]
fn checker_accepts_it_and_other_runtimes_agree_with_tract() {
    let network = folded();
    let model = export::float(&network, &labels());
    let ours = Probe::new(&model, network.input_shape()).unwrap().run_all(&pictures(), |o| o).unwrap();
    for (runtime, theirs) in elsewhere(&model, network.input_shape(), &pictures()) {
        for which in [0, 1] {
            let ours: Vec<f32> = ours.iter().flat_map(|o| o[which].clone()).collect();
            let gap = largest_gap(&ours, &theirs[which]);
            assert!(gap <= 1e-4, "{runtime:?}, output {which}: {gap}");
        }
    }
}

#[test]
fn checker_accepts_an_unusual_network() {
    let network = excon_convert::fold::Folded::new(&unusual(), &random_weights(&unusual(), 5), 31).unwrap();
    let picture: Vec<f32> = pictures().into_iter().take(3 * 31 * 31).collect();
    let model = export::float(&network, &[]);
    let ours = Probe::new(&model, network.input_shape()).unwrap().run(&picture).unwrap();
    for (runtime, theirs) in elsewhere(&model, network.input_shape(), &picture) {
        assert!(largest_gap(&ours[0], &theirs[0]) <= 1e-4, "{runtime:?}");
    }
}
