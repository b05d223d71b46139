//! One suite that every engine must pass, run on tract, on what [`open`] takes and on a mocked TensorRT, with a float and
//! an int8 file; what the fused kernels take and leave; and what the gate refuses.
#![allow(clippy::unwrap_used)]

use super::fused::FusedEngine;
use super::tract::TractEngine;
use super::*;
use crate::tiny::{self, CHANNELS, CLASSES, MAP, SIZE};
use tract_onnx::pb::{AttributeProto, GraphProto, StringStringEntryProto, attribute_proto::AttributeType};

#[path = "../../tests/tensorrt/mock.rs"]
mod mock;

/// Reference answer, written plainly in f64; int8 rounds where the file does.
fn reference(image: &[f32], int8: bool) -> (Vec<f64>, Vec<f64>) {
    let quantize = |v: f64, scale: f64| (v / scale).round_ties_even().clamp(-128.0, 127.0) * scale;
    let step = |values: &mut Vec<f64>, scale: f32| {
        if int8 {
            values.iter_mut().for_each(|v| *v = quantize(*v, f64::from(scale)));
        }
    };
    let weights = |values: Vec<f32>, row: usize| -> Vec<f64> {
        let rows = values.chunks(row).flat_map(|r| {
            let scale = f64::from(r.iter().fold(0f32, |m, v| m.max(v.abs())) / 127.0);
            r.iter().map(|&v| if int8 { quantize(f64::from(v), scale) } else { f64::from(v) }).collect::<Vec<_>>()
        });
        rows.collect()
    };
    let conv = |x: &[f64], side: usize, input: usize, w: &[f64], b: &[f32], stride: usize| -> Vec<f64> {
        let out = side / stride;
        let mut y = vec![0.0; CHANNELS * out * out];
        for (i, value) in y.iter_mut().enumerate() {
            let (o, r, c) = (i / (out * out), i / out % out, i % out);
            *value = f64::from(b[o]);
            for k in 0..input * 9 {
                let (row, col) = (r * stride + k / 3 % 3, c * stride + k % 3);
                if (1..=side).contains(&row) && (1..=side).contains(&col) {
                    *value += w[o * input * 9 + k] * x[(k / 9 * side + row - 1) * side + col - 1];
                }
            }
        }
        y
    };
    let mut x: Vec<f64> = image.iter().map(|&v| f64::from(v)).collect();
    step(&mut x, 1.0 / 127.0);
    let w1 = weights(tiny::Noise(1).take(CHANNELS * 27), 27);
    let mut a = conv(&x, SIZE, 3, &w1, &tiny::Noise(2).take(CHANNELS), 2);
    a.iter_mut().for_each(|v| *v = v.max(0.0));
    step(&mut a, 0.05);
    let w2 = tiny::Noise(3).take(CHANNELS * CHANNELS * 9).iter().map(|v| 0.3 * v).collect();
    let mut d = conv(&a, MAP, CHANNELS, &weights(w2, CHANNELS * 9), &tiny::Noise(4).take(CHANNELS), 1);
    step(&mut d, 0.0813);
    let mut features: Vec<f64> = d.iter().zip(&a).map(|(d, a)| (d + a).max(0.0)).collect();
    step(&mut features, 0.0977);
    let (weight, bias) = tiny::head();
    let pooled: Vec<f64> = features.chunks(MAP * MAP).map(|c| c.iter().sum::<f64>() / c.len() as f64).collect();
    let logit = |k: usize| -> f64 {
        let row = &weight[k * CHANNELS..(k + 1) * CHANNELS];
        f64::from(bias[k]) + row.iter().zip(&pooled).map(|(w, p)| f64::from(*w) * p).sum::<f64>()
    };
    ((0..CLASSES).map(logit).collect(), features)
}

/// The suite: what the trait promises, on any engine of the tiny network.
fn suite(engine: &dyn Engine) {
    let shapes = engine.shapes();
    assert_eq!(shapes.input, [3, SIZE, SIZE]);
    assert_eq!((shapes.classes, shapes.features), (CLASSES, [CHANNELS, MAP, MAP]));

    let images = tiny::images(9);
    let together = engine.run(&images).unwrap();
    assert_eq!(together.logits.len(), 9 * CLASSES);
    assert_eq!(together.features.len(), 9 * CHANNELS * MAP * MAP);
    assert!(together.logits.iter().chain(&together.features).all(|v| v.is_finite()));
    assert_eq!(together, engine.run(&images).unwrap(), "equal inputs give equal outputs");

    let mut alone = Outputs { logits: vec![], features: vec![] };
    for image in images.chunks(3 * SIZE * SIZE) {
        let one = engine.run(image).unwrap();
        alone.logits.extend(one.logits);
        alone.features.extend(one.features);
    }
    assert_eq!(together, alone, "the batch size does not change an answer");

    let (weight, bias) = tiny::head();
    for (features, logits) in together.features.chunks(CHANNELS * MAP * MAP).zip(together.logits.chunks(CLASSES)) {
        for k in 0..CLASSES {
            let cam = |cell: usize| -> f64 {
                let term = |c: usize| f64::from(weight[k * CHANNELS + c]) * f64::from(features[c * MAP * MAP + cell]);
                (0..CHANNELS).map(term).sum()
            };
            let mean = (0..MAP * MAP).map(cam).sum::<f64>() / (MAP * MAP) as f64;
            let logit = f64::from(logits[k]);
            let residual = (mean + f64::from(bias[k]) - logit).abs();
            assert!(residual <= 1e-4 * (1.0 + logit.abs()), "completeness: {residual}");
        }
    }

    assert!(matches!(engine.run(&images[1..]), Err(crate::Error::Engine { .. })), "a wrong length is refused");
    assert_eq!(engine.run(&[]).unwrap(), Outputs { logits: vec![], features: vec![] });
}

fn engines(int8: bool) -> [Box<dyn Engine>; 2] {
    let bytes = tiny::network(int8).bytes();
    [Box::new(TractEngine::from_onnx(&bytes, "tiny").unwrap()), open(&bytes, "tiny").unwrap()]
}

#[test]
fn every_engine_passes_the_suite_in_float_and_int8() {
    for int8 in [false, true] {
        engines(int8).iter().for_each(|e| suite(e.as_ref()));
    }
}

#[test]
fn tensorrt_passes_the_suite_on_a_mock() {
    let Some((folder, home)) = mock::home() else { return };
    for (name, int8) in [("float", false), ("int8", true)] {
        let bundle = tiny::writer(int8, 60).seal(folder.path().join(format!("{name}.excon"))).unwrap();
        let ready = home.ready().unwrap();
        let job = ready.job(&bundle).unwrap();
        let built = tensorrt::build(&ready, &home, &job, &tensorrt::How::default(), &mut |_| true).unwrap();
        suite(&ready.load(&job, &built.plan).unwrap());
    }
}

#[test]
fn the_fastest_engine_that_fits_is_taken() {
    let [tract, taken] = engines(true);
    assert_eq!((tract.name(), taken.name(), taken.note()), ("tract", "int8", None));
    let [tract, taken] = engines(false);
    assert_eq!((tract.name(), taken.name(), taken.note()), ("tract", "float", None));
}

#[test]
fn engines_compute_what_the_file_says() {
    let images = tiny::images(16);
    for (int8, engine) in [false, true].into_iter().flat_map(|int8| engines(int8).map(|e| (int8, e))) {
        let outputs = engine.run(&images).unwrap();
        for (i, image) in images.chunks(3 * SIZE * SIZE).enumerate() {
            let (logits, features) = reference(image, int8);
            let got = &outputs.features[i * features.len()..(i + 1) * features.len()];
            // A value that lies on a rounding border may fall to the next code, once in a while.
            let off = got.iter().zip(&features).filter(|(g, f)| (f64::from(**g) - **f).abs() > 1e-4).count();
            assert!(off <= if int8 { 2 } else { 0 }, "int8 {int8}, picture {i}: {off} features off");
            let tolerance = if int8 { 0.05 } else { 1e-4 };
            for (g, l) in outputs.logits[i * CLASSES..].iter().zip(&logits) {
                assert!((f64::from(*g) - l).abs() <= tolerance * (1.0 + l.abs()), "int8 {int8}: {g} for {l}");
            }
        }
    }
}

/// What a change to the file is, or a word of the reason why the kernels leave it to tract; and the change.
type Change = (&'static str, fn(&mut tiny::Onnx));

/// The node that computes `output`.
fn node<'a>(o: &'a mut tiny::Onnx, output: &str) -> &'a mut tract_onnx::pb::NodeProto {
    o.graph().node.iter_mut().find(|n| n.output[0] == output).unwrap()
}

/// Moves the last node to position `at`.
fn insert_last(o: &mut tiny::Onnx, at: usize) {
    let last = o.graph().node.pop().unwrap();
    o.graph().node.insert(at, last);
}

fn clip_at_0_6(o: &mut tiny::Onnx) {
    o.floats("floor", &[], &[0.0]);
    // Lower than 6, so that it cuts.
    o.floats("ceiling", &[], &[0.6]);
    let relu = node(o, "r1");
    relu.op_type = "Clip".into();
    relu.input.extend(["floor".into(), "ceiling".into()]);
}

/// The first convolution reads the picture as it is.
fn plain_picture(o: &mut tiny::Onnx) {
    o.graph().node.retain(|n| !["x", "x_q"].contains(&n.output[0].as_str()));
    node(o, "c1").input[0] = "input".into();
}

fn mean_by_reduction(o: &mut tiny::Onnx) {
    let pool = node(o, "pool");
    pool.op_type = "ReduceMean".into();
    pool.attribute = vec![AttributeProto {
        name: "axes".into(),
        r#type: AttributeType::Ints as i32,
        ints: vec![2, 3],
        ..Default::default()
    }];
}

#[test]
fn what_the_fused_kernels_leave_runs_on_tract_and_says_why() {
    let float: [Change; 4] = [
        ("again and again", |o| {
            // Four steps of one convolution's weights.
            let sums: [[&str; 3]; 3] = [["e0", "e1", "t0"], ["t0", "e2", "t1"], ["t1", "e3", "t2"]];
            ["e0", "e1", "e2", "e3"].iter().for_each(|e| o.node("Relu", &["c2"], e, &[]));
            sums.iter().for_each(|[a, b, sum]| o.node("Add", &[a, b], sum, &[]));
            let added = o.graph().node.split_off(12);
            o.graph().node.splice(6..6, added);
            node(o, "s2").input[0] = "t2".into();
        }),
        ("r1_node (Relu): it stands behind a pool", |o| {
            o.node("MaxPool", &["c1"], "p1", &[("kernel_shape", &[1, 1])]);
            insert_last(o, 2);
            node(o, "r1").input[0] = "p1".into();
        }),
        ("c1_node (Conv): automatic padding", |o| {
            let same = AttributeProto {
                name: "auto_pad".into(),
                r#type: AttributeType::String as i32,
                s: b"SAME_UPPER".to_vec(),
                ..Default::default()
            };
            let conv = node(o, "c1");
            conv.attribute.retain(|a| a.name != "pads");
            conv.attribute.push(same);
        }),
        ("the pool reads another map", |o| node(o, "pool").input[0] = "a1".into()),
    ];
    let int8: [Change; 1] = [("another scale", |o| node(o, "a1").input[1] = "d2_s".into())];
    let all = float.map(|c| (false, c)).into_iter().chain(int8.map(|c| (true, c)));
    for (quantized, (words, change)) in all {
        let mut onnx = tiny::network(quantized);
        change(&mut onnx);
        let engine = open(&onnx.bytes(), "changed").unwrap();
        assert_eq!(engine.name(), "tract", "{words}");
        assert!(engine.note().unwrap().contains(words), "{words}: {:?}", engine.note());
        engine.run(&tiny::images(1)).unwrap();
    }
}

/// Forms of the int8 file that other exporters write, which the kernels take as they are.
#[test]
fn other_forms_of_int8_are_taken() {
    let changes: [Change; 5] = [
        ("ReLU6 as a clip", clip_at_0_6),
        ("unsigned behind ReLU", |o| {
            let zeros = o.graph().initializer.iter_mut().filter(|t| ["a1_z", "features_z"].contains(&t.name.as_str()));
            zeros.for_each(|t| t.data_type = tract_onnx::pb::tensor_proto::DataType::Uint8 as i32);
        }),
        ("summed unrounded", |o| node(o, "s2").input[0] = "c2".into()),
        ("mean by ReduceMean", mean_by_reduction),
        ("bias in i32", |o| {
            let bytes = [40i32, -300, 7, 0, 1000, -5].iter().flat_map(|v| v.to_le_bytes()).collect();
            o.tensor("b2_q", &[CHANNELS], tract_onnx::pb::tensor_proto::DataType::Int32, bytes);
            o.floats("b2_s", &[], &[0.003]);
            o.node("DequantizeLinear", &["b2_q", "b2_s"], "b2_real", &[]);
            insert_last(o, 0);
            node(o, "c2").input[2] = "b2_real".into();
        }),
    ];
    let images = tiny::images(32);
    for (name, change) in changes {
        let mut onnx = tiny::network(true);
        change(&mut onnx);
        let ours = FusedEngine::from_onnx(&onnx.bytes(), name).unwrap().run(&images).unwrap();
        let tract = TractEngine::from_onnx(&onnx.bytes(), name).unwrap().run(&images).unwrap();
        let off = ours.features.iter().zip(&tract.features).filter(|(a, b)| (*a - *b).abs() > 1e-4).count();
        assert!(off * 200 <= ours.features.len(), "{name}: {off} of {} features differ", ours.features.len());
        let gap = ours.logits.iter().zip(&tract.logits).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(gap <= 0.05, "{name}: {gap}");
    }
}

/// Files that are partly in int8: float layers between int8 ones, or read by them.
#[test]
fn mixed_forms_are_taken() {
    let changes: [Change; 5] = [
        ("the picture is not quantized", plain_picture),
        ("a sum of a float map", |o| node(o, "s2").input[1] = "r1".into()),
        ("a last map in float", |o| {
            node(o, "features").output[0] = "read".into();
            node(o, "r2").output[0] = "features".into();
            node(o, "features_q").input[0] = "features".into();
            node(o, "pool").input[0] = "features".into();
        }),
        ("a convolution in float", |o| {
            let second = tiny::Noise(3).take(CHANNELS * CHANNELS * 9);
            o.floats("plain", &[CHANNELS, CHANNELS, 3, 3], &second);
            node(o, "c2").input[1] = "plain".into();
        }),
        ("the first convolution in float, its map rounded", |o| {
            o.floats("plain", &[CHANNELS, 3, 3, 3], &tiny::Noise(1).take(CHANNELS * 27));
            plain_picture(o);
            node(o, "c1").input[1] = "plain".into();
        }),
    ];
    let images = tiny::images(32);
    for (name, change) in changes {
        let mut onnx = tiny::network(true);
        change(&mut onnx);
        let ours = open(&onnx.bytes(), name).unwrap();
        assert_eq!((ours.name(), ours.note()), ("mixed", None), "{name}");
        let (profile, one) = (ours.profile(&images[..3 * SIZE * SIZE], 2).unwrap(), ours.run(&images).unwrap());
        assert!(profile.iter().any(|s| s.name.starts_with("hand on")), "{name}: {profile:?}");
        let tract = TractEngine::from_onnx(&onnx.bytes(), name).unwrap().run(&images).unwrap();
        let off = one.features.iter().zip(&tract.features).filter(|(a, b)| (*a - *b).abs() > 1e-4).count();
        assert!(off * 100 <= one.features.len(), "{name}: {off} of {} features differ", one.features.len());
        let gap = one.logits.iter().zip(&tract.logits).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(gap <= 0.05, "{name}: {gap}");
    }
}

/// The same of the float file.
#[test]
fn other_forms_of_float_are_taken() {
    let changes: [Change; 6] = [
        ("ReLU6 as a clip", clip_at_0_6),
        ("mean by ReduceMean", mean_by_reduction),
        ("no bias", |o| node(o, "c2").input.truncate(2)),
        ("a map that is read before and behind its activation", |o| node(o, "s2").input[1] = "c1".into()),
        ("a sum of one map with itself", |o| node(o, "s2").input[1] = "d2".into()),
        ("a pool, a reshape", |o| {
            o.node("MaxPool", &["r1"], "p1", &[("kernel_shape", &[3, 3]), ("pads", &[1, 1, 1, 1])]);
            insert_last(o, 3);
            node(o, "a1").input[0] = "p1".into();
            let row = [1i64, -1].iter().flat_map(|v| v.to_le_bytes()).collect();
            o.tensor("row", &[2], tract_onnx::pb::tensor_proto::DataType::Int64, row);
            let flat = node(o, "flat");
            (flat.op_type, flat.attribute) = ("Reshape".into(), vec![]);
            flat.input.push("row".into());
        }),
    ];
    let images = tiny::images(32);
    for (name, change) in changes {
        let mut onnx = tiny::network(false);
        change(&mut onnx);
        let ours = FusedEngine::from_onnx(&onnx.bytes(), name).unwrap().run(&images).unwrap();
        let tract = TractEngine::from_onnx(&onnx.bytes(), name).unwrap().run(&images).unwrap();
        for (a, b) in ours.features.iter().zip(&tract.features).chain(ours.logits.iter().zip(&tract.logits)) {
            assert!((a - b).abs() <= 1e-5 * (1.0 + b.abs()), "{name}: {a} {b}");
        }
    }
}

/// Expects a refusal whose message holds `words`.
fn refused(bytes: &[u8], words: &str) {
    match TractEngine::from_onnx(bytes, "hostile.onnx") {
        Err(error @ crate::Error::Bundle { .. }) => {
            assert!(error.to_string().contains(words), "expected `{words}` in: {error}");
        }
        other => panic!("expected a refusal with `{words}`, got {other:?}"),
    }
}

#[test]
fn what_is_not_a_plain_network_is_refused() {
    let change = |edit: &dyn Fn(&mut tiny::Onnx)| {
        let mut onnx = tiny::network(false);
        edit(&mut onnx);
        onnx.bytes()
    };
    refused(b"", "no operator set");
    refused(b"\xff\xff\xff\xff\xff", "not an ONNX file");
    refused(&change(&|o| o.graph().node[2].op_type = "Loop".into()), "operator Loop is not on the list");
    refused(&change(&|o| o.graph().node[2].domain = "com.example".into()), "not on the list");
    refused(&change(&|o| o.model.opset_import[0].version = 7), "operator set 7");
    refused(&change(&|o| o.graph().output[0].name = "features2".into()), "`features` is missing");
    refused(&change(&|o| o.graph().initializer[0].raw_data.truncate(5)), "5 bytes are stored");
    refused(&change(&|o| o.graph().initializer[0].dims = vec![1 << 40, 1 << 40]), "shape is out of range");
    refused(&change(&|o| o.graph().initializer[0].data_location = Some(1)), "external data");
    refused(
        &change(&|o| {
            let place = StringStringEntryProto { key: "location".into(), value: "../secret".into() };
            o.graph().initializer[0].external_data.push(place);
        }),
        "external data",
    );
    refused(&change(&|o| o.graph().node[1].attribute[2].ints = vec![1 << 30; 4]), "attribute pads");
    refused(
        &change(&|o| {
            let nested = AttributeProto {
                name: "body".into(),
                r#type: AttributeType::Graph as i32,
                g: Some(GraphProto::default()),
                ..Default::default()
            };
            o.graph().node[1].attribute.push(nested);
        }),
        "holds a graph",
    );
    refused(&change(&|o| o.graph().output[0] = tiny::value("features", &[CHANNELS, MAP, MAP + 1])), "declared");
    refused(&change(&|o| o.graph().node.truncate(3)), "");
    refused(&change(&|o| o.graph().node[1].input[1] = "nowhere".into()), "");
}

#[test]
fn damaged_files_never_panic() {
    let bytes = tiny::network(true).bytes();
    for cut in (0..bytes.len()).step_by(bytes.len() / 40) {
        let _ = open(&bytes[..cut], "cut.onnx");
    }
    let mut noise = tiny::Noise(77);
    for _ in 0..40 {
        let mut copy = bytes.clone();
        let at = ((noise.next() + 1.0) / 2.0 * bytes.len() as f32) as usize % bytes.len();
        copy[at] ^= 1 << (at % 8);
        let _ = open(&copy, "flipped.onnx").map(|e| e.run(&tiny::images(1)));
    }
}
