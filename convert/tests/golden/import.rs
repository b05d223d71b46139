//! Classifiers of other programs: every form of `tests/fixtures/onnx` gives ONNX Runtime's answers, and what cannot be
//! converted is refused by node, operator and reason.

use crate::common::*;
use excon_convert::import::{Imported, Scores, import};
use excon_convert::onnx::{decode, encode, pb};
use excon_convert::peer::{PeerEngine, Runtime};
use excon_convert::{Error, export};
use excon_edge::engine::{self, Engine};
use excon_edge::probability::softmax;
use std::path::Path;

const PARITY: &str = "onnx/parity.safetensors";
const CLASSES: usize = 5;

fn bytes_of(name: &str) -> Vec<u8> {
    std::fs::read(fixture(&format!("onnx/{name}.onnx"))).unwrap()
}

fn imported(name: &str) -> Imported {
    import(Path::new(name), &bytes_of(name), None).unwrap_or_else(|e| panic!("{name}: {e}"))
}

/// Its logits for the pictures of the fixtures.
fn logits(imported: &Imported) -> Vec<f32> {
    let mut pictures = floats(PARITY, "pictures");
    let plane = imported.size * imported.size;
    if let Some((scale, shift)) = imported.input {
        let affine = |(i, v): (usize, &mut f32)| {
            let c = i / plane % 3;
            *v = (f64::from(*v) * scale[c] + shift[c]) as f32;
        };
        pictures.iter_mut().enumerate().for_each(affine);
    }
    let file = encode(&export::float(&imported.network, &[]));
    engine::open(&file, "imported").unwrap().run(&pictures).unwrap().logits
}

#[test]
fn every_form_gives_onnx_runtimes_answers() {
    let folder = std::fs::read_dir(fixture("onnx")).unwrap();
    let mut names: Vec<String> =
        folder.filter_map(|e| e.unwrap().file_name().to_str()?.strip_suffix(".onnx").map(String::from)).collect();
    names.sort();
    assert!(names.len() > 15, "{names:?}");
    for name in names {
        let imported = imported(&name);
        let mut ours = logits(&imported);
        let theirs = floats(PARITY, &name);
        if imported.scores == Scores::Probabilities {
            ours = ours.chunks(CLASSES).flat_map(|row| softmax(row, 1.0)).map(|p| p as f32).collect();
        }
        // A quantized file rounds its maps, ours not yet.
        let quantized = imported.notes.iter().any(|n| n.contains("quantized"));
        assert_eq!(quantized, name.starts_with("qdq"), "{name}");
        let spread = theirs.iter().fold(0f32, |m, v| m.max(v.abs()));
        let gap = largest_gap(&ours, &theirs);
        let allowed = if quantized { 0.06 } else { 1e-5 } * (1.0 + spread);
        assert!(gap <= allowed, "{name}: {gap} of {spread}");
    }
}

/// The file as it lies there, in another runtime, fed as the imported network is.
#[test]
fn other_runtimes_run_the_files_themselves() {
    for name in ["legacy_pooled", "dynamo_view", "legacy_softmax", "keras"] {
        let imported = imported(name);
        let file = encode(&export::float(&imported.network, &[]));
        let pictures = floats(PARITY, "pictures");
        let ours = engine::open(&file, "imported").unwrap().run(&pictures).unwrap().logits;
        for runtime in Runtime::ALL {
            let start = || PeerEngine::foreign(runtime, &bytes_of(name), &imported);
            let Some(theirs) = peer(start).map(|engine| engine.run(&pictures).unwrap()) else { continue };
            assert!(theirs.features.is_empty());
            // Behind a softmax what a picture adds to all of its logits is lost: the first is taken as 0.
            let from_first = |logits: &[f32]| -> Vec<f32> {
                logits.chunks(CLASSES).flat_map(|row| row.iter().map(|v| v - row[0])).collect()
            };
            let gap = largest_gap(&from_first(&ours), &from_first(&theirs.logits));
            assert!(gap <= 1e-4, "{name}, {runtime:?}: {gap}");
            assert!(imported.scores != Scores::Logits || largest_gap(&ours, &theirs.logits) <= 1e-4, "{name}");
        }
    }
}

#[test]
fn a_map_of_one_cell_stands_for_a_head_that_has_none() {
    for (name, cells) in [("pooled", 64), ("view", 64), ("conv", 64), ("maps", 64), ("flatten", 1), ("hidden", 1)] {
        for exporter in ["legacy", "dynamo"] {
            let imported = imported(&format!("{exporter}_{name}"));
            let [_, rows, columns] = imported.network.layers[imported.network.features].shape;
            assert_eq!(rows * columns, cells, "{exporter} {name}");
            let said = imported.notes.iter().any(|n| n.contains("class-activation map is not available"));
            assert_eq!(said, cells == 1, "{exporter} {name}");
        }
    }
}

#[test]
fn a_first_step_of_the_network_is_left_to_the_preprocessing() {
    let (scale, shift) = imported("keras").input.unwrap();
    assert!(scale.iter().all(|s| (s - 1.0 / 127.5).abs() < 1e-9) && shift == [-1.0; 3]);
}

/// A change to `legacy_pooled`, and words of its refusal.
type Change = (&'static str, fn(&mut pb::GraphProto));

#[test]
fn what_cannot_be_converted_is_refused_by_node_operator_and_reason() {
    fn first<'a>(g: &'a mut pb::GraphProto, operator: &str) -> &'a mut pb::NodeProto {
        g.node.iter_mut().find(|n| n.op_type == operator).unwrap()
    }
    let changes: [Change; 8] = [
        ("(Sigmoid): it is not on the list", |g| first(g, "Relu").op_type = "Sigmoid".into()),
        ("(Mul): two maps can only be added", |g| first(g, "Add").op_type = "Mul".into()),
        ("(Concat): maps that are put one behind the other", |g| {
            first(g, "Add").op_type = "Concat".into();
        }),
        ("is not computed before", |g| first(g, "Conv").input[1] = "nowhere".into()),
        ("domain `com.microsoft`", |g| first(g, "Conv").domain = "com.microsoft".into()),
        ("in 3 groups do not fit 3 channels", |g| {
            first(g, "Conv").attribute.iter_mut().find(|a| a.name == "group").unwrap().i = 3;
        }),
        ("(Gemm)", |g| first(g, "Gemm").input[0] = first(g, "Conv").output[0].clone()),
        ("three channels", |g| {
            let tensor = g.input[0].r#type.as_mut().unwrap().value.as_mut().unwrap();
            let pb::type_proto::Value::TensorType(tensor) = tensor;
            tensor.shape.as_mut().unwrap().dim[1].value = Some(pb::tensor_shape_proto::dimension::Value::DimValue(1));
        }),
    ];
    for (words, change) in changes {
        let mut model = decode(&bytes_of("legacy_pooled")).unwrap();
        change(model.graph.as_mut().unwrap());
        match import(Path::new("changed.onnx"), &encode(&model), None) {
            Err(error @ (Error::Node { .. } | Error::Model { .. })) => {
                assert!(error.to_string().contains(words), "expected `{words}` in: {error}");
                assert_eq!(error.exit_code(), 65);
            }
            other => panic!("expected `{words}`, got {other:?}"),
        }
    }
}

#[test]
fn a_short_file_cannot_ask_for_much() {
    // A linear layer scaled again and again would be written anew each time.
    let mut model = decode(&bytes_of("legacy_flatten")).unwrap();
    let graph = model.graph.as_mut().unwrap();
    let two = pb::TensorProto { name: "two".into(), data_type: 1, float_data: vec![2.0], ..Default::default() };
    graph.initializer.push(two);
    let last = graph.output[0].name.clone();
    for i in 0..4_000 {
        let input = if i == 0 { last.clone() } else { format!("again{i}") };
        let output = format!("again{}", i + 1);
        graph.node.push(pb::NodeProto {
            op_type: "Mul".into(),
            input: vec![input, "two".into()],
            output: vec![output],
            ..Default::default()
        });
    }
    graph.output[0].name = "again4000".into();
    let error = import(Path::new("scaled.onnx"), &encode(&model), None).unwrap_err();
    assert!(matches!(error, Error::Node { .. }), "{error}");
}

#[test]
fn damaged_files_are_typed_errors() {
    let good = bytes_of("qdq_u8");
    for cut in 0..good.len() {
        match import(Path::new("cut"), &good[..cut], None) {
            Err(Error::Node { .. } | Error::Model { .. }) => {}
            // Behind the graph only operator sets of other domains are lost.
            Ok(_) if cut + 64 > good.len() => {}
            other => panic!("{cut}: {other:?}"),
        }
    }
    for at in 0..good.len() {
        let mut copy = good.clone();
        copy[at] ^= 1 << (at % 8);
        match import(Path::new("flipped"), &copy, None) {
            Ok(_) | Err(Error::Node { .. } | Error::Model { .. }) => {}
            Err(other) => panic!("{at}: {other}"),
        }
    }
}
