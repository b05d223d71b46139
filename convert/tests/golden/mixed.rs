//! Layers that stay float: a network of which one convolution cannot be held in bytes keeps exactly this one.

use crate::common::*;
use crate::convert::{data_of, normalised, options, source};
use excon_convert::compare::{Allowed, Verdict};
use excon_convert::fold::{Folded, LayerId, LayerOp};
use excon_convert::probe::Probe;
use excon_convert::quantize::{self, Codes};
use excon_convert::{Choice, Error, Options, Source, Target, convert, onnx};
use excon_edge::bundle::{Bundle, Precision};
use excon_edge::engine::tract::TractEngine;
use excon_edge::engine::{self, Engine, tensorrt};

/// Largest weight of the spoiled layer beside its others.
const OUTLIER: f32 = 2e4;

/// The network with a channel that is always 0, and huge weights where the next convolution reads it: nothing changes in
/// float, and in bytes that convolution's scales leave nothing to its other weights.
fn spoiled() -> (Folded, LayerId) {
    let mut network = folded();
    let conv = |n: &Folded, id: LayerId| matches!(n.layers[id].op, LayerOp::Conv { .. });
    let alone = |id: LayerId| network.layers.iter().filter(|l| l.inputs.contains(&id)).count() == 1;
    let reads_alone = |to: &LayerId| {
        let from = network.layers[*to].inputs.first().copied().unwrap_or(0);
        conv(&network, *to) && from > 1 && conv(&network, from) && alone(from)
    };
    let to = (1..network.layers.len()).find(reads_alone).unwrap();
    let from = network.layers[to].inputs[0];
    let channels = network.layers[from].shape[0];
    if let LayerOp::Conv { weight, bias, .. } = &mut network.layers[from].op {
        let filter = weight.len() / channels;
        weight[..filter].fill(0.0);
        bias[0] = 0.0;
    }
    if let LayerOp::Conv { weight, window, .. } = &mut network.layers[to].op {
        let taps = window.kernel.iter().product::<usize>();
        let largest = weight.iter().fold(0.0f32, |m, w| m.max(w.abs()));
        weight.chunks_exact_mut(taps * channels).for_each(|filter| filter[..taps].fill(OUTLIER * largest));
    }
    (network, to)
}

#[test]
fn the_layer_that_bytes_spoil_stays_float_and_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let (network, bad) = spoiled();
    let name = network.layers[bad].name.clone();
    let data = data_of(&network);
    let source = Source { network, ..source() };
    // One picture of 70 more or less is no matter here.
    let allowed = Allowed { accuracy_loss: 0.05, ece_loss: 0.05 };
    for (target, precision) in
        [(Target::Cpu, Choice::Mixed), (Target::TensorRt, Choice::Mixed), (Target::Cpu, Choice::Auto)]
    {
        let out = folder.path().join("mixed.excon");
        let options = Options { precision, allowed, ..options(&out) };
        let done = convert(&source, &data, target, &options, &mut |_| ()).unwrap();
        let report = &done.report;
        let mixed = report.mixed.as_ref().unwrap();
        let named: Vec<&str> = mixed.float_layers.iter().map(|l| l.layer.as_str()).collect();
        assert_eq!(named, [name.as_str()]);
        assert!(mixed.float_layers[0].error_after < 0.05 * mixed.float_layers[0].error_before, "{mixed:?}");
        assert!(mixed.budget.iter().all(|line| line.verdict != Verdict::NotMet), "{:?}", mixed.budget);
        assert!(mixed.comparison.agreement > 0.9, "{}", mixed.comparison.agreement);
        let int8 = report.comparison.as_ref().unwrap();
        assert!(int8.agreement < 0.7 && int8.accuracy_loss.lower > 0.05, "int8 as a whole is no use: {int8:?}");
        assert!(report.notes.iter().any(|n| n.contains(&name) && n.contains("float")), "{:?}", report.notes);
        let json = serde_json::to_value(report).unwrap();
        assert_eq!(json["mixed"]["float_layers"][0]["layer"], name.as_str());

        let bundle = Bundle::open(&out).unwrap();
        let timing = report.timing.as_ref().unwrap();
        let pays = timing.mixed_microseconds.unwrap() < timing.float_microseconds;
        if precision == Choice::Auto {
            // What pays is a property of the machine; what is written follows from what is said.
            let written = if pays { Precision::Mixed } else { Precision::Float };
            assert_eq!(bundle.manifest.precision, written);
            continue;
        }
        assert_eq!((bundle.manifest.precision, report.precision), (Precision::Mixed, Precision::Mixed));
        assert_eq!(bundle.manifest.budget.len(), 2);
        let model = onnx::decode(&bundle.model).unwrap();
        quantize::check_mixed(&model, target.codes(), &named).unwrap();
        assert!(matches!(quantize::check(&model, target.codes()), Err(Error::Rule { .. })), "one is not int8");
        let images = normalised(&data.validation);
        let ours = engine::open(&bundle.model, "mixed").unwrap();
        assert_eq!((ours.name(), ours.note()), ("mixed", None));
        let ours = ours.run(&images).unwrap();
        let answers: Vec<usize> = ours.logits.chunks(10).map(argmax).collect();
        let same = |theirs: &[f32]| theirs.chunks(10).zip(&answers).filter(|(t, a)| argmax(t) == **a).count();
        let stock = TractEngine::from_onnx(&bundle.model, "mixed").unwrap().run(&images).unwrap();
        assert!(same(&stock.logits) * 100 >= 99 * answers.len(), "{} of {}", same(&stock.logits), answers.len());
        let gap = ours.features.iter().zip(&stock.features).filter(|(a, b)| (*a - *b).abs() > 1e-3).count();
        assert!(gap * 50 <= ours.features.len(), "{gap} of {} values of the last map", ours.features.len());
        // ONNX Runtime would round the weights of the float layer if its bias were a stored float.
        for (runtime, theirs) in elsewhere(&model, [3, SIDE, SIDE], &images) {
            assert!(
                same(&theirs[0]) * 100 >= 99 * answers.len(),
                "{runtime:?}: {} of {}",
                same(&theirs[0]),
                answers.len()
            );
        }
        if target == Target::TensorRt {
            // In the form for TensorRT's parser it computes the same, to the bit.
            let master = tensorrt::Master::new(&bundle.model).unwrap();
            let run =
                |model: &[u8]| TractEngine::from_onnx(model, "model").unwrap().run(&bundle.golden.inputs).unwrap();
            assert!(master.int8 && run(&bundle.model) == run(&master.bytes));
        }
    }
}

#[test]
fn mixed_is_int8_where_no_layer_has_to_stay_float() {
    let folder = tempfile::tempdir().unwrap();
    let options = Options { precision: Choice::Mixed, ..options(&folder.path().join("x.onnx")) };
    let report = convert(&source(), &data_of(&folded()), Target::Cpu, &options, &mut |_| ()).unwrap().report;
    assert_eq!((report.precision, report.mixed.is_none()), (Precision::Int8, true));
    assert!(report.notes.iter().any(|n| n.contains("none has to stay float")), "{:?}", report.notes);
}

/// Every set of float layers gives a model that keeps the rules and computes what its parts say.
#[test]
fn any_layers_may_stay_float() {
    let (network, images) = (folded(), pictures());
    let observed = excon_convert::range::Observed::new(&network, &images).unwrap();
    let scales = observed.scales(&network, excon_convert::range::Method::MinMax);
    let convolutions: Vec<LayerId> =
        (0..network.layers.len()).filter(|&id| matches!(network.layers[id].op, LayerOp::Conv { .. })).collect();
    let float = Probe::new(&excon_convert::export::float(&network, &[]), [3, SIDE, SIDE]).unwrap();
    let wanted = float.run_all(&images, |mut o| o.swap_remove(0)).unwrap().concat();
    let n = convolutions.len();
    for chosen in [1usize, 2, 3, 1 << (n - 1), 0b1010101, (1 << n) - 2, (1 << n) - 1] {
        let set = convolutions.iter().enumerate().filter(|(i, _)| chosen >> i & 1 == 1).map(|(_, &id)| id).collect();
        for codes in [Codes::Full, Codes::Symmetric] {
            let model = onnx::encode(&quantize::mixed(&network, &scales, codes, &set, &labels()).unwrap());
            let ours = engine::open(&model, "mixed").unwrap();
            assert_eq!((ours.name(), ours.note()), ("mixed", None), "{chosen:b}");
            let (ours, stock) =
                (ours.run(&images).unwrap(), TractEngine::from_onnx(&model, "x").unwrap().run(&images).unwrap());
            assert!(largest_gap(&ours.logits, &stock.logits) < 0.1, "{chosen:b}: against tract");
            assert!(largest_gap(&ours.logits, &wanted) < 1.5, "{chosen:b}: against float");
        }
    }
    // Rules that a file breaks.
    let set = std::collections::BTreeSet::from([convolutions[2]]);
    let name = network.layers[convolutions[2]].name.as_str();
    let good = quantize::mixed(&network, &scales, Codes::Full, &set, &labels()).unwrap();
    type Break = fn(&mut onnx::pb::NodeProto, &str);
    let breaks: [(&str, Break); 3] = [
        ("a stored float bias behind a dequantized map", |n, other| n.input[2] = format!("{other}.bias")),
        ("rounded weights", |n, other| n.input[1] = format!("{other}.weight")),
        ("a map that is not rounded", |n, other| n.input[0] = format!("{other}.float")),
    ];
    for (what, damage) in breaks {
        let mut model = good.clone();
        let nodes = &mut model.graph.as_mut().unwrap().node;
        damage(nodes.iter_mut().find(|n| n.name == name).unwrap(), &network.layers[convolutions[1]].name);
        assert!(matches!(quantize::check_mixed(&model, Codes::Full, &[name]), Err(Error::Rule { .. })), "{what}");
    }
    let not_a_convolution = std::collections::BTreeSet::from([network.features]);
    assert!(matches!(
        quantize::mixed(&network, &scales, Codes::Full, &not_a_convolution, &labels()),
        Err(Error::Rule { .. })
    ));
}
