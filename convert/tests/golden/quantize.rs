//! Quantized numbers against the vectors, the rules of the file, and int8 against float.

use crate::common::*;
use excon_convert::compare::layer_errors;
use excon_convert::fold::Folded;
use excon_convert::onnx::{decode, encode, pb};
use excon_convert::probe::Probe;
use excon_convert::quantize::{Codes, check, dequantize, int8, quantize, quantize_weight};
use excon_convert::range::{Method, Observed};
use excon_convert::select::Ways;
use excon_convert::{Error, export};

const DATA: &str = "quantization/data.safetensors";

#[test]
fn weights_equal_the_vectors() {
    let (bytes, scales) = quantize_weight(&floats(DATA, "weight.f32"), 32);
    assert_eq!(scales, floats(DATA, "weight.scale_per_channel"));
    let expected = integers(DATA, "weight.s8");
    assert_eq!(bytes.iter().map(|&b| i64::from(b)).collect::<Vec<_>>(), expected);
}

#[test]
fn quantize_and_dequantize_equal_the_vectors() {
    let x = floats(DATA, "qdq.x");
    for (kind, zero, low, high) in [
        ("u8", 0, 0, 255),
        ("u8", 128, 0, 255),
        ("u8", 255, 0, 255),
        ("s8", 0, -128, 127),
        ("s8", -128, -128, 127),
        ("s8", 5, -128, 127),
    ] {
        let name = format!("qdq.scale0.5.{kind}.zp{zero}");
        let q: Vec<i32> = x.iter().map(|&v| quantize(v, 0.5, zero, low, high)).collect();
        let expected: Vec<i32> = match kind {
            "u8" => bytes(DATA, &format!("{name}.q")).iter().map(|&b| i32::from(b)).collect(),
            _ => integers(DATA, &format!("{name}.q")).iter().map(|&b| b as i32).collect(),
        };
        assert_eq!(q, expected, "{name}");
        let dq: Vec<f32> = q.iter().map(|&q| dequantize(q, 0.5, zero)).collect();
        assert_eq!(dq, floats(DATA, &format!("{name}.dq")), "{name}");
    }
}

fn quantized(network: &Folded, images: &[f32], method: Method, codes: Codes) -> pb::ModelProto {
    let observed = Observed::new(network, images).unwrap();
    decode(&encode(&int8(network, &observed.scales(network, method), codes, &labels()).unwrap())).unwrap()
}

const BOTH: [Codes; 2] = [Codes::Symmetric, Codes::Full];

fn unusual_network() -> (Folded, Vec<f32>) {
    let network = Folded::new(&unusual(), &random_weights(&unusual(), 9), 32).unwrap();
    (network, pictures())
}

#[test]
fn built_models_keep_the_rules() {
    for codes in BOTH {
        check(&quantized(&folded(), &pictures(), Method::MinMax, codes), codes).unwrap();
        let (network, images) = unusual_network();
        check(&quantized(&network, &images, Method::MinMax, codes), codes).unwrap();
    }
    // What a CPU takes is not what TensorRT takes.
    let full = quantized(&folded(), &pictures(), Method::MinMax, Codes::Full);
    assert!(matches!(check(&full, Codes::Symmetric), Err(Error::Rule { .. })));
}

/// Behind a ReLU one bit more, so every later map is closer to float's.
#[test]
fn all_codes_leave_less_noise() {
    let (network, images) = (folded(), pictures());
    let noise = |codes| {
        let layers = layer_errors(&network, &quantized(&network, &images, Method::MinMax, codes), &images).unwrap();
        layers.iter().filter_map(|layer| layer.signal_to_noise_db).sum::<f64>() / layers.len() as f64
    };
    let [symmetric, full] = BOTH.map(noise);
    assert!(full > symmetric + 1.0, "{full} and {symmetric} dB");
}

/// Each way to break a rule must be noticed.
#[test]
fn broken_rules_are_found() {
    type Break = fn(&mut pb::GraphProto);
    fn node<'a>(g: &'a mut pb::GraphProto, name: &str) -> &'a mut pb::NodeProto {
        g.node.iter_mut().find(|n| n.name == name).unwrap()
    }
    fn tensor<'a>(g: &'a mut pb::GraphProto, name: &str) -> &'a mut pb::TensorProto {
        g.initializer.iter_mut().find(|t| t.name == name).unwrap()
    }
    let cases: [(&str, Break); 15] = [
        ("float input of a convolution", |g| node(g, "stage1.conv1").input[0] = "stem_conv.float".into()),
        ("float input of a sum", |g| node(g, "stage1.add").input[1] = "stem_conv.float".into()),
        ("unquantized network input", |g| node(g, "stem_conv").input[0] = "input".into()),
        ("pool on the float map", |g| node(g, "pool").input[0] = "stage3.add.float".into()),
        ("relu behind a pair", |g| node(g, "stem_relu").input[0] = "stage1.conv1.output".into()),
        ("unsigned zero point", |g| tensor(g, "zero_point").data_type = pb::tensor_proto::DataType::Uint8 as i32),
        ("zero point not 0", |g| tensor(g, "zero_point").raw_data = vec![1]),
        ("bias between two steps", |g| {
            let bias = f32::from_le_bytes(tensor(g, "stem_conv.bias").raw_data[..4].try_into().unwrap());
            tensor(g, "stem_conv.bias").raw_data[..4].copy_from_slice(&(bias * 1.0001 + 1e-5).to_le_bytes());
        }),
        ("scale 0", |g| tensor(g, "stem_conv.scale").raw_data = vec![0; 4]),
        ("negative scale", |g| tensor(g, "stem_conv.scale").raw_data = (-1.0f32).to_le_bytes().into()),
        ("weight -128", |g| tensor(g, "stem_conv.weight_quantized").raw_data[3] = 0x80),
        ("axis 1", |g| node(g, "stem_conv.weight_dequantize").attribute[0].i = 1),
        ("per-channel activation", |g| tensor(g, "stem_conv.scale").dims = vec![1]),
        ("scales of a pair differ", |g| node(g, "stem_conv.dequantize").input[1] = "input.scale".into()),
        ("missing bias", |g| node(g, "stem_conv").input.truncate(2)),
    ];
    let good = quantized(&folded(), &pictures(), Method::MinMax, Codes::Symmetric);
    for (name, damage) in cases {
        let mut model = good.clone();
        damage(model.graph.as_mut().unwrap());
        assert!(matches!(check(&model, Codes::Symmetric), Err(Error::Rule { .. })), "not found: {name}");
    }
}

#[test]
fn int8_decides_as_float_does() {
    let (network, images) = (folded(), pictures());
    let model = quantized(&network, &images, Method::MinMax, Codes::Full);
    let int8 = Probe::new(&model, network.input_shape()).unwrap();
    let int8: Vec<Vec<f32>> = int8.run_all(&images, |mut o| o.swap_remove(0)).unwrap();
    let float = floats("network/eval_forward.safetensors", "logits");
    for (i, (q, f)) in int8.iter().zip(float.chunks_exact(10)).enumerate() {
        // A picture whose two best classes are closer than int8 can tell apart decides nothing.
        let mut sorted = f.to_vec();
        sorted.sort_by(|a, b| b.total_cmp(a));
        let error = largest_gap(q, f);
        assert!(argmax(q) == argmax(f) || sorted[0] - sorted[1] < 2.0 * error, "picture {i}");
        assert!(error < 0.15 * (sorted[0] - sorted[9]), "picture {i}: {error} of {}", sorted[0] - sorted[9]);
    }
    let agree = int8.iter().zip(float.chunks_exact(10)).filter(|(q, f)| argmax(q) == argmax(f)).count();
    assert!(agree >= 11, "{agree} of 12");
}

/// The exact class-activation map rests on this: what `features` says is what the classifier read.
#[test]
fn features_are_what_the_pool_reads() {
    for (network, images) in [(folded(), pictures()), unusual_network()] {
        let model = quantized(&network, &images, Method::Mse, Codes::Full);
        let outputs = Probe::new(&model, network.input_shape()).unwrap().run_all(&images, |o| o).unwrap();
        let head = network.head();
        for o in outputs {
            let area = o[1].len() / head.channels;
            for class in 0..head.classes {
                let row = &head.weight[class * head.channels..][..head.channels];
                let mean = |k: usize| o[1][k * area..][..area].iter().map(|&v| f64::from(v)).sum::<f64>() / area as f64;
                let logit =
                    (0..head.channels).map(|k| f64::from(row[k]) * mean(k)).sum::<f64>() + f64::from(head.bias[class]);
                let gap = (logit - f64::from(o[0][class])).abs();
                assert!(gap <= 1e-4 * (1.0 + logit.abs()), "{gap}");
            }
        }
    }
}

/// The form for TensorRT (symmetric codes) and the one for CPUs (all codes): ONNX Runtime and OpenVINO name the classes that
/// tract does.
#[test]
fn checker_and_other_runtimes_accept_both_forms_of_int8() {
    for ((network, images), codes) in
        [(folded(), pictures()), unusual_network()].into_iter().flat_map(|case| BOTH.map(|codes| (case.clone(), codes)))
    {
        let model = quantized(&network, &images, Method::MinMax, codes);
        let ours = Probe::new(&model, network.input_shape()).unwrap().run_all(&images, |o| o).unwrap();
        for (runtime, theirs) in elsewhere(&model, network.input_shape(), &images) {
            let rows = || ours.iter().map(|o| &o[0]).zip(theirs[0].chunks_exact(network.classes()));
            let agree = rows().filter(|(a, b)| argmax(a) == argmax(b)).count();
            assert_eq!(agree, ours.len(), "{}, {codes:?}, {runtime:?}: top-1", network.name);
            let gap = rows().map(|(a, b)| largest_gap(a, b)).fold(0.0, f32::max);
            let reach = ours.iter().flat_map(|o| &o[0]).fold(0f32, |m, v| m.max(v.abs()));
            eprintln!("{}, {codes:?}, {runtime:?}: logits up to {reach}, at most {gap} from tract's", network.name);
            assert!(gap <= 0.02 * reach, "{}, {codes:?}, {runtime:?}: {gap} of {reach}", network.name);
        }
    }
}

#[test]
fn the_measured_best_way_wins() {
    let (network, images) = (folded(), pictures());
    let (calibration, held_back) = images.split_at(6 * ONE);
    let classes: Vec<usize> = integers("network/batch.safetensors", "label")[6..].iter().map(|&l| l as usize).collect();
    let held_back = (held_back.to_vec(), classes);
    let ways = Ways::new(&network, Codes::Full, &labels(), calibration, held_back).unwrap();
    let chosen = ways.select(&Default::default()).unwrap();
    assert_eq!(chosen.trials.len(), 2 * Method::ALL.len() + 1, "as trained, equalised, the best with corrected biases");
    assert!(chosen.trials.contains(&chosen.best));
    assert!(chosen.trials.iter().all(|t| t.logit_error >= chosen.best.logit_error && t.pictures == 6));
    assert!(chosen.trials.iter().any(|t| t.logit_error > chosen.best.logit_error), "ways must differ here");
}

#[test]
fn a_network_that_computes_no_numbers_is_refused() {
    let mut network = folded();
    if let excon_convert::fold::LayerOp::Conv { bias, .. } = &mut network.layers[1].op {
        bias[0] = f32::INFINITY;
    }
    let error = Observed::new(&network, &pictures()).unwrap_err();
    assert!(matches!(&error, Error::Network { .. }), "{error}");
    assert!(Observed::new(&folded(), &[]).is_err());
    assert!(export::maps(&network).len() > 5);
}
