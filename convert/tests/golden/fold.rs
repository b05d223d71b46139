//! Folded equals unfolded, and graphs the exporter does not write are refused by name.

use crate::common::*;
use excon_convert::{Error, export, fold::Folded, probe::Probe, weights::Weights};
use excon_train::network::{Graph, Op};

/// Every map of the folded network (run in tract) against the unfolded one (f64, batch norm as written).
fn check_every_map(graph: &Graph, weights: &Weights, side: usize, picture: &[f32]) {
    let network = Folded::new(graph, weights, side).unwrap();
    let model = export::observed(&network);
    let given = Probe::new(&model, network.input_shape()).unwrap().run(picture).unwrap();
    let expected = reference(graph, weights, side, picture);
    let names = model.graph.as_ref().unwrap().output.iter().map(|o| o.name.as_str());
    let mut compared = 0;
    for (name, values) in names.zip(&given) {
        let node = match name {
            "logits" => graph.logits,
            "features" => graph.features,
            other => {
                let layer = network.layers.iter().find(|l| format!("{}.output", l.name) == other).unwrap();
                // The folded layer stands for its last absorbed node: its ReLU, else the batch norm behind it.
                let start = graph.find(&layer.name).unwrap();
                layer.activation.as_ref().and_then(|a| graph.find(&a.name)).unwrap_or_else(|| {
                    let norm = (start..graph.nodes.len())
                        .find(|&i| graph.nodes[i].inputs == [start] && matches!(graph.nodes[i].op, Op::Norm { .. }));
                    norm.unwrap_or(start)
                })
            }
        };
        let expected: Vec<f32> = expected[node].iter().map(|&v| v as f32).collect();
        let scale = expected.iter().fold(1.0f32, |m, v| m.max(v.abs()));
        let gap = largest_gap(values, &expected);
        assert!(gap <= 1e-5 * scale, "{name}: {gap} at scale {scale}");
        compared += 1;
    }
    assert_eq!(compared, export::maps(&network).len()); // the logits instead of the input
}

#[test]
fn folding_changes_no_map_of_resnet8() {
    check_every_map(&resnet8(), &weights(), SIDE, &pictures()[..ONE]);
}

#[test]
fn folding_changes_no_map_of_an_unusual_network() {
    for side in [31, 40] {
        let picture: Vec<f32> = pictures().into_iter().take(3 * side * side).collect();
        check_every_map(&unusual(), &random_weights(&unusual(), side as u64), side, &picture);
    }
}

#[test]
fn the_projection_head_stays_behind() {
    let network = Folded::new(&unusual(), &random_weights(&unusual(), 1), 40).unwrap();
    assert!(network.layers.iter().all(|l| l.name != "projection"));
    assert_eq!((network.head().classes, network.head().channels), (5, 12));
}

#[test]
fn what_cannot_be_written_is_refused_by_name() {
    let refuse = |g: &Graph, side: usize, node: &str| {
        let error = Folded::new(g, &random_weights(g, 3), side).unwrap_err();
        assert!(matches!(&error, Error::Network { node: n, .. } if n == node), "{error}");
    };
    // A batch norm behind a sum.
    let mut g = Graph::new("odd", 3);
    let sum = g.push("sum", Op::Add, &[0, 0]).unwrap();
    g.features = g.push("norm", Op::Norm { channels: 3 }, &[sum]).unwrap();
    g.pooled = g.push("pool", Op::GlobalPool, &[g.features]).unwrap();
    g.logits = g.push("fc", Op::Linear { input: 3, output: 2 }, &[g.pooled]).unwrap();
    refuse(&g, 8, "norm");
    // The pool does not read the features.
    let mut g = resnet8();
    g.features -= 1;
    refuse(&g, SIDE, "pool");
    // Pictures too small for the window: the 7×7 stem with padding 3 needs one pixel.
    let mut g = unusual();
    g.nodes[1].op = Op::Conv { input: 3, output: 12, kernel: 7, stride: 2, padding: 0, groups: 1 };
    refuse(&g, 6, "stem_conv");
    refuse(&unusual(), 0, "input");
}

#[test]
fn a_missing_tensor_is_named() {
    let mut g = resnet8();
    g.nodes[1].name = "stem".into();
    let text = Folded::new(&g, &weights(), SIDE).unwrap_err().to_string();
    assert!(text.contains("stem.weight is missing"), "{text}");
}
